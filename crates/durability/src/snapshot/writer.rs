//! Writes a snapshot, front to back, a section at a time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use steadfast_core::limits::{
    SNAPSHOT_BLOCK_BYTES, SNAPSHOT_NUMBER_MAX, SNAPSHOT_SECTION_BYTES, STORED_KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
};
use steadfast_core::{CrashPoint, Record, Sabotage, Version, check_crash_point, unless};

use super::SnapshotInfo;
use super::block::{BlockEncoder, row_bytes, row_order};
use super::filter::{encode_filter, key_hash};
use super::footer::{FOOTER_BYTES, Footer, HEADER_BYTES, Header};
use super::index::{SectionEntry, SectionIndexEncoder, encode_top_index};
use super::meta::SnapshotMeta;
use super::piece::{Compression, PieceKind, Sealed, Sealer, Seed};
use crate::disk::{Access, Disk, DiskFile};
use crate::error::{Error, IoContext, Result};
use crate::layout::Layout;
use crate::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use crate::sync::thread;

/// Handed to the kernel at once.
const WRITE_BYTES: usize = 1 << 20;

/// Writes between syncs. A sync of the log may have to wait for what the kernel is writing of
/// other files, so a snapshot does not leave much for one sync.
const WRITES_PER_SYNC: u32 = 16;

/// Writes that may wait for the thread that writes.
const WRITES_AHEAD: usize = 8;

/// How a snapshot is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct SnapshotOptions {
    /// How blocks are stored.
    pub compression: Compression,
}

/// Where the file of a snapshot lies.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    pub(super) path: PathBuf,
    /// For messages.
    pub(super) label: String,
    pub(super) number: u64,
    /// What has to be synced for the name to last, with labels.
    directories: Vec<(PathBuf, String)>,
}

impl SnapshotFile {
    /// The snapshot `number` of a database.
    pub fn of(layout: &Layout, number: u64) -> Self {
        Self {
            path: layout.snapshot(number),
            label: Layout::snapshot_label(number),
            number,
            directories: vec![
                (layout.snapshots(), "SNAPSHOTS".into()),
                (layout.root().to_owned(), ".".into()),
            ],
        }
    }

    /// A file of its own, outside of any database.
    pub fn alone(path: &Path) -> Self {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Self {
            path: path.to_owned(),
            label: path.display().to_string(),
            number: 1,
            directories: vec![(directory.clone(), directory.display().to_string())],
        }
    }
}

impl std::fmt::Display for SnapshotFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.label)
    }
}

/// Writes a snapshot.
///
/// Rows come in order: by key, and the versions of a key newest first. The file has its final
/// name from the start; until the MANIFEST names it, it is nothing, so a writer that is dropped
/// does no harm, and a later one of the same number takes its place.
#[derive(Debug)]
pub struct SnapshotWriter {
    disk: Arc<dyn Disk>,
    place: SnapshotFile,
    database: [u8; 16],
    options: SnapshotOptions,
    out: Output,
    sealer: Sealer,
    encoder: BlockEncoder,
    /// Rows of the block being filled, and what they count.
    rows: Vec<Record>,
    rows_bytes: usize,
    /// Where in `rows` the newest key begins.
    key_start: usize,
    /// The last row of the last block.
    last: Option<Record>,
    section: Section,
    sections: Vec<SectionEntry>,
    total: Totals,
}

/// The section being filled.
#[derive(Debug, Default)]
struct Section {
    first_key: Box<[u8]>,
    offset: u64,
    bytes: usize,
    rows: u64,
    blocks: u64,
    plain_bytes: u64,
    index: SectionIndexEncoder,
    hashes: Vec<u64>,
}

#[derive(Debug, Default)]
struct Totals {
    rows: u64,
    blocks: u64,
    payload_bytes: u64,
    newest: Version,
}

impl SnapshotWriter {
    /// Begins the snapshot of this number. What a crashed try left of one is removed.
    ///
    /// # Panics
    ///
    /// If the number is 0 or above its limit.
    pub fn create(
        disk: Arc<dyn Disk>,
        layout: &Layout,
        number: u64,
        database: [u8; 16],
        options: SnapshotOptions,
    ) -> Result<Self> {
        assert!((1..=SNAPSHOT_NUMBER_MAX).contains(&number), "snapshots are numbered from 1");
        disk.create_dir(&layout.snapshots()).at("SNAPSHOTS", "create the directory")?;
        Self::create_at(disk, SnapshotFile::of(layout, number), database, options)
    }

