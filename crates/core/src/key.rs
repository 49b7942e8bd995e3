//! The stored key: namespace, type, and the caller's bytes, ordered by its bytes.
//!
//! ```text
//! | namespace id, 4 bytes big-endian | type tag, 1 byte | the primitive's own key |
//! ```
//!
//! A run, a primitive in it and a prefix of its keys are therefore each one contiguous range.
//! An event's own key is its stream's name, escaped so that no name is a prefix of another,
//! and its sequence number, big-endian. Right before the events of a stream lies what is kept of
//! the stream itself, so whoever reads rows in their order knows that first. Signals, collections,
//! cohorts and graphs have a name escaped like that and what the name has it of: see [`named_key`].

use crate::codec::Cursor;
use crate::fork::is_fork_key;
use crate::limits::{NAME_BYTES_MAX, STORED_KEY_BYTES_MAX, USER_KEY_BYTES_MAX};
use crate::signal::signal_of;
use crate::{Error, NamespaceId, Result};

/// Which primitive a stored key belongs to. The numbers are part of the log format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TypeTag {
    /// A run's entry in the run index (namespace [`NamespaceId::SYSTEM`] only).
    Run = 1,
    /// A key-value pair.
    Kv = 2,
    /// An event of a stream.
    Event = 3,
    /// A state cell.
    State = 4,
    /// A decaying signal.
    Signal = 5,
    /// The receipt kept for an idempotency key.
    Idempotency = 6,
    /// A collection or an item of one.
    Collection = 7,
    /// The attributes of an entity.
    Attributes = 8,
    /// What a cohort has of a signal; in [`NamespaceId::SYSTEM`] the definitions of cohorts.
    Cohort = 9,
    /// What an actor engaged with, and what was engaged with together; in
    /// [`NamespaceId::SYSTEM`] the definitions of graphs.
    Engagement = 10,
}

impl TypeTag {
    /// Every tag, in the order of stored keys.
    pub const ALL: [Self; 10] = [
        Self::Run,
        Self::Kv,
        Self::Event,
        Self::State,
        Self::Signal,
        Self::Idempotency,
        Self::Collection,
        Self::Attributes,
        Self::Cohort,
        Self::Engagement,
    ];

    /// Whether deltas are folded into its rows: see [`crate::signal`].
    pub const fn is_folded(self) -> bool {
        matches!(self, Self::Signal | Self::Cohort)
    }

    /// From its number; `None` if no primitive has it.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|tag| *tag as u8 == number)
    }
}

/// A stored key. See the module's drawing for its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<[u8]>);

impl Key {
    /// Bytes in front of the primitive's own key.
    pub const PREFIX_BYTES: usize = 5;

    /// The key of `tag` in `namespace` with the caller's `user_key`, which must not be empty
    /// nor longer than [`USER_KEY_BYTES_MAX`].
    pub fn new(namespace: NamespaceId, tag: TypeTag, user_key: &[u8]) -> Result<Self> {
        check_user_key(user_key)?;
        Ok(Self::join(namespace, tag, user_key))
    }

    /// The first possible key of `tag` in `namespace`: where its range begins.
    pub fn first_of(namespace: NamespaceId, tag: TypeTag) -> Self {
        Self::join(namespace, tag, &[])
    }

    fn join(namespace: NamespaceId, tag: TypeTag, own: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(Self::PREFIX_BYTES + own.len());
        bytes.extend_from_slice(&namespace.0.to_be_bytes());
        bytes.push(tag as u8);
        bytes.extend_from_slice(own);
        Self(bytes.into())
    }

    /// From stored bytes, which must have a known tag, a primitive's key and a length within
    /// the limits.
    pub fn from_stored(bytes: &[u8]) -> Result<Self> {
        let cursor = Cursor::new("key", bytes);
        if bytes.len() <= Self::PREFIX_BYTES || bytes.len() > STORED_KEY_BYTES_MAX {
            return Err(cursor.malformed("a length no key has"));
        }
        if TypeTag::from_number(bytes[4]).is_none() {
            return Err(cursor.malformed("an unknown type tag"));
        }
        Ok(Self(bytes.into()))
    }

