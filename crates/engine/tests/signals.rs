//! Signals: what is recorded is counted once, whatever happens in between, and to the bit.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use steadfast_engine::{
    CompactMode, Database, DatabaseConfig, Decay, DurabilityMode, Entry, ErrorKind, ManualClock,
    Retention, Run, SchemaBuilder, Signal, SignalDefinition, Timestamp, Value, Version, Window,
};

const START_US: u64 = 1_700_000_000_000_000;

fn at(us: u64) -> Timestamp {
    Timestamp::from_micros(us)
}

fn clock() -> ManualClock {
    ManualClock::at(at(START_US))
}

fn open(path: &Path, clock: &ManualClock, config: DatabaseConfig) -> Database {
    Database::builder(path)
        .config(config.manual_checkpoints().segment_bytes(64 << 10))
        .clock(clock.clone())
        .open()
        .unwrap()
}

fn in_memory(clock: &ManualClock) -> (Database, Run) {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.keep(), clock, DatabaseConfig::buffered());
    let run = db.create_run("r").unwrap();
    (db, run)
}

fn bits(db: &Database, run: Run, entity: &str) -> Option<(Signal, u64)> {
    let signal = db.signal(run, "view", entity).unwrap()?;
    let score = db.signal_score(run, "view", entity).unwrap().to_bits();
    Some((signal, score))
}

#[test]
fn a_score_halves_with_each_half_life_and_counts_by_window() {
    let clock = clock();
    let (db, run) = in_memory(&clock);
    let week = Duration::from_secs(7 * 24 * 3600);
    assert_eq!(db.signal_score(run, "view", "e").unwrap(), 0.0);
    assert_eq!(db.signal_count(run, "view", "e", Window::AllTime).unwrap(), 0);
    assert_eq!(db.signal(run, "view", "e").unwrap(), None);
    db.signal_record(run, "view", "e", 4.0).unwrap();
    db.signal_record_at(run, "view", "e", 4.0, at(START_US - 7 * 24 * 3_600_000_000)).unwrap();
    assert!((db.signal_score(run, "view", "e").unwrap() - 6.0).abs() < 1e-9);
    clock.advance(week);
    assert!((db.signal_score(run, "view", "e").unwrap() - 3.0).abs() < 1e-9);
    let before = db.signal_score_at(run, "view", "e", at(START_US)).unwrap();
    assert!((before - 6.0).abs() < 1e-9);
    assert_eq!(db.signal_count(run, "view", "e", Window::Hours(24)).unwrap(), 0);
    assert_eq!(db.signal_count(run, "view", "e", Window::AllTime).unwrap(), 2);
    for _ in 0..30 {
        db.signal_record(run, "view", "e", 1.0).unwrap();
    }
    assert!((db.signal_velocity(run, "view", "e").unwrap() - 30.0 / 3600.0).abs() < 1e-12);
    let view = db.view().unwrap();
    db.signal_record(run, "view", "e", 1.0).unwrap();
    assert_eq!(view.signal_count(run, "view", "e", Window::Minutes(60)).unwrap(), 30);
    assert_eq!(db.signal_count(run, "view", "e", Window::Minutes(60)).unwrap(), 31);
    assert_eq!(view.signal_scan(run, "view").unwrap().count(), 1);
}

