//! Disks that deceive, and disks that are slow.
//!
//! A short read is no deception: everything is as ever. A disk that flips bits, puts writes
//! elsewhere or says that it has synced when it has not is outside the promises. What holds all
//! the same, and is asserted here: an opening shows a prefix of what was committed, or refuses
//! with an error that says so; a read gives the right content or an error; nothing is invented
//! and nothing panics. Where only reads were deceived and nothing was cut on their word, the
//! next honest opening shows everything.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use steadfast::{Database, DurabilityMode, ErrorKind, ManualClock, Timestamp, Version};
use steadfast_testing::crash::{Cut, Effort, Judge};
use steadfast_testing::model::{Op, content_now};
use steadfast_testing::seed::{effort, seed_or};
use steadfast_testing::sim::{
    Choice, EIO, FailedSync, Fault, Lie, Moment, Plan, SimDisk, StepKind,
};
use steadfast_testing::workload::{Driver, History, MODES, Workload, builder};

const EFFORT: Effort =
    Effort { random: 2, nested_every: 0, depth: 0, queued_versions: true, lost_pages: false };

/// What came of looking at a disk that may have been deceived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The first so many commits.
    Prefix(usize),
    /// It did not open, or not all of it could be read, and said so.
    Refused,
}

/// Nothing is invented: a prefix, or an error of a kind that fits.
fn look(disk: &SimDisk, workload: &Workload, history: &History) -> Outcome {
    let fits =
        |kind| matches!(kind, ErrorKind::Corruption | ErrorKind::NotFound | ErrorKind::Unsupported);
    let db = match builder(disk, workload.config.clone()).open_existing() {
        Ok(db) => db,
        Err(error) => {
            assert!(fits(error.kind()), "refused with {}: {error}", error.kind());
            return Outcome::Refused;
        }
    };
    let content = match content_now(&db).and_then(|content| {
        db.wait_loaded()?;
        Ok(content)
    }) {
        Ok(content) => content,
        Err(error) => {
            assert!(fits(error.kind()), "reading gave {}: {error}", error.kind());
            return Outcome::Refused;
        }
    };
    let version = db.current_version();
    let prefix = history.versions.partition_point(|other| *other <= version);
    let differences = history.models[prefix].compare(&content);
    assert_eq!(differences, [], "not the state after {prefix} commits");
    Outcome::Prefix(prefix)
}

/// A program that ran on an honest disk, and what a kill left of it.
fn finished(mode: DurabilityMode, length: usize) -> (Workload, History, SimDisk) {
    let workload = Workload::seeded(seed_or(1), mode, length);
    let disk = SimDisk::new();
    let (history, db) = Driver::new(disk.clone(), workload.clone()).run();
    assert!(history.errors.is_empty(), "{:?}", history.errors);
    let killed = disk.killed();
    drop(db);
    (workload, history, killed)
}

/// How many reads an opening and reading everything take.
fn reads_of(disk: &SimDisk, workload: &Workload, history: &History) -> u64 {
    let disk = disk.killed();
    let all = history.versions.len();
    assert_eq!(look(&disk, workload, history), Outcome::Prefix(all));
    disk.count(StepKind::Read)
}

#[test]
fn asks_for_the_rest_of_a_short_read() {
    let mut tried = 0;
    for mode in MODES {
        let (workload, history, disk) = finished(mode, 32);
        let all = Outcome::Prefix(history.versions.len());
        for bytes in [1, 511, 4096] {
            // Each read in turn.
            for after in 0..reads_of(&disk, &workload, &history) {
                let disk = disk.killed();
                disk.inject(Fault::lie(StepKind::Read, after, Lie::ShortRead(bytes)));
                assert_eq!(look(&disk, &workload, &history), all, "{mode:?}, read {after}");
                assert!(disk.has_struck(), "{mode:?}, read {after}");
                tried += 1;
            }
            // And all of them at once.
            let disk = disk.killed();
            disk.inject(Fault::lie(StepKind::Read, 0, Lie::ShortRead(bytes)).sticky());
            assert_eq!(look(&disk, &workload, &history), all, "{mode:?}, all reads");
        }
    }
    println!("{tried} short reads");
    assert!(tried > 100, "{tried}");
}

