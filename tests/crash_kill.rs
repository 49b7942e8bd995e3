//! The process ends at every I/O step, in every mode: what was acknowledged is there (P2),
//! and what opening shows then survives a power cut.

use steadfast_testing::crash::{Cut, Effort, Tally, explore};
use steadfast_testing::seed::effort;
use steadfast_testing::workload::{MODES, Workload};

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let hard =
        Effort { random: 0, nested_every: 397, depth: 2, queued_versions: true, lost_pages: false };
    let first = std::env::var("STEADFAST_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut total = Tally::default();
    for seed in first.unwrap_or(1)..first.unwrap_or(1) + 2 * effort() {
        for mode in MODES {
            let workload = Workload::seeded(seed, mode, 60);
            let workload = match seed % 2 {
                1 => workload,
                _ => workload.keeping_all().with_checkpoints_after(6 << 10),
            };
            match explore(&workload, Cut::Kill, hard, seed) {
                Ok(tally) => total.add(&tally),
                Err(why) => panic!("seed {seed} (rerun with STEADFAST_SEED={seed}): {why}"),
            }
        }
    }
    println!("{total}");
    if first.is_none() {
        assert!(total.nested > 100, "recovery was crashed");
        assert!(total.compacted > 100 && total.straddled > 1, "compactions and streams were met");
    }
}
