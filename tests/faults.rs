//! A disk that fails: every sync, every write and every other step in turn, in every mode.
//! What was acknowledged stays, errors have a kind, and what goes on is sound (P2, P7).

use steadfast::{Database, ErrorKind};
use steadfast_testing::faults::{counts, suffer, suffer_reading};
use steadfast_testing::model::{Op, content_now};
use steadfast_testing::sim::{EIO, ENOSPC, FailedSync, Fault, SimDisk, StepKind};
use steadfast_testing::workload::{Driver, MODES, Workload, builder};

fn seed() -> u64 {
    std::env::var("STEADFAST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn put(db: &Database) -> Result<(), steadfast::Error> {
    let op = Op::Put("after".into(), "fault".into(), true.into());
    db.transaction(|tx| op.apply(tx)).map(drop)
}

fn suffer_everywhere(kinds: &[StepKind], variants: &[fn(Fault) -> Fault], errno: i32) {
    let (mut tried, mut poisoned, mut failures) = (0, 0, Vec::new());
    for mode in MODES {
        let workload = Workload::seeded(seed(), mode, 32);
        for (kind, count) in counts(&workload) {
            if !kinds.contains(&kind) {
                continue;
            }
            // Of many of a kind, a sample.
            let stride = usize::try_from(count / 25 + 1).unwrap_or(1);
            for after in (0..count).step_by(stride) {
                for (number, variant) in variants.iter().enumerate() {
                    let fault = variant(Fault::once(kind, after, errno));
                    tried += 1;
                    match suffer(&workload, fault, seed()) {
                        Ok(poison) => poisoned += u32::from(poison),
                        Err(why) => failures.push(format!("{mode:?} {fault:?} ({number}): {why}")),
                    }
                }
            }
        }
    }
    println!("{tried} faults, {poisoned} poisoned, {} failures", failures.len());
    let list = failures.iter().take(12).map(|why| why.chars().take(600).collect::<String>());
    assert!(
        failures.is_empty(),
        "STEADFAST_SEED={}:\n{}",
        seed(),
        list.collect::<Vec<_>>().join("\n")
    );
}

const SYNCS: [StepKind; 3] = [StepKind::SyncData, StepKind::SyncAll, StepKind::SyncDir];

#[test]
fn a_failed_sync_is_final() {
    suffer_everywhere(
        &SYNCS,
        &[
            |fault| fault.syncing(FailedSync::LostAtCut),
            |fault| fault.syncing(FailedSync::StayDirty),
            |fault| fault.syncing(FailedSync::Reverted),
            |fault| fault.syncing(FailedSync::DurableAnyway),
            |fault| fault.syncing(FailedSync::LostAtCut).sticky(),
        ],
        EIO,
    );
}

#[test]
fn a_full_disk_is_met_and_left_behind() {
    let kinds = [
        StepKind::Create,
        StepKind::CreateDir,
        StepKind::Allocate,
        StepKind::Write,
        StepKind::WriteDurable,
        StepKind::SyncAll,
    ];
    suffer_everywhere(
        &kinds,
        &[|fault| fault, |fault| fault.landing(700), |fault| fault.sticky()],
        ENOSPC,
    );
}

#[test]
fn any_other_step_may_fail() {
    let kinds = [StepKind::Rename, StepKind::Remove, StepKind::SetLen, StepKind::Write];
    suffer_everywhere(
        &kinds,
        &[|fault| fault, |fault| fault.sticky(), |fault| fault.landing(usize::MAX)],
        EIO,
    );
}

#[test]
fn goes_on_when_there_is_space_again() {
    for mode in MODES {
        let workload = Workload::seeded(seed(), mode, 32);
        let whole = SimDisk::new();
        drop(Driver::new(whole.clone(), workload.clone()).run());
        for room in (0..whole.used_bytes()).step_by(3000) {
            let disk = SimDisk::new();
            disk.set_capacity(Some(room));
            let (history, db) = Driver::new(disk.clone(), workload.clone()).run();
            for (index, error) in &history.errors {
                assert_eq!(error.kind(), ErrorKind::Io, "{mode:?} {room} {index}: {error}");
            }
            disk.set_capacity(None);
            let issued = history.progress.last().map_or(0, |progress| progress.issued);
            if let Some(db) = db {
                assert_eq!(history.models[issued].compare(&content_now(&db).unwrap()), []);
                put(&db).unwrap_or_else(|error| panic!("{mode:?} {room}: {error}"));
                db.close().unwrap_or_else(|error| panic!("{mode:?} {room}: {error}"));
            }
            let db = builder(&disk, workload.config.clone()).open().unwrap();
            assert!(content_now(&db).unwrap().len() >= history.models[issued].content().len());
        }
    }
}

#[test]
fn an_error_while_reading_is_never_taken_for_the_end() {
    for mode in MODES {
        let workload = Workload::seeded(seed(), mode, 24);
        let tried = suffer_reading(&workload).unwrap_or_else(|why| panic!("{why}"));
        assert!(tried >= 20, "{mode:?}: {tried}");
    }
}
