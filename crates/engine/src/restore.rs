//! Restoring from entries: each with the version and time it had.

use std::collections::BTreeMap;

use steadfast_core::cohort::{CohortDefinition, check_attributes, ledger_key};
use steadfast_core::collection::{collection_key, item_key};
use steadfast_core::engagement::{self, Edges, GraphDefinition, Recent};
use steadfast_core::signal::{SignalDefinition, signal_key};
use steadfast_core::{
    Key, Namespace, RunId, Timestamp, TypeTag, Value, Version, event_key, limits,
};

use crate::database::Database;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::event_chain::{ChainCheck, EventHash, EventHead, seal};
use crate::events::{
    AppendOptions, Event, StoredReceipt, encode_event, head, idempotency_record_key,
};
use crate::runs::{Run, RunInfo};
use crate::status::RunStatus;
use crate::streams::stream_state;
use crate::transaction::Transaction;

/// Rebuilds one commit as it was. Commits must come in the order of their versions.
pub struct Restore {
    transaction: Transaction,
    version: Version,
    timestamp: Timestamp,
}

impl std::fmt::Debug for Restore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Restore({})", self.version)
    }
}

impl Database {
    /// Begins to rebuild the commit that had `version` and was made at `timestamp`. With no
    /// entry added it only takes the version, as for a commit of which nothing is left.
    ///
    /// # Errors
    ///
    /// Kind `Invalid` if the database has that version already.
    pub fn restore(&self, version: Version, timestamp: Timestamp) -> Result<Restore> {
        let highest = limits::VERSION_MAX;
        if version.0 > highest {
            return Err(Error::Invalid(format!("version {version} is above {highest}")));
        }
        let next = self.current_version();
        if version <= next {
            return Err(Error::Invalid(format!(
                "version {version} cannot be restored: the database is at {next} already"
            )));
        }
        let mut transaction = self.begin()?;
        // One flush at the end serves all.
        transaction.lower_durability();
        Ok(Restore { transaction, version, timestamp })
    }
}

impl Restore {
    /// Adds a run with the id and address it had.
    pub fn run(
        &mut self,
        name: &str,
        namespace: &Namespace,
        status: RunStatus,
        created: Timestamp,
    ) -> Result<Run> {
        self.forked_run(name, namespace, status, created, (Vec::new(), None))
    }

    /// The same for a run that was forked: with the runs that it goes back to, the oldest first,
    /// and the version that it was forked at, if that was in the database that is restored.
    pub fn forked_run(
        &mut self,
        name: &str,
        namespace: &Namespace,
        status: RunStatus,
        created: Timestamp,
        from: (Vec<RunId>, Option<Version>),
    ) -> Result<Run> {
        self.transaction.add_run(name, namespace, status, created, BTreeMap::new(), from)
    }

    /// A run that is added by a later commit, for entries that are older: those of runs that it
    /// was forked from. Nobody finds it before.
    pub fn run_to_come(&mut self, namespace: &Namespace, ancestors: &[RunId]) -> Result<Run> {
        self.transaction.add_namespace(namespace, ancestors)
    }

    /// Changes what is said of a run that is there: a status and metadata that it got after it
    /// was created.
    pub fn change_run(
        &mut self,
        name: &str,
        status: RunStatus,
        metadata: BTreeMap<String, Value>,
    ) -> Result<()> {
        let info = self.transaction.run_info(name)?;
        self.transaction.change_run(&RunInfo { status, metadata, ..info })
    }

