//! Watermarks and the log: which of it a checkpoint makes superfluous.

use std::sync::{Arc, Mutex};

use steadfast::{CompactMode, DurabilityMode, ErrorKind, SnapshotClass, Value, Version};
use steadfast_testing::model::{Op, ReferenceModel, content_now};
use steadfast_testing::sim::{ENOSPC, Fault, StepKind};
use steadfast_testing::workload::builder;

use crate::story::{
    Hook, Hooked, Meanwhile, Story, commit, config, delete, large, put, snapshots, spoil_block,
    submit,
};

#[test]
fn the_watermark_is_below_every_commit_in_flight() {
    for mode in [DurabilityMode::Strict, DurabilityMode::Buffered] {
        let mut story = Story::with(config(mode));
        story.commits("a", 3);
        let first = story.submit(&[put("flying", 50)]);
        let second = story.submit(&large("flying"));
        let info = story.db.checkpoint().unwrap();
        assert!(info.watermark < first.version(), "{info:?}");
        story.db.compact(CompactMode::WalOnly).unwrap();
        first.wait().unwrap();
        second.wait().unwrap();
        story.expect_survives("with commits in flight at the checkpoint");
        story.commits("b", 60);
        story.compact();
        story.expect_survives("and more commits");
    }
}

/// The beginning of a streamed transaction lies in segments that a snapshot would make
/// superfluous, were it not for its end, which comes later.
#[test]
fn a_segment_goes_by_its_last_version_also_with_a_stream_across_the_checkpoint() {
    for mode in [DurabilityMode::Strict, DurabilityMode::Buffered] {
        for compact_within in [false, true] {
            let mut story = Story::with(config(mode));
            story.commits("a", 60);
            let pending = story.submit(&large("stream"));
            story.checkpoint();
            if compact_within {
                assert!(story.compact() > 0, "what lies before the stream goes");
            }
            // Killed now, the stream never was.
            let killed = story.disk.killed();
            let db = builder(&killed, story.config.clone()).open_existing().unwrap();
            let kept = &story.models[story.models.len() - 2].1;
            assert_eq!(kept.compare(&content_now(&db).unwrap()), []);
            drop(db);
            pending.wait().unwrap();
            story.expect_survives("after the commit of the stream");
            story.compact();
            story.expect_survives("compacted behind the stream");
            story.commits("b", 40);
            story.checkpoint();
            assert!(story.compact() > 0, "the segments of the stream go at last");
            story.expect_survives("with a snapshot that has the stream");
        }
    }
}

/// The stream ends after the snapshot's view was opened and before the snapshot is named: its
/// first segment holds nothing that is newer than the snapshot but its parts.
#[test]
fn a_stream_that_ends_while_a_snapshot_is_written_keeps_its_first_segment() {
    for mode in [DurabilityMode::Strict, DurabilityMode::Buffered] {
        let mut story = Story::with(config(mode));
        let meanwhile = Meanwhile::default();
        // Its view is open then, and it is not named.
        let hook = Hook { creating: true, extension: "chk", work: meanwhile.clone() };
        let hooked = Hooked(story.disk.clone(), hook);
        story.db.close().unwrap();
        let opening = builder(&story.disk, story.config.clone()).disk(Arc::new(hooked));
        story.db = opening.open_existing().unwrap();
        story.commits("a", 60);
        let pending = story.submit(&large("stream"));
        let small = put("meanwhile", 10);
        let other = story.submit(std::slice::from_ref(&small));
        let work = move || {
            pending.wait().unwrap();
            other.wait().unwrap();
        };
        *meanwhile.lock().unwrap() = Some(Box::new(work));
        story.checkpoint();
        assert!(meanwhile.lock().unwrap().is_none(), "it was done");
        story.expect_survives("named after the stream has ended");
        assert!(story.compact() > 0);
        story.expect_survives("and compacted");
        story.commits("b", 30);
        story.checkpoint();
        story.compact();
        story.expect_survives("and more");
    }
}

