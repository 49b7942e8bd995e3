//! What people type.
//!
//! The database directory always comes first. Wrong usage is refused here, with status 2,
//! before anything is opened.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use steadfast::CompactMode;
use steadfast_testing::campaign::{Campaign, CellToken};

use crate::retention::RetentionSpec;

/// An embedded, versioned, durable database whose crash safety you can check yourself.
///
/// Exit status: 0 done, 1 refused or failed, 2 wrong usage (verify: could not look).
#[derive(Debug, Parser)]
#[command(name = "steadfast", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Print JSON instead of text, also for errors
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Import bundled agent runs while killing the writer, and show that nothing was lost
    Demo(DemoArgs),
    /// Apply transactions from standard input, one JSON object a line, and answer each
    Apply(ApplyArgs),
    /// Write the whole content as JSON lines
    Dump(DumpArgs),
    /// Fill a new database from a dump on standard input, versions preserved
    Load(LoadArgs),
    /// Import files: agent trajectories (.traj) and JSON Lines of events
    Import(ImportArgs),
    /// Read every byte and say whether it is sound: exit 0 sound, 1 damaged, 2 could not look
    Verify(DirArgs),
    /// List the runs: status, how much is in them, metadata
    Runs(DirArgs),
    /// Describe the files, segment by segment, in plain words
    Inspect(InspectArgs),
    /// Sizes in memory and on disk, and how far log and snapshot have come
    Stats(StatsArgs),
    /// Show the versions of a key or a state cell that are kept, newest first
    History(HistoryArgs),
    /// Make a run that begins as another one is, without copying it
    Fork(ForkArgs),
    /// Write a snapshot, so that opening needs only the log behind it
    Checkpoint(DirArgs),
    /// Remove what is not needed any more: log, older snapshots, old versions
    Compact(CompactArgs),
    /// Copy a database, also while it is written to, into a directory of its own
    Backup(BackupArgs),
    /// Make a database from a backup, as it was then or at an earlier version
    Restore(RestoreArgs),
    /// Take what can be read of a damaged database into a new one
    Repair(RepairArgs),
    /// Compare two runs, or two versions of one: exit 0 whether they differ or not
    Diff(DiffArgs),
    /// Measure commits, reads and opening on the disk that a new directory is made on
    Bench(BenchArgs),
    /// Crash databases in every way for a while, and prove what survives: exit 1 if anything fails
    #[command(after_help = techniques())]
    CrashTest(CrashTestArgs),
    /// The process that `crash-test` kills
    #[command(hide = true, name = "killed-process")]
    CrashTestWorker(WorkerArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ForkArgs {
    /// The database directory
    pub(crate) dir: PathBuf,
    /// The run to fork
    pub(crate) parent: String,
    /// The name of the fork; no run may have it
    pub(crate) child: String,
}

/// The database, and nothing else.
#[derive(Debug, Args)]
pub(crate) struct DirArgs {
    /// The database directory
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The database directory; created if it is not there
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
    /// Read the transactions from this file
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
}

/// How a command that writes opens the database.
#[derive(Debug, Clone, Args)]
pub(crate) struct WriteArgs {
    /// When a commit counts as done
    #[arg(long, value_enum, default_value_t = Durability::Strict)]
    pub(crate) durability: Durability,
    /// Largest segment of the log, in bytes; smaller than 16384 is raised to that
    #[arg(long, value_name = "N")]
    pub(crate) segment_bytes: Option<u64>,
    /// Bytes of log after which a checkpoint is made by itself, and what it makes superfluous
    /// removed [default: as many as the newest snapshot has, at least 64 MiB]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) checkpoint_bytes: Option<u64>,
    /// Which superseded versions of a key to keep, from now on [default: what the database was
    /// told before, at first last:1]
    ///
    /// SPEC is RULE[,RULE...]. The first RULE may be for everything: `all`, `last:N` (the newest N
    /// versions), `for:DURATION` (until superseded for that long; a number and s, m, h or d), or
    /// `last:N+for:DURATION` (what either would keep). Others are for a primitive, such as `kv=RULE`
    /// or `event=RULE`, or for a run that is there, `run:NAME=RULE`, which goes before
    /// those. SPEC takes the place of all earlier rules; without one for everything that is last:1.
    #[arg(long, value_name = "SPEC", value_parser = RetentionSpec::parse)]
    pub(crate) retention: Option<RetentionSpec>,
}

/// When a commit counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// Synced: survives power loss
    Strict,
    /// Written, synced every 100 ms or 1,000 commits: survives a killed process
    Batched,
    /// Written: survives a killed process
    Buffered,
}

