//! Every row of the recovery table: what is made to be found, and the verdict under each policy.

use std::path::Path;

use steadfast_durability::disk::Disk;
use steadfast_engine::{
    CompactMode, Database, DatabaseConfig, DurabilityMode, ErrorKind, LogClass, RecoveryPolicy,
    SnapshotClass, salvage_with,
};

use crate::model::{Item, Op, content_now};
use crate::sim::{Choice, EIO, Fault, Plan, SimDisk, StepKind};
use crate::workload::{SEGMENT_BYTES, builder, builder_at};

/// What opening makes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It opens with so many commits.
    Open(usize),
    /// It refuses, names a file, and changes nothing.
    Refuse,
}

/// A row of the table at the top of durability's `recovery.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecoveryRow {
    /// The log was closed.
    Clean,
    /// It was not, and is whole.
    Killed,
    /// Its last write was cut short.
    TornUnpromised,
    /// Its last group was written whole and then changed.
    Ambiguous,
    /// Groups are there behind one that is not.
    Evidence,
    /// Damage before what was promised.
    Corrupt,
    /// The log ends before what was promised.
    LostTail,
    /// A segment that nobody names.
    Spare,
    /// Commits in a segment that nobody names.
    OldManifest,
    /// The MANIFEST is damaged.
    BadManifest,
    /// A directory without a database.
    Unborn,
    /// The newest snapshot is damaged, and an older one is there.
    SnapshotFallback,
    /// The only snapshot is damaged.
    SnapshotCorrupt,
    /// The disk answers with an error.
    IoError,
}

/// The policies, in the order of the table's columns.
const POLICIES: [RecoveryPolicy; 3] =
    [RecoveryPolicy::Default, RecoveryPolicy::RefuseIfUnsure, RecoveryPolicy::AcceptLoss];

impl RecoveryRow {
    /// Every row, in the order of the table.
    pub const ALL: [Self; 14] = [
        Self::Clean,
        Self::Killed,
        Self::TornUnpromised,
        Self::Ambiguous,
        Self::Evidence,
        Self::Corrupt,
        Self::LostTail,
        Self::Spare,
        Self::OldManifest,
        Self::BadManifest,
        Self::Unborn,
        Self::SnapshotFallback,
        Self::SnapshotCorrupt,
        Self::IoError,
    ];

