//! Every file damaged in every way: everything acknowledged is there, or opening or reading
//! refuses and names the damage and changes nothing. Only the last group of a log that was not
//! closed may be left out, and the report says so. While an older snapshot and its log are
//! there, no damage of the newest one loses anything (P6, P9, P11).
#![allow(clippy::unwrap_used)]

use steadfast_testing::damage::{
    Outcome, Subject, bits, misdirected, old_manifests, snapshot_workload, stale_lives, strange,
    subject, subject_of, twins, with_snapshots,
};
use steadfast_testing::model::content_now;
use steadfast_testing::sim::SimDisk;
use steadfast_testing::workload::{MODES, Workload};

/// Tries damages and fails with the first few that had a forbidden outcome.
struct Survey {
    counts: std::collections::BTreeMap<&'static str, u64>,
    failures: Vec<String>,
}

impl Survey {
    fn new() -> Self {
        Self { counts: Default::default(), failures: Vec::new() }
    }

    fn note(&mut self, what: impl FnOnce() -> String, outcome: Outcome) {
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
            let name = format!("{mode:?}, closed {closed}");
            strange(&subject, &other, |what, outcome| {
                survey.note(|| format!("{name}: {what}"), outcome);
            });
        }
        for compacted in [false, true] {
            let mut stranger = snapshot_workload(mode, compacted);
            stranger.entropy_seed = 1000;
            let other = subject_of(stranger, true);
            let subject = with_snapshots(mode, true, compacted);
            let name = format!("{mode:?}, compacted {compacted}");
            strange(&subject, &other, |what, outcome| {
                survey.note(|| format!("{name}: {what}"), outcome);
            });
        }
    }
    survey.end("strange files");
}

/// The MANIFEST as it was at every earlier moment, with the log and the snapshots as they are.
#[test]
fn no_old_manifest_is_silent() {
    let mut survey = Survey::new();
    for mode in MODES {
        for closed in [true, false] {
            for kind in 0..3 {
                let workload = match kind {
                    0 => Workload::seeded(11, mode, 24),
                    _ => snapshot_workload(mode, kind == 1),
                };
                old_manifests(workload, closed, |what, outcome| {
                    survey.note(|| format!("{mode:?}, closed {closed}, {kind}: {what}"), outcome);
                });
            }
        }
    }
    survey.end("old MANIFESTs");
}

/// A twin did the same with the same random bits but for one value: each of its groups is valid
/// by itself, and not behind what is before it here.
#[test]
fn no_group_of_a_twin_is_silent() {
    let mut survey = Survey::new();
    for mode in MODES {
        let (ours, twin) = twins(mode);
        misdirected(&ours, &twin, |what, outcome| {
            survey.note(|| format!("{mode:?}: {what}"), outcome);
        });
    }
    survey.end("twins");
}

/// Sectors of a segment hold what an earlier life of the database had written into a segment of
/// the same number.
#[test]
fn nothing_of_an_earlier_life_is_taken_for_data() {
    let mut survey = Survey::new();
    for mode in MODES {
        stale_lives(mode, |what, outcome| survey.note(|| format!("{mode:?}: {what}"), outcome));
    }
    survey.end("earlier lives");
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
        let mut note = |what: String, outcome: Outcome| {
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
