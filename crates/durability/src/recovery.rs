//! Recovery is a table: what is found decides what is done.
//!
//! Let **x** be the first log position where the log that goes with the newest usable snapshot
//! stops being valid, and **D** the highest
//! of the MANIFEST's floor and the `durable_upto` of every segment header and group header
//! that is valid on its own, before or after x. Everything before D was promised.
//!
//! | what is found | class | verdict |
//! |---|---|---|
//! | a footer at the end, all valid | [`LogClass::Clean`] | open |
//! | no footer, all valid, ends at or past D in zeros or the end of the file | [`LogClass::Killed`] | open, report |
//! | x ≥ D, the group at x has no valid trailer | [`LogClass::TornUnpromised`] | open with the prefix, report |
//! | x ≥ D, the trailer of the group at x is valid, its bytes are not | [`LogClass::Ambiguous`] | open with the prefix, report loudly; [`RecoveryPolicy::RefuseIfUnsure`] refuses |
//! | valid groups beyond x, their promises at or before x | as the row of x | evidence, never data |
//! | x < D: bad bytes, a broken chain, a missing, foreign or headerless segment | [`LogClass::Corrupt`] | refuse |
//! | the log simply ends before D | [`LogClass::LostTail`] | refuse |
//! | a segment newer than the MANIFEST names, no promise beyond x in it | spare | open |
//! | commits in a segment newer than the MANIFEST names, which is therefore an old one | [`LogClass::Corrupt`] | refuse |
//! | MANIFEST bad, or missing while segments hold valid data | [`crate::Error::Corrupt`] | refuse |
//! | MANIFEST missing, nothing valid | unborn | a writer finishes creation |
//! | the newest snapshot is bad, an older one and its log are there, or the whole log | [`SnapshotClass::Fallback`] | open from that, report |
//! | the newest snapshot is bad, and there is no such older one | [`SnapshotClass::Corrupt`] | refuse |
//! | the disk answers with an error | [`crate::Error::Io`] | refuse |
//!
//! With [`RecoveryPolicy::AcceptLoss`] a log that simply ends before D is opened: a new epoch and
//! a floor at x are durable first. Everything else that is refused can be salvaged: what is
//! valid before x, and what can be read of snapshots, goes into a new directory.
//!
//! A refusal changes nothing on disk. What lies between D and x is not trusted to a sync: it
//! is written again, into a new segment, and only then is the database open. Nothing is ever
//! truncated: what recovery leaves out stays in the old file, and a copy is put aside.

use std::sync::Arc;
use std::time::Duration;

use steadfast_core::{Entropy, ReplayTarget, Sabotage, Version, sabotaged, unless};

use crate::disk::Disk;
use crate::error::{CorruptionKind, Error, IoContext, Result};
use crate::layout::Layout;
use crate::manifest::{EpochStart, Floor, LiveSnapshot, Manifest};
use crate::progress::{Listener, unheard};
use crate::quarantine;
use crate::replay::{Base, ReplayStats};
use crate::snapshot::{Snapshot, SnapshotFile};
use crate::wal::chain::{Beside, Damage, Scan, Wal, segment_headers};
use crate::wal::group::{
    ChecksumSeed, GROUP_BYTES_MIN, GroupKind, Stamp, TRAILER_BYTES, seal_group,
};
use crate::wal::reader::{SegmentReader, Tail};
use crate::wal::segment::{Epoch, HEADER_BYTES, Origin, SegmentHeader};
use crate::wal::writer::{
    FIRST_SEGMENT_BYTES, Resume, ResumedSegment, WalOptions, version_ceiling,
};

/// Groups that recovery writes again are small and many; so much of them goes into one write.
const BATCH_BYTES: usize = 256 << 10;

/// What to do where it is not certain that nothing acknowledged is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RecoveryPolicy {
    /// Open with the valid prefix and report what was left out.
    #[default]
    Default,
    /// Refuse where the last group was written whole and then changed: it may have been
    /// acknowledged.
    RefuseIfUnsure,
    /// Take what is there, whatever is missing. A log that ends too early is opened as it is,
    /// in a new epoch; anything damaged before what was promised is still refused in place, and
    /// is what salvaging into a new directory is for.
    AcceptLoss,
}

