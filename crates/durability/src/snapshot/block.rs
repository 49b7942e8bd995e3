//! Blocks: rows in order, keys without what they share, numbers in columns.

use std::cmp::Ordering;

use steadfast_core::codec::{Cursor, put_bytes, put_varint};
use steadfast_core::limits::{SNAPSHOT_BLOCK_BYTES_MAX, STORED_KEY_BYTES_MAX, VALUE_BYTES_MAX};
use steadfast_core::{Record, RecordBuilder, Timestamp, Version};

use super::column::Column;
use super::piece::Checked;

/// Every so many rows the key is whole, so that a search can start there.
const RESTART_ROWS: usize = 16;

/// What a row counts beyond its key and value where the size of a block is limited.
pub(super) const ROW_BYTES: usize = 8;

/// The slope of times over versions is stored in units of this part of a microsecond.
const SLOPE_BITS: u32 = 16;

const TOMBSTONE: u64 = 1;
const EXPIRES: u64 = 2;

/// What a row counts where the size of a block is limited.
pub(super) fn row_bytes(record: &Record) -> usize {
    record.payload_bytes() + ROW_BYTES
}

/// The order of rows: by key, then newest first.
pub(super) fn row_order(a: (&[u8], Version), b: (&[u8], Version)) -> Ordering {
    a.0.cmp(b.0).then(b.1.cmp(&a.1))
}

/// How long the common beginning of two keys is.
pub(super) fn shared_len(a: &[u8], b: &[u8]) -> usize {
    // Eight bytes at a time: keys that stand beside each other share most.
    let mut shared = 0;
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        if a != b {
            break;
        }
        shared += 8;
    }
    let rest = a[shared..].iter().zip(&b[shared..]);
    shared + rest.take_while(|(a, b)| a == b).count()
}

/// Turns rows into blocks, one after the other.
#[derive(Debug, Default)]
pub(super) struct BlockEncoder {
    kinds: Vec<u64>,
    shared: Vec<u64>,
    suffixes: Vec<u64>,
    values: Vec<u64>,
    restarts: Vec<u64>,
    versions: Vec<u64>,
    times: Vec<u64>,
    expiries: Vec<u64>,
    packed: Vec<u8>,
    data: Vec<u8>,
    out: Vec<u8>,
}

impl BlockEncoder {
    /// The payload of a block with these rows, which are in order and at least one.
    pub(super) fn encode(&mut self, rows: &[Record]) -> &[u8] {
        let (first, last) = (&rows[0], &rows[rows.len() - 1]);
        // Keys are in order, so what the first and the last share, all share.
        let prefix = shared_len(first.key(), last.key());
        self.clear();
        let mut previous: &[u8] = &[];
        for (index, row) in rows.iter().enumerate() {
            let key = &row.key()[prefix..];
            let restart = index % RESTART_ROWS == 0;
            if restart && index > 0 {
                self.restarts.push(self.data.len() as u64);
            }
            let shared = if restart { 0 } else { shared_len(previous, key) };
            let kind = u64::from(row.is_tombstone()) * TOMBSTONE
                + u64::from(row.expiry().is_some()) * EXPIRES;
            self.kinds.push(kind);
            self.shared.push(shared as u64);
            self.suffixes.push((key.len() - shared) as u64);
            self.values.push(row.value_bytes().len() as u64);
            self.versions.push(row.version().0);
            self.times.push(row.timestamp().as_micros());
            if let Some(expiry) = row.expiry() {
                self.expiries.push(expiry.as_micros());
            }
            self.data.extend_from_slice(&key[shared..]);
            self.data.extend_from_slice(row.value_bytes());
            previous = key;
        }
        // A row that does not expire takes no room for it if no row does, and else little.
        if !self.expiries.is_empty() {
            let low = self.expiries.iter().copied().min().unwrap_or(0);
            self.expiries.clear();
            let expiry = |row: &Record| row.expiry().map_or(low, Timestamp::as_micros);
            self.expiries.extend(rows.iter().map(expiry));
        }
        let slope = self.flatten_times();
        put_varint(&mut self.out, rows.len() as u64);
        put_bytes(&mut self.out, &first.key()[..prefix]);
        put_varint(&mut self.out, slope);
        for column in [
            &self.kinds,
            &self.shared,
            &self.suffixes,
            &self.values,
            &self.restarts,
            &self.versions,
            &self.times,
            &self.expiries,
        ] {
            Column::encode(column, &mut self.out, &mut self.packed);
        }
        self.out.extend_from_slice(&self.packed);
        self.out.extend_from_slice(&self.data);
        &self.out
    }

