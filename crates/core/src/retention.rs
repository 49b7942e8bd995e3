//! How much history is kept, of what.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::codec::{Cursor, put_varint};
use crate::{Result, RunId, Timestamp, TypeTag, Version};

/// Which superseded versions of a key are kept beyond what open views need.
///
/// A version is superseded by the next one of its key, or at its expiry if that comes first:
/// an expiry counts as a deletion. The newest version that is there is always kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retention {
    /// The newest versions, this many.
    KeepLast(NonZeroU32),
    /// Every version until it has been superseded for this long.
    KeepFor(Duration),
    /// What either of [`Retention::KeepLast`] and [`Retention::KeepFor`] would keep.
    KeepLastOrFor(NonZeroU32, Duration),
    /// Every version ever written.
    KeepAll,
}

impl Retention {
    /// The newest version only: the default.
    pub const NEWEST: Self = Self::KeepLast(NonZeroU32::MIN);

    /// How many of the newest versions are kept however old they are; `None` for all.
    pub const fn kept_at_least(self) -> Option<NonZeroU32> {
        match self {
            Self::KeepLast(n) | Self::KeepLastOrFor(n, _) => Some(n),
            Self::KeepFor(_) => Some(NonZeroU32::MIN),
            Self::KeepAll => None,
        }
    }

    /// For how long a superseded version is kept however many newer ones there are.
    pub const fn kept_for(self) -> Duration {
        match self {
            Self::KeepFor(duration) | Self::KeepLastOrFor(_, duration) => duration,
            Self::KeepLast(_) => Duration::ZERO,
            Self::KeepAll => Duration::MAX,
        }
    }

    /// Appends the encoding: a count (0 for every version), then microseconds.
    fn encode(self, out: &mut Vec<u8>) {
        put_varint(out, self.kept_at_least().map_or(0, |n| u64::from(n.get())));
        let micros = match self {
            Self::KeepAll => 0,
            _ => u64::try_from(self.kept_for().as_micros()).unwrap_or(u64::MAX),
        };
        put_varint(out, micros);
    }

    fn decode(cursor: &mut Cursor<'_>) -> Result<Self> {
        let n = u32::try_from(cursor.varint()?)
            .map_err(|_| cursor.malformed("more versions than there can be"))?;
        let duration = Duration::from_micros(cursor.varint()?);
        Ok(match (NonZeroU32::new(n), duration) {
            (None, Duration::ZERO) => Self::KeepAll,
            (None, _) => return Err(cursor.malformed("every version, and for some time")),
            (Some(n), Duration::ZERO) => Self::KeepLast(n),
            (Some(NonZeroU32::MIN), duration) => Self::KeepFor(duration),
            (Some(n), duration) => Self::KeepLastOrFor(n, duration),
        })
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self::NEWEST
    }
}

impl std::fmt::Display for Retention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::KeepAll => f.write_str("every version"),
            Self::KeepLast(NonZeroU32::MIN) => f.write_str("the newest version"),
            Self::KeepLast(n) => write!(f, "the newest {n} versions"),
            Self::KeepFor(duration) => write!(f, "versions superseded within {duration:?}"),
            Self::KeepLastOrFor(n, duration) => {
                write!(f, "the newest {n} versions and those superseded within {duration:?}")
            }
        }
    }
}

/// What is kept of everything: a rule for all, rules for some primitives, rules for some runs.
///
/// A run's own rule goes before that of a primitive, and that before the rule for all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetentionPolicy {
    default: Retention,
    tags: BTreeMap<TypeTag, Retention>,
    runs: BTreeMap<RunId, Retention>,
}

impl From<Retention> for RetentionPolicy {
    fn from(default: Retention) -> Self {
        Self { default, ..Self::default() }
    }
}

impl RetentionPolicy {
    /// Sets the rule of a primitive.
    #[must_use]
    pub fn with_primitive(mut self, tag: TypeTag, retention: Retention) -> Self {
        self.tags.insert(tag, retention);
        self
    }

