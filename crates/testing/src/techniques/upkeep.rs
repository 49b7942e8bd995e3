//! Checkpoints and compaction, and reading while somebody else has the database: what keeps it
//! small and quick never takes anything away, and who only reads writes nothing.

use steadfast_engine::{CompactMode, Compression, Database, DurabilityMode, ErrorKind, Value};

use super::{Trial, Verdict};
use crate::model::{Op, ReferenceModel, content_now};
use crate::sim::{SimDisk, StepKind};
use crate::workload::{Driver, Workload, builder};

pub(super) fn run(trial: &mut Trial) -> Verdict {
    for mode in trial.modes.clone() {
        if !trial.goes_on() {
            break;
        }
        let verdict = reading_writes_nothing(mode, trial.seed);
        trial.judged(verdict, || format!("{mode:?}, reading only"))?;
        trial.judged(a_bad_snapshot(mode), || format!("{mode:?}, a bad snapshot"))?;
        let verdict = a_stream_across(mode);
        trial.judged(verdict, || format!("{mode:?}, a stream across a checkpoint"))?;
    }
    Ok(())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Steps that change something. (A sync of what is there is no change.)
fn changes(disk: &SimDisk) -> u64 {
    let changes = StepKind::CHANGES.into_iter().filter(|kind| !kind.is_sync());
    changes.map(|kind| disk.count(kind)).sum()
}

fn reading_writes_nothing(mode: DurabilityMode, seed: u64) -> Verdict {
    let disk = SimDisk::new();
    let workload = Workload::seeded(seed, mode, 20);
    let (_, db) = Driver::new(disk.clone(), workload.clone()).run();
    for when in ["beside a writer", "after a kill", "after closing"] {
        let disk = match when {
            "after a kill" => disk.killed(),
            "after closing" => {
                db.as_ref().ok_or("no database")?.close().map_err(text)?;
                disk.clone()
            }
            _ => disk.clone(),
        };
        let before = changes(&disk);
        builder(&disk, workload.config.clone()).open_read_only().map_err(text)?;
        let made = changes(&disk) - before;
        if made > 0 {
            return Err(format!("{when}, an opening for reading changed {made} things"));
        }
    }
    Ok(())
}

fn put(n: usize, bytes: usize) -> Op {
    Op::Put("run".into(), format!("k{n}"), Value::from(vec![7; bytes].as_slice()))
}

fn commit(db: &Database, model: &mut ReferenceModel, ops: &[Op]) -> Verdict {
    let done = db.transaction(|tx| ops.iter().try_for_each(|op| op.apply(tx))).map_err(text)?;
    model.apply(ops, done.1.version());
    Ok(())
}

fn expect(model: &ReferenceModel, db: &Database, when: &str) -> Verdict {
    let found = content_now(db).map_err(|error| format!("{when}: {error}"))?;
    let differences = model.compare(&found);
    if differences.is_empty() { Ok(()) } else { Err(format!("{when}: {differences:?}")) }
}

/// A block of the newest snapshot goes bad. No compaction removes what could stand in for it.
fn a_bad_snapshot(mode: DurabilityMode) -> Verdict {
    let disk = SimDisk::new();
    let config = Workload::new(Vec::new(), mode).config.compression(Compression::None);
    let db = builder(&disk, config.clone()).open().map_err(text)?;
    let mut model = ReferenceModel::new();
    (0..20).try_for_each(|n| commit(&db, &mut model, &[put(n, 300)]))?;
    db.checkpoint().map_err(text)?;
    let newest = disk.paths().into_iter().rfind(|path| path.contains("SNAPSHOTS/"));
    disk.tamper(&newest.ok_or("no snapshot")?, |bytes| bytes[600] ^= 0x10);
    match db.compact(CompactMode::WalOnly) {
        Err(error) if error.kind() == ErrorKind::Corruption => {}
        Err(error) => return Err(format!("compacting, kind {}: {error}", error.kind())),
        Ok(_) => {}
    }
    let again = builder(&disk.killed(), config).open().map_err(text)?;
    again.wait_loaded().map_err(|error| format!("nothing stands in for it: {error}"))?;
    expect(&model, &again, "with a snapshot that is bad")
}

/// A streamed transaction begins before a checkpoint and a compaction and ends after them.
fn a_stream_across(mode: DurabilityMode) -> Verdict {
    let disk = SimDisk::new();
    let config = Workload::new(Vec::new(), mode).config;
    let db = builder(&disk, config.clone()).open().map_err(text)?;
    let mut model = ReferenceModel::new();
    (0..4).try_for_each(|n| commit(&db, &mut model, &[put(n, 300)]))?;
    let large: Vec<Op> = (10..18).map(|n| put(n, 2500)).collect();
    let mut tx = db.begin().map_err(text)?;
    large.iter().try_for_each(|op| op.apply(&mut tx)).map_err(text)?;
    let pending = tx.submit().map_err(text)?.ok_or("nothing to commit")?;
    db.checkpoint().map_err(text)?;
    db.compact(CompactMode::WalOnly).map_err(text)?;
    let version = pending.version();
    pending.wait().map_err(text)?;
    model.apply(&large, version);
    expect(&model, &db, "at once")?;
    let again = builder(&disk.killed(), config).open().map_err(text)?;
    expect(&model, &again, "after a kill")
}
