//! Streams under threads, kills and damage.
//!
//! What is shown: an expectation lets one of many through; an idempotency key stands for one
//! event however many threads use it at once; a batch is there whole or not at all, also across
//! segments; a subscriber is told before the append returns; a cursor sees every event once,
//! though its process is killed again and again; no bytes make reading panic, and damage is an
//! error or leaves a beginning of what was there.
//!
//! `CHAOS_ITERATIONS` says how often, [default: 100] for each thread and each kind of damage. A
//! failure prints its seed; `CHAOS_SEED` runs that again. What is wrong then is to be looked for
//! in `commit.rs` (threads), `recovery.rs` (damage), `cursor.rs` (kills).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::Duration;

use steadfast_core::codec::Cursor as Bytes;
use steadfast_durability::wal::frame::Frame;
use steadfast_durability::wal::group::{ChecksumSeed, GroupHeader};
use steadfast_durability::wal::segment::{Epoch, Origin, SegmentHeader};
use steadfast_engine::{
    AppendOptions, Database, DatabaseConfig, Entropy, ErrorKind, Expect, Notice, Region, Run, Value,
};

fn iterations() -> u64 {
    std::env::var("CHAOS_ITERATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(100)
}

/// Numbers that a seed repeats.
struct Draws(Entropy);

impl Draws {
    fn new(test: u64) -> Self {
        let seed = std::env::var("CHAOS_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(42);
        println!("CHAOS_SEED={seed} CHAOS_ITERATIONS={}", iterations());
        Self(Entropy::seeded(seed + 1000 * test))
    }

    fn below(&self, bound: usize) -> usize {
        let n = u64::from_le_bytes(self.0.next_16()[..8].try_into().unwrap());
        usize::try_from(n % bound as u64).unwrap()
    }

    fn bytes(&self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.0.next_16()[3]).collect()
    }
}

fn small() -> DatabaseConfig {
    DatabaseConfig::strict().segment_bytes(16 << 10).manual_checkpoints()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir.join("WAL"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    files.sort();
    files
}

fn payloads(db: &Database, run: Run, stream: &str) -> Vec<i64> {
    let events = db.event_read(run, stream, 0).unwrap();
    events.map(|event| event.unwrap().payload.as_int().unwrap()).collect()
}

#[test]
fn chaos_concurrent_writer_stress() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::create(dir.path(), small()).unwrap();
    let run = db.create_run("r").unwrap();
    let each = i64::try_from(iterations()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let db = &db;
            scope.spawn(move || {
                for n in 0..each {
                    db.event_append(run, &format!("own-{thread}"), n).unwrap();
                    db.event_append(run, "shared", thread * each + n).unwrap();
                }
            });
        }
    });
    db.close().unwrap();
    let db = Database::open_existing(dir.path(), small()).unwrap();
    let run = db.resolve_run("r").unwrap();
    for thread in 0..4 {
        let own = format!("own-{thread}");
        assert_eq!(payloads(&db, run, &own), (0..each).collect::<Vec<_>>());
    }
    let shared = payloads(&db, run, "shared");
    let of = |thread: i64| shared.iter().filter(move |n| **n / each == thread).copied();
    for thread in 0..4 {
        assert!(of(thread).eq(thread * each..(thread + 1) * each), "in the order of its thread");
    }
    assert_eq!(db.view().unwrap().event_verify_all(run).unwrap(), 5);
}

