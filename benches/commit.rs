//! What a commit costs, beside the barest loop that makes the same promise.
//!
//! `cargo bench --bench commit`; with other databases beside it: `peers/`.

#![allow(clippy::cast_possible_truncation, reason = "figures are small")]

mod support;

use std::cell::LazyCell;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::Criterion;
use steadfast::DatabaseConfig;

use support::clock::{percentile, time, time_shared};
use support::data::{self, COMMIT_IDS};
use support::limits::{self, GroupCommit, Sync, SyncedFile, WrittenFile};
use support::ours::Ours;
use support::scratch::{Scratch, folder_bytes};
use support::setup::{self, plural, sized};
use support::table::{SHOWN, Table};

const PWRITE: &str = "limit-pwrite-fdatasync";
const DIRECT: &str = "limit-direct-own-blocks";
const GROUP: &str = "limit-group-commit";
const WRITE: &str = "limit-one-write";
const LOCKED: &str = "limit-one-lock-one-write";
const OURS: &str = "steadfast";

fn main() {
    let mut c = setup::criterion();
    strict_alone(&mut c, "commit/strict-1-thread-1-put", 1, limits::RECORD_BYTES, 0.95);
    let bytes = limits::BATCH_RECORD_BYTES;
    strict_alone(&mut c, "commit/strict-1-thread-100-puts", 100, bytes, SHOWN);
    for threads in [8, 32, 128] {
        strict_together(&mut c, threads);
    }
    for threads in [1, 2] {
        buffered(&mut c, threads);
    }
    transfers(&mut c, "many", 100_000);
    transfers(&mut c, "8", 8);
    slowest_buffered(&mut c);
    log_bytes(&mut c);
    c.final_summary();
}

/// One thread, each commit synced before the next one.
fn strict_alone(c: &mut Criterion, group: &str, puts: usize, record_bytes: usize, aim: f64) {
    let scratch = Scratch::new("commit-strict");
    let pwrite = LazyCell::new(|| SyncedFile::create(&scratch.join("pwrite"), Sync::Fdatasync));
    let direct =
        LazyCell::new(|| SyncedFile::create(&scratch.join("direct"), Sync::DirectOwnBlocks));
    let ours = LazyCell::new(|| Ours::open(&scratch.join("db"), DatabaseConfig::strict()));

    let mut table = Table::new(c, group);
    table.row(PWRITE, 1, || &*pwrite, |file, n, _| time(n, || file.append(record_bytes)));
    table.row(DIRECT, 1, || &*direct, |file, n, _| time(n, || file.append(record_bytes)));
    table.row(
        OURS,
        1,
        || (&*ours, &*pwrite, &*direct),
        |(ours, pwrite, direct), n, notes| {
            notes.note_rate(PWRITE, n, time(n, || pwrite.append(record_bytes)));
            notes.note_rate(DIRECT, n, time(n, || direct.append(record_bytes)));
            let mut ids = fastrand::Rng::new();
            let mut batch = vec![0; puts];
            time(n, || {
                batch.fill_with(|| ids.u32(..COMMIT_IDS as u32));
                match batch[..] {
                    [id] => ours.put(id.into()),
                    _ => ours.put_all(&batch),
                }
            })
        },
    );
    let title = format!("strict, 1 thread, {puts} put{} a transaction", plural(puts as u64));
    let rows = [(PWRITE, &[][..]), (DIRECT, &[]), (OURS, &[(PWRITE, aim), (DIRECT, SHOWN)])];
    table.print(&title, "commits/s", &rows);
}

/// Many threads that may share a sync.
fn strict_together(c: &mut Criterion, threads: u64) {
    let scratch = Scratch::new("commit-group");
    let bare = LazyCell::new(|| GroupCommit::create(&scratch.join("group")));
    let ours = LazyCell::new(|| Ours::open(&scratch.join("db"), DatabaseConfig::strict()));
    let record = [7; limits::RECORD_BYTES];
    let run_bare = |bare: &GroupCommit, n| time_shared(threads, n, |_| || bare.commit(&record));

    let mut table = Table::new(c, &format!("commit/strict-{threads}-threads"));
    table.row(GROUP, 1, || &*bare, |bare, n, _| run_bare(bare, n));
    table.row(
        OURS,
        1,
        || (&*ours, &*bare),
        |(ours, bare), n, notes| {
            notes.note_rate(GROUP, n, run_bare(bare, n));
            time_shared(threads, n, |_| put_random(ours))
        },
    );
    let title = format!("strict, {threads} threads, 1 put a transaction");
    table.print(&title, "commits/s", &[(GROUP, &[]), (OURS, &[(GROUP, 0.8)])]);
}

/// Commits that survive the process, not the power: one `write` before each acknowledgement.
fn buffered(c: &mut Criterion, threads: u64) {
    let scratch = Scratch::new("commit-buffered");
    let bare = LazyCell::new(|| WrittenFile::create(&scratch.join("written")));
    let ours = LazyCell::new(|| Ours::open(&scratch.join("db"), DatabaseConfig::buffered()));
    let record = [7; limits::RECORD_BYTES];

    let mut table = Table::new(c, &format!("commit/buffered-{threads}-thread{}", plural(threads)));
    table.row(
        WRITE,
        1,
        || &*bare,
        |bare, n, _| time_shared(threads, n, |_| || bare.append(&record)),
    );
    table.row(OURS, 1, || &*ours, |ours, n, _| time_shared(threads, n, |_| put_random(ours)));
    let title = format!("buffered, {threads} thread{}, 1 put a transaction", plural(threads));
    table.print(&title, "commits/s", &[(WRITE, &[]), (OURS, &[(WRITE, SHOWN)])]);
}

