//! Damaged snapshots, failing syncs and full disks: what is there stays there.

use std::collections::BTreeSet;

use steadfast::{CompactMode, DurabilityMode, Error, ErrorKind, Retention, SnapshotClass};
use steadfast_testing::model::content_now;
use steadfast_testing::sim::{EIO, ENOSPC, FailedSync, Fault, StepKind};
use steadfast_testing::workload::builder;

use crate::story::{Damage, Story, config, delete, paths, put, snapshots, spoil_block, submit};

/// Compaction must not give up what would replace a snapshot that nobody has read.
#[test]
fn a_bad_block_that_is_met_late_stops_checkpoint_and_compaction_and_deletes_nothing() {
    let mut story = Story::new();
    story.commits("a", 30);
    story.checkpoint();
    story.compact();
    story.commits("b", 30);
    let only = snapshots(&story.disk).pop().unwrap();
    let disk = story.disk.killed();
    spoil_block(&disk, &only);
    let db = builder(&disk, story.config.clone()).open_existing().unwrap();
    let before: BTreeSet<_> = paths(&disk, "db/WAL/").into_iter().collect();
    for _ in 0..2 {
        assert_eq!(db.checkpoint().unwrap_err().kind(), ErrorKind::Corruption);
        assert_eq!(db.compact(CompactMode::Full).unwrap_err().kind(), ErrorKind::Corruption);
        // Nothing can be superfluous, whether this says so or not.
        let _ = db.compact(CompactMode::WalOnly);
        let after: BTreeSet<_> = paths(&disk, "db/WAL/").into_iter().collect();
        assert!(before.is_subset(&after), "{before:?} became {after:?}");
        assert!(snapshots(&disk).contains(&only));
    }
    assert_eq!(content_now(&db).unwrap_err().kind(), ErrorKind::Corruption);
    assert_eq!(db.wait_loaded().unwrap_err().kind(), ErrorKind::Corruption);
}

#[test]
fn compaction_reads_the_newest_snapshot_back_before_it_trusts_it() {
    let mut story = Story::new();
    story.commits("a", 30);
    story.checkpoint();
    let newest = snapshots(&story.disk).pop().unwrap();
    spoil_block(&story.disk, &newest);
    let before = paths(&story.disk, "db/WAL/");
    let error = story.db.compact(CompactMode::WalOnly).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    assert!(error.to_string().contains("SNAPSHOTS/"), "{error}");
    assert_eq!(paths(&story.disk, "db/WAL/"), before);
    // The log has everything still.
    story.commits("b", 3);
    assert_eq!(story.db.verify().unwrap().len(), 1);
    story.checkpoint();
    story.compact();
    story.expect_survives("with a new snapshot");
}

