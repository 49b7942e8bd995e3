//! A stable point to read at.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use steadfast_core::{KeyRef, Record, Timestamp, Version, prefix_end};

use crate::merge::Select;
use crate::range::Range;
use crate::rules::Domain;
use crate::{Error, Result, UnifiedStore, lock};

/// What the store showed at one version, with a clock that stands still.
///
/// While a view or a clone of it lives, everything it shows is kept. It is owned: it may go
/// to other threads and outlive the handle it came from.
#[derive(Clone)]
pub struct View {
    held: Arc<Held>,
}

/// The registration of a version and a clock, ended when the last clone of its view is dropped.
struct Held {
    store: UnifiedStore,
    version: Version,
    now: Timestamp,
    /// Whether everything can be read here. While the view is open, that does not change.
    whole: bool,
    /// The view that it is a look through: what holds its version in place is not a registration
    /// of its own but the record of a fork, which that view shows and so keeps.
    through: Option<View>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.through.is_none() {
            self.store.inner.close_view(self.version, self.now);
        }
    }
}

impl View {
    /// At a version and with a clock that are registered already.
    pub(crate) fn new(store: UnifiedStore, version: Version, now: Timestamp, whole: bool) -> Self {
        Self { held: Arc::new(Held { store, version, now, whole, through: None }) }
    }

    #[cold]
    fn check_key(&self, key: KeyRef<'_>) -> Result<()> {
        self.check(lock::read(&self.store().inner.rules).domain(&key.to_vec()))
    }

    /// Refuses to read where something that should be seen may be gone.
    fn check(&self, domain: &Domain) -> Result<()> {
        if domain.is_readable(self.version(), self.now()) {
            return Ok(());
        }
        let oldest = self.store().inner.registry.oldest_readable(domain, self.now());
        Err(Error::HistoryTrimmed { asked: self.version(), oldest })
    }

    fn range_of(&self, select: Select, lower: Bound<Vec<u8>>, upper: Bound<Vec<u8>>) -> Range {
        let mut checked = Ok(());
        if !self.held.whole {
            let rules = lock::read(&self.store().inner.rules);
            rules.for_each_within(&lower, &upper, |domain| {
                if checked.is_ok() {
                    checked = self.check(domain);
                }
            });
        }
        let mut range = Range::new(self.clone(), select, lower, upper);
        if let Err(error) = checked {
            range.fail(error);
        }
        range
    }

    /// A look at `version`, with this view's clock: for what a fork that this view shows sees
    /// through to, and for nothing else. There it can be read whatever retention has dropped
    /// around it.
    pub fn through(&self, version: Version) -> Self {
        let (store, now, through) = (self.store().clone(), self.now(), Some(self.clone()));
        Self { held: Arc::new(Held { store, version, now, whole: true, through }) }
    }

    /// The newest version it shows.
    #[inline]
    pub fn version(&self) -> Version {
        self.held.version
    }

    /// Where its clock stands.
    #[inline]
    pub fn now(&self) -> Timestamp {
        self.held.now
    }

    /// The store that it is a view of.
    #[inline]
    pub fn store(&self) -> &UnifiedStore {
        &self.held.store
    }

    /// The value of a key, if it has one that is neither deleted nor expired.
    ///
    /// Errors, as of every read: [`HistoryTrimmed`](Error::HistoryTrimmed) if what it should see
    /// may be gone, which happens only to views that were opened in the past;
    /// [`Table`](Error::Table) if it needs a piece of the table beneath that cannot be read.
    #[inline(always)]
    pub fn get<'a>(&self, key: impl Into<KeyRef<'a>>) -> Result<Option<Record>> {
        let key = key.into();
        if !self.held.whole {
            self.check_key(key)?;
        }
        let newest = self.store().inner.newest_at(key, || self.version())?;
        Ok(newest.filter(|record| record.is_live(self.now())))
    }

    /// The newest version of a key, also if that is a deletion or has expired.
    pub fn newest<'a>(&self, key: impl Into<KeyRef<'a>>) -> Result<Option<Record>> {
        let key = key.into();
        if !self.held.whole {
            self.check_key(key)?;
        }
        self.store().inner.newest_at(key, || self.version())
    }

    /// The newest version of a key at `version`, also if that is a deletion or has expired: as
    /// [`View::through`] says, for what a fork sees through to.
    pub fn newest_through(&self, key: &[u8], version: Version) -> Result<Option<Record>> {
        self.store().inner.newest_at(key.into(), || version)
    }

    /// The newest versions of the keys within `bounds`, in key order from either end, also where
    /// that is a deletion that is still kept or has expired.
    pub fn range_newest(&self, bounds: impl RangeBounds<Vec<u8>>) -> Range {
        let (lower, upper) = (bounds.start_bound().cloned(), bounds.end_bound().cloned());
        self.range_of(Select::Newest, lower, upper)
    }

    /// The live values of the keys within `bounds`, in key order from either end.
    pub fn range(&self, bounds: impl RangeBounds<Vec<u8>>) -> Range {
        let (lower, upper) = (bounds.start_bound().cloned(), bounds.end_bound().cloned());
        self.range_of(Select::Live, lower, upper)
    }

    /// The live values of the keys that begin with `prefix`, in key order from either end.
    pub fn prefix(&self, prefix: &[u8]) -> Range {
        match prefix_end(prefix) {
            _ if prefix.is_empty() => self.range(..),
            Some(end) => self.range(prefix.to_vec()..end),
            None => self.range(prefix.to_vec()..),
        }
    }

    /// Every kept version of a key up to the view's, newest first: tombstones and expired
    /// values too.
    pub fn versions(&self, key: &[u8]) -> Result<Vec<Record>> {
        self.range_versions(key.to_vec()..=key.to_vec()).collect()
    }

    /// Every kept version up to the view's of every key within `bounds`, in key order, newest
    /// first within a key: tombstones and expired values too. (From its back end, all of it
    /// the other way round.)
    pub fn range_versions(&self, bounds: impl RangeBounds<Vec<u8>>) -> Range {
        let (lower, upper) = (bounds.start_bound().cloned(), bounds.end_bound().cloned());
        self.range_of(Select::Versions, lower, upper)
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({} at {})", self.version(), self.now())
    }
}
