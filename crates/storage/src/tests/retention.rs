//! What is kept by domain, by count and by time, and what reads say below that.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::time::Duration;

use proptest::prelude::*;
use steadfast_core::{
    Key, Namespace, NamespaceId, ReplayTarget, RetentionDomain, RetentionFloor, RetentionPolicy,
    RunId, SortedTable, TypeTag,
};

use super::table::FakeTable;
use super::*;
use crate::{Error, View};

const START: u64 = 1_000;

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

fn run(namespace: u32) -> RunId {
    RunId::from_bytes([u8::try_from(namespace).unwrap(); 16])
}

fn key(namespace: u32, tag: TypeTag, own: &[u8]) -> Vec<u8> {
    Key::new(NamespaceId(namespace), tag, own).unwrap().as_bytes().to_vec()
}

fn kv(own: &[u8]) -> Vec<u8> {
    key(1, TypeTag::Kv, own)
}

/// Commits at `version` and the time `now`: a put that expires, a put that does not, or a
/// deletion.
fn write(store: &UnifiedStore, key: &[u8], version: u64, now: u64, expiry: Option<u64>) -> Record {
    let (version, timestamp) = (Version(version), at(now));
    let builder = RecordBuilder { version, timestamp, expiry: expiry.map(at) };
    let record = builder.put(&[key, &version.0.to_le_bytes()].concat(), key.len());
    commit(store, std::slice::from_ref(&record));
    record
}

fn remove(store: &UnifiedStore, key: &[u8], version: u64, now: u64) -> Record {
    let builder = RecordBuilder { version: Version(version), timestamp: at(now), expiry: None };
    let record = builder.tombstone(key);
    commit(store, std::slice::from_ref(&record));
    record
}

/// Trims everything, in steps.
fn trim(store: &UnifiedStore, now: u64) -> usize {
    let (mut from, mut versions) = (Vec::new(), 0);
    for _ in 0..10_000 {
        let trimmed = store.trim(at(now), &from, 10);
        versions += trimmed.versions;
        assert_eq!(trimmed.versions == 0, trimmed.bytes == 0);
        match trimmed.next {
            Some(next) => from = next,
            None => return versions,
        }
    }
    panic!("a walk over all keys ends");
}

fn kept(store: &UnifiedStore, key: &[u8]) -> Vec<u64> {
    let versions = store.view(at(u64::MAX)).versions(key).unwrap();
    versions.iter().map(|record| record.version().0).collect()
}

#[test]
fn time_drops_what_was_superseded_long_enough_ago() {
    let store = UnifiedStore::with_retention(Retention::KeepFor(micros(100)));
    let k = kv(b"k");
    // Superseded at 50, 60 (its expiry), 90, and not at all.
    write(&store, &k, 1, 0, None);
    write(&store, &k, 2, 50, Some(60));
    write(&store, &k, 3, 80, None);
    write(&store, &k, 4, 90, None);
    for (now, expected) in [
        (149, &[4, 3, 2, 1][..]),
        (150, &[4, 3, 2]),
        (159, &[4, 3, 2]),
        (160, &[4, 3]),
        (189, &[4, 3]),
        (190, &[4]),
        (100_000, &[4]),
    ] {
        trim(&store, now);
        assert_eq!(kept(&store, &k), expected, "at {now}");
        assert_trimmed_below(
            &store,
            &k,
            if expected.len() == 4 { 0 } else { expected[expected.len() - 1] },
        );
    }
    remove(&store, &k, 5, 100_000);
    trim(&store, 100_099);
    assert_eq!(kept(&store, &k), [5, 4]);
    trim(&store, 100_100);
    assert_eq!(store.stats().versions, 0, "a deletion of nothing that is kept is nothing");
}

#[test]
fn an_expiry_counts_as_a_deletion_on_top() {
    let both = Retention::KeepLastOrFor(2.try_into().unwrap(), micros(100));
    for (retention, before, after, later) in [
        (keep_last(1), &[3][..], &[][..], &[][..]),
        (keep_last(2), &[3, 2], &[3], &[3]),
        (keep_last(3), &[3, 2, 1], &[3, 2], &[3, 2]),
        (Retention::KeepAll, &[3, 2, 1], &[3, 2, 1], &[3, 2, 1]),
        (Retention::KeepFor(micros(100)), &[3, 2, 1], &[3], &[]),
        (both, &[3, 2, 1], &[3], &[3]),
    ] {
        let store = UnifiedStore::with_retention(retention);
        let k = kv(b"k");
        write(&store, &k, 1, 0, None);
        write(&store, &k, 2, 10, None);
        write(&store, &k, 3, 20, Some(120));
        trim(&store, 109);
        assert_eq!(kept(&store, &k), before, "{retention}");
        trim(&store, 120);
        assert_eq!(kept(&store, &k), after, "{retention}");
        trim(&store, 100_000);
        assert_eq!(kept(&store, &k), later, "{retention}");
        check_indexes(&store);
    }
}

