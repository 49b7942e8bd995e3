//! A commit as those see it who follow what happens: subscriptions and tails.

use std::sync::Arc;

use steadfast_core::cohort::ledger_of;
use steadfast_core::fork::is_fork_key;
use steadfast_core::signal::{Delta, Observation, SignalDefinition, signal_of};
use steadfast_core::{Key, NamespaceId, Record, RunId, Timestamp, TypeTag, Version, event_seq};
use steadfast_core::{stream_name, stream_prefix};
use steadfast_durability::wal::segment::Epoch;
use steadfast_durability::wal::writer::NamespaceLookup;

use crate::deletion::decode_grave;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::events::{Event, Filter};
use crate::namespaces::Namespaces;
use crate::runs::{Run, RunInfo, decode_info};

/// A place in the history of a database, from which it can be followed on.
///
/// A version alone does not tell one past from another: after a power cut took commits away,
/// others may stand where they stood. With the epoch it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The epoch that the commit was written in; `None` if the version alone is to count.
    pub epoch: Option<Epoch>,
    /// The version of the last commit that was seen; zero before the first.
    pub version: Version,
}

impl From<Version> for Position {
    fn from(version: Version) -> Self {
        Self { epoch: None, version }
    }
}

/// One change that a commit made.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// A run was created, or its entry in the run index changed.
    Run(RunInfo),
    /// A run was deleted, with everything in it; this is what the index last said of it.
    RunDeleted(RunInfo),
    /// Something in a run was written or deleted.
    Entry {
        /// The run.
        run: Run,
        /// What it is now; without a value if it was deleted.
        entry: Entry,
    },
    /// A signal was observed. What came of it, a read says: who follows the log is told what was
    /// added, not what it was added to.
    Observed {
        /// The run.
        run: Run,
        /// The name of the signal.
        signal: String,
        /// Of what.
        of: Observed,
        /// What the name meant.
        definition: SignalDefinition,
        /// In the order in which they were made.
        observations: Vec<Observation>,
    },
}

/// Whose signal was observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// That of an entity.
    Entity(Vec<u8>),
    /// That of a cohort, by name, because an entity that was observed is in it.
    Cohort(String),
}

/// A commit: everything that one transaction changed.
#[derive(Clone)]
pub struct Commit {
    pub(crate) version: Version,
    pub(crate) timestamp: Timestamp,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) records: Arc<[Record]>,
    pub(crate) namespaces: Arc<Namespaces>,
}

impl std::fmt::Debug for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Commit({}, {} writes)", self.version, self.records.len())
    }
}

impl Commit {
    /// Its version.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// When it was made.
    pub const fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// Where to go on behind it.
    pub const fn position(&self) -> Position {
        Position { epoch: self.epoch, version: self.version }
    }

    /// What it wrote, as it is stored, in the order of the log: also what the database keeps
    /// for itself.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// What it changed. Idempotency keys are in the events that carry them. That events were
    /// trimmed is a change of their stream, [`Entry::Stream`].
    pub fn changes(&self) -> impl Iterator<Item = Result<Change>> {
        self.records.iter().filter_map(|record| self.change(record).transpose())
    }

    fn change(&self, record: &Record) -> Result<Option<Change>> {
        if Key::tag_of(record.key()) == Some(TypeTag::Run) {
            if is_fork_key(record.key()) {
                // The run index says it.
                return Ok(None);
            }
            if Key::namespace_of(record.key()) != Some(NamespaceId::SYSTEM) {
                return decode_grave(record).map(|info| Some(Change::RunDeleted(info)));
            }
            // The entry goes from the index in the commit that writes the grave.
            let info = (!record.is_tombstone()).then(|| decode_info(record)).transpose()?;
            return Ok(info.map(Change::Run));
        }
        let run = Key::namespace_of(record.key()).and_then(|id| self.run(id));
        if record.is_delta() {
            return run.map(|run| observed(run, record)).transpose();
        }
        let (Some(run), Some(entry)) = (run, Entry::decode(record)?) else { return Ok(None) };
        Ok(Some(Change::Entry { run, entry }))
    }

    fn run(&self, namespace: NamespaceId) -> Option<Run> {
        let id: RunId = self.namespaces.namespace(namespace)?.run();
        Some(Run { id, namespace })
    }
}

