//! Takes out of a damaged snapshot what can be read, and says what cannot.
//!
//! Every piece says what it is and how long, so the file is walked from front to back without
//! its indexes or its footer; where a piece is bad, the walk goes on at the next one that is
//! valid.

use std::sync::Arc;

use steadfast_core::{Record, TableError, Version};

use super::block::{decode_rows, row_order};
use super::footer::{FOOTER_BYTES, Footer, HEADER_BYTES};
use super::meta::SnapshotMeta;
use super::piece::{PIECE_HEADER_BYTES, PieceHeader, PieceKind, Seed};
use super::reader::to_usize;
use crate::disk::{Access, Disk, DiskFile, read_full_at};
use crate::error::{IoContext, Result};
use crate::layout::Layout;

/// Looked through at once for the next valid piece.
const WINDOW_BYTES: usize = 1 << 20;

/// A part of a snapshot that could not be read.
#[derive(Debug, Clone)]
pub struct Loss {
    /// Where it begins, and what is wrong there.
    pub error: TableError,
    /// Its length in bytes.
    pub bytes: u64,
    /// The last key before it that could be read: what was lost is not below it. `None` if
    /// nothing was read before.
    pub low: Option<Vec<u8>>,
    /// The first key after it that could be read: what was lost is not above it. `None` if
    /// nothing was read after.
    pub high: Option<Vec<u8>>,
}

/// What was taken out of a snapshot besides its rows.
#[derive(Debug, Clone, Default)]
pub struct Salvaged {
    /// What the snapshot says of itself, if that could be read. Without it, rows are as they
    /// were written, and the dictionary of namespaces has to come from elsewhere.
    pub meta: Option<SnapshotMeta>,
    /// The times of its commits, if there are any and they could be read.
    pub commit_times: Option<Vec<u8>>,
    /// Rows given out.
    pub rows: u64,
    /// Rows that the footer counts, if there is a valid one.
    pub rows_expected: Option<u64>,
    /// What could not be read, from front to back. What held no rows, an index or a filter, is
    /// in here too: where nothing can be read, nothing is known.
    pub losses: Vec<Loss>,
}

/// Hands every row of a snapshot that can be read to `row`, in order, and reports what cannot.
///
/// It works whatever is damaged, as long as the file can be opened: header, footer, indexes and
/// filters are not needed. A bad block costs the rows in it and no other. An I/O error is a
/// loss like any other here, told apart by its cause; nothing is changed in the file.
pub fn salvage_rows(
    disk: &dyn Disk,
    layout: &Layout,
    number: u64,
    database: [u8; 16],
    mut row: impl FnMut(Record),
) -> Result<Salvaged> {
    let label = Layout::snapshot_label(number);
    let file = disk.open(&layout.snapshot(number), Access::Read).at(&label, "open")?;
    let file_bytes = file.len().at(&label, "read the length of")?;
    let mut walk = PieceWalk {
        file,
        label: label.as_str().into(),
        seed: Seed::new(&database, number),
        end: file_bytes,
        window: Vec::new(),
        window_offset: 0,
    };
    let mut salvaged = Salvaged::default();
    if let Some(footer) = walk.footer(&database, number) {
        walk.end = footer.offset();
        salvaged.rows_expected = Some(footer.rows);
    }
    let mut offset = HEADER_BYTES as u64;
    let mut last: Option<Record> = None;
    while offset < walk.end {
        let begun = offset;
        let error = match walk.piece(begun) {
            Ok((header, payload)) => {
                offset += header.piece_bytes();
                match take(&mut salvaged, header.kind, &payload, last.as_ref()) {
                    Ok(rows) => {
                        if let (Some(first), Some(loss)) = (rows.first(), salvaged.losses.last())
                            && loss.high.is_none()
                        {
                            close(&mut salvaged.losses, first.key());
                        }
                        salvaged.rows += rows.len() as u64;
                        last = rows.last().cloned().or(last);
                        rows.into_iter().for_each(&mut row);
                        continue;
                    }
                    Err(reason) => walk.error(begun, &reason),
                }
            }
            Err((error, next)) => {
                offset = next.unwrap_or_else(|| walk.find_piece(begun + 1));
                error
            }
        };
        let low = last.as_ref().map(|row| row.key().to_vec());
        let bytes = offset.min(walk.end) - begun;
        salvaged.losses.push(Loss { error, bytes, low, high: None });
    }
    Ok(salvaged)
}

/// Closes the losses that no key was read after yet.
fn close(losses: &mut [Loss], first: &[u8]) {
    for loss in losses.iter_mut().rev().take_while(|loss| loss.high.is_none()) {
        loss.high = Some(first.to_vec());
    }
}

