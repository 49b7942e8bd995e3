//! Reads a snapshot in place: the footer and the top index when it is opened, everything else
//! when it is first needed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use steadfast_core::{Place, Record, SortedTable, TableError, TableSlice, Version};

use super::SnapshotInfo;
use super::block::{Block, Found, decode_rows, row_order};
use super::cache::BlockCache;
use super::filter::{Filter, key_hash};
use super::footer::{FOOTER_BYTES, Footer, HEADER_BYTES, Header};
use super::index::{BlockEntry, SectionEntry, decode_section_index, decode_top_index};
use super::meta::SnapshotMeta;
use super::piece::{Checked, PIECE_HEADER_BYTES, PieceKind, Sealed, Seed, open_piece};
use super::writer::SnapshotFile;
use crate::disk::{Access, Disk, DiskFile, read_exact_at, read_full_at};
use crate::error::{CorruptionKind, Error, IoContext, Result};
use crate::layout::Layout;
use crate::room::Room;

/// Read from the end of the file at once when it is opened: enough for footer, meta block and
/// top index of most.
const TAIL_BYTES: u64 = 128 << 10;

type Read<T> = std::result::Result<T, TableError>;

/// A snapshot that is open for reading. It may be shared, and its file may be unlinked
/// meanwhile where the system allows that.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) label: Arc<str>,
    pub(super) seed: Seed,
    pub(super) footer: Footer,
    meta: SnapshotMeta,
    pub(super) sections: Vec<SectionEntry>,
    details: Vec<OnceLock<Read<Details>>>,
    cache: BlockCache,
    /// Blocks that were found damaged, by their offset: what was bad once is not tried again,
    /// since nothing good can be said of a device that changes its mind.
    damaged: Mutex<BTreeMap<u64, TableError>>,
}

/// What is read of a section when a read first comes to it.
#[derive(Debug)]
pub(super) struct Details {
    pub(super) blocks: Vec<BlockEntry>,
    pub(super) filter: Filter,
}

/// What a snapshot is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotLayout {
    /// Number of sections.
    pub sections: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// Number of rows.
    pub rows: u64,
    /// Bytes of keys and values.
    pub payload_bytes: u64,
    /// Bytes of blocks before they were compressed.
    pub plain_bytes: u64,
    /// Bytes of blocks in the file.
    pub block_bytes: u64,
    /// Bytes of the indexes of sections, and of the top index.
    pub index_bytes: u64,
    /// Bytes of filters.
    pub filter_bytes: u64,
    /// Bytes of header, meta block and footer.
    pub meta_bytes: u64,
    /// Bytes of the commit times.
    pub commit_times_bytes: u64,
    /// Length of the file, the sum of the bytes above that are in it.
    pub file_bytes: u64,
}

impl SnapshotLayout {
    /// How much smaller blocks are for being compressed: 2.0 if they take half. 1.0 if there
    /// are none.
    pub fn compression_ratio(&self) -> f64 {
        let headers = self.blocks * PIECE_HEADER_BYTES as u64;
        match self.block_bytes.saturating_sub(headers) {
            0 => 1.0,
            stored => self.plain_bytes as f64 / stored as f64,
        }
    }
}

impl Snapshot {
    /// Opens a snapshot: reads its footer, its meta block and where its sections begin.
    pub fn open(disk: &dyn Disk, layout: &Layout, number: u64, database: [u8; 16]) -> Result<Self> {
        Self::open_at(disk, &SnapshotFile::of(layout, number), database)
    }

