//! The checker itself: bad histories made by hand, each named as what it is; good ones from a
//! seed, and the same with one thing made wrong.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use steadfast_engine::{Database, Version};

use super::*;

/// Keys `x`, `y`, `z` of version 10, and what follows.
fn history(txns: Vec<Txn>) -> History {
    let contents = ["x", "y", "z"].map(|key| (key.to_owned(), seen(10, &format!("{key}0"))));
    let initial = State { version: Version(10), contents: contents.into() };
    History { initial, txns, promises: Vec::new() }
}

fn seen(version: u64, value: &str) -> Seen {
    Seen { version: Version(version), value: value.to_owned() }
}

/// A transaction at a view, in real time.
fn at(snapshot: u64, time: Range<u64>) -> Txn {
    Txn {
        who: "somebody".into(),
        invoked: time.start,
        ended: Some(time.end),
        snapshot: Some(Version(snapshot)),
        reads: Vec::new(),
        writes: BTreeMap::new(),
        outcome: Outcome::ReadOnly,
    }
}

impl Txn {
    fn saw(mut self, key: &str, version: u64, value: &str) -> Self {
        self.reads.push(Read::Key { key: key.into(), found: Some(seen(version, value)) });
        self
    }

    fn saw_nothing(mut self, key: &str) -> Self {
        self.reads.push(Read::Key { key: key.into(), found: None });
        self
    }

    fn saw_all(mut self, rows: &[(&str, u64, &str)]) -> Self {
        let found = rows.iter().map(|(key, at, value)| ((*key).to_owned(), seen(*at, value)));
        let (from, own) = (String::new(), Default::default());
        self.reads.push(Read::Range { from, to: None, own, found: found.collect() });
        self
    }

    fn put(mut self, key: &str, value: &str) -> Self {
        self.writes.insert(key.into(), Some(value.into()));
        self
    }

    fn delete(mut self, key: &str) -> Self {
        self.writes.insert(key.into(), None);
        self
    }

    fn committed(mut self, version: u64) -> Self {
        self.outcome = Outcome::Committed(Version(version));
        self
    }

    fn failed(mut self) -> Self {
        self.outcome = Outcome::Failed;
        self
    }

    fn in_flight(mut self) -> Self {
        (self.outcome, self.ended) = (Outcome::Unknown(None), None);
        self
    }

    /// In flight, and its version was told.
    fn in_flight_as(mut self, version: u64) -> Self {
        (self.outcome, self.ended) = (Outcome::Unknown(Some(Version(version))), None);
        self
    }
}

const ALL: [(&str, u64, &str); 3] = [("x", 10, "x0"), ("y", 10, "y0"), ("z", 10, "z0")];

fn left(version: u64, rows: &[(&str, u64, &str)]) -> State {
    let rows = rows.iter().map(|(key, at, value)| ((*key).to_owned(), seen(*at, value)));
    State { version: Version(version), contents: rows.collect() }
}

fn names(found: Result<Checked, Violations>) -> Vec<&'static str> {
    found.err().map(|bad| bad.iter().map(Violation::name).collect()).unwrap_or_default()
}

