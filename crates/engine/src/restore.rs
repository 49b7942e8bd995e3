//! Restoring from entries: each with the version and time it had.

use std::collections::BTreeMap;

use steadfast_core::signal::{SignalDefinition, signal_key};
use steadfast_core::{
    Key, Namespace, RunId, Timestamp, TypeTag, Value, Version, event_key, event_seq, limits,
};

use crate::database::Database;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::event_chain::{ChainCheck, EventHash, seal, stored_hash};
use crate::events::{
    AppendOptions, Event, encode_event, idempotency_record_key, idempotency_value, last_event,
};
use crate::runs::{Run, RunInfo};
use crate::status::RunStatus;
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
    /// have.
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
            Entry::Signal { name, entity, signal, .. } => {
                let key = signal_key(run.namespace, name, entity)?;
                let Some(signal) = signal else { return write(key, &None, None) };
                signal.check()?;
                tx.put_signal(run, &key, signal)
            }
        }
    }

    /// Adds the definition of a signal.
    pub fn signal_definition(&mut self, name: &str, definition: &SignalDefinition) -> Result<()> {
        self.transaction.put_definition(name, definition)
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
        let last = last_event(&mut tx, run, stream)?;
        let next = last.as_ref().and_then(|last| event_seq(last.key())).map_or(0, |seq| seq + 1);
        if event.seq != next {
            return Err(chain.broken(next, "it is missing"));
        }
        let previous = last.as_ref().and_then(stored_hash).unwrap_or(EventHash::NONE);
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
        if let Some(key) = &event.idempotency_key {
            let receipt = idempotency_value(stream, event.seq, &hash)?;
            tx.put(run, &idempotency_record_key(run, key)?, &receipt, None)?;
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
