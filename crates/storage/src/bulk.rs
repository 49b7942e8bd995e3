//! Inserting many records at once, as replay does.
//!
//! The more records come at once, the more of them fall into each leaf, and the seldomer it is
//! touched: runs are sorted as they come and gathered until there are about as many records as
//! there are keys. Then they are cut in two by key, and each half is merged into the leaves by a
//! thread of its own. A leaf that gets more than it holds is built anew as several, each with
//! some room left. Readers are kept out of one region at a time.

use std::cmp::Ordering;

use steadfast_core::{Record, Timestamp, Version};

use crate::heads::{common_prefix, head_of};
use crate::leaf::{Inserted, LEAF_ROWS_MAX, Leaf, Row};
use crate::lock;
use crate::points::{Change, Changes, Points};
use crate::region::Leaves;
use crate::rules::Rules;
use crate::store::Inner;

/// Records in order, from which the first are taken.
type Coming = std::vec::IntoIter<Keyed>;

/// Rows of a leaf built in bulk: as full as leaves can be without splitting soon.
const LEAF_ROWS_BUILT: usize = LEAF_ROWS_MAX * 27 / 32;

/// Below this many records a second thread costs more than it brings.
const TWO_THREADS_FROM: usize = 4096;

/// Fewer records than this wait for more.
const GATHERED_RECORDS_MIN: usize = if cfg!(test) { 100 } else { 1 << 18 };

/// More bytes than this do not wait: they are held beside what they supersede.
const GATHERED_BYTES_MAX: usize = 256 << 20;

/// Records that go in under one lock of a region at most: a new store is one region until some
/// are in, and no thread should keep another out of it for long.
const AT_ONCE: usize = if cfg!(test) { 50 } else { 1 << 15 };

/// From this many records on, a leaf is built anew of its rows and them: inserting each one
/// moves what is behind it.
const MERGED_FROM: usize = LEAF_ROWS_MAX / 4;

/// Records whose memory is asked for at once, before they are used one by one.
const WARMED: usize = 64;

/// A record with the head of its key behind some prefix, and its hash.
struct Keyed {
    head: u128,
    hash: u64,
    record: Record,
}

/// Runs that nobody can read yet, until they are worth inserting: each sorted when it came, so
/// that little is left to do when the last one is there.
#[derive(Default)]
pub(crate) struct Gathered {
    /// Each in the order of key and version.
    runs: Vec<Vec<Keyed>>,
    /// What most keys begin with.
    prefix: Vec<u8>,
    records: usize,
    bytes: usize,
    /// How many keys there seem to be.
    keys: usize,
    newest: Timestamp,
}

impl Gathered {
    fn add(&mut self, points: &Points, run: Vec<Record>) {
        if run.is_empty() {
            return;
        }
        if self.runs.is_empty() {
            self.prefix = prefix_of_most(&run);
        }
        for record in &run {
            self.newest = self.newest.max(record.timestamp());
            self.bytes += record.heap_bytes();
        }
        self.records += run.len();
        let keyed = |record: Record| {
            let (head, hash) = (head_beside(&self.prefix, record.key()), points.hash(record.key()));
            Keyed { head, hash, record }
        };
        let mut run: Vec<_> = run.into_iter().map(keyed).collect();
        run.sort_unstable_by(Keyed::order);
        // Of so many keys drawn from so many more, so many come twice.
        let twice = run.windows(2).filter(|pair| pair[0].hash == pair[1].hash).count();
        self.keys = run.len().saturating_mul(run.len()) / (2 * (twice + 1));
        self.runs.push(run);
    }

    /// All records, as runs in two parts: below and above about the middle of the keys.
    fn halves(self) -> [Vec<Keyed>; 2] {
        let step = self.records / 256 + 1;
        let records = || self.runs.iter().flatten();
        let mut sample: Vec<u128> = records().step_by(step).map(|keyed| keyed.head).collect();
        sample.sort_unstable();
        let pivot = sample[sample.len() / 2];
        let mut halves = [(); 2].map(|()| Vec::with_capacity(self.records / 2));
        for mut run in self.runs {
            let at = run.partition_point(|keyed| keyed.head < pivot);
            halves[1].extend(run.drain(at..));
            halves[0].append(&mut run);
        }
        halves
    }
}

/// Records on their way in.
struct Bulk<'a> {
    store: &'a Inner,
    /// What their heads are the heads behind.
    prefix: &'a [u8],
    /// Nothing has ever been published, so no reader can miss what is dropped.
    unread: bool,
    /// The hash comes to know of the records later.
    late: bool,
}

impl Inner {
    /// Takes a run of records, none of which is published.
    pub(crate) fn apply_run(&self, run: Vec<Record>) {
        self.note_forks_in(&run);
        let run = self.fold_run(run);
        if self.registry.visible() != Version::ZERO {
            let mut alone = Gathered::default();
            alone.add(&self.points, run);
            return self.insert_gathered(alone);
        }
        // Held while the records are inserted: the next run comes after them.
        let mut gathered = lock::lock(&self.gathered);
        gathered.add(&self.points, run);
        let many = self.points.len().max(gathered.keys).max(GATHERED_RECORDS_MIN);
        if gathered.records >= many || gathered.bytes >= GATHERED_BYTES_MAX {
            self.insert_gathered(std::mem::take(&mut *gathered));
        }
    }

