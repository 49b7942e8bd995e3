//! Bringing an opened snapshot into memory, in the background.
//!
//! The database serves reads and commits from the snapshot meanwhile. Several threads may load
//! at once, each a section at a time; whoever needs everything in memory helps, and waits for
//! the rest. Sections that are damaged are rebuilt from the older snapshot and the log, where
//! those are still there: all together, once everything else is in memory.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use steadfast_core::{Record, SortedTable, TableError};
use steadfast_durability::disk::Disk;
use steadfast_durability::layout::Layout;
use steadfast_durability::manifest::Manifest;
use steadfast_durability::snapshot::Snapshot;
use steadfast_durability::{Error as DiskError, KeyRange, Stage, rebuild, rebuild_commit_times};
use steadfast_storage::UnifiedStore;

use crate::commit::CLOSED;
use crate::commit_times::CommitTimes;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Watch;
use crate::sync::{Condvar, Instant, Mutex, MutexGuard};

/// Sections that are rebuilt with one reading of the log: what is rebuilt is held in memory twice
/// for a moment, and a section is about a MiB.
const REBUILT_AT_ONCE: usize = 64;

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
    /// Sections to be rebuilt, and what is wrong with them.
    damaged: Vec<(usize, TableError)>,
    failed: Vec<(usize, TableError)>,
    /// What is wrong with the times of commits in the snapshot.
    times: Option<TableError>,
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
        let result = store.load_section_late(section).map(drop);
        let mut state = self.lock();
        match result {
            Ok(()) => state.loaded += 1,
            Err(steadfast_storage::Error::Table(error)) if error.is_corruption() => {
                log::error!("{error}");
                state.damaged.push((section, error));
            }
            Err(steadfast_storage::Error::Table(error)) => state.failed.push((section, error)),
            Err(error) => log::error!("loading section {section}: {error}"),
        }
        // Whoever is the last one knows of all the damage, so that the log is replayed once.
        if state.active == 1 && state.taken[0] + state.taken[1] >= self.snapshot.sections() {
            let mut damaged = std::mem::take(&mut state.damaged);
            drop(state);
            damaged.sort_by_key(|damaged| damaged.0);
            for some in damaged.chunks(REBUILT_AT_ONCE) {
                self.rebuild(some, store, sources);
            }
            state = self.lock();
        }
        state.active -= 1;
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

    /// Supplies these sections, which are damaged, from the older snapshot and the log.
    fn rebuild(
        &self,
        damaged: &[(usize, TableError)],
        store: &UnifiedStore,
        sources: &Sources<'_>,
    ) {
        let rebuilt = self.rows_of(damaged, sources);
        let mut state = self.lock();
        let rebuilt = match rebuilt {
            Ok(rebuilt) => rebuilt,
            Err(why) => {
                log::error!("{}: cannot be rebuilt: {why}", damaged[0].1.file);
                state.failed.extend_from_slice(damaged);
                return;
            }
        };
        drop(state);
        for ((section, error), rows) in damaged.iter().zip(rebuilt) {
            match rows {
                Ok(rows) => {
                    store.supply_section(*section, rows);
                    log::warn!("{error}: rebuilt from the older snapshot and the log");
                    state = self.lock();
                    state.loaded += 1;
                    state.rebuilt += 1;
                }
                Err(why) => {
                    log::error!("{error}: cannot be rebuilt: {why}");
                    state = self.lock();
                    state.failed.push((*section, error.clone()));
                }
            }
            drop(state);
        }
    }

    fn rows_of(
        &self,
        damaged: &[(usize, TableError)],
        sources: &Sources<'_>,
    ) -> Result<Vec<steadfast_durability::Result<Vec<Record>>>> {
        let Sources { disk, layout, manifest } = sources;
        let manifest = &manifest()?;
        let range = |&(section, _): &(usize, TableError)| {
            let low = if section == 0 { &[][..] } else { self.snapshot.first_key(section) };
            let high = section + 1 < self.snapshot.sections();
            KeyRange { low, high: high.then(|| self.snapshot.first_key(section + 1)) }
        };
        let ranges: Vec<_> = damaged.iter().map(range).collect();
        let (number, version) = (self.snapshot.info().number, self.snapshot.meta().version);
        Ok(rebuild(*disk, layout, manifest, number, version, &ranges)?)
    }

    /// Has the times of commits in memory when it returns: where the snapshot's are damaged, from
    /// the older one and the log. If that cannot be either they are lost, and nothing else is.
    pub(crate) fn load_times(&self, times: &CommitTimes, sources: &Sources<'_>) -> Result<()> {
        let error = match times.ask(|_| ()) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() != ErrorKind::Corruption => return Err(error),
            Err(error) => self.as_table_error(&error),
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
                state.times = Some(error);
            }
        }
        Ok(())
    }

    /// Where the times of commits are damaged.
    fn as_table_error(&self, error: &Error) -> TableError {
        match error {
            Error::Corruption(DiskError::Table(error)) => error.clone(),
            error => TableError {
                file: Layout::snapshot_label(self.snapshot.info().number).into(),
                offset: 0,
                reason: error.to_string().into(),
                io: None,
            },
        }
    }

    /// What is wrong with the times of commits, if they are lost.
    pub(crate) fn lost_times(&self) -> Option<TableError> {
        self.lock().times.clone()
    }

    /// Loads what is left, and waits until everything is in memory.
    ///
    /// # Errors
    ///
    /// What is wrong with the first section that could not be loaded; it was tried again. Or
    /// what the watch says; then the rest stays to be loaded.
    pub(crate) fn finish(
        &self,
        store: &UnifiedStore,
        sources: &Sources<'_>,
        watch: Watch<'_>,
    ) -> Result<()> {
        let file_bytes = self.snapshot.info().file_bytes;
        let mut meter = watch.stage(Stage::Load, || file_bytes);
        let of_section = file_bytes / (self.snapshot.sections() as u64).max(1);
        let bytes_of = |loaded: usize| of_section * loaded as u64;
        let again: Vec<usize> = {
            let mut state = self.lock();
            let again = std::mem::take(&mut state.failed);
            state.active += again.len();
            again.into_iter().map(|(section, _)| section).collect()
        };
        again.into_iter().for_each(|section| self.load(section, store, sources));
        loop {
            meter.come_to(bytes_of(self.lock().loaded))?;
            if !self.load_next(End::Front, store, sources) {
                break;
            }
        }
        let mut state = self.lock();
        while state.active > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            let loaded = state.loaded;
            drop(state);
            meter.come_to(bytes_of(loaded))?;
            state = self.lock();
        }
        match state.failed.first() {
            None if !store.is_loaded() => return Err(CLOSED),
            Some((_, error)) => {
                return Err(steadfast_storage::Error::Table(error.clone()).into());
            }
            None => drop(state),
        }
        meter.come_to(file_bytes)?;
        meter.end()
    }

    /// Bytes of keys and values that are not in memory yet, about.
    pub(crate) fn bytes_to_load(&self) -> u64 {
        let (loaded, sections) = (self.lock().loaded as u64, self.snapshot.sections() as u64);
        let bytes = self.snapshot.info().payload_bytes / sections.max(1);
        bytes * sections.saturating_sub(loaded)
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
            times: state.times.as_ref().map(|why| format!("{why}: the times of commits are lost")),
            loaded_after: state.loaded_after,
        }
    }
}
