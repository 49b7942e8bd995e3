//! fjall: one keyspace, each batch with `PersistMode::SyncAll`, or none with a `persist` now and
//! then. A small memtable, so that tables are written, too.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use steadfast_testing::target::{CrashTarget, Entries, Failure, Promise, Transaction};

use crate::contender::SYNC_EVERY;

const MEMTABLE_BYTES: u64 = 32 << 10;

pub(crate) struct Fjall {
    open: Option<(Database, Keyspace)>,
    sync: bool,
    applied: u64,
}

impl Fjall {
    pub(crate) fn new(sync: bool) -> Self {
        Self { open: None, sync, applied: 0 }
    }

    fn opened(&self) -> Result<&(Database, Keyspace), Failure> {
        self.open.as_ref().ok_or_else(|| "it is not open".into())
    }
}

impl CrashTarget for Fjall {
    fn start(&mut self, dir: &Path) -> Result<(), Failure> {
        let db = Database::builder(dir).open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let rows = db.keyspace("rows", options)?;
        self.open = Some((db, rows));
        Ok(())
    }

    fn apply(&mut self, transaction: &Transaction) -> Result<(), Failure> {
        let (db, rows) = self.opened()?;
        let mut batch = db.batch().durability(self.sync.then_some(PersistMode::SyncAll));
        for (key, value) in &transaction.writes {
            match value {
                Some(value) => batch.insert(rows, key.as_slice(), value.as_slice()),
                None => batch.remove(rows, key.as_slice()),
            }
        }
        batch.commit()?;
        self.applied += 1;
        Ok(())
    }

    fn acknowledge(&mut self) -> Result<Promise, Failure> {
        if self.sync {
            return Ok(Promise::PowerLoss);
        }
        if self.applied.is_multiple_of(SYNC_EVERY) {
            self.opened()?.0.persist(PersistMode::SyncAll)?;
            return Ok(Promise::PowerLoss);
        }
        Ok(Promise::ProcessDeath)
    }

    fn reopen(&mut self, dir: &Path) -> Result<(), Failure> {
        self.start(dir)
    }

    fn dump(&mut self) -> Result<Entries, Failure> {
        let mut entries = Entries::new();
        for row in self.opened()?.1.iter() {
            let (key, value) = row.into_inner()?;
            entries.insert(key.to_vec(), value.to_vec());
        }
        Ok(entries)
    }
}
