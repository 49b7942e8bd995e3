//! The newest version of every key, by hash: what most gets need, in two cache misses.
//!
//! An entry is changed while the leaf of its key is locked, so it always is the newest record
//! of that leaf's row. Only rows that are loaded from a table come later than that, many at once,
//! while the table still answers for them. The hash is seeded at random, so that no one can choose
//! keys that collide.

use std::hash::BuildHasher;
use std::hint::black_box;
use std::sync::RwLock;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use steadfast_core::{KeyRef, Record, Version};

use crate::leaf::allocated;
use crate::lock;

/// A power of two. Enough that a reader seldom meets the one writer in a shard, and that
/// doubling one table takes milliseconds at worst.
const SHARDS: usize = 256;

/// Changes whose places are asked for at once, before they are made one by one.
const WARMED: usize = 16;

/// The hash of newest records.
pub(crate) struct Points {
    shards: Box<[Shard; SHARDS]>,
    hasher: RandomState,
}

/// On a cache line of its own: readers of one shard do not disturb those of another.
#[repr(align(64))]
#[derive(Default)]
struct Shard(RwLock<HashTable<Record>>);

/// What is to become of the entry of a record's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The record is the first of its key.
    Add,
    /// It is the newest of its key.
    Set,
    /// It was the newest of its key when it came in, and the hash may know a newer one by now.
    Late,
    /// The key is gone.
    Remove,
}

/// What the hash knows of a key.
pub(crate) enum Probe {
    /// There is no version of it.
    Absent,
    /// This is what a reader at the wanted version sees.
    Found(Record),
    /// Its newest version is above the wanted one: the leaf has the older ones.
    Newer,
}

/// A hash, the record with the key, and what is to become of its entry.
type KeyChange = (u64, Record, Change);

/// Changes that are made together, so that a shard is locked once for all of its own.
#[derive(Default)]
pub(crate) struct Changes {
    list: Vec<KeyChange>,
    /// The same by shard; kept for its room.
    by_shard: Vec<Option<KeyChange>>,
}

impl Changes {
    /// Notes one. Those of a key are made in the order in which they were noted.
    #[inline]
    pub(crate) fn push(&mut self, hash: u64, record: Record, change: Change) {
        self.list.push((hash, record, change));
    }

    /// Takes all of another list's, to be made after its own.
    pub(crate) fn append(&mut self, other: &mut Self) {
        self.list.append(&mut other.list);
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// The records, in the order in which they were noted.
    #[cfg(test)]
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.list.iter().map(|(_, record, _)| record)
    }

    /// Puts the list in order and empties it: counted, then placed, for there are few shards.
    /// Returns the shards that have any, each with its own.
    fn sort(&mut self) -> impl Iterator<Item = (usize, &mut [Option<KeyChange>])> {
        let mut next = [0; SHARDS];
        for (hash, ..) in &self.list {
            next[shard_of(*hash)] += 1;
        }
        let counts = next;
        let mut before = 0;
        for (next, count) in next.iter_mut().zip(counts) {
            *next = before;
            before += count;
        }
        self.by_shard.clear();
        self.by_shard.resize_with(before, || None);
        for change in self.list.drain(..) {
            let at = &mut next[shard_of(change.0)];
            self.by_shard[*at] = Some(change);
            *at += 1;
        }
        let mut rest = &mut self.by_shard[..];
        counts.into_iter().enumerate().filter(|(_, count)| *count > 0).map(move |(shard, count)| {
            let own = rest.split_off_mut(..count).expect("all were counted");
            (shard, own)
        })
    }
}

impl Points {
    /// Without entries.
    pub(crate) fn new() -> Self {
        let shards = Box::new(std::array::from_fn(|_| Shard::default()));
        Self { shards, hasher: RandomState::default() }
    }

