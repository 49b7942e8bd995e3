//! What a database holds and how far it has come.

use steadfast_core::Version;
use steadfast_storage::StoreStats;

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
    pub disk_bytes: u64,
    /// Transactions that began and have not ended.
    pub running_transactions: usize,
    /// Why the database takes no more writes, if so.
    pub poisoned: Option<String>,
}
