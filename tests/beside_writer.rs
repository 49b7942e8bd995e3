//! A reader opens again and again beside a writer that commits, checkpoints and compacts all
//! the time, on real files: it sees a consistent prefix every time, and no damage (P5, P6, P12).
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use steadfast::{Database, DatabaseConfig, Error, Run, Value};

/// Keys that each commit writes, all with its number.
const KEYS: usize = 8;

fn number(db: &Database, run: Run, key: &str) -> Result<Option<i64>, Error> {
    Ok(db.kv_get(run, key)?.and_then(|found| found.value.as_int()))
}

/// Commit `n` writes `n` under every key, appends event `n`, and its parity as a key of its own
/// that the next one deletes again.
fn commit(db: &Database, run: Run, n: i64, padding: usize) -> Result<(), Error> {
    db.transaction(|tx| {
        for key in 0..KEYS {
            tx.kv_put(run, format!("k{key}"), n)?;
        }
        tx.kv_put(run, format!("only-{n}"), vec![7; padding])?;
        tx.kv_delete(run, format!("only-{}", n - 1))?;
        tx.event_append(run, "s", n).map(drop)
    })
    .map(drop)
}

/// What is there is what there was after one of the commits. Returns which.
fn check(db: &Database) -> Result<i64, Error> {
    let run = db.resolve_run("r")?;
    let view = db.view()?;
    let n = number(db, run, "k0")?.unwrap_or(0);
    for key in 0..KEYS {
        assert_eq!(number(db, run, &format!("k{key}"))?.unwrap_or(0), n, "a torn commit");
    }
    let mut expected = 1;
    for event in view.event_read(run, "s", 0)? {
        assert_eq!(event?.payload, Value::Int(expected), "a hole");
        expected += 1;
    }
    assert_eq!(expected - 1, n, "events and keys are of different commits");
    let mut only = Vec::new();
    for found in view.kv_scan(run, "only-")? {
        only.push(String::from_utf8(found?.0).unwrap());
    }
    let wanted = if n == 0 { Vec::new() } else { vec![format!("only-{n}")] };
    assert_eq!(only, wanted, "what was deleted is there again, or what is there is missing");
    Ok(n)
}

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

struct Tried {
    opened: u64,
    from_snapshot: u64,
    newest: i64,
}

/// Opens for reading until `done`.
fn read_along(path: &Path, acknowledged: &AtomicI64, done: &AtomicBool) -> Tried {
    let mut tried = Tried { opened: 0, from_snapshot: 0, newest: 0 };
    while !done.load(Ordering::Acquire) {
        let before = acknowledged.load(Ordering::Acquire);
        let db = Database::open_read_only(path)
            .unwrap_or_else(|error| panic!("after commit {before}: {} {error}", error.kind()));
        let n = check(&db).unwrap_or_else(|error| panic!("after commit {before}: {error}"));
        assert!(n >= before, "{before} was acknowledged before opening, {n} is there");
        assert!(n >= tried.newest, "{n} after {}", tried.newest);
        tried.newest = n;
        tried.opened += 1;
        tried.from_snapshot += u64::from(db.recovery_report().snapshot_version.0 > 0);
        if tried.opened.is_multiple_of(3) {
            // What it has open stays readable whatever the writer removes.
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(check(&db).unwrap_or_else(|error| panic!("later: {error}")), n);
        }
    }
    tried
}

fn run(config: DatabaseConfig, seconds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("db");
    let db = Database::create(&path, config.clone()).unwrap();
    let mut run = db.create_run("r").unwrap();
    let (acknowledged, done) = (AtomicI64::new(0), AtomicBool::new(false));
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut removed = false;
    std::thread::scope(|scope| {
        // Also if this thread panics: the readers are waited for.
        let _done = Done(&done);
        let reader = || scope.spawn(|| read_along(&path, &acknowledged, &done));
        let readers = [reader(), reader()];
        let mut db = db;
        let mut n = 0;
        while Instant::now() < until && !readers.iter().any(|reader| reader.is_finished()) {
            n += 1;
            commit(&db, run, n, 600).unwrap_or_else(|error| panic!("commit {n}: {error}"));
            acknowledged.store(n, Ordering::Release);
            if n % 150 == 0 {
                db.close().unwrap();
                db = Database::open_existing(&path, config.clone()).unwrap();
                run = db.resolve_run("r").unwrap();
            }
        }
        removed |= !path.join("WAL/wal-000001.seg").exists();
        done.store(true, Ordering::Release);
        db.close().unwrap();
        for reader in readers {
            let tried = reader.join().unwrap();
            println!(
                "{n} commits, {} openings beside them, {} on a snapshot",
                tried.opened, tried.from_snapshot
            );
            assert!(tried.opened > 5 && tried.from_snapshot > 0, "{}", tried.opened);
        }
    });
    assert!(removed, "compaction removed nothing");
    let db = Database::open_existing(&path, config).unwrap();
    let n = check(&db).unwrap();
    assert_eq!(n, acknowledged.into_inner());
    assert_eq!(db.verify().unwrap(), []);
}

#[test]
fn readers_see_a_prefix_while_checkpoints_and_compactions_run() {
    let config = DatabaseConfig::batched().segment_bytes(32 << 10).checkpoint_bytes(24 << 10);
    run(config, 5);
}

#[test]
fn readers_see_a_prefix_beside_a_strict_writer() {
    let config = DatabaseConfig::strict().segment_bytes(64 << 10).checkpoint_bytes(64 << 10);
    run(config, 4);
}
