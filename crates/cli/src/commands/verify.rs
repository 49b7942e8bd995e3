//! `verify`: reads every byte and says whether it is sound.
//!
//! Sound (0): everything promised is there, though the writer may have been killed in the middle
//! of a write. Damaged (1): anything else that was found, also where an older snapshot stands in
//! for a damaged one. Could not look (2): no database there, or the system would not let it be
//! read.

use std::path::Path;

use steadfast::{
    Damaged, Database, Error, ErrorKind, LogClass, RecoveryReport, SnapshotClass, Version,
};
use steadfast_durability::Error as DiskError;

use crate::database::{report_left_out, with_progress};
use crate::failure::{EXIT_DONE, EXIT_FAILED, EXIT_USAGE, Result};
use crate::json::{Object, list};
use crate::output::{Output, count, counted};

pub(crate) fn run(dir: &Path, json: bool) -> Result<u8> {
    let verdict = match look(dir) {
        Ok(verdict) => verdict,
        Err(failure) => {
            failure.report(json);
            return Ok(EXIT_USAGE);
        }
    };
    if let Some(report) = verdict.report.as_ref().filter(|_| !verdict.refused) {
        report_left_out(report);
    }
    let mut output = Output::new();
    if json {
        output.line(&verdict.to_json())?;
    } else {
        for line in verdict.in_words() {
            output.line(&line)?;
        }
    }
    output.flush()?;
    Ok(if verdict.sound { EXIT_DONE } else { EXIT_FAILED })
}

/// What was found; an error if that could not be told.
fn look(dir: &Path) -> Result<Verdict> {
    let database = match with_progress(dir).open_read_only() {
        Ok(database) => database,
        Err(Error::Corruption(error)) => return Ok(Verdict::of_refusal(error)),
        Err(error) => return Err(error.into()),
    };
    let damaged = match database.verify() {
        Ok(damaged) => damaged,
        Err(Error::Corruption(DiskError::Corrupt { file, offset, kind })) => {
            let versions = (Version(1), database.current_version());
            vec![Damaged { file, offset, what: kind.to_string(), versions }]
        }
        Err(error) => return Err(error.into()),
    };
    let contents = match contents(&database) {
        // What a damaged file keeps from being read was found already.
        Err(error) if error.kind() == ErrorKind::Corruption && !damaged.is_empty() => Ok(0),
        Err(error @ Error::EventChain { .. }) => Err(Wrong::Chain(error.to_string())),
        Err(error @ Error::Undecodable(_)) => Err(Wrong::Record(error.to_string())),
        streams => Ok(streams?),
    };
    let report = database.recovery_report().clone();
    let opened_well =
        report.log != LogClass::Ambiguous && report.snapshots != SnapshotClass::Fallback;
    Ok(Verdict {
        sound: opened_well && damaged.is_empty() && contents.is_ok(),
        contents,
        refused: false,
        readable: damaged.is_empty() || database.wait_loaded().is_ok(),
        unreadable: None,
        message: report.to_string(),
        report: Some(report),
        damaged,
    })
}

/// Reads everything there is, and follows the hash chain of every stream. Returns how many those
/// are.
fn contents(database: &Database) -> steadfast::Result<u64> {
    let view = database.view()?;
    view.signal_definitions()?;
    let mut streams = 0;
    for info in view.list_runs()? {
        streams += view.event_verify_all(info.run)?;
        view.entries_with_history(info.run).try_for_each(|entry| entry.map(drop))?;
    }
    Ok(streams)
}

/// What is wrong although the files are as they were written.
enum Wrong {
    /// The first stream that is not as it was appended.
    Chain(String),
    /// The first record that cannot be decoded.
    Record(String),
}

/// What was found in a database's files.
struct Verdict {
    sound: bool,
    /// How many streams were checked, or what was wrong first.
    contents: std::result::Result<u64, Wrong>,
    /// It was not opened.
    refused: bool,
    /// Everything can be read, from an older snapshot if need be.
    readable: bool,
    /// The file that kept recovery from beginning: its name, where, and what is wrong.
    unreadable: Option<(String, u64, String)>,
    message: String,
    /// What recovery found, if it came so far.
    report: Option<RecoveryReport>,
    damaged: Vec<Damaged>,
}

