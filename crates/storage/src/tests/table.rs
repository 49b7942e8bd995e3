//! A table beneath the store: in memory, with tiny blocks and sections, and blocks that break.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use steadfast_core::{Place, SortedTable, TableError, TableSlice};

use super::*;
use crate::Error;

/// A sorted table of blocks of a few keys, and sections of a few blocks.
#[derive(Default)]
pub(super) struct FakeTable {
    blocks: Vec<Vec<Record>>,
    /// The first block of each section.
    sections: Vec<usize>,
    broken: Mutex<BTreeSet<usize>>,
    slices_read: AtomicUsize,
    /// What happens while the next slice is read.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for FakeTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FakeTable({} blocks)", self.blocks.len())
    }
}

impl FakeTable {
    /// Of each key's versions, oldest first.
    pub(super) fn new(
        rows: impl IntoIterator<Item = Vec<Record>>,
        keys_a_block: usize,
        blocks_a_section: usize,
    ) -> Arc<Self> {
        let rows: Vec<_> = rows.into_iter().filter(|row| !row.is_empty()).collect();
        assert!(rows.is_sorted_by(|a, b| a[0].key() < b[0].key()));
        let newest_first = |row: &Vec<Record>| row.iter().rev().cloned().collect::<Vec<_>>();
        let block = |rows: &[Vec<Record>]| rows.iter().flat_map(newest_first).collect();
        let blocks: Vec<_> = rows.chunks(keys_a_block).map(block).collect();
        let sections = (0..blocks.len()).step_by(blocks_a_section).collect();
        Arc::new(Self { blocks, sections, ..Self::default() })
    }

    pub(super) fn of_store(store: &UnifiedStore) -> Arc<Self> {
        Self::new(contents(store).into_iter().map(|(_, records)| records), 3, 2)
    }

    fn break_block(&self, block: usize) {
        self.broken.lock().unwrap().insert(block);
    }

    fn mend(&self) {
        self.broken.lock().unwrap().clear();
    }

    fn block(&self, block: usize) -> Result<&[Record], TableError> {
        if self.broken.lock().unwrap().contains(&block) {
            let offset = u64::try_from(block).unwrap() * 4096;
            let (file, reason) = ("SNAPSHOTS/fake".into(), "wrong checksum".into());
            return Err(TableError { file, offset, reason, io: None });
        }
        Ok(&self.blocks[block])
    }

    fn block_of(&self, key: &[u8]) -> usize {
        self.blocks.partition_point(|block| block[0].key() <= key).saturating_sub(1)
    }

    fn blocks_of(&self, section: usize) -> std::ops::Range<usize> {
        let end = self.sections.get(section + 1).copied().unwrap_or(self.blocks.len());
        self.sections[section]..end
    }
}

impl SortedTable for FakeTable {
    fn rows(&self) -> u64 {
        self.blocks.iter().map(|block| block.len() as u64).sum()
    }

    fn get(&self, key: &[u8], at: Version) -> Result<Option<Record>, TableError> {
        let block = self.block(self.block_of(key))?;
        Ok(block.iter().find(|r| r.key() == key && r.version() <= at).cloned())
    }

    fn slice(&self, place: Place<'_>) -> Result<TableSlice, TableError> {
        let block = match place {
            Place::First => 0,
            Place::Last => self.blocks.len() - 1,
            Place::At(key) => self.block_of(key),
            Place::Below(key) => {
                self.blocks.partition_point(|block| block[0].key() < key).saturating_sub(1)
            }
        };
        self.slices_read.fetch_add(1, Ordering::Relaxed);
        let meanwhile = self.meanwhile.lock().unwrap().take();
        meanwhile.into_iter().for_each(|happen| happen());
        let rows = self.block(block)?.to_vec();
        let low = if block == 0 { Vec::new() } else { rows[0].key().to_vec() };
        let high = self.blocks.get(block + 1).map(|next| next[0].key().to_vec());
        Ok(TableSlice { low, high, rows })
    }

    fn sections(&self) -> usize {
        self.sections.len()
    }

    fn section_of(&self, key: &[u8]) -> usize {
        let first = |block: &usize| self.blocks[*block][0].key();
        self.sections.partition_point(|block| first(block) <= key).saturating_sub(1)
    }

    fn first_key(&self, section: usize) -> &[u8] {
        self.blocks[self.sections[section]][0].key()
    }

    fn section(&self, section: usize) -> Result<Vec<Record>, TableError> {
        let mut rows = Vec::new();
        for block in self.blocks_of(section) {
            rows.extend_from_slice(self.block(block)?);
        }
        Ok(rows)
    }
}

