//! A target killed again and again, on a real directory: what works on every Unix.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::target::history::{Bounds, History};
use crate::target::process::{Answer, Program, TargetProcess};
use crate::target::verdict::{Tally, Verdict};

/// How a target is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KillConfig {
    /// How often.
    pub kills: u64,
    /// The most transactions that it finishes before.
    pub transactions_max: usize,
    /// Where transactions and times are drawn from.
    pub seed: u64,
    /// How long one answer may take.
    pub patience: Duration,
}

impl Default for KillConfig {
    /// 20 kills, each after at most 20 transactions; seed 1; an answer within 30 seconds.
    fn default() -> Self {
        Self { kills: 20, transactions_max: 20, seed: 1, patience: Duration::from_secs(30) }
    }
}

/// Lets `program` work in directories below `dir` and kills it, by SIGKILL, while it applies a
/// transaction. What it left is opened, judged by what survives the end of a process, and gone
/// on with; after something wrong, with an empty directory.
///
/// # Errors
///
/// The process could not be started, or not even make a store.
pub fn kill_repeatedly(program: &Program, dir: &Path, config: &KillConfig) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let mut rng = fastrand::Rng::with_seed(config.seed);
    for store in 0.. {
        let dir = dir.join(format!("store-{store}"));
        std::fs::create_dir_all(&dir)?;
        let mut history = History::new(rng.u64(..));
        let mut bounds = Bounds::default();
        let mut process = TargetProcess::spawn(program, "start", &dir, config.patience)?;
        if let Err(verdict) = process.opened(false, &|| false) {
            return Err(io::Error::other(format!("it does not start: {verdict:?}")));
        }
        loop {
            if tally.crashes == config.kills {
                return Ok(tally);
            }
            let verdict = match work_and_kill(&mut process, &mut history, config, &mut rng)? {
                Some(wrong) => wrong,
                None => {
                    let account = process.inbox().account();
                    let before = bounds.acknowledged;
                    bounds.promised = history.through(account.through_death).max(bounds.promised);
                    bounds.acknowledged = history.through(account.acknowledged).max(before);
                    bounds.begun = history.len();
                    tally.acknowledged += (bounds.acknowledged - before) as u64;
                    process = TargetProcess::spawn(program, "reopen", &dir, config.patience)?;
                    process.find(&history, bounds).unwrap_or_else(|verdict| verdict)
                }
            };
            let kill = tally.crashes;
            tally.crashes += 1;
            tally.add(&verdict, bounds.acknowledged, || {
                format!("kill {kill}, seed {}, {}", config.seed, dir.display())
            });
            let Verdict::Prefix(found) = verdict else { break };
            history.keep(found);
            bounds.acknowledged = bounds.acknowledged.min(found);
        }
    }
    Ok(tally)
}

/// What is wrong with what it did before it was killed, if anything.
fn work_and_kill(
    process: &mut TargetProcess,
    history: &mut History,
    config: &KillConfig,
    rng: &mut fastrand::Rng,
) -> io::Result<Option<Verdict>> {
    let mut slowest = Duration::from_micros(100);
    for _ in 0..rng.usize(..=config.transactions_max) {
        let begun = Instant::now();
        process.begin(&history.begin());
        match process.answer(&|| false) {
            Answer::Line(line) if line.starts_with("ok ") => {}
            answer => return Ok(Some(Verdict::Unusable(format!("applying: {answer:?}")))),
        }
        slowest = slowest.max(begun.elapsed());
    }
    process.begin(&history.begin());
    let micros = u64::try_from(slowest.as_micros()).unwrap_or(1000).min(20_000);
    std::thread::sleep(Duration::from_micros(rng.u64(..micros)));
    process.kill();
    process.wait()?;
    Ok(None)
}