#[test]
fn chaos_cas_contention() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    for round in 0..iterations() {
        // One of eight is the first of a stream, and one of eight the second.
        let stream = format!("s{round}");
        for expect in [Expect::NoStream, Expect::Exact(0)] {
            let begin = Barrier::new(8);
            let options = AppendOptions { expect, ..AppendOptions::default() };
            let won = std::thread::scope(|scope| {
                let all: Vec<_> = (0..8)
                    .map(|n| {
                        let (db, options) = (&db, &options);
                        let (begin, stream) = (&begin, &stream);
                        scope.spawn(move || {
                            begin.wait();
                            match db.event_append_with(run, stream, n, options) {
                                Ok(_) => 1,
                                Err(error) => {
                                    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                                    0
                                }
                            }
                        })
                    })
                    .collect();
                all.into_iter().map(|one| one.join().unwrap()).sum::<u32>()
            });
            assert_eq!(won, 1, "{stream} {expect:?}");
        }
        assert_eq!(payloads(&db, run, &stream).len(), 2);
    }
}

#[test]
fn chaos_idempotency_concurrent() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::create(dir.path(), small()).unwrap();
    let run = db.create_run("r").unwrap();
    let rounds = iterations() / 4;
    for round in 0..rounds {
        let options = AppendOptions {
            idempotency_key: Some(format!("key-{round}")),
            ..AppendOptions::default()
        };
        let begin = Barrier::new(8);
        let receipts: BTreeSet<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|n| {
                    let (db, begin, options) = (&db, &begin, &options);
                    scope.spawn(move || {
                        begin.wait();
                        let (done, _) = db.event_append_with(run, "s", n, options).unwrap();
                        (done.seq, done.hash.to_string())
                    })
                })
                .collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(receipts.len(), 1, "one event, one receipt");
        assert_eq!(receipts.first().unwrap().0, round);
    }
    assert_eq!(payloads(&db, run, "s").len() as u64, rounds);
}

#[test]
fn chaos_rapid_segment_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::create(dir.path(), small()).unwrap();
    let run = db.create_run("r").unwrap();
    for n in 0..100 {
        db.transaction(|tx| {
            tx.event_append(run, "large", vec![7; 6_000])?;
            tx.event_append(run, "s", n)
        })
        .unwrap();
    }
    let files = segments(dir.path()).len();
    assert!(files >= 50, "two commits a segment: {files} segments");
    db.close().unwrap();
    let db = Database::open_existing(dir.path(), small()).unwrap();
    let run = db.resolve_run("r").unwrap();
    assert_eq!(payloads(&db, run, "s"), (0..100).collect::<Vec<_>>());
    assert_eq!(db.event_verify(run, "large").unwrap().unwrap().seq, 99);
}

fn batch(stream: &str, first: i64, events: i64) -> Vec<(&str, Value, AppendOptions)> {
    let one = |n| (stream, Value::from(n), AppendOptions::default());
    (first..first + events).map(one).collect()
}

#[test]
fn chaos_batch_atomicity_concurrent() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let db = &db;
            scope.spawn(move || {
                for round in 0..10 {
                    let first = (thread * 10 + round) * 10;
                    db.event_append_batch(run, &batch("s", first, 10)).unwrap();
                }
            });
        }
        scope.spawn(|| {
            // Whenever one looks, there are whole batches.
            loop {
                let found = payloads(&db, run, "s");
                for batch in found.chunks(10) {
                    assert!(batch.len() == 10 && batch[0] % 10 == 0, "{batch:?}");
                    assert!(batch.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{batch:?}");
                }
                if found.len() == 400 {
                    break;
                }
            }
        });
    });
    assert_eq!(db.event_verify(run, "s").unwrap().unwrap().seq, 399);
}

#[test]
fn chaos_batch_cross_segment_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::create(dir.path(), small()).unwrap();
    let run = db.create_run("r").unwrap();
    let before = segments(dir.path()).len();
    let large = |n: u8| ("s", Value::from(vec![n; 2_000]), AppendOptions::default());
    db.event_append_batch(run, &(0..20).map(large).collect::<Vec<_>>()).unwrap();
    assert!(segments(dir.path()).len() >= before + 2, "one batch lies in several segments");
    db.close().unwrap();
    let db = Database::open_existing(dir.path(), small()).unwrap();
    let run = db.resolve_run("r").unwrap();
    assert_eq!(db.event_read(run, "s", 0).unwrap().count(), 20);
    assert_eq!(db.event_verify(run, "s").unwrap().unwrap().seq, 19);
}

