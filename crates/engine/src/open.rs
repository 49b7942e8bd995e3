//! Opening a database: what may be there, and what each way of opening makes of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use steadfast_core::{
    Namespace, NamespaceId, Record, ReplayTarget, RetentionPolicy, Sabotage, Version, sabotaged,
};
use steadfast_durability::disk::{Disk, EntryKind, Lock, LockGuard};
use steadfast_durability::layout::{Layout, ROOT_NAMES};
use steadfast_durability::manifest::Manifest;
use steadfast_durability::recovery::{
    LogClass, Opened, Recovered, RecoveryReport, holds_valid_segment, holds_valid_snapshot,
    open_snapshot, recover,
};
use steadfast_durability::snapshot::Snapshot;
use steadfast_durability::wal::chain::Beside;
use steadfast_durability::wal::writer::{WalOptions, WalWriter};
use steadfast_durability::{CorruptionKind, this_process};
use steadfast_storage::UnifiedStore;

use crate::commit::{Log, Start};
use crate::commit_times::CommitTimes;
use crate::config::{DatabaseBuilder, DurabilityMode};
use crate::database::{Database, Parts};
use crate::error::{Error, ErrorKind, Result};
use crate::namespaces::Namespaces;
use crate::progress::tell;
use crate::sync::Instant;

/// What the caller wants of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    Create,
    OpenExisting,
    OpenOrCreate,
}

/// A reader beside a writer asks for the lock for a moment; this long a writer tries again.
const LOCK_PATIENCE: Duration = Duration::from_millis(100);

/// A reader beside a writer may meet the log in the middle of a change; it looks again this
/// often before it believes what it saw.
const READ_ATTEMPTS: u32 = 40;
const READ_PAUSE: Duration = Duration::from_millis(25);

/// What a database holds in memory, as it is put together by opening.
pub(crate) struct Contents {
    pub(crate) store: UnifiedStore,
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) times: Arc<CommitTimes>,
    pub(crate) snapshot: Option<Arc<Snapshot>>,
}

impl Contents {
    /// Nothing yet.
    pub(crate) fn empty(retention: RetentionPolicy) -> Self {
        Self {
            store: UnifiedStore::with_retention(retention),
            namespaces: Arc::default(),
            times: Arc::default(),
            snapshot: None,
        }
    }

    /// What the snapshot has, without reading it: the store asks for it when it is needed.
    pub(crate) fn on(retention: RetentionPolicy, opened: &Opened) -> Self {
        let mut contents = Self::empty(retention);
        let Some(snapshot) = &opened.snapshot else { return contents };
        let meta = snapshot.meta();
        for (id, namespace) in &meta.namespaces {
            contents.define_namespace(*id, namespace);
        }
        contents.store.raise_floors(&meta.floors);
        contents.store.note_forks(&meta.forks);
        contents.store.attach_table(snapshot.clone());
        contents.times = Arc::new(CommitTimes::after(Some(snapshot.clone())));
        contents.snapshot = Some(snapshot.clone());
        contents
    }
}

impl ReplayTarget for Contents {
    fn apply(&self, run: Vec<Record>) {
        self.times.push(run.iter().map(|record| (record.version(), record.timestamp())));
        ReplayTarget::apply(&self.store, run);
    }

    fn define_namespace(&self, id: NamespaceId, namespace: &Namespace) {
        self.store.define_namespace(id, namespace);
        self.namespaces.define(id, namespace);
    }

    fn finish(&self, version: Version) {
        self.store.finish(version);
    }
}

pub(crate) fn io(
    layout: &Layout,
    path: &Path,
    action: &'static str,
    source: std::io::Error,
) -> Error {
    steadfast_durability::Error::Io { file: layout.label(path), action, source }.into()
}

/// What a directory looks like before anything is opened.
enum Place {
    Missing,
    /// Nothing, or the beginnings of a database that was never finished.
    Unborn,
    /// The beginnings of a copy that was never finished.
    UnfinishedCopy,
    Database,
}

/// What tells a directory with an unfinished copy from a database that lost its MANIFEST: a file
/// that is there before anything else, and goes when the MANIFEST is durable.
pub(crate) mod unfinished_copy {
    use super::{Disk, Layout, Result, io};
    use steadfast_durability::disk::Access;

