//! Attributes of entities: a small map each, that cohorts are predicates over.

use steadfast_core::cohort::{Attributes, check_attributes};
use steadfast_core::{Key, KeyRef, Record, TypeTag, Value, prefix_end};

use crate::commit::Receipt;
use crate::database::Database;
use crate::entry::Entry;
use crate::error::Result;
use crate::runs::Run;
use crate::source::{Rows, Source};
use crate::transaction::Transaction;
use crate::view::View;

fn key(run: Run, entity: &[u8]) -> Result<Key> {
    Ok(Key::new(run.namespace, TypeTag::Attributes, entity)?)
}

pub(crate) fn decode(record: &Record) -> Result<Attributes> {
    match record.value()? {
        Value::Map(attributes) => Ok(attributes),
        _ => Err(record.undecodable("it is no map of attributes").into()),
    }
}

pub(crate) fn read(
    source: &mut impl Source,
    run: Run,
    entity: &[u8],
) -> Result<Option<Attributes>> {
    source.check_run(run)?;
    let record = source.record(KeyRef::from(&key(run, entity)?))?;
    record.map(|record| decode(&record)).transpose()
}

/// Entities and their attributes, in the order of entities, from both ends.
pub struct Entities(Rows);

impl std::fmt::Debug for Entities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entities")
    }
}

impl Entities {
    pub(crate) fn new(mut source: impl Source, run: Run, prefix: &[u8]) -> Result<Self> {
        source.check_run(run)?;
        let mut start = Key::first_of(run.namespace, TypeTag::Attributes).as_bytes().to_vec();
        start.extend_from_slice(prefix);
        let end = prefix_end(&start);
        Ok(Self(source.rows(start, end)))
    }

    fn item(row: Result<Record>) -> Result<(Vec<u8>, Attributes)> {
        let record = row?;
        Ok((Key::user_part(record.key()).to_vec(), decode(&record)?))
    }
}

impl Iterator for Entities {
    type Item = Result<(Vec<u8>, Attributes)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Self::item)
    }
}

impl DoubleEndedIterator for Entities {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back().map(Self::item)
    }
}

impl View {
    /// The attributes of `entity` in `run`, if it has any record of them.
    pub fn attributes(&self, run: Run, entity: impl AsRef<[u8]>) -> Result<Option<Attributes>> {
        let mut source = self;
        read(&mut source, run, entity.as_ref())
    }

    /// The entities of `run` that have attributes and begin with `prefix`.
    pub fn attributes_scan(&self, run: Run, prefix: impl AsRef<[u8]>) -> Result<Entities> {
        Entities::new(self, run, prefix.as_ref())
    }

    /// Every kept version of the attributes of `entity` up to this view, newest first, as
    /// entries.
    pub fn attributes_versions(&self, run: Run, entity: impl AsRef<[u8]>) -> Result<Vec<Entry>> {
        self.entry_versions(run, &key(run, entity.as_ref())?)
    }
}

impl Transaction {
    /// The attributes of `entity` in `run` as this transaction sees them.
    pub fn attributes(&mut self, run: Run, entity: impl AsRef<[u8]>) -> Result<Option<Attributes>> {
        read(&mut &mut *self, run, entity.as_ref())
    }

    /// The entities of `run` that have attributes and begin with `prefix`, as this transaction
    /// sees them now.
    pub fn attributes_scan(&mut self, run: Run, prefix: impl AsRef<[u8]>) -> Result<Entities> {
        Entities::new(self, run, prefix.as_ref())
    }

    /// Gives `entity` these attributes, in the place of all that it had.
    ///
    /// # Errors
    ///
    /// Kind `Invalid` for more than [`ATTRIBUTES_MAX`](steadfast_core::limits::ATTRIBUTES_MAX)
    /// attributes, or [`ATTRIBUTES_BYTES_MAX`](steadfast_core::limits::ATTRIBUTES_BYTES_MAX)
    /// bytes of them.
    pub fn attributes_set(
        &mut self,
        run: Run,
        entity: impl AsRef<[u8]>,
        attributes: Attributes,
    ) -> Result<()> {
        check_attributes(&attributes)?;
        self.put(run, &key(run, entity.as_ref())?, &Value::Map(attributes), None)
    }

    /// Gives one attribute of `entity` a value, and leaves the others as they are.
    ///
    /// # Errors
    ///
    /// As [`Transaction::attributes_set`].
    pub fn attribute_set(
        &mut self,
        run: Run,
        entity: impl AsRef<[u8]>,
        name: &str,
        value: impl Into<Value>,
    ) -> Result<()> {
        let entity = entity.as_ref();
        let mut attributes = self.attributes(run, entity)?.unwrap_or_default();
        attributes.insert(name.to_owned(), value.into());
        self.attributes_set(run, entity, attributes)
    }

    /// Removes the attributes of `entity`, whether it has any or not. It is in no cohort then.
    pub fn attributes_delete(&mut self, run: Run, entity: impl AsRef<[u8]>) -> Result<()> {
        self.delete(run, &key(run, entity.as_ref())?)
    }
}

impl Database {
    /// The attributes of `entity` in `run`, if it has any record of them.
    pub fn attributes(&self, run: Run, entity: impl AsRef<[u8]>) -> Result<Option<Attributes>> {
        let record = self.latest(run, KeyRef::from(&key(run, entity.as_ref())?))?;
        record.map(|record| decode(&record)).transpose()
    }

    /// [`Transaction::attributes_set`] in a transaction of its own.
    pub fn attributes_set(
        &self,
        run: Run,
        entity: impl AsRef<[u8]>,
        attributes: Attributes,
    ) -> Result<Receipt> {
        check_attributes(&attributes)?;
        let (key, value) = (key(run, entity.as_ref())?, Value::Map(attributes));
        self.write_blind(run, |writes| writes.put(&key, &value, None))
    }

    /// [`Transaction::attribute_set`] in a transaction of its own.
    pub fn attribute_set(
        &self,
        run: Run,
        entity: impl AsRef<[u8]>,
        name: &str,
        value: impl Into<Value>,
    ) -> Result<Receipt> {
        let value = value.into();
        self.transaction(|tx| tx.attribute_set(run, entity.as_ref(), name, value.clone()))
            .map(|done| done.1)
    }

    /// [`Transaction::attributes_delete`] in a transaction of its own.
    pub fn attributes_delete(&self, run: Run, entity: impl AsRef<[u8]>) -> Result<Receipt> {
        let key = key(run, entity.as_ref())?;
        self.write_blind(run, |writes| writes.delete(key.as_bytes()))
    }
}
