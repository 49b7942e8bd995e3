//! What proves the database: a disk that forgets, crash images of every moment, a model of
//! what must be there, and damage on real files.
//!
//! - [`sim`]: [`sim::SimDisk`], its faults and its crash images;
//! - [`model`]: [`model::ReferenceModel`], what a database must contain;
//! - [`workload`]: programs drawn from a seed, and the record of what they were told;
//! - [`fixture`]: a database in a real directory, to be damaged by hand;
//! - [`crash`]: every crash image of a program, opened and judged.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod crash;
pub mod fixture;
pub mod model;
pub mod sim;
pub mod workload;
