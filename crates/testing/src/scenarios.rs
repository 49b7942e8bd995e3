//! The scenario matrix: every crash point × every crash × every durability mode, with what must
//! be found afterwards; and every row of the recovery table, with its verdict under each policy.
//!
//! | point | the process ends | power cut, strict | power cut, batched and buffered |
//! |---|---|---|---|
//! | `AfterBeginTxn`, `AfterWrite`, `BeforeCommit`, `BeforeWalWrite`, `WalPreAggregate`, `CohortLedgerUpdate`, `CollectionIndexUpdate`, `CoEngagementUpdate` | absent | absent | absent |
//! | `AfterWalWriteBeforeFsync` | present: the kernel has it | maybe | maybe |
//! | `AfterFsync` | present | present | present |
//! | `AfterCommit`, `WalPostAggregate`, `SignalAggregationUpdate` | present | present | maybe |
//! | `DuringSegmentRotation` | all committed | all committed | all committed |
//! | `CheckpointPreFlush` | data without new snapshot | data without new snapshot | a prefix of the data without new snapshot |
//! | `DuringSnapshotBeforeRename` | data without new snapshot | same | same |
//! | `DuringSnapshotAfterRename` | data and snapshot | same | same |
//! | `CheckpointPostFlush` | data and snapshot, in use | same | same |
//! | `DuringManifestUpdate` | old or new MANIFEST | same | same |
//! | `DuringCompaction` | all data | all data | all data |
//!
//! *Absent*, *maybe* and *present* are about the operation that was under way. In every row, what
//! was acknowledged is there as far as its mode promises, nothing else is, and where *maybe* is
//! about a power cut both outcomes must have been seen.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use steadfast_engine::{CompactMode, DurabilityMode, SnapshotClass};

use crate::death::CrashType;
use crate::harness::ScenarioRunner;
use crate::harness::{CrashConfig, CrashHarness, CrashTestError, CrashTestResult, Image};
use crate::injector::CrashPoint;
use crate::operation::Operation;

mod recovery_table;

pub use recovery_table::{RecoveryRow, Verdict};

/// What must be found after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expected {
    /// The operation that was under way is not there.
    Absent,
    /// It is there whole, or not at all.
    Maybe,
    /// It is there.
    Present,
    /// Everything that was acknowledged is there, and the operation that met the rotation is not.
    AllCommitted,
    /// The data are there; the database stands on the snapshot before.
    DataWithoutNewSnapshot,
    /// The data are there and the file of the new snapshot is whole, though not in use yet.
    DataAndSnapshot,
    /// The data are there and the database stands on the new snapshot.
    DataAndSnapshotInUse,
    /// The data are there, and the MANIFEST is the old one or the new one.
    OldOrNewManifest,
    /// Everything is there that was before the compaction.
    AllData,
}

/// One row of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scenario {
    /// Where it crashes.
    pub point: CrashPoint,
    /// What the crash is.
    pub crash: CrashType,
    /// What the database promises.
    pub mode: DurabilityMode,
    /// What must be found.
    pub expected: Expected,
}

/// The modes of the matrix. The window is so wide that only what a scenario asks for is durable.
pub const MODES: [DurabilityMode; 3] = [
    DurabilityMode::Strict,
    DurabilityMode::Batched { interval: Duration::from_secs(3600), commits: 1000 },
    DurabilityMode::Buffered,
];

/// Every row.
pub fn matrix() -> Vec<Scenario> {
    let mut rows = Vec::new();
    for point in CrashPoint::ALL {
        for crash in CrashType::ALL {
            for mode in MODES {
                let expected = expected(*point, crash, mode);
                rows.push(Scenario { point: *point, crash, mode, expected });
            }
        }
    }
    rows
}

/// What must be found after `crash` at `point` in `mode`.
///
/// # Panics
///
/// For a point of a later release.
pub fn expected(point: CrashPoint, crash: CrashType, mode: DurabilityMode) -> Expected {
    let power = crash == CrashType::PowerLoss;
    let strict = mode == DurabilityMode::Strict;
    match point {
        CrashPoint::AfterBeginTxn
        | CrashPoint::AfterWrite
        | CrashPoint::BeforeCommit
        | CrashPoint::BeforeWalWrite => Expected::Absent,
        CrashPoint::AfterWalWriteBeforeFsync if power => Expected::Maybe,
        CrashPoint::AfterWalWriteBeforeFsync => Expected::Present,
        CrashPoint::AfterFsync => Expected::Present,
        CrashPoint::WalPreAggregate
        | CrashPoint::CohortLedgerUpdate
        | CrashPoint::CollectionIndexUpdate
        | CrashPoint::CoEngagementUpdate => Expected::Absent,
        CrashPoint::WalPostAggregate | CrashPoint::SignalAggregationUpdate if power && !strict => {
            Expected::Maybe
        }
        CrashPoint::WalPostAggregate | CrashPoint::SignalAggregationUpdate => Expected::Present,
        CrashPoint::AfterCommit if power && !strict => Expected::Maybe,
        CrashPoint::AfterCommit => Expected::Present,
        CrashPoint::DuringSegmentRotation => Expected::AllCommitted,
        CrashPoint::CheckpointPreFlush | CrashPoint::DuringSnapshotBeforeRename => {
            Expected::DataWithoutNewSnapshot
        }
        CrashPoint::DuringSnapshotAfterRename => Expected::DataAndSnapshot,
        CrashPoint::CheckpointPostFlush => Expected::DataAndSnapshotInUse,
        CrashPoint::DuringManifestUpdate => Expected::OldOrNewManifest,
        CrashPoint::DuringCompaction => Expected::AllData,
        point => unreachable!("{point} has no row"),
    }
}

