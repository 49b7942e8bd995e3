//! How a database is to behave.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use steadfast_core::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use steadfast_core::{Clock, Entropy, RetentionPolicy, SystemClock};
use steadfast_durability::disk::Disk;
use steadfast_durability::recovery::RecoveryPolicy;
use steadfast_durability::snapshot::Compression;
use steadfast_durability::{Progress, StdDisk};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::open::Intent;
use crate::progress::Sink;

/// What a commit waits for before it is acknowledged.
///
/// | acknowledged means | process killed | system crash or power loss |
/// |---|---|---|
/// | `Strict` | nothing is lost | nothing is lost |
/// | `Batched` | nothing is lost | at most the window: the last `commits` commits, or those of the last `interval` |
/// | `Buffered` | nothing is lost | what the system had not written by itself, at most one segment of the log |
///
/// In every mode what is found after a crash is a prefix of the commits, whole transactions
/// only. Power loss assumes that the device keeps what it says is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DurabilityMode {
    /// Until it is durable.
    Strict,
    /// Until the kernel has it. It is durable `interval` after the oldest commit that is not,
    /// or when `commits` of them have come together, whichever is first; a commit that would
    /// exceed the window waits.
    Batched {
        /// The longest that a commit stays without being durable.
        interval: Duration,
        /// The most commits that are not durable.
        commits: u32,
    },
    /// Until the kernel has it.
    Buffered,
}

impl DurabilityMode {
    /// 100 ms or 1,000 commits.
    pub const BATCHED: Self = Self::Batched { interval: Duration::from_millis(100), commits: 1000 };

    pub(crate) const fn level(self) -> u8 {
        match self {
            Self::Buffered => 0,
            Self::Batched { .. } => 1,
            Self::Strict => 2,
        }
    }
}

/// Default size to which segments of the log grow, in bytes.
const SEGMENT_BYTES: u64 = 64 << 20;

/// How snapshots are compressed unless told otherwise.
#[cfg(feature = "lz4")]
const COMPRESSION: Compression = Compression::Lz4;
#[cfg(not(feature = "lz4"))]
const COMPRESSION: Compression = Compression::None;

/// The least log after which a checkpoint is made by itself, in bytes, unless told otherwise.
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// When checkpoints are made by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckpointPolicy {
    /// After so many bytes of log; `None` for as many as the newest snapshot has, and
    /// [`CHECKPOINT_BYTES`] at the least. `Some(u64::MAX)` for never.
    pub(crate) bytes: Option<u64>,
    /// After this long, if there was a commit.
    pub(crate) interval: Option<Duration>,
}

impl CheckpointPolicy {
    /// Whether none is.
    pub(crate) fn is_manual(self) -> bool {
        self.bytes == Some(u64::MAX) && self.interval.is_none()
    }

    /// After how many bytes of log the next one is due, if the newest snapshot has
    /// `snapshot_bytes`.
    pub(crate) fn due_after(self, snapshot_bytes: u64) -> u64 {
        self.bytes.unwrap_or_else(|| snapshot_bytes.max(CHECKPOINT_BYTES))
    }
}

/// How far a compaction goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompactMode {
    /// Removes the segments of the log, and the older snapshots, that the newest snapshot
    /// makes superfluous, once it has been read back from the device.
    WalOnly,
    /// Lets go of versions that retention does not keep and of values that have expired,
    /// makes a checkpoint, then removes what [`CompactMode::WalOnly`] would.
    Full,
}

/// How a database is to behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    pub(crate) mode: DurabilityMode,
    pub(crate) segment_bytes: u64,
    pub(crate) checkpoints: CheckpointPolicy,
    pub(crate) compression: Compression,
    pub(crate) retention: Option<RetentionPolicy>,
    pub(crate) policy: RecoveryPolicy,
}

impl DatabaseConfig {
    /// With the given durability and defaults for all else.
    pub const fn new(mode: DurabilityMode) -> Self {
        Self {
            mode,
            segment_bytes: SEGMENT_BYTES,
            checkpoints: CheckpointPolicy { bytes: None, interval: None },
            compression: COMPRESSION,
            retention: None,
            policy: RecoveryPolicy::Default,
        }
    }

    /// When a commit counts as done.
    pub const fn durability(&self) -> DurabilityMode {
        self.mode
    }

    /// [`DurabilityMode::Strict`].
    pub const fn strict() -> Self {
        Self::new(DurabilityMode::Strict)
    }

    /// [`DurabilityMode::BATCHED`].
    pub const fn batched() -> Self {
        Self::new(DurabilityMode::BATCHED)
    }

    /// [`DurabilityMode::Buffered`].
    pub const fn buffered() -> Self {
        Self::new(DurabilityMode::Buffered)
    }

