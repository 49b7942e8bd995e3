//! Folders that the benches write into, beside the build's own output unless told otherwise.

use std::io;
use std::path::{Path, PathBuf};

/// A folder that is removed when this goes.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A new, empty one. It lies in `STEADFAST_BENCH_DIR` if that is set.
    pub(crate) fn new(name: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root().join(format!("{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the benches' folder can be written");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where scratch folders lie.
pub(crate) fn root() -> PathBuf {
    if let Some(dir) = std::env::var_os("STEADFAST_BENCH_DIR") {
        return dir.into();
    }
    let binary = std::env::current_exe().expect("a process knows its binary");
    binary.parent().expect("a binary lies in a folder").join("bench-data")
}

/// Copies a folder, and syncs the copy: what is opened next shall not pay for our writing.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
            std::fs::File::open(&target)?.sync_all()?;
        }
    }
    Ok(())
}

/// Bytes of the files in a folder and below: their lengths, and what they take on the disk.
pub(crate) fn folder_bytes(folder: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let (mut length, mut on_disk) = (0, 0);
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let (l, d) = if metadata.is_dir() {
            folder_bytes(&entry.path())?
        } else {
            (metadata.len(), metadata.blocks() * 512)
        };
        length += l;
        on_disk += d;
    }
    Ok((length, on_disk))
}
