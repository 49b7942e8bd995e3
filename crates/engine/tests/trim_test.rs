//! Streams that are trimmed: what goes, what stays, who is told. And idempotency keys that end.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use steadfast_core::{NamespaceId, event_key};
use steadfast_engine::{
    AppendOptions, Change, CompactMode, Cursor, Database, DatabaseConfig, Difference, Entry, Error,
    ErrorKind, Event, EventHead, Expect, KeyWindow, ManualClock, Projection, Region, Retention,
    Run, StreamState, Timestamp, Value, Version, View,
};

fn keyed(key: &str) -> AppendOptions {
    AppendOptions { idempotency_key: Some(key.into()), ..AppendOptions::default() }
}

/// A database on disk with a run and ten events in stream `s`, each with a key, and some in
/// streams beside it.
fn ten(dir: &tempfile::TempDir, config: DatabaseConfig) -> (Database, Run) {
    let db = Database::create(dir.path().join("db"), config).unwrap();
    let run = db.create_run("r").unwrap();
    for n in 0..10 {
        db.event_append_with(run, "s", n, &keyed(&format!("key-{n}"))).unwrap();
        db.event_append(run, "r", n).unwrap();
        db.event_append(run, "s\0", n).unwrap();
    }
    (db, run)
}

fn seqs(view: &View, run: Run, stream: &str) -> Vec<u64> {
    view.event_read_range(run, stream, ..).unwrap().map(|event| event.unwrap().seq).collect()
}