    /// As [`Snapshot::open`], from any file.
    fn open_at(disk: &dyn Disk, place: &SnapshotFile, database: [u8; 16]) -> Result<Self> {
        let (number, label) = (place.number, place.label.clone());
        let corrupt = |offset, kind| Error::Corrupt { file: label.clone(), offset, kind };
        let file = match disk.open(&place.path, Access::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(corrupt(0, CorruptionKind::Missing));
            }
            file => file.at(&label, "open")?,
        };
        let file_bytes = file.len().at(&label, "read the length of")?;
        if file_bytes < (HEADER_BYTES + FOOTER_BYTES) as u64 {
            return Err(corrupt(0, CorruptionKind::BadFooter));
        }
        let mut tail = vec![0; to_usize(file_bytes.min(TAIL_BYTES))];
        read_exact_at(&*file, file_bytes - tail.len() as u64, &mut tail).at(&label, "read")?;
        let footer = Footer::decode(&label, &database, number, file_bytes, &tail)?;
        let wanted = file_bytes - footer.meta_offset;
        if wanted > tail.len() as u64 {
            tail = vec![0; to_usize(wanted)];
            read_exact_at(&*file, footer.meta_offset, &mut tail).at(&label, "read")?;
        }
        let end = &tail[tail.len() - to_usize(wanted)..];
        let end = &end[..end.len() - FOOTER_BYTES];
        let seed = Seed::new(&database, number);
        let (meta, sections) =
            decode_end(seed, &footer, end).map_err(|(offset, kind)| corrupt(offset, kind))?;
        Ok(Self {
            file,
            label: label.as_str().into(),
            seed,
            footer,
            meta,
            details: sections.iter().map(|_| OnceLock::new()).collect(),
            sections,
            cache: BlockCache::default(),
            damaged: Mutex::default(),
        })
    }

    /// What it says of itself besides its rows.
    pub const fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// What names it and sums it up.
    pub fn info(&self) -> SnapshotInfo {
        SnapshotInfo::of(&self.footer)
    }

    /// The times of its commits, as they were given to the writer; empty if there were none.
    pub fn commit_times(&self) -> Read<Vec<u8>> {
        let (offset, check) = (self.footer.times_offset, self.footer.times_check);
        let bytes = self.footer.meta_offset - offset;
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let mut piece = self.read(offset, bytes)?;
        let mut unused = Vec::new();
        open_piece(self.seed, offset, &piece, PieceKind::CommitTimes, check, &mut unused)
            .map_err(|reason| self.error(offset, &reason))?;
        piece.drain(..PIECE_HEADER_BYTES);
        Ok(piece)
    }

    /// What it is made of. Reads nothing.
    pub fn describe(&self) -> SnapshotLayout {
        let footer = &self.footer;
        let sum = |of: fn(&SectionEntry) -> u64| {
            self.sections.iter().map(of).fold(0, u64::saturating_add)
        };
        SnapshotLayout {
            sections: self.sections.len() as u64,
            blocks: footer.blocks,
            rows: footer.rows,
            payload_bytes: footer.payload_bytes,
            plain_bytes: sum(|section| section.plain_bytes),
            block_bytes: sum(|section| section.blocks_bytes),
            index_bytes: sum(|section| section.index.bytes) + footer.offset() - footer.top_offset,
            filter_bytes: sum(|section| section.filter.bytes),
            meta_bytes: (HEADER_BYTES + FOOTER_BYTES) as u64 + footer.top_offset
                - footer.meta_offset,
            commit_times_bytes: footer.meta_offset - footer.times_offset,
            file_bytes: footer.file_bytes,
        }
    }

    /// The error of bytes that are not what was written.
    pub(super) fn error(&self, offset: u64, reason: &str) -> TableError {
        TableError { file: Arc::clone(&self.label), offset, reason: reason.into(), io: None }
    }

    /// Reads bytes that, by a checked index, are inside the file.
    pub(super) fn read(&self, offset: u64, bytes: u64) -> Read<Vec<u8>> {
        let mut buffer = vec![0; to_usize(bytes)];
        match read_full_at(&*self.file, offset, &mut buffer) {
            Ok(read) if read == buffer.len() => Ok(buffer),
            Ok(_) => Err(self.error(offset, "the file ends early")),
            Err(error) => Err(TableError {
                file: Arc::clone(&self.label),
                offset,
                reason: format!("cannot read {bytes} bytes").into(),
                io: Some(Arc::new(error)),
            }),
        }
    }

    /// The index and the filter of a section, read when first asked for and then kept; so is
    /// what is wrong with them, unless it is only that a read failed.
    fn details(&self, section: usize) -> Read<&Details> {
        let kept = &self.details[section];
        if kept.get().is_none() {
            let read = self.read_details(section);
            if matches!(&read, Err(error) if !error.is_corruption()) {
                return Err(read.expect_err("just seen"));
            }
            // Another reader may have been first, with the same bytes.
            let _ = kept.set(read);
        }
        kept.get().expect("set above").as_ref().map_err(Clone::clone)
    }

    fn read_details(&self, section: usize) -> Read<Details> {
        let entry = &self.sections[section];
        let offset = entry.index_offset();
        let bytes = self.read(offset, entry.index.bytes + entry.filter.bytes)?;
        let (index, filter) = bytes.split_at(to_usize(entry.index.bytes));
        let blocks = self.decode_index(entry, index)?;
        let filter = self.decode_filter(entry, filter)?;
        Ok(Details { blocks, filter })
    }

    pub(super) fn decode_index(&self, entry: &SectionEntry, piece: &[u8]) -> Read<Vec<BlockEntry>> {
        let offset = entry.index_offset();
        let (kind, check) = (PieceKind::SectionIndex, entry.index.check);
        let mut unused = Vec::new();
        let payload = open_piece(self.seed, offset, piece, kind, check, &mut unused)
            .map_err(|reason| self.error(offset, &reason))?;
        let blocks = decode_section_index(payload, entry.offset, entry.blocks_bytes)
            .map_err(|error| self.error(offset, &error.to_string()))?;
        if blocks.len() as u64 != entry.blocks || blocks[0].first_key != entry.first_key {
            return Err(self.error(offset, "an index that is not that of its section"));
        }
        Ok(blocks)
    }

    pub(super) fn decode_filter(&self, entry: &SectionEntry, piece: &[u8]) -> Read<Filter> {
        let (offset, check) = (entry.filter_offset(), entry.filter.check);
        let mut unused = Vec::new();
        open_piece(self.seed, offset, piece, PieceKind::Filter, check, &mut unused)
            .and_then(Filter::decode)
            .map_err(|reason| self.error(offset, &reason))
    }

    /// A block, from the cache or from the file.
    fn block(&self, entry: &BlockEntry) -> Read<Arc<Block>> {
        if let Some(block) = self.cache.get(entry.offset) {
            return Ok(block);
        }
        let damaged = || self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = damaged().get(&entry.offset) {
            return Err(error.clone());
        }
        let BlockEntry { offset, sealed, .. } = *entry;
        let bytes = self.read(offset, sealed.bytes)?;
        match self.check_block(offset, sealed, &bytes) {
            Ok(block) => {
                let block = Arc::new(block);
                self.cache.insert(offset, &block);
                Ok(block)
            }
            Err(reason) => {
                let error = self.error(offset, &reason);
                damaged().insert(offset, error.clone());
                Err(error)
            }
        }
    }

    fn check_block(&self, offset: u64, sealed: Sealed, bytes: &[u8]) -> Checked<Block> {
        let mut buffer = Vec::new();
        let kind = PieceKind::Block;
        let payload = open_piece(self.seed, offset, bytes, kind, sealed.check, &mut buffer)?;
        Block::check(payload.into(), self.meta.version)
    }

    /// Appends the rows of a block whose bytes are at hand, after those before it. Returns how
    /// many bytes they took before they were compressed.
    pub(super) fn decode_block(
        &self,
        blocks: &[BlockEntry],
        number: usize,
        bytes: &[u8],
        buffer: &mut Vec<u8>,
        rows: &mut Vec<Record>,
    ) -> Read<u64> {
        let BlockEntry { offset, sealed, .. } = blocks[number];
        let before = rows.len();
        open_piece(self.seed, offset, bytes, PieceKind::Block, sealed.check, buffer)
            .and_then(|payload| {
                decode_rows(payload, self.meta.version, rows)?;
                check_seam(rows, before, blocks, number)?;
                Ok(payload.len() as u64)
            })
            .map_err(|reason| self.error(offset, &reason))
    }

    /// Which blocks of a section a slice takes together: from one that begins a key, up to the
    /// next that does.
    fn slice_blocks(blocks: &[BlockEntry], within: usize) -> std::ops::Range<usize> {
        let key = &blocks[within].first_key;
        let start = blocks.partition_point(|block| block.first_key < *key);
        let end = blocks.partition_point(|block| block.first_key <= *key);
        start..end
    }
}

