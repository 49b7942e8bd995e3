//! Databases written by every released format still open; and what is written today is, to
//! the byte, what lies here, so that no format changes unnoticed.
//!
//! `STEADFAST_WRITE_GOLDEN=1 cargo test --test formats` writes the files anew. Before the
//! first release a format may change together with its files; after it, a change needs a new
//! format number and a new folder.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use steadfast::{
    AppendOptions, CompactMode, Compression, Database, DatabaseConfig, Entropy, LogClass,
    ManualClock, Retention, Timestamp, Value,
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
        .clock(ManualClock::at(Timestamp::from_micros(1_790_000_000_000_000)))
        .entropy(Entropy::seeded(1))
        .without_threads()
        .create()
        .unwrap();
    let run = db.create_run("golden").unwrap();
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
    assert!(db.checkpoint().unwrap().written);
    let run = db.resolve_run("golden").unwrap();
    db.kv_put(run, "after the snapshot", 3).unwrap();
    db.compact(CompactMode::WalOnly).unwrap();
    db.backup(&backup).unwrap();
    db.close().unwrap();
    compare("snapshot", &fresh, LogClass::Clean);
    compare("backup", &backup, LogClass::Clean);
}