fn observed(run: Run, record: &Record) -> Result<Change> {
    let own = signal_of(record.key()).map(|(name, entity)| (name, Observed::Entity(entity)));
    let cohorts = || ledger_of(record.key()).map(|(of, name)| (name, Observed::Cohort(of)));
    let found = match Key::tag_of(record.key()) {
        Some(TypeTag::Cohort) => cohorts(),
        _ => own,
    };
    let (signal, of) =
        found.ok_or_else(|| Error::Invalid(format!("{record:?} is not of a signal")))?;
    let Delta { definition, observations } = Delta::decode(record.value_bytes())?;
    Ok(Change::Observed { run, signal, of, definition, observations })
}

/// Which part of a database somebody wants to follow: everything, or events by run, stream,
/// kind and scope.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Region {
    run: Option<Run>,
    /// The name of a stream, or what it begins with.
    stream: Option<(Vec<u8>, Match)>,
    filter: Filter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Name,
    Prefix,
}

impl Region {
    /// Everything: every change of every run.
    pub fn all() -> Self {
        Self::default()
    }

    /// Every change in `run`.
    pub fn run(run: Run) -> Self {
        Self { run: Some(run), ..Self::default() }
    }

    /// The events of one stream.
    #[must_use]
    pub fn stream(mut self, name: impl AsRef<[u8]>) -> Self {
        self.stream = Some((name.as_ref().to_vec(), Match::Name));
        self
    }

    /// The events of all streams whose names begin with this; with the empty name, of all.
    #[must_use]
    pub fn streams(mut self, prefix: impl AsRef<[u8]>) -> Self {
        self.stream = Some((prefix.as_ref().to_vec(), Match::Prefix));
        self
    }

    /// Only events of this kind.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.filter.kind = Some(kind.into());
        self
    }

    /// Only events in this scope.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.filter.scope = Some(scope.into());
        self
    }

    fn is_of_events(&self) -> bool {
        self.stream.is_some() || self.filter != Filter::default()
    }

    /// Whether a change of a record with this key may lie in the region; what else decides, the
    /// event itself says.
    pub(crate) fn may_have(&self, key: &[u8]) -> bool {
        if self.run.is_some_and(|run| Key::namespace_of(key) != Some(run.namespace)) {
            return false;
        }
        match (Key::tag_of(key), &self.stream) {
            (Some(TypeTag::Event), Some((name, Match::Name))) => Key::namespace_of(key)
                .and_then(|id| stream_prefix(id, name).ok())
                .is_some_and(|prefix| event_seq(key).is_some() && key.starts_with(&prefix)),
            (Some(TypeTag::Event), Some((name, Match::Prefix))) => {
                stream_name(key).is_some_and(|stream| stream.starts_with(name))
            }
            (tag, _) => tag == Some(TypeTag::Event) || !self.is_of_events(),
        }
    }

    /// Whether `stream` lies in the region.
    pub(crate) fn has_stream(&self, stream: &[u8]) -> bool {
        match &self.stream {
            None => true,
            Some((name, Match::Name)) => stream == name,
            Some((prefix, Match::Prefix)) => stream.starts_with(prefix),
        }
    }

    /// Whether an event of one of its streams lies in the region.
    pub(crate) fn admits(&self, event: &Event) -> bool {
        self.filter.admits(event)
    }

    /// Whether any of `records` may lie in the region.
    pub(crate) fn touches(&self, records: &[Record]) -> bool {
        *self == Self::default() || records.iter().any(|record| self.may_have(record.key()))
    }

    /// Whether anything that `commit` changed lies in the region.
    pub(crate) fn meets(&self, commit: &Commit) -> Result<bool> {
        if self.filter == Filter::default() {
            // Its keys have said so.
            return Ok(true);
        }
        for change in commit.changes() {
            if self.contains(&change?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether `change` lies in the region.
    pub fn contains(&self, change: &Change) -> bool {
        match change {
            Change::RunDeleted(info) => {
                self.run.is_none_or(|run| run == info.run) && !self.is_of_events()
            }
            Change::Run(info) => self.run.is_none_or(|run| run == info.run) && !self.is_of_events(),
            Change::Observed { run, .. } => {
                self.run.is_none_or(|wanted| wanted == *run) && !self.is_of_events()
            }
            Change::Entry { run, entry } => {
                self.run.is_none_or(|wanted| wanted == *run)
                    && match entry {
                        Entry::Event { stream, event } => {
                            self.has_stream(stream) && self.admits(event)
                        }
                        _ => !self.is_of_events(),
                    }
            }
        }
    }
}
