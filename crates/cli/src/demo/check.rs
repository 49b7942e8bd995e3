//! What survived a kill, compared with what was sent and what was acknowledged.

use std::path::Path;
use std::time::{Duration, Instant};

use steadfast::{Database, Entry};
use steadfast_durability::StdDisk;
use steadfast_durability::layout::Layout;

use crate::demo::script::{Place, Script};
use crate::failure::{Failure, Result};
use crate::inspection::{read_segment, segment_numbers};

/// What is in the database that a killed writer left.
#[derive(Debug)]
pub(crate) struct Survivors {
    /// The version of each transaction that is there, in order, from the first on.
    pub(crate) versions: Vec<u64>,
    /// How long opening took.
    pub(crate) recovery: Duration,
}

/// Opens the database and checks that what is there is a prefix of `script`, every value as it
/// was sent, every version as it was acknowledged.
pub(crate) fn survivors(dir: &Path, script: &Script, known: &[Option<u64>]) -> Result<Survivors> {
    let start = Instant::now();
    let database = Database::open_read_only(dir)?;
    let recovery = start.elapsed();
    let mut found: Vec<Option<u64>> = vec![None; script.steps.len()];
    let view = database.view()?;
    for info in view.list_runs()? {
        for entry in view.entries(info.run) {
            let entry = entry?;
            let version = entry.version().0;
            let (place, value) = place(&info.name, entry)?;
            let step = script.index_of.get(&place);
            let Some(index) = step.copied() else {
                return Err(wrong(format!("{place:?} is there and was never sent")));
            };
            if script.steps[index].value != value {
                return Err(wrong(format!("{place:?} is not what was sent")));
            }
            if known[index].is_some_and(|known| known != version) {
                return Err(wrong(format!("{place:?} has another version than was acknowledged")));
            }
            found[index] = Some(version);
        }
    }
    let versions: Vec<u64> = found.iter().map_while(|version| *version).collect();
    let there = found.iter().flatten().count();
    if there != versions.len() {
        let hole = versions.len();
        return Err(wrong(format!(
            "commit {hole} is missing, {} after it are there",
            there - hole
        )));
    }
    if !versions.is_sorted_by(|a, b| a < b) {
        return Err(wrong("versions are not in the order of the commits".to_owned()));
    }
    Ok(Survivors { versions, recovery })
}

fn place(run: &str, entry: Entry) -> Result<(Place, steadfast::Value)> {
    let run = run.to_owned();
    match entry {
        Entry::Kv { key, value: Some(value), .. } => Ok((Place::Pair { run, key }, value)),
        Entry::Event { stream, event } => {
            let stream = String::from_utf8_lossy(&stream).into_owned();
            Ok((Place::Event { run, stream, seq: event.seq }, event.payload))
        }
        other => Err(wrong(format!("{other:?} is there and was never sent"))),
    }
}

fn wrong(message: String) -> Failure {
    Failure::new("corruption", message)
}

/// What is left on disk when all is done.
#[derive(Debug)]
pub(crate) struct Files {
    /// What a check of every byte came to, in a word.
    pub(crate) verdict: String,
    /// Snapshots that were written and named, as their numbers tell.
    pub(crate) checkpoints: u64,
    /// Up to which version the newest snapshot has everything.
    pub(crate) snapshot_version: u64,
    pub(crate) log_bytes: u64,
    pub(crate) snapshot_bytes: u64,
}

/// Reads every byte of the database that was closed at last.
pub(crate) fn files(dir: &Path) -> Result<Files> {
    let database = Database::open_read_only(dir)?;
    if let Some(damaged) = database.verify()?.first() {
        let (file, what, offset) = (&damaged.file, &damaged.what, damaged.offset);
        return Err(wrong(format!("{file}: {what} at offset {offset}")));
    }
    let stats = database.stats()?;
    let (checkpoints, version) = stats.snapshot.unwrap_or_default();
    Ok(Files {
        verdict: format!("sound, {}", database.recovery_report().log),
        checkpoints,
        snapshot_version: version.0,
        log_bytes: stats.disk.log,
        snapshot_bytes: stats.disk.snapshots,
    })
}

/// A place in the newest segment of the log where damage does harm.
pub(crate) fn middle_of_log(dir: &Path) -> Result<(String, u64)> {
    let (disk, layout) = (StdDisk, Layout::new(dir));
    let newest = segment_numbers(&disk, &layout)?.pop();
    let newest = newest.ok_or_else(|| wrong("the database has no log".to_owned()))?;
    let facts = read_segment(&disk, &layout, newest, |_| {})?;
    Ok((facts.file, facts.end_offset / 2))
}
