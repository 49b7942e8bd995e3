//! Following what is committed: subscriptions, durable cursors, and the tail of the log.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use steadfast_engine::{
    AppendOptions, Change, Commit, CompactMode, Database, DatabaseConfig, Entry, ErrorKind, Notice,
    Position, Region, Value, Version,
};

fn commits(tail: &mut impl Iterator<Item = steadfast_engine::Result<Commit>>) -> Vec<Commit> {
    tail.collect::<Result<_, _>>().unwrap()
}

fn versions(commits: &[Commit]) -> Vec<u64> {
    commits.iter().map(|commit| commit.version().0).collect()
}

#[test]
fn a_subscriber_knows_of_a_commit_before_the_committer_does() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    let mut all = db.subscribe(Region::all(), 10_000).unwrap();
    let mut some = db.subscribe(Region::run(run).streams("s").kind("k"), 10_000).unwrap();
    let mut told = Vec::new();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let db = &db;
            scope.spawn(move || {
                for n in 0..100 {
                    let kind = Some(if n % 2 == 0 { "k" } else { "l" }.to_owned());
                    let options = AppendOptions { kind, ..AppendOptions::default() };
                    db.event_append_with(run, &format!("s{thread}"), n, &options).unwrap();
                }
            });
        }
    });
    while let Some(Notice::Commit(commit)) = all.try_recv().unwrap() {
        told.push(commit.version().0);
    }
    assert_eq!(told, (2..=301).collect::<Vec<_>>(), "in the order of commits, none missing");
    let mut matching = 0;
    while let Some(Notice::Commit(commit)) = some.try_recv().unwrap() {
        let changes = commit.changes().map(Result::unwrap);
        let region = Region::run(run).streams("s").kind("k");
        matching += changes.filter(|change| region.contains(change)).count();
    }
    assert_eq!(matching, 150);

    // One after the other: it is there when the append returns.
    for n in 0..50 {
        let (_, receipt) = db.event_append(run, "s", n).unwrap();
        let Some(Notice::Commit(commit)) = all.try_recv().unwrap() else { panic!("not told") };
        assert_eq!(commit.version(), receipt.version());
        assert_eq!(db.current_version(), commit.version(), "what is told can be read");
    }
    db.kv_put(run, "k", 1).unwrap();
    assert!(some.try_recv().unwrap().is_none(), "a key is no event");
    let Some(Notice::Commit(commit)) = all.try_recv().unwrap() else { panic!("not told") };
    let changes: Vec<_> = commit.changes().map(Result::unwrap).collect();
    assert!(
        matches!(&changes[..], [Change::Entry { entry: Entry::Kv { key, .. }, .. }] if key == b"k")
    );
    db.close().unwrap();
    assert_eq!(all.try_recv().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_slow_subscriber_loses_commits_is_told_how_many_and_holds_up_nobody() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    let mut slow = db.subscribe(Region::run(run), 4).unwrap();
    for n in 0..10 {
        db.kv_put(run, "k", n).unwrap();
    }
    for version in 2..6 {
        let Some(Notice::Commit(commit)) = slow.try_recv().unwrap() else { panic!("told") };
        assert_eq!(commit.version(), Version(version));
    }
    assert!(matches!(slow.try_recv().unwrap(), Some(Notice::Lost(6))));
    assert!(slow.try_recv().unwrap().is_none());
    assert_eq!(slow.lost(), 6);
    db.kv_put(run, "k", 10).unwrap();
    assert!(matches!(slow.try_recv().unwrap(), Some(Notice::Commit(_))));
    assert!(slow.recv_timeout(Duration::from_millis(5)).unwrap().is_none());
    drop(slow);
    db.kv_put(run, "k", 11).unwrap();
    assert_eq!(db.subscribe(Region::all(), 0).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_waiting_subscriber_wakes() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    let mut waiting = db.subscribe(Region::all(), 4).unwrap();
    std::thread::scope(|scope| {
        let told = scope.spawn(move || waiting.recv_timeout(Duration::from_secs(60)).unwrap());
        db.kv_put(run, "k", 1).unwrap();
        assert!(matches!(told.join().unwrap(), Some(Notice::Commit(_))));
    });
}

#[test]
fn a_cursor_gives_every_event_once_in_the_order_of_commits() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    let kind = |kind: &str| AppendOptions { kind: Some(kind.into()), ..AppendOptions::default() };
    for n in 0..30 {
        let stream = format!("s{}", n % 3);
        let options = kind(if n % 5 == 0 { "five" } else { "other" });
        db.event_append_with(run, &stream, n, &options).unwrap();
        db.event_append(run, "elsewhere", n).unwrap();
    }
    let cursor = db.cursor(run, "c", Region::all().streams("s")).unwrap();
    let mut seen = Vec::new();
    let mut read = |limit| {
        let mut batch = Vec::new();
        let n = cursor
            .process(limit, |_, one| {
                batch.push(one.event.payload.as_int().unwrap());
                Ok(())
            })
            .unwrap();
        assert_eq!(n, batch.len());
        seen.extend(batch);
        n
    };
    assert_eq!((read(7), read(7), read(100), read(100)), (7, 7, 16, 0));
    db.event_append(run, "s9", 30).unwrap();
    db.event_append(run, "s0", 31).unwrap();
    assert_eq!(read(100), 2);
    assert_eq!(seen, (0..32).collect::<Vec<_>>());
    assert_eq!((cursor.position("s0").unwrap(), cursor.position("elsewhere").unwrap()), (11, 0));

    let fives = db.cursor(run, "fives", Region::all().streams("s").kind("five")).unwrap();
    let mut found = Vec::new();
    while let Some(one) = fives.poll().unwrap() {
        found.push(one.event.payload.as_int().unwrap());
    }
    assert_eq!(found, [0, 5, 10, 15, 20, 25]);
    fives.rewind().unwrap();
    assert_eq!(fives.poll().unwrap().unwrap().event.payload, Value::from(0));
}

