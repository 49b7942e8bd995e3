//! What goes wrong around checkpoints, compaction and copies in other databases, one test for
//! each class, named after it (P4, P6, P8, P9, P10).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use steadfast::disk::{Access, Disk, DiskFile, EntryKind, Lock};
use steadfast::{
    CompactMode, Compression, Database, DatabaseConfig, DurabilityMode, Error, ErrorKind, LogClass,
    Pending, RecoveryPolicy, Retention, SnapshotClass, Value, Version, restore_with, salvage_with,
};
use steadfast_testing::model::{Content, Item, Op, ReferenceModel, content_now, content_of};
use steadfast_testing::sim::{EIO, ENOSPC, FailedSync, Fault, SimDisk, StepKind};
use steadfast_testing::workload::{SEGMENT_BYTES, builder, builder_at};

fn put(key: &str, bytes: usize) -> Op {
    let value: Vec<u8> = (0..bytes).map(|n| u8::try_from(n % 251).unwrap()).collect();
    Op::Put("r".into(), key.into(), Value::from(value.as_slice()))
}

fn delete(key: &str) -> Op {
    Op::Delete("r".into(), key.into())
}

/// Too large for a frame of the smallest segments.
fn large(name: &str) -> Vec<Op> {
    (0..8).map(|n| put(&format!("{name}{n}"), 2500)).collect()
}

fn config(mode: DurabilityMode) -> DatabaseConfig {
    let config = DatabaseConfig::new(mode).segment_bytes(SEGMENT_BYTES).manual_checkpoints();
    config.compression(Compression::None)
}

/// Something that happens to a disk.
type Damage<'a> = &'a dyn Fn(&SimDisk);
type OwnedDamage = Box<dyn Fn(&SimDisk)>;

/// A database on a simulated disk, and what must be in it after each commit.
struct Story {
    disk: SimDisk,
    config: DatabaseConfig,
    db: Database,
    /// What must be there after the first so many commits.
    models: Vec<(Version, ReferenceModel)>,
}

impl Story {
    fn new() -> Self {
        Self::with(config(DurabilityMode::Strict))
    }

    fn with(config: DatabaseConfig) -> Self {
        let disk = SimDisk::new();
        let db = builder(&disk, config.clone()).open().unwrap();
        Self { disk, config, db, models: vec![(Version::ZERO, ReferenceModel::new())] }
    }

    fn note(&mut self, ops: &[Op], version: Version) {
        let mut model = self.models.last().unwrap().1.clone();
        model.apply(ops, version);
        self.models.push((version, model));
    }

    fn commit(&mut self, ops: &[Op]) -> Version {
        let done = self.db.transaction(|tx| ops.iter().try_for_each(|op| op.apply(tx))).unwrap();
        let version = done.1.version();
        self.note(ops, version);
        version
    }

    /// Several small commits.
    fn commits(&mut self, name: &str, count: usize) {
        (0..count).for_each(|n| {
            self.commit(&[put(&format!("{name}{n}"), 300)]);
        });
    }

    /// Gives a commit its version and, if it is large, writes all of it but its end.
    fn submit(&mut self, ops: &[Op]) -> Pending {
        let pending = submit(&self.db, ops).unwrap();
        self.note(ops, pending.version());
        pending
    }

    fn checkpoint(&self) {
        assert!(self.db.checkpoint().unwrap().written);
    }

    fn compact(&self) -> u64 {
        self.db.compact(CompactMode::WalOnly).unwrap().wal_segments_removed
    }

    fn expect(&self, db: &Database, what: &str) {
        let found = content_now(db).unwrap_or_else(|error| panic!("{what}: {error}"));
        let (version, model) = self.models.last().unwrap();
        assert_eq!(model.compare(&found), [], "{what}");
        assert_eq!(db.current_version(), *version, "{what}");
    }

