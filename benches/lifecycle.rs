//! What keeps a database small and quick to open: snapshots written and loaded, opening,
//! compaction; and what commits and reads notice of them.
//!
//! `cargo bench --bench lifecycle`; databases of 5 and 10 million rows too:
//! `STEADFAST_BENCH_LARGE=1`; the best samples instead of medians: `STEADFAST_BENCH_BEST=1`.
//! Whatever is opened is opened by a process of its own, so that nobody's memory is warm, and
//! is checked row by row after the clock has stopped. What beside other databases: `peers/`.

#![allow(clippy::cast_possible_truncation, reason = "figures are small")]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::Criterion;
use steadfast::{CompactMode, Compression, Database, DatabaseConfig};

use support::clock::{percentile, time};
use support::data::{self, ROW_BYTES};
use support::limits::{self, Sync, SyncedFile};
use support::ours::Ours;
use support::process::{self, Figures};
use support::scratch::{self, Scratch, folder_bytes};
use support::setup::{self, sized};
use support::table::{Aims, SHOWN, Table};

/// Bare synced writes, alone and beside the bytes of a snapshot written and synced raw.
const LIMIT: &str = "limit-pwrite-fdatasync: ";
/// Where a process reports a rate, a row is the time of so many.
const COUNTED: u64 = 1_000_000;
const PLAIN: &str = "steadfast-uncompressed";
const LZ4: &str = "steadfast-lz4";

fn main() {
    if let Some(task) = process::task() {
        return child(&task);
    }
    // One iteration a sample: each takes a process or a second.
    let brief = Duration::from_millis(1);
    let mut c = setup::criterion().warm_up_time(brief).measurement_time(brief);
    let million = sized(1_000_000, 5_000);
    write_snapshot(&mut c, million);
    load_snapshot(&mut c, million);
    open_clean(&mut c, "lifecycle/open-clean-1m", million);
    if setup::large() {
        open_clean(&mut c, "lifecycle/open-clean-10m", 10 * million);
    }
    let rows = if setup::large() { 5 * million } else { million };
    read_while_loading(&mut c, rows);
    commit_during_checkpoint(&mut c, "strict", rows);
    commit_during_checkpoint(&mut c, "buffered", rows);
    open_killed(&mut c, rows);
    first_commit(&mut c);
    at_rest(&mut c, million);
    compact_half_dead(&mut c, million);
    c.final_summary();
}

/// How snapshots may be compressed in this build.
fn compressions() -> Vec<(&'static str, Compression)> {
    vec![
        (PLAIN, Compression::None),
        #[cfg(feature = "lz4")]
        (LZ4, Compression::Lz4),
    ]
}

fn compression(name: &str) -> Compression {
    let all = compressions();
    let found = all.iter().find(|(known, _)| *known == name);
    found.expect("only what this build has is asked for").1
}

/// What the build compresses with if nobody chooses.
fn usual() -> &'static str {
    compressions().last().expect("there is at least one").0
}

// ---- Writing and loading a snapshot --------------------------------------------------------

/// A checkpoint of everything, beside the same bytes written and synced raw just before.
fn write_snapshot(c: &mut Criterion, rows: u64) {
    const RAW_PLAIN: &str = "limit-write-and-sync-before-uncompressed";
    const RAW_LZ4: &str = "limit-write-and-sync-before-lz4";
    let scratch = Scratch::new("lifecycle-write");
    let raw = scratch.join("raw");
    let raw_bytes = rows * ROW_BYTES as u64;
    let mut table = Table::new(c, "lifecycle/write-snapshot");
    for (name, compression) in compressions() {
        let limit = if name == PLAIN { RAW_PLAIN } else { RAW_LZ4 };
        let open = || {
            let config = DatabaseConfig::buffered().compression(compression).manual_checkpoints();
            let ours = Ours::open(&scratch.join(name), config);
            ours.load_steps(&data::shuffled(rows, 1));
            ours
        };
        table.row(name, rows, open, |ours, n, notes| {
            let mut sum = Duration::ZERO;
            for _ in 0..n {
                // What the newest snapshot has is not written again.
                ours.put_step(0);
                notes.note_rate(limit, rows, time(1, || limits::write_raw(&raw, raw_bytes)));
                let info = ours.db.checkpoint().expect("it is written");
                assert!(info.written && info.rows >= rows, "everything is in it");
                sum += info.duration;
                notes.note(&size_of(name), info.bytes as f64 / rows as f64);
                ours.db.compact(CompactMode::WalOnly).expect("the older one is removed");
            }
            sum
        });
    }
    let title = format!("checkpoint of {rows} rows, {ROW_BYTES} B each");
    let (plain, lz4) = ([(RAW_PLAIN, 0.5)], [(RAW_LZ4, 0.5)]);
    let shown = [(RAW_PLAIN, &[][..]), (PLAIN, &plain), (RAW_LZ4, &[]), (LZ4, &lz4)];
    let notes = table.print(&title, "rows/s", &shown);
    for (name, _) in compressions() {
        notes.print(&size_of(name), &format!("B a row of {ROW_BYTES}"), None);
    }
    notes.print_at_least(LZ4, "rows/s", 2e6);
}

