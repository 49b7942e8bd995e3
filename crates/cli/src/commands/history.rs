//! `history`: the versions of one key, state cell or signal that are kept.

use std::cmp::Ordering;

use steadfast::{Database, Entry};

use crate::args::HistoryArgs;
use crate::database::{open_to_look, read_around_damage};
use crate::entry::entry_to_json;
use crate::failure::{EXIT_DONE, Failure, Result};
use crate::json::push_value;
use crate::output::{Output, moment};

/// Longest text that is shown of a value to people.
const SHOWN_CHARS_MAX: usize = 100;

pub(crate) fn run(args: &HistoryArgs, json: bool) -> Result<u8> {
    let database = open_to_look(&args.dir)?;
    let entries = read_around_damage(&database, || versions(&database, args))?;
    if entries.is_empty() {
        let what = match args {
            HistoryArgs { state: true, .. } => "state cell",
            HistoryArgs { signal: Some(_), .. } => "such signal of",
            _ => "key",
        };
        let (name, run) = (args.key.display(), &args.run);
        let message = format!("the run `{run}` has no {what} `{name}`, and keeps nothing of one");
        return Err(Failure::new("not_found", message));
    }
    let mut output = Output::new();
    if json {
        for entry in &entries {
            output.line(&entry_to_json(&args.run, entry)?)?;
        }
    } else {
        let mut rows = vec![["version", "committed", "value"].map(str::to_owned)];
        for entry in &entries {
            let (version, made) = (entry.version().to_string(), moment(entry.timestamp()));
            rows.push([version, made, shown(entry)]);
        }
        output.table(&rows)?;
    }
    output.flush()?;
    Ok(EXIT_DONE)
}

/// Newest first.
fn versions(database: &Database, args: &HistoryArgs) -> Result<Vec<Entry>> {
    let view = database.view()?;
    let run = view.resolve_run(&args.run)?;
    let wanted = args.key.as_encoded_bytes();
    if let Some(name) = &args.signal {
        let versions = view.signal_versions(run, name, wanted)?;
        return Ok(versions);
    }
    let mut found = Vec::new();
    for entry in view.entries_with_history(run) {
        let entry = entry?;
        let place = match (&entry, args.state) {
            (Entry::Kv { key: name, .. }, false) | (Entry::State { cell: name, .. }, true) => {
                name.as_slice().cmp(wanted)
            }
            // Key-values come first, then events; all else comes behind the cells.
            (Entry::Kv { .. } | Entry::Event { .. }, true) => Ordering::Less,
            (_, true) => Ordering::Greater,
            (_, false) => Ordering::Greater,
        };
        match place {
            Ordering::Less => {}
            Ordering::Equal => found.push(entry),
            Ordering::Greater => break,
        }
    }
    Ok(found)
}

fn shown(entry: &Entry) -> String {
    let (value, expiry) = match entry {
        Entry::Kv { value, expiry, .. } => (value, *expiry),
        Entry::State { value, .. } => (value, None),
        Entry::Signal { signal: Some(signal), timestamp, .. } => {
            let score = signal.score(signal.not_before(*timestamp)).unwrap_or(f64::NAN);
            return format!("score {score:.6}, {} observations", signal.count);
        }
        Entry::Signal { .. } => return "(deleted)".to_owned(),
        _ => return String::new(),
    };
    let Some(value) = value else { return "(deleted)".to_owned() };
    let mut text = String::new();
    push_value(&mut text, value);
    if let Some((end, _)) = text.char_indices().nth(SHOWN_CHARS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    if let Some(expiry) = expiry {
        text.push_str(&format!("  (until {})", moment(expiry)));
    }
    text
}
