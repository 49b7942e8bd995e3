//! Power cuts at every I/O step, in every mode: what is found is a prefix, what was promised
//! is in it, and no state that a cut can leave refuses to open (P1, P2, P3, P4, P6, P8).

use steadfast::DurabilityMode;
use steadfast_testing::crash::{Cut, Effort, Tally, explore};
use steadfast_testing::workload::{BATCHED, Workload};

/// The seed to begin with: `STEADFAST_SEED`, or always the same.
fn first_seed() -> u64 {
    std::env::var("STEADFAST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn survive(mode: DurabilityMode, workloads: u64, length: usize) {
    let effort =
        Effort { random: 6, nested_every: 200, depth: 2, queued_versions: true, lost_pages: false };
    let mut total = Tally::default();
    for seed in first_seed()..first_seed() + workloads {
        match explore(&Workload::seeded(seed, mode, length), Cut::Power, effort, seed) {
            Ok(tally) => total.add(&tally),
            Err(why) => panic!("seed {seed} (rerun with STEADFAST_SEED={seed}): {why}"),
        }
    }
    println!("{mode:?}: {total}");
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
