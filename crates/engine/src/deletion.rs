//! Deleting a run: two records, whatever it holds.
//!
//! The commit that deletes a run takes it out of the index and writes the *grave* of its
//! namespace, a record in the namespace itself that stays for as long as the database. From that
//! version on nobody reaches the rows: they are found by way of the index alone, namespaces are
//! never given twice, and handles that are still about are refused. Views that are older go on
//! reading them.
//!
//! The rows go with the next full compaction, as if each had been deleted at the version of the
//! grave: tombstones of that version are laid over them, in memory only. So retention, floors and
//! open views are respected as everywhere else, and nothing of it need be in the log: what a
//! crash undoes, the next compaction does again from the grave.

use steadfast_core::fork::fork_key;
use steadfast_core::{Key, KeyRef, NamespaceId, Record, RecordBuilder, TypeTag, Value, Version};
use steadfast_storage::UnifiedStore;

use crate::commit::Receipt;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::runs::{IndexEntry, Run, RunInfo, index_key, info_of};
use crate::transaction::Transaction;

/// The user part of the key of a grave. A run has no other key of that primitive.
const GRAVE: &[u8] = b"deleted";

/// What the value of a grave has beside those of the entry in the index.
const NAME: &str = "name";

/// Rows that are buried at a time.
const STEP_ROWS: usize = 1024;

/// The key of the grave of `namespace`.
pub(crate) fn grave_key(namespace: NamespaceId) -> Key {
    Key::new(namespace, TypeTag::Run, GRAVE).expect("a short name is a key")
}

/// The record that says that the run of `namespace` was deleted, if it was.
pub(crate) fn grave(store: &UnifiedStore, namespace: NamespaceId) -> Result<Option<Record>> {
    let key = grave_key(namespace);
    Ok(store.get_latest(KeyRef::from(&key), steadfast_core::Timestamp::ZERO)?)
}

/// What the index last said of the run that `grave` is of.
pub(crate) fn decode_grave(grave: &Record) -> Result<RunInfo> {
    let malformed = || Error::from(grave.undecodable("it is not the grave of a run"));
    let Value::Map(mut value) = grave.value()? else { return Err(malformed()) };
    let name = value.remove(NAME);
    let name = name.as_ref().and_then(Value::as_str).ok_or_else(malformed)?;
    info_of(grave, name.to_owned(), value).ok_or_else(malformed)
}

impl Transaction {
    /// Deletes the run named `name` and everything in it, with whatever else this transaction
    /// does. Takes the same time and the same log whatever the run holds. What this transaction
    /// wrote to the run itself is forgotten; the name is free at once, for another run.
    ///
    /// Views opened before go on showing the run, and views of the past do as far as history is
    /// kept. Its id stands for nothing any more, for ever. Its bytes are given back by the next
    /// [`CompactMode::Full`](crate::CompactMode::Full), as those of deleted keys are.
    ///
    /// # Errors
    ///
    /// Kind `NotFound` if there is no such run.
    pub fn delete_run(&mut self, name: &str) -> Result<()> {
        let info = self.run_info(name)?;
        if self.forks(info.run) {
            let text =
                format!("the run {name} is forked by this transaction, which cannot delete it");
            return Err(Error::Invalid(text));
        }
        self.forget_writes(info.run);
        self.delete_in_system(&index_key(name)?)?;
        let mut buried = IndexEntry::of(&info).into_map();
        buried.insert(NAME.to_owned(), Value::from(name));
        self.put_in_system(&grave_key(info.run.namespace), &Value::Map(buried))?;
        self.note_deleted(info.run);
        Ok(())
    }
}

impl Database {
    /// [`Transaction::delete_run`] in a transaction of its own.
    pub fn delete_run(&self, name: &str) -> Result<Receipt> {
        self.transaction(|tx| tx.delete_run(name)).map(|done| done.1)
    }

    /// The commit that deleted `run`, if one did.
    pub(crate) fn deleted_at(&self, run: Run) -> Result<Option<Version>> {
        Ok(grave(self.storage(), run.namespace)?.map(|grave| grave.version()))
    }
}

/// Bytes in memory of deleted runs that forks see through to.
pub(crate) fn held_for_forks(store: &UnifiedStore) -> Result<u64> {
    let mut bytes = 0;
    for namespace in store.pinned_namespaces() {
        if grave(store, namespace)?.is_none() {
            continue;
        }
        let view = store.view(steadfast_core::Timestamp::ZERO);
        let first = Key::first_of(namespace, TypeTag::Kv).as_bytes().to_vec();
        let rows = match steadfast_core::prefix_end(&namespace.0.to_be_bytes()) {
            Some(end) => view.range_versions(first..end),
            None => view.range_versions(first..),
        };
        for row in rows.filter(|row| row.as_ref().map_or(true, |row| !row.is_tombstone())) {
            bytes += row?.payload_bytes() as u64;
        }
    }
    Ok(bytes)
}

/// Lays tombstones over the rows of every deleted run of `namespaces`, from where retention and
/// the open views let them go. Everything must be in memory. `proceed` is told
/// of the bytes of every step, and says whether there is to be another.
pub(crate) fn bury(
    store: &UnifiedStore,
    namespaces: Vec<NamespaceId>,
    mut proceed: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    for namespace in namespaces {
        proceed(0)?;
        let Some(grave) = grave(store, namespace)? else { continue };
        let tomb =
            RecordBuilder { version: grave.version(), timestamp: grave.timestamp(), expiry: None };
        // With that which makes it a fork first: what lies beneath is let go of then.
        let mut from = fork_key(namespace).as_bytes().to_vec();
        loop {
            // A view of its own for each step: while it is open, what it shows is kept.
            let view = store.view(grave.timestamp());
            let end = steadfast_core::prefix_end(&namespace.0.to_be_bytes());
            let rows = crate::view::range(&view, from, end).take(STEP_ROWS);
            let mut bytes = 0;
            let tombs = rows.map(|row| {
                let row = row?;
                bytes += row.payload_bytes() as u64;
                Ok(tomb.tombstone(row.key()))
            });
            let tombs = tombs.collect::<Result<Vec<_>>>()?;
            drop(view);
            let Some(last) = tombs.last() else { break };
            from = [last.key(), &[0]].concat();
            let superseded = store.apply(&tombs);
            store.prune(superseded);
            proceed(bytes)?;
        }
    }
    Ok(())
}
