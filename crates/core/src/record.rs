//! One version of one key, immutable and shared: what the log is replayed into, what the
//! store keeps, what a scan hands out.

use triomphe::ThinArc;

use crate::{Error, Key, Result, Timestamp, Value, ValueRef, Version, VersionedValue};

/// One version of one key: a value, or a tombstone.
///
/// A record is a handle of one pointer; clones share one allocation that holds the key and
/// the encoded value side by side, so reading either costs one cache miss.
#[derive(Clone)]
pub struct Record(ThinArc<Header, u8>);

#[derive(Clone, Copy)]
struct Header {
    version: Version,
    timestamp: Timestamp,
    /// [`Timestamp::MAX`] if it never expires.
    expiry: Timestamp,
    key_len: u16,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Value,
    Tombstone,
    Delta,
}

/// What a record says besides its key and value.
#[derive(Debug, Clone, Copy)]
pub struct RecordBuilder {
    /// The commit that wrote it.
    pub version: Version,
    /// When that commit was made.
    pub timestamp: Timestamp,
    /// When it stops being there, if ever.
    pub expiry: Option<Timestamp>,
}

impl RecordBuilder {
    /// A value: `key_and_value` holds the stored key, `key_len` bytes, then the encoded value.
    ///
    /// # Panics
    ///
    /// If `key_len` is above the limit of stored keys or above the length of the slice.
    #[inline]
    pub fn put(&self, key_and_value: &[u8], key_len: usize) -> Record {
        self.build(key_and_value, key_len, Kind::Value)
    }

    /// A tombstone: from this version on the key is not there.
    #[inline]
    pub fn tombstone(&self, key: &[u8]) -> Record {
        self.build(key, key.len(), Kind::Tombstone)
    }

    /// What is to be folded into the value of its key, see [`crate::signal`]: on its way into a
    /// store, which keeps what comes of it.
    ///
    /// # Panics
    ///
    /// As [`RecordBuilder::put`].
    pub fn delta(&self, key_and_delta: &[u8], key_len: usize) -> Record {
        self.build(key_and_delta, key_len, Kind::Delta)
    }

    #[inline]
    fn build(&self, bytes: &[u8], key_len: usize, kind: Kind) -> Record {
        assert!(key_len <= bytes.len(), "a record's key lies inside its bytes");
        let header = Header {
            version: self.version,
            timestamp: self.timestamp,
            expiry: self.expiry.unwrap_or(Timestamp::MAX),
            key_len: u16::try_from(key_len).expect("keys are checked against their limit"),
            kind,
        };
        Record(ThinArc::from_header_and_slice(header, bytes))
    }
}

impl Record {
    #[inline]
    fn header(&self) -> &Header {
        &self.0.header.header
    }

    /// The stored key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        &self.0.slice[..usize::from(self.header().key_len)]
    }

    /// The encoded value; empty for a tombstone.
    #[inline]
    pub fn value_bytes(&self) -> &[u8] {
        &self.0.slice[usize::from(self.header().key_len)..]
    }

    /// The commit that wrote it.
    #[inline]
    pub fn version(&self) -> Version {
        self.header().version
    }

    /// When that commit was made.
    #[inline]
    pub fn timestamp(&self) -> Timestamp {
        self.header().timestamp
    }

    /// When it stops being there, if ever.
    #[inline]
    pub fn expiry(&self) -> Option<Timestamp> {
        Some(self.header().expiry).filter(|expiry| *expiry != Timestamp::MAX)
    }

    /// Whether the key was deleted by this version.
    #[inline]
    pub fn is_tombstone(&self) -> bool {
        self.header().kind == Kind::Tombstone
    }

    /// Whether its value is what is to be folded into that of its key.
    #[inline]
    pub fn is_delta(&self) -> bool {
        self.header().kind == Kind::Delta
    }

    /// Whether a reader whose clock stands at `now` sees a value here: not deleted, and not
    /// expired (a value is gone from the moment of its expiry on).
    #[inline]
    pub fn is_live(&self, now: Timestamp) -> bool {
        let header = self.header();
        header.kind == Kind::Value && now < header.expiry
    }

    /// Bytes of the key and the encoded value.
    #[inline]
    pub fn payload_bytes(&self) -> usize {
        self.0.slice.len()
    }

    /// Bytes of the allocation behind this handle, without what the allocator adds.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        size_of::<Header>() + 2 * size_of::<usize>() + self.0.slice.len()
    }

    /// The value, decoded.
    ///
    /// # Errors
    ///
    /// [`Error::Undecodable`]. The value was checked when it was written, and its bytes when they
    /// were read: so memory, a program or whoever wrote the file is at fault.
    pub fn value(&self) -> Result<Value> {
        Value::decode(self.value_bytes()).map_err(|error| self.undecodable(error))
    }

    /// The error that says that this record cannot be read, where it is, and why.
    #[cold]
    pub fn undecodable(&self, what: impl std::fmt::Display) -> Error {
        let (key, version) = (Key::in_words(self.key()), self.version());
        Error::Undecodable { key, version, what: what.to_string() }
    }

    /// The value where it lies in the record: nothing is copied, and it lives as long as this
    /// handle. Errors as of [`Record::value`]; those of items come when they are read.
    #[inline]
    pub fn value_ref(&self) -> Result<ValueRef<'_>> {
        ValueRef::decode(self.value_bytes()).map_err(|error| self.undecodable(error))
    }

    /// The value with its version and times, decoded.
    pub fn versioned_value(&self) -> Result<VersionedValue> {
        Ok(VersionedValue {
            value: self.value()?,
            version: self.version(),
            timestamp: self.timestamp(),
            expiry: self.expiry(),
        })
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.header().kind {
            Kind::Value => "value",
            Kind::Tombstone => "tombstone",
            Kind::Delta => "delta",
        };
        let key = self.key().escape_ascii();
        write!(f, "Record({key}@{} {kind} {} B)", self.version(), self.value_bytes().len())
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.header(), other.header());
        (a.version, a.timestamp, a.expiry, a.kind) == (b.version, b.timestamp, b.expiry, b.kind)
            && a.key_len == b.key_len
            && self.0.slice == other.0.slice
    }
}

impl Eq for Record {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_cannot_be_read_says_where_it_is() {
        let builder =
            RecordBuilder { version: Version(3), timestamp: Timestamp::ZERO, expiry: None };
        let key = Key::new(crate::NamespaceId(7), crate::TypeTag::Kv, b"a key").unwrap();
        let mut bytes = key.as_bytes().to_vec();
        bytes.push(0xff);
        let error = builder.put(&bytes, key.as_bytes().len()).value().unwrap_err();
        let text = error.to_string();
        let place = "key-value a key in namespace 7, of version 3, cannot be read: value: ";
        assert!(text.starts_with(place), "{text}");
    }

    #[test]
    fn a_record_gives_back_what_it_was_built_from() {
        let builder = RecordBuilder {
            version: Version(3),
            timestamp: Timestamp::from_micros(5),
            expiry: Some(Timestamp::from_micros(9)),
        };
        let record = builder.put(b"keyvalue", 3);
        assert_eq!((record.key(), record.value_bytes()), (&b"key"[..], &b"value"[..]));
        assert!(record.is_live(Timestamp::from_micros(8)));
        assert!(!record.is_live(Timestamp::from_micros(9)), "gone from its expiry on");
        assert!(!builder.tombstone(b"key").is_live(Timestamp::ZERO));
        assert_eq!(size_of::<Record>(), size_of::<usize>(), "a handle is one pointer");
    }
}
