//! Segments, groups and where the log ends.

use steadfast::ErrorKind;
use steadfast_testing::model::content_now;
use steadfast_testing::sim::{
    Choice, EIO, ENOSPC, Fault, SimDisk, StepKind, Unsynced, UnsyncedChange,
};
use steadfast_testing::workload::builder;

use crate::life::{
    BUFFERED, HEADER_BYTES, Life, STRICT, config, cut, cut_by, cut_keeping, put, segments,
    streamed, used, with_segments,
};

/// Segments are not recycled here. Were they, this is what would lie behind the new groups: a
/// whole group of an older life, also at the very place where the next one would be.
#[test]
pub(crate) fn bytes_of_an_older_segment_are_no_records() {
    let mut life = Life::new(BUFFERED);
    for n in 0..6 {
        life.commit(&put(&format!("old{n}"), 300));
    }
    let path = segments(&life.disk).remove(0);
    let old = life.disk.bytes(&path).unwrap();
    life.db.close().unwrap();
    let disk = life.disk.killed();
    life.reborn(disk);
    life.commit(&put("new", 300));
    let killed = life.disk.killed();
    let newest = segments(&killed)
        .into_iter()
        .find(|other| *other != path && used(&killed.bytes(other).unwrap()) > HEADER_BYTES);
    let newest = newest.expect("a writing opening begins a segment");
    let end = used(&killed.bytes(&newest).unwrap()).next_multiple_of(8);
    let groups = &old[HEADER_BYTES..used(&old)];
    for at in [end, HEADER_BYTES] {
        let image = killed.killed();
        image.tamper(&newest, |bytes| {
            let room = bytes.len() - at;
            let n = groups.len().min(room);
            // At the end, and once so that an old group stands where it stood in its own life.
            let from = if at == end { 0 } else { at.max(end) - HEADER_BYTES };
            let piece = &groups[from.min(groups.len())..n.max(from).min(groups.len())];
            let to = at.max(end);
            bytes[to..to + piece.len()].copy_from_slice(piece);
        });
        assert_ne!(image.bytes(&newest), killed.bytes(&newest), "something old is there");
        life.expect_all(&image, "old groups behind the new ones");
    }
    // The whole of the older segment under the next name: never a record of it.
    let image = killed.killed();
    let next = format!("db/WAL/wal-{:06}.seg", 9);
    image.tamper(&next, |bytes| *bytes = old.clone());
    if let Ok(db) = builder(&image, life.config.clone()).open_existing() {
        let last = &life.states.last().unwrap().1;
        assert_eq!(last.compare(&content_now(&db).unwrap()), []);
    }
}

/// The newer segment is durable, the tail of the older one is not. Power cannot do it, because
/// the older one is synced first; and where it happens all the same, it is refused.
#[test]
pub(crate) fn a_newer_segment_without_the_older_ones_tail() {
    let disk = SimDisk::new();
    disk.record_moments();
    let db = builder(&disk, config(BUFFERED)).open().unwrap();
    let mut life = Life { disk, db, config: config(BUFFERED), states: Life::new(BUFFERED).states };
    for n in 0..24 {
        life.commit(&put(&format!("k{n}"), 1500));
    }
    let mut tried = 0;
    for moment in life.disk.take_moments() {
        let unsynced = moment.unsynced();
        let is_log = |op: &&Unsynced| op.path.starts_with("db/WAL/");
        let Some(oldest) = unsynced.iter().filter(is_log).map(|op| op.path.clone()).min() else {
            continue;
        };
        if moment.kill().bytes("db/MANIFEST").is_some() {
            let image = cut_keeping(&moment, |op| op.path != oldest);
            life.expect(&image, 0, &format!("{moment:?}"));
            tried += usize::from(unsynced.iter().filter(is_log).any(|op| op.path != oldest));
        }
    }
    assert!(tried > 0, "two segments were unsynced at once");
    let killed = life.disk.killed();
    let first = segments(&killed).remove(0);
    killed.tamper(&first, |bytes| {
        let end = used(bytes);
        bytes[end - 1600..].fill(0);
    });
    life.expect_refusal(&killed, "wal-000001.seg", "the older one has lost its tail");
}

#[test]
pub(crate) fn a_middle_segment_that_cannot_be_opened_refuses() {
    let life = with_segments(BUFFERED, 3);
    let paths = segments(&life.disk);
    for path in &paths[..2] {
        let image = life.disk.killed();
        image.tamper(path, |bytes| bytes[20] ^= 1);
        let name = path.rsplit('/').next().unwrap();
        life.expect_refusal(&image, name, "its header is bad");
        let image = life.disk.killed();
        image.lose(path);
        life.expect_refusal(&image, name, "it is gone");
    }
}

