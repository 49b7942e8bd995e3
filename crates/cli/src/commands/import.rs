//! `import`: other programs' files, many writes a transaction, each exactly once.
//!
//! How far a file is imported is kept in a cell of its run, written by the same transactions as
//! the data: `import/<file name>` holds how many lines (or, of a trajectory, how many writes)
//! are done and a checksum of what they were read from. So an import that stopped, at a bad line
//! or at a power cut, goes on where it was when the same command is given again; a file that
//! has grown adds what is new; and a file that is not the one imported before is refused.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use indicatif::ProgressBar;
use steadfast::{AppendOptions, Database, Error, Run, Transaction, Value};

use crate::args::ImportArgs;
use crate::database::{create_or_open, open_file, progress_bar, report_rebuilt};
use crate::failure::{EXIT_DONE, Failure, Result};
use crate::import::json_lines::JsonLines;
use crate::import::{Unit, trajectory};
use crate::json::{Object, list};
use crate::lines::Lines;
use crate::output::{Output, count};

/// Lines a transaction.
const BATCH_LINES: u64 = 256;
/// Bytes of lines after which a transaction has enough.
const BATCH_BYTES: u64 = 4 << 20;
/// Largest trajectory. It is one JSON object, so it is held in memory whole.
const TRAJECTORY_BYTES_MAX: u64 = 512 << 20;

pub(crate) fn run(args: &ImportArgs, json: bool) -> Result<u8> {
    let database = create_or_open(&args.dir, &args.write)?;
    let mut reports = Vec::new();
    let imported = args.files.iter().try_for_each(|path| {
        let report = import_file(&database, args, path)?;
        reports.push(report);
        Ok(())
    });
    report_rebuilt(&database);
    let closed = database.close().map_err(Failure::from);
    let mut output = Output::new();
    if json {
        output.line(&list(reports.iter().map(Report::to_json)))?;
    } else if !reports.is_empty() {
        let mut rows = vec![["file", "run", "keys", "events", "there before"].map(str::to_owned)];
        rows.extend(reports.iter().map(Report::row));
        output.table(&rows)?;
    }
    output.flush()?;
    imported.and(closed).map(|()| EXIT_DONE)
}

/// What became of a file.
#[derive(Debug)]
struct Report {
    file: String,
    run: String,
    keys: u64,
    events: u64,
    /// Lines, or writes of a trajectory, that an earlier import had done.
    skipped: u64,
}

impl Report {
    fn row(&self) -> [String; 5] {
        let [keys, events, skipped] = [self.keys, self.events, self.skipped].map(count);
        [self.file.clone(), self.run.clone(), keys, events, skipped]
    }

    fn to_json(&self) -> String {
        Object::new()
            .text("file", &self.file)
            .text("run", &self.run)
            .number("keys", self.keys)
            .number("events", self.events)
            .number("skipped", self.skipped)
            .end()
    }
}

fn import_file(database: &Database, args: &ImportArgs, path: &Path) -> Result<Report> {
    let shown = path.display().to_string();
    let utf8 = |name: Option<&std::ffi::OsStr>| {
        let name = name.and_then(|name| name.to_str()).map(str::to_owned);
        name.ok_or_else(|| Failure::invalid(format!("{shown}: has no name in UTF-8")))
    };
    let stem = utf8(path.file_stem())?;
    let run = args.run.clone().unwrap_or_else(|| stem.clone());
    let cell = format!("import/{}", utf8(path.file_name())?);
    let file = open_file(path)?;
    let bytes = file.metadata().map_err(|error| Failure::io(&shown, &error))?.len();
    let mut import = Import {
        database,
        cell,
        progress: progress_bar(bytes, &shown).unwrap_or_else(ProgressBar::hidden),
        report: Report { file: shown.clone(), run, keys: 0, events: 0, skipped: 0 },
    };
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("traj")) {
        import.trajectory(file, bytes).map_err(|failure| failure.of(&shown))?;
    } else {
        let reader = JsonLines { stem, stream_by: args.stream_by.clone(), time: args.time.clone() };
        import.lines(&shown, file, &reader)?;
    }
    import.progress.finish_and_clear();
    Ok(import.report)
}

/// How far a file is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Done {
    units: u64,
    checksum: u32,
}

impl Done {
    fn to_value(self) -> Value {
        let int = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        let checksum = ("crc32".to_owned(), int(self.checksum.into()));
        Value::Map(BTreeMap::from([("done".to_owned(), int(self.units)), checksum]))
    }

    fn from_value(value: &Value) -> Option<Self> {
        let Value::Map(fields) = value else { return None };
        Some(Self {
            units: u64::try_from(fields.get("done")?.as_int()?).ok()?,
            checksum: u32::try_from(fields.get("crc32")?.as_int()?).ok()?,
        })
    }
}

/// One file being imported.
struct Import<'a> {
    database: &'a Database,
    /// The cell that says how far the file is imported.
    cell: String,
    progress: ProgressBar,
    report: Report,
}

