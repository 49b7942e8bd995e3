//! What keeps a database small and quick to open: loading, checkpoints, compaction, copies.
//!
//! One of these at a time; none of them holds up readers, and writers only for the sync that
//! puts a name into the MANIFEST.

use std::cell::RefCell;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use steadfast_core::{
    Clock, CrashPoint, Namespace, NamespaceId, Retention, RetentionDomain, RetentionPolicy,
    Sabotage, Timestamp, TypeTag, Version, check_crash_point, sabotaged, unless,
};
use steadfast_durability::Stage;
use steadfast_durability::compaction::remove_unneeded;
use steadfast_durability::disk::{Access, Disk};
use steadfast_durability::layout::{DiskUsage, Layout, disk_usage};
use steadfast_durability::manifest::{LiveSnapshot, Manifest};
use steadfast_durability::snapshot::{
    Compression, Snapshot, SnapshotMeta, SnapshotOptions, write_snapshot,
};
use steadfast_durability::verify::{Damaged, verify_files};
use steadfast_durability::wal::writer::{NamespaceLookup, WalWriter};
use steadfast_storage::UnifiedStore;

use crate::commit::Pipeline;
use crate::commit_times::CommitTimes;
use crate::config::{CheckpointPolicy, CompactMode};
use crate::deletion::bury;
use crate::error::{Error, ErrorKind, Result};
use crate::loading::{End, LoadStats, Loading, Sources};
use crate::namespaces::Namespaces;
use crate::progress::{Meter, Watch, metered};
use crate::streams::bury_trimmed;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Instant, Mutex, MutexGuard};

/// Keys looked at in one step of trimming; between steps a closing database may stop.
const TRIM_STEP_KEYS: usize = 1 << 16;

/// A writer that makes checkpoints takes files away while a reader checks them; so often it is
/// looked again.
const VERIFY_ATTEMPTS: u32 = 10;

/// Times of commits take this much memory before any are forgotten: about two million commits.
const COMMIT_TIMES_BYTES: usize = 4 << 20;

/// What a checkpoint did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointInfo {
    /// Everything up to this commit is in the snapshot.
    pub watermark: Version,
    /// The number of the snapshot; 0 if there is nothing to keep yet.
    pub snapshot: u64,
    /// When that commit was made.
    pub timestamp: Timestamp,
    /// Whether a snapshot was written; the newest one may have had everything.
    pub written: bool,
    /// Versions of keys in it.
    pub rows: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// How long it took.
    pub duration: Duration,
}

/// What a compaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactInfo {
    /// How far it went.
    pub mode: CompactMode,
    /// Bytes of the files that were removed, less those of the snapshot that took their place.
    pub reclaimed_bytes: u64,
    /// Segments of the log that were removed.
    pub wal_segments_removed: u64,
    /// Snapshots that were removed.
    pub snapshots_removed: u64,
    /// Versions of keys that retention and expiry let go.
    pub versions_removed: u64,
    /// The checkpoint that it made, in [`CompactMode::Full`].
    pub checkpoint: Option<CheckpointInfo>,
    /// How long it took.
    pub duration: Duration,
}

/// Where a database's files are, and how they are written.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) layout: Layout,
    pub(crate) compression: Compression,
}

/// How much space the files take, and how much of it is needed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Space {
    pub(crate) disk: DiskUsage,
    pub(crate) newest: Option<LiveSnapshot>,
    pub(crate) reclaimable_bytes: u64,
    /// Of the log, from the first segment that the newest snapshot needs.
    pub(crate) needed_log: u64,
}

impl Space {
    fn of(disk: DiskUsage) -> Self {
        Self { disk, needed_log: disk.log, ..Self::default() }
    }
}

/// Namespaces by their ids.
pub(crate) type Dictionary = Vec<(NamespaceId, Namespace)>;

