//! The classes of recovery bugs that databases are known to have had, each reached by a
//! situation of its own: what the bug needs is built, and what must hold then is asserted.
//!
//! [`BugClass`] is the list. A class without a test does not compile; `every_class_has_its_test`
//! says that no two share one.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use steadfast::{
    CompactMode, Database, DatabaseConfig, DurabilityMode, ErrorKind, LogClass, ManualClock,
    Retention, Timestamp, Version,
};
use steadfast_testing::model::{Op, ReferenceModel, content_now};
use steadfast_testing::sim::{
    Choice, EIO, ENOSPC, FailedSync, Fault, Moment, Plan, SimDisk, StepKind, Unsynced,
    UnsyncedChange,
};
use steadfast_testing::workload::{SEGMENT_BYTES, builder};

/// A class of bugs that some database had, and that this one must not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum BugClass {
    StaleRecordsInARecycledLog,
    HoleBetweenSegments,
    MiddleSegmentSkipped,
    SyncErrorSwallowed,
    FailedSyncBytesVisible,
    RecoveredPagesNeverSynced,
    DirectoryNotSynced,
    ReferenceBeforeReferent,
    ManifestNotSynced,
    HeaderBeforeFileGrowth,
    CheckpointBeforeLogSync,
    FirstCommitAfterResetUnsynced,
    AppendAfterTornTail,
    ShortWriteThenAppend,
    ChainFromLastWritten,
    TornNewHeader,
    ZeroTail,
    HeaderOutsideChecksum,
    VersionReuse,
    CrashAfterRecovery,
    TornSlotLaundered,
    DoubleReplay,
    PartialTransactionKept,
    DeletedDataReturns,
    StaleLogBesideNewDatabase,
    AcknowledgedBeforeDurable,
    ClockBackwards,
    DiscardedVersionReused,
}

impl BugClass {
    const ALL: [Self; 28] = [
        Self::StaleRecordsInARecycledLog,
        Self::HoleBetweenSegments,
        Self::MiddleSegmentSkipped,
        Self::SyncErrorSwallowed,
        Self::FailedSyncBytesVisible,
        Self::RecoveredPagesNeverSynced,
        Self::DirectoryNotSynced,
        Self::ReferenceBeforeReferent,
        Self::ManifestNotSynced,
        Self::HeaderBeforeFileGrowth,
        Self::CheckpointBeforeLogSync,
        Self::FirstCommitAfterResetUnsynced,
        Self::AppendAfterTornTail,
        Self::ShortWriteThenAppend,
        Self::ChainFromLastWritten,
        Self::TornNewHeader,
        Self::ZeroTail,
        Self::HeaderOutsideChecksum,
        Self::VersionReuse,
        Self::CrashAfterRecovery,
        Self::TornSlotLaundered,
        Self::DoubleReplay,
        Self::PartialTransactionKept,
        Self::DeletedDataReturns,
        Self::StaleLogBesideNewDatabase,
        Self::AcknowledgedBeforeDurable,
        Self::ClockBackwards,
        Self::DiscardedVersionReused,
    ];

    /// Its test, and the name of it.
    fn test(self) -> (&'static str, fn()) {
        macro_rules! named {
            ($test:ident) => {
                (stringify!($test), $test as fn())
            };
        }
        match self {
            Self::StaleRecordsInARecycledLog => named!(bytes_of_an_older_segment_are_no_records),
            Self::HoleBetweenSegments => named!(a_newer_segment_without_the_older_ones_tail),
            Self::MiddleSegmentSkipped => named!(a_middle_segment_that_cannot_be_opened_refuses),
            Self::SyncErrorSwallowed => named!(a_sync_that_failed_is_not_tried_again),
            Self::FailedSyncBytesVisible => named!(a_manifest_whose_sync_failed_and_two_crashes),
            Self::RecoveredPagesNeverSynced => named!(what_recovery_shows_is_durable),
            Self::DirectoryNotSynced => named!(removals_that_are_durable_before_names),
            Self::ReferenceBeforeReferent => named!(a_manifest_is_never_durable_before_its_files),
            Self::ManifestNotSynced => named!(a_manifest_of_zeros),
            Self::HeaderBeforeFileGrowth => named!(bytes_that_are_durable_before_lengths),
            Self::CheckpointBeforeLogSync => named!(a_snapshot_without_the_log_behind_it),
            Self::FirstCommitAfterResetUnsynced => named!(the_first_commit_after_a_compaction),
            Self::AppendAfterTornTail => named!(a_commit_behind_a_torn_tail),
            Self::ShortWriteThenAppend => named!(a_commit_behind_a_write_that_found_no_space),
            Self::ChainFromLastWritten => named!(a_commit_behind_a_stream_whose_write_failed),
            Self::TornNewHeader => named!(a_new_segment_that_is_empty_or_torn),
            Self::ZeroTail => named!(each_sector_of_the_last_group_is_zeros),
            Self::HeaderOutsideChecksum => named!(each_bit_of_the_headers_counts),
            Self::VersionReuse => named!(a_lost_version_is_not_given_again),
            Self::CrashAfterRecovery => named!(recovery_may_crash_at_each_step),
            Self::TornSlotLaundered => {
                named!(a_torn_manifest_of_a_recovery_is_never_taken_for_whole)
            }
            Self::DoubleReplay => named!(nothing_is_replayed_on_top_of_a_snapshot_twice),
            Self::PartialTransactionKept => named!(a_stream_without_its_commit_frame),
            Self::DeletedDataReturns => named!(what_was_deleted_stays_deleted),
            Self::StaleLogBesideNewDatabase => named!(the_log_of_another_database_is_not_replayed),
            Self::AcknowledgedBeforeDurable => named!(a_cut_right_after_each_acknowledgement),
            Self::ClockBackwards => named!(a_clock_that_goes_back_removes_nothing),
            Self::DiscardedVersionReused => named!(the_version_of_an_aborted_transaction),
        }
    }
}

