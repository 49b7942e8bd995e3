//! [`check`] and [`check_recovered`]: one pass over a history in the order of its versions.
//!
//! The work is in proportion to the history: each transaction, read and write is looked at a
//! fixed number of times, in sorted maps and after two sorts. No order is searched for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use steadfast_engine::Version;

use super::history::{History, Outcome, Read, Seen, State, Txn, TxnId};
use super::violation::{Violation, Violations};

/// What ended the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process: everything acknowledged must be there. Also for closing, and for no crash.
    Kill,
    /// The power: what was promised must be there ([`Attempt`](super::Attempt) and
    /// [`Recorder::promised`](super::Recorder::promised)).
    PowerCut,
}

/// What a good history consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checked {
    /// Acknowledged commits.
    pub committed: usize,
    /// Transactions that only read.
    pub read_only: usize,
    /// Those that failed.
    pub failed: usize,
    /// Those of unknown outcome of which something was seen.
    pub unknown_in: usize,
    /// Those of which nothing was.
    pub unknown_out: usize,
    /// Keys and ranges that were read and compared.
    pub reads: usize,
}

impl std::fmt::Display for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} committed, {} read only, {} failed, {} unknown and there, {} unknown and not, {} reads",
            self.committed,
            self.read_only,
            self.failed,
            self.unknown_in,
            self.unknown_out,
            self.reads
        )
    }
}

/// Whether the versions of `history` are an order that explains everything in it.
///
/// # Errors
///
/// What they do not explain.
pub fn check(history: &History) -> Result<Checked, Violations> {
    Checker::new(history, None).run(Crash::Kill)
}

/// As [`check`], and whether `recovered` is what the history may leave after `crash`.
///
/// # Errors
///
/// What it does not explain.
pub fn check_recovered(
    history: &History,
    crash: Crash,
    recovered: &State,
) -> Result<Checked, Violations> {
    Checker::new(history, Some(recovered)).run(crash)
}

/// The newest write of a key so far.
#[derive(Debug, Clone, Copy)]
struct Cell<'a> {
    version: Version,
    /// `None` before this history.
    writer: Option<TxnId>,
    /// `None` for a delete.
    value: Option<&'a str>,
}

/// What the commits up to one version add up to.
#[derive(Debug, Clone, Default)]
struct Fold<'a> {
    last: HashMap<&'a str, Cell<'a>>,
    /// Keys that are there.
    live: BTreeMap<&'a str, Cell<'a>>,
}

impl<'a> Fold<'a> {
    fn of(initial: &'a State) -> Self {
        let mut fold = Self::default();
        for (key, seen) in &initial.contents {
            fold.put(key, Cell { version: seen.version, writer: None, value: Some(&seen.value) });
        }
        fold
    }

    fn put(&mut self, key: &'a str, cell: Cell<'a>) {
        self.last.insert(key, cell);
        match cell.value {
            Some(_) => self.live.insert(key, cell),
            None => self.live.remove(key),
        };
    }

    fn apply(&mut self, txn: &'a Txn, id: TxnId, version: Version) {
        for (key, value) in &txn.writes {
            self.put(key, Cell { version, writer: Some(id), value: value.as_deref() });
        }
    }

    fn range<'f>(
        &'f self,
        from: &'f str,
        to: Option<&'f str>,
    ) -> impl Iterator<Item = (&'a str, Cell<'a>)> + 'f {
        // A range that ends before it begins is empty, and a map refuses to be asked for it.
        let to = to.map(|to| to.max(from));
        let upper = to.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.live.range::<str, _>((Bound::Included(from), upper));
        rows.map(|(key, cell)| (*key, *cell))
    }
}

fn agrees(cell: Option<Cell<'_>>, seen: Option<&Seen>) -> bool {
    let there = cell.filter(|cell| cell.value.is_some());
    match (there, seen) {
        (None, None) => true,
        (Some(cell), Some(seen)) => {
            cell.version == seen.version && cell.value == Some(seen.value.as_str())
        }
        _ => false,
    }
}