/// Somebody asks for a checkpoint while another one is being written: it waits, has what was
/// committed meanwhile, and is a snapshot of its own.
#[test]
fn two_checkpoints_at_once_are_one_after_the_other() {
    let mut story = Story::new();
    let meanwhile = Meanwhile::default();
    // The first has chosen its version and its number then.
    let hook = Hook { creating: true, extension: "chk", work: meanwhile.clone() };
    let hooked = Hooked(story.disk.clone(), hook);
    story.db.close().unwrap();
    let opening = builder(&story.disk, story.config.clone()).disk(Arc::new(hooked));
    story.db = opening.open_existing().unwrap();
    story.commits("a", 20);
    let (other, ops) = (story.db.clone(), vec![put("meanwhile", 100), delete("a3")]);
    let (writes, handle) = (ops.clone(), Arc::new(Mutex::new(None)));
    let begun = handle.clone();
    *meanwhile.lock().unwrap() = Some(Box::new(move || {
        commit(&other, &writes);
        let second = std::thread::spawn(move || other.checkpoint());
        // It is given the time to do harm.
        for _ in 0..50 {
            if second.is_finished() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        *begun.lock().unwrap() = Some((second.is_finished(), second));
    }));
    let first = story.db.checkpoint().unwrap();
    let (finished, second) = handle.lock().unwrap().take().unwrap();
    let second = second.join().unwrap().unwrap();
    assert!(!finished, "the second went on while the first was being written");
    assert!(first.written && second.written);
    assert_eq!((second.snapshot, second.watermark), (first.snapshot + 1, first.watermark.next()));
    story.note(&ops, second.watermark);
    assert_eq!(story.db.verify().unwrap(), []);
    story.expect_survives("with two checkpoints at once");
}

/// The files that a read-only handle knows of go away because newer ones took their place: that
/// is no damage. What the newer ones have is.
#[test]
fn verify_of_a_reader_follows_the_writer() {
    let mut story = Story::new();
    story.commits("a", 20);
    story.checkpoint();
    story.commits("b", 20);
    story.checkpoint();
    let reader = builder(&story.disk, story.config.clone()).open_read_only().unwrap();
    assert_eq!(reader.verify().unwrap(), []);
    for turn in 0..3 {
        story.commits(&format!("turn{turn}"), 20);
        story.checkpoint();
        story.compact();
    }
    assert_eq!(reader.verify().unwrap(), [], "what it was opened with is not there any more");
    let newest = snapshots(&story.disk).pop().unwrap();
    spoil_block(&story.disk, &newest);
    let damaged = reader.verify().unwrap();
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    assert!(newest.ends_with(&damaged[0].file), "{damaged:?}");
}

/// What a reader is about to open goes away: it looks again, and finds no damage.
#[test]
fn a_reader_looks_again_when_compaction_takes_files_away() {
    for extension in ["chk", "seg"] {
        for times in 1..4 {
            let mut story = Story::new();
            story.commits("a", 20);
            story.checkpoint();
            story.compact();
            story.commits("b", 20);
            let meanwhile = Meanwhile::default();
            let hook = Hook { creating: false, extension, work: meanwhile.clone() };
            let hooked = Arc::new(Hooked(story.disk.clone(), hook));
            let mut model = story.models.last().unwrap().1.clone();
            let ops: Vec<_> =
                (0..times).map(|n| [put(&format!("c{n}"), 20), delete("a1")]).collect();
            let (db, writes) = (story.db.clone(), ops.clone());
            *meanwhile.lock().unwrap() = Some(Box::new(move || {
                for ops in &writes {
                    commit(&db, ops);
                    assert!(db.checkpoint().unwrap().written);
                    db.compact(CompactMode::WalOnly).unwrap();
                }
            }));
            let reader = builder(&story.disk, story.config.clone()).disk(hooked).open_read_only();
            let reader = reader.unwrap_or_else(|error| panic!("{extension}: {error}"));
            assert!(meanwhile.lock().unwrap().is_none(), "it was done");
            let before = model.compare(&content_now(&reader).unwrap()).is_empty();
            for ops in &ops {
                model.apply(ops, Version(model_version(&model) + 1));
            }
            let after = model.compare(&content_now(&reader).unwrap()).is_empty();
            assert!(before || after, "{extension}: neither what was nor what is");
            assert!(
                !matches!(reader.recovery_report().snapshots, SnapshotClass::Fallback),
                "{extension}: {}",
                reader.recovery_report()
            );
        }
    }
}

/// The newest version in a model.
fn model_version(model: &ReferenceModel) -> u64 {
    model.content().values().map(|(version, _)| version.0).max().unwrap_or(0)
}

/// The abort of a stream could not be written, so it comes with the next stream, behind a
/// checkpoint.
#[test]
fn a_stream_that_is_given_up_across_a_checkpoint_goes_with_its_segments() {
    for compact_within in [false, true] {
        let mut story = Story::with(config(DurabilityMode::Buffered));
        story.commits("a", 20);
        story.disk.inject(Fault::once(StepKind::Create, 1, ENOSPC).sticky());
        let failed = submit(&story.db, &large("lost")).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Io);
        story.disk.heal();
        story.checkpoint();
        if compact_within {
            story.compact();
        }
        story.expect_survives("with a stream that was given up");
        story.commits("b", 3);
        let ops = large("next");
        story.commit(&ops);
        story.expect_survives("its abort is written");
        story.checkpoint();
        story.compact();
        story.expect_survives("and its segments are gone");
        story.commits("c", 30);
        story.checkpoint();
        assert!(story.compact() > 0);
        story.expect_survives("and more");
    }
}

