//! The report of a campaign as one page: no script, no picture, nothing from elsewhere.

use std::fmt::Write as _;

use crate::campaign::report::{CampaignReport, Cell};
use crate::campaign::{FailedCell, mode_name};
use crate::sim::StepKind;

const STYLE: &str = "
:root { color-scheme: light dark; --good: #2e7d4f; --bad: #b3261e; --none: #8884; --bar: #4a7fb5; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; }
table { border-collapse: collapse; } th, td { padding: .3rem .7rem; text-align: left; }
th { font-weight: 600; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
td.passed { background: var(--good); color: #fff; } td.failed { background: var(--bad); color: #fff; }
td.untried { background: var(--none); } td small { display: block; opacity: .85; }
tbody tr { border-top: 1px solid var(--none); } .what { opacity: .75; font-size: 13px; }
pre { background: var(--none); padding: .8rem; overflow-x: auto; white-space: pre-wrap; }
.bar { background: var(--bar); height: .9rem; min-width: 1px; }
.verdict { font-size: 1.2rem; } .verdict.good { color: var(--good); } .verdict.bad { color: var(--bad); }
";

/// The durability modes, in the order of the columns.
const COLUMNS: [&str; 3] = ["strict", "batched", "buffered"];

pub(super) fn page(report: &CampaignReport) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut page, report);
    page
}

fn write(page: &mut String, report: &CampaignReport) -> std::fmt::Result {
    let good = report.is_good();
    let (class, verdict) = match (good, report.failures().count()) {
        (true, _) => ("good", "Nothing was found that must not be.".to_owned()),
        (false, 1) => ("bad", "1 failure".to_owned()),
        (false, count) => ("bad", format!("{count} failures")),
    };
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>Crash test: {}</title><style>{STYLE}</style></head><body>\
         <h1>Crash test</h1><p class=\"verdict {class}\">{verdict}</p>\
         <p>{}; Steadfast {}, {:.1} s, {} rounds.</p>",
        escaped(&report.summary()),
        escaped(&report.summary()),
        env!("CARGO_PKG_VERSION"),
        report.duration.as_secs_f64(),
        report.rounds
    )?;
    matrix(page, report)?;
    let failed: Vec<&FailedCell> = report.failures().collect();
    if !failed.is_empty() {
        page.push_str("<h2>Failures</h2>");
    }
    for failure in failed {
        let token = escaped(&failure.token.to_string());
        write!(
            page,
            "<h3>{token}</h3><pre>{}</pre><p>Again: <code>steadfast crash-test --replay \
             {token}</code></p>",
            escaped(&failure.why)
        )?;
    }
    openings(page, report)?;
    steps(page, report)?;
    page.push_str("</body></html>\n");
    Ok(())
}

fn matrix(page: &mut String, report: &CampaignReport) -> std::fmt::Result {
    page.push_str("<h2>What was tried</h2><table><thead><tr><th>technique</th>");
    for column in COLUMNS {
        write!(page, "<th>{column}</th>")?;
    }
    page.push_str("</tr></thead><tbody>");
    for row in report.cells.chunk_by(|one, next| one.technique == next.technique) {
        write!(
            page,
            "<tr><td>{}<div class=\"what\">{}</div></td>",
            escaped(row[0].technique),
            escaped(row[0].what)
        )?;
        if let [cell @ Cell { mode: None, .. }] = row {
            write_cell(page, cell, " colspan=\"3\"")?;
        } else {
            for column in COLUMNS {
                match row.iter().find(|cell| mode_name(cell.mode) == column) {
                    Some(cell) => write_cell(page, cell, "")?,
                    None => page.push_str("<td></td>"),
                }
            }
        }
        page.push_str("</tr>");
    }
    page.push_str("</tbody></table>");
    Ok(())
}

fn write_cell(page: &mut String, cell: &Cell, span: &str) -> std::fmt::Result {
    let class = match (&cell.failure, cell.parts) {
        (Some(_), _) => "failed",
        (None, 0) => "untried",
        (None, _) => "passed",
    };
    let result = cell.result();
    let (count, what) = match cell.kills {
        0 => (cell.images, "images"),
        kills => (kills, "kills"),
    };
    let parts = cell.parts;
    let times = if parts == 1 { "once".to_owned() } else { format!("{parts} times") };
    write!(page, "<td class=\"{class}\"{span}>{result}<small>{count} {what}, {times}</small></td>")
}

fn openings(page: &mut String, report: &CampaignReport) -> std::fmt::Result {
    write!(page, "<h2>Recovery time</h2><p>{}.</p><table><tbody>", report.openings)?;
    let classes = report.openings.classes();
    let most = classes.iter().map(|class| class.1).max().unwrap_or(1).max(1);
    for (from, count) in classes {
        write!(
            page,
            "<tr><td class=\"n\">{from:?} to {:?}</td><td class=\"n\">{count}</td>\
             <td style=\"width:24rem\"><div class=\"bar\" style=\"width:{:.1}%\"></div></td></tr>",
            from * 2,
            100.0 * count as f64 / most as f64
        )?;
    }
    page.push_str("</tbody></table>");
    Ok(())
}

/// The steps of the disk that were crashed: a hole is something that no crash came before.
fn steps(page: &mut String, report: &CampaignReport) -> std::fmt::Result {
    let files = ["MANIFEST", "log", "snapshot", "quarantine", "directory", "LOCK"];
    page.push_str(
        "<h2>Where crashes came</h2><p>Crash points before each kind of step, by the file it was \
         done to. Steps that only look are not crashed: nothing changes with them.</p>\
         <table><thead><tr><th>step</th>",
    );
    for file in files {
        write!(page, "<th>{file}</th>")?;
    }
    page.push_str("</tr></thead><tbody>");
    for kind in StepKind::CHANGES {
        write!(page, "<tr><td>{kind:?}</td>")?;
        for file in files {
            match report.steps.get(&(kind, file)) {
                Some(count) => write!(page, "<td class=\"n\">{count}</td>")?,
                None => page.push_str("<td class=\"n\">–</td>"),
            }
        }
        page.push_str("</tr>");
    }
    page.push_str("</tbody></table>");
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
