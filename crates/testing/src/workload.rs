//! A program that uses a database, drawn from a seed, and the record of what it was told.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use steadfast_engine::{
    Clock, CompactMode, Database, DatabaseBuilder, DatabaseConfig, DurabilityMode, Entropy, Error,
    ErrorKind, ManualClock, Result, Retention, RetentionPolicy, RunStatus, Timestamp, TypeTag,
    Value, Version,
};

use crate::model::{Item, Op, ReferenceModel};
use crate::sim::SimDisk;

/// One thing that the program does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Commits a transaction.
    Commit(Vec<Op>),
    /// Commits a transaction and waits until it is durable, whatever the mode.
    CommitStrict(Vec<Op>),
    /// Commits several transactions that are written together.
    Together(Vec<Vec<Op>>),
    /// Makes everything durable.
    Flush,
    /// Lets time pass, then does what the background threads would do.
    Maintain(Duration),
    /// Writes a snapshot.
    Checkpoint,
    /// Removes what is not needed any more.
    Compact(CompactMode),
    /// Commits a transaction that is given its version before a checkpoint, and, if a mode is
    /// given, a compaction, and written to its end only after it.
    Straddle(Vec<Op>, Option<CompactMode>),
    /// Closes and opens again.
    Reopen,
}

impl Action {
    /// The same with one operation less, if it has one there and is not only that.
    pub fn without(&self, op: usize) -> Option<Self> {
        let fewer = |ops: &Vec<Op>| {
            let mut ops = ops.clone();
            (ops.len() > 1 && op < ops.len()).then(|| {
                ops.remove(op);
                ops
            })
        };
        match self {
            Self::Commit(ops) => fewer(ops).map(Self::Commit),
            Self::CommitStrict(ops) => fewer(ops).map(Self::CommitStrict),
            Self::Straddle(ops, mode) => fewer(ops).map(|ops| Self::Straddle(ops, *mode)),
            Self::Together(transactions) => {
                let mut fewer = transactions.clone();
                (fewer.len() > 1 && op < fewer.len()).then(|| {
                    fewer.remove(op);
                    Self::Together(fewer)
                })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |ops: &[Op]| ops.iter().map(Op::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::Commit(ops) => write!(f, "commit: {}", list(ops)),
            Self::CommitStrict(ops) => write!(f, "commit and wait for the sync: {}", list(ops)),
            Self::Together(transactions) => {
                let each: Vec<_> = transactions.iter().map(|ops| list(ops)).collect();
                write!(f, "commit together: {}", each.join(" | "))
            }
            Self::Flush => f.write_str("flush"),
            Self::Maintain(time) => write!(f, "let {time:?} pass"),
            Self::Checkpoint => f.write_str("checkpoint"),
            Self::Compact(mode) => write!(f, "compact ({mode:?})"),
            Self::Straddle(ops, mode) => {
                write!(f, "commit with a checkpoint in between")?;
                if let Some(mode) = mode {
                    write!(f, " and a compaction ({mode:?})")?;
                }
                write!(f, ": {}", list(ops))
            }
            Self::Reopen => f.write_str("close and open"),
        }
    }
}

/// A program and how it opens its database.
#[derive(Debug, Clone)]
pub struct Workload {
    /// What it does, in order.
    pub actions: Vec<Action>,
    /// How its database is opened.
    pub config: DatabaseConfig,
    /// The mode in `config`.
    pub mode: DurabilityMode,
    /// Where its random bits begin: two programs with the same are twins.
    pub entropy_seed: u64,
    /// Which versions of key-values and state cells are kept, and can be looked at. If it is
    /// more than the newest, every version of all else is.
    pub keeps: Retention,
}

/// The window of [`Workload::seeded`] in batched mode.
pub const BATCHED: DurabilityMode =
    DurabilityMode::Batched { interval: Duration::from_millis(100), commits: 5 };

/// The three modes, with a small window.
pub const MODES: [DurabilityMode; 3] = [DurabilityMode::Strict, BATCHED, DurabilityMode::Buffered];

/// The least that a segment can be, so that a short program goes through several.
pub const SEGMENT_BYTES: u64 = 16 << 10;

impl Workload {
    /// `length` actions drawn from `seed`.
    pub fn seeded(seed: u64, mode: DurabilityMode, length: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut actions = vec![Action::Commit(vec![Op::Run("run-0".into())])];
        while actions.len() < length {
            // A stream across a checkpoint is in every longer program, early and late.
            if length >= 30 && (actions.len() % (length / 3)) == length / 3 - 3 {
                let mode = (actions.len() > length / 2).then_some(CompactMode::WalOnly);
                actions.push(Action::Commit(small(&mut rng)));
                actions.push(Action::Straddle(streamed(&mut rng), mode));
            }
            actions.push(match rng.u32(..100) {
                0..55 => Action::Commit(small(&mut rng)),
                55..62 => Action::CommitStrict(small(&mut rng)),
                62..72 => Action::Together((0..rng.usize(2..5)).map(|_| small(&mut rng)).collect()),
                72..77 => Action::Commit(large(&mut rng)),
                77..79 => Action::Flush,
                79..83 => Action::Checkpoint,
                83..86 => Action::Compact(CompactMode::WalOnly),
                86..88 => Action::Compact(CompactMode::Full),
                88..91 => {
                    let ops = if rng.bool() { streamed(&mut rng) } else { small(&mut rng) };
                    let modes = [None, Some(CompactMode::WalOnly), Some(CompactMode::Full)];
                    Action::Straddle(ops, modes[rng.usize(..3)])
                }
                91..95 => Action::Maintain(Duration::from_millis(rng.u64(1..250))),
                _ => Action::Reopen,
            });
        }
        Self::new(actions, mode)
    }

    /// These actions, with the smallest segments.
    pub const fn new(actions: Vec<Action>, mode: DurabilityMode) -> Self {
        let config = DatabaseConfig::new(mode).segment_bytes(SEGMENT_BYTES).manual_checkpoints();
        Self { actions, config, mode, entropy_seed: 1, keeps: Retention::NEWEST }
    }

    /// With runs that get a status, are deleted and come back by the same name, between the other
    /// actions. What it draws for that it draws from `seed`.
    #[must_use]
    pub fn with_runs_that_end(mut self, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let actions = std::mem::take(&mut self.actions);
        for action in actions {
            self.actions.push(action);
            // With something beside it, in the same run or in another one: a status that a run
            // has already writes nothing.
            let mut ops = small(&mut rng);
            let run = run_name(&mut rng);
            let op = match rng.u32(..10) {
                0 => Op::DeleteRun(run),
                1 => Op::Status(run, RunStatus::ALL[rng.usize(..RunStatus::ALL.len())]),
                _ => continue,
            };
            ops.insert(rng.usize(..=ops.len()), op);
            self.actions.push(Action::Commit(ops));
        }
        self
    }

    /// With streams that are trimmed, between the other actions. What it draws for that it draws
    /// from `seed`.
    #[must_use]
    pub fn with_trims(mut self, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let actions = std::mem::take(&mut self.actions);
        for action in actions {
            self.actions.push(action);
            if rng.u32(..4) > 0 {
                continue;
            }
            let (run, stream) = (run_name(&mut rng), format!("s{}", rng.u32(..2)));
            // Something is there to be trimmed, in most cases: then nothing else is in the
            // transaction that a trim may not follow.
            let event = Op::Append(run.clone(), stream.clone(), value(&mut rng, 100));
            let mut ops = vec![Op::Trim(run, stream, rng.u64(..3)), event.clone()];
            if rng.bool() {
                self.actions.push(Action::Commit(vec![event]));
            }
            if rng.bool() {
                ops.pop();
            }
            self.actions.push(Action::Commit(ops));
        }
        self
    }

    /// With runs that are forked, written to and deleted, between the other actions. What it draws
    /// for that it draws from `seed`.
    #[must_use]
    pub fn with_forks(mut self, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let actions = std::mem::take(&mut self.actions);
        let fork = |rng: &mut fastrand::Rng| format!("fork-{}", rng.u32(..3));
        for action in actions {
            self.actions.push(action);
            let any = if rng.bool() { run_name(&mut rng) } else { fork(&mut rng) };
            let ops = match rng.u32(..8) {
                0 | 1 => vec![Op::Fork(any, fork(&mut rng))],
                2 => vec![Op::DeleteRun(any)],
                3 | 4 => {
                    let n = rng.u32(..100);
                    let key = format!("k{}", rng.u32(..4));
                    let at = 1_000_000 + u64::from(n);
                    vec![
                        Op::Put(any.clone(), key.clone(), Value::from(n)),
                        Op::Append(any.clone(), "s".into(), Value::from(n)),
                        Op::Signal(any, "seen".into(), key, n, at),
                    ]
                }
                5 => vec![Op::Delete(any, format!("k{}", rng.u32(..4)))],
                _ => continue,
            };
            self.actions.push(Action::Commit(ops));
        }
        self
    }

    /// With every version kept.
    #[must_use]
    pub fn keeping_all(mut self) -> Self {
        self.config = self.config.retention(Retention::KeepAll);
        self.keeps = Retention::KeepAll;
        self
    }

    /// With collections, cohorts and graphs in every run, between the other actions. What it draws
    /// for that it draws from `seed`.
    #[must_use]
    pub fn with_sets_and_graphs(mut self, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let actions = std::mem::take(&mut self.actions);
        for action in actions {
            self.actions.push(action);
            let run = run_name(&mut rng);
            let ops = (0..rng.usize(..4)).map(|_| in_a_set_or_graph(&mut rng, run.clone()));
            match ops.collect::<Vec<_>>() {
                ops if ops.is_empty() => {}
                ops => self.actions.push(Action::Commit(ops)),
            }
        }
        self
    }

    /// With these versions of key-values and state cells kept, and every version of all else.
    #[must_use]
    pub fn keeping(mut self, rule: Retention) -> Self {
        let policy = RetentionPolicy::from(Retention::KeepAll);
        let policy = [TypeTag::Kv, TypeTag::State]
            .into_iter()
            .fold(policy, |policy, tag| policy.with_primitive(tag, rule));
        self.config = self.config.retention(policy);
        self.keeps = rule;
        self
    }

    /// With a checkpoint and a compaction after so many bytes of log.
    #[must_use]
    pub fn with_checkpoints_after(mut self, bytes: u64) -> Self {
        self.config = self.config.checkpoint_bytes(bytes);
        self
    }
}

fn run_name(rng: &mut fastrand::Rng) -> String {
    format!("run-{}", rng.u32(..3))
}

fn value(rng: &mut fastrand::Rng, bytes_max: usize) -> Value {
    match rng.u32(..5) {
        0 => Value::Null,
        1 => Value::Int(rng.i64(..)),
        2 => Value::Bool(rng.bool()),
        _ => {
            let bytes: Vec<u8> = (0..rng.usize(..bytes_max)).map(|_| rng.u8(..)).collect();
            Value::from(bytes.as_slice())
        }
    }
}

fn small(rng: &mut fastrand::Rng) -> Vec<Op> {
    let op = |rng: &mut fastrand::Rng| {
        let run = run_name(rng);
        match rng.u32(..12) {
            0..5 => Op::Put(run, format!("k{}", rng.u32(..12)), value(rng, 300)),
            5..6 => Op::Delete(run, format!("k{}", rng.u32(..12))),
            6..8 => Op::Append(run, format!("s{}", rng.u32(..2)), value(rng, 100)),
            8..10 => Op::Set(run, format!("c{}", rng.u32(..3)), value(rng, 30)),
            _ => observed(rng, run),
        }
    };
    (0..rng.usize(1..4)).map(|_| op(rng)).collect()
}

/// An observation: of few entities, so that many meet, and out of order.
fn observed(rng: &mut fastrand::Rng, run: String) -> Op {
    let ago = [1 << 20, 1 << 28, 1 << 34, 1 << 38][rng.usize(..4)];
    let at = (1 << 50) - rng.u64(..ago);
    let name = ["view", "like"][rng.usize(..2)].to_owned();
    Op::Signal(run, name, format!("e{}", rng.u32(..2)), rng.u32(..10), at)
}

/// Of few names, so that many meet.
fn in_a_set_or_graph(rng: &mut fastrand::Rng, run: String) -> Op {
    let name = |what: &str, rng: &mut fastrand::Rng, n: u32| format!("{what}{}", rng.u32(..n));
    match rng.u32(..16) {
        0..3 => Op::Collect(run, name("set", rng, 2), name("i", rng, 6)),
        3 => Op::Uncollect(run, name("set", rng, 2), name("i", rng, 6)),
        4 => Op::Uncollected(run, name("set", rng, 2)),
        5..7 => Op::Level(run, name("e", rng, 2), rng.i64(..4)),
        7 => {
            let level = rng.u32(1..3);
            Op::Cohort(run, format!("from-{level}"), level.into())
        }
        8..11 => observed(rng, run),
        _ => {
            let at = (1 << 50) - rng.u64(..1000);
            let (graph, actor) = (name("graph", rng, 2), name("actor", rng, 2));
            Op::Engage(run, graph, actor, name("i", rng, 6), at)
        }
    }
}

/// A transaction that may not fit a frame.
fn large(rng: &mut fastrand::Rng) -> Vec<Op> {
    let count = rng.u32(4..14);
    puts(rng, count)
}

/// A transaction that does not fit a frame of the smallest segments.
fn streamed(rng: &mut fastrand::Rng) -> Vec<Op> {
    let count = rng.u32(STREAMED_OPS_MIN..16);
    puts(rng, count)
}

/// So many operations of [`puts`] are streamed.
const STREAMED_OPS_MIN: u32 = 13;

fn puts(rng: &mut fastrand::Rng, count: u32) -> Vec<Op> {
    let run = run_name(rng);
    let mut ops = Vec::new();
    for n in 0..count {
        let bytes: Vec<u8> = (0..rng.usize(1000..2500)).map(|_| rng.u8(..)).collect();
        ops.push(Op::Put(run.clone(), format!("large{n}"), Value::from(bytes.as_slice())));
    }
    ops
}

/// Whether it is as [`streamed`] makes them.
fn is_streamed(ops: &[Op]) -> bool {
    let name = |op: &Op| matches!(op, Op::Put(_, key, _) if key.starts_with("large"));
    ops.len() >= STREAMED_OPS_MIN as usize && ops.iter().all(name)
}

/// The key-values and state cells that `ops` write or delete.
fn touched(ops: &[Op]) -> Vec<Item> {
    let item = |op: &Op| match op {
        Op::Put(run, key, _) | Op::Delete(run, key) => {
            Some(Item::Kv(run.clone(), key.clone().into()))
        }
        Op::Set(run, cell, _) => Some(Item::State(run.clone(), cell.clone().into())),
        _ => None,
    };
    let items: BTreeSet<Item> = ops.iter().filter_map(item).collect();
    items.into_iter().collect()
}

/// There may be no checkpoint yet.
pub(crate) fn compact(db: &Database, mode: CompactMode) -> Result<()> {
    match db.compact(mode) {
        Err(error) if error.kind() == ErrorKind::Invalid => Ok(()),
        done => done.map(drop),
    }
}

/// How far the program had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The database was created: `open` returned.
    pub created: bool,
    /// Commits that were asked for and did not fail.
    pub issued: usize,
    /// Commits of which it was told that they are done.
    pub acknowledged: usize,
    /// Commits of which it was told that they are durable.
    pub promised: usize,
    /// The newest version that it was given for a commit that was acknowledged.
    pub handed_out: Version,
    /// The newest version it was given at all, also for a commit that is still queued or that
    /// failed.
    pub assigned: Version,
    /// What its clock said.
    pub now: Timestamp,
}

impl Progress {
    /// The fewest commits that a power cut may leave.
    pub fn kept_by_power_cut(&self, mode: DurabilityMode) -> usize {
        match mode {
            DurabilityMode::Strict => self.acknowledged,
            DurabilityMode::Batched { commits, .. } => {
                self.promised.max(self.acknowledged.saturating_sub(commits as usize))
            }
            _ => self.promised,
        }
    }
}

/// What the program was told, and what must be in the database after each commit.
#[derive(Debug)]
pub struct History {
    /// The version of each commit that did not fail, in order.
    pub versions: Vec<Version>,
    /// When each was made.
    pub times: Vec<Timestamp>,
    /// The key-values and state cells that each wrote or deleted.
    pub touched: Vec<Vec<Item>>,
    /// What must be there after the first so many commits; one more than `versions`.
    pub models: Vec<Arc<ReferenceModel>>,
    /// Progress by the notes of moments.
    pub progress: Vec<Progress>,
    /// How each action ended that did not end well.
    pub errors: Vec<(usize, Error)>,
    /// How often a snapshot was written while a streamed transaction had begun and not ended.
    pub straddled: u64,
}

/// A program at work on a simulated disk.
#[derive(Debug)]
pub struct Driver {
    disk: SimDisk,
    clock: ManualClock,
    entropy_seed: u64,
    workload: Workload,
    db: Option<Database>,
    history: History,
}

/// Where the database lies on a simulated disk.
pub fn path() -> PathBuf {
    PathBuf::from("db")
}

/// Opens a database on a simulated disk, with a clock and random bits of its own.
pub fn builder(disk: &SimDisk, config: DatabaseConfig) -> DatabaseBuilder {
    builder_at(disk, path(), config)
}

/// As [`builder`], for a database that lies elsewhere.
pub fn builder_at(
    disk: &SimDisk,
    path: impl AsRef<Path>,
    config: DatabaseConfig,
) -> DatabaseBuilder {
    // Two lives of a database never draw the same bits.
    static LIVES: AtomicU64 = AtomicU64::new(1 << 32);
    Database::builder(path)
        .disk(Arc::new(disk.clone()))
        .config(config)
        .clock(ManualClock::at(Timestamp::from_micros(1 << 50)))
        .entropy(Entropy::seeded(LIVES.fetch_add(1, Ordering::Relaxed)))
        .without_threads()
}

impl Driver {
    /// A program that has not begun.
    pub fn new(disk: SimDisk, workload: Workload) -> Self {
        Self {
            disk,
            clock: ManualClock::at(Timestamp::from_micros(1 << 50)),
            entropy_seed: workload.entropy_seed,
            workload,
            db: None,
            history: History {
                versions: Vec::new(),
                times: Vec::new(),
                touched: Vec::new(),
                models: vec![Arc::default()],
                progress: vec![Progress::default()],
                errors: Vec::new(),
                straddled: 0,
            },
        }
    }

