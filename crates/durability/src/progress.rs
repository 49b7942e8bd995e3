//! How far work that takes long has come, and whether it is to go on.

use std::ops::ControlFlow;

use crate::error::{Error, Result};

/// What work that takes long is doing. One piece of work goes through some of these, one after
/// the other; each counts its own bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Reading the log behind the snapshot. Counts bytes of the log.
    Replay,
    /// Bringing the snapshot into memory. Counts bytes of its file.
    Load,
    /// Letting go of what retention does not keep. Counts bytes of keys and values, about.
    Trim,
    /// Writing rows. Counts bytes of their keys and values.
    Write,
    /// Reading back from the device what was written. Counts bytes of files.
    ReadBack,
}

/// How far one stage of work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes done so far, of what the stage counts. They never become fewer within a stage.
    pub bytes: u64,
    /// Bytes there are, as far as that can be told before; at the end of a stage, `bytes`.
    pub bytes_total: u64,
    /// Transactions applied so far, in [`Stage::Replay`]; else 0.
    pub txns: u64,
}

impl Progress {
    /// So many of so many bytes of `stage`.
    pub const fn new(stage: Stage, bytes: u64, bytes_total: u64) -> Self {
        Self { stage, bytes, bytes_total, txns: 0 }
    }
}

/// Whom progress is told; the answer says whether to go on.
pub type Listener<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// Nobody listens, and the work goes on to its end.
pub fn unheard(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Tells `listener`.
///
/// # Errors
///
/// [`Error::Stopped`] if the work is not to go on.
pub(crate) fn tell(listener: Listener<'_>, progress: Progress) -> Result<()> {
    match listener(progress) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Stopped),
    }
}
