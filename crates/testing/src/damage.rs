//! Damage at rest: bytes of a database's files changed behind its back, and what must come of it.
//!
//! Everything acknowledged is there, or opening or reading refuses and names the damage and
//! changes nothing. Only the last group of a log that was not closed may be left out, and the
//! report says so. [`Subject::try_damage`] says which of these it was, or what went wrong.
//!
//! Subjects are made by panicking where a test should: this is not for programs.
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use steadfast_engine::{
    CompactMode, Database, DatabaseConfig, DurabilityMode, Error, ErrorKind, LogClass,
    SnapshotClass, Value,
};

use crate::model::{Content, Op, content_now};
use crate::sim::SimDisk;
use crate::workload::{Action, Driver, History, Workload, builder};

/// What became of an opening: a class that may be, or what must not be.
pub type Outcome = Result<&'static str, String>;

/// A database that nobody has open, and what is known of it.
#[derive(Debug)]
pub struct Subject {
    /// Where it lies.
    pub disk: SimDisk,
    config: DatabaseConfig,
    history: History,
    /// The fewest commits that damage may leave.
    pub low: usize,
    closed: bool,
    /// Files are cut: between two groups nothing but a promise tells a cut from the end, and a
    /// log that was not closed has no promise at its end.
    pub cut: bool,
}

/// A small database of a program drawn from a seed.
pub fn subject(mode: DurabilityMode, closed: bool, length: usize) -> Subject {
    subject_of(Workload::seeded(11, mode, length), closed)
}

/// A database with two snapshots and the log behind the older one, or, compacted, with one.
pub fn with_snapshots(mode: DurabilityMode, closed: bool, compacted: bool) -> Subject {
    let subject = subject_of(snapshot_workload(mode, compacted), closed);
    assert_eq!(subject.snapshots().len(), if compacted { 1 } else { 2 });
    subject
}

/// The program of [`with_snapshots`].
pub fn snapshot_workload(mode: DurabilityMode, compacted: bool) -> Workload {
    let run = || "run".to_owned();
    let put = |n: usize| Op::Put(run(), format!("k{}", n % 9), Value::from(vec![7; 150 + n]));
    let commit = |n: usize| {
        let event = Op::Append(run(), "s".into(), Value::Int(1));
        Action::Commit(vec![
            put(n),
            event,
            Op::Set(run(), "c".into(), Value::Bool(n.is_multiple_of(2))),
        ])
    };
    let mut actions: Vec<_> = (0..8).map(commit).collect();
    actions.extend([Action::Checkpoint, Action::Compact(CompactMode::WalOnly)]);
    actions.extend((8..14).map(commit));
    actions.push(Action::Commit(vec![Op::Delete(run(), "k1".into()), Op::Run("two".into())]));
    let large = |n: usize| Op::Put(run(), format!("large{n}"), Value::from(vec![9; 2300]));
    actions.push(Action::Commit((0..8).map(large).collect()));
    actions.push(Action::Commit((0..8).map(|n| Op::Delete(run(), format!("large{n}"))).collect()));
    actions.push(Action::Checkpoint);
    if compacted {
        actions.push(Action::Compact(CompactMode::WalOnly));
    }
    actions.extend((14..18).map(commit));
    Workload::new(actions, mode)
}

/// The database that a program leaves.
pub fn subject_of(mut workload: Workload, closed: bool) -> Subject {
    let mode = workload.mode;
    if !closed {
        workload.actions.retain(|action| !matches!(action, Action::Reopen));
        // The last group has one commit, so no more than that one can be in doubt.
        let last = Op::Put("run".into(), "last".into(), Value::Null);
        workload.actions.push(Action::Commit(vec![last]));
    }
    let disk = SimDisk::new();
    let (history, db) = Driver::new(disk.clone(), workload.clone()).run();
    assert!(history.errors.is_empty(), "{:?}", history.errors);
    let progress = *history.progress.last().unwrap();
    let (disk, low) = if closed {
        db.unwrap().close().unwrap();
        (disk, progress.acknowledged)
    } else {
        let killed = disk.killed();
        drop(db);
        // The newest promise stands in the log only with the group after it.
        let low = match mode {
            DurabilityMode::Strict => progress.acknowledged - 1,
            _ => 0,
        };
        (killed, low)
    };
    Subject { disk, config: workload.config, history, low, closed, cut: false }
}