#[test]
fn what_expired_stays_while_a_view_looks_from_before() {
    let store = UnifiedStore::new();
    let k = kv(b"k");
    write(&store, &k, 1, 0, Some(50));
    let (before, after) = (store.view(at(49)), store.view(at(50)));
    assert_eq!(trim(&store, 60), 0);
    assert!(before.get(&k).unwrap().is_some() && after.get(&k).unwrap().is_none());
    drop(before);
    assert_eq!((trim(&store, 60), store.stats().versions), (1, 0));
    assert!(after.get(&k).unwrap().is_none());
    // From before the expiry nobody looks any more: it would see nothing where a value was.
    let floor = RetentionFloor { version: Version::ZERO, clock: at(50) };
    let domain = RetentionDomain { run: None, tag: TypeTag::Kv };
    assert_eq!(store.floors(), [(domain, floor)]);
    let early = store.view_at(Version(1), at(49)).unwrap();
    assert!(matches!(early.get(&k), Err(Error::HistoryTrimmed { .. })));
    assert!(early.get(&key(1, TypeTag::State, b"k")).unwrap().is_none());
    assert!(store.view_at(Version(1), at(50)).unwrap().get(&k).unwrap().is_none());
    let newest = store.view(at(10));
    assert_eq!(newest.now(), at(50), "time does not run backwards");
    assert!(newest.get(&k).unwrap().is_none());
}

#[test]
fn an_expiry_counts_for_history_only_when_it_does_for_every_view() {
    let store = UnifiedStore::with_retention(keep_last(2));
    write(&store, &kv(b"k"), 1, 0, None);
    write(&store, &kv(b"k"), 2, 0, Some(50));
    let before = store.view(at(49));
    trim(&store, 60);
    assert_eq!(before.versions(&kv(b"k")).unwrap().len(), 2);
    drop(before);
    trim(&store, 60);
    assert_eq!(kept(&store, &kv(b"k")), [2]);
}

#[test]
fn what_expired_hides_the_table_until_that_is_loaded() {
    let k = kv(b"k");
    let table =
        FakeTable::new([vec![put_at(&k, 1, b"old")], vec![put_at(&kv(b"l"), 1, b"")]], 1, 1);
    let store = UnifiedStore::new();
    store.attach_table(table.clone());
    store.publish(Version(1));
    write(&store, &k, 2, 0, Some(50));
    store.load_section(1).unwrap();
    trim(&store, 60);
    assert!(store.get_latest(&k, at(60)).unwrap().is_none());
    assert!(store.view(at(60)).range(..).all(|row| row.unwrap().key() != k));
    store.load_section(0).unwrap();
    trim(&store, 60);
    assert!(store.view(at(60)).range(..).all(|row| row.unwrap().key() != k));
    assert_eq!(store.stats().versions, 1);
}

#[test]
fn time_makes_no_gap_between_memory_and_the_table() {
    let k = kv(b"k");
    let first = RecordBuilder { version: Version(1), timestamp: at(0), expiry: None };
    let table = FakeTable::new([vec![first.put(&k, k.len())]], 1, 1);
    let store = UnifiedStore::with_retention(Retention::KeepFor(micros(50)));
    store.attach_table(table);
    store.publish(Version(1));
    write(&store, &k, 2, 0, Some(1));
    write(&store, &k, 3, 51, None);
    trim(&store, 51);
    assert_eq!(kept(&store, &k), [3, 2], "not the third and the first");
    store.load_section(0).unwrap();
    trim(&store, 51);
    assert_eq!(kept(&store, &k), [3]);
}

