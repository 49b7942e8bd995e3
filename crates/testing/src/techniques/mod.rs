//! Every technique of this crate in one fixed order, from cheap to dear: what is run over an
//! engine to say that it is sound, and over a sabotaged one to say which technique found that.
//!
//! No technique knows what it looks for. Each says what it saw that must not be.

use std::panic::{AssertUnwindSafe, catch_unwind};

mod cuts;
mod damaged;
mod failing;
mod isolation;
mod plain;
mod promises;
mod upkeep;

/// `Err` says what was found that must not be.
pub type Verdict = Result<(), String>;

/// A run of one technique.
#[derive(Debug)]
pub struct Trial {
    /// Where random choices begin.
    pub seed: u64,
    /// What was judged so far: crash images, damaged files, schedules, databases.
    pub images: u64,
}

impl Trial {
    /// Counts one that was judged, and says where it failed.
    fn judged<T>(&mut self, verdict: Result<T, String>, place: impl FnOnce() -> String) -> Verdict {
        self.images += 1;
        verdict.map(drop).map_err(|why| format!("{}: {why}", place()))
    }
}

/// A way to look for what is wrong with an engine.
#[derive(Debug, Clone, Copy)]
pub struct Technique {
    /// What it is called.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    run: fn(&mut Trial) -> Verdict,
}

/// All of them, from cheap to dear.
pub const ALL: &[Technique] = &[
    Technique {
        name: "plain use",
        what: "programs, expiry, history and copies of rows held against a model, without a crash",
        run: plain::run,
    },
    Technique {
        name: "isolation",
        what: "transactions interleaved at random, each read held against the order of versions",
        run: isolation::run,
    },
    Technique {
        name: "promises",
        what: "the power goes right after somebody was told that something is durable",
        run: promises::run,
    },
    Technique {
        name: "upkeep",
        what: "checkpoints, compaction and reading beside them, with and without damage",
        run: upkeep::run,
    },
    Technique {
        name: "failing reads",
        what: "every look at the disk fails in turn while a database is opened",
        run: failing::reads,
    },
    Technique {
        name: "hostile values",
        what: "crash images of a program whose values hold what looks like parts of a log",
        run: cuts::hostile,
    },
    Technique {
        name: "kills",
        what: "the process ends at every I/O step of a program",
        run: cuts::kills,
    },
    Technique {
        name: "damage",
        what: "bits flipped, files cut, lost, exchanged, old or of another life",
        run: damaged::run,
    },
    Technique {
        name: "power cuts",
        what: "crash images of every I/O step of short programs",
        run: cuts::short,
    },
    Technique {
        name: "failing syncs and writes",
        what: "a sample of syncs and writes fails in turn while a program runs",
        run: failing::writes,
    },
    #[cfg(feature = "hooks")]
    Technique {
        name: "scenario matrix",
        what: "power cuts at every crash point, with what must be found then",
        run: matrix,
    },
    Technique {
        name: "long power cuts",
        what: "crash images of every I/O step of long programs, and inside recovery",
        run: cuts::long,
    },
];

impl Technique {
    /// Looks. Returns how much was judged, to the first thing that must not be or to the end. A
    /// panic is such a thing.
    pub fn look(&self, seed: u64) -> (u64, Verdict) {
        let mut trial = Trial { seed, images: 0 };
        let caught = catch_unwind(AssertUnwindSafe(|| (self.run)(&mut trial)));
        let verdict = caught.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panicked: {}", text.unwrap_or("?")))
        });
        (trial.images, verdict)
    }
}

#[cfg(feature = "hooks")]
fn matrix(trial: &mut Trial) -> Verdict {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    for (number, row) in crate::scenarios::matrix().iter().enumerate() {
        if row.crash == crate::death::CrashType::PowerLoss {
            let place = dir.path().join(number.to_string());
            std::fs::create_dir(&place).map_err(|error| error.to_string())?;
            trial.judged(row.run(&place, None, trial.seed), || row.to_string())?;
        }
    }
    Ok(())
}
