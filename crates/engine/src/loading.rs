//! Bringing an opened snapshot into memory, in the background.
//!
//! The database serves reads and commits from the snapshot meanwhile. Several threads may load
//! at once, each a section at a time; whoever needs everything in memory helps, and waits for
//! the rest. A section that is damaged is rebuilt from the older snapshot and the log, where
//! those are still there.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use steadfast_core::{SortedTable, TableError};
use steadfast_durability::disk::Disk;
use steadfast_durability::layout::Layout;
use steadfast_durability::manifest::Manifest;
use steadfast_durability::snapshot::Snapshot;
use steadfast_durability::{rebuild, rebuild_commit_times};
use steadfast_storage::UnifiedStore;

use crate::commit::CLOSED;
use crate::commit_times::CommitTimes;
use crate::error::{ErrorKind, Result};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard};

/// How far loading has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LoadStats {
    /// Sections of the snapshot that was opened.
    pub sections: usize,
    /// Those in memory.
    pub loaded: usize,
    /// Those that were damaged and rebuilt from the older snapshot and the log.
    pub rebuilt: usize,
    /// What is wrong with those that could not be loaded.
    pub failed: Vec<String>,
    /// Why the times of older commits are lost, if they are.
    pub times: Option<String>,
    /// How long after opening began the last section was in memory; `None` before that.
    pub loaded_after: Option<Duration>,
}

/// The loading of one snapshot.
#[derive(Debug)]
pub(crate) struct Loading {
    snapshot: Arc<Snapshot>,
    started: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Sections taken from the front, and from the back.
    taken: [usize; 2],
    active: usize,
    loaded: usize,
    rebuilt: usize,
    failed: Vec<(usize, TableError)>,
    /// What is wrong with the times of commits in the snapshot.
    times: Option<String>,
    loaded_after: Option<Duration>,
}

/// From which end of the snapshot to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Front,
    Back,
}

/// What a damaged section is rebuilt from.
pub(crate) struct Sources<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) layout: &'a Layout,
    /// Says what the MANIFEST is then: it is only asked for where something is damaged.
    pub(crate) manifest: &'a (dyn Fn() -> Result<Manifest> + Sync),
}

