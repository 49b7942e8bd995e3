//! Runs under crashes: a run that has ended does not go on, and one that was deleted is not there
//! again, whatever the moment (P1, P2, P3, P10).
#![allow(clippy::unwrap_used)]

use steadfast::{CompactMode, Database, DurabilityMode, Result, RunStatus};
use steadfast_testing::crash::{Cut, Effort, Tally, explore};
use steadfast_testing::matrix::{Ack, Acked, Failure, MatrixReport, crash_matrix};
use steadfast_testing::workload::{BATCHED, Workload};

/// What the program below tells its caller.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    /// The run with this number has ended so.
    Ended(u64, RunStatus),
    /// The run with this number was deleted.
    Deleted(u64),
    /// The run with this number was forked.
    Forked(u64),
}

fn end(db: &Database, ack: &Ack<Told>) -> std::result::Result<(), Failure> {
    for round in ack.rounds(3) {
        let name = format!("run-{round}");
        let run = db.create_run(&name)?;
        db.kv_put(run, "k", round as i64)?;
        db.transaction(|tx| {
            tx.kv_put(run, "result", round as i64)?;
            tx.set_run_status(&name, RunStatus::Completed)
        })?;
        ack.done(Told::Ended(round, RunStatus::Completed));
        if round == 1 {
            db.checkpoint()?;
        }
    }
    Ok(())
}

fn ended(db: &Database, acked: &Acked<'_, Told>) -> std::result::Result<(), Failure> {
    for told in acked.iter() {
        let Told::Ended(round, status) = told else { continue };
        let info = db.run_info(&format!("run-{round}"))?;
        acked.expect(info.status == *status, || format!("{} is {}", info.name, info.status))?;
    }
    for info in db.list_runs()? {
        let result = db.kv_get(info.run, "result")?.is_some();
        let ended = info.status == RunStatus::Completed;
        acked.expect(result == ended, || format!("{} is {}", info.name, info.status))?;
        let back = db.set_run_status(&info.name, RunStatus::Active);
        acked.expect(back.is_err() == ended, || format!("{} goes on", info.name))?;
    }
    Ok(())
}

/// One name, again and again: a run of two keys is deleted and another one made, with a
/// checkpoint before the deletion and a compaction after it.
fn replace(db: &Database, ack: &Ack<Told>) -> std::result::Result<(), Failure> {
    for round in ack.rounds(3) {
        db.transaction(|tx| {
            let run = tx.create_run("r")?;
            tx.kv_put(run, "a", round as i64)?;
            tx.kv_put(run, "b", round as i64)
        })?;
        db.checkpoint()?;
        db.delete_run("r")?;
        ack.done(Told::Deleted(round));
        db.compact(CompactMode::Full)?;
    }
    Ok(())
}

fn replaced(db: &Database, acked: &Acked<'_, Told>) -> std::result::Result<(), Failure> {
    let look = |db: &Database| -> Result<Option<[Option<i64>; 2]>> {
        let Ok(run) = db.resolve_run("r") else { return Ok(None) };
        let value = |key| -> Result<Option<i64>> {
            Ok(db.kv_get(run, key)?.and_then(|found| found.value.as_int()))
        };
        Ok(Some([value("a")?, value("b")?]))
    };
    let last = acked.iter().filter_map(|told| match told {
        Told::Deleted(round) => Some(*round as i64),
        Told::Ended(..) | Told::Forked(_) => None,
    });
    let last = last.max().unwrap_or(-1);
    let found = look(db)?;
    if let Some([a, b]) = found {
        acked.expect(a == b && a > Some(last), || format!("{a:?}, {b:?} after {last} went"))?;
    }
    db.compact(CompactMode::Full)?;
    acked.expect(look(db)? == found, || "a compaction changed it".into())?;
    let fresh = match db.resolve_run("r") {
        Ok(_) => db.transaction(|tx| tx.delete_run("r").and_then(|()| tx.create_run("r"))),
        Err(_) => db.transaction(|tx| tx.create_run("r")),
    };
    let rows = db.view()?.entries(fresh?.0).count();
    acked.expect(rows == 0, || format!("a new run has {rows} rows of an old one"))
}

