//! Key-values: a key of bytes, a value of any kind, a version.

use steadfast_core::{
    Key, KeyRef, Record, Timestamp, TypeTag, Value, Version, VersionedValue, prefix_end,
};

use crate::commit::Receipt;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::fork::Versions;
use crate::runs::Run;
use crate::source::{Rows, Source};
use crate::transaction::Transaction;
use crate::view::View;

pub(crate) fn key(run: Run, key: &[u8]) -> Result<Key> {
    Ok(Key::new(run.namespace, TypeTag::Kv, key)?)
}

/// The same key, to be looked up.
#[inline(always)]
fn key_ref(run: Run, key: &[u8]) -> Result<KeyRef<'_>> {
    Ok(KeyRef::new(run.namespace, TypeTag::Kv, key)?)
}

pub(crate) fn decode(record: Option<Record>) -> Result<Option<VersionedValue>> {
    Ok(record.map(|record| record.versioned_value()).transpose()?)
}

fn get(mut source: impl Source, run: Run, user_key: &[u8]) -> Result<Option<VersionedValue>> {
    source.check_run(run)?;
    decode(source.record(key_ref(run, user_key)?)?)
}

fn scan(mut source: impl Source, run: Run, prefix: &[u8]) -> Result<KvScan> {
    source.check_run(run)?;
    let mut start = Key::first_of(run.namespace, TypeTag::Kv).as_bytes().to_vec();
    start.extend_from_slice(prefix);
    let end = prefix_end(&start);
    Ok(KvScan(source.rows(start, end)))
}

/// Key-values in the order of their keys, from both ends.
pub struct KvScan(Rows);

impl std::fmt::Debug for KvScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KvScan")
    }
}

impl KvScan {
    /// The same rows as records: the stored key and the encoded value in one shared
    /// allocation, nothing decoded and nothing copied.
    pub fn records(self) -> impl DoubleEndedIterator<Item = Result<Record>> {
        self.0
    }

    fn item(row: Result<Record>) -> Result<(Vec<u8>, VersionedValue)> {
        let record = row?;
        Ok((Key::user_part(record.key()).to_vec(), record.versioned_value()?))
    }
}

impl Iterator for KvScan {
    type Item = Result<(Vec<u8>, VersionedValue)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Self::item)
    }
}

impl DoubleEndedIterator for KvScan {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back().map(Self::item)
    }
}

impl View {
    /// The value of `key` in `run`, if there is one.
    pub fn kv_get(&self, run: Run, key: impl AsRef<[u8]>) -> Result<Option<VersionedValue>> {
        get(self, run, key.as_ref())
    }

    /// The record of `key` in `run`: what [`View::kv_get`] decodes, as it is stored.
    #[inline]
    pub fn kv_record(&self, run: Run, user_key: impl AsRef<[u8]>) -> Result<Option<Record>> {
        let mut source = self;
        source.check_run(run)?;
        source.record(key_ref(run, user_key.as_ref())?)
    }

    /// The key-values of `run` whose keys begin with `prefix`, in the order of keys.
    pub fn kv_scan(&self, run: Run, prefix: impl AsRef<[u8]>) -> Result<KvScan> {
        scan(self, run, prefix.as_ref())
    }

    /// Every kept version of `key` up to this view, newest first; `None` is a deletion.
    pub fn kv_history(
        &self,
        run: Run,
        user_key: impl AsRef<[u8]>,
    ) -> Result<Vec<(Version, Option<VersionedValue>)>> {
        self.clone().versions_of(&key(run, user_key.as_ref())?, run)
    }

    /// Every kept version of a key of a run, newest first, those beneath it included.
    pub(crate) fn records_of(&self, key: &[u8]) -> Result<Vec<Record>> {
        let behind = [key, &[0]].concat();
        Versions::new(&self.inner, &self.namespaces, key, Some(&behind))?.collect()
    }

    pub(crate) fn versions_of(
        self,
        key: &Key,
        run: Run,
    ) -> Result<Vec<(Version, Option<VersionedValue>)>> {
        Source::check_run(&&self, run)?;
        self.records_of(key.as_bytes())?
            .into_iter()
            .map(|record| {
                let value =
                    if record.is_tombstone() { None } else { Some(record.versioned_value()?) };
                Ok((record.version(), value))
            })
            .collect()
    }
}

impl Transaction {
    /// The value of `key` in `run` as this transaction sees it. A value that it wrote itself
    /// has [`Version::MAX`]: its version is not assigned yet.
    pub fn kv_get(&mut self, run: Run, key: impl AsRef<[u8]>) -> Result<Option<VersionedValue>> {
        get(self, run, key.as_ref())
    }

    /// The key-values of `run` whose keys begin with `prefix`, as this transaction sees them
    /// now: later writes do not change what the iterator yields.
    pub fn kv_scan(&mut self, run: Run, prefix: impl AsRef<[u8]>) -> Result<KvScan> {
        scan(self, run, prefix.as_ref())
    }

