//! redb: the default cache of 1 GiB; strict is `Durability::Immediate` in one phase. Buffered
//! is `Durability::None`, **weaker than asked**: it is lost when the process dies, and redb
//! has nothing in between.

use redb::{
    Database, Durability, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _, TableDefinition,
};

use crate::data::{self, KeyBytes, PREFIX_BYTES};
use crate::store::{Ledger, Level, Opening, Reader, Row, Store};
use crate::transactions;

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

pub(crate) struct Redb {
    db: Database,
    durability: Durability,
}

pub(crate) fn open(opening: Opening<'_>) -> Redb {
    let db = Database::create(opening.dir.join("redb")).expect("it opens");
    let durability = match opening.level {
        Level::Strict => Durability::Immediate,
        Level::Buffered => Durability::None,
    };
    let txn = db.begin_write().expect("it begins");
    txn.open_table(ROWS).expect("the table is made");
    txn.commit().expect("it commits");
    Redb { db, durability }
}

impl Store for Redb {
    fn commit(&self, rows: &[Row]) {
        let mut txn = self.db.begin_write().expect("it begins");
        txn.set_durability(self.durability).expect("no savepoints are in the way");
        {
            let mut table = txn.open_table(ROWS).expect("the table is there");
            for (key, value) in rows {
                table.insert(&key[..], &value[..]).expect("it takes a row");
            }
        }
        txn.commit().expect("it commits");
    }

    fn compact(&mut self) {
        while self.db.compact().expect("nothing is open") {}
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(InTable { store: self, table: self.table() })
    }
}

/// It has one writing transaction at a time: the other thread waits.
impl Ledger for Redb {
    fn open_accounts(&self, rows: &[Row]) {
        self.commit(rows);
    }

    fn transfer(&self, from: &KeyBytes, to: &KeyBytes) -> u64 {
        let mut txn = self.db.begin_write().expect("it begins");
        txn.set_durability(self.durability).expect("no savepoints are in the way");
        {
            let mut table = txn.open_table(ROWS).expect("the table is there");
            let account = |key: &KeyBytes| {
                let found = table.get(&key[..]).expect("it reads");
                found.expect("the account is there").value().to_vec()
            };
            let (less, more) = transactions::moved(&account(from), &account(to));
            table.insert(&from[..], &less[..]).expect("it takes a row");
            table.insert(&to[..], &more[..]).expect("it takes a row");
        }
        txn.commit().expect("it commits");
        0
    }

    fn balance(&self, account: &KeyBytes) -> u64 {
        let found = self.table().get(&account[..]).expect("it reads");
        transactions::balance(found.expect("the account is there").value())
    }
}

type Table = ReadOnlyTable<&'static [u8], &'static [u8]>;

impl Redb {
    fn table(&self) -> Table {
        let txn = self.db.begin_read().expect("it begins");
        txn.open_table(ROWS).expect("the table is there")
    }
}

struct InTable<'a> {
    store: &'a Redb,
    table: Table,
}

impl Reader for InTable<'_> {
    fn get(&mut self, key: &KeyBytes) -> Option<u64> {
        let found = self.table.get(&key[..]).expect("it reads");
        found.map(|value| data::touch(value.value()))
    }

    fn get_newest(&mut self, key: &KeyBytes) -> Option<u64> {
        let found = self.store.table().get(&key[..]).expect("it reads");
        found.map(|value| data::touch(value.value()))
    }

    fn scan(&mut self) -> (u64, u64) {
        self.table.iter().expect("it reads").fold((0, 0), |(rows, sum), row| {
            (rows + 1, sum + data::touch(row.expect("it reads").1.value()))
        })
    }

    fn scan_prefix(&mut self, prefix: &[u8; PREFIX_BYTES]) -> (u64, u64) {
        let (mut rows, mut sum) = (0, 0);
        for row in self.table.range::<&[u8]>(&prefix[..]..).expect("it reads") {
            let (key, value) = row.expect("it reads");
            if !key.value().starts_with(prefix) {
                break;
            }
            rows += 1;
            sum += data::touch(value.value());
        }
        (rows, sum)
    }
}
