//! Crash images of a program, each opened and held against what the program was told.
//!
//! Every image is opened for writing, all that it shows is compared, and a commit is made. The
//! judgements that need another opening are made on a share of the images each: [`Checks`].

use std::collections::HashMap;
use std::time::{Duration, Instant};

use steadfast_engine::{
    CompactMode, Database, DatabaseConfig, DurabilityMode, ErrorKind, LogClass, Retention,
    SnapshotClass, Timestamp, Value, Version,
};

use crate::durations::Durations;
use crate::model::{Content, Item, Op, content_now, content_of};
use crate::panics::caught;
use crate::past::Past;
use crate::sim::{Choice, Moment, Plan, SimDisk};
use crate::workload::{Driver, History, Progress, Workload, builder};

/// How hard to look.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Images drawn at random at each moment, besides those that are enumerated.
    pub random: usize,
    /// Recovery itself is crashed at each of its steps in one of so many images; 0 for none.
    pub nested_every: u64,
    /// Crashes inside recovery inside recovery.
    pub depth: u32,
    /// Whether versions of commits that were still queued count as given out.
    pub queued_versions: bool,
    /// A sync failed before: pages may be lost although a later sync says that all is well.
    pub lost_pages: bool,
}

/// What was tried.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Crash points.
    pub moments: u64,
    /// Crash images that were judged.
    pub images: u64,
    /// Those of them that were different, and so were opened.
    pub opened: u64,
    /// Those of `images` that crashed recovery itself.
    pub nested: u64,
    /// Those of `nested` by how deep: recovery, recovery of what that left, and so on.
    pub depths: Vec<u64>,
    /// Opened images that were opened for reading first.
    pub read_only: u64,
    /// Opened images that lost their power again after opening.
    pub cut_again: u64,
    /// Opened images that were written to, closed, and opened again.
    pub closed: u64,
    /// How often each class was found.
    pub classes: HashMap<LogClass, u64>,
    /// How often each class of snapshots was found.
    pub snapshots: HashMap<SnapshotClass, u64>,
    /// Opened images whose log had lost its first segments to a compaction.
    pub compacted: u64,
    /// Opened images that were read before they were loaded, loaded, and read again.
    pub in_place: u64,
    /// Opened images that were compacted and read again.
    pub compactions: u64,
    /// Older versions that were looked at, all of their content.
    pub versions: u64,
    /// Older versions of which something was said to be trimmed, rightly.
    pub trimmed: u64,
    /// Snapshots that were written while a streamed transaction was open.
    pub straddled: u64,
    /// How long opening an image for writing took.
    pub openings: Durations,
    /// Seconds it took.
    pub seconds: f64,
    /// Seconds that a core worked for it, where the system tells (Linux); else as `seconds`.
    pub core_seconds: f64,
}

impl Tally {
    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        self.moments += other.moments;
        self.images += other.images;
        self.opened += other.opened;
        self.nested += other.nested;
        self.depths.resize(self.depths.len().max(other.depths.len()), 0);
        for (depth, count) in other.depths.iter().enumerate() {
            self.depths[depth] += count;
        }
        self.read_only += other.read_only;
        self.cut_again += other.cut_again;
        self.closed += other.closed;
        self.openings.add_all(&other.openings);
        self.seconds += other.seconds;
        self.core_seconds += other.core_seconds;
        for (class, count) in &other.classes {
            *self.classes.entry(*class).or_default() += count;
        }
        for (class, count) in &other.snapshots {
            *self.snapshots.entry(*class).or_default() += count;
        }
        self.compacted += other.compacted;
        self.in_place += other.in_place;
        self.compactions += other.compactions;
        self.versions += other.versions;
        self.trimmed += other.trimmed;
        self.straddled += other.straddled;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rate = |n: u64| n as f64 / self.core_seconds.max(1e-9);
        write!(
            f,
            "{} crash points, {} images ({:.0} a second of one core), {} different ones opened \
             ({:.0}), {} inside recovery (by depth {:?}), {:?}, {:?}, {} read-only, {} cut \
             again, {} closed and opened, {} without their first segments, {} read in place and \
             then loaded, {} compacted, {} older versions read, {} found trimmed, {} snapshots across a stream, \
             {:.1} s, {:.1} s of a core",
            self.moments,
            self.images,
            rate(self.images),
            self.opened,
            rate(self.opened),
            self.nested,
            self.depths,
            self.classes,
            self.snapshots,
            self.read_only,
            self.cut_again,
            self.closed,
            self.compacted,
            self.in_place,
            self.compactions,
            self.versions,
            self.trimmed,
            self.straddled,
            self.seconds,
            self.core_seconds
        )
    }
}