    /// Inserts what is left of the runs so far.
    pub(crate) fn finish_runs(&self) {
        let mut gathered = lock::lock(&self.gathered);
        self.insert_gathered(std::mem::take(&mut *gathered));
    }

    fn insert_gathered(&self, gathered: Gathered) {
        if gathered.records == 0 {
            return;
        }
        let prefix = gathered.prefix.clone();
        let unread = self.registry.visible() == Version::ZERO;
        // It cannot be earlier than that now.
        self.registry.tell_time(gathered.newest);
        let bulk = Bulk { store: self, prefix: &prefix, unread, late: false };
        self.points.reserve(gathered.records);
        let many = gathered.records >= TWO_THREADS_FROM;
        let [lower, upper] = gathered.halves();
        if !many {
            bulk.merge(lower);
            return bulk.merge(upper);
        }
        std::thread::scope(|scope| {
            scope.spawn(|| bulk.merge(lower));
            bulk.merge(upper);
        });
    }

    /// Inserts records in the order of key, and the versions of a key newest first, as a part of
    /// a table that is being loaded. Nobody waits for them, for the table answers meanwhile.
    /// What that changes in the hash is left to the caller.
    pub(crate) fn insert_sorted(
        &self,
        records: &mut std::vec::IntoIter<Record>,
        count: usize,
        points: &mut Changes,
    ) {
        let part = &records.as_slice()[..count];
        let (Some(first), Some(last)) = (part.first().cloned(), part.last()) else { return };
        let shared = common_prefix(first.key(), last.key());
        let keyed = |record: Record| {
            let key = record.key();
            Keyed { head: wide_head(&key[shared..]), hash: self.points.hash(key), record }
        };
        let mut part: Vec<_> = records.take(count).map(keyed).collect();
        // Insertion wants the versions of a key as commits wrote them.
        part.chunk_by_mut(|a, b| a.same_key(b)).for_each(<[Keyed]>::reverse);
        let prefix = &first.key()[..shared];
        Bulk { store: self, prefix, unread: false, late: true }.insert(part, points);
    }
}

/// Sixteen bytes of a key, ordered as they are: a run's keys share less than a leaf's, and
/// reading whole keys is what sorting must avoid.
fn wide_head(bytes: &[u8]) -> u128 {
    u128::from(head_of(bytes)) << 64 | u128::from(head_of(bytes.get(8..).unwrap_or_default()))
}

/// What most of the records' keys begin with: the less is left of a key, the more of it is in its
/// head.
fn prefix_of_most(records: &[Record]) -> Vec<u8> {
    // Spread unevenly: the writes of a transaction may be in order, and transactions of one size.
    let place = |n: usize| (n.wrapping_mul(0x9e37_79b9) >> 7) % records.len().max(1);
    let mut sample: Vec<_> =
        (0..64).filter_map(|n| records.get(place(n))).map(Record::key).collect();
    sample.sort_unstable();
    let eighth = sample.len() / 8;
    let (Some(low), Some(high)) = (sample.get(eighth), sample.iter().rev().nth(eighth)) else {
        return Vec::new();
    };
    low[..common_prefix(low, high)].to_vec()
}

/// The head of a key behind a prefix. One that begins otherwise comes before or behind all that
/// begin with it, or beside the first or the last of them, which the keys themselves tell.
fn head_beside(prefix: &[u8], key: &[u8]) -> u128 {
    match key.strip_prefix(prefix) {
        Some(rest) => wide_head(rest),
        None if key < prefix => 0,
        None => u128::MAX,
    }
}

/// A key that ends a range.
struct End<'a> {
    key: &'a [u8],
    head: u128,
}

impl<'a> End<'a> {
    fn new(prefix: &[u8], key: &'a [u8]) -> Self {
        Self { key, head: head_beside(prefix, key) }
    }

    fn is_above(&self, keyed: &Keyed) -> bool {
        match keyed.head.cmp(&self.head) {
            Ordering::Equal => keyed.record.key() < self.key,
            unequal => unequal.is_lt(),
        }
    }
}

