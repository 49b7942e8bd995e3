//! Removing files that nothing needs any more.
//!
//! A file goes only after a durable MANIFEST no longer needs it: a snapshot that it does not
//! name, a segment older than the oldest that it names. So a crash in between leaves files
//! too many, never one too few; the next call finds them.

use std::io;
use std::path::Path;

use steadfast_core::{CrashPoint, Sabotage, check_crash_point, sabotaged};

use crate::disk::{Access, Disk};
use crate::error::{IoContext, Result};
use crate::layout::Layout;

/// What must stay of a database's files, as its durable MANIFEST and its open log say.
#[derive(Debug, Clone)]
pub struct Needed {
    /// The live snapshots, by number.
    pub snapshots: Vec<u64>,
    /// The oldest segment that the MANIFEST needs.
    pub oldest_segment: u64,
    /// The segments that are known to be part of the log, oldest first; the last is the one
    /// that is written to.
    pub segments: Vec<u64>,
}

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Segments of the log.
    pub segments: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

impl Needed {
    fn segment(&self, number: u64) -> bool {
        let (Some(first), Some(active)) = (self.segments.first(), self.segments.last()) else {
            return true;
        };
        // A file behind the active segment may be one that is being prepared. One between
        // segments of the log was prepared, and overtaken.
        let overtaken = number > *first && number < *active && !self.segments.contains(&number);
        let too_many = u64::from(sabotaged(Sabotage::CompactOneTooMany));
        number >= self.oldest_segment + too_many && !overtaken
    }
}

/// Removes the files of segments and snapshots that are not needed.
pub fn remove_unneeded(disk: &dyn Disk, layout: &Layout, needed: &Needed) -> Result<Removed> {
    let mut removed = Removed::default();
    for number in numbers(disk, layout, &layout.snapshots(), Layout::parse_snapshot_name)? {
        if !needed.snapshots.contains(&number)
            && let Some(bytes) = remove(disk, layout, &layout.snapshot(number))?
        {
            removed.bytes += bytes;
            removed.snapshots += 1;
            check_crash_point(CrashPoint::DuringCompaction);
        }
    }
    for number in numbers(disk, layout, &layout.wal(), Layout::parse_segment_name)? {
        if !needed.segment(number)
            && let Some(bytes) = remove(disk, layout, &layout.segment(number))?
        {
            removed.bytes += bytes;
            removed.segments += 1;
            check_crash_point(CrashPoint::DuringCompaction);
        }
    }
    if removed.snapshots > 0 {
        disk.sync_dir(&layout.snapshots()).at("SNAPSHOTS", "sync the directory")?;
    }
    if removed.segments > 0 {
        disk.sync_dir(&layout.wal()).at("WAL", "sync the directory")?;
    }
    Ok(removed)
}

/// The numbers in a directory's file names, lowest first.
fn numbers(
    disk: &dyn Disk,
    layout: &Layout,
    directory: &Path,
    parse: fn(&str) -> Option<u64>,
) -> Result<Vec<u64>> {
    let names = match disk.list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.at(layout.label(directory), "list")?,
    };
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| parse(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes a file. Returns its length; `None` if somebody else has removed it meanwhile, as the
/// log does with a segment that was prepared and overtaken.
fn remove(disk: &dyn Disk, layout: &Layout, path: &Path) -> Result<Option<u64>> {
    let bytes = disk.open(path, Access::Read).and_then(|file| file.len()).unwrap_or(0);
    match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        removed => removed.at(layout.label(path), "remove")?,
    }
    log::info!("{}: removed, nothing needs it any more", layout.label(path));
    Ok(Some(bytes))
}