#[test]
fn a_bit_that_flips_in_what_is_read_is_never_shown() {
    let mut rng = fastrand::Rng::with_seed(seed_or(1));
    let (mut refused, mut kept, mut tried) = (0, 0, 0);
    for mode in MODES {
        let (workload, history, killed) = finished(mode, 32);
        let all = Outcome::Prefix(history.versions.len());
        let reads = reads_of(&killed, &workload, &history);
        for after in (0..reads).flat_map(|after| std::iter::repeat_n(after, 4)) {
            for lie in [Lie::FlippedInFlight, Lie::FlippedAtRest] {
                let disk = killed.killed();
                let lie = lie(rng.usize(..1 << 20));
                disk.inject(Fault::lie(StepKind::Read, after, lie));
                let before = disk.fingerprint();
                tried += 1;
                let outcome = look(&disk, &workload, &history);
                match outcome {
                    Outcome::Refused => refused += 1,
                    Outcome::Prefix(_) => kept += 1,
                }
                // A refusal changes nothing, so an honest look sees everything again.
                if matches!(lie, Lie::FlippedInFlight(_)) && disk.fingerprint() == before {
                    disk.heal();
                    let again = look(&disk, &workload, &history);
                    assert_eq!(again, all, "{mode:?}, read {after}, {lie:?}");
                }
            }
        }
    }
    println!("{tried} flipped bits: {refused} refused, {kept} opened");
    assert!(refused > 50 && kept > 50, "{refused} {kept}");
}

/// Runs a program on a disk that deceives it, and looks at what a kill and a power cut leave.
fn deceive(workload: &Workload, fault: Fault) -> [Outcome; 3] {
    let disk = SimDisk::new();
    disk.inject(fault);
    let (history, db) = Driver::new(disk.clone(), workload.clone()).run();
    for (index, error) in &history.errors {
        let fits = matches!(
            error.kind(),
            ErrorKind::Corruption
                | ErrorKind::Io
                | ErrorKind::Unknown
                | ErrorKind::Poisoned
                | ErrorKind::NotFound
                | ErrorKind::Unsupported
        );
        assert!(fits, "{fault:?}, action {index}: {}: {error}", error.kind());
    }
    disk.heal();
    let moment = disk.moment();
    let cut = |choice| moment.cut(&Plan(vec![choice; moment.pending_len()]));
    let outcomes = [disk.killed(), cut(Choice::Keep), cut(Choice::Drop)]
        .map(|image| look(&image, workload, &history));
    drop(db);
    outcomes
}

fn deceive_everywhere(kinds: &[StepKind], variants: &[fn(Fault) -> Fault], least: usize) {
    let (mut tried, mut refused) = (0, 0);
    for seed in 0..effort() {
        for mode in MODES {
            let workload = Workload::seeded(seed_or(1) + seed, mode, 32);
            let disk = SimDisk::new();
            drop(Driver::new(disk.clone(), workload.clone()).run());
            for kind in kinds {
                let count = disk.count(*kind);
                let stride = usize::try_from(count / 20 + 1).unwrap();
                for after in (0..count).step_by(stride) {
                    for variant in variants {
                        tried += 1;
                        let outcomes = deceive(&workload, variant(Fault::once(*kind, after, EIO)));
                        refused += usize::from(outcomes.contains(&Outcome::Refused));
                    }
                }
            }
        }
    }
    println!("{tried} deceptions, of which {refused} were refused");
    assert!(tried >= least, "{tried}");
    assert!(refused > 0, "none of them was seen");
}

fn lie(fault: Fault, lie: Lie) -> Fault {
    Fault { lie: Some(lie), ..fault }
}