#[test]
fn what_a_consumer_refuses_it_gets_again_with_nothing_of_it_done() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    for n in 0..4 {
        db.event_append(run, "s", n).unwrap();
    }
    let cursor = db.cursor(run, "c", Region::all().stream("s")).unwrap();
    let refuse_at = |at: i64| {
        cursor.process(10, |tx, one| {
            let n = one.event.payload.as_int().unwrap();
            tx.kv_put(run, format!("done-{n}"), 1)?;
            if n == at { Err(steadfast_engine::Error::Invalid("not now".into())) } else { Ok(()) }
        })
    };
    assert_eq!(refuse_at(2).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(db.kv_scan(run, "done").unwrap().count(), 0);
    assert_eq!(refuse_at(-1).unwrap(), 4);
    assert_eq!(db.kv_scan(run, "done").unwrap().count(), 4);
}

#[test]
fn consumers_of_one_name_share_the_events_while_they_are_appended() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    let (events, consumers) = (300_i64, 3);
    let begin = Barrier::new(consumers + 1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            begin.wait();
            for n in 0..events {
                db.event_append(run, &format!("s{}", n % 2), n).unwrap();
            }
        });
        for _ in 0..consumers {
            scope.spawn(|| {
                begin.wait();
                let cursor = db.cursor(run, "c", Region::all().streams("")).unwrap();
                let count =
                    || db.kv_get(run, "count").unwrap().map_or(0, |n| n.value.as_int().unwrap());
                while count() < events {
                    let step = cursor.process(5, |tx, one| {
                        let n = one.event.payload.as_int().unwrap();
                        let before =
                            tx.kv_get(run, "count")?.map_or(0, |n| n.value.as_int().unwrap());
                        assert_eq!(tx.kv_get(run, format!("done-{n}"))?, None, "once only");
                        tx.kv_put(run, format!("done-{n}"), 1)?;
                        tx.kv_put(run, "count", before + 1)
                    });
                    step.unwrap();
                }
            });
        }
    });
    assert_eq!(db.kv_scan(run, "done-").unwrap().count(), 300);
}

fn config(mode: DatabaseConfig) -> DatabaseConfig {
    mode.segment_bytes(16 << 10).manual_checkpoints()
}

