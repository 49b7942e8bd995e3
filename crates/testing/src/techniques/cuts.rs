//! Crash images: a process that ends and power that goes, at every I/O step of programs.

use steadfast_engine::{CompactMode, DurabilityMode, Value};

use super::{Trial, Verdict};
use crate::crash::{Cut, Effort, Judge};
use crate::model::Op;
use crate::sim::SimDisk;
use crate::workload::{Action, BATCHED, Driver, MODES, Workload};

/// Looks at every image by itself. Crashes inside recovery are in `nested_every`.
const EFFORT: Effort =
    Effort { random: 4, nested_every: 0, depth: 1, queued_versions: true, lost_pages: false };

pub(super) fn kills(trial: &mut Trial) -> Verdict {
    for mode in MODES {
        explore(trial, &everything(mode), Cut::Kill, EFFORT)?;
    }
    explore(trial, &Workload::seeded(trial.seed, BATCHED, 30), Cut::Kill, EFFORT)
}

pub(super) fn short(trial: &mut Trial) -> Verdict {
    for mode in [BATCHED, DurabilityMode::Buffered, DurabilityMode::Strict] {
        explore(trial, &everything(mode), Cut::Power, EFFORT)?;
    }
    Ok(())
}

pub(super) fn hostile(trial: &mut Trial) -> Verdict {
    explore(trial, &hostile_values(), Cut::Power, EFFORT)
}

pub(super) fn long(trial: &mut Trial) -> Verdict {
    for mode in MODES {
        let effort = Effort { nested_every: 500, ..EFFORT };
        let workload = Workload::seeded(trial.seed + 1, mode, 24).keeping_all();
        explore(trial, &workload, Cut::Power, effort)?;
        explore(trial, &workload, Cut::Kill, effort)?;
    }
    Ok(())
}

/// A little of everything: small commits, several at once, one that asks for a sync, a rotation,
/// a streamed transaction across a checkpoint, deletes, a compaction, an opening, a new run.
fn everything(mode: DurabilityMode) -> Workload {
    let put = |n: usize, bytes: usize| {
        Op::Put("run".into(), format!("k{n}"), Value::from(vec![7; bytes].as_slice()))
    };
    let large = |n: usize| {
        let bytes = vec![9; 2500];
        Op::Put("run".into(), format!("large{n}"), Value::from(bytes.as_slice()))
    };
    let event = |run: &str| Op::Append(run.into(), "s".into(), Value::Int(1));
    let mut actions = vec![Action::Commit(vec![put(0, 10), event("run")])];
    actions.extend((1..7).map(|n| Action::Commit(vec![put(n, 900), event("run")])));
    actions.push(Action::Together(vec![vec![put(7, 20)], vec![put(8, 20)], vec![put(9, 20)]]));
    actions.push(Action::CommitStrict(vec![put(10, 30), put(11, 30)]));
    actions.push(Action::Straddle((0..13).map(large).collect(), Some(CompactMode::WalOnly)));
    actions.push(Action::Commit(vec![Op::Delete("run".into(), "k1".into()), event("other")]));
    actions.push(Action::Commit(vec![put(2, 40)]));
    actions.push(Action::Checkpoint);
    actions.push(Action::Commit(vec![put(3, 700), event("other")]));
    actions.push(Action::Compact(CompactMode::Full));
    actions.push(Action::Reopen);
    actions.extend((4..8).map(|n| Action::Commit(vec![put(n, 600)])));
    Workload::new(actions, mode)
}

/// Values that hold what looks like headers of groups, with promises that would lie between the
/// groups of a strict log and the value itself.
fn hostile_values() -> Workload {
    const BLOCK: u64 = 4096;
    let header = |durable_upto: u64| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&[0xd1, 2, 1, 0, 32, 0, 0, 0]);
        bytes[8..16].copy_from_slice(&durable_upto.to_le_bytes());
        bytes
    };
    let value = |shift: usize| {
        let mut bytes = vec![0; shift];
        // So that it begins behind the first sector, which may be lost alone.
        bytes.resize(shift + 600, 1);
        bytes.extend((0..40).flat_map(|block| header(block * BLOCK + 8)));
        Value::from(bytes.as_slice())
    };
    let put = |n| Action::Commit(vec![Op::Put("run".into(), "hostile".into(), value(n))]);
    let mut actions = vec![Action::Commit(vec![Op::Run("run".into())])];
    actions.extend((0..8).map(put));
    Workload::new(actions, DurabilityMode::Strict)
}

fn explore(trial: &mut Trial, workload: &Workload, cut: Cut, effort: Effort) -> Verdict {
    let disk = SimDisk::new();
    disk.record_moments();
    let (history, db) = Driver::new(disk.clone(), workload.clone()).run();
    let moments = disk.take_moments();
    drop(db);
    if let Some((action, error)) = history.errors.first() {
        return Err(format!("without any fault, action {action} failed: {error}"));
    }
    let mut judge = Judge::new(&history, workload, effort, trial.seed);
    let mut rng = fastrand::Rng::with_seed(trial.seed);
    for moment in &moments {
        let note = usize::try_from(moment.note()).map_err(|error| error.to_string())?;
        let progress = history.progress[note];
        let place = |what: &str| {
            format!("{:?}, {cut:?} before step {}{what}", workload.mode, moment.step() + 1)
        };
        match cut {
            Cut::Kill => {
                let verdict = judge.image(&moment.kill(), &progress, progress.acknowledged, cut);
                trial.judged(verdict, || place(""))?;
            }
            Cut::Power => {
                let low = progress.kept_by_power_cut(workload.mode);
                for plan in moment.plans(effort.random, &mut rng) {
                    let verdict = judge.image(&moment.cut(&plan), &progress, low, cut);
                    trial.judged(verdict, || place(&format!(", image {plan}")))?;
                }
            }
        }
    }
    Ok(())
}
