//! Searching sorted keys without reading them: eight bytes of each, side by side.
//!
//! A head is the first eight bytes of a key after the prefix that all keys of the list
//! share, as a big-endian number, so that heads order as keys do. Equal heads say nothing,
//! and the keys themselves, which live elsewhere, are asked.

use std::cmp::Ordering;

/// The heads of a sorted list of keys. The list's owner passes in a way to read a key.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    prefix: Box<[u8]>,
    heads: Vec<u64>,
}

/// The first eight bytes of `bytes` as a number that orders as they do, zeros where it is
/// shorter.
#[inline]
pub(crate) fn head_of(bytes: &[u8]) -> u64 {
    if let Some(head) = bytes.first_chunk() {
        return u64::from_be_bytes(*head);
    }
    let mut head = [0; 8];
    head[..bytes.len()].copy_from_slice(bytes);
    u64::from_be_bytes(head)
}

/// How many bytes `a` and `b` begin with alike.
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Heads {
    /// Of `len` sorted keys.
    pub(crate) fn new<'a>(len: usize, key_at: impl Fn(usize) -> &'a [u8]) -> Self {
        let mut heads = Self::default();
        if len > 0 {
            let (first, last) = (key_at(0), key_at(len - 1));
            heads.prefix = first[..common_prefix(first, last)].into();
            heads.heads.reserve_exact(len);
            heads.heads.extend((0..len).map(|i| head_of(&key_at(i)[heads.prefix.len()..])));
        }
        heads
    }

    /// The index of `key`, or where it would go.
    #[inline]
    pub(crate) fn search<'a>(
        &self,
        key: &[u8],
        key_at: impl Fn(usize) -> &'a [u8],
    ) -> Result<usize, usize> {
        let shared = self.prefix.len().min(key.len());
        match key[..shared].cmp(&self.prefix[..shared]) {
            Ordering::Less => return Err(0),
            Ordering::Greater => return Err(self.heads.len()),
            Ordering::Equal if key.len() < self.prefix.len() => return Err(0),
            Ordering::Equal => {}
        }
        let head = head_of(&key[shared..]);
        let first = rank(&self.heads, head);
        let mut alike = 0..self.heads[first..].partition_point(|other| *other == head);
        while !alike.is_empty() {
            let middle = alike.start + alike.len() / 2;
            match key_at(first + middle).cmp(key) {
                Ordering::Less => alike.start = middle + 1,
                Ordering::Greater => alike.end = middle,
                Ordering::Equal => return Ok(first + middle),
            }
        }
        Err(first + alike.start)
    }

    /// Adds the head of `key`, which is to become key number `index`; `key_at` reads the
    /// keys as they are before that.
    pub(crate) fn insert<'a>(
        &mut self,
        index: usize,
        key: &[u8],
        key_at: impl Fn(usize) -> &'a [u8],
    ) {
        if self.heads.is_empty() {
            self.prefix = key.into();
        } else if !key.starts_with(&self.prefix) {
            self.prefix = self.prefix[..common_prefix(&self.prefix, key)].into();
            for (i, head) in self.heads.iter_mut().enumerate() {
                *head = head_of(&key_at(i)[self.prefix.len()..]);
            }
        }
        self.heads.insert(index, head_of(&key[self.prefix.len()..]));
    }

    /// Moves the heads from number `index` on into a list of their own. Returns `None` if keys
    /// have to be read to tell neighbours apart as well as they could be.
    pub(crate) fn split_off(&mut self, index: usize) -> Option<Self> {
        if self.heads.windows(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        Some(Self { prefix: self.prefix.clone(), heads: self.heads.split_off(index) })
    }

    /// Forgets key number `index`.
    pub(crate) fn remove(&mut self, index: usize) {
        self.heads.remove(index);
    }

    /// Makes room for exactly `len` heads, if there is less.
    pub(crate) fn reserve_total(&mut self, len: usize) {
        self.heads.reserve_exact(len - self.heads.len());
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.prefix.len() + self.heads.capacity() * size_of::<u64>()
    }
}

/// How many of `heads` are below `head`.
///
/// A binary search waits for one cache line after the other. Here the last steps of it are
/// loads that do not wait for each other: one of each line, then one line.
#[inline]
fn rank(heads: &[u64], head: u64) -> usize {
    const LINE: usize = 8;
    const LINES: usize = 16;
    let (mut begin, mut len) = (0, heads.len());
    while len > LINE * LINES {
        let half = len / 2;
        begin = if heads[begin + half] < head { begin + half } else { begin };
        len -= half;
    }
    let rest = &heads[begin..begin + len];
    let lines = rest.chunks_exact(LINE).filter(|line| line[LINE - 1] < head).count();
    let line = &rest[lines * LINE..(lines * LINE + LINE).min(len)];
    begin + lines * LINE + line.iter().filter(|other| **other < head).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_what_a_binary_search_over_the_keys_finds(
            keys in prop::collection::btree_set(prop::collection::vec(0u8..3, 0..14), 0..40),
            wanted in prop::collection::vec(0u8..3, 0..14),
            prefix in prop::collection::vec(any::<u8>(), 0..4),
        ) {
            let with_prefix = |key: &Vec<u8>| [prefix.clone(), key.clone()].concat();
            let keys: Vec<_> = keys.iter().map(with_prefix).collect();
            let built = Heads::new(keys.len(), |i| &keys[i]);
            let mut grown = Heads::default();
            let mut so_far: Vec<Vec<u8>> = Vec::new();
            for key in keys.iter().rev().step_by(2).chain(keys.iter().rev().skip(1).step_by(2)) {
                let index = so_far.binary_search(key).unwrap_err();
                grown.insert(index, key, |i| &so_far[i]);
                so_far.insert(index, key.clone());
            }
            for wanted in [with_prefix(&wanted), wanted] {
                let expected = keys.binary_search(&wanted);
                prop_assert_eq!(built.search(&wanted, |i| &keys[i]), expected);
                prop_assert_eq!(grown.search(&wanted, |i| &keys[i]), expected);
            }
        }
    }
}
