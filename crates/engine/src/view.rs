//! A stable point in the history of a database, to read at.

use std::collections::VecDeque;
use std::sync::Arc;

use steadfast_core::{KeyRef, Record, Timestamp, Version, prefix_end};

use crate::error::{Error, Result};
use crate::fork::{Committed, get_beneath, layers_at};
use crate::namespaces::Namespaces;
use crate::runs::{Run, RunInfo, note_found};
use crate::source::{Rows, Source};

/// A stable point in version and in time: what is committed, or expires, after a view was
/// opened does not change what it shows.
///
/// Views never block writers and are not blocked by them. While one is open, the versions it
/// shows are kept in memory.
#[derive(Clone)]
pub struct View {
    pub(crate) inner: steadfast_storage::View,
    pub(crate) namespaces: Arc<Namespaces>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({})", self.version())
    }
}

impl View {
    /// The newest version it shows.
    pub fn version(&self) -> Version {
        self.inner.version()
    }

    /// The time at which it looks: what expires by then is not shown.
    pub fn now(&self) -> Timestamp {
        self.inner.now()
    }
}

impl Source for &View {
    #[inline]
    fn check_run(&self, run: Run) -> Result<()> {
        check_live_at(&self.namespaces, run, || self.version())
    }

    fn found_run(&self, namespaces: &Namespaces, info: &RunInfo) -> Result<()> {
        note_found(&self.inner, namespaces, info)
    }

    #[inline(always)]
    fn record(&mut self, key: KeyRef<'_>) -> Result<Option<Record>> {
        match self.inner.get(key)? {
            None if self.namespaces.has_ancestors(key.namespace()) => {
                get_beneath(&self.inner, &self.namespaces, key)
            }
            found => Ok(found),
        }
    }

    fn rows(&mut self, start: Vec<u8>, end: Option<Vec<u8>>) -> Rows {
        let layers = layers_at(&self.inner, &self.namespaces, &start);
        let committed = Committed::new(&self.inner, layers, start, end);
        Rows::new(committed, VecDeque::new(), self.now())
    }

    fn last_event(&mut self, prefix: &[u8]) -> Result<Option<Record>> {
        self.rows(prefix.to_vec(), prefix_end(prefix)).next_back().transpose()
    }
}

pub(crate) fn range(
    view: &steadfast_storage::View,
    start: Vec<u8>,
    end: Option<Vec<u8>>,
) -> steadfast_storage::Range {
    match end {
        Some(end) => view.range(start..end),
        None => view.range(start..),
    }
}

/// Refuses to write to what is not a run any more, or is about not to be.
#[inline]
pub(crate) fn check_live(namespaces: &Namespaces, run: Run) -> Result<()> {
    check_live_at(namespaces, run, || Version::MAX)
}

/// Refuses what was not a run at `version`.
#[inline(always)]
pub(crate) fn check_live_at(
    namespaces: &Namespaces,
    run: Run,
    version: impl FnOnce() -> Version,
) -> Result<()> {
    match namespaces.is_live(run.namespace, run.id, version) {
        true => Ok(()),
        false => Err(no_such_run(run)),
    }
}

#[cold]
pub(crate) fn no_such_run(run: Run) -> Error {
    Error::NotFound(format!("there is no run {} in this database", run.id))
}
