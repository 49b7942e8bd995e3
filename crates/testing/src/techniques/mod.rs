//! Every technique of this crate in one fixed order, from cheap to dear: what is run over an
//! engine to say that it is sound, and over a sabotaged one to say which technique found that.
//!
//! No technique knows what it looks for. Each says what it saw that must not be.

use std::collections::BTreeMap;
use std::time::Instant;

use steadfast_engine::DurabilityMode;

use crate::durations::Durations;
use crate::panics::caught;
use crate::sim::StepKind;
use crate::workload::MODES;

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
    /// The durability modes that are tried.
    pub modes: Vec<DurabilityMode>,
    /// Nothing new is begun after this.
    pub until: Option<Instant>,
    /// A program that fails is made shorter.
    pub shortens: bool,
    /// The time was over before all was tried.
    pub cut_short: bool,
    /// How long openings took.
    pub openings: Durations,
    /// How many crash points came before which step, on which kind of file.
    pub steps: BTreeMap<(StepKind, &'static str), u64>,
}

impl Trial {
    /// Of all modes, without a limit.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            images: 0,
            modes: MODES.to_vec(),
            until: None,
            shortens: false,
            cut_short: false,
            openings: Durations::default(),
            steps: BTreeMap::new(),
        }
    }

    /// Whether there is time for more.
    fn goes_on(&mut self) -> bool {
        let goes_on = self.until.is_none_or(|until| Instant::now() < until);
        self.cut_short |= !goes_on;
        goes_on
    }

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
    /// Whether each durability mode is tried by itself.
    pub by_mode: bool,
    /// Whether another seed does something else.
    pub by_seed: bool,
    run: fn(&mut Trial) -> Verdict,
}

/// All of them, from cheap to dear.
pub const ALL: &[Technique] = &[
    Technique {
        name: "plain use",
        what: "programs, expiry, history and copies of rows held against a model, without a crash",
        by_mode: true,
        by_seed: true,
        run: plain::run,
    },
    Technique {
        name: "isolation",
        what: "transactions interleaved at random, each read held against the order of versions",
        by_mode: false,
        by_seed: true,
        run: isolation::run,
    },
    Technique {
        name: "promises",
        what: "the power goes right after somebody was told that something is durable",
        by_mode: false,
        by_seed: true,
        run: promises::run,
    },
    Technique {
        name: "upkeep",
        what: "checkpoints, compaction and reading beside them, with and without damage",
        by_mode: true,
        by_seed: false,
        run: upkeep::run,
    },
    Technique {
        name: "failing reads",
        what: "every look at the disk fails in turn while a database is opened",
        by_mode: true,
        by_seed: true,
        run: failing::reads,
    },
    Technique {
        name: "hostile values",
        what: "crash images of a program whose values hold what looks like parts of a log",
        by_mode: false,
        by_seed: false,
        run: cuts::hostile,
    },
    Technique {
        name: "kills",
        what: "the process ends at every I/O step of a program",
        by_mode: true,
        by_seed: true,
        run: cuts::kills,
    },
    Technique {
        name: "damage",
        what: "bits flipped, files cut, lost, exchanged, old or of another life",
        by_mode: true,
        by_seed: false,
        run: damaged::run,
    },
    Technique {
        name: "power cuts",
        what: "crash images of every I/O step of short programs",
        by_mode: true,
        by_seed: false,
        run: cuts::short,
    },
    Technique {
        name: "failing syncs and writes",
        what: "a sample of syncs and writes fails in turn while a program runs",
        by_mode: true,
        by_seed: true,
        run: failing::writes,
    },
    #[cfg(feature = "hooks")]
    Technique {
        name: "scenario matrix",
        what: "power cuts at every crash point, with what must be found then",
        by_mode: false,
        by_seed: false,
        run: matrix,
    },
    Technique {
        name: "long power cuts",
        what: "crash images of every I/O step of long programs, and inside recovery",
        by_mode: true,
        by_seed: true,
        run: cuts::long,
    },
    Technique {
        name: "random programs",
        what: "kills and power cuts at every I/O step of short programs drawn from the seed",
        by_mode: true,
        by_seed: true,
        run: cuts::random,
    },
];

impl Technique {
    /// Looks. Returns how much was judged, to the first thing that must not be or to the end. A
    /// panic is such a thing.
    pub fn look(&self, seed: u64) -> (u64, Verdict) {
        let mut trial = Trial::new(seed);
        let verdict = self.look_in(&mut trial);
        (trial.images, verdict)
    }

    /// Looks as the trial says, and notes in it what was seen on the way.
    ///
    /// # Errors
    ///
    /// What was found that must not be.
    pub fn look_in(&self, trial: &mut Trial) -> Verdict {
        caught(|| (self.run)(trial))
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
