//! What salvaging could not take along, in the words of whoever wrote it.

use std::collections::HashMap;
use std::fmt;

use steadfast_core::{
    Key, NamespaceId, TableError, TypeTag, Version, event_seq, stream_name, stream_of,
};
use steadfast_durability::snapshot::Loss as Piece;
use steadfast_durability::wal::chain::Damage;

/// Something that could not be taken along.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    /// The file, relative to the database.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// How many bytes could not be read; `None` if that is not known.
    pub bytes: Option<u64>,
    /// What is wrong there.
    pub damage: String,
    /// What was in it.
    pub lost: Lost,
}

/// What was in bytes that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lost {
    /// Rows of a snapshot; or none, where the bytes only told where rows lie.
    Rows {
        /// The last row before them that could be read; `None` if there is none.
        after: Option<RowName>,
        /// The first row behind them that could be read; `None` if there is none.
        before: Option<RowName>,
        /// The lowest and the highest version that rows there may have; the highest is that of
        /// the snapshot, if it is known.
        versions: (Version, Option<Version>),
    },
    /// Every commit behind this one.
    Commits {
        /// The last one that was taken.
        after: Version,
    },
    /// When commits were made.
    CommitTimes,
    /// The names of runs, where the log has none.
    RunNames,
    /// Where a snapshot keeps its rows; they were looked for without it.
    Directory,
}

/// The name of a row as those who wrote it know it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RowName {
    /// The name of its run; its number in the database's dictionary where the name is lost.
    /// Empty for the entry of a run in the index, whose key is the name.
    pub run: String,
    /// The primitive. `None` if it is one that this release does not know.
    pub primitive: Option<TypeTag>,
    /// The key, the name of the stream, or of the cell.
    pub key: Vec<u8>,
    /// The sequence number, of an event.
    pub seq: Option<u64>,
}

impl fmt::Display for RowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.escape_ascii();
        let what = match self.primitive {
            Some(TypeTag::Run) => return write!(f, "the run {key}"),
            Some(TypeTag::Kv) => "key",
            Some(TypeTag::Event) => "where the trimmed stream begins:",
            Some(TypeTag::State) => "cell",
            Some(TypeTag::Signal) => "signal",
            Some(TypeTag::Idempotency) => "idempotency key",
            Some(TypeTag::Collection) => "collection",
            Some(TypeTag::Attributes) => "attributes",
            Some(TypeTag::Cohort) => "cohort",
            Some(TypeTag::Engagement) => "graph",
            None => "row",
        };
        match self.seq {
            Some(seq) => write!(f, "event {seq} of {key}")?,
            None => write!(f, "{what} {key}")?,
        }
        write!(f, " in run {}", self.run)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows { after, before, versions: (from, to) } => {
                match (after, before) {
                    (Some(after), Some(before)) => write!(f, "rows between {after} and {before}"),
                    (Some(after), None) => write!(f, "rows behind {after}"),
                    (None, Some(before)) => write!(f, "rows before {before}"),
                    (None, None) => write!(f, "all rows"),
                }?;
                match to {
                    Some(to) => write!(f, ", of versions {from} to {to}"),
                    None => Ok(()),
                }
            }
            Self::Commits { after } => {
                write!(f, "nothing of the log behind version {after} was taken")
            }
            Self::CommitTimes => f.write_str("when older commits were made"),
            Self::RunNames => {
                f.write_str("the names of the runs in the snapshot, where the log has none")
            }
            Self::Directory => f.write_str("where its rows lie; they were looked for without it"),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, bytes, damage, lost } = self;
        write!(f, "{file}: {damage} at offset {offset}")?;
        if let Some(bytes) = bytes {
            write!(f, ", {bytes} bytes")?;
        }
        write!(f, ": {lost}")
    }
}

/// The names of runs, for saying which rows are lost.
pub(crate) type RunNames = HashMap<NamespaceId, String>;

fn row_name(stored: &[u8], runs: &RunNames) -> RowName {
    let (namespace, primitive) = (Key::namespace_of(stored), Key::tag_of(stored));
    let own = || Key::user_part(stored).to_vec();
    let (key, seq) = match (primitive, stream_name(stored)) {
        (Some(TypeTag::Event), Some(stream)) => (stream, event_seq(stored)),
        (Some(TypeTag::Event), None) => (stream_of(stored).unwrap_or_else(own), None),
        _ => (own(), None),
    };
    let run = match namespace {
        Some(NamespaceId::SYSTEM) | None => String::new(),
        Some(id) => runs.get(&id).cloned().unwrap_or_else(|| format!("number {}", id.0)),
    };
    RowName { run, primitive, key, seq }
}

/// A loss before the names of runs are known.
#[derive(Debug)]
pub(crate) enum Found {
    Known(Loss),
    /// A piece of a snapshot, and the snapshot's version if it is known.
    Piece(Piece, Option<Version>),
}

impl Found {
    /// Something of the log, or what a snapshot says of itself.
    pub(crate) fn damage(damage: &Damage, lost: Lost) -> Self {
        let Damage { file, offset, kind } = damage;
        let (file, damage) = (file.clone(), kind.to_string());
        Self::Known(Loss { file, offset: *offset, bytes: None, damage, lost })
    }

    pub(crate) fn table(error: &TableError, lost: Lost) -> Self {
        let (file, damage) = (error.file.to_string(), error.reason.to_string());
        Self::Known(Loss { file, offset: error.offset, bytes: None, damage, lost })
    }

    pub(crate) fn named(self, runs: &RunNames) -> Loss {
        let (piece, upto) = match self {
            Self::Known(loss) => return loss,
            Self::Piece(piece, upto) => (piece, upto),
        };
        let name = |key: Option<Vec<u8>>| key.map(|key| row_name(&key, runs));
        Loss {
            file: piece.error.file.to_string(),
            offset: piece.error.offset,
            bytes: Some(piece.bytes),
            damage: piece.error.reason.to_string(),
            lost: Lost::Rows {
                after: name(piece.low),
                before: name(piece.high),
                versions: (Version(1), upto),
            },
        }
    }
}
