//! Laying what memory holds of some keys over what a table beneath it does.

use std::cmp::Ordering;
use std::ops::Bound;

use steadfast_core::{Place, Record, Sabotage, TableSlice, Version, sabotaged};

use crate::chain::Chain;
use crate::store::Inner;
use crate::view::View;

/// Which records of a key a reader wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Select {
    /// The newest one, if it is live.
    Live,
    /// The newest one, also if it is deleted or expired.
    Newest,
    /// Every one.
    Versions,
}

/// Appends what of `chain` a merge needs in order to select from it.
pub(crate) fn copy_for_merge(select: Select, chain: Chain<'_>, at: Version, out: &mut Vec<Record>) {
    match select {
        Select::Live | Select::Newest => out.extend(chain.newest_at(at).cloned()),
        // Those above the view too: how much of the table's history counts depends on them.
        Select::Versions => out.extend(chain.upto(Version::MAX).cloned()),
    }
}

/// Appends what `view` selects from memory's and the table's records of the same keys, both by
/// key and by falling version.
pub(crate) fn merge(
    view: &View,
    select: Select,
    memory: &[Record],
    table: &[Record],
    out: &mut impl Extend<Record>,
) {
    let same_key = |a: &Record, b: &Record| a.key() == b.key();
    let mut memory = memory.chunk_by(same_key).peekable();
    let mut table = table.chunk_by(same_key).peekable();
    loop {
        let order = match (memory.peek(), table.peek()) {
            (Some(above), Some(below)) => above[0].key().cmp(below[0].key()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        let above = memory.next_if(|_| order.is_le()).unwrap_or_default();
        let below = table.next_if(|_| order.is_ge()).unwrap_or_default();
        match select {
            Select::Live | Select::Newest => {
                let seen = |record: &&Record| record.version() <= view.version();
                let newest = above.iter().find(seen).into_iter().chain(below.iter().find(seen));
                let newest = match sabotaged(Sabotage::TableBeatsMemory) {
                    false => newest.max_by_key(|record| record.version()),
                    true => newest.min_by_key(|record| record.version()),
                };
                let wanted =
                    |record: &&Record| select == Select::Newest || record.is_live(view.now());
                out.extend(newest.filter(wanted).cloned());
            }
            Select::Versions => {
                let mut all = union(&view.store().inner, above, below);
                all.retain(|record| record.version() <= view.version());
                out.extend(all);
            }
        }
    }
}

/// All versions of one key, newest first: memory's, and of the table's those that would stay if
/// they were loaded now. Without the last rule a version that memory has dropped would be
/// missing between older and newer ones.
fn union(store: &Inner, above: &[Record], below: &[Record]) -> Vec<Record> {
    let mut all: Vec<Record> = above.iter().rev().chain(below.iter().rev()).cloned().collect();
    all.sort_by_key(Record::version);
    all.dedup_by_key(|record| record.version());
    let Some(newest) = all.pop() else { return all };
    let superfluous = store.superfluous_of(Chain { older: &all, newest: &newest });
    let oldest_above = above.last().map_or(Version::MAX, Record::version);
    let mut index = 0;
    all.retain(|record| {
        index += 1;
        record.version() >= oldest_above || !superfluous.has(index - 1)
    });
    all.push(newest);
    all.reverse();
    all
}

/// Whether a slice is what a table answers for a place.
pub(crate) fn holds(slice: &TableSlice, place: Place<'_>) -> bool {
    let high = slice.high.as_deref();
    match place {
        Place::First => slice.low.is_empty(),
        Place::Last => high.is_none(),
        Place::At(key) => slice.low.as_slice() <= key && high.is_none_or(|high| key < high),
        Place::Below(key) => slice.low.as_slice() < key && high.is_none_or(|high| key <= high),
    }
}

/// The rows of a slice within some bounds.
pub(crate) fn rows_within<'a>(
    slice: &'a TableSlice,
    lower: &Bound<Vec<u8>>,
    upper: &Bound<Vec<u8>>,
) -> &'a [Record] {
    let from = slice.rows.partition_point(|record| match lower {
        Bound::Unbounded => false,
        Bound::Included(lower) => record.key() < lower.as_slice(),
        Bound::Excluded(lower) => record.key() <= lower.as_slice(),
    });
    let rest = &slice.rows[from..];
    let to = rest.partition_point(|record| match upper {
        Bound::Unbounded => true,
        Bound::Included(upper) => record.key() <= upper.as_slice(),
        Bound::Excluded(upper) => record.key() < upper.as_slice(),
    });
    &rest[..to]
}
