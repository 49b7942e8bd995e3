//! Forks: each run goes its own way from where it was forked, whatever becomes of the others.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // weights are few and whole

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;
use steadfast_engine::{
    AppendOptions, CompactMode, Database, DatabaseConfig, Difference, Entry, ErrorKind, Expect,
    ManualClock, Predicate, Result, Retention, Run, RunStatus, Timestamp, Value, Version, View,
    Window,
};

/// A time before everything here, for observations.
const THEN: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
const START: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

fn values(view: &View, run: Run, prefix: &str) -> Result<Vec<(String, i64)>> {
    let pair = |(key, found): (Vec<u8>, _)| {
        let found: steadfast_engine::VersionedValue = found;
        (String::from_utf8(key).unwrap(), found.value.as_int().unwrap())
    };
    let forward: Vec<_> =
        view.kv_scan(run, prefix)?.map(|row| row.map(pair)).collect::<Result<_>>()?;
    let mut backward: Vec<_> =
        view.kv_scan(run, prefix)?.rev().map(|row| row.map(pair)).collect::<Result<_>>()?;
    backward.reverse();
    assert_eq!(forward, backward);
    Ok(forward)
}

fn now(db: &Database, run: Run) -> Result<Vec<(String, i64)>> {
    values(&db.view()?, run, "")
}

fn pairs(of: &[(&str, i64)]) -> Vec<(String, i64)> {
    of.iter().map(|(key, n)| ((*key).to_owned(), *n)).collect()
}

#[test]
fn a_child_begins_as_its_parent_is_and_neither_sees_what_the_other_writes() -> Result<()> {
    let db = Database::in_memory()?;
    let parent = db.create_run("parent")?;
    for (key, n) in [("a", 1), ("b", 2), ("c", 3)] {
        db.kv_put(parent, key, n)?;
    }
    let before = db.view()?;
    let child = db.fork_run("parent", "child")?;
    let forked = db.current_version();
    db.kv_put(parent, "a", 10)?;
    db.kv_delete(parent, "b")?;
    db.kv_put(child, "c", 30)?;
    db.kv_delete(child, "a")?;
    db.kv_put(child, "d", 40)?;
    assert_eq!(now(&db, child)?, pairs(&[("b", 2), ("c", 30), ("d", 40)]));
    assert_eq!(now(&db, parent)?, pairs(&[("a", 10), ("c", 3)]));
    assert!(db.kv_get(child, "a")?.is_none(), "deleted there, and the parent's stays hidden");
    assert_eq!(db.kv_get(child, "b")?.unwrap().value, Value::Int(2));
    db.kv_put(child, "a", 11)?;
    assert_eq!(db.kv_get(child, "a")?.unwrap().value, Value::Int(11));
    let history: Vec<_> = db
        .kv_history(child, "a")?
        .into_iter()
        .map(|(_, found)| found.map(|found| found.value))
        .collect();
    assert_eq!(history.last(), Some(&Some(Value::Int(1))), "{history:?}");
    let info = db.run_info("child")?;
    let from = info.parent.unwrap();
    assert_eq!((from.id, from.version), (parent.id(), forked));
    assert_eq!((info.status, &info.ancestors[..]), (RunStatus::Active, &[parent.id()][..]));
    assert!(before.kv_get(child, "b").is_ok_and(|found| found.is_none()), "not forked then");
    assert_eq!(values(&before, parent, "")?.len(), 3);
    Ok(())
}

#[test]
fn a_fork_of_a_fork_sees_through_to_the_first() -> Result<()> {
    let db = Database::in_memory()?;
    let first = db.create_run("0")?;
    db.kv_put(first, "k", 0)?;
    db.kv_put(first, "only", 7)?;
    let mut runs = vec![first];
    for n in 1..=steadfast_engine::limits::FORK_DEPTH_MAX {
        let run = db.fork_run(&(n - 1).to_string(), &n.to_string())?;
        db.kv_put(run, "k", n as i64)?;
        db.kv_delete(runs[n - 1], "only")?;
        runs.push(run);
    }
    for (n, run) in runs.iter().enumerate() {
        assert_eq!(db.kv_get(*run, "k")?.unwrap().value, Value::Int(n as i64));
    }
    let last = *runs.last().unwrap();
    assert_eq!(db.kv_get(last, "only")?.unwrap().value, Value::Int(7));
    let deepest = (runs.len() - 1).to_string();
    let error = db.fork_run(&deepest, "deeper").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(db.run_info(&deepest)?.ancestors.len(), runs.len() - 1);
    Ok(())
}

#[test]
fn what_the_forking_transaction_does_belongs_to_the_fork() -> Result<()> {
    let db = Database::in_memory()?;
    let parent = db.create_run("p")?;
    db.kv_put(parent, "a", 1)?;
    db.kv_put(parent, "b", 1)?;
    db.signal_record_at(parent, "s", "e", 1.0, THEN)?;
    db.event_append(parent, "log", "zero")?;
    let look = |tx: &mut steadfast_engine::Transaction, run: Run| -> Result<_> {
        let rows: Vec<_> = tx.kv_scan(run, "")?.collect::<Result<_>>()?;
        let keys: Vec<_> = rows.into_iter().map(|(key, found)| (key, found.value)).collect();
        let events: Vec<_> = tx.event_read(run, "log", 0)?.collect::<Result<_>>()?;
        let payloads: Vec<_> = events.into_iter().map(|event| event.payload).collect();
        let a = tx.kv_get(run, "a")?.map(|found| found.value);
        Ok((keys, payloads, a, tx.signal(run, "s", "e")?.map(|signal| signal.count)))
    };
    let ((child, grandchild, seen), _) = db.transaction(|tx| {
        tx.kv_put(parent, "a", 2)?;
        let child = tx.fork_run("p", "c")?;
        tx.kv_delete(parent, "b")?;
        tx.kv_put(child, "c", 3)?;
        tx.event_append(child, "log", "of the child")?;
        tx.signal_record_at(child, "s", "e", 2.0, THEN)?;
        let grandchild = tx.fork_run("c", "g")?;
        tx.kv_put(grandchild, "d", 4)?;
        let seen = [look(tx, parent)?, look(tx, child)?, look(tx, grandchild)?];
        Ok((child, grandchild, seen))
    })?;
    let runs = [parent, child, grandchild];
    let mut tx = db.begin()?;
    for (run, seen) in runs.into_iter().zip(seen) {
        assert_eq!(look(&mut tx, run)?, seen, "as it was inside");
    }
    let counts = [(1, 1, Some(1)), (2, 2, Some(2)), (3, 2, Some(2))];
    for (run, (keys, events, count)) in runs.into_iter().zip(counts) {
        let found = look(&mut tx, run)?;
        assert_eq!((found.0.len(), found.1.len(), found.3), (keys, events, count));
        assert_eq!(found.2, Some(Value::Int(2)));
        assert_eq!(db.view()?.event_verify_all(run)?, 1);
    }
    Ok(())
}

