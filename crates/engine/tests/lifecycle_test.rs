//! Checkpoints, compaction, history and copies, as an application sees them.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use steadfast_engine::{
    CompactMode, Compression, Database, DatabaseConfig, ErrorKind, ManualClock, Retention,
    RetentionPolicy, SnapshotClass, Timestamp, TypeTag, Value, Version, restore,
};
use tempfile::tempdir;

const START: Timestamp = Timestamp::from_micros(1_000_000_000_000_000);

fn config() -> DatabaseConfig {
    DatabaseConfig::buffered().segment_bytes(64 << 10).manual_checkpoints()
}

fn open_at(path: &Path, config: DatabaseConfig, clock: &ManualClock) -> Database {
    Database::builder(path).config(config).clock(clock.clone()).open().unwrap()
}

/// Everything, as one comparable text.
fn content(db: &Database) -> String {
    let view = db.view().unwrap();
    let mut out = format!("{}\n", view.version());
    for info in view.runs_in_key_order().unwrap() {
        for entry in view.entries(info.run) {
            out += &format!("{} {:?}\n", info.name, entry.unwrap());
        }
    }
    out
}

/// Puts, overwrites, deletes, events and cells.
fn fill(db: &Database, from: i64, to: i64) {
    let run = db.get_or_create_run("run").unwrap();
    for n in from..to {
        db.transaction(|tx| {
            tx.kv_put(run, format!("key-{:05}", n * 7 % 1000), n)?;
            if n % 5 == 0 {
                tx.kv_delete(run, format!("key-{:05}", n * 3 % 1000))?;
            }
            tx.state_set(run, "cell", n)?;
            tx.event_append(run, "stream", n).map(drop)
        })
        .unwrap();
    }
}

fn files(path: &Path, directory: &str) -> u64 {
    std::fs::read_dir(path.join(directory)).unwrap().map(|_| 1).sum()
}

#[test]
fn a_checkpoint_is_what_the_next_opening_starts_from() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Database::create(&path, config()).unwrap();
    fill(&db, 0, 3000);
    let info = db.checkpoint().unwrap();
    assert_eq!((info.watermark, info.snapshot, info.written), (db.current_version(), 1, true));
    assert!(!db.checkpoint().unwrap().written, "there is nothing new");
    fill(&db, 3000, 3100);
    let expected = content(&db);
    let segments = files(&path, "WAL");
    let compacted = db.compact(CompactMode::WalOnly).unwrap();
    assert_eq!(content(&db), expected);
    assert!(compacted.wal_segments_removed > 5, "{compacted:?}");
    assert_eq!(files(&path, "WAL"), segments - compacted.wal_segments_removed);
    assert!(compacted.reclaimed_bytes > 0);
    db.close().unwrap();

    let db = Database::open_existing(&path, config()).unwrap();
    let report = db.recovery_report();
    assert_eq!((report.snapshots, report.snapshot_version), (SnapshotClass::Sound, info.watermark));
    assert_eq!(report.stats.txns_applied, 100, "only what came after it is replayed");
    assert_eq!(content(&db), expected);
    db.wait_loaded().unwrap();
    assert_eq!(content(&db), expected);
    assert_eq!(db.stats().unwrap().load.failed, Vec::<String>::new());
    assert_eq!(db.verify().unwrap(), []);
    db.close().unwrap();
}

#[test]
fn a_database_on_a_snapshot_serves_everything_before_any_of_it_is_loaded() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Database::create(&path, config()).unwrap();
    fill(&db, 0, 2000);
    db.checkpoint().unwrap();
    fill(&db, 2000, 2050);
    let expected = content(&db);
    db.close().unwrap();

    // Without threads nothing is loaded but by hand.
    let open = || Database::builder(&path).config(config()).without_threads().open().unwrap();
    let db = open();
    let load = db.stats().unwrap().load;
    assert!(load.sections > 0 && load.loaded == 0 && load.loaded_after.is_none(), "{load:?}");
    assert_eq!(content(&db), expected);
    let run = db.resolve_run("run").unwrap();
    assert_eq!(db.event_append(run, "stream", "next").unwrap().0, 2050);
    db.kv_delete(run, "key-00007").unwrap();
    let view = db.view().unwrap();
    db.kv_put(run, "key-00014", "newer").unwrap();
    let expected = content(&db);
    let before = view.kv_get(run, "key-00014").unwrap();
    db.wait_loaded().unwrap();
    assert_eq!(content(&db), expected, "a row that is loaded never beats a newer version");
    assert_eq!(view.kv_get(run, "key-00014").unwrap(), before, "a view stays as it is");
    assert!(db.kv_get(run, "key-00007").unwrap().is_none(), "what was deleted stays deleted");
    drop(view);
    db.checkpoint().unwrap();
    db.compact(CompactMode::Full).unwrap();
    db.close().unwrap();
    let db = open();
    assert_eq!(content(&db), expected);
}

