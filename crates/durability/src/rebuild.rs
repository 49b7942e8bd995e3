//! Rebuilding a piece of a damaged snapshot from an older one and the log behind that.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

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
        for record in records.into_iter().filter(|record| self.wants(record)) {
            rows.insert((record.key().to_vec(), Reverse(record.version())), record);
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

/// The times of the commits up to `version`, as the snapshot `older` and the log behind it have
/// them.
///
/// # Errors
///
/// As [`rebuild`].
pub fn rebuild_commit_times(
    disk: &dyn Disk,
    layout: &Layout,
    manifest: &Manifest,
    older: &LiveSnapshot,
    version: Version,
) -> Result<CommitTimes> {
    let snapshot = Snapshot::open(disk, layout, older.number, manifest.database)?;
    let times = snapshot.commit_times()?;
    let commits = Mutex::new(BTreeMap::new());
    let collector = TimesOf { upto: version, commits: &commits };
    replay_behind(disk, layout, manifest, older, &snapshot, version, &collector)?;
    let commits = commits.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(CommitTimes { encoded: times, behind: commits.into_iter().collect() })
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

/// Replays the log behind `older` into `target`, which must come to `version`.
fn replay_behind(
    disk: &dyn Disk,
    layout: &Layout,
    manifest: &Manifest,
    older: &LiveSnapshot,
    snapshot: &Snapshot,
    version: Version,
    target: &dyn ReplayTarget,
) -> Result<()> {
    let base = Base {
        version: older.version,
        namespaces: snapshot.meta().namespaces.clone(),
        ..Base::default()
    };
    let wal = Wal::open_from(disk, layout, manifest, older.first_segment)?;
    let scan = wal.scan(target, &base, None, Beside::AWriter, &mut |_| {})?;
    if scan.replayed.stats.final_version < version {
        let (file, offset) = scan.damage.map_or(("WAL".into(), 0), |d| (d.file, d.offset));
        return Err(Error::Corrupt { file, offset, kind: CorruptionKind::Ends });
    }
    Ok(())
}

/// Every version up to `version` of the keys from `low` up to, but without, `high`, as the
/// snapshot `older` and the log behind it have them, in the order of a snapshot's rows. There
/// may be more of them than retention would have kept.
///
/// # Errors
///
/// If the older snapshot is damaged in that range, or the log does not reach `version`.
pub fn rebuild(
    disk: &dyn Disk,
    layout: &Layout,
    manifest: &Manifest,
    older: &LiveSnapshot,
    version: Version,
    low: &[u8],
    high: Option<&[u8]>,
) -> Result<Vec<Record>> {
    let snapshot = Snapshot::open(disk, layout, older.number, manifest.database)?;
    let collector = Collector { low, high, upto: version, rows: Mutex::default() };
    let mut place = low.to_vec();
    loop {
        let slice = snapshot.slice(Place::At(&place))?;
        collector.keep(slice.rows);
        match slice.high {
            Some(next) if high.is_none_or(|high| next.as_slice() < high) => place = next,
            _ => break,
        }
    }
    replay_behind(disk, layout, manifest, older, &snapshot, version, &collector)?;
    let rows = collector.rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(rows.into_values().collect())
}
