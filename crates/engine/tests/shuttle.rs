//! The commit pipeline, checkpoints and closing in orders that a scheduler chooses: it lets one
//! thread run at a time and decides at every lock, wait, atomic and change of the disk who is
//! next. What the threads were told is checked as a history, and the disk as it was at some
//! moment is opened and held against it. Built only with `--cfg shuttle`:
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test -p steadfast-engine --test shuttle --target-dir target/shuttle --release`
//!
//! `STEADFAST_SCHEDULES=n` tries so many of each kind, `STEADFAST_SEED=n` others. A failure prints
//! its schedule; `STEADFAST_SCHEDULE=…`, with the name of the test, runs that one again.
#![cfg(shuttle)]
#![allow(clippy::unwrap_used)]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use shuttle::rand::RngCore;
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, Runner, thread};
use steadfast_engine::disk::{Access, Disk, DiskFile, EntryKind, Lock};
use steadfast_engine::{
    CompactMode, Database, DatabaseConfig, DurabilityMode, Entropy, ErrorKind, ManualClock, Run,
    Timestamp, Version,
};
use steadfast_testing::concurrent::{Crash, Load, Mix, Recorder, State, check, check_recovered};
use steadfast_testing::sim::{EIO, FailedSync, Fault, Moment, Plan, SimDisk, StepKind};

const BATCHED: DurabilityMode =
    DurabilityMode::Batched { interval: Duration::from_secs(3600), commits: 2 };

const MODES: [DurabilityMode; 3] = [DurabilityMode::Strict, BATCHED, DurabilityMode::Buffered];

/// Lets the scheduler choose who is next.
fn turn() {
    // A yield would say that this thread has nothing to do.
    shuttle::sync::atomic::AtomicUsize::new(0).load(Ordering::SeqCst);
}

/// A simulated disk before each change of which others may have their turn.
#[derive(Debug)]
struct TurnDisk(SimDisk);

#[derive(Debug)]
struct TurnFile(Arc<dyn DiskFile>);

impl TurnDisk {
    fn file(file: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(TurnFile(file?)))
    }
}

impl Disk for TurnDisk {
    fn create(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        turn();
        Self::file(self.0.create(path, access))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        Self::file(self.0.open(path, access))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.0.kind(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.0.list(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        turn();
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        turn();
        self.0.remove(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        turn();
        self.0.sync_dir(directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        self.0.lock(path)
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.0.is_locked(path)
    }
}

impl DiskFile for TurnFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    // Reading may happen under a lock of the store, which is not the scheduler's: no turn.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        turn();
        self.0.write_at(offset, bytes)
    }

    fn write_at_durable(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        turn();
        self.0.write_at_durable(offset, bytes)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        turn();
        self.0.allocate(length)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        turn();
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        turn();
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        turn();
        self.0.sync_all()
    }
}

/// How many schedules were tried; says so when one fails.
#[derive(Default)]
struct Tried(AtomicUsize);

impl Drop for Tried {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed in schedule {}", self.0.load(Ordering::Relaxed));
        }
    }
}

/// Runs `model` under schedules that a seed chooses: random ones, and ones with few changes of
/// thread at unlikely places (PCT). It gets random bits that belong to the schedule.
fn explore(model: fn(u64)) {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let (seed, schedules) = (number("STEADFAST_SEED", 1), number("STEADFAST_SCHEDULES", 1500));
    let schedules = usize::try_from(schedules).unwrap();
    let tried = Arc::new(Tried::default());
    let run = |scheduler: Box<dyn Scheduler + Send>| {
        let tried = tried.clone();
        let mut config = Config::new();
        config.stack_size = 1 << 20;
        // Atomics are explored as if every access were sequentially consistent.
        config.silence_warnings = true;
        Runner::new(scheduler, config).run(move || {
            tried.0.fetch_add(1, Ordering::Relaxed);
            model(shuttle::rand::thread_rng().next_u64());
        })
    };
    if let Ok(schedule) = std::env::var("STEADFAST_SCHEDULE") {
        run(Box::new(ReplayScheduler::new_from_encoded(&schedule)));
        return;
    }
    let began = Instant::now();
    let random = run(Box::new(RandomScheduler::new_from_seed(seed, schedules)));
    let pct = run(Box::new(PctScheduler::new_from_seed(seed, 3, schedules)));
    println!("seed {seed}: {random} random schedules and {pct} of PCT in {:?}", began.elapsed());
}

/// A database on a simulated disk, with nothing in it but a run, and who writes down what happens.
struct World {
    disk: SimDisk,
    db: Database,
    run: Run,
    recorder: Recorder,
    rng: fastrand::Rng,
}

fn small(mode: DurabilityMode) -> DatabaseConfig {
    DatabaseConfig::new(mode).segment_bytes(16 << 10).manual_checkpoints()
}

fn open(disk: Arc<dyn Disk>, mode: DurabilityMode, threads: bool) -> Database {
    let builder = Database::builder("db").config(small(mode)).disk(disk);
    // Everything that is not the scheduler's choice is the same each time.
    let clock = ManualClock::at(Timestamp::from_micros(1_000_000));
    let builder = builder.clock(clock).entropy(Entropy::seeded(1));
    let builder = if threads { builder } else { builder.without_threads() };
    builder.open().unwrap()
}

impl World {
    fn new(seed: u64, mode: DurabilityMode, threads: bool) -> Self {
        let disk = SimDisk::new();
        let db = open(Arc::new(TurnDisk(disk.clone())), mode, threads);
        let run = db.create_run("run").unwrap();
        db.flush().unwrap();
        let noted = disk.clone();
        let recorder = Recorder::of(&db, run).unwrap().on_event(move |event| noted.note(event));
        Self { disk, db, run, recorder, rng: fastrand::Rng::with_seed(seed) }
    }

    /// The work of a thread: transactions, until the database says no more.
    fn work(&self, who: u64, seed: u64, steps: usize, mix: Mix) {
        let mut load = Load::new(format!("t{who}"), mix, seed ^ who).pausing(turn);
        for _ in 0..steps {
            match load.step(&self.recorder, &self.db, self.run) {
                Ok(None) => {}
                Ok(Some(receipt)) if self.db.mode() == DurabilityMode::Strict => {
                    self.recorder.promised(receipt.version());
                }
                Ok(Some(_)) => {}
                // Nothing was committed; the next may be.
                Err(error) if error.kind() == ErrorKind::Io => {}
                Err(error) => {
                    let kinds = [ErrorKind::Closed, ErrorKind::Unknown, ErrorKind::Poisoned];
                    assert!(kinds.contains(&error.kind()), "{error}");
                    return;
                }
            }
        }
    }

    /// What a thread sees that makes what is visible durable.
    fn flush(&self) {
        let version = self.db.current_version();
        if self.db.flush().is_ok() {
            self.recorder.promised(version);
        }
    }

    /// The disk at some moment of what the others do.
    fn moment(&self, turns: u64) -> Moment {
        (0..turns).for_each(|_| turn());
        self.disk.moment()
    }

    /// Whether what was told is an order, whether what is there is its result, and whether the
    /// images of `moment` are what may be left of it.
    fn judge(&mut self, moment: &Moment) {
        let history = self.recorder.history();
        let found = if self.db.view().is_ok() { Some(State::of(&self.db, self.run)) } else { None };
        let checked = match found {
            None => check(&history),
            Some(found) => check_recovered(&history, Crash::Kill, &found.unwrap()),
        };
        if let Err(violations) = checked {
            panic!("\n{violations}");
        }
        let plans = moment.plans(2, &mut self.rng);
        let plan: &Plan = self.rng.choice(&plans).unwrap();
        let known = history.until(moment.note());
        for (crash, image) in [(Crash::Kill, moment.kill()), (Crash::PowerCut, moment.cut(plan))] {
            let db = open(Arc::new(image), self.db.mode(), false);
            let run = db.resolve_run("run").unwrap();
            let found = State::of(&db, run).unwrap_or_else(|error| {
                panic!("{crash:?} at {moment:?}, {plan}: {error}; {:?}", db.recovery_report())
            });
            if let Err(violations) = check_recovered(&known, crash, &found) {
                panic!("\n{crash:?} at {moment:?}, {plan}:\n{violations}");
            }
        }
    }
}

/// Few keys, so that everybody is in everybody's way.
const FEW: Mix = Mix { keys: 3, reads_one_in: 0, value_bytes: 0 };

const LOOKS: Mix = Mix { reads_one_in: 1, ..FEW };

#[test]
fn three_writers_and_a_reader_are_serializable() {
    static LOST: AtomicUsize = AtomicUsize::new(0);
    explore(|seed| {
        let mut world = World::new(seed, MODES[(seed % 3) as usize], false);
        let moment = thread::scope(|scope| {
            let world = &world;
            for who in 0..3 {
                scope.spawn(move || world.work(who, seed, 3, FEW));
            }
            scope.spawn(move || world.work(3, seed, 3, LOOKS));
            world.moment(seed % 97)
        });
        world.judge(&moment);
        let txns = world.recorder.history().txns.len();
        let lost = txns - usize::try_from(world.db.current_version().0).unwrap().min(txns);
        LOST.fetch_add(lost, Ordering::Relaxed);
        world.db.close().unwrap();
    });
    assert!(LOST.load(Ordering::Relaxed) > 0, "there were conflicts");
}

#[test]
fn a_transaction_that_keeps_losing_gets_through() {
    explore(|seed| {
        let world = World::new(seed, DurabilityMode::Buffered, false);
        thread::scope(|scope| {
            let world = &world;
            for _ in 0..3 {
                scope.spawn(move || {
                    for _ in 0..2 {
                        let counted = world.db.transaction(|tx| {
                            let found = tx.kv_get(world.run, "count")?;
                            let count = found.and_then(|found| found.value.as_int()).unwrap_or(0);
                            tx.kv_put(world.run, "count", count + 1)
                        });
                        counted.unwrap();
                    }
                });
            }
        });
        let found = world.db.kv_get(world.run, "count").unwrap().unwrap();
        assert_eq!(found.value.as_int(), Some(6));
        world.db.close().unwrap();
    });
}

#[test]
fn a_checkpoint_and_a_rotation_beside_writers_change_nothing() {
    static SEGMENTS: AtomicUsize = AtomicUsize::new(0);
    explore(|seed| {
        let mut world = World::new(seed, MODES[(seed % 3) as usize], true);
        let mix = Mix { value_bytes: 4000, ..FEW };
        let moment = thread::scope(|scope| {
            let world = &world;
            for who in 0..2 {
                scope.spawn(move || world.work(who, seed, 3, mix));
            }
            scope.spawn(move || {
                world.db.checkpoint().unwrap();
                world.flush();
                world.db.compact(CompactMode::WalOnly).unwrap();
            });
            scope.spawn(move || world.work(3, seed, 2, LOOKS));
            world.moment(seed % 211)
        });
        world.judge(&moment);
        let segments = world.disk.paths().iter().filter(|path| path.ends_with(".seg")).count();
        SEGMENTS.fetch_max(segments, Ordering::Relaxed);
        world.db.close().unwrap();
        let end = world.disk.moment();
        world.judge(&end);
    });
    assert!(SEGMENTS.load(Ordering::Relaxed) > 2, "the log went on in other segments");
}

#[test]
fn closing_beside_commits_keeps_what_was_acknowledged() {
    static REFUSED: AtomicUsize = AtomicUsize::new(0);
    explore(|seed| {
        let mut world = World::new(seed, MODES[(seed % 3) as usize], true);
        thread::scope(|scope| {
            let world = &world;
            for who in 0..3 {
                scope.spawn(move || world.work(who, seed, 3, FEW));
            }
            scope.spawn(move || {
                (0..seed % 61).for_each(|_| turn());
                world.db.close().unwrap();
            });
        });
        world.db.close().unwrap();
        assert!(world.db.view().is_err());
        let refused = world.recorder.history().txns.len() < 9;
        REFUSED.fetch_add(usize::from(refused), Ordering::Relaxed);
        // Closing makes everything durable: what was acknowledged survives a power cut, too.
        world.recorder.promised(Version::MAX);
        let end = world.disk.moment();
        world.judge(&end);
    });
    assert!(REFUSED.load(Ordering::Relaxed) > 0, "some came too late");
}

#[test]
fn a_failing_sync_or_write_loses_nothing_that_was_promised() {
    static UNKNOWN: AtomicUsize = AtomicUsize::new(0);
    static FAILED: AtomicUsize = AtomicUsize::new(0);
    explore(|seed| {
        let mode = MODES[(seed % 3) as usize];
        let mut world = World::new(seed, mode, false);
        let kinds = [StepKind::SyncData, StepKind::Write, StepKind::WriteDurable];
        let kind = kinds[(seed / 3 % 3) as usize];
        let how = [FailedSync::StayDirty, FailedSync::LostAtCut, FailedSync::DurableAnyway];
        let fault = Fault::once(kind, seed / 9 % 4, EIO).landing(5000);
        world.disk.inject(fault.syncing(how[(seed / 36 % 3) as usize]));
        let moment = thread::scope(|scope| {
            let world = &world;
            for who in 0..3 {
                scope.spawn(move || world.work(who, seed, 2, FEW));
            }
            scope.spawn(move || world.flush());
            scope.spawn(move || world.work(4, seed, 2, LOOKS));
            world.moment(seed % 97)
        });
        let poisoned = world.db.stats().unwrap().poisoned.is_some();
        UNKNOWN.fetch_add(usize::from(poisoned), Ordering::Relaxed);
        FAILED.fetch_add(usize::from(!poisoned && world.disk.has_struck()), Ordering::Relaxed);
        world.judge(&moment);
        let end = world.disk.moment();
        let _ = world.db.close();
        world.judge(&end);
    });
    let (unknown, failed) = (UNKNOWN.load(Ordering::Relaxed), FAILED.load(Ordering::Relaxed));
    println!("{unknown} with a failed sync, {failed} with a failed write");
    assert!(unknown > 0 && failed > 0, "{unknown}, {failed}");
}
