//! Which segments make the log: found by following each header to the one it continues.

use std::collections::VecDeque;
use std::sync::Arc;

use steadfast_core::{ReplayTarget, Sabotage, sabotaged};

use crate::disk::{Access, Disk, DiskFile, read_full_at};
use crate::error::{CorruptionKind, Error, IoContext, Result};
use crate::layout::Layout;
use crate::manifest::Manifest;
use crate::progress::{Listener, Progress, Stage, tell};
use crate::replay::{Applier, Base, Replayed, replay_into};
use crate::wal::group::GroupKind;
use crate::wal::reader::{End, Evidence, SegmentReader, Tail};
use crate::wal::segment::{
    HEADER_BYTES, HEADER_LEN, HeaderError, Origin, SegmentHeader, WAL_FORMAT,
};

/// One segment of the log.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Its header.
    pub header: SegmentHeader,
    /// Its file.
    pub file: Arc<dyn DiskFile>,
    /// Its length, in bytes.
    pub bytes: u64,
    /// The log position where its valid part ends, as its successor says; `None` for the
    /// newest.
    pub valid_end: Option<u64>,
}

impl Segment {
    /// Its file, for messages.
    pub fn label(&self) -> String {
        Layout::segment_label(self.header.number)
    }
}

/// Something in a file that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file, relative to the database.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub kind: CorruptionKind,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} at offset {}", self.file, self.kind, self.offset)
    }
}

/// The log of a database, opened for reading.
#[derive(Debug)]
pub struct Wal {
    /// The segments that make the log, oldest first.
    pub segments: Vec<Segment>,
    /// Why the log cannot be followed beyond the last of `segments`, if the MANIFEST names
    /// more.
    pub broken: Option<Damage>,
    /// Segments that are not part of the log, behind it: made ready and never used, cut short
    /// by a crash, or out of reach behind damage.
    pub spares: Vec<Spare>,
    manifest: Manifest,
    /// Where it was asked to begin.
    oldest: u64,
    highest: u64,
}

/// A segment file that is not part of the log.
#[derive(Debug)]
pub struct Spare {
    /// Its number.
    pub number: u64,
    /// The file, if its header is valid.
    pub segment: Option<Segment>,
}

/// What a scan of the log found, besides what it put into its target.
pub(crate) struct Scan {
    pub(crate) replayed: Replayed,
    /// Where the log stops being valid, and what is there.
    pub(crate) end: End,
    /// The chain hash there.
    pub(crate) end_chain: u32,
    /// What is wrong there, and where; `None` where there is nothing.
    pub(crate) damage: Option<Damage>,
    /// The highest promise of any header, and the MANIFEST's floor.
    pub(crate) promised: u64,
    /// Groups behind the end that are valid on their own.
    pub(crate) evidence_groups: u64,
    /// The boundary of groups at `promised`, if it is one: segment index, chain hash.
    pub(crate) at_promise: Option<(usize, u64, u32)>,
    /// Boundaries of groups from the promise of the log itself on: segment index, position,
    /// chain hash.
    boundaries: VecDeque<(usize, u64, u32)>,
    /// Commits in a segment that the MANIFEST does not name.
    pub(crate) unnamed: Option<Damage>,
    /// The segment in which the log ends, by index.
    pub(crate) end_segment: usize,
    /// Where the last group begins, if it is a footer or a seal.
    pub(crate) closing: Option<u64>,
}

/// Whether somebody may be writing to the log while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// The reader has the lock, or nobody has it.
    Nobody,
    /// A writer has the lock: the log may grow, and go on in new segments, at any moment.
    AWriter,
}

impl Wal {
    /// Finds the segments that `manifest` speaks of.
    pub fn open(disk: &dyn Disk, layout: &Layout, manifest: &Manifest) -> Result<Self> {
        Self::open_from(disk, layout, manifest, manifest.oldest_segment)
    }

    /// As [`Wal::open`], but for segments before number `oldest`: what they hold is in a
    /// snapshot.
    pub fn open_from(
        disk: &dyn Disk,
        layout: &Layout,
        manifest: &Manifest,
        oldest: u64,
    ) -> Result<Self> {
        let mut numbers: Vec<u64> = match disk.list(&layout.wal()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            names => names.at("WAL", "list")?,
        }
        .iter()
        .filter_map(|name| Layout::parse_segment_name(name))
        .collect();
        numbers.sort_unstable();
        let mut wal = Self {
            segments: Vec::new(),
            broken: None,
            spares: Vec::new(),
            manifest: manifest.clone(),
            oldest: oldest.max(manifest.oldest_segment),
            highest: numbers.last().copied().unwrap_or(0).max(manifest.newest_segment),
        };
        let open = |number| open_segment(disk, layout, manifest, number);
        if manifest.newest_segment > 0 {
            wal.follow_back(manifest.newest_segment, &numbers, &open)?;
        }
        let last = wal.segments.last().map_or(0, |segment| segment.header.number);
        for number in numbers.into_iter().filter(|number| *number > last) {
            let segment = match open(number)? {
                Found::Segment(segment) => Some(segment),
                Found::Damaged(_) => None,
            };
            wal.spares.push(Spare { number, segment });
        }
        Ok(wal)
    }

