//! Collections: sets of byte strings by name, with membership as fast as a point read.
//!
//! An item is a row of its own, so adding items meets only who adds or removes the same item, and
//! there is no index beside the items that could differ from them. The price: how many items there
//! are is counted by a scan.

use std::iter::Peekable;

use steadfast_core::collection::{collection_key, collection_prefix, item_key, item_of};
use steadfast_core::{
    CrashPoint, Key, KeyRef, Record, TypeTag, Value, check_crash_point, prefix_end,
};

use crate::commit::Receipt;
use crate::database::Database;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::fork::moved;
use crate::runs::Run;
use crate::source::{Rows, Source};
use crate::transaction::Transaction;
use crate::view::View;

/// The items of a collection in the order of their bytes, from both ends.
pub struct CollectionItems {
    rows: Rows,
    /// Bytes in front of an item in its stored key.
    prefix: usize,
}

impl std::fmt::Debug for CollectionItems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CollectionItems")
    }
}

impl CollectionItems {
    fn new(mut source: impl Source, run: Run, name: &str, prefix: &[u8]) -> Result<Self> {
        source.check_run(run)?;
        let mut start = collection_prefix(run.namespace, name)?;
        let end = prefix_end(&[start.as_slice(), prefix].concat());
        let prefix_len = start.len();
        match prefix {
            // Behind the row of the collection itself.
            [] => start.push(0),
            prefix => start.extend_from_slice(prefix),
        }
        Ok(Self { rows: source.rows(start, end), prefix: prefix_len })
    }

    fn item(&self, row: Result<Record>) -> Result<Vec<u8>> {
        let record = row?;
        let item = record.key().get(self.prefix..);
        item.map(<[u8]>::to_vec).ok_or_else(|| not_an_item(&record))
    }
}

#[cold]
pub(crate) fn not_an_item(record: &Record) -> Error {
    record.undecodable("it is of no collection").into()
}

impl Iterator for CollectionItems {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?;
        Some(self.item(row))
    }
}

impl DoubleEndedIterator for CollectionItems {
    fn next_back(&mut self) -> Option<Self::Item> {
        let row = self.rows.next_back()?;
        Some(self.item(row))
    }
}

/// Items of several collections, in the order of their bytes, each once.
#[derive(Debug)]
pub struct MergedItems {
    sides: Vec<Peekable<CollectionItems>>,
    /// Whether an item must be in every collection, or in any.
    every: bool,
}

impl MergedItems {
    fn new(sides: Vec<CollectionItems>, every: bool) -> Self {
        Self { sides: sides.into_iter().map(Iterator::peekable).collect(), every }
    }
}

impl Iterator for MergedItems {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut least: Option<Vec<u8>> = None;
            for side in &mut self.sides {
                match side.peek() {
                    Some(Err(_)) => return side.next(),
                    Some(Ok(item)) if least.as_ref().is_none_or(|least| item < least) => {
                        least = Some(item.clone());
                    }
                    None if self.every => return None,
                    _ => {}
                }
            }
            let least = least?;
            let mut found = 0;
            for side in &mut self.sides {
                let same = |item: &Result<Vec<u8>>| matches!(item, Ok(item) if *item == least);
                found += usize::from(side.next_if(same).is_some());
            }
            if !self.every || found == self.sides.len() {
                return Some(Ok(least));
            }
        }
    }
}

fn contains(mut source: impl Source, run: Run, name: &str, item: &[u8]) -> Result<bool> {
    source.check_run(run)?;
    Ok(source.record(KeyRef::from(&item_key(run.namespace, name, item)?))?.is_some())
}

/// The names of collections, by going from each to the first row behind it.
fn names(mut source: impl Source, run: Run) -> Result<Vec<String>> {
    source.check_run(run)?;
    let first = Key::first_of(run.namespace, TypeTag::Collection).as_bytes().to_vec();
    let end = prefix_end(&first);
    let (mut start, mut names) = (Some(first), Vec::new());
    while let Some(from) = start {
        let Some(row) = source.rows(from, end.clone()).next().transpose()? else { break };
        let (name, _) = item_of(row.key()).ok_or_else(|| not_an_item(&row))?;
        start = prefix_end(&collection_prefix(run.namespace, &name)?);
        names.push(name);
    }
    Ok(names)
}

