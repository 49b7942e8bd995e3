//! Inserting many records at once, as replay does.
//!
//! The more records come at once, the more of them fall into each leaf, and the seldomer it is
//! touched: runs are gathered until there are about as many as the store has keys. A run is cut in two by key, and each half is sorted and merged into the leaves by a thread
//! of its own. A leaf that gets more than it holds is built anew as several, each with some
//! room left. Readers are kept out of one region at a time.

use std::cmp::Ordering;

use steadfast_core::{Record, Version};

use crate::heads::{common_prefix, head_of};
use crate::leaf::{Inserted, LEAF_ROWS_MAX, Leaf, Row};
use crate::lock;
use crate::points::Change;
use crate::region::Leaves;
use crate::rules::Rules;
use crate::store::Inner;

/// Rows of a leaf built in bulk: as full as leaves can be without splitting soon.
const LEAF_ROWS_BUILT: usize = LEAF_ROWS_MAX * 27 / 32;

/// Below this many records a second thread costs more than it brings.
const TWO_THREADS_FROM: usize = 4096;

/// Fewer records than this wait for more.
const GATHERED_RECORDS_MIN: usize = if cfg!(test) { 100 } else { 1 << 18 };

/// More bytes than this do not wait: they are held beside what they supersede.
const GATHERED_BYTES_MAX: usize = 256 << 20;

/// From this many records on, a leaf is built anew of its rows and them: inserting each one
/// moves what is behind it.
const MERGED_FROM: usize = LEAF_ROWS_MAX / 4;

/// Records whose memory is asked for at once, before they are used one by one.
const WARMED: usize = 64;

/// A record with the beginning of its key after the prefix that its run shares, and its hash.
struct Keyed {
    head: u128,
    hash: u64,
    record: Record,
}

/// Runs that nobody can read yet, until they are worth inserting.
#[derive(Default)]
pub(crate) struct Gathered {
    records: Vec<Record>,
    bytes: usize,
}

/// One run on its way in.
struct Bulk<'a> {
    store: &'a Inner,
    /// What every key of the run begins with.
    prefix: &'a [u8],
    /// Nothing has ever been published, so no reader can miss what is dropped.
    unread: bool,
}

impl Inner {
    /// Takes a run of records, none of which is published.
    pub(crate) fn apply_run(&self, run: Vec<Record>) {
        self.note_forks_in(&run);
        let run = self.fold_run(run);
        if self.registry.visible() != Version::ZERO {
            return self.insert_run(run);
        }
        // Held while the records are inserted: the next run comes after them.
        let mut gathered = lock::lock(&self.gathered);
        gathered.bytes += run.iter().map(Record::heap_bytes).sum::<usize>();
        gathered.records.extend(run);
        let many = self.points.len().max(GATHERED_RECORDS_MIN);
        if gathered.records.len() >= many || gathered.bytes >= GATHERED_BYTES_MAX {
            self.insert_run(std::mem::take(&mut *gathered).records);
        }
    }

    /// Inserts what is left of the runs so far.
    pub(crate) fn finish_runs(&self) {
        let mut gathered = lock::lock(&self.gathered);
        self.insert_run(std::mem::take(&mut *gathered).records);
    }

    fn insert_run(&self, run: Vec<Record>) {
        let Some(first) = run.first().cloned() else { return };
        let shared = run.iter().fold(first.key().len(), |shared, record| {
            shared.min(common_prefix(&first.key()[..shared], record.key()))
        });
        let unread = self.registry.visible() == Version::ZERO;
        // It cannot be earlier than that now.
        let newest = run.iter().map(Record::timestamp).max().unwrap_or_default();
        self.registry.tell_time(newest);
        let bulk = Bulk { store: self, prefix: &first.key()[..shared], unread };
        self.points.reserve(run.len());
        let keyed = run.into_iter().map(|record| {
            let (head, hash) = (wide_head(&record.key()[shared..]), self.points.hash(record.key()));
            Keyed { head, hash, record }
        });
        if keyed.len() < TWO_THREADS_FROM {
            bulk.merge(keyed.collect());
            return;
        }
        let keyed: Vec<_> = keyed.collect();
        let pivot = middle_head(&keyed);
        let (lower, upper): (Vec<_>, Vec<_>) = keyed.into_iter().partition(|k| k.head < pivot);
        std::thread::scope(|scope| {
            scope.spawn(|| bulk.merge(lower));
            bulk.merge(upper);
        });
    }

