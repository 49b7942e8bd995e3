//! Dropping what time has made superfluous: what was superseded long enough ago, and what has
//! expired.
//!
//! Commits drop what the next version supersedes. Time passes without a commit, so somebody has
//! to walk over all keys now and then; the caller says when, and how far at once.

use steadfast_core::{Record, Timestamp};

use crate::directory::Seek;
use crate::lock;
use crate::store::Inner;

/// What a step of [`UnifiedStore::trim`](crate::UnifiedStore::trim) did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Trimmed {
    /// Versions that were dropped.
    pub versions: usize,
    /// Bytes of their keys and encoded values.
    pub bytes: usize,
    /// Where the next step begins; `None` after the last key.
    pub next: Option<Vec<u8>>,
}

impl Inner {
    pub(crate) fn trim(&self, now: Timestamp, from: &[u8], keys: usize) -> Trimmed {
        self.registry.tell_time(now);
        self.registry.let_expire();
        self.forget_dropped();
        let mut trimmed = Trimmed { next: Some(from.to_vec()), ..Trimmed::default() };
        let mut looked_at = 0;
        while let Some(from) = trimmed.next.take_if(|_| looked_at < keys.max(1)) {
            let (superfluous, looked, next) = self.superfluous(&from);
            for record in superfluous {
                let dropped = self.prune(record.key());
                trimmed.versions += dropped.len();
                trimmed.bytes += dropped.iter().map(Record::payload_bytes).sum::<usize>();
            }
            looked_at += looked;
            trimmed.next = next;
        }
        trimmed
    }

    /// The keys of one leaf, from one on, that have something to drop; how many it has, and
    /// where the next leaf begins.
    fn superfluous(&self, from: &[u8]) -> (Vec<Record>, usize, Option<Vec<u8>>) {
        self.directory.read(Seek::At(from), |found| {
            let rules = lock::read(&self.rules);
            let first = found.leaf.find(from).unwrap_or_else(|row| row);
            let is_superfluous = |row: &usize| {
                let chain = found.leaf.chain(*row);
                let ruled = rules.of_key(chain.newest.key());
                let limits = self.limits(ruled);
                !chain.superfluous(&limits, ruled.pins).is_empty()
                    || chain.is_spent_tombstone(&limits)
            };
            let rows = (first..found.leaf.len()).filter(is_superfluous);
            let records = rows.map(|row| found.leaf.newest()[row].clone()).collect();
            // An empty leaf is looked at too: it counts, so that steps stay bounded.
            let looked = (found.leaf.len() - first).max(1);
            (records, looked, found.high.map(<[u8]>::to_vec))
        })
    }
}
