//! What can go wrong with the bytes that should survive.

use std::io;

use crate::recovery::RecoveryReport;

/// An error of this layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused or failed.
    #[error("{file}: cannot {action}: {source}")]
    Io {
        /// The file or directory, relative to the database.
        file: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes are not what was written.
    #[error("{file}: {kind} at offset {offset}")]
    Corrupt {
        /// The file, relative to the database.
        file: String,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        kind: CorruptionKind,
    },
    /// What recovery found must not be opened under its policy; nothing was changed.
    #[error("{0}")]
    Refused(Box<RecoveryReport>),
    /// The file is of a format this release does not know.
    #[error("{file}: written in format {found}; this release reads up to {known}")]
    NewerFormat {
        /// The file, relative to the database.
        file: String,
        /// Its format.
        found: u32,
        /// The newest format this release reads.
        known: u32,
    },
    /// The file needs something that this build of the library leaves out.
    #[error("{file}: {reason}")]
    Unsupported {
        /// The file, relative to the database.
        file: String,
        /// What is missing, and how to get it.
        reason: &'static str,
    },
    /// There is no database there.
    #[error("{path}: {reason}")]
    NotADatabase {
        /// The directory.
        path: String,
        /// Why not.
        reason: &'static str,
    },
    /// Another process, or another handle of this one, has the database open for writing.
    #[error("{path} is open already, by {holder}")]
    Locked {
        /// The directory.
        path: String,
        /// What the holder wrote into the lock file.
        holder: String,
    },
    /// A sync failed earlier: the log takes nothing more until the database is opened again.
    #[error("the log takes no more writes since a sync failed ({reason}); open the database again")]
    Poisoned {
        /// What failed.
        reason: String,
    },
    /// Whoever was told of the progress wanted it to end.
    #[error("stopped before it was done")]
    Stopped,
    /// A piece of a snapshot cannot be read.
    #[error(transparent)]
    Table(#[from] steadfast_core::TableError),
    /// The caller's input.
    #[error(transparent)]
    Input(#[from] steadfast_core::Error),
}

/// Result with this layer's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What is wrong with bytes that are not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CorruptionKind {
    /// A file that must be there is not.
    Missing,
    /// A file that should begin with a header does not, or its header's checksum is wrong.
    BadHeader,
    /// A file belongs to another database.
    Foreign,
    /// A segment does not continue the one before it.
    BrokenChain,
    /// A group's header fails its checksum.
    BadGroupHeader,
    /// A group's end is missing.
    MissingTrailer,
    /// A group's bytes fail their checksum.
    BadChecksum,
    /// Bytes with a right checksum that mean nothing.
    Undecodable,
    /// The log ends earlier than it is known to have reached.
    Ends,
    /// A checksum of the MANIFEST is wrong.
    BadManifest,
    /// A segment holds commits and the MANIFEST does not name it, so the MANIFEST is an old one.
    OldManifest,
    /// A snapshot does not end with a valid footer.
    BadFooter,
    /// A part of a snapshot is not what was written.
    BadSnapshot,
}

impl std::fmt::Display for CorruptionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "the file is missing",
            Self::BadHeader => "no valid file header",
            Self::Foreign => "a file of another database",
            Self::BrokenChain => "does not continue the segment before it",
            Self::BadGroupHeader => "a group header that fails its checksum",
            Self::MissingTrailer => "a group without its end",
            Self::BadChecksum => "a group that fails its checksum",
            Self::Undecodable => "a record with a right checksum that cannot be decoded",
            Self::Ends => "the log ends",
            Self::BadManifest => "a manifest that fails its checksum",
            Self::OldManifest => {
                "commits in a segment that the MANIFEST, an older one, does not name"
            }
            Self::BadFooter => "no valid footer of a snapshot",
            Self::BadSnapshot => "a part of a snapshot that is not what was written",
        })
    }
}

/// Names the file and the action of an I/O error.
pub(crate) trait IoContext<T> {
    fn at(self, file: impl Into<String>, action: &'static str) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, file: impl Into<String>, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Io { file: file.into(), action, source })
    }
}