fn size_of(name: &str) -> String {
    format!("{name}: the file")
}

/// Opening until everything is in memory, beside replaying the same rows from the log.
fn load_snapshot(c: &mut Criterion, rows: u64) {
    const CHECKSUM: &str = "limit-checksum-the-snapshot";
    const REPLAY: &str = "limit-our-replay-of-the-log";
    let scratch = Scratch::new("lifecycle-load");
    let count = rows.to_string();
    let (log, copy) = (scratch.join("log"), scratch.join("copy"));
    let mut table = Table::new(c, "lifecycle/load-snapshot");
    let written = || process::run_and_kill(&["log", &path(&log), &count]);
    table.row(REPLAY, rows, written, |_, n, notes| {
        let opened = |_| {
            scratch::copy_folder(&log, &copy).expect("the disk has room");
            let figures = process::run(&["open", &path(&copy), &count]);
            notes.note(&cpu_of(REPLAY), figures["cpu"]);
            std::fs::remove_dir_all(&copy).expect("it is ours");
            seconds(&figures, "loaded")
        };
        (0..n).map(opened).sum()
    });
    for (name, _) in compressions() {
        let folder = path(&scratch.join(name));
        let written = || process::run(&["snapshot", &folder, &count, name]);
        table.row(name, rows, written, |_, n, notes| {
            let opened = |_| {
                if name == PLAIN {
                    let figures = process::run(&["checksum", &folder]);
                    notes.note_rate(CHECKSUM, rows, seconds(&figures, "seconds"));
                }
                let figures = process::run(&["open", &folder, &count]);
                notes.note(&cpu_of(name), figures["cpu"]);
                seconds(&figures, "loaded")
            };
            (0..n).map(opened).sum()
        });
    }
    let title = format!("open and load {rows} rows");
    let aims: Aims<'_> = &[(REPLAY, 1.4), (CHECKSUM, SHOWN)];
    let shown = [(REPLAY, &[][..]), (CHECKSUM, &[]), (PLAIN, aims), (LZ4, aims)];
    let notes = table.print(&title, "rows/s", &shown);
    for (name, _) in compressions() {
        notes.print_at_least(name, "rows/s", 6e6);
    }
    for name in [REPLAY, PLAIN, LZ4] {
        notes.print(&cpu_of(name), "s of all threads", None);
    }
}

fn cpu_of(name: &str) -> String {
    format!("{name}: processor time")
}

// ---- Opening -------------------------------------------------------------------------------

