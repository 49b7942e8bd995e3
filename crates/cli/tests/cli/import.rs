//! `import`: other programs' files, once and wholly.

use std::path::Path;

use crate::support::{Home, json};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data");

fn data(name: &str) -> String {
    Path::new(DATA).join(name).to_str().unwrap().to_owned()
}

#[test]
fn a_trajectory_becomes_a_run_of_steps_and_keys() {
    let home = Home::new();
    let file = data("agent-runs/marshmallow-1867-1.traj");
    let done = home.run("import", &[&file]).ok();
    assert_eq!(done.stderr, "", "no progress bar, this is no terminal");
    let original = json(&std::fs::read_to_string(&file).unwrap());
    let steps: Vec<_> = home.entries("event");
    assert_eq!(steps.len(), original["trajectory"].as_array().unwrap().len());
    for (seq, step) in steps.iter().enumerate() {
        assert_eq!(
            (step["run"].as_str(), step["stream"].as_str()),
            (Some("marshmallow-1867-1"), Some("steps"))
        );
        assert_eq!(step["seq"], seq as u64);
        assert_eq!(step["payload"], original["trajectory"][seq]);
    }
    let keys = home.entries("kv");
    let value = |key: &str| &keys.iter().find(|kv| kv["key"] == key).unwrap()["value"];
    assert_eq!(value("environment"), &original["environment"]);
    assert_eq!(value("info/exit_status"), &original["info"]["exit_status"]);
    assert_eq!(value("history/0003"), &original["history"][3]);
    assert_eq!(
        keys.len(),
        1 + original["info"].as_object().unwrap().len()
            + original["history"].as_array().unwrap().len()
    );
}

#[test]
fn events_go_to_the_streams_their_lines_name() {
    let home = Home::new();
    let file = data("repo-events/redb.jsonl");
    home.run("import", &[&file, "--stream-by", "path", "--time", "ts", "--run", "history"]).ok();
    let events = home.entries("event");
    let original = std::fs::read_to_string(&file).unwrap();
    assert_eq!(events.len(), original.lines().count());
    assert!(
        events
            .iter()
            .all(|event| event["run"] == "history" && event["stream"] == event["payload"]["path"])
    );
    let readme: Vec<_> = events.iter().filter(|event| event["stream"] == "README.md").collect();
    let expected: Vec<_> =
        original.lines().map(json).filter(|line| line["path"] == "README.md").collect();
    assert_eq!(readme.len(), expected.len());
    for (seq, (event, line)) in readme.iter().zip(&expected).enumerate() {
        assert_eq!((event["seq"].as_u64(), &event["payload"]), (Some(seq as u64), line));
    }
}

#[test]
fn a_bad_line_stops_the_import_and_mending_it_goes_on_without_doubles() {
    let home = Home::new();
    let mut lines: Vec<_> =
        (0..600).map(|n| format!(r#"{{"n":{n},"ts":{}}}"#, 1_700_000_000 + n)).collect();
    let good = std::mem::replace(&mut lines[400], r#"{"n":400,"ts":"noon"}"#.into());
    let file = home.file("events.jsonl", lines.join("\n"));
    let path = file.to_str().unwrap();
    let done = home.run("import", &[path, "--time", "ts"]).status(1);
    assert!(done.stderr.contains("events.jsonl:401: "), "{}", done.stderr);
    assert_eq!(home.entries("event").len(), 400, "what came before is there");
    lines[400] = good;
    home.file("events.jsonl", lines.join("\n"));
    home.run("import", &[path, "--time", "ts"]).ok();
    let events: Vec<_> = home.entries("event").iter().map(|e| e["payload"]["n"].as_u64()).collect();
    assert_eq!(events, (0..600).map(Some).collect::<Vec<_>>());
    home.run("import", &[path, "--time", "ts"]).ok();
    assert_eq!(home.entries("event").len(), 600, "again adds nothing");
    lines.push(r#"{"n":600}"#.into());
    home.file("events.jsonl", lines.join("\n"));
    home.run("import", &[path, "--time", "ts"]).ok();
    assert_eq!(home.entries("event").len(), 601, "a file that has grown adds what is new");
    lines[0] = r#"{"n":"changed"}"#.into();
    home.file("events.jsonl", lines.join("\n"));
    let done = home.run("import", &[path, "--time", "ts"]).status(1);
    assert!(done.stderr.contains("events.jsonl"), "{}", done.stderr);
    assert_eq!(home.entries("event").len(), 601);
}

#[test]
fn names_are_stems_and_blank_lines_are_passed_over() {
    let home = Home::new();
    let a = home.file("a.log.jsonl", "\u{feff}{\"x\":1}\r\n\n[2]\n");
    let b = home.file("b", "3");
    home.run("import", &[a.to_str().unwrap(), b.to_str().unwrap()]).ok();
    let events = home.entries("event");
    let names: Vec<_> = events.iter().map(|e| (e["run"].as_str(), e["stream"].as_str())).collect();
    let (a, b) = (Some("a.log"), Some("b"));
    assert_eq!(names, [(a, a), (a, a), (b, b)]);
}

#[test]
fn says_which_file_cannot_be_imported() {
    let home = Home::new();
    let traj = home.file("bad.traj", r#"{"trajectory":7}"#);
    let done = home.run("import", &[traj.to_str().unwrap()]).status(1);
    assert!(done.stderr.contains("bad.traj"), "{}", done.stderr);
    let done = home.run("import", &["/nowhere/x.jsonl", "--json"]).status(1);
    assert_eq!(crate::support::kind(&json(&done.stderr)), "not_found");
    let merged = home.file("again.traj", r#"{"trajectory":[1]}"#);
    home.run("import", &[merged.to_str().unwrap(), "--run", "r"]).ok();
    let other = home.file("other.traj", r#"{"trajectory":[1]}"#);
    home.run("import", &[other.to_str().unwrap(), "--run", "r"]).status(1);
    assert_eq!(home.entries("event").len(), 1, "a run holds one trajectory");
}
