//! What a caller holds of a commit: one on its way, or the proof of one that is done.

use std::sync::Arc;

use steadfast_core::{CrashPoint, NamespaceId, Record, Version, WriteSet, check_crash_point};
use steadfast_durability::wal::segment::Epoch;

use super::Pipeline;
use crate::error::{Error, Result};

/// A commit that has its place in the order of commits and is on its way into the log.
///
/// Dropping it does not take it back: the drop waits until it is written and published, or
/// has failed, and nobody is told which.
#[must_use = "the commit is acknowledged by `wait`"]
pub struct Pending {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) version: Version,
    pub(super) records: Arc<[Record]>,
    /// Whether the pipeline knows that they are in the store.
    pub(super) applied: bool,
    /// What the leader of the group has, too, held so that the thread that made it frees it:
    /// freeing what another thread made takes a lock that this one may be waiting for.
    pub(super) _kept: (Arc<WriteSet>, Arc<[NamespaceId]>),
    pub(super) superseded: Option<steadfast_storage::Applied>,
    pub(super) level: u8,
    pub(super) created: Vec<NamespaceId>,
    pub(super) deleted: Vec<NamespaceId>,
    pub(super) waited: bool,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pending({})", self.version)
    }
}

impl Pending {
    /// The version it will have.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Waits until it is visible, and as durable as was asked for.
    ///
    /// # Errors
    ///
    /// Kind `Io`: it was not committed. Kind `Unknown`: a sync failed and nobody knows.
    pub fn wait(mut self) -> Result<Receipt> {
        let records = (!self.applied).then(|| self.records.clone());
        (self.applied, self.waited) = (true, true);
        let outcome = self.pipeline.wait(self.version, records, self.level);
        if outcome.is_ok()
            && let Some(superseded) = self.superseded.take()
        {
            self.pipeline.store.prune(superseded);
        }
        if matches!(outcome, Err(Error::Io(_))) {
            self.let_runs_live();
        }
        outcome?;
        check_crash_point(CrashPoint::AfterCommit);
        self.created.iter().for_each(|run| self.pipeline.namespaces.set_live(*run));
        Ok(Receipt { pipeline: self.pipeline.clone(), version: self.version, wrote: true })
    }

    /// What it would have deleted is not deleted: it failed.
    fn let_runs_live(&self) {
        for run in &self.deleted {
            self.pipeline.namespaces.clear_deleted(*run, self.version);
        }
    }

    /// Says that the records are in the store, so that nobody waits for this thread.
    pub(crate) fn note_applied(&mut self) {
        if !self.applied {
            self.applied = true;
            let mut state = self.pipeline.lock();
            self.pipeline.note_applied(&mut state, self.version, self.records.clone());
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.note_applied();
        if !self.waited {
            self.pipeline.settle(self.version);
            if self.pipeline.forget_failure(self.version) {
                self.let_runs_live();
            }
        }
        if let Some(superseded) = self.superseded.take() {
            self.pipeline.store.prune(superseded);
        }
    }
}

/// Proof of a commit: it is visible, and as durable as was asked for.
#[derive(Clone)]
pub struct Receipt {
    pipeline: Arc<Pipeline>,
    version: Version,
    wrote: bool,
}

impl Receipt {
    /// For a transaction that wrote nothing and read at `version`.
    pub(crate) const fn of_nothing(pipeline: Arc<Pipeline>, version: Version) -> Self {
        Self { pipeline, version, wrote: false }
    }

    /// The version of the commit; for a transaction that wrote nothing, the version it read.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The epoch it was written in; `None` in memory, and for a transaction that wrote
    /// nothing.
    pub fn epoch(&self) -> Option<Epoch> {
        self.pipeline.epoch.get().copied().filter(|_| self.wrote)
    }

    /// Waits until the commit survives power loss; for a transaction that wrote nothing, until
    /// all that it read does.
    ///
    /// # Errors
    ///
    /// Kind `Unknown` if a sync failed.
    pub fn wait_durable(&self) -> Result<()> {
        self.pipeline.wait_durable(self.version)
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Receipt({})", self.version)
    }
}
