//! Taking out of a damaged database what can be taken, into a new one.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Mutex;

use steadfast_core::{NamespaceId, Record, ReplayTarget, SortedTable, Timestamp, Version};
use steadfast_durability::layout::Layout;
use steadfast_durability::manifest::Manifest;
use steadfast_durability::recovery::{
    Opened, RecoveryPolicy, RecoveryReport, open_snapshot, recover,
};
use steadfast_durability::snapshot::{SnapshotMeta, salvage_rows};
use steadfast_durability::wal::chain::Beside;
use steadfast_durability::wal::writer::NamespaceLookup;
use steadfast_durability::{Error as DiskError, Stage, manifest_from_files};

use crate::config::DatabaseBuilder;
use crate::copy::{CopyInfo, Source, write_copy};
use crate::database::Database;
use crate::error::{Error, ErrorKind, Result};
use crate::loading::{Loading, Sources};
use crate::losses::{Found, Loss, Lost, RunNames};
use crate::open::{Contents, is_vacant};
use crate::progress::{Watch, metered, tell};
use crate::sync::Instant;
use crate::view::View;

/// What salvaging found, and what it could not take along.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SalvageReport {
    /// What the log and the snapshots were found to be.
    pub recovery: RecoveryReport,
    /// The newest version that was taken along.
    pub version: Version,
    /// Versions of keys that were taken along.
    pub rows: u64,
    /// What was lost, and what it may have held.
    pub losses: Vec<Loss>,
    /// The MANIFEST was missing or damaged, and was made up from the files.
    pub manifest_made_up: bool,
    /// The new database; `None` if it was only a trial.
    pub copy: Option<CopyInfo>,
}

/// Takes what can be read of the database in the directory `damaged`, which is not changed, into
/// a new database in the directory `target`, which must be missing or empty: the longest valid
/// prefix of the log, on what can be read of the newest snapshot. Without a `target`, only says
/// what it would take.
///
/// It accepts any loss: what acknowledged commits are missing is in the report. Nobody may have
/// the database open for writing.
///
/// # Errors
///
/// Kind `NotFound` if there is nothing that was ever a database; `Busy`; `Io`; `Invalid` if
/// `target` holds anything; `Stopped` if whoever [`DatabaseBuilder::on_progress`] tells wants no
/// more of it.
pub fn salvage(damaged: impl AsRef<Path>, target: Option<&Path>) -> Result<SalvageReport> {
    salvage_with(Database::builder(damaged), target)
}

/// As [`salvage`], with everything that can be chosen about opening.
pub fn salvage_with(builder: DatabaseBuilder, target: Option<&Path>) -> Result<SalvageReport> {
    let layout = Layout::new(&builder.path);
    let disk = builder.disk.clone();
    if disk.is_locked(&layout.lock()).unwrap_or(false) {
        let path = layout.root().display().to_string();
        return Err(Error::Busy { path, holder: "somebody who writes to it".into() });
    }
    if let Some(target) = target
        && !is_vacant(&*disk, &Layout::new(target))?
    {
        let path = target.display();
        return Err(Error::Invalid(format!("{path}: not empty; salvage needs a new directory")));
    }
    let (manifest, manifest_made_up) = match Manifest::read(&*disk, &layout) {
        Ok(Some(manifest)) => (manifest, false),
        Ok(None) | Err(DiskError::Corrupt { .. }) => (manifest_from_files(&*disk, &layout)?, true),
        Err(error) => return Err(error.into()),
    };
    let watch = Watch::new(builder.progress.as_ref(), None);
    let mut losses = Vec::new();
    let policy = RecoveryPolicy::AcceptLoss;
    let opened = open_snapshot(&*disk, &layout, &manifest, policy)?;
    let contents = Contents::on(manifest.retention.clone(), &opened);
    let sources = Sources { disk: &*disk, layout: &layout, manifest: &|| Ok(manifest.clone()) };
    match &opened.snapshot {
        Some(_) => load(&contents, &sources, watch, &mut losses)?,
        // Where the log has everything, nothing of the snapshot is needed.
        None if opened.is_corrupt() => take_rows(&contents, &sources, &opened, &mut losses)?,
        None => {}
    }
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
    let report = recovered.report().clone();
    if let Some(damage) = &report.damage {
        let last = report.last_version;
        losses.push(Found::damage(damage, Lost::Commits { after: last }));
    }
    let view = contents.store.view(builder.clock.now());
    let version = view.version();
    // Told at last: only now is known what the runs are called.
    let runs = run_names(&contents, builder.clock.now());
    let mut result = SalvageReport {
        version,
        rows: contents.store.stats().versions as u64,
        losses: losses.into_iter().map(|found| found.named(&runs)).collect(),
        manifest_made_up,
        copy: None,
        recovery: report,
    };
    if let Some(target) = target {
        let times = &contents.times;
        let lookup = |id: NamespaceId| Some((id, contents.namespaces.namespace(id)?));
        let timestamp = times.ask(|times| times.time_of(version))?.unwrap_or_default();
        let payload = || contents.store.stats().payload_bytes as u64;
        let meter = RefCell::new(watch.stage(Stage::Write, payload));
        let rest = || {
            meter.borrow_mut().end()?;
            let meta = SnapshotMeta {
                version,
                timestamp,
                created: builder.clock.now(),
                namespaces: contents.namespaces.ids().into_iter().filter_map(lookup).collect(),
                floors: contents.store.floors(),
                forks: contents.store.forks(version),
            };
            Ok((meta, times.encode_upto(version)?))
        };
        let source = Source {
            upto: (version, timestamp),
            rest,
            rows: metered(&meter, view.range_versions(..)),
            next_version: recovered.next_version().max(version.next()),
            manifest,
        };
        let compression = builder.config.compression;
        result.copy = Some(write_copy(&disk, target, compression, source, watch)?);
    }
    Ok(result)
}