#[test]
fn who_reads_the_parent_through_a_fork_that_is_being_made_conflicts_with_its_writers() -> Result<()>
{
    let db = Database::in_memory()?;
    let parent = db.create_run("p")?;
    db.kv_put(parent, "a", 1)?;
    for scan in [false, true] {
        let mut tx = db.begin()?;
        let child = tx.fork_run("p", &format!("c{scan}"))?;
        let found = match scan {
            false => tx.kv_get(child, "a")?.unwrap().value.as_int().unwrap(),
            true => tx.kv_scan(child, "")?.next().unwrap()?.1.value.as_int().unwrap(),
        };
        tx.kv_put(child, "copy", found)?;
        db.kv_put(parent, "a", 2)?;
        assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Conflict, "scan: {scan}");
    }
    // A fork that reads nothing takes what is there when it commits.
    let mut tx = db.begin()?;
    let child = tx.fork_run("p", "c")?;
    db.kv_put(parent, "a", 3)?;
    tx.commit()?;
    assert_eq!(db.kv_get(child, "a")?.unwrap().value, Value::Int(3));
    Ok(())
}

#[test]
fn a_parent_that_is_deleted_meanwhile_is_not_forked() -> Result<()> {
    let db = Database::in_memory()?;
    db.create_run("p")?;
    let mut tx = db.begin()?;
    tx.fork_run("p", "c")?;
    db.delete_run("p")?;
    assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(db.fork_run("p", "c").unwrap_err().kind(), ErrorKind::NotFound);
    db.create_run("p")?;
    db.create_run("c")?;
    assert_eq!(db.fork_run("p", "c").unwrap_err().kind(), ErrorKind::Conflict);
    let both = db.transaction(|tx| {
        tx.fork_run("p", "d")?;
        tx.delete_run("p")
    });
    assert_eq!(both.unwrap_err().kind(), ErrorKind::Invalid);
    Ok(())
}

#[test]
fn events_go_on_with_the_chain_of_the_parent() -> Result<()> {
    let db = Database::in_memory()?;
    let parent = db.create_run("p")?;
    let once = AppendOptions { idempotency_key: Some("k".into()), ..AppendOptions::default() };
    let (original, receipt) = db.event_append_with(parent, "s", 0, &once)?;
    db.event_append(parent, "s", 1)?;
    db.state_init(parent, "cell", 5)?;
    let child = db.fork_run("p", "c")?;
    let head = db.event_head(parent, "s")?.unwrap();
    let again = db.event_append_with(child, "s", 9, &once)?.0;
    assert_eq!((again.seq, again.original), (original.seq, Some(receipt.version())));
    let exact = AppendOptions { expect: Expect::Exact(1), ..AppendOptions::default() };
    for n in 2..6 {
        let options = if n == 2 { exact.clone() } else { AppendOptions::default() };
        assert_eq!(db.event_append_with(child, "s", n, &options)?.0.seq, n as u64);
    }
    db.event_append(parent, "s", 20)?;
    let payloads = |run, from| -> Result<Vec<i64>> {
        let events = db.event_read(run, "s", from)?;
        events.map(|event| Ok(event?.payload.as_int().unwrap())).collect()
    };
    assert_eq!(payloads(child, 0)?, [0, 1, 2, 3, 4, 5]);
    assert_eq!(payloads(child, 1)?, [1, 2, 3, 4, 5]);
    assert_eq!(payloads(parent, 0)?, [0, 1, 20]);
    db.event_verify_against(child, "s", &head)?;
    let own = db.event_head(child, "s")?.unwrap();
    assert_eq!(db.event_verify(child, "s")?, Some(own));
    assert!(db.event_verify_against(parent, "s", &own).is_err(), "it went its own way");
    let stale = db.state_cas(child, "cell", Version(1), 6).unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Conflict);
    let cell = db.state_read(child, "cell")?.unwrap();
    db.state_cas(child, "cell", cell.version, 6)?;
    assert_eq!(db.state_read(parent, "cell")?.unwrap().value, Value::Int(5));
    Ok(())
}

