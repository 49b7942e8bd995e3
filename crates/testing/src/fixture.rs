//! A database in a real directory, to be damaged by hand and opened again.
//!
//! ```
//! use steadfast_testing::fixture::fixture;
//!
//! let db = fixture().with_commits(3).killed();
//! db.newest_wal().cut_last_used(1);
//! db.reopen().expect_commits(2);
//! ```
//!
//! It panics where a test should: it is not for programs.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // files are damaged behind everybody's back

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use steadfast_engine::{Database, DatabaseConfig, Error, LogClass, RecoveryReport};
use tempfile::TempDir;

use crate::model::{Op, ReferenceModel, content_now};

/// A strict database with the smallest segments, in a directory that goes away with it.
pub fn fixture() -> Fixture {
    Fixture::new(DatabaseConfig::strict().segment_bytes(crate::workload::SEGMENT_BYTES))
}

/// A database that is being written.
#[derive(Debug)]
pub struct Fixture {
    dir: TempDir,
    config: DatabaseConfig,
    db: Database,
    models: Vec<ReferenceModel>,
}

/// A database that nobody has open.
#[derive(Debug)]
pub struct Resting {
    dir: TempDir,
    config: DatabaseConfig,
    models: Vec<ReferenceModel>,
}

/// A file of a resting database.
#[derive(Debug, Clone)]
pub struct Victim {
    path: PathBuf,
}

/// A database that was opened again.
#[derive(Debug)]
pub struct Reopened<'a> {
    resting: &'a Resting,
    opened: Result<Database, Error>,
}

impl Fixture {
    /// An empty database that behaves as `config` says.
    pub fn new(config: DatabaseConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Without threads nothing happens while `killed` copies the files.
        let builder =
            Database::builder(dir.path().join("db")).config(config.clone()).without_threads();
        let db = builder.create().unwrap();
        Self { dir, config, db, models: vec![ReferenceModel::new()] }
    }

    /// With `count` more small commits.
    #[must_use]
    pub fn with_commits(mut self, count: usize) -> Self {
        for _ in 0..count {
            let n = self.models.len();
            let value = i64::try_from(n).unwrap();
            self.commit(&[Op::Put("run".into(), format!("key-{n}"), value.into())]);
        }
        self
    }

    /// With this transaction committed.
    #[must_use]
    pub fn with(mut self, ops: &[Op]) -> Self {
        self.commit(ops);
        self
    }

    fn commit(&mut self, ops: &[Op]) {
        let done = self.db.transaction(|tx| ops.iter().try_for_each(|op| op.apply(tx))).unwrap();
        let mut model = self.models.last().unwrap().clone();
        model.apply(ops, done.1.version());
        self.models.push(model);
    }

    /// Closed cleanly.
    pub fn closed(self) -> Resting {
        self.db.close().unwrap();
        Resting { dir: self.dir, config: self.config, models: self.models }
    }

    /// As a process that was killed leaves it: a copy of the files while they are open.
    pub fn killed(self) -> Resting {
        let copy = tempfile::tempdir().unwrap();
        copy_all(&self.dir.path().join("db"), &copy.path().join("db"));
        Resting { dir: copy, config: self.config, models: self.models }
    }
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Resting {
    /// The directory of the database.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("db")
    }

    /// A file by its path inside the database.
    pub fn file(&self, name: &str) -> Victim {
        Victim { path: self.path().join(name) }
    }

    /// The MANIFEST.
    pub fn manifest(&self) -> Victim {
        self.file("MANIFEST")
    }

    /// The segments of the log, oldest first.
    pub fn wals(&self) -> Vec<Victim> {
        let mut paths: Vec<_> = std::fs::read_dir(self.path().join("WAL"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        paths.into_iter().map(|path| Victim { path }).collect()
    }

    /// The newest segment.
    pub fn newest_wal(&self) -> Victim {
        self.wals().pop().unwrap()
    }

    /// The bytes of every file but `LOCK`, by path.
    pub fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut todo = vec![self.path()];
        while let Some(directory) = todo.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    todo.push(path);
                } else if !path.ends_with("LOCK") {
                    let bytes = std::fs::read(&path).unwrap();
                    found.insert(path, bytes);
                }
            }
        }
        found
    }

    /// Opens it again. A refusal must change nothing.
    pub fn reopen(&self) -> Reopened<'_> {
        let before = self.bytes();
        let opened = Database::open_existing(self.path(), self.config.clone());
        if opened.is_err() {
            assert!(self.bytes() == before, "a refusal changes nothing");
        }
        Reopened { resting: self, opened }
    }
}

