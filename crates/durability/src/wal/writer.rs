//! Appends groups to the log: framing, rotation, sync, and what follows when one fails.
//!
//! The writer knows one thread at a time: the leader of a commit group owns it. What it
//! guarantees:
//!
//! - A segment that holds a group is named in the MANIFEST, with a floor at its start: it was
//!   filled, synced, its directory synced and its header made durable before.
//! - Space is taken when a segment is created, so a full disk is met there, before any byte
//!   of a commit is written, and the log goes on when there is space again.
//! - After a failed write the log continues behind the last good group, in a new segment.
//! - After a failed sync nothing is written any more: the writer is poisoned.
//! - What a sync in the background covered is promised once the writer was told of it: the
//!   bytes that the log had when the sync was asked for, and segments before that one are
//!   durable already.

use std::collections::HashMap;
use std::sync::Arc;

use steadfast_core::limits::{FRAME_BYTES_MAX, SEGMENT_BYTES_MIN};
use steadfast_core::{
    CrashPoint, Entropy, Namespace, NamespaceId, Sabotage, Timestamp, Version, check_crash_point,
    sabotaged, unless,
};

use crate::disk::{Access, DURABLE_BLOCK_BYTES, Disk, DiskFile};
use crate::error::{Error, IoContext, Result};
use crate::layout::Layout;
use crate::manifest::{EpochStart, Floor, Manifest};
use crate::wal::frame::{Frame, encode_definitions};
use crate::wal::group::{
    ChecksumSeed, GROUP_ALIGNMENT, GROUP_BYTES_MIN, GROUP_HEADER_BYTES, GroupBuilder, GroupKind,
    Stamp, TRAILER_BYTES,
};
use crate::wal::segment::{Epoch, HEADER_BYTES, Origin, SegmentHeader};

mod snapshots;
mod syncing;

pub use syncing::{SyncRequest, Synced};

use syncing::Syncing;

/// Size of the first segment of an epoch; each further one is twice as large, up to the
/// configured limit, so that a small database has a small log.
pub(crate) const FIRST_SEGMENT_BYTES: u64 = 256 << 10;

/// A sync in the background is due when so many bytes wait for one: few enough that the sync
/// at the end of a segment finds little left, so many that a commit seldom meets one.
const SYNC_BYTES: u64 = 2 << 20;

/// Versions reserved with a segment, by its size: no frame is shorter than this many bytes,
/// so a segment cannot use up what its header reserved.
const BYTES_PER_VERSION: u64 = 8;

/// The ceiling of a segment of `bytes` bytes whose first version is `next`.
pub(crate) const fn version_ceiling(next: Version, bytes: u64) -> u64 {
    next.0.saturating_add(bytes / BYTES_PER_VERSION)
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalOptions {
    /// Size to which segments grow, in bytes.
    pub segment_bytes: u64,
    /// Whether every group is written durably by itself, in blocks of its own, past the
    /// kernel's cache. One device write where write and sync would be two; a lone commit
    /// takes a block of log.
    pub direct: bool,
}

impl WalOptions {
    /// How segments are opened.
    pub(crate) const fn access(self) -> Access {
        if self.direct { Access::WriteDirect } else { Access::Write }
    }
}

/// What the writer is asked to append.
#[derive(Debug, Clone, Copy)]
pub enum Outgoing<'a> {
    /// A transaction in one frame.
    Txn {
        /// Its version.
        version: Version,
        /// When it was committed.
        timestamp: Timestamp,
        /// The namespaces that its writes use.
        namespaces: &'a [NamespaceId],
        /// Its encoded writes.
        writes: &'a [u8],
    },
    /// A piece of a streamed transaction.
    Stream(Frame<'a>),
    /// The commit of a streamed transaction.
    StreamCommit {
        /// A [`Frame::Commit`].
        frame: Frame<'a>,
        /// The namespaces that its parts define.
        defined: &'a [NamespaceId],
    },
}

impl Outgoing<'_> {
    const fn version(&self) -> Option<(Version, Timestamp)> {
        match self {
            Self::Txn { version, timestamp, .. }
            | Self::StreamCommit { frame: Frame::Commit { version, timestamp, .. }, .. } => {
                Some((*version, *timestamp))
            }
            _ => None,
        }
    }
}

/// Says what namespace an id stands for.
pub trait NamespaceLookup: Send + Sync {
    /// The namespace that was interned as `id`.
    fn namespace(&self, id: NamespaceId) -> Option<Namespace>;
}

