//! Snapshots, as a whole: what was written is what is read, and nothing else ever is.

use std::sync::Arc;

use proptest::prelude::*;
use steadfast_core::limits::{STORED_KEY_BYTES_MAX, VALUE_BYTES_MAX};
use steadfast_core::{
    Place, Record, RecordBuilder, SortedTable, TableError, TableSlice, Timestamp, Version,
};

use super::*;
use crate::StdDisk;
use crate::disk::Disk;
use crate::layout::Layout;

mod damage;
mod format;
mod hostile;
mod writing;

const DATABASE: [u8; 16] = *b"0123456789abcdef";
const W: Version = Version(1 << 40);

/// Every way of storing blocks that this build has.
fn compressions() -> Vec<Compression> {
    vec![
        Compression::None,
        #[cfg(feature = "lz4")]
        Compression::Lz4,
    ]
}

fn meta() -> SnapshotMeta {
    SnapshotMeta { version: W, ..SnapshotMeta::default() }
}

/// A directory with a snapshot in it.
struct Fixture {
    _dir: tempfile::TempDir,
    layout: Layout,
}

impl Fixture {
    fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { layout: Layout::new(dir.path()), _dir: dir }
    }

    fn with(rows: &[Record], compression: Compression) -> Self {
        let fixture = Self::empty();
        fixture.write(1, rows, compression);
        fixture
    }

    fn write(&self, number: u64, rows: &[Record], compression: Compression) -> SnapshotInfo {
        let options = SnapshotOptions { compression };
        let disk: Arc<dyn Disk> = Arc::new(StdDisk);
        let mut writer =
            SnapshotWriter::create(disk, &self.layout, number, DATABASE, options).unwrap();
        for row in rows {
            writer.push(row).unwrap();
        }
        writer.finish(&meta(), b"times").unwrap()
    }

    fn open(&self) -> Snapshot {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> crate::Result<Snapshot> {
        Snapshot::open(&StdDisk, &self.layout, 1, DATABASE)
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.layout.snapshot(1)).unwrap()
    }

    fn replace(&self, bytes: &[u8]) {
        std::fs::write(self.layout.snapshot(1), bytes).unwrap();
    }
}

fn builder(version: u64) -> RecordBuilder {
    let timestamp = Timestamp::from_micros(1_700_000_000_000_000 + version * 7);
    RecordBuilder { version: Version(version), timestamp, expiry: None }
}

fn put(key: &[u8], version: u64, value: &[u8]) -> Record {
    builder(version).put(&[key, value].concat(), key.len())
}

/// Keys that share much, in some thousands of rows: several sections.
fn many_rows() -> Vec<Record> {
    let mut rng = 1u64;
    let mut random = || {
        rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        rng >> 33
    };
    (0..25_000u64)
        .map(|n| {
            let key = format!("group:{:05}/{:05}", n / 100, n % 100);
            let value: Vec<u8> = (0..100).map(|_| (random() % 64) as u8).collect();
            put(key.as_bytes(), 1 + random() % 1_000_000, &value)
        })
        .collect()
}

/// The newest record of `key` not above `at`, from a list in order.
fn model_get(rows: &[Record], key: &[u8], at: Version) -> Option<Record> {
    rows.iter().find(|row| row.key() == key && row.version() <= at).cloned()
}

fn model_slice(rows: &[Record], slice: &TableSlice) -> Vec<Record> {
    let inside = |row: &&Record| {
        *row.key() >= *slice.low && slice.high.as_ref().is_none_or(|high| *row.key() < **high)
    };
    rows.iter().filter(inside).cloned().collect()
}

fn all_sections(snapshot: &Snapshot) -> Result<Vec<Record>, TableError> {
    let mut rows = Vec::new();
    for section in 0..snapshot.sections() {
        rows.extend(snapshot.section(section)?);
    }
    Ok(rows)
}

