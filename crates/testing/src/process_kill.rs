//! [`ProcessCrashTester`]: a worker process writes and acknowledges; it is killed at a random
//! time, for real; what it acknowledged must be there, and nothing but that and the one thing
//! that was under way.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use steadfast_engine::{Database, DurabilityMode, Version};

use crate::operation::Operation;
use crate::reference::ReferenceModel;
use crate::seed::replay_line;
use crate::worker::{
    Answer, PUTS_PER_CHECKPOINT, WORKER_RUN, Worker, database_config, flood_put, signal_of,
};

/// How long opening, or dying, may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a worker is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessCrashConfig {
    /// The shortest that it lives.
    pub min_runtime_ms: u64,
    /// The longest.
    pub max_runtime_ms: u64,
    /// How often.
    pub iterations: u64,
    /// By which signal.
    pub signal: i32,
    /// What the database promises.
    pub mode: DurabilityMode,
    /// Size to which segments of the log grow; `None` for the database's own default.
    pub segment_bytes: Option<u64>,
    /// Where the times are drawn from.
    pub seed: u64,
}

impl Default for ProcessCrashConfig {
    /// 100 times after 10 to 1,000 ms, by SIGKILL; strict; seed 42.
    fn default() -> Self {
        Self {
            min_runtime_ms: 10,
            max_runtime_ms: 1000,
            iterations: 100,
            signal: 9,
            mode: DurabilityMode::Strict,
            segment_bytes: None,
            seed: 42,
        }
    }
}

/// What came of one kill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KillIterationResult {
    /// Which.
    pub iteration: u64,
    /// How long it had run since it had opened the database.
    pub kill_time_ms: u64,
    /// It died of the signal, and not of anything else before.
    pub kill_succeeded: bool,
    /// What it left was opened and is as it must be.
    pub recovery_succeeded: bool,
    /// How long opening took.
    pub opening: Duration,
    /// How many commits it had acknowledged.
    pub acknowledged: u64,
    /// Whether the one that was under way was there.
    pub in_flight_kept: bool,
    /// What is wrong.
    pub error: Option<String>,
}

/// What came of all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessCrashResults {
    /// How often it was tried.
    pub iterations: u64,
    /// After how many kills everything was as it must be.
    pub successful_recoveries: u64,
    /// After how many not.
    pub failed_recoveries: u64,
    /// Each.
    pub results: Vec<KillIterationResult>,
    /// The line that runs this again.
    pub replay: String,
}

impl ProcessCrashResults {
    /// Whether every kill was one and everything was as it must be after it.
    pub fn all_passed(&self) -> bool {
        let good =
            |result: &KillIterationResult| result.kill_succeeded && result.recovery_succeeded;
        self.iterations > 0 && self.results.iter().all(good)
    }

    /// How many recoveries of all failed, from 0 to 1.
    pub fn failure_rate(&self) -> f64 {
        self.failed_recoveries as f64 / self.iterations.max(1) as f64
    }

    /// Commits that were acknowledged over all of them.
    pub fn acknowledged(&self) -> u64 {
        self.results.iter().map(|result| result.acknowledged).sum()
    }
}

impl std::fmt::Display for ProcessCrashResults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} kills, {} commits acknowledged, {} failed recoveries",
            self.iterations,
            self.acknowledged(),
            self.failed_recoveries
        )?;
        for result in &self.results {
            if let Some(error) = &result.error {
                write!(f, "\niteration {}: {error}", result.iteration)?;
            }
        }
        write!(f, "\nreplay: {}", self.replay)
    }
}

/// Kills a worker again and again, on one database.
#[derive(Debug)]
pub struct ProcessCrashTester {
    binary: PathBuf,
    first_arguments: Vec<String>,
    dir: PathBuf,
    config: ProcessCrashConfig,
}

impl ProcessCrashTester {
    /// `binary` is `crash_test_worker`, or behaves like it; the database is created in `dir`.
    pub fn new(
        binary: impl Into<PathBuf>,
        dir: impl Into<PathBuf>,
        config: ProcessCrashConfig,
    ) -> Self {
        Self { binary: binary.into(), first_arguments: Vec::new(), dir: dir.into(), config }
    }

