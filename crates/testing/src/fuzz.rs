//! What is done with bytes that anybody may have written: one function for each decoder, and one
//! for whole databases. They panic where something is not as it must be.
//!
//! The targets of `fuzz/` call them with what a fuzzer thinks of, the tests of this crate with
//! the corpus that lies there, with changes of it and with bytes drawn at random. Checksums
//! would turn all of that away, so decoders are also asked with the comparison of checksums
//! turned off by a switch of [`sabotage`](crate::sabotage).
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use steadfast_core::codec::Cursor;
use steadfast_core::limits::{SNAPSHOT_BLOCK_BYTES_MAX, STORED_KEY_BYTES_MAX, VALUE_BYTES_MAX};
use steadfast_core::{Key, Place, RetentionPolicy, SortedTable, WriteSet};
use steadfast_durability::disk::{Access, Disk};
use steadfast_durability::layout::Layout;
use steadfast_durability::manifest::{EpochStart, Manifest};
use steadfast_durability::snapshot::Snapshot;
use steadfast_durability::wal::frame::{Frame, split_body};
use steadfast_durability::wal::group::{ChecksumSeed, GroupBuilder, GroupKind, Stamp};
use steadfast_durability::wal::reader::SegmentReader;
use steadfast_durability::wal::segment::{Epoch, HEADER_BYTES, Origin, SegmentHeader};
use steadfast_engine::{
    DatabaseConfig, DurabilityMode, Error, ErrorKind, Timestamp, TypeTag, Value, Version,
};

use crate::damage::{Subject, subject, with_snapshots};
use crate::model::{Op, content_now};
use crate::sabotage::{Sabotage, sabotage_this_thread};
use crate::sim::SimDisk;
use crate::workload::{BATCHED, builder, path};

/// A function of this module, and what its corpus is called.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: of the target, and of the folder of its corpus.
    pub name: &'static str,
    /// What it does with some bytes.
    pub body: fn(&[u8]),
    /// Bytes to begin with, which the corpus has as files.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "frame", body: frame, seeds: frame_seeds },
    Target { name: "segment", body: segment, seeds: segment_seeds },
    Target { name: "replay", body: replay, seeds: replay_seeds },
    Target { name: "manifest", body: manifest, seeds: manifest_seeds },
    Target { name: "snapshot", body: snapshot, seeds: snapshot_seeds },
    Target { name: "database", body: database, seeds: database_seeds },
];

/// The database that files made here belong to.
const DATABASE: [u8; 16] = *b"fuzzed database!";

/// Does `work` with the comparison of some checksums turned off.
fn without<T>(check: Sabotage, work: impl FnOnce() -> T) -> T {
    let before = sabotage_this_thread(Some(check));
    let done = work();
    sabotage_this_thread(before);
    done
}

// ---- Frames -----------------------------------------------------------------------------

/// Frames and what is in them: what can be decoded can be encoded, and is the same then.
pub fn frame(data: &[u8]) {
    let mut cursor = Cursor::new("fuzz", data);
    while let Ok(frame) = Frame::decode(&mut cursor) {
        let mut encoded = Vec::new();
        frame.encode(&mut encoded);
        assert_eq!(encoded.len(), frame.encoded_len());
        assert!(encoded.len() <= data.len() + 16, "a frame larger than what it was decoded from");
        assert_eq!(Frame::decode(&mut Cursor::new("again", &encoded)), Ok(frame));
        if let Frame::Txn { body, .. } | Frame::Part { bytes: body, .. } = frame
            && let Ok((definitions, writes)) = split_body(body)
        {
            assert!(definitions.len() <= body.len());
            write_set(writes);
        }
    }
    write_set(data);
}

