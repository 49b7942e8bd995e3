//! The database as an application sees it: open, write, read, close, open again.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use steadfast_engine::{
    AppendOptions, Database, DatabaseConfig, Entropy, ErrorKind, Expect, LogClass, ManualClock,
    Retention, Timestamp, Value, Version,
};
use tempfile::tempdir;

fn every_mode() -> [DatabaseConfig; 3] {
    [DatabaseConfig::strict(), DatabaseConfig::batched(), DatabaseConfig::buffered()]
        .map(|config| config.segment_bytes(64 << 10))
}

#[test]
fn test_database_open_creates_directory() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a/b/db");
    let db = Database::open(&path).unwrap();
    db.close().unwrap();
    assert!(path.join("MANIFEST").is_file());
    assert!(path.join("WAL").is_dir());
    let report = Database::open(&path).unwrap().recovery_report().clone();
    assert_eq!(report.log, LogClass::Clean, "an empty log is a clean one");
    assert_eq!(report.stats.txns_applied, 0);
}

#[test]
fn test_recovery_after_restart() {
    for config in every_mode() {
        let dir = tempdir().unwrap();
        let db = Database::create(dir.path().join("db"), config.clone()).unwrap();
        let run = db.create_run("run").unwrap();
        for n in 0..1000i64 {
            db.kv_put(run, format!("key-{n:04}"), n).unwrap();
        }
        db.kv_delete(run, "key-0500").unwrap();
        let version = db.current_version();
        db.close().unwrap();

        let db = Database::open_existing(dir.path().join("db"), config.clone()).unwrap();
        assert_eq!(db.recovery_report().log, LogClass::Clean);
        assert_eq!(db.current_version(), version);
        let run = db.resolve_run("run").unwrap();
        for n in 0..1000i64 {
            let found = db.kv_get(run, format!("key-{n:04}")).unwrap();
            let expected = (n != 500).then_some(Value::Int(n));
            assert_eq!(found.map(|found| found.value), expected, "{n} {config:?}");
        }
        let receipt = db.kv_put(run, "after", 1).unwrap();
        assert_eq!(receipt.version(), version.next(), "a clean close leaves no gap");
        db.close().unwrap();
        let db = Database::open_existing(dir.path().join("db"), config.clone()).unwrap();
        assert!(db.kv_get(db.resolve_run("run").unwrap(), "after").unwrap().is_some());
    }
}

#[test]
fn one_transaction_over_every_primitive_is_visible_at_once() {
    let db = Database::in_memory().unwrap();
    let before = db.view().unwrap();
    let ((run, seqs), receipt) = db
        .transaction(|tx| {
            let run = tx.create_run("run")?;
            tx.kv_put(run, "k", 1)?;
            tx.state_init(run, "cell", "first")?;
            let seqs = [tx.event_append(run, "s", 10)?, tx.event_append(run, "s", 11)?];
            assert_eq!(tx.kv_get(run, "k")?.unwrap().version, Version::MAX);
            assert_eq!(tx.event_read(run, "s", 0)?.count(), 2);
            Ok((run, seqs))
        })
        .unwrap();
    assert_eq!(seqs, [0, 1]);
    assert_eq!(db.kv_get(run, "k").unwrap().unwrap().version, receipt.version());
    assert_eq!(db.state_read(run, "cell").unwrap().unwrap().version, receipt.version());
    let events: Vec<_> = db.event_read(run, "s", 0).unwrap().map(Result::unwrap).collect();
    assert_eq!(
        events.iter().map(|e| e.payload.clone()).collect::<Vec<_>>(),
        [10.into(), 11.into()]
    );
    assert!(events.iter().all(|event| event.version == receipt.version()));
    assert_eq!(before.list_runs().unwrap(), [], "an older view sees none of it");
}

