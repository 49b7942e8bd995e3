//! What the crash tests found, each as small as it gets. One test a bug; they stay.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use steadfast::disk::Disk;
use steadfast::{Database, DurabilityMode, ErrorKind, Value};
use steadfast_testing::crash::{Cut, Effort, explore};
use steadfast_testing::fixture::fixture;
use steadfast_testing::model::{Op, content_now};
use steadfast_testing::sim::{Choice, EIO, Fault, Plan, SimDisk, StepKind};
use steadfast_testing::workload::{Action, Driver, Workload, builder};

const EFFORT: Effort =
    Effort { random: 2, nested_every: 0, depth: 0, queued_versions: true, lost_pages: false };

fn put(key: &str, bytes: usize) -> Vec<Op> {
    vec![Op::Put("r".into(), key.into(), Value::from(vec![7u8; bytes].as_slice()))]
}

fn strict(actions: Vec<Action>) -> Workload {
    Workload::new(actions, DurabilityMode::Strict)
}

fn commit(db: &Database, ops: &[Op]) {
    db.transaction(|tx| ops.iter().try_for_each(|op| op.apply(tx))).unwrap();
}

/// The header of the new segment promises more than any group before it; that promise falls on
/// a group boundary that `look_behind` did not know any more.
#[test]
fn a_crash_between_a_segment_header_and_the_manifest_opens() {
    let workload = strict((0..4).map(|n| Action::Commit(put(&format!("k{n}"), 10))).collect());
    let disk = SimDisk::new();
    disk.record_moments();
    let (history, db) = Driver::new(disk.clone(), workload.clone()).run();
    for moment in disk.take_moments().iter().filter(|moment| moment.note() > 0) {
        let kept = history.progress[usize::try_from(moment.note()).unwrap()].acknowledged;
        let opened = builder(&moment.kill(), workload.config.clone()).open();
        let content = opened.and_then(|db| content_now(&db));
        let content = content.unwrap_or_else(|error| panic!("{moment:?}: {error}"));
        assert!(content.len() >= history.models[kept].content().len(), "{moment:?}");
    }
    drop(db);
}

/// A footer in an older segment is not the end of the log: versions given out since were given
/// out again.
#[test]
fn a_segment_behind_a_footer_makes_the_log_unclean() {
    let actions = vec![
        Action::Commit(put("a", 10)),
        Action::Reopen,
        Action::Commit(put("b", 10)),
        Action::Commit(put("c", 10)),
    ];
    let workload = Workload::new(actions, DurabilityMode::Buffered);
    explore(&workload, Cut::Power, EFFORT, 1).unwrap_or_else(|why| panic!("{why}"));
}

/// Recovery writes the commit frame again under a new epoch and leaves the parts, which were
/// promised, under the old: the opening after that one threw the parts away.
#[test]
fn a_streamed_transaction_survives_two_openings() {
    let large: Vec<_> = (0..6).flat_map(|n| put(&format!("large{n}"), 2000)).collect();
    let workload = strict(vec![Action::Commit(put("a", 10)), Action::Commit(large)]);
    let disk = SimDisk::new();
    let (history, db) = Driver::new(disk.clone(), workload.clone()).run();
    let mut disk = disk.killed();
    drop(db);
    for opening in 1..4 {
        let db = builder(&disk, workload.config.clone()).open().unwrap();
        let found = content_now(&db).unwrap();
        assert_eq!(history.models[2].compare(&found), [], "opening {opening}");
        let killed = disk.killed();
        drop(db);
        disk = killed;
    }
}

