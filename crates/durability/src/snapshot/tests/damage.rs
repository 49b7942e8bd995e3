//! A damaged snapshot: found by `verify`, never read wrongly, and what is good taken out.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use steadfast_core::limits::SNAPSHOT_BLOCK_BYTES;

use super::*;
use crate::disk::{Access, DiskFile, EntryKind, Lock};
use crate::error::{CorruptionKind, Error};

/// Rows of all kinds, few enough to flip every bit of their file.
fn few_rows() -> Vec<Record> {
    let mut rows = Vec::new();
    for n in 0..40u64 {
        let key = format!("key/{:03}", n / 2);
        let version = 1000 - n;
        let mut builder = builder(version);
        if n % 5 == 0 {
            builder.expiry = Some(Timestamp::from_micros(1 << 50 | n));
        }
        rows.push(match n % 7 {
            0 => builder.tombstone(key.as_bytes()),
            _ => builder.put(format!("{key}value {n}").as_bytes(), key.len()),
        });
    }
    rows
}

/// Whatever can be read of a damaged file is right, or an error that names the file.
fn check_damaged(snapshot: &Snapshot, rows: &[Record], what: &str) {
    let error = snapshot.verify().expect_err(what);
    assert!(error.is_corruption(), "{what}");
    assert_eq!(&*error.file, "SNAPSHOTS/snap-000001.chk");
    if let Ok(read) = all_sections(snapshot) {
        assert_eq!(read, rows, "{what}");
    }
    for row in rows.iter().step_by(1 + rows.len() / 50) {
        if let Ok(found) = snapshot.get(row.key(), row.version()) {
            assert_eq!(found.as_ref(), Some(row), "{what}");
        }
        if let Ok(slice) = snapshot.slice(Place::At(row.key())) {
            assert_eq!(slice.rows, model_slice(rows, &slice), "{what}");
            assert!(slice.rows.contains(row), "{what}");
        }
    }
}

#[test]
fn any_bit_flipped_is_found_and_nothing_wrong_is_read() {
    for compression in compressions() {
        let rows = few_rows();
        let fixture = Fixture::with(&rows, compression);
        let good = fixture.bytes();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fixture.replace(&bad);
            if let Ok(snapshot) = fixture.try_open() {
                check_damaged(&snapshot, &rows, &format!("bit {bit} of byte {}", bit / 8));
            }
        }
    }
}

#[test]
fn bits_flipped_all_over_a_large_file_are_found() {
    for compression in compressions() {
        let rows = many_rows();
        let fixture = Fixture::with(&rows, compression);
        let good = fixture.bytes();
        for at in (0..good.len()).step_by(good.len() / 40) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fixture.replace(&bad);
            if let Ok(snapshot) = fixture.try_open() {
                check_damaged(&snapshot, &rows, &format!("byte {at}"));
            }
        }
    }
}

#[test]
fn refuses_a_file_that_was_cut_or_extended_anywhere() {
    let fixture = Fixture::with(&few_rows(), Compression::None);
    let good = fixture.bytes();
    for length in 0..good.len() {
        fixture.replace(&good[..length]);
        let error = fixture.try_open().expect_err("a file that was cut");
        assert!(matches!(error, Error::Corrupt { kind: CorruptionKind::BadFooter, .. }), "{error}");
    }
    for more in [1, 8, 128, 4096] {
        let mut longer = good.clone();
        longer.resize(good.len() + more, 0);
        fixture.replace(&longer);
        assert!(fixture.try_open().is_err(), "{more} zeros more");
        longer.truncate(good.len());
        longer.extend_from_slice(&good[good.len() - more.min(good.len())..]);
        fixture.replace(&longer);
        assert!(fixture.try_open().is_err(), "the last {more} bytes once more");
    }
}

#[test]
fn blocks_that_changed_places_do_not_pass() {
    // Values of one length that do not compress, so that blocks are of one length too.
    let rows: Vec<Record> = (0..600u32)
        .map(|n| put(format!("{n:08}").as_bytes(), 7, &[(n % 251) as u8; 100]))
        .collect();
    let fixture = Fixture::with(&rows, Compression::None);
    let blocks = fixture.open().read_blocks(0);
    let same = |a: &&(u64, u64), b: &(u64, u64)| a.1 == b.1;
    let (a, b) = (blocks[0], *blocks[1..].iter().find(|b| same(b, &blocks[0])).unwrap());
    let mut bytes = fixture.bytes();
    let length = usize::try_from(a.1).unwrap();
    let (at_a, at_b) = (usize::try_from(a.0).unwrap(), usize::try_from(b.0).unwrap());
    let copy = bytes[at_a..at_a + length].to_vec();
    bytes.copy_within(at_b..at_b + length, at_a);
    bytes[at_b..at_b + length].copy_from_slice(&copy);
    fixture.replace(&bytes);
    let snapshot = fixture.open();
    check_damaged(&snapshot, &rows, "two blocks swapped");
    assert!(snapshot.get(rows[0].key(), Version::MAX).is_err());
}