impl Bulk<'_> {
    /// Inserts records that are some runs in the order of key and version, one after the other.
    fn merge(&self, mut part: Vec<Keyed>) {
        part.sort_by(Keyed::order);
        self.insert(part, &mut Changes::default());
    }

    /// Inserts records in the order of key and version.
    fn insert(&self, part: Vec<Keyed>, points: &mut Changes) {
        let mut rest = part.into_iter();
        while let Some(first) = rest.as_slice().first().map(|keyed| keyed.record.clone()) {
            self.store.directory.rebuild(first.key(), |leaves, high| {
                let records = &rest.as_slice()[..rest.len().min(AT_ONCE)];
                let in_region = match high.map(|high| End::new(self.prefix, high)) {
                    Some(end) => records.partition_point(|keyed| end.is_above(keyed)),
                    None => records.len(),
                };
                let rules = lock::read(&self.store.rules);
                self.merge_into(&rules, leaves, &mut rest, in_region, points);
                drop(rules);
                if !self.late {
                    self.store.points.change_all(points);
                }
            });
        }
    }

    /// Inserts the next `count` of sorted records, which all belong to one region.
    fn merge_into(
        &self,
        rules: &Rules,
        leaves: &mut Leaves,
        rest: &mut Coming,
        count: usize,
        points: &mut Changes,
    ) {
        let mut left = count;
        let mut warmed = left;
        while left > 0 {
            let records = &rest.as_slice()[..left];
            if warmed >= left {
                let next = &records[..left.min(WARMED)];
                warmed = left - next.len();
                std::hint::black_box(next.iter().filter(|k| k.record.is_tombstone()).count());
            }
            let index = leaves.locate(records[0].record.key());
            let in_leaf = match leaves.end_of(index).map(|low| End::new(self.prefix, low)) {
                Some(end) => records.iter().take_while(|keyed| end.is_above(keyed)).count(),
                None => left,
            };
            let rows = leaves.leaf_mut(index).len();
            if in_leaf >= MERGED_FROM {
                let coming = rest.by_ref().take(in_leaf);
                self.build_anew(rules, leaves, index, coming, points);
            } else if rows + in_leaf <= LEAF_ROWS_MAX {
                let coming = rest.by_ref().take(in_leaf);
                self.insert_each(rules, leaves, index, coming, points);
            } else {
                leaves.split(index);
                continue;
            }
            left -= in_leaf;
        }
    }

    /// Inserts records into a leaf that has room for them.
    fn insert_each(
        &self,
        rules: &Rules,
        leaves: &mut Leaves,
        index: usize,
        records: impl Iterator<Item = Keyed>,
        points: &mut Changes,
    ) {
        let leaf = leaves.leaf_mut(index);
        for Keyed { hash, record, .. } in records {
            match leaf.insert(record.clone()) {
                Inserted::NewRow => {
                    points.push(hash, record.clone(), self.change(Change::Add));
                    if !record.is_tombstone() {
                        continue;
                    }
                }
                Inserted::OnTop => points.push(hash, record.clone(), self.change(Change::Set)),
                Inserted::Below => {}
                Inserted::Known => continue,
            }
            self.prune(rules, leaf, hash, record, points);
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
        records: impl ExactSizeIterator<Item = Keyed>,
        points: &mut Changes,
    ) {
        let old = std::mem::take(leaves.leaf_mut(index)).into_rows();
        let mut rows: Vec<Row> = Vec::with_capacity(old.len() + records.len());
        let mut superseding = Vec::new();
        let mut old = old.into_iter().peekable();
        // Of the key of the last row; unknown if that is an old one.
        let mut last_hash = None;
        for Keyed { hash, record, .. } in records {
            while let Some(row) = old.next_if(|row| row.newest.key() <= record.key()) {
                rows.push(row);
                last_hash = None;
            }
            let may_be_last = last_hash.replace(hash).is_none_or(|last| last == hash);
            if let Some(row) = rows.last_mut()
                && may_be_last
                && row.newest.key() == record.key()
            {
                superseding.push((hash, record.clone()));
                if row.insert(record.clone()) == Inserted::OnTop {
                    points.push(hash, record, self.change(Change::Set));
                }
            } else {
                if record.is_tombstone() {
                    superseding.push((hash, record.clone()));
                }
                points.push(hash, record.clone(), self.change(Change::Add));
                rows.push(Row { newest: record, older: Vec::new() });
            }
        }
        rows.extend(old);
        leaves.replace(index, built(rows));
        for (hash, record) in superseding {
            let index = leaves.locate(record.key());
            let leaf = leaves.leaf_mut(index);
            self.prune(rules, leaf, hash, record, points);
            if leaf.len() == 0 {
                leaves.join_if_small(index);
            }
        }
    }

    const fn change(&self, change: Change) -> Change {
        if self.late { Change::Late } else { change }
    }

    /// Drops what `record`, which is in the leaf or just went from it, has made superfluous.
    fn prune(
        &self,
        rules: &Rules,
        leaf: &mut Leaf,
        hash: u64,
        record: Record,
        points: &mut Changes,
    ) {
        let Ok(row) = leaf.find(record.key()) else { return };
        let chain = leaf.chain(row);
        if chain.older.is_empty() && !chain.newest.is_tombstone() {
            return;
        }
        let ruled = rules.of_key(record.key());
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
            points.push(hash, record, Change::Remove);
        }
        self.store.look_again(pruned.again_at, pruned.stayed);
        self.store.note_dropped(&pruned.dropped);
    }
}

impl Keyed {
    /// By key, then by version.
    fn order(&self, other: &Self) -> Ordering {
        (self.head.cmp(&other.head))
            .then_with(|| self.record.key().cmp(other.record.key()))
            .then_with(|| self.record.version().cmp(&other.record.version()))
    }

    fn same_key(&self, other: &Self) -> bool {
        self.hash == other.hash && self.record.key() == other.record.key()
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