fn every_mode() -> [DatabaseConfig; 3] {
    [DatabaseConfig::strict(), DatabaseConfig::batched(), DatabaseConfig::buffered()].map(config)
}

/// Commits of all sizes: small ones, one that is streamed, one that fails to change anything.
fn fill(db: &Database, from: i64, to: i64) {
    let run = db.get_or_create_run("r").unwrap();
    for n in from..to {
        db.transaction(|tx| {
            tx.kv_put(run, format!("key-{}", n % 17), n)?;
            tx.event_append(run, "s", n)?;
            if n % 10 == 3 {
                tx.kv_put(run, "large", vec![7; 40_000])?;
            }
            if n % 4 == 1 { tx.kv_delete(run, format!("key-{}", (n - 1) % 17)) } else { Ok(()) }
        })
        .unwrap();
    }
}

/// What a follower makes of a tail, as a dump of all entries that are there.
fn followed(commits: &[Commit]) -> BTreeSet<String> {
    let mut entries = std::collections::BTreeMap::new();
    for commit in commits {
        for change in commit.changes() {
            let Change::Entry { entry, .. } = change.unwrap() else { continue };
            match &entry {
                Entry::Kv { key, value: None, .. } => drop(entries.remove(key)),
                Entry::Kv { key, .. } => drop(entries.insert(key.clone(), format!("{entry:?}"))),
                Entry::Event { stream, event } => {
                    let place = [stream.as_slice(), &event.seq.to_be_bytes()].concat();
                    entries.insert(place, format!("{entry:?}"));
                }
                other => panic!("nobody wrote {other:?}"),
            }
        }
    }
    entries.into_values().collect()
}

fn dumped(db: &Database) -> BTreeSet<String> {
    let view = db.view().unwrap();
    let run = view.resolve_run("r").unwrap();
    view.entries(run).map(|entry| format!("{:?}", entry.unwrap())).collect()
}

#[test]
fn a_tail_gives_every_commit_in_every_mode_and_goes_on_as_the_log_grows() {
    for config in every_mode() {
        let dir = tempfile::tempdir().unwrap();
        let db = Database::create(dir.path(), config.clone()).unwrap();
        let mut tail = db.tail(Version::ZERO).unwrap();
        assert!(tail.next().is_none(), "nothing was committed");
        let mut all = Vec::new();
        for round in 0..6 {
            fill(&db, round * 20, round * 20 + 20);
            db.flush().unwrap();
            all.extend(commits(&mut tail));
            assert_eq!(versions(&all), (1..=db.current_version().0).collect::<Vec<_>>());
        }
        let segments = std::fs::read_dir(dir.path().join("WAL")).unwrap().count();
        assert!(segments > 3, "over several segments, not {segments}");
        assert_eq!(followed(&all), dumped(&db), "{config:?}");
        let created = all[0].changes().next().unwrap().unwrap();
        assert!(matches!(created, Change::Run(info) if info.name == "r"));

        // From anywhere, and in a later life.
        for from in [1, 50, 118] {
            let rest = commits(&mut db.tail(Version(from)).unwrap());
            assert_eq!(versions(&rest), (from + 1..=121).collect::<Vec<_>>());
        }
        let position = all[70].position();
        assert!(position.epoch.is_some());
        db.close().unwrap();
        let db = Database::open_existing(dir.path(), config.clone()).unwrap();
        let mut tail = db.tail(position).unwrap();
        assert_eq!(commits(&mut tail).len(), 121 - 71);
        fill(&db, 120, 130);
        db.flush().unwrap();
        let later = commits(&mut tail);
        assert_eq!(versions(&later), (122..=131).collect::<Vec<_>>());
        assert_ne!(later[0].position().epoch, position.epoch, "another life, another epoch");
        assert_eq!(db.tail(later[9].position()).unwrap().count(), 0);

        let reader = Database::open_read_only(dir.path()).unwrap();
        assert_eq!(reader.tail(Version(100)).unwrap().count(), 31);
    }
}