#[test]
fn names_what_is_wrong_among_transactions() {
    let bad: &[(&str, Vec<Txn>)] = &[
        (
            "lost update",
            vec![
                at(10, 1..5).saw("x", 10, "x0").put("x", "a").committed(11),
                at(10, 2..6).saw("x", 10, "x0").put("x", "b").committed(12),
            ],
        ),
        (
            "write skew",
            vec![
                at(10, 1..5).saw("x", 10, "x0").saw("y", 10, "y0").put("x", "a").committed(11),
                at(10, 2..6).saw("x", 10, "x0").saw("y", 10, "y0").put("y", "b").committed(12),
            ],
        ),
        (
            "phantom",
            vec![
                at(10, 1..5).put("w", "a").committed(11),
                at(10, 2..6).saw_all(&ALL).put("count", "3").committed(12),
            ],
        ),
        (
            "phantom",
            vec![
                at(10, 1..5).delete("y").committed(11),
                at(10, 2..6).saw_all(&ALL).put("count", "3").committed(12),
            ],
        ),
        (
            "read changed before commit",
            vec![
                at(10, 1..5).put("x", "a").committed(11),
                at(10, 2..6).saw("x", 10, "x0").put("y", "b").committed(12),
            ],
        ),
        (
            "torn transaction",
            vec![
                at(10, 1..2).put("x", "a").put("y", "a").committed(11),
                at(11, 3..4).saw("x", 11, "a").saw("y", 10, "y0"),
            ],
        ),
        (
            "order against real time",
            vec![
                at(10, 1..2).put("x", "a").committed(12),
                at(10, 1..4).put("z", "c").committed(13),
                at(12, 3..4).put("y", "b").committed(11),
            ],
        ),
        (
            "stale view",
            vec![at(10, 1..2).put("x", "a").committed(11), at(10, 3..4).saw("x", 10, "x0")],
        ),
        (
            "view ahead of time",
            vec![at(11, 1..2).saw("y", 10, "y0"), at(10, 3..4).put("x", "a").committed(11)],
        ),
        (
            "stale read",
            vec![at(10, 1..2).put("x", "a").committed(11), at(11, 3..4).saw("x", 10, "x0")],
        ),
        ("stale read", vec![at(10, 1..2).saw_all(&ALL[..2])]),
        (
            "read above its view",
            vec![at(10, 1..4).put("x", "a").committed(11), at(10, 2..3).saw("x", 11, "a")],
        ),
        ("dirty read", vec![at(10, 1..4).put("x", "a").failed(), at(10, 2..3).saw("x", 11, "a")]),
        ("value from nowhere", vec![at(10, 2..3).saw("x", 10, "y0")]),
        (
            "resurrected delete",
            vec![at(10, 1..2).delete("x").committed(11), at(11, 3..4).saw("x", 10, "x0")],
        ),
        // The delete began after the read, has a version above the view, or reads above it.
        ("stale read", vec![at(10, 1..2).saw_nothing("x"), at(10, 3..9).delete("x").in_flight()]),
        (
            "stale read",
            vec![at(10, 1..9).delete("x").in_flight_as(11), at(10, 2..3).saw_nothing("x")],
        ),
        (
            "stale read",
            vec![
                at(10, 1..2).put("x", "a").committed(12),
                at(10, 1..9).delete("x").in_flight_as(11),
                at(12, 3..4).saw_nothing("x"),
            ],
        ),
        (
            "stale read",
            vec![
                at(10, 1..2).put("y", "a").committed(11),
                at(11, 3..9).delete("x").in_flight(),
                at(11, 4..5).saw_nothing("x"),
            ],
        ),
        ("stale read", vec![at(10, 1..9).saw_nothing("x").delete("x").in_flight()]),
        (
            "version reuse",
            vec![
                at(10, 1..5).put("x", "a").committed(11),
                at(10, 2..6).put("y", "b").committed(11),
            ],
        ),
        ("version reuse", vec![at(10, 1..5).put("x", "a").committed(10)]),
        (
            "indistinct writes",
            vec![
                at(10, 1..9).put("x", "a").in_flight(),
                at(10, 2..9).put("x", "a").in_flight(),
                at(11, 3..4).saw("x", 11, "a"),
            ],
        ),
        (
            "applied twice",
            vec![
                at(10, 1..9).put("x", "a").in_flight(),
                at(11, 3..4).saw("x", 11, "a"),
                at(12, 5..6).saw("x", 12, "a"),
            ],
        ),
    ];
    for (name, txns) in bad {
        let found = check(&history(txns.clone()));
        assert_eq!(names(found.clone()).first(), Some(name), "{txns:?}");
        let text = found.unwrap_err().to_string();
        assert!(text.starts_with(&format!("{name}: ")) && text.contains("\n  T"), "{text}");
    }
}

