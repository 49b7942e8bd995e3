//! Rebuilding pieces of a damaged snapshot from an older one and the log behind that, or from
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
use crate::progress::unheard;
use crate::replay::Base;
use crate::snapshot::Snapshot;
use crate::wal::chain::{Beside, Wal};

/// Rows by key, and of one key the newest version first.
type Rows = BTreeMap<(Vec<u8>, Reverse<Version>), Record>;

/// The keys from `low` up to, but without, `high`; all from there if that is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRange<'a> {
    /// The first key.
    pub low: &'a [u8],
    /// The first key behind it.
    pub high: Option<&'a [u8]>,
}

/// Keeps what lies in some ranges of keys and is not newer than a version.
struct Collector<'a> {
    /// In order, and apart.
    ranges: &'a [KeyRange<'a>],
    upto: Version,
    /// Of each range.
    rows: Mutex<Vec<Rows>>,
}

impl Collector<'_> {
    /// Which range a record lies in, if it is wanted.
    fn range_of(&self, record: &Record) -> Option<usize> {
        let key = record.key();
        let at = self.ranges.partition_point(|range| range.low <= key).checked_sub(1)?;
        let inside = self.ranges[at].high.is_none_or(|high| key < high);
        (inside && record.version() <= self.upto).then_some(at)
    }

    fn keep(&self, records: impl IntoIterator<Item = Record>) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        for mut record in records {
            let Some(at) = self.range_of(&record) else { continue };
            let rows = &mut rows[at];
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

    /// Takes what the older snapshot has in `range`.
    fn collect(&self, range: KeyRange<'_>, collector: &Collector<'_>) -> Result<()> {
        let Some((_, snapshot)) = &self.older else { return Ok(()) };
        let mut place = Some(range.low.to_vec());
        while let Some(at) = place.take() {
            let slice = snapshot.slice(Place::At(&at))?;
            collector.keep(slice.rows);
            place = slice.high.filter(|next| range.high.is_none_or(|high| next.as_slice() < high));
        }
        Ok(())
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
        let scan = wal.scan(target, &base, None, Beside::AWriter, &mut unheard)?;
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

/// Every version up to `version` of the keys in each of `ranges`, which are in order and apart and
/// which the snapshot `damaged` should have, as an older snapshot and the log behind it have them,
/// or the log alone; in the order of a snapshot's rows. There may be more of them than retention
/// would have kept. The log is read once.
///
/// A range has an error of its own where the older snapshot is damaged too.
///
/// # Errors
///
/// If there is nothing to rebuild from, or the log does not reach `version`.
pub fn rebuild(
    disk: &dyn Disk,
    layout: &Layout,
    manifest: &Manifest,
    damaged: u64,
    version: Version,
    ranges: &[KeyRange<'_>],
) -> Result<Vec<Result<Vec<Record>>>> {
    let origin = Origin::of(disk, layout, manifest, damaged)?;
    let rows = Mutex::new(vec![Rows::default(); ranges.len()]);
    let collector = Collector { ranges, upto: version, rows };
    let collected: Vec<Result<()>> =
        ranges.iter().map(|range| origin.collect(*range, &collector)).collect();
    origin.replay(version, &collector)?;
    let rows = collector.rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    let of_range =
        |(rows, collected): (Rows, Result<()>)| collected.map(|()| rows.into_values().collect());
    Ok(rows.into_iter().zip(collected).map(of_range).collect())
}
