//! The child process that writes: `steadfast apply`, fed, listened to, and killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::demo::script::Step;
use crate::failure::{Failure, Result};

/// Bytes of log after which the writer makes a checkpoint: so few that it does so several times
/// in its short lives, and is killed in the middle of some.
const CHECKPOINT_BYTES: &str = "262144";

/// When the writer is killed: so long after it acknowledged so many transactions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KillAt {
    pub(crate) acknowledged: usize,
    pub(crate) after: Duration,
}

/// What a writer's life amounted to.
#[derive(Debug)]
pub(crate) struct Life {
    /// The versions of the transactions it acknowledged, in order.
    pub(crate) acknowledged: Vec<u64>,
    /// How many lines were handed to it, some perhaps only in part.
    pub(crate) sent: usize,
    /// From the first line sent to its end.
    pub(crate) time: Duration,
    /// Whether it ended by itself, its input used up.
    pub(crate) finished: bool,
}

/// Pipes `steps` freely into a new writer on `dir` and kills it in the midst of them if asked.
///
/// What it wrote to its answers before it died counts as acknowledged, also when it is read
/// only afterwards.
pub(crate) fn write(dir: &Path, steps: &[Step], kill: Option<KillAt>) -> Result<Life> {
    let mut child = spawn(dir)?;
    let missing = || Failure::new("io", "the writer has no pipes");
    let mut stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let start = Instant::now();
    let sent = AtomicUsize::new(0);
    let (acknowledging, acknowledged) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for step in steps {
                sent.fetch_add(1, Ordering::Relaxed);
                // The pipe breaks when the writer is killed: then this is over.
                if stdin.write_all(step.line.as_bytes()).is_err() {
                    break;
                }
            }
            drop(stdin);
        });
        let listener = scope.spawn(move || listen(stdout, &acknowledging));
        let complaints = scope.spawn(move || read_all(stderr));
        let killed = match kill {
            Some(kill) => kill_when_due(&mut child, kill, &acknowledged),
            None => Ok(false),
        };
        let answers = listener.join().map_err(|_| Failure::new("io", "the listener panicked"))?;
        let status = child.wait().map_err(|error| Failure::io("the writer", &error))?;
        let finished = status.success();
        if !finished && !killed? {
            let complaints = complaints.join().unwrap_or_default();
            return Err(Failure::new("io", format!("the writer failed, {status}: {complaints}")));
        }
        let time = start.elapsed();
        let sent = sent.load(Ordering::Relaxed);
        Ok(Life { acknowledged: answers?, sent, time, finished })
    })
}

fn spawn(dir: &Path) -> Result<Child> {
    let program = std::env::current_exe().map_err(|error| Failure::io("this program", &error))?;
    Command::new(program)
        .arg("apply")
        .arg(dir)
        .args(["--checkpoint-bytes", CHECKPOINT_BYTES])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::io("the writer", &error))
}

fn read_all(mut input: impl Read) -> String {
    let mut text = Vec::new();
    // What could be read before an error is all there is to show.
    let _ = input.read_to_end(&mut text);
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

/// Reads the answers to their end. A last one that was cut off does not count.
fn listen(stdout: impl Read, acknowledging: &Sender<()>) -> Result<Vec<u64>> {
    let mut versions = Vec::new();
    let mut stdout = BufReader::new(stdout);
    let mut answer = String::new();
    loop {
        answer.clear();
        let read = stdout.read_line(&mut answer);
        read.map_err(|error| Failure::io("the writer's answers", &error))?;
        if !answer.ends_with('\n') {
            return Ok(versions);
        }
        let version = answer.trim_end().strip_prefix("{\"ok\":").and_then(|a| a.strip_suffix('}'));
        match version.and_then(|version| version.parse().ok()) {
            Some(version) => versions.push(version),
            None => return Err(Failure::new("io", format!("the writer answered {answer}"))),
        }
        // Nobody listens any more once the kill is done.
        let _ = acknowledging.send(());
    }
}

/// Whether the writer was killed; it may have finished before.
fn kill_when_due(child: &mut Child, kill: KillAt, acknowledged: &Receiver<()>) -> Result<bool> {
    for _ in 0..kill.acknowledged {
        if acknowledged.recv().is_err() {
            return Ok(false);
        }
    }
    std::thread::sleep(kill.after);
    child.kill().map_err(|error| Failure::io("the writer", &error))?;
    Ok(true)
}
