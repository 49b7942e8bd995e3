//! Measures the store: `cargo run --release -p steadfast-storage --example measure [ROWS]`
//! (default one million). Keys of 24 bytes in groups of 100, values of 100 bytes, loaded in
//! random order. Every figure is the best of three passes unless it says otherwise; first and
//! last byte of each value are read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use steadfast_core::{
    Place, Record, RecordBuilder, ReplayTarget, SortedTable, TableError, TableSlice, Timestamp,
    Version,
};
use steadfast_storage::UnifiedStore;

const GROUP: usize = 100;
const KEY_BYTES: usize = 24;
const VALUE_BYTES: usize = 100;
const RUN: usize = 250_000;
const NOW: Timestamp = Timestamp::from_micros(1);

fn main() {
    let rows = std::env::args().nth(1).and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000);
    let before = resident_bytes();
    let store = replay(rows);
    println!();
    bytes_an_entry(&store, rows, resident_bytes().saturating_sub(before));
    gets(&store, rows);
    gets_beside_a_writer(&store, rows);
    scans(&store, rows);
    overwrites(&store, rows);
    drop(store);
    loads(rows);
    inserts(rows.min(1_000_000));
}

/// The key of a row: 18 bytes that its group shares, then its place in the group.
fn key(row: usize) -> [u8; KEY_BYTES] {
    let mut key = *b"\0\0\0\x01\x02group:0000000/00000";
    let mut digits = |mut number: usize, at: std::ops::Range<usize>| {
        for byte in key[at].iter_mut().rev() {
            *byte = b'0' + u8::try_from(number % 10).expect("a digit");
            number /= 10;
        }
    };
    digits(row / GROUP, 11..18);
    digits(row % GROUP, 19..24);
    key
}

fn record(row: usize, version: u64) -> Record {
    let mut bytes = [0x5a; KEY_BYTES + VALUE_BYTES];
    bytes[..KEY_BYTES].copy_from_slice(&key(row));
    bytes[KEY_BYTES..KEY_BYTES + 8].copy_from_slice(&version.to_le_bytes());
    RecordBuilder { version: Version(version), timestamp: NOW, expiry: None }.put(&bytes, KEY_BYTES)
}

fn shuffled(rows: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut order);
    order
}

/// Reads a value as a caller would.
fn touch(record: &Record) -> u64 {
    let value = record.value_bytes();
    u64::from(value[0]) + u64::from(value[value.len() - 1])
}

fn rate(count: usize, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64() / 1e6
}

fn best_of_three(mut pass: impl FnMut() -> f64) -> f64 {
    (0..3).map(|_| pass()).fold(0.0, f64::max)
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn replay(rows: usize) -> UnifiedStore {
    let store = UnifiedStore::new();
    let order = shuffled(rows);
    let (mut applying, mut worst) = (Duration::ZERO, f64::MAX);
    let whole = Instant::now();
    for (run, part) in order.chunks(RUN).enumerate() {
        let records: Vec<_> =
            part.iter().zip(run * RUN + 1..).map(|(row, v)| record(*row, v as u64)).collect();
        let start = Instant::now();
        ReplayTarget::apply(&store, records);
        let took = start.elapsed();
        applying += took;
        worst = worst.min(rate(part.len(), took));
    }
    let start = Instant::now();
    ReplayTarget::finish(&store, Version(rows as u64));
    applying += start.elapsed();
    println!(
        "bulk replay of {rows}: {:.2} M records/s (slowest run {worst:.2}; {:.2} with making them)",
        rate(rows, applying),
        rate(rows, whole.elapsed()),
    );
    store
}

fn bytes_an_entry(store: &UnifiedStore, rows: usize, resident: usize) {
    let stats = store.stats();
    let payload = rows * (KEY_BYTES + VALUE_BYTES);
    println!(
        "bytes an entry over key and value: {} by resident memory, {} by stats()",
        resident.saturating_sub(payload + rows * 8) / rows,
        stats.overhead_bytes / rows,
    );
}

/// Keys to ask for, made before the clock runs.
fn random_keys(rows: usize, seed: u64, count: usize) -> Vec<[u8; KEY_BYTES]> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..count).map(|_| key(rng.usize(..rows))).collect()
}

