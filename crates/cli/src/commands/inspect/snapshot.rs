//! Snapshots, as `inspect` shows them.

use steadfast_core::{RetentionDomain, RetentionFloor};

use crate::failure::Result;
use crate::inspection::{SnapshotContent, SnapshotFacts};
use crate::json::{Object, list};
use crate::output::{Output, counted, moment, size};

pub(super) fn print(output: &mut Output, facts: &SnapshotFacts) -> Result<()> {
    output.line(&format!("{}  {}", facts.file, size(facts.bytes)))?;
    output.line(&format!("    {}", facts.role.in_words()))?;
    let SnapshotContent { info, meta, layout } = match &facts.content {
        Ok(content) => &**content,
        Err(wrong) => return output.line(&format!("    {wrong}")),
    };
    output.line(&format!(
        "    everything up to version {} of {}; written {}",
        info.version,
        moment(meta.timestamp),
        moment(meta.created)
    ))?;
    output.line(&format!(
        "    {} of {} in {} and {}",
        counted(layout.rows, "version", "versions of keys"),
        size(layout.payload_bytes),
        counted(layout.blocks, "block", "blocks"),
        counted(layout.sections, "section", "sections")
    ))?;
    let ratio = layout.compression_ratio();
    let compressed = if ratio < 1.005 {
        "not compressed".to_owned()
    } else {
        format!("{ratio:.2} times smaller than the {} in them", size(layout.plain_bytes))
    };
    output.line(&format!(
        "    blocks {} ({compressed}), indexes {}, filters {}, commit times {}, \
         the rest {}",
        size(layout.block_bytes),
        size(layout.index_bytes),
        size(layout.filter_bytes),
        size(layout.commit_times_bytes),
        size(layout.meta_bytes)
    ))?;
    for (domain, floor) in &meta.floors {
        output.line(&format!("    {}", floor_in_words(domain, floor)))?;
    }
    Ok(())
}

fn floor_in_words(domain: &RetentionDomain, floor: &RetentionFloor) -> String {
    let tag = format!("{:?}", domain.tag).to_lowercase();
    let whose = match domain.run {
        Some(run) => format!("{tag} of the run {run}"),
        None => format!("{tag} of runs without a rule"),
    };
    let mut text = format!("history of {whose} is whole from version {} on", floor.version);
    if floor.clock > steadfast::Timestamp::ZERO {
        text.push_str(&format!(", read with a clock of {} or later", moment(floor.clock)));
    }
    text
}

pub(super) fn to_json(facts: &SnapshotFacts) -> String {
    let object = Object::new()
        .number("number", facts.number)
        .text("file", &facts.file)
        .number("bytes", facts.bytes)
        .text("role", facts.role.in_words());
    let SnapshotContent { info, meta, layout } = match &facts.content {
        Ok(content) => &**content,
        Err(wrong) => return object.text("damage", wrong).end(),
    };
    let floors = meta.floors.iter().map(|(domain, floor)| {
        let mut object = Object::new();
        if let Some(run) = domain.run {
            object = object.text("run", &run.to_string());
        }
        object
            .text("primitive", &format!("{:?}", domain.tag).to_lowercase())
            .number("version", floor.version.0)
            .number("clock_us", floor.clock.as_micros())
            .end()
    });
    object
        .number("version", info.version.0)
        .number("at_us", meta.timestamp.as_micros())
        .number("created_us", meta.created.as_micros())
        .number("sections", layout.sections)
        .number("blocks", layout.blocks)
        .number("rows", layout.rows)
        .number("payload_bytes", layout.payload_bytes)
        .number("plain_bytes", layout.plain_bytes)
        .number("block_bytes", layout.block_bytes)
        .number("index_bytes", layout.index_bytes)
        .number("filter_bytes", layout.filter_bytes)
        .number("commit_times_bytes", layout.commit_times_bytes)
        .number("meta_bytes", layout.meta_bytes)
        .json("floors", &list(floors))
        .end()
}
