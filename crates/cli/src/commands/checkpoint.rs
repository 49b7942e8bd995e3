//! `checkpoint`: writes a snapshot of everything.

use std::path::Path;

use steadfast::{CheckpointInfo, Database};

use crate::database::maintain;
use crate::failure::{EXIT_DONE, Result};
use crate::json::Object;
use crate::output::{Output, count, duration, micros, size};

pub(crate) fn run(dir: &Path, json: bool) -> Result<u8> {
    let info = maintain(dir, Database::checkpoint)?;
    Output::new().line_now(&if json { to_json(&info) } else { in_words(&info) })?;
    Ok(EXIT_DONE)
}

/// What it did, in a line.
pub(super) fn in_words(info: &CheckpointInfo) -> String {
    let CheckpointInfo { watermark, snapshot, written, rows, bytes, .. } = info;
    match (*written, *snapshot) {
        (false, 0) => "nothing was ever committed: there is nothing to put into a snapshot".into(),
        (false, number) => {
            format!("snapshot {number} has everything already, up to version {watermark}")
        }
        (true, number) => format!(
            "snapshot {number} written in {}: everything up to version {watermark}, {} versions \
             of keys, {}",
            duration(info.duration),
            count(*rows),
            size(*bytes)
        ),
    }
}

pub(super) fn to_json(info: &CheckpointInfo) -> String {
    Object::new()
        .bool("written", info.written)
        .number("snapshot", info.snapshot)
        .number("version", info.watermark.0)
        .number("at_us", info.timestamp.as_micros())
        .number("rows", info.rows)
        .number("bytes", info.bytes)
        .number("duration_us", micros(info.duration))
        .end()
}
