//! The names of files in a database directory, built and parsed in one place.
//!
//! ```text
//! <db>/LOCK                       locked by the writer
//! <db>/MANIFEST                   replaced atomically through MANIFEST.tmp
//! <db>/WAL/wal-000001.seg         segments of the log
//! <db>/SNAPSHOTS/snap-000001.chk  snapshots
//! <db>/quarantine/                copies of what recovery cut
//! ```

use std::path::{Path, PathBuf};

use steadfast_core::limits::{SEGMENT_NUMBER_MAX, SNAPSHOT_NUMBER_MAX};

use crate::disk::{Access, Disk, EntryKind};
use crate::error::{IoContext, Result};

/// The directory of one database.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

/// The names that a database directory itself holds.
pub const ROOT_NAMES: [&str; 7] =
    ["LOCK", "MANIFEST", "MANIFEST.tmp", "COPYING", "WAL", "SNAPSHOTS", "quarantine"];

impl Layout {
    /// The database at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The lock file.
    pub fn lock(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    /// The MANIFEST.
    pub fn manifest(&self) -> PathBuf {
        self.root.join("MANIFEST")
    }

    /// What a MANIFEST is called while it is being written.
    pub fn manifest_tmp(&self) -> PathBuf {
        self.root.join("MANIFEST.tmp")
    }

    /// What is there for as long as the directory is being made as a copy of another one.
    pub fn copying(&self) -> PathBuf {
        self.root.join("COPYING")
    }

    /// The directory of the log.
    pub fn wal(&self) -> PathBuf {
        self.root.join("WAL")
    }

    /// A segment of the log.
    pub fn segment(&self, number: u64) -> PathBuf {
        self.wal().join(Self::segment_name(number))
    }

    /// A segment's file name.
    pub fn segment_name(number: u64) -> String {
        format!("wal-{number:06}.seg")
    }

    /// A segment's path relative to the database, for messages.
    pub fn segment_label(number: u64) -> String {
        format!("WAL/{}", Self::segment_name(number))
    }

    /// The number in a segment's file name; `None` for any other name.
    pub fn parse_segment_name(name: &str) -> Option<u64> {
        let number = name.strip_prefix("wal-")?.strip_suffix(".seg")?.parse().ok()?;
        let possible = (1..=SEGMENT_NUMBER_MAX).contains(&number);
        (possible && Self::segment_name(number) == name).then_some(number)
    }

    /// The directory of snapshots.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("SNAPSHOTS")
    }

    /// A snapshot.
    pub fn snapshot(&self, number: u64) -> PathBuf {
        self.snapshots().join(Self::snapshot_name(number))
    }

    /// A snapshot's file name.
    pub fn snapshot_name(number: u64) -> String {
        format!("snap-{number:06}.chk")
    }

    /// A snapshot's path relative to the database, for messages.
    pub fn snapshot_label(number: u64) -> String {
        format!("SNAPSHOTS/{}", Self::snapshot_name(number))
    }

    /// The number in a snapshot's file name; `None` for any other name.
    pub fn parse_snapshot_name(name: &str) -> Option<u64> {
        let number = name.strip_prefix("snap-")?.strip_suffix(".chk")?.parse().ok()?;
        let possible = (1..=SNAPSHOT_NUMBER_MAX).contains(&number);
        (possible && Self::snapshot_name(number) == name).then_some(number)
    }

    /// The directory of copies of what recovery cut.
    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// `path` as messages show it: relative to the database where it lies inside.
    pub fn label(&self, path: &Path) -> String {
        match path.strip_prefix(&self.root) {
            Ok(inside) if !inside.as_os_str().is_empty() => inside.display().to_string(),
            _ => path.display().to_string(),
        }
    }
}

/// Bytes of the files in a database's directory, as they are long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskUsage {
    /// Segments of the log, with the space that is taken ahead.
    pub log: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Copies of what recovery left out.
    pub quarantine: u64,
    /// The MANIFEST, the lock file and whatever else lies there.
    pub other: u64,
}

impl DiskUsage {
    /// All of it.
    pub const fn total(&self) -> u64 {
        self.log + self.snapshots + self.quarantine + self.other
    }
}

/// How much the files of the database take. Files that come and go meanwhile may count or not.
pub fn disk_usage(disk: &dyn Disk, layout: &Layout) -> Result<DiskUsage> {
    let of = |directory: &Path| -> Result<u64> {
        let names = match disk.list(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            names => names.at(layout.label(directory), "list")?,
        };
        let length = |name: &String| {
            let path = directory.join(name);
            matches!(disk.kind(&path), Ok(Some(EntryKind::File)))
                .then(|| disk.open(&path, Access::Read).and_then(|file| file.len()).unwrap_or(0))
        };
        Ok(names.iter().filter_map(length).sum())
    };
    Ok(DiskUsage {
        log: of(&layout.wal())?,
        snapshots: of(&layout.snapshots())?,
        quarantine: of(&layout.quarantine())?,
        other: of(layout.root())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_it_would_write_itself_are_segments() {
        assert_eq!(Layout::parse_segment_name("wal-000012.seg"), Some(12));
        assert_eq!(Layout::parse_segment_name("wal-1234567.seg"), Some(1_234_567));
        for name in [
            "wal-12.seg",
            "wal-000000.seg",
            "wal-18446744073709551615.seg",
            "wal-+00012.seg",
            "wal-000012.seg~",
            "x",
        ] {
            assert_eq!(Layout::parse_segment_name(name), None, "{name}");
        }
    }

    #[test]
    fn only_names_it_would_write_itself_are_snapshots() {
        assert_eq!(Layout::parse_snapshot_name("snap-000012.chk"), Some(12));
        assert_eq!(Layout::parse_snapshot_name("snap-1234567.chk"), Some(1_234_567));
        for name in ["snap-12.chk", "snap-000000.chk", "snap-000012.seg", "wal-000012.seg", "x"] {
            assert_eq!(Layout::parse_snapshot_name(name), None, "{name}");
        }
    }
}