/// Opening what was closed, until the first read has returned.
fn open_clean(c: &mut Criterion, group: &str, rows: u64) {
    const READ: &str = "limit-open-and-read-1-MiB";
    const FIRST: &str = "steadfast-to-the-first-read";
    const FIRST_MS: &str = "opening to the first read";
    const OPEN_MS: &str = "of that until open returns";
    const LOADED_MS: &str = "opening to everything loaded";
    const MEMORY: &str = "memory at most, over memory at the end";
    let scratch = Scratch::new("lifecycle-open");
    let (folder, count) = (path(&scratch.join("db")), rows.to_string());
    let mut table = Table::new(c, group);
    let written = || process::run(&["snapshot", &folder, &count, usual()]);
    table.row(FIRST, 1, written, |_, n, notes| {
        let opened = |_| {
            notes.note_rate(READ, 1, seconds(&process::run(&["read", &folder]), "seconds"));
            let figures = process::run(&["open", &folder, &count]);
            notes.note(OPEN_MS, 1e3 * figures["open"]);
            notes.note(FIRST_MS, 1e3 * figures["first"]);
            notes.note(LOADED_MS, 1e3 * figures["loaded"]);
            notes.note(MEMORY, figures["rss peak"] / figures["rss"]);
            seconds(&figures, "first")
        };
        (0..n).map(opened).sum()
    });
    let title = format!("opening {rows} rows, closed cleanly");
    let notes = table.print(&title, "openings/s", &[(READ, &[]), (FIRST, &[(READ, SHOWN)])]);
    notes.print(FIRST_MS, "ms", Some(5.0));
    notes.print(OPEN_MS, "ms", None);
    notes.print(LOADED_MS, "ms", None);
    notes.print(MEMORY, "×", None);
}

/// The first commit after opening, which makes its segment itself, since opening writes nothing,
/// beside the ones behind it.
fn first_commit(c: &mut Criterion) {
    const CREATED: &str = "first-commit-in-a-new-database";
    const CLEAN: &str = "first-commit-after-a-clean-close";
    const NEXT: &str = "limit-the-commits-behind-it";
    let scratch = Scratch::new("lifecycle-first-commit");
    let folder = scratch.join("db");
    let mut table = Table::new(c, "lifecycle/first-commit");
    for (name, anew) in [(CREATED, true), (CLEAN, false)] {
        let opened = || drop(process::run(&["first", &path(&folder)]));
        table.row(name, 1, opened, |(), n, notes| {
            let committed = |_| {
                if anew {
                    std::fs::remove_dir_all(&folder).expect("it is ours");
                }
                let figures = process::run(&["first", &path(&folder)]);
                notes.note_rate(NEXT, 1, seconds(&figures, "next"));
                seconds(&figures, "first")
            };
            (0..n).map(committed).sum()
        });
    }
    let aims: Aims<'_> = &[(NEXT, SHOWN)];
    let shown = [(NEXT, &[][..]), (CREATED, aims), (CLEAN, aims)];
    table.print("strict commits of one put", "commits/s", &shown);
}

/// Opening what a killed process left: with a checkpoint the size of the database does not
/// matter, only the commits since.
fn open_killed(c: &mut Criterion, rows: u64) {
    const ALONE: &str = "limit-the-commits-since-in-an-empty-database";
    const SINCE: &str = "steadfast-with-a-checkpoint-before-the-commits";
    const TENTH: &str = "steadfast-with-a-tenth-of-the-commits";
    const WITHOUT: &str = "steadfast-without-a-checkpoint";
    let since = sized(100_000, 1_000);
    let scratch = Scratch::new("lifecycle-killed");
    let copy = scratch.join("copy");
    let mut table = Table::new(c, "lifecycle/open-killed");
    for (name, rows, checkpoint, since) in [
        (ALONE, 0, "no", since),
        (SINCE, rows, "yes", since),
        (TENTH, rows, "yes", since / 10),
        (WITHOUT, rows, "no", since),
    ] {
        let folder = scratch.join(name);
        let (count, commits) = (rows.to_string(), since.to_string());
        let left =
            || process::run_and_kill(&["kill", &path(&folder), &count, checkpoint, &commits]);
        table.row(name, 1, left, |_, n, notes| {
            let opened = |_| {
                scratch::copy_folder(&folder, &copy).expect("the disk has room");
                let figures = process::run(&["open", &path(&copy), &rows.max(since).to_string()]);
                std::fs::remove_dir_all(&copy).expect("it is ours");
                notes.note(&format!("{name}: opening to the first read"), 1e3 * figures["first"]);
                notes.note(&format!("{name}: to everything loaded"), 1e3 * figures["loaded"]);
                seconds(&figures, "first")
            };
            (0..n).map(opened).sum()
        });
    }
    let title = format!("opening {rows} rows after a kill, {since} commits since the checkpoint");
    let aims: Aims<'_> = &[(ALONE, 0.5), (WITHOUT, SHOWN)];
    let notes = table.print(
        &title,
        "openings/s",
        &[(ALONE, &[]), (WITHOUT, &[]), (SINCE, aims), (TENTH, &[(SINCE, 5.0)])],
    );
    for name in [ALONE, SINCE, TENTH, WITHOUT] {
        notes.print(&format!("{name}: opening to the first read"), "ms", None);
        notes.print(&format!("{name}: to everything loaded"), "ms", None);
    }
}