/// Creation that was cut short after `mkdir` and finished later never synced the directory
/// that the database lies in.
#[test]
fn finishing_a_creation_makes_the_directory_itself_durable() {
    let disk = SimDisk::new();
    disk.create_dir(Path::new("db")).unwrap();
    let workload = strict(Vec::new());
    let db = builder(&disk, workload.config.clone()).open().unwrap();
    commit(&db, &put("a", 10));
    let moment = disk.moment();
    let mut rng = fastrand::Rng::with_seed(1);
    for plan in moment.plans(0, &mut rng) {
        let opened = builder(&moment.cut(&plan), workload.config.clone()).open_existing();
        let content = opened.and_then(|db| content_now(&db)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(content.len(), 2, "image {plan}");
    }
}

/// With the MANIFEST of its first moment, a database with a whole log opened as empty, clean.
#[test]
fn a_manifest_older_than_the_log_is_refused() {
    let disk = SimDisk::new();
    let workload = strict(Vec::new());
    let db = builder(&disk, workload.config.clone()).open().unwrap();
    let first = disk.bytes("db/MANIFEST").unwrap();
    (0..3).for_each(|n| commit(&db, &put(&format!("k{n}"), 10)));
    db.close().unwrap();
    disk.tamper("db/MANIFEST", |bytes| *bytes = first);
    let error = builder(&disk, workload.config.clone()).open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    assert!(error.to_string().contains("WAL/"), "it names a file: {error}");
}

/// A group in a segment that the MANIFEST does not name proves that the MANIFEST is old: the
/// segment was named before it got a group.
#[test]
fn a_manifest_one_rotation_older_loses_nothing_silently() {
    let disk = SimDisk::new();
    let workload = strict(Vec::new());
    let db = builder(&disk, workload.config.clone()).open().unwrap();
    let mut before = Vec::new();
    for n in 0..5 {
        let manifest = disk.bytes("db/MANIFEST").unwrap();
        commit(&db, &put(&format!("k{n}"), 10));
        if disk.bytes("db/MANIFEST").unwrap() != manifest {
            before = vec![(manifest, disk.killed(), n)];
        }
    }
    let (manifest, killed, n) = before.pop().unwrap();
    killed.tamper("db/MANIFEST", |bytes| *bytes = manifest);
    match builder(&killed, workload.config.clone()).open() {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corruption, "{error}"),
        Ok(db) => {
            let whole = content_now(&db).unwrap().len() == n + 2;
            let report = db.recovery_report();
            assert!(whole || report.left_anything_out(), "silently less: {report}");
        }
    }
}

/// The refusal named the whole segment before the missing one.
#[test]
fn a_refusal_names_the_segment_that_is_missing() {
    let db = fixture().with_commits(7).closed();
    db.file("WAL/wal-000002.seg").remove();
    db.reopen().expect_refusal("WAL/wal-000002.seg");
}

/// P4: also a version that was only queued, or whose append failed, is never given again.
#[test]
fn versions_of_commits_that_never_were_are_not_given_again() {
    let disk = SimDisk::new();
    let workload = strict(Vec::new());
    let db = builder(&disk, workload.config.clone()).open().unwrap();
    disk.inject(Fault::once(StepKind::Create, 0, EIO));
    let submit = |db: &Database| {
        let mut tx = db.begin().unwrap();
        put("a", 10).iter().try_for_each(|op| op.apply(&mut tx)).unwrap();
        tx.submit().unwrap().unwrap()
    };
    let mut tx = db.begin().unwrap();
    put("a", 10).iter().try_for_each(|op| op.apply(&mut tx)).unwrap();
    let error = tx.submit().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "no version is given that is not reserved: {error}");
    let queued = submit(&db);
    let version = queued.version();
    let killed = disk.killed();
    drop((queued, db));
    let again = submit(&builder(&killed, workload.config.clone()).open().unwrap()).version();
    assert!(again > version, "version {version} was given to a queued commit, then {again}");
}

/// After a failed sync nothing is ever called durable, also not by closing.
#[test]
fn closing_does_not_make_a_lost_commit_durable() {
    let disk = SimDisk::new();
    let workload = Workload::new(Vec::new(), DurabilityMode::Buffered);
    let db = builder(&disk, workload.config.clone()).open().unwrap();
    commit(&db, &put("a", 10));
    let mut tx = db.begin().unwrap();
    put("b", 10).iter().try_for_each(|op| op.apply(&mut tx)).unwrap();
    let receipt = tx.commit().unwrap();
    disk.inject(Fault::once(StepKind::SyncData, 0, EIO));
    assert_eq!(receipt.wait_durable().unwrap_err().kind(), ErrorKind::Unknown);
    db.close().unwrap();
    assert_eq!(receipt.wait_durable().unwrap_err().kind(), ErrorKind::Unknown);
}

/// A retry that finds its event already there promises no more than the event has.
#[test]
fn the_receipt_of_an_idempotent_retry_waits_for_the_original() {
    let disk = SimDisk::new();
    let workload = Workload::new(Vec::new(), DurabilityMode::Buffered);
    let db = builder(&disk, workload.config.clone()).open().unwrap();
    let run = db.create_run("r").unwrap();
    let options = steadfast::AppendOptions {
        idempotency_key: Some("once".into()),
        ..steadfast::AppendOptions::default()
    };
    let append = || db.event_append_with(run, "s", 1, &options).unwrap();
    let (first, _) = append();
    let (again, receipt) = append();
    assert_eq!((again.seq, first.original), (0, None));
    assert!(again.original.is_some());
    receipt.wait_durable().unwrap();
    let moment = disk.moment();
    let mut rng = fastrand::Rng::with_seed(1);
    for plan in moment.plans(0, &mut rng) {
        let db = builder(&moment.cut(&plan), workload.config.clone()).open_existing().unwrap();
        let run = db.resolve_run("r").unwrap();
        assert_eq!(db.event_read(run, "s", 0).unwrap().count(), 1, "image {plan}");
    }
}

