//! Requests of the kernel, translated into operations of a [`SimDisk`].

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{FallocateFlags, OFlags};
use steadfast_durability::disk::{Access, DURABLE_BLOCK_BYTES, Disk};

use crate::fuse::mount::{Inner, Shared};
use crate::fuse::nodes::Kind;
use crate::sim::Rules;

/// The kernel need not ask again: nobody but it changes the disk.
const VALID: Duration = Duration::from_secs(3600);

/// Files are simulated in memory, a pointer for every 4 KiB.
const FILE_BYTES_MAX: u64 = 8 << 30;

/// What is said to be free.
const BLOCKS_FREE: u64 = 1 << 28;

/// Zeros are written in pieces of this size.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Serves a mount.
pub(crate) struct Served(pub(crate) Shared);

/// What is open.
#[derive(Default)]
pub(crate) struct Handles {
    last: u64,
    /// What open directories list: as it was when each was opened, so that removing while
    /// listing skips nothing.
    listings: BTreeMap<u64, Vec<(u64, FileType, String)>>,
    /// Files through which the kernel has written with `O_DSYNC` and will ask for a sync by
    /// itself. That one would make more durable than was asked for, and is left out.
    about_to_sync: BTreeSet<u64>,
}

impl Handles {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

fn errno(error: &io::Error) -> Errno {
    use io::ErrorKind;
    if let Some(code) = error.raw_os_error() {
        return Errno::from_i32(code);
    }
    match error.kind() {
        ErrorKind::NotFound => Errno::ENOENT,
        ErrorKind::AlreadyExists => Errno::EEXIST,
        ErrorKind::IsADirectory => Errno::EISDIR,
        ErrorKind::NotADirectory => Errno::ENOTDIR,
        ErrorKind::DirectoryNotEmpty => Errno::ENOTEMPTY,
        ErrorKind::CrossesDevices => Errno::EXDEV,
        ErrorKind::FileTooLarge => Errno::EFBIG,
        ErrorKind::Unsupported => Errno::EOPNOTSUPP,
        ErrorKind::InvalidInput => Errno::EINVAL,
        _ => Errno::EIO,
    }
}

fn text(name: &OsStr) -> io::Result<&str> {
    name.to_str().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn within(end: Option<u64>) -> io::Result<u64> {
    end.filter(|end| *end <= FILE_BYTES_MAX).ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

fn attr(inner: &mut Inner, number: u64) -> io::Result<FileAttr> {
    let node = inner.nodes.node(number);
    let (kind, size) = match &node.kind {
        Kind::File(file) => (FileType::RegularFile, file.len()?),
        Kind::Dir => (FileType::Directory, 0),
    };
    let user = rustix::process::getuid().as_raw();
    Ok(FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: node.modified,
        mtime: node.modified,
        ctime: node.modified,
        crtime: node.modified,
        kind,
        perm: u16::try_from(node.mode & 0o7777).expect("twelve bits"),
        nlink: u32::from(node.linked),
        uid: user,
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

impl Served {
    /// Bytes that are durable when it returns, and a moment before they are.
    fn write_durably(
        &self,
        number: u64,
        handle: u64,
        flags: OFlags,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        let mut inner = self.0.change()?;
        if inner.sync_follows[usize::from(flags.contains(OFlags::DIRECT))] {
            inner.handles.about_to_sync.insert(handle);
        }
        let (disk, file) = (inner.disk.clone(), inner.nodes.file(number)?);
        let aligned = |n: u64| n.is_multiple_of(DURABLE_BLOCK_BYTES);
        if aligned(offset) && aligned(bytes.len() as u64) {
            disk.record_moments();
            let written = file.write_at_durable(offset, bytes);
            let moments = disk.take_moments();
            // Before it, under way, after it.
            let under_way = moments.get(1).cloned().unwrap_or_else(|| disk.moment());
            written?;
            self.0.observe(inner, &|| under_way.clone()).map(drop)
        } else {
            // The rest of the file becomes durable with it, which is more than was asked for.
            file.write_at(offset, bytes)?;
            let _held = self.0.observe(inner, &|| disk.moment())?;
            file.sync_data()
        }
    }

    fn sync(&self, number: u64, handle: u64, data_only: bool) -> io::Result<()> {
        if self.0.look()?.handles.about_to_sync.remove(&handle) {
            return Ok(());
        }
        let inner = self.0.change()?;
        let file = inner.nodes.file(number)?;
        if data_only {
            file.sync_data()?
        } else {
            file.sync_all()?
        }
        if inner.rules.has_journal() {
            inner.nodes.directories().iter().try_for_each(|path| inner.disk.sync_dir(path))?;
        }
        Ok(())
    }

    fn rename_in(&self, parent: u64, from: &str, to: &str, flags: RenameFlags) -> io::Result<()> {
        let mut inner = self.0.change()?;
        let (disk, rules) = (inner.disk.clone(), inner.rules);
        let Inner { nodes, .. } = &mut *inner;
        let moved = nodes.lookup(&disk, parent, from)?;
        let moved = nodes.node(moved).kind.clone();
        let (old, new) = (nodes.path_in(parent, from), nodes.path_in(parent, to));
        match (nodes.lookup(&disk, parent, to), &moved) {
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => {}
            (Err(error), _) => return Err(error),
            (Ok(_), _) if flags.contains(RenameFlags::RENAME_NOREPLACE) => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            (Ok(there), moved) => match (&nodes.node(there).kind, moved) {
                (Kind::Dir, Kind::Dir) if disk.list(&new)?.is_empty() => {}
                (Kind::Dir, Kind::Dir) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
                (Kind::Dir, _) => return Err(io::ErrorKind::IsADirectory.into()),
                (_, Kind::Dir) => return Err(io::ErrorKind::NotADirectory.into()),
                (_, Kind::File(file)) if rules == Rules::Ordered => file.sync_data()?,
                _ => {}
            },
        }
        disk.rename(&old, &new)?;
        nodes.rename(parent, from, to);
        Ok(())
    }

    fn make(
        &self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        directory: bool,
    ) -> io::Result<(FileHandle, FileAttr)> {
        let name = text(name)?;
        let mut inner = self.0.change()?;
        let path = inner.nodes.path_in(parent, name);
        let kind = if directory {
            if inner.disk.kind(&path)?.is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            inner.disk.create_dir(&path)?;
            Kind::Dir
        } else {
            Kind::File(inner.disk.create(&path, Access::Write)?)
        };
        let number = inner.nodes.add(parent, name, kind, mode);
        Ok((FileHandle(inner.handles.next()), attr(&mut inner, number)?))
    }

    fn remove(&self, parent: u64, name: &OsStr, directory: bool) -> io::Result<()> {
        let name = text(name)?;
        let mut inner = self.0.change()?;
        // Whoever has it open goes on with it: it must have a number before its name is gone.
        let disk = inner.disk.clone();
        inner.nodes.lookup(&disk, parent, name)?;
        let path = inner.nodes.path_in(parent, name);
        if directory {
            disk.remove_dir(&path)?
        } else {
            disk.remove(&path)?
        }
        inner.nodes.unlink(parent, name);
        Ok(())
    }

    fn zero_or_extend(&self, number: u64, offset: u64, length: u64, mode: i32) -> io::Result<()> {
        let end = within(offset.checked_add(length))?;
        let inner = self.0.change()?;
        let file = inner.nodes.file(number)?;
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let known =
            FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if !known.contains(mode) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let len = file.len()?;
        if mode.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE) {
            let mut at = offset;
            while at < end.min(len) {
                let n = (end.min(len) - at).min(ZEROS.len() as u64);
                file.write_at(at, &ZEROS[..usize::try_from(n).expect("it is small")])?;
                at += n;
            }
        }
        // Space that is taken reads as zeros, also after a cut: only the length is pending.
        if end > len && !mode.contains(FallocateFlags::KEEP_SIZE) {
            file.set_len(end)?;
        }
        Ok(())
    }

    fn list(&self, number: u64) -> io::Result<u64> {
        let mut inner = self.0.look()?;
        let disk = inner.disk.clone();
        let path = inner.nodes.path(number);
        let mut found = vec![
            (number, FileType::Directory, ".".to_owned()),
            (number, FileType::Directory, "..".to_owned()),
        ];
        for name in disk.list(&path)? {
            let entry = inner.nodes.lookup(&disk, number, &name)?;
            let kind = match inner.nodes.node(entry).kind {
                Kind::File(_) => FileType::RegularFile,
                Kind::Dir => FileType::Directory,
            };
            found.push((entry, kind, name));
        }
        let handle = inner.handles.next();
        inner.handles.listings.insert(handle, found);
        Ok(handle)
    }
}

/// Answers a request that has nothing to say.
fn answer(reply: ReplyEmpty, done: io::Result<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

fn answer_entry(reply: ReplyEntry, found: io::Result<FileAttr>) {
    match found {
        Ok(attr) => reply.entry(&VALID, &attr, Generation(0)),
        Err(error) => reply.error(errno(&error)),
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = text(name).and_then(|name| {
            let mut inner = self.0.look()?;
            let disk = inner.disk.clone();
            let number = inner.nodes.lookup(&disk, parent.0, name)?;
            attr(&mut inner, number)
        });
        answer_entry(reply, found);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.look().and_then(|mut inner| attr(&mut inner, ino.0)) {
            Ok(attr) => reply.attr(&VALID, &attr),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let done = (|| {
            let mut inner = if let Some(size) = size {
                let size = within(Some(size))?;
                let inner = self.0.change()?;
                inner.nodes.file(ino.0)?.set_len(size)?;
                inner
            } else {
                self.0.look()?
            };
            let node = inner.nodes.node(ino.0);
            if let Some(mode) = mode {
                node.mode = mode;
            }
            match modified {
                Some(TimeOrNow::SpecificTime(time)) => node.modified = time,
                Some(TimeOrNow::Now) => node.modified = SystemTime::now(),
                None if size.is_some() => node.modified = SystemTime::now(),
                None => {}
            }
            attr(&mut inner, ino.0)
        })();
        match done {
            Ok(attr) => reply.attr(&VALID, &attr),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        answer_entry(reply, self.make(parent.0, name, mode & !umask, true).map(|made| made.1));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.make(parent.0, name, mode & !umask, false) {
            Ok((handle, attr)) => {
                reply.created(&VALID, &attr, Generation(0), handle, FopenFlags::empty());
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.remove(parent.0, name, false));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.remove(parent.0, name, true));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let done = (|| {
            if parent != new_parent {
                return Err(io::ErrorKind::CrossesDevices.into());
            }
            if flags.contains(RenameFlags::RENAME_EXCHANGE) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            self.rename_in(parent.0, text(name)?, text(new_name)?, flags)
        })();
        answer(reply, done);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.0.look().and_then(|inner| {
            let mut bytes = vec![0; size as usize];
            let n = inner.nodes.file(ino.0)?.read_at(offset, &mut bytes)?;
            bytes.truncate(n);
            Ok(bytes)
        });
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let flags = OFlags::from_bits_retain(flags.0.cast_unsigned());
        let done = (|| {
            within(offset.checked_add(bytes.len() as u64))?;
            if flags.contains(OFlags::DSYNC) {
                return self.write_durably(ino.0, handle.0, flags, offset, bytes);
            }
            let mut inner = self.0.change()?;
            inner.nodes.node(ino.0).modified = SystemTime::now();
            inner.nodes.file(ino.0)?.write_at(offset, bytes)
        })();
        match done {
            Ok(()) => reply.written(u32::try_from(bytes.len()).expect("requests are small")),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        answer(reply, self.0.look().map(drop));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.look() {
            Ok(mut inner) => {
                reply.opened(FileHandle(inner.handles.next()), FopenFlags::empty());
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, handle: FileHandle, data: bool, reply: ReplyEmpty) {
        answer(reply, self.sync(ino.0, handle.0, data));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let done = self.0.change().and_then(|inner| {
            let paths = match inner.rules.has_journal() {
                true => inner.nodes.directories(),
                false => vec![inner.nodes.path(ino.0)],
            };
            paths.iter().try_for_each(|path| inner.disk.sync_dir(path))
        });
        answer(reply, done);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.list(ino.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let inner = match self.0.look() {
            Ok(inner) => inner,
            Err(error) => return reply.error(errno(&error)),
        };
        let entries = inner.handles.listings.get(&handle.0).map(Vec::as_slice).unwrap_or_default();
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (number, kind, name)) in entries.iter().enumerate().skip(skip) {
            if reply.add(INodeNo(*number), at as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let done = self.0.look().map(|mut inner| drop(inner.handles.listings.remove(&handle.0)));
        answer(reply, done);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer(reply, self.zero_or_extend(ino.0, offset, length, mode));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS_FREE, BLOCKS_FREE, BLOCKS_FREE, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
