//! `compact`: gives back what the database does not need any more.

use steadfast::{CompactInfo, CompactMode};

use super::checkpoint;
use crate::args::CompactArgs;
use crate::database::maintain;
use crate::failure::{EXIT_DONE, Result};
use crate::json::Object;
use crate::output::{Output, counted, duration, micros, size};

pub(crate) fn run(args: &CompactArgs, json: bool) -> Result<u8> {
    let info = maintain(&args.dir, |database| database.compact(args.mode.into()))?;
    let mut output = Output::new();
    if json {
        output.line(&to_json(&info))?;
    } else {
        for line in in_words(&info) {
            output.line(&line)?;
        }
    }
    output.flush()?;
    Ok(EXIT_DONE)
}

fn in_words(info: &CompactInfo) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(checkpoint) = &info.checkpoint {
        let versions =
            counted(info.versions_removed, "old version of a key", "old versions of keys");
        lines.push(format!("let go of {versions}"));
        lines.push(checkpoint::in_words(checkpoint));
    }
    lines.push(format!(
        "removed {} and {}",
        counted(info.wal_segments_removed, "segment of the log", "segments of the log"),
        counted(info.snapshots_removed, "snapshot", "snapshots")
    ));
    let took = duration(info.duration);
    lines.push(match info.reclaimed_bytes {
        0 => format!("gave back nothing, in {took}: what is there is no smaller than before"),
        bytes => format!("gave back {} in {took}", size(bytes)),
    });
    lines
}

fn to_json(info: &CompactInfo) -> String {
    let mode = match info.mode {
        CompactMode::WalOnly => "wal-only",
        CompactMode::Full => "full",
    };
    let checkpoint = info.checkpoint.as_ref().map_or_else(|| "null".into(), checkpoint::to_json);
    Object::new()
        .text("mode", mode)
        .number("reclaimed_bytes", info.reclaimed_bytes)
        .number("segments_removed", info.wal_segments_removed)
        .number("snapshots_removed", info.snapshots_removed)
        .number("versions_removed", info.versions_removed)
        .json("checkpoint", &checkpoint)
        .number("duration_us", micros(info.duration))
        .end()
}
