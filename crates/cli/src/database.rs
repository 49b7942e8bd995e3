//! Opening databases and files as the commands do: with what was typed, and saying on standard
//! error what recovery left out.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use steadfast::{Database, DatabaseBuilder, DatabaseConfig, DurabilityMode, RecoveryReport};

use crate::args::{Durability, WriteArgs};
use crate::failure::{Failure, Result};

impl From<steadfast::Error> for Failure {
    fn from(error: steadfast::Error) -> Self {
        Self::new(error.kind().name(), error.to_string())
    }
}

/// Opens the database in `dir` for writing, creating what is missing.
pub(crate) fn create_or_open(dir: &Path, args: &WriteArgs) -> Result<Database> {
    let database = with_progress(dir).config(config(args)).open()?;
    report_left_out(database.recovery_report());
    Ok(database)
}

/// Opens the database in `dir` to look at it. Writes nothing.
pub(crate) fn open_to_look(dir: &Path) -> Result<Database> {
    let database = with_progress(dir).open_read_only()?;
    report_left_out(database.recovery_report());
    Ok(database)
}

/// What `args` ask of a database.
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
    if let Some(retention) = args.retention {
        config = config.retention(retention);
    }
    config
}

/// One line on standard error if not everything in the files is in the database.
fn report_left_out(report: &RecoveryReport) {
    if report.left_anything_out() {
        eprintln!("recovery: {report}");
    }
}

/// A builder that shows how far the log is read, if it takes long enough to be seen.
fn with_progress(dir: &Path) -> DatabaseBuilder {
    let builder = Database::builder(dir);
    let Some(bar) = progress_bar(0, "reading the log") else { return builder };
    builder.on_progress(move |progress| {
        bar.set_length(progress.bytes_total);
        bar.set_position(progress.bytes);
        if progress.bytes >= progress.bytes_total {
            bar.finish_and_clear();
        }
    })
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
