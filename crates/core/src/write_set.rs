//! What a transaction will write, encoded as the log stores it.
//!
//! A write set is built once, outside every lock: its bytes go into the log as they are, and
//! the records for the store are cut out of the same bytes.
//!
//! ```text
//! write := flags u8 | key length varint | value length varint (not of a delete)
//!          | expiry varint, µs since 1970 (if flagged) | key | encoded value (not of a delete)
//! ```
//!
//! Where the value is a delta, it is folded into the value of its key: see [`crate::signal`].

use crate::codec::{Cursor, VARINT_BYTES_MAX, put_varint};
use crate::limits::{STORED_KEY_BYTES_MAX, TXN_BYTES_MAX, TXN_WRITES_MAX, VALUE_BYTES_MAX};
use crate::{Error, Key, Record, RecordBuilder, Result, Timestamp, TypeTag, Value, Version};

const PUT: u8 = 0;
const DELETE: u8 = 1;
const DELTA: u8 = 2;
const KIND_MASK: u8 = 0x03;
const HAS_EXPIRY: u8 = 0x04;

/// Bytes in front of a write's key at the most.
const HEAD_BYTES_MAX: usize = 1 + 2 * VARINT_BYTES_MAX + VARINT_BYTES_MAX;

/// What one write does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteKind {
    /// Gives it a value.
    Put,
    /// Removes it.
    Delete,
    /// Folds something into its value.
    Delta,
}

/// The writes of one transaction, encoded, in the order they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteSet {
    bytes: Vec<u8>,
    writes: usize,
    deltas: usize,
}

impl WriteSet {
    /// No writes.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), writes: 0, deltas: 0 }
    }

    /// No writes, and room for about `bytes` bytes of keys and values.
    ///
    /// Growing a buffer takes a lock of the allocator, which the thread that freed it last may
    /// be holding.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes + HEAD_BYTES_MAX), ..Self::new() }
    }

    /// Adds a put of `value`, which is checked against its limits.
    pub fn put(&mut self, key: &Key, value: &Value, expiry: Option<Timestamp>) -> Result<()> {
        let (start, value_len) = (self.bytes.len(), value.encoded_len());
        self.put_head(key.as_bytes(), value_len, expiry)?;
        value.encode(&mut self.bytes).inspect_err(|_| {
            self.bytes.truncate(start);
            self.writes -= 1;
        })
    }

    /// Adds a put of an already encoded value.
    pub fn put_encoded(
        &mut self,
        key: &[u8],
        value: &[u8],
        expiry: Option<Timestamp>,
    ) -> Result<()> {
        self.put_head(key, value.len(), expiry)?;
        self.bytes.extend_from_slice(value);
        Ok(())
    }

    /// Writes all of a put but its value.
    fn put_head(&mut self, key: &[u8], value_len: usize, expiry: Option<Timestamp>) -> Result<()> {
        self.reserve_write(key.len() + value_len)?;
        self.bytes.push(if expiry.is_some() { PUT | HAS_EXPIRY } else { PUT });
        put_varint(&mut self.bytes, key.len() as u64);
        put_varint(&mut self.bytes, value_len as u64);
        if let Some(expiry) = expiry {
            put_varint(&mut self.bytes, expiry.as_micros());
        }
        self.bytes.extend_from_slice(key);
        Ok(())
    }

    /// Adds an encoded delta of a signal.
    pub fn delta(&mut self, key: &[u8], delta: &[u8]) -> Result<()> {
        let start = self.bytes.len();
        self.put_head(key, delta.len(), None)?;
        self.bytes[start] = DELTA;
        self.bytes.extend_from_slice(delta);
        self.deltas += 1;
        Ok(())
    }

    /// Whether any of its writes is a delta.
    pub const fn has_deltas(&self) -> bool {
        self.deltas > 0
    }

    /// Adds a delete.
    pub fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.reserve_write(key.len())?;
        self.bytes.push(DELETE);
        put_varint(&mut self.bytes, key.len() as u64);
        self.bytes.extend_from_slice(key);
        Ok(())
    }

    fn reserve_write(&mut self, payload: usize) -> Result<()> {
        let bytes = self.bytes.len() + payload + HEAD_BYTES_MAX;
        if bytes > TXN_BYTES_MAX || self.writes >= TXN_WRITES_MAX {
            return Err(Error::TransactionTooLarge { bytes, writes: self.writes + 1 });
        }
        self.writes += 1;
        self.bytes.reserve(payload + HEAD_BYTES_MAX);
        Ok(())
    }

    /// How many writes it has.
    pub const fn len(&self) -> usize {
        self.writes
    }

    /// Whether it writes nothing.
    pub const fn is_empty(&self) -> bool {
        self.writes == 0
    }

    /// The encoding, as it stands in the log.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads an encoding and checks every write in it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (mut writes, mut deltas) = (0, 0);
        for write in Self::writes_in(bytes) {
            deltas += usize::from(write?.kind == WriteKind::Delta);
            writes += 1;
        }
        Ok(Self { bytes: bytes.to_vec(), writes, deltas })
    }

    /// The writes, in order.
    pub fn iter(&self) -> impl Iterator<Item = Write<'_>> {
        let writes = Writes { deltas_checked: true, ..Self::writes_in(&self.bytes) };
        writes.map(|write| write.expect("checked when it was made"))
    }

    /// The writes encoded in `bytes`, in order; ends after the first error.
    pub fn writes_in(bytes: &[u8]) -> Writes<'_> {
        Writes { cursor: Cursor::new("write", bytes), deltas_checked: false, failed: false }
    }

    /// The records this transaction leaves when committed as `version` at `timestamp`: one a
    /// key, the last write of each.
    pub fn records(&self, version: Version, timestamp: Timestamp) -> Vec<Record> {
        let mut records = Vec::with_capacity(self.writes);
        records.extend(self.iter().map(|write| write.record(version, timestamp)));
        keep_last_of_each_key(&mut records);
        records
    }
}

