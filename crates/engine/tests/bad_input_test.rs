//! Bad input and bad places: each a typed error that names what was wrong, and nothing lost.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use steadfast_engine::{
    AppendOptions, Database, DatabaseConfig, ErrorKind, Value, Version, limits,
};
use tempfile::tempdir;

fn kind_of<T: std::fmt::Debug>(result: steadfast_engine::Result<T>) -> (ErrorKind, String) {
    let error = result.unwrap_err();
    (error.kind(), error.to_string())
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: steadfast_engine::Result<T>, kind: ErrorKind, says: &str) {
    let (found, text) = kind_of(result);
    assert_eq!(found, kind, "{text}");
    assert!(text.contains(says), "{text:?} does not say {says:?}");
}

#[test]
fn keys_values_and_names_beyond_their_limits_are_refused_and_change_nothing() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("run").unwrap();
    let before = db.current_version();
    let long_key = vec![b'k'; limits::USER_KEY_BYTES_MAX + 1];
    let large = Value::Bytes(vec![0; limits::VALUE_BYTES_MAX]);
    let mut deep = Value::Null;
    for _ in 0..limits::VALUE_DEPTH_MAX + 2 {
        deep = Value::List(vec![deep]);
    }
    let hidden_nan: BTreeMap<_, _> = [("x".to_owned(), Value::Float(f64::NAN))].into();
    let long_name = "n".repeat(limits::NAME_BYTES_MAX + 1);
    use ErrorKind::Invalid;
    refused(db.kv_put(run, "", 1), Invalid, "empty");
    refused(db.kv_put(run, &long_key, 1), Invalid, "4097 bytes");
    refused(db.kv_get(run, &long_key), Invalid, "4097 bytes");
    refused(db.kv_put(run, "k", large.clone()), Invalid, "16777217 bytes");
    refused(db.kv_put(run, "k", deep), Invalid, "64 levels");
    refused(db.kv_put(run, "k", f64::NAN), Invalid, "NaN");
    refused(db.kv_put(run, "k", Value::Map(hidden_nan)), Invalid, "NaN");
    refused(db.state_set(run, "", 1), Invalid, "empty");
    refused(db.event_append(run, "", 1), Invalid, "empty");
    refused(db.create_run(""), Invalid, "empty");
    refused(db.create_run(&long_name), Invalid, "257 bytes");
    let options =
        AppendOptions { idempotency_key: Some(String::new()), ..AppendOptions::default() };
    refused(db.event_append_with(run, "s", 1, &options), Invalid, "empty");
    let too_much = db.transaction(|tx| {
        for n in 0..5 {
            tx.kv_put(run, format!("k{n}"), Value::Bytes(vec![0; limits::VALUE_BYTES_MAX - 1]))?;
        }
        Ok(())
    });
    refused(too_much, Invalid, "the transaction has");
    assert_eq!(db.current_version(), before, "nothing was committed");
    db.kv_put(run, "k", f64::INFINITY).unwrap();
    db.kv_put(run, &long_key[1..], 1).unwrap();
}

#[test]
fn a_run_of_another_database_or_of_a_rolled_back_transaction_is_unknown() {
    let db = Database::in_memory().unwrap();
    let other = Database::in_memory().unwrap();
    db.create_run("run").unwrap();
    let foreign = other.create_run("run").unwrap();
    refused(db.kv_put(foreign, "k", 1), ErrorKind::NotFound, "no run");
    refused(db.kv_get(foreign, "k"), ErrorKind::NotFound, "no run");
    refused(db.resolve_run("nobody"), ErrorKind::NotFound, "nobody");
    let mut tx = db.begin().unwrap();
    let gone = tx.create_run("gone").unwrap();
    tx.kv_put(gone, "k", 1).unwrap();
    tx.rollback();
    refused(db.kv_put(gone, "k", 1), ErrorKind::NotFound, "no run");
    refused(db.create_run("run"), ErrorKind::Conflict, "run");
    assert_eq!(db.list_runs().unwrap().len(), 1);
}

#[test]
fn places_where_there_is_no_database_are_told_apart() {
    let dir = tempdir().unwrap();
    let config = DatabaseConfig::strict();
    let missing = dir.path().join("missing");
    refused(Database::open_existing(&missing, config.clone()), ErrorKind::NotFound, "no database");
    refused(Database::open_read_only(&missing), ErrorKind::NotFound, "no database");
    assert!(!missing.exists(), "a refusal creates nothing");

    let file = dir.path().join("file");
    std::fs::write(&file, "text").unwrap();
    refused(Database::open(&file), ErrorKind::Invalid, "not a directory");
    refused(Database::open(file.join("inside")), ErrorKind::Io, "");

    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.txt"), "years of work").unwrap();
    refused(Database::open(&foreign), ErrorKind::Invalid, "thesis.txt");
    assert_eq!(std::fs::read_dir(&foreign).unwrap().count(), 1, "nothing was added");

    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    refused(Database::open_existing(&empty, config.clone()), ErrorKind::NotFound, "no database");
    let db = Database::create(&empty, config.clone()).unwrap();
    refused(Database::create(&empty, config.clone()), ErrorKind::Invalid, "already");
    db.close().unwrap();
    refused(Database::create(&empty, config.clone()), ErrorKind::Invalid, "already");
    let small = config.segment_bytes(100);
    refused(Database::open_existing(&empty, small), ErrorKind::Invalid, "100 bytes");
}

#[test]
fn a_newer_format_is_unsupported_and_left_alone() {
    let dir = tempdir().unwrap();
    let db = Database::create(dir.path().join("db"), DatabaseConfig::strict()).unwrap();
    db.create_run("run").unwrap();
    db.close().unwrap();
    let path = dir.path().join("db/MANIFEST");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 9;
    let end = bytes.len() - 4;
    let checksum = crc32(&bytes[..end]);
    bytes[end..].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    refused(Database::open(dir.path().join("db")), ErrorKind::Unsupported, "format 9");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

/// CRC-32 (IEEE), bit by bit, so that this test shares no code with what it tests.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

/// What a file system that cannot be written to answers, as far as this machine can make one:
/// the administrator may write anywhere.
#[test]
fn a_directory_without_permission_is_an_io_error() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempdir().unwrap();
    let locked = dir.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o500)).unwrap();
    let opened = Database::open(locked.join("db"));
    let administrator = std::fs::create_dir(locked.join("probe")).is_ok();
    if administrator {
        opened.unwrap();
    } else {
        refused(opened, ErrorKind::Io, "cannot create");
    }
    refused(Database::open(Path::new("/proc/steadfast/db")), ErrorKind::Io, "cannot create");
}

#[test]
fn a_future_version_is_not_found() {
    let db = Database::in_memory().unwrap();
    let (found, _) = kind_of(db.view_at(Version(9)));
    assert_eq!(found, ErrorKind::NotFound);
}