    /// The stored bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The namespace a stored key belongs to; `None` if `stored` is shorter than any key.
    pub fn namespace_of(stored: &[u8]) -> Option<NamespaceId> {
        stored.first_chunk().map(|id| NamespaceId(u32::from_be_bytes(*id)))
    }

    /// The primitive a stored key belongs to; `None` if it is none's.
    pub fn tag_of(stored: &[u8]) -> Option<TypeTag> {
        stored.get(4).and_then(|tag| TypeTag::from_number(*tag))
    }

    /// A stored key in words, for people: what it is of, its own part, and its namespace.
    pub fn in_words(stored: &[u8]) -> String {
        let own = Self::user_part(stored).escape_ascii();
        let (Some(namespace), Some(tag)) = (Self::namespace_of(stored), Self::tag_of(stored))
        else {
            return format!("{}, which is no key,", stored.escape_ascii());
        };
        let what = match tag {
            TypeTag::Run if namespace == NamespaceId::SYSTEM => format!("run {own}"),
            TypeTag::Run if is_fork_key(stored) => "what a run was forked from".to_owned(),
            TypeTag::Run => "the grave of a run".to_owned(),
            TypeTag::Kv => format!("key-value {own}"),
            TypeTag::Event => match (stream_of(stored), stream_name(stored), event_seq(stored)) {
                (Some(stream), ..) => format!("stream {}", stream.escape_ascii()),
                (_, Some(stream), Some(seq)) => {
                    format!("event {seq} of stream {}", stream.escape_ascii())
                }
                _ => format!("event {own}"),
            },
            TypeTag::State => format!("state cell {own}"),
            TypeTag::Signal => match signal_of(stored) {
                Some((name, entity)) => format!("signal {name} of {}", entity.escape_ascii()),
                None => format!("signal {own}"),
            },
            TypeTag::Idempotency => format!("idempotency key {own}"),
            TypeTag::Attributes => format!("attributes of {own}"),
            TypeTag::Collection | TypeTag::Cohort | TypeTag::Engagement => {
                let what = match tag {
                    TypeTag::Collection => "collection",
                    TypeTag::Cohort => "cohort",
                    _ => "graph",
                };
                match named_parts(stored) {
                    Some((name, own)) => format!("{what} {name}: {}", own.escape_ascii()),
                    None => format!("{what} {own}"),
                }
            }
        };
        match namespace {
            NamespaceId::SYSTEM => what,
            NamespaceId(id) => format!("{what} in namespace {id}"),
        }
    }

    /// The primitive's own part of a stored key.
    pub fn user_part(stored: &[u8]) -> &[u8] {
        stored.get(Self::PREFIX_BYTES..).unwrap_or_default()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let own = Self::user_part(&self.0).escape_ascii();
        match (Self::namespace_of(&self.0), Self::tag_of(&self.0)) {
            (Some(namespace), Some(tag)) => write!(f, "Key({}/{tag:?}/{own})", namespace.0),
            _ => write!(f, "Key(invalid {own})"),
        }
    }
}

/// A stored key to look up: its prefix as a number, the rest where the caller has it.
///
/// Keys that are only looked up are not put together first. That saves an allocation; and a
/// processor may have to wait where it reads bytes across the seam of two recent writes. For the
/// same reason the way of such a key is inlined wherever a read goes: passed on, it would be
/// copied through memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRef<'a> {
    /// The bytes in front of the primitive's own key, below how many there are.
    prefix: u64,
    own: &'a [u8],
}

impl<'a> KeyRef<'a> {
    /// As [`Key::new`].
    #[inline(always)]
    pub fn new(namespace: NamespaceId, tag: TypeTag, user_key: &'a [u8]) -> Result<Self> {
        check_user_key(user_key)?;
        let bytes = u64::from(namespace.0) << 8 | tag as u64;
        Ok(Self { prefix: (Key::PREFIX_BYTES as u64) << 40 | bytes, own: user_key })
    }

