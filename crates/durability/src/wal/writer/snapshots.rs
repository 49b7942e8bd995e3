//! Snapshots as the log's writer sees them: which one the MANIFEST names, which segments are
//! needed with it.

use steadfast_core::{RetentionPolicy, Sabotage, Version, sabotaged, unless};

use super::{FIRST_SEGMENT_BYTES, WalWriter};
use crate::compaction::Needed;
use crate::error::{Error, Result};
use crate::manifest::{LiveSnapshot, Manifest};

impl WalWriter {
    /// The first segment that may hold anything that a snapshot at `version` does not; 0 if
    /// there is no segment.
    pub fn first_segment_after(&self, version: Version) -> u64 {
        let Some(active) = self.segments.last() else { return 0 };
        let streaming = self.streams.values().copied().min().unwrap_or(u64::MAX);
        let streaming = if sabotaged(Sabotage::ForgetOpenStream) { u64::MAX } else { streaming };
        let needed = |(number, last): &&(u64, Version)| *number >= streaming || *last > version;
        self.segments.iter().find(needed).unwrap_or(active).0
    }

    /// Goes on in a new, small segment if there is anything in the log's last one, so that a
    /// snapshot of everything makes all others superfluous.
    pub fn begin_segment(&mut self) -> Result<()> {
        self.check_poisoned()?;
        let used = match &self.active {
            Some(active) => active.header.first_position < self.position,
            // Nothing was written since the database was opened; what was before may go too.
            None => !self.segments.is_empty(),
        };
        if !used {
            return Ok(());
        }
        self.drop_spare();
        self.next_segment_bytes = FIRST_SEGMENT_BYTES.min(self.options.segment_bytes);
        self.rotate(0)
    }

    /// Makes a snapshot, whose file is durable, part of the database: once everything it holds
    /// is durable in the log too, the MANIFEST names it. What recovery would fall back on
    /// stays: the newest one that was read back, or else the one before.
    pub fn name_snapshot(&mut self, number: u64, version: Version, checksum: u32) -> Result<()> {
        unless(Sabotage::CheckpointBeforeLogSync, || self.sync())?;
        if version > self.last.0 {
            let (what, reason) = ("snapshot", "it holds what was never in the log");
            let error = steadfast_core::Error::Malformed { what, reason, at: 0 };
            return Err(Error::Input(error));
        }
        let first_segment = self.first_segment_after(version);
        let mut manifest = self.manifest.clone();
        manifest.snapshots.retain(|snapshot| Some(snapshot.number) != self.distrusted);
        let older = manifest.snapshots.iter().rev().find(|snapshot| snapshot.verified);
        let older = older.or(manifest.snapshots.last()).copied();
        manifest.snapshots = older.into_iter().collect();
        manifest.snapshots.push(LiveSnapshot {
            number,
            version,
            first_segment,
            checksum,
            verified: false,
        });
        self.raise_floor(&mut manifest);
        self.replace_manifest(manifest)
    }

    /// Notes that snapshot `number` was read back from the device, if it is the newest, and
    /// gives up what was kept in case that fails: the older snapshot, and the log in front of
    /// this one. Nothing is removed: see [`WalWriter::needed`].
    pub fn trust_snapshot(&mut self, number: u64) -> Result<()> {
        self.sync()?;
        let mut manifest = self.manifest.clone();
        match manifest.snapshots.last_mut() {
            Some(newest) if newest.number == number => newest.verified = true,
            _ => return Ok(()),
        }
        manifest.snapshots.drain(..manifest.snapshots.len() - 1);
        let first = manifest.snapshots[0].first_segment;
        manifest.oldest_segment = manifest.oldest_segment.max(first);
        if manifest == self.manifest {
            return Ok(());
        }
        self.raise_floor(&mut manifest);
        if sabotaged(Sabotage::CompactBeforeManifest) {
            let early = self.segments.iter().filter(|segment| segment.0 < first);
            early.for_each(|segment| self.remove_segment(segment.0));
        }
        self.replace_manifest(manifest)?;
        self.segments.retain(|(number, _)| *number >= first);
        Ok(())
    }

    /// Changes how much history is kept.
    pub fn set_retention(&mut self, retention: RetentionPolicy) -> Result<()> {
        self.replace_manifest(Manifest { retention, ..self.manifest.clone() })
    }

    /// Raises the floor to the end of the log, which is durable.
    fn raise_floor(&self, manifest: &mut Manifest) {
        if let Some(active) = &self.active {
            manifest.floor = self.floor(active.header.number);
        }
    }

    fn replace_manifest(&mut self, manifest: Manifest) -> Result<()> {
        self.check_poisoned()?;
        manifest.prepare(&*self.disk, &self.layout)?;
        if let Err(error) = Manifest::install(&*self.disk, &self.layout) {
            // Which MANIFEST will be found is not known.
            return Err(self.poison(format!("MANIFEST: replacing it: {error}")));
        }
        self.manifest = manifest;
        Ok(())
    }

    /// What must stay of the database's files.
    pub fn needed(&self) -> Needed {
        Needed {
            snapshots: self.manifest.snapshots.iter().map(|snapshot| snapshot.number).collect(),
            oldest_segment: self.manifest.oldest_segment,
            segments: self.segments.iter().map(|segment| segment.0).collect(),
        }
    }

    /// The number of the next snapshot.
    pub fn next_snapshot(&self) -> u64 {
        let newest = self.manifest.snapshots.last().map_or(0, |newest| newest.number);
        self.next_snapshot.max(newest + 1)
    }

    /// Notes that a snapshot turned out to be damaged: the next is not taken to stand on it. If
    /// there is an older one, openings begin with that until then: the MANIFEST says so.
    pub fn distrust_snapshot(&mut self, number: u64) -> Result<()> {
        self.distrusted = Some(number);
        self.next_snapshot = self.next_snapshot.max(number + 1);
        let mut manifest = self.manifest.clone();
        manifest.snapshots.retain(|snapshot| snapshot.number != number);
        if manifest.snapshots.is_empty() || manifest.snapshots == self.manifest.snapshots {
            return Ok(());
        }
        self.replace_manifest(manifest)
    }

    /// The newest snapshot, unless it turned out to be damaged.
    pub fn newest_snapshot(&self) -> Option<LiveSnapshot> {
        let newest = self.manifest.newest_snapshot().copied();
        newest.filter(|newest| Some(newest.number) != self.distrusted)
    }
}
