//! Frames: what a group carries. An ordinary transaction is one frame.

use steadfast_core::codec::{Cursor, put_varint, varint_len};
use steadfast_core::limits::FRAME_BYTES_MAX;
use steadfast_core::{Namespace, NamespaceId, Result, Timestamp, Version};

const TXN: u8 = 1;
const BEGIN: u8 = 2;
const PART: u8 = 3;
const COMMIT: u8 = 4;
const ABORT: u8 = 5;
const SEAL: u8 = 6;
const FOOTER: u8 = 7;

/// One frame. A *body* is the namespace definitions that its transaction is the first to use,
/// then its writes (see [`split_body`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A whole transaction.
    Txn {
        /// Its version, which is also its transaction id.
        version: Version,
        /// When it was committed.
        timestamp: Timestamp,
        /// Definitions and writes.
        body: &'a [u8],
    },
    /// The begin of a streamed transaction.
    Begin {
        /// Its id: names it until its commit frame gives it a version.
        txn: u64,
        /// When it began to be written.
        timestamp: Timestamp,
    },
    /// The next part of a streamed transaction's body.
    Part {
        /// The transaction.
        txn: u64,
        /// The bytes; a write may continue in the next part.
        bytes: &'a [u8],
    },
    /// The commit of a streamed transaction.
    Commit {
        /// The transaction.
        txn: u64,
        /// Its version.
        version: Version,
        /// When it was committed.
        timestamp: Timestamp,
        /// How many parts it has.
        parts: u64,
        /// CRC-32 of all its parts.
        checksum: u32,
    },
    /// The end of a streamed transaction that was not committed.
    Abort {
        /// The transaction.
        txn: u64,
    },
    /// The last frame of a segment.
    Seal {
        /// The number of the segment that continues it.
        successor: u64,
    },
    /// The last frame of a log that was closed cleanly.
    Footer {
        /// The version that the next commit gets.
        next_version: Version,
        /// The time of the newest commit.
        timestamp: Timestamp,
    },
}

impl<'a> Frame<'a> {
    /// Appends the frame: kind, length, fields.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind());
        put_varint(out, self.fields_len() as u64);
        match *self {
            Self::Txn { version, timestamp, body } => {
                put_varint(out, version.0);
                put_varint(out, timestamp.as_micros());
                out.extend_from_slice(body);
            }
            Self::Begin { txn, timestamp } => {
                put_varint(out, txn);
                put_varint(out, timestamp.as_micros());
            }
            Self::Part { txn, bytes } => {
                put_varint(out, txn);
                out.extend_from_slice(bytes);
            }
            Self::Commit { txn, version, timestamp, parts, checksum } => {
                for n in [txn, version.0, timestamp.as_micros(), parts] {
                    put_varint(out, n);
                }
                out.extend_from_slice(&checksum.to_le_bytes());
            }
            Self::Abort { txn } => put_varint(out, txn),
            Self::Seal { successor } => put_varint(out, successor),
            Self::Footer { next_version, timestamp } => {
                put_varint(out, next_version.0);
                put_varint(out, timestamp.as_micros());
            }
        }
    }

    /// Appends a [`Frame::Txn`] whose body comes in two pieces, as the log writer has them.
    pub fn encode_txn(
        out: &mut Vec<u8>,
        version: Version,
        timestamp: Timestamp,
        definitions: &[u8],
        writes: &[u8],
    ) {
        let body_len = definitions.len() + writes.len();
        out.push(TXN);
        put_varint(
            out,
            (varint_len(version.0) + varint_len(timestamp.as_micros()) + body_len) as u64,
        );
        put_varint(out, version.0);
        put_varint(out, timestamp.as_micros());
        out.extend_from_slice(definitions);
        out.extend_from_slice(writes);
    }

    /// Bytes that a [`Frame::Txn`] with a body of `body_len` bytes takes.
    pub const fn txn_len(version: Version, timestamp: Timestamp, body_len: usize) -> usize {
        let fields = varint_len(version.0) + varint_len(timestamp.as_micros()) + body_len;
        1 + varint_len(fields as u64) + fields
    }

    /// Bytes that [`Frame::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        let fields = self.fields_len();
        1 + varint_len(fields as u64) + fields
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Txn { .. } => TXN,
            Self::Begin { .. } => BEGIN,
            Self::Part { .. } => PART,
            Self::Commit { .. } => COMMIT,
            Self::Abort { .. } => ABORT,
            Self::Seal { .. } => SEAL,
            Self::Footer { .. } => FOOTER,
        }
    }

    const fn fields_len(&self) -> usize {
        match *self {
            Self::Txn { version, timestamp, body } => {
                varint_len(version.0) + varint_len(timestamp.as_micros()) + body.len()
            }
            Self::Begin { txn, timestamp } => varint_len(txn) + varint_len(timestamp.as_micros()),
            Self::Part { txn, bytes } => varint_len(txn) + bytes.len(),
            Self::Commit { txn, version, timestamp, parts, .. } => {
                varint_len(txn)
                    + varint_len(version.0)
                    + varint_len(timestamp.as_micros())
                    + varint_len(parts)
                    + 4
            }
            Self::Abort { txn } => varint_len(txn),
            Self::Seal { successor } => varint_len(successor),
            Self::Footer { next_version, timestamp } => {
                varint_len(next_version.0) + varint_len(timestamp.as_micros())
            }
        }
    }

    /// Reads the next frame.
    pub fn decode(cursor: &mut Cursor<'a>) -> Result<Self> {
        let kind = cursor.u8()?;
        let fields = cursor.bytes()?;
        if fields.len() > FRAME_BYTES_MAX + 64 {
            return Err(cursor.malformed("a frame above its limit"));
        }
        let mut fields = Cursor::new("frame", fields);
        let fields = &mut fields;
        let frame = match kind {
            TXN => Self::Txn {
                version: Version(fields.varint()?),
                timestamp: Timestamp::from_micros(fields.varint()?),
                body: fields.rest(),
            },
            BEGIN => Self::Begin {
                txn: fields.varint()?,
                timestamp: Timestamp::from_micros(fields.varint()?),
            },
            PART => Self::Part { txn: fields.varint()?, bytes: fields.rest() },
            COMMIT => Self::Commit {
                txn: fields.varint()?,
                version: Version(fields.varint()?),
                timestamp: Timestamp::from_micros(fields.varint()?),
                parts: fields.varint()?,
                checksum: fields.u32()?,
            },
            ABORT => Self::Abort { txn: fields.varint()? },
            SEAL => Self::Seal { successor: fields.varint()? },
            FOOTER => Self::Footer {
                next_version: Version(fields.varint()?),
                timestamp: Timestamp::from_micros(fields.varint()?),
            },
            _ => return Err(fields.malformed("an unknown kind of frame")),
        };
        fields.end()?;
        Ok(frame)
    }
}

