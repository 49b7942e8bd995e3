//! Rows in key order, from either end.
//!
//! A range takes one leaf's worth of handles at a time, under that leaf's lock, and goes on by
//! key: what happens to the leaves in between loses or repeats nothing, because the view keeps
//! every record it shows. Nothing is locked while the caller has the rows. Where a table lies
//! beneath, a step goes no further than one slice of it, and lays the leaf over the slice.

use std::collections::VecDeque;
use std::ops::Bound;

use steadfast_core::{Place, Record, TableSlice, Timestamp, Version};

use crate::beneath::Sections;
use crate::chain::Chain;
use crate::directory::{Directory, Seek};
use crate::leaf::{LEAF_ROWS_MAX, Leaf};
use crate::load::When;
use crate::merge::{Select, copy_for_merge, holds, merge, rows_within};
use crate::{Error, Result, View};

/// Rows taken at first: few, because many ranges are left after a row or two.
const FIRST_BATCH_ROWS: usize = 16;

/// An iterator over the rows of a [`View`] within some bounds.
///
/// It never skips: what cannot be read is an error in the place of the rows, and the end.
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
    /// Why it ends early, to be told once.
    failed: Option<Error>,
    /// The last slices of the table beneath, so that each is read once.
    front_slice: Option<TableSlice>,
    back_slice: Option<TableSlice>,
}

impl Range {
    pub(crate) fn new(
        view: View,
        select: Select,
        lower: Bound<Vec<u8>>,
        upper: Bound<Vec<u8>>,
    ) -> Self {
        Self {
            view,
            select,
            lower,
            upper,
            taken: false,
            batch_rows: FIRST_BATCH_ROWS,
            front: VecDeque::new(),
            back: VecDeque::new(),
            failed: None,
            front_slice: None,
            back_slice: None,
        }
    }

    /// Takes rows from the front of what is left.
    #[cold]
    fn fill_front(&mut self) {
        while self.front.is_empty() && !self.taken {
            let inner = &self.view.store().inner;
            if let Some(sections) = inner.beneath.sections() {
                self.fill_front_over(&sections).unwrap_or_else(|error| self.fail(error));
                continue;
            }
            let step = step_front(
                &inner.directory,
                &self.lower,
                &self.upper,
                self.batch_rows,
                |leaf, rows| {
                    copy(&self.view, self.select, leaf, rows, &mut self.front);
                },
            );
            self.batch_rows = LEAF_ROWS_MAX;
            match step {
                Some(lower) => self.lower = lower,
                None => self.taken = true,
            }
        }
    }

    /// Takes rows from the back of what is left.
    #[cold]
    fn fill_back(&mut self) {
        while self.back.is_empty() && !self.taken {
            let inner = &self.view.store().inner;
            if let Some(sections) = inner.beneath.sections() {
                self.fill_back_over(&sections).unwrap_or_else(|error| self.fail(error));
                continue;
            }
            let step = step_back(
                &inner.directory,
                &self.lower,
                &self.upper,
                self.batch_rows,
                |leaf, rows| {
                    copy(&self.view, self.select, leaf, rows, &mut self.back);
                },
            );
            self.batch_rows = LEAF_ROWS_MAX;
            match step {
                Some(upper) => self.upper = upper,
                None => self.taken = true,
            }
        }
    }

    /// One step from the front with a table beneath. Takes nothing if the step has to be made
    /// again because its section was loaded meanwhile.
    fn fill_front_over(&mut self, sections: &Sections) -> Result<()> {
        let place = match &self.lower {
            Bound::Unbounded => Place::First,
            Bound::Included(key) | Bound::Excluded(key) => Place::At(key),
        };
        let section = sections.section_at(place);
        if sections.has_waiting(section) {
            self.view.store().inner.load_from_table(section, When::Now)?;
        }
        let mut end = sections.high_of(section);
        let slice = if sections.is_loaded(section) {
            None
        } else {
            let slice = slice_at(sections, place, &mut self.front_slice, &self.back_slice)?;
            if let Some(high) = &slice.high
                && end.is_none_or(|end| high.as_slice() < end)
            {
                end = Some(high);
            }
            Some(slice)
        };
        let end = end.filter(|end| reaches(&self.upper, end)).map(<[u8]>::to_vec);
        let upper = end.clone().map_or_else(|| self.upper.clone(), Bound::Excluded);
        let (view, select, directory) =
            (&self.view, self.select, &self.view.store().inner.directory);
        let next = if let Some(slice) = slice {
            let mut rows = Vec::new();
            let next =
                step_front(directory, &self.lower, &upper, self.batch_rows, |leaf, found| {
                    for row in found {
                        copy_for_merge(select, leaf.chain(row), view.version(), &mut rows);
                    }
                });
            if sections.is_loaded(section) {
                return Ok(());
            }
            let upto = next.as_ref().map_or_else(|| upper.clone(), up_to);
            merge(view, select, &rows, rows_within(slice, &self.lower, &upto), &mut self.front);
            next
        } else {
            step_front(directory, &self.lower, &upper, self.batch_rows, |leaf, rows| {
                copy(view, select, leaf, rows, &mut self.front);
            })
        };
        self.batch_rows = LEAF_ROWS_MAX;
        match next.or(end.map(Bound::Included)) {
            Some(lower) => self.lower = lower,
            None => self.taken = true,
        }
        Ok(())
    }

