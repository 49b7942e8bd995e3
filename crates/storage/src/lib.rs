//! The in-memory store of Steadfast: every kept version of every key.
//!
//! [`UnifiedStore`] keeps two indexes over the same [`Record`](steadfast_core::Record)
//! handles: an ordered one (a directory of leaves) that owns the versions, and
//! a hash of newest records that answers most gets alone. Readers read at a
//! version that they hold ([`View`]) or at the newest published one; writers insert versions
//! above it and publish them afterwards.
//!
//! A sorted table may lie beneath ([`UnifiedStore::attach_table`]): reads answer from both,
//! section by section the table is loaded, and then it is let go.
//!
//! This crate knows no bytes on disk, starts no threads that outlive a call, and decides
//! neither when to commit nor what a version number is: the engine does.
//!
//! # Locks
//!
//! In the order in which they may be taken: the store's writer, the gathered runs of a replay,
//! a section of the table beneath while it is loaded, the sections that wait for the hash, the
//! hashing of some (shared, and held while the hash is told), the directory's growth, a region, a
//! leaf, the rules of retention, a shard of the hash, the registry of views, the garbage. No
//! caller's code runs while one of them is held, except that loading a section reads it from the
//! table.

mod beneath;
mod bulk;
mod chain;
mod directory;
mod error;
mod fold;
mod forks;
mod garbage;
mod heads;
mod leaf;
mod load;
mod lock;
mod merge;
mod points;
mod range;
mod region;
mod registry;
mod rules;
mod stats;
mod store;
#[cfg(test)]
mod tests;
mod trim;
mod view;

pub use beneath::LoadProgress;
pub use error::{Error, Result};
pub use load::LoadedSection;
pub use range::Range;
pub use stats::StoreStats;
pub use store::{Applied, UnifiedStore};
pub use trim::Trimmed;
pub use view::View;
