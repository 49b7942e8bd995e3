//! What is durable before what: syncs, names and promises.

use steadfast::{CompactMode, ErrorKind};
use steadfast_testing::model::content_now;
use steadfast_testing::sim::{Choice, EIO, FailedSync, Fault, StepKind, Unsynced, UnsyncedChange};
use steadfast_testing::workload::builder;

use crate::life::{BUFFERED, Life, STRICT, cut, cut_by, cut_keeping, put, streamed, with_segments};

#[test]
pub(crate) fn a_sync_that_failed_is_not_tried_again() {
    let mut life = Life::new(BUFFERED);
    life.commit(&put("a", 100));
    life.db.flush().unwrap();
    life.commit(&put("b", 100));
    for kind in [StepKind::SyncData, StepKind::SyncAll] {
        life.disk.inject(Fault::once(kind, 0, EIO).syncing(FailedSync::LostAtCut));
    }
    let error = life.db.flush().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Io | ErrorKind::Poisoned));
    // The pages count as clean now: a second sync would succeed, and prove nothing.
    life.disk.heal();
    assert_eq!(life.db.flush().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(life.try_commit(&put("c", 1)).unwrap_err().kind(), ErrorKind::Poisoned);
    let kept = life.expect(&cut(&life.disk), 1, "the power goes");
    assert_eq!(kept, 1, "the pages are gone");
}

#[test]
pub(crate) fn a_manifest_whose_sync_failed_and_two_crashes() {
    let mut life = Life::new(BUFFERED);
    for n in 0..5 {
        life.commit(&put(&format!("k{n}"), 200));
    }
    life.db.flush().unwrap();
    let syncs = {
        let twin = life.disk.killed();
        let db = builder(&twin, life.config.clone()).open().unwrap();
        let before = twin.count(StepKind::SyncAll);
        db.checkpoint().unwrap();
        twin.count(StepKind::SyncAll) - before
    };
    assert!(syncs >= 2, "of the snapshot and of the MANIFEST");
    for after in 0..syncs {
        for sync in [FailedSync::StayDirty, FailedSync::LostAtCut, FailedSync::DurableAnyway] {
            let disk = cut(&life.disk);
            let db = builder(&disk, life.config.clone()).open().unwrap();
            disk.inject(Fault::once(StepKind::SyncAll, after, EIO).syncing(sync));
            assert!(db.checkpoint().is_err(), "sync {after} failed");
            let killed = disk.killed();
            life.expect_all(&killed, "killed");
            let again = builder(&killed, life.config.clone()).open().unwrap();
            drop(again);
            life.expect_all(&cut(&killed), "killed, opened, cut");
        }
    }
}

#[test]
pub(crate) fn what_recovery_shows_is_durable() {
    let mut life = Life::new(BUFFERED);
    for n in 0..4 {
        life.commit(&put(&format!("k{n}"), 300));
    }
    life.db.flush().unwrap();
    for n in 4..9 {
        life.commit(&put(&format!("k{n}"), 300));
    }
    assert!(life.expect(&cut(&life.disk), 4, "without a kill") < 9, "the rest was not durable");
    // The process dies; the pages are in the kernel; recovery shows them.
    let killed = life.disk.killed();
    life.reborn(killed);
    assert_eq!(content_now(&life.db).unwrap().len(), 10);
    life.expect_all(&cut(&life.disk), "shown by recovery, then the power goes");
}

#[test]
pub(crate) fn removals_that_are_durable_before_names() {
    let mut life = with_segments(BUFFERED, 3);
    life.db.checkpoint().unwrap();
    life.commit(&put("between", 10));
    life.db.flush().unwrap();
    let moments = life.moments(|db| {
        db.checkpoint().unwrap();
        db.compact(CompactMode::Full).unwrap();
    });
    let (mut tried, mut removed) = (0, 0);
    for moment in &moments {
        let is_removal = |op: &Unsynced| matches!(op.change, UnsyncedChange::Unlink(_));
        removed += moment.unsynced().iter().filter(|op| is_removal(op)).count();
        life.expect_all(&cut_keeping(moment, is_removal), &format!("{moment:?}"));
        tried += 1;
    }
    assert!(tried > 10 && removed > 0, "{tried} moments, {removed} removals");
}

#[test]
pub(crate) fn a_manifest_is_never_durable_before_its_files() {
    let mut life = with_segments(BUFFERED, 2);
    let moments = life.moments(|db| {
        db.checkpoint().unwrap();
    });
    let mut renames = 0;
    for moment in &moments {
        let is_name = |op: &Unsynced| {
            !matches!(op.change, UnsyncedChange::Write { .. } | UnsyncedChange::Len(_))
        };
        let names = moment.unsynced();
        renames +=
            names.iter().filter(|op| matches!(op.change, UnsyncedChange::Rename { .. })).count();
        // Every name is durable, and no byte that was not synced.
        let image = cut_keeping(moment, is_name);
        life.expect(&image, 0, &format!("{moment:?}"));
    }
    assert!(renames > 0);
    // And if it happened all the same: the older state stands in, or it is refused by name.
    life.commit(&put("later", 10));
    life.db.close().unwrap();
    let image = life.disk.killed();
    let snapshot = image.paths().into_iter().rfind(|path| path.contains("SNAPSHOTS")).unwrap();
    image.tamper(&snapshot, Vec::clear);
    life.expect_all(&image, "the snapshot is empty, its log is there");
}

