//! Damage to the files of a log, by the names of the crash harness's specification.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use steadfast_engine::{Database, DatabaseConfig, ErrorKind, LogClass, Value, salvage};
use steadfast_testing::corruption::WalCorruptionTester;
use steadfast_testing::seed::seed_or;

const KEYS: usize = 100;

struct Subject {
    dir: tempfile::TempDir,
}

impl Subject {
    /// 100 keys, each in a commit of its own; closed, or as a process that is killed leaves it.
    fn new(closed: bool) -> Self {
        static KILLED: LazyLock<tempfile::TempDir> = LazyLock::new(|| written(false));
        static CLOSED: LazyLock<tempfile::TempDir> = LazyLock::new(|| written(true));
        let template = if closed { &*CLOSED } else { &*KILLED };
        let dir = tempfile::tempdir().unwrap();
        copy_all(&template.path().join("db"), &dir.path().join("db"));
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("db")
    }

    fn tester(&self) -> WalCorruptionTester {
        WalCorruptionTester::new(self.path())
    }

    /// The first so many keys are there, with their values, and no others.
    fn keys_at(path: &Path) -> usize {
        let db = Database::open_existing(path, DatabaseConfig::strict()).unwrap();
        let run = db.resolve_run("run").unwrap();
        let mut count = 0;
        for (n, record) in db.kv_scan(run, "").unwrap().enumerate() {
            let (key, found) = record.unwrap();
            assert_eq!(key, format!("key-{n:03}").into_bytes());
            assert_eq!(found.value, Value::from(n as i64));
            count += 1;
        }
        count
    }

    fn keys(&self) -> usize {
        Self::keys_at(&self.path())
    }
}

fn written(closed: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    // Without threads nothing happens while the files are copied.
    let builder = Database::builder(&live).config(DatabaseConfig::strict());
    let db = builder.without_threads().create().unwrap();
    let run = db.create_run("run").unwrap();
    for n in 0..KEYS {
        db.kv_put(run, format!("key-{n:03}"), Value::from(n as i64)).unwrap();
    }
    if closed {
        db.close().unwrap();
    }
    copy_all(&live, &dir.path().join("db"));
    drop(db);
    dir
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_all(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn bytes_of(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(path).unwrap().map(Result::unwrap) {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(bytes_of(&path)),
            false if path.ends_with("LOCK") => {}
            false => drop(found.insert(path.clone(), std::fs::read(path).unwrap())),
        }
    }
    found
}

#[test]
fn test_wal_truncation_recovery() {
    let subject = Subject::new(false);
    subject.tester().truncate_wal_tail(50).unwrap();
    let result = subject.tester().verify_recovery_after_corruption();
    assert!(result.recovered, "{result:?}");
    assert_eq!(result.runs_found, 1);
    let report = result.report.unwrap();
    assert_eq!(report.log, LogClass::TornUnpromised, "{report}");
    assert!(report.left_anything_out(), "it says so");
    assert_eq!(subject.keys(), KEYS - 1, "one group was cut, and one commit was in it");

    // What was closed was promised to its last byte: there a missing tail is refused.
    let subject = Subject::new(true);
    subject.tester().truncate_wal_tail(50).unwrap();
    let before = bytes_of(&subject.path());
    let result = subject.tester().verify_recovery_after_corruption();
    assert!(result.refused_by_name(), "{result:?}");
    assert_eq!(result.error_kind, Some(ErrorKind::Corruption));
    assert!(bytes_of(&subject.path()) == before, "a refusal changes nothing");
}

#[test]
fn test_garbage_at_wal_tail() {
    for closed in [false, true] {
        for bytes in [1, 100, 10_000] {
            let subject = Subject::new(closed);
            subject.tester().append_garbage(bytes).unwrap();
            let result = subject.tester().verify_recovery_after_corruption();
            assert!(result.recovered, "closed {closed}, {bytes} bytes: {result:?}");
            assert_eq!(subject.keys(), KEYS, "closed {closed}, {bytes} bytes");
        }
    }
}

#[test]
fn test_partial_record_recovery() {
    for closed in [false, true] {
        let subject = Subject::new(closed);
        subject.tester().create_partial_record().unwrap();
        let result = subject.tester().verify_recovery_after_corruption();
        assert!(result.recovered, "closed {closed}: {result:?}");
        assert_eq!((result.runs_found, subject.keys()), (1, KEYS), "closed {closed}");
    }
}

/// Damage in the middle is never passed over: it is refused by name, or it is in the last group,
/// which nobody can tell from one that was never acknowledged, and the report says so.
#[test]
fn damage_in_the_middle_is_refused_by_name_and_can_be_salvaged() {
    let first = seed_or(42);
    let mut refused = 0;
    for seed in first..first + 20 {
        let subject = Subject::new(false);
        let mut tester = WalCorruptionTester::with_seed(subject.path(), seed);
        tester.corrupt_random_bytes(1 + seed % 4).unwrap();
        let before = bytes_of(&subject.path());
        let result = tester.verify_recovery_after_corruption();
        if result.recovered {
            let report = result.report.unwrap();
            assert!(report.left_anything_out(), "seed {seed}: {report}");
            assert!(subject.keys() >= KEYS - 1, "seed {seed}: {report}");
            continue;
        }
        refused += 1;
        assert!(result.refused_by_name(), "seed {seed}: {result:?}");
        assert!(bytes_of(&subject.path()) == before, "seed {seed}: a refusal changes nothing");
        let target = subject.dir.path().join("salvaged");
        salvage(subject.path(), Some(&target)).unwrap();
        assert!(Subject::keys_at(&target) < KEYS, "seed {seed}: a prefix");
    }
    assert!(refused >= 15, "{refused}: most damage is below the promise");
}
