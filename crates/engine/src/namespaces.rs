//! The dictionary of namespaces: small ids for full addresses, in memory.
//!
//! Ids are given in order and never taken back. Looking one up takes no lock that another
//! reader could hold: the table is chunks of once-written slots, and only adding a chunk
//! replaces the list of chunks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use steadfast_core::limits::NAMESPACES_MAX;
use steadfast_core::{Namespace, NamespaceId, RunId};
use steadfast_durability::wal::writer::NamespaceLookup;

use crate::error::{Error, Result};

const CHUNK: usize = 1024;

#[derive(Debug)]
struct Slot {
    namespace: OnceLock<Namespace>,
    /// Whether the run is in the run index: its creation was committed.
    live: AtomicBool,
}

/// `None` where no id was ever given, as a damaged log may leave it.
type Chunk = Option<Arc<[Slot]>>;

/// The dictionary of one database.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    chunks: ArcSwap<Vec<Chunk>>,
    ids: Mutex<Ids>,
}

#[derive(Debug, Default)]
struct Ids {
    by_namespace: HashMap<Namespace, NamespaceId>,
    highest: u32,
}

impl Namespaces {
    /// The id of `namespace`, given now if it has none.
    pub(crate) fn intern(&self, namespace: &Namespace) -> Result<NamespaceId> {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = ids.by_namespace.get(namespace) {
            return Ok(*id);
        }
        if ids.highest >= NAMESPACES_MAX {
            let text = format!("the database has had {NAMESPACES_MAX} runs, the most there can be");
            return Err(Error::Invalid(text));
        }
        let id = NamespaceId(ids.highest + 1);
        self.insert(&mut ids, id, namespace);
        Ok(id)
    }

    /// Takes a definition from the log.
    pub(crate) fn define(&self, id: NamespaceId, namespace: &Namespace) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.by_namespace.get(namespace) != Some(&id) {
            self.insert(&mut ids, id, namespace);
        }
    }

    fn insert(&self, ids: &mut Ids, id: NamespaceId, namespace: &Namespace) {
        let (chunk, _) = place(id);
        if self.chunks.load().get(chunk).is_none_or(Option::is_none) {
            let mut chunks = self.chunks.load().as_ref().clone();
            chunks.resize(chunks.len().max(chunk + 1), None);
            let slot = |_| Slot { namespace: OnceLock::new(), live: AtomicBool::new(false) };
            chunks[chunk] = Some((0..CHUNK).map(slot).collect());
            self.chunks.store(Arc::new(chunks));
        }
        // An id from a log that gives it two meanings keeps the first; replay refuses such a log.
        self.slot(id, |slot| slot.namespace.set(namespace.clone()));
        ids.by_namespace.insert(namespace.clone(), id);
        ids.highest = ids.highest.max(id.0);
    }

    /// Every id that was given, in order.
    pub(crate) fn ids(&self) -> Vec<NamespaceId> {
        let highest = self.ids.lock().unwrap_or_else(PoisonError::into_inner).highest;
        (1..=highest).map(NamespaceId).collect()
    }

    fn slot<T>(&self, id: NamespaceId, read: impl FnOnce(&Slot) -> T) -> Option<T> {
        let (chunk, at) = place(id);
        let chunks = self.chunks.load();
        chunks.get(chunk).and_then(Option::as_ref).map(|chunk| read(&chunk[at]))
    }

    /// Whether `id` stands for `run` and the run is in the run index.
    pub(crate) fn is_live(&self, id: NamespaceId, run: RunId) -> bool {
        self.slot(id, |slot| {
            slot.live.load(Ordering::Acquire)
                && slot.namespace.get().is_some_and(|namespace| namespace.run() == run)
        })
        .unwrap_or(false)
    }

    /// Notes that the run index has the run of `id`.
    pub(crate) fn set_live(&self, id: NamespaceId) {
        self.slot(id, |slot| slot.live.store(true, Ordering::Release));
    }
}

impl NamespaceLookup for Namespaces {
    fn namespace(&self, id: NamespaceId) -> Option<Namespace> {
        self.slot(id, |slot| slot.namespace.get().cloned()).flatten()
    }
}

const fn place(id: NamespaceId) -> (usize, usize) {
    let index = id.0 as usize;
    (index / CHUNK, index % CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_core::{Entropy, Timestamp};

    #[test]
    fn an_id_stands_for_one_namespace_and_stays() {
        let namespaces = Namespaces::default();
        let entropy = Entropy::seeded(1);
        let all: Vec<_> = (0..3000)
            .map(|n| Namespace::for_run(RunId::new(Timestamp::from_micros(n), &entropy)))
            .collect();
        let ids: Vec<_> =
            all.iter().map(|namespace| namespaces.intern(namespace).unwrap()).collect();
        assert_eq!((ids[0], ids[2999]), (NamespaceId(1), NamespaceId(3000)));
        for (id, namespace) in ids.iter().zip(&all) {
            assert_eq!(namespaces.intern(namespace).unwrap(), *id);
            assert_eq!(namespaces.namespace(*id).as_ref(), Some(namespace));
        }
        assert!(!namespaces.is_live(ids[7], all[7].run()));
        namespaces.set_live(ids[7]);
        assert!(namespaces.is_live(ids[7], all[7].run()));
        assert!(!namespaces.is_live(ids[7], all[8].run()));
        assert_eq!(namespaces.namespace(NamespaceId(9999)), None);
    }
}
