//! What forks see through to is kept, whatever is dropped around it, and goes when they do.

use std::collections::BTreeMap;

use proptest::prelude::*;
use steadfast_core::fork::{Layer, fork_key, layers_value};
use steadfast_core::{Key, NamespaceId, ReplayTarget, TypeTag};

use super::table::FakeTable;
use super::*;

const PARENT: NamespaceId = NamespaceId(1);

fn key(n: u8) -> Vec<u8> {
    Key::new(PARENT, TypeTag::Kv, &[b'k', n]).unwrap().as_bytes().to_vec()
}

fn fork_at(child: u32, version: u64) -> Record {
    let layers = [Layer { namespace: PARENT, version: Version::ZERO }];
    let mut value = Vec::new();
    layers_value(&layers).encode(&mut value).unwrap();
    put_at(fork_key(NamespaceId(child)).as_bytes(), version, &value)
}

fn unfork_at(child: u32, version: u64) -> Record {
    delete_at(fork_key(NamespaceId(child)).as_bytes(), version)
}

fn seen(store: &UnifiedStore, at: u64, key: &[u8]) -> Option<Vec<u8>> {
    value_of(store.view(NOW).through(Version(at)).get(key).unwrap())
}

fn versions_of(store: &UnifiedStore, key: &[u8]) -> Vec<u64> {
    let kept = store.view(NOW).versions(key).unwrap();
    kept.iter().map(|record| record.version().0).collect()
}

#[test]
fn a_key_written_often_after_a_fork_keeps_two_versions() {
    let store = UnifiedStore::new();
    put(&store, &key(0), 1);
    commit(&store, &[fork_at(2, 2)]);
    for version in 3..100 {
        put(&store, &key(0), version);
    }
    assert_eq!(versions_of(&store, &key(0)), [99, 1]);
    assert_eq!(seen(&store, 2, &key(0)), Some(b"1".to_vec()));
    commit(&store, &[fork_at(3, 100)]);
    commit(&store, &[delete_at(&key(0), 101)]);
    assert_eq!(versions_of(&store, &key(0)), [101, 99, 1], "the deletion hides what is kept");
    assert_eq!(latest(&store, &key(0)), None);
    check_indexes(&store);
    commit(&store, &[unfork_at(2, 102), unfork_at(3, 102)]);
    store.trim(NOW, &[], 100);
    store.trim(NOW, &[], 100);
    assert_eq!(contents(&store), [], "nobody needs anything of it any more");
}

#[test]
fn what_a_view_held_in_the_middle_goes_with_the_view() {
    let store = UnifiedStore::new();
    put(&store, &key(0), 1);
    commit(&store, &[fork_at(2, 2)]);
    put(&store, &key(0), 3);
    let view = store.view(NOW);
    put(&store, &key(0), 4);
    assert_eq!(versions_of(&store, &key(0)), [4, 3, 1]);
    drop(view);
    assert_eq!(versions_of(&store, &key(0)), [4, 1]);
}

#[test]
fn what_is_deleted_in_a_fork_stays_deleted() {
    let store = UnifiedStore::new();
    let in_child = Key::new(NamespaceId(2), TypeTag::Kv, b"k").unwrap();
    commit(&store, &[fork_at(2, 1)]);
    commit(&store, &[delete_at(in_child.as_bytes(), 2)]);
    let expiring = builder(3, Some(NOW)).put(&[in_child.as_bytes(), b"xv"].concat(), 8);
    commit(&store, std::slice::from_ref(&expiring));
    store.trim(NOW, &[], 100);
    let newest = |key: &[u8]| store.view(NOW).newest(key).unwrap().map(|record| record.version());
    assert_eq!(newest(in_child.as_bytes()), Some(Version(2)));
    assert_eq!(newest(expiring.key()), Some(Version(3)), "expired, and hides what lies beneath");
    commit(&store, &[unfork_at(2, 4)]);
    store.trim(NOW, &[], 100);
    store.trim(NOW, &[], 100);
    assert_eq!(newest(in_child.as_bytes()), None);
    assert_eq!(newest(expiring.key()), None);
}

#[test]
fn what_has_expired_goes_on_hiding_what_is_kept_for_a_fork() {
    let store = UnifiedStore::new();
    put(&store, &key(0), 1);
    commit(&store, &[fork_at(2, 2)]);
    commit(&store, &[builder(3, Some(NOW)).put(&[&*key(0), b"3"].concat(), key(0).len())]);
    assert_eq!(latest(&store, &key(0)), None);
    store.trim(NOW, &[], 100);
    assert_eq!(latest(&store, &key(0)), None, "the older one must not come to light");
    assert_eq!(seen(&store, 2, &key(0)), Some(b"1".to_vec()));
}

#[test]
fn a_fork_that_is_taken_back_keeps_nothing() {
    let store = UnifiedStore::new();
    put(&store, &key(0), 1);
    let fork = [fork_at(2, 2)];
    drop(store.apply(&fork));
    store.undo(&fork);
    put(&store, &key(0), 3);
    assert_eq!(versions_of(&store, &key(0)), [3]);
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8),
    Delete(u8),
    Fork(u32),
    Unfork(u32),
    /// What is there becomes a table beneath a new store, of which so many sections are loaded.
    Reopen(usize),
    /// The store is built anew from everything that was ever written.
    Replay,
    OpenView,
    CloseView,
    Trim,
    Load,
}

