//! A group: what one write hands to the kernel. Header, frames, zeros, trailer.

use crc32fast::Hasher;
use steadfast_core::limits::GROUP_BYTES_MAX;
use steadfast_core::{Sabotage, sabotaged};

use crate::error::CorruptionKind;
use crate::wal::segment::{Epoch, SegmentHeader};

/// Bytes in front of a group's frames.
pub const GROUP_HEADER_BYTES: usize = 20;
/// Bytes after a group's frames and padding.
pub const TRAILER_BYTES: usize = 8;
/// Groups start on multiples of this, so that after damage the next one can be found by
/// testing aligned positions only.
pub const GROUP_ALIGNMENT: u64 = ALIGNMENT_LEN as u64;
/// [`GROUP_ALIGNMENT`] as a length in memory.
pub(crate) const ALIGNMENT_LEN: usize = 8;
/// Shortest group: a header, a trailer, padded.
pub const GROUP_BYTES_MIN: u64 = MIN_LEN as u64;
/// [`GROUP_BYTES_MIN`] as a length in memory.
pub(crate) const MIN_LEN: usize = 32;

/// What a group is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum GroupKind {
    /// It carries frames of transactions.
    Data = 0xd1,
    /// It carries no frame, only the promise in its header.
    Beacon = 0xd2,
    /// It closes a segment and names the next.
    Seal = 0xd3,
    /// It closes the log: the database was closed cleanly.
    Footer = 0xd4,
    /// It carries no frame. What is before it was written in an earlier life and written again
    /// by recovery; a transaction that was still streaming then is not completed behind it.
    Open = 0xd5,
}

impl GroupKind {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Data, Self::Beacon, Self::Seal, Self::Footer, Self::Open]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// What is mixed into every checksum of a segment besides the bytes: database, epoch and
/// segment number, folded once.
#[derive(Debug, Clone, Copy)]
pub struct ChecksumSeed(u32);

impl ChecksumSeed {
    /// The seed of the segment that `header` begins.
    pub fn of(header: &SegmentHeader) -> Self {
        Self::new(&header.database, header.epoch, header.number)
    }

    fn new(database: &[u8; 16], epoch: Epoch, segment: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(database);
        let epoch = match sabotaged(Sabotage::EpochNotMixedIn) {
            false => epoch,
            true => Epoch { counter: 0, random: 0 },
        };
        for field in [epoch.counter, epoch.random, segment] {
            hasher.update(&field.to_le_bytes());
        }
        Self(hasher.finalize())
    }

    fn header_checksum(self, position: u64, first_16: &[u8]) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.0);
        hasher.update(&position.to_le_bytes());
        hasher.update(first_16);
        hasher.finalize()
    }

    fn trailer_tag(self, position: u64, length: u32, chain: u32) -> u32 {
        let mut hasher = Hasher::new_with_initial(!self.0);
        hasher.update(&position.to_le_bytes());
        hasher.update(&length.to_le_bytes());
        hasher.update(&chain.to_le_bytes());
        hasher.finalize()
    }
}

/// The chain hash after a group: over the chain hash before it and every byte of it up to
/// the trailer, so that a group is valid only behind the very groups it was written behind.
fn chain_after(before: u32, header_frames_padding: &[u8]) -> u32 {
    let before = if sabotaged(Sabotage::IgnoreChain) { 0 } else { before };
    let mut hasher = Hasher::new_with_initial(before);
    hasher.update(header_frames_padding);
    hasher.finalize()
}

/// A group's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupHeader {
    /// What it is there for.
    pub kind: GroupKind,
    /// The highest durability that a commit in it asked for: 0 buffered, 1 batched, 2 strict.
    pub level: u8,
    /// How many frames it holds.
    pub frames: u16,
    /// Its length in bytes, from header to trailer.
    pub length: u32,
    /// The log was durable up to this position when the group was written: the end of the
    /// log when the last successful sync began.
    pub durable_upto: u64,
}