/// An append that did not go through.
#[derive(Debug)]
pub struct AppendError {
    /// How many of the items, from the first, are in the log all the same.
    pub written: usize,
    /// Why the others are not. If this is [`Error::Poisoned`] it is not known whether they
    /// are.
    pub error: Error,
}

/// Where a log goes on after recovery.
#[derive(Debug, Clone)]
pub struct Resume {
    /// The log position at which the next segment begins.
    pub position: u64,
    /// The chain hash there.
    pub chain: u32,
    /// The segment that position lies in; 0 if there is none.
    pub predecessor: u64,
    /// The first version that may be given out.
    pub next_version: Version,
    /// The newest committed version and its time.
    pub last: (Version, Timestamp),
    /// The number of the next segment: above every file there is.
    pub next_segment: u64,
    /// Namespace ids that the snapshot or the log defines.
    pub namespaces: Vec<NamespaceId>,
    /// The segments of the log, oldest first, with the highest version of any transaction
    /// that has any frame in them.
    pub segments: Vec<(u64, Version)>,
    /// The number of the next snapshot.
    pub next_snapshot: u64,
    /// The segment that recovery began, whose groups end at `position`; `None` where it had
    /// nothing to write.
    pub segment: Option<ResumedSegment>,
}

/// A segment that recovery began and that the log goes on in.
#[derive(Debug, Clone)]
pub struct ResumedSegment {
    /// Its header.
    pub header: SegmentHeader,
    /// Its file, open for writing.
    pub file: Arc<dyn DiskFile>,
    /// Its length, in bytes.
    pub bytes: u64,
}

/// A segment file that is filled and synced, waiting to be used.
#[derive(Debug)]
pub struct SpareSegment {
    number: u64,
    bytes: u64,
    file: Arc<dyn DiskFile>,
}

/// A segment that should be made ready before it is needed.
#[derive(Debug, Clone)]
pub struct SpareRequest {
    disk: Arc<dyn Disk>,
    layout: Layout,
    number: u64,
    bytes: u64,
    access: Access,
}

impl SpareRequest {
    /// Creates, fills and syncs the file, and syncs its directory. On an error nothing is
    /// left of it.
    pub fn build(&self) -> Result<SpareSegment> {
        let path = self.layout.segment(self.number);
        let label = Layout::segment_label(self.number);
        let file = self.disk.create(&path, self.access).at(&*label, "create")?;
        let filled = file
            .allocate(self.bytes)
            .at(&*label, "take the space for")
            .and_then(|()| file.sync_all().at(&*label, "sync"))
            .and_then(|()| {
                let sync = || self.disk.sync_dir(&self.layout.wal());
                unless(Sabotage::SkipSegmentDirectorySync, sync).at("WAL", "sync the directory")
            });
        if let Err(error) = filled {
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        log::debug!("{label}: ready, {} bytes", self.bytes);
        Ok(SpareSegment { number: self.number, bytes: self.bytes, file })
    }
}

impl SpareRequest {
    /// Removes what [`SpareRequest::build`] made, when nobody needs it any more.
    pub fn discard(&self) {
        if let Err(error) = self.disk.remove(&self.layout.segment(self.number)) {
            log::warn!("{}: cannot remove: {error}", Layout::segment_label(self.number));
        }
    }
}

/// The segment that groups go to.
#[derive(Debug)]
struct Active {
    header: SegmentHeader,
    seed: ChecksumSeed,
    file: Arc<dyn DiskFile>,
    syncing: Arc<Syncing>,
    bytes: u64,
    /// Nothing may follow in this segment: it is sealed, or a write behind its last good
    /// group failed.
    closed: bool,
}

/// Appends to the log of an open database.
pub struct WalWriter {
    disk: Arc<dyn Disk>,
    layout: Layout,
    options: WalOptions,
    manifest: Manifest,
    entropy: Entropy,
    lookup: Arc<dyn NamespaceLookup>,
    epoch: Option<Epoch>,
    active: Option<Active>,
    spare: Option<SpareSegment>,
    /// The last segment that [`WalWriter::wants_spare`] asked for.
    spare_requested: u64,
    /// The end of the log when [`WalWriter::wants_sync`] last asked for a sync.
    sync_requested: u64,
    builder: GroupBuilder,
    /// Room to encode namespace definitions in, kept from append to append.
    definitions: Vec<u8>,
    position: u64,
    chain: u32,
    predecessor: u64,
    /// End of the log when the last successful sync began.
    durable_upto: u64,
    version_ceiling: Version,
    next_version: Version,
    /// The first version of this epoch.
    first_version: Version,
    recovered: Version,
    last: (Version, Timestamp),
    next_segment: u64,
    next_segment_bytes: u64,
    /// Which namespace ids the log or a snapshot defines, by id, and in which version.
    logged: Vec<Option<Version>>,
    /// The segments of the log, oldest first, with the highest version of any transaction
    /// that has any frame in them and is settled; the last is the active one.
    segments: Vec<(u64, Version)>,
    /// Streamed transactions without their commit or abort, and the segment of their first
    /// frame. What a segment holds of them is needed whatever a snapshot has.
    streams: HashMap<u64, u64>,
    next_snapshot: u64,
    /// A snapshot that turned out to be damaged.
    distrusted: Option<u64>,
    last_kind: Option<GroupKind>,
    poisoned: Option<String>,
}

impl std::fmt::Debug for WalWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WalWriter")
            .field("position", &self.position)
            .field("durable_upto", &self.durable_upto)
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}

