//! A disk that forgets what was not synced.
//!
//! [`SimDisk`] stands in for the file system. Its [`Moment`]s yield crash images: functions
//! of a list of [`Choice`]s, one for each operation that was not durable, so that they can be
//! enumerated, drawn from a seed, and made smaller.
//!
//! What it assumes is what [`steadfast_durability::disk`] states: any sector named in an
//! unsynced write may be old, new or garbage; unsynced writes, lengths and directory entries
//! persist in any order; a rename is atomic; what no write named does not change.

mod content;
mod disk;
mod fault;
mod image;
mod plan;
mod rules;
mod tree;

pub use disk::{NameDurability, SimDisk, Step};
pub use fault::{EIO, ENOSPC, FailedSync, Fault, Lie, StepKind};
pub use image::{Moment, Unsynced, UnsyncedChange};
pub use plan::{Choice, Plan, PlanError, PlanErrorKind};
pub use rules::Rules;
