//! Bytes that nobody of ours wrote, under right checksums: no panic, no memory without bound.

use super::*;
use crate::snapshot::block::{Block, BlockEncoder, ROW_BYTES, decode_rows};
use crate::snapshot::filter::Filter;
use crate::snapshot::index::{decode_section_index, decode_top_index};
use steadfast_core::limits::{SNAPSHOT_BLOCK_BYTES_MAX, STORED_KEY_BYTES_MAX, VALUE_BYTES_MAX};

fn decode_everything(bytes: &[u8]) {
    let mut rows = Vec::new();
    let decoded = decode_rows(bytes, W, &mut rows);
    let taken: usize = rows.iter().map(|row| row.payload_bytes() + ROW_BYTES).sum();
    let bound = match rows.len() {
        0 | 1 => STORED_KEY_BYTES_MAX + VALUE_BYTES_MAX + ROW_BYTES,
        _ => SNAPSHOT_BLOCK_BYTES_MAX,
    };
    assert!(taken <= bound, "{taken} bytes of {} rows", rows.len());
    let checked = Block::check(bytes.into(), W);
    assert_eq!(decoded.is_ok(), checked.is_ok());
    if let Ok(block) = checked {
        let in_order = |pair: &[Record]| {
            let key = |row: &Record| (row.key().to_vec(), std::cmp::Reverse(row.version()));
            key(&pair[0]) < key(&pair[1])
        };
        assert!(rows.windows(2).all(in_order));
        let mut again = Vec::new();
        block.records(&mut again).unwrap();
        assert_eq!(again, rows);
        for row in &rows {
            block.find(row.key(), row.version()).unwrap();
            block.find(row.key(), Version(0)).unwrap();
        }
    }
    let _ = decode_section_index(bytes, 48, 1 << 20);
    let _ = decode_section_index(bytes, 48, 64);
    let _ = decode_top_index(bytes, 48, 1 << 20);
    let _ = SnapshotMeta::decode(bytes);
    if let Ok(filter) = Filter::decode(bytes) {
        filter.may_have(7);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        decode_everything(&bytes);
    }

    #[test]
    fn no_change_of_a_block_makes_a_decoder_panic(
        rows in 1usize..60,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        head_only: bool,
    ) {
        let rows: Vec<Record> = (0..rows)
            .map(|n| put(format!("key/{:03}", n / 2).as_bytes(), 1000 - n as u64, &vec![7; n]))
            .collect();
        let mut bytes = BlockEncoder::default().encode(&rows).to_vec();
        let length = if head_only { bytes.len().min(40) } else { bytes.len() };
        for (at, byte) in changes {
            bytes[at.index(length)] = byte;
        }
        decode_everything(&bytes);
    }
}

#[test]
fn a_block_cannot_make_more_of_itself_than_there_can_be() {
    // Rows of one long key: each version costs some bytes in the file, and the key in memory.
    let key = vec![b'k'; STORED_KEY_BYTES_MAX];
    let rows: Vec<Record> = (1..5000).rev().map(|version| put(&key, version, b"")).collect();
    let bytes = BlockEncoder::default().encode(&rows).to_vec();
    assert!(bytes.len() < 40_000);
    let mut decoded = Vec::new();
    let error = decode_rows(&bytes, W, &mut decoded).unwrap_err();
    assert_eq!(error, "a block with more rows than there can be");
}
