//! One adapter a store. Settings are those of the tables in README.md; all else is default.

pub(crate) mod btreemap;
pub(crate) mod fjall;
pub(crate) mod lmdb;
pub(crate) mod redb;
#[cfg(feature = "rocksdb")]
pub(crate) mod rocksdb;
pub(crate) mod sqlite;
pub(crate) mod steadfast;
