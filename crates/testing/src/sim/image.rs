//! What a power cut may leave: every operation that was not durable was kept, dropped, torn
//! or garbled.

use std::sync::{Arc, OnceLock};

use crate::sim::disk::SimDisk;
use crate::sim::plan::{Choice, Plan};
use crate::sim::tree::{
    Dir, DirChange, DirOp, File, FileChange, FileOp, Id, Tree, apply_dir, apply_file,
};

/// What a device writes whole, in bytes.
pub(crate) const SECTOR: u64 = 512;

/// Above this many pending operations, those tried one by one are a sample.
const ONE_BY_ONE_MAX: usize = 16;

/// Above this many sectors, those of a torn write tried one by one are the first and last.
const SECTORS_MAX: u64 = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    File(Id, usize),
    Dir(Id, usize),
}

#[derive(Clone)]
pub(crate) struct Pending {
    step: u64,
    pub(crate) target: Target,
    /// How many sectors a write touches; 0 for anything else.
    sectors: u64,
}

/// A disk at one moment of its life.
#[derive(Clone)]
pub struct Moment {
    pub(crate) tree: Tree,
    step: u64,
    note: u64,
    /// Many images are made of one moment.
    pending: OnceLock<Vec<Pending>>,
}

impl std::fmt::Debug for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Moment(after step {}, note {})", self.step, self.note)
    }
}

/// One operation that is not durable, in the order of the choices of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsynced {
    /// The I/O step that made it.
    pub step: u64,
    /// The file, or the directory whose names it changes; empty for the topmost directory, and
    /// for a file that has no name.
    pub path: String,
    /// What it does.
    pub change: UnsyncedChange,
}

/// What an operation does that is not durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnsyncedChange {
    /// Writes `bytes` bytes at `offset`, touching so many sectors.
    Write {
        /// Where it begins.
        offset: u64,
        /// How many.
        bytes: u64,
        /// How many sectors it touches.
        sectors: u64,
    },
    /// Sets the length of a file.
    Len(u64),
    /// Gives something a name.
    Link(String),
    /// Takes a name away.
    Unlink(String),
    /// Gives a file another name.
    Rename {
        /// The old one.
        from: String,
        /// The new one.
        to: String,
    },
}

impl std::fmt::Display for Unsynced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { step, path, change } = self;
        match change {
            UnsyncedChange::Write { offset, bytes, sectors } => {
                write!(f, "{step} write {path} {offset}+{bytes}, {sectors} sectors")
            }
            UnsyncedChange::Len(len) => write!(f, "{step} length {path} {len}"),
            UnsyncedChange::Link(name) => write!(f, "{step} name {path}/{name}"),
            UnsyncedChange::Unlink(name) => write!(f, "{step} remove {path}/{name}"),
            UnsyncedChange::Rename { from, to } => {
                write!(f, "{step} rename {path}/{from} to {to}")
            }
        }
    }
}

fn sectors(offset: u64, len: usize) -> u64 {
    let end = offset + len as u64;
    end.div_ceil(SECTOR) - offset / SECTOR
}

impl Moment {
    pub(crate) const fn new(tree: Tree, step: u64, note: u64) -> Self {
        Self { tree, step, note, pending: OnceLock::new() }
    }

    /// How many steps were done.
    pub const fn step(&self) -> u64 {
        self.step
    }

    /// What [`SimDisk::note`] was last told.
    pub const fn note(&self) -> u64 {
        self.note
    }

    /// The disk as it is when only the process ends: everything it handed over is there, and
    /// what is not durable may still be lost later.
    pub fn kill(&self) -> SimDisk {
        SimDisk::from_tree(self.tree.clone())
    }

    /// How many operations are not durable.
    pub fn pending_len(&self) -> usize {
        self.pending().len()
    }

