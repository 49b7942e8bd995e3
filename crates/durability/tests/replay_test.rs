//! Replay gives back what was committed: the same values, versions and deletes.
#![allow(clippy::unwrap_used, dead_code)]

mod support;

use steadfast_core::{NamespaceId, Value, Version};
use steadfast_durability::Error;
use steadfast_durability::recovery::LogClass;
use steadfast_durability::recovery::{open_snapshot, recover};
use support::{Log, commit};
use tempfile::tempdir;

#[test]
fn test_replay_single_transaction() {
    let dir = tempdir().unwrap();
    let log = Log::buffered(dir.path());
    let (mut writer, _, _) = log.open().unwrap();
    commit(&mut writer, 1, &[("a", Some(1)), ("b", Some(2))]);
    drop(writer);
    let (target, stats) = log.replay();
    assert_eq!((stats.txns_applied, stats.writes_applied, stats.deletes_applied), (1, 2, 0));
    assert_eq!(target.get("a"), Some((Value::Int(1), Version(1))));
    assert_eq!(target.get("b"), Some((Value::Int(2), Version(1))));
    assert_eq!(target.namespaces.lock().unwrap()[&NamespaceId(1)], support::namespace());
    assert_eq!(*target.finished.lock().unwrap(), Some(Version(1)));
}

#[test]
fn test_replay_multiple_transactions() {
    let dir = tempdir().unwrap();
    let log = Log::buffered(dir.path());
    let (mut writer, _, _) = log.open().unwrap();
    for n in 1..=5000 {
        commit(&mut writer, n, &[(&format!("key-{n}"), Some(n as i64)), ("last", Some(n as i64))]);
    }
    drop(writer);
    let (target, stats) = log.replay();
    assert_eq!((stats.txns_applied, stats.final_version), (5000, Version(5000)));
    assert_eq!(target.len(), 5001);
    assert_eq!(target.get("last"), Some((Value::Int(5000), Version(5000))));
    assert!(log.manifest().newest_segment > 3, "it went through several segments");
}

#[test]
fn test_replay_preserves_versions() {
    let dir = tempdir().unwrap();
    let log = Log::buffered(dir.path());
    let (mut writer, _, _) = log.open().unwrap();
    // Gaps, as failed commits leave them, stay gaps.
    for version in [3, 4, 10, 1000] {
        commit(&mut writer, version, &[(&format!("v{version}"), Some(0))]);
    }
    drop(writer);
    let (target, stats) = log.replay();
    for version in [3, 4, 10, 1000] {
        assert_eq!(target.get(&format!("v{version}")).unwrap().1, Version(version));
    }
    assert_eq!(stats.final_version, Version(1000));
}

#[test]
fn test_replay_mixed_writes_and_deletes() {
    let dir = tempdir().unwrap();
    let log = Log::buffered(dir.path());
    let (mut writer, _, _) = log.open().unwrap();
    commit(&mut writer, 1, &[("a", Some(1)), ("b", Some(1))]);
    commit(&mut writer, 2, &[("a", None), ("c", Some(2))]);
    commit(&mut writer, 3, &[("a", Some(3)), ("b", None), ("never", None)]);
    drop(writer);
    let (target, stats) = log.replay();
    assert_eq!((stats.writes_applied, stats.deletes_applied), (4, 3));
    assert_eq!(target.get("a"), Some((Value::Int(3), Version(3))));
    assert_eq!(target.get("b"), None);
    assert_eq!(target.get("c"), Some((Value::Int(2), Version(2))));
}

#[test]
fn an_empty_log_replays_to_nothing() {
    let dir = tempdir().unwrap();
    let log = Log::buffered(dir.path());
    let (target, stats) = log.replay();
    assert_eq!((target.len(), stats.txns_applied), (0, 0));
    let (writer, _, report) = log.open().unwrap();
    assert_eq!(report.log, LogClass::Clean);
    writer.close(Version(1)).unwrap();
    assert!(std::fs::read_dir(log.layout.wal()).unwrap().next().is_none(), "nothing was written");
}

#[test]
fn replaying_again_and_recovering_again_change_nothing() {
    let dir = tempdir().unwrap();
    let log = Log::buffered(dir.path());
    let (mut writer, _, _) = log.open().unwrap();
    for n in 1..=100 {
        commit(&mut writer, n, &[(&format!("k{}", n % 7), Some(n as i64))]);
    }
    drop(writer);
    let rows = |target: support::Target| target.rows.into_inner().unwrap();
    let first = rows(log.replay().0);
    assert_eq!(first, rows(log.replay().0));
    for _ in 0..3 {
        let (writer, target, report) = log.open().unwrap();
        assert_eq!(report.log, LogClass::Killed);
        assert_eq!(first, rows(target));
        writer.abandon();
    }
}

#[test]
fn versions_after_a_kill_are_above_every_version_given_before() {
    let dir = tempdir().unwrap();
    let log = Log::buffered(dir.path());
    let (mut writer, _, _) = log.open().unwrap();
    commit(&mut writer, 1, &[("a", Some(1))]);
    // Version 2 was given out and lost: a power cut took its group.
    drop(writer);
    let manifest = log.manifest();
    let target = support::Target::default();
    let opened = open_snapshot(&*log.disk, &log.layout, &manifest, Default::default()).unwrap();
    let recovered = recover(
        &*log.disk,
        &log.layout,
        &manifest,
        opened,
        &target,
        Default::default(),
        steadfast_durability::wal::chain::Beside::Nobody,
        &mut steadfast_durability::progress::unheard,
    )
    .unwrap();
    assert!(recovered.next_version() > Version(1000), "{:?}", recovered.next_version());
}

#[test]
fn damage_before_the_promise_is_refused_and_named() {
    let dir = tempdir().unwrap();
    let log = Log::buffered(dir.path());
    let (mut writer, _, _) = log.open().unwrap();
    for n in 1..=10 {
        commit(&mut writer, n, &[("a", Some(n as i64))]);
    }
    writer.close(Version(1)).unwrap();
    let path = log.layout.segment(1);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 200;
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let before = std::fs::read(log.layout.manifest()).unwrap();
    match log.open() {
        Err(Error::Refused(report)) => {
            assert_eq!(report.log, LogClass::Corrupt);
            let damage = report.damage.unwrap();
            assert_eq!(damage.file, "WAL/wal-000001.seg");
            let group = usize::try_from(damage.offset).unwrap();
            assert!(group <= at && at - group < 200, "the damaged group begins at {group}");
            assert!(report.last_version < Version(10));
            assert_eq!(report.promised_version, Some(Version(10)));
        }
        other => panic!("{other:?}", other = other.map(|opened| opened.2)),
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing was changed");
    assert_eq!(std::fs::read(log.layout.manifest()).unwrap(), before);
}