    fn clear(&mut self) {
        for column in [
            &mut self.kinds,
            &mut self.shared,
            &mut self.suffixes,
            &mut self.values,
            &mut self.restarts,
            &mut self.versions,
            &mut self.times,
            &mut self.expiries,
        ] {
            column.clear();
        }
        self.packed.clear();
        self.data.clear();
        self.out.clear();
    }

    /// Commits come at some pace, so a row's version nearly tells its time. Takes from each
    /// time what the pace accounts for, if there is one, and returns it.
    fn flatten_times(&mut self) -> u64 {
        let commits = || self.versions.iter().zip(&self.times).map(|(v, t)| (*v, *t));
        let (Some(low), Some(high)) = (commits().min(), commits().max()) else { return 0 };
        let (versions, micros) = (high.0 - low.0, high.1.saturating_sub(low.1));
        if versions == 0 || micros == 0 {
            return 0;
        }
        let slope = (u128::from(micros) << SLOPE_BITS) / u128::from(versions);
        let Ok(slope) = u64::try_from(slope) else { return 0 };
        let paced = |version: u64| paced(version, low.0, slope);
        if commits().any(|(version, time)| paced(version) > time) {
            return 0;
        }
        for (version, time) in self.versions.iter().zip(&mut self.times) {
            *time -= paced(*version);
        }
        slope
    }
}

/// What the pace of commits accounts for of the time of `version`.
fn paced(version: u64, base: u64, slope: u64) -> u64 {
    if slope == 0 {
        return 0;
    }
    let product = u128::from(version.wrapping_sub(base)) * u128::from(slope);
    u64::try_from(product >> SLOPE_BITS).unwrap_or(u64::MAX)
}

/// What a block says before its rows, its columns in place.
#[derive(Debug, Clone)]
pub(super) struct BlockHead {
    rows: usize,
    prefix: std::ops::Range<usize>,
    slope: u64,
    kinds: Column,
    shared: Column,
    suffixes: Column,
    values: Column,
    restarts: Column,
    versions: Column,
    times: Column,
    expiries: Column,
    /// Where keys and values begin.
    data: usize,
}

impl BlockHead {
    /// Reads the head of a block. Nothing is known yet of its rows.
    pub(super) fn decode(block: &[u8]) -> Checked<Self> {
        Self::decode_fields(block).map_err(|error| error.to_string().into())
    }

    fn decode_fields(block: &[u8]) -> steadfast_core::Result<Self> {
        let mut cursor = Cursor::new("block", block);
        let rows = usize::try_from(cursor.varint()?).unwrap_or(usize::MAX);
        if rows == 0 || rows > SNAPSHOT_BLOCK_BYTES_MAX / ROW_BYTES {
            return Err(cursor.malformed("a number of rows that no block has"));
        }
        let prefix = cursor.bytes()?.len();
        let prefix = cursor.at() - prefix..cursor.at();
        let slope = cursor.varint()?;
        let mut columns = [Column::default(); 8];
        for column in &mut columns {
            *column = Column::decode(&mut cursor)?;
        }
        let restarts = (rows - 1) / RESTART_ROWS;
        for (index, column) in columns.iter_mut().enumerate() {
            column.place(&mut cursor, if index == 4 { restarts } else { rows })?;
        }
        let [kinds, shared, suffixes, values, restarts, versions, times, expiries] = columns;
        let data = cursor.at();
        Ok(Self {
            rows,
            prefix,
            slope,
            kinds,
            shared,
            suffixes,
            values,
            restarts,
            versions,
            times,
            expiries,
            data,
        })
    }