#[test]
fn a_delete_in_flight_explains_what_is_gone_for_those_who_can_have_seen_it() {
    let good = [
        vec![at(10, 1..9).delete("x").in_flight(), at(11, 2..3).saw_nothing("x")],
        // The first read did not see it and the second did.
        vec![
            at(10, 1..2).put("y", "a").committed(11),
            at(11, 3..6).saw("x", 10, "x0"),
            at(11, 4..9).delete("x").in_flight(),
            at(12, 5..8).saw_nothing("x"),
        ],
        vec![at(10, 1..9).delete("x").in_flight_as(11), at(11, 2..3).saw_nothing("x")],
        // Of two, one came too late.
        vec![
            at(10, 1..9).delete("x").in_flight(),
            at(11, 2..3).saw_nothing("x"),
            at(11, 4..9).delete("x").in_flight(),
        ],
    ];
    for txns in good {
        assert_eq!(names(check(&history(txns.clone()))), [""; 0], "{txns:?}");
    }
}

#[test]
fn what_was_recovered_has_the_version_of_a_commit() {
    let deletes = |version| at(10, 1..2).delete("x").in_flight_as(version);
    let bad = [
        // No commit at all; none of that version; one above it, that is not there.
        (vec![], left(11, &ALL)),
        (
            vec![at(10, 1..2).put("x", "a").committed(11)],
            left(12, &[("x", 11, "a"), ALL[1], ALL[2]]),
        ),
        (vec![at(10, 1..2).put("x", "a").committed(12)], left(11, &ALL)),
        // What the newest commit wrote, or deleted, is not missing.
        (vec![at(10, 1..2).put("x", "a").in_flight()], left(11, &ALL)),
        (vec![at(10, 1..2).delete("x").in_flight()], left(11, &ALL)),
        // It reads above that version, or has another.
        (vec![at(11, 1..2).delete("x").in_flight()], left(11, &ALL[1..])),
        (vec![deletes(12)], left(11, &ALL[1..])),
        // What failed, and what only read, has none.
        (vec![at(10, 1..2).delete("x").failed()], left(11, &ALL)),
        (vec![at(10, 1..2).in_flight()], left(11, &ALL)),
        (vec![], left(9, &ALL)),
    ];
    for (txns, recovered) in bad {
        let found = check_recovered(&history(txns.clone()), Crash::Kill, &recovered);
        let names = names(found);
        assert!(names.contains(&"version from nowhere"), "{txns:?} {recovered:?}: {names:?}");
    }
    let good = [
        (vec![], left(10, &ALL)),
        (vec![deletes(11)], left(11, &ALL[1..])),
        (vec![at(10, 1..2).delete("x").in_flight()], left(11, &ALL[1..])),
        // Of a key that was not there: only the version tells of it.
        (vec![at(10, 1..2).delete("w").in_flight()], left(11, &ALL)),
        (vec![at(10, 1..2).put("x", "a").in_flight()], left(11, &[("x", 11, "a"), ALL[1], ALL[2]])),
    ];
    for (txns, recovered) in good {
        let found = check_recovered(&history(txns.clone()), Crash::Kill, &recovered);
        assert_eq!(names(found), [""; 0], "{txns:?} {recovered:?}");
    }
}