/// The rows of two sorted sequences side by side, by key.
fn beside<'a>(
    expected: impl Iterator<Item = (&'a str, Cell<'a>)>,
    found: &'a [(String, Seen)],
) -> impl Iterator<Item = (&'a str, Option<Cell<'a>>, Option<&'a Seen>)> {
    let mut expected = expected.peekable();
    let mut found = found.iter().peekable();
    std::iter::from_fn(move || {
        let order = match (expected.peek(), found.peek()) {
            (None, None) => return None,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((a, _)), Some((b, _))) => (*a).cmp(b.as_str()),
        };
        let left = if order.is_le() { expected.next() } else { None };
        let right = if order.is_ge() { found.next() } else { None };
        let key = left.as_ref().map(|left| left.0);
        let key = key.or_else(|| right.map(|right| right.0.as_str()))?;
        Some((key, left.map(|left| left.1), right.map(|right| &right.1)))
    })
}

struct Checker<'a> {
    history: &'a History,
    recovered: Option<&'a State>,
    /// Who has which version, acknowledged or shown by what was seen.
    owners: HashMap<Version, TxnId>,
    /// The version of each transaction that has one.
    versions: Vec<Option<Version>>,
    /// What transactions that failed wrote.
    failed: HashMap<(&'a str, &'a str), TxnId>,
    /// What is deleted by transactions of unknown outcome whose version nothing tells.
    unplaced_deletes: HashMap<&'a str, Vec<TxnId>>,
    found: Vec<Violation>,
    more: usize,
    reads: usize,
}

impl<'a> Checker<'a> {
    fn new(history: &'a History, recovered: Option<&'a State>) -> Self {
        Self {
            history,
            recovered,
            owners: HashMap::with_capacity(history.txns.len()),
            versions: vec![None; history.txns.len()],
            failed: HashMap::new(),
            unplaced_deletes: HashMap::new(),
            found: Vec::new(),
            more: 0,
            reads: 0,
        }
    }

    fn run(mut self, crash: Crash) -> Result<Checked, Violations> {
        self.number();
        self.hold_against_time();
        self.fold();
        if let Some(recovered) = self.recovered {
            self.hold_against_recovered(recovered, crash);
        }
        if !self.found.is_empty() {
            return Err(Violations::new(self.history, self.found, self.more));
        }
        let mut checked = Checked { reads: self.reads, ..Checked::default() };
        for (txn, version) in self.history.txns.iter().zip(&self.versions) {
            let count = match (txn.outcome, version) {
                (Outcome::Committed(_), _) => &mut checked.committed,
                (Outcome::ReadOnly, _) => &mut checked.read_only,
                (Outcome::Failed, _) => &mut checked.failed,
                (Outcome::Unknown(_), Some(_)) => &mut checked.unknown_in,
                (Outcome::Unknown(_), None) => &mut checked.unknown_out,
            };
            *count += 1;
        }
        Ok(checked)
    }

    fn report(&mut self, violation: Violation) {
        if self.found.contains(&violation) {
            return;
        }
        if self.found.len() < Violations::MAX {
            self.found.push(violation);
        } else {
            self.more += 1;
        }
    }

    fn txns(&self) -> impl Iterator<Item = (TxnId, &'a Txn)> + use<'a> {
        self.history.txns.iter().enumerate().map(|(index, txn)| (TxnId(index), txn))
    }

    fn txn(&self, id: TxnId) -> &'a Txn {
        &self.history.txns[id.0]
    }

