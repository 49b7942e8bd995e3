//! Copies of a database as a database: backup, restore.
//!
//! A copy is one snapshot and a MANIFEST that names it, so what it holds does not depend on any
//! file of the original. Until its MANIFEST is there it is no database; a mark that is there
//! from the first moment on tells it from one that lost its MANIFEST.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use steadfast_core::{Record, Timestamp, Version};
use steadfast_durability::disk::Disk;
use steadfast_durability::layout::Layout;
use steadfast_durability::manifest::{Floor, LiveSnapshot, Manifest};
use steadfast_durability::snapshot::{
    Compression, Snapshot, SnapshotInfo, SnapshotMeta, SnapshotOptions, write_snapshot,
};

use crate::config::DatabaseBuilder;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::open::{create_directories, is_vacant, lock, unfinished_copy};
use crate::progress::{Watch, metered};
use crate::sync::Instant;
use crate::view::View;

/// What a copy of a database holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyInfo {
    /// Everything up to this commit is in it.
    pub version: Version,
    /// When that commit was made.
    pub timestamp: Timestamp,
    /// Versions of keys in it.
    pub rows: u64,
    /// Bytes of its snapshot.
    pub bytes: u64,
    /// How long it took, reading it back included.
    pub duration: Duration,
}

impl CopyInfo {
    /// Of a file that was begun at `started` and read back.
    pub(crate) fn of(written: &SnapshotInfo, timestamp: Timestamp, started: Instant) -> Self {
        Self {
            version: written.version,
            timestamp,
            rows: written.rows,
            bytes: written.file_bytes,
            duration: started.elapsed(),
        }
    }
}

/// What goes into a copy.
pub(crate) struct Source<R, M> {
    /// What the copy's MANIFEST takes over: id, creation, retention, epochs.
    pub(crate) manifest: Manifest,
    /// Rows in the order of a snapshot.
    pub(crate) rows: R,
    /// Everything up to this version, made then.
    pub(crate) upto: (Version, Timestamp),
    /// What the snapshot says of itself, and the times of commits, asked for after the last
    /// row: what was dropped while they were read counts.
    pub(crate) rest: M,
    /// Above every version that may have been given out, as far as that is known.
    pub(crate) next_version: Version,
}

/// Makes a database of `source` in the directory `target`, which must not hold anything, and
/// reads it back from the device.
pub(crate) fn write_copy<R, M>(
    disk: &Arc<dyn Disk>,
    target: &Path,
    compression: Compression,
    source: Source<R, M>,
    watch: Watch<'_>,
) -> Result<CopyInfo>
where
    R: Iterator<Item = Result<Record>>,
    M: FnOnce() -> Result<(SnapshotMeta, Vec<u8>)>,
{
    let started = Instant::now();
    let layout = Layout::new(target);
    let check_vacant = || match is_vacant(&**disk, &layout)? {
        true => Ok(()),
        false => {
            let path = target.display();
            Err(Error::Invalid(format!("{path}: not empty; a copy needs a new directory")))
        }
    };
    check_vacant()?;
    create_directories(&**disk, &layout, target)?;
    let _lock = lock(&**disk, &layout)?;
    // Somebody may have been faster.
    check_vacant()?;
    unfinished_copy::mark(&**disk, &layout)?;
    let Source { mut manifest, rows, upto: (version, timestamp), rest, next_version } = source;
    let options = SnapshotOptions { compression };
    let written = write_and_read_back(disk, &layout, manifest.database, options, rows, rest, watch);
    let written = match written {
        Err(error @ (Error::Stopped | Error::Closed(_))) => {
            // Nothing is to be missed of it: as vacant as before.
            let _ = disk.remove(&layout.snapshot(1));
            let _ = unfinished_copy::unmark(&**disk, &layout);
            return Err(error);
        }
        written => written?,
    };
    (manifest.oldest_segment, manifest.newest_segment) = (0, 0);
    manifest.floor = Floor { version, next_version, timestamp, ..Floor::default() };
    manifest.snapshots = vec![LiveSnapshot {
        number: 1,
        version,
        first_segment: 0,
        checksum: written.checksum,
        verified: true,
    }];
    manifest.epochs.retain(|start| start.first_version <= version);
    disk.create_dir(&layout.wal())
        .map_err(|error| crate::open::io(&layout, &layout.wal(), "create", error))?;
    manifest.write(&**disk, &layout)?;
    unfinished_copy::unmark(&**disk, &layout)?;
    log::info!("{}: a copy at version {version}", target.display());
    Ok(CopyInfo::of(&written, timestamp, started))
}

