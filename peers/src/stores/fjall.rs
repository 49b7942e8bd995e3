//! fjall: a 2 GiB block cache; strict is a batch with `PersistMode::SyncAll`, buffered an
//! `insert`, which hands its bytes to the kernel. To keep the whole journal, memtable and
//! journals get more room than the rows need. Transactions are its optimistic ones, with
//! `PersistMode::SyncAll` or their default, `Buffer`.

use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, OptimisticTxDatabase, OptimisticTxKeyspace,
    PersistMode, Readable as _, Snapshot,
};

use crate::data::{self, KeyBytes, PREFIX_BYTES};
use crate::store::{Ledger, Level, Opening, Reader, Row, Store};
use crate::transactions;

const CACHE_BYTES: u64 = 2 << 30;
const KEPT_MEMTABLE_BYTES: u64 = 4 << 30;
const KEPT_JOURNAL_BYTES: u64 = 8 << 30;

pub(crate) struct Fjall {
    db: Database,
    rows: Keyspace,
    level: Level,
}

pub(crate) fn open(opening: Opening<'_>) -> Fjall {
    let mut builder = Database::builder(opening.dir).cache_size(CACHE_BYTES);
    let mut options = KeyspaceCreateOptions::default();
    if opening.keep_log {
        builder = builder.max_journaling_size(KEPT_JOURNAL_BYTES);
        options = options.max_memtable_size(KEPT_MEMTABLE_BYTES);
    }
    let db = builder.open().expect("it opens");
    let rows = db.keyspace("rows", || options).expect("it opens");
    Fjall { db, rows, level: opening.level }
}

impl Store for Fjall {
    fn commit(&self, rows: &[Row]) {
        if let (Level::Buffered, [(key, value)]) = (self.level, rows) {
            return self.rows.insert(&key[..], &value[..]).expect("it commits");
        }
        let strict = self.level == Level::Strict;
        let mut batch = self.db.batch().durability(strict.then_some(PersistMode::SyncAll));
        for (key, value) in rows {
            batch.insert(&self.rows, &key[..], &value[..]);
        }
        batch.commit().expect("it commits");
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(InSnapshot { store: self, snapshot: self.db.snapshot() })
    }

    fn settle(&self) {
        self.rows.rotate_memtable_and_wait().expect("it flushes");
        while self.db.outstanding_flushes() > 0 || self.db.active_compactions() > 0 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn compact(&mut self) {
        self.settle();
        self.rows.major_compact().expect("it compacts");
        self.settle();
    }
}

struct InSnapshot<'a> {
    store: &'a Fjall,
    snapshot: Snapshot,
}

impl InSnapshot<'_> {
    fn add(rows: fjall::Iter) -> (u64, u64) {
        rows.fold((0, 0), |(rows, sum), row| {
            (rows + 1, sum + data::touch(&row.value().expect("it reads")))
        })
    }
}

impl Reader for InSnapshot<'_> {
    fn get(&mut self, key: &KeyBytes) -> Option<u64> {
        let found = self.snapshot.get(&self.store.rows, key).expect("it reads");
        found.map(|value| data::touch(&value))
    }

    fn get_newest(&mut self, key: &KeyBytes) -> Option<u64> {
        self.store.rows.get(key).expect("it reads").map(|value| data::touch(&value))
    }

    fn scan(&mut self) -> (u64, u64) {
        Self::add(self.snapshot.iter(&self.store.rows))
    }

    fn scan_prefix(&mut self, prefix: &[u8; PREFIX_BYTES]) -> (u64, u64) {
        Self::add(self.snapshot.prefix(&self.store.rows, prefix))
    }
}

/// Its optimistic transactions.
pub(crate) struct Optimistic {
    db: OptimisticTxDatabase,
    rows: OptimisticTxKeyspace,
    persist: PersistMode,
}

pub(crate) fn open_optimistic(opening: Opening<'_>) -> Optimistic {
    let builder = OptimisticTxDatabase::builder(opening.dir).cache_size(CACHE_BYTES);
    let db = builder.open().expect("it opens");
    let rows = db.keyspace("rows", KeyspaceCreateOptions::default).expect("it opens");
    let persist = match opening.level {
        Level::Strict => PersistMode::SyncAll,
        Level::Buffered => PersistMode::Buffer,
    };
    Optimistic { db, rows, persist }
}

impl Optimistic {
    /// Whether `work` was committed, or lost to another transaction.
    fn transaction(&self, work: impl FnOnce(&mut fjall::OptimisticWriteTx)) -> bool {
        let txn = self.db.write_tx().expect("it begins");
        let mut txn = txn.durability(Some(self.persist));
        work(&mut txn);
        txn.commit().expect("it commits").is_ok()
    }
}

impl Ledger for Optimistic {
    fn open_accounts(&self, rows: &[Row]) {
        let opened = self.transaction(|txn| {
            rows.iter().for_each(|(key, value)| txn.insert(&self.rows, &key[..], &value[..]));
        });
        assert!(opened, "nobody else writes yet");
    }

    fn transfer(&self, from: &KeyBytes, to: &KeyBytes) -> u64 {
        let transfer = |txn: &mut fjall::OptimisticWriteTx| {
            let account = |key| txn.get(&self.rows, key).expect("it reads").expect("it is there");
            let (less, more) = transactions::moved(&account(from), &account(to));
            txn.insert(&self.rows, &from[..], &less[..]);
            txn.insert(&self.rows, &to[..], &more[..]);
        };
        let mut lost = 0;
        while !self.transaction(transfer) {
            lost += 1;
        }
        lost
    }

    fn balance(&self, account: &KeyBytes) -> u64 {
        let found = self.rows.get(account).expect("it reads");
        transactions::balance(&found.expect("the account is there"))
    }
}
