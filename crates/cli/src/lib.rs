//! The `steadfast` program, as a library: for its binary and for its fuzz target, and for nobody
//! else. What it promises is said in the command line's own documentation.
//!
//! Reads arguments, calls the library, prints. Promises: the forms of `JSON.md`, one answer for
//! each line of `apply`, and the exit statuses 0 (done), 1 (refused or failed) and 2 (wrong
//! usage). It does not know how bytes look, neither in memory nor on disk.

mod args;
mod commands;
mod database;
mod demo;
mod entry;
mod failure;
#[doc(hidden)]
pub mod fuzz;
mod import;
mod inspection;
mod json;
mod lines;
mod op;
mod output;
mod retention;
mod sets_and_graphs;
mod signal;
mod transact;

use std::process::ExitCode;

use clap::Parser;

/// Does what the arguments of the process say. Returns its exit status.
pub fn main() -> ExitCode {
    // The commands say what they found themselves; the layers' own words are for those who ask.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("off")).init();
    let cli = args::Cli::parse();
    match commands::run(&cli.command, cli.json) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => failure.report(cli.json),
    }
}