fn key(number: u32) -> Vec<u8> {
    [&b"key"[..], &number.to_be_bytes()].concat()
}

/// `keys` keys at version 1.
fn table_of(keys: u32) -> Arc<FakeTable> {
    FakeTable::new((0..keys).map(|i| vec![put_at(&key(i), 1, b"table")]), 3, 2)
}

fn store_over(table: &Arc<FakeTable>, retention: Retention) -> UnifiedStore {
    let store = UnifiedStore::with_retention(retention);
    store.attach_table(table.clone());
    store.publish(Version(1));
    store
}

fn load_all(store: &UnifiedStore, table: &FakeTable) {
    (0..table.sections()).for_each(|section| {
        store.load_section(section).unwrap();
    });
}

#[test]
fn an_empty_table_is_no_table() {
    let store = UnifiedStore::new();
    store.attach_table(FakeTable::new([], 3, 2));
    assert!(store.is_loaded());
    put(&store, b"k", 1);
    commit(&store, &[delete_at(b"k", 2)]);
    assert_eq!(store.stats().versions, 0, "no tombstone stays for it");
}

#[test]
fn a_table_is_let_go_when_its_last_section_is_loaded() {
    let table = table_of(100);
    let store = store_over(&table, Retention::NEWEST);
    commit(&store, &[delete_at(&key(50), 2), delete_at(b"never there", 2)]);
    assert_eq!(store.stats().versions, 2, "both tombstones stay");
    for section in 0..table.sections() {
        assert!(!store.is_loaded());
        let loaded = store.load_section(section).unwrap();
        assert_eq!(loaded.rows, table.section(section).unwrap().len());
        assert_eq!(loaded.progress.sections_loaded, section + 1);
        assert_eq!(store.load_section(section).unwrap().rows, 0, "once is enough");
    }
    assert!(store.is_loaded());
    assert_eq!(Arc::strong_count(&table), 1, "nobody holds it any more");
    let stats = store.stats();
    assert_eq!((stats.versions, stats.entries, stats.garbage), (99, 99, 0));
    assert_eq!((stats.loading.sections, stats.loading.rows_loaded), (table.sections(), 100));
    check_indexes(&store);
}

#[test]
fn a_view_of_before_shows_a_row_that_was_superseded_before_it_was_loaded() {
    for loaded_before_view in [false, true] {
        let table = table_of(20);
        let store = store_over(&table, Retention::NEWEST);
        if loaded_before_view {
            load_all(&store, &table);
        }
        let old = store.view(NOW);
        (2..6).for_each(|version| put(&store, &key(7), version));
        let shown = || value_of(old.get(&key(7)).unwrap());
        assert_eq!(shown(), Some(b"table".to_vec()));
        load_all(&store, &table);
        assert_eq!(shown(), Some(b"table".to_vec()));
        put(&store, &key(7), 6);
        assert_eq!(shown(), Some(b"table".to_vec()));
        let rows: Vec<_> = old.range(..).map(Result::unwrap).collect();
        assert!(rows.len() == 20 && rows.iter().all(|row| row.version() == Version(1)));
        drop(old);
        assert_eq!(store.stats().versions, 20);
    }
}

#[test]
fn a_superseded_row_is_dropped_as_it_is_loaded() {
    let table = table_of(20);
    let store = store_over(&table, keep_last(2));
    (2..4).for_each(|version| put(&store, &key(7), version));
    load_all(&store, &table);
    assert_eq!(store.view(NOW).versions(&key(7)).unwrap().len(), 2);
    assert_eq!(store.stats().versions, 21);
    assert_trimmed_below(&store, &key(7), 2);
}

#[test]
fn history_has_no_gap_between_memory_and_the_table() {
    let table = table_of(20);
    let store = store_over(&table, keep_last(2));
    (2..=4).for_each(|version| put(&store, &key(7), version));
    put(&store, &key(9), 5);
    let versions = |number| {
        let versions = store.view(NOW).versions(&key(number)).unwrap();
        versions.iter().map(|record| record.version().0).collect::<Vec<_>>()
    };
    // Version 2 is dropped, so version 1 does not count although the table has it.
    assert_eq!((versions(7), versions(9), versions(3)), (vec![4, 3], vec![5, 1], vec![1]));
}

