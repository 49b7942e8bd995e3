//! Where streams ended when somebody last looked: a hint that saves looking for the end.
//!
//! A hint may be wrong: too low once others have appended, too high when an append was not
//! committed. Whoever takes one checks it: the event is there and the one behind it is not.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// More streams than this are not kept in mind.
const STREAMS_MAX: usize = 1 << 16;

#[derive(Debug, Default)]
pub(crate) struct LastEvents(Mutex<HashMap<Box<[u8]>, u64>>);

impl LastEvents {
    /// The sequence number of what may be the last event of the stream with this prefix of keys.
    pub(crate) fn hint(&self, prefix: &[u8]) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(prefix).copied()
    }

    /// Notes what is, or is about to be, the last event.
    pub(crate) fn note(&self, prefix: &[u8], seq: u64) {
        let mut seqs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match seqs.get_mut(prefix) {
            Some(last) => *last = seq,
            None => {
                if seqs.len() >= STREAMS_MAX {
                    seqs.clear();
                }
                seqs.insert(prefix.into(), seq);
            }
        }
    }
}
