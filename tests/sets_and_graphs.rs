//! Collections, cohorts and co-engagement are in the transaction with all else, wherever it ends
//! (P1, P2, P3, P10), and are what plain maps are.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // rounds are few

use proptest::prelude::*;
use steadfast::{CompactMode, Database, DatabaseConfig, DurabilityMode, Predicate, Result, Window};
use steadfast_testing::crash::{Cut, Effort, Tally, explore};
use steadfast_testing::matrix::{Ack, Acked, Failure, crash_matrix};
use steadfast_testing::model::{Item, Op, ReferenceModel, content_now};
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

fn op() -> impl Strategy<Value = Op> {
    let name = |what: &'static str, n: u8| (0..n).prop_map(move |n| format!("{what}{n}"));
    let run = || name("r", 2);
    prop_oneof![
        3 => (run(), name("set", 2), name("i", 5)).prop_map(|(r, s, i)| Op::Collect(r, s, i)),
        1 => (run(), name("set", 2), name("i", 5)).prop_map(|(r, s, i)| Op::Uncollect(r, s, i)),
        1 => (run(), name("set", 2)).prop_map(|(r, s)| Op::Uncollected(r, s)),
        2 => (run(), name("e", 3), 0i64..4).prop_map(|(r, e, n)| Op::Level(r, e, n)),
        1 => (run(), 0i64..4).prop_map(|(r, n)| Op::Cohort(r, format!("from-{n}"), n)),
        4 => (run(), name("e", 3), 0u32..9, 0u64..1 << 40)
            .prop_map(|(r, e, w, at)| Op::Signal(r, "view".into(), e, w, at)),
        6 => (run(), name("a", 3), name("i", 6), 0u64..9)
            .prop_map(|(r, a, i, at)| Op::Engage(r, "graph".into(), a, i, at)),
        1 => run().prop_map(Op::DeleteRun),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn they_are_what_plain_maps_are(
        transactions in prop::collection::vec((prop::collection::vec(op(), 1..6), 0u8..8), 1..40)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let config = DatabaseConfig::buffered().manual_checkpoints();
            Database::builder(dir.path().join("db")).config(config).open().unwrap()
        };
        let (mut db, mut model) = (open(), ReferenceModel::new());
        for (ops, then) in &transactions {
            let (_, receipt) =
                db.transaction(|tx| ops.iter().try_for_each(|op| op.apply(tx))).unwrap();
            model.apply(ops, receipt.version());
            match then {
                0 => {
                    db.close().unwrap();
                    db = open();
                }
                1 => drop(db.checkpoint().unwrap()),
                2 => {
                    db.checkpoint().unwrap();
                    db.compact(CompactMode::Full).unwrap();
                }
                _ => {}
            }
        }
        db.close().unwrap();
        let db = open();
        prop_assert_eq!(model.compare(&content_now(&db).unwrap()), []);

        // As one file, in another database: the same but for the versions.
        let other = Database::open(dir.path().join("other")).unwrap();
        for (n, info) in db.list_runs().unwrap().into_iter().enumerate() {
            let file = dir.path().join(n.to_string());
            db.export_run(info.run, &file).unwrap();
            other.import_run(&file, None).unwrap();
        }
        let values = |db: &Database| {
            let content = content_now(db).unwrap();
            content.into_iter().map(|(item, (_, value))| (item, value)).collect::<Vec<_>>()
        };
        prop_assert_eq!(values(&other), values(&db));
        let members = |run: &str, least: i64| {
            let is_in = |item: &Item, level: Option<i64>| {
                matches!(item, Item::Attributes(of, _) if of == run) && level >= Some(least)
            };
            let content = model.content().iter();
            content.filter(|(item, (_, level))| is_in(item, level.as_int())).count()
        };
        let view = db.view().unwrap();
        for defined in view.cohort_definitions().unwrap() {
            let least = defined.name.strip_prefix("from-").unwrap().parse().unwrap();
            for info in view.list_runs().unwrap() {
                let found = view.cohort_members(info.run, &defined.name).unwrap().count();
                prop_assert_eq!(found, members(&info.name, least));
            }
        }
    }
}