    /// The operations that are not durable, one for each choice of a plan: what a plan that
    /// fails is about.
    pub fn unsynced(&self) -> Vec<Unsynced> {
        let paths = self.tree.paths();
        let of = |id: &Id| paths.get(id).cloned().unwrap_or_default();
        let describe = |pending: &Pending| {
            let step = pending.step;
            let (path, change) = match pending.target {
                Target::File(id, index) => {
                    let change = match &self.tree.files[&id].pending[index].change {
                        FileChange::Write { offset, bytes } => UnsyncedChange::Write {
                            offset: *offset,
                            bytes: bytes.len() as u64,
                            sectors: pending.sectors,
                        },
                        FileChange::Len(len) => UnsyncedChange::Len(*len),
                    };
                    (of(&id), change)
                }
                Target::Dir(id, index) => {
                    let change = match self.tree.dirs[&id].pending[index].change.clone() {
                        DirChange::Link { name, .. } => UnsyncedChange::Link(name),
                        DirChange::Unlink { name } => UnsyncedChange::Unlink(name),
                        DirChange::Rename { from, to, .. } => UnsyncedChange::Rename { from, to },
                    };
                    (of(&id), change)
                }
            };
            Unsynced { step, path, change }
        };
        self.pending().iter().map(describe).collect()
    }

    pub(crate) fn pending(&self) -> &[Pending] {
        self.pending.get_or_init(|| self.find_pending())
    }

    fn find_pending(&self) -> Vec<Pending> {
        let reachable = self.tree.reachable();
        let mut found = Vec::new();
        for (id, dir) in self.tree.dirs.iter().filter(|(id, _)| reachable.contains(id)) {
            for (index, op) in dir.pending.iter().enumerate() {
                found.push(Pending { step: op.step, target: Target::Dir(*id, index), sectors: 0 });
            }
        }
        for (id, file) in self.tree.files.iter().filter(|(id, _)| reachable.contains(id)) {
            for (index, op) in file.pending.iter().enumerate().filter(|(_, op)| !op.forced) {
                let sectors = match &op.change {
                    FileChange::Write { offset, bytes } => sectors(*offset, bytes.len()),
                    FileChange::Len(_) => 0,
                };
                found.push(Pending { step: op.step, target: Target::File(*id, index), sectors });
            }
        }
        found.sort_by_key(|pending| pending.step);
        found
    }

    /// The disk that a power cut now may leave, by one choice for each pending operation.
    /// Choices that are missing keep.
    pub fn cut(&self, plan: &Plan) -> SimDisk {
        let mut tree = self.tree.clone();
        // Most choices keep: only the others are looked up.
        let mut others: Vec<_> = (self.pending().iter().enumerate())
            .map(|(index, pending)| (pending.target, plan.choice(index)))
            .filter(|(_, choice)| *choice != Choice::Keep)
            .collect();
        others.sort_unstable_by_key(|other| other.0);
        let choice = |target: Target| match others.binary_search_by_key(&target, |other| other.0) {
            Ok(at) => others[at].1,
            Err(_) => Choice::Keep,
        };
        for (id, dir) in &mut tree.dirs {
            if dir.pending.is_empty() && dir.cached == dir.durable {
                continue;
            }
            let mut names = dir.durable.clone();
            for (index, DirOp { change, .. }) in dir.pending.iter().enumerate() {
                if choice(Target::Dir(*id, index)) != Choice::Drop {
                    apply_dir(&mut names, change);
                }
            }
            *dir = Arc::new(Dir { durable: names.clone(), cached: names, pending: Vec::new() });
        }
        for (id, file) in &mut tree.files {
            if file.is_clean() {
                continue;
            }
            let mut content = file.durable.clone();
            for (index, op) in file.pending.iter().enumerate() {
                // What is forced is not among the choices.
                apply_torn(&mut content, op, choice(Target::File(*id, index)));
            }
            *file = Arc::new(File { durable: content.clone(), cached: content, ..File::default() });
        }
        let named = tree.reachable();
        tree.files.retain(|id, _| named.contains(id));
        tree.dirs.retain(|id, _| named.contains(id));
        SimDisk::from_tree(tree)
    }

