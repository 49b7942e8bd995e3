//! A process that works on a database and may die doing it; what `crash_test_worker` runs.
//!
//! It answers on its standard output, one line for each thing that is done, flushed before the
//! next one begins. So whoever reads knows what was acknowledged, whatever happens then: a pipe
//! outlives the process that wrote into it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use steadfast_engine::{Database, DatabaseConfig, DurabilityMode, Value, Version};

use crate::operation::Operation;

/// The run that a flooding worker writes to.
pub const WORKER_RUN: &str = "crash-test-run";

/// A flooding worker writes a snapshot after so many puts.
pub const PUTS_PER_CHECKPOINT: u64 = 100;

/// What a worker is told on its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Job {
    dir: PathBuf,
    /// `None`: does what it is told line by line.
    iteration: Option<u64>,
    mode: DurabilityMode,
    segment_bytes: Option<u64>,
}

/// How a mode is written on a command line: `strict`, `batched:MILLISECONDS:COMMITS`,
/// `buffered`.
pub(crate) fn mode_name(mode: DurabilityMode) -> String {
    match mode {
        DurabilityMode::Strict => "strict".into(),
        DurabilityMode::Batched { interval, commits } => {
            format!("batched:{}:{commits}", interval.as_millis())
        }
        _ => "buffered".into(),
    }
}

fn parse_mode(name: &str) -> Option<DurabilityMode> {
    let mut words = name.split(':');
    match words.next()? {
        "strict" => Some(DurabilityMode::Strict),
        "buffered" => Some(DurabilityMode::Buffered),
        "batched" => Some(DurabilityMode::Batched {
            interval: Duration::from_millis(words.next()?.parse().ok()?),
            commits: words.next()?.parse().ok()?,
        }),
        _ => None,
    }
}

/// The configuration that worker and harness open a database with.
pub(crate) fn database_config(mode: DurabilityMode, segment_bytes: Option<u64>) -> DatabaseConfig {
    let config = DatabaseConfig::new(mode).manual_checkpoints();
    segment_bytes.map_or(config.clone(), |bytes| config.segment_bytes(bytes))
}

fn parse(args: &[String]) -> Option<Job> {
    let mut dir = None;
    let mut job = Job {
        dir: PathBuf::new(),
        iteration: None,
        mode: DurabilityMode::Strict,
        segment_bytes: None,
    };
    let mut args = args.iter();
    while let Some(name) = args.next() {
        let value = args.next()?;
        match name.as_str() {
            "--db-dir" => dir = Some(PathBuf::from(value)),
            "--iteration" => job.iteration = Some(value.parse().ok()?),
            "--mode" => job.mode = parse_mode(value)?,
            "--segment-bytes" => job.segment_bytes = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    job.dir = dir?;
    Some(job)
}

/// Runs a worker as `args`, without the program's name, say. Returns the exit code.
///
/// `--db-dir D --iteration N` puts `key-{N}-{c}` → `value-{c}` for c = 0, 1, … into the run
/// `crash-test-run`, with a checkpoint every 100, until it is killed. Without `--iteration` it
/// does what comes on its standard input.
pub fn main(args: &[String]) -> i32 {
    let Some(job) = parse(args) else {
        eprintln!(
            "usage: crash_test_worker --db-dir DIR [--iteration N] \
             [--mode strict|batched:MS:COMMITS|buffered] [--segment-bytes N]"
        );
        return 2;
    };
    #[cfg(feature = "hooks")]
    if let Ok(name) = std::env::var(steadfast_core::SABOTAGE_VARIABLE) {
        steadfast_core::sabotage_every_thread(steadfast_core::Sabotage::from_name(&name));
    }
    let opened = Database::open_or_create(&job.dir, database_config(job.mode, job.segment_bytes));
    let done = opened.map_err(|error| error.to_string()).and_then(|db| {
        say(&format!("open {}", db.current_version()))?;
        match job.iteration {
            Some(iteration) => flood(&db, iteration),
            None => serve(&db),
        }
    });
    match done {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("crash_test_worker: {error}");
            1
        }
    }
}

fn say(line: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| error.to_string())
}

/// The key and value of a put of a flooding worker.
pub(crate) fn flood_put(iteration: u64, count: u64) -> (String, String) {
    (format!("key-{iteration}-{count}"), format!("value-{count}"))
}

fn flood(db: &Database, iteration: u64) -> Result<(), String> {
    let fail = |error: steadfast_engine::Error| error.to_string();
    if db.resolve_run(WORKER_RUN).is_err() {
        let create = Operation::CreateRun { run: WORKER_RUN.into() };
        let version = create.apply(db).map_err(fail)?.unwrap_or(Version::ZERO);
        say(&format!("run {version}"))?;
    }
    let run = db.resolve_run(WORKER_RUN).map_err(fail)?;
    for count in 0.. {
        let (key, value) = flood_put(iteration, count);
        let receipt = db.kv_put(run, key, Value::from(value.as_bytes())).map_err(fail)?;
        say(&format!("acked {count} {}", receipt.version()))?;
        if (count + 1) % PUTS_PER_CHECKPOINT == 0 {
            db.checkpoint().map_err(fail)?;
            say("checkpoint")?;
        }
    }
    Ok(())
}

