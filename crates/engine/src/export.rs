//! One run as one file: a sorted table of its own, checked block by block, that any database
//! can take in.
//!
//! It holds the newest values of one point in history; versions are a database's own, so the
//! run gets new ones where it is imported.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use steadfast_core::{
    Key, NamespaceId, Record, SortedTable, TypeTag, WriteSet, limits, prefix_end, stream_name,
    stream_of,
};
use steadfast_durability::Stage;
use steadfast_durability::disk::EntryKind;
use steadfast_durability::snapshot::{
    Snapshot, SnapshotFile, SnapshotMeta, SnapshotOptions, write_snapshot_at,
};
use steadfast_durability::wal::writer::NamespaceLookup;

use crate::commit::Submission;
use crate::copy::CopyInfo;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::event_chain::ChainCheck;
use crate::fork::moved_record;
use crate::progress::metered;
use crate::runs::{Run, RunInfo, decode_info, index_key};
use crate::source::Source;
use crate::streams::{StreamState, Untrimmed};
use crate::view::View;

fn not_a_run(place: &SnapshotFile) -> Error {
    Error::Invalid(format!("{place}: not an exported run"))
}

/// The rows that `view` shows of a run: also those that lie beneath it, as its own.
fn rows_of(view: &View, run: Run) -> impl Iterator<Item = Result<Record>> + use<> {
    let (mut source, namespace) = (view, run.namespace);
    let first = Key::first_of(namespace, TypeTag::Kv).as_bytes().to_vec();
    let rows = source.rows(first, prefix_end(&namespace.0.to_be_bytes()));
    rows.map(move |row| Ok(moved_record(row?, namespace)))
}

/// Bytes of their keys and values; of those that can be read.
fn payload_bytes(view: &View, run: Run) -> u64 {
    rows_of(view, run).flatten().map(|row| row.payload_bytes() as u64).sum()
}

/// Encoded bytes of one transaction of an import, at the most, give or take one row.
const IMPORT_BYTES: usize = 4 << 20;

impl Database {
    /// Writes what `view` shows of `run` into the file `path`, which must not exist. The file is
    /// durable, and was read back, when this returns; one that was not finished is refused when
    /// it is imported.
    ///
    /// # Errors
    ///
    /// Kind `NotFound` if there is no such run; `Invalid` if the file exists; `Io`.
    pub fn export_run(&self, run: Run, path: impl AsRef<Path>) -> Result<CopyInfo> {
        self.export_run_at(&self.view()?, run, path.as_ref())
    }

    fn export_run_at(&self, view: &View, run: Run, path: &Path) -> Result<CopyInfo> {
        let started = crate::sync::Instant::now();
        let files = self.upkeep().files()?;
        self.check_vacant(path)?;
        let info = view.list_runs()?.into_iter().find(|info| info.run == run);
        let info = info.ok_or_else(|| Error::NotFound(format!("there is no run {}", run.id())))?;
        let entry = view.inner.get(index_key(&info.name)?.as_bytes())?;
        let watch = self.watch();
        let meter = RefCell::new(watch.stage(Stage::Write, || payload_bytes(view, run)));
        let rows = Untrimmed::of(entry.into_iter().map(Ok).chain(rows_of(view, run)));
        let rows = metered(&meter, rows);
        let manifest = self.upkeep().manifest()?;
        let (version, timestamp) = (view.version(), self.upkeep().time_of(view.version())?);
        let namespace = self.namespaces().namespace(run.namespace);
        let rest = || {
            meter.borrow_mut().end()?;
            let meta = SnapshotMeta {
                version,
                timestamp,
                created: self.now(),
                namespaces: namespace.into_iter().map(|ns| (run.namespace, ns)).collect(),
                floors: Vec::new(),
                forks: Vec::new(),
            };
            Ok::<_, Error>((meta, Vec::new()))
        };
        let options = SnapshotOptions { compression: files.compression };
        let (disk, place) = (files.disk.clone(), SnapshotFile::alone(path));
        let written =
            write_snapshot_at(disk, place.clone(), manifest.database, options, rows, rest)?;
        let table = Snapshot::open_any(&*files.disk, &place)?;
        if let Err(error) = watch.over(|listener| table.verify_with(listener)) {
            if matches!(error, Error::Stopped | Error::Closed(_)) {
                let _ = files.disk.remove(path);
            }
            return Err(error);
        }
        Ok(CopyInfo::of(&written, timestamp, started))
    }

    fn check_vacant(&self, path: &Path) -> Result<()> {
        let files = self.upkeep().files()?;
        let found = files.disk.kind(path).map_err(|source| {
            let (file, action) = (path.display().to_string(), "look at");
            steadfast_durability::Error::Io { file, action, source }
        })?;
        match found {
            None => Ok(()),
            Some(EntryKind::Directory) => {
                Err(Error::Invalid(format!("{}: a directory", path.display())))
            }
            Some(_) => Err(Error::Invalid(format!("{}: exists already", path.display()))),
        }
    }

