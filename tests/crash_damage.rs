//! Every file damaged in every way: everything acknowledged is there, or opening or reading
//! refuses and names the damage and changes nothing. Only the last group of a log that was not
//! closed may be left out, and the report says so. While an older snapshot and its log are
//! there, no damage of the newest one loses anything (P6, P9, P11).
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use steadfast::{
    CompactMode, Database, DatabaseConfig, DurabilityMode, Error, ErrorKind, LogClass,
    SnapshotClass, Value,
};
use steadfast_testing::model::{Content, Op, content_now};
use steadfast_testing::sim::SimDisk;
use steadfast_testing::workload::{Action, Driver, History, MODES, Workload, builder};

struct Subject {
    disk: SimDisk,
    config: DatabaseConfig,
    history: History,
    /// The fewest commits that damage may leave.
    low: usize,
    closed: bool,
    /// Files are cut: between two groups nothing but a promise tells a cut from the end, and a
    /// log that was not closed has no promise at its end.
    cut: bool,
}

fn subject(mode: DurabilityMode, closed: bool, length: usize) -> Subject {
    subject_of(Workload::seeded(11, mode, length), closed)
}

/// A database with two snapshots and the log behind the older one, or, compacted, with one.
fn with_snapshots(mode: DurabilityMode, closed: bool, compacted: bool) -> Subject {
    let subject = subject_of(snapshot_workload(mode, compacted), closed);
    assert_eq!(subject.snapshots().len(), if compacted { 1 } else { 2 });
    subject
}

