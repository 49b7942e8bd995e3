//! `runs`: which runs there are and what is in them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use steadfast::{Entry, RunId, RunInfo, Value, View};

use crate::database::{open_to_look, read_around_damage};
use crate::failure::{EXIT_DONE, Result};
use crate::json::{Object, list, push_value};
use crate::output::{Output, count, moment};

pub(crate) fn run(dir: &Path, json: bool) -> Result<u8> {
    let database = open_to_look(dir)?;
    let runs = read_around_damage(&database, || {
        let view = database.view()?;
        let tallied = view.list_runs()?.into_iter().map(|info| {
            let tally = Tally::of(&view, &info)?;
            Ok((info, tally))
        });
        tallied.collect::<Result<Vec<_>>>()
    })?;
    let mut output = Output::new();
    if json {
        let runs = runs.iter().map(|(info, tally)| {
            Object::new()
                .text("run", &info.name)
                .text("id", &info.id.to_string())
                .text("status", info.status.name())
                .value("metadata", &Value::Map(info.metadata.clone()))
                .json("parent", &parent_json(info))
                .number("created_us", info.created.as_micros())
                .number("version", info.version.0)
                .number("keys", tally.keys)
                .number("events", tally.events)
                .number("cells", tally.cells)
                .end()
        });
        output.line(&list(runs))?;
    } else {
        let names: HashMap<RunId, &str> =
            runs.iter().map(|(info, _)| (info.id, info.name.as_str())).collect();
        let head = [
            "run",
            "status",
            "forked from",
            "keys",
            "events",
            "cells",
            "created",
            "id",
            "metadata",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(runs.iter().map(|(info, tally)| {
            let [keys, events, cells] = [tally.keys, tally.events, tally.cells].map(count);
            let (created, id) = (moment(info.created), info.id.to_string());
            let (name, status) = (info.name.clone(), info.status.to_string());
            let parent = shown_parent(info, &names);
            [name, status, parent, keys, events, cells, created, id, shown(&info.metadata)]
        }));
        output.table(&rows)?;
    }
    output.flush()?;
    Ok(EXIT_DONE)
}

/// What a run was forked from, by its name if that is still there.
fn shown_parent(info: &RunInfo, names: &HashMap<RunId, &str>) -> String {
    info.parent.map_or_else(String::new, |parent| {
        let name = names.get(&parent.id).copied().unwrap_or("a deleted run");
        format!("{name} at {}", parent.version)
    })
}

fn parent_json(info: &RunInfo) -> String {
    info.parent.map_or_else(
        || "null".to_owned(),
        |parent| {
            let line = Object::new().text("id", &parent.id.to_string());
            line.number("version", parent.version.0).end()
        },
    )
}

/// Metadata in one line, as it is written; nothing for none.
fn shown(metadata: &BTreeMap<String, Value>) -> String {
    let mut text = String::new();
    if !metadata.is_empty() {
        push_value(&mut text, &Value::Map(metadata.clone()));
    }
    text
}

/// How much of each there is in a run.
#[derive(Debug, Default)]
struct Tally {
    keys: u64,
    events: u64,
    cells: u64,
}

impl Tally {
    fn of(view: &View, info: &RunInfo) -> Result<Self> {
        let mut tally = Self::default();
        for entry in view.entries(info.run) {
            match entry? {
                Entry::Kv { .. } => tally.keys += 1,
                Entry::Event { .. } => tally.events += 1,
                Entry::State { .. } => tally.cells += 1,
                _ => {}
            }
        }
        Ok(tally)
    }
}