    /// The namespace of the key; any, if it is too short to have one.
    #[inline]
    pub const fn namespace(&self) -> NamespaceId {
        // Below the number of bytes come namespace and tag.
        #[allow(clippy::cast_possible_truncation, reason = "what is above is not of it")]
        NamespaceId((self.prefix >> 8) as u32)
    }

    /// Whether `stored` is this key.
    #[inline(always)]
    pub fn is(&self, stored: &[u8]) -> bool {
        match stored.split_first_chunk() {
            Some((prefix, own)) => own == self.own && prefix_number(prefix) == self.prefix,
            None => short_number(stored) == self.prefix && self.own.is_empty(),
        }
    }

    /// The stored bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let [_, _, len, bytes @ ..] = self.prefix.to_be_bytes();
        let mut out = Vec::with_capacity(bytes.len() + self.own.len());
        out.extend_from_slice(&bytes[bytes.len() - usize::from(len)..]);
        out.extend_from_slice(self.own);
        out
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for KeyRef<'a> {
    #[inline(always)]
    fn from(stored: &'a T) -> Self {
        let stored = stored.as_ref();
        match stored.split_first_chunk() {
            Some((prefix, own)) => Self { prefix: prefix_number(prefix), own },
            None => Self { prefix: short_number(stored), own: &[] },
        }
    }
}

#[inline]
fn prefix_number([a, b, c, d, tag]: &[u8; Key::PREFIX_BYTES]) -> u64 {
    let bytes = u64::from(u32::from_be_bytes([*a, *b, *c, *d])) << 8 | u64::from(*tag);
    (Key::PREFIX_BYTES as u64) << 40 | bytes
}

/// Of what is too short for a key.
#[cold]
fn short_number(bytes: &[u8]) -> u64 {
    let number = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    (bytes.len() as u64) << 40 | number
}

impl std::hash::Hash for KeyRef<'_> {
    #[inline]
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.prefix);
        state.write(self.own);
    }
}

impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[inline]
fn check_user_key(user_key: &[u8]) -> Result<()> {
    if user_key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if user_key.len() > USER_KEY_BYTES_MAX {
        return Err(Error::KeyTooLong { bytes: user_key.len() });
    }
    Ok(())
}

/// What every key of `stream` in `namespace` begins with, and no key of another stream: the
/// name with each 0 byte doubled as `00 FF`, then `00 01`.
pub fn stream_prefix(namespace: NamespaceId, stream: &[u8]) -> Result<Vec<u8>> {
    escaped_prefix(namespace, TypeTag::Event, stream)
}

/// The same for names of other primitives.
pub(crate) fn escaped_prefix(namespace: NamespaceId, tag: TypeTag, name: &[u8]) -> Result<Vec<u8>> {
    check_user_key(name)?;
    Ok(escaped(namespace, tag, name, ENDS, 8))
}

/// What ends an escaped name that something follows.
const ENDS: [u8; 2] = [0, 1];

/// What ends an escaped name that nothing follows. Sorts in front of the other, and is in no
/// escaped name either.
const ENDS_ALONE: [u8; 2] = [0, 0];

/// With room for `more` bytes behind it.
fn escaped(
    namespace: NamespaceId,
    tag: TypeTag,
    name: &[u8],
    end: [u8; 2],
    more: usize,
) -> Vec<u8> {
    let zeros = name.iter().filter(|byte| **byte == 0).count();
    let mut out = Vec::with_capacity(Key::PREFIX_BYTES + name.len() + zeros + 2 + more);
    out.extend_from_slice(&namespace.0.to_be_bytes());
    out.push(tag as u8);
    match zeros {
        0 => out.extend_from_slice(name),
        _ => name.iter().for_each(|byte| {
            out.push(*byte);
            if *byte == 0 {
                out.push(0xff);
            }
        }),
    }
    out.extend_from_slice(&end);
    out
}

/// What every key of `tag` with this name in `namespace` begins with, and no key of another name.
/// `what` is for the error.
pub(crate) fn named_prefix(
    namespace: NamespaceId,
    tag: TypeTag,
    what: &'static str,
    name: &str,
) -> Result<Vec<u8>> {
    named(namespace, tag, what, name, 0)
}

