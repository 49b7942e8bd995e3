//! Small stories in which somebody is told that a commit is durable, or given a version; then the
//! power goes and nothing is kept that was not synced.

use std::time::Duration;

use steadfast_engine::{Database, DurabilityMode, ManualClock, Receipt, Timestamp, Version};

use super::{Trial, Verdict};
use crate::sim::{Choice, ENOSPC, Fault, Plan, SimDisk, StepKind};
use crate::workload::{BATCHED, MODES, Workload, builder};

const NOON: Timestamp = Timestamp::from_micros(1 << 50);

pub(super) fn run(trial: &mut Trial) -> Verdict {
    for mode in MODES {
        let waited = told(mode, |_, receipt, _| receipt.wait_durable());
        trial.judged(waited, || format!("{mode:?}, waited until it was durable"))?;
        let flushed = told(mode, |db, _, _| db.flush());
        trial.judged(flushed, || format!("{mode:?}, flushed"))?;
        let checkpointed = told(mode, |db, _, _| db.checkpoint().map(drop));
        trial.judged(checkpointed, || format!("{mode:?}, after a checkpoint"))?;
        let closed = told(mode, |db, _, _| db.close());
        trial.judged(closed, || format!("{mode:?}, closed"))?;
        let behind = told(mode, |db, _, _| {
            let run = db.resolve_run("run")?;
            let mut tx = db.begin()?;
            tx.kv_put(run, "strict", 1)?;
            tx.raise_durability(DurabilityMode::Strict);
            tx.commit().map(drop)
        });
        trial.judged(behind, || format!("{mode:?}, before a strict one"))?;
        trial.judged(versions(mode), || format!("{mode:?}, versions of failed commits"))?;
    }
    let late = |clock: &ManualClock| clock.advance(Duration::from_millis(101));
    let idle = told(BATCHED, |db, _, clock| {
        late(clock);
        db.maintain()
    });
    trial.judged(idle, || "an idle log, its interval over".into())?;
    let next = told(BATCHED, |db, _, clock| {
        late(clock);
        db.kv_put(db.resolve_run("run")?, "next", 1).map(drop)
    });
    trial.judged(next, || "a commit after the interval".into())
}

/// Commits, lets `promise` happen, cuts the power: the commit must be there.
fn told(
    mode: DurabilityMode,
    promise: impl FnOnce(&Database, &Receipt, &ManualClock) -> steadfast_engine::Result<()>,
) -> Verdict {
    let (disk, clock) = (SimDisk::new(), ManualClock::at(NOON));
    let config = Workload::new(Vec::new(), mode).config;
    let done = || {
        let db = builder(&disk, config.clone()).clock(clock.clone()).open()?;
        let run = db.create_run("run")?;
        let mut tx = db.begin()?;
        tx.kv_put(run, "key", "value")?;
        let receipt = tx.commit()?;
        promise(&db, &receipt, &clock)?;
        let moment = disk.moment();
        let cut = moment.cut(&Plan(vec![Choice::Drop; moment.pending_len()]));
        let db = builder(&cut, config.clone()).open_existing()?;
        db.kv_get(db.resolve_run("run")?, "key")
    };
    match done() {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err("the power went, and it is gone".into()),
        Err(error) => Err(format!("kind {}: {error}", error.kind())),
    }
}

/// Commits get their versions and fail. Closed or killed, nobody gets those versions again.
fn versions(mode: DurabilityMode) -> Verdict {
    for close in [true, false] {
        let disk = SimDisk::new();
        let config = Workload::new(Vec::new(), mode).config;
        let done = || -> steadfast_engine::Result<(Version, Version)> {
            let db = builder(&disk, config.clone()).open()?;
            let run = db.create_run("run")?;
            let mut newest = Version::ZERO;
            // So many that they need new segments, for which there is no space: the log does
            // not even hear of the last.
            let mut pending = Vec::new();
            for n in 0..16 {
                let mut tx = db.begin()?;
                tx.kv_put(run, format!("k{n}"), vec![7u8; 3000].as_slice())?;
                pending.extend(tx.submit()?);
            }
            disk.inject(Fault::once(StepKind::Allocate, 0, ENOSPC).sticky());
            for commit in pending {
                newest = newest.max(commit.version());
                let _ = commit.wait();
            }
            disk.heal();
            if close {
                db.close()?;
            }
            let db = builder(&disk.killed(), config.clone()).open_existing()?;
            let next = db.kv_put(db.resolve_run("run")?, "next", 1)?.version();
            Ok((newest, next))
        };
        match done() {
            Ok((newest, next)) if next > newest => {}
            Ok((newest, next)) => {
                return Err(format!(
                    "version {next} was given, and {newest} before (close {close})"
                ));
            }
            Err(error) => return Err(format!("kind {}: {error}", error.kind())),
        }
    }
    Ok(())
}
