//! Long work says how far it has come, can be stopped, and then has changed nothing (P13).
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use steadfast::{
    CompactMode, Compression, Database, DatabaseBuilder, DatabaseConfig, ErrorKind, Progress,
    Result, Run, Stage, restore_with, salvage_with,
};
use steadfast_testing::model::content_now;
use steadfast_testing::sim::{SimDisk, StepKind};
use steadfast_testing::workload::{builder, builder_at};

/// Several sections of a snapshot, and several times what is done between two reports.
const ROWS: u64 = 4 << 10;
const VALUE_BYTES: usize = 1 << 10;

fn config() -> DatabaseConfig {
    DatabaseConfig::buffered().manual_checkpoints().compression(Compression::None)
}

/// A database that is larger than what is done between two reports, a checkpoint of half of it,
/// and no newer one.
fn filled(disk: &SimDisk) -> (Database, Run) {
    let db = builder(disk, config()).open().unwrap();
    let run = db.create_run("run").unwrap();
    for row in 0..ROWS {
        if row == ROWS / 2 {
            db.checkpoint().unwrap();
        }
        let value = vec![row.to_le_bytes()[0]; VALUE_BYTES];
        db.kv_put(run, format!("key {row:06}"), value.as_slice()).unwrap();
    }
    db.flush().unwrap();
    (db, run)
}

/// What was said, in order.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Progress>>>);

impl Heard {
    fn listener(&self) -> impl FnMut(Progress) -> ControlFlow<()> + Send + 'static {
        let heard = self.0.clone();
        move |progress| {
            heard.lock().unwrap().push(progress);
            ControlFlow::Continue(())
        }
    }

    /// The stages, each with its reports; all is as it must be.
    fn stages(&self, what: &str) -> Vec<(Stage, Vec<Progress>)> {
        let heard = self.0.lock().unwrap();
        let mut stages: Vec<(Stage, Vec<Progress>)> = Vec::new();
        for at in heard.iter() {
            assert!(at.bytes <= at.bytes_total, "{what}: {at:?}");
            match stages.last_mut() {
                Some((stage, reports)) if *stage == at.stage => {
                    assert!(reports.last().unwrap().bytes <= at.bytes, "{what}: back to {at:?}");
                    reports.push(*at);
                }
                _ => stages.push((at.stage, vec![*at])),
            }
        }
        for (stage, reports) in &stages {
            let last = reports.last().unwrap();
            assert_eq!(last.bytes, last.bytes_total, "{what}: {stage:?} ends at its total");
        }
        stages
    }
}

/// Something that takes long. The database is the handle to do it with.
struct Work {
    name: &'static str,
    stages: &'static [Stage],
    /// Reports of the first stage, at the least.
    reports: usize,
    act: fn(Database, Run, DatabaseBuilder) -> Result<()>,
}

const WORKS: &[Work] = &[
    Work {
        name: "checkpoint",
        stages: &[Stage::Write],
        reports: 4,
        act: |db, _, _| db.checkpoint().map(drop),
    },
    Work {
        name: "compact",
        stages: &[Stage::Trim, Stage::Write, Stage::ReadBack],
        reports: 1,
        act: |db, _, _| db.compact(CompactMode::Full).map(drop),
    },
    Work {
        name: "compact the log",
        stages: &[Stage::ReadBack],
        reports: 3,
        act: |db, _, _| db.compact(CompactMode::WalOnly).map(drop),
    },
    Work {
        name: "verify",
        stages: &[Stage::ReadBack],
        reports: 3,
        act: |db, _, _| db.verify().map(|damaged| assert_eq!(damaged, [])),
    },
    Work {
        name: "backup",
        stages: &[Stage::Write, Stage::ReadBack],
        reports: 4,
        act: |db, _, _| db.backup("copy").map(drop),
    },
    Work {
        name: "restore",
        stages: &[Stage::Replay, Stage::Write, Stage::ReadBack],
        reports: 1,
        act: |_, _, builder| restore_with(builder, "copy", None).map(drop),
    },
    Work {
        name: "salvage",
        stages: &[Stage::Load, Stage::Replay, Stage::Write, Stage::ReadBack],
        reports: 2,
        act: |db, _, builder| {
            // Nobody may have it open.
            db.close()?;
            salvage_with(builder, Some(Path::new("copy"))).map(drop)
        },
    },
    Work {
        name: "export",
        stages: &[Stage::Write, Stage::ReadBack],
        reports: 4,
        act: |db, run, _| db.export_run(run, "run.chk").map(drop),
    },
];

