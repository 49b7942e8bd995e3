//! Reads: one process a store loads all rows in random order, lets it come to rest, and reads
//! in every way.

use std::hint::black_box;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::clock::percentile;
use crate::data::{self, GROUP_KEYS, KeyBytes};
use crate::report::{self, Column, Table};
use crate::scratch::Scratch;
use crate::store::{self, BTREEMAP, DECODED, Level, Opening, Reader, Row, Store};
use crate::{Plan, process};

const LOAD_PUTS: usize = 1000;
const MIB: f64 = 1048576.0;

const fn column(figure: &'static str, heading: &'static str, unit: f64) -> Column {
    Column { figure, heading, unit }
}

const TABLES: &[Table<'_>] = &[
    Table {
        title: "point reads, 1 thread",
        columns: &[column("get 1", "reads/s", 1.0)],
        aims: &[("lmdb", 4.0), ("redb", 4.0)],
    },
    Table {
        title: "point reads, 2 threads",
        columns: &[column("get 2", "reads/s", 1.0), column("scaling", "× 1 thread", 1.0)],
        aims: &[("lmdb", 4.0)],
    },
    Table {
        title: "point reads, 1 thread, newest each",
        columns: &[column("get newest", "reads/s", 1.0)],
        aims: &[],
    },
    Table {
        title: "the same, another thread overwriting",
        columns: &[
            column("beside", "reads/s", 1.0),
            column("beside p50", "p50 ns", 1.0),
            column("beside p99", "p99 ns", 1.0),
            column("beside p99.9", "p99.9 ns", 1.0),
            column("beside writes", "writes/s", 1.0),
        ],
        aims: &[],
    },
    Table {
        title: "full scan",
        columns: &[column("scan", "rows/s", 1.0)],
        aims: &[("lmdb", 1.2), ("redb", 1.2)],
    },
    Table {
        title: "prefix scans of 100 rows",
        columns: &[column("prefix", "scans/s", 1.0)],
        aims: &[("lmdb", 1.3), ("redb", 1.3)],
    },
    Table {
        title: "loading, 1000 puts a transaction",
        columns: &[
            column("load", "rows/s", 1.0),
            column("anonymous", "memory MiB", MIB),
            column("rss", "+ mapped MiB", MIB),
            column("over", "B/row over", 1.0),
        ],
        aims: &[],
    },
];

/// Measures all ways of reading and prints their tables.
pub(crate) fn measure(plan: &Plan) {
    let contenders = [&[BTREEMAP, DECODED], store::NAMES].concat();
    let (rows, seconds) = (plan.rows.to_string(), plan.seconds.to_string());
    println!("\nreads of {rows} rows");
    let measured = report::measure(plan, &contenders, |contender| {
        let scratch = Scratch::new("peers-reads");
        let dir = scratch.path().to_str().expect("a plain name");
        process::run(&["reads", contender, dir, &rows, &seconds])
    });
    for table in TABLES {
        measured.print(table);
    }
}

/// `[contender, dir, rows, seconds]`
pub(crate) fn child(task: &[String]) {
    let rows: u64 = task[2].parse().expect("a number");
    let lasting = Duration::from_secs_f64(task[3].parse().expect("a number"));
    let keys = data::shuffled_keys(rows, 2);
    let opening = Opening { dir: Path::new(&task[1]), level: Level::Buffered, keep_log: false };
    let store = store::open(&task[0], opening);
    load(&*store, rows);
    let one = gets(&*store, &keys, 1, lasting, |reader, key| reader.get(key));
    let two = gets(&*store, &keys, 2, lasting, |reader, key| reader.get(key));
    let newest = gets(&*store, &keys, 1, lasting, |reader, key| reader.get_newest(key));
    process::report("get 1", one);
    process::report("get 2", two);
    process::report("scaling", two / one);
    process::report("get newest", newest);
    scans(&*store, rows, lasting);
    gets_beside_a_writer(&*store, &keys, rows, lasting);
    // Not closed: what closing costs is not asked here, and the folder goes anyway.
    std::mem::forget(store);
}

