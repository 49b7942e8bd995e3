//! `checkpoint`, `compact` and checkpoints by themselves: the content stays, the files get fewer.

use std::io::{BufRead, BufReader, Write};

use steadfast::{Compression, Database, DatabaseConfig};

use crate::support::{Home, change, json, kind, steadfast_on};

fn dumps(home: &Home) -> (String, String) {
    (home.dump(), home.run("dump", &["--history"]).ok().stdout)
}

#[test]
fn a_checkpoint_says_what_it_wrote_and_changes_no_content() {
    let home = Home::new();
    home.fill(0..100, &["--retention", "last:3"]);
    let before = dumps(&home);
    let first = home.run("checkpoint", &["--json"]).ok().json();
    assert_eq!((&first["written"], &first["snapshot"]), (&true.into(), &1.into()));
    assert_eq!(first["version"], 100);
    assert!(first["rows"].as_u64() > Some(60) && first["bytes"].as_u64() > Some(0), "{first}");
    assert_eq!(dumps(&home), before);
    let again = home.run("checkpoint", &["--json"]).ok().json();
    assert_eq!((&again["written"], &again["version"]), (&false.into(), &100.into()));
    let words = home.run("checkpoint", &[]).ok();
    assert!(words.stdout.contains("snapshot 1 has everything already"), "{}", words.stdout);
    home.run("verify", &[]).ok();
    let stats = home.run("stats", &["--json"]).ok().json();
    assert_eq!((&stats["snapshot"], &stats["snapshot_version"]), (&1.into(), &100.into()));
    assert_eq!(stats["transactions_replayed"], 0);
    assert_eq!(stats["keys"], 22, "the keys, the cell and the run, all brought into memory");
}

#[test]
fn a_compaction_gives_space_back_and_changes_no_content() {
    let home = Home::new();
    home.fill(0..400, &["--segment-bytes", "16384"]);
    assert!(home.files_in("WAL").len() > 1);
    let before = home.dump();
    let refused = home.run("compact", &["--mode", "wal-only", "--json"]).status(1);
    assert_eq!(kind(&json(&refused.stderr)), "invalid", "there is no checkpoint yet");
    let done = home.run("compact", &["--json"]).ok().json();
    assert_eq!(done["mode"], "full");
    assert!(done["segments_removed"].as_u64() > Some(0), "{done}");
    assert!(done["reclaimed_bytes"].as_u64() > Some(0), "{done}");
    assert_eq!(done["checkpoint"]["version"], 400);
    assert_eq!(home.files_in("WAL").len(), 1);
    assert_eq!(home.files_in("SNAPSHOTS").len(), 1);
    assert_eq!(home.dump(), before);
    home.fill(400..500, &[]);
    home.run("checkpoint", &[]).ok();
    home.run("checkpoint", &[]).ok();
    assert_eq!(home.files_in("SNAPSHOTS").len(), 2, "the newest was not read back yet");
    let words = home.run("compact", &["--mode", "wal-only"]).ok().stdout;
    assert!(words.contains("1 snapshot") && words.contains("gave back"), "{words}");
    assert_eq!(home.files_in("SNAPSHOTS").len(), 1);
    home.run("verify", &[]).ok();
}

#[test]
fn checkpoints_come_by_themselves_while_it_is_written_to() {
    let home = Home::new();
    let args = ["--checkpoint-bytes", "8192", "--durability", "buffered"];
    let mut writer = home.start_apply(&args);
    let mut stdin = writer.stdin.take().unwrap();
    let mut answers = BufReader::new(writer.stdout.take().unwrap()).lines();
    let made = (0..100).any(|round| {
        for n in round * 200..round * 200 + 200 {
            stdin.write_all((change(n) + "\n").as_bytes()).unwrap();
            answers.next().unwrap().unwrap();
        }
        home.run("stats", &["--json"]).ok().json()["snapshot"].as_u64() > Some(2)
    });
    assert!(made, "three of them");
    drop(stdin);
    assert!(writer.wait().unwrap().success());
    assert_eq!(home.entries("kv").len(), 20);
    home.run("verify", &[]).ok();
}

