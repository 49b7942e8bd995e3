//! The MANIFEST: which files make the database, and what is proven of them.
#![doc = include_str!("FORMAT.md")]

use steadfast_core::codec::Cursor;
use steadfast_core::limits::{
    MANIFEST_BYTES_MAX, SEGMENT_NUMBER_MAX, SNAPSHOT_NUMBER_MAX, VERSION_MAX,
};
use steadfast_core::{
    CrashPoint, RetentionPolicy, Sabotage, Timestamp, Version, check_crash_point, sabotaged, unless,
};

use crate::disk::{Access, Disk, read_exact_at};
use crate::error::{CorruptionKind, Error, IoContext, Result};
use crate::layout::Layout;
use crate::wal::segment::Epoch;

const MAGIC: [u8; 8] = *b"STDFMAN\n";

/// The newest format of the MANIFEST that this release knows.
pub const MANIFEST_FORMAT: u32 = 1;

/// Bytes of one epoch in the file.
const EPOCH_BYTES: usize = 40;

const LABEL: &str = "MANIFEST";
const TMP_LABEL: &str = "MANIFEST.tmp";

/// Physical facts about a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Identifies the database; every file carries it.
    pub database: [u8; 16],
    /// When it was created.
    pub created: Timestamp,
    /// How much history is kept.
    pub retention: RetentionPolicy,
    /// The oldest segment of the log that is still needed; 0 before the first.
    pub oldest_segment: u64,
    /// The newest segment of the log; 0 before the first.
    pub newest_segment: u64,
    /// The live snapshots, oldest first: the newest, and before it perhaps one older.
    pub snapshots: Vec<LiveSnapshot>,
    /// What is known durable. A lower bound: it only rises.
    pub floor: Floor,
    /// Every epoch there was, oldest first.
    pub epochs: Vec<EpochStart>,
}

/// A snapshot that the database may be opened from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveSnapshot {
    /// Its number.
    pub number: u64,
    /// Every commit up to this one is in it, and none above.
    pub version: Version,
    /// The first segment that may hold anything above `version`: from here on the log is
    /// needed to go with it.
    pub first_segment: u64,
    /// The checksum of its footer.
    pub checksum: u32,
    /// Whether every block of it has been read back from the device.
    pub verified: bool,
}

/// A point of the log that is known durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Floor {
    /// The log position up to which everything is durable.
    pub position: u64,
    /// The newest version committed before it.
    pub version: Version,
    /// Every version given out before it is below this.
    pub next_version: Version,
    /// The chain hash there.
    pub chain: u32,
    /// The segment it lies in; 0 before the first.
    pub segment: u64,
    /// The time of the newest commit before it.
    pub timestamp: Timestamp,
}

/// What is kept for ever of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: Epoch,
    /// The first version that it may give out.
    pub first_version: Version,
    /// The last version that was recovered from the epoch before it.
    pub recovered: Version,
    /// Its first segment.
    pub first_segment: u64,
}

impl Manifest {
    /// The MANIFEST of a new database.
    pub const fn new(database: [u8; 16], created: Timestamp, retention: RetentionPolicy) -> Self {
        Self {
            database,
            created,
            retention,
            oldest_segment: 0,
            newest_segment: 0,
            snapshots: Vec::new(),
            floor: Floor {
                position: 0,
                version: Version::ZERO,
                next_version: Version(1),
                chain: 0,
                segment: 0,
                timestamp: Timestamp::ZERO,
            },
            epochs: Vec::new(),
        }
    }

