//! What a store holds and what it takes.

use steadfast_core::Version;

use crate::beneath::LoadProgress;
use crate::store::Inner;

/// Figures of a store. Bytes on the heap are an estimate: capacities of every table, and for
/// each allocation what a general-purpose allocator adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Keys that have a version, live or not.
    pub entries: usize,
    /// Versions of all keys, tombstones included.
    pub versions: usize,
    /// Bytes of the keys and encoded values of all versions.
    pub payload_bytes: usize,
    /// Bytes on the heap, payload included.
    pub heap_bytes: usize,
    /// Bytes on the heap beyond the payload.
    pub overhead_bytes: usize,
    /// Views that are open.
    pub open_views: usize,
    /// The version of the oldest open view.
    pub oldest_view: Option<Version>,
    /// Keys with something that is dropped only when a view is.
    pub garbage: usize,
    /// What of the table beneath is in memory; the rest is in none of these figures.
    pub loading: LoadProgress,
}

impl StoreStats {
    pub(crate) fn of(store: &Inner) -> Self {
        let (mut entries, mut versions, mut payload_bytes, mut heap_bytes) = (0, 0, 0, 0);
        heap_bytes += store.directory.for_each_leaf(|leaf| {
            entries += leaf.len();
            versions += leaf.versions();
            payload_bytes += leaf.payload_bytes();
            heap_bytes += leaf.heap_bytes();
        });
        heap_bytes += store.points.heap_bytes();
        let (open_views, oldest_view) = store.registry.views();
        Self {
            entries,
            versions,
            payload_bytes,
            heap_bytes,
            overhead_bytes: heap_bytes - payload_bytes,
            open_views,
            oldest_view,
            garbage: store.garbage.len(),
            loading: store.beneath.progress(),
        }
    }
}
