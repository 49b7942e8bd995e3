//! The database handle.
//!
//! Lock order, outermost first: the database's own `life` (opening and closing), the state of
//! the commit pipeline, the locks of the store, the jobs of the background threads. No lock
//! of these is held while the log is written or synced: whoever does so has taken the log out
//! of the pipeline's state, or, in the background, syncs beside whoever has. Innermost of all,
//! and held by whoever syncs a segment, is that segment's own lock, so that there is one sync
//! of it at a time. The list of subscribers and their queues come behind the pipeline's state,
//! and are held for a push or a pop. No code of a caller runs under any of them.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use steadfast_core::{
    CrashPoint, Entropy, KeyRef, Record, RetentionPolicy, Timestamp, Version, WriteSet,
    check_crash_point,
};
use steadfast_durability::Progress;
use steadfast_durability::disk::LockGuard;
use steadfast_durability::layout::Layout;
use steadfast_durability::manifest::Manifest;
use steadfast_durability::recovery::RecoveryReport;
use steadfast_durability::verify::Damaged;
use steadfast_durability::wal::segment::Epoch;
use steadfast_storage::UnifiedStore;

use crate::cohorts::KnownCohorts;
use crate::commit::{CLOSED, Log, Pipeline, Receipt, Start, Submission, Work};
use crate::config::{CompactMode, DatabaseBuilder, DatabaseConfig, DurabilityMode};
use crate::deletion::held_for_forks;
use crate::error::{Error, Result};
use crate::fork::get_beneath;
use crate::last_events::LastEvents;
use crate::loading::Loading;
use crate::maintenance::{Jobs, Threads, run_by_hand};
use crate::namespaces::Namespaces;
use crate::open::Contents;
use crate::progress::{Sink, Watch};
use crate::runs::Run;
use crate::schema::Definitions;
use crate::stats::Stats;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Instant, Mutex};
use crate::transaction::Transaction;
use crate::upkeep::{CheckpointInfo, CompactInfo, Files, Space, Upkeep};
use crate::view::{View, check_live, check_live_at};

/// An embedded, versioned, durable database.
///
/// A handle is cheap to clone and may be used from any thread; all clones are the same
/// database. It is closed by [`Database::close`], or when the last handle is dropped.
///
/// ```
/// use steadfast_engine::Database;
///
/// let db = Database::in_memory()?;
/// let run = db.create_run("first")?;
/// db.transaction(|tx| {
///     tx.kv_put(run, "greeting", "hello")?;
///     tx.event_append(run, "log", "said hello")
/// })?;
/// let greeting = db.kv_get(run, "greeting")?.expect("it was put there");
/// assert_eq!(greeting.value.as_str(), Some("hello"));
/// # Ok::<(), steadfast_engine::Error>(())
/// ```
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
    /// Whom this handle tells how far work that takes long has come.
    progress: Option<Sink>,
}

struct Inner {
    store: UnifiedStore,
    namespaces: Arc<Namespaces>,
    /// `None` if it was opened for reading only.
    pipeline: Option<Arc<Pipeline>>,
    upkeep: Arc<Upkeep>,
    definitions: Definitions,
    known_cohorts: KnownCohorts,
    mode: DurabilityMode,
    clock: Arc<dyn steadfast_core::Clock>,
    entropy: Entropy,
    /// `None` in memory.
    layout: Option<Layout>,
    report: RecoveryReport,
    jobs: Arc<Jobs>,
    last_events: LastEvents,
    closed: AtomicBool,
    life: Mutex<Life>,
}

/// What ends with the database.
#[derive(Debug, Default)]
struct Life {
    threads: Option<Threads>,
    lock: Option<Box<dyn LockGuard>>,
}