#[test]
fn a_run_has_its_own_rule_and_its_own_floor() {
    let policy = RetentionPolicy::from(Retention::NEWEST)
        .with_primitive(TypeTag::State, keep_last(2))
        .with_run(run(2), Retention::KeepAll);
    let store = UnifiedStore::with_retention(policy);
    for namespace in 1..=2 {
        let (id, of) = (NamespaceId(namespace), Namespace::for_run(run(namespace)));
        ReplayTarget::define_namespace(&store, id, &of);
    }
    let mut version = 0;
    for _ in 0..4 {
        for namespace in 1..=2 {
            for tag in [TypeTag::Kv, TypeTag::State] {
                version += 1;
                write(&store, &key(namespace, tag, b"k"), version, 0, None);
            }
        }
    }
    write(&store, &key(1, TypeTag::Event, b"e"), 17, 0, None);
    let floor = |run, tag, version| {
        let floor = RetentionFloor { version: Version(version), clock: Timestamp::ZERO };
        (RetentionDomain { run, tag }, floor)
    };
    let floors = [floor(None, TypeTag::Kv, 13), floor(None, TypeTag::State, 10)];
    assert_eq!(store.floors(), floors);
    assert_trimmed_below(&store, &key(1, TypeTag::Kv, b"k"), 13);
    assert_trimmed_below(&store, &key(1, TypeTag::State, b"k"), 10);
    assert_trimmed_below(&store, &key(1, TypeTag::Event, b"e"), 0);
    assert_trimmed_below(&store, &key(2, TypeTag::Kv, b"k"), 0);
    // A range fails exactly if it may touch a domain that is trimmed there.
    let view = store.view_at(Version(12), NOW).unwrap();
    let first = |namespace, tag| Key::first_of(NamespaceId(namespace), tag).as_bytes().to_vec();
    let fails = |from: Vec<u8>, to: Vec<u8>| view.range(from..to).any(|row| row.is_err());
    assert!(fails(first(1, TypeTag::Kv), first(1, TypeTag::Event)));
    assert!(!fails(first(1, TypeTag::Event), first(2, TypeTag::Run)));
    assert!(!fails(first(2, TypeTag::Run), first(3, TypeTag::Run)));
    assert!(fails(first(2, TypeTag::Run), first(3, TypeTag::Event)), "run 3 has no rule");
    assert!(!fails(first(1, TypeTag::State), first(3, TypeTag::Run)));
    assert!(fails(Vec::new(), first(1, TypeTag::Kv)), "of the space in front of them too");
    assert!(view.range(..).any(|row| row.is_err()));
    // The floors go with a snapshot.
    let reopened = UnifiedStore::new();
    reopened.publish(Version(17));
    reopened.raise_floors(&floors);
    assert_eq!(reopened.floors(), floors);
}

#[test]
fn a_run_that_gets_a_rule_begins_with_the_floor_of_those_without() {
    let store = UnifiedStore::new();
    let (k, l) = (key(1, TypeTag::Kv, b"k"), key(2, TypeTag::Kv, b"k"));
    (1..=3).for_each(|version| drop(write(&store, &k, version, 0, None)));
    let policy = RetentionPolicy::default().with_run(run(1), Retention::KeepAll);
    store.set_policy(policy, [(NamespaceId(1), run(1))]);
    (4..=6).for_each(|version| drop(write(&store, &k, version, 0, None)));
    (7..=9).for_each(|version| drop(write(&store, &l, version, 0, None)));
    assert_eq!(kept(&store, &k), [6, 5, 4, 3]);
    assert_trimmed_below(&store, &k, 3);
    assert_trimmed_below(&store, &l, 9);
    store.set_policy(Retention::NEWEST, []);
    assert_trimmed_below(&store, &k, 9);
    assert_eq!(trim(&store, 0), 3);
    assert_eq!(kept(&store, &k), [6]);
}

