//! Crash images: a process that ends and power that goes, at every I/O step of programs.

use std::path::Path;
use std::time::{Duration, Instant};

use steadfast_engine::{CompactMode, DurabilityMode, Value};

use super::{Trial, Verdict};
use crate::crash::{Cut, Effort, Judge};
use crate::model::Op;
use crate::panics::caught;
use crate::sim::{Moment, SimDisk};
use crate::workload::{self, Action, BATCHED, Driver, History, Workload};

/// Looks at every image by itself. Crashes inside recovery are in `nested_every`.
const EFFORT: Effort =
    Effort { random: 4, nested_every: 0, depth: 1, queued_versions: true, lost_pages: false };

pub(super) fn kills(trial: &mut Trial) -> Verdict {
    for mode in trial.modes.clone() {
        explore(trial, &everything(mode), Cut::Kill, EFFORT)?;
    }
    if trial.modes.contains(&BATCHED) {
        let workload = Workload::seeded(trial.seed, BATCHED, 30);
        explore(trial, &workload, Cut::Kill, EFFORT)?;
    }
    Ok(())
}

pub(super) fn short(trial: &mut Trial) -> Verdict {
    for mode in [BATCHED, DurabilityMode::Buffered, DurabilityMode::Strict] {
        if trial.modes.contains(&mode) {
            explore(trial, &everything(mode), Cut::Power, EFFORT)?;
        }
    }
    Ok(())
}

pub(super) fn hostile(trial: &mut Trial) -> Verdict {
    explore(trial, &hostile_values(), Cut::Power, EFFORT)
}

pub(super) fn long(trial: &mut Trial) -> Verdict {
    for mode in trial.modes.clone() {
        let effort = Effort { nested_every: 500, ..EFFORT };
        let workload = Workload::seeded(trial.seed.wrapping_add(1), mode, 24).keeping_all();
        explore(trial, &workload, Cut::Power, effort)?;
        explore(trial, &workload, Cut::Kill, effort)?;
    }
    Ok(())
}

