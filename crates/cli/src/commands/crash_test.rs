//! `crash-test`: the crash harness for a person. Databases on a simulated disk, and processes
//! that are really killed, in the time that is given; then a report.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use steadfast_testing::campaign::{
    Campaign, CampaignError, CampaignReport, Cell, KilledProgram, mode_name,
};

use crate::args::CrashTestArgs;
use crate::failure::{EXIT_DONE, EXIT_FAILED, Failure, Result};
use crate::json::{Object, list};
use crate::output::Output;

/// The hidden command that is the process to kill.
pub(crate) const WORKER_COMMAND: &str = "killed-process";

/// The longest that the repetition of one failure may take.
const REPLAY_TIME: Duration = Duration::from_secs(3600);

pub(crate) fn run(args: &CrashTestArgs, json: bool) -> Result<u8> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let path = std::env::current_exe().map_err(|error| Failure::io("this program", &error))?;
    let program = KilledProgram { path, arguments: vec![WORKER_COMMAND.to_owned()] };
    let campaign = Campaign::new(seed).killing(program);
    let report = match &args.replay {
        Some(token) => {
            let campaign = campaign.time(REPLAY_TIME);
            campaign.replay(token).map_err(|error| refused(&error))?
        }
        None => {
            let campaign = campaign.only(&args.technique).map_err(|error| refused(&error))?;
            // Before anything is looked for: what was found must not be lost for want of a page.
            page(args, "")?;
            let bar = bar(args.seconds);
            let report = campaign.time(Duration::from_secs(args.seconds)).run(|report| {
                if let Some(bar) = &bar {
                    bar.set_position(report.duration.as_secs().min(args.seconds));
                    bar.set_message(report.summary());
                }
            });
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            report
        }
    };
    // A repetition prints what it sees; the page of the search is worth keeping.
    let written = match args.replay {
        None => page(args, &report.to_html()),
        Some(_) => Ok(()),
    };
    if !json && args.replay.is_none() && written.is_ok() {
        Output::new().line_now(&format!("report: {}", args.report.display()))?;
    }
    Output::new().line_now(&if json { to_json(&report) } else { report.to_string() })?;
    written?;
    Ok(if report.is_good() { EXIT_DONE } else { EXIT_FAILED })
}

fn page(args: &CrashTestArgs, text: &str) -> Result<()> {
    let name = || args.report.display().to_string();
    std::fs::write(&args.report, text).map_err(|error| Failure::io(&name(), &error))
}

/// The process that is killed.
pub(crate) fn work(arguments: &[OsString]) -> u8 {
    let arguments: Vec<String> =
        arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    u8::try_from(steadfast_testing::worker::main(&arguments)).unwrap_or(EXIT_FAILED)
}

fn refused(error: &CampaignError) -> Failure {
    Failure::invalid(error.to_string())
}

fn bar(seconds: u64) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::with_draw_target(Some(seconds), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} s  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    Some(bar)
}

fn to_json(report: &CampaignReport) -> String {
    let cell = |cell: &Cell| {
        let object = Object::new()
            .text("technique", cell.technique)
            .text("mode", mode_name(cell.mode))
            .number("times", cell.parts)
            .number("images", cell.images)
            .number("kills", cell.kills);
        match &cell.failure {
            None => object.end(),
            Some(failure) => object
                .text("failure", &failure.why)
                .text("replay", &failure.token.to_string())
                .end(),
        }
    };
    Object::new()
        .number("seed", report.seed)
        .number("images", report.images())
        .number("kills", report.kills())
        .number("failures", report.failures().count() as u64)
        .number("duration_us", crate::output::micros(report.duration))
        .json("cells", &list(report.cells.iter().map(cell)))
        .end()
}
