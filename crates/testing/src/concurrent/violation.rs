//! What a history shows to be wrong, by the name that the field gives it.

use steadfast_engine::Version;

use super::history::{History, Seen, TxnId};

/// Something that no order of the transactions explains. Where `reader` is `None`, it is what
/// was found after the crash.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// Two transactions read a key and wrote it, and the second did not see the first.
    LostUpdate {
        /// Whose update is lost.
        lost: TxnId,
        /// Who wrote over it.
        by: TxnId,
        /// Which.
        key: String,
    },
    /// Two transactions each read what the other wrote, and neither saw that.
    WriteSkew {
        /// The first by version.
        first: TxnId,
        /// The second.
        second: TxnId,
        /// What the second read and the first wrote.
        key: String,
    },
    /// A key came into, or out of, a range that was read, before the reader committed.
    Phantom {
        /// Who read the range.
        reader: TxnId,
        /// Who wrote into it.
        writer: TxnId,
        /// Which.
        key: String,
    },
    /// What was read was written again before the reader committed.
    ReadChanged {
        /// Who read.
        reader: TxnId,
        /// Who wrote.
        writer: TxnId,
        /// Which.
        key: String,
    },
    /// Some writes of a transaction were there and others not.
    TornTransaction {
        /// Who saw it.
        reader: Option<TxnId>,
        /// Whose writes.
        writer: TxnId,
        /// What was missing.
        key: String,
    },
    /// A transaction that ended before another began has the higher version.
    RealTime {
        /// The one that had ended.
        earlier: TxnId,
        /// The one that began then.
        later: TxnId,
        /// Their versions.
        versions: (Version, Version),
    },
    /// A view was opened at a version below what was acknowledged, or seen, before.
    StaleView {
        /// Who read there.
        reader: TxnId,
        /// At which version.
        at: Version,
        /// Whose commit, or view, had ended before.
        missed: TxnId,
        /// The version of that.
        version: Version,
    },
    /// A view at a version that began only later.
    EarlyView {
        /// Who read there.
        reader: TxnId,
        /// Who got the version.
        writer: TxnId,
        /// The version.
        version: Version,
    },
    /// A read saw less than its view has.
    StaleRead {
        /// Who read.
        reader: TxnId,
        /// Which.
        key: String,
        /// What it saw.
        saw: Option<Seen>,
        /// The version that it had to see.
        expected: Version,
    },
    /// A read, or a recovery, showed what is above its own version.
    FutureRead {
        /// Who read.
        reader: Option<TxnId>,
        /// Which.
        key: String,
        /// What it saw.
        saw: Seen,
        /// At which version.
        at: Version,
    },
    /// A write of a transaction that failed was seen.
    DirtyRead {
        /// Who saw it.
        reader: Option<TxnId>,
        /// Who had failed.
        writer: TxnId,
        /// Which.
        key: String,
    },
    /// Nobody wrote what was seen.
    NobodyWrote {
        /// Who saw it.
        reader: Option<TxnId>,
        /// Which.
        key: String,
        /// What.
        saw: Seen,
    },
    /// The version after the crash is that of no commit.
    NobodysVersion {
        /// Which.
        version: Version,
    },
    /// A deleted key was there again.
    Resurrected {
        /// Who saw it.
        reader: Option<TxnId>,
        /// Which.
        key: String,
        /// What.
        saw: Seen,
        /// Who had deleted it.
        deleted_by: TxnId,
    },
    /// A version was given twice.
    VersionReuse {
        /// Which.
        version: Version,
        /// To whom first; `None` for before this history.
        first: Option<TxnId>,
        /// To whom again.
        second: TxnId,
    },
    /// A transaction that was in flight has two versions.
    AppliedTwice {
        /// Which.
        txn: TxnId,
        /// Its versions.
        versions: (Version, Version),
    },
    /// A commit that was acknowledged, and had to survive, did not.
    AcknowledgedLost {
        /// Which.
        txn: TxnId,
        /// Its version.
        version: Version,
        /// What is missing; `None` if the recovered version is below it.
        key: Option<String>,
    },
    /// A commit is missing before others that are there.
    Hole {
        /// Which.
        txn: TxnId,
        /// Its version.
        version: Version,
        /// What is missing.
        key: String,
    },
    /// What was in flight at the crash is there in part.
    HalfInFlight {
        /// Which.
        txn: TxnId,
        /// What is missing.
        key: String,
    },
    /// Not a fault of the database: two transactions of unknown outcome wrote the same value to
    /// the same key, and what was seen may be of either.
    Indistinct {
        /// One.
        first: TxnId,
        /// The other.
        second: TxnId,
        /// Which.
        key: String,
    },
}