// ---- Beside reads and commits --------------------------------------------------------------

/// Point reads on one thread from the moment the database is open, beside its loading.
fn read_while_loading(c: &mut Criterion, rows: u64) {
    const LOADED: &str = "limit-everything-loaded";
    const FIRST: &str = "steadfast-in-the-first-20-ms";
    const LOADING: &str = "steadfast-until-everything-is-loaded";
    const COLD: &str = "steadfast-with-nothing-loaded-or-loading";
    const SLOWEST: &str = "slowest read while loading";
    let scratch = Scratch::new("lifecycle-reads");
    let (folder, count) = (path(&scratch.join("db")), rows.to_string());
    let mut table = Table::new(c, "lifecycle/read-while-loading");
    let written = || process::run(&["snapshot", &folder, &count, usual()]);
    table.row(FIRST, COUNTED, written, |_, n, notes| {
        let opened = |_| {
            let figures = process::run(&["reads", &folder, &count, &alone_ms()]);
            let cold = process::run(&["cold", &folder, &count, &alone_ms()]);
            notes.note(COLD, cold["first"]);
            notes.note(LOADED, figures["loaded"]);
            notes.note(LOADING, figures["loading"]);
            notes.note(SLOWEST, figures["slowest"]);
            Duration::from_secs_f64(COUNTED as f64 / figures["first"])
        };
        (0..n).map(opened).sum()
    });
    let title = format!("point reads while {rows} rows are loaded, 1 thread");
    let aims: Aims<'_> = &[(LOADED, 0.1)];
    let shown = [(LOADED, &[][..]), (COLD, aims), (FIRST, aims), (LOADING, aims)];
    let notes = table.print(&title, "reads/s", &shown);
    notes.print(SLOWEST, "ms", None);
}

/// Commits on one thread while everything is written into a snapshot, beside the same without.
fn commit_during_checkpoint(c: &mut Criterion, mode: &str, rows: u64) {
    const ALONE: &str = "limit-no-checkpoint";
    const BESIDE: &str = "steadfast-during-a-checkpoint";
    let scratch = Scratch::new("lifecycle-commits");
    let (folder, count) = (path(&scratch.join("db")), rows.to_string());
    let mut table = Table::new(c, &format!("lifecycle/commit-during-checkpoint-{mode}"));
    let written = || process::run(&["snapshot", &folder, &count, usual()]);
    table.row(BESIDE, COUNTED, written, |_, n, notes| {
        let measured = |_| {
            let figures = process::run(&["commits", &folder, &count, mode, &alone_ms()]);
            for (name, figure) in &figures {
                notes.note(name, *figure);
            }
            notes.note(ALONE, figures["rate alone"]);
            Duration::from_secs_f64(COUNTED as f64 / figures["rate beside"])
        };
        (0..n).map(measured).sum()
    });
    let title = format!("{mode} commits during a checkpoint of {rows} rows, 1 thread");
    let notes = table.print(&title, "commits/s", &[(ALONE, &[]), (BESIDE, &[(ALONE, SHOWN)])]);
    for when in ["alone", "beside"] {
        for share in ["p50", "p99", "p99.9"] {
            notes.print(&format!("{share} {when}"), "µs", None);
        }
        notes.print(&format!("slowest {when}"), "µs", (when == "beside").then_some(50_000.0));
    }
    notes.print("slowest first", "µs", None);
    notes.print("checkpoint", "s", None);
    notes.print_ratio("p99 beside", "p99 alone", 2.0);
    for (share, when) in [("p99", "alone"), ("p99", "beside"), ("slowest", "beside")] {
        notes.print(&format!("{LIMIT}{share} {when}"), "µs", None);
    }
}