fn write_set(bytes: &[u8]) {
    let Ok(set) = WriteSet::from_bytes(bytes) else { return };
    assert_eq!(set.as_bytes(), bytes);
    let records = set.records(Version(7), Timestamp::ZERO);
    // Of several writes of one key, the last counts.
    assert!(records.len() <= set.len());
    let taken: usize = records.iter().map(|record| record.payload_bytes()).sum();
    assert!(taken <= bytes.len(), "{taken} bytes of records from {}", bytes.len());
    let mut again = WriteSet::new();
    for record in &records {
        match record.is_tombstone() {
            true => again.delete(record.key()).unwrap(),
            false if record.is_delta() => {
                again.delta(record.key(), record.value_bytes()).unwrap();
            }
            false => {
                again.put_encoded(record.key(), record.value_bytes(), record.expiry()).unwrap();
            }
        }
    }
    assert_eq!(again.records(Version(7), Timestamp::ZERO), records);
}

fn frame_seeds() -> Vec<Vec<u8>> {
    let key = Key::new(steadfast_core::NamespaceId(1), TypeTag::Kv, b"key").unwrap();
    let mut set = WriteSet::new();
    set.put(&key, &Value::from("value"), Some(Timestamp::from_micros(9))).unwrap();
    set.delete(key.as_bytes()).unwrap();
    let body = [&[0], set.as_bytes()].concat();
    let (version, timestamp) = (Version(3), Timestamp::from_micros(5));
    let frames = [
        Frame::Txn { version, timestamp, body: &body },
        Frame::Begin { txn: 7, timestamp },
        Frame::Part { txn: 7, bytes: &body },
        Frame::Commit { txn: 7, version, timestamp, parts: 1, checksum: 9 },
        Frame::Abort { txn: 8 },
        Frame::Seal { successor: 2 },
        Frame::Footer { next_version: version, timestamp },
    ];
    let mut all = Vec::new();
    let mut seeds = Vec::new();
    for frame in frames {
        let mut one = Vec::new();
        frame.encode(&mut one);
        all.extend_from_slice(&one);
        seeds.push(one);
    }
    seeds.extend([all, set.as_bytes().to_vec()]);
    seeds
}

// ---- Segments ---------------------------------------------------------------------------

fn header() -> SegmentHeader {
    SegmentHeader {
        database: DATABASE,
        number: 1,
        epoch: Epoch { counter: 1, random: 7 },
        version_ceiling: 1 << 20,
        durable_upto: 0,
        first_position: 0,
        predecessor: 0,
        chain: 0,
        origin: Origin::Rotation,
    }
}

/// A segment's header, and the bytes of groups behind a good one: reading comes to an end inside
/// the file, and what is taken for a group is one.
pub fn segment(data: &[u8]) {
    if let Ok(header) = SegmentHeader::decode(data) {
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    }
    read_groups(data);
    without(Sabotage::IgnoreGroupHeaderChecksum, || read_groups(data));
    without(Sabotage::IgnoreGroupChecksum, || read_groups(data));
}

fn read_groups(data: &[u8]) {
    let disk = SimDisk::new();
    let bytes = [&*header().encode(), data].concat();
    let len = bytes.len() as u64;
    disk.tamper("segment", |file| *file = bytes);
    let file = disk.open("segment".as_ref(), Access::Read).unwrap();
    let mut reader = SegmentReader::new(file, header());
    let kind = loop {
        let before = reader.position();
        match reader.next_group().unwrap() {
            Ok(group) => {
                assert_eq!(group.position, before);
                assert!(group.frames.len() < group.bytes.len());
                assert!(reader.position() > before, "reading goes on");
                assert!(reader.position() + HEADER_BYTES <= len, "a group beyond the file");
            }
            Err(kind) => break kind,
        }
    };
    let end = reader.end(kind).unwrap();
    assert!(end.position + HEADER_BYTES <= len);
    let evidence = reader.evidence().unwrap();
    assert!(evidence.durable_upto <= evidence.last || evidence.groups == 0);
    assert!(evidence.groups * 8 <= len);
}

fn segment_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![header().encode()];
    for mode in [DurabilityMode::Strict, DurabilityMode::Buffered] {
        let subject = subject(mode, true, 6);
        let path = subject.files().into_iter().find(|path| path.contains("WAL/")).unwrap();
        let bytes = subject.disk.bytes(&path).unwrap();
        seeds.push(bytes[4096..].to_vec());
    }
    seeds.extend(replay_seeds().iter().map(|data| groups(data)));
    seeds
}