/// Reads what lies between the commit times and the footer, the meta block and the top index;
/// the error says where and what is wrong.
pub(super) fn decode_end(
    seed: Seed,
    footer: &Footer,
    bytes: &[u8],
) -> std::result::Result<(SnapshotMeta, Vec<SectionEntry>), (u64, CorruptionKind)> {
    let mut unused = Vec::new();
    let (meta, top) = bytes.split_at(to_usize(footer.top_offset - footer.meta_offset));
    let (offset, check) = (footer.meta_offset, footer.meta_check);
    let bad = |offset| (offset, CorruptionKind::BadSnapshot);
    let undecodable = |offset| (offset, CorruptionKind::Undecodable);
    let meta = open_piece(seed, offset, meta, PieceKind::Meta, check, &mut unused)
        .map_err(|_| bad(offset))
        .and_then(|meta| SnapshotMeta::decode(meta).map_err(|_| undecodable(offset)))?;
    let (offset, check) = (footer.top_offset, footer.top_check);
    let sections = open_piece(seed, offset, top, PieceKind::TopIndex, check, &mut unused)
        .map_err(|_| bad(offset))
        .and_then(|top| {
            decode_top_index(top, HEADER_BYTES as u64, footer.times_offset)
                .map_err(|_| undecodable(offset))
        })?;
    let sum = |of: fn(&SectionEntry) -> u64| sections.iter().map(of).fold(0, u64::saturating_add);
    if sections.len() as u64 != u64::from(footer.sections)
        || sum(|section| section.rows) != footer.rows
        || sum(|section| section.blocks) != footer.blocks
        || meta.version.0 != footer.version
    {
        return Err(undecodable(offset));
    }
    Ok((meta, sections))
}

