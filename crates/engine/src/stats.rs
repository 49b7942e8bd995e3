//! What a database holds and how far it has come.

use steadfast_core::Version;
use steadfast_durability::layout::DiskUsage;
use steadfast_storage::StoreStats;

use crate::loading::LoadStats;

/// Figures of an open database, taken one after the other while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The newest version that was given to a commit.
    pub assigned: Version,
    /// The newest version that readers see.
    pub visible: Version,
    /// The newest version that is known to survive power loss.
    pub promised: Version,
    /// What is in memory.
    pub store: StoreStats,
    /// Where the log ends, counted in bytes of groups from the very first.
    pub log_position: u64,
    /// Bytes of the files in the database's directory, as they are long.
    pub disk: DiskUsage,
    /// Bytes of it that a compaction would give back, as far as that is known without one:
    /// snapshots but the newest, and the log in front of the newest.
    pub reclaimable_bytes: u64,
    /// The newest snapshot and the version up to which it has everything; `None` without one.
    pub snapshot: Option<(u64, Version)>,
    /// Bytes of the segments of the log that an opening would read, with the space that is taken
    /// ahead in the newest.
    pub needed_log_bytes: u64,
    /// How far the snapshot that was opened has come into memory.
    pub load: LoadStats,
    /// Bytes in memory of the times of commits.
    pub commit_times_bytes: usize,
    /// Idempotency keys of all runs, each kept as long as its run; `None` where damage keeps
    /// them from being counted. They are counted now, so many make this take longer.
    pub idempotency_keys: Option<u64>,
    /// Bytes of keys and values in memory of runs that were deleted, kept for those that were
    /// forked from them; `None` where damage keeps them from being counted. They are counted now,
    /// too.
    pub held_for_forks_bytes: Option<u64>,
    /// Transactions that began and have not ended.
    pub running_transactions: usize,
    /// Why the database takes no more writes, if so.
    pub poisoned: Option<String>,
}
