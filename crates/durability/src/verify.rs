//! Reading every byte that a database needs, and checking what its files say of each other.

use std::ops::ControlFlow;

use steadfast_core::{Namespace, NamespaceId, Record, ReplayTarget, Version};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::manifest::{LiveSnapshot, Manifest};
use crate::progress::{Listener, Progress, Stage, tell};
use crate::replay::Base;
use crate::snapshot::Snapshot;
use crate::wal::chain::{Beside, Wal};

/// A file, or a part of one, that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The file, relative to the database.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
    /// The lowest and the highest version that may be affected.
    pub versions: (Version, Version),
}

/// Takes nothing: what counts is that it could be read.
struct Nowhere;

impl ReplayTarget for Nowhere {
    fn apply(&self, _run: Vec<Record>) {}

    fn define_namespace(&self, _id: NamespaceId, _namespace: &Namespace) {}

    fn finish(&self, _version: Version) {}
}

/// Reads back every live snapshot, and the log that goes with the oldest of them. The log that
/// goes with the newest is recovery's to judge: here it is only read as far as it is needed to
/// come to the newest snapshot from an older one.
///
/// `listener` is told of the bytes of all these files together, as one [`Stage::ReadBack`].
///
/// # Errors
///
/// What the operating system said, where a file could not be read at all; [`Error::Stopped`].
pub fn verify_files(
    disk: &dyn Disk,
    layout: &Layout,
    manifest: &Manifest,
    listener: Listener<'_>,
) -> Result<Vec<Damaged>> {
    let mut damaged = Vec::new();
    let mut reading = Reading { done: 0, at: 0, total: 0, listener };
    let open = |live: &LiveSnapshot| {
        let opened = Snapshot::open(disk, layout, live.number, manifest.database);
        (live.version, live.checksum, live.number, opened)
    };
    let opened: Vec<_> = manifest.snapshots.iter().map(open).collect();
    let log = match manifest.snapshots.as_slice() {
        [older, .., newest] => {
            Some((Wal::open_from(disk, layout, manifest, older.first_segment)?, *older, *newest))
        }
        _ => None,
    };
    let sizes = opened.iter().filter_map(|(.., opened)| Some(opened.as_ref().ok()?.info()));
    reading.total = sizes.map(|info| info.file_bytes).sum();
    reading.total += log.as_ref().map_or(0, |(wal, ..)| wal.segments.iter().map(|s| s.bytes).sum());
    for (version, checksum, number, opened) in opened {
        let checked = opened.and_then(|snapshot| {
            let info = snapshot.info();
            snapshot.verify_with(&mut |at| reading.come_to(at.bytes))?;
            Ok(info)
        });
        let versions = (Version(1), version);
        match checked {
            Ok(info) if info.checksum == checksum && info.version == version => {}
            Ok(_) => damaged.push(Damaged {
                file: Layout::snapshot_label(number),
                offset: 0,
                what: "not the snapshot that the MANIFEST names".into(),
                versions,
            }),
            Err(Error::Corrupt { file, offset, kind }) => {
                damaged.push(Damaged { file, offset, what: kind.to_string(), versions });
            }
            Err(Error::Table(error)) if error.is_corruption() => damaged.push(Damaged {
                file: error.file.to_string(),
                offset: error.offset,
                what: error.reason.to_string(),
                versions,
            }),
            Err(error) => return Err(error),
        }
        reading.next_file();
    }
    if let Some((wal, older, newest)) = log {
        let base = Base { version: older.version, ..Base::default() };
        let mut listen = |at: Progress| reading.come_to(at.bytes);
        let scan = wal.scan(&Nowhere, &base, None, Beside::AWriter, &mut listen)?;
        let reached = scan.replayed.stats.final_version;
        // From where opening has judged it on; everything before has to be whole.
        let judged_from = wal.segments.iter().find(|s| s.header.number == newest.first_segment);
        let whole = newest.first_segment == 0
            || judged_from.is_some_and(|s| scan.end.position >= s.header.first_position);
        if !whole || reached < newest.version {
            let damage = scan.damage.or(wal.broken);
            let (file, offset, what) = damage.map_or_else(
                || ("WAL".into(), 0, "the log ends".to_owned()),
                |damage| (damage.file, damage.offset, damage.kind.to_string()),
            );
            let versions = (reached.next().min(newest.version), newest.version);
            damaged.push(Damaged { file, offset, what, versions });
        }
    }
    let all = reading.total;
    tell(reading.listener, Progress::new(Stage::ReadBack, all, all))?;
    Ok(damaged)
}

/// How far several files were read, one after the other.
struct Reading<'a> {
    /// Of the files before this one.
    done: u64,
    /// Of this one too.
    at: u64,
    total: u64,
    listener: Listener<'a>,
}

impl Reading<'_> {
    fn come_to(&mut self, bytes: u64) -> ControlFlow<()> {
        self.at = (self.done + bytes).min(self.total);
        (self.listener)(Progress::new(Stage::ReadBack, self.at, self.total))
    }

    /// What of a damaged file was not read comes with the end of all.
    const fn next_file(&mut self) {
        self.done = self.at;
    }
}