    /// Size to which segments of the log grow, in bytes; 64 MiB unless set. A segment is the
    /// unit in which log space is taken and given back, and what recovery may have to write
    /// again.
    #[must_use]
    pub const fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// A checkpoint is made, and what it makes superfluous removed, after this many bytes of
    /// log. Unless set, after as many as the newest snapshot has, at least 64 MiB.
    #[must_use]
    pub const fn checkpoint_bytes(mut self, bytes: u64) -> Self {
        self.checkpoints.bytes = Some(bytes);
        self
    }

    /// A checkpoint is also made after this long, if there was a commit.
    #[must_use]
    pub const fn checkpoint_interval(mut self, interval: Duration) -> Self {
        self.checkpoints.interval = Some(interval);
        self
    }

    /// No checkpoint is made but by [`Database::checkpoint`] and [`Database::compact`].
    #[must_use]
    pub const fn manual_checkpoints(mut self) -> Self {
        self.checkpoints = CheckpointPolicy { bytes: Some(u64::MAX), interval: None };
        self
    }

    /// How the blocks of snapshots are compressed: unless set, with LZ4 where the feature `lz4`
    /// is on.
    #[must_use]
    pub const fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// How much history is kept: a [`Retention`](steadfast_core::Retention) for everything, or
    /// a policy with rules for some primitives and runs. Unless set, a new database keeps the
    /// newest version of each key, an existing one what it was created with.
    #[must_use]
    pub fn retention(mut self, retention: impl Into<RetentionPolicy>) -> Self {
        self.retention = Some(retention.into());
        self
    }

    /// What recovery does where it is not certain that nothing acknowledged is left out.
    #[must_use]
    pub const fn recovery_policy(mut self, policy: RecoveryPolicy) -> Self {
        self.policy = policy;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return Err(Error::Invalid(format!(
                "segments of {} bytes: the limits are {SEGMENT_BYTES_MIN} and {SEGMENT_BYTES_MAX}",
                self.segment_bytes
            )));
        }
        if self.checkpoints.bytes == Some(0) || self.checkpoints.interval == Some(Duration::ZERO) {
            return Err(Error::Invalid("a checkpoint after every nothing".into()));
        }
        if let DurabilityMode::Batched { interval, commits } = self.mode
            && (commits == 0 || interval.is_zero())
        {
            return Err(Error::Invalid("a batch window of zero; use strict".into()));
        }
        Ok(())
    }
}

impl Default for DatabaseConfig {
    /// [`DatabaseConfig::batched`].
    fn default() -> Self {
        Self::batched()
    }
}

/// Opens a database with everything that can be chosen.
pub struct DatabaseBuilder {
    pub(crate) path: PathBuf,
    pub(crate) config: DatabaseConfig,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Entropy,
    pub(crate) progress: Option<Sink>,
    pub(crate) threads: bool,
}

impl std::fmt::Debug for DatabaseBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseBuilder")
            .field("path", &self.path)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl DatabaseBuilder {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            config: DatabaseConfig::default(),
            disk: Arc::new(StdDisk),
            clock: Arc::new(SystemClock),
            entropy: Entropy::system(),
            progress: None,
            threads: true,
        }
    }

    /// Behaves as `config` says.
    #[must_use]
    pub fn config(mut self, config: DatabaseConfig) -> Self {
        self.config = config;
        self
    }

    /// Takes the time from `clock`.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Takes random bits from `entropy`.
    #[must_use]
    pub fn entropy(mut self, entropy: Entropy) -> Self {
        self.entropy = entropy;
        self
    }

    /// Reads and writes files through `disk`.
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = disk;
        self
    }

    /// Calls `on_progress` now and then while the log is replayed, and while work that takes
    /// long goes on through the handle that opening gives, or its clones: see
    /// [`Database::with_progress`]. If it answers `Break`, opening ends with kind `Stopped` and
    /// has changed nothing but, if there was none, made an empty database.
    #[must_use]
    pub fn on_progress(
        mut self,
        on_progress: impl FnMut(Progress) -> ControlFlow<()> + Send + 'static,
    ) -> Self {
        self.progress = Some(Sink::new(on_progress));
        self
    }

    /// Starts no threads: [`Database::maintain`] must be called where they would have run.
    #[must_use]
    pub const fn without_threads(mut self) -> Self {
        self.threads = false;
        self
    }

    /// Opens the database, creating what is missing.
    pub fn open(self) -> Result<Database> {
        crate::open::open(self, Intent::OpenOrCreate)
    }

    /// Creates a database where there is none.
    pub fn create(self) -> Result<Database> {
        crate::open::open(self, Intent::Create)
    }

    /// Opens a database that must exist.
    pub fn open_existing(self) -> Result<Database> {
        crate::open::open(self, Intent::OpenExisting)
    }

    /// Opens a database that must exist for reading only: see [`Database::open_read_only`].
    pub fn open_read_only(self) -> Result<Database> {
        crate::open::open_read_only(self)
    }
}
