//! `stats`: sizes, and how far the log has come.

use std::path::Path;

use crate::database::open_to_look;
use crate::failure::{EXIT_DONE, Result};
use crate::json::Object;
use crate::output::{Output, count, duration, size};

pub(crate) fn run(dir: &Path, json: bool) -> Result<u8> {
    let database = open_to_look(dir)?;
    let stats = database.stats()?;
    let report = database.recovery_report();
    let (store, bytes) = (&stats.store, |n: usize| n as u64);
    let mut output = Output::new();
    if json {
        let line = Object::new()
            .number("visible_version", stats.visible.0)
            .number("promised_version", stats.promised.0)
            .number("keys", bytes(store.entries))
            .number("versions", bytes(store.versions))
            .number("payload_bytes", bytes(store.payload_bytes))
            .number("memory_bytes", bytes(store.heap_bytes))
            .number("log_bytes", stats.log_position)
            .number("disk_bytes", stats.disk.total())
            .number("transactions_replayed", report.stats.txns_applied)
            .text("log", &report.log.to_string())
            .number("recovery_us", u64::try_from(report.duration.as_micros()).unwrap_or(u64::MAX))
            .end();
        output.line(&line)?;
    } else {
        let row = |what: &str, figure: String| [what.to_owned(), figure];
        output.table(&[
            row("newest version", stats.visible.to_string()),
            row("stored keys", count(bytes(store.entries))),
            row("versions of them", count(bytes(store.versions))),
            row("keys and values", size(bytes(store.payload_bytes))),
            row("memory", size(bytes(store.heap_bytes))),
            row("log", size(stats.log_position)),
            row("files", size(stats.disk.total())),
            row("log was found", report.log.to_string()),
            row("transactions replayed", count(report.stats.txns_applied)),
            row("recovery", duration(report.duration)),
        ])?;
    }
    output.flush()?;
    Ok(EXIT_DONE)
}
