//! The ordered index: which leaf holds which keys.
//!
//! Three levels: an immutable list of regions that is replaced as a whole, regions of up to
//! [`REGION_LEAVES_MAX`] leaves, leaves of rows. Finding a leaf takes no lock that all readers
//! share: the list is read without one, regions and leaves have one each. Whoever has found a
//! leaf holds its region for reading, so leaves neither split nor move beneath it; splitting
//! holds the region for writing. A reader that comes to a region by an outdated list finds it
//! retired and looks again.

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use crate::heads::Heads;
use crate::leaf::{LEAF_ROWS_MAX, Leaf, allocated};
use crate::lock;
use crate::region::{Leaves, REGION_LEAVES_MAX, Region};

/// The ordered index.
pub(crate) struct Directory {
    regions: ArcSwap<Regions>,
    /// Held while the list of regions is replaced.
    growth: Mutex<()>,
}

struct Regions {
    /// Of the low ends of all regions but the first.
    heads: Heads,
    regions: Vec<Arc<Region>>,
}

/// Where to look for rows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seek<'a> {
    /// In the first leaf.
    First,
    /// In the leaf with this key in its range.
    At(&'a [u8]),
    /// In the leaf with the keys right below this one in its range.
    Below(&'a [u8]),
    /// In the last leaf.
    Last,
}

/// A leaf, and the range of keys that it is responsible for.
pub(crate) struct Found<'a> {
    pub leaf: &'a Leaf,
    /// Its first possible key.
    pub low: &'a [u8],
    /// The first possible key of the next leaf, if there is one.
    pub high: Option<&'a [u8]>,
}

impl Directory {
    /// Without rows.
    pub(crate) fn new() -> Self {
        let regions = Regions::new(vec![Region::of_everything()]);
        Self { regions: ArcSwap::from_pointee(regions), growth: Mutex::new(()) }
    }