// ---- Replay -----------------------------------------------------------------------------

/// Frames from `data` in groups with right checksums: a length, how many frames it claims to
/// have, and the bytes of them.
fn groups(data: &[u8]) -> Vec<u8> {
    let seed = ChecksumSeed::of(&header());
    let (mut out, mut chain, mut builder) = (Vec::new(), 0, GroupBuilder::default());
    let mut rest = data;
    while let [low, high, count, tail @ ..] = rest
        && out.len() < 1 << 20
    {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(tail.len());
        let (frames, tail) = tail.split_at(length);
        rest = tail;
        builder.clear();
        builder.frame(|bytes| bytes.extend_from_slice(frames));
        (1..count % 8).for_each(|_| builder.frame(|_| {}));
        let position = out.len() as u64;
        let kind = match count >> 5 {
            1 => GroupKind::Open,
            2 => GroupKind::Footer,
            3 => GroupKind::Seal,
            _ => GroupKind::Data,
        };
        let stamp = Stamp { kind, level: 0, durable_upto: 0 };
        let padded = builder.padded_len(8);
        let (bytes, after) = builder.finish(seed, position, chain, stamp, padded);
        out.extend_from_slice(bytes);
        chain = after;
    }
    out
}

/// A database whose log says whatever `data` says, under right checksums: it is opened or
/// refused, and what is opened can be written to, closed and opened again as it was.
pub fn replay(data: &[u8]) {
    let disk = SimDisk::new();
    let layout = Layout::new(path());
    for directory in [layout.root().to_owned(), layout.wal(), layout.snapshots()] {
        disk.create_dir(&directory).unwrap();
    }
    let file = [&*header().encode(), &groups(data)].concat();
    disk.tamper("db/WAL/wal-000001.seg", |bytes| *bytes = file);
    let mut manifest = Manifest::new(DATABASE, Timestamp::ZERO, RetentionPolicy::default());
    (manifest.oldest_segment, manifest.newest_segment, manifest.floor.segment) = (1, 1, 1);
    manifest.epochs.push(EpochStart {
        epoch: header().epoch,
        first_version: Version(1),
        recovered: Version::ZERO,
        first_segment: 1,
    });
    manifest.write(&disk, &layout).unwrap();
    open_and_go_on(&disk);
}

/// Opens what may be anything. Errors are of what is damaged; what can be read stays as it is.
fn open_and_go_on(disk: &SimDisk) {
    let config = || DatabaseConfig::buffered().manual_checkpoints();
    let expect_typed = |error: &Error| {
        // A value that no release encodes, under a right checksum, is an invalid one.
        let kinds = [ErrorKind::Corruption, ErrorKind::Unsupported, ErrorKind::Invalid];
        assert!(kinds.contains(&error.kind()), "kind {}: {error}", error.kind());
    };
    let db = match builder(disk, config()).open() {
        Err(error) => return expect_typed(&error),
        Ok(db) => db,
    };
    if let Err(error) = content_now(&db) {
        return expect_typed(&error);
    }
    let put = Op::Put("fuzz".into(), "key".into(), Value::Int(1));
    if let Err(error) = db.transaction(|tx| put.apply(tx)) {
        // A version or a run's number may be the last that there can be.
        let kinds = [ErrorKind::Invalid, ErrorKind::Corruption];
        return assert!(kinds.contains(&error.kind()), "kind {}: {error}", error.kind());
    }
    let content = content_now(&db).unwrap();
    db.checkpoint().unwrap();
    db.close().unwrap();
    let db = builder(disk, config()).open().unwrap();
    assert_eq!(content_now(&db).unwrap(), content, "closed and opened again");
    db.wait_loaded().unwrap();
    assert_eq!(content_now(&db).unwrap(), content, "loaded");
}