/// What an image was found to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// How many commits. `None`: no database.
    pub prefix: Option<usize>,
    /// What its log was found to be.
    pub class: LogClass,
    /// What its snapshots were found to be.
    pub snapshots: SnapshotClass,
    /// The newest version that was given out after it was opened.
    pub next: Version,
}

/// Which judgements that need another opening are made on an image.
///
/// [`Judge::moment`] and [`Judge::image`] make all of them on each image; [`explore`], which
/// has many thousands, makes one of the three in turn, and of the others the stated share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// All on every image.
    All,
    /// On each third: a read-only opening shows the same and writes nothing; a power cut after
    /// opening takes nothing away; closing and opening again shows everything and is clean. On
    /// each second: loading what was read in place changes nothing. On each seventh: compaction
    /// changes nothing. On each eleventh: `verify` finds nothing. No two of these shares have a
    /// common divisor, so every combination comes.
    InTurn,
}

impl Checks {
    /// Whether it is the turn of one of `of`.
    const fn due(self, turn: u64, number: u64, of: u64) -> bool {
        match self {
            Self::All => true,
            Self::InTurn => turn % of == number,
        }
    }
}

/// Opens crash images of one program and judges them.
#[derive(Debug)]
pub struct Judge<'a> {
    history: &'a History,
    config: DatabaseConfig,
    mode: DurabilityMode,
    effort: Effort,
    keeps: Retention,
    checks: Checks,
    seen: HashMap<u64, Found>,
    /// Recoveries that were crashed and opened again, by depth.
    recovered: Vec<u64>,
    /// Recoveries that were crashed.
    nestings: u64,
    tally: Tally,
    rng: fastrand::Rng,
}

/// Which crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The process ended.
    Kill,
    /// The power went.
    Power,
}

type Verdict<T> = Result<T, String>;

/// Runs `workload` once on an empty disk and judges crash images of every moment of it.
pub fn explore(workload: &Workload, cut: Cut, effort: Effort, seed: u64) -> Verdict<Tally> {
    let disk = SimDisk::new();
    disk.keep_journal();
    disk.record_moments();
    let (history, db) = Driver::new(disk.clone(), workload.clone()).run();
    let moments = disk.take_moments();
    drop(db);
    if let Some((index, error)) = history.errors.first() {
        return Err(format!("without any fault, action {index} failed: {error}"));
    }
    let mut judge = Judge::new(&history, workload, effort, seed).with_checks(Checks::InTurn);
    let (started, worked) = (Instant::now(), core_time());
    for moment in &moments {
        judge.moment(moment, cut).map_err(|why| {
            let step = disk.journal().get(usize::try_from(moment.step()).unwrap_or(0)).cloned();
            let step = step.map_or("the end".into(), |step| step.to_string());
            format!("{:?}, {cut:?} before step {step}: {why}", workload.mode)
        })?;
    }
    let mut tally = judge.tally;
    tally.seconds = started.elapsed().as_secs_f64();
    tally.core_seconds = match (worked, core_time()) {
        (Some(from), Some(to)) => (to - from).as_secs_f64(),
        _ => tally.seconds,
    };
    Ok(tally)
}