#[test]
fn chaos_frame_decode_random_bombardment() {
    let draws = Draws::new(1);
    let header = SegmentHeader {
        database: [1; 16],
        number: 1,
        epoch: Epoch { counter: 1, random: 2 },
        version_ceiling: 100,
        durable_upto: 0,
        first_position: 0,
        predecessor: 0,
        chain: 0,
        origin: Origin::Rotation,
    };
    let mut decoded = 0;
    for _ in 0..iterations() * 100 {
        let mut bytes = draws.bytes(draws.below(200));
        if draws.below(2) == 0 && !bytes.is_empty() {
            // A kind that there is, so that more than the first byte is looked at.
            bytes[0] = u8::try_from(1 + draws.below(7)).unwrap();
        }
        let mut cursor = Bytes::new("frame", &bytes);
        while let Ok(frame) = Frame::decode(&mut cursor) {
            decoded += 1;
            let mut again = Vec::new();
            frame.encode(&mut again);
            assert_eq!(Frame::decode(&mut Bytes::new("frame", &again)), Ok(frame));
        }
        assert!(GroupHeader::decode(ChecksumSeed::of(&header), 0, &bytes).is_none());
        assert!(SegmentHeader::decode(&bytes).is_err());
    }
    assert!(decoded > 0, "some of them are frames");
}

#[test]
fn chaos_subscription_write_storm() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    let threads = 4_i64;
    let each = i64::try_from(iterations()).unwrap();
    let room = usize::try_from(threads * each).unwrap();
    let mut all = db.subscribe(Region::run(run).streams("s"), room).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let db = &db;
            scope.spawn(move || {
                let stream = format!("s{thread}");
                let mut own = db.subscribe(Region::run(run).stream(&stream), 1).unwrap();
                for n in 0..each {
                    let (_, receipt) = db.event_append(run, &stream, n).unwrap();
                    let Some(Notice::Commit(commit)) = own.try_recv().unwrap() else {
                        panic!("the append returned before it was told")
                    };
                    assert_eq!(commit.version(), receipt.version());
                }
            });
        }
    });
    let mut versions = Vec::new();
    while let Some(Notice::Commit(commit)) = all.try_recv().unwrap() {
        versions.push(commit.version().0);
    }
    assert_eq!(versions, (2..2 + room as u64).collect::<Vec<_>>());
    assert_eq!(all.lost(), 0);
}

#[test]
fn chaos_cursor_completeness_concurrent() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let db = &db;
            scope.spawn(move || {
                for n in 0..25 {
                    db.event_append(run, &format!("s{}", n % 3), thread * 25 + n).unwrap();
                }
            });
        }
        let cursor = db.cursor(run, "c", Region::all().streams("s")).unwrap();
        let mut version = 0;
        while seen.len() < 100 {
            let Some(one) = cursor.poll().unwrap() else { continue };
            assert!(one.event.version.0 > version, "in the order of commits");
            version = one.event.version.0;
            seen.push(one.event.payload.as_int().unwrap());
        }
        assert_eq!(cursor.poll().unwrap(), None);
    });
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>(), "each once");
}

