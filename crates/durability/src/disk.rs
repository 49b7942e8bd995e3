//! The only door to the file system.
//!
//! Everything this database does to files goes through [`Disk`] and [`DiskFile`], so that a
//! simulated disk can stand in for the real one and forget what was not synced. There is no
//! memory mapping: a file that shrinks must give an error, not a signal.
//!
//! What is assumed of an implementation: bytes not named in a write are not changed by it;
//! what was written before a successful `sync_data` survives a power cut afterwards; a
//! directory entry survives once its directory was synced; everything else may be there or
//! not, in any order.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What an opened file is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading and writing through the kernel's cache.
    Write,
    /// Reading and writing, and [`DiskFile::write_at_durable`] should bypass the kernel's
    /// cache where the file system can do so (`O_DIRECT` and `O_DSYNC` on Linux).
    WriteDirect,
}

/// What a name in a directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

/// A file system, or something that behaves like one.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Creates a file that must not exist.
    fn create(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file that must exist.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a directory whose parent exists; it is no error if it is there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// What `path` is, or `None` if there is nothing of that name.
    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>>;

    /// The names in a directory, in no order.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Gives a file another name, replacing what had it. Atomic; durable only after
    /// [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable only after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the entries of a directory durable.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;

    /// Takes the exclusive lock of the file at `path`, which is created if missing and never
    /// removed. The lock is held until the value is dropped or the process ends, however it
    /// ends.
    fn lock(&self, path: &Path) -> io::Result<Lock>;

    /// Whether some process holds the lock at `path` now; `false` if there is no such file.
    fn is_locked(&self, path: &Path) -> io::Result<bool>;
}

/// So much of a lock file is read to tell who holds it.
pub const HOLDER_BYTES_MAX: usize = 4096;

/// What came of asking for a lock.
#[derive(Debug)]
pub enum Lock {
    /// It is held until this value is dropped.
    Taken(Box<dyn LockGuard>),
    /// Somebody else holds it; what they wrote into the file, the first [`HOLDER_BYTES_MAX`] of
    /// it, which may be stale. What is no UTF-8 is replaced.
    Held(String),
}

/// Holds a lock until it is dropped.
pub trait LockGuard: Debug + Send + Sync {
    /// Writes into the locked file who holds it, for those who are refused.
    fn note_holder(&self, holder: &str) -> io::Result<()>;
}

/// An open file. Offsets and lengths are in bytes.
pub trait DiskFile: Debug + Send + Sync {
    /// The length.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is zero.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads up to `buffer.len()` bytes from `offset` on. It may read fewer at any time; none
    /// only at the end of the file. The library reads through [`read_full_at`].
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Hands all of `bytes` to the kernel, to be written at `offset`. When it returns they
    /// survive the end of this process. An error may leave any part of them written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset` and returns when *these bytes* are durable. It says
    /// nothing about any other write. Offset and length must be multiples of
    /// [`DURABLE_BLOCK_BYTES`]. After an error nothing is known about the range.
    fn write_at_durable(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Takes the space for the first `length` bytes by writing zeros, from the present end
    /// on, so that later writes inside need no space and change no metadata.
    fn allocate(&self, length: u64) -> io::Result<()>;

    /// Cuts or extends the file to `length`.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Makes everything written so far durable, and the metadata needed to read it back.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`DiskFile::sync_data`], and all other metadata too.
    fn sync_all(&self) -> io::Result<()>;

    /// Drops what the kernel keeps in memory of this file's synced bytes, so that the next
    /// read takes them from the device: otherwise a check of the bytes would only check the
    /// kernel's copy. A hint; where the system has no such call, nothing happens.
    fn forget_cached(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What [`DiskFile::write_at_durable`] is aligned to, in bytes: the block size of every
/// common file system, and a multiple of every sector size.
pub const DURABLE_BLOCK_BYTES: u64 = 4096;

/// Reads `buffer.len()` bytes from `offset` on, fewer only at the end of the file. Whoever
/// takes a short read for the end of a log takes away what lies behind it.
pub fn read_full_at(file: &dyn DiskFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(offset + done as u64, &mut buffer[done..])? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// Reads exactly `buffer.len()` bytes from `offset` on; an end of file before that is an
/// [`io::ErrorKind::UnexpectedEof`].
pub(crate) fn read_exact_at(file: &dyn DiskFile, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    if read_full_at(file, offset, buffer)? < buffer.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}
