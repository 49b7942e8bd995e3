//! The specification's ceilings. They are generous, from another age; how fast it really is,
//! the benches say.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use steadfast_engine::{Database, DatabaseConfig, Run};
use tempfile::tempdir;

/// Writes with `write`, leaves the database as a crash would, and returns how long opening
/// it takes.
fn recovery_time(path: &Path, write: impl Fn(&Database, Run)) -> (Database, Duration) {
    // Without threads nothing changes in the directory while it is copied.
    let config = DatabaseConfig::buffered();
    let db = Database::builder(path).config(config).without_threads().create().unwrap();
    let run = db.create_run("run").unwrap();
    write(&db, run);
    let copy = path.with_extension("killed");
    copy_as_a_kill_leaves_it(path, &copy);
    db.close().unwrap();
    let start = Instant::now();
    let db = Database::open_existing(&copy, DatabaseConfig::buffered()).unwrap();
    (db, start.elapsed())
}

fn copy_as_a_kill_leaves_it(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_as_a_kill_leaves_it(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Peak memory of this process in bytes, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

#[test]
fn test_10k_transactions_in_5_seconds() {
    let dir = tempdir().unwrap();
    let (db, time) = recovery_time(&dir.path().join("db"), |db, run| {
        for n in 0..10_000i64 {
            db.kv_put(run, format!("key-{n}"), n).unwrap();
        }
    });
    assert_eq!(db.recovery_report().stats.txns_applied, 10_001);
    assert!(time < Duration::from_secs(5), "{time:?}");
    let rate = 10_000.0 / time.as_secs_f64();
    assert!(rate > 2_000.0, "{rate} transactions a second");
    let store = db.stats().unwrap().store;
    assert!(store.heap_bytes < 100 << 20, "memory over the data: {store:?}");
    if let Some(peak) = peak_memory() {
        assert!(peak < 500 << 20, "all tests of this file together: {peak}");
    }
}

#[test]
fn test_large_values_performance() {
    let dir = tempdir().unwrap();
    let (db, time) = recovery_time(&dir.path().join("db"), |db, run| {
        for n in 0..1000 {
            db.kv_put(run, format!("key-{n}"), vec![7; 10_000]).unwrap();
        }
    });
    assert_eq!(db.recovery_report().stats.writes_applied, 1001);
    assert!(time < Duration::from_secs(3), "{time:?}");
}

#[test]
fn test_mixed_workload_performance() {
    let dir = tempdir().unwrap();
    let (db, time) = recovery_time(&dir.path().join("db"), |db, run| {
        for n in 0..5000i64 {
            db.transaction(|tx| {
                for part in 0..3 {
                    tx.kv_put(run, format!("key-{n}-{part}"), n)?;
                }
                tx.kv_delete(run, format!("key-{}-0", n - 1))
            })
            .unwrap();
        }
    });
    let stats = db.recovery_report().stats;
    assert_eq!((stats.writes_applied, stats.deletes_applied), (15_001, 5000));
    let run = db.resolve_run("run").unwrap();
    assert_eq!(db.kv_scan(run, "").unwrap().count(), 10_001);
    assert!(time < Duration::from_secs(5), "{time:?}");
}

#[test]
fn test_wal_file_size_reasonable() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Database::create(&path, DatabaseConfig::strict()).unwrap();
    let run = db.create_run("run").unwrap();
    let mut pending = Vec::new();
    for n in 0..10_000i64 {
        let mut tx = db.begin().unwrap();
        tx.kv_put(run, format!("key-{n}"), n).unwrap();
        pending.extend(tx.submit().unwrap());
        if n % 10 == 9 {
            pending.drain(..).for_each(|pending| drop(pending.wait().unwrap()));
        }
    }
    db.close().unwrap();
    let bytes = Database::open(&path).unwrap().stats().unwrap().disk.total();
    assert!(bytes < 100 << 20, "{bytes} bytes of log for 10,000 transactions");
}

/// Takes some seconds and measures rather than checks: `cargo test -p steadfast-engine
/// --release -- --ignored --nocapture` runs it, and so does the nightly workflow.
#[test]
#[ignore = "a measurement; the nightly workflow runs it"]
fn bench_recovery_100k_transactions() {
    let dir = tempdir().unwrap();
    let (db, time) = recovery_time(&dir.path().join("db"), |db, run| {
        for n in 0..100_000i64 {
            db.kv_put(run, format!("key-{n}"), n).unwrap();
        }
    });
    assert_eq!(db.recovery_report().stats.txns_applied, 100_001);
    println!("100,000 transactions recovered in {time:?}");
}
