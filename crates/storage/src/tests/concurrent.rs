//! Readers beside writers.

use std::sync::atomic::{AtomicBool, Ordering};

use steadfast_core::{Record, Retention, Version};

use super::*;

/// Calls `read` in two threads until `write` has returned.
fn beside(write: impl FnOnce(), read: impl Fn(u64) + Sync) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (done, read) = (&done, &read);
            scope.spawn(move || {
                let mut round = reader;
                while !done.load(Ordering::Acquire) {
                    read(round);
                    round += 2;
                }
            });
        }
        struct Finish<'a>(&'a AtomicBool);
        impl Drop for Finish<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Release);
            }
        }
        let _finish = Finish(&done);
        write();
    });
}

#[test]
fn what_is_written_together_is_read_together() {
    for retention in [Retention::NEWEST, keep_last(2), Retention::KeepAll] {
        let store = UnifiedStore::with_retention(retention);
        let pair = |version: u64| {
            let value = version.to_le_bytes();
            [put_at(b"left", version, &value), put_at(b"right", version, &value)]
        };
        commit(&store, &pair(1));
        let write = || (2..20_000).for_each(|version| commit(&store, &pair(version)));
        beside(write, |_| {
            let view = store.view(NOW);
            let left = view.get(b"left").unwrap().expect("it is always there");
            let right = view.get(b"right").unwrap().expect("it is always there");
            assert_eq!(left.value_bytes(), right.value_bytes());
            let rows: Vec<_> = view.range(..).map(Result::unwrap).collect();
            assert_eq!(rows, [left.clone(), right]);
            let past = Version(view.version().0.saturating_sub(1));
            let past = store.view_at(past, NOW).unwrap();
            if let Ok(left) = past.get(b"left") {
                let left = left.map(|record| record.version());
                assert_eq!(left, Some(past.version()).filter(|past| *past > Version::ZERO));
            }
            assert!(left.version() <= view.version());
        });
        check_indexes(&store);
    }
}

#[test]
fn a_reader_never_misses_a_key_that_is_being_overwritten() {
    let store = UnifiedStore::new();
    let keys: Vec<_> = (0..8u8).map(|i| [b'k', i]).collect();
    let all = |version| keys.map_to(|key| put_at(key, version, b"v"));
    commit(&store, &all(1));
    let write = || (2..5_000).for_each(|version| commit(&store, &all(version)));
    beside(write, |round| {
        let key = &keys[usize::try_from(round % 8).unwrap()];
        let oldest = store.current_version();
        let record = store.get_latest(key, NOW).unwrap().expect("it is always there");
        assert!(record.version() >= oldest, "what was visible before the read stays so");
    });
    assert_eq!(store.stats().versions, keys.len());
}

trait MapTo<T> {
    fn map_to(&self, make: impl Fn(&T) -> Record) -> Vec<Record>;
}

impl<T> MapTo<T> for Vec<T> {
    fn map_to(&self, make: impl Fn(&T) -> Record) -> Vec<Record> {
        self.iter().map(make).collect()
    }
}

#[test]
fn a_scan_loses_and_repeats_nothing_while_leaves_split_and_join() {
    let store = UnifiedStore::new();
    let fixed = |i: u32| [&b"row"[..], &(i * 1_000).to_be_bytes()].concat();
    let passing = |i: u32| [&b"row"[..], &(i * 1_000 % 199_999 + 1).to_be_bytes()].concat();
    let rows: Vec<_> = (0..200).map(|i| put_at(&fixed(i), 1, b"fixed")).collect();
    commit(&store, &rows);
    let write = || {
        let mut version = 1;
        for _ in 0..15 {
            for i in 0..800 {
                version += 1;
                commit(&store, &[put_at(&passing(i * 7), version, b"passing")]);
            }
            for i in 0..800 {
                version += 1;
                commit(&store, &[delete_at(&passing(i * 7), version)]);
            }
        }
    };
    beside(write, |round| {
        let view = store.view(NOW);
        let scan: Vec<Record> = match round % 3 {
            0 => view.range(..).map(Result::unwrap).collect(),
            1 => view.prefix(b"row").map(Result::unwrap).collect(),
            _ => {
                let mut rows: Vec<_> = view.range(..).rev().map(Result::unwrap).collect();
                rows.reverse();
                rows
            }
        };
        assert!(scan.is_sorted_by(|a, b| a.key() < b.key()), "each row once, in order");
        let fixed = scan.iter().filter(|record| record.value_bytes() == b"fixed");
        assert_eq!(fixed.count(), 200);
        let again: Vec<_> = view.range(..).map(Result::unwrap).collect();
        assert_eq!(scan, again, "a view shows the same as long as it lives");
    });
    store.prune_waiting(usize::MAX);
    check_indexes(&store);
    assert_eq!((store.stats().entries, store.stats().garbage), (200, 0));
}

#[test]
fn writers_of_the_same_keys_leave_the_highest_version() {
    let store = UnifiedStore::with_retention(keep_last(2));
    std::thread::scope(|scope| {
        for writer in 0..2u64 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..3_000 {
                    let version = 1 + 2 * i + writer;
                    for key in 0..40u8 {
                        let _ = store.apply(&[put_at(&[key], version, &version.to_le_bytes())]);
                    }
                }
            });
        }
    });
    store.publish(Version(6_000));
    check_indexes(&store);
    for key in 0..40u8 {
        assert_eq!(latest(&store, &[key]), Some(6_000u64.to_le_bytes().to_vec()));
    }
}