/// Fills the store in random order, and says what that took.
fn load(store: &dyn Store, rows: u64) {
    let ids = data::shuffled(rows, 1);
    let (rss, anonymous) = (process::rss(), process::rss_anonymous());
    let mut batch: Vec<Row> = Vec::with_capacity(LOAD_PUTS);
    let start = Instant::now();
    for ids in ids.chunks(LOAD_PUTS) {
        batch.clear();
        batch.extend(ids.iter().map(|id| (data::key((*id).into()), data::value((*id).into()))));
        store.commit(&batch);
    }
    process::report("load", rows as f64 / start.elapsed().as_secs_f64());
    store.settle();
    // What a store maps counts once it was read.
    assert_eq!(store.reader().scan(), (rows, data::touched_sum(rows)), "every row is there");
    let anonymous = process::rss_anonymous() - anonymous;
    process::report("anonymous", anonymous);
    process::report("rss", process::rss() - rss);
    process::report("over", anonymous / rows as f64 - data::ROW_BYTES as f64);
}

/// Random keys that are there, by each thread with a reader of its own; reads a second.
fn gets(
    store: &dyn Store,
    keys: &[KeyBytes],
    threads: usize,
    lasting: Duration,
    get: impl Fn(&mut dyn Reader, &KeyBytes) -> Option<u64> + Sync,
) -> f64 {
    let ready = Barrier::new(threads);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..threads)
            .map(|number| {
                let (ready, get) = (&ready, &get);
                scope.spawn(move || {
                    let mut reader = store.reader();
                    let mut keys = keys.iter().cycle().skip(number * keys.len() / threads);
                    ready.wait();
                    let start = Instant::now();
                    let mut reads = 0;
                    while start.elapsed() < lasting {
                        for key in keys.by_ref().take(256) {
                            black_box(get(&mut *reader, key).expect("the key is there"));
                        }
                        reads += 256;
                    }
                    f64::from(reads) / start.elapsed().as_secs_f64()
                })
            })
            .collect();
        readers.into_iter().map(|reader| reader.join().expect("no reader panics")).sum()
    })
}

/// Everything, and groups of 100, in key order.
fn scans(store: &dyn Store, rows: u64, lasting: Duration) {
    let mut reader = store.reader();
    let expected = (rows, data::touched_sum(rows));
    let (mut times, start) = (0.0, Instant::now());
    while start.elapsed() < lasting {
        assert_eq!(reader.scan(), expected, "a full scan sees every row");
        times += 1.0;
    }
    process::report("scan", times * rows as f64 / start.elapsed().as_secs_f64());

    let mut groups = fastrand::Rng::with_seed(3);
    let (mut times, start) = (0.0, Instant::now());
    while start.elapsed() < lasting {
        let prefix = data::prefix(groups.u64(..rows / GROUP_KEYS));
        let (found, sum) = reader.scan_prefix(&prefix);
        assert_eq!(found, GROUP_KEYS, "a prefix scan sees its group");
        black_box(sum);
        times += 1.0;
    }
    process::report("prefix", times / start.elapsed().as_secs_f64());
}

/// One thread reads the newest values, another overwrites random rows as fast as it can.
fn gets_beside_a_writer(store: &dyn Store, keys: &[KeyBytes], rows: u64, lasting: Duration) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut ids, mut writes, start) = (fastrand::Rng::new(), 0.0, Instant::now());
            while !stop.load(Ordering::Relaxed) {
                let id = ids.u64(..rows);
                store.commit(&[(data::key(id), data::value(id))]);
                writes += 1.0;
            }
            writes / start.elapsed().as_secs_f64()
        });
        let mut reader = store.reader();
        let mut nanos = Vec::with_capacity(1 << 23);
        let start = Instant::now();
        let mut last = start;
        for key in keys.iter().cycle() {
            black_box(reader.get_newest(key).expect("the key is there"));
            let now = Instant::now();
            nanos.push(now.duration_since(last).as_nanos() as u32);
            last = now;
            if now.duration_since(start) >= lasting {
                break;
            }
        }
        let elapsed = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        process::report("beside writes", writer.join().expect("the writer does not panic"));
        process::report("beside", nanos.len() as f64 / elapsed.as_secs_f64());
        nanos.sort_unstable();
        process::report("beside p50", percentile(&nanos, 0.5));
        process::report("beside p99", percentile(&nanos, 0.99));
        process::report("beside p99.9", percentile(&nanos, 0.999));
    });
}
