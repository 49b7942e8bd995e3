//! What events cost beside key-values of the same bytes: appending, reading, consuming.
//!
//! `cargo bench --bench events`.

mod support;

use std::cell::LazyCell;
use std::hint::black_box;

use criterion::Criterion;
use steadfast::{DatabaseConfig, DurabilityMode, Region, Value};

use support::clock::{time, time_shared};
use support::data::{self, COMMIT_IDS};
use support::ours::Ours;
use support::scratch::Scratch;
use support::setup::{self, plural, sized};
use support::table::{SHOWN, Table};

const PUT: &str = "kv put";
const MOVE: &str = "kv read, then put";
const APPEND: &str = "event append";
const PUT_100: &str = "kv put, 100 a transaction";
const PUT_1000: &str = "kv put, 1,000 a transaction";
const APPEND_100: &str = "event append, 100 a transaction";
const APPEND_1000: &str = "event append, 1,000 a transaction";
const SCAN: &str = "kv scan";
const READ: &str = "stream read";
const READ_BY_KIND: &str = "stream read, by a kind that none has";
const PLAIN: &str = "plain read and commit";
const CURSOR: &str = "cursor with effects";

fn main() {
    let mut c = setup::criterion();
    for threads in [1, 32] {
        append(&mut c, DurabilityMode::Strict, threads, 0.9);
    }
    append(&mut c, DurabilityMode::Buffered, 1, SHOWN);
    append_batches(&mut c);
    read(&mut c);
    consume(&mut c);
    c.final_summary();
}

/// One event a transaction; each thread to a stream of its own.
fn append(c: &mut Criterion, mode: DurabilityMode, threads: u64, aim: f64) {
    let scratch = Scratch::new("events-append");
    let open = |name: &str| Ours::open(&scratch.join(name), DatabaseConfig::new(mode));
    let keys = LazyCell::new(|| open("keys"));
    let events = LazyCell::new(|| open("events"));
    let mode = if mode == DurabilityMode::Strict { "strict" } else { "buffered" };
    let name = format!("{mode}, {threads} thread{}", plural(threads));

    let mut table = Table::new(c, &format!("events/append-{mode}-{threads}"));
    let put = |ours: &Ours, n| {
        time_shared(threads, n, |_| {
            let mut ids = fastrand::Rng::new();
            move || ours.put(ids.u64(..COMMIT_IDS))
        })
    };
    table.row(PUT, 1, || &*keys, |ours, n, _| put(ours, n));
    table.row(
        MOVE,
        1,
        || &*keys,
        |ours, n, _| {
            time_shared(threads, n, |thread| {
                let (mut ids, key) = (fastrand::Rng::new(), data::key(thread));
                move || {
                    let value = data::value(ids.u64(..COMMIT_IDS));
                    let step = |tx: &mut steadfast::Transaction| {
                        black_box(tx.kv_get(ours.run, key)?);
                        tx.kv_put(ours.run, key, &value)
                    };
                    ours.db.transaction(step).expect("it commits");
                }
            })
        },
    );
    table.row(
        APPEND,
        1,
        || (&*events, &*keys),
        |(ours, keys), n, notes| {
            // In turns with what it is held against: the disk has its moods.
            notes.note_rate(PUT, n, put(keys, n));
            time_shared(threads, n, |thread| {
                let stream = format!("stream-{thread:04}");
                let mut ids = fastrand::Rng::new();
                move || {
                    let payload = Value::from(&data::value(ids.u64(..COMMIT_IDS)));
                    ours.db.event_append(ours.run, &stream, payload).expect("it commits");
                }
            })
        },
    );
    table.print(
        &name,
        "commits/s",
        &[(PUT, &[][..]), (MOVE, &[]), (APPEND, &[(PUT, aim), (MOVE, SHOWN)])],
    );
}

/// Events a second, a hundred and a thousand a transaction, all to one stream.
fn append_batches(c: &mut Criterion) {
    let scratch = Scratch::new("events-batches");
    let ours = LazyCell::new(|| Ours::open(scratch.path(), DatabaseConfig::buffered()));
    let mut table = Table::new(c, "events/append-batches");
    let mut rows = Vec::new();
    for (batch, append, put) in [(100, APPEND_100, PUT_100), (1000, APPEND_1000, PUT_1000)] {
        table.row(
            put,
            batch,
            || &*ours,
            |ours, n, _| {
                let mut ids = fastrand::Rng::new();
                time(n, || {
                    let step = |tx: &mut steadfast::Transaction| {
                        (0..batch).try_for_each(|_| {
                            let id = ids.u64(..COMMIT_IDS);
                            tx.kv_put(ours.run, data::key(id), &data::value(id))
                        })
                    };
                    ours.db.transaction(step).expect("it commits");
                })
            },
        );
        table.row(
            append,
            batch,
            || &*ours,
            |ours, n, _| {
                let mut ids = fastrand::Rng::new();
                time(n, || {
                    let step = |tx: &mut steadfast::Transaction| {
                        (0..batch).try_for_each(|_| {
                            let payload = &data::value(ids.u64(..COMMIT_IDS));
                            tx.event_append(ours.run, "stream", payload).map(drop)
                        })
                    };
                    ours.db.transaction(step).expect("it commits");
                })
            },
        );
        rows.push((put, append));
    }
    let lines: Vec<_> = rows.iter().map(|(put, append)| (*append, [(*put, SHOWN)])).collect();
    let lines: Vec<(&str, &[(&str, f64)])> = (rows.iter().zip(&lines))
        .flat_map(|((put, _), (append, aims))| [(*put, &[][..]), (*append, &aims[..])])
        .collect();
    table.print("buffered, 1 thread, many a transaction", "events/s", &lines);
}

