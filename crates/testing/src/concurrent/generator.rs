//! Histories made up from a seed: good ones, of a serializable database that crashes at the end,
//! and the same with one thing made wrong. What the checker is tested with, and any other checker
//! may be.

use std::collections::{BTreeMap, BTreeSet};

use steadfast_engine::Version;

use super::history::{History, Outcome, Read, Seen, State, Txn};

/// A history, and what was there after the process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// What happened.
    pub history: History,
    /// What was left.
    pub recovered: State,
}

/// One thing that is made wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Damage {
    /// A key is read as an earlier commit left it.
    StaleRead,
    /// A key is missing in a range that was read.
    MissingInRange,
    /// A read sees what a failed transaction wrote.
    DirtyRead,
    /// Two transactions, one of which had ended before the other began, change versions.
    SwappedVersions,
    /// Two transactions have one version.
    ReusedVersion,
    /// A transaction that lost to another is committed nevertheless.
    IgnoredConflict,
    /// The newest acknowledged commit is not there after the crash.
    LostTail,
    /// One write of a commit is not there after the crash.
    LostWrite,
    /// A deleted key is there after the crash.
    Resurrected,
}

impl Damage {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::StaleRead,
        Self::MissingInRange,
        Self::DirtyRead,
        Self::SwappedVersions,
        Self::ReusedVersion,
        Self::IgnoredConflict,
        Self::LostTail,
        Self::LostWrite,
        Self::Resurrected,
    ];
}

/// Every write of every key, by version.
type Writes = BTreeMap<String, Vec<(Version, Option<String>)>>;

struct Database {
    writes: Writes,
    version: Version,
}

impl Database {
    fn at(&self, key: &str, version: Version) -> Option<Seen> {
        let writes = self.writes.get(key)?;
        let upto = writes.partition_point(|write| write.0 <= version);
        let (version, value) = writes.get(upto.checked_sub(1)?)?;
        Some(Seen { version: *version, value: value.clone()? })
    }

    fn range(&self, from: &str, to: &str, version: Version) -> Vec<(String, Seen)> {
        let keys = self.writes.range(from.to_owned()..to.to_owned());
        keys.filter_map(|(key, _)| Some((key.clone(), self.at(key, version)?))).collect()
    }

    fn is_changed(&self, read: &Read, since: Version) -> bool {
        let newer = |writes: &Vec<(Version, Option<String>)>| {
            writes.last().is_some_and(|write| write.0 > since)
        };
        match read {
            Read::Key { key, .. } => self.writes.get(key).is_some_and(newer),
            Read::Range { from, to, .. } => {
                let to = to.clone().unwrap_or_default();
                self.writes.range(from.clone()..to).any(|(_, writes)| newer(writes))
            }
        }
    }

    fn commit(&mut self, writes: &BTreeMap<String, Option<String>>) -> Version {
        // There may be gaps.
        self.version = Version(self.version.0 + 2);
        for (key, value) in writes {
            let all = self.writes.entry(key.clone()).or_default();
            all.push((self.version, value.clone()));
        }
        self.version
    }

    fn state(&self) -> State {
        let rows = self.writes.keys();
        let rows = rows.filter_map(|key| Some((key.clone(), self.at(key, self.version)?)));
        State { version: self.version, contents: rows.collect() }
    }
}

/// What a thread is doing.
enum Doing {
    Nothing,
    /// The transaction at this place, which has so many steps left.
    Running(usize, usize),
    /// It is committed, and not told yet.
    Committed(usize, Version),
}

