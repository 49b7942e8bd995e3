//! The database: opening, transactions, the commit pipeline, the primitives.
//!
//! This layer decides *when*: when a commit is validated, written, synced and published, when
//! a database is recovered, when its threads run. It knows nothing of how bytes look; that is
//! durability's. Nothing here starts a thread that [`Database::close`] does not join.

mod commit;
mod commit_times;
mod config;
mod copy;
mod database;
mod deletion;
mod diff;
mod entry;
mod error;
mod events;
mod export;
mod kv;
mod loading;
mod maintenance;
mod namespaces;
mod open;
mod recent;
mod restore;
mod runs;
mod salvage;
mod source;
mod state;
mod stats;
mod status;
mod sync;
mod timeline;
mod transaction;
mod upkeep;
mod view;

pub use commit::{Pending, Receipt};
pub use config::{CompactMode, DatabaseBuilder, DatabaseConfig, DurabilityMode};
pub use copy::{CopyInfo, restore, restore_with};
pub use database::Database;
pub use diff::{Difference, Differences};
pub use entry::{Entries, Entry};
pub use error::{Error, ErrorKind, Result};
pub use events::{AppendOptions, Appended, Event, Events, Expect};
pub use kv::KvScan;
pub use loading::LoadStats;
pub use restore::Restore;
pub use runs::{Run, RunFilter, RunInfo};
pub use salvage::{SalvageReport, salvage, salvage_with};
pub use stats::Stats;
pub use status::RunStatus;
pub use transaction::Transaction;
pub use upkeep::{CheckpointInfo, CompactInfo};
pub use view::View;

pub use steadfast_core::{
    Clock, Entropy, ManualClock, Namespace, Retention, RetentionPolicy, RunId, SystemClock,
    Timestamp, TypeTag, Value, Version, VersionedValue, limits,
};
pub use steadfast_durability::layout::DiskUsage;
pub use steadfast_durability::recovery::{LogClass, RecoveryPolicy, RecoveryReport, SnapshotClass};
pub use steadfast_durability::snapshot::Compression;
pub use steadfast_durability::verify::Damaged;
pub use steadfast_durability::wal::segment::Epoch;
pub use steadfast_durability::{Progress, ReplayStats, disk};
pub use steadfast_storage::{StoreStats, UnifiedStore};
