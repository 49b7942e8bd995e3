//! What is wrong with a caller's input, or with bytes that are to be decoded.

use crate::{Version, limits};

/// Input that no layer accepts, of which nothing was written; or bytes that mean nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key is longer than [`limits::USER_KEY_BYTES_MAX`].
    #[error("the key has {bytes} bytes, the limit is {}", limits::USER_KEY_BYTES_MAX)]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A key is empty.
    #[error("the key is empty")]
    EmptyKey,
    /// A value is larger than [`limits::VALUE_BYTES_MAX`] once encoded.
    #[error("the value has {bytes} bytes encoded, the limit is {}", limits::VALUE_BYTES_MAX)]
    ValueTooLarge {
        /// Its encoded length.
        bytes: usize,
    },
    /// A value is nested deeper than [`limits::VALUE_DEPTH_MAX`].
    #[error("the value is nested deeper than {} levels", limits::VALUE_DEPTH_MAX)]
    ValueTooDeep,
    /// A value holds a floating-point number that is not a number.
    #[error("the value holds a NaN, which is not equal to itself and cannot be compared")]
    NotANumber,
    /// A name is empty.
    #[error("the name of the {what} is empty")]
    EmptyName {
        /// What was to be named.
        what: &'static str,
    },
    /// A name is longer than its limit.
    #[error("the name of the {what} has {bytes} bytes, the limit is {limit}")]
    NameTooLong {
        /// What was to be named.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A transaction is larger than [`limits::TXN_BYTES_MAX`] or has more writes than
    /// [`limits::TXN_WRITES_MAX`].
    #[error(
        "the transaction has {bytes} bytes in {writes} writes, the limits are {} bytes and {} writes",
        limits::TXN_BYTES_MAX,
        limits::TXN_WRITES_MAX
    )]
    TransactionTooLarge {
        /// Encoded bytes.
        bytes: usize,
        /// Number of writes.
        writes: usize,
    },
    /// A signal that cannot be: a weight, a time, a window or a definition outside of the limits.
    #[error("{reason}")]
    Signal {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More of something than there may be.
    #[error("{count} {what}, the limit is {limit}")]
    TooMany {
        /// Of what, in the plural.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The definition of a graph that cannot be.
    #[error("{reason}")]
    Graph {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Bytes that are not an encoding of what they should be.
    #[error("{what}: {reason} at byte {at}")]
    Malformed {
        /// What was being decoded.
        what: &'static str,
        /// What is wrong.
        reason: &'static str,
        /// Where, counted from the start of what was being decoded.
        at: usize,
    },
    /// A record that does not say what it should, though its bytes are those that were written.
    #[error("{key}, of version {version}, cannot be read: {what}")]
    Undecodable {
        /// The record's key, in words.
        key: String,
        /// The commit that wrote it.
        version: Version,
        /// What is wrong with it.
        what: String,
    },
}

/// Result with this layer's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