    /// Takes in a run that [`Database::export_run`] wrote, under its own name or `name`, with
    /// the id it had. Its rows are written in several transactions, and seen by nobody until the
    /// last one puts the run into the index; what a crash leaves before that is removed by the
    /// next try.
    ///
    /// # Errors
    ///
    /// Kind `Corruption` if the file is not what was written, or the hash chain of one of its
    /// streams is broken; `Conflict` if there is a run of that name or with that id, or if the run
    /// was deleted here: an id that stood for it never does again (it can be imported into any
    /// other database); `Stopped` as [`Database::with_progress`] says: what was written is removed
    /// again.
    pub fn import_run(&self, path: impl AsRef<Path>, name: Option<&str>) -> Result<Run> {
        let files = self.upkeep().files()?;
        let place = SnapshotFile::alone(path.as_ref());
        let table = Snapshot::open_any(&*files.disk, &place)?;
        self.watch().over(|listener| table.verify_with(listener))?;
        let [(_, namespace)] = table.meta().namespaces.as_slice() else {
            return Err(not_a_run(&place));
        };
        let interned = self.namespaces().intern(namespace)?;
        let run = Run { id: namespace.run(), namespace: interned };
        let view = self.view()?;
        if let Some(there) = view.list_runs()?.into_iter().find(|there| there.id == run.id) {
            return Err(Error::Mismatch {
                what: format!("run {}", run.id),
                expected: "absent".into(),
                found: format!("that id, by the name {:?}", there.name),
            });
        }
        if let Some(version) = self.deleted_at(run)? {
            return Err(Error::Mismatch {
                what: format!("run {}", run.id),
                expected: "never deleted".into(),
                found: format!("deleted by the commit {version}"),
            });
        }
        self.remove_rows(&view, run)?;
        drop(view);
        let info = match self.take_rows(&table, run) {
            Err(error @ Error::Stopped) => {
                self.remove_rows(&self.view()?, run)?;
                return Err(error);
            }
            taken => taken?.ok_or_else(|| not_a_run(&place))?,
        };
        let name = name.unwrap_or(&info.name);
        let created = self.transaction(|tx| tx.add_imported(name, namespace, &info));
        Ok(created?.0)
    }

    /// Writes the rows of an exported run as rows of `run`. Returns what the file says of it;
    /// `None` if the file is not that of a run.
    fn take_rows(&self, table: &Snapshot, run: Run) -> Result<Option<RunInfo>> {
        let index = Key::first_of(NamespaceId::SYSTEM, TypeTag::Run);
        let exported = table.meta().namespaces.first().map(|first| first.0);
        let mut meter = self.watch().stage(Stage::Write, || table.info().payload_bytes);
        let (mut writes, mut info) = (WriteSet::new(), None);
        let mut chain: Option<ChainCheck> = None;
        for section in 0..table.sections() {
            for row in table.section(section)? {
                meter.add(row.payload_bytes() as u64)?;
                if row.key().starts_with(index.as_bytes()) {
                    info = Some(decode_info(&row)?);
                    continue;
                }
                if Key::namespace_of(row.key()) != exported {
                    return Ok(None);
                }
                // What the file says of the run comes first.
                let ancestors = info.as_ref().map_or(&[][..], |info: &RunInfo| &info.ancestors);
                if let Some(stream) = stream_of(row.key()) {
                    let trimmed = StreamState::decode(&row)?.trimmed;
                    let behind = ChainCheck::behind(run.id, &stream, trimmed);
                    chain = Some(behind.going_back_to(ancestors));
                } else if Key::tag_of(row.key()) == Some(TypeTag::Event) {
                    let Some(stream) = stream_name(row.key()) else { return Ok(None) };
                    let same = chain.take().filter(|chain| chain.stream() == stream);
                    let following = same.unwrap_or_else(|| {
                        ChainCheck::new(run.id, &stream).going_back_to(ancestors)
                    });
                    chain.insert(following).next(&row)?;
                }
                let mut key = run.namespace.0.to_be_bytes().to_vec();
                key.extend_from_slice(&row.key()[key.len()..]);
                Key::from_stored(&key)?;
                writes.put_encoded(&key, row.value_bytes(), row.expiry())?;
                self.submit_if_large(&mut writes, run, IMPORT_BYTES)?;
            }
        }
        self.submit_if_large(&mut writes, run, 0)?;
        meter.end()?;
        Ok(info)
    }

    /// Removes what an import that was not finished left of a run that nobody sees.
    fn remove_rows(&self, view: &View, run: Run) -> Result<()> {
        let first = run.namespace.0.to_be_bytes().to_vec();
        let end = prefix_end(&first).unwrap_or_else(|| vec![u8::MAX; limits::STORED_KEY_BYTES_MAX]);
        let mut writes = WriteSet::new();
        for row in view.inner.range(first..end) {
            let row: Record = row?;
            writes.delete(row.key())?;
            self.submit_if_large(&mut writes, run, IMPORT_BYTES)?;
        }
        self.submit_if_large(&mut writes, run, 0)
    }

    /// Commits `writes`, and empties them, if they have more than `bytes` bytes.
    fn submit_if_large(&self, writes: &mut WriteSet, run: Run, bytes: usize) -> Result<()> {
        if writes.as_bytes().len() <= bytes {
            return Ok(());
        }
        let pending = self.pipeline()?.submit(Submission {
            writes: std::mem::take(writes),
            namespaces: Arc::new([run.namespace]),
            reads: None,
            level: self.mode().level(),
            fixed: None,
            created: Vec::new(),
            deleted: Vec::new(),
        })?;
        pending.wait().map(drop)
    }
}
