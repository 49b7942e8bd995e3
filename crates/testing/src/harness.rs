//! [`CrashHarness`]: runs a scenario against a database, crashes it at a chosen point, opens
//! what is left, and compares it with what was acknowledged.
//!
//! Where the database lives depends on the crash. Processes that end leave files: with
//! [`CrashConfig::worker`] the database runs in a child that really dies by its signal inside
//! the I/O; without, in this process, behind a [`CrashDisk`] that lets nothing through from the
//! crash on. A power cut is judged on a [`SimDisk`]: not one outcome of it but many, each opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use steadfast_durability::StdDisk;
use steadfast_durability::disk::{Access, Disk, read_full_at};
use steadfast_durability::layout::Layout;
use steadfast_durability::manifest::Manifest;
use steadfast_durability::snapshot::Snapshot;
use steadfast_engine::{CompactMode, Database, DurabilityMode, Version};

use crate::crash_disk::CrashDisk;
use crate::death::CrashType;
use crate::injector::{CrashInjector, CrashPoint, run_with_crash};
use crate::operation::Operation;
use crate::reference::{ReferenceModel, StateMismatch};
use crate::seed::replay_line;
use crate::sim::{Moment, SimDisk};
use crate::worker::{Answer, Worker, database_config, signal_of};

/// How scenarios are run.
#[derive(Debug, Clone, PartialEq)]
pub struct CrashConfig {
    /// Of operations run by [`ScenarioRunner::execute`] without a point set, how many crash.
    pub crash_probability: f64,
    /// What a crash may be; which one is drawn from the seed.
    pub crash_types: Vec<CrashType>,
    /// A scenario of more operations than this is an error.
    pub max_operations: usize,
    /// A scenario that takes longer is an error, and a child that does is killed.
    pub timeout: Duration,
    /// Where every random choice begins.
    pub seed: u64,
    /// What the database promises, and so what is expected of it.
    pub mode: DurabilityMode,
    /// Size to which segments of the log grow; `None` for the database's own default.
    pub segment_bytes: Option<u64>,
    /// The worker binary that is to die; `None` for crashes in this process.
    pub worker: Option<PathBuf>,
    /// Outcomes of a power cut drawn at random, besides those that are enumerated.
    pub random_images: usize,
}

impl Default for CrashConfig {
    /// One operation in ten crashes, by SIGKILL or SIGABRT; 1,000 operations and 30 s at most;
    /// seed 42; strict; in this process.
    fn default() -> Self {
        Self {
            crash_probability: 0.1,
            crash_types: vec![CrashType::ProcessKill, CrashType::ProcessAbort],
            max_operations: 1000,
            timeout: Duration::from_secs(30),
            seed: 42,
            mode: DurabilityMode::Strict,
            segment_bytes: None,
            worker: None,
            random_images: 8,
        }
    }
}

/// Why a scenario went no further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CrashTestError {
    /// It crashed, as it should.
    #[error("crashed at {0}")]
    SimulatedCrash(CrashPoint),
    /// The database refused.
    #[error("database: {0}")]
    Database(#[from] steadfast_engine::Error),
    /// Its files could not be looked at.
    #[error("storage: {0}")]
    Storage(#[from] steadfast_durability::Error),
    /// The system refused.
    #[error("system: {0}")]
    Io(#[from] std::io::Error),
    /// The worker process refused, or did what it was not asked to.
    #[error("worker: {0}")]
    Worker(String),
    /// A limit of [`CrashConfig`] was met.
    #[error("beyond the limit of {0}")]
    Limit(&'static str),
}

/// What opening after the crash found.
#[derive(Debug, Clone, Default)]
pub struct RecoveryVerification {
    /// Everything was as it must be.
    pub is_valid: bool,
    /// What went wrong otherwise than by what was found: a refusal to open.
    pub error: Option<String>,
    /// What is not as it must be.
    pub mismatches: Vec<StateMismatch>,
    /// How many outcomes of the crash were opened: one, or many of a power cut.
    pub images: usize,
}

/// What came of a scenario.
#[derive(Debug)]
pub struct CrashTestResult {
    /// It ran to its end, or to the crash.
    pub scenario_succeeded: bool,
    /// Why it did neither.
    pub scenario_error: Option<CrashTestError>,
    /// What is left was opened and is as it must be.
    pub recovery_succeeded: bool,
    /// Where it crashed; `None` if it came to its end and crashed then.
    pub crash_point: Option<CrashPoint>,
    /// What the crash was.
    pub crash_type: CrashType,
    /// How many operations were acknowledged.
    pub operations_completed: usize,
    /// How long all of it took.
    pub duration: Duration,
    /// What opening found; `None` if it did not come to that.
    pub recovery_result: Option<RecoveryVerification>,
    /// The line that runs this again.
    pub replay: String,
}

impl CrashTestResult {
    /// Whether nothing is wrong.
    pub const fn is_good(&self) -> bool {
        self.scenario_succeeded && self.recovery_succeeded
    }

    /// Panics with all that is known if anything is wrong: for tests.
    #[track_caller]
    pub fn expect_good(self) -> Self {
        assert!(self.is_good(), "{self}");
        self
    }
}

impl std::fmt::Display for CrashTestResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.crash_type)?;
        match self.crash_point {
            Some(point) => write!(f, " at {point}")?,
            None => f.write_str(" at the end")?,
        }
        write!(f, " after {} operations: ", self.operations_completed)?;
        if let Some(error) = &self.scenario_error {
            write!(f, "the scenario failed: {error}; ")?;
        }
        match &self.recovery_result {
            Some(RecoveryVerification { error: Some(error), .. }) => f.write_str(error)?,
            Some(found) if !found.mismatches.is_empty() => {
                let few: Vec<_> =
                    found.mismatches.iter().take(10).map(ToString::to_string).collect();
                write!(f, "{} mismatches: {}", found.mismatches.len(), few.join("; "))?;
            }
            Some(found) => write!(f, "{} images, all as they must be", found.images)?,
            None => f.write_str("not opened again")?,
        }
        write!(f, "\nreplay: {}", self.replay)
    }
}

