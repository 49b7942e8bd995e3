//! Databases written by every released format still open; and what is written today is, to
//! the byte, what lies here, so that no format changes unnoticed.
//!
//! `STEADFAST_WRITE_GOLDEN=1 cargo test --test formats` writes the files anew. Before the
//! first release a format may change together with its files; after it, a change needs a new
//! format number and a new folder.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use steadfast::{
    AppendOptions, CompactMode, Compression, Database, DatabaseConfig, Decay, Entropy, LogClass,
    ManualClock, Observation, Retention, Run, SchemaBuilder, Timestamp, Value, Window,
};

const RELEASE: &str = "0.1.0";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(RELEASE).join(name)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every file below `root`, by its path.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else if entry.file_name() != "LOCK" {
                let name = entry.path().strip_prefix(root).unwrap().to_owned();
                found.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

/// Writes the same bytes every time: its clock stands still, its random bits have a seed, it
/// starts no threads.
fn write(path: &Path, config: DatabaseConfig) -> Database {
    let config = config.segment_bytes(16 << 10).retention(Retention::KeepAll);
    let db = Database::builder(path)
        .config(config)
        .clock(ManualClock::at(Timestamp::from_micros(NOW_US)))
        .entropy(Entropy::seeded(1))
        .without_threads()
        .create()
        .unwrap();
    let linear = Decay::Linear { lifetime: Duration::from_secs(6400) };
    let schema = SchemaBuilder::signal("linear").decay(linear).windows([Window::Minutes(5)]);
    db.define_signals(schema.and_signal("permanent").decay(Decay::Permanent)).unwrap();
    let run = db.create_run("golden").unwrap();
    observe(&db, run, 1.0);
    db.transaction(|tx| {
        let other = tx.create_run("zweiter Lauf")?;
        tx.kv_put(other, b"\0\xff".as_slice(), Value::Null)?;
        tx.kv_put(run, "kinds", kinds())?;
        tx.state_init(run, "cell", true)?;
        let options = AppendOptions {
            idempotency_key: Some("once".into()),
            kind: Some("made".into()),
            time: Some(Timestamp::from_micros(5)),
            ..AppendOptions::default()
        };
        tx.event_append_with(run, "stream", "payload", &options).map(drop)
    })
    .unwrap();
    db.kv_put(run, "kinds", 2).unwrap();
    db.kv_put_expiring(run, "later", 1, Timestamp::from_micros(1_900_000_000_000_000)).unwrap();
    db.kv_delete(run, "later").unwrap();
    // Larger than a segment, so it is streamed.
    db.kv_put(run, "large", vec![7; 30_000]).unwrap();
    db
}

const NOW_US: u64 = 1_790_000_000_000_000;

/// Of each signal one observation that is on time, one that is late, one that is older than its
/// windows, and one that is ahead of the clock.
fn observe(db: &Database, run: Run, weight: f64) {
    let times = [NOW_US, NOW_US - 100_000_000, NOW_US - 200_000_000_000, NOW_US + 60_000_000];
    db.transaction(|tx| {
        for name in ["linear", "never defined", "permanent"] {
            for at in times {
                tx.signal_record_at(run, name, "e", weight, Timestamp::from_micros(at))?;
            }
        }
        Ok(())
    })
    .unwrap();
}

/// What is left of `observe` with the weight 1 and then 0.3.
fn check_signals(db: &Database, run: Run) {
    let week_us = 7.0 * 24.0 * 3600.0 * 1e6;
    let half = |us: f64| (-us / week_us).exp2();
    // The 64th part of the lifetime in which an observation lies began that long before.
    let linear = |us: u64| 1.0 - (us + (NOW_US - us) % 100_000_000) as f64 / 6.4e9;
    let scores = [
        ("linear", linear(0) + linear(100_000_000)),
        ("never defined", 1.0 + half(1e8) + half(2e11)),
        ("permanent", 3.0),
    ];
    for (name, score) in scores {
        let signal = db.signal(run, name, "e").unwrap().unwrap();
        assert_eq!((signal.count, signal.newest.as_micros()), (6, NOW_US), "{name}");
        // The clock stands at 20 s past the minute.
        assert_eq!(signal.minutes, [2, 0, 2], "{name}");
        let held = |weight| Observation { weight, at: Timestamp::from_micros(NOW_US + 60_000_000) };
        assert_eq!(signal.ahead, [held(1.0), held(0.3)], "{name}");
        let found = db.signal_score_at(run, name, "e", signal.newest).unwrap();
        assert!((found - 1.3 * score).abs() < 1e-9, "{name}: {found}, due {}", 1.3 * score);
    }
    let definition = db.signal_definition("linear").unwrap();
    assert_eq!((definition.version, definition.minutes, definition.hours), (1, 5, 0));
    assert_eq!(db.view().unwrap().signal_definitions().unwrap().len(), 2);
}

fn kinds() -> Value {
    let map = [("a".to_owned(), Value::Int(-1)), ("b".to_owned(), Value::Float(0.5))];
    Value::List(vec![
        Value::Null,
        Value::Bool(true),
        Value::String("text".into()),
        Value::Bytes(vec![0, 255]),
        Value::Map(map.into()),
    ])
}

fn check(path: &Path, log: LogClass) {
    let db = Database::open_existing(path, DatabaseConfig::buffered()).unwrap();
    assert_eq!(db.recovery_report().log, log);
    let run = db.resolve_run("golden").unwrap();
    let other = db.resolve_run("zweiter Lauf").unwrap();
    assert_eq!(db.kv_get(other, b"\0\xff".as_slice()).unwrap().unwrap().value, Value::Null);
    let history = db.kv_history(run, "kinds").unwrap();
    let values: Vec<_> = history.into_iter().map(|(_, value)| value.unwrap().value).collect();
    assert_eq!(values, [Value::Int(2), kinds()]);
    assert!(db.kv_get(run, "later").unwrap().is_none());
    let large = db.kv_get(run, "large").unwrap().unwrap().value;
    assert_eq!(large.as_bytes(), Some(&[7; 30_000][..]));
    assert_eq!(db.state_read(run, "cell").unwrap().unwrap().value, Value::Bool(true));
    let event = db.event_read(run, "stream", 0).unwrap().next().unwrap().unwrap();
    assert_eq!((event.payload, event.kind.as_deref()), ("payload".into(), Some("made")));
    assert_eq!(event.idempotency_key.as_deref(), Some("once"));
    check_signals(&db, run);
    db.close().unwrap();
}

/// Holds what is written today against what lies here, and opens a copy of that.
fn compare(name: &str, fresh: &Path, log: LogClass) {
    let written = files(fresh);
    if std::env::var_os("STEADFAST_WRITE_GOLDEN").is_some() {
        let _ = std::fs::remove_dir_all(golden(name));
        copy(fresh, &golden(name));
    }
    let kept = files(&golden(name));
    assert_eq!(written.keys().collect::<Vec<_>>(), kept.keys().collect::<Vec<_>>(), "{name}");
    for (file, bytes) in &kept {
        assert!(written[file] == *bytes, "{name}: {} is written otherwise now", file.display());
    }
    let dir = tempfile::tempdir().unwrap();
    let opened = dir.path().join(name);
    copy(&golden(name), &opened);
    check(&opened, log);
}

#[test]
fn golden_databases_open_and_are_what_is_written_today() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("strict-closed", DatabaseConfig::strict(), LogClass::Clean),
        ("buffered-closed", DatabaseConfig::buffered(), LogClass::Clean),
        ("buffered-killed", DatabaseConfig::buffered(), LogClass::Killed),
    ];
    for (name, config, log) in cases {
        let fresh = dir.path().join(name);
        let db = write(&fresh, config.clone());
        observe(&db, db.resolve_run("golden").unwrap(), 0.3);
        if log == LogClass::Clean {
            db.close().unwrap();
        }
        compare(name, &fresh, log);
    }
}

/// A snapshot with a log behind it, and a backup, which is a snapshot without one.
#[test]
fn golden_snapshots_and_backups_open_and_are_what_is_written_today() {
    let dir = tempfile::tempdir().unwrap();
    let (fresh, backup) = (dir.path().join("snapshot"), dir.path().join("backup"));
    let db = write(&fresh, DatabaseConfig::buffered().compression(Compression::None));
    let run = db.resolve_run("golden").unwrap();
    // The second half of each signal comes on top of what the snapshot has of the first.
    assert!(db.checkpoint().unwrap().written);
    observe(&db, run, 0.3);
    db.kv_put(run, "after the snapshot", 3).unwrap();
    db.compact(CompactMode::WalOnly).unwrap();
    db.backup(&backup).unwrap();
    db.close().unwrap();
    compare("snapshot", &fresh, LogClass::Clean);
    compare("backup", &backup, LogClass::Clean);
}