#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// The database directory
    pub(crate) dir: PathBuf,
    /// As it was at this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) at: Option<u64>,
    /// Also the superseded and deleted versions that are still kept
    #[arg(long)]
    pub(crate) history: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The database directory; there must be no database in it
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
    /// Read the dump from this file
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The database directory; created if it is not there
    pub(crate) dir: PathBuf,
    /// Files: .traj is an agent trajectory, anything else is JSON Lines
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The run to import into [default: a run for each file, named after its stem]
    #[arg(long, value_name = "NAME")]
    pub(crate) run: Option<String>,
    /// The field of a line that names its stream [default: one stream, named after the stem]
    #[arg(long, value_name = "FIELD")]
    pub(crate) stream_by: Option<String>,
    /// The field of a line that holds its time: s, ms or µs since 1970, or RFC 3339
    #[arg(long, value_name = "FIELD")]
    pub(crate) time: Option<String>,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The database directory
    pub(crate) dir: PathBuf,
    /// Also every frame
    #[arg(long)]
    pub(crate) frames: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where to make the database [default: a new temporary directory, kept afterwards]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Repeats the moments of the kills [default: random, printed]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How often to kill the writer
    #[arg(long, default_value_t = 12)]
    pub(crate) kills: u32,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// The database directory
    pub(crate) dir: PathBuf,
    /// Look again and again, a line each time, until stopped
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = parse_seconds)]
    pub(crate) watch: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The database directory
    pub(crate) dir: PathBuf,
    /// The key, with --state the cell, or with --signal the entity
    pub(crate) key: OsString,
    /// The run it is in
    #[arg(long, value_name = "NAME")]
    pub(crate) run: String,
    /// KEY is a state cell
    #[arg(long)]
    pub(crate) state: bool,
    /// KEY is an entity, of which this signal is wanted
    #[arg(long, value_name = "NAME", conflicts_with = "state")]
    pub(crate) signal: Option<String>,
}

/// Two runs, or two versions of one.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The database directory
    pub(crate) dir: PathBuf,
    /// The run to compare from
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// The run to compare it with
    #[arg(value_name = "RUN2", required_unless_present = "from")]
    pub(crate) other: Option<String>,
    /// Compare RUN as it was at this version
    #[arg(long, value_name = "VERSION", conflicts_with = "other")]
    pub(crate) from: Option<u64>,
    /// with RUN as it was at this one [default: now]
    #[arg(long, value_name = "VERSION", requires = "from")]
    pub(crate) to: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct CompactArgs {
    /// The database directory
    pub(crate) dir: PathBuf,
    /// How far to go
    #[arg(long, value_enum, default_value_t = Mode::Full)]
    pub(crate) mode: Mode,
}

/// How far a compaction goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Only what the newest snapshot makes superfluous
    WalOnly,
    /// First let go of versions that are not to be kept, and write a snapshot
    Full,
}