macro_rules! reads {
    ($of:ty, $self:ident, $again:expr, $($mutable:tt)+) => {
        impl $of {
            /// Whether `item` is in the collection `name` of `run`.
            pub fn collection_contains(
                $($mutable)+,
                run: Run,
                name: &str,
                item: impl AsRef<[u8]>,
            ) -> Result<bool> {
                contains($again, run, name, item.as_ref())
            }

            /// Of each of `items` whether it is in the collection, in their order.
            pub fn collection_contains_each<T: AsRef<[u8]>>(
                $($mutable)+,
                run: Run,
                name: &str,
                items: impl IntoIterator<Item = T>,
            ) -> Result<Vec<bool>> {
                let items = items.into_iter();
                items.map(|item| contains($again, run, name, item.as_ref())).collect()
            }

            /// The items of the collection that begin with `prefix`, in the order of their bytes;
            /// none of a collection that is not there.
            pub fn collection_items(
                $($mutable)+,
                run: Run,
                name: &str,
                prefix: impl AsRef<[u8]>,
            ) -> Result<CollectionItems> {
                CollectionItems::new($again, run, name, prefix.as_ref())
            }

            /// How many items the collection has, counted by a scan.
            pub fn collection_len($($mutable)+, run: Run, name: &str) -> Result<u64> {
                let mut rows = CollectionItems::new($again, run, name, &[])?.rows;
                rows.try_fold(0, |count, row| row.map(|_| count + 1))
            }

            /// What is in any of these collections, each item once, in order.
            pub fn collection_union($($mutable)+, run: Run, names: &[&str]) -> Result<MergedItems> {
                let sides = names.iter().map(|name| CollectionItems::new($again, run, name, &[]));
                Ok(MergedItems::new(sides.collect::<Result<_>>()?, false))
            }

            /// What is in all of these collections, in order; of no collections, nothing.
            pub fn collection_intersection(
                $($mutable)+,
                run: Run,
                names: &[&str],
            ) -> Result<MergedItems> {
                let sides = names.iter().map(|name| CollectionItems::new($again, run, name, &[]));
                Ok(MergedItems::new(sides.collect::<Result<_>>()?, true))
            }

            /// The names of the collections of `run`: those that were created, and those that have
            /// an item.
            pub fn collections($($mutable)+, run: Run) -> Result<Vec<String>> {
                names($again, run)
            }
        }
    };
}

reads!(View, self, self, &self);
reads!(Transaction, self, &mut *self, &mut self);

impl View {
    /// Every kept version of `item` in a collection up to this view, newest first, as entries.
    pub fn collection_versions(
        &self,
        run: Run,
        name: &str,
        item: impl AsRef<[u8]>,
    ) -> Result<Vec<Entry>> {
        self.entry_versions(run, &item_key(run.namespace, name, item.as_ref())?)
    }
}

impl Transaction {
    /// Makes the collection `name` of `run`, which is there without items then. Adding an item
    /// does not need it. Returns whether it was not there; a collection that has items and was
    /// not created counts as not there.
    pub fn collection_create(&mut self, run: Run, name: &str) -> Result<bool> {
        self.put_unless_there(run, &collection_key(run.namespace, name)?)
    }

    /// Adds `item` to the collection `name` of `run`. Returns whether it was not in it; if it was,
    /// nothing is written. Conflicts only with who adds or removes the same item.
    pub fn collection_add(&mut self, run: Run, name: &str, item: impl AsRef<[u8]>) -> Result<bool> {
        self.put_unless_there(run, &item_key(run.namespace, name, item.as_ref())?)
    }

    fn put_unless_there(&mut self, run: Run, key: &Key) -> Result<bool> {
        Source::check_run(self, run)?;
        if self.record(key.into())?.is_some() {
            return Ok(false);
        }
        self.put(run, key, &Value::Null, None)?;
        check_crash_point(CrashPoint::CollectionIndexUpdate);
        Ok(true)
    }

