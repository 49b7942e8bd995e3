//! What came of a crash, and of many.

use std::collections::BTreeMap;

/// What was found after one crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be: the first so many transactions, and all that were promised.
    Prefix(usize),
    /// The first so many, but more were promised.
    Lost {
        /// How many are there.
        found: usize,
        /// How many should be.
        promised: usize,
    },
    /// Of this transaction, counted from 1, one part is there and another not.
    Torn(usize),
    /// A transaction is missing although a later one is there.
    Hole {
        /// Which is missing.
        missing: usize,
        /// Which is there.
        found: usize,
    },
    /// The value of this key was never written, or not yet.
    Garbage(String),
    /// The value of this key is of a transaction that an earlier crash had undone.
    Resurrected(String),
    /// It was not opened, in the engine's words, although something had been acknowledged.
    Refused(String),
    /// The same, before anything was acknowledged.
    RefusedUnborn(String),
    /// The process ended while it opened or read.
    Died(String),
    /// It did not answer in time.
    Hung,
    /// It was opened and read well, and then did not take or keep a transaction.
    Unusable(String),
}

impl Verdict {
    /// Whether it is as it should be.
    pub const fn is_good(&self) -> bool {
        matches!(self, Self::Prefix(_))
    }

    /// One word for it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Prefix(_) => "good",
            Self::Lost { .. } => "lost",
            Self::Torn(_) => "torn",
            Self::Hole { .. } => "hole",
            Self::Garbage(_) => "garbage",
            Self::Resurrected(_) => "resurrected",
            Self::Refused(_) => "refused",
            Self::RefusedUnborn(_) => "refused unborn",
            Self::Died(_) => "died",
            Self::Hung => "hung",
            Self::Unusable(_) => "unusable",
        }
    }
}

/// One thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub verdict: Verdict,
    /// Where it came up, for whoever looks for it.
    pub place: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {:?}", self.place, self.verdict)
    }
}

/// What came of many crashes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Crashes: kills, or moments at which the power was cut.
    pub crashes: u64,
    /// What was opened and judged: one for a kill, several images for a cut.
    pub images: u64,
    /// Transactions that were acknowledged.
    pub acknowledged: u64,
    /// Images in which acknowledged transactions were gone that nothing had been promised of.
    pub unpromised_lost: u64,
    /// The most of them in one image.
    pub unpromised_lost_most: usize,
    /// Images by the name of the verdict.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// The first of each name that went wrong.
    pub findings: Vec<Finding>,
}

impl Tally {
    /// Counts one image. `acknowledged` is how many transactions were.
    pub fn add(&mut self, verdict: &Verdict, acknowledged: usize, place: impl FnOnce() -> String) {
        self.images += 1;
        let count = self.verdicts.entry(verdict.name()).or_default();
        *count += 1;
        if let Verdict::Prefix(found) = *verdict
            && found < acknowledged
        {
            self.unpromised_lost += 1;
            self.unpromised_lost_most = self.unpromised_lost_most.max(acknowledged - found);
        }
        if *count == 1 && !verdict.is_good() {
            self.findings.push(Finding { verdict: verdict.clone(), place: place() });
        }
    }

    /// Images of this verdict.
    pub fn count(&self, name: &str) -> u64 {
        self.verdicts.get(name).copied().unwrap_or(0)
    }

    /// Images that were not as they should be.
    pub fn wrong(&self) -> u64 {
        self.images - self.count("good")
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} crashes, {} images, {} transactions acknowledged; {:?}; lost without a promise in \
             {} images, {} at most",
            self.crashes,
            self.images,
            self.acknowledged,
            self.verdicts,
            self.unpromised_lost,
            self.unpromised_lost_most
        )?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n{finding}"))
    }
}
