//! Taking sections of the table beneath into memory.
//!
//! A section's rows are in order already, so they are laid into the leaves part by part: where
//! memory has nothing, leaves are built of them as they are. Readers and commits wait for one
//! part at most. The hash comes to know of the rows of several sections at once, and only then
//! are these marked as loaded; until then the table goes on answering for them.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::{Mutex, RwLock};

use steadfast_core::signal::fold;
use steadfast_core::{Record, SortedTable};

use crate::beneath::{LoadProgress, Sections};
use crate::points::Changes;
use crate::store::Inner;
use crate::{Result, lock};

/// Records that go in under one lock of a region: about a millisecond's worth.
const PART: usize = if cfg!(test) { 16 } else { 4096 };

/// The hash comes to know of rows many at once, for each alone would wait for a page of its own:
/// of so many, and of a small share of all, since reads of them still go to the table.
const LATE: RangeInclusive<usize> = if cfg!(test) { 10..=80 } else { 1 << 15..=1 << 18 };

/// One in so many rows.
const LATE_SHARE: usize = 32;

/// Sections whose rows are in the leaves, and not yet in the hash.
#[derive(Default)]
pub(crate) struct Late {
    waiting: Mutex<Waiting>,
    /// Held, shared, by who tells the hash and marks sections.
    hashing: RwLock<()>,
}

#[derive(Default)]
struct Waiting {
    sections: Vec<usize>,
    changes: Changes,
}

/// When a section that is loaded is to be marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Before the call returns.
    Now,
    /// With others.
    Later,
}

/// What loading a section did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadedSection {
    /// Rows that came in; 0 if the section was loaded already.
    pub rows: usize,
    /// How far the table is loaded with it.
    pub progress: LoadProgress,
}

impl Inner {
    /// Takes a section in from the table, which has its rows in order.
    pub(crate) fn load_from_table(&self, section: usize, when: When) -> Result<LoadedSection> {
        self.load(section, when, |table| Ok((table.section(section)?, true)))
    }

    /// Takes in the rows of a section that were found elsewhere, in any order.
    pub(crate) fn supply(&self, section: usize, rows: Vec<Record>) -> LoadedSection {
        self.load(section, When::Now, |_| Ok((rows, false))).expect("no table is read")
    }

    /// Takes in the rows of a section, which `read` gives, with whether they are in order.
    fn load(
        &self,
        section: usize,
        when: When,
        read: impl FnOnce(&dyn SortedTable) -> Result<(Vec<Record>, bool)>,
    ) -> Result<LoadedSection> {
        let mut rows = 0;
        if let Some(sections) = self.beneath.sections() {
            // Who comes second waits, and finds it laid.
            let mut laid = lock::lock(sections.laid(section));
            let mut last = false;
            if !*laid {
                let (mut records, mut in_order) = read(&*sections.table)?;
                self.note_forks_in(&records);
                rows = records.len();
                in_order &= !fold_waiting(&mut records, sections.take_deltas(section));
                if !in_order {
                    sort(&mut records);
                }
                // Each may be the only version of its key. A table that lies about them must
                // not take memory for it.
                let most = rows * self.beneath.progress().sections * 2;
                self.points.expect(rows_of(&sections).min(most));
                let mut changes = self.insert_section(records);
                *laid = true;
                let mut waiting = lock::lock(&self.late.waiting);
                waiting.sections.push(section);
                waiting.changes.append(&mut changes);
                drop(waiting);
                // Counted behind that: with the last one, all are waiting or have been.
                last = self.beneath.count_laid(&sections, rows);
            }
            drop(laid);
            let few = (rows_of(&sections) / LATE_SHARE).clamp(*LATE.start(), *LATE.end());
            self.hash_late(&sections, if last || when == When::Now { 0 } else { few });
            if when == When::Now {
                // What another thread has taken to hash is marked when it lets go.
                drop(lock::write(&self.late.hashing));
            }
        }
        Ok(LoadedSection { rows, progress: self.beneath.progress() })
    }

