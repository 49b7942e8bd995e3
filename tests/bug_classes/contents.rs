//! What is in the database afterwards: versions, transactions, deletes and times.

use std::time::Duration;

use steadfast::{CompactMode, LogClass, ManualClock, Retention, Timestamp, Version};
use steadfast_testing::model::{Op, ReferenceModel, content_now};
use steadfast_testing::sim::{EIO, Fault, SimDisk, StepKind, Unsynced, UnsyncedChange};
use steadfast_testing::workload::builder;

use crate::life::{BUFFERED, Life, STRICT, append, config, cut, cut_keeping, put, streamed};

#[test]
pub(crate) fn a_lost_version_is_not_given_again() {
    let mut life = Life::new(BUFFERED);
    life.commit(&put("a", 10));
    life.db.flush().unwrap();
    let mut newest = Version::ZERO;
    for n in 0..5 {
        newest = life.commit(&put(&format!("lost{n}"), 10));
    }
    for _ in 0..4 {
        life.states.truncate(2);
        let disk = cut(&life.disk);
        life.reborn(disk);
        assert_eq!(life.db.current_version(), life.states[1].0, "the rest was lost");
        let next = life.commit(&put("next", 10));
        assert!(next > newest, "{next} was given out before: {newest}");
        newest = next;
    }
}

#[test]
pub(crate) fn nothing_is_replayed_on_top_of_a_snapshot_twice() {
    let mut life = Life::new(STRICT);
    for n in 0..12 {
        // Done twice, an event would be there twice.
        life.commit(&append(n));
    }
    let moments = life.moments(|db| {
        db.checkpoint().unwrap();
        db.compact(CompactMode::WalOnly).unwrap();
    });
    let mut rng = fastrand::Rng::with_seed(1);
    for moment in &moments {
        life.expect_all(&moment.kill(), &format!("{moment:?}, killed"));
        for plan in moment.plans(2, &mut rng) {
            life.expect_all(&moment.cut(&plan), &format!("{moment:?}, {plan}"));
        }
    }
}

#[test]
pub(crate) fn a_stream_without_its_commit_frame() {
    let mut life = Life::new(BUFFERED);
    life.commit(&put("a", 10));
    life.db.flush().unwrap();
    life.disk.keep_journal();
    life.disk.record_moments();
    life.commit(&streamed("large"));
    let moments = life.disk.take_moments();
    let writes = life.disk.journal().iter().filter(|step| step.kind == StepKind::Write).count();
    assert!(writes > 2, "it is streamed");
    let begun = &moments[moments.len() - 2];
    assert_eq!(life.expect(&begun.kill(), 1, "before its last write"), 1);
    // Everything is durable but the last write, in which the commit frame is.
    let moment = moments.last().unwrap();
    let unsynced = moment.unsynced();
    let is_write = |op: &&Unsynced| matches!(op.change, UnsyncedChange::Write { .. });
    let last = unsynced.iter().filter(is_write).map(|op| op.step).max().unwrap();
    let image = cut_keeping(moment, |op| op.step != last);
    assert_eq!(life.expect(&image, 1, "without its commit frame"), 1);
    life.expect_all(&cut_keeping(moment, |_| true), "with it");
}

#[test]
pub(crate) fn what_was_deleted_stays_deleted() {
    let delete = [Op::Delete("r".into(), "gone".into())];
    for checkpoint_first in [false, true] {
        for compaction in [None, Some(CompactMode::WalOnly), Some(CompactMode::Full)] {
            let mut life = Life::new(STRICT);
            life.commit(&put("gone", 100));
            life.commit(&put("stays", 100));
            if checkpoint_first {
                life.db.checkpoint().unwrap();
            }
            life.commit(&delete);
            let moments = life.moments(|db| {
                db.checkpoint().unwrap();
                if let Some(mode) = compaction {
                    db.compact(mode).unwrap();
                }
            });
            for moment in &moments {
                life.expect_all(&moment.kill(), &format!("{moment:?}"));
                life.expect_all(&cut_keeping(moment, |_| false), &format!("{moment:?}, cut"));
            }
        }
    }
}

#[test]
pub(crate) fn a_clock_that_goes_back_removes_nothing() {
    let hour = Duration::from_secs(3600);
    let noon = 1u64 << 50;
    let config = config(STRICT).retention(Retention::KeepFor(hour));
    let disk = SimDisk::new();
    let mut model = ReferenceModel::new();
    let mut newest = Version::ZERO;
    // Forward, back by a day, on a little, and back to the beginning of time.
    for (life, micros) in
        [noon, noon + 7_200_000_000, noon - 86_400_000_000, noon, 1].into_iter().enumerate()
    {
        let clock = ManualClock::at(Timestamp::from_micros(micros));
        let db = builder(&disk, config.clone()).clock(clock.clone()).open().unwrap();
        assert_eq!(model.compare(&content_now(&db).unwrap()), [], "life {life}");
        for n in 0..4 {
            let mut ops = put(&format!("k{n}"), 50 + life);
            ops.extend(append(n));
            let done = db.transaction(|tx| ops.iter().try_for_each(|op| op.apply(tx)));
            let version = done.unwrap().1.version();
            assert!(version > newest, "life {life}: versions do not follow the clock");
            newest = version;
            model.apply(&ops, version);
        }
        db.checkpoint().unwrap();
        db.compact(CompactMode::Full).unwrap();
        assert_eq!(model.compare(&content_now(&db).unwrap()), [], "life {life}, compacted");
        if life % 2 == 0 {
            db.close().unwrap();
        }
    }
    let db = builder(&cut(&disk), config).open().unwrap();
    assert_eq!(model.compare(&content_now(&db).unwrap()), []);
}

#[test]
pub(crate) fn the_version_of_an_aborted_transaction() {
    let mut life = Life::new(BUFFERED);
    let first = life.commit(&put("a", 10));
    life.db.flush().unwrap();
    // One given up before it had a version, and one whose write failed after it had one.
    let mut tx = life.db.begin().unwrap();
    put("aborted", 10).iter().try_for_each(|op| op.apply(&mut tx)).unwrap();
    drop(tx);
    life.disk.inject(Fault::once(StepKind::Write, 0, EIO).landing(usize::MAX));
    let mut tx = life.db.begin().unwrap();
    put("failed", 10).iter().try_for_each(|op| op.apply(&mut tx)).unwrap();
    let pending = tx.submit().unwrap().unwrap();
    let given = pending.version();
    assert!(given > first);
    pending.wait().unwrap_err();
    life.disk.heal();
    let second = life.commit(&put("b", 10));
    assert!(second > given, "{second} was given to the one that failed: {given}");
    let killed = life.disk.killed();
    life.expect_all(&killed, "killed");
    life.reborn(killed);
    assert_ne!(life.db.recovery_report().log, LogClass::Clean);
    assert!(life.commit(&put("c", 10)) > second);
    life.db.flush().unwrap();
    life.expect_all(&cut(&life.disk), "cut");
}
