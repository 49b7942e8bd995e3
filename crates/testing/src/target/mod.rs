//! Any engine, put through crashes as a process.
//!
//! A [`CrashTarget`] is an engine with its settings: five verbs around it are all that is asked
//! for. [`serve`] makes a process of it that does what it is told line by line ([`protocol`] has
//! the lines, so that an engine in any language can take part). [`kill`] kills such a
//! process again and again on a real directory; with the feature `fuse`, `fuse::power_cut` takes
//! the power away under it. Both judge by what was acknowledged, and with which [`Promise`]:
//! promised ⊆ found ⊆ acknowledged + under way, whole transactions only, in order.
//!
//! [`ours`] is Steadfast as a target, and [`toy`] a small log with a choice of defects, which
//! shows that each technique finds what it should.

use std::collections::BTreeMap;
use std::path::Path;

pub mod history;
pub mod kill;
pub mod ours;
pub mod process;
pub mod protocol;
pub mod toy;
pub mod verdict;

pub use history::{Bounds, History};
pub use process::Program;
pub use protocol::serve;
pub use verdict::{Tally, Verdict};

/// All that is stored: keys and their values.
pub type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// What went wrong, in the engine's own words.
pub type Failure = Box<dyn std::error::Error>;

/// Keys that change together, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Unique, and larger than those before.
    pub serial: u64,
    /// Keys with their new values; `None` removes. No key comes twice.
    pub writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// What an acknowledged transaction survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// Nothing: it may be gone with the process.
    Nothing,
    /// The end of the process.
    ProcessDeath,
    /// The end of the process, and the loss of power.
    PowerLoss,
}

/// An engine with its settings.
pub trait CrashTarget {
    /// Makes a store in `dir`, which is empty.
    fn start(&mut self, dir: &Path) -> Result<(), Failure>;

    /// Commits one transaction.
    fn apply(&mut self, transaction: &Transaction) -> Result<(), Failure>;

    /// What the engine promises now of all transactions so far. It may do something for it
    /// first, such as a sync now and then.
    fn acknowledge(&mut self) -> Result<Promise, Failure>;

    /// Opens what a crash left in `dir`; if it came before [`CrashTarget::start`] was done,
    /// that may be nothing.
    fn reopen(&mut self, dir: &Path) -> Result<(), Failure>;

    /// Everything that is stored.
    fn dump(&mut self) -> Result<Entries, Failure>;
}