#[test]
fn a_signal_goes_on_from_what_the_parent_had() -> Result<()> {
    let db = Database::in_memory()?;
    let parent = db.create_run("p")?;
    db.signal_record_at(parent, "s", "e", 4.0, THEN)?;
    let child = db.fork_run("p", "c")?;
    db.signal_record_at(parent, "s", "e", 100.0, THEN)?;
    // Two that touch it first at the same time.
    let (mut one, mut other) = (db.begin()?, db.begin()?);
    one.signal_record_at(child, "s", "e", 2.0, THEN)?;
    other.signal_record_at(child, "s", "e", 1.0, THEN)?;
    one.commit()?;
    assert_eq!(other.commit().unwrap_err().kind(), ErrorKind::Conflict);
    db.signal_record_at(child, "s", "e", 1.0, THEN)?;
    db.signal_record_at(child, "s", "new", 1.0, THEN)?;
    let signal = db.signal(child, "s", "e")?.unwrap();
    assert_eq!((signal.count, signal.score), (3, 7.0));
    assert_eq!(db.view()?.signal_scan(child, "s")?.count(), 2);
    assert_eq!(db.signal(parent, "s", "e")?.unwrap().count, 2);
    assert_eq!(db.view()?.signal_versions(child, "s", "e")?.last().unwrap().version(), Version(2));
    Ok(())
}

/// The items of a set, the names of all sets, and counts of the rest.
type Kinds = (Vec<Vec<u8>>, Vec<String>, [u64; 4]);

/// What a run has of sets, entities, a cohort and a graph.
fn kinds(view: &View, run: Run) -> Result<Kinds> {
    let items = view.collection_items(run, "set", "")?.collect::<Result<_>>()?;
    let edges = view.co_engaged(run, "g", "x", 9)?;
    let counts = [
        view.attributes_scan(run, "")?.count() as u64,
        view.cohort_count(run, "adults", "s", Window::AllTime)?,
        view.cohort_members(run, "adults")?.count() as u64,
        edges.iter().map(|edge| edge.weight as u64).sum(),
    ];
    Ok((items, view.collections(run)?, counts))
}

#[test]
fn sets_attributes_cohorts_and_graphs_of_a_parent_are_changed_in_a_fork_alone() -> Result<()> {
    let home = tempfile::tempdir().unwrap();
    let db = Database::create(home.path().join("db"), DatabaseConfig::buffered())?;
    db.define_cohort("adults", 1, &Predicate::ge("age", 18))?;
    let parent = db.create_run("p")?;
    for item in ["a", "b"] {
        db.collection_add(parent, "set", item)?;
    }
    db.collection_create(parent, "empty")?;
    for (entity, age) in [("ada", 36), ("bob", 40)] {
        db.attribute_set(parent, entity, "age", age)?;
        db.signal_record_at(parent, "s", entity, 1.0, THEN)?;
    }
    db.engage(parent, "g", "ada", "x")?;
    db.engage(parent, "g", "ada", "y")?;
    let look = |run| kinds(&db.view()?, run);
    let before = look(parent)?;
    assert_eq!(before.1, ["empty", "set"]);
    assert_eq!(before.2, [2, 2, 2, 1]);
    let (child, emptied) = (db.fork_run("p", "c")?, db.fork_run("p", "e")?);
    assert_eq!((look(child)?, look(emptied)?), (before.clone(), before.clone()));

    // Changed where it came from above, and from beneath.
    assert!(!db.collection_add(child, "set", "a")?.0, "it is there, beneath");
    assert!(db.collection_remove(child, "set", "b")?.0);
    assert!(db.collection_add(child, "set", "c")?.0);
    db.attribute_set(child, "bob", "age", 3)?;
    db.signal_record_at(child, "s", "ada", 1.0, THEN)?;
    db.signal_record_at(child, "s", "bob", 1.0, THEN)?;
    db.engage(child, "g", "ada", "z")?;
    assert_eq!(db.collection_delete(emptied, "set")?.0, 2);
    assert_eq!(db.collection_delete(emptied, "empty")?.0, 1);
    for entity in ["ada", "bob"] {
        db.attributes_delete(emptied, entity)?;
    }
    let of_child =
        (vec![b"a".to_vec(), b"c".to_vec()], vec!["empty".to_owned(), "set".into()], [2, 3, 1, 2]);
    let of_emptied = (vec![], vec![], [0, 2, 0, 1]);
    for round in 0..2 {
        assert_eq!(look(parent)?, before, "round {round}");
        assert_eq!(look(child)?, of_child, "round {round}");
        assert_eq!(look(emptied)?, of_emptied, "round {round}");
        db.compact(CompactMode::Full)?;
    }

    // And what becomes of the parent is nothing to them.
    assert_eq!(db.collection_delete(parent, "set")?.0, 2);
    db.attributes_delete(parent, "ada")?;
    db.engage(parent, "g", "ada", "w")?;
    db.delete_run("e")?;
    db.compact(CompactMode::Full)?;
    assert_eq!(look(child)?, of_child);
    db.delete_run("p")?;
    db.compact(CompactMode::Full)?;
    assert_eq!(look(child)?, of_child);
    db.close()?;
    let db = Database::open(home.path().join("db"))?;
    assert_eq!(kinds(&db.view()?, db.resolve_run("c")?)?, of_child);
    Ok(())
}

