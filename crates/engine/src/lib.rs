//! The database: opening, transactions, the commit pipeline, the primitives.
//!
//! This layer decides *when*: when a commit is validated, written, synced and published, when
//! a database is recovered, when its threads run. It knows nothing of how bytes look; that is
//! durability's. Nothing here starts a thread that [`Database::close`] does not join.

mod attributes;
mod change;
mod coengagement;
mod cohorts;
mod collections;
mod commit;
mod commit_times;
mod config;
mod copy;
mod cursor;
mod database;
mod deletion;
mod diff;
mod entry;
mod error;
mod event_chain;
mod events;
mod export;
mod fork;
mod kv;
mod last_events;
mod loading;
mod losses;
mod maintenance;
mod namespaces;
mod open;
mod progress;
mod projections;
mod recent;
mod restore;
mod runs;
mod salvage;
mod schema;
mod signals;
mod source;
mod state;
mod stats;
mod status;
mod streams;
mod subscription;
mod sync;
mod tail;
mod timeline;
mod transaction;
#[cfg(feature = "serde")]
mod typed_kv;
mod upkeep;
mod view;

pub use attributes::Entities;
pub use change::{Change, Commit, Observed, Position, Region};
pub use coengagement::{CoEngaged, DefinedGraph};
pub use cohorts::{DefinedCohort, Members};
pub use collections::{CollectionItems, MergedItems};
pub use commit::{Pending, Receipt};
pub use config::{CompactMode, DatabaseBuilder, DatabaseConfig, DurabilityMode};
pub use copy::{CopyInfo, restore, restore_with};
pub use cursor::{Cursor, StreamEvent};
pub use database::Database;
pub use diff::{Difference, Differences};
pub use entry::{Entries, Entry};
pub use error::{Error, ErrorKind, Result};
pub use event_chain::{EventHash, EventHead};
pub use events::{AppendOptions, Appended, Event, Events, Expect};
pub use fork::Parent;
pub use kv::KvScan;
pub use loading::LoadStats;
pub use losses::{Loss, Lost, RowName};
pub use projections::Projection;
pub use restore::Restore;
pub use runs::{Run, RunFilter, RunInfo};
pub use salvage::{SalvageReport, salvage, salvage_with};
pub use schema::{DefinedSignal, SchemaBuilder};
pub use signals::Signals;
pub use stats::Stats;
pub use status::RunStatus;
pub use streams::{KeyWindow, StreamState};
pub use subscription::{Notice, Subscription};
pub use tail::Tail;
pub use transaction::Transaction;
pub use upkeep::{CheckpointInfo, CompactInfo};
pub use view::View;

pub use steadfast_core::cohort::{Attributes, CohortDefinition, Comparison, Predicate};
pub use steadfast_core::engagement::{Edge, GraphDefinition};
pub use steadfast_core::signal::{Decay, Observation, Signal, SignalDefinition, Window};
#[cfg(feature = "serde")]
pub use steadfast_core::typed;
pub use steadfast_core::{
    Clock, Entropy, ListRef, ManualClock, MapRef, Namespace, Record, Retention, RetentionPolicy,
    RunId, SystemClock, Timestamp, TypeTag, Value, ValueRef, Version, VersionedValue, limits,
};
pub use steadfast_durability::layout::DiskUsage;
pub use steadfast_durability::recovery::{LogClass, RecoveryPolicy, RecoveryReport, SnapshotClass};
pub use steadfast_durability::snapshot::Compression;
pub use steadfast_durability::verify::Damaged;
pub use steadfast_durability::wal::segment::Epoch;
pub use steadfast_durability::{Progress, ReplayStats, Stage, disk};
pub use steadfast_storage::{StoreStats, UnifiedStore};
