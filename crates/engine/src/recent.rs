//! The writes of recent commits, against which running transactions are validated.
//!
//! A transaction that read at version V may commit if no commit above V, published or still
//! pending, wrote what it read. Commits that no running transaction can be older than are
//! dropped, so with no transaction running next to nothing is kept; the number and size of
//! what is kept have limits, and a transaction older than what is left must start again.
//!
//! The newest few writes are walked. What has come together before them is indexed: by the
//! hash of a key, the newest commit that wrote it, so that a transaction pays for the keys it
//! read and not for what others wrote. Two keys may share a hash, so a hit is looked at
//! exactly. With short transactions nothing gets old enough to be indexed.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::Arc;

use steadfast_core::limits::RECENT_WRITES_MAX;
use steadfast_core::{Key, NamespaceId, Sabotage, Version, WriteSet, sabotaged};

use crate::error::{Error, Result};

/// More bytes of recent commits than this are not kept.
const RECENT_BYTES_MAX: usize = 64 << 20;

/// The newest commits are not indexed, up to this many writes: walking them costs less than
/// putting them into the index and taking them out again.
const WALKED_WRITES: usize = 128;

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
        if !sabotaged(Sabotage::Phantom) {
            self.ranges.push((start, end));
        }
    }

    /// Reading anything of a run is reading that it is there: adds what `grave` names of each
    /// run that was read.
    pub(crate) fn note_runs(&mut self, grave: impl Fn(NamespaceId) -> Key) {
        let keys = self.keys.iter().map(|key| &**key);
        let read = keys.chain(self.ranges.iter().map(|(start, _)| start.as_slice()));
        let mut runs: Vec<NamespaceId> = Vec::new();
        for id in read.filter_map(Key::namespace_of) {
            // Mostly the one that was met last.
            if id != NamespaceId::SYSTEM && runs.last() != Some(&id) {
                runs.push(id);
            }
        }
        runs.sort_unstable();
        runs.dedup();
        runs.into_iter().for_each(|id| self.key(grave(id).as_bytes()));
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
pub(crate) struct Recent<S = RandomState> {
    commits: VecDeque<(Version, Arc<WriteSet>)>,
    writes: usize,
    bytes: usize,
    /// How many of `commits`, the oldest, are in `newest`, and how many writes they have.
    indexed: (usize, usize),
    /// By the hash of a key: the newest indexed commit that wrote a key with that hash.
    newest: HashMap<u64, Version, BuildHasherDefault<Hashed>>,
    hash: S,
    /// No commit above this was dropped while a transaction could still need it.
    complete_above: Version,
    running: BTreeMap<Version, usize>,
}

/// Leaves a hash as it is.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl<S: BuildHasher> Recent<S> {
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
        if reads.is_empty() || sabotaged(Sabotage::LostUpdate) {
            return Ok(());
        }
        if view < self.complete_above {
            let reason = "the transaction is older than the commits it would be checked against";
            return Err(Error::Conflict { reason, with: Version::ZERO });
        }
        match self.newest_conflict(view, reads) {
            None => Ok(()),
            Some(with) => {
                let reason = "another transaction wrote what this one had read";
                Err(Error::Conflict { reason, with })
            }
        }
    }

    /// The newest commit above `view` that wrote any of `reads`.
    fn newest_conflict(&self, view: Version, reads: &ReadSet) -> Option<Version> {
        let wrote_any = |(_, writes): &&(Version, Arc<WriteSet>)| {
            writes.iter().any(|write| reads.contains(write.key()))
        };
        let walk = |from: usize, to: usize| {
            self.commits.range(from..to).rev().find(wrote_any).map(|(version, _)| *version)
        };
        let above = self.commits.partition_point(|(version, _)| *version <= view);
        let indexed = self.indexed.0.max(above);
        // What is not indexed is newer than all that is.
        walk(indexed, self.commits.len()).or_else(|| {
            if above == indexed {
                return None;
            }
            // Ranges have no hash, and with more reads than writes walking is less work.
            if !reads.ranges.is_empty() || reads.keys.len() > self.indexed.1 {
                return walk(above, indexed);
            }
            let newest = |key| self.newest.get(&self.hash.hash_one(key)).copied();
            let hit = reads.keys.iter().filter_map(|key| newest(&**key)).max();
            let hit = hit.filter(|version| *version > view)?;
            let at = self.commits.partition_point(|(version, _)| *version <= hit);
            // Else another key has the hash of one that was read.
            walk(at - 1, at).or_else(|| walk(above, at))
        })
    }

    /// Notes a commit, which is still pending.
    pub(crate) fn push(&mut self, version: Version, writes: Arc<WriteSet>) {
        self.writes += writes.len();
        self.bytes += writes.as_bytes().len();
        self.commits.push_back((version, writes));
        while self.writes - self.indexed.1 > WALKED_WRITES {
            let (version, writes) = &self.commits[self.indexed.0];
            for write in writes.iter() {
                self.newest.insert(self.hash.hash_one(write.key()), *version);
            }
            self.indexed.0 += 1;
            self.indexed.1 += writes.len();
        }
    }

    /// Forgets a commit that failed.
    pub(crate) fn remove(&mut self, version: Version) {
        if let Ok(at) = self.commits.binary_search_by_key(&version, |commit| commit.0)
            && let Some((_, writes)) = self.commits.remove(at)
        {
            self.forget(&writes);
            if at < self.indexed.0 {
                // Older commits may have been in its place: index what is left anew.
                self.newest.clear();
                self.indexed = (0, 0);
            }
        }
    }

    /// Takes out what nobody needs any more now that commits up to `visible` are published,
    /// and, above the limits, what somebody may. Hands it to `dropped`: the end of a long
    /// transaction may leave a lot, which is better freed outside the lock.
    pub(crate) fn trim(&mut self, visible: Version, mut dropped: impl FnMut(Arc<WriteSet>)) {
        let oldest = self.running.keys().next().copied().unwrap_or(visible).min(visible);
        let unneeded = self.commits.partition_point(|(version, _)| *version <= oldest);
        if unneeded >= self.indexed.0 {
            // All at once, not key by key.
            self.newest.clear();
            self.indexed = (0, 0);
        }
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
            if let Some((version, writes)) = self.commits.pop_front() {
                self.forget(&writes);
                self.forget_indexed(version, &writes);
                dropped(writes);
            }
        }
    }

    fn forget(&mut self, writes: &WriteSet) {
        self.writes -= writes.len();
        self.bytes -= writes.as_bytes().len();
    }

    /// Takes the oldest commit, `version`, out of the index, if it is there.
    fn forget_indexed(&mut self, version: Version, writes: &WriteSet) {
        if self.indexed.0 == 0 {
            return;
        }
        self.indexed.0 -= 1;
        self.indexed.1 -= writes.len();
        for write in writes.iter() {
            let hash = self.hash.hash_one(write.key());
            // A later commit that wrote the key stays.
            if self.newest.get(&hash) == Some(&version) {
                self.newest.remove(&hash);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
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
        let mut recent = <Recent>::default();
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
        let mut recent = <Recent>::default();
        recent.begin(Version(5));
        for version in 5..10 {
            recent.push(Version(version), writes("a"));
        }
        recent.trim(Version(8), drop);
        assert_eq!(recent.commits.front().map(|c| c.0), Some(Version(6)));
        recent.end(Version(5));
        recent.trim(Version(8), drop);
        assert_eq!(recent.commits.front().map(|c| c.0), Some(Version(9)), "pending ones stay");
    }

    #[test]
    fn a_transaction_older_than_what_is_kept_must_start_again() {
        let mut recent = <Recent>::default();
        recent.begin(Version(0));
        for version in 1..=(RECENT_WRITES_MAX as u64 + 10) {
            recent.push(Version(version), writes("a"));
        }
        recent.trim(Version(RECENT_WRITES_MAX as u64 + 10), drop);
        assert!(recent.writes <= RECENT_WRITES_MAX);
        let error = recent.validate(Version(0), &reads(&["never written"])).unwrap_err();
        assert!(error.to_string().contains("older"), "{error}");
        assert!(recent.validate(Version(100), &reads(&["never written"])).is_ok());
    }

    /// A hash of few bits, so that keys share it.
    #[derive(Debug, Default)]
    struct FewBits(u64);

    impl Hasher for FewBits {
        fn finish(&self) -> u64 {
            self.0 % 16
        }

        fn write(&mut self, bytes: &[u8]) {
            bytes.iter().for_each(|byte| self.0 = self.0 * 31 % 9973 + u64::from(*byte));
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Begin,
        End(usize),
        /// A commit of so many keys, from one on.
        Push(u8, u8),
        /// The newest so many fail.
        Fail(usize),
        /// Publishes all but the newest so many.
        Publish(usize),
        /// A transaction that began read these keys, and a range from one up to another.
        Validate(usize, Vec<u8>, Option<(u8, u8)>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let at = || 0..8usize;
        prop_oneof![
            2 => Just(Step::Begin),
            1 => at().prop_map(Step::End),
            6 => (any::<u8>(), 1..40u8).prop_map(|(from, count)| Step::Push(from, count)),
            1 => (1..6usize).prop_map(Step::Fail),
            2 => at().prop_map(Step::Publish),
            6 => (at(), prop::collection::vec(any::<u8>(), 0..5), prop::option::weighted(0.2, any::<(u8, u8)>()))
                .prop_map(|(at, keys, range)| Step::Validate(at, keys, range)),
        ]
    }

    fn numbered(number: u8) -> Key {
        key(&format!("{number:03}"))
    }

    /// Runs `steps` and compares each answer with the rule itself, applied to every commit
    /// that there ever was and that did not fail.
    fn compare(mut recent: Recent<impl BuildHasher>, steps: &[Step]) {
        let mut commits: Vec<(Version, Vec<u8>)> = Vec::new();
        let mut running: Vec<Version> = Vec::new();
        let (mut version, mut visible) = (Version(0), Version(0));
        for step in steps {
            match step {
                Step::Begin => {
                    recent.begin(visible);
                    running.push(visible);
                }
                Step::End(at) if !running.is_empty() => {
                    recent.end(running.remove(at % running.len()));
                    recent.trim(visible, drop);
                }
                Step::Push(from, count) => {
                    version = version.next();
                    let keys: Vec<u8> = (0..*count).map(|n| from.wrapping_add(n)).collect();
                    let mut writes = WriteSet::new();
                    for number in &keys {
                        writes.put(&numbered(*number), &Value::Null, None).unwrap();
                    }
                    recent.push(version, Arc::new(writes));
                    commits.push((version, keys));
                }
                Step::Fail(count) => {
                    for _ in 0..*count {
                        if let Some((failed, _)) = commits.pop_if(|commit| commit.0 > visible) {
                            recent.remove(failed);
                        }
                    }
                }
                Step::Publish(but) => {
                    let at = commits.len().saturating_sub(*but);
                    visible = at.checked_sub(1).map_or(visible, |at| commits[at].0.max(visible));
                    recent.trim(visible, drop);
                }
                Step::Validate(at, keys, range) if !running.is_empty() => {
                    let view = running[at % running.len()];
                    let mut reads = ReadSet::default();
                    keys.iter().for_each(|number| reads.key(numbered(*number).as_bytes()));
                    if let Some((start, end)) = range {
                        let bytes = |number| numbered(number).as_bytes().to_vec();
                        reads.range(bytes(*start), Some(bytes(*end)));
                    }
                    reads.seal();
                    let read = |number: &u8| {
                        keys.contains(number)
                            || range.is_some_and(|(start, end)| (start..end).contains(number))
                    };
                    let conflict = commits
                        .iter()
                        .rfind(|(version, keys)| *version > view && keys.iter().any(read));
                    let found = match recent.validate(view, &reads) {
                        Ok(()) => None,
                        Err(Error::Conflict { with, .. }) => Some(with),
                        Err(error) => panic!("{error}"),
                    };
                    assert_eq!(found, conflict.map(|commit| commit.0));
                }
                Step::End(_) | Step::Validate(..) => {}
            }
            let kept: usize = recent.commits.iter().map(|(_, writes)| writes.len()).sum();
            assert_eq!(kept, recent.writes);
            assert!(
                recent.newest.len() <= recent.indexed.1,
                "the index is bounded by what is kept"
            );
            assert!(recent.indexed.0 > 0 || recent.newest.is_empty());
        }
    }

    proptest! {
        #[test]
        fn finds_what_the_rule_finds(steps in prop::collection::vec(step(), 0..120)) {
            compare(<Recent>::default(), &steps);
        }

        #[test]
        fn keys_that_share_a_hash_change_no_answer(
            steps in prop::collection::vec(step(), 0..120),
        ) {
            compare(Recent::<BuildHasherDefault<FewBits>>::default(), &steps);
        }
    }
}
