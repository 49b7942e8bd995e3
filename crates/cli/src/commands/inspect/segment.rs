//! Segments of the log, as `inspect` shows them.

use crate::failure::Result;
use crate::inspection::{GroupFacts, Role, SegmentFacts};
use crate::json::{Object, list, push_text};
use crate::output::{Output, count, size};

pub(super) fn print(output: &mut Output, facts: &SegmentFacts, role: Role) -> Result<()> {
    output.line(&format!("{}  {}", facts.file, size(facts.bytes)))?;
    output.line(&format!("    {}", role.in_words()))?;
    let header = match &facts.header {
        Ok(header) => header,
        Err(wrong) => {
            output.line(&format!("    {wrong}"))?;
            return output.line(&format!("    {}", facts.end));
        }
    };
    let continues = match header.predecessor {
        0 => "the first".to_owned(),
        number => format!("continues segment {number}"),
    };
    output.line(&format!(
        "    life {}, {continues} at log position {}; durable then up to {}",
        header.epoch.counter,
        count(header.first_position),
        count(header.durable_upto)
    ))?;
    let versions = match facts.versions {
        Some((first, last)) => format!("versions {first} to {last}"),
        None => "no version".to_owned(),
    };
    output.line(&format!(
        "    {} groups, {} of them beacons; {} transactions, {versions}",
        count(facts.groups),
        count(facts.beacons),
        count(facts.transactions)
    ))?;
    output.line(&format!(
        "    ends at offset {} (log position {}) with {}",
        count(facts.end_offset),
        count(facts.end_position),
        facts.end
    ))?;
    if facts.evidence_groups > 0 {
        let groups = count(facts.evidence_groups);
        output.line(&format!("    behind that {groups} groups are valid on their own"))?;
    }
    Ok(())
}

pub(super) fn print_group(output: &mut Output, group: &GroupFacts) -> Result<()> {
    output.line(&format!(
        "    offset {:>9}  {} group, {} bytes, promises up to {}",
        count(group.offset),
        group.kind,
        count(group.length),
        count(group.durable_upto)
    ))?;
    for frame in &group.frames {
        output.line(&format!("        {frame}"))?;
    }
    Ok(())
}

pub(super) fn to_json(facts: &SegmentFacts, role: Role, groups: Option<String>) -> String {
    let mut object = Object::new().text("file", &facts.file).number("bytes", facts.bytes);
    object = object.text("role", role.in_words());
    object = match &facts.header {
        Err(wrong) => object.text("header", wrong),
        Ok(header) => object
            .number("epoch", header.epoch.counter)
            .number("predecessor", header.predecessor)
            .number("first_position", header.first_position)
            .number("durable_upto", header.durable_upto)
            .number("version_ceiling", header.version_ceiling),
    };
    object = object
        .number("groups", facts.groups)
        .number("beacons", facts.beacons)
        .number("transactions", facts.transactions);
    if let Some((first, last)) = facts.versions {
        object = object.number("first_version", first.0).number("last_version", last.0);
    }
    object = object
        .number("end_position", facts.end_position)
        .number("end_offset", facts.end_offset)
        .text("end", &facts.end)
        .number("evidence_groups", facts.evidence_groups);
    match groups {
        Some(groups) => object.json("group_list", &groups).end(),
        None => object.end(),
    }
}

pub(super) fn group_json(group: &GroupFacts) -> String {
    let frames = group.frames.iter().map(|frame| {
        let mut text = String::new();
        push_text(&mut text, frame.trim_start());
        text
    });
    Object::new()
        .number("offset", group.offset)
        .number("bytes", group.length)
        .text("kind", group.kind)
        .number("durable_upto", group.durable_upto)
        .json("frames", &list(frames))
        .end()
}
