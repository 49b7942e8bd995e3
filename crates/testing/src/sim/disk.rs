//! [`SimDisk`]: an implementation of [`Disk`] in memory that knows what a power cut would
//! take away.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use steadfast_core::ManualClock;
use steadfast_durability::disk::{
    Access, DURABLE_BLOCK_BYTES, Disk, DiskFile, EntryKind, HOLDER_BYTES_MAX, Lock, LockGuard,
};

use crate::sim::fault::{ENOSPC, FailedSync, Fault, Lie, StepKind};
use crate::sim::image::Moment;
use crate::sim::tree::{DirChange, File, FileChange, Id, Node, Tree};

/// One thing that was done to a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Counts from 1.
    pub number: u64,
    /// What.
    pub kind: StepKind,
    /// To which file or directory.
    pub path: PathBuf,
    /// Offset and length, for reads and writes; the length, for lengths.
    pub range: (u64, u64),
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (offset, length) = self.range;
        write!(f, "{} {:?} {} {offset}+{length}", self.number, self.kind, self.path.display())
    }
}

/// Whether syncing a new file makes its name durable too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameDurability {
    /// Only syncing the directory does. What POSIX promises.
    #[default]
    SyncDir,
    /// Syncing the file does too, with what its directory did before. What ext4 does.
    SyncFile,
}

/// What the system says to a write through a file that was opened for reading.
const EBADF: i32 = 9;
/// What it says to a new length through such a file.
const EINVAL: i32 = 22;

struct State {
    tree: Tree,
    step: u64,
    counts: BTreeMap<StepKind, u64>,
    journal: Option<Vec<Step>>,
    moments: Option<Vec<Moment>>,
    note: u64,
    faults: Vec<Fault>,
    /// Faults that struck and are sticky.
    struck: Vec<Fault>,
    capacity: Option<u64>,
    names: NameDurability,
    pace: Option<(ManualClock, BTreeMap<StepKind, Duration>)>,
    locked: BTreeSet<Id>,
}

/// A disk in memory. Clones are the same disk.
///
/// Each file is what is durable, what the running system sees, and the list of operations
/// between the two; a directory likewise. A [`Moment`] of it yields crash images, which are
/// disks again.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

