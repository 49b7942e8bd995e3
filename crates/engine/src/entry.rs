//! Everything that is in a database, one entry at a time: what a dump writes and a restore
//! reads.

use std::collections::BTreeMap;

use steadfast_core::cohort::{Attributes, ledger_of};
use steadfast_core::collection::item_of;
use steadfast_core::engagement::{Edge, GraphRow, row_of};
use steadfast_core::signal::{Signal, signal_of};
use steadfast_core::{
    Key, Record, Timestamp, TypeTag, Value, Version, prefix_end, stream_name, stream_of,
};
use steadfast_durability::wal::writer::NamespaceLookup;

use crate::attributes;
use crate::coengagement::{edges_in, recent_in};
use crate::collections::not_an_item;
use crate::error::Result;
use crate::event_chain::EventHead;
use crate::events::{Event, StoredReceipt, decode_event};
use crate::fork::Versions;
use crate::runs::{Run, RunInfo};
use crate::signals::decode_signal;
use crate::source::Source;
use crate::streams::{StreamState, Untrimmed};
use crate::view::View;

/// One entry of a database.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Entry {
    /// A key-value.
    Kv {
        /// The key.
        key: Vec<u8>,
        /// The value; `None` if the key was deleted, which only a history shows.
        value: Option<Value>,
        /// The commit that wrote it.
        version: Version,
        /// When that was.
        timestamp: Timestamp,
        /// When it stops being there, if ever.
        expiry: Option<Timestamp>,
    },
    /// An event.
    Event {
        /// Its stream.
        stream: Vec<u8>,
        /// The event.
        event: Event,
    },
    /// What is kept of a stream beside its events; comes before them. Only of streams that were
    /// trimmed, or whose idempotency keys do not live for ever.
    Stream {
        /// Its name.
        stream: Vec<u8>,
        /// Where it was trimmed, and how long keys live.
        state: StreamState,
        /// The commit that wrote it.
        version: Version,
        /// When that was.
        timestamp: Timestamp,
    },
    /// An idempotency key that answers, of a stream that has an [`Entry::Stream`]. Those of all
    /// other streams are in the events that carry them.
    Receipt {
        /// The key.
        key: String,
        /// The stream that the event was appended to.
        stream: Vec<u8>,
        /// The event.
        event: EventHead,
        /// How many events may follow in the stream before the key stands for nothing; `None` for
        /// any number.
        events: Option<u64>,
        /// The commit that wrote it.
        version: Version,
        /// When that was.
        timestamp: Timestamp,
        /// When it stops being there, if ever.
        expiry: Option<Timestamp>,
    },
    /// A state cell.
    State {
        /// Its name.
        cell: Vec<u8>,
        /// The value; `None` if it was deleted, which only a history shows.
        value: Option<Value>,
        /// The commit that wrote it.
        version: Version,
        /// When that was.
        timestamp: Timestamp,
    },
    /// A signal of an entity.
    Signal {
        /// Its name.
        name: String,
        /// Whose it is.
        entity: Vec<u8>,
        /// What is known of it; `None` if it was deleted, which only a history shows.
        signal: Option<Signal>,
        /// The commit that wrote it.
        version: Version,
        /// When that was.
        timestamp: Timestamp,
    },
    /// An item of a collection, or a collection that was created.
    Collection {
        /// The name of the collection.
        name: String,
        /// The item; `None` for the collection itself.
        item: Option<Vec<u8>>,
        /// Whether it is there; if not it was removed, which only a history shows.
        is_there: bool,
        /// The commit that wrote it.
        version: Version,
        /// When that was.
        timestamp: Timestamp,
    },
    /// The attributes of an entity.
    Attributes {
        /// Whose they are.
        entity: Vec<u8>,
        /// By name; `None` if they were deleted, which only a history shows.
        attributes: Option<Attributes>,
        /// The commit that wrote them.
        version: Version,
        /// When that was.
        timestamp: Timestamp,
    },
    /// What a cohort has of a signal.
    Cohort {
        /// The name of the cohort.
        cohort: String,
        /// The name of the signal.
        name: String,
        /// What was counted; `None` if it was deleted, which only a history shows.
        signal: Option<Signal>,
        /// The commit that wrote it.
        version: Version,
        /// When that was.
        timestamp: Timestamp,
    },
    /// What an actor engaged with last in a graph.
    Engaged {
        /// The graph.
        graph: String,
        /// Who.
        actor: Vec<u8>,
        /// Newest first; `None` if it was deleted, which only a history shows.
        items: Option<Vec<Vec<u8>>>,
        /// The commit that wrote it.
        version: Version,
        /// When that was.
        timestamp: Timestamp,
    },
    /// The edges of an item in a graph.
    CoEngaged {
        /// The graph.
        graph: String,
        /// Whose edges they are.
        item: Vec<u8>,
        /// By the other item; `None` if they were deleted, which only a history shows.
        edges: Option<Vec<Edge<'static>>>,
        /// The commit that wrote it.
        version: Version,
        /// When that was.
        timestamp: Timestamp,
    },
}

