//! Every file damaged in every way: everything acknowledged is there, or opening refuses and
//! names the damage and changes nothing. Only the last group of a log that was not closed may
//! be left out, and the report says so (P6, P11).
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use steadfast::{DatabaseConfig, DurabilityMode, ErrorKind, LogClass};
use steadfast_testing::model::content_now;
use steadfast_testing::sim::SimDisk;
use steadfast_testing::workload::{Driver, History, MODES, Workload, builder};

struct Subject {
    disk: SimDisk,
    config: DatabaseConfig,
    history: History,
    /// The fewest commits that damage may leave.
    low: usize,
    closed: bool,
}

fn subject(mode: DurabilityMode, closed: bool, length: usize) -> Subject {
    subject_of(Workload::seeded(11, mode, length), closed)
}

fn subject_of(mut workload: Workload, closed: bool) -> Subject {
    let mode = workload.mode;
    if !closed {
        workload
            .actions
            .retain(|action| !matches!(action, steadfast_testing::workload::Action::Reopen));
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
    Subject { disk, config: workload.config, history, low, closed }
}

impl Subject {
    fn files(&self) -> Vec<String> {
        self.disk.paths().into_iter().filter(|path| !path.ends_with("LOCK")).collect()
    }

    /// What became of an opening after `damage`. `Err`: something that must not be.
    fn try_damage(&self, damage: impl FnOnce(&SimDisk)) -> Result<&'static str, String> {
        let disk = self.disk.killed();
        damage(&disk);
        let before = disk.fingerprint();
        let opened = catch_unwind(AssertUnwindSafe(|| builder(&disk, self.config.clone()).open()))
            .map_err(|_| "panicked".to_owned())?;
        let db = match opened {
            Err(error) => {
                let kinds = [ErrorKind::Corruption, ErrorKind::Io, ErrorKind::Unsupported];
                if !kinds.contains(&error.kind()) {
                    return Err(format!("kind {}: {error}", error.kind()));
                }
                let text = error.to_string();
                if !text.contains("WAL") && !text.contains("MANIFEST") {
                    return Err(format!("names no file: {text}"));
                }
                if disk.fingerprint() != before {
                    return Err(format!("refused and wrote: {text}"));
                }
                return Ok("refused");
            }
            Ok(db) => db,
        };
        let content = content_now(&db).map_err(|error| error.to_string())?;
        let versions = &self.history.versions;
        let kept = versions.partition_point(|version| *version <= db.current_version());
        let differences = self.history.models[kept].compare(&content);
        if !differences.is_empty() {
            return Err(format!("not the state after {kept} commits: {differences:?}"));
        }
        if kept == versions.len() {
            return Ok("whole");
        }
        let report = db.recovery_report();
        let unsure = matches!(report.log, LogClass::TornUnpromised | LogClass::Ambiguous);
        if self.closed || kept < self.low || !unsure || !report.left_anything_out() {
            let all = versions.len();
            return Err(format!(
                "silently less: {kept} of {all} (at least {}): {report}",
                self.low
            ));
        }
        Ok("without the tail")
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
            all.push((name, subject(mode, closed, 14)));
        }
    }
    all
}

#[test]
fn no_flipped_bit_is_silent() {
    for (name, subject) in subjects() {
        let mut survey = Survey::new();
        for path in subject.files() {
            let bytes = subject.disk.bytes(&path).unwrap();
            for (at, byte) in bytes.iter().enumerate() {
                // Where there are only zeros, a sample.
                if *byte == 0 && at % 61 != 0 {
                    continue;
                }
                if at % 3 != 0 && bytes.len() > 4096 {
                    continue;
                }
                let bit = at * 8 + (at / 3) % 8;
                let outcome = subject.try_damage(|disk| disk.flip_bit(&path, bit));
                survey.note(|| format!("{name}: {path} bit {bit}"), outcome);
            }
        }
        survey.end(&format!("bits of {name}"));
    }
}

#[test]
fn no_cut_hole_or_missing_file_is_silent() {
    for (name, subject) in subjects() {
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
            let segments: Vec<_> =
                subject.files().into_iter().filter(|path| path.contains("WAL")).collect();
            for a in &segments {
                for b in segments.iter().filter(|b| *b != a) {
                    let (ours, theirs) = (subject.disk.bytes(a), subject.disk.bytes(b).unwrap());
                    let copy = subject.try_damage(|disk| disk.tamper(a, |x| *x = theirs.clone()));
                    survey.note(
                        || format!("{mode:?}, closed {closed}: {b} in the place of {a}"),
                        copy,
                    );
                    let swap = subject.try_damage(|disk| {
                        disk.tamper(a, |bytes| *bytes = theirs.clone());
                        disk.tamper(b, |bytes| *bytes = ours.clone().unwrap());
                    });
                    survey.note(|| format!("{mode:?}, closed {closed}: {a} and {b} swapped"), swap);
                }
                if let Some(foreign) = other.disk.bytes(a) {
                    let outcome =
                        subject.try_damage(|disk| disk.tamper(a, |x| *x = foreign.clone()));
                    survey.note(
                        || format!("{mode:?}, closed {closed}: {a} of another life"),
                        outcome,
                    );
                }
                let spare = "db/WAL/wal-000999.seg";
                let bytes = subject.disk.bytes(a).unwrap();
                let outcome = subject.try_damage(|disk| disk.tamper(spare, |x| *x = bytes.clone()));
                survey.note(|| format!("{mode:?}, closed {closed}: a second copy of {a}"), outcome);
            }
        }
    }
    survey.end("strange files");
}

/// The MANIFEST as it was at every earlier moment, with the log as it is.
#[test]
fn no_old_manifest_is_silent() {
    let mut survey = Survey::new();
    for mode in MODES {
        for closed in [true, false] {
            let mut workload = Workload::seeded(11, mode, 24);
            workload.actions.retain(|action| {
                closed || !matches!(action, steadfast_testing::workload::Action::Reopen)
            });
            let disk = SimDisk::new();
            disk.record_moments();
            drop(Driver::new(disk.clone(), workload).run());
            let mut manifests: Vec<_> =
                disk.take_moments().iter().filter_map(|m| m.kill().bytes("db/MANIFEST")).collect();
            manifests.dedup();
            let subject = subject(mode, closed, 24);
            for (age, old) in manifests.iter().rev().enumerate() {
                let outcome =
                    subject.try_damage(|disk| disk.tamper("db/MANIFEST", |x| x.clone_from(old)));
                survey
                    .note(|| format!("{mode:?}, closed {closed}: a MANIFEST {age} older"), outcome);
            }
        }
    }
    survey.end("old MANIFESTs");
}
