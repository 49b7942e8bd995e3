//! What never returns. Nothing can end a thread that waits for ever, so [`Watchdog`] says what it
//! was doing, with the line that repeats it, and ends the process.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::matrix::REPLAY_VARIABLE;
use crate::matrix::ack::Drawn;
use crate::matrix::case::{Case, Life};
use crate::matrix::shrink::trim;
use crate::seed::cargo_line;

/// What a process ends with whose program or check hangs: as one whose test panicked.
const EXIT_HANGS: i32 = 101;

/// A thread that looks whether what is under way is under way for too long.
pub(super) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    time_max: Duration,
}

#[derive(Default)]
struct State {
    under_way: Option<UnderWay>,
    over: bool,
}

struct UnderWay {
    since: Instant,
    lives: Vec<Life>,
    /// What the program draws; `None` for the check.
    drawn: Option<Drawn>,
}

/// While it lives, the clock runs.
pub(super) struct Watched<'a>(&'a Shared);

impl Watchdog {
    pub(super) fn new(time_max: Duration) -> Self {
        let shared =
            Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), time_max });
        let watch = shared.clone();
        let thread = std::thread::Builder::new();
        // The line that repeats a test names it by its thread.
        let thread = match std::thread::current().name() {
            Some(name) => thread.name(name.to_owned()),
            None => thread,
        };
        // Where there is no thread to be had, nobody watches, and all else is as it was.
        Self { shared, thread: thread.spawn(move || watch.watch()).ok() }
    }

    /// The program is run on what `lives` left, or the check asked about it.
    pub(super) fn begin(&self, lives: Vec<Life>, drawn: Option<Drawn>) -> Watched<'_> {
        let under_way = UnderWay { since: Instant::now(), lives, drawn };
        self.shared.lock().under_way = Some(under_way);
        Watched(&self.shared)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say but what it ends the process with.
            let _ended = thread.join();
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.lock().under_way = None;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let mut state = self.lock();
        while !state.over {
            let passed = state.under_way.as_ref().map(|it| it.since.elapsed()).unwrap_or_default();
            if let Some(left) = self.time_max.checked_sub(passed).filter(|left| !left.is_zero()) {
                let waited = self.changed.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            } else if let Some(under_way) = &state.under_way {
                // Not by a macro: what a test prints is shown when it has ended.
                let told = format!("{}\n", under_way.story(self.time_max));
                let _nobody_reads = std::io::stderr().write_all(told.as_bytes());
                std::process::exit(EXIT_HANGS);
            }
        }
    }
}

impl UnderWay {
    fn story(&self, time: Duration) -> String {
        let drawn = self.drawn.as_ref().map(|drawn| {
            let mut drawn = drawn.lock().unwrap_or_else(PoisonError::into_inner).clone();
            trim(&mut drawn);
            drawn
        });
        let what = if drawn.is_some() { "program" } else { "check" };
        let told = format!("the {what} has not returned after {time:?}");
        if self.lives.is_empty() {
            return format!("{told}, and nothing was crashed yet; it drew {drawn:?}");
        }
        let case = Case { lives: self.lives.clone(), failing: drawn };
        format!("{told}\n  replay: {}", cargo_line(REPLAY_VARIABLE, &case.to_string()))
    }
}
