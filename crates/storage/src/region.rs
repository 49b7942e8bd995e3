//! A few hundred neighbouring leaves and the keys that separate them.
//!
//! A region's range of keys never changes: when leaves have to move from one region to
//! another, both are retired and new ones take their place in the directory.

use std::sync::{Arc, RwLock};

use crate::heads::{Heads, common_prefix};
use crate::leaf::{LEAF_ROWS_MAX, Leaf, allocated};
use crate::lock;

/// Most leaves of a region. Splitting a leaf moves the pointers of a region; splitting a
/// region moves those of the directory: about the square root of a large store's leaves.
pub(crate) const REGION_LEAVES_MAX: usize = if cfg!(test) { 8 } else { 512 };

/// A range of keys and its leaves.
pub(crate) struct Region {
    /// The first key it may hold.
    pub low: Arc<[u8]>,
    /// The first key after it that it may not hold; `None` if it is the last one.
    pub high: Option<Arc<[u8]>>,
    pub leaves: RwLock<Leaves>,
}

/// Boxed, so that making room for a leaf moves pointers.
type LeafBox = Box<RwLock<Leaf>>;

/// The leaves of a region.
#[derive(Default)]
pub(crate) struct Leaves {
    /// Of `lows`.
    heads: Heads,
    /// The first key of each leaf but the first, whose low end is the region's.
    lows: Vec<Box<[u8]>>,
    leaves: Vec<LeafBox>,
    /// Whether other regions have taken this one's place.
    pub retired: bool,
}

impl Region {
    /// Of leaves, and the keys that separate them.
    pub(crate) fn new(low: Arc<[u8]>, high: Option<Arc<[u8]>>, leaves: Leaves) -> Arc<Self> {
        Arc::new(Self { low, high, leaves: RwLock::new(leaves) })
    }

    /// One empty leaf for every key there is.
    pub(crate) fn of_everything() -> Arc<Self> {
        Self::new([].into(), None, Leaves::new(Vec::new(), vec![Box::default()]))
    }

    /// Where the range of leaf number `index` begins.
    pub(crate) fn low_of<'a>(&'a self, leaves: &'a Leaves, index: usize) -> &'a [u8] {
        index.checked_sub(1).map_or(&self.low, |before| &leaves.lows[before])
    }

    /// Where the range of leaf number `index` ends.
    pub(crate) fn high_of<'a>(&'a self, leaves: &'a Leaves, index: usize) -> Option<&'a [u8]> {
        leaves.end_of(index).or(self.high.as_deref())
    }
}

impl Leaves {
    fn new(lows: Vec<Box<[u8]>>, leaves: Vec<LeafBox>) -> Self {
        let heads = Heads::new(lows.len(), |i| &lows[i]);
        Self { heads, lows, leaves, retired: false }
    }

    pub(crate) fn len(&self) -> usize {
        self.leaves.len()
    }

    /// The leaf with `key` in its range.
    #[inline]
    pub(crate) fn locate(&self, key: &[u8]) -> usize {
        self.heads.search(key, |i| &self.lows[i]).map_or_else(|at| at, |at| at + 1)
    }

    /// The leaf with the keys right below `key` in its range.
    pub(crate) fn locate_below(&self, key: &[u8]) -> usize {
        self.heads.search(key, |i| &self.lows[i]).unwrap_or_else(|at| at)
    }

    /// Where the range of leaf number `index` ends, if another leaf of the region follows.
    pub(crate) fn end_of(&self, index: usize) -> Option<&[u8]> {
        self.lows.get(index).map(AsRef::as_ref)
    }

    #[inline]
    pub(crate) fn leaf(&self, index: usize) -> &RwLock<Leaf> {
        &self.leaves[index]
    }

    pub(crate) fn leaf_mut(&mut self, index: usize) -> &mut Leaf {
        lock::inside(&mut self.leaves[index])
    }

    /// Splits leaf number `index`, which has two rows at least, in two.
    pub(crate) fn split(&mut self, index: usize) {
        let leaf = self.leaf_mut(index);
        let upper = leaf.split();
        let low = separator(leaf, &upper);
        self.insert_leaf(index + 1, low, upper);
    }

