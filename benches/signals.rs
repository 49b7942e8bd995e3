//! What an observation of a signal costs beside a put, and what reading a score costs.
//!
//! `cargo bench --bench signals`.

mod support;

use std::cell::LazyCell;
use std::hint::black_box;

use criterion::Criterion;
use steadfast::DatabaseConfig;

use support::clock::{time, time_shared};
use support::data;
use support::ours::Ours;
use support::scratch::Scratch;
use support::setup::{self, plural, sized};
use support::table::{SHOWN, Table};

const PUT: &str = "put";
const RECORD: &str = "signal-record";
const GET: &str = "get";
const SCORE: &str = "score-hot";
const SCORE_RANDOM: &str = "score-random";

/// Entities that are read while hot.
const HOT: u64 = 64;

fn main() {
    let mut c = setup::criterion();
    for threads in [1, 2] {
        record(&mut c, threads);
    }
    scores(&mut c);
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
    let read = |ours: &Ours, n: u64, of: u64| {
        let mut ids = fastrand::Rng::new();
        time(n * READS, || {
            let entity = data::key(ids.u64(..of));
            let score = ours.db.signal_score(ours.run, "view", entity);
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
    table.row(SCORE, READS, || &*ours, |ours, n, _| read(ours, n, HOT));
    table.row(SCORE_RANDOM, READS, || &*ours, |ours, n, _| read(ours, n, entities));
    let rows = [(GET, &[][..]), (SCORE, &[(GET, SHOWN)]), (SCORE_RANDOM, &[(GET, SHOWN)])];
    table.print(&format!("decayed scores, {entities} entities, 1 thread"), "reads/s", &rows);
}
