//! Syncs of the log beside the commits: what they promise, whom they hold up, what follows
//! when one fails.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use steadfast_durability::StdDisk;
use steadfast_durability::disk::{Access, Disk, DiskFile, EntryKind, Lock};
use steadfast_engine::{Database, DatabaseBuilder, DatabaseConfig, ErrorKind, Receipt, Run};
use tempfile::{TempDir, tempdir};

const SEGMENT_BYTES: u64 = 64 << 10;

/// What the syncs of segments are to do, and what they met.
#[derive(Debug, Default)]
struct Syncs {
    /// They wait as long as this is set.
    held: bool,
    /// The next one fails, and those after it do not: as the kernel does it.
    fails: bool,
    /// How many are waiting.
    waiting: u32,
    /// Bytes written and not synced, by file.
    dirty: HashMap<PathBuf, u64>,
    /// What the one that had the most to do had to do, in bytes.
    most: u64,
}

/// The files of the operating system, with syncs of segments that can be held and can fail.
#[derive(Debug, Clone, Default)]
struct HeldDisk(Arc<(Mutex<Syncs>, Condvar)>);

#[derive(Debug)]
struct HeldFile {
    disk: HeldDisk,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

impl HeldDisk {
    fn syncs(&self) -> MutexGuard<'_, Syncs> {
        self.0.0.lock().unwrap()
    }

    fn hold(&self, held: bool) {
        self.syncs().held = held;
        self.0.1.notify_all();
    }

    fn wrap(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        if path.parent().is_none_or(|parent| !parent.ends_with("WAL")) {
            return file;
        }
        Arc::new(HeldFile { disk: self.clone(), path: path.to_owned(), file })
    }
}

impl Disk for HeldDisk {
    fn create(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(path, StdDisk.create(path, access)?))
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(path, StdDisk.open(path, access)?))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        StdDisk.create_dir(path)
    }
    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        StdDisk.kind(path)
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        StdDisk.list(directory)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        StdDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        StdDisk.remove(path)
    }
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        StdDisk.sync_dir(directory)
    }
    fn lock(&self, path: &Path) -> io::Result<Lock> {
        StdDisk.lock(path)
    }
    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        StdDisk.is_locked(path)
    }
}

impl DiskFile for HeldFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        *self.disk.syncs().dirty.entry(self.path.clone()).or_default() += bytes.len() as u64;
        self.file.write_at(offset, bytes)
    }
    fn write_at_durable(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at_durable(offset, bytes)
    }
    fn allocate(&self, length: u64) -> io::Result<()> {
        self.file.allocate(length)
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut syncs = self.disk.syncs();
        let dirty = syncs.dirty.remove(&self.path).unwrap_or(0);
        syncs.most = syncs.most.max(dirty);
        syncs.waiting += 1;
        let (held, timeout) = (|syncs: &mut Syncs| syncs.held, Duration::from_secs(5));
        let (mut syncs, waited) = self.disk.0.1.wait_timeout_while(syncs, timeout, held).unwrap();
        syncs.waiting -= 1;
        if waited.timed_out() {
            // Whoever should let it go waits for it.
            return Err(io::Error::other("held for ever"));
        }
        let fails = std::mem::take(&mut syncs.fails);
        drop(syncs);
        if fails { Err(io::Error::other("the device is gone")) } else { self.file.sync_data() }
    }
    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

struct Fixture {
    disk: HeldDisk,
    db: Database,
    run: Run,
    written: u32,
    dir: TempDir,
}

/// A buffered database with small segments, in which everything is durable.
fn fixture(configure: impl FnOnce(DatabaseBuilder) -> DatabaseBuilder) -> Fixture {
    let (dir, disk) = (tempdir().unwrap(), HeldDisk::default());
    let config = DatabaseConfig::buffered().segment_bytes(SEGMENT_BYTES);
    let builder = Database::builder(dir.path().join("db")).config(config);
    let db = configure(builder.disk(Arc::new(disk.clone()))).create().unwrap();
    let run = db.create_run("run").unwrap();
    db.flush().unwrap();
    Fixture { disk, db, run, written: 0, dir }
}

