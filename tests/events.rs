//! Streams and those who follow them, crashed at every step: nothing is lost, nothing comes
//! twice, no chain breaks.

use steadfast::{
    AppendOptions, CompactMode, Database, DatabaseConfig, DurabilityMode, EventHash, EventHead,
    Position, Region, Run, Version,
};
use steadfast_testing::crash::{Cut, Effort, Tally, explore};
use steadfast_testing::matrix::{Acked, CrashMatrix, Failure, MatrixReport, crash_matrix};
use steadfast_testing::workload::{BATCHED, Workload};

/// What the program has told somebody.
#[derive(Debug, Clone)]
enum Told {
    /// An append: key, sequence number, hash, version.
    Appended(String, u64, EventHash, Version),
    /// A commit that was read from the tail: the position to go on from.
    Followed(Position),
    /// So many events were processed.
    Processed(u64),
    /// A stream was trimmed, to begin with this event.
    Trimmed(String, u64),
}

fn region() -> Region {
    Region::all().streams("s")
}

/// Processes what there is: counts each event in a key of its own.
fn process(db: &Database, run: Run, limit: usize) -> steadfast::Result<usize> {
    db.cursor(run, "consumer", region())?.process(limit, |tx, one| {
        let stream = String::from_utf8_lossy(&one.stream).into_owned();
        let key = format!("done-{stream}-{}", one.event.seq);
        let before = tx.kv_get(run, &key)?.and_then(|count| count.value.as_int()).unwrap_or(0);
        tx.kv_put(run, &key, before + 1)
    })
}

fn keyed(key: &str) -> AppendOptions {
    AppendOptions { idempotency_key: Some(key.into()), ..AppendOptions::default() }
}

fn crash(matrix: CrashMatrix) -> MatrixReport {
    matrix
        .run(|db, ack| {
            let run = db.get_or_create_run("r")?;
            let mut position = Position::default();
            for round in ack.rounds(14) {
                match ack.draw(12) {
                    0 => {
                        db.checkpoint()?;
                    }
                    1 => {
                        db.checkpoint()?;
                        db.compact(CompactMode::Full)?;
                    }
                    2 | 3 => {
                        let done = process(db, run, 3)? as u64;
                        ack.done(Told::Processed(done));
                    }
                    // What was processed may go.
                    4 => {
                        let stream = format!("s{}", ack.draw(2));
                        let done = db.cursor(run, "consumer", region())?.position(&stream)?;
                        if db.event_trim(run, &stream, done)?.0 > 0 {
                            ack.done(Told::Trimmed(stream, done));
                        }
                    }
                    5..=6 => {
                        let tail = match db.tail(position) {
                            Err(steadfast::Error::HistoryTrimmed { .. }) => continue,
                            tail => tail?,
                        };
                        for commit in tail {
                            position = commit?.position();
                            ack.done(Told::Followed(position));
                        }
                    }
                    _ => {
                        let (stream, key) = (format!("s{}", ack.draw(2)), format!("key-{round}"));
                        let (done, receipt) =
                            db.event_append_with(run, &stream, round as i64, &keyed(&key))?;
                        ack.done(Told::Appended(key, done.seq, done.hash, receipt.version()));
                    }
                }
            }
            Ok(())
        })
        .check(check)
}