impl GroupHeader {
    /// Reads the header at log position `position`. `Some` only if it is valid on its own:
    /// its checksum is right for this segment and this position.
    pub fn decode(seed: ChecksumSeed, position: u64, bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; GROUP_HEADER_BYTES] = bytes.first_chunk()?;
        let kind = GroupKind::from_number(bytes[0])?;
        let level = bytes[1];
        let frames = u16::from_le_bytes([bytes[2], bytes[3]]);
        let length = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let (low, high) = (GROUP_BYTES_MIN, GROUP_BYTES_MAX as u64);
        if level > 2
            || !(low..=high).contains(&u64::from(length))
            || !u64::from(length).is_multiple_of(GROUP_ALIGNMENT)
        {
            return None;
        }
        let (first_16, checksum) = bytes.split_at(16);
        let valid = seed.header_checksum(position, first_16).to_le_bytes() == checksum;
        if !valid && !sabotaged(Sabotage::IgnoreGroupHeaderChecksum) {
            return None;
        }
        let durable_upto = u64::from_le_bytes(first_16[8..].try_into().ok()?);
        // The writer stamps what was durable before it wrote; anything above is no promise.
        (durable_upto <= position).then_some(Self { kind, level, frames, length, durable_upto })
    }
}

/// Builds a group in memory.
#[derive(Debug, Default)]
pub struct GroupBuilder {
    bytes: Vec<u8>,
    frames: u16,
}

impl GroupBuilder {
    /// Begins a new group.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(GROUP_HEADER_BYTES, 0);
        self.frames = 0;
    }

    /// How many frames it has.
    pub fn frames(&self) -> u16 {
        self.frames
    }

    /// Its length so far, without padding and trailer.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has no frame.
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Adds a frame that `write` appends to the buffer.
    pub fn frame(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.frames = self.frames.checked_add(1).expect("callers stop at u16::MAX frames");
    }

    /// The length the group would have, padded to a multiple of `alignment`.
    pub fn padded_len(&self, alignment: u64) -> u64 {
        (self.bytes.len() as u64 + TRAILER_BYTES as u64)
            .max(GROUP_BYTES_MIN)
            .next_multiple_of(alignment)
    }

    /// Completes the group: pads it to `length` bytes and fills in header and trailer.
    /// Returns its bytes and the chain hash after it.
    pub fn finish(
        &mut self,
        seed: ChecksumSeed,
        position: u64,
        chain: u32,
        stamp: Stamp,
        length: u64,
    ) -> (&[u8], u32) {
        let length = usize::try_from(length).expect("a group's length fits memory");
        assert!(
            length >= self.bytes.len() + TRAILER_BYTES && length <= GROUP_BYTES_MAX,
            "a group of {} bytes cannot take {length}",
            self.bytes.len()
        );
        self.bytes.resize(length - TRAILER_BYTES, 0);
        seal_group(&mut self.bytes, seed, position, chain, stamp, self.frames)
    }
}

/// What a group's header says besides counts and checksums.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// What the group is there for.
    pub kind: GroupKind,
    /// The highest durability asked for in it.
    pub level: u8,
    /// The promise it carries.
    pub durable_upto: u64,
}

/// Writes header and trailer around `bytes`, which hold room for the header, the frames and
/// the padding.
pub(crate) fn seal_group(
    bytes: &mut Vec<u8>,
    seed: ChecksumSeed,
    position: u64,
    chain: u32,
    stamp: Stamp,
    frames: u16,
) -> (&[u8], u32) {
    assert!(stamp.durable_upto <= position, "a promise covers only what came before");
    let length = u32::try_from(bytes.len() + TRAILER_BYTES).expect("groups have a limit");
    bytes[0] = stamp.kind as u8;
    bytes[1] = stamp.level;
    bytes[2..4].copy_from_slice(&frames.to_le_bytes());
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..16].copy_from_slice(&stamp.durable_upto.to_le_bytes());
    let checksum = seed.header_checksum(position, &bytes[..16]);
    bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
    let chain = chain_after(chain, bytes);
    bytes.extend_from_slice(&chain.to_le_bytes());
    bytes.extend_from_slice(&seed.trailer_tag(position, length, chain).to_le_bytes());
    (bytes, chain)
}

