//! Pieces: what a snapshot is made of between its header and its footer, each with checksums
//! that tie it to its place.

use std::borrow::Cow;

use steadfast_core::limits::SNAPSHOT_PLAIN_BYTES_MAX;
use steadfast_core::{Sabotage, sabotaged};

/// What came of a check; the reason is for people.
pub(super) type Checked<T> = Result<T, Cow<'static, str>>;

/// Bytes in front of a piece's payload.
pub(super) const PIECE_HEADER_BYTES: usize = 20;

/// What a piece holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    Block = 0xb1,
    SectionIndex = 0xb2,
    Filter = 0xb3,
    CommitTimes = 0xb4,
    Meta = 0xb5,
    TopIndex = 0xb6,
}

impl PieceKind {
    fn from_number(number: u8) -> Option<Self> {
        use PieceKind::{Block, CommitTimes, Filter, Meta, SectionIndex, TopIndex};
        let kinds = [Block, SectionIndex, Filter, CommitTimes, Meta, TopIndex];
        kinds.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// How blocks are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// In LZ4's block format where that makes them smaller. Needs the feature `lz4`.
    #[cfg(feature = "lz4")]
    Lz4,
}

impl Compression {
    /// As the header and the footer of a file have it.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::None => 0,
            #[cfg(feature = "lz4")]
            Self::Lz4 => LZ4,
        }
    }
}

/// What stands for LZ4, in a file and in a piece.
pub(super) const LZ4: u32 = 1;

/// Where the checksums of one snapshot start from: no byte of another database, or of another
/// snapshot, passes for one of this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed(u32);

impl Seed {
    pub(super) fn new(database: &[u8; 16], number: u64) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(database);
        hasher.update(&number.to_le_bytes());
        Self(hasher.finalize())
    }

    /// The checksum of bytes that lie at `offset` or belong to what lies there.
    pub(super) fn checksum(self, offset: u64, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(&offset.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// A piece that was appended: how to find it and to know it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sealed {
    /// With its header.
    pub(super) bytes: u64,
    /// Its header's checksum, which covers that of its payload.
    pub(super) check: u32,
}

/// Appends pieces.
#[derive(Debug)]
pub(super) struct Sealer {
    seed: Seed,
    #[cfg(feature = "lz4")]
    lz4: Option<Lz4Buffers>,
}

#[cfg(feature = "lz4")]
#[derive(Default)]
struct Lz4Buffers {
    table: lz4_flex::block::CompressTable,
    out: Vec<u8>,
}

#[cfg(feature = "lz4")]
impl std::fmt::Debug for Lz4Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lz4Buffers")
    }
}

impl Sealer {
    pub(super) fn new(seed: Seed, compression: Compression) -> Self {
        #[cfg(not(feature = "lz4"))]
        let _ = compression;
        Self {
            seed,
            #[cfg(feature = "lz4")]
            lz4: (compression == Compression::Lz4).then(Lz4Buffers::default),
        }
    }

    /// Appends `payload` as a piece that lies at `offset` of the file.
    pub(super) fn append(
        &mut self,
        out: &mut Vec<u8>,
        offset: u64,
        kind: PieceKind,
        payload: &[u8],
    ) -> Sealed {
        let seed = self.seed;
        let (codec, stored) = self.compress(kind, payload);
        let mut header = [0; PIECE_HEADER_BYTES];
        header[0] = kind as u8;
        header[1] = codec;
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a piece is below 4 GiB");
        header[4..8].copy_from_slice(&length(stored).to_le_bytes());
        header[8..12].copy_from_slice(&length(payload).to_le_bytes());
        header[12..16].copy_from_slice(&seed.checksum(offset, stored).to_le_bytes());
        let check = seed.checksum(offset, &header[..16]);
        header[16..].copy_from_slice(&check.to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(stored);
        Sealed { bytes: (PIECE_HEADER_BYTES + stored.len()) as u64, check }
    }

    #[cfg(feature = "lz4")]
    fn compress<'a>(&'a mut self, kind: PieceKind, payload: &'a [u8]) -> (u8, &'a [u8]) {
        use lz4_flex::block::{compress_into_with_table, get_maximum_output_size};
        if kind == PieceKind::Block
            && let Some(Lz4Buffers { table, out }) = &mut self.lz4
        {
            let room = get_maximum_output_size(payload.len());
            if out.len() < room {
                out.resize(room, 0);
            }
            if let Ok(length) = compress_into_with_table(payload, out, table)
                && length < payload.len()
            {
                return (1, &out[..length]);
            }
        }
        (0, payload)
    }

    #[cfg(not(feature = "lz4"))]
    fn compress<'a>(&'a mut self, _: PieceKind, payload: &'a [u8]) -> (u8, &'a [u8]) {
        (0, payload)
    }
}

