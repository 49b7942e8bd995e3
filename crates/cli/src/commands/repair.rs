//! `repair`: what can be read of a damaged database, in a new one; and what cannot.

use steadfast::{SalvageReport, salvage_with};

use super::backup::copy_json;
use crate::args::RepairArgs;
use crate::database::{report_left_out, with_progress};
use crate::failure::{EXIT_DONE, Result};
use crate::json::{Object, list, push_text};
use crate::output::{Output, count, counted, duration, size};

pub(crate) fn run(args: &RepairArgs, json: bool) -> Result<u8> {
    let target = args.new_dir.as_deref().filter(|_| !args.dry_run);
    let report = salvage_with(with_progress(&args.dir), target)?;
    report_left_out(&report.recovery);
    let mut output = Output::new();
    if json {
        output.line(&to_json(&report))?;
    } else {
        for line in in_words(args, &report) {
            output.line(&line)?;
        }
    }
    output.flush()?;
    Ok(EXIT_DONE)
}

fn in_words(args: &RepairArgs, report: &SalvageReport) -> Vec<String> {
    let SalvageReport { version, rows, losses, .. } = report;
    let mut lines = Vec::new();
    if report.manifest_made_up {
        lines.push("MANIFEST: missing or damaged; made up from the other files".to_owned());
    }
    if losses.is_empty() {
        lines.push("nothing is lost".to_owned());
    } else {
        lines.push(format!("{}:", counted(losses.len() as u64, "loss", "losses")));
        lines.extend(losses.iter().map(|loss| format!("    {loss}")));
    }
    let rows = count(*rows);
    lines.push(match (&report.copy, &args.new_dir) {
        (Some(copy), Some(target)) => format!(
            "kept: {rows} versions of keys up to version {version}, in {}; {}, written and read \
             back in {}",
            target.display(),
            size(copy.bytes),
            duration(copy.duration)
        ),
        _ => format!(
            "would keep: {rows} versions of keys up to version {version}; nothing was written"
        ),
    });
    lines.push(format!("{} was not changed", args.dir.display()));
    lines
}

fn to_json(report: &SalvageReport) -> String {
    let text = |loss: &String| {
        let mut json = String::new();
        push_text(&mut json, loss);
        json
    };
    let copy = report.copy.as_ref();
    let copy = copy.map_or_else(|| "null".to_owned(), |copy| copy_json(Object::new(), copy).end());
    Object::new()
        .number("version", report.version.0)
        .number("rows", report.rows)
        .json("losses", &list(report.losses.iter().map(text)))
        .bool("manifest_made_up", report.manifest_made_up)
        .text("log", &report.recovery.log.to_string())
        .text("snapshots", &report.recovery.snapshots.to_string())
        .json("copy", &copy)
        .end()
}
