//! What an observation of a signal costs beside a put, what reading a score costs, and what cohorts,
//! collections and engagements cost.
//!
//! `cargo bench --bench signals`.

mod support;

use std::cell::LazyCell;
use std::hint::black_box;

use criterion::Criterion;
use steadfast::{DatabaseConfig, Timestamp};

use support::clock::{time, time_shared};
use support::data;
use support::ours::Ours;
use support::scratch::Scratch;
use support::setup::{self, plural, sized};
use support::table::{Aims, SHOWN, Table};

const PUT: &str = "put";
const RECORD: &str = "signal-record";
const GET: &str = "get";
const SCORE: &str = "score-hot";
const SCORE_AT: &str = "score-hot, at a time that is given";
const SCORE_RANDOM: &str = "score-random";
/// Nanoseconds of a score that was read a moment ago.
const SCORE_NS: f64 = 100.0;

/// Entities that are read while hot.
const HOT: u64 = 64;

fn main() {
    let mut c = setup::criterion();
    for threads in [1, 2] {
        record(&mut c, threads);
    }
    scores(&mut c);
    derived(&mut c);
    members(&mut c);
    c.final_summary();
}

/// One hot key, that every thread writes.
fn record(c: &mut Criterion, threads: u64) {
    let scratch = Scratch::new("signals-record");
    let ours = LazyCell::new(|| Ours::open(&scratch.join("db"), DatabaseConfig::buffered()));
    let put = |ours: &Ours, n| time_shared(threads, n, |_| || ours.put(7));
    let mut table = Table::new(c, &format!("signals/record-{threads}-thread{}", plural(threads)));
    table.row(PUT, 1, || &*ours, |ours, n, _| put(ours, n));
    table.row(
        RECORD,
        1,
        || &*ours,
        |ours, n, notes| {
            notes.note_rate(PUT, n, put(ours, n));
            time_shared(threads, n, |_| {
                || drop(ours.db.signal_record(ours.run, "view", "hot", 1.0).expect("it commits"))
            })
        },
    );
    let title = format!("buffered, {threads} thread{}, one hot key", plural(threads));
    table.print(&title, "commits/s", &[(PUT, &[]), (RECORD, &[(PUT, 0.7)])]);
}

/// Scores of a million entities.
fn scores(c: &mut Criterion) {
    const READS: u64 = 1000;
    let entities = sized(1_000_000, 10_000);
    let ours = LazyCell::new(|| {
        let ours = Ours::in_memory();
        for from in (0..entities).step_by(1000) {
            let observe = |tx: &mut steadfast::Transaction| {
                (from..(from + 1000).min(entities)).try_for_each(|id| {
                    tx.kv_put(ours.run, data::key(id), 1)?;
                    tx.signal_record(ours.run, "view", data::key(id), 1.0)
                })
            };
            ours.db.transaction(observe).expect("it commits");
        }
        ours
    });
    // Without a time, what is read has to ask the clock for it.
    let read = |ours: &Ours, n: u64, of: u64, at: Option<Timestamp>| {
        let mut ids = fastrand::Rng::new();
        time(n * READS, || {
            let entity = data::key(ids.u64(..of));
            let score = match at {
                None => ours.db.signal_score(ours.run, "view", entity),
                Some(at) => ours.db.signal_score_at(ours.run, "view", entity, at),
            };
            black_box(score.expect("it is there"));
        })
    };
    let mut table = Table::new(c, "signals/score");
    table.row(
        GET,
        READS,
        || &*ours,
        |ours, n, _| {
            let mut ids = fastrand::Rng::new();
            time(n * READS, || {
                let key = data::key(ids.u64(..HOT));
                black_box(ours.db.kv_record(ours.run, key).expect("it is there"));
            })
        },
    );
    table.row(SCORE, READS, || &*ours, |ours, n, _| read(ours, n, HOT, None));
    table.row(SCORE_AT, READS, || &*ours, |ours, n, _| read(ours, n, HOT, Some(ours.view().now())));
    table.row(SCORE_RANDOM, READS, || &*ours, |ours, n, _| read(ours, n, entities, None));
    let beside_get: Aims<'_> = &[(GET, SHOWN)];
    let rows =
        [(GET, &[][..]), (SCORE, beside_get), (SCORE_AT, beside_get), (SCORE_RANDOM, beside_get)];
    let title = format!("decayed scores, {entities} entities, 1 thread");
    let notes = table.print(&title, "reads/s", &rows);
    for name in [SCORE, SCORE_AT] {
        if let Some(rate) = notes.figure(name) {
            let ns = 1e9 / rate;
            println!("  {name}: {ns:.0} ns, aim < {SCORE_NS} ns");
        }
    }
}

