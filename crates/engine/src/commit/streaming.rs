//! Transactions above the frame limit: in the log part by part, before they have a version.

use steadfast_core::{NamespaceId, WriteSet};
use steadfast_durability::wal::frame::Frame;
use steadfast_durability::wal::stream::Stream;
use steadfast_durability::wal::writer::{NamespaceLookup, Outgoing, WalWriter};

use super::{Pipeline, check_open};
use crate::error::Result;

impl Pipeline {
    /// Writes a transaction that is too large for a frame into the log, all but its commit.
    pub(super) fn stream_if_large(
        &self,
        writes: &WriteSet,
        namespaces: &[NamespaceId],
        level: u8,
    ) -> Result<Option<Stream>> {
        // Version, time and the count of definitions take less than this.
        const FRAME_HEAD: usize = 64;
        let size = |definitions: usize| writes.as_bytes().len() + definitions + FRAME_HEAD;
        // A definition has three names and an id.
        let definition_max = 3 * (steadfast_core::limits::NAME_BYTES_MAX + 2) + 32;
        if size(namespaces.len() * definition_max) <= self.frame_bytes_max {
            return Ok(None);
        }
        let mut state = self.lock();
        while state.streaming {
            check_open(&state)?;
            state = self.lead_or_sleep(state);
        }
        check_open(&state)?;
        state.streaming = true;
        let unaborted = state.unaborted.take();
        drop(state);
        let begun = self.with_writer(
            |writer| {
                if let Some(txn) = unaborted {
                    let abort = Outgoing::Stream(Frame::Abort { txn });
                    writer.append(&[abort], level, false).map_err(|failed| failed.error)?;
                }
                let unlogged = writer.unlogged(namespaces);
                let lookup = |id| Some((id, self.namespaces.namespace(id)?));
                let definitions: Vec<_> = unlogged.into_iter().filter_map(lookup).collect();
                let (txn, limit) = (writer.position(), self.frame_bytes_max);
                let (now, writes) = (self.clock.now(), writes.as_bytes());
                Ok(Stream::new(txn, now, &definitions, writes, limit))
            },
            |_, _| {},
        );
        let stream = match begun {
            Ok(Some(stream)) => stream,
            Ok(None) => {
                self.end_stream(None);
                return Ok(None);
            }
            Err(error) => {
                self.end_stream(unaborted);
                return Err(error);
            }
        };
        for frame in stream.frames() {
            // The log is given back between frames: smaller commits need not wait for all.
            let append = |writer: &mut WalWriter| {
                writer.append(&[frame], level, false).map_err(|failed| failed.error)
            };
            if let Err(error) = self.with_writer(append, |_, ()| {}) {
                self.abort(&stream, level);
                return Err(error);
            }
        }
        Ok(Some(stream))
    }

    pub(super) fn abort(&self, stream: &Stream, level: u8) {
        let append = |writer: &mut WalWriter| {
            writer.append(&[stream.abort()], level, false).map_err(|failed| failed.error)
        };
        match self.with_writer(append, |_, ()| {}) {
            Ok(_) => self.end_stream(None),
            Err(error) => {
                log::warn!("a streamed transaction was given up without saying so yet: {error}");
                self.end_stream(Some(stream.txn()));
            }
        }
    }

    /// Lets the next transaction stream. `unaborted` has parts in the log and no abort: the
    /// next one says so first, or replay would have to stage the parts of both.
    fn end_stream(&self, unaborted: Option<u64>) {
        let mut state = self.lock();
        state.streaming = false;
        state.unaborted = unaborted;
        self.unlock_and_wake(state);
    }
}