// ---- Space ---------------------------------------------------------------------------------

/// What a database takes on the disk when everything has been compacted and closed.
fn at_rest(c: &mut Criterion, rows: u64) {
    let scratch = Scratch::new("lifecycle-rest");
    let count = rows.to_string();
    let mut table = Table::new(c, "lifecycle/disk-at-rest");
    for (name, _) in compressions() {
        let folder = scratch.join(name);
        table.row(
            name,
            rows,
            || (),
            |(), n, notes| {
                let compacted = |_| {
                    let figures = process::run(&["snapshot", &path(&folder), &count, name]);
                    let (_, on_disk) = folder_bytes(&folder).expect("it is there");
                    notes.note(&format!("{name}: disk at rest"), on_disk as f64 / rows as f64);
                    std::fs::remove_dir_all(&folder).expect("it is ours");
                    seconds(&figures, "compacted")
                };
                (0..n).map(compacted).sum()
            },
        );
    }
    let title = format!("full compaction of {rows} rows that only the log has");
    let notes = table.print(&title, "rows/s", &[(PLAIN, &[]), (LZ4, &[])]);
    for (name, _) in compressions() {
        notes.print(&format!("{name}: disk at rest"), &format!("B a row of {ROW_BYTES}"), None);
    }
}

/// Full compaction when every second row was deleted, with a thread that reads.
fn compact_half_dead(c: &mut Criterion, rows: u64) {
    const OURS: &str = "steadfast";
    const SHARE: &str = "dead bytes on disk that are given back, %";
    const READS: &str = "reads/s beside it";
    const READS_ALONE: &str = "limit: reads/s without it";
    const HEAP: &str = "memory of the store, over that of the living";
    let scratch = Scratch::new("lifecycle-dead");
    let (folder, fresh) = (scratch.join("db"), scratch.join("fresh"));
    let count = rows.to_string();
    let mut table = Table::new(c, "lifecycle/compact-half-dead");
    // What the living take if nothing else was ever there.
    let living = || process::run(&["living", &path(&fresh), &count]);
    table.row(OURS, rows, living, |living, n, notes| {
        let compacted = |_| {
            let figures = process::run(&["dead", &path(&folder), &count, &alone_ms()]);
            let dead = figures["before"] - living["bytes"];
            notes.note(SHARE, 100.0 * (figures["before"] - figures["bytes"]) / dead);
            notes.note(READS, figures["reads"]);
            notes.note(READS_ALONE, figures["reads alone"]);
            notes.note(HEAP, figures["heap"] / living["heap"]);
            std::fs::remove_dir_all(&folder).expect("it is ours");
            seconds(&figures, "seconds")
        };
        (0..n).map(compacted).sum()
    });
    let title = format!("compaction of {rows} rows, every second one dead");
    let notes = table.print(&title, "rows/s", &[(OURS, &[])]);
    notes.print_at_least(SHARE, "%", 95.0);
    notes.print(READS_ALONE, "", None);
    notes.print(READS, "", None);
    notes.print(HEAP, "×", None);
}

// ---- In a process of its own ---------------------------------------------------------------

fn path(path: &Path) -> String {
    path.to_str().expect("the benches' folder has a plain name").to_owned()
}

fn seconds(figures: &Figures, name: &str) -> Duration {
    Duration::from_secs_f64(figures[name])
}

/// For how long what goes on beside something is done alone first, in ms.
fn alone_ms() -> String {
    sized(1_500, 20).to_string()
}

/// Without checkpoints of its own.
fn manual(compressed: &str) -> DatabaseConfig {
    DatabaseConfig::buffered().compression(compression(compressed)).manual_checkpoints()
}

