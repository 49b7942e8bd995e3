//! What a disk is told to do wrong.

use std::io;

/// What is done to a disk, for counting and for failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepKind {
    /// A file is created.
    Create,
    /// A file is opened.
    Open,
    /// A directory is created.
    CreateDir,
    /// A name is looked up.
    Kind,
    /// A directory is listed.
    List,
    /// A file gets another name.
    Rename,
    /// A file is removed.
    Remove,
    /// A directory is synced.
    SyncDir,
    /// A lock is asked for.
    Lock,
    /// A file's length is asked for.
    Len,
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// Bytes are written durably.
    WriteDurable,
    /// Space is taken.
    Allocate,
    /// A length is set.
    SetLen,
    /// A file's data are synced.
    SyncData,
    /// A file is synced.
    SyncAll,
}

impl StepKind {
    /// Every kind that changes something or makes it durable.
    pub const CHANGES: [Self; 11] = [
        Self::Create,
        Self::CreateDir,
        Self::Rename,
        Self::Remove,
        Self::SyncDir,
        Self::Write,
        Self::WriteDurable,
        Self::Allocate,
        Self::SetLen,
        Self::SyncData,
        Self::SyncAll,
    ];

    /// Every kind that only looks.
    pub const LOOKS: [Self; 5] = [Self::Open, Self::Kind, Self::List, Self::Len, Self::Read];

    /// Whether it makes something durable.
    pub const fn is_sync(self) -> bool {
        matches!(self, Self::SyncDir | Self::SyncData | Self::SyncAll)
    }
}

/// What becomes of the bytes when a sync of a file fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedSync {
    /// They stay unsynced: a later sync may still make them durable.
    StayDirty,
    /// They are called clean and stay readable until the power is cut; then they are gone. A
    /// later sync succeeds and does nothing for them. What Linux file systems do.
    LostAtCut,
    /// They are gone at once: reading gives what was durable.
    Reverted,
    /// They are durable all the same.
    DurableAnyway,
    /// This sync says that all is well, although the bytes are lost at a cut, and the next one
    /// of the same file fails.
    ReportedLate,
}

/// An operation that fails.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Which operations it is about.
    pub kind: StepKind,
    /// How many of them still succeed before.
    pub after: u64,
    /// The error number that the system gives.
    pub errno: i32,
    /// Whether all later ones fail too, until [`super::SimDisk::heal`].
    pub sticky: bool,
    /// How many bytes of a failing write, or of space that is taken, land all the same.
    pub landed: usize,
    /// What a failing sync of a file does.
    pub sync: FailedSync,
}

/// "Input/output error".
pub const EIO: i32 = 5;
/// "No space left on device".
pub const ENOSPC: i32 = 28;

impl Fault {
    /// The first operation of `kind` after `after` others fails, once.
    pub const fn once(kind: StepKind, after: u64, errno: i32) -> Self {
        Self { kind, after, errno, sticky: false, landed: 0, sync: FailedSync::StayDirty }
    }

    /// It and all later ones of its kind fail.
    #[must_use]
    pub const fn sticky(mut self) -> Self {
        self.sticky = true;
        self
    }

    /// A failing write puts its first `bytes` on the disk.
    #[must_use]
    pub const fn landing(mut self, bytes: usize) -> Self {
        self.landed = bytes;
        self
    }

    /// What a failing sync does to the bytes.
    #[must_use]
    pub const fn syncing(mut self, sync: FailedSync) -> Self {
        self.sync = sync;
        self
    }

    pub(crate) fn error(&self) -> io::Error {
        io::Error::from_raw_os_error(self.errno)
    }
}