/// Checks that the rows from `from` on are what the index says of block `number` and come after
/// the rows before.
fn check_seam(rows: &[Record], from: usize, blocks: &[BlockEntry], number: usize) -> Checked<()> {
    let (entry, first) = (&blocks[number], &rows[from]);
    if *first.key() != *entry.first_key || first.version() != entry.first_version {
        return Err("a block that does not begin as its index says".into());
    }
    if let Some(last) = from.checked_sub(1).map(|last| &rows[last]) {
        let order = row_order((last.key(), last.version()), (first.key(), first.version()));
        if order.is_ge() {
            return Err("a block whose rows come before those of the one before".into());
        }
        // Or a slice that begins with this block would miss the key's newer rows.
        let goes_on = last.key() == first.key();
        if goes_on && number > 0 && blocks[number - 1].first_key != entry.first_key {
            return Err("a key that goes on in a block and does not begin one".into());
        }
    }
    Ok(())
}

impl SortedTable for Snapshot {
    fn rows(&self) -> u64 {
        self.footer.rows
    }

    fn get(&self, key: &[u8], at: Version) -> Read<Option<Record>> {
        if self.sections.is_empty() {
            return Ok(None);
        }
        let section = self.section_of(key);
        if *key < *self.sections[section].first_key {
            return Ok(None);
        }
        let details = self.details(section)?;
        if !details.filter.may_have(key_hash(key)) {
            return Ok(None);
        }
        let blocks = &details.blocks;
        let place = (key, at);
        let next = blocks.partition_point(|block| {
            row_order((&block.first_key, block.first_version), place).is_le()
        });
        // The row may be the first of the next block, if the key goes on there.
        for block in &blocks[next.saturating_sub(1)..blocks.len().min(next + 1)] {
            let found = self.block(block)?.find(key, at);
            match found.map_err(|reason| self.error(block.offset, &reason))? {
                Found::Record(record) => return Ok(Some(record)),
                Found::Nothing => return Ok(None),
                Found::Beyond => {}
            }
            if blocks.get(next).is_none_or(|block| *block.first_key != *key) {
                break;
            }
        }
        Ok(None)
    }

