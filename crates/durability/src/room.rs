//! Room for records, asked of the allocator for many at once.

/// What is asked for at once. More, and glibc would give what it got back to the system.
const ROOM_BYTES: usize = 96 << 10;

/// What an allocator takes for a record beyond its key and value, about.
const RECORD_BYTES: usize = 64;

/// Counts the records that are made one by one.
///
/// glibc gives every thread but the first a heap that grows by the page: a system call for every
/// twenty records, beside which no other thread of the process can fault a page in. What is asked
/// for and given back leaves the heap that much larger. Elsewhere it costs next to nothing.
#[derive(Debug, Default)]
pub(crate) struct Room {
    left: usize,
}

impl Room {
    /// Sees to it that there is room for so many records with so many bytes of keys and values.
    pub(crate) fn take(&mut self, records: usize, bytes: usize) {
        let wanted = records.saturating_mul(RECORD_BYTES).saturating_add(bytes);
        if self.left < wanted {
            drop(std::hint::black_box(Vec::<u8>::with_capacity(ROOM_BYTES)));
            self.left = ROOM_BYTES;
        }
        self.left = self.left.saturating_sub(wanted);
    }
}