#[test]
fn refuses_bad_weights_times_windows_and_names() {
    let (db, run) = in_memory(&clock());
    let kind = |result: Result<_, steadfast_engine::Error>| result.map(drop).unwrap_err().kind();
    for weight in [f64::NAN, f64::INFINITY, -1.0, 1e16] {
        assert_eq!(kind(db.signal_record(run, "view", "e", weight)), ErrorKind::Invalid);
        let in_txn = db.transaction(|tx| tx.signal_record(run, "view", "e", weight));
        assert_eq!(kind(in_txn.map(|done| done.1)), ErrorKind::Invalid);
    }
    assert_eq!(kind(db.signal_record(run, "", "e", 1.0)), ErrorKind::Invalid);
    assert_eq!(kind(db.signal_record(run, "view", "", 1.0)), ErrorKind::Invalid);
    assert_eq!(kind(db.signal_record(run, &"n".repeat(257), "e", 1.0)), ErrorKind::Invalid);
    let late = at(253_402_300_800_000_001);
    assert_eq!(kind(db.signal_record_at(run, "view", "e", 1.0, late)), ErrorKind::Invalid);
    for window in [Window::Minutes(61), Window::Minutes(0), Window::Hours(25)] {
        let counted = db.signal_count(run, "view", "e", window);
        assert_eq!(counted.unwrap_err().kind(), ErrorKind::Invalid, "{window:?}");
    }
    assert_eq!(db.current_version(), Version(1), "nothing was written");
    db.signal_record(run, "view", "e", 1.0).unwrap();
    let early = db.signal_score_at(run, "view", "e", at(START_US - 1));
    assert_eq!(early.unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_definition_is_not_changed_silently() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let hour = Decay::Exponential { half_life: Duration::from_secs(3600) };
    let db = open(dir.path(), &clock, DatabaseConfig::strict());
    let run = db.create_run("r").unwrap();
    let view = || SchemaBuilder::signal("view").decay(hour).windows([Window::Minutes(5)]);
    db.define_signals(view().velocity(Window::Minutes(5)).and_signal("like")).unwrap();
    let version = db.current_version();
    db.define_signals(view().velocity(Window::Minutes(5)).and_signal("like")).unwrap();
    assert_eq!(db.current_version(), version, "the same again is nothing");
    db.close().unwrap();

    let db = open(dir.path(), &clock, DatabaseConfig::strict());
    let changed = db.define_signals(SchemaBuilder::signal("view")).unwrap_err();
    assert_eq!(changed.kind(), ErrorKind::Conflict, "{changed}");
    let run = db.resolve_run("r").unwrap_or(run);
    db.signal_record(run, "view", "e", 8.0).unwrap();
    clock.advance(Duration::from_secs(3600));
    assert!((db.signal_score(run, "view", "e").unwrap() - 4.0).abs() < 1e-9);
    assert!(db.signal_count(run, "view", "e", Window::Minutes(6)).is_err());
    let permanent = SchemaBuilder::signal("view").decay(Decay::Permanent).version(2);
    db.define_signals(permanent.clone()).unwrap();
    db.signal_record(run, "view", "e", 1.0).unwrap();
    clock.advance(Duration::from_secs(360_000));
    assert!((db.signal_score(run, "view", "e").unwrap() - 9.0).abs() < 1e-9);
    let names: Vec<_> = db.view().unwrap().signal_definitions().unwrap();
    let names: Vec<_> = names.into_iter().map(|d| (d.name, d.definition.version)).collect();
    assert_eq!(names, [("like".to_owned(), 1), ("view".to_owned(), 2)]);
    let zero = db.define_signals(SchemaBuilder::signal("new").version(0)).unwrap_err();
    assert_eq!(zero.kind(), ErrorKind::Invalid);
    assert_eq!(db.signal_definition("other").unwrap(), SignalDefinition::default());
}

#[test]
fn a_transaction_sees_its_own_observations_and_takes_back_all_or_none() {
    let (db, run) = in_memory(&clock());
    db.signal_record(run, "view", "e", 1.0).unwrap();
    let ((), receipt) = db
        .transaction(|tx| {
            tx.kv_put(run, "k", 1i64)?;
            for n in 0..5 {
                tx.signal_record(run, "view", "e", 1.0)?;
                tx.signal_record(run, "view", format!("f{n}"), 1.0)?;
            }
            assert_eq!(tx.signal_count(run, "view", "e", Window::AllTime)?, 6);
            assert!((tx.signal_score(run, "view", "e")? - 6.0).abs() < 1e-9);
            assert_eq!(tx.signal_scan(run, "view")?.count(), 6);
            assert_eq!(tx.write_count(), 7);
            Ok(())
        })
        .unwrap();
    assert_eq!(db.signal_count(run, "view", "e", Window::AllTime).unwrap(), 6);
    let history = db.view().unwrap().signal_versions(run, "view", "e").unwrap();
    assert_eq!(
        history[0].version(),
        receipt.version(),
        "all of a transaction have its one version"
    );
    let mut given_up = db.begin().unwrap();
    given_up.signal_record(run, "view", "e", 1.0).unwrap();
    given_up.rollback();
    assert_eq!(db.signal_count(run, "view", "e", Window::AllTime).unwrap(), 6);
    // A transaction that read it does conflict with an observation.
    let mut reader = db.begin().unwrap();
    let score = reader.signal_score(run, "view", "e").unwrap();
    reader.kv_put(run, "score", score).unwrap();
    db.signal_record(run, "view", "e", 1.0).unwrap();
    assert_eq!(reader.commit().unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn two_threads_on_one_hot_key_lose_nothing_and_never_conflict() {
    const EACH: u64 = 3000;
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open_with_mode(dir.path(), DurabilityMode::Buffered).unwrap();
    let run = db.create_run("r").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for n in 0..EACH {
                    match n % 3 {
                        0 => db.signal_record(run, "view", "hot", 1.0).unwrap(),
                        // Without a retry: begin and commit.
                        _ => {
                            let mut tx = db.begin().unwrap();
                            tx.signal_record(run, "view", "hot", 1.0).unwrap();
                            tx.commit().unwrap()
                        }
                    };
                }
            });
        }
    });
    assert_eq!(db.signal_count(run, "view", "hot", Window::AllTime).unwrap(), 2 * EACH);
    let before = bits(&db, run, "hot").unwrap().0;
    assert_eq!(db.storage().stats().versions, 2, "the run and the signal");
    db.close().unwrap();
    let db = Database::open(dir.path()).unwrap();
    let run = db.resolve_run("r").unwrap();
    assert_eq!(bits(&db, run, "hot").unwrap().0, before, "to the bit");
}