/// `[task, path, rows, …]`
fn child(task: &[String]) {
    let path = Path::new(&task[1]);
    let number = |at: usize| task[at].parse::<u64>().expect("the parent wrote a number");
    let millis = |at: usize| Duration::from_millis(number(at));
    match task[0].as_str() {
        "log" => {
            let ours = Ours::open(path, manual(PLAIN));
            ours.load_steps(&data::shuffled(number(2), 1));
            process::ready_to_die();
        }
        "snapshot" => {
            let ours = Ours::open(path, manual(&task[3]));
            ours.load_steps(&data::shuffled(number(2), 1));
            let took = ours.db.compact(CompactMode::Full).expect("it is compacted").duration;
            process::report("compacted", took.as_secs_f64());
            ours.db.close().expect("it closes");
        }
        "kill" => leave_killed(path, number(2), &task[3] == "yes", number(4)),
        "checksum" => report_seconds(|| limits::checksum_files(path)),
        "read" => report_seconds(|| limits::read_a_little(path, 1 << 20)),
        "open" => open(path, number(2)),
        "first" => report_first_commit(path),
        "reads" => read_at_once(path, number(2), millis(3), true),
        "cold" => read_at_once(path, number(2), millis(3), false),
        "commits" => commit_beside(path, number(2), &task[3], millis(4)),
        "living" => {
            let ours = Ours::open(path, manual(usual()));
            ours.load_steps(&halves(number(2)).0);
            ours.db.compact(CompactMode::Full).expect("it is compacted");
            report_heap(&ours);
            ours.db.close().expect("it closes");
            process::report("bytes", folder_bytes(path).expect("it is there").1 as f64);
        }
        "dead" => compact_dead(path, number(2), millis(3)),
        unknown => panic!("no such task: {unknown}"),
    }
}

fn report_first_commit(path: &Path) {
    const NEXT: u64 = 20;
    let config = DatabaseConfig::strict().manual_checkpoints();
    let db = Database::open_or_create(path, config).expect("it opens");
    // Its first commit in a new database is the one that makes the run.
    let run = db.resolve_run("bench");
    let start = Instant::now();
    let run = match run {
        Ok(run) => db.kv_put(run, data::key(0), &data::value(0)).map(|_| run),
        Err(_) => db.create_run("bench"),
    }
    .expect("it commits");
    process::report("first", start.elapsed().as_secs_f64());
    let start = Instant::now();
    for id in 0..NEXT {
        db.kv_put(run, data::key(id), &data::value(id)).expect("it commits");
    }
    process::report("next", start.elapsed().as_secs_f64() / NEXT as f64);
    db.close().expect("it closes");
}

fn report_seconds<T>(work: impl FnOnce() -> T) {
    let start = Instant::now();
    std::hint::black_box(work());
    process::report("seconds", start.elapsed().as_secs_f64());
}

fn report_heap(ours: &Ours) {
    process::report("heap", ours.db.stats().expect("it is open").store.heap_bytes as f64);
}

/// Fills a database, makes a checkpoint if asked for, commits so many puts of a row each, and
/// waits to be killed.
fn leave_killed(path: &Path, rows: u64, checkpoint: bool, since: u64) {
    let ours = Ours::open(path, manual(usual()));
    ours.load_steps(&data::shuffled(rows, 1));
    if checkpoint {
        ours.db.checkpoint().expect("it is written");
        ours.db.compact(CompactMode::WalOnly).expect("what came before goes");
    }
    for id in data::shuffled(rows.max(since), 2).into_iter().take(since as usize) {
        ours.put_step(id.into());
    }
    process::ready_to_die();
}

/// Opens, reads one row, waits for all, and reports after each; then checks all.
fn open(path: &Path, rows: u64) {
    let key = data::key(rows / 2);
    let before = process::cpu_seconds();
    let start = Instant::now();
    let report = |name: &str| process::report(name, start.elapsed().as_secs_f64());
    let db = Database::open_existing(path, manual(usual())).expect("it opens");
    report("open");
    let run = db.resolve_run("bench").expect("the run is there");
    let ours = Ours { db, run };
    assert!(ours.get(&key).is_some(), "the first read finds its row");
    report("first");
    ours.db.wait_loaded().expect("everything is sound");
    report("loaded");
    process::report("cpu", process::cpu_seconds() - before);
    process::report_memory();
    check(&ours, 0..rows);
    ours.db.close().expect("it closes");
}

