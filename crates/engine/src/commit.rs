//! The commit pipeline: validate, assign a version, queue, write, sync as promised, publish.
//!
//! Validation, version assignment and queueing are one critical section. Whoever finds the
//! log idle becomes the leader: it takes everything that is queued, writes it as a group,
//! syncs if anybody in it asked for that, and publishes. Those who come meanwhile wait and
//! are the next group, so one sync serves all of them, and a lone writer hands nothing to
//! another thread.
//!
//! Where commits do not wait for a sync, a background thread syncs beside them what a segment
//! has gathered, or the commit that fills the segment would wait for all of it.
//!
//! A committing thread puts its own records into the store, invisible, right after it has its
//! version, while a leader may be writing. A version becomes visible when every version up to
//! it is in the store and is as durable as its writer asked.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock, PoisonError};
use std::thread::panicking;
use std::time::Duration;

use steadfast_core::{
    Clock, CrashPoint, NamespaceId, Record, Sabotage, Timestamp, Version, WriteKind, WriteSet,
    check_crash_point, sabotaged,
};
use steadfast_durability::wal::segment::Epoch;
use steadfast_durability::wal::stream::Stream;
use steadfast_durability::wal::writer::{
    NamespaceLookup, Outgoing, SpareRequest, SpareSegment, SyncRequest, WalWriter,
};
use steadfast_storage::UnifiedStore;

mod pending;
mod streaming;

pub use pending::{Pending, Receipt};

use crate::commit_times::CommitTimes;
use crate::config::DurabilityMode;
use crate::error::{Error, Result};
use crate::namespaces::Namespaces;
use crate::recent::{ReadSet, Recent};
use crate::subscription::Subscribers;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard, ThreadId, hint, thread, turn};

/// A leader waits this long at most for a group as large as the last one to come together.
/// Without it, threads that commit in a loop split into two groups that take turns.
const LINGER: Duration = Duration::from_micros(50);

/// Where an acknowledgement needs no sync, it comes within microseconds: looking again this
/// often costs less than going to sleep.
const SPINS: u32 = if cfg!(shuttle) { 2 } else { 400 };

/// How long commits of others are held up for a transaction that keeps losing.
const PRIORITY: Duration = Duration::from_millis(200);

/// What is asked to be committed.
pub(crate) struct Submission {
    pub(crate) writes: WriteSet,
    /// The namespaces that the writes use.
    pub(crate) namespaces: Arc<[NamespaceId]>,
    /// The view of the transaction and what it read there; `None` if it read nothing.
    pub(crate) reads: Option<(Version, ReadSet)>,
    /// The durability to wait for.
    pub(crate) level: u8,
    /// The version and time to commit as, when a database is restored from a dump.
    pub(crate) fixed: Option<(Version, Timestamp)>,
    /// The runs that it creates.
    pub(crate) created: Vec<NamespaceId>,
    /// Namespaces of runs that it deletes.
    pub(crate) deleted: Vec<NamespaceId>,
}

/// Waiting to be written.
struct Queued {
    version: Version,
    timestamp: Timestamp,
    level: u8,
    writes: Arc<WriteSet>,
    namespaces: Arc<[NamespaceId]>,
    stream: Option<Stream>,
}

/// Has a version and is not visible yet.
struct InFlight {
    version: Version,
    timestamp: Timestamp,
    /// Some of them are deltas, which are folded when it is published.
    deltas: bool,
    /// Its records, once they are in the store.
    applied: Option<Arc<[Record]>>,
    outcome: Outcome,
}

/// The commits of a group that are in the log.
struct Written {
    first: Version,
    last: Version,
    count: u32,
    /// When the first was committed.
    since: Timestamp,
}

impl Written {
    fn of(batch: &[Queued]) -> Option<Self> {
        let (first, last) = (batch.first()?, batch.last()?);
        let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        Some(Self { first: first.version, last: last.version, count, since: first.timestamp })
    }
}

/// What a published group leaves behind, to be freed outside the lock.
#[derive(Default)]
struct Spent {
    records: Vec<Arc<[Record]>>,
    writes: Vec<Arc<WriteSet>>,
}

enum Outcome {
    Queued,
    Written,
    Failed(Arc<steadfast_durability::Error>),
}

/// Where the log is written to.
pub(crate) enum Log {
    /// To files.
    Disk(Box<WalWriter>),
    /// Nowhere.
    Memory,
    /// To files, until the database was closed.
    Closed,
}

