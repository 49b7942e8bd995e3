//! The hash chain of a stream: every event's hash covers everything in the event and the hash of
//! the event before it.
//!
//! ```text
//! hash := BLAKE3( "steadfast event\0" | hash of the event before, 32 bytes, zeros before the first
//!                 | run id, 16 bytes | sequence number, u64 | length of the stream's name, u32
//!                 | the stream's name | the stored value without the hash itself )
//! ```
//!
//! All numbers are little-endian. The stored value holds the payload, the idempotency key, kind,
//! causation, correlation, scope and the caller's time. What is not in it is what the database
//! adds at the commit: version and time of the commit. An event keeps its hash when its run is
//! imported elsewhere, where it gets another version; and the hash is there before the version
//! is, so no commit is hashed while others wait. Version and time are bound to the event by the
//! checksum of the commit's frame; here they are only checked to rise along the stream.
//!
//! The run is named by its id, the stream by its name: what one database calls them for itself
//! does not matter.

use std::fmt;
use std::str::FromStr;

use steadfast_core::{Record, RunId, Timestamp, Version, event_seq};

use crate::error::{Error, Result};

const DOMAIN: &[u8; 16] = b"steadfast event\0";
const HASH_BYTES: usize = 32;

/// Where the hash lies in a stored event: behind the tag of a list, its count, and length and
/// tag of the bytes that are its first item.
const HASH_AT: std::ops::Range<usize> = 4..4 + HASH_BYTES;

/// The hash of an event and, through it, of every event before it in its stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EventHash([u8; HASH_BYTES]);

impl EventHash {
    /// What stands before the first event of a stream. In an event that is to be restored: its
    /// hash is not known, compute it.
    pub const NONE: Self = Self([0; HASH_BYTES]);

    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }
}

/// In hexadecimal.
impl fmt::Display for EventHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EventHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventHash({self})")
    }
}

impl FromStr for EventHash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::Invalid(format!("`{text}` is not a hash: 64 hexadecimal digits"));
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != HASH_BYTES || !rest.is_empty() {
            return Err(wrong());
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let mut hash = [0; HASH_BYTES];
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            *byte = digit(*high).ok_or_else(wrong)? << 4 | digit(*low).ok_or_else(wrong)?;
        }
        Ok(Self(hash))
    }
}

/// The last event of a stream: all that must be kept outside of a database to prove later that
/// nobody changed, moved or took away anything in the stream up to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHead {
    /// Its sequence number.
    pub seq: u64,
    /// Its hash.
    pub hash: EventHash,
}

/// `17:9f86…`, which reads back.
impl fmt::Display for EventHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for EventHead {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::Invalid(format!("`{text}` is not a head: SEQUENCE:HASH"));
        let (seq, hash) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Self { seq: seq.parse().map_err(|_| wrong())?, hash: hash.parse()? })
    }
}

