//! The background threads: one keeps the promises of time and syncs what a segment has
//! gathered, one prepares segments, one makes checkpoints, and for as long as it takes some
//! bring the snapshot into memory.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use steadfast_durability::wal::writer::{SpareRequest, SyncRequest};

use crate::commit::{Pipeline, Work};
use crate::error::Result;
use crate::loading::End;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard};
use crate::upkeep::Upkeep;

/// A log that was idle this long gets a beacon: the promise of its last group.
const IDLE: Duration = Duration::from_millis(100);

/// What there is to do. Committing threads leave it here; they never wait for it.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    state: Mutex<JobState>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct JobState {
    timer: bool,
    sync: Option<SyncRequest>,
    segment: Option<SpareRequest>,
    checkpoint: bool,
    stop: bool,
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, JobState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves work for the threads.
    pub(crate) fn leave(&self, work: Work) {
        let mut state = self.lock();
        match work {
            Work::Timer if state.timer => return,
            Work::Timer => state.timer = true,
            // The later one covers the earlier one.
            Work::Sync(request) => state.sync = Some(request),
            Work::Segment(request) => state.segment = Some(request),
            Work::Checkpoint => state.checkpoint = true,
        }
        drop(state);
        self.wake.notify_all();
    }

    fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_all();
    }
}

/// The running threads of one database.
#[derive(Debug)]
pub(crate) struct Threads {
    jobs: Arc<Jobs>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts them. They hold the database's parts only while they work, so that a database
    /// nobody closed still goes away.
    pub(crate) fn start(
        jobs: &Arc<Jobs>,
        pipeline: &Arc<Pipeline>,
        upkeep: &Arc<Upkeep>,
    ) -> std::io::Result<Self> {
        let mut threads = Self { jobs: jobs.clone(), handles: Vec::new() };
        threads.spawn("steadfast-timer", pipeline, run_timer)?;
        threads.spawn("steadfast-segments", pipeline, run_segments)?;
        threads.spawn("steadfast-upkeep", upkeep, run_checkpoints)?;
        if upkeep.is_loading() {
            // Two: decoding is what takes the time.
            threads.spawn("steadfast-loader", upkeep, |jobs, upkeep| {
                run_loader(jobs, upkeep, End::Front);
            })?;
            threads.spawn("steadfast-loader", upkeep, |jobs, upkeep| {
                run_loader(jobs, upkeep, End::Back);
            })?;
        }
        Ok(threads)
    }

    fn spawn<T: Send + Sync + 'static>(
        &mut self,
        name: &str,
        part: &Arc<T>,
        body: fn(&Jobs, &Weak<T>),
    ) -> std::io::Result<()> {
        let (jobs, part) = (self.jobs.clone(), Arc::downgrade(part));
        let thread = thread::Builder::new().name(name.into());
        self.handles.push(thread.spawn(move || body(&jobs, &part))?);
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.jobs.stop();
        for handle in self.handles.drain(..) {
            // The last handle of a database may be dropped by one of its own threads.
            if handle.thread().id() != thread::current().id() && handle.join().is_err() {
                log::error!("a background thread panicked");
            }
        }
    }
}

fn run_timer(jobs: &Jobs, pipeline: &Weak<Pipeline>) {
    // When to look at the clock again. Until then, that there is work for the timer says
    // nothing new.
    let mut again: Option<Instant> = None;
    loop {
        let mut state = jobs.lock();
        let now = loop {
            if state.stop {
                return;
            }
            let now = Instant::now();
            let due = again.map_or(state.timer, |again| again <= now);
            if due || state.sync.is_some() {
                break now;
            }
            state = match again {
                Some(again) => {
                    let waited = jobs.wake.wait_timeout(state, again - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => jobs.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        };
        let tick = again.map_or(state.timer, |again| again <= now);
        if tick {
            state.timer = false;
        }
        let sync = state.sync.take();
        drop(state);
        let Some(pipeline) = pipeline.upgrade() else { return };
        if tick {
            again = pipeline.tick(IDLE).map(|after| Instant::now() + after);
        }
        if let Some(request) = sync {
            pipeline.sync_beside(&request);
        }
    }
}

fn run_segments(jobs: &Jobs, pipeline: &Weak<Pipeline>) {
    loop {
        let mut state = jobs.lock();
        while !state.stop && state.segment.is_none() {
            state = jobs.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stop {
            return;
        }
        let request = state.segment.take();
        drop(state);
        let Some(pipeline) = pipeline.upgrade() else { return };
        if let Some(request) = request {
            prepare(&pipeline, &request);
        }
    }
}

fn prepare(pipeline: &Pipeline, request: &SpareRequest) {
    match request.build() {
        Ok(spare) => pipeline.give_spare(spare, request),
        // The commit that needs the segment will try again, and tell its caller.
        Err(error) => log::warn!("preparing a segment: {error}"),
    }
}

fn run_checkpoints(jobs: &Jobs, upkeep: &Weak<Upkeep>) {
    let Some(interval) = upkeep.upgrade().map(|upkeep| upkeep.checkpoint_interval()) else {
        return;
    };
    loop {
        let state = jobs.lock();
        let idle = |state: &mut JobState| !state.stop && !state.checkpoint;
        let mut state = match interval {
            None => jobs.wake.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner),
            Some(interval) => {
                let waited = jobs.wake.wait_timeout_while(state, interval, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        if state.stop {
            return;
        }
        state.checkpoint = false;
        drop(state);
        let Some(upkeep) = upkeep.upgrade() else { return };
        note(upkeep.checkpoint_and_compact());
    }
}

/// What fails in the background is tried again when the next one is due.
fn note(result: Result<()>) {
    match result {
        Err(crate::Error::Closed(_)) | Ok(()) => {}
        Err(error) => log::error!("a checkpoint failed: {error}"),
    }
}

fn run_loader(jobs: &Jobs, upkeep: &Weak<Upkeep>, end: End) {
    while !jobs.lock().stop {
        let Some(upkeep) = upkeep.upgrade() else { return };
        match upkeep.load_next(end) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                log::error!("loading: {error}");
                return;
            }
        }
    }
}

/// Does by hand what the threads would do now.
pub(crate) fn run_by_hand(jobs: &Jobs, pipeline: &Pipeline, upkeep: &Upkeep) {
    let mut state = jobs.lock();
    let (timer, segment) = (std::mem::take(&mut state.timer), state.segment.take());
    let checkpoint = std::mem::take(&mut state.checkpoint);
    let sync = state.sync.take();
    drop(state);
    while let Ok(true) = upkeep.load_next(End::Front) {}
    if let Some(request) = segment {
        prepare(pipeline, &request);
    }
    if let Some(request) = sync {
        pipeline.sync_beside(&request);
    }
    if checkpoint {
        note(upkeep.checkpoint_and_compact());
    }
    if timer && pipeline.tick(IDLE).is_some() {
        jobs.leave(Work::Timer);
    }
}