#[test]
fn large_transactions_are_streamed_and_survive() {
    for config in every_mode() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("db");
        let db = Database::create(&path, config.clone()).unwrap();
        let run = db.create_run("run").unwrap();
        let big: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        for round in 0..3i64 {
            db.transaction(|tx| {
                let other = tx.create_run(&format!("run-{round}"))?;
                for n in 0..50i64 {
                    tx.kv_put(other, format!("k{n}"), n)?;
                }
                tx.kv_put(run, "big", big.clone())?;
                tx.kv_put(run, "round", round)
            })
            .unwrap();
            db.kv_put(run, "small", round).unwrap();
        }
        db.close().unwrap();
        let db = Database::open_existing(&path, config.clone()).unwrap();
        let run = db.resolve_run("run").unwrap();
        assert_eq!(db.kv_get(run, "big").unwrap().unwrap().value.as_bytes(), Some(&big[..]));
        assert_eq!(db.kv_get(run, "round").unwrap().unwrap().value, Value::Int(2));
        assert_eq!(db.kv_get(run, "small").unwrap().unwrap().value, Value::Int(2));
        let other = db.resolve_run("run-1").unwrap();
        assert_eq!(db.kv_scan(other, "k").unwrap().count(), 50);
    }
}

#[test]
fn what_was_submitted_and_dropped_is_committed() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("run").unwrap();
    let mut tx = db.begin().unwrap();
    tx.kv_put(run, "k", 1).unwrap();
    drop(tx.submit().unwrap());
    assert!(db.kv_get(run, "k").unwrap().is_some());
    let many: Vec<_> = (0..100i64)
        .map(|n| {
            let mut tx = db.begin().unwrap();
            tx.kv_put(run, "k", n).unwrap();
            tx.submit().unwrap().unwrap()
        })
        .collect();
    assert_eq!(db.kv_get(run, "k").unwrap().unwrap().value, Value::Int(1), "not visible yet");
    let versions: Vec<_> =
        many.into_iter().map(|pending| pending.wait().unwrap().version()).collect();
    assert!(versions.is_sorted(), "in the order of submission");
    assert_eq!(db.kv_get(run, "k").unwrap().unwrap().value, Value::Int(99));
}

#[test]
fn a_lost_update_is_refused_and_retried() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("run").unwrap();
    db.kv_put(run, "n", 0).unwrap();
    let mut first = db.begin().unwrap();
    let seen = first.kv_get(run, "n").unwrap().unwrap().value.as_int().unwrap();
    db.kv_put(run, "n", 5).unwrap();
    first.kv_put(run, "n", seen + 1).unwrap();
    assert_eq!(first.commit().unwrap_err().kind(), ErrorKind::Conflict);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let db = db.clone();
            std::thread::spawn(move || {
                for _ in 0..250 {
                    db.transaction(|tx| {
                        let n = tx.kv_get(run, "n")?.unwrap().value.as_int().unwrap();
                        tx.kv_put(run, "n", n + 1)
                    })
                    .unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(db.kv_get(run, "n").unwrap().unwrap().value, Value::Int(1005));
}

#[test]
fn write_skew_and_phantoms_are_refused() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("run").unwrap();
    // On call: at least one of two must stay.
    db.kv_put(run, "on/a", 1).unwrap();
    db.kv_put(run, "on/b", 1).unwrap();
    let leave = |who: &str| {
        let mut tx = db.begin().unwrap();
        let on = tx.kv_scan(run, "on/").unwrap().count();
        assert_eq!(on, 2);
        tx.kv_delete(run, format!("on/{who}")).unwrap();
        tx
    };
    let (a, b) = (leave("a"), leave("b"));
    a.commit().unwrap();
    assert_eq!(b.commit().unwrap_err().kind(), ErrorKind::Conflict, "write skew");

    let mut counting = db.begin().unwrap();
    let count = counting.kv_scan(run, "on/").unwrap().count();
    counting.kv_put(run, "count", count as i64).unwrap();
    db.kv_put(run, "on/c", 1).unwrap();
    assert_eq!(counting.commit().unwrap_err().kind(), ErrorKind::Conflict, "a phantom");
}

#[test]
fn a_transaction_that_keeps_losing_gets_through() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("run").unwrap();
    db.kv_put(run, "hot", 0).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0i64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                db.kv_put(run, "hot", n).unwrap();
            }
        });
        for _ in 0..20 {
            db.transaction(|tx| {
                let hot = tx.kv_get(run, "hot")?.unwrap().value;
                std::thread::sleep(Duration::from_millis(2));
                tx.kv_put(run, "copy", hot)
            })
            .unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn events_keep_their_expectations_and_idempotency_keys() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("run").unwrap();
    let append = |expect, key: Option<&str>| {
        let options = AppendOptions {
            expect,
            idempotency_key: key.map(str::to_owned),
            ..AppendOptions::default()
        };
        db.event_append_with(run, "s", 0, &options).map(|done| done.0)
    };
    assert_eq!(append(Expect::Exact(0), None).unwrap_err().kind(), ErrorKind::Conflict);
    let first = append(Expect::NoStream, Some("a")).unwrap();
    assert_eq!((first.seq, first.original), (0, None));
    let version = db.current_version();
    // The key is looked at before the expectation, which would fail now.
    let again = append(Expect::NoStream, Some("a")).unwrap();
    assert_eq!((again.seq, again.original), (0, Some(version)));
    assert_eq!(append(Expect::NoStream, None).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(append(Expect::Exact(0), Some("b")).unwrap().seq, 1);
    assert_eq!(append(Expect::Any, None).unwrap().seq, 2);
    let long = "k".repeat(65);
    assert_eq!(append(Expect::Any, Some(&long)).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(db.event_read(run, "s", 1).unwrap().count(), 2);
    assert_eq!(db.event_read(run, "s", 0).unwrap().next_back().unwrap().unwrap().seq, 2);
}

#[test]
fn state_cells_move_by_comparison() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("run").unwrap();
    let first = db.state_init(run, "c", "one").unwrap().version();
    assert_eq!(db.state_init(run, "c", "two").unwrap_err().kind(), ErrorKind::Conflict);
    let error = db.state_cas(run, "c", Version(999), "two").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&format!("found version {first}")), "{error}");
    db.state_cas(run, "c", first, "two").unwrap();
    assert_eq!(db.state_read(run, "c").unwrap().unwrap().value, Value::from("two"));
}

