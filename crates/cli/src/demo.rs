//! `demo`: agent runs are written by a process that is killed again and again, and nothing that
//! it acknowledged is lost.
//!
//! Each round feeds the transactions that are not there yet to a child `apply`, kills it at a
//! random moment, opens what it left, and compares. The last round lets it finish.

mod check;
pub(crate) mod script;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::args::DemoArgs;
use crate::failure::{EXIT_DONE, Failure, Result};
use crate::json::Object;
use crate::output::{Output, count, duration, micros, size};
use check::{Files, Survivors};
use script::Script;
use writer::{KillAt, Life};

/// How often the bundled runs are written, each time under other names: enough transactions
/// that every kill lands among them.
const COPIES: u32 = 4;

/// The kill comes at most so long after the acknowledgement it waits for.
const KILL_DELAY_MAX: Duration = Duration::from_millis(2);

/// What the demo found, in figures.
#[derive(Debug, Default)]
struct Tally {
    transactions: usize,
    acknowledged: usize,
    kept: usize,
    kills: usize,
    writing: Duration,
    recoveries: Vec<Duration>,
}

pub(crate) fn run(args: &DemoArgs, json: bool) -> Result<u8> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..100_000));
    let dir = place(args.dir.as_deref(), seed)?;
    let script = Script::new(COPIES)?;
    let mut output = Output::new();
    if !json {
        output.line(&format!(
            "{} agent runs of SWE-agent (MIT), written {COPIES} times over: {} transactions, {}.",
            script::FILES,
            count(script.steps.len() as u64),
            size(script.bytes()),
        ))?;
        output.line(
            "A child process writes them, a synced commit each, makes checkpoints meanwhile, and is \
             killed again and again.",
        )?;
        output.line(&format!("database: {}", dir.display()))?;
        output.line_now(&format!("seed: {seed}\n"))?;
    }
    let tally =
        rounds(args.kills, seed, &dir, &script, &mut Narrator { output: &mut output, json })?;
    let files = check::files(&dir)?;
    if json {
        output.line_now(&tally.to_json(seed, &dir, &files))?;
    } else {
        output.line("")?;
        tally.print(&mut output, &files)?;
        print_what_next(&mut output, &dir)?;
        output.flush()?;
    }
    Ok(EXIT_DONE)
}

/// A new directory: the demo never writes where something is.
fn place(dir: Option<&Path>, seed: u64) -> Result<PathBuf> {
    let Some(dir) = dir else {
        let name = format!("steadfast-demo-{}-{seed}", std::process::id());
        return Ok(std::env::temp_dir().join(name));
    };
    match std::fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(false) => Err(Failure::invalid(format!(
            "{}: is not empty; the demo needs a new directory",
            dir.display()
        ))),
        _ => Ok(dir.to_owned()),
    }
}

fn rounds(
    kills: u32,
    seed: u64,
    dir: &Path,
    script: &Script,
    narrator: &mut Narrator<'_>,
) -> Result<Tally> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let total = script.steps.len();
    let mut tally = Tally { transactions: total, ..Tally::default() };
    let mut versions: Vec<Option<u64>> = vec![None; total];
    narrator.head()?;
    let kills = usize::try_from(kills).unwrap_or(usize::MAX);
    while tally.kept < total {
        let left = total - tally.kept;
        let kill = (tally.kills < kills).then(|| KillAt {
            // On average the kills still to come use up nine tenths of what is left.
            acknowledged: rng.usize(1..=(left * 9 / 5 / (kills - tally.kills + 1)).max(1)),
            after: KILL_DELAY_MAX.mul_f64(rng.f64()),
        });
        let start = tally.kept;
        let life = writer::write(dir, &script.steps[start..], kill)?;
        for (version, at) in life.acknowledged.iter().zip(&mut versions[start..]) {
            *at = Some(*version);
        }
        let survivors = check::survivors(dir, script, &versions)?;
        check_promise(start, &life, &survivors)?;
        for (version, at) in survivors.versions.iter().zip(&mut versions) {
            *at = Some(*version);
        }
        tally.acknowledged += life.acknowledged.len();
        tally.kept = survivors.versions.len();
        tally.writing += life.time;
        tally.recoveries.push(survivors.recovery);
        if !life.finished {
            tally.kills += 1;
            narrator.kill(&tally, start, &life, &survivors)?;
        } else if tally.kept < total {
            return Err(Failure::new(
                "corruption",
                "the writer finished, and not everything is there",
            ));
        }
    }
    Ok(tally)
}