#[test]
fn who_follows_is_told_that_a_run_was_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::create(dir.path(), DatabaseConfig::default()).unwrap();
    let run = db.create_run("r").unwrap();
    db.kv_put(run, "k", 1).unwrap();
    let mut subscription = db.subscribe(Region::run(run), 4).unwrap();
    let version = db.delete_run("r").unwrap().version();
    db.flush().unwrap();
    let tailed = commits(&mut db.tail(Version(2)).unwrap());
    let Some(Notice::Commit(told)) = subscription.try_recv().unwrap() else { panic!("not told") };
    assert_eq!((told.version(), tailed[0].version()), (version, version));
    for commit in [&told, &tailed[0]] {
        let changes: Vec<_> = commit.changes().collect::<Result<_, _>>().unwrap();
        let [Change::RunDeleted(info)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((&*info.name, info.run, info.version), ("r", run, version));
    }
}

#[test]
fn a_tail_runs_beside_writers_and_gives_promised_commits_only() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::create(dir.path(), config(DatabaseConfig::buffered())).unwrap();
    let run = db.create_run("r").unwrap();
    db.flush().unwrap();
    let mut promised = db.tail(Version::ZERO).unwrap();
    assert_eq!(commits(&mut promised).len(), 1);
    db.kv_put(run, "k", 1).unwrap();
    assert!(promised.next().is_none(), "a power cut may take it away still");
    let mut visible = db.tail(Version(1)).unwrap().unpromised();
    assert_eq!(visible.next().unwrap().unwrap().version(), Version(2));
    db.flush().unwrap();
    assert_eq!(promised.next().unwrap().unwrap().version(), Version(2));

    let all = std::thread::scope(|scope| {
        for thread in 0..3 {
            let db = &db;
            scope.spawn(move || {
                for n in 0..300 {
                    db.event_append(run, &format!("s{thread}"), n).unwrap();
                }
            });
        }
        let mut all = Vec::new();
        while all.len() < 900 {
            all.extend(commits(&mut visible));
        }
        all
    });
    assert_eq!(versions(&all), (3..=902).collect::<Vec<_>>());
}

