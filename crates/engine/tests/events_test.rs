//! Event streams: receipts, filters, the hash chain, idempotency keys that outlive everything.
#![allow(clippy::unwrap_used)]

use steadfast_core::{NamespaceId, event_key};
use steadfast_engine::{
    AppendOptions, CompactMode, Database, DatabaseConfig, Entry, Error, ErrorKind, EventHash,
    EventHead, Expect, ManualClock, Run, Timestamp, Value, Version,
};

fn keyed(key: &str) -> AppendOptions {
    AppendOptions { idempotency_key: Some(key.into()), ..AppendOptions::default() }
}

fn payloads(
    events: impl Iterator<Item = steadfast_engine::Result<steadfast_engine::Event>>,
) -> Vec<i64> {
    events.map(|event| event.unwrap().payload.as_int().unwrap()).collect()
}

/// A database in memory with a run and ten events in stream `s`, one a commit.
fn ten() -> (Database, Run) {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    for n in 0..10 {
        db.event_append(run, "s", n).unwrap();
    }
    (db, run)
}

#[test]
fn events_are_read_from_both_ends_by_number_kind_correlation_scope_and_time() {
    let clock = ManualClock::at(Timestamp::from_micros(1_000));
    let dir = tempfile::tempdir().unwrap();
    let db = Database::builder(dir.path()).clock(clock.clone()).create().unwrap();
    let run = db.create_run("r").unwrap();
    for n in 0..10_i64 {
        clock.set(Timestamp::from_micros(2_000 + 10 * n.unsigned_abs()));
        let options = AppendOptions {
            kind: Some(if n % 2 == 0 { "even" } else { "odd" }.into()),
            correlation: (n < 5).then(|| "first half".into()),
            causation: (n == 7).then(|| "6".into()),
            scope: (n % 3 == 0).then(|| "threes".into()),
            ..AppendOptions::default()
        };
        db.event_append_with(run, "s", n, &options).unwrap();
    }
    // Neighbours, which no range may reach.
    db.event_append(run, "r", 100).unwrap();
    db.event_append(run, "t", 100).unwrap();
    let all = || db.event_read(run, "s", 0).unwrap();
    assert_eq!(payloads(all().rev()), (0..10).rev().collect::<Vec<_>>());
    assert_eq!(payloads(all().of_kind("odd")), [1, 3, 5, 7, 9]);
    assert_eq!(payloads(all().of_kind("odd").rev()), [9, 7, 5, 3, 1]);
    assert_eq!(payloads(all().of_correlation("first half").of_kind("even")), [0, 2, 4]);
    assert_eq!(payloads(all().of_causation("6")), [7]);
    assert_eq!(payloads(all().of_scope("threes")), [0, 3, 6, 9]);
    let at = Timestamp::from_micros;
    assert_eq!(payloads(all().committed_within(at(2_020), at(2_040))), [2, 3]);
    let view = db.view().unwrap();
    let range = |range| payloads(view.event_read_range(run, "s", range).unwrap());
    assert_eq!(range((std::ops::Bound::Included(3), std::ops::Bound::Excluded(5))), [3, 4]);
    assert_eq!(range((std::ops::Bound::Excluded(7), std::ops::Bound::Unbounded)), [8, 9]);
    assert_eq!(range((std::ops::Bound::Unbounded, std::ops::Bound::Included(1))), [0, 1]);
    assert_eq!(
        payloads(view.event_read_range(run, "s", u64::MAX..=u64::MAX).unwrap()),
        Vec::<i64>::new()
    );
    let last = all().next_back().unwrap().unwrap();
    assert_eq!((last.seq, last.kind.as_deref()), (9, Some("odd")));
}

