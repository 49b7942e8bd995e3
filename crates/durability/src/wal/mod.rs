//! The write-ahead log: segments of groups of frames.
#![doc = include_str!("FORMAT.md")]

pub mod chain;
pub mod entry;
pub mod frame;
pub mod group;
pub mod reader;
pub mod segment;
pub mod stream;
pub mod writer;
