//! Backups, restores, salvage, and a loss that somebody accepted.

use std::path::Path;

use steadfast::{
    CompactMode, DatabaseConfig, DurabilityMode, Error, ErrorKind, LogClass, RecoveryPolicy,
    Retention, Value, Version, restore_with, salvage_with,
};
use steadfast_testing::model::{Content, Item, Op, ReferenceModel, content_now};
use steadfast_testing::sim::SimDisk;
use steadfast_testing::workload::{builder, builder_at};

use crate::story::{
    OwnedDamage, Story, commit, config, delete, paths, put, snapshots, spoil_block, spoil_newest,
};

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
