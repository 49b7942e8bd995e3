//! What proves the database: a disk that forgets, crash images of every moment, a model of
//! what must be there, and damage on real files.
//!
//! - [`sim`]: [`sim::SimDisk`], its faults and its crash images;
//! - [`model`]: [`model::ReferenceModel`], what a database must contain;
//! - [`workload`]: programs drawn from a seed, and the record of what they were told;
//! - [`fixture`]: a database in a real directory, to be damaged by hand;
//! - [`matrix`]: your program, your invariant, and every crash image in between;
//! - [`crash`]: every crash image of a program, opened and judged;
//! - `injector` and `harness` (feature `hooks`): crashes at chosen points inside the engine;
//! - `scenarios` (feature `hooks`): every crash point, crash and durability mode, and what must
//!   be found then;
//! - [`process_kill`]: a real process, killed at random;
//! - [`corruption`]: the files of a log, damaged;
//! - [`mod@reference`], [`operation`]: what was asked for and acknowledged, one step at a time.
//!
//! How to begin is in the README beside this crate.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub use steadfast_core::{CRASH_POINTS_COMPILED_IN, CrashPoint, check_crash_point};

pub mod corruption;
pub mod crash;
pub mod crash_disk;
pub mod death;
pub mod fixture;
#[cfg(feature = "hooks")]
pub mod harness;
#[cfg(feature = "hooks")]
pub mod injector;
pub mod matrix;
pub mod model;
pub mod operation;
mod panics;
pub mod process_kill;
pub mod reference;
#[cfg(feature = "hooks")]
pub mod scenarios;
pub mod seed;
pub mod sim;
pub mod worker;
pub mod workload;

/// The examples of the README are run.
#[cfg(all(doctest, feature = "hooks"))]
#[doc = include_str!("../README.md")]
mod readme {}
