//! Which versions are being read at, and what follows from it.
//!
//! The registry holds the one number that makes commits visible, and the open views. Both
//! together give the horizon: no reader reads below it, so pruning may use it. Numbers change
//! under the lock of the views where their order matters, and are read without it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use steadfast_core::{Retention, Version};

use crate::chain::Limits;
use crate::{Error, Result, lock};

/// Versions in use.
#[repr(align(64))]
pub(crate) struct Registry {
    retention: Retention,
    /// The newest published version.
    visible: AtomicU64,
    /// The lowest version of an open view, or else what was visible when it was last looked
    /// at. Never above a version that someone reads at, now or later.
    horizon: AtomicU64,
    /// The highest version by which something dropped had been superseded: readers below it
    /// would miss that. Only rises; checked against the open views before it does.
    floor: AtomicU64,
    views: Mutex<BTreeMap<Version, usize>>,
}

impl Registry {
    pub(crate) fn new(retention: Retention) -> Self {
        Self {
            retention,
            visible: AtomicU64::new(0),
            horizon: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            views: Mutex::default(),
        }
    }

    /// The newest published version.
    #[inline]
    pub(crate) fn visible(&self) -> Version {
        Version(self.visible.load(Ordering::Acquire))
    }

    /// No reader reads below this.
    #[inline]
    pub(crate) fn horizon(&self) -> Version {
        Version(self.horizon.load(Ordering::Acquire))
    }

    /// What pruning has to respect now.
    pub(crate) fn limits(&self, tombstones_stay: bool) -> Limits {
        // The horizon first: read after it, `visible` cannot be below it.
        let horizon = self.horizon();
        Limits { retention: self.retention, horizon, visible: self.visible(), tombstones_stay }
    }

    /// Shows everything up to `version` to readers.
    pub(crate) fn publish(&self, version: Version) {
        self.visible.fetch_max(version.0, Ordering::AcqRel);
        self.move_horizon(&lock::lock(&self.views));
    }

    fn move_horizon(&self, views: &BTreeMap<Version, usize>) {
        let oldest = views.keys().next().copied().unwrap_or(Version::MAX);
        self.horizon.store(oldest.min(self.visible()).0, Ordering::Release);
    }

    /// Registers a view at the newest published version.
    pub(crate) fn open(&self) -> Version {
        let mut views = lock::lock(&self.views);
        let version = self.visible();
        *views.entry(version).or_default() += 1;
        version
    }

    /// Registers a view at `version`, if it is published and nothing it needs is gone.
    pub(crate) fn open_at(&self, version: Version) -> Result<()> {
        let mut views = lock::lock(&self.views);
        let newest = self.visible();
        if version > newest {
            return Err(Error::NotYet { asked: version, newest });
        }
        let oldest = self.oldest_readable();
        if version < oldest {
            return Err(Error::HistoryTrimmed { asked: version, oldest });
        }
        *views.entry(version).or_default() += 1;
        self.move_horizon(&views);
        Ok(())
    }

    pub(crate) fn oldest_readable(&self) -> Version {
        let floor = Version(self.floor.load(Ordering::Acquire));
        if self.limits(false).horizon_is_the_oldest_readable() {
            return floor.max(self.horizon());
        }
        floor
    }

    /// Removes a view that was registered at `version`.
    pub(crate) fn close(&self, version: Version) {
        let mut views = lock::lock(&self.views);
        let count = views.get_mut(&version).expect("a view is closed once");
        *count -= 1;
        if *count == 0 {
            views.remove(&version);
        }
        self.move_horizon(&views);
    }

    /// Whether what `superseder` superseded may be dropped; no view will be opened below it
    /// if so.
    pub(crate) fn may_drop_below(&self, superseder: Version) -> bool {
        if self.floor.load(Ordering::Acquire) >= superseder.0
            || self.limits(false).horizon_is_the_oldest_readable()
        {
            return true;
        }
        let views = lock::lock(&self.views);
        let needed = views.keys().next().is_some_and(|oldest| *oldest < superseder);
        if !needed {
            self.floor.fetch_max(superseder.0, Ordering::AcqRel);
        }
        !needed
    }

    /// Lets no view be opened below `version` from now on. For replay, before anything is
    /// published: no reader can have seen what it drops.
    pub(crate) fn raise_floor(&self, version: Version) {
        self.floor.fetch_max(version.0, Ordering::AcqRel);
    }

    /// How many views are open, and the version of the oldest.
    pub(crate) fn views(&self) -> (usize, Option<Version>) {
        let views = lock::lock(&self.views);
        (views.values().sum(), views.keys().next().copied())
    }
}