/// What the log was found to be. See the table at the top of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogClass {
    /// It was closed.
    Clean,
    /// It was not closed; everything written is there.
    Killed,
    /// It ends in a write that was never finished.
    TornUnpromised,
    /// Its last group was written whole and is not what was written.
    Ambiguous,
    /// It is damaged before what was promised.
    Corrupt,
    /// It ends before what was promised.
    LostTail,
}

impl std::fmt::Display for LogClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Clean => "clean",
            Self::Killed => "killed",
            Self::TornUnpromised => "torn-unpromised",
            Self::Ambiguous => "ambiguous",
            Self::Corrupt => "corrupt",
            Self::LostTail => "lost-tail",
        })
    }
}

/// What the snapshots that the MANIFEST names were found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SnapshotClass {
    /// There is none: the log has everything.
    #[default]
    Nothing,
    /// The newest can be used. Its blocks are checked when they are read.
    Sound,
    /// The newest cannot be used; an older one and its log can, or the log from its very
    /// beginning.
    Fallback,
    /// None can be used.
    Corrupt,
}

impl std::fmt::Display for SnapshotClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "none",
            Self::Sound => "sound",
            Self::Fallback => "fallback",
            Self::Corrupt => "corrupt",
        })
    }
}

/// What an opening found, did and left out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// What the log was found to be.
    pub log: LogClass,
    /// What the snapshots were found to be.
    pub snapshots: SnapshotClass,
    /// The version of the snapshot that was opened; [`Version::ZERO`] without one.
    pub snapshot_version: Version,
    /// What is wrong with a snapshot that could not be used.
    pub snapshot_damage: Option<Damage>,
    /// What is wrong where the log stops being valid; `None` where it simply ends.
    pub damage: Option<Damage>,
    /// Bytes behind the valid end that were left out, and valid group headers among them.
    pub left_out_bytes: u64,
    /// Groups behind the valid end that are valid on their own: evidence, never data.
    pub evidence_groups: u64,
    /// The log position where the valid part ends (x).
    pub end: u64,
    /// The log position up to which everything was provably promised (D).
    pub promised: u64,
    /// The newest version that was kept.
    pub last_version: Version,
    /// The newest version that is known to have been promised but is not in the valid part;
    /// `None` if there is no such loss, or if how far it goes is not known.
    pub promised_version: Option<Version>,
    /// What replay applied and discarded.
    pub stats: ReplayStats,
    /// Segment files that are not part of the log.
    pub spares: Vec<String>,
    /// Bytes of log that were written again because no sync of them was proven.
    pub rewritten_bytes: u64,
    /// Copies that were made of what was left out.
    pub quarantined: Vec<String>,
    /// Whether what lies past the promise could not be synced by a read-only opening, and is
    /// therefore not shown.
    pub cut_to_promise: bool,
    /// Whether a writer has the database open, so that what looks unfinished may be in the
    /// middle of being written.
    pub beside_writer: bool,
    /// How long it took.
    pub duration: Duration,
}

impl RecoveryReport {
    /// The report of a database that has no log yet.
    pub fn empty() -> Self {
        Self {
            log: LogClass::Clean,
            snapshots: SnapshotClass::Nothing,
            snapshot_version: Version::ZERO,
            snapshot_damage: None,
            damage: None,
            left_out_bytes: 0,
            evidence_groups: 0,
            end: 0,
            promised: 0,
            last_version: Version::ZERO,
            promised_version: None,
            stats: ReplayStats::default(),
            spares: Vec::new(),
            rewritten_bytes: 0,
            quarantined: Vec::new(),
            cut_to_promise: false,
            beside_writer: false,
            duration: Duration::ZERO,
        }
    }

