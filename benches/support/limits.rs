//! What the machine allows: the barest loops that do what a database cannot leave out. Each
//! knows no database; the rows printed beside them say how much of this is left.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::data;

/// Bytes of a record that a bare loop writes for a transaction of one put.
pub(crate) const RECORD_BYTES: usize = 150;
/// Bytes of a record that a bare loop writes for a transaction of 100 puts.
pub(crate) const BATCH_RECORD_BYTES: usize = 15 << 10;

const FILE_BYTES: u64 = 64 << 20;
const BLOCK: usize = 4096;

/// How a [`SyncedFile`] makes its bytes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// `pwrite`, then `fdatasync`; records lie side by side, so the last block is rewritten.
    Fdatasync,
    /// One `pwrite` of a file opened with O_DIRECT and O_DSYNC; each record has blocks of its
    /// own.
    DirectOwnBlocks,
}

/// A file whose blocks were written with zeros before, so no write changes its metadata.
pub(crate) struct SyncedFile {
    file: File,
    sync: Sync,
    /// Where the next record goes, and the memory that records are written from.
    next: Mutex<(u64, Vec<u8>)>,
}

impl SyncedFile {
    pub(crate) fn create(path: &Path, sync: Sync) -> Self {
        zeroed_file(path);
        let mut options = OpenOptions::new();
        options.write(true);
        if sync == Sync::DirectOwnBlocks {
            let flags = rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::DSYNC;
            options.custom_flags(flags.bits().cast_signed());
        }
        let file = options.open(path).expect("the file system takes O_DIRECT");
        Self { file, sync, next: Mutex::new((0, vec![0; 64 * BLOCK])) }
    }

    /// Writes a record of `bytes` and returns when it is durable.
    pub(crate) fn append(&self, bytes: usize) {
        let mut next = self.next.lock().expect("no writer panics");
        let (at, buffer) = &mut *next;
        let bytes = match self.sync {
            Sync::Fdatasync => bytes,
            Sync::DirectOwnBlocks => bytes.next_multiple_of(BLOCK),
        };
        if *at + bytes as u64 > FILE_BYTES {
            *at = 0;
        }
        // Direct I/O wants aligned memory; a Vec is not, some offset into it is.
        let offset = buffer.as_ptr().align_offset(BLOCK);
        let record = &mut buffer[offset..offset + bytes];
        record[0] = record[0].wrapping_add(1);
        self.file.write_all_at(record, *at).expect("the disk takes a write");
        if self.sync == Sync::Fdatasync {
            self.file.sync_data().expect("the disk syncs");
        }
        *at += bytes as u64;
    }
}

fn zeroed_file(path: &Path) -> File {
    let mut file = File::create(path).expect("the benches' folder can be written");
    // Not more at once: the page cache keeps what one write brought in one large folio, and
    // ext4 walks all of it for every small write later (2 µs and more instead of 0.8).
    let zeros = vec![0; 64 << 10];
    for _ in 0..FILE_BYTES / zeros.len() as u64 {
        file.write_all(&zeros).expect("the disk has room");
    }
    file.sync_all().expect("the disk syncs");
    file
}

/// Leader and followers, one sync in flight, with nothing behind it: the committing thread
/// that finds no leader writes and syncs what all have queued. Before it does, it yields until
/// as many have joined as last time, for 50 µs at most.
pub(crate) struct GroupCommit {
    file: File,
    state: Mutex<Group>,
    synced: Condvar,
}

#[derive(Default)]
struct Group {
    queued_bytes: Vec<u8>,
    spare: Vec<u8>,
    queued: u64,
    durable: u64,
    previous: u64,
    at: u64,
    leading: bool,
}

impl GroupCommit {
    pub(crate) fn create(path: &Path) -> Self {
        Self { file: zeroed_file(path), state: Mutex::default(), synced: Condvar::new() }
    }

    /// Queues a record and returns when it is durable.
    pub(crate) fn commit(&self, record: &[u8]) {
        let mut group = self.lock();
        group.queued_bytes.extend_from_slice(record);
        group.queued += 1;
        let mine = group.queued;
        while group.durable < mine && group.leading {
            group = self.synced.wait(group).expect("no committer panics");
        }
        if group.durable < mine {
            self.lead(group);
        }
    }

    fn lead<'a>(&'a self, mut group: MutexGuard<'a, Group>) {
        const LINGER_MAX: Duration = Duration::from_micros(50);
        group.leading = true;
        if group.previous > 1 {
            let until = Instant::now() + LINGER_MAX;
            while group.queued - group.durable < group.previous && Instant::now() < until {
                drop(group);
                std::thread::yield_now();
                group = self.lock();
            }
        }
        let spare = std::mem::take(&mut group.spare);
        let mut batch = std::mem::replace(&mut group.queued_bytes, spare);
        let upto = group.queued;
        if group.at + batch.len() as u64 > FILE_BYTES {
            group.at = 0;
        }
        let at = group.at;
        group.at += batch.len() as u64;
        drop(group);
        self.file.write_all_at(&batch, at).expect("the disk takes a write");
        self.file.sync_data().expect("the disk syncs");
        batch.clear();
        let mut group = self.lock();
        group.spare = batch;
        group.previous = upto - group.durable;
        group.durable = upto;
        group.leading = false;
        // Woken while the lock is held, all would run into it: at 128 threads that costs two
        // thirds of the rate.
        drop(group);
        self.synced.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Group> {
        self.state.lock().expect("no committer panics")
    }
}

/// One `write` a transaction and no sync, into a file whose blocks are there.
pub(crate) struct WrittenFile {
    file: File,
    at: AtomicU64,
}

