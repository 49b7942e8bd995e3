//! The search: runs the program, crashes it at every moment, and makes smaller what fails.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use steadfast_engine::{Database, DurabilityMode, Entropy, ManualClock, Timestamp};

use crate::matrix::ack::{Account, Ack, Acked, Draws};
use crate::matrix::case::{Case, Left, Life};
use crate::matrix::report::{Counterexample, Crashed, MatrixError, MatrixReport};
use crate::matrix::watchdog::Watchdog;
use crate::matrix::{CrashMatrix, Failure, REPLAY_VARIABLE, shrink};
use crate::panics::caught;
use crate::sim::{Choice, Moment, Plan, SimDisk, Step};
use crate::workload::builder;

/// One image in so many is opened for a crash inside its recovery.
const NESTED_EVERY: u64 = 25;

/// The same, where the program is started again: it does more there than recovery does.
const STARTED_EVERY: u64 = 5;

/// The most images of crashes inside one recovery.
const NESTED_IMAGES: u64 = 300;

/// The most images that one attempt to make a failure smaller looks at.
const SHRINK_IMAGES: u64 = 4_000;

/// A program that ran to its end, and all that a crash of it can begin with.
struct Recorded<T> {
    ack: Ack<T>,
    moments: Vec<Moment>,
    journal: Vec<Step>,
}

/// A failure, and the lives that led to it.
struct Found {
    lives: Vec<Life>,
    /// What it drew when it was started again and failed by itself.
    failing: Option<Vec<u64>>,
    why: String,
    acknowledged: Vec<String>,
    doubtful: Vec<String>,
    crashes: Vec<Crashed>,
}

/// How much of a recorded run is crashed.
#[derive(Clone, Copy)]
struct Scope {
    /// The most images.
    images: u64,
    /// Also those that keep a part of what was not durable.
    mixtures: bool,
    /// One image in so many is opened for a crash inside its recovery.
    nested_every: u64,
}

pub(super) struct Search<'a, T, P, C> {
    matrix: CrashMatrix,
    program: &'a P,
    check: &'a C,
    rng: fastrand::Rng,
    seen: HashSet<u64>,
    hasher: foldhash::fast::FixedState,
    report: MatrixReport,
    watchdog: Watchdog,
    started: Instant,
    until: Instant,
    acknowledges: std::marker::PhantomData<fn() -> T>,
}

