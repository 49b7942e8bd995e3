//! LMDB: a map of 16 GiB; strict is its default, buffered is `MDB_NOSYNC` without a writable
//! map, so that committed pages reach the kernel by `write`.

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};

use crate::data::{self, KeyBytes, PREFIX_BYTES};
use crate::store::{Level, Opening, Reader, Row, Store};

const MAP_BYTES: usize = 16 << 30;

pub(crate) struct Lmdb {
    env: &'static Env,
    rows: Database<'static, Bytes, Bytes>,
}

#[allow(unsafe_code)]
pub(crate) fn open(opening: Opening<'_>) -> Lmdb {
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_BYTES);
    // SAFETY: the folder is this process's own, nobody else changes the mapped file; without
    // syncs only a power cut could harm it, after which nobody opens it.
    let env = unsafe {
        if opening.level == Level::Buffered {
            options.flags(EnvFlags::NO_SYNC);
        }
        options.open(opening.dir).expect("it opens")
    };
    // Lives as long as the process, which measures one store and ends.
    let env: &'static Env = Box::leak(Box::new(env));
    let txn = env.write_txn().expect("it begins");
    let rows = env.create_databases_and_commit(txn, |opener, txn| {
        opener.create_database(txn, None).map(CommitOrAbort::<_, ()>::Commit)
    });
    Lmdb { env, rows: rows.expect("it opens").unwrap_commit() }
}

impl Store for Lmdb {
    fn commit(&self, rows: &[Row]) {
        let mut txn = self.env.write_txn().expect("it begins");
        for (key, value) in rows {
            self.rows.put(&mut txn, key, value).expect("it takes a row");
        }
        txn.commit().expect("it commits");
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(InTxn { store: self, txn: None })
    }
}

/// A thread has one read transaction at a time; it begins with the first read.
struct InTxn<'a> {
    store: &'a Lmdb,
    txn: Option<RoTxn<'static, WithTls>>,
}

impl InTxn<'_> {
    fn txn(&mut self) -> &RoTxn<'static, WithTls> {
        self.txn.get_or_insert_with(|| self.store.env.read_txn().expect("it begins"))
    }
}

impl Reader for InTxn<'_> {
    fn get(&mut self, key: &KeyBytes) -> Option<u64> {
        let rows = self.store.rows;
        rows.get(self.txn(), key).expect("it reads").map(data::touch)
    }

    fn get_newest(&mut self, key: &KeyBytes) -> Option<u64> {
        self.txn = None;
        let txn = self.store.env.read_txn().expect("it begins");
        self.store.rows.get(&txn, key).expect("it reads").map(data::touch)
    }

    fn scan(&mut self) -> (u64, u64) {
        let rows = self.store.rows;
        rows.iter(self.txn()).expect("it reads").fold((0, 0), |(rows, sum), row| {
            (rows + 1, sum + data::touch(row.expect("it reads").1))
        })
    }

    fn scan_prefix(&mut self, prefix: &[u8; PREFIX_BYTES]) -> (u64, u64) {
        let rows = self.store.rows;
        let found = rows.prefix_iter(self.txn(), prefix).expect("it reads");
        found.fold((0, 0), |(rows, sum), row| {
            (rows + 1, sum + data::touch(row.expect("it reads").1))
        })
    }
}