    /// Begins a snapshot in any file. One that is there is replaced.
    pub fn create_at(
        disk: Arc<dyn Disk>,
        place: SnapshotFile,
        database: [u8; 16],
        options: SnapshotOptions,
    ) -> Result<Self> {
        let (number, path, label) = (place.number, &place.path, place.label.clone());
        match disk.remove(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).at(label, "remove what was left of");
            }
            _ => {}
        }
        let file = disk.create(path, Access::Write).at(&label, "create")?;
        let seed = Seed::new(&database, number);
        let header = Header { database, number, compression: options.compression.number() };
        let mut out = Output::new(file, label);
        out.buffer.extend_from_slice(&header.encode());
        Ok(Self {
            disk,
            place,
            database,
            options,
            sealer: Sealer::new(seed, options.compression),
            out,
            encoder: BlockEncoder::default(),
            rows: Vec::new(),
            rows_bytes: 0,
            key_start: 0,
            last: None,
            section: Section { offset: HEADER_BYTES as u64, ..Section::default() },
            sections: Vec::new(),
            total: Totals::default(),
        })
    }

    /// Appends a row.
    ///
    /// # Panics
    ///
    /// If it does not come after the last one, or is beyond what a store takes.
    pub fn push(&mut self, record: &Record) -> Result<()> {
        let (key, version) = (record.key(), record.version());
        assert!(key.len() <= STORED_KEY_BYTES_MAX, "keys are checked before they are stored");
        assert!(record.value_bytes().len() <= VALUE_BYTES_MAX, "values are checked likewise");
        let new_key = match self.rows.last().or(self.last.as_ref()) {
            None => true,
            Some(last) => {
                let order = row_order((last.key(), last.version()), (key, version));
                assert!(order.is_lt(), "rows come by key, and newest first");
                last.key() != key
            }
        };
        let bytes = row_bytes(record);
        if new_key {
            let full = self.section.bytes + self.rows_bytes + bytes > SNAPSHOT_SECTION_BYTES;
            if full && (self.section.rows > 0 || !self.rows.is_empty()) {
                self.end_section()?;
            } else if !self.rows.is_empty() && self.rows_bytes + bytes > SNAPSHOT_BLOCK_BYTES {
                self.end_block(self.rows.len())?;
            }
            self.key_start = self.rows.len();
            self.section.hashes.push(key_hash(key));
        } else if self.rows_bytes + bytes > SNAPSHOT_BLOCK_BYTES && !self.rows.is_empty() {
            // The versions of a key stay in one block if they can: what comes before the key
            // goes first, and only if that is nothing, or not enough, is the key cut.
            if self.key_start > 0 {
                self.end_block(self.key_start)?;
            }
            if self.rows_bytes + bytes > SNAPSHOT_BLOCK_BYTES && !self.rows.is_empty() {
                self.end_block(self.rows.len())?;
            }
        }
        if self.section.rows == 0 && self.rows.is_empty() {
            self.section.first_key = key.into();
        }
        self.rows.push(record.clone());
        self.rows_bytes += bytes;
        self.total.rows += 1;
        self.total.payload_bytes += record.payload_bytes() as u64;
        self.total.newest = self.total.newest.max(version);
        Ok(())
    }

    /// Writes the first `count` of the waiting rows as a block.
    fn end_block(&mut self, count: usize) -> Result<()> {
        let rows = &self.rows[..count];
        let payload = self.encoder.encode(rows);
        let offset = self.out.end();
        let sealed = self.sealer.append(&mut self.out.buffer, offset, PieceKind::Block, payload);
        let section = &mut self.section;
        section.index.push(rows[0].key(), rows[0].version(), sealed);
        section.rows += count as u64;
        section.blocks += 1;
        section.plain_bytes += payload.len() as u64;
        let bytes: usize = rows.iter().map(row_bytes).sum();
        section.bytes += bytes;
        self.rows_bytes -= bytes;
        self.last = self.rows.drain(..count).next_back();
        self.key_start = self.key_start.saturating_sub(count);
        self.total.blocks += 1;
        self.out.flush(WRITE_BYTES)
    }

    fn end_section(&mut self) -> Result<()> {
        if !self.rows.is_empty() {
            self.end_block(self.rows.len())?;
        }
        let section = std::mem::take(&mut self.section);
        let Section { mut index, mut hashes, .. } = section;
        let index_offset = self.out.end();
        let index_sealed = self.append(PieceKind::SectionIndex, &index.finish());
        let filter_sealed = self.append(PieceKind::Filter, &encode_filter(&hashes));
        hashes.clear();
        self.sections.push(SectionEntry {
            first_key: section.first_key,
            offset: section.offset,
            blocks_bytes: index_offset - section.offset,
            index: index_sealed,
            filter: filter_sealed,
            rows: section.rows,
            blocks: section.blocks,
            plain_bytes: section.plain_bytes,
        });
        self.section = Section { offset: self.out.end(), index, hashes, ..Section::default() };
        self.out.flush(WRITE_BYTES)
    }

    fn append(&mut self, kind: PieceKind, payload: &[u8]) -> Sealed {
        let offset = self.out.end();
        self.sealer.append(&mut self.out.buffer, offset, kind, payload)
    }

    /// Writes what is left, syncs the file, its directory and the database's directory, and
    /// says what the MANIFEST has to know. `commit_times` is kept as it is.
    ///
    /// # Panics
    ///
    /// If a row is newer than what `meta` says.
    pub fn finish(mut self, meta: &SnapshotMeta, commit_times: &[u8]) -> Result<SnapshotInfo> {
        let info = self.write_rest(meta, commit_times)?;
        self.make_durable()?;
        Ok(info)
    }

    /// Syncs the file, its directory and the database's directory.
    fn make_durable(&self) -> Result<()> {
        check_crash_point(CrashPoint::DuringSnapshotBeforeRename);
        let sync = || self.out.file.sync_all().at(&self.out.label, "sync");
        unless(Sabotage::SkipSnapshotSync, sync)?;
        unless(Sabotage::SkipSnapshotDirectorySync, || self.sync_names())?;
        check_crash_point(CrashPoint::DuringSnapshotAfterRename);
        Ok(())
    }

    /// Writes what is left after the last row.
    fn write_rest(&mut self, meta: &SnapshotMeta, commit_times: &[u8]) -> Result<SnapshotInfo> {
        assert!(self.total.newest <= meta.version, "no row is newer than its snapshot");
        if self.total.rows > 0 {
            self.end_section()?;
        }
        let times_offset = self.out.end();
        let times = if commit_times.is_empty() {
            Sealed::default()
        } else {
            self.append(PieceKind::CommitTimes, commit_times)
        };
        let meta_offset = self.out.end();
        let meta_sealed = self.append(PieceKind::Meta, &meta.encode());
        let top_offset = self.out.end();
        let top = self.append(PieceKind::TopIndex, &encode_top_index(&self.sections));
        let footer = Footer {
            database: self.database,
            number: self.place.number,
            version: meta.version.0,
            rows: self.total.rows,
            payload_bytes: self.total.payload_bytes,
            file_bytes: self.out.end() + FOOTER_BYTES as u64,
            times_offset,
            meta_offset,
            top_offset,
            times_check: times.check,
            meta_check: meta_sealed.check,
            top_check: top.check,
            compression: self.options.compression.number(),
            blocks: self.total.blocks,
            sections: u32::try_from(self.sections.len()).expect("sections are a MiB each"),
        };
        self.out.buffer.extend_from_slice(&footer.encode());
        self.out.flush(1)?;
        Ok(SnapshotInfo::of(&footer))
    }

    /// Without this the file may be gone after a power cut, or the directory it lies in.
    fn sync_names(&self) -> Result<()> {
        let sync = |(path, label): &(PathBuf, String)| {
            self.disk.sync_dir(path).at(label, "sync the directory")
        };
        self.place.directories.iter().try_for_each(sync)
    }

    /// Gives up and removes the file.
    pub fn discard(self) -> Result<()> {
        let Self { disk, place, out, .. } = self;
        drop(out);
        disk.remove(&place.path).at(place.label, "remove")
    }
}

