//! The two ends of a snapshot: a header that says whose it is, a footer that everything else is
//! found from.

use steadfast_core::{Sabotage, sabotaged};

use super::piece::{LZ4, PIECE_HEADER_BYTES, Seed};
use crate::error::{CorruptionKind, Error, Result};

const HEADER_MAGIC: [u8; 8] = *b"STDFSNP\n";
const FOOTER_MAGIC: [u8; 8] = *b"STDFEND\n";

/// The newest format of snapshots that this release knows.
pub const SNAPSHOT_FORMAT: u32 = 1;

pub(super) const HEADER_BYTES: usize = 48;
pub(super) const FOOTER_BYTES: usize = 128;

/// Bytes at the end of a footer that keep their meaning in every format: its length, format,
/// checksum and magic.
const TAIL_BYTES: usize = 20;

/// Begins the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) database: [u8; 16],
    pub(super) number: u64,
    pub(super) compression: u32,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&HEADER_MAGIC);
        out[8..12].copy_from_slice(&SNAPSHOT_FORMAT.to_le_bytes());
        out[12..16].copy_from_slice(&self.compression.to_le_bytes());
        out[16..32].copy_from_slice(&self.database);
        out[32..40].copy_from_slice(&self.number.to_le_bytes());
        let seed = Seed::new(&self.database, self.number);
        let checksum = seed.checksum(0, &out[..44]);
        out[44..].copy_from_slice(&checksum.to_le_bytes());
        out
    }
}

impl Header {
    /// The database that the header in `bytes` names; `None` if there is no such header.
    pub(super) fn database_of(bytes: &[u8]) -> Option<[u8; 16]> {
        let known = bytes.get(..8)? == HEADER_MAGIC;
        known.then(|| bytes.get(16..32)?.try_into().ok()).flatten()
    }
}

/// Ends the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) database: [u8; 16],
    pub(super) number: u64,
    pub(super) version: u64,
    pub(super) rows: u64,
    pub(super) payload_bytes: u64,
    pub(super) file_bytes: u64,
    /// Where the commit times begin, which is where the sections end. None if it is where the
    /// meta block begins.
    pub(super) times_offset: u64,
    pub(super) meta_offset: u64,
    pub(super) top_offset: u64,
    pub(super) times_check: u32,
    pub(super) meta_check: u32,
    pub(super) top_check: u32,
    pub(super) compression: u32,
    pub(super) blocks: u64,
    pub(super) sections: u32,
}

impl Footer {
    pub(super) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(&self.database);
        for field in [
            self.number,
            self.version,
            self.rows,
            self.payload_bytes,
            self.file_bytes,
            self.times_offset,
            self.meta_offset,
            self.top_offset,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        for field in [self.times_check, self.meta_check, self.top_check, self.compression] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&self.blocks.to_le_bytes());
        out.extend_from_slice(&self.sections.to_le_bytes());
        let length = u32::try_from(FOOTER_BYTES).expect("a small constant");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&SNAPSHOT_FORMAT.to_le_bytes());
        let seed = Seed::new(&self.database, self.number);
        let offset = self.file_bytes - FOOTER_BYTES as u64;
        out.extend_from_slice(&seed.checksum(offset, &out).to_le_bytes());
        out.extend_from_slice(&FOOTER_MAGIC);
        out.try_into().expect("the fields above are as long as said")
    }

    /// The checksum at the end: stands for the whole file, since it covers the checksums of
    /// what covers the rest.
    pub(super) fn checksum(&self) -> u32 {
        let bytes = self.encode();
        u32::from_le_bytes([bytes[116], bytes[117], bytes[118], bytes[119]])
    }

    /// Reads the footer of a file of `file_bytes` bytes that ends with `tail`.
    pub(super) fn decode(
        label: &str,
        database: &[u8; 16],
        number: u64,
        file_bytes: u64,
        tail: &[u8],
    ) -> Result<Self> {
        let offset = file_bytes.saturating_sub(FOOTER_BYTES as u64);
        let corrupt = |kind| Error::Corrupt { file: label.to_owned(), offset, kind };
        let bad = || corrupt(CorruptionKind::BadFooter);
        let end = tail.last_chunk::<TAIL_BYTES>().ok_or_else(bad)?;
        let word = |at: usize| u32::from_le_bytes([end[at], end[at + 1], end[at + 2], end[at + 3]]);
        let (length, format, checksum) = (word(0) as usize, word(4), word(8));
        if end[12..] != FOOTER_MAGIC || length < 24 + TAIL_BYTES || length > tail.len() {
            return Err(bad());
        }
        let bytes = &tail[tail.len() - length..];
        let mut fields = Fields(bytes);
        let (found_database, found_number) = (fields.array::<16>(), fields.u64());
        let seed = Seed::new(&found_database, found_number);
        // The checksum and the magic themselves are the last twelve bytes.
        let valid = seed.checksum(file_bytes - length as u64, &bytes[..length - 12]) == checksum;
        if !valid && !sabotaged(Sabotage::IgnoreSnapshotChecksum) {
            return Err(bad());
        }
        if found_database != *database {
            return Err(corrupt(CorruptionKind::Foreign));
        }
        if found_number != number {
            return Err(bad());
        }
        if format > SNAPSHOT_FORMAT {
            let file = label.to_owned();
            return Err(Error::NewerFormat { file, found: format, known: SNAPSHOT_FORMAT });
        }
        if format != SNAPSHOT_FORMAT || length != FOOTER_BYTES {
            return Err(bad());
        }
        let footer = Self {
            database: found_database,
            number: found_number,
            version: fields.u64(),
            rows: fields.u64(),
            payload_bytes: fields.u64(),
            file_bytes: fields.u64(),
            times_offset: fields.u64(),
            meta_offset: fields.u64(),
            top_offset: fields.u64(),
            times_check: fields.u32(),
            meta_check: fields.u32(),
            top_check: fields.u32(),
            compression: fields.u32(),
            blocks: fields.u64(),
            sections: fields.u32(),
        };
        if !footer.is_possible(file_bytes) {
            return Err(bad());
        }
        if footer.compression == LZ4 && !cfg!(feature = "lz4") {
            let reason = "compressed with LZ4, and this build has not the feature `lz4`";
            return Err(Error::Unsupported { file: label.to_owned(), reason });
        }
        Ok(footer)
    }

    /// Where the footer begins.
    pub(super) const fn offset(&self) -> u64 {
        self.file_bytes - FOOTER_BYTES as u64
    }

    fn is_possible(&self, file_bytes: u64) -> bool {
        let piece = PIECE_HEADER_BYTES as u64;
        let times = self.meta_offset.checked_sub(self.times_offset);
        self.file_bytes == file_bytes
            && self.times_offset >= HEADER_BYTES as u64
            && times.is_some_and(|times| times == 0 || times > piece)
            && self.meta_offset.checked_add(piece).is_some_and(|end| end < self.top_offset)
            && self.top_offset.checked_add(piece).is_some_and(|end| end < self.offset())
            && self.compression <= LZ4
            && u64::from(self.sections) <= self.blocks
            && self.blocks <= self.rows
    }
}

/// Fields of a footer whose length was checked.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (first, rest) = self.0.split_first_chunk().expect("the footer's length was checked");
        self.0 = rest;
        *first
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }
}
