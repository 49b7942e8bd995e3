//! A target that works on a disk which loses power.
//!
//! A run is watched: at changes drawn from a seed, the disk as it is then and what the process
//! had acknowledged by then are noted, as if the power had gone there. In the end it does go, and
//! the process is killed. Each of these moments may have left many disks; each of them that is
//! tried is mounted, opened by a fresh process, judged, and put to use. The next run goes on from
//! one that was good, so that recovery is cut, too.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use steadfast_durability::disk::{Access, Disk, EntryKind};

use crate::fuse::mount::{Power, PowerLossFs};
use crate::sim::{Moment, Rules, SimDisk};
use crate::target::history::{Bounds, History};
use crate::target::process::{Account, Answer, Program, TargetProcess};
use crate::target::verdict::{Tally, Verdict};

/// The directory that the target is given: it is there, durably.
const STORE: &str = "store";

/// What is done to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerCutConfig {
    /// What a cut may leave.
    pub rules: Rules,
    /// At how many moments the power goes.
    pub cuts: u64,
    /// Moments of one run, at most.
    pub cuts_per_run: usize,
    /// Runs that follow each other on one disk.
    pub runs_per_disk: u64,
    /// Images of one moment, besides nothing kept and everything kept.
    pub images_per_cut: usize,
    /// The most transactions of a run.
    pub transactions_max: usize,
    /// Where all is drawn from. With threads of its own a process may still do things in
    /// another order the next time.
    pub seed: u64,
    /// How long one answer may take.
    pub patience: Duration,
    /// Where the first disk of each kind that went wrong is written, as `KIND/after`; as
    /// `KIND/before` the one that its run began with.
    pub evidence: Option<PathBuf>,
}

impl Default for PowerCutConfig {
    /// POSIX; 100 cuts, at most 10 a run, 3 runs a disk; 4 further images; at most 30
    /// transactions; seed 1; an answer within 20 seconds.
    fn default() -> Self {
        Self {
            rules: Rules::Posix,
            cuts: 100,
            cuts_per_run: 10,
            runs_per_disk: 3,
            images_per_cut: 4,
            transactions_max: 30,
            seed: 1,
            patience: Duration::from_secs(20),
            evidence: None,
        }
    }
}

/// A moment at which the power went.
struct Cut {
    /// The change before which it did.
    change: u64,
    moment: Moment,
    account: Account,
}

/// Moments of a run: each change has the same chance to be one of them.
struct Sample {
    rng: fastrand::Rng,
    seen: usize,
    wanted: usize,
    cuts: Vec<Cut>,
}

impl Sample {
    fn see(&mut self, cut: impl FnOnce() -> Cut) {
        self.seen += 1;
        if self.cuts.len() < self.wanted {
            self.cuts.push(cut());
        } else {
            let place = self.rng.usize(..self.seen);
            if place < self.wanted {
                self.cuts[place] = cut();
            }
        }
    }
}

/// Puts `program` through power cuts, mounting in directories made for it.
///
/// # Errors
///
/// FUSE is missing (see [`why_missing`](crate::fuse::why_missing)), or the process cannot be
/// started.
pub fn cut_repeatedly(program: &Program, config: &PowerCutConfig) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let mut rng = fastrand::Rng::with_seed(config.seed);
    while tally.crashes < config.cuts {
        let disk = SimDisk::new();
        disk.create_dir(Path::new(STORE))?;
        disk.sync_dir(Path::new(""))?;
        let mut series = Series {
            program,
            config,
            history: History::new(rng.u64(..)),
            bounds: Bounds::default(),
            tried: BTreeSet::new(),
        };
        let mut next = Some(disk);
        for run in 0..config.runs_per_disk {
            let Some(disk) = next.take() else { break };
            next = series.run(run, disk, &mut rng, &mut tally)?;
            if tally.crashes >= config.cuts {
                break;
            }
        }
    }
    Ok(tally)
}

