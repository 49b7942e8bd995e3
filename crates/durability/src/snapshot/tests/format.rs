//! The format's document says what is written.

use super::*;
use crate::error::Error;
use crate::snapshot::footer::{FOOTER_BYTES, Footer};
use crate::snapshot::piece::Seed;
use crate::test_support::{hex, hex_example};
use steadfast_core::fork::{Fork, Layer};
use steadfast_core::{Namespace, NamespaceId, RetentionDomain, RetentionFloor, RunId, TypeTag};

fn example() -> (SnapshotMeta, Vec<Record>) {
    let namespace = Namespace::for_run(RunId::from_bytes([0x11; 16]));
    let domain = RetentionDomain { run: None, tag: TypeTag::Kv };
    let floor = RetentionFloor { version: Version(7), clock: Timestamp::ZERO };
    let meta = SnapshotMeta {
        version: Version(9),
        timestamp: Timestamp::from_micros(1000),
        created: Timestamp::from_micros(2000),
        namespaces: vec![(NamespaceId(1), namespace)],
        floors: vec![(domain, floor)],
        forks: Vec::new(),
    };
    let at = |version, micros| RecordBuilder {
        version: Version(version),
        timestamp: Timestamp::from_micros(micros),
        expiry: None,
    };
    let expiring = RecordBuilder { expiry: Some(Timestamp::from_micros(5000)), ..at(8, 900) };
    let rows = vec![
        at(9, 1000).put(b"key1new", 4),
        at(7, 800).put(b"key1old", 4),
        expiring.put(b"key2value", 4),
        at(6, 700).tombstone(b"key3"),
    ];
    (meta, rows)
}

#[test]
fn the_worked_example_is_what_is_written() {
    let (meta, rows) = example();
    let fixture = Fixture::empty();
    let disk: Arc<dyn Disk> = Arc::new(StdDisk);
    let options = SnapshotOptions::default();
    let mut writer = SnapshotWriter::create(disk, &fixture.layout, 1, DATABASE, options).unwrap();
    rows.iter().for_each(|row| writer.push(row).unwrap());
    writer.finish(&meta, b"times").unwrap();
    let example = hex_example(include_str!("../FORMAT.md"));
    assert_eq!(hex(&fixture.bytes()), example, "see FORMAT.md");
    let snapshot = fixture.open();
    assert_eq!(snapshot.meta(), &meta);
    check_reads(&snapshot, &rows);
}

#[test]
fn forks_are_kept_beside_the_rows() {
    let layer = |namespace, version| Layer { namespace: NamespaceId(namespace), version };
    let fork = |namespace, layers| Fork { namespace, version: Version(8), layers };
    let (mut meta, rows) = example();
    meta.forks = vec![
        fork(NamespaceId(2), vec![layer(1, Version(8))]),
        fork(NamespaceId(3), vec![layer(2, Version(8)), layer(1, Version(5))]),
    ];
    let fixture = Fixture::empty();
    let disk: Arc<dyn Disk> = Arc::new(StdDisk);
    let options = SnapshotOptions::default();
    let mut writer = SnapshotWriter::create(disk, &fixture.layout, 1, DATABASE, options).unwrap();
    rows.iter().for_each(|row| writer.push(row).unwrap());
    writer.finish(&meta, b"").unwrap();
    assert_eq!(fixture.open().meta(), &meta);
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let fixture = Fixture::with(&[], Compression::None);
    let mut bytes = fixture.bytes();
    let start = bytes.len() - FOOTER_BYTES;
    bytes[start + 112] = 2;
    let checksum = Seed::new(&DATABASE, 1).checksum(start as u64, &bytes[start..start + 116]);
    bytes[start + 116..start + 120].copy_from_slice(&checksum.to_le_bytes());
    fixture.replace(&bytes);
    let error = fixture.try_open().unwrap_err();
    assert!(matches!(error, Error::NewerFormat { found: 2, known: 1, .. }), "{error}");
}

#[test]
fn a_footer_round_trips() {
    let fixture = Fixture::with(&many_rows()[..100], Compression::None);
    let bytes = fixture.bytes();
    let length = bytes.len() as u64;
    let footer = Footer::decode("f", &DATABASE, 1, length, &bytes).unwrap();
    assert_eq!(footer.encode(), bytes[bytes.len() - FOOTER_BYTES..]);
}

#[cfg(not(feature = "lz4"))]
#[test]
fn a_compressed_snapshot_needs_the_feature_and_says_so() {
    let fixture = Fixture::with(&[], Compression::None);
    let mut bytes = fixture.bytes();
    let start = bytes.len() - FOOTER_BYTES;
    bytes[start + 92] = 1;
    let checksum = Seed::new(&DATABASE, 1).checksum(start as u64, &bytes[start..start + 116]);
    bytes[start + 116..start + 120].copy_from_slice(&checksum.to_le_bytes());
    fixture.replace(&bytes);
    let error = fixture.try_open().unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}