fn write_and_read_back<R, M>(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    database: [u8; 16],
    options: SnapshotOptions,
    rows: R,
    rest: M,
    watch: Watch<'_>,
) -> Result<SnapshotInfo>
where
    R: Iterator<Item = Result<Record>>,
    M: FnOnce() -> Result<(SnapshotMeta, Vec<u8>)>,
{
    let written = write_snapshot(disk.clone(), layout, 1, database, options, rows, rest)?;
    let snapshot = Snapshot::open(&**disk, layout, 1, database)?;
    watch.over(|listener| snapshot.verify_with(listener))?;
    Ok(written)
}

impl Database {
    /// Copies everything that is visible now, and durable, into a database of its own in the
    /// directory `target`, which must be missing or empty. Reading and writing go on. When this
    /// returns the copy was read back from the device; before, there is no database in `target`.
    ///
    /// The copy has the same id, versions, history and times. It shares no file with the
    /// original, so nothing that happens to the one changes the other.
    ///
    /// # Errors
    ///
    /// Kind `Invalid` if `target` holds anything; `Corruption` if something of the database
    /// cannot be read; `Io`. `Stopped` as [`Database::with_progress`] says: then `target` holds
    /// nothing that counts, and can be copied into again.
    pub fn backup(&self, target: impl AsRef<Path>) -> Result<CopyInfo> {
        self.check_open()?;
        self.copy_to(target.as_ref(), self.view()?)
    }

    /// As [`Database::backup`], of what was visible at `version`: the way back to a point in
    /// time. History up to there comes along, as far as it is kept.
    ///
    /// # Errors
    ///
    /// Kind `HistoryTrimmed` if anything of that version is not readable any more; `NotFound`
    /// if the database has not come that far.
    pub fn backup_at(&self, target: impl AsRef<Path>, version: Version) -> Result<CopyInfo> {
        self.check_open()?;
        let floors = self.upkeep().store.floors();
        if let Some(oldest) = floors.iter().map(|floor| floor.1.version).max()
            && version < oldest
            && version < self.current_version()
        {
            return Err(Error::HistoryTrimmed { asked: version, oldest });
        }
        self.copy_to(target.as_ref(), self.view_at(version)?)
    }

    fn copy_to(&self, target: &Path, view: View) -> Result<CopyInfo> {
        let (upkeep, watch) = (self.upkeep(), self.watch());
        let files = upkeep.files()?;
        let version = view.version();
        upkeep.make_durable()?;
        let manifest = upkeep.manifest()?;
        // All of them: no log comes along that could define what is not in here.
        let namespaces = upkeep.dictionary(upkeep.namespaces.ids());
        let timestamp = upkeep.time_of(version)?;
        let meter = RefCell::new(upkeep.writing(watch));
        let rest = || {
            meter.borrow_mut().end()?;
            let meta = SnapshotMeta {
                version,
                timestamp,
                created: self.now(),
                namespaces,
                floors: upkeep.store.floors(),
                forks: upkeep.store.forks(version),
            };
            Ok((meta, upkeep.times.encode_upto(version)?))
        };
        let newest = version == self.current_version();
        let next_version = if newest { upkeep.next_version()? } else { version.next() };
        let source = Source {
            manifest,
            rows: metered(&meter, view.inner.range_versions(..)),
            upto: (version, timestamp),
            rest,
            next_version,
        };
        write_copy(&files.disk, target, files.compression, source, watch)
    }
}

/// Makes a database in the directory `target`, which must be missing or empty, of the backup in
/// the directory `backup`, as it was at `version`, or all of it. The backup is only read.
///
/// # Errors
///
/// As [`Database::open_read_only`] and [`Database::backup_at`].
pub fn restore(
    backup: impl AsRef<Path>,
    target: impl AsRef<Path>,
    version: Option<Version>,
) -> Result<CopyInfo> {
    restore_with(Database::builder(backup), target.as_ref(), version)
}

/// As [`restore`], with everything that can be chosen about opening the backup.
pub fn restore_with(
    backup: DatabaseBuilder,
    target: impl AsRef<Path>,
    version: Option<Version>,
) -> Result<CopyInfo> {
    let backup = backup.open_read_only()?;
    match version {
        Some(version) => backup.backup_at(target, version),
        None => backup.backup(target),
    }
}
