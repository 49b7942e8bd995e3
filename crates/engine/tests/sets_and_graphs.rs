//! Collections, attributes, cohorts and co-engagement: what they answer, what they refuse, who
//! meets whom.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use steadfast_engine::{
    Attributes, Change, Database, DatabaseConfig, Difference, Entry, ErrorKind, GraphDefinition,
    ManualClock, Observed, Predicate, Run, Timestamp, Version, Window, limits,
};

const START_US: u64 = 1_700_000_000_000_000;

fn opened() -> (Database, Run, ManualClock) {
    let clock = ManualClock::at(Timestamp::from_micros(START_US));
    let dir = tempfile::tempdir().unwrap().keep();
    let config = DatabaseConfig::buffered().manual_checkpoints();
    let db = Database::builder(dir).config(config).clock(clock.clone()).open().unwrap();
    let run = db.create_run("r").unwrap();
    (db, run, clock)
}

fn of(pairs: &[(&str, i64)]) -> Attributes {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect()
}

fn texts(items: impl Iterator<Item = steadfast_engine::Result<Vec<u8>>>) -> Vec<String> {
    items.map(|item| String::from_utf8(item.unwrap()).unwrap()).collect()
}

fn kind<T: std::fmt::Debug>(result: steadfast_engine::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn a_collection_has_what_was_added_in_order() {
    let (db, run, _) = opened();
    assert!(db.collection_create(run, "empty").unwrap().0);
    assert!(!db.collection_create(run, "empty").unwrap().0);
    for (name, item) in
        [("a", "x2"), ("a", "y"), ("a", "x1"), ("a\0", "z"), ("b", "y"), ("b", "x1")]
    {
        assert!(db.collection_add(run, name, item).unwrap().0, "{item} is new");
    }
    let version = db.current_version();
    assert!(!db.collection_add(run, "a", "y").unwrap().0);
    assert!(!db.collection_remove(run, "a", "z").unwrap().0);
    assert_eq!(db.current_version(), version, "nothing was written");
    assert!(db.collection_contains(run, "a", "y").unwrap());
    assert!(!db.collection_contains(run, "a", "z").unwrap());
    assert!(!db.collection_contains(run, "none", "y").unwrap());
    assert_eq!(db.collections(run).unwrap(), ["a", "a\0", "b", "empty"]);
    assert_eq!(texts(db.collection_items(run, "a", "").unwrap()), ["x1", "x2", "y"]);
    assert_eq!(texts(db.collection_items(run, "a", "x").unwrap().rev()), ["x2", "x1"]);
    assert_eq!(db.collection_len(run, "a").unwrap(), 3);
    assert_eq!(db.collection_len(run, "empty").unwrap(), 0);
    let view = db.view().unwrap();
    assert_eq!(
        texts(view.collection_union(run, &["a", "b", "a\0"]).unwrap()),
        ["x1", "x2", "y", "z"]
    );
    assert_eq!(texts(view.collection_intersection(run, &["a", "b"]).unwrap()), ["x1", "y"]);
    assert_eq!(texts(view.collection_intersection(run, &["a", "empty"]).unwrap()), [""; 0]);
    assert_eq!(texts(view.collection_intersection(run, &[]).unwrap()), [""; 0]);
    let asked = view.collection_contains_each(run, "a", ["y", "z", "x1"]).unwrap();
    assert_eq!(asked, [true, false, true]);

    let (in_txn, _) = db
        .transaction(|tx| {
            tx.collection_add(run, "a", "own")?;
            tx.collection_remove(run, "a", "y")?;
            let items = texts(tx.collection_items(run, "a", "")?);
            let removed = tx.collection_delete(run, "empty")?;
            Ok((items, tx.collection_contains(run, "a", "y")?, removed, tx.collections(run)?.len()))
        })
        .unwrap();
    assert_eq!(in_txn, (["own", "x1", "x2"].map(String::from).to_vec(), false, 1, 3));
    assert!(view.collection_contains(run, "a", "y").unwrap(), "as it was then");
    assert!(!db.collection_contains(run, "a", "y").unwrap());
    assert_eq!(db.collection_delete(run, "a").unwrap().0, 3);
    assert_eq!(db.collections(run).unwrap(), ["a\0", "b"]);
}

#[test]
fn adds_of_other_items_meet_nobody_and_those_of_the_same_item_do() {
    let (db, run, _) = opened();
    let mut one = db.begin().unwrap();
    let mut other = db.begin().unwrap();
    let mut same = db.begin().unwrap();
    let mut counts = db.begin().unwrap();
    one.collection_add(run, "set", "a").unwrap();
    other.collection_add(run, "set", "b").unwrap();
    same.collection_add(run, "set", "a").unwrap();
    counts.collection_len(run, "set").unwrap();
    counts.kv_put(run, "counted", 0).unwrap();
    one.commit().unwrap();
    other.commit().unwrap();
    assert_eq!(kind(same.commit()), ErrorKind::Conflict);
    assert_eq!(kind(counts.commit()), ErrorKind::Conflict);
}

#[test]
fn an_observation_counts_for_the_cohorts_of_that_moment_and_the_past_stays() {
    let (db, run, clock) = opened();
    db.attributes_set(run, "ada", of(&[("age", 36)])).unwrap();
    db.signal_record(run, "view", "ada", 1.0).unwrap();
    db.define_cohort("adults", 1, &Predicate::ge("age", 18)).unwrap();
    db.define_cohort("minors", 1, &Predicate::lt("age", 18)).unwrap();
    let counts = |db: &Database| {
        let view = db.view().unwrap();
        ["adults", "minors"].map(|it| view.cohort_count(run, it, "view", Window::AllTime).unwrap())
    };
    assert_eq!(counts(&db), [0, 0], "what was before is not counted");
    assert_eq!(db.cohort_score(run, "adults", "view").unwrap(), 0.0);
    db.signal_record(run, "view", "ada", 2.0).unwrap();
    db.signal_record(run, "view", "nobody", 2.0).unwrap();
    assert_eq!(counts(&db), [1, 0]);
    let before = db.view().unwrap();
    db.attribute_set(run, "ada", "age", 12).unwrap();
    db.signal_record(run, "view", "ada", 4.0).unwrap();
    assert_eq!(counts(&db), [1, 1], "nothing is taken back");
    // Attributes and observation of one transaction are seen together.
    db.transaction(|tx| {
        tx.attributes_set(run, "bob", of(&[("age", 50)]))?;
        tx.signal_record(run, "view", "bob", 8.0)?;
        tx.define_cohort("fifty", 1, &Predicate::eq("age", 50))?;
        tx.signal_record(run, "view", "bob", 16.0)
    })
    .unwrap();
    assert_eq!(counts(&db), [3, 1]);
    assert_eq!(db.cohort_score(run, "fifty", "view").unwrap(), 16.0);
    assert_eq!(db.cohort_score(run, "adults", "view").unwrap(), 26.0);
    clock.advance(Duration::from_secs(7 * 24 * 3600));
    assert!((db.cohort_score(run, "adults", "view").unwrap() - 13.0).abs() < 1e-9);
    assert_eq!(db.cohort_velocity(run, "adults", "view").unwrap(), 0.0);
    assert_eq!(before.cohort_count(run, "adults", "view", Window::AllTime).unwrap(), 1);
    let members = |cohort| -> Vec<_> {
        texts(db.cohort_members(run, cohort).unwrap().map(|row| row.map(|(entity, _)| entity)))
    };
    assert_eq!((members("adults"), members("minors")), (vec!["bob".into()], vec!["ada".into()]));
    assert_eq!(before.cohort_members(run, "adults").unwrap().count(), 1, "ada, then");
    assert_eq!(kind(db.cohort_members(run, "none")), ErrorKind::NotFound);
    db.attributes_delete(run, "bob").unwrap();
    db.signal_record(run, "view", "bob", 1.0).unwrap();
    assert_eq!(counts(&db), [3, 1], "who has no attributes is in no cohort");
    assert_eq!(db.attributes(run, "bob").unwrap(), None);
}

#[test]
fn a_cohort_is_not_changed_silently_and_is_there_again_after_opening() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(dir.path()).unwrap();
    let run = db.create_run("r").unwrap();
    let (young, old) = (Predicate::lt("age", 30), Predicate::ge("age", 30));
    db.define_cohort("some", 1, &young).unwrap();
    let version = db.current_version();
    db.define_cohort("some", 1, &young).unwrap();
    assert_eq!(db.current_version(), version, "the same again is nothing");
    assert_eq!(kind(db.define_cohort("some", 1, &old)), ErrorKind::Conflict);
    assert_eq!(kind(db.define_cohort("zero", 0, &old)), ErrorKind::Invalid);
    db.define_cohort("some", 2, &old).unwrap();
    assert_eq!(kind(db.define_cohort("some", 1, &young)), ErrorKind::Conflict);
    db.attributes_set(run, "e", of(&[("age", 40)])).unwrap();
    db.checkpoint().unwrap();
    db.close().unwrap();
    let db = Database::open(dir.path()).unwrap();
    let run = db.resolve_run("r").unwrap();
    // The first thing it does: nobody has looked whether there are cohorts.
    db.signal_record(run, "view", "e", 1.0).unwrap();
    assert_eq!(db.cohort_count(run, "some", "view", Window::AllTime).unwrap(), 1);
    let defined = db.view().unwrap().cohort_definitions().unwrap();
    assert_eq!((defined.len(), defined[0].definition.predicate.clone()), (1, old));
}