impl Entry {
    /// The commit that wrote it.
    pub const fn version(&self) -> Version {
        match self {
            Self::Kv { version, .. }
            | Self::Stream { version, .. }
            | Self::Receipt { version, .. }
            | Self::State { version, .. }
            | Self::Signal { version, .. }
            | Self::Collection { version, .. }
            | Self::Attributes { version, .. }
            | Self::Cohort { version, .. }
            | Self::Engaged { version, .. }
            | Self::CoEngaged { version, .. } => *version,
            Self::Event { event, .. } => event.version,
        }
    }

    /// When it was committed.
    pub const fn timestamp(&self) -> Timestamp {
        match self {
            Self::Kv { timestamp, .. }
            | Self::Stream { timestamp, .. }
            | Self::Receipt { timestamp, .. }
            | Self::State { timestamp, .. }
            | Self::Signal { timestamp, .. }
            | Self::Collection { timestamp, .. }
            | Self::Attributes { timestamp, .. }
            | Self::Cohort { timestamp, .. }
            | Self::Engaged { timestamp, .. }
            | Self::CoEngaged { timestamp, .. } => *timestamp,
            Self::Event { event, .. } => event.timestamp,
        }
    }

    pub(crate) fn decode(record: &Record) -> Result<Option<Self>> {
        let value = || if record.is_tombstone() { Ok(None) } else { record.value().map(Some) };
        let name = Key::user_part(record.key()).to_vec();
        let (version, timestamp) = (record.version(), record.timestamp());
        Ok(Some(match Key::tag_of(record.key()) {
            Some(TypeTag::Kv) => {
                Self::Kv { key: name, value: value()?, version, timestamp, expiry: record.expiry() }
            }
            Some(TypeTag::State) => Self::State { cell: name, value: value()?, version, timestamp },
            Some(TypeTag::Event) if record.is_tombstone() => return Ok(None),
            Some(TypeTag::Event) if let Some(stream) = stream_of(record.key()) => {
                Self::Stream { stream, state: StreamState::decode(record)?, version, timestamp }
            }
            Some(TypeTag::Event) => {
                let stream = stream_name(record.key())
                    .ok_or_else(|| record.undecodable("it is of no stream"))?;
                Self::Event { stream, event: decode_event(record)? }
            }
            Some(TypeTag::Signal) => {
                let (name, entity) = signal_of(record.key())
                    .ok_or_else(|| record.undecodable("it is of no signal"))?;
                let signal = match record.is_tombstone() {
                    true => None,
                    false => Some(decode_signal(record)?),
                };
                Self::Signal { name, entity, signal, version, timestamp }
            }
            Some(TypeTag::Collection) => {
                let (name, item) = item_of(record.key()).ok_or_else(|| not_an_item(record))?;
                let item = Some(item).filter(|item| !item.is_empty()).map(<[u8]>::to_vec);
                Self::Collection {
                    name,
                    item,
                    is_there: !record.is_tombstone(),
                    version,
                    timestamp,
                }
            }
            Some(TypeTag::Attributes) => {
                let attributes = unless_deleted(record, attributes::decode)?;
                Self::Attributes { entity: name, attributes, version, timestamp }
            }
            Some(TypeTag::Cohort) => {
                let (cohort, name) = ledger_of(record.key())
                    .ok_or_else(|| record.undecodable("it is of no cohort"))?;
                let signal = unless_deleted(record, decode_signal)?;
                Self::Cohort { cohort, name, signal, version, timestamp }
            }
            Some(TypeTag::Engagement) => match row_of(record.key()) {
                Some((graph, GraphRow::Actor(actor))) => {
                    let recent = |it: &Record| Ok(recent_in(it)?.0);
                    let items = unless_deleted(record, recent)?;
                    Self::Engaged { graph, actor, items, version, timestamp }
                }
                Some((graph, GraphRow::Item(item))) => {
                    let own = |it: &Record| Ok(edges_in(it)?.into_owned());
                    let edges = unless_deleted(record, own)?;
                    let edges = edges.map(|edges| edges.iter().cloned().collect());
                    Self::CoEngaged { graph, item, edges, version, timestamp }
                }
                None => return Err(record.undecodable("it is of no graph").into()),
            },
            // The receipts of most streams are in the events that carry their keys.
            _ => return Ok(None),
        }))
    }
}