impl Violation {
    /// Its name, in words.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::LostUpdate { .. } => "lost update",
            Self::WriteSkew { .. } => "write skew",
            Self::Phantom { .. } => "phantom",
            Self::ReadChanged { .. } => "read changed before commit",
            Self::TornTransaction { .. } => "torn transaction",
            Self::RealTime { .. } => "order against real time",
            Self::StaleView { .. } => "stale view",
            Self::EarlyView { .. } => "view ahead of time",
            Self::StaleRead { .. } => "stale read",
            Self::FutureRead { .. } => "read above its view",
            Self::DirtyRead { .. } => "dirty read",
            Self::NobodyWrote { .. } => "value from nowhere",
            Self::NobodysVersion { .. } => "version from nowhere",
            Self::Resurrected { .. } => "resurrected delete",
            Self::VersionReuse { .. } => "version reuse",
            Self::AppliedTwice { .. } => "applied twice",
            Self::AcknowledgedLost { .. } => "acknowledged lost",
            Self::Hole { .. } => "hole",
            Self::HalfInFlight { .. } => "half a transaction in flight",
            Self::Indistinct { .. } => "indistinct writes",
        }
    }

    /// The transactions that have to do with it.
    pub fn transactions(&self) -> Vec<TxnId> {
        let two = |a: Option<TxnId>, b: TxnId| a.into_iter().chain([b]).collect();
        match self {
            Self::LostUpdate { lost: a, by: b, .. }
            | Self::WriteSkew { first: a, second: b, .. }
            | Self::Phantom { reader: b, writer: a, .. }
            | Self::ReadChanged { reader: b, writer: a, .. }
            | Self::RealTime { earlier: a, later: b, .. }
            | Self::StaleView { missed: a, reader: b, .. }
            | Self::EarlyView { reader: a, writer: b, .. }
            | Self::Indistinct { first: a, second: b, .. } => vec![*a, *b],
            Self::TornTransaction { reader, writer, .. }
            | Self::DirtyRead { reader, writer, .. } => two(*reader, *writer),
            Self::Resurrected { reader, deleted_by, .. } => two(*reader, *deleted_by),
            Self::VersionReuse { first, second, .. } => two(*first, *second),
            Self::NobodysVersion { .. } => Vec::new(),
            Self::FutureRead { reader, .. } | Self::NobodyWrote { reader, .. } => {
                reader.iter().copied().collect()
            }
            Self::StaleRead { reader: txn, .. }
            | Self::AppliedTwice { txn, .. }
            | Self::AcknowledgedLost { txn, .. }
            | Self::Hole { txn, .. }
            | Self::HalfInFlight { txn, .. } => vec![*txn],
        }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let who = |reader: &Option<TxnId>| match reader {
            Some(reader) => format!("{reader} saw"),
            None => "after the crash there is".to_owned(),
        };
        write!(f, "{}: ", self.name())?;
        match self {
            Self::LostUpdate { lost, by, key } => {
                write!(f, "{by} read {key} before {lost} wrote it, and wrote over it")
            }
            Self::WriteSkew { first, second, key } => write!(
                f,
                "{second} read {key} before {first} wrote it, and {first} read what {second} writes"
            ),
            Self::Phantom { reader, writer, key } => write!(
                f,
                "{writer} changed whether {key} is there after {reader} read the range, and before {reader} committed"
            ),
            Self::ReadChanged { reader, writer, key } => write!(
                f,
                "{writer} wrote {key} after {reader} read it, and before {reader} committed"
            ),
            Self::TornTransaction { reader, writer, key } => {
                write!(f, "{} only a part of {writer}: not its write of {key}", who(reader))
            }
            Self::RealTime { earlier, later, versions: (a, b) } => {
                write!(f, "{earlier} had ended, as {a}, before {later} began, which is {b}")
            }
            Self::StaleView { reader, at, missed, version } => write!(
                f,
                "{reader} reads at {at} although {missed}, at {version}, had ended before it began"
            ),
            Self::EarlyView { reader, writer, version } => {
                write!(
                    f,
                    "{reader} had ended before {writer} began, which is {version}, and read at or above it"
                )
            }
            Self::StaleRead { reader, key, saw, expected } => {
                write!(f, "{reader} saw {key} ")?;
                match saw {
                    Some(saw) => write!(f, "of {}", saw.version)?,
                    None => f.write_str("missing")?,
                }
                write!(f, "; at its view it was written by {expected}")
            }
            Self::FutureRead { reader, key, saw, at } => {
                write!(f, "{} {key} of {}, at version {at}", who(reader), saw.version)
            }
            Self::DirtyRead { reader, writer, key } => {
                write!(f, "{} what {writer}, which failed, wrote to {key}", who(reader))
            }
            Self::NobodyWrote { reader, key, saw } => {
                write!(f, "{} {key} = {:?} of {}", who(reader), saw.value, saw.version)
            }
            Self::NobodysVersion { version } => {
                write!(f, "after the crash the newest version is {version}, which no commit had")
            }
            Self::Resurrected { reader, key, saw, deleted_by } => write!(
                f,
                "{} {key} of {}, which {deleted_by} had deleted",
                who(reader),
                saw.version
            ),
            Self::VersionReuse { version, first, second } => {
                write!(f, "{version} was given to ")?;
                match first {
                    Some(first) => write!(f, "{first}")?,
                    None => f.write_str("somebody before all this")?,
                }
                write!(f, " and to {second}")
            }
            Self::AppliedTwice { txn, versions: (a, b) } => write!(f, "{txn} is {a} and {b}"),
            Self::AcknowledgedLost { txn, version, key } => {
                write!(f, "{txn}, {version}, was acknowledged and is not there")?;
                match key {
                    Some(key) => write!(f, " ({key})"),
                    None => Ok(()),
                }
            }
            Self::Hole { txn, version, key } => {
                write!(f, "{txn}, {version}, is missing ({key}), and later ones are there")
            }
            Self::HalfInFlight { txn, key } => {
                write!(f, "of {txn} the write of {key} is missing, and others are there")
            }
            Self::Indistinct { first, second, key } => write!(
                f,
                "{first} and {second}, of unknown outcome, wrote the same to {key}: give each write a value of its own"
            ),
        }
    }
}

/// Everything that is wrong with a history. Displays with the transactions in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations {
    found: Vec<Violation>,
    more: usize,
    transactions: Vec<(TxnId, String)>,
}

impl Violations {
    /// More than these are only counted.
    pub(super) const MAX: usize = 10;

    pub(super) fn new(history: &History, found: Vec<Violation>, more: usize) -> Self {
        let mut ids: Vec<_> = found.iter().flat_map(Violation::transactions).collect();
        ids.sort_unstable();
        ids.dedup();
        let text = |id: TxnId| (id, history.txns[id.0].to_string());
        Self { found, more, transactions: ids.into_iter().map(text).collect() }
    }

    /// The first.
    pub fn first(&self) -> &Violation {
        &self.found[0]
    }

    /// Those that were kept, at least one.
    pub fn iter(&self) -> impl Iterator<Item = &Violation> {
        self.found.iter()
    }
}

impl std::error::Error for Violations {}

impl std::fmt::Display for Violations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for violation in &self.found {
            writeln!(f, "{violation}")?;
        }
        if self.more > 0 {
            writeln!(f, "and {} more", self.more)?;
        }
        for (id, text) in &self.transactions {
            writeln!(f, "  {id} {text}")?;
        }
        Ok(())
    }
}