/// A checkpoint's view stands at a version while a hot signal goes on: the snapshot has what was
/// counted up to there, the log the rest, together once.
#[test]
fn checkpoints_beside_a_hot_signal_count_each_observation_once() {
    const COUNT: u64 = 4000;
    let dir = tempfile::tempdir().unwrap();
    let config = || DatabaseConfig::buffered().manual_checkpoints().segment_bytes(64 << 10);
    let db = Database::open_or_create(dir.path(), config()).unwrap();
    let run = db.create_run("r").unwrap();
    let (mut checkpoints, mut backups) = (0, Vec::new());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..COUNT {
                db.signal_record(run, "view", "hot", 1.0).unwrap();
                db.signal_record(run, "view", format!("e{}", n % 50), 1.0).unwrap();
            }
        });
        while !writer.is_finished() {
            let view = db.view().unwrap();
            let seen = view.signal_count(run, "view", "hot", Window::AllTime).unwrap();
            checkpoints += u32::from(db.checkpoint().unwrap().written);
            if backups.len() < 5 {
                let backup = dir.path().with_extension(format!("backup-{}", backups.len()));
                db.backup_at(&backup, view.version()).unwrap();
                backups.push((backup, view.version(), seen));
            }
            db.compact(CompactMode::WalOnly).unwrap();
            let found = view.signal_count(run, "view", "hot", Window::AllTime).unwrap();
            assert_eq!(found, seen, "a view stands still");
        }
    });
    assert!(checkpoints > 0);
    let all = |db: &Database| {
        let run = db.resolve_run("r").unwrap();
        let signals = db.view().unwrap().signal_scan(run, "view").unwrap();
        signals.collect::<Result<Vec<_>, _>>().unwrap()
    };
    let due = all(&db);
    assert_eq!(due.iter().map(|(_, signal)| signal.count).sum::<u64>(), 2 * COUNT);
    db.close().unwrap();
    let db = Database::open_existing(dir.path(), config()).unwrap();
    assert_eq!(all(&db), due, "to the bit");
    for (backup, version, seen) in backups {
        let copy = Database::open_existing(&backup, config()).unwrap();
        let run = copy.resolve_run("r").unwrap();
        let found = copy.signal_count(run, "view", "hot", Window::AllTime).unwrap();
        assert_eq!(found, seen, "nothing above {version:?} is in a copy of it");
        drop(copy);
        std::fs::remove_dir_all(backup).unwrap();
    }
}