fn snapshot_workload(mode: DurabilityMode, compacted: bool) -> Workload {
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

fn subject_of(mut workload: Workload, closed: bool) -> Subject {
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
    fn files(&self) -> Vec<String> {
        self.disk.paths().into_iter().filter(|path| !path.ends_with("LOCK")).collect()
    }

    /// How many commits the floor in the MANIFEST has.
    fn promised_by_manifest(&self) -> usize {
        let bytes = self.disk.bytes("db/MANIFEST").unwrap();
        let floor = u64::from_le_bytes(bytes[64..72].try_into().unwrap());
        let count = self.history.versions.partition_point(|version| version.0 <= floor);
        // A checkpoint raises it: it is not read from the wrong place.
        assert!(count > 0 || self.snapshots().is_empty(), "the floor is at {floor}");
        count
    }

    fn snapshots(&self) -> Vec<String> {
        self.files().into_iter().filter(|path| path.contains("SNAPSHOTS/")).collect()
    }

    fn open(&self, disk: &SimDisk) -> Result<Result<Database, Error>, String> {
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

    /// What became of an opening after `damage`. `Err`: something that must not be.
    fn try_damage(&self, damage: impl FnOnce(&SimDisk)) -> Result<&'static str, String> {
        self.try_damage_to("", damage)
    }

    /// As [`Subject::try_damage`]; if something in the file `path` was changed and is not what
    /// it must be, somebody has to notice.
    fn try_damage_to(
        &self,
        path: &str,
        damage: impl FnOnce(&SimDisk),
    ) -> Result<&'static str, String> {
        let disk = self.disk.killed();
        damage(&disk);
        let before = disk.fingerprint();
        let db = match self.open(&disk)? {
            Err(error) => {
                check_error(&error)?;
                if disk.fingerprint() != before {
                    return Err(format!("refused and wrote: {error}"));
                }
                return Ok("refused");
            }
            Ok(db) => db,
        };
        let work = || self.judge(&db, path);
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("panicked".to_owned()))
    }

    fn judge(&self, db: &Database, path: &str) -> Result<&'static str, String> {
        let report = db.recovery_report().clone();
        match content_now(db) {
            Ok(content) => drop(self.expect(db, &content)?),
            // Rebuilt only when it is loaded.
            Err(error) => check_error(&error)?,
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

/// Tries damages and fails with the first few that had a forbidden outcome.
struct Survey {
    counts: std::collections::BTreeMap<&'static str, u64>,
    failures: Vec<String>,
}

impl Survey {
    fn new() -> Self {
        Self { counts: Default::default(), failures: Vec::new() }
    }

    fn note(&mut self, what: impl FnOnce() -> String, outcome: Result<&'static str, String>) {
        match outcome {
            Ok(outcome) => *self.counts.entry(outcome).or_default() += 1,
            Err(why) => self.failures.push(format!("{}: {why}", what())),
        }
    }

    fn end(self, title: &str) {
        println!("{title}: {:?}, {} failures", self.counts, self.failures.len());
        let list: String =
            self.failures.iter().take(20).map(|why| format!("\n{why:.300}")).collect();
        assert!(self.failures.is_empty(), "{title}: {} failures:{list}", self.failures.len());
    }
}

fn subjects() -> Vec<(String, Subject)> {
    let mut all = Vec::new();
    for mode in MODES {
        for closed in [true, false] {
            let name = format!("{mode:?} {}", if closed { "closed" } else { "killed" });
            all.push((name.clone(), subject(mode, closed, 14)));
            all.push((format!("{name}, compacted"), with_snapshots(mode, closed, true)));
        }
        // What does not depend on how it ended, once.
        all.push((format!("{mode:?}, two snapshots"), with_snapshots(mode, true, false)));
    }
    all
}

/// The bits of `bytes` that are flipped: of each byte one, of zeros and of long files a sample.
fn bits(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let long = bytes.len() > 4096;
    bytes.iter().enumerate().filter_map(move |(at, byte)| {
        let skip = (*byte == 0 && at % 61 != 0) || (at % 3 != 0 && long);
        (!skip).then_some(at * 8 + (at / 3) % 8)
    })
}

#[test]
fn no_flipped_bit_is_silent() {
    for (name, subject) in subjects() {
        let mut survey = Survey::new();
        for path in subject.files() {
            let bytes = subject.disk.bytes(&path).unwrap();
            for bit in bits(&bytes) {
                let outcome = subject.try_damage_to(&path, |disk| disk.flip_bit(&path, bit));
                survey.note(|| format!("{name}: {path} bit {bit}"), outcome);
            }
        }
        survey.end(&format!("bits of {name}"));
    }
}

#[test]
fn no_cut_hole_or_missing_file_is_silent() {
    for (name, mut subject) in subjects() {
        // A cut takes the last group and those that prove its promise: what is sure is what the
        // MANIFEST promises.
        subject.low = subject.low.min(subject.promised_by_manifest());
        subject.cut = true;
        let mut survey = Survey::new();
        for path in subject.files() {
            let len = subject.disk.bytes(&path).unwrap().len();
            survey
                .note(|| format!("{name}: {path} removed"), subject.try_damage(|d| d.lose(&path)));
            for length in (0..len).step_by(if len > 4096 { 40 } else { 1 }) {
                let cut = |disk: &SimDisk| disk.tamper(&path, |bytes| bytes.truncate(length));
                survey.note(|| format!("{name}: {path} cut at {length}"), subject.try_damage(cut));
            }
            for start in (0..len).step_by(512) {
                for fill in [0, 0xff] {
                    let zero = |disk: &SimDisk| {
                        disk.tamper(&path, |bytes| bytes[start..(start + 512).min(len)].fill(fill));
                    };
                    let outcome = subject.try_damage(zero);
                    survey.note(|| format!("{name}: {path} {fill:#x} at {start}"), outcome);
                }
            }
            let append = |disk: &SimDisk| disk.tamper(&path, |bytes| bytes.extend([0xa5; 700]));
            survey.note(|| format!("{name}: {path} with garbage"), subject.try_damage(append));
        }
        survey.end(&format!("cuts and holes of {name}"));
    }
}

#[test]
fn no_foreign_swapped_or_old_file_is_silent() {
    let mut survey = Survey::new();
    for mode in MODES {
        for closed in [true, false] {
            let subject = subject(mode, closed, 24);
            let mut stranger = Workload::seeded(12, mode, 26);
            stranger.entropy_seed = 1000;
            let other = subject_of(stranger, closed);
            strange(&mut survey, &format!("{mode:?}, closed {closed}"), &subject, &other);
        }
        for compacted in [false, true] {
            let mut stranger = snapshot_workload(mode, compacted);
            stranger.entropy_seed = 1000;
            let other = subject_of(stranger, true);
            let subject = with_snapshots(mode, true, compacted);
            strange(&mut survey, &format!("{mode:?}, compacted {compacted}"), &subject, &other);
        }
    }
    survey.end("strange files");
}

/// Files of `subject` in each other's place, and those of `other` in their place.
fn strange(survey: &mut Survey, name: &str, subject: &Subject, other: &Subject) {
    let spares = [("WAL", "db/WAL/wal-000999.seg"), ("SNAPSHOTS", "db/SNAPSHOTS/snap-000999.chk")];
    for (directory, spare) in spares {
        let files: Vec<_> =
            subject.files().into_iter().filter(|path| path.contains(directory)).collect();
        for a in &files {
            let ours = subject.disk.bytes(a).unwrap();
            for b in files.iter().filter(|b| *b != a) {
                let theirs = subject.disk.bytes(b).unwrap();
                let copy = subject.try_damage(|disk| disk.tamper(a, |x| *x = theirs.clone()));
                survey.note(|| format!("{name}: {b} in the place of {a}"), copy);
                let swap = subject.try_damage(|disk| {
                    disk.tamper(a, |bytes| *bytes = theirs.clone());
                    disk.tamper(b, |bytes| *bytes = ours.clone());
                });
                survey.note(|| format!("{name}: {a} and {b} swapped"), swap);
            }
            if let Some(foreign) = other.disk.bytes(a) {
                let outcome = subject.try_damage(|disk| disk.tamper(a, |x| *x = foreign.clone()));
                survey.note(|| format!("{name}: {a} of another life"), outcome);
            }
            let outcome = subject.try_damage(|disk| disk.tamper(spare, |x| *x = ours.clone()));
            survey.note(|| format!("{name}: a second copy of {a}"), outcome);
        }
    }
}

/// The MANIFEST as it was at every earlier moment, with the log and the snapshots as they are.
#[test]
fn no_old_manifest_is_silent() {
    let mut survey = Survey::new();
    for mode in MODES {
        for closed in [true, false] {
            for kind in 0..3 {
                let mut workload = match kind {
                    0 => Workload::seeded(11, mode, 24),
                    _ => snapshot_workload(mode, kind == 1),
                };
                workload.actions.retain(|action| closed || !matches!(action, Action::Reopen));
                let disk = SimDisk::new();
                disk.record_moments();
                drop(Driver::new(disk.clone(), workload.clone()).run());
                let moments = disk.take_moments();
                let mut manifests: Vec<_> =
                    moments.iter().filter_map(|m| m.kill().bytes("db/MANIFEST")).collect();
                manifests.dedup();
                let subject = subject_of(workload, closed);
                for (age, old) in manifests.iter().rev().enumerate() {
                    let put_back = |disk: &SimDisk| {
                        disk.tamper("db/MANIFEST", |bytes| bytes.clone_from(old));
                    };
                    let name = || format!("{mode:?}, closed {closed}, {kind}: {age} older");
                    survey.note(name, subject.try_damage(put_back));
                }
            }
        }
    }
    survey.end("old MANIFESTs");
}

/// While an older snapshot and its log are there, no damage of the newest one loses anything,
/// and none goes without a report.
#[test]
fn any_damage_of_the_newest_snapshot_is_made_good() {
    for mode in MODES {
        let subject = with_snapshots(mode, true, false);
        let newest = subject.snapshots().pop().unwrap();
        let bytes = subject.disk.bytes(&newest).unwrap();
        let mut survey = Survey::new();
        let mut note = |what: String, outcome: Result<&'static str, String>| {
            let good = outcome.and_then(|outcome| match outcome {
                "whole" | "whole, rebuilt" | "whole, from the older snapshot" => Ok(outcome),
                lost => Err(format!("not made good: {lost}")),
            });
            survey.note(|| format!("{mode:?}: {newest} {what}"), good);
        };
        for bit in bits(&bytes) {
            let outcome = subject.try_damage_to(&newest, |disk| disk.flip_bit(&newest, bit));
            note(format!("bit {bit}"), outcome);
        }
        for length in (0..bytes.len()).step_by(37) {
            let cut = |disk: &SimDisk| disk.tamper(&newest, |bytes| bytes.truncate(length));
            note(format!("cut at {length}"), subject.try_damage_to(&newest, cut));
        }
        for start in (0..bytes.len()).step_by(128) {
            let hole = |disk: &SimDisk| {
                disk.tamper(&newest, |bytes| {
                    let end = bytes.len().min(start + 512);
                    bytes[start..end].fill(0);
                });
            };
            note(format!("hole at {start}"), subject.try_damage_to(&newest, hole));
        }
        note("removed".into(), subject.try_damage(|disk| disk.lose(&newest)));
        survey.end(&format!("newest snapshot, {mode:?}"));
    }
}

