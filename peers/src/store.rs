//! What every store has to do, and how it is asked to keep its promise.

use std::path::Path;

use crate::data::{KeyBytes, PREFIX_BYTES, ValueBytes};
use crate::stores;

/// What an acknowledged transaction survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// The loss of power.
    Strict,
    /// The death of the process.
    Buffered,
}

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) level: Level,
    /// Keep the whole log, so that recovery has to replay all of it.
    pub(crate) keep_log: bool,
}

/// A row.
pub(crate) type Row = (KeyBytes, ValueBytes);

/// A store, shared by all threads.
pub(crate) trait Store: Sync {
    /// One transaction that puts `rows`, acknowledged at the store's level.
    fn commit(&self, rows: &[Row]);

    /// A reader for the calling thread, with a snapshot of what is there now.
    fn reader(&self) -> Box<dyn Reader + '_>;

    /// Lets work in the background come to rest.
    fn settle(&self) {}

    /// Makes the files as small as the store knows how to.
    fn compact(&mut self) {
        self.settle();
    }

    /// Waits until everything that is kept in memory is there.
    fn wait_loaded(&self) {}
}

/// Reads on one thread. Each looks at the first and the last byte of every value.
pub(crate) trait Reader {
    /// The value of `key` in the reader's snapshot, touched; `None` if there is no such key.
    fn get(&mut self, key: &KeyBytes) -> Option<u64>;

    /// The same in a snapshot made for this read.
    fn get_newest(&mut self, key: &KeyBytes) -> Option<u64>;

    /// All rows in key order: how many, and what was touched, added up.
    fn scan(&mut self) -> (u64, u64);

    /// The rows whose keys begin with `prefix`, likewise.
    fn scan_prefix(&mut self, prefix: &[u8; PREFIX_BYTES]) -> (u64, u64);
}

/// Accounts, and serializable transactions that move money between them, shared by all threads.
pub(crate) trait Ledger: Sync {
    /// One transaction that puts rows.
    fn open_accounts(&self, rows: &[Row]);

    /// One transaction that reads two accounts and writes both, one moved from the one to the
    /// other; begun again until it is acknowledged at the store's level. Returns how often it
    /// was begun again.
    fn transfer(&self, from: &KeyBytes, to: &KeyBytes) -> u64;

    /// What an account has.
    fn balance(&self, account: &KeyBytes) -> u64;
}

/// Names of the stores, Steadfast first.
pub(crate) const NAMES: &[&str] = &[
    "steadfast",
    "fjall",
    "redb",
    "lmdb",
    "sqlite",
    #[cfg(feature = "rocksdb")]
    "rocksdb",
];

/// Opens a store by its name; it is created if it is not there.
pub(crate) fn open(name: &str, opening: Opening<'_>) -> Box<dyn Store> {
    std::fs::create_dir_all(opening.dir).expect("the benches' folder can be written");
    match name {
        "steadfast" => Box::new(stores::steadfast::open(opening, false)),
        DECODED => Box::new(stores::steadfast::open(opening, true)),
        "fjall" => Box::new(stores::fjall::open(opening)),
        "redb" => Box::new(stores::redb::open(opening)),
        "lmdb" => Box::new(stores::lmdb::open(opening)),
        "sqlite" => Box::new(stores::sqlite::open(opening)),
        #[cfg(feature = "rocksdb")]
        "rocksdb" => Box::new(stores::rocksdb::open(opening)),
        BTREEMAP => Box::new(stores::btreemap::BTreeMapStore::default()),
        unknown => panic!("no such store: {unknown}"),
    }
}

/// Names of the stores whose transactions are measured.
pub(crate) const LEDGERS: &[&str] = &["steadfast", "fjall", "redb"];

/// Opens one of [`LEDGERS`]; it is created.
pub(crate) fn open_ledger(name: &str, opening: Opening<'_>) -> Box<dyn Ledger> {
    std::fs::create_dir_all(opening.dir).expect("the benches' folder can be written");
    match name {
        "steadfast" => Box::new(stores::steadfast::open(opening, false)),
        "fjall" => Box::new(stores::fjall::open_optimistic(opening)),
        "redb" => Box::new(stores::redb::open(opening)),
        unknown => panic!("no such ledger: {unknown}"),
    }
}

/// Steadfast, making a key and a `Value` of its own of what is read.
pub(crate) const DECODED: &str = "steadfast, keys and values decoded";

/// The standard library's map behind a lock: no store, a measure for reads.
pub(crate) const BTREEMAP: &str = "limit: BTreeMap";