impl Victim {
    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }

    /// Changes its bytes at rest.
    pub fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.bytes();
        change(&mut bytes);
        std::fs::write(&self.path, bytes).unwrap();
    }

    /// Flips one bit.
    pub fn flip_bit(&self, bit: usize) {
        self.change(|bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    }

    /// Cuts off the last `count` bytes.
    pub fn cut_last(&self, count: usize) {
        self.change(|bytes| bytes.truncate(bytes.len() - count));
    }

    /// Cuts off the zeros at the end and `count` bytes before them.
    pub fn cut_last_used(&self, count: usize) {
        self.change(|bytes| {
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            bytes.truncate(used.saturating_sub(count));
        });
    }

    /// Fills a range with zeros.
    pub fn zero(&self, range: std::ops::Range<usize>) {
        self.change(|bytes| bytes[range].fill(0));
    }

    /// Appends bytes that mean nothing.
    pub fn append_garbage(&self, count: usize) {
        self.change(|bytes| {
            bytes.extend((0..count).map(|n| u8::try_from(n % 251).unwrap() ^ 0x5a))
        });
    }

    /// Puts old bytes in the place of what is there.
    pub fn put_back(&self, old: &[u8]) {
        self.change(|bytes| *bytes = old.to_vec());
    }

    /// Removes it.
    pub fn remove(&self) {
        std::fs::remove_file(&self.path).unwrap();
    }
}

impl Reopened<'_> {
    /// It holds exactly the first `count` commits.
    pub fn expect_commits(self, count: usize) -> Self {
        let db = self.opened.as_ref().unwrap_or_else(|error| panic!("refused: {error}"));
        let differences = self.resting.models[count].compare(&content_now(db).unwrap());
        assert!(differences.is_empty(), "not the first {count} commits: {differences:?}");
        self
    }

    /// Its log was found to be `class`.
    pub fn expect_class(self, class: LogClass) -> Self {
        assert_eq!(self.report().log, class, "{}", self.report());
        self
    }

    /// What opening found.
    pub fn report(&self) -> &RecoveryReport {
        let db = self.opened.as_ref().unwrap_or_else(|error| panic!("refused: {error}"));
        db.recovery_report()
    }

    /// It was refused, and the error names `file`.
    pub fn expect_refusal(self, file: &str) {
        let error = self.opened.expect_err("a refusal");
        assert!(error.to_string().contains(file), "{error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discards_a_torn_tail() {
        let db = fixture().with_commits(3).killed();
        db.newest_wal().cut_last_used(1);
        db.reopen().expect_commits(2).expect_class(LogClass::TornUnpromised);
        db.reopen().expect_commits(2);
    }

    #[test]
    fn opens_clean_and_whole_what_was_closed() {
        let db = fixture().with_commits(7).closed();
        db.reopen().expect_commits(7).expect_class(LogClass::Clean);
    }

    #[test]
    fn refuses_damage_below_the_promise_and_a_missing_segment() {
        let db = fixture().with_commits(7).closed();
        db.newest_wal().cut_last(1);
        db.reopen().expect_refusal("WAL/");
        let db = fixture().with_commits(7).closed();
        db.wals()[0].flip_bit(8 * 4200);
        db.reopen().expect_refusal("WAL/wal-000001.seg");
        let db = fixture().with_commits(7).closed();
        db.wals()[1].remove();
        db.reopen().expect_refusal("WAL/");
        let db = fixture().with_commits(2).closed();
        db.manifest().zero(20..40);
        db.reopen().expect_refusal("MANIFEST");
        db.manifest().remove();
        db.reopen().expect_refusal("MANIFEST");
    }

    #[test]
    fn garbage_behind_the_end_changes_nothing() {
        let db = fixture().with_commits(3).killed();
        db.newest_wal().append_garbage(600);
        db.reopen().expect_commits(3);
    }
}