    /// Whether anything that was in the files is not in the database.
    pub const fn left_anything_out(&self) -> bool {
        self.left_out_bytes > 0
            || self.cut_to_promise
            || self.stats.discarded_txns > 0
            || self.stats.orphaned_entries > 0
            || matches!(self.log, LogClass::TornUnpromised | LogClass::Ambiguous)
            || matches!(self.snapshots, SnapshotClass::Fallback | SnapshotClass::Corrupt)
    }
}

/// One line: the file and offset, what is wrong, what was kept, what is at risk.
impl std::fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(Damage { file, offset, kind }) = &self.snapshot_damage {
            write!(f, "{file}: {kind} at offset {offset}: ")?;
            match self.snapshots {
                SnapshotClass::Corrupt => {
                    f.write_str(
                        "the snapshot cannot be used and no older one is left; versions 1",
                    )?;
                    if let Some(upto) = self.promised_version {
                        write!(f, " to {upto}")?;
                    }
                    return f.write_str(" and any above at risk; nothing was changed");
                }
                _ if self.snapshot_version == Version::ZERO => {
                    f.write_str("opened from the whole log instead; ")?;
                }
                _ => {
                    let version = self.snapshot_version;
                    write!(f, "opened from the older snapshot at version {version} instead; ")?;
                }
            }
        }
        if let Some(Damage { file, offset, kind }) = &self.damage {
            write!(f, "{file}: {kind} at offset {offset}: ")?;
        }
        let last = self.last_version;
        match self.log {
            LogClass::Clean => write!(f, "closed cleanly; last version {last}")?,
            LogClass::Killed => {
                write!(f, "not closed; everything written is there; last version {last}")?
            }
            LogClass::TornUnpromised => write!(
                f,
                "a write that was never finished, {} bytes left out, none of it promised; last version kept {last}",
                self.left_out_bytes
            )?,
            LogClass::Ambiguous => write!(
                f,
                "the last group was written whole and then changed: it may have been acknowledged; \
                 {} bytes left out; last version kept {last}",
                self.left_out_bytes
            )?,
            LogClass::Corrupt | LogClass::LostTail => {
                let what = if self.log == LogClass::Corrupt { "damaged" } else { "cut off" };
                write!(
                    f,
                    "the log is {what} before what was promised; last valid version {last}, "
                )?;
                match self.promised_version {
                    Some(upto) => {
                        write!(f, "versions {} to {upto} and any above at risk", last.next())?
                    }
                    None => write!(f, "versions from {} on at risk", last.next())?,
                }
                f.write_str("; nothing was changed")?;
            }
        }
        if self.cut_to_promise {
            f.write_str("; what is past the promise could not be synced and is not shown")?;
        }
        if self.stats.discarded_txns > 0 || self.stats.orphaned_entries > 0 {
            let (txns, entries) = (self.stats.discarded_txns, self.stats.orphaned_entries);
            write!(f, "; {txns} incomplete transactions and {entries} orphaned entries discarded")?;
        }
        Ok(())
    }
}

/// A log that was read, judged, and may be opened.
#[derive(Debug)]
pub struct Recovered {
    wal: Wal,
    opened: Opened,
    base: Base,
    report: RecoveryReport,
    resume: Resume,
    /// Where what must be written again begins and ends: segment index, position, chain hash.
    again: Option<Again>,
}

#[derive(Debug, Clone, Copy)]
struct Again {
    segment: usize,
    position: u64,
    chain: u32,
    end: u64,
}

/// The snapshot that a database is opened from.
#[derive(Debug)]
pub struct Opened {
    /// The newest that can be used; `None` if there never was one.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The live snapshots that can be used, oldest first, as the MANIFEST names them.
    pub live: Vec<LiveSnapshot>,
    class: SnapshotClass,
    damage: Option<Damage>,
}