struct State {
    /// Whoever has taken this is the leader.
    log: Option<Log>,
    queue: Vec<Queued>,
    /// Room for the next queue, kept from group to group.
    next_queue: Vec<Queued>,
    in_flight: VecDeque<InFlight>,
    failed: HashMap<Version, Arc<steadfast_durability::Error>>,
    recent: Recent,
    next_version: Version,
    /// Versions below this are reserved in the log, durably.
    ceiling: Version,
    last_timestamp: Timestamp,
    /// Commits written since the last sync began, and the time of the oldest.
    unsynced: (u32, Option<Timestamp>),
    /// When the last group was written.
    last_write: Timestamp,
    last_batch: usize,
    sleepers: usize,
    /// A streamed transaction has frames in the log and no commit or abort yet.
    streaming: bool,
    /// The last streamed transaction, if it was given up and the log does not say so yet.
    unaborted: Option<u64>,
    /// Whose commits go first, and until when.
    priority: Option<(ThreadId, Instant)>,
    closing: bool,
    poisoned: Option<String>,
    /// Somebody folds signals, or panicked while doing so.
    folding: bool,
    log_bytes: u64,
}

/// The one way into the log and the store.
pub(crate) struct Pipeline {
    state: Mutex<State>,
    wake: Condvar,
    /// How many are queued, for a leader that lingers.
    queued: AtomicUsize,
    /// How many failures wait to be told to their committers.
    failures: AtomicUsize,
    /// Whether somebody has taken the log, for those who spin: a hint, the state says for sure.
    log_taken: AtomicBool,
    /// The newest version that is known durable.
    promised: AtomicU64,
    /// Transactions above this many bytes are streamed.
    frame_bytes_max: usize,
    epoch: OnceLock<Epoch>,
    store: UnifiedStore,
    namespaces: Arc<Namespaces>,
    times: Arc<CommitTimes>,
    /// The log position at which the next checkpoint is due.
    checkpoint_at: AtomicU64,
    clock: Arc<dyn Clock>,
    mode: DurabilityMode,
    subscribers: Subscribers,
    /// Tells the background threads that there is something for them.
    on_work: Box<dyn Fn(Work) + Send + Sync>,
}

/// What the background threads are for.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// Commits are written and not durable, or the last promise is not in the log yet.
    Timer,
    /// So much is written and not durable that it should be synced beside the commits that
    /// follow, or the one that ends the segment would wait for all of it.
    Sync(SyncRequest),
    /// The next segment should be prepared.
    Segment(SpareRequest),
    /// A checkpoint is due.
    Checkpoint,
}

/// Where a pipeline starts.
pub(crate) struct Start {
    pub(crate) log: Log,
    pub(crate) next_version: Version,
    pub(crate) last_timestamp: Timestamp,
    pub(crate) promised: Version,
    /// The log position at which the next checkpoint is due.
    pub(crate) checkpoint_at: u64,
}

impl Pipeline {
    pub(crate) fn new(
        start: Start,
        store: UnifiedStore,
        namespaces: Arc<Namespaces>,
        times: Arc<CommitTimes>,
        clock: Arc<dyn Clock>,
        mode: DurabilityMode,
        on_work: Box<dyn Fn(Work) + Send + Sync>,
    ) -> Self {
        let (frame_bytes_max, ceiling) = match &start.log {
            Log::Disk(writer) => (writer.frame_bytes_max(), writer.version_ceiling()),
            Log::Memory | Log::Closed => (usize::MAX, Version::MAX),
        };
        Self {
            state: Mutex::new(State {
                log: Some(start.log),
                queue: Vec::new(),
                next_queue: Vec::new(),
                in_flight: VecDeque::new(),
                failed: HashMap::new(),
                recent: Recent::default(),
                next_version: start.next_version,
                ceiling,
                last_timestamp: start.last_timestamp,
                unsynced: (0, None),
                last_write: Timestamp::ZERO,
                last_batch: 0,
                sleepers: 0,
                streaming: false,
                unaborted: None,
                priority: None,
                closing: false,
                poisoned: None,
                folding: false,
                log_bytes: 0,
            }),
            wake: Condvar::new(),
            queued: AtomicUsize::new(0),
            failures: AtomicUsize::new(0),
            log_taken: AtomicBool::new(false),
            promised: AtomicU64::new(start.promised.0),
            frame_bytes_max,
            epoch: OnceLock::new(),
            store,
            subscribers: Subscribers::new(namespaces.clone()),
            namespaces,
            times,
            checkpoint_at: AtomicU64::new(start.checkpoint_at),
            clock,
            mode,
            on_work,
        }
    }

    pub(crate) const fn subscribers(&self) -> &Subscribers {
        &self.subscribers
    }

    /// Has the background thread make a checkpoint now.
    pub(crate) fn ask_for_checkpoint(&self) {
        (self.on_work)(Work::Checkpoint);
    }

    /// Sets the log position at which the next checkpoint is due.
    pub(crate) fn checkpoint_due_at(&self, position: u64) {
        self.checkpoint_at.store(position, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        note_panic(&mut state);
        state
    }

    fn sleep<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.sleepers += 1;
        let mut state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.sleepers -= 1;
        note_panic(&mut state);
        state
    }

