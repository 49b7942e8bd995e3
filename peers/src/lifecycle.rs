//! A database at rest: every row is written, the store compacts what it can and is closed.
//! What it takes on the disk is one table; the other is how long a fresh process takes to open
//! it, until the first read and until everything is in memory, where a store keeps it there.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use crate::report::{self, Column, Table};
use crate::scratch::{self, Scratch};
use crate::store::{self, Level, Opening, Row};
use crate::{Plan, data, process};

/// Rows in a transaction.
const PUTS: usize = 1000;

const OPENING: &[Column] = &[
    Column { figure: "first rate", heading: "openings/s", unit: 1.0 },
    Column { figure: "first", heading: "1st read ms", unit: 0.001 },
    Column { figure: "open", heading: "opened ms", unit: 0.001 },
    Column { figure: "loaded", heading: "loaded ms", unit: 0.001 },
    Column { figure: "rss", heading: "memory MiB", unit: 1048576.0 },
];

const LOADING: &[Column] = &[
    Column { figure: "loaded rate", heading: "loaded/s", unit: 1.0 },
    Column { figure: "loaded", heading: "loaded ms", unit: 0.001 },
];

const AT_REST: &[Column] = &[
    Column { figure: "density", heading: "rows/MiB", unit: 1.0 },
    Column { figure: "on disk", heading: "disk B/row", unit: 1.0 },
    Column { figure: "length", heading: "length B/row", unit: 1.0 },
    Column { figure: "compacted", heading: "compact s", unit: 1.0 },
];

/// Measures and prints the tables.
pub(crate) fn measure(plan: &Plan) {
    let scratch = Scratch::new("peers-lifecycle");
    let rows = plan.rows.to_string();
    let mut written: BTreeMap<String, process::Figures> = BTreeMap::new();
    let measured = report::measure(plan, store::NAMES, |contender| {
        let dir = scratch.join(contender);
        let path = dir.display().to_string();
        let left = written.entry(contender.to_owned()).or_insert_with(|| {
            let mut figures = process::run(&["lifecycle", "write", contender, &path, &rows]);
            let (length, on_disk) = scratch::folder_bytes(&dir).expect("it is there");
            let (length, on_disk) = (length as f64, on_disk as f64);
            figures.insert("length".to_owned(), length / plan.rows as f64);
            figures.insert("on disk".to_owned(), on_disk / plan.rows as f64);
            figures.insert("density".to_owned(), plan.rows as f64 / (on_disk / 1048576.0));
            figures
        });
        let mut figures = process::run(&["lifecycle", "open", contender, &path, &rows]);
        figures.insert("first rate".to_owned(), 1.0 / figures["first"]);
        figures.insert("loaded rate".to_owned(), 1.0 / figures["loaded"]);
        figures.extend(left.clone());
        figures
    });
    let title = format!("opening {} rows, closed cleanly", plan.rows);
    measured.print(&Table { title: &title, columns: OPENING, aims: &[] });
    let title = format!("opening {} rows to all loaded", plan.rows);
    measured.print(&Table { title: &title, columns: LOADING, aims: &[("fjall", 2.0)] });
    println!("  a store that reads from its files is loaded when it is open");
    let title = format!("disk at rest, {} rows of {} B", plan.rows, data::ROW_BYTES);
    let aims = &[("fjall", 1.0), ("lmdb", 1.0)];
    measured.print(&Table { title: &title, columns: AT_REST, aims });
}

/// `["write" or "open", contender, dir, rows]`
pub(crate) fn child(task: &[String]) {
    let (name, dir) = (task[1].as_str(), Path::new(&task[2]));
    let rows: u64 = task[3].parse().expect("a number");
    let opening = Opening { dir, level: Level::Strict, keep_log: false };
    let start = Instant::now();
    let mut store = store::open(name, opening);
    if task[0] == "write" {
        let row = |id: &u32| -> Row { (data::key(u64::from(*id)), data::step(u64::from(*id))) };
        for ids in data::shuffled(rows, 1).chunks(PUTS) {
            store.commit(&ids.iter().map(row).collect::<Vec<_>>());
        }
        let start = Instant::now();
        store.compact();
        process::report("compacted", start.elapsed().as_secs_f64());
        return;
    }
    let report = |name: &str| process::report(name, start.elapsed().as_secs_f64());
    report("open");
    let found = store.reader().get_newest(&data::key(rows / 2));
    assert!(found.is_some(), "the first read finds its row");
    report("first");
    store.wait_loaded();
    report("loaded");
    process::report_memory();
    let found = store.reader().scan();
    assert_eq!(found, (rows, data::touched_steps(rows)), "{name} has every row");
}
