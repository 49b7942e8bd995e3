//! Reads a snapshot back from the device, every byte, and checks everything that can be.

use std::ops::ControlFlow;

use steadfast_core::{Record, TableError};

use super::filter::{Filter, key_hash};
use super::footer::{FOOTER_BYTES, HEADER_BYTES, Header};
use super::index::SectionEntry;
use super::reader::{Snapshot, decode_end, to_usize};
use crate::error::{Error, Result};
use crate::progress::{Listener, Progress, Stage, tell};

/// What a check of every byte came to; that there is one means that all was well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnapshotCheck {
    /// Bytes read: the length of the file.
    pub bytes: u64,
    /// Sections checked.
    pub sections: u64,
    /// Blocks checked.
    pub blocks: u64,
    /// Rows checked.
    pub rows: u64,
    /// Different keys among them.
    pub keys: u64,
}

impl Snapshot {
    /// Reads every byte of the file back and checks everything: checksums, that pieces follow
    /// each other without a gap, the order of rows across blocks and sections, their number,
    /// that indexes name what is there and that filters have every key.
    ///
    /// The bytes come from the device where the system lets a program ask for that. Nothing is
    /// taken from what was read before, except where the sections begin, which is compared.
    pub fn verify(&self) -> std::result::Result<SnapshotCheck, TableError> {
        let unheard = &mut |_| ControlFlow::Continue(());
        self.check_all(unheard).map(|check| check.expect("nobody stops it"))
    }

    /// As [`Snapshot::verify`], telling `listener` after each section: [`Stage::ReadBack`].
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] if the listener wants no more of it; [`Error::Table`].
    pub fn verify_with(&self, listener: Listener<'_>) -> Result<SnapshotCheck> {
        let total = self.footer.file_bytes;
        let mut visit = |bytes| listener(Progress::new(Stage::ReadBack, bytes, total));
        let check = self.check_all(&mut visit)?.ok_or(Error::Stopped)?;
        tell(listener, Progress::new(Stage::ReadBack, total, total))?;
        Ok(check)
    }

    /// `visit` is told after each section how many bytes were read, and may stop it: `None`.
    fn check_all(
        &self,
        visit: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> std::result::Result<Option<SnapshotCheck>, TableError> {
        // A hint: if the system has none of it, its own copy is checked.
        let _ = self.file.forget_cached();
        let mut check = SnapshotCheck::default();
        self.verify_header()?;
        check.bytes += HEADER_BYTES as u64;
        let mut payload_bytes = 0;
        let mut rows = Vec::new();
        for (number, section) in self.sections.iter().enumerate() {
            // The top index was checked to leave no gap between one section and the next.
            rows.clear();
            let filter = self.verify_section(section, &mut rows)?;
            self.check_rows(number, &rows)?;
            check.bytes += section.end() - section.offset;
            check.sections += 1;
            check.blocks += section.blocks;
            check.rows += rows.len() as u64;
            for (index, row) in rows.iter().enumerate() {
                payload_bytes += row.payload_bytes() as u64;
                if index > 0 && rows[index - 1].key() == row.key() {
                    continue;
                }
                check.keys += 1;
                if !filter.may_have(key_hash(row.key())) {
                    return Err(self.error(section.filter_offset(), "a filter that lacks a key"));
                }
            }
            if visit(check.bytes).is_break() {
                return Ok(None);
            }
        }
        self.commit_times()?;
        check.bytes += self.footer.meta_offset - self.footer.times_offset;
        self.verify_end()?;
        check.bytes += self.footer.file_bytes - self.footer.meta_offset;
        assert_eq!(check.bytes, self.footer.file_bytes, "the top index leaves no gap");
        if (check.rows, payload_bytes) != (self.footer.rows, self.footer.payload_bytes) {
            let reason = "a footer that counts other rows than there are";
            return Err(self.error(self.footer.offset(), reason));
        }
        Ok(Some(check))
    }

    fn verify_header(&self) -> std::result::Result<(), TableError> {
        let footer = &self.footer;
        let header = Header {
            database: footer.database,
            number: footer.number,
            compression: footer.compression,
        };
        if self.read(0, HEADER_BYTES as u64)? != header.encode() {
            return Err(self.error(0, "no valid file header"));
        }
        Ok(())
    }

    /// Appends the rows of a section, all checked, and gives its filter.
    fn verify_section(
        &self,
        section: &SectionEntry,
        rows: &mut Vec<Record>,
    ) -> std::result::Result<Filter, TableError> {
        let bytes = self.read(section.offset, section.end() - section.offset)?;
        let (mut rest, end) = bytes.split_at(to_usize(section.blocks_bytes));
        let (index, filter) = end.split_at(to_usize(section.index.bytes));
        let (mut buffer, mut plain_bytes) = (Vec::new(), 0);
        let blocks = self.decode_index(section, index)?;
        for number in 0..blocks.len() {
            let piece;
            (piece, rest) = rest.split_at(to_usize(blocks[number].sealed.bytes));
            plain_bytes += self.decode_block(&blocks, number, piece, &mut buffer, rows)?;
        }
        if plain_bytes != section.plain_bytes {
            let reason = "a section with other bytes than the top index says";
            return Err(self.error(section.offset, reason));
        }
        self.decode_filter(section, filter)
    }

    /// The end of the file was checked when it was opened; here it is read again.
    fn verify_end(&self) -> std::result::Result<(), TableError> {
        let offset = self.footer.meta_offset;
        let again = self.read(offset, self.footer.file_bytes - offset)?;
        let (rest, footer) = again.split_at(again.len() - FOOTER_BYTES);
        if footer != self.footer.encode() {
            return Err(self.error(self.footer.offset(), "another footer than when it was opened"));
        }
        decode_end(self.seed, &self.footer, rest)
            .map(|_| ())
            .map_err(|(offset, kind)| self.error(offset, &kind.to_string()))
    }
}