fn unless_deleted<T>(
    record: &Record,
    decode: impl FnOnce(&Record) -> Result<T>,
) -> Result<Option<T>> {
    if record.is_tombstone() { Ok(None) } else { decode(record).map(Some) }
}

/// The entries of a run in key order: key-values, then streams with their events, state cells,
/// signals, receipts, collections, attributes, what cohorts have counted, then graphs.
pub struct Entries {
    rows: Untrimmed<Box<dyn Iterator<Item = Result<Record>> + Send>>,
    now: Timestamp,
    /// How many events were ever appended to the streams of which something is kept.
    streams: BTreeMap<Vec<u8>, u64>,
    /// The last idempotency key.
    key: Vec<u8>,
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entries")
    }
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.rows.next()?.and_then(|record| self.entry(&record)) {
                Ok(None) => {}
                Ok(Some(entry)) => return Some(Ok(entry)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Entries {
    fn new(rows: Box<dyn Iterator<Item = Result<Record>> + Send>, now: Timestamp) -> Self {
        let rows = Untrimmed::of(rows);
        Self { rows, now, streams: BTreeMap::new(), key: Vec::new() }
    }

    fn entry(&mut self, record: &Record) -> Result<Option<Entry>> {
        if Key::tag_of(record.key()) == Some(TypeTag::Idempotency) {
            return self.receipt(record);
        }
        let entry = Entry::decode(record)?;
        match &entry {
            Some(Entry::Stream { stream, state, .. }) => {
                self.streams.insert(stream.clone(), state.oldest());
            }
            Some(Entry::Event { stream, event }) if !self.streams.is_empty() => {
                if let Some(appended) = self.streams.get_mut(stream) {
                    *appended = event.seq.saturating_add(1);
                }
            }
            _ => {}
        }
        Ok(entry)
    }

    fn receipt(&mut self, record: &Record) -> Result<Option<Entry>> {
        // Of a key only the newest version says anything, also in a history.
        let newest = self.key != record.key();
        self.key.clear();
        self.key.extend_from_slice(record.key());
        if self.streams.is_empty() || !newest || !record.is_live(self.now) {
            return Ok(None);
        }
        let receipt = StoredReceipt::decode(record)?;
        let appended = self.streams.get(&receipt.stream);
        if !appended.is_some_and(|appended| receipt.answers(*appended)) {
            return Ok(None);
        }
        let StoredReceipt { stream, seq, hash, events } = receipt;
        let key = std::str::from_utf8(Key::user_part(record.key()))
            .map_err(|_| record.undecodable("its key is no idempotency key"))?;
        Ok(Some(Entry::Receipt {
            key: key.to_owned(),
            stream,
            event: EventHead { seq, hash },
            events,
            version: record.version(),
            timestamp: record.timestamp(),
            expiry: record.expiry(),
        }))
    }
}

impl View {
    /// Everything in `run` that this view shows. The first entry is an error if it shows no such
    /// run.
    pub fn entries(&self, run: Run) -> Entries {
        self.entries_of(run, false)
    }

    /// Every kept version of everything in `run`, newest first within a key, deletions too. What
    /// was trimmed is not in it.
    pub fn entries_with_history(&self, run: Run) -> Entries {
        self.entries_of(run, true)
    }

    /// Every kept version of a key up to this view, newest first.
    pub(crate) fn entry_versions(&self, run: Run, key: &Key) -> Result<Vec<Entry>> {
        Source::check_run(&self, run)?;
        let versions = self.records_of(key.as_bytes())?;
        versions.iter().filter_map(|record| Entry::decode(record).transpose()).collect()
    }

    fn entries_of(&self, run: Run, history: bool) -> Entries {
        if let Err(error) = Source::check_run(&self, run) {
            return Entries::new(Box::new(std::iter::once(Err(error))), self.now());
        }
        let start = run.namespace.0.to_be_bytes().to_vec();
        let end = prefix_end(&start);
        let rows: Box<dyn Iterator<Item = Result<Record>> + Send> = if history {
            match Versions::new(&self.inner, &self.namespaces, &start, end.as_deref()) {
                Ok(versions) => Box::new(versions),
                Err(error) => Box::new(std::iter::once(Err(error))),
            }
        } else {
            let mut source = self;
            Box::new(source.rows(start, end))
        };
        Entries::new(rows, self.now())
    }

    /// Every run, in the order in which their data lies, which is the order in which they
    /// were first used.
    pub fn runs_in_key_order(&self) -> Result<Vec<RunInfo>> {
        let mut runs = self.list_runs()?;
        runs.sort_by_key(|info| info.run.namespace);
        Ok(runs)
    }

    /// Tenant, application and agent of a run.
    pub fn namespace_of(&self, run: Run) -> Option<steadfast_core::Namespace> {
        self.namespaces.namespace(run.namespace)
    }
}