/// What an observation costs whose entity is in a cohort, and one engagement.
fn derived(c: &mut Criterion) {
    const PLAIN: &str = "signal-record-in-txn";
    const IN_COHORT: &str = "cohort-record";
    const ENGAGE: &str = "engage";
    let scratch = Scratch::new("signals-derived");
    let open = |name: &str| Ours::open(&scratch.join(name), DatabaseConfig::buffered());
    let plain = LazyCell::new(|| open("plain"));
    let ours = LazyCell::new(|| {
        let ours = open("db");
        let adults = steadfast::Predicate::ge("age", 18);
        ours.db.define_cohort("adults", 1, &adults).expect("it commits");
        let attributes = [("age".to_owned(), 36.into()), ("country".to_owned(), "fr".into())];
        ours.db.attributes_set(ours.run, "hot", attributes.into()).expect("it commits");
        ours
    });
    let record = |ours: &Ours, n| {
        let observe =
            |tx: &mut steadfast::Transaction| tx.signal_record(ours.run, "view", "hot", 1.0);
        time(n, || drop(ours.db.transaction(observe).expect("it commits")))
    };
    let mut table = Table::new(c, "signals/derived");
    table.row(PLAIN, 1, || &*plain, |plain, n, _| record(plain, n));
    table.row(
        IN_COHORT,
        1,
        || &*ours,
        |ours, n, notes| {
            notes.note_rate(PLAIN, n, record(&plain, n));
            record(ours, n)
        },
    );
    table.row(
        ENGAGE,
        1,
        || &*ours,
        |ours, n, notes| {
            notes.note_rate(PLAIN, n, record(&plain, n));
            let mut ids = fastrand::Rng::with_seed(7);
            time(n, || {
                let (actor, item) = (data::key(ids.u64(..1000)), data::key(ids.u64(..10_000)));
                drop(ours.db.engage(ours.run, "graph", actor, item).expect("it commits"));
            })
        },
    );
    let rows = [(PLAIN, &[][..]), (IN_COHORT, &[(PLAIN, SHOWN)]), (ENGAGE, &[(PLAIN, SHOWN)])];
    table.print("buffered, 1 thread, a transaction each", "commits/s", &rows);
}

/// Whether an item is in a collection of a million, half of the time it is.
fn members(c: &mut Criterion) {
    const READS: u64 = 1000;
    const CONTAINS: &str = "contains";
    let items = sized(1_000_000, 10_000);
    let ours = LazyCell::new(|| {
        let ours = Ours::in_memory();
        for from in (0..items).step_by(1000) {
            let add = |tx: &mut steadfast::Transaction| {
                (from..(from + 1000).min(items)).try_for_each(|id| {
                    tx.kv_put(ours.run, data::key(id), 1)?;
                    tx.collection_add(ours.run, "set", data::key(id)).map(drop)
                })
            };
            ours.db.transaction(add).expect("it commits");
        }
        ours
    });
    let get = |ours: &Ours, n: u64| {
        let mut ids = fastrand::Rng::new();
        time(n * READS, || {
            let key = data::key(ids.u64(..2 * items));
            black_box(ours.db.kv_record(ours.run, key).expect("it answers"));
        })
    };
    let mut table = Table::new(c, "signals/collection");
    table.row(GET, READS, || &*ours, |ours, n, _| get(ours, n));
    table.row(
        CONTAINS,
        READS,
        || &*ours,
        |ours, n, notes| {
            notes.note_rate(GET, n * READS, get(ours, n));
            let mut ids = fastrand::Rng::new();
            time(n * READS, || {
                let key = data::key(ids.u64(..2 * items));
                black_box(ours.db.collection_contains(ours.run, "set", key).expect("it answers"));
            })
        },
    );
    let title = format!("a collection of {items} items, 1 thread");
    table.print(&title, "reads/s", &[(GET, &[]), (CONTAINS, &[(GET, SHOWN)])]);
}
