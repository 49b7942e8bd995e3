//! A log on a real disk and a target that remembers what it was given.
#![allow(missing_docs, unreachable_pub)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use steadfast_core::{
    Entropy, Key, Namespace, NamespaceId, Record, ReplayTarget, RetentionPolicy, Timestamp,
    TypeTag, Value, Version, WriteSet,
};
use steadfast_durability::disk::Disk;
use steadfast_durability::layout::Layout;
use steadfast_durability::manifest::Manifest;
use steadfast_durability::recovery::{RecoveryPolicy, RecoveryReport, open_snapshot, recover};
use steadfast_durability::wal::chain::{Beside, Wal};
use steadfast_durability::wal::frame::Frame;
use steadfast_durability::wal::writer::{NamespaceLookup, Outgoing, WalOptions, WalWriter};
use steadfast_durability::{ReplayStats, Result, StdDisk, replay_wal};

/// The log of a database, without the database.
pub struct Log {
    pub disk: Arc<dyn Disk>,
    pub layout: Layout,
    pub options: WalOptions,
}

#[derive(Default)]
pub struct Target {
    pub rows: Mutex<BTreeMap<Vec<u8>, Record>>,
    pub namespaces: Mutex<BTreeMap<NamespaceId, Namespace>>,
    pub finished: Mutex<Option<Version>>,
}

impl ReplayTarget for Target {
    fn apply(&self, run: Vec<Record>) {
        let mut rows = self.rows.lock().unwrap();
        for record in run {
            let newer = rows.get(record.key()).is_none_or(|old| old.version() <= record.version());
            if newer {
                rows.insert(record.key().to_vec(), record);
            }
        }
    }

    fn define_namespace(&self, id: NamespaceId, namespace: &Namespace) {
        self.namespaces.lock().unwrap().insert(id, namespace.clone());
    }

    fn finish(&self, version: Version) {
        assert!(self.finished.lock().unwrap().replace(version).is_none(), "finished once");
    }
}

impl Target {
    /// Value and version of a key, if it is there.
    pub fn get(&self, name: &str) -> Option<(Value, Version)> {
        let rows = self.rows.lock().unwrap();
        let record = rows.get(key(name).as_bytes()).filter(|record| !record.is_tombstone())?;
        Some((record.value().unwrap(), record.version()))
    }

    pub fn len(&self) -> usize {
        self.rows.lock().unwrap().values().filter(|record| !record.is_tombstone()).count()
    }
}

/// Every test uses this one namespace.
pub struct OneNamespace;

impl NamespaceLookup for OneNamespace {
    fn namespace(&self, _: NamespaceId) -> Option<Namespace> {
        Some(namespace())
    }
}

pub fn namespace() -> Namespace {
    Namespace::for_run(steadfast_core::RunId::from_bytes([9; 16]))
}

pub fn key(name: &str) -> Key {
    Key::new(NamespaceId(1), TypeTag::Kv, name.as_bytes()).unwrap()
}

pub fn writes(pairs: &[(&str, Option<i64>)]) -> WriteSet {
    let mut set = WriteSet::new();
    for (name, value) in pairs {
        match value {
            Some(n) => set.put(&key(name), &Value::Int(*n), None).unwrap(),
            None => set.delete(key(name).as_bytes()).unwrap(),
        }
    }
    set
}

impl Log {
    /// A new database's log at `root`.
    pub fn create(root: &Path, options: WalOptions) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(StdDisk);
        let layout = Layout::new(root);
        for directory in [layout.wal(), layout.snapshots()] {
            disk.create_dir(&directory).unwrap();
        }
        let manifest = Manifest::new([7; 16], Timestamp::ZERO, RetentionPolicy::default());
        manifest.write(&*disk, &layout).unwrap();
        Self { disk, layout, options }
    }

    pub fn buffered(root: &Path) -> Self {
        Self::create(root, WalOptions { segment_bytes: 64 << 10, direct: false })
    }

    pub fn manifest(&self) -> Manifest {
        Manifest::read(&*self.disk, &self.layout).unwrap().unwrap()
    }

    /// Recovers, and opens for writing.
    pub fn open(&self) -> Result<(WalWriter, Target, RecoveryReport)> {
        let target = Target::default();
        let manifest = self.manifest();
        let policy = RecoveryPolicy::default();
        let opened = open_snapshot(&*self.disk, &self.layout, &manifest, RecoveryPolicy::Default)?;
        let recovered = recover(
            &*self.disk,
            &self.layout,
            &manifest,
            opened,
            &target,
            policy,
            Beside::Nobody,
            &mut steadfast_durability::progress::unheard,
        )?;
        let entropy = Entropy::seeded(manifest.epochs.len() as u64);
        let (manifest, resume, report) =
            recovered.prepare_writing(&self.disk, &self.layout, self.options, &entropy)?;
        let writer = WalWriter::new(
            self.disk.clone(),
            self.layout.clone(),
            self.options,
            manifest,
            resume,
            entropy,
            Arc::new(OneNamespace),
        );
        Ok((writer, target, report))
    }

    /// Replays without judging.
    pub fn replay(&self) -> (Target, ReplayStats) {
        let wal = Wal::open(&*self.disk, &self.layout, &self.manifest()).unwrap();
        let target = Target::default();
        let stats = replay_wal(&wal, &target).unwrap();
        (target, stats)
    }
}

/// Appends one ordinary transaction.
pub fn commit(writer: &mut WalWriter, version: u64, pairs: &[(&str, Option<i64>)]) {
    let writes = writes(pairs);
    let item = Outgoing::Txn {
        version: Version(version),
        timestamp: Timestamp::from_micros(version),
        namespaces: &[NamespaceId(1)],
        writes: writes.as_bytes(),
    };
    writer.append(&[item], 0, false).unwrap();
}

/// Appends single frames of streamed transactions, as a test wants them.
pub fn append(writer: &mut WalWriter, frames: &[Frame<'_>]) {
    for frame in frames {
        let item = match frame {
            Frame::Commit { .. } => {
                Outgoing::StreamCommit { frame: *frame, defined: &[NamespaceId(1)] }
            }
            _ => Outgoing::Stream(*frame),
        };
        writer.append(&[item], 0, false).unwrap();
    }
}