fn serve(db: &Database) -> Result<(), String> {
    for line in std::io::stdin().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let answer = match line.strip_prefix("arm ") {
            Some(words) => arm(words),
            None => match Operation::from_line(&line) {
                None => Err(format!("not an operation: {line}")),
                Some(operation) => match operation.apply(db) {
                    Ok(version) => Ok(version),
                    Err(error) => Err(format!("{}: {error}", error.kind())),
                },
            },
        };
        match answer {
            Ok(version) => say(&format!("ok {}", version.unwrap_or(Version::ZERO)))?,
            Err(error) => say(&format!("error {}", error.replace('\n', " ")))?,
        }
    }
    db.close().map_err(|error| error.to_string())
}

/// `POINT N TYPE`: dies there, on whatever thread.
#[cfg(feature = "hooks")]
fn arm(words: &str) -> Result<Option<Version>, String> {
    use crate::death::CrashType;
    use crate::injector::{CrashInjector, CrashPoint, install_injector_everywhere};
    let mut words = words.split(' ');
    let mut parsed = || {
        let point = CrashPoint::from_name(words.next()?)?;
        Some((point, words.next()?.parse().ok()?, CrashType::from_name(words.next()?)?))
    };
    let (point, after, crash) = parsed().ok_or("arm POINT N TYPE")?;
    install_injector_everywhere(&CrashInjector::dying(point, after, crash));
    Ok(None)
}

#[cfg(not(feature = "hooks"))]
fn arm(_words: &str) -> Result<Option<Version>, String> {
    Err("this worker was built without the feature `hooks`: it has no crash points".into())
}

/// A worker process, as its parent sees it.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

/// What a worker answered.
pub(crate) enum Answer {
    /// It is done.
    Line(String),
    /// It has died; nothing more will come.
    Died,
    /// It took too long.
    Late,
}

impl Worker {
    pub(crate) fn spawn(
        program: &Path,
        first_arguments: &[String],
        dir: &Path,
        iteration: Option<u64>,
        mode: DurabilityMode,
        segment_bytes: Option<u64>,
    ) -> std::io::Result<Self> {
        let mut command = Command::new(program);
        command.args(first_arguments).arg("--db-dir").arg(dir).args(["--mode", &mode_name(mode)]);
        if let Some(iteration) = iteration {
            command.args(["--iteration", &iteration.to_string()]);
        }
        if let Some(bytes) = segment_bytes {
            command.args(["--segment-bytes", &bytes.to_string()]);
        }
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().expect("it was asked for");
        let stdin = child.stdin.take();
        let (sender, lines) = channel();
        // Ends when the pipe does.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, stdin, lines })
    }

    /// Sends a line. That nobody reads it is found out by the answer.
    #[cfg(feature = "hooks")]
    pub(crate) fn send(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
        }
    }

    pub(crate) fn answer(&self, patience: Duration) -> Answer {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Answer::Line(line),
            Err(RecvTimeoutError::Disconnected) => Answer::Died,
            Err(RecvTimeoutError::Timeout) => Answer::Late,
        }
    }

    /// The lines until `until`, or until it dies.
    pub(crate) fn lines_until(&self, until: Instant) -> Vec<String> {
        let mut found = Vec::new();
        while let Ok(line) =
            self.lines.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            found.push(line);
        }
        found
    }

    /// Everything that it still says, to its end.
    pub(crate) fn rest(&self) -> Vec<String> {
        self.lines.iter().collect()
    }

    /// Sends a signal.
    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: i32) -> std::io::Result<()> {
        use rustix::process::{Pid, Signal, kill_process};
        let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let signal = Signal::from_named_raw(signal).ok_or_else(invalid)?;
        Ok(kill_process(pid.ok_or_else(invalid)?, signal)?)
    }

    /// Ends it. There is only one way.
    #[cfg(not(unix))]
    pub(crate) fn signal(&mut self, _signal: i32) -> std::io::Result<()> {
        self.child.kill()
    }

    /// Sends a signal until it has ended; after `patience`, kills it. Rust's own handler lets a
    /// first SIGSEGV pass.
    pub(crate) fn end_by(
        &mut self,
        signal: i32,
        patience: Duration,
    ) -> std::io::Result<ExitStatus> {
        let until = Instant::now() + patience;
        loop {
            self.signal(signal)?;
            if let Some(ended) = self.child.try_wait()? {
                return Ok(ended);
            }
            if Instant::now() > until {
                return self.kill();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.stdin = None;
        self.child.wait()
    }

    /// Kills it, if it is alive, and waits.
    pub(crate) fn kill(&mut self) -> std::io::Result<ExitStatus> {
        self.child.kill()?;
        self.wait()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// By which signal a process ended.
pub(crate) fn signal_of(status: ExitStatus) -> Option<i32> {
    #[cfg(unix)]
    return std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    return if status.success() { None } else { Some(9) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_go_over_a_command_line() {
        for mode in [DurabilityMode::Strict, DurabilityMode::BATCHED, DurabilityMode::Buffered] {
            assert_eq!(parse_mode(&mode_name(mode)), Some(mode));
        }
        let args = ["--db-dir", "d", "--iteration", "3", "--mode", "buffered"].map(String::from);
        let job = parse(&args).unwrap();
        assert_eq!((job.iteration, job.mode), (Some(3), DurabilityMode::Buffered));
        assert_eq!(parse(&args[..1]), None);
        assert_eq!(parse(&args[2..]), None, "it needs a directory");
    }
}