#[test]
fn changes_of_attributes_meet_observations_and_observations_do_not_meet() {
    let (db, run, _) = opened();
    db.define_cohort("adults", 1, &Predicate::ge("age", 18)).unwrap();
    db.attributes_set(run, "ada", of(&[("age", 36)])).unwrap();
    let observe = || {
        let mut tx = db.begin().unwrap();
        tx.signal_record(run, "view", "ada", 1.0).unwrap();
        tx
    };
    let (one, other, late) = (observe(), observe(), observe());
    one.commit().unwrap();
    other.commit().unwrap();
    db.attribute_set(run, "ada", "age", 3).unwrap();
    assert_eq!(kind(late.commit()), ErrorKind::Conflict);
    let late = observe();
    db.define_cohort("all", 1, &Predicate::exists("age")).unwrap();
    assert_eq!(kind(late.commit()), ErrorKind::Conflict);
    assert_eq!(db.cohort_count(run, "adults", "view", Window::AllTime).unwrap(), 2);
}

#[test]
fn items_of_the_same_actors_are_neighbours_the_heaviest_first() {
    let (db, run, clock) = opened();
    let day = Duration::from_secs(86_400);
    let graph = GraphDefinition { version: 1, edges_max: 2, recent_max: 2, half_life: Some(day) };
    db.define_graph("bought", &graph).unwrap();
    let version = db.current_version();
    db.define_graph("bought", &graph).unwrap();
    assert_eq!(db.current_version(), version, "the same again is nothing");
    let other = GraphDefinition { edges_max: 3, ..graph };
    assert_eq!(kind(db.define_graph("bought", &other)), ErrorKind::Conflict);
    for actor in ["x", "y"] {
        db.engage(run, "bought", actor, "tea").unwrap();
        db.engage(run, "bought", actor, "cup").unwrap();
    }
    db.engage(run, "bought", "y", "pot").unwrap();
    let beside = |item: &str| -> Vec<(String, f64)> {
        let found = db.co_engaged(run, "bought", item, 10).unwrap();
        found.into_iter().map(|it| (String::from_utf8(it.item).unwrap(), it.weight)).collect()
    };
    assert_eq!(beside("tea"), [("cup".to_owned(), 2.0), ("pot".to_owned(), 1.0)]);
    assert_eq!(beside("pot"), [("cup".to_owned(), 1.0), ("tea".to_owned(), 1.0)]);
    assert_eq!(beside("none"), []);
    assert_eq!(texts(db.engaged(run, "bought", "y").unwrap().into_iter().map(Ok)), ["pot", "cup"]);
    let view = db.view().unwrap();
    clock.advance(day);
    assert_eq!(beside("tea")[0], ("cup".to_owned(), 1.0));
    // The graph has forgotten that y had tea.
    db.engage(run, "bought", "y", "jar").unwrap();
    assert_eq!(beside("tea").len(), 2);
    assert_eq!(beside("cup"), [("jar".to_owned(), 1.0), ("tea".to_owned(), 1.0)]);
    assert_eq!(view.co_engaged(run, "bought", "tea", 1).unwrap()[0].weight, 2.0);
    assert_eq!(view.co_engaged_versions(run, "bought", "tea").unwrap().len(), 1);
    let long = vec![0; limits::GRAPH_ITEM_BYTES_MAX + 1];
    assert_eq!(kind(db.engage(run, "bought", "y", long)), ErrorKind::Invalid);
    assert_eq!(kind(db.engage(run, "bought", "y", "")), ErrorKind::Invalid);
    assert_eq!(kind(db.engage(run, "", "y", "tea")), ErrorKind::Invalid);
}