    /// Wakes whoever sleeps, with the lock released first: those who wake want it.
    fn unlock_and_wake(&self, state: MutexGuard<'_, State>) {
        let sleepers = state.sleepers > 0;
        drop(state);
        if sleepers {
            self.wake.notify_all();
        }
    }

    /// Opens a view for a transaction and notes that it runs.
    pub(crate) fn begin(&self, now: Timestamp) -> Result<steadfast_storage::View> {
        let mut state = self.lock();
        if state.closing {
            return Err(CLOSED);
        }
        // Publishing needs this lock, so the view is at the newest version it can be checked
        // against.
        let view = self.store.view(now);
        state.recent.begin(view.version());
        Ok(view)
    }

    /// Ends a transaction that began at `view`.
    pub(crate) fn end(&self, view: Version) {
        let mut state = self.lock();
        state.recent.end(view);
        let visible = self.store.current_version();
        let mut dropped = Vec::new();
        state.recent.trim(visible, |writes| dropped.push(writes));
        drop(state);
        drop(dropped);
    }

    /// Holds up the commits of others for a while, so that the calling thread's transaction
    /// gets through. Returns whether it could; somebody else may be ahead.
    pub(crate) fn take_priority(&self) -> bool {
        let mut state = self.lock();
        let free = state.priority.is_none_or(|(_, until)| until <= Instant::now());
        if free {
            state.priority = Some((thread::current().id(), Instant::now() + PRIORITY));
        }
        free
    }

    /// Lets others commit again.
    pub(crate) fn leave_priority(&self) {
        let mut state = self.lock();
        if state.priority.is_some_and(|(owner, _)| owner == thread::current().id()) {
            state.priority = None;
            self.unlock_and_wake(state);
        }
    }

    /// Waits until the commit `version` is visible or has failed.
    pub(crate) fn settle(&self, version: Version) {
        let mut state = self.lock();
        loop {
            let pending = state.in_flight.iter().any(|commit| commit.version == version);
            if !pending || state.poisoned.is_some() {
                return;
            }
            state = self.lead_or_sleep(state);
        }
    }

    /// Validates, assigns a version, queues, and puts the records into the store, where they
    /// are invisible until the commit is published.
    pub(crate) fn submit(self: &Arc<Self>, submission: Submission) -> Result<Pending> {
        check_crash_point(CrashPoint::BeforeCommit);
        let Submission { writes, namespaces, reads, level, fixed, created, deleted } = submission;
        if writes.has_deltas() {
            // When they are published there is no way back, and no time to read.
            for write in writes.iter().filter(|write| write.kind == WriteKind::Delta) {
                self.store.bring_in(write.key())?;
            }
            check_crash_point(CrashPoint::WalPreAggregate);
        }
        let stream = self.stream_if_large(&writes, &namespaces, level)?;
        let writes = Arc::new(writes);
        let mut state = self.lock();
        if sabotaged(Sabotage::GoOnAfterFailedSync) && state.poisoned.take().is_some() {
            state.in_flight.clear();
        }
        let checked = loop {
            if let Err(error) = check_open(&state) {
                break Err(error);
            }
            let wanted = fixed.map_or(state.next_version, |fixed| fixed.0);
            if wanted >= state.ceiling {
                drop(state);
                let reserved = self.reserve(wanted);
                state = self.lock();
                match reserved {
                    Ok(ceiling) => state.ceiling = state.ceiling.max(ceiling),
                    Err(error) => break Err(error),
                }
                continue;
            }
            match state.priority {
                Some((owner, until))
                    if owner != thread::current().id() && until > Instant::now() =>
                {
                    state.sleepers += 1;
                    let waited = self.wake.wait_timeout(state, until - Instant::now());
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    state.sleepers -= 1;
                }
                _ if wanted < state.next_version => {
                    let next = state.next_version;
                    let text = format!("version {wanted} was given already, the next is {next}");
                    break Err(Error::Invalid(text));
                }
                _ => {
                    // A run is deleted without a write to any of its keys, so its writers ask.
                    let gone = |id: &&NamespaceId| self.namespaces.is_deleted(**id);
                    if let Some(run) = namespaces.iter().find(gone) {
                        let run = self.namespaces.namespace(*run).map(|namespace| namespace.run());
                        let run = run.map_or_else(String::new, |run| run.to_string());
                        break Err(Error::NotFound(format!("the run {run} was deleted")));
                    }
                    break match &reads {
                        Some((view, reads)) => state.recent.validate(*view, reads),
                        None => Ok(()),
                    };
                }
            }
        };
        if let Err(error) = checked {
            drop(state);
            if let Some(stream) = stream {
                self.abort(&stream, level);
            }
            return Err(error);
        }
        let (version, timestamp) = match fixed {
            Some(fixed) => fixed,
            None if sabotaged(Sabotage::ClockStepsBack) => (state.next_version, self.clock.now()),
            // The clock may step back; commit times do not.
            None => (state.next_version, self.clock.now().max(state.last_timestamp)),
        };
        debug_assert!(version >= state.next_version, "versions are given once, in order");
        state.next_version = version.next();
        state.last_timestamp = timestamp.max(state.last_timestamp);
        state.recent.push(version, writes.clone());
        deleted.iter().for_each(|run| self.namespaces.set_deleted(*run, version));
        state.queue.push(Queued {
            version,
            timestamp,
            level,
            writes: writes.clone(),
            namespaces: namespaces.clone(),
            stream,
        });
        state.in_flight.push_back(InFlight {
            version,
            timestamp,
            deltas: writes.has_deltas(),
            applied: None,
            outcome: Outcome::Queued,
        });
        self.queued.store(state.queue.len(), Ordering::Release);
        drop(state);

        turn();
        let records: Arc<[Record]> = writes.records(version, timestamp).into();
        let superseded = self.store.apply(&records);
        Ok(Pending {
            pipeline: self.clone(),
            version,
            records,
            applied: false,
            _kept: (writes, namespaces),
            superseded: Some(superseded),
            level,
            created,
            deleted,
            waited: false,
        })
    }

