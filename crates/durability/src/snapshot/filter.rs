//! The Bloom filter of a section: tells of most keys that the section lacks, without reading a
//! block.

use xxhash_rust::xxh3::xxh3_64;

use super::piece::Checked;

/// With [`PROBES`], one absent key in about 120 is taken for present.
const BITS_PER_KEY: usize = 10;

/// The best number of probes for ten bits a key: 10 ln 2.
const PROBES: u8 = 7;

/// More probes than any filter is made with.
const PROBES_MAX: u8 = 30;

/// The hash of a key: XXH3 of 64 bits with seed 0, whose value for given bytes is published
/// and will not change.
pub(super) fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The filter of keys with these hashes.
pub(super) fn encode_filter(hashes: &[u64]) -> Vec<u8> {
    let bytes = (hashes.len() * BITS_PER_KEY).div_ceil(8).max(8);
    let mut out = vec![0; 1 + bytes];
    out[0] = PROBES;
    let bits = &mut out[1..];
    let count = bits.len() as u64 * 8;
    for hash in hashes {
        for (byte, mask) in probes(*hash, PROBES, count) {
            bits[byte] |= mask;
        }
    }
    out
}

/// A filter that was read.
#[derive(Debug)]
pub(super) struct Filter(Box<[u8]>);

impl Filter {
    pub(super) fn decode(payload: &[u8]) -> Checked<Self> {
        match payload {
            [1..=PROBES_MAX, _, ..] => Ok(Self(payload.into())),
            _ => Err("a filter that cannot be".into()),
        }
    }

    /// Whether the key with this hash may be there; `false` means that it is not.
    pub(super) fn may_have(&self, hash: u64) -> bool {
        let (head, bits) = self.0.split_at(1);
        let count = bits.len() as u64 * 8;
        probes(hash, head[0], count).all(|(byte, mask)| bits[byte] & mask != 0)
    }
}

/// The places that a key has, of `count` bits: each the last one plus a step, both taken from
/// the hash, scaled down to the count by its upper bits.
fn probes(hash: u64, probes: u8, count: u64) -> impl Iterator<Item = (usize, u8)> {
    let step = hash.rotate_left(32) | 1;
    (0..u64::from(probes)).map(move |probe| {
        let place = hash.wrapping_add(step.wrapping_mul(probe));
        let bit = (u128::from(place) * u128::from(count)) >> 64;
        let byte = usize::try_from(bit / 8).expect("below the filter's length");
        (byte, 1 << (bit % 8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_every_key_and_few_others() {
        let hash = |n: u32| key_hash(&n.to_le_bytes());
        let hashes: Vec<u64> = (0..10_000).map(hash).collect();
        let filter = Filter::decode(&encode_filter(&hashes)).unwrap();
        assert!(hashes.iter().all(|hash| filter.may_have(*hash)));
        let wrong = (10_000..110_000).filter(|n| filter.may_have(hash(*n))).count();
        assert!((500..1200).contains(&wrong), "{wrong} of 100000 absent keys; about 820 expected");
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(key_hash(b""), 0x2d06_8005_38d3_94c2, "XXH3 of nothing");
    }
}