    /// Runs the whole program, without closing the database at the end. What goes wrong is
    /// noted; after a failed sync nothing more is done.
    pub fn run(mut self) -> (History, Option<Database>) {
        if let Err(error) = self.open() {
            self.history.errors.push((0, error));
        }
        let actions = std::mem::take(&mut self.workload.actions);
        for (index, action) in actions.iter().enumerate() {
            if let Err(error) = self.act(action) {
                let end = matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Poisoned);
                self.history.errors.push((index, error));
                if end {
                    break;
                }
            }
        }
        (self.history, self.db)
    }

    fn open(&mut self) -> Result<()> {
        self.entropy_seed += 1;
        let db = builder(&self.disk, self.workload.config.clone())
            .clock(self.clock.clone())
            .entropy(Entropy::seeded(self.entropy_seed))
            .open()?;
        self.db = Some(db);
        self.note(|progress| progress.created = true);
        Ok(())
    }

    fn note(&mut self, change: impl FnOnce(&mut Progress)) {
        let mut progress = *self.history.progress.last().expect("there is always one");
        progress.now = self.clock.now();
        change(&mut progress);
        self.history.progress.push(progress);
        self.disk.note(self.history.progress.len() as u64 - 1);
    }

    /// Time passes, and that is noted: what is kept depends on it.
    fn advance(&mut self, time: Duration) {
        self.clock.advance(time);
        self.note(|_| {});
    }