#[test]
fn every_class_has_its_test() {
    let classes: BTreeSet<_> = BugClass::ALL.into_iter().collect();
    assert_eq!(classes.len(), BugClass::ALL.len(), "none is listed twice");
    assert_eq!(
        BugClass::ALL.len(),
        BugClass::DiscardedVersionReused as usize + 1,
        "all are listed"
    );
    let names: BTreeSet<_> = BugClass::ALL.iter().map(|class| class.test().0).collect();
    assert_eq!(names.len(), BugClass::ALL.len(), "no two classes share a test: {names:?}");
    // What libtest runs are these functions: their names are in this program's list of tests.
    let listed = std::process::Command::new(std::env::current_exe().unwrap())
        .arg("--list")
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for name in names {
        assert!(listed.contains(&format!("{name}: test")), "{name} is not run as a test");
    }
}

// ---- What the tests are built of ---------------------------------------------------------

const BUFFERED: DurabilityMode = DurabilityMode::Buffered;
const STRICT: DurabilityMode = DurabilityMode::Strict;

fn put(key: &str, bytes: usize) -> Vec<Op> {
    vec![Op::Put("r".into(), key.into(), vec![7u8; bytes].as_slice().into())]
}

fn append(n: i64) -> Vec<Op> {
    vec![Op::Append("r".into(), "s".into(), n.into())]
}

/// More than a frame of the smallest segments: parts, then a commit frame.
fn streamed(name: &str) -> Vec<Op> {
    (0..14).flat_map(|n| put(&format!("{name}{n}"), 2000)).collect()
}

fn config(mode: DurabilityMode) -> DatabaseConfig {
    DatabaseConfig::new(mode).segment_bytes(SEGMENT_BYTES).manual_checkpoints()
}

/// A database on a simulated disk, and what was committed to it.
struct Life {
    disk: SimDisk,
    db: Database,
    config: DatabaseConfig,
    /// What must be there after the first so many commits, and the version of the last.
    states: Vec<(Version, ReferenceModel)>,
}

impl Life {
    fn new(mode: DurabilityMode) -> Self {
        let disk = SimDisk::new();
        let db = builder(&disk, config(mode)).open().unwrap();
        let states = vec![(Version::ZERO, ReferenceModel::new())];
        Self { disk, db, config: config(mode), states }
    }

    fn try_commit(&mut self, ops: &[Op]) -> steadfast::Result<Version> {
        let done = self.db.transaction(|tx| ops.iter().try_for_each(|op| op.apply(tx)))?;
        let version = done.1.version();
        let mut model = self.states.last().unwrap().1.clone();
        model.apply(ops, version);
        self.states.push((version, model));
        Ok(version)
    }

    fn commit(&mut self, ops: &[Op]) -> Version {
        self.try_commit(ops).unwrap()
    }

    fn commits(&self) -> usize {
        self.states.len() - 1
    }

    /// Goes on with another disk that it left.
    fn reborn(&mut self, disk: SimDisk) {
        self.db = builder(&disk, self.config.clone()).open().unwrap();
        self.disk = disk;
    }

    /// The process ends and the database is opened again.
    fn killed(&mut self) {
        let disk = self.disk.killed();
        self.reborn(disk);
    }

    fn moments(&self, act: impl FnOnce(&Database)) -> Vec<Moment> {
        self.disk.record_moments();
        act(&self.db);
        self.disk.take_moments()
    }

    /// Opens an image: a prefix of the commits is there, at least `least`. How many?
    fn expect(&self, image: &SimDisk, least: usize, what: &str) -> usize {
        let db = match builder(&image.killed(), self.config.clone()).open_existing() {
            Ok(db) => db,
            Err(error) => panic!("{what}: refused: {error}"),
        };
        let version = db.current_version();
        let kept = self.states.partition_point(|(other, _)| *other <= version) - 1;
        assert_eq!(self.states[kept].0, version, "{what}: no commit had that version");
        let differences = self.states[kept].1.compare(&content_now(&db).unwrap());
        assert_eq!(differences, [], "{what}: not the state after {kept} commits");
        assert!(kept >= least, "{what}: {kept} commits, {least} were due");
        kept
    }

    fn expect_all(&self, image: &SimDisk, what: &str) {
        self.expect(image, self.commits(), what);
    }

