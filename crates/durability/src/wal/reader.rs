//! Reads a segment group by group, and looks behind damage for evidence.
//!
//! Memory is bounded: one window of the file, never longer than the largest group and one
//! read. An I/O error is an error; only a read that says so is the end of the file.

use std::sync::Arc;

use steadfast_core::limits::GROUP_BYTES_MAX;
use steadfast_core::{Sabotage, sabotaged};

use crate::disk::{DiskFile, read_full_at};
use crate::error::{CorruptionKind, IoContext, Result};
use crate::layout::Layout;
use crate::wal::group::{
    ALIGNMENT_LEN, ChecksumSeed, GROUP_ALIGNMENT, GROUP_HEADER_BYTES, GroupHeader, MIN_LEN,
    TRAILER_BYTES, check_group, has_trailer,
};
use crate::wal::segment::{HEADER_BYTES, SegmentHeader};

/// Bytes asked of the disk at first: many segments are small, and zeroing memory for more than
/// they have would be most of the time that opening takes.
const FIRST_READ_BYTES: usize = 32 << 10;

/// Bytes asked of the disk at once after a few reads.
const READ_BYTES: usize = 1 << 20;

/// A part of a file in memory that moves forward.
struct Window {
    file: Arc<dyn DiskFile>,
    label: String,
    /// File offset of `bytes[0]`.
    offset: u64,
    bytes: Vec<u8>,
    at_end: bool,
    /// Bytes to ask for next.
    read_bytes: usize,
}

impl Window {
    fn new(file: Arc<dyn DiskFile>, label: String, offset: u64) -> Self {
        Self { file, label, offset, bytes: Vec::new(), at_end: false, read_bytes: FIRST_READ_BYTES }
    }

    /// The bytes from `offset` on: `wanted` of them, fewer only at the end of the file.
    fn at(&mut self, offset: u64, wanted: usize) -> Result<&[u8]> {
        let start = offset.checked_sub(self.offset).and_then(|n| usize::try_from(n).ok());
        match start {
            Some(start) if start + wanted <= self.bytes.len() || self.at_end => {}
            Some(start) if start <= self.bytes.len() => self.refill(start, wanted)?,
            _ => {
                self.offset = offset;
                self.bytes.clear();
                self.at_end = false;
                self.refill(0, wanted)?;
            }
        }
        let start = usize::try_from(offset - self.offset).unwrap_or(usize::MAX);
        let bytes = self.bytes.get(start..).unwrap_or_default();
        Ok(&bytes[..wanted.min(bytes.len())])
    }

    /// Drops what is before `start` and reads on until `wanted` bytes are there.
    fn refill(&mut self, start: usize, wanted: usize) -> Result<()> {
        self.bytes.drain(..start);
        self.offset += start as u64;
        while self.bytes.len() < wanted && !self.at_end {
            let have = self.bytes.len();
            self.bytes.resize(have + self.read_bytes.max(wanted - have), 0);
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES);
            let from = self.offset + have as u64;
            let n = read_full_at(&*self.file, from, &mut self.bytes[have..])
                .or_else(|e| if sabotaged(Sabotage::ErrorReadAsEnd) { Ok(0) } else { Err(e) })
                .at(&*self.label, "read")?;
            self.at_end = n < self.bytes.len() - have;
            self.bytes.truncate(have + n);
        }
        Ok(())
    }
}

/// Where a segment stops being valid, and what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The log position of the end.
    pub position: u64,
    /// What stands there.
    pub tail: Tail,
}

/// What stands where a segment stops being valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Nothing: the end of the file, or zeros up to it.
    Nothing,
    /// Something that is not a whole group: its trailer is not there, so the write that made
    /// it never finished.
    Torn(CorruptionKind),
    /// Something whose trailer says that it was written whole, but that is not what was
    /// written.
    Changed(CorruptionKind),
}

/// A group that was read and checked.
#[derive(Debug)]
pub struct Group<'a> {
    /// The log position of its first byte.
    pub position: u64,
    /// Its header.
    pub header: GroupHeader,
    /// Its frames, and the zeros behind them.
    pub frames: &'a [u8],
    /// The chain hash after it.
    pub chain: u32,
    /// The whole group.
    pub bytes: &'a [u8],
}

/// Reads the groups of one segment in order.
pub struct SegmentReader {
    window: Window,
    header: SegmentHeader,
    seed: ChecksumSeed,
    position: u64,
    chain: u32,
}

impl SegmentReader {
    /// Reads the segment that `header` begins, from its first group.
    pub fn new(file: Arc<dyn DiskFile>, header: SegmentHeader) -> Self {
        Self {
            window: Window::new(file, Layout::segment_label(header.number), HEADER_BYTES),
            header,
            seed: ChecksumSeed::of(&header),
            position: header.first_position,
            chain: header.chain,
        }
    }

