//! Applies the valid part of a log to a [`ReplayTarget`].
//!
//! The log is read in order, in bounded pieces. Writes are handed over in runs; while one thread
//! makes records of a run and the target takes them, the next is read and checked on another.
//! Streamed transactions are staged until their commit frame is there.

use std::collections::HashMap;
use std::sync::mpsc;

use steadfast_core::codec::Cursor;
use steadfast_core::limits::{NAMESPACES_MAX, STAGED_BYTES_MAX, STREAMS_OPEN_MAX, VERSION_MAX};
use steadfast_core::{
    Namespace, NamespaceId, Record, RecordBuilder, ReplayTarget, Sabotage, Timestamp, Version,
    Write, WriteKind, WriteSet, sabotaged,
};

use crate::error::Result;
use crate::progress::unheard;
use crate::room::Room;
use crate::wal::chain::{Beside, Wal};
use crate::wal::frame::{Frame, split_body};

/// A run is handed over when it has this many writes …
const RUN_WRITES: usize = 1 << 16;
/// … or this many bytes of them. A few runs are in memory twice, as bytes and as records.
const RUN_BYTES: usize = 8 << 20;

/// What replaying a log found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReplayStats {
    /// Committed transactions applied.
    pub txns_applied: u64,
    /// Committed transactions that were in the snapshot already.
    pub txns_covered: u64,
    /// Writes applied.
    pub writes_applied: u64,
    /// Deletes applied.
    pub deletes_applied: u64,
    /// Streamed transactions not applied: aborted, or without their commit.
    pub discarded_txns: u64,
    /// Parts, commits and aborts of streamed transactions whose begin is not there.
    pub orphaned_entries: u64,
    /// The version of the newest transaction applied.
    pub final_version: Version,
    /// Its time.
    pub final_timestamp: Timestamp,
    /// Groups read.
    pub groups: u64,
    /// Bytes of log read.
    pub bytes: u64,
}

/// Replays the valid part of `wal` into `target`, without changing anything on disk.
///
/// This judges nothing: a log that [`crate::recovery::recover`] would refuse to open is
/// replayed up to where it stops being valid.
pub fn replay_wal(wal: &Wal, target: &dyn ReplayTarget) -> Result<ReplayStats> {
    let base = Base::default();
    Ok(wal.scan(target, &base, None, Beside::Nobody, &mut unheard)?.replayed.stats)
}

/// A streamed transaction without its commit so far.
#[derive(Debug, Default)]
struct Staged {
    bytes: Vec<u8>,
    parts: u64,
    /// The first segment that has a frame of it, by its place in [`Replayed::last_versions`].
    segment: usize,
}

/// What a replay starts on: the snapshot that is in the target already.
#[derive(Debug, Clone, Default)]
pub(crate) struct Base {
    /// Everything up to here is in the snapshot.
    pub(crate) version: Version,
    /// The time of the newest commit in it.
    pub(crate) timestamp: Timestamp,
    /// What it defines.
    pub(crate) namespaces: Vec<(NamespaceId, Namespace)>,
}

/// The writes of committed transactions, checked, as the log has them.
#[derive(Default)]
struct Run {
    bytes: Vec<u8>,
    /// Version and time of each, and where its writes end.
    txns: Vec<(Version, Timestamp, usize)>,
    writes: usize,
}

impl Run {
    /// Empty, with room for as much as this one.
    fn next(&self) -> Self {
        let bytes = Vec::with_capacity(self.bytes.len());
        Self { bytes, txns: Vec::with_capacity(self.txns.len()), writes: 0 }
    }

    fn push(&mut self, version: Version, timestamp: Timestamp, writes: &[u8], count: usize) {
        self.bytes.extend_from_slice(writes);
        self.txns.push((version, timestamp, self.bytes.len()));
        self.writes += count;
    }

    /// As it was when it had so many transactions and writes.
    fn truncate(&mut self, txns: usize, writes: usize) {
        self.txns.truncate(txns);
        self.bytes.truncate(self.txns.last().map_or(0, |txn| txn.2));
        self.writes = writes;
    }

