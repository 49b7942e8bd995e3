//! Reads committed transactions from the log in the order of their versions, while it grows.
//!
//! Memory is bounded by one group and by what streamed transactions may stage, however long the
//! log is. Nothing is judged here: how far the log may be believed, the caller says with each
//! call; recovery, or the writer that goes on, knows it.

use std::collections::{HashMap, VecDeque};

use steadfast_core::codec::Cursor;
use steadfast_core::limits::{STAGED_BYTES_MAX, STREAMS_OPEN_MAX};
use steadfast_core::{Record, Timestamp, Version, WriteSet};

use crate::disk::Disk;
use crate::error::{CorruptionKind, Error, Result};
use crate::layout::Layout;
use crate::manifest::Manifest;
use crate::wal::chain::{Segment, Wal};
use crate::wal::frame::{Frame, split_body};
use crate::wal::group::GroupKind;
use crate::wal::reader::SegmentReader;

/// A committed transaction, as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedTxn {
    /// Its version.
    pub version: Version,
    /// When it was committed.
    pub timestamp: Timestamp,
    /// What it wrote: one record a key.
    pub records: Vec<Record>,
}

/// A streamed transaction without its commit so far.
#[derive(Debug, Default)]
struct Staged {
    bytes: Vec<u8>,
    parts: u64,
}

/// What became of looking for more of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// What follows can be read.
    Ready,
    /// What was read last is not part of the log: its write failed, and the log goes on without
    /// it. It is to be opened anew.
    Retracted,
    /// What follows is not there any more.
    Trimmed,
}

/// A place in the log of a database, from which it is read on.
pub struct LogTail {
    /// From the one that is read on.
    segments: VecDeque<Segment>,
    reader: Option<SegmentReader>,
    newest_segment: u64,
    /// Everything up to here is passed over.
    after: Version,
    /// The newest version met.
    read: Version,
    staged: HashMap<u64, Staged>,
    staged_bytes: usize,
    ready: VecDeque<LoggedTxn>,
}

impl std::fmt::Debug for LogTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogTail(after {}, read up to {})", self.after, self.read)
    }
}

impl LogTail {
    /// Opens the log that `manifest` names, to read every transaction above version `after`;
    /// `None` if the log does not have all of them any more.
    pub fn open(
        disk: &dyn Disk,
        layout: &Layout,
        manifest: &Manifest,
        after: Version,
    ) -> Result<Option<Self>> {
        let covered = manifest.snapshots.iter().rev().find(|snapshot| snapshot.version <= after);
        let first = match covered {
            Some(snapshot) => snapshot.first_segment,
            None if manifest.snapshots.is_empty() && manifest.newest_segment == 0 => 0,
            None if Wal::has_everything(disk, layout, manifest)? => manifest.oldest_segment,
            None => return Ok(None),
        };
        let wal = Wal::open_from(disk, layout, manifest, first)?;
        let segments: VecDeque<_> = wal.segments.into();
        Ok(Some(Self {
            reader: segments.front().map(start_of),
            segments,
            newest_segment: manifest.newest_segment,
            after,
            read: Version::ZERO,
            staged: HashMap::new(),
            staged_bytes: 0,
            ready: VecDeque::new(),
        }))
    }

    /// Takes note of segments that have come since. To be called with what the writer's MANIFEST
    /// says *after* it was asked how far the log may be believed: a log that goes on in a new
    /// segment says there where the old one ends.
    pub fn refresh(
        &mut self,
        disk: &dyn Disk,
        layout: &Layout,
        manifest: &Manifest,
    ) -> Result<Refreshed> {
        if manifest.newest_segment == self.newest_segment {
            return Ok(Refreshed::Ready);
        }
        let current = self.segments.front().map_or(0, |segment| segment.header.number);
        let wal = Wal::open_from(disk, layout, manifest, current)?;
        if let Some(next) = wal.segments.first() {
            let (number, begins) = (next.header.number, next.header.first_position);
            // What is open already can be read to its end, also where its file is gone.
            self.segments.retain(|segment| segment.header.number < number);
            match self.segments.back_mut() {
                Some(last) if last.header.number == next.header.predecessor => {
                    last.valid_end = Some(begins);
                }
                Some(_) => return Ok(Refreshed::Trimmed),
                None if current > 0 && number != current => return Ok(Refreshed::Trimmed),
                None => {}
            }
            self.segments.extend(wal.segments);
        }
        self.newest_segment = manifest.newest_segment;
        if self.reader.is_none() {
            self.reader = self.segments.front().map(start_of);
        }
        let end = self.segments.front().and_then(|segment| segment.valid_end);
        let retracted = end.zip(self.reader.as_ref()).is_some_and(|(end, at)| end < at.position());
        Ok(if retracted { Refreshed::Retracted } else { Refreshed::Ready })
    }

    /// The next transaction up to version `upto`; `None` if the log has no more of them.
    pub fn next(&mut self, upto: Version) -> Result<Option<LoggedTxn>> {
        let mut again = true;
        loop {
            if let Some(first) = self.ready.front() {
                return Ok(if first.version <= upto { self.ready.pop_front() } else { None });
            }
            if self.read >= upto {
                return Ok(None);
            }
            if self.step()? {
                again = true;
            } else if std::mem::take(&mut again) {
                // What was read ahead may have been written since.
                self.look_again();
            } else {
                return Ok(None);
            }
        }
    }