#[test]
fn names_what_is_wrong_after_a_crash() {
    let two = || at(10, 1..2).put("x", "a").put("y", "a").committed(11);
    let flying = || at(11, 3..4).put("y", "b").put("z", "b").in_flight();
    let after = [("x", 11, "a"), ("y", 11, "a"), ("z", 10, "z0")];
    let bad: &[(&str, Vec<Txn>, State)] = &[
        ("acknowledged lost", vec![two()], left(10, &ALL)),
        ("acknowledged lost", vec![two()], left(11, &ALL)),
        (
            "acknowledged lost",
            vec![two(), at(11, 3..4).put("z", "c").committed(12)],
            left(12, &[("x", 10, "x0"), ("y", 10, "y0"), ("z", 12, "c")]),
        ),
        ("torn transaction", vec![two()], left(11, &[("x", 11, "a"), ALL[1], ALL[2]])),
        ("resurrected delete", vec![at(10, 1..2).delete("x").committed(11)], left(11, &ALL)),
        (
            "half a transaction in flight",
            vec![two(), flying()],
            left(12, &[after[0], after[1], ("z", 12, "b")]),
        ),
        (
            "half a transaction in flight",
            vec![at(10, 1..2).delete("x").delete("y").in_flight()],
            left(11, &ALL[1..]),
        ),
        (
            "dirty read",
            vec![at(10, 1..2).put("x", "a").failed()],
            left(11, &[("x", 11, "a"), ALL[1], ALL[2]]),
        ),
        ("value from nowhere", vec![], left(11, &[("x", 11, "a"), ALL[1], ALL[2]])),
        ("value from nowhere", vec![], left(10, &ALL[1..])),
        ("read above its view", vec![two()], left(10, &after)),
    ];
    for (name, txns, recovered) in bad {
        let history = history(txns.clone());
        let found = check_recovered(&history, Crash::Kill, recovered);
        assert!(names(found.clone()).contains(name), "{name}: {found:?}");
    }
    let good: &[(Vec<Txn>, State)] = &[
        (vec![two()], left(11, &after)),
        (vec![two(), flying()], left(11, &after)),
        (vec![two(), flying()], left(12, &[after[0], ("y", 12, "b"), ("z", 12, "b")])),
        (vec![at(10, 1..2).delete("x").delete("y").in_flight()], left(11, &ALL[2..])),
        (vec![at(10, 1..2).delete("x").delete("y").in_flight()], left(10, &ALL)),
        // Either may have deleted it.
        (
            vec![
                at(10, 1..2).delete("x").in_flight(),
                at(10, 1..3).delete("x").put("y", "a").in_flight(),
            ],
            left(11, &ALL[1..]),
        ),
    ];
    for (txns, recovered) in good {
        let found = check_recovered(&history(txns.clone()), Crash::Kill, recovered);
        assert_eq!(names(found), [""; 0], "{txns:?}");
    }
}

#[test]
fn a_power_cut_may_take_what_was_not_promised_and_leaves_no_hole() {
    let mut history = history(vec![
        at(10, 1..2).put("x", "a").committed(11),
        at(11, 3..4).put("y", "b").committed(12),
        at(12, 5..6).put("z", "c").committed(13),
    ]);
    history.promises.push((5, Version(11)));
    // A version that was given, and recovered, is somebody's.
    let mut given = history.txns[0].clone();
    given = given.put("y", "a").in_flight();
    given.outcome = Outcome::Unknown(Some(Version(11)));
    let half = self::history(vec![given]);
    let found = check_recovered(&half, Crash::Kill, &left(11, &ALL));
    assert_eq!(names(found)[0], "half a transaction in flight");
    let upto = [
        left(10, &ALL),
        left(11, &[("x", 11, "a"), ALL[1], ALL[2]]),
        left(12, &[("x", 11, "a"), ("y", 12, "b"), ALL[2]]),
    ];
    let names = |state: &State| names(check_recovered(&history, Crash::PowerCut, state));
    assert_eq!(names(&upto[0]), ["acknowledged lost"]);
    assert_eq!(names(&upto[1]), [""; 0]);
    assert_eq!(names(&upto[2]), [""; 0]);
    assert_eq!(names(&left(13, &[("x", 11, "a"), ALL[1], ("z", 13, "c")])), ["hole"]);
    let killed = check_recovered(&history, Crash::Kill, &upto[2]);
    assert_eq!(killed.unwrap_err().first().name(), "acknowledged lost");
    // What was promised is known from the fifth event on, and the third commit begins there.
    assert_eq!(history.until(4).promised(), Version(10));
    assert_eq!(history.until(4).txns.len(), 2);
}