#[test]
fn actors_that_meet_at_an_item_all_count() {
    const EACH: u32 = 40;
    let (db, run, _) = opened();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let db = db.clone();
            scope.spawn(move || {
                for n in 0..EACH {
                    let actor = format!("{thread}-{n}");
                    db.engage(run, "graph", &actor, "one").unwrap();
                    db.engage(run, "graph", &actor, "two").unwrap();
                }
            });
        }
    });
    let weight = |item: &str| db.co_engaged(run, "graph", item, 1).unwrap()[0].weight;
    assert_eq!((weight("one"), weight("two")), (2.0 * f64::from(EACH), 2.0 * f64::from(EACH)));
}

#[test]
fn refuses_what_is_outside_of_the_limits_and_writes_nothing() {
    let (db, run, _) = opened();
    let version = db.current_version();
    let many: Attributes =
        (0..=limits::ATTRIBUTES_MAX).map(|n| (n.to_string(), 1.into())).collect();
    let wide = Predicate::is_in("x", vec![0; limits::PREDICATE_PARTS_MAX + 1]);
    let errors = [
        kind(db.attributes_set(run, "e", many)),
        kind(db.attributes_set(run, "", Attributes::new())),
        kind(db.attribute_set(run, "e", "x", f64::NAN)),
        kind(db.define_cohort("wide", 1, &wide)),
        kind(db.define_cohort("", 1, &Predicate::exists("x"))),
        kind(db.define_cohort(&"n".repeat(257), 1, &Predicate::exists("x"))),
        kind(db.collection_add(run, "", "x")),
        kind(db.collection_add(run, "set", "")),
        kind(db.collection_add(run, "set", vec![1; limits::USER_KEY_BYTES_MAX + 1])),
        kind(db.collection_contains(run, &"n".repeat(257), "x")),
        kind(db.define_graph("g", &GraphDefinition::default())),
    ];
    assert_eq!(errors, [ErrorKind::Invalid; 11]);
    assert_eq!(db.current_version(), version);
    db.delete_run("r").unwrap();
    assert_eq!(kind(db.collection_add(run, "set", "x")), ErrorKind::NotFound);
    assert_eq!(kind(db.engage(run, "g", "a", "i")), ErrorKind::NotFound);
    assert_eq!(kind(db.attributes(run, "e")), ErrorKind::NotFound);
    assert_eq!(kind(db.cohort_score(run, "c", "s")), ErrorKind::NotFound);
}

