//! Commits: threads that each put random rows, one transaction after the other, for a while.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::clock::percentile;
use crate::data::{self, COMMIT_IDS};
use crate::limits::{self, GroupCommit, Sync, SyncedFile, WrittenFile};
use crate::report::{self, Column, Table};
use crate::scratch::Scratch;
use crate::store::{self, Level, Opening, Row};
use crate::{Plan, process};

/// A commit workload and what is aimed for in it.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    title: &'static str,
    level: Level,
    threads: usize,
    puts: usize,
    limits: &'static [&'static str],
    aims: &'static [(&'static str, f64)],
}

const PWRITE: &str = "limit: pwrite + fdatasync";
const DIRECT: &str = "limit: O_DIRECT|O_DSYNC, own blocks";
const GROUP: &str = "limit: group commit, nothing behind";
const WRITE: &str = "limit: one write a transaction";

/// All of them.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "strict-1",
        title: "strict, 1 thread, 1 put",
        level: Level::Strict,
        threads: 1,
        puts: 1,
        limits: &[PWRITE, DIRECT],
        aims: &[(PWRITE, 0.95), ("fjall", 1.0), ("sqlite", 1.0)],
    },
    Workload {
        name: "strict-8",
        title: "strict, 8 threads, 1 put",
        level: Level::Strict,
        threads: 8,
        puts: 1,
        limits: &[GROUP],
        aims: &[(GROUP, 0.8), ("fjall", 3.5), ("rocksdb", 1.5)],
    },
    Workload {
        name: "strict-32",
        title: "strict, 32 threads, 1 put",
        level: Level::Strict,
        threads: 32,
        puts: 1,
        limits: &[GROUP],
        aims: &[(GROUP, 0.8), ("fjall", 10.0), ("rocksdb", 1.5)],
    },
    Workload {
        name: "strict-128",
        title: "strict, 128 threads, 1 put",
        level: Level::Strict,
        threads: 128,
        puts: 1,
        limits: &[GROUP],
        aims: &[(GROUP, 0.8), ("fjall", 20.0), ("rocksdb", 1.5)],
    },
    Workload {
        name: "strict-100-puts",
        title: "strict, 1 thread, 100 puts",
        level: Level::Strict,
        threads: 1,
        puts: 100,
        limits: &[PWRITE, DIRECT],
        aims: &[("fjall", 2.5)],
    },
    Workload {
        name: "buffered-1",
        title: "buffered, 1 thread, 1 put",
        level: Level::Buffered,
        threads: 1,
        puts: 1,
        limits: &[WRITE],
        aims: &[("fjall", 2.0)],
    },
    Workload {
        name: "buffered-2",
        title: "buffered, 2 threads, 1 put",
        level: Level::Buffered,
        threads: 2,
        puts: 1,
        limits: &[WRITE],
        aims: &[("fjall", 3.0)],
    },
];

const COLUMNS: &[Column] = &[
    Column { figure: "rate", heading: "commits/s", unit: 1.0 },
    Column { figure: "p50", heading: "p50 µs", unit: 1000.0 },
    Column { figure: "p99", heading: "p99 µs", unit: 1000.0 },
    Column { figure: "p99.9", heading: "p99.9 µs", unit: 1000.0 },
    Column { figure: "max", heading: "max µs", unit: 1000.0 },
];

/// Measures a workload and prints its table.
pub(crate) fn measure(plan: &Plan, workload: &Workload) {
    let contenders = [workload.limits, store::NAMES].concat();
    let seconds = plan.seconds.to_string();
    let measured = report::measure(plan, &contenders, |contender| {
        let scratch = Scratch::new("peers-commits");
        let dir = scratch.path().to_str().expect("a plain name");
        process::run(&["commits", workload.name, contender, dir, &seconds])
    });
    measured.print(&Table { title: workload.title, columns: COLUMNS, aims: workload.aims });
}

/// `[workload, contender, dir, seconds]`
pub(crate) fn child(task: &[String]) {
    let workload = WORKLOADS.iter().find(|workload| workload.name == task[0]);
    let workload = workload.expect("the parent knows it");
    let dir = Path::new(&task[2]);
    let lasting = Duration::from_secs_f64(task[3].parse().expect("a number"));
    let record_bytes =
        if workload.puts == 1 { limits::RECORD_BYTES } else { limits::BATCH_RECORD_BYTES };
    let record = vec![7; record_bytes];
    match task[1].as_str() {
        PWRITE | DIRECT => {
            let sync = if task[1] == PWRITE { Sync::Fdatasync } else { Sync::DirectOwnBlocks };
            let file = SyncedFile::create(&dir.join("limit"), sync);
            run(workload, lasting, |_| || file.append(record_bytes));
        }
        GROUP => {
            let group = GroupCommit::create(&dir.join("limit"));
            run(workload, lasting, |_| || group.commit(&record));
        }
        WRITE => {
            let file = WrittenFile::create(&dir.join("limit"));
            run(workload, lasting, |_| || file.append(&record));
        }
        name => {
            let store = store::open(name, Opening { dir, level: workload.level, keep_log: false });
            run(workload, lasting, |thread| {
                let mut ids = fastrand::Rng::with_seed(thread as u64);
                let mut rows: Vec<Row> = vec![([0; _], [0; _]); workload.puts];
                let store = &store;
                move || {
                    for row in &mut rows {
                        let id = ids.u64(..COMMIT_IDS);
                        *row = (data::key(id), data::value(id));
                    }
                    store.commit(&rows);
                }
            });
            // Not closed: what closing costs is not asked here, and the folder goes anyway.
            std::mem::forget(store);
        }
    }
}

/// Lets every thread commit until the time is over, and reports.
fn run<C: FnMut()>(
    workload: &Workload,
    lasting: Duration,
    committer: impl Fn(usize) -> C + std::marker::Sync,
) {
    let ready = Barrier::new(workload.threads + 1);
    let (nanos, elapsed) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workload.threads)
            .map(|number| {
                let (ready, committer) = (&ready, &committer);
                scope.spawn(move || {
                    let mut commit = committer(number);
                    let mut nanos = Vec::with_capacity(1 << 20);
                    ready.wait();
                    let start = Instant::now();
                    let mut last = start;
                    while last.duration_since(start) < lasting {
                        commit();
                        let now = Instant::now();
                        nanos.push(now.duration_since(last).as_nanos() as u32);
                        last = now;
                    }
                    nanos
                })
            })
            .collect();
        ready.wait();
        let start = Instant::now();
        let mut nanos = Vec::new();
        for thread in threads {
            nanos.append(&mut thread.join().expect("no committer panics"));
        }
        (nanos, start.elapsed())
    });
    let mut nanos = nanos;
    nanos.sort_unstable();
    process::report("rate", nanos.len() as f64 / elapsed.as_secs_f64());
    process::report("p50", percentile(&nanos, 0.5));
    process::report("p99", percentile(&nanos, 0.99));
    process::report("p99.9", percentile(&nanos, 0.999));
    process::report("max", percentile(&nanos, 1.0));
}
