//! A disk that fails: every sync, every write and every other step in turn, in every mode.
//! What was acknowledged stays, errors have a kind, and what goes on is sound (P2, P7).

use std::collections::BTreeMap;

use steadfast::{Database, ErrorKind};
use steadfast_testing::crash::{Cut, Effort, Judge};
use steadfast_testing::model::{Op, content_now};
use steadfast_testing::sim::{EIO, ENOSPC, FailedSync, Fault, SimDisk, StepKind};
use steadfast_testing::workload::{Driver, History, MODES, Workload, builder};

const EFFORT: Effort =
    Effort { random: 4, nested_every: 0, depth: 0, queued_versions: true, lost_pages: true };

fn seed() -> u64 {
    std::env::var("STEADFAST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// How often each kind of step happens when nothing goes wrong.
fn counts(workload: &Workload) -> BTreeMap<StepKind, u64> {
    let disk = SimDisk::new();
    let (history, db) = Driver::new(disk.clone(), workload.clone()).run();
    assert!(history.errors.is_empty(), "{:?}", history.errors);
    drop(db);
    StepKind::CHANGES.iter().map(|kind| (*kind, disk.count(*kind))).collect()
}

fn poisoned(history: &History) -> bool {
    history
        .errors
        .iter()
        .any(|(_, error)| matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Poisoned))
}

fn put(db: &Database) -> Result<(), steadfast::Error> {
    let op = Op::Put("after".into(), "fault".into(), true.into());
    db.transaction(|tx| op.apply(tx)).map(drop)
}

/// Runs a program on a disk with one fault and judges everything that follows from it.
fn suffer(workload: &Workload, fault: Fault) -> Result<bool, String> {
    let disk = SimDisk::new();
    disk.inject(fault);
    let (mut history, db) = Driver::new(disk.clone(), workload.clone()).run();
    if !history.errors.is_empty() {
        // An empty database whose creation failed half-way may be gone again.
        let begun = history.progress.iter_mut().take_while(|progress| progress.acknowledged == 0);
        begun.for_each(|progress| progress.created = false);
    }
    for (index, error) in &history.errors {
        if !matches!(error.kind(), ErrorKind::Io | ErrorKind::Unknown | ErrorKind::Poisoned) {
            return Err(format!("action {index}: kind {}: {error}", error.kind()));
        }
    }
    let progress = *history.progress.last().expect("there is always one");
    let mut judge = Judge::new(&history, workload, EFFORT, seed());
    let moment = disk.moment();
    for cut in [Cut::Kill, Cut::Power] {
        judge.moment(&moment, cut).map_err(|why| format!("{cut:?} afterwards: {why}"))?;
    }
    disk.heal();
    if let Some(db) = &db {
        let content = content_now(db).map_err(|error| format!("reading: {error}"))?;
        let visible = if poisoned(&history) { progress.acknowledged } else { progress.issued };
        let differences = history.models[visible].compare(&content);
        if !differences.is_empty() {
            return Err(format!("readers see after {visible} commits: {differences:?}"));
        }
        match (put(db), poisoned(&history)) {
            (Ok(()), false) => {}
            (Err(error), true) if error.kind() == ErrorKind::Poisoned => {
                let fingerprint = disk.fingerprint();
                let spares = disk.paths().len();
                db.close().map_err(|error| format!("closing a poisoned database: {error}"))?;
                if disk.fingerprint() != fingerprint && disk.paths().len() >= spares {
                    return Err("closing a poisoned database wrote".into());
                }
                return Ok(true);
            }
            (result, poisoned) => return Err(format!("poisoned {poisoned}, then {result:?}")),
        }
        db.close().map_err(|error| format!("closing: {error}"))?;
    }
    drop(db);
    let db = builder(&disk, workload.config.clone())
        .open()
        .map_err(|error| format!("again: {error}"))?;
    if poisoned(&history) {
        // What is there then was judged above.
        return Ok(true);
    }
    let content = content_now(&db).map_err(|error| error.to_string())?;
    let mut model =
        steadfast_testing::model::ReferenceModel::clone(&history.models[progress.issued]);
    if let Ok(run) = db.resolve_run("after")
        && let Ok(Some(found)) = db.kv_get(run, "fault")
    {
        model.apply(&[Op::Put("after".into(), "fault".into(), true.into())], found.version);
    }
    let differences = model.compare(&content);
    if differences.is_empty() {
        Ok(false)
    } else {
        Err(format!("closed and opened: {differences:?}"))
    }
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
                    match suffer(&workload, fault) {
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
        let disk = SimDisk::new();
        let (_, db) = Driver::new(disk.clone(), workload.clone()).run();
        let killed = disk.killed();
        drop(db);
        for kind in StepKind::LOOKS {
            for after in 0.. {
                let disk = killed.killed();
                let before = disk.fingerprint();
                disk.inject(Fault::once(kind, after, EIO));
                let reading = builder(&disk, workload.config.clone()).open_read_only();
                if disk.has_struck()
                    && let Err(error) = &reading
                {
                    assert_eq!(error.kind(), ErrorKind::Io, "{mode:?} {kind:?} {after}: {error}");
                }
                assert!(
                    !disk.has_struck() || reading.is_err(),
                    "{mode:?} {kind:?} {after}: a read-only opening went on"
                );
                disk.heal();
                assert_eq!(disk.fingerprint(), before);
                disk.inject(Fault::once(kind, after, EIO));
                let opened = builder(&disk, workload.config.clone()).open();
                let struck = disk.has_struck();
                disk.heal();
                match opened {
                    Ok(_) if !struck => break,
                    // Past the point where the log is ready, it may be about evidence only.
                    Ok(_) => {}
                    Err(error) => {
                        assert_eq!(
                            error.kind(),
                            ErrorKind::Io,
                            "{mode:?} {kind:?} {after}: {error}"
                        );
                    }
                }
                builder(&disk, workload.config.clone()).open().unwrap_or_else(|error| {
                    panic!("{mode:?} {kind:?} {after}: then refused: {error}")
                });
            }
        }
    }
}