/// A closed database of hundred events in several segments, and its files.
fn hundred(dir: &Path) {
    let db = Database::builder(dir).config(small()).without_threads().create().unwrap();
    let run = db.create_run("r").unwrap();
    for n in 0..100 {
        db.transaction(|tx| {
            tx.event_append(run, "s", n)?;
            tx.event_append(run, "filling", vec![7; 700])
        })
        .unwrap();
    }
    db.close().unwrap();
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_files(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Opens what is left: a beginning of the events, sound, or an error that says what is damaged.
/// Returns how many events, if it opened.
fn opens_or_says_why(dir: &Path, what: &str) -> Option<usize> {
    let db = match Database::open_existing(dir, small()) {
        Ok(db) => db,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
            return None;
        }
    };
    let Ok(run) = db.resolve_run("r") else { return Some(0) };
    let found = payloads(&db, run, "s");
    assert!(is_prefix(&found), "{what}: {found:?}");
    assert_eq!(
        db.event_verify(run, "s").unwrap().map_or(0, |head| head.seq + 1),
        found.len() as u64
    );
    Some(found.len())
}

fn is_prefix(found: &[i64]) -> bool {
    found.iter().enumerate().all(|(at, n)| usize::try_from(*n) == Ok(at))
}

#[test]
fn chaos_corrupted_segment_bytes() {
    let draws = Draws::new(2);
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    hundred(&whole);
    let names: Vec<_> =
        segments(&whole).iter().map(|s| s.file_name().unwrap().to_owned()).collect();
    assert!(names.len() > 3);
    let (mut opened, mut refused) = (0, 0);
    for round in 0..iterations() {
        let damaged = dir.path().join(format!("damaged-{round}"));
        copy_files(&whole, &damaged);
        let path = damaged.join("WAL").join(&names[draws.below(names.len())]);
        let mut bytes = std::fs::read(&path).unwrap();
        // Anywhere, the header of the segment included.
        for _ in 0..=draws.below(8) {
            let at = draws.below(bytes.len());
            bytes[at] ^= u8::try_from(1 + draws.below(255)).unwrap();
        }
        std::fs::write(&path, bytes).unwrap();
        match opens_or_says_why(&damaged, &format!("round {round}, {}", path.display())) {
            // What was promised is all there, or it is refused: strict mode promised everything.
            Some(events) => {
                assert_eq!(events, 100, "round {round}: nothing is lost in silence");
                opened += 1;
            }
            None => refused += 1,
        }
        std::fs::remove_dir_all(&damaged).unwrap();
    }
    assert!(refused > opened, "most of a segment matters: {refused} refused, {opened} opened");
}

/// Takes the last 32 bytes off what was written of the newest segment.
fn truncate(dir: &Path) {
    let newest = segments(dir).pop().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes.truncate(written - 32);
    std::fs::write(&newest, bytes).unwrap();
}

#[test]
fn chaos_truncated_segment_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let (path, torn, shortened) =
        (dir.path().join("db"), dir.path().join("torn"), dir.path().join("shortened"));
    let config = DatabaseConfig::buffered;
    let db = Database::builder(&path).config(config()).without_threads().create().unwrap();
    let run = db.create_run("r").unwrap();
    for n in 0..100 {
        db.event_append(run, "s", n).unwrap();
    }
    // As a killed process leaves it: the last group was not written to its end.
    copy_files(&path, &torn);
    truncate(&torn);
    db.close().unwrap();
    let db = Database::open_existing(&torn, config()).unwrap();
    let run = db.resolve_run("r").unwrap();
    assert_eq!(payloads(&db, run, "s"), (0..99).collect::<Vec<_>>(), "all but the torn one");
    db.event_append(run, "s", 100).unwrap();
    assert_eq!(db.event_verify(run, "s").unwrap().unwrap().seq, 99);

    // As it was closed, everything was promised: no silent loss, and the rest can be saved.
    copy_files(&path, &shortened);
    truncate(&shortened);
    let refused = Database::open_existing(&shortened, config()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corruption, "{refused}");
    let saved = dir.path().join("saved");
    steadfast_engine::salvage(&shortened, Some(&saved)).unwrap();
    let db = Database::open_existing(&saved, config()).unwrap();
    let run = db.resolve_run("r").unwrap();
    assert!(is_prefix(&payloads(&db, run, "s")));
    assert!(db.event_verify(run, "s").unwrap().is_some());
}

const CONSUMER: &str = "STEADFAST_CONSUMER";