impl WalWriter {
    /// Goes on where `resume` says. Nothing is written before the first append.
    pub fn new(
        disk: Arc<dyn Disk>,
        layout: Layout,
        options: WalOptions,
        manifest: Manifest,
        resume: Resume,
        entropy: Entropy,
        lookup: Arc<dyn NamespaceLookup>,
    ) -> Self {
        let mut writer = Self {
            disk,
            layout,
            options,
            manifest,
            entropy,
            lookup,
            epoch: None,
            active: None,
            spare: None,
            spare_requested: 0,
            sync_requested: resume.position,
            builder: GroupBuilder::default(),
            definitions: Vec::new(),
            position: resume.position,
            chain: resume.chain,
            predecessor: resume.predecessor,
            durable_upto: resume.position,
            version_ceiling: Version::ZERO,
            next_version: resume.next_version,
            first_version: resume.next_version,
            recovered: resume.last.0,
            last: resume.last,
            next_segment: resume.next_segment,
            next_segment_bytes: FIRST_SEGMENT_BYTES.min(options.segment_bytes),
            logged: Vec::new(),
            segments: resume.segments,
            streams: HashMap::new(),
            next_snapshot: resume.next_snapshot,
            distrusted: None,
            last_kind: None,
            poisoned: None,
        };
        for id in resume.namespaces {
            writer.mark_logged(id, resume.last.0);
        }
        if let Some(ResumedSegment { header, file, bytes }) = resume.segment {
            writer.epoch = Some(header.epoch);
            writer.continue_in(header, file, bytes);
        }
        writer
    }

    /// The largest frame that fits a segment and its limit. A transaction above it must be
    /// streamed in parts.
    pub fn frame_bytes_max(&self) -> usize {
        let room =
            self.options.segment_bytes.max(SEGMENT_BYTES_MIN) - HEADER_BYTES - self.reserve();
        let group = room - room % self.alignment();
        let frame =
            usize::try_from(group).unwrap_or(usize::MAX) - GROUP_HEADER_BYTES - TRAILER_BYTES;
        frame.min(FRAME_BYTES_MAX)
    }

