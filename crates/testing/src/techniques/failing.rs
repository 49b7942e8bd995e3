//! A disk that fails, once, at a step of a program or of an opening.

use super::{Trial, Verdict};
use crate::faults::{counts, suffer, suffer_reading};
use crate::sim::{EIO, ENOSPC, FailedSync, Fault, StepKind};
use crate::workload::Workload;

/// Steps of one kind that fail, of each program.
const SAMPLE: u64 = 6;

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
            for after in (0..count).step_by(usize::try_from(count / SAMPLE + 1).unwrap_or(1)) {
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
    }
    Ok(())
}