    /// Inserts records in the order of key and version, as a part of a table that is being
    /// loaded. Nobody waits for them, for the table answers meanwhile.
    pub(crate) fn insert_sorted(&self, records: impl ExactSizeIterator<Item = Record>) {
        let keyed =
            |record: Record| Keyed { head: 0, hash: self.points.hash(record.key()), record };
        let mut part: Vec<_> = records.map(keyed).collect();
        let (Some(first), Some(last)) = (part.first(), part.last()) else { return };
        let (first, last) = (first.record.clone(), last.record.clone());
        let shared = common_prefix(first.key(), last.key());
        for keyed in &mut part {
            keyed.head = wide_head(&keyed.record.key()[shared..]);
        }
        let bulk = Bulk { store: self, prefix: &first.key()[..shared], unread: false };
        bulk.insert(part);
    }
}

/// A head with about as many below it as above.
fn middle_head(keyed: &[Keyed]) -> u128 {
    let mut sample: Vec<u128> =
        keyed.iter().step_by(keyed.len() / 256 + 1).map(|k| k.head).collect();
    sample.sort_unstable();
    sample[sample.len() / 2]
}

/// Sixteen bytes of a key, ordered as they are: a run's keys share less than a leaf's, and
/// reading whole keys is what sorting must avoid.
fn wide_head(bytes: &[u8]) -> u128 {
    u128::from(head_of(bytes)) << 64 | u128::from(head_of(bytes.get(8..).unwrap_or_default()))
}

/// A key that ends a range, in terms of a run.
struct End<'a> {
    key: &'a [u8],
    /// How it compares with every key of the run, or else its head.
    head: Result<u128, Ordering>,
}

impl<'a> End<'a> {
    fn new(prefix: &[u8], key: &'a [u8]) -> Self {
        let shared = prefix.len().min(key.len());
        let head = match key[..shared].cmp(&prefix[..shared]) {
            Ordering::Equal if key.len() < prefix.len() => Err(Ordering::Less),
            Ordering::Equal => Ok(wide_head(&key[shared..])),
            unequal => Err(unequal),
        };
        Self { key, head }
    }

    fn is_above(&self, keyed: &Keyed) -> bool {
        match self.head {
            Ok(head) if head == keyed.head => keyed.record.key() < self.key,
            Ok(head) => keyed.head < head,
            Err(ordering) => ordering == Ordering::Greater,
        }
    }
}

