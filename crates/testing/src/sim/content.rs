//! The bytes of a simulated file: pages that are shared until they are written to, so that
//! copying a whole disk costs a few counters.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

const PAGE: usize = 4096;

/// Bytes, of which those beyond the length are kept and not shown: a write may reach the disk
/// before the length that makes it visible.
#[derive(Clone, Default)]
pub(crate) struct Content {
    /// A page that is not there is zeros.
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
    len: u64,
}

fn index(position: u64) -> usize {
    usize::try_from(position).expect("simulated files are small")
}

impl Content {
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// Bytes from `offset` on, fewer at the end of the file. Returns how many.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let wanted = self.len.saturating_sub(offset).min(buffer.len() as u64);
        let wanted = index(wanted);
        let (mut done, mut at) = (0, index(offset.min(self.len)));
        while done < wanted {
            let (page, start) = (at / PAGE, at % PAGE);
            let n = (PAGE - start).min(wanted - done);
            match self.pages.get(page).and_then(Option::as_ref) {
                Some(bytes) => buffer[done..done + n].copy_from_slice(&bytes[start..start + n]),
                None => buffer[done..done + n].fill(0),
            }
            done += n;
            at += n;
        }
        wanted
    }

    /// Puts bytes where they belong. The length stays.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let (mut done, mut at) = (0, index(offset));
        while done < bytes.len() {
            let (page, start) = (at / PAGE, at % PAGE);
            let n = (PAGE - start).min(bytes.len() - done);
            let piece = &bytes[done..done + n];
            if page >= self.pages.len() {
                self.pages.resize(page + 1, None);
            }
            let slot = &mut self.pages[page];
            if slot.is_some() || piece.iter().any(|byte| *byte != 0) {
                let whole = slot.get_or_insert_with(|| Arc::new([0; PAGE]));
                Arc::make_mut(whole)[start..start + n].copy_from_slice(piece);
            }
            done += n;
            at += n;
        }
    }

    /// Cuts or extends. What was cut off is zeros if the length grows again.
    pub(crate) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (page, start) = (index(len) / PAGE, index(len) % PAGE);
            self.pages.truncate(page + 1);
            if let Some(Some(bytes)) = self.pages.get_mut(page) {
                Arc::make_mut(bytes)[start..].fill(0);
            }
        }
        self.len = len;
    }

    /// All bytes.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; index(self.len)];
        self.read(0, &mut bytes);
        bytes
    }
}

impl Hash for Content {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.len);
        let mut left = index(self.len);
        for (number, page) in self.pages.iter().enumerate() {
            let n = left.min(PAGE);
            left -= n;
            match page {
                Some(bytes) if n > 0 && bytes[..n].iter().any(|byte| *byte != 0) => {
                    state.write_usize(number);
                    state.write(&bytes[..n]);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_written_as_far_as_the_length_goes() {
        let mut content = Content::default();
        content.write(4090, b"0123456789");
        assert_eq!(content.read(4090, &mut [0; 10]), 0, "the length does not show it yet");
        content.set_len(4096);
        assert_eq!(&content.to_vec()[4090..], b"012345");
        content.set_len(4100);
        assert_eq!(&content.to_vec()[4090..], b"0123456789", "it was there all the time");
        content.set_len(4092);
        content.set_len(4100);
        assert_eq!(&content.to_vec()[4090..], b"01\0\0\0\0\0\0\0\0", "what is cut off is gone");
    }

    #[test]
    fn a_copy_does_not_see_later_writes() {
        let mut content = Content::default();
        content.write(0, b"old");
        content.set_len(3);
        let copy = content.clone();
        content.write(0, b"new");
        assert_eq!(copy.to_vec(), b"old");
    }
}