/// Writes a snapshot of `rows`, with a second thread that writes what this one encodes.
///
/// `rows` come as [`SnapshotWriter::push`] wants them; an error among them, or of the disk,
/// ends it, and the unfinished file is removed if it can be. `meta` and the commit times are
/// asked for after the last row.
pub fn write_snapshot<E: From<Error>>(
    disk: Arc<dyn Disk>,
    layout: &Layout,
    number: u64,
    database: [u8; 16],
    options: SnapshotOptions,
    rows: impl IntoIterator<Item = std::result::Result<Record, E>>,
    rest: impl FnOnce() -> std::result::Result<(SnapshotMeta, Vec<u8>), E>,
) -> std::result::Result<SnapshotInfo, E> {
    write_rows(SnapshotWriter::create(disk, layout, number, database, options)?, rows, rest)
}

/// As [`write_snapshot`], into any file.
pub fn write_snapshot_at<E: From<Error>>(
    disk: Arc<dyn Disk>,
    place: SnapshotFile,
    database: [u8; 16],
    options: SnapshotOptions,
    rows: impl IntoIterator<Item = std::result::Result<Record, E>>,
    rest: impl FnOnce() -> std::result::Result<(SnapshotMeta, Vec<u8>), E>,
) -> std::result::Result<SnapshotInfo, E> {
    write_rows(SnapshotWriter::create_at(disk, place, database, options)?, rows, rest)
}