    /// Reserves versions up to and with `wanted` in the log. Returns below which they may be
    /// given.
    fn reserve(&self, wanted: Version) -> Result<Version> {
        let reserve = |writer: &mut WalWriter| writer.reserve_versions(wanted);
        let ceiling = self.with_writer(reserve, |_, _| {})?.unwrap_or(Version::MAX);
        if ceiling <= wanted {
            return Err(Error::Invalid(format!("version {wanted} is above what there can be")));
        }
        Ok(ceiling)
    }

    /// Runs `work` with the log, when nobody else has it, and `then` on what came of it before
    /// anybody else can have it. `None` for a database without files.
    ///
    /// What follows from the work, also that a sync failed, is noted before the log is given
    /// back: else somebody might write, or publish, in between.
    fn with_writer<T>(
        &self,
        work: impl FnOnce(&mut WalWriter) -> steadfast_durability::Result<T>,
        then: impl FnOnce(&mut State, &T),
    ) -> Result<Option<T>> {
        let mut state = self.lock();
        let log = loop {
            match state.log.take() {
                Some(log) => break log,
                None => state = self.sleep(state),
            }
        };
        if !matches!(log, Log::Disk(_)) {
            let closed = matches!(log, Log::Closed);
            state.log = Some(log);
            return if closed { Err(CLOSED) } else { Ok(None) };
        }
        drop(state);
        let mut held = Held::new(self, log);
        let Log::Disk(writer) = held.log() else { unreachable!("it was just looked at") };
        let result = work(writer);
        self.leave_work(writer);
        let mut state = self.lock();
        match &result {
            Ok(value) => then(&mut state, value),
            Err(error) => note_poison(&mut state, error),
        }
        state.log = Some(held.give_back());
        self.unlock_and_wake(state);
        Ok(Some(result?))
    }

    /// Runs `work` with the log, when nobody else has it. `None` for a database without files.
    pub(crate) fn with_log<T>(
        &self,
        work: impl FnOnce(&mut WalWriter) -> steadfast_durability::Result<T>,
    ) -> Result<Option<T>> {
        self.with_writer(work, |_, _| {})
    }

    /// Leaves to the background threads what the log would otherwise soon have to wait for.
    fn leave_work(&self, writer: &mut WalWriter) {
        if let Some(request) = writer.wants_sync() {
            (self.on_work)(Work::Sync(request));
        }
        if let Some(request) = writer.wants_spare() {
            (self.on_work)(Work::Segment(request));
        }
    }

    /// Syncs what `request` says while others go on writing. Their commits are promised when
    /// it is done, and not before it was noted here; if it failed, the log is poisoned.
    pub(crate) fn sync_beside(&self, request: &SyncRequest) {
        if check_open(&self.lock()).is_err() {
            return;
        }
        let synced = request.run();
        let note = |writer: &mut WalWriter| writer.note_synced(synced);
        let noted = self.with_writer(note, |_, newest| {
            // How much of the window waits still is not counted anew: it is at most what it
            // was, and the next sync settles it.
            self.promised.fetch_max(newest.0, Ordering::AcqRel);
        });
        if let Err(error) = noted {
            log::error!("syncing beside the commits: {error}");
        }
    }

