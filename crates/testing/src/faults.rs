//! A disk that fails once, at a chosen step, and what must follow from it: what was acknowledged
//! stays, errors have a kind, what goes on is sound, and after a failed sync nothing goes on.

use std::collections::BTreeMap;

use steadfast_engine::{Database, Error, ErrorKind};

use crate::crash::{Cut, Effort, Judge};
use crate::model::{Op, ReferenceModel, content_now};
use crate::sim::{EIO, Fault, SimDisk, StepKind};
use crate::workload::{Driver, History, Workload, builder};

const EFFORT: Effort =
    Effort { random: 4, nested_every: 0, depth: 0, queued_versions: true, lost_pages: true };

/// How often each kind of step happens when nothing goes wrong.
pub fn counts(workload: &Workload) -> BTreeMap<StepKind, u64> {
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

fn put(db: &Database) -> Result<(), Error> {
    let op = Op::Put("after".into(), "fault".into(), true.into());
    db.transaction(|tx| op.apply(tx)).map(drop)
}

/// Runs a program on a disk with one fault and judges everything that follows from it. Returns
/// whether it poisoned the log.
pub fn suffer(workload: &Workload, fault: Fault, seed: u64) -> Result<bool, String> {
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
    let mut judge = Judge::new(&history, workload, EFFORT, seed);
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
    let mut model = ReferenceModel::clone(&history.models[progress.issued]);
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

/// Opens what a program left while one look at the disk fails, each in turn: that is an error
/// and never taken for the end of anything, and the next opening finds all as it was. Returns
/// how many were tried.
pub fn suffer_reading(workload: &Workload) -> Result<u64, String> {
    let disk = SimDisk::new();
    let (_, db) = Driver::new(disk.clone(), workload.clone()).run();
    let killed = disk.killed();
    drop(db);
    let mut tried = 0;
    for kind in StepKind::LOOKS {
        for after in 0.. {
            let fail = |why: String| Err(format!("{:?} {kind:?} {after}: {why}", workload.mode));
            let disk = killed.killed();
            let before = disk.fingerprint();
            disk.inject(Fault::once(kind, after, EIO));
            tried += 1;
            let reading = builder(&disk, workload.config.clone()).open_read_only();
            match &reading {
                Err(error) if disk.has_struck() && error.kind() != ErrorKind::Io => {
                    return fail(format!("kind {}: {error}", error.kind()));
                }
                Ok(_) if disk.has_struck() => {
                    return fail("a read-only opening went on".to_owned());
                }
                _ => {}
            }
            disk.heal();
            if disk.fingerprint() != before {
                return fail("a read-only opening wrote".to_owned());
            }
            disk.inject(Fault::once(kind, after, EIO));
            let opened = builder(&disk, workload.config.clone()).open();
            let struck = disk.has_struck();
            disk.heal();
            match opened {
                Ok(_) if !struck => break,
                // Past the point where the log is ready, it may be about evidence only.
                Ok(_) => {}
                Err(error) if error.kind() != ErrorKind::Io => {
                    return fail(format!("kind {}: {error}", error.kind()));
                }
                Err(_) => {}
            }
            if let Err(error) = builder(&disk, workload.config.clone()).open() {
                return fail(format!("then refused: {error}"));
            }
        }
    }
    Ok(tried)
}
