//! How fast a log left by a killed process is opened again: all of it, with no checkpoint.
//!
//! `cargo bench recovery`; 10 million transactions too: `STEADFAST_BENCH_LARGE=1`. Each sample
//! is a process of its own that opens a fresh copy of the folder, so that nobody's memory is
//! warm; the limits get the same.

#![allow(clippy::cast_possible_truncation, reason = "figures are small")]

mod support;

use std::cell::LazyCell;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::Criterion;
use steadfast::{Database, DatabaseConfig};

use support::data::{self, KEY_BYTES, VALUE_BYTES};
use support::limits;
use support::ours::Ours;
use support::process::{self, Figures};
use support::scratch::{self, Scratch, folder_bytes};
use support::setup::{self, sized};
use support::table::{Aims, SHOWN, Table};

const PARSE: &str = "limit-checksum-and-parse";
const COPY: &str = "limit-checksum-parse-and-copy";
const HASH_MAP: &str = "limit-replay-into-hash-map";
const OURS: &str = "steadfast";

const MEMORY: &str = "memory at most, over memory at the end";
const ENTRY: &str = "memory an entry, over key and value";
const LOG: &str = "log a transaction, over key and value";

const LARGE_VALUE_BYTES: usize = 10_000;

fn main() {
    if let Some(task) = process::task() {
        return child(&task);
    }
    let mut c = setup::criterion();
    small_values(&mut c, "recovery/1m-transactions", sized(1_000_000, 2_000));
    if setup::large() {
        small_values(&mut c, "recovery/10m-transactions", sized(10_000_000, 4_000));
    }
    large_values(&mut c, "recovery/10kb-values", sized(10_000, 200));
    c.final_summary();
}

fn small_values(c: &mut Criterion, group: &str, transactions: u64) {
    let rows: [(&str, Aims<'_>); 3] =
        [(PARSE, &[]), (HASH_MAP, &[]), (OURS, &[(HASH_MAP, 1.2), (PARSE, SHOWN)])];
    measure(c, group, transactions, VALUE_BYTES, &rows);
}

fn large_values(c: &mut Criterion, group: &str, transactions: u64) {
    let rows: [(&str, Aims<'_>); 2] = [(COPY, &[]), (OURS, &[(COPY, 0.5)])];
    measure(c, group, transactions, LARGE_VALUE_BYTES, &rows);
}

/// Transactions of one put each, in random order: the bare log of the same rows read by each
/// limit, then our own.
fn measure(
    c: &mut Criterion,
    group: &str,
    transactions: u64,
    value_bytes: usize,
    rows: &[(&str, Aims<'_>)],
) {
    let scratch = Scratch::new("recovery");
    let (bare, db, copy) = (scratch.join("bare"), scratch.join("db"), scratch.join("copy"));
    let (count, size) = (transactions.to_string(), value_bytes.to_string());
    let row_bytes = (KEY_BYTES + value_bytes) as f64;
    let bare_log = LazyCell::new(|| {
        let ids = data::shuffled(transactions, 1);
        limits::write_bare_log(&bare, &ids, value_bytes);
        path(&bare)
    });
    let killed = LazyCell::new(|| {
        process::run_and_kill(&["write", &path(&db), &count, &size]);
        path(&copy)
    });

    let mut table = Table::new(c, group);
    for (limit, _) in rows.iter().filter(|(name, _)| *name != OURS) {
        table.row(
            limit,
            transactions,
            || &*bare_log,
            |log, n, _| (0..n).map(|_| elapsed(&process::run(&[limit, log]))).sum(),
        );
    }
    table.row(
        OURS,
        transactions,
        || &*killed,
        |target, n, notes| {
            let (log, _) = folder_bytes(&db.join("WAL")).expect("the log is there");
            let mut sum = Duration::ZERO;
            for _ in 0..n {
                scratch::copy_folder(&db, &copy).expect("the disk has room");
                let figures = process::run(&[OURS, target, &count, &size]);
                std::fs::remove_dir_all(&copy).expect("it is ours");
                notes.note(MEMORY, figures["rss peak"] / figures["rss"]);
                notes.note(
                    ENTRY,
                    (figures["rss"] - figures["rss before"]) / transactions as f64 - row_bytes,
                );
                notes.note(LOG, log as f64 / transactions as f64 - row_bytes);
                sum += elapsed(&figures);
            }
            sum
        },
    );
    let title = format!("recovery of {transactions} transactions, values of {value_bytes} B");
    let notes = table.print(&title, "transactions/s", rows);
    notes.print(MEMORY, "×", Some(1.3));
    if value_bytes == VALUE_BYTES {
        notes.print(ENTRY, "B", Some(140.0));
        notes.print(LOG, "B (preallocated room included)", None);
    }
}

fn path(path: &Path) -> String {
    path.to_str().expect("the benches' folder has a plain name").to_owned()
}

fn elapsed(figures: &Figures) -> Duration {
    Duration::from_secs_f64(figures["seconds"])
}

/// What a child does. It reports how long the work took, without its own start and end.
fn child(task: &[String]) {
    let number = |at: usize| task[at].parse::<u32>().expect("the parent wrote a number");
    let path = Path::new(&task[1]);
    let before = process::rss();
    let start = Instant::now();
    let report = || process::report("seconds", start.elapsed().as_secs_f64());
    match task[0].as_str() {
        PARSE => {
            limits::checksum_and_parse(path);
            report();
        }
        COPY => {
            let kept = limits::parse_and_copy(path);
            report();
            std::mem::forget(kept);
        }
        HASH_MAP => {
            let kept = limits::replay_into_hash_map(path);
            report();
            std::mem::forget(kept);
        }
        OURS => {
            let db = Database::open_existing(path, DatabaseConfig::buffered().manual_checkpoints())
                .expect("it opens");
            report();
            process::report("rss before", before);
            process::report_memory();
            check(&db, number(2).into(), number(3) as usize);
        }
        "write" => {
            let ours = Ours::open(path, DatabaseConfig::buffered().manual_checkpoints());
            for id in data::shuffled(number(2).into(), 1) {
                ours.put_sized(id.into(), number(3) as usize);
            }
            process::ready_to_die();
        }
        unknown => panic!("no such task: {unknown}"),
    }
}

/// Every acknowledged row is there, with the value it was given.
fn check(db: &Database, transactions: u64, value_bytes: usize) {
    let run = db.resolve_run("bench").expect("the run is there");
    let ours = Ours { db: db.clone(), run };
    let (mut rows, mut expected) = (0, vec![0; value_bytes]);
    for (id, row) in ours.view().kv_scan(ours.run, b"").expect("it reads").enumerate() {
        let (key, found) = row.expect("it reads");
        let id = id as u64;
        data::fill(id, &mut expected);
        assert_eq!(key[..], data::key(id), "every key is there, in order");
        assert_eq!(found.value.as_bytes(), Some(&expected[..]), "the value of row {id}");
        rows += 1;
    }
    assert_eq!(rows, transactions, "every acknowledged transaction is there");
}