/// Small, so that a scenario comes to its end.
const SEGMENT_BYTES: u64 = crate::workload::SEGMENT_BYTES;

const RUN: &str = "run";
/// What is under way when it crashes.
const TARGET: &str = "target";
const GRAPH: &str = "graph";
/// Several sectors long, so that a torn or garbled write is one of its value.
const VALUE: [u8; 3000] = [b'v'; 3000];

impl std::fmt::Display for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { point, crash, mode, expected } = self;
        write!(f, "{crash:?} at {point}, {mode:?}: {expected:?}")
    }
}

impl Scenario {
    /// Runs the row: in a child of `worker` where the process is to end, if there is one, with a
    /// database inside `dir`; on a simulated disk for a power cut. `Err` says what was not as it must
    /// be.
    pub fn run(
        &self,
        dir: &Path,
        worker: Option<PathBuf>,
        seed: u64,
    ) -> Result<CrashTestResult, String> {
        if self.point == CrashPoint::DuringCompaction {
            // At its end too: what was removed then must not be missed.
            let ended = self.run_once(&dir.join("ended"), worker.clone(), seed, u64::MAX)?;
            if let Some(point) = ended.crash_point {
                return Err(format!("{self}: crashed at {point}, and should not have"));
            }
        }
        let result = self.run_once(&dir.join("crashed"), worker, seed, 0)?;
        if result.crash_point != Some(self.point) {
            return Err(format!("{self}: the point was not reached: {result}"));
        }
        Ok(result)
    }

    /// Crashes where the point is reached after `after` other crossings, or else at the end.
    fn run_once(
        &self,
        dir: &Path,
        worker: Option<PathBuf>,
        seed: u64,
        after: u64,
    ) -> Result<CrashTestResult, String> {
        let config = CrashConfig {
            crash_types: vec![self.crash],
            mode: self.mode,
            segment_bytes: Some(SEGMENT_BYTES),
            worker,
            seed,
            ..CrashConfig::default()
        };
        let mut harness = CrashHarness::new(dir, config);
        let mut old_manifest = Vec::new();
        let mut seen = Seen::default();
        let result = harness.run_scenario_and(
            |runner| self.scenario(runner, after, &mut old_manifest),
            |image| self.look(image, &mut seen),
        );
        if !result.is_good() {
            return Err(format!("{self}: {result}"));
        }
        self.judge(&seen, &old_manifest).map_err(|why| format!("{self}: {why}: {result}"))?;
        Ok(result)
    }

    fn scenario(
        &self,
        runner: &mut ScenarioRunner,
        after: u64,
        old_manifest: &mut Vec<u8>,
    ) -> Result<(), CrashTestError> {
        // The keys of the first three commits: overwritten, deleted, kept.
        for key in ["a", "b", "c"] {
            runner.kv_put(RUN, key, format!("first {key}"))?;
        }
        runner.event_append(RUN, "stream", "event")?;
        runner.checkpoint()?;
        runner.kv_put(RUN, "a", "second")?;
        runner.kv_delete(RUN, "b")?;
        runner.state_set(RUN, "cell", "state")?;
        if self.point == CrashPoint::DuringCompaction {
            // Several segments, of which a checkpoint makes all but the last superfluous.
            for n in 0..30 {
                runner.kv_put(RUN, &format!("filler-{n}"), [7; 1500])?;
            }
            runner.checkpoint()?;
        }
        runner.run(Operation::cohort(RUN, "high", 5))?;
        runner.run(Operation::level(RUN, "member", 5))?;
        runner.run(Operation::engage(RUN, GRAPH, "actor", "before", 5))?;
        *old_manifest = runner.manifest();
        if self.point == CrashPoint::AfterFsync && self.mode != DurabilityMode::Strict {
            // This asks for a sync, where a thread in the background has not synced already.
            runner.arm(self.point, after)?;
            runner.kv_put(RUN, TARGET, VALUE)?;
            return runner.flush();
        }
        runner.arm(self.point, after)?;
        match self.point {
            CrashPoint::CheckpointPreFlush
            | CrashPoint::CheckpointPostFlush
            | CrashPoint::DuringSnapshotBeforeRename
            | CrashPoint::DuringSnapshotAfterRename
            | CrashPoint::DuringManifestUpdate => runner.checkpoint(),
            CrashPoint::DuringCompaction => runner.compact(CompactMode::WalOnly),
            CrashPoint::DuringSegmentRotation => {
                (0..100).try_for_each(|n| runner.kv_put(RUN, &format!("{TARGET}-{n}"), [7; 1500]))
            }
            CrashPoint::WalPreAggregate
            | CrashPoint::WalPostAggregate
            | CrashPoint::SignalAggregationUpdate => runner.signal_record(RUN, TARGET, "e", 1, 5),
            CrashPoint::CohortLedgerUpdate => runner.signal_record(RUN, TARGET, "member", 1, 5),
            CrashPoint::CollectionIndexUpdate => {
                runner.run(Operation::collection_add(RUN, TARGET, "item"))
            }
            CrashPoint::CoEngagementUpdate => {
                runner.run(Operation::engage(RUN, GRAPH, "actor", TARGET, 6))
            }
            _ => runner.run(Operation::kv_put(RUN, TARGET, VALUE)),
        }
    }

