//! What is kept, for how long, and what can be read of it.

use std::time::Duration;

use steadfast_core::{Key, NamespaceId, Retention, TypeTag, Value, Version};

use super::*;
use crate::Error;

#[test]
fn a_lower_version_never_takes_the_place_of_a_higher() {
    let store = UnifiedStore::with_retention(Retention::KeepAll);
    put(&store, b"k", 5);
    commit(&store, &[put_at(b"k", 3, b"late")]);
    assert_eq!(latest(&store, b"k"), Some(b"5".to_vec()));
    assert_eq!(store.current_version(), Version(5));
    let view = store.view_at(Version(4), NOW).unwrap();
    assert_eq!(value_of(view.get(b"k").unwrap()), Some(b"late".to_vec()));
    check_indexes(&store);
}

#[test]
fn the_same_version_again_changes_nothing() {
    let store = UnifiedStore::with_retention(Retention::KeepAll);
    put(&store, b"k", 1);
    put(&store, b"k", 2);
    let before = contents(&store);
    put(&store, b"k", 1);
    put(&store, b"k", 2);
    assert_eq!(contents(&store), before);
    check_indexes(&store);
}

#[test]
fn pending_versions_may_be_inserted_out_of_order() {
    let store = UnifiedStore::new();
    put(&store, b"k", 4);
    let six = store.apply(&[put_at(b"k", 6, b"6")]);
    let five = store.apply(&[put_at(b"k", 5, b"5")]);
    assert_eq!(latest(&store, b"k"), Some(b"4".to_vec()), "nothing is published");
    store.publish(Version(5));
    store.prune(five);
    assert_eq!(latest(&store, b"k"), Some(b"5".to_vec()));
    store.publish(Version(6));
    store.prune(six);
    assert_eq!(latest(&store, b"k"), Some(b"6".to_vec()));
    assert_eq!(store.stats().versions, 1);
    check_indexes(&store);
}

#[test]
fn an_undone_commit_leaves_no_trace() {
    let store = UnifiedStore::new();
    put(&store, b"a", 1);
    let before = contents(&store);
    let pending = [put_at(b"a", 2, b"x"), put_at(b"b", 2, b"x"), delete_at(b"c", 2)];
    let later = [put_at(b"a", 3, b"kept")];
    let _ = store.apply(&pending);
    let applied = store.apply(&later);
    store.undo(&pending);
    check_indexes(&store);
    assert_eq!(latest(&store, b"a"), Some(b"1".to_vec()));
    store.undo(&later);
    assert_eq!(contents(&store), before);
    drop(applied);
}

#[test]
#[should_panic(expected = "what was published stays")]
fn a_published_commit_cannot_be_undone() {
    let store = UnifiedStore::new();
    put(&store, b"a", 1);
    store.undo(&[put_at(b"a", 1, b"1")]);
}

#[test]
fn a_chain_is_pruned_as_soon_as_the_last_view_that_needs_it_drops() {
    let store = UnifiedStore::new();
    put(&store, b"k", 1);
    let old = store.view(NOW);
    let clone = old.clone();
    put(&store, b"k", 2);
    let newer = store.view(NOW);
    put(&store, b"k", 3);
    assert_eq!((store.stats().versions, store.stats().open_views), (3, 2));
    assert_eq!(store.stats().oldest_view, Some(Version(1)));
    drop(old);
    assert_eq!(store.stats().versions, 3, "a clone still reads there");
    assert_eq!(value_of(clone.get(b"k").unwrap()), Some(b"1".to_vec()));
    drop(clone);
    assert_eq!(store.stats().versions, 2);
    assert_eq!(value_of(newer.get(b"k").unwrap()), Some(b"2".to_vec()));
    drop(newer);
    let stats = store.stats();
    assert_eq!((stats.versions, stats.garbage, stats.open_views), (1, 0, 0));
    assert_eq!(stats.oldest_view, None);
}

#[test]
fn what_an_old_view_piled_up_is_dropped_by_later_commits() {
    let store = UnifiedStore::new();
    let keys: Vec<_> = (0..2_000u32).map(u32::to_be_bytes).collect();
    for version in 1..=3 {
        let records: Vec<_> = keys.iter().map(|key| put_at(key, version, b"v")).collect();
        let applied = store.apply(&records);
        store.publish(Version(version));
        if version == 2 {
            std::mem::forget(store.view(NOW)); // stands in for a view that never ends
        }
        store.prune(applied);
    }
    assert_eq!(store.stats().versions, 4_000, "one for the view, one for all others");
    store.inner.registry.close(Version(2), NOW);
    let mut version = 3;
    while store.stats().garbage > 0 {
        let before = store.stats().versions;
        version += 1;
        put(&store, &keys[0], version);
        assert!(before - store.stats().versions <= 100, "a commit does a bounded part of it");
        assert!(version < 100, "it ends");
    }
    assert_eq!(store.stats().versions, 2_000);
}

#[test]
fn tombstones_vanish_when_nobody_needs_them() {
    let store = UnifiedStore::new();
    put(&store, b"k", 1);
    let view = store.view(NOW);
    commit(&store, &[delete_at(b"k", 2)]);
    commit(&store, &[delete_at(b"never there", 3)]);
    assert_eq!(latest(&store, b"k"), None);
    assert_eq!(value_of(view.get(b"k").unwrap()), Some(b"1".to_vec()));
    assert_eq!(store.stats().versions, 3);
    drop(view);
    assert_eq!((store.stats().entries, store.stats().garbage), (0, 0));
    commit(&store, &[delete_at(b"never there", 4)]);
    assert_eq!(store.stats().entries, 0);
    check_indexes(&store);
}