/// Keeps the last record of each key where several of one transaction share a key.
fn keep_last_of_each_key(records: &mut Vec<Record>) {
    // A transaction's own are in the order of keys, each once.
    if records.is_sorted_by(|a, b| a.key() < b.key()) {
        return;
    }
    let mut order: Vec<usize> = (0..records.len()).collect();
    order.sort_by(|a, b| records[*a].key().cmp(records[*b].key()).then(b.cmp(a)));
    let mut superseded: Vec<usize> = order
        .windows(2)
        .filter(|pair| records[pair[0]].key() == records[pair[1]].key())
        .map(|pair| pair[1])
        .collect();
    superseded.sort_unstable();
    let mut index = 0;
    let mut next = superseded.into_iter().peekable();
    records.retain(|_| {
        let keep = next.next_if_eq(&index).is_none();
        index += 1;
        keep
    });
}

/// One write of a [`WriteSet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write<'a> {
    /// What it does.
    pub kind: WriteKind,
    /// When its value stops being there, if ever.
    pub expiry: Option<Timestamp>,
    key_and_value: &'a [u8],
    key_len: usize,
}

impl<'a> Write<'a> {
    /// The stored key.
    pub fn key(&self) -> &'a [u8] {
        &self.key_and_value[..self.key_len]
    }

    /// The encoded value; empty for a delete.
    pub fn value_bytes(&self) -> &'a [u8] {
        &self.key_and_value[self.key_len..]
    }

    /// The record it leaves when committed as `version` at `timestamp`.
    pub fn record(&self, version: Version, timestamp: Timestamp) -> Record {
        let builder = RecordBuilder { version, timestamp, expiry: self.expiry };
        match self.kind {
            WriteKind::Put => builder.put(self.key_and_value, self.key_len),
            WriteKind::Delete => builder.tombstone(self.key()),
            WriteKind::Delta => builder.delta(self.key_and_value, self.key_len),
        }
    }
}

/// Iterator over encoded writes.
#[derive(Debug, Clone)]
pub struct Writes<'a> {
    cursor: Cursor<'a>,
    /// The deltas are known to be sound: they were checked when they were added.
    deltas_checked: bool,
    failed: bool,
}

