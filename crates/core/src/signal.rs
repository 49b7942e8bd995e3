//! Signals: what is counted of an entity, and how a count fades.
//!
//! An *observation* (a weight at a time) is logged as it was made, in a [`Delta`]. What a store
//! keeps is the [`Signal`], the fold of all deltas of one name and entity in the order of their
//! versions. A delta carries its definition, so folding needs nothing but the signal and the
//! delta: it gives the same bits wherever it is done, when a commit is published, when a log is
//! replayed, and when a piece of a snapshot is rebuilt.
//!
//! ```text
//! delta       := definition | how many varint | { weight f64 | time u64, µs since 1970 }
//! definition  := version varint | decay u8 | its time varint, µs (unless permanent)
//!                | minutes varint | hours varint | velocity u8 | its length varint
//! ```
//!
//! Numbers of fixed width are little-endian.

use std::time::Duration;

use crate::codec::{Cursor, put_varint};
use crate::key::{escaped_prefix, named_parts};
use crate::limits::{
    NAME_BYTES_MAX, SIGNAL_BUCKETS_MAX, SIGNAL_DECAY_US_MAX, SIGNAL_TIME_US_MAX, SIGNAL_WEIGHT_MAX,
    USER_KEY_BYTES_MAX,
};
use crate::{Error, Key, NamespaceId, Record, RecordBuilder, Result, Timestamp, TypeTag, Value};

mod aggregate;
pub(crate) mod power;

pub use aggregate::{Signal, count_in, per_second, score_in};

/// How the weight of an observation fades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// It does not: the score is the sum of the weights.
    Permanent,
    /// By half in each half-life: `weight × 2^(−age / half_life)`.
    Exponential {
        /// From 1 µs to [`SIGNAL_DECAY_US_MAX`].
        half_life: Duration,
    },
    /// In a straight line, to nothing at the end of the lifetime:
    /// `weight × max(0, 1 − age / lifetime)`. The age counts from the beginning of the 64th part
    /// of a lifetime in which the observation lies, those parts being counted from 1970, so that
    /// a signal keeps at most 64 sums however many observations it has.
    Linear {
        /// From 1 µs to [`SIGNAL_DECAY_US_MAX`].
        lifetime: Duration,
    },
}

/// A stretch of time before a reading, in which observations are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// So many minutes of the clock, the one under way included.
    Minutes(u32),
    /// So many hours of the clock, the one under way included.
    Hours(u32),
    /// From the first observation on.
    AllTime,
}

/// What a signal keeps of its observations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalDefinition {
    /// Grows when a definition is changed; 0 for the definition of a name that has none.
    pub version: u32,
    /// How weights fade.
    pub decay: Decay,
    /// For how many minutes observations are counted by the minute.
    pub minutes: u32,
    /// For how many hours they are counted by the hour.
    pub hours: u32,
    /// Over which window the velocity is taken; not [`Window::AllTime`].
    pub velocity: Window,
}

impl Default for SignalDefinition {
    /// What a name means that nobody defined: half-life 7 days, 60 minutes, 24 hours, velocity
    /// over 60 minutes.
    fn default() -> Self {
        Self {
            version: 0,
            decay: Decay::Exponential { half_life: Duration::from_secs(7 * 24 * 3600) },
            minutes: 60,
            hours: 24,
            velocity: Window::Minutes(60),
        }
    }
}

const PERMANENT: u8 = 0;
const EXPONENTIAL: u8 = 1;
const LINEAR: u8 = 2;

const MINUTES: u8 = 0;
const HOURS: u8 = 1;

/// Microseconds of a minute and of an hour.
pub(crate) const MINUTE_US: u64 = 60_000_000;
pub(crate) const HOUR_US: u64 = 60 * MINUTE_US;

