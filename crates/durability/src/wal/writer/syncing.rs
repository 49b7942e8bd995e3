//! Syncing the segment that is being written, also beside its writer.
//!
//! A whole segment synced at once would hold up the commit that fills it. So a background
//! thread syncs what has come together, with a [`SyncRequest`], while the writer goes on. It
//! proves what was written before it *began*: the request says up to where that is.

use std::sync::{Arc, PoisonError};

use steadfast_core::{CrashPoint, Sabotage, Version, check_crash_point, sabotaged};

use crate::disk::DiskFile;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::sync::Mutex;

/// The syncs of one segment, of which one runs at a time.
#[derive(Debug)]
pub(super) struct Syncing {
    file: Arc<dyn DiskFile>,
    number: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The log position up to which the segment is durable.
    upto: u64,
    /// Why its last sync failed.
    failed: Option<String>,
}

impl Syncing {
    pub(super) fn new(file: Arc<dyn DiskFile>, number: u64) -> Self {
        Self { file, number, state: Mutex::default() }
    }

    /// Makes what was written up to log position `upto` durable. After one failure it fails
    /// always.
    pub(super) fn sync(&self, upto: u64) -> Result<()> {
        // Held while the file is synced: the kernel tells a failure once, to whoever asks
        // first. A second sync beside that one, or after it and before its writer knows, would
        // succeed, and promise what is lost.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if sabotaged(Sabotage::GoOnAfterFailedSync) {
            state.failed = None;
        }
        if state.failed.is_none() && state.upto < upto {
            match self.file.sync_data() {
                Err(_) if sabotaged(Sabotage::SwallowSyncError) => state.upto = upto,
                Ok(()) => {
                    state.upto = upto;
                    check_crash_point(CrashPoint::AfterFsync);
                }
                Err(error) => {
                    let label = Layout::segment_label(self.number);
                    state.failed = Some(format!("{label}: sync: {error}"));
                }
            }
        }
        match &state.failed {
            Some(reason) => Err(Error::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }
}

/// Asks for a sync of what the log has now, beside its writer.
#[derive(Debug, Clone)]
pub struct SyncRequest {
    pub(super) syncing: Arc<Syncing>,
    /// The end of the log when this was asked for.
    pub(super) upto: u64,
    /// The newest version then.
    pub(super) newest: Version,
}

impl SyncRequest {
    /// Syncs. What comes of it must be told to the writer, by
    /// [`note_synced`](super::WalWriter::note_synced).
    pub fn run(&self) -> Synced {
        Synced { upto: self.upto, newest: self.newest, result: self.syncing.sync(self.upto) }
    }
}

/// What came of a [`SyncRequest`].
#[derive(Debug)]
#[must_use = "the writer must know: a failed sync ends all writing"]
pub struct Synced {
    pub(super) upto: u64,
    pub(super) newest: Version,
    pub(super) result: Result<()>,
}
