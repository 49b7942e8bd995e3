//! Power cuts at every I/O step, in every mode: what is found is a prefix, what was promised
//! is in it, and no state that a cut can leave refuses to open; checkpoints, loading and
//! compaction change nothing that is read (P1, P2, P3, P4, P6, P8, P9, P10).

use std::num::NonZeroU32;
use std::time::Duration;

use steadfast::{DurabilityMode, Retention, SnapshotClass};
use steadfast_testing::crash::{Cut, Effort, Tally, explore};
use steadfast_testing::seed::effort;
use steadfast_testing::workload::{BATCHED, Workload};

/// The seed to begin with: `STEADFAST_SEED`, or always the same.
fn first_seed() -> u64 {
    std::env::var("STEADFAST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn survive(mode: DurabilityMode, workloads: u64, length: usize) {
    // In strict mode there are several times as many steps.
    let nested_every = if mode == DurabilityMode::Strict { 1000 } else { 900 };
    let hard =
        Effort { random: 6, nested_every, depth: 3, queued_versions: true, lost_pages: false };
    let mut total = Tally::default();
    for seed in first_seed()..first_seed() + workloads * effort() {
        let workload = Workload::seeded(seed, mode, length);
        // Checkpoints when the program says so, all history kept, checkpoints by themselves.
        let workload = match seed % 3 {
            1 => workload,
            2 => workload.keeping_all(),
            _ => workload.with_checkpoints_after(6 << 10),
        };
        match explore(&workload, Cut::Power, hard, seed) {
            Ok(tally) => total.add(&tally),
            Err(why) => panic!("seed {seed} (rerun with STEADFAST_SEED={seed}): {why}"),
        }
    }
    println!("{mode:?}: {total}");
    // What another seed reaches is not known.
    if first_seed() == 1 {
        for class in [SnapshotClass::Nothing, SnapshotClass::Sound] {
            assert!(total.snapshots.get(&class).is_some_and(|count| *count > 100), "{class}");
        }
        let enough = |what: &str, count: u64, least: u64| {
            assert!(count >= least, "{what}: only {count}");
        };
        // Three modes: 50,000 of these each time that the tests are run.
        enough("images", total.images, 17_000 * effort());
        enough("crashes inside recovery", total.nested, 10_000);
        for depth in 0..3 {
            let count = total.depths.get(depth).copied().unwrap_or(0);
            enough("crashes inside recovery at each depth", count, 300);
        }
        enough("read-only openings", total.read_only, 1_000);
        enough("power cuts after opening", total.cut_again, 1_000);
        enough("closed and opened again", total.closed, 1_000);
        enough("images whose log has lost its beginning", total.compacted, 500);
        enough("images read in place, then loaded", total.in_place, 500);
        enough("recovered databases that were compacted", total.compactions, 500);
        enough("older versions looked at", total.versions, 500);
        enough("streams across a checkpoint", total.straddled, 4);
    }
}

#[test]
fn strict_keeps_every_acknowledged_commit() {
    survive(DurabilityMode::Strict, 3, 40);
}

#[test]
fn batched_loses_at_most_its_window() {
    survive(BATCHED, 3, 40);
}

#[test]
fn buffered_keeps_a_prefix_and_always_opens() {
    survive(DurabilityMode::Buffered, 3, 40);
}

/// Some history is kept, by number, by time, and by either. Kept versions can be read, trimmed
/// ones are said to be trimmed, and what is read is what was there.
#[test]
fn no_crash_takes_kept_history_or_makes_it_wrong() {
    let three = NonZeroU32::new(3).unwrap();
    let long = Duration::from_millis(150);
    let rules = [
        Retention::KeepLast(three),
        Retention::KeepFor(long),
        Retention::KeepLastOrFor(NonZeroU32::new(2).unwrap(), long),
    ];
    let effort_of_each =
        Effort { random: 3, nested_every: 0, depth: 1, queued_versions: true, lost_pages: false };
    let modes = [DurabilityMode::Strict, BATCHED, DurabilityMode::Buffered];
    for (rule, mode) in rules.into_iter().zip(modes) {
        let mut total = Tally::default();
        for seed in first_seed()..first_seed() + effort() {
            let workload = Workload::seeded(seed, mode, 60).keeping(rule);
            match explore(&workload, Cut::Power, effort_of_each, seed) {
                Ok(tally) => total.add(&tally),
                Err(why) => {
                    panic!("{rule}, seed {seed} (rerun with STEADFAST_SEED={seed}): {why}")
                }
            }
        }
        println!("{rule}, {mode:?}: {total}");
        if first_seed() == 1 {
            assert!(
                total.versions > 1000,
                "{rule}: only {} versions could be read",
                total.versions
            );
            assert!(total.trimmed > 1000, "{rule}: only {} versions were trimmed", total.trimmed);
        }
    }
}
