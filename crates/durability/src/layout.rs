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
pub const ROOT_NAMES: [&str; 6] =
    ["LOCK", "MANIFEST", "MANIFEST.tmp", "WAL", "SNAPSHOTS", "quarantine"];

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

/// Bytes of all files of the database, as they are long. Files that come and go meanwhile may
/// count or not.
pub fn disk_bytes(disk: &dyn Disk, layout: &Layout) -> Result<u64> {
    let mut total = 0;
    let directories =
        [layout.root().to_owned(), layout.wal(), layout.snapshots(), layout.quarantine()];
    for directory in directories {
        let names = match disk.list(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            names => names.at(layout.label(&directory), "list")?,
        };
        for name in names {
            let path = directory.join(name);
            if matches!(disk.kind(&path), Ok(Some(EntryKind::File)))
                && let Ok(file) = disk.open(&path, Access::Read)
            {
                total += file.len().unwrap_or(0);
            }
        }
    }
    Ok(total)
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