    /// Puts `leaves`, at least one, in the place of leaf number `index`.
    pub(crate) fn replace(&mut self, index: usize, leaves: Vec<Leaf>) {
        let mut leaves = leaves.into_iter();
        *self.leaf_mut(index) = leaves.next().expect("a range of keys has a leaf");
        if leaves.len() < 8 {
            for (i, leaf) in leaves.enumerate() {
                let low = separator(self.leaf_mut(index + i), &leaf);
                self.insert_leaf(index + i + 1, low, leaf);
            }
            return;
        }
        let mut lows = Vec::with_capacity(leaves.len());
        let mut boxed: Vec<LeafBox> = Vec::with_capacity(leaves.len());
        for leaf in leaves {
            let before = boxed.last_mut().unwrap_or(&mut self.leaves[index]);
            lows.push(separator(lock::inside(before), &leaf));
            boxed.push(Box::new(RwLock::new(leaf)));
        }
        self.lows.splice(index..index, lows);
        self.leaves.splice(index + 1..index + 1, boxed);
        self.heads = Heads::new(self.lows.len(), |i| &self.lows[i]);
    }

    fn insert_leaf(&mut self, index: usize, low: Box<[u8]>, leaf: Leaf) {
        self.heads.insert(index - 1, &low, |i| &self.lows[i]);
        self.lows.insert(index - 1, low);
        self.leaves.insert(index, Box::new(RwLock::new(leaf)));
    }

    /// Joins leaf number `index` with a neighbour, if both together leave room for more.
    pub(crate) fn join_if_small(&mut self, index: usize) {
        let rows = self.leaf_mut(index).len();
        for left in [Some(index), index.checked_sub(1)].into_iter().flatten() {
            if left + 1 >= self.len() {
                continue;
            }
            let both = self.leaf_mut(left).len() + self.leaf_mut(left + 1).len();
            if rows == 0 || both <= LEAF_ROWS_MAX * 3 / 4 {
                self.heads.remove(left);
                self.lows.remove(left);
                let mut right = self.leaves.remove(left + 1);
                let right = std::mem::take(lock::inside(&mut right));
                let leaf = self.leaf_mut(left);
                if leaf.len() == 0 {
                    *leaf = right;
                } else if right.len() > 0 {
                    let mut rows = std::mem::take(leaf).into_rows();
                    rows.extend(right.into_rows());
                    *leaf = Leaf::from_rows(rows.into_iter());
                }
                return;
            }
        }
    }

    /// Whether it is one leaf with nothing in it.
    pub(crate) fn is_empty(&mut self) -> bool {
        self.len() == 1 && self.leaf_mut(0).len() == 0
    }

    /// Takes its leaves out, in parts of at most `leaves_max`, each with the key that its
    /// range begins with (the first one's is empty, for it is the region's). What remains is
    /// retired.
    pub(crate) fn retire(&mut self, leaves_max: usize) -> Vec<(Box<[u8]>, Self)> {
        let mut lows = std::mem::take(&mut self.lows).into_iter();
        let mut leaves = std::mem::take(&mut self.leaves).into_iter();
        *self = Self { retired: true, ..Self::default() };
        let parts = leaves.len().div_ceil(leaves_max);
        let size = leaves.len().div_ceil(parts.max(1));
        let mut out = Vec::with_capacity(parts);
        while leaves.len() > 0 {
            let low = if out.is_empty() { Box::default() } else { lows.next().unwrap_or_default() };
            let part: Vec<_> = leaves.by_ref().take(size).collect();
            let lows = lows.by_ref().take(part.len() - 1).collect();
            out.push((low, Self::new(lows, part)));
        }
        out
    }

    /// Adds the leaves of the region to the right, whose range begins at `low`.
    pub(crate) fn append(&mut self, low: &[u8], mut right: Self) {
        self.lows.push(low.into());
        self.lows.append(&mut right.lows);
        self.leaves.append(&mut right.leaves);
        self.heads = Heads::new(self.lows.len(), |i| &self.lows[i]);
    }

    /// Bytes on the heap, those of the leaves left out.
    pub(crate) fn heap_bytes(&self) -> usize {
        let per_leaf = allocated(size_of::<RwLock<Leaf>>());
        allocated(self.heads.heap_bytes())
            + allocated(self.lows.capacity() * size_of::<Box<[u8]>>())
            + self.lows.iter().map(|low| allocated(low.len())).sum::<usize>()
            + allocated(self.leaves.capacity() * size_of::<usize>())
            + self.leaves.len() * per_leaf
    }
}

/// The shortest key above every key of `left` and not above any of `right`.
fn separator(left: &Leaf, right: &Leaf) -> Box<[u8]> {
    let first = right.newest().first().expect("a new leaf has rows").key();
    let last = left.newest().last().map_or(&[][..], |record| record.key());
    first[..(common_prefix(last, first) + 1).min(first.len())].into()
}
