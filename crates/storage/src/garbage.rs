//! Keys with something that cannot be dropped yet, because an old view may read it.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use steadfast_core::{Record, Sabotage, Version, sabotaged};

use crate::lock;

/// What waits for the horizon to move. A key waits once for each version it waits for.
pub(crate) struct Garbage {
    /// The lowest version waited for, so that asking costs no lock.
    next: AtomicU64,
    waiting: Mutex<BTreeSet<Waiting>>,
    /// Whether tombstones stay although nothing in the store needs them.
    tombstones_stay: AtomicBool,
    /// The tombstones that have stayed.
    stayed: Mutex<Vec<Record>>,
}

/// Ordered by version, then key. The record is only there to carry them.
struct Waiting(Record);

impl Garbage {
    pub(crate) fn new() -> Self {
        Self {
            next: AtomicU64::new(u64::MAX),
            waiting: Mutex::default(),
            tombstones_stay: AtomicBool::new(false),
            stayed: Mutex::default(),
        }
    }

    /// Lets the key of `record` wait until the horizon has reached the record's version.
    pub(crate) fn wait(&self, record: Record) {
        let mut waiting = lock::lock(&self.waiting);
        self.next.fetch_min(record.version().0, Ordering::AcqRel);
        waiting.insert(Waiting(record));
    }

    /// Takes the record that has waited for the lowest version out, if that is at most
    /// `horizon`.
    pub(crate) fn pop_due(&self, horizon: Version) -> Option<Record> {
        if self.next.load(Ordering::Acquire) > horizon.0 {
            return None;
        }
        let mut waiting = lock::lock(&self.waiting);
        let due = waiting.first().is_some_and(|first| first.0.version() <= horizon);
        let record = if due { waiting.pop_first() } else { None };
        let next = waiting.first().map_or(u64::MAX, |first| first.0.version().0);
        self.next.store(next, Ordering::Release);
        record.map(|waiting| waiting.0)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        lock::lock(&self.waiting).len() + lock::lock(&self.stayed).len()
    }

    pub(crate) fn tombstones_stay(&self) -> bool {
        self.tombstones_stay.load(Ordering::Acquire) && !sabotaged(Sabotage::TombstoneDropped)
    }

    /// Notes a tombstone that only the rule that they stay has kept.
    pub(crate) fn stay(&self, tombstone: Record) {
        let mut stayed = lock::lock(&self.stayed);
        if self.tombstones_stay() {
            stayed.push(tombstone);
        } else {
            // The rule ended after the tombstone was judged.
            drop(stayed);
            self.wait(tombstone);
        }
    }

    /// Begins or ends the rule that tombstones stay. At its end those that have stayed wait
    /// to be looked at again.
    pub(crate) fn let_tombstones_stay(&self, stay: bool) {
        let mut stayed = lock::lock(&self.stayed);
        self.tombstones_stay.store(stay, Ordering::Release);
        let freed = if stay { Vec::new() } else { std::mem::take(&mut *stayed) };
        drop(stayed);
        freed.into_iter().for_each(|tombstone| self.wait(tombstone));
    }
}

impl Waiting {
    fn key(&self) -> (Version, &[u8]) {
        (self.0.version(), self.0.key())
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}