#[test]
fn a_file_of_another_database_or_number_is_refused_and_so_is_a_block_of_it() {
    let rows = few_rows();
    let fixture = Fixture::with(&rows, Compression::None);
    let error = Snapshot::open(&StdDisk, &fixture.layout, 1, [9; 16]).unwrap_err();
    assert!(matches!(error, Error::Corrupt { kind: CorruptionKind::Foreign, .. }), "{error}");
    fixture.write(2, &rows, Compression::None);
    let other = std::fs::read(fixture.layout.snapshot(2)).unwrap();
    let mut mixed = fixture.bytes();
    fixture.replace(&other);
    assert!(fixture.try_open().is_err(), "snapshot 2 under the name of snapshot 1");
    let length = usize::try_from(fixture_block(&fixture, 2).1).unwrap();
    mixed[48..48 + length].copy_from_slice(&other[48..48 + length]);
    fixture.replace(&mixed);
    check_damaged(&fixture.open(), &rows, "a block of snapshot 2");
}

fn fixture_block(fixture: &Fixture, number: u64) -> (u64, u64) {
    Snapshot::open(&StdDisk, &fixture.layout, number, DATABASE).unwrap().read_blocks(0)[0]
}

#[test]
fn salvage_gives_every_row_outside_the_damage_and_says_between_which_keys_it_is() {
    for compression in compressions() {
        let rows = many_rows();
        let fixture = Fixture::with(&rows, compression);
        let good = fixture.bytes();
        let snapshot = fixture.open();
        let blocks = snapshot.read_blocks(1);
        let (bad, next) = (blocks[3], blocks[4]);
        let mut places = vec![
            ("a block's payload", bad.0 + 100, 1),
            ("a block's header", bad.0 + 2, 1),
            ("two blocks", bad.0 + 19, 2),
        ];
        let section = &snapshot.sections[1];
        places.push(("an index", section.index_offset() + 30, 0));
        places.push(("a filter", section.filter_offset(), 0));
        places.push(("the footer", good.len() as u64 - 5, 0));
        places.push(("the top index", snapshot.footer.top_offset + 3, 0));
        places.push(("the header", 3, 0));
        for (what, at, lost_blocks) in places {
            let mut bytes = good.clone();
            bytes[usize::try_from(at).unwrap()] ^= 1;
            if lost_blocks == 2 {
                bytes[usize::try_from(next.0 + 3).unwrap()] ^= 1;
            }
            fixture.replace(&bytes);
            let mut taken = Vec::new();
            let salvaged =
                salvage_rows(&StdDisk, &fixture.layout, 1, DATABASE, |row| taken.push(row))
                    .unwrap();
            assert_eq!(salvaged.meta, Some(meta()), "{what}");
            assert_eq!(salvaged.commit_times.as_deref(), Some(&b"times"[..]), "{what}");
            if lost_blocks == 0 {
                assert_eq!(taken, rows, "{what}");
                continue;
            }
            let loss = &salvaged.losses[0];
            assert_eq!(loss.error.offset, bad.0, "{what}");
            let (low, high) = (loss.low.as_ref().unwrap(), loss.high.as_ref().unwrap());
            let lost = |row: &&Record| *row.key() > **low && *row.key() < **high;
            let expected: Vec<Record> = rows.iter().filter(|row| !lost(row)).cloned().collect();
            assert_eq!(taken, expected, "{what}: all rows but those between the two keys");
            let missing = rows.len() - taken.len();
            let in_a_block = SNAPSHOT_BLOCK_BYTES / rows[0].payload_bytes();
            let few = in_a_block * 3 / 4..=in_a_block * 5 / 4 * lost_blocks;
            assert!(few.contains(&missing), "{what}: {missing} rows, {in_a_block} in a block");
            let losses: u64 = salvaged.losses.iter().map(|loss| loss.bytes).sum();
            let expected = if lost_blocks == 2 { bad.1 + next.1 } else { bad.1 };
            assert_eq!(losses, expected, "{what}");
            assert_eq!(salvaged.rows_expected, Some(rows.len() as u64));
        }
        // The second half of the file is gone, and the footer with it.
        fixture.replace(&good[..good.len() / 2]);
        let mut taken = Vec::new();
        salvage_rows(&StdDisk, &fixture.layout, 1, DATABASE, |row| taken.push(row)).unwrap();
        assert!(taken.len() > rows.len() / 3 && taken == rows[..taken.len()]);
    }
}