    /// The newest version that was met in the log.
    pub const fn read(&self) -> Version {
        self.read
    }

    /// What to say where the log ends before it should.
    pub fn ends(&self) -> Error {
        let at = self.segments.front().zip(self.reader.as_ref());
        let (file, offset) = match at {
            Some((segment, reader)) => {
                (segment.label(), segment.header.offset_of(reader.position()))
            }
            None => ("WAL".to_owned(), 0),
        };
        Error::Corrupt { file, offset, kind: CorruptionKind::Ends }
    }

    fn look_again(&mut self) {
        if let (Some(reader), Some(segment)) = (&mut self.reader, self.segments.front()) {
            let (position, chain) = (reader.position(), reader.chain());
            *reader = start_of(segment);
            reader.skip_to(position, chain);
        }
    }

    /// Reads the next group, or goes on to the next segment. Whether there was either.
    fn step(&mut self) -> Result<bool> {
        let (Some(reader), Some(segment)) = (&mut self.reader, self.segments.front()) else {
            return Ok(false);
        };
        if segment.valid_end == Some(reader.position()) {
            let chain = reader.chain();
            let Some(next) = self.segments.get(1) else { return Ok(false) };
            if next.header.chain != chain {
                let kind = CorruptionKind::BrokenChain;
                return Err(Error::Corrupt { file: next.label(), offset: 0, kind });
            }
            self.reader = Some(start_of(next));
            self.segments.pop_front();
            return Ok(true);
        }
        let Ok(group) = reader.next_group()? else { return Ok(false) };
        let (kind, offset) = (group.header.kind, segment.header.offset_of(group.position));
        let mut taker = Taker {
            after: self.after,
            read: &mut self.read,
            staged: &mut self.staged,
            staged_bytes: &mut self.staged_bytes,
            ready: &mut self.ready,
        };
        taker.frames(group.frames, group.header.frames).map_err(|error| {
            log::warn!("{}: {error}", segment.label());
            let kind = CorruptionKind::Undecodable;
            Error::Corrupt { file: segment.label(), offset, kind }
        })?;
        if matches!(kind, GroupKind::Open | GroupKind::Footer) {
            // Another life: what streams still will not be completed.
            self.staged.clear();
            self.staged_bytes = 0;
        }
        Ok(true)
    }
}

fn start_of(segment: &Segment) -> SegmentReader {
    SegmentReader::new(segment.file.clone(), segment.header)
}

const fn undecodable(reason: &'static str) -> steadfast_core::Error {
    steadfast_core::Error::Malformed { what: "log", reason, at: 0 }
}

/// Takes the frames of a group.
struct Taker<'a> {
    after: Version,
    read: &'a mut Version,
    staged: &'a mut HashMap<u64, Staged>,
    staged_bytes: &'a mut usize,
    ready: &'a mut VecDeque<LoggedTxn>,
}

impl Taker<'_> {
    fn frames(&mut self, frames: &[u8], count: u16) -> steadfast_core::Result<()> {
        let mut cursor = Cursor::new("group", frames);
        for _ in 0..count {
            match Frame::decode(&mut cursor)? {
                Frame::Txn { version, timestamp, body } => self.commit(version, timestamp, body)?,
                Frame::Begin { txn, .. } => {
                    if self.staged.len() >= STREAMS_OPEN_MAX {
                        let reason = "more streamed transactions at once than there can be";
                        return Err(undecodable(reason));
                    }
                    self.staged.insert(txn, Staged::default());
                }
                Frame::Part { txn, bytes } => {
                    let Some(staged) = self.staged.get_mut(&txn) else { continue };
                    *self.staged_bytes += bytes.len();
                    if *self.staged_bytes > STAGED_BYTES_MAX {
                        let reason = "more of streamed transactions than there can be";
                        return Err(undecodable(reason));
                    }
                    staged.bytes.extend_from_slice(bytes);
                    staged.parts += 1;
                }
                Frame::Commit { txn, version, timestamp, parts, checksum } => {
                    let Some(staged) = self.unstage(txn) else { continue };
                    if staged.parts != parts || crc32fast::hash(&staged.bytes) != checksum {
                        return Err(undecodable("a commit of other parts"));
                    }
                    self.commit(version, timestamp, &staged.bytes)?;
                }
                Frame::Abort { txn } => drop(self.unstage(txn)),
                Frame::Seal { .. } | Frame::Footer { .. } => {}
            }
        }
        Ok(())
    }

    fn unstage(&mut self, txn: u64) -> Option<Staged> {
        let staged = self.staged.remove(&txn)?;
        *self.staged_bytes -= staged.bytes.len();
        Some(staged)
    }

    fn commit(
        &mut self,
        version: Version,
        timestamp: Timestamp,
        body: &[u8],
    ) -> steadfast_core::Result<()> {
        if version <= *self.read {
            return Err(undecodable("a version that is not above the one before it"));
        }
        *self.read = version;
        if version > self.after {
            let (_, writes) = split_body(body)?;
            let records = WriteSet::from_bytes(writes)?.records(version, timestamp);
            self.ready.push_back(LoggedTxn { version, timestamp, records });
        }
        Ok(())
    }
}
