//! What the benches share: the rows they write, the limits they are held against, the tables
//! they print, and child processes of their own binary.
//!
//! `peers/` uses `clock`, `data`, `limits`, `ours`, `process` and `scratch` too, so that its
//! rows mean the same.

#![allow(
    dead_code,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "no bench uses all of this; figures are small; limits go around our own Disk"
)]

pub(crate) mod clock;
pub(crate) mod data;
pub(crate) mod limits;
pub(crate) mod ours;
pub(crate) mod process;
pub(crate) mod scratch;
pub(crate) mod setup;
pub(crate) mod table;