    /// One step from the back with a table beneath, as from the front.
    fn fill_back_over(&mut self, sections: &Sections) -> Result<()> {
        let place = match &self.upper {
            Bound::Unbounded => Place::Last,
            Bound::Included(key) => Place::At(key),
            Bound::Excluded(key) if key.is_empty() => Place::First,
            Bound::Excluded(key) => Place::Below(key),
        };
        let section = sections.section_at(place);
        if sections.has_waiting(section) {
            self.view.store().inner.load_from_table(section, When::Now)?;
        }
        let mut begin = sections.low_of(section);
        let slice = if sections.is_loaded(section) {
            None
        } else {
            let slice = slice_at(sections, place, &mut self.back_slice, &self.front_slice)?;
            begin = begin.max(&slice.low);
            Some(slice)
        };
        let goes_on = !begin.is_empty() && !begins_at_or_after(&self.lower, begin);
        let begin = goes_on.then(|| begin.to_vec());
        let lower = begin.clone().map_or_else(|| self.lower.clone(), Bound::Included);
        let (view, select, directory) =
            (&self.view, self.select, &self.view.store().inner.directory);
        let next = if let Some(slice) = slice {
            let mut rows = Vec::new();
            let next = step_back(directory, &lower, &self.upper, self.batch_rows, |leaf, found| {
                for row in found {
                    copy_for_merge(select, leaf.chain(row), view.version(), &mut rows);
                }
            });
            if sections.is_loaded(section) {
                return Ok(());
            }
            let from = next.as_ref().map_or_else(|| lower.clone(), up_to);
            merge(view, select, &rows, rows_within(slice, &from, &self.upper), &mut self.back);
            next
        } else {
            step_back(directory, &lower, &self.upper, self.batch_rows, |leaf, rows| {
                copy(view, select, leaf, rows, &mut self.back);
            })
        };
        self.batch_rows = LEAF_ROWS_MAX;
        match next.or(begin.map(Bound::Excluded)) {
            Some(upper) => self.upper = upper,
            None => self.taken = true,
        }
        Ok(())
    }

    /// Ends it with an error: rows from beyond the gap would hide that there is one.
    pub(crate) fn fail(&mut self, error: Error) {
        self.failed = Some(error);
        self.taken = true;
        self.front.clear();
        self.back.clear();
    }
}

/// The slice for a place: one that this end or the other one of the range has, or a new one,
/// which this end keeps.
fn slice_at<'a>(
    sections: &Sections,
    place: Place<'_>,
    own: &'a mut Option<TableSlice>,
    others: &'a Option<TableSlice>,
) -> Result<&'a TableSlice> {
    if let Some(slice) = others
        && holds(slice, place)
    {
        return Ok(slice);
    }
    if !own.as_ref().is_some_and(|slice| holds(slice, place)) {
        let slice = sections.table.slice(place)?;
        assert!(holds(&slice, place), "a slice has the place that it was asked for");
        *own = Some(slice);
    }
    Ok(own.as_ref().expect("it was put there"))
}

/// How far a step has come if it goes on at `next`.
fn up_to(next: &Bound<Vec<u8>>) -> Bound<Vec<u8>> {
    match next {
        Bound::Included(key) => Bound::Excluded(key.clone()),
        Bound::Excluded(key) => Bound::Included(key.clone()),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// Calls `take` with the first rows within bounds that lie in one leaf. Returns from where on
/// there may be more of them.
fn step_front(
    directory: &Directory,
    lower: &Bound<Vec<u8>>,
    upper: &Bound<Vec<u8>>,
    rows_max: usize,
    take: impl FnOnce(&Leaf, std::ops::Range<usize>),
) -> Option<Bound<Vec<u8>>> {
    let seek = match lower {
        Bound::Unbounded => Seek::First,
        Bound::Included(key) | Bound::Excluded(key) => Seek::At(key),
    };
    directory.read(seek, |found| {
        let from = rows_before(found.leaf, lower);
        let end = rows_below(found.leaf, upper).max(from);
        let to = end.min(from + rows_max);
        take(found.leaf, from..to);
        if to < end {
            return Some(Bound::Excluded(found.leaf.newest()[to - 1].key().to_vec()));
        }
        found.high.filter(|high| reaches(upper, high)).map(|high| Bound::Included(high.to_vec()))
    })
}

/// Calls `take` with the last rows within bounds that lie in one leaf. Returns below what
/// there may be more of them.
fn step_back(
    directory: &Directory,
    lower: &Bound<Vec<u8>>,
    upper: &Bound<Vec<u8>>,
    rows_max: usize,
    take: impl FnOnce(&Leaf, std::ops::Range<usize>),
) -> Option<Bound<Vec<u8>>> {
    let seek = match upper {
        Bound::Unbounded => Seek::Last,
        Bound::Included(key) => Seek::At(key),
        Bound::Excluded(key) => Seek::Below(key),
    };
    directory.read(seek, |found| {
        let end = rows_below(found.leaf, upper);
        let begin = rows_before(found.leaf, lower).min(end);
        let from = begin.max(end.saturating_sub(rows_max));
        take(found.leaf, from..end);
        if from > begin {
            return Some(Bound::Excluded(found.leaf.newest()[from].key().to_vec()));
        }
        let is_last = found.low.is_empty() || begins_at_or_after(lower, found.low);
        (!is_last).then(|| Bound::Excluded(found.low.to_vec()))
    })
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
        Select::Newest => {
            let chains = rows.map(|row| leaf.chain(row));
            out.extend(chains.filter_map(|chain| chain.newest_at(view.version())).cloned());
        }
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
        let row = self.front.pop_front().or_else(|| self.back.pop_front());
        row.map(Ok).or_else(|| self.failed.take().map(Err))
    }
}

impl DoubleEndedIterator for Range {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.back.is_empty() {
            self.fill_back();
        }
        let row = self.back.pop_back().or_else(|| self.front.pop_back());
        row.map(Ok).or_else(|| self.failed.take().map(Err))
    }
}

impl std::iter::FusedIterator for Range {}
