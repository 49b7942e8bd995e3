//! Crash points: the places where a harness may end the process, and the call that says that
//! one of them was reached.
//!
//! Without the feature `crash-points` the call is an empty function that is always inlined: it
//! costs nothing. With it, a hook can be installed, for one thread or for all. What a hook does
//! is not known here; `steadfast-testing` has one that crashes.

use std::fmt;

macro_rules! crash_points {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A place in the life of a database where it matters what survives a crash.
        ///
        /// In the order of the layers: commits, the log, snapshots, the MANIFEST, compaction,
        /// then signals and what is derived from them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum CrashPoint {
            $($(#[$doc])* $name,)*
        }

        impl CrashPoint {
            /// Every point.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name, as it is written in the code.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

crash_points! {
    // ---- Transactions and commits (engine) ----
    /// A transaction has begun and written nothing.
    AfterBeginTxn,
    /// A transaction has taken a write into its own memory.
    AfterWrite,
    /// A transaction is about to be validated and queued.
    BeforeCommit,
    /// A commit is as durable as was asked for, and its caller has not been told yet.
    AfterCommit,

    // ---- The log (durability) ----
    /// A group of commits is about to be handed to the kernel.
    BeforeWalWrite,
    /// The kernel has a group of commits; whoever waits for a sync has not got it yet. In strict
    /// mode, where a group is durable when its write returns, there is no such moment between
    /// two calls: a simulated power cut is then tried *during* the write.
    AfterWalWriteBeforeFsync,
    /// Everything in the log is durable, and nobody has been told.
    AfterFsync,
    /// The old segment is sealed and synced, the new one has its header, and the MANIFEST does
    /// not name it yet.
    DuringSegmentRotation,

    // ---- Snapshots (durability) ----
    /// A snapshot is written and not synced. (Snapshots are not renamed: they have their final
    /// name from the start and count once the MANIFEST names them. What a rename is elsewhere,
    /// is here the sync of the file and its directories.)
    DuringSnapshotBeforeRename,
    /// A snapshot and its name are durable, and the MANIFEST does not name it yet.
    DuringSnapshotAfterRename,

    // ---- The MANIFEST (durability) ----
    /// The new MANIFEST has taken the place of the old, and the directory is not synced.
    DuringManifestUpdate,

    // ---- Compaction (durability) ----
    /// A file that nothing needs was removed, and the directory is not synced.
    DuringCompaction,

    // ---- Checkpoints (engine) ----
    /// A checkpoint has begun; nothing of it is written, and the log is not synced for it.
    CheckpointPreFlush,
    /// The MANIFEST durably names the new snapshot, and nobody has been told.
    CheckpointPostFlush,

    // ---- Signals (engine, and what folds them), and what is derived from them (engine) ----
    /// A signal is about to be written into the log.
    WalPreAggregate,
    /// A signal is in the log and not in its aggregates.
    WalPostAggregate,
    /// A signal is updated in part: some of what an observation changes is changed, some not.
    SignalAggregationUpdate,
    /// A transaction is about to count an observation for a cohort as well.
    CohortLedgerUpdate,
    /// A transaction has taken a collection, or an item of one, into its own memory. There is no
    /// index beside the items that could be without it.
    CollectionIndexUpdate,
    /// A transaction has counted a pair of items, and the eviction that follows is not done.
    CoEngagementUpdate,
}

impl CrashPoint {
    /// The point of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|point| point.name() == name)
    }
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether crash points are compiled in. No figure that is published comes from such a build.
pub const CRASH_POINTS_COMPILED_IN: bool = cfg!(feature = "crash-points");

/// Says that `point` was reached. Nothing at all without the feature `crash-points`.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub const fn check_crash_point(_point: CrashPoint) {}

#[cfg(feature = "crash-points")]
pub use hooks::{CrashHook, check_crash_point, hook_every_thread, hook_this_thread};

#[cfg(feature = "crash-points")]
mod hooks {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, PoisonError, RwLock};

    use super::CrashPoint;

    /// What is told of every crash point that is reached.
    pub trait CrashHook: Send + Sync {
        /// `point` was reached. It may end the process, or unwind.
        fn reached(&self, point: CrashPoint);
    }

    type Hook = Option<Arc<dyn CrashHook>>;

    /// How many hooks are installed: where there are none, a point costs one load.
    static INSTALLED: AtomicUsize = AtomicUsize::new(0);
    static EVERYWHERE: RwLock<Hook> = RwLock::new(None);
    thread_local! {
        static HERE: RefCell<Hook> = const { RefCell::new(None) };
    }

    fn replace(place: &mut Hook, hook: Hook) -> Hook {
        if hook.is_some() {
            INSTALLED.fetch_add(1, Ordering::AcqRel);
        }
        let old = std::mem::replace(place, hook);
        if old.is_some() {
            INSTALLED.fetch_sub(1, Ordering::AcqRel);
        }
        old
    }

    /// Tells `hook` of what the calling thread reaches, or nobody. Returns who was told before.
    pub fn hook_this_thread(hook: Hook) -> Hook {
        HERE.with(|here| replace(&mut here.borrow_mut(), hook))
    }

    /// Tells `hook` of what any thread of the process reaches, besides the thread's own hook;
    /// or nobody. Returns who was told before.
    pub fn hook_every_thread(hook: Hook) -> Hook {
        replace(&mut EVERYWHERE.write().unwrap_or_else(PoisonError::into_inner), hook)
    }

    /// Says that `point` was reached.
    #[inline]
    pub fn check_crash_point(point: CrashPoint) {
        if INSTALLED.load(Ordering::Acquire) > 0 {
            tell(point);
        }
    }

    #[cold]
    fn tell(point: CrashPoint) {
        // Neither is held while a hook runs: it may unwind, or reach further points.
        let here = HERE.try_with(|here| here.borrow().clone()).ok().flatten();
        let everywhere = EVERYWHERE.read().unwrap_or_else(PoisonError::into_inner).clone();
        here.into_iter().chain(everywhere).for_each(|hook| hook.reached(point));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_found_by_its_name() {
        assert_eq!(CrashPoint::ALL.len(), 20);
        for point in CrashPoint::ALL {
            assert_eq!(CrashPoint::from_name(point.name()), Some(*point));
        }
        assert_eq!(CrashPoint::from_name("Nowhere"), None);
    }
}