    /// It refuses, and the error names `file`.
    fn expect_refusal(&self, image: &SimDisk, file: &str, what: &str) {
        match builder(&image.killed(), self.config.clone()).open_existing() {
            Ok(_) => panic!("{what}: it opened"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
                assert!(error.to_string().contains(file), "{what}: does not name {file}: {error}");
            }
        }
    }
}

/// The image that a power cut leaves if what `keeps` says is kept, and nothing else.
fn cut_keeping(moment: &Moment, keeps: impl Fn(&Unsynced) -> bool) -> SimDisk {
    cut_by(moment, |op| if keeps(op) { Choice::Keep } else { Choice::Drop })
}

fn cut_by(moment: &Moment, choose: impl Fn(&Unsynced) -> Choice) -> SimDisk {
    moment.cut(&Plan(moment.unsynced().iter().map(choose).collect()))
}

fn cut(disk: &SimDisk) -> SimDisk {
    cut_keeping(&disk.moment(), |_| false)
}

fn segments(disk: &SimDisk) -> Vec<String> {
    let mut paths = disk.paths();
    paths.retain(|path| path.starts_with("db/WAL/"));
    paths
}

/// Where the groups of a segment begin, and where they end.
const HEADER_BYTES: usize = 4096;

fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// A database whose log has at least `count` segments with groups in them.
fn with_segments(mode: DurabilityMode, count: usize) -> Life {
    let mut life = Life::new(mode);
    let with_groups = |disk: &SimDisk| {
        let paths = segments(disk).into_iter();
        paths.filter(|path| used(&disk.bytes(path).unwrap()) > HEADER_BYTES).count()
    };
    let mut n = 0;
    while with_groups(&life.disk) < count {
        life.commit(&put(&format!("k{n}"), 1500));
        n += 1;
    }
    life
}

// ---- The classes -------------------------------------------------------------------------

/// Segments are not recycled here. Were they, this is what would lie behind the new groups: a
/// whole group of an older life, also at the very place where the next one would be.
#[test]
fn bytes_of_an_older_segment_are_no_records() {
    let mut life = Life::new(BUFFERED);
    for n in 0..6 {
        life.commit(&put(&format!("old{n}"), 300));
    }
    let path = segments(&life.disk).remove(0);
    let old = life.disk.bytes(&path).unwrap();
    life.db.close().unwrap();
    let disk = life.disk.killed();
    life.reborn(disk);
    life.commit(&put("new", 300));
    let killed = life.disk.killed();
    let newest = segments(&killed)
        .into_iter()
        .find(|other| *other != path && used(&killed.bytes(other).unwrap()) > HEADER_BYTES);
    let newest = newest.expect("a writing opening begins a segment");
    let end = used(&killed.bytes(&newest).unwrap()).next_multiple_of(8);
    let groups = &old[HEADER_BYTES..used(&old)];
    for at in [end, HEADER_BYTES] {
        let image = killed.killed();
        image.tamper(&newest, |bytes| {
            let room = bytes.len() - at;
            let n = groups.len().min(room);
            // At the end, and once so that an old group stands where it stood in its own life.
            let from = if at == end { 0 } else { at.max(end) - HEADER_BYTES };
            let piece = &groups[from.min(groups.len())..n.max(from).min(groups.len())];
            let to = at.max(end);
            bytes[to..to + piece.len()].copy_from_slice(piece);
        });
        assert_ne!(image.bytes(&newest), killed.bytes(&newest), "something old is there");
        life.expect_all(&image, "old groups behind the new ones");
    }
    // The whole of the older segment under the next name: never a record of it.
    let image = killed.killed();
    let next = format!("db/WAL/wal-{:06}.seg", 9);
    image.tamper(&next, |bytes| *bytes = old.clone());
    if let Ok(db) = builder(&image, life.config.clone()).open_existing() {
        let last = &life.states.last().unwrap().1;
        assert_eq!(last.compare(&content_now(&db).unwrap()), []);
    }
}

/// The newer segment is durable, the tail of the older one is not. Power cannot do it, because
/// the older one is synced first; and where it happens all the same, it is refused.
#[test]
fn a_newer_segment_without_the_older_ones_tail() {
    let disk = SimDisk::new();
    disk.record_moments();
    let db = builder(&disk, config(BUFFERED)).open().unwrap();
    let mut life = Life { disk, db, config: config(BUFFERED), states: Life::new(BUFFERED).states };
    for n in 0..24 {
        life.commit(&put(&format!("k{n}"), 1500));
    }
    let mut tried = 0;
    for moment in life.disk.take_moments() {
        let unsynced = moment.unsynced();
        let is_log = |op: &&Unsynced| op.path.starts_with("db/WAL/");
        let Some(oldest) = unsynced.iter().filter(is_log).map(|op| op.path.clone()).min() else {
            continue;
        };
        if moment.kill().bytes("db/MANIFEST").is_some() {
            let image = cut_keeping(&moment, |op| op.path != oldest);
            life.expect(&image, 0, &format!("{moment:?}"));
            tried += usize::from(unsynced.iter().filter(is_log).any(|op| op.path != oldest));
        }
    }
    assert!(tried > 0, "two segments were unsynced at once");
    let killed = life.disk.killed();
    let first = segments(&killed).remove(0);
    killed.tamper(&first, |bytes| {
        let end = used(bytes);
        bytes[end - 1600..].fill(0);
    });
    life.expect_refusal(&killed, "wal-000001.seg", "the older one has lost its tail");
}