#[test]
fn log_and_memory_stay_bounded_with_checkpoints_by_themselves() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("db");
    let small = DatabaseConfig::buffered().segment_bytes(64 << 10).checkpoint_bytes(256 << 10);
    let db = Database::create(&path, small.clone()).unwrap();
    let run = db.create_run("run").unwrap();
    for n in (0..=u8::MAX).cycle().take(20_000) {
        db.kv_put(run, format!("key-{}", n % 100), vec![n; 100]).unwrap();
    }
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while db.stats().unwrap().disk.log > 1 << 20 && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    let stats = db.stats().unwrap();
    assert!(stats.disk.log <= 1 << 20, "{:?} of about 3 MiB that were written", stats.disk);
    assert!(stats.snapshot.is_some());
    let expected = content(&db);
    db.close().unwrap();
    let db = Database::open_existing(&path, small).unwrap();
    assert_eq!(content(&db), expected);
}

#[test]
fn history_reads_exactly_or_says_that_it_is_trimmed() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("db");
    let clock = ManualClock::at(START);
    let policy = RetentionPolicy::from(Retention::NEWEST)
        .with_primitive(TypeTag::State, Retention::KeepAll)
        .with_primitive(TypeTag::Kv, Retention::KeepFor(Duration::from_secs(100)));
    let db = open_at(&path, config().retention(policy), &clock);
    let run = db.create_run("run").unwrap();
    let mut versions = Vec::new();
    for n in 0..10i64 {
        clock.advance(Duration::from_secs(20));
        let set = db.transaction(|tx| {
            tx.kv_put(run, "k", n)?;
            tx.state_set(run, "c", n)?;
            tx.event_append(run, "s", n).map(drop)
        });
        versions.push(set.unwrap().1.version());
    }
    for reopened in [false, true] {
        let db = if reopened {
            db.compact(CompactMode::Full).unwrap();
            db.close().unwrap();
            open_at(&path, config(), &clock)
        } else {
            db.clone()
        };
        let run = db.resolve_run("run").unwrap();
        for (n, version) in versions.iter().enumerate() {
            let expected = Value::Int(n as i64);
            let view = db.view_at(*version).unwrap();
            assert_eq!(
                view.state_read(run, "c").unwrap().unwrap().value,
                expected,
                "kept for ever"
            );
            assert_eq!(view.event_read(run, "s", 0).unwrap().count(), n + 1);
            // The nth was superseded 20 s after it was written; now is 200 s after the start.
            let kept = 200 < 100 + 20 * (n as u64 + 2);
            match view.kv_get(run, "k") {
                Ok(found) => assert_eq!(found.unwrap().value, expected, "never another version"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::HistoryTrimmed);
                    assert!(!kept, "{n} was superseded within 100 s");
                    assert!(reopened, "nothing was trimmed yet");
                }
            }
            let time = START.after(Duration::from_secs(20 * (n as u64 + 1) + 7));
            assert_eq!(db.view_at_time(time).unwrap().version(), *version);
        }
    }
}

