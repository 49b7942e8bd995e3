//! The header of a segment: whose it is, where it lies in the log, what it continues.

use steadfast_core::codec::Cursor;
use steadfast_core::limits::{SEGMENT_BYTES_MAX, SEGMENT_NUMBER_MAX, VERSION_MAX};

use crate::error::CorruptionKind;

/// Bytes of a segment header: one block, so that the groups after it start on a block. The
/// checksum covers all of it.
pub const HEADER_BYTES: u64 = HEADER_LEN as u64;

/// [`HEADER_BYTES`] as a length in memory.
pub(crate) const HEADER_LEN: usize = 4096;

/// The format of segments, groups and frames.
pub const WAL_FORMAT: u32 = 1;

const MAGIC: [u8; 8] = *b"STDFWAL\n";

/// One writing life of a database: a counter and random bits, new at every opening that
/// writes. Mixed into every checksum of the log, so that nothing written in one life passes
/// for a record of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Counts the lives, from 1.
    pub counter: u64,
    /// Tells apart lives that had the same counter, as after a crash inside recovery.
    pub random: u64,
}

/// What a segment says of itself. Log positions count the bytes of groups in all segments,
/// from 0; headers do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The database.
    pub database: [u8; 16],
    /// Its number, from 1.
    pub number: u64,
    /// The life it was written in.
    pub epoch: Epoch,
    /// Every version given out while this is the newest segment is below this.
    pub version_ceiling: u64,
    /// The log was durable up to this position when the header was written.
    pub durable_upto: u64,
    /// The log position of its first group.
    pub first_position: u64,
    /// The segment it continues; 0 for the first.
    pub predecessor: u64,
    /// The chain hash at `first_position`, which is where the predecessor's valid part ends.
    pub chain: u32,
    /// What it was made for.
    pub origin: Origin,
}

/// What a segment was made for, which decides what may be in it before the MANIFEST names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Origin {
    /// To go on in: it has no group before the MANIFEST names it.
    Rotation = 0,
    /// To write again what recovery found: it has those groups, and an open group behind them,
    /// before the MANIFEST names it.
    Recovery = 1,
}

impl SegmentHeader {
    /// The header block.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&WAL_FORMAT.to_le_bytes());
        out.extend_from_slice(&self.chain.to_le_bytes());
        out.extend_from_slice(&self.database);
        for field in [
            self.number,
            self.epoch.counter,
            self.epoch.random,
            self.version_ceiling,
            self.durable_upto,
            self.first_position,
            self.predecessor,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&(self.origin as u32).to_le_bytes());
        out.resize(HEADER_LEN - 4, 0);
        let checksum = crc32fast::hash(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads a header block.
    pub fn decode(block: &[u8]) -> Result<Self, HeaderError> {
        let bad = HeaderError::Corrupt(CorruptionKind::BadHeader);
        let Some((fields, checksum)) = block.get(..HEADER_LEN).and_then(<[u8]>::split_last_chunk)
        else {
            return Err(bad);
        };
        if crc32fast::hash(fields) != u32::from_le_bytes(*checksum) {
            return Err(bad);
        }
        Self::decode_fields(fields).map_err(|_| bad)?
    }

    fn decode_fields(fields: &[u8]) -> steadfast_core::Result<Result<Self, HeaderError>> {
        let mut cursor = Cursor::new("segment header", fields);
        if cursor.array()? != MAGIC {
            return Err(cursor.malformed("another magic number"));
        }
        let format = cursor.u32()?;
        if format != WAL_FORMAT {
            return Ok(Err(HeaderError::NewerFormat(format)));
        }
        let chain = cursor.u32()?;
        let database = cursor.array()?;
        let number = cursor.u64()?;
        let epoch = Epoch { counter: cursor.u64()?, random: cursor.u64()? };
        let header = Self {
            database,
            number,
            epoch,
            version_ceiling: cursor.u64()?,
            durable_upto: cursor.u64()?,
            first_position: cursor.u64()?,
            predecessor: cursor.u64()?,
            chain,
            origin: match cursor.u32()? {
                0 => Origin::Rotation,
                1 => Origin::Recovery,
                _ => return Err(cursor.malformed("an unknown origin")),
            },
        };
        let sound = header.predecessor < header.number
            && header.first_position <= u64::MAX - SEGMENT_BYTES_MAX * 2
            && header.durable_upto <= header.first_position
            && header.version_ceiling <= VERSION_MAX * 2
            && header.number <= SEGMENT_NUMBER_MAX;
        Ok(if sound { Ok(header) } else { Err(HeaderError::Corrupt(CorruptionKind::Undecodable)) })
    }

    /// Where in the file the log position `position` lies.
    pub fn offset_of(&self, position: u64) -> u64 {
        assert!(position >= self.first_position, "a position before its segment");
        HEADER_BYTES + (position - self.first_position)
    }

    /// The log position at `offset` in the file.
    pub fn position_at(&self, offset: u64) -> u64 {
        self.first_position + offset.saturating_sub(HEADER_BYTES)
    }
}

/// Why a block is not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// It is damaged, or never was one.
    Corrupt(CorruptionKind),
    /// It is of a format this release does not know.
    NewerFormat(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn header() -> SegmentHeader {
        SegmentHeader {
            database: *b"0123456789abcdef",
            number: 3,
            epoch: Epoch { counter: 2, random: 99 },
            version_ceiling: 1000,
            durable_upto: 4096,
            first_position: 4096,
            predecessor: 2,
            chain: 0x1234_5678,
            origin: Origin::Recovery,
        }
    }

    #[test]
    fn a_header_round_trips() {
        assert_eq!(SegmentHeader::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn refuses_a_header_with_any_bit_flipped() {
        let good = header().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
        }
        assert!(SegmentHeader::decode(&good[..100]).is_err());
        assert!(SegmentHeader::decode(&[0; 4096]).is_err());
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let mut block = header().encode();
        block[8..12].copy_from_slice(&(WAL_FORMAT + 1).to_le_bytes());
        let end = block.len() - 4;
        let checksum = crc32fast::hash(&block[..end]);
        block[end..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&block), Err(HeaderError::NewerFormat(WAL_FORMAT + 1)));
    }
}
