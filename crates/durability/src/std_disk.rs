//! [`Disk`] on the operating system's files. No other file of the library opens one.
#![allow(clippy::disallowed_methods)] // this is the one place they are for

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::disk::{
    Access, DURABLE_BLOCK_BYTES, Disk, DiskFile, EntryKind, HOLDER_BYTES_MAX, Lock, LockGuard,
};

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct StdDisk;

/// Zeros are written this many bytes at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl Disk for StdDisk {
    fn create(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let cached = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        StdFile::opened(path, cached, access)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let write = access != Access::Read;
        let cached = OpenOptions::new().read(true).write(write).open(path)?;
        StdFile::opened(path, cached, access)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match std::fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            result => result,
        }
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(EntryKind::File)),
            Ok(metadata) if metadata.is_dir() => Ok(Some(EntryKind::Directory)),
            Ok(_) => Ok(Some(EntryKind::Other)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        // Windows has no way to sync a directory; there the file system's own journal must do.
        if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock::Taken(Box::new(StdLock(file)))),
            Err(TryLockError::WouldBlock) => {
                let mut text = Vec::new();
                // What is in the file is a courtesy; that it is locked is the answer.
                let _ = file.take(HOLDER_BYTES_MAX as u64).read_to_end(&mut text);
                Ok(Lock::Held(String::from_utf8_lossy(&text).into_owned()))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct StdLock(File);

impl LockGuard for StdLock {
    fn note_holder(&self, holder: &str) -> io::Result<()> {
        self.0.set_len(0)?;
        write_all_at(&self.0, 0, holder.as_bytes())
    }
}

/// This process as others should see it: its id, the host, and which boot of it.
pub fn this_process() -> String {
    // They stay the same as long as this process lives.
    static HOST_AND_BOOT: OnceLock<(String, String)> = OnceLock::new();
    let (host, boot) = HOST_AND_BOOT.get_or_init(|| {
        let read = |path| match std::fs::read_to_string(path) {
            Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
            _ => "unknown".to_owned(),
        };
        (read("/proc/sys/kernel/hostname"), read("/proc/sys/kernel/random/boot_id"))
    });
    format!("process {} on host {host}, boot {boot}", std::process::id())
}

#[derive(Debug)]
struct StdFile {
    cached: File,
    direct: Mutex<Option<DirectFile>>,
}

impl StdFile {
    fn opened(path: &Path, cached: File, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let direct = if access == Access::WriteDirect { DirectFile::open(path)? } else { None };
        Ok(Arc::new(Self { cached, direct: Mutex::new(direct) }))
    }
}

impl DiskFile for StdFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.cached.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match read_some_at(&self.cached, offset, buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        write_all_at(&self.cached, offset, bytes)
    }

    fn write_at_durable(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(offset.is_multiple_of(DURABLE_BLOCK_BYTES));
        let mut direct = self.direct.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = direct.as_mut() {
            match file.write(offset, bytes) {
                // Some file systems open a file for direct writes and then want another
                // alignment. Nothing was written; from here on write and sync take its place.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => *direct = None,
                result => return result,
            }
        }
        write_all_at(&self.cached, offset, bytes)?;
        self.cached.sync_data()
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let mut offset = self.len()?;
        while offset < length {
            let n = usize::try_from(length - offset).unwrap_or(usize::MAX).min(ZEROS.len());
            write_all_at(&self.cached, offset, &ZEROS[..n])?;
            offset += n as u64;
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.cached.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.cached.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.cached.sync_all()
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn forget_cached(&self) -> io::Result<()> {
        use rustix::fs::{Advice, fadvise};
        Ok(fadvise(&self.cached, 0, None, Advice::DontNeed)?)
    }
}

/// The same file opened past the kernel's cache: a write returns when the device says that
/// it is durable, one system call where write and sync are two.
#[derive(Debug)]
struct DirectFile {
    file: File,
    /// Direct writes must come from aligned memory; this is long enough to hold an aligned
    /// copy of the largest write so far.
    aligned: Vec<u8>,
}

impl DirectFile {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn open(path: &Path) -> io::Result<Option<Self>> {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;

        let flags = (OFlags::DIRECT | OFlags::DSYNC).bits().cast_signed();
        match OpenOptions::new().write(true).custom_flags(flags).open(path) {
            Ok(file) => Ok(Some(Self { file, aligned: Vec::new() })),
            // A file system without direct I/O says so; the caller then writes and syncs.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
            Err(error) => Err(error),
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn open(_: &Path) -> io::Result<Option<Self>> {
        Ok(None)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        const ALIGNMENT: usize = 4096;
        if self.aligned.len() < bytes.len() + ALIGNMENT {
            self.aligned = vec![0; bytes.len() + ALIGNMENT];
        }
        let start = self.aligned.as_ptr().align_offset(ALIGNMENT);
        let aligned = &mut self.aligned[start..start + bytes.len()];
        aligned.copy_from_slice(bytes);
        write_all_at(&self.file, offset, aligned)
    }
}

#[cfg(unix)]
fn read_some_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(unix)]
fn write_all_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_some_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durable_write_is_read_back_through_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = StdDisk.create(&path, Access::WriteDirect).unwrap();
        file.allocate(16 << 10).unwrap();
        let block = vec![7; 4096];
        file.write_at_durable(4096, &block).unwrap();
        file.write_at(8192, b"cached").unwrap();
        let mut buffer = vec![0; 4096 + 6];
        assert_eq!(file.read_at(4096, &mut buffer).unwrap(), buffer.len());
        assert_eq!(&buffer[..4096], &block[..]);
        assert_eq!(&buffer[4096..], b"cached");
        assert_eq!(file.len().unwrap(), 16 << 10);
        assert_eq!(file.read_at(16 << 10, &mut buffer).unwrap(), 0, "end of file");
        file.sync_all().unwrap();
        file.forget_cached().unwrap();
        assert_eq!(file.read_at(4096, &mut buffer).unwrap(), buffer.len());
        assert_eq!(&buffer[4096..], b"cached", "only the kernel's copy is gone");
    }

    #[test]
    fn a_lock_is_refused_also_within_one_process_and_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        assert!(!StdDisk.is_locked(&path).unwrap(), "there is no such file");
        let Lock::Taken(first) = StdDisk.lock(&path).unwrap() else { panic!("nobody has it") };
        first.note_holder("process 7").unwrap();
        assert!(StdDisk.is_locked(&path).unwrap());
        assert!(matches!(StdDisk.lock(&path).unwrap(), Lock::Held(who) if who == "process 7"));
        drop(first);
        assert!(!StdDisk.is_locked(&path).unwrap());
        assert!(matches!(StdDisk.lock(&path).unwrap(), Lock::Taken(_)));
    }
}
