//! Reads from memory, beside the standard library's map of the same rows.
//!
//! `cargo bench --bench read`; with other databases beside it: `peers/`.

#![allow(clippy::cast_possible_truncation, reason = "figures are small")]

mod support;

use std::cell::{LazyCell, OnceCell};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::Criterion;

use support::clock::{percentile, time, time_shared};
use support::data::{self, GROUP_KEYS, KEY_BYTES, KeyBytes, PREFIX_BYTES, ROW_BYTES, ValueBytes};
use support::limits::HashMap;
use support::ours::Ours;
use support::process;
use support::setup::{self, plural, sized};
use support::table::{SHOWN, Table};

const MAP: &str = "limit-btreemap";
const ARRAYS: &str = "limit-btreemap-of-arrays";
const HASH_MAP: &str = "limit-hash-map";
const OURS: &str = "steadfast";
const OURS_VIEW: &str = "steadfast-in-a-view";
const OURS_DECODED: &str = "steadfast-in-a-view-decoded";

fn main() {
    if let Some(task) = process::task() {
        return memory_child(task[1].parse().expect("the parent wrote a number"));
    }
    let mut c = setup::criterion();
    let stores = Stores::new(sized(1_000_000, 10_000));
    for threads in [1, 2] {
        gets(&mut c, &stores, threads);
    }
    gets_beside_a_writer(&mut c, &stores);
    full_scan(&mut c, &stores);
    prefix_scans(&mut c, &stores);
    memory(&mut c, stores.rows);
    c.final_summary();
}

/// Point reads of random keys that are there.
fn gets(c: &mut Criterion, stores: &Stores, threads: u64) {
    let mut table = Table::new(c, &format!("read/get-{threads}-thread{}", plural(threads)));
    get_row(&mut table, stores, threads, MAP, Stores::map, |map, key| data::touch(&map[&key[..]]));
    get_row(&mut table, stores, threads, ARRAYS, Stores::arrays, |map, key| data::touch(&map[key]));
    get_row(&mut table, stores, threads, HASH_MAP, Stores::hash_map, |map, key| {
        data::touch(&map[&key[..]])
    });
    get_row(&mut table, stores, threads, OURS, Stores::ours, |ours, key| found(ours.get(key)));
    let in_view = |stores: &'_ Stores| (stores.ours().clone(), stores.ours().view());
    get_row(&mut table, stores, threads, OURS_VIEW, in_view, |(ours, view), key| {
        found(ours.get_in(view, key))
    });
    get_row(&mut table, stores, threads, OURS_DECODED, in_view, |(ours, view), key| {
        found(ours.get_decoded(view, key))
    });
    let title = format!("point reads, {} keys, {threads} thread{}", stores.rows, plural(threads));
    let rows = [
        (MAP, &[][..]),
        (ARRAYS, &[]),
        (HASH_MAP, &[]),
        (OURS, &[(MAP, SHOWN), (HASH_MAP, SHOWN)]),
        (OURS_VIEW, &[(MAP, SHOWN), (HASH_MAP, SHOWN)]),
        (OURS_DECODED, &[(MAP, SHOWN), (HASH_MAP, SHOWN)]),
    ];
    table.print(&title, "reads/s", &rows);
}

fn found(touched: Option<u64>) -> u64 {
    touched.expect("the key is there")
}

fn get_row<'a, S: Sync>(
    table: &mut Table<'_>,
    stores: &'a Stores,
    threads: u64,
    name: &str,
    open: impl Fn(&'a Stores) -> S,
    get: impl Fn(&S, &KeyBytes) -> u64 + Sync,
) {
    let keys = &stores.keys;
    table.row(
        name,
        1,
        || open(stores),
        |store, n, _| {
            time_shared(threads, n, |thread| {
                let get = &get;
                let mut keys = keys.iter().cycle().skip(thread as usize * keys.len() / 3);
                move || {
                    let key = keys.next().expect("a cycle has no end");
                    black_box(get(store, key));
                }
            })
        },
    );
}