/// Opens the newest snapshot that `manifest` names and that can be used. If there are only
/// others, the log may have everything from its very beginning; else only
/// [`RecoveryPolicy::AcceptLoss`] goes on.
pub fn open_snapshot(
    disk: &dyn Disk,
    layout: &Layout,
    manifest: &Manifest,
    policy: RecoveryPolicy,
) -> Result<Opened> {
    let mut opened = Opened {
        snapshot: None,
        live: manifest.snapshots.clone(),
        class: SnapshotClass::Nothing,
        damage: None,
    };
    while let Some(live) = opened.live.last() {
        match Snapshot::open(disk, layout, live.number, manifest.database) {
            Ok(snapshot) if snapshot.info().checksum == live.checksum => {
                opened.snapshot = Some(Arc::new(snapshot));
                opened.class = match &opened.damage {
                    None => SnapshotClass::Sound,
                    Some(_) => SnapshotClass::Fallback,
                };
                return Ok(opened);
            }
            Ok(_) => opened.note(live.number, 0, CorruptionKind::Foreign),
            Err(Error::Corrupt { offset, kind, .. }) => opened.note(live.number, offset, kind),
            Err(error) => return Err(error),
        }
        opened.live.pop();
    }
    if opened.damage.is_none() {
        return Ok(opened);
    }
    if Wal::has_everything(disk, layout, manifest)? {
        opened.class = SnapshotClass::Fallback;
        return Ok(opened);
    }
    opened.class = SnapshotClass::Corrupt;
    if policy == RecoveryPolicy::AcceptLoss {
        return Ok(opened);
    }
    let report = RecoveryReport {
        snapshots: SnapshotClass::Corrupt,
        snapshot_damage: opened.damage,
        promised_version: manifest.newest_snapshot().map(|newest| newest.version),
        ..RecoveryReport::empty()
    };
    Err(Error::Refused(Box::new(report)))
}

impl Opened {
    fn note(&mut self, number: u64, offset: u64, kind: CorruptionKind) {
        let damage = Damage { file: Layout::snapshot_label(number), offset, kind };
        self.damage.get_or_insert(damage);
    }

    /// Whether what was in the snapshots is nowhere else.
    pub fn is_corrupt(&self) -> bool {
        self.class == SnapshotClass::Corrupt
    }

    /// What is wrong with the first that could not be used.
    pub const fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// What replay starts on.
    fn base(&self) -> Base {
        self.snapshot.as_ref().map_or_else(Base::default, |snapshot| {
            let meta = snapshot.meta();
            Base {
                version: meta.version,
                timestamp: meta.timestamp,
                namespaces: meta.namespaces.clone(),
            }
        })
    }

    /// Where the log begins that goes with it.
    fn first_segment(&self) -> u64 {
        self.live.last().map_or(0, |live| live.first_segment)
    }
}

/// Reads what the log has beyond the opened snapshot into `target`, judges it, and refuses
/// what `policy` does not accept. Nothing on disk is changed. Beside a writer, what looks
/// unfinished past the promise is taken for not written yet.
#[expect(clippy::too_many_arguments, reason = "each is another thing, and there is one caller")]
pub fn recover(
    disk: &dyn Disk,
    layout: &Layout,
    manifest: &Manifest,
    opened: Opened,
    target: &dyn ReplayTarget,
    policy: RecoveryPolicy,
    beside: Beside,
    listener: Listener<'_>,
) -> Result<Recovered> {
    let base = opened.base();
    let wal = Wal::open_from(disk, layout, manifest, opened.first_segment())?;
    let scan = wal.scan(target, &base, None, beside, listener)?;
    let mut recovered = judge(wal, opened, base, &scan, policy)?;
    if beside == Beside::AWriter {
        recovered.report.beside_writer = true;
        if matches!(recovered.report.log, LogClass::TornUnpromised | LogClass::Ambiguous) {
            // Not torn: not written yet.
            recovered.report.log = LogClass::Killed;
            recovered.report.damage = None;
            recovered.report.left_out_bytes = 0;
        }
    }
    let refused = match recovered.report.log {
        LogClass::Corrupt | LogClass::LostTail => policy != RecoveryPolicy::AcceptLoss,
        LogClass::Ambiguous => policy == RecoveryPolicy::RefuseIfUnsure,
        LogClass::Clean | LogClass::Killed | LogClass::TornUnpromised => false,
    };
    if refused {
        return Err(Error::Refused(Box::new(recovered.report)));
    }
    match recovered.report.log {
        _ if beside == Beside::AWriter => {}
        LogClass::Clean if recovered.report.snapshots != SnapshotClass::Fallback => {}
        LogClass::Ambiguous => log::error!("{}", recovered.report),
        _ => log::warn!("{}", recovered.report),
    }
    Ok(recovered)
}

