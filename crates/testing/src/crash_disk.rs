//! A disk that a process can lose: from one moment on nothing reaches it any more.
//!
//! A crash in the middle of a process that goes on, as tests do, is none: values are dropped,
//! and a dropped database closes itself. Behind a [`CrashDisk`] that changes nothing.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use steadfast_durability::StdDisk;
use steadfast_durability::disk::{Access, Disk, DiskFile, EntryKind, Lock};

/// Passes everything on to another disk, until [`CrashDisk::crash`]. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct CrashDisk {
    inner: Arc<dyn Disk>,
    crashed: Arc<AtomicBool>,
}

impl CrashDisk {
    /// A way to `inner` that can be cut.
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self { inner, crashed: Arc::default() }
    }

    /// A way to the files of this machine that can be cut.
    pub fn of_files() -> Self {
        Self::new(Arc::new(StdDisk))
    }

    /// From now on nothing reaches the disk through this or what was opened with it: every call
    /// is an error.
    pub fn crash(&self) {
        self.crashed.store(true, Ordering::Release);
    }

    /// Whether it came to that.
    pub fn has_crashed(&self) -> bool {
        self.crashed.load(Ordering::Acquire)
    }

    fn inner(&self) -> io::Result<&dyn Disk> {
        alive(&self.crashed).map(|()| &*self.inner)
    }

    fn file(&self, file: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(CrashFile { inner: file?, crashed: self.crashed.clone() }))
    }
}

fn alive(crashed: &AtomicBool) -> io::Result<()> {
    match crashed.load(Ordering::Acquire) {
        true => Err(io::Error::other("the process has crashed")),
        false => Ok(()),
    }
}

impl Disk for CrashDisk {
    fn create(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.file(self.inner()?.create(path, access))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.file(self.inner()?.open(path, access))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner()?.create_dir(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.inner()?.kind(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.inner()?.list(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner()?.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner()?.remove(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.inner()?.sync_dir(directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        self.inner()?.lock(path)
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.inner()?.is_locked(path)
    }
}

#[derive(Debug)]
struct CrashFile {
    inner: Arc<dyn DiskFile>,
    crashed: Arc<AtomicBool>,
}

impl CrashFile {
    fn inner(&self) -> io::Result<&dyn DiskFile> {
        alive(&self.crashed).map(|()| &*self.inner)
    }
}

impl DiskFile for CrashFile {
    fn len(&self) -> io::Result<u64> {
        self.inner()?.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner()?.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner()?.write_at(offset, bytes)
    }

    fn write_at_durable(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner()?.write_at_durable(offset, bytes)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.inner()?.allocate(length)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.inner()?.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner()?.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.inner()?.sync_all()
    }

    fn forget_cached(&self) -> io::Result<()> {
        self.inner()?.forget_cached()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDisk;

    #[test]
    fn nothing_reaches_the_disk_after_the_crash() {
        let sim = SimDisk::new();
        let disk = CrashDisk::new(Arc::new(sim.clone()));
        let file = disk.create(Path::new("a"), Access::Write).unwrap();
        file.write_at(0, b"before").unwrap();
        disk.clone().crash();
        assert!(disk.has_crashed());
        assert!(file.write_at(0, b"behind").is_err());
        assert!(file.sync_all().is_err());
        assert!(disk.remove(Path::new("a")).is_err());
        assert_eq!(sim.bytes("a").unwrap(), b"before");
    }
}
