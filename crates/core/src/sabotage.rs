//! Sabotage: bugs that a real engine could have, each behind a switch, for proving that the
//! tests would find them.
//!
//! Without the feature `sabotage` a switch is the constant `false`, and the code behind it is
//! not compiled in. With it, a bug can be turned on for one thread or for all. One bug is on at
//! a time: what is proven is that each is found by itself.

use std::fmt;

macro_rules! sabotages {
    ($($(#[$doc:meta])* $name:ident: $promise:literal,)*) => {
        /// A bug that is planted on purpose.
        ///
        /// In the order of the layers: the log, recovery, snapshots and compaction, the store,
        /// commits.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Sabotage {
            $($(#[$doc])* $name,)*
        }

        impl Sabotage {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name, as it is written in the code.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The promises that it breaks, by their numbers.
            pub const fn breaks(self) -> &'static str {
                match self {
                    $(Self::$name => $promise,)*
                }
            }
        }
    };
}

sabotages! {
    // ---- The log (durability) ----
    /// The directory is not synced after a segment was created.
    SkipSegmentDirectorySync: "P2, P9",
    /// The old segment is not synced when the log goes on in a new one.
    SkipSealSync: "P2, P3",
    /// The new MANIFEST is not synced before it takes its name.
    SkipManifestSync: "P9",
    /// The directory is not synced after the new MANIFEST has taken its name.
    SkipManifestDirectorySync: "P9",
    /// A commit that asked for a sync is acknowledged without one.
    AcknowledgeBeforeSync: "P2",
    /// The durable write of strict mode is a plain one.
    StrictWriteNotDurable: "P2",
    /// In batched mode, the window never makes a commit wait.
    BatchedWindowNeverSyncs: "P2",
    /// In batched mode, an idle log is not synced when its interval is over.
    TimerNeverSyncs: "P2",
    /// Whoever waits for a commit to be durable is told so at once.
    WaitDurableLies: "P2",
    /// A sync that failed is taken for one that succeeded.
    SwallowSyncError: "P7",
    /// After a failed sync the next commit is taken as if nothing had happened.
    GoOnAfterFailedSync: "P7",
    /// After a write that failed half-way, the next group is appended behind what it left.
    AppendBehindFailedWrite: "P2, P6",
    /// Versions are given out that no segment's header has reserved.
    UnreservedVersions: "P4",
    /// A clean close forgets versions that were given to commits which failed.
    CloseForgetsVersions: "P4",
    /// A namespace that is first used after the first rotation is not defined in the log.
    DefinitionLeftOut: "P1",

    // ---- What is valid (durability) ----
    /// The checksum of a group is not compared.
    IgnoreGroupChecksum: "P6",
    /// The checksum of a group's header is not compared.
    IgnoreGroupHeaderChecksum: "P6",
    /// A group's checksum does not go on from the one before it.
    IgnoreChain: "P3",
    /// The epoch is not mixed into checksums.
    EpochNotMixedIn: "P3",
    /// The database that a segment's header names is not compared.
    NoDatabaseCheck: "P6",
    /// The checksum of the MANIFEST is not compared.
    IgnoreManifestChecksum: "P6",
    /// No checksum in a snapshot is compared.
    IgnoreSnapshotChecksum: "P6",

    // ---- Recovery (durability) ----
    /// An error while reading the log is taken for its end.
    ErrorReadAsEnd: "P6",
    /// The log is cut at the first bad byte, whatever was promised.
    IgnorePromise: "P6",
    /// What lies behind the first bad byte is not looked at.
    LookNotBehind: "P6",
    /// Commits in a segment that the MANIFEST does not name are ignored.
    OldManifestAccepted: "P6",
    /// What no sync is proven for is not written again.
    RecoveryRewritesNothing: "P2",
    /// An opening for reading shows what it has not synced.
    ReaderDoesNotSync: "P2",
    /// What recovery writes again is not synced.
    RecoveryDoesNotSync: "P8, P9",
    /// An opening after a kill gives out versions that were given out already.
    ReuseVersions: "P4",
    /// Replay applies each transaction once more, one version later.
    ApplyTwice: "P3, P4",
    /// Replay applies what there is of a streamed transaction without its commit.
    KeepPartialStream: "P1",
    /// Replay leaves out the first write of a transaction.
    DropFirstWrite: "P1",
    /// Replay leaves out the last write of a transaction.
    DropLastWrite: "P1",
    /// Replay leaves out deletes.
    DeleteNotReplayed: "P3",
    /// Replay forgets when a value expires.
    ExpiryNotReplayed: "P3",

    // ---- Snapshots, compaction (durability, engine) ----
    /// A snapshot is not synced.
    SkipSnapshotSync: "P9",
    /// The directory is not synced after a snapshot was created.
    SkipSnapshotDirectorySync: "P9",
    /// The MANIFEST names a snapshot, and only then is it synced.
    NameSnapshotBeforeSync: "P9",
    /// A checkpoint does not sync the log first.
    CheckpointBeforeLogSync: "P9",
    /// A compaction believes a snapshot that it has not read back.
    TrustSnapshotUnread: "P10",
    /// A compaction removes one segment too many.
    CompactOneTooMany: "P10",
    /// A compaction removes segments before the MANIFEST lets go of them.
    CompactBeforeManifest: "P9, P10",
    /// A segment that a streamed transaction began in is let go of while it is open.
    ForgetOpenStream: "P10",
    /// An opening for reading writes the MANIFEST again.
    ReadOnlyWrites: "P12",

    // ---- The store (storage) ----
    /// A tombstone goes although the table beneath may have what it deletes.
    TombstoneDropped: "P10",
    /// A row of the table beneath hides a newer one in memory.
    TableBeatsMemory: "P10",
    /// A version that comes late takes the place of a higher one.
    LowerVersionWins: "P10",
    /// Retention keeps one version too few.
    TrimOneTooMany: "P10",

    // ---- Commits (engine) ----
    /// A commit is visible before it is in the log.
    PublishBeforeDurable: "P2, P7",
    /// A commit returns although earlier ones are not visible, and so itself is not.
    ReturnBeforeVisible: "P5",
    /// Nothing that a transaction read is validated.
    LostUpdate: "P5",
    /// Only the ranges that a transaction read are validated, and not single keys.
    WriteSkew: "P5",
    /// Only the single keys that a transaction read are validated, and not ranges.
    Phantom: "P5",
    /// An event gets the sequence number of the one before it.
    SequenceReused: "P1",
    /// Times of commits step back with the clock.
    ClockStepsBack: "P5",
}

impl Sabotage {
    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|sabotage| sabotage.name() == name)
    }
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether sabotage is compiled in. No figure that is published comes from such a build.
pub const SABOTAGE_COMPILED_IN: bool = cfg!(feature = "sabotage");

/// The variable of the environment that names the sabotage of a whole process, for programs
/// that ask for it: see `sabotage_every_thread`.
pub const SABOTAGE_VARIABLE: &str = "STEADFAST_SABOTAGE";

/// Whether this bug is turned on. The constant `false` without the feature `sabotage`.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub const fn sabotaged(_sabotage: Sabotage) -> bool {
    false
}

