//! `runs`, and what a dump keeps of them: status and metadata.

use std::collections::BTreeMap;

use steadfast::{Database, DatabaseConfig, Retention, RunStatus, Value};

use crate::support::{Home, json, steadfast_on};

#[test]
fn status_and_metadata_are_shown_dumped_and_loaded() {
    let home = Home::new();
    let config = DatabaseConfig::strict().retention(Retention::KeepAll);
    let db = Database::create(home.db(), config).unwrap();
    let run = db.create_run("ended").unwrap();
    db.kv_put(run, "k", 1).unwrap();
    db.create_run("active").unwrap();
    let metadata = BTreeMap::from([("seed".to_owned(), Value::Int(7))]);
    db.transaction(|tx| {
        tx.create_run("both")?;
        tx.set_run_metadata("both", metadata.clone())
    })
    .unwrap();
    db.transaction(|tx| {
        tx.set_run_metadata("ended", metadata.clone())?;
        tx.set_run_status("ended", RunStatus::Failed)
    })
    .unwrap();
    db.create_run("deleted").unwrap();
    db.delete_run("deleted").unwrap();
    db.close().unwrap();

    let runs = home.run("runs", &["--json"]).ok().json();
    let of = |n: usize| (&runs[n]["run"], &runs[n]["status"], &runs[n]["metadata"]);
    let (seed, none) = (json(r#"{"seed":7}"#), json("{}"));
    assert_eq!(of(0), (&"active".into(), &"active".into(), &none));
    assert_eq!(of(1), (&"both".into(), &"active".into(), &seed));
    assert_eq!(of(2), (&"ended".into(), &"failed".into(), &seed));
    assert_eq!(runs.as_array().unwrap().len(), 3);
    let words = home.run("runs", &[]).ok();
    assert!(words.lines()[3].starts_with("ended") && words.lines()[3].ends_with(r#"{"seed":7}"#));

    let dump = home.run("dump", &[]).ok().stdout;
    let other = home.path("other");
    steadfast_on("load", &other, &["--retention", "all"], &dump).ok();
    assert_eq!(steadfast_on("dump", &other, &[], "").ok().stdout, dump);
    let before = json(dump.lines().find(|line| line.contains("\"failed\"")).unwrap());
    assert!(before["changed"].as_u64() > before["version"].as_u64(), "{before}");
}