#[test]
fn history_is_kept_as_configured_and_refused_where_it_is_not() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("db");
    let config = DatabaseConfig::buffered().retention(Retention::KeepAll);
    let db = Database::create(&path, config.clone()).unwrap();
    let run = db.create_run("run").unwrap();
    let versions: Vec<_> = (0..5i64).map(|n| db.kv_put(run, "k", n).unwrap().version()).collect();
    db.close().unwrap();
    let db = Database::open(&path).unwrap();
    let run = db.resolve_run("run").unwrap();
    for (n, version) in versions.iter().enumerate() {
        let found = db.kv_get_at(run, "k", *version).unwrap().unwrap();
        assert_eq!((found.value, found.version), (Value::Int(n as i64), *version));
    }
    assert_eq!(db.kv_history(run, "k").unwrap().len(), 5);
    db.close().unwrap();

    let db = Database::in_memory().unwrap();
    let run = db.create_run("run").unwrap();
    let old = db.kv_put(run, "k", 1).unwrap().version();
    let view = db.view().unwrap();
    db.kv_put(run, "k", 2).unwrap();
    db.kv_put(run, "k", 3).unwrap();
    assert_eq!(view.kv_get(run, "k").unwrap().unwrap().value, Value::Int(1), "the view holds it");
    drop(view);
    db.kv_put(run, "k", 4).unwrap();
    assert_eq!(db.kv_get_at(run, "k", old).unwrap_err().kind(), ErrorKind::HistoryTrimmed);
    let future = db.kv_get_at(run, "k", Version(1 << 40)).unwrap_err();
    assert_eq!(future.kind(), ErrorKind::NotFound);
}