fn replay_seeds() -> Vec<Vec<u8>> {
    let group = |count: u8, frames: &[u8]| {
        let length = u16::try_from(frames.len()).unwrap().to_le_bytes();
        [&length, &[count][..], frames].concat()
    };
    // What a real log holds, frame by frame.
    let real = |mode| {
        let subject = subject(mode, true, 6);
        let mut out = Vec::new();
        for path in subject.files().into_iter().filter(|path| path.contains("WAL/")) {
            let file = subject.disk.open(path.as_ref(), Access::Read).unwrap();
            let block = subject.disk.bytes(&path).unwrap();
            let header = SegmentHeader::decode(&block[..4096]).unwrap();
            let mut reader = SegmentReader::new(file, header);
            while let Ok(read) = reader.next_group().unwrap() {
                let used = read.frames.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
                let count = u8::try_from(read.header.frames % 8).unwrap();
                out.extend(group(count, &read.frames[..used.min(1000)]));
            }
        }
        out
    };
    let frames = frame_seeds();
    let mut seeds: Vec<_> = frames.iter().map(|frame| group(1, frame)).collect();
    seeds.push(frames.iter().take(7).flat_map(|frame| group(1, frame)).collect());
    seeds.extend([real(DurabilityMode::Buffered), real(BATCHED)]);
    seeds
}

// ---- The MANIFEST -----------------------------------------------------------------------

/// A MANIFEST: what can be decoded is encoded as it was.
pub fn manifest(data: &[u8]) {
    if let Ok(manifest) = Manifest::decode(data) {
        assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
    }
    let decoded = without(Sabotage::IgnoreManifestChecksum, || Manifest::decode(data));
    if let Ok(manifest) = decoded {
        assert!((manifest.epochs.len() + manifest.snapshots.len()) * 40 <= data.len());
        assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
    }
}

fn manifest_seeds() -> Vec<Vec<u8>> {
    let of = |subject: &Subject| subject.disk.bytes("db/MANIFEST").unwrap();
    vec![
        Manifest::new(DATABASE, Timestamp::ZERO, RetentionPolicy::default()).encode(),
        of(&subject(DurabilityMode::Strict, true, 8)),
        of(&with_snapshots(DurabilityMode::Buffered, true, false)),
        of(&with_snapshots(DurabilityMode::Buffered, true, true)),
    ]
}

// ---- Snapshots --------------------------------------------------------------------------

thread_local! {
    static SNAPSHOT: (Vec<u8>, [u8; 16]) = {
        let subject = with_snapshots(DurabilityMode::Buffered, true, true);
        let bytes = subject.disk.bytes("db/MANIFEST").unwrap();
        let database = Manifest::decode(&bytes).unwrap().database;
        (subject.disk.bytes(&subject.snapshots()[0]).unwrap(), database)
    };
}

/// A snapshot: the bytes of one, or (if the first byte is odd) changes to a good one: a place, a
/// byte. Whatever can be read of it is in order and not larger than there can be.
pub fn snapshot(data: &[u8]) {
    let (good, database) = SNAPSHOT.with(Clone::clone);
    let bytes = match data.split_first() {
        Some((first, changes)) if first % 2 == 1 => {
            let mut bytes = good;
            for change in changes.chunks_exact(3) {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
                // From the end, where what tells of everything else lies.
                let at = bytes.len() - 1 - at % bytes.len();
                bytes[at] ^= change[2];
            }
            bytes
        }
        _ => data.to_vec(),
    };
    read_snapshot(&bytes, database);
    without(Sabotage::IgnoreSnapshotChecksum, || read_snapshot(&bytes, database));
}

