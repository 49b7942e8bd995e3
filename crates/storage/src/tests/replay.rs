//! Replay in bulk leaves what commits one by one would leave.

use proptest::prelude::*;
use steadfast_core::{Record, ReplayTarget, Retention, Version};

use super::*;

/// A log: what each commit does to which key.
fn log() -> impl Strategy<Value = Vec<Record>> {
    let key = prop_oneof![0u16..10, 0u16..400];
    prop::collection::vec((key, any::<bool>(), 1u64..3), 1..500).prop_map(|writes| {
        let mut version = 1;
        let mut seen = std::collections::BTreeSet::new();
        let record = |(number, delete, step): (u16, bool, u64)| {
            version += step - 1;
            let key = [b"log".as_slice(), &number.to_be_bytes()].concat();
            if !seen.insert((key.clone(), version)) {
                version += 1;
                seen.insert((key.clone(), version));
            }
            if delete && number % 2 == 0 {
                delete_at(&key, version)
            } else {
                put_at(&key, version, &version.to_le_bytes())
            }
        };
        writes.into_iter().map(record).collect()
    })
}

fn replay(store: &UnifiedStore, log: &[Record], run_len: usize) {
    for run in log.chunks(run_len) {
        ReplayTarget::apply(store, run.to_vec());
        check_indexes(store);
    }
    ReplayTarget::finish(store, log.last().unwrap().version());
}

fn newest_of(store: &UnifiedStore) -> Vec<Record> {
    store.view(NOW).range(..).map(Result::unwrap).collect()
}

fn retentions() -> impl Strategy<Value = Retention> {
    prop::sample::select(vec![Retention::NEWEST, keep_last(2), keep_last(3), Retention::KeepAll])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn bulk_leaves_what_commits_one_by_one_leave(
        log in log(), run_len in 1usize..300, retention in retentions(),
    ) {
        let bulk = UnifiedStore::with_retention(retention);
        replay(&bulk, &log, run_len);
        check_indexes(&bulk);
        let single = UnifiedStore::with_retention(retention);
        for commit_of in log.chunk_by(|a, b| a.version() == b.version()) {
            commit(&single, commit_of);
        }
        prop_assert_eq!(bulk.current_version(), single.current_version());
        prop_assert_eq!(newest_of(&bulk), newest_of(&single));
        if retention == Retention::NEWEST || retention == Retention::KeepAll {
            prop_assert_eq!(contents(&bulk), contents(&single));
        }
        prop_assert_eq!(bulk.stats().garbage, 0);
        for asked in 0..=bulk.current_version().0 {
            let (Ok(a), Ok(b)) =
                (bulk.view_at(Version(asked), NOW), single.view_at(Version(asked), NOW))
            else {
                continue;
            };
            let rows = |view: &crate::View| view.range(..).collect::<crate::Result<Vec<_>>>();
            if let (Ok(a), Ok(b)) = (rows(&a), rows(&b)) {
                prop_assert_eq!(a, b);
            }
        }
    }

    #[test]
    fn replaying_twice_is_replaying_once(
        log in log(), run_len in 1usize..300, again in 1usize..300, retention in retentions(),
    ) {
        let once = UnifiedStore::with_retention(retention);
        replay(&once, &log, run_len);
        let twice = once.clone();
        let (before, rows) = (contents(&once), newest_of(&once));
        replay(&twice, &log, again);
        prop_assert_eq!(newest_of(&twice), rows);
        if retention == Retention::NEWEST || retention == Retention::KeepAll {
            prop_assert_eq!(contents(&twice), before);
        }
        check_indexes(&twice);
    }

    #[test]
    fn replay_beside_a_view_changes_nothing_that_it_shows(
        first in log(), second in log(), retention in retentions(),
    ) {
        let store = UnifiedStore::with_retention(retention);
        replay(&store, &first, 100);
        let view = store.view(NOW);
        let shown: Vec<_> = view.range(..).map(Result::unwrap).collect();
        let newest = view.version().0;
        let later: Vec<_> = second
            .iter()
            .map(|record| {
                let version = record.version().0 + newest;
                if record.is_tombstone() {
                    delete_at(record.key(), version)
                } else {
                    put_at(record.key(), version, record.value_bytes())
                }
            })
            .collect();
        replay(&store, &later, 100);
        prop_assert_eq!(view.range(..).map(Result::unwrap).collect::<Vec<_>>(), shown);
        drop(view);
        prop_assert_eq!(store.stats().garbage, 0);
        check_indexes(&store);
    }
}

#[test]
fn nothing_is_visible_before_replay_has_finished() {
    let store = UnifiedStore::new();
    ReplayTarget::apply(&store, vec![put_at(b"k", 1, b"v")]);
    assert_eq!(latest(&store, b"k"), None);
    ReplayTarget::finish(&store, Version(1));
    assert_eq!(latest(&store, b"k"), Some(b"v".to_vec()));
}

#[test]
fn a_run_of_keys_that_ascend_and_one_that_does_not_fill_leaves_alike() {
    for stride in [1u64, 7_919] {
        let store = UnifiedStore::new();
        let records: Vec<_> = (0..20_000)
            .map(|i| put_at(&(i * stride % 20_000).to_be_bytes(), i + 1, b"v"))
            .collect();
        replay(&store, &records, 10_000);
        let (mut leaves, mut rows) = (0, 0);
        store.inner.directory.for_each_leaf(|leaf| {
            leaves += 1;
            rows += leaf.len();
        });
        assert_eq!(rows, 20_000);
        assert!(rows / leaves >= crate::leaf::LEAF_ROWS_MAX / 2, "{leaves} leaves");
    }
}

#[test]
fn history_that_replay_dropped_is_reported_as_trimmed() {
    let store = UnifiedStore::with_retention(keep_last(2));
    let records: Vec<_> = (1..=9).map(|version| put_at(b"k", version, b"v")).collect();
    replay(&store, &records, 4);
    let kept = store.view(NOW).versions(b"k").unwrap();
    assert_eq!(kept.iter().map(|record| record.version().0).collect::<Vec<_>>(), [9, 8]);
    assert_trimmed_below(&store, b"k", 8);
}