/// The domains of what may expire, with their rules.
fn domains_that_expire(
    policy: &RetentionPolicy,
) -> impl Iterator<Item = (RetentionDomain, Retention)> {
    [TypeTag::Kv, TypeTag::Idempotency].into_iter().flat_map(|tag| {
        let domain = move |run| RetentionDomain { run, tag };
        let of_runs = policy.runs().map(move |(run, rule)| (domain(Some(run)), rule));
        std::iter::once((domain(None), policy.of_primitive(tag))).chain(of_runs)
    })
}

/// See the module.
pub(crate) struct Upkeep {
    pub(crate) store: UnifiedStore,
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) times: Arc<CommitTimes>,
    /// `None` for a database that was opened for reading only.
    pub(crate) pipeline: Option<Arc<Pipeline>>,
    pub(crate) clock: Arc<dyn Clock>,
    /// `None` in memory.
    pub(crate) files: Option<Files>,
    /// As it was when the database was opened, if it was for reading only.
    pub(crate) manifest: Option<Manifest>,
    pub(crate) loading: Option<Loading>,
    pub(crate) policy: CheckpointPolicy,
    pub(crate) busy: Mutex<()>,
    /// Damage of the snapshot that was opened has had its consequences.
    pub(crate) distrusted: AtomicBool,
    /// Whatever takes long stops soon.
    pub(crate) stopping: AtomicBool,
}