    /// Says that a copy begins here.
    pub(crate) fn mark(disk: &dyn Disk, layout: &Layout) -> Result<()> {
        if is_there(disk, layout)? {
            return Ok(());
        }
        let (path, root) = (layout.copying(), layout.root());
        let made = disk.create(&path, Access::Write).and_then(|file| file.sync_all());
        made.map_err(|error| io(layout, &path, "create", error))?;
        disk.sync_dir(root).map_err(|error| io(layout, root, "sync the directory", error))
    }

    /// Says that it is finished: its MANIFEST is durable. A crash may come between the two, so
    /// the next opening for writing says it again.
    pub(crate) fn unmark(disk: &dyn Disk, layout: &Layout) -> Result<()> {
        let (path, root) = (layout.copying(), layout.root());
        disk.remove(&path).map_err(|error| io(layout, &path, "remove", error))?;
        disk.sync_dir(root).map_err(|error| io(layout, root, "sync the directory", error))
    }

    /// Whether a copy has begun and, if there is no MANIFEST, was not finished.
    pub(crate) fn is_there(disk: &dyn Disk, layout: &Layout) -> Result<bool> {
        let path = layout.copying();
        let kind = disk.kind(&path).map_err(|error| io(layout, &path, "look for", error))?;
        Ok(kind.is_some())
    }
}

/// Whether nothing is in a directory that anybody could miss.
pub(crate) fn is_vacant(disk: &dyn Disk, layout: &Layout) -> Result<bool> {
    Ok(matches!(look(disk, layout)?, Place::Missing | Place::Unborn | Place::UnfinishedCopy))
}

fn look(disk: &dyn Disk, layout: &Layout) -> Result<Place> {
    let root = layout.root();
    match disk.kind(root).map_err(|error| io(layout, root, "look at", error))? {
        None => return Ok(Place::Missing),
        Some(EntryKind::Directory) => {}
        Some(_) => return Err(Error::Invalid(format!("{}: not a directory", root.display()))),
    }
    let manifest = layout.manifest();
    if disk.kind(&manifest).map_err(|error| io(layout, &manifest, "look for", error))?.is_some() {
        return Ok(Place::Database);
    }
    if unfinished_copy::is_there(disk, layout)? {
        return Ok(Place::UnfinishedCopy);
    }
    if holds_valid_segment(disk, layout)? || holds_valid_snapshot(disk, layout)? {
        let (file, kind) = ("MANIFEST".to_owned(), CorruptionKind::Missing);
        return Err(steadfast_durability::Error::Corrupt { file, offset: 0, kind }.into());
    }
    let names = disk.list(root).map_err(|error| io(layout, root, "list", error))?;
    match names.iter().find(|name| !ROOT_NAMES.contains(&name.as_str())) {
        None => Ok(Place::Unborn),
        Some(name) => Err(Error::Invalid(format!(
            "{}: not a database, and not empty: it holds {name:?}",
            root.display()
        ))),
    }
}

fn unfinished(layout: &Layout) -> Error {
    let path = layout.root().display();
    Error::NotFound(format!("{path}: a copy that was not finished; make it again"))
}

fn not_found(layout: &Layout) -> Error {
    Error::NotFound(format!("{}: no database there", layout.root().display()))
}

pub(crate) fn create_directories(disk: &dyn Disk, layout: &Layout, path: &Path) -> Result<()> {
    if path.as_os_str().is_empty()
        || disk.kind(path).map_err(|error| io(layout, path, "look at", error))?.is_some()
    {
        return Ok(());
    }
    let parent = path.parent().unwrap_or_else(|| Path::new(""));
    create_directories(disk, layout, parent)?;
    disk.create_dir(path).map_err(|error| io(layout, path, "create", error))?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    // Without this the whole database may be gone after a power cut.
    disk.sync_dir(parent).map_err(|error| io(layout, parent, "sync the directory", error))
}