#[test]
fn a_scan_reads_each_block_once() {
    let table = table_of(90);
    let store = store_over(&table, Retention::NEWEST);
    for backward in [false, true] {
        let before = table.slices_read.load(Ordering::Relaxed);
        let view = store.view(NOW);
        let rows = if backward { view.range(..).rev().count() } else { view.range(..).count() };
        assert_eq!(rows, 90);
        assert_eq!(table.slices_read.load(Ordering::Relaxed) - before, 30);
    }
    let mut range = store.view(NOW).range(..);
    let before = table.slices_read.load(Ordering::Relaxed);
    while range.next().is_some() && range.next_back().is_some() {}
    assert_eq!(table.slices_read.load(Ordering::Relaxed) - before, 30, "also where ends meet");
}

#[test]
fn a_section_that_cannot_be_read_stays_beneath_until_its_rows_are_supplied() {
    let table = table_of(60);
    let store = store_over(&table, Retention::NEWEST);
    table.break_block(5);
    let errors = (0..table.sections()).filter(|i| store.load_section(*i).is_err());
    assert_eq!(errors.collect::<Vec<_>>(), [2]);
    assert!(matches!(store.get_latest(&key(16), NOW), Err(Error::Table(_))));
    assert!(store.get_latest(&key(14), NOW).unwrap().is_some(), "the block before is sound");
    assert!(store.get_latest(&key(18), NOW).unwrap().is_some(), "the section after is loaded");
    put(&store, &key(16), 2);
    assert!(store.get_latest(&key(16), NOW).unwrap().is_some(), "memory has what is newer");
    let mut rows: Vec<_> = (12..18).map(|i| put_at(&key(i), 1, b"table")).collect();
    rows.reverse();
    assert_eq!(store.supply_section(2, rows).rows, 6);
    assert!(store.is_loaded());
    assert_eq!(store.view(NOW).range(..).map(Result::unwrap).count(), 60);
    check_indexes(&store);
}

#[test]
fn what_is_loaded_is_not_asked_of_the_table() {
    let table = table_of(60);
    let store = store_over(&table, Retention::NEWEST);
    store.load_section(0).unwrap();
    table.break_block(0);
    assert!(store.get_latest(b"key", NOW).unwrap().is_none());
    assert!(store.get_latest(&key(1), NOW).unwrap().is_some());
    assert_eq!(store.view(NOW).range(..key(6)).map(Result::unwrap).count(), 6);
}

#[test]
fn a_scan_believes_memory_once_the_slice_it_has_read_is_loaded() {
    for backward in [false, true] {
        let table = table_of(6);
        let store = store_over(&table, Retention::NEWEST);
        // One in the first block, one in the last.
        commit(&store, &[delete_at(&key(1), 2), delete_at(&key(4), 2)]);
        let view = store.view(NOW);
        *table.meanwhile.lock().unwrap() = Some(Box::new({
            let (store, table) = (store.clone(), table.clone());
            move || load_all(&store, &table)
        }));
        let range = view.range(..).map(Result::unwrap);
        let rows: Vec<_> = if backward { range.rev().collect() } else { range.collect() };
        assert_eq!(store.stats().versions, 4, "the tombstones are gone");
        assert_eq!(rows.len(), 4);
    }
}