#[test]
fn a_receipt_names_the_event_and_a_retry_gets_the_same() {
    let (db, run) = ten();
    let (first, receipt) = db.event_append_with(run, "s", 10, &keyed("k")).unwrap();
    assert_eq!((first.seq, first.original), (10, None));
    let head = db.event_head(run, "s").unwrap().unwrap();
    assert_eq!(head, EventHead { seq: 10, hash: first.hash });
    db.event_append(run, "s", 11).unwrap();

    // Checked before the expectation, which cannot hold any more.
    let options = AppendOptions { expect: Expect::NoStream, ..keyed("k") };
    let (again, _) = db.event_append_with(run, "s", 10, &options).unwrap();
    assert_eq!((again.seq, again.hash), (10, first.hash));
    assert_eq!(again.original, Some(receipt.version()));
    assert_eq!(db.event_read(run, "s", 0).unwrap().count(), 12);
    assert_eq!(db.stats().unwrap().idempotency_keys, Some(1));

    // In one transaction too, where the original has no version yet.
    let both = db.transaction(|tx| {
        let one = tx.event_append_with(run, "s", 12, &keyed("l"))?;
        Ok((one, tx.event_append_with(run, "s", 12, &keyed("l"))?))
    });
    let ((one, other), _) = both.unwrap();
    assert_eq!((one.seq, one.hash), (other.seq, other.hash));
    assert_eq!(other.original, Some(Version::MAX));
}

#[test]
fn a_batch_across_streams_is_all_or_nothing_and_chained() {
    let (db, run) = ten();
    let no_stream = AppendOptions { expect: Expect::NoStream, ..AppendOptions::default() };
    let wrong = [
        ("a", Value::from(1), no_stream.clone()),
        ("s", Value::from(2), AppendOptions::default()),
        ("s", Value::from(3), no_stream.clone()),
    ];
    let error = db.event_append_batch(run, &wrong).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(db.event_head(run, "a").unwrap(), None);
    assert_eq!(db.event_head(run, "s").unwrap().unwrap().seq, 9);

    let exact = AppendOptions { expect: Expect::Exact(10), ..AppendOptions::default() };
    let right = [
        ("a", Value::from(1), no_stream),
        ("s", Value::from(2), AppendOptions::default()),
        ("s", Value::from(3), exact),
    ];
    let (appended, receipt) = db.event_append_batch(run, &right).unwrap();
    assert_eq!(appended.iter().map(|one| one.seq).collect::<Vec<_>>(), [0, 10, 11]);
    for event in db.event_read(run, "s", 10).unwrap() {
        assert_eq!(event.unwrap().version, receipt.version());
    }
    assert_eq!(db.event_verify(run, "s").unwrap().unwrap().hash, appended[2].hash);
    assert_eq!(db.view().unwrap().event_verify_all(run).unwrap(), 2);
}

#[test]
fn what_is_written_past_the_streams_is_found() {
    let key = |seq| event_key(NamespaceId(1), b"s", seq).unwrap();
    let broken = |db: &Database, run, due: u64| match db.event_verify(run, "s") {
        Err(error @ Error::EventChain { .. }) => {
            assert_eq!(error.kind(), ErrorKind::Corruption);
            assert!(
                error.to_string().starts_with(&format!("event {due} of stream s: ")),
                "{error}"
            );
        }
        other => panic!("not found: {other:?}"),
    };
    let (db, run) = ten();
    assert_eq!(db.event_verify(run, "s").unwrap().unwrap().seq, 9);
    let value = db.event_read(run, "s", 4).unwrap().next().unwrap().unwrap();
    let parts = vec![Value::from(value.hash.as_bytes()), Value::from(44)];
    db.storage().put(&key(4), Value::List(parts), None).unwrap();
    broken(&db, run, 4);

    for cut in [0, 5] {
        let (db, run) = ten();
        db.storage().delete(&key(cut)).unwrap();
        broken(&db, run, cut);
    }
    // The last one leaves no gap: only who kept the head can tell.
    let (db, run) = ten();
    let kept = db.event_head(run, "s").unwrap().unwrap();
    db.storage().delete(&key(9)).unwrap();
    let error = db.event_verify_against(run, "s", &kept).unwrap_err();
    assert!(matches!(error, Error::EventChain { seq: 9, .. }), "{error}");
}

