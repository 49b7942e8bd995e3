//! Several threads on one simulated disk: a moment of it is an instant, so whatever any thread
//! had been promised before it survives a power cut then, and what is found is a prefix by
//! version (P1, P2, P3, P6).
//!
//! The order in which threads run is not drawn from the seed: the rule needs none.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use steadfast::{Database, DatabaseConfig, DurabilityMode, Version};
use steadfast_testing::model::{Op, ReferenceModel, content_now};
use steadfast_testing::seed::effort;
use steadfast_testing::sim::SimDisk;
use steadfast_testing::workload::{MODES, SEGMENT_BYTES, path};

const WRITERS: u64 = 2;
const COMMITS: u64 = 40;

/// What the program had been told when the disk was noted so: the newest version promised.
#[derive(Default)]
struct Told {
    promised: Vec<Version>,
}

impl Told {
    /// Notes on the disk and in the record are one: nobody else notes in between.
    fn note(told: &Mutex<Self>, disk: &SimDisk, promised: Version) {
        let mut told = told.lock().unwrap();
        let newest = told.promised.last().copied().unwrap_or(Version::ZERO).max(promised);
        told.promised.push(newest);
        disk.note(told.promised.len() as u64);
    }

    fn at(&self, note: u64) -> Version {
        let at = usize::try_from(note).unwrap();
        at.checked_sub(1).map_or(Version::ZERO, |at| self.promised[at])
    }
}

fn open(disk: &SimDisk, config: &DatabaseConfig, threads: bool) -> steadfast::Result<Database> {
    let builder = Database::builder(path()).disk(Arc::new(disk.clone())).config(config.clone());
    if threads { builder.open() } else { builder.without_threads().open() }
}

/// One writer: keys of its own, and one that all of them write.
fn write(
    writer: u64,
    db: &Database,
    disk: &SimDisk,
    mode: DurabilityMode,
    told: &Mutex<Told>,
    done: &Mutex<BTreeMap<Version, Vec<Op>>>,
) {
    for n in 0..COMMITS {
        let ops = vec![
            Op::Put(format!("run-{writer}"), format!("k{}", n % 7), (n as i64).into()),
            Op::Append(format!("run-{writer}"), "s".into(), (n as i64).into()),
            Op::Put("shared".into(), "last".into(), ((writer * 1000 + n) as i64).into()),
        ];
        let receipt = db.transaction(|tx| ops.iter().try_for_each(|op| op.apply(tx))).unwrap().1;
        let version = receipt.version();
        assert!(done.lock().unwrap().insert(version, ops).is_none(), "a version twice");
        if mode == DurabilityMode::Strict {
            Told::note(told, disk, version);
        } else if n % 9 == writer {
            receipt.wait_durable().unwrap();
            Told::note(told, disk, version);
        } else {
            // Read before it is noted: it can only have grown in between.
            Told::note(told, disk, db.stats().unwrap().promised);
        }
        if n == COMMITS / 2 && writer == 0 {
            db.checkpoint().unwrap();
        }
    }
}

fn survive(mode: DurabilityMode, threads: bool, seed: u64) -> (u64, u64) {
    let disk = SimDisk::new();
    disk.record_moments();
    let config = DatabaseConfig::new(mode).segment_bytes(SEGMENT_BYTES);
    let db = open(&disk, &config, threads).unwrap();
    let (told, done) = (Mutex::new(Told::default()), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (db, disk, told, done) = (&db, &disk, &told, &done);
            scope.spawn(move || write(writer, db, disk, mode, told, done));
        }
    });
    let moments = disk.take_moments();
    drop(db);
    let (told, done) = (told.into_inner().unwrap(), done.into_inner().unwrap());
    assert_eq!(done.len() as u64, WRITERS * COMMITS);

    let mut models = BTreeMap::from([(Version::ZERO, ReferenceModel::new())]);
    for (version, ops) in &done {
        let mut model = models.last_key_value().unwrap().1.clone();
        model.apply(ops, *version);
        models.insert(*version, model);
    }
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut images, mut seen) = (0, HashSet::new());
    for moment in &moments {
        let due = told.at(moment.note());
        let mut plans = moment.plans(3, &mut rng);
        rng.shuffle(&mut plans);
        for plan in plans.iter().take(12) {
            let image = moment.cut(plan);
            images += 1;
            if !seen.insert((image.fingerprint(), due)) {
                continue;
            }
            let place = || format!("{mode:?}, threads {threads}, {moment:?}, image {plan}");
            let db = match open(&image, &config, false) {
                Ok(db) => db,
                Err(error) => panic!("{}: refused ({}): {error}", place(), error.kind()),
            };
            let found = db.current_version();
            assert!(found >= due, "{}: kept {found}, {due} was promised", place());
            let Some(model) = models.get(&found) else {
                panic!("{}: version {found}, which no commit had", place());
            };
            assert_eq!(model.compare(&content_now(&db).unwrap()), [], "{}", place());
        }
    }
    (images, seen.len() as u64)
}

fn survive_in_every_mode(threads: bool) {
    for seed in 0..effort() {
        for mode in MODES {
            let (images, opened) = survive(mode, threads, seed);
            println!("{mode:?}, threads {threads}: {images} images, {opened} opened");
            assert!(images > 500 && opened > 50, "{images} {opened}");
        }
    }
}

#[test]
fn what_two_writers_were_promised_survives_a_cut_at_any_instant() {
    survive_in_every_mode(false);
}

#[test]
fn and_so_it_does_beside_the_threads_of_the_database() {
    survive_in_every_mode(true);
}

/// A moment between two steps of one thread has no half of a step of another.
#[test]
fn a_moment_is_an_instant() {
    use std::path::Path;
    use steadfast::disk::{Access, Disk};
    let disk = SimDisk::new();
    let files: Vec<_> = ["a", "b"]
        .map(|name| disk.create(Path::new(name), Access::Write).unwrap())
        .into_iter()
        .collect();
    disk.sync_dir(Path::new("")).unwrap();
    disk.record_moments();
    disk.keep_journal();
    std::thread::scope(|scope| {
        for file in &files {
            scope.spawn(move || {
                for n in 1..=200u8 {
                    file.write_at(0, &[n; 8]).unwrap();
                    file.sync_data().unwrap();
                }
            });
        }
    });
    let (journal, moments) = (disk.journal(), disk.take_moments());
    assert_eq!(journal.len() + 1, moments.len(), "one before each step, and the last");
    // What each file must hold follows from the steps before the moment.
    let mut written = BTreeMap::from([("a", 0u8), ("b", 0u8)]);
    let first = moments[0].step();
    for (at, moment) in moments.iter().enumerate() {
        assert_eq!(moment.step(), first + at as u64);
        let killed = moment.kill();
        for (name, n) in &written {
            let bytes = killed.bytes(name).unwrap();
            assert!(bytes.iter().all(|byte| byte == n), "{name} at {at}: {bytes:?}, not {n}");
        }
        if let Some(step) = journal.get(at)
            && step.range.1 > 0
        {
            *written.get_mut(step.path.to_str().unwrap()).unwrap() += 1;
        }
    }
    assert_eq!(written, BTreeMap::from([("a", 200), ("b", 200)]));
}
