//! Histories of concurrent transactions, and whether any order of them explains what was seen.
//!
//! Threads record what they ask for and what they are told with a [`Recorder`]; [`check`] judges
//! the [`History`], [`check_recovered`] the same history and what was there after a crash. In
//! general that is a search over orders. A database that gives each commit a version has said
//! its order, so here it is one pass: every transaction is held against the state that the
//! versions before it add up to.
//!
//! What is held against it:
//!
//! - a transaction that ended before another began has the lower version;
//! - what was read at a view is what the commits up to it left, all of it and nothing else, and
//!   for a transaction that commits it is still so right before its own version: keys, ranges,
//!   and keys that were not there;
//! - no version is given twice; nothing is seen of a transaction that failed;
//! - a view is not older than what was acknowledged before it was opened;
//! - after a crash there are the first commits up to one version and no others: with every
//!   acknowledged one that had to survive, and each that was in flight wholly or not at all.
//!
//! Two limits. Transactions whose outcome is unknown are told apart by what they wrote: give each
//! write a value of its own. And it trusts the versions that the database tells; that they are
//! not an order made up afterwards is what real time is held against.
//!
//! ```
//! use std::sync::Arc;
//! use steadfast_engine::Database;
//! use steadfast_testing::concurrent::{Recorder, check};
//!
//! let db = Database::in_memory()?;
//! let run = db.create_run("bank")?;
//! let recorder = Recorder::of(&db, run)?;
//! std::thread::scope(|scope| {
//!     for who in ["alice", "bob"] {
//!         let (db, recorder) = (&db, &recorder);
//!         scope.spawn(move || {
//!             for n in 0..20 {
//!                 // A conflict is an outcome like others: it is recorded, too.
//!                 let _ = recorder.transaction(who, db, run, |tx| {
//!                     let before = tx.kv_get("counter")?.and_then(|found| found.value.as_int());
//!                     tx.kv_put("counter", before.unwrap_or(0) + 1)?;
//!                     tx.kv_put(&format!("{who}-{n}"), "was here")
//!                 });
//!             }
//!         });
//!     }
//! });
//! let checked = check(&recorder.history()).expect("serializable, in the order of versions");
//! assert!(checked.committed >= 20);
//! # Ok::<(), steadfast_engine::Error>(())
//! ```

mod check;
mod generator;
mod history;
mod lines;
mod load;
mod recorded;
mod recorder;
mod violation;

#[cfg(test)]
mod tests;

pub use check::{Checked, Crash, check, check_recovered};
pub use generator::{Damage, Generated, damage, generate};
pub use history::{History, Outcome, Read, Seen, State, Txn, TxnId};
pub use load::{Load, Mix};
pub use recorded::{Recorded, RecordedView};
pub use recorder::{Attempt, Recorder};
pub use violation::{Violation, Violations};