#[test]
fn a_head_kept_outside_finds_a_stream_that_was_cut_or_written_anew() {
    let (db, run) = ten();
    let kept: EventHead = db.event_head(run, "s").unwrap().unwrap().to_string().parse().unwrap();
    assert_eq!(db.event_verify_against(run, "s", &kept).unwrap(), Some(kept));
    db.event_append(run, "s", 10).unwrap();
    let newer = db.event_verify_against(run, "s", &kept).unwrap().unwrap();
    assert_eq!(newer.seq, 10, "a stream that has grown still has the old head in it");

    // The same run, made again from a part of its events: a chain of its own that is sound.
    let view = db.view().unwrap();
    let namespace = view.namespace_of(run).unwrap();
    let events: Vec<Entry> = view.entries(run).collect::<Result<_, _>>().unwrap();
    let again = |change: &dyn Fn(Vec<Entry>) -> Vec<Entry>| {
        let db = Database::in_memory().unwrap();
        let created = Timestamp::from_micros(1);
        let mut restore = db.restore(Version(1), created).unwrap();
        let run = restore.run("r", &namespace, Default::default(), created).unwrap();
        restore.commit().unwrap();
        let mut restore = db.restore(Version(2), created).unwrap();
        for entry in change(events.clone()) {
            restore.entry(run, &entry)?;
        }
        restore.commit()?;
        Ok::<_, Error>((db, run))
    };
    let (whole, run) = again(&|events| events).unwrap();
    assert_eq!(whole.event_verify_against(run, "s", &kept).unwrap(), Some(newer));
    let (cut, run) = again(&|events| events[..9].to_vec()).unwrap();
    assert_eq!(cut.event_verify(run, "s").unwrap().unwrap().seq, 8);
    let error = cut.event_verify_against(run, "s", &kept).unwrap_err();
    assert!(matches!(error, Error::EventChain { seq: 9, .. }), "{error}");

    let edited = |hash_too: bool| {
        again(&|mut events: Vec<Entry>| {
            for (n, entry) in events.iter_mut().enumerate() {
                let Entry::Event { event, .. } = entry else { continue };
                if n == 3 {
                    event.payload = Value::from(33);
                }
                if hash_too && n >= 3 {
                    event.hash = EventHash::NONE;
                }
            }
            events
        })
    };
    let error = edited(false).unwrap_err();
    assert!(matches!(error, Error::EventChain { seq: 3, .. }), "{error}");
    let (forged, run) = edited(true).unwrap();
    assert_eq!(forged.event_verify(run, "s").unwrap().unwrap().seq, 10);
    let error = forged.event_verify_against(run, "s", &kept).unwrap_err();
    assert!(matches!(error, Error::EventChain { seq: 9, .. }), "{error}");
    let dropped = again(&|mut events| {
        events.remove(5);
        events
    });
    assert!(matches!(dropped.unwrap_err(), Error::EventChain { seq: 5, .. }));
}

#[test]
fn keys_and_hashes_outlive_checkpoint_compaction_opening_and_moving_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let config = DatabaseConfig::buffered;
    let db = Database::create(&path, config()).unwrap();
    let run = db.create_run("r").unwrap();
    let mut originals = Vec::new();
    for n in 0..50_i64 {
        let key = format!("key-{n}");
        let (one, receipt) = db.event_append_with(run, "s", n, &keyed(&key)).unwrap();
        originals.push((key, one, receipt.version()));
    }
    let head = db.event_head(run, "s").unwrap().unwrap();
    let retried = |db: &Database, what: &str| {
        let run = db.resolve_run("r").unwrap();
        for (key, one, version) in &originals {
            let (again, _) = db.event_append_with(run, "s", -1, &keyed(key)).unwrap();
            assert_eq!((again.seq, again.hash), (one.seq, one.hash), "{what}");
            assert_eq!(again.original, Some(*version), "{what}");
        }
        assert_eq!(db.event_verify_against(run, "s", &head).unwrap(), Some(head), "{what}");
        assert_eq!(db.stats().unwrap().idempotency_keys, Some(50), "{what}");
    };
    db.checkpoint().unwrap();
    retried(&db, "after a checkpoint");
    db.compact(CompactMode::Full).unwrap();
    retried(&db, "after a compaction");
    db.close().unwrap();
    let db = Database::open_existing(&path, config()).unwrap();
    retried(&db, "after opening");
    let backup = dir.path().join("backup");
    db.backup(&backup).unwrap();
    let file = dir.path().join("run");
    db.export_run(run, &file).unwrap();
    retried(&Database::open_existing(&backup, config()).unwrap(), "in a copy");

    let other = Database::create(dir.path().join("other"), config()).unwrap();
    other.create_run("before").unwrap();
    let run = other.import_run(&file, None).unwrap();
    assert_eq!(other.event_verify_against(run, "s", &head).unwrap(), Some(head), "imported");
    let (again, _) = other.event_append_with(run, "s", -1, &keyed("key-7")).unwrap();
    assert_eq!((again.seq, again.hash), (7, originals[7].1.hash));
}