impl std::fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upkeep").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Upkeep {
    /// Nobody checkpoints, compacts or verifies while this is held.
    pub(crate) fn busy(&self) -> MutexGuard<'_, ()> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn files(&self) -> Result<&Files> {
        let error = || Error::Unsupported("a database in memory has no files".into());
        self.files.as_ref().ok_or_else(error)
    }

    fn pipeline(&self) -> Result<&Arc<Pipeline>> {
        self.pipeline.as_ref().ok_or(Error::Closed("the database was opened for reading only"))
    }

    /// Asks the writer of the log, or changes it.
    fn with_writer<T>(
        &self,
        work: impl FnOnce(&mut WalWriter) -> steadfast_durability::Result<T>,
    ) -> Result<T> {
        let done = self.pipeline()?.with_log(work)?;
        done.ok_or_else(|| Error::Unsupported("a database in memory has no files".into()))
    }

    /// For what nobody asked for: it ends when the database is closed.
    const fn unheard(&self) -> Watch<'_> {
        Watch::new(None, Some(&self.stopping))
    }

    /// The MANIFEST as it is now.
    pub(crate) fn manifest(&self) -> Result<Manifest> {
        match (&self.pipeline, &self.manifest) {
            (Some(_), _) => self.with_writer(|writer| Ok(writer.manifest().clone())),
            (None, Some(manifest)) => Ok(manifest.clone()),
            (None, None) => Err(Error::Unsupported("a database in memory has no files".into())),
        }
    }

    // ---- Loading -------------------------------------------------------------------------

    /// Whether something of the snapshot is not in memory yet.
    pub(crate) fn is_loading(&self) -> bool {
        self.loading.is_some() && !self.store.is_loaded()
    }

    /// Loads one section of the snapshot. Returns whether there was one left.
    pub(crate) fn load_next(&self, end: End) -> Result<bool> {
        let Some(loading) = &self.loading else { return Ok(false) };
        let Files { disk, layout, .. } = self.files()?;
        let sources = Sources { disk: &**disk, layout, manifest: &|| self.manifest() };
        let more = loading.load_next(end, &self.store, &sources);
        if !more && self.store.is_loaded() {
            self.load_times(loading, &sources)?;
        }
        self.distrust_if_damaged(loading)?;
        Ok(more)
    }

    /// Has the times of commits in memory, or given up.
    fn load_times(&self, loading: &Loading, sources: &Sources<'_>) -> Result<()> {
        loading.load_times(&self.times, sources)
    }

    /// Has everything in memory when it returns.
    pub(crate) fn finish_loading(&self, watch: Watch<'_>) -> Result<()> {
        let Some(loading) = &self.loading else { return Ok(()) };
        let Files { disk, layout, .. } = self.files()?;
        let sources = Sources { disk: &**disk, layout, manifest: &|| self.manifest() };
        let finished = match self.store.is_loaded() {
            true => Ok(()),
            false => loading.finish(&self.store, &sources, watch),
        };
        self.load_times(loading, &sources)?;
        self.distrust_if_damaged(loading)?;
        finished
    }

    /// The next snapshot must not be taken to stand on one that is damaged; and it is due.
    fn distrust_if_damaged(&self, loading: &Loading) -> Result<()> {
        let Some(pipeline) = &self.pipeline else { return Ok(()) };
        if !loading.found_damage() || !self.store.is_loaded() {
            return Ok(());
        }
        if self.distrusted.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let number = loading.snapshot().info().number;
        self.with_writer(|writer| writer.distrust_snapshot(number))?;
        if !self.policy.is_manual() {
            pipeline.ask_for_checkpoint();
        }
        Ok(())
    }

    pub(crate) fn load_stats(&self) -> LoadStats {
        self.loading.as_ref().map(Loading::stats).unwrap_or_default()
    }

    // ---- Checkpoints ---------------------------------------------------------------------

    /// Writes a snapshot of what is visible now, if the newest one does not have it.
    pub(crate) fn checkpoint(&self, watch: Watch<'_>) -> Result<CheckpointInfo> {
        let _busy = self.busy();
        let made = self.checkpoint_unless(watch, |newest, version| newest == version);
        self.schedule(made.as_ref().map_or(0, |info| info.bytes))?;
        made
    }

    /// Says when the next checkpoint is due, also after one that failed.
    fn schedule(&self, snapshot_bytes: u64) -> Result<()> {
        let position = self.with_writer(|writer| Ok(writer.position()))?;
        let due = position.saturating_add(self.policy.due_after(snapshot_bytes));
        self.pipeline()?.checkpoint_due_at(due);
        Ok(())
    }

    /// How often a checkpoint is due at the least.
    pub(crate) const fn checkpoint_interval(&self) -> Option<Duration> {
        self.policy.interval
    }

    fn checkpoint_unless(
        &self,
        watch: Watch<'_>,
        has_all: impl FnOnce(Version, Version) -> bool,
    ) -> Result<CheckpointInfo> {
        let started = Instant::now();
        let (files, pipeline) = (self.files()?, self.pipeline()?);
        self.finish_loading(watch)?;
        self.trim_times(&self.manifest()?.retention);
        let (manifest, newest) =
            self.with_writer(|writer| Ok((writer.manifest().clone(), writer.newest_snapshot())))?;
        let visible = self.store.current_version();
        if visible == Version::ZERO || newest.is_some_and(|newest| has_all(newest.version, visible))
        {
            return Ok(CheckpointInfo {
                watermark: visible,
                snapshot: newest.map_or(0, |newest| newest.number),
                timestamp: self.time_of(visible)?,
                written: false,
                rows: 0,
                bytes: 0,
                duration: started.elapsed(),
            });
        }
        check_crash_point(CrashPoint::CheckpointPreFlush);
        // What is committed so far lies in segments that end here, so an opening need not read
        // it, and a compaction can remove all of it.
        let begin = || self.with_writer(WalWriter::begin_segment);
        unless(Sabotage::CheckpointBeforeLogSync, begin)?;
        let view = self.store.view(self.clock.now());
        let version = view.version();
        // What a snapshot holds must be durable in the log before anything names it; so this
        // also says whether anything may be named at all.
        unless(Sabotage::CheckpointBeforeLogSync, || pipeline.sync())?;
        let (number, defined) =
            self.with_writer(|writer| Ok((writer.next_snapshot(), writer.defined_upto(version))))?;
        let namespaces = self.dictionary(defined);
        let timestamp = self.time_of(version)?;
        let meter = RefCell::new(self.writing(watch));
        let rows = metered(&meter, view.range_versions(..));
        let rest = || {
            // The last word: from here on it is finished.
            meter.borrow_mut().end()?;
            let times = self.times.encode_upto(version)?;
            let meta = SnapshotMeta {
                version,
                timestamp,
                created: self.clock.now(),
                namespaces,
                // After the rows: what was dropped while they were read counts.
                floors: self.store.floors(),
                forks: self.store.forks(version),
            };
            Ok((meta, times))
        };
        let options = SnapshotOptions { compression: files.compression };
        let (disk, layout) = (files.disk.clone(), &files.layout);
        let written = write_snapshot(disk, layout, number, manifest.database, options, rows, rest)?;
        let named =
            self.with_writer(|writer| writer.name_snapshot(number, version, written.checksum));
        if let Err(error) = named {
            if error.kind() != ErrorKind::Poisoned {
                let _ = files.disk.remove(&files.layout.snapshot(number));
            }
            return Err(error);
        }
        if sabotaged(Sabotage::NameSnapshotBeforeSync) {
            let file = files.disk.open(&layout.snapshot(number), Access::Write);
            let _ = file.and_then(|file| file.sync_all());
            let _ = files.disk.sync_dir(&layout.snapshots());
        }
        check_crash_point(CrashPoint::CheckpointPostFlush);
        let info = CheckpointInfo {
            watermark: version,
            snapshot: number,
            timestamp,
            written: true,
            rows: written.rows,
            bytes: written.file_bytes,
            duration: started.elapsed(),
        };
        log::info!("checkpoint: {info:?}");
        Ok(info)
    }

    /// The time of the newest commit up to `version`.
    pub(crate) fn time_of(&self, version: Version) -> Result<Timestamp> {
        Ok(self.times.ask(|timeline| timeline.time_of(version))?.unwrap_or(Timestamp::ZERO))
    }

    /// How much space the files take.
    pub(crate) fn space(&self) -> Result<Space> {
        let Some(Files { disk, layout, .. }) = &self.files else { return Ok(Space::default()) };
        let usage = disk_usage(&**disk, layout)?;
        let manifest = match self.manifest() {
            // What took too long to be let in, or was poisoned, still has its files.
            Err(Error::Closed(_)) | Err(Error::Poisoned { .. }) => return Ok(Space::of(usage)),
            manifest => manifest?,
        };
        let mut space = Space { newest: manifest.newest_snapshot().copied(), ..Space::of(usage) };
        let first = space.newest.map_or(0, |newest| newest.first_segment);
        let length =
            |path: &Path| disk.open(path, Access::Read).and_then(|file| file.len()).unwrap_or(0);
        let numbers = manifest.oldest_segment..first.max(manifest.oldest_segment);
        let covered: u64 = numbers.map(|number| length(&layout.segment(number))).sum();
        let newest = space.newest.map_or(0, |newest| length(&layout.snapshot(newest.number)));
        space.needed_log = usage.log.saturating_sub(covered);
        space.reclaimable_bytes = covered + usage.snapshots.saturating_sub(newest);
        Ok(space)
    }

    /// Has everything visible durable when it returns. What was opened for reading is.
    pub(crate) fn make_durable(&self) -> Result<()> {
        self.pipeline.as_ref().map_or(Ok(()), |pipeline| pipeline.sync())
    }

    /// These namespaces by their ids.
    pub(crate) fn dictionary(&self, ids: Vec<NamespaceId>) -> Dictionary {
        let lookup = |id| Some((id, self.namespaces.namespace(id)?));
        ids.into_iter().filter_map(lookup).collect()
    }

    /// Above every version that may have been given out.
    pub(crate) fn next_version(&self) -> Result<Version> {
        match &self.pipeline {
            Some(pipeline) => Ok(pipeline.assigned().next()),
            None => Ok(self.store.current_version().next()),
        }
    }

    /// Changes the policy, in the MANIFEST first.
    pub(crate) fn set_retention(&self, retention: RetentionPolicy) -> Result<()> {
        // What is only in the snapshot was kept by the old policy.
        self.finish_loading(self.unheard())?;
        self.pipeline()?.with_log(|writer| writer.set_retention(retention.clone()))?;
        let of_rule = |id| {
            let run = self.namespaces.namespace(id)?.run();
            retention.of_run(run).map(|_| (id, run))
        };
        let ruled: Vec<_> = self.namespaces.ids().into_iter().filter_map(of_rule).collect();
        self.store.set_policy(retention, ruled);
        Ok(())
    }

    // ---- Compaction ----------------------------------------------------------------------

    /// Removes what is not needed any more.
    pub(crate) fn compact(&self, mode: CompactMode, watch: Watch<'_>) -> Result<CompactInfo> {
        let _busy = self.busy();
        let started = Instant::now();
        if self.files.is_none() && mode == CompactMode::Full {
            let versions_removed = self.trim(watch)?;
            return Ok(CompactInfo {
                mode,
                reclaimed_bytes: 0,
                wal_segments_removed: 0,
                snapshots_removed: 0,
                versions_removed,
                checkpoint: None,
                duration: started.elapsed(),
            });
        }
        let Files { disk, layout, .. } = self.files()?;
        let (mut versions_removed, mut checkpoint) = (0, None);
        if mode == CompactMode::Full {
            self.finish_loading(watch)?;
            versions_removed = self.trim(watch)?;
            let kept = self.store.stats().versions;
            // One that cannot be opened any more has nothing: everything is in memory, so a new
            // one mends that.
            let newest = self.manifest()?.newest_snapshot().copied();
            let newest = newest.and_then(|newest| self.open(newest.number).ok());
            let rows = newest.map(|snapshot| snapshot.info().rows);
            checkpoint = Some(self.checkpoint_unless(watch, |newest, version| {
                newest == version && rows == Some(kept as u64)
            })?);
        }
        self.trust_newest(watch)?;
        let needed = self.with_writer(|writer| Ok(writer.needed()))?;
        let removed = remove_unneeded(&**disk, layout, &needed)?;
        let taken = checkpoint.as_ref().map_or(0, |made: &CheckpointInfo| made.bytes);
        Ok(CompactInfo {
            mode,
            reclaimed_bytes: removed.bytes.saturating_sub(taken),
            wal_segments_removed: removed.segments,
            snapshots_removed: removed.snapshots,
            versions_removed,
            checkpoint,
            duration: started.elapsed(),
        })
    }

    /// Deletes what deleted runs held and what was trimmed, and lets go of what retention and expiry do not keep.
    /// Returns how many versions.
    fn trim(&self, watch: Watch<'_>) -> Result<u64> {
        let (now, mut from, mut versions) = (self.clock.now(), Vec::new(), 0);
        let mut step_bytes = 0;
        let mut meter = watch.stage(Stage::Trim, || {
            let stats = self.store.stats();
            let steps = stats.entries.div_ceil(TRIM_STEP_KEYS).max(1);
            step_bytes = stats.payload_bytes as u64 / steps as u64;
            stats.payload_bytes as u64
        });
        bury(&self.store, self.namespaces.ids(), |bytes| meter.add(bytes))?;
        bury_trimmed(&self.store, self.namespaces.ids(), now, |bytes| meter.add(bytes))?;
        loop {
            let trimmed = self.store.trim(now, &from, TRIM_STEP_KEYS);
            versions += trimmed.versions as u64;
            meter.add(step_bytes)?;
            match trimmed.next {
                Some(next) => from = next,
                None => break,
            }
        }
        meter.end()?;
        Ok(versions)
    }

    /// The writing of everything there is.
    pub(crate) fn writing<'a>(&self, watch: Watch<'a>) -> Meter<'a> {
        watch.stage(Stage::Write, || {
            let beneath = self.loading.as_ref().map_or(0, Loading::bytes_to_load);
            self.store.stats().payload_bytes as u64 + beneath
        })
    }

    /// Forgets when the oldest commits were made, if there are very many: all but those in the
    /// history of what may expire, if any is kept. Views below the oldest one that is known are
    /// not given any more, since what had expired then could not be told.
    fn trim_times(&self, policy: &RetentionPolicy) {
        if self.times.heap_bytes() < COMMIT_TIMES_BYTES {
            return;
        }
        let floors = self.store.floors();
        let floor_of = |domain: RetentionDomain| {
            let floor = floors.iter().find(|floor| floor.0 == domain);
            floor.map_or(Version::ZERO, |floor| floor.1.version)
        };
        let kept = domains_that_expire(policy).filter(|(_, rule)| *rule != Retention::NEWEST);
        let keep_from = kept.map(|(domain, _)| floor_of(domain)).min().unwrap_or(Version::MAX);
        self.times.trim(keep_from.min(self.store.current_version()));
    }

    fn open(&self, number: u64) -> Result<Snapshot> {
        let Files { disk, layout, .. } = self.files()?;
        Ok(Snapshot::open(&**disk, layout, number, self.manifest()?.database)?)
    }

    /// Reads the newest snapshot back from the device, and gives up what is kept in case that
    /// fails.
    fn trust_newest(&self, watch: Watch<'_>) -> Result<()> {
        let manifest = self.manifest()?;
        let Some(newest) = manifest.newest_snapshot() else {
            if self.store.current_version() == Version::ZERO {
                return Ok(());
            }
            let text = "there is no checkpoint yet: nothing of the log can be removed";
            return Err(Error::Invalid(text.into()));
        };
        if !newest.verified && !sabotaged(Sabotage::TrustSnapshotUnread) {
            let number = newest.number;
            let checked = self.open(number).and_then(|snapshot| {
                watch.over(|listener| snapshot.verify_with(listener).map(drop))
            });
            if let Err(error) = checked {
                if error.kind() == ErrorKind::Corruption {
                    self.with_writer(|writer| writer.distrust_snapshot(number))?;
                }
                return Err(error);
            }
        }
        let number = newest.number;
        self.with_writer(|writer| writer.trust_snapshot(number))
    }

    /// Reads every byte that the MANIFEST needs back from the device. Returns what is not as it
    /// was written.
    pub(crate) fn verify(&self, watch: Watch<'_>) -> Result<Vec<Damaged>> {
        let _busy = self.busy();
        let Files { disk, layout, .. } = self.files()?;
        let mut manifest = self.manifest()?;
        let needed = |manifest: &Manifest| (manifest.snapshots.clone(), manifest.oldest_segment);
        for attempt in 1.. {
            let found = watch.over(|listener| verify_files(&**disk, layout, &manifest, listener));
            let settled = match &found {
                Ok(damaged) => damaged.is_empty(),
                Err(error) => matches!(error.kind(), ErrorKind::Stopped | ErrorKind::Closed),
            };
            if settled || self.pipeline.is_some() || attempt == VERIFY_ATTEMPTS {
                return found;
            }
            // Somebody else writes: files that went because nothing names them any more are no
            // damage.
            match Manifest::read(&**disk, layout)? {
                Some(now) if needed(&now) != needed(&manifest) => manifest = now,
                _ => return found,
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Makes a checkpoint and removes what it makes superfluous: what the background thread
    /// does when it is time.
    pub(crate) fn checkpoint_and_compact(&self) -> Result<()> {
        let watch = self.unheard();
        let ready = self.finish_loading(watch).and_then(|()| self.trim(watch));
        if let Err(error) = ready {
            // Tried again when the next one is due.
            self.schedule(0)?;
            return Err(error);
        }
        self.checkpoint(watch)?;
        self.compact(CompactMode::WalOnly, watch).map(drop)
    }
}