const fn invalid(reason: &'static str) -> Error {
    Error::Signal { reason }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl SignalDefinition {
    /// Refuses what is outside of the limits.
    pub fn check(&self) -> Result<()> {
        match self.decay {
            Decay::Exponential { half_life: time } | Decay::Linear { lifetime: time }
                if !(1..=SIGNAL_DECAY_US_MAX).contains(&micros(time)) =>
            {
                return Err(invalid("a half-life or lifetime is from 1 µs to 1000 years"));
            }
            _ => {}
        }
        if self.minutes > SIGNAL_BUCKETS_MAX || self.hours > SIGNAL_BUCKETS_MAX {
            return Err(invalid("a window is at most 1000 minutes, or 1000 hours, long"));
        }
        match self.velocity {
            Window::AllTime => Err(invalid("a velocity needs a window that has a length")),
            window => self.check_window(window),
        }
    }

    /// Refuses a window that is not kept.
    pub fn check_window(&self, window: Window) -> Result<()> {
        match window {
            Window::Minutes(n) if n == 0 || n > self.minutes => {
                Err(invalid("the signal does not count by the minute for that long"))
            }
            Window::Hours(n) if n == 0 || n > self.hours => {
                Err(invalid("the signal does not count by the hour for that long"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.version.into());
        match self.decay {
            Decay::Permanent => out.push(PERMANENT),
            Decay::Exponential { half_life } => {
                out.push(EXPONENTIAL);
                put_varint(out, micros(half_life));
            }
            Decay::Linear { lifetime } => {
                out.push(LINEAR);
                put_varint(out, micros(lifetime));
            }
        }
        put_varint(out, self.minutes.into());
        put_varint(out, self.hours.into());
        let (kind, length) = match self.velocity {
            Window::Hours(n) => (HOURS, n),
            Window::Minutes(n) => (MINUTES, n),
            Window::AllTime => (MINUTES, 0),
        };
        out.push(kind);
        put_varint(out, length.into());
    }

    pub(crate) fn decode(cursor: &mut Cursor<'_>) -> Result<Self> {
        let number = |cursor: &mut Cursor<'_>| {
            u32::try_from(cursor.varint()?).map_err(|_| cursor.malformed("a number above 32 bits"))
        };
        let version = number(cursor)?;
        let decay = match cursor.u8()? {
            PERMANENT => Decay::Permanent,
            EXPONENTIAL => {
                Decay::Exponential { half_life: Duration::from_micros(cursor.varint()?) }
            }
            LINEAR => Decay::Linear { lifetime: Duration::from_micros(cursor.varint()?) },
            _ => return Err(cursor.malformed("an unknown decay")),
        };
        let (minutes, hours) = (number(cursor)?, number(cursor)?);
        let velocity = match cursor.u8()? {
            MINUTES => Window::Minutes(number(cursor)?),
            HOURS => Window::Hours(number(cursor)?),
            _ => return Err(cursor.malformed("an unknown window")),
        };
        let definition = Self { version, decay, minutes, hours, velocity };
        definition.check()?;
        Ok(definition)
    }

    /// As a value, which is how a database keeps it.
    pub fn to_value(&self) -> Value {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        Value::Bytes(bytes)
    }

    /// From such a value.
    pub fn from_value(value: &Value) -> Result<Self> {
        let mut cursor = Cursor::new("signal definition", value.as_bytes().unwrap_or_default());
        let definition = Self::decode(&mut cursor)?;
        cursor.end()?;
        Ok(definition)
    }
}

/// Something that was seen: a weight at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// From 0 to [`SIGNAL_WEIGHT_MAX`].
    pub weight: f64,
    /// When.
    pub at: Timestamp,
}

impl Observation {
    /// Refuses what cannot be counted.
    pub fn check(&self) -> Result<()> {
        if !self.weight.is_finite() {
            return Err(invalid("a weight must be a number, neither NaN nor infinite"));
        }
        if self.weight < 0.0 || self.weight > SIGNAL_WEIGHT_MAX {
            return Err(invalid("a weight is from 0 to 10^15"));
        }
        if self.at.as_micros() > SIGNAL_TIME_US_MAX {
            return Err(invalid("a signal is of the year 9999 at the latest"));
        }
        Ok(())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        // There is one zero.
        out.extend_from_slice(&(self.weight + 0.0).to_le_bytes());
        out.extend_from_slice(&self.at.as_micros().to_le_bytes());
    }

    fn decode(cursor: &mut Cursor<'_>) -> Result<Self> {
        let weight = f64::from_le_bytes(cursor.array()?);
        let observation = Self { weight, at: Timestamp::from_micros(cursor.u64()?) };
        observation.check().map_err(|_| cursor.malformed("an observation that cannot be"))?;
        Ok(observation)
    }
}

/// Observations of one name and entity that one transaction makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Delta {
    /// What the name means.
    pub definition: SignalDefinition,
    /// In the order in which they were made; at least one.
    pub observations: Vec<Observation>,
}

impl Delta {
    /// Checks and encodes it.
    pub fn encode(&self) -> Result<Vec<u8>> {
        Self::encode_parts(&self.definition, &self.observations)
    }

    /// The encoding of a delta of these parts.
    pub fn encode_parts(
        definition: &SignalDefinition,
        observations: &[Observation],
    ) -> Result<Vec<u8>> {
        definition.check()?;
        observations.iter().try_for_each(Observation::check)?;
        let mut out = Vec::with_capacity(24 + 16 * observations.len());
        definition.encode(&mut out);
        put_varint(&mut out, observations.len() as u64);
        observations.iter().for_each(|observation| observation.encode(&mut out));
        Ok(out)
    }

    /// Checks what [`Delta::encode`] wrote, every bit of it, without keeping any.
    pub(crate) fn check(bytes: &[u8]) -> Result<()> {
        let mut cursor = Cursor::new("signal delta", bytes);
        Self::head(&mut cursor)?;
        while !cursor.is_empty() {
            Observation::decode(&mut cursor)?;
        }
        Ok(())
    }

    /// Reads a definition, and how many observations follow, which is all that does.
    fn head(cursor: &mut Cursor<'_>) -> Result<(SignalDefinition, usize)> {
        let definition = SignalDefinition::decode(cursor)?;
        let count = cursor.length()?;
        if count == 0 || count.checked_mul(16) != Some(cursor.left()) {
            return Err(cursor.malformed("a number of observations that is not there"));
        }
        Ok((definition, count))
    }

    /// Reads what [`Delta::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new("signal delta", bytes);
        let (definition, count) = Self::head(&mut cursor)?;
        let mut observations = Vec::with_capacity(count);
        for _ in 0..count {
            observations.push(Observation::decode(&mut cursor)?);
        }
        Ok(Self { definition, observations })
    }
}