/// Whether an error of what is damaged says so, and where.
fn check_error(error: &Error) -> Result<(), String> {
    let kinds = [ErrorKind::Corruption, ErrorKind::Io, ErrorKind::Unsupported];
    if !kinds.contains(&error.kind()) {
        return Err(format!("kind {}: {error}", error.kind()));
    }
    let text = error.to_string();
    if ["WAL", "MANIFEST", "SNAPSHOTS"].iter().any(|file| text.contains(file)) {
        return Ok(());
    }
    Err(format!("names no file: {text}"))
}

impl Subject {
    /// Its files.
    pub fn files(&self) -> Vec<String> {
        self.disk.paths().into_iter().filter(|path| !path.ends_with("LOCK")).collect()
    }

    /// How many commits the floor in the MANIFEST has.
    pub fn promised_by_manifest(&self) -> usize {
        let bytes = self.disk.bytes("db/MANIFEST").unwrap();
        let floor = u64::from_le_bytes(bytes[64..72].try_into().unwrap());
        let count = self.history.versions.partition_point(|version| version.0 <= floor);
        // A checkpoint raises it: it is not read from the wrong place.
        assert!(count > 0 || self.snapshots().is_empty(), "the floor is at {floor}");
        count
    }

    /// The files of its snapshots, oldest first.
    pub fn snapshots(&self) -> Vec<String> {
        self.files().into_iter().filter(|path| path.contains("SNAPSHOTS/")).collect()
    }

    /// Opens a disk with it. A panic is told from an error.
    pub fn open(&self, disk: &SimDisk) -> Result<Result<Database, Error>, String> {
        let open = || builder(disk, self.config.clone()).open();
        catch_unwind(AssertUnwindSafe(open)).map_err(|_| "panicked".to_owned())
    }

    /// After how many commits `content` is what there was.
    fn expect(&self, db: &Database, content: &Content) -> Result<usize, String> {
        let versions = &self.history.versions;
        let kept = versions.partition_point(|version| *version <= db.current_version());
        let differences = self.history.models[kept].compare(content);
        if differences.is_empty() {
            return Ok(kept);
        }
        Err(format!("not the state after {kept} commits: {differences:?}"))
    }

    /// Opens it after `damage`; `None` if that is refused, as it may be: nothing is written then.
    fn open_damaged(&self, damage: impl FnOnce(&SimDisk)) -> Result<Option<Database>, String> {
        let disk = self.disk.killed();
        damage(&disk);
        let before = disk.fingerprint();
        let error = match self.open(&disk)? {
            Ok(db) => return Ok(Some(db)),
            Err(error) => error,
        };
        check_error(&error)?;
        match disk.fingerprint() == before {
            true => Ok(None),
            false => Err(format!("refused and wrote: {error}")),
        }
    }

    /// What became of an opening after `damage`.
    pub fn try_damage(&self, damage: impl FnOnce(&SimDisk)) -> Outcome {
        self.try_damage_to("", damage)
    }

