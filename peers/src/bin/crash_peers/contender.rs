//! Who is put through it, in which settings, and what those promise.

use steadfast_testing::target::CrashTarget;
use steadfast_testing::target::ours::Steadfast;

use crate::fjall::Fjall;
use crate::redb::Redb;
use crate::sqlite::{Journal, Sqlite};

/// Settings that do not make each commit durable are asked to after so many.
pub(crate) const SYNC_EVERY: u64 = 8;

/// A store in one of its settings.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// What its documentation says that a commit survives once it has returned.
    pub(crate) promise: &'static str,
    make: fn() -> Box<dyn CrashTarget>,
}

const POWER: &str = "power loss";
const DEATH: &str = "end of the process";

const fn contender(
    name: &'static str,
    promise: &'static str,
    make: fn() -> Box<dyn CrashTarget>,
) -> Contender {
    Contender { name, promise, make }
}

fn steadfast(mode: &str) -> Box<dyn CrashTarget> {
    Box::new(Steadfast::named(mode).expect("a mode"))
}

/// Steadfast first.
pub(crate) const CONTENDERS: [Contender; 11] = [
    contender("steadfast-strict", POWER, || steadfast("strict")),
    contender("steadfast-batched", DEATH, || steadfast("batched")),
    contender("steadfast-buffered", DEATH, || steadfast("buffered")),
    contender("redb-immediate", POWER, || Box::new(Redb::new(true))),
    contender("redb-none", "nothing", || Box::new(Redb::new(false))),
    contender("fjall-sync", POWER, || Box::new(Fjall::new(true))),
    contender("fjall-buffer", DEATH, || Box::new(Fjall::new(false))),
    contender("sqlite-wal-full", POWER, || Box::new(Sqlite::new(Journal::Wal, "FULL"))),
    contender("sqlite-wal-normal", DEATH, || Box::new(Sqlite::new(Journal::Wal, "NORMAL"))),
    contender("sqlite-delete-extra", POWER, || Box::new(Sqlite::new(Journal::Delete, "EXTRA"))),
    contender("sqlite-delete-full", DEATH, || Box::new(Sqlite::new(Journal::Delete, "FULL"))),
];

impl Contender {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        CONTENDERS.iter().find(|contender| contender.name == name)
    }

    pub(crate) fn target(&self) -> Box<dyn CrashTarget> {
        (self.make)()
    }
}
