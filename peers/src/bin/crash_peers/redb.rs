//! redb: one table, each commit `Durability::Immediate`, or `Durability::None` with an
//! immediate one now and then.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use steadfast_testing::target::{CrashTarget, Entries, Failure, Promise, Transaction};

use crate::contender::SYNC_EVERY;

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

pub(crate) struct Redb {
    db: Option<Database>,
    immediate: bool,
    applied: u64,
}

impl Redb {
    pub(crate) fn new(immediate: bool) -> Self {
        Self { db: None, immediate, applied: 0 }
    }

    fn db(&self) -> Result<&Database, Failure> {
        self.db.as_ref().ok_or_else(|| "it is not open".into())
    }

    fn is_immediate(&self) -> bool {
        self.immediate || self.applied.is_multiple_of(SYNC_EVERY)
    }
}

impl CrashTarget for Redb {
    fn start(&mut self, dir: &Path) -> Result<(), Failure> {
        let db = Database::create(dir.join("redb"))?;
        let txn = db.begin_write()?;
        txn.open_table(ROWS)?;
        txn.commit()?;
        self.db = Some(db);
        Ok(())
    }

    fn apply(&mut self, transaction: &Transaction) -> Result<(), Failure> {
        self.applied += 1;
        let mut txn = self.db()?.begin_write()?;
        let immediate = self.is_immediate();
        txn.set_durability(if immediate { Durability::Immediate } else { Durability::None })?;
        {
            let mut rows = txn.open_table(ROWS)?;
            for (key, value) in &transaction.writes {
                match value {
                    Some(value) => drop(rows.insert(key.as_slice(), value.as_slice())?),
                    None => drop(rows.remove(key.as_slice())?),
                }
            }
        }
        Ok(txn.commit()?)
    }

    fn acknowledge(&mut self) -> Result<Promise, Failure> {
        Ok(if self.is_immediate() { Promise::PowerLoss } else { Promise::Nothing })
    }

    fn reopen(&mut self, dir: &Path) -> Result<(), Failure> {
        self.start(dir)
    }

    fn dump(&mut self) -> Result<Entries, Failure> {
        let rows = self.db()?.begin_read()?.open_table(ROWS)?;
        let mut entries = Entries::new();
        for row in rows.iter()? {
            let (key, value) = row?;
            entries.insert(key.value().to_vec(), value.value().to_vec());
        }
        Ok(entries)
    }
}