/// Runs that follow each other on one disk.
struct Series<'a> {
    program: &'a Program,
    config: &'a PowerCutConfig,
    history: History,
    /// What had to be there, and might, when the run began.
    bounds: Bounds,
    /// Images that were judged, with the bounds they were judged by.
    tried: BTreeSet<(u64, Bounds)>,
}

impl Series<'_> {
    /// One run, and the disks that its cuts may leave. Returns one that was good.
    fn run(
        &mut self,
        run: u64,
        disk: SimDisk,
        rng: &mut fastrand::Rng,
        tally: &mut Tally,
    ) -> io::Result<Option<SimDisk>> {
        let before = self.history.len();
        let begun_with = disk.killed();
        let (cuts, wrong) = self.work(run, disk, rng)?;
        let (seed, cuts_before) = (self.config.seed, tally.crashes);
        let place = move |cut: &Cut, what: &str| {
            format!(
                "seed {seed}, {cuts_before} cuts before, run {run}, change {}, {what}",
                cut.change
            )
        };
        if let (Some(verdict), Some(last)) = (&wrong, cuts.last()) {
            let place = place(last, "with power");
            tally.add(verdict, 0, || place);
        }
        let mut good = Vec::new();
        for cut in &cuts {
            let bounds = Bounds {
                promised: self.through(cut.account.through_power_loss).max(self.bounds.promised),
                acknowledged: self.through(cut.account.acknowledged).max(self.bounds.acknowledged),
                begun: self.through(cut.account.begun).max(before),
            };
            let plans = cut.moment.plans_under(self.config.rules, self.config.images_per_cut, rng);
            for plan in plans {
                let image = cut.moment.cut(&plan);
                if !self.tried.insert((image.fingerprint(), bounds)) {
                    continue;
                }
                let verdict = self.examine(image, bounds)?;
                if let Some(dir) = &self.config.evidence
                    && !verdict.is_good()
                    && tally.count(verdict.name()) == 0
                {
                    let dir = dir.join(verdict.name());
                    materialise(&begun_with, &dir.join("before"))?;
                    materialise(&cut.moment.cut(&plan), &dir.join("after"))?;
                }
                tally.add(&verdict, bounds.acknowledged, || place(cut, &plan.to_string()));
                if let Verdict::Prefix(found) = verdict {
                    good.push((found, bounds, cut, plan));
                }
            }
        }
        tally.crashes += cuts.len() as u64;
        tally.acknowledged += self
            .through(cuts.last().map_or(0, |cut| cut.account.acknowledged))
            .saturating_sub(self.bounds.acknowledged) as u64;
        if wrong.is_some() || good.is_empty() {
            return Ok(None);
        }
        let (found, bounds, cut, plan) = good.swap_remove(rng.usize(..good.len()));
        self.history.keep(found);
        self.bounds = Bounds { promised: bounds.promised, acknowledged: found, begun: found };
        Ok(Some(cut.moment.cut(&plan)))
    }

    fn through(&self, serial: u64) -> usize {
        self.history.through(serial)
    }

    /// Lets the process work until the power goes. Returns the moments to look at, the last of
    /// the run as the last, and what was wrong while there was power.
    fn work(
        &mut self,
        run: u64,
        disk: SimDisk,
        rng: &mut fastrand::Rng,
    ) -> io::Result<(Vec<Cut>, Option<Verdict>)> {
        let dir = tempfile::tempdir()?;
        let fs = PowerLossFs::mount(disk, dir.path(), self.config.rules)?;
        let sample = Arc::new(Mutex::new(Sample {
            rng: rng.fork(),
            seen: 0,
            wanted: self.config.cuts_per_run.saturating_sub(1),
            cuts: Vec::new(),
        }));
        // Some runs end with an operation under way, the others between two transactions.
        let last_change = rng.bool().then(|| rng.u64(1..8 * self.config.transactions_max as u64));
        let inbox = Arc::new(Mutex::new(None::<crate::target::process::Inbox>));
        let (sampled, listening) = (Arc::clone(&sample), Arc::clone(&inbox));
        fs.observe(Box::new(move |change, moment| {
            let inbox = listening.lock().unwrap_or_else(PoisonError::into_inner);
            let account = inbox.as_ref().map(|inbox| inbox.account()).unwrap_or_default();
            let mut sample = sampled.lock().unwrap_or_else(PoisonError::into_inner);
            sample.see(|| Cut { change, moment: moment(), account });
            if Some(change) == last_change { Power::Cut } else { Power::On }
        }));
        let verb = if run == 0 { "start" } else { "reopen" };
        let store = fs.path().join(STORE);
        let mut process = TargetProcess::spawn(self.program, verb, &store, self.config.patience)?;
        *inbox.lock().unwrap_or_else(PoisonError::into_inner) = Some(process.inbox());
        let transactions = rng.usize(1..=self.config.transactions_max);
        let worked = self.work_with(&mut process, &fs, transactions);
        let moment = fs.cut();
        process.kill();
        fs.let_go();
        process.wait()?;
        let last = Cut { change: fs.changes(), moment, account: process.inbox().account() };
        fs.observe(Box::new(|_, _| Power::On));
        drop(fs);
        let mut sample = sample.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cuts = std::mem::take(&mut sample.cuts);
        cuts.push(last);
        Ok((cuts, worked.err()))
    }

    fn work_with(
        &mut self,
        process: &mut TargetProcess,
        fs: &PowerLossFs,
        transactions: usize,
    ) -> Result<(), Verdict> {
        let stop = || fs.is_cut();
        if !process.opened(self.bounds.acknowledged > 0, &stop)? {
            return Ok(());
        }
        let Some(found) = process.dump(&stop)? else { return Ok(()) };
        if found != self.history.state(self.history.len()) {
            return Err(Verdict::Unusable("the same disk shows something else now".into()));
        }
        for _ in 0..transactions {
            process.begin(&self.history.begin());
            match process.answer(&stop) {
                Answer::Line(line) if line.starts_with("ok ") => {}
                Answer::Stopped => break,
                answer => return Err(Verdict::Unusable(format!("applying: {answer:?}"))),
            }
        }
        Ok(())
    }

    fn examine(&self, image: SimDisk, bounds: Bounds) -> io::Result<Verdict> {
        let dir = tempfile::tempdir()?;
        let fs = PowerLossFs::mount(image, dir.path(), self.config.rules)?;
        let store = fs.path().join(STORE);
        let mut process =
            TargetProcess::spawn(self.program, "reopen", &store, self.config.patience)?;
        let found = process.find(&self.history, bounds);
        let verdict = found.and_then(|verdict| match verdict {
            Verdict::Prefix(count) => process.try_out(&self.history, count).map(|()| verdict),
            _ => Ok(verdict),
        });
        drop(process);
        Ok(verdict.unwrap_or_else(|verdict| verdict))
    }
}

/// Writes what a disk shows into a real directory, holes as holes.
fn materialise(disk: &SimDisk, to: &Path) -> io::Result<()> {
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        std::fs::create_dir_all(to.join(&dir))?;
        for name in disk.list(&dir)? {
            let path = dir.join(&name);
            if disk.kind(&path)? == Some(EntryKind::Directory) {
                todo.push(path);
                continue;
            }
            let from = disk.open(&path, Access::Read)?;
            #[allow(clippy::disallowed_methods)]
            let file = std::fs::File::create(to.join(&path))?;
            let (len, mut at, mut piece) = (from.len()?, 0, vec![0; 64 << 10]);
            file.set_len(len)?;
            while at < len {
                let n = from.read_at(at, &mut piece)?;
                if piece[..n].iter().any(|byte| *byte != 0) {
                    file.write_all_at(&piece[..n], at)?;
                }
                at += n as u64;
            }
        }
    }
    Ok(())
}