#[test]
fn a_stream_is_trimmed_in_a_fork_or_in_its_parent_alone() -> Result<()> {
    let home = tempfile::tempdir().unwrap();
    let db = Database::create(home.path().join("db"), DatabaseConfig::buffered())?;
    let parent = db.create_run("p")?;
    let keyed = |n: i64| AppendOptions {
        idempotency_key: Some(format!("key-{n}")),
        ..AppendOptions::default()
    };
    for n in 0..10 {
        db.event_append_with(parent, "s", n, &keyed(n))?;
    }
    let head = db.event_head(parent, "s")?.unwrap();
    // Before the fork.
    db.event_trim(parent, "s", 2)?;
    let (child, other) = (db.fork_run("p", "c")?, db.fork_run("p", "o")?);
    // Behind it: in the parent, and in one child.
    db.event_trim(parent, "s", 6)?;
    db.event_trim(child, "s", 4)?;
    db.event_append(parent, "s", 100)?;
    db.event_append(child, "s", 200)?;
    let seqs = |db: &Database, run: &str| -> Result<Vec<u64>> {
        let run = db.resolve_run(run)?;
        let view = db.view()?;
        assert_eq!(view.event_verify_all(run)?, 1);
        let kept = view.event_verify_against(run, "s", &head).map(drop);
        match view.event_stream(run, "s")?.oldest() {
            // A head inside of what was trimmed cannot be looked for.
            11.. => assert_eq!(kept.unwrap_err().kind(), ErrorKind::HistoryTrimmed),
            _ => kept?,
        }
        let error = view.event_read(run, "s", 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HistoryTrimmed);
        let listed = view.entries(run).collect::<Result<Vec<_>>>()?;
        let listed = listed.iter().filter(|entry| matches!(entry, Entry::Event { .. })).count();
        let read = view.event_read_range(run, "s", ..)?.map(|event| Ok(event?.seq));
        let read = read.collect::<Result<Vec<_>>>()?;
        assert_eq!(read.len(), listed);
        Ok(read)
    };
    let check = |db: &Database| -> Result<()> {
        assert_eq!(seqs(db, "p")?, (6..11).collect::<Vec<_>>());
        assert_eq!(seqs(db, "c")?, (4..11).collect::<Vec<_>>());
        assert_eq!(seqs(db, "o")?, (2..10).collect::<Vec<_>>());
        Ok(())
    };
    check(&db)?;
    db.compact(CompactMode::Full)?;
    check(&db)?;
    // Of an event that is gone everywhere, and of one that the others have.
    for (run, n) in [(child, 0), (child, 3), (other, 0), (parent, 5)] {
        let again = db.event_append_with(run, "s", n, &keyed(n))?.0;
        assert!(again.original.is_some(), "key {n}");
        assert_eq!(again.seq, n.cast_unsigned());
    }
    check(&db)?;
    db.close()?;
    let db = Database::open(home.path().join("db"))?;
    check(&db)?;
    // Without the parent, and trimmed further.
    db.delete_run("p")?;
    let (child, other) = (db.resolve_run("c")?, db.resolve_run("o")?);
    assert_eq!(db.event_trim(child, "s", 11)?.0, 7);
    assert_eq!(db.event_append(child, "s", 300)?.0, 11);
    db.compact(CompactMode::Full)?;
    assert_eq!(seqs(&db, "c")?, [11]);
    assert_eq!(seqs(&db, "o")?, (2..10).collect::<Vec<_>>());
    // Alone, as a file.
    let file = home.path().join("o.run");
    db.export_run(other, &file)?;
    let elsewhere = Database::create(home.path().join("elsewhere"), DatabaseConfig::buffered())?;
    elsewhere.import_run(&file, None)?;
    assert_eq!(seqs(&elsewhere, "o")?, (2..10).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn a_stream_that_a_fork_trimmed_to_its_end_goes_on_behind_it() -> Result<()> {
    let home = tempfile::tempdir().unwrap();
    let db = Database::create(home.path().join("db"), DatabaseConfig::buffered())?;
    let parent = db.create_run("p")?;
    db.event_append(parent, "s", 0)?;
    let child = db.fork_run("p", "c")?;
    db.event_append(child, "s", 1)?;
    let head = db.event_head(child, "s")?;
    db.event_trim(child, "s", 2)?;
    db.compact(CompactMode::Full)?;
    assert_eq!(db.event_head(child, "s")?, head, "not what is still there beneath");
    let (mut one, mut other) = (db.begin()?, db.begin()?);
    assert_eq!(one.event_append(child, "s", 2)?, 2);
    assert_eq!(other.event_append(child, "s", 2)?, 2);
    one.commit()?;
    assert_eq!(other.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(db.event_verify_against(child, "s", &head.unwrap())?.unwrap().seq, 2);
    assert_eq!(db.event_head(parent, "s")?.unwrap().seq, 0);
    Ok(())
}

#[test]
fn a_deleted_parent_is_hidden_and_its_bytes_go_with_the_last_child() -> Result<()> {
    let db = Database::in_memory()?;
    let parent = db.create_run("p")?;
    for n in 0..200 {
        db.kv_put(parent, format!("k{n:03}"), n)?;
    }
    let (one, two) = (db.fork_run("p", "one")?, db.fork_run("p", "two")?);
    let held =
        |db: &Database| Ok::<_, steadfast_engine::Error>(db.stats()?.held_for_forks_bytes.unwrap());
    assert_eq!(held(&db)?, 0, "nothing is held: it is there itself");
    db.delete_run("p")?;
    assert!(db.resolve_run("p").is_err());
    db.compact(CompactMode::Full)?;
    let bytes = held(&db)?;
    assert!(bytes > 200 * 5, "{bytes}");
    assert_eq!(now(&db, one)?.len(), 200);
    db.delete_run("one")?;
    db.compact(CompactMode::Full)?;
    assert_eq!(held(&db)?, bytes, "the other one still needs all of it");
    assert_eq!(now(&db, two)?.len(), 200);
    let view = db.view()?;
    db.delete_run("two")?;
    db.compact(CompactMode::Full)?;
    assert_eq!(values(&view, two, "k")?.len(), 200, "a view that was open goes on");
    assert_eq!(view.kv_get(two, "k007")?.unwrap().value, Value::Int(7));
    drop(view);
    db.compact(CompactMode::Full)?;
    assert_eq!(held(&db)?, 0);
    let versions = db.stats()?.store.versions;
    assert!(versions < 10, "{versions} versions are left, of three graves");
    Ok(())
}

#[test]
fn the_past_of_a_deleted_fork_is_there_as_long_as_retention_says() -> Result<()> {
    for keep_all in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let retention = if keep_all { Retention::KeepAll } else { Retention::default() };
        let config = DatabaseConfig::buffered().retention(retention).manual_checkpoints();
        let db = Database::create(home.path().join("db"), config)?;
        let parent = db.create_run("p")?;
        db.kv_put(parent, "k", 1)?;
        let child = db.fork_run("p", "c")?;
        db.kv_put(child, "other", 1)?;
        let then = db.current_version();
        db.kv_put(parent, "k", 2)?;
        db.delete_run("c")?;
        db.compact(CompactMode::Full)?;
        let found = db.view_at(then).and_then(|view| view.kv_get(child, "k"));
        match keep_all {
            true => assert_eq!(found?.unwrap().value, Value::Int(1)),
            false => assert_eq!(found.unwrap_err().kind(), ErrorKind::HistoryTrimmed),
        }
    }
    Ok(())
}

#[test]
fn an_exported_fork_stands_alone_and_its_chains_hold() -> Result<()> {
    let home = tempfile::tempdir().unwrap();
    let db = Database::create(home.path().join("db"), DatabaseConfig::buffered())?;
    let parent = db.create_run("p")?;
    db.event_append(parent, "s", 0)?;
    db.kv_put(parent, "a", 1)?;
    db.kv_put(parent, "gone", 1)?;
    let child = db.fork_run("p", "c")?;
    db.event_append(child, "s", 1)?;
    db.kv_delete(child, "gone")?;
    db.kv_put(child, "b", 2)?;
    let grandchild = db.fork_run("c", "g")?;
    db.event_append(grandchild, "s", 2)?;
    db.signal_record_at(grandchild, "n", "e", 1.0, THEN)?;
    let file = home.path().join("g.run");
    db.export_run(grandchild, &file)?;
    let other = Database::create(home.path().join("other"), DatabaseConfig::buffered())?;
    other.create_run("first")?;
    let run = other.import_run(&file, None)?;
    assert_eq!(run.id(), grandchild.id());
    assert_eq!(now(&other, run)?, pairs(&[("a", 1), ("b", 2)]));
    assert_eq!(other.event_read(run, "s", 0)?.count(), 3);
    assert_eq!(other.event_head(run, "s")?, db.event_head(grandchild, "s")?);
    assert_eq!(other.view()?.event_verify_all(run)?, 1);
    let info = other.run_info("g")?;
    assert_eq!((info.parent, &info.ancestors[..]), (None, &[parent.id(), child.id()][..]));
    other.close()?;
    let other = Database::open(home.path().join("other"))?;
    let run = other.resolve_run("g")?;
    other.event_append(run, "s", 3)?;
    let fork = other.fork_run("g", "h")?;
    other.event_append(fork, "s", 4)?;
    assert_eq!(other.view()?.event_verify_all(fork)?, 1);
    let again = home.path().join("h.run");
    other.export_run(fork, &again)?;
    let there = db.import_run(&again, None)?;
    assert_eq!(db.view()?.event_verify_all(there)?, 1);
    Ok(())
}

#[test]
fn only_what_differs_from_the_parent_is_a_difference() -> Result<()> {
    let db = Database::in_memory()?;
    let parent = db.create_run("p")?;
    for n in 0..50 {
        db.kv_put(parent, format!("k{n}"), n)?;
    }
    db.event_append(parent, "s", 0)?;
    let child = db.fork_run("p", "c")?;
    assert_eq!(db.diff_runs(parent, child)?.count(), 0);
    db.kv_delete(child, "k1")?;
    db.kv_put(child, "k2", 20)?;
    db.event_append(child, "s", 1)?;
    let found: Vec<_> = db.diff_runs(parent, child)?.collect::<Result<_>>()?;
    let [Difference::Removed(_), Difference::Changed { .. }, Difference::Added(added)] = &found[..]
    else {
        panic!("{found:?}")
    };
    assert!(matches!(added, Entry::Event { event, .. } if event.seq == 1));
    Ok(())
}

#[test]
fn a_fork_and_its_parent_come_back_after_closing_checkpoints_and_backup() -> Result<()> {
    let home = tempfile::tempdir().unwrap();
    let config = || DatabaseConfig::buffered().manual_checkpoints();
    let check = |db: &Database| -> Result<()> {
        let (parent, child) = (db.resolve_run("p")?, db.resolve_run("c")?);
        assert_eq!(now(db, child)?, pairs(&[("a", 1), ("b", 20)]));
        assert_eq!(db.kv_get(child, "a")?.unwrap().value, Value::Int(1));
        assert_eq!(db.kv_get(child, "gone")?, None);
        assert_eq!(now(db, parent)?, pairs(&[("a", 3), ("b", 2), ("gone", 1)]));
        assert_eq!(db.run_info("c")?.parent.unwrap().id, parent.id());
        Ok(())
    };
    let path = home.path().join("db");
    let db = Database::create(&path, config())?;
    let parent = db.create_run("p")?;
    for (key, n) in [("a", 1), ("b", 2), ("gone", 1)] {
        db.kv_put(parent, key, n)?;
    }
    db.checkpoint()?;
    let child = db.fork_run("p", "c")?;
    db.kv_put(parent, "a", 2)?;
    db.kv_put(parent, "a", 3)?;
    db.kv_put(child, "b", 20)?;
    db.kv_delete(child, "gone")?;
    check(&db)?;
    drop(db);
    for round in 0..3 {
        let db = Database::open_existing(&path, config())?;
        check(&db)?;
        db.backup(home.path().join(format!("backup-{round}")))?;
        check(&Database::open_read_only(home.path().join(format!("backup-{round}")))?)?;
        check(&Database::open_read_only(&path)?)?;
        match round {
            0 => db.checkpoint().map(drop)?,
            _ => db.compact(CompactMode::Full).map(drop)?,
        }
        check(&db)?;
        db.close()?;
    }
    Ok(())
}

/// The parent's sections come before the one that says that there is a fork.
#[test]
fn a_parent_of_many_sections_is_kept_while_it_is_loaded() -> Result<()> {
    let home = tempfile::tempdir().unwrap();
    let config = || DatabaseConfig::buffered().manual_checkpoints();
    let open = || {
        let builder = Database::builder(home.path()).config(config());
        builder.without_threads().open()
    };
    let db = open()?;
    let parent = db.create_run("p")?;
    let fill = |db: &Database, from: i64| {
        db.transaction(|tx| {
            (0..2_000).try_for_each(|n| {
                let row = vec![Value::Int(from + n), Value::Bytes(vec![7; 1_000])];
                tx.kv_put(parent, format!("k{n:04}"), Value::List(row))
            })
        })
    };
    fill(&db, 0)?;
    db.fork_run("p", "c")?;
    db.checkpoint()?;
    fill(&db, 1_000_000)?;
    db.close()?;
    let db = open()?;
    assert!(db.stats()?.load.sections > 1);
    db.wait_loaded()?;
    let child = db.resolve_run("c")?;
    let mut rows = 0;
    for (n, row) in (0..).zip(db.kv_scan(child, "")?) {
        let Value::List(parts) = row?.1.value else { panic!("row {n}") };
        assert_eq!(parts[0], Value::Int(n));
        rows += 1;
    }
    assert_eq!(rows, 2_000);
    Ok(())
}

#[test]
fn followers_are_told_of_a_fork() -> Result<()> {
    let home = tempfile::tempdir().unwrap();
    let db = Database::create(home.path().join("db"), DatabaseConfig::strict())?;
    let parent = db.create_run("p")?;
    db.kv_put(parent, "a", 1)?;
    db.fork_run("p", "c")?;
    let mut told = Vec::new();
    for commit in db.tail(Version::ZERO)?.by_ref().take(3) {
        for change in commit?.changes() {
            told.push(change?);
        }
    }
    let Some(steadfast_engine::Change::Run(info)) = told.last() else { panic!("{told:?}") };
    assert_eq!((info.name.as_str(), info.parent.unwrap().id), ("c", parent.id()));
    Ok(())
}

// ---- Against plain maps ------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    /// Expires after so many seconds.
    PutExpiring(u8, u8, u8),
    Delete(u8, u8),
    Append(u8, u8),
    /// To begin with a part of so many of what there is, in tenths.
    Trim(u8, u8, u8),
    Collect(u8, u8, u8),
    Uncollect(u8, u8, u8),
    Uncollected(u8, u8),
    /// Or no attributes any more.
    Level(u8, u8, Option<i64>),
    Engage(u8, u8, u8),
    Set(u8),
    Signal(u8, u8),
    Create(u8),
    Fork(u8, u8),
    DeleteRun(u8),
    Tick(u8),
    View,
    Checkpoint,
    Compact,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let (run, key) = (|| 0..5u8, || 0..6u8);
    prop_oneof![
        6 => (run(), key()).prop_map(|(run, key)| Step::Put(run, key)),
        2 => (run(), key(), 1..20u8).prop_map(|(run, key, ttl)| Step::PutExpiring(run, key, ttl)),
        4 => (run(), key()).prop_map(|(run, key)| Step::Delete(run, key)),
        4 => (run(), 0..2u8).prop_map(|(run, stream)| Step::Append(run, stream)),
        2 => (run(), 0..2u8, 0..=10u8).prop_map(|(run, stream, n)| Step::Trim(run, stream, n)),
        2 => (run(), 0..2u8, key()).prop_map(|(run, name, item)| Step::Collect(run, name, item)),
        1 => (run(), 0..2u8, key()).prop_map(|(run, name, item)| Step::Uncollect(run, name, item)),
        1 => (run(), 0..2u8).prop_map(|(run, name)| Step::Uncollected(run, name)),
        2 => (run(), 0..2u8, prop::option::of(0..4i64))
            .prop_map(|(run, entity, level)| Step::Level(run, entity, level)),
        2 => (run(), 0..2u8, 0..4u8).prop_map(|(run, actor, item)| Step::Engage(run, actor, item)),
        2 => run().prop_map(Step::Set),
        3 => (run(), 0..2u8).prop_map(|(run, entity)| Step::Signal(run, entity)),
        2 => run().prop_map(Step::Create),
        6 => (run(), run()).prop_map(|(parent, child)| Step::Fork(parent, child)),
        2 => run().prop_map(Step::DeleteRun),
        1 => (1..10u8).prop_map(Step::Tick),
        1 => Just(Step::View),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Compact),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Plain {
    keys: BTreeMap<u8, (i64, Option<Timestamp>)>,
    /// The sequence number of the oldest event, and all from there on.
    streams: BTreeMap<u8, (u64, Vec<i64>)>,
    cell: Option<i64>,
    signals: BTreeMap<u8, u64>,
    sets: BTreeMap<u8, BTreeSet<u8>>,
    levels: BTreeMap<u8, i64>,
    /// Observations of those of level 2 or more.
    counted: u64,
    /// What an actor engaged with, newest first.
    recent: BTreeMap<u8, Vec<u8>>,
    edges: BTreeMap<(u8, u8), u64>,
}

type Model = BTreeMap<u8, Plain>;

impl Plain {
    fn at(mut self, now: Timestamp) -> Self {
        self.keys.retain(|_, (_, expiry)| expiry.is_none_or(|expiry| now < expiry));
        self.keys.values_mut().for_each(|value| value.1 = None);
        self
    }

    fn engage(&mut self, actor: u8, item: u8) {
        let recent = self.recent.entry(actor).or_default();
        recent.retain(|other| *other != item);
        for other in recent.iter() {
            *self.edges.entry((item, *other)).or_default() += 1;
            *self.edges.entry((*other, item)).or_default() += 1;
        }
        recent.insert(0, item);
    }

    /// How many rows a listing of everything has.
    fn rows(&self) -> usize {
        let trimmed = self.streams.values().filter(|stream| stream.0 > 0).count();
        let with_edges: BTreeSet<u8> = self.edges.keys().map(|(item, _)| *item).collect();
        self.keys.len()
            + self.streams.values().map(|stream| stream.1.len()).sum::<usize>()
            + trimmed
            + usize::from(self.cell.is_some())
            + self.signals.len()
            + self.sets.values().map(BTreeSet::len).sum::<usize>()
            + self.levels.len()
            + usize::from(self.counted > 0)
            + self.recent.len()
            + with_edges.len()
    }
}

fn found(db: &Database, view: &View, run: Run, latest: bool) -> Result<Plain> {
    let mut plain = Plain::default();
    for (key, n) in values(view, run, "k")? {
        plain.keys.insert(key.as_bytes()[1] - b'0', (n, None));
    }
    for n in 0..6u8 {
        let key = format!("k{n}");
        let one = view.kv_get(run, &key)?.map(|found| found.value.as_int().unwrap());
        assert_eq!(one, plain.keys.get(&n).map(|value| value.0), "{key}");
        let mut within = values(view, run, &key)?;
        assert_eq!(within.pop().map(|pair| pair.1), one, "{key}, as a range");
        if latest {
            let now = db.kv_get(run, &key)?.map(|found| found.value.as_int().unwrap());
            assert_eq!(now, one, "{key}, without a view");
        }
    }
    view.event_verify_all(run)?;
    for name in view.event_streams(run)? {
        let events = view.events(run, &name)?;
        plain.streams.insert(number(&name), events);
    }
    plain.cell = view.state_read(run, "c")?.map(|cell| cell.value.as_int().unwrap());
    for row in view.signal_scan(run, "s")? {
        let (entity, signal) = row?;
        plain.signals.insert(entity[0] - b'0', signal.count);
    }
    for name in view.collections(run)? {
        let items = view.collection_items(run, &name, "")?;
        let items = items.map(|item| Ok(number(&item?))).collect::<Result<BTreeSet<_>>>()?;
        for n in 0..6u8 {
            let is_in = view.collection_contains(run, &name, n.to_string())?;
            assert_eq!(is_in, items.contains(&n), "{n} in {name}");
        }
        plain.sets.insert(number(name.as_bytes()), items);
    }
    for row in view.attributes_scan(run, "")? {
        let (entity, attributes) = row?;
        assert_eq!(view.attributes(run, &entity)?.as_ref(), Some(&attributes));
        plain.levels.insert(number(&entity), attributes["level"].as_int().unwrap());
    }
    plain.counted = view.cohort_count(run, "high", "s", Window::AllTime)?;
    for n in 0..4u8 {
        let recent = view.engaged(run, "g", n.to_string())?;
        if !recent.is_empty() {
            plain.recent.insert(n, recent.iter().map(|item| number(item)).collect());
        }
        for edge in view.co_engaged(run, "g", n.to_string(), 100)? {
            plain.edges.insert((n, number(&edge.item)), edge.weight as u64);
        }
    }
    let entries = view.entries(run).collect::<Result<Vec<_>>>()?;
    assert_eq!(entries.len(), plain.rows(), "{entries:?}");
    Ok(plain)
}

/// What a name of one digit is the name of.
fn number(name: &[u8]) -> u8 {
    name[0] - b'0'
}

trait Payloads {
    fn events(&self, run: Run, stream: &[u8]) -> Result<(u64, Vec<i64>)>;
}

impl Payloads for View {
    fn events(&self, run: Run, stream: &[u8]) -> Result<(u64, Vec<i64>)> {
        let name = std::str::from_utf8(stream).unwrap();
        let oldest = self.event_stream(run, name)?.oldest();
        if oldest > 0 {
            let error = self.event_read(run, name, oldest - 1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::HistoryTrimmed);
        }
        let payload = |event: steadfast_engine::Event| event.payload.as_int().unwrap();
        let forward: Vec<_> =
            self.event_read(run, name, oldest)?.map(|e| e.map(payload)).collect::<Result<_>>()?;
        let mut backward: Vec<_> = self
            .event_read(run, name, oldest)?
            .rev()
            .map(|e| e.map(payload))
            .collect::<Result<_>>()?;
        backward.reverse();
        assert_eq!(forward, backward);
        assert_eq!(self.event_last(run, name)?, Some(oldest + forward.len() as u64 - 1));
        Ok((oldest, forward))
    }
}

fn check(db: &Database, view: &View, model: &Model, latest: bool) -> Result<()> {
    let names: Vec<_> = view.list_runs()?.into_iter().map(|info| info.name).collect();
    assert_eq!(names, model.keys().map(u8::to_string).collect::<Vec<_>>());
    for (name, plain) in model {
        let run = view.resolve_run(&name.to_string())?;
        assert_eq!(found(db, view, run, latest)?, plain.clone().at(view.now()), "run {name}");
    }
    Ok(())
}

fn open(path: &Path, clock: &ManualClock, retention: Retention) -> Result<Database> {
    Database::builder(path)
        .config(DatabaseConfig::buffered().manual_checkpoints().retention(retention))
        .clock(clock.clone())
        .without_threads()
        .open()
}

/// Does `steps`, each checked; where all history is kept, every version is looked at in the end.
fn run_steps(steps: &[Step], retention: Retention) -> Result<()> {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("db");
    let clock = ManualClock::at(START);
    let mut db = open(&path, &clock, retention)?;
    db.define_cohort("high", 1, &Predicate::ge("level", 2))?;
    let mut past: Vec<(Version, Model)> = Vec::new();
    let (mut model, mut n) = (Model::new(), 0);
    let mut old: Option<(View, Model)> = None;
    for step in steps {
        n += 1;
        let name = |run: &u8| run.to_string();
        let run = |run: &u8| db.resolve_run(&name(run));
        match step {
            Step::Put(r, key) if model.contains_key(r) => {
                db.kv_put(run(r)?, format!("k{key}"), n)?;
                model.get_mut(r).unwrap().keys.insert(*key, (n, None));
            }
            Step::PutExpiring(r, key, seconds) if model.contains_key(r) => {
                let expiry =
                    db.view()?.now().after(std::time::Duration::from_secs((*seconds).into()));
                db.kv_put_expiring(run(r)?, format!("k{key}"), n, expiry)?;
                model.get_mut(r).unwrap().keys.insert(*key, (n, Some(expiry)));
            }
            Step::Delete(r, key) if model.contains_key(r) => {
                db.kv_delete(run(r)?, format!("k{key}"))?;
                model.get_mut(r).unwrap().keys.remove(key);
            }
            Step::Append(r, stream) if model.contains_key(r) => {
                db.event_append(run(r)?, &stream.to_string(), n)?;
                model.get_mut(r).unwrap().streams.entry(*stream).or_default().1.push(n);
            }
            Step::Trim(r, stream, tenths) if model.contains_key(r) => {
                let streams = &mut model.get_mut(r).unwrap().streams;
                let Some((oldest, events)) = streams.get_mut(stream) else { continue };
                let gone = events.len() * usize::from(*tenths) / 10;
                *oldest += gone as u64;
                let (found, _) = db.event_trim(run(r)?, &stream.to_string(), *oldest)?;
                assert_eq!(found, gone as u64);
                events.drain(..gone);
            }
            Step::Collect(r, set, item) if model.contains_key(r) => {
                let items = model.get_mut(r).unwrap().sets.entry(*set).or_default();
                let new = db.collection_add(run(r)?, &set.to_string(), item.to_string())?.0;
                assert_eq!(new, items.insert(*item));
            }
            Step::Uncollect(r, set, item) if model.contains_key(r) => {
                let sets = &mut model.get_mut(r).unwrap().sets;
                let there = sets.get_mut(set).is_some_and(|items| items.remove(item));
                let removed = db.collection_remove(run(r)?, &set.to_string(), item.to_string())?;
                assert_eq!(removed.0, there);
                sets.retain(|_, items| !items.is_empty());
            }
            Step::Uncollected(r, set) if model.contains_key(r) => {
                let gone = model.get_mut(r).unwrap().sets.remove(set).unwrap_or_default();
                let removed = db.collection_delete(run(r)?, &set.to_string())?.0;
                assert_eq!(removed, gone.len() as u64);
            }
            Step::Level(r, entity, level) if model.contains_key(r) => {
                let levels = &mut model.get_mut(r).unwrap().levels;
                let name = entity.to_string();
                match level {
                    Some(level) => {
                        db.attribute_set(run(r)?, name, "level", *level)?;
                        levels.insert(*entity, *level);
                    }
                    None => {
                        db.attributes_delete(run(r)?, name)?;
                        levels.remove(entity);
                    }
                }
            }
            Step::Engage(r, actor, item) if model.contains_key(r) => {
                let (actor_name, item_name, run) = (actor.to_string(), item.to_string(), run(r)?);
                db.transaction(|tx| tx.engage_at(run, "g", &actor_name, &item_name, THEN))?;
                model.get_mut(r).unwrap().engage(*actor, *item);
            }
            Step::Set(r) if model.contains_key(r) => {
                db.state_set(run(r)?, "c", n)?;
                model.get_mut(r).unwrap().cell = Some(n);
            }
            Step::Signal(r, entity) if model.contains_key(r) => {
                db.signal_record_at(run(r)?, "s", entity.to_string(), 1.0, THEN)?;
                let plain = model.get_mut(r).unwrap();
                *plain.signals.entry(*entity).or_default() += 1;
                plain.counted += u64::from(plain.levels.get(entity).is_some_and(|n| *n >= 2));
            }
            Step::Create(r) if !model.contains_key(r) => {
                db.create_run(&name(r))?;
                model.insert(*r, Plain::default());
            }
            Step::Fork(parent, child)
                if model.contains_key(parent) && !model.contains_key(child) =>
            {
                match db.fork_run(&name(parent), &name(child)) {
                    Ok(_) => drop(model.insert(*child, model[parent].clone())),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid, "{error}"),
                }
            }
            Step::DeleteRun(r) if model.contains_key(r) => {
                db.delete_run(&name(r))?;
                model.remove(r);
            }
            Step::Tick(seconds) => {
                clock.advance(std::time::Duration::from_secs((*seconds).into()));
            }
            Step::View => old = Some((db.view()?, model.clone())),
            Step::Checkpoint => db.checkpoint().map(drop)?,
            Step::Compact => db.compact(CompactMode::Full).map(drop)?,
            Step::Reopen => {
                old = None;
                drop(db);
                db = open(&path, &clock, retention)?;
            }
            _ => continue,
        }
        check(&db, &db.view()?, &model, true)?;
        if let Some((view, model)) = &old {
            check(&db, view, model, false)?;
        }
        past.push((db.current_version(), model.clone()));
    }
    for _ in 0..2 {
        for (version, model) in past.iter().filter(|_| retention == Retention::KeepAll) {
            check(&db, &db.view_at(*version)?, model, false)?;
        }
        db.compact(CompactMode::Full)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_of_forks_is_what_copies_would_be(steps in prop::collection::vec(step(), 20..120)) {
        run_steps(&steps, Retention::default()).unwrap();
    }

    #[test]
    fn the_past_of_a_tree_of_forks_is_what_it_was(steps in prop::collection::vec(step(), 20..60)) {
        run_steps(&steps, Retention::KeepAll).unwrap();
    }
}