impl<'a, T, P, C> Search<'a, T, P, C>
where
    T: Clone + Debug,
    P: Fn(&Database, &Ack<T>) -> Result<(), Failure>,
    C: Fn(&Database, &Acked<'_, T>) -> Result<(), Failure>,
{
    pub(super) fn new(matrix: CrashMatrix, program: &'a P, check: &'a C) -> Self {
        let report = MatrixReport {
            seed: matrix.seed,
            programs: 0,
            moments: 0,
            images: 0,
            opened: 0,
            nested: 0,
            cut_short: false,
            replayed: None,
            failure: None,
            error: None,
            duration: Duration::ZERO,
        };
        Self {
            rng: fastrand::Rng::with_seed(matrix.seed),
            started: Instant::now(),
            until: Instant::now() + matrix.time_max,
            watchdog: Watchdog::new(matrix.hangs_after),
            matrix,
            program,
            check,
            seen: HashSet::new(),
            hasher: foldhash::fast::FixedState::default(),
            report,
            acknowledges: std::marker::PhantomData,
        }
    }

    /// Searches, or runs the one case that was asked for.
    pub(super) fn report(mut self) -> MatrixReport {
        let started = self.started;
        let named = std::env::var(REPLAY_VARIABLE).ok().filter(|token| !token.is_empty());
        let named = named.map(|token| token.parse());
        let case = self.matrix.replay.take().or(named).transpose();
        let done = match case {
            Err(error) => Err(error.into()),
            Ok(Some(case)) => self.replay(&case),
            Ok(None) => self.search(),
        };
        self.report.error = done.err();
        if self.report.failure.is_none() {
            self.report.duration = started.elapsed();
        }
        self.report
    }

    fn search(&mut self) -> Result<(), MatrixError> {
        for program in 0..self.matrix.programs {
            if self.out_of_time() {
                self.report.cut_short = true;
                break;
            }
            let draws = Draws { given: Vec::new(), then: Some(self.rng.fork()) };
            let recorded = self.first_life(draws)?;
            let left = self.matrix.images_max.saturating_sub(self.report.images);
            let images = left / (self.matrix.programs - program);
            let nested_every = if self.matrix.starts_again { STARTED_EVERY } else { NESTED_EVERY };
            let scope = Scope { images, mixtures: true, nested_every };
            self.report.programs += 1;
            if let Some(found) = self.crash(&recorded, &mut Vec::new(), scope) {
                self.report.duration = self.started.elapsed();
                let first_draws = found.lives[0].draws.len();
                self.until = Instant::now() + self.matrix.time_max;
                let found = self.shrink(found);
                self.report.failure = Some(found.counterexample(first_draws));
                break;
            }
            if recorded.ack.drew_nothing() {
                break;
            }
        }
        Ok(())
    }

    /// Runs the program on an empty disk.
    fn first_life(&self, draws: Draws) -> Result<Recorded<T>, MatrixError> {
        self.record(&SimDisk::new(), &[], draws, &Account::new())
            .map_err(|(draws, why)| MatrixError::Program { draws, why })
    }

    /// Opens the database on `disk`, which `trail` left, and runs the program on it if this life
    /// has one.
    fn record(
        &self,
        disk: &SimDisk,
        trail: &[Trail],
        draws: Draws,
        before: &Account<T>,
    ) -> Result<Recorded<T>, (Vec<u64>, String)> {
        let life = trail.len();
        disk.keep_journal();
        disk.record_moments();
        let strict = self.matrix.config.durability() == DurabilityMode::Strict;
        let ack = Ack::new(disk, clock(life), strict, draws, before);
        let _watched = self.watchdog.begin(lives_of(trail), Some(ack.drawing()));
        let ran = caught(|| {
            let db = self.open(disk, life, ack.clock())?;
            ack.opened(&db);
            if life == 0 || self.matrix.starts_again {
                (self.program)(&db, &ack).map_err(|error| error.to_string())?;
            }
            Ok(db)
        });
        // Letting go of the database closes it, which is not part of the program.
        let moments = disk.take_moments();
        let journal = disk.journal();
        ack.ended();
        match ran {
            Ok(_closing) => Ok(Recorded { ack, moments, journal }),
            Err(why) => Err((ack.drawn(), why)),
        }
    }

    fn open(&self, disk: &SimDisk, life: usize, clock: ManualClock) -> Result<Database, String> {
        // No two lives draw the same bits, and each draws the same every time.
        builder(disk, self.matrix.config.clone())
            .clock(clock)
            .entropy(Entropy::seeded(1 + life as u64))
            .open()
            .map_err(|error| format!("the database refused to open ({}): {error}", error.kind()))
    }

    /// Crashes a recorded run at every moment: first the simplest images of each, then others.
    fn crash(
        &mut self,
        recorded: &Recorded<T>,
        trail: &mut Vec<Trail>,
        scope: Scope,
    ) -> Option<Found> {
        let stop = self.report.images + scope.images;
        if trail.is_empty() {
            self.report.moments += recorded.moments.len() as u64;
        }
        for moment in &recorded.moments {
            let pending = moment.pending_len();
            let mut simple = vec![Left::Kill, Left::Power(Plan(vec![Choice::Drop; pending]))];
            if pending > 0 {
                simple.push(Left::Power(Plan(Vec::new())));
            }
            for left in simple {
                if let Some(found) = self.image(recorded, moment, left, trail, scope) {
                    return Some(found);
                }
            }
            if self.out_of_time() {
                self.report.cut_short = true;
                return None;
            }
        }
        if !scope.mixtures {
            return None;
        }
        let mut order: Vec<_> = (0..recorded.moments.len()).collect();
        self.rng.shuffle(&mut order);
        for at in order {
            let moment = &recorded.moments[at];
            // The first two are none and all.
            for plan in moment.plans(self.matrix.random, &mut self.rng).into_iter().skip(2) {
                if self.report.images >= stop || self.out_of_time() {
                    self.report.cut_short |= trail.is_empty();
                    return None;
                }
                let left = Left::Power(plan);
                if let Some(found) = self.image(recorded, moment, left, trail, scope) {
                    return Some(found);
                }
            }
        }
        None
    }

    /// Judges one image, and crashes its recovery if it is its turn.
    fn image(
        &mut self,
        recorded: &Recorded<T>,
        moment: &Moment,
        left: Left,
        trail: &mut Vec<Trail>,
        scope: Scope,
    ) -> Option<Found> {
        self.report.images += 1;
        self.report.nested += u64::from(!trail.is_empty());
        let killed = left == Left::Kill;
        let account = recorded.ack.account(moment, killed);
        let image = left.image(moment);
        let key = self.hasher.hash_one((image.fingerprint(), account.fingerprint(), killed));
        if !self.seen.insert(key) {
            return None;
        }
        self.report.opened += 1;
        trail.push(Trail::new(recorded, moment, left));
        let judged = self.judge(&image, trail, &account, killed);
        let found = match judged {
            Err(why) => Some(Found::new(trail, why, &account)),
            Ok(()) if trail.len() <= self.matrix.depth && self.is_due(scope) => {
                self.crash_recovery(&image, &account, trail, scope)
            }
            Ok(()) => None,
        };
        trail.pop();
        found
    }

    const fn is_due(&self, scope: Scope) -> bool {
        self.report.opened.is_multiple_of(scope.nested_every)
    }

    fn crash_recovery(
        &mut self,
        image: &SimDisk,
        account: &Account<T>,
        trail: &mut Vec<Trail>,
        scope: Scope,
    ) -> Option<Found> {
        let draws = Draws { given: Vec::new(), then: Some(self.rng.fork()) };
        match self.record(&image.killed(), trail, draws, account) {
            Err(failed) => Some(Found::by_itself(trail, failed, account)),
            Ok(again) => self.crash(&again, trail, Scope { images: NESTED_IMAGES, ..scope }),
        }
    }

    /// Opens the image that `trail` left and asks the check.
    fn judge(
        &self,
        image: &SimDisk,
        trail: &[Trail],
        account: &Account<T>,
        killed: bool,
    ) -> Result<(), String> {
        let life = trail.len();
        let _watched = self.watchdog.begin(lives_of(trail), None);
        caught(|| {
            let db = self.open(&image.killed(), life, clock(life))?;
            (self.check)(&db, &Acked::new(account, killed)).map_err(|error| error.to_string())
        })
    }

    fn out_of_time(&self) -> bool {
        Instant::now() > self.until
    }

    // ---- Smaller ----

    /// The smallest failure that is reached from `found`: fewer and smaller draws, then an
    /// earlier crash and a simpler image.
    fn shrink(&mut self, found: Found) -> Found {
        let draws = found.lives[0].draws.clone();
        let tried = self.report.clone();
        let mut best = found;
        // Fewer crashes first.
        for depth in 0..=best.depth() {
            self.matrix.depth = depth;
            if depth < best.depth()
                && let Some(found) = self.again(&draws, &best)
            {
                best = found;
                break;
            }
        }
        shrink::shrink(draws, self.matrix.shrink_tries, |draws| {
            if self.out_of_time() {
                return None;
            }
            let found = self.again(draws, &best)?;
            best = found;
            Some(best.lives[0].draws.clone())
        });
        self.simplify_images(&mut best);
        // What was tried to make it smaller is not part of the search.
        self.report = tried;
        best
    }

    /// A failure of the program with these draws, no less simple than `like`.
    fn again(&mut self, draws: &[u64], like: &Found) -> Option<Found> {
        let recorded = self.first_life(Draws { given: draws.to_vec(), then: None }).ok()?;
        self.seen.clear();
        let mixtures = like.lives.iter().any(|life| !is_simple(&life.left));
        let nested_every = if self.matrix.depth > 0 { 1 } else { u64::MAX };
        let scope = Scope { images: SHRINK_IMAGES, mixtures, nested_every };
        self.crash(&recorded, &mut Vec::new(), scope)
    }

    /// Takes simpler images for as long as one of them fails.
    fn simplify_images(&mut self, best: &mut Found) {
        for life in 0..best.lives.len() {
            while let Left::Power(plan) = &best.lives[life].left
                && !self.out_of_time()
            {
                let mut candidates = plan.simpler();
                let simpler = candidates.find_map(|plan| {
                    let mut case = best.case();
                    case.lives[life].left = Left::Power(plan);
                    self.fails(&case).ok().flatten()
                });
                drop(candidates);
                match simpler {
                    Some(found) => *best = found,
                    None => break,
                }
            }
        }
    }

    // ---- One case ----

    fn replay(&mut self, case: &Case) -> Result<(), MatrixError> {
        let found = self.fails(case)?;
        self.report.replayed = Some(case.to_string());
        self.report.programs = 1;
        self.report.moments = 1;
        self.report.images = 1;
        self.report.opened = 1;
        self.report.duration = self.started.elapsed();
        self.report.failure = found.map(|found| {
            let draws = found.lives[0].draws.len();
            found.counterexample(draws)
        });
        Ok(())
    }

    /// Whether this very case fails.
    fn fails(&self, case: &Case) -> Result<Option<Found>, MatrixError> {
        let mut disk = SimDisk::new();
        let mut account = Account::new();
        let mut trail = Vec::new();
        for (at, life) in case.lives.iter().enumerate() {
            let draws = Draws { given: life.draws.clone(), then: None };
            let recorded = match self.record(&disk, &trail, draws, &account) {
                Ok(recorded) => recorded,
                Err((draws, why)) if at == 0 => return Err(MatrixError::Program { draws, why }),
                Err(failed) => return Ok(Some(Found::by_itself(&trail, failed, &account))),
            };
            let moment = recorded.moments.iter().find(|moment| moment.step() == life.steps);
            let moment = moment.ok_or_else(|| MatrixError::OtherProgram {
                what: format!("life {} has no crash point after {} steps", at + 1, life.steps),
            })?;
            let killed = life.left == Left::Kill;
            account = recorded.ack.account(moment, killed);
            disk = life.left.image(moment).killed();
            trail.push(Trail::new(&recorded, moment, life.left.clone()));
            if let Err(why) = self.judge(&disk, &trail, &account, killed) {
                return Ok(Some(Found::new(&trail, why, &account)));
            }
        }
        let Some(draws) = &case.failing else { return Ok(None) };
        let draws = Draws { given: draws.clone(), then: None };
        let failed = self.record(&disk, &trail, draws, &account).err();
        Ok(failed.map(|failed| Found::by_itself(&trail, failed, &account)))
    }
}

/// One crash on the way to a failure.
#[derive(Clone)]
struct Trail {
    life: Life,
    crashed: Crashed,
}

impl Trail {
    fn new<T: Clone>(recorded: &Recorded<T>, moment: &Moment, left: Left) -> Self {
        let next = usize::try_from(moment.step()).ok().and_then(|at| recorded.journal.get(at));
        let lost = match &left {
            Left::Kill => 0,
            Left::Power(plan) => plan.0.iter().filter(|choice| **choice != Choice::Keep).count(),
        };
        let crashed = Crashed {
            before: next.map_or_else(|| "the end".into(), |step| format!("step {step}")),
            pending: moment.pending_len(),
            lost,
            story: recorded.ack.story(moment),
        };
        Self { life: Life { draws: recorded.ack.drawn(), steps: moment.step(), left }, crashed }
    }
}

fn lives_of(trail: &[Trail]) -> Vec<Life> {
    trail.iter().map(|crash| crash.life.clone()).collect()
}

impl Found {
    fn new<T: Clone + Debug>(trail: &[Trail], why: String, account: &Account<T>) -> Self {
        let due = Acked::new(account, false);
        Self {
            lives: lives_of(trail),
            failing: None,
            why,
            acknowledged: due.iter().map(|what| format!("{what:?}")).collect(),
            doubtful: account.doubtful().map(|what| format!("{what:?}")).collect(),
            crashes: trail.iter().map(|crash| crash.crashed.clone()).collect(),
        }
    }

    /// The program, started again after the crashes of `trail`, failed.
    fn by_itself<T: Clone + Debug>(
        trail: &[Trail],
        (draws, why): (Vec<u64>, String),
        account: &Account<T>,
    ) -> Self {
        let why = format!("started again, the program failed: {why}");
        Self { failing: Some(draws), ..Self::new(trail, why, account) }
    }

    /// How many crashes inside recovery, or of the program started again, a search must allow
    /// to come upon it.
    const fn depth(&self) -> usize {
        self.lives.len() - 1 + self.failing.is_some() as usize
    }

    fn case(&self) -> Case {
        Case { lives: self.lives.clone(), failing: self.failing.clone() }
    }

    fn counterexample(self, first_draws: usize) -> Counterexample {
        Counterexample {
            case: self.case(),
            why: self.why,
            acknowledged: self.acknowledged,
            doubtful: self.doubtful,
            crashes: self.crashes,
            first_draws,
        }
    }
}

/// Nothing is kept, or everything.
fn is_simple(left: &Left) -> bool {
    match left {
        Left::Kill => true,
        Left::Power(plan) => {
            plan.0.iter().all(|choice| *choice == Choice::Drop)
                || plan.0.iter().all(|choice| *choice == Choice::Keep)
        }
    }
}

/// Later lives begin later.
fn clock(life: usize) -> ManualClock {
    const DAY_MICROS: u64 = 86_400_000_000;
    ManualClock::at(Timestamp::from_micros((1 << 50) + life as u64 * DAY_MICROS))
}