    fn look(&self, image: &Image<'_>, seen: &mut Seen) -> Result<(), String> {
        let fail = |error: steadfast_engine::Error| error.to_string();
        let report = image.db.recovery_report();
        let newest = image.db.stats().map_err(fail)?.snapshot.map_or(0, |newest| newest.0);
        let run = image.db.resolve_run(RUN).map_err(fail)?;
        let key = image.db.kv_get(run, TARGET).map_err(fail)?.is_some();
        let found = [
            image.db.signal(run, TARGET, "e").map_err(fail)?.is_some(),
            image.db.signal(run, TARGET, "member").map_err(fail)?.is_some(),
            image.db.cohort_signal(run, "high", TARGET).map_err(fail)?.is_some(),
            image.db.collection_contains(run, TARGET, "item").map_err(fail)?,
            !image.db.co_engaged(run, GRAPH, TARGET, 1).map_err(fail)?.is_empty(),
        ];
        seen.target.insert(key || found.contains(&true));
        seen.in_flight.insert(image.in_flight);
        seen.manifests.insert(image.manifest.clone());
        seen.lost |= image.kept < image.model.committed_ops().len();
        if !matches!(report.snapshots, SnapshotClass::Sound) {
            return Err(format!("snapshots: {}", report.snapshots));
        }
        let right = match self.expected {
            Expected::DataWithoutNewSnapshot => newest == 1,
            Expected::DataAndSnapshot => newest == 1 && image.snapshots == [1, 2],
            Expected::DataAndSnapshotInUse => newest == 2 && image.snapshots.contains(&2),
            Expected::OldOrNewManifest => newest == 1 || newest == 2,
            Expected::AllData => newest == 2,
            _ => newest == 1,
        };
        if !right {
            return Err(format!("it stands on snapshot {newest}; whole are {:?}", image.snapshots));
        }
        Ok(())
    }

    /// What all outcomes together must be.
    fn judge(&self, seen: &Seen, old_manifest: &[u8]) -> Result<(), String> {
        let only = |what: bool| seen.target == BTreeSet::from([what]);
        let power = self.crash == CrashType::PowerLoss;
        let right = match self.expected {
            Expected::Absent => only(false) && seen.in_flight == BTreeSet::from([false]),
            Expected::Maybe => seen.target.len() == 2,
            Expected::Present => only(true),
            Expected::AllCommitted => !seen.lost && seen.in_flight == BTreeSet::from([false]),
            // Here the log was not synced yet.
            Expected::DataWithoutNewSnapshot if self.point == CrashPoint::CheckpointPreFlush => {
                !seen.lost || (power && self.mode != DurabilityMode::Strict)
            }
            Expected::DataWithoutNewSnapshot
            | Expected::DataAndSnapshot
            | Expected::DataAndSnapshotInUse
            | Expected::AllData => !seen.lost,
            Expected::OldOrNewManifest => {
                let old = seen.manifests.contains(old_manifest);
                // Of a process that ends the kernel keeps the new name; a power cut shows both.
                !seen.lost && seen.manifests.len() == if power { 2 } else { 1 } && old == power
            }
        };
        match right {
            true => Ok(()),
            false => Err(format!("over all outcomes: {seen:?}")),
        }
    }
}

/// What the outcomes of a crash were.
#[derive(Default)]
struct Seen {
    /// Whether the target was there.
    target: BTreeSet<bool>,
    /// Whether what was under way was there.
    in_flight: BTreeSet<bool>,
    manifests: BTreeSet<Vec<u8>>,
    /// Something acknowledged was not there.
    lost: bool,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen")
            .field("target", &self.target)
            .field("in_flight", &self.in_flight)
            .field("manifests", &self.manifests.len())
            .field("lost", &self.lost)
            .finish()
    }
}
