//! Deltas on their way in: what they make of their key's newest value takes their place.
//!
//! A commit's deltas are folded when it is published. Those of a log are folded as the log is
//! replayed, as long as memory knows their key; where only a table beneath may know it, they wait
//! until its section is loaded.

use std::collections::HashMap;

use steadfast_core::signal::fold;
use steadfast_core::{Key, NamespaceId, Place, Record, TypeTag, Version};

use crate::load::When;
use crate::store::Inner;
use crate::{Result, lock};

/// The newest records of signals that a replay has met.
#[derive(Default)]
pub(crate) struct Folding {
    newest: HashMap<Box<[u8]>, Record>,
}

impl Inner {
    /// Loads the section of a key, if it is not loaded.
    pub(crate) fn bring_in(&self, key: &[u8]) -> Result<()> {
        if let Some(sections) = self.beneath.sections() {
            let section = sections.section_at(Place::At(key));
            if !sections.is_loaded(section) {
                self.load_from_table(section, When::Now)?;
            }
        }
        Ok(())
    }

    /// Folds a delta of a key that memory knows into the newest record below it.
    pub(crate) fn fold(&self, delta: &Record) {
        let below = Version(delta.version().0 - 1);
        let base = self.newest_in_memory(delta.key().into(), &|| below);
        if let Some(folded) = fold(base.as_ref(), delta) {
            self.insert(&folded);
        }
    }

    /// Puts what deltas of a run make of their keys in their place, and leaves those that have to
    /// wait to the table beneath.
    pub(crate) fn fold_run(&self, run: Vec<Record>) -> Vec<Record> {
        if !run.iter().any(is_of_a_signal) {
            return run;
        }
        self.catch_up();
        let mut folding = lock::lock(&self.folding);
        let mut out = Vec::with_capacity(run.len());
        for record in run {
            if !is_of_a_signal(&record) {
                out.push(record);
            } else if !record.is_delta() {
                folding.newest.insert(record.key().into(), record.clone());
                out.push(record);
            } else if let Some(folded) = self.fold_replayed(&mut folding, record) {
                out.push(folded);
            }
        }
        out
    }

    fn fold_replayed(&self, folding: &mut Folding, delta: Record) -> Option<Record> {
        let base = match folding.newest.get(delta.key()) {
            Some(newest) => Some(newest.clone()),
            None => match self.newest_in_memory(delta.key().into(), &|| Version::MAX) {
                Some(newest) => Some(newest),
                None => {
                    let sections = self.beneath.sections();
                    let unloaded = sections.filter(|sections| {
                        !sections.is_loaded(sections.section_at(Place::At(delta.key())))
                    });
                    if let Some(sections) = unloaded {
                        sections.leave_delta(delta);
                        return None;
                    }
                    None
                }
            },
        };
        let folded = fold(base.as_ref(), &delta)?;
        folding.newest.insert(delta.key().into(), folded.clone());
        Some(folded)
    }

    /// Forgets what only a replay needs.
    pub(crate) fn finish_folding(&self) {
        lock::lock(&self.folding).newest = HashMap::new();
    }
}

fn is_of_a_signal(record: &Record) -> bool {
    // In the database's own namespace are the definitions.
    record.is_delta()
        || Key::tag_of(record.key()).is_some_and(TypeTag::is_folded)
            && Key::namespace_of(record.key()) != Some(NamespaceId::SYSTEM)
}
