//! `diff`: what is different between two runs, or between two versions of one.
//!
//! It is printed as it is found, so a diff of large runs takes little memory and begins at once.

use steadfast::{Database, Difference, Differences, Entry, Value, Version};

use crate::args::DiffArgs;
use crate::database::{open_to_look, read_around_damage};
use crate::entry::entry_to_json;
use crate::failure::{EXIT_DONE, Result};
use crate::json::push_value;
use crate::output::{Output, count};

/// Longest text that is shown of a value to people.
const SHOWN_CHARS_MAX: usize = 60;

pub(crate) fn run(args: &DiffArgs, json: bool) -> Result<u8> {
    let database = open_to_look(&args.dir)?;
    let mut printed = 0;
    let mut output = Output::new();
    let mut totals = [0u64; 3];
    read_around_damage(&database, || {
        for difference in differences(&database, args)?.skip(printed) {
            let difference = difference?;
            let (line, kind) = match json {
                true => to_json(args, &difference)?,
                false => to_text(&difference),
            };
            output.line(&line)?;
            totals[kind] += 1;
            printed += 1;
        }
        Ok(())
    })?;
    if !json {
        let [added, removed, changed] = totals.map(count);
        output.line(&format!("{added} added, {removed} removed, {changed} changed"))?;
    }
    output.flush()?;
    Ok(EXIT_DONE)
}

fn differences(database: &Database, args: &DiffArgs) -> Result<Differences> {
    let now = database.view()?;
    if let Some(other) = &args.other {
        let (before, after) = (now.resolve_run(&args.run)?, now.resolve_run(other)?);
        return Ok(now.diff_runs(before, &now, after)?);
    }
    let to = args.to.map_or_else(|| now.version(), Version);
    let from = args.from.map_or_else(|| now.version(), Version);
    // The run of that name now; if there is none any more, the one of then.
    let run = now.resolve_run(&args.run).or_else(|error| {
        let then = database.view_at(from).and_then(|view| view.resolve_run(&args.run));
        then.map_err(|_| error)
    })?;
    Ok(database.diff_run_versions(run, from, to)?)
}

fn to_json(args: &DiffArgs, difference: &Difference) -> Result<(String, usize)> {
    let after_run = args.other.as_ref().unwrap_or(&args.run);
    let before = |entry| entry_to_json(&args.run, entry);
    let after = |entry| entry_to_json(after_run, entry);
    let line = |change: &str, parts: &[(&str, String)]| {
        let mut line = format!("{{\"change\":\"{change}\"");
        for (name, entry) in parts {
            line.push_str(&format!(",\"{name}\":{entry}"));
        }
        line.push('}');
        line
    };
    Ok(match difference {
        Difference::Added(entry) => (line("added", &[("after", after(entry)?)]), 0),
        Difference::Removed(entry) => (line("removed", &[("before", before(entry)?)]), 1),
        Difference::Changed { before: one, after: other } => {
            let parts = [("before", before(one)?), ("after", after(other)?)];
            (line("changed", &parts), 2)
        }
    })
}

fn to_text(difference: &Difference) -> (String, usize) {
    match difference {
        Difference::Added(entry) => (format!("+ {} {}", name(entry), shown(entry)), 0),
        Difference::Removed(entry) => (format!("- {} {}", name(entry), shown(entry)), 1),
        Difference::Changed { before, after } => {
            (format!("* {} {} -> {}", name(before), shown(before), shown(after)), 2)
        }
    }
}

fn name(entry: &Entry) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().to_string();
    match entry {
        Entry::Kv { key, .. } => format!("key {}", text(key)),
        Entry::Event { stream, event } => format!("event {}[{}]", text(stream), event.seq),
        Entry::State { cell, .. } => format!("cell {}", text(cell)),
        Entry::Signal { name, entity, .. } => format!("signal {name} of {}", text(entity)),
        Entry::Collection { name, item: None, .. } => format!("collection {name}"),
        Entry::Collection { name, item: Some(item), .. } => {
            format!("item {} of the collection {name}", text(item))
        }
        Entry::Attributes { entity, .. } => format!("attributes of {}", text(entity)),
        Entry::Cohort { cohort, name, .. } => format!("signal {name} of the cohort {cohort}"),
        Entry::Engaged { graph, actor, .. } => format!("{graph}, actor {}", text(actor)),
        Entry::CoEngaged { graph, item, .. } => format!("{graph}, item {}", text(item)),
        _ => "entry".to_owned(),
    }
}

fn shown(entry: &Entry) -> String {
    let value = match entry {
        Entry::Kv { value, .. } | Entry::State { value, .. } => value.clone(),
        Entry::Event { event, .. } => Some(event.payload.clone()),
        Entry::Attributes { attributes, .. } => attributes.clone().map(Value::Map),
        Entry::Signal { signal: Some(signal), .. } | Entry::Cohort { signal: Some(signal), .. } => {
            return format!("{} observations", signal.count);
        }
        Entry::Engaged { items: Some(items), .. } => return format!("{} items", items.len()),
        Entry::CoEngaged { edges: Some(edges), .. } => return format!("{} edges", edges.len()),
        _ => None,
    };
    let mut text = String::new();
    if let Some(value) = value {
        push_value(&mut text, &value);
    }
    if let Some((end, _)) = text.char_indices().nth(SHOWN_CHARS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}