/// The same questions to the database, to a view and to a transaction have the same answers, of
/// signals that were defined, that were not, and that were never observed.
#[test]
fn every_way_to_ask_gives_the_same_answer() {
    let clock = clock();
    let (db, run) = in_memory(&clock);
    let lifetime = Duration::from_secs(3600);
    let schema = SchemaBuilder::signal("linear").decay(Decay::Linear { lifetime });
    db.define_signals(schema.velocity(Window::Minutes(2)).windows([Window::Hours(2)])).unwrap();
    for n in 0..40u64 {
        clock.advance(Duration::from_secs(20 * n));
        for name in ["linear", "plain"] {
            // Every fifth is ahead of the clock by some minutes.
            let time =
                at(db.view().unwrap().now().as_micros() + u64::from(n % 5 == 0) * 200_000_000);
            db.signal_record_at(run, name, "e", 1.5, time).unwrap();
        }
        for (name, entity) in [("linear", "e"), ("plain", "e"), ("linear", "none"), ("no", "none")]
        {
            let (view, mut tx) = (db.view().unwrap(), db.begin().unwrap());
            let signal = view.signal(run, name, entity).unwrap();
            let score = db.signal_score(run, name, entity).unwrap();
            let due = signal.as_ref().map_or(0.0, |signal| signal.score(view.now()).unwrap());
            assert_eq!(score.to_bits(), due.to_bits(), "{name} {entity}");
            assert_eq!(view.signal_score(run, name, entity).unwrap().to_bits(), due.to_bits());
            assert_eq!(tx.signal_score(run, name, entity).unwrap().to_bits(), due.to_bits());
            for window in [Window::AllTime, Window::Minutes(2), Window::Hours(2), Window::Hours(99)]
            {
                let count = |signal: &Signal| signal.count(window, view.now()).ok();
                let due = match &signal {
                    Some(signal) => count(signal),
                    None => (window != Window::Hours(99)).then_some(0),
                };
                assert_eq!(db.signal_count(run, name, entity, window).ok(), due, "{window:?}");
                assert_eq!(view.signal_count(run, name, entity, window).ok(), due);
                assert_eq!(tx.signal_count(run, name, entity, window).ok(), due);
            }
            let due = signal.map_or(0.0, |signal| signal.velocity(view.now()).unwrap());
            assert_eq!(db.signal_velocity(run, name, entity).unwrap(), due);
            assert_eq!(view.signal_velocity(run, name, entity).unwrap(), due);
            assert_eq!(tx.signal_velocity(run, name, entity).unwrap(), due);
        }
    }
}

#[test]
fn history_has_the_signal_as_it_was_at_each_version() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let config = || DatabaseConfig::strict().retention(Retention::KeepAll);
    let db = open(dir.path(), &clock, config());
    let run = db.create_run("r").unwrap();
    let mut versions = Vec::new();
    for n in 0..20u64 {
        clock.advance(Duration::from_secs(50));
        let receipt = db.signal_record(run, "view", "e", 1.0).unwrap();
        versions.push((receipt.version(), n + 1));
        if n == 9 {
            db.checkpoint().unwrap();
        }
    }
    db.close().unwrap();
    let check = |db: &Database| {
        let run = db.resolve_run("r").unwrap();
        for (version, count) in &versions {
            let view = db.view_at(*version).unwrap();
            assert_eq!(view.signal_count(run, "view", "e", Window::AllTime).unwrap(), *count);
        }
        let history = db.view().unwrap().signal_versions(run, "view", "e").unwrap();
        assert_eq!(history.len(), 20);
    };
    let db = open(dir.path(), &clock, config());
    check(&db);
    db.wait_loaded().unwrap();
    check(&db);
    let backup = dir.path().with_extension("backup");
    db.backup_at(&backup, versions[14].0).unwrap();
    let copy = open(&backup, &clock, config());
    let run = copy.resolve_run("r").unwrap();
    assert_eq!(copy.signal_count(run, "view", "e", Window::AllTime).unwrap(), 15);
    drop(copy);
    std::fs::remove_dir_all(backup).unwrap();
}

#[test]
fn a_streamed_transaction_of_observations_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let db = open(dir.path(), &clock, DatabaseConfig::strict());
    let run = db.create_run("r").unwrap();
    let observe = |db: &Database, run: Run| {
        db.transaction(|tx| {
            for n in 0..20_000 {
                tx.signal_record(run, "view", format!("e{}", n % 4000), 1.0)?;
            }
            Ok(())
        })
        .unwrap()
    };
    observe(&db, run);
    let sound = |db: &Database, count| {
        let run = db.resolve_run("r").unwrap();
        for n in [0, 1, 3999] {
            let entity = format!("e{n}");
            assert_eq!(db.signal_count(run, "view", &entity, Window::AllTime).unwrap(), count);
        }
    };
    sound(&db, 5);
    db.close().unwrap();
    let db = open(dir.path(), &clock, DatabaseConfig::strict());
    sound(&db, 5);
    db.checkpoint().unwrap();
    observe(&db, db.resolve_run("r").unwrap());
    db.close().unwrap();
    sound(&open(dir.path(), &clock, DatabaseConfig::strict()), 10);
}

