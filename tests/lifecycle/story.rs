//! What the tests are built of: a database on a simulated disk, what was committed to it, and a
//! disk that is told of each of its steps.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use steadfast::disk::{Access, Disk, DiskFile, EntryKind, Lock};
use steadfast::{
    CompactMode, Compression, Database, DatabaseConfig, DurabilityMode, Error, Pending, Value,
    Version,
};
use steadfast_testing::model::{Op, ReferenceModel, content_now};
use steadfast_testing::sim::SimDisk;
use steadfast_testing::workload::{SEGMENT_BYTES, builder};

pub(crate) fn put(key: &str, bytes: usize) -> Op {
    let value: Vec<u8> = (0..bytes).map(|n| u8::try_from(n % 251).unwrap()).collect();
    Op::Put("r".into(), key.into(), Value::from(value.as_slice()))
}

pub(crate) fn delete(key: &str) -> Op {
    Op::Delete("r".into(), key.into())
}

/// Too large for a frame of the smallest segments.
pub(crate) fn large(name: &str) -> Vec<Op> {
    (0..8).map(|n| put(&format!("{name}{n}"), 2500)).collect()
}

pub(crate) fn config(mode: DurabilityMode) -> DatabaseConfig {
    let config = DatabaseConfig::new(mode).segment_bytes(SEGMENT_BYTES).manual_checkpoints();
    config.compression(Compression::None)
}

/// Something that happens to a disk.
pub(crate) type Damage<'a> = &'a dyn Fn(&SimDisk);
pub(crate) type OwnedDamage = Box<dyn Fn(&SimDisk)>;

/// A database on a simulated disk, and what must be in it after each commit.
pub(crate) struct Story {
    pub(crate) disk: SimDisk,
    pub(crate) config: DatabaseConfig,
    pub(crate) db: Database,
    /// What must be there after the first so many commits.
    pub(crate) models: Vec<(Version, ReferenceModel)>,
}

impl Story {
    pub(crate) fn new() -> Self {
        Self::with(config(DurabilityMode::Strict))
    }

    pub(crate) fn with(config: DatabaseConfig) -> Self {
        let disk = SimDisk::new();
        let db = builder(&disk, config.clone()).open().unwrap();
        Self { disk, config, db, models: vec![(Version::ZERO, ReferenceModel::new())] }
    }

    pub(crate) fn note(&mut self, ops: &[Op], version: Version) {
        let mut model = self.models.last().unwrap().1.clone();
        model.apply(ops, version);
        self.models.push((version, model));
    }

    pub(crate) fn commit(&mut self, ops: &[Op]) -> Version {
        let done = self.db.transaction(|tx| ops.iter().try_for_each(|op| op.apply(tx))).unwrap();
        let version = done.1.version();
        self.note(ops, version);
        version
    }

    /// Several small commits.
    pub(crate) fn commits(&mut self, name: &str, count: usize) {
        (0..count).for_each(|n| {
            self.commit(&[put(&format!("{name}{n}"), 300)]);
        });
    }

    /// Gives a commit its version and, if it is large, writes all of it but its end.
    pub(crate) fn submit(&mut self, ops: &[Op]) -> Pending {
        let pending = submit(&self.db, ops).unwrap();
        self.note(ops, pending.version());
        pending
    }

    pub(crate) fn checkpoint(&self) {
        assert!(self.db.checkpoint().unwrap().written);
    }

    pub(crate) fn compact(&self) -> u64 {
        self.db.compact(CompactMode::WalOnly).unwrap().wal_segments_removed
    }

    pub(crate) fn expect(&self, db: &Database, what: &str) {
        let found = content_now(db).unwrap_or_else(|error| panic!("{what}: {error}"));
        let (version, model) = self.models.last().unwrap();
        assert_eq!(model.compare(&found), [], "{what}");
        assert_eq!(db.current_version(), *version, "{what}");
    }

    /// What is on the disk opens to exactly what was committed, before and after it is loaded
    /// and after a compaction, twice.
    pub(crate) fn expect_reopened(&self, disk: &SimDisk, what: &str) {
        let disk = disk.killed();
        for turn in 0..2 {
            let db = builder(&disk, self.config.clone()).open_existing();
            let db = db.unwrap_or_else(|error| panic!("{what}, opening {turn}: {error}"));
            self.expect(&db, &format!("{what}, opened {turn}"));
            db.wait_loaded().unwrap_or_else(|error| panic!("{what}, loading {turn}: {error}"));
            self.expect(&db, &format!("{what}, loaded {turn}"));
            db.compact(CompactMode::Full).unwrap_or_else(|e| panic!("{what}, compaction: {e}"));
            self.expect(&db, &format!("{what}, compacted {turn}"));
            if turn == 0 {
                db.close().unwrap();
            }
        }
    }

    /// As [`Story::expect_reopened`], after a kill now, after a kill with the newest snapshot
    /// damaged, where an older one is there, and after closing.
    pub(crate) fn expect_survives(&self, what: &str) {
        let killed = self.disk.killed();
        self.expect_reopened(&killed, &format!("{what}, killed"));
        if snapshots(&killed).len() > 1 {
            let damaged = killed.killed();
            spoil_newest(&damaged);
            self.expect_reopened(&damaged, &format!("{what}, fallen back"));
        }
        self.expect(&self.db, what);
    }
}

/// What is to be done at a certain step.
pub(crate) type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// A disk that does something meanwhile: before a file with this extension is created, or opened.
#[derive(Debug)]
pub(crate) struct Hooked(pub(crate) SimDisk, pub(crate) Hook);

pub(crate) struct Hook {
    pub(crate) creating: bool,
    pub(crate) extension: &'static str,
    pub(crate) work: Meanwhile,
}

impl Hook {
    pub(crate) fn at(&self, creating: bool, path: &Path) {
        let here = path.extension().is_some_and(|extension| extension == self.extension);
        if creating == self.creating && here {
            // It is done once, and may itself use the disk.
            let work = self.work.lock().unwrap().take();
            work.into_iter().for_each(|work| work());
        }
    }
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

impl Disk for Hooked {
    fn create(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.1.at(true, path);
        self.0.create(path, access)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.1.at(false, path);
        self.0.open(path, access)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.0.kind(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.0.list(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.0.sync_dir(directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        self.0.lock(path)
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.0.is_locked(path)
    }
}

pub(crate) fn submit(db: &Database, ops: &[Op]) -> Result<Pending, Error> {
    let mut tx = db.begin()?;
    ops.iter().try_for_each(|op| op.apply(&mut tx))?;
    Ok(tx.submit()?.expect("it writes something"))
}

pub(crate) fn commit(db: &Database, ops: &[Op]) -> Version {
    db.transaction(|tx| ops.iter().try_for_each(|op| op.apply(tx))).unwrap().1.version()
}

pub(crate) fn paths(disk: &SimDisk, part: &str) -> Vec<String> {
    disk.paths().into_iter().filter(|path| path.contains(part)).collect()
}

pub(crate) fn snapshots(disk: &SimDisk) -> Vec<String> {
    paths(disk, "db/SNAPSHOTS/")
}

/// The footer of the newest snapshot is zeros now: it cannot be opened.
pub(crate) fn spoil_newest(disk: &SimDisk) {
    let newest = snapshots(disk).pop().unwrap();
    disk.tamper(&newest, |bytes| {
        let from = bytes.len() - 40;
        bytes[from..].fill(0);
    });
}

/// Something in the first block of a snapshot is another byte now.
pub(crate) fn spoil_block(disk: &SimDisk, path: &str) {
    disk.tamper(path, |bytes| bytes[600] ^= 0x10);
}