    /// As [`Subject::try_damage`]; if something in the file `path` was changed and is not what
    /// it must be, somebody has to notice.
    pub fn try_damage_to(&self, path: &str, damage: impl FnOnce(&SimDisk)) -> Outcome {
        let Some(db) = self.open_damaged(damage)? else { return Ok("refused") };
        let work = || self.judge(&db, path);
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("panicked".to_owned()))
    }

    /// What became of an opening after any number of damages, which together may take anything
    /// away: it refuses, or shows what was there after some commit, before and after loading.
    pub fn try_anything(&self, damage: impl FnOnce(&SimDisk)) -> Outcome {
        let Some(db) = self.open_damaged(damage)? else { return Ok("refused") };
        for when in ["opened", "loaded"] {
            match content_now(&db) {
                Ok(content) => {
                    self.expect(&db, &content).map_err(|why| format!("{when}: {why}"))?;
                }
                Err(error) => check_error(&error)?,
            }
            if let Err(error) = db.wait_loaded() {
                return check_error(&error).map(|()| "read as damaged");
            }
        }
        Ok("what was once committed")
    }

    fn judge(&self, db: &Database, path: &str) -> Outcome {
        let report = db.recovery_report().clone();
        match content_now(db) {
            Ok(content) => drop(self.expect(db, &content)?),
            // Rebuilt only when it is loaded.
            Err(error) => check_error(&error)?,
        }
        if path == "db/MANIFEST" {
            return Err(format!("a MANIFEST that was changed was believed: {report}"));
        }
        let found = db.verify().map_err(|error| format!("verify: {error}"))?;
        let fallen_back = report.snapshots == SnapshotClass::Fallback;
        if fallen_back && !(report.left_anything_out() && report.to_string().contains("SNAPSHOTS/"))
        {
            return Err(format!("fell back and does not say so: {report}"));
        }
        if let Some(file) = path.strip_prefix("db/")
            && file.starts_with("SNAPSHOTS/")
            && !fallen_back
            && !found.iter().any(|damaged| damaged.file == file)
        {
            return Err(format!("nobody noticed: {report}; {found:?}"));
        }
        if let Err(error) = db.wait_loaded() {
            check_error(&error)?;
            let again = content_now(db).err().ok_or("cannot be loaded, can be read".to_owned())?;
            check_error(&again)?;
            // And what stands in for it must not be thrown away.
            db.checkpoint().err().ok_or("a checkpoint of what cannot be loaded".to_owned())?;
            return Ok("read as damaged");
        }
        let content = content_now(db).map_err(|error| format!("loaded, reading: {error}"))?;
        let kept = self.expect(db, &content)?;
        let versions = &self.history.versions;
        if kept < versions.len() {
            let unsure = matches!(report.log, LogClass::TornUnpromised | LogClass::Ambiguous);
            if self.cut && !self.closed && kept >= self.low && report.log == LogClass::Killed {
                return Ok("cut between two groups");
            }
            if self.closed || kept < self.low || !unsure || !report.left_anything_out() {
                let all = versions.len();
                return Err(format!(
                    "silently less: {kept} of {all} (at least {}): {report}",
                    self.low
                ));
            }
            return Ok("without the tail");
        }
        match (fallen_back, db.stats().unwrap().load.rebuilt) {
            (true, _) => Ok("whole, from the older snapshot"),
            (false, 0) => Ok("whole"),
            (false, _) => Ok("whole, rebuilt"),
        }
    }
}

/// The bits of `bytes` that are flipped: of each byte one, of zeros and of long files a sample.
pub fn bits(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let long = bytes.len() > 4096;
    bytes.iter().enumerate().filter_map(move |(at, byte)| {
        let skip = (*byte == 0 && at % 61 != 0) || (at % 3 != 0 && long);
        (!skip).then_some(at * 8 + (at / 3) % 8)
    })
}

/// Files of `subject` in each other's place, and those of `other` in their place.
pub fn strange(subject: &Subject, other: &Subject, mut note: impl FnMut(String, Outcome)) {
    let spares = [("WAL", "db/WAL/wal-000999.seg"), ("SNAPSHOTS", "db/SNAPSHOTS/snap-000999.chk")];
    for (directory, spare) in spares {
        let files: Vec<_> =
            subject.files().into_iter().filter(|path| path.contains(directory)).collect();
        for a in &files {
            let ours = subject.disk.bytes(a).unwrap();
            for b in files.iter().filter(|b| *b != a) {
                let theirs = subject.disk.bytes(b).unwrap();
                let copy = subject.try_damage(|disk| disk.tamper(a, |x| *x = theirs.clone()));
                note(format!("{b} in the place of {a}"), copy);
                let swap = subject.try_damage(|disk| {
                    disk.tamper(a, |bytes| *bytes = theirs.clone());
                    disk.tamper(b, |bytes| *bytes = ours.clone());
                });
                note(format!("{a} and {b} swapped"), swap);
            }
            if let Some(foreign) = other.disk.bytes(a) {
                let outcome = subject.try_damage(|disk| disk.tamper(a, |x| *x = foreign.clone()));
                note(format!("{a} of another life"), outcome);
            }
            let outcome = subject.try_damage(|disk| disk.tamper(spare, |x| *x = ours.clone()));
            note(format!("a second copy of {a}"), outcome);
        }
    }
}

/// Two databases of the same program with the same random bits, but for one value in the middle.
pub fn twins(mode: DurabilityMode) -> (Subject, Subject) {
    let with = |value: u8| {
        let put = |n: u8, value: u8| {
            let bytes = Value::from([value; 300].as_slice());
            Action::Commit(vec![Op::Put("run".into(), format!("k{n}"), bytes)])
        };
        let values = [1, 1, value, 1, 1, 1].into_iter().zip(0..);
        let actions = values.map(|(value, n)| put(n, value)).collect();
        subject_of(Workload::new(actions, mode), true)
    };
    (with(2), with(3))
}