#[test]
fn a_run_whose_chain_is_broken_is_not_taken_in() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::create(dir.path().join("db"), DatabaseConfig::buffered()).unwrap();
    let run = db.create_run("r").unwrap();
    for n in 0..5 {
        db.event_append(run, "s", n).unwrap();
    }
    let event = db.event_read(run, "s", 2).unwrap().next().unwrap().unwrap();
    let value = vec![Value::from(event.hash.as_bytes()), Value::from(22)];
    let key = event_key(NamespaceId(1), b"s", 2).unwrap();
    let (newest, now) = (db.current_version(), event.timestamp);
    db.storage().put_with_version(&key, Value::List(value), newest, now, None).unwrap();
    let file = dir.path().join("run");
    db.export_run(run, &file).unwrap();
    let other = Database::create(dir.path().join("other"), DatabaseConfig::buffered()).unwrap();
    let error = other.import_run(&file, None).unwrap_err();
    assert!(matches!(error, Error::EventChain { seq: 2, .. }), "{error}");
    assert!(other.list_runs().unwrap().is_empty());
}

#[test]
fn a_large_batch_goes_through_and_its_own_events_are_seen() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    db.event_append(run, "s", -1).unwrap();
    // So many that looking at all of them for each would take minutes.
    let events = 50_000;
    db.transaction(|tx| (0..events).try_for_each(|n| tx.event_append(run, "s", n).map(drop)))
        .unwrap();
    let head = db.event_verify(run, "s").unwrap().unwrap();
    assert_eq!(head.seq, 50_000);
    // With its own writes over what is committed, and deletes of neither.
    let ((last, read), _) = db
        .transaction(|tx| {
            tx.event_append(run, "s", 0)?;
            Ok((tx.event_head(run, "s")?, tx.event_read(run, "s", 49_999)?.count()))
        })
        .unwrap();
    assert_eq!((last.unwrap().seq, read), (50_001, 3));
}

#[test]
fn state_cells_move_by_pure_steps_and_keep_their_history() {
    let dir = tempfile::tempdir().unwrap();
    let config = DatabaseConfig::buffered().retention(steadfast_engine::Retention::KeepAll);
    let db = Database::create(dir.path(), config).unwrap();
    let run = db.create_run("r").unwrap();
    db.state_init(run, "c", 0).unwrap();
    let again = db.state_init(run, "c", 0).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict);
    let count = |value: Option<&Value>| {
        let n = value.and_then(Value::as_int).ok_or_else(|| Error::Invalid("no number".into()))?;
        Ok(Value::from(n + 1))
    };
    // Every step of every thread counts once, however often it had to start again.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    db.state_transition(run, "c", count).unwrap();
                }
            });
        }
    });
    assert_eq!(db.state_read(run, "c").unwrap().unwrap().value, Value::from(200));
    let history = db.state_history(run, "c").unwrap();
    let values: Vec<_> = history.iter().map(|one| one.value.as_int().unwrap()).collect();
    assert_eq!(values, (0..=200).rev().collect::<Vec<_>>());
    assert!(history.is_sorted_by(|a, b| a.version > b.version));
    let refused = db.state_transition(run, "absent", count).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(db.state_read(run, "absent").unwrap().is_none());
}
