//! Finding out what a database was from its files, where its MANIFEST does not say.

use std::io;

use steadfast_core::{Retention, Timestamp, Version};

use crate::disk::Disk;
use crate::error::{Error, IoContext, Result};
use crate::layout::Layout;
use crate::manifest::{EpochStart, LiveSnapshot, Manifest};
use crate::snapshot::{Snapshot, SnapshotFile};
use crate::wal::chain::segment_headers;

/// A MANIFEST that names what lies in the directory: the newest database of which there is a
/// valid segment or snapshot, the segments that lead to its newest one, its snapshots. It
/// promises nothing, since nothing is known to have been promised.
///
/// # Errors
///
/// [`Error::NotADatabase`] if there is no valid segment and no valid snapshot.
pub fn manifest_from_files(disk: &dyn Disk, layout: &Layout) -> Result<Manifest> {
    let mut headers = segment_headers(disk, layout)?;
    headers.retain(|(number, header)| header.number == *number);
    let headers: Vec<_> = headers.into_iter().map(|(_, header)| header).collect();
    let mut snapshots = Vec::new();
    let names = match disk.list(&layout.snapshots()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        names => names.at("SNAPSHOTS", "list")?,
    };
    let mut numbers: Vec<u64> =
        names.iter().filter_map(|name| Layout::parse_snapshot_name(name)).collect();
    numbers.sort_unstable();
    for number in numbers {
        match Snapshot::open_any(disk, &SnapshotFile::of(layout, number)) {
            Ok(snapshot) => snapshots.push(snapshot),
            Err(Error::Corrupt { .. } | Error::Table(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let newest = headers.last().map(|header| header.database);
    let newest = newest.or_else(|| snapshots.last().map(Snapshot::database));
    let Some(database) = newest else {
        let path = layout.root().display().to_string();
        let reason = "no MANIFEST, no valid segment and no valid snapshot";
        return Err(Error::NotADatabase { path, reason });
    };
    let mut manifest = Manifest::new(database, Timestamp::ZERO, Retention::KeepAll.into());
    let ours = |number: u64| {
        headers.iter().find(|header| header.number == number && header.database == database)
    };
    let newest = headers.iter().rev().find(|header| header.database == database);
    let mut at = newest;
    while let Some(header) = at {
        manifest.newest_segment = manifest.newest_segment.max(header.number);
        manifest.oldest_segment = header.number;
        at = ours(header.predecessor).filter(|before| before.number < header.number);
    }
    for header in headers.iter().filter(|header| header.database == database) {
        if manifest.epochs.last().is_none_or(|last| last.epoch != header.epoch) {
            manifest.epochs.push(EpochStart {
                epoch: header.epoch,
                first_version: Version(1),
                recovered: Version::ZERO,
                first_segment: header.number,
            });
        }
    }
    for snapshot in snapshots.iter().filter(|snapshot| snapshot.database() == database) {
        let info = snapshot.info();
        manifest.snapshots.push(LiveSnapshot {
            number: info.number,
            version: info.version,
            first_segment: 0,
            checksum: info.checksum,
            verified: false,
        });
    }
    Ok(manifest)
}
