//! Collections, cohorts and co-engagement are in the transaction with all else, wherever it ends
//! (P1, P2, P3, P10).
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // rounds are few

use steadfast::{CompactMode, Database, DurabilityMode, Predicate, Result, Window};
use steadfast_testing::crash::{Cut, Effort, Tally, explore};
use steadfast_testing::matrix::{Ack, Acked, Failure, crash_matrix};
use steadfast_testing::workload::{BATCHED, Workload};

/// One transaction over every one of them.
fn count(db: &Database, ack: &Ack<u64>) -> std::result::Result<(), Failure> {
    let run = db.get_or_create_run("r")?;
    db.define_cohort("all", 1, &Predicate::exists("kind"))?;
    for round in ack.rounds(4) {
        db.transaction(|tx| {
            tx.attributes_set(run, [round as u8], [("kind".into(), 1.into())].into())?;
            tx.signal_record(run, "view", [round as u8], 1.0)?;
            tx.collection_add(run, "seen", [round as u8])?;
            tx.engage(run, "graph", "actor", [round as u8])
        })?;
        ack.done(round);
        if round == 1 {
            db.checkpoint()?;
        }
    }
    Ok(())
}

fn counted(db: &Database, acked: &Acked<'_, u64>) -> std::result::Result<(), Failure> {
    let Ok(run) = db.resolve_run("r") else { return acked.expect(false, || "no run".into()) };
    let look = || -> Result<[u64; 5]> {
        let view = db.view()?;
        Ok([
            view.attributes_scan(run, "")?.count() as u64,
            view.cohort_count(run, "all", "view", Window::AllTime)?,
            view.collection_len(run, "seen")?,
            view.engaged(run, "graph", "actor")?.len() as u64,
            match view.co_engaged(run, "graph", [0], 100)?.len() as u64 {
                0 => u64::from(view.collection_contains(run, "seen", [0])?),
                others => others + 1,
            },
        ])
    };
    let found = look()?;
    let told = acked.iter().count() as u64;
    let whole = found.iter().all(|count| *count == found[0]) && found[0] >= told;
    acked.expect(whole, || format!("{found:?} after {told}"))?;
    db.checkpoint()?;
    db.compact(CompactMode::Full)?;
    acked.expect(look()? == found, || "a compaction changed it".into())
}

#[test]
fn a_transaction_over_sets_cohorts_and_graphs_is_whole_after_every_crash() {
    let judged = |db: &Database, acked: &Acked<'_, u64>| match db.resolve_run("r") {
        Err(_) => acked.expect(acked.iter().count() == 0, || "the run is gone".into()),
        Ok(_) if db.view()?.cohort_definitions()?.is_empty() => {
            acked.expect(acked.iter().count() == 0, || "the cohort is gone".into())
        }
        Ok(_) => counted(db, acked),
    };
    let report = crash_matrix(7).images_max(3_000).run(count).check(judged);
    report.expect_good();
    assert!(report.opened > 300, "{report}");
}

/// The whole workload against the model: every image of a power cut and of a killed process.
#[test]
fn what_is_left_of_sets_and_graphs_is_a_prefix() {
    let effort = Effort {
        random: 2,
        nested_every: 2000,
        depth: 1,
        queued_versions: true,
        lost_pages: false,
    };
    let mut total = Tally::default();
    for (seed, mode) in
        [DurabilityMode::Strict, BATCHED, DurabilityMode::Buffered].into_iter().enumerate()
    {
        let seed = seed as u64 + 1;
        let workload = Workload::seeded(seed, mode, 20).with_sets_and_graphs(seed);
        let workload = workload.with_runs_that_end(seed);
        match explore(&workload, Cut::Power, effort, seed) {
            Ok(tally) => total.add(&tally),
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    println!("{total}");
    assert!(total.images > 2_000, "{total}");
}