/// Checks every way of reading against the rows that were written.
fn check_reads(snapshot: &Snapshot, rows: &[Record]) {
    assert_eq!(all_sections(snapshot).unwrap(), rows);
    let mut low = Vec::new();
    let mut walked = Vec::new();
    loop {
        let slice = snapshot.slice(Place::At(&low)).unwrap();
        assert_eq!(slice.low, low, "slices follow each other");
        assert_eq!(slice.rows, model_slice(rows, &slice));
        walked.extend(slice.rows);
        match slice.high {
            Some(high) => low = high,
            None => break,
        }
    }
    assert_eq!(walked, rows);
    let mut slice = snapshot.slice(Place::Last).unwrap();
    assert_eq!(slice.high, None);
    let mut backwards = slice.rows.clone();
    while !slice.low.is_empty() {
        let low = slice.low;
        slice = snapshot.slice(Place::Below(&low)).unwrap();
        assert_eq!(slice.high.as_ref(), Some(&low));
        backwards.splice(..0, slice.rows.clone());
    }
    assert_eq!(backwards, rows);
    assert_eq!(snapshot.slice(Place::First).unwrap(), snapshot.slice(Place::At(b"")).unwrap());
    for (index, row) in rows.iter().enumerate().step_by(1 + rows.len() / 500) {
        assert_eq!(snapshot.get(row.key(), row.version()).unwrap().as_ref(), Some(row));
        let start = rows.partition_point(|other| other.key() < row.key());
        let newest = model_get(&rows[start..], row.key(), Version::MAX);
        assert_eq!(snapshot.get(row.key(), Version::MAX).unwrap(), newest);
        let older = Version(row.version().0 - 1);
        assert_eq!(
            snapshot.get(row.key(), older).unwrap(),
            model_get(&rows[index..], row.key(), older)
        );
        let absent = [row.key(), b"\0"].concat();
        assert_eq!(
            snapshot.get(&absent, Version::MAX).unwrap(),
            model_get(rows, &absent, Version::MAX)
        );
        for place in [Place::At(&absent), Place::Below(row.key())] {
            let slice = snapshot.slice(place).unwrap();
            assert_eq!(slice.rows, model_slice(rows, &slice));
        }
    }
}

#[test]
fn gives_back_what_was_written_in_every_way_of_reading() {
    let rows = many_rows();
    for compression in compressions() {
        let fixture = Fixture::with(&rows, compression);
        let snapshot = fixture.open();
        assert!(snapshot.sections() > 2);
        check_reads(&snapshot, &rows);
        let check = snapshot.verify().unwrap();
        assert_eq!((check.rows, check.keys), (rows.len() as u64, rows.len() as u64));
        assert_eq!(check.bytes, fixture.bytes().len() as u64);
        assert_eq!(snapshot.commit_times().unwrap(), b"times");
        assert_eq!(snapshot.meta(), &meta());
        let described = snapshot.describe();
        let sum = described.block_bytes + described.index_bytes + described.filter_bytes;
        let sum = sum + described.meta_bytes + described.commit_times_bytes;
        assert_eq!(sum, described.file_bytes, "{described:?}");
        assert_eq!(described.file_bytes, fixture.bytes().len() as u64);
    }
}

#[test]
fn versions_of_one_key_beyond_a_block_and_beyond_a_section_stay_together() {
    let mut rows = vec![put(b"a", 5, b"x")];
    rows.extend((1..=30_000).rev().map(|version| put(b"key", version, &[7; 60])));
    rows.push(put(b"kez", 1, b""));
    rows.extend((1..=400).rev().map(|version| put(b"l", version, &[7; 30])));
    rows.extend((1..=400).rev().map(|version| put(b"m", version, &[7; 30])));
    for compression in compressions() {
        let fixture = Fixture::with(&rows, compression);
        let snapshot = fixture.open();
        check_reads(&snapshot, &rows);
        for version in [1, 2, 255, 256, 257, 12_345, 29_999, 30_000] {
            let found = snapshot.get(b"key", Version(version)).unwrap().unwrap();
            assert_eq!(found.version(), Version(version));
        }
        for version in 1..=30_000 {
            let found = snapshot.get(b"key", Version(version)).unwrap().unwrap();
            assert_eq!(found.version(), Version(version));
        }
        assert_eq!(snapshot.get(b"key", Version(0)).unwrap(), None);
    }
}