#[test]
fn a_corrupt_newest_snapshot_never_blocks_opening_while_the_older_and_its_log_are_there() {
    let mut story = Story::new();
    story.commits("a", 20);
    story.checkpoint();
    story.compact();
    story.commits("b", 20);
    story.commit(&[delete("a3"), put("a4", 5)]);
    story.checkpoint();
    story.commits("c", 5);
    let newest = snapshots(&story.disk).pop().unwrap();
    let length = story.disk.bytes(&newest).unwrap().len();
    let damages: [(&str, Damage<'_>); 5] = [
        ("removed", &|disk| disk.lose(&newest)),
        ("empty", &|disk| disk.tamper(&newest, Vec::clear)),
        ("cut", &|disk| disk.tamper(&newest, |bytes| bytes.truncate(length / 2))),
        ("zeros", &|disk| disk.tamper(&newest, |bytes| bytes.fill(0))),
        ("a bad block", &|disk| spoil_block(disk, &newest)),
    ];
    for (name, damage) in damages {
        let disk = story.disk.killed();
        damage(&disk);
        let reading = builder(&disk, story.config.clone()).open_read_only().unwrap();
        reading.wait_loaded().unwrap();
        story.expect(&reading, &format!("{name}, reading"));
        let db = builder(&disk, story.config.clone()).open_existing().unwrap();
        let report = db.recovery_report().clone();
        db.wait_loaded().unwrap();
        story.expect(&db, name);
        if name == "a bad block" {
            assert_eq!(
                (report.snapshots, db.stats().unwrap().load.rebuilt),
                (SnapshotClass::Sound, 1)
            );
        } else {
            assert_eq!(report.snapshots, SnapshotClass::Fallback, "{name}: {report}");
            assert!(
                report.left_anything_out() && report.to_string().contains("SNAPSHOTS/"),
                "{report}"
            );
        }
        drop(db);
        story.expect_reopened(&disk, name);
    }
}

/// Whatever part of the newest snapshot is bad, the next one takes its place.
#[test]
fn a_checkpoint_gets_over_any_damage_of_the_newest_snapshot() {
    let mut story = Story::with(config(DurabilityMode::Strict).retention(Retention::KeepAll));
    story.commits("a", 20);
    story.checkpoint();
    story.compact();
    story.commits("b", 20);
    story.checkpoint();
    story.commits("c", 2);
    let newest = snapshots(&story.disk).pop().unwrap();
    let length = story.disk.bytes(&newest).unwrap().len();
    let mut failures = Vec::new();
    for at in (0..length).step_by(23) {
        let disk = story.disk.killed();
        disk.flip_bit(&newest, at * 8);
        let gone_over = || -> Result<(), Error> {
            let db = builder(&disk, story.config.clone()).open_existing()?;
            db.wait_loaded()?;
            db.view_at(story.models[25].0)?;
            db.checkpoint()?;
            db.compact(CompactMode::WalOnly)?;
            story.expect(&db, "compacted");
            Ok(())
        };
        if let Err(error) = gone_over() {
            failures.push(format!("byte {at} of {length}: {error}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures: {:#?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
}

#[test]
fn a_poisoned_log_writes_no_snapshot_and_no_manifest() {
    for mode in [DurabilityMode::Strict, DurabilityMode::Buffered] {
        let mut story = Story::with(config(mode));
        story.commits("a", 20);
        story.checkpoint();
        story.commits("b", 3);
        let strict = mode == DurabilityMode::Strict;
        let kind = if strict { StepKind::WriteDurable } else { StepKind::SyncData };
        story.disk.inject(Fault::once(kind, 0, EIO).syncing(FailedSync::LostAtCut));
        let pending = submit(&story.db, &[put("lost", 10)]).unwrap();
        let waited = pending.wait();
        if !strict {
            assert_eq!(waited.unwrap().wait_durable().unwrap_err().kind(), ErrorKind::Unknown);
        }
        let before: Vec<_> =
            story.disk.paths().iter().map(|path| (path.clone(), story.disk.bytes(path))).collect();
        assert_eq!(story.db.checkpoint().unwrap_err().kind(), ErrorKind::Poisoned);
        for compact in [CompactMode::WalOnly, CompactMode::Full] {
            assert_eq!(story.db.compact(compact).unwrap_err().kind(), ErrorKind::Poisoned);
        }
        let retained = story.db.set_retention(Retention::KeepAll).unwrap_err();
        assert_eq!(retained.kind(), ErrorKind::Poisoned);
        assert_eq!(story.db.backup("copy").unwrap_err().kind(), ErrorKind::Poisoned);
        for (path, bytes) in before {
            assert_eq!(story.disk.bytes(&path), bytes, "{path}");
        }
        assert!(paths(&story.disk, "copy/MANIFEST").iter().all(|path| !path.ends_with("MANIFEST")));
    }
}

/// A checkpoint and a compaction fail at each of their steps in turn.
#[test]
fn a_failed_checkpoint_leaves_the_old_state_and_the_database_goes_on() {
    let kinds =
        [StepKind::Create, StepKind::Write, StepKind::Remove, StepKind::SyncAll, StepKind::Rename];
    let mut struck = 0;
    for full in [CompactMode::WalOnly, CompactMode::Full] {
        for (kind, sticky) in kinds.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
            for after in 0..40 {
                let mut story = Story::new();
                story.commits("a", 20);
                story.checkpoint();
                story.compact();
                story.commits("b", 20);
                let fault = Fault::once(kind, after, ENOSPC).landing(100);
                story.disk.inject(if sticky { fault.sticky() } else { fault });
                let made = story.db.checkpoint().map(drop);
                let compacted = made.and_then(|()| story.db.compact(full).map(drop));
                let hit = story.disk.has_struck();
                story.disk.heal();
                let poisoned =
                    matches!(&compacted, Err(error) if error.kind() == ErrorKind::Poisoned);
                if let Err(error) = &compacted {
                    let fine = [ErrorKind::Io, ErrorKind::Poisoned].contains(&error.kind());
                    assert!(fine, "{kind:?} {after}: {error}");
                }
                story.expect_reopened(&story.disk, &format!("{kind:?} {after} {full:?}"));
                if !poisoned {
                    story.commits("c", 2);
                    let again = story.db.compact(CompactMode::Full);
                    again.unwrap_or_else(|error| panic!("{kind:?} {after}, again: {error}"));
                    story.expect_survives(&format!("{kind:?} {after} {full:?}, again"));
                }
                struck += u32::from(hit);
                if !hit {
                    break;
                }
            }
        }
    }
    assert!(struck > 30, "{struck}");
}

#[test]
fn a_checkpoint_on_a_full_disk_fails_and_leaves_nothing() {
    let mut story = Story::new();
    story.commits("a", 40);
    for room in [0, 1000, 5000] {
        story.disk.set_capacity(Some(story.disk.used_bytes() + room));
        let error = story.db.checkpoint().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(snapshots(&story.disk).is_empty(), "{room}");
        story.disk.set_capacity(None);
        story.commits("b", 1);
        story.expect_survives("after a full disk");
    }
    story.checkpoint();
    story.compact();
    story.expect_survives("with space");
}
