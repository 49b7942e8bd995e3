//! The one codec: little-endian integers, variable-length integers and length-prefixed bytes.
//!
//! Reading goes through [`Cursor`], which cannot panic and never allocates more than it was
//! given. Every file format and every encoded value is built from these.

use crate::{Error, Result};

/// Longest encoding of a variable-length `u64`, in bytes.
pub const VARINT_BYTES_MAX: usize = 10;

/// Appends `n` as a variable-length integer: seven bits a byte, lowest first, the high bit
/// set on every byte but the last (LEB128).
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push((n & 0x7f) as u8);
}

/// Bytes that [`put_varint`] takes for `n`.
pub const fn varint_len(n: u64) -> usize {
    (64 - (n | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends the length of `bytes` as a variable-length integer, then the bytes.
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A reading position in bytes that came from a disk or a stranger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Reads `bytes`, which should be a `what`.
    pub const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    /// The position, counted from the start.
    #[inline]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    #[inline]
    pub const fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.left() == 0
    }

    /// The error that names this position.
    pub const fn malformed(&self, reason: &'static str) -> Error {
        Error::Malformed { what: self.what, reason, at: self.at }
    }

    /// The next `n` bytes.
    #[inline]
    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        if n > self.left() {
            return Err(self.malformed("the bytes end too early"));
        }
        let taken = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(taken)
    }

    /// The next `N` bytes, as an array.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// A little-endian `u16`.
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A little-endian `u32`.
    #[inline]
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A little-endian `u64`.
    #[inline]
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A variable-length integer, in its shortest form only, so that equal bytes and equal
    /// numbers are the same thing.
    #[inline]
    pub fn varint(&mut self) -> Result<u64> {
        match self.bytes.get(self.at) {
            Some(byte) if byte & 0x80 == 0 => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    #[inline]
    fn long_varint(&mut self) -> Result<u64> {
        let start = self.at;
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                self.at = start;
                return Err(self.malformed("an integer above 64 bits"));
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    self.at = start;
                    return Err(self.malformed("an integer that is not in its shortest form"));
                }
                return Ok(n);
            }
        }
        self.at = start;
        Err(self.malformed("an integer that does not end"))
    }

    /// A variable-length integer that counts bytes or items still to come, so it is at most
    /// [`Cursor::left`]: nothing is allocated for a length that cannot be true.
    #[inline]
    pub fn length(&mut self) -> Result<usize> {
        let start = self.at;
        let n = self.varint()?;
        match usize::try_from(n) {
            Ok(n) if n <= self.left() => Ok(n),
            _ => {
                self.at = start;
                Err(self.malformed("a length beyond the end"))
            }
        }
    }

    /// Bytes with their length in front.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let n = self.length()?;
        self.take(n)
    }

    /// UTF-8 text with its length in front.
    pub fn str(&mut self) -> Result<&'a str> {
        let start = self.at;
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| {
            self.at = start;
            self.malformed("text that is not UTF-8")
        })
    }

    /// All that is left.
    #[inline]
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }

    /// Succeeds only at the end.
    pub fn end(&self) -> Result<()> {
        if self.is_empty() { Ok(()) } else { Err(self.malformed("bytes after the end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip_and_are_as_long_as_said(n: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, n);
            prop_assert_eq!(out.len(), varint_len(n));
            let mut cursor = Cursor::new("test", &out);
            prop_assert_eq!(cursor.varint(), Ok(n));
            prop_assert!(cursor.is_empty());
        }

        #[test]
        fn no_bytes_make_a_cursor_panic(bytes: Vec<u8>) {
            let mut cursor = Cursor::new("test", &bytes);
            while cursor.varint().is_ok() {}
            let mut cursor = Cursor::new("test", &bytes);
            while cursor.bytes().is_ok() && !cursor.is_empty() {}
            let mut cursor = Cursor::new("test", &bytes);
            while cursor.str().is_ok() && !cursor.is_empty() {}
        }
    }

    #[test]
    fn refuses_a_varint_that_is_not_the_shortest() {
        assert!(Cursor::new("test", &[0x80, 0x00]).varint().is_err());
        assert!(Cursor::new("test", &[0xff; 11]).varint().is_err());
        assert!(Cursor::new("test", &[0x80; 9]).varint().is_err());
    }

    #[test]
    fn refuses_a_length_beyond_the_end_and_says_where() {
        let bytes = [3, b'a', b'b'];
        let error = Cursor::new("name", &bytes).bytes().unwrap_err();
        assert_eq!(error.to_string(), "name: a length beyond the end at byte 0");
    }
}