impl Verdict {
    fn of_refusal(error: DiskError) -> Self {
        let mut verdict = Self {
            sound: false,
            contents: Ok(0),
            refused: true,
            readable: false,
            unreadable: None,
            message: error.to_string(),
            report: None,
            damaged: Vec::new(),
        };
        match error {
            DiskError::Refused(report) => verdict.report = Some(*report),
            error => {
                verdict.message.push_str("; nothing was changed; every version is at risk");
                if let DiskError::Corrupt { file, offset, kind } = error {
                    verdict.unreadable = Some((file, offset, kind.to_string()));
                }
            }
        }
        verdict
    }
}

impl Verdict {
    fn in_words(&self) -> Vec<String> {
        let word = if self.sound { "sound" } else { "DAMAGED" };
        let mut read = Vec::new();
        if let Some(report) = &self.report {
            read.push(counted(report.stats.txns_applied, "transaction", "transactions"));
            read.push(format!("{} bytes of log", count(report.stats.bytes)));
            if report.snapshot_version > Version::ZERO {
                read.push(format!("a snapshot up to version {}", report.snapshot_version));
            }
        }
        let mut lines = vec![match read.is_empty() {
            true => format!("{word}: {}", self.message),
            false => format!("{word}: {} ({} read)", self.message, read.join(", ")),
        }];
        lines.extend(self.damaged.iter().map(|damaged| {
            let Damaged { file, offset, what, versions: (from, to) } = damaged;
            format!("    {file}: {what} at offset {offset}; versions {from} to {to} at risk")
        }));
        match &self.contents {
            Err(Wrong::Chain(broken) | Wrong::Record(broken)) => {
                lines.push(format!("    {broken}; the files are as they were written"))
            }
            Ok(0) => {}
            Ok(n) => {
                let streams = counted(*n, "stream of events is", "streams of events are");
                lines.push(format!("    {streams} as appended"));
            }
        }
        if !self.sound && self.readable && self.contents.is_ok() {
            let still = "everything can still be read; `compact` leaves only what is sound";
            lines.push(format!("    {still}"));
        }
        lines
    }

    /// The lowest and the highest version at risk; no highest if it is not known.
    fn at_risk(&self) -> Option<(Version, Option<Version>)> {
        let low = self.damaged.iter().map(|damaged| damaged.versions.0).min();
        let high = self.damaged.iter().map(|damaged| damaged.versions.1).max();
        match (low, &self.report) {
            (Some(low), _) => Some((low, high)),
            (None, Some(report)) => Some((report.last_version.next(), report.promised_version)),
            (None, None) => Some((Version(1), None)),
        }
        .filter(|_| !self.sound)
    }

    fn to_json(&self) -> String {
        let mut object = Object::new().bool("sound", self.sound).bool("readable", self.readable);
        if let Some(report) = &self.report {
            object = object
                .text("log", &report.log.to_string())
                .text("snapshots", &report.snapshots.to_string())
                .number("transactions", report.stats.txns_applied)
                .number("log_bytes", report.end)
                .number("snapshot_version", report.snapshot_version.0)
                .number("last_version", report.last_version.0);
        }
        if let Some((file, offset, what)) = self.first() {
            object = object.text("file", &file).number("offset", offset).text("damage", &what);
        }
        if let Some((from, to)) = self.at_risk() {
            object = object.number("at_risk_from", from.0);
            if let Some(to) = to {
                object = object.number("at_risk_to", to.0);
            }
        }
        let damaged = self.damaged.iter().map(|damaged| {
            Object::new()
                .text("file", &damaged.file)
                .number("offset", damaged.offset)
                .text("damage", &damaged.what)
                .number("at_risk_from", damaged.versions.0.0)
                .number("at_risk_to", damaged.versions.1.0)
                .end()
        });
        object = match &self.contents {
            Ok(streams) => object.number("streams", *streams),
            Err(Wrong::Chain(broken)) => object.text("event_chain", broken),
            Err(Wrong::Record(broken)) => object.text("undecodable", broken),
        };
        object.json("damaged", &list(damaged)).text("message", &self.message).end()
    }

    /// Where damage was found first: file, offset, and what it is.
    fn first(&self) -> Option<(String, u64, String)> {
        let found = self
            .report
            .as_ref()
            .and_then(|report| report.damage.as_ref().or(report.snapshot_damage.as_ref()));
        match (found, self.damaged.first()) {
            (Some(found), _) => Some((found.file.clone(), found.offset, found.kind.to_string())),
            (None, Some(Damaged { file, offset, what, .. })) => {
                Some((file.clone(), *offset, what.clone()))
            }
            (None, None) => self.unreadable.clone(),
        }
    }
}
