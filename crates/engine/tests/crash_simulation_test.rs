//! Real processes that really die: a child opens the database, comes to a point, and is killed
//! with SIGKILL there; the parent opens what is left.
//!
//! The child is this test binary again, told by an environment variable what to do.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use steadfast_engine::{
    Database, DatabaseConfig, DurabilityMode, ErrorKind, LogClass, Value, Version,
};
use tempfile::tempdir;

/// Where the child dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CrashPoint {
    AfterBeginTxn,
    AfterWrite,
    BeforeCommit,
    AfterCommit,
}

const POINTS: [CrashPoint; 4] = [
    CrashPoint::AfterBeginTxn,
    CrashPoint::AfterWrite,
    CrashPoint::BeforeCommit,
    CrashPoint::AfterCommit,
];

const CHILD: &str = "STEADFAST_CRASH_CHILD";

fn config(mode: &str) -> DatabaseConfig {
    let config = match mode {
        "strict" => DatabaseConfig::strict(),
        "batched" => DatabaseConfig::batched(),
        _ => DatabaseConfig::buffered(),
    };
    config.segment_bytes(32 << 10)
}

/// Runs in the child: says that it is there, and waits to be killed.
fn die_here(line: &str) -> ! {
    println!("at {line}");
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn child() {
    let Ok(job) = std::env::var(CHILD) else { return };
    let mut words = job.splitn(3, ' ');
    let (mode, point, path) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let db = Database::open_or_create(path, config(mode)).unwrap();
    let run = db.get_or_create_run("run").unwrap();
    if point == "flood" {
        // Each acknowledged commit is a line; the parent kills when it likes.
        for n in db.current_version().0.. {
            let receipt = db
                .transaction(|tx| {
                    tx.kv_put(run, "n", n as i64)?;
                    tx.kv_put(run, format!("k{n}"), n as i64)?;
                    tx.event_append(run, "s", n as i64)
                })
                .unwrap()
                .1;
            println!("acked {} {n}", receipt.version());
        }
    }
    db.kv_put(run, "before", 1).unwrap();
    let mut tx = db.begin().unwrap();
    if point == "AfterBeginTxn" {
        die_here(point);
    }
    tx.kv_put(run, "a", 1).unwrap();
    if point == "AfterWrite" {
        die_here(point);
    }
    tx.kv_put(run, "b", 2).unwrap();
    tx.event_append(run, "s", "e").unwrap();
    if point == "BeforeCommit" {
        die_here(point);
    }
    tx.commit().unwrap();
    die_here(point);
}

fn spawn(job: &str) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, job)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn spawn_and_crash(path: &Path, mode: &str, point: CrashPoint) {
    let mut child = spawn(&format!("{mode} {point:?} {}", path.display()));
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let at = lines.map(Result::unwrap).find(|line| line.contains("at "));
    assert_eq!(at.map(|line| line.contains(&format!("{point:?}"))), Some(true));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// After a kill at any point, in any mode: what was acknowledged is there, the transaction is
/// there whole or not at all, and nothing is refused.
fn check(mode: &str, point: CrashPoint) {
    let dir = tempdir().unwrap();
    let path = dir.path().join("db");
    for round in 0..2 {
        spawn_and_crash(&path, mode, point);
        let db = Database::open_existing(&path, config(mode)).unwrap();
        assert_eq!(db.recovery_report().log, LogClass::Killed, "{mode} {point:?} {round}");
        let run = db.resolve_run("run").unwrap();
        assert!(db.kv_get(run, "before").unwrap().is_some(), "it was acknowledged");
        let there = point == CrashPoint::AfterCommit;
        assert_eq!(db.kv_get(run, "a").unwrap().is_some(), there, "{mode} {point:?}");
        assert_eq!(db.kv_get(run, "b").unwrap().is_some(), there);
        let events = if there { round + 1 } else { 0 };
        assert_eq!(db.event_read(run, "s", 0).unwrap().count(), events);
        db.close().unwrap();
    }
}

#[test]
fn test_crash_after_begin_txn() {
    for mode in ["strict", "batched", "buffered"] {
        check(mode, CrashPoint::AfterBeginTxn);
    }
}

#[test]
fn test_incomplete_transaction_discarded() {
    for point in [CrashPoint::AfterWrite, CrashPoint::BeforeCommit] {
        for mode in ["strict", "batched", "buffered"] {
            check(mode, point);
        }
    }
}

#[test]
fn test_crash_after_commit_strict_mode() {
    check("strict", CrashPoint::AfterCommit);
}

/// The specification lets batched commits be lost by a kill; here they are not: they are with
/// the kernel before they are acknowledged. What a *power cut* may take is tested on the
/// simulated disk.
#[test]
fn test_batched_mode_may_lose_recent_writes() {
    check("batched", CrashPoint::AfterCommit);
    check("buffered", CrashPoint::AfterCommit);
}

#[test]
fn every_point_is_reached() {
    assert_eq!(POINTS.len(), 4);
    let dir = tempdir().unwrap();
    for (n, point) in POINTS.into_iter().enumerate() {
        spawn_and_crash(&dir.path().join(n.to_string()), "buffered", point);
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_kills_in_a_flood_of_commits() {
    let seed = std::env::var("STEADFAST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed}: run again with STEADFAST_SEED={seed}");
    let entropy = steadfast_engine::Entropy::seeded(seed);
    for mode in ["strict", "batched", "buffered"] {
        let dir = tempdir().unwrap();
        let path = dir.path().join("db");
        let mut newest = Version::ZERO;
        for round in 0..8 {
            let mut child = spawn(&format!("{mode} flood {}", path.display()));
            let stop_after = 1 + entropy.next_u64() % 400;
            let mut acked = None;
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut lines = lines.map_while(Result::ok);
            for _ in 0..stop_after {
                acked = lines.by_ref().find_map(parse_ack).or(acked);
            }
            child.kill().unwrap();
            // What was acknowledged before the kill reached it is still in the pipe.
            acked = lines.filter_map(parse_ack).last().or(acked);
            child.wait().unwrap();
            let (version, n) = acked.unwrap();

            let db = Database::open_existing(&path, config(mode)).unwrap();
            let run = db.resolve_run("run").unwrap();
            let context = format!("seed {seed} {mode} round {round}");
            assert!(db.current_version() >= version, "{context}: lost an acknowledged commit");
            let last = db.kv_get(run, "n").unwrap().unwrap();
            assert!(last.value.as_int().unwrap() >= n, "{context}");
            // All three writes of the last transaction are there, or none.
            let Value::Int(last_n) = last.value else { panic!("{context}") };
            let key = db.kv_get(run, format!("k{last_n}")).unwrap().unwrap();
            assert_eq!(key.version, last.version, "{context}: a torn transaction");
            let event = db.event_read(run, "s", 0).unwrap().next_back().unwrap().unwrap();
            assert_eq!(event.version, last.version, "{context}: a torn transaction");
            assert_eq!(event.payload, Value::Int(last_n));
            assert!(last.version > newest, "{context}: versions rise over kills");
            newest = last.version;
            // A kill leaves nothing that a later opening would have to judge differently.
            db.close().unwrap();
            let again = Database::open_existing(&path, config(mode)).unwrap();
            assert_eq!(again.recovery_report().log, LogClass::Clean);
        }
    }
}

fn parse_ack(line: String) -> Option<(Version, i64)> {
    // The test harness may have written its own words in front.
    let mut words = line.split("acked ").nth(1)?.split(' ');
    Some((Version(words.next()?.parse().ok()?), words.next()?.parse().ok()?))
}

#[test]
fn open_expecting_refuses_another_past() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Database::create(&path, DatabaseConfig::strict()).unwrap();
    let run = db.create_run("run").unwrap();
    let receipt = db.kv_put(run, "k", 1).unwrap();
    let (epoch, version) = (receipt.epoch().unwrap(), receipt.version());
    db.close().unwrap();
    let expecting =
        |epoch, version| Database::open_expecting(&path, DatabaseConfig::strict(), epoch, version);
    expecting(epoch, version).unwrap().close().unwrap();
    let mut other = epoch;
    other.random ^= 1;
    assert_eq!(expecting(other, version).unwrap_err().kind(), ErrorKind::Diverged);
    let error = expecting(epoch, Version(version.0 + 5)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    // Another life begins; of the first one it kept what there was.
    let db = Database::open_with_mode(&path, DurabilityMode::Strict).unwrap();
    db.kv_put(db.resolve_run("run").unwrap(), "k", 2).unwrap();
    db.close().unwrap();
    expecting(epoch, version).unwrap().close().unwrap();
    assert_eq!(expecting(epoch, Version(version.0 + 1)).unwrap_err().kind(), ErrorKind::Diverged);
}
