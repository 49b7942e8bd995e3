//! [`Ack`]: what a program under test says of itself while it runs, and where it takes its
//! random choices from.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use steadfast_engine::{Database, ManualClock, Version};

use crate::matrix::Failure;
use crate::sim::{Moment, SimDisk};

/// Something that a program acknowledged.
#[derive(Debug, Clone)]
struct Item<T> {
    what: T,
    /// Everything it can stand on has at most this version.
    version: Version,
    /// The note of the disk from which on it was acknowledged.
    acknowledged: u64,
    /// The note from which on it was known to survive a power cut.
    promised: Option<u64>,
}

/// What can be said of something that was acknowledged, after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It may be lost.
    Doubtful,
    /// It must be there, until the power goes.
    There,
    /// It must be there.
    Durable,
}

/// What is acknowledged, and which of it must be there. Goes from life to life.
#[derive(Debug, Clone)]
pub(crate) struct Account<T>(Vec<(T, Standing)>);

impl<T> Account<T> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }
}

impl<T> Account<T> {
    /// What this crash may have taken.
    pub(crate) fn doubtful(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter(|(_, standing)| *standing == Standing::Doubtful).map(|(what, _)| what)
    }
}

impl<T: fmt::Debug> Account<T> {
    /// The same for accounts that a check cannot tell apart.
    pub(crate) fn fingerprint(&self) -> u64 {
        let hasher = foldhash::fast::FixedState::default();
        let items = self.0.iter().map(|(what, standing)| (format!("{what:?}"), *standing as u8));
        hasher.hash_one(items.collect::<Vec<_>>())
    }
}

/// What a program drew so far, for who watches it, too.
pub(crate) type Drawn = Arc<Mutex<Vec<u64>>>;

struct State<T> {
    /// Those of earlier lives.
    before: Vec<(T, Standing)>,
    /// The note from which on what was found when opening was durable.
    opened: Option<u64>,
    items: Vec<Item<T>>,
    note: u64,
    /// What is drawn, given and made.
    given: Vec<u64>,
    rng: Option<fastrand::Rng>,
    drawn: Drawn,
    /// What the program says it is about to do, and from which note of the disk on.
    story: Vec<(u64, String)>,
}

/// Given to the program under test: it tells here what it has acknowledged to whoever uses it,
/// and draws here whatever it leaves to chance.
///
/// It may be shared by threads; but then what happens is not the same each time, and a failure
/// can neither be shrunk nor repeated.
pub struct Ack<T> {
    state: Mutex<State<T>>,
    disk: SimDisk,
    clock: ManualClock,
    /// A commit that returned is promised.
    strict: bool,
    db: Mutex<Option<Database>>,
}

impl<T> fmt::Debug for Ack<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Ack").field("count", &state.items.len()).finish_non_exhaustive()
    }
}

impl<T> Ack<T> {
    /// The program has told its user that `what` is done. From now on it must be there after a
    /// process kill; and after a power cut, once the database promises all that was committed
    /// until now: at once in strict mode, later in the others.
    pub fn done(&self, what: T) {
        let db = self.db();
        let version = db.as_ref().map_or(Version::ZERO, Database::current_version);
        {
            let mut state = self.state();
            state.note += 1;
            let acknowledged = state.note;
            let promised = self.strict.then_some(acknowledged);
            state.items.push(Item { what, version, acknowledged, promised });
            self.disk.note(acknowledged);
        }
        self.look(db.as_ref());
    }

    /// What the program is about to do, in words: a failure tells what was said before it.
    pub fn tell(&self, what: impl Into<String>) {
        let mut state = self.state();
        state.note += 1;
        let note = state.note;
        state.story.push((note, what.into()));
        self.disk.note(note);
    }

    /// A number below `bound`, or 0. When a failure is made smaller, so are the numbers.
    pub fn draw(&self, bound: u64) -> u64 {
        let mut state = self.state();
        let at = lock(&state.drawn).len();
        let drawn = match (state.given.get(at).copied(), &mut state.rng) {
            (Some(given), _) => given,
            (None, Some(rng)) => rng.u64(..bound.max(1)),
            (None, None) => 0,
        };
        let drawn = drawn % bound.max(1);
        lock(&state.drawn).push(drawn);
        drawn
    }

