//! `repair`: what can be read of a damaged database, in a new one; and what cannot.

use steadfast::{Loss, Lost, RowName, SalvageReport, TypeTag, salvage_with};

use super::backup::copy_json;
use crate::args::RepairArgs;
use crate::database::{report_left_out, with_progress};
use crate::failure::{EXIT_DONE, Result};
use crate::json::{Object, list};
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
    let copy = report.copy.as_ref();
    let copy = copy.map_or_else(|| "null".to_owned(), |copy| copy_json(Object::new(), copy).end());
    Object::new()
        .number("version", report.version.0)
        .number("rows", report.rows)
        .json("losses", &list(report.losses.iter().map(loss_json)))
        .bool("manifest_made_up", report.manifest_made_up)
        .text("log", &report.recovery.log.to_string())
        .text("snapshots", &report.recovery.snapshots.to_string())
        .json("copy", &copy)
        .end()
}

/// What was lost, for programs: `lost` says which of the other fields are there.
fn loss_json(loss: &Loss) -> String {
    let mut object = Object::new()
        .text("file", &loss.file)
        .number("offset", loss.offset)
        .text("damage", &loss.damage);
    if let Some(bytes) = loss.bytes {
        object = object.number("bytes", bytes);
    }
    object = match &loss.lost {
        Lost::Rows { after, before, versions: (from, to) } => {
            let row = |row: &Option<RowName>| row.as_ref().map_or("null".into(), row_json);
            let object = object
                .text("lost", "rows")
                .json("after", &row(after))
                .json("before", &row(before))
                .number("at_risk_from", from.0);
            match to {
                Some(to) => object.number("at_risk_to", to.0),
                None => object,
            }
        }
        Lost::Commits { after } => {
            object.text("lost", "commits").number("at_risk_from", after.next().0)
        }
        Lost::CommitTimes => object.text("lost", "commit_times"),
        Lost::RunNames => object.text("lost", "run_names"),
        Lost::Directory => object.text("lost", "directory"),
        _ => object.text("lost", "other"),
    };
    object.text("message", &loss.to_string()).end()
}

fn row_json(row: &RowName) -> String {
    let type_name = match row.primitive {
        Some(TypeTag::Run) => "run",
        Some(TypeTag::Kv) => "kv",
        Some(TypeTag::Event) => "event",
        Some(TypeTag::State) => "state",
        Some(TypeTag::Signal) => "signal",
        Some(TypeTag::Idempotency) => "idempotency",
        Some(TypeTag::Collection) => "collection",
        Some(TypeTag::Attributes) => "attributes",
        Some(TypeTag::Cohort) => "cohort",
        Some(TypeTag::Engagement) => "engagement",
        _ => "unknown",
    };
    let key = match row.primitive {
        Some(TypeTag::Event) => "stream",
        Some(TypeTag::State) => "cell",
        _ => "key",
    };
    let mut object = Object::new().text("type", type_name).text("run", &row.run);
    object = object.bytes_name(key, &row.key);
    if let Some(seq) = row.seq {
        object = object.number("seq", seq);
    }
    object.end()
}
