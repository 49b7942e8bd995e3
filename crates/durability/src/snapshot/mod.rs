//! Snapshots: sorted immutable tables that serve a key or a range in place.
#![doc = include_str!("FORMAT.md")]

mod block;
mod cache;
mod column;
mod filter;
mod footer;
mod index;
mod meta;
mod piece;
mod reader;
mod salvage;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use steadfast_core::Version;

pub use footer::SNAPSHOT_FORMAT;
pub use meta::SnapshotMeta;
pub use piece::Compression;
pub use reader::{Snapshot, SnapshotLayout};
pub use salvage::{Loss, Salvaged, salvage_rows};
pub use verify::SnapshotCheck;
pub use writer::{
    SnapshotFile, SnapshotOptions, SnapshotWriter, write_snapshot, write_snapshot_at,
};

/// What names a snapshot and sums it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its number.
    pub number: u64,
    /// Everything committed up to this version is in it.
    pub version: Version,
    /// Versions of keys, tombstones included.
    pub rows: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// Bytes of keys and values.
    pub payload_bytes: u64,
    /// The checksum of the footer. It covers the checksums of the indexes, and they those of
    /// everything else: two files with the same one hold the same.
    pub checksum: u32,
}

impl SnapshotInfo {
    fn of(footer: &footer::Footer) -> Self {
        Self {
            number: footer.number,
            version: Version(footer.version),
            rows: footer.rows,
            file_bytes: footer.file_bytes,
            payload_bytes: footer.payload_bytes,
            checksum: footer.checksum(),
        }
    }
}