#[test]
pub(crate) fn bytes_that_are_durable_before_lengths() {
    for mode in [STRICT, BUFFERED] {
        let disk = SimDisk::new();
        let db = builder(&disk, config(mode)).open().unwrap();
        let mut life = Life { disk, db, config: config(mode), states: Life::new(mode).states };
        life.disk.record_moments();
        let mut acknowledged = Vec::new();
        for n in 0..16 {
            life.commit(&put(&format!("k{n}"), 1500));
            life.disk.note(n + 1);
            acknowledged.push(n + 1);
        }
        let mut lens = 0;
        for moment in life.disk.take_moments() {
            let is_len = |op: &Unsynced| matches!(op.change, UnsyncedChange::Len(_));
            lens += moment.unsynced().iter().filter(|op| is_len(op)).count();
            let least = if mode == STRICT { usize::try_from(moment.note()).unwrap() } else { 0 };
            life.expect(&cut_keeping(&moment, |op| !is_len(op)), least, &format!("{moment:?}"));
        }
        assert!(lens > 0, "files grew");
    }
}

#[test]
pub(crate) fn a_commit_behind_a_torn_tail() {
    let mut life = Life::new(BUFFERED);
    life.commit(&put("a", 100));
    life.db.flush().unwrap();
    life.commit(&put("torn", 2500));
    let moment = life.disk.moment();
    life.states.pop();
    for sectors in 0..6 {
        for choice in [Choice::First(sectors), Choice::Without(sectors), Choice::Garbage(sectors)] {
            let image = cut_by(&moment, |op| match op.change {
                UnsyncedChange::Write { sectors: all, .. } if all > sectors => choice,
                _ => Choice::Keep,
            });
            let what = format!("{choice}");
            let Ok(kept) = builder(&image.killed(), life.config.clone()).open_existing() else {
                panic!("{what}: refused");
            };
            if kept.current_version() > life.states.last().unwrap().0 {
                continue; // That sector is of zeros behind it: nothing was torn.
            }
            drop(kept);
            life.reborn(image);
            life.commit(&put("behind", 10));
            life.db.flush().unwrap();
            for round in 0..3 {
                life.killed();
                life.expect_all(&cut(&life.disk), &format!("{what}, opening {round}"));
            }
            life.states.pop();
        }
    }
}

