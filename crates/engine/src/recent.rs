//! The writes of recent commits, against which running transactions are validated.
//!
//! A transaction that read at version V may commit if no commit above V, published or still
//! pending, wrote what it read. Commits that no running transaction can be older than are
//! dropped, so with no transaction running next to nothing is kept; the number and size of
//! what is kept have limits, and a transaction older than what is left must start again.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use steadfast_core::limits::RECENT_WRITES_MAX;
use steadfast_core::{Version, WriteSet};

use crate::error::{Error, Result};

/// More bytes of recent commits than this are not kept.
const RECENT_BYTES_MAX: usize = 64 << 20;

/// What a transaction has read.
#[derive(Debug, Default)]
pub(crate) struct ReadSet {
    keys: HashSet<Box<[u8]>>,
    /// From the first key on, up to and without the second; `None` is without end.
    ranges: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl ReadSet {
    pub(crate) fn key(&mut self, key: &[u8]) {
        if !self.keys.contains(key) {
            self.keys.insert(key.into());
        }
    }

    pub(crate) fn range(&mut self, start: Vec<u8>, end: Option<Vec<u8>>) {
        self.ranges.push((start, end));
    }

    /// Sorts and merges the ranges, so that each key is looked for by bisection. To be called
    /// before [`Recent::validate`], outside its lock.
    pub(crate) fn seal(&mut self) {
        self.ranges.sort_unstable();
        self.ranges.dedup_by(|next, last| {
            let touches = last.1.as_ref().is_none_or(|end| next.0 <= *end);
            if touches {
                let later = match (&last.1, &next.1) {
                    (Some(a), Some(b)) => a < b,
                    (Some(_), None) => true,
                    (None, _) => false,
                };
                if later {
                    last.1 = next.1.take();
                }
            }
            touches
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty()
    }

    fn contains(&self, key: &[u8]) -> bool {
        if self.keys.contains(key) {
            return true;
        }
        let after = self.ranges.partition_point(|(start, _)| start.as_slice() <= key);
        let last = after.checked_sub(1).map(|at| &self.ranges[at].1);
        last.is_some_and(|end| end.as_ref().is_none_or(|end| key < end.as_slice()))
    }
}

/// Recent commits in version order, and the views of running transactions.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    commits: VecDeque<(Version, Arc<WriteSet>)>,
    writes: usize,
    bytes: usize,
    /// No commit above this was dropped while a transaction could still need it.
    complete_above: Version,
    running: BTreeMap<Version, usize>,
}

impl Recent {
    /// A transaction begins at `view`.
    pub(crate) fn begin(&mut self, view: Version) {
        *self.running.entry(view).or_default() += 1;
    }

    /// A transaction that began at `view` ended.
    pub(crate) fn end(&mut self, view: Version) {
        if let Some(count) = self.running.get_mut(&view) {
            *count -= 1;
            if *count == 0 {
                self.running.remove(&view);
            }
        }
    }

    /// How many transactions are running.
    pub(crate) fn running(&self) -> usize {
        self.running.values().sum()
    }

    /// Refuses a transaction that read `reads` at `view` if a later commit wrote any of it.
    pub(crate) fn validate(&self, view: Version, reads: &ReadSet) -> Result<()> {
        if reads.is_empty() {
            return Ok(());
        }
        if view < self.complete_above {
            let reason = "the transaction is older than the commits it would be checked against";
            return Err(Error::Conflict { reason, with: Version::ZERO });
        }
        for (version, writes) in self.commits.iter().rev() {
            if *version <= view {
                break;
            }
            if writes.iter().any(|write| reads.contains(write.key())) {
                let reason = "another transaction wrote what this one had read";
                return Err(Error::Conflict { reason, with: *version });
            }
        }
        Ok(())
    }

    /// Notes a commit, which is still pending.
    pub(crate) fn push(&mut self, version: Version, writes: Arc<WriteSet>) {
        self.writes += writes.len();
        self.bytes += writes.as_bytes().len();
        self.commits.push_back((version, writes));
    }

    /// Forgets a commit that failed.
    pub(crate) fn remove(&mut self, version: Version) {
        if let Ok(at) = self.commits.binary_search_by_key(&version, |commit| commit.0)
            && let Some((_, writes)) = self.commits.remove(at)
        {
            self.forget(&writes);
        }
    }

    /// Drops what nobody needs any more now that commits up to `visible` are published, and,
    /// above the limits, what somebody may.
    pub(crate) fn trim(&mut self, visible: Version) {
        let oldest = self.running.keys().next().copied().unwrap_or(visible).min(visible);
        while let Some((version, _)) = self.commits.front() {
            let needed = *version > oldest;
            let above_limits = self.writes > RECENT_WRITES_MAX || self.bytes > RECENT_BYTES_MAX;
            // What is pending is kept in any case: its number is bounded by its writers.
            if needed && (!above_limits || *version > visible) {
                break;
            }
            if needed {
                self.complete_above = *version;
            }
            if let Some((_, writes)) = self.commits.pop_front() {
                self.forget(&writes);
            }
        }
    }

    fn forget(&mut self, writes: &WriteSet) {
        self.writes -= writes.len();
        self.bytes -= writes.as_bytes().len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_core::{Key, NamespaceId, TypeTag, Value};

    fn key(name: &str) -> Key {
        Key::new(NamespaceId(1), TypeTag::Kv, name.as_bytes()).unwrap()
    }

    fn writes(name: &str) -> Arc<WriteSet> {
        let mut set = WriteSet::new();
        set.put(&key(name), &Value::Null, None).unwrap();
        Arc::new(set)
    }

    fn reads(names: &[&str]) -> ReadSet {
        let mut reads = ReadSet::default();
        names.iter().for_each(|name| reads.key(key(name).as_bytes()));
        reads
    }

    #[test]
    fn only_later_commits_of_what_was_read_conflict() {
        let mut recent = Recent::default();
        recent.push(Version(5), writes("a"));
        recent.push(Version(6), writes("b"));
        assert!(recent.validate(Version(4), &reads(&["c"])).is_ok());
        assert!(recent.validate(Version(5), &reads(&["a"])).is_ok());
        assert!(matches!(
            recent.validate(Version(4), &reads(&["a"])),
            Err(Error::Conflict { with: Version(5), .. })
        ));
        let mut range = ReadSet::default();
        range.range(key("aa").as_bytes().to_vec(), Some(key("c").as_bytes().to_vec()));
        assert!(recent.validate(Version(5), &range).is_err(), "a phantom");
        assert!(recent.validate(Version(6), &range).is_ok());
    }

    #[test]
    fn sealing_merges_ranges_and_changes_no_answer() {
        let ranges =
            [("b", Some("d")), ("a", Some("b")), ("f", None), ("c", Some("e")), ("x", Some("y"))];
        let bytes = |name: &str| name.as_bytes().to_vec();
        let mut reads = ReadSet::default();
        for (start, end) in ranges {
            reads.range(bytes(start), end.map(bytes));
        }
        reads.seal();
        assert_eq!(reads.ranges, [(bytes("a"), Some(bytes("e"))), (bytes("f"), None)]);
        for key in ["", "a", "aa", "d", "e", "ee", "f", "z"] {
            let inside =
                ranges.iter().any(|(start, end)| key >= *start && end.is_none_or(|e| key < e));
            assert_eq!(reads.contains(key.as_bytes()), inside, "{key}");
        }
    }

    #[test]
    fn keeps_only_what_a_running_transaction_may_need() {
        let mut recent = Recent::default();
        recent.begin(Version(5));
        for version in 5..10 {
            recent.push(Version(version), writes("a"));
        }
        recent.trim(Version(8));
        assert_eq!(recent.commits.front().map(|c| c.0), Some(Version(6)));
        recent.end(Version(5));
        recent.trim(Version(8));
        assert_eq!(recent.commits.front().map(|c| c.0), Some(Version(9)), "pending ones stay");
    }

    #[test]
    fn a_transaction_older_than_what_is_kept_must_start_again() {
        let mut recent = Recent::default();
        recent.begin(Version(0));
        for version in 1..=(RECENT_WRITES_MAX as u64 + 10) {
            recent.push(Version(version), writes("a"));
        }
        recent.trim(Version(RECENT_WRITES_MAX as u64 + 10));
        assert!(recent.writes <= RECENT_WRITES_MAX);
        let error = recent.validate(Version(0), &reads(&["never written"])).unwrap_err();
        assert!(error.to_string().contains("older"), "{error}");
        assert!(recent.validate(Version(100), &reads(&["never written"])).is_ok());
    }
}
