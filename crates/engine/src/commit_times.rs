//! The times of commits: those made since the snapshot was opened in memory, the older ones
//! read from the snapshot when somebody asks for them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use steadfast_core::{Timestamp, Version};
use steadfast_durability::snapshot::Snapshot;

use crate::error::Result;
use crate::timeline::Timeline;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct CommitTimes {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    timeline: Timeline,
    /// Has the times before those in `timeline`, until they are needed.
    older: Option<Arc<Snapshot>>,
}

impl CommitTimes {
    /// With the times that `snapshot` has.
    pub(crate) fn after(snapshot: Option<Arc<Snapshot>>) -> Self {
        Self { known: Mutex::new(Known { timeline: Timeline::default(), older: snapshot }) }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds commits, in the order of their versions.
    pub(crate) fn push(&self, commits: impl IntoIterator<Item = (Version, Timestamp)>) {
        let mut known = self.lock();
        commits.into_iter().for_each(|(version, time)| known.timeline.push(version, time));
    }

    /// Drops what is only needed to read below `version`.
    pub(crate) fn trim(&self, version: Version) {
        let mut known = self.lock();
        known.timeline.trim(version);
        if known.older.as_ref().is_some_and(|older| older.meta().version < version) {
            known.older = None;
        }
    }

    /// Asks the whole timeline.
    pub(crate) fn ask<T>(&self, ask: impl FnOnce(&Timeline) -> T) -> Result<T> {
        let older = self.lock().older.clone();
        if let Some(older) = older {
            // Commits that become visible meanwhile must not wait for the file.
            let times = older.commit_times()?;
            let mut known = self.lock();
            if known.older.is_some() {
                known.timeline.prepend(&times)?;
                known.older = None;
            }
        }
        Ok(ask(&self.lock().timeline))
    }

    /// The commits up to `version`, as a snapshot keeps them.
    pub(crate) fn encode_upto(&self, version: Version) -> Result<Vec<u8>> {
        // Encoding takes longer than copying.
        Ok(self.ask(Timeline::clone)?.encode_upto(version))
    }

    /// Takes the times that only the snapshot has from elsewhere, where it is damaged: encoded
    /// ones, then others.
    pub(crate) fn supply_older(
        &self,
        encoded: &[u8],
        commits: impl IntoIterator<Item = (Version, Timestamp)>,
    ) -> Result<()> {
        let mut known = self.lock();
        let mut older = Timeline::default();
        older.prepend(encoded)?;
        commits.into_iter().for_each(|(version, time)| older.push(version, time));
        known.timeline.prepend(&older.encode_upto(Version::MAX))?;
        known.older = None;
        Ok(())
    }

    /// Gives up the times that only the snapshot has.
    pub(crate) fn forget_older(&self) {
        self.lock().older = None;
    }

    /// Bytes in memory.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.lock().timeline.heap_bytes()
    }
}