#[test]
fn a_middle_segment_that_cannot_be_opened_refuses() {
    let life = with_segments(BUFFERED, 3);
    let paths = segments(&life.disk);
    for path in &paths[..2] {
        let image = life.disk.killed();
        image.tamper(path, |bytes| bytes[20] ^= 1);
        let name = path.rsplit('/').next().unwrap();
        life.expect_refusal(&image, name, "its header is bad");
        let image = life.disk.killed();
        image.lose(path);
        life.expect_refusal(&image, name, "it is gone");
    }
}

#[test]
fn a_sync_that_failed_is_not_tried_again() {
    let mut life = Life::new(BUFFERED);
    life.commit(&put("a", 100));
    life.db.flush().unwrap();
    life.commit(&put("b", 100));
    for kind in [StepKind::SyncData, StepKind::SyncAll] {
        life.disk.inject(Fault::once(kind, 0, EIO).syncing(FailedSync::LostAtCut));
    }
    let error = life.db.flush().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Io | ErrorKind::Poisoned));
    // The pages count as clean now: a second sync would succeed, and prove nothing.
    life.disk.heal();
    assert_eq!(life.db.flush().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(life.try_commit(&put("c", 1)).unwrap_err().kind(), ErrorKind::Poisoned);
    let kept = life.expect(&cut(&life.disk), 1, "the power goes");
    assert_eq!(kept, 1, "the pages are gone");
}

#[test]
fn a_manifest_whose_sync_failed_and_two_crashes() {
    let mut life = Life::new(BUFFERED);
    for n in 0..5 {
        life.commit(&put(&format!("k{n}"), 200));
    }
    life.db.flush().unwrap();
    let syncs = {
        let twin = life.disk.killed();
        let db = builder(&twin, life.config.clone()).open().unwrap();
        let before = twin.count(StepKind::SyncAll);
        db.checkpoint().unwrap();
        twin.count(StepKind::SyncAll) - before
    };
    assert!(syncs >= 2, "of the snapshot and of the MANIFEST");
    for after in 0..syncs {
        for sync in [FailedSync::StayDirty, FailedSync::LostAtCut, FailedSync::DurableAnyway] {
            let disk = cut(&life.disk);
            let db = builder(&disk, life.config.clone()).open().unwrap();
            disk.inject(Fault::once(StepKind::SyncAll, after, EIO).syncing(sync));
            assert!(db.checkpoint().is_err(), "sync {after} failed");
            let killed = disk.killed();
            life.expect_all(&killed, "killed");
            let again = builder(&killed, life.config.clone()).open().unwrap();
            drop(again);
            life.expect_all(&cut(&killed), "killed, opened, cut");
        }
    }
}

#[test]
fn what_recovery_shows_is_durable() {
    let mut life = Life::new(BUFFERED);
    for n in 0..4 {
        life.commit(&put(&format!("k{n}"), 300));
    }
    life.db.flush().unwrap();
    for n in 4..9 {
        life.commit(&put(&format!("k{n}"), 300));
    }
    assert!(life.expect(&cut(&life.disk), 4, "without a kill") < 9, "the rest was not durable");
    // The process dies; the pages are in the kernel; recovery shows them.
    let killed = life.disk.killed();
    life.reborn(killed);
    assert_eq!(content_now(&life.db).unwrap().len(), 10);
    life.expect_all(&cut(&life.disk), "shown by recovery, then the power goes");
}

#[test]
fn removals_that_are_durable_before_names() {
    let mut life = with_segments(BUFFERED, 3);
    life.db.checkpoint().unwrap();
    life.commit(&put("between", 10));
    life.db.flush().unwrap();
    let moments = life.moments(|db| {
        db.checkpoint().unwrap();
        db.compact(CompactMode::Full).unwrap();
    });
    let (mut tried, mut removed) = (0, 0);
    for moment in &moments {
        let is_removal = |op: &Unsynced| matches!(op.change, UnsyncedChange::Unlink(_));
        removed += moment.unsynced().iter().filter(|op| is_removal(op)).count();
        life.expect_all(&cut_keeping(moment, is_removal), &format!("{moment:?}"));
        tried += 1;
    }
    assert!(tried > 10 && removed > 0, "{tried} moments, {removed} removals");
}

#[test]
fn a_manifest_is_never_durable_before_its_files() {
    let mut life = with_segments(BUFFERED, 2);
    let moments = life.moments(|db| {
        db.checkpoint().unwrap();
    });
    let mut renames = 0;
    for moment in &moments {
        let is_name = |op: &Unsynced| {
            !matches!(op.change, UnsyncedChange::Write { .. } | UnsyncedChange::Len(_))
        };
        let names = moment.unsynced();
        renames +=
            names.iter().filter(|op| matches!(op.change, UnsyncedChange::Rename { .. })).count();
        // Every name is durable, and no byte that was not synced.
        let image = cut_keeping(moment, is_name);
        life.expect(&image, 0, &format!("{moment:?}"));
    }
    assert!(renames > 0);
    // And if it happened all the same: the older state stands in, or it is refused by name.
    life.commit(&put("later", 10));
    life.db.close().unwrap();
    let image = life.disk.killed();
    let snapshot = image.paths().into_iter().rfind(|path| path.contains("SNAPSHOTS")).unwrap();
    image.tamper(&snapshot, Vec::clear);
    life.expect_all(&image, "the snapshot is empty, its log is there");
}

