//! Commits that no engine made: written into the log of a database in a real directory by whoever
//! knows the format, with right checksums, whatever they say.
//!
//! It panics where a test should: it is not for programs.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use steadfast_core::{Entropy, Key, Namespace, NamespaceId, Timestamp, TypeTag, Version, WriteSet};
use steadfast_durability::StdDisk;
use steadfast_durability::disk::Disk;
use steadfast_durability::layout::Layout;
use steadfast_durability::manifest::Manifest;
use steadfast_durability::recovery::{RecoveryPolicy, open_snapshot, recover};
use steadfast_durability::wal::chain::Beside;
use steadfast_durability::wal::writer::{NamespaceLookup, Outgoing, WalOptions, WalWriter};
use steadfast_engine::{Database, UnifiedStore};

struct NoNewNamespaces;

impl NamespaceLookup for NoNewNamespaces {
    fn namespace(&self, _: NamespaceId) -> Option<Namespace> {
        None
    }
}

/// Appends a commit to the log of the database at `root`, which nobody has open: each stored key
/// gets these bytes for its value. Returns its version.
pub fn append(root: &Path, puts: &[(&[u8], &[u8])]) -> Version {
    let disk: Arc<dyn Disk> = Arc::new(StdDisk);
    let (layout, store) = (Layout::new(root), UnifiedStore::new());
    let manifest = Manifest::read(&*disk, &layout).unwrap().unwrap();
    let policy = RecoveryPolicy::Default;
    let opened = open_snapshot(&*disk, &layout, &manifest, policy).unwrap();
    let heard = &mut steadfast_durability::progress::unheard;
    let recovered =
        recover(&*disk, &layout, &manifest, opened, &store, policy, Beside::Nobody, heard);
    let options = WalOptions { segment_bytes: 64 << 10, direct: false };
    let entropy = Entropy::seeded(1);
    let (manifest, resume, _) =
        recovered.unwrap().prepare_writing(&disk, &layout, options, &entropy).unwrap();
    let (version, timestamp) = (resume.next_version, resume.last.1);
    let lookup = Arc::new(NoNewNamespaces);
    let mut writer = WalWriter::new(disk, layout, options, manifest, resume, entropy, lookup);
    let mut writes = WriteSet::new();
    for (key, value) in puts {
        writes.put_encoded(key, value, None).unwrap();
    }
    let namespaces = &[][..];
    let item = Outgoing::Txn { version, timestamp, namespaces, writes: writes.as_bytes() };
    writer.append(&[item], 0, true).unwrap();
    writer.close(version.next()).unwrap();
    version
}

/// The one stored key of the database at `root` to which `is_it` says yes: its primitive, and the
/// primitive's own part of it.
pub fn stored_key(root: &Path, is_it: impl Fn(TypeTag, &[u8]) -> bool) -> Vec<u8> {
    let db = Database::open_read_only(root).unwrap();
    db.wait_loaded().unwrap();
    let rows = db.storage().view(Timestamp::MAX).range_versions(..);
    let keys = rows.map(|row| row.unwrap().key().to_vec());
    let mut keys: Vec<_> =
        keys.filter(|key| is_it(Key::tag_of(key).unwrap(), Key::user_part(key))).collect();
    keys.dedup();
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys.remove(0)
}
