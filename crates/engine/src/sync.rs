//! Where the engine takes locks, atomics, threads and time from: the standard library, or,
//! built with `--cfg shuttle`, a scheduler that explores the orders in which they interleave.
//!
//! Only what the commit pipeline, the background threads, checkpoints and closing wait on goes
//! through here. Locks that are held for a few instructions and never while anybody waits stay
//! with the standard library: to the scheduler, what happens under them is one step.

#[cfg(not(shuttle))]
pub(crate) use std::{
    hint,
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
    thread::ThreadId,
    time::Instant,
};

#[cfg(shuttle)]
pub(crate) use shuttle::{
    hint,
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
    thread::ThreadId,
};

#[cfg(shuttle)]
pub(crate) use time::Instant;

/// Lets the scheduler choose who is next, where what follows takes no lock of its. Nothing in a
/// build for use.
#[inline]
pub(crate) fn turn() {
    #[cfg(shuttle)]
    atomic::AtomicUsize::new(0).load(atomic::Ordering::SeqCst);
}

#[cfg(shuttle)]
mod time {
    use std::cell::Cell;
    use std::time::Duration;

    thread_local! {
        /// All threads of an exploration are one thread of the system.
        static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// A clock that goes on by being looked at, so that a schedule can be repeated and whoever
    /// waits for a time to come gets there.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Instant(Duration);

    impl Instant {
        const STEP: Duration = Duration::from_micros(10);

        pub(crate) fn now() -> Self {
            NOW.set(NOW.get() + Self::STEP);
            Self(NOW.get())
        }

        pub(crate) fn elapsed(&self) -> Duration {
            NOW.get() - self.0
        }
    }

    impl std::ops::Add<Duration> for Instant {
        type Output = Self;

        fn add(self, duration: Duration) -> Self {
            Self(self.0 + duration)
        }
    }

    impl std::ops::Sub for Instant {
        type Output = Duration;

        fn sub(self, earlier: Self) -> Duration {
            self.0.saturating_sub(earlier.0)
        }
    }
}