pub(super) fn random(trial: &mut Trial) -> Verdict {
    for mode in trial.modes.clone() {
        let mut rng = fastrand::Rng::with_seed(trial.seed);
        let mut workload = Workload::seeded(rng.u64(..), mode, rng.usize(3..16));
        match rng.u32(..4) {
            0 => workload = workload.keeping_all(),
            1 => workload = workload.with_checkpoints_after(6 << 10),
            _ => {}
        }
        workload.entropy_seed = rng.u64(..1 << 30);
        let effort = Effort { nested_every: 400, depth: 2, ..EFFORT };
        for cut in [Cut::Kill, Cut::Power] {
            explore(trial, &workload, cut, effort)?;
        }
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

/// Crashes a program at every step. If it fails and the trial asks for it, the shortest program
/// that still does is told with it.
fn explore(trial: &mut Trial, workload: &Workload, cut: Cut, effort: Effort) -> Verdict {
    // The engine may panic while the program runs, too.
    let crashed = caught(|| crash(trial, workload, cut, effort));
    let Err(why) = crashed else { return Ok(()) };
    if !trial.shortens {
        return Err(why);
    }
    let again = |shorter: &Workload| {
        // What shortening tries is not counted.
        caught(|| crash(&mut Trial::new(trial.seed), shorter, cut, effort)).err()
    };
    let until = trial.until.map(|_| Instant::now() + SHORTEN_TIME);
    let (shortest, why) = shortest(workload.clone(), why, until, again);
    let actions = shortest.actions.iter().map(|action| format!("\n  {action}"));
    let actions: String = ["\n  open".to_owned()].into_iter().chain(actions).collect();
    Err(format!("{why}\nthe program:{actions}"))
}

/// How many shorter programs are tried.
const SHORTER_TRIES: u32 = 150;
/// For how long, where time is limited.
const SHORTEN_TIME: Duration = Duration::from_secs(20);

/// The shortest program found that `fails`, and why it does: actions are left out, then
/// operations of what is left.
fn shortest(
    mut workload: Workload,
    mut why: String,
    until: Option<Instant>,
    fails: impl Fn(&Workload) -> Option<String>,
) -> (Workload, String) {
    let mut tries = SHORTER_TRIES;
    let mut attempt = |workload: &mut Workload, actions: Vec<Action>| {
        if tries == 0 || until.is_some_and(|until| Instant::now() > until) {
            return false;
        }
        tries -= 1;
        let shorter = Workload { actions, ..workload.clone() };
        match fails(&shorter) {
            Some(reason) => {
                (*workload, why) = (shorter, reason);
                true
            }
            None => false,
        }
    };
    let mut size = workload.actions.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < workload.actions.len() {
            let mut actions = workload.actions.clone();
            actions.drain(at..(at + size).min(actions.len()));
            if !attempt(&mut workload, actions) {
                at += size;
            }
        }
        size /= 2;
    }
    for at in 0..workload.actions.len() {
        let mut op = 0;
        while let Some(action) = workload.actions[at].without(op) {
            let mut actions = workload.actions.clone();
            actions[at] = action;
            if !attempt(&mut workload, actions) {
                op += 1;
            }
        }
    }
    (workload, why)
}

fn crash(trial: &mut Trial, workload: &Workload, cut: Cut, effort: Effort) -> Verdict {
    let disk = SimDisk::new();
    disk.keep_journal();
    disk.record_moments();
    let (history, db) = Driver::new(disk.clone(), workload.clone()).run();
    let moments = disk.take_moments();
    let journal = disk.journal();
    drop(db);
    if let Some((action, error)) = history.errors.first() {
        return Err(format!("without any fault, action {action} failed: {error}"));
    }
    let mut judge = Judge::new(&history, workload, effort, trial.seed);
    let mut rng = fastrand::Rng::with_seed(trial.seed);
    let mut verdict = Ok(());
    let mut order: Vec<_> = moments.iter().collect();
    if trial.until.is_some() {
        // If the time does not reach for all, it is not always the end that is left out.
        rng.shuffle(&mut order);
    }
    for moment in order {
        if !trial.goes_on() {
            break;
        }
        let next = usize::try_from(moment.step()).ok().and_then(|step| journal.get(step));
        if let Some(step) = next {
            *trial.steps.entry((step.kind, kind_of_file(&step.path))).or_default() += 1;
        }
        verdict = crash_at(trial, &mut judge, moment, &history, cut, &mut rng).map_err(|why| {
            let before = next.map_or("the end".into(), |step| format!("step {step}"));
            format!("{:?}, {cut:?} before {before}{why}", workload.mode)
        });
        if verdict.is_err() {
            break;
        }
    }
    trial.openings.add_all(&judge.tally().openings);
    verdict
}

fn crash_at(
    trial: &mut Trial,
    judge: &mut Judge<'_>,
    moment: &Moment,
    history: &History,
    cut: Cut,
    rng: &mut fastrand::Rng,
) -> Verdict {
    let note = usize::try_from(moment.note()).map_err(|error| error.to_string())?;
    let progress = history.progress[note];
    match cut {
        Cut::Kill => {
            let verdict = judge.image(&moment.kill(), &progress, progress.acknowledged, cut);
            trial.judged(verdict, String::new)
        }
        Cut::Power => {
            let low = progress.kept_by_power_cut(judge.mode());
            moment.plans(judge.effort().random, rng).iter().try_for_each(|plan| {
                let verdict = judge.image(&moment.cut(plan), &progress, low, cut);
                trial.judged(verdict, || format!(", image {plan}"))
            })
        }
    }
}

/// What a file of a database is, by where it lies.
fn kind_of_file(path: &Path) -> &'static str {
    let within = path.strip_prefix(workload::path()).unwrap_or(path);
    let mut names = within.iter().filter_map(|name| name.to_str());
    match (names.next(), names.next()) {
        (Some("WAL"), Some(_)) => "log",
        (Some("SNAPSHOTS"), Some(_)) => "snapshot",
        (Some("quarantine"), Some(_)) => "quarantine",
        (Some(name), None) if name.starts_with("MANIFEST") => "MANIFEST",
        (Some("LOCK"), None) => "LOCK",
        (None | Some("WAL" | "SNAPSHOTS" | "quarantine"), None) => "directory",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program "fails" if it deletes a key behind a checkpoint.
    fn fails(workload: &Workload) -> Option<String> {
        let checkpoint = workload.actions.iter().position(|one| *one == Action::Checkpoint)?;
        let deletes = |action: &Action| match action {
            Action::Commit(ops) => ops.iter().any(|op| matches!(op, Op::Delete(..))),
            _ => false,
        };
        workload.actions[checkpoint..].iter().any(deletes).then(|| "it fails".to_owned())
    }

    #[test]
    fn a_program_is_made_as_short_as_it_gets() {
        let workload = everything(DurabilityMode::Strict);
        let put = |n: usize| Action::Commit(vec![Op::Put("r".into(), format!("{n}"), Value::Null)]);
        let mut actions = workload.actions.clone();
        actions.extend((0..20).map(put));
        actions.push(Action::Commit(vec![
            Op::Run("r".into()),
            Op::Delete("r".into(), "k".into()),
            Op::Run("s".into()),
        ]));
        let long = Workload { actions, ..workload };
        let (short, why) = shortest(long, "first".into(), None, fails);
        let deletes = Action::Commit(vec![Op::Delete("r".into(), "k".into())]);
        assert_eq!(short.actions, [Action::Checkpoint, deletes]);
        assert_eq!(why, "it fails");
    }

    #[test]
    fn every_file_has_a_kind() {
        for (path, kind) in [
            ("db/WAL/wal-000001.seg", "log"),
            ("db/SNAPSHOTS/snap-000001.chk", "snapshot"),
            ("db/MANIFEST.tmp", "MANIFEST"),
            ("db/LOCK", "LOCK"),
            ("db/WAL", "directory"),
            ("db", "directory"),
            ("db/COPYING", "other"),
        ] {
            assert_eq!(kind_of_file(Path::new(path)), kind, "{path}");
        }
    }
}