#[test]
fn the_longest_key_and_the_largest_value_come_back() {
    let long = vec![0xff; STORED_KEY_BYTES_MAX];
    let random: Vec<u8> = many_rows().iter().flat_map(|row| row.value_bytes().to_vec()).collect();
    let mut large = random.repeat(1 + VALUE_BYTES_MAX / random.len());
    large.truncate(VALUE_BYTES_MAX);
    let rows = [
        put(b"\0", 1, &vec![0; VALUE_BYTES_MAX]),
        put(b"a", 2, b"small"),
        put(&long[1..], 3, b""),
        put(&long, 4, &large),
        put(&long, 1, b"old"),
    ];
    for compression in compressions() {
        let fixture = Fixture::with(&rows, compression);
        let snapshot = fixture.open();
        check_reads(&snapshot, &rows);
        assert_eq!(snapshot.verify().unwrap().rows, 5);
    }
}

#[test]
fn many_readers_at_once_read_what_was_written() {
    let rows = many_rows();
    let fixture = Fixture::with(&rows, Compression::None);
    let snapshot = fixture.open();
    std::thread::scope(|scope| {
        for reader in 0..4 {
            let (snapshot, rows) = (&snapshot, &rows);
            scope.spawn(move || {
                for row in rows.iter().skip(reader).step_by(7) {
                    let found = snapshot.get(row.key(), Version::MAX).unwrap();
                    assert_eq!(found.as_ref(), Some(row));
                }
            });
        }
    });
}

#[test]
fn an_empty_snapshot_has_nothing() {
    let fixture = Fixture::with(&[], Compression::None);
    let snapshot = fixture.open();
    assert_eq!(snapshot.verify().unwrap().rows, 0);
    assert_eq!(snapshot.sections(), 0);
    assert_eq!(snapshot.get(b"k", Version::MAX).unwrap(), None);
    let slice = snapshot.slice(Place::Last).unwrap();
    assert_eq!(slice, TableSlice { low: Vec::new(), high: None, rows: Vec::new() });
}

/// Rows in order, without two of one key and version.
fn rows() -> impl Strategy<Value = Vec<Record>> {
    let key = prop_oneof![
        proptest::collection::vec(0u8..4, 1..5),
        proptest::collection::vec(any::<u8>(), 1..40),
        (0u8..3, 100usize..900).prop_map(|(byte, length)| vec![byte; length]),
    ];
    let value = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..60),
        1 => (any::<u8>(), 1000usize..40_000).prop_map(|(byte, length)| vec![byte; length]),
    ];
    let expiry = proptest::option::of(0u64..u64::MAX);
    let version = prop_oneof![1u64..6, 1u64..W.0];
    let time = prop_oneof![0u64..100, any::<u64>()];
    let row = (key, version, time, expiry, any::<bool>(), value);
    proptest::collection::vec(row, 0..120).prop_map(|mut rows| {
        rows.sort_by(|a, b| row_key(a).cmp(&row_key(b)));
        rows.dedup_by(|a, b| row_key(a) == row_key(b));
        let record = |(key, version, time, expiry, tombstone, value): RowParts| {
            let builder = RecordBuilder {
                version: Version(version),
                timestamp: Timestamp::from_micros(time),
                expiry: expiry.map(Timestamp::from_micros),
            };
            match tombstone {
                true => builder.tombstone(&key),
                false => builder.put(&[&key[..], &value[..]].concat(), key.len()),
            }
        };
        rows.into_iter().map(record).collect()
    })
}

type RowParts = (Vec<u8>, u64, u64, Option<u64>, bool, Vec<u8>);

fn row_key(row: &RowParts) -> (&[u8], std::cmp::Reverse<u64>) {
    (&row.0, std::cmp::Reverse(row.1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_rows_come_back(rows in rows()) {
        for compression in compressions() {
            let fixture = Fixture::with(&rows, compression);
            let snapshot = fixture.open();
            check_reads(&snapshot, &rows);
            prop_assert_eq!(snapshot.verify().unwrap().rows, rows.len() as u64);
        }
    }
}