/// A delta whose signal lies in a snapshot that is not in memory yet, read in every way.
#[test]
fn what_the_log_adds_to_a_snapshot_is_there_before_it_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let config = DatabaseConfig::buffered;
    let db = open(dir.path(), &clock, config());
    let run = db.create_run("r").unwrap();
    let filler = vec![7u8; 3000];
    for n in 0..1500u32 {
        db.kv_put(run, format!("k{n:05}"), Value::from(filler.as_slice())).unwrap();
    }
    db.transaction(|tx| {
        (0..4000).try_for_each(|n| tx.signal_record(run, "view", format!("e{n:05}"), 1.0))
    })
    .unwrap();
    db.checkpoint().unwrap();
    let new = ["a", "e00000", "e02000", "e03999", "z"];
    for _ in 0..3 {
        clock.advance(Duration::from_secs(100));
        for entity in new {
            db.signal_record(run, "view", entity, 2.0).unwrap();
        }
    }
    let due: Vec<_> = new.iter().map(|entity| bits(&db, run, entity)).collect();
    db.close().unwrap();
    type Read = fn(&Database, Run);
    let reads: [Read; 5] = [
        |_, _| {},
        |db, run| assert!(db.signal_score(run, "view", "e02000").unwrap() > 6.0),
        |db, run| {
            let all: Vec<_> = db.view().unwrap().signal_scan(run, "view").unwrap().collect();
            assert_eq!(all.len(), 4002);
            let counts = all.iter().map(|row| row.as_ref().unwrap().1.count);
            assert_eq!(counts.sum::<u64>(), 4000 + 15);
        },
        |db, run| {
            let view = db.view().unwrap();
            let (entity, signal) =
                view.signal_scan(run, "view").unwrap().next_back().unwrap().unwrap();
            assert_eq!((entity.as_slice(), signal.count), (&b"z"[..], 3));
            let last = view.entries(run).filter_map(Result::ok).last();
            assert!(matches!(last, Some(Entry::Signal { entity, .. }) if entity == b"z"));
        },
        |db, _| {
            db.checkpoint().unwrap();
        },
    ];
    for read in reads {
        let db = Database::builder(dir.path())
            .config(config().manual_checkpoints())
            .clock(clock.clone())
            .without_threads()
            .open()
            .unwrap();
        let run = db.resolve_run("r").unwrap();
        read(&db, run);
        let found: Vec<_> = new.iter().map(|entity| bits(&db, run, entity)).collect();
        assert_eq!(found, due);
        db.signal_record(run, "other", "e", 1.0).unwrap();
        db.close().unwrap();
    }
    let db = open(dir.path(), &clock, config());
    db.wait_loaded().unwrap();
    let run = db.resolve_run("r").unwrap();
    let found: Vec<_> = new.iter().map(|entity| bits(&db, run, entity)).collect();
    assert_eq!(found, due);
    assert_eq!(db.signal_count(run, "other", "e", Window::AllTime).unwrap(), 5);
}

/// An observation finds what the snapshot has of its signal, though nobody has read it yet.
#[test]
fn an_observation_comes_on_top_of_what_is_not_loaded_yet() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let open = || {
        let config = DatabaseConfig::buffered().manual_checkpoints();
        let db = Database::builder(dir.path()).config(config).clock(clock.clone());
        db.without_threads().open().unwrap()
    };
    let db = open();
    let run = db.create_run("r").unwrap();
    for entity in ["a", "b"] {
        db.signal_record(run, "view", entity, 1.0).unwrap();
    }
    db.checkpoint().unwrap();
    db.close().unwrap();
    for count in 2..5 {
        let db = open();
        let run = db.resolve_run("r").unwrap();
        db.signal_record(run, "view", "a", 1.0).unwrap();
        db.transaction(|tx| tx.signal_record(run, "view", "b", 1.0)).unwrap();
        for entity in ["a", "b"] {
            let found = db.signal_count(run, "view", entity, Window::AllTime).unwrap();
            assert_eq!(found, count, "{entity}");
        }
        db.close().unwrap();
    }
}

