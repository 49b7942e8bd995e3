//! Which runs see through to which others, and what therefore has to be kept.
//!
//! A run is a fork because of a record ([`steadfast_core::fork`]), and what its layers show is kept
//! for as long as the store has a version of that record: retention decides about that as about
//! any record, and so does deleting the run. A record is noted before it is published, so before
//! anything newer than its layers show can be published and pruned for; in a replay, before the
//! run of records that has it is inserted.
//!
//! Noting is idempotent: the record that a table tells of beforehand is noted again when its
//! section is loaded.

use std::collections::{BTreeMap, BTreeSet};

use steadfast_core::fork::{Fork, Layer};
use steadfast_core::{Key, NamespaceId, Version};

/// By version: who sees through to it, by namespace and the version of the record.
type PinSet = BTreeSet<(Version, NamespaceId, Version)>;

/// The records that make runs forks.
#[derive(Clone, Default)]
pub(crate) struct Forks {
    /// By the namespace of the fork, the records and what they name.
    records: BTreeMap<NamespaceId, BTreeMap<Version, Vec<Layer>>>,
    /// By the namespace that is seen through to.
    pins: BTreeMap<NamespaceId, PinSet>,
}

/// The versions at which the past of a namespace is read by forks.
#[derive(Clone, Copy, Default)]
pub(crate) struct Pins<'a>(Option<&'a PinSet>);

impl Pins<'_> {
    pub(crate) const fn are_none(self) -> bool {
        self.0.is_none()
    }

    /// Whether someone reads at `from` or later and below `to`; at anything from there on if that
    /// is `None`.
    pub(crate) fn any_within(self, from: Version, to: Option<Version>) -> bool {
        let Some(pins) = self.0 else { return false };
        let first = (from, NamespaceId(0), Version::ZERO);
        match to {
            // Versions of a key rise.
            Some(to) => pins.range(first..(to, NamespaceId(0), Version::ZERO)).next().is_some(),
            None => pins.range(first..).next().is_some(),
        }
    }
}

impl Forks {
    /// Notes a record that is, or is about to be, in the store.
    pub(crate) fn note(&mut self, fork: &Fork) {
        for layer in &fork.layers {
            let pins = self.pins.entry(layer.namespace).or_default();
            pins.insert((layer.version, fork.namespace, fork.version));
        }
        let records = self.records.entry(fork.namespace).or_default();
        records.insert(fork.version, fork.layers.clone());
    }

    /// Forgets a record that is not in the store any more.
    pub(crate) fn forget(&mut self, fork: &Fork) {
        let Some(records) = self.records.get_mut(&fork.namespace) else { return };
        for layer in records.remove(&fork.version).unwrap_or_default() {
            let Some(pins) = self.pins.get_mut(&layer.namespace) else { continue };
            pins.remove(&(layer.version, fork.namespace, fork.version));
            if pins.is_empty() {
                self.pins.remove(&layer.namespace);
            }
        }
        if records.is_empty() {
            self.records.remove(&fork.namespace);
        }
    }

    /// Where the past of a stored key is read by forks.
    pub(crate) fn pins_of(&self, key: &[u8]) -> Pins<'_> {
        if self.pins.is_empty() {
            return Pins(None);
        }
        Pins(Key::namespace_of(key).and_then(|id| self.pins.get(&id)))
    }

    /// Whether a stored key is one of a fork: where it is deleted, that hides what lies beneath.
    pub(crate) fn may_hide(&self, key: &[u8]) -> bool {
        !self.records.is_empty()
            && Key::namespace_of(key).is_some_and(|id| self.records.contains_key(&id))
    }

    /// The records up to a version.
    pub(crate) fn upto(&self, version: Version) -> Vec<Fork> {
        let of_run = |(namespace, records): (&NamespaceId, &BTreeMap<Version, Vec<Layer>>)| {
            let namespace = *namespace;
            let fork = move |(version, layers): (&Version, &Vec<Layer>)| Fork {
                namespace,
                version: *version,
                layers: layers.clone(),
            };
            records.range(..=version).map(fork).collect::<Vec<_>>()
        };
        self.records.iter().flat_map(of_run).collect()
    }

    /// The namespaces that are seen through to.
    pub(crate) fn pinned(&self) -> impl Iterator<Item = NamespaceId> {
        self.pins.keys().copied()
    }
}