/// Does `step`, unless this bug is turned on that leaves it out.
#[inline(always)]
pub fn unless<E>(sabotage: Sabotage, step: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    if sabotaged(sabotage) { Ok(()) } else { step() }
}

#[cfg(feature = "sabotage")]
pub use switches::{sabotage_every_thread, sabotage_this_thread, sabotaged};

#[cfg(feature = "sabotage")]
mod switches {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

    use super::Sabotage;

    /// No sabotage has this number.
    const NONE: u8 = u8::MAX;

    /// How many switches are set: where there are none, asking costs one load.
    static SET: AtomicUsize = AtomicUsize::new(0);
    static EVERYWHERE: AtomicU8 = AtomicU8::new(NONE);
    thread_local! {
        static HERE: Cell<u8> = const { Cell::new(NONE) };
    }

    fn replaced(old: u8, new: u8) -> Option<Sabotage> {
        match (old == NONE, new == NONE) {
            (true, false) => drop(SET.fetch_add(1, Ordering::AcqRel)),
            (false, true) => drop(SET.fetch_sub(1, Ordering::AcqRel)),
            _ => {}
        }
        Sabotage::ALL.get(usize::from(old)).copied()
    }

    /// Turns a bug on for the calling thread, or off. Returns which was on.
    pub fn sabotage_this_thread(sabotage: Option<Sabotage>) -> Option<Sabotage> {
        let new = sabotage.map_or(NONE, |sabotage| sabotage as u8);
        replaced(HERE.replace(new), new)
    }

    /// Turns a bug on for all threads, or off. Returns which was on.
    pub fn sabotage_every_thread(sabotage: Option<Sabotage>) -> Option<Sabotage> {
        let new = sabotage.map_or(NONE, |sabotage| sabotage as u8);
        replaced(EVERYWHERE.swap(new, Ordering::AcqRel), new)
    }

    /// Whether this bug is turned on.
    #[inline]
    pub fn sabotaged(sabotage: Sabotage) -> bool {
        SET.load(Ordering::Acquire) > 0 && is_on(sabotage as u8)
    }

    #[cold]
    fn is_on(number: u8) -> bool {
        EVERYWHERE.load(Ordering::Acquire) == number
            || HERE.try_with(Cell::get).is_ok_and(|here| here == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sabotage_is_found_by_its_name_and_off_at_first() {
        for (number, sabotage) in Sabotage::ALL.iter().enumerate() {
            assert_eq!(*sabotage as usize, number);
            assert_eq!(Sabotage::from_name(sabotage.name()), Some(*sabotage));
            assert!(sabotage.breaks().starts_with('P'), "{sabotage}");
            assert!(!sabotaged(*sabotage));
        }
        assert_eq!(Sabotage::from_name("Nothing"), None);
    }

    #[cfg(feature = "sabotage")]
    #[test]
    fn a_switch_is_of_its_thread_or_of_all() {
        let (one, two) = (Sabotage::IgnoreChain, Sabotage::Phantom);
        assert_eq!(sabotage_this_thread(Some(one)), None);
        assert!(sabotaged(one) && !sabotaged(two));
        assert!(!std::thread::spawn(move || sabotaged(one)).join().expect("it only asks"));
        assert_eq!(unless(one, || Err(())), Ok(()));
        assert_eq!(unless(two, || Err(())), Err(()));
        assert_eq!(sabotage_this_thread(None), Some(one));
        assert!(!sabotaged(one));
    }
}