/// Runs in the child: appends, and consumes what was appended, until it is killed.
#[test]
fn consumer() {
    let Ok(job) = std::env::var(CONSUMER) else { return };
    let (mode, path) = job.split_once(' ').unwrap();
    let db = Database::open_or_create(path, mode_of(mode)).unwrap();
    let run = db.get_or_create_run("r").unwrap();
    println!("open");
    std::io::stdout().flush().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                db.event_append(run, &format!("s{}", n % 3), n).unwrap();
            }
        });
        scope.spawn(|| {
            loop {
                std::thread::sleep(Duration::from_millis(20));
                db.compact(steadfast_engine::CompactMode::Full).unwrap();
            }
        });
        let cursor = db.cursor(run, "c", Region::all().streams("s")).unwrap();
        loop {
            let step = cursor.process(7, |tx, one| {
                // Once an event: a count of its own, and a place in the order of all.
                let name = String::from_utf8(one.stream.clone()).unwrap();
                let key = format!("done-{name}-{:08}", one.event.seq);
                let before = tx.kv_get(run, &key)?.map_or(0, |n| n.value.as_int().unwrap());
                tx.kv_put(run, &key, before + 1)?;
                let total = tx.kv_get(run, "total")?.map_or(0, |n| n.value.as_int().unwrap());
                tx.kv_put(run, "total", total + 1)
            });
            step.unwrap();
        }
    });
}

fn mode_of(mode: &str) -> DatabaseConfig {
    let config = match mode {
        "strict" => DatabaseConfig::strict(),
        _ => DatabaseConfig::buffered(),
    };
    config.segment_bytes(32 << 10)
}

fn kill_consumers(mode: &str, kills: u64) {
    let draws = Draws::new(3);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (mut processed, mut kill) = (0, 0);
    // On a machine that is busy with others a life may be too short to do anything.
    while kill < kills || (processed <= 100 && kill < 10 * kills) {
        kill += 1;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "consumer", "--nocapture"])
            .env(CONSUMER, format!("{mode} {}", path.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("open")), "kill {kill}: it did not open");
        std::thread::sleep(Duration::from_millis(1 + draws.below(25) as u64));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), None, "kill {kill}: it ended by itself");
        if kill % 10 > 0 {
            continue;
        }
        let db = Database::open_existing(&path, mode_of(mode)).unwrap();
        let run = db.resolve_run("r").unwrap();
        let cursor = db.cursor(run, "c", Region::all().streams("s")).unwrap();
        let mut due = BTreeSet::new();
        for n in 0..3 {
            let stream = format!("s{n}");
            let read = cursor.position(&stream).unwrap();
            let last = db.event_head(run, &stream).unwrap().map_or(0, |head| head.seq + 1);
            assert!(read <= last, "kill {kill}: processed what is not there");
            due.extend((0..read).map(|seq| format!("done-{stream}-{seq:08}")));
            db.event_verify(run, &stream).unwrap();
        }
        let done: BTreeSet<_> = db
            .kv_scan(run, "done-")
            .unwrap()
            .map(|row| {
                let (key, value) = row.unwrap();
                let key = String::from_utf8(key).unwrap();
                assert_eq!(value.value, Value::from(1), "kill {kill}: {key} was processed twice");
                key
            })
            .collect();
        assert_eq!(done, due, "kill {kill}: exactly what the position says was processed");
        let total = db.kv_get(run, "total").unwrap().map_or(0, |n| n.value.as_int().unwrap());
        assert_eq!(total, i64::try_from(done.len()).unwrap());
        processed = done.len();
        db.close().unwrap();
    }
    assert!(processed > 100, "{processed} events were processed");
    println!("{mode}: {kill} kills, {processed} events, each processed once");
}

#[test]
fn a_consumer_killed_two_hundred_times_processes_each_event_once() {
    kill_consumers("buffered", 200);
}

#[test]
fn a_consumer_killed_in_strict_mode_processes_each_event_once() {
    kill_consumers("strict", 50);
}
