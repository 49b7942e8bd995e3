//! `stats`: sizes, and how far the log and the snapshot have come.

use std::path::Path;
use std::time::{Duration, Instant};

use steadfast::{Database, Stats, Version};

use crate::args::StatsArgs;
use crate::database::{open_to_look, report_rebuilt};
use crate::failure::{EXIT_DONE, Result};
use crate::json::{Object, list, push_text};
use crate::output::{Output, count, duration, micros, size};

pub(crate) fn run(args: &StatsArgs, json: bool) -> Result<u8> {
    match args.watch {
        Some(every) => watch(&args.dir, every, json),
        None => once(&args.dir, json),
    }
}

fn once(dir: &Path, json: bool) -> Result<u8> {
    let database = open_to_look(dir)?;
    // What is not in memory is in none of the figures of memory. What cannot be loaded is one of
    // the figures.
    let _ = database.wait_loaded();
    report_rebuilt(&database);
    let stats = database.stats()?;
    let mut output = Output::new();
    if json {
        output.line(&to_json(&database, &stats))?;
    } else {
        output.table(&rows(&database, &stats))?;
    }
    output.flush()?;
    Ok(EXIT_DONE)
}

fn to_json(database: &Database, stats: &Stats) -> String {
    let report = database.recovery_report();
    let (store, disk, bytes) = (&stats.store, &stats.disk, |n: usize| n as u64);
    let mut line = Object::new()
        .number("visible_version", stats.visible.0)
        .number("promised_version", stats.promised.0)
        .number("keys", bytes(store.entries))
        .number("versions", bytes(store.versions))
        .number("payload_bytes", bytes(store.payload_bytes))
        .number("memory_bytes", bytes(store.heap_bytes + stats.commit_times_bytes))
        .number("commit_times_bytes", bytes(stats.commit_times_bytes))
        .number("log_bytes", stats.log_position)
        .number("needed_log_bytes", stats.needed_log_bytes)
        .number("disk_bytes", disk.total())
        .number("log_disk_bytes", disk.log)
        .number("snapshot_disk_bytes", disk.snapshots)
        .number("quarantine_disk_bytes", disk.quarantine)
        .number("other_disk_bytes", disk.other)
        .number("reclaimable_bytes", stats.reclaimable_bytes);
    if let Some((number, version)) = stats.snapshot {
        line = line.number("snapshot", number).number("snapshot_version", version.0);
    }
    let failed = stats.load.failed.iter().map(|what| {
        let mut text = String::new();
        push_text(&mut text, what);
        text
    });
    line.number("sections", bytes(stats.load.sections))
        .number("sections_loaded", bytes(stats.load.loaded))
        .number("sections_rebuilt", bytes(stats.load.rebuilt))
        .json("sections_failed", &list(failed))
        .json("idempotency_keys", &number_or_null(stats.idempotency_keys))
        .json("held_for_forks_bytes", &number_or_null(stats.held_for_forks_bytes))
        .number("transactions_replayed", report.stats.txns_applied)
        .text("log", &report.log.to_string())
        .number("recovery_us", micros(report.duration))
        .end()
}

fn number_or_null(number: Option<u64>) -> String {
    number.map_or_else(|| "null".to_owned(), |number| number.to_string())
}

fn rows(database: &Database, stats: &Stats) -> Vec<[String; 2]> {
    let report = database.recovery_report();
    let (store, disk, bytes) = (&stats.store, &stats.disk, |n: usize| n as u64);
    let row = |what: &str, figure: String| [what.to_owned(), figure];
    let mut rows = vec![
        row("newest version", stats.visible.to_string()),
        row("stored keys", count(bytes(store.entries))),
        row("versions of them", count(bytes(store.versions))),
        row("keys and values", size(bytes(store.payload_bytes))),
        row("memory", size(bytes(store.heap_bytes + stats.commit_times_bytes))),
        row("files", size(disk.total())),
        row("  segments of the log", size(disk.log)),
        row("  snapshots", size(disk.snapshots)),
        row("  quarantine", size(disk.quarantine)),
        row("  could be given back", size(stats.reclaimable_bytes)),
        row("log written in all", size(stats.log_position)),
        row("newest snapshot", snapshot_in_words(stats)),
        row("log to read on opening", size(stats.needed_log_bytes)),
        row("log was found", report.log.to_string()),
        row("transactions replayed", count(report.stats.txns_applied)),
        row("recovery", duration(report.duration)),
    ];
    if let Some(keys) = stats.idempotency_keys.filter(|keys| *keys > 0) {
        rows.push(row("idempotency keys", count(keys)));
    }
    if let Some(bytes) = stats.held_for_forks_bytes.filter(|bytes| *bytes > 0) {
        rows.push(row("of deleted runs, for forks", size(bytes)));
    }
    if let Some(time) = stats.load.loaded_after.filter(|_| stats.load.sections > 0) {
        rows.push(row("all in memory after", duration(time)));
    }
    if stats.load.rebuilt > 0 {
        let rebuilt = count(bytes(stats.load.rebuilt));
        rows.push(row("damaged and rebuilt", format!("{rebuilt} sections of the snapshot")));
    }
    rows.extend(stats.load.failed.iter().map(|what| row("DAMAGED", what.clone())));
    rows
}

fn snapshot_in_words(stats: &Stats) -> String {
    match stats.snapshot {
        Some((number, version)) => format!("number {number}, up to version {version}"),
        None => "none yet".to_owned(),
    }
}

/// Opens the database again and again, to see what became of it, until somebody stops it.
fn watch(dir: &Path, every: Duration, json: bool) -> Result<u8> {
    /// As many lines as there are between two heads of the table.
    const LINES_A_HEAD: u32 = 20;
    let mut output = Output::new();
    let mut before: Option<(Instant, Version)> = None;
    let mut database = open_to_look(dir)?;
    let mut lines = 0_u32;
    loop {
        let (now, stats) = (Instant::now(), database.stats()?);
        if json {
            output.line_now(&to_json(&database, &stats))?;
        } else {
            if lines.is_multiple_of(LINES_A_HEAD) {
                output.line(&columns(HEAD.map(str::to_owned)))?;
            }
            output.line_now(&columns(cells(&stats, before, now)))?;
        }
        before = Some((now, stats.visible));
        lines = lines.wrapping_add(1);
        std::thread::sleep(every);
        database = database.refresh()?;
    }
}

const HEAD: [&str; 7] =
    ["version", "versions/s", "snapshot at", "log to read", "log", "snapshots", "reclaimable"];

fn cells(stats: &Stats, before: Option<(Instant, Version)>, now: Instant) -> [String; 7] {
    let rate = before.map(|(then, version)| {
        let versions = stats.visible.0.saturating_sub(version.0);
        let millis = u64::try_from(now.duration_since(then).as_millis()).unwrap_or(u64::MAX);
        count(versions.saturating_mul(1000) / millis.max(1))
    });
    let snapshot = stats.snapshot.map(|(_, version)| version.to_string());
    [
        stats.visible.to_string(),
        rate.unwrap_or_else(|| "-".to_owned()),
        snapshot.unwrap_or_else(|| "-".to_owned()),
        size(stats.needed_log_bytes),
        size(stats.disk.log),
        size(stats.disk.snapshots),
        size(stats.reclaimable_bytes),
    ]
}

fn columns(cells: [String; 7]) -> String {
    cells.map(|cell| format!("{cell:>11}")).join("  ")
}