    /// What the first column of the table begins with.
    pub const fn what_is_found(self) -> &'static str {
        match self {
            Self::Clean => "a footer at the end",
            Self::Killed => "no footer, all valid",
            Self::TornUnpromised => "x ≥ D, the group at x has no valid trailer",
            Self::Ambiguous => "x ≥ D, the trailer of the group at x is valid",
            Self::Evidence => "valid groups beyond x",
            Self::Corrupt => "x < D: bad bytes",
            Self::LostTail => "the log simply ends before D",
            Self::Spare => "a segment newer than the MANIFEST names, no promise",
            Self::OldManifest => "commits in a segment newer than the MANIFEST names",
            Self::BadManifest => "MANIFEST bad, or missing",
            Self::Unborn => "MANIFEST missing, nothing valid",
            Self::SnapshotFallback => "the newest snapshot is bad, an older one",
            Self::SnapshotCorrupt => "the newest snapshot is bad, and there is no such",
            Self::IoError => "the disk answers with an error",
        }
    }

    /// The verdicts under `Default`, `RefuseIfUnsure` and `AcceptLoss`. Each database of [`RecoveryRow::run`] had five commits.
    pub const fn verdicts(self) -> [Verdict; 3] {
        use Verdict::{Open, Refuse};
        match self {
            Self::Clean | Self::Killed | Self::Spare | Self::SnapshotFallback => [Open(5); 3],
            Self::TornUnpromised => [Open(4); 3],
            Self::Evidence => [Open(2); 3],
            Self::Ambiguous => [Open(4), Refuse, Open(4)],
            Self::LostTail => [Refuse, Refuse, Open(3)],
            Self::Unborn => [Open(0); 3],
            // What can be read of these goes into a new directory, by salvaging.
            Self::Corrupt
            | Self::OldManifest
            | Self::BadManifest
            | Self::SnapshotCorrupt
            | Self::IoError => [Refuse; 3],
        }
    }

    /// How many commits salvaging takes, where a row is refused whatever the policy.
    const fn salvaged(self) -> Option<usize> {
        match self {
            Self::Corrupt => Some(2),
            Self::BadManifest => Some(5),
            _ => None,
        }
    }

    /// Makes what is to be found, opens it under each policy, and holds the verdict against the
    /// table. `Err` says what was not as it must be.
    pub fn run(self) -> Result<(), String> {
        for (policy, verdict) in POLICIES.into_iter().zip(self.verdicts()) {
            let (disk, config) = self.make();
            self.judge(&disk, config.recovery_policy(policy), verdict)
                .map_err(|why| format!("{self:?} under {policy:?}: {why}"))?;
        }
        self.salvage().map_err(|why| format!("{self:?}, salvaging: {why}"))?;
        self.read_only().map_err(|why| format!("{self:?}, read only: {why}"))
    }

    fn judge(self, disk: &SimDisk, config: DatabaseConfig, verdict: Verdict) -> Result<(), String> {
        let before = disk.fingerprint();
        let db = match (builder(disk, config).open(), verdict) {
            (Ok(db), Verdict::Open(_)) => db,
            (Ok(db), Verdict::Refuse) => return Err(format!("opened: {}", db.recovery_report())),
            (Err(error), Verdict::Open(_)) => return Err(format!("refused: {error}")),
            (Err(error), Verdict::Refuse) => {
                let kind =
                    if self == Self::IoError { ErrorKind::Io } else { ErrorKind::Corruption };
                let text = error.to_string();
                let named = ["WAL/", "MANIFEST", "SNAPSHOTS/", "LOCK"];
                return match error.kind() == kind
                    && named.iter().any(|name| text.contains(name))
                    && disk.fingerprint() == before
                {
                    true => Ok(()),
                    false => Err(format!("kind {}, {text}", error.kind())),
                };
            }
        };
        let Verdict::Open(commits) = verdict else { unreachable!("refusals are judged above") };
        holds(&db, commits)?;
        let report = db.recovery_report();
        let class = match self {
            Self::Clean | Self::Unborn => LogClass::Clean,
            Self::TornUnpromised | Self::Evidence => LogClass::TornUnpromised,
            Self::Ambiguous => LogClass::Ambiguous,
            Self::LostTail => LogClass::LostTail,
            _ => LogClass::Killed,
        };
        let snapshots = match self {
            Self::SnapshotFallback => SnapshotClass::Fallback,
            _ => SnapshotClass::Nothing,
        };
        let right = report.log == class
            && report.snapshots == snapshots
            && (self != Self::Spare || !report.spares.is_empty())
            && (self != Self::Evidence || report.evidence_groups == 2)
            && report.left_anything_out()
                == matches!(
                    self,
                    Self::TornUnpromised
                        | Self::Evidence
                        | Self::Ambiguous
                        | Self::SnapshotFallback
                );
        if right { Ok(()) } else { Err(format!("reported {report:?}")) }
    }

    fn salvage(self) -> Result<(), String> {
        let Some(commits) = self.salvaged() else { return Ok(()) };
        let (disk, config) = self.make();
        let target = Path::new("salvaged");
        salvage_with(builder(&disk, config.clone()), Some(target)).map_err(|e| e.to_string())?;
        let db = builder_at(&disk, target, config).open_existing().map_err(|e| e.to_string())?;
        holds(&db, commits)
    }

    /// A reader sees the same, or nothing, and changes nothing.
    fn read_only(self) -> Result<(), String> {
        let (disk, config) = self.make();
        let before = disk.fingerprint();
        let opened = builder(&disk, config).open_read_only();
        match (opened, self.verdicts()[0]) {
            (Err(error), _) if self == Self::Unborn && error.kind() == ErrorKind::NotFound => {}
            (Ok(db), Verdict::Open(commits)) if self != Self::Unborn => holds(&db, commits)?,
            (Err(_), Verdict::Refuse) => {}
            (Ok(_), _) => return Err("opened".into()),
            (Err(error), _) => return Err(error.to_string()),
        }
        match disk.fingerprint() == before {
            true => Ok(()),
            false => Err("it changed something".into()),
        }
    }

    /// A disk on which this is what is found, and how its database is opened.
    fn make(self) -> (SimDisk, DatabaseConfig) {
        let (strict, buffered) = (DurabilityMode::Strict, DurabilityMode::Buffered);
        let one_segment = DatabaseConfig::new(strict).manual_checkpoints();
        let (disk, config) = match self {
            Self::Clean => written(&one_segment, 0, true),
            Self::SnapshotFallback => written(&one_segment, 2, false),
            Self::SnapshotCorrupt => {
                let (disk, config) = written(&one_segment, 1, false);
                let db = builder(&disk, config.clone()).open().expect("it was only killed");
                // The log has no beginning any more that could stand in.
                db.compact(CompactMode::WalOnly).expect("there is a checkpoint");
                (disk.killed(), config)
            }
            Self::LostTail | Self::BadManifest => written(&one_segment, 0, true),
            Self::TornUnpromised | Self::Evidence => {
                written(&DatabaseConfig::new(buffered).manual_checkpoints(), 0, false)
            }
            Self::OldManifest => written(&one_segment.segment_bytes(SEGMENT_BYTES), 0, false),
            Self::Unborn => (SimDisk::new(), one_segment),
            _ => written(&one_segment, 0, false),
        };
        let wal = "db/WAL/wal-000001.seg";
        match self {
            Self::Clean | Self::Killed => {}
            Self::TornUnpromised => disk.tamper(wal, |bytes| bytes.truncate(used(bytes) - 1)),
            Self::Ambiguous => disk.tamper(wal, |bytes| {
                let at = used(bytes) - 20;
                bytes[at] ^= 1;
            }),
            Self::Evidence => {
                let moment = disk.moment();
                assert_eq!(moment.pending_len(), 5, "each commit is a write, and none is synced");
                let mut choices = vec![Choice::Keep; 5];
                choices[2] = Choice::Drop;
                return (moment.cut(&Plan(choices)), config);
            }
            // The third of five groups of a block each, behind a header of one.
            Self::Corrupt => disk.flip_bit(wal, 8 * (3 * BLOCK + 100)),
            Self::LostTail => disk.tamper(wal, |bytes| bytes.truncate(4 * BLOCK)),
            Self::Spare => disk.tamper("db/WAL/wal-000002.seg", |bytes| bytes.resize(BLOCK, 0)),
            Self::OldManifest => {
                let first = disk.bytes("first-manifest").expect("it was put aside");
                disk.tamper("db/MANIFEST", |bytes| *bytes = first);
            }
            Self::BadManifest => disk.flip_bit("db/MANIFEST", 300),
            Self::Unborn => disk.create_dir(Path::new("db")).expect("an empty disk"),
            Self::SnapshotFallback => ruin(&disk, "db/SNAPSHOTS/snap-000002.chk"),
            Self::SnapshotCorrupt => ruin(&disk, "db/SNAPSHOTS/snap-000001.chk"),
            Self::IoError => disk.inject(Fault::once(StepKind::Read, 0, EIO).sticky()),
        }
        (disk, config)
    }
}

