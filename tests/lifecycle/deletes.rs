//! What was deleted stays deleted, also above a snapshot that is half loaded.

use steadfast::{CompactMode, Database, DurabilityMode, Value};
use steadfast_testing::model::{Op, content_now, content_of};
use steadfast_testing::sim::SimDisk;
use steadfast_testing::workload::builder;

use crate::story::{Story, commit, config, delete, put, spoil_newest};

/// Every order of checkpoint, compaction, fallback and reopening behind a delete.
#[test]
fn deleted_keys_stay_deleted_in_every_order() {
    #[derive(Clone, Copy, Debug)]
    enum Do {
        Checkpoint,
        WalOnly,
        Full,
        Close,
        Kill,
        Fallback,
    }
    const ALL: [Do; 6] = [Do::Checkpoint, Do::WalOnly, Do::Full, Do::Close, Do::Kill, Do::Fallback];
    let mut fallbacks = 0;
    for code in 0..ALL.len().pow(4) {
        let steps: Vec<_> = (0..4).map(|n| ALL[code / ALL.len().pow(n) % ALL.len()]).collect();
        let mut story = Story::with(config(DurabilityMode::Buffered));
        story.commit(&[put("stays", 10), put("goes", 10), put("returns", 10)]);
        story.commit(&[Op::Append("r".into(), "s".into(), Value::Int(1))]);
        story.checkpoint();
        story.commit(&[delete("goes"), delete("returns")]);
        for step in &steps {
            match step {
                Do::Checkpoint => drop(story.db.checkpoint().unwrap()),
                Do::WalOnly => drop(story.db.compact(CompactMode::WalOnly).unwrap()),
                Do::Full => drop(story.db.compact(CompactMode::Full).unwrap()),
                _ => {
                    if matches!(step, Do::Close) {
                        story.db.close().unwrap();
                    }
                    let disk = story.disk.killed();
                    if matches!(step, Do::Fallback) && named_snapshots(&disk) > 1 {
                        spoil_newest(&disk);
                        fallbacks += 1;
                    }
                    story.db = builder(&disk, story.config.clone()).open_existing().unwrap();
                    story.disk = disk;
                }
            }
            story.expect(&story.db, &format!("{steps:?}"));
        }
        // The tombstone is not needed any more, and a new value is not hidden by it.
        story.commit(&[put("returns", 11)]);
        story.expect(&story.db, &format!("{steps:?}, written again"));
        let disk = story.disk.killed();
        let db = builder(&disk, story.config.clone()).open_existing().unwrap();
        story.expect(&db, &format!("{steps:?}, at the end"));
        db.wait_loaded().unwrap();
        story.expect(&db, &format!("{steps:?}, loaded at the end"));
    }
    assert!(fallbacks > 20, "{fallbacks}");
}

/// How many snapshots the MANIFEST names, as its length tells: an entry has five numbers.
fn named_snapshots(disk: &SimDisk) -> usize {
    let bytes = disk.bytes("db/MANIFEST").unwrap();
    let count = &bytes[16 + 16 + 8 * 10..][..8];
    usize::try_from(u64::from_le_bytes(count.try_into().unwrap())).unwrap()
}

/// The only row of a key lies in the table that is not loaded, its tombstone in memory.
#[test]
fn a_tombstone_for_a_row_that_is_not_loaded_is_kept() {
    let mut story = Story::new();
    story.commit(&[put("goes", 10), put("stays", 10)]);
    story.checkpoint();
    story.compact();
    story.db.close().unwrap();
    let db = builder(&story.disk, story.config.clone()).open_existing().unwrap();
    story.db = db;
    story.commit(&[delete("goes")]);
    story.expect(&story.db, "deleted in front of the table");
    story.expect_survives("not loaded");
    story.db.wait_loaded().unwrap();
    story.expect(&story.db, "loaded");
    story.db.compact(CompactMode::Full).unwrap();
    story.expect_survives("compacted");
}

#[test]
fn open_views_keep_what_they_show_through_checkpoint_load_and_compaction() {
    let mut story = Story::new();
    story.commits("k", 10);
    story.commit(&[put("k0", 11), delete("k1")]);
    story.checkpoint();
    story.db.close().unwrap();
    story.db = builder(&story.disk, story.config.clone()).open_existing().unwrap();
    let mut views = Vec::new();
    for turn in 0..6 {
        let (version, model) = story.models.last().unwrap().clone();
        let view = story.db.view().unwrap();
        assert_eq!(view.version(), version);
        views.push((view, model));
        story.commit(&[put("k0", 20 + turn), delete(&format!("k{}", turn + 2))]);
        match turn {
            1 => story.db.wait_loaded().unwrap(),
            2 => drop(story.db.checkpoint().unwrap()),
            3 => drop(story.db.compact(CompactMode::WalOnly).unwrap()),
            4 => drop(story.db.compact(CompactMode::Full).unwrap()),
            _ => {}
        }
        for (view, model) in &views {
            let found = content_of(view).unwrap();
            assert_eq!(model.compare(&found), [], "turn {turn}, version {}", view.version());
        }
    }
}

/// A snapshot of several sections, each loaded or not, in every combination: reads, scans,
/// deletes and commits in front of it are the same; so is a crash and what is opened then.
#[test]
fn a_half_loaded_snapshot_reads_as_a_loaded_one() {
    let mut story = Story::with(config(DurabilityMode::Buffered).segment_bytes(1 << 20));
    for part in 0..14 {
        let puts: Vec<_> = (0..25).map(|n| put(&format!("k{part:02}{n:02}"), 9000)).collect();
        story.commit(&puts);
    }
    story.checkpoint();
    story.compact();
    story.commit(&[put("k0000", 5), delete("k0701"), delete("k1324"), put("k0650", 7)]);
    story.db.close().unwrap();
    let sections = {
        let db = builder(&story.disk, story.config.clone()).open_existing().unwrap();
        db.stats().unwrap().load.sections
    };
    assert!(sections >= 3, "{sections}");
    for loaded in 0..1_usize << sections {
        let disk = story.disk.killed();
        let db = builder(&disk, story.config.clone()).open_existing().unwrap();
        for section in (0..sections).filter(|section| loaded >> section & 1 == 1) {
            db.storage().load_section(section).unwrap();
        }
        story.expect(&db, &format!("loaded {loaded:b}"));
        let view = db.view().unwrap();
        let mut model = story.models.last().unwrap().1.clone();
        let ops = [delete("k0100"), delete("k1300"), put("k0701", 3), put("zzz", 1), put("k", 1)];
        let version = commit(&db, &ops);
        model.apply(&ops, version);
        let same = |db: &Database, what: &str| {
            assert_eq!(model.compare(&content_now(db).unwrap()), [], "loaded {loaded:b}, {what}");
        };
        same(&db, "written to");
        let killed = disk.killed();
        db.wait_loaded().unwrap();
        same(&db, "then loaded");
        assert_eq!(
            story.models.last().unwrap().1.compare(&content_of(&view).unwrap()),
            [],
            "loaded {loaded:b}, the view from before"
        );
        drop(view);
        db.compact(CompactMode::Full).unwrap();
        same(&db, "then compacted");
        drop(db);
        let db = builder(&killed, story.config.clone()).open_existing().unwrap();
        same(&db, "then killed");
        let db = builder(&disk.killed(), story.config.clone()).open_existing().unwrap();
        same(&db, "then compacted and killed");
    }
}
