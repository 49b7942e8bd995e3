//! Steadfast as a target.

use std::path::Path;

use steadfast_engine::{Database, DatabaseConfig, DurabilityMode, Run, Transaction as Txn, Value};

use crate::target::{CrashTarget, Entries, Failure, Promise, Transaction};

/// The run that everything lies in.
const RUN: &str = "crash-target";

/// Small, so that the log goes on in a new segment now and then.
const SEGMENT_BYTES: u64 = 32 << 10;

/// A checkpoint is made after so many transactions.
const CHECKPOINT_EVERY: u64 = 15;

/// Modes that do not sync each commit are told to after so many.
const FLUSH_EVERY: u64 = 8;

/// A database in one of its durability modes.
#[derive(Debug)]
pub struct Steadfast {
    mode: DurabilityMode,
    open: Option<(Database, Run)>,
    applied: u64,
}

impl Steadfast {
    /// Not opened yet.
    pub const fn new(mode: DurabilityMode) -> Self {
        Self { mode, open: None, applied: 0 }
    }

    /// The mode of this name: `strict`, `batched` or `buffered`.
    pub fn named(mode: &str) -> Option<Self> {
        match mode {
            "strict" => Some(Self::new(DurabilityMode::Strict)),
            "batched" => Some(Self::new(DurabilityMode::BATCHED)),
            "buffered" => Some(Self::new(DurabilityMode::Buffered)),
            _ => None,
        }
    }

    fn opened(&self) -> Result<&(Database, Run), Failure> {
        self.open.as_ref().ok_or_else(|| "it is not open".into())
    }
}

impl CrashTarget for Steadfast {
    fn start(&mut self, dir: &Path) -> Result<(), Failure> {
        let config = DatabaseConfig::new(self.mode).manual_checkpoints();
        let db = Database::open_or_create(dir.join("db"), config.segment_bytes(SEGMENT_BYTES))?;
        let run = db.get_or_create_run(RUN)?;
        self.open = Some((db, run));
        Ok(())
    }

    fn apply(&mut self, transaction: &Transaction) -> Result<(), Failure> {
        let (db, run) = self.opened()?;
        db.transaction(|tx: &mut Txn| {
            transaction.writes.iter().try_for_each(|(key, value)| match value {
                Some(value) => tx.kv_put(*run, key, Value::from(value.as_slice())),
                None => tx.kv_delete(*run, key),
            })
        })?;
        self.applied += 1;
        if self.applied.is_multiple_of(CHECKPOINT_EVERY) {
            self.opened()?.0.checkpoint()?;
        }
        Ok(())
    }

    fn acknowledge(&mut self) -> Result<Promise, Failure> {
        if self.mode == DurabilityMode::Strict {
            return Ok(Promise::PowerLoss);
        }
        if self.applied.is_multiple_of(FLUSH_EVERY) {
            self.opened()?.0.flush()?;
            return Ok(Promise::PowerLoss);
        }
        Ok(Promise::ProcessDeath)
    }

    fn reopen(&mut self, dir: &Path) -> Result<(), Failure> {
        self.start(dir)
    }

    fn dump(&mut self) -> Result<Entries, Failure> {
        let (db, run) = self.opened()?;
        let mut entries = Entries::new();
        for entry in db.kv_scan(*run, b"")? {
            let (key, found) = entry?;
            let Value::Bytes(value) = found.value else {
                return Err(format!("not bytes: {:?}", found.value).into());
            };
            entries.insert(key.to_vec(), value);
        }
        Ok(entries)
    }
}