    /// Marks all sections whose rows are in the leaves.
    pub(crate) fn catch_up(&self) {
        if let Some(sections) = self.beneath.sections() {
            self.hash_late(&sections, 0);
            drop(lock::write(&self.late.hashing));
        }
    }

    /// Tells the hash of rows that are in the leaves, if there are more than `few`, and marks
    /// their sections. No key goes from its leaf before, for tombstones stay while a table is
    /// beneath.
    fn hash_late(&self, sections: &Sections, few: usize) {
        let mut waiting = lock::lock(&self.late.waiting);
        if waiting.sections.is_empty() || waiting.changes.len() < few {
            return;
        }
        let _hashing = lock::read(&self.late.hashing);
        let mut taken = std::mem::take(&mut *waiting);
        drop(waiting);
        self.points.change_all(&mut taken.changes);
        let mut last = false;
        for section in taken.sections {
            last |= self.beneath.mark_loaded(sections, section);
        }
        if last {
            self.beneath.let_go();
            self.garbage.let_tombstones_stay(false);
            self.prune_waiting(usize::MAX);
        }
    }

    /// Lays rows in order into the leaves. Returns what that changes in the hash.
    fn insert_section(&self, records: Vec<Record>) -> Changes {
        let mut rest = records.into_iter();
        let mut late = Changes::default();
        while rest.len() > 0 {
            let part = part_of(rest.as_slice());
            self.insert_sorted(&mut rest, part, &mut late);
        }
        late
    }
}

fn rows_of(sections: &Sections) -> usize {
    usize::try_from(sections.table.rows()).unwrap_or(usize::MAX)
}

/// Brings rows into the order of a table.
fn sort(rows: &mut [Record]) {
    let order =
        |a: &Record, b: &Record| a.key().cmp(b.key()).then_with(|| b.version().cmp(&a.version()));
    rows.sort_by(order);
}

/// Appends what `deltas`, in the order of versions, make of their keys' newest rows. Returns
/// whether there were any.
fn fold_waiting(rows: &mut Vec<Record>, deltas: Vec<Record>) -> bool {
    let mut newest: HashMap<Vec<u8>, Record> = HashMap::new();
    if deltas.is_empty() {
        return false;
    }
    let wanted: HashSet<&[u8]> = deltas.iter().map(Record::key).collect();
    for row in rows.iter().filter(|row| wanted.contains(row.key())) {
        if newest.get(row.key()).is_none_or(|other| other.version() < row.version()) {
            newest.insert(row.key().to_vec(), row.clone());
        }
    }
    for delta in &deltas {
        if let Some(folded) = fold(newest.get(delta.key()), delta) {
            newest.insert(delta.key().to_vec(), folded.clone());
            rows.push(folded);
        }
    }
    true
}

/// How many of sorted records go in next. The versions of a key stay together: a reader who
/// found only older ones in memory would not ask the table for the newer.
fn part_of(records: &[Record]) -> usize {
    let Some((part, rest)) = records.split_at_checked(PART) else { return records.len() };
    let last = part.last().expect("a part is not empty").key();
    PART + rest.iter().take_while(|record| record.key() == last).count()
}

#[cfg(test)]
impl Late {
    /// The keys that the hash may not know.
    pub(crate) fn keys(&self) -> HashSet<Vec<u8>> {
        let waiting = lock::lock(&self.waiting);
        waiting.changes.records().map(|record| record.key().to_vec()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_core::{RecordBuilder, Timestamp, Version};

    #[test]
    fn a_part_ends_between_two_keys() {
        let record = |key: u8, version| {
            RecordBuilder { version: Version(version), timestamp: Timestamp::ZERO, expiry: None }
                .put(&[key], 1)
        };
        let versions = |counts: &[u64]| -> Vec<_> {
            let keys = counts.iter().zip(0..);
            keys.flat_map(|(count, key)| (1..=*count).map(move |v| record(key, v))).collect()
        };
        assert_eq!(part_of(&versions(&[3, 2])), 5);
        assert_eq!(part_of(&versions(&[12, 4, 5])), 16);
        assert_eq!(part_of(&versions(&[12, 9, 5])), 21);
        assert_eq!(part_of(&versions(&[40, 5])), 40);
    }
}