    /// Removes `item` from the collection. Returns whether it was in it; if not, nothing is
    /// written.
    pub fn collection_remove(
        &mut self,
        run: Run,
        name: &str,
        item: impl AsRef<[u8]>,
    ) -> Result<bool> {
        let key = item_key(run.namespace, name, item.as_ref())?;
        Source::check_run(self, run)?;
        let there = self.record((&key).into())?.is_some();
        if there {
            self.delete(run, &key)?;
        }
        Ok(there)
    }

    /// Removes the collection with all its items. Returns how many rows that were, its own
    /// included if it was created. Conflicts with who adds or removes any item.
    ///
    /// # Errors
    ///
    /// Kind `Invalid` for one with more items than a transaction has writes
    /// ([`TXN_WRITES_MAX`](steadfast_core::limits::TXN_WRITES_MAX)): remove items first.
    pub fn collection_delete(&mut self, run: Run, name: &str) -> Result<u64> {
        Source::check_run(self, run)?;
        let start = collection_prefix(run.namespace, name)?;
        let end = prefix_end(&start);
        let mut count = 0;
        for row in self.rows(start, end) {
            // Of a fork it may lie beneath.
            self.delete(run, &Key::from_stored(&moved(row?.key(), run.namespace))?)?;
            count += 1;
        }
        Ok(count)
    }
}

impl Database {
    /// Whether `item` is in the collection `name` of `run`.
    pub fn collection_contains(
        &self,
        run: Run,
        name: &str,
        item: impl AsRef<[u8]>,
    ) -> Result<bool> {
        let key = item_key(run.namespace, name, item.as_ref())?;
        Ok(self.latest(run, KeyRef::from(&key))?.is_some())
    }

    /// [`View::collection_items`] of a view opened now.
    pub fn collection_items(
        &self,
        run: Run,
        name: &str,
        prefix: impl AsRef<[u8]>,
    ) -> Result<CollectionItems> {
        self.view()?.collection_items(run, name, prefix)
    }

    /// [`View::collection_len`] of a view opened now.
    pub fn collection_len(&self, run: Run, name: &str) -> Result<u64> {
        self.view()?.collection_len(run, name)
    }

    /// [`View::collections`] of a view opened now.
    pub fn collections(&self, run: Run) -> Result<Vec<String>> {
        self.view()?.collections(run)
    }

    /// [`Transaction::collection_create`] in a transaction of its own.
    pub fn collection_create(&self, run: Run, name: &str) -> Result<(bool, Receipt)> {
        self.transaction(|tx| tx.collection_create(run, name))
    }

    /// [`Transaction::collection_add`] in a transaction of its own.
    ///
    /// ```
    /// let db = steadfast_engine::Database::in_memory()?;
    /// let run = db.create_run("shop")?;
    /// let (is_new, _) = db.collection_add(run, "on sale", "item-7")?;
    /// assert!(is_new && db.collection_contains(run, "on sale", "item-7")?);
    /// assert!(!db.collection_contains(run, "on sale", "item-8")?);
    /// # Ok::<(), steadfast_engine::Error>(())
    /// ```
    pub fn collection_add(
        &self,
        run: Run,
        name: &str,
        item: impl AsRef<[u8]>,
    ) -> Result<(bool, Receipt)> {
        self.transaction(|tx| tx.collection_add(run, name, item.as_ref()))
    }

    /// [`Transaction::collection_remove`] in a transaction of its own.
    pub fn collection_remove(
        &self,
        run: Run,
        name: &str,
        item: impl AsRef<[u8]>,
    ) -> Result<(bool, Receipt)> {
        self.transaction(|tx| tx.collection_remove(run, name, item.as_ref()))
    }

    /// [`Transaction::collection_delete`] in a transaction of its own.
    pub fn collection_delete(&self, run: Run, name: &str) -> Result<(u64, Receipt)> {
        self.transaction(|tx| tx.collection_delete(run, name))
    }
}
