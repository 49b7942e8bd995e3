//! A record with a right checksum that means nothing: damage, wherever it is read, and said with
//! its key and version. All else can be read.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use steadfast::*;
use steadfast_testing::forged;
use tempfile::tempdir;

/// One of everything.
fn filled(root: &Path) {
    let db = Database::create(root, DatabaseConfig::buffered()).unwrap();
    let run = db.create_run("run").unwrap();
    db.kv_put(run, "sound", 1).unwrap();
    db.kv_put(run, "key", 1).unwrap();
    db.state_set(run, "cell", 1).unwrap();
    db.define_signals(SchemaBuilder::signal("view")).unwrap();
    db.signal_record(run, "view", "entity", 1.0).unwrap();
    let options = AppendOptions { idempotency_key: Some("once".into()), ..Default::default() };
    db.event_append_with(run, "stream", 1, &options).unwrap();
    db.event_append(run, "stream", 2).unwrap();
    db.close().unwrap();
}

#[track_caller]
fn damaged<T: std::fmt::Debug>(what: &str, read: Result<T>, says: &[&str]) {
    let error = read.expect_err(what);
    assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
    let text = error.to_string();
    says.iter().for_each(|part| assert!(text.contains(part), "{what}: {text:?} lacks {part:?}"));
}

/// Puts `bytes` where `is_it` says, and holds what `reads` gives to be damage that says where.
#[track_caller]
fn check(
    is_it: impl Fn(TypeTag, &[u8]) -> bool,
    place: &str,
    values: &[&[u8]],
    reads: impl Fn(&Database, Version, &mut dyn FnMut(&str, Result<()>)),
) {
    for value in values {
        let dir = tempdir().unwrap();
        filled(dir.path());
        let key = forged::stored_key(dir.path(), &is_it);
        let version = forged::append(dir.path(), &[(&key, value)]);
        let db = Database::open_existing(dir.path(), DatabaseConfig::buffered()).unwrap();
        let at = format!("version {version}");
        let mut read = 0;
        reads(&db, version, &mut |what, result| {
            read += 1;
            damaged(&format!("{what} of {value:?}"), result, &[place, &at]);
        });
        assert!(read > 0);
        if let Ok(run) = db.resolve_run("run") {
            let sound = db.kv_get(run, "sound").unwrap().unwrap();
            assert_eq!(sound.value, Value::Int(1));
        }
        // Nor does what cannot be read keep anything from being written down again.
        db.checkpoint().unwrap();
    }
}

/// An unknown tag, a list that ends too early, a text that is none, a number that is none. A log
/// with an empty value is refused when it is opened.
const MALFORMED: [&[u8]; 4] =
    [&[0xff], &[7, 200], &[5, 0xff, 0xfe], &[4, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f]];

fn run_of(db: &Database) -> Run {
    db.resolve_run("run").unwrap()
}

#[test]
fn a_key_value() {
    let is_it = |tag, own: &[u8]| tag == TypeTag::Kv && own == b"key";
    check(is_it, "key-value key", &MALFORMED, |db, version, read| {
        let run = run_of(db);
        read("kv_get", db.kv_get(run, "key").map(drop));
        read("kv_get_at", db.kv_get_at(run, "key", version).map(drop));
        read("kv_history", db.kv_history(run, "key").map(drop));
        let view = db.view().unwrap();
        let mut rows = view.kv_scan(run, b"").unwrap();
        read("kv_scan", rows.find_map(|row| row.err()).map_or(Ok(()), Err));
        let bad = view.entries(run).find_map(|entry| entry.err());
        read("entries", bad.map_or(Ok(()), Err));
        let cas = db.transaction(|tx| tx.kv_get(run, "key").map(drop));
        read("in a transaction", cas.map(drop));
    });
}

#[test]
fn a_state_cell() {
    let is_it = |tag, own: &[u8]| tag == TypeTag::State && own == b"cell";
    check(is_it, "state cell cell", &MALFORMED, |db, _, read| {
        let run = run_of(db);
        read("state_read", db.state_read(run, "cell").map(drop));
        read("state_transition", db.state_transition(run, "cell", |_| Ok(Value::Int(2))).map(drop));
        let bad = db.view().unwrap().entries(run).find_map(|entry| entry.err());
        read("entries", bad.map_or(Ok(()), Err));
    });
}

