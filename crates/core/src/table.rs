//! The seam between a store in memory and a sorted table on a device.

use std::sync::Arc;

use crate::{Record, Version};

/// A sorted, immutable table of records that serves a key or a range in place, without being
/// loaded.
///
/// Rows are ordered by key, and the versions of a key newest first. The table is cut twice:
/// into *blocks*, each with its own checksum, which are what a read touches; and into
/// *sections* of many blocks, which are what a load takes at once. No key's versions lie in two
/// sections. Where the sections begin is known from the moment the table is opened; everything
/// else is read, and checked, when it is first needed.
pub trait SortedTable: std::fmt::Debug + Send + Sync + 'static {
    /// The newest record of `key` not above `at`, tombstones included; `None` if there is none.
    fn get(&self, key: &[u8], at: Version) -> Result<Option<Record>, TableError>;

    /// The rows around a place, and between which keys they are all there is.
    fn slice(&self, place: Place<'_>) -> Result<TableSlice, TableError>;

    /// How many rows it has, each version of a key counted. Reads nothing.
    fn rows(&self) -> u64;

    /// How many sections there are; 0 if the table is empty.
    fn sections(&self) -> usize;

    /// The section in which `key` lies if the table has it. Reads nothing; the first section
    /// takes what is below every key.
    fn section_of(&self, key: &[u8]) -> usize;

    /// The lowest key of a section. Reads nothing.
    fn first_key(&self, section: usize) -> &[u8];

    /// All rows of a section, in order.
    fn section(&self, section: usize) -> Result<Vec<Record>, TableError>;
}

/// Where in a sorted table to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// Where this key lies, or would.
    At(&'a [u8]),
    /// Just below this key.
    Below(&'a [u8]),
    /// At the first key.
    First,
    /// At the last key.
    Last,
}

/// A piece of a sorted table: everything that it holds from `low` up to, but without, `high`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSlice {
    /// Where it begins; empty for the beginning of all keys.
    pub low: Vec<u8>,
    /// Where it ends; `None` for the end of all keys.
    pub high: Option<Vec<u8>>,
    /// The rows in between, by key, and by falling version. Whole keys only.
    pub rows: Vec<Record>,
}

/// A piece of a sorted table that could not be read. Cheap to clone, so that every read which
/// needs that piece can answer with it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{file}: {reason} at offset {offset}")]
pub struct TableError {
    /// The file, relative to the database.
    pub file: Arc<str>,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub reason: Arc<str>,
    /// What the operating system said, if it is what failed; otherwise the bytes are not what
    /// was written.
    #[source]
    pub io: Option<Arc<std::io::Error>>,
}

impl TableError {
    /// Whether the bytes are not what was written, as opposed to a read that failed.
    pub const fn is_corruption(&self) -> bool {
        self.io.is_none()
    }
}

/// Two errors are the same if they say the same about the same place.
impl PartialEq for TableError {
    fn eq(&self, other: &Self) -> bool {
        (&self.file, self.offset, &self.reason) == (&other.file, other.offset, &other.reason)
    }
}

impl Eq for TableError {}
