//! The store does what a map from keys to lists of versions does.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use proptest::prelude::*;
use steadfast_core::{Record, Retention, SortedTable, Timestamp, Version};

use super::table::FakeTable;
use super::*;
use crate::{Error, View};

/// Everything ever committed, never pruned: a key's versions, oldest first.
type Model = BTreeMap<Vec<u8>, Vec<Record>>;

#[derive(Debug, Clone)]
enum Step {
    /// Commits puts of some keys, in one version, with an expiry or without.
    Put {
        keys: Vec<u16>,
        expiry: Option<u64>,
    },
    Delete {
        keys: Vec<u16>,
    },
    /// Applies puts and takes them back.
    Fail {
        keys: Vec<u16>,
    },
    View {
        now: u64,
    },
    ViewAt {
        back: u64,
        now: u64,
    },
    DropView {
        which: usize,
    },
    /// Loads a section of the table beneath, if there is one.
    Load {
        which: usize,
    },
    Check {
        which: usize,
        from: u16,
        to: u16,
        inclusive: (bool, bool),
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = || {
        prop_oneof![
            3 => prop::collection::vec(0u16..12, 1..4),
            2 => prop::collection::vec(0u16..300, 1..60),
            1 => (0u16..300, 1u16..100).prop_map(|(from, n)| (from..from + n).collect()),
        ]
    };
    let expiry = prop::option::weighted(0.2, 900u64..1_100);
    let step = prop_oneof![
        4 => (keys(), expiry).prop_map(|(keys, expiry)| Step::Put { keys, expiry }),
        3 => keys().prop_map(|keys| Step::Delete { keys }),
        1 => keys().prop_map(|keys| Step::Fail { keys }),
        1 => (900u64..1_100).prop_map(|now| Step::View { now }),
        1 => (0u64..6, 900u64..1_100).prop_map(|(back, now)| Step::ViewAt { back, now }),
        2 => any::<usize>().prop_map(|which| Step::DropView { which }),
        2 => any::<usize>().prop_map(|which| Step::Load { which }),
        2 => (any::<usize>(), 0u16..300, 0u16..300, any::<(bool, bool)>())
            .prop_map(|(which, from, to, inclusive)| Step::Check { which, from, to, inclusive }),
    ];
    prop::collection::vec(step, 1..60)
}

/// Keys of different lengths that share beginnings, one of which is another's prefix.
fn key(number: u16) -> Vec<u8> {
    let mut key = b"shared".to_vec();
    key.extend(std::iter::repeat_n(b'x', usize::from(number % 3)));
    if !number.is_multiple_of(10) {
        key.extend((number / 10).to_be_bytes());
        key.extend(std::iter::repeat_n(0, usize::from(number % 10)));
    }
    key
}

fn seen(versions: &[Record], view: &View) -> Option<Record> {
    let newest = versions.iter().rfind(|record| record.version() <= view.version())?;
    newest.is_live(view.now()).then(|| newest.clone())
}

fn rows_in(model: &Model, view: &View, bounds: &(Bound<Vec<u8>>, Bound<Vec<u8>>)) -> Vec<Record> {
    use std::ops::RangeBounds;
    let rows = model.iter().filter(|(key, _)| bounds.contains(*key));
    rows.filter_map(|(_, versions)| seen(versions, view)).collect()
}

fn check_view(model: &Model, view: &View, bounds: (Bound<Vec<u8>>, Bound<Vec<u8>>)) {
    for (key, versions) in model {
        assert_eq!(view.get(key).unwrap(), seen(versions, view), "{view:?}");
    }
    let all = (Bound::Unbounded, Bound::Unbounded);
    for bounds in [all, bounds] {
        let expected = rows_in(model, view, &bounds);
        let forward: Vec<_> = view.range(bounds.clone()).map(Result::unwrap).collect();
        assert_eq!(forward, expected, "{view:?} {bounds:?}");
        let mut backward: Vec<_> = view.range(bounds.clone()).rev().map(Result::unwrap).collect();
        backward.reverse();
        assert_eq!(backward, expected, "{view:?} {bounds:?} from the back");
        let mut range = view.range(bounds.clone());
        let (mut front, mut back) = (Vec::new(), Vec::new());
        while let Some(row) = range.next() {
            front.push(row.unwrap());
            back.extend(range.next_back().map(Result::unwrap));
            back.extend(range.next_back().map(Result::unwrap));
        }
        assert!(range.next_back().is_none());
        back.reverse();
        assert_eq!([front, back].concat(), expected, "{view:?} {bounds:?} from both ends");
    }
    for prefix in [&b"shared"[..], b"sharedx", b"sharedxx\0\x01", b"", b"t", b"a"] {
        let expected: Vec<_> = model
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .filter_map(|(_, versions)| seen(versions, view))
            .collect();
        let rows: Vec<_> = view.prefix(prefix).map(Result::unwrap).collect();
        assert_eq!(rows, expected, "{view:?} prefix {}", prefix.escape_ascii());
    }
}

/// What is kept of a key is an unbroken run of its versions up to the newest, and holds what
/// retention asks for.
fn check_history(model: &Model, view: &View, retention: Retention) {
    let mut listed = Vec::new();
    for (key, committed) in model {
        let kept = view.versions(key).unwrap();
        let upto = committed.iter().rev().filter(|record| record.version() <= view.version());
        let expected: Vec<_> = upto.take(kept.len()).cloned().collect();
        assert_eq!(kept, expected, "{view:?}");
        let all = committed.iter().filter(|record| record.version() <= view.version()).count();
        let at_least = match retention {
            Retention::KeepAll => all,
            _ => 0,
        };
        assert!(kept.len() >= at_least, "{view:?} keeps {} of {all}", kept.len());
        listed.extend(kept);
    }
    let rows: Vec<_> = view.range_versions(..).map(Result::unwrap).collect();
    assert_eq!(rows, listed, "{view:?}");
    let mut rows: Vec<_> = view.range_versions(..).rev().map(Result::unwrap).collect();
    rows.reverse();
    assert_eq!(rows, listed, "{view:?} from the back");
}

/// With no view open, every key keeps exactly what retention says.
fn check_nothing_is_kept_in_vain(store: &UnifiedStore, model: &Model, retention: Retention) {
    let kept: BTreeMap<_, _> = contents(store).into_iter().collect();
    for (key, committed) in model {
        let expected: &[Record] = match retention {
            Retention::KeepLast(n) => {
                let kept = &committed[committed.len().saturating_sub(n.get() as usize)..];
                // A tombstone alone deletes nothing that is still there.
                if matches!(kept, [only] if only.is_tombstone()) { &[] } else { kept }
            }
            _ => committed,
        };
        let found = kept.get(key).map_or(&[][..], Vec::as_slice);
        // Once only a tombstone was left and was dropped, history begins anew after it.
        let restarted = expected.iter().rev().take(found.len()).rev();
        assert!(restarted.eq(found), "{}: {found:?}, not {expected:?}", key.escape_ascii());
        let missing = &expected[..expected.len() - found.len()];
        assert!(
            missing.is_empty() || missing.last().is_some_and(Record::is_tombstone),
            "{}: {found:?} lacks {missing:?}",
            key.escape_ascii()
        );
    }
    assert_eq!(store.stats().garbage, 0);
}

/// Where the rows are that were written before the steps begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// There are none.
    Nothing,
    /// In a table beneath, of which nothing is loaded until the end.
    Beneath,
    /// In a table beneath, of which steps load a section now and then.
    HalfLoaded,
    /// In a table beneath, all of which is loaded in some order before the first step.
    Loaded,
}