#[test]
fn what_expires_is_gone_at_once_and_its_bytes_at_the_next_compaction() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("db");
    let clock = ManualClock::at(START);
    let uncompressed = config().compression(Compression::None);
    let db = open_at(&path, uncompressed.clone(), &clock);
    let run = db.create_run("run").unwrap();
    let secret = "a secret that must not stay";
    db.kv_put(run, "k", "older value").unwrap();
    db.kv_put_expiring(run, "k", secret, START.after(Duration::from_secs(10))).unwrap();
    let written = db.current_version();
    db.kv_put(run, "other", 1).unwrap();
    db.checkpoint().unwrap();
    let on_disk = |text: &str| {
        let found = |directory: &str| {
            std::fs::read_dir(path.join(directory)).unwrap().any(|entry| {
                let bytes = std::fs::read(entry.unwrap().path()).unwrap();
                bytes.windows(text.len()).any(|window| window == text.as_bytes())
            })
        };
        found("WAL") || found("SNAPSHOTS")
    };
    let view = db.view().unwrap();
    clock.advance(Duration::from_secs(11));
    assert!(db.kv_get(run, "k").unwrap().is_none(), "absent at once, also what it replaced");
    assert!(view.kv_get(run, "k").unwrap().is_some(), "a view's clock stands still");
    assert!(db.view_at(written).unwrap().kv_get(run, "k").unwrap().is_some(), "so does history's");
    db.compact(CompactMode::Full).unwrap();
    assert!(view.kv_get(run, "k").unwrap().is_some());
    drop(view);
    // Two: the first takes it out of the newest snapshot, and the log behind it is closed by
    // what is written in between.
    db.compact(CompactMode::Full).unwrap();
    db.kv_put(run, "large", vec![7; 70_000]).unwrap();
    db.compact(CompactMode::Full).unwrap();
    assert!(!on_disk(secret) && !on_disk("older value"));
    assert!(db.kv_get(run, "k").unwrap().is_none());
    let error = db.view_at(written).and_then(|view| view.kv_get(run, "k")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HistoryTrimmed, "not: absent");
    db.close().unwrap();
    let db = open_at(&path, uncompressed, &clock);
    assert!(
        db.kv_get(run, "k").is_err()
            || db.kv_get(db.resolve_run("run").unwrap(), "k").unwrap().is_none()
    );
}

#[test]
fn a_backup_is_a_database_of_its_own_and_restores_to_any_version_kept() {
    let dir = tempdir().unwrap();
    let [path, backup, restored, earlier] =
        ["db", "backup", "restored", "earlier"].map(|name| dir.path().join(name));
    let db = Database::create(&path, config().retention(Retention::KeepAll)).unwrap();
    fill(&db, 0, 500);
    let then = (db.current_version(), content(&db));
    fill(&db, 500, 1000);
    let info = db.backup(&backup).unwrap();
    assert_eq!(info.version, db.current_version());
    let expected = content(&db);
    fill(&db, 1000, 1100);
    let refused = db.backup(&backup).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");

    restore(&backup, &restored, None).unwrap();
    restore(&backup, &earlier, Some(then.0)).unwrap();
    for (path, content_then) in [(&restored, &expected), (&earlier, &then.1)] {
        let copy = Database::open_existing(path, config()).unwrap();
        assert_eq!(content(&copy), *content_then);
        assert_eq!(copy.verify().unwrap(), []);
        fill(&copy, 5000, 5100);
        copy.close().unwrap();
        assert!(Database::open_existing(path, config()).is_ok());
    }
    let reading = Database::open_read_only(&backup).unwrap();
    assert_eq!(content(&reading), expected, "what happens to a copy is nothing to the backup");
    assert_eq!(reading.view_at(then.0).unwrap().version(), then.0);
    let never = restore(&backup, dir.path().join("never"), Some(Version(99_999))).unwrap_err();
    assert_eq!(never.kind(), ErrorKind::NotFound);
}