    /// Gives `key` in `run` a value.
    pub fn kv_put(
        &mut self,
        run: Run,
        user_key: impl AsRef<[u8]>,
        value: impl Into<Value>,
    ) -> Result<()> {
        self.put(run, &key(run, user_key.as_ref())?, &value.into(), None)
    }

    /// Gives `key` in `run` a value that is gone from `expiry` on.
    pub fn kv_put_expiring(
        &mut self,
        run: Run,
        user_key: impl AsRef<[u8]>,
        value: impl Into<Value>,
        expiry: Timestamp,
    ) -> Result<()> {
        self.put(run, &key(run, user_key.as_ref())?, &value.into(), Some(expiry))
    }

    /// Removes `key` from `run`, whether it is there or not.
    pub fn kv_delete(&mut self, run: Run, user_key: impl AsRef<[u8]>) -> Result<()> {
        self.delete(run, &key(run, user_key.as_ref())?)
    }

    /// Gives `key` in `run` a value if its version is `expected`; [`Version::ZERO`] expects
    /// that it is not there.
    pub fn kv_cas(
        &mut self,
        run: Run,
        user_key: impl AsRef<[u8]>,
        expected: Version,
        value: impl Into<Value>,
    ) -> Result<()> {
        let key = key(run, user_key.as_ref())?;
        self.expect_version(run, &key, "key", user_key.as_ref(), expected)?;
        self.put(run, &key, &value.into(), None)
    }
}

impl Transaction {
    /// Refuses unless the newest version of `key` is `expected`.
    pub(crate) fn expect_version(
        &mut self,
        run: Run,
        key: &Key,
        what: &str,
        name: &[u8],
        expected: Version,
    ) -> Result<()> {
        self.check_run(run)?;
        let found = self.record(key.into())?.map_or(Version::ZERO, |record| record.version());
        if found == expected {
            return Ok(());
        }
        let say = |version: Version| match version {
            Version::ZERO => "absent".to_owned(),
            Version::MAX => "a value of this transaction".to_owned(),
            version => format!("version {version}"),
        };
        Err(Error::Mismatch {
            what: format!("{what} {}", name.escape_ascii()),
            expected: say(expected),
            found: say(found),
        })
    }
}

impl Database {
    /// The newest value of `key` in `run`, if there is one.
    pub fn kv_get(&self, run: Run, user_key: impl AsRef<[u8]>) -> Result<Option<VersionedValue>> {
        decode(self.kv_record(run, user_key)?)
    }

    /// The newest record of `key` in `run`: what [`Database::kv_get`] decodes, as it is
    /// stored.
    #[inline]
    pub fn kv_record(&self, run: Run, user_key: impl AsRef<[u8]>) -> Result<Option<Record>> {
        self.latest(run, key_ref(run, user_key.as_ref())?)
    }

    /// The value that `key` in `run` had at `version`.
    pub fn kv_get_at(
        &self,
        run: Run,
        key: impl AsRef<[u8]>,
        version: Version,
    ) -> Result<Option<VersionedValue>> {
        self.view_at(version)?.kv_get(run, key)
    }

    /// [`View::kv_scan`] of a view opened now.
    pub fn kv_scan(&self, run: Run, prefix: impl AsRef<[u8]>) -> Result<KvScan> {
        self.view()?.kv_scan(run, prefix)
    }

    /// [`View::kv_history`] of a view opened now.
    pub fn kv_history(
        &self,
        run: Run,
        key: impl AsRef<[u8]>,
    ) -> Result<Vec<(Version, Option<VersionedValue>)>> {
        self.view()?.kv_history(run, key)
    }

    /// [`Transaction::kv_put`] in a transaction of its own.
    pub fn kv_put(
        &self,
        run: Run,
        user_key: impl AsRef<[u8]>,
        value: impl Into<Value>,
    ) -> Result<Receipt> {
        let key = key(run, user_key.as_ref())?;
        let value = value.into();
        self.write_blind(run, |writes| writes.put(&key, &value, None))
    }

    /// [`Transaction::kv_put_expiring`] in a transaction of its own.
    pub fn kv_put_expiring(
        &self,
        run: Run,
        user_key: impl AsRef<[u8]>,
        value: impl Into<Value>,
        expiry: Timestamp,
    ) -> Result<Receipt> {
        let key = key(run, user_key.as_ref())?;
        let value = value.into();
        self.write_blind(run, |writes| writes.put(&key, &value, Some(expiry)))
    }

    /// [`Transaction::kv_delete`] in a transaction of its own.
    pub fn kv_delete(&self, run: Run, user_key: impl AsRef<[u8]>) -> Result<Receipt> {
        let key = key(run, user_key.as_ref())?;
        self.write_blind(run, |writes| writes.delete(key.as_bytes()))
    }

    /// [`Transaction::kv_cas`] in a transaction of its own.
    pub fn kv_cas(
        &self,
        run: Run,
        key: impl AsRef<[u8]>,
        expected: Version,
        value: impl Into<Value>,
    ) -> Result<Receipt> {
        let value = value.into();
        self.transaction(|tx| tx.kv_cas(run, key.as_ref(), expected, value.clone()))
            .map(|done| done.1)
    }
}