#[test]
fn a_manifest_of_zeros() {
    let mut life = Life::new(STRICT);
    life.commit(&put("a", 10));
    let moments = life.moments(|db| {
        db.checkpoint().unwrap();
    });
    for moment in &moments {
        // The name of the new MANIFEST and its length, and not one byte of it.
        let image = cut_keeping(moment, |op| !matches!(op.change, UnsyncedChange::Write { .. }));
        life.expect_all(&image, &format!("{moment:?}"));
    }
    life.db.close().unwrap();
    let image = life.disk.killed();
    image.tamper("db/MANIFEST", |bytes| bytes.fill(0));
    life.expect_refusal(&image, "MANIFEST", "zeros");
    image.tamper("db/MANIFEST", Vec::clear);
    life.expect_refusal(&image, "MANIFEST", "nothing");
}

#[test]
fn bytes_that_are_durable_before_lengths() {
    for mode in [STRICT, BUFFERED] {
        let disk = SimDisk::new();
        let db = builder(&disk, config(mode)).open().unwrap();
        let mut life = Life { disk, db, config: config(mode), states: Life::new(mode).states };
        life.disk.record_moments();
        let mut acknowledged = Vec::new();
        for n in 0..16 {
            life.commit(&put(&format!("k{n}"), 1500));
            life.disk.note(n + 1);
            acknowledged.push(n + 1);
        }
        let mut lens = 0;
        for moment in life.disk.take_moments() {
            let is_len = |op: &Unsynced| matches!(op.change, UnsyncedChange::Len(_));
            lens += moment.unsynced().iter().filter(|op| is_len(op)).count();
            let least = if mode == STRICT { usize::try_from(moment.note()).unwrap() } else { 0 };
            life.expect(&cut_keeping(&moment, |op| !is_len(op)), least, &format!("{moment:?}"));
        }
        assert!(lens > 0, "files grew");
    }
}

#[test]
fn a_snapshot_without_the_log_behind_it() {
    let mut life = Life::new(BUFFERED);
    for n in 0..6 {
        life.commit(&put(&format!("k{n}"), 200));
    }
    assert_eq!(life.expect(&cut(&life.disk), 0, "before"), 0, "nothing of the log is durable");
    let moments = life.moments(|db| {
        db.checkpoint().unwrap();
    });
    for moment in &moments {
        // Everything of the snapshot and of the MANIFEST, nothing of the log.
        let image = cut_keeping(moment, |op| !op.path.starts_with("db/WAL/"));
        life.expect(&image, 0, &format!("{moment:?}"));
    }
    life.expect_all(&cut(&life.disk), "after the checkpoint");
}

#[test]
fn the_first_commit_after_a_compaction() {
    let mut life = with_segments(STRICT, 2);
    for mode in [CompactMode::WalOnly, CompactMode::Full] {
        life.db.checkpoint().unwrap();
        life.db.compact(mode).unwrap();
        life.commit(&put("first", 10));
        life.expect_all(&cut(&life.disk), "the first commit after it");
    }
}

#[test]
fn a_commit_behind_a_torn_tail() {
    let mut life = Life::new(BUFFERED);
    life.commit(&put("a", 100));
    life.db.flush().unwrap();
    life.commit(&put("torn", 2500));
    let moment = life.disk.moment();
    life.states.pop();
    for sectors in 0..6 {
        for choice in [Choice::First(sectors), Choice::Without(sectors), Choice::Garbage(sectors)] {
            let image = cut_by(&moment, |op| match op.change {
                UnsyncedChange::Write { sectors: all, .. } if all > sectors => choice,
                _ => Choice::Keep,
            });
            let what = format!("{choice}");
            let Ok(kept) = builder(&image.killed(), life.config.clone()).open_existing() else {
                panic!("{what}: refused");
            };
            if kept.current_version() > life.states.last().unwrap().0 {
                continue; // That sector is of zeros behind it: nothing was torn.
            }
            drop(kept);
            life.reborn(image);
            life.commit(&put("behind", 10));
            life.db.flush().unwrap();
            for round in 0..3 {
                life.killed();
                life.expect_all(&cut(&life.disk), &format!("{what}, opening {round}"));
            }
            life.states.pop();
        }
    }
}