fn check(db: &Database, acked: &Acked<'_, Told>) -> Result<(), Failure> {
    let Ok(run) = db.resolve_run("r") else {
        return acked.expect(acked.is_empty(), || "the run is gone".into());
    };
    // What the tail gave was promised: it is the past of every later life.
    for told in acked.all() {
        let Told::Followed(position) = told else { continue };
        match db.tail(*position) {
            Ok(_) | Err(steadfast::Error::HistoryTrimmed { .. }) => {}
            Err(error) => return Err(format!("behind {position:?}: {error}").into()),
        }
    }
    let mut processed = 0;
    for told in acked.iter() {
        match told {
            Told::Appended(key, seq, hash, version) => {
                let (again, _) = db.event_append_with(run, "elsewhere", -1, &keyed(key))?;
                let same = (again.seq, again.hash, again.original) == (*seq, *hash, Some(*version));
                acked.expect(same, || format!("{key} was {told:?}, a retry got {again:?}"))?;
            }
            Told::Processed(count) => processed += count,
            Told::Followed(_) | Told::Trimmed(..) => {}
        }
    }
    // What was told to be trimmed is, whatever is compacted, and the rest is there.
    for compacted in [false, true] {
        if compacted {
            db.checkpoint()?;
            db.compact(CompactMode::Full)?;
        }
        for told in acked.iter() {
            let Told::Trimmed(stream, oldest) = told else { continue };
            let now = db.event_stream(run, stream)?.oldest();
            acked.expect(now >= *oldest, || format!("{stream} begins with {now}: {told:?}"))?;
            let below = db.event_read(run, stream, now - 1);
            let refused = matches!(below, Err(steadfast::Error::EventsTrimmed { .. }));
            acked.expect(refused, || format!("{stream} gives event {}", now - 1))?;
            let read = db.view()?.event_read_range(run, stream, ..)?.count() as u64;
            let due = db.view()?.event_last(run, stream)?.map_or(0, |last| last + 1) - now;
            acked.expect(read == due, || format!("{stream} gives {read} events of {due}"))?;
        }
    }
    // The chains are whole, and go on.
    for stream in ["s0", "s1"] {
        db.event_append(run, stream, -2)?;
        db.event_verify(run, stream)?;
    }
    for told in acked.iter() {
        let Told::Appended(_, seq, hash, _) = told else { continue };
        let kept = EventHead { seq: *seq, hash: *hash };
        // Of a trimmed event that is all that can be said; it is told by name.
        let is_in = |stream| match db.event_verify_against(run, stream, &kept) {
            Err(steadfast::Error::EventsTrimmed { asked, .. }) => asked == *seq,
            verified => verified.is_ok(),
        };
        acked.expect(is_in("s0") || is_in("s1"), || format!("{kept} is in no chain"))?;
    }
    // What was processed stays so, and the rest is processed once.
    let done = db.kv_scan(run, "done-")?.count() as u64;
    acked.expect(done >= processed, || format!("{processed} were processed, {done} are"))?;
    while process(db, run, 5)? > 0 {}
    for row in db.kv_scan(run, "done-")? {
        let (key, count) = row?;
        let once = count.value.as_int() == Some(1);
        acked.expect(once, || format!("{}: {count:?}", key.escape_ascii()))?;
    }
    let appended = |stream| {
        Ok::<_, steadfast::Error>(match db.view()?.event_last(run, stream)? {
            Some(last) => usize::try_from(last).unwrap_or(usize::MAX) + 1,
            None => 0,
        })
    };
    let events = appended("s0")? + appended("s1")?;
    let done = db.kv_scan(run, "done-")?.count();
    acked.expect(done == events, || format!("{done} of {events} events were processed"))
}

/// The whole workload, streams trimmed in between, against the model: every image of a power cut.
#[test]
fn what_is_left_of_trimmed_streams_is_a_prefix() {
    let effort = Effort {
        random: 2,
        nested_every: 2000,
        depth: 1,
        queued_versions: true,
        lost_pages: false,
    };
    let mut total = Tally::default();
    for (seed, mode) in
        [DurabilityMode::Strict, BATCHED, DurabilityMode::Buffered].into_iter().enumerate()
    {
        let seed = seed as u64 + 1;
        let workload = Workload::seeded(seed, mode, 30).with_trims(seed);
        let workload = if seed == 2 { workload.keeping_all() } else { workload };
        match explore(&workload, Cut::Power, effort, seed) {
            Ok(tally) => total.add(&tally),
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    println!("{total}");
    assert!(total.images > 2_000, "{total}");
}

#[test]
fn streams_cursors_and_tails_survive_every_crash() {
    let modes = [
        DurabilityMode::Strict,
        DurabilityMode::Batched { interval: std::time::Duration::from_millis(5), commits: 3 },
        DurabilityMode::Buffered,
    ];
    for (seed, mode) in (1..).zip(modes) {
        let config = DatabaseConfig::new(mode).manual_checkpoints().segment_bytes(16 << 10);
        let matrix = crash_matrix(seed).config(config).programs(12).images_max(10_000);
        let report = crash(matrix);
        report.expect_good();
        assert!(report.images > 500, "{mode:?}: {} images", report.images);
    }
}