    /// Appends items in order, several to a group, and makes them durable if `durable`.
    /// `level` is the highest durability that any of them asked for.
    pub fn append(
        &mut self,
        items: &[Outgoing<'_>],
        level: u8,
        durable: bool,
    ) -> std::result::Result<(), AppendError> {
        let mut written = 0;
        let mut result = self.append_groups(items, level, &mut written);
        if durable && (written > 0 || result.is_ok()) {
            // What is in the log is as durable as it was asked to be, also if the rest failed.
            result = self.sync().and(result);
        }
        result.map_err(|error| {
            if matches!(error, Error::Poisoned { .. }) {
                written = 0;
            }
            AppendError { written, error }
        })
    }

    fn append_groups(
        &mut self,
        items: &[Outgoing<'_>],
        level: u8,
        written: &mut usize,
    ) -> Result<()> {
        self.check_poisoned()?;
        let mut definitions = std::mem::take(&mut self.definitions);
        let mut newly_logged = Vec::new();
        let mut start = 0;
        self.builder.clear();
        for (index, item) in items.iter().enumerate() {
            definitions.clear();
            let before = newly_logged.len();
            self.definitions_for(item, &mut definitions, &mut newly_logged)?;
            let frame_len = encoded_len(item, &definitions);
            let full = self.builder.len() + frame_len > FRAME_BYTES_MAX
                || self.builder.frames() == u16::MAX
                || !self.fits(self.builder.len() + frame_len);
            if full && !self.builder.is_empty() {
                let next_defines = newly_logged.split_off(before);
                self.write_group(&items[start..index], level)?;
                self.mark_all_logged(&mut newly_logged);
                newly_logged = next_defines;
                *written = index;
                start = index;
                self.builder.clear();
            }
            self.builder.frame(|out| encode(out, item, &definitions));
        }
        if !self.builder.is_empty() {
            self.write_group(&items[start..], level)?;
            self.mark_all_logged(&mut newly_logged);
            *written = items.len();
        }
        self.definitions = definitions;
        Ok(())
    }

    /// Encodes the namespaces that `item` is the first of the log to use.
    fn definitions_for(
        &self,
        item: &Outgoing<'_>,
        definitions: &mut Vec<u8>,
        newly_logged: &mut Vec<NamespaceId>,
    ) -> Result<()> {
        match item {
            Outgoing::Txn { namespaces, .. } => {
                let mut defined = Vec::new();
                for id in *namespaces {
                    if !self.is_logged(*id) && !newly_logged.contains(id) {
                        let namespace = self.lookup.namespace(*id).ok_or(Error::Input(
                            steadfast_core::Error::Malformed {
                                what: "write set",
                                reason: "a namespace that was never interned",
                                at: 0,
                            },
                        ))?;
                        newly_logged.push(*id);
                        defined.push((*id, namespace));
                    }
                }
                encode_definitions(definitions, defined.iter().map(|(id, ns)| (*id, ns)));
            }
            Outgoing::StreamCommit { defined, .. } => newly_logged.extend_from_slice(defined),
            Outgoing::Stream(_) => {}
        }
        Ok(())
    }

    /// Which of `ids` the log does not define yet.
    pub fn unlogged(&self, ids: &[NamespaceId]) -> Vec<NamespaceId> {
        ids.iter().copied().filter(|id| !self.is_logged(*id)).collect()
    }

    fn is_logged(&self, id: NamespaceId) -> bool {
        (sabotaged(Sabotage::DefinitionLeftOut) && self.segments.len() > 1)
            || id == NamespaceId::SYSTEM
            || self.logged.get(id.0 as usize).is_some_and(Option::is_some)
    }

    fn mark_logged(&mut self, id: NamespaceId, version: Version) {
        let index = id.0 as usize;
        if index >= self.logged.len() {
            self.logged.resize(index + 1, None);
        }
        self.logged[index].get_or_insert(version);
    }

    /// Notes the definitions of a group that was written, by the version of its last commit.
    fn mark_all_logged(&mut self, ids: &mut Vec<NamespaceId>) {
        for id in ids.drain(..) {
            self.mark_logged(id, self.last.0);
        }
    }

    /// The namespace ids that commits up to `version` define. (A definition counts as made by
    /// the last commit of its group, so one of several commits that were written together may
    /// be missing here: the log behind `version` has it then.)
    pub fn defined_upto(&self, version: Version) -> Vec<NamespaceId> {
        let defined = |(id, defined): (usize, &Option<Version>)| {
            let id = NamespaceId(u32::try_from(id).ok()?);
            defined.filter(|defined| *defined <= version).map(|_| id)
        };
        self.logged.iter().enumerate().filter_map(defined).collect()
    }

    /// Writes what the builder holds as one group.
    fn write_group(&mut self, items: &[Outgoing<'_>], level: u8) -> Result<()> {
        let newest = items.iter().rev().find_map(Outgoing::version);
        if let Some((version, _)) = newest {
            assert!(version > self.last.0, "versions are logged in the order they are given");
            self.next_version = self.next_version.max(version.next());
        }
        let length = self.builder.padded_len(self.alignment());
        self.make_room(length)?;
        check_crash_point(CrashPoint::BeforeWalWrite);
        self.write_built(GroupKind::Data, level, length)?;
        check_crash_point(CrashPoint::AfterWalWriteBeforeFsync);
        if self.options.direct {
            check_crash_point(CrashPoint::AfterFsync);
        }
        if let Some(newest) = newest {
            self.last = newest;
        }
        self.note_segments(items);
        Ok(())
    }

    /// Notes what the active segment has frames of since `items` were written.
    fn note_segments(&mut self, items: &[Outgoing<'_>]) {
        let Some(active) = self.segments.last_mut() else { return };
        active.1 = self.last.0;
        let number = active.0;
        for item in items {
            let settled = match item {
                Outgoing::Stream(Frame::Begin { txn, .. }) => {
                    self.streams.insert(*txn, number);
                    None
                }
                Outgoing::StreamCommit { frame: Frame::Commit { txn, .. }, .. }
                | Outgoing::Stream(Frame::Abort { txn }) => self.streams.remove(txn),
                _ => None,
            };
            if let Some(first) = settled {
                // The end of a streamed transaction is needed as long as its beginning is,
                // and the other way round.
                for (number, last) in &mut self.segments {
                    if *number >= first {
                        *last = self.last.0;
                    }
                }
            }
        }
    }

    /// Writes the builder's group into the active segment.
    fn write_built(&mut self, kind: GroupKind, level: u8, length: u64) -> Result<()> {
        let active = self.active.as_mut().expect("room was made in a segment");
        let stamp = Stamp { kind, level, durable_upto: self.durable_upto };
        let (bytes, chain) =
            self.builder.finish(active.seed, self.position, self.chain, stamp, length);
        let offset = active.header.offset_of(self.position);
        let number = active.header.number;
        let label = || Layout::segment_label(number);
        if self.options.direct {
            // Every earlier write of this log was durable by itself too, so nothing before
            // this one is unsynced when it returns.
            let written = match sabotaged(Sabotage::StrictWriteNotDurable) {
                false => active.file.write_at_durable(offset, bytes),
                true => active.file.write_at(offset, bytes),
            };
            if let Err(error) = written {
                return Err(self.poison(format!("{}: durable write: {error}", label())));
            }
            self.durable_upto = self.position + length;
        } else if let Err(error) = active.file.write_at(offset, bytes) {
            if sabotaged(Sabotage::AppendBehindFailedWrite) {
                self.position += length;
                return Err(error).at(label(), "write");
            }
            active.closed = true;
            // What the write left may look whole after a crash. Say where the log really
            // ends, durably, before anybody is told that this commit failed.
            if let Err(second) = self.rotate(0) {
                return Err(self.poison(format!("{}: write: {error}; then {second}", label())));
            }
            return Err(error).at(label(), "write");
        }
        self.position += length;
        self.chain = chain;
        self.last_kind = Some(kind);
        Ok(())
    }

    /// Makes everything appended so far durable.
    pub fn sync(&mut self) -> Result<()> {
        self.check_poisoned()?;
        if self.durable_upto < self.position {
            let active = self.active.as_ref().expect("what is not durable lies in a segment");
            let synced = active.syncing.sync(self.position);
            self.note_durable(self.position, synced)?;
        }
        Ok(())
    }

    /// A sync of the active segment that should be run in the background now, if so much is
    /// not durable that whoever ends the segment would wait for long. Asked for once.
    pub fn wants_sync(&mut self) -> Option<SyncRequest> {
        let active = self.active.as_ref()?;
        let waiting = self.position - self.durable_upto.max(self.sync_requested);
        // In a small segment, so that there too most is durable before its end.
        if waiting < SYNC_BYTES.min(active.bytes / 8) {
            return None;
        }
        self.sync_requested = self.position;
        let (upto, newest) = (self.position, self.last.0);
        Some(SyncRequest { syncing: active.syncing.clone(), upto, newest })
    }

    /// Takes note of what came of a sync in the background: the newest version that it made
    /// durable, or that nothing may be written any more.
    pub fn note_synced(&mut self, synced: Synced) -> Result<Version> {
        self.check_poisoned()?;
        self.note_durable(synced.upto, synced.result)?;
        Ok(synced.newest)
    }

    fn note_durable(&mut self, upto: u64, synced: Result<()>) -> Result<()> {
        match synced {
            Ok(()) => {
                // A later sync may have been noted before an earlier one.
                self.durable_upto = self.durable_upto.max(upto);
                Ok(())
            }
            Err(Error::Poisoned { reason }) => Err(self.poison(reason)),
            Err(error) => Err(self.poison(error.to_string())),
        }
    }

    /// Writes the promise of the last group into the log if nothing behind it carries it yet.
    /// Returns whether a beacon was written.
    pub fn beacon(&mut self) -> Result<bool> {
        self.check_poisoned()?;
        let length = GROUP_BYTES_MIN.next_multiple_of(self.alignment());
        let due = self.last_kind == Some(GroupKind::Data) && self.durable_upto == self.position;
        if !due || !self.has_room(length) {
            return Ok(false);
        }
        self.builder.clear();
        self.write_built(GroupKind::Beacon, 0, length)?;
        Ok(true)
    }

    /// Makes sure that version `next` may be given out: that a segment header says so, durably,
    /// whatever becomes of the commit. Returns the ceiling; every version below it may be given.
    pub fn reserve_versions(&mut self, next: Version) -> Result<Version> {
        self.check_poisoned()?;
        if sabotaged(Sabotage::UnreservedVersions) {
            return Ok(next.next());
        }
        if self.active.is_none() || next >= self.version_ceiling {
            self.next_version = self.next_version.max(next);
            self.rotate(0)?;
        }
        Ok(self.version_ceiling)
    }

    /// Versions below this may be given out.
    pub const fn version_ceiling(&self) -> Version {
        self.version_ceiling
    }

    /// Closes the log cleanly: everything durable, a footer, the file cut to its content, the
    /// MANIFEST's floor at the end. Does nothing to a log that nothing was appended to. Every
    /// version below `next` may have been given out, also to commits that failed.
    pub fn close(mut self, next: Version) -> Result<()> {
        self.check_poisoned()?;
        self.drop_spare();
        let next = if sabotaged(Sabotage::CloseForgetsVersions) { Version::ZERO } else { next };
        self.next_version = self.next_version.max(next);
        if self.active.is_none() {
            return Ok(());
        }
        self.sync()?;
        self.builder.clear();
        let (next_version, timestamp) = (self.next_version, self.last.1);
        self.builder.frame(|out| Frame::Footer { next_version, timestamp }.encode(out));
        let length = self.builder.padded_len(self.alignment());
        // Room for it is reserved in every segment, and a segment that was closed without a
        // successor is left first.
        if self.active.as_ref().is_some_and(|active| active.closed) {
            if self.last_kind.is_none() {
                // Nothing was appended since recovery, which made everything durable.
                return Ok(());
            }
            self.rotate(length)?;
        }
        self.write_built(GroupKind::Footer, 0, length)?;
        self.sync()?;
        let active = self.active.as_ref().expect("checked above");
        let (label, offset) =
            (Layout::segment_label(active.header.number), active.header.offset_of(self.position));
        active.file.set_len(offset).at(&*label, "cut")?;
        active.file.sync_all().at(&*label, "sync")?;
        self.manifest.floor = self.floor(active.header.number);
        self.manifest.write(&*self.disk, &self.layout)
    }

    /// Ends the use of the log without a footer, as after a failed sync. The files stay as
    /// they are, but for a segment that was made ready and never used.
    pub fn abandon(mut self) {
        self.drop_spare();
    }

    fn drop_spare(&mut self) {
        if let Some(spare) = self.spare.take() {
            self.remove_segment(spare.number);
        }
    }

    /// Removes a file that never became part of the log. If that fails, the next opening
    /// that recovers removes it.
    fn remove_segment(&self, number: u64) {
        if let Err(error) = self.disk.remove(&self.layout.segment(number)) {
            log::warn!("{}: cannot remove: {error}", Layout::segment_label(number));
        }
    }

    /// The end of the log, in bytes.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Up to where the log is known durable, in bytes.
    pub const fn durable_upto(&self) -> u64 {
        self.durable_upto
    }

    /// The newest version in the log.
    pub const fn last_version(&self) -> Version {
        self.last.0
    }

    /// The epoch that commits are written in; `None` before the first.
    pub const fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// The MANIFEST as last written.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Why the writer takes nothing more, if so.
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// What [`SpareRequest::build`] should prepare now, if anything: the next segment, once
    /// the active one is half full. Asked for once; if nothing comes of it, the segment is
    /// made when it is needed.
    pub fn wants_spare(&mut self) -> Option<SpareRequest> {
        let active = self.active.as_ref()?;
        let used = active.header.offset_of(self.position);
        let due = self.spare_requested < self.next_segment && used * 2 > active.bytes;
        due.then(|| {
            self.spare_requested = self.next_segment;
            self.spare_request(self.next_segment_bytes)
        })
    }

    /// Takes a segment that was prepared; removes it if the log went on without it.
    pub fn give_spare(&mut self, spare: SpareSegment) {
        if spare.number == self.next_segment && self.spare.is_none() {
            self.spare = Some(spare);
        } else {
            self.remove_segment(spare.number);
        }
    }

    fn spare_request(&self, bytes: u64) -> SpareRequest {
        SpareRequest {
            disk: self.disk.clone(),
            layout: self.layout.clone(),
            number: self.next_segment,
            bytes,
            access: self.options.access(),
        }
    }

    const fn alignment(&self) -> u64 {
        if self.options.direct { DURABLE_BLOCK_BYTES } else { GROUP_ALIGNMENT }
    }

    /// Room kept at the end of every segment for its seal or the footer.
    fn reserve(&self) -> u64 {
        64u64.next_multiple_of(self.alignment())
    }

    fn has_room(&self, length: u64) -> bool {
        self.active.as_ref().is_some_and(|active| {
            !active.closed
                && active.header.offset_of(self.position) + length + self.reserve() <= active.bytes
        })
    }

    /// Whether a group with `len` bytes before its trailer fits the active segment, or there
    /// is none yet.
    fn fits(&self, len: usize) -> bool {
        let length = (len as u64 + TRAILER_BYTES as u64).next_multiple_of(self.alignment());
        self.active.is_none() || self.has_room(length)
    }

    /// Makes sure that a group of `length` bytes fits the active segment and that its
    /// versions are below the ceiling.
    fn make_room(&mut self, length: u64) -> Result<()> {
        if self.has_room(length) && self.next_version <= self.version_ceiling {
            return Ok(());
        }
        self.rotate(length)
    }

    /// Goes on in a new segment with room for `length` bytes at the least.
    fn rotate(&mut self, length: u64) -> Result<()> {
        let spare = self.take_spare(HEADER_BYTES + length + self.reserve())?;
        self.seal(spare.number)?;
        let epoch = self.epoch.unwrap_or_else(|| Epoch {
            counter: self.manifest.epochs.last().map_or(1, |start| start.epoch.counter + 1),
            random: self.entropy.next_u64(),
        });
        let header = SegmentHeader {
            database: self.manifest.database,
            number: spare.number,
            epoch,
            version_ceiling: version_ceiling(self.next_version, spare.bytes)
                .max(self.version_ceiling.0),
            durable_upto: self.durable_upto,
            first_position: self.position,
            predecessor: self.predecessor,
            chain: self.chain,
            origin: Origin::Rotation,
        };
        let label = Layout::segment_label(spare.number);
        let block = header.encode();
        // The header is durable, and the MANIFEST names the segment, before it has a group.
        if self.options.direct {
            if let Err(error) = spare.file.write_at_durable(0, &block) {
                return Err(self.poison(format!("{label}: writing its header: {error}")));
            }
        } else {
            if let Err(error) = spare.file.write_at(0, &block) {
                self.remove_segment(spare.number);
                return Err(error).at(label, "write the header of");
            }
            if let Err(error) = spare.file.sync_data() {
                return Err(self.poison(format!("{label}: syncing its header: {error}")));
            }
        }
        check_crash_point(CrashPoint::DuringSegmentRotation);
        let mut manifest = self.manifest.clone();
        if self.epoch.is_none() {
            manifest.epochs.push(EpochStart {
                epoch,
                first_version: self.first_version,
                recovered: self.recovered,
                first_segment: spare.number,
            });
        }
        manifest.newest_segment = spare.number;
        if manifest.oldest_segment == 0 {
            manifest.oldest_segment = spare.number;
        }
        manifest.floor = self.floor(spare.number);
        if let Err(error) = manifest.prepare(&*self.disk, &self.layout) {
            // The old MANIFEST stands: the new segment was never part of the log.
            self.remove_segment(spare.number);
            self.next_segment = spare.number + 1;
            return Err(error);
        }
        if let Err(error) = Manifest::install(&*self.disk, &self.layout) {
            // Which MANIFEST will be found is not known, so neither segment can be written.
            return Err(self.poison(format!("{label}: naming it: {error}")));
        }
        log::debug!("{label}: begins at log position {}", self.position);
        self.manifest = manifest;
        self.epoch = Some(epoch);
        self.continue_in(header, spare.file, spare.bytes);
        Ok(())
    }

    /// Makes the segment that `header` begins the active one.
    fn continue_in(&mut self, header: SegmentHeader, file: Arc<dyn DiskFile>, bytes: u64) {
        self.version_ceiling = Version(header.version_ceiling);
        self.predecessor = header.number;
        self.next_segment = header.number + 1;
        self.next_segment_bytes = (bytes * 2).min(self.options.segment_bytes);
        let seed = ChecksumSeed::of(&header);
        if self.segments.last().is_none_or(|last| last.0 != header.number) {
            self.segments.push((header.number, self.last.0));
        }
        // A full disk may have left recovery without room for so much as a seal.
        let closed = header.offset_of(self.position) + self.reserve() > bytes;
        let syncing = Arc::new(Syncing::new(file.clone(), header.number));
        self.active = Some(Active { seed, header, file, syncing, bytes, closed });
    }

    /// The file for the next segment, `needed` bytes at the least: the one prepared, or one
    /// made now. A disk too full for the usual size may have room for a smaller one.
    fn take_spare(&mut self, needed: u64) -> Result<SpareSegment> {
        let needed = needed.next_multiple_of(DURABLE_BLOCK_BYTES).max(SEGMENT_BYTES_MIN);
        match self.spare.take() {
            Some(spare) if spare.bytes >= needed => return Ok(spare),
            Some(small) => {
                self.spare = Some(small);
                self.drop_spare();
                self.next_segment += 1;
            }
            None => {}
        }
        let mut bytes = self.next_segment_bytes.max(needed);
        loop {
            match self.spare_request(bytes).build() {
                // A file that another thread is preparing right now, or that a failed removal
                // left: take the next number.
                Err(Error::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::AlreadyExists =>
                {
                    self.next_segment += 1;
                }
                Err(Error::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::StorageFull && bytes > needed =>
                {
                    bytes = (bytes / 2).next_multiple_of(DURABLE_BLOCK_BYTES).max(needed);
                }
                result => return result,
            }
        }
    }

    /// Closes the active segment: a seal frame names the successor, and everything in it is
    /// durable before the successor gets its first frame.
    fn seal(&mut self, successor: u64) -> Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        if !active.closed {
            // The builder may hold the group that needs the new segment.
            let waiting = std::mem::take(&mut self.builder);
            self.builder.clear();
            self.builder.frame(|out| Frame::Seal { successor }.encode(out));
            let length = self.builder.padded_len(self.alignment());
            let sealed = self.write_seal(length);
            self.builder = waiting;
            sealed?;
        }
        if let Some(active) = &mut self.active {
            active.closed = true;
        }
        unless(Sabotage::SkipSealSync, || self.sync())
    }

    fn write_seal(&mut self, length: u64) -> Result<()> {
        let active = self.active.as_ref().expect("the segment to seal");
        if self.options.direct {
            return self.write_built(GroupKind::Seal, 0, length);
        }
        let stamp = Stamp { kind: GroupKind::Seal, level: 0, durable_upto: self.durable_upto };
        let (bytes, chain) =
            self.builder.finish(active.seed, self.position, self.chain, stamp, length);
        match active.file.write_at(active.header.offset_of(self.position), bytes) {
            Ok(()) => {
                self.position += length;
                self.chain = chain;
                self.last_kind = Some(GroupKind::Seal);
            }
            // The successor's header says where this segment ends; the seal is a courtesy.
            Err(error) => {
                log::warn!("{}: no seal: {error}", Layout::segment_label(active.header.number));
            }
        }
        Ok(())
    }

    fn floor(&self, segment: u64) -> Floor {
        Floor {
            position: self.durable_upto,
            version: self.last.0,
            next_version: self.next_version,
            chain: self.chain,
            segment,
            timestamp: self.last.1,
        }
    }

    fn check_poisoned(&self) -> Result<()> {
        match &self.poisoned {
            Some(reason) if !sabotaged(Sabotage::GoOnAfterFailedSync) => {
                Err(Error::Poisoned { reason: reason.clone() })
            }
            _ => Ok(()),
        }
    }

    fn poison(&mut self, reason: String) -> Error {
        log::error!("the log is poisoned: {reason}");
        Error::Poisoned { reason: self.poisoned.insert(reason).clone() }
    }
}

fn encoded_len(item: &Outgoing<'_>, definitions: &[u8]) -> usize {
    match item {
        Outgoing::Txn { version, timestamp, writes, .. } => {
            let body = definitions.len() + writes.len();
            Frame::txn_len(*version, *timestamp, body)
        }
        Outgoing::Stream(frame) | Outgoing::StreamCommit { frame, .. } => frame.encoded_len(),
    }
}

fn encode(out: &mut Vec<u8>, item: &Outgoing<'_>, definitions: &[u8]) {
    match item {
        Outgoing::Txn { version, timestamp, writes, .. } => {
            Frame::encode_txn(out, *version, *timestamp, definitions, writes);
        }
        Outgoing::Stream(frame) | Outgoing::StreamCommit { frame, .. } => frame.encode(out),
    }
}
