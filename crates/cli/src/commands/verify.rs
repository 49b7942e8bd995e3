//! `verify`: reads every byte and says whether it is sound.
//!
//! Sound (0): everything promised is there, though the writer may have been killed in the middle
//! of a write. Damaged (1): anything else that was found. Could not look (2): no database there,
//! or the system would not let it be read.

use std::path::Path;

use steadfast::{Database, Error, LogClass, RecoveryReport};
use steadfast_durability::Error as DiskError;

use crate::failure::{EXIT_DONE, EXIT_FAILED, EXIT_USAGE, Failure, Result};
use crate::json::Object;
use crate::output::{Output, count};

pub(crate) fn run(dir: &Path, json: bool) -> Result<u8> {
    let (verdict, status) = match Database::open_read_only(dir) {
        Ok(database) => {
            let report = database.recovery_report();
            if report.left_anything_out() {
                eprintln!("recovery: {report}");
            }
            let sound = report.log != LogClass::Ambiguous;
            let status = if sound { EXIT_DONE } else { EXIT_FAILED };
            (Verdict::of_report(report, sound), status)
        }
        Err(Error::Corruption(DiskError::Refused(report))) => {
            (Verdict::of_report(&report, false), EXIT_FAILED)
        }
        Err(Error::Corruption(error)) => (Verdict::of_error(&error), EXIT_FAILED),
        Err(error) => {
            Failure::from(error).report(json);
            return Ok(EXIT_USAGE);
        }
    };
    let mut output = Output::new();
    output.line(&if json { verdict.json } else { verdict.text })?;
    output.flush()?;
    Ok(status)
}

struct Verdict {
    text: String,
    json: String,
}

impl Verdict {
    fn of_report(report: &RecoveryReport, sound: bool) -> Self {
        let word = if sound { "sound" } else { "DAMAGED" };
        let text = format!(
            "{word}: {report} ({} transactions read, {} bytes of log)",
            count(report.stats.txns_applied),
            count(report.end)
        );
        let mut object = Object::new()
            .bool("sound", sound)
            .text("log", &report.log.to_string())
            .number("transactions", report.stats.txns_applied)
            .number("log_bytes", report.end)
            .number("last_version", report.last_version.0);
        if let Some(damage) = &report.damage {
            object = object
                .text("file", &damage.file)
                .number("offset", damage.offset)
                .text("damage", &damage.kind.to_string());
        }
        if !sound {
            object = object.number("at_risk_from", report.last_version.next().0);
            if let Some(upto) = report.promised_version {
                object = object.number("at_risk_to", upto.0);
            }
        }
        Self { text, json: object.text("message", &report.to_string()).end() }
    }

    fn of_error(error: &DiskError) -> Self {
        let text = format!("DAMAGED: {error}; nothing was changed; every version is at risk");
        let mut object = Object::new().bool("sound", false);
        if let DiskError::Corrupt { file, offset, kind } = error {
            object = object
                .text("file", file)
                .number("offset", *offset)
                .text("damage", &kind.to_string());
        }
        let json = object.number("at_risk_from", 1).text("message", &error.to_string()).end();
        Self { text, json }
    }
}