impl Loading {
    pub(crate) fn new(snapshot: Arc<Snapshot>, started: Instant) -> Self {
        Self { snapshot, started, state: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The snapshot that is loaded.
    pub(crate) const fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Loads one section that nobody has begun, the first or the last of those: two threads
    /// that take neighbours would wait for each other's part of the store. Returns whether
    /// there was one.
    pub(crate) fn load_next(&self, end: End, store: &UnifiedStore, sources: &Sources<'_>) -> bool {
        let mut state = self.lock();
        let [front, back] = state.taken;
        if front + back >= self.snapshot.sections() {
            self.note_if_done(&mut state, store);
            return false;
        }
        let section = match end {
            End::Front => front,
            End::Back => self.snapshot.sections() - 1 - back,
        };
        state.taken[end as usize] += 1;
        state.active += 1;
        drop(state);
        self.load(section, store, sources);
        true
    }

    fn load(&self, section: usize, store: &UnifiedStore, sources: &Sources<'_>) {
        let mut rebuilt = 0;
        let mut result = store.load_section(section).map(drop);
        if let Err(steadfast_storage::Error::Table(error)) = result.clone()
            && error.is_corruption()
        {
            log::error!("{error}");
            match self.rebuild(section, sources) {
                Ok(rows) => {
                    store.supply_section(section, rows);
                    result = Ok(());
                    rebuilt = 1;
                    log::warn!("{}: rebuilt from the older snapshot and the log", error.file);
                }
                Err(why) => log::error!("{}: cannot be rebuilt: {why}", error.file),
            }
        }
        let mut state = self.lock();
        state.active -= 1;
        match result {
            Ok(()) => {
                state.loaded += 1;
                state.rebuilt += rebuilt;
            }
            Err(steadfast_storage::Error::Table(error)) => state.failed.push((section, error)),
            Err(error) => log::error!("loading section {section}: {error}"),
        }
        self.note_if_done(&mut state, store);
        drop(state);
        self.changed.notify_all();
    }

    fn note_if_done(&self, state: &mut State, store: &UnifiedStore) {
        if store.is_loaded() && state.loaded_after.is_none() {
            state.loaded_after = Some(self.started.elapsed());
            log::info!("loaded {} sections", self.snapshot.sections());
        }
    }

    fn rebuild(
        &self,
        section: usize,
        sources: &Sources<'_>,
    ) -> Result<Vec<steadfast_core::Record>> {
        let Sources { disk, layout, manifest } = sources;
        let manifest = &manifest()?;
        let low = if section == 0 { &[][..] } else { self.snapshot.first_key(section) };
        let high = section + 1 < self.snapshot.sections();
        let high = high.then(|| self.snapshot.first_key(section + 1));
        let (number, version) = (self.snapshot.info().number, self.snapshot.meta().version);
        Ok(rebuild(*disk, layout, manifest, number, version, low, high)?)
    }

    /// Has the times of commits in memory when it returns: where the snapshot's are damaged, from
    /// the older one and the log. If that cannot be either they are lost, and nothing else is.
    pub(crate) fn load_times(&self, times: &CommitTimes, sources: &Sources<'_>) -> Result<()> {
        let error = match times.ask(|_| ()) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() != ErrorKind::Corruption => return Err(error),
            Err(error) => error.to_string(),
        };
        let Sources { disk, layout, manifest } = sources;
        let (number, version) = (self.snapshot.info().number, self.snapshot.meta().version);
        let rebuilt = manifest().and_then(|manifest| {
            let rebuilt = rebuild_commit_times(*disk, layout, &manifest, number, version)?;
            times.supply_older(&rebuilt.encoded, rebuilt.behind)
        });
        let mut state = self.lock();
        match rebuilt {
            Ok(()) => {
                log::warn!("{error}: rebuilt from the older snapshot and the log");
                state.rebuilt += 1;
            }
            Err(why) if why.kind() != ErrorKind::Corruption => {
                return Err(why);
            }
            Err(why) => {
                log::error!("{error}: the times of commits are lost: {why}");
                times.forget_older();
                state.times = Some(format!("{error}: the times of commits are lost"));
            }
        }
        Ok(())
    }

    /// Loads what is left, and waits until everything is in memory.
    ///
    /// # Errors
    ///
    /// What is wrong with the first section that could not be loaded; it was tried again.
    pub(crate) fn finish(
        &self,
        store: &UnifiedStore,
        sources: &Sources<'_>,
        stopping: &AtomicBool,
    ) -> Result<()> {
        let again: Vec<usize> = {
            let mut state = self.lock();
            let again = std::mem::take(&mut state.failed);
            state.active += again.len();
            again.into_iter().map(|(section, _)| section).collect()
        };
        again.into_iter().for_each(|section| self.load(section, store, sources));
        while !stopping.load(Ordering::Acquire) && self.load_next(End::Front, store, sources) {}
        let mut state = self.lock();
        while state.active > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match state.failed.first() {
            None if !store.is_loaded() => Err(CLOSED),
            Some((_, error)) => Err(steadfast_storage::Error::Table(error.clone()).into()),
            None => Ok(()),
        }
    }

    /// The sections that could not be loaded.
    pub(crate) fn failed(&self) -> Vec<usize> {
        self.lock().failed.iter().map(|(section, _)| *section).collect()
    }

    /// Whether a section was damaged.
    pub(crate) fn found_damage(&self) -> bool {
        let state = self.lock();
        state.rebuilt > 0
            || state.times.is_some()
            || state.failed.iter().any(|(_, error)| error.is_corruption())
    }

    pub(crate) fn stats(&self) -> LoadStats {
        let state = self.lock();
        let failed = state.failed.iter().map(|(_, error)| error.to_string());
        LoadStats {
            sections: self.snapshot.sections(),
            loaded: state.loaded,
            rebuilt: state.rebuilt,
            failed: failed.collect(),
            times: state.times.clone(),
            loaded_after: state.loaded_after,
        }
    }
}
