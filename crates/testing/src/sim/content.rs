//! The bytes of a simulated file: pages that are shared until they are written to, so that
//! copying a whole disk costs a few counters.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const PAGE: usize = 4096;

/// Bytes, and their hash once somebody asked for it: nearly all pages of a crash image are
/// those of the image before it.
struct Page {
    bytes: [u8; PAGE],
    /// 0: not known.
    hash: AtomicU64,
}

/// The hash of a page of zeros, which is the same as one that is not there.
const ZEROS: u64 = 1;

fn hash_of(bytes: &[u8]) -> u64 {
    if bytes.iter().all(|byte| *byte == 0) {
        return ZEROS;
    }
    // Neither unknown nor zeros.
    foldhash::quality::FixedState::default().hash_one(bytes) | 2
}

impl Page {
    const fn zeros() -> Self {
        Self { bytes: [0; PAGE], hash: AtomicU64::new(0) }
    }

    /// The bytes, to be changed.
    fn bytes_of(page: &mut Arc<Self>) -> &mut [u8; PAGE] {
        let page = Arc::make_mut(page);
        *page.hash.get_mut() = 0;
        &mut page.bytes
    }

    fn hash(&self) -> u64 {
        // Whoever is second computes the same.
        match self.hash.load(Ordering::Relaxed) {
            0 => {
                let hash = hash_of(&self.bytes);
                self.hash.store(hash, Ordering::Relaxed);
                hash
            }
            known => known,
        }
    }
}

impl Clone for Page {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes, hash: AtomicU64::new(0) }
    }
}

/// Bytes, of which those beyond the length are kept and not shown: a write may reach the disk
/// before the length that makes it visible.
#[derive(Clone, Default)]
pub(crate) struct Content {
    /// A page that is not there is zeros.
    pages: Vec<Option<Arc<Page>>>,
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
                Some(page) => buffer[done..done + n].copy_from_slice(&page.bytes[start..start + n]),
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
                let whole = slot.get_or_insert_with(|| Arc::new(Page::zeros()));
                Page::bytes_of(whole)[start..start + n].copy_from_slice(piece);
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
            if let Some(Some(page)) = self.pages.get_mut(page) {
                Page::bytes_of(page)[start..].fill(0);
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
            let hash = match page {
                Some(page) if n == PAGE => page.hash(),
                // What is beyond the length does not count.
                Some(page) => hash_of(&page.bytes[..n]),
                None => ZEROS,
            };
            if hash != ZEROS {
                state.write_usize(number);
                state.write_u64(hash);
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
    fn the_hash_is_that_of_the_bytes_and_follows_every_change() {
        let hash = |content: &Content| foldhash::quality::FixedState::default().hash_one(content);
        let fresh = |bytes: &[u8]| {
            let mut content = Content::default();
            content.write(0, bytes);
            content.set_len(bytes.len() as u64);
            hash(&content)
        };
        let mut content = Content::default();
        let mut bytes = vec![0; 10_000];
        content.set_len(10_000);
        assert_eq!(hash(&content), fresh(&bytes), "pages that are not there are zeros");
        for at in [0, 4095, 4096, 8191, 9999] {
            content.write(at, b"x");
            bytes[index(at)] = b'x';
            assert_eq!(hash(&content), fresh(&bytes), "after a write at {at}");
            let copy = content.clone();
            content.write(at, b"y");
            assert_ne!(hash(&content), hash(&copy), "a copy is another page");
            content.write(at, b"x");
        }
        content.write(9_990, &[7; 100]);
        bytes[9_990..].fill(7);
        assert_eq!(hash(&content), fresh(&bytes), "what is beyond the length does not count");
        content.set_len(5_000);
        content.set_len(10_000);
        bytes[5_000..].fill(0);
        assert_eq!(hash(&content), fresh(&bytes), "after a cut");
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
