//! A worker process is killed at random: acknowledged ⊆ recovered ⊆ acknowledged + under way.
#![allow(clippy::unwrap_used)]

use steadfast_engine::DurabilityMode;
use steadfast_testing::process_kill::{
    ProcessCrashConfig, ProcessCrashResults, ProcessCrashTester,
};
use steadfast_testing::seed::{effort, seed_or};

fn run(config: ProcessCrashConfig) -> ProcessCrashResults {
    let dir = tempfile::tempdir().unwrap();
    let worker = env!("CARGO_BIN_EXE_crash_test_worker");
    let tester = ProcessCrashTester::new(worker, dir.path().join("db"), config.clone());
    let results = tester.run().unwrap();
    println!("{:?}: {results}", config.mode);
    assert!(results.all_passed(), "{results}");
    assert_eq!(results.failure_rate(), 0.0);
    assert_eq!(results.iterations, config.iterations);
    results
}

#[test]
fn nothing_acknowledged_is_lost_by_kills() {
    let seed = seed_or(42);
    let mut kills = 0;
    for (mode, signal) in
        [(DurabilityMode::Strict, 9), (DurabilityMode::BATCHED, 6), (DurabilityMode::Buffered, 11)]
    {
        let results = run(ProcessCrashConfig {
            min_runtime_ms: 0,
            max_runtime_ms: 60,
            iterations: 34 * effort(),
            signal,
            mode,
            segment_bytes: Some(32 << 10),
            seed,
        });
        // How many depends on the disk; that strict ones come one sync at a time is the point.
        assert!(results.acknowledged() > 0, "the workers worked: {results}");
        kills += results.results.iter().filter(|result| result.kill_succeeded).count() as u64;
    }
    println!("{kills} processes killed");
    assert!(kills >= 100 * effort(), "{kills} kills");
}

/// As documented: 100 times, each up to a second.
#[test]
#[ignore = "takes a minute; the nightly job runs it"]
fn nothing_acknowledged_is_lost_by_a_hundred_kills() {
    let seed = seed_or(42);
    run(ProcessCrashConfig { seed, ..ProcessCrashConfig::default() });
}

/// A worker that lies is found out: what it says it committed is not there.
#[test]
#[cfg(unix)]
fn a_worker_that_acknowledges_what_it_did_not_do_is_found_out() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (liar, db) = (dir.path().join("liar"), dir.path().join("db"));
    let config = ProcessCrashConfig {
        min_runtime_ms: 50,
        max_runtime_ms: 50,
        iterations: 3,
        ..ProcessCrashConfig::default()
    };
    let truth = env!("CARGO_BIN_EXE_crash_test_worker");
    ProcessCrashTester::new(truth, &db, ProcessCrashConfig { iterations: 1, ..config.clone() })
        .run()
        .unwrap();
    // In one write: it may be killed as soon as its first line was read.
    #[allow(clippy::disallowed_methods)]
    std::fs::write(&liar, "#!/bin/sh\nprintf 'open 0\\nrun 1\\nacked 0 2\\n'\nexec sleep 60\n")
        .unwrap();
    std::fs::set_permissions(&liar, std::fs::Permissions::from_mode(0o755)).unwrap();
    let results = ProcessCrashTester::new(&liar, &db, config).run().unwrap();
    assert!(!results.all_passed(), "{results}");
    assert_eq!((results.iterations, results.failed_recoveries), (1, 1));
    assert_eq!(results.failure_rate(), 1.0);
}
