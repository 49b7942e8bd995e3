//! What the tests are built of: a database on a simulated disk, and what was committed to it.

use steadfast::{Database, DatabaseConfig, DurabilityMode, ErrorKind, Version};
use steadfast_testing::model::{Op, ReferenceModel, content_now};
use steadfast_testing::sim::{Choice, Moment, Plan, SimDisk, Unsynced};
use steadfast_testing::workload::{SEGMENT_BYTES, builder};

pub(crate) const BUFFERED: DurabilityMode = DurabilityMode::Buffered;

pub(crate) const STRICT: DurabilityMode = DurabilityMode::Strict;

pub(crate) fn put(key: &str, bytes: usize) -> Vec<Op> {
    vec![Op::Put("r".into(), key.into(), vec![7u8; bytes].as_slice().into())]
}

pub(crate) fn append(n: i64) -> Vec<Op> {
    vec![Op::Append("r".into(), "s".into(), n.into())]
}

/// More than a frame of the smallest segments: parts, then a commit frame.
pub(crate) fn streamed(name: &str) -> Vec<Op> {
    (0..14).flat_map(|n| put(&format!("{name}{n}"), 2000)).collect()
}

pub(crate) fn config(mode: DurabilityMode) -> DatabaseConfig {
    DatabaseConfig::new(mode).segment_bytes(SEGMENT_BYTES).manual_checkpoints()
}

/// A database on a simulated disk, and what was committed to it.
pub(crate) struct Life {
    pub(crate) disk: SimDisk,
    pub(crate) db: Database,
    pub(crate) config: DatabaseConfig,
    /// What must be there after the first so many commits, and the version of the last.
    pub(crate) states: Vec<(Version, ReferenceModel)>,
}

impl Life {
    pub(crate) fn new(mode: DurabilityMode) -> Self {
        let disk = SimDisk::new();
        let db = builder(&disk, config(mode)).open().unwrap();
        let states = vec![(Version::ZERO, ReferenceModel::new())];
        Self { disk, db, config: config(mode), states }
    }

    pub(crate) fn try_commit(&mut self, ops: &[Op]) -> steadfast::Result<Version> {
        let done = self.db.transaction(|tx| ops.iter().try_for_each(|op| op.apply(tx)))?;
        let version = done.1.version();
        let mut model = self.states.last().unwrap().1.clone();
        model.apply(ops, version);
        self.states.push((version, model));
        Ok(version)
    }

    pub(crate) fn commit(&mut self, ops: &[Op]) -> Version {
        self.try_commit(ops).unwrap()
    }

    pub(crate) fn commits(&self) -> usize {
        self.states.len() - 1
    }

    /// Goes on with another disk that it left.
    pub(crate) fn reborn(&mut self, disk: SimDisk) {
        self.db = builder(&disk, self.config.clone()).open().unwrap();
        self.disk = disk;
    }

    /// The process ends and the database is opened again.
    pub(crate) fn killed(&mut self) {
        let disk = self.disk.killed();
        self.reborn(disk);
    }

    pub(crate) fn moments(&self, act: impl FnOnce(&Database)) -> Vec<Moment> {
        self.disk.record_moments();
        act(&self.db);
        self.disk.take_moments()
    }

    /// Opens an image: a prefix of the commits is there, at least `least`. How many?
    pub(crate) fn expect(&self, image: &SimDisk, least: usize, what: &str) -> usize {
        let db = match builder(&image.killed(), self.config.clone()).open_existing() {
            Ok(db) => db,
            Err(error) => panic!("{what}: refused: {error}"),
        };
        let version = db.current_version();
        let kept = self.states.partition_point(|(other, _)| *other <= version) - 1;
        assert_eq!(self.states[kept].0, version, "{what}: no commit had that version");
        let differences = self.states[kept].1.compare(&content_now(&db).unwrap());
        assert_eq!(differences, [], "{what}: not the state after {kept} commits");
        assert!(kept >= least, "{what}: {kept} commits, {least} were due");
        kept
    }

    pub(crate) fn expect_all(&self, image: &SimDisk, what: &str) {
        self.expect(image, self.commits(), what);
    }

    /// It refuses, and the error names `file`.
    pub(crate) fn expect_refusal(&self, image: &SimDisk, file: &str, what: &str) {
        match builder(&image.killed(), self.config.clone()).open_existing() {
            Ok(_) => panic!("{what}: it opened"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
                assert!(error.to_string().contains(file), "{what}: does not name {file}: {error}");
            }
        }
    }
}

/// The image that a power cut leaves if what `keeps` says is kept, and nothing else.
pub(crate) fn cut_keeping(moment: &Moment, keeps: impl Fn(&Unsynced) -> bool) -> SimDisk {
    cut_by(moment, |op| if keeps(op) { Choice::Keep } else { Choice::Drop })
}

pub(crate) fn cut_by(moment: &Moment, choose: impl Fn(&Unsynced) -> Choice) -> SimDisk {
    moment.cut(&Plan(moment.unsynced().iter().map(choose).collect()))
}

pub(crate) fn cut(disk: &SimDisk) -> SimDisk {
    cut_keeping(&disk.moment(), |_| false)
}

pub(crate) fn segments(disk: &SimDisk) -> Vec<String> {
    let mut paths = disk.paths();
    paths.retain(|path| path.starts_with("db/WAL/"));
    paths
}

/// Where the groups of a segment begin, and where they end.
pub(crate) const HEADER_BYTES: usize = 4096;

pub(crate) fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// A database whose log has at least `count` segments with groups in them.
pub(crate) fn with_segments(mode: DurabilityMode, count: usize) -> Life {
    let mut life = Life::new(mode);
    let with_groups = |disk: &SimDisk| {
        let paths = segments(disk).into_iter();
        paths.filter(|path| used(&disk.bytes(path).unwrap()) > HEADER_BYTES).count()
    };
    let mut n = 0;
    while with_groups(&life.disk) < count {
        life.commit(&put(&format!("k{n}"), 1500));
        n += 1;
    }
    life
}