/// One outcome of a crash, opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct Image<'a> {
    /// The database, after recovery.
    pub db: &'a Database,
    /// What was asked for and acknowledged.
    pub model: &'a ReferenceModel,
    /// How many of the acknowledged commits are there.
    pub kept: usize,
    /// Whether the operation that was under way is there.
    pub in_flight: bool,
    /// The MANIFEST before it was opened.
    pub manifest: Vec<u8>,
    /// The snapshots whose files were whole before it was opened, by number.
    pub snapshots: Vec<u64>,
}

type Look<'a> = &'a mut dyn FnMut(&Image<'_>) -> Result<(), String>;

/// Where the database of a harness lives.
#[derive(Debug, Clone)]
enum Medium {
    Files(PathBuf),
    Sim(SimDisk),
}

impl Medium {
    fn disk(&self) -> Arc<dyn Disk> {
        match self {
            Self::Files(_) => Arc::new(StdDisk),
            Self::Sim(sim) => Arc::new(sim.clone()),
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Files(path) => path.clone(),
            Self::Sim(_) => crate::workload::path(),
        }
    }
}

/// Crashes a database in scenarios, one after the other, and checks what is left of it.
///
/// The first scenario creates the database, in a directory of its own or on a simulated disk;
/// the next one goes on with what the crash left. Nothing is ever wiped.
///
/// ```
/// use steadfast_testing::harness::{CrashConfig, CrashHarness, CrashTestError};
/// use steadfast_testing::injector::CrashPoint;
///
/// let dir = tempfile::tempdir().unwrap();
/// let mut harness = CrashHarness::new(dir.path().join("db"), CrashConfig::default());
/// harness.set_crash_point(CrashPoint::AfterFsync);
/// let result = harness.run_scenario(|runner| -> Result<(), CrashTestError> {
///     runner.kv_put("run", "key", "value")?; // crashes before it is acknowledged
///     unreachable!()
/// });
/// assert_eq!(result.crash_point, Some(CrashPoint::AfterFsync));
/// result.expect_good();
/// ```
#[derive(Debug)]
pub struct CrashHarness {
    dir: PathBuf,
    config: CrashConfig,
    point: Option<(CrashPoint, u64)>,
    crash_type: Option<CrashType>,
    medium: Option<Medium>,
    model: ReferenceModel,
    rng: fastrand::Rng,
}

impl CrashHarness {
    /// A harness whose database, if it needs files, is created in `dir`, which must not exist or
    /// be empty.
    pub fn new(dir: impl Into<PathBuf>, config: CrashConfig) -> Self {
        let rng = fastrand::Rng::with_seed(config.seed);
        let model = ReferenceModel::new();
        Self { dir: dir.into(), config, point: None, crash_type: None, medium: None, model, rng }
    }

    /// The next scenarios crash where `point` is first reached.
    pub fn set_crash_point(&mut self, point: CrashPoint) {
        self.set_crash_point_after(point, 0);
    }

    /// The next scenarios crash where `point` is reached after `n` other crossings.
    pub fn set_crash_point_after(&mut self, point: CrashPoint, n: u64) {
        self.point = Some((point, n));
    }

    /// The next scenarios crash where [`ScenarioRunner::execute`] says, with the probability of
    /// the configuration.
    pub const fn clear_crash_point(&mut self) {
        self.point = None;
    }

    /// The next scenarios end like this, instead of by one of the configured types at random.
    pub const fn set_crash_type(&mut self, crash: CrashType) {
        self.crash_type = Some(crash);
    }

    /// What was asked for and acknowledged so far.
    pub const fn model(&self) -> &ReferenceModel {
        &self.model
    }

    /// Where its files lie, if it has any.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Runs a scenario, crashes it, opens what is left and compares. A scenario that comes to its
    /// end crashes there. It should return the errors of `runner`, the crash among them.
    pub fn run_scenario(
        &mut self,
        scenario: impl FnOnce(&mut ScenarioRunner) -> Result<(), CrashTestError>,
    ) -> CrashTestResult {
        self.run_scenario_and(scenario, |_| Ok(()))
    }

    /// As [`CrashHarness::run_scenario`], and `look` may find fault with each image too: the
    /// place for an invariant of one's own.
    pub fn run_scenario_and(
        &mut self,
        scenario: impl FnOnce(&mut ScenarioRunner) -> Result<(), CrashTestError>,
        mut look: impl FnMut(&Image<'_>) -> Result<(), String>,
    ) -> CrashTestResult {
        let started = Instant::now();
        let crash_type = self.draw_type();
        let mut result = CrashTestResult {
            scenario_succeeded: false,
            scenario_error: None,
            recovery_succeeded: false,
            crash_point: None,
            crash_type,
            operations_completed: 0,
            duration: Duration::ZERO,
            recovery_result: None,
            replay: replay_line(self.config.seed),
        };
        let mut runner = match self.start(crash_type) {
            Ok(runner) => runner,
            Err(error) => {
                result.scenario_error = Some(error);
                result.duration = started.elapsed();
                return result;
            }
        };
        let ended = scenario(&mut runner);
        let crashed = runner.end();
        result.crash_point = runner.last_crash_point;
        result.operations_completed = runner.operations_completed;
        self.rng = runner.rng.clone();
        self.model = std::mem::take(&mut runner.model);
        result.scenario_error = match (ended, crashed) {
            (_, Err(error)) => Some(error),
            (Err(CrashTestError::SimulatedCrash(_)) | Ok(()), Ok(())) => None,
            (Err(error), Ok(())) => Some(error),
        };
        result.scenario_succeeded = result.scenario_error.is_none();
        let moments = std::mem::take(&mut runner.moments);
        drop(runner);
        let verification = self.verify(crash_type, &moments, &mut look);
        result.recovery_succeeded = verification.is_valid;
        result.recovery_result = Some(verification);
        result.duration = started.elapsed();
        result
    }

    fn draw_type(&mut self) -> CrashType {
        let types = &self.config.crash_types;
        let drawn = if types.is_empty() {
            CrashType::ProcessKill
        } else {
            types[self.rng.usize(..types.len())]
        };
        self.crash_type.unwrap_or(drawn)
    }

    fn start(&mut self, crash: CrashType) -> Result<ScenarioRunner, CrashTestError> {
        let may_lose_power = self.config.crash_types.contains(&CrashType::PowerLoss);
        let medium = self.medium.get_or_insert_with(|| {
            match crash == CrashType::PowerLoss || may_lose_power {
                true => Medium::Sim(SimDisk::new()),
                false => Medium::Files(self.dir.clone()),
            }
        });
        let (config, medium) = (&self.config, medium.clone());
        if crash == CrashType::PowerLoss && !matches!(medium, Medium::Sim(_)) {
            let text = "a power cut needs a simulated disk, and this database has files: name \
                        PowerLoss among the crash types from the start";
            return Err(CrashTestError::Worker(text.into()));
        }
        let backend = match (&config.worker, &medium) {
            (Some(program), Medium::Files(dir)) => {
                let worker =
                    Worker::spawn(program, &[], dir, None, config.mode, config.segment_bytes)?;
                match worker.answer(config.timeout) {
                    Answer::Line(line) if line.starts_with("open") => {}
                    _ => return Err(CrashTestError::Worker("it did not open".into())),
                }
                Backend::Child { worker, crash, patience: config.timeout }
            }
            _ => {
                let disk = CrashDisk::new(medium.disk());
                let db = Database::builder(medium.path())
                    .config(database_config(config.mode, config.segment_bytes))
                    .disk(Arc::new(disk.clone()))
                    .without_threads()
                    .open()?;
                Backend::Here { db: Some(db), disk, injector: None }
            }
        };
        let mut runner = ScenarioRunner {
            operations_completed: 0,
            last_crash_point: None,
            config: config.clone(),
            medium,
            backend,
            point: None,
            explicit: self.point.is_some(),
            model: std::mem::take(&mut self.model),
            rng: self.rng.clone(),
            started: Instant::now(),
            moments: Vec::new(),
        };
        if let Some((point, after)) = self.point {
            runner.arm(point, after)?;
        }
        Ok(runner)
    }

    fn verify(
        &mut self,
        crash: CrashType,
        under_way: &[Moment],
        look: Look<'_>,
    ) -> RecoveryVerification {
        let mut verification = RecoveryVerification::default();
        let medium = self.medium.clone().expect("a scenario was begun");
        let images: Vec<Medium> = match (&medium, crash) {
            (Medium::Files(_), _) => vec![medium],
            (Medium::Sim(sim), CrashType::PowerLoss) => {
                let random = self.config.random_images;
                let mut images = Vec::new();
                for moment in under_way.iter().chain([&sim.moment()]) {
                    let plans = moment.plans(random, &mut self.rng);
                    images.extend(plans.iter().map(|plan| Medium::Sim(moment.cut(plan))));
                }
                images
            }
            (Medium::Sim(sim), _) => vec![Medium::Sim(sim.killed())],
        };
        let low = match crash {
            CrashType::PowerLoss => self.model.kept_by_power_cut(self.config.mode),
            _ => self.model.committed_ops().len(),
        };
        // Which of them the next scenario goes on with.
        let chosen = self.rng.usize(..images.len());
        let mut next = None;
        for (index, image) in images.iter().enumerate() {
            verification.images += 1;
            let untouched = match image {
                Medium::Sim(sim) => Medium::Sim(sim.killed()),
                files => files.clone(),
            };
            match self.check(image, low, look) {
                Ok((kept, version)) if index == chosen => {
                    next = Some((untouched, kept, version));
                }
                Ok(_) => {}
                Err(Fault::Error(error)) => {
                    verification.error = Some(format!("image {index}: {error}"));
                    return verification;
                }
                Err(Fault::Mismatches(mismatches)) => {
                    verification.mismatches = mismatches;
                    return verification;
                }
            }
        }
        if let Some((medium, kept, version)) = next {
            self.model.adopt(kept, version);
            self.medium = Some(medium);
        }
        verification.is_valid = true;
        verification
    }

    fn check(
        &self,
        image: &Medium,
        low: usize,
        look: Look<'_>,
    ) -> Result<(crate::reference::Kept, Version), Fault> {
        let (disk, layout) = (image.disk(), Layout::new(image.path()));
        let manifest = read_manifest(&*disk, &layout);
        let snapshots = whole_snapshots(&*disk, &layout);
        let db = Database::builder(image.path())
            .config(database_config(self.config.mode, self.config.segment_bytes))
            .disk(disk)
            .without_threads()
            .open_existing()
            .map_err(|error| format!("refused to open ({}): {error}", error.kind()))?;
        let judged = self.model.judge(&db, low).map_err(|error| format!("reading: {error}"))?;
        let (kept, mismatches) = judged;
        if !mismatches.is_empty() {
            return Err(Fault::Mismatches(mismatches));
        }
        look(&Image {
            db: &db,
            model: &self.model,
            kept: kept.acknowledged,
            in_flight: kept.in_flight,
            manifest,
            snapshots,
        })?;
        let version = db.current_version();
        // It must go on, and end well, too.
        db.close().map_err(|error| format!("closing what was recovered: {error}"))?;
        Ok((kept, version))
    }
}

enum Fault {
    Error(String),
    Mismatches(Vec<StateMismatch>),
}

impl From<String> for Fault {
    fn from(error: String) -> Self {
        Self::Error(error)
    }
}

fn read_manifest(disk: &dyn Disk, layout: &Layout) -> Vec<u8> {
    let read = || {
        let file = disk.open(&layout.manifest(), Access::Read)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
        let length = read_full_at(&*file, 0, &mut bytes)?;
        bytes.truncate(length);
        Ok::<_, std::io::Error>(bytes)
    };
    read().unwrap_or_default()
}

fn whole_snapshots(disk: &dyn Disk, layout: &Layout) -> Vec<u64> {
    let Ok(Some(manifest)) = Manifest::read(disk, layout) else { return Vec::new() };
    let names = disk.list(&layout.snapshots()).unwrap_or_default();
    let mut numbers: Vec<u64> =
        names.iter().filter_map(|name| Layout::parse_snapshot_name(name)).collect();
    numbers.retain(|number| {
        let opened = Snapshot::open(disk, layout, *number, manifest.database);
        opened.is_ok_and(|snapshot| snapshot.verify().is_ok())
    });
    numbers.sort_unstable();
    numbers
}

#[derive(Debug)]
enum Backend {
    Here { db: Option<Database>, disk: CrashDisk, injector: Option<Arc<CrashInjector>> },
    Child { worker: Worker, crash: CrashType, patience: Duration },
}

/// Does the operations of a scenario, one at a time, and keeps the account of them.
#[derive(Debug)]
pub struct ScenarioRunner {
    /// How many operations were acknowledged.
    pub operations_completed: usize,
    /// Where it crashed.
    pub last_crash_point: Option<CrashPoint>,
    config: CrashConfig,
    medium: Medium,
    backend: Backend,
    /// What is armed.
    point: Option<CrashPoint>,
    /// The point was set from outside, for the whole scenario.
    explicit: bool,
    model: ReferenceModel,
    rng: fastrand::Rng,
    started: Instant,
    /// Before the last step of a simulated disk, where that is a crash of its own.
    moments: Vec<Moment>,
}

impl ScenarioRunner {
    /// Gives a key a value.
    pub fn kv_put(
        &mut self,
        run: &str,
        key: &str,
        value: impl AsRef<[u8]>,
    ) -> Result<(), CrashTestError> {
        self.run(Operation::kv_put(run, key, value))
    }

    /// Removes a key.
    pub fn kv_delete(&mut self, run: &str, key: &str) -> Result<(), CrashTestError> {
        self.run(Operation::kv_delete(run, key))
    }

    /// Appends an event.
    pub fn event_append(
        &mut self,
        run: &str,
        stream: &str,
        payload: impl AsRef<[u8]>,
    ) -> Result<(), CrashTestError> {
        self.run(Operation::event_append(run, stream, payload))
    }

    /// Sets a state cell.
    pub fn state_set(
        &mut self,
        run: &str,
        cell: &str,
        value: impl AsRef<[u8]>,
    ) -> Result<(), CrashTestError> {
        self.run(Operation::state_set(run, cell, value))
    }

    /// Observes an entity, at a time in µs since 1970.
    pub fn signal_record(
        &mut self,
        run: &str,
        name: &str,
        entity: &str,
        weight: u32,
        at_us: u64,
    ) -> Result<(), CrashTestError> {
        self.run(Operation::signal_record(run, name, entity, weight, at_us))
    }

    /// Makes everything durable.
    pub fn flush(&mut self) -> Result<(), CrashTestError> {
        self.run(Operation::Flush)
    }

    /// Writes a snapshot.
    pub fn checkpoint(&mut self) -> Result<(), CrashTestError> {
        self.run(Operation::Checkpoint)
    }

    /// Removes what is not needed any more.
    pub fn compact(&mut self, mode: CompactMode) -> Result<(), CrashTestError> {
        self.run(Operation::Compact(mode))
    }

    /// Does `operation`, which crashes at `point`, if it reaches it: with the probability of the
    /// configuration, or for certain if that is 1. Where the harness was given a point for the
    /// whole scenario, that one counts.
    pub fn execute(
        &mut self,
        point: CrashPoint,
        operation: Operation,
    ) -> Result<(), CrashTestError> {
        if !self.explicit {
            if self.rng.f64() < self.config.crash_probability {
                self.arm(point, 0)?;
            } else {
                self.disarm()?;
            }
        }
        self.run(operation)
    }

    /// From now on the scenario crashes where `point` is reached after `n` other crossings.
    pub fn arm(&mut self, point: CrashPoint, n: u64) -> Result<(), CrashTestError> {
        self.point = Some(point);
        match &mut self.backend {
            Backend::Here { disk, injector, .. } => {
                let disk = disk.clone();
                *injector = Some(CrashInjector::on_fire(point, n, move || disk.crash()));
                Ok(())
            }
            Backend::Child { worker, crash, patience } => {
                worker.send(&format!("arm {point} {n} {}", crash.name()));
                match worker.answer(*patience) {
                    Answer::Line(line) if line.starts_with("ok") => Ok(()),
                    Answer::Line(line) => Err(CrashTestError::Worker(line)),
                    Answer::Died => Err(CrashTestError::Worker("it died too early".into())),
                    Answer::Late => Err(CrashTestError::Limit("time")),
                }
            }
        }
    }

    fn disarm(&mut self) -> Result<(), CrashTestError> {
        match &mut self.backend {
            _ if self.point.is_none() => Ok(()),
            Backend::Here { injector, .. } => {
                (self.point, *injector) = (None, None);
                Ok(())
            }
            Backend::Child { .. } => {
                // A point that is never crossed so often.
                let point = self.point.expect("looked at above");
                self.arm(point, u64::MAX).map(|()| self.point = None)
            }
        }
    }

    /// The bytes of the MANIFEST as it is now.
    pub fn manifest(&self) -> Vec<u8> {
        read_manifest(&*self.medium.disk(), &Layout::new(self.medium.path()))
    }

    /// What was asked for and acknowledged.
    pub const fn model(&self) -> &ReferenceModel {
        &self.model
    }

    /// Does `operation`.
    pub fn run(&mut self, operation: Operation) -> Result<(), CrashTestError> {
        if let Some(point) = self.last_crash_point {
            return Err(CrashTestError::SimulatedCrash(point));
        }
        if self.operations_completed >= self.config.max_operations {
            return Err(CrashTestError::Limit("operations"));
        }
        if self.started.elapsed() > self.config.timeout {
            return Err(CrashTestError::Limit("time"));
        }
        self.model.begin(operation.clone());
        self.watch_writes();
        match self.apply(&operation) {
            Ok(version) => {
                self.model.acknowledge(version);
                self.operations_completed += 1;
                Ok(())
            }
            Err(CrashTestError::SimulatedCrash(point)) => {
                self.last_crash_point = Some(point);
                if let (true, Medium::Sim(sim)) = (self.watches_writes(), &self.medium) {
                    let mut moments = sim.take_moments();
                    // The last is the present one; before it, the write was under way.
                    moments.pop();
                    self.moments = moments.pop().into_iter().collect();
                }
                Err(CrashTestError::SimulatedCrash(point))
            }
            Err(error) => {
                self.model.fail();
                Err(error)
            }
        }
    }

    /// Whether a write that is under way is a crash of its own.
    fn watches_writes(&self) -> bool {
        self.point == Some(CrashPoint::AfterWalWriteBeforeFsync)
    }

    fn watch_writes(&self) {
        if let (true, Medium::Sim(sim)) = (self.watches_writes(), &self.medium) {
            sim.record_moments();
        }
    }

    fn apply(&mut self, operation: &Operation) -> Result<Option<Version>, CrashTestError> {
        match &mut self.backend {
            Backend::Here { db, injector, .. } => {
                let open = db.as_ref().expect("it has not crashed");
                let Some(injector) = injector else { return Ok(operation.apply(open)?) };
                match run_with_crash(injector, || operation.apply(open)) {
                    Ok(done) => Ok(done?),
                    Err(point) => {
                        *db = None;
                        Err(CrashTestError::SimulatedCrash(point))
                    }
                }
            }
            Backend::Child { worker, crash, patience } => {
                worker.send(&operation.to_line());
                match worker.answer(*patience) {
                    Answer::Line(line) => match line.split_once(' ') {
                        Some(("ok", version)) => {
                            let version: u64 = version.parse().unwrap_or(0);
                            Ok((version > 0).then_some(Version(version)))
                        }
                        _ => Err(CrashTestError::Worker(line)),
                    },
                    Answer::Died => {
                        let ended = worker.wait()?;
                        match self.point {
                            Some(point) if signal_of(ended) == crash.signal() => {
                                Err(CrashTestError::SimulatedCrash(point))
                            }
                            _ => Err(CrashTestError::Worker(format!("it ended: {ended}"))),
                        }
                    }
                    Answer::Late => Err(CrashTestError::Limit("time")),
                }
            }
        }
    }

    /// Whatever is alive ends here, in the middle of things.
    fn end(&mut self) -> Result<(), CrashTestError> {
        match &mut self.backend {
            Backend::Here { db, disk, .. } => {
                disk.crash();
                *db = None;
                Ok(())
            }
            Backend::Child { worker, .. } => {
                worker.kill()?;
                Ok(())
            }
        }
    }
}
