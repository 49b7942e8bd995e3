//! Runs: status, metadata, lists.

use std::collections::BTreeMap;

use steadfast_engine::{
    Database, DatabaseConfig, ErrorKind, Result, Retention, RunFilter, RunStatus, Timestamp, Value,
    Version,
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