    /// With arguments in front of those of the worker: for a program that is more than that.
    #[must_use]
    pub fn with_first_arguments(mut self, arguments: &[&str]) -> Self {
        self.first_arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    /// Kills it as often as configured. What is wrong after a kill is in the results; an error is
    /// that it could not be tried.
    pub fn run(&self) -> std::io::Result<ProcessCrashResults> {
        let mut rng = fastrand::Rng::with_seed(self.config.seed);
        let mut model = ReferenceModel::new();
        let mut results = ProcessCrashResults {
            replay: replay_line(self.config.seed),
            ..ProcessCrashResults::default()
        };
        for iteration in 0..self.config.iterations {
            let shortest = self.config.min_runtime_ms;
            let kill_time_ms = rng.u64(shortest..=self.config.max_runtime_ms.max(shortest));
            let result = self.iterate(iteration, kill_time_ms, &mut model)?;
            results.iterations += 1;
            match result.recovery_succeeded {
                true => results.successful_recoveries += 1,
                false => results.failed_recoveries += 1,
            }
            let failed = !result.recovery_succeeded;
            results.results.push(result);
            if failed {
                // What is wrong once is wrong from then on.
                break;
            }
        }
        Ok(results)
    }

    fn iterate(
        &self,
        iteration: u64,
        kill_time_ms: u64,
        model: &mut ReferenceModel,
    ) -> std::io::Result<KillIterationResult> {
        let ProcessCrashConfig { mode, segment_bytes, signal, .. } = self.config;
        let Self { binary, first_arguments, dir, .. } = self;
        let mut worker =
            Worker::spawn(binary, first_arguments, dir, Some(iteration), mode, segment_bytes)?;
        let opened = worker.answer(PATIENCE);
        let mut lines = worker.lines_until(Instant::now() + Duration::from_millis(kill_time_ms));
        let ended = worker.end_by(signal, PATIENCE)?;
        // What was acknowledged before the signal reached it is still in the pipe.
        lines.extend(worker.rest());
        let mut result = KillIterationResult {
            iteration,
            kill_time_ms,
            kill_succeeded: signal_of(ended) == Some(signal),
            recovery_succeeded: false,
            opening: Duration::ZERO,
            acknowledged: 0,
            in_flight_kept: false,
            error: None,
        };
        let judged = match opened {
            Answer::Line(line) if line.starts_with("open") => {
                self.judge(&lines, model, &mut result)
            }
            _ => Err(format!("the worker did not open the database; it ended: {ended}")),
        };
        result.recovery_succeeded = judged.is_ok();
        result.error = judged.err();
        if !result.kill_succeeded && result.error.is_none() {
            result.error = Some(format!("it was not killed; it ended: {ended}"));
        }
        Ok(result)
    }

    /// acknowledged ⊆ recovered ⊆ acknowledged + under way
    fn judge(
        &self,
        lines: &[String],
        model: &mut ReferenceModel,
        result: &mut KillIterationResult,
    ) -> Result<(), String> {
        let iteration = result.iteration;
        let put = |model: &mut ReferenceModel, count| {
            let (key, value) = flood_put(iteration, count);
            model.kv_put(WORKER_RUN, &key, value.as_bytes());
        };
        let number = |word: &str| word.parse().map_err(|_| format!("said {word:?}"));
        let (mut checkpoints, mut has_run) = (0, !model.committed_ops().is_empty());
        if !has_run {
            model.begin(Operation::CreateRun { run: WORKER_RUN.into() });
        }
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["run", version] if !has_run => {
                    model.acknowledge(Some(Version(number(version)?)));
                    has_run = true;
                }
                ["acked", count, version] => {
                    let version = number(version)?;
                    let count = number(count)?;
                    if count != result.acknowledged {
                        return Err(format!("acknowledged {count} out of order"));
                    }
                    put(model, count);
                    model.acknowledge(Some(Version(version)));
                    result.acknowledged += 1;
                }
                ["checkpoint"] => checkpoints += 1,
                _ => return Err(format!("said {line:?}")),
            }
        }
        if checkpoints > result.acknowledged / PUTS_PER_CHECKPOINT {
            return Err(format!("{checkpoints} checkpoints"));
        }
        if has_run {
            put(model, result.acknowledged);
        }
        let config = database_config(self.config.mode, self.config.segment_bytes);
        let db = Database::open_existing(&self.dir, config)
            .map_err(|error| format!("refused to open ({}): {error}", error.kind()))?;
        result.opening = db.recovery_report().duration;
        let low = model.committed_ops().len();
        let judged = model.judge(&db, low).map_err(|error| format!("reading: {error}"))?;
        let (kept, mut mismatches) = judged;
        if !mismatches.is_empty() {
            mismatches.truncate(10);
            let few: Vec<_> = mismatches.iter().map(ToString::to_string).collect();
            return Err(few.join("; "));
        }
        result.in_flight_kept = kept.in_flight;
        model.adopt(kept, db.current_version());
        db.close().map_err(|error| format!("closing what was recovered: {error}"))
    }
}
