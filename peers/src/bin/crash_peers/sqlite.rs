//! SQLite: one table without row ids; a write-ahead log with small checkpoints, or a rollback
//! journal that is deleted.

use std::path::Path;

use rusqlite::Connection;
use steadfast_testing::target::{CrashTarget, Entries, Failure, Promise, Transaction};

use crate::contender::SYNC_EVERY;

/// Pages of log after which a checkpoint is made by itself.
const CHECKPOINT_PAGES: i64 = 40;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Journal {
    Wal,
    Delete,
}

pub(crate) struct Sqlite {
    connection: Option<Connection>,
    journal: Journal,
    synchronous: &'static str,
    applied: u64,
}

impl Sqlite {
    pub(crate) fn new(journal: Journal, synchronous: &'static str) -> Self {
        Self { connection: None, journal, synchronous, applied: 0 }
    }

    fn connection(&mut self) -> Result<&mut Connection, Failure> {
        self.connection.as_mut().ok_or_else(|| "it is not open".into())
    }
}

impl CrashTarget for Sqlite {
    fn start(&mut self, dir: &Path) -> Result<(), Failure> {
        let connection = Connection::open(dir.join("sqlite"))?;
        let journal = if self.journal == Journal::Wal { "WAL" } else { "DELETE" };
        connection.pragma_update(None, "synchronous", self.synchronous)?;
        connection.pragma_update(None, "journal_mode", journal)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.execute(
            "CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID",
            (),
        )?;
        self.connection = Some(connection);
        Ok(())
    }

    fn apply(&mut self, transaction: &Transaction) -> Result<(), Failure> {
        let txn = self.connection()?.transaction()?;
        for (key, value) in &transaction.writes {
            match value {
                Some(value) => {
                    txn.execute("INSERT OR REPLACE INTO rows VALUES (?1, ?2)", (key, value))?
                }
                None => txn.execute("DELETE FROM rows WHERE key = ?1", (key,))?,
            };
        }
        txn.commit()?;
        self.applied += 1;
        Ok(())
    }

    fn acknowledge(&mut self) -> Result<Promise, Failure> {
        match (self.journal, self.synchronous) {
            (Journal::Wal, "FULL") | (Journal::Delete, "EXTRA") => Ok(Promise::PowerLoss),
            (Journal::Wal, _) if self.applied.is_multiple_of(SYNC_EVERY) => {
                // It syncs the log, then the database.
                let checkpoint = "PRAGMA wal_checkpoint(FULL)";
                let busy: i64 = self.connection()?.query_row(checkpoint, (), |row| row.get(0))?;
                Ok(if busy == 0 { Promise::PowerLoss } else { Promise::ProcessDeath })
            }
            // The journal's removal may be undone, and the commit with it.
            _ => Ok(Promise::ProcessDeath),
        }
    }

    fn reopen(&mut self, dir: &Path) -> Result<(), Failure> {
        self.start(dir)
    }

    fn dump(&mut self) -> Result<Entries, Failure> {
        let connection = self.connection()?;
        let mut statement = connection.prepare("SELECT key, value FROM rows")?;
        let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