/// A good history of `txns` transactions by four threads on `keys` keys.
pub fn generate(seed: u64, txns: usize, keys: usize) -> Generated {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut db = Database { writes: Writes::new(), version: Version(10) };
    for n in 0..keys / 2 {
        let first = (Version(10), Some(format!("first {n}")));
        db.writes.insert(format!("k{n:03}"), vec![first]);
    }
    let mut history = History { initial: db.state(), ..History::default() };
    let mut threads = [const { Doing::Nothing }; 4];
    for event in 1.. {
        let at = rng.usize(..threads.len());
        let thread = &mut threads[at];
        match *thread {
            Doing::Nothing if history.txns.len() == txns => break,
            Doing::Nothing => {
                *thread = Doing::Running(history.txns.len(), rng.usize(1..5));
                history.txns.push(Txn {
                    who: format!("thread {at}"),
                    invoked: event,
                    ended: None,
                    snapshot: Some(db.version),
                    reads: Vec::new(),
                    writes: BTreeMap::new(),
                    outcome: Outcome::Failed,
                });
            }
            Doing::Running(txn, steps) if steps > 0 => {
                let key = format!("k{:03}", rng.usize(..keys));
                let value = format!("{txn}.{steps}");
                step(&db, &mut history.txns[txn], &mut rng, key, value);
                *thread = Doing::Running(txn, steps - 1);
            }
            Doing::Running(index, _) => {
                *thread = Doing::Nothing;
                let txn = &mut history.txns[index];
                let view = txn.snapshot.unwrap_or_default();
                if txn.writes.is_empty() {
                    (txn.outcome, txn.ended) = (Outcome::ReadOnly, Some(event));
                } else if txn.reads.iter().any(|read| db.is_changed(read, view)) {
                    txn.ended = Some(event);
                } else {
                    *thread = Doing::Committed(index, db.commit(&txn.writes));
                    txn.outcome = Outcome::Unknown(None);
                }
            }
            Doing::Committed(index, version) => {
                let txn = &mut history.txns[index];
                (txn.outcome, txn.ended) = (Outcome::Committed(version), Some(event));
                *thread = Doing::Nothing;
            }
        }
    }
    Generated { recovered: db.state(), history }
}

fn step(db: &Database, txn: &mut Txn, rng: &mut fastrand::Rng, key: String, value: String) {
    let view = txn.snapshot.unwrap_or_default();
    match rng.u8(..8) {
        0..=2 if !txn.writes.contains_key(&key) => {
            let found = db.at(&key, view);
            txn.reads.push(Read::Key { key, found });
        }
        0..=2 => {}
        3 => {
            // About ten keys, so that a history grows with its transactions alone.
            let to = format!("{}~", &key[..key.len() - 1]);
            let from = key[..key.len() - 1].to_owned();
            let own: BTreeSet<String> = txn.writes.keys().cloned().collect();
            let mut found = db.range(&from, &to, view);
            found.retain(|(key, _)| !own.contains(key));
            txn.reads.push(Read::Range { from, to: Some(to), own, found });
        }
        4 => drop(txn.writes.insert(key, None)),
        _ => drop(txn.writes.insert(key, Some(value))),
    }
}

