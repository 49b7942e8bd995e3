//! Rebuilding a piece of a damaged snapshot from an older one and the log behind that, or from
//! the log alone where it still has everything.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use steadfast_core::signal::fold;
use steadfast_core::{
    Namespace, NamespaceId, Place, Record, ReplayTarget, SortedTable, Timestamp, Version,
};

use crate::disk::Disk;
use crate::error::{CorruptionKind, Error, Result};
use crate::layout::Layout;
use crate::manifest::{LiveSnapshot, Manifest};
use crate::replay::Base;
use crate::snapshot::Snapshot;
use crate::wal::chain::{Beside, Wal};

/// Rows by key, and of one key the newest version first.
type Rows = BTreeMap<(Vec<u8>, Reverse<Version>), Record>;

/// Keeps what lies in a range of keys and is not newer than a version.
struct Collector<'a> {
    low: &'a [u8],
    high: Option<&'a [u8]>,
    upto: Version,
    rows: Mutex<Rows>,
}

impl Collector<'_> {
    fn wants(&self, record: &Record) -> bool {
        let key = record.key();
        record.version() <= self.upto && key >= self.low && self.high.is_none_or(|high| key < high)
    }

    fn keep(&self, records: impl IntoIterator<Item = Record>) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        for mut record in records.into_iter().filter(|record| self.wants(record)) {
            let place = (record.key().to_vec(), Reverse(record.version()));
            if record.is_delta() {
                let below = rows.range(&place..).next().map(|(_, below)| below);
                let base = below.filter(|below| below.key() == record.key());
                let Some(folded) = fold(base, &record) else { continue };
                record = folded;
            }
            rows.insert(place, record);
        }
    }
}

impl ReplayTarget for Collector<'_> {
    fn apply(&self, run: Vec<Record>) {
        self.keep(run);
    }

    fn define_namespace(&self, _id: NamespaceId, _namespace: &Namespace) {}

    fn finish(&self, _version: Version) {}
}

/// When commits were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitTimes {
    /// Those that a snapshot has, as they were given to it.
    pub encoded: Vec<u8>,
    /// Those of the log behind it, by version.
    pub behind: Vec<(Version, Timestamp)>,
}

/// What a damaged snapshot can be rebuilt from.
struct Origin<'a> {
    disk: &'a dyn Disk,
    layout: &'a Layout,
    manifest: &'a Manifest,
    /// `None` where the log has everything.
    older: Option<(LiveSnapshot, Snapshot)>,
}

impl<'a> Origin<'a> {
    fn of(
        disk: &'a dyn Disk,
        layout: &'a Layout,
        manifest: &'a Manifest,
        damaged: u64,
    ) -> Result<Self> {
        let older = manifest.snapshots.iter().rev().find(|older| older.number < damaged);
        let older = match older {
            Some(older) => {
                Some((*older, Snapshot::open(disk, layout, older.number, manifest.database)?))
            }
            None if Wal::has_everything(disk, layout, manifest)? => None,
            None => {
                let (file, kind) = (Layout::snapshot_label(damaged), CorruptionKind::BadSnapshot);
                return Err(Error::Corrupt { file, offset: 0, kind });
            }
        };
        Ok(Self { disk, layout, manifest, older })
    }

    /// Replays the log behind it into `target`, which must come to `version`.
    fn replay(&self, version: Version, target: &dyn ReplayTarget) -> Result<()> {
        let Self { disk, layout, manifest, older } = self;
        let (base, first_segment) = match older {
            None => (Base::default(), manifest.oldest_segment),
            Some((live, snapshot)) => {
                let namespaces = snapshot.meta().namespaces.clone();
                let base = Base { version: live.version, namespaces, ..Base::default() };
                (base, live.first_segment)
            }
        };
        let wal = Wal::open_from(*disk, layout, manifest, first_segment)?;
        let scan = wal.scan(target, &base, None, Beside::AWriter, &mut |_| {})?;
        if scan.replayed.stats.final_version < version {
            let (file, offset) = scan.damage.map_or(("WAL".into(), 0), |d| (d.file, d.offset));
            return Err(Error::Corrupt { file, offset, kind: CorruptionKind::Ends });
        }
        Ok(())
    }
}

/// The times of the commits up to `version`, which the snapshot `damaged` should have, as an
/// older snapshot and the log behind it have them, or the log alone.
///
/// # Errors
///
/// As [`rebuild`].
pub fn rebuild_commit_times(
    disk: &dyn Disk,
    layout: &Layout,
    manifest: &Manifest,
    damaged: u64,
    version: Version,
) -> Result<CommitTimes> {
    let origin = Origin::of(disk, layout, manifest, damaged)?;
    let encoded = match &origin.older {
        Some((_, snapshot)) => snapshot.commit_times()?,
        None => Vec::new(),
    };
    let commits = Mutex::new(BTreeMap::new());
    origin.replay(version, &TimesOf { upto: version, commits: &commits })?;
    let commits = commits.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(CommitTimes { encoded, behind: commits.into_iter().collect() })
}

/// Keeps when commits were made.
struct TimesOf<'a> {
    upto: Version,
    commits: &'a Mutex<BTreeMap<Version, Timestamp>>,
}

impl ReplayTarget for TimesOf<'_> {
    fn apply(&self, run: Vec<Record>) {
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = run.iter().filter(|record| record.version() <= self.upto);
        commits.extend(wanted.map(|record| (record.version(), record.timestamp())));
    }

    fn define_namespace(&self, _id: NamespaceId, _namespace: &Namespace) {}

    fn finish(&self, _version: Version) {}
}

/// Every version up to `version` of the keys from `low` up to, but without, `high`, which the
/// snapshot `damaged` should have, as an older snapshot and the log behind it have them, or the
/// log alone; in the order of a snapshot's rows. There may be more of them than retention would
/// have kept.
///
/// # Errors
///
/// If there is nothing to rebuild from, the older snapshot is damaged in that range too, or the
/// log does not reach `version`.
pub fn rebuild(
    disk: &dyn Disk,
    layout: &Layout,
    manifest: &Manifest,
    damaged: u64,
    version: Version,
    low: &[u8],
    high: Option<&[u8]>,
) -> Result<Vec<Record>> {
    let origin = Origin::of(disk, layout, manifest, damaged)?;
    let collector = Collector { low, high, upto: version, rows: Mutex::default() };
    let mut place = origin.older.is_some().then(|| low.to_vec());
    while let (Some(at), Some((_, snapshot))) = (place.take(), &origin.older) {
        let slice = snapshot.slice(Place::At(&at))?;
        collector.keep(slice.rows);
        place = slice.high.filter(|next| high.is_none_or(|high| next.as_slice() < high));
    }
    origin.replay(version, &collector)?;
    let rows = collector.rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(rows.into_values().collect())
}