#[test]
fn the_versions_of_a_key_come_in_together() {
    let versions = |number| (1..=20).map(|v| put_at(&key(number), v, b"v")).collect();
    for _ in 0..20 {
        let table = FakeTable::new((0..50).map(versions), 10, 5);
        let store = UnifiedStore::with_retention(Retention::KeepAll);
        store.attach_table(table.clone());
        store.publish(Version(20));
        std::thread::scope(|scope| {
            scope.spawn(|| load_all(&store, &table));
            while !store.is_loaded() {
                for number in 0..50 {
                    let newest = store.get_latest(&key(number), NOW).unwrap().unwrap();
                    assert_eq!(newest.version(), Version(20));
                }
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Reads beside broken blocks are right or errors, and a scan ends at the first error.
    #[test]
    fn a_broken_block_is_an_error_and_never_a_missing_row(
        broken in prop::collection::btree_set(0usize..30, 1..4),
        written in prop::collection::vec(0u32..90, 0..20),
        loaded in prop::collection::vec(0usize..15, 0..10),
    ) {
        let table = table_of(90);
        let store = store_over(&table, Retention::NEWEST);
        let mut expected: Vec<_> = (0..90).map(|i| put_at(&key(i), 1, b"table")).collect();
        for (version, number) in (2..).zip(&written) {
            let record = put_at(&key(*number), version, b"memory");
            commit(&store, std::slice::from_ref(&record));
            expected[*number as usize] = record;
        }
        broken.iter().for_each(|block| table.break_block(*block));
        let bad = |section: usize| table.blocks_of(section).any(|block| broken.contains(&block));
        let mut in_memory: BTreeSet<u32> = written.iter().copied().collect();
        for section in loaded {
            prop_assert_eq!(store.load_section(section).is_err(), bad(section));
            if !bad(section) {
                in_memory.extend((0..90).filter(|i| table.section_of(&key(*i)) == section));
            }
        }
        let view = store.view(NOW);
        let fails = |i: u32| broken.contains(&(i as usize / 3)) && !in_memory.contains(&i);
        for i in 0..90 {
            match view.get(&key(i)) {
                Ok(row) => prop_assert_eq!(row.as_ref(), Some(&expected[i as usize])),
                Err(Error::Table(_)) => prop_assert!(fails(i)),
                Err(error) => panic!("{error}"),
            }
        }
        let check = |rows: Vec<crate::Result<Record>>, expected: Vec<Record>| {
            let sound = rows.iter().take_while(|row| row.is_ok()).count();
            let got: Vec<_> = rows[..sound].iter().cloned().map(Result::unwrap).collect();
            assert_eq!(got, expected[..sound], "up to the error nothing is missing");
            assert!(sound == 90 || sound + 1 == rows.len(), "the error is the end of it");
            assert_eq!(sound == 90, (0..30).all(|b| !broken.contains(&b)
                || store.inner.beneath.sections().is_none_or(|s| s.is_loaded(b / 2))));
        };
        check(view.range(..).collect(), expected.clone());
        check(view.range(..).rev().collect(), expected.iter().rev().cloned().collect());
        table.mend();
        prop_assert_eq!(view.range(..).map(Result::unwrap).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn views_are_stable_while_two_threads_load_and_one_commits() {
    for round in 0..if cfg!(debug_assertions) { 10 } else { 100 } {
        let size = if round % 2 == 0 { (3, 2) } else { (30, 10) };
        let rows = (0..600).map(|i| vec![put_at(&key(i), 1, b"table")]);
        let table = FakeTable::new(rows, size.0, size.1);
        let store = store_over(&table, Retention::NEWEST);
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for loader in 0..2 {
                let (store, table, next) = (&store, &table, &next);
                scope.spawn(move || {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        if i >= table.sections() {
                            return;
                        }
                        let section = if (i + loader + round).is_multiple_of(3) {
                            // Somebody else may be at it at the same time.
                            store.load_section(i.saturating_sub(1)).unwrap();
                            i
                        } else {
                            i
                        };
                        store.load_section_late(section).unwrap();
                    }
                });
            }
            let store = &store;
            scope.spawn(move || {
                let mut version = 1;
                for i in 0..600u32 {
                    version += 1;
                    let number = i * 7 % 600;
                    if i % 3 == 0 {
                        commit(store, &[delete_at(&key(number), version)]);
                    } else {
                        put(store, &key(number), version);
                    }
                }
            });
            for _ in 0..2 {
                scope.spawn(move || {
                    while !store.is_loaded() {
                        let view = store.view(NOW);
                        // What the committer above has done up to this view's version.
                        let commits = u32::try_from(view.version().0 - 1).unwrap();
                        let seen = |number: u32| {
                            let commit = (0..commits).find(|i| i * 7 % 600 == number);
                            match commit {
                                None => Some(1),
                                Some(i) if i % 3 == 0 => None,
                                Some(i) => Some(u64::from(i) + 2),
                            }
                        };
                        let expected: Vec<_> =
                            (0..600).filter_map(|i| Some((key(i), seen(i)?))).collect();
                        let pair = |row: crate::Result<Record>| {
                            let row = row.unwrap();
                            (row.key().to_vec(), row.version().0)
                        };
                        for _ in 0..2 {
                            let mut rows: Vec<_> = view.range(..).rev().map(pair).collect();
                            rows.reverse();
                            assert_eq!(rows, expected);
                            assert_eq!(view.range(..).map(pair).collect::<Vec<_>>(), expected);
                        }
                        for number in (0..600).step_by(11) {
                            let got = view.get(&key(number)).unwrap();
                            assert_eq!(got.map(|row| row.version().0), seen(number));
                        }
                    }
                });
            }
        });
        // Dropping a view looks at a bounded number of keys.
        store.prune_waiting(usize::MAX);
        check_indexes(&store);
        assert_eq!((store.stats().versions, store.stats().garbage), (400, 0));
    }
}