#[test]
fn a_run_travels_as_one_file() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("run.steadfast");
    let db = Database::create(dir.path().join("db"), config()).unwrap();
    fill(&db, 0, 2000);
    db.create_run("another").unwrap();
    let run = db.resolve_run("run").unwrap();
    db.export_run(run, &file).unwrap();
    assert_eq!(db.export_run(run, &file).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(db.import_run(&file, Some("copy")).unwrap_err().kind(), ErrorKind::Conflict);

    let other = Database::create(dir.path().join("other"), config()).unwrap();
    other.create_run("first").unwrap();
    let imported = other.import_run(&file, None).unwrap();
    assert_eq!(imported.id(), run.id());
    assert_eq!(other.list_runs().unwrap().len(), 2);
    let strip = |db: &Database| -> Vec<_> {
        let view = db.view().unwrap();
        let run = view.resolve_run("run").unwrap();
        let values = view.kv_scan(run, "").unwrap().map(|row| row.map(|(k, v)| (k, v.value)));
        values.map(Result::unwrap).collect()
    };
    assert_eq!(strip(&other), strip(&db));
    assert_eq!(other.event_read(imported, "stream", 0).unwrap().count(), 2000);

    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let third = Database::create(dir.path().join("third"), config()).unwrap();
    let error = third.import_run(&file, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    assert!(third.list_runs().unwrap().is_empty());
}

#[test]
fn checkpoints_and_compactions_beside_writers_and_readers_change_nothing_they_see() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Database::create(&path, config()).unwrap();
    let run = db.create_run("run").unwrap();
    for n in 0..2000i64 {
        db.kv_put(run, format!("key-{n:05}"), 0).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 1..=20_000i64 {
                // Both keys always have the same value.
                let key = n % 1000;
                db.transaction(|tx| {
                    tx.kv_put(run, format!("key-{key:05}"), n)?;
                    tx.kv_put(run, format!("key-{:05}", key + 1000), n)
                })
                .unwrap();
            }
            done.store(true, Ordering::Release);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let view = db.view().unwrap();
                    let all: Vec<_> =
                        view.kv_scan(run, "key-").unwrap().map(Result::unwrap).collect();
                    assert_eq!(all.len(), 2000);
                    for n in 0..1000 {
                        assert_eq!(all[n].1.value, all[n + 1000].1.value, "at {}", view.version());
                    }
                }
            });
        }
        let mut compactions = 0;
        while !done.load(Ordering::Acquire) {
            db.checkpoint().unwrap();
            db.compact(if compactions % 3 == 0 { CompactMode::Full } else { CompactMode::WalOnly })
                .unwrap();
            compactions += 1;
        }
        assert!(compactions > 2);
        writer.join().unwrap();
    });
    let expected = content(&db);
    db.close().unwrap();
    assert_eq!(content(&Database::open_existing(&path, config()).unwrap()), expected);
}

#[test]
fn what_cannot_be_done_says_why() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("db");
    let memory = Database::in_memory().unwrap();
    assert_eq!(memory.checkpoint().unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(memory.backup(dir.path().join("b")).unwrap_err().kind(), ErrorKind::Unsupported);
    let db = Database::create(&path, config()).unwrap();
    assert!(!db.checkpoint().unwrap().written, "an empty database has nothing to keep");
    fill(&db, 0, 10);
    let error = db.compact(CompactMode::WalOnly).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("no checkpoint"), "{error}");
    let reading = Database::open_read_only(&path).unwrap();
    assert_eq!(reading.checkpoint().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(reading.compact(CompactMode::Full).unwrap_err().kind(), ErrorKind::Closed);
    fill(&db, 10, 20);
    let refreshed = reading.refresh().unwrap();
    assert!(refreshed.current_version() > reading.current_version());
    db.close().unwrap();
    assert_eq!(db.checkpoint().unwrap_err().kind(), ErrorKind::Closed);
}

/// Flips one bit in the middle of a file's last few bytes: the footer of a snapshot.
fn damage_end(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() - 60;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_first_snapshot_that_is_bad_is_answered_by_the_whole_log() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Database::create(&path, config()).unwrap();
    fill(&db, 0, 500);
    db.checkpoint().unwrap();
    fill(&db, 500, 520);
    let expected = content(&db);
    db.close().unwrap();
    damage_end(&path.join("SNAPSHOTS/snap-000001.chk"));
    let reading = Database::open_read_only(&path).unwrap();
    assert_eq!(reading.recovery_report().snapshots, SnapshotClass::Fallback);
    assert_eq!(content(&reading), expected);
    let db = Database::open_existing(&path, config()).unwrap();
    assert_eq!(content(&db), expected);
    db.checkpoint().unwrap();
    db.compact(CompactMode::WalOnly).unwrap();
    db.close().unwrap();
    let db = Database::open_existing(&path, config()).unwrap();
    assert_eq!(db.recovery_report().snapshots, SnapshotClass::Sound);
    assert_eq!(content(&db), expected);
    db.close().unwrap();
}

