//! The MANIFEST, as `inspect` shows it.

use steadfast_core::{RetentionPolicy, TypeTag};
use steadfast_durability::layout::Layout;
use steadfast_durability::manifest::{LiveSnapshot, Manifest};

use crate::failure::Result;
use crate::json::{Object, list, push_text};
use crate::output::{Output, count, counted, moment};

pub(super) fn print(output: &mut Output, manifest: &Result<Option<Manifest>>) -> Result<()> {
    output.line("MANIFEST")?;
    let manifest = match manifest {
        Err(failure) => return output.line(&format!("    {}", failure.message)),
        Ok(None) => return output.line("    is not there"),
        Ok(Some(manifest)) => manifest,
    };
    let Manifest { oldest_segment, newest_segment, floor, .. } = manifest;
    output.line(&format!("    database {}", hex(&manifest.database)))?;
    output.line(&format!("    created {}", moment(manifest.created)))?;
    for rule in rules(&manifest.retention) {
        output.line(&format!("    keeps {rule}"))?;
    }
    for live in &manifest.snapshots {
        output.line(&format!("    {}", snapshot_in_words(live)))?;
    }
    if *newest_segment == 0 {
        return output.line(match manifest.snapshots.is_empty() {
            true => "    no log yet: nothing was ever written",
            false => "    no log yet: everything is in the snapshot",
        });
    }
    let times = counted(manifest.epochs.len() as u64, "time", "times");
    output.line(&format!(
        "    names segments {oldest_segment} to {newest_segment}; opened for writing {times}"
    ))?;
    output.line(&format!(
        "    known durable: the log up to position {}, versions up to {}",
        count(floor.position),
        floor.version
    ))
}

/// What is kept of what, a rule each.
fn rules(retention: &RetentionPolicy) -> Vec<String> {
    let mut rules = vec![format!("of a key: {}", retention.default_rule())];
    rules.extend(retention.primitives().map(|(tag, kept)| {
        let what = match tag {
            TypeTag::Kv => "key-values",
            TypeTag::Event => "events",
            TypeTag::State => "state cells",
            TypeTag::Signal => "signals",
            TypeTag::Run => "the run index",
            TypeTag::Idempotency => "idempotency keys",
            TypeTag::Collection => "collections",
            TypeTag::Attributes => "attributes",
            TypeTag::Cohort => "cohorts",
            TypeTag::Engagement => "graphs",
        };
        format!("of {what}: {kept}")
    }));
    rules.extend(retention.runs().map(|(run, kept)| format!("of the run {run}: {kept}")));
    rules
}

fn snapshot_in_words(live: &LiveSnapshot) -> String {
    let LiveSnapshot { number, version, first_segment, verified, .. } = live;
    let after = match first_segment {
        0 => "the log from its beginning on".to_owned(),
        number => format!("the log from {} on", Layout::segment_label(*number)),
    };
    let read = if *verified { "read back from the device" } else { "not read back yet" };
    format!(
        "names snapshot {number}: everything up to version {version}; with it goes {after}; {read}"
    )
}

pub(super) fn to_json(manifest: &Result<Option<Manifest>>) -> String {
    let manifest = match manifest {
        Err(failure) => return failure.to_json(),
        Ok(None) => return "null".to_owned(),
        Ok(Some(manifest)) => manifest,
    };
    let rules = rules(&manifest.retention).into_iter().map(|rule| {
        let mut text = String::new();
        push_text(&mut text, &rule);
        text
    });
    let snapshots = manifest.snapshots.iter().map(|live| {
        Object::new()
            .number("number", live.number)
            .number("version", live.version.0)
            .number("first_segment", live.first_segment)
            .bool("read_back", live.verified)
            .end()
    });
    Object::new()
        .text("database", &hex(&manifest.database))
        .number("created_us", manifest.created.as_micros())
        .json("keeps", &list(rules))
        .json("snapshots", &list(snapshots))
        .number("oldest_segment", manifest.oldest_segment)
        .number("newest_segment", manifest.newest_segment)
        .number("floor_position", manifest.floor.position)
        .number("floor_version", manifest.floor.version.0)
        .number("epochs", manifest.epochs.len() as u64)
        .end()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
