//! `history`: the versions of one key or cell.

use crate::support::{Home, json, kind, put};

fn home() -> Home {
    let home = Home::new();
    let delete = r#"{"ops":[{"op":"kv_delete","run":"r","key":"k"}]}"#;
    let cell = r#"{"ops":[{"op":"state_set","run":"r","cell":"k","value":"moved"}]}"#;
    let lines =
        [&put("r", "k", "1"), &put("r", "ka", "0"), delete, &put("r", "k", "[2]"), cell].join("\n");
    home.run_with_input("apply", &["--retention", "all"], lines).ok();
    home
}

#[test]
fn versions_come_newest_first_with_deletions_and_times() {
    let home = home();
    let lines = home.run("history", &["--run", "r", "k", "--json"]).ok();
    let versions: Vec<_> = lines.lines().iter().map(|line| json(line)).collect();
    let numbers: Vec<_> = versions.iter().map(|line| line["version"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [4, 3, 1]);
    assert_eq!(versions[0]["value"], json("[2]"));
    assert_eq!((&versions[1]["deleted"], &versions[1]["value"]), (&true.into(), &json("null")));
    assert!(versions.iter().all(|line| line["at_us"].as_u64() > Some(1_500_000_000_000_000)));
    assert!(versions.iter().all(|line| line["type"] == "kv" && line["run"] == "r"));
    let dump = home.run("dump", &["--history"]).ok().stdout;
    assert!(lines.lines().iter().all(|line| dump.contains(line)), "the lines of a dump");
    let words = home.run("history", &["--run", "r", "k"]).ok();
    assert_eq!(words.lines().len(), 4);
    assert!(words.lines()[2].ends_with("(deleted)"), "{}", words.stdout);
}

#[test]
fn a_state_cell_has_a_history_too() {
    let home = home();
    let line = home.run("history", &["--run", "r", "k", "--state", "--json"]).ok().json();
    assert_eq!((&line["type"], &line["value"]), (&"state".into(), &"moved".into()));
}

#[test]
fn what_never_was_is_not_found() {
    let home = home();
    for args in [["--run", "r", "x"], ["--run", "q", "k"]] {
        let done = home.run("history", &[&args[..], &["--json"]].concat()).status(1);
        assert_eq!(kind(&json(&done.stderr)), "not_found");
    }
}

#[test]
fn a_signal_has_a_history_too() {
    let home = Home::new();
    let signal = r#"{"ops":[{"op":"signal","run":"r","name":"view","entity":"k","weight":1}]}"#;
    let lines = [&put("r", "k", "1"), signal, signal].join("\n");
    home.run_with_input("apply", &["--retention", "last:1,signal=all"], lines).ok();
    let args = ["--run", "r", "k", "--signal", "view"];
    let lines = home.run("history", &[args.as_slice(), &["--json"]].concat()).ok();
    let counts: Vec<_> = lines.lines().iter().map(|line| json(line)["count"].clone()).collect();
    assert_eq!(counts, [2, 1]);
    let words = home.run("history", &args).ok();
    assert!(words.lines()[1].ends_with("score 2.000000, 2 observations"), "{}", words.stdout);
    let none = home.run("history", &["--run", "r", "x", "--signal", "view", "--json"]).status(1);
    assert_eq!(kind(&json(&none.stderr)), "not_found");
}
