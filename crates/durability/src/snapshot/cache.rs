//! Blocks that were read of late, shared by all readers of a snapshot.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::block::Block;

/// Bytes of blocks kept for one snapshot.
const CACHE_BYTES: usize = 16 << 20;

/// Parts of the cache with a lock each, so that readers seldom meet.
const SHARDS: usize = 16;

/// Blocks by their offset. When a part is full, the block goes that came first, unless it was
/// used since: then it gets another turn.
#[derive(Debug, Default)]
pub(super) struct BlockCache {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    blocks: HashMap<u64, Entry>,
    turns: VecDeque<u64>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    block: Arc<Block>,
    used: bool,
}

impl BlockCache {
    fn shard(&self, offset: u64) -> std::sync::MutexGuard<'_, Shard> {
        // Fibonacci hashing: blocks lie some kilobytes apart, which must not favour a part.
        let hash = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let shard = usize::try_from(hash).unwrap_or(0) % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, offset: u64) -> Option<Arc<Block>> {
        let mut shard = self.shard(offset);
        let entry = shard.blocks.get_mut(&offset)?;
        entry.used = true;
        Some(Arc::clone(&entry.block))
    }

    /// Keeps a block; one larger than a part is not kept.
    pub(super) fn insert(&self, offset: u64, block: &Arc<Block>) {
        let bytes = block.bytes();
        if bytes > CACHE_BYTES / SHARDS {
            return;
        }
        let mut shard = self.shard(offset);
        let entry = Entry { block: Arc::clone(block), used: false };
        if shard.blocks.insert(offset, entry).is_some() {
            return;
        }
        shard.turns.push_back(offset);
        shard.bytes += bytes;
        while shard.bytes > CACHE_BYTES / SHARDS
            && let Some(oldest) = shard.turns.pop_front()
        {
            match shard.blocks.get_mut(&oldest) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    shard.turns.push_back(oldest);
                }
                _ => {
                    let gone = shard.blocks.remove(&oldest);
                    shard.bytes -= gone.map_or(0, |entry| entry.block.bytes());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_core::{RecordBuilder, Timestamp, Version};

    #[test]
    fn stays_within_its_bytes_and_keeps_what_is_used() {
        let builder =
            RecordBuilder { version: Version(1), timestamp: Timestamp::ZERO, expiry: None };
        let row = builder.put(&[7; 16 << 10], 1);
        let payload = super::super::block::BlockEncoder::default().encode(&[row]).to_vec();
        let block = || Arc::new(Block::check(payload.clone().into(), Version(1)).unwrap());
        let cache = BlockCache::default();
        cache.insert(0, &block());
        for n in 1..5000 {
            cache.insert(n << 14, &block());
            assert!(cache.get(0).is_some(), "used all the time");
        }
        let held: usize = cache.shards.iter().map(|shard| shard.lock().unwrap().bytes).sum();
        let counted: usize =
            cache.shards.iter().map(|shard| shard.lock().unwrap().blocks.len()).sum();
        assert!(held <= CACHE_BYTES);
        let each = block().bytes();
        assert_eq!(held, each * counted);
        assert!(counted > 500, "{counted} blocks of {each} bytes");
    }
}
