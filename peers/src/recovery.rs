//! Recovery: a child commits every row in a transaction of its own, in random order, and is
//! killed; what it left is opened, a fresh copy and a fresh process each time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use crate::report::{self, Column, Table};
use crate::scratch::{self, Scratch};
use crate::store::{self, Level, Opening};
use crate::{Plan, data, limits, process};

const PARSE: &str = "limit: checksum and parse";
const HASH_MAP: &str = "limit: replay into a hash map";

const COLUMNS: &[Column] = &[
    Column { figure: "rate", heading: "txn/s", unit: 1.0 },
    Column { figure: "seconds", heading: "open ms", unit: 0.001 },
    Column { figure: "rss peak", heading: "peak MiB", unit: 1048576.0 },
    Column { figure: "rss", heading: "memory MiB", unit: 1048576.0 },
    Column { figure: "on disk", heading: "disk B/txn", unit: 1.0 },
];

/// Measures and prints the table.
pub(crate) fn measure(plan: &Plan) {
    let contenders = [&[PARSE, HASH_MAP], store::NAMES].concat();
    let scratch = Scratch::new("peers-recovery");
    let rows = plan.rows.to_string();
    let mut written: BTreeMap<String, f64> = BTreeMap::new();
    let measured = report::measure(plan, &contenders, |contender| {
        let name = contender.replace([' ', ':'], "-");
        let (left, copy) = (scratch.join(&name), scratch.join("copy"));
        let (left_path, copy_path) = (left.display().to_string(), copy.display().to_string());
        let on_disk = *written.entry(name).or_insert_with(|| {
            process::run_and_kill(&["recovery", "write", contender, &left_path, &rows]);
            scratch::folder_bytes(&left).expect("it is there").1 as f64 / plan.rows as f64
        });
        scratch::copy_folder(&left, &copy).expect("the disk has room");
        let mut figures = process::run(&["recovery", "open", contender, &copy_path, &rows]);
        std::fs::remove_dir_all(&copy).expect("it is ours");
        figures.insert("rate".to_owned(), plan.rows as f64 / figures["seconds"]);
        figures.insert("on disk".to_owned(), on_disk);
        figures
    });
    let title = format!("recovery of {} transactions", plan.rows);
    measured.print(&Table {
        title: &title,
        columns: COLUMNS,
        aims: &[(HASH_MAP, 1.2), ("fjall", 10.0)],
    });
    println!("  redb and LMDB have no log to replay: their rates only restate the opening time,");
    println!("  and redb keeps nothing in between: its rows are what its last sync left");
}

/// `["write" or "open", contender, dir, rows]`
pub(crate) fn child(task: &[String]) {
    let (name, dir) = (task[1].as_str(), Path::new(&task[2]));
    let rows: u64 = task[3].parse().expect("a number");
    let opening = Opening { dir, level: Level::Buffered, keep_log: true };
    let write = task[0] == "write";
    if name == PARSE || name == HASH_MAP {
        let log = dir.join("log");
        if write {
            std::fs::create_dir_all(dir).expect("the benches' folder can be written");
            limits::write_bare_log(&log, &data::shuffled(rows, 1), data::VALUE_BYTES);
            process::ready_to_die();
        }
        let start = Instant::now();
        if name == PARSE {
            limits::checksum_and_parse(&log);
            report_open(start);
        } else {
            let kept = limits::replay_into_hash_map(&log);
            report_open(start);
            std::mem::forget(kept);
        }
        return;
    }
    if write {
        let store = store::open(name, opening);
        for id in data::shuffled(rows, 1) {
            let id = u64::from(id);
            store.commit(&[(data::key(id), data::value(id))]);
        }
        process::ready_to_die();
    }
    let start = Instant::now();
    let store = store::open(name, opening);
    report_open(start);
    let found = store.reader().scan();
    // What redb wrote without a sync died with the process: it is weaker than asked.
    if name != "redb" {
        assert_eq!(found, (rows, data::touched_sum(rows)), "{name} has every row back");
    }
    std::mem::forget(store);
}

fn report_open(start: Instant) {
    process::report("seconds", start.elapsed().as_secs_f64());
    process::report_memory();
}