/// Checks the whole group that `header` begins against the chain hash before it. Returns the
/// chain hash after it, or what is wrong: without a valid trailer its write was cut short,
/// with one its bytes were changed.
pub fn check_group(
    seed: ChecksumSeed,
    position: u64,
    chain: u32,
    header: &GroupHeader,
    bytes: &[u8],
) -> Result<u32, CorruptionKind> {
    let stored = trailer_chain(seed, position, bytes).ok_or(CorruptionKind::MissingTrailer)?;
    debug_assert_eq!(bytes.len(), header.length as usize);
    let computed = chain_after(chain, &bytes[..bytes.len() - TRAILER_BYTES]);
    if computed == stored || sabotaged(Sabotage::IgnoreGroupChecksum) {
        Ok(stored)
    } else {
        Err(CorruptionKind::BadChecksum)
    }
}

/// The chain hash in the trailer at the end of `bytes`, if that is the trailer of a group
/// that begins at `position` and is as long as `bytes`.
pub fn trailer_chain(seed: ChecksumSeed, position: u64, bytes: &[u8]) -> Option<u32> {
    let (chain, tag) = bytes.last_chunk::<TRAILER_BYTES>()?.split_at(4);
    let chain = u32::from_le_bytes(chain.try_into().ok()?);
    let length = u32::try_from(bytes.len()).ok()?;
    (seed.trailer_tag(position, length, chain).to_le_bytes() == tag).then_some(chain)
}

/// Whether a valid trailer of a group that begins at `position` stands anywhere in `bytes`,
/// which begin at that position: the proof that such a group was written, when its header is
/// gone.
pub fn has_trailer(seed: ChecksumSeed, position: u64, bytes: &[u8]) -> bool {
    (MIN_LEN..=bytes.len().min(GROUP_BYTES_MAX))
        .step_by(ALIGNMENT_LEN)
        .any(|length| trailer_chain(seed, position, &bytes[..length]).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> ChecksumSeed {
        ChecksumSeed::new(b"0123456789abcdef", Epoch { counter: 1, random: 2 }, 3)
    }

    const STAMP: Stamp = Stamp { kind: GroupKind::Data, level: 2, durable_upto: 64 };

    fn group() -> (Vec<u8>, u32) {
        let mut builder = GroupBuilder::default();
        builder.clear();
        builder.frame(|out| out.extend_from_slice(b"a frame"));
        let length = builder.padded_len(64);
        let (bytes, chain) = builder.finish(seed(), 128, 7, STAMP, length);
        (bytes.to_vec(), chain)
    }

    fn check(bytes: &[u8], position: u64, chain: u32) -> Result<u32, CorruptionKind> {
        let header = GroupHeader::decode(seed(), position, bytes)
            .filter(|header| header.length as usize == bytes.len())
            .ok_or(CorruptionKind::BadGroupHeader)?;
        check_group(seed(), position, chain, &header, bytes)
    }

    #[test]
    fn a_group_is_valid_only_where_and_behind_what_it_was_written() {
        let (bytes, chain) = group();
        assert_eq!(bytes.len(), 64);
        assert_eq!(check(&bytes, 128, 7), Ok(chain));
        assert_eq!(check(&bytes, 136, 7), Err(CorruptionKind::BadGroupHeader));
        assert_eq!(check(&bytes, 128, 8), Err(CorruptionKind::BadChecksum));
        let other = ChecksumSeed::new(b"0123456789abcdef", Epoch { counter: 1, random: 3 }, 3);
        assert_eq!(GroupHeader::decode(other, 128, &bytes), None, "another epoch");
    }

    #[test]
    fn refuses_a_group_with_any_bit_flipped() {
        let (good, _) = group();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&bad, 128, 7).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn tells_a_group_cut_short_from_one_that_was_changed() {
        let (good, _) = group();
        let mut torn = good.clone();
        torn[60..].fill(0);
        assert_eq!(check(&torn, 128, 7), Err(CorruptionKind::MissingTrailer));
        assert!(!has_trailer(seed(), 128, &torn));
        let mut changed = good.clone();
        changed[22] ^= 1;
        assert_eq!(check(&changed, 128, 7), Err(CorruptionKind::BadChecksum));
        let mut headless = good;
        headless[..20].fill(0);
        headless.extend_from_slice(&[0; 64]);
        assert!(has_trailer(seed(), 128, &headless), "found without its header");
    }
}
