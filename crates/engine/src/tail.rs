//! Following everything that is committed, from the log: the base of followers and backups.

use std::time::Duration;

use steadfast_core::Version;
use steadfast_durability::manifest::EpochStart;
use steadfast_durability::wal::segment::Epoch;
use steadfast_durability::wal::tail::{LogTail, Refreshed};

use crate::change::{Commit, Position};
use crate::database::Database;
use crate::error::{Error, Result};

/// Committed transactions of everything, in the order of their versions, read from the log with
/// bounded memory. `None` means that there are no more for now; asking again later may give more,
/// and [`Tail::wait`] says when.
///
/// Only commits that survive power loss are given, unless [`Tail::unpromised`] asks otherwise.
#[derive(Debug)]
pub struct Tail {
    database: Database,
    log: Option<LogTail>,
    position: Position,
    epochs: Vec<EpochStart>,
    unpromised: bool,
}

impl Database {
    /// Every commit behind `from`: a version, or the position of the last commit that was seen.
    /// [`Version::ZERO`] stands before the first.
    ///
    /// # Errors
    ///
    /// Kind `HistoryTrimmed` if a compaction removed the log of some of them: their effects are
    /// in the database, and in a backup of it, behind which to go on. Kind `Diverged` if the
    /// database has another past than `from` says: it never had that epoch, or did not keep that
    /// version of it. Kind `Unsupported` in memory.
    pub fn tail(&self, from: impl Into<Position>) -> Result<Tail> {
        self.check_open()?;
        let position = from.into();
        let manifest = self.upkeep().manifest()?;
        if let Some(epoch) = position.epoch {
            self.check_epoch(&manifest.epochs, epoch, position.version)?;
        }
        let newest = self.current_version();
        if position.version > newest {
            let asked = position.version;
            return Err(Error::Diverged(format!("it has come to version {newest}, not {asked}")));
        }
        let mut tail = Tail {
            database: self.clone(),
            log: None,
            position,
            epochs: manifest.epochs,
            unpromised: false,
        };
        tail.open()?;
        Ok(tail)
    }

    fn check_epoch(&self, epochs: &[EpochStart], epoch: Epoch, version: Version) -> Result<()> {
        let Some(at) = epochs.iter().position(|start| start.epoch == epoch) else {
            return Err(Error::Diverged(format!("it never had epoch {}", epoch.counter)));
        };
        match epochs.get(at + 1) {
            Some(next) if next.recovered < version => Err(Error::Diverged(format!(
                "of epoch {} it kept version {} and nothing later, not {version}",
                epoch.counter, next.recovered
            ))),
            _ => Ok(()),
        }
    }
}

impl Tail {
    /// Gives commits as soon as readers see them, also those that a power cut may still take
    /// away. Whoever resumes behind one that is gone is told so: kind `Diverged`.
    #[must_use]
    pub const fn unpromised(mut self) -> Self {
        self.unpromised = true;
        self
    }

    /// Where it stands: behind the last commit that it gave.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Waits until there is a commit to be given, this long at most. Returns whether there is one.
    /// Meanwhile it sleeps: a commit that becomes durable (or visible, for
    /// [`Tail::unpromised`]) wakes it, and so does [`Database::close`].
    ///
    /// # Errors
    ///
    /// Kind `Closed` if the database is closed, or open for reading only: then nothing comes but by
    /// [`Database::refresh`]. `Poisoned` if a sync failed and there is nothing left to be given.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        self.database.check_open()?;
        let after = self.position.version;
        self.database.pipeline()?.wait_followable(after, self.unpromised, timeout)
    }

    /// How far the log is to be read.
    fn upto(&self) -> Version {
        match self.database.pipeline() {
            Ok(pipeline) => pipeline.followable(self.unpromised),
            // What is open for reading only shows nothing that is not promised.
            Err(_) => self.database.current_version(),
        }
    }

    fn open(&mut self) -> Result<()> {
        let upkeep = self.database.upkeep();
        let (files, manifest) = (upkeep.files()?, upkeep.manifest()?);
        let after = self.position.version;
        let log = LogTail::open(&*files.disk, &files.layout, &manifest, after)?;
        if log.is_none() {
            let oldest = manifest.snapshots.first().map_or(Version::ZERO, |first| first.version);
            return Err(Error::HistoryTrimmed { asked: after.next(), oldest: oldest.next() });
        }
        self.log = log;
        self.epochs = manifest.epochs;
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Commit>> {
        self.database.check_open()?;
        let upto = self.upto();
        if upto <= self.position.version {
            return Ok(None);
        }
        let upkeep = self.database.upkeep();
        let (files, manifest) = (upkeep.files()?, upkeep.manifest()?);
        let refreshed = match &mut self.log {
            Some(log) => log.refresh(&*files.disk, &files.layout, &manifest)?,
            None => Refreshed::Retracted,
        };
        if refreshed == Refreshed::Ready {
            self.epochs = manifest.epochs;
        } else {
            // Opening anew says it where what follows is gone.
            self.open()?;
        }
        let Some(log) = &mut self.log else { return Ok(None) };
        let Some(txn) = log.next(upto)? else {
            // The newest version that is visible was committed, so the log must have it.
            return if log.read() < upto { Err(log.ends().into()) } else { Ok(None) };
        };
        let epoch = self.epochs.iter().rev().find(|start| start.first_version <= txn.version);
        let commit = Commit {
            version: txn.version,
            timestamp: txn.timestamp,
            epoch: epoch.map(|start| start.epoch),
            records: txn.records.into(),
            namespaces: self.database.namespaces_shared(),
        };
        self.position = commit.position();
        Ok(Some(commit))
    }
}

impl Iterator for Tail {
    type Item = Result<Commit>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