/// What a database is put together from.
pub(crate) struct Parts {
    pub(crate) builder: DatabaseBuilder,
    pub(crate) layout: Option<Layout>,
    /// `None` unless for reading only.
    pub(crate) manifest: Option<Manifest>,
    pub(crate) contents: Contents,
    pub(crate) report: RecoveryReport,
    /// `None` for reading only.
    pub(crate) start: Option<Start>,
    pub(crate) lock: Option<Box<dyn LockGuard>>,
    /// When opening began.
    pub(crate) started: Instant,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.inner.layout.as_ref().map(Layout::root);
        f.debug_struct("Database").field("path", &path).field("mode", &self.inner.mode).finish()
    }
}

impl Database {
    pub(crate) fn assemble(parts: Parts) -> Result<Self> {
        let Parts { builder, layout, manifest, contents, report, start, lock, started } = parts;
        let Contents { store, namespaces, times, snapshot } = contents;
        let jobs = Arc::new(Jobs::default());
        let mode = builder.config.mode;
        let pipeline = start.map(|start| {
            let on_work: Box<dyn Fn(Work) + Send + Sync> = match layout {
                Some(_) => {
                    let jobs = jobs.clone();
                    Box::new(move |work| jobs.leave(work))
                }
                None => Box::new(|_| {}),
            };
            let (store, namespaces) = (store.clone(), namespaces.clone());
            let (times, clock) = (times.clone(), builder.clock.clone());
            Arc::new(Pipeline::new(start, store, namespaces, times, clock, mode, on_work))
        });
        let files = layout.clone().map(|layout| Files {
            disk: builder.disk.clone(),
            layout,
            compression: builder.config.compression,
        });
        let upkeep = Arc::new(Upkeep {
            store: store.clone(),
            namespaces: namespaces.clone(),
            times,
            pipeline: pipeline.clone(),
            clock: builder.clock.clone(),
            files,
            manifest,
            loading: snapshot.map(|snapshot| Loading::new(snapshot, started)),
            policy: builder.config.checkpoints,
            busy: Mutex::default(),
            distrusted: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        let threads = match &pipeline {
            Some(pipeline) if builder.threads && layout.is_some() => {
                let started = Threads::start(&jobs, pipeline, &upkeep).map_err(|source| {
                    let (file, action) = (".".to_owned(), "start a thread for");
                    Error::from(steadfast_durability::Error::Io { file, action, source })
                });
                Some(started?)
            }
            _ => None,
        };
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                namespaces,
                pipeline,
                upkeep,
                definitions: Definitions::default(),
                known_cohorts: KnownCohorts::default(),
                mode,
                clock: builder.clock,
                entropy: builder.entropy,
                layout,
                report,
                jobs,
                last_events: LastEvents::default(),
                closed: AtomicBool::new(false),
                life: Mutex::new(Life { threads, lock }),
            }),
            progress: builder.progress,
        })
    }

    /// Opens the database in directory `path`, creating what is missing, with
    /// [`DurabilityMode::BATCHED`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open()
    }

    /// Opens the database in directory `path`, creating what is missing.
    pub fn open_with_mode(path: impl AsRef<Path>, mode: DurabilityMode) -> Result<Self> {
        Self::open_or_create(path, DatabaseConfig::new(mode))
    }

    /// Creates a database in directory `path`.
    ///
    /// # Errors
    ///
    /// Kind `Invalid` if there is one already, or if the directory holds anything else.
    pub fn create(path: impl AsRef<Path>, config: DatabaseConfig) -> Result<Self> {
        Self::builder(path).config(config).create()
    }

    /// Opens the database in directory `path`.
    ///
    /// # Errors
    ///
    /// Kind `NotFound` if there is none; `Busy` if it is open already; `Corruption` if
    /// recovery refuses; `Unsupported` if a newer release wrote it.
    pub fn open_existing(path: impl AsRef<Path>, config: DatabaseConfig) -> Result<Self> {
        Self::builder(path).config(config).open_existing()
    }

    /// Opens the database in directory `path`, creating what is missing.
    pub fn open_or_create(path: impl AsRef<Path>, config: DatabaseConfig) -> Result<Self> {
        Self::builder(path).config(config).open()
    }

    /// Opens the database in directory `path` for reading, as it is now. Works beside a
    /// process that writes to it, takes no lock and writes nothing. What is committed later
    /// is not seen.
    ///
    /// Nothing is shown that a power cut could still take away: what is not proven durable
    /// is synced first, and where that is not possible it is left out, and the report says so.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open_read_only()
    }

    /// Opens again, as it is now, a database that was opened for reading only. What this handle
    /// and its views show stays as it is.
    ///
    /// # Errors
    ///
    /// Kind `Invalid` if the database was opened for writing: it is always up to date. Else as
    /// [`Database::open_read_only`].
    pub fn refresh(&self) -> Result<Self> {
        self.check_open()?;
        if self.inner.pipeline.is_some() {
            return Err(Error::Invalid("what is open for writing is always up to date".into()));
        }
        let files = self.upkeep().files()?;
        let mut builder = Self::builder(files.layout.root()).disk(files.disk.clone());
        builder.clock = self.inner.clock.clone();
        builder.progress.clone_from(&self.progress);
        builder.open_read_only()
    }

    /// Opens the database in directory `path` and checks that it still has what the caller
    /// was promised: `version`, committed in `epoch`, as a receipt said.
    ///
    /// # Errors
    ///
    /// Kind `Diverged` if the database has another past: that epoch is not in its history, or
    /// what was kept of it ends before `version`. Kind `Corruption` if the log ends before
    /// `version`.
    pub fn open_expecting(
        path: impl AsRef<Path>,
        config: DatabaseConfig,
        epoch: Epoch,
        version: Version,
    ) -> Result<Self> {
        crate::open::open_expecting(Self::builder(path).config(config), epoch, version)
    }

    /// A database without files: everything else is the same, and nothing outlives it.
    pub fn in_memory() -> Result<Self> {
        let builder = Self::builder("");
        let start = Start {
            log: Log::Memory,
            next_version: Version(1),
            last_timestamp: Timestamp::ZERO,
            promised: Version::MAX,
            checkpoint_at: u64::MAX,
        };
        Self::assemble(Parts {
            contents: Contents::empty(builder.config.retention.clone().unwrap_or_default()),
            builder,
            layout: None,
            manifest: None,
            report: RecoveryReport::empty(),
            start: Some(start),
            lock: None,
            started: Instant::now(),
        })
    }

    /// Everything that can be chosen about opening the database in directory `path`.
    pub fn builder(path: impl AsRef<Path>) -> DatabaseBuilder {
        DatabaseBuilder::new(path.as_ref())
    }

    /// A handle of the same database that calls `on_progress` now and then while work that takes
    /// long goes on through it: [`Database::checkpoint`], [`Database::compact`],
    /// [`Database::verify`], [`Database::wait_loaded`], [`Database::backup`] and
    /// [`Database::backup_at`], [`Database::export_run`], [`Database::import_run`]. What the
    /// database does by itself in the background tells nobody.
    ///
    /// Such work goes through stages, each of which counts its bytes up to its own total. If
    /// `on_progress` answers `Break`, the work ends soon with kind `Stopped`, and what is on disk
    /// is what was there before; a compaction may have made its checkpoint, and removed nothing.
    /// `on_progress` must not begin such work itself.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use steadfast_engine::{CompactMode, Database, ErrorKind};
    ///
    /// let db = Database::in_memory()?;
    /// let run = db.create_run("first")?;
    /// db.kv_put(run, "greeting", "hello")?;
    /// let impatient = db.with_progress(|_| ControlFlow::Break(()));
    /// let stopped = impatient.compact(CompactMode::Full).unwrap_err();
    /// assert_eq!(stopped.kind(), ErrorKind::Stopped);
    /// let patient = db.with_progress(|at| {
    ///     println!("{:?}: {} of {} bytes", at.stage, at.bytes, at.bytes_total);
    ///     ControlFlow::Continue(())
    /// });
    /// patient.compact(CompactMode::Full)?;
    /// # Ok::<(), steadfast_engine::Error>(())
    /// ```
    #[must_use]
    pub fn with_progress(
        &self,
        on_progress: impl FnMut(Progress) -> ControlFlow<()> + Send + 'static,
    ) -> Self {
        Self { inner: self.inner.clone(), progress: Some(Sink::new(on_progress)) }
    }

    pub(crate) fn watch(&self) -> Watch<'_> {
        Watch::new(self.progress.as_ref(), Some(&self.inner.upkeep.stopping))
    }

    /// Closes the database, for every clone of this handle: waits for the commits under way,
    /// stops checkpoints, compactions and checks, makes everything durable, and lets others open
    /// it. Closing twice is no error. Later calls return kind `Closed`.
    pub fn close(&self) -> Result<()> {
        self.inner.close()
    }

    /// Makes everything that is committed durable.
    pub fn flush(&self) -> Result<()> {
        self.check_open()?;
        self.pipeline()?.sync()
    }

    /// The in-memory store, for reading. Its own write methods are for replay, for tests and
    /// for the commit pipeline: what they write is in no log.
    pub fn storage(&self) -> &UnifiedStore {
        &self.inner.store
    }

    /// The newest version that readers see.
    pub fn current_version(&self) -> Version {
        self.inner.store.current_version()
    }

    /// What opening found, did and left out.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.inner.report
    }

    /// The durability that commits get unless they ask for more.
    pub fn mode(&self) -> DurabilityMode {
        self.inner.mode
    }

    /// What the database holds and how far it has come.
    pub fn stats(&self) -> Result<Stats> {
        self.check_open()?;
        let visible = self.current_version();
        let (log_position, running_transactions, poisoned) = match &self.inner.pipeline {
            Some(pipeline) => pipeline.measure(),
            None => (self.inner.report.end, 0, None),
        };
        let (assigned, promised) = match &self.inner.pipeline {
            Some(pipeline) => (pipeline.assigned().max(visible), pipeline.promised().min(visible)),
            None => (visible, visible),
        };
        let Space { disk, newest, reclaimable_bytes, needed_log } = self.inner.upkeep.space()?;
        Ok(Stats {
            assigned,
            visible,
            promised,
            store: self.inner.store.stats(),
            log_position,
            disk,
            reclaimable_bytes,
            snapshot: newest.map(|newest| (newest.number, newest.version)),
            needed_log_bytes: needed_log,
            load: self.inner.upkeep.load_stats(),
            commit_times_bytes: self.inner.upkeep.times.heap_bytes(),
            idempotency_keys: self.view()?.all_event_keys().ok(),
            held_for_forks_bytes: held_for_forks(&self.inner.store).ok(),
            running_transactions,
            poisoned,
        })
    }

    /// A view of everything that is visible now.
    pub fn view(&self) -> Result<View> {
        self.check_open()?;
        Ok(self.wrap(self.inner.store.view(self.now())))
    }

    /// A view of what was visible at `version`, with its clock at the time of that commit: what
    /// had not expired then is there. At the newest version this is the same as
    /// [`Database::view`].
    ///
    /// # Errors
    ///
    /// Kind `HistoryTrimmed` if nothing of that time can be read any more, or when that commit was
    /// made is not kept any more; where only some of it cannot be read, reading that gives the
    /// same error. Kind `NotFound` if the database has not come that far.
    pub fn view_at(&self, version: Version) -> Result<View> {
        self.check_open()?;
        if version == self.current_version() {
            return self.view();
        }
        let times = &self.inner.upkeep.times;
        let (found, oldest) =
            times.ask(|timeline| (timeline.time_of(version), timeline.oldest()))?;
        let now = match (found, oldest) {
            (Some(time), _) => time,
            // What had expired by then cannot be told any more.
            (None, Some(oldest)) if version > Version::ZERO && version < oldest => {
                return Err(Error::HistoryTrimmed { asked: version, oldest });
            }
            // Before the first commit, or above the newest, which the store refuses.
            (None, _) => Timestamp::ZERO,
        };
        Ok(self.wrap(self.inner.store.view_at(version, now)?))
    }

    /// A view of what was visible at `time`: after the newest commit made then or before, with
    /// its clock at that commit's time.
    ///
    /// # Errors
    ///
    /// As [`Database::view_at`]; kind `HistoryTrimmed` also where it is not known any more which
    /// commit that was.
    pub fn view_at_time(&self, time: Timestamp) -> Result<View> {
        self.check_open()?;
        let times = &self.inner.upkeep.times;
        let (found, oldest) =
            times.ask(|timeline| (timeline.version_at(time), timeline.oldest()))?;
        match (found, oldest) {
            (Some(version), _) => self.view_at(version),
            // Before the first commit of all there was nothing.
            (None, None | Some(Version(1))) => self.view_at(Version::ZERO),
            (None, Some(oldest)) => Err(Error::HistoryTrimmed { asked: Version::ZERO, oldest }),
        }
    }

    /// Writes everything that is visible now into a snapshot, so that opening needs only the
    /// log behind it. Goes on beside readers and writers. Nothing is removed: see
    /// [`Database::compact`]. After a crash at any moment the old snapshot is in use or the new.
    ///
    /// # Errors
    ///
    /// Kind `Corruption` if the snapshot that the database was opened from is damaged in a part
    /// that was not in memory yet; `Poisoned` after a failed sync; `Unsupported` in memory.
    pub fn checkpoint(&self) -> Result<CheckpointInfo> {
        self.check_open()?;
        self.inner.upkeep.checkpoint(self.watch())
    }

    /// Removes what the database does not need any more, and gives its disk space back. What
    /// reads return does not change. A crash at any moment leaves files too many, never one too
    /// few; the next compaction removes them.
    ///
    /// # Errors
    ///
    /// As [`Database::checkpoint`], but in memory [`CompactMode::Full`] lets go of what retention
    /// and expiry do not keep; kind `Invalid` in [`CompactMode::WalOnly`] if there is no
    /// checkpoint; `Corruption` if the newest snapshot cannot be read back from the device.
    /// Then nothing was removed.
    pub fn compact(&self, mode: CompactMode) -> Result<CompactInfo> {
        self.check_open()?;
        self.inner.upkeep.compact(mode, self.watch())
    }

    /// Reads every byte of the files that the database needs back from the device, and checks
    /// what they say of each other. Returns what is not as it was written; opening has judged
    /// the log behind the newest snapshot already.
    ///
    /// Through a handle for reading only this goes by what the files are now, whoever writes to
    /// them meanwhile.
    pub fn verify(&self) -> Result<Vec<Damaged>> {
        self.check_open()?;
        self.inner.upkeep.verify(self.watch())
    }

    /// Returns when everything is in memory. A database that has a snapshot serves reads and
    /// commits from the moment it is open, while the snapshot is loaded in the background.
    ///
    /// # Errors
    ///
    /// Kind `Corruption` if a part of the snapshot is damaged and cannot be rebuilt. Reading
    /// what lies in it gives the same error; all else goes on.
    pub fn wait_loaded(&self) -> Result<()> {
        self.check_open()?;
        self.inner.upkeep.finish_loading(self.watch())
    }

    /// Changes how much history is kept, from now on and after opening again. What is not kept
    /// any more goes at the next [`CompactMode::Full`].
    pub fn set_retention(&self, retention: impl Into<RetentionPolicy>) -> Result<()> {
        self.check_open()?;
        self.inner.upkeep.set_retention(retention.into())
    }

    pub(crate) fn wrap(&self, inner: steadfast_storage::View) -> View {
        View { inner, namespaces: self.inner.namespaces.clone() }
    }

    /// Begins a transaction. See [`Database::transaction`] for one that retries by itself.
    pub fn begin(&self) -> Result<Transaction> {
        Transaction::new(self)
    }

    /// Does once, now, what the background threads do when it is time: for a database that
    /// was opened without threads.
    pub fn maintain(&self) -> Result<()> {
        run_by_hand(&self.inner.jobs, self.pipeline()?, &self.inner.upkeep);
        Ok(())
    }

    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.inner.closed.load(Ordering::Acquire) { Err(CLOSED) } else { Ok(()) }
    }

    pub(crate) fn pipeline(&self) -> Result<&Arc<Pipeline>> {
        let read_only = Error::Closed("the database was opened for reading only");
        self.inner.pipeline.as_ref().ok_or(read_only)
    }

    pub(crate) fn upkeep(&self) -> &Upkeep {
        &self.inner.upkeep
    }

    pub(crate) fn namespaces(&self) -> &Namespaces {
        &self.inner.namespaces
    }

    pub(crate) fn namespaces_shared(&self) -> Arc<Namespaces> {
        self.inner.namespaces.clone()
    }

    pub(crate) fn last_events(&self) -> &LastEvents {
        &self.inner.last_events
    }

    pub(crate) fn check_run(&self, run: Run) -> Result<()> {
        check_live(&self.inner.namespaces, run)
    }

    pub(crate) fn definitions(&self) -> &Definitions {
        &self.inner.definitions
    }

    pub(crate) fn known_cohorts(&self) -> &KnownCohorts {
        &self.inner.known_cohorts
    }

    pub(crate) fn entropy(&self) -> &Entropy {
        &self.inner.entropy
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// The newest live record of `key` in `run`.
    #[inline(always)]
    pub(crate) fn latest(&self, run: Run, key: KeyRef<'_>) -> Result<Option<Record>> {
        self.check_open()?;
        check_live_at(&self.inner.namespaces, run, || self.current_version())?;
        // Asking for the time costs as much as the read; few records expire.
        let record = self.inner.store.get_latest(key, Timestamp::ZERO)?;
        if record.is_none() && self.inner.namespaces.has_ancestors(run.namespace) {
            let view = self.inner.store.view(self.now());
            // What is its own may have come meanwhile.
            return match view.get(key)? {
                None => get_beneath(&view, &self.inner.namespaces, key),
                found => Ok(found),
            };
        }
        Ok(record.filter(|record| record.expiry().is_none_or(|expiry| self.now() < expiry)))
    }

    /// Commits writes that depend on nothing read.
    pub(crate) fn write_blind(
        &self,
        run: Run,
        write: impl FnOnce(&mut WriteSet) -> steadfast_core::Result<()>,
    ) -> Result<Receipt> {
        let pipeline = self.pipeline()?;
        check_live(&self.inner.namespaces, run)?;
        let mut writes = WriteSet::new();
        write(&mut writes)?;
        check_crash_point(CrashPoint::AfterWrite);
        let pending = pipeline.submit(Submission {
            writes,
            namespaces: Arc::new([run.namespace]),
            reads: None,
            level: self.inner.mode.level(),
            fixed: None,
            created: Vec::new(),
            deleted: Vec::new(),
        })?;
        pending.wait()
    }
}

impl Inner {
    fn close(&self) -> Result<()> {
        let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // The threads first: they must not find the log gone in the middle of their work.
        self.upkeep.stopping.store(true, Ordering::Release);
        life.threads = None;
        // Then whoever makes a checkpoint by hand: what it removes later may be the next owner's.
        let _busy = self.upkeep.busy();
        let closed = match &self.pipeline {
            Some(pipeline) => pipeline.close(),
            None => Ok(()),
        };
        life.lock = None;
        closed
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            log::error!("closing a database that was dropped: {error}");
        }
    }
}