/// The segments that only lead from the older snapshot to the newest are not read by opening:
/// where damage in them would keep the one from standing in for the other, `verify` says so.
#[test]
fn damage_that_would_keep_the_older_snapshot_from_standing_in_is_found() {
    let mut found = 0;
    for mode in MODES {
        let subject = with_snapshots(mode, true, false);
        let newest = subject.snapshots().pop().unwrap();
        for path in subject.files().into_iter().filter(|path| *path != newest) {
            let bytes = subject.disk.bytes(&path).unwrap();
            for bit in bits(&bytes).step_by(11) {
                let disk = subject.disk.killed();
                disk.flip_bit(&path, bit);
                let alone = disk.killed();
                disk.lose(&newest);
                let stands_in = |disk: &SimDisk| {
                    let db = subject.open(disk).unwrap()?;
                    db.wait_loaded()?;
                    content_now(&db)
                };
                if stands_in(&disk).is_ok() {
                    continue;
                }
                let Ok(db) = subject.open(&alone).unwrap() else { continue };
                let damaged = db.verify().unwrap();
                let name = path.strip_prefix("db/").unwrap();
                assert!(
                    damaged.iter().any(|damaged| damaged.file == name),
                    "{mode:?}: {path} bit {bit}: {damaged:?}"
                );
                found += 1;
            }
        }
    }
    println!("{found} damages that only verify finds");
    assert!(found > 100, "{found}");
}