/// The rows of a damaged snapshot come from the older one and the log, deltas folded again.
#[test]
fn a_damaged_snapshot_is_rebuilt_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let db = open(dir.path(), &clock, DatabaseConfig::buffered());
    let run = db.create_run("r").unwrap();
    let record = |weight: f64| {
        clock.advance(Duration::from_secs(500));
        db.transaction(|tx| {
            (0..3000).try_for_each(|n| tx.signal_record(run, "view", format!("e{n}"), weight))
        })
        .unwrap();
        db.signal_record(run, "view", "e7", weight).unwrap();
    };
    record(0.1);
    db.checkpoint().unwrap();
    record(0.7);
    record(0.2);
    db.checkpoint().unwrap();
    record(0.3);
    let all = |db: &Database, run| {
        let signals = db.view().unwrap().signal_scan(run, "view").unwrap();
        signals.collect::<Result<Vec<_>, _>>().unwrap()
    };
    let due = all(&db, run);
    assert_eq!(due.len(), 3000);
    db.close().unwrap();
    let mut snapshots: Vec<_> = std::fs::read_dir(dir.path().join("SNAPSHOTS"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    snapshots.sort();
    let newest = snapshots.last().unwrap();
    let mut bytes = std::fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(newest, bytes).unwrap();

    let db = open(dir.path(), &clock, DatabaseConfig::buffered());
    db.wait_loaded().unwrap();
    assert_eq!(db.stats().unwrap().load.rebuilt, 1);
    assert_eq!(all(&db, db.resolve_run("r").unwrap()), due);
}

#[derive(Debug, Clone)]
enum Step {
    Observe(u8, i64, f64),
    Together(Vec<(u8, i64, f64)>),
    Pass(u64),
    Checkpoint,
    Compact,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let observation = || (0..3u8, -100_000_000..4_000_000_000i64, 0.1..10.0f64);
    prop_oneof![
        6 => observation().prop_map(|(entity, ago, weight)| Step::Observe(entity, ago, weight)),
        2 => prop::collection::vec(observation(), 1..6).prop_map(Step::Together),
        4 => (0..4_000_000_000u64).prop_map(Step::Pass),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Compact),
        2 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The formula, over everything ever observed, to six decimals.
    #[test]
    fn a_score_is_what_the_formula_says_whatever_happens_in_between(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let clock = clock();
        let config = DatabaseConfig::buffered;
        let mut db = open(dir.path(), &clock, config());
        let mut run = db.create_run("r").unwrap();
        let mut seen: [Vec<(u64, f64)>; 3] = Default::default();
        let mut now = START_US;
        for step in steps {
            let observe = |tx: &mut steadfast_engine::Transaction, (entity, ago, weight): (u8, i64, f64)| {
                let time = at(now.checked_add_signed(-ago).unwrap());
                tx.signal_record_at(run, "view", [entity], weight, time)
            };
            match step {
                Step::Observe(entity, ago, weight) => {
                    db.transaction(|tx| observe(tx, (entity, ago, weight))).unwrap();
                    seen[usize::from(entity)].push((now.checked_add_signed(-ago).unwrap(), weight));
                }
                Step::Together(all) => {
                    db.transaction(|tx| all.iter().try_for_each(|one| observe(tx, *one))).unwrap();
                    for (entity, ago, weight) in all {
                        let time = now.checked_add_signed(-ago).unwrap();
                        seen[usize::from(entity)].push((time, weight));
                    }
                }
                Step::Pass(us) => {
                    clock.advance(Duration::from_micros(us));
                    now += us;
                }
                Step::Checkpoint => drop(db.checkpoint().unwrap()),
                Step::Compact => drop(db.compact(CompactMode::Full).unwrap()),
                Step::Reopen => {
                    let before: Vec<_> =
                        (0..3u8).map(|entity| db.signal(run, "view", [entity]).unwrap()).collect();
                    db.close().unwrap();
                    db = open(dir.path(), &clock, config());
                    run = db.resolve_run("r").unwrap();
                    let after: Vec<_> =
                        (0..3u8).map(|entity| db.signal(run, "view", [entity]).unwrap()).collect();
                    prop_assert_eq!(before, after);
                }
            }
        }
        for entity in 0..3u8 {
            let half_life = 7.0 * 24.0 * 3600.0 * 1e6;
            let visible = || seen[usize::from(entity)].iter().filter(|(time, _)| *time <= now);
            let due: f64 =
                visible().map(|(time, weight)| weight * (-((now - time) as f64) / half_life).exp2()).sum();
            let found = db.signal_score(run, "view", [entity]).unwrap();
            prop_assert!((due - found).abs() < 1e-6, "{found}, due {due}");
            let count = db.signal_count(run, "view", [entity], Window::AllTime).unwrap();
            prop_assert_eq!(count, visible().count() as u64);
        }
    }
}