#[test]
fn a_block_of_a_first_snapshot_is_rebuilt_from_the_whole_log() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Database::create(&path, config()).unwrap();
    fill(&db, 0, 500);
    db.checkpoint().unwrap();
    let expected = content(&db);
    db.close().unwrap();
    let file = path.join("SNAPSHOTS/snap-000001.chk");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let db = Database::open_existing(&path, config()).unwrap();
    db.wait_loaded().unwrap();
    assert_eq!(db.stats().unwrap().load.rebuilt, 1);
    assert_eq!(content(&db), expected);
    assert!(db.checkpoint().unwrap().written, "the damaged one does not count");
    db.compact(CompactMode::WalOnly).unwrap();
    assert_eq!(db.verify().unwrap(), []);
    assert_eq!(content(&db), expected);
}

#[test]
fn a_full_compaction_mends_a_snapshot_that_went_bad_while_everything_is_in_memory() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Database::create(&path, config()).unwrap();
    fill(&db, 0, 300);
    db.compact(CompactMode::Full).unwrap();
    let expected = content(&db);
    damage_end(&path.join("SNAPSHOTS/snap-000001.chk"));
    assert!(!db.verify().unwrap().is_empty());
    assert!(db.compact(CompactMode::Full).unwrap().checkpoint.unwrap().written);
    assert_eq!(db.verify().unwrap(), []);
    db.close().unwrap();
    let db = Database::open_existing(&path, config()).unwrap();
    assert_eq!(db.recovery_report().snapshots, SnapshotClass::Sound);
    assert_eq!(content(&db), expected);
}

#[test]
fn salvage_of_a_copy_takes_what_its_snapshot_still_has() {
    let dir = tempdir().unwrap();
    let [path, copy, saved] = ["db", "copy", "saved"].map(|name| dir.path().join(name));
    let db = Database::create(&path, config()).unwrap();
    fill(&db, 0, 300);
    db.backup(&copy).unwrap();
    // With nothing in the copy's own log, and then with something.
    for (round, extra) in [0, 5].into_iter().enumerate() {
        if extra > 0 {
            std::fs::remove_dir_all(&copy).unwrap();
            db.backup(&copy).unwrap();
            let copied = Database::open_existing(&copy, config()).unwrap();
            fill(&copied, 300, 300 + extra);
            copied.close().unwrap();
        }
        damage_end(&copy.join("SNAPSHOTS/snap-000001.chk"));
        let refused = Database::open_existing(&copy, config()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corruption, "its log begins behind the snapshot");
        let saved = saved.with_extension(round.to_string());
        let report = steadfast_engine::salvage(&copy, Some(&saved)).unwrap();
        assert!(!report.losses.is_empty(), "the footer is lost, and that is said");
        let saved = Database::open_existing(&saved, config()).unwrap();
        let run = saved.resolve_run("run").unwrap();
        let events = saved.event_read(run, "stream", 0).unwrap().count() as i64;
        assert_eq!(events, 300 + extra, "every row could be read");
        assert_eq!(report.copy.unwrap().rows, report.rows);
        saved.close().unwrap();
    }
}

#[test]
fn closing_waits_for_a_checkpoint_by_hand() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("db");
    for round in 0..20 {
        let db = Database::open_or_create(&path, config()).unwrap();
        fill(&db, round * 100, round * 100 + 100);
        let expected = content(&db);
        std::thread::scope(|scope| {
            let other = db.clone();
            scope.spawn(move || {
                drop(other.checkpoint().and_then(|_| other.compact(CompactMode::Full)))
            });
            std::thread::sleep(Duration::from_micros(300 * round.unsigned_abs()));
            db.close().unwrap();
            let next = Database::open_existing(&path, config()).unwrap();
            next.checkpoint().unwrap();
            next.compact(CompactMode::WalOnly).unwrap();
            assert_eq!(content(&next), expected);
            next.close().unwrap();
        });
        let db = Database::open_existing(&path, config()).unwrap();
        assert_eq!(db.verify().unwrap(), []);
        assert_eq!(content(&db), expected);
        db.close().unwrap();
    }
}