#[test]
fn upkeep_needs_a_database_and_nobody_who_writes() {
    let home = Home::new();
    for command in ["checkpoint", "compact"] {
        let done = home.run(command, &["--json"]).status(1);
        assert_eq!(kind(&json(&done.stderr)), "not_found");
        assert!(!home.db().exists());
    }
    home.fill(0..1, &[]);
    let mut writer = home.start_apply(&[]);
    // It has the database open from its first answer on.
    let mut stdin = writer.stdin.take().unwrap();
    stdin.write_all(b"bad\n").unwrap();
    let mut answers = BufReader::new(writer.stdout.take().unwrap()).lines();
    answers.next().unwrap().unwrap();
    for command in ["checkpoint", "compact"] {
        let done = home.run(command, &["--json"]).status(1);
        assert_eq!(kind(&json(&done.stderr)), "busy");
    }
    let done = steadfast_on("repair", &home.db(), &["--dry-run", "--json"], "").status(1);
    assert_eq!(kind(&json(&done.stderr)), "busy");
    drop(stdin);
    assert!(writer.wait().unwrap().success());
}

#[test]
fn files_are_described_with_what_they_are_needed_for() {
    let home = Home::new();
    home.fill(0..50, &["--retention", "last:2,event=all"]);
    home.run("checkpoint", &[]).ok();
    home.fill(50..100, &[]);
    home.run("checkpoint", &[]).ok();
    let spare = home.db().join("SNAPSHOTS/snap-000009.chk");
    std::fs::copy(home.db().join("SNAPSHOTS/snap-000001.chk"), spare).unwrap();
    std::fs::write(home.db().join("notes.txt"), "mine").unwrap();
    let report = home.run("inspect", &["--json"]).ok().json();
    let role = |file: &str| {
        let lists = ["snapshots", "segments", "leftovers"];
        let all = lists.iter().flat_map(|list| report[*list].as_array().unwrap());
        let file = all.into_iter().find(|facts| facts["file"] == file);
        file.unwrap_or_else(|| panic!("{file:?} in {report}"))["role"].as_str().unwrap().to_owned()
    };
    assert_eq!(role("SNAPSHOTS/snap-000002.chk"), "needed");
    assert!(role("SNAPSHOTS/snap-000001.chk").contains("only if the newest snapshot"));
    assert!(role("SNAPSHOTS/snap-000009.chk").contains("nobody needs it"));
    // Each opening that writes begins a segment.
    assert!(role("WAL/wal-000003.seg").contains("only if the newest snapshot"));
    assert_eq!(role("WAL/wal-000004.seg"), "needed");
    assert!(role("notes.txt").contains("nobody needs it"));
    assert_eq!(report["manifest"]["snapshots"][1]["version"], 100);
    assert_eq!(report["manifest"]["snapshots"][1]["read_back"], false);
    assert_eq!(report["manifest"]["keeps"][1], "of events: every version");
    assert!(report["snapshots"][1]["rows"].as_u64() > Some(0));
    let words = home.run("inspect", &[]).ok().stdout;
    for expected in [
        "keeps of a key: the newest 2 versions",
        "names snapshot 2: everything up to version 100",
        "not read back yet",
        "nobody needs it; `compact` removes it",
    ] {
        assert!(words.contains(expected), "{expected}: {words}");
    }
    home.run("compact", &[]).ok();
    assert!(!home.run("inspect", &[]).ok().stdout.contains("`compact` removes it"));
}

#[test]
fn a_snapshot_that_a_program_compressed_can_be_read() {
    let home = Home::new();
    let config = DatabaseConfig::buffered().compression(Compression::Lz4);
    let database = Database::create(home.db(), config).unwrap();
    let run = database.create_run("r").unwrap();
    database.kv_put(run, "k", "x".repeat(10_000)).unwrap();
    database.checkpoint().unwrap();
    database.close().unwrap();
    assert_eq!(home.entries("kv").len(), 1);
    home.run("verify", &[]).ok();
    let words = home.run("inspect", &[]).ok().stdout;
    assert!(words.contains("times smaller"), "{words}");
}
