//! Collections, cohorts and co-engagement are what plain maps are, whatever comes in between.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use steadfast_engine::{CompactMode, Database, DatabaseConfig};
use steadfast_testing::model::{Item, Op, ReferenceModel, content_now};

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
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

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