impl Work {
    /// Does it on what a kill of `db` would leave, which is opened again.
    fn run(
        &self,
        disk: &SimDisk,
        listener: impl FnMut(Progress) -> ControlFlow<()> + Clone + Send + 'static,
    ) -> Result<()> {
        let db = builder(disk, config()).open_existing()?;
        db.wait_loaded()?;
        let run = db.resolve_run("run")?;
        let handle = db.with_progress(listener.clone());
        let done = (self.act)(handle, run, builder(disk, config()).on_progress(listener));
        db.close()?;
        done
    }
}

/// What counts on a disk: everything but the log, which goes on in another segment after a
/// checkpoint that failed, and lock files, which are never removed.
fn files(disk: &SimDisk) -> Vec<(String, Option<Vec<u8>>)> {
    let counts = |path: &String| !path.contains("/WAL/") && !path.ends_with("LOCK");
    let changes = |path: &str| path.ends_with("MANIFEST");
    let content = |path: String| {
        let bytes = disk.bytes(&path).filter(|_| !changes(&path));
        (path, bytes)
    };
    disk.paths().into_iter().filter(counts).map(content).collect()
}

#[test]
fn bytes_rise_to_the_total_of_every_stage() {
    let disk = SimDisk::new();
    let (db, _) = filled(&disk);
    let mut rows_bytes = 0;
    for work in WORKS {
        let disk = disk.killed();
        let heard = Heard::default();
        let listener = heard.0.clone();
        let listener = move |progress| {
            listener.lock().unwrap().push(progress);
            ControlFlow::Continue(())
        };
        work.run(&disk, listener).unwrap_or_else(|error| panic!("{}: {error}", work.name));
        let stages = heard.stages(work.name);
        let names: Vec<Stage> = stages.iter().map(|stage| stage.0).collect();
        assert_eq!(names, work.stages, "{}", work.name);
        assert!(stages[0].1.len() >= work.reports, "{}: {stages:?}", work.name);
        for (stage, reports) in &stages {
            let total = reports.last().unwrap().bytes_total;
            match stage {
                Stage::Write if rows_bytes == 0 => rows_bytes = total,
                // Every way of writing everything writes the same.
                Stage::Write => assert_eq!(total, rows_bytes, "{}", work.name),
                _ => assert!(total > ROWS * VALUE_BYTES as u64 / 3, "{}: {stages:?}", work.name),
            }
            let first = reports[0].bytes_total;
            assert!(
                first.abs_diff(total) <= total / 20 || matches!(stage, Stage::Replay),
                "{}: {stage:?} said {first} before and {total} in the end",
                work.name
            );
        }
    }
    assert!(rows_bytes > ROWS * VALUE_BYTES as u64, "{rows_bytes}");
    drop(db);
}