/// A run of two keys is forked, overwritten, deleted and compacted away; the fork is written to in
/// between, and the one of the round before is deleted.
fn fork(db: &Database, ack: &Ack<Told>) -> std::result::Result<(), Failure> {
    for round in ack.rounds(3) {
        let (parent, child) = (format!("p{round}"), format!("c{round}"));
        let run = db.transaction(|tx| {
            let run = tx.create_run(&parent)?;
            tx.kv_put(run, "a", round as i64)?;
            tx.kv_put(run, "b", round as i64)?;
            tx.event_append(run, "s", round as i64)?;
            Ok(run)
        })?;
        let forked = db.fork_run(&parent, &child)?;
        ack.done(Told::Forked(round));
        db.kv_put(run.0, "a", -1)?;
        db.event_append(forked, "s", 100)?;
        if round == 1 {
            db.checkpoint()?;
        }
        db.kv_put(run.0, "a", -2)?;
        db.transaction(|tx| {
            tx.kv_delete(forked, "b")?;
            tx.kv_put(forked, "c", round as i64)
        })?;
        db.delete_run(&parent)?;
        db.compact(CompactMode::Full)?;
        if let Some(before) = round.checked_sub(1) {
            db.delete_run(&format!("c{before}"))?;
            ack.done(Told::Deleted(before));
        }
    }
    Ok(())
}

fn forked(db: &Database, acked: &Acked<'_, Told>) -> std::result::Result<(), Failure> {
    for told in acked.iter() {
        let (Told::Forked(round) | Told::Deleted(round)) = told else { continue };
        let gone = db.resolve_run(&format!("c{round}")).is_err();
        let may_be_gone = *round < 2;
        acked.expect(!gone || may_be_gone, || format!("fork {round} is gone"))?;
        let must_be_gone = matches!(told, Told::Deleted(_));
        acked.expect(gone || !must_be_gone, || format!("fork {round} is there again"))?;
    }
    for pass in 0..2 {
        for info in db.list_runs()?.into_iter().filter(|info| info.parent.is_some()) {
            let round: i64 = info.name[1..].parse().unwrap_or(-9);
            let value = |key| -> Result<Option<i64>> {
                Ok(db.kv_get(info.run, key)?.and_then(|found| found.value.as_int()))
            };
            let found = [value("a")?, value("b")?, value("c")?];
            let good = found == [Some(round), Some(round), None]
                || found == [Some(round), None, Some(round)];
            acked.expect(good, || format!("{pass}: {} holds {found:?}", info.name))?;
            let rows = db.kv_scan(info.run, "")?.count();
            acked.expect(rows == 2, || format!("{pass}: {} has {rows} keys", info.name))?;
            db.view()?.event_verify_all(info.run)?;
            let first = db.event_read(info.run, "s", 0)?.next().transpose()?;
            let first = first.and_then(|event| event.payload.as_int());
            acked.expect(first == Some(round), || format!("{}: {first:?}", info.name))?;
        }
        db.compact(CompactMode::Full)?;
    }
    Ok(())
}

fn matrix(
    program: fn(&Database, &Ack<Told>) -> std::result::Result<(), Failure>,
    check: fn(&Database, &Acked<'_, Told>) -> std::result::Result<(), Failure>,
) -> MatrixReport {
    crash_matrix(5).images_max(3_000).run(program).check(check)
}

#[test]
fn a_run_that_was_told_to_have_ended_has_ended_after_every_crash() {
    let report = matrix(end, ended);
    report.expect_good();
    assert!(report.opened > 300, "{report}");
}

#[test]
fn a_deleted_run_is_not_there_again_after_any_crash() {
    let report = matrix(replace, replaced);
    report.expect_good();
    assert!(report.opened > 300, "{report}");
}

#[test]
fn a_fork_shows_what_was_forked_after_every_crash() {
    let report = matrix(fork, forked);
    report.expect_good();
    assert!(report.opened > 300, "{report}");
}

/// The whole workload with more, in every mode, against the model: every image of a power cut.
fn every_image(first_seed: u64, with: fn(Workload, u64) -> Workload) {
    let effort = Effort {
        random: 2,
        nested_every: 2000,
        depth: 1,
        queued_versions: true,
        lost_pages: false,
    };
    let mut total = Tally::default();
    let modes = [DurabilityMode::Strict, BATCHED, DurabilityMode::Buffered];
    for (seed, mode) in (first_seed..).zip(modes) {
        let workload = with(Workload::seeded(seed, mode, 30), seed);
        let workload = if mode == BATCHED { workload.keeping_all() } else { workload };
        match explore(&workload, Cut::Power, effort, seed) {
            Ok(tally) => total.add(&tally),
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    println!("{total}");
    assert!(total.images > 2_000, "{total}");
}

/// Runs forked from one another, against copies in the model.
#[test]
fn what_is_left_of_forks_is_a_prefix() {
    every_image(11, Workload::with_forks);
}

/// Runs that end in between.
#[test]
fn what_is_left_of_runs_that_end_is_a_prefix() {
    every_image(1, Workload::with_runs_that_end);
}