    fn slice(&self, place: Place<'_>) -> Read<TableSlice> {
        if self.sections.is_empty() {
            return Ok(TableSlice { low: Vec::new(), high: None, rows: Vec::new() });
        }
        let last = self.sections.len() - 1;
        let section = match place {
            Place::At(key) => self.section_of(key),
            Place::Below(key) => {
                self.sections.partition_point(|section| *section.first_key < *key).saturating_sub(1)
            }
            Place::First => 0,
            Place::Last => last,
        };
        let blocks = &self.details(section)?.blocks;
        let within = match place {
            Place::At(key) => blocks.partition_point(|block| *block.first_key <= *key),
            Place::Below(key) => blocks.partition_point(|block| *block.first_key < *key),
            Place::First => 0,
            Place::Last => blocks.len(),
        };
        let taken = Self::slice_blocks(blocks, within.saturating_sub(1));
        let mut rows = Vec::new();
        for number in taken.clone() {
            let (entry, before) = (&blocks[number], rows.len());
            self.block(entry)?
                .records(&mut rows)
                .and_then(|()| check_seam(&rows, before, blocks, number))
                .map_err(|reason| self.error(entry.offset, &reason))?;
        }
        let low = match (section, taken.start) {
            (0, 0) => Vec::new(),
            _ => blocks[taken.start].first_key.to_vec(),
        };
        let next = blocks.get(taken.end).map(|block| &block.first_key);
        let high = next.or(self.sections.get(section + 1).map(|section| &section.first_key));
        if let (Some(high), Some(last)) = (high, rows.last())
            && *last.key() >= **high
        {
            let offset = blocks[taken.end - 1].offset;
            return Err(self.error(offset, "a block with keys of the one after it"));
        }
        Ok(TableSlice { low, high: high.map(|key| key.to_vec()), rows })
    }

    fn sections(&self) -> usize {
        self.sections.len()
    }

    fn section_of(&self, key: &[u8]) -> usize {
        self.sections.partition_point(|section| *section.first_key <= *key).saturating_sub(1)
    }

    fn first_key(&self, section: usize) -> &[u8] {
        &self.sections[section].first_key
    }

    fn section(&self, section: usize) -> Read<Vec<Record>> {
        let entry = &self.sections[section];
        let bytes = self.read(entry.offset, entry.blocks_bytes + entry.index.bytes)?;
        let (blocks, index) = bytes.split_at(to_usize(entry.blocks_bytes));
        // Not kept: whoever loads a section does not ask the file again.
        let index = self.decode_index(entry, index)?;
        let mut rows = Vec::with_capacity(to_usize(entry.rows.min(entry.blocks_bytes)));
        let (mut rest, mut buffer, mut room) = (blocks, Vec::new(), Room::default());
        let rows_of_block = to_usize(entry.rows / entry.blocks.max(1));
        let plain_of_block = to_usize(entry.plain_bytes / entry.blocks.max(1));
        for number in 0..index.len() {
            let piece;
            (piece, rest) = rest.split_at(to_usize(index[number].sealed.bytes));
            room.take(rows_of_block, plain_of_block);
            self.decode_block(&index, number, piece, &mut buffer, &mut rows)?;
        }
        self.check_rows(section, &rows)?;
        Ok(rows)
    }
}

impl Snapshot {
    /// Checks the rows of a section against what the top index says of it and of the next.
    pub(super) fn check_rows(&self, section: usize, rows: &[Record]) -> Read<()> {
        let entry = &self.sections[section];
        if rows.len() as u64 != entry.rows {
            return Err(self.error(entry.offset, "a section with another number of rows"));
        }
        let next = self.sections.get(section + 1);
        if let (Some(next), Some(last)) = (next, rows.last())
            && *last.key() >= *next.first_key
        {
            return Err(self.error(entry.offset, "a section with keys of the one after it"));
        }
        Ok(())
    }
}

/// A length that was checked against the file's; no file that is longer than an address can
/// say is read.
pub(super) fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Snapshot {
    /// The database that it belongs to.
    pub const fn database(&self) -> [u8; 16] {
        self.footer.database
    }

    /// Opens a snapshot of whatever database its header names: for a directory that has no
    /// MANIFEST to say which one it should be, or a file outside of any.
    pub fn open_any(disk: &dyn Disk, place: &SnapshotFile) -> Result<Self> {
        let label = &place.label;
        let file = disk.open(&place.path, Access::Read).at(label, "open")?;
        let mut header = [0; HEADER_BYTES];
        let read = read_full_at(&*file, 0, &mut header).at(label, "read")?;
        match Header::database_of(&header[..read]) {
            Some(database) => Self::open_at(disk, place, database),
            None => {
                let (file, kind) = (label.clone(), CorruptionKind::BadHeader);
                Err(Error::Corrupt { file, offset: 0, kind })
            }
        }
    }
}
