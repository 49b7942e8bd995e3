//! What proves the database: a disk that forgets, crash images of every moment, a model of
//! what must be there, and damage on real files.
//!
//! - [`sim`]: [`sim::SimDisk`], its faults and its crash images;
//! - [`model`]: [`model::ReferenceModel`], what a database must contain;
//! - [`workload`]: programs drawn from a seed, and the record of what they were told;
//! - [`fixture`]: a database in a real directory, to be damaged by hand;
//! - [`forged`]: commits that no engine made, in the log of one;
//! - [`matrix`]: your program, your invariant, and every crash image in between;
//! - [`crash`]: every crash image of a program, opened and judged;
//! - `injector` and `harness` (feature `hooks`): crashes at chosen points inside the engine;
//! - `scenarios` (feature `hooks`): every crash point, crash and durability mode, and what must
//!   be found then;
//! - [`faults`], [`damage`]: a disk that fails, files that change at rest;
//! - [`techniques`]: all of these and plain use, in one order, from cheap to dear;
//! - `sabotage` (feature `hooks`): bugs planted in the engine, and which technique finds them;
//! - `fuzz` (feature `hooks`): what is done with bytes that anybody may have written;
//! - [`process_kill`]: a real process, killed at random;
//! - `target` (Unix): any engine, behind a small trait, killed as a process;
//! - `fuse` (feature `fuse`, Linux): a file system that loses power under such a process;
//! - [`concurrent`]: histories of concurrent transactions, recorded and checked;
//! - [`corruption`]: the files of a log, damaged;
//! - [`mod@reference`], [`operation`]: what was asked for and acknowledged, one step at a time.
//!
//! How to begin is in the README beside this crate.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub use steadfast_core::{CRASH_POINTS_COMPILED_IN, CrashPoint, check_crash_point};
pub use steadfast_core::{SABOTAGE_COMPILED_IN, SABOTAGE_VARIABLE, Sabotage, sabotaged};
#[cfg(feature = "hooks")]
pub use steadfast_core::{sabotage_every_thread, sabotage_this_thread};

pub mod campaign;
pub mod concurrent;
pub mod corruption;
pub mod crash;
pub mod crash_disk;
pub mod damage;
pub mod death;
pub mod durations;
pub mod faults;
pub mod fixture;
pub mod forged;
#[cfg(all(feature = "fuse", target_os = "linux"))]
pub mod fuse;
#[cfg(feature = "hooks")]
pub mod fuzz;
#[cfg(feature = "hooks")]
pub mod harness;
#[cfg(feature = "hooks")]
pub mod injector;
pub mod matrix;
pub mod model;
pub mod operation;
mod panics;
mod past;
pub mod process_kill;
pub mod reference;
#[cfg(feature = "hooks")]
pub mod sabotage;
#[cfg(feature = "hooks")]
pub mod scenarios;
pub mod seed;
pub mod sim;
#[cfg(unix)]
pub mod target;
pub mod techniques;
pub mod worker;
pub mod workload;

/// The examples of the README are run.
#[cfg(all(doctest, feature = "hooks"))]
#[doc = include_str!("../README.md")]
mod readme {}
