//! [`CrashInjector`]: ends the process, or the code under test, at a chosen [`CrashPoint`].
//!
//! Around one's own code:
//!
//! ```
//! use steadfast_engine::Database;
//! use steadfast_testing::injector::{CrashInjector, CrashPoint, run_with_crash};
//!
//! let injector = CrashInjector::new(CrashPoint::BeforeCommit, 1);
//! let crashed = run_with_crash(&injector, || {
//!     let db = Database::in_memory()?;
//!     let run = db.create_run("run")?; // the first commit passes
//!     db.kv_put(run, "key", 1) // the second does not
//! });
//! assert_eq!(crashed.err(), Some(CrashPoint::BeforeCommit));
//! ```
//!
//! Where values must not be dropped as if nothing had happened, the database stands on a
//! [`CrashDisk`](crate::crash_disk::CrashDisk), which [`CrashInjector::on_fire`] cuts off first.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use steadfast_core::{CRASH_POINTS_COMPILED_IN, CrashPoint, check_crash_point};
use steadfast_core::{CrashHook, hook_every_thread, hook_this_thread};

use crate::death::CrashType;

/// Crashes once, when its point was crossed often enough.
///
/// It is armed when it is made: an injector that somebody forgot to arm would let every test
/// pass.
pub struct CrashInjector {
    target: CrashPoint,
    fire_after_n: u64,
    crossings: AtomicU64,
    armed: AtomicBool,
    fired: AtomicBool,
    how: How,
    on_fire: Option<Box<dyn Fn() + Send + Sync>>,
}

enum How {
    /// Unwinds with a payload that [`run_with_crash`] knows.
    Unwind,
    /// Ends the process.
    Die(CrashType),
}

impl std::fmt::Debug for CrashInjector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CrashInjector")
            .field("target", &self.target)
            .field("fire_after_n", &self.fire_after_n)
            .field("crossings", &self.crossing_count())
            .field("fired", &self.has_fired())
            .finish_non_exhaustive()
    }
}

/// What unwinds: of which injector.
struct Crash(usize);

impl CrashInjector {
    /// Unwinds out of [`run_with_crash`] when `target` is reached after `fire_after_n` other
    /// crossings: with 0, at the first.
    pub fn new(target: CrashPoint, fire_after_n: u64) -> Arc<Self> {
        Arc::new(Self::make(target, fire_after_n, How::Unwind, None))
    }

    /// As [`CrashInjector::new`], and `on_fire` is called first, at the point itself.
    pub fn on_fire(
        target: CrashPoint,
        fire_after_n: u64,
        on_fire: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self::make(target, fire_after_n, How::Unwind, Some(Box::new(on_fire))))
    }

    /// Ends the process itself, by the signal of `crash`: for a child that is to die.
    ///
    /// # Panics
    ///
    /// For [`CrashType::PowerLoss`], which is simulated.
    pub fn dying(target: CrashPoint, fire_after_n: u64, crash: CrashType) -> Arc<Self> {
        assert_ne!(crash, CrashType::PowerLoss, "a power cut happens on a simulated disk");
        Arc::new(Self::make(target, fire_after_n, How::Die(crash), None))
    }

    fn make(
        target: CrashPoint,
        fire_after_n: u64,
        how: How,
        on_fire: Option<Box<dyn Fn() + Send + Sync>>,
    ) -> Self {
        Self {
            target,
            fire_after_n,
            crossings: AtomicU64::new(0),
            armed: AtomicBool::new(true),
            fired: AtomicBool::new(false),
            how,
            on_fire,
        }
    }

    /// Lets it fire, once more if it has. Counts crossings anew unless it was armed.
    pub fn arm(&self) {
        if !self.armed.load(Ordering::Acquire) {
            self.crossings.store(0, Ordering::Release);
            self.fired.store(false, Ordering::Release);
            self.armed.store(true, Ordering::Release);
        }
    }

    /// Lets it neither fire nor count.
    pub fn disarm(&self) {
        self.armed.store(false, Ordering::Release);
    }

    /// Whether it crashed.
    pub fn has_fired(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }

    /// How often its point was crossed while it was armed, the crash included.
    pub fn crossing_count(&self) -> u64 {
        self.crossings.load(Ordering::Acquire)
    }

    /// The point that it waits for.
    pub const fn target(&self) -> CrashPoint {
        self.target
    }

    /// `point` was reached: crashes if it is the time. Where it is installed, the engine calls
    /// this; code of one's own may call it, or [`check_crash_point`], too.
    pub fn maybe_crash(&self, point: CrashPoint) {
        if point != self.target || !self.armed.load(Ordering::Acquire) {
            return;
        }
        let before = self.crossings.fetch_add(1, Ordering::AcqRel);
        // Of several threads only one gets to disarm it.
        if before < self.fire_after_n || !self.armed.swap(false, Ordering::AcqRel) {
            return;
        }
        self.fired.store(true, Ordering::Release);
        if let Some(on_fire) = &self.on_fire {
            on_fire();
        }
        match self.how {
            How::Die(crash) => crash.die(),
            // Without the message of a panic: nothing is wrong.
            How::Unwind => resume_unwind(Box::new(Crash(self.identity()))),
        }
    }

    fn identity(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl CrashHook for CrashInjector {
    fn reached(&self, point: CrashPoint) {
        self.maybe_crash(point);
    }
}

/// Has `injector` see what the calling thread reaches, in the place of another one.
pub fn install_injector(injector: &Arc<CrashInjector>) {
    hook_this_thread(Some(injector.clone()));
}

/// Nothing crashes in the calling thread any more.
pub fn clear_injector() {
    hook_this_thread(None);
}

/// Has `injector` see what any thread of this process reaches, the database's own threads
/// included, in the place of another one. A thread's own injector goes first.
///
/// An unwinding injector ends only the thread that reaches the point; the others find the log
/// closed, and errors. In a child that is to die as a whole, [`CrashInjector::dying`] is right.
pub fn install_injector_everywhere(injector: &Arc<CrashInjector>) {
    hook_every_thread(Some(injector.clone()));
}

/// Nothing crashes in threads without an injector of their own any more.
pub fn clear_injector_everywhere() {
    hook_every_thread(None);
}

/// Runs `work` with `injector` installed in this thread. `Err` if it fired, on this thread or,
/// where it is installed everywhere, on another. Any other panic goes on.
pub fn run_with_crash<T>(
    injector: &Arc<CrashInjector>,
    work: impl FnOnce() -> T,
) -> Result<T, CrashPoint> {
    struct Restore(Option<Arc<dyn CrashHook>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            hook_this_thread(self.0.take());
        }
    }
    let fired_before = injector.has_fired();
    let done = {
        let _restore = Restore(hook_this_thread(Some(injector.clone())));
        catch_unwind(AssertUnwindSafe(work))
    };
    match done {
        Ok(_) if injector.has_fired() && !fired_before => Err(injector.target),
        Ok(value) => Ok(value),
        Err(panic) => match panic.downcast_ref::<Crash>() {
            Some(Crash(of)) if *of == injector.identity() => Err(injector.target),
            _ => resume_unwind(panic),
        },
    }
}
