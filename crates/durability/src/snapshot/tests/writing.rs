//! Writing: leftovers, giving up, the second thread, and promises that a caller must keep.

use super::*;
use crate::error::{CorruptionKind, Error};

fn write_all(fixture: &Fixture, rows: &[Record], compression: Compression) -> SnapshotInfo {
    let rows = rows.iter().map(|row| Ok::<_, Error>(row.clone()));
    let rest = || Ok((meta(), b"times".to_vec()));
    let options = SnapshotOptions { compression };
    write_snapshot(Arc::new(StdDisk), &fixture.layout, 1, DATABASE, options, rows, rest).unwrap()
}

#[test]
fn two_threads_write_what_one_writes() {
    for compression in compressions() {
        let rows = many_rows();
        let one = Fixture::empty();
        let info = one.write(1, &rows, compression);
        let two = Fixture::empty();
        assert_eq!(write_all(&two, &rows, compression), info);
        assert_eq!(one.bytes(), two.bytes());
        assert_eq!(info.file_bytes, one.bytes().len() as u64);
        assert_eq!(two.open().info(), info);
    }
}

#[test]
fn what_a_crashed_try_left_is_replaced() {
    let fixture = Fixture::empty();
    std::fs::create_dir(fixture.layout.snapshots()).unwrap();
    std::fs::write(fixture.layout.snapshot(1), vec![7; 1 << 20]).unwrap();
    let rows = [put(b"k", 1, b"v")];
    fixture.write(1, &rows, Compression::None);
    assert_eq!(fixture.open().verify().unwrap().rows, 1);
}

#[test]
fn a_dropped_writer_leaves_nothing_that_opens_and_a_discarded_one_nothing() {
    let fixture = Fixture::empty();
    let disk: Arc<dyn Disk> = Arc::new(StdDisk);
    let create = || {
        let disk = Arc::clone(&disk);
        let options = SnapshotOptions::default();
        let mut writer =
            SnapshotWriter::create(disk, &fixture.layout, 1, DATABASE, options).unwrap();
        many_rows().iter().for_each(|row| writer.push(row).unwrap());
        writer
    };
    drop(create());
    assert!(fixture.try_open().is_err());
    create().discard().unwrap();
    let error = fixture.try_open().unwrap_err();
    assert!(matches!(error, Error::Corrupt { kind: CorruptionKind::Missing, .. }), "{error}");
}

#[test]
fn an_error_among_the_rows_ends_it_and_removes_the_file() {
    let fixture = Fixture::empty();
    let failed = || Error::Poisoned { reason: "a row".to_owned() };
    let rows = many_rows().into_iter().map(Ok).chain([Err(failed())]);
    let rest = || Ok((meta(), Vec::new()));
    let options = SnapshotOptions::default();
    let error =
        write_snapshot(Arc::new(StdDisk), &fixture.layout, 1, DATABASE, options, rows, rest);
    assert!(matches!(error, Err(Error::Poisoned { .. })));
    assert!(!fixture.layout.snapshot(1).exists());
}

#[test]
#[should_panic(expected = "rows come by key, and newest first")]
fn rows_out_of_order_are_a_bug_of_the_caller() {
    write_all(&Fixture::empty(), &[put(b"k", 1, b""), put(b"k", 2, b"")], Compression::None);
}

#[test]
#[should_panic(expected = "no row is newer than its snapshot")]
fn a_row_newer_than_the_snapshot_is_a_bug_of_the_caller() {
    write_all(&Fixture::empty(), &[put(b"k", W.0 + 1, b"")], Compression::None);
}