    /// The records that its writes leave.
    fn records(&self) -> Vec<Record> {
        let mut records = Vec::with_capacity(self.writes);
        let (mut start, mut room) = (0, Room::default());
        for (version, timestamp, end) in self.txns.iter().copied() {
            for write in replayed(&self.bytes[start..end]) {
                let write = write.expect("it was read once already");
                room.take(1, write.key().len() + write.value_bytes().len());
                let mut record = write.record(version, timestamp);
                if record.expiry().is_some() && sabotaged(Sabotage::ExpiryNotReplayed) {
                    let bytes = [record.key(), record.value_bytes()].concat();
                    let builder = RecordBuilder { version, timestamp, expiry: None };
                    record = builder.put(&bytes, record.key().len());
                }
                if sabotaged(Sabotage::ApplyTwice) {
                    records.push(write.record(version.next(), timestamp));
                }
                records.push(record);
            }
            if sabotaged(Sabotage::DropLastWrite) {
                records.pop();
            }
            start = end;
        }
        records
    }
}

/// The writes of a transaction that are replayed.
fn replayed(writes: &[u8]) -> impl Iterator<Item = steadfast_core::Result<Write<'_>>> {
    let first = usize::from(sabotaged(Sabotage::DropFirstWrite));
    WriteSet::writes_in(writes).skip(first).filter(|write| {
        let deletes = matches!(write, Ok(write) if write.kind == WriteKind::Delete);
        !(deletes && sabotaged(Sabotage::DeleteNotReplayed))
    })
}

/// Takes groups in log order and turns them into runs.
pub(crate) struct Applier<'a> {
    target: &'a dyn ReplayTarget,
    hand_over: &'a mut dyn FnMut(Run),
    run: Run,
    staged: HashMap<u64, Staged>,
    staged_bytes: usize,
    namespaces: HashMap<NamespaceId, Namespace>,
    footer: Option<(Version, Timestamp)>,
    /// Everything up to this version is in the target already.
    base: Version,
    /// The newest version met in the log, covered or not.
    newest: Version,
    last_versions: Vec<Version>,
    stats: ReplayStats,
}

/// A frame with a right checksum that cannot be: a reason to stop before its group.
pub(crate) type Undecodable = steadfast_core::Error;

const fn undecodable(reason: &'static str) -> Undecodable {
    Undecodable::Malformed { what: "log", reason, at: 0 }
}

/// What a replay left besides the records in its target.
#[derive(Default)]
pub(crate) struct Replayed {
    pub(crate) stats: ReplayStats,
    /// The namespace ids that the snapshot or the log defines.
    pub(crate) namespaces: Vec<NamespaceId>,
    /// For each segment, the highest version of any transaction with any frame in it.
    pub(crate) last_versions: Vec<Version>,
    /// If the log ends in a footer: the version that comes next, and the time of the newest
    /// commit.
    pub(crate) footer: Option<(Version, Timestamp)>,
}