/// Computes the hash of a stored event whose own hash may be anything.
fn hash(run: RunId, stream: &[u8], seq: u64, previous: &EventHash, value: &[u8]) -> EventHash {
    let name_len = u32::try_from(stream.len()).expect("names are checked against their limit");
    let mut head = [0; 16 + HASH_BYTES + 16 + 8 + 4];
    let fields: [&[u8]; 5] =
        [DOMAIN, &previous.0, &run.to_bytes(), &seq.to_le_bytes(), &name_len.to_le_bytes()];
    let mut at = 0;
    for field in fields {
        head[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head).update(stream);
    hasher.update(&value[..HASH_AT.start]).update(&value[HASH_AT.end..]);
    EventHash(*hasher.finalize().as_bytes())
}

/// Puts its hash into a stored event.
pub(crate) fn seal(
    run: RunId,
    stream: &[u8],
    seq: u64,
    previous: &EventHash,
    value: &mut [u8],
) -> EventHash {
    let hash = hash(run, stream, seq, previous, value);
    value[HASH_AT].copy_from_slice(&hash.0);
    hash
}

/// How many items a stored event has behind its hash, and those items; `None` if it has no hash.
#[inline]
pub(crate) fn behind_hash(value: &[u8]) -> Option<(usize, &[u8])> {
    let (head, rest) = value.split_at_checked(HASH_AT.end)?;
    // A count of one byte: there are never so many that it would take two.
    let count = usize::from(head[1]).checked_sub(1).filter(|_| head[1] < 0x80)?;
    Some((count, rest))
}

/// The hash in a stored event; `None` if it has none.
#[inline]
pub(crate) fn stored_hash(record: &Record) -> Option<EventHash> {
    record.value_bytes().get(HASH_AT)?.try_into().ok().map(EventHash)
}

/// Follows the chain of one stream, event by event.
pub(crate) struct ChainCheck {
    /// The runs that events were appended to, in the order in which they were: those that were
    /// forked, and the run itself.
    runs: Vec<RunId>,
    /// Which of them the last event was appended to.
    at: usize,
    stream: Vec<u8>,
    last: Option<(EventHead, Version, Timestamp)>,
}

impl ChainCheck {
    pub(crate) fn new(run: RunId, stream: &[u8]) -> Self {
        Self::behind(run, stream, None)
    }

    /// From the event behind `trimmed` on, if there is one.
    pub(crate) fn behind(run: RunId, stream: &[u8], trimmed: Option<EventHead>) -> Self {
        let last = trimmed.map(|head| (head, Version::ZERO, Timestamp::ZERO));
        Self { runs: vec![run], at: 0, stream: stream.to_vec(), last }
    }

    /// The chain of a run that was forked: it may begin with events that were appended to these,
    /// the oldest first.
    pub(crate) fn going_back_to(mut self, ancestors: &[RunId]) -> Self {
        self.runs.splice(0..0, ancestors.iter().copied());
        self
    }

    pub(crate) fn stream(&self) -> &[u8] {
        &self.stream
    }

    /// The last event that was checked.
    pub(crate) fn head(&self) -> Option<EventHead> {
        self.last.map(|last| last.0)
    }

    pub(crate) fn broken(&self, seq: u64, what: &'static str) -> Error {
        Error::EventChain { stream: self.stream.escape_ascii().to_string(), seq, what }
    }

    /// Checks the next record of the stream.
    pub(crate) fn next(&mut self, record: &Record) -> Result<EventHead> {
        let due = self.last.map_or(0, |last| last.0.seq.saturating_add(1));
        let seq = event_seq(record.key()).ok_or_else(|| self.broken(due, "no sequence number"))?;
        if seq > due {
            return Err(self.broken(due, "it is missing"));
        }
        if seq < due {
            return Err(self.broken(seq, "it was written a second time"));
        }
        if record.is_tombstone() {
            return Err(self.broken(seq, "it was deleted"));
        }
        let stored = stored_hash(record).ok_or_else(|| self.broken(seq, "it has no hash"))?;
        let previous = self.head().map_or(EventHash::NONE, |head| head.hash);
        let hash = |run: &RunId| hash(*run, &self.stream, seq, &previous, record.value_bytes());
        // Once the run goes on, nothing more comes from what it was forked from.
        let Some(on) = self.runs[self.at..].iter().position(|run| hash(run) == stored) else {
            return Err(self.broken(seq, "its hash is not that of what it holds and follows"));
        };
        self.at += on;
        let (version, timestamp) = (record.version(), record.timestamp());
        if self.last.is_some_and(|last| version < last.1 || timestamp < last.2) {
            return Err(self.broken(seq, "it was committed before the event in front of it"));
        }
        let head = EventHead { seq, hash: stored };
        self.last = Some((head, version, timestamp));
        Ok(head)
    }

    /// Checks that `head` is in the chain: `found` is the hash of the event with its number.
    pub(crate) fn against(&self, head: &EventHead, found: Option<EventHash>) -> Result<()> {
        match found {
            Some(hash) if hash == head.hash => Ok(()),
            Some(_) => Err(self.broken(head.seq, "it has another hash than the one that was kept")),
            None => Err(self.broken(head.seq, "it is missing, and a hash of it was kept")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{AppendOptions, encode_event};
    use steadfast_core::{Key, NamespaceId, RecordBuilder, event_key};

    #[test]
    fn heads_and_hashes_read_back_and_nothing_else_does() {
        let hash = EventHash(std::array::from_fn(|n| u8::try_from(n * 7).unwrap()));
        let head = EventHead { seq: u64::MAX, hash };
        assert_eq!(head.to_string().parse::<EventHead>().unwrap(), head);
        for wrong in ["", "1", "1:", ":00", "x:00", "-1:00", "1:zz"] {
            assert!(wrong.parse::<EventHead>().is_err(), "{wrong}");
        }
        let text = hash.to_string();
        for wrong in [&text[1..], &format!("{text}0"), &format!("+{}", &text[1..])] {
            assert!(wrong.parse::<EventHash>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_hash_is_the_documented_one() {
        // What the drawing at the head of this file says, put together by hand.
        let run = RunId::from_bytes([0x11; 16]);
        let mut value = vec![7, 2, 33, 6];
        value.extend_from_slice(&[0; 32]);
        value.extend_from_slice(&[9, 3, 7, 0, 0, 0, 0, 0, 0, 0]);
        let mut bytes = b"steadfast event\0".to_vec();
        bytes.extend_from_slice(&[0x22; 32]);
        bytes.extend_from_slice(&[0x11; 16]);
        bytes.extend_from_slice(&[5, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[2, 0, 0, 0, b's', b't']);
        bytes.extend_from_slice(&[7, 2, 33, 6, 9, 3, 7, 0, 0, 0, 0, 0, 0, 0]);
        let previous = EventHash([0x22; 32]);
        let sealed = seal(run, b"st", 5, &previous, &mut value);
        assert_eq!(sealed.0, *blake3::hash(&bytes).as_bytes());
        assert_eq!(value[4..36], sealed.0);
    }

    const RUN: RunId = RunId::from_bytes([7; 16]);

    /// The value of an event and its key, sealed behind `previous`.
    fn event(stream: &[u8], seq: u64, payload: &str, previous: &mut EventHash) -> (Key, Vec<u8>) {
        let options = AppendOptions {
            kind: Some("k".into()),
            scope: Some("s".into()),
            time: Some(Timestamp::from_micros(9)),
            ..AppendOptions::default()
        };
        let mut value = encode_event(payload.into(), &options).unwrap();
        *previous = seal(RUN, stream, seq, previous, &mut value);
        (event_key(NamespaceId(1), stream, seq).unwrap(), value)
    }

    fn honest(n: u64) -> Vec<(Key, Vec<u8>)> {
        let mut previous = EventHash::NONE;
        (0..n).map(|seq| event(b"st", seq, &format!("payload {seq}"), &mut previous)).collect()
    }

    /// Where the check of these records stops, each committed one version after the other.
    fn check(run: RunId, stream: &[u8], events: &[(Key, Vec<u8>)]) -> Result<Option<EventHead>> {
        let mut chain = ChainCheck::new(run, stream);
        for (version, (key, value)) in (1..).zip(events) {
            let (version, timestamp) = (Version(version), Timestamp::from_micros(version));
            let builder = RecordBuilder { version, timestamp, expiry: None };
            let bytes = [key.as_bytes(), value].concat();
            chain.next(&builder.put(&bytes, key.as_bytes().len()))?;
        }
        Ok(chain.head())
    }

    fn first_broken(events: &[(Key, Vec<u8>)]) -> u64 {
        match check(RUN, b"st", events) {
            Err(Error::EventChain { seq, .. }) => seq,
            found => panic!("not found: {found:?}"),
        }
    }

    #[test]
    fn every_bit_of_every_event_is_covered() {
        let events = honest(4);
        assert_eq!(check(RUN, b"st", &events).unwrap().unwrap().seq, 3);
        for seq in 0..4 {
            for byte in 0..events[seq].1.len() {
                for bit in 0..8 {
                    let mut changed = events.clone();
                    changed[seq].1[byte] ^= 1 << bit;
                    assert_eq!(first_broken(&changed), seq as u64, "byte {byte}, bit {bit}");
                }
            }
        }
    }

    #[test]
    fn what_is_swapped_dropped_inserted_or_from_elsewhere_is_found() {
        let events = honest(5);
        let swapped = |mut events: Vec<(Key, Vec<u8>)>, a: usize, b: usize| {
            let value = std::mem::take(&mut events[a].1);
            events[a].1 = std::mem::replace(&mut events[b].1, value);
            events
        };
        assert_eq!(first_broken(&swapped(events.clone(), 1, 3)), 1);
        assert_eq!(first_broken(&[&events[..2], &events[3..]].concat()), 2, "one is dropped");
        assert_eq!(first_broken(&events[1..]), 0, "the first is dropped");
        assert_eq!(first_broken(&[&events[..3], &events[2..]].concat()), 2, "one is there twice");

        // An event that fits behind its predecessor pushes the others out of place.
        let mut previous = EventHash::NONE;
        let mut forged: Vec<_> =
            (0..2).map(|n| event(b"st", n, &format!("payload {n}"), &mut previous)).collect();
        forged.push(event(b"st", 2, "inserted", &mut previous));
        let moved = (3..)
            .zip(&events[2..])
            .map(|(seq, event)| (event_key(NamespaceId(1), b"st", seq).unwrap(), event.1.clone()));
        forged.extend(moved);
        assert_eq!(first_broken(&forged), 3);

        // One written anew, with the hash that it then has: the next one does not follow it.
        let mut anew = events.clone();
        let mut behind: EventHash = EventHash(events[1].1[HASH_AT].try_into().unwrap());
        anew[2] = event(b"st", 2, "other", &mut behind);
        assert_eq!(first_broken(&anew), 3);

        // One dropped and all behind it renumbered, as if it had never been.
        let mut renumbered = events.clone();
        renumbered.remove(2);
        for (seq, event) in (0..).zip(&mut renumbered) {
            event.0 = event_key(NamespaceId(1), b"st", seq).unwrap();
        }
        assert_eq!(first_broken(&renumbered), 2);

        assert!(check(RunId::from_bytes([8; 16]), b"st", &events).is_err(), "of another run");
        assert!(check(RUN, b"sU", &events).is_err(), "of another stream");
        let head = check(RUN, b"st", &events).unwrap().unwrap();
        let mut chain = ChainCheck::new(RUN, b"st");
        chain.last = Some((head, Version(1), Timestamp::ZERO));
        assert!(chain.against(&head, Some(head.hash)).is_ok());
        assert!(chain.against(&head, None).is_err(), "cut off");
        assert!(chain.against(&head, Some(EventHash::NONE)).is_err(), "written anew");
    }
}