impl Snapshot {
    /// Offset and length of each block of a section.
    fn read_blocks(&self, section: usize) -> Vec<(u64, u64)> {
        let entry = &self.sections[section];
        let index = self.read(entry.index_offset(), entry.index.bytes).unwrap();
        let blocks = self.decode_index(entry, &index).unwrap();
        blocks.iter().map(|block| (block.offset, block.sealed.bytes)).collect()
    }
}

/// The operating system's files, whose reads fail while a switch is on.
#[derive(Debug, Clone, Default)]
struct FailingDisk(Arc<AtomicBool>);

#[derive(Debug)]
struct FailingFile(Arc<dyn DiskFile>, Arc<AtomicBool>);

impl Disk for FailingDisk {
    fn create(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FailingFile(StdDisk.create(path, access)?, Arc::clone(&self.0))))
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FailingFile(StdDisk.open(path, access)?, Arc::clone(&self.0))))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        StdDisk.create_dir(path)
    }
    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        StdDisk.kind(path)
    }
    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        StdDisk.list(directory)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        StdDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        StdDisk.remove(path)
    }
    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        StdDisk.sync_dir(directory)
    }
    fn lock(&self, path: &Path) -> io::Result<Lock> {
        StdDisk.lock(path)
    }
    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        StdDisk.is_locked(path)
    }
}

impl FailingFile {
    fn check(&self) -> io::Result<()> {
        if self.1.load(Ordering::Relaxed) { Err(io::Error::other("broken")) } else { Ok(()) }
    }
}

impl DiskFile for FailingFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check()?;
        self.0.write_at(offset, bytes)
    }
    fn write_at_durable(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at_durable(offset, bytes)
    }
    fn allocate(&self, length: u64) -> io::Result<()> {
        self.0.allocate(length)
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

#[test]
fn a_read_that_fails_is_not_taken_for_damage_and_may_succeed_later() {
    let rows = many_rows();
    let fixture = Fixture::with(&rows, Compression::None);
    let disk = FailingDisk::default();
    let snapshot = Snapshot::open(&disk, &fixture.layout, 1, DATABASE).unwrap();
    disk.0.store(true, Ordering::Relaxed);
    let key = rows[9].key();
    for error in [
        snapshot.get(key, Version::MAX).unwrap_err(),
        snapshot.slice(Place::Last).unwrap_err(),
        snapshot.section(1).unwrap_err(),
        snapshot.verify().unwrap_err(),
    ] {
        assert!(!error.is_corruption(), "{error}");
    }
    disk.0.store(false, Ordering::Relaxed);
    assert_eq!(snapshot.get(key, Version::MAX).unwrap().as_ref(), Some(&rows[9]));
}

#[test]
fn what_was_damaged_once_stays_an_error() {
    let rows = many_rows();
    let fixture = Fixture::with(&rows, Compression::None);
    let good = fixture.bytes();
    let mut bad = good.clone();
    bad[100] ^= 1;
    fixture.replace(&bad);
    let snapshot = fixture.open();
    let first = snapshot.get(rows[0].key(), Version::MAX).unwrap_err();
    assert_eq!(first.offset, 48, "the first block");
    fixture.replace(&good);
    let again = snapshot.get(rows[0].key(), Version::MAX).unwrap_err();
    assert_eq!(again.to_string(), first.to_string());
    assert!(snapshot.get(rows[20_000].key(), Version::MAX).unwrap().is_some());
}

#[test]
fn a_failed_write_ends_a_snapshot_and_removes_its_file() {
    let fixture = Fixture::empty();
    let disk = FailingDisk::default();
    let switch = Arc::clone(&disk.0);
    let rows = many_rows();
    let rows = rows.iter().enumerate().map(|(n, row)| {
        switch.store(n == 12_000, Ordering::Relaxed);
        Ok::<_, Error>(row.clone())
    });
    let rows = rows.take(12_001).chain((0..).map(|n: u64| {
        let key = format!("h{n:012}");
        Ok(put(key.as_bytes(), 1, &[1; 1000]))
    }));
    let rest = || Ok((meta(), Vec::new()));
    let options = SnapshotOptions::default();
    let error = write_snapshot(Arc::new(disk), &fixture.layout, 1, DATABASE, options, rows, rest)
        .unwrap_err();
    assert!(
        matches!(&error, Error::Io { action: "write", source, .. }
        if source.to_string() == "broken"),
        "{error}"
    );
    assert!(!fixture.layout.snapshot(1).exists());
}
