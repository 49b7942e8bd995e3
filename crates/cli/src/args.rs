//! What people type.
//!
//! The database directory always comes first. Wrong usage is refused here, with status 2,
//! before anything is opened.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use steadfast::Retention;

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
    /// List the runs
    Runs(DirArgs),
    /// Describe the files, segment by segment, in plain words
    Inspect(InspectArgs),
    /// Sizes in memory and on disk, and how far the log is durable
    Stats(DirArgs),
    /// (not yet) Show the versions of a key
    History(NotYetArgs),
    /// (not yet) Compare two runs or two versions
    Diff(NotYetArgs),
    /// (not yet) Write a snapshot
    Checkpoint(NotYetArgs),
    /// (not yet) Delete the log that a snapshot has made superfluous
    Compact(NotYetArgs),
    /// (not yet) Copy a database while it is in use
    Backup(NotYetArgs),
    /// (not yet) Make a database from a backup
    Restore(NotYetArgs),
    /// (not yet) Copy what can be read of a damaged database into a new one
    Repair(NotYetArgs),
    /// (not yet) Measure commits, reads and recovery here
    Bench(NotYetArgs),
    /// (not yet) Crash a database in every way and prove what survives
    CrashTest(NotYetArgs),
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
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WriteArgs {
    /// When a commit counts as done
    #[arg(long, value_enum, default_value_t = Durability::Strict)]
    pub(crate) durability: Durability,
    /// Largest segment of the log, in bytes; smaller than 16384 is raised to that
    #[arg(long, value_name = "N")]
    pub(crate) segment_bytes: Option<u64>,
    /// Log bytes after which a snapshot is due (checkpoints are not there yet)
    #[arg(long, value_name = "N")]
    pub(crate) checkpoint_bytes: Option<u64>,
    /// Versions of a key to keep: `all` or `last:N` [default: last:1]
    #[arg(long, value_name = "SPEC", value_parser = parse_retention)]
    pub(crate) retention: Option<Retention>,
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

/// Whatever is typed after a command that is not there yet.
#[derive(Debug, Args)]
pub(crate) struct NotYetArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(crate) rest: Vec<OsString>,
}

fn parse_retention(spec: &str) -> Result<Retention, String> {
    let supported =
        || format!("`{spec}` is not supported; supported are `all` and `last:N`, N from 1");
    match spec.split_once(':') {
        None if spec == "all" => Ok(Retention::KeepAll),
        Some(("last", n)) => {
            n.parse::<NonZeroU32>().map(Retention::KeepLast).map_err(|_| supported())
        }
        _ => Err(supported()),
    }
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
    fn an_unknown_retention_says_what_is_supported() {
        assert_eq!(parse_retention("all"), Ok(Retention::KeepAll));
        assert_eq!(parse_retention("last:1"), Ok(Retention::NEWEST));
        for spec in ["", "last", "last:0", "last:x", "for:1h", "all:1"] {
            assert!(parse_retention(spec).unwrap_err().contains("`last:N`"), "{spec}");
        }
    }

    #[test]
    fn a_command_that_is_not_there_yet_takes_any_arguments() {
        let cli = Cli::try_parse_from(["steadfast", "repair", "a", "b", "--dry-run"]).unwrap();
        assert!(matches!(cli.command, Command::Repair(NotYetArgs { rest }) if rest.len() == 3));
    }
}