#[test]
fn loading_and_taking_in_a_run_say_how_far_they_are() {
    let disk = SimDisk::new();
    let (db, run) = filled(&disk);
    db.checkpoint().unwrap();
    let exported = db.export_run(run, "run.chk").unwrap();
    db.close().unwrap();
    let heard = Heard::default();
    let db = builder(&disk, config()).on_progress(heard.listener()).open_existing().unwrap();
    db.wait_loaded().unwrap();
    let stages = heard.stages("loading");
    let load = stages.iter().find(|stage| stage.0 == Stage::Load).unwrap();
    assert!(load.1.len() > 4, "{stages:?}");
    db.close().unwrap();
    // The same, beside a handle that is told.
    let other = builder_at(&disk, "other", config()).open().unwrap();
    let heard = Heard::default();
    other.with_progress(heard.listener()).import_run("run.chk", None).unwrap();
    let stages = heard.stages("import");
    assert_eq!(stages.iter().map(|s| s.0).collect::<Vec<_>>(), [Stage::ReadBack, Stage::Write]);
    assert_eq!(stages[0].1.last().unwrap().bytes, exported.bytes);
    assert!(stages[1].1.len() >= 4, "{stages:?}");
}

/// Stopped at each report in turn: what was there is there, nothing else is, and the same work
/// can be done again.
#[test]
fn what_is_stopped_has_changed_nothing() {
    let original = SimDisk::new();
    let (db, _) = filled(&original);
    let content = content_now(&db).unwrap();
    for work in WORKS {
        let mut stopped = 0;
        loop {
            let disk = original.killed();
            // Opening itself may change files: not what is asked here.
            builder(&disk, config()).open_existing().unwrap().close().unwrap();
            let before = files(&disk);
            let said = Arc::new(AtomicU64::new(0));
            let count = said.clone();
            let listener = move |_| match count.fetch_add(1, Ordering::Relaxed) {
                n if n < stopped => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            };
            let place = format!("{}, stopped at report {stopped}", work.name);
            match work.run(&disk, listener) {
                Ok(()) => break,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Stopped, "{place}: {error}"),
            }
            assert_eq!(said.load(Ordering::Relaxed), stopped + 1, "{place}: it went on");
            let after = files(&disk);
            // A compaction has made its checkpoint before it begins to remove anything.
            let checkpoint = work.name == "compact" && after.len() == before.len() + 1;
            if !checkpoint {
                assert_eq!(names(&after), names(&before), "{place}");
                assert!(after == before, "{place}: a file has other bytes");
            }
            let db = builder(&disk.killed(), config()).open_existing().unwrap();
            assert!(content_now(&db).unwrap() == content, "{place}");
            drop(db);
            work.run(&disk, |_| ControlFlow::Continue(()))
                .unwrap_or_else(|error| panic!("{place}, then again: {error}"));
            stopped += 1;
        }
        assert!(stopped > work.stages.len() as u64, "{}: {stopped}", work.name);
    }
}

fn names(files: &[(String, Option<Vec<u8>>)]) -> Vec<&str> {
    files.iter().map(|file| file.0.as_str()).collect()
}

