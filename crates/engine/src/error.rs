//! What a caller can do something about.

use std::sync::Arc;

use steadfast_core::Version;

/// An error of the database. [`Error::kind`] tells what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another transaction wrote what this one had read. Starting again may succeed;
    /// [`crate::Database::transaction`] does so by itself.
    #[error("conflict: {reason}")]
    Conflict {
        /// What stood in the way.
        reason: &'static str,
        /// The commit that stood in the way; zero if that is not known.
        with: Version,
    },
    /// An expectation that the caller stated does not hold. Starting again would find the
    /// same.
    #[error("conflict: {what}: expected {expected}, found {found}")]
    Mismatch {
        /// What the expectation was about.
        what: String,
        /// What was expected.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The database is open already.
    #[error("{path} is open already, by {holder}")]
    Busy {
        /// The directory.
        path: String,
        /// Who has it open, as far as that is known.
        holder: String,
    },
    /// The database was closed, or was opened for reading only.
    #[error("{0}")]
    Closed(&'static str),
    /// The caller's input is not acceptable. Nothing was written.
    #[error("{0}")]
    Invalid(String),
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// The operating system refused or failed. What was to be committed is not.
    #[error("{0}")]
    Io(Arc<steadfast_durability::Error>),
    /// Files are damaged.
    #[error("{0}")]
    Corruption(steadfast_durability::Error),
    /// What was read has the right checksum and means nothing: no bit has changed since it was
    /// written, and no program of ours wrote it so.
    #[error("{0}")]
    Undecodable(steadfast_core::Error),
    /// A stream of events is not what was appended to it.
    #[error("event {seq} of stream {stream}: {what}")]
    EventChain {
        /// The stream.
        stream: String,
        /// The first event that is not as it was.
        seq: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A sync failed earlier. Reading goes on; the database must be opened again to write.
    #[error("the database takes no more writes since a sync failed ({reason}); open it again")]
    Poisoned {
        /// What failed.
        reason: String,
    },
    /// A sync failed while this commit waited for it. It may or may not be there when the
    /// database is opened again; in this process it is never seen.
    #[error("the outcome of the commit is not known: {reason}; open the database again to see")]
    Unknown {
        /// What failed.
        reason: String,
    },
    /// The version asked for is older than what is kept.
    #[error("history is trimmed: version {asked} was asked for, the oldest readable is {oldest}")]
    HistoryTrimmed {
        /// The version asked for.
        asked: Version,
        /// The oldest version that can be read.
        oldest: Version,
    },
    /// The event asked for was trimmed.
    #[error(
        "history is trimmed: event {asked} of stream {stream} was asked for, the oldest is {oldest}"
    )]
    EventsTrimmed {
        /// The stream.
        stream: String,
        /// The sequence number asked for.
        asked: u64,
        /// That of the oldest event there is, or, if every one was trimmed, of the next.
        oldest: u64,
    },
    /// Whoever was told of the progress wanted it to end. Everything is as it was before.
    #[error("stopped before it was done")]
    Stopped,
    /// The database does not contain the past that the caller says it saw.
    #[error("the database has another past: {0}")]
    Diverged(String),
    /// This release cannot do that.
    #[error("{0}")]
    Unsupported(String),
}

/// Result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What sort of error it is, for programs to act on. Displays in snake_case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Something else came first, or an expectation does not hold.
    Conflict,
    /// Somebody else has it.
    Busy,
    /// It is closed, or read-only.
    Closed,
    /// The input is not acceptable.
    Invalid,
    /// It is not there.
    NotFound,
    /// The operating system refused or failed.
    Io,
    /// Files are damaged.
    Corruption,
    /// No more writes since a sync failed.
    Poisoned,
    /// It is not known whether it was committed.
    Unknown,
    /// It is no longer kept.
    HistoryTrimmed,
    /// Whoever was told of the progress wanted it to end.
    Stopped,
    /// The database has another past.
    Diverged,
    /// This release cannot do that.
    Unsupported,
}

impl ErrorKind {
    /// The name in snake_case, as programs read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Closed => "closed",
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Io => "io",
            Self::Corruption => "corruption",
            Self::Poisoned => "poisoned",
            Self::Unknown => "unknown",
            Self::HistoryTrimmed => "history_trimmed",
            Self::Stopped => "stopped",
            Self::Diverged => "diverged",
            Self::Unsupported => "unsupported",
        }
    }
}

impl std::fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Error {
    /// What sort of error it is.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Conflict { .. } | Self::Mismatch { .. } => ErrorKind::Conflict,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Closed(_) => ErrorKind::Closed,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Io(_) => ErrorKind::Io,
            Self::Corruption(_) | Self::Undecodable(_) | Self::EventChain { .. } => {
                ErrorKind::Corruption
            }
            Self::Poisoned { .. } => ErrorKind::Poisoned,
            Self::Unknown { .. } => ErrorKind::Unknown,
            Self::HistoryTrimmed { .. } | Self::EventsTrimmed { .. } => ErrorKind::HistoryTrimmed,
            Self::Stopped => ErrorKind::Stopped,
            Self::Diverged(_) => ErrorKind::Diverged,
            Self::Unsupported(_) => ErrorKind::Unsupported,
        }
    }
}

impl From<steadfast_core::Error> for Error {
    fn from(error: steadfast_core::Error) -> Self {
        match error {
            steadfast_core::Error::Undecodable { .. } => Self::Undecodable(error),
            _ => Self::Invalid(error.to_string()),
        }
    }
}

#[cfg(feature = "serde")]
impl From<steadfast_core::typed::ConversionError> for Error {
    fn from(error: steadfast_core::typed::ConversionError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<steadfast_durability::Error> for Error {
    fn from(error: steadfast_durability::Error) -> Self {
        use steadfast_durability::Error as E;
        match error {
            E::Corrupt { .. } | E::Refused(_) => Self::Corruption(error),
            E::Table(ref piece) if piece.is_corruption() => Self::Corruption(error),
            E::NewerFormat { .. } | E::Unsupported { .. } => Self::Unsupported(error.to_string()),
            E::NotADatabase { .. } => Self::NotFound(error.to_string()),
            E::Locked { path, holder } => Self::Busy { path, holder },
            E::Poisoned { reason } => Self::Poisoned { reason },
            E::Input(error) => error.into(),
            E::Stopped => Self::Stopped,
            _ => Self::Io(Arc::new(error)),
        }
    }
}

impl From<steadfast_core::TableError> for Error {
    fn from(error: steadfast_core::TableError) -> Self {
        steadfast_durability::Error::from(error).into()
    }
}

impl From<steadfast_storage::Error> for Error {
    fn from(error: steadfast_storage::Error) -> Self {
        use steadfast_storage::Error as E;
        match error {
            E::Invalid(error) => error.into(),
            E::HistoryTrimmed { asked, oldest } => Self::HistoryTrimmed { asked, oldest },
            E::Table(error) => steadfast_durability::Error::from(error).into(),
            E::NotYet { .. } => Self::NotFound(error.to_string()),
            other => Self::Invalid(other.to_string()),
        }
    }
}
