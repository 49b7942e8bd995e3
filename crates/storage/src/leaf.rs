//! Up to [`LEAF_ROWS_MAX`] neighbouring keys with all their versions.
//!
//! A leaf is the authority for its keys: what it holds is what the store holds. It knows
//! nothing of locks; the directory hands it out behind one.

use std::cmp::Ordering;

use steadfast_core::{Record, RetentionFloor, Sabotage, Timestamp, Version, sabotaged};

use crate::chain::{Chain, Limits};
use crate::forks::Pins;
use crate::heads::Heads;

/// Most rows of a leaf. A search reads eight bytes of a few rows, an insertion moves sixteen
/// bytes of each row behind it, a scan copies at most these many handles under one lock. Few
/// in our own tests, so that these split and join leaves all the time.
pub(crate) const LEAF_ROWS_MAX: usize = if cfg!(test) { 8 } else { 128 };

/// One key with its versions.
pub(crate) struct Row {
    pub newest: Record,
    /// Oldest first.
    pub older: Vec<Record>,
}

impl Row {
    /// Adds a version of its key.
    pub(crate) fn insert(&mut self, record: Record) -> Inserted {
        insert_version(&mut self.newest, || &mut self.older, record)
    }
}

/// Puts a record where its version belongs. `older` is asked for only if it changes.
fn insert_version<'a>(
    newest: &mut Record,
    older: impl FnOnce() -> &'a mut Vec<Record>,
    record: Record,
) -> Inserted {
    match record.version().cmp(&newest.version()) {
        Ordering::Equal => Inserted::Known,
        Ordering::Greater => {
            older().push(std::mem::replace(newest, record));
            Inserted::OnTop
        }
        Ordering::Less if sabotaged(Sabotage::LowerVersionWins) => {
            older().push(std::mem::replace(newest, record));
            Inserted::OnTop
        }
        Ordering::Less => {
            let older = older();
            match older.binary_search_by_key(&record.version(), Record::version) {
                Ok(_) => Inserted::Known,
                Err(at) => {
                    older.insert(at, record);
                    Inserted::Below
                }
            }
        }
    }
}

/// A leaf of the ordered index.
#[derive(Default)]
pub(crate) struct Leaf {
    heads: Heads,
    newest: Vec<Record>,
    /// For the rows that have any, ordered by row.
    history: Vec<History>,
    payload_bytes: usize,
    record_bytes: usize,
}

/// The older versions of one row, oldest first, at least one.
struct History {
    row: usize,
    versions: Vec<Record>,
}

/// What an insertion did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// The key was not there.
    NewRow,
    /// The record is the newest of its key now.
    OnTop,
    /// There are newer versions, which stay in front of it.
    Below,
    /// This version of the key was there already. Nothing changed.
    Known,
}

/// What pruning a row did and left to do.
#[derive(Default)]
pub(crate) struct Pruned {
    /// What was dropped, to be freed outside of the lock.
    pub dropped: Vec<Record>,
    /// The row itself was a spent tombstone, and is gone.
    pub row_gone: bool,
    /// Prune the key of this record again once the horizon has reached its version.
    pub again_at: Option<Record>,
    /// Nothing but the rule that tombstones stay kept this one.
    pub stayed: Option<Record>,
}

/// Bytes that an allocator takes for `bytes`: a word of its own, rounded to 16.
pub(crate) fn allocated(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
}

impl Leaf {
    /// Of rows in key order.
    pub(crate) fn from_rows(rows: impl ExactSizeIterator<Item = Row>) -> Self {
        let mut leaf = Self { newest: Vec::with_capacity(rows.len()), ..Self::default() };
        for row in rows {
            row.older.iter().for_each(|record| leaf.count_in(record));
            leaf.count_in(&row.newest);
            if !row.older.is_empty() {
                leaf.history.push(History { row: leaf.newest.len(), versions: row.older });
            }
            leaf.newest.push(row.newest);
        }
        leaf.heads = Heads::new(leaf.newest.len(), |i| leaf.newest[i].key());
        leaf
    }