    /// Goes on at `position`, a boundary of groups with the chain hash `chain`.
    pub fn skip_to(&mut self, position: u64, chain: u32) {
        self.position = position;
        self.chain = chain;
    }

    /// The log position behind the last group that was read.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The chain hash there.
    pub const fn chain(&self) -> u32 {
        self.chain
    }

    /// The next group, or `Err(kind)` if what stands there is not a valid one.
    pub fn next_group(&mut self) -> Result<std::result::Result<Group<'_>, CorruptionKind>> {
        let offset = self.header.offset_of(self.position);
        let head = self.window.at(offset, GROUP_HEADER_BYTES)?;
        let Some(header) = GroupHeader::decode(self.seed, self.position, head) else {
            return Ok(Err(CorruptionKind::BadGroupHeader));
        };
        let length = header.length as usize;
        let bytes = self.window.at(offset, length)?;
        if bytes.len() < length {
            return Ok(Err(CorruptionKind::MissingTrailer));
        }
        match check_group(self.seed, self.position, self.chain, &header, bytes) {
            Err(kind) => Ok(Err(kind)),
            Ok(chain) => {
                let position = self.position;
                self.position += u64::from(header.length);
                self.chain = chain;
                let frames = &bytes[GROUP_HEADER_BYTES..length - TRAILER_BYTES];
                Ok(Ok(Group { position, header, frames, chain, bytes }))
            }
        }
    }

    /// Says what stands at the reader's position, where [`SegmentReader::next_group`] found
    /// no valid group, looking up to the end of the file.
    pub fn end(&mut self, kind: CorruptionKind) -> Result<End> {
        let position = self.position;
        let offset = self.header.offset_of(position);
        let tail = match kind {
            CorruptionKind::BadChecksum => Tail::Changed(kind),
            CorruptionKind::MissingTrailer => Tail::Torn(kind),
            _ if self.is_zero_from(offset)? => Tail::Nothing,
            _ => {
                let bytes = self.window.at(offset, GROUP_BYTES_MAX)?;
                if has_trailer(self.seed, position, bytes) {
                    Tail::Changed(kind)
                } else {
                    Tail::Torn(kind)
                }
            }
        };
        Ok(End { position, tail })
    }

    fn is_zero_from(&self, mut offset: u64) -> Result<bool> {
        let file = self.window.file.clone();
        let mut window = Window::new(file, self.window.label.clone(), offset);
        loop {
            let bytes = window.at(offset, READ_BYTES)?;
            if bytes.is_empty() {
                return Ok(true);
            }
            if !is_zero(bytes) {
                return Ok(false);
            }
            offset += bytes.len() as u64;
        }
    }

    /// Looks for group headers that are valid on their own behind the reader's position:
    /// behind a valid one the next is expected at its end, elsewhere every aligned position
    /// is tried, so the cost is linear in the bytes.
    pub fn evidence(&mut self) -> Result<Evidence> {
        let mut evidence = Evidence::default();
        let mut position = self.position + GROUP_ALIGNMENT;
        loop {
            let offset = self.header.offset_of(position);
            let bytes = self.window.at(offset, READ_BYTES)?;
            if bytes.len() < MIN_LEN {
                return Ok(evidence);
            }
            let mut at = 0;
            while at + GROUP_HEADER_BYTES <= bytes.len() {
                // A group kind is never zero; most of what is behind the end of a log is.
                if bytes[at] == 0 {
                    at += ALIGNMENT_LEN;
                    continue;
                }
                let here = position + at as u64;
                match GroupHeader::decode(self.seed, here, &bytes[at..]) {
                    None => at += ALIGNMENT_LEN,
                    Some(header) => {
                        evidence.groups += 1;
                        evidence.last = here;
                        evidence.durable_upto = evidence.durable_upto.max(header.durable_upto);
                        at += header.length as usize;
                    }
                }
            }
            position += at as u64;
        }
    }
}

/// What was found behind damage. It proves what was promised; it is never data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evidence {
    /// Group headers that are valid on their own.
    pub groups: u64,
    /// The log position of the last of them.
    pub last: u64,
    /// The highest promise among them.
    pub durable_upto: u64,
}

/// Whether every byte is zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<64>();
    blocks.iter().all(|block| *block == [0; 64]) && rest.iter().all(|byte| *byte == 0)
}

/// The offset behind the last byte of the file, from `offset` on, that is not zero.
pub(crate) fn used_len(file: &Arc<dyn DiskFile>, label: &str, mut offset: u64) -> Result<u64> {
    let mut window = Window::new(file.clone(), label.to_owned(), offset);
    let mut used = offset;
    loop {
        let bytes = window.at(offset, READ_BYTES)?;
        if bytes.is_empty() {
            return Ok(used);
        }
        if !is_zero(bytes)
            && let Some(last) = bytes.iter().rposition(|byte| *byte != 0)
        {
            used = offset + last as u64 + 1;
        }
        offset += bytes.len() as u64;
    }
}
