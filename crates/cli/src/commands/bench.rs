//! `bench`: how fast it is here: on this disk, with this processor. A few figures, each beside
//! what the machine itself does in the same moment; the benches of the project are `cargo bench`.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use steadfast::disk::{Access, Disk};
use steadfast::{Database, DatabaseConfig, Run};
use steadfast_durability::StdDisk;

use crate::args::BenchArgs;
use crate::failure::{EXIT_DONE, Failure, Result};
use crate::json::{Object, list};
use crate::output::{Output, count};

/// Bytes of a value.
const VALUE_BYTES: usize = 100;
/// What a strict commit alone writes, in bytes.
const BLOCK_BYTES: usize = 4096;
/// Rows that are read, loaded and replayed.
const ROWS: u64 = 100_000;
/// Space taken before the raw loop, which begins at its start again when it is full.
const RAW_BYTES: u64 = 16 << 20;
/// Threads that commit at once.
const THREADS: u64 = 8;

/// Whether what is measured is not what is shipped.
const HOOKS: bool =
    steadfast_testing::CRASH_POINTS_COMPILED_IN || steadfast_testing::SABOTAGE_COMPILED_IN;

/// A figure.
struct Row {
    what: &'static str,
    a_second: u64,
    /// What it is compared with.
    beside: Option<(&'static str, u64)>,
}

pub(crate) fn run(args: &BenchArgs, json: bool) -> Result<u8> {
    if args.dir.exists() {
        let dir = args.dir.display();
        return Err(Failure::invalid(format!(
            "{dir}: is there already; a bench makes the directory and removes it again"
        )));
    }
    StdDisk.create_dir(&args.dir).map_err(|error| failed(&args.dir, &error))?;
    let measured = measure(&args.dir, Duration::from_millis(args.millis));
    let removed = std::fs::remove_dir_all(&args.dir).map_err(|error| failed(&args.dir, &error));
    let rows = measured?;
    removed?;
    let mut output = Output::new();
    if json {
        output.line(&list(rows.iter().map(to_json)))?;
    } else {
        let mut table = vec![["what", "a second", "beside"].map(str::to_owned)];
        table.extend(rows.iter().map(|row| {
            let beside = row.beside.map_or_else(String::new, |(what, a_second)| {
                format!("{:.2} x {what}", row.a_second as f64 / a_second.max(1) as f64)
            });
            [row.what.to_owned(), count(row.a_second), beside]
        }));
        output.table(&table)?;
        output.line(match HOOKS {
            true => "crash points or planted bugs are compiled in: no figure counts",
            false => "no crash points or planted bugs are compiled in",
        })?;
    }
    output.flush()?;
    Ok(EXIT_DONE)
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::io(&path.display().to_string(), error)
}

fn to_json(row: &Row) -> String {
    let object =
        Object::new().text("what", row.what).number("a_second", row.a_second).bool("hooks", HOOKS);
    match row.beside {
        None => object.end(),
        Some((what, a_second)) => {
            object.text("beside", what).number("beside_a_second", a_second).end()
        }
    }
}

fn measure(dir: &Path, time: Duration) -> Result<Vec<Row>> {
    let raw = raw_syncs(&dir.join("raw"), time)?;
    let strict = commits(&dir.join("strict"), DatabaseConfig::strict(), 1, time)?;
    let together = commits(&dir.join("together"), DatabaseConfig::strict(), THREADS, time)?;
    let buffered = commits(&dir.join("buffered"), DatabaseConfig::buffered(), 1, time)?;
    let loop_ = ("the loop", raw);
    let mut rows = vec![
        Row { what: "loop: write 4 KiB, sync", a_second: raw, beside: None },
        Row { what: "strict commits", a_second: strict, beside: Some(loop_) },
        Row { what: "strict commits, 8 threads", a_second: together, beside: Some(loop_) },
        Row { what: "buffered commits", a_second: buffered, beside: None },
    ];
    rows.extend(reads(&dir.join("rows"))?);
    Ok(rows)
}

/// How often a second a block is written and synced, with nothing else.
fn raw_syncs(path: &Path, time: Duration) -> Result<u64> {
    let looped = || {
        let file = StdDisk.create(path, Access::Write)?;
        file.allocate(RAW_BYTES)?;
        file.sync_all()?;
        let block = [1; BLOCK_BYTES];
        let (started, mut done) = (Instant::now(), 0u64);
        while started.elapsed() < time {
            file.write_at(done * BLOCK_BYTES as u64 % RAW_BYTES, &block)?;
            file.sync_data()?;
            done += 1;
        }
        Ok(per_second(done, started.elapsed()))
    };
    looped().map_err(|error| failed(path, &error))
}

fn commits(path: &Path, config: DatabaseConfig, threads: u64, time: Duration) -> Result<u64> {
    let db = Database::create(path, config)?;
    let run = db.create_run("bench")?;
    let done = AtomicU64::new(0);
    let started = Instant::now();
    let work = |thread: u64| -> Result<()> {
        let mut key = thread;
        while started.elapsed() < time {
            put(&db, run, key)?;
            key += threads;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|at| scope.spawn(move || work(at))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let rate = per_second(done.into_inner(), started.elapsed());
    db.close()?;
    Ok(rate)
}

fn put(db: &Database, run: Run, number: u64) -> Result<()> {
    db.kv_put(run, key(number), [1u8; VALUE_BYTES].as_slice())?;
    Ok(())
}

fn key(number: u64) -> String {
    // Spread, as keys of real programs are.
    format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Reads of rows, and opening them from the log and from a snapshot.
fn reads(path: &Path) -> Result<[Row; 4]> {
    let config = DatabaseConfig::buffered().manual_checkpoints();
    let db = Database::create(path, config.clone())?;
    let run = db.create_run("bench")?;
    (0..ROWS).try_for_each(|number| put(&db, run, number))?;
    let gets = rate(|| {
        (0..ROWS).try_for_each(|number| {
            db.kv_get(run, key(number * 7 % ROWS))?;
            Ok(())
        })
    })?;
    let scan = rate(|| {
        for row in db.kv_scan(run, "")? {
            row?;
        }
        Ok(())
    })?;
    db.close()?;
    let replay = rate(|| {
        let db = Database::open_existing(path, config.clone())?;
        db.wait_loaded()?;
        drop(db);
        Ok(())
    })?;
    let db = Database::open_existing(path, config.clone())?;
    db.checkpoint()?;
    db.close()?;
    let load = rate(|| {
        let db = Database::open_existing(path, config.clone())?;
        db.wait_loaded()?;
        drop(db);
        Ok(())
    })?;
    Ok([
        Row { what: "point reads", a_second: gets, beside: None },
        Row { what: "rows of a scan", a_second: scan, beside: None },
        Row { what: "rows opened from the log", a_second: replay, beside: None },
        Row {
            what: "rows opened from a snapshot",
            a_second: load,
            beside: Some(("the log", replay)),
        },
    ])
}

/// Rows a second of what goes through all of them.
fn rate(work: impl FnOnce() -> Result<()>) -> Result<u64> {
    let started = Instant::now();
    work()?;
    Ok(per_second(ROWS, started.elapsed()))
}

fn per_second(count: u64, time: Duration) -> u64 {
    let per_second = u128::from(count) * 1_000_000_000 / time.as_nanos().max(1);
    u64::try_from(per_second).unwrap_or(u64::MAX)
}
