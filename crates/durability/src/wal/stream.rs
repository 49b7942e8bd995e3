//! A transaction above the frame limit, as the frames it is streamed in.

use steadfast_core::{Namespace, NamespaceId, Timestamp, Version};

use crate::wal::frame::{Frame, encode_definitions};
use crate::wal::writer::Outgoing;

/// The frames of a streamed transaction: begin, parts, and, once it has a version, commit.
#[derive(Debug)]
pub struct Stream {
    txn: u64,
    timestamp: Timestamp,
    body: Vec<u8>,
    part_bytes: usize,
    defined: Vec<NamespaceId>,
    checksum: u32,
}

impl Stream {
    /// Streams `writes`, and the definitions of the namespaces that the log does not know
    /// yet, in frames of at most `frame_bytes_max` bytes. `txn` names the transaction until
    /// it has a version; no two of one epoch may share it.
    pub fn new(
        txn: u64,
        timestamp: Timestamp,
        definitions: &[(NamespaceId, Namespace)],
        writes: &[u8],
        frame_bytes_max: usize,
    ) -> Self {
        let mut body = Vec::with_capacity(writes.len() + 64);
        encode_definitions(&mut body, definitions.iter().map(|(id, ns)| (*id, ns)));
        body.extend_from_slice(writes);
        // Kind, length and id stand in front of a part.
        let part_bytes = frame_bytes_max.saturating_sub(32).max(1);
        let checksum = crc32fast::hash(&body);
        let defined = definitions.iter().map(|definition| definition.0).collect();
        Self { txn, timestamp, body, part_bytes, defined, checksum }
    }

    /// The id that names the transaction in the log.
    pub const fn txn(&self) -> u64 {
        self.txn
    }

    /// The begin and the parts, in order.
    pub fn frames(&self) -> impl Iterator<Item = Outgoing<'_>> {
        let begin = Frame::Begin { txn: self.txn, timestamp: self.timestamp };
        let parts = self.body.chunks(self.part_bytes);
        let parts = parts.map(|bytes| Frame::Part { txn: self.txn, bytes });
        std::iter::once(begin).chain(parts).map(Outgoing::Stream)
    }

    /// The commit.
    pub fn commit(&self, version: Version, timestamp: Timestamp) -> Outgoing<'_> {
        let parts = self.body.len().div_ceil(self.part_bytes) as u64;
        let (txn, checksum) = (self.txn, self.checksum);
        let frame = Frame::Commit { txn, version, timestamp, parts, checksum };
        Outgoing::StreamCommit { frame, defined: &self.defined }
    }

    /// The end of a transaction that is not committed.
    pub const fn abort(&self) -> Outgoing<'_> {
        Outgoing::Stream(Frame::Abort { txn: self.txn })
    }
}