/// Runs `read`, which feeds an applier with groups. From the second run on, the target takes
/// runs on a thread of its own while `read` goes on.
pub(crate) fn replay_into<T>(
    target: &dyn ReplayTarget,
    base: &Base,
    read: impl FnOnce(&mut Applier<'_>) -> Result<T>,
) -> Result<(T, Replayed)> {
    std::thread::scope(|scope| {
        let mut sender: Option<mpsc::SyncSender<Run>> = None;
        let mut hand_over = |run: Run| {
            let sender = sender.get_or_insert_with(|| {
                let (sender, receiver) = mpsc::sync_channel::<Run>(1);
                let apply = move |run: Run| {
                    let records = run.records();
                    drop(run);
                    target.apply(records);
                };
                scope.spawn(move || receiver.into_iter().for_each(apply));
                sender
            });
            sender.send(run).expect("the thread that applies runs ends after this one");
        };
        let mut applier = Applier {
            target,
            hand_over: &mut hand_over,
            run: Run::default(),
            staged: HashMap::new(),
            staged_bytes: 0,
            namespaces: base.namespaces.iter().cloned().collect(),
            footer: None,
            base: base.version,
            newest: Version::ZERO,
            last_versions: Vec::new(),
            stats: ReplayStats {
                final_version: base.version,
                final_timestamp: base.timestamp,
                ..ReplayStats::default()
            },
        };
        let result = read(&mut applier)?;
        let (last_run, replayed) = applier.finish();
        match &sender {
            None => target.apply(last_run.records()),
            Some(sender) => sender.send(last_run).expect("as above"),
        }
        Ok((result, replayed))
    })
}

impl Applier<'_> {
    /// What was found so far.
    pub(crate) const fn stats(&self) -> &ReplayStats {
        &self.stats
    }

    /// Applies the frames of one group of `bytes` bytes, all of them or, where one cannot be,
    /// none.
    pub(crate) fn group(
        &mut self,
        frames: &[u8],
        count: u16,
        bytes: u64,
    ) -> std::result::Result<(), Undecodable> {
        let before = (self.stats, self.run.txns.len(), self.run.writes);
        let newest = self.newest;
        if let Err(error) = self.frames(frames, count) {
            self.newest = newest;
            self.stats = before.0;
            self.run.truncate(before.1, before.2);
            return Err(error);
        }
        self.stats.groups += 1;
        self.stats.bytes += bytes;
        if self.run.writes >= RUN_WRITES || self.run.bytes.len() >= RUN_BYTES {
            let next = self.run.next();
            (self.hand_over)(std::mem::replace(&mut self.run, next));
        }
        Ok(())
    }

    /// Says that the footer, if there was one, is not the end of the log.
    pub(crate) const fn forget_footer(&mut self) {
        self.footer = None;
    }

    /// Says that what follows lies in the next segment.
    pub(crate) fn segment_begins(&mut self) {
        self.last_versions.push(self.newest);
    }

    /// Says that what follows was written in another life of the database: a transaction
    /// that is still streaming will not be completed. (A new segment or epoch does not say so:
    /// recovery may have written the commit again and left the parts where they were.)
    pub(crate) fn life_ends(&mut self) {
        if sabotaged(Sabotage::KeepPartialStream) {
            for (_, staged) in std::mem::take(&mut self.staged) {
                let (version, timestamp) = (self.newest.next(), self.stats.final_timestamp);
                let _ = self.commit(version, timestamp, &staged.bytes);
                self.stats.final_version = version;
            }
        }
        if !self.staged.is_empty() {
            log::warn!("{} incomplete transactions were discarded", self.staged.len());
            self.stats.discarded_txns += self.staged.len() as u64;
            let first = self.staged.values().map(|staged| staged.segment).min();
            self.settle(first.unwrap_or(0));
            self.staged.clear();
            self.staged_bytes = 0;
        }
    }

    fn finish(mut self) -> (Run, Replayed) {
        self.life_ends();
        if self.stats.orphaned_entries > 0 {
            let n = self.stats.orphaned_entries;
            log::warn!("{n} entries of transactions that never began were ignored");
        }
        let namespaces = self.namespaces.into_keys().collect();
        let (stats, footer, last_versions) = (self.stats, self.footer, self.last_versions);
        (self.run, Replayed { stats, namespaces, last_versions, footer })
    }

    fn frames(&mut self, frames: &[u8], count: u16) -> std::result::Result<(), Undecodable> {
        let mut cursor = Cursor::new("group", frames);
        for _ in 0..count {
            self.footer = None;
            match Frame::decode(&mut cursor)? {
                Frame::Txn { version, timestamp, body } => self.commit(version, timestamp, body)?,
                Frame::Begin { txn, .. } => self.begin(txn)?,
                Frame::Part { txn, bytes } => self.part(txn, bytes)?,
                Frame::Commit { txn, version, timestamp, parts, checksum } => {
                    match self.unstage(txn) {
                        None => self.orphan(),
                        Some(staged) => {
                            if staged.parts != parts || crc32fast::hash(&staged.bytes) != checksum {
                                return Err(undecodable("a commit of other parts"));
                            }
                            self.commit(version, timestamp, &staged.bytes)?;
                            self.settle(staged.segment);
                        }
                    }
                }
                Frame::Abort { txn } => match self.unstage(txn) {
                    None => self.orphan(),
                    Some(staged) => {
                        self.settle(staged.segment);
                        self.stats.discarded_txns += 1;
                    }
                },
                Frame::Seal { .. } => {}
                Frame::Footer { next_version, timestamp } => {
                    if next_version.0 > VERSION_MAX * 2 {
                        return Err(undecodable("a version beyond what there can be"));
                    }
                    self.footer = Some((next_version, timestamp));
                }
            }
        }
        if cursor.rest().iter().any(|byte| *byte != 0) {
            return Err(undecodable("padding that is not zero"));
        }
        Ok(())
    }

    /// Takes a committed transaction.
    fn commit(
        &mut self,
        version: Version,
        timestamp: Timestamp,
        body: &[u8],
    ) -> std::result::Result<(), Undecodable> {
        if version.0 > VERSION_MAX {
            return Err(undecodable("a version beyond what there can be"));
        }
        if version <= self.newest {
            return Err(undecodable("a version that is not above the one before it"));
        }
        self.newest = version;
        if let Some(last) = self.last_versions.last_mut() {
            *last = version;
        }
        let (definitions, writes) = split_body(body)?;
        for (id, namespace) in definitions {
            if id.0 > NAMESPACES_MAX {
                return Err(undecodable("a namespace id beyond what there can be"));
            }
            let known = self.namespaces.entry(id).or_insert_with(|| {
                self.target.define_namespace(id, &namespace);
                namespace.clone()
            });
            if *known != namespace {
                return Err(undecodable("a namespace id with two meanings"));
            }
        }
        if version <= self.base {
            // What the snapshot has need not be decoded; its checksum was right.
            self.stats.txns_covered += 1;
            return Ok(());
        }
        let mut count = 0;
        for write in replayed(writes) {
            match write?.kind {
                WriteKind::Put | WriteKind::Delta => self.stats.writes_applied += 1,
                WriteKind::Delete => self.stats.deletes_applied += 1,
            }
            count += 1;
        }
        self.run.push(version, timestamp, writes, count);
        self.stats.txns_applied += 1;
        self.stats.final_version = version;
        self.stats.final_timestamp = self.stats.final_timestamp.max(timestamp);
        Ok(())
    }

    fn begin(&mut self, txn: u64) -> std::result::Result<(), Undecodable> {
        if self.staged.len() >= STREAMS_OPEN_MAX {
            return Err(undecodable("more streamed transactions at once than there can be"));
        }
        let segment = self.last_versions.len().saturating_sub(1);
        if self.staged.insert(txn, Staged { segment, ..Staged::default() }).is_some() {
            return Err(undecodable("a streamed transaction that begins twice"));
        }
        Ok(())
    }

    fn part(&mut self, txn: u64, bytes: &[u8]) -> std::result::Result<(), Undecodable> {
        match self.staged.get_mut(&txn) {
            None => self.orphan(),
            Some(staged) => {
                self.staged_bytes += bytes.len();
                if self.staged_bytes > STAGED_BYTES_MAX {
                    return Err(undecodable("more of streamed transactions than there can be"));
                }
                staged.bytes.extend_from_slice(bytes);
                staged.parts += 1;
            }
        }
        Ok(())
    }

    /// Notes that a streamed transaction which began in segment `first` has come to its end:
    /// until then its segments were needed, whatever a snapshot holds.
    fn settle(&mut self, first: usize) {
        for last in self.last_versions.iter_mut().skip(first) {
            *last = self.newest.max(*last);
        }
    }

    /// Counts an entry of a transaction that never began. It began in a segment that is gone
    /// if nothing newer than the snapshot has come yet: then it is settled in there.
    fn orphan(&mut self) {
        if self.newest > self.base || self.base == Version::ZERO {
            self.stats.orphaned_entries += 1;
        }
    }

    fn unstage(&mut self, txn: u64) -> Option<Staged> {
        let staged = self.staged.remove(&txn)?;
        self.staged_bytes -= staged.bytes.len();
        Some(staged)
    }
}