impl Fixture {
    fn put(&mut self) -> Result<Receipt, steadfast_engine::Error> {
        self.written += 1;
        self.db.kv_put(self.run, format!("{:06}", self.written), vec![7u8; 200])
    }

    fn put_many(&mut self, count: u32) -> Receipt {
        (1..count).for_each(|_| drop(self.put().unwrap()));
        self.put().unwrap()
    }

    /// Commits until a sync has begun that nobody asked for; it is held.
    fn commit_into_a_held_sync(&mut self) -> Receipt {
        self.disk.hold(true);
        let mut last = self.put().unwrap();
        for _ in 0..SEGMENT_BYTES / 400 {
            if self.disk.syncs().waiting > 0 {
                return last;
            }
            last = self.put().unwrap();
            std::thread::sleep(Duration::from_micros(100));
        }
        eventually(|| self.disk.syncs().waiting > 0);
        last
    }
}

fn eventually(condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < until, "it takes too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn commits_go_on_beside_a_sync_and_are_promised_only_after_it() {
    let mut fixture = fixture(|builder| builder);
    let before = fixture.db.stats().unwrap().promised;
    let early = fixture.put().unwrap();
    fixture.commit_into_a_held_sync();
    let later = fixture.put_many(10);
    assert_eq!(fixture.db.current_version(), later.version(), "nobody waits for it");
    assert_eq!(fixture.db.stats().unwrap().promised, before, "it has not returned");

    fixture.disk.hold(false);
    eventually(|| fixture.db.stats().unwrap().promised >= early.version());
    assert!(
        fixture.db.stats().unwrap().promised < later.version(),
        "what was written after it began is not proven"
    );
    later.wait_durable().unwrap();
    assert!(fixture.disk.syncs().dirty.is_empty(), "that took a sync of its own");
    assert_eq!(fixture.db.stats().unwrap().promised, later.version());
    fixture.db.close().unwrap();
}

#[test]
fn the_commit_that_ends_a_segment_finds_little_left_to_sync() {
    let mut fixture = fixture(DatabaseBuilder::without_threads);
    let segments =
        |fixture: &Fixture| fixture.dir.path().join("db/WAL").read_dir().unwrap().count();
    while segments(&fixture) < 5 {
        fixture.put().unwrap();
        fixture.db.maintain().unwrap();
    }
    let most = fixture.disk.syncs().most;
    assert!(most < SEGMENT_BYTES / 8 + 1024, "one sync had {most} bytes to write");
    fixture.db.close().unwrap();
}

#[test]
fn a_failed_sync_beside_the_commits_is_final() {
    for threads in [true, false] {
        let mut fixture =
            fixture(|builder| if threads { builder } else { builder.without_threads() });
        let durable = fixture.db.current_version();
        let last = if threads {
            let last = fixture.commit_into_a_held_sync();
            fixture.disk.syncs().fails = true;
            fixture.disk.hold(false);
            eventually(|| fixture.db.stats().unwrap().poisoned.is_some());
            last
        } else {
            let last = fixture.put_many(50);
            fixture.disk.syncs().fails = true;
            fixture.db.maintain().unwrap();
            last
        };
        assert_eq!(fixture.put().unwrap_err().kind(), ErrorKind::Poisoned);
        assert_eq!(last.wait_durable().unwrap_err().kind(), ErrorKind::Unknown);
        assert_eq!(fixture.db.flush().unwrap_err().kind(), ErrorKind::Poisoned);
        let stats = fixture.db.stats().unwrap();
        assert_eq!((stats.visible, stats.promised), (last.version(), durable));
        assert!(fixture.db.kv_get(fixture.run, "000001").unwrap().is_some(), "readers go on");
    }
}

#[test]
fn a_sync_that_failed_fails_whoever_syncs_next() {
    let mut fixture = fixture(|builder| builder);
    let last = fixture.commit_into_a_held_sync();
    fixture.disk.syncs().fails = true;
    // It wants a sync while the other one runs, and before anybody knows how that ends; one of
    // its own would succeed.
    let waiting = std::thread::spawn(move || last.wait_durable());
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(fixture.disk.syncs().waiting, 1, "one sync of a file at a time");
    fixture.disk.hold(false);
    assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Unknown);
    assert_eq!(fixture.put().unwrap_err().kind(), ErrorKind::Poisoned);
}