/// Takes what a valid piece has; its rows are returned.
fn take(
    salvaged: &mut Salvaged,
    kind: PieceKind,
    payload: &[u8],
    last: Option<&Record>,
) -> std::result::Result<Vec<Record>, String> {
    let mut rows = Vec::new();
    match kind {
        PieceKind::Block => {
            decode_rows(payload, Version::MAX, &mut rows).map_err(|reason| reason.to_string())?;
            if let (Some(last), Some(first)) = (last, rows.first())
                && row_order((last.key(), last.version()), (first.key(), first.version())).is_ge()
            {
                return Err("a block whose rows come before those of the one before".to_owned());
            }
        }
        PieceKind::Meta => {
            let meta = SnapshotMeta::decode(payload).map_err(|error| error.to_string())?;
            salvaged.meta = Some(meta);
        }
        PieceKind::CommitTimes => salvaged.commit_times = Some(payload.to_vec()),
        PieceKind::SectionIndex | PieceKind::Filter | PieceKind::TopIndex => {}
    }
    Ok(rows)
}

/// Goes through a file piece by piece.
struct PieceWalk {
    file: Arc<dyn DiskFile>,
    label: Arc<str>,
    seed: Seed,
    /// Where pieces end.
    end: u64,
    /// The part of the file that was read last, and where it begins.
    window: Vec<u8>,
    window_offset: u64,
}

impl PieceWalk {
    /// The footer, if it is valid.
    fn footer(&self, database: &[u8; 16], number: u64) -> Option<Footer> {
        let offset = self.end.checked_sub(FOOTER_BYTES as u64)?;
        let mut tail = vec![0; FOOTER_BYTES];
        let read = read_full_at(&*self.file, offset, &mut tail).ok()?;
        Footer::decode(&self.label, database, number, self.end, &tail[..read]).ok()
    }

    fn error(&self, offset: u64, reason: &str) -> TableError {
        TableError { file: Arc::clone(&self.label), offset, reason: reason.into(), io: None }
    }

    /// Up to `bytes` bytes from `offset` on: fewer only before the end.
    fn bytes(&mut self, offset: u64, bytes: usize) -> std::io::Result<&[u8]> {
        let bytes = bytes.min(to_usize(self.end.saturating_sub(offset)));
        let inside = offset
            .checked_sub(self.window_offset)
            .map(to_usize)
            .filter(|from| from.saturating_add(bytes) <= self.window.len());
        if let Some(from) = inside {
            return Ok(&self.window[from..from + bytes]);
        }
        let wanted = bytes.max(WINDOW_BYTES.min(to_usize(self.end.saturating_sub(offset))));
        self.window.clear();
        self.window.resize(wanted, 0);
        self.window_offset = offset;
        match read_full_at(&*self.file, offset, &mut self.window) {
            Ok(read) => self.window.truncate(read),
            Err(error) => {
                self.window.clear();
                return Err(error);
            }
        }
        Ok(&self.window[..bytes.min(self.window.len())])
    }

    /// The piece at `offset`; if it is bad, why, and where the next one begins if that is sure.
    fn piece(
        &mut self,
        offset: u64,
    ) -> std::result::Result<(PieceHeader, Vec<u8>), (TableError, Option<u64>)> {
        let (seed, label) = (self.seed, Arc::clone(&self.label));
        let io = |error: std::io::Error| TableError {
            file: Arc::clone(&label),
            offset,
            reason: "cannot read".into(),
            io: Some(Arc::new(error)),
        };
        let header = self.bytes(offset, PIECE_HEADER_BYTES).map_err(|error| (io(error), None))?;
        let header = match PieceHeader::decode(seed, offset, header) {
            Ok(header) => header,
            Err(reason) => return Err((self.error(offset, &reason), None)),
        };
        // The header is what was written, so its length can be trusted even if its payload is
        // not, but for a file that was cut.
        let next = offset + header.piece_bytes();
        if next > self.end {
            return Err((self.error(offset, "the file ends within a piece"), Some(self.end)));
        }
        let piece = self
            .bytes(offset, to_usize(header.piece_bytes()))
            .map_err(|error| (io(error), Some(next)))?;
        let mut buffer = Vec::new();
        let stored = piece.get(PIECE_HEADER_BYTES..).unwrap_or_default();
        let payload = header.payload(seed, offset, stored, &mut buffer).map(<[u8]>::to_vec);
        payload
            .map(|payload| (header, payload))
            .map_err(|reason| (self.error(offset, &reason), Some(next)))
    }

    /// Where the first valid header of a piece is from `offset` on; the end if there is none.
    /// What cannot be read is stepped over.
    fn find_piece(&mut self, mut offset: u64) -> u64 {
        let seed = self.seed;
        while offset + (PIECE_HEADER_BYTES as u64) < self.end {
            let bytes = match self.bytes(offset, WINDOW_BYTES) {
                Ok(bytes) if bytes.len() >= PIECE_HEADER_BYTES => bytes,
                Ok(_) => return self.end,
                Err(_) => {
                    // The next sector may be readable.
                    offset = (offset + 1).next_multiple_of(4096);
                    continue;
                }
            };
            for (at, header) in bytes.windows(PIECE_HEADER_BYTES).enumerate() {
                if PieceHeader::decode(seed, offset + at as u64, header).is_ok() {
                    return offset + at as u64;
                }
            }
            offset += (bytes.len() - PIECE_HEADER_BYTES + 1) as u64;
        }
        self.end
    }
}
