//! Taking sections of the table beneath into memory.
//!
//! A section's rows are in order already, so they are laid into the leaves part by part: where
//! memory has nothing, leaves are built of them as they are. Readers and commits wait for one
//! part at most.

use steadfast_core::{Record, SortedTable};

use crate::beneath::LoadProgress;
use crate::store::Inner;
use crate::{Result, lock};

/// Records that go in under one lock of a region: about a millisecond's worth.
const PART: usize = if cfg!(test) { 16 } else { 4096 };

/// What loading a section did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadedSection {
    /// Rows that came in; 0 if the section was loaded already.
    pub rows: usize,
    /// How far the table is loaded with it.
    pub progress: LoadProgress,
}

impl Inner {
    /// Takes in the rows of a section, which `read` gives.
    pub(crate) fn load(
        &self,
        section: usize,
        read: impl FnOnce(&dyn SortedTable) -> Result<Vec<Record>>,
    ) -> Result<LoadedSection> {
        let mut rows = 0;
        if let Some(sections) = self.beneath.sections() {
            // Who comes second waits, and finds it loaded.
            let _loading = lock::lock(sections.loading(section));
            if !sections.is_loaded(section) {
                let records = read(&*sections.table)?;
                rows = records.len();
                self.points.expect(rows * self.beneath.progress().sections);
                self.insert_section(records);
                if self.beneath.mark_loaded(&sections, section, rows) {
                    self.garbage.let_tombstones_stay(false);
                    self.prune_waiting(usize::MAX);
                }
            }
        }
        Ok(LoadedSection { rows, progress: self.beneath.progress() })
    }

    fn insert_section(&self, mut records: Vec<Record>) {
        let order = |a: &Record, b: &Record| {
            a.key().cmp(b.key()).then_with(|| b.version().cmp(&a.version()))
        };
        if !records.is_sorted_by(|a, b| order(a, b).is_lt()) {
            records.sort_by(order);
        }
        // Insertion wants the versions of a key as commits wrote them.
        records.chunk_by_mut(|a, b| a.key() == b.key()).for_each(<[Record]>::reverse);
        let mut rest = records.into_iter();
        while let Some(last) = rest.as_slice().get(..PART.min(rest.len())).and_then(<[_]>::last) {
            // The versions of a key stay together: readers see all of them or none.
            let after = &rest.as_slice()[PART.min(rest.len())..];
            let more = after.iter().take_while(|record| record.key() == last.key()).count();
            let part = PART.min(rest.len()) + more;
            self.insert_sorted(rest.by_ref().take(part));
        }
    }
}