/// The least that strict mode writes.
const BLOCK: usize = 4096;

/// A database with five commits, the first of which creates the run, and `checkpoints` after the
/// last ones; closed, or killed.
fn written(config: &DatabaseConfig, checkpoints: usize, close: bool) -> (SimDisk, DatabaseConfig) {
    let disk = SimDisk::new();
    let work = || -> steadfast_engine::Result<SimDisk> {
        let db = builder(&disk, config.clone()).open()?;
        for n in 0..5 {
            let op = Op::Put("r".into(), format!("k{n}"), n.into());
            db.transaction(|tx| op.apply(tx))?;
            if n == 0 {
                let first = disk.bytes("db/MANIFEST").expect("it was just created");
                disk.tamper("first-manifest", |bytes| *bytes = first);
            }
            if n + i64::try_from(checkpoints).expect("a few") >= 5 {
                db.checkpoint()?;
            }
        }
        if close {
            db.close()?;
        }
        // Before it is dropped, which closes it.
        Ok(disk.killed())
    };
    (work().expect("nothing goes wrong on this disk"), config.clone())
}

/// Its end names everything else: without it a snapshot cannot be opened.
fn ruin(disk: &SimDisk, path: &str) {
    disk.tamper(path, |bytes| {
        let at = bytes.len() - 10;
        bytes[at] ^= 1;
    });
}

fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)
}

/// It has exactly the first `commits` of [`written`].
fn holds(db: &Database, commits: usize) -> Result<(), String> {
    let found: Vec<_> = content_now(db).map_err(|error| error.to_string())?.into_keys().collect();
    let mut expected: Vec<_> =
        (0..commits).map(|n| Item::Kv("r".into(), format!("k{n}").into_bytes())).collect();
    if commits > 0 {
        expected.insert(0, Item::Run("r".into()));
    }
    match found == expected {
        true => Ok(()),
        false => Err(format!("not the first {commits} commits: {found:?}")),
    }
}