/// Every row is there, with its value, and nothing else.
fn check(ours: &Ours, ids: impl Iterator<Item = u64>) {
    let view = ours.view();
    let mut found = view.kv_scan(ours.run, b"").expect("it reads");
    for id in ids {
        let (key, found) = found.next().expect("there are more rows").expect("it reads");
        assert_eq!(key[..], data::key(id), "every key is there, in order");
        assert_eq!(found.value.as_bytes(), Some(&data::step(id)[..]), "the value of row {id}");
    }
    assert!(found.next().is_none(), "nothing else is there");
}

/// Reads random rows from the moment that the database is open, and for some time when
/// everything is loaded; without threads, for that time from the snapshot.
fn read_at_once(path: &Path, rows: u64, alone: Duration, threads: bool) {
    const AT_FIRST: Duration = Duration::from_millis(20);
    let keys = data::shuffled_keys(rows.min(1_000_000), 3);
    // Spread over everything, also where there are more rows than that.
    let keys: Vec<_> = match rows / 1_000_000 {
        0 | 1 => keys,
        _ => data::shuffled(rows, 3)
            .into_iter()
            .take(1_000_000)
            .map(|id| data::key(id.into()))
            .collect(),
    };
    let mut keys = keys.iter().cycle();
    let builder = Database::builder(path).config(manual(usual()));
    let builder = if threads { builder } else { builder.without_threads() };
    let db = builder.open_existing().expect("it opens");
    let run = db.resolve_run("bench").expect("the run is there");
    let ours = Ours { db, run };
    let (mut first, mut slowest, mut reads) = (None, Duration::ZERO, 0_u64);
    let mut read = |reads: &mut u64| {
        *reads += 1;
        let key = keys.next().expect("a cycle has no end");
        assert!(ours.get(key).is_some(), "every row is there");
    };
    let start = Instant::now();
    let mut last = start;
    loop {
        read(&mut reads);
        let now = Instant::now();
        slowest = slowest.max(now - last);
        last = now;
        if first.is_none() && now - start >= AT_FIRST {
            first = Some(reads as f64 / (now - start).as_secs_f64());
        }
        // Asking costs more than a read.
        let asked = reads.is_multiple_of(64);
        if asked && (ours.db.storage().is_loaded() || (!threads && now - start >= alone)) {
            break;
        }
    }
    let rate = reads as f64 / start.elapsed().as_secs_f64();
    process::report("loading", rate);
    process::report("first", first.unwrap_or(rate));
    process::report("slowest", 1e3 * slowest.as_secs_f64());
    if !threads {
        return;
    }
    let (start, mut reads) = (Instant::now(), 0);
    while start.elapsed() < alone {
        (0..64).for_each(|_| read(&mut reads));
    }
    process::report("loaded", reads as f64 / start.elapsed().as_secs_f64());
    ours.db.close().expect("it closes");
}

/// Commits for a while, then while a checkpoint is made, and reports how long they took.
fn commit_beside(path: &Path, rows: u64, mode: &str, alone: Duration) {
    let config = match mode {
        "strict" => DatabaseConfig::strict(),
        _ => DatabaseConfig::buffered(),
    };
    let config = config.compression(compression(usual())).manual_checkpoints();
    let ours = Ours::open(path, config);
    ours.db.wait_loaded().expect("everything is sound");
    let mut ids = fastrand::Rng::new();
    let commit = || ours.put_step(ids.u64(..rows));
    let mut commit = Commits::of(commit);
    let stopped = AtomicBool::new(false);
    // The first one waits for a segment.
    commit.until(|_| true).report("first");
    commit.until(|passed| passed >= alone / 10);
    commit.until(|passed| passed >= alone).report("alone");
    let checkpoint = || {
        let info = ours.db.checkpoint().expect("it is written");
        stopped.store(true, Ordering::Release);
        info
    };
    let info = std::thread::scope(|scope| {
        let checkpoint = scope.spawn(checkpoint);
        commit.until(|_| stopped.load(Ordering::Acquire)).report("beside");
        checkpoint.join().expect("it does not panic")
    });
    process::report("checkpoint", info.duration.as_secs_f64());
    ours.db.compact(CompactMode::WalOnly).expect("the older one is removed");
    ours.db.close().expect("it closes");
    if mode == "strict" {
        disk_beside(info.bytes, alone);
    }
}