#[test]
fn a_commit_behind_a_write_that_found_no_space() {
    for landed in [0, 1, 100, 700, usize::MAX] {
        let mut life = Life::new(BUFFERED);
        life.commit(&put("a", 100));
        life.disk.inject(Fault::once(StepKind::Write, 0, ENOSPC).landing(landed));
        let error = life.try_commit(&put("no space", 900)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        life.disk.heal();
        life.commit(&put("behind", 100));
        life.expect_all(&life.disk.killed(), &format!("{landed} bytes landed, killed"));
        life.db.flush().unwrap();
        life.expect_all(&cut(&life.disk), &format!("{landed} bytes landed, cut"));
    }
}

#[test]
fn a_commit_behind_a_stream_whose_write_failed() {
    let mut failed = 0;
    for after in 0..12 {
        for landed in [0, 1000, usize::MAX] {
            let mut life = Life::new(BUFFERED);
            life.commit(&put("a", 100));
            life.disk.inject(Fault::once(StepKind::Write, after, EIO).landing(landed));
            failed += usize::from(life.try_commit(&streamed("large")).is_err());
            life.disk.heal();
            life.commit(&put("behind", 100));
            life.expect_all(&life.disk.killed(), &format!("write {after}, {landed} landed"));
            life.db.flush().unwrap();
            life.expect_all(&cut(&life.disk), &format!("write {after}, {landed} landed, cut"));
        }
    }
    assert!(failed > 6, "{failed}");
}

#[test]
fn a_new_segment_that_is_empty_or_torn() {
    let disk = SimDisk::new();
    let db = builder(&disk, config(STRICT)).open().unwrap();
    let mut life = Life { disk, db, config: config(STRICT), states: Life::new(STRICT).states };
    life.disk.record_moments();
    for n in 0..14 {
        life.commit(&put(&format!("k{n}"), 1500));
        life.disk.note(n + 1);
    }
    let mut torn = 0;
    for moment in life.disk.take_moments() {
        let Some(newest) = segments(&moment.kill()).pop() else { continue };
        let least = usize::try_from(moment.note()).unwrap();
        let of_header = |op: &Unsynced| {
            op.path == newest && matches!(op.change, UnsyncedChange::Write { offset: 0, .. })
        };
        if !moment.unsynced().iter().any(of_header) {
            continue;
        }
        for choice in [Choice::Drop, Choice::First(1), Choice::AllBut(1), Choice::Garbage(0)] {
            let image = cut_by(&moment, |op| if of_header(op) { choice } else { Choice::Keep });
            life.expect(&image, least, &format!("{moment:?}, header {choice}"));
            torn += 1;
        }
        // Its name, and nothing in it.
        let image = cut_keeping(&moment, |op| op.path != newest);
        life.expect(&image, least, &format!("{moment:?}, empty"));
    }
    assert!(torn >= 8, "{torn}");
}

#[test]
fn each_sector_of_the_last_group_is_zeros() {
    let mut life = Life::new(BUFFERED);
    life.commit(&put("a", 700));
    life.db.flush().unwrap();
    let path = segments(&life.disk).into_iter().next().unwrap();
    let from = used(&life.disk.bytes(&path).unwrap());
    life.commit(&put("last", 2200));
    let killed = life.disk.killed();
    let to = used(&killed.bytes(&path).unwrap());
    assert!(to - from > 2048, "the group has several sectors");
    for sector in from / 512..=(to - 1) / 512 {
        let image = killed.killed();
        image.tamper(&path, |bytes| {
            bytes[(sector * 512).max(from)..((sector + 1) * 512).min(to)].fill(0);
        });
        assert_eq!(life.expect(&image, 1, &format!("sector {sector}")), 1, "without the last");
    }
    // The same of a group that was promised is damage, and not the end.
    life.db.close().unwrap();
    let closed = life.disk.killed();
    for sector in HEADER_BYTES / 512..=(from - 1) / 512 {
        let image = closed.killed();
        image.tamper(&path, |bytes| bytes[sector * 512..((sector + 1) * 512).min(from)].fill(0));
        life.expect_refusal(&image, "wal-000001.seg", &format!("promised sector {sector}"));
    }
}

#[test]
fn each_bit_of_the_headers_counts() {
    let mut life = Life::new(BUFFERED);
    life.commit(&put("a", 100));
    life.commit(&put("b", 100));
    life.db.close().unwrap();
    let path = segments(&life.disk).into_iter().next().unwrap();
    // The header of the segment with its checksum, that of the first group, and its first frame.
    let of_segment = (0..92).chain(4092..4096);
    for byte in of_segment.chain(HEADER_BYTES..HEADER_BYTES + 40) {
        for bit in 0..8 {
            let image = life.disk.killed();
            image.tamper(&path, |bytes| bytes[byte] ^= 1 << bit);
            let opened = builder(&image, life.config.clone()).open_existing();
            let error = match opened {
                Ok(_) => panic!("byte {byte}, bit {bit}: it opened"),
                Err(error) => error,
            };
            assert!(
                matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Unsupported),
                "byte {byte}, bit {bit}: {error}"
            );
            assert!(error.to_string().contains("wal-000001.seg"), "byte {byte}: {error}");
        }
    }
}

#[test]
fn a_lost_version_is_not_given_again() {
    let mut life = Life::new(BUFFERED);
    life.commit(&put("a", 10));
    life.db.flush().unwrap();
    let mut newest = Version::ZERO;
    for n in 0..5 {
        newest = life.commit(&put(&format!("lost{n}"), 10));
    }
    for _ in 0..4 {
        life.states.truncate(2);
        let disk = cut(&life.disk);
        life.reborn(disk);
        assert_eq!(life.db.current_version(), life.states[1].0, "the rest was lost");
        let next = life.commit(&put("next", 10));
        assert!(next > newest, "{next} was given out before: {newest}");
        newest = next;
    }
}

