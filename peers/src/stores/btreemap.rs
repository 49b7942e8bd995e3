//! The standard library's map behind a lock.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{RwLock, RwLockReadGuard};

use crate::data::{self, KeyBytes, PREFIX_BYTES};
use crate::store::{Reader, Row, Store};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// No store, but a measure for them.
#[derive(Default)]
pub(crate) struct BTreeMapStore(RwLock<Map>);

impl Store for BTreeMapStore {
    fn commit(&self, rows: &[Row]) {
        let mut map = self.0.write().expect("nobody panics");
        map.extend(rows.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(Locked { map: &self.0, snapshot: None })
    }
}

/// Its snapshot is the lock, held; taken when it is first read from.
struct Locked<'a> {
    map: &'a RwLock<Map>,
    snapshot: Option<RwLockReadGuard<'a, Map>>,
}

impl<'a> Locked<'a> {
    fn snapshot(&mut self) -> &Map {
        self.snapshot.get_or_insert_with(|| self.map.read().expect("nobody panics"))
    }
}

impl Reader for Locked<'_> {
    fn get(&mut self, key: &KeyBytes) -> Option<u64> {
        self.snapshot().get(&key[..]).map(|value| data::touch(value))
    }

    fn get_newest(&mut self, key: &KeyBytes) -> Option<u64> {
        self.snapshot = None;
        self.map.read().expect("nobody panics").get(&key[..]).map(|value| data::touch(value))
    }

    fn scan(&mut self) -> (u64, u64) {
        let map = self.snapshot();
        (map.len() as u64, map.values().map(|value| data::touch(value)).sum())
    }

    fn scan_prefix(&mut self, prefix: &[u8; PREFIX_BYTES]) -> (u64, u64) {
        let from = (Bound::Included(&prefix[..]), Bound::Unbounded);
        let rows = self.snapshot().range::<[u8], _>(from);
        rows.take_while(|(key, _)| key.starts_with(prefix))
            .fold((0, 0), |(rows, sum), (_, value)| (rows + 1, sum + data::touch(value)))
    }
}