    /// Whether the log that `manifest` names begins where the database did. (That of a copy
    /// does not, although its segments are numbered from 1: a copy begins with a snapshot, and
    /// in a later epoch.)
    pub fn has_everything(disk: &dyn Disk, layout: &Layout, manifest: &Manifest) -> Result<bool> {
        let Found::Segment(oldest) = open_segment(disk, layout, manifest, manifest.oldest_segment)?
        else {
            return Ok(false);
        };
        let SegmentHeader { predecessor, first_position, epoch, .. } = oldest.header;
        Ok((predecessor, first_position, epoch.counter) == (0, 0, 1))
    }

    /// Follows predecessors from segment `newest` to the oldest. Where one cannot be used,
    /// the log is what lies before it.
    fn follow_back(
        &mut self,
        newest: u64,
        numbers: &[u64],
        open: &impl Fn(u64) -> Result<Found>,
    ) -> Result<()> {
        let oldest = self.oldest;
        let mut number = newest;
        let mut successor: Option<SegmentHeader> = None;
        loop {
            let damage = match open(number)? {
                Found::Damaged(damage) => damage,
                Found::Segment(mut segment) => {
                    segment.valid_end = successor.map(|header| header.first_position);
                    let header = segment.header;
                    let label = segment.label();
                    self.segments.insert(0, segment);
                    if number == oldest {
                        return Ok(());
                    }
                    if header.predecessor >= oldest && header.predecessor > 0 {
                        (number, successor) = (header.predecessor, Some(header));
                        continue;
                    }
                    self.segments.remove(0);
                    Damage { file: label, offset: 0, kind: CorruptionKind::BrokenChain }
                }
            };
            // Nothing from here on can be reached. What lies before may still be followed;
            // the highest such segment that has a valid header is where to begin.
            self.segments.clear();
            self.broken = Some(damage);
            let below =
                numbers.iter().rev().copied().find(|n| {
                    *n < number && *n >= oldest && matches!(open(*n), Ok(Found::Segment(_)))
                });
            match below {
                Some(below) => (number, successor) = (below, None),
                None => return Ok(()),
            }
        }
    }

    /// The number of the next segment: above every file there is.
    pub const fn next_segment(&self) -> u64 {
        self.highest + 1
    }

    /// The MANIFEST it was opened by.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Replays the valid part of the log into `target`, up to log position `limit` if given,
    /// then looks behind it for evidence of what was promised.
    pub(crate) fn scan(
        &self,
        target: &dyn ReplayTarget,
        base: &Base,
        limit: Option<u64>,
        beside: Beside,
        listener: Listener<'_>,
    ) -> Result<Scan> {
        let read = |applier: &mut Applier<'_>| self.read_chain(applier, limit, listener);
        let (mut scan, replayed) = replay_into(target, base, read)?;
        target.finish(replayed.stats.final_version);
        if limit.is_none() {
            let before = scan.promised;
            if !sabotaged(Sabotage::LookNotBehind) {
                scan.look_behind(self)?;
            }
            if beside == Beside::AWriter && self.has_grown(&scan)? {
                // What was not there yet is no damage, and promises of later groups are about
                // what came after this reader had passed.
                scan.promised = before.min(scan.end.position);
                scan.end.tail = Tail::Nothing;
                scan.damage = None;
                scan.unnamed = None;
            }
        }
        if sabotaged(Sabotage::IgnorePromise) {
            scan.promised = scan.promised.min(scan.end.position);
        }
        let promised = scan.promised;
        scan.at_promise = scan.boundaries.iter().find(|at| at.1 == promised).copied();
        Ok(Scan { replayed, ..scan })
    }

    /// Whether the log went on behind the end of `scan` after it was read: a valid group is
    /// there now, or its last segment was sealed there for a successor that the MANIFEST did
    /// not name yet. Asked last of all, so that whatever promised more was written after the
    /// group that is looked for.
    fn has_grown(&self, scan: &Scan) -> Result<bool> {
        let Some(segment) = self.segments.last() else { return Ok(!self.spares.is_empty()) };
        if scan.end_segment + 1 != self.segments.len() || self.broken.is_some() {
            return Ok(false);
        }
        let mut reader = SegmentReader::new(segment.file.clone(), segment.header);
        reader.skip_to(scan.end.position, scan.end_chain);
        let grown = reader.next_group()?.is_ok();
        Ok(grown || (scan.closing.is_some() && scan.end.tail == Tail::Nothing))
    }