#[test]
fn replay_drops_by_time_no_more_than_the_newest_commit_allows() {
    let record = |version: u64, now: u64| {
        RecordBuilder { version: Version(version), timestamp: at(now), expiry: None }
            .put(&[&kv(b"k")[..], b"v"].concat(), kv(b"k").len())
    };
    let log: Vec<_> = (1..=10).map(|i| record(i, i * 100)).collect();
    for run_len in [1, 3, 10] {
        let store = UnifiedStore::with_retention(Retention::KeepFor(micros(300)));
        log.chunks(run_len).for_each(|run| ReplayTarget::apply(&store, run.to_vec()));
        ReplayTarget::finish(&store, Version(10));
        // At 1000 the version superseded at 800 is still kept.
        let versions = kept(&store, &kv(b"k"));
        assert!(versions.starts_with(&[10, 9, 8, 7]), "{versions:?}");
        assert!(versions.len() < 10, "it drops what is older than the commits so far allow");
        trim(&store, 1_000);
        assert_eq!(kept(&store, &kv(b"k")), [10, 9, 8, 7]);
        assert_trimmed_below(&store, &kv(b"k"), 7);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put { keys: Vec<u16>, ttl: Option<u64> },
    Delete { keys: Vec<u16> },
    Wait { micros: u64 },
    Trim,
    View { earlier: u64 },
    ViewAt { back: u64, earlier: u64 },
    DropView { which: usize },
    Load { which: usize },
    SetPolicy { which: usize },
    Check { which: usize, from: u16, to: u16 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = || prop::collection::vec(prop_oneof![2 => 0u16..9, 1 => 0u16..90], 1..12);
    let ttl = prop::option::weighted(0.3, 1u64..100);
    let step = prop_oneof![
        6 => (keys(), ttl).prop_map(|(keys, ttl)| Step::Put { keys, ttl }),
        2 => keys().prop_map(|keys| Step::Delete { keys }),
        4 => (1u64..60).prop_map(|micros| Step::Wait { micros }),
        3 => Just(Step::Trim),
        2 => (0u64..80).prop_map(|earlier| Step::View { earlier }),
        3 => (0u64..20, 0u64..80).prop_map(|(back, earlier)| Step::ViewAt { back, earlier }),
        4 => any::<usize>().prop_map(|which| Step::DropView { which }),
        2 => any::<usize>().prop_map(|which| Step::Load { which }),
        1 => any::<usize>().prop_map(|which| Step::SetPolicy { which }),
        2 => (any::<usize>(), 0u16..90, 0u16..90)
            .prop_map(|(which, from, to)| Step::Check { which, from, to }),
    ];
    prop::collection::vec(step, 1..50)
}

/// Three namespaces with three primitives each.
fn numbered(number: u16) -> Vec<u8> {
    let tags = [TypeTag::Kv, TypeTag::Event, TypeTag::State];
    let own = [b'k', u8::try_from(number / 9).unwrap()];
    key(1 + u32::from(number % 3), tags[usize::from(number / 3 % 3)], &own)
}

fn policies() -> Vec<RetentionPolicy> {
    let mixed = RetentionPolicy::from(keep_last(2))
        .with_primitive(TypeTag::State, Retention::KeepFor(micros(50)))
        .with_primitive(TypeTag::Event, Retention::KeepAll);
    vec![
        Retention::NEWEST.into(),
        mixed.clone(),
        RetentionPolicy::from(Retention::NEWEST).with_run(run(2), Retention::KeepFor(micros(80))),
        mixed
            .with_run(run(1), Retention::KeepAll)
            .with_run(run(3), Retention::KeepLastOrFor(3.try_into().unwrap(), micros(30))),
    ]
}

/// Everything ever committed, a key's versions oldest first, beside a store.
struct Model {
    store: UnifiedStore,
    table: std::sync::Arc<FakeTable>,
    policy: RetentionPolicy,
    /// Rules that changed, or floors from elsewhere, promise less of what was before.
    fresh: bool,
    rows: BTreeMap<Vec<u8>, Vec<Record>>,
    version: u64,
    now: u64,
    /// The time at the last trim.
    trimmed: u64,
}

impl Model {
    fn rule(&self, key: &[u8]) -> (RetentionDomain, Retention) {
        let (namespace, tag) = (Key::namespace_of(key).unwrap().0, Key::tag_of(key).unwrap());
        match self.policy.of_run(run(namespace)) {
            Some(rule) => (RetentionDomain { run: Some(run(namespace)), tag }, rule),
            None => (RetentionDomain { run: None, tag }, self.policy.of_primitive(tag)),
        }
    }

    fn is_trimmed(&self, view: &View, key: &[u8]) -> bool {
        let domain = self.rule(key).0;
        let floors = self.store.floors();
        floors.iter().any(|(other, floor)| {
            *other == domain && (view.version() < floor.version || view.now() < floor.clock)
        })
    }

    fn seen(&self, view: &View, key: &[u8]) -> Option<Record> {
        let versions = &self.rows[key];
        let newest = versions.iter().rfind(|record| record.version() <= view.version())?;
        newest.is_live(view.now()).then(|| newest.clone())
    }

    /// A read is the model's answer, or an error exactly below the floor.
    fn check_view(&self, view: &View, never_trimmed: bool) {
        for key in self.rows.keys() {
            match view.get(key) {
                Ok(found) => {
                    assert_eq!(found, self.seen(view, key), "{view:?}");
                    assert!(!self.is_trimmed(view, key), "{view:?}");
                    let kept = view.versions(key).unwrap();
                    let upto = self.rows[key].iter().rev();
                    let upto = upto.filter(|record| record.version() <= view.version());
                    if self.fresh {
                        assert_eq!(kept, upto.take(kept.len()).cloned().collect::<Vec<_>>());
                    }
                }
                Err(Error::HistoryTrimmed { asked, .. }) => {
                    assert!(self.is_trimmed(view, key) && !never_trimmed, "{view:?}");
                    assert_eq!(asked, view.version());
                    assert!(view.versions(key).is_err());
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn check_range(&self, view: &View, bounds: &(Bound<Vec<u8>>, Bound<Vec<u8>>)) {
        let rows: crate::Result<Vec<_>> = view.range(bounds.clone()).collect();
        let backward: crate::Result<Vec<_>> = view.range(bounds.clone()).rev().collect();
        let inside = || self.rows.keys().filter(|key| bounds.contains(*key));
        match rows {
            Ok(rows) => {
                assert!(inside().all(|key| !self.is_trimmed(view, key)), "{view:?} {bounds:?}");
                let expected: Vec<_> = inside().filter_map(|key| self.seen(view, key)).collect();
                assert_eq!(rows, expected, "{view:?} {bounds:?}");
                assert!(backward.unwrap().iter().eq(rows.iter().rev()));
            }
            Err(error) => {
                // The first and the last key that some primitive may have in some run.
                let touched = |prefix: &Vec<u8>| {
                    let end = steadfast_core::prefix_end(prefix).unwrap();
                    let below = match &bounds.1 {
                        Bound::Excluded(upper) => prefix < upper,
                        Bound::Included(upper) => prefix <= upper,
                        Bound::Unbounded => true,
                    };
                    let above = match &bounds.0 {
                        Bound::Excluded(lower) | Bound::Included(lower) => *lower < end,
                        Bound::Unbounded => true,
                    };
                    below && above
                };
                let prefixes = (0..5).flat_map(|namespace| {
                    TypeTag::ALL
                        .map(|tag| Key::first_of(NamespaceId(namespace), tag).as_bytes().to_vec())
                });
                let trimmed = prefixes.filter(touched).any(|key| self.is_trimmed(view, &key));
                assert!(trimmed, "{view:?} {bounds:?}: {error}");
                assert_eq!(backward.unwrap_err(), error);
            }
        }
    }

    /// What the rule keeps of a key by itself, when nobody reads in the past.
    fn needed(&self, key: &[u8]) -> &[Record] {
        let (versions, rule) = (&self.rows[key], self.rule(key).1);
        if rule == Retention::KeepAll {
            return versions;
        }
        let newest = versions.last().unwrap();
        let now = at(self.trimmed);
        let expired = newest.expiry().is_some_and(|expiry| expiry <= now);
        let least = rule.kept_at_least().unwrap().get() as usize;
        let is_kept = |i: usize| {
            let newer = versions.len() - 1 - i + usize::from(expired);
            let next = versions.get(i + 1).map_or(Timestamp::MAX, Record::timestamp);
            let superseded = next.min(versions[i].expiry().unwrap_or(Timestamp::MAX));
            newer < least || superseded.after(rule.kept_for()) > now
        };
        let first = (0..versions.len()).find(|i| is_kept(*i)).unwrap_or(versions.len());
        let kept = &versions[first..];
        if matches!(kept, [only] if only.is_tombstone()) { &[] } else { kept }
    }

    fn check_nothing_is_kept_in_vain(&self) {
        let kept: BTreeMap<_, _> = contents(&self.store).into_iter().collect();
        for key in self.rows.keys() {
            let (expected, found) =
                (self.needed(key), kept.get(key).map_or(&[][..], Vec::as_slice));
            let restarted = expected.iter().rev().take(found.len()).rev();
            assert!(restarted.eq(found), "{:?}: {found:?}, not {expected:?}", self.rule(key));
            // Once only a tombstone was left and was dropped, history begins anew after it.
            let missing = expected[..expected.len() - found.len()].last();
            assert!(missing.is_none_or(Record::is_tombstone) || !self.fresh, "{missing:?}");
        }
    }

    fn commit(&mut self, keys: &[u16], make: impl Fn(&RecordBuilder, &[u8]) -> Record) {
        self.version += 1;
        let (version, timestamp) = (Version(self.version), at(self.now));
        let builder = RecordBuilder { version, timestamp, expiry: None };
        let keys: std::collections::BTreeSet<_> = keys.iter().map(|n| numbered(*n)).collect();
        let records: Vec<_> = keys.iter().map(|key| make(&builder, key)).collect();
        commit(&self.store, &records);
        for record in records {
            self.rows.entry(record.key().to_vec()).or_default().push(record);
        }
    }

    /// A step that writes, or lets time pass.
    fn write(&mut self, step: &Step) {
        match step {
            Step::Put { keys, ttl } => {
                let expiry = ttl.map(|ttl| at(self.now + ttl));
                self.commit(keys, |builder, key| {
                    let value = builder.version.0.to_le_bytes();
                    RecordBuilder { expiry, ..*builder }.put(&[key, &value].concat(), key.len())
                });
            }
            Step::Delete { keys } => self.commit(keys, RecordBuilder::tombstone),
            Step::Wait { micros } => self.now += micros,
            Step::Trim => {
                self.trimmed = self.now;
                trim(&self.store, self.now);
            }
            _ => {}
        }
    }

    /// A new store over a table of what this one holds.
    fn reopened(mut self) -> Self {
        self.table = FakeTable::of_store(&self.store);
        let floors = self.store.floors();
        self.store = new_store(&self.policy);
        self.store.attach_table(self.table.clone());
        self.store.raise_floors(&floors);
        self.store.publish(Version(self.version));
        self.store.trim(at(self.trimmed), &[], 0);
        self
    }
}

fn new_store(policy: &RetentionPolicy) -> UnifiedStore {
    let store = UnifiedStore::with_retention(policy.clone());
    for namespace in 1..=3 {
        store.define_namespace(NamespaceId(namespace), &Namespace::for_run(run(namespace)));
    }
    store
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_read_is_right_or_below_a_floor(
        first in steps(),
        steps in steps(),
        policy in prop::sample::select(policies()),
        (table, loads, changes) in any::<(bool, bool, bool)>(),
    ) {
        let mut model = Model {
            store: new_store(&policy),
            table: FakeTable::new([], 1, 1),
            policy,
            fresh: true,
            rows: BTreeMap::new(),
            version: 0,
            now: START,
            trimmed: 0,
        };
        first.iter().for_each(|step| model.write(step));
        if table {
            model = model.reopened();
        }
        // With each view whether it was opened at the newest version.
        let mut views: Vec<(View, bool)> = Vec::new();
        for step in &steps {
            model.write(step);
            match step {
                Step::View { earlier } => {
                    views.push((model.store.view(at(model.now - earlier)), true));
                }
                Step::ViewAt { back, earlier } => {
                    let asked = Version(model.version.saturating_sub(*back));
                    if let Ok(view) = model.store.view_at(asked, at(model.now - earlier)) {
                        views.push((view, false));
                    }
                }
                Step::DropView { which } if !views.is_empty() => {
                    views.swap_remove(which % views.len());
                }
                Step::Load { which } if loads && model.table.sections() > 0 => {
                    model.store.load_section_late(which % model.table.sections()).unwrap();
                }
                Step::SetPolicy { which } if changes => {
                    for section in 0..model.table.sections() {
                        model.store.load_section(section).unwrap();
                    }
                    model.policy = policies()[which % policies().len()].clone();
                    model.fresh = false;
                    let namespaces = (1..=3).map(|id| (NamespaceId(id), run(id)));
                    model.store.set_policy(model.policy.clone(), namespaces);
                }
                Step::Check { which, from, to } if !views.is_empty() => {
                    let (view, newest) = &views[which % views.len()];
                    model.check_view(view, *newest);
                    model.check_range(view, &(Bound::Unbounded, Bound::Unbounded));
                    let (from, to) = (numbered(*from), numbered(*to));
                    let to_prefix = to[..Key::PREFIX_BYTES].to_vec();
                    for upper in [Bound::Included(to.clone()), Bound::Excluded(to), Bound::Excluded(to_prefix)] {
                        model.check_range(view, &(Bound::Excluded(from.clone()), upper));
                    }
                }
                _ => {}
            }
            check_indexes(&model.store);
        }
        views.iter().for_each(|(view, newest)| model.check_view(view, *newest));
        for section in 0..model.table.sections() {
            model.store.load_section(section).unwrap();
        }
        views.iter().for_each(|(view, newest)| model.check_view(view, *newest));
        views.clear();
        model.store.prune_waiting(usize::MAX);
        model.write(&Step::Trim);
        check_indexes(&model.store);
        model.check_nothing_is_kept_in_vain();
        prop_assert_eq!(model.store.stats().garbage, 0);
    }
}