fn write_rows<E: From<Error>>(
    writer: SnapshotWriter,
    rows: impl IntoIterator<Item = std::result::Result<Record, E>>,
    rest: impl FnOnce() -> std::result::Result<(SnapshotMeta, Vec<u8>), E>,
) -> std::result::Result<SnapshotInfo, E> {
    let (writer, written) = thread::scope(|scope| {
        // Owned in here, so that a panic drops it, and the thread ends, before it is waited for.
        let mut writer = writer;
        let (file, label) = (Arc::clone(&writer.out.file), writer.out.label.clone());
        let (filled, to_write) = sync_channel(WRITES_AHEAD);
        let (emptied, to_fill) = channel();
        let thread = scope.spawn(move || write_chunks(&*file, &label, &to_write, &emptied));
        writer.out.thread = Some((filled, to_fill));
        let encode = || -> std::result::Result<SnapshotInfo, E> {
            for row in rows {
                writer.push(&row?)?;
            }
            let (meta, commit_times) = rest()?;
            Ok(writer.write_rest(&meta, &commit_times)?)
        };
        let encoded = encode();
        // The thread ends when nothing more can come.
        writer.out.thread = None;
        let written = match thread.join() {
            // If the thread failed, encoding did only because nobody took what it made.
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) => encoded,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        (writer, written)
    });
    let written = written.and_then(|info| {
        unless(Sabotage::NameSnapshotBeforeSync, || writer.make_durable())?;
        Ok(info)
    });
    if written.is_err() {
        // It is nothing that anybody reads; what cannot be removed now is when its number is
        // used again.
        let _ = writer.discard();
    }
    written
}

/// A part of the file on its way to be written, and its offset.
type Chunk = (u64, Vec<u8>);

/// Writes chunks until no more can come, and syncs now and then. What was written goes back to be
/// filled again: fresh memory costs more than the copy into it.
fn write_chunks(
    file: &dyn DiskFile,
    label: &str,
    chunks: &Receiver<Chunk>,
    emptied: &Sender<Vec<u8>>,
) -> Result<()> {
    let mut unsynced = 0;
    for (offset, mut bytes) in chunks {
        file.write_at(offset, &bytes).at(label, "write")?;
        unsynced += 1;
        if unsynced == WRITES_PER_SYNC {
            file.sync_data().at(label, "sync")?;
            unsynced = 0;
        }
        bytes.clear();
        // Nobody takes it after the last.
        let _ = emptied.send(bytes);
    }
    Ok(())
}

/// What goes into the file, in large writes.
#[derive(Debug)]
struct Output {
    file: Arc<dyn DiskFile>,
    label: String,
    /// What was not handed on yet, and where it begins.
    buffer: Vec<u8>,
    offset: u64,
    /// The thread that writes, and what it gives back; without one, this thread writes.
    thread: Option<(SyncSender<Chunk>, Receiver<Vec<u8>>)>,
}

impl Output {
    fn new(file: Arc<dyn DiskFile>, label: String) -> Self {
        let buffer = Vec::with_capacity(2 * WRITE_BYTES);
        Self { file, label, buffer, offset: 0, thread: None }
    }

    /// Where the next byte goes.
    fn end(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    /// Hands on what there is, if it is at least `least` bytes.
    fn flush(&mut self, least: usize) -> Result<()> {
        if self.buffer.len() < least {
            return Ok(());
        }
        let (offset, next) = (self.offset, self.end());
        match &self.thread {
            None => {
                self.file.write_at(offset, &self.buffer).at(&self.label, "write")?;
                self.buffer.clear();
            }
            Some((filled, to_fill)) => {
                let empty =
                    to_fill.try_recv().unwrap_or_else(|_| Vec::with_capacity(2 * WRITE_BYTES));
                let chunk = std::mem::replace(&mut self.buffer, empty);
                filled.send((offset, chunk)).map_err(|_| {
                    let source = std::io::ErrorKind::BrokenPipe.into();
                    Error::Io { file: self.label.clone(), action: "write", source }
                })?;
            }
        }
        self.offset = next;
        Ok(())
    }
}