    fn read_chain(
        &self,
        applier: &mut Applier<'_>,
        limit: Option<u64>,
        listener: Listener<'_>,
    ) -> Result<Scan> {
        let floor = self.manifest.floor;
        let bytes_of = |segment: &Segment| segment.bytes.saturating_sub(HEADER_BYTES);
        let bytes_total: u64 = self.segments.iter().map(bytes_of).sum();
        // Boundaries of groups from the highest promise so far on, so that the chain hash at
        // the final one is known without reading anything again.
        let mut scan = Scan {
            replayed: Replayed::default(),
            end: End { position: 0, tail: Tail::Nothing },
            end_chain: 0,
            damage: None,
            promised: floor.position,
            evidence_groups: 0,
            at_promise: None,
            boundaries: VecDeque::new(),
            unnamed: None,
            end_segment: 0,
            closing: None,
        };
        let mut reported = 0;
        for (index, segment) in self.segments.iter().enumerate() {
            let header = &segment.header;
            // A footer or a seal of the segment before is not the end of the log.
            applier.forget_footer();
            applier.segment_begins();
            scan.closing = None;
            let mut reader = SegmentReader::new(segment.file.clone(), *header);
            scan.promised = scan.promised.max(header.durable_upto);
            scan.end_segment = index;
            scan.boundaries.push_back((index, header.first_position, header.chain));
            let stop = segment.valid_end.into_iter().chain(limit).min();
            let broken = loop {
                if stop == Some(reader.position()) {
                    break None;
                }
                let group = match reader.next_group()? {
                    Ok(group) => group,
                    Err(kind) => break Some(kind),
                };
                let applied = applier.group(
                    group.frames,
                    group.header.frames,
                    u64::from(group.header.length),
                );
                if let Err(error) = applied {
                    log::warn!("{}: {error}", segment.label());
                    scan.end.position = group.position;
                    break Some(CorruptionKind::Undecodable);
                }
                if matches!(group.header.kind, GroupKind::Open | GroupKind::Footer) {
                    applier.life_ends();
                }
                let closes = matches!(group.header.kind, GroupKind::Seal | GroupKind::Footer);
                scan.closing = closes.then_some(group.position);
                scan.promised = scan.promised.max(group.header.durable_upto);
                let end = group.position + u64::from(group.header.length);
                if end == floor.position && group.chain != floor.chain {
                    scan.end.position = group.position;
                    break Some(CorruptionKind::BrokenChain);
                }
                scan.boundaries.push_back((index, end, group.chain));
                while scan.boundaries.len() > 1 && scan.boundaries[1].1 <= scan.promised {
                    scan.boundaries.pop_front();
                }
                let bytes = applier.stats().bytes;
                if bytes - reported >= 4 << 20 {
                    reported = bytes;
                    let told = Progress::new(Stage::Replay, bytes, bytes_total.max(bytes));
                    tell(listener, Progress { txns: applier.stats().txns_applied, ..told })?;
                }
            };
            scan.end_chain = reader.chain();
            match broken {
                None if segment.valid_end == Some(reader.position()) => {
                    scan.end.position = reader.position();
                    let next = &self.segments[index + 1];
                    if next.header.chain != reader.chain() {
                        scan.end.tail = Tail::Changed(CorruptionKind::BrokenChain);
                        let kind = CorruptionKind::BrokenChain;
                        scan.damage = Some(Damage { file: next.label(), offset: 0, kind });
                        break;
                    }
                }
                None => {
                    scan.end.position = reader.position();
                    break;
                }
                // A group that is whole and wrong: nothing after it counts.
                Some(kind @ (CorruptionKind::Undecodable | CorruptionKind::BrokenChain)) => {
                    scan.end.tail = Tail::Changed(kind);
                }
                Some(kind) => scan.end = reader.end(kind)?,
            }
            if broken.is_some() {
                let offset = header.offset_of(scan.end.position);
                let kind = match scan.end.tail {
                    Tail::Nothing => CorruptionKind::Ends,
                    Tail::Torn(kind) | Tail::Changed(kind) => kind,
                };
                scan.damage = Some(Damage { file: segment.label(), offset, kind });
                if scan.end.tail != Tail::Nothing && !sabotaged(Sabotage::LookNotBehind) {
                    scan.note(&reader.evidence()?);
                }
                break;
            }
        }
        if self.broken.is_some() && scan.end.tail == Tail::Nothing {
            // Nothing is wrong where the log ends but that it should go on elsewhere.
            scan.damage = self.broken.clone();
        }
        let stats = applier.stats();
        // Files are filled ahead, so the end may come sooner than their length says.
        let told = Progress::new(Stage::Replay, stats.bytes, stats.bytes);
        tell(listener, Progress { txns: stats.txns_applied, ..told })?;
        Ok(scan)
    }
}