/// The header of a piece, valid on its own: everything in it is what was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct PieceHeader {
    pub(super) kind: PieceKind,
    compressed: bool,
    stored: u32,
    plain: u32,
    payload_checksum: u32,
    pub(super) check: u32,
}

impl PieceHeader {
    /// Reads the header of a piece that lies at `offset`.
    pub(super) fn decode(seed: Seed, offset: u64, bytes: &[u8]) -> Checked<Self> {
        let header = bytes.first_chunk::<PIECE_HEADER_BYTES>().ok_or("it is cut short")?;
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let check = word(16);
        // Most of what is not a header is told by this, without the cost of a checksum.
        let kind = PieceKind::from_number(header[0]).ok_or("no piece of a snapshot begins here")?;
        let valid = seed.checksum(offset, &header[..16]) == check;
        if !valid && !sabotaged(Sabotage::IgnoreSnapshotChecksum) {
            return Err("the header of a piece fails its checksum".into());
        }
        let (stored, plain) = (word(4), word(8));
        let compressed = match (header[1], header[2], header[3]) {
            (0, 0, 0) if stored == plain => false,
            (1, 0, 0) if stored < plain && kind == PieceKind::Block => true,
            _ => return Err("the header of a piece cannot be".into()),
        };
        if kind == PieceKind::Block && plain as usize > SNAPSHOT_PLAIN_BYTES_MAX {
            return Err("a block larger than there can be".into());
        }
        Ok(Self { kind, compressed, stored, plain, payload_checksum: word(12), check })
    }

    /// Bytes of the piece with this header.
    pub(super) const fn piece_bytes(&self) -> u64 {
        PIECE_HEADER_BYTES as u64 + self.stored as u64
    }

    /// Checks the payload, the bytes after this header, and decompresses it into `buffer` if
    /// that is needed.
    pub(super) fn payload<'a>(
        &self,
        seed: Seed,
        offset: u64,
        stored: &'a [u8],
        buffer: &'a mut Vec<u8>,
    ) -> Checked<&'a [u8]> {
        if stored.len() != self.stored as usize {
            return Err("a piece is not as long as it says".into());
        }
        let valid = seed.checksum(offset, stored) == self.payload_checksum;
        if !valid && !sabotaged(Sabotage::IgnoreSnapshotChecksum) {
            return Err("a piece fails its checksum".into());
        }
        if !self.compressed {
            return Ok(stored);
        }
        buffer.resize(self.plain as usize, 0);
        decompress(stored, buffer)?;
        Ok(buffer)
    }
}

#[cfg(feature = "lz4")]
fn decompress(stored: &[u8], plain: &mut [u8]) -> Checked<()> {
    match lz4_flex::block::decompress_into(stored, plain) {
        Ok(length) if length == plain.len() => Ok(()),
        _ => Err("a block cannot be decompressed".into()),
    }
}

#[cfg(not(feature = "lz4"))]
fn decompress(_: &[u8], _: &mut [u8]) -> Checked<()> {
    Err("a compressed block, and this build of the library has no feature `lz4`".into())
}

/// Checks all of `bytes` as one piece of a kind that lies at `offset`, and gives its payload.
/// `check` is what an index says of it.
pub(super) fn open_piece<'a>(
    seed: Seed,
    offset: u64,
    bytes: &'a [u8],
    kind: PieceKind,
    check: u32,
    buffer: &'a mut Vec<u8>,
) -> Checked<&'a [u8]> {
    let header = PieceHeader::decode(seed, offset, bytes)?;
    if header.kind != kind || header.check != check {
        return Err("another piece than the one that should be here".into());
    }
    header.payload(seed, offset, &bytes[PIECE_HEADER_BYTES..], buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_passes_only_at_its_place_in_its_snapshot() {
        let seed = Seed::new(&[7; 16], 3);
        let mut bytes = Vec::new();
        let kind = PieceKind::Filter;
        let sealed = Sealer::new(seed, Compression::None).append(&mut bytes, 48, kind, b"payload");
        let open = |seed, offset, kind, check| {
            open_piece(seed, offset, &bytes, kind, check, &mut Vec::new()).map(<[u8]>::to_vec)
        };
        assert_eq!(open(seed, 48, kind, sealed.check).unwrap(), b"payload");
        assert!(open(seed, 49, kind, sealed.check).is_err(), "another offset");
        assert!(open(seed, 48, PieceKind::Meta, sealed.check).is_err(), "another kind");
        assert!(open(seed, 48, kind, !sealed.check).is_err(), "not what the index says");
        assert!(open(Seed::new(&[7; 16], 4), 48, kind, sealed.check).is_err(), "another snapshot");
        assert!(open(Seed::new(&[8; 16], 3), 48, kind, sealed.check).is_err(), "another database");
    }
}