fn read_snapshot(bytes: &[u8], database: [u8; 16]) {
    let disk = SimDisk::new();
    let layout = Layout::new(path());
    disk.create_dir(layout.root()).unwrap();
    disk.create_dir(&layout.snapshots()).unwrap();
    disk.tamper("db/SNAPSHOTS/snap-000001.chk", |file| *file = bytes.to_vec());
    let Ok(snapshot) = Snapshot::open(&disk, &layout, 1, database) else { return };
    let table: Arc<dyn SortedTable> = Arc::new(snapshot);
    let row_max = STORED_KEY_BYTES_MAX + VALUE_BYTES_MAX;
    for number in 0..table.sections().min(100) {
        let Ok(rows) = table.section(number) else { continue };
        let taken: usize = rows.iter().map(|row| row.payload_bytes()).sum();
        let blocks = bytes.len() / 20 + 1;
        assert!(taken <= blocks * SNAPSHOT_BLOCK_BYTES_MAX.max(row_max), "{taken} bytes");
        for row in rows.iter().take(50) {
            let _ = table.get(row.key(), row.version());
            let _ = table.slice(Place::At(row.key()));
        }
        let _ = table.first_key(number);
    }
    for place in [Place::First, Place::Last, Place::At(b"k"), Place::Below(b"k")] {
        if let Ok(slice) = table.slice(place) {
            assert!(slice.rows.is_sorted_by(|a, b| a.key() <= b.key()));
        }
    }
    let snapshot = Snapshot::open(&disk, &layout, 1, database).unwrap();
    let _ = (snapshot.verify(), snapshot.commit_times(), snapshot.describe());
}

fn snapshot_seeds() -> Vec<Vec<u8>> {
    let good = SNAPSHOT.with(|(bytes, _)| bytes.clone());
    let mut seeds = vec![[&[0], &*good].concat(), good, vec![1]];
    for at in [3u16, 30, 60, 90, 118, 130, 160, 200, 400, 900] {
        let [low, high] = at.to_le_bytes();
        seeds.push(vec![1, low, high, 0x40]);
    }
    seeds
}

// ---- Whole databases --------------------------------------------------------------------

thread_local! {
    static SUBJECTS: [Subject; 4] = [
        subject(DurabilityMode::Strict, true, 8),
        subject(DurabilityMode::Buffered, false, 10),
        with_snapshots(BATCHED, true, true),
        with_snapshots(DurabilityMode::Buffered, false, false),
    ];
}

/// Most changes that are made to one database.
const CHANGES_MAX: usize = 12;

/// A whole database, changed: which one, then for each change eight bytes that say which file,
/// what, where, how much and with what. It opens with what was once committed, or refuses and
/// says why; it never shows anything else.
pub fn database(data: &[u8]) {
    let Some((which, changes)) = data.split_first() else { return };
    SUBJECTS.with(|subjects| {
        let subject = &subjects[usize::from(*which) % subjects.len()];
        let files = subject.files();
        let outcome = subject.try_anything(|disk| {
            for change in changes.chunks_exact(8).take(CHANGES_MAX) {
                apply(disk, &files, change);
            }
        });
        assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
    });
}

fn apply(disk: &SimDisk, files: &[String], change: &[u8]) {
    let path = &files[usize::from(change[0]) % files.len()];
    let Some(bytes) = disk.bytes(path).filter(|bytes| !bytes.is_empty()) else { return };
    let place = u32::from_le_bytes([change[2], change[3], change[4], 0]) as usize;
    let (length, value) = (usize::from(change[5]) * 8 + 1, change[6]);
    let at = place % bytes.len();
    let end = bytes.len().min(at + length);
    match change[1] % 7 {
        0 => disk.flip_bit(path, at * 8 + usize::from(value % 8)),
        1 => disk.tamper(path, |bytes| bytes[at..end].fill(value)),
        2 => disk.tamper(path, |bytes| bytes.truncate(at)),
        3 => disk.lose(path),
        4 => disk.tamper(path, |bytes| {
            let to = usize::from(value) * 512 % bytes.len();
            let length = (end - at).min(bytes.len() - to);
            bytes.copy_within(at..at + length, to);
        }),
        5 => {
            let other = &files[usize::from(change[7]) % files.len()];
            if let Some(theirs) = disk.bytes(other) {
                disk.tamper(path, |bytes| *bytes = theirs);
                disk.tamper(other, |file| *file = bytes);
            }
        }
        _ => disk.tamper(path, |bytes| bytes.resize(bytes.len() + length, value)),
    }
}

fn database_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for which in 0..4u8 {
        seeds.push(vec![which]);
        for what in 0..7u8 {
            let change = [what + which, what, 0, 17, 0, 4, 3, 1];
            seeds.push([&[which][..], &change, &change[1..], &[5]].concat());
        }
    }
    seeds
}