/// Loads the snapshot, with what can be read of the sections that are damaged and cannot be
/// rebuilt.
fn load(
    contents: &Contents,
    sources: &Sources<'_>,
    watch: Watch<'_>,
    losses: &mut Vec<Found>,
) -> Result<()> {
    let Some(snapshot) = &contents.snapshot else { return Ok(()) };
    let loading = Loading::new(snapshot.clone(), Instant::now());
    match loading.finish(&contents.store, sources, watch) {
        Err(error) if error.kind() != ErrorKind::Corruption && error.kind() != ErrorKind::Io => {
            return Err(error);
        }
        // What cannot be loaded is salvaged as far as it goes.
        Err(_) | Ok(()) => {}
    }
    loading.load_times(&contents.times, sources)?;
    losses.extend(loading.lost_times().map(|error| Found::table(&error, Lost::CommitTimes)));
    let failed = loading.failed();
    if failed.is_empty() {
        return Ok(());
    }
    let mut sections: Vec<(usize, Vec<Record>)> =
        failed.into_iter().map(|section| (section, Vec::new())).collect();
    let number = snapshot.info().number;
    let Sources { disk, layout, .. } = sources;
    let salvaged = salvage_rows(*disk, layout, number, snapshot.database(), |row| {
        let section = snapshot.section_of(row.key());
        if let Some((_, rows)) = sections.iter_mut().find(|(failed, _)| *failed == section) {
            rows.push(row);
        }
    })?;
    let upto = Some(snapshot.meta().version);
    losses.extend(salvaged.losses.into_iter().map(|piece| Found::Piece(piece, upto)));
    for (section, rows) in sections {
        contents.store.supply_section(section, rows);
    }
    Ok(())
}

/// Takes rows out of the newest snapshot although it cannot be opened.
fn take_rows(
    contents: &Contents,
    sources: &Sources<'_>,
    opened: &Opened,
    losses: &mut Vec<Found>,
) -> Result<()> {
    let Sources { disk, layout, manifest } = sources;
    let manifest = manifest()?;
    let Some(newest) = manifest.newest_snapshot() else { return Ok(()) };
    losses.extend(opened.damage().map(|damage| Found::damage(damage, Lost::Directory)));
    let rows = Mutex::new(Vec::new());
    let taken = salvage_rows(*disk, layout, newest.number, manifest.database, |row| {
        rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(row);
    });
    let salvaged = match taken {
        Ok(salvaged) => salvaged,
        Err(error) => {
            losses.push(Found::Known(Loss {
                file: Layout::snapshot_label(newest.number),
                offset: 0,
                bytes: None,
                damage: error.to_string(),
                lost: Lost::Rows {
                    after: None,
                    before: None,
                    versions: (Version(1), Some(newest.version)),
                },
            }));
            return Ok(());
        }
    };
    let found = |piece| Found::Piece(piece, Some(newest.version));
    losses.extend(salvaged.losses.into_iter().map(found));
    match &salvaged.meta {
        Some(meta) => {
            for (id, namespace) in &meta.namespaces {
                contents.define_namespace(*id, namespace);
            }
            contents.store.raise_floors(&meta.floors);
            contents.store.note_forks(&meta.forks);
        }
        None => losses.push(Found::Known(Loss {
            file: Layout::snapshot_label(newest.number),
            offset: 0,
            bytes: None,
            damage: "the block that says what it is cannot be read".into(),
            lost: Lost::RunNames,
        })),
    }
    let mut rows = rows.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    rows.sort_by_key(Record::version);
    let newest = rows.last().map(Record::version);
    let upto = salvaged.meta.as_ref().map(|meta| meta.version).max(newest);
    ReplayTarget::apply(contents, rows);
    // The log may have nothing behind it.
    contents.finish(upto.unwrap_or(Version::ZERO));
    Ok(())
}

/// What the runs are called, as far as that can be read.
fn run_names(contents: &Contents, now: Timestamp) -> RunNames {
    let (inner, namespaces) = (contents.store.view(now), contents.namespaces.clone());
    let runs = View { inner, namespaces }.list_runs().unwrap_or_default();
    runs.into_iter().map(|info| (info.run.namespace, info.name)).collect()
}