#[test]
fn recovery_may_crash_at_each_step() {
    let mut life = with_segments(BUFFERED, 2);
    life.commit(&streamed("large"));
    let killed = life.disk.killed();
    let twin = killed.killed();
    twin.record_moments();
    let db = builder(&twin, life.config.clone()).open().unwrap();
    let moments = twin.take_moments();
    drop(db);
    assert!(moments.len() > 5, "recovery writes");
    let durable = life.expect(&cut(&killed), 0, "before recovery");
    let mut rng = fastrand::Rng::with_seed(1);
    for moment in &moments {
        life.expect_all(&moment.kill(), &format!("killed, {moment:?}"));
        for plan in moment.plans(2, &mut rng) {
            life.expect(&moment.cut(&plan), durable, &format!("{moment:?}, {plan}"));
        }
    }
}

#[test]
fn a_torn_manifest_of_a_recovery_is_never_taken_for_whole() {
    let mut life = with_segments(BUFFERED, 2);
    life.db.checkpoint().unwrap();
    life.commit(&put("later", 10));
    life.db.flush().unwrap();
    let twin = life.disk.killed();
    twin.record_moments();
    drop(builder(&twin, life.config.clone()).open().unwrap());
    let mut torn = 0;
    for moment in twin.take_moments() {
        let of_manifest = |op: &Unsynced| op.path.contains("MANIFEST");
        for op in moment.unsynced().iter().filter(|op| of_manifest(op)) {
            let UnsyncedChange::Write { sectors, .. } = op.change else { continue };
            for sector in 0..sectors {
                for choice in
                    [Choice::First(sector), Choice::Without(sector), Choice::Garbage(sector)]
                {
                    let image = cut_by(&moment, |op| {
                        let is_write = matches!(op.change, UnsyncedChange::Write { .. });
                        if of_manifest(op) && is_write { choice } else { Choice::Keep }
                    });
                    life.expect_all(&image, &format!("{moment:?} {choice}"));
                    // And the recovery of that, too.
                    drop(builder(&image, life.config.clone()).open().unwrap());
                    life.expect_all(&cut(&image), &format!("{moment:?} {choice}, again"));
                    torn += 1;
                }
            }
        }
    }
    assert!(torn > 0, "a MANIFEST was being written");
}

#[test]
fn nothing_is_replayed_on_top_of_a_snapshot_twice() {
    let mut life = Life::new(STRICT);
    for n in 0..12 {
        // Done twice, an event would be there twice.
        life.commit(&append(n));
    }
    let moments = life.moments(|db| {
        db.checkpoint().unwrap();
        db.compact(CompactMode::WalOnly).unwrap();
    });
    let mut rng = fastrand::Rng::with_seed(1);
    for moment in &moments {
        life.expect_all(&moment.kill(), &format!("{moment:?}, killed"));
        for plan in moment.plans(2, &mut rng) {
            life.expect_all(&moment.cut(&plan), &format!("{moment:?}, {plan}"));
        }
    }
}

#[test]
fn a_stream_without_its_commit_frame() {
    let mut life = Life::new(BUFFERED);
    life.commit(&put("a", 10));
    life.db.flush().unwrap();
    life.disk.keep_journal();
    life.disk.record_moments();
    life.commit(&streamed("large"));
    let moments = life.disk.take_moments();
    let writes = life.disk.journal().iter().filter(|step| step.kind == StepKind::Write).count();
    assert!(writes > 2, "it is streamed");
    let begun = &moments[moments.len() - 2];
    assert_eq!(life.expect(&begun.kill(), 1, "before its last write"), 1);
    // Everything is durable but the last write, in which the commit frame is.
    let moment = moments.last().unwrap();
    let unsynced = moment.unsynced();
    let is_write = |op: &&Unsynced| matches!(op.change, UnsyncedChange::Write { .. });
    let last = unsynced.iter().filter(is_write).map(|op| op.step).max().unwrap();
    let image = cut_keeping(moment, |op| op.step != last);
    assert_eq!(life.expect(&image, 1, "without its commit frame"), 1);
    life.expect_all(&cut_keeping(moment, |_| true), "with it");
}

#[test]
fn what_was_deleted_stays_deleted() {
    let delete = [Op::Delete("r".into(), "gone".into())];
    for checkpoint_first in [false, true] {
        for compaction in [None, Some(CompactMode::WalOnly), Some(CompactMode::Full)] {
            let mut life = Life::new(STRICT);
            life.commit(&put("gone", 100));
            life.commit(&put("stays", 100));
            if checkpoint_first {
                life.db.checkpoint().unwrap();
            }
            life.commit(&delete);
            let moments = life.moments(|db| {
                db.checkpoint().unwrap();
                if let Some(mode) = compaction {
                    db.compact(mode).unwrap();
                }
            });
            for moment in &moments {
                life.expect_all(&moment.kill(), &format!("{moment:?}"));
                life.expect_all(&cut_keeping(moment, |_| false), &format!("{moment:?}, cut"));
            }
        }
    }
}

