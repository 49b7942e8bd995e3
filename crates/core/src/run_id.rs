//! The identity of a run.

use crate::{Entropy, Timestamp};

/// Identifies a run: a version 7 UUID (RFC 9562), so ids sort by the time of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(uuid::Uuid);

impl RunId {
    /// A new id for a run created at `now`.
    pub fn new(now: Timestamp, entropy: &Entropy) -> Self {
        let mut random = [0; 10];
        random.copy_from_slice(&entropy.next_16()[..10]);
        let millis = now.as_micros() / 1000;
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// From its 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
    }

    /// Its 16 bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// From its text form; `None` if `text` is not a UUID.
    pub fn parse(text: &str) -> Option<Self> {
        uuid::Uuid::try_parse(text).ok().map(Self)
    }
}

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_creation_and_round_trip_as_text() {
        let entropy = Entropy::seeded(1);
        let first = RunId::new(Timestamp::from_micros(1_000_000), &entropy);
        let second = RunId::new(Timestamp::from_micros(2_000_000), &entropy);
        assert!(first < second);
        assert_eq!(RunId::parse(&first.to_string()), Some(first));
        assert_eq!(first.to_string().as_bytes()[14], b'7', "the version digit");
    }
}