/// Appends the head of a body: how many namespaces it defines, and each.
pub fn encode_definitions<'a>(
    out: &mut Vec<u8>,
    definitions: impl ExactSizeIterator<Item = (NamespaceId, &'a Namespace)>,
) {
    put_varint(out, definitions.len() as u64);
    for (id, namespace) in definitions {
        put_varint(out, u64::from(id.0));
        namespace.encode(out);
    }
}

/// The namespaces that a body defines.
pub type Definitions = Vec<(NamespaceId, Namespace)>;

/// Splits a body into the namespaces it defines and the encoded writes.
pub fn split_body(body: &[u8]) -> Result<(Definitions, &[u8])> {
    let mut cursor = Cursor::new("transaction", body);
    let count = cursor.length()?;
    let mut definitions = Vec::new();
    for _ in 0..count {
        let id = u32::try_from(cursor.varint()?)
            .map_err(|_| cursor.malformed("a namespace id above 32 bits"))?;
        definitions.push((NamespaceId(id), Namespace::decode(&mut cursor)?));
    }
    Ok((definitions, cursor.rest()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_frame_round_trips_and_is_as_long_as_said() {
        let timestamp = Timestamp::from_micros(1_760_000_000_000_000);
        let frames = [
            Frame::Txn { version: Version(300), timestamp, body: b"body" },
            Frame::Begin { txn: 9, timestamp },
            Frame::Part { txn: 9, bytes: b"part" },
            Frame::Commit { txn: 9, version: Version(5), timestamp, parts: 1, checksum: 77 },
            Frame::Abort { txn: 9 },
            Frame::Seal { successor: 12 },
            Frame::Footer { next_version: Version(6), timestamp },
        ];
        let mut out = Vec::new();
        for frame in &frames {
            let start = out.len();
            frame.encode(&mut out);
            assert_eq!(out.len() - start, frame.encoded_len(), "{frame:?}");
        }
        let mut cursor = Cursor::new("group", &out);
        for frame in frames {
            assert_eq!(Frame::decode(&mut cursor), Ok(frame));
        }
        assert!(cursor.is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(bytes: Vec<u8>) {
            let mut cursor = Cursor::new("group", &bytes);
            while !cursor.is_empty() {
                match Frame::decode(&mut cursor) {
                    Ok(Frame::Txn { body, .. }) => { let _ = split_body(body); }
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        }
    }
}
