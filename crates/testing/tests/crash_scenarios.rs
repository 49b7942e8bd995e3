//! The scenarios of the crash harness's specification, by their names: with a child that dies by
//! its signal at the point, and with power cuts on a simulated disk.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use steadfast_engine::{CompactMode, DurabilityMode};
use steadfast_testing::death::CrashType;
use steadfast_testing::harness::{
    CrashConfig, CrashHarness, CrashTestError, CrashTestResult, ScenarioRunner,
};
use steadfast_testing::injector::CrashPoint;
use steadfast_testing::operation::Operation;
use steadfast_testing::scenarios::{Expected, expected};
use steadfast_testing::seed::seed_or;

const SEGMENT_BYTES: u64 = 16 << 10;

fn config(crash: CrashType) -> CrashConfig {
    CrashConfig {
        crash_types: vec![crash],
        worker: Some(env!("CARGO_BIN_EXE_crash_test_worker").into()),
        segment_bytes: Some(SEGMENT_BYTES),
        ..CrashConfig::default()
    }
}

/// Runs `scenario` until it crashes at `point`, in each way there is, and expects everything to
/// be as it must be. What else is expected of the row is in the scenario matrix.
fn run_crash_scenario(
    point: CrashPoint,
    mode: DurabilityMode,
    scenario: impl Fn(&mut ScenarioRunner) -> Result<(), CrashTestError>,
) -> Vec<CrashTestResult> {
    let seed = seed_or(42);
    let run = |crash| {
        let dir = tempfile::tempdir().unwrap();
        let config = CrashConfig { seed, mode, ..config(crash) };
        let mut harness = CrashHarness::new(dir.path().join("db"), config);
        let result = harness.run_scenario_and(
            |runner| {
                runner.kv_put("run", "before", "kept")?;
                runner.arm(point, 0)?;
                scenario(runner)
            },
            |image| match (expected(point, crash, mode), image.in_flight) {
                (Expected::Absent, true) => Err("it is there already".into()),
                (Expected::Present, false) => Err("it is not there".into()),
                _ => Ok(()),
            },
        );
        assert_eq!(result.crash_point, Some(point), "{result}");
        result.expect_good()
    };
    CrashType::ALL.into_iter().map(run).collect()
}

fn put_key(runner: &mut ScenarioRunner) -> Result<(), CrashTestError> {
    runner.kv_put("run", "key", "value")
}

#[test]
fn crash_during_wal_append_before_write() {
    for result in run_crash_scenario(CrashPoint::BeforeWalWrite, DurabilityMode::Strict, put_key) {
        assert_eq!(result.operations_completed, 1, "it was not acknowledged");
    }
}

#[test]
fn crash_during_wal_append_after_write_before_fsync() {
    run_crash_scenario(CrashPoint::AfterWalWriteBeforeFsync, DurabilityMode::Strict, put_key);
}

#[test]
fn crash_during_wal_append_after_fsync() {
    run_crash_scenario(CrashPoint::AfterFsync, DurabilityMode::Strict, put_key);
}

#[test]
fn crash_during_segment_rotation() {
    const PUTS: usize = 10_000;
    let seed = seed_or(42);
    for mode in [DurabilityMode::BATCHED, DurabilityMode::Buffered] {
        for crash in [CrashType::ProcessKill, CrashType::PowerLoss] {
            let dir = tempfile::tempdir().unwrap();
            let config = CrashConfig {
                max_operations: PUTS,
                seed,
                mode,
                segment_bytes: Some(64 << 10),
                ..config(crash)
            };
            let mut harness = CrashHarness::new(dir.path().join("db"), config);
            // The first rotation makes the first segment; this one is late in the scenario.
            harness.set_crash_point_after(CrashPoint::DuringSegmentRotation, 9);
            let result = harness.run_scenario(|runner| {
                for n in 0..PUTS {
                    runner.kv_put("run", &format!("key-{n}"), format!("value-{n}"))?;
                }
                Ok(())
            });
            assert_eq!(result.crash_point, Some(CrashPoint::DuringSegmentRotation), "{result}");
            assert!(result.operations_completed > 3000, "{result}");
            result.expect_good();
        }
    }
}

#[test]
fn crash_during_snapshot_before_rename() {
    run_crash_scenario(CrashPoint::DuringSnapshotBeforeRename, DurabilityMode::Strict, |runner| {
        put_key(runner)?;
        runner.checkpoint()
    });
}

#[test]
fn crash_during_snapshot_after_rename() {
    run_crash_scenario(CrashPoint::DuringSnapshotAfterRename, DurabilityMode::Strict, |runner| {
        put_key(runner)?;
        runner.checkpoint()
    });
}

#[test]
fn crash_during_manifest_update() {
    run_crash_scenario(CrashPoint::DuringManifestUpdate, DurabilityMode::Strict, |runner| {
        put_key(runner)?;
        runner.checkpoint()
    });
}

#[test]
fn crash_during_compaction() {
    run_crash_scenario(CrashPoint::DuringCompaction, DurabilityMode::BATCHED, |runner| {
        for n in 0..100 {
            runner.kv_put("run", &format!("key-{n}"), [7; 500])?;
        }
        runner.checkpoint()?;
        runner.compact(CompactMode::WalOnly)
    });
}