    /// Adds an entry of `run`. Its version and time are those of the commit. The events of a
    /// stream come in their order; one whose hash is [`EventHash::NONE`] gets the one it must
    /// have. Of a stream that has an [`Entry::Stream`], that comes in the commit of its first event
    /// already, or in an earlier one, and once more in its own; and idempotency keys are taken from
    /// its [`Entry::Receipt`]s alone.
    ///
    /// # Errors
    ///
    /// Kind `Corruption` if an event is missing or has another hash than it must have.
    pub fn entry(&mut self, run: Run, entry: &Entry) -> Result<()> {
        let tx = &mut self.transaction;
        let mut write = |key: Key, value: &Option<Value>, expiry| match value {
            Some(value) => tx.put(run, &key, value, expiry),
            None => tx.delete(run, &key),
        };
        match entry {
            Entry::Kv { key, value, expiry, .. } => {
                write(Key::new(run.namespace, TypeTag::Kv, key)?, value, *expiry)
            }
            Entry::State { cell, value, .. } => {
                write(Key::new(run.namespace, TypeTag::State, cell)?, value, None)
            }
            Entry::Event { stream, event } => self.event(run, stream, event),
            Entry::Stream { stream, state, .. } => tx.put_stream_state(run, stream, *state),
            Entry::Receipt { key, stream, event, events, expiry, .. } => {
                let EventHead { seq, hash } = *event;
                let receipt = StoredReceipt { stream: stream.clone(), seq, hash, events: *events };
                tx.put(run, &idempotency_record_key(run, key)?, &receipt.to_value()?, *expiry)
            }
            Entry::Signal { name, entity, signal, .. } => {
                let key = signal_key(run.namespace, name, entity)?;
                let Some(signal) = signal else { return write(key, &None, None) };
                signal.check()?;
                tx.put_signal(run, &key, signal)
            }
            Entry::Collection { name, item, is_there, .. } => {
                let key = match item {
                    Some(item) => item_key(run.namespace, name, item)?,
                    None => collection_key(run.namespace, name)?,
                };
                write(key, &is_there.then_some(Value::Null), None)
            }
            Entry::Attributes { entity, attributes, .. } => {
                attributes.as_ref().map_or(Ok(()), check_attributes)?;
                let key = Key::new(run.namespace, TypeTag::Attributes, entity)?;
                write(key, &attributes.clone().map(Value::Map), None)
            }
            Entry::Cohort { cohort, name, signal, .. } => {
                let key = ledger_key(run.namespace, cohort, name)?;
                let Some(signal) = signal else { return write(key, &None, None) };
                signal.check()?;
                tx.put_signal(run, &key, signal)
            }
            Entry::Engaged { graph, actor, items, .. } => {
                let key = engagement::actor_key(run.namespace, graph, actor)?;
                let Some(items) = items else { return write(key, &None, None) };
                let bytes = Recent(items.clone()).encode();
                Recent::decode(&bytes)?;
                tx.put_encoded(run, &key, &bytes)
            }
            Entry::CoEngaged { graph, item, edges, .. } => {
                let key = engagement::item_key(run.namespace, graph, item)?;
                let Some(edges) = edges else { return write(key, &None, None) };
                tx.put_encoded(run, &key, &Edges::new(edges.clone())?.encode())
            }
        }
    }

    /// Adds the definition of a signal.
    pub fn signal_definition(&mut self, name: &str, definition: &SignalDefinition) -> Result<()> {
        self.transaction.put_definition(name, definition)
    }

    /// Adds the definition of a cohort. Those of one commit are added to it together.
    pub fn cohort_definition(&mut self, name: &str, definition: &CohortDefinition) -> Result<()> {
        self.transaction.put_cohort(name, definition.clone())
    }

    /// Adds the definition of a graph.
    pub fn graph_definition(&mut self, name: &str, definition: &GraphDefinition) -> Result<()> {
        self.transaction.put_graph(name, definition)
    }

    fn event(&mut self, run: Run, stream: &[u8], event: &Event) -> Result<()> {
        let mut tx = &mut self.transaction;
        let options = AppendOptions {
            idempotency_key: event.idempotency_key.clone(),
            kind: event.kind.clone(),
            causation: event.causation.clone(),
            correlation: event.correlation.clone(),
            time: event.time,
            scope: event.scope.clone(),
            ..AppendOptions::default()
        };
        let chain = ChainCheck::new(run.id(), stream);
        let last = head(&mut tx, run, stream)?;
        let next = last.map_or(0, |last| last.seq.saturating_add(1));
        if event.seq != next {
            return Err(chain.broken(next, "it is missing"));
        }
        let previous = last.map_or(EventHash::NONE, |last| last.hash);
        let mut value = encode_event(event.payload.clone(), &options)?;
        let mut hash = seal(run.id(), stream, event.seq, &previous, &mut value);
        let ancestors = tx.database().namespaces().ancestors(run.namespace);
        for ancestor in ancestors.iter().filter(|_| event.hash != EventHash::NONE) {
            if hash != event.hash {
                hash = seal(*ancestor, stream, event.seq, &previous, &mut value);
            }
        }
        if event.hash != EventHash::NONE && event.hash != hash {
            let what = "its hash is not that of what it holds and follows";
            return Err(chain.broken(event.seq, what));
        }
        tx.put_encoded(run, &event_key(run.namespace, stream, event.seq)?, &value)?;
        if let Some(key) = &event.idempotency_key
            && stream_state(&mut tx, run, stream)?.is_none()
        {
            let (stream, seq) = (stream.to_vec(), event.seq);
            let receipt = StoredReceipt { stream, seq, hash, events: None };
            tx.put(run, &idempotency_record_key(run, key)?, &receipt.to_value()?, None)?;
        }
        Ok(())
    }

    /// Commits it, without waiting for more than the kernel; [`Database::flush`] at the end
    /// makes everything durable.
    pub fn commit(mut self) -> Result<()> {
        let fixed = Some((self.version, self.timestamp));
        self.transaction.submit_as(fixed)?.wait()?;
        self.transaction.database().forget_definitions();
        Ok(())
    }
}