/// The MANIFEST of a program's database as it was at every earlier moment, with the log and the
/// snapshots as they are in the end.
pub fn old_manifests(mut workload: Workload, closed: bool, mut note: impl FnMut(String, Outcome)) {
    workload.actions.retain(|action| closed || !matches!(action, Action::Reopen));
    let disk = SimDisk::new();
    disk.record_moments();
    drop(Driver::new(disk.clone(), workload.clone()).run());
    let moments = disk.take_moments();
    let mut manifests: Vec<_> =
        moments.iter().filter_map(|moment| moment.kill().bytes("db/MANIFEST")).collect();
    manifests.dedup();
    let subject = subject_of(workload, closed);
    for (age, old) in manifests.iter().rev().enumerate() {
        let put_back = |disk: &SimDisk| {
            disk.tamper("db/MANIFEST", |bytes| bytes.clone_from(old));
        };
        note(format!("{age} older"), subject.try_damage(put_back));
    }
}

/// Bytes of a log from another life in the place of `subject`'s: `other` did the same up to some
/// point and then something else, with the same random bits. Its blocks of 4 KiB are put into
/// `subject` one at a time, where they differ: what a write to the wrong place does.
pub fn misdirected(subject: &Subject, other: &Subject, mut note: impl FnMut(String, Outcome)) {
    const BLOCK: usize = 4096;
    for path in subject.files().into_iter().filter(|path| path.contains("WAL/")) {
        let (ours, theirs) = (subject.disk.bytes(&path).unwrap(), other.disk.bytes(&path));
        let theirs = theirs.unwrap_or_default();
        let len = ours.len().min(theirs.len());
        for start in (0..len).step_by(BLOCK) {
            let range = start..len.min(start + BLOCK);
            if ours[range.clone()] != theirs[range.clone()] {
                let put = |disk: &SimDisk| {
                    disk.tamper(&path, |bytes| {
                        bytes[range.clone()].copy_from_slice(&theirs[range.clone()]);
                    });
                };
                note(format!("{path} at {start} of a twin"), subject.try_damage(put));
            }
        }
    }
}

/// Two lives that begin with the same database after a kill, do the same for a while and then
/// something else, in segments of the same number at the same positions. What one wrote, in the
/// other's file behind where that one ends: sectors that the file system gave back with what
/// they held before. Whatever is opened then must be what the one life had at some point.
pub fn stale_lives(mode: DurabilityMode, mut note: impl FnMut(String, Outcome)) {
    let config = Workload::new(Vec::new(), mode).config;
    let put = |key: &str, value: &str| vec![Op::Put("run".into(), key.into(), Value::from(value))];
    let commit = |db: &Database, ops: &[Op]| {
        db.transaction(|tx| ops.iter().try_for_each(|op| op.apply(tx))).unwrap();
    };
    let disk = SimDisk::new();
    let db = builder(&disk, config.clone()).open().unwrap();
    (0..3).for_each(|n| commit(&db, &put(&format!("before{n}"), "both")));
    let killed = disk.killed();
    drop(db);
    let live = |name: &str| {
        let disk = killed.killed();
        let db = builder(&disk, config.clone()).open().unwrap();
        let mut contents = vec![content_now(&db).unwrap()];
        for n in 0..6 {
            let value = if n < 3 { "both" } else { name };
            commit(&db, &put(&format!("key{n}"), value));
            contents.push(content_now(&db).unwrap());
        }
        (disk.killed(), contents)
    };
    let ((ours, contents), (theirs, _)) = (live("ours"), live("them"));
    let newest = ours.paths().into_iter().rfind(|path| path.contains("WAL/")).unwrap();
    let (bytes, old) = (ours.bytes(&newest).unwrap(), theirs.bytes(&newest).unwrap());
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    for start in (4096..used).step_by(8) {
        let disk = ours.killed();
        disk.tamper(&newest, |bytes| {
            let end = bytes.len().min(old.len());
            bytes[start..end].copy_from_slice(&old[start..end]);
        });
        if bytes[start..] == old[start..] {
            continue;
        }
        let opened = catch_unwind(AssertUnwindSafe(|| builder(&disk, config.clone()).open()));
        let outcome = match opened {
            Err(_) => Err("panicked".to_owned()),
            Ok(Err(error)) => check_error(&error).map(|()| "refused"),
            Ok(Ok(db)) => match content_now(&db) {
                Ok(content) if contents.contains(&content) => Ok("a prefix"),
                Ok(_) => Err("a commit of another life is in it".to_owned()),
                Err(error) => check_error(&error).map(|()| "refused to read"),
            },
        };
        note(format!("{newest} from {start} on of another life"), outcome);
    }
}