impl From<Mode> for CompactMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::WalOnly => Self::WalOnly,
            Mode::Full => Self::Full,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The database directory
    pub(crate) dir: PathBuf,
    /// Where to put the copy: missing, or empty
    pub(crate) target: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The directory of the backup, which is only read
    pub(crate) backup: PathBuf,
    /// Where to make the database: missing, or empty
    #[arg(value_name = "NEWDIR")]
    pub(crate) new_dir: PathBuf,
    /// As it was at this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) at: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// The directory of the damaged database, which is not changed
    pub(crate) dir: PathBuf,
    /// Where to make the new database: missing, or empty
    #[arg(required_unless_present = "dry_run", value_name = "NEWDIR")]
    pub(crate) new_dir: Option<PathBuf>,
    /// Only say what would be kept and what would be lost
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// A directory to make, and to remove afterwards: must not be there
    pub(crate) dir: PathBuf,
    /// How long each kind of commit is measured, in milliseconds
    #[arg(long, value_name = "N", default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(crate) millis: u64,
}

#[derive(Debug, Args)]
pub(crate) struct CrashTestArgs {
    /// Where every random choice begins [default: random, printed]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How long to look
    #[arg(long, value_name = "N", default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Where to put the report, one page of HTML
    #[arg(long, value_name = "FILE", default_value = "crash-report.html")]
    pub(crate) report: PathBuf,
    /// Only this technique; may be given several times
    #[arg(long, value_name = "NAME", conflicts_with = "replay", value_parser = parse_technique)]
    pub(crate) technique: Vec<String>,
    /// Repeat one failure, by the token that was printed with it
    #[arg(long, value_name = "TOKEN")]
    pub(crate) replay: Option<CellToken>,
}

/// What the worker is told.
#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(crate) rest: Vec<OsString>,
}

fn techniques() -> String {
    let names = steadfast_testing::campaign::names().join(", ");
    format!(
        "Techniques: {names}.\nA token is TECHNIQUE.MODE.SEED, such as power-cuts.strict.7. (A \
         token of a crash_matrix of your own goes into STEADFAST_REPLAY of its test.)"
    )
}

fn parse_technique(text: &str) -> Result<String, String> {
    Campaign::new(0).only(&[text]).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let wait = seconds.filter(|wait| !wait.is_zero());
    wait.ok_or_else(|| "a number of seconds above 0 was expected".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durability_is_strict_unless_asked_otherwise() {
        for command in [&["apply", "d"][..], &["load", "d"], &["import", "d", "f"]] {
            let cli = Cli::parse_from([&["steadfast"], command].concat());
            let (Command::Apply(ApplyArgs { write, .. })
            | Command::Load(LoadArgs { write, .. })
            | Command::Import(ImportArgs { write, .. })) = cli.command
            else {
                panic!("{command:?}")
            };
            assert_eq!(write.durability, Durability::Strict);
        }
    }

    #[test]
    fn a_repair_needs_a_place_unless_it_is_a_trial() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["steadfast", "repair"], args].concat());
        assert!(parse(&["d"]).is_err());
        for args in [&["d", "--dry-run"][..], &["d", "n"], &["d", "n", "--dry-run"]] {
            assert!(parse(args).is_ok(), "{args:?}");
        }
    }

    #[test]
    fn watching_needs_no_number_and_takes_a_sensible_one() {
        let parse = |args: &[&str]| {
            let cli = Cli::try_parse_from([&["steadfast", "stats", "d"], args].concat());
            cli.map(|cli| match cli.command {
                Command::Stats(args) => args.watch,
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(parse(&[]).unwrap(), None);
        assert_eq!(parse(&["--watch"]).unwrap(), Some(Duration::from_secs(2)));
        assert_eq!(parse(&["--watch", "0.5"]).unwrap(), Some(Duration::from_millis(500)));
        for bad in ["0", "-1", "nan", "inf", "1e300", "x"] {
            assert!(parse(&[&format!("--watch={bad}")]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_diff_is_of_two_runs_or_of_two_versions() {
        let parse =
            |args: &[&str]| Cli::try_parse_from([&["steadfast", "diff", "d"], args].concat());
        for args in [&["a", "b"][..], &["a", "--from", "1"], &["a", "--from", "1", "--to", "2"]] {
            assert!(parse(args).is_ok(), "{args:?}");
        }
        for args in [&[][..], &["a"], &["a", "--to", "2"], &["a", "b", "--from", "1"]] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }
}