#[test]
fn a_write_that_lands_elsewhere_is_refused_or_leaves_a_prefix() {
    deceive_everywhere(
        &[StepKind::Write, StepKind::WriteDurable],
        &[
            |fault| lie(fault, Lie::Misplaced(4096)),
            |fault| lie(fault, Lie::Misplaced(512)),
            |fault| lie(fault, Lie::Misdirected),
            |fault| lie(fault, Lie::Lost),
        ],
        200,
    );
}

#[test]
fn a_sync_that_lies_leaves_a_prefix_or_is_refused() {
    deceive_everywhere(
        &[StepKind::SyncData, StepKind::SyncAll, StepKind::SyncDir, StepKind::WriteDurable],
        &[
            |fault| fault.syncing(FailedSync::Lying),
            |fault| fault.syncing(FailedSync::Lying).sticky(),
        ],
        100,
    );
}

/// The device that lies is one thing; the error that comes late is another: it is told, by the
/// next sync of that file, and that one is final.
#[test]
fn an_error_that_comes_late_is_final_too() {
    let (mut poisoned, mut tried) = (0, 0);
    for mode in MODES {
        let workload = Workload::seeded(seed_or(1), mode, 32);
        let disk = SimDisk::new();
        drop(Driver::new(disk.clone(), workload.clone()).run());
        for kind in [StepKind::SyncData, StepKind::SyncAll] {
            let count = disk.count(kind);
            let stride = usize::try_from(count / 20 + 1).unwrap();
            for after in (0..count).step_by(stride) {
                let fault = Fault::once(kind, after, EIO).syncing(FailedSync::ReportedLate);
                tried += 1;
                let disk = SimDisk::new();
                disk.inject(fault);
                let (history, db) = Driver::new(disk.clone(), workload.clone()).run();
                for (_, error) in &history.errors {
                    let kind = error.kind();
                    assert!(
                        matches!(kind, ErrorKind::Io | ErrorKind::Unknown | ErrorKind::Poisoned),
                        "{mode:?} {fault:?}: {kind}: {error}"
                    );
                    poisoned += u32::from(kind != ErrorKind::Io);
                }
                let moment = disk.moment();
                let cut = moment.cut(&Plan(vec![Choice::Drop; moment.pending_len()]));
                look(&cut, &workload, &history);
                // A kill loses nothing that was acknowledged: the pages are still there.
                let kept = history.progress.last().unwrap().acknowledged;
                match look(&disk.killed(), &workload, &history) {
                    Outcome::Prefix(prefix) => assert!(prefix >= kept, "{mode:?} {fault:?}"),
                    // Creating it went wrong.
                    Outcome::Refused => assert_eq!(kept, 0, "{mode:?} {fault:?}"),
                }
                drop(db);
            }
        }
    }
    println!("{tried} late errors, {poisoned} told to a commit");
    assert!(tried > 20, "{tried}");
}

/// A false failure: the bytes are durable, and the sync said that they are not. What follows is
/// what follows every failed sync, and the image is one of those that it may be.
#[test]
fn a_false_failure_is_a_failure() {
    for mode in MODES {
        let workload = Workload::seeded(seed_or(1), mode, 20);
        let disk = SimDisk::new();
        let (_, db) = Driver::new(disk.clone(), workload.clone()).run();
        let syncs = disk.count(StepKind::SyncData);
        drop(db);
        for after in 0..syncs.min(20) {
            let disk = SimDisk::new();
            let fault = Fault::once(StepKind::SyncData, after, EIO);
            disk.inject(fault.syncing(FailedSync::DurableAnyway));
            let (history, db) = Driver::new(disk.clone(), workload.clone()).run();
            assert!(!history.errors.is_empty(), "{mode:?} {after}: the failure was not told");
            let mut judge = Judge::new(&history, &workload, EFFORT, 1);
            let moment: Moment = disk.moment();
            for cut in [Cut::Kill, Cut::Power] {
                judge.moment(&moment, cut).unwrap_or_else(|why| panic!("{mode:?} {after}: {why}"));
            }
            drop(db);
        }
    }
}

