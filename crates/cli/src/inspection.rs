//! The files of a database as they are, read one by one and judged by nothing but themselves.
//!
//! Promises: it reads only, works on damaged and half-made databases, and goes on behind what
//! it cannot read. Whether a database may be opened is not decided here: that is recovery's.

mod snapshots;

use std::path::Path;
use std::sync::Arc;

use steadfast_core::codec::Cursor;
use steadfast_core::{
    Key, Timestamp, TypeTag, Version, WriteKind, WriteSet, event_seq, stream_name, stream_of,
};
use steadfast_durability::disk::{Access, Disk, DiskFile, read_full_at};
use steadfast_durability::layout::Layout;
use steadfast_durability::manifest::Manifest;
use steadfast_durability::wal::frame::{Frame, split_body};
use steadfast_durability::wal::group::GroupKind;
use steadfast_durability::wal::reader::{Group, SegmentReader, Tail};
use steadfast_durability::wal::segment::{HEADER_BYTES, HeaderError, SegmentHeader};

use crate::failure::{Failure, Result};
pub(crate) use snapshots::{Role, SnapshotContent, SnapshotFacts, leftovers, read_snapshots};

/// A segment file, from its header to where it stops making sense.
pub(crate) struct SegmentFacts {
    /// Relative to the database.
    pub(crate) file: String,
    pub(crate) bytes: u64,
    /// What the header says, or what is wrong with it.
    pub(crate) header: std::result::Result<SegmentHeader, String>,
    pub(crate) groups: u64,
    pub(crate) beacons: u64,
    pub(crate) transactions: u64,
    /// The first and the last version committed in it.
    pub(crate) versions: Option<(Version, Version)>,
    /// The log position where its groups end, and the offset in the file.
    pub(crate) end_position: u64,
    pub(crate) end_offset: u64,
    pub(crate) end: String,
    /// Groups behind the end that are valid on their own.
    pub(crate) evidence_groups: u64,
}

/// One group of a segment, for those who want to see each.
pub(crate) struct GroupFacts {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) kind: &'static str,
    pub(crate) durable_upto: u64,
    pub(crate) frames: Vec<String>,
}

/// The MANIFEST, if there is one and it can be read.
pub(crate) fn manifest(disk: &dyn Disk, layout: &Layout) -> Result<Option<Manifest>> {
    Manifest::read(disk, layout).map_err(|error| Failure::new("corruption", error.to_string()))
}

/// The numbers of the segment files, oldest first.
pub(crate) fn segment_numbers(disk: &dyn Disk, layout: &Layout) -> Result<Vec<u64>> {
    let names = names(disk, &layout.wal(), "WAL")?;
    let mut numbers: Vec<_> =
        names.iter().filter_map(|name| Layout::parse_segment_name(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The names in a directory, none if it is not there.
fn names(disk: &dyn Disk, directory: &Path, label: &str) -> Result<Vec<String>> {
    match disk.list(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.map_err(|error| Failure::io(label, &error)),
    }
}

/// What was read of a file; `None` if it is not there any more: a writer may have removed it
/// since its name was read.
pub(crate) fn if_there<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(failure) if failure.kind == "not_found" => Ok(None),
        read => read.map(Some),
    }
}

/// Reads segment `number` to its end; `see` is shown each group.
pub(crate) fn read_segment(
    disk: &dyn Disk,
    layout: &Layout,
    number: u64,
    mut see: impl FnMut(GroupFacts),
) -> Result<SegmentFacts> {
    let label = Layout::segment_label(number);
    let io = |error: std::io::Error| Failure::io(&label, &error);
    let file = disk.open(&layout.segment(number), Access::Read).map_err(io)?;
    let mut facts = SegmentFacts {
        bytes: file.len().map_err(io)?,
        header: read_header(&*file).map_err(io)?,
        file: label,
        groups: 0,
        beacons: 0,
        transactions: 0,
        versions: None,
        end_position: 0,
        end_offset: 0,
        end: "nothing in it can be read without its header".to_owned(),
        evidence_groups: 0,
    };
    if let Ok(header) = facts.header {
        facts.read_groups(file, header, &mut see)?;
    }
    Ok(facts)
}

fn read_header(file: &dyn DiskFile) -> std::io::Result<std::result::Result<SegmentHeader, String>> {
    let mut block = vec![0; usize::try_from(HEADER_BYTES).unwrap_or(0)];
    let length = read_full_at(file, 0, &mut block)?;
    Ok(SegmentHeader::decode(&block[..length]).map_err(|error| match error {
        HeaderError::Corrupt(kind) => format!("{kind} at offset 0"),
        HeaderError::NewerFormat(format) => format!("written in format {format}, which is newer"),
    }))
}

impl SegmentFacts {
    fn read_groups(
        &mut self,
        file: Arc<dyn DiskFile>,
        header: SegmentHeader,
        see: &mut impl FnMut(GroupFacts),
    ) -> Result<()> {
        let unreadable = |error: steadfast_durability::Error| Failure::new("io", error.to_string());
        let mut reader = SegmentReader::new(file, header);
        let mut closing = None;
        let broken = loop {
            match reader.next_group().map_err(unreadable)? {
                Err(kind) => break kind,
                Ok(group) => {
                    closing = closing_words(group.header.kind);
                    let group = self.read_group(&group, header.offset_of(group.position));
                    see(group);
                }
            }
        };
        let end = reader.end(broken).map_err(unreadable)?;
        self.end_position = end.position;
        self.end_offset = header.offset_of(end.position);
        self.end = match (end.tail, closing) {
            (Tail::Nothing, Some(closing)) => closing.to_owned(),
            (Tail::Nothing, None) => "nothing behind it: it was not closed".to_owned(),
            (Tail::Torn(kind), _) => format!("{kind}, from a write that was never finished"),
            (Tail::Changed(kind), _) => format!("{kind}: written whole, and changed since"),
        };
        if end.tail != Tail::Nothing {
            self.evidence_groups = reader.evidence().map_err(unreadable)?.groups;
        }
        Ok(())
    }

    fn read_group(&mut self, group: &Group<'_>, offset: u64) -> GroupFacts {
        self.groups += 1;
        self.beacons += u64::from(group.header.kind == GroupKind::Beacon);
        let mut frames = Vec::new();
        let mut cursor = Cursor::new("group", group.frames);
        for _ in 0..group.header.frames {
            match Frame::decode(&mut cursor) {
                Ok(frame) => frames.extend(self.read_frame(&frame)),
                Err(error) => {
                    frames.push(error.to_string());
                    break;
                }
            }
        }
        let kind = match group.header.kind {
            GroupKind::Data => "data",
            GroupKind::Beacon => "beacon",
            GroupKind::Seal => "seal",
            GroupKind::Footer => "footer",
            GroupKind::Open => "open",
        };
        let (length, durable_upto) = (group.header.length.into(), group.header.durable_upto);
        GroupFacts { offset, length, kind, durable_upto, frames }
    }

    fn committed(&mut self, version: Version) {
        self.transactions += 1;
        let first = self.versions.map_or(version, |(first, _)| first);
        self.versions = Some((first, version));
    }

    /// The frame in plain words, and its writes.
    fn read_frame(&mut self, frame: &Frame<'_>) -> Vec<String> {
        match *frame {
            Frame::Txn { version, timestamp, body } => {
                self.committed(version);
                let mut lines = vec![String::new()];
                let writes = describe_body(body, &mut lines);
                let when = crate::output::moment(timestamp);
                lines[0] = format!("transaction, version {version}, {when}, {writes}");
                lines
            }
            Frame::Begin { txn, timestamp } => {
                let when = crate::output::moment(timestamp);
                vec![format!("begin of the streamed transaction {txn}, {when}")]
            }
            Frame::Part { txn, bytes } => {
                vec![format!("part of the streamed transaction {txn}, {} bytes", bytes.len())]
            }
            Frame::Commit { txn, version, parts, .. } => {
                self.committed(version);
                vec![format!(
                    "commit of the streamed transaction {txn} in {parts} parts, version {version}"
                )]
            }
            Frame::Abort { txn } => vec![format!("abort of the streamed transaction {txn}")],
            Frame::Seal { successor } => {
                vec![format!("seal: goes on in {}", Layout::segment_label(successor))]
            }
            Frame::Footer { next_version, timestamp } => footer_words(next_version, timestamp),
        }
    }
}

fn footer_words(next_version: Version, timestamp: Timestamp) -> Vec<String> {
    let when = crate::output::moment(timestamp);
    vec![format!("footer: closed cleanly; next version {next_version}, newest commit {when}")]
}

const fn closing_words(kind: GroupKind) -> Option<&'static str> {
    match kind {
        GroupKind::Seal => Some("a seal: the next segment goes on"),
        GroupKind::Footer => Some("a footer: it was closed cleanly"),
        _ => None,
    }
}