fn fill(ours: &Ours, rows: u64) {
    for first in (0..rows).step_by(1000) {
        let step = |tx: &mut steadfast::Transaction| {
            for id in first..(first + 1000).min(rows) {
                tx.kv_put(ours.run, data::key(id), &data::value(id))?;
                tx.event_append(ours.run, "stream", &data::value(id))?;
            }
            Ok(())
        };
        ours.db.transaction(step).expect("it commits");
    }
}

/// All events of a stream, decoded, beside as many key-values.
fn read(c: &mut Criterion) {
    let rows = sized(1_000_000, 1_000);
    let ours = LazyCell::new(|| {
        let ours = Ours::in_memory();
        fill(&ours, rows);
        ours
    });
    let mut table = Table::new(c, "events/read");
    table.row(
        SCAN,
        rows,
        || ours.view(),
        |view, n, _| {
            time(n, || {
                let scan = view.kv_scan(ours.run, b"").expect("it reads");
                let mut read = 0;
                for row in scan {
                    black_box(row.expect("it reads"));
                    read += 1;
                }
                assert_eq!(read, rows);
            })
        },
    );
    table.row(
        READ,
        rows,
        || ours.view(),
        |view, n, _| {
            time(n, || {
                let events = view.event_read(ours.run, "stream", 0).expect("it reads");
                let mut read = 0;
                for event in events {
                    black_box(event.expect("it reads"));
                    read += 1;
                }
                assert_eq!(read, rows);
            })
        },
    );
    table.row(
        READ_BY_KIND,
        rows,
        || ours.view(),
        |view, n, _| {
            time(n, || {
                let events = view.event_read(ours.run, "stream", 0).expect("it reads");
                assert_eq!(events.of_kind("none").count(), 0);
            })
        },
    );
    let lines = [(SCAN, &[][..]), (READ, &[(SCAN, 0.7)]), (READ_BY_KIND, &[(SCAN, SHOWN)])];
    table.print(&format!("{rows} rows, in memory"), "rows/s", &lines);
}

/// Events with an effect each, a hundred a transaction.
fn consume(c: &mut Criterion) {
    const BATCH: u64 = 100;
    let rows = sized(100_000, 1_000);
    let scratch = Scratch::new("events-cursor");
    let ours = LazyCell::new(|| {
        let ours = Ours::open(scratch.path(), DatabaseConfig::buffered());
        fill(&ours, rows);
        ours
    });
    let mut table = Table::new(c, "events/cursor");
    table.row(
        PLAIN,
        rows,
        || &*ours,
        |ours, n, _| {
            time(n, || {
                let mut from = 0;
                while from < rows {
                    let batch = |tx: &mut steadfast::Transaction| {
                        let view = ours.view();
                        let range = from..from + BATCH;
                        for event in view.event_read_range(ours.run, "stream", range)? {
                            let event = event?;
                            tx.kv_put(ours.run, data::key(event.seq), event.payload)?;
                        }
                        Ok(())
                    };
                    ours.db.transaction(batch).expect("it commits");
                    from += BATCH;
                }
            })
        },
    );
    table.row(
        CURSOR,
        rows,
        || &*ours,
        |ours, n, _| {
            let region = Region::all().stream("stream");
            let cursor = ours.db.cursor(ours.run, "bench", region).expect("the run is there");
            time(n, || {
                cursor.rewind().expect("it commits");
                let step = |tx: &mut steadfast::Transaction, one: &steadfast::StreamEvent| {
                    tx.kv_put(ours.run, data::key(one.event.seq), one.event.payload.clone())
                };
                while cursor.process(100, step).expect("it commits") > 0 {}
            })
        },
    );
    let lines = [(PLAIN, &[][..]), (CURSOR, &[(PLAIN, 0.8)])];
    table.print(&format!("{rows} events, {BATCH} a transaction, buffered"), "events/s", &lines);
}
