//! What a disk is told to do wrong: to fail, or to deceive.

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
    /// It says that all is well and makes nothing durable; a later honest sync does. What a
    /// device with a volatile cache does. For a durable write: it is a plain one.
    Lying,
}

/// How a disk deceives: it says that all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// A read gives only so many of the bytes, at least one. Not even a lie: callers must ask
    /// for the rest.
    ShortRead(usize),
    /// One bit of what is read is flipped on its way; the next read gives the right one. It
    /// counts from the first byte read, modulo how many there are.
    FlippedInFlight(usize),
    /// One bit of what is read has flipped at rest, and stays so.
    FlippedAtRest(usize),
    /// A write lands this many bytes further on in the same file; its place keeps the old bytes.
    Misplaced(u64),
    /// A write lands at the same offset of another file, the next by path; its place keeps the
    /// old bytes.
    Misdirected,
    /// A write changes nothing.
    Lost,
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
    /// What happens instead, if no error is reported.
    pub lie: Option<Lie>,
}

/// "Input/output error".
pub const EIO: i32 = 5;
/// "No space left on device".
pub const ENOSPC: i32 = 28;

impl Fault {
    /// The first operation of `kind` after `after` others fails, once.
    pub const fn once(kind: StepKind, after: u64, errno: i32) -> Self {
        let sync = FailedSync::StayDirty;
        Self { kind, after, errno, sticky: false, landed: 0, sync, lie: None }
    }

    /// The first operation of `kind` after `after` others deceives, once. What does not fit
    /// the kind of operation changes nothing.
    pub const fn lie(kind: StepKind, after: u64, lie: Lie) -> Self {
        let mut fault = Self::once(kind, after, EIO);
        fault.lie = Some(lie);
        fault
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
