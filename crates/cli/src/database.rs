//! Opening databases and files as the commands do: with what was typed, and saying on standard
//! error what recovery left out.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::ops::ControlFlow;
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use steadfast::{
    Database, DatabaseBuilder, DatabaseConfig, DurabilityMode, ErrorKind, Progress, RecoveryReport,
    Stage,
};

use crate::args::{Durability, WriteArgs};
use crate::failure::{Failure, Result};
use crate::output::counted;
use crate::retention::RetentionSpec;

impl From<steadfast::Error> for Failure {
    fn from(error: steadfast::Error) -> Self {
        Self::new(error.kind().name(), error.to_string())
    }
}

/// Opens the database in `dir` for writing, creating what is missing.
pub(crate) fn create_or_open(dir: &Path, args: &WriteArgs) -> Result<Database> {
    let mut config = config(args);
    let spec = args.retention.as_ref();
    if let Some(policy) = spec.and_then(RetentionSpec::without_runs) {
        config = config.retention(policy.clone());
    }
    let database = with_progress(dir).config(config).open()?;
    report_left_out(database.recovery_report());
    if let Some(spec) = spec.filter(|spec| spec.without_runs().is_none()) {
        let policy = spec.policy(|name| Ok(database.resolve_run(name)?.id()))?;
        database.set_retention(policy)?;
    }
    Ok(database)
}

/// Opens the database in `dir` to look at it. Writes nothing.
pub(crate) fn open_to_look(dir: &Path) -> Result<Database> {
    let database = with_progress(dir).open_read_only()?;
    report_left_out(database.recovery_report());
    Ok(database)
}

/// What `read` gives. Where that meets a damaged part of the snapshot that was opened, the part
/// is rebuilt from the older snapshot and the log, if they are there, and `read` goes on: it is
/// called again.
pub(crate) fn read_around_damage<T>(
    database: &Database,
    mut read: impl FnMut() -> Result<T>,
) -> Result<T> {
    let damage = match read() {
        Err(failure) if failure.kind == ErrorKind::Corruption.name() => failure,
        done => return done,
    };
    // What could not be rebuilt is for the reading to meet, or not.
    let _ = database.wait_loaded();
    let done = read()?;
    eprintln!("recovery: {}: rebuilt from the older snapshot and the log", damage.message);
    Ok(done)
}

/// One line on standard error if a part of the snapshot was damaged while it was brought into
/// memory.
pub(crate) fn report_rebuilt(database: &Database) {
    let load = database.stats().map(|stats| stats.load).unwrap_or_default();
    if load.rebuilt > 0 {
        let parts = counted(load.rebuilt as u64, "damaged part", "damaged parts");
        eprintln!(
            "recovery: {parts} of the snapshot that was opened: rebuilt from the older snapshot \
             and the log"
        );
    }
    for what in &load.failed {
        eprintln!("recovery: {what}: cannot be loaded");
    }
}

/// Does to the files of the database in `dir` what `work` says, and closes it.
pub(crate) fn maintain<T>(
    dir: &Path,
    work: impl FnOnce(&Database) -> steadfast::Result<T>,
) -> Result<T> {
    let config = DatabaseConfig::strict().manual_checkpoints();
    let database = with_progress(dir).config(config).open_existing()?;
    report_left_out(database.recovery_report());
    let done = work(&database);
    report_rebuilt(&database);
    let closed = database.close();
    let done = done?;
    closed?;
    Ok(done)
}

/// What `args` ask of a database, but for how much history it keeps.
pub(crate) fn config(args: &WriteArgs) -> DatabaseConfig {
    let mut config = DatabaseConfig::new(match args.durability {
        Durability::Strict => DurabilityMode::Strict,
        Durability::Batched => DurabilityMode::BATCHED,
        Durability::Buffered => DurabilityMode::Buffered,
    });
    if let Some(bytes) = args.segment_bytes {
        // Whoever asks for segments as small as can be gets them, not a refusal.
        let smallest = steadfast::limits::SEGMENT_BYTES_MIN;
        if bytes < smallest {
            eprintln!("note: segments of {bytes} bytes are too small, {smallest} are used");
        }
        config = config.segment_bytes(bytes.max(smallest));
    }
    if let Some(bytes) = args.checkpoint_bytes {
        config = config.checkpoint_bytes(bytes);
    }
    config
}

/// One line on standard error if not everything in the files is in the database, or not as it
/// should be.
pub(crate) fn report_left_out(report: &RecoveryReport) {
    if report.left_anything_out() {
        eprintln!("recovery: {report}");
    }
}

/// A builder that shows how far work that takes long has come, if people are looking: opening,
/// and what is done with the database later.
pub(crate) fn with_progress(dir: &Path) -> DatabaseBuilder {
    let builder = Database::builder(dir);
    if !std::io::stderr().is_terminal() {
        return builder;
    }
    let mut shown: Option<(Stage, ProgressBar)> = None;
    builder.on_progress(move |progress| {
        let Progress { stage, bytes, bytes_total, .. } = progress;
        let over = |(of, _): &mut (Stage, _)| *of != stage || bytes >= bytes_total;
        if let Some((_, bar)) = shown.take_if(over) {
            bar.finish_and_clear();
        }
        if shown.is_none() && bytes < bytes_total {
            shown = progress_bar(bytes_total, in_words(stage)).map(|bar| (stage, bar));
        }
        if let Some((_, bar)) = &shown {
            bar.set_length(bytes_total);
            bar.set_position(bytes);
        }
        ControlFlow::Continue(())
    })
}

const fn in_words(stage: Stage) -> &'static str {
    match stage {
        Stage::Replay => "reading the log",
        Stage::Load => "loading",
        Stage::Trim => "trimming",
        Stage::Write => "writing",
        Stage::ReadBack => "reading back",
        _ => "working",
    }
}

/// A bar over `bytes` on standard error; none unless people are looking.
pub(crate) fn progress_bar(bytes: u64, what: &str) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes} of {total_bytes}, {eta} left");
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    Some(bar.with_style(style).with_message(what.to_owned()))
}

/// Opens a file of the user's for reading.
#[expect(clippy::disallowed_methods, reason = "a file of the user's, none of a database")]
pub(crate) fn open_file(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| Failure::io(&path.display().to_string(), &error))
}

/// The file that was named, or standard input.
pub(crate) fn open_input(path: Option<&Path>) -> Result<Box<dyn Read>> {
    Ok(match path {
        Some(path) => Box::new(open_file(path)?),
        None => Box::new(std::io::stdin()),
    })
}