    fn act(&mut self, action: &Action) -> Result<()> {
        if self.db.is_none() {
            self.open()?;
        }
        let db = self.db.clone().expect("it was just opened");
        self.advance(Duration::from_millis(3));
        match action {
            Action::Commit(ops) => self.commit(&db, &[ops], false, None)?,
            Action::CommitStrict(ops) => self.commit(&db, &[ops], true, None)?,
            Action::Together(transactions) => {
                self.commit(&db, &transactions.iter().collect::<Vec<_>>(), false, None)?;
            }
            Action::Straddle(ops, mode) => self.commit(&db, &[ops], false, Some(*mode))?,
            Action::Flush => {
                db.flush()?;
                self.note(|progress| progress.promised = progress.acknowledged);
            }
            Action::Maintain(duration) => {
                self.advance(*duration);
                db.maintain()?;
            }
            Action::Checkpoint => {
                db.checkpoint()?;
            }
            Action::Compact(mode) => compact(&db, *mode)?,
            Action::Reopen => {
                let closed = db.close();
                self.db = None;
                closed?;
                self.note(|progress| progress.promised = progress.acknowledged);
                self.open()?;
            }
        }
        self.note_promised(&db);
        Ok(())
    }

    /// What the database itself says is promised counts too.
    fn note_promised(&mut self, db: &Database) {
        let Ok(stats) = db.stats() else { return };
        let count = self.history.versions.partition_point(|version| *version <= stats.promised);
        self.note(|progress| progress.promised = progress.promised.max(count));
    }