#[test]
fn tombstones_stay_while_they_are_told_to() {
    let store = UnifiedStore::new();
    put(&store, b"k", 1);
    store.let_tombstones_stay(true);
    commit(&store, &[delete_at(b"k", 2)]);
    commit(&store, &[delete_at(b"only on disk", 3)]);
    assert_eq!((store.stats().entries, store.stats().versions), (2, 2));
    store.let_tombstones_stay(false);
    assert_eq!((store.stats().entries, store.stats().garbage), (0, 0));
}

#[test]
fn keeps_as_many_versions_as_retention_says() {
    for (retention, kept) in [(keep_last(1), 1), (keep_last(3), 3), (Retention::KeepAll, 10)] {
        let store = UnifiedStore::with_retention(retention);
        (1..=10).for_each(|version| put(&store, b"k", version));
        let versions = store.view(NOW).versions(b"k").unwrap();
        let expected: Vec<_> = (1..=10).rev().map(Version).take(kept).collect();
        assert_eq!(versions.iter().map(Record::version).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn reads_the_past_as_far_as_it_is_kept_and_no_further() {
    // (retention, oldest readable version after ten puts of k and one of another key)
    for (retention, oldest) in [(keep_last(1), 10), (keep_last(3), 8), (Retention::KeepAll, 0)] {
        let store = UnifiedStore::with_retention(retention);
        (1..=10).for_each(|version| put(&store, b"k", version));
        put(&store, b"other", 11);
        for asked in 0..=11 {
            let view = store.view_at(Version(asked), NOW).unwrap();
            if asked >= oldest {
                let expected = (1..=10).contains(&asked).then(|| asked.to_string().into_bytes());
                let expected = expected.or((asked > 10).then(|| b"10".to_vec()));
                assert_eq!(value_of(view.get(b"k").unwrap()), expected);
            } else {
                let trimmed =
                    Error::HistoryTrimmed { asked: Version(asked), oldest: Version(oldest) };
                assert_eq!(view.get(b"k").unwrap_err(), trimmed);
                assert_eq!(view.versions(b"k").unwrap_err(), trimmed);
                assert_eq!(view.range(..).collect::<crate::Result<Vec<_>>>().unwrap_err(), trimmed);
            }
        }
        let not_yet = Error::NotYet { asked: Version(12), newest: Version(11) };
        assert_eq!(store.view_at(Version(12), NOW).unwrap_err(), not_yet);
    }
}

#[test]
fn the_past_stays_readable_while_a_view_holds_it() {
    let store = UnifiedStore::new();
    (1..=5).for_each(|version| put(&store, b"k", version));
    let view = store.view(NOW);
    (6..=10).for_each(|version| put(&store, b"k", version));
    for asked in 5..=10 {
        let at = store.view_at(Version(asked), NOW).unwrap();
        assert_eq!(value_of(at.get(b"k").unwrap()), Some(asked.to_string().into_bytes()));
    }
    drop(view);
    assert_trimmed_below(&store, b"k", 10);
}

#[test]
fn a_value_is_gone_from_its_expiry_on_in_every_kind_of_read() {
    let store = UnifiedStore::new();
    let expiry = NOW.after(Duration::from_secs(1));
    commit(&store, &[builder(1, Some(expiry)).put(b"kv", 1)]);
    let before = store.view(NOW);
    let after = store.view(expiry);
    assert!(before.get(b"k").unwrap().is_some() && before.range(..).count() == 1);
    assert!(after.get(b"k").unwrap().is_none() && after.range(..).count() == 0);
    assert!(store.get_latest(b"k", NOW).unwrap().is_some());
    assert!(store.get(b"k").unwrap().is_none(), "the system clock is past 1970");
    assert_eq!(after.versions(b"k").unwrap().len(), 1, "history shows it still");
}

#[test]
fn its_own_writes_count_versions_and_take_the_maximum() {
    let store = UnifiedStore::new();
    let key = Key::new(NamespaceId(1), TypeTag::Kv, b"k").unwrap();
    let value = |store: &UnifiedStore| {
        store.get(key.as_bytes()).unwrap().map(|record| record.value().unwrap())
    };
    assert_eq!(store.put(&key, Value::Int(1), None).unwrap(), Version(1));
    store.put_with_version(&key, Value::Int(9), Version(9), NOW, None).unwrap();
    store.put_with_version(&key, Value::Int(4), Version(4), NOW, None).unwrap();
    assert_eq!((value(&store), store.current_version()), (Some(Value::Int(9)), Version(9)));
    store.delete_with_version(&key, Version(8), NOW).unwrap();
    assert_eq!(value(&store), Some(Value::Int(9)), "a lower delete deletes nothing");
    assert_eq!(store.delete(&key).unwrap(), Version(10));
    assert_eq!((value(&store), store.stats().entries), (None, 0));
    let ttl = Some(Duration::from_secs(3600));
    assert_eq!(store.put(&key, Value::Int(2), ttl).unwrap(), Version(11));
    assert_eq!(value(&store), Some(Value::Int(2)));
    let nan = store.put(&key, Value::Float(f64::NAN), None);
    assert_eq!(nan.unwrap_err(), Error::Invalid(steadfast_core::Error::NotANumber));
    assert_eq!(store.current_version(), Version(11), "a refused write takes no version");
}