/// Point reads on one thread while another overwrites random keys as fast as it can: how long
/// the slowest reads take.
fn gets_beside_a_writer(c: &mut Criterion, stores: &Stores) {
    const P50: &str = "steadfast: half of the reads within";
    const P99: &str = "steadfast: 99 % of the reads within";
    const P999: &str = "steadfast: 99.9 % of the reads within";
    const WRITES: &str = "steadfast: writes beside them";
    let mut table = Table::new(c, "read/get-beside-a-writer");
    table.row(
        OURS,
        1,
        || stores.ours(),
        |ours, n, notes| {
            let (rows, stop) = (stores.rows, AtomicBool::new(false));
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    let (mut ids, mut writes, start) = (fastrand::Rng::new(), 0, Instant::now());
                    while !stop.load(Ordering::Relaxed) {
                        ours.put(ids.u64(..rows));
                        writes += 1;
                    }
                    (writes, start.elapsed())
                });
                let mut keys = stores.keys.iter().cycle();
                let mut nanos = Vec::with_capacity(n as usize);
                let start = Instant::now();
                for _ in 0..n {
                    let key = keys.next().expect("a cycle has no end");
                    let start = Instant::now();
                    black_box(found(ours.get(key)));
                    nanos.push(start.elapsed().as_nanos() as u32);
                }
                let elapsed = start.elapsed();
                stop.store(true, Ordering::Relaxed);
                let (writes, written_in) = writer.join().expect("the writer does not panic");
                nanos.sort_unstable();
                notes.note(P50, percentile(&nanos, 0.5));
                notes.note(P99, percentile(&nanos, 0.99));
                notes.note(P999, percentile(&nanos, 0.999));
                notes.note_rate(WRITES, writes, written_in);
                elapsed
            })
        },
    );
    let notes =
        table.print("point reads, 1 thread, another overwriting", "reads/s", &[(OURS, &[])]);
    notes.print(P50, "ns", None);
    notes.print(P99, "ns", None);
    notes.print(P999, "ns", Some(5000.0));
    notes.print(WRITES, "commits/s", None);
}

/// All rows in key order, the value bytes touched.
fn full_scan(c: &mut Criterion, stores: &Stores) {
    let rows = stores.rows;
    let mut table = Table::new(c, "read/full-scan");
    table.row(
        MAP,
        rows,
        || stores.map(),
        |map, n, _| {
            time(n, || {
                black_box(map.values().map(|value| data::touch(value)).sum::<u64>());
            })
        },
    );
    table.row(
        ARRAYS,
        rows,
        || stores.arrays(),
        |map, n, _| {
            time(n, || {
                black_box(map.values().map(|value| data::touch(value)).sum::<u64>());
            })
        },
    );
    let view = || (stores.ours(), stores.ours().view());
    let expected = LazyCell::new(|| (rows, data::touched_sum(rows)));
    table.row(
        OURS,
        rows,
        || (view(), *expected),
        |((ours, view), expected), n, _| time(n, || assert_eq!(ours.scan(view, b""), *expected)),
    );
    table.row(OURS_DECODED, rows, view, |(ours, view), n, _| {
        time(n, || assert_eq!(ours.scan_decoded(view, b"").0, rows))
    });
    let lines = [
        (MAP, &[][..]),
        (ARRAYS, &[]),
        (OURS, &[(MAP, SHOWN), (ARRAYS, SHOWN)]),
        (OURS_DECODED, &[(MAP, SHOWN), (ARRAYS, SHOWN)]),
    ];
    table.print(&format!("full scan, {rows} rows"), "rows/s", &lines);
}

