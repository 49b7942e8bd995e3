//! The commands. Each reads its arguments, does its work through the library, and prints.

mod apply;
mod backup;
mod bench;
mod checkpoint;
mod compact;
mod crash_test;
mod diff;
mod dump;
mod fork;
mod history;
mod import;
mod inspect;
mod load;
mod repair;
mod restore;
mod runs;
mod stats;
mod verify;

use crate::args::Command;
use crate::failure::Result;

/// Does `command` and gives the exit status.
pub(crate) fn run(command: &Command, json: bool) -> Result<u8> {
    match command {
        Command::Demo(args) => crate::demo::run(args, json),
        Command::Apply(args) => apply::run(args),
        Command::Dump(args) => dump::run(args),
        Command::Load(args) => load::run(args, json),
        Command::Import(args) => import::run(args, json),
        Command::Verify(args) => verify::run(&args.dir, json),
        Command::Runs(args) => runs::run(&args.dir, json),
        Command::Inspect(args) => inspect::run(args, json),
        Command::Stats(args) => stats::run(args, json),
        Command::Fork(args) => fork::run(args, json),
        Command::History(args) => history::run(args, json),
        Command::Checkpoint(args) => checkpoint::run(&args.dir, json),
        Command::Compact(args) => compact::run(args, json),
        Command::Backup(args) => backup::run(args, json),
        Command::Restore(args) => restore::run(args, json),
        Command::Repair(args) => repair::run(args, json),
        Command::Diff(args) => diff::run(args, json),
        Command::Bench(args) => bench::run(args, json),
        Command::CrashTest(args) => crash_test::run(args, json),
        Command::CrashTestWorker(args) => Ok(crash_test::work(&args.rest)),
    }
}