impl<'a> Writes<'a> {
    fn read(&mut self) -> Result<Write<'a>> {
        let cursor = &mut self.cursor;
        let flags = cursor.u8()?;
        let kind = match flags & KIND_MASK {
            PUT => WriteKind::Put,
            DELETE => WriteKind::Delete,
            DELTA => WriteKind::Delta,
            _ => return Err(cursor.malformed("an unknown kind of write")),
        };
        if flags & !(KIND_MASK | HAS_EXPIRY) != 0
            || (flags & HAS_EXPIRY != 0 && kind != WriteKind::Put)
        {
            return Err(cursor.malformed("unknown flags"));
        }
        let key_len = cursor.length()?;
        let value_len = if kind == WriteKind::Delete { 0 } else { cursor.length()? };
        let expiry = if flags & HAS_EXPIRY == 0 {
            None
        } else {
            Some(Timestamp::from_micros(cursor.varint()?))
        };
        if !(Key::PREFIX_BYTES + 1..=STORED_KEY_BYTES_MAX).contains(&key_len) {
            return Err(cursor.malformed("a key of a length that no key has"));
        }
        if value_len > VALUE_BYTES_MAX || (kind != WriteKind::Delete && value_len == 0) {
            return Err(cursor.malformed("a value of a length that no value has"));
        }
        let key_and_value = cursor.take(key_len + value_len)?;
        if Key::tag_of(key_and_value).is_none() {
            return Err(cursor.malformed("a key of no known type"));
        }
        if kind == WriteKind::Delta {
            if !Key::tag_of(key_and_value).is_some_and(TypeTag::is_folded) {
                return Err(cursor.malformed("a delta of what is not a signal"));
            }
            if !self.deltas_checked {
                crate::signal::Delta::check(&key_and_value[key_len..])?;
            }
        }
        Ok(Write { kind, expiry, key_and_value, key_len })
    }
}

impl<'a> Iterator for Writes<'a> {
    type Item = Result<Write<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.cursor.is_empty() {
            return None;
        }
        let write = self.read();
        self.failed = write.is_err();
        Some(write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NamespaceId;
    use proptest::prelude::*;

    fn key(name: &str) -> Key {
        Key::new(NamespaceId(1), TypeTag::Kv, name.as_bytes()).unwrap()
    }

    #[test]
    fn writes_come_back_in_order() {
        let mut set = WriteSet::new();
        set.put(&key("a"), &Value::Int(1), None).unwrap();
        set.put(&key("b"), &Value::Int(2), Some(Timestamp::from_micros(77))).unwrap();
        set.delete(key("a").as_bytes()).unwrap();
        assert_eq!(set.len(), 3);
        let read = WriteSet::from_bytes(set.as_bytes()).unwrap();
        assert_eq!(read, set);
        let kinds: Vec<_> = read.iter().map(|w| (w.kind, w.expiry)).collect();
        assert_eq!(kinds[1], (WriteKind::Put, Some(Timestamp::from_micros(77))));
        assert_eq!(kinds[2], (WriteKind::Delete, None));
    }

    #[test]
    fn the_last_write_of_a_key_is_what_a_transaction_leaves() {
        let mut set = WriteSet::new();
        for n in 0..4 {
            set.put(&key("a"), &Value::Int(n), None).unwrap();
            set.put(&key(&format!("b{n}")), &Value::Int(n), None).unwrap();
        }
        set.delete(key("b2").as_bytes()).unwrap();
        let records = set.records(Version(5), Timestamp::ZERO);
        assert_eq!(records.len(), 5);
        let a = records.iter().find(|r| r.key() == key("a").as_bytes()).unwrap();
        assert_eq!(a.value(), Ok(Value::Int(3)));
        assert!(records.iter().any(|r| r.key() == key("b2").as_bytes() && r.is_tombstone()));
    }

    #[test]
    fn refuses_more_than_a_transaction_may_hold() {
        let mut set = WriteSet::new();
        let value = vec![6; VALUE_BYTES_MAX];
        for _ in 0..3 {
            set.put_encoded(key("k").as_bytes(), &value, None).unwrap();
        }
        let error = set.put_encoded(key("k").as_bytes(), &value, None).unwrap_err();
        assert!(matches!(error, Error::TransactionTooLarge { writes: 4, .. }), "{error}");
        assert_eq!(set.len(), 3, "the refused write is not there");
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes: Vec<u8>) {
            let _ = WriteSet::from_bytes(&bytes);
        }
    }
}