/// The record that `delta` leaves on top of `base`, the newest record of its key below it, if it
/// has one: the signal, with the version and time of the delta.
///
/// `None` if `base` has that version's effect already, or a later one: nothing is counted twice.
///
/// A `base` that is no signal, which only a stranger's file can have, stays what it is, so that
/// whoever reads it is told.
pub fn fold(base: Option<&Record>, delta: &Record) -> Option<Record> {
    if base.is_some_and(|base| base.version() >= delta.version()) {
        return None;
    }
    let base = base.filter(|base| !base.is_tombstone()).map(Record::value_bytes);
    let key = delta.key();
    let mut bytes = Vec::with_capacity(key.len() + base.map_or(64, <[u8]>::len) + 16);
    bytes.extend_from_slice(key);
    let folded = aggregate::fold_bytes(base, delta.value_bytes(), delta.timestamp(), &mut bytes);
    if folded.is_err() {
        bytes.truncate(key.len());
        bytes.extend_from_slice(base.unwrap_or(delta.value_bytes()));
    }
    let (version, timestamp) = (delta.version(), delta.timestamp());
    let builder = RecordBuilder { version, timestamp, expiry: None };
    Some(builder.put(&bytes, key.len()))
}

/// The key of the signal `name` of `entity` in `namespace`.
pub fn signal_key(namespace: NamespaceId, name: &str, entity: &[u8]) -> Result<Key> {
    with_signal_key(namespace, name, entity, Key::from_stored)?
}

/// Keys up to this length are put together without an allocation.
const KEY_AT_HAND_BYTES: usize = 96;

/// Calls `with` with the stored bytes of that key: for those who only look it up or copy it.
#[inline(always)]
pub fn with_signal_key<T>(
    namespace: NamespaceId,
    name: &str,
    entity: &[u8],
    with: impl FnOnce(&[u8]) -> T,
) -> Result<T> {
    check_signal_name(name)?;
    if entity.is_empty() {
        return Err(Error::EmptyKey);
    }
    if entity.len() > USER_KEY_BYTES_MAX {
        return Err(Error::KeyTooLong { bytes: entity.len() });
    }
    let name_end = Key::PREFIX_BYTES + name.len();
    let len = name_end + 2 + entity.len();
    if len > KEY_AT_HAND_BYTES || name.as_bytes().contains(&0) {
        let mut bytes = signal_prefix(namespace, name)?;
        bytes.extend_from_slice(entity);
        return Ok(with(&bytes));
    }
    let mut bytes = [0; KEY_AT_HAND_BYTES];
    bytes[..4].copy_from_slice(&namespace.0.to_be_bytes());
    bytes[4] = TypeTag::Signal as u8;
    bytes[Key::PREFIX_BYTES..name_end].copy_from_slice(name.as_bytes());
    bytes[name_end + 1] = 1;
    bytes[name_end + 2..len].copy_from_slice(entity);
    Ok(with(&bytes[..len]))
}

/// What every key of the signal `name` in `namespace` begins with, and no key of another.
pub fn signal_prefix(namespace: NamespaceId, name: &str) -> Result<Vec<u8>> {
    check_signal_name(name)?;
    escaped_prefix(namespace, TypeTag::Signal, name.as_bytes())
}

/// Refuses a name that no signal may have.
#[inline]
pub fn check_signal_name(name: &str) -> Result<()> {
    match name.len() {
        0 => Err(Error::EmptyName { what: "signal" }),
        bytes if bytes > NAME_BYTES_MAX => {
            Err(Error::NameTooLong { what: "signal", bytes, limit: NAME_BYTES_MAX })
        }
        _ => Ok(()),
    }
}

/// Name and entity in the stored key of a signal; `None` if it is not one.
pub fn signal_of(stored: &[u8]) -> Option<(String, Vec<u8>)> {
    let (name, entity) = named_parts(stored)?;
    (!entity.is_empty()).then(|| (name, entity.to_vec()))
}