/// A store whose first versions come from a table, and what it holds.
fn store_over(
    before: Before,
    first: &[Step],
    retention: Retention,
) -> (UnifiedStore, Model, u64, Arc<FakeTable>) {
    let (store, mut model, mut version) =
        (UnifiedStore::with_retention(retention), Model::new(), 0);
    for step in first {
        let (Step::Put { keys, .. } | Step::Delete { keys }) = step else { continue };
        version += 1;
        let expiry = match step {
            Step::Put { expiry, .. } => expiry.map(Timestamp::from_micros),
            _ => None,
        };
        let record = |key: Vec<u8>| match step {
            Step::Put { .. } => {
                builder(version, expiry).put(&[&key, &b"0"[..]].concat(), key.len())
            }
            _ => delete_at(&key, version),
        };
        let keys: std::collections::BTreeSet<_> = keys.iter().map(|number| key(*number)).collect();
        let records: Vec<_> = keys.into_iter().map(record).collect();
        commit(&store, &records);
        for record in records {
            model.entry(record.key().to_vec()).or_default().push(record);
        }
    }
    let table = FakeTable::of_store(&store);
    if before == Before::Nothing {
        return (store, model, version, table);
    }
    let floors = store.floors();
    let store = UnifiedStore::with_retention(retention);
    store.attach_table(table.clone());
    store.raise_floors(&floors);
    store.publish(Version(version));
    if before == Before::Loaded {
        let mut order: Vec<_> = (0..table.sections()).collect();
        fastrand::Rng::with_seed(version).shuffle(&mut order);
        for section in order {
            load(&store, section, section / 2);
        }
        assert!(store.is_loaded(), "the last one is never late");
    }
    (store, model, version, table)
}

