//! What forking a run costs, beside copying it, and what reading a fork does.
//!
//! `cargo bench --bench runs`.

#![allow(clippy::cast_possible_truncation, reason = "figures are small")]

mod support;

use std::cell::{Cell, LazyCell};
use std::hint::black_box;

use criterion::Criterion;
use steadfast::{DatabaseConfig, Run};

use support::clock::time;
use support::data;
use support::ours::Ours;
use support::scratch::Scratch;
use support::setup::{self, sized};
use support::table::{SHOWN, Table};

/// A fork takes no longer than this, whatever there is to fork.
const FORK_US_MAX: f64 = 1_000.0;

/// Forks of a large run may take so many times as long as those of a small one.
const SIZE_RATIO_MAX: f64 = 1.5;

fn main() {
    let mut c = setup::criterion();
    fork(&mut c);
    read(&mut c);
    c.final_summary();
}

fn fill(ours: &Ours, rows: u64) {
    let ids: Vec<u32> = (0..rows as u32).collect();
    ids.chunks(1000).for_each(|ids| ours.put_all(ids));
}

/// A run forked, and copied row by row.
fn fork(c: &mut Criterion) {
    let scratch = Scratch::new("runs-fork");
    let (few, many) = (sized(10_000, 100), sized(1_000_000, 1_000));
    let open = |rows: u64| {
        let ours = Ours::open(&scratch.join(&rows.to_string()), DatabaseConfig::buffered());
        fill(&ours, rows);
        ours
    };
    let (small, large) = (LazyCell::new(|| open(few)), LazyCell::new(|| open(many)));
    let next = Cell::new(0_u64);
    let name = || {
        next.set(next.get() + 1);
        format!("run-{}", next.get())
    };
    let (of_few, of_many) = (format!("fork {few} keys"), format!("fork {many} keys"));
    let copy_few = format!("copy {few} keys");
    let mut table = Table::new(c, "runs/fork");
    let fork = |ours: &Ours, n| {
        time(n, || {
            black_box(ours.db.fork_run("bench", &name()).expect("it commits"));
        })
    };
    table.row(&of_few, 1, || &*small, |ours, n, _| fork(ours, n));
    table.row(
        &of_many,
        1,
        || (&*large, &*small),
        |(large, small), n, notes| {
            // In turns with what it is held against.
            notes.note_rate(&of_few, n, fork(small, n));
            fork(large, n)
        },
    );
    table.row(
        &copy_few,
        1,
        || &*small,
        |ours, n, _| {
            time(n, || {
                let run = ours.db.create_run(&name()).expect("it commits");
                let view = ours.view();
                let copy = |tx: &mut steadfast::Transaction| {
                    for row in view.kv_scan(ours.run, b"")? {
                        let (key, found) = row?;
                        tx.kv_put(run, key, found.value)?;
                    }
                    Ok(())
                };
                ours.db.transaction(copy).expect("it commits");
            })
        },
    );
    let lines = [
        (copy_few.as_str(), &[][..]),
        (&of_few, &[(&*copy_few, SHOWN)]),
        (&of_many, &[(&*copy_few, SHOWN)]),
    ];
    let notes = table.print("a run in one transaction, buffered", "runs/s", &lines);
    if let Some(rate) = notes.figure(&of_many) {
        let fork_us = 1e6 / rate;
        println!("  {of_many}: {fork_us:.1} µs, aim ≤ {FORK_US_MAX} µs");
    }
    if let (Some(few), Some(many)) = (notes.figure(&of_few), notes.figure(&of_many)) {
        let times = few / many;
        println!("  {of_many}: {times:.2} × as long as {of_few}, aim ≤ {SIZE_RATIO_MAX}");
    }
}

/// A fork of which a tenth of the keys are its own, beside a run that has all of them.
fn read(c: &mut Criterion) {
    const PLAIN: &str = "get, of a run";
    const OWN: &str = "get, of a fork, its own";
    const BENEATH: &str = "get, of a fork, of what lies beneath";
    const SCAN: &str = "scan, of a run, rows";
    const SCAN_FORK: &str = "scan, of a fork, rows";
    let rows = sized(1_000_000, 1_000);
    let ours = LazyCell::new(|| {
        let ours = Ours::in_memory();
        fill(&ours, rows);
        let run = ours.db.fork_run("bench", "fork").expect("it commits");
        let own = Ours { run, ..ours.clone() };
        fill(&own, rows / 10);
        (ours, own)
    });
    let get = |ours: &Ours, run: Run, from: u64, to: u64, n| {
        let mut ids = fastrand::Rng::with_seed(1);
        time(n, || {
            let key = data::key(ids.u64(from..to));
            black_box(ours.db.kv_record(run, key).expect("it reads").expect("it is there"));
        })
    };
    let scan = |ours: &Ours, n| {
        time(n, || {
            let scan = ours.view().kv_scan(ours.run, b"").expect("it reads");
            let mut read = 0;
            for row in scan.records() {
                black_box(row.expect("it reads"));
                read += 1;
            }
            assert_eq!(read, rows);
        })
    };
    let mut table = Table::new(c, "runs/read");
    table.row(PLAIN, 1, || &*ours, |(plain, _), n, _| get(plain, plain.run, 0, rows / 10, n));
    table.row(OWN, 1, || &*ours, |(_, own), n, _| get(own, own.run, 0, rows / 10, n));
    table.row(BENEATH, 1, || &*ours, |(_, own), n, _| get(own, own.run, rows / 10, rows, n));
    table.row(SCAN, rows, || &*ours, |(plain, _), n, _| scan(plain, n));
    table.row(SCAN_FORK, rows, || &*ours, |(_, own), n, _| scan(own, n));
    let lines = [
        (PLAIN, &[][..]),
        (OWN, &[(PLAIN, SHOWN)]),
        (BENEATH, &[(PLAIN, SHOWN)]),
        (SCAN, &[]),
        (SCAN_FORK, &[(SCAN, SHOWN)]),
    ];
    table.print(&format!("{rows} keys, in memory"), "reads/s", &lines);
}