fn classify(scan: &Scan, broken: bool, footer_at_end: bool) -> LogClass {
    let lost = scan.end.position < scan.promised;
    match (lost, scan.end.tail) {
        (true, Tail::Nothing) if !broken && scan.evidence_groups == 0 => LogClass::LostTail,
        (true, _) => LogClass::Corrupt,
        // A segment that the MANIFEST names was durable before: no power cut takes it away.
        _ if broken => LogClass::Corrupt,
        (false, Tail::Nothing) if footer_at_end => LogClass::Clean,
        (false, Tail::Nothing) => LogClass::Killed,
        (false, Tail::Torn(_)) => LogClass::TornUnpromised,
        (false, Tail::Changed(_)) => LogClass::Ambiguous,
    }
}

fn judge(
    wal: Wal,
    opened: Opened,
    base: Base,
    scan: &Scan,
    policy: RecoveryPolicy,
) -> Result<Recovered> {
    let manifest = wal.manifest();
    let (floor, stats) = (manifest.floor, scan.replayed.stats);
    let footer = scan.replayed.footer;
    let mut log = classify(scan, wal.broken.is_some(), footer.is_some());
    if wal.segments.is_empty() && wal.broken.is_none() && log == LogClass::Killed {
        // Nothing was ever written.
        log = LogClass::Clean;
    }
    if scan.unnamed.is_some() && !sabotaged(Sabotage::OldManifestAccepted) {
        log = LogClass::Corrupt;
    }
    let lost = matches!(log, LogClass::Corrupt | LogClass::LostTail);
    if !lost && !wal.segments.is_empty() && scan.at_promise.is_none() {
        // The promise does not fall between two groups: a header lied or the MANIFEST is of
        // another time.
        log = LogClass::Corrupt;
    }
    let lost = matches!(log, LogClass::Corrupt | LogClass::LostTail);
    let clean = log == LogClass::Clean;
    let damage = if scan.unnamed.is_some() {
        scan.unnamed.clone()
    } else if lost || scan.end.tail != Tail::Nothing {
        scan.damage.clone()
    } else {
        None
    };
    let mut left_out_bytes = 0;
    if let (Some(segment), false) =
        (wal.segments.get(scan.end_segment), scan.end.tail == Tail::Nothing)
    {
        let offset = segment.header.offset_of(scan.end.position);
        left_out_bytes =
            crate::wal::reader::used_len(&segment.file, &segment.label(), offset)? - offset;
    }
    let report = RecoveryReport {
        log,
        snapshots: opened.class,
        snapshot_version: base.version,
        snapshot_damage: opened.damage.clone(),
        damage,
        left_out_bytes,
        evidence_groups: scan.evidence_groups,
        end: scan.end.position,
        promised: scan.promised,
        last_version: stats.final_version,
        promised_version: (lost && floor.version > stats.final_version).then_some(floor.version),
        stats,
        spares: wal.spares.iter().map(|spare| Layout::segment_label(spare.number)).collect(),
        ..RecoveryReport::empty()
    };
    // A seal or a footer at the end says nothing about data and need not be written again.
    let data_end = match scan.closing {
        Some(closing) if closing >= scan.promised => closing,
        _ => scan.end.position,
    };
    let ceiling = wal.segments.iter().map(|segment| segment.header.version_ceiling).max();
    let next_version = match footer {
        Some((next_version, _)) if clean => next_version,
        _ if wal.segments.is_empty() => floor.next_version,
        _ if sabotaged(Sabotage::ReuseVersions) => Version::ZERO,
        // Any version below the ceiling may have been given out and seen.
        _ => Version(ceiling.unwrap_or(0)),
    }
    .max(stats.final_version.next())
    .max(floor.next_version);
    let footer_time = footer.map_or(floor.timestamp, |(_, timestamp)| timestamp);
    let (segment, position, chain) = match scan.at_promise {
        _ if log == LogClass::LostTail && policy == RecoveryPolicy::AcceptLoss => {
            (scan.end_segment, scan.end.position, scan.end_chain)
        }
        Some(_) if !lost && sabotaged(Sabotage::RecoveryRewritesNothing) => {
            (scan.end_segment, scan.end.position, scan.end_chain)
        }
        Some(at) => at,
        None => (0, floor.position, floor.chain),
    };
    let resume = Resume {
        position,
        chain,
        predecessor: wal.segments.get(segment).map_or(0, |segment| segment.header.number),
        next_version,
        last: (stats.final_version, stats.final_timestamp.max(footer_time).max(floor.timestamp)),
        next_segment: wal.next_segment(),
        namespaces: scan.replayed.namespaces.clone(),
        segments: wal
            .segments
            .iter()
            .map(|segment| segment.header.number)
            .zip(scan.replayed.last_versions.iter().copied())
            .collect(),
        next_snapshot: wal.manifest().snapshots.last().map_or(1, |newest| newest.number + 1),
        segment: None,
    };
    let again = (!clean || position < data_end).then_some(Again {
        segment,
        position,
        chain,
        end: data_end.max(position),
    });
    Ok(Recovered { wal, opened, base, report, resume, again })
}

