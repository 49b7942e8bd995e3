//! The rule that says which versions of one key are still needed.

use steadfast_core::{Record, Retention, RetentionFloor, Sabotage, Timestamp, Version, sabotaged};

use crate::forks::Pins;

/// Against what versions are judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How much history is kept for its own sake.
    pub retention: Retention,
    /// The oldest version that a reader may be reading at.
    pub horizon: Version,
    /// The newest published version. What is above it may still be taken back.
    pub visible: Version,
    /// What time it is at least.
    pub now: Timestamp,
    /// A value that expired by then counts as deleted; zero if none does.
    pub expired_by: Timestamp,
    /// Whether the newest version must stay although it is deleted or expired: something
    /// outside of this store may still hold what it hides.
    pub tombstones_stay: bool,
    /// Whether it must stay because its run is a fork: it may hide what lies beneath.
    pub may_hide: bool,
}

impl Limits {
    /// How many versions of a key are kept at least; `None` if all.
    fn kept_at_least(&self) -> Option<usize> {
        self.retention.kept_at_least().map(|n| usize::try_from(n.get()).unwrap_or(usize::MAX))
    }
}

/// The versions of one key, oldest first: those in `older`, then `newest`.
#[derive(Clone, Copy)]
pub(crate) struct Chain<'a> {
    pub older: &'a [Record],
    pub newest: &'a Record,
}

/// Versions of a key that can go: the oldest few, but for those that forks see.
pub(crate) struct Superfluous {
    /// How many of the oldest.
    pub first: usize,
    /// Those of them that stay, by rising index.
    but: Vec<usize>,
}

impl Superfluous {
    pub(crate) fn is_empty(&self) -> bool {
        self.first == self.but.len()
    }

    /// Whether the version at `index` is one of them.
    pub(crate) fn has(&self, index: usize) -> bool {
        index < self.first && self.but.binary_search(&index).is_err()
    }
}

impl<'a> Chain<'a> {
    pub(crate) fn len(self) -> usize {
        self.older.len() + 1
    }