#[test]
fn the_version_counter_survives_compaction_and_reopening() {
    for close in [true, false] {
        let mut story = Story::new();
        let mut newest = Version::ZERO;
        for turn in 0..4 {
            story.commits(&format!("t{turn}"), 12);
            story.db.compact(CompactMode::Full).unwrap();
            newest = newest.max(story.db.current_version());
            if close {
                story.db.close().unwrap();
            }
            let disk = story.disk.killed();
            story.db = builder(&disk, story.config.clone()).open_existing().unwrap();
            story.disk = disk;
            assert_eq!(story.db.current_version(), newest, "reopening gives out nothing");
            let version = story.commit(&[put("next", 10)]);
            assert!(version > newest, "{version} after {newest}");
            newest = version;
            let queued = submit(&story.db, &[put("queued", 10)]).unwrap();
            newest = newest.max(queued.version());
            queued.wait().unwrap();
            story.note(&[put("queued", 10)], newest);
        }
    }
}

#[test]
fn runs_made_before_at_and_after_a_checkpoint_survive_fallback_and_compaction() {
    let in_run = |run: &str, n: i64| vec![Op::Put(run.into(), "k".into(), Value::Int(n))];
    for mode in [DurabilityMode::Strict, DurabilityMode::Buffered] {
        let mut story = Story::with(config(mode));
        story.commit(&in_run("before", 1));
        story.checkpoint();
        story.compact();
        story.commit(&in_run("before", 2));
        // Given its version before the checkpoint, written after it.
        let first = story.submit(&in_run("around", 2));
        let mut ops = large("x");
        ops.extend(in_run("streamed", 3));
        let second = story.submit(&ops);
        story.checkpoint();
        first.wait().unwrap();
        second.wait().unwrap();
        story.commit(&in_run("after", 4));
        story.expect_survives("runs around a checkpoint");
        story.checkpoint();
        story.expect_survives("in the snapshot");
        story.compact();
        story.expect_survives("compacted");
        story.commit(&in_run("around", 5));
        story.commit(&in_run("last", 6));
        story.checkpoint();
        story.compact();
        story.expect_survives("compacted again");
    }
}
