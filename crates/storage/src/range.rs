//! Rows in key order, from either end.
//!
//! A range takes one leaf's worth of handles at a time, under that leaf's lock, and goes on by
//! key: what happens to the leaves in between loses or repeats nothing, because the view keeps
//! every record it shows. Nothing is locked while the caller has the rows.

use std::collections::VecDeque;
use std::ops::Bound;

use steadfast_core::{Record, Timestamp, Version};

use crate::chain::Chain;
use crate::directory::Seek;
use crate::leaf::{LEAF_ROWS_MAX, Leaf};
use crate::{Result, View};

/// Rows taken at first: few, because many ranges are left after a row or two.
const FIRST_BATCH_ROWS: usize = 16;

/// An iterator over the rows of a [`View`] within some bounds.
pub struct Range {
    view: View,
    select: Select,
    /// What has not been taken from the leaves yet.
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
    taken: bool,
    batch_rows: usize,
    /// Rows before that, and after it.
    front: VecDeque<Record>,
    back: VecDeque<Record>,
}

/// Which records of a row belong to a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Select {
    /// The newest one, if it is live.
    Live,
    /// Every one.
    Versions,
}

impl Range {
    pub(crate) fn new(
        view: View,
        select: Select,
        lower: Bound<Vec<u8>>,
        upper: Bound<Vec<u8>>,
    ) -> Self {
        let (front, back) = (VecDeque::new(), VecDeque::new());
        let batch_rows = FIRST_BATCH_ROWS;
        Self { view, select, lower, upper, taken: false, batch_rows, front, back }
    }

    /// Takes rows from the front of what is left.
    #[cold]
    fn fill_front(&mut self) {
        while self.front.is_empty() && !self.taken {
            let lower = std::mem::replace(&mut self.lower, Bound::Unbounded);
            let seek = match &lower {
                Bound::Unbounded => Seek::First,
                Bound::Included(key) | Bound::Excluded(key) => Seek::At(key),
            };
            self.view.store().inner.directory.read(seek, |found| {
                let from = rows_before(found.leaf, &lower);
                let end = rows_below(found.leaf, &self.upper).max(from);
                let to = end.min(from + self.batch_rows);
                copy(&self.view, self.select, found.leaf, from..to, &mut self.front);
                if to < end {
                    self.lower = Bound::Excluded(found.leaf.newest()[to - 1].key().to_vec());
                } else {
                    match found.high.filter(|high| reaches(&self.upper, high)) {
                        Some(high) => self.lower = Bound::Included(high.to_vec()),
                        None => self.taken = true,
                    }
                }
            });
            self.batch_rows = LEAF_ROWS_MAX;
        }
    }

    /// Takes rows from the back of what is left.
    #[cold]
    fn fill_back(&mut self) {
        while self.back.is_empty() && !self.taken {
            let upper = std::mem::replace(&mut self.upper, Bound::Unbounded);
            let seek = match &upper {
                Bound::Unbounded => Seek::Last,
                Bound::Included(key) => Seek::At(key),
                Bound::Excluded(key) => Seek::Below(key),
            };
            self.view.store().inner.directory.read(seek, |found| {
                let end = rows_below(found.leaf, &upper);
                let begin = rows_before(found.leaf, &self.lower).min(end);
                let from = begin.max(end.saturating_sub(self.batch_rows));
                copy(&self.view, self.select, found.leaf, from..end, &mut self.back);
                if from > begin {
                    self.upper = Bound::Excluded(found.leaf.newest()[from].key().to_vec());
                } else if found.low.is_empty() || begins_at_or_after(&self.lower, found.low) {
                    self.taken = true;
                } else {
                    self.upper = Bound::Excluded(found.low.to_vec());
                }
            });
            self.batch_rows = LEAF_ROWS_MAX;
        }
    }
}

/// Whether a key at `low` or above may lie below an upper bound.
fn reaches(upper: &Bound<Vec<u8>>, low: &[u8]) -> bool {
    match upper {
        Bound::Unbounded => true,
        Bound::Included(upper) => low <= upper.as_slice(),
        Bound::Excluded(upper) => low < upper.as_slice(),
    }
}

/// Whether no key below `high` can be within a lower bound.
fn begins_at_or_after(lower: &Bound<Vec<u8>>, high: &[u8]) -> bool {
    match lower {
        Bound::Unbounded => false,
        Bound::Included(lower) | Bound::Excluded(lower) => high <= lower.as_slice(),
    }
}

/// How many rows of a leaf lie before a lower bound.
fn rows_before(leaf: &Leaf, lower: &Bound<Vec<u8>>) -> usize {
    match lower {
        Bound::Unbounded => 0,
        Bound::Included(key) => leaf.find(key).unwrap_or_else(|row| row),
        Bound::Excluded(key) => leaf.find(key).map_or_else(|row| row, |row| row + 1),
    }
}

/// How many rows of a leaf lie below an upper bound.
fn rows_below(leaf: &Leaf, upper: &Bound<Vec<u8>>) -> usize {
    match upper {
        Bound::Unbounded => leaf.len(),
        Bound::Included(key) => leaf.find(key).map_or_else(|row| row, |row| row + 1),
        Bound::Excluded(key) => leaf.find(key).unwrap_or_else(|row| row),
    }
}

/// Copies the handles of what `view` selects.
fn copy(
    view: &View,
    select: Select,
    leaf: &Leaf,
    rows: std::ops::Range<usize>,
    out: &mut VecDeque<Record>,
) {
    match select {
        Select::Live => copy_live(view.version(), view.now(), leaf, rows, out),
        Select::Versions => {
            let chains = rows.map(|row| leaf.chain(row));
            out.extend(chains.flat_map(|chain: Chain<'_>| chain.upto(view.version())).cloned());
        }
    }
}

fn copy_live(
    version: Version,
    now: Timestamp,
    leaf: &Leaf,
    rows: std::ops::Range<usize>,
    out: &mut VecDeque<Record>,
) {
    // Cloning a handle is an atomic addition, which waits for its cache line and lets nothing
    // pass. So every line is asked for first, by loads that do not wait for one another: the
    // header's, then those of the value, which the caller is about to read.
    let start = rows.start;
    let newest = &leaf.newest()[rows];
    let seen = |record: &&Record| record.version() <= version && record.is_live(now);
    let all_seen = newest.iter().filter(seen).count() == newest.len();
    let ends =
        |value: &[u8]| value.first().copied().unwrap_or(0) ^ value.last().copied().unwrap_or(0);
    std::hint::black_box(newest.iter().fold(0, |sum, record| sum ^ ends(record.value_bytes())));
    if all_seen {
        out.extend(newest.iter().cloned());
        return;
    }
    for (i, record) in newest.iter().enumerate() {
        let record = if record.version() <= version {
            Some(record)
        } else {
            leaf.chain(start + i).newest_at(version)
        };
        out.extend(record.filter(|record| record.is_live(now)).cloned());
    }
}

impl Iterator for Range {
    type Item = Result<Record>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.front.is_empty() {
            self.fill_front();
        }
        self.front.pop_front().or_else(|| self.back.pop_front()).map(Ok)
    }
}

impl DoubleEndedIterator for Range {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.back.is_empty() {
            self.fill_back();
        }
        self.back.pop_back().or_else(|| self.front.pop_back()).map(Ok)
    }
}

impl std::iter::FusedIterator for Range {}
