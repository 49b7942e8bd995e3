//! `backup` and `restore`: copies that stand on their own.

use std::io::{BufRead, BufReader, Write};

use crate::support::{Home, change, json, kind, steadfast_on, version};

#[test]
fn a_backup_beside_a_live_writer_has_what_was_acknowledged() {
    let home = Home::new();
    let mut writer = home.start_apply(&["--checkpoint-bytes", "4096", "--durability", "buffered"]);
    let mut stdin = writer.stdin.take().unwrap();
    let mut answers = BufReader::new(writer.stdout.take().unwrap()).lines();
    for round in 0..5 {
        let mut acknowledged = 0;
        for n in round * 100..round * 100 + 100 {
            stdin.write_all((change(n) + "\n").as_bytes()).unwrap();
            acknowledged = version(&json(&answers.next().unwrap().unwrap()));
        }
        let copy = home.path(&format!("copy{round}"));
        let done = home.run("backup", &[copy.to_str().unwrap(), "--json"]).ok().json();
        assert_eq!(done["version"], acknowledged);
        steadfast_on("verify", &copy, &[], "").ok();
        assert_eq!(steadfast_on("dump", &copy, &[], "").ok().stdout, home.dump());
    }
    drop(stdin);
    assert!(writer.wait().unwrap().success());
}

#[test]
fn a_backup_is_a_database_of_its_own() {
    let home = Home::new();
    home.fill(0..60, &["--retention", "all"]);
    let (before, history) = (home.files(), home.run("dump", &["--history"]).ok().stdout);
    let copy = home.path("copy");
    let words = home.run("backup", &[copy.to_str().unwrap()]).ok().stdout;
    assert!(words.contains("up to version 60") && words.contains("read back"), "{words}");
    assert_eq!(home.files(), before, "the original is only read");
    assert_eq!(steadfast_on("dump", &copy, &["--history"], "").ok().stdout, history);
    steadfast_on("apply", &copy, &[], change(60)).ok();
    assert_eq!(home.files(), before);
    let again = home.run("backup", &[copy.to_str().unwrap(), "--json"]).status(1);
    assert_eq!(kind(&json(&again.stderr)), "invalid", "there is something already");
    std::fs::remove_dir_all(home.db()).unwrap();
    steadfast_on("verify", &copy, &[], "").ok();
}

#[test]
fn a_restore_goes_back_to_any_version_that_is_kept() {
    let home = Home::new();
    home.fill(0..60, &["--retention", "all"]);
    let (backup, then) = (home.path("backup"), home.path("then"));
    home.run("backup", &[backup.to_str().unwrap()]).ok();
    let args = [then.to_str().unwrap(), "--at", "30", "--json"];
    let done = steadfast_on("restore", &backup, &args, "").ok().json();
    assert_eq!(done["version"], 30);
    for args in [&["--at", "30"][..], &["--at", "30", "--history"], &["--at", "17"]] {
        let expected = home.run("dump", args).ok().stdout;
        assert_eq!(steadfast_on("dump", &then, args, "").ok().stdout, expected, "{args:?}");
    }
    let next = steadfast_on("apply", &then, &[], change(0)).ok().json();
    assert_eq!(version(&next), 31, "it goes on from there");
    let all = home.path("all");
    steadfast_on("restore", &backup, &[all.to_str().unwrap()], "").ok();
    assert_eq!(steadfast_on("dump", &all, &[], "").ok().stdout, home.dump());
}

#[test]
fn a_restore_that_cannot_be_right_is_refused() {
    let home = Home::new();
    home.fill(0..60, &[]);
    let (backup, new) = (home.path("backup"), home.path("new"));
    home.run("backup", &[backup.to_str().unwrap()]).ok();
    let restore = |args: &[&str]| {
        let args = [&[new.to_str().unwrap(), "--json"], args].concat();
        let done = steadfast_on("restore", &backup, &args, "").status(1);
        assert_eq!(done.stdout, "");
        let error = json(&done.stderr);
        kind(&error).to_owned()
    };
    assert_eq!(restore(&["--at", "30"]), "history_trimmed");
    assert_eq!(restore(&["--at", "61"]), "not_found");
    // What a refused attempt left behind is no database, and stands in nobody's way.
    steadfast_on("restore", &backup, &[new.to_str().unwrap()], "").ok();
    assert_eq!(restore(&[]), "invalid", "there is a database already");
    let nowhere = steadfast_on("restore", &home.path("nowhere"), &["x", "--json"], "").status(1);
    assert_eq!(kind(&json(&nowhere.stderr)), "not_found");
}
