//! Measures snapshots: `cargo run --release -p steadfast-durability --features lz4 --example
//! snapshot [ROWS] [DIRECTORY]` (default one million, in the system's temporary directory).
//! Keys of 24 bytes in groups of 100, values of 100 bytes that look like JSON, committed one by
//! one in random order. Every figure is the best of three passes, and each pass writes the
//! same number of bytes raw, so that a ratio compares what one disk did within seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use steadfast_core::{Record, RecordBuilder, SortedTable, Timestamp, Version};
use steadfast_durability::disk::{Access, Disk};
use steadfast_durability::layout::Layout;
use steadfast_durability::snapshot::{
    Compression, Snapshot, SnapshotInfo, SnapshotMeta, SnapshotOptions, write_snapshot,
};
use steadfast_durability::{Error, StdDisk};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const DATABASE: [u8; 16] = *b"0123456789abcdef";
const PASSES: usize = 3;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let rows = arguments.next().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000);
    let parent = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(parent)?;
    let layout = Layout::new(dir.path());
    let records = records(rows);
    for (name, compression) in compressions() {
        println!("\n{rows} rows, {name}");
        let mut best = [Duration::MAX; 2];
        let mut info = None;
        for _ in 0..PASSES {
            let begun = Instant::now();
            info = Some(write(&layout, &records, compression)?);
            best[0] = best[0].min(begun.elapsed());
            // As many bytes as the rows are, whatever the file makes of them.
            let bytes = info.map_or(0, |info: SnapshotInfo| info.payload_bytes);
            best[1] = best[1].min(raw(&layout, bytes)?);
        }
        let info = info.ok_or("there was a pass")?;
        println!("  file      {:7.2} bytes a row", info.file_bytes as f64 / rows as f64);
        println!("  write     {:7.2} M rows/s, {:?}", per_second(rows, best[0]), best[0]);
        println!("  raw       {:?} for the rows' {} MB", best[1], info.payload_bytes / 1_000_000);
        println!("  ratio     {:7.2} of raw write and sync", ratio(best[1], best[0]));
        let begun = Instant::now();
        let snapshot = Snapshot::open(&StdDisk, &layout, 1, DATABASE)?;
        let opened = begun.elapsed();
        let middle = &records[rows / 2];
        assert_eq!(snapshot.get(middle.key(), Version::MAX)?.as_ref(), Some(middle));
        println!("  open      {opened:?}, and to the first get {:?}", begun.elapsed());
        for threads in [1, 2] {
            let took = (0..PASSES).map(|_| load(&snapshot, threads)).min().unwrap_or_default();
            println!("  load {threads}T   {:7.2} M rows/s", per_second(rows, took));
        }
        let random = |count: usize| {
            let begun = Instant::now();
            for n in 0..count {
                let wanted = &records[n * 7_919 % rows];
                let found = snapshot.get(wanted.key(), Version::MAX).expect("the file is sound");
                assert!(found.is_some());
            }
            begun.elapsed()
        };
        let count = 50_000.min(rows);
        let took = (0..PASSES).map(|_| random(count)).min().unwrap_or_default();
        println!("  get       {:7.2} M/s of keys far apart", per_second(count, took));
        let took = (0..PASSES).map(|_| gets(&snapshot, &records)).min().unwrap_or_default();
        println!("  get       {:7.2} M/s in key order", per_second(rows, took));
        let begun = Instant::now();
        snapshot.verify()?;
        println!("  verify    {:7.2} M rows/s", per_second(rows, begun.elapsed()));
        println!("  {:?}", snapshot.describe());
    }
    Ok(())
}

fn compressions() -> Vec<(&'static str, Compression)> {
    vec![
        ("not compressed", Compression::None),
        #[cfg(feature = "lz4")]
        ("LZ4", Compression::Lz4),
    ]
}

fn per_second(rows: usize, took: Duration) -> f64 {
    rows as f64 / took.as_secs_f64() / 1e6
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

/// A generator of numbers that are random enough.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn records(rows: usize) -> Vec<Record> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut versions: Vec<u64> = (1..=rows as u64).collect();
    for last in (1..rows).rev() {
        let other = random.next() % (last as u64 + 1);
        versions.swap(last, usize::try_from(other).unwrap_or(0));
    }
    // Commits every few microseconds, now and then after a pause.
    let mut time = 1_700_000_000_000_000;
    let mut times = vec![time];
    for n in 0..rows {
        time += 2 + random.next() % 8 + if n % 1000 == 0 { random.next() % 5000 } else { 0 };
        times.push(time);
    }
    let record = |(row, version): (usize, u64)| {
        let key = format!("\0\0\0\x01\x02group:{:07}/{:05}", row / 100, row % 100);
        let value = format!(
            "\x05{{\"user\":\"{:016x}\",\"score\":{:8},\"tags\":[\"a\",\"b\"],\"token\":\"{:016x}\",\"ok\":true}}",
            random.next(),
            random.next() % 100_000_000,
            random.next(),
        );
        let mut bytes = key.into_bytes();
        let key_len = bytes.len();
        bytes.extend_from_slice(value.as_bytes());
        bytes.resize(key_len + 100, b' ');
        let micros = times[usize::try_from(version).unwrap_or(0)];
        let timestamp = Timestamp::from_micros(micros);
        RecordBuilder { version: Version(version), timestamp, expiry: None }.put(&bytes, key_len)
    };
    versions.into_iter().enumerate().map(record).collect()
}

fn write(layout: &Layout, rows: &[Record], compression: Compression) -> Outcome<SnapshotInfo> {
    let meta = SnapshotMeta { version: Version(rows.len() as u64), ..SnapshotMeta::default() };
    let options = SnapshotOptions { compression };
    let rows = rows.iter().map(|row| Ok::<_, Error>(row.clone()));
    let rest = || Ok((meta, Vec::new()));
    Ok(write_snapshot(Arc::new(StdDisk), layout, 1, DATABASE, options, rows, rest)?)
}

/// Writes and syncs a file of so many bytes.
fn raw(layout: &Layout, bytes: u64) -> Outcome<Duration> {
    let path = layout.root().join("raw");
    let mut random = Random(1);
    let chunk: Vec<u8> = (0..1 << 17).flat_map(|_| random.next().to_le_bytes()).collect();
    let begun = Instant::now();
    let file = StdDisk.create(&path, Access::Write)?;
    for offset in (0..bytes).step_by(chunk.len()) {
        file.write_at(offset, &chunk)?;
    }
    file.sync_all()?;
    let took = begun.elapsed();
    drop(file);
    StdDisk.remove(&path)?;
    Ok(took)
}

/// Loads every section, and drops it: what a store does with it is measured there.
fn load(snapshot: &Snapshot, threads: usize) -> Duration {
    let (begun, next) = (Instant::now(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let section = next.fetch_add(1, Ordering::Relaxed);
                    if section >= snapshot.sections() {
                        break;
                    }
                    std::hint::black_box(snapshot.section(section).expect("it was just written"));
                }
            });
        }
    });
    begun.elapsed()
}

fn gets(snapshot: &Snapshot, rows: &[Record]) -> Duration {
    let begun = Instant::now();
    for row in rows {
        std::hint::black_box(snapshot.get(row.key(), Version::MAX).expect("it is there"));
    }
    begun.elapsed()
}