    /// Everything that was seen anywhere.
    fn seen(&self) -> impl Iterator<Item = (&'a str, &'a Seen)> + use<'a> {
        let reads = self.history.txns.iter().flat_map(|txn| &txn.reads);
        let of_reads = reads.flat_map(|read| {
            let one = match read {
                Read::Key { key, found: Some(seen) } => Some((key.as_str(), seen)),
                _ => None,
            };
            let many = match read {
                Read::Range { found, .. } => found.as_slice(),
                Read::Key { .. } => &[],
            };
            one.into_iter().chain(many.iter().map(|(key, seen)| (key.as_str(), seen)))
        });
        let recovered = self.recovered.into_iter().flat_map(|state| &state.contents);
        of_reads.chain(recovered.map(|(key, seen)| (key.as_str(), seen)))
    }

    /// Finds out which versions belong to whom.
    fn number(&mut self) {
        let base = self.history.initial.version;
        // Those of unknown outcome, by what tells them apart.
        let mut queued: HashMap<Version, TxnId> = HashMap::new();
        let mut unknown: HashMap<(&str, &str), Vec<TxnId>> = HashMap::new();
        for (id, txn) in self.txns() {
            let version = match txn.outcome {
                Outcome::Committed(version) => version,
                Outcome::Unknown(Some(version)) => version,
                Outcome::Unknown(None) => {
                    for (key, value) in &txn.writes {
                        if let Some(value) = value {
                            unknown.entry((key, value)).or_default().push(id);
                        }
                    }
                    continue;
                }
                Outcome::Failed => {
                    for (key, value) in &txn.writes {
                        if let Some(value) = value {
                            self.failed.insert((key, value), id);
                        }
                    }
                    continue;
                }
                Outcome::ReadOnly => continue,
            };
            let first = self.owners.get(&version).or_else(|| queued.get(&version)).copied();
            if first.is_some() || version <= base {
                self.report(Violation::VersionReuse { version, first, second: id });
            } else if matches!(txn.outcome, Outcome::Committed(_)) {
                self.owners.insert(version, id);
                self.versions[id.0] = Some(version);
            } else {
                queued.insert(version, id);
            }
        }
        // Whoever has the version that was recovered is there, whatever else shows it.
        if let Some((version, id)) =
            self.recovered.and_then(|state| queued.remove_entry(&state.version))
        {
            self.owners.insert(version, id);
            self.versions[id.0] = Some(version);
        }
        let none = queued.is_empty() && unknown.is_empty();
        for (key, seen) in self.seen().filter(|_| !none) {
            if seen.version <= base || self.owners.contains_key(&seen.version) {
                continue;
            }
            let wrote = |id: &TxnId| {
                self.txn(*id).writes.get(key).and_then(Option::as_deref) == Some(&*seen.value)
            };
            if let Some(id) = queued.get(&seen.version).copied().filter(wrote) {
                self.owners.insert(seen.version, id);
                self.versions[id.0] = Some(seen.version);
                continue;
            }
            match unknown.get(&(key, seen.value.as_str())).map(Vec::as_slice) {
                None => {}
                Some([id]) => match self.versions[id.0] {
                    None => {
                        self.owners.insert(seen.version, *id);
                        self.versions[id.0] = Some(seen.version);
                    }
                    Some(version) => self.report(Violation::AppliedTwice {
                        txn: *id,
                        versions: (version, seen.version),
                    }),
                },
                Some([first, second, ..]) => self.report(Violation::Indistinct {
                    first: *first,
                    second: *second,
                    key: key.to_owned(),
                }),
                Some([]) => unreachable!("nothing is put in without a transaction"),
            }
        }
        for (id, txn) in self.txns() {
            if matches!(txn.outcome, Outcome::Unknown(_)) && self.versions[id.0].is_none() {
                for (key, _) in txn.writes.iter().filter(|write| write.1.is_none()) {
                    self.unplaced_deletes.entry(key).or_default().push(id);
                }
            }
        }
    }

    /// What ended before another began has the lower version, and is seen by it.
    fn hold_against_time(&mut self) {
        #[derive(PartialEq, Eq, PartialOrd, Ord)]
        enum Kind {
            Invoked,
            Ended,
        }
        let mut events = Vec::with_capacity(2 * self.history.txns.len());
        for (id, txn) in self.txns() {
            events.push((txn.invoked, Kind::Invoked, id));
            if let Some(ended) = txn.ended {
                events.push((ended, Kind::Ended, id));
            }
        }
        events.sort();
        // The highest version acknowledged, and the highest version read at, of what has ended.
        let mut acknowledged: Option<(Version, TxnId)> = None;
        let mut read_at: Option<(Version, TxnId)> = None;
        for (_, kind, id) in events {
            let (snapshot, version) = (self.txn(id).snapshot, self.versions[id.0]);
            if kind == Kind::Ended {
                if matches!(self.txn(id).outcome, Outcome::Committed(_)) {
                    acknowledged = acknowledged.max(version.map(|version| (version, id)));
                }
                read_at = read_at.max(snapshot.map(|snapshot| (snapshot, id)));
                continue;
            }
            if let Some(later) = version {
                if let Some((earlier, before)) = acknowledged.filter(|ended| ended.0 >= later) {
                    let versions = (earlier, later);
                    self.report(Violation::RealTime { earlier: before, later: id, versions });
                }
                if let Some((_, reader)) = read_at.filter(|ended| ended.0 >= later) {
                    self.report(Violation::EarlyView { reader, writer: id, version: later });
                }
                if snapshot.is_some_and(|snapshot| snapshot >= later) {
                    self.report(Violation::EarlyView { reader: id, writer: id, version: later });
                }
            }
            if let Some(at) = snapshot {
                for (version, missed) in [acknowledged, read_at].into_iter().flatten() {
                    if version > at {
                        self.report(Violation::StaleView { reader: id, at, missed, version });
                    }
                }
            }
        }
    }

    /// Those that have a version, in the order of versions.
    fn order(&self) -> Vec<(Version, TxnId)> {
        let mut order: Vec<_> = self.owners.iter().map(|(version, id)| (*version, *id)).collect();
        order.sort_unstable();
        order
    }

    /// Holds each read against the commits up to its view, and against those up to its own.
    fn fold(&mut self) {
        let history = self.history;
        let mut readers: Vec<(Version, TxnId)> =
            self.txns().filter_map(|(id, txn)| Some((txn.snapshot?, id))).collect();
        readers.sort_unstable();
        let mut readers = readers.into_iter().peekable();
        let mut fold = Fold::of(&history.initial);
        let mut wrong = HashSet::new();
        for (version, id) in self.order() {
            while let Some((_, reader)) = readers.next_if(|(at, _)| *at < version) {
                if !self.hold_against_view(&fold, reader) {
                    wrong.insert(reader);
                }
            }
            // Where the view showed what was not so, what came after says nothing.
            if !wrong.contains(&id) {
                self.hold_against_commit(&fold, id);
            }
            fold.apply(self.txn(id), id, version);
        }
        for (_, reader) in readers {
            self.hold_against_view(&fold, reader);
        }
    }

    /// Returns whether all was as it had to be.
    fn hold_against_view(&mut self, fold: &Fold<'a>, id: TxnId) -> bool {
        let txn = self.txn(id);
        let mut violations = Vec::new();
        for read in &txn.reads {
            self.reads += 1;
            match read {
                Read::Key { key, found } => {
                    let cell = fold.last.get(key.as_str()).copied();
                    if !agrees(cell, found.as_ref()) {
                        violations.extend(self.blame_view(txn, id, key, cell, found.as_ref()));
                    }
                }
                Read::Range { from, to, own, found } => {
                    for (key, live, seen) in beside(fold.range(from, to.as_deref()), found) {
                        if !own.contains(key) && !agrees(live, seen) {
                            let cell = live.or_else(|| fold.last.get(key).copied());
                            violations.extend(self.blame_view(txn, id, key, cell, seen));
                        }
                    }
                }
            }
        }
        let good = violations.is_empty();
        violations.into_iter().for_each(|violation| self.report(violation));
        good
    }

    /// What is wrong where a view showed `seen` and had to show `cell`.
    fn blame_view(
        &self,
        txn: &Txn,
        id: TxnId,
        key: &str,
        cell: Option<Cell<'_>>,
        seen: Option<&Seen>,
    ) -> Option<Violation> {
        let (at, key, reader) = (txn.snapshot?, key.to_owned(), Some(id));
        if let Some(foreign) = seen.and_then(|seen| self.foreign(reader, &key, seen)) {
            return Some(foreign);
        }
        if let Some(saw) = seen.filter(|seen| seen.version > at) {
            return Some(Violation::FutureRead { reader, key, saw: saw.clone(), at });
        }
        // What was seen is older than what was there.
        let cell = cell?;
        if seen.is_none()
            && self.may_have_deleted(&key, cell.version, at).any(|deleter| {
                let began = self.txn(deleter).invoked;
                deleter != id && txn.ended.is_none_or(|ended| began < ended)
            })
        {
            return None;
        }
        let writer = cell.writer;
        if let Some(writer) = writer
            && self.saw_another_write(txn, writer, &key)
        {
            return Some(Violation::TornTransaction { reader, writer, key });
        }
        if let (None, Some(saw), Some(deleted_by)) = (cell.value, seen, writer) {
            return Some(Violation::Resurrected { reader, key, saw: saw.clone(), deleted_by });
        }
        let (saw, expected) = (seen.cloned(), cell.version);
        Some(Violation::StaleRead { reader: id, key, saw, expected })
    }

    /// Those of unknown outcome that can have deleted `key`, as `written` left it, by version `at`.
    fn may_have_deleted(
        &self,
        key: &str,
        written: Version,
        at: Version,
    ) -> impl Iterator<Item = TxnId> {
        let deleters = self.unplaced_deletes.get(key).map_or(&[][..], Vec::as_slice);
        deleters.iter().copied().filter(move |id| {
            let deleter = self.txn(*id);
            // Its version is above what it read at.
            let above = deleter.snapshot.is_none_or(|snapshot| snapshot < at);
            let told = match deleter.outcome {
                Outcome::Unknown(Some(version)) => written < version && version <= at,
                _ => true,
            };
            above && told
        })
    }

    /// Whether `seen` is nothing that a commit wrote.
    fn foreign(&self, reader: Option<TxnId>, key: &str, seen: &Seen) -> Option<Violation> {
        let initial = &self.history.initial;
        let wrote = |txn: &Txn| txn.writes.get(key).and_then(Option::as_deref) == Some(&seen.value);
        let known = if seen.version <= initial.version {
            initial.contents.get(key) == Some(seen)
        } else {
            self.owners.get(&seen.version).is_some_and(|id| wrote(self.txn(*id)))
        };
        if known {
            return None;
        }
        let failed = self.failed.get(&(key, seen.value.as_str())).copied();
        let key = key.to_owned();
        Some(match failed {
            Some(writer) => Violation::DirtyRead { reader, writer, key },
            None => Violation::NobodyWrote { reader, key, saw: seen.clone() },
        })
    }

    /// Whether `txn` saw a write of `writer`, other than that of `key`.
    fn saw_another_write(&self, txn: &Txn, writer: TxnId, key: &str) -> bool {
        let writes = &self.txn(writer).writes;
        let version = self.versions[writer.0];
        let is_of = |name: &str, seen: &Seen| {
            name != key && Some(seen.version) == version && writes.contains_key(name)
        };
        txn.reads.iter().any(|read| match read {
            Read::Key { key, found } => found.as_ref().is_some_and(|seen| is_of(key, seen)),
            Read::Range { found, .. } => found.iter().any(|(key, seen)| is_of(key, seen)),
        })
    }

    /// What `id` read must not have changed until now, when it commits.
    fn hold_against_commit(&mut self, fold: &Fold<'a>, id: TxnId) {
        let txn = self.txn(id);
        let Some(at) = txn.snapshot else { return };
        let mut violations = Vec::new();
        let newer = |key: &str| fold.last.get(key).filter(|cell| cell.version > at).copied();
        for read in &txn.reads {
            match read {
                Read::Key { key, found } => {
                    let changed = newer(key).filter(|cell| found.is_some() || cell.value.is_some());
                    if let Some(writer) = changed.and_then(|cell| cell.writer) {
                        violations.push(self.blame_commit(id, writer, key));
                    }
                }
                Read::Range { from, to, own, found } => {
                    for (key, live, seen) in beside(fold.range(from, to.as_deref()), found) {
                        let Some(cell) = newer(key).filter(|_| !own.contains(key)) else {
                            continue;
                        };
                        let Some(writer) = cell.writer else { continue };
                        violations.push(if live.is_some() && seen.is_some() {
                            self.blame_commit(id, writer, key)
                        } else {
                            Violation::Phantom { reader: id, writer, key: key.to_owned() }
                        });
                    }
                }
            }
        }
        violations.into_iter().for_each(|violation| self.report(violation));
    }

    fn blame_commit(&self, reader: TxnId, writer: TxnId, key: &str) -> Violation {
        let (mine, theirs) = (self.txn(reader), self.txn(writer));
        let key = key.to_owned();
        if mine.writes.contains_key(&key) {
            return Violation::LostUpdate { lost: writer, by: reader, key };
        }
        let read_mine = |read: &Read| match read {
            Read::Key { key, .. } => mine.writes.contains_key(key),
            Read::Range { from, to, .. } => mine
                .writes
                .range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded))
                .next()
                .is_some_and(|(key, _)| to.as_ref().is_none_or(|to| key < to)),
        };
        if theirs.reads.iter().any(read_mine) {
            return Violation::WriteSkew { first: writer, second: reader, key };
        }
        Violation::ReadChanged { reader, writer, key }
    }

    fn hold_against_recovered(&mut self, recovered: &'a State, crash: Crash) {
        let end = recovered.version;
        if !self.may_be_the_newest(recovered) {
            self.report(Violation::NobodysVersion { version: end });
        }
        let bound = match crash {
            Crash::Kill => Version::MAX,
            Crash::PowerCut => self.history.promised(),
        };
        for (id, txn) in self.txns() {
            if let Outcome::Committed(version) = txn.outcome
                && version <= bound
                && version > end
            {
                self.report(Violation::AcknowledgedLost { txn: id, version, key: None });
            }
        }
        let mut fold = Fold::of(&self.history.initial);
        for (version, id) in self.order() {
            if version <= end {
                fold.apply(self.txn(id), id, version);
            }
        }
        let found: Vec<_> =
            recovered.contents.iter().map(|(key, seen)| (key.clone(), seen.clone())).collect();
        let mut violations = Vec::new();
        for (key, live, seen) in beside(fold.range("", None), &found) {
            if !agrees(live, seen) {
                let cell = live.or_else(|| fold.last.get(key).copied());
                violations.extend(self.blame_recovery(recovered, key, cell, seen, bound));
            }
        }
        violations.into_iter().for_each(|violation| self.report(violation));
    }

    /// Whether the version of `recovered` is that of a commit. One of unknown outcome whose version
    /// nothing tells deletes and does nothing else: what the newest commit wrote is there, and
    /// tells it.
    fn may_be_the_newest(&self, recovered: &State) -> bool {
        let end = recovered.version;
        if end == self.history.initial.version || self.owners.contains_key(&end) {
            return true;
        }
        self.txns().any(|(id, txn)| {
            let gone = |(key, value): (&String, &Option<String>)| {
                value.is_none() && !recovered.contents.contains_key(key)
            };
            txn.outcome == Outcome::Unknown(None)
                && self.versions[id.0].is_none()
                && txn.snapshot.is_none_or(|snapshot| snapshot < end)
                && !txn.writes.is_empty()
                && txn.writes.iter().all(gone)
        })
    }

    fn blame_recovery(
        &self,
        recovered: &State,
        key: &str,
        cell: Option<Cell<'_>>,
        seen: Option<&Seen>,
        bound: Version,
    ) -> Option<Violation> {
        let (at, key) = (recovered.version, key.to_owned());
        if let Some(foreign) = seen.and_then(|seen| self.foreign(None, &key, seen)) {
            return Some(foreign);
        }
        if let Some(saw) = seen.filter(|seen| seen.version > at) {
            return Some(Violation::FutureRead { reader: None, key, saw: saw.clone(), at });
        }
        let cell = cell?;
        if seen.is_none() {
            let halves: Vec<_> = self
                .may_have_deleted(&key, cell.version, at)
                .map(|id| self.half_of_delete(recovered, id, cell.version))
                .collect();
            if !halves.is_empty() {
                return if halves.contains(&None) { None } else { halves[0].clone() };
            }
        }
        let Some(writer) = cell.writer else {
            // What was there before all this, and nobody touched.
            let saw =
                seen.cloned().unwrap_or(Seen { version: Version::ZERO, value: String::new() });
            return Some(Violation::NobodyWrote { reader: None, key, saw });
        };
        let txn = self.txn(writer);
        if matches!(txn.outcome, Outcome::Unknown(_)) {
            return Some(Violation::HalfInFlight { txn: writer, key });
        }
        let is_there = |name: &String| {
            *name != key
                && recovered.contents.get(name).is_some_and(|seen| seen.version == cell.version)
        };
        if txn.writes.keys().any(is_there) {
            return Some(Violation::TornTransaction { reader: None, writer, key });
        }
        if let (None, Some(saw)) = (cell.value, seen) {
            let (saw, deleted_by) = (saw.clone(), writer);
            return Some(Violation::Resurrected { reader: None, key, saw, deleted_by });
        }
        let version = cell.version;
        Some(if version <= bound {
            Violation::AcknowledgedLost { txn: writer, version, key: Some(key) }
        } else {
            Violation::Hole { txn: writer, version, key }
        })
    }

    /// A key that `deleter`, of unknown version, deletes is gone. Then all it wrote must be as it
    /// left it, or newer.
    fn half_of_delete(
        &self,
        recovered: &State,
        deleter: TxnId,
        deleted: Version,
    ) -> Option<Violation> {
        let txn = self.txn(deleter);
        let older = |key: &&String| {
            let seen = recovered.contents.get(*key).map(|seen| seen.version);
            match txn.writes[*key] {
                None => seen.is_some_and(|version| version <= deleted),
                Some(_) => seen.is_none_or(|version| version <= deleted),
            }
        };
        let key = txn.writes.keys().find(older)?.clone();
        Some(Violation::HalfInFlight { txn: deleter, key })
    }
}