/// The key of `own` under a name.
pub(crate) fn named_key(
    namespace: NamespaceId,
    tag: TypeTag,
    what: &'static str,
    name: &str,
    own: &[u8],
) -> Result<Key> {
    check_user_key(own)?;
    let mut bytes = named(namespace, tag, what, name, own.len())?;
    bytes.extend_from_slice(own);
    Ok(Key(bytes.into()))
}

fn named(
    namespace: NamespaceId,
    tag: TypeTag,
    what: &'static str,
    name: &str,
    more: usize,
) -> Result<Vec<u8>> {
    match name.len() {
        0 => Err(Error::EmptyName { what }),
        bytes if bytes > NAME_BYTES_MAX => {
            Err(Error::NameTooLong { what, bytes, limit: NAME_BYTES_MAX })
        }
        _ => Ok(escaped(namespace, tag, name.as_bytes(), ENDS, more)),
    }
}

/// The name in a stored key, and what is under it, which is empty in a bare prefix; `None` if
/// there is no name.
pub(crate) fn named_parts(stored: &[u8]) -> Option<(String, &[u8])> {
    let own = Key::user_part(stored);
    let mut at = 0;
    loop {
        at += own.get(at..)?.iter().position(|byte| *byte == 0)?;
        match own.get(at + 1)? {
            1 => break,
            _ => at += 2,
        }
    }
    let name = String::from_utf8(unescape(&own[..at])?).ok()?;
    Some((name, &own[at + 2..])).filter(|(name, _)| !name.is_empty())
}

/// The key of what is kept of `stream` in `namespace` beside its events: the name escaped as in
/// [`stream_prefix`], then `00 00`.
pub fn stream_key(namespace: NamespaceId, stream: &[u8]) -> Result<Key> {
    check_user_key(stream)?;
    Ok(Key(escaped(namespace, TypeTag::Event, stream, ENDS_ALONE, 0).into()))
}

/// The stream whose own key `stored` is; `None` if it is an event's, or of no stream.
pub fn stream_of(stored: &[u8]) -> Option<Vec<u8>> {
    if Key::tag_of(stored) != Some(TypeTag::Event) {
        return None;
    }
    unescape(Key::user_part(stored).strip_suffix(&ENDS_ALONE)?)
}

/// The key of the event `seq` of `stream` in `namespace`.
pub fn event_key(namespace: NamespaceId, stream: &[u8], seq: u64) -> Result<Key> {
    let mut out = stream_prefix(namespace, stream)?;
    out.extend_from_slice(&seq.to_be_bytes());
    Ok(Key(out.into()))
}

/// The stream's name in the stored key of an event; `None` if it is not one.
pub fn stream_name(stored: &[u8]) -> Option<Vec<u8>> {
    let own = Key::user_part(stored);
    unescape(own.get(..own.len().checked_sub(8)?)?.strip_suffix(&ENDS)?)
}

/// The name that was escaped; `None` if none was.
pub(crate) fn unescape(escaped: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(byte) = bytes.next() {
        name.push(*byte);
        if *byte == 0 && bytes.next() != Some(&0xff) {
            return None;
        }
    }
    Some(name)
}

/// The sequence number in the stored key of an event; `None` if it is too short for one.
pub fn event_seq(stored: &[u8]) -> Option<u64> {
    Key::user_part(stored).last_chunk().map(|seq| u64::from_be_bytes(*seq))
}

