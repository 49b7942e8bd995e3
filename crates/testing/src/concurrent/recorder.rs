//! [`Recorder`]: what threads write their part of a history with.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use steadfast_engine::{Database, ErrorKind, Receipt, Result, Run, Version};

use super::history::{History, Outcome, Read, Seen, State, Txn, TxnId};
use super::lines;

type OnEvent = Box<dyn Fn(u64) + Send>;

/// Writes down what concurrent transactions ask for and are told. Shared by reference among
/// threads; its lock is held for an instant at each event, never while the database works.
pub struct Recorder {
    inner: Mutex<Inner>,
}

struct Inner {
    history: History,
    /// The last event.
    event: u64,
    on_event: OnEvent,
    lines: Option<Box<dyn Write + Send>>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recorder({} transactions)", self.lock().history.txns.len())
    }
}

impl Recorder {
    /// Of transactions on a database that holds `initial` before the first of them.
    pub fn new(initial: State) -> Self {
        let history = History { initial, ..History::default() };
        let inner = Inner { history, event: 0, on_event: Box::new(|_| {}), lines: None };
        Self { inner: Mutex::new(inner) }
    }

    /// Of transactions on the key-values of `run`, as they are now.
    pub fn of(db: &Database, run: Run) -> Result<Self> {
        Ok(Self::new(State::of(db, run)?))
    }

    /// Calls `on_event` with the number of each event, before anything after it can begin. With
    /// [`SimDisk::note`](crate::sim::SimDisk::note), every moment of the disk knows which part
    /// of the history it belongs to: [`History::until`].
    #[must_use]
    pub fn on_event(self, on_event: impl Fn(u64) + Send + 'static) -> Self {
        self.lock().on_event = Box::new(on_event);
        self
    }

    /// Also writes each event as a line, in one write, before anything after it can begin: what
    /// is in a file or a pipe outlives the process. [`History::from_lines`] reads it.
    pub fn write_lines(self, mut to: impl Write + Send + 'static) -> std::io::Result<Self> {
        to.write_all(lines::initial(&self.lock().history.initial).as_bytes())?;
        self.lock().lines = Some(Box::new(to));
        Ok(self)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction of `who` is about to begin: to be called before anything of it is done.
    pub fn begin(&self, who: &str) -> Attempt<'_> {
        let mut inner = self.lock();
        let invoked = inner.next();
        let id = TxnId(inner.history.txns.len());
        inner.history.txns.push(Txn {
            who: who.to_owned(),
            invoked,
            ended: None,
            snapshot: None,
            reads: Vec::new(),
            writes: BTreeMap::new(),
            outcome: Outcome::Failed,
        });
        inner.say(&lines::begin(id, who));
        drop(inner);
        let (reads, writes) = (Vec::new(), BTreeMap::new());
        Attempt {
            recorder: self,
            id,
            snapshot: None,
            reads,
            writes,
            committing: false,
            done: false,
        }
    }

    /// A flush returned, or a commit that waits for the device: everything up to `version`
    /// survives a power cut.
    pub fn promised(&self, version: Version) {
        let mut inner = self.lock();
        let event = inner.next();
        inner.history.promises.push((event, version));
        inner.say(&lines::promised(version));
    }

    /// What was recorded so far. Transactions under way that were not about to commit count as
    /// failed: nothing of them was handed over.
    pub fn history(&self) -> History {
        self.lock().history.clone()
    }
}

impl Inner {
    fn next(&mut self) -> u64 {
        self.event += 1;
        (self.on_event)(self.event);
        self.event
    }

    fn say(&mut self, line: &str) {
        if let Some(lines) = &mut self.lines {
            // A history with a hole would be judged wrongly.
            lines.write_all(line.as_bytes()).expect("the history can be written down");
        }
    }
}

/// One transaction on its way. Dropped before [`Attempt::committing`] it counts as rolled back,
/// after it as of unknown outcome.
#[must_use = "a transaction ends with an outcome"]
pub struct Attempt<'a> {
    recorder: &'a Recorder,
    id: TxnId,
    snapshot: Option<Version>,
    reads: Vec<Read>,
    writes: BTreeMap<String, Option<String>>,
    committing: bool,
    done: bool,
}