    /// The snapshot that the database opens from, if there is one.
    pub fn newest_snapshot(&self) -> Option<&LiveSnapshot> {
        self.snapshots.last()
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut retention = Vec::new();
        self.retention.encode(&mut retention);
        let mut out = Vec::with_capacity(256 + self.epochs.len() * EPOCH_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&MANIFEST_FORMAT.to_le_bytes());
        let retention_len = u32::try_from(retention.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&retention_len.to_le_bytes());
        out.extend_from_slice(&self.database);
        for field in [
            self.created.as_micros(),
            self.oldest_segment,
            self.newest_segment,
            self.floor.position,
            self.floor.version.0,
            self.floor.next_version.0,
            u64::from(self.floor.chain),
            self.floor.segment,
            self.floor.timestamp.as_micros(),
            self.epochs.len() as u64,
            self.snapshots.len() as u64,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        for start in &self.epochs {
            for field in [
                start.epoch.counter,
                start.epoch.random,
                start.first_version.0,
                start.recovered.0,
                start.first_segment,
            ] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        for snapshot in &self.snapshots {
            for field in [
                snapshot.number,
                snapshot.version.0,
                snapshot.first_segment,
                u64::from(snapshot.checksum),
                u64::from(snapshot.verified),
            ] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        out.extend_from_slice(&retention);
        let checksum = crc32fast::hash(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads the bytes of the file.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged =
            || Error::Corrupt { file: LABEL.into(), offset: 0, kind: CorruptionKind::BadManifest };
        let (fields, checksum) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
        let valid = crc32fast::hash(fields) == u32::from_le_bytes(*checksum);
        if !valid && !sabotaged(Sabotage::IgnoreManifestChecksum) {
            return Err(damaged());
        }
        if fields.get(..8) != Some(&MAGIC) {
            return Err(damaged());
        }
        match fields.get(8..12).and_then(<[u8]>::first_chunk) {
            Some(format) if u32::from_le_bytes(*format) > MANIFEST_FORMAT => {
                let found = u32::from_le_bytes(*format);
                Err(Error::NewerFormat { file: LABEL.into(), found, known: MANIFEST_FORMAT })
            }
            _ => Self::decode_fields(&fields[12.min(fields.len())..]).map_err(|_| damaged()),
        }
    }

    fn decode_fields(fields: &[u8]) -> steadfast_core::Result<Self> {
        let mut cursor = Cursor::new("manifest", fields);
        let retention_len = cursor.u32()? as usize;
        let database = cursor.array()?;
        let created = Timestamp::from_micros(cursor.u64()?);
        let oldest_segment = cursor.u64()?;
        let newest_segment = cursor.u64()?;
        let floor = Floor {
            position: cursor.u64()?,
            version: Version(cursor.u64()?),
            next_version: Version(cursor.u64()?),
            chain: u32::try_from(cursor.u64()?).map_err(|_| cursor.malformed("a chain hash"))?,
            segment: cursor.u64()?,
            timestamp: Timestamp::from_micros(cursor.u64()?),
        };
        let (epoch_count, snapshot_count) = (cursor.u64()?, cursor.u64()?);
        let mut epochs = Vec::new();
        for _ in 0..epoch_count {
            epochs.push(EpochStart {
                epoch: Epoch { counter: cursor.u64()?, random: cursor.u64()? },
                first_version: Version(cursor.u64()?),
                recovered: Version(cursor.u64()?),
                first_segment: cursor.u64()?,
            });
        }
        let mut snapshots = Vec::new();
        for _ in 0..snapshot_count {
            snapshots.push(LiveSnapshot {
                number: cursor.u64()?,
                version: Version(cursor.u64()?),
                first_segment: cursor.u64()?,
                checksum: u32::try_from(cursor.u64()?)
                    .map_err(|_| cursor.malformed("a checksum"))?,
                verified: match cursor.u64()? {
                    0 => false,
                    1 => true,
                    _ => return Err(cursor.malformed("neither yes nor no")),
                },
            });
        }
        if cursor.left() != retention_len {
            return Err(cursor.malformed("another length than what is there"));
        }
        let retention = RetentionPolicy::decode(&mut cursor)?;
        if !cursor.is_empty() {
            return Err(cursor.malformed("bytes behind the end"));
        }
        if floor.next_version.0 > VERSION_MAX * 2 || newest_segment > SEGMENT_NUMBER_MAX {
            return Err(cursor.malformed("a number beyond what there can be"));
        }
        if oldest_segment > newest_segment || (oldest_segment == 0) != (newest_segment == 0) {
            return Err(cursor.malformed("segments out of order"));
        }
        let in_order = snapshots
            .windows(2)
            .all(|pair| pair[0].number < pair[1].number && pair[0].version <= pair[1].version);
        let possible = |snapshot: &LiveSnapshot| {
            (1..=SNAPSHOT_NUMBER_MAX).contains(&snapshot.number)
                && snapshot.version <= floor.version
                && snapshot.first_segment <= newest_segment + 1
        };
        if !in_order || !snapshots.iter().all(possible) {
            return Err(cursor.malformed("snapshots that cannot be"));
        }
        Ok(Self {
            database,
            created,
            retention,
            oldest_segment,
            newest_segment,
            snapshots,
            floor,
            epochs,
        })
    }

    /// Reads the MANIFEST; `None` if there is none.
    pub fn read(disk: &dyn Disk, layout: &Layout) -> Result<Option<Self>> {
        let file = match disk.open(&layout.manifest(), Access::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.at(LABEL, "open")?,
        };
        let length = file.len().at(LABEL, "read the length of")?;
        if length > MANIFEST_BYTES_MAX {
            let kind = CorruptionKind::BadManifest;
            return Err(Error::Corrupt { file: LABEL.into(), offset: MANIFEST_BYTES_MAX, kind });
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        read_exact_at(&*file, 0, &mut bytes).at(LABEL, "read")?;
        Self::decode(&bytes).map(Some)
    }

    /// Puts this in the place of the MANIFEST: another file is written and synced, takes its
    /// name, and the directory is synced, so that after a crash one of the two is there whole.
    pub fn write(&self, disk: &dyn Disk, layout: &Layout) -> Result<()> {
        self.prepare(disk, layout)?;
        Self::install(disk, layout)
    }

    /// Writes and syncs the file that is to take the MANIFEST's place. If this fails, the
    /// MANIFEST stands as it was.
    pub(crate) fn prepare(&self, disk: &dyn Disk, layout: &Layout) -> Result<()> {
        let tmp = layout.manifest_tmp();
        let bytes = self.encode();
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            let reason = "more of retention or epochs than a MANIFEST can hold";
            let what = "manifest";
            let error = steadfast_core::Error::Malformed { what, reason, at: bytes.len() };
            return Err(Error::Input(error));
        }
        match disk.remove(&tmp) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).at(TMP_LABEL, "remove");
            }
            _ => {}
        }
        let file = disk.create(&tmp, Access::Write).at(TMP_LABEL, "create")?;
        file.write_at(0, &bytes).at(TMP_LABEL, "write")?;
        unless(Sabotage::SkipManifestSync, || file.sync_all()).at(TMP_LABEL, "sync")
    }

    /// Gives the prepared file the MANIFEST's name and syncs the directory.
    pub(crate) fn install(disk: &dyn Disk, layout: &Layout) -> Result<()> {
        disk.rename(&layout.manifest_tmp(), &layout.manifest()).at(LABEL, "replace")?;
        check_crash_point(CrashPoint::DuringManifestUpdate);
        // Without this the new name may be gone after a power cut.
        let sync = || disk.sync_dir(layout.root());
        unless(Sabotage::SkipManifestDirectorySync, sync).at(".", "sync the directory")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{hex, hex_example};
    use steadfast_core::Retention;

    fn manifest() -> Manifest {
        Manifest {
            oldest_segment: 2,
            newest_segment: 5,
            floor: Floor {
                position: 8192,
                version: Version(7),
                next_version: Version(9),
                chain: 0xdead_beef,
                segment: 4,
                timestamp: Timestamp::from_micros(11),
            },
            epochs: vec![EpochStart {
                epoch: Epoch { counter: 1, random: 2 },
                first_version: Version(1),
                recovered: Version(0),
                first_segment: 1,
            }],
            snapshots: vec![
                LiveSnapshot {
                    number: 1,
                    version: Version(3),
                    first_segment: 2,
                    checksum: 5,
                    verified: true,
                },
                LiveSnapshot {
                    number: 4,
                    version: Version(7),
                    first_segment: 4,
                    checksum: 6,
                    verified: false,
                },
            ],
            ..Manifest::new([7; 16], Timestamp::from_micros(5), Retention::KeepAll.into())
        }
    }

    #[test]
    fn the_worked_example_is_what_is_written() {
        let retention = RetentionPolicy::default();
        let new = Manifest::new(*b"0123456789abcdef", Timestamp::from_micros(5), retention);
        let example = hex_example(include_str!("FORMAT.md"));
        assert_eq!(hex(&new.encode()), example, "see FORMAT.md");
    }

    #[test]
    fn a_manifest_round_trips() {
        assert_eq!(Manifest::decode(&manifest().encode()).unwrap(), manifest());
    }

    #[test]
    fn refuses_a_manifest_with_any_bit_flipped_or_any_end_cut() {
        let good = manifest().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&bad).is_err(), "bit {bit}");
        }
        for length in 0..good.len() {
            assert!(Manifest::decode(&good[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let mut bytes = manifest().encode();
        bytes[8] = 2;
        let end = bytes.len() - 4;
        let checksum = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        assert!(matches!(Manifest::decode(&bytes), Err(Error::NewerFormat { found: 2, .. })));
    }
}