/// What the disk does to bare synced writes while as many bytes are written raw.
fn disk_beside(bytes: u64, alone: Duration) {
    let scratch = Scratch::new("lifecycle-limit");
    let (log, raw) = (scratch.join("log"), scratch.join("raw"));
    let file = SyncedFile::create(&log, Sync::Fdatasync);
    let mut append = Commits::of(|| file.append(limits::RECORD_BYTES));
    append.until(|passed| passed >= alone).report_as(LIMIT, "alone");
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            limits::write_raw(&raw, bytes);
            stopped.store(true, Ordering::Release);
        });
        append.until(|_| stopped.load(Ordering::Acquire)).report_as(LIMIT, "beside");
    });
}

/// Commits one after the other, each with its time.
struct Commits<F> {
    commit: F,
    /// Nanoseconds each.
    took: Vec<u32>,
    passed: Duration,
}

impl<F: FnMut()> Commits<F> {
    /// Room for the times is there before the first.
    fn of(commit: F) -> Self {
        let mut took = vec![1; 8 << 20];
        took.clear();
        Self { commit, took, passed: Duration::ZERO }
    }

    fn until(&mut self, mut done: impl FnMut(Duration) -> bool) -> &mut Self {
        self.took.clear();
        let start = Instant::now();
        let mut last = start;
        loop {
            (self.commit)();
            let now = Instant::now();
            self.took.push(u32::try_from((now - last).as_nanos()).unwrap_or(u32::MAX));
            last = now;
            if done(now - start) {
                break;
            }
        }
        self.passed = start.elapsed();
        self
    }

    fn report(&mut self, when: &str) {
        self.report_as("", when);
    }

    fn report_as(&mut self, whose: &str, when: &str) {
        let rate = self.took.len() as f64 / self.passed.as_secs_f64();
        process::report(&format!("{whose}rate {when}"), rate);
        self.took.sort_unstable();
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("slowest", 1.0)] {
            let micros = percentile(&self.took, share) / 1e3;
            process::report(&format!("{whose}{name} {when}"), micros);
        }
    }
}

/// The ids below `rows` in random order: those that live, and those that die.
fn halves(rows: u64) -> (Vec<u32>, Vec<u32>) {
    data::shuffled(rows, 1).into_iter().partition(|id| id % 2 == 0)
}

/// Fills a database, deletes every second row, and compacts beside a thread that reads.
fn compact_dead(path: &Path, rows: u64, alone: Duration) {
    let ours = Ours::open(path, manual(usual()));
    let (living, dying) = halves(rows);
    ours.load_steps(&data::shuffled(rows, 1));
    ours.db.checkpoint().expect("it is written");
    ours.db.compact(CompactMode::WalOnly).expect("what came before goes");
    dying.chunks(1000).for_each(|ids| ours.delete_all(ids));
    ours.db.flush().expect("it syncs");
    process::report("before", folder_bytes(path).expect("it is there").1 as f64);
    let read_until = |done: &dyn Fn(Duration) -> bool| {
        let (start, mut reads) = (Instant::now(), 0_u64);
        for id in living.iter().cycle() {
            assert!(ours.get(&data::key(u64::from(*id))).is_some(), "what lives is there");
            reads += 1;
            if reads.is_multiple_of(64) && done(start.elapsed()) {
                break;
            }
        }
        reads as f64 / start.elapsed().as_secs_f64()
    };
    process::report("reads alone", read_until(&|passed| passed >= alone));
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let info = ours.db.compact(CompactMode::Full).expect("it is compacted");
            stopped.store(true, Ordering::Release);
            process::report("seconds", info.duration.as_secs_f64());
        });
        process::report("reads", read_until(&|_| stopped.load(Ordering::Acquire)));
    });
    check(&ours, (0..rows).filter(|id| id % 2 == 0));
    report_heap(&ours);
    ours.db.close().expect("it closes");
    process::report("bytes", folder_bytes(path).expect("it is there").1 as f64);
}