/// Two large transactions, the first given up on a disk so full that not even that could be
/// said, must not add up to more than replay stages.
#[test]
fn a_stream_given_up_on_a_full_disk_does_not_spoil_the_next() {
    let disk = SimDisk::new();
    let workload = strict(Vec::new());
    let db = builder(&disk, workload.config.clone()).open().unwrap();
    commit(&db, &put("a", 10));
    let large = |name: &str| -> Vec<Op> {
        (0..4).flat_map(|n| put(&format!("{name}{n}"), 12 << 20)).collect()
    };
    let room = disk.used_bytes() + (44 << 20);
    disk.set_capacity(Some(room));
    let failed = db.transaction(|tx| large("x").iter().try_for_each(|op| op.apply(tx)));
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Io);
    disk.set_capacity(None);
    commit(&db, &large("y"));
    db.close().unwrap();
    let db = builder(&disk.killed(), workload.config.clone()).open().unwrap();
    assert_eq!(content_now(&db).unwrap().len(), 2 + 4);
}

/// Versions, ids and numbers near the end of their range are errors, not loops or panics.
#[test]
fn versions_beyond_what_there_can_be_are_refused() {
    let db = Database::in_memory().unwrap();
    let disk = SimDisk::new();
    let on_disk = builder(&disk, strict(Vec::new()).config).open().unwrap();
    for db in [db, on_disk] {
        for version in [u64::MAX, u64::MAX - 8192, steadfast::limits::VERSION_MAX + 1] {
            let restored = db.restore(steadfast::Version(version), steadfast::Timestamp::ZERO);
            assert_eq!(restored.unwrap_err().kind(), ErrorKind::Invalid, "{version}");
        }
        let late = db.restore(steadfast::Version(10), steadfast::Timestamp::ZERO).unwrap();
        let later = db.restore(steadfast::Version(11), steadfast::Timestamp::ZERO).unwrap();
        later.commit().unwrap();
        assert_eq!(late.commit().unwrap_err().kind(), ErrorKind::Invalid, "its turn is past");
    }
}

/// A name that no release writes is not a segment, whatever number it has.
#[test]
fn a_file_with_an_impossible_number_is_left_alone() {
    let db = fixture().with_commits(3).closed();
    std::fs::write(db.path().join("WAL/wal-18446744073709551615.seg"), "").unwrap();
    db.reopen().expect_commits(3);
}

/// Creation was killed between the rename of the MANIFEST and the sync of its directory. The
/// next opening built on that MANIFEST; a power cut then took it away and left the segment:
/// that is damage to whoever looks, and it never opened again.
#[test]
fn what_a_killed_creation_left_is_durable_before_anything_stands_on_it() {
    let config = strict(Vec::new()).config;
    let disk = SimDisk::new();
    disk.record_moments();
    drop(builder(&disk, config.clone()).open().unwrap());
    for killed in disk.take_moments() {
        let disk = killed.kill();
        disk.record_moments();
        let db = builder(&disk, config.clone()).open().unwrap();
        commit(&db, &put("k", 10));
        for moment in disk.take_moments() {
            for plan in moment.plans(0, &mut fastrand::Rng::with_seed(1)) {
                let opened = builder(&moment.cut(&plan), config.clone()).open();
                opened.unwrap_or_else(|error| panic!("{killed:?}, {moment:?}, {plan}: {error}"));
            }
        }
    }
}

/// Recovery was killed between the rename of its MANIFEST and the sync of the directory. A reader
/// then believed the promise in it and synced only what lay behind; a power cut took the MANIFEST
/// away, and with it what had been shown.
#[test]
fn what_a_reader_shows_after_a_killed_recovery_survives_a_power_cut() {
    let actions = (0..4).map(|n| Action::Commit(put(&format!("k{n}"), 10))).collect();
    let config = Workload::new(actions, DurabilityMode::Buffered).config;
    let disk = SimDisk::new();
    let db = builder(&disk, config.clone()).open().unwrap();
    for n in 0..4 {
        commit(&db, &put(&format!("k{n}"), 10));
    }
    let killed = disk.killed();
    drop(db);
    killed.record_moments();
    drop(builder(&killed, config.clone()).open().unwrap());
    for moment in killed.take_moments() {
        let disk = moment.kill();
        let reader = builder(&disk, config.clone()).open_read_only().unwrap();
        let shown = content_now(&reader).unwrap();
        let now = disk.moment();
        let nothing_kept = Plan(vec![Choice::Drop; now.pending_len()]);
        let found = builder(&now.cut(&nothing_kept), config.clone()).open();
        let found = content_now(&found.unwrap()).unwrap();
        assert_eq!(found, shown, "{moment:?}");
    }
}
