//! Commands that only look: they write nothing, work beside a writer, and say what they saw.

use std::io::{BufRead, BufReader, Write};

use crate::support::{Home, json, kind, program, put, steadfast_on, version};

const LOOKING: [(&str, &[&str]); 9] = [
    ("dump", &[]),
    ("dump", &["--history"]),
    ("verify", &[]),
    ("verify", &["--json"]),
    ("runs", &[]),
    ("history", &["--run", "r", "k1"]),
    ("inspect", &["--frames"]),
    ("stats", &[]),
    ("stats", &["--json"]),
];

fn filled() -> Home {
    let home = Home::new();
    let lines: Vec<_> = (0..50).map(|n| put("r", &format!("k{n}"), "1")).collect();
    home.apply(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    home
}

/// The only segment that has data, or the last of them.
fn newest_segment(home: &Home) -> std::path::PathBuf {
    let files = home.files();
    files
        .into_iter()
        .map(|(path, _)| path)
        .rfind(|p| p.extension().is_some_and(|e| e == "seg"))
        .unwrap()
}

#[test]
fn looking_changes_no_byte() {
    let home = filled();
    let before = home.files();
    for (command, args) in LOOKING {
        let done = home.run(command, args).ok();
        assert!(!done.stdout.is_empty(), "{command}");
        assert_eq!(done.stderr, "", "{command}: no progress bars, no remarks");
        assert_eq!(home.files(), before, "{command}");
    }
}

#[test]
fn looking_works_beside_a_live_writer() {
    let home = Home::new();
    let mut child = home.start_apply(&[]);
    let mut stdin = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    for n in 0..20 {
        stdin.write_all((put("r", &format!("k{n}"), "1") + "\n").as_bytes()).unwrap();
        answers.next().unwrap().unwrap();
    }
    for (command, args) in LOOKING {
        home.run(command, args).ok();
    }
    assert_eq!(home.entries("kv").len(), 20, "all that was acknowledged");
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn watching_sees_what_a_live_writer_commits() {
    let home = Home::new();
    let mut writer = home.start_apply(&[]);
    let mut stdin = writer.stdin.take().unwrap();
    let mut answers = BufReader::new(writer.stdout.take().unwrap()).lines();
    let mut put = |key: &str| {
        stdin.write_all((put("r", key, "1") + "\n").as_bytes()).unwrap();
        version(&json(&answers.next().unwrap().unwrap()))
    };
    put("a");
    let mut watching = program()
        .args(["stats", home.db().to_str().unwrap(), "--watch", "0.05", "--json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    let newest = put("b");
    let seen = |line: String| json(&line)["visible_version"].as_u64();
    assert!(lines.any(|line| seen(line.unwrap()) == Some(newest)));
    watching.kill().unwrap();
    watching.wait().unwrap();
    drop(stdin);
    assert!(writer.wait().unwrap().success());
}

#[test]
fn a_second_writer_is_refused_and_changes_nothing() {
    let home = Home::new();
    let mut child = home.start_apply(&[]);
    let mut stdin = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    stdin.write_all((put("r", "k", "1") + "\n").as_bytes()).unwrap();
    answers.next().unwrap().unwrap();
    let lock = || std::fs::read(home.db().join("LOCK")).unwrap();
    let before = lock();
    let done = home.run_with_input("apply", &["--json"], put("r", "k", "2")).status(1);
    assert_eq!(kind(&json(&done.stderr)), "busy");
    assert!(done.stderr.contains(&child.id().to_string()), "names the holder: {}", done.stderr);
    assert_eq!(done.stdout, "");
    assert_eq!(lock(), before, "the rest is the live writer's to change, also while it is idle");
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn damage_is_named_with_its_file_and_nothing_is_changed() {
    let home = filled();
    let segment = newest_segment(&home);
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&segment, bytes).unwrap();
    let before = home.files();
    let name = segment.strip_prefix(home.db()).unwrap().to_str().unwrap().to_owned();
    let verify = home.run("verify", &[]).status(1);
    assert!(format!("{}{}", verify.stdout, verify.stderr).contains(&name), "{verify:?}");
    let verify = home.run("verify", &["--json"]).status(1);
    assert!(verify.stdout.contains(&name), "{verify:?}");
    for (command, input) in [("dump", ""), ("runs", ""), ("stats", ""), ("apply", "{}")] {
        let done = home.run_with_input(command, &[], input).status(1);
        assert!(done.stderr.contains(&name), "{command}: {}", done.stderr);
        assert!(!done.stderr.contains(home.db().to_str().unwrap()), "relative: {}", done.stderr);
        assert_eq!(done.stdout, "", "{command}");
    }
    home.run("inspect", &[]).ok();
    assert_eq!(home.files(), before);
}

#[test]
fn what_recovery_left_out_is_said_in_one_line() {
    let home = filled();
    let copy = Home::new();
    // A writer that is killed leaves a log without its footer; half a group behind it is what a
    // torn write leaves.
    let mut child = copy.start_apply(&["--durability", "buffered"]);
    let mut stdin = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    for n in 0..10 {
        stdin.write_all((put("r", &format!("k{n}"), "1") + "\n").as_bytes()).unwrap();
        answers.next().unwrap().unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let segment = newest_segment(&copy);
    let mut bytes = std::fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end - 20] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let done = copy.run("dump", &[]).ok();
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
    let name = segment.strip_prefix(copy.db()).unwrap().to_str().unwrap();
    assert!(done.stderr.contains(name) && done.stderr.contains("version"), "{}", done.stderr);
    drop(home);
}

#[test]
fn a_directory_without_a_database_is_not_found_and_stays_as_it_was() {
    let home = Home::new();
    for (command, args) in LOOKING {
        let status = if command == "verify" { 2 } else { 1 };
        let done = home.run(command, args).status(status);
        assert!(!done.stderr.is_empty(), "{command}");
        assert!(!home.db().exists(), "{command}");
    }
    std::fs::create_dir(home.db()).unwrap();
    home.run("dump", &[]).status(1);
    home.run("verify", &[]).status(2);
    assert!(home.files().is_empty());
    let file = home.file("file", "not a directory");
    steadfast_on("dump", &file, &[], "").status(1);
    steadfast_on("apply", &file, &[], "").status(1);
    assert_eq!(std::fs::read(&file).unwrap(), b"not a directory");
}
