//! The bodies of the fuzz targets, with what was committed of their corpus, with changes of it
//! and with bytes drawn at random (P6, P11).
//!
//! `STEADFAST_WRITE_CORPUS=1` writes the seeds of the corpus anew.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use steadfast_testing::fuzz::{
    TARGETS, Target, database, frame, manifest, replay, segment, snapshot,
};
use steadfast_testing::sabotage::{Sabotage, sabotage_this_thread};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

fn entries(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut entries: Vec<_> = std::fs::read_dir(corpus(target))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap())
        })
        .collect();
    entries.sort();
    entries
}

#[test]
fn the_committed_corpus_passes() {
    for Target { name, body, seeds } in TARGETS {
        if std::env::var_os("STEADFAST_WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(corpus(name)).unwrap();
            for (number, seed) in seeds().iter().enumerate() {
                std::fs::write(corpus(name).join(format!("seed-{number:02}")), seed).unwrap();
            }
        }
        let entries = entries(name);
        assert!(entries.len() >= seeds().len(), "{name}: {} entries", entries.len());
        for (entry, bytes) in entries {
            println!("{name}/{entry}");
            body(&bytes);
        }
    }
}

#[test]
fn every_target_is_built() {
    let manifest = include_str!("../../../fuzz/Cargo.toml");
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
    }
}

/// An entry of the corpus with some bytes changed, some taken away, and some more behind it.
fn changed(target: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let parts = (
        prop::sample::select(entries(target)),
        prop::collection::vec(change, 0..12),
        any::<prop::sample::Index>(),
        0..40usize,
        prop::collection::vec(any::<u8>(), 0..24),
    );
    parts.prop_map(|((_, mut bytes), changes, at, gone, more)| {
        if !bytes.is_empty() {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let at = at.index(bytes.len());
            let end = bytes.len().min(at + gone);
            bytes.drain(at..end);
        }
        bytes.extend(more);
        bytes
    })
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..600)
}

macro_rules! body {
    ($name:ident, $body:ident, $cases:literal) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases($cases))]
            #[test]
            fn $name(bytes in prop_oneof![3 => changed(stringify!($body)), 1 => any_bytes()]) {
                $body(&bytes);
            }
        }
    };
}

body!(no_bytes_confuse_a_frame, frame, 3000);
body!(no_bytes_confuse_a_segment, segment, 500);
body!(no_bytes_confuse_replay, replay, 500);
body!(no_bytes_confuse_a_manifest, manifest, 3000);
body!(no_bytes_confuse_a_snapshot, snapshot, 300);
body!(no_damage_makes_a_database_show_what_never_was, database, 300);

/// What shows that the body for whole databases can fail: it does, when checksums are ignored.
#[test]
fn changes_of_a_database_find_planted_bugs() {
    for sabotage in [Sabotage::IgnoreGroupChecksum, Sabotage::IgnoreSnapshotChecksum] {
        let mut rng = fastrand::Rng::with_seed(1);
        let seeds = entries("database");
        let found = (0..3000).position(|_| {
            let mut bytes = seeds[rng.usize(..seeds.len())].1.clone();
            bytes.extend((0..8).map(|_| rng.u8(..)));
            sabotage_this_thread(Some(sabotage));
            let passed = std::panic::catch_unwind(|| database(&bytes));
            sabotage_this_thread(None);
            passed.is_err()
        });
        println!("{sabotage}: {found:?}");
        assert!(found.is_some(), "{sabotage} was not found");
    }
}