#[test]
fn what_expires_is_gone_at_once_and_commit_times_never_fall() {
    let dir = tempdir().unwrap();
    let clock = ManualClock::at(Timestamp::from_micros(1_000_000));
    let open = || {
        Database::builder(dir.path().join("db"))
            .clock(clock.clone())
            .entropy(Entropy::seeded(7))
            .open()
            .unwrap()
    };
    let db = open();
    let run = db.create_run("run").unwrap();
    let expiry = Timestamp::from_micros(2_000_000);
    db.kv_put_expiring(run, "k", 1, expiry).unwrap();
    let view = db.view().unwrap();
    clock.set(expiry);
    assert!(db.kv_get(run, "k").unwrap().is_none());
    assert!(view.kv_get(run, "k").unwrap().is_some(), "a view's time stands still");
    db.kv_put(run, "late", 1).unwrap();
    db.close().unwrap();
    clock.set(Timestamp::from_micros(5));
    let db = open();
    let run = db.resolve_run("run").unwrap();
    db.kv_put(run, "early", 1).unwrap();
    let time = |key| db.kv_get(run, key).unwrap().unwrap().timestamp;
    assert!(time("early") >= time("late"), "also across a restart");
}

#[test]
fn every_clone_is_closed_and_says_so() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("run").unwrap();
    let other = db.clone();
    db.close().unwrap();
    db.close().unwrap();
    assert_eq!(other.kv_put(run, "k", 1).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(other.kv_get(run, "k").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(other.begin().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(other.view().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(other.flush().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_reader_beside_a_busy_writer_sees_a_prefix() {
    for config in every_mode() {
        let config = config.segment_bytes(16 << 10);
        let dir = tempdir().unwrap();
        let path = dir.path().join("db");
        let db = Database::create(&path, config.clone()).unwrap();
        let run = db.create_run("run").unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0i64.. {
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        return;
                    }
                    db.transaction(|tx| {
                        tx.kv_put(run, "n", n)?;
                        tx.event_append(run, "s", n)
                    })
                    .unwrap();
                }
            });
            let mut last = Version::ZERO;
            for round in 0..30 {
                let acked = db.current_version();
                let reader = Database::open_read_only(&path)
                    .unwrap_or_else(|error| panic!("{config:?} round {round}: {error}"));
                assert!(reader.recovery_report().beside_writer);
                let version = reader.current_version();
                assert!(
                    version >= acked && version >= last,
                    "{config:?}: what was visible is there"
                );
                last = version;
                let events = reader.event_read(run_of(&reader), "s", 0).unwrap();
                let n = reader.kv_get(run_of(&reader), "n").unwrap();
                let count = n.map_or(0, |n| n.value.as_int().unwrap() + 1);
                assert_eq!(i64::try_from(events.count()).unwrap(), count, "whole transactions");
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}

fn run_of(db: &Database) -> steadfast_engine::Run {
    db.resolve_run("run").unwrap()
}

#[test]
fn a_second_open_is_refused_and_a_reader_is_not() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Database::create(&path, DatabaseConfig::buffered()).unwrap();
    let run = db.create_run("run").unwrap();
    db.kv_put(run, "k", 1).unwrap();
    let error = Database::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    let reader = Database::open_read_only(&path).unwrap();
    assert_eq!(
        reader.kv_get(reader.resolve_run("run").unwrap(), "k").unwrap().unwrap().value,
        Value::Int(1)
    );
    assert_eq!(reader.kv_put(run, "k", 2).unwrap_err().kind(), ErrorKind::Closed);
    db.close().unwrap();
    Database::open(&path).unwrap();
}

/// Two transactions of one view: that one of them has ended must not pass for the end of both, or
/// what the other is to be checked against is forgotten.
#[test]
fn a_transaction_that_commits_does_not_end_another_one_of_its_view() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    db.kv_put(run, "k", 1).unwrap();
    let (mut one, mut other) = (db.begin().unwrap(), db.begin().unwrap());
    assert_eq!(one.version(), other.version());
    assert_eq!(other.kv_get(run, "k").unwrap().unwrap().value, Value::from(1));
    one.kv_get(run, "x").unwrap();
    one.kv_put(run, "x", 1).unwrap();
    one.commit().unwrap();
    assert_eq!(db.stats().unwrap().running_transactions, 1);
    db.kv_put(run, "k", 2).unwrap();
    db.kv_put(run, "z", 2).unwrap();
    other.kv_put(run, "y", 1).unwrap();
    assert_eq!(other.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(db.stats().unwrap().running_transactions, 0);
}