    /// What is on the disk opens to exactly what was committed, before and after it is loaded
    /// and after a compaction, twice.
    fn expect_reopened(&self, disk: &SimDisk, what: &str) {
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
    fn expect_survives(&self, what: &str) {
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
type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// A disk that does something meanwhile: before a file with this extension is created, or opened.
#[derive(Debug)]
struct Hooked(SimDisk, Hook);

struct Hook {
    creating: bool,
    extension: &'static str,
    work: Meanwhile,
}

impl Hook {
    fn at(&self, creating: bool, path: &Path) {
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

fn submit(db: &Database, ops: &[Op]) -> Result<Pending, Error> {
    let mut tx = db.begin()?;
    ops.iter().try_for_each(|op| op.apply(&mut tx))?;
    Ok(tx.submit()?.expect("it writes something"))
}

fn commit(db: &Database, ops: &[Op]) -> Version {
    db.transaction(|tx| ops.iter().try_for_each(|op| op.apply(tx))).unwrap().1.version()
}

fn paths(disk: &SimDisk, part: &str) -> Vec<String> {
    disk.paths().into_iter().filter(|path| path.contains(part)).collect()
}

fn snapshots(disk: &SimDisk) -> Vec<String> {
    paths(disk, "db/SNAPSHOTS/")
}

/// The footer of the newest snapshot is zeros now: it cannot be opened.
fn spoil_newest(disk: &SimDisk) {
    let newest = snapshots(disk).pop().unwrap();
    disk.tamper(&newest, |bytes| {
        let from = bytes.len() - 40;
        bytes[from..].fill(0);
    });
}

/// Something in the first block of a snapshot is another byte now.
fn spoil_block(disk: &SimDisk, path: &str) {
    disk.tamper(path, |bytes| bytes[600] ^= 0x10);
}

// ---- Watermarks and the log -------------------------------------------------------------

#[test]
fn the_watermark_is_below_every_commit_in_flight() {
    for mode in [DurabilityMode::Strict, DurabilityMode::Buffered] {
        let mut story = Story::with(config(mode));
        story.commits("a", 3);
        let first = story.submit(&[put("flying", 50)]);
        let second = story.submit(&large("flying"));
        let info = story.db.checkpoint().unwrap();
        assert!(info.watermark < first.version(), "{info:?}");
        story.db.compact(CompactMode::WalOnly).unwrap();
        first.wait().unwrap();
        second.wait().unwrap();
        story.expect_survives("with commits in flight at the checkpoint");
        story.commits("b", 60);
        story.compact();
        story.expect_survives("and more commits");
    }
}

/// The beginning of a streamed transaction lies in segments that a snapshot would make
/// superfluous, were it not for its end, which comes later.
#[test]
fn a_segment_goes_by_its_last_version_also_with_a_stream_across_the_checkpoint() {
    for mode in [DurabilityMode::Strict, DurabilityMode::Buffered] {
        for compact_within in [false, true] {
            let mut story = Story::with(config(mode));
            story.commits("a", 60);
            let pending = story.submit(&large("stream"));
            story.checkpoint();
            if compact_within {
                assert!(story.compact() > 0, "what lies before the stream goes");
            }
            // Killed now, the stream never was.
            let killed = story.disk.killed();
            let db = builder(&killed, story.config.clone()).open_existing().unwrap();
            let kept = &story.models[story.models.len() - 2].1;
            assert_eq!(kept.compare(&content_now(&db).unwrap()), []);
            drop(db);
            pending.wait().unwrap();
            story.expect_survives("after the commit of the stream");
            story.compact();
            story.expect_survives("compacted behind the stream");
            story.commits("b", 40);
            story.checkpoint();
            assert!(story.compact() > 0, "the segments of the stream go at last");
            story.expect_survives("with a snapshot that has the stream");
        }
    }
}

/// The stream ends after the snapshot's view was opened and before the snapshot is named: its
/// first segment holds nothing that is newer than the snapshot but its parts.
#[test]
fn a_stream_that_ends_while_a_snapshot_is_written_keeps_its_first_segment() {
    for mode in [DurabilityMode::Strict, DurabilityMode::Buffered] {
        let mut story = Story::with(config(mode));
        let meanwhile = Meanwhile::default();
        // Its view is open then, and it is not named.
        let hook = Hook { creating: true, extension: "chk", work: meanwhile.clone() };
        let hooked = Hooked(story.disk.clone(), hook);
        story.db.close().unwrap();
        let opening = builder(&story.disk, story.config.clone()).disk(Arc::new(hooked));
        story.db = opening.open_existing().unwrap();
        story.commits("a", 60);
        let pending = story.submit(&large("stream"));
        let small = put("meanwhile", 10);
        let other = story.submit(std::slice::from_ref(&small));
        let work = move || {
            pending.wait().unwrap();
            other.wait().unwrap();
        };
        *meanwhile.lock().unwrap() = Some(Box::new(work));
        story.checkpoint();
        assert!(meanwhile.lock().unwrap().is_none(), "it was done");
        story.expect_survives("named after the stream has ended");
        assert!(story.compact() > 0);
        story.expect_survives("and compacted");
        story.commits("b", 30);
        story.checkpoint();
        story.compact();
        story.expect_survives("and more");
    }
}

/// Somebody asks for a checkpoint while another one is being written: it waits, has what was
/// committed meanwhile, and is a snapshot of its own.
#[test]
fn two_checkpoints_at_once_are_one_after_the_other() {
    let mut story = Story::new();
    let meanwhile = Meanwhile::default();
    // The first has chosen its version and its number then.
    let hook = Hook { creating: true, extension: "chk", work: meanwhile.clone() };
    let hooked = Hooked(story.disk.clone(), hook);
    story.db.close().unwrap();
    let opening = builder(&story.disk, story.config.clone()).disk(Arc::new(hooked));
    story.db = opening.open_existing().unwrap();
    story.commits("a", 20);
    let (other, ops) = (story.db.clone(), vec![put("meanwhile", 100), delete("a3")]);
    let (writes, handle) = (ops.clone(), Arc::new(Mutex::new(None)));
    let begun = handle.clone();
    *meanwhile.lock().unwrap() = Some(Box::new(move || {
        commit(&other, &writes);
        let second = std::thread::spawn(move || other.checkpoint());
        // It is given the time to do harm.
        for _ in 0..50 {
            if second.is_finished() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        *begun.lock().unwrap() = Some((second.is_finished(), second));
    }));
    let first = story.db.checkpoint().unwrap();
    let (finished, second) = handle.lock().unwrap().take().unwrap();
    let second = second.join().unwrap().unwrap();
    assert!(!finished, "the second went on while the first was being written");
    assert!(first.written && second.written);
    assert_eq!((second.snapshot, second.watermark), (first.snapshot + 1, first.watermark.next()));
    story.note(&ops, second.watermark);
    assert_eq!(story.db.verify().unwrap(), []);
    story.expect_survives("with two checkpoints at once");
}

/// The files that a read-only handle knows of go away because newer ones took their place: that
/// is no damage. What the newer ones have is.
#[test]
fn verify_of_a_reader_follows_the_writer() {
    let mut story = Story::new();
    story.commits("a", 20);
    story.checkpoint();
    story.commits("b", 20);
    story.checkpoint();
    let reader = builder(&story.disk, story.config.clone()).open_read_only().unwrap();
    assert_eq!(reader.verify().unwrap(), []);
    for turn in 0..3 {
        story.commits(&format!("turn{turn}"), 20);
        story.checkpoint();
        story.compact();
    }
    assert_eq!(reader.verify().unwrap(), [], "what it was opened with is not there any more");
    let newest = snapshots(&story.disk).pop().unwrap();
    spoil_block(&story.disk, &newest);
    let damaged = reader.verify().unwrap();
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    assert!(newest.ends_with(&damaged[0].file), "{damaged:?}");
}

/// What a reader is about to open goes away: it looks again, and finds no damage.
#[test]
fn a_reader_looks_again_when_compaction_takes_files_away() {
    for extension in ["chk", "seg"] {
        for times in 1..4 {
            let mut story = Story::new();
            story.commits("a", 20);
            story.checkpoint();
            story.compact();
            story.commits("b", 20);
            let meanwhile = Meanwhile::default();
            let hook = Hook { creating: false, extension, work: meanwhile.clone() };
            let hooked = Arc::new(Hooked(story.disk.clone(), hook));
            let mut model = story.models.last().unwrap().1.clone();
            let ops: Vec<_> =
                (0..times).map(|n| [put(&format!("c{n}"), 20), delete("a1")]).collect();
            let (db, writes) = (story.db.clone(), ops.clone());
            *meanwhile.lock().unwrap() = Some(Box::new(move || {
                for ops in &writes {
                    commit(&db, ops);
                    assert!(db.checkpoint().unwrap().written);
                    db.compact(CompactMode::WalOnly).unwrap();
                }
            }));
            let reader = builder(&story.disk, story.config.clone()).disk(hooked).open_read_only();
            let reader = reader.unwrap_or_else(|error| panic!("{extension}: {error}"));
            assert!(meanwhile.lock().unwrap().is_none(), "it was done");
            let before = model.compare(&content_now(&reader).unwrap()).is_empty();
            for ops in &ops {
                model.apply(ops, Version(model_version(&model) + 1));
            }
            let after = model.compare(&content_now(&reader).unwrap()).is_empty();
            assert!(before || after, "{extension}: neither what was nor what is");
            assert!(
                !matches!(reader.recovery_report().snapshots, SnapshotClass::Fallback),
                "{extension}: {}",
                reader.recovery_report()
            );
        }
    }
}

/// The newest version in a model.
fn model_version(model: &ReferenceModel) -> u64 {
    model.content().values().map(|(version, _)| version.0).max().unwrap_or(0)
}

/// The abort of a stream could not be written, so it comes with the next stream, behind a
/// checkpoint.
#[test]
fn a_stream_that_is_given_up_across_a_checkpoint_goes_with_its_segments() {
    for compact_within in [false, true] {
        let mut story = Story::with(config(DurabilityMode::Buffered));
        story.commits("a", 20);
        story.disk.inject(Fault::once(StepKind::Create, 1, ENOSPC).sticky());
        let failed = submit(&story.db, &large("lost")).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Io);
        story.disk.heal();
        story.checkpoint();
        if compact_within {
            story.compact();
        }
        story.expect_survives("with a stream that was given up");
        story.commits("b", 3);
        let ops = large("next");
        story.commit(&ops);
        story.expect_survives("its abort is written");
        story.checkpoint();
        story.compact();
        story.expect_survives("and its segments are gone");
        story.commits("c", 30);
        story.checkpoint();
        assert!(story.compact() > 0);
        story.expect_survives("and more");
    }
}

#[test]
fn the_version_counter_survives_compaction_and_reopening() {
    for close in [true, false] {
        let mut story = Story::new();
        let mut newest = Version::ZERO;
        for turn in 0..4 {
            story.commits(&format!("t{turn}"), 12);
            story.db.compact(CompactMode::Full).unwrap();
            newest = newest.max(story.db.current_version());
            if close {
                story.db.close().unwrap();
            }
            let disk = story.disk.killed();
            story.db = builder(&disk, story.config.clone()).open_existing().unwrap();
            story.disk = disk;
            assert_eq!(story.db.current_version(), newest, "reopening gives out nothing");
            let version = story.commit(&[put("next", 10)]);
            assert!(version > newest, "{version} after {newest}");
            newest = version;
            let queued = submit(&story.db, &[put("queued", 10)]).unwrap();
            newest = newest.max(queued.version());
            queued.wait().unwrap();
            story.note(&[put("queued", 10)], newest);
        }
    }
}

// ---- Deletes ----------------------------------------------------------------------------

/// Every order of checkpoint, compaction, fallback and reopening behind a delete.
#[test]
fn deleted_keys_stay_deleted_in_every_order() {
    #[derive(Clone, Copy, Debug)]
    enum Do {
        Checkpoint,
        WalOnly,
        Full,
        Close,
        Kill,
        Fallback,
    }
    const ALL: [Do; 6] = [Do::Checkpoint, Do::WalOnly, Do::Full, Do::Close, Do::Kill, Do::Fallback];
    let mut fallbacks = 0;
    for code in 0..ALL.len().pow(4) {
        let steps: Vec<_> = (0..4).map(|n| ALL[code / ALL.len().pow(n) % ALL.len()]).collect();
        let mut story = Story::with(config(DurabilityMode::Buffered));
        story.commit(&[put("stays", 10), put("goes", 10), put("returns", 10)]);
        story.commit(&[Op::Append("r".into(), "s".into(), Value::Int(1))]);
        story.checkpoint();
        story.commit(&[delete("goes"), delete("returns")]);
        for step in &steps {
            match step {
                Do::Checkpoint => drop(story.db.checkpoint().unwrap()),
                Do::WalOnly => drop(story.db.compact(CompactMode::WalOnly).unwrap()),
                Do::Full => drop(story.db.compact(CompactMode::Full).unwrap()),
                _ => {
                    if matches!(step, Do::Close) {
                        story.db.close().unwrap();
                    }
                    let disk = story.disk.killed();
                    if matches!(step, Do::Fallback) && named_snapshots(&disk) > 1 {
                        spoil_newest(&disk);
                        fallbacks += 1;
                    }
                    story.db = builder(&disk, story.config.clone()).open_existing().unwrap();
                    story.disk = disk;
                }
            }
            story.expect(&story.db, &format!("{steps:?}"));
        }
        // The tombstone is not needed any more, and a new value is not hidden by it.
        story.commit(&[put("returns", 11)]);
        story.expect(&story.db, &format!("{steps:?}, written again"));
        let disk = story.disk.killed();
        let db = builder(&disk, story.config.clone()).open_existing().unwrap();
        story.expect(&db, &format!("{steps:?}, at the end"));
        db.wait_loaded().unwrap();
        story.expect(&db, &format!("{steps:?}, loaded at the end"));
    }
    assert!(fallbacks > 20, "{fallbacks}");
}

/// How many snapshots the MANIFEST names, as its length tells: an entry has five numbers.
fn named_snapshots(disk: &SimDisk) -> usize {
    let bytes = disk.bytes("db/MANIFEST").unwrap();
    let count = &bytes[16 + 16 + 8 * 10..][..8];
    usize::try_from(u64::from_le_bytes(count.try_into().unwrap())).unwrap()
}

/// The only row of a key lies in the table that is not loaded, its tombstone in memory.
#[test]
fn a_tombstone_for_a_row_that_is_not_loaded_is_kept() {
    let mut story = Story::new();
    story.commit(&[put("goes", 10), put("stays", 10)]);
    story.checkpoint();
    story.compact();
    story.db.close().unwrap();
    let db = builder(&story.disk, story.config.clone()).open_existing().unwrap();
    story.db = db;
    story.commit(&[delete("goes")]);
    story.expect(&story.db, "deleted in front of the table");
    story.expect_survives("not loaded");
    story.db.wait_loaded().unwrap();
    story.expect(&story.db, "loaded");
    story.db.compact(CompactMode::Full).unwrap();
    story.expect_survives("compacted");
}

#[test]
fn open_views_keep_what_they_show_through_checkpoint_load_and_compaction() {
    let mut story = Story::new();
    story.commits("k", 10);
    story.commit(&[put("k0", 11), delete("k1")]);
    story.checkpoint();
    story.db.close().unwrap();
    story.db = builder(&story.disk, story.config.clone()).open_existing().unwrap();
    let mut views = Vec::new();
    for turn in 0..6 {
        let (version, model) = story.models.last().unwrap().clone();
        let view = story.db.view().unwrap();
        assert_eq!(view.version(), version);
        views.push((view, model));
        story.commit(&[put("k0", 20 + turn), delete(&format!("k{}", turn + 2))]);
        match turn {
            1 => story.db.wait_loaded().unwrap(),
            2 => drop(story.db.checkpoint().unwrap()),
            3 => drop(story.db.compact(CompactMode::WalOnly).unwrap()),
            4 => drop(story.db.compact(CompactMode::Full).unwrap()),
            _ => {}
        }
        for (view, model) in &views {
            let found = content_of(view).unwrap();
            assert_eq!(model.compare(&found), [], "turn {turn}, version {}", view.version());
        }
    }
}

// ---- Half loaded -----------------------------------------------------------------------

/// A snapshot of several sections, each loaded or not, in every combination: reads, scans,
/// deletes and commits in front of it are the same; so is a crash and what is opened then.
#[test]
fn a_half_loaded_snapshot_reads_as_a_loaded_one() {
    let mut story = Story::with(config(DurabilityMode::Buffered).segment_bytes(1 << 20));
    for part in 0..14 {
        let puts: Vec<_> = (0..25).map(|n| put(&format!("k{part:02}{n:02}"), 9000)).collect();
        story.commit(&puts);
    }
    story.checkpoint();
    story.compact();
    story.commit(&[put("k0000", 5), delete("k0701"), delete("k1324"), put("k0650", 7)]);
    story.db.close().unwrap();
    let sections = {
        let db = builder(&story.disk, story.config.clone()).open_existing().unwrap();
        db.stats().unwrap().load.sections
    };
    assert!(sections >= 3, "{sections}");
    for loaded in 0..1_usize << sections {
        let disk = story.disk.killed();
        let db = builder(&disk, story.config.clone()).open_existing().unwrap();
        for section in (0..sections).filter(|section| loaded >> section & 1 == 1) {
            db.storage().load_section(section).unwrap();
        }
        story.expect(&db, &format!("loaded {loaded:b}"));
        let view = db.view().unwrap();
        let mut model = story.models.last().unwrap().1.clone();
        let ops = [delete("k0100"), delete("k1300"), put("k0701", 3), put("zzz", 1), put("k", 1)];
        let version = commit(&db, &ops);
        model.apply(&ops, version);
        let same = |db: &Database, what: &str| {
            assert_eq!(model.compare(&content_now(db).unwrap()), [], "loaded {loaded:b}, {what}");
        };
        same(&db, "written to");
        let killed = disk.killed();
        db.wait_loaded().unwrap();
        same(&db, "then loaded");
        assert_eq!(
            story.models.last().unwrap().1.compare(&content_of(&view).unwrap()),
            [],
            "loaded {loaded:b}, the view from before"
        );
        drop(view);
        db.compact(CompactMode::Full).unwrap();
        same(&db, "then compacted");
        drop(db);
        let db = builder(&killed, story.config.clone()).open_existing().unwrap();
        same(&db, "then killed");
        let db = builder(&disk.killed(), story.config.clone()).open_existing().unwrap();
        same(&db, "then compacted and killed");
    }
}

// ---- Damaged snapshots ------------------------------------------------------------------

/// Compaction must not give up what would replace a snapshot that nobody has read.
#[test]
fn a_bad_block_that_is_met_late_stops_checkpoint_and_compaction_and_deletes_nothing() {
    let mut story = Story::new();
    story.commits("a", 30);
    story.checkpoint();
    story.compact();
    story.commits("b", 30);
    let only = snapshots(&story.disk).pop().unwrap();
    let disk = story.disk.killed();
    spoil_block(&disk, &only);
    let db = builder(&disk, story.config.clone()).open_existing().unwrap();
    let before: BTreeSet<_> = paths(&disk, "db/WAL/").into_iter().collect();
    for _ in 0..2 {
        assert_eq!(db.checkpoint().unwrap_err().kind(), ErrorKind::Corruption);
        assert_eq!(db.compact(CompactMode::Full).unwrap_err().kind(), ErrorKind::Corruption);
        // Nothing can be superfluous, whether this says so or not.
        let _ = db.compact(CompactMode::WalOnly);
        let after: BTreeSet<_> = paths(&disk, "db/WAL/").into_iter().collect();
        assert!(before.is_subset(&after), "{before:?} became {after:?}");
        assert!(snapshots(&disk).contains(&only));
    }
    assert_eq!(content_now(&db).unwrap_err().kind(), ErrorKind::Corruption);
    assert_eq!(db.wait_loaded().unwrap_err().kind(), ErrorKind::Corruption);
}

#[test]
fn compaction_reads_the_newest_snapshot_back_before_it_trusts_it() {
    let mut story = Story::new();
    story.commits("a", 30);
    story.checkpoint();
    let newest = snapshots(&story.disk).pop().unwrap();
    spoil_block(&story.disk, &newest);
    let before = paths(&story.disk, "db/WAL/");
    let error = story.db.compact(CompactMode::WalOnly).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    assert!(error.to_string().contains("SNAPSHOTS/"), "{error}");
    assert_eq!(paths(&story.disk, "db/WAL/"), before);
    // The log has everything still.
    story.commits("b", 3);
    assert_eq!(story.db.verify().unwrap().len(), 1);
    story.checkpoint();
    story.compact();
    story.expect_survives("with a new snapshot");
}

#[test]
fn a_corrupt_newest_snapshot_never_blocks_opening_while_the_older_and_its_log_are_there() {
    let mut story = Story::new();
    story.commits("a", 20);
    story.checkpoint();
    story.compact();
    story.commits("b", 20);
    story.commit(&[delete("a3"), put("a4", 5)]);
    story.checkpoint();
    story.commits("c", 5);
    let newest = snapshots(&story.disk).pop().unwrap();
    let length = story.disk.bytes(&newest).unwrap().len();
    let damages: [(&str, Damage<'_>); 5] = [
        ("removed", &|disk| disk.lose(&newest)),
        ("empty", &|disk| disk.tamper(&newest, Vec::clear)),
        ("cut", &|disk| disk.tamper(&newest, |bytes| bytes.truncate(length / 2))),
        ("zeros", &|disk| disk.tamper(&newest, |bytes| bytes.fill(0))),
        ("a bad block", &|disk| spoil_block(disk, &newest)),
    ];
    for (name, damage) in damages {
        let disk = story.disk.killed();
        damage(&disk);
        let reading = builder(&disk, story.config.clone()).open_read_only().unwrap();
        reading.wait_loaded().unwrap();
        story.expect(&reading, &format!("{name}, reading"));
        let db = builder(&disk, story.config.clone()).open_existing().unwrap();
        let report = db.recovery_report().clone();
        db.wait_loaded().unwrap();
        story.expect(&db, name);
        if name == "a bad block" {
            assert_eq!(
                (report.snapshots, db.stats().unwrap().load.rebuilt),
                (SnapshotClass::Sound, 1)
            );
        } else {
            assert_eq!(report.snapshots, SnapshotClass::Fallback, "{name}: {report}");
            assert!(
                report.left_anything_out() && report.to_string().contains("SNAPSHOTS/"),
                "{report}"
            );
        }
        drop(db);
        story.expect_reopened(&disk, name);
    }
}

/// Whatever part of the newest snapshot is bad, the next one takes its place.
#[test]
fn a_checkpoint_gets_over_any_damage_of_the_newest_snapshot() {
    let mut story = Story::with(config(DurabilityMode::Strict).retention(Retention::KeepAll));
    story.commits("a", 20);
    story.checkpoint();
    story.compact();
    story.commits("b", 20);
    story.checkpoint();
    story.commits("c", 2);
    let newest = snapshots(&story.disk).pop().unwrap();
    let length = story.disk.bytes(&newest).unwrap().len();
    let mut failures = Vec::new();
    for at in (0..length).step_by(23) {
        let disk = story.disk.killed();
        disk.flip_bit(&newest, at * 8);
        let gone_over = || -> Result<(), Error> {
            let db = builder(&disk, story.config.clone()).open_existing()?;
            db.wait_loaded()?;
            db.view_at(story.models[25].0)?;
            db.checkpoint()?;
            db.compact(CompactMode::WalOnly)?;
            story.expect(&db, "compacted");
            Ok(())
        };
        if let Err(error) = gone_over() {
            failures.push(format!("byte {at} of {length}: {error}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures: {:#?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
}

// ---- Poison and full disks --------------------------------------------------------------

#[test]
fn a_poisoned_log_writes_no_snapshot_and_no_manifest() {
    for mode in [DurabilityMode::Strict, DurabilityMode::Buffered] {
        let mut story = Story::with(config(mode));
        story.commits("a", 20);
        story.checkpoint();
        story.commits("b", 3);
        let strict = mode == DurabilityMode::Strict;
        let kind = if strict { StepKind::WriteDurable } else { StepKind::SyncData };
        story.disk.inject(Fault::once(kind, 0, EIO).syncing(FailedSync::LostAtCut));
        let pending = submit(&story.db, &[put("lost", 10)]).unwrap();
        let waited = pending.wait();
        if !strict {
            assert_eq!(waited.unwrap().wait_durable().unwrap_err().kind(), ErrorKind::Unknown);
        }
        let before: Vec<_> =
            story.disk.paths().iter().map(|path| (path.clone(), story.disk.bytes(path))).collect();
        assert_eq!(story.db.checkpoint().unwrap_err().kind(), ErrorKind::Poisoned);
        for compact in [CompactMode::WalOnly, CompactMode::Full] {
            assert_eq!(story.db.compact(compact).unwrap_err().kind(), ErrorKind::Poisoned);
        }
        let retained = story.db.set_retention(Retention::KeepAll).unwrap_err();
        assert_eq!(retained.kind(), ErrorKind::Poisoned);
        assert_eq!(story.db.backup("copy").unwrap_err().kind(), ErrorKind::Poisoned);
        for (path, bytes) in before {
            assert_eq!(story.disk.bytes(&path), bytes, "{path}");
        }
        assert!(paths(&story.disk, "copy/MANIFEST").iter().all(|path| !path.ends_with("MANIFEST")));
    }
}

/// A checkpoint and a compaction fail at each of their steps in turn.
#[test]
fn a_failed_checkpoint_leaves_the_old_state_and_the_database_goes_on() {
    let kinds =
        [StepKind::Create, StepKind::Write, StepKind::Remove, StepKind::SyncAll, StepKind::Rename];
    let mut struck = 0;
    for full in [CompactMode::WalOnly, CompactMode::Full] {
        for (kind, sticky) in kinds.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
            for after in 0..40 {
                let mut story = Story::new();
                story.commits("a", 20);
                story.checkpoint();
                story.compact();
                story.commits("b", 20);
                let fault = Fault::once(kind, after, ENOSPC).landing(100);
                story.disk.inject(if sticky { fault.sticky() } else { fault });
                let made = story.db.checkpoint().map(drop);
                let compacted = made.and_then(|()| story.db.compact(full).map(drop));
                let hit = story.disk.has_struck();
                story.disk.heal();
                let poisoned =
                    matches!(&compacted, Err(error) if error.kind() == ErrorKind::Poisoned);
                if let Err(error) = &compacted {
                    let fine = [ErrorKind::Io, ErrorKind::Poisoned].contains(&error.kind());
                    assert!(fine, "{kind:?} {after}: {error}");
                }
                story.expect_reopened(&story.disk, &format!("{kind:?} {after} {full:?}"));
                if !poisoned {
                    story.commits("c", 2);
                    let again = story.db.compact(CompactMode::Full);
                    again.unwrap_or_else(|error| panic!("{kind:?} {after}, again: {error}"));
                    story.expect_survives(&format!("{kind:?} {after} {full:?}, again"));
                }
                struck += u32::from(hit);
                if !hit {
                    break;
                }
            }
        }
    }
    assert!(struck > 30, "{struck}");
}

#[test]
fn a_checkpoint_on_a_full_disk_fails_and_leaves_nothing() {
    let mut story = Story::new();
    story.commits("a", 40);
    for room in [0, 1000, 5000] {
        story.disk.set_capacity(Some(story.disk.used_bytes() + room));
        let error = story.db.checkpoint().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(snapshots(&story.disk).is_empty(), "{room}");
        story.disk.set_capacity(None);
        story.commits("b", 1);
        story.expect_survives("after a full disk");
    }
    story.checkpoint();
    story.compact();
    story.expect_survives("with space");
}

// ---- Namespaces -------------------------------------------------------------------------

#[test]
fn runs_made_before_at_and_after_a_checkpoint_survive_fallback_and_compaction() {
    let in_run = |run: &str, n: i64| vec![Op::Put(run.into(), "k".into(), Value::Int(n))];
    for mode in [DurabilityMode::Strict, DurabilityMode::Buffered] {
        let mut story = Story::with(config(mode));
        story.commit(&in_run("before", 1));
        story.checkpoint();
        story.compact();
        story.commit(&in_run("before", 2));
        // Given its version before the checkpoint, written after it.
        let first = story.submit(&in_run("around", 2));
        let mut ops = large("x");
        ops.extend(in_run("streamed", 3));
        let second = story.submit(&ops);
        story.checkpoint();
        first.wait().unwrap();
        second.wait().unwrap();
        story.commit(&in_run("after", 4));
        story.expect_survives("runs around a checkpoint");
        story.checkpoint();
        story.expect_survives("in the snapshot");
        story.compact();
        story.expect_survives("compacted");
        story.commit(&in_run("around", 5));
        story.commit(&in_run("last", 6));
        story.checkpoint();
        story.compact();
        story.expect_survives("compacted again");
    }
}

// ---- Copies -----------------------------------------------------------------------------

/// What is in the database in directory `copy`.
fn content_in(disk: &SimDisk, path: &str, config: &DatabaseConfig) -> Result<Content, Error> {
    let db = builder_at(disk, path, config.clone()).open_existing()?;
    db.wait_loaded()?;
    content_now(&db)
}

#[test]
fn an_unfinished_backup_is_no_database_and_a_finished_one_is_complete() {
    let mut story = Story::new();
    story.commits("a", 12);
    story.checkpoint();
    story.commits("b", 3);
    let source: Vec<_> = {
        let disk = story.disk.killed();
        disk.paths().into_iter().map(|path| (path.clone(), disk.bytes(&path))).collect()
    };
    let disk = story.disk.clone();
    disk.record_moments();
    let info = story.db.backup("copy").unwrap();
    disk.note(1);
    assert_eq!(info.version, story.models.last().unwrap().0);
    let mut rng = fastrand::Rng::with_seed(3);
    let (mut unfinished, mut complete, mut failures) = (0, 0, Vec::new());
    for moment in disk.take_moments() {
        let cuts = moment.plans(4, &mut rng).into_iter().map(|plan| moment.cut(&plan));
        for image in cuts.chain([moment.kill()]) {
            for (path, bytes) in source.iter().filter(|(path, _)| !path.ends_with("LOCK")) {
                assert!(image.bytes(path) == *bytes, "{path} is touched");
            }
            match content_in(&image.killed(), "copy", &story.config) {
                Ok(content) => {
                    assert_eq!(story.models.last().unwrap().1.compare(&content), []);
                    complete += 1;
                }
                Err(error) if error.kind() == ErrorKind::NotFound && moment.note() == 0 => {
                    unfinished += 1;
                    // It can be made again in the same place.
                    let db = builder(&image, story.config.clone()).open_existing().unwrap();
                    if let Err(error) = db.backup("copy") {
                        failures.push(format!("{moment:?}, made again: {error}"));
                    }
                }
                Err(error) => failures.push(format!("{moment:?}: {} {error}", error.kind())),
            }
        }
    }
    println!("{unfinished} unfinished, {complete} complete, {} failures", failures.len());
    assert!(
        failures.is_empty(),
        "{} failures: {:#?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    assert!(unfinished > 10 && complete > 3);
}

/// The runs of a copy can be written to, and new ones made.
fn expect_usable(disk: &SimDisk, path: &str, config: &DatabaseConfig, model: &ReferenceModel) {
    let mut model = model.clone();
    let runs: Vec<String> = model
        .content()
        .keys()
        .filter_map(|item| match item {
            Item::Run(name) => Some(name.clone()),
            _ => None,
        })
        .collect();
    let db = builder_at(disk, path, config.clone()).open_existing().unwrap();
    for name in runs.into_iter().chain(["brand new".into()]) {
        let op = [Op::Put(name.clone(), "later".into(), Value::Int(7))];
        let done = db.transaction(|tx| op[0].apply(tx));
        let done = done.unwrap_or_else(|error| panic!("{path}: writing to run {name:?}: {error}"));
        model.apply(&op, done.1.version());
    }
    db.close().unwrap();
    let content = content_in(disk, path, config).unwrap();
    assert_eq!(model.compare(&content), [], "{path}: written to");
}

/// The runs of a database that was opened again are all in a copy of an older version.
#[test]
fn a_restore_at_a_version_has_the_content_of_that_version() {
    let mut story = Story::with(config(DurabilityMode::Strict).retention(Retention::KeepAll));
    for n in 0..6 {
        story.commit(&[Op::Put(format!("run{n}"), "k".into(), Value::Int(n)), put("shared", 20)]);
        if n == 2 {
            story.checkpoint();
        }
    }
    // Several runs in one group of the log.
    let together: Vec<_> = (6..9)
        .map(|n| story.submit(&[Op::Put(format!("run{n}"), "k".into(), Value::Int(n))]))
        .collect();
    together.into_iter().for_each(|pending| drop(pending.wait().unwrap()));
    for reopened in [false, true] {
        if reopened {
            story.db.close().unwrap();
            story.db = builder(&story.disk, story.config.clone()).open_existing().unwrap();
        }
        for (n, (version, model)) in story.models.iter().enumerate().skip(1) {
            let at = format!("at-{reopened}-{n}");
            story.db.backup_at(&at, *version).unwrap();
            let content = content_in(&story.disk, &at, &story.config).unwrap();
            assert_eq!(model.compare(&content), [], "version {version}, reopened {reopened}");
            expect_usable(&story.disk, &at, &story.config, model);
        }
    }
    story.db.backup("whole").unwrap();
    for (n, (version, model)) in story.models.iter().enumerate().skip(1) {
        let to = format!("restored-{n}");
        let backup = builder_at(&story.disk, "whole", story.config.clone());
        restore_with(backup, &to, Some(*version)).unwrap();
        let content = content_in(&story.disk, &to, &story.config).unwrap();
        assert_eq!(model.compare(&content), [], "restored at {version}");
    }
    let missing = restore_with(
        builder_at(&story.disk, "whole", story.config.clone()),
        "no",
        Some(Version(99)),
    );
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}

/// A copy is a database like any other: it takes commits, checkpoints, compaction, reopening.
#[test]
fn a_copy_goes_on_as_a_database() {
    let mut story = Story::new();
    story.commits("a", 12);
    story.db.backup("db2").unwrap();
    let mut model = story.models.last().unwrap().1.clone();
    let mut newest = story.db.current_version();
    for turn in 0..4 {
        let db = builder_at(&story.disk, "db2", story.config.clone()).open_existing().unwrap();
        let ops = [put(&format!("turn{turn}"), 30), delete(&format!("a{turn}"))];
        let version = commit(&db, &ops);
        assert!(version > newest);
        newest = version;
        model.apply(&ops, version);
        match turn {
            1 => drop(db.checkpoint().unwrap()),
            2 => drop(db.compact(CompactMode::Full).unwrap()),
            _ => {}
        }
        assert_eq!(model.compare(&content_now(&db).unwrap()), [], "turn {turn}");
        db.close().unwrap();
    }
    story.expect(&story.db, "the original");
}

// ---- Salvage and accepted loss ----------------------------------------------------------

/// Each class of damage: what comes out is a state that was, at least the longest valid prefix,
/// or, where a snapshot is damaged, rows that were.
#[test]
fn salvage_takes_the_longest_valid_prefix_and_never_invents() {
    let mut story = Story::new();
    story.commits("a", 20);
    story.checkpoint();
    story.compact();
    story.commits("b", 20);
    story.checkpoint();
    story.commits("c", 20);
    story.db.close().unwrap();
    let all = story.models.len() - 1;
    let wal = paths(&story.disk, "db/WAL/");
    let snaps = snapshots(&story.disk);
    let last = wal.last().unwrap().clone();
    let damages: Vec<(String, usize, OwnedDamage)> = vec![
        ("nothing".into(), all, Box::new(|_| {})),
        ("no MANIFEST".into(), all, Box::new(|disk| disk.lose("db/MANIFEST"))),
        ("a bad MANIFEST".into(), all, Box::new(|disk| disk.flip_bit("db/MANIFEST", 333))),
        (
            "a cut log".into(),
            40,
            Box::new({
                let last = last.clone();
                move |disk| disk.tamper(&last, |bytes| bytes.truncate(5000))
            }),
        ),
        ("a bad newest snapshot".into(), all, Box::new(spoil_newest)),
        (
            "a bad block".into(),
            all,
            Box::new({
                let newest = snaps.last().unwrap().clone();
                move |disk| spoil_block(disk, &newest)
            }),
        ),
        ("no newest segment".into(), 40, Box::new(move |disk| disk.lose(&last))),
    ];
    for (name, least, damage) in damages {
        let disk = story.disk.killed();
        damage(&disk);
        let before = disk.fingerprint();
        let trial = salvage_with(builder(&disk, story.config.clone()), None).unwrap();
        assert_eq!(disk.fingerprint(), before, "{name}: a trial changes nothing");
        let report = salvage_with(builder(&disk, story.config.clone()), Some(Path::new("new")));
        let report = report.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((trial.version, trial.rows), (report.version, report.rows), "{name}");
        let content = content_in(&disk, "new", &story.config).unwrap();
        let kept = story.models.partition_point(|model| model.0 <= report.version) - 1;
        assert_eq!(story.models[kept].1.compare(&content), [], "{name}: {report:?}");
        assert!(kept >= least, "{name}: {kept} of {least}: {report:?}");
        if kept < all {
            assert!(!report.losses.is_empty(), "{name}");
        }
    }
    // No snapshot can be opened: what can be read of the newest is taken all the same.
    let disk = story.disk.killed();
    for snapshot in &snaps {
        disk.tamper(snapshot, |bytes| {
            let from = bytes.len() - 40;
            bytes[from..].fill(0);
        });
    }
    let report =
        salvage_with(builder(&disk, story.config.clone()), Some(Path::new("new"))).unwrap();
    let content = content_in(&disk, "new", &story.config).unwrap();
    let whole = story.models[all].1.content();
    assert!(content.iter().all(|(item, row)| whole.get(item) == Some(row)), "invented");
    let old = |item: &Item| matches!(item, Item::Kv(_, key) if key.starts_with(b"a"));
    assert_eq!(content.keys().filter(|item| old(item)).count(), 20, "{report:?}");
    assert!(!report.losses.is_empty());
    // Damage that cannot be made good: rows are missing, none is wrong.
    for at in (100..4000).step_by(150) {
        let disk = story.disk.killed();
        for snapshot in &snaps {
            disk.tamper(snapshot, |bytes| bytes[at] ^= 0x40);
        }
        let report = salvage_with(builder(&disk, story.config.clone()), Some(Path::new("new")));
        let report = match report {
            Ok(report) => report,
            Err(error) => panic!("both snapshots bad at {at}: {error}"),
        };
        let content = content_in(&disk, "new", &story.config).unwrap();
        let whole = story.models[all].1.content();
        let invented: Vec<_> =
            content.iter().filter(|(item, row)| whole.get(*item) != Some(row)).collect();
        assert!(invented.is_empty(), "bad at {at}: {invented:?}");
        if content.len() < whole.len() {
            assert!(!report.losses.is_empty(), "bad at {at}: rows are missing, and nobody says so");
        }
    }
}

/// A log that simply ends too early, opened in place: versions go on above all old ones, also
/// if the opening crashes at any of its steps.
#[test]
fn an_accepted_loss_opens_in_place_and_survives_crashes() {
    let mut story = Story::with(config(DurabilityMode::Buffered).segment_bytes(64 << 10));
    story.commits("a", 20);
    story.checkpoint();
    story.commits("b", 24);
    story.db.close().unwrap();
    let newest = story.db.current_version();
    let last = paths(&story.disk, "db/WAL/").pop().unwrap();
    let disk = story.disk.killed();
    let length = disk.bytes(&last).unwrap().len();
    let accept = story.config.clone().recovery_policy(RecoveryPolicy::AcceptLoss);
    let mut lost_tails = 0;
    for cut in (4096..length).step_by(32) {
        let image = disk.killed();
        image.tamper(&last, |bytes| bytes.truncate(cut));
        let Err(refused) = builder(&image, story.config.clone()).open_existing() else {
            panic!("cut at {cut} opened")
        };
        if !refused.to_string().contains("cut off") {
            continue;
        }
        lost_tails += 1;
        if lost_tails % 7 != 1 {
            continue;
        }
        image.record_moments();
        let check = |image: &SimDisk, what: &str| {
            let db = builder(image, accept.clone()).open_existing();
            let db = db.unwrap_or_else(|error| panic!("cut at {cut}, {what}: {error}"));
            let kept = story.models.iter().rposition(|model| model.0 <= db.current_version());
            let found = content_now(&db).unwrap();
            assert_eq!(story.models[kept.unwrap()].1.compare(&found), [], "cut at {cut}, {what}");
            let version = commit(&db, &[put("after", 10)]);
            assert!(version > newest, "cut at {cut}, {what}: {version} was given out before");
            db.close().unwrap();
            // From here on it is a database without loss.
            let db = builder(image, story.config.clone()).open_existing();
            let db = db.unwrap_or_else(|error| panic!("cut at {cut}, {what}, then: {error}"));
            assert_eq!(db.recovery_report().log, LogClass::Clean);
        };
        drop(builder(&image, accept.clone()).open_existing().unwrap());
        let mut rng = fastrand::Rng::with_seed(5);
        for moment in image.take_moments() {
            for plan in moment.plans(2, &mut rng) {
                check(&moment.cut(&plan), &format!("{moment:?} {plan}"));
            }
            check(&moment.kill(), &format!("{moment:?} killed"));
        }
    }
    assert!(lost_tails > 5, "{lost_tails}");
}
