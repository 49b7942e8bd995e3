//! `runs`, and what a dump keeps of them: status and metadata.

use std::collections::BTreeMap;

use steadfast::{Database, DatabaseConfig, Retention, RunStatus, Value};

use crate::support::{Home, append, json, kind, put, steadfast_on};

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

#[test]
fn a_fork_is_made_shown_dumped_and_loaded() {
    let home = Home::new();
    home.apply(&[
        &put("p", "a", "1"),
        &put("p", "gone", "1"),
        &append("p", "s", "0", r#","idempotency_key":"once""#),
    ]);
    let forked = home.run("fork", &["p", "c", "--json"]).ok().json();
    home.apply(&[
        &put("p", "a", "2"),
        r#"{"ops":[{"op":"kv_delete","run":"c","key":"gone"}]}"#,
        &append("c", "s", "1", ""),
        r#"{"ops":[{"op":"signal","run":"p","name":"n","entity":"e","weight":1.0,"at_us":5}]}"#,
    ]);
    let words = home.run("fork", &["c", "g"]).ok();
    assert!(words.stdout.starts_with("g is a fork of c at version "), "{}", words.stdout);
    let none = home.run("fork", &["nobody", "x", "--json"]).status(1);
    assert_eq!(kind(&json(&none.stderr)), "not_found");
    let there = home.run("fork", &["p", "c", "--json"]).status(1);
    assert_eq!(kind(&json(&there.stderr)), "conflict");

    let runs = home.run("runs", &["--json"]).ok().json();
    assert_eq!((&runs[0]["run"], &runs[0]["id"]), (&"c".into(), &forked["id"]));
    assert_eq!(runs[0]["parent"]["version"], forked["version"]);
    assert_eq!(runs[0]["parent"]["id"], runs[2]["id"]);
    assert_eq!((&runs[0]["keys"], &runs[0]["events"]), (&json("1"), &json("2")));
    assert_eq!(runs[2]["parent"], json("null"));
    let table = home.run("runs", &[]).ok();
    let shown = format!("p at {}", forked["version"]);
    assert!(table.lines()[1].contains(&shown), "{}", table.stdout);

    for history in [&[][..], &["--history"]] {
        let dump = home.run("dump", history).ok().stdout;
        let other = home.path(&format!("other-{}", history.len()));
        steadfast_on("load", &other, &["--retention", "all"], &dump).ok();
        assert_eq!(steadfast_on("dump", &other, history, "").ok().stdout, dump);
        let loaded = steadfast_on("runs", &other, &["--json"], "").ok().json();
        assert_eq!(loaded, runs);
        steadfast_on("verify", &other, &[], "").ok();
    }
    // It stands alone there: nothing is seen through to.
    let other = Database::open(home.path("other-0")).unwrap();
    other.delete_run("p").unwrap();
    other.compact(steadfast::CompactMode::Full).unwrap();
    let child = other.resolve_run("c").unwrap();
    assert_eq!(other.kv_get(child, "a").unwrap().unwrap().value, Value::Int(1));
    assert_eq!(other.stats().unwrap().held_for_forks_bytes, Some(0));
    other.event_append(child, "s", 2).unwrap();
    other.view().unwrap().event_verify_all(child).unwrap();
}
