//! RocksDB: a 2 GiB block cache, bloom filters of 10 bits, LZ4, two background threads; strict
//! is `sync=true`. To keep the log: a memtable of 4 GiB.

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Options, ReadOptions, WaitForCompactOptions,
    WriteBatch, WriteOptions,
};

use crate::data::{self, KeyBytes, PREFIX_BYTES};
use crate::store::{Level, Opening, Reader, Row, Store};

pub(crate) struct RocksDb {
    db: DB,
    level: Level,
}

pub(crate) fn open(opening: Opening<'_>) -> RocksDb {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(2 << 30));
    blocks.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.increase_parallelism(2);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_block_based_table_factory(&blocks);
    if opening.keep_log {
        options.set_write_buffer_size(4 << 30);
    }
    RocksDb { db: DB::open(&options, opening.dir).expect("it opens"), level: opening.level }
}

impl Store for RocksDb {
    fn commit(&self, rows: &[Row]) {
        let mut options = WriteOptions::default();
        options.set_sync(self.level == Level::Strict);
        if let [(key, value)] = rows {
            return self.db.put_opt(key, value, &options).expect("it commits");
        }
        let mut batch = WriteBatch::default();
        for (key, value) in rows {
            batch.put(key, value);
        }
        self.db.write_opt(batch, &options).expect("it commits");
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        Box::new(InSnapshot { store: self, snapshot: self.db.snapshot() })
    }

    fn settle(&self) {
        self.db.flush().expect("it flushes");
        self.db.wait_for_compact(&WaitForCompactOptions::default()).expect("it compacts");
    }

    fn compact(&mut self) {
        self.settle();
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
    }
}

struct InSnapshot<'a> {
    store: &'a RocksDb,
    snapshot: rocksdb::Snapshot<'a>,
}

impl InSnapshot<'_> {
    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options
    }

    fn add(&self, from: &[u8]) -> (u64, u64) {
        let mut rows = self.store.db.raw_iterator_opt(self.options());
        if from.is_empty() {
            rows.seek_to_first()
        } else {
            rows.seek(from)
        }
        let (mut count, mut sum) = (0, 0);
        while let Some((key, value)) = rows.item() {
            // An empty prefix is a case of its own: comparing with it is slow here.
            if !from.is_empty() && !key.starts_with(from) {
                break;
            }
            count += 1;
            sum += data::touch(value);
            rows.next();
        }
        (count, sum)
    }
}

impl Reader for InSnapshot<'_> {
    fn get(&mut self, key: &KeyBytes) -> Option<u64> {
        let found = self.store.db.get_pinned_opt(key, &self.options()).expect("it reads");
        found.map(|value| data::touch(&value))
    }

    fn get_newest(&mut self, key: &KeyBytes) -> Option<u64> {
        self.store.db.get_pinned(key).expect("it reads").map(|value| data::touch(&value))
    }

    fn scan(&mut self) -> (u64, u64) {
        self.add(b"")
    }

    fn scan_prefix(&mut self, prefix: &[u8; PREFIX_BYTES]) -> (u64, u64) {
        self.add(prefix)
    }
}