#[test]
pub(crate) fn a_commit_behind_a_write_that_found_no_space() {
    for landed in [0, 1, 100, 700, usize::MAX] {
        let mut life = Life::new(BUFFERED);
        life.commit(&put("a", 100));
        life.disk.inject(Fault::once(StepKind::Write, 0, ENOSPC).landing(landed));
        let error = life.try_commit(&put("no space", 900)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        life.disk.heal();
        life.commit(&put("behind", 100));
        life.expect_all(&life.disk.killed(), &format!("{landed} bytes landed, killed"));
        life.db.flush().unwrap();
        life.expect_all(&cut(&life.disk), &format!("{landed} bytes landed, cut"));
    }
}

#[test]
pub(crate) fn a_commit_behind_a_stream_whose_write_failed() {
    let mut failed = 0;
    for after in 0..12 {
        for landed in [0, 1000, usize::MAX] {
            let mut life = Life::new(BUFFERED);
            life.commit(&put("a", 100));
            life.disk.inject(Fault::once(StepKind::Write, after, EIO).landing(landed));
            failed += usize::from(life.try_commit(&streamed("large")).is_err());
            life.disk.heal();
            life.commit(&put("behind", 100));
            life.expect_all(&life.disk.killed(), &format!("write {after}, {landed} landed"));
            life.db.flush().unwrap();
            life.expect_all(&cut(&life.disk), &format!("write {after}, {landed} landed, cut"));
        }
    }
    assert!(failed > 6, "{failed}");
}

#[test]
pub(crate) fn a_new_segment_that_is_empty_or_torn() {
    let disk = SimDisk::new();
    let db = builder(&disk, config(STRICT)).open().unwrap();
    let mut life = Life { disk, db, config: config(STRICT), states: Life::new(STRICT).states };
    life.disk.record_moments();
    for n in 0..14 {
        life.commit(&put(&format!("k{n}"), 1500));
        life.disk.note(n + 1);
    }
    let mut torn = 0;
    for moment in life.disk.take_moments() {
        let Some(newest) = segments(&moment.kill()).pop() else { continue };
        let least = usize::try_from(moment.note()).unwrap();
        let of_header = |op: &Unsynced| {
            op.path == newest && matches!(op.change, UnsyncedChange::Write { offset: 0, .. })
        };
        if !moment.unsynced().iter().any(of_header) {
            continue;
        }
        for choice in [Choice::Drop, Choice::First(1), Choice::AllBut(1), Choice::Garbage(0)] {
            let image = cut_by(&moment, |op| if of_header(op) { choice } else { Choice::Keep });
            life.expect(&image, least, &format!("{moment:?}, header {choice}"));
            torn += 1;
        }
        // Its name, and nothing in it.
        let image = cut_keeping(&moment, |op| op.path != newest);
        life.expect(&image, least, &format!("{moment:?}, empty"));
    }
    assert!(torn >= 8, "{torn}");
}

#[test]
pub(crate) fn each_sector_of_the_last_group_is_zeros() {
    let mut life = Life::new(BUFFERED);
    life.commit(&put("a", 700));
    life.db.flush().unwrap();
    let path = segments(&life.disk).into_iter().next().unwrap();
    let from = used(&life.disk.bytes(&path).unwrap());
    life.commit(&put("last", 2200));
    let killed = life.disk.killed();
    let to = used(&killed.bytes(&path).unwrap());
    assert!(to - from > 2048, "the group has several sectors");
    for sector in from / 512..=(to - 1) / 512 {
        let image = killed.killed();
        image.tamper(&path, |bytes| {
            bytes[(sector * 512).max(from)..((sector + 1) * 512).min(to)].fill(0);
        });
        assert_eq!(life.expect(&image, 1, &format!("sector {sector}")), 1, "without the last");
    }
    // The same of a group that was promised is damage, and not the end.
    life.db.close().unwrap();
    let closed = life.disk.killed();
    for sector in HEADER_BYTES / 512..=(from - 1) / 512 {
        let image = closed.killed();
        image.tamper(&path, |bytes| bytes[sector * 512..((sector + 1) * 512).min(from)].fill(0));
        life.expect_refusal(&image, "wal-000001.seg", &format!("promised sector {sector}"));
    }
}

#[test]
pub(crate) fn each_bit_of_the_headers_counts() {
    let mut life = Life::new(BUFFERED);
    life.commit(&put("a", 100));
    life.commit(&put("b", 100));
    life.db.close().unwrap();
    let path = segments(&life.disk).into_iter().next().unwrap();
    // The header of the segment with its checksum, that of the first group, and its first frame.
    let of_segment = (0..92).chain(4092..4096);
    for byte in of_segment.chain(HEADER_BYTES..HEADER_BYTES + 40) {
        for bit in 0..8 {
            let image = life.disk.killed();
            image.tamper(&path, |bytes| bytes[byte] ^= 1 << bit);
            let opened = builder(&image, life.config.clone()).open_existing();
            let error = match opened {
                Ok(_) => panic!("byte {byte}, bit {bit}: it opened"),
                Err(error) => error,
            };
            assert!(
                matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Unsupported),
                "byte {byte}, bit {bit}: {error}"
            );
            assert!(error.to_string().contains("wal-000001.seg"), "byte {byte}: {error}");
        }
    }
}

#[test]
pub(crate) fn the_log_of_another_database_is_not_replayed() {
    let old = with_segments(BUFFERED, 2);
    let stale = old.disk.bytes(&segments(&old.disk)[1]).unwrap();
    let mut life = Life::new(BUFFERED);
    life.commit(&put("mine", 10));
    let killed = life.disk.killed();
    let last = segments(&killed).pop().unwrap();
    let number: u64 = last.trim_end_matches(".seg").rsplit('-').next().unwrap().parse().unwrap();
    for number in [number + 1, number + 2] {
        let image = killed.killed();
        image.tamper(&format!("db/WAL/wal-{number:06}.seg"), |bytes| *bytes = stale.clone());
        match builder(&image.killed(), life.config.clone()).open_existing() {
            Ok(_) => life.expect_all(&image, "a foreign segment behind the log"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corruption, "{error}"),
        }
    }
    // Only the log of the old one is left, and the MANIFEST is new: refused, by name.
    let image = killed.killed();
    let first = segments(&killed).remove(0);
    image.tamper(&first, |bytes| *bytes = old.disk.bytes(&segments(&old.disk)[0]).unwrap());
    life.expect_refusal(&image, "wal-000001.seg", "its first segment is foreign");
}