fn get_each(
    keys: &[[u8; KEY_BYTES]],
    get: impl Fn(&[u8]) -> steadfast_storage::Result<Option<Record>>,
) {
    for key in keys {
        let found = get(key).expect("reading memory");
        std::hint::black_box(touch(&found.expect("the row is there")));
    }
}

fn gets(store: &UnifiedStore, rows: usize) {
    const COUNT: usize = 2_000_000;
    let (keys, others) = (random_keys(rows, 1, COUNT), random_keys(rows, 2, COUNT));
    let latest = |key: &[u8]| store.get_latest(key, NOW);
    let one = best_of_three(|| {
        let start = Instant::now();
        get_each(&keys, latest);
        rate(COUNT, start.elapsed())
    });
    let two = best_of_three(|| {
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| get_each(&others, latest));
            get_each(&keys, latest);
        });
        rate(2 * COUNT, start.elapsed())
    });
    println!("gets: {one:.2} M/s with one thread, {two:.2} with two ({:.2}x)", two / one);
    let view = store.view(NOW);
    let in_view = best_of_three(|| {
        let start = Instant::now();
        get_each(&keys, |key| view.get(key));
        rate(COUNT, start.elapsed())
    });
    println!("gets in a view: {in_view:.2} M/s");
}

fn gets_beside_a_writer(store: &UnifiedStore, rows: usize) {
    let done = AtomicBool::new(false);
    let (mut nanos, mut written) = (Vec::with_capacity(20_000_000), 0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rng = fastrand::Rng::with_seed(9);
            let mut written = 0;
            while !done.load(Ordering::Relaxed) {
                overwrite(store, rng.usize(..rows));
                written += 1;
            }
            written
        });
        let mut rng = fastrand::Rng::with_seed(10);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(2) {
            let key = key(rng.usize(..rows));
            let start = Instant::now();
            let found = store.get_latest(&key, NOW).expect("reading memory");
            std::hint::black_box(touch(&found.expect("the row is there")));
            nanos.push(start.elapsed().as_nanos());
        }
        done.store(true, Ordering::Relaxed);
        written = writer.join().expect("the writer ends");
    });
    nanos.sort_unstable();
    let at = |per_mille: usize| nanos[(nanos.len() - 1) * per_mille / 1_000];
    println!(
        "gets beside a writer of {:.2} M/s (2 s): p50 {} ns, p99 {} ns, p99.9 {} ns",
        rate(written, Duration::from_secs(2)),
        at(500),
        at(990),
        at(999),
    );
}

fn overwrite(store: &UnifiedStore, row: usize) {
    let version = store.current_version().next();
    let applied = store.apply(&[record(row, version.0)]);
    store.publish(version);
    store.prune(applied);
}

fn overwrites(store: &UnifiedStore, rows: usize) {
    const COUNT: usize = 1_000_000;
    let one = best_of_three(|| {
        let mut rng = fastrand::Rng::with_seed(5);
        let start = Instant::now();
        (0..COUNT).for_each(|_| overwrite(store, rng.usize(..rows)));
        rate(COUNT, start.elapsed())
    });
    println!("overwrites, one a commit: {one:.2} M/s");
    let stats = store.stats();
    println!("  then {} bytes an entry by stats()", stats.overhead_bytes / rows);
}

/// A table whose sections have been read already: what is measured is laying them into memory.
#[derive(Debug)]
struct ReadTable {
    first_keys: Vec<[u8; KEY_BYTES]>,
    sections: Vec<Mutex<Vec<Record>>>,
}

const SECTION: usize = 20_000;

impl SortedTable for ReadTable {
    fn rows(&self) -> u64 {
        let sections = self.sections.iter();
        sections.map(|rows| rows.lock().expect("no loader panics").len() as u64).sum()
    }

    fn get(&self, _: &[u8], _: Version) -> Result<Option<Record>, TableError> {
        Ok(None)
    }

