//! Damage at rest: a sample of what can be done to every file.

use steadfast_engine::DurabilityMode;

use super::{Trial, Verdict};
use crate::damage::{
    Outcome, Subject, bits, misdirected, old_manifests, snapshot_workload, stale_lives, strange,
    subject, subject_of, twins, with_snapshots,
};
use crate::sim::SimDisk;
use crate::workload::Workload;

/// Bits of a file that are flipped.
const BITS: usize = 150;

pub(super) fn run(trial: &mut Trial) -> Verdict {
    for mode in trial.modes.clone() {
        if !trial.goes_on() {
            break;
        }
        for closed in [true, false] {
            let name = format!("{mode:?}, {}", if closed { "closed" } else { "killed" });
            for (number, subject) in
                [subject(mode, closed, 14), with_snapshots(mode, closed, true)].iter().enumerate()
            {
                let name = format!("{name} {number}");
                flipped(trial, &name, subject)?;
                cut_and_lost(trial, &name, subject)?;
            }
            // Of one segment, and of several.
            for length in [5, 20] {
                let mut other = Workload::seeded(12, mode, length);
                other.entropy_seed = 1000;
                let ours = subject(mode, closed, length);
                each(trial, &name, |note| strange(&ours, &subject_of(other, closed), note))?;
            }
            let workload = Workload::seeded(11, mode, 20);
            each(trial, &name, |note| old_manifests(workload, closed, note))?;
            let workload = snapshot_workload(mode, true);
            each(trial, &name, |note| old_manifests(workload, closed, note))?;
        }
        let name = format!("{mode:?}");
        let (ours, twin) = twins(mode);
        each(trial, &name, |note| misdirected(&ours, &twin, note))?;
        if mode != DurabilityMode::Strict {
            each(trial, &name, |note| stale_lives(mode, note))?;
        }
    }
    Ok(())
}

/// Runs what notes many outcomes, and gives the first that must not be.
fn each(
    trial: &mut Trial,
    name: &str,
    work: impl FnOnce(&mut dyn FnMut(String, Outcome)),
) -> Verdict {
    let mut verdict = Ok(());
    work(&mut |what, outcome| {
        if verdict.is_ok() {
            verdict = trial.judged(outcome, || format!("{name}: {what}"));
        }
    });
    verdict
}

fn flipped(trial: &mut Trial, name: &str, subject: &Subject) -> Verdict {
    for path in subject.files() {
        if !trial.goes_on() {
            break;
        }
        let bytes = subject.disk.bytes(&path).unwrap_or_default();
        let all: Vec<usize> = bits(&bytes).collect();
        for bit in all.iter().step_by(all.len() / BITS + 1) {
            let outcome = subject.try_damage_to(&path, |disk| disk.flip_bit(&path, *bit));
            trial.judged(outcome, || format!("{name}: {path} bit {bit}"))?;
        }
    }
    Ok(())
}

fn cut_and_lost(trial: &mut Trial, name: &str, subject: &Subject) -> Verdict {
    for path in subject.files() {
        if !trial.goes_on() {
            break;
        }
        let len = subject.disk.bytes(&path).map_or(0, |bytes| bytes.len());
        // Cut short, a log that was not closed may end between two groups: not told from its end.
        let holes = (0..len).step_by(512.max(len / 16));
        for start in holes {
            let hole = |disk: &SimDisk| {
                disk.tamper(&path, |bytes| bytes[start..(start + 512).min(len)].fill(0xff));
            };
            trial.judged(subject.try_damage(hole), || format!("{name}: {path} hole at {start}"))?;
        }
        trial.judged(subject.try_damage(|d| d.lose(&path)), || format!("{name}: {path} lost"))?;
    }
    Ok(())
}