    fn commit(
        &mut self,
        db: &Database,
        transactions: &[&Vec<Op>],
        strict: bool,
        straddling: Option<Option<CompactMode>>,
    ) -> Result<()> {
        let mut pending = Vec::new();
        let mut failed = None;
        for ops in transactions {
            let submitted = (|| {
                let mut tx = db.begin()?;
                ops.iter().try_for_each(|op| op.apply(&mut tx))?;
                if strict {
                    tx.raise_durability(DurabilityMode::Strict);
                }
                tx.submit()
            })();
            match submitted {
                Ok(Some(commit)) => {
                    let version = commit.version();
                    self.issue(ops, version);
                    pending.push(commit);
                }
                Ok(None) => {}
                // It read what another one of this group writes: it never was.
                Err(error) if error.kind() == ErrorKind::Conflict && transactions.len() > 1 => {}
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        if let Some(mode) = straddling {
            let streams = transactions.iter().any(|ops| is_streamed(ops)) && !pending.is_empty();
            let between = || {
                let written = db.checkpoint()?.written;
                mode.map_or(Ok(()), |mode| compact(db, mode))?;
                Ok(written)
            };
            match between() {
                Ok(written) => self.history.straddled += u64::from(written && streams),
                Err(error) => failed = Some(error),
            }
        }
        let mut lost = Vec::new();
        for commit in pending {
            let version = commit.version();
            match commit.wait() {
                Ok(_) => self.acknowledge(version, strict),
                Err(error) => {
                    if error.kind() != ErrorKind::Unknown {
                        lost.push(version);
                    }
                    failed = Some(error);
                }
            }
        }
        self.forget(&lost);
        failed.map_or(Ok(()), Err)
    }

    fn issue(&mut self, ops: &[Op], version: Version) {
        let mut model = ReferenceModel::clone(self.history.models.last().expect("never empty"));
        model.apply(ops, version);
        self.history.models.push(Arc::new(model));
        self.history.versions.push(version);
        self.history.times.push(self.clock.now());
        self.history.touched.push(touched(ops));
        let issued = self.history.versions.len();
        self.note(|progress| {
            progress.issued = issued;
            progress.assigned = progress.assigned.max(version);
        });
    }

    fn acknowledge(&mut self, version: Version, strict: bool) {
        let count = self.history.versions.partition_point(|other| *other <= version);
        let strict = strict || self.workload.mode == DurabilityMode::Strict;
        self.note(|progress| {
            progress.acknowledged = progress.acknowledged.max(count);
            progress.handed_out = progress.handed_out.max(version);
            if strict {
                progress.promised = progress.promised.max(count);
            }
        });
    }

    /// Commits that failed never were. They are the newest: what is told so fails in order.
    fn forget(&mut self, lost: &[Version]) {
        if lost.is_empty() {
            return;
        }
        let history = &mut self.history;
        let keep = history.versions.partition_point(|version| !lost.contains(version));
        assert!(
            history.versions[keep..].iter().all(|version| lost.contains(version)),
            "a commit failed and a later one of the same group did not"
        );
        history.versions.truncate(keep);
        history.times.truncate(keep);
        history.touched.truncate(keep);
        history.models.truncate(keep + 1);
        self.note(|progress| progress.issued = keep);
    }
}
