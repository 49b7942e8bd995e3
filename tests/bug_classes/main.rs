//! The classes of recovery bugs that databases are known to have had, each reached by a
//! situation of its own: what the bug needs is built, and what must hold then is asserted.
//!
//! [`BugClass`] is the list. A class without a test does not compile; `every_class_has_its_test`
//! says that no two share one.
#![allow(clippy::unwrap_used)]

mod contents;
mod durability;
mod life;
mod log;

use std::collections::BTreeSet;

use crate::contents::*;
use crate::durability::*;
use crate::log::*;

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