impl WrittenFile {
    pub(crate) fn create(path: &Path) -> Self {
        Self { file: zeroed_file(path), at: AtomicU64::new(0) }
    }

    pub(crate) fn append(&self, record: &[u8]) {
        let bytes = record.len() as u64;
        let at = self.at.fetch_add(bytes, Ordering::Relaxed) % (FILE_BYTES - bytes);
        self.file.write_all_at(record, at).expect("the disk takes a write");
    }
}

/// Writes and syncs a new file of so many bytes, as a snapshot is written: a MiB at once, and
/// never much left to sync. The file is removed.
pub(crate) fn write_raw(path: &Path, bytes: u64) {
    const AT_ONCE: u64 = 1 << 20;
    const SYNC_BYTES: u64 = 16 << 20;
    let mut block = vec![0; AT_ONCE as usize];
    data::fill(0, &mut block);
    let file = File::create(path).expect("the benches' folder can be written");
    for at in (0..bytes).step_by(AT_ONCE as usize) {
        let block = &block[..AT_ONCE.min(bytes - at) as usize];
        file.write_all_at(block, at).expect("the disk has room");
        if (at + AT_ONCE).is_multiple_of(SYNC_BYTES) {
            file.sync_data().expect("the disk syncs");
        }
    }
    file.sync_all().expect("the disk syncs");
    drop(file);
    std::fs::remove_file(path).expect("it is ours");
}

/// Reads all files in a folder and below in blocks of 1 MiB, checksumming each block. Returns
/// how many bytes there were.
pub(crate) fn checksum_files(folder: &Path) -> u64 {
    let (mut bytes, mut buffer) = (0, vec![0; 1 << 20]);
    for path in files(folder) {
        let mut file = File::open(path).expect("it is there");
        loop {
            let read = file.read(&mut buffer).expect("it can be read");
            if read == 0 {
                break;
            }
            std::hint::black_box(crc32fast::hash(&buffer[..read]));
            bytes += read as u64;
        }
    }
    bytes
}

/// Opens the largest file in a folder or below and reads so many bytes from its end.
pub(crate) fn read_a_little(folder: &Path, bytes: u64) -> u32 {
    let length = |path: &PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
    let largest = files(folder).into_iter().max_by_key(length).expect("there is a file");
    let bytes = bytes.min(length(&largest));
    let mut buffer = vec![0; bytes as usize];
    let file = File::open(&largest).expect("it is there");
    file.read_exact_at(&mut buffer, length(&largest) - bytes).expect("it can be read");
    crc32fast::hash(&buffer)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("it is there") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Writes the barest log of rows: for each its length, a checksum, key and value.
pub(crate) fn write_bare_log(path: &Path, ids: &[u32], value_bytes: usize) {
    let file = File::create(path).expect("the benches' folder can be written");
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let mut row = vec![0; data::KEY_BYTES + value_bytes];
    for id in ids {
        let id = u64::from(*id);
        row[..data::KEY_BYTES].copy_from_slice(&data::key(id));
        data::fill(id, &mut row[data::KEY_BYTES..]);
        out.write_all(&(row.len() as u32).to_le_bytes()).expect("the disk has room");
        out.write_all(&crc32fast::hash(&row).to_le_bytes()).expect("the disk has room");
        out.write_all(&row).expect("the disk has room");
    }
    out.into_inner().expect("the disk has room").sync_all().expect("the disk syncs");
}

/// Reads a bare log in blocks of 1 MiB, checks every checksum and hands out key and value.
pub(crate) fn read_bare_log(path: &Path, mut row: impl FnMut(&[u8], &[u8])) -> u64 {
    let mut file = File::open(path).expect("it was written");
    let mut buffer = vec![0; 1 << 20];
    let (mut start, mut end, mut rows) = (0, 0, 0);
    loop {
        let header = |at: usize| {
            let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| buffer[at + i]));
            (word(at) as usize, word(at + 4))
        };
        if end - start < 8 || end - start < 8 + header(start).0 {
            buffer.copy_within(start..end, 0);
            end -= start;
            start = 0;
            let read = file.read(&mut buffer[end..]).expect("it can be read");
            if read == 0 {
                assert_eq!(end, 0, "a bare log ends with a row");
                return rows;
            }
            end += read;
            continue;
        }
        let (bytes, checksum) = header(start);
        let found = &buffer[start + 8..start + 8 + bytes];
        assert_eq!(crc32fast::hash(found), checksum, "a bare log is sound");
        row(&found[..data::KEY_BYTES], &found[data::KEY_BYTES..]);
        rows += 1;
        start += 8 + bytes;
    }
}

/// The checksum-and-parse pass over a bare log.
pub(crate) fn checksum_and_parse(path: &Path) -> u64 {
    let mut sum = 0;
    let rows = read_bare_log(path, |_, value| sum += data::touch(value));
    std::hint::black_box(sum);
    rows
}

/// The same pass that also copies each value into memory of its own, and keeps it.
pub(crate) fn parse_and_copy(path: &Path) -> Vec<Box<[u8]>> {
    let mut values = Vec::new();
    read_bare_log(path, |_, value| values.push(value.into()));
    values
}

/// A map of owned keys to owned values.
pub(crate) type HashMap = hashbrown::HashMap<Box<[u8]>, Box<[u8]>, foldhash::fast::RandomState>;

/// Replay of a bare log into a hash map.
pub(crate) fn replay_into_hash_map(path: &Path) -> HashMap {
    let mut map = HashMap::default();
    read_bare_log(path, |key, value| {
        map.insert(key.into(), value.into());
    });
    map
}
