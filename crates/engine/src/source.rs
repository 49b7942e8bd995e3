//! What can be read from: a view, or a transaction with its own writes on top.
//!
//! Every primitive's reads are written once, over this.

use std::collections::VecDeque;

use steadfast_core::{KeyRef, Record, Timestamp};

use crate::error::{Error, Result};
use crate::fork::{Committed, place};
use crate::namespaces::Namespaces;
use crate::runs::{Run, RunInfo};

/// Somewhere that records are read from, at one version and one time.
pub(crate) trait Source {
    /// Refuses a handle that does not name a run of this database.
    fn check_run(&self, run: Run) -> Result<()>;

    /// Notes that the run index has a run here.
    fn found_run(&self, namespaces: &Namespaces, info: &RunInfo) -> Result<()>;

    /// The live record of `key`.
    fn record(&mut self, key: KeyRef<'_>) -> Result<Option<Record>>;

    /// The live records from `start` on, up to and without `end`, in key order.
    fn rows(&mut self, start: Vec<u8>, end: Option<Vec<u8>>) -> Rows;

    /// The last event of the stream whose keys begin with `prefix`.
    fn last_event(&mut self, prefix: &[u8]) -> Result<Option<Record>>;
}

/// Live records of one run in key order, from both ends: those of a view, with uncommitted ones
/// of a transaction laid over them. Those from beneath a fork have the keys of their own runs.
pub(crate) struct Rows {
    committed: Committed,
    own: VecDeque<Record>,
    now: Timestamp,
    front: Option<Record>,
    back: Option<Record>,
    /// What could not be read before it began.
    failed: Option<Error>,
}

impl Rows {
    pub(crate) fn new(committed: Committed, own: VecDeque<Record>, now: Timestamp) -> Self {
        Self { committed, own, now, front: None, back: None, failed: None }
    }

    /// With an error in the place of its rows.
    pub(crate) fn failed(mut self, error: Error) -> Self {
        self.failed = Some(error);
        self
    }

    /// What one end gives next: `own` records win over committed ones of the same key.
    fn step(&mut self, forward: bool) -> Option<Result<Record>> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        loop {
            if self.own.is_empty() {
                // Nothing lies over the rest: this is all there is to most scans.
                let held = if forward { self.front.take() } else { self.back.take() };
                let other = if forward { &mut self.back } else { &mut self.front };
                let next = held.map(Ok).or_else(|| {
                    if forward { self.committed.next() } else { self.committed.next_back() }
                });
                return next.or_else(|| other.take().map(Ok));
            }
            let held = if forward { &mut self.front } else { &mut self.back };
            if held.is_none() {
                let next = if forward { self.committed.next() } else { self.committed.next_back() };
                match next {
                    Some(Ok(record)) => *held = Some(record),
                    Some(Err(error)) => return Some(Err(error)),
                    None => {
                        // The other end may hold the last committed one.
                        let other = if forward { self.back.take() } else { self.front.take() };
                        if forward { self.front = other } else { self.back = other }
                    }
                }
            }
            let held = if forward { &mut self.front } else { &mut self.back };
            let own = if forward { self.own.front() } else { self.own.back() };
            let own = own.expect("checked not to be empty");
            let own_first = held.as_ref().is_none_or(|held| {
                let order = place(own.key()).cmp(place(held.key()));
                if forward { order.is_le() } else { order.is_ge() }
            });
            if !own_first {
                return held.take().map(Ok);
            }
            if held.as_ref().is_some_and(|held| place(held.key()) == place(own.key())) {
                *held = None;
            }
            let own = if forward { self.own.pop_front() } else { self.own.pop_back() };
            match own {
                Some(own) if own.is_live(self.now) => return Some(Ok(own)),
                _ => {}
            }
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(true)
    }
}

impl DoubleEndedIterator for Rows {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(false)
    }
}
