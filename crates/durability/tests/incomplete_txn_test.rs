//! Streamed transactions without their commit are not there after replay, and are counted.
#![allow(clippy::unwrap_used, dead_code)]

mod support;

use steadfast_core::{Namespace, NamespaceId, Timestamp, Version};
use steadfast_durability::wal::frame::Frame;
use steadfast_durability::wal::stream::Stream;
use steadfast_durability::wal::writer::{Outgoing, WalWriter};
use support::{Log, append, commit, namespace, writes};
use tempfile::tempdir;

const TIME: Timestamp = Timestamp::ZERO;

fn definitions() -> [(NamespaceId, Namespace); 1] {
    [(NamespaceId(1), namespace())]
}

/// A transaction that puts `name`, cut into parts of a few bytes each.
fn stream(txn: u64, name: &str) -> Stream {
    Stream::new(txn, TIME, &definitions(), writes(&[(name, Some(txn as i64))]).as_bytes(), 40)
}

fn append_parts(writer: &mut WalWriter, stream: &Stream) {
    for item in stream.frames() {
        writer.append(&[item], 0, false).unwrap();
    }
}

#[test]
fn test_discard_incomplete_transaction() {
    let dir = tempdir().unwrap();
    let log = Log::buffered(dir.path());
    let (mut writer, _, _) = log.open().unwrap();
    append_parts(&mut writer, &stream(1, "lost"));
    drop(writer);
    let (target, stats) = log.replay();
    assert_eq!((stats.txns_applied, stats.discarded_txns, stats.orphaned_entries), (0, 1, 0));
    assert_eq!(target.get("lost"), None);
}

#[test]
fn test_discard_orphaned_entries() {
    let dir = tempdir().unwrap();
    let log = Log::buffered(dir.path());
    let (mut writer, _, _) = log.open().unwrap();
    append(&mut writer, &[Frame::Part { txn: 99, bytes: b"no begin" }]);
    commit(&mut writer, 1, &[("kept", Some(1))]);
    drop(writer);
    let (target, stats) = log.replay();
    assert_eq!((stats.txns_applied, stats.discarded_txns, stats.orphaned_entries), (1, 0, 1));
    assert!(target.get("kept").is_some());
}

#[test]
fn test_mixed_committed_and_incomplete() {
    let dir = tempdir().unwrap();
    let log = Log::buffered(dir.path());
    let (mut writer, _, _) = log.open().unwrap();
    let (whole, cut) = (stream(100, "whole"), stream(101, "cut"));
    commit(&mut writer, 1, &[("a", Some(1))]);
    // Interleaved with each other and with an ordinary commit.
    let mut frames = [whole.frames().collect::<Vec<_>>(), cut.frames().collect()].concat();
    frames.sort_by_key(|item| matches!(item, Outgoing::Stream(Frame::Part { .. })));
    let (first, rest) = frames.split_at(3);
    writer.append(first, 0, false).unwrap();
    commit(&mut writer, 2, &[("b", Some(2))]);
    writer.append(rest, 0, false).unwrap();
    writer.append(&[whole.commit(Version(3), TIME)], 0, false).unwrap();
    commit(&mut writer, 4, &[("c", Some(4))]);
    drop(writer);
    let (target, stats) = log.replay();
    assert_eq!((stats.txns_applied, stats.discarded_txns), (4, 1));
    assert_eq!(target.get("whole").unwrap().1, Version(3));
    assert_eq!(target.get("cut"), None);
    assert_eq!(target.len(), 4);
}

#[test]
fn test_aborted_transactions_discarded() {
    let dir = tempdir().unwrap();
    let log = Log::buffered(dir.path());
    let (mut writer, _, _) = log.open().unwrap();
    let aborted = stream(1, "aborted");
    append_parts(&mut writer, &aborted);
    writer.append(&[aborted.abort()], 0, false).unwrap();
    drop(writer);
    let (target, stats) = log.replay();
    assert_eq!((stats.discarded_txns, stats.txns_applied), (1, 0), "an aborted one counts");
    assert_eq!(target.len(), 0);
}

#[test]
fn test_multiple_incomplete_transactions() {
    let dir = tempdir().unwrap();
    let log = Log::buffered(dir.path());
    let (mut writer, _, _) = log.open().unwrap();
    for n in 0..10 {
        append_parts(&mut writer, &stream(n, &format!("lost-{n}")));
    }
    drop(writer);
    assert_eq!(log.replay().1.discarded_txns, 10);
    // The next life does not complete what this one began.
    let (mut writer, _, report) = log.open().unwrap();
    assert_eq!(report.stats.discarded_txns, 10);
    let late = stream(3, "lost-3");
    writer.append(&[late.commit(Version(1 << 40), TIME)], 0, false).unwrap();
    drop(writer);
    let (target, stats) = log.replay();
    assert_eq!((target.len(), stats.txns_applied), (0, 0));
    assert_eq!((stats.discarded_txns, stats.orphaned_entries), (10, 1));
}

#[test]
fn a_commit_that_names_other_parts_ends_the_log() {
    let dir = tempdir().unwrap();
    let log = Log::buffered(dir.path());
    let (mut writer, _, _) = log.open().unwrap();
    commit(&mut writer, 1, &[("a", Some(1))]);
    let whole = stream(9, "x");
    append_parts(&mut writer, &whole);
    let Outgoing::StreamCommit { frame: Frame::Commit { parts, checksum, .. }, .. } =
        whole.commit(Version(2), TIME)
    else {
        panic!("a commit frame")
    };
    let (version, timestamp) = (Version(2), TIME);
    let checksum = checksum ^ 1;
    append(&mut writer, &[Frame::Commit { txn: 9, version, timestamp, parts, checksum }]);
    commit(&mut writer, 3, &[("b", Some(3))]);
    drop(writer);
    let (target, stats) = log.replay();
    assert_eq!((target.len(), stats.final_version), (1, Version(1)));
}

#[test]
fn test_1k_incomplete_transactions_discarded_efficiently() {
    let dir = tempdir().unwrap();
    let log = Log::buffered(dir.path());
    let (mut writer, _, _) = log.open().unwrap();
    for n in 0..1000 {
        append_parts(&mut writer, &stream(n, &format!("lost-{n}")));
    }
    drop(writer);
    let start = std::time::Instant::now();
    let (target, stats) = log.replay();
    assert_eq!((stats.discarded_txns, target.len()), (1000, 0));
    assert!(start.elapsed().as_secs() < 2, "the specification's ceiling");
}
