//! [`History`]: what each transaction asked for and was told, and when. Keys and values are
//! text: whatever tells them apart.

use std::collections::{BTreeMap, BTreeSet};

use steadfast_engine::{Database, Result, Run, Value, Version};

/// A transaction, by its place in [`History::txns`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId(pub usize);

impl std::fmt::Display for TxnId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "T{}", self.0)
    }
}

/// A value as it was seen, and the version that it said it had.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seen {
    /// Of the commit that wrote it.
    pub version: Version,
    /// As text.
    pub value: String,
}

/// One read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Of one key.
    Key {
        /// Which.
        key: String,
        /// `None`: it was not there.
        found: Option<Seen>,
    },
    /// Of every key in a range.
    Range {
        /// The first key that counts.
        from: String,
        /// The first that does not; `None` for no end.
        to: Option<String>,
        /// Keys that the transaction itself had written: of them the read says nothing.
        own: BTreeSet<String>,
        /// The others, in order.
        found: Vec<(String, Seen)>,
    },
}

/// What a transaction was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is committed.
    Committed(Version),
    /// It has written nothing, and what it read is good.
    ReadOnly,
    /// It is not committed, for certain.
    Failed,
    /// Nobody knows: it was under way when the process ended, or a sync failed. The version,
    /// where it had been given one.
    Unknown(Option<Version>),
}

/// One transaction, as whoever ran it knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txn {
    /// Who ran it.
    pub who: String,
    /// Its place in real time: before it did anything.
    pub invoked: u64,
    /// After it was told its outcome; `None` if it never was.
    pub ended: Option<u64>,
    /// The version that it read at.
    pub snapshot: Option<Version>,
    /// In order.
    pub reads: Vec<Read>,
    /// What it wrote last to each key; `None` deletes.
    pub writes: BTreeMap<String, Option<String>>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a database held at a version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The newest commit.
    pub version: Version,
    /// The keys that were there.
    pub contents: BTreeMap<String, Seen>,
}

impl State {
    /// The key-values of `run` as they are now.
    pub fn of(db: &Database, run: Run) -> Result<Self> {
        let view = db.view()?;
        let mut contents = BTreeMap::new();
        for row in view.kv_scan(run, b"")? {
            let (key, found) = row?;
            let seen = Seen { version: found.version, value: text_of(&found.value) };
            contents.insert(key_text(&key), seen);
        }
        Ok(Self { version: view.version(), contents })
    }
}

/// Transactions on a database that began with a known state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// What was there before the first of them.
    pub initial: State,
    /// In the order in which they were invoked.
    pub txns: Vec<Txn>,
    /// What was promised to survive a power cut, and when that was known.
    pub promises: Vec<(u64, Version)>,
}

impl History {
    /// What was known at `event`: later transactions are not there, those under way then are
    /// unknown.
    #[must_use]
    pub fn until(&self, event: u64) -> Self {
        let known = |txn: &Txn| {
            let mut txn = txn.clone();
            if txn.ended.is_some_and(|ended| ended > event) {
                txn.ended = None;
                // What it read may be of commits that are not there yet.
                txn.snapshot = None;
                txn.reads.clear();
                txn.outcome = match txn.outcome {
                    Outcome::Committed(version) => Outcome::Unknown(Some(version)),
                    Outcome::Unknown(version) => Outcome::Unknown(version),
                    // Also one that failed: at this event its bytes may be in the log.
                    Outcome::Failed | Outcome::ReadOnly => Outcome::Unknown(None),
                };
            }
            txn
        };
        let begun = self.txns.iter().filter(|txn| txn.invoked <= event);
        Self {
            initial: self.initial.clone(),
            txns: begun.map(known).collect(),
            promises: self.promises.iter().filter(|promise| promise.0 <= event).copied().collect(),
        }
    }

    /// The newest version that was promised to survive a power cut.
    pub fn promised(&self) -> Version {
        let promised = self.promises.iter().map(|promise| promise.1).max();
        promised.unwrap_or(self.initial.version)
    }
}

/// A key as text.
pub(super) fn key_text(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) => text.to_owned(),
        Err(_) => key.escape_ascii().to_string(),
    }
}

/// A value as text.
pub(super) fn text_of(value: &Value) -> String {
    match (value.as_str(), value.as_int()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(number)) => number.to_string(),
        (None, None) => format!("{value:?}"),
    }
}

fn write_seen(f: &mut std::fmt::Formatter<'_>, seen: Option<&Seen>) -> std::fmt::Result {
    match seen {
        Some(Seen { version, value }) => write!(f, "{value:?}@{version}"),
        None => f.write_str("nothing"),
    }
}

impl std::fmt::Display for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key { key, found } => {
                write!(f, "read {key} = ")?;
                write_seen(f, found.as_ref())
            }
            Self::Range { from, to, found, .. } => {
                write!(f, "read [{from}, {}) = {{", to.as_deref().unwrap_or("∞"))?;
                for (index, (key, seen)) in found.iter().enumerate() {
                    write!(f, "{}{key} = ", if index == 0 { "" } else { ", " })?;
                    write_seen(f, Some(seen))?;
                }
                f.write_str("}")
            }
        }
    }
}

impl std::fmt::Display for Txn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "by {}, from {} to ", self.who, self.invoked)?;
        match self.ended {
            Some(ended) => write!(f, "{ended}")?,
            None => f.write_str("the end")?,
        }
        match self.outcome {
            Outcome::Committed(version) => write!(f, ": committed as {version}")?,
            Outcome::ReadOnly => f.write_str(": read only")?,
            Outcome::Failed => f.write_str(": failed")?,
            Outcome::Unknown(None) => f.write_str(": outcome unknown")?,
            Outcome::Unknown(Some(version)) => write!(f, ": outcome unknown, version {version}")?,
        }
        if let Some(snapshot) = self.snapshot {
            write!(f, "; at {snapshot}")?;
        }
        for read in &self.reads {
            write!(f, "; {read}")?;
        }
        for (key, value) in &self.writes {
            match value {
                Some(value) => write!(f, "; put {key} = {value:?}")?,
                None => write!(f, "; delete {key}")?,
            }
        }
        Ok(())
    }
}
