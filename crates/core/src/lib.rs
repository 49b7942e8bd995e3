//! The vocabulary of Steadfast: keys, values, versions, limits.
//!
//! Everything here is plain data. This crate knows no files, no threads and no clock other
//! than the [`Clock`] trait, so every layer above can share it without sharing anything else.

pub mod codec;
pub mod cohort;
pub mod collection;
mod crash_point;
pub mod engagement;
mod entropy;
mod error;
pub mod fork;
mod key;
pub mod limits;
mod namespace;
mod record;
mod replay;
mod retention;
mod run_id;
mod sabotage;
pub mod signal;
mod table;
mod time;
#[cfg(feature = "serde")]
pub mod typed;
mod value;
mod version;
mod write_set;

pub use crash_point::{CRASH_POINTS_COMPILED_IN, CrashPoint, check_crash_point};
#[cfg(feature = "crash-points")]
pub use crash_point::{CrashHook, hook_every_thread, hook_this_thread};
pub use entropy::Entropy;
pub use error::{Error, Result};
pub use key::{
    Key, KeyRef, TypeTag, event_key, event_seq, prefix_end, stream_key, stream_name, stream_of,
    stream_prefix,
};
pub use namespace::{Namespace, NamespaceId, check_name};
pub use record::{Record, RecordBuilder};
pub use replay::ReplayTarget;
pub use retention::{Retention, RetentionDomain, RetentionFloor, RetentionPolicy};
pub use run_id::RunId;
pub use sabotage::{SABOTAGE_COMPILED_IN, SABOTAGE_VARIABLE, Sabotage, sabotaged, unless};
#[cfg(feature = "sabotage")]
pub use sabotage::{sabotage_every_thread, sabotage_this_thread};
pub use table::{Place, SortedTable, TableError, TableSlice};
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
pub use value::{ListRef, MapRef, Value, ValueRef};
pub use version::{Version, VersionedValue};
pub use write_set::{Write, WriteKind, WriteSet, Writes};