    /// The crash images worth trying: none, all, each prefix, each one missing, each one only,
    /// the last write torn and garbled at each sector, and `random` ones drawn from `rng`.
    pub fn plans(&self, random: usize, rng: &mut fastrand::Rng) -> Vec<Plan> {
        let pending = self.pending();
        let n = pending.len();
        let mut plans = vec![Plan(vec![Choice::Drop; n])];
        if n == 0 {
            return plans;
        }
        plans.push(Plan(vec![Choice::Keep; n]));
        let mut each: Vec<usize> = (0..n).collect();
        if n > ONE_BY_ONE_MAX {
            rng.shuffle(&mut each);
            each.truncate(ONE_BY_ONE_MAX - 2);
            each.extend([n - 1, n - 2]);
        }
        for at in each {
            let mut prefix = vec![Choice::Keep; at];
            prefix.resize(n, Choice::Drop);
            let (mut missing, mut only) = (vec![Choice::Keep; n], vec![Choice::Drop; n]);
            missing[at] = Choice::Drop;
            only[at] = Choice::Keep;
            plans.extend([Plan(prefix), Plan(missing), Plan(only)]);
        }
        if let Some(last) = pending.iter().rposition(|pending| pending.sectors > 0) {
            let sectors = pending[last].sectors;
            for sector in 0..sectors {
                if sectors > SECTORS_MAX && (SECTORS_MAX / 2..sectors - 4).contains(&sector) {
                    continue;
                }
                let torn = [
                    Choice::First(sector),
                    Choice::AllBut(sector),
                    Choice::Without(sector),
                    Choice::Garbage(sector),
                ];
                for choice in torn {
                    let mut choices = vec![Choice::Keep; n];
                    choices[last] = choice;
                    plans.push(Plan(choices));
                }
            }
        }
        plans.extend((0..random).map(|_| Plan(draw(pending, rng))));
        plans
    }
}

fn draw(pending: &[Pending], rng: &mut fastrand::Rng) -> Vec<Choice> {
    let keep = rng.u32(1..10);
    pending
        .iter()
        .map(|pending| match pending.sectors {
            sectors if sectors > 0 && rng.u32(..10) < 4 => {
                let sector = rng.u64(..sectors);
                match rng.u32(..4) {
                    0 => Choice::First(sector),
                    1 => Choice::AllBut(sector),
                    2 => Choice::Without(sector),
                    _ => Choice::Garbage(sector),
                }
            }
            _ if rng.u32(..10) < keep => Choice::Keep,
            _ => Choice::Drop,
        })
        .collect()
}