    /// Walks all rows, from the first.
    pub(super) fn walk<'a>(&'a self, block: &'a [u8]) -> Walk<'a> {
        self.walk_from(block, 0)
    }

    fn walk_from<'a>(&'a self, block: &'a [u8], restart: usize) -> Walk<'a> {
        let mut key = Vec::with_capacity(64);
        key.extend_from_slice(&block[self.prefix.clone()]);
        let at = if restart == 0 { 0 } else { self.restart(block, restart) };
        Walk {
            head: self,
            block,
            index: restart * RESTART_ROWS,
            at: self.data.saturating_add(at),
            key,
            version: None,
            bytes: 0,
        }
    }

    fn restart(&self, block: &[u8], restart: usize) -> usize {
        usize::try_from(self.restarts.at(block, restart - 1)).unwrap_or(usize::MAX)
    }

    /// Finds the first row of a block that was [checked](Block::check) at or after `key` at
    /// version `at`, in the order of rows.
    pub(super) fn seek<'a>(
        &'a self,
        block: &'a [u8],
        key: &[u8],
        at: Version,
    ) -> Checked<Walk<'a>> {
        let prefix = &block[self.prefix.clone()];
        let (mut low, mut high) = (0, (self.rows - 1) / RESTART_ROWS);
        while low < high {
            let middle = (low + high).div_ceil(2);
            let row = middle * RESTART_ROWS;
            let start = self.data + self.restart(block, middle);
            let rest = &block[start..start + to_usize(self.suffixes.at(block, row))];
            let order = match key.get(..prefix.len()) {
                Some(head) if head == prefix => rest.cmp(&key[prefix.len()..]),
                _ => prefix.cmp(key),
            };
            let order = order.then(at.cmp(&Version(self.versions.at(block, row))));
            if order.is_le() { low = middle } else { high = middle - 1 }
        }
        Ok(self.walk_from(block, low))
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// A position in a block's rows. Whatever the bytes say, a step gives a row in order and
/// within limits, or an error.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    head: &'a BlockHead,
    block: &'a [u8],
    index: usize,
    at: usize,
    key: Vec<u8>,
    version: Option<Version>,
    bytes: usize,
}

/// A row without its key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    builder: RecordBuilder,
    tombstone: bool,
    value: &'a [u8],
}

impl Row<'_> {
    pub(super) fn version(&self) -> Version {
        self.builder.version
    }
}

impl<'a> Walk<'a> {
    /// The key of the row that the last step gave.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The row that the last step gave, as a record.
    pub(super) fn record(&mut self, row: Row<'a>) -> Record {
        if row.tombstone {
            return row.builder.tombstone(&self.key);
        }
        // The value goes behind the key for as long as it takes to copy both.
        let key_len = self.key.len();
        self.key.extend_from_slice(row.value);
        let record = row.builder.put(&self.key, key_len);
        self.key.truncate(key_len);
        record
    }