/// The first key after all that begin with `prefix`; `None` if there is no such key, as
/// after a prefix of `FF` bytes only.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NS: NamespaceId = NamespaceId(7);

    proptest! {
        #[test]
        fn a_key_in_two_parts_stands_for_its_bytes(
            stored in prop::collection::vec(0u8..2, 0..9),
            other in prop::collection::vec(0u8..2, 0..9),
        ) {
            let (key, other_key) = (KeyRef::from(&stored), KeyRef::from(&other));
            prop_assert_eq!(key.to_vec(), &stored[..]);
            prop_assert_eq!(key == other_key, stored == other);
            prop_assert_eq!(key.is(&other), stored == other);
            let key = Key::new(NS, TypeTag::Kv, b"own")?;
            prop_assert_eq!(KeyRef::new(NS, TypeTag::Kv, b"own")?, KeyRef::from(&key));
        }

        #[test]
        fn stored_order_is_the_order_of_namespace_type_and_bytes(
            a in (0u32..3, 0usize..6, prop::collection::vec(0u8..3, 1..4)),
            b in (0u32..3, 0usize..6, prop::collection::vec(0u8..3, 1..4)),
        ) {
            let key = |(ns, tag, bytes): &(u32, usize, Vec<u8>)| {
                Key::new(NamespaceId(*ns), TypeTag::ALL[*tag], bytes).unwrap()
            };
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
        }

        #[test]
        fn an_event_key_gives_back_its_stream_and_sequence(
            name in prop::collection::vec(0u8..3, 1..8), seq: u64
        ) {
            let key = event_key(NS, &name, seq).unwrap();
            prop_assert_eq!(stream_name(key.as_bytes()), Some(name));
            prop_assert_eq!(event_seq(key.as_bytes()), Some(seq));
            prop_assert_eq!(stream_of(key.as_bytes()), None);
        }

        #[test]
        fn what_is_kept_of_a_stream_lies_right_before_its_events(
            name in prop::collection::vec(prop::sample::select(vec![0u8, 1, 255]), 1..12),
            other in prop::collection::vec(prop::sample::select(vec![0u8, 1, 255]), 1..12),
            seq: u64,
        ) {
            let key = stream_key(NS, &name)?;
            prop_assert_eq!(stream_of(key.as_bytes()), Some(name.clone()));
            prop_assert_eq!(stream_name(key.as_bytes()), None);
            prop_assert!(key < event_key(NS, &name, 0)?);
            prop_assert!(!key.as_bytes().starts_with(&stream_prefix(NS, &name)?));
            prop_assume!(name != other);
            prop_assert_eq!(event_key(NS, &other, seq)? < key, other < name);
        }

        #[test]
        fn streams_are_apart_and_in_the_order_of_their_names(
            a in prop::collection::vec(prop::sample::select(vec![0u8, 1, 2, 255]), 1..5),
            b in prop::collection::vec(prop::sample::select(vec![0u8, 1, 2, 255]), 1..5),
            seqs: (u64, u64),
        ) {
            prop_assume!(a != b);
            let prefix = stream_prefix(NS, &a).unwrap();
            let other = event_key(NS, &b, seqs.1).unwrap();
            prop_assert!(!other.as_bytes().starts_with(&prefix));
            prop_assert_eq!(event_key(NS, &a, seqs.0).unwrap() < other, a < b);
        }

        #[test]
        fn a_prefix_ends_right_after_its_last_key(
            prefix in prop::collection::vec(any::<u8>(), 0..4),
            key in prop::collection::vec(any::<u8>(), 0..6),
        ) {
            let inside = match prefix_end(&prefix) {
                Some(end) => key >= prefix && key < end,
                None => key >= prefix,
            };
            prop_assert_eq!(inside, key.starts_with(&prefix));
        }
    }

    #[test]
    fn refuses_empty_and_over_long_keys() {
        assert_eq!(Key::new(NS, TypeTag::Kv, b""), Err(Error::EmptyKey));
        let long = vec![b'k'; USER_KEY_BYTES_MAX + 1];
        assert_eq!(Key::new(NS, TypeTag::Kv, &long), Err(Error::KeyTooLong { bytes: long.len() }));
        assert!(Key::new(NS, TypeTag::Kv, &long[1..]).is_ok());
        let zeros = vec![0; USER_KEY_BYTES_MAX];
        let key = event_key(NS, &zeros, 0).unwrap();
        assert!(key.as_bytes().len() <= STORED_KEY_BYTES_MAX, "escaping fits the limit");
    }
}