impl std::fmt::Debug for Attempt<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Attempt({})", self.id)
    }
}

impl Attempt<'_> {
    /// Which transaction of the history it is.
    pub const fn id(&self) -> TxnId {
        self.id
    }

    /// It reads at `version`, which is not below that of the history's first state: what was
    /// there before is not known.
    pub fn reads_at(&mut self, version: Version) {
        self.snapshot = Some(version);
    }

    /// It read `key`. Not for what it wrote itself.
    pub fn read(&mut self, key: &str, found: Option<Seen>) {
        self.reads.push(Read::Key { key: key.to_owned(), found });
    }

    /// It read every key from `from` up to and without `to`. What it wrote itself is left out of
    /// `found`.
    pub fn read_range(&mut self, from: &str, to: Option<&str>, found: Vec<(String, Seen)>) {
        let own: BTreeSet<String> = self.writes.keys().cloned().collect();
        let (from, to) = (from.to_owned(), to.map(str::to_owned));
        self.reads.push(Read::Range { from, to, own, found });
    }

    /// It wrote `value` to `key`, or deletes it.
    pub fn write(&mut self, key: &str, value: Option<&str>) {
        self.writes.insert(key.to_owned(), value.map(str::to_owned));
    }

    /// Whether it wrote `key` itself.
    pub fn has_written(&self, key: &str) -> bool {
        self.writes.contains_key(key)
    }

    fn hand_over(&mut self, committing: bool) {
        let mut inner = self.recorder.lock();
        let txn = &mut inner.history.txns[self.id.0];
        (txn.snapshot, txn.reads) = (self.snapshot, std::mem::take(&mut self.reads));
        txn.writes = std::mem::take(&mut self.writes);
        if committing && !txn.writes.is_empty() {
            txn.outcome = Outcome::Unknown(None);
        }
        if inner.lines.is_some() {
            let line = lines::asks(self.id, &inner.history.txns[self.id.0], committing);
            inner.say(&line);
        }
        self.committing = committing;
    }

    /// It is about to commit: to be called before anything is handed to the database. From now
    /// on its writes may be found after a crash.
    pub fn committing(&mut self) {
        self.hand_over(true);
    }

    /// It was given a version, and is not acknowledged yet.
    pub fn queued(&mut self, version: Version) {
        let mut inner = self.recorder.lock();
        inner.history.txns[self.id.0].outcome = Outcome::Unknown(Some(version));
        inner.say(&lines::queued(self.id, version));
    }

    /// It has an outcome. For one that wrote nothing and did not fail, that is
    /// [`Outcome::ReadOnly`].
    pub fn ended(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) {
        if !self.committing {
            self.hand_over(false);
        }
        self.done = true;
        let mut inner = self.recorder.lock();
        let event = inner.next();
        let txn = &mut inner.history.txns[self.id.0];
        (txn.ended, txn.outcome) = (Some(event), outcome);
        inner.say(&lines::ended(self.id, outcome));
    }

    /// It has the outcome that `committed` tells.
    pub fn ended_with(mut self, committed: &Result<Receipt>) {
        let wrote = match self.committing {
            true => !self.recorder.lock().history.txns[self.id.0].writes.is_empty(),
            false => !self.writes.is_empty(),
        };
        let outcome = match committed {
            Ok(receipt) if wrote => Outcome::Committed(receipt.version()),
            Ok(_) => Outcome::ReadOnly,
            Err(error) if error.kind() == ErrorKind::Unknown && wrote => {
                let recorded = self.recorder.lock().history.txns[self.id.0].outcome;
                match recorded {
                    Outcome::Unknown(version) => Outcome::Unknown(version),
                    _ => Outcome::Unknown(None),
                }
            }
            // Every other kind says that nothing was committed.
            Err(_) => Outcome::Failed,
        };
        self.end(outcome);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.done && !self.committing {
            self.end(Outcome::Failed);
        }
    }
}