#[test]
pub(crate) fn a_manifest_of_zeros() {
    let mut life = Life::new(STRICT);
    life.commit(&put("a", 10));
    let moments = life.moments(|db| {
        db.checkpoint().unwrap();
    });
    for moment in &moments {
        // The name of the new MANIFEST and its length, and not one byte of it.
        let image = cut_keeping(moment, |op| !matches!(op.change, UnsyncedChange::Write { .. }));
        life.expect_all(&image, &format!("{moment:?}"));
    }
    life.db.close().unwrap();
    let image = life.disk.killed();
    image.tamper("db/MANIFEST", |bytes| bytes.fill(0));
    life.expect_refusal(&image, "MANIFEST", "zeros");
    image.tamper("db/MANIFEST", Vec::clear);
    life.expect_refusal(&image, "MANIFEST", "nothing");
}

#[test]
pub(crate) fn a_snapshot_without_the_log_behind_it() {
    let mut life = Life::new(BUFFERED);
    for n in 0..6 {
        life.commit(&put(&format!("k{n}"), 200));
    }
    assert_eq!(life.expect(&cut(&life.disk), 0, "before"), 0, "nothing of the log is durable");
    let moments = life.moments(|db| {
        db.checkpoint().unwrap();
    });
    for moment in &moments {
        // Everything of the snapshot and of the MANIFEST, nothing of the log.
        let image = cut_keeping(moment, |op| !op.path.starts_with("db/WAL/"));
        life.expect(&image, 0, &format!("{moment:?}"));
    }
    life.expect_all(&cut(&life.disk), "after the checkpoint");
}

#[test]
pub(crate) fn the_first_commit_after_a_compaction() {
    let mut life = with_segments(STRICT, 2);
    for mode in [CompactMode::WalOnly, CompactMode::Full] {
        life.db.checkpoint().unwrap();
        life.db.compact(mode).unwrap();
        life.commit(&put("first", 10));
        life.expect_all(&cut(&life.disk), "the first commit after it");
    }
}

#[test]
pub(crate) fn recovery_may_crash_at_each_step() {
    let mut life = with_segments(BUFFERED, 2);
    life.commit(&streamed("large"));
    let killed = life.disk.killed();
    let twin = killed.killed();
    twin.record_moments();
    let db = builder(&twin, life.config.clone()).open().unwrap();
    let moments = twin.take_moments();
    drop(db);
    assert!(moments.len() > 5, "recovery writes");
    let durable = life.expect(&cut(&killed), 0, "before recovery");
    let mut rng = fastrand::Rng::with_seed(1);
    for moment in &moments {
        life.expect_all(&moment.kill(), &format!("killed, {moment:?}"));
        for plan in moment.plans(2, &mut rng) {
            life.expect(&moment.cut(&plan), durable, &format!("{moment:?}, {plan}"));
        }
    }
}

#[test]
pub(crate) fn a_torn_manifest_of_a_recovery_is_never_taken_for_whole() {
    let mut life = with_segments(BUFFERED, 2);
    life.db.checkpoint().unwrap();
    life.commit(&put("later", 10));
    life.db.flush().unwrap();
    let twin = life.disk.killed();
    twin.record_moments();
    drop(builder(&twin, life.config.clone()).open().unwrap());
    let mut torn = 0;
    for moment in twin.take_moments() {
        let of_manifest = |op: &Unsynced| op.path.contains("MANIFEST");
        for op in moment.unsynced().iter().filter(|op| of_manifest(op)) {
            let UnsyncedChange::Write { sectors, .. } = op.change else { continue };
            for sector in 0..sectors {
                for choice in
                    [Choice::First(sector), Choice::Without(sector), Choice::Garbage(sector)]
                {
                    let image = cut_by(&moment, |op| {
                        let is_write = matches!(op.change, UnsyncedChange::Write { .. });
                        if of_manifest(op) && is_write { choice } else { Choice::Keep }
                    });
                    life.expect_all(&image, &format!("{moment:?} {choice}"));
                    // And the recovery of that, too.
                    drop(builder(&image, life.config.clone()).open().unwrap());
                    life.expect_all(&cut(&image), &format!("{moment:?} {choice}, again"));
                    torn += 1;
                }
            }
        }
    }
    assert!(torn > 0, "a MANIFEST was being written");
}

#[test]
pub(crate) fn a_cut_right_after_each_acknowledgement() {
    let mut life = Life::new(STRICT);
    for n in 0..20 {
        let ops = if n % 7 == 6 { streamed("large") } else { put(&format!("k{n}"), 700) };
        life.commit(&ops);
        life.expect_all(&cut(&life.disk), &format!("after commit {n}"));
        life.expect_all(&life.disk.killed(), &format!("after commit {n}, killed"));
    }
    // A commit that asks for it in a mode that does not.
    let mut life = Life::new(BUFFERED);
    life.commit(&put("a", 10));
    assert_eq!(life.expect(&cut(&life.disk), 0, "not asked for"), 0);
    let mut tx = life.db.begin().unwrap();
    put("b", 10).iter().try_for_each(|op| op.apply(&mut tx)).unwrap();
    tx.raise_durability(STRICT);
    let version = tx.commit().unwrap().version();
    let mut model = life.states.last().unwrap().1.clone();
    model.apply(&put("b", 10), version);
    life.states.push((version, model));
    life.expect_all(&cut(&life.disk), "and everything before it");
}