    /// The next row; `None` after the last.
    pub(super) fn step(&mut self) -> Checked<Option<Row<'a>>> {
        let (head, block, index) = (self.head, self.block, self.index);
        if index == head.rows {
            return Ok(None);
        }
        let restart = index.is_multiple_of(RESTART_ROWS);
        if restart && index > 0 && head.restart(block, index / RESTART_ROWS) != self.at - head.data
        {
            return Err("a block whose restart points are wrong".into());
        }
        let shared = head.prefix.len().saturating_add(to_usize(head.shared.at(block, index)));
        let suffix = to_usize(head.suffixes.at(block, index));
        let value = to_usize(head.values.at(block, index));
        if shared > self.key.len()
            || (restart && shared > head.prefix.len())
            || suffix > STORED_KEY_BYTES_MAX
            || shared + suffix > STORED_KEY_BYTES_MAX
            || value > VALUE_BYTES_MAX
        {
            return Err("a row with a key or value that cannot be".into());
        }
        let data = &block[self.at..];
        if suffix + value > data.len() {
            return Err("a row beyond the end of its block".into());
        }
        let (suffix, data) = data.split_at(suffix);
        let value = &data[..value];
        self.at += suffix.len() + value.len();
        self.bytes += shared + suffix.len() + value.len() + ROW_BYTES;
        if self.bytes > SNAPSHOT_BLOCK_BYTES_MAX && head.rows > 1 {
            return Err("a block with more rows than there can be".into());
        }
        let version = Version(head.versions.at(block, index));
        if let Some(previous) = self.version {
            let order = self.key[shared..].cmp(suffix).then(version.cmp(&previous));
            if order.is_ge() {
                return Err("rows that are not in order".into());
            }
        }
        self.version = Some(version);
        self.key.truncate(shared);
        self.key.extend_from_slice(suffix);
        self.index += 1;
        let kind = head.kinds.at(block, index);
        let tombstone = kind & TOMBSTONE != 0;
        let expiry = match kind & EXPIRES {
            0 => None,
            _ => Some(Timestamp::from_micros(head.expiries.at(block, index))),
        };
        if kind > TOMBSTONE + EXPIRES
            || (tombstone && !value.is_empty())
            || expiry == Some(Timestamp::MAX)
        {
            return Err("a row of no kind that there is".into());
        }
        let time = head.times.at(block, index);
        let time = time.wrapping_add(paced(version.0, head.versions.base, head.slope));
        let timestamp = Timestamp::from_micros(time);
        let builder = RecordBuilder { version, timestamp, expiry };
        Ok(Some(Row { builder, tombstone, value }))
    }

    /// The first row from here on that is not before `key` at version `at`.
    pub(super) fn advance(&mut self, key: &[u8], at: Version) -> Checked<Option<Row<'a>>> {
        while let Some(row) = self.step()? {
            if row_order((&self.key, row.version()), (key, at)).is_ge() {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Whether the last row ends where the block does.
    pub(super) fn end(&self) -> Checked<()> {
        if self.at == self.block.len() {
            Ok(())
        } else {
            Err("bytes after the last row of a block".into())
        }
    }
}

/// A block whose every row was checked.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Box<[u8]>,
    head: BlockHead,
}

impl Block {
    /// Checks the payload of a block, which has no version above `newest`.
    pub(super) fn check(bytes: Box<[u8]>, newest: Version) -> Checked<Self> {
        let head = BlockHead::decode(&bytes)?;
        let mut walk = head.walk(&bytes);
        while let Some(row) = walk.step()? {
            check_version(row.version(), newest)?;
        }
        walk.end()?;
        Ok(Self { bytes, head })
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
    }

    /// The first row that is not before `key` at version `at`, if it is one of `key`'s; what
    /// comes after the block is [`Found::Beyond`].
    pub(super) fn find(&self, key: &[u8], at: Version) -> Checked<Found> {
        let mut walk = self.head.seek(&self.bytes, key, at)?;
        Ok(match walk.advance(key, at)? {
            None => Found::Beyond,
            Some(row) if walk.key() == key => Found::Record(walk.record(row)),
            Some(_) => Found::Nothing,
        })
    }

    /// Appends all rows.
    pub(super) fn records(&self, out: &mut Vec<Record>) -> Checked<()> {
        let mut walk = self.head.walk(&self.bytes);
        out.reserve(self.head.rows);
        while let Some(row) = walk.step()? {
            out.push(walk.record(row));
        }
        Ok(())
    }
}

/// What a search in a block came to.
#[derive(Debug)]
pub(super) enum Found {
    /// The row.
    Record(Record),
    /// The key has no such row.
    Nothing,
    /// Every row of the block comes before.
    Beyond,
}

/// Checks a payload and appends its rows.
pub(super) fn decode_rows(payload: &[u8], newest: Version, out: &mut Vec<Record>) -> Checked<()> {
    let head = BlockHead::decode(payload)?;
    let mut walk = head.walk(payload);
    out.reserve(head.rows);
    while let Some(row) = walk.step()? {
        check_version(row.version(), newest)?;
        out.push(walk.record(row));
    }
    walk.end()
}

fn check_version(version: Version, newest: Version) -> Checked<()> {
    if version > newest { Err("a row newer than its snapshot".into()) } else { Ok(()) }
}