#[test]
fn multiple_consecutive_crashes() {
    let seed = seed_or(42);
    for crash in CrashType::ALL {
        let dir = tempfile::tempdir().unwrap();
        let config = CrashConfig { seed, ..config(crash) };
        let mut harness = CrashHarness::new(dir.path().join("db"), config);
        for (round, point) in [
            CrashPoint::AfterFsync,
            CrashPoint::DuringSnapshotAfterRename,
            CrashPoint::AfterWalWriteBeforeFsync,
        ]
        .into_iter()
        .enumerate()
        {
            harness.set_crash_point_after(point, 0);
            let result = harness.run_scenario(|runner| {
                for n in 0..5 {
                    runner.kv_put("run", &format!("key-{round}-{n}"), "value")?;
                }
                runner.checkpoint()
            });
            assert_eq!(result.crash_point, Some(point), "round {round}: {result}");
            result.expect_good();
        }
        let there = harness.model().committed_ops().len();
        assert!((6..=8).contains(&there), "{there}: of each round what was done");
        // Without a crash point it runs to its end, and is crashed there.
        harness.clear_crash_point();
        let result = harness.run_scenario(|runner| runner.kv_put("run", "last", "value"));
        assert_eq!(result.crash_point, None);
        result.expect_good();
    }
}

/// 1 to 99 operations, and somewhere in them, or behind them, a crash at a point at random.
fn random_sequence(crash: CrashType, worker: bool, mode: DurabilityMode, seed: u64) -> usize {
    let mut rng = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut config = CrashConfig { seed, mode, random_images: 2, ..config(crash) };
    if !worker {
        config.worker = None;
    }
    let mut harness = CrashHarness::new(dir.path().join("db"), config);
    let mut images = 0;
    for _ in 0..2 {
        let (count, crash_at) = (rng.usize(1..100), rng.usize(..100));
        let result = harness.run_scenario(|runner| {
            for n in 0..count {
                if n == crash_at {
                    let point = CrashPoint::ALL[rng.usize(..CrashPoint::ALL.len())];
                    runner.arm(point, rng.u64(..3))?;
                }
                let key = format!("key-{}", rng.u32(..20));
                runner.run(match rng.u32(..16) {
                    0..5 => Operation::kv_put("run", &key, vec![7; rng.usize(..400)]),
                    5..7 => Operation::kv_delete("run", &key),
                    7 => Operation::event_append("run", "stream", &key),
                    8 => Operation::state_set("run", &key, "state"),
                    9..11 => {
                        let at = rng.u64(..1 << 40);
                        Operation::signal_record("run", "view", &key, rng.u32(..9), at)
                    }
                    11 => Operation::collection_add("run", "set", &key),
                    12 => Operation::level("run", &key, rng.u32(..9)),
                    13 => Operation::cohort("run", "high", 4),
                    14 => Operation::engage("run", "graph", "actor", &key, rng.u64(..1 << 40)),
                    _ => Operation::Checkpoint,
                })?;
            }
            Ok(())
        });
        images += result.expect_good().recovery_result.map_or(0, |found| found.images);
    }
    images
}

#[test]
fn random_operation_sequence_with_crashes() {
    let seed = seed_or(42);
    let batched = DurabilityMode::Batched { interval: Duration::from_secs(60), commits: 10 };
    let modes = [DurabilityMode::Strict, batched, DurabilityMode::Buffered];
    let mut images = 0;
    for (seed, n) in (seed..).zip(0..12) {
        let mode = modes[n % 3];
        images += random_sequence(CrashType::PowerLoss, false, mode, seed);
        if n < 4 {
            // Real files: strict ones wait for a real disk at every commit.
            images += random_sequence(CrashType::ProcessKill, false, mode, seed + 1000);
            let crash = CrashType::ALL[n % 3];
            images += random_sequence(crash, true, modes[1 + n % 2], seed + 2000);
        }
    }
    println!("{images} images");
}

/// What [`ScenarioRunner::execute`] does with its point, and limits.
#[test]
fn a_scenario_crashes_with_the_probability_it_was_given_and_keeps_its_limits() {
    let seed = seed_or(42);
    let crashes = |probability, operations| {
        let config = CrashConfig {
            crash_probability: probability,
            crash_types: vec![CrashType::ProcessKill, CrashType::PowerLoss],
            seed,
            ..CrashConfig::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let mut harness = CrashHarness::new(dir.path().join("db"), config);
        harness.run_scenario(|runner| {
            for n in 0..operations {
                let put = Operation::kv_put("run", &format!("key-{n}"), "value");
                runner.execute(CrashPoint::BeforeCommit, put)?;
            }
            Ok(())
        })
    };
    assert_eq!(crashes(0.0, 50).expect_good().operations_completed, 50);
    assert_eq!(crashes(1.0, 50).expect_good().operations_completed, 0);
    let some = crashes(0.1, 500).expect_good();
    assert!(some.crash_point.is_some() && some.operations_completed < 500, "{some}");
    let result = crashes(0.0, 1001);
    assert!(!result.scenario_succeeded && result.recovery_succeeded, "{result}");
    assert!(matches!(result.scenario_error, Some(CrashTestError::Limit("operations"))));
    assert!(result.replay.contains(&format!("STEADFAST_SEED={seed}")), "{}", result.replay);
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = CrashConfig::default();
    assert_eq!(config.crash_probability, 0.1);
    assert_eq!(config.crash_types, [CrashType::ProcessKill, CrashType::ProcessAbort]);
    assert_eq!(config.max_operations, 1000);
    assert_eq!(config.timeout, Duration::from_secs(30));
    assert_eq!(config.seed, 42);
    let config = steadfast_testing::process_kill::ProcessCrashConfig::default();
    assert_eq!((config.min_runtime_ms, config.max_runtime_ms, config.iterations), (10, 1000, 100));
    assert_eq!(config.signal, 9);
}
