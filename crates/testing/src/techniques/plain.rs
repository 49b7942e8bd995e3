//! Plain use, without a crash: programs and small stories held against a model, also after
//! closing and opening again.

use std::num::NonZeroU32;
use std::time::Duration;

use steadfast_core::{Key, NamespaceId};
use steadfast_engine::{
    CompactMode, Database, DatabaseConfig, DurabilityMode, Error, ManualClock, Retention,
    Timestamp, TypeTag, UnifiedStore, Value, Version,
};

use super::{Trial, Verdict};
use crate::model::{Op, ReferenceModel, content_now};
use crate::sim::SimDisk;
use crate::workload::{Driver, SEGMENT_BYTES, Workload, builder};

const NOON: Timestamp = Timestamp::from_micros(1 << 50);

fn told<T>(result: Result<T, Error>) -> Result<T, String> {
    result.map_err(|error| format!("kind {}: {error}", error.kind()))
}

fn expect(model: &ReferenceModel, db: &Database) -> Verdict {
    let differences = model.compare(&told(content_now(db))?);
    if differences.is_empty() { Ok(()) } else { Err(format!("{differences:?}")) }
}

pub(super) fn run(trial: &mut Trial) -> Verdict {
    for turn in 0..8 {
        let verdict = versions_in_any_order(trial.seed + turn);
        trial.judged(verdict, || "versions that come in any order".into())?;
    }
    for mode in trial.modes.clone() {
        if !trial.goes_on() {
            break;
        }
        trial.judged(waiting_for_the_last(mode), || format!("{mode:?}, waiting for the last"))?;
        trial.judged(expiry(mode), || format!("{mode:?}, expiry"))?;
        trial.judged(history(mode), || format!("{mode:?}, the last three versions"))?;
        trial.judged(clock(mode), || format!("{mode:?}, a clock that steps back"))?;
        trial.judged(over_a_snapshot(mode), || format!("{mode:?}, over a snapshot"))?;
        for turn in 0..3 {
            let workload = Workload::seeded(trial.seed + turn, mode, 40);
            let workload = if turn == 1 { workload.keeping_all() } else { workload };
            trial.judged(program(&workload), || format!("{mode:?}, program {turn}"))?;
        }
    }
    Ok(())
}

/// A program, then its database as it is, closed and opened, loaded, compacted.
fn program(workload: &Workload) -> Verdict {
    let disk = SimDisk::new();
    let (history, db) = Driver::new(disk.clone(), workload.clone()).run();
    if let Some((action, error)) = history.errors.first() {
        return Err(format!("without any fault, action {action} failed: {error}"));
    }
    let db = db.ok_or("no database")?;
    let model = history.models.last().ok_or("no model")?;
    expect(model, &db).map_err(|why| format!("at the end: {why}"))?;
    told(db.close())?;
    let db = told(builder(&disk, workload.config.clone()).open())?;
    expect(model, &db).map_err(|why| format!("closed and opened: {why}"))?;
    told(db.wait_loaded())?;
    expect(model, &db).map_err(|why| format!("loaded: {why}"))?;
    told(db.compact(CompactMode::Full))?;
    expect(model, &db).map_err(|why| format!("compacted: {why}"))
}

/// Several commits are under way; whoever waits for the last finds it visible, with all before.
fn waiting_for_the_last(mode: DurabilityMode) -> Verdict {
    let disk = SimDisk::new();
    let db = told(builder(&disk, Workload::new(Vec::new(), mode).config).open())?;
    let run = told(db.create_run("run"))?;
    let mut pending = Vec::new();
    for n in 0..4i64 {
        let submit = || {
            let mut tx = db.begin()?;
            tx.kv_put(run, format!("k{n}"), n)?;
            tx.submit()
        };
        pending.push(told(submit())?.ok_or("nothing to commit")?);
    }
    for commit in pending.into_iter().rev() {
        let version = commit.version();
        told(commit.wait())?;
        if db.current_version() < version {
            let visible = db.current_version();
            return Err(format!("commit {version} returned, and {visible} is the newest visible"));
        }
    }
    Ok(())
}

/// A value is there until it expires and not after that, in memory, from the log and from a
/// snapshot.
fn expiry(mode: DurabilityMode) -> Verdict {
    let (disk, clock) = (SimDisk::new(), ManualClock::at(NOON));
    let config = Workload::new(Vec::new(), mode).config;
    let open = || told(builder(&disk, config.clone()).clock(clock.clone()).open());
    let mut db = open()?;
    told(db.create_run("run"))?;
    for source in ["memory", "log", "snapshot"] {
        let run = told(db.resolve_run("run"))?;
        let until = clock.now_after(Duration::from_secs(10));
        told(db.kv_put_expiring(run, "key", source, until))?;
        if source == "snapshot" {
            told(db.checkpoint())?;
        }
        if source != "memory" {
            told(db.close())?;
            db = open()?;
        }
        for (seconds, is_there) in [(9, true), (2, false)] {
            clock.advance(Duration::from_secs(seconds));
            let found = told(db.kv_get(told(db.resolve_run("run"))?, "key"))?;
            if found.is_some() != is_there {
                let what = if is_there { "gone too early" } else { "there after its expiry" };
                return Err(format!("from {source}: {what}"));
            }
        }
    }
    Ok(())
}