    /// Sets the rule of a run, for all its primitives.
    #[must_use]
    pub fn with_run(mut self, run: RunId, retention: Retention) -> Self {
        self.runs.insert(run, retention);
        self
    }

    /// The rule for all that has none of its own.
    pub const fn default_rule(&self) -> Retention {
        self.default
    }

    /// The rules of primitives.
    pub fn primitives(&self) -> impl Iterator<Item = (TypeTag, Retention)> {
        self.tags.iter().map(|(tag, retention)| (*tag, *retention))
    }

    /// The rules of runs.
    pub fn runs(&self) -> impl Iterator<Item = (RunId, Retention)> {
        self.runs.iter().map(|(run, retention)| (*run, *retention))
    }

    /// The rule of a run; `None` if it has none of its own.
    pub fn of_run(&self, run: RunId) -> Option<Retention> {
        self.runs.get(&run).copied()
    }

    /// The rule of a primitive where the run has none.
    pub fn of_primitive(&self, tag: TypeTag) -> Retention {
        self.tags.get(&tag).copied().unwrap_or(self.default)
    }

    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.default.encode(out);
        put_varint(out, self.tags.len() as u64);
        for (tag, retention) in &self.tags {
            out.push(*tag as u8);
            retention.encode(out);
        }
        put_varint(out, self.runs.len() as u64);
        for (run, retention) in &self.runs {
            out.extend_from_slice(&run.to_bytes());
            retention.encode(out);
        }
    }

    /// Reads what [`RetentionPolicy::encode`] wrote.
    pub fn decode(cursor: &mut Cursor<'_>) -> Result<Self> {
        let mut policy = Self::from(Retention::decode(cursor)?);
        for _ in 0..cursor.length()? {
            let tag = TypeTag::from_number(cursor.u8()?)
                .ok_or_else(|| cursor.malformed("an unknown type tag"))?;
            policy.tags.insert(tag, Retention::decode(cursor)?);
        }
        for _ in 0..cursor.length()? {
            let run = RunId::from_bytes(cursor.array()?);
            policy.runs.insert(run, Retention::decode(cursor)?);
        }
        Ok(policy)
    }
}

/// What shares a floor: a primitive, in a run that has a rule of its own or in all that have
/// none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RetentionDomain {
    /// The run, if it has a rule of its own.
    pub run: Option<RunId>,
    /// The primitive.
    pub tag: TypeTag,
}

/// Up to where the past of a domain is gone. Only rises.
///
/// A read is right if it is made at `version` or above *and* with a clock at `clock` or above:
/// what is dropped because it was superseded is missed below the superseding version, what is
/// dropped because it expired is missed before its expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetentionFloor {
    /// The oldest version at which everything of the domain can be read.
    pub version: Version,
    /// The earliest clock reading with which it can.
    pub clock: Timestamp,
}

impl RetentionFloor {
    /// The higher of both, in each part.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { version: self.version.max(other.version), clock: self.clock.max(other.clock) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_round_trips_and_the_narrowest_rule_wins() {
        let n = |n| NonZeroU32::new(n).unwrap();
        let (run, hour) = (RunId::from_bytes([7; 16]), Duration::from_secs(3600));
        let policy = RetentionPolicy::from(Retention::KeepLast(n(3)))
            .with_primitive(TypeTag::State, Retention::KeepAll)
            .with_primitive(TypeTag::Kv, Retention::KeepFor(hour))
            .with_run(run, Retention::KeepLastOrFor(n(2), hour));
        let mut bytes = Vec::new();
        policy.encode(&mut bytes);
        let decoded = RetentionPolicy::decode(&mut Cursor::new("policy", &bytes)).unwrap();
        assert_eq!(decoded, policy);
        assert_eq!(policy.of_primitive(TypeTag::State), Retention::KeepAll);
        assert_eq!(policy.of_primitive(TypeTag::Signal), Retention::KeepLast(n(3)));
        assert_eq!(policy.of_run(run), Some(Retention::KeepLastOrFor(n(2), hour)));
        assert_eq!(policy.of_run(RunId::from_bytes([8; 16])), None);
    }
}