    /// Takes a segment that was prepared for the log.
    pub(crate) fn give_spare(&self, spare: SpareSegment, request: &SpareRequest) {
        let give = |writer: &mut WalWriter| {
            writer.give_spare(spare);
            Ok(())
        };
        if !matches!(self.with_writer(give, |_, ()| {}), Ok(Some(()))) {
            request.discard();
        }
    }

    /// Leads if there is something to write and nobody does; else sleeps until something
    /// changed.
    fn lead_or_sleep<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.queue.is_empty() || state.poisoned.is_some() {
            return self.sleep(state);
        }
        match state.log.take() {
            Some(log) => {
                self.lead(state, log);
                self.lock()
            }
            None => self.sleep(state),
        }
    }

    /// Writes what is queued, syncs it if anybody asked, and publishes it.
    fn lead<'a>(&'a self, mut state: MutexGuard<'a, State>, log: Log) {
        let mut held = Held::new(self, log);
        let strict = state.queue.iter().any(|queued| queued.level == 2);
        if strict && state.last_batch > 1 && state.queue.len() < state.last_batch {
            let wanted = state.last_batch;
            drop(state);
            let until = Instant::now() + LINGER;
            while self.queued.load(Ordering::Acquire) < wanted && Instant::now() < until {
                thread::yield_now();
            }
            state = self.lock();
        }
        let next_queue = std::mem::take(&mut state.next_queue);
        let mut batch = std::mem::replace(&mut state.queue, next_queue);
        self.queued.store(0, Ordering::Release);
        let now = batch.last().map_or(Timestamp::ZERO, |queued| queued.timestamp);
        let durable = batch.iter().any(|queued| queued.level == 2)
            || self.window_exceeded(&state, batch.len(), now);
        if sabotaged(Sabotage::PublishBeforeDurable) {
            state.in_flight.iter_mut().for_each(|commit| commit.outcome = Outcome::Written);
            self.publish(&mut state, None);
        }
        drop(state);

        let to_sync = durable && !sabotaged(Sabotage::AcknowledgeBeforeSync);
        let result = write(held.log(), &batch, to_sync);
        let (written, error) = match result {
            Ok(()) => (batch.len(), None),
            Err(failure) => (failure.written, Some(failure.error)),
        };

        if batch[..written].iter().any(|queued| queued.writes.has_deltas()) {
            check_crash_point(CrashPoint::WalPostAggregate);
        }
        let failed: Vec<Version> = batch[written..].iter().map(|queued| queued.version).collect();
        let written = Written::of(&batch[..written]);
        let (streamed, last_batch) = (batch.iter().any(|one| one.stream.is_some()), batch.len());
        // What a large group leaves is freed outside the lock, which those want who come next.
        batch.clear();
        let mut spent = (last_batch > 1).then(Spent::default);

        let mut state = self.lock();
        if let Some(written) = written {
            self.note_written(&mut state, &written, durable, now);
        }
        if let Some(error) = error {
            self.note_failed(&mut state, &failed, error);
        }
        if streamed {
            state.streaming = false;
        }
        state.last_batch = last_batch;
        state.next_queue = batch;
        if let Log::Disk(writer) = held.log() {
            state.log_bytes = writer.position();
            state.ceiling = state.ceiling.max(writer.version_ceiling());
            if let Some(epoch) = writer.epoch() {
                let _ = self.epoch.set(epoch);
            }
            if writer.position() >= self.checkpoint_at.load(Ordering::Acquire) {
                self.checkpoint_at.store(u64::MAX, Ordering::Release);
                (self.on_work)(Work::Checkpoint);
            }
            self.leave_work(writer);
        }
        state.log = Some(held.give_back());
        self.publish(&mut state, spent.as_mut());
        self.unlock_and_wake(state);
    }

    /// Whether `more` commits at `now` without a sync would leave more to a power cut than
    /// the window allows.
    fn window_exceeded(&self, state: &State, more: usize, now: Timestamp) -> bool {
        let DurabilityMode::Batched { interval, commits } = self.mode else { return false };
        if sabotaged(Sabotage::BatchedWindowNeverSyncs) {
            return false;
        }
        let (count, oldest) = state.unsynced;
        // A clock that stepped back cannot tell how old the oldest is.
        let late = oldest.is_some_and(|oldest| now < oldest || now.since(oldest) >= interval);
        late || count as usize + more > commits as usize
    }

    fn note_written(&self, state: &mut State, written: &Written, durable: bool, now: Timestamp) {
        let from = state.in_flight.partition_point(|commit| commit.version < written.first);
        for commit in state.in_flight.range_mut(from..) {
            if commit.version > written.last {
                break;
            }
            commit.outcome = Outcome::Written;
        }
        state.last_write = now;
        if durable {
            state.unsynced = (0, None);
            self.promised.fetch_max(written.last.0, Ordering::AcqRel);
        } else {
            let first = state.unsynced.1.is_none();
            state.unsynced.0 += written.count;
            state.unsynced.1.get_or_insert(written.since);
            if first && matches!(self.mode, DurabilityMode::Batched { .. }) {
                (self.on_work)(Work::Timer);
            }
        }
        if self.mode == DurabilityMode::Strict {
            (self.on_work)(Work::Timer);
        }
    }

    fn note_failed(
        &self,
        state: &mut State,
        failed: &[Version],
        error: steadfast_durability::Error,
    ) {
        if matches!(error, steadfast_durability::Error::Poisoned { .. }) {
            note_poison(state, &error);
            return;
        }
        let error = Arc::new(error);
        for version in failed {
            state.recent.remove(*version);
            if let Some(commit) = find(state, *version) {
                commit.outcome = Outcome::Failed(error.clone());
            }
        }
    }

    /// Makes every version visible that is in the store and written, up to the first that is
    /// not. After a failed sync nothing becomes visible any more. What nobody needs then is
    /// freed, or put into `spent`.
    fn publish(&self, state: &mut State, mut spent: Option<&mut Spent>) {
        if state.poisoned.is_some() {
            return;
        }
        let mut visible = None;
        let mut times = Vec::new();
        let subscribed = !self.subscribers.is_empty();
        let mut told = Vec::new();
        while let Some(front) = state.in_flight.front() {
            if front.applied.is_none() || matches!(front.outcome, Outcome::Queued) {
                break;
            }
            let failed = matches!(front.outcome, Outcome::Failed(_));
            if front.deltas && !failed {
                state.folding = true;
                let waker = WakeOnPanic(&self.wake);
                let records = front.applied.iter().flat_map(|records| records.iter());
                records.filter(|record| record.is_delta()).for_each(|delta| self.store.fold(delta));
                drop(waker);
                state.folding = false;
            }
            let Some(commit) = state.in_flight.pop_front() else { break };
            match commit.outcome {
                Outcome::Failed(error) => {
                    self.store.undo(&commit.applied.unwrap_or_default());
                    state.failed.insert(commit.version, error);
                    self.failures.store(state.failed.len(), Ordering::Release);
                }
                _ => {
                    visible = Some(commit.version);
                    times.push((commit.version, commit.timestamp));
                    let Some(records) = commit.applied else { continue };
                    if subscribed {
                        told.push((commit.version, commit.timestamp, records));
                    } else if let Some(spent) = &mut spent {
                        spent.records.push(records);
                    }
                }
            }
        }
        if let Some(visible) = visible {
            self.times.push(times);
            self.store.publish(visible);
            // Whoever is told of a commit can read it.
            for (version, timestamp, records) in told {
                self.subscribers.tell(version, timestamp, self.epoch.get().copied(), &records);
            }
            state.recent.trim(visible, |writes| {
                if let Some(spent) = &mut spent {
                    spent.writes.push(writes);
                }
            });
        }
    }

    /// Notes that the records of `version` are in the store.
    fn note_applied(&self, state: &mut State, version: Version, records: Arc<[Record]>) {
        if let Some(commit) = find(state, version) {
            commit.applied = Some(records);
            if !matches!(commit.outcome, Outcome::Queued) {
                self.publish(state, None);
                if state.sleepers > 0 {
                    self.wake.notify_all();
                }
            }
        }
    }

    /// Waits for the outcome of `version`, leading where nobody does.
    fn wait(&self, version: Version, records: Option<Arc<[Record]>>, level: u8) -> Result<()> {
        let mut state = self.lock();
        if let Some(records) = records {
            self.note_applied(&mut state, version, records);
        }
        let mut spins = level < 2;
        loop {
            if let Some(error) = state.failed.remove(&version) {
                self.failures.store(state.failed.len(), Ordering::Release);
                return Err(Error::Io(error));
            }
            let visible = self.store.current_version();
            let early = sabotaged(Sabotage::ReturnBeforeVisible)
                && state.in_flight.front().is_some_and(|first| first.version < version);
            if visible >= version || early {
                return Ok(());
            }
            if let Some(reason) = &state.poisoned {
                return Err(Error::Unknown { reason: reason.clone() });
            }
            if !state.queue.is_empty()
                && let Some(log) = state.log.take()
            {
                self.lead(state, log);
                if self.is_published(version) {
                    return Ok(());
                }
                state = self.lock();
            } else if spins {
                drop(state);
                if self.spin(version) {
                    return Ok(());
                }
                state = self.lock();
                spins = false;
            } else {
                state = self.sleep(state);
                spins = level < 2;
            }
        }
    }

    /// Looks again and again for a moment, until `version` is published, which is returned, or
    /// something is to be written and nobody does. What it waits for is the write of another
    /// thread, or that one with a lower version puts its records into the store.
    fn spin(&self, version: Version) -> bool {
        for _ in 0..SPINS {
            if self.is_published(version) {
                return true;
            }
            if self.queued.load(Ordering::Acquire) > 0 && !self.log_taken.load(Ordering::Acquire) {
                return false;
            }
            hint::spin_loop();
        }
        false
    }

    /// Whether `version` is visible, as far as can be told without a lock. Subscribers are told
    /// under the lock, right after a version becomes visible: where there are any, a commit that
    /// returned without it could be ahead of what they were told.
    fn is_published(&self, version: Version) -> bool {
        self.store.current_version() >= version
            && self.failures.load(Ordering::Acquire) == 0
            && self.subscribers.is_empty()
    }

    /// Drops what was kept to tell the committer of `version` that it failed.
    /// Returns whether it failed.
    fn forget_failure(&self, version: Version) -> bool {
        let mut state = self.lock();
        let failed = state.failed.remove(&version).is_some();
        if failed {
            self.failures.store(state.failed.len(), Ordering::Release);
        }
        failed
    }

    /// Makes everything visible durable.
    pub(crate) fn sync(&self) -> Result<()> {
        let sync = |writer: &mut WalWriter| {
            let newest = writer.last_version();
            writer.sync().map(|()| newest)
        };
        let noted = self.with_writer(sync, |state, newest| {
            self.promised.fetch_max(newest.0, Ordering::AcqRel);
            state.unsynced = (0, None);
        });
        noted.map(drop)
    }

    /// Waits until `version`, which is visible, is durable.
    pub(crate) fn wait_durable(&self, version: Version) -> Result<()> {
        if self.promised() >= version || sabotaged(Sabotage::WaitDurableLies) {
            return Ok(());
        }
        let synced = self.sync();
        if self.promised() >= version {
            return Ok(());
        }
        let reason = match synced {
            Err(Error::Poisoned { reason }) => reason,
            Err(error) => error.to_string(),
            Ok(()) => "the log does not have it".into(),
        };
        Err(Error::Unknown { reason })
    }

    /// The newest version that is known durable.
    pub(crate) fn promised(&self) -> Version {
        Version(self.promised.load(Ordering::Acquire))
    }

    /// How far whoever follows may go: what is visible, and, unless `unpromised`, durable too.
    pub(crate) fn followable(&self, unpromised: bool) -> Version {
        let visible = self.store.current_version();
        if unpromised { visible } else { self.promised().min(visible) }
    }

    /// Sleeps until there is something to follow behind `version`, or `timeout` is over. Returns
    /// which. Whatever makes a version visible or durable wakes who sleeps here.
    pub(crate) fn wait_followable(
        &self,
        version: Version,
        unpromised: bool,
        timeout: Duration,
    ) -> Result<bool> {
        let started = Instant::now();
        let mut state = self.lock();
        loop {
            if state.closing {
                return Err(CLOSED);
            }
            if self.followable(unpromised) > version {
                return Ok(true);
            }
            check_open(&state)?;
            let left = timeout.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            state.sleepers += 1;
            let waited = self.wake.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.sleepers -= 1;
            note_panic(&mut state);
        }
    }

    /// The newest version that was assigned.
    pub(crate) fn assigned(&self) -> Version {
        Version(self.lock().next_version.0 - 1)
    }

    /// Bytes in the log, counted from its very beginning, and how many transactions run.
    pub(crate) fn measure(&self) -> (u64, usize, Option<String>) {
        let state = self.lock();
        (state.log_bytes, state.recent.running(), state.poisoned.clone())
    }

    /// What the timer has to do: syncs what has been waiting for `interval`, and lets an
    /// idle log carry its last promise. Returns when to come again, if there is a reason to.
    pub(crate) fn tick(&self, idle: Duration) -> Option<Duration> {
        let state = self.lock();
        if state.poisoned.is_some() || state.closing {
            return None;
        }
        let now = self.clock.now();
        if let (DurabilityMode::Batched { interval, .. }, Some(oldest)) =
            (self.mode, state.unsynced.1)
        {
            let age = now.since(oldest);
            if age < interval && now >= oldest {
                return Some(interval - age);
            }
            drop(state);
            if sabotaged(Sabotage::TimerNeverSyncs) {
                return Some(idle);
            }
            if let Err(error) = self.sync() {
                log::error!("syncing in the background: {error}");
                return None;
            }
            return Some(idle);
        }
        let since = now.since(state.last_write);
        if since < idle {
            return Some(idle - since);
        }
        drop(state);
        // Commits clear away what views have left behind; with none coming, nobody would.
        self.store.prune_waiting(usize::MAX);
        let beacon = |writer: &mut WalWriter| writer.beacon();
        match self.with_writer(beacon, |_, _| {}) {
            Ok(_) | Err(Error::Closed(_)) => {}
            Err(error) => log::error!("writing a beacon: {error}"),
        }
        None
    }

    /// Writes what is still queued and closes the log. Later calls are refused.
    pub(crate) fn close(&self) -> Result<()> {
        let mut state = self.lock();
        if state.closing {
            return Ok(());
        }
        state.closing = true;
        while !state.queue.is_empty() && state.poisoned.is_none() {
            state = self.lead_or_sleep(state);
        }
        let log = loop {
            match state.log.take() {
                Some(log) => break log,
                None => state = self.sleep(state),
            }
        };
        let (poisoned, next) = (state.poisoned.is_some(), state.next_version);
        drop(state);
        let (log, closed) = match log {
            Log::Disk(writer) if poisoned => {
                writer.abandon();
                (Log::Closed, Ok(Version::ZERO))
            }
            Log::Disk(writer) => {
                let last = writer.last_version();
                (Log::Closed, writer.close(next).map(|()| last))
            }
            other => (other, Ok(Version::ZERO)),
        };
        // Only now does anybody else get the log, and finds it closed.
        let mut state = self.lock();
        match &closed {
            Ok(last) => {
                self.promised.fetch_max(last.0, Ordering::AcqRel);
            }
            Err(error) => note_poison(&mut state, error),
        }
        state.log = Some(log);
        self.unlock_and_wake(state);
        self.subscribers.close();
        Ok(closed.map(drop)?)
    }
}