#[test]
fn a_history_cut_off_knows_nothing_that_came_later() {
    let whole = history(vec![
        at(10, 1..9).saw("x", 10, "x0").put("x", "a").committed(11),
        at(10, 2..3).saw_nothing("w"),
        at(11, 10..11).put("y", "b").committed(12),
    ]);
    let cut = whole.until(8);
    assert_eq!(cut.txns.len(), 2);
    assert_eq!(cut.txns[0].outcome, Outcome::Unknown(Some(Version(11))));
    assert!(cut.txns[0].reads.is_empty() && !cut.txns[1].reads.is_empty());
    for recovered in [left(10, &ALL), left(11, &[("x", 11, "a"), ALL[1], ALL[2]])] {
        assert_eq!(names(check_recovered(&cut, Crash::Kill, &recovered)), [""; 0]);
    }
}

#[test]
fn good_histories_are_good_and_one_wrong_thing_is_found() {
    let mut tried = BTreeMap::new();
    for seed in 0..400 {
        let good = generate(seed, 60, 12);
        let checked = check_recovered(&good.history, Crash::Kill, &good.recovered);
        let checked = checked.unwrap_or_else(|bad| panic!("seed {seed}: {bad}"));
        assert!(checked.committed > 5, "seed {seed}: {checked}");
        for kind in Damage::ALL {
            let Some(bad) = damage(&good, kind, seed) else { continue };
            *tried.entry(format!("{kind:?}")).or_insert(0) += 1;
            let found = check_recovered(&bad.history, Crash::Kill, &bad.recovered);
            assert!(found.is_err(), "seed {seed}: {kind:?} was not found");
        }
    }
    println!("{tried:?}");
    assert_eq!(tried.len(), Damage::ALL.len());
    assert!(tried.values().all(|times| *times >= 50), "{tried:?}");
}

#[test]
fn the_time_grows_with_the_history_and_not_with_its_square() {
    let time = |txns| {
        let good = generate(1, txns, 400);
        let began = Instant::now();
        let checked = check_recovered(&good.history, Crash::Kill, &good.recovered);
        let took = began.elapsed();
        println!("{}: {took:?}", checked.unwrap());
        took
    };
    let (few, many) = (time(20_000), time(200_000));
    // Ten times as many; a hundred times as long if it were the square.
    assert!(many < few * 40 + Duration::from_secs(1), "{few:?}, {many:?}");
    assert!(many < Duration::from_secs(20), "{many:?}");
}

#[test]
fn what_was_recorded_as_lines_is_the_same_history() {
    #[derive(Clone, Default)]
    struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let db = Database::in_memory().unwrap();
    let run = db.create_run("run").unwrap();
    db.kv_put(run, "a\t\n\u{7f}ü\\", "").unwrap();
    let lines = Lines::default();
    let recorder = Recorder::of(&db, run).unwrap().write_lines(lines.clone()).unwrap();
    let mut load = Load::new("a b\n", Mix::default(), 3);
    for _ in 0..100 {
        load.step(&recorder, &db, run).unwrap();
    }
    recorder.promised(Version(7));
    let mut flying = recorder.begin("flying");
    flying.write("a", Some(""));
    flying.committing();
    drop(flying);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let (read, made) = (History::from_lines(&text).unwrap(), recorder.history());
    // Times are the numbers of lines there and of events here.
    let strip = |history: &History| {
        let mut history = history.clone();
        for txn in &mut history.txns {
            (txn.invoked, txn.ended) = (0, txn.ended.map(|_| 0));
        }
        history.promises.iter_mut().for_each(|promise| promise.0 = 0);
        history
    };
    assert_eq!(strip(&read), strip(&made));
    check(&read).unwrap();
    let cut = &text[..text.len() - 1];
    assert_eq!(History::from_lines(cut).unwrap().txns.len(), read.txns.len());
    assert!(History::from_lines("begin\t7\tx\n").is_err());
}
