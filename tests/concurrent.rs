//! Threads that get in each other's way on a few keys, recorded and checked: in memory, on real
//! files beside checkpoints and compactions, killed, and cut off from power.
//!
//! The seed says what each thread asks for. In which order the threads get their turn it does not
//! say: that is the system's choice, and another one each time. Orders that can be repeated are
//! explored with shuttle, in `crates/engine/tests/shuttle.rs`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // the history is a file beside the database

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use steadfast::{CompactMode, Database, DatabaseConfig, DurabilityMode, Run};
use steadfast_testing::concurrent::{
    Checked, Crash, History, Load, Mix, Recorder, State, check, check_recovered,
};
use steadfast_testing::seed::seed_or;
use steadfast_testing::sim::{Fault, SimDisk, StepKind};

const THREADS: u64 = 4;

const MODES: [DurabilityMode; 3] = [
    DurabilityMode::Strict,
    DurabilityMode::Batched { interval: Duration::from_millis(5), commits: 20 },
    DurabilityMode::Buffered,
];

/// Small segments, so that there are many.
fn config(mode: DurabilityMode) -> DatabaseConfig {
    DatabaseConfig::new(mode).segment_bytes(32 << 10).checkpoint_bytes(100 << 10)
}

/// Each thread runs `steps` transactions; `beside` runs until they have.
fn contend(
    recorder: &Recorder,
    db: &Database,
    run: Run,
    (seed, steps, mix): (u64, u64, Mix),
    beside: impl Fn() + Send,
) {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let threads = (0..THREADS).map(|thread| {
            scope.spawn(move || {
                let load = Load::new(format!("t{thread}"), mix, seed * 100 + thread);
                let mut load = load.pausing(std::thread::yield_now);
                for _ in 0..steps {
                    let receipt = load.step(recorder, db, run).unwrap();
                    if let Some(receipt) = receipt.filter(|_| db.mode() == DurabilityMode::Strict) {
                        recorder.promised(receipt.version());
                    }
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        let ended = &ended;
        scope.spawn(move || {
            while !ended.load(Ordering::Acquire) {
                beside();
            }
        });
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        ended.store(true, Ordering::Release);
        results.into_iter().for_each(|result| result.unwrap());
    });
}

fn judged(what: &str, result: Result<Checked, impl std::fmt::Display>) -> Checked {
    match result {
        Ok(checked) => {
            println!("{what}: {checked}");
            checked
        }
        Err(violations) => panic!("{what}:\n{violations}"),
    }
}

#[test]
fn threads_in_memory_are_serializable() {
    let seed = seed_or(1);
    let mut lost = 0;
    for (round, keys) in [2, 8, 64].into_iter().enumerate() {
        let db = Database::in_memory().unwrap();
        let run = db.create_run("run").unwrap();
        let recorder = Recorder::of(&db, run).unwrap();
        let mix = Mix { keys, ..Mix::default() };
        contend(&recorder, &db, run, (seed + round as u64, 4000, mix), || {
            std::thread::sleep(Duration::from_millis(1));
        });
        let found = State::of(&db, run).unwrap();
        let checked = check_recovered(&recorder.history(), Crash::Kill, &found);
        let checked = judged(&format!("{keys} keys"), checked);
        assert!(checked.committed > 4000 && checked.read_only > 4000);
        lost += checked.failed;
    }
    assert!(lost > 0, "there were conflicts");
}

#[test]
fn threads_on_files_are_serializable_beside_checkpoints_and_compactions() {
    let seed = seed_or(2);
    for (round, mode) in MODES.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let db = Database::open_or_create(&path, config(mode)).unwrap();
        let run = db.create_run("run").unwrap();
        let recorder = Recorder::of(&db, run).unwrap();
        let mix = Mix { value_bytes: 100, ..Mix::default() };
        contend(&recorder, &db, run, (seed + round as u64, 800, mix), || {
            db.checkpoint().unwrap();
            db.compact(CompactMode::Full).unwrap();
            db.flush().unwrap();
            std::thread::sleep(Duration::from_millis(3));
        });
        assert!(db.stats().unwrap().snapshot.is_some());
        db.close().unwrap();
        let db = Database::open_existing(&path, config(mode)).unwrap();
        let found = State::of(&db, db.resolve_run("run").unwrap()).unwrap();
        let checked = check_recovered(&recorder.history(), Crash::Kill, &found);
        assert!(judged(&format!("{mode:?}"), checked).committed > 800);
    }
}

const CHILD: &str = "STEADFAST_CONCURRENT_CHILD";

/// What the killed process runs: `<life> <mode> <seed> <history> <database>`.
#[test]
#[ignore = "runs in the process that is killed"]
fn child() {
    let job = std::env::var(CHILD).expect("the parent says what to do");
    let words: Vec<&str> = job.splitn(5, ' ').collect();
    let [life, mode, seed, lines, path] = words[..] else { panic!("{job}") };
    let (mode, seed): (usize, u64) = (mode.parse().unwrap(), seed.parse().unwrap());
    let db = Database::open_or_create(path, config(MODES[mode])).unwrap();
    let run = db.get_or_create_run("run").unwrap();
    let lines = std::fs::File::create(lines).unwrap();
    let recorder = Recorder::of(&db, run).unwrap().write_lines(lines).unwrap();
    let (recorder, db) = (&recorder, &db);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let mut load =
                Load::new(format!("{life}.{thread}"), Mix::default(), seed * 10 + thread);
            scope.spawn(move || {
                loop {
                    load.step(recorder, db, run).unwrap();
                }
            });
        }
        scope.spawn(move || {
            loop {
                db.checkpoint().unwrap();
                db.compact(CompactMode::WalOnly).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    });
}

/// Runs the child on `path` and kills it some time after it has begun.
fn kill_one(path: &Path, lines: &Path, (life, mode, seed): (u64, usize, u64), after: Duration) {
    let job = format!("{life} {mode} {seed} {} {}", lines.display(), path.display());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(CHILD, job)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let patience = Instant::now() + Duration::from_secs(30);
    while std::fs::metadata(lines).map_or(0, |file| file.len()) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        assert!(Instant::now() < patience, "the child did not begin");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(after);
    assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_killed_process_leaves_what_its_threads_were_told() {
    const LIVES: u64 = 7;
    let mut rng = fastrand::Rng::with_seed(seed_or(3));
    let (mut committed, mut kept, mut gone) = (0, 0, 0);
    for (mode, durability) in MODES.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let (path, lines) = (dir.path().join("db"), dir.path().join("history"));
        let mut before: Option<State> = None;
        for life in 0..LIVES {
            let after = Duration::from_millis(rng.u64(1..120));
            let _ = std::fs::remove_file(&lines);
            kill_one(&path, &lines, (life, mode, rng.u64(..1000)), after);
            let history = History::from_lines(&std::fs::read_to_string(&lines).unwrap()).unwrap();
            if let Some(before) = before {
                assert_eq!(history.initial, before, "opening again changed something");
            }
            let db = Database::open_existing(&path, config(durability)).unwrap();
            let found = State::of(&db, db.resolve_run("run").unwrap()).unwrap();
            let what = format!("{durability:?}, life {life}, killed after {after:?}");
            let checked = judged(&what, check_recovered(&history, Crash::Kill, &found));
            committed += checked.committed;
            (kept, gone) = (kept + checked.unknown_in, gone + checked.unknown_out);
            before = Some(found);
            db.close().unwrap();
        }
    }
    println!("{committed} committed; of those in flight {kept} were there and {gone} not");
    assert!(committed > 100);
}

#[test]
fn a_power_cut_among_threads_leaves_a_prefix() {
    let seed = seed_or(4);
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut images, mut kept) = (0, 0);
    for (round, mode) in MODES.into_iter().cycle().take(9).enumerate() {
        let disk = SimDisk::new();
        let open = |disk: &SimDisk| {
            Database::builder("db").config(config(mode)).disk(Arc::new(disk.clone()))
        };
        let db = open(&disk).create().unwrap();
        let run = db.create_run("run").unwrap();
        db.flush().unwrap();
        let noted = disk.clone();
        let recorder = Recorder::of(&db, run).unwrap().on_event(move |event| noted.note(event));
        disk.record_moments();
        let mix = Mix { reads_one_in: 6, value_bytes: 100, ..Mix::default() };
        contend(&recorder, &db, run, (seed + round as u64, 30, mix), || {
            let version = db.current_version();
            db.flush().unwrap();
            recorder.promised(version);
            db.checkpoint().unwrap();
            db.compact(CompactMode::WalOnly).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        });
        let moments = disk.take_moments();
        let history = recorder.history();
        judged(&format!("{mode:?}, not cut"), check(&history));
        for _ in 0..40 {
            let moment = rng.choice(&moments).unwrap();
            let known = history.until(moment.note());
            let plans = moment.plans(4, &mut rng);
            let plan = rng.choice(&plans).unwrap();
            for (crash, image) in
                [(Crash::PowerCut, moment.cut(plan)), (Crash::Kill, moment.kill())]
            {
                let db = open(&image).without_threads().open_existing();
                let db = db.unwrap_or_else(|error| panic!("{moment:?}, {plan}: {error}"));
                let found = State::of(&db, db.resolve_run("run").unwrap()).unwrap();
                let checked = check_recovered(&known, crash, &found);
                let checked = checked.unwrap_or_else(|bad| {
                    panic!("{mode:?}, seed {seed}, {crash:?} at {moment:?}, {plan}:\n{bad}")
                });
                images += 1;
                kept += checked.unknown_in;
                db.close().unwrap();
            }
        }
    }
    println!("{images} images, in which {kept} transactions that were in flight were there");
    assert!(kept > 0, "some were in flight");
}

/// Found with shuttle: the log removes a segment that was prepared too late while a compaction,
/// which has seen the file, is about to.
#[test]
fn a_compaction_does_not_mind_that_a_file_is_gone_already() {
    const ENOENT: i32 = 2;
    let disk = SimDisk::new();
    let builder = Database::builder("db").config(config(DurabilityMode::Buffered));
    let db = builder.disk(Arc::new(disk.clone())).without_threads().create().unwrap();
    let run = db.create_run("run").unwrap();
    for n in 0..20 {
        db.kv_put(run, format!("key {n}"), "x".repeat(4000)).unwrap();
    }
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    // The first is an old draft of the MANIFEST.
    disk.inject(Fault::once(StepKind::Remove, 1, ENOENT));
    let compacted = db.compact(CompactMode::WalOnly).unwrap();
    assert!(disk.has_struck() && compacted.wal_segments_removed > 0);
}