fn step() -> impl Strategy<Value = Step> {
    let k = || 0..6u8;
    let child = || 2..6u32;
    prop_oneof![
        8 => k().prop_map(Step::Put),
        4 => k().prop_map(Step::Delete),
        2 => child().prop_map(Step::Fork),
        1 => child().prop_map(Step::Unfork),
        1 => (0..3usize).prop_map(Step::Reopen),
        1 => Just(Step::Replay),
        1 => Just(Step::OpenView),
        1 => Just(Step::CloseView),
        1 => Just(Step::Trim),
        1 => Just(Step::Load),
    ]
}

/// What each key was at each version.
#[derive(Default)]
struct History(BTreeMap<Vec<u8>, BTreeMap<u64, bool>>);

impl History {
    fn at(&self, key: &[u8], version: u64) -> Option<Vec<u8>> {
        let (written, live) = self.0.get(key)?.range(..=version).next_back()?;
        live.then(|| written.to_string().into_bytes())
    }
}

fn check(store: &UnifiedStore, history: &History, forks: &BTreeMap<u32, u64>) {
    let view = store.view(NOW);
    let now = view.version().0;
    let first = Key::first_of(PARENT, TypeTag::Kv).as_bytes().to_vec();
    let mut points: Vec<u64> = forks.values().copied().collect();
    points.push(now);
    for at in points {
        let look = if at == now { view.clone() } else { view.through(Version(at)) };
        let expected: Vec<_> =
            (0..6).filter_map(|n| Some((key(n), history.at(&key(n), at)?))).collect();
        for n in 0..6 {
            let found = value_of(look.get(&key(n)).unwrap());
            assert_eq!(found, history.at(&key(n), at), "key {n} at {at}");
        }
        let pair = |row: crate::Result<Record>| {
            let row = row.unwrap();
            (row.key().to_vec(), row.value_bytes().to_vec())
        };
        let rows: Vec<_> = look.prefix(&first).map(pair).collect();
        assert_eq!(rows, expected, "at {at}");
        let mut rows: Vec<_> = look.prefix(&first).rev().map(pair).collect();
        rows.reverse();
        assert_eq!(rows, expected, "backwards, at {at}");
        let newest = look.range_newest(first.clone()..).filter_map(|row| {
            let row = row.unwrap();
            let of_parent = row.key().starts_with(&first) && !row.is_tombstone();
            of_parent.then(|| pair(Ok(row)))
        });
        assert_eq!(newest.collect::<Vec<_>>(), expected, "with deletions, at {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn forks_see_what_was_there_whatever_comes_and_goes(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut store = UnifiedStore::new();
        let mut views = Vec::new();
        let (mut log, mut history) = (Vec::<Record>::new(), History::default());
        let mut forks = BTreeMap::new();
        let mut version = 0;
        for step in steps {
            let write = |record: Record, log: &mut Vec<Record>| {
                log.push(record.clone());
                commit(&store, &[record]);
            };
            match step {
                Step::Put(n) => {
                    version += 1;
                    history.0.entry(key(n)).or_default().insert(version, true);
                    let value = version.to_string();
                    write(put_at(&key(n), version, value.as_bytes()), &mut log);
                }
                Step::Delete(n) => {
                    version += 1;
                    history.0.entry(key(n)).or_default().insert(version, false);
                    write(delete_at(&key(n), version), &mut log);
                }
                Step::Fork(child) if !forks.contains_key(&child) => {
                    version += 1;
                    forks.insert(child, version);
                    write(fork_at(child, version), &mut log);
                }
                Step::Unfork(child) if forks.remove(&child).is_some() => {
                    version += 1;
                    write(unfork_at(child, version), &mut log);
                }
                Step::Reopen(sections) => {
                    views.clear();
                    while !store.is_loaded() {
                        for section in 0..store.load_progress().sections {
                            store.load_section(section).unwrap();
                        }
                    }
                    let next = UnifiedStore::new();
                    next.note_forks(&store.forks(Version(version)));
                    next.attach_table(FakeTable::of_store(&store));
                    next.publish(Version(version));
                    let all = next.load_progress().sections;
                    for section in 0..sections.min(all) {
                        next.load_section(section).unwrap();
                    }
                    store = next;
                }
                Step::Replay => {
                    views.clear();
                    store = UnifiedStore::new();
                    for run in log.chunks(7) {
                        ReplayTarget::apply(&store, run.to_vec());
                    }
                    store.finish(Version(version));
                }
                Step::OpenView => views.push(store.view(NOW)),
                Step::CloseView => drop(views.pop()),
                Step::Trim => drop(store.trim(NOW, &[], 1000)),
                Step::Load => {
                    let next = store.load_progress().sections_loaded;
                    if !store.is_loaded() && next < store.load_progress().sections {
                        store.load_section(next).unwrap();
                    }
                }
                Step::Fork(_) | Step::Unfork(_) => {}
            }
            check(&store, &history, &forks);
        }
        views.clear();
        for section in 0..store.load_progress().sections {
            store.load_section(section).unwrap();
        }
        check_indexes(&store);
        // Without the forks, nothing is left but what is there now.
        version += 1;
        let unforks: Vec<_> = forks.keys().map(|child| unfork_at(*child, version)).collect();
        if !unforks.is_empty() {
            commit(&store, &unforks);
        }
        for _ in 0..3 {
            store.trim(NOW, &[], 1000);
        }
        for (key, records) in contents(&store) {
            prop_assert_eq!(records.len(), 1, "{}", key.escape_ascii());
            prop_assert!(!records[0].is_tombstone(), "{}", key.escape_ascii());
        }
    }
}
