//! Telling whoever asked how far work that takes long has come, and whether it is to stop.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use steadfast_core::Record;
use steadfast_durability::{Progress, Stage};

use crate::commit::CLOSED;
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, Ordering};

/// Bytes between two reports, about: often enough for eyes, and to stop soon.
const REPORT_BYTES: u64 = 1 << 20;

type OnProgress = dyn FnMut(Progress) -> ControlFlow<()> + Send;

/// Whom a handle, and its clones, tell. Only one of them at a time.
#[derive(Clone)]
pub(crate) struct Sink(Arc<Mutex<OnProgress>>);

impl Sink {
    pub(crate) fn new(
        on_progress: impl FnMut(Progress) -> ControlFlow<()> + Send + 'static,
    ) -> Self {
        Self(Arc::new(Mutex::new(on_progress)))
    }

    pub(crate) fn tell(&self, progress: Progress) -> ControlFlow<()> {
        (self.0.lock().unwrap_or_else(PoisonError::into_inner))(progress)
    }
}

/// Tells the sink of a handle, if it has one.
pub(crate) fn tell(sink: Option<&Sink>, progress: Progress) -> ControlFlow<()> {
    sink.map_or(ControlFlow::Continue(()), |sink| sink.tell(progress))
}

/// Watches one piece of work: tells of it, and says when it has to end, because whoever
/// is told wants that or because the database is being closed.
#[derive(Clone, Copy)]
pub(crate) struct Watch<'a> {
    sink: Option<&'a Sink>,
    stopping: Option<&'a AtomicBool>,
}

impl<'a> Watch<'a> {
    pub(crate) const fn new(sink: Option<&'a Sink>, stopping: Option<&'a AtomicBool>) -> Self {
        Self { sink, stopping }
    }

    /// # Errors
    ///
    /// [`Error::Stopped`], or kind `Closed`.
    pub(crate) fn tell(&self, progress: Progress) -> Result<()> {
        self.check_closing()?;
        match tell(self.sink, progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Stopped),
        }
    }

    pub(crate) fn check_closing(&self) -> Result<()> {
        match self.stopping.is_some_and(|stopping| stopping.load(Ordering::Acquire)) {
            true => Err(CLOSED),
            false => Ok(()),
        }
    }

    /// Does `work`, which is of the layer below, and takes part of the watching.
    pub(crate) fn over<T>(
        &self,
        work: impl FnOnce(
            &mut dyn FnMut(Progress) -> ControlFlow<()>,
        ) -> steadfast_durability::Result<T>,
    ) -> Result<T> {
        let mut why = None;
        let done = work(&mut |progress| match self.tell(progress) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                why = Some(error);
                ControlFlow::Break(())
            }
        });
        match (done, why) {
            (Err(steadfast_durability::Error::Stopped), Some(why)) => Err(why),
            (done, _) => Ok(done?),
        }
    }

    /// Begins a stage of about `bytes_total` bytes, which is only asked for if anybody is told.
    pub(crate) fn stage(self, stage: Stage, bytes_total: impl FnOnce() -> u64) -> Meter<'a> {
        let bytes_total = if self.sink.is_some() { bytes_total() } else { 0 };
        Meter { watch: self, stage, bytes: 0, bytes_total, reported: 0 }
    }
}

/// Counts the bytes of one stage.
pub(crate) struct Meter<'a> {
    watch: Watch<'a>,
    stage: Stage,
    bytes: u64,
    bytes_total: u64,
    reported: u64,
}

impl Meter<'_> {
    /// So many more are done.
    pub(crate) fn add(&mut self, bytes: u64) -> Result<()> {
        self.bytes += bytes;
        self.watch.check_closing()?;
        if self.bytes - self.reported < REPORT_BYTES {
            return Ok(());
        }
        self.come_to(self.bytes)
    }

    /// So many are done in all.
    pub(crate) fn come_to(&mut self, bytes: u64) -> Result<()> {
        (self.bytes, self.reported) = (bytes, bytes);
        self.watch.tell(Progress::new(self.stage, bytes, self.bytes_total.max(bytes)))
    }

    /// The stage is at its end: what was done is all there was.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.watch.tell(Progress::new(self.stage, self.bytes, self.bytes))
    }
}

/// `rows`, counted as they are taken.
pub(crate) fn metered<'a, E>(
    meter: &'a RefCell<Meter<'_>>,
    rows: impl Iterator<Item = std::result::Result<Record, E>> + 'a,
) -> impl Iterator<Item = Result<Record>> + 'a
where
    Error: From<E>,
{
    rows.map(|row| {
        let row = row?;
        meter.borrow_mut().add(row.payload_bytes() as u64)?;
        Ok(row)
    })
}
