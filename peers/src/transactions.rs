//! Serializable transactions: two threads move money between accounts, few of which both want
//! at once, or most. Each reads two rows and writes both.
//!
//! A transaction that loses to another starts again until it is through, so all of them finish
//! or the run does not. At the end nothing of the money may be missing.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::clock::percentile;
use crate::data::{self, KeyBytes, ValueBytes};
use crate::report::{self, Column, Table};
use crate::scratch::Scratch;
use crate::store::{self, Ledger, Level, Opening};
use crate::{Plan, process};

/// A workload of transactions and what is aimed for in it.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    title: &'static str,
    level: Level,
    accounts: u64,
}

const FEW: u64 = 8;
const MANY: u64 = 100_000;

/// All of them.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "transactions-low",
        title: "transfers, buffered, 2 threads, 100,000 accounts",
        level: Level::Buffered,
        accounts: MANY,
    },
    Workload {
        name: "transactions-high",
        title: "transfers, buffered, 2 threads, 8 accounts",
        level: Level::Buffered,
        accounts: FEW,
    },
    Workload {
        name: "transactions-strict-low",
        title: "transfers, strict, 2 threads, 100,000 accounts",
        level: Level::Strict,
        accounts: MANY,
    },
    Workload {
        name: "transactions-strict-high",
        title: "transfers, strict, 2 threads, 8 accounts",
        level: Level::Strict,
        accounts: FEW,
    },
];

const THREADS: usize = 2;

/// What every account has at first.
const BALANCE: u64 = 1 << 40;

const AIMS: &[(&str, f64)] = &[("fjall", 2.0), ("redb", 2.0)];

const COLUMNS: &[Column] = &[
    Column { figure: "rate", heading: "transfers/s", unit: 1.0 },
    Column { figure: "retries", heading: "retries each", unit: 1.0 },
    Column { figure: "retries max", heading: "at most", unit: 1.0 },
    Column { figure: "share", heading: "lesser share", unit: 1.0 },
    Column { figure: "p99.9", heading: "p99.9 µs", unit: 1000.0 },
    Column { figure: "max", heading: "max µs", unit: 1000.0 },
];

/// Measures a workload and prints its table.
pub(crate) fn measure(plan: &Plan, workload: &Workload) {
    let seconds = plan.seconds.to_string();
    let measured = report::measure(plan, store::LEDGERS, |contender| {
        let scratch = Scratch::new("peers-transactions");
        let dir = scratch.path().to_str().expect("a plain name");
        process::run(&["transactions", workload.name, contender, dir, &seconds])
    });
    measured.print(&Table { title: workload.title, columns: COLUMNS, aims: AIMS });
}

/// A row whose value begins with what the account has.
pub(crate) fn account(id: u64, balance: u64) -> (KeyBytes, ValueBytes) {
    let mut value = data::value(id);
    set_balance(&mut value, balance);
    (data::key(id), value)
}

/// What an account has.
pub(crate) fn balance(value: &[u8]) -> u64 {
    u64::from_le_bytes(*value.first_chunk().expect("an account begins with eight bytes"))
}

/// Moves one from one account to the other.
pub(crate) fn moved(from: &[u8], to: &[u8]) -> (ValueBytes, ValueBytes) {
    let copy = |value: &[u8]| ValueBytes::try_from(value).expect("an account is one row");
    let (mut less, mut more) = (copy(from), copy(to));
    set_balance(&mut less, balance(from) - 1);
    set_balance(&mut more, balance(to) + 1);
    (less, more)
}

fn set_balance(value: &mut ValueBytes, balance: u64) {
    value[..8].copy_from_slice(&balance.to_le_bytes());
}

/// `[workload, contender, dir, seconds]`
pub(crate) fn child(task: &[String]) {
    let workload = WORKLOADS.iter().find(|workload| workload.name == task[0]);
    let workload = workload.expect("the parent knows it");
    let lasting = Duration::from_secs_f64(task[3].parse().expect("a number"));
    let opening = Opening { dir: Path::new(&task[2]), level: workload.level, keep_log: false };
    let ledger = store::open_ledger(&task[1], opening);
    let accounts: Vec<_> = (0..workload.accounts).map(|id| account(id, BALANCE)).collect();
    accounts.chunks(1000).for_each(|accounts| ledger.open_accounts(accounts));

    run(&*ledger, workload.accounts, lasting);
    let keys: Vec<_> = accounts.iter().map(|(key, _)| *key).collect();
    let total: u64 = keys.iter().map(|key| ledger.balance(key)).sum();
    assert_eq!(total, workload.accounts * BALANCE, "money was lost or made");
    // Not closed: what closing costs is not asked here, and the folder goes anyway.
    std::mem::forget(ledger);
}

/// What one thread did.
#[derive(Default)]
struct Done {
    nanos: Vec<u32>,
    retries: u64,
    retries_max: u64,
}

fn run(ledger: &dyn Ledger, accounts: u64, lasting: Duration) {
    let ready = Barrier::new(THREADS);
    let start = Instant::now();
    let done: Vec<Done> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let ready = &ready;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(number as u64);
                    let mut done = Done::default();
                    ready.wait();
                    let start = Instant::now();
                    let mut last = start;
                    while last.duration_since(start) < lasting {
                        let from = random.u64(..accounts);
                        let to = (from + random.u64(1..accounts)) % accounts;
                        let retries = ledger.transfer(&data::key(from), &data::key(to));
                        let now = Instant::now();
                        done.nanos.push(now.duration_since(last).as_nanos() as u32);
                        done.retries += retries;
                        done.retries_max = done.retries_max.max(retries);
                        last = now;
                    }
                    done
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    });
    let elapsed = start.elapsed().as_secs_f64();

    let lesser = done.iter().map(|done| done.nanos.len()).min().unwrap_or(0);
    let retries: u64 = done.iter().map(|done| done.retries).sum();
    let retries_max = done.iter().map(|done| done.retries_max).max().unwrap_or(0);
    let mut nanos: Vec<u32> = done.into_iter().flat_map(|done| done.nanos).collect();
    nanos.sort_unstable();
    let transfers = nanos.len() as f64;
    process::report("rate", transfers / elapsed);
    process::report("retries", retries as f64 / transfers);
    process::report("retries max", retries_max as f64);
    process::report("share", lesser as f64 / transfers);
    process::report("p99.9", percentile(&nanos, 0.999));
    process::report("max", percentile(&nanos, 1.0));
}