    /// Calls `look` with a leaf, locked for reading.
    #[inline]
    pub(crate) fn read<T>(&self, seek: Seek<'_>, look: impl FnOnce(Found<'_>) -> T) -> T {
        loop {
            let regions = self.regions.load();
            let region = regions.find(seek);
            let leaves = lock::read(&region.leaves);
            if leaves.retired {
                continue;
            }
            let index = match seek {
                Seek::First => 0,
                Seek::At(key) => leaves.locate(key),
                Seek::Below(key) => leaves.locate_below(key),
                Seek::Last => leaves.len() - 1,
            };
            let (low, high) = (region.low_of(&leaves, index), region.high_of(&leaves, index));
            return look(Found { leaf: &lock::read(leaves.leaf(index)), low, high });
        }
    }

    /// Calls `change` with the leaf for `key`, locked for writing, which has room for a row
    /// more.
    #[inline]
    pub(crate) fn write<T>(&self, key: &[u8], change: impl FnOnce(&mut Leaf) -> T) -> T {
        loop {
            let regions = self.regions.load();
            let region = regions.find(Seek::At(key));
            let leaves = lock::read(&region.leaves);
            if leaves.retired {
                continue;
            }
            let index = leaves.locate(key);
            let mut leaf = lock::write(leaves.leaf(index));
            if leaf.len() < LEAF_ROWS_MAX {
                return change(&mut leaf);
            }
            drop(leaf);
            drop(leaves);
            self.rebuild(key, |leaves, _| {
                let index = leaves.locate(key);
                if leaves.leaf_mut(index).len() >= LEAF_ROWS_MAX {
                    leaves.split(index);
                }
            });
        }
    }

    /// Calls `change` with the leaf for `key`, locked for writing, to take rows away; joins
    /// the leaf with a neighbour if few are left.
    pub(crate) fn thin<T>(&self, key: &[u8], change: impl FnOnce(&mut Leaf) -> T) -> T {
        loop {
            let regions = self.regions.load();
            let region = regions.find(Seek::At(key));
            let leaves = lock::read(&region.leaves);
            if leaves.retired {
                continue;
            }
            let mut leaf = lock::write(leaves.leaf(leaves.locate(key)));
            let before = leaf.len();
            let out = change(&mut leaf);
            // Tried once on the way down, and when nothing is left: neighbours may be full.
            let small = before != leaf.len() && [0, LEAF_ROWS_MAX / 4].contains(&leaf.len());
            drop(leaf);
            let alone = leaves.len() == 1 && region.low.is_empty() && region.high.is_none();
            drop(leaves);
            if small && !alone {
                self.join_leaves(key);
            }
            return out;
        }
    }

    fn join_leaves(&self, key: &[u8]) {
        let small = self.rebuild(key, |leaves, _| {
            let index = leaves.locate(key);
            leaves.join_if_small(index);
            leaves.len() == REGION_LEAVES_MAX / 4 || leaves.is_empty()
        });
        if small {
            self.join_regions(key);
        }
    }

    /// Calls `change` with the region for `key`, locked for writing, and the first key after
    /// its range. Splits the region afterwards, if it has too many leaves.
    pub(crate) fn rebuild<T>(
        &self,
        key: &[u8],
        change: impl FnOnce(&mut Leaves, Option<&[u8]>) -> T,
    ) -> T {
        loop {
            let regions = self.regions.load();
            let region = regions.find(Seek::At(key));
            let mut leaves = lock::write(&region.leaves);
            if leaves.retired {
                continue;
            }
            let out = change(&mut leaves, region.high.as_deref());
            let full = leaves.len() > REGION_LEAVES_MAX;
            drop(leaves);
            if full {
                self.split_region(key);
            }
            return out;
        }
    }

    fn split_region(&self, key: &[u8]) {
        let _growth = lock::lock(&self.growth);
        let old = self.regions.load();
        let index = old.index(Seek::At(key));
        let region = &old.regions[index];
        let mut leaves = lock::write(&region.leaves);
        if leaves.len() <= REGION_LEAVES_MAX {
            return;
        }
        let parts = leaves.retire(REGION_LEAVES_MAX * 3 / 4);
        let mut lows: Vec<Arc<[u8]>> = parts.iter().map(|(low, _)| Arc::from(&**low)).collect();
        lows[0] = Arc::clone(&region.low);
        let highs = lows.iter().skip(1).cloned().map(Some).chain([region.high.clone()]);
        let new: Vec<_> = parts
            .into_iter()
            .zip(lows.iter().cloned().zip(highs.collect::<Vec<_>>()))
            .map(|((_, leaves), (low, high))| Region::new(low, high, leaves))
            .collect();
        let mut regions = old.regions.clone();
        regions.splice(index..=index, new);
        self.regions.store(Arc::new(Regions::new(regions)));
    }

    /// Joins the region for `key` with a neighbour, if both together are not too large.
    fn join_regions(&self, key: &[u8]) {
        let _growth = lock::lock(&self.growth);
        let old = self.regions.load();
        let index = old.index(Seek::At(key));
        for left in [Some(index), index.checked_sub(1)].into_iter().flatten() {
            let Some([a, b]) = old.regions.get(left..left + 2) else { continue };
            let (mut a_leaves, mut b_leaves) = (lock::write(&a.leaves), lock::write(&b.leaves));
            if a_leaves.len() + b_leaves.len() > REGION_LEAVES_MAX {
                continue;
            }
            let mut parts = a_leaves.retire(usize::MAX);
            let (_, mut joined) = parts.pop().expect("a region has a leaf");
            let (_, right) = b_leaves.retire(usize::MAX).pop().expect("a region has a leaf");
            joined.append(&b.low, right);
            if joined.leaf_mut(0).len() == 0 {
                joined.join_if_small(0);
            }
            let region = Region::new(Arc::clone(&a.low), b.high.clone(), joined);
            let mut regions = old.regions.clone();
            regions.splice(left..left + 2, [region]);
            self.regions.store(Arc::new(Regions::new(regions)));
            return;
        }
    }

    /// Calls `look` with every leaf, one after the other. Returns bytes of the directory
    /// itself, those of the leaves left out.
    pub(crate) fn for_each_leaf(&self, mut look: impl FnMut(&Leaf)) -> usize {
        let regions = self.regions.load();
        let mut bytes = allocated(regions.heads.heap_bytes());
        for region in &regions.regions {
            let leaves = lock::read(&region.leaves);
            for index in 0..leaves.len() {
                look(&lock::read(leaves.leaf(index)));
            }
            bytes += leaves.heap_bytes() + allocated(size_of::<Region>() + region.low.len());
        }
        bytes
    }
}

impl Regions {
    fn new(regions: Vec<Arc<Region>>) -> Self {
        let heads = Heads::new(regions.len() - 1, |i| &regions[i + 1].low);
        Self { heads, regions }
    }

    #[inline]
    fn index(&self, seek: Seek<'_>) -> usize {
        match seek {
            Seek::First => 0,
            Seek::At(key) => self.search(key).map_or_else(|at| at, |at| at + 1),
            Seek::Below(key) => self.search(key).unwrap_or_else(|at| at),
            Seek::Last => self.regions.len() - 1,
        }
    }

    #[inline]
    fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.heads.search(key, |i| &self.regions[i + 1].low)
    }

    #[inline]
    fn find(&self, seek: Seek<'_>) -> &Region {
        &self.regions[self.index(seek)]
    }
}
