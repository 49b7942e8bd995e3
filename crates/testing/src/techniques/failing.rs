//! A disk that fails, once, at a step of a program or of an opening.

use steadfast_engine::{DurabilityMode, Value};

use super::{Trial, Verdict};
use crate::faults::{counts, suffer, suffer_reading};
use crate::model::Op;
use crate::sim::{EIO, ENOSPC, FailedSync, Fault, StepKind};
use crate::workload::{Action, Workload};

/// Steps of one kind that fail, of each program.
const SAMPLE: u64 = 12;

pub(super) fn reads(trial: &mut Trial) -> Verdict {
    for mode in trial.modes.clone() {
        if !trial.goes_on() {
            break;
        }
        let workload = Workload::seeded(trial.seed, mode, 12);
        let tried = suffer_reading(&workload);
        trial.images += tried.as_ref().copied().unwrap_or(1);
        tried?;
    }
    Ok(())
}

pub(super) fn writes(trial: &mut Trial) -> Verdict {
    for mode in trial.modes.clone() {
        if !trial.goes_on() {
            break;
        }
        let workload = Workload::seeded(trial.seed, mode, 24);
        for (kind, count) in counts(&workload) {
            let step = usize::try_from(count / SAMPLE + 1).unwrap_or(1);
            for after in (0..count).step_by(step) {
                let once = |errno| Fault::once(kind, after, errno);
                let faults = match kind {
                    StepKind::SyncData | StepKind::SyncAll | StepKind::SyncDir => {
                        vec![
                            once(EIO).syncing(FailedSync::LostAtCut),
                            once(EIO).syncing(FailedSync::DurableAnyway),
                        ]
                    }
                    StepKind::Write | StepKind::WriteDurable | StepKind::Allocate => {
                        vec![once(ENOSPC).landing(700), once(EIO).landing(usize::MAX)]
                    }
                    _ => vec![once(EIO)],
                };
                for fault in faults {
                    if !trial.goes_on() {
                        return Ok(());
                    }
                    let verdict = suffer(&workload, fault, trial.seed);
                    trial.judged(verdict, || {
                        format!("{mode:?}, {kind:?} {after} fails ({})", fault.errno)
                    })?;
                }
            }
        }
        every_sync(trial, &log_only(mode))?;
    }
    Ok(())
}

/// Each sync of a program loses its pages and says so.
fn every_sync(trial: &mut Trial, workload: &Workload) -> Verdict {
    for (kind, count) in counts(workload).into_iter().filter(|(kind, _)| kind.is_sync()) {
        for after in 0..count {
            if !trial.goes_on() {
                return Ok(());
            }
            let fault = Fault::once(kind, after, EIO).syncing(FailedSync::LostAtCut);
            let verdict = suffer(workload, fault, trial.seed);
            let mode = workload.mode;
            trial.judged(verdict, || format!("{mode:?}, a log, {kind:?} {after} fails"))?;
        }
    }
    Ok(())
}

/// A program without checkpoints: what its log loses, nothing else has.
fn log_only(mode: DurabilityMode) -> Workload {
    let put = |n: usize| {
        let value = Value::from(vec![7; 300].as_slice());
        Op::Put("run".into(), format!("k{n}"), value)
    };
    let rounds = (0..6).flat_map(|round| {
        let commits = (0..4).map(move |n| Action::Commit(vec![put(round * 4 + n)]));
        commits.chain([Action::CommitStrict(vec![put(100 + round)]), Action::Flush])
    });
    Workload::new(rounds.collect(), mode)
}
