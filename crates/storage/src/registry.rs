//! Which versions and times are being read at, and what follows from it.
//!
//! The registry holds the one number that makes commits visible, and the open views. Both
//! together give the horizon: no reader reads below it, so pruning may use it. Numbers change
//! under the lock of the views where their order matters, and are read without it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use steadfast_core::{RetentionFloor, Timestamp, Version};

use crate::chain::Limits;
use crate::rules::{Domain, Ruled, Rules};
use crate::{Error, Result, lock};

/// Versions and times in use.
#[repr(align(64))]
pub(crate) struct Registry {
    /// The newest published version.
    visible: AtomicU64,
    /// The lowest version of an open view, or else what was visible when it was last looked
    /// at. Never above a version that someone reads at, except for what [`Registry::may_drop`]
    /// has to look for.
    horizon: AtomicU64,
    /// The latest time the store was told.
    clock: AtomicU64,
    /// What had expired by then counts as deleted.
    expired_by: AtomicU64,
    /// The highest clock of a floor: no view's clock stands before it unless it asks for that.
    clock_floor: AtomicU64,
    views: Mutex<Views>,
}

/// How many views are open at a version and with a clock.
type Views = BTreeMap<(Version, Timestamp), usize>;

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            visible: AtomicU64::new(0),
            horizon: AtomicU64::new(0),
            clock: AtomicU64::new(0),
            expired_by: AtomicU64::new(0),
            clock_floor: AtomicU64::new(0),
            views: Mutex::default(),
        }
    }

    /// The newest published version.
    #[inline]
    pub(crate) fn visible(&self) -> Version {
        Version(self.visible.load(Ordering::Acquire))
    }

    /// The oldest version that someone reads at.
    #[inline]
    pub(crate) fn horizon(&self) -> Version {
        Version(self.horizon.load(Ordering::Acquire))
    }

    /// What pruning in a domain has to respect now.
    pub(crate) fn limits(&self, ruled: Ruled<'_>, tombstones_stay: bool) -> Limits {
        let Ruled { domain, may_hide, .. } = ruled;
        // The horizon first: read after it, `visible` cannot be below it. A view below the
        // floor, which is there for other domains, reads nothing in this one.
        let horizon = self.horizon().max(domain.floor().version);
        let [now, expired_by] = [&self.clock, &self.expired_by]
            .map(|clock| Timestamp::from_micros(clock.load(Ordering::Acquire)));
        let (visible, retention) = (self.visible(), domain.retention);
        Limits { retention, horizon, visible, now, expired_by, tombstones_stay, may_hide }
    }

    /// Tells the time.
    pub(crate) fn tell_time(&self, now: Timestamp) {
        self.clock.fetch_max(now.as_micros(), Ordering::AcqRel);
    }

    /// Lets what has expired count as deleted, as far as no open view looks from before that.
    pub(crate) fn let_expire(&self) {
        let views = lock::lock(&self.views);
        let oldest = views.keys().map(|(_, now)| now.as_micros()).min().unwrap_or(u64::MAX);
        let expired_by = self.clock.load(Ordering::Acquire).min(oldest);
        self.expired_by.fetch_max(expired_by, Ordering::AcqRel);
    }

    /// Shows everything up to `version` to readers.
    pub(crate) fn publish(&self, version: Version) {
        self.visible.fetch_max(version.0, Ordering::AcqRel);
        self.move_horizon(&lock::lock(&self.views));
    }

    fn move_horizon(&self, views: &Views) {
        let oldest = views.keys().next().map_or(Version::MAX, |(version, _)| *version);
        self.horizon.store(oldest.min(self.visible()).0, Ordering::Release);
    }

    /// Registers a view at the newest published version. Its clock stands at `now`, or later if
    /// something that expired later is dropped already.
    pub(crate) fn open(&self, now: Timestamp) -> (Version, Timestamp) {
        let mut views = lock::lock(&self.views);
        let floor = Timestamp::from_micros(self.clock_floor.load(Ordering::Acquire));
        let view = (self.visible(), now.max(floor));
        *views.entry(view).or_default() += 1;
        view
    }

    /// Registers a view at `version`, if it is published and something can still be read
    /// there. Returns whether everything can.
    pub(crate) fn open_at(&self, rules: &Rules, version: Version, now: Timestamp) -> Result<bool> {
        let mut views = lock::lock(&self.views);
        let newest = self.visible();
        if version > newest {
            return Err(Error::NotYet { asked: version, newest });
        }
        let readable = rules.all().filter(|domain| domain.is_readable(version, now)).count();
        if readable == 0 {
            let oldest = rules.all().map(|domain| self.oldest_readable(domain, now)).min();
            let oldest = oldest.unwrap_or(newest);
            return Err(Error::HistoryTrimmed { asked: version, oldest });
        }
        *views.entry((version, now)).or_default() += 1;
        self.move_horizon(&views);
        Ok(readable == rules.all().count())
    }

    /// The oldest version of a domain that a reader whose clock stands at `now` is sure to be
    /// able to read: if the clock is what is too old, the newest.
    pub(crate) fn oldest_readable(&self, domain: &Domain, now: Timestamp) -> Version {
        let floor = domain.floor();
        if now < floor.clock { self.visible().max(floor.version) } else { floor.version }
    }

    /// Removes a view that was registered.
    pub(crate) fn close(&self, version: Version, now: Timestamp) {
        let mut views = lock::lock(&self.views);
        let count = views.get_mut(&(version, now)).expect("a view is closed once");
        *count -= 1;
        if *count == 0 {
            views.remove(&(version, now));
        }
        self.move_horizon(&views);
    }

    /// Whether something of `domain` may be dropped that readers below `floor` would miss. If
    /// so, nobody will read below it.
    pub(crate) fn may_drop(&self, domain: &Domain, floor: RetentionFloor) -> bool {
        if domain.floor().max(floor) == domain.floor() {
            return true;
        }
        let views = lock::lock(&self.views);
        let needed_at =
            |(version, now): &(Version, Timestamp)| *version < floor.version || *now < floor.clock;
        let needed = if floor.clock == Timestamp::ZERO {
            views.keys().next().is_some_and(needed_at)
        } else {
            views.keys().any(needed_at)
        };
        if !needed {
            domain.raise(floor);
            self.clock_floor.fetch_max(floor.clock.as_micros(), Ordering::AcqRel);
        }
        !needed
    }

    /// Takes over floors from elsewhere.
    pub(crate) fn raise_floors(&self, rules: &Rules) {
        let _views = lock::lock(&self.views);
        let highest = rules.all().map(|domain| domain.floor().clock.as_micros()).max();
        self.clock_floor.fetch_max(highest.unwrap_or(0), Ordering::AcqRel);
    }

    /// How many views are open, and the version of the oldest.
    pub(crate) fn views(&self) -> (usize, Option<Version>) {
        let views = lock::lock(&self.views);
        (views.values().sum(), views.keys().next().map(|(version, _)| *version))
    }
}
