//! Reading every byte that a database needs, and checking what its files say of each other.

use steadfast_core::{Namespace, NamespaceId, Record, ReplayTarget, Version};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::manifest::Manifest;
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
/// # Errors
///
/// What the operating system said, where a file could not be read at all.
pub fn verify_files(disk: &dyn Disk, layout: &Layout, manifest: &Manifest) -> Result<Vec<Damaged>> {
    let mut damaged = Vec::new();
    for live in &manifest.snapshots {
        let checked = Snapshot::open(disk, layout, live.number, manifest.database)
            .and_then(|snapshot| Ok((snapshot.info(), snapshot.verify()?)));
        let versions = (Version(1), live.version);
        match checked {
            Ok((info, _)) if info.checksum == live.checksum && info.version == live.version => {}
            Ok(_) => damaged.push(Damaged {
                file: Layout::snapshot_label(live.number),
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
    }
    if let [older, .., newest] = manifest.snapshots.as_slice() {
        let wal = Wal::open_from(disk, layout, manifest, older.first_segment)?;
        let base = Base { version: older.version, ..Base::default() };
        let scan = wal.scan(&Nowhere, &base, None, Beside::AWriter, &mut |_| {})?;
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
    Ok(damaged)
}
