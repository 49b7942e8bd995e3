//! Steadfast: all rows in one run. A read hands out the stored bytes, shared and counted, as
//! its peers hand out theirs; `decoded`, it makes a key and a `Value` of its own. To keep the log:
//! no checkpoint.

use steadfast::{CompactMode, DatabaseConfig, View};

use crate::data::{KeyBytes, PREFIX_BYTES};
use crate::ours::Ours;
use crate::store::{Ledger, Level, Opening, Reader, Row, Store};
use crate::transactions;

pub(crate) struct Steadfast {
    ours: Ours,
    decoded: bool,
}

pub(crate) fn open(opening: Opening<'_>, decoded: bool) -> Steadfast {
    let config = match opening.level {
        Level::Strict => DatabaseConfig::strict(),
        Level::Buffered => DatabaseConfig::buffered(),
    };
    let config = if opening.keep_log { config.manual_checkpoints() } else { config };
    Steadfast { ours: Ours::open(opening.dir, config), decoded }
}

impl Store for Steadfast {
    fn commit(&self, rows: &[Row]) {
        let Ours { db, run } = &self.ours;
        if let [(key, value)] = rows {
            db.kv_put(*run, key, value).expect("it commits");
            return;
        }
        let put = |txn: &mut steadfast::Transaction| {
            rows.iter().try_for_each(|(key, value)| txn.kv_put(*run, key, value))
        };
        db.transaction(put).expect("it commits");
    }

    fn compact(&mut self) {
        self.ours.db.compact(CompactMode::Full).expect("it compacts");
    }

    fn wait_loaded(&self) {
        self.ours.db.wait_loaded().expect("everything is sound");
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(InView { ours: &self.ours, view: self.ours.view(), decoded: self.decoded })
    }
}

impl Ledger for Steadfast {
    fn open_accounts(&self, rows: &[Row]) {
        self.commit(rows);
    }

    fn transfer(&self, from: &KeyBytes, to: &KeyBytes) -> u64 {
        let Ours { db, run } = &self.ours;
        let mut begun = 0;
        let transfer = |txn: &mut steadfast::Transaction| {
            begun += 1;
            let mut account = |key| {
                let found = txn.kv_get(*run, key)?.expect("the account is there");
                Ok::<_, steadfast::Error>(found.value)
            };
            let (less, more) = (account(from)?, account(to)?);
            let bytes = "bytes were written";
            let (less, more) = (less.as_bytes().expect(bytes), more.as_bytes().expect(bytes));
            let (less, more) = transactions::moved(less, more);
            txn.kv_put(*run, from, &less)?;
            txn.kv_put(*run, to, &more)
        };
        db.transaction(transfer).expect("it commits");
        begun - 1
    }

    fn balance(&self, account: &KeyBytes) -> u64 {
        let found = self.ours.db.kv_get(self.ours.run, account).expect("it reads");
        let value = found.expect("the account is there").value;
        transactions::balance(value.as_bytes().expect("bytes were written"))
    }
}

struct InView<'a> {
    ours: &'a Ours,
    view: View,
    decoded: bool,
}

impl Reader for InView<'_> {
    fn get(&mut self, key: &KeyBytes) -> Option<u64> {
        match self.decoded {
            false => self.ours.get_in(&self.view, key),
            true => self.ours.get_decoded(&self.view, key),
        }
    }

    fn get_newest(&mut self, key: &KeyBytes) -> Option<u64> {
        self.ours.get(key)
    }

    fn scan(&mut self) -> (u64, u64) {
        match self.decoded {
            false => self.ours.scan(&self.view, b""),
            true => self.ours.scan_decoded(&self.view, b""),
        }
    }

    fn scan_prefix(&mut self, prefix: &[u8; PREFIX_BYTES]) -> (u64, u64) {
        match self.decoded {
            false => self.ours.scan(&self.view, prefix),
            true => self.ours.scan_decoded(&self.view, prefix),
        }
    }
}
