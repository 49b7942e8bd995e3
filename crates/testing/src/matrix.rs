//! The crash matrix: your program, your invariant, and every crash image in between.
//!
//! ```
//! use steadfast_engine::{Database, Value};
//! use steadfast_testing::matrix::crash_matrix;
//!
//! let report = crash_matrix(7)
//!     .run(|db, ack| {
//!         let run = db.get_or_create_run("orders")?;
//!         for order in ack.rounds(4) {
//!             db.transaction(|tx| {
//!                 tx.kv_put(run, format!("order-{order}"), "taken")?;
//!                 tx.kv_put(run, "count", order as i64 + 1)
//!             })?;
//!             ack.done(order); // the customer was told
//!         }
//!         Ok(())
//!     })
//!     .check(|db, acked| {
//!         let Ok(run) = db.resolve_run("orders") else {
//!             return acked.expect(acked.is_empty(), || "the orders are gone".into());
//!         };
//!         for order in acked.iter() {
//!             let found = db.kv_get(run, format!("order-{order}"))?;
//!             acked.expect(found.is_some(), || format!("order {order} is lost"))?;
//!         }
//!         let orders = db.kv_scan(run, "order-")?.count() as i64;
//!         let count = db.kv_get(run, "count")?.and_then(|count| count.value.as_int());
//!         acked.expect(count.unwrap_or(0) == orders, || format!("{count:?} is not {orders}"))
//!     });
//! report.expect_good();
//! assert!(report.images > 100);
//! ```
//!
//! The program runs once, to its end, on a [`SimDisk`]. Then each moment of that run is crashed:
//! the process is killed, and the power is cut in every way that [`Moment::plans`] knows. Each
//! image is opened and given to the check. Some recoveries are crashed in turn. What fails is
//! made smaller: fewer draws, an earlier crash, a simpler image; and is printed with a token
//! that repeats it.
//!
//! What the program leaves to chance it draws from its [`Ack`], and time passes only when it
//! says so: then the same seed does the same each time.

mod ack;
mod case;
mod report;
mod search;
mod shrink;
mod watchdog;

use std::time::Duration;

use steadfast_engine::{Database, DatabaseConfig};

pub use ack::{Ack, Acked};
pub use case::{Case, Left, Life, TokenError};
pub use report::{Counterexample, MatrixError, MatrixReport};

#[cfg(doc)]
use crate::sim::{Moment, SimDisk};

/// What a program or a check ends with when it does not end well: any error, or a text
/// (`"the sum is wrong".into()`).
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The environment variable with a token that is run again instead of a search.
pub const REPLAY_VARIABLE: &str = "STEADFAST_REPLAY";

/// Begins a crash matrix. All that is random in it comes from `seed`.
pub fn crash_matrix(seed: u64) -> CrashMatrix {
    CrashMatrix {
        seed,
        config: DatabaseConfig::strict().manual_checkpoints(),
        programs: 8,
        images_max: 20_000,
        time_max: Duration::from_secs(60),
        depth: 1,
        starts_again: false,
        random: 4,
        shrink_tries: 400,
        hangs_after: Duration::from_secs(300),
        replay: None,
    }
}

/// What is tried, and how hard.
#[derive(Debug, Clone)]
pub struct CrashMatrix {
    seed: u64,
    config: DatabaseConfig,
    programs: u64,
    images_max: u64,
    time_max: Duration,
    depth: usize,
    starts_again: bool,
    random: usize,
    shrink_tries: u32,
    hangs_after: Duration,
    replay: Option<Result<Case, TokenError>>,
}

impl CrashMatrix {
    /// How the database is opened [default: strict, checkpoints only when asked for].
    #[must_use]
    pub fn config(mut self, config: DatabaseConfig) -> Self {
        self.config = config;
        self
    }

    /// How often the program runs, with other draws each time [default: 8]. One that draws
    /// nothing runs once.
    #[must_use]
    pub const fn programs(mut self, programs: u64) -> Self {
        self.programs = programs;
        self
    }

    /// The most images to open [default: 20,000], shared by the programs. Of a longer program
    /// not all images are tried, but some of every moment.
    #[must_use]
    pub const fn images_max(mut self, images: u64) -> Self {
        self.images_max = images;
        self
    }

    /// The longest that the search may take [default: one minute]; making what it finds smaller
    /// may take as long again.
    #[must_use]
    pub const fn time_max(mut self, time: Duration) -> Self {
        self.time_max = time;
        self
    }

    /// A program, or a check, that has not returned after this long hangs [default: five minutes].
    /// Nothing can end it: the line that repeats it is printed, and the process ends with 101.
    #[must_use]
    pub const fn hangs_after(mut self, time: Duration) -> Self {
        self.hangs_after = time;
        self
    }

    /// Random images of each moment, besides those that are enumerated [default: 4].
    #[must_use]
    pub const fn random(mut self, images: usize) -> Self {
        self.random = images;
        self
    }

    /// How many crashes inside recoveries may follow the first [default: 1]. Recovery is crashed
    /// in one of 25 different images, in at most 300 ways: the simplest of each moment of it, then
    /// others.
    #[must_use]
    pub const fn depth(mut self, crashes: usize) -> Self {
        self.depth = crashes;
        self
    }

    /// After a crash that [`CrashMatrix::depth`] allows to be followed by another, the program is
    /// started again on what recovery found, as a service would be, and the crash comes there.
    /// What is acknowledged adds up. That is a sample of second lives: of one of 5 different
    /// images, with other draws each time, at most 300 images. More of them come with
    /// [`CrashMatrix::programs`], [`CrashMatrix::images_max`] and [`CrashMatrix::time_max`].
    #[must_use]
    pub const fn starting_again(mut self) -> Self {
        self.starts_again = true;
        self
    }

    /// Only this crash: a token that a failure printed. The environment variable
    /// `STEADFAST_REPLAY` does the same.
    #[must_use]
    pub fn replay(mut self, token: &str) -> Self {
        self.replay = Some(token.parse());
        self
    }

    /// The program under test. It is given an open database and tells its [`Ack`] what it
    /// acknowledges; it need not close.
    pub fn run<T, P>(self, program: P) -> Program<T, P>
    where
        P: Fn(&Database, &Ack<T>) -> Result<(), Failure>,
    {
        Program { matrix: self, program, acknowledges: std::marker::PhantomData }
    }
}

/// A program to be crashed.
#[derive(Debug)]
pub struct Program<T, P> {
    matrix: CrashMatrix,
    program: P,
    acknowledges: std::marker::PhantomData<fn() -> T>,
}

impl<T, P> Program<T, P>
where
    T: Clone + std::fmt::Debug,
    P: Fn(&Database, &Ack<T>) -> Result<(), Failure>,
{
    /// Crashes the program in every way and holds what is left against `check`, which is given
    /// the recovered database and what was acknowledged before the crash. **Crashes come before
    /// the program's first commit, too**: the check must bear an empty database. It may write, as
    /// the
    /// program's own start would. An error and a panic are failures; so is a database that
    /// refuses to open.
    pub fn check<C>(self, check: C) -> MatrixReport
    where
        C: Fn(&Database, &Acked<'_, T>) -> Result<(), Failure>,
    {
        search::Search::new(self.matrix, &self.program, &check).report()
    }
}