    /// One of `choices`.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn choose<'a, C>(&self, choices: &'a [C]) -> &'a C {
        assert!(!choices.is_empty(), "nothing to choose from");
        let at = self.draw(choices.len() as u64);
        &choices[usize::try_from(at).expect("it is below a length")]
    }

    /// Counts from 0 to some number below `most`; when a failure is made smaller, single rounds
    /// go.
    pub fn rounds(&self, most: u64) -> impl Iterator<Item = u64> + use<'_, T> {
        // One end in so many draws: on the average half of `most`.
        let one_in = (most / 2).max(2);
        (0..most).take_while(move |_| self.draw(one_in) > 0)
    }

    /// Lets time pass on the database's clock, then does what its background threads would do
    /// by then: syncs, checkpoints, compaction.
    ///
    /// # Errors
    ///
    /// Those of [`Database::maintain`].
    pub fn advance(&self, duration: Duration) -> steadfast_engine::Result<()> {
        self.clock.advance(duration);
        let db = self.db();
        let maintained = db.as_ref().map_or(Ok(()), Database::maintain);
        self.look(db.as_ref());
        maintained
    }

    /// What the database promises by now.
    fn look(&self, db: Option<&Database>) {
        let Some(Ok(stats)) = db.map(Database::stats) else { return };
        let mut state = self.state();
        let note = state.note + 1;
        let mut news = false;
        for item in state.items.iter_mut().filter(|item| item.version <= stats.promised) {
            news |= item.promised.is_none();
            item.promised.get_or_insert(note);
        }
        if news {
            state.note = note;
            self.disk.note(note);
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }

    fn db(&self) -> Option<Database> {
        lock(&self.db).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a program's draws come from: those given first, then random ones or zeros.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draws {
    pub(crate) given: Vec<u64>,
    pub(crate) then: Option<fastrand::Rng>,
}

impl<T: Clone> Ack<T> {
    pub(crate) fn new(
        disk: &SimDisk,
        clock: ManualClock,
        strict: bool,
        draws: Draws,
        before: &Account<T>,
    ) -> Self {
        Self {
            state: Mutex::new(State {
                before: before.0.clone(),
                opened: None,
                items: Vec::new(),
                note: 0,
                given: draws.given,
                rng: draws.then,
                drawn: Drawn::default(),
                story: Vec::new(),
            }),
            disk: disk.clone(),
            clock,
            strict,
            db: Mutex::new(None),
        }
    }

    /// The database is open: what it shows is durable.
    pub(crate) fn opened(&self, db: &Database) {
        *lock(&self.db) = Some(db.clone());
        let mut state = self.state();
        state.note += 1;
        state.opened = Some(state.note);
        self.disk.note(state.note);
    }

    /// Lets go of the database.
    pub(crate) fn ended(&self) {
        *lock(&self.db) = None;
    }

    /// The clock that the database runs by.
    pub(crate) fn clock(&self) -> ManualClock {
        self.clock.clone()
    }

    /// Whether nothing was left to chance.
    pub(crate) fn drew_nothing(&self) -> bool {
        lock(&self.state().drawn).is_empty()
    }

    /// What the program drew, without the zeros at the end.
    pub(crate) fn drawn(&self) -> Vec<u64> {
        let mut drawn = lock(&self.state().drawn).clone();
        super::shrink::trim(&mut drawn);
        drawn
    }

    /// The same as it goes on.
    pub(crate) fn drawing(&self) -> Drawn {
        self.state().drawn.clone()
    }

    /// What the program had told until `moment`.
    pub(crate) fn story(&self, moment: &Moment) -> Vec<String> {
        let state = self.state();
        let until = state.story.partition_point(|(note, _)| *note <= moment.note());
        state.story[..until].iter().map(|(_, what)| what.clone()).collect()
    }

    /// What was acknowledged at `moment`, and what of it must survive a crash then.
    pub(crate) fn account(&self, moment: &Moment, killed: bool) -> Account<T> {
        let state = self.state();
        let note = moment.note();
        let standing = |promised: Option<u64>| match promised.is_some_and(|at| at <= note) {
            true => Standing::Durable,
            false if killed => Standing::There,
            false => Standing::Doubtful,
        };
        let before = state.before.iter().map(|(what, old)| {
            let now = match old {
                Standing::There => standing(state.opened),
                settled => *settled,
            };
            (what.clone(), now)
        });
        let now = state.items.iter().filter(|item| item.acknowledged <= note);
        let now = now.map(|item| (item.what.clone(), standing(item.promised)));
        Account(before.chain(now).collect())
    }
}

/// What was acknowledged before a crash.
#[derive(Debug)]
pub struct Acked<'a, T> {
    account: &'a Account<T>,
    killed: bool,
}

impl<'a, T> Acked<'a, T> {
    pub(crate) const fn new(account: &'a Account<T>, killed: bool) -> Self {
        Self { account, killed }
    }

    /// What must be there, in the order in which it was acknowledged: everything, after a
    /// process kill and in strict mode; after a power cut in another mode, what was promised.
    pub fn iter(&self) -> impl Iterator<Item = &'a T> + use<'a, T> {
        let required = |(_, standing): &&(T, Standing)| *standing > Standing::Doubtful;
        self.account.0.iter().filter(required).map(|(what, _)| what)
    }

    /// How many must be there.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether nothing must be there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything that was acknowledged, also what this crash may have taken.
    pub fn all(&self) -> impl Iterator<Item = &'a T> + use<'a, T> {
        self.account.0.iter().map(|(what, _)| what)
    }

    /// Whether the process was killed; else the power was cut.
    pub const fn was_killed(&self) -> bool {
        self.killed
    }

    /// `Ok` if `holds`, else a failure that says `why`: for one line a rule.
    ///
    /// # Errors
    ///
    /// If it does not hold.
    pub fn expect(&self, holds: bool, why: impl FnOnce() -> String) -> Result<(), Failure> {
        if holds { Ok(()) } else { Err(why().into()) }
    }
}