/// The judge itself: of a disk that lies it finds an image that breaks a promise, and says which
/// in a plan that can be read back, with nothing in it that could be left out.
#[test]
fn the_judge_finds_a_broken_promise_and_makes_it_simple() {
    let workload = Workload::seeded(seed_or(1), DurabilityMode::Strict, 20);
    let disk = SimDisk::new();
    let fault = Fault::once(StepKind::WriteDurable, 12, EIO).syncing(FailedSync::Lying);
    disk.inject(fault.sticky());
    let (history, db) = Driver::new(disk.clone(), workload.clone()).run();
    let moment = disk.moment();
    let mut judge = Judge::new(&history, &workload, EFFORT, 1);
    let why = judge.moment(&moment, Cut::Power).unwrap_err();
    drop(db);
    let text = why.strip_prefix("image ").unwrap().split(", ").next().unwrap();
    let plan: Plan = text.parse().unwrap();
    assert_eq!(plan.0.len(), moment.pending_len());
    // Losing all of them breaks it, and so does losing one: either is as simple as it gets.
    let runs = plan.0.chunk_by(|a, b| a == b).count();
    assert!(runs <= 2, "{plan}");
    assert!(plan.0.iter().all(|choice| matches!(choice, Choice::Keep | Choice::Drop)), "{plan}");
    assert!(why.contains("step") && why.contains("write db/"), "says what was lost: {why}");
    // The same image again, from its text alone.
    let progress = history.progress[usize::try_from(moment.note()).unwrap()];
    let mut judge = Judge::new(&history, &workload, EFFORT, 1);
    let due = progress.kept_by_power_cut(workload.mode);
    judge.image(&moment.cut(&plan), &progress, due, Cut::Power).unwrap_err();
}

fn commit(db: &Database, n: i64) -> Version {
    let op = Op::Put("r".into(), format!("k{n}"), n.into());
    db.transaction(|tx| op.apply(tx)).unwrap().1.version()
}

/// On a disk where everything takes its time, the window of batched mode still runs from the
/// oldest commit that is not durable: none is older when another one is acknowledged.
#[test]
fn a_slow_disk_does_not_widen_the_window() {
    let interval = Duration::from_millis(100);
    let mode = DurabilityMode::Batched { interval, commits: 1000 };
    for (write, sync) in [(1, 5), (30, 1), (30, 80), (99, 300), (150, 10)] {
        let disk = SimDisk::new();
        let clock = ManualClock::at(Timestamp::from_micros(1 << 50));
        let workload = Workload::new(Vec::new(), mode);
        let db = builder(&disk, workload.config.clone()).clock(clock.clone()).open().unwrap();
        commit(&db, 0);
        db.flush().unwrap();
        disk.slow_down(&clock, StepKind::Write, Duration::from_millis(write));
        disk.slow_down(&clock, StepKind::SyncData, Duration::from_millis(sync));
        let now = || steadfast::Clock::now(&clock).as_micros();
        let mut acknowledged: Vec<(Version, u64)> = Vec::new();
        let mut synced = 0;
        let until = now() + 3_000_000;
        for n in (1..).take_while(|_| now() < until) {
            let begun = now();
            let version = commit(&db, n);
            // Written at the earliest when the commit began.
            acknowledged.push((version, begun));
            let promised = db.stats().unwrap().promised;
            synced += u64::from(promised == version);
            // When this commit was let in, the oldest one that is not durable was young enough.
            let oldest = acknowledged.iter().find(|(version, _)| *version > promised);
            if let Some((oldest, since)) = oldest {
                let age = Duration::from_micros(begun - since);
                assert!(age <= interval, "write {write}, sync {sync}: {oldest} is {age:?} old");
            }
        }
        println!("write {write} ms, sync {sync} ms: {synced} of {} synced", acknowledged.len());
        assert!(synced > 0);
        // An idle log is synced by its timer, whatever that takes.
        clock.advance(interval);
        db.maintain().unwrap();
        assert_eq!(db.stats().unwrap().promised, db.current_version());
    }
}
