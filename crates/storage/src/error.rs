//! What reading and writing the store can answer besides what was asked for.

use steadfast_core::{TableError, Version};

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was to be written breaks a limit. Nothing was written.
    #[error(transparent)]
    Invalid(#[from] steadfast_core::Error),
    /// Versions that a reader at `asked` would need were dropped, or may be at any moment.
    #[error("version {asked} is no longer readable, the oldest readable one is {oldest}")]
    HistoryTrimmed {
        /// The version asked for.
        asked: Version,
        /// The oldest version that can be read.
        oldest: Version,
    },
    /// The version asked for has not been published.
    #[error("version {asked} is not there yet, the newest one is {newest}")]
    NotYet {
        /// The version asked for.
        asked: Version,
        /// The newest published version.
        newest: Version,
    },
    /// A piece of the table beneath the store, which this read needs and memory does not have
    /// yet, could not be read.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Result with this layer's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