/// Appends a line for each definition and write in `body`, and says how many there are.
fn describe_body(body: &[u8], lines: &mut Vec<String>) -> String {
    let (definitions, writes) = match split_body(body) {
        Ok(split) => split,
        Err(error) => return error.to_string(),
    };
    for (id, namespace) in &definitions {
        lines.push(format!("  namespace {} is run {}", id.0, namespace.run()));
    }
    let mut count = 0;
    for write in WriteSet::writes_in(writes) {
        match write {
            Ok(write) => {
                count += 1;
                let key = describe_key(write.key());
                lines.push(match write.kind {
                    WriteKind::Put => format!("  put {key}, {} bytes", write.value_bytes().len()),
                    WriteKind::Delete => format!("  delete {key}"),
                    WriteKind::Delta => format!("  fold into {key}"),
                });
            }
            Err(error) => lines.push(format!("  {error}")),
        }
    }
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} write{plural}, {} bytes", body.len())
}

fn describe_key(stored: &[u8]) -> String {
    let namespace = Key::namespace_of(stored).map_or(0, |id| id.0);
    let own = Key::user_part(stored).escape_ascii();
    match (Key::tag_of(stored), stream_name(stored), event_seq(stored)) {
        (Some(TypeTag::Event), Some(stream), Some(seq)) => {
            format!("namespace {namespace}, event {seq} of `{}`", stream.escape_ascii())
        }
        (Some(TypeTag::Event), ..) if let Some(stream) = stream_of(stored) => {
            format!("namespace {namespace}, stream `{}`", stream.escape_ascii())
        }
        (Some(TypeTag::Kv), ..) => format!("namespace {namespace}, key `{own}`"),
        (Some(TypeTag::State), ..) => format!("namespace {namespace}, cell `{own}`"),
        (Some(TypeTag::Signal), ..) => format!("namespace {namespace}, signal `{own}`"),
        (Some(TypeTag::Idempotency), ..) => {
            format!("namespace {namespace}, idempotency key `{own}`")
        }
        (Some(TypeTag::Run), ..) => format!("run index `{own}`"),
        (Some(TypeTag::Collection), ..) => format!("namespace {namespace}, collection `{own}`"),
        (Some(TypeTag::Attributes), ..) => format!("namespace {namespace}, attributes of `{own}`"),
        (Some(TypeTag::Cohort), ..) => format!("namespace {namespace}, cohort `{own}`"),
        (Some(TypeTag::Engagement), ..) => format!("namespace {namespace}, graph `{own}`"),
        _ => format!("`{}`", stored.escape_ascii()),
    }
}