/// Has the log. Where a panic takes it from its holder, nobody knows what was written: the log
/// is closed and whoever waits is told, instead of waiting for ever.
struct Held<'a> {
    pipeline: &'a Pipeline,
    log: Option<Log>,
}

impl<'a> Held<'a> {
    fn new(pipeline: &'a Pipeline, log: Log) -> Self {
        pipeline.log_taken.store(true, Ordering::Release);
        Self { pipeline, log: Some(log) }
    }

    const fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("it is given back only at the end")
    }

    /// With the state locked, which the log goes back into.
    fn give_back(mut self) -> Log {
        self.pipeline.log_taken.store(false, Ordering::Release);
        self.log.take().expect("it is given back once")
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.log.take().is_some() {
            let mut state = self.pipeline.lock();
            self.pipeline.log_taken.store(false, Ordering::Release);
            state.poisoned.get_or_insert_with(|| "whoever wrote the log panicked".into());
            state.log = Some(Log::Closed);
            self.pipeline.unlock_and_wake(state);
        }
    }
}

/// Nobody may wait for ever for whoever panics while folding signals.
struct WakeOnPanic<'a>(&'a Condvar);

impl Drop for WakeOnPanic<'_> {
    fn drop(&mut self) {
        if panicking() {
            self.0.notify_all();
        }
    }
}