/// Acknowledged ≤ kept ≤ sent. That what was kept is a prefix and equal is checked before.
fn check_promise(start: usize, life: &Life, survivors: &Survivors) -> Result<()> {
    let kept = survivors.versions.len();
    let (acknowledged, sent) = (start + life.acknowledged.len(), start + life.sent);
    if kept < acknowledged {
        let lost = acknowledged - kept;
        return Err(Failure::new(
            "corruption",
            format!("LOST: {lost} acknowledged commits are gone"),
        ));
    }
    if kept > sent {
        let message = format!("{kept} commits are there, only {sent} were sent");
        return Err(Failure::new("corruption", message));
    }
    Ok(())
}

/// Says what happens while it happens, to people.
struct Narrator<'a> {
    output: &'a mut Output,
    json: bool,
}

impl Narrator<'_> {
    fn head(&mut self) -> Result<()> {
        self.say("kill  acknowledged   kept  lost  in flight, kept too  recovery")
    }

    fn kill(
        &mut self,
        tally: &Tally,
        start: usize,
        life: &Life,
        survivors: &Survivors,
    ) -> Result<()> {
        let acknowledged = start + life.acknowledged.len();
        let kept = survivors.versions.len();
        self.say(&format!(
            "{:>4}  {acknowledged:>12}  {kept:>5}  {:>4}  {:>19}  {:>8}",
            tally.kills,
            acknowledged.saturating_sub(kept),
            kept - acknowledged,
            duration(survivors.recovery),
        ))
    }

    fn say(&mut self, line: &str) -> Result<()> {
        if self.json { Ok(()) } else { self.output.line_now(line) }
    }
}

impl Tally {
    /// Commits a second while a writer lived, its start and its recovery included.
    fn rate(&self) -> u64 {
        let micros = self.writing.as_micros().max(1);
        u64::try_from(self.kept as u128 * 1_000_000 / micros).unwrap_or(u64::MAX)
    }

    fn worst_recovery(&self) -> Duration {
        self.recoveries.iter().max().copied().unwrap_or_default()
    }

    fn print(&self, output: &mut Output, files: &Files) -> Result<()> {
        let in_flight = self.kept - self.acknowledged;
        let row = |what: &str, figure: String| [what.to_owned(), figure];
        output.table(&[
            row("writer killed", format!("{} times", self.kills)),
            row("commits acknowledged", count(self.acknowledged as u64)),
            row(
                "commits kept",
                format!("{} ({in_flight} more than acknowledged)", count(self.kept as u64)),
            ),
            row("commits lost", "0".to_owned()),
            row("slowest recovery", duration(self.worst_recovery())),
            row(
                "checkpoints",
                format!(
                    "{}, beside the commits; the newest has versions up to {}",
                    files.checkpoints, files.snapshot_version
                ),
            ),
            row(
                "files",
                format!("log {}, snapshots {}", size(files.log_bytes), size(files.snapshot_bytes)),
            ),
            row("rate", format!("{} commits/s, restarts included", count(self.rate()))),
            row("verify", files.verdict.clone()),
        ])
    }

    fn to_json(&self, seed: u64, dir: &Path, files: &Files) -> String {
        Object::new()
            .text("dir", &dir.to_string_lossy())
            .number("seed", seed)
            .number("transactions", self.transactions as u64)
            .number("kills", self.kills as u64)
            .number("acknowledged", self.acknowledged as u64)
            .number("kept", self.kept as u64)
            .number("lost", 0)
            .number("slowest_recovery_us", micros(self.worst_recovery()))
            .number("checkpoints", files.checkpoints)
            .number("log_bytes", files.log_bytes)
            .number("snapshot_bytes", files.snapshot_bytes)
            .number("commits_per_second", self.rate())
            .end()
    }
}

fn print_what_next(output: &mut Output, dir: &Path) -> Result<()> {
    let program = std::env::current_exe()
        .map_or_else(|_| "steadfast".into(), |path| path.display().to_string());
    let (file, offset) = check::middle_of_log(dir)?;
    let put = r#"{"ops":[{"op":"kv_put","run":"mine","key":"k","value":1}]}"#;
    let damage = format!("printf X | dd of=$D/{file} bs=1 seek={offset} conv=notrunc");
    output.line("\nWhat to try next:")?;
    output.line(&format!("  S={program} D={}", dir.display()))?;
    output.line("  $S runs $D                  # the agents' runs")?;
    output.line("  $S dump $D | head -c 2000   # what is in them")?;
    output.line("  $S inspect $D               # what the files hold, in plain words")?;
    output.line(&format!("  echo '{put}' | $S apply $D"))?;
    output.line(&format!("  {damage}; $S verify $D   # damage is found and named"))
}