trait NowAfter {
    fn now_after(&self, duration: Duration) -> Timestamp;
}

impl NowAfter for ManualClock {
    fn now_after(&self, duration: Duration) -> Timestamp {
        steadfast_engine::Clock::now(self).after(duration)
    }
}

/// Retention of three versions keeps three, at once, opened again and compacted.
fn history(mode: DurabilityMode) -> Verdict {
    let disk = SimDisk::new();
    let three = Retention::KeepLast(NonZeroU32::MIN.saturating_add(2));
    let config = Workload::new(Vec::new(), mode).config.retention(three);
    let db = told(builder(&disk, config.clone()).open())?;
    let run = told(db.create_run("run"))?;
    let mut versions = Vec::new();
    for n in 0..6i64 {
        versions.push(told(db.kv_put(run, "key", n))?.version());
    }
    versions.reverse();
    let check = |db: &Database, when: &str| {
        let found = told(db.kv_history(told(db.resolve_run("run"))?, "key"))?;
        let found: Vec<Version> = found.into_iter().map(|row| row.0).collect();
        if found.len() < 3 || found[..3] != versions[..3] {
            return Err(format!("{when}: versions {found:?} are kept of {versions:?}"));
        }
        Ok(())
    };
    check(&db, "at once")?;
    told(db.close())?;
    let db = told(builder(&disk, config.clone()).open())?;
    check(&db, "opened again")?;
    told(db.compact(CompactMode::Full))?;
    check(&db, "compacted")
}

/// Times of commits do not step back with the clock, also across an opening.
fn clock(mode: DurabilityMode) -> Verdict {
    let (disk, clock) = (SimDisk::new(), ManualClock::at(NOON));
    let config = Workload::new(Vec::new(), mode).config;
    let mut last = Timestamp::ZERO;
    for life in 0..2i64 {
        let db = told(builder(&disk, config.clone()).clock(clock.clone()).open())?;
        let run = told(db.get_or_create_run("run"))?;
        for n in 0..3i64 {
            clock.set(Timestamp::from_micros(NOON.as_micros() - u64::from(n == 1) * 5_000_000));
            told(db.kv_put(run, "key", life * 10 + n))?;
            let found = told(db.kv_get(run, "key"))?.ok_or("what was just put is not there")?;
            if found.timestamp < last {
                return Err(format!("a commit at {:?} after one at {last:?}", found.timestamp));
            }
            last = found.timestamp;
        }
        told(db.close())?;
        clock.set(Timestamp::from_micros(NOON.as_micros() - 9_000_000));
    }
    Ok(())
}

/// Rows of a snapshot are overwritten and deleted before they are loaded, while and after.
fn over_a_snapshot(mode: DurabilityMode) -> Verdict {
    let disk = SimDisk::new();
    let config = DatabaseConfig::new(mode).segment_bytes(SEGMENT_BYTES).manual_checkpoints();
    let mut model = ReferenceModel::new();
    let mut commit = |db: &Database, ops: &[Op]| {
        let done = told(db.transaction(|tx| ops.iter().try_for_each(|op| op.apply(tx))))?;
        model.apply(ops, done.1.version());
        expect(&model, db)
    };
    let put = |n: usize, text: &str| {
        Op::Put("run".into(), format!("k{n}"), Value::from(text.repeat(40).as_str()))
    };
    let delete = |n: usize| Op::Delete("run".into(), format!("k{n}"));
    let db = told(builder(&disk, config.clone()).open())?;
    for n in 0..12 {
        commit(&db, &[put(n, "in the snapshot")])?;
    }
    told(db.checkpoint())?;
    commit(&db, &[delete(0), put(1, "in the log")])?;
    told(db.close())?;
    let db = told(builder(&disk, config.clone()).open())?;
    commit(&db, &[delete(2), put(3, "newer"), delete(1)])?;
    commit(&db, &[put(2, "again"), delete(4)])?;
    told(db.wait_loaded())?;
    commit(&db, &[delete(5)])?;
    told(db.compact(CompactMode::Full))?;
    commit(&db, &[delete(6)])?;
    told(db.close())?;
    let db = told(builder(&disk, config).open())?;
    commit(&db, &[put(7, "last")])
}

/// The store itself takes versions of its keys in any order and shows the highest.
fn versions_in_any_order(seed: u64) -> Verdict {
    let mut rng = fastrand::Rng::with_seed(seed);
    let store = UnifiedStore::new();
    let mut versions: Vec<u64> = (1..40).collect();
    rng.shuffle(&mut versions);
    let mut highest = std::collections::BTreeMap::new();
    for version in versions {
        let name = u8::try_from(version % 3).unwrap_or(0);
        let key = Key::new(NamespaceId(1), TypeTag::Kv, &[name]).map_err(|e| e.to_string())?;
        let at = Version(version);
        let put = store.put_with_version(&key, Value::Null, at, NOON, None);
        put.map_err(|error| error.to_string())?;
        let expected = highest.entry(name).or_insert(at);
        *expected = at.max(*expected);
        let found = store.get(key.as_bytes()).map_err(|error| error.to_string())?;
        let found = found.map(|record| record.version());
        if found != Some(*expected) {
            return Err(format!("after version {version}, {found:?} and not {expected} is shown"));
        }
    }
    Ok(())
}