/// `good` with one thing made wrong; `None` if it has nothing that could be wrong in this way.
pub fn damage(good: &Generated, kind: Damage, seed: u64) -> Option<Generated> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut bad = good.clone();
    let Generated { history, recovered } = &mut bad;
    let mut all: Vec<usize> = (0..history.txns.len()).collect();
    rng.shuffle(&mut all);
    let committed = |txn: &Txn| match txn.outcome {
        Outcome::Committed(version) => Some(version),
        _ => None,
    };
    let unknown = history.txns.iter().any(|txn| matches!(txn.outcome, Outcome::Unknown(_)));
    match kind {
        Damage::StaleRead => {
            let initial = &good.history.initial.contents;
            let (txn, read) = all.iter().find_map(|txn| {
                let stale = |read: &Read| match read {
                    Read::Key { key, found: Some(seen) } => {
                        initial.get(key).is_some_and(|first| first != seen)
                    }
                    _ => false,
                };
                Some((*txn, history.txns[*txn].reads.iter().position(stale)?))
            })?;
            let Read::Key { key, found } = &mut history.txns[txn].reads[read] else { return None };
            *found = initial.get(key).cloned();
        }
        Damage::MissingInRange => {
            let rows = all.iter().find_map(|txn| {
                let mut rows =
                    history.txns[*txn].reads.iter().enumerate().filter_map(|read| match read {
                        (at, Read::Range { found, .. }) if !found.is_empty() => Some(at),
                        _ => None,
                    });
                Some((*txn, rows.next()?))
            });
            let (txn, at) = rows?;
            let Read::Range { found, .. } = &mut history.txns[txn].reads[at] else { return None };
            found.remove(rng.usize(..found.len()));
        }
        Damage::DirtyRead => {
            let (key, value) = all.iter().find_map(|txn| {
                let txn = &history.txns[*txn];
                let value =
                    |write: (&String, &Option<String>)| Some((write.0.clone(), write.1.clone()?));
                let failed = txn.outcome == Outcome::Failed && txn.ended.is_some();
                if failed { txn.writes.iter().find_map(value) } else { None }
            })?;
            let reader = all.iter().find(|txn| committed(&history.txns[**txn]).is_some())?;
            let reader = &mut history.txns[*reader];
            let version = reader.snapshot?;
            reader.reads.insert(0, Read::Key { key, found: Some(Seen { version, value }) });
        }
        Damage::SwappedVersions => {
            let first = all.iter().find(|txn| committed(&history.txns[**txn]).is_some())?;
            let ended = history.txns[*first].ended?;
            let second = all.iter().find(|txn| {
                let txn = &history.txns[**txn];
                committed(txn).is_some() && txn.invoked > ended
            })?;
            let outcome = history.txns[*first].outcome;
            history.txns[*first].outcome = history.txns[*second].outcome;
            history.txns[*second].outcome = outcome;
        }
        Damage::ReusedVersion => {
            let mut some = all.iter().filter(|txn| committed(&history.txns[**txn]).is_some());
            let (first, second) = (some.next()?, some.next()?);
            history.txns[*first].outcome = history.txns[*second].outcome;
        }
        Damage::IgnoredConflict => {
            // Right after the commit that it lost to.
            let lost_to = |txn: &Txn| {
                let since = txn.snapshot?;
                let keys = txn.reads.iter().filter_map(|read| match read {
                    Read::Key { key, .. } => Some(key),
                    Read::Range { .. } => None,
                });
                let keys: Vec<&String> = keys.collect();
                let winners = history.txns.iter().filter(|winner| {
                    keys.iter().any(|key| winner.writes.get(*key).is_some_and(Option::is_some))
                });
                winners.filter_map(committed).filter(|version| *version > since).min()
            };
            let (loser, winner) = all.iter().find_map(|txn| {
                let candidate = &history.txns[*txn];
                let failed = candidate.outcome == Outcome::Failed && candidate.ended.is_some();
                // Committed while the loser ran, so that real time allows the order.
                let winner = lost_to(candidate).filter(|_| failed)?;
                let by = history.txns.iter().find(|txn| committed(txn) == Some(winner))?;
                (by.ended < candidate.ended).then_some((*txn, winner))
            })?;
            history.txns[loser].outcome = Outcome::Committed(Version(winner.0 + 1));
        }
        Damage::LostTail => {
            let newest = history.txns.iter().filter_map(committed).max()?;
            recovered.version = Version(newest.0 - 1);
            recovered.contents.retain(|_, seen| seen.version < newest);
        }
        // Deleted by one of unknown outcome, a key may be gone and may not.
        Damage::LostWrite | Damage::Resurrected if unknown => return None,
        Damage::LostWrite => {
            let keys: Vec<String> = recovered.contents.keys().cloned().collect();
            recovered.contents.remove(rng.choice(&keys)?)?;
        }
        Damage::Resurrected => {
            let (key, seen) = all.iter().find_map(|txn| {
                let version = committed(&history.txns[*txn])?;
                let gone = |key: &&String| !recovered.contents.contains_key(*key);
                let writes = &history.txns[*txn].writes;
                let key = writes.keys().filter(gone).find(|key| writes[*key].is_some())?;
                Some((key.clone(), Seen { version, value: writes[key].clone()? }))
            })?;
            recovered.contents.insert(key, seen);
        }
    }
    Some(bad)
}