impl<'a> Judge<'a> {
    /// A judge of what `workload` left, as told in `history`.
    pub fn new(history: &'a History, workload: &Workload, effort: Effort, seed: u64) -> Self {
        Self {
            history,
            config: workload.config.clone(),
            mode: workload.mode,
            effort,
            keeps: workload.keeps,
            checks: Checks::All,
            seen: HashMap::new(),
            recovered: Vec::new(),
            nestings: 0,
            tally: Tally { straddled: history.straddled, ..Tally::default() },
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// With these checks.
    #[must_use]
    pub const fn with_checks(mut self, checks: Checks) -> Self {
        self.checks = checks;
        self
    }

    /// The durability mode that images are judged by.
    pub const fn mode(&self) -> DurabilityMode {
        self.mode
    }

    /// How hard it looks.
    pub const fn effort(&self) -> Effort {
        self.effort
    }

    /// What was judged so far.
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Judges the crash images of one moment.
    pub fn moment(&mut self, moment: &Moment, cut: Cut) -> Verdict<()> {
        self.tally.moments += 1;
        let at = usize::try_from(moment.note()).unwrap_or(0);
        let progress = self.history.progress[at];
        match cut {
            Cut::Kill => {
                let image = moment.kill();
                let low = match self.effort.lost_pages {
                    true => progress.kept_by_power_cut(self.mode),
                    false => progress.acknowledged,
                };
                self.image(&image, &progress, low, cut)
                    .map_err(|why| format!("{progress:?}: {why}"))?;
            }
            Cut::Power => {
                let low = progress.kept_by_power_cut(self.mode);
                for plan in moment.plans(self.effort.random, &mut self.rng) {
                    if let Err(why) = self.image(&moment.cut(&plan), &progress, low, cut) {
                        let (plan, why) = self.simplest(moment, plan, why, &progress, low);
                        let about = about(moment, &plan);
                        return Err(format!("image {plan}, {progress:?}: {why}{about}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// The simplest plan found that still fails, and why it does.
    fn simplest(
        &self,
        moment: &Moment,
        mut plan: Plan,
        mut why: String,
        progress: &Progress,
        low: usize,
    ) -> (Plan, String) {
        const TRIES_MAX: usize = 500;
        let mut tries = 0;
        loop {
            let simpler = plan.simpler().take(TRIES_MAX - tries).find_map(|plan| {
                tries += 1;
                // A judge that has seen nothing, so that nothing depends on what came before.
                let effort = Effort { nested_every: 0, ..self.effort };
                let mut judge = self.fresh(effort);
                let why = judge.image(&moment.cut(&plan), progress, low, Cut::Power).err()?;
                Some((plan, why))
            });
            match simpler {
                Some(simpler) => (plan, why) = simpler,
                None => return (plan, why),
            }
        }
    }

    /// A judge of the same program that makes every check.
    fn fresh(&self, effort: Effort) -> Self {
        Self {
            history: self.history,
            config: self.config.clone(),
            mode: self.mode,
            effort,
            keeps: self.keeps,
            checks: Checks::All,
            seen: HashMap::new(),
            recovered: Vec::new(),
            nestings: 0,
            tally: Tally::default(),
            rng: fastrand::Rng::with_seed(0),
        }
    }

    /// Judges one image: at least `low` commits must be there.
    pub fn image(
        &mut self,
        image: &SimDisk,
        progress: &Progress,
        low: usize,
        cut: Cut,
    ) -> Verdict<Found> {
        self.tally.images += 1;
        // What a kill leaves and what is durable of it differ in more than a program sees.
        let key = (cut == Cut::Power).then(|| image.fingerprint());
        if let Some(found) = key.and_then(|key| self.seen.get(&key)) {
            let found = *found;
            return self.within(&found, progress, low).map(|()| found);
        }
        self.tally.opened += 1;
        if lost_its_beginning(image) {
            self.tally.compacted += 1;
        }
        let found = caught(|| self.open(image, progress, low, cut))?;
        *self.tally.classes.entry(found.class).or_default() += 1;
        *self.tally.snapshots.entry(found.snapshots).or_default() += 1;
        if let Some(key) = key {
            self.seen.insert(key, found);
        }
        let every = self.effort.nested_every;
        if every > 0 && self.tally.opened.is_multiple_of(every) {
            let before = Before { low, given: self.given(progress) };
            self.crash_recovery(image, &found, before, cut, self.effort.depth)?;
        }
        Ok(found)
    }

    fn within(&self, found: &Found, progress: &Progress, low: usize) -> Verdict<()> {
        let Some(prefix) = found.prefix else {
            let fine = low == 0 && !progress.created;
            return if fine { Ok(()) } else { Err("there is no database any more".into()) };
        };
        if prefix < low {
            return Err(format!("kept {prefix} commits ({:?}), {low} were due", found.class));
        }
        if prefix > progress.issued {
            return Err(format!("found {prefix} commits, {} were issued", progress.issued));
        }
        let given = self.given(progress);
        if found.next <= given {
            return Err(format!(
                "gave out version {}, but {given} was given out before the crash",
                found.next
            ));
        }
        Ok(())
    }

    /// The newest version that counts as given out.
    const fn given(&self, progress: &Progress) -> Version {
        if self.effort.queued_versions { progress.assigned } else { progress.handed_out }
    }

    fn open(
        &mut self,
        image: &SimDisk,
        progress: &Progress,
        low: usize,
        cut: Cut,
    ) -> Verdict<Found> {
        let turn = self.tally.opened;
        let fresh = image.bytes(MANIFEST).is_none();
        let read = match self.checks.due(turn, 0, 3) {
            true => Some(self.read_only(image, cut)?),
            false => None,
        };
        if read.as_ref().is_some_and(|read| read.is_none() != fresh) {
            return Err("a read-only opening sees a database where there is none, or none".into());
        }
        self.tally.read_only += u64::from(read.is_some());
        let disk = image.killed();
        let started = Instant::now();
        let db = builder(&disk, self.config.clone())
            .open()
            .map_err(|error| format!("refused ({}): {error}", error.kind()))?;
        self.tally.openings.add(started.elapsed());
        let (class, snapshots) = (db.recovery_report().log, db.recovery_report().snapshots);
        if !matches!(snapshots, SnapshotClass::Nothing | SnapshotClass::Sound) {
            return Err(format!("a crash damaged a snapshot: {}", db.recovery_report()));
        }
        let in_place = self.checks.due(turn, 1, 2);
        if !in_place {
            db.wait_loaded().map_err(|error| format!("loading: {error}"))?;
        }
        let content = content_now(&db).map_err(|error| format!("reading: {error}"))?;
        let prefix = self.prefix(db.current_version(), &content)?;
        if let Some(Some(read)) = &read
            && *read != content
        {
            return Err("a read-only opening shows something else".into());
        }
        // Before it gives out a version, what it shows must be durable.
        let cut_again = self.checks.due(turn, 1, 3).then(|| dropped(&disk));
        self.look_closer(&db, turn, &content, prefix, progress.now)?;
        let next = self.go_on(&db, &disk, &content, self.checks.due(turn, 2, 3))?;
        let prefix = if fresh && prefix == 0 { None } else { Some(prefix) };
        let found = Found { prefix, class, snapshots, next };
        self.within(&found, progress, low)?;
        if let Some(cut_again) = cut_again {
            self.tally.cut_again += 1;
            let again = builder(&cut_again, self.config.clone())
                .open()
                .map_err(|error| format!("a power cut after opening, then refused: {error}"))?;
            if content_now(&again).map_err(|error| error.to_string())? != content {
                return Err("a power cut after opening took away what was shown".into());
            }
        }
        Ok(found)
    }

    /// Nothing that is done to keep a database small and quick changes what is read, and it
    /// finds nothing wrong.
    fn look_closer(
        &mut self,
        db: &Database,
        turn: u64,
        content: &Content,
        prefix: usize,
        now: Timestamp,
    ) -> Verdict<()> {
        let same = |when: &str| match content_now(db) {
            Ok(found) if found == *content => Ok(()),
            Ok(found) => {
                let differences = self.history.models[prefix].compare(&found);
                Err(format!("{when}, reads change: {differences:?}"))
            }
            Err(error) => Err(format!("{when}, reading: {error}")),
        };
        let looks_back = self.keeps != Retention::NEWEST;
        if looks_back && self.checks.due(turn, 1, 5) {
            self.look_back(db, prefix, now).map_err(|why| format!("in place: {why}"))?;
        }
        if self.checks.due(turn, 1, 2) {
            db.wait_loaded().map_err(|error| format!("loading: {error}"))?;
            same("loaded")?;
            self.tally.in_place += 1;
        }
        if self.checks.due(turn, 5, 11) {
            let damaged = db.verify().map_err(|error| format!("verifying: {error}"))?;
            if !damaged.is_empty() {
                return Err(format!("damage where there is none: {damaged:?}"));
            }
        }
        if self.checks.due(turn, 3, 7) {
            let full = turn % 4 < 2;
            let mode = if full { CompactMode::Full } else { CompactMode::WalOnly };
            match db.compact(mode) {
                Ok(_) => self.tally.compactions += 1,
                // There is no checkpoint.
                Err(error) if !full && error.kind() == ErrorKind::Invalid => {}
                Err(error) => return Err(format!("compacting: {error}")),
            }
            same("compacted")?;
        }
        if looks_back && self.checks.due(turn, 2, 13) {
            self.look_back(db, prefix, now)?;
        }
        Ok(())
    }

    /// Every version that was kept shows what it showed.
    fn look_back(&mut self, db: &Database, prefix: usize, now: Timestamp) -> Verdict<()> {
        if self.keeps != Retention::KeepAll {
            let seen = Past::new(self.history, prefix, self.keeps, now).look(db)?;
            self.tally.versions += seen.whole;
            self.tally.trimmed += seen.trimmed;
            return Ok(());
        }
        for (at, version) in self.history.versions[..prefix].iter().enumerate() {
            let content = db.view_at(*version).and_then(|view| content_of(&view));
            let content = content.map_err(|error| format!("at version {version}: {error}"))?;
            let differences = self.history.models[at + 1].compare(&content);
            if !differences.is_empty() {
                return Err(format!("at version {version}: {differences:?}"));
            }
        }
        self.tally.versions += prefix as u64;
        Ok(())
    }

    /// What a read-only opening shows; `None` if there is no database. It must not write, and
    /// what it shows must be durable.
    fn read_only(&self, image: &SimDisk, cut: Cut) -> Verdict<Option<Content>> {
        let disk = image.killed();
        let before = disk.fingerprint();
        let opened = builder(&disk, self.config.clone()).open_read_only();
        if disk.fingerprint() != before {
            return Err("a read-only opening wrote".into());
        }
        let db = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("read-only: refused ({}): {error}", error.kind())),
            Ok(db) => db,
        };
        let content = content_now(&db).map_err(|error| format!("read-only: {error}"))?;
        if cut == Cut::Kill && !self.effort.lost_pages {
            let again = builder(&dropped(&disk), self.config.clone())
                .open()
                .map_err(|error| format!("read-only, power cut, then refused: {error}"))?;
            if content_now(&again).map_err(|error| error.to_string())? != content {
                return Err("a power cut took away what a read-only opening showed".into());
            }
        }
        Ok(Some(content))
    }

    /// How many commits `content` is the result of.
    fn prefix(&self, version: Version, content: &Content) -> Verdict<usize> {
        let prefix = self.history.versions.partition_point(|other| *other <= version);
        let newest = prefix.checked_sub(1).map_or(Version::ZERO, |at| self.history.versions[at]);
        if newest != version {
            return Err(format!("the newest version is {version}, which no commit had"));
        }
        if self.history.models[prefix].content() == content {
            return Ok(prefix);
        }
        let differences = self.history.models[prefix].compare(content);
        Err(format!("not the state after {prefix} commits: {differences:?}"))
    }

    /// The opened database takes commits and, if asked to, closes and opens clean with them.
    fn go_on(
        &mut self,
        db: &Database,
        disk: &SimDisk,
        content: &Content,
        closing: bool,
    ) -> Verdict<Version> {
        if !closing {
            let commit = || {
                let mut tx = db.begin()?;
                Op::Put("after".into(), "key".into(), Value::Int(1)).apply(&mut tx)?;
                tx.commit()
            };
            let receipt = commit();
            let receipt = receipt.map_err(|error| format!("going on: {error}"))?;
            return Ok(receipt.version());
        }
        self.tally.closed += 1;
        let write = || {
            let mut tx = db.begin()?;
            Op::Put("after".into(), "key".into(), Value::Int(1)).apply(&mut tx)?;
            let receipt = tx.commit()?;
            let content = content_now(db)?;
            db.close()?;
            Ok((receipt.version(), content))
        };
        let (version, after) =
            write().map_err(|error: steadfast_engine::Error| format!("going on: {error}"))?;
        if after.len() != content.len() + 2 {
            return Err("going on: the commit changed something else".into());
        }
        // Closing leaves nothing to lose.
        let disk = &dropped(disk);
        let db = builder(disk, self.config.clone())
            .open_existing()
            .map_err(|error| format!("closed, then refused: {error}"))?;
        let report = db.recovery_report();
        if report.log != LogClass::Clean {
            return Err(format!("closed, then not clean: {report}"));
        }
        match content_now(&db) {
            Ok(found) if found == after => Ok(version),
            Ok(found) => {
                let not_in = |other: &Content, (item, at): &(&Item, &(Version, Value))| {
                    other.get(*item) != Some(at)
                };
                let missing = after.iter().filter(|one| not_in(&found, one)).map(|one| one.0);
                let extra = found.iter().filter(|one| not_in(&after, one)).map(|one| one.0);
                let (missing, extra): (Vec<_>, Vec<_>) = (missing.collect(), extra.collect());
                Err(format!("closed, then missing {missing:?}, extra {extra:?}; {report}"))
            }
            Err(error) => Err(format!("closed, then reading: {error}")),
        }
    }

    /// Crashes recovery at each of its steps: what was there stays there, and what was given out
    /// is not given again.
    fn crash_recovery(
        &mut self,
        image: &SimDisk,
        found: &Found,
        before: Before,
        cut: Cut,
        depth: u32,
    ) -> Verdict<()> {
        let disk = image.killed();
        disk.record_moments();
        let opened =
            builder(&disk, self.config.clone()).open().map_err(|error| error.to_string())?;
        self.nestings += 1;
        if self.nestings.is_multiple_of(2) {
            // What is crashed is a compaction of what was recovered, too.
            opened.compact(CompactMode::Full).map_err(|error| format!("compacting: {error}"))?;
        }
        let moments = disk.take_moments();
        drop(opened);
        for moment in moments {
            let plans = moment.plans(2, &mut self.rng);
            let cuts = plans.iter().map(|plan| (moment.cut(plan), Cut::Power));
            for (index, (image, ended)) in cuts.chain([(moment.kill(), Cut::Kill)]).enumerate() {
                self.tally.images += 1;
                self.tally.nested += 1;
                let level = (self.effort.depth - depth) as usize;
                self.tally.depths.resize(self.tally.depths.len().max(level + 1), 0);
                self.tally.depths[level] += 1;
                let place =
                    || format!("recovery crashed after its step {}, image {index}", moment.step());
                let key = image.fingerprint() ^ 0x5eed;
                let known = (cut == Cut::Power).then(|| self.seen.get(&key).copied()).flatten();
                let again = match known {
                    Some(again) => again,
                    None => {
                        self.tally.opened += 1;
                        caught(|| self.reopen(&image, ended))
                            .map_err(|why| format!("{}: {why}", place()))?
                    }
                };
                let fine = match (cut, ended) {
                    // Nothing was in doubt before recovery began, or nothing went but a process.
                    (Cut::Power, _) | (_, Cut::Kill) => {
                        again.prefix == found.prefix || found.prefix.is_none()
                    }
                    // The power went too: what was not durable may be gone.
                    (Cut::Kill, Cut::Power) => {
                        let kept = again.prefix.unwrap_or(0);
                        let low = self.durable_low(before.low);
                        (low..=found.prefix.unwrap_or(0)).contains(&kept)
                    }
                };
                if !fine {
                    return Err(format!("{}: {:?} became {:?}", place(), found, again));
                }
                if again.next <= before.given {
                    let (next, given) = (again.next, before.given);
                    return Err(format!("{}: gave out version {next}, after {given}", place()));
                }
                if known.is_some() {
                    continue;
                }
                self.seen.insert(key, again);
                self.recovered.resize(self.recovered.len().max(level + 1), 0);
                self.recovered[level] += 1;
                if depth > 1 && self.recovered[level].is_multiple_of(DEEPER_EVERY) {
                    self.crash_recovery(&image, &again, before, cut, depth - 1)?;
                }
            }
        }
        Ok(())
    }

    fn durable_low(&self, low: usize) -> usize {
        match self.mode {
            DurabilityMode::Strict => low,
            DurabilityMode::Batched { commits, .. } => low.saturating_sub(commits as usize),
            _ => 0,
        }
    }

    /// Opens what a crashed recovery left: for reading, which must show what is durable, and for
    /// writing; then commits.
    fn reopen(&mut self, image: &SimDisk, ended: Cut) -> Verdict<Found> {
        let turn = self.tally.opened;
        // What a kill left is there to see and may not be durable.
        let shown = match ended == Cut::Kill || self.checks.due(turn, 1, 3) {
            true => Some(self.read_only(image, Cut::Kill)?),
            false => None,
        };
        let disk = image.killed();
        let db = builder(&disk, self.config.clone())
            .open()
            .map_err(|error| format!("refused ({}): {error}", error.kind()))?;
        let content = content_now(&db).map_err(|error| format!("reading: {error}"))?;
        if let Some(Some(shown)) = shown
            && shown != content
        {
            return Err("a read-only opening shows something else".into());
        }
        let prefix = Some(self.prefix(db.current_version(), &content)?);
        if self.checks.due(turn, 0, 2) {
            db.wait_loaded().map_err(|error| format!("loading: {error}"))?;
            if content_now(&db).map_err(|error| format!("loaded, reading: {error}"))? != content {
                return Err("loading changed what is read".into());
            }
        }
        let report = db.recovery_report();
        let (class, snapshots) = (report.log, report.snapshots);
        let next = self.go_on(&db, &disk, &content, false)?;
        Ok(Found { prefix, class, snapshots, next })
    }
}

/// What a crashed recovery must keep to.
#[derive(Debug, Clone, Copy)]
struct Before {
    /// The fewest commits that the first crash had to leave.
    low: usize,
    /// The newest version that was given out before it.
    given: Version,
}

/// Of the different images that a crashed recovery left, the recovery of one in so many is
/// crashed too.
const DEEPER_EVERY: u64 = 300;

/// Where the MANIFEST of a program's database lies.
const MANIFEST: &str = "db/MANIFEST";

/// How long a core has worked for this thread.
#[cfg(target_os = "linux")]
fn core_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).ok()
}

#[cfg(not(target_os = "linux"))]
const fn core_time() -> Option<Duration> {
    None
}

/// Whether a compaction has removed the first segments of its log.
fn lost_its_beginning(image: &SimDisk) -> bool {
    let paths = image.paths();
    let first = paths.iter().find(|path| path.contains("/WAL/"));
    first.is_some_and(|path| !path.ends_with("wal-000001.seg"))
}

/// What the choices of a plan that are not `Keep` are about, a line each.
fn about(moment: &Moment, plan: &Plan) -> String {
    const LINES_MAX: usize = 20;
    let unsynced = moment.unsynced();
    let others = unsynced.iter().zip(&plan.0).filter(|(_, choice)| **choice != Choice::Keep);
    let lines = others.take(LINES_MAX).map(|(op, choice)| format!("\n  {choice} step {op}"));
    lines.collect()
}

/// What is left when the power goes now and nothing that is not durable was kept.
fn dropped(disk: &SimDisk) -> SimDisk {
    let moment = disk.moment();
    moment.cut(&Plan(vec![Choice::Drop; moment.pending_len()]))
}