    /// The version at `index`, the oldest being 0.
    pub(crate) fn at(self, index: usize) -> &'a Record {
        self.older.get(index).unwrap_or(self.newest)
    }

    /// How many versions are `upto` or below.
    fn count_upto(self, upto: Version) -> usize {
        if self.newest.version() <= upto {
            return self.len();
        }
        self.older.partition_point(|record| record.version() <= upto)
    }

    /// What a reader at `version` sees: the newest one not above it.
    pub(crate) fn newest_at(self, version: Version) -> Option<&'a Record> {
        self.count_upto(version).checked_sub(1).map(|index| self.at(index))
    }

    /// The versions not above `version`, newest first.
    pub(crate) fn upto(self, version: Version) -> impl Iterator<Item = &'a Record> {
        (0..self.count_upto(version)).rev().map(move |index| self.at(index))
    }

    /// How many of the oldest versions are needed neither by a reader at the horizon or later
    /// nor by retention: all of them if the newest has expired and nothing is kept below it.
    pub(crate) fn first_needed(self, limits: &Limits) -> usize {
        let Some(kept) = limits.kept_at_least() else { return 0 };
        let kept = kept - usize::from(sabotaged(Sabotage::TrimOneTooMany));
        let expired = self.is_expired(limits);
        let for_readers = if expired && self.newest.version() <= limits.horizon {
            self.len()
        } else {
            self.count_upto(limits.horizon).saturating_sub(1)
        };
        if for_readers == 0 {
            return 0;
        }
        // An expiry counts as a deletion on top.
        let by_count = self.count_upto(limits.visible) + usize::from(expired);
        let mut first = for_readers.min(by_count.saturating_sub(kept));
        if limits.tombstones_stay || limits.may_hide {
            first = first.min(self.older.len());
        }
        let kept_for = limits.retention.kept_for();
        if !kept_for.is_zero() {
            let is_kept =
                |index: &usize| self.superseded(*index, limits).after(kept_for) > limits.now;
            first = (0..first).find(is_kept).unwrap_or(first);
        }
        first
    }

    /// The versions that nobody needs, forks included.
    pub(crate) fn superfluous(self, limits: &Limits, pins: Pins<'_>) -> Superfluous {
        let mut first = self.first_needed(limits);
        if first == 0 || pins.are_none() {
            return Superfluous { first, but: Vec::new() };
        }
        let next = |index: usize| (index < self.older.len()).then(|| self.at(index + 1).version());
        let is_seen = |index: &usize| pins.any_within(self.at(*index).version(), next(*index));
        if first == self.len() && (0..first).any(|index| is_seen(&index)) {
            // Without the newest, which has expired, what is older would come to light.
            first = self.older.len();
        }
        Superfluous { first, but: (0..first).filter(is_seen).collect() }
    }

    /// Whether the newest version is a value that has expired.
    fn is_expired(self, limits: &Limits) -> bool {
        let newest = self.newest;
        newest.expiry().is_some_and(|expiry| expiry <= limits.expired_by)
            && newest.version() <= limits.visible
    }

    /// When a version that is not the newest, or has expired, was superseded.
    fn superseded(self, index: usize, limits: &Limits) -> Timestamp {
        let expiry = self.at(index).expiry().unwrap_or(Timestamp::MAX);
        if index == self.older.len() {
            return expiry;
        }
        let next = self.at(index + 1).timestamp();
        // With something outside of the store, versions have to go in their order: what is
        // below a version that went for its expiry would be judged by the one above the gap.
        if limits.tombstones_stay { next } else { next.min(expiry) }
    }

    /// Where a reader has to be in order not to miss the oldest `count` versions.
    pub(crate) fn floor_without(self, count: usize) -> RetentionFloor {
        if count < self.len() {
            return RetentionFloor { version: self.at(count).version(), clock: Timestamp::ZERO };
        }
        let version = if self.older.is_empty() { Version::ZERO } else { self.newest.version() };
        RetentionFloor { version, clock: self.newest.expiry().unwrap_or(Timestamp::ZERO) }
    }

    /// Whether this is a deletion that nobody needs to see any more.
    pub(crate) fn is_spent_tombstone(self, limits: &Limits) -> bool {
        !limits.may_hide
            && self.is_lone_tombstone(limits)
            && self.newest.version() <= limits.horizon
    }

    fn is_lone_tombstone(self, limits: &Limits) -> bool {
        self.older.is_empty() && self.newest.is_tombstone() && limits.kept_at_least().is_some()
    }

    /// The version that the horizon has to reach before something here can be dropped which
    /// cannot be now; `None` if there is no such thing.
    pub(crate) fn waits_for(self, limits: &Limits, pins: Pins<'_>) -> Option<&'a Record> {
        let kept = limits.kept_at_least()?;
        let next = if self.len() > kept && self.len() > 1 {
            // What stays for forks waits for nothing; what comes after it may.
            let behind = if pins.are_none() { 1 } else { self.count_upto(limits.horizon) };
            self.at(behind.max(1))
        } else if self.is_lone_tombstone(limits) {
            self.newest
        } else {
            return None;
        };
        (next.version() > limits.horizon).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;
    use steadfast_core::{RecordBuilder, Timestamp};

    fn versions(versions: &[u64]) -> Vec<Record> {
        let record = |version| {
            RecordBuilder { version: Version(version), timestamp: Timestamp::ZERO, expiry: None }
                .put(b"kv", 1)
        };
        versions.iter().copied().map(record).collect()
    }

    #[test]
    fn keeps_what_readers_and_retention_need_and_nothing_else() {
        let keep = |n| Retention::KeepLast(NonZeroU32::new(n).unwrap());
        // (retention, horizon, visible, first version needed)
        let table = [
            (keep(1), 9, 9, 9),
            (keep(1), 8, 9, 7),
            (keep(1), 3, 9, 3),
            (keep(1), 2, 9, 1),
            (keep(1), 0, 9, 1),
            (keep(1), 7, 7, 7),
            (keep(2), 9, 9, 7),
            (keep(2), 3, 9, 3),
            (keep(2), 7, 8, 5),
            (keep(3), 9, 9, 5),
            (keep(5), 9, 9, 1),
            (keep(99), 9, 9, 1),
            (Retention::KeepAll, 9, 9, 1),
        ];
        let all = versions(&[1, 3, 5, 7, 9]);
        let chain = Chain { older: &all[..4], newest: &all[4] };
        for (retention, horizon, visible, expected) in table {
            let limits = Limits {
                retention,
                horizon: Version(horizon),
                visible: Version(visible),
                now: Timestamp::ZERO,
                expired_by: Timestamp::ZERO,
                tombstones_stay: false,
                may_hide: false,
            };
            let first = chain.at(chain.first_needed(&limits)).version();
            assert_eq!(first, Version(expected), "{limits:?}");
        }
    }
}