/// The 100 rows of a random group, the value bytes touched.
fn prefix_scans(c: &mut Criterion, stores: &Stores) {
    let groups = stores.rows / GROUP_KEYS;
    let mut random = fastrand::Rng::with_seed(3);
    let mut prefix = || data::prefix(random.u64(..groups));
    let mut table = Table::new(c, "read/prefix-scan-of-100");
    table.row(
        MAP,
        1,
        || stores.map(),
        |map, n, _| {
            time(n, || {
                let prefix = prefix();
                let from = (Bound::Included(&prefix[..]), Bound::Unbounded);
                let group =
                    map.range::<[u8], _>(from).take_while(|(key, _)| key.starts_with(&prefix));
                black_box(group.map(|(_, value)| data::touch(value)).sum::<u64>());
            })
        },
    );
    table.row(
        ARRAYS,
        1,
        || stores.arrays(),
        |map, n, _| {
            time(n, || {
                let prefix = prefix();
                let mut first = [0; KEY_BYTES];
                first[..PREFIX_BYTES].copy_from_slice(&prefix);
                let group = map.range(first..).take_while(|(key, _)| key.starts_with(&prefix));
                black_box(group.map(|(_, value)| data::touch(value)).sum::<u64>());
            })
        },
    );
    let view = || (stores.ours(), stores.ours().view());
    table.row(OURS, 1, view, |(ours, view), n, _| {
        time(n, || assert_eq!(black_box(ours.scan(view, &prefix())).0, GROUP_KEYS))
    });
    let lines = [(MAP, &[][..]), (ARRAYS, &[]), (OURS, &[(MAP, SHOWN), (ARRAYS, SHOWN)])];
    table.print("prefix scans of 100 rows", "scans/s", &lines);
}

/// What a store of rows takes, in a process of its own.
fn memory(c: &mut Criterion, rows: u64) {
    const ENTRY: &str = "memory an entry, over key and value";
    let mut table = Table::new(c, "read/memory");
    table.row(
        OURS,
        rows,
        || (),
        |(), n, notes| {
            let load = |_| {
                let figures = process::run(&["memory", &rows.to_string()]);
                notes.note(ENTRY, figures["rss"] / rows as f64 - ROW_BYTES as f64);
                Duration::from_secs_f64(figures["seconds"])
            };
            (0..n).map(load).sum()
        },
    );
    let title = format!("filling memory, {rows} rows in random order");
    let notes = table.print(&title, "rows/s", &[(OURS, &[])]);
    notes.print(ENTRY, "B", Some(140.0));
}

fn memory_child(rows: u64) {
    let ids = data::shuffled(rows, 1);
    let ours = Ours::in_memory();
    let before = process::rss();
    let seconds = time(1, || ours.load(&ids)).as_secs_f64();
    process::report("seconds", seconds);
    process::report("rss", process::rss() - before);
}

/// The same rows in every store, each filled in random order when it is first needed.
struct Stores {
    rows: u64,
    ids: Vec<u32>,
    keys: Vec<KeyBytes>,
    map: OnceCell<BTreeMap<Vec<u8>, Vec<u8>>>,
    arrays: OnceCell<BTreeMap<KeyBytes, ValueBytes>>,
    hash_map: OnceCell<HashMap>,
    ours: OnceCell<Ours>,
}

impl Stores {
    fn new(rows: u64) -> Self {
        let (ids, keys) = (data::shuffled(rows, 1), data::shuffled_keys(rows, 2));
        let (map, arrays) = (OnceCell::new(), OnceCell::new());
        Self { rows, ids, keys, map, arrays, hash_map: OnceCell::new(), ours: OnceCell::new() }
    }

    fn map(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        self.map.get_or_init(|| self.rows_in(|key, value| (key.to_vec(), value.to_vec())))
    }

    fn arrays(&self) -> &BTreeMap<KeyBytes, ValueBytes> {
        self.arrays.get_or_init(|| self.rows_in(|key, value| (key, value)))
    }

    fn hash_map(&self) -> &HashMap {
        let boxed = |key: KeyBytes, value: ValueBytes| {
            (Box::<[u8]>::from(&key[..]), Box::<[u8]>::from(&value[..]))
        };
        self.hash_map.get_or_init(|| self.rows_in(boxed))
    }

    fn ours(&self) -> &Ours {
        self.ours.get_or_init(|| {
            let ours = Ours::in_memory();
            ours.load(&self.ids);
            ours
        })
    }

    /// A map with all rows, inserted one by one as a store meets them.
    fn rows_in<K, V, M>(&self, row: impl Fn(KeyBytes, ValueBytes) -> (K, V)) -> M
    where
        M: Default + Extend<(K, V)>,
    {
        let mut map = M::default();
        for id in &self.ids {
            let id = u64::from(*id);
            map.extend([row(data::key(id), data::value(id))]);
        }
        map
    }
}