#[test]
fn a_compaction_ends_the_past_and_not_a_tail_that_is_ahead_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::create(dir.path(), config(DatabaseConfig::strict())).unwrap();
    fill(&db, 0, 60);
    let mut slow = db.tail(Version::ZERO).unwrap();
    assert_eq!(slow.next().unwrap().unwrap().version(), Version(1));
    let mut quick = db.tail(Version::ZERO).unwrap();
    assert_eq!(commits(&mut quick).len(), 61);
    db.compact(CompactMode::Full).unwrap();
    fill(&db, 60, 120);
    db.compact(CompactMode::Full).unwrap();
    fill(&db, 120, 130);
    assert_eq!(
        versions(&commits(&mut db.tail(Version(121)).unwrap())),
        (122..=131).collect::<Vec<_>>()
    );
    let error = db.tail(Version(5)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HistoryTrimmed, "{error}");
    // It reads on in files that it has open, or says that what follows is gone: never a gap.
    for (due, commit) in (2..).zip(slow) {
        match commit {
            Ok(commit) => assert_eq!(commit.version(), Version(due)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::HistoryTrimmed, "{error}");
                break;
            }
        }
    }
    let copy = tempfile::tempdir().unwrap();
    db.backup(copy.path()).unwrap();
    let copy = Database::open_existing(copy.path(), config(DatabaseConfig::strict())).unwrap();
    assert_eq!(copy.tail(Version(130)).unwrap_err().kind(), ErrorKind::HistoryTrimmed);
    let mut tail = copy.tail(Version(131)).unwrap();
    assert!(tail.next().is_none());
    fill(&copy, 130, 140);
    assert_eq!(commits(&mut tail).len(), 10);
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_files(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn whoever_saw_another_past_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let (path, earlier) = (dir.path().join("db"), dir.path().join("earlier"));
    let config = || config(DatabaseConfig::strict());
    // Without threads, so that no file comes or goes while they are copied.
    let db = Database::builder(&path).config(config()).without_threads().create().unwrap();
    fill(&db, 0, 10);
    // What a power cut leaves of a disk that lied, or a restored backup: the end is missing.
    copy_files(&path, &earlier);
    fill(&db, 10, 20);
    let kept = db.tail(Version(10)).unwrap().next().unwrap().unwrap().position();
    let lost = db.tail(Version(19)).unwrap().next().unwrap().unwrap().position();
    assert_eq!(lost.version, Version(20));
    let db = Database::open_existing(&earlier, config()).unwrap();
    assert_eq!(db.current_version(), Version(11));
    assert_eq!(db.tail(lost).unwrap_err().kind(), ErrorKind::Diverged, "it has not come so far");
    fill(&db, 10, 40);
    assert!(db.current_version() > lost.version);
    assert_eq!(db.tail(lost).unwrap_err().kind(), ErrorKind::Diverged, "others stand there now");
    assert!(db.tail(kept).unwrap().count() > 0);
    let elsewhere = Database::create(dir.path().join("elsewhere"), config()).unwrap();
    fill(&elsewhere, 0, 30);
    let error = elsewhere.tail(kept).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Diverged, "{error}");
    assert!(elsewhere.tail(Position::from(kept.version)).is_ok(), "by the version alone");
    let memory = Database::in_memory().unwrap();
    assert_eq!(memory.tail(Version::ZERO).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn a_tail_sleeps_until_something_is_promised_or_visible_or_the_database_closes() {
    const LONG: Duration = Duration::from_secs(60);
    let dir = tempfile::tempdir().unwrap();
    let db = Database::create(dir.path(), DatabaseConfig::buffered().manual_checkpoints()).unwrap();
    let run = db.create_run("r").unwrap();
    db.flush().unwrap();
    let mut promised = db.tail(Version::ZERO).unwrap();
    let mut visible = db.tail(Version::ZERO).unwrap().unpromised();
    assert!(promised.wait(LONG).unwrap(), "there is something already");
    assert_eq!(commits(&mut promised).len(), commits(&mut visible).len());
    assert!(!promised.wait(Duration::from_millis(1)).unwrap());
    assert!(!visible.wait(Duration::ZERO).unwrap());

    // A thread that is not woken would sleep a minute.
    let rounds = 20;
    std::thread::scope(|scope| {
        let follow = |mut tail: steadfast_engine::Tail| {
            let (told, seen) = std::sync::mpsc::channel();
            let follower = scope.spawn(move || {
                while told.send(versions(&commits(&mut tail))).is_ok() {
                    let began = Instant::now();
                    match tail.wait(LONG) {
                        Ok(more) => assert!(more && began.elapsed() < LONG, "nobody woke it"),
                        Err(error) => return Some(error.kind()),
                    }
                }
                None
            });
            (follower, seen)
        };
        let followers = [follow(promised), follow(visible)];
        for n in 0..rounds {
            if n % 2 == 0 {
                // Some sleep by then, some do not.
                std::thread::sleep(Duration::from_millis(5));
            }
            let version = db.kv_put(run, "k", n).unwrap().version().0;
            db.flush().unwrap();
            for (_, seen) in &followers {
                // Before the first it says that there is nothing yet.
                while !seen.recv().expect("it follows").contains(&version) {}
            }
        }
        std::thread::sleep(Duration::from_millis(5));
        db.close().unwrap();
        for (follower, _) in followers {
            assert_eq!(follower.join().unwrap(), Some(ErrorKind::Closed));
        }
    });
    let reader = Database::builder(dir.path()).open_read_only().unwrap();
    let tail = reader.tail(Version::ZERO).unwrap();
    assert_eq!(tail.wait(LONG).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_promised_tail_sleeps_through_what_is_only_visible() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::create(dir.path(), DatabaseConfig::buffered().manual_checkpoints()).unwrap();
    let run = db.create_run("r").unwrap();
    db.flush().unwrap();
    let promised = db.tail(db.current_version()).unwrap();
    let visible = db.tail(db.current_version()).unwrap().unpromised();
    db.kv_put(run, "k", 1).unwrap();
    assert!(visible.wait(Duration::ZERO).unwrap());
    assert!(!promised.wait(Duration::from_millis(20)).unwrap());
    db.flush().unwrap();
    assert!(promised.wait(Duration::ZERO).unwrap());
}