impl Default for SimDisk {
    fn default() -> Self {
        Self::from_tree(Tree::new())
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        let files = state.tree.visible_files();
        let lens = files.iter().map(|(path, id)| (path, state.tree.files[id].cached.len()));
        f.debug_map().entries(lens).finish()
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn from_tree(tree: Tree) -> Self {
        Self(Arc::new(Mutex::new(State {
            tree,
            step: 0,
            counts: BTreeMap::new(),
            journal: None,
            moments: None,
            note: 0,
            faults: Vec::new(),
            struck: Vec::new(),
            capacity: None,
            names: NameDurability::default(),
            pace: None,
            locked: BTreeSet::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a journal of all steps from now on.
    pub fn keep_journal(&self) {
        self.state().journal = Some(Vec::new());
    }

    /// The steps so far, since [`SimDisk::keep_journal`].
    pub fn journal(&self) -> Vec<Step> {
        self.state().journal.clone().unwrap_or_default()
    }

    /// Remembers the disk as it is before every step that changes it, from now on.
    pub fn record_moments(&self) {
        self.state().moments = Some(Vec::new());
    }

    /// The moments recorded so far, and the present one as the last.
    pub fn take_moments(&self) -> Vec<Moment> {
        let mut state = self.state();
        let mut moments = state.moments.take().unwrap_or_default();
        moments.push(state.moment());
        moments
    }

    /// The disk as it is now.
    pub fn moment(&self) -> Moment {
        self.state().moment()
    }

    /// A number that the next moments carry: what the program that is running had reached.
    pub fn note(&self, note: u64) {
        self.state().note = note;
    }

    /// How often something was done.
    pub fn count(&self, kind: StepKind) -> u64 {
        self.state().counts.get(&kind).copied().unwrap_or(0)
    }

    /// Adds something that will go wrong, counted from now on.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Whether every fault that was injected has struck.
    pub fn has_struck(&self) -> bool {
        self.state().faults.is_empty()
    }

    /// Nothing goes wrong from now on.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.struck.clear();
    }

    /// The most bytes that all files may have together; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes that all files have together.
    pub fn used_bytes(&self) -> u64 {
        self.state().tree.used_bytes()
    }

    /// From now on each step of `kind` takes `time` on `clock`, in no time. One clock for all
    /// kinds.
    pub fn slow_down(&self, clock: &ManualClock, kind: StepKind, time: Duration) {
        let mut state = self.state();
        let (_, mut times) = state.pace.take().unwrap_or_else(|| (clock.clone(), BTreeMap::new()));
        times.insert(kind, time);
        state.pace = Some((clock.clone(), times));
    }

    /// What syncing a file does for its name.
    pub fn set_name_durability(&self, names: NameDurability) {
        self.state().names = names;
    }

    /// The same for two disks on which a program sees the same, but for files named `LOCK`.
    pub fn fingerprint(&self) -> u64 {
        self.state().tree.fingerprint()
    }

    /// Another disk with the same content, pending operations included, and no locks: what a
    /// process that is killed leaves.
    pub fn killed(&self) -> Self {
        Self::from_tree(self.state().tree.clone())
    }

    /// The paths of all files.
    pub fn paths(&self) -> Vec<String> {
        self.state().tree.visible_files().into_iter().map(|file| file.0).collect()
    }

    /// The bytes of a file.
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let id = state.tree.file_at(Path::new(path)).ok()?;
        Some(state.tree.files[&id].cached.to_vec())
    }

    /// Changes a file at rest, durably, behind everybody's back. A file that is not there is
    /// made.
    pub fn tamper(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.bytes(path).unwrap_or_default();
        change(&mut bytes);
        let mut state = self.state();
        let tree = &mut state.tree;
        let (dir, name) = tree.parent_of(Path::new(path)).expect("its directory is there");
        let id = tree.new_file();
        tree.change_dir(dir, 0, DirChange::Link { name, node: Node::File(id) });
        tree.sync_dir(dir);
        tree.change_file(id, 0, FileChange::Len(bytes.len() as u64));
        tree.change_file(id, 0, FileChange::Write { offset: 0, bytes: bytes.into() });
        tree.sync_file(id);
    }

    /// Flips one bit of a file at rest.
    pub fn flip_bit(&self, path: &str, bit: usize) {
        self.tamper(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    }

    /// Removes an empty directory. Durable only after its parent was synced.
    pub fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let step = state.simple(StepKind::Remove, path)?;
        let id = state.tree.dir_at(path)?;
        if !state.tree.dirs[&id].cached.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (dir, name) = state.tree.parent_of(path)?;
        state.tree.change_dir(dir, step, DirChange::Unlink { name });
        Ok(())
    }

    /// Removes a file at rest, durably.
    pub fn lose(&self, path: &str) {
        let mut state = self.state();
        let tree = &mut state.tree;
        let (dir, name) = tree.parent_of(Path::new(path)).expect("its directory is there");
        tree.change_dir(dir, 0, DirChange::Unlink { name });
        tree.sync_dir(dir);
    }
}

impl State {
    fn moment(&self) -> Moment {
        Moment::new(self.tree.clone(), self.step, self.note)
    }

    /// Counts a step and says what is to go wrong with it.
    fn begin(&mut self, kind: StepKind, path: &Path, range: (u64, u64)) -> Result<u64, Fault> {
        if !StepKind::LOOKS.contains(&kind) {
            let moment = self.moments.is_some().then(|| self.moment());
            if let (Some(moments), Some(moment)) = (&mut self.moments, moment) {
                moments.push(moment);
            }
        }
        if let Some((clock, times)) = &self.pace
            && let Some(time) = times.get(&kind)
        {
            clock.advance(*time);
        }
        self.step += 1;
        *self.counts.entry(kind).or_default() += 1;
        if let Some(journal) = &mut self.journal {
            journal.push(Step { number: self.step, kind, path: path.to_owned(), range });
        }
        if let Some(fault) = self.struck.iter().find(|fault| fault.kind == kind) {
            return Err(*fault);
        }
        let mut hit = None;
        for (index, fault) in self.faults.iter_mut().enumerate() {
            if fault.kind == kind {
                if fault.after == 0 {
                    hit = Some(index);
                    break;
                }
                fault.after -= 1;
            }
        }
        match hit {
            None => Ok(self.step),
            Some(index) => {
                let fault = self.faults.remove(index);
                if fault.sticky {
                    self.struck.push(fault);
                }
                Err(fault)
            }
        }
    }

    fn simple(&mut self, kind: StepKind, path: &Path) -> io::Result<u64> {
        self.begin(kind, path, (0, 0)).map_err(|fault| fault.error())
    }

    /// How far a file may grow towards `wanted`.
    fn room(&self, id: Id, wanted: u64) -> u64 {
        let len = self.tree.files[&id].cached.len();
        match self.capacity {
            Some(capacity) if wanted > len => {
                len + capacity.saturating_sub(self.tree.used_bytes()).min(wanted - len)
            }
            _ => wanted,
        }
    }

    /// The file whose path comes after that of `id`, or the first.
    fn next_by_path(&self, id: Id) -> Option<Id> {
        let files = self.tree.visible_files();
        let at = files.iter().position(|file| file.1 == id).map_or(0, |at| at + 1);
        let other = files.iter().cycle().skip(at).take(files.len()).find(|file| file.1 != id);
        other.map(|file| file.1)
    }

    fn write(&mut self, id: Id, step: u64, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        self.tree.change_file(id, step, FileChange::Write { offset, bytes: bytes.into() });
        if end > self.tree.files[&id].cached.len() {
            self.tree.change_file(id, step, FileChange::Len(end));
        }
    }

    /// A write, or the taking of space, that may not go through.
    fn write_or_fail(
        &mut self,
        id: Id,
        begun: Result<u64, Fault>,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<u64> {
        match begun {
            Err(Fault { lie: Some(lie), .. }) => {
                let step = self.step;
                match lie {
                    Lie::Misplaced(by) => self.write(id, step, offset + by, bytes),
                    Lie::Misdirected => {
                        if let Some(other) = self.next_by_path(id) {
                            self.write(other, step, offset, bytes);
                        }
                    }
                    Lie::Lost => {}
                    _ => self.write(id, step, offset, bytes),
                }
                Ok(step)
            }
            Err(fault @ Fault { sync: FailedSync::Lying, .. }) if !fault.kind.is_sync() => {
                self.write(id, self.step, offset, bytes);
                Ok(self.step)
            }
            Err(fault) => {
                let landed = fault.landed.min(bytes.len());
                self.write(id, self.step, offset, &bytes[..landed]);
                Err(fault.error())
            }
            Ok(step) => {
                let end = offset + bytes.len() as u64;
                let room = self.room(id, end);
                if room < end {
                    let fits = usize::try_from(room.saturating_sub(offset)).unwrap_or(0);
                    // File systems give space by the block.
                    self.write(id, step, offset, &bytes[..fits - fits % 4096]);
                    return Err(io::Error::from_raw_os_error(ENOSPC));
                }
                self.write(id, step, offset, bytes);
                Ok(step)
            }
        }
    }

    fn sync(&mut self, kind: StepKind, path: &Path, id: Id) -> io::Result<()> {
        let begun = self.begin(kind, path, (0, 0));
        if let Some(errno) = self.tree.file(id).late_errno.take() {
            self.tree.file(id).lose_pending();
            return Err(io::Error::from_raw_os_error(errno));
        }
        match begun {
            Ok(_) => {
                self.tree.sync_file(id);
                if self.names == NameDurability::SyncFile {
                    self.tree.sync_links_of(id);
                }
                Ok(())
            }
            Err(fault) => {
                let file = self.tree.file(id);
                match fault.sync {
                    FailedSync::StayDirty => {}
                    FailedSync::LostAtCut => file.lose_pending(),
                    FailedSync::Reverted => {
                        file.pending.clear();
                        file.cached = file.durable.clone();
                        file.lost = false;
                    }
                    FailedSync::DurableAnyway => self.tree.sync_file(id),
                    FailedSync::ReportedLate => {
                        file.lose_pending();
                        file.late_errno = Some(fault.errno);
                        return Ok(());
                    }
                    FailedSync::Lying => return Ok(()),
                }
                Err(fault.error())
            }
        }
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let step = state.simple(StepKind::Create, path)?;
        if state.tree.find(path)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (dir, name) = state.tree.parent_of(path)?;
        let id = state.tree.new_file();
        state.tree.change_dir(dir, step, DirChange::Link { name, node: Node::File(id) });
        // Whoever makes a file may write to it.
        let access = if access == Access::Read { Access::Write } else { access };
        Ok(Arc::new(SimFile { disk: self.clone(), id, path: path.to_owned(), access }))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.simple(StepKind::Open, path)?;
        let id = state.tree.file_at(path)?;
        Ok(Arc::new(SimFile { disk: self.clone(), id, path: path.to_owned(), access }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let step = state.simple(StepKind::CreateDir, path)?;
        match state.tree.find(path)? {
            Some(Node::Dir(_)) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::AlreadyExists.into()),
            None => {
                let (dir, name) = state.tree.parent_of(path)?;
                let id = state.tree.new_dir();
                state.tree.change_dir(dir, step, DirChange::Link { name, node: Node::Dir(id) });
                Ok(())
            }
        }
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        let mut state = self.state();
        state.simple(StepKind::Kind, path)?;
        Ok(state.tree.find(path)?.map(|node| match node {
            Node::File(_) => EntryKind::File,
            Node::Dir(_) => EntryKind::Directory,
        }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.simple(StepKind::List, directory)?;
        let id = state.tree.dir_at(directory)?;
        // In no order that anybody should rely on.
        Ok(state.tree.dirs[&id].cached.keys().rev().cloned().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let step = state.simple(StepKind::Rename, from)?;
        let node = state.tree.find(from)?.ok_or(io::ErrorKind::NotFound)?;
        if matches!((node, state.tree.find(to)?), (Node::File(_), Some(Node::Dir(_)))) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let ((dir, from), (to_dir, to)) = (state.tree.parent_of(from)?, state.tree.parent_of(to)?);
        if dir != to_dir {
            return Err(io::ErrorKind::Unsupported.into());
        }
        state.tree.change_dir(dir, step, DirChange::Rename { from, to, node });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let step = state.simple(StepKind::Remove, path)?;
        state.tree.file_at(path)?;
        let (dir, name) = state.tree.parent_of(path)?;
        state.tree.change_dir(dir, step, DirChange::Unlink { name });
        Ok(())
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.state();
        let begun = state.begin(StepKind::SyncDir, directory, (0, 0));
        let id = state.tree.dir_at(directory)?;
        match begun {
            Ok(_) => {
                state.tree.sync_dir(id);
                Ok(())
            }
            Err(fault) => {
                match fault.sync {
                    // Names are in the file system's journal, not in pages.
                    FailedSync::StayDirty | FailedSync::ReportedLate | FailedSync::LostAtCut => {}
                    FailedSync::Lying => return Ok(()),
                    FailedSync::Reverted => {
                        let dir = state.tree.dir(id);
                        dir.pending.clear();
                        dir.cached = dir.durable.clone();
                    }
                    FailedSync::DurableAnyway => state.tree.sync_dir(id),
                }
                Err(fault.error())
            }
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let mut state = self.state();
        let step = state.simple(StepKind::Lock, path)?;
        let id = match state.tree.file_at(path) {
            Ok(id) => id,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (dir, name) = state.tree.parent_of(path)?;
                let id = state.tree.new_file();
                state.tree.change_dir(dir, step, DirChange::Link { name, node: Node::File(id) });
                id
            }
            Err(error) => return Err(error),
        };
        if !state.locked.insert(id) {
            let mut text = state.tree.files[&id].cached.to_vec();
            text.truncate(HOLDER_BYTES_MAX);
            return Ok(Lock::Held(String::from_utf8_lossy(&text).into_owned()));
        }
        Ok(Lock::Taken(Box::new(SimLock { disk: self.clone(), id })))
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        let state = self.state();
        let found = state.tree.find(path)?;
        Ok(matches!(found, Some(Node::File(id)) if state.locked.contains(&id)))
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    id: Id,
}

impl LockGuard for SimLock {
    /// Durable at once and no step: nothing may depend on what is in that file, and crash
    /// images that differ only in it would be tried for nothing.
    fn note_holder(&self, holder: &str) -> io::Result<()> {
        let mut state = self.disk.state();
        let file = state.tree.file(self.id);
        for content in [&mut file.durable, &mut file.cached] {
            content.write(0, holder.as_bytes());
            content.set_len(holder.len() as u64);
        }
        Ok(())
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state().locked.remove(&self.id);
    }
}

struct SimFile {
    disk: SimDisk,
    id: Id,
    path: PathBuf,
    access: Access,
}

impl SimFile {
    /// What the system says to a change through a file that was opened for reading.
    fn writable(&self, errno: i32) -> io::Result<()> {
        match self.access {
            Access::Read => Err(io::Error::from_raw_os_error(errno)),
            Access::Write | Access::WriteDirect => Ok(()),
        }
    }
}

impl std::fmt::Debug for SimFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimFile({})", self.path.display())
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.simple(StepKind::Len, &self.path)?;
        Ok(state.tree.files[&self.id].cached.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        let range = (offset, buffer.len() as u64);
        let lie = match state.begin(StepKind::Read, &self.path, range) {
            Ok(_) => None,
            Err(Fault { lie: Some(lie), .. }) => Some(lie),
            Err(fault) => return Err(fault.error()),
        };
        let read = state.tree.files[&self.id].cached.read(offset, buffer);
        match lie {
            _ if read == 0 => Ok(0),
            Some(Lie::ShortRead(bytes)) => Ok(bytes.clamp(1, read)),
            Some(Lie::FlippedInFlight(bit)) => {
                buffer[bit / 8 % read] ^= 1 << (bit % 8);
                Ok(read)
            }
            Some(Lie::FlippedAtRest(bit)) => {
                let at = bit / 8 % read;
                buffer[at] ^= 1 << (bit % 8);
                let file = state.tree.file(self.id);
                for content in [&mut file.durable, &mut file.cached] {
                    content.write(offset + at as u64, &buffer[at..=at]);
                }
                Ok(read)
            }
            _ => Ok(read),
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if !bytes.is_empty() {
            self.writable(EBADF)?;
        }
        let mut state = self.disk.state();
        let begun = state.begin(StepKind::Write, &self.path, (offset, bytes.len() as u64));
        state.write_or_fail(self.id, begun, offset, bytes).map(drop)
    }

    fn write_at_durable(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let aligned = |n: u64| n.is_multiple_of(DURABLE_BLOCK_BYTES);
        assert!(aligned(offset) && aligned(bytes.len() as u64), "durable writes are aligned");
        self.writable(EBADF)?;
        let mut state = self.disk.state();
        let begun = state.begin(StepKind::WriteDurable, &self.path, (offset, bytes.len() as u64));
        let step = state.write_or_fail(self.id, begun, offset, bytes)?;
        if begun.is_err_and(|fault| fault.lie.is_none()) {
            // It says that it is durable, and is not.
            return Ok(());
        }
        // The cut may come while it is under way: any part of it may be there.
        let moment = state.moments.is_some().then(|| state.moment());
        if let (Some(moments), Some(moment)) = (&mut state.moments, moment) {
            moments.push(moment);
        }
        // Wherever it landed.
        let landed = |file: &File| file.pending.iter().any(|op| op.step == step);
        let files = state.tree.files.iter().filter(|(_, file)| landed(file));
        let ids: Vec<_> = files.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| state.tree.force(id, step));
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let begun = state.begin(StepKind::Allocate, &self.path, (0, length));
        let from = state.tree.files[&self.id].cached.len();
        if length > from {
            self.writable(EBADF)?;
        }
        let zeros = vec![0; usize::try_from(length.saturating_sub(from)).expect("small files")];
        state.write_or_fail(self.id, begun, from, &zeros).map(drop)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.writable(EINVAL)?;
        let mut state = self.disk.state();
        let begun = state.begin(StepKind::SetLen, &self.path, (0, length));
        let step = begun.map_err(|fault| fault.error())?;
        state.tree.change_file(self.id, step, FileChange::Len(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.state().sync(StepKind::SyncData, &self.path, self.id)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk.state().sync(StepKind::SyncAll, &self.path, self.id)
    }
}
