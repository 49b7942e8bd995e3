//! [`WalCorruptionTester`]: the files of a log, damaged at rest, and what opening makes of them.
//!
//! A tail that was never promised may go, and the report says so. Damage to what was promised
//! is refused by name, and nothing is changed: then nothing is lost, and
//! [`salvage`](steadfast_engine::salvage) takes the longest valid prefix elsewhere.
#![allow(clippy::disallowed_methods)] // files are damaged behind everybody's back

use std::io;
use std::path::{Path, PathBuf};

use steadfast_engine::{Database, DatabaseConfig, ErrorKind, RecoveryReport};

/// What opening a damaged database came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorruptionRecoveryResult {
    /// It opened.
    pub recovered: bool,
    /// Why it did not: the file, the offset, and what is at risk.
    pub error: Option<String>,
    /// Of which kind that was.
    pub error_kind: Option<ErrorKind>,
    /// How many runs were found.
    pub runs_found: usize,
    /// What opening found and left out, if it opened.
    pub report: Option<RecoveryReport>,
}

impl CorruptionRecoveryResult {
    /// Whether it was refused, with a file named.
    pub fn refused_by_name(&self) -> bool {
        let named = |error: &String| error.contains("WAL/") || error.contains("MANIFEST");
        !self.recovered && self.error.as_ref().is_some_and(named)
    }
}

/// Damages the log of a database that nobody has open. What it does at random comes from its
/// seed.
#[derive(Debug)]
pub struct WalCorruptionTester {
    dir: PathBuf,
    config: DatabaseConfig,
    rng: fastrand::Rng,
}

impl WalCorruptionTester {
    /// For the database in `dir`; seed 42.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self::with_seed(dir, 42)
    }

    /// For the database in `dir`, with a seed of one's own.
    pub fn with_seed(dir: impl Into<PathBuf>, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self { dir: dir.into(), config: DatabaseConfig::strict(), rng }
    }

    /// Opens it as `config` says.
    #[must_use]
    pub fn config(mut self, config: DatabaseConfig) -> Self {
        self.config = config;
        self
    }

    /// The newest segment of the log.
    pub fn newest_segment(&self) -> io::Result<PathBuf> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(self.dir.join("WAL"))? {
            let path = entry?.path();
            // One that was only prepared has nothing in it that could be damaged.
            if path.extension().is_some_and(|extension| extension == "seg") && used(&path)? > 0 {
                paths.push(path);
            }
        }
        paths.into_iter().max().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Cuts `n` bytes off the end of what was written. (A segment's space is taken ahead: the
    /// zeros behind its end go too.)
    pub fn truncate_wal_tail(&mut self, n: u64) -> io::Result<()> {
        self.change(|bytes, end, _| bytes.truncate(end.saturating_sub(length(n))))
    }

    /// Puts `n` bytes of garbage where the next write would go.
    pub fn append_garbage(&mut self, n: u64) -> io::Result<()> {
        self.change(|bytes, end, rng| {
            let garbage: Vec<u8> = (0..n).map(|_| rng.u8(1..)).collect();
            put(bytes, end, &garbage);
        })
    }

    /// Changes `count` bytes of what was written, each to another value.
    pub fn corrupt_random_bytes(&mut self, count: u64) -> io::Result<()> {
        self.change(|bytes, end, rng| {
            for _ in 0..count.min(end as u64) {
                bytes[rng.usize(..end)] ^= rng.u8(1..);
            }
        })
    }

    /// Puts the beginning of a record where the next write would go: its length, 16, as four
    /// bytes, little endian; its version, 1; and nothing of the rest.
    pub fn create_partial_record(&mut self) -> io::Result<()> {
        self.change(|bytes, end, _| {
            let mut record = 16u32.to_le_bytes().to_vec();
            record.push(1);
            put(bytes, end, &record);
        })
    }

    /// Opens it. If it is refused, its files are as they were; else it was recovered, and
    /// closed again.
    pub fn verify_recovery_after_corruption(&self) -> CorruptionRecoveryResult {
        let opened = Database::open_existing(&self.dir, self.config.clone());
        let looked = opened.and_then(|db| {
            let runs = db.list_runs()?.len();
            let report = db.recovery_report().clone();
            db.close()?;
            Ok((runs, report))
        });
        match looked {
            Ok((runs_found, report)) => CorruptionRecoveryResult {
                recovered: true,
                error: None,
                error_kind: None,
                runs_found,
                report: Some(report),
            },
            Err(error) => CorruptionRecoveryResult {
                recovered: false,
                error: Some(error.to_string()),
                error_kind: Some(error.kind()),
                runs_found: 0,
                report: None,
            },
        }
    }

    /// Changes the newest segment: its bytes, where what was written ends, random numbers.
    fn change(
        &mut self,
        change: impl FnOnce(&mut Vec<u8>, usize, &mut fastrand::Rng),
    ) -> io::Result<()> {
        let path = self.newest_segment()?;
        let mut bytes = std::fs::read(&path)?;
        let end = used(&path)?;
        change(&mut bytes, end, &mut self.rng);
        std::fs::write(path, bytes)
    }
}

fn length(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Where the zeros at the end of a file begin.
fn used(path: &Path) -> io::Result<usize> {
    let bytes = std::fs::read(path)?;
    Ok(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1))
}

/// Groups begin at multiples of this many bytes.
const ALIGNMENT: usize = 8;

fn put(bytes: &mut Vec<u8>, end: usize, what: &[u8]) {
    let at = end.next_multiple_of(ALIGNMENT);
    if bytes.len() < at + what.len() {
        bytes.resize(at + what.len(), 0);
    }
    bytes[at..at + what.len()].copy_from_slice(what);
}
