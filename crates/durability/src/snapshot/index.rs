//! Indexes: where the blocks of a section are, and where the sections of a snapshot are.

use steadfast_core::codec::{Cursor, put_bytes, put_varint};
use steadfast_core::limits::STORED_KEY_BYTES_MAX;
use steadfast_core::{Result, Version};

use super::block::shared_len;
use super::piece::{PIECE_HEADER_BYTES, Sealed};

/// A block as its section's index has it.
#[derive(Debug, Clone)]
pub(super) struct BlockEntry {
    /// The key of its first row.
    pub(super) first_key: Box<[u8]>,
    /// The version of its first row: a key may begin in one block and end in another.
    pub(super) first_version: Version,
    /// Where it lies in the file.
    pub(super) offset: u64,
    /// Its bytes in the file, and what its checksum must be.
    pub(super) sealed: Sealed,
}

/// Encodes the index of a section as its blocks come.
#[derive(Debug, Default)]
pub(super) struct SectionIndexEncoder {
    entries: Vec<u8>,
    count: u64,
    last_key: Vec<u8>,
}

impl SectionIndexEncoder {
    pub(super) fn push(&mut self, first_key: &[u8], first_version: Version, sealed: Sealed) {
        let shared = shared_len(&self.last_key, first_key);
        put_varint(&mut self.entries, shared as u64);
        put_bytes(&mut self.entries, &first_key[shared..]);
        put_varint(&mut self.entries, first_version.0);
        put_varint(&mut self.entries, sealed.bytes);
        self.entries.extend_from_slice(&sealed.check.to_le_bytes());
        self.last_key.clear();
        self.last_key.extend_from_slice(first_key);
        self.count += 1;
    }

    /// The payload of the index; the next one begins.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.entries.len() + 4);
        put_varint(&mut out, self.count);
        out.append(&mut self.entries);
        self.last_key.clear();
        self.count = 0;
        out
    }
}

/// Reads the index of a section whose blocks lie from `offset` on and take `bytes`.
pub(super) fn decode_section_index(
    payload: &[u8],
    mut offset: u64,
    bytes: u64,
) -> Result<Vec<BlockEntry>> {
    let end = offset.saturating_add(bytes);
    let mut cursor = Cursor::new("section index", payload);
    let count = cursor.length()?;
    let mut entries: Vec<BlockEntry> = Vec::with_capacity(count.min(4096));
    let mut key = Vec::new();
    for _ in 0..count {
        let shared = usize::try_from(cursor.varint()?).unwrap_or(usize::MAX);
        let suffix = cursor.bytes()?;
        if shared > key.len() || shared + suffix.len() > STORED_KEY_BYTES_MAX {
            return Err(cursor.malformed("a key that cannot be"));
        }
        let continues = shared == key.len() && suffix.is_empty();
        let ascends = key[shared..] < *suffix;
        key.truncate(shared);
        key.extend_from_slice(suffix);
        let first_version = Version(cursor.varint()?);
        let sealed = Sealed { bytes: cursor.varint()?, check: cursor.u32()? };
        if let Some(last) = entries.last()
            && !ascends
            && !(continues && first_version < last.first_version)
        {
            return Err(cursor.malformed("blocks that are not in order"));
        }
        if sealed.bytes <= PIECE_HEADER_BYTES as u64 || sealed.bytes > end - offset {
            return Err(cursor.malformed("a block outside its section"));
        }
        entries.push(BlockEntry {
            first_key: key.as_slice().into(),
            first_version,
            offset,
            sealed,
        });
        offset += sealed.bytes;
    }
    cursor.end()?;
    if offset != end || entries.is_empty() {
        return Err(cursor.malformed("blocks that do not fill their section"));
    }
    Ok(entries)
}

/// A section as the top index has it: its blocks, its index, its filter, one after the other.
#[derive(Debug, Clone)]
pub(super) struct SectionEntry {
    /// The key of its first row.
    pub(super) first_key: Box<[u8]>,
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// Bytes of its blocks.
    pub(super) blocks_bytes: u64,
    pub(super) index: Sealed,
    pub(super) filter: Sealed,
    pub(super) rows: u64,
    pub(super) blocks: u64,
    /// Bytes of its blocks before they were compressed.
    pub(super) plain_bytes: u64,
}

impl SectionEntry {
    /// Where its index begins.
    pub(super) fn index_offset(&self) -> u64 {
        self.offset + self.blocks_bytes
    }

    /// Where its filter begins.
    pub(super) fn filter_offset(&self) -> u64 {
        self.index_offset() + self.index.bytes
    }

    /// Where it ends.
    pub(super) fn end(&self) -> u64 {
        self.filter_offset() + self.filter.bytes
    }
}

/// The payload of the top index.
pub(super) fn encode_top_index(sections: &[SectionEntry]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, sections.len() as u64);
    for section in sections {
        put_bytes(&mut out, &section.first_key);
        for field in [
            section.blocks_bytes,
            section.index.bytes,
            section.filter.bytes,
            section.rows,
            section.blocks,
            section.plain_bytes,
        ] {
            put_varint(&mut out, field);
        }
        out.extend_from_slice(&section.index.check.to_le_bytes());
        out.extend_from_slice(&section.filter.check.to_le_bytes());
    }
    out
}

/// Reads the top index of a file whose sections lie from `offset` up to `end`.
pub(super) fn decode_top_index(
    payload: &[u8],
    mut offset: u64,
    end: u64,
) -> Result<Vec<SectionEntry>> {
    let mut cursor = Cursor::new("top index", payload);
    let count = cursor.length()?;
    let mut sections: Vec<SectionEntry> = Vec::with_capacity(count.min(4096));
    for _ in 0..count {
        let first_key: Box<[u8]> = cursor.bytes()?.into();
        let mut fields = [0; 6];
        for field in &mut fields {
            *field = cursor.varint()?;
        }
        let [blocks_bytes, index_bytes, filter_bytes, rows, blocks, plain_bytes] = fields;
        let index = Sealed { bytes: index_bytes, check: cursor.u32()? };
        let filter = Sealed { bytes: filter_bytes, check: cursor.u32()? };
        if first_key.len() > STORED_KEY_BYTES_MAX
            || sections.last().is_some_and(|last| last.first_key >= first_key)
        {
            return Err(cursor.malformed("sections that are not in order"));
        }
        let mut left = end - offset;
        for bytes in [blocks_bytes, index_bytes, filter_bytes] {
            if bytes <= PIECE_HEADER_BYTES as u64 || bytes > left {
                return Err(cursor.malformed("a section outside the file"));
            }
            left -= bytes;
        }
        if blocks == 0 || blocks > rows || blocks > blocks_bytes / PIECE_HEADER_BYTES as u64 {
            return Err(cursor.malformed("a section with fewer rows than blocks"));
        }
        let section = SectionEntry {
            first_key,
            offset,
            blocks_bytes,
            index,
            filter,
            rows,
            blocks,
            plain_bytes,
        };
        offset = section.end();
        sections.push(section);
    }
    cursor.end()?;
    if offset != end {
        return Err(cursor.malformed("sections that do not fill the file"));
    }
    Ok(sections)
}