fn apply_torn(content: &mut crate::sim::content::Content, op: &FileOp, choice: Choice) {
    let FileChange::Write { offset, bytes } = &op.change else {
        if choice != Choice::Drop {
            apply_file(content, &op.change);
        }
        return;
    };
    if choice == Choice::Keep {
        content.write(*offset, bytes);
        return;
    }
    let mut at = *offset;
    let end = at + bytes.len() as u64;
    while at < end {
        let sector = at / SECTOR - offset / SECTOR;
        let stop = ((at / SECTOR + 1) * SECTOR).min(end);
        let range = (at - offset)..(stop - offset);
        let piece = &bytes[usize::try_from(range.start).unwrap_or(0)
            ..usize::try_from(range.end).unwrap_or(bytes.len())];
        match choice {
            Choice::Drop => {}
            Choice::Garbage(n) if n == sector => {
                let mut rng = fastrand::Rng::with_seed(at ^ op.step << 20);
                let garbage: Vec<u8> = piece.iter().map(|_| rng.u8(..)).collect();
                content.write(at, &garbage);
            }
            Choice::First(n) if sector >= n => {}
            Choice::AllBut(n) if sector < n => {}
            Choice::Without(n) if sector == n => {}
            _ => content.write(at, piece),
        }
        at = stop;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use steadfast_durability::disk::{Access, Disk};

    use super::*;
    use crate::sim::fault::{EIO, FailedSync, Fault, StepKind};

    fn everything(disk: &SimDisk, choice: Choice) -> SimDisk {
        let moment = disk.moment();
        moment.cut(&Plan(vec![choice; moment.pending_len()]))
    }

    #[test]
    fn a_file_survives_once_it_and_its_directory_are_synced() {
        let disk = SimDisk::new();
        let file = disk.create(Path::new("a"), Access::Write).unwrap();
        file.write_at(0, b"hello").unwrap();
        assert_eq!(everything(&disk, Choice::Drop).bytes("a"), None);
        assert_eq!(everything(&disk, Choice::Keep).bytes("a").unwrap(), b"hello");
        file.sync_all().unwrap();
        assert_eq!(everything(&disk, Choice::Drop).bytes("a"), None, "its name is not durable");
        disk.sync_dir(Path::new("")).unwrap();
        assert_eq!(everything(&disk, Choice::Drop).bytes("a").unwrap(), b"hello");
        file.write_at(0, b"HE").unwrap();
        assert_eq!(everything(&disk, Choice::Drop).bytes("a").unwrap(), b"hello");
        assert_eq!(disk.killed().bytes("a").unwrap(), b"HEllo", "a kill loses nothing");
    }

    #[test]
    fn a_durable_write_does_not_carry_earlier_ones_along() {
        let disk = SimDisk::new();
        let file = disk.create(Path::new("a"), Access::Write).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        file.allocate(12288).unwrap();
        file.sync_all().unwrap();
        file.write_at(0, b"lazy").unwrap();
        file.write_at_durable(4096, &[7; 4096]).unwrap();
        let cut = everything(&disk, Choice::Drop).bytes("a").unwrap();
        assert_eq!((cut[0], cut[4096], cut[8191], cut[8192]), (0, 7, 7, 0));
    }

    #[test]
    fn tears_garbles_and_reorders_sectors() {
        let disk = SimDisk::new();
        let file = disk.create(Path::new("a"), Access::Write).unwrap();
        file.allocate(2048).unwrap();
        file.sync_all().unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        file.write_at(100, &[1; 1500]).unwrap();
        let cut = |choice| everything(&disk, choice).bytes("a").unwrap();
        let ones = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == 1).count();
        assert_eq!(ones(&cut(Choice::First(1))), 412);
        assert_eq!(ones(&cut(Choice::AllBut(1))), 1500 - 412);
        assert_eq!(ones(&cut(Choice::Without(1))), 1500 - 512);
        let garbled = cut(Choice::Garbage(0));
        assert_eq!(garbled[..100], [0; 100], "bytes that no write named do not change");
        assert!(ones(&garbled[100..512]) < 100);
    }

    #[test]
    fn a_rename_is_atomic_and_a_failed_sync_may_lose_pages() {
        let disk = SimDisk::new();
        let old = disk.create(Path::new("a"), Access::Write).unwrap();
        old.write_at(0, b"old").unwrap();
        old.sync_all().unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        let new = disk.create(Path::new("b"), Access::Write).unwrap();
        new.write_at(0, b"new").unwrap();
        disk.inject(Fault::once(StepKind::SyncAll, 0, EIO).syncing(FailedSync::LostAtCut));
        assert!(new.sync_all().is_err());
        assert!(new.sync_all().is_ok(), "the pages count as clean now");
        disk.rename(Path::new("b"), Path::new("a")).unwrap();
        assert_eq!(disk.bytes("a").unwrap(), b"new");
        let mut rng = fastrand::Rng::with_seed(1);
        for plan in disk.moment().plans(20, &mut rng) {
            let cut = disk.moment().cut(&plan);
            let a = cut.bytes("a").unwrap();
            assert!(a == b"old" || a.is_empty(), "{plan}: the pages are lost: {a:?}");
        }
    }
}