impl Bulk<'_> {
    /// Sorts and inserts a part of the run.
    fn merge(&self, mut part: Vec<Keyed>) {
        part.sort_unstable_by(|a, b| {
            (a.head.cmp(&b.head))
                .then_with(|| a.record.key().cmp(b.record.key()))
                .then_with(|| a.record.version().cmp(&b.record.version()))
        });
        self.insert(part);
    }

    /// Inserts records in the order of key and version.
    fn insert(&self, part: Vec<Keyed>) {
        let mut rest = part.into_iter();
        let mut points = Vec::new();
        while let Some(first) = rest.as_slice().first().map(|keyed| keyed.record.clone()) {
            self.store.directory.rebuild(first.key(), |leaves, high| {
                let records = rest.as_slice();
                let in_region = match high.map(|high| End::new(self.prefix, high)) {
                    Some(end) => records.partition_point(|keyed| end.is_above(keyed)),
                    None => records.len(),
                };
                let rules = lock::read(&self.store.rules);
                self.merge_into(&rules, leaves, &records[..in_region], &mut points);
                drop(rules);
                self.store.points.change_all(&mut points);
                rest.by_ref().take(in_region).for_each(drop);
            });
        }
    }

    /// Inserts sorted records that all belong to one region.
    fn merge_into(
        &self,
        rules: &Rules,
        leaves: &mut Leaves,
        mut records: &[Keyed],
        points: &mut Changes,
    ) {
        let mut warmed = records.len();
        while let Some(first) = records.first() {
            if warmed >= records.len() {
                let next = &records[..records.len().min(WARMED)];
                warmed = records.len() - next.len();
                std::hint::black_box(next.iter().filter(|k| k.record.is_tombstone()).count());
            }
            let index = leaves.locate(first.record.key());
            let in_leaf = match leaves.end_of(index).map(|low| End::new(self.prefix, low)) {
                Some(end) => records.iter().take_while(|keyed| end.is_above(keyed)).count(),
                None => records.len(),
            };
            let rows = leaves.leaf_mut(index).len();
            if in_leaf >= MERGED_FROM {
                self.build_anew(rules, leaves, index, &records[..in_leaf], points);
            } else if rows + in_leaf <= LEAF_ROWS_MAX {
                self.insert_each(rules, leaves, index, &records[..in_leaf], points);
            } else if in_leaf < LEAF_ROWS_MAX && rows > 1 {
                leaves.split(index);
                continue;
            } else {
                self.build_anew(rules, leaves, index, &records[..in_leaf], points);
            }
            records = &records[in_leaf..];
        }
    }

    /// Inserts records into a leaf that has room for them.
    fn insert_each(
        &self,
        rules: &Rules,
        leaves: &mut Leaves,
        index: usize,
        records: &[Keyed],
        points: &mut Changes,
    ) {
        let leaf = leaves.leaf_mut(index);
        for keyed in records {
            match leaf.insert(keyed.record.clone()) {
                Inserted::NewRow => {
                    points.push(keyed.change(Change::Add));
                    if !keyed.record.is_tombstone() {
                        continue;
                    }
                }
                Inserted::OnTop => points.push(keyed.change(Change::Set)),
                Inserted::Below => {}
                Inserted::Known => continue,
            }
            self.prune(rules, leaf, keyed, points);
        }
        if leaf.len() == 0 {
            leaves.join_if_small(index);
        }
    }

    /// Builds as many leaves as it takes from the rows of one leaf and records in the order of
    /// key and version.
    fn build_anew(
        &self,
        rules: &Rules,
        leaves: &mut Leaves,
        index: usize,
        records: &[Keyed],
        points: &mut Changes,
    ) {
        let old = std::mem::take(leaves.leaf_mut(index)).into_rows();
        let mut rows: Vec<Row> = Vec::with_capacity(old.len() + records.len());
        let mut superseding = Vec::new();
        let mut old = old.into_iter().peekable();
        for keyed in records {
            let (record, key) = (keyed.record.clone(), keyed.record.key());
            while let Some(row) = old.next_if(|row| row.newest.key() <= key) {
                rows.push(row);
            }
            if let Some(row) = rows.last_mut().filter(|row| row.newest.key() == key) {
                if row.insert(record) == Inserted::OnTop {
                    points.push(keyed.change(Change::Set));
                }
                superseding.push(keyed);
            } else {
                points.push(keyed.change(Change::Add));
                if record.is_tombstone() {
                    superseding.push(keyed);
                }
                rows.push(Row { newest: record, older: Vec::new() });
            }
        }
        rows.extend(old);
        leaves.replace(index, built(rows));
        for keyed in superseding {
            let index = leaves.locate(keyed.record.key());
            let leaf = leaves.leaf_mut(index);
            self.prune(rules, leaf, keyed, points);
            if leaf.len() == 0 {
                leaves.join_if_small(index);
            }
        }
    }

    fn prune(&self, rules: &Rules, leaf: &mut Leaf, keyed: &Keyed, points: &mut Changes) {
        let Ok(row) = leaf.find(keyed.record.key()) else { return };
        let chain = leaf.chain(row);
        if chain.older.is_empty() && !chain.newest.is_tombstone() {
            return;
        }
        let ruled = rules.of_key(keyed.record.key());
        let domain = ruled.domain;
        let mut limits = self.store.limits(ruled);
        if self.unread {
            (limits.horizon, limits.visible) = (Version::MAX, Version::MAX);
        }
        let pruned = leaf.prune(row, &limits, ruled.pins, |floor| {
            if self.unread {
                domain.raise(floor);
            }
            self.unread || self.store.registry.may_drop(domain, floor)
        });
        if pruned.row_gone {
            points.push(keyed.change(Change::Remove));
        }
        self.store.look_again(pruned.again_at, pruned.stayed);
        self.store.note_dropped(&pruned.dropped);
    }
}

/// Changes of the hash, made together when a region's leaves are done.
type Changes = Vec<(u64, Record, Change)>;

impl Keyed {
    fn change(&self, change: Change) -> (u64, Record, Change) {
        (self.hash, self.record.clone(), change)
    }
}

/// Leaves with some room left, of rows in key order.
fn built(rows: Vec<Row>) -> Vec<Leaf> {
    let leaves = if rows.len() <= LEAF_ROWS_MAX { 1 } else { rows.len().div_ceil(LEAF_ROWS_BUILT) };
    let size = rows.len().div_ceil(leaves);
    let mut rows = rows.into_iter();
    let mut out = Vec::with_capacity(leaves);
    while rows.len() > 0 {
        let take = size.min(rows.len());
        out.push(Leaf::from_rows(rows.by_ref().take(take)));
    }
    out
}
