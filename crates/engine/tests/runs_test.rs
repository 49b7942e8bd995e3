//! Runs: status, metadata, lists, deletion, differences.

use std::collections::BTreeMap;

use steadfast_engine::{
    CompactMode, Database, DatabaseConfig, Difference, Differences, DurabilityMode, Entry,
    ErrorKind, Result, Retention, Run, RunFilter, RunStatus, Timestamp, Value, Version,
};

fn metadata(fields: &[(&str, i64)]) -> BTreeMap<String, Value> {
    fields.iter().map(|(name, n)| ((*name).to_owned(), Value::Int(*n))).collect()
}

#[test]
fn a_status_goes_forward_and_never_back() -> Result<()> {
    let db = Database::in_memory()?;
    let created = db.transaction(|tx| tx.create_run("r").map(drop))?.1.version();
    let paused = db.set_run_status("r", RunStatus::Paused)?.version();
    let info = db.run_info("r")?;
    assert_eq!((info.status, info.version, info.since), (RunStatus::Paused, paused, created));
    db.set_run_status("r", RunStatus::Active)?;
    db.set_run_status("r", RunStatus::Completed)?;
    let before = db.current_version();
    db.set_run_status("r", RunStatus::Completed)?;
    assert_eq!(db.current_version(), before, "the same again writes nothing");
    for back in [RunStatus::Active, RunStatus::Paused, RunStatus::Failed] {
        let error = db.set_run_status("r", back).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
    db.set_run_status("r", RunStatus::Archived)?;
    let error = db.set_run_status("r", RunStatus::Completed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(db.run_info("r")?.status, RunStatus::Archived);
    let error = db.set_run_status("q", RunStatus::Failed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    Ok(())
}

#[test]
fn two_ends_of_one_run_conflict_and_one_of_them_holds() -> Result<()> {
    let db = Database::in_memory()?;
    db.create_run("r")?;
    let (mut one, mut other) = (db.begin()?, db.begin()?);
    one.set_run_status("r", RunStatus::Completed)?;
    other.set_run_status("r", RunStatus::Failed)?;
    one.commit()?;
    assert_eq!(other.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(db.run_info("r")?.status, RunStatus::Completed);
    Ok(())
}

#[test]
fn metadata_and_status_are_written_with_the_rest_or_not_at_all() -> Result<()> {
    let db = Database::in_memory()?;
    let run = db.create_run("r")?;
    db.set_run_metadata("r", metadata(&[("seed", 7), ("tries", 1)]))?;
    let version = db.current_version();
    let mut given_up = db.begin()?;
    given_up.set_run_metadata("r", metadata(&[("seed", 8)]))?;
    given_up.kv_put(run, "k", 1)?;
    assert_eq!(given_up.run_info("r")?.metadata, metadata(&[("seed", 8)]));
    given_up.rollback();
    assert_eq!((db.run_info("r")?.metadata.len(), db.current_version()), (2, version));
    db.transaction(|tx| {
        tx.kv_put(run, "k", 1)?;
        tx.set_run_metadata("r", metadata(&[("seed", 9)]))?;
        tx.set_run_status("r", RunStatus::Failed)
    })?;
    let info = db.run_info("r")?;
    assert_eq!((info.status, info.metadata), (RunStatus::Failed, metadata(&[("seed", 9)])));
    assert_eq!(db.kv_get(run, "k")?.unwrap().version, info.version, "one transaction");
    Ok(())
}

#[test]
fn lists_what_a_filter_asks_for() -> Result<()> {
    let db = Database::in_memory()?;
    let mut times = Vec::new();
    for name in ["a-1", "a-2", "b-1", "b-2"] {
        db.create_run(name)?;
        times.push(db.run_info(name)?.created);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    db.set_run_status("a-2", RunStatus::Failed)?;
    db.set_run_status("b-1", RunStatus::Cancelled)?;
    let names = |filter: &RunFilter| -> Result<Vec<String>> {
        Ok(db.find_runs(filter)?.into_iter().map(|info| info.name).collect())
    };
    let all = RunFilter::new();
    assert_eq!(names(&all)?, ["a-1", "a-2", "b-1", "b-2"]);
    assert_eq!(names(&all.clone().prefix("a"))?, ["a-1", "a-2"]);
    assert_eq!(names(&all.clone().prefix("c"))?, [""; 0]);
    let ended = all.clone().status(RunStatus::Failed).status(RunStatus::Cancelled);
    assert_eq!(names(&ended)?, ["a-2", "b-1"]);
    assert_eq!(names(&ended.clone().prefix("b"))?, ["b-1"]);
    assert_eq!(names(&all.clone().created(times[1], times[3]))?, ["a-2", "b-1"]);
    assert_eq!(names(&all.created(Timestamp::ZERO, times[0]))?, [""; 0]);
    Ok(())
}

#[test]
fn status_and_metadata_outlive_closing_checkpoints_and_export() -> Result<()> {
    let home = tempfile::tempdir().unwrap();
    let config = || DatabaseConfig::strict().retention(Retention::KeepAll);
    let db = Database::create(home.path().join("db"), config())?;
    let run = db.create_run("r")?;
    db.kv_put(run, "k", 1)?;
    let active = db.current_version();
    db.set_run_metadata("r", metadata(&[("seed", 7)]))?;
    db.set_run_status("r", RunStatus::Completed)?;
    let before = db.run_info("r")?;
    db.checkpoint()?;
    db.close()?;
    let db = Database::open_existing(home.path().join("db"), config())?;
    let info = db.run_info("r")?;
    assert_eq!(
        (info.status, &info.metadata, info.version, info.since, info.changed),
        (before.status, &before.metadata, before.version, Version(1), before.changed)
    );
    let then = db.view_at(active)?.run_info("r")?;
    assert_eq!((then.status, then.metadata.len()), (RunStatus::Active, 0), "as it was then");
    db.export_run(db.resolve_run("r")?, home.path().join("r.run"))?;
    let other = Database::create(home.path().join("other"), config())?;
    other.create_run("first")?;
    other.import_run(home.path().join("r.run"), None)?;
    let there = other.run_info("r")?;
    assert_eq!((there.status, there.metadata, there.id), (info.status, info.metadata, info.id));
    assert_eq!(there.since, there.version, "it is since the import that this database has it");
    Ok(())
}

fn keep_all() -> DatabaseConfig {
    DatabaseConfig::strict().retention(Retention::KeepAll).manual_checkpoints()
}

/// A run with something of every kind.
fn filled(db: &Database, name: &str, rows: usize) -> Result<Run> {
    let run = db.create_run(name)?;
    db.transaction(|tx| {
        for n in 0..rows {
            tx.kv_put(run, format!("k{n:05}"), "some value")?;
        }
        tx.event_append(run, "s", "e")?;
        tx.state_set(run, "c", 1)
    })?;
    Ok(run)
}

#[test]
fn a_deleted_run_is_gone_at_once_and_its_name_is_free() -> Result<()> {
    let db = Database::in_memory()?;
    let old = filled(&db, "r", 3)?;
    let before = db.view()?;
    db.delete_run("r")?;
    let kind = |result: Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(db.resolve_run("r").map(drop)), ErrorKind::NotFound);
    assert_eq!(kind(db.delete_run("r").map(drop)), ErrorKind::NotFound);
    assert_eq!(kind(db.kv_get(old, "k00000").map(drop)), ErrorKind::NotFound);
    assert_eq!(kind(db.kv_scan(old, "").map(drop)), ErrorKind::NotFound);
    assert_eq!(kind(db.kv_put(old, "k", 1).map(drop)), ErrorKind::NotFound);
    assert_eq!(kind(db.event_append(old, "s", 1).map(drop)), ErrorKind::NotFound);
    assert_eq!(kind(db.transaction(|tx| tx.kv_put(old, "k", 1)).map(drop)), ErrorKind::NotFound);
    let mut listed = db.view()?.entries(old);
    assert_eq!(kind(listed.next().expect("an error").map(drop)), ErrorKind::NotFound);
    assert!(listed.next().is_none());
    let mut listed = db.view()?.entries_with_history(old);
    assert_eq!(kind(listed.next().expect("an error").map(drop)), ErrorKind::NotFound);
    let new = db.create_run("r")?;
    assert_ne!(new.id(), old.id());
    assert!(db.kv_get(new, "k00000")?.is_none() && db.event_read(new, "s", 0)?.count() == 0);
    db.compact(CompactMode::Full)?;
    assert_eq!(before.resolve_run("r")?, old, "an older view goes on");
    assert_eq!((before.kv_scan(old, "")?.count(), before.entries(old).count()), (3, 5));
    drop(before);
    db.compact(CompactMode::Full)?;
    // Two entries of the index would be one too many; the grave stays.
    assert_eq!(db.stats()?.store.versions, 2);
    Ok(())
}

#[test]
fn deleting_takes_the_same_log_whatever_the_run_holds() -> Result<()> {
    let home = tempfile::tempdir().unwrap();
    let config = DatabaseConfig::new(DurabilityMode::Buffered).manual_checkpoints();
    let db = Database::create(home.path().join("db"), config)?;
    for (name, rows) in [("small", 1), ("large", 20_000)] {
        filled(&db, name, rows)?;
        let before = db.stats()?.log_position;
        db.delete_run(name)?;
        let took = db.stats()?.log_position - before;
        assert!((1..=512).contains(&took), "{took} bytes for {rows} rows");
    }
    Ok(())
}

#[test]
fn a_transaction_that_read_a_run_conflicts_with_its_deletion() -> Result<()> {
    let db = Database::in_memory()?;
    let (run, other) = (filled(&db, "r", 1)?, db.create_run("other")?);
    let (mut point, mut scan, mut write) = (db.begin()?, db.begin()?, db.begin()?);
    assert!(point.kv_get(run, "k00000")?.is_some());
    assert_eq!(scan.kv_scan(run, "k")?.count(), 1);
    write.kv_put(run, "k", 1)?;
    point.kv_put(other, "seen", 1)?;
    scan.kv_put(other, "counted", 1)?;
    db.delete_run("r")?;
    assert_eq!(point.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(scan.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(write.commit().unwrap_err().kind(), ErrorKind::NotFound);
    Ok(())
}

#[test]
fn within_one_transaction_a_run_is_replaced() -> Result<()> {
    let db = Database::in_memory()?;
    let old = filled(&db, "r", 1)?;
    let mut given_up = db.begin()?;
    given_up.delete_run("r")?;
    given_up.rollback();
    assert_eq!(db.resolve_run("r")?, old);
    let (new, _) = db.transaction(|tx| {
        tx.kv_put(old, "late", 1)?;
        tx.delete_run("r")?;
        assert_eq!(tx.kv_get(old, "late").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(tx.kv_put(old, "later", 1).unwrap_err().kind(), ErrorKind::NotFound);
        let new = tx.create_run("r")?;
        tx.kv_put(new, "k", 2)?;
        // Neither was ever there for anybody else.
        tx.create_run("short").and_then(|run| tx.kv_put(run, "k", 1))?;
        tx.delete_run("short")?;
        Ok(new)
    })?;
    assert_eq!((db.resolve_run("r")?, db.list_runs()?.len()), (new, 1));
    assert_eq!(db.kv_scan(new, "")?.count(), 1);
    Ok(())
}

#[test]
fn the_bytes_of_a_deleted_run_come_back_and_nothing_resurrects_it() -> Result<()> {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("db");
    let config = || DatabaseConfig::strict().manual_checkpoints();
    let db = Database::create(&path, config())?;
    let run = filled(&db, "r", 5_000)?;
    let kept = filled(&db, "kept", 10)?;
    db.checkpoint()?;
    db.export_run(run, home.path().join("r.run"))?;
    db.delete_run("r")?;
    let refused = |db: &Database| {
        let error = db.import_run(home.path().join("r.run"), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(db.list_runs().unwrap().len(), 1);
    };
    refused(&db);
    db.close()?;
    // From the older snapshot and the log.
    let db = Database::open_existing(&path, config())?;
    refused(&db);
    db.checkpoint()?;
    db.close()?;
    // From a snapshot that still has the rows.
    let db = Database::open_existing(&path, config())?;
    refused(&db);
    db.wait_loaded()?;
    let before = db.stats()?;
    db.compact(CompactMode::Full)?;
    let after = db.stats()?;
    assert_eq!(after.store.versions, 12 + 2, "the other run, its entry in the index, the grave");
    assert!(after.store.versions + 5_000 <= before.store.versions, "{before:?} {after:?}");
    assert!(after.disk.snapshots * 4 < before.disk.snapshots, "{before:?} {after:?}");
    db.close()?;
    let db = Database::open_existing(&path, config())?;
    refused(&db);
    let kept = db.run_info("kept").map(|info| (info.id == kept.id()).then_some(info.run))?;
    assert_eq!(db.view()?.entries(kept.expect("the same run")).count(), 12);
    let other = Database::create(home.path().join("o"), config())?;
    let there = other.import_run(home.path().join("r.run"), None)?;
    assert_eq!((there.id(), other.kv_scan(there, "")?.count()), (run.id(), 5_000));
    Ok(())
}

#[test]
fn the_past_of_a_deleted_run_is_read_and_not_written() -> Result<()> {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("db");
    let db = Database::create(&path, keep_all())?;
    filled(&db, "r", 10)?;
    let then = db.current_version();
    db.delete_run("r")?;
    db.create_run("r")?;
    db.close()?;
    // From the log; from a snapshot with the rows; from one in which they are buried.
    for life in ["log", "snapshot", "buried"] {
        let db = Database::open_existing(&path, keep_all())?;
        let past = db.view_at(then)?;
        let old = past.resolve_run("r")?;
        assert_eq!(past.entries(old).count(), 12, "{life}");
        assert_ne!(old, db.resolve_run("r")?);
        let error = db.kv_get(old, "k00000").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "now it is no run: {error}");
        assert_eq!(db.kv_put(old, "k", 1).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(db.view()?.kv_scan(old, "").unwrap_err().kind(), ErrorKind::NotFound);
        if life == "log" {
            db.checkpoint()?;
        } else {
            db.compact(CompactMode::Full)?;
        }
        db.close()?;
    }
    Ok(())
}

#[test]
fn a_difference_is_what_a_map_says() -> Result<()> {
    let db = Database::in_memory()?;
    let mut rng = fastrand::Rng::with_seed(11);
    for round in 0..30 {
        let mut maps = [BTreeMap::new(), BTreeMap::new()];
        let mut runs = Vec::new();
        for (side, map) in maps.iter_mut().enumerate() {
            let run = db.create_run(&format!("r{round}-{side}"))?;
            for _ in 0..rng.usize(..40) {
                let (key, value) = (rng.u8(..30), rng.i64(..3));
                map.insert(key, value);
                db.kv_put(run, [key], value)?;
            }
            runs.push(run);
        }
        let [before, after] = &maps;
        let mut expected = Vec::new();
        for key in 0..30u8 {
            match (before.get(&key), after.get(&key)) {
                (one, other) if one == other => {}
                (one, other) => expected.push((key, one.copied(), other.copied())),
            }
        }
        let of = |entry: &Entry| match entry {
            Entry::Kv { key, value, .. } => (key[0], value.as_ref().and_then(Value::as_int)),
            other => panic!("{other:?}"),
        };
        let found = db.diff_runs(runs[0], runs[1])?.map(|difference| {
            Ok(match difference? {
                Difference::Added(entry) => (of(&entry).0, None, of(&entry).1),
                Difference::Removed(entry) => (of(&entry).0, of(&entry).1, None),
                Difference::Changed { before, after } => {
                    assert_eq!(of(&before).0, of(&after).0);
                    (of(&before).0, of(&before).1, of(&after).1)
                }
            })
        });
        assert_eq!(found.collect::<Result<Vec<_>>>()?, expected);
    }
    Ok(())
}

#[test]
fn differences_are_of_every_primitive_and_of_content_only() -> Result<()> {
    let home = tempfile::tempdir().unwrap();
    let db = Database::create(home.path().join("db"), keep_all())?;
    let (one, two) = (filled(&db, "one", 3)?, filled(&db, "two", 3)?);
    assert_eq!(db.diff_runs(one, two)?.count(), 0, "other versions and times, the same content");
    let from = db.current_version();
    db.transaction(|tx| {
        tx.event_append(two, "s", "another")?;
        tx.state_set(two, "c", 2)?;
        tx.kv_delete(two, "k00001")
    })?;
    let to = db.current_version();
    let words = |found: Differences| -> Result<Vec<&'static str>> {
        found
            .map(|difference| {
                Ok(match difference? {
                    Difference::Added(Entry::Event { .. }) => "+event",
                    Difference::Removed(Entry::Event { .. }) => "-event",
                    Difference::Added(Entry::Kv { .. }) => "+kv",
                    Difference::Removed(Entry::Kv { .. }) => "-kv",
                    Difference::Changed { after: Entry::State { .. }, .. } => "*state",
                    other => panic!("{other:?}"),
                })
            })
            .collect()
    };
    let forward = ["-kv", "+event", "*state"];
    assert_eq!(words(db.diff_runs(one, two)?)?, forward);
    assert_eq!(words(db.diff_run_versions(two, from, to)?)?, forward);
    assert_eq!(words(db.diff_run_versions(two, to, from)?)?, ["+kv", "-event", "*state"]);
    db.checkpoint()?;
    db.close()?;
    let db = Database::open_existing(home.path().join("db"), keep_all())?;
    let two = db.resolve_run("two")?;
    assert_eq!(words(db.diff_run_versions(two, from, to)?)?, forward, "from a snapshot");
    db.delete_run("two")?;
    assert_eq!(words(db.diff_run_versions(two, from, to)?)?, forward, "while it was there");
    let now = db.current_version();
    let error = db.diff_run_versions(two, from, now).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    Ok(())
}