/// Two threads move money between accounts: each transaction reads two rows and writes both,
/// serializably. Beside it, a map behind one lock that is held while the bytes are written.
fn transfers(c: &mut Criterion, many: &str, accounts: u64) {
    const RETRIES: &str = "transfers begun again, of 1000";
    let scratch = Scratch::new("commit-transfers");
    let bare = LazyCell::new(|| {
        let balances = (0..accounts).map(|id| (data::key(id), 1_u64 << 40));
        let balances: HashMap<_, _> = balances.collect();
        (Mutex::new(balances), WrittenFile::create(&scratch.join("written")))
    });
    let ours = LazyCell::new(|| {
        let ours = Ours::open(&scratch.join("db"), DatabaseConfig::buffered());
        ours.load(&data::shuffled(accounts, 1));
        ours
    });
    let record = [7; 2 * limits::RECORD_BYTES];
    let two = |random: &mut fastrand::Rng| {
        let from = random.u64(..accounts);
        (data::key(from), data::key((from + random.u64(1..accounts)) % accounts))
    };

    let mut table = Table::new(c, &format!("commit/transfers-{many}-accounts"));
    table.row(
        LOCKED,
        1,
        || &*bare,
        |(balances, file), n, _| {
            time_shared(2, n, |_| {
                let mut random = fastrand::Rng::new();
                move || {
                    let (from, to) = two(&mut random);
                    let mut balances = balances.lock().expect("no thread panics");
                    *balances.get_mut(&from).expect("the account is there") -= 1;
                    *balances.get_mut(&to).expect("the account is there") += 1;
                    file.append(&record);
                }
            })
        },
    );
    table.row(
        OURS,
        1,
        || &*ours,
        |ours, n, notes| {
            let begun = AtomicU64::new(0);
            let elapsed = time_shared(2, n, |_| {
                let (mut random, begun) = (fastrand::Rng::new(), &begun);
                move || {
                    let (from, to) = two(&mut random);
                    begun.fetch_add(ours.exchange(&from, &to), Ordering::Relaxed);
                }
            });
            let again = begun.into_inner() - n;
            notes.note(RETRIES, 1000.0 * again as f64 / n as f64);
            elapsed
        },
    );
    let title = format!("transfers, buffered, 2 threads, {accounts} accounts");
    let rows = [(LOCKED, &[][..]), (OURS, &[(LOCKED, SHOWN)])];
    table.print(&title, "transfers/s", &rows).print(RETRIES, "", None);
}

/// How long the slowest commits of one thread take, over several segments of the log: whoever
/// fills one goes on to the next.
fn slowest_buffered(c: &mut Criterion) {
    const SLOWEST: &str = "slowest commit";
    const P9999: &str = "99.99 % of commits, at most";
    let commits = sized(1_000_000, 1_000);
    let scratch = Scratch::new("commit-slowest");
    let ours = LazyCell::new(|| Ours::open(&scratch.join("db"), DatabaseConfig::buffered()));

    let mut table = Table::new(c, "commit/buffered-slowest");
    table.row(
        OURS,
        commits,
        || &*ours,
        |ours, n, notes| {
            let mut put = put_random(ours);
            let mut micros = Vec::new();
            let elapsed = time(n * commits, || {
                let nanos = time(1, &mut put).as_nanos();
                micros.push((nanos / 1000) as u32);
            });
            micros.sort_unstable();
            notes.note(P9999, percentile(&micros, 0.9999));
            notes.note(SLOWEST, percentile(&micros, 1.0));
            elapsed
        },
    );
    let notes = table.print("buffered, 1 thread, timed one by one", "commits/s", &[(OURS, &[])]);
    notes.print(P9999, "µs", None);
    notes.print(SLOWEST, "µs", None);
}

fn put_random(ours: &Ours) -> impl FnMut() {
    let mut ids = fastrand::Rng::new();
    move || ours.put(ids.u64(..COMMIT_IDS))
}

/// How much longer the log is than the keys and values in it.
fn log_bytes(c: &mut Criterion) {
    let commits = sized(20_000, 1_000);
    let ids = data::shuffled(commits, 1);
    let mut table = Table::new(c, "commit/log-bytes");
    let mut measure = |name: &str, put: &dyn Fn(&Ours)| {
        table.row(
            name,
            commits,
            || (),
            |(), n, notes| {
                let mut elapsed = Duration::ZERO;
                for _ in 0..n {
                    let scratch = Scratch::new("commit-log-bytes");
                    let ours = Ours::open(scratch.path(), DatabaseConfig::buffered());
                    elapsed += time(1, || put(&ours));
                    ours.db.close().expect("it closes");
                    let (log, _) = folder_bytes(&scratch.join("WAL")).expect("the log is there");
                    let over = log as f64 / commits as f64 - data::ROW_BYTES as f64;
                    notes.note(&format!("{name}: bytes over key and value"), over);
                }
                elapsed
            },
        );
    };
    measure("alone", &|ours| ids.iter().for_each(|id| ours.put(u64::from(*id))));
    measure("in-groups-of-100", &|ours| ids.chunks(100).for_each(|ids| ours.put_each(ids)));
    let rows = [("alone", &[][..]), ("in-groups-of-100", &[])];
    let notes = table.print("log bytes of a 1-put commit, buffered", "commits/s", &rows);
    notes.print("alone: bytes over key and value", "B", Some(64.0));
    notes.print("in-groups-of-100: bytes over key and value", "B", Some(32.0));
}
