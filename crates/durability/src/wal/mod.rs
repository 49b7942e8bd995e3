//! The write-ahead log: segments of groups of frames.
#![doc = include_str!("FORMAT.md")]

pub mod chain;
pub mod entry;
pub mod frame;
pub mod group;
pub mod reader;
pub mod segment;
pub mod stream;
pub mod tail;
pub mod writer;

#[cfg(test)]
mod tests {
    use steadfast_core::{
        Key, Namespace, NamespaceId, RunId, Timestamp, TypeTag, Value, Version, WriteSet,
    };

    use super::frame::{Frame, encode_definitions};
    use super::group::{ChecksumSeed, GroupBuilder, GroupKind, Stamp};
    use super::segment::{Epoch, HEADER_LEN, Origin, SegmentHeader};
    use crate::test_support::{hex, hex_example};

    #[test]
    fn the_worked_example_is_what_is_written() {
        let header = SegmentHeader {
            database: *b"0123456789abcdef",
            number: 1,
            epoch: Epoch { counter: 1, random: 42 },
            version_ceiling: 32768,
            durable_upto: 0,
            first_position: 0,
            predecessor: 0,
            chain: 0,
            origin: Origin::Rotation,
        };
        let mut writes = WriteSet::new();
        let key = Key::new(NamespaceId(1), TypeTag::Kv, b"k").unwrap();
        writes.put(&key, &Value::Int(7), None).unwrap();
        let namespace = Namespace::for_run(RunId::from_bytes([0x11; 16]));
        let mut body = Vec::new();
        encode_definitions(&mut body, [(NamespaceId(1), &namespace)].into_iter());
        body.extend_from_slice(writes.as_bytes());
        let mut group = GroupBuilder::default();
        group.clear();
        let timestamp = Timestamp::from_micros(1_760_000_000_000_000);
        group.frame(|out| Frame::Txn { version: Version(1), timestamp, body: &body }.encode(out));
        let length = group.padded_len(8);
        let stamp = Stamp { kind: GroupKind::Data, level: 0, durable_upto: 0 };
        let seed = ChecksumSeed::of(&header);
        let (group, _) = group.finish(seed, 0, header.chain, stamp, length);

        let block = header.encode();
        let mut bytes = block[..88].to_vec();
        bytes.extend_from_slice(&block[HEADER_LEN - 4..]);
        bytes.extend_from_slice(group);
        assert_eq!(hex(&bytes), hex_example(include_str!("FORMAT.md")), "see FORMAT.md");
    }
}
