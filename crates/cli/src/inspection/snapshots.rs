//! The snapshots of a database, and the files that nobody needs.

use steadfast_durability::disk::{Access, Disk};
use steadfast_durability::layout::{Layout, ROOT_NAMES};
use steadfast_durability::manifest::Manifest;
use steadfast_durability::snapshot::{
    Snapshot, SnapshotFile, SnapshotInfo, SnapshotLayout, SnapshotMeta,
};

use super::{if_there, names};
use crate::failure::{Failure, Result};

/// A snapshot file.
pub(crate) struct SnapshotFacts {
    pub(crate) number: u64,
    /// Relative to the database.
    pub(crate) file: String,
    pub(crate) bytes: u64,
    pub(crate) role: Role,
    /// What it says of itself, or what is wrong with it. Its blocks are not read.
    pub(crate) content: std::result::Result<Box<SnapshotContent>, String>,
}

pub(crate) struct SnapshotContent {
    pub(crate) info: SnapshotInfo,
    pub(crate) meta: SnapshotMeta,
    pub(crate) layout: SnapshotLayout,
}

/// What a file is to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Opening begins here.
    Needed,
    /// It is there in case the newest snapshot cannot be read.
    InReserve,
    /// The MANIFEST does not name it yet.
    NotNamed,
    /// Nobody needs it.
    Unneeded,
    /// There is no MANIFEST to tell.
    Unknown,
}

impl Role {
    pub(crate) const fn in_words(self) -> &'static str {
        match self {
            Self::Needed => "needed",
            Self::InReserve => "needed only if the newest snapshot cannot be read",
            Self::NotNamed => "not named by the MANIFEST: prepared, or being written",
            Self::Unneeded => "nobody needs it; `compact` removes it",
            Self::Unknown => "whether it is needed is not known without the MANIFEST",
        }
    }

    /// The role of a segment.
    pub(crate) fn of_segment(manifest: Option<&Manifest>, number: u64) -> Self {
        let Some(manifest) = manifest else { return Self::Unknown };
        let newest = manifest.newest_snapshot().map_or(0, |newest| newest.first_segment);
        match number {
            _ if number > manifest.newest_segment => Self::NotNamed,
            _ if number < manifest.oldest_segment => Self::Unneeded,
            _ if number < newest => Self::InReserve,
            _ => Self::Needed,
        }
    }

    /// The role of a snapshot.
    fn of_snapshot(manifest: Option<&Manifest>, number: u64, locked: bool) -> Self {
        let Some(manifest) = manifest else { return Self::Unknown };
        let newest = manifest.newest_snapshot().map_or(0, |newest| newest.number);
        let named = manifest.snapshots.iter().any(|live| live.number == number);
        match number {
            _ if number == newest => Self::Needed,
            _ if named => Self::InReserve,
            _ if number > newest && locked => Self::NotNamed,
            _ => Self::Unneeded,
        }
    }
}

/// The snapshots, oldest first. `locked` is whether a writer may be writing one.
pub(crate) fn read_snapshots(
    disk: &dyn Disk,
    layout: &Layout,
    manifest: Option<&Manifest>,
    locked: bool,
) -> Result<Vec<SnapshotFacts>> {
    let names = names(disk, &layout.snapshots(), "SNAPSHOTS")?;
    let mut numbers: Vec<_> =
        names.iter().filter_map(|name| Layout::parse_snapshot_name(name)).collect();
    numbers.sort_unstable();
    let read = |number| -> Result<SnapshotFacts> {
        let file = Layout::snapshot_label(number);
        let opened = match manifest {
            Some(manifest) => Snapshot::open(disk, layout, number, manifest.database),
            None => Snapshot::open_any(disk, &SnapshotFile::of(layout, number)),
        };
        let length = disk.open(&layout.snapshot(number), Access::Read).and_then(|file| file.len());
        Ok(SnapshotFacts {
            number,
            bytes: length.map_err(|error| Failure::io(&file, &error))?,
            file,
            role: Role::of_snapshot(manifest, number, locked),
            content: opened.map_err(|error| error.to_string()).map(|snapshot| {
                Box::new(SnapshotContent {
                    info: snapshot.info(),
                    meta: snapshot.meta().clone(),
                    layout: snapshot.describe(),
                })
            }),
        })
    };
    numbers.into_iter().filter_map(|number| if_there(read(number)).transpose()).collect()
}

/// Files beside segments and snapshots that no opening reads, and why they are there.
pub(crate) fn leftovers(disk: &dyn Disk, layout: &Layout) -> Result<Vec<(String, &'static str)>> {
    const FOREIGN: &str = "not a file of the database: nobody needs it";
    let mut found = Vec::new();
    for name in names(disk, layout.root(), ".")? {
        if name == "MANIFEST.tmp" {
            found.push((name, "a MANIFEST that was not finished: nobody needs it"));
        } else if !ROOT_NAMES.contains(&name.as_str()) {
            found.push((name, FOREIGN));
        }
    }
    for name in names(disk, &layout.wal(), "WAL")? {
        if Layout::parse_segment_name(&name).is_none() {
            found.push((format!("WAL/{name}"), FOREIGN));
        }
    }
    for name in names(disk, &layout.snapshots(), "SNAPSHOTS")? {
        if Layout::parse_snapshot_name(&name).is_none() {
            found.push((format!("SNAPSHOTS/{name}"), FOREIGN));
        }
    }
    for name in names(disk, &layout.quarantine(), "quarantine")? {
        let why = "a copy of what recovery left out: evidence, nobody needs it";
        found.push((format!("quarantine/{name}"), why));
    }
    found.sort();
    Ok(found)
}