    /// Its rows in key order.
    pub(crate) fn into_rows(self) -> Vec<Row> {
        let mut history = self.history.into_iter().peekable();
        let rows = self.newest.into_iter().enumerate().map(|(i, newest)| Row {
            newest,
            older: history.next_if(|h| h.row == i).map(|h| h.versions).unwrap_or_default(),
        });
        rows.collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.newest.len()
    }

    /// Every kept version, those of history included.
    pub(crate) fn versions(&self) -> usize {
        self.len() + self.history.iter().map(|history| history.versions.len()).sum::<usize>()
    }

    /// Bytes of keys and values of every version.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Bytes on the heap, records included.
    pub(crate) fn heap_bytes(&self) -> usize {
        let history: usize =
            self.history.iter().map(|h| allocated(h.versions.capacity() * 8)).sum();
        self.record_bytes
            + allocated(self.heads.heap_bytes())
            + allocated(self.newest.capacity() * size_of::<Record>())
            + allocated(self.history.capacity() * size_of::<History>())
            + history
    }

    /// The row of `key`, or where it would be.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        self.heads.search(key, |i| self.newest[i].key())
    }

    /// The newest versions of all rows.
    #[inline]
    pub(crate) fn newest(&self) -> &[Record] {
        &self.newest
    }

    /// All versions of a row.
    #[inline]
    pub(crate) fn chain(&self, row: usize) -> Chain<'_> {
        let older = self.history_of(row).map_or(&[][..], |i| &self.history[i].versions);
        Chain { older, newest: &self.newest[row] }
    }

    #[inline]
    fn history_of(&self, row: usize) -> Result<usize, usize> {
        self.history.binary_search_by_key(&row, |history| history.row)
    }

    /// Adds a version of a key. The caller has seen to it that there is room for a new row.
    pub(crate) fn insert(&mut self, record: Record) -> Inserted {
        let row = match self.find(record.key()) {
            Ok(row) => row,
            Err(row) => {
                self.insert_row(row, record);
                return Inserted::NewRow;
            }
        };
        let (payload, heap) = (record.payload_bytes(), allocated(record.heap_bytes()));
        let history = &mut self.history;
        let inserted = insert_version(&mut self.newest[row], || older_of(history, row), record);
        if inserted != Inserted::Known {
            self.payload_bytes += payload;
            self.record_bytes += heap;
        }
        inserted
    }

    fn insert_row(&mut self, row: usize, record: Record) {
        if self.newest.len() == self.newest.capacity() {
            // Small leaves grow by doubling; a leaf never takes more than it may use.
            let room = (self.newest.len() * 2).clamp(8, LEAF_ROWS_MAX).max(self.newest.len() + 1);
            self.newest.reserve_exact(room - self.newest.len());
            self.heads.reserve_total(room);
        }
        self.count_in(&record);
        self.heads.insert(row, record.key(), |i| self.newest[i].key());
        self.newest.insert(row, record);
        self.history.iter_mut().filter(|h| h.row >= row).for_each(|h| h.row += 1);
    }

    fn remove_row(&mut self, row: usize) -> Record {
        self.heads.remove(row);
        let record = self.newest.remove(row);
        self.count_out(&record);
        self.history.iter_mut().filter(|h| h.row > row).for_each(|h| h.row -= 1);
        record
    }

    /// Takes one version of a row back, as if it had never been inserted. Returns whether
    /// the row is gone with it.
    pub(crate) fn take_back(&mut self, row: usize, version: Version) -> bool {
        let history = self.history_of(row).ok();
        if self.newest[row].version() == version {
            let Some(history) = history else {
                self.remove_row(row);
                return true;
            };
            let next = self.history[history].versions.pop().expect("a history is never empty");
            let record = std::mem::replace(&mut self.newest[row], next);
            self.count_out(&record);
        } else if let Some(history) = history {
            let versions = &mut self.history[history].versions;
            if let Ok(at) = versions.binary_search_by_key(&version, Record::version) {
                let record = versions.remove(at);
                self.count_out(&record);
            }
        }
        self.forget_empty_history(history);
        false
    }

    fn forget_empty_history(&mut self, history: Option<usize>) {
        if let Some(history) = history.filter(|i| self.history[*i].versions.is_empty()) {
            self.history.remove(history);
        }
    }

    /// Drops what nobody needs of a row's versions. `may_drop` is asked before, with what readers
    /// have to be at in order not to miss it, and may refuse.
    pub(crate) fn prune(
        &mut self,
        row: usize,
        limits: &Limits,
        pins: Pins<'_>,
        may_drop: impl Fn(RetentionFloor) -> bool,
    ) -> Pruned {
        let mut pruned = Pruned::default();
        let chain = self.chain(row);
        let mut superfluous = chain.superfluous(limits, pins);
        if superfluous.first == chain.len() && !may_drop(chain.floor_without(superfluous.first)) {
            // A view was opened that looks from before the expiry. The next trim may see to it.
            let unexpired = Limits { expired_by: Timestamp::ZERO, ..*limits };
            superfluous = chain.superfluous(&unexpired, pins);
        }
        if !superfluous.is_empty() {
            let first = superfluous.first;
            if !may_drop(chain.floor_without(first)) {
                pruned.again_at = Some(chain.at(first).clone());
                return pruned;
            }
            let all = first == chain.len();
            if let Ok(history) = self.history_of(row) {
                let versions = &mut self.history[history].versions;
                let mut index = 0;
                let drops = |_: &mut Record| {
                    index += 1;
                    superfluous.has(index - 1)
                };
                pruned.dropped = versions.extract_if(.., drops).collect();
                pruned.dropped.iter().for_each(|record| self.count_out(record));
                self.forget_empty_history(Some(history));
            }
            if all {
                pruned.dropped.push(self.remove_row(row));
                pruned.row_gone = true;
                return pruned;
            }
        }
        let chain = self.chain(row);
        if chain.is_spent_tombstone(limits) {
            if limits.tombstones_stay {
                pruned.stayed = Some(chain.newest.clone());
            } else {
                pruned.dropped.push(self.remove_row(row));
                pruned.row_gone = true;
            }
        } else {
            pruned.again_at = chain.waits_for(limits, pins).cloned();
        }
        pruned
    }

    /// Moves the upper half of the rows into a new leaf.
    pub(crate) fn split(&mut self) -> Self {
        let half = self.len() / 2;
        let mut upper = Self { newest: self.newest.split_off(half), ..Self::default() };
        match self.heads.split_off(half) {
            Some(heads) => upper.heads = heads,
            None => {
                self.heads = Heads::new(half, |i| self.newest[i].key());
                upper.heads = Heads::new(upper.newest.len(), |i| upper.newest[i].key());
            }
        }
        let first = self.history.partition_point(|history| history.row < half);
        upper.history = self.history.split_off(first);
        upper.history.iter_mut().for_each(|history| history.row -= half);
        let older = upper.history.iter().flat_map(|history| &history.versions);
        let (mut payload, mut bytes) = (0, 0);
        for record in upper.newest.iter().chain(older) {
            payload += record.payload_bytes();
            bytes += allocated(record.heap_bytes());
        }
        (upper.payload_bytes, upper.record_bytes) = (payload, bytes);
        self.payload_bytes -= payload;
        self.record_bytes -= bytes;
        upper
    }

    fn count_in(&mut self, record: &Record) {
        self.payload_bytes += record.payload_bytes();
        self.record_bytes += allocated(record.heap_bytes());
    }

    fn count_out(&mut self, record: &Record) {
        self.payload_bytes -= record.payload_bytes();
        self.record_bytes -= allocated(record.heap_bytes());
    }
}

/// The older versions of a row, made if there are none. Whoever asks adds one: never left
/// empty.
fn older_of(history: &mut Vec<History>, row: usize) -> &mut Vec<Record> {
    let at = history.binary_search_by_key(&row, |history| history.row).unwrap_or_else(|at| {
        history.insert(at, History { row, versions: Vec::with_capacity(1) });
        at
    });
    &mut history[at].versions
}
