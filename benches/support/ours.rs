//! Steadfast, as the benches drive it: through its public API only, all rows in one run.

use std::path::Path;

use steadfast::{Database, DatabaseConfig, Record, Run, View};

use super::data;

/// Puts in a transaction while a store is being filled.
const LOAD_PUTS: usize = 1000;

/// Looks at a value where it lies.
#[inline]
fn touch(row: &Record) -> u64 {
    let value = row.value_ref().expect("it was encoded");
    data::touch(value.as_bytes().expect("bytes were written"))
}

/// A database with the one run that holds all rows.
#[derive(Clone)]
pub(crate) struct Ours {
    pub(crate) db: Database,
    pub(crate) run: Run,
}

impl Ours {
    /// Opens what is there or creates it.
    pub(crate) fn open(dir: &Path, config: DatabaseConfig) -> Self {
        Self::of(Database::open_or_create(dir, config).expect("it opens"))
    }

    pub(crate) fn in_memory() -> Self {
        Self::of(Database::in_memory().expect("memory needs nothing"))
    }

    fn of(db: Database) -> Self {
        let run = db.get_or_create_run("bench").expect("a run can be created");
        Self { db, run }
    }

    /// A transaction of one put.
    pub(crate) fn put(&self, id: u64) {
        self.db.kv_put(self.run, data::key(id), &data::value(id)).expect("it commits");
    }

    /// A transaction of one put of a value of `bytes`.
    pub(crate) fn put_sized(&self, id: u64, bytes: usize) {
        let mut value = vec![0; bytes];
        data::fill(id, &mut value);
        self.db.kv_put(self.run, data::key(id), value).expect("it commits");
    }

    /// A transaction of a put for each id.
    pub(crate) fn put_all(&self, ids: &[u32]) {
        self.put_all_of(ids, data::value);
    }

    fn put_all_of(&self, ids: &[u32], value: fn(u64) -> data::ValueBytes) {
        let put_all = |txn: &mut steadfast::Transaction| {
            for id in ids {
                let id = u64::from(*id);
                txn.kv_put(self.run, data::key(id), &value(id))?;
            }
            Ok(())
        };
        self.db.transaction(put_all).expect("it commits");
    }

    /// A transaction that reads two rows and gives each the value of the other. Returns how
    /// often it was begun until it was committed.
    pub(crate) fn exchange(&self, one: &data::KeyBytes, other: &data::KeyBytes) -> u64 {
        let mut begun = 0;
        let exchange = |txn: &mut steadfast::Transaction| {
            begun += 1;
            let [a, b] = [one, other].map(|key| txn.kv_get(self.run, key));
            let there = "the row is there";
            txn.kv_put(self.run, one, b?.expect(there).value)?;
            txn.kv_put(self.run, other, a?.expect(there).value)
        };
        self.db.transaction(exchange).expect("it commits");
        begun
    }

    /// A transaction of one put of a step.
    pub(crate) fn put_step(&self, id: u64) {
        self.db.kv_put(self.run, data::key(id), &data::step(id)).expect("it commits");
    }

    /// A transaction that deletes each id.
    pub(crate) fn delete_all(&self, ids: &[u32]) {
        let delete_all = |txn: &mut steadfast::Transaction| {
            ids.iter()
                .try_for_each(|id| txn.kv_delete(self.run, data::key(u64::from(*id))).map(drop))
        };
        self.db.transaction(delete_all).expect("it commits");
    }

    /// Transactions of one put each that are queued together, so that they may share a write.
    pub(crate) fn put_each(&self, ids: &[u32]) {
        let submit = |id: &u32| {
            let id = u64::from(*id);
            let mut txn = self.db.begin()?;
            txn.kv_put(self.run, data::key(id), &data::value(id))?;
            txn.submit()
        };
        let pending: Vec<_> = ids.iter().map(|id| submit(id).expect("it is queued")).collect();
        for commit in pending.into_iter().flatten() {
            commit.wait().expect("it commits");
        }
    }

    /// Fills the store.
    pub(crate) fn load(&self, ids: &[u32]) {
        for ids in ids.chunks(LOAD_PUTS) {
            self.put_all(ids);
        }
    }

    /// Fills the store with steps.
    pub(crate) fn load_steps(&self, ids: &[u32]) {
        for ids in ids.chunks(LOAD_PUTS) {
            self.put_all_of(ids, data::step);
        }
    }

    pub(crate) fn view(&self) -> View {
        self.db.view().expect("a view can be opened")
    }

    /// A point read of the newest value, as it is stored.
    #[inline]
    pub(crate) fn get(&self, key: &data::KeyBytes) -> Option<u64> {
        let found = self.db.kv_record(self.run, key).expect("it reads")?;
        Some(touch(&found))
    }

    /// A point read in a view, as it is stored.
    #[inline]
    pub(crate) fn get_in(&self, view: &View, key: &data::KeyBytes) -> Option<u64> {
        let found = view.kv_record(self.run, key).expect("it reads")?;
        Some(touch(&found))
    }

    /// A point read in a view that makes a `Value` of its own.
    #[inline]
    pub(crate) fn get_decoded(&self, view: &View, key: &data::KeyBytes) -> Option<u64> {
        let found = view.kv_get(self.run, key).expect("it reads")?;
        Some(data::touch(found.value.as_bytes().expect("bytes were written")))
    }

    /// Rows that begin with `prefix`, and the sum of what was touched in them.
    #[inline]
    pub(crate) fn scan(&self, view: &View, prefix: &[u8]) -> (u64, u64) {
        let rows = view.kv_scan(self.run, prefix).expect("it reads").records();
        rows.fold((0, 0), |(rows, sum), row| {
            let row = row.expect("it reads");
            (rows + 1, sum + touch(&row))
        })
    }

    /// The same, making a key and a `Value` of each row.
    #[inline]
    pub(crate) fn scan_decoded(&self, view: &View, prefix: &[u8]) -> (u64, u64) {
        view.kv_scan(self.run, prefix).expect("it reads").fold((0, 0), |(rows, sum), row| {
            let (_, found) = row.expect("it reads");
            (rows + 1, sum + data::touch(found.value.as_bytes().expect("bytes were written")))
        })
    }
}
