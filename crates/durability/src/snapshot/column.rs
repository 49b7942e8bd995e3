//! Columns of numbers in a block: the smallest of them once, and for each how much it is above
//! that, in as many bits as the largest difference needs.

use steadfast_core::Result;
use steadfast_core::codec::{Cursor, put_varint};

/// Where the numbers of a column are, and how they are packed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Column {
    /// The smallest.
    pub(super) base: u64,
    /// Bits of each difference.
    bits: u8,
    /// The first byte of the differences, in the block.
    start: usize,
}

/// A difference is read with one load of 64 bits from the byte that it begins in, of which up
/// to seven belong to the one before.
const BITS_MAX: u8 = 56;

impl Column {
    /// Describes `values` in `head`, and appends their differences to `packed`.
    pub(super) fn encode(values: &[u64], head: &mut Vec<u8>, packed: &mut Vec<u8>) {
        let base = values.iter().copied().min().unwrap_or(0);
        let span = values.iter().fold(0, |span, value| span | (value - base));
        let bits = match 64 - span.leading_zeros() {
            bits if bits <= u32::from(BITS_MAX) => bits,
            _ => 64,
        };
        put_varint(head, base);
        head.push(u8::try_from(bits).expect("at most 64"));
        if bits == 0 {
            return;
        }
        let (mut word, mut filled) = (0u64, 0);
        for value in values {
            let difference = value - base;
            word |= difference << filled;
            filled += bits;
            if filled >= 64 {
                packed.extend_from_slice(&word.to_le_bytes());
                filled -= 64;
                // What did not fit; nothing if all of it did.
                word = difference.checked_shr(bits - filled).unwrap_or(0);
            }
        }
        packed.extend_from_slice(&word.to_le_bytes()[..filled.div_ceil(8) as usize]);
    }

    /// Reads what [`Column::encode`] put into the head.
    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Self> {
        let (base, bits) = (cursor.varint()?, cursor.u8()?);
        if bits > BITS_MAX && bits != 64 {
            return Err(cursor.malformed("a width that no column has"));
        }
        Ok(Self { base, bits, start: 0 })
    }

    /// Takes its place: the differences of `count` numbers come next. The bits that fill the
    /// last byte must be zero.
    pub(super) fn place(&mut self, cursor: &mut Cursor<'_>, count: usize) -> Result<()> {
        self.start = cursor.at();
        let bits = count * usize::from(self.bits);
        let packed = cursor.take(bits.div_ceil(8))?;
        match packed.last() {
            Some(last) if !bits.is_multiple_of(8) && last >> (bits % 8) != 0 => {
                Err(cursor.malformed("bits after the end of a column"))
            }
            _ => Ok(()),
        }
    }

    /// The number at `index`, which must be below the count that it was placed with.
    #[inline]
    pub(super) fn at(&self, block: &[u8], index: usize) -> u64 {
        if self.bits == 0 {
            return self.base;
        }
        let bit = index * usize::from(self.bits);
        let tail = &block[self.start + bit / 8..];
        let word = match tail.first_chunk() {
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => {
                let mut chunk = [0; 8];
                chunk[..tail.len()].copy_from_slice(tail);
                u64::from_le_bytes(chunk)
            }
        };
        let difference = (word >> (bit % 8)) & (u64::MAX >> (64 - self.bits));
        self.base.wrapping_add(difference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_column_gives_back_what_it_was_made_of(
            values in proptest::collection::vec(any::<u64>(), 0..70),
            shift in 0u32..64,
        ) {
            let values: Vec<u64> = values.into_iter().map(|value| value >> shift).collect();
            let (mut bytes, mut packed) = (Vec::new(), Vec::new());
            Column::encode(&values, &mut bytes, &mut packed);
            bytes.extend_from_slice(&packed);
            let mut cursor = Cursor::new("column", &bytes);
            let mut column = Column::decode(&mut cursor).unwrap();
            column.place(&mut cursor, values.len()).unwrap();
            prop_assert!(cursor.is_empty());
            for (index, value) in values.iter().enumerate() {
                prop_assert_eq!(column.at(&bytes, index), *value);
            }
        }
    }
}
