//! SQLite: a write-ahead log, a table without row ids, 256 MiB of cache and 2 GiB of map a
//! connection, cached statements, one connection to write behind a mutex and one a reader.
//! Strict is `synchronous=FULL`, buffered `NORMAL`. To keep the log: no checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rusqlite::{Connection, OptionalExtension as _};

use crate::data::{self, KeyBytes, PREFIX_BYTES};
use crate::store::{Level, Opening, Reader, Row, Store};

const PUT: &str = "INSERT OR REPLACE INTO rows VALUES (?1, ?2)";
const GET: &str = "SELECT value FROM rows WHERE key = ?1";
const SCAN: &str = "SELECT value FROM rows ORDER BY key";
const SCAN_RANGE: &str = "SELECT value FROM rows WHERE key >= ?1 AND key < ?2 ORDER BY key";

pub(crate) struct Sqlite {
    path: PathBuf,
    writer: Mutex<Connection>,
}

pub(crate) fn open(opening: Opening<'_>) -> Sqlite {
    let path = opening.dir.join("sqlite");
    let writer = connect(&path);
    let synchronous = match opening.level {
        Level::Strict => "FULL",
        Level::Buffered => "NORMAL",
    };
    writer.pragma_update(None, "synchronous", synchronous).expect("it is known");
    if opening.keep_log {
        writer.pragma_update(None, "wal_autocheckpoint", 0).expect("it is known");
    }
    let create = "CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID";
    writer.execute(create, ()).expect("the table is made");
    Sqlite { path, writer: Mutex::new(writer) }
}

fn connect(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("it opens");
    connection.pragma_update(None, "journal_mode", "WAL").expect("it is known");
    connection.pragma_update(None, "cache_size", -(256 << 10)).expect("it is known");
    connection.pragma_update(None, "mmap_size", 2_i64 << 30).expect("it is known");
    connection
}

impl Store for Sqlite {
    fn commit(&self, rows: &[Row]) {
        let mut writer = self.writer.lock().expect("nobody panics");
        if let [(key, value)] = rows {
            writer
                .prepare_cached(PUT)
                .and_then(|mut put| put.execute((key, value)))
                .expect("it commits");
            return;
        }
        let txn = writer.transaction().expect("it begins");
        {
            let mut put = txn.prepare_cached(PUT).expect("it is SQL");
            for (key, value) in rows {
                put.execute((key, value)).expect("it takes a row");
            }
        }
        txn.commit().expect("it commits");
    }

    fn compact(&mut self) {
        let writer = self.writer.get_mut().expect("nobody panics");
        writer.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)").expect("it compacts");
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(OwnConnection { connection: connect(&self.path), in_txn: false })
    }
}

struct OwnConnection {
    connection: Connection,
    in_txn: bool,
}

impl OwnConnection {
    /// Begins the transaction that is the reader's snapshot, or ends it.
    fn in_txn(&mut self, wanted: bool) {
        if self.in_txn != wanted {
            let statement = if wanted { "BEGIN" } else { "COMMIT" };
            self.connection.execute_batch(statement).expect("it is SQL");
            self.in_txn = wanted;
        }
    }

    fn find(&self, key: &KeyBytes) -> Option<u64> {
        let mut get = self.connection.prepare_cached(GET).expect("it is SQL");
        let touch = |row: &rusqlite::Row<'_>| Ok(data::touch(row.get_ref(0)?.as_blob()?));
        get.query_row((key,), touch).optional().expect("it reads")
    }

    fn add(&self, statement: &str, bounds: impl rusqlite::Params) -> (u64, u64) {
        let mut statement = self.connection.prepare_cached(statement).expect("it is SQL");
        let mut found = statement.query(bounds).expect("it reads");
        let (mut rows, mut sum) = (0, 0);
        while let Some(row) = found.next().expect("it reads") {
            sum += data::touch(row.get_ref(0).expect("a column").as_blob().expect("a blob"));
            rows += 1;
        }
        (rows, sum)
    }
}

impl Reader for OwnConnection {
    fn get(&mut self, key: &KeyBytes) -> Option<u64> {
        self.in_txn(true);
        self.find(key)
    }

    fn get_newest(&mut self, key: &KeyBytes) -> Option<u64> {
        self.in_txn(false);
        self.find(key)
    }

    fn scan(&mut self) -> (u64, u64) {
        self.in_txn(true);
        self.add(SCAN, ())
    }

    fn scan_prefix(&mut self, prefix: &[u8; PREFIX_BYTES]) -> (u64, u64) {
        self.in_txn(true);
        let mut end = *prefix;
        end[PREFIX_BYTES - 1] += 1;
        self.add(SCAN_RANGE, (prefix, end))
    }
}