impl Import<'_> {
    fn done(&self) -> Result<Done> {
        let view = self.database.view()?;
        let cell = match view.resolve_run(&self.report.run) {
            Err(Error::NotFound(_)) => None,
            run => view.state_read(run?, &self.cell)?,
        };
        match cell {
            None => Ok(Done::default()),
            Some(cell) => Done::from_value(&cell.value).ok_or_else(|| {
                let message =
                    format!("the cell `{}` does not say how far it is imported", self.cell);
                Failure::new("conflict", message)
            }),
        }
    }

    /// Writes `units` and how far the file is done then, in one transaction.
    fn commit(&mut self, units: &[Unit], done: Done) -> Result<()> {
        self.database.transaction(|transaction| {
            let run = transaction.get_or_create_run(&self.report.run)?;
            for unit in units {
                write(transaction, run, unit)?;
            }
            transaction.state_set(run, &self.cell, done.to_value())
        })?;
        let events = units.iter().filter(|unit| matches!(unit, Unit::Append { .. })).count() as u64;
        self.report.events += events;
        self.report.keys += units.len() as u64 - events;
        Ok(())
    }

    fn trajectory(&mut self, file: File, bytes: u64) -> Result<()> {
        if bytes > TRAJECTORY_BYTES_MAX {
            let message = format!("{bytes} bytes; the limit is {TRAJECTORY_BYTES_MAX}");
            return Err(Failure::invalid(message));
        }
        let mut text = String::new();
        let read = file.take(TRAJECTORY_BYTES_MAX).read_to_string(&mut text);
        read.map_err(|error| Failure::io("cannot be read", &error))?;
        let checksum = crc32fast::hash(text.as_bytes());
        let units = trajectory::units(without_mark(&text))?;
        let done = self.done()?;
        let total = units.len() as u64;
        if done.units > 0 && (done.checksum != checksum || done.units > total) {
            return Err(self.changed());
        }
        if done.units == 0 {
            self.check_no_steps()?;
        }
        self.report.skipped = done.units;
        self.progress.set_length(total);
        let mut at = usize::try_from(done.units).unwrap_or(usize::MAX);
        while at < units.len() {
            let mut end = at;
            let mut batch_bytes = 0;
            while end < units.len() && (end == at || batch_bytes < BATCH_BYTES) {
                batch_bytes += units[end].rough_bytes();
                end += 1;
            }
            self.commit(&units[at..end], Done { units: end as u64, checksum })?;
            self.progress.set_position(end as u64);
            at = end;
        }
        Ok(())
    }

    /// A run holds one trajectory: the steps of two would be one stream of nonsense.
    fn check_no_steps(&self) -> Result<()> {
        let view = self.database.view()?;
        let steps = match view.resolve_run(&self.report.run) {
            Err(Error::NotFound(_)) => None,
            run => view.event_last(run?, trajectory::STEPS)?,
        };
        if steps.is_some() {
            let run = &self.report.run;
            let message =
                format!("the run `{run}` holds another trajectory; name a run with --run");
            return Err(Failure::new("conflict", message));
        }
        Ok(())
    }

    fn lines(&mut self, shown: &str, file: File, reader: &JsonLines) -> Result<()> {
        let before = self.done().map_err(|failure| failure.of(shown))?;
        let mut source = Source { lines: Lines::new(file), hasher: crc32fast::Hasher::new() };
        for _ in 0..before.units {
            if source.next(|_| Ok(())).map_err(|failure| failure.of(shown))?.is_none() {
                return Err(self.changed().of(shown));
            }
        }
        if source.done() != before {
            return Err(self.changed().of(shown));
        }
        self.report.skipped = before.units;
        let mut units = Vec::new();
        let mut committed = source.lines.bytes();
        let mut done = before;
        let outcome = loop {
            match source.next(|text| reader.unit(text)) {
                Ok(Some(unit)) => units.extend(unit),
                Ok(None) => break Ok(()),
                Err(failure) => break Err(failure),
            }
            let bytes = source.lines.bytes();
            done = source.done();
            if done.units.is_multiple_of(BATCH_LINES) || bytes - committed >= BATCH_BYTES {
                self.commit(&units, done).map_err(|failure| failure.of(shown))?;
                units.clear();
                committed = bytes;
                self.progress.set_position(bytes);
            }
        };
        if !units.is_empty() {
            self.commit(&units, done).map_err(|failure| failure.of(shown))?;
        }
        outcome.map_err(|failure| stopped_at(failure, shown, source.lines.number()))
    }

    fn changed(&self) -> Failure {
        let message = format!(
            "is not what was imported before into the run `{}`; name another run with --run",
            self.report.run
        );
        Failure::new("conflict", message)
    }
}

/// The lines of a file, and the checksum of those that were good.
struct Source {
    lines: Lines<File>,
    hasher: crc32fast::Hasher,
}

impl Source {
    /// What `read` makes of the next line; `None` at the end of the file.
    fn next<T>(&mut self, read: impl FnOnce(&str) -> Result<T>) -> Result<Option<T>> {
        let first = self.lines.number() == 0;
        let line = self.lines.next().map_err(|error| Failure::io("cannot be read", &error))?;
        let Some(line) = line else { return Ok(None) };
        let text = line.text().map_err(Failure::invalid)?;
        let made = read(if first { without_mark(text) } else { text })?;
        self.hasher.update(text.as_bytes());
        self.hasher.update(b"\n");
        Ok(Some(made))
    }

    /// How far the file is done when every line so far is.
    fn done(&self) -> Done {
        Done { units: self.lines.number(), checksum: self.hasher.clone().finalize() }
    }
}

/// The text without the byte order mark that some programs put in front.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn stopped_at(failure: Failure, shown: &str, line: u64) -> Failure {
    let before = line.saturating_sub(1);
    let mut failure = failure.of(&format!("{shown}:{line}"));
    let hint = format!(
        " (the {before} lines before it are imported; mend the line and give the same command \
         again to go on from there)"
    );
    failure.message.push_str(&hint);
    failure
}

fn write(transaction: &mut Transaction, run: Run, unit: &Unit) -> steadfast::Result<()> {
    match unit {
        Unit::Put { key, value } => transaction.kv_put(run, key, value.clone()),
        Unit::Append { stream, payload, time } => {
            let options = AppendOptions { time: *time, ..AppendOptions::default() };
            transaction.event_append_with(run, stream, payload.clone(), &options).map(drop)
        }
    }
}
