//! The store's stories. Leaves and regions are small here, so that a few dozen keys split and
//! join them.

mod concurrent;
mod forks;
mod history;
mod model;
mod replay;
mod retention;
mod table;

use std::num::NonZeroU32;

use steadfast_core::{Record, RecordBuilder, Retention, Timestamp, Version};

use crate::UnifiedStore;
use crate::directory::Seek;
use crate::points::Probe;

const NOW: Timestamp = Timestamp::from_micros(1_000);

fn put_at(key: &[u8], version: u64, value: &[u8]) -> Record {
    builder(version, None).put(&[key, value].concat(), key.len())
}

fn delete_at(key: &[u8], version: u64) -> Record {
    builder(version, None).tombstone(key)
}

fn builder(version: u64, expiry: Option<Timestamp>) -> RecordBuilder {
    RecordBuilder { version: Version(version), timestamp: NOW, expiry }
}

fn keep_last(n: u32) -> Retention {
    Retention::KeepLast(NonZeroU32::new(n).unwrap())
}

/// Commits records that all have one version.
fn commit(store: &UnifiedStore, records: &[Record]) {
    let applied = store.apply(records);
    store.publish(records[0].version());
    store.prune(applied);
}

/// Commits one put.
fn put(store: &UnifiedStore, key: &[u8], version: u64) {
    commit(store, &[put_at(key, version, version.to_string().as_bytes())]);
}

fn value_of(record: Option<Record>) -> Option<Vec<u8>> {
    record.map(|record| record.value_bytes().to_vec())
}

fn latest(store: &UnifiedStore, key: &[u8]) -> Option<Vec<u8>> {
    value_of(store.get_latest(key, NOW).unwrap())
}

/// A read of `key` below `oldest` fails; from there on it does not.
fn assert_trimmed_below(store: &UnifiedStore, key: &[u8], oldest: u64) {
    for asked in 0..=store.current_version().0 {
        let read = store.view_at(Version(asked), NOW).and_then(|view| view.get(key));
        if asked < oldest {
            let (asked, oldest) = (Version(asked), Version(oldest));
            assert_eq!(read.unwrap_err(), crate::Error::HistoryTrimmed { asked, oldest });
        } else {
            assert!(read.is_ok());
        }
    }
}

/// Every key with its versions, oldest first.
fn contents(store: &UnifiedStore) -> Vec<(Vec<u8>, Vec<Record>)> {
    let mut rows = Vec::new();
    store.inner.directory.for_each_leaf(|leaf| {
        for row in 0..leaf.len() {
            let chain = leaf.chain(row);
            let records: Vec<_> = chain.older.iter().chain([chain.newest]).cloned().collect();
            rows.push((chain.newest.key().to_vec(), records));
        }
    });
    rows
}

/// The two indexes agree, and each key is where it would be looked for.
fn check_indexes(store: &UnifiedStore) {
    let rows = contents(store);
    assert!(rows.is_sorted_by(|a, b| a.0 < b.0), "keys ascend, each is there once");
    let late = store.inner.late.keys();
    assert!(late.is_empty() || !store.is_loaded(), "what is late comes before the table goes");
    let mut unhashed = 0;
    for (key, records) in &rows {
        assert!(records.is_sorted_by(|a, b| a.version() < b.version()), "versions ascend");
        let newest = records.last().cloned();
        match store.inner.points.probe(key.into(), || Version::MAX) {
            Probe::Found(record) => assert_eq!(Some(record), newest),
            Probe::Absent if late.contains(key.as_slice()) => unhashed += 1,
            _ => panic!("the hash lacks {}", key.escape_ascii()),
        }
        let found = store.inner.directory.read(Seek::At(key), |found| {
            assert!(found.low <= key && found.high.is_none_or(|high| key.as_slice() < high));
            found.leaf.find(key).is_ok()
        });
        assert!(found, "{} lies where it is looked for", key.escape_ascii());
    }
    assert_eq!(store.inner.points.len() + unhashed, rows.len(), "the hash has no key but these");
    let stats = store.stats();
    let payload = rows.iter().flat_map(|row| &row.1).map(Record::payload_bytes);
    assert_eq!(stats.payload_bytes, payload.sum::<usize>());
    assert_eq!(stats.versions, rows.iter().map(|row| row.1.len()).sum::<usize>());
    assert_eq!(stats.entries, rows.len());
}
