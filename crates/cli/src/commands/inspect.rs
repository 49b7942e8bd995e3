//! `inspect`: the files in plain words.

use steadfast_core::Retention;
use steadfast_durability::StdDisk;
use steadfast_durability::disk::Disk;
use steadfast_durability::layout::Layout;
use steadfast_durability::manifest::Manifest;

use crate::args::InspectArgs;
use crate::failure::{EXIT_DONE, Failure, Result};
use crate::inspection::{GroupFacts, SegmentFacts, manifest, read_segment, segment_numbers};
use crate::json::{Object, list, push_text};
use crate::output::{Output, count, moment, size};

pub(crate) fn run(args: &InspectArgs, json: bool) -> Result<u8> {
    let (disk, layout) = (StdDisk, Layout::new(&args.dir));
    let manifest = manifest(&disk, &layout);
    let numbers = segment_numbers(&disk, &layout)?;
    if numbers.is_empty() && manifest == Ok(None) {
        let message = format!("{}: there is no database there", args.dir.display());
        return Err(Failure::new("not_found", message));
    }
    let locked = disk.is_locked(&layout.lock()).unwrap_or(false);
    let mut output = Output::new();
    if json {
        let mut segments = Vec::new();
        for number in numbers {
            let mut groups = Vec::new();
            let see = |group: GroupFacts| {
                if args.frames {
                    groups.push(group_json(&group));
                }
            };
            let facts = read_segment(&disk, &layout, number, see)?;
            segments.push(segment_json(&facts, args.frames.then(|| list(groups))));
        }
        let report = Object::new()
            .json("manifest", &manifest_json(&manifest))
            .bool("locked", locked)
            .json("segments", &list(segments));
        output.line(&report.end())?;
    } else {
        print_manifest(&mut output, &manifest)?;
        let lock = if locked { "held: a writer has the database open" } else { "not held" };
        output.line(&format!("LOCK\n    {lock}"))?;
        for number in numbers {
            let mut groups = Vec::new();
            let facts = read_segment(&disk, &layout, number, |group| {
                if args.frames {
                    groups.push(group);
                }
            })?;
            print_segment(&mut output, &facts)?;
            for group in groups {
                print_group(&mut output, &group)?;
            }
        }
    }
    output.flush()?;
    Ok(EXIT_DONE)
}

fn print_manifest(output: &mut Output, manifest: &Result<Option<Manifest>>) -> Result<()> {
    output.line("MANIFEST")?;
    let manifest = match manifest {
        Err(failure) => return output.line(&format!("    {}", failure.message)),
        Ok(None) => return output.line("    is not there"),
        Ok(Some(manifest)) => manifest,
    };
    let Manifest { oldest_segment, newest_segment, floor, .. } = manifest;
    let kept = manifest.retention.default_rule().to_string();
    output.line(&format!("    database {}", hex(&manifest.database)))?;
    output.line(&format!("    created {}, keeps {kept} of a key", moment(manifest.created)))?;
    if *newest_segment == 0 {
        return output.line("    no log yet: nothing was ever written");
    }
    output.line(&format!(
        "    names segments {oldest_segment} to {newest_segment}; opened for writing {} times",
        manifest.epochs.len()
    ))?;
    output.line(&format!(
        "    known durable: the log up to position {}, versions up to {}",
        count(floor.position),
        floor.version
    ))
}

fn print_segment(output: &mut Output, facts: &SegmentFacts) -> Result<()> {
    output.line(&format!("{}  {}", facts.file, size(facts.bytes)))?;
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

fn print_group(output: &mut Output, group: &GroupFacts) -> Result<()> {
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

fn manifest_json(manifest: &Result<Option<Manifest>>) -> String {
    match manifest {
        Err(failure) => failure.to_json(),
        Ok(None) => "null".to_owned(),
        Ok(Some(manifest)) => Object::new()
            .text("database", &hex(&manifest.database))
            .number("created_us", manifest.created.as_micros())
            .number("oldest_segment", manifest.oldest_segment)
            .number("newest_segment", manifest.newest_segment)
            .number("floor_position", manifest.floor.position)
            .number("floor_version", manifest.floor.version.0)
            .number("epochs", manifest.epochs.len() as u64)
            .end(),
    }
}

fn segment_json(facts: &SegmentFacts, groups: Option<String>) -> String {
    let mut object = Object::new().text("file", &facts.file).number("bytes", facts.bytes);
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

fn group_json(group: &GroupFacts) -> String {
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