impl Scan {
    fn note(&mut self, evidence: &Evidence) {
        self.evidence_groups += evidence.groups;
        self.promised = self.promised.max(evidence.durable_upto);
    }

    /// Reads what lies behind the end of the log, in later segments, for promises.
    fn look_behind(&mut self, wal: &Wal) -> Result<()> {
        let behind = wal.segments.iter().skip(self.end_segment + 1);
        for segment in behind {
            self.look_into(segment)?;
        }
        let spares = wal.spares.iter().filter_map(|spare| spare.segment.as_ref());
        for segment in spares {
            let named = self.look_into(segment)?;
            // Out of reach behind damage is another matter than never named.
            if let (Some(offset), None, None) = (named, &wal.broken, &self.unnamed) {
                let kind = CorruptionKind::OldManifest;
                self.unnamed = Some(Damage { file: segment.label(), offset, kind });
            }
        }
        Ok(())
    }

    /// Notes the promises in a segment. Returns the offset of a group that was written after
    /// a MANIFEST had named the segment, if there is one.
    ///
    /// What recovery wrote again into a segment that was then not named is not evidence: those
    /// groups are where they were before, too.
    fn look_into(&mut self, segment: &Segment) -> Result<Option<u64>> {
        self.promised = self.promised.max(segment.header.durable_upto);
        let mut reader = SegmentReader::new(segment.file.clone(), segment.header);
        let mut named = segment.header.origin == Origin::Rotation;
        let mut found = None;
        while let Ok(group) = reader.next_group()? {
            self.evidence_groups += u64::from(named);
            self.promised = self.promised.max(group.header.durable_upto);
            if named && found.is_none() {
                found = Some(segment.header.offset_of(group.position));
            }
            named |= group.header.kind == GroupKind::Open;
        }
        self.note(&reader.evidence()?);
        Ok(found)
    }
}

/// The valid headers of all segment files, by the number in the file's name, of whatever
/// database.
pub(crate) fn segment_headers(
    disk: &dyn Disk,
    layout: &Layout,
) -> Result<Vec<(u64, SegmentHeader)>> {
    let names = match disk.list(&layout.wal()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.at("WAL", "list")?,
    };
    let mut headers = Vec::new();
    for number in names.iter().filter_map(|name| Layout::parse_segment_name(name)) {
        let label = Layout::segment_label(number);
        let file = disk.open(&layout.segment(number), Access::Read).at(&*label, "open")?;
        let mut block = vec![0; HEADER_LEN];
        let read = read_full_at(&*file, 0, &mut block).at(&*label, "read")?;
        headers.extend(SegmentHeader::decode(&block[..read]).ok().map(|header| (number, header)));
    }
    headers.sort_by_key(|(number, _)| *number);
    Ok(headers)
}

/// What became of opening a segment.
enum Found {
    Segment(Segment),
    Damaged(Damage),
}

fn open_segment(
    disk: &dyn Disk,
    layout: &Layout,
    manifest: &Manifest,
    number: u64,
) -> Result<Found> {
    let label = Layout::segment_label(number);
    let damaged = |kind| Ok(Found::Damaged(Damage { file: label.clone(), offset: 0, kind }));
    let file = match disk.open(&layout.segment(number), Access::Read) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return damaged(CorruptionKind::Missing);
        }
        file => file.at(&*label, "open")?,
    };
    let bytes = file.len().at(&*label, "read the length of")?;
    let mut block = vec![0; HEADER_LEN];
    let read = read_full_at(&*file, 0, &mut block).at(&*label, "read")?;
    match SegmentHeader::decode(&block[..read]) {
        Err(HeaderError::NewerFormat(found)) => {
            Err(Error::NewerFormat { file: label, found, known: WAL_FORMAT })
        }
        Err(HeaderError::Corrupt(kind)) => damaged(kind),
        Ok(header)
            if header.database != manifest.database && !sabotaged(Sabotage::NoDatabaseCheck) =>
        {
            damaged(CorruptionKind::Foreign)
        }
        Ok(header) if header.number != number => damaged(CorruptionKind::BadHeader),
        Ok(header) => Ok(Found::Segment(Segment { header, file, bytes, valid_end: None })),
    }
}