#[test]
fn a_run_that_is_deleted_takes_what_was_observed_in_the_same_transaction() {
    let (db, run, _) = opened();
    db.define_cohort("all", 1, &Predicate::exists("age")).unwrap();
    db.attributes_set(run, "e", of(&[("age", 1)])).unwrap();
    let from = db.current_version();
    db.transaction(|tx| {
        tx.signal_record(run, "view", "e", 1.0)?;
        tx.delete_run("r")
    })
    .unwrap();
    db.flush().unwrap();
    let changes: Vec<Change> = db
        .tail(from)
        .unwrap()
        .flat_map(|commit| commit.unwrap().changes().map(Result::unwrap).collect::<Vec<_>>())
        .collect();
    assert!(matches!(changes[..], [Change::RunDeleted(_)]), "{changes:?}");
}

/// Followers, differences and restored entries know all of them.
#[test]
fn those_who_follow_compare_and_restore_see_them() {
    let (db, run, _) = opened();
    db.define_cohort("all", 1, &Predicate::exists("age")).unwrap();
    let from = db.current_version();
    db.transaction(|tx| {
        tx.attributes_set(run, "e", of(&[("age", 1)]))?;
        tx.collection_create(run, "set")?;
        tx.collection_add(run, "set", "item")?;
        tx.engage(run, "graph", "actor", "one")?;
        tx.engage(run, "graph", "actor", "two")?;
        tx.signal_record(run, "view", "e", 1.0)
    })
    .unwrap();
    db.flush().unwrap();
    let entries: Vec<Entry> = db.view().unwrap().entries(run).map(Result::unwrap).collect();
    let kinds: Vec<&str> = entries
        .iter()
        .map(|entry| match entry {
            Entry::Signal { .. } => "signal",
            Entry::Collection { item: None, .. } => "collection",
            Entry::Collection { .. } => "item",
            Entry::Attributes { .. } => "attributes",
            Entry::Cohort { .. } => "cohort",
            Entry::Engaged { .. } => "engaged",
            Entry::CoEngaged { .. } => "co-engaged",
            other => panic!("{other:?}"),
        })
        .collect();
    let due = [
        "signal",
        "collection",
        "item",
        "attributes",
        "cohort",
        "engaged",
        "co-engaged",
        "co-engaged",
    ];
    assert_eq!(kinds, due);
    let changed: Vec<Change> = db
        .tail(from)
        .unwrap()
        .flat_map(|commit| commit.unwrap().changes().map(Result::unwrap).collect::<Vec<_>>())
        .collect();
    assert_eq!(changed.len(), entries.len());
    let observed: Vec<_> = changed
        .iter()
        .filter_map(|change| match change {
            Change::Observed { signal, of, observations, .. } => {
                Some((signal.as_str(), of.clone(), observations.len()))
            }
            _ => None,
        })
        .collect();
    let (own, cohort) = (Observed::Entity(b"e".to_vec()), Observed::Cohort("all".into()));
    assert_eq!(observed, [("view", own, 1), ("view", cohort, 1)]);
    let told = |entry: &Entry| {
        changed
            .iter()
            .any(|change| matches!(change, Change::Entry { entry: it, .. } if it == entry))
    };
    let is_row = |entry: &&Entry| !matches!(entry, Entry::Signal { .. } | Entry::Cohort { .. });
    assert!(entries.iter().filter(is_row).all(told));
    let added = db.diff_run_versions(run, from, db.current_version()).unwrap();
    let added: Vec<Difference> = added.map(Result::unwrap).collect();
    assert_eq!(added, entries.iter().cloned().map(Difference::Added).collect::<Vec<_>>());

    let copy = Database::in_memory().unwrap();
    let info = db.run_info("r").unwrap();
    let view = db.view().unwrap();
    let mut restore = copy.restore(info.version, info.created).unwrap();
    let address = view.namespace_of(run).unwrap();
    let restored = restore.run("r", &address, info.status, info.created).unwrap();
    restore.commit().unwrap();
    let defined = view.cohort_definitions().unwrap().remove(0);
    let mut restore = copy.restore(defined.version, defined.timestamp).unwrap();
    restore.cohort_definition(&defined.name, &defined.definition).unwrap();
    restore.commit().unwrap();
    let mut restore = copy.restore(entries[0].version(), entries[0].timestamp()).unwrap();
    entries.iter().for_each(|entry| restore.entry(restored, entry).unwrap());
    restore.commit().unwrap();
    let copied: Vec<Entry> = copy.view().unwrap().entries(restored).map(Result::unwrap).collect();
    assert_eq!(copied, entries);
    copy.signal_record(restored, "view", "e", 1.0).unwrap();
    assert_eq!(copy.cohort_count(restored, "all", "view", Window::AllTime).unwrap(), 2);
    assert!(copy.current_version() > Version::ZERO);
}