fn is_trimmed<T: std::fmt::Debug>(
    found: Result<T, Error>,
    (asked, oldest): (u64, u64),
) -> Result<(), String> {
    match found {
        Err(Error::EventsTrimmed { stream, asked: a, oldest: o })
            if (stream.as_str(), a, o) == ("s", asked, oldest) =>
        {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    }
}

/// What everybody sees of a stream of ten that was trimmed to begin with 6.
fn expect_trimmed_to_six(db: &Database, what: &str) {
    let run = db.resolve_run("r").unwrap();
    let view = db.view().unwrap();
    assert_eq!(seqs(&view, run, "s"), [6, 7, 8, 9], "{what}");
    let back: Vec<_> =
        view.event_read(run, "s", 6).unwrap().rev().map(|e| e.unwrap().seq).collect();
    assert_eq!(back, [9, 8, 7, 6], "{what}");
    is_trimmed(view.event_read(run, "s", 5), (5, 6)).expect(what);
    is_trimmed(view.event_read_range(run, "s", 0..3), (0, 6)).expect(what);
    is_trimmed(view.event_read_range(run, "s", 2..=8), (2, 6)).expect(what);
    assert_eq!(view.event_read(run, "s", 5).unwrap_err().kind(), ErrorKind::HistoryTrimmed);
    let in_transaction = db.transaction(|tx| {
        assert_eq!(tx.event_read_range(run, "s", ..)?.count(), 4);
        tx.event_verify(run, "s")?;
        tx.event_read(run, "s", 5).map(drop)
    });
    is_trimmed(in_transaction, (5, 6)).expect(what);
    for beside in ["r", "s\0"] {
        assert_eq!(seqs(&view, run, beside), (0..10).collect::<Vec<_>>(), "{what}");
    }
    assert_eq!(view.event_last(run, "s").unwrap(), Some(9), "{what}");
    assert_eq!(view.event_stream(run, "s").unwrap().oldest(), 6, "{what}");
    assert_eq!(view.event_stream(run, "r").unwrap(), StreamState::default(), "{what}");
    assert_eq!(view.event_streams(run).unwrap(), [&b"r"[..], b"s", b"s\0"], "{what}");
    assert_eq!(view.event_verify_all(run).unwrap(), 3, "{what}");
    let events = view.entries(run).filter(
        |entry| matches!(entry.as_ref().unwrap(), Entry::Event { stream, .. } if stream == b"s"),
    );
    assert_eq!(events.count(), 4, "{what}");
    let events = view.entries_with_history(run).filter(
        |entry| matches!(entry.as_ref().unwrap(), Entry::Event { stream, .. } if stream == b"s"),
    );
    assert_eq!(events.count(), 4, "{what}");
}

#[test]
fn what_was_trimmed_is_gone_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (db, run) = ten(&dir, DatabaseConfig::buffered());
    let head = db.event_head(run, "s").unwrap().unwrap();
    let before = db.view().unwrap();
    let ((count, receipt), older) = (db.event_trim(run, "s", 6).unwrap(), before.version());
    assert_eq!(count, 6);
    expect_trimmed_to_six(&db, "trimmed");
    assert_eq!(seqs(&before, run, "s"), (0..10).collect::<Vec<_>>(), "a view keeps its events");
    assert_eq!(seqs(&db.view_at(older).unwrap(), run, "s").len(), 10, "the past has them");

    // Again, and below: nothing more goes. Further than it has come is refused.
    assert_eq!(db.event_trim(run, "s", 6).unwrap().0, 0);
    assert_eq!(db.event_trim(run, "s", 0).unwrap().0, 0);
    assert_eq!(db.current_version(), receipt.version());
    for (stream, upto) in [("s", 11), ("nothing", 1)] {
        let error = db.event_trim(run, stream, upto).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let own = db.transaction(|tx| {
        tx.event_append(run, "own", 1)?;
        tx.event_trim(run, "own", 1)
    });
    assert_eq!(own.unwrap_err().kind(), ErrorKind::Invalid);

    db.checkpoint().unwrap();
    expect_trimmed_to_six(&db, "after a checkpoint");
    db.compact(CompactMode::Full).unwrap();
    assert_eq!(seqs(&before, run, "s").len(), 10, "a view keeps its events in a compaction");
    expect_trimmed_to_six(&db, "compacted beside a view");
    let keys = db.stats().unwrap().store.entries;
    drop(before);
    db.compact(CompactMode::Full).unwrap();
    assert_eq!(keys - db.stats().unwrap().store.entries, 6, "their rows are gone");
    expect_trimmed_to_six(&db, "compacted");
    let past = db.view_at(older).unwrap().event_read(run, "s", 0).and_then(|events| {
        events.map(|event| event.map(|event| event.seq)).collect::<Result<Vec<_>, _>>()
    });
    assert_eq!(past.unwrap_err().kind(), ErrorKind::HistoryTrimmed, "the past is gone too");

    db.close().unwrap();
    let db = Database::open_existing(dir.path().join("db"), DatabaseConfig::buffered()).unwrap();
    let run = db.resolve_run("r").unwrap();
    expect_trimmed_to_six(&db, "opened again");
    assert_eq!(db.event_verify_against(run, "s", &head).unwrap(), Some(head));
    let exact = AppendOptions { expect: Expect::Exact(9), ..AppendOptions::default() };
    let (next, _) = db.event_append_with(run, "s", 10, &exact).unwrap();
    assert_eq!(next.seq, 10);
    assert_eq!(db.event_verify_against(run, "s", &head).unwrap().unwrap().hash, next.hash);
}

#[test]
fn a_crash_before_or_after_anything_is_buried_changes_no_read() {
    let dir = tempfile::tempdir().unwrap();
    let (db, run) = ten(&dir, DatabaseConfig::strict());
    db.checkpoint().unwrap();
    db.event_trim(run, "s", 6).unwrap();
    for round in 0..3 {
        if round == 1 {
            db.checkpoint().unwrap();
        }
        if round == 2 {
            db.compact(CompactMode::Full).unwrap();
        }
        // What lies on disk now is what a killed process leaves.
        let copy = dir.path().join(format!("copy-{round}"));
        copy_files(&dir.path().join("db"), &copy);
        let killed = Database::open_existing(&copy, DatabaseConfig::strict()).unwrap();
        expect_trimmed_to_six(&killed, "killed");
        killed.compact(CompactMode::Full).ok();
        expect_trimmed_to_six(&killed, "killed and compacted");
    }
}

fn copy_files(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_files(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn a_stream_trimmed_to_its_end_is_still_a_stream() {
    let dir = tempfile::tempdir().unwrap();
    let (db, run) = ten(&dir, DatabaseConfig::buffered());
    let head = db.event_head(run, "s").unwrap();
    assert_eq!(db.event_trim(run, "s", 10).unwrap().0, 10);
    db.checkpoint().unwrap();
    for _ in 0..2 {
        let view = db.view().unwrap();
        assert_eq!(seqs(&view, run, "s"), [0; 0]);
        assert_eq!(view.event_head(run, "s").unwrap(), head);
        assert_eq!(view.event_last(run, "s").unwrap(), Some(9));
        assert_eq!(view.event_verify_against(run, "s", &head.unwrap()).unwrap(), head);
        assert_eq!(view.event_streams(run).unwrap().len(), 3);
        assert_eq!(view.event_read(run, "s", 10).unwrap().count(), 0);
        drop(view);
        db.compact(CompactMode::Full).unwrap();
    }
    let options = AppendOptions { expect: Expect::NoStream, ..AppendOptions::default() };
    let refused = db.event_append_with(run, "s", 10, &options).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "it has had events");
    assert_eq!(db.event_append(run, "s", 10).unwrap().0, 10);
    assert_eq!(db.event_verify_against(run, "s", &head.unwrap()).unwrap().unwrap().seq, 10);
    assert_eq!(db.event_trim(run, "s", 11).unwrap().0, 1);
}

#[test]
fn two_who_append_to_a_stream_that_was_trimmed_to_its_end_follow_one_another() {
    let dir = tempfile::tempdir().unwrap();
    let (db, run) = ten(&dir, DatabaseConfig::buffered());
    db.event_trim(run, "s", 10).unwrap();
    db.compact(CompactMode::Full).unwrap();
    let (mut one, mut other) = (db.begin().unwrap(), db.begin().unwrap());
    assert_eq!(one.event_append(run, "s", 1).unwrap(), 10);
    assert_eq!(other.event_append(run, "s", 2).unwrap(), 10);
    one.commit().unwrap();
    assert_eq!(other.commit().unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn keys_and_receipts_outlive_their_events() {
    let dir = tempfile::tempdir().unwrap();
    let (db, run) = ten(&dir, DatabaseConfig::buffered());
    let known = |db: &Database, run| {
        let receipt =
            |n| db.event_append_with(run, "s", -1, &keyed(&format!("key-{n}"))).unwrap().0;
        (0..10).map(receipt).collect::<Vec<_>>()
    };
    let originals = known(&db, run);
    assert!(originals.iter().zip(0..).all(|(one, n)| one.seq == n && one.original.is_some()));
    db.event_trim(run, "s", 8).unwrap();
    assert_eq!(known(&db, run), originals);
    db.checkpoint().unwrap();
    db.compact(CompactMode::Full).unwrap();
    assert_eq!(known(&db, run), originals);
    assert_eq!(db.stats().unwrap().idempotency_keys, Some(10));
    let file = dir.path().join("run");
    db.export_run(run, &file).unwrap();
    db.backup(dir.path().join("backup")).unwrap();
    db.close().unwrap();
    for name in ["db", "backup"] {
        let db =
            Database::open_existing(dir.path().join(name), DatabaseConfig::buffered()).unwrap();
        let run = db.resolve_run("r").unwrap();
        assert_eq!(known(&db, run), originals, "{name}");
    }
    let other = Database::create(dir.path().join("other"), DatabaseConfig::buffered()).unwrap();
    let run = other.import_run(&file, None).unwrap();
    let places = |all: Vec<steadfast_engine::Appended>| {
        all.into_iter().map(|one| (one.seq, one.hash)).collect::<Vec<_>>()
    };
    assert_eq!(places(known(&other, run)), places(originals), "imported");
}

#[test]
fn what_is_changed_behind_the_trim_point_is_found() {
    type Change = fn(&Database, Run) -> u64;
    let key = |seq| event_key(NamespaceId(1), b"s", seq).unwrap();
    let changes: [(&str, Change); 4] = [
        ("edited", |db, run| {
            let mut source = db.event_read(run, "s", 7).unwrap();
            let event = source.next().unwrap().unwrap();
            let parts = vec![Value::from(event.hash.as_bytes()), Value::from(77)];
            let key = event_key(NamespaceId(1), b"s", 7).unwrap();
            let (newest, now) = (db.current_version(), event.timestamp);
            db.storage().put_with_version(&key, Value::List(parts), newest, now, None).unwrap();
            7
        }),
        ("dropped at the trim point", |db, _| {
            db.storage().delete(&event_key(NamespaceId(1), b"s", 6).unwrap()).unwrap();
            6
        }),
        ("dropped later", |db, _| {
            db.storage().delete(&event_key(NamespaceId(1), b"s", 8).unwrap()).unwrap();
            8
        }),
        ("cut off", |db, _| {
            db.storage().delete(&event_key(NamespaceId(1), b"s", 9).unwrap()).unwrap();
            9
        }),
    ];
    for compacted in [false, true] {
        for (what, change) in changes {
            let dir = tempfile::tempdir().unwrap();
            let (db, run) = ten(&dir, DatabaseConfig::buffered());
            let kept = db.event_head(run, "s").unwrap().unwrap();
            db.event_trim(run, "s", 6).unwrap();
            if compacted {
                db.checkpoint().unwrap();
                db.compact(CompactMode::Full).unwrap();
            }
            assert_eq!(db.event_verify_against(run, "s", &kept).unwrap(), Some(kept));
            let due = change(&db, run);
            match db.event_verify_against(run, "s", &kept) {
                Err(Error::EventChain { seq, .. }) => assert_eq!(seq, due, "{what}"),
                other => panic!("{what}: {other:?}"),
            }
        }
    }
    // What lies before the trim point is read by nobody.
    let dir = tempfile::tempdir().unwrap();
    let (db, run) = ten(&dir, DatabaseConfig::buffered());
    db.event_trim(run, "s", 6).unwrap();
    db.storage().delete(&key(3)).unwrap();
    db.event_verify(run, "s").unwrap();
}

#[test]
fn a_head_kept_before_the_trim_holds_after_it_and_one_inside_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (db, run) = ten(&dir, DatabaseConfig::buffered());
    let heads: Vec<EventHead> = (db.event_read(run, "s", 0).unwrap())
        .map(|event| event.map(|event| EventHead { seq: event.seq, hash: event.hash }).unwrap())
        .collect();
    db.event_trim(run, "s", 6).unwrap();
    let check = |head: &EventHead| db.event_verify_against(run, "s", head);
    for head in &heads[..5] {
        is_trimmed(check(head), (head.seq, 6)).unwrap();
    }
    // The last one that went is the one whose hash is kept.
    for head in &heads[5..] {
        assert_eq!(check(head).unwrap(), Some(heads[9]));
        let forged = EventHead { hash: heads[0].hash, ..*head };
        assert!(matches!(check(&forged), Err(Error::EventChain { seq, .. }) if seq == head.seq));
    }
    let ahead = EventHead { seq: 10, hash: heads[0].hash };
    assert!(matches!(check(&ahead), Err(Error::EventChain { seq: 10, .. })));
}

#[test]
fn a_cursor_is_told_what_it_will_never_see() {
    let dir = tempfile::tempdir().unwrap();
    let (db, run) = ten(&dir, DatabaseConfig::buffered());
    let cursor = |name: &str| db.cursor(run, name, Region::all().streams("s")).unwrap();
    let read = |cursor: &Cursor, limit| {
        let mut found = Vec::new();
        cursor.process(limit, |_, one| {
            if one.stream == b"s" {
                found.push(one.event.seq);
            }
            Ok(())
        })?;
        Ok::<_, Error>(found)
    };
    let (old, far, fresh) = (cursor("old"), cursor("far"), cursor("fresh"));
    assert_eq!(read(&old, 4).unwrap(), [0, 1]);
    assert_eq!(read(&far, 16).unwrap(), (0..8).collect::<Vec<_>>());
    db.event_trim(run, "s", 6).unwrap();
    is_trimmed(read(&old, 4), (2, 6)).unwrap();
    assert_eq!(read(&far, 100).unwrap(), [8, 9], "it had come further");
    assert_eq!(old.skip_trimmed().unwrap(), 4);
    assert_eq!(read(&old, 100).unwrap(), [6, 7, 8, 9]);
    assert_eq!(old.skip_trimmed().unwrap(), 0);

    // A new one begins with what there is, also if it takes it bit by bit.
    assert_eq!(fresh.process(1, |_, _| Ok(())).unwrap(), 1);
    assert_eq!(fresh.position("s").unwrap(), 6);
    assert_eq!(read(&fresh, 100).unwrap(), [6, 7, 8, 9]);
    far.rewind().unwrap();
    assert_eq!(read(&far, 100).unwrap(), [6, 7, 8, 9]);
}

struct Sum;

impl Projection for Sum {
    const NAME: &'static str = "sum";
    const VERSION: u32 = 1;
    type State = i64;

    fn apply(&self, sum: &mut i64, _: &str, event: &Event) -> Result<(), Error> {
        *sum += event.payload.as_int().unwrap();
        Ok(())
    }

    fn save(&self, sum: &i64) -> Result<Value, Error> {
        Ok(Value::Int(*sum))
    }

    fn load(&self, saved: Value) -> Result<i64, Error> {
        Ok(saved.as_int().unwrap())
    }
}

#[test]
fn a_projection_goes_on_where_it_was_and_is_not_built_from_a_part() {
    let dir = tempfile::tempdir().unwrap();
    let (db, run) = ten(&dir, DatabaseConfig::buffered());
    assert_eq!(db.project(run, "s", &Sum).unwrap(), 45);
    db.event_trim(run, "s", 6).unwrap();
    db.event_append(run, "s", 10).unwrap();
    assert_eq!(db.project(run, "s", &Sum).unwrap(), 55);
    is_trimmed(db.project_run(run, &Sum), (0, 6)).unwrap();
}

#[test]
fn followers_are_told_and_differences_show_it() {
    let dir = tempfile::tempdir().unwrap();
    let (db, run) = ten(&dir, DatabaseConfig::strict());
    let before = db.current_version();
    db.event_trim(run, "s", 6).unwrap();
    let commit = db.tail(before).unwrap().next().unwrap().unwrap();
    let changes: Vec<_> = commit.changes().collect::<Result<_, _>>().unwrap();
    let [Change::Entry { entry: Entry::Stream { stream, state, version, .. }, .. }] = &changes[..]
    else {
        panic!("{changes:?}");
    };
    assert_eq!((stream.as_slice(), state.oldest(), *version), (&b"s"[..], 6, commit.version()));

    let differences: Vec<_> =
        db.diff_run_versions(run, before, commit.version()).unwrap().map(Result::unwrap).collect();
    assert!(matches!(differences[0], Difference::Added(Entry::Stream { .. })), "{differences:?}");
    let removed = differences.iter().filter(|one| {
        matches!(one, Difference::Removed(Entry::Event { stream, event })
            if stream == b"s" && event.seq < 6)
    });
    assert_eq!((removed.count(), differences.len()), (6, 7));
    let view = db.view().unwrap();
    assert_eq!(view.diff_runs(run, &view, run).unwrap().count(), 0);
}

#[test]
fn an_exported_run_begins_at_the_trim_point_and_its_chain_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let (db, run) = ten(&dir, DatabaseConfig::buffered());
    let head = db.event_head(run, "s").unwrap().unwrap();
    db.event_trim(run, "s", 6).unwrap();
    let file = dir.path().join("run");
    db.export_run(run, &file).unwrap();
    let other = Database::create(dir.path().join("other"), DatabaseConfig::buffered()).unwrap();
    other.create_run("before").unwrap();
    let run = other.import_run(&file, None).unwrap();
    expect_trimmed_to_six(&other, "imported");
    assert_eq!(other.event_verify_against(run, "s", &head).unwrap(), Some(head));

    let run = db.resolve_run("r").unwrap();
    let event = db.event_read(run, "s", 6).unwrap().next().unwrap().unwrap();
    let value = vec![Value::from(event.hash.as_bytes()), Value::from(66)];
    let key = event_key(NamespaceId(1), b"s", 6).unwrap();
    let newest = db.current_version();
    let value = Value::List(value);
    db.storage().put_with_version(&key, value, newest, event.timestamp, None).unwrap();
    let file = dir.path().join("edited");
    db.export_run(run, &file).unwrap();
    let third = Database::create(dir.path().join("third"), DatabaseConfig::buffered()).unwrap();
    let error = third.import_run(&file, None).unwrap_err();
    assert!(matches!(error, Error::EventChain { seq: 6, .. }), "{error}");
}

#[test]
fn a_restored_stream_begins_at_the_trim_point() {
    let dir = tempfile::tempdir().unwrap();
    let (db, run) = ten(&dir, DatabaseConfig::buffered());
    db.event_trim(run, "s", 6).unwrap();
    let view = db.view().unwrap();
    let entries: Vec<Entry> = view.entries(run).collect::<Result<_, _>>().unwrap();
    let receipts = entries.iter().filter(|entry| matches!(entry, Entry::Receipt { .. }));
    assert_eq!(receipts.count(), 10);
    let other = Database::in_memory().unwrap();
    let mut restore = other.restore(Version(1), Timestamp::from_micros(1)).unwrap();
    let namespace = view.namespace_of(run).unwrap();
    let created = Timestamp::from_micros(1);
    let restored = restore.run("r", &namespace, Default::default(), created).unwrap();
    for entry in &entries {
        restore.entry(restored, entry).unwrap();
    }
    restore.commit().unwrap();
    expect_trimmed_to_six(&other, "restored");
    let again: Vec<Entry> =
        other.view().unwrap().entries(restored).collect::<Result<_, _>>().unwrap();
    assert_eq!(again.len(), entries.len());
    let (known, _) = other.event_append_with(restored, "s", -1, &keyed("key-2")).unwrap();
    assert_eq!((known.seq, known.original), (2, Some(Version(1))));
}

#[test]
fn trimming_conflicts_with_readers_and_not_with_appends() {
    let dir = tempfile::tempdir().unwrap();
    let (db, run) = ten(&dir, DatabaseConfig::buffered());
    let mut reader = db.begin().unwrap();
    assert_eq!(reader.event_read_range(run, "s", ..).unwrap().count(), 10);
    reader.kv_put(run, "count", 10).unwrap();
    let mut appender = db.begin().unwrap();
    appender.event_append(run, "s", 10).unwrap();
    let mut trimmer = db.begin().unwrap();
    trimmer.event_trim(run, "s", 3).unwrap();
    db.event_trim(run, "s", 6).unwrap();
    assert_eq!(reader.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(trimmer.commit().unwrap_err().kind(), ErrorKind::Conflict, "it trims less by now");
    appender.commit().unwrap();
    assert_eq!(seqs(&db.view().unwrap(), run, "s"), [6, 7, 8, 9, 10]);
}

#[test]
fn where_all_history_is_kept_the_past_keeps_what_was_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let (db, run) = ten(&dir, DatabaseConfig::buffered().retention(Retention::KeepAll));
    let before = db.current_version();
    db.event_trim(run, "s", 6).unwrap();
    db.checkpoint().unwrap();
    db.compact(CompactMode::Full).unwrap();
    expect_trimmed_to_six(&db, "compacted");
    let past = db.view_at(before).unwrap();
    assert_eq!(seqs(&past, run, "s"), (0..10).collect::<Vec<_>>());
    past.event_verify(run, "s").unwrap();
}

#[test]
fn a_key_ends_when_so_many_events_have_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (db, run) = ten(&dir, DatabaseConfig::buffered());
    assert_eq!(
        db.event_key_window(run, "s", KeyWindow::Events(0)).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    db.event_key_window(run, "s", KeyWindow::Events(3)).unwrap();
    db.event_append_with(run, "s", 10, &keyed("short")).unwrap();
    db.event_append_with(run, "r", 10, &keyed("elsewhere")).unwrap();
    db.event_append(run, "s", 11).unwrap();
    db.event_append(run, "s", 12).unwrap();
    let again = |key: &str| db.event_append_with(run, "s", -1, &keyed(key)).unwrap().0;
    assert!(again("short").original.is_some(), "two have followed");
    assert_eq!(db.view().unwrap().event_keys(run).unwrap(), 12);
    let before = db.view().unwrap();
    db.event_append(run, "s", 13).unwrap();
    // As it was appended, whatever the window is now.
    db.event_key_window(run, "s", KeyWindow::Forever).unwrap();
    for _ in 0..2 {
        let known = db.transaction(|tx| tx.event_known(run, Some("short"))).unwrap().0;
        assert_eq!(known, None, "three have followed");
        assert_eq!(db.view().unwrap().event_keys(run).unwrap(), 11);
        assert_eq!(before.event_keys(run).unwrap(), 12, "a view is a view");
        assert!(again("key-0").original.is_some(), "it was appended before there was a window");
        assert!(again("elsewhere").original.is_some(), "in a stream without a window");
        db.checkpoint().unwrap();
        db.compact(CompactMode::Full).unwrap();
    }
    let rows = db.stats().unwrap().store.entries;
    drop(before);
    db.compact(CompactMode::Full).unwrap();
    assert_eq!(rows - db.stats().unwrap().store.entries, 1, "its row is gone");
    let new = again("short");
    assert_eq!((new.seq, new.original), (14, None));
    assert_eq!(again("short").seq, 14);
}

#[test]
fn a_key_that_ends_behind_the_trim_point_goes_too() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::create(dir.path().join("db"), DatabaseConfig::buffered()).unwrap();
    let run = db.create_run("r").unwrap();
    db.event_key_window(run, "s", KeyWindow::Events(1)).unwrap();
    db.transaction(|tx| {
        // Ended by the commit that made it.
        tx.event_append_with(run, "s", 0, &keyed("a"))?;
        tx.event_append_with(run, "s", 1, &keyed("b"))
    })
    .unwrap();
    db.event_append_with(run, "s", 2, &keyed("c")).unwrap();
    let known = |key| db.transaction(|tx| tx.event_known(run, Some(key))).unwrap().0.is_some();
    assert_eq!(["a", "b", "c"].map(known), [false, false, true]);
    db.event_trim(run, "s", 3).unwrap();
    let rows = db.stats().unwrap().store.entries;
    db.checkpoint().unwrap();
    db.compact(CompactMode::Full).unwrap();
    assert_eq!(["a", "b", "c"].map(known), [false, false, true]);
    assert_eq!(rows - db.stats().unwrap().store.entries, 3 + 2, "three events, two keys");
    assert_eq!(db.stats().unwrap().idempotency_keys, Some(1));
}

#[test]
fn a_key_ends_when_its_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(Timestamp::from_micros(1_000_000));
    let db = Database::builder(dir.path().join("db")).clock(clock.clone()).create().unwrap();
    let run = db.create_run("r").unwrap();
    db.event_key_window(run, "s", KeyWindow::Time(Duration::from_secs(10))).unwrap();
    let again = |db: &Database| db.event_append_with(run, "s", 0, &keyed("k")).unwrap().0.seq;
    assert_eq!(again(&db), 0);
    clock.advance(Duration::from_secs(9));
    assert_eq!(again(&db), 0);
    assert_eq!(db.stats().unwrap().idempotency_keys, Some(1));
    clock.advance(Duration::from_secs(1));
    assert_eq!(db.stats().unwrap().idempotency_keys, Some(0));
    assert_eq!(again(&db), 1);
    assert_eq!(db.event_verify(run, "s").unwrap().unwrap().seq, 1);
}