#[test]
fn an_import_that_is_stopped_leaves_no_row() {
    let disk = SimDisk::new();
    let (db, run) = filled(&disk);
    db.export_run(run, "run.chk").unwrap();
    db.close().unwrap();
    let other = builder_at(&disk, "other", config()).open().unwrap();
    other.create_run("mine").unwrap();
    let before = content_now(&other).unwrap();
    let mut written = 0;
    let impatient = other.with_progress(move |at| match at.stage {
        Stage::Write if written == 2 => ControlFlow::Break(()),
        Stage::Write => {
            written += 1;
            ControlFlow::Continue(())
        }
        _ => ControlFlow::Continue(()),
    });
    let error = impatient.import_run("run.chk", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
    assert!(other.resolve_run("run").is_err());
    assert_eq!(content_now(&other).unwrap(), before);
    other.compact(CompactMode::Full).unwrap();
    assert!(other.storage().stats().versions < 20, "{:?}", other.storage().stats());
    other.import_run("run.chk", None).unwrap();
    assert_eq!(content_now(&other).unwrap().len() as u64, ROWS + before.len() as u64 + 1);
}

#[test]
fn opening_can_be_stopped_and_changes_nothing() {
    let disk = SimDisk::new();
    drop(filled(&disk));
    let before = disk.fingerprint();
    let stop = |_| ControlFlow::Break(());
    let error = builder(&disk, config()).on_progress(stop).open_read_only().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
    assert_eq!(disk.fingerprint(), before);
    let error = builder(&disk, config()).on_progress(stop).open_existing().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
    assert_eq!(files(&disk), files(&disk.killed()));
    builder(&disk, config()).open_existing().unwrap();
}

/// A check of the newest snapshot, which may be large, ends within a section of it when the
/// database is closed.
#[test]
fn closing_stops_the_reading_back_of_a_snapshot() {
    for verify in [false, true] {
        let disk = SimDisk::new();
        let (db, _) = filled(&disk);
        db.checkpoint().unwrap();
        let newest = disk.paths().into_iter().rfind(|path| path.ends_with(".chk")).unwrap();
        let closing = db.clone();
        let closer = Arc::new(Mutex::new(None));
        let handle = closer.clone();
        disk.keep_journal();
        let at_closing = Arc::new(AtomicU64::new(0));
        let (journal, steps) = (disk.clone(), at_closing.clone());
        let working = db.with_progress(move |at| {
            let mut handle = handle.lock().unwrap();
            if at.stage == Stage::ReadBack && handle.is_none() {
                let db = closing.clone();
                *handle = Some(thread::spawn(move || db.close()));
                while closing.view().is_ok() {
                    thread::sleep(Duration::from_millis(1));
                }
                // It says so just after no new work is taken.
                thread::sleep(Duration::from_millis(50));
                steps.store(journal.journal().len() as u64, Ordering::Relaxed);
            }
            ControlFlow::Continue(())
        });
        let error = match verify {
            true => working.verify().map(drop).unwrap_err(),
            false => working.compact(CompactMode::WalOnly).map(drop).unwrap_err(),
        };
        assert_eq!(error.kind(), ErrorKind::Closed);
        closer.lock().unwrap().take().unwrap().join().unwrap().unwrap();
        let from = usize::try_from(at_closing.load(Ordering::Relaxed)).unwrap();
        let read = |step: &&steadfast_testing::sim::Step| {
            step.kind == StepKind::Read && step.path == Path::new(&newest)
        };
        let bytes: u64 = disk.journal()[from..].iter().filter(read).map(|step| step.range.1).sum();
        assert!(bytes <= 2 << 20, "{bytes} bytes of the snapshot were read after closing began");
        let snapshots = disk.paths().into_iter().filter(|path| path.ends_with(".chk")).count();
        assert_eq!(snapshots, 2, "nothing was removed");
    }
}

/// However many sections are damaged, the log that they are rebuilt from is read as often as for
/// one.
#[test]
fn damaged_sections_are_rebuilt_with_one_reading_of_the_log() {
    let original = SimDisk::new();
    let (db, _) = filled(&original);
    db.checkpoint().unwrap();
    let content = content_now(&db).unwrap();
    db.close().unwrap();
    let newest = original.paths().into_iter().rfind(|path| path.ends_with(".chk")).unwrap();
    let read_for = |sections: usize| {
        let disk = original.killed();
        disk.tamper(&newest, |bytes| {
            (0..sections).for_each(|section| bytes[(section << 20) + 5000] ^= 1);
        });
        let db = builder(&disk, config()).open_existing().unwrap();
        disk.keep_journal();
        db.wait_loaded().unwrap();
        assert_eq!(db.stats().unwrap().load.rebuilt, sections);
        let of_log = |step: &&steadfast_testing::sim::Step| {
            step.kind == StepKind::Read && step.path.starts_with("db/WAL")
        };
        let bytes: u64 = disk.journal().iter().filter(of_log).map(|step| step.range.1).sum();
        assert!(content_now(&db).unwrap() == content, "{sections} damaged sections");
        bytes
    };
    let (one, four) = (read_for(1), read_for(4));
    assert!(one > ROWS / 2 * VALUE_BYTES as u64, "the log was read at all: {one}");
    assert_eq!(four, one, "bytes of the log that were read");
}
