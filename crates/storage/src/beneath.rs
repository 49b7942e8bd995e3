//! A sorted table beneath the store, which answers for what memory does not hold yet.
//!
//! Memory is above the table: what it knows of a key up to a version is newer than anything the
//! table does. So a read looks into memory first and asks the table only for what it did not
//! find there. Meanwhile the section may be loaded, and from then on memory alone is right:
//! rows leave it that the table still has. Hence every read keeps to one order:
//!
//! 1. ask whether there is a table ([`Beneath::sections`]); if not, memory has everything;
//! 2. read memory;
//! 3. ask whether the section is loaded ([`Sections::is_loaded`]); if so, read memory again and
//!    believe it; if not, lay what memory said over what the table says.
//!
//! Why that is enough: a section is marked (release) after its rows are in, so whoever sees the
//! mark (acquire) finds the rows in memory. And a row that hides one of the table leaves memory
//! only after every section is marked, so whoever missed it because it had left, which the lock
//! of its leaf has ordered after the mark, sees the mark. The same holds for the table as a
//! whole.
//!
//! What replay has to fold into a row of the table waits beside the section that has the row,
//! and a section with something waiting is loaded before it is read.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use steadfast_core::{Place, Record, SortedTable};

use crate::lock;

/// The place of the table.
pub(crate) struct Beneath {
    /// Whether there is a table: all that most reads ask for.
    attached: AtomicBool,
    sections: ArcSwapOption<Sections>,
    /// How much there was to load, and how much is: these stay when the table is gone.
    total: AtomicUsize,
    loaded: AtomicUsize,
    /// Those whose rows are in the leaves at least.
    laid: AtomicUsize,
    rows: AtomicUsize,
}

/// A table and what is loaded of it.
pub(crate) struct Sections {
    pub table: Arc<dyn SortedTable>,
    states: Box<[SectionState]>,
}

#[derive(Default)]
struct SectionState {
    /// Held by who loads it: whether its rows are in the leaves.
    laid: Mutex<bool>,
    loaded: AtomicBool,
    /// Whether anything is in `deltas`.
    waiting: AtomicBool,
    /// What is to be folded into its rows, in the order of versions.
    deltas: Mutex<Vec<Record>>,
}

/// How far the table beneath a store has been loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LoadProgress {
    /// Sections of the table; 0 if there never was one.
    pub sections: usize,
    /// Sections that are in memory.
    pub sections_loaded: usize,
    /// Rows that were in them.
    pub rows_loaded: usize,
}

impl Beneath {
    /// Nothing.
    pub(crate) fn new() -> Self {
        Self {
            attached: AtomicBool::new(false),
            sections: ArcSwapOption::empty(),
            total: AtomicUsize::new(0),
            loaded: AtomicUsize::new(0),
            laid: AtomicUsize::new(0),
            rows: AtomicUsize::new(0),
        }
    }

    /// Puts a table in place.
    ///
    /// # Panics
    ///
    /// If there is or was one.
    pub(crate) fn attach(&self, table: Arc<dyn SortedTable>) {
        let total = table.sections();
        let before = self.total.swap(total, Ordering::AcqRel);
        assert!(before == 0, "a store gets one table");
        if total > 0 {
            let states = (0..total).map(|_| SectionState::default()).collect();
            self.sections.store(Some(Arc::new(Sections { table, states })));
            self.attached.store(true, Ordering::Release);
        }
    }

    /// Whether memory alone answers everything.
    #[inline]
    pub(crate) fn is_nothing(&self) -> bool {
        !self.attached.load(Ordering::Acquire)
    }

    /// The table, as long as not all of it is loaded. To be asked before memory is read.
    #[inline]
    pub(crate) fn sections(&self) -> Option<Arc<Sections>> {
        if self.is_nothing() {
            return None;
        }
        self.sections.load_full()
    }

    /// Counts a section whose rows are in the leaves. Returns whether it was the last one.
    pub(crate) fn count_laid(&self, sections: &Sections, rows: usize) -> bool {
        self.rows.fetch_add(rows, Ordering::AcqRel);
        self.laid.fetch_add(1, Ordering::AcqRel) + 1 == sections.states.len()
    }

    /// Marks a section whose rows are all in memory. Returns whether it was the last one.
    pub(crate) fn mark_loaded(&self, sections: &Sections, section: usize) -> bool {
        sections.states[section].loaded.store(true, Ordering::Release);
        self.loaded.fetch_add(1, Ordering::AcqRel) + 1 == sections.states.len()
    }

    /// Lets go of the table, all of whose sections are marked.
    pub(crate) fn let_go(&self) {
        self.attached.store(false, Ordering::Release);
        self.sections.store(None);
    }

    pub(crate) fn progress(&self) -> LoadProgress {
        LoadProgress {
            sections: self.total.load(Ordering::Acquire),
            sections_loaded: self.loaded.load(Ordering::Acquire),
            rows_loaded: self.rows.load(Ordering::Acquire),
        }
    }
}

impl Sections {
    /// Whether memory has all rows of a section. To be asked after memory was read.
    pub(crate) fn is_loaded(&self, section: usize) -> bool {
        self.states[section].loaded.load(Ordering::Acquire)
    }

    /// Whether something is to be folded into rows of a section that is not loaded yet.
    pub(crate) fn has_waiting(&self, section: usize) -> bool {
        self.states[section].waiting.load(Ordering::Acquire) && !self.is_loaded(section)
    }

    /// Leaves a delta until the section is loaded in which its key lies.
    pub(crate) fn leave_delta(&self, delta: Record) {
        let state = &self.states[self.section_at(Place::At(delta.key()))];
        lock::lock(&state.deltas).push(delta);
        state.waiting.store(true, Ordering::Release);
    }

    /// Takes what is to be folded into the rows of a section, which are being loaded.
    pub(crate) fn take_deltas(&self, section: usize) -> Vec<Record> {
        std::mem::take(&mut *lock::lock(&self.states[section].deltas))
    }

    /// What is locked by who loads a section: whether its rows are in the leaves.
    pub(crate) fn laid(&self, section: usize) -> &Mutex<bool> {
        &self.states[section].laid
    }

    /// The section that is responsible for a place.
    pub(crate) fn section_at(&self, place: Place<'_>) -> usize {
        match place {
            Place::First => 0,
            Place::Last => self.states.len() - 1,
            Place::At(key) => self.table.section_of(key),
            Place::Below(key) => {
                let section = self.table.section_of(key);
                let begins_there = section > 0 && self.table.first_key(section) == key;
                section - usize::from(begins_there)
            }
        }
    }

    /// The first key that a section is responsible for.
    pub(crate) fn low_of(&self, section: usize) -> &[u8] {
        if section == 0 { &[] } else { self.table.first_key(section) }
    }

    /// The first key of the next section, if there is one.
    pub(crate) fn high_of(&self, section: usize) -> Option<&[u8]> {
        (section + 1 < self.states.len()).then(|| self.table.first_key(section + 1))
    }
}
