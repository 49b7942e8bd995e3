//! A stable point to read at.

use std::ops::RangeBounds;
use std::sync::Arc;

use steadfast_core::{Record, Timestamp, Version, prefix_end};

use crate::merge::Select;
use crate::range::Range;
use crate::{Result, UnifiedStore};

/// What the store showed at one version, with a clock that stands still.
///
/// While a view or a clone of it lives, everything it shows is kept. It is owned: it may go
/// to other threads and outlive the handle it came from.
#[derive(Clone)]
pub struct View {
    held: Arc<Held>,
}

/// The registration of a version, ended when the last clone of its view is dropped.
struct Held {
    store: UnifiedStore,
    version: Version,
    now: Timestamp,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.store.inner.close_view(self.version);
    }
}

impl View {
    /// At a version that is registered already.
    pub(crate) fn new(store: UnifiedStore, version: Version, now: Timestamp) -> Self {
        Self { held: Arc::new(Held { store, version, now }) }
    }

    /// The newest version it shows.
    pub fn version(&self) -> Version {
        self.held.version
    }

    /// Where its clock stands.
    pub fn now(&self) -> Timestamp {
        self.held.now
    }

    pub(crate) fn store(&self) -> &UnifiedStore {
        &self.held.store
    }

    /// The value of a key, if it has one that is neither deleted nor expired.
    pub fn get(&self, key: &[u8]) -> Result<Option<Record>> {
        let newest = self.store().inner.newest_at(key, || self.version())?;
        Ok(newest.filter(|record| record.is_live(self.now())))
    }

    /// The live values of the keys within `bounds`, in key order from either end.
    pub fn range(&self, bounds: impl RangeBounds<Vec<u8>>) -> Range {
        let (lower, upper) = (bounds.start_bound().cloned(), bounds.end_bound().cloned());
        Range::new(self.clone(), Select::Live, lower, upper)
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
        Range::new(self.clone(), Select::Versions, lower, upper)
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({} at {})", self.version(), self.now())
    }
}