pub(crate) fn lock(disk: &dyn Disk, layout: &Layout) -> Result<Box<dyn LockGuard>> {
    let path = layout.lock();
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match disk.lock(&path).map_err(|error| io(layout, &path, "lock", error))? {
            Lock::Taken(guard) => return Ok(guard),
            Lock::Held(holder) if Instant::now() >= until => {
                let holder = if holder.is_empty() { "somebody".into() } else { holder };
                return Err(Error::Busy { path: layout.root().display().to_string(), holder });
            }
            Lock::Held(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Makes the directories and, last of all, the MANIFEST: a crash before that leaves nothing
/// that would count as a database.
fn create(builder: &DatabaseBuilder, layout: &Layout) -> Result<Manifest> {
    let disk = &*builder.disk;
    for directory in [layout.wal(), layout.snapshots()] {
        disk.create_dir(&directory).map_err(|error| io(layout, &directory, "create", error))?;
    }
    let root = layout.root();
    disk.sync_dir(root).map_err(|error| io(layout, root, "sync the directory", error))?;
    // An earlier attempt may have made the directory and not come as far as this.
    let parent = match root.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => root,
    };
    disk.sync_dir(parent).map_err(|error| io(layout, parent, "sync the directory", error))?;
    for above in parent.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        // It may have made these too. Not all can be synced: some belong to other systems.
        let _ = disk.sync_dir(above);
    }
    let retention = builder.config.retention.clone().unwrap_or_default();
    let manifest = Manifest::new(builder.entropy.next_16(), builder.clock.now(), retention);
    manifest.write(disk, layout)?;
    log::info!("{}: created", root.display());
    Ok(manifest)
}

/// Opens for reading and writing.
pub(crate) fn open(builder: DatabaseBuilder, intent: Intent) -> Result<Database> {
    builder.config.check()?;
    let started = Instant::now();
    let layout = Layout::new(&builder.path);
    let disk = builder.disk.clone();
    match (look(&*disk, &layout)?, intent) {
        (Place::Missing | Place::Unborn, Intent::OpenExisting) => return Err(not_found(&layout)),
        (Place::UnfinishedCopy, _) => return Err(unfinished(&layout)),
        (Place::Database, Intent::Create) => {
            let path = layout.root().display();
            return Err(Error::Invalid(format!("{path}: there is a database already")));
        }
        (Place::Missing, _) => create_directories(&*disk, &layout, layout.root())?,
        _ => {}
    }
    let guard = lock(&*disk, &layout)?;
    // Somebody may have been faster.
    let mut manifest = match Manifest::read(&*disk, &layout)? {
        Some(_) if intent == Intent::Create => {
            let path = layout.root().display();
            return Err(Error::Invalid(format!("{path}: there is a database already")));
        }
        Some(manifest) => {
            if unfinished_copy::is_there(&*disk, &layout)? {
                // It was finished; only saying so was not.
                unfinished_copy::unmark(&*disk, &layout)?;
            }
            manifest
        }
        None if unfinished_copy::is_there(&*disk, &layout)? => return Err(unfinished(&layout)),
        None => create(&builder, &layout)?,
    };
    let opened = open_snapshot(&*disk, &layout, &manifest, builder.config.policy)?;
    let wanted = builder.config.retention.clone().unwrap_or_else(|| manifest.retention.clone());
    let changed = wanted != manifest.retention;
    if opened.snapshot.is_none() {
        // The log has everything it ever had.
        manifest.retention.clone_from(&wanted);
    }
    let contents = Contents::on(manifest.retention.clone(), &opened);
    let policy = builder.config.policy;
    let recovered = recover(
        &*disk,
        &layout,
        &manifest,
        opened,
        &contents,
        policy,
        Beside::Nobody,
        &mut |progress| tell(builder.progress.as_ref(), progress),
    )?;
    let options = WalOptions {
        segment_bytes: builder.config.segment_bytes,
        direct: builder.config.mode == DurabilityMode::Strict,
    };
    let (manifest, resume, mut report) =
        recovered.prepare_writing(&disk, &layout, options, &builder.entropy)?;
    report.duration = started.elapsed();
    // A courtesy to those who will be refused; a full disk must not keep anybody out.
    if let Err(error) = guard.note_holder(&this_process()) {
        log::warn!("LOCK: cannot note who holds it: {error}");
    }
    let start_at = (resume.next_version, resume.last);
    // The log that lies behind the snapshot counts towards the next one.
    let due = builder.config.checkpoints.due_after(snapshot_bytes(&contents));
    let checkpoint_at = resume.position.saturating_add(due.saturating_sub(report.stats.bytes));
    let writer = WalWriter::new(
        disk,
        layout.clone(),
        options,
        manifest,
        resume,
        builder.entropy.clone(),
        contents.namespaces.clone(),
    );
    let start = Start {
        log: Log::Disk(Box::new(writer)),
        next_version: start_at.0,
        last_timestamp: start_at.1.1,
        // Recovery showed nothing that it had not made durable.
        promised: start_at.1.0,
        checkpoint_at,
    };
    let database = Database::assemble(Parts {
        builder,
        layout: Some(layout),
        manifest: None,
        contents,
        report,
        start: Some(start),
        lock: Some(guard),
        started,
    })?;
    if changed {
        database.set_retention(wanted)?;
    }
    Ok(database)
}

fn snapshot_bytes(contents: &Contents) -> u64 {
    contents.snapshot.as_ref().map_or(0, |snapshot| snapshot.info().file_bytes)
}

/// Opens for reading only, also beside a writer: no lock is kept and nothing is written.
pub(crate) fn open_read_only(builder: DatabaseBuilder) -> Result<Database> {
    let started = Instant::now();
    let layout = Layout::new(&builder.path);
    let disk = builder.disk.clone();
    let mut attempt = 0;
    let (contents, mut report, manifest) = loop {
        attempt += 1;
        let live = disk.is_locked(&layout.lock()).unwrap_or(false);
        let beside = if live { Beside::AWriter } else { Beside::Nobody };
        let Some(manifest) = existing(&*disk, &layout)? else { return Err(not_found(&layout)) };
        let error = match read_once(&builder, &layout, &manifest, beside) {
            Ok((contents, report)) => break (contents, report, manifest),
            Err(error) => error,
        };
        // A file that vanished or a change half made is no damage: look again while somebody
        // is writing, or was until a moment ago.
        let changed = existing(&*disk, &layout)?.is_none_or(|now| now != manifest);
        if !(live || changed) || attempt == READ_ATTEMPTS || error.kind() == ErrorKind::Stopped {
            return Err(error);
        }
        std::thread::sleep(READ_PAUSE);
    };
    report.duration = started.elapsed();
    Database::assemble(Parts {
        builder,
        layout: Some(layout),
        manifest: Some(manifest),
        contents,
        report,
        start: None,
        lock: None,
        started,
    })
}

/// The MANIFEST of the database in a directory; `None` if there is no database.
fn existing(disk: &dyn Disk, layout: &Layout) -> Result<Option<Manifest>> {
    match look(disk, layout)? {
        Place::Missing | Place::Unborn => Ok(None),
        Place::UnfinishedCopy => Err(unfinished(layout)),
        Place::Database => Ok(Manifest::read(disk, layout)?),
    }
}

fn read_once(
    builder: &DatabaseBuilder,
    layout: &Layout,
    manifest: &Manifest,
    beside: Beside,
) -> Result<(Contents, RecoveryReport)> {
    let disk = builder.disk.clone();
    let retention = || manifest.retention.clone();
    let opened = open_snapshot(&*disk, layout, manifest, builder.config.policy)?;
    let contents = Contents::on(retention(), &opened);
    let policy = builder.config.policy;
    let recovered: Recovered =
        recover(&*disk, layout, manifest, opened, &contents, policy, beside, &mut |progress| {
            tell(builder.progress.as_ref(), progress)
        })?;
    recovered.check_whole()?;
    if sabotaged(Sabotage::ReadOnlyWrites) {
        manifest.write(&*disk, layout)?;
    }
    if recovered.sync_for_reading(&*disk, layout) {
        return Ok((contents, recovered.report().clone()));
    }
    let contents = Contents::on(retention(), recovered.opened());
    let report = recovered.replay_promised(&contents)?;
    Ok((contents, report))
}

/// Opens for reading and writing if `version` of `epoch` is still there.
pub(crate) fn open_expecting(
    builder: DatabaseBuilder,
    epoch: steadfast_durability::wal::segment::Epoch,
    version: Version,
) -> Result<Database> {
    let layout = Layout::new(&builder.path);
    let disk = builder.disk.clone();
    let Some(manifest) = existing(&*disk, &layout)? else { return Err(not_found(&layout)) };
    let Some(at) = manifest.epochs.iter().position(|start| start.epoch == epoch) else {
        return Err(Error::Diverged(format!("it never had epoch {}", epoch.counter)));
    };
    if let Some(next) = manifest.epochs.get(at + 1)
        && next.recovered < version
    {
        return Err(Error::Diverged(format!(
            "of epoch {} it kept version {} and nothing later; version {version} was expected",
            epoch.counter, next.recovered
        )));
    }
    // Read first without changing anything: a refusal must leave the evidence as it is.
    let (contents, report) = {
        let mut reading = DatabaseBuilder::new(&builder.path);
        reading.disk = disk;
        read_once(&reading, &layout, &manifest, Beside::Nobody)?
    };
    if contents.store.current_version() < version {
        let mut report = report;
        report.log = LogClass::LostTail;
        report.promised_version = Some(version);
        return Err(steadfast_durability::Error::Refused(Box::new(report)).into());
    }
    drop(contents);
    open(builder, Intent::OpenExisting)
}