    fn slice(&self, _: Place<'_>) -> Result<TableSlice, TableError> {
        unreachable!("nobody reads while it is loaded")
    }

    fn sections(&self) -> usize {
        self.sections.len()
    }

    fn section_of(&self, key: &[u8]) -> usize {
        self.first_keys.partition_point(|first| first.as_slice() <= key).saturating_sub(1)
    }

    fn first_key(&self, section: usize) -> &[u8] {
        &self.first_keys[section]
    }

    fn section(&self, section: usize) -> Result<Vec<Record>, TableError> {
        Ok(std::mem::take(&mut *self.sections[section].lock().expect("no loader panics")))
    }
}

/// Loads a table, one thread from its beginning and one from its end, and asks meanwhile for
/// the longest that a commit takes.
fn loads(rows: usize) {
    for committing in [false, true] {
        let sections = (0..rows).step_by(SECTION);
        let read = |from: usize| (from..rows.min(from + SECTION)).map(|row| record(row, 1));
        let table = Arc::new(ReadTable {
            first_keys: sections.clone().map(key).collect(),
            sections: sections.map(|from| Mutex::new(read(from).collect())).collect(),
        });
        let store = UnifiedStore::new();
        store.attach_table(table.clone());
        store.publish(Version(1));
        let middle = table.sections() / 2;
        let (start, mut slowest, mut took) = (Instant::now(), Duration::ZERO, Duration::ZERO);
        std::thread::scope(|scope| {
            let load = |section| {
                store.load_section(section).expect("nothing is read");
            };
            let loaders = [
                scope.spawn(move || (0..middle).for_each(load)),
                scope.spawn({
                    let last = table.sections();
                    move || (middle..last).rev().for_each(load)
                }),
            ];
            let mut rng = fastrand::Rng::with_seed(11);
            while committing && !store.is_loaded() {
                let start = Instant::now();
                overwrite(&store, rng.usize(..rows));
                slowest = slowest.max(start.elapsed());
                std::thread::sleep(Duration::from_micros(100));
            }
            for loader in loaders {
                loader.join().expect("a loader ends");
            }
            took = start.elapsed();
        });
        let rate = rate(rows, took);
        if committing {
            println!("  beside commits: {rate:.2} M rows/s, slowest commit {slowest:.1?}");
        } else {
            println!("loading with two threads (one pass): {rate:.2} M rows/s");
        }
    }
}

fn inserts(rows: usize) {
    let order = shuffled(rows);
    let store = UnifiedStore::new();
    let start = Instant::now();
    for row in order {
        overwrite(&store, row);
    }
    let elapsed = start.elapsed();
    let overhead = store.stats().overhead_bytes / rows;
    println!(
        "random inserts, one a commit (one pass): {:.2} M/s, {overhead} bytes an entry",
        rate(rows, elapsed)
    );
}

fn scans(store: &UnifiedStore, rows: usize) {
    let view = store.view(NOW);
    let full = best_of_three(|| {
        let start = Instant::now();
        let (mut count, mut sum) = (0, 0);
        for row in view.range(..) {
            sum += touch(&row.expect("reading memory"));
            count += 1;
        }
        std::hint::black_box(sum);
        assert_eq!(count, rows);
        rate(count, start.elapsed())
    });
    println!("full scan: {full:.1} M rows/s");
    for (what, wanted, from_back) in
        [("prefix scans of 100 rows", GROUP, false), ("last rows of a prefix", 1, true)]
    {
        const COUNT: usize = 200_000;
        let scans = best_of_three(|| {
            let mut rng = fastrand::Rng::with_seed(7);
            let start = Instant::now();
            for _ in 0..COUNT {
                let key = key(rng.usize(..rows));
                let mut range = view.prefix(&key[..18]);
                let next = || if from_back { range.next_back() } else { range.next() };
                let sum = std::iter::from_fn(next)
                    .take(wanted)
                    .map(|row| touch(&row.expect("reading memory")));
                std::hint::black_box(sum.sum::<u64>());
            }
            rate(COUNT, start.elapsed())
        });
        println!("{what}: {:.0} k/s", scans * 1e3);
    }
}