#[test]
fn an_event() {
    let is_it = |tag, own: &[u8]| tag == TypeTag::Event && own.ends_with(&0u64.to_be_bytes());
    // Also one whose payload alone is bad, and one that has a hash and no payload.
    let mut payload = vec![7, 2, 33, 6];
    payload.extend_from_slice(&[0; 32]);
    let hash_only = payload.clone();
    payload.extend_from_slice(&[1, 0xff]);
    let values = [MALFORMED[0], MALFORMED[1], MALFORMED[2], &payload, &hash_only];
    check(is_it, "event 0 of stream stream", &values, |db, _, read| {
        let run = run_of(db);
        let mut events = db.event_read(run, "stream", 0).unwrap();
        read("event_read", events.find_map(|event| event.err()).map_or(Ok(()), Err));
        let bad = db.view().unwrap().entries(run).find_map(|entry| entry.err());
        read("entries", bad.map_or(Ok(()), Err));
    });
}

#[test]
fn a_receipt_of_an_append() {
    let is_it = |tag, _: &[u8]| tag == TypeTag::Idempotency;
    let values = [MALFORMED[0], MALFORMED[1], &[0], &[7, 0]];
    check(is_it, "idempotency key once", &values, |db, _, read| {
        let options = AppendOptions { idempotency_key: Some("once".into()), ..Default::default() };
        let again = db.event_append_with(run_of(db), "stream", 1, &options);
        read("event_append_with", again.map(drop));
    });
}

#[test]
fn a_signal() {
    let is_it = |tag, own: &[u8]| tag == TypeTag::Signal && own.ends_with(b"entity");
    check(is_it, "signal view of entity", &MALFORMED, |db, _, read| {
        let run = run_of(db);
        read("signal", db.signal(run, "view", "entity").map(drop));
        read("signal_score", db.signal_score(run, "view", "entity").map(drop));
        let at = db.signal_score_at(run, "view", "entity", Timestamp::from_micros(1));
        read("signal_score_at", at.map(drop));
        let bad = db.view().unwrap().entries(run).find_map(|entry| entry.err());
        read("entries", bad.map_or(Ok(()), Err));
    });
}

#[test]
fn what_a_signal_means() {
    let is_it = |tag, own: &[u8]| tag == TypeTag::Signal && own == b"view";
    let values = [MALFORMED[0], MALFORMED[1], &[0], &[6, 0xff]];
    check(is_it, "signal view, of", &values, |db, _, read| {
        read("signal_definitions", db.view().unwrap().signal_definitions().map(drop));
        read("signal_record", db.signal_record(run_of(db), "view", "entity", 1.0).map(drop));
    });
}

#[test]
fn an_entry_of_the_run_index() {
    let is_it = |tag, own: &[u8]| tag == TypeTag::Run && own == b"run";
    let values = [MALFORMED[0], MALFORMED[1], &[0], &[8, 0]];
    check(is_it, "run run", &values, |db, _, read| {
        read("resolve_run", db.resolve_run("run").map(drop));
        read("list_runs", db.list_runs().map(drop));
        read("get_or_create_run", db.get_or_create_run("run").map(drop));
    });
}

#[test]
fn the_grave_of_a_run() {
    let dir = tempdir().unwrap();
    filled(dir.path());
    let db = Database::open_existing(dir.path(), DatabaseConfig::buffered()).unwrap();
    let id = db.create_run("gone").unwrap();
    db.kv_put(id, "k", 1).unwrap();
    db.delete_run("gone").unwrap();
    let from = db.current_version();
    db.close().unwrap();
    let grave = |tag, own: &[u8]| tag == TypeTag::Run && own != b"run" && own != b"gone";
    let key = forged::stored_key(dir.path(), grave);
    let version = forged::append(dir.path(), &[(&key, &[0])]);
    let db = Database::open_existing(dir.path(), DatabaseConfig::buffered()).unwrap();
    let mut tail = db.tail(from).unwrap();
    let commit = tail.next().unwrap().unwrap();
    let changes: Result<Vec<_>> = commit.changes().collect();
    damaged("tail", changes, &["the grave of a run", &format!("version {version}")]);
    assert_eq!(db.kv_get(run_of(&db), "sound").unwrap().unwrap().value, Value::Int(1));
}