impl Recovered {
    /// What was found.
    pub const fn report(&self) -> &RecoveryReport {
        &self.report
    }

    /// The snapshot that it stands on.
    pub const fn opened(&self) -> &Opened {
        &self.opened
    }

    /// The first version that may be given out from here on.
    pub const fn next_version(&self) -> Version {
        self.resume.next_version
    }

    /// Refuses what must not be shown as a database whatever the policy: a log with a hole, or
    /// one whose snapshot is lost. Only salvage takes it.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn check_whole(&self) -> Result<()> {
        let report = &self.report;
        if report.log == LogClass::Corrupt || report.snapshots == SnapshotClass::Corrupt {
            return Err(Error::Refused(Box::new(report.clone())));
        }
        Ok(())
    }

    /// Syncs what lies past the promise, for an opening that will not write it again, so that
    /// nothing is shown that a power cut could still take away. Returns whether it could.
    pub fn sync_for_reading(&self, disk: &dyn Disk, layout: &Layout) -> bool {
        let Some(again) = self.again else { return true };
        if sabotaged(Sabotage::ReaderDoesNotSync) {
            return true;
        }
        // A recovery that was killed may have left a MANIFEST whose name is not durable; the
        // promise it tells of is one only with it.
        if let Err(error) = disk.sync_dir(layout.root()) {
            log::warn!("cannot sync the directory: {error}");
            return false;
        }
        self.wal.segments[again.segment..].iter().all(|segment| match segment.file.sync_data() {
            Ok(()) => true,
            Err(error) => {
                log::warn!("{}: cannot sync: {error}", segment.label());
                false
            }
        })
    }

    /// Replays what was promised, and only that, into `target`, which must have the opened
    /// snapshot and nothing else.
    pub fn replay_promised(mut self, target: &dyn ReplayTarget) -> Result<RecoveryReport> {
        let scan = self.wal.scan(
            target,
            &self.base,
            Some(self.resume.position),
            Beside::Nobody,
            &mut unheard,
        )?;
        self.report.stats = scan.replayed.stats;
        self.report.last_version = scan.replayed.stats.final_version;
        self.report.cut_to_promise = true;
        Ok(self.report)
    }

    /// Makes the log ready for writing as `options` say. After a clean close there is nothing
    /// to do. Else a new segment takes what no sync is proven for, and becomes part of the log,
    /// which goes on in it; then copies of what was left out are put aside and files that
    /// never were part of the log removed.
    ///
    /// A crash at any step leaves the log as it was or as it is to be.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the log is damaged before what was promised: only a new directory
    /// can take what is left.
    pub fn prepare_writing(
        mut self,
        disk: &Arc<dyn Disk>,
        layout: &Layout,
        options: WalOptions,
        entropy: &Entropy,
    ) -> Result<(Manifest, Resume, RecoveryReport)> {
        self.check_whole()?;
        let mut manifest = self.wal.manifest().clone();
        // One that cannot be used is not what the next one could be fallen back from.
        manifest.snapshots.clone_from(&self.opened.live);
        if self.again.is_some() || self.wal.segments.is_empty() {
            // A process that was killed may have left a MANIFEST that is there to see and whose
            // name is not durable. It has to be before anything is that needs it.
            disk.sync_dir(layout.root()).at(".", "sync the directory")?;
        }
        if let Some(again) = self.again {
            let (segment, end, chain) =
                self.write_again(&**disk, layout, options, entropy, again)?;
            let header = segment.header;
            manifest.epochs.push(EpochStart {
                epoch: header.epoch,
                first_version: self.resume.next_version,
                recovered: self.report.last_version,
                first_segment: header.number,
            });
            manifest.newest_segment = header.number;
            if manifest.oldest_segment == 0 {
                manifest.oldest_segment = header.number;
            }
            manifest.floor = Floor {
                position: end,
                version: self.report.last_version,
                next_version: self.resume.next_version,
                chain,
                segment: header.number,
                timestamp: self.resume.last.1,
            };
            manifest.write(&**disk, layout)?;
            self.report.rewritten_bytes = again.end - again.position;
            self.report.quarantined = quarantine::keep(&**disk, layout, &self.report);
            self.resume.segments.push((header.number, self.report.last_version));
            self.resume.position = end;
            self.resume.chain = chain;
            self.resume.predecessor = header.number;
            self.resume.segment = Some(segment);
            self.remove_spares(&**disk, layout);
        } else if manifest != *self.wal.manifest() {
            // A file goes only after a durable MANIFEST does not name it any more.
            manifest.write(&**disk, layout)?;
        }
        Ok((manifest, self.resume, self.report))
    }

    /// Writes the groups from `again.position` to `again.end` into a new segment, with a new
    /// epoch, at the same log positions, and makes it durable. Returns its header and the end
    /// of the log in it.
    fn write_again(
        &self,
        disk: &dyn Disk,
        layout: &Layout,
        options: WalOptions,
        entropy: &Entropy,
        again: Again,
    ) -> Result<(ResumedSegment, u64, u32)> {
        let manifest = self.wal.manifest();
        let number = self.wal.next_segment();
        // Room to go on in, beside what is written again.
        let room = FIRST_SEGMENT_BYTES.min(options.segment_bytes);
        let mut bytes = HEADER_BYTES + (again.end - again.position) + room;
        let counter = manifest.epochs.last().map_or(1, |start| start.epoch.counter + 1);
        let header = SegmentHeader {
            database: manifest.database,
            number,
            epoch: Epoch { counter, random: entropy.next_u64() },
            version_ceiling: version_ceiling(self.resume.next_version, bytes),
            durable_upto: again.position,
            first_position: again.position,
            predecessor: self.resume.predecessor,
            chain: again.chain,
            origin: Origin::Recovery,
        };
        let label = Layout::segment_label(number);
        let path = layout.segment(number);
        let file = disk.create(&path, options.access()).at(&*label, "create")?;
        let written = (|| {
            file.write_at(0, &header.encode()).at(&*label, "write")?;
            let mut batch = Vec::new();
            let mut out = Rewriter {
                seed: ChecksumSeed::of(&header),
                chain: again.chain,
                position: again.position,
            };
            for segment in &self.wal.segments[again.segment..] {
                let mut reader = SegmentReader::new(segment.file.clone(), segment.header);
                if out.position > segment.header.first_position {
                    reader.skip_to(out.position, again.chain);
                }
                let stop = segment.valid_end.unwrap_or(again.end).min(again.end);
                while reader.position() < stop {
                    let group = reader.next_group()?.map_err(|kind| Error::Corrupt {
                        file: segment.label(),
                        offset: segment.header.offset_of(out.position),
                        kind,
                    })?;
                    let bytes = out.group(
                        group.header.kind,
                        group.header.level,
                        group.header.frames,
                        again.position,
                        group.bytes,
                    );
                    batch.extend_from_slice(&bytes);
                    if batch.len() >= BATCH_BYTES {
                        let offset = header.offset_of(out.position) - batch.len() as u64;
                        file.write_at(offset, &batch).at(&*label, "write")?;
                        batch.clear();
                    }
                }
            }
            // A life begins behind it, and its groups may want to start on a block.
            let offset = header.offset_of(out.position);
            let from = offset - batch.len() as u64;
            file.write_at(from, &batch).at(&*label, "write")?;
            let filler = (offset + GROUP_BYTES_MIN).next_multiple_of(HEADER_BYTES) - offset;
            let filling = out.open(again.position, filler);
            file.write_at(offset, &filling).at(&*label, "write")?;
            match file.allocate(bytes) {
                // What was recovered fits; the first commit will ask for space again.
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    bytes = offset + filler;
                    file.set_len(bytes).at(&*label, "cut")?;
                }
                allocated => allocated.at(&*label, "take the space for")?,
            }
            unless(Sabotage::RecoveryDoesNotSync, || file.sync_all()).at(&*label, "sync")?;
            disk.sync_dir(&layout.wal()).at("WAL", "sync the directory")?;
            let segment = ResumedSegment { header, file: file.clone(), bytes };
            Ok((segment, out.position, out.chain))
        })();
        if written.is_err() {
            // Not named by the MANIFEST, it is not part of the log; on a full disk it is
            // space that somebody needs.
            let _ = disk.remove(&path);
        }
        written
    }

    /// Removes segment files that are not part of the log. They hold no promise: recovery
    /// looked for one.
    fn remove_spares(&self, disk: &dyn Disk, layout: &Layout) {
        for spare in &self.wal.spares {
            let label = Layout::segment_label(spare.number);
            match disk.remove(&layout.segment(spare.number)) {
                Ok(()) => log::info!("{label}: removed, it was never part of the log"),
                Err(error) => log::warn!("{label}: cannot remove: {error}"),
            }
        }
    }
}