/// What was being folded is in the log and will not be visible any more.
fn note_panic(state: &mut State) {
    if std::mem::take(&mut state.folding) {
        state.poisoned.get_or_insert_with(|| "whoever published a commit panicked".into());
    }
}

fn note_poison(state: &mut State, error: &steadfast_durability::Error) {
    if let steadfast_durability::Error::Poisoned { reason } = error {
        state.poisoned.get_or_insert_with(|| reason.clone());
    }
}

/// What every call is told after `close`.
pub(crate) const CLOSED: Error = Error::Closed("the database is closed");

fn check_open(state: &State) -> Result<()> {
    if state.closing {
        return Err(CLOSED);
    }
    match &state.poisoned {
        Some(reason) => Err(Error::Poisoned { reason: reason.clone() }),
        None => Ok(()),
    }
}

fn find(state: &mut State, version: Version) -> Option<&mut InFlight> {
    let at = state.in_flight.binary_search_by_key(&version, |commit| commit.version).ok()?;
    state.in_flight.get_mut(at)
}

fn write(
    log: &mut Log,
    batch: &[Queued],
    durable: bool,
) -> std::result::Result<(), steadfast_durability::wal::writer::AppendError> {
    let Log::Disk(writer) = log else { return Ok(()) };
    let level = batch.iter().map(|queued| queued.level).max().unwrap_or(0);
    match batch {
        [one] => writer.append(&[outgoing(one)], level, durable),
        many => writer.append(&many.iter().map(outgoing).collect::<Vec<_>>(), level, durable),
    }
}

fn outgoing(queued: &Queued) -> Outgoing<'_> {
    match &queued.stream {
        Some(stream) => stream.commit(queued.version, queued.timestamp),
        None => Outgoing::Txn {
            version: queued.version,
            timestamp: queued.timestamp,
            namespaces: &queued.namespaces,
            writes: queued.writes.as_bytes(),
        },
    }
}