    #[inline(always)]
    pub(crate) fn hash<'a>(&self, key: impl Into<KeyRef<'a>>) -> u64 {
        self.hasher.hash_one(key.into())
    }

    #[inline]
    fn shard(&self, hash: u64) -> &RwLock<HashTable<Record>> {
        &self.shards[shard_of(hash)].0
    }

    /// What a reader sees whose version `at` tells, asked for under the lock.
    #[inline(always)]
    pub(crate) fn probe(&self, key: KeyRef<'_>, at: impl FnOnce() -> Version) -> Probe {
        let hash = self.hash(key);
        let table = lock::read(self.shard(hash));
        match table.find(hash, |record| key.is(record.key())) {
            None => Probe::Absent,
            Some(record) if record.version() <= at() => Probe::Found(record.clone()),
            Some(_) => Probe::Newer,
        }
    }

    /// Makes `record` the newest of its key.
    pub(crate) fn set(&self, record: &Record) {
        let hash = self.hash(record.key());
        let mut table = lock::write(self.shard(hash));
        let same_key = |other: &Record| other.key() == record.key();
        match table.entry(hash, same_key, |other| self.hash(other.key())) {
            Entry::Occupied(mut entry) => {
                let replaced = std::mem::replace(entry.get_mut(), record.clone());
                drop(table);
                drop(replaced);
            }
            Entry::Vacant(entry) => {
                entry.insert(record.clone());
            }
        }
    }

    /// Adds the first record of a key that is known not to be there.
    pub(crate) fn add(&self, record: &Record) {
        let hash = self.hash(record.key());
        let mut table = lock::write(self.shard(hash));
        table.insert_unique(hash, record.clone(), |other| self.hash(other.key()));
    }

    /// Forgets a key.
    pub(crate) fn remove(&self, key: &[u8]) {
        let hash = self.hash(key);
        let mut table = lock::write(self.shard(hash));
        if let Ok(entry) = table.find_entry(hash, |record| record.key() == key) {
            drop(entry.remove());
        }
        if table.len() < table.capacity() / 8 {
            let room = table.len() * 2;
            table.shrink_to(room, |other| self.hash(other.key()));
        }
    }

    /// Makes many changes, those of one key in their order, and empties the list.
    pub(crate) fn change_all(&self, changes: &mut Changes) {
        let shards = changes.sort();
        let entry_hash = |other: &Record| self.hash(other.key());
        for (shard, of_shard) in shards {
            let mut table = lock::write(&self.shards[shard].0);
            for place in 0..of_shard.len() {
                if place % WARMED == 0 {
                    let next = of_shard[place..].iter().take(WARMED).flatten();
                    black_box(next.filter(|next| table.find(next.0, |_| false).is_some()).count());
                }
                let Some((hash, record, change)) = of_shard[place].take() else { continue };
                let same_key = |other: &Record| other.key() == record.key();
                match change {
                    Change::Add => {
                        table.insert_unique(hash, record, entry_hash);
                    }
                    Change::Set | Change::Late => match table.entry(hash, same_key, entry_hash) {
                        Entry::Vacant(entry) => drop(entry.insert(record)),
                        Entry::Occupied(mut entry) => {
                            if change == Change::Set || entry.get().version() < record.version() {
                                *entry.get_mut() = record;
                            }
                        }
                    },
                    Change::Remove => {
                        let entry = table.find_entry(hash, same_key);
                        entry.expect("the leaf knew the key").remove();
                    }
                }
            }
        }
    }

    /// Makes room for `additional` more keys, where they would make a table grow more than
    /// once.
    pub(crate) fn reserve(&self, additional: usize) {
        let each = additional / SHARDS;
        for shard in &*self.shards {
            let mut table = lock::write(&shard.0);
            if table.len() < each {
                table.reserve(each + each / 8, |other| self.hash(other.key()));
            }
        }
    }

    /// Makes room for `total` keys in one step, as long as there are few yet: growing later
    /// means asking each record for its key again.
    pub(crate) fn expect(&self, total: usize) {
        let each = total / SHARDS + total / SHARDS / 8;
        for shard in &*self.shards {
            if lock::read(&shard.0).capacity() < each {
                let mut table = lock::write(&shard.0);
                let more = each.saturating_sub(table.len());
                table.reserve(more, |other| self.hash(other.key()));
            }
        }
    }

    /// How many keys it has.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock::read(&shard.0).len()).sum()
    }

    /// Bytes on the heap, those of the records left out.
    pub(crate) fn heap_bytes(&self) -> usize {
        let tables =
            self.shards.iter().map(|shard| allocated(lock::read(&shard.0).allocation_size()));
        tables.sum::<usize>() + SHARDS * size_of::<Shard>()
    }
}

/// The shard of a hash, by bits that the table inside does not use.
#[inline]
fn shard_of(hash: u64) -> usize {
    usize::from(hash.to_le_bytes()[5])
}