/// Frames groups anew for another segment, at the positions they had.
struct Rewriter {
    seed: ChecksumSeed,
    chain: u32,
    position: u64,
}

impl Rewriter {
    fn group(
        &mut self,
        kind: GroupKind,
        level: u8,
        frames: u16,
        durable_upto: u64,
        old: &[u8],
    ) -> Vec<u8> {
        let mut bytes = old[..old.len() - TRAILER_BYTES].to_vec();
        let stamp = Stamp { kind, level, durable_upto };
        let (_, chain) =
            seal_group(&mut bytes, self.seed, self.position, self.chain, stamp, frames);
        self.position += bytes.len() as u64;
        self.chain = chain;
        bytes
    }

    fn open(&mut self, durable_upto: u64, length: u64) -> Vec<u8> {
        let old = vec![0; usize::try_from(length).expect("less than two blocks")];
        self.group(GroupKind::Open, 0, 0, durable_upto, &old)
    }
}

/// Whether there is anything in the directory of a log that could have been part of one: the
/// question when there is no MANIFEST.
pub fn holds_valid_segment(disk: &dyn Disk, layout: &Layout) -> Result<bool> {
    Ok(!segment_headers(disk, layout)?.is_empty())
}

/// Whether there is anything in the directory of snapshots that could have been part of a
/// database: the same question.
pub fn holds_valid_snapshot(disk: &dyn Disk, layout: &Layout) -> Result<bool> {
    let names = match disk.list(&layout.snapshots()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        names => names.at("SNAPSHOTS", "list")?,
    };
    for number in names.iter().filter_map(|name| Layout::parse_snapshot_name(name)) {
        match Snapshot::open_any(disk, &SnapshotFile::of(layout, number)) {
            Ok(_) => return Ok(true),
            Err(Error::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
