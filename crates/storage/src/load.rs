//! Taking sections of the table beneath into memory.
//!
//! A section's rows are in order already, so they are laid into the leaves part by part: where
//! memory has nothing, leaves are built of them as they are. Readers and commits wait for one
//! part at most. The hash comes to know of the rows later, many at once; until the table is let
//! go, what it does not know is looked for in the leaves.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use steadfast_core::signal::fold;
use steadfast_core::{Record, SortedTable};

use crate::beneath::LoadProgress;
use crate::points::Changes;
use crate::store::Inner;
use crate::{Result, lock};

/// Records that go in under one lock of a region: about a millisecond's worth.
const PART: usize = if cfg!(test) { 16 } else { 4096 };

/// The hash comes to know of rows many at once, for each alone would wait for a page of its own:
/// of about an eighth of them, which the thread that is last may do alone, and of so many.
const LATE: RangeInclusive<usize> = if cfg!(test) { 40..=80 } else { 1 << 14..=1 << 18 };

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
    pub(crate) fn load_from_table(&self, section: usize) -> Result<LoadedSection> {
        self.load(section, |table, _| Ok(table.section(section)?))
    }

    /// Takes in the rows of a section that were found elsewhere, in any order.
    pub(crate) fn supply(&self, section: usize, rows: Vec<Record>) -> LoadedSection {
        let supplied = |_: &dyn SortedTable, in_order: &mut bool| {
            *in_order = false;
            Ok(rows)
        };
        self.load(section, supplied).expect("no table is read")
    }

    /// Takes in the rows of a section, which `read` gives, and says if they are not in order.
    fn load(
        &self,
        section: usize,
        read: impl FnOnce(&dyn SortedTable, &mut bool) -> Result<Vec<Record>>,
    ) -> Result<LoadedSection> {
        let mut rows = 0;
        if let Some(sections) = self.beneath.sections() {
            // Who comes second waits, and finds it loaded.
            let _loading = lock::lock(sections.loading(section));
            if !sections.is_loaded(section) {
                let mut in_order = true;
                let mut records = read(&*sections.table, &mut in_order)?;
                self.note_forks_in(&records);
                rows = records.len();
                in_order &= !fold_waiting(&mut records, sections.take_deltas(section));
                if !in_order {
                    sort(&mut records);
                }
                let total = usize::try_from(sections.table.rows()).unwrap_or(usize::MAX);
                // Each may be the only version of its key. A table that lies about them must
                // not take memory for it.
                self.points.expect(total.min(rows * self.beneath.progress().sections * 2));
                let few = (total / 8).clamp(*LATE.start(), *LATE.end());
                self.hash_late(self.insert_section(records), few);
                if self.beneath.mark_loaded(&sections, section, rows) {
                    // Everybody has marked theirs after hashing what they had taken to hash.
                    self.hash_late(Changes::default(), 0);
                    self.beneath.let_go();
                    self.garbage.let_tombstones_stay(false);
                    self.prune_waiting(usize::MAX);
                }
            }
        }
        Ok(LoadedSection { rows, progress: self.beneath.progress() })
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

    /// Tells the hash of rows that are in the leaves, once there are more than `few`. No key goes
    /// from its leaf before, for tombstones stay while a table is beneath.
    fn hash_late(&self, mut changes: Changes, few: usize) {
        let mut late = lock::lock(&self.late);
        late.append(&mut changes);
        if late.len() > few {
            let mut all = std::mem::take(&mut *late);
            drop(late);
            self.points.change_all(&mut all);
        }
    }
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