/// At once or late.
fn load(store: &UnifiedStore, section: usize, which: usize) {
    if which.is_multiple_of(2) {
        store.load_section(section).unwrap();
    } else {
        store.load_section_late(section).unwrap();
    }
}

fn run(first: &[Step], steps: Vec<Step>, retention: Retention, before: Before) {
    let (store, mut model, mut version, table) = store_over(before, first, retention);
    let mut views: Vec<View> = Vec::new();
    let write = |model: &mut Model, version: u64, keys: &[u16], make: &dyn Fn(&[u8]) -> Record| {
        let mut keys: Vec<_> = keys.iter().map(|number| key(*number)).collect();
        keys.sort();
        keys.dedup();
        let records: Vec<_> = keys.iter().map(|key| make(key)).collect();
        commit(&store, &records);
        for record in records {
            model.entry(record.key().to_vec()).or_default().push(record);
        }
        assert_eq!(store.current_version(), Version(version));
    };
    for step in steps {
        match step {
            Step::Put { keys, expiry } => {
                version += 1;
                let builder = builder(version, expiry.map(Timestamp::from_micros));
                write(&mut model, version, &keys, &|key| {
                    builder.put(&[key, &version.to_le_bytes()].concat(), key.len())
                });
            }
            Step::Delete { keys } => {
                version += 1;
                write(&mut model, version, &keys, &|key| delete_at(key, version));
            }
            Step::Fail { keys } => {
                version += 1;
                let records: Vec<_> =
                    keys.iter().map(|number| put_at(&key(*number), version, b"no")).collect();
                let _ = store.apply(&records);
                views.iter().for_each(|view| {
                    check_view(&model, view, (Bound::Unbounded, Bound::Unbounded));
                });
                store.undo(&records);
            }
            Step::View { now } => views.push(store.view(Timestamp::from_micros(now))),
            Step::ViewAt { back, now } => {
                let newest = store.current_version();
                let asked = Version(newest.0.saturating_sub(back));
                let view = store.view_at(asked, Timestamp::from_micros(now)).unwrap();
                match view.get(b"any key").map(|_| view) {
                    Ok(view) => {
                        check_view(&model, &view, (Bound::Unbounded, Bound::Unbounded));
                        views.push(view);
                    }
                    Err(Error::HistoryTrimmed { oldest, .. }) => {
                        assert!(asked < oldest && oldest <= newest);
                        assert_ne!(retention, Retention::KeepAll, "nothing is ever trimmed");
                        assert!(views.iter().all(|view| view.version() >= oldest));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            Step::DropView { which } => {
                if !views.is_empty() {
                    views.swap_remove(which % views.len());
                }
            }
            Step::Load { which } => {
                if before == Before::HalfLoaded && table.sections() > 0 {
                    load(&store, which % table.sections(), which);
                }
            }
            Step::Check { which, from, to, inclusive } => {
                let bound = |number, inclusive: bool| match inclusive {
                    true => Bound::Included(key(number)),
                    false => Bound::Excluded(key(number)),
                };
                if !views.is_empty() {
                    let view = &views[which % views.len()];
                    check_view(&model, view, (bound(from, inclusive.0), bound(to, inclusive.1)));
                    check_history(&model, view, retention);
                }
            }
        }
        let now = Timestamp::from_micros(1_000);
        for (key, versions) in &model {
            let newest = versions.last().filter(|record| record.is_live(now)).cloned();
            assert_eq!(store.get_latest(key, now).unwrap(), newest);
        }
        check_indexes(&store);
    }
    for view in &views {
        check_view(&model, view, (Bound::Unbounded, Bound::Unbounded));
        check_history(&model, view, retention);
    }
    for section in 0..table.sections() {
        if before != Before::Nothing {
            load(&store, section, section / 3);
        }
    }
    for view in &views {
        check_view(&model, view, (Bound::Unbounded, Bound::Unbounded));
        check_history(&model, view, retention);
    }
    drop(views);
    // Dropping a view looks at a bounded number of keys.
    store.prune_waiting(usize::MAX);
    check_indexes(&store);
    check_nothing_is_kept_in_vain(&store, &model, retention);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_a_map_of_versions_does(
        first in steps(),
        steps in steps(),
        before in prop::sample::select(
            vec![Before::Nothing, Before::Beneath, Before::HalfLoaded, Before::Loaded]),
        retention in prop::sample::select(
            vec![Retention::NEWEST, keep_last(2), keep_last(3), Retention::KeepAll]),
    ) {
        run(&first, steps, retention, before);
    }
}