#[test]
fn the_log_of_another_database_is_not_replayed() {
    let old = with_segments(BUFFERED, 2);
    let stale = old.disk.bytes(&segments(&old.disk)[1]).unwrap();
    let mut life = Life::new(BUFFERED);
    life.commit(&put("mine", 10));
    let killed = life.disk.killed();
    let last = segments(&killed).pop().unwrap();
    let number: u64 = last.trim_end_matches(".seg").rsplit('-').next().unwrap().parse().unwrap();
    for number in [number + 1, number + 2] {
        let image = killed.killed();
        image.tamper(&format!("db/WAL/wal-{number:06}.seg"), |bytes| *bytes = stale.clone());
        match builder(&image.killed(), life.config.clone()).open_existing() {
            Ok(_) => life.expect_all(&image, "a foreign segment behind the log"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corruption, "{error}"),
        }
    }
    // Only the log of the old one is left, and the MANIFEST is new: refused, by name.
    let image = killed.killed();
    let first = segments(&killed).remove(0);
    image.tamper(&first, |bytes| *bytes = old.disk.bytes(&segments(&old.disk)[0]).unwrap());
    life.expect_refusal(&image, "wal-000001.seg", "its first segment is foreign");
}

#[test]
fn a_cut_right_after_each_acknowledgement() {
    let mut life = Life::new(STRICT);
    for n in 0..20 {
        let ops = if n % 7 == 6 { streamed("large") } else { put(&format!("k{n}"), 700) };
        life.commit(&ops);
        life.expect_all(&cut(&life.disk), &format!("after commit {n}"));
        life.expect_all(&life.disk.killed(), &format!("after commit {n}, killed"));
    }
    // A commit that asks for it in a mode that does not.
    let mut life = Life::new(BUFFERED);
    life.commit(&put("a", 10));
    assert_eq!(life.expect(&cut(&life.disk), 0, "not asked for"), 0);
    let mut tx = life.db.begin().unwrap();
    put("b", 10).iter().try_for_each(|op| op.apply(&mut tx)).unwrap();
    tx.raise_durability(STRICT);
    let version = tx.commit().unwrap().version();
    let mut model = life.states.last().unwrap().1.clone();
    model.apply(&put("b", 10), version);
    life.states.push((version, model));
    life.expect_all(&cut(&life.disk), "and everything before it");
}

#[test]
fn a_clock_that_goes_back_removes_nothing() {
    let hour = Duration::from_secs(3600);
    let noon = 1u64 << 50;
    let config = config(STRICT).retention(Retention::KeepFor(hour));
    let disk = SimDisk::new();
    let mut model = ReferenceModel::new();
    let mut newest = Version::ZERO;
    // Forward, back by a day, on a little, and back to the beginning of time.
    for (life, micros) in
        [noon, noon + 7_200_000_000, noon - 86_400_000_000, noon, 1].into_iter().enumerate()
    {
        let clock = ManualClock::at(Timestamp::from_micros(micros));
        let db = builder(&disk, config.clone()).clock(clock.clone()).open().unwrap();
        assert_eq!(model.compare(&content_now(&db).unwrap()), [], "life {life}");
        for n in 0..4 {
            let mut ops = put(&format!("k{n}"), 50 + life);
            ops.extend(append(n));
            let done = db.transaction(|tx| ops.iter().try_for_each(|op| op.apply(tx)));
            let version = done.unwrap().1.version();
            assert!(version > newest, "life {life}: versions do not follow the clock");
            newest = version;
            model.apply(&ops, version);
        }
        db.checkpoint().unwrap();
        db.compact(CompactMode::Full).unwrap();
        assert_eq!(model.compare(&content_now(&db).unwrap()), [], "life {life}, compacted");
        if life % 2 == 0 {
            db.close().unwrap();
        }
    }
    let db = builder(&cut(&disk), config).open().unwrap();
    assert_eq!(model.compare(&content_now(&db).unwrap()), []);
}

#[test]
fn the_version_of_an_aborted_transaction() {
    let mut life = Life::new(BUFFERED);
    let first = life.commit(&put("a", 10));
    life.db.flush().unwrap();
    // One given up before it had a version, and one whose write failed after it had one.
    let mut tx = life.db.begin().unwrap();
    put("aborted", 10).iter().try_for_each(|op| op.apply(&mut tx)).unwrap();
    drop(tx);
    life.disk.inject(Fault::once(StepKind::Write, 0, EIO).landing(usize::MAX));
    let mut tx = life.db.begin().unwrap();
    put("failed", 10).iter().try_for_each(|op| op.apply(&mut tx)).unwrap();
    let pending = tx.submit().unwrap().unwrap();
    let given = pending.version();
    assert!(given > first);
    pending.wait().unwrap_err();
    life.disk.heal();
    let second = life.commit(&put("b", 10));
    assert!(second > given, "{second} was given to the one that failed: {given}");
    let killed = life.disk.killed();
    life.expect_all(&killed, "killed");
    life.reborn(killed);
    assert_ne!(life.db.recovery_report().log, LogClass::Clean);
    assert!(life.commit(&put("c", 10)) > second);
    life.db.flush().unwrap();
    life.expect_all(&cut(&life.disk), "cut");
}
