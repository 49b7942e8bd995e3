//! The bytes that survive: log, recovery, MANIFEST.
//!
//! This crate knows no store. It reads and writes files through [`disk::Disk`], and puts what
//! it recovers into a [`steadfast_core::ReplayTarget`]. *When* anything is written, synced or
//! recovered is the engine's decision; *how*, so that it survives, is decided here.
//!
//! Where to look: the formats are in [`wal`], [`snapshot`] and [`manifest`], the decision table in
//! [`recovery`], the names of files in [`layout`].

pub mod compaction;
pub mod disk;
mod error;
pub mod layout;
pub mod manifest;
pub mod progress;
mod quarantine;
mod rebuild;
pub mod recovery;
pub mod replay;
mod room;
mod salvage;
pub mod snapshot;
mod std_disk;
mod sync;
#[cfg(test)]
mod test_support;
pub mod verify;
pub mod wal;

pub use error::{CorruptionKind, Error, Result};
pub use progress::{Progress, Stage};
pub use rebuild::{CommitTimes, KeyRange, rebuild, rebuild_commit_times};
pub use replay::{ReplayStats, replay_wal};
pub use salvage::manifest_from_files;
pub use std_disk::{StdDisk, this_process};
