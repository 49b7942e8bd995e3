//! A file system that loses power under a real process of any engine.
//!
//! [`PowerLossFs`] shows a [`SimDisk`](crate::sim::SimDisk) through FUSE: one model of a disk and
//! one definition of what a cut may leave, for simulated and for real processes. A write is an
//! operation that is not durable; `fsync` and `fdatasync` make it so, `fsync` of a directory its
//! names, and a write with `O_DSYNC` itself. At a cut nobody gets an answer any more; what the
//! disk may hold then are the images of the [`Moment`](crate::sim::Moment).
//!
//! [`power_cut`] puts a [`Program`](crate::target::Program) through it, again and again.
//!
//! What it does not do: hard and symbolic links, device files, renames from one directory to
//! another (`EXDEV`), extended attributes; `sync` and `syncfs` do not reach it, as the kernel
//! keeps them from FUSE. Modes and times are there until the cut. A shared map is written
//! back when the kernel pleases, or at `msync`, as everywhere.
//!
//! It needs `/dev/fuse`, and either the right to mount or `fusermount3` in the path (package
//! `fuse3`). [`why_missing`] says what is not there.

mod filesystem;
mod mount;
mod nodes;
pub mod power_cut;

pub use mount::{Observer, Power, PowerLossFs, why_missing};
