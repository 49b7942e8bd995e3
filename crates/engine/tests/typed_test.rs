//! Key-values of Rust types, through a database and its log.
#![allow(clippy::unwrap_used)]

use serde::{Deserialize, Serialize};
use steadfast_engine::{Database, DatabaseConfig, ErrorKind, Value, typed};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Goal {
    text: String,
    tries: u64,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum State {
    Open,
    Done { at: Option<f64> },
}

#[test]
fn what_is_put_as_a_type_is_got_as_it_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let goal = Goal { text: "fix".into(), tries: 3, state: State::Done { at: Some(1.0) } };
    let open = Goal { state: State::Open, ..goal.clone() };
    {
        let db = Database::create(dir.path(), DatabaseConfig::strict()).unwrap();
        let run = db.create_run("r").unwrap();
        let receipt = db.kv_put_as(run, "goal", &open).unwrap();
        assert_eq!(db.kv_get(run, "goal").unwrap().unwrap().version, receipt.version());
        db.transaction(|tx| {
            assert_eq!(tx.kv_get_as::<Goal>(run, "goal")?, Some(open.clone()));
            tx.kv_put_as(run, "goal", &goal)?;
            assert_eq!(tx.kv_get_as::<Goal>(run, "goal")?, Some(goal.clone()));
            Ok(())
        })
        .unwrap();
        db.close().unwrap();
    }
    let db = Database::open(dir.path()).unwrap();
    let run = db.resolve_run("r").unwrap();
    assert_eq!(db.kv_get_as(run, "goal").unwrap(), Some(goal.clone()));
    assert_eq!(db.view().unwrap().kv_get_as(run, "goal").unwrap(), Some(goal));
    assert_eq!(db.kv_get_as::<Goal>(run, "other").unwrap(), None);
}

#[test]
fn what_does_not_fit_is_refused_with_its_place_and_nothing_is_written() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    let goal = Goal { text: String::new(), tries: u64::MAX, state: State::Open };
    let error = db.kv_put_as(run, "goal", &goal).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().starts_with("$.tries: the integer 18446744073709551615"), "{error}");
    assert_eq!(db.kv_get(run, "goal").unwrap(), None);

    db.kv_put(run, "goal", Value::Int(1)).unwrap();
    let error = db.kv_get_as::<Goal>(run, "goal").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(db.kv_get_as::<f64>(run, "goal").is_err());
    assert_eq!(db.kv_get_as::<i64>(run, "goal").unwrap(), Some(1));
    let event = typed::to_value(&State::Open).unwrap();
    db.event_append(run, "states", event).unwrap();
    let event = db.event_read(run, "states", 0).unwrap().next().unwrap().unwrap();
    assert_eq!(typed::from_value::<State>(event.payload).unwrap(), State::Open);
}
