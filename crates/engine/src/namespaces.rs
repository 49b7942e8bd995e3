//! The dictionary of namespaces: small ids for full addresses, in memory.
//!
//! Ids are given in order and never taken back. Looking one up takes no lock and writes
//! nothing: every level of the table is written once, where there is room for it from the
//! beginning.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use steadfast_core::limits::NAMESPACES_MAX;
use steadfast_core::{Namespace, NamespaceId, RunId, Version};
use steadfast_durability::wal::writer::NamespaceLookup;

use crate::error::{Error, Result};

const CHUNK_IDS: usize = 1024;
const GROUP_CHUNKS: usize = 128;
/// Enough for the highest id.
const GROUPS: usize = NAMESPACES_MAX as usize / (CHUNK_IDS * GROUP_CHUNKS) + 1;

#[derive(Debug, Default)]
struct Slot {
    namespace: OnceLock<Namespace>,
    /// Whether the run is in the run index: its creation was committed.
    live: AtomicBool,
    /// The version of the commit that deletes the run, once it has one; 0 if none does.
    deleted: AtomicU64,
    /// The runs that it goes back to by forks, the oldest first, if it does: what becomes of them
    /// does not change that.
    ancestors: OnceLock<Arc<[RunId]>>,
}

type Chunk = Box<[Slot]>;
type Group = Box<[OnceLock<Chunk>]>;

/// The dictionary of one database.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// What is not there has no id that was ever given: a damaged log may leave gaps.
    groups: Box<[OnceLock<Group>]>,
    ids: Mutex<Ids>,
}

impl Default for Namespaces {
    fn default() -> Self {
        Self { groups: empty(GROUPS), ids: Mutex::default() }
    }
}

fn empty<T: Default>(len: usize) -> Box<[T]> {
    (0..len).map(|_| T::default()).collect()
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
        let (group, chunk, _) = place(id);
        let group = self.groups[group].get_or_init(|| empty(GROUP_CHUNKS));
        group[chunk].get_or_init(|| empty(CHUNK_IDS));
        // An id from a log that gives it two meanings keeps the first; replay refuses such a log.
        let slot = self.slot(id).expect("its chunk is there");
        let _ = slot.namespace.set(namespace.clone());
        ids.by_namespace.insert(namespace.clone(), id);
        ids.highest = ids.highest.max(id.0);
    }

    /// Every id that was given, in order.
    pub(crate) fn ids(&self) -> Vec<NamespaceId> {
        let highest = self.ids.lock().unwrap_or_else(PoisonError::into_inner).highest;
        (1..=highest).map(NamespaceId).collect()
    }

    #[inline]
    fn slot(&self, id: NamespaceId) -> Option<&Slot> {
        let (group, chunk, at) = place(id);
        Some(&self.groups.get(group)?.get()?[chunk].get()?[at])
    }

    /// Whether `id` stands for `run`, the run is in the run index, and it was not deleted at
    /// `version`, which is asked for only if it was at all.
    #[inline]
    pub(crate) fn is_live(
        &self,
        id: NamespaceId,
        run: RunId,
        version: impl FnOnce() -> Version,
    ) -> bool {
        self.slot(id).is_some_and(|slot| {
            let is_there = || match slot.deleted.load(Ordering::Acquire) {
                0 => true,
                deleted => version().0 < deleted,
            };
            slot.live.load(Ordering::Acquire)
                && slot.namespace.get().is_some_and(|namespace| namespace.run() == run)
                && is_there()
        })
    }

    /// Whether the run of `id` is deleted, or about to be.
    pub(crate) fn is_deleted(&self, id: NamespaceId) -> bool {
        self.slot(id).is_some_and(|slot| slot.deleted.load(Ordering::Acquire) != 0)
    }

    /// Notes that the commit `version` deletes the run of `id`.
    pub(crate) fn set_deleted(&self, id: NamespaceId, version: Version) {
        if let Some(slot) = self.slot(id) {
            slot.deleted.store(version.0, Ordering::Release);
        }
    }

    /// Takes back that `version` deletes the run of `id`.
    pub(crate) fn clear_deleted(&self, id: NamespaceId, version: Version) {
        if let Some(slot) = self.slot(id) {
            let (acquire, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
            let _ = slot.deleted.compare_exchange(version.0, 0, acquire, relaxed);
        }
    }

    /// Notes the runs that the run of `id` goes back to.
    pub(crate) fn set_ancestors(&self, id: NamespaceId, ancestors: &[RunId]) {
        if let Some(slot) = self.slot(id).filter(|_| !ancestors.is_empty()) {
            slot.ancestors.get_or_init(|| ancestors.into());
        }
    }

    /// Whether the run of `id` goes back to others by forks.
    #[inline]
    pub(crate) fn has_ancestors(&self, id: NamespaceId) -> bool {
        self.slot(id).is_some_and(|slot| slot.ancestors.get().is_some())
    }

    /// The runs that the run of `id` goes back to, the oldest first.
    pub(crate) fn ancestors(&self, id: NamespaceId) -> Arc<[RunId]> {
        self.slot(id).and_then(|slot| slot.ancestors.get().cloned()).unwrap_or_default()
    }

    /// Notes that the run index has the run of `id`.
    pub(crate) fn set_live(&self, id: NamespaceId) {
        if let Some(slot) = self.slot(id) {
            slot.live.store(true, Ordering::Release);
        }
    }
}

impl NamespaceLookup for Namespaces {
    fn namespace(&self, id: NamespaceId) -> Option<Namespace> {
        self.slot(id)?.namespace.get().cloned()
    }
}

#[inline]
const fn place(id: NamespaceId) -> (usize, usize, usize) {
    let index = id.0 as usize;
    let chunk = index / CHUNK_IDS;
    (chunk / GROUP_CHUNKS, chunk % GROUP_CHUNKS, index % CHUNK_IDS)
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
        let is_live = |id, run, at| namespaces.is_live(id, run, || Version(at));
        assert!(!is_live(ids[7], all[7].run(), 1));
        namespaces.set_live(ids[7]);
        assert!(is_live(ids[7], all[7].run(), 1));
        assert!(!is_live(ids[7], all[8].run(), 1));
        namespaces.set_deleted(ids[7], Version(5));
        assert!(is_live(ids[7], all[7].run(), 4) && !is_live(ids[7], all[7].run(), 5));
        namespaces.clear_deleted(ids[7], Version(4));
        assert!(namespaces.is_deleted(ids[7]), "another commit did that");
        namespaces.clear_deleted(ids[7], Version(5));
        assert!(is_live(ids[7], all[7].run(), 5));
        for never_given in [9999, NAMESPACES_MAX, u32::MAX] {
            assert_eq!(namespaces.namespace(NamespaceId(never_given)), None);
        }
        namespaces.define(NamespaceId(NAMESPACES_MAX), &all[0]);
        assert_eq!(namespaces.namespace(NamespaceId(NAMESPACES_MAX)).as_ref(), Some(&all[0]));
    }
}
