//! Exit statuses and help.

use crate::support::{Home, json, put, steadfast};

#[test]
fn wrong_usage_exits_with_2_and_touches_nothing() {
    let home = Home::new();
    let db = home.db();
    let db = db.to_str().unwrap();
    let wrong: [&[&str]; 18] = [
        &[],
        &["frobnicate"],
        &["apply"],
        &["apply", db, "--durability", "sometimes"],
        &["apply", db, "--retention", "for:1y"],
        &["apply", db, "--checkpoint-bytes", "0"],
        &["compact", db, "--mode", "thorough"],
        &["backup", db],
        &["restore", db],
        &["repair", db],
        &["history", db, "k"],
        &["history", db, "--run", "r"],
        &["stats", db, "--watch", "0"],
        &["apply", db, "--segment-bytes", "many"],
        &["import", db],
        &["dump", db, "--at", "yesterday"],
        &["verify", db, "extra"],
        &["diff", db, "r"],
    ];
    for args in wrong {
        let done = steadfast(args).status(2);
        assert!(done.stdout.is_empty() && !done.stderr.is_empty(), "{args:?}");
    }
    assert!(!home.db().exists());
}

#[test]
fn help_is_there_and_promises_nothing_for_later() {
    let done = steadfast(&["--help"]).ok();
    assert!(!done.stdout.contains("(not yet)"), "{}", done.stdout);
    assert!(done.stdout.contains("demo"));
    steadfast(&["apply", "--help"]).ok();
    steadfast(&["--version"]).ok();
}

#[test]
fn every_looking_command_speaks_json() {
    let home = Home::new();
    home.apply(&[&put("r", "k", "1")]);
    let runs = home.run("runs", &["--json"]).ok().json();
    assert_eq!((runs[0]["run"].as_str(), runs.as_array().unwrap().len()), (Some("r"), 1));
    assert!(home.run("stats", &["--json"]).ok().json().is_object());
    assert!(home.run("inspect", &["--json"]).ok().json().is_object());
    let verify = home.run("verify", &["--json"]).ok().json();
    assert_eq!(verify["sound"], true);
}

#[test]
fn the_end_of_the_input_exits_with_0_whatever_the_answers_were() {
    let home = Home::new();
    let done = home.run_with_input("apply", &[], "bad\nworse\n").ok();
    assert_eq!(done.lines().len(), 2);
    home.run_with_input("apply", &[], "").ok();
    assert_eq!(home.dump().lines().count(), 1);
}

#[test]
fn a_bench_prints_its_figures_and_leaves_nothing() {
    let home = Home::new();
    let done = home.run("bench", &["--millis", "20"]).status(0);
    assert!(!home.db().exists());
    for what in ["loop: write 4 KiB, sync", "strict commits, 8 threads", "point reads", "x the log"]
    {
        assert!(done.stdout.contains(what), "{}", done.stdout);
    }
    // Built together with tests that need them, the program has them too.
    let hooks =
        steadfast_testing::CRASH_POINTS_COMPILED_IN || steadfast_testing::SABOTAGE_COMPILED_IN;
    let says = if hooks { "no figure counts" } else { "no crash points or planted bugs" };
    assert!(done.stdout.lines().last().is_some_and(|line| line.contains(says)), "{}", done.stdout);
    let done = home.run("bench", &["--json", "--millis", "100"]).status(0);
    let rows = json(&done.stdout);
    for row in rows.as_array().unwrap() {
        assert!(row["a_second"].as_u64().unwrap() > 0, "{row}");
        assert_eq!(row["hooks"], hooks, "{row}");
    }
    std::fs::create_dir(home.db()).unwrap();
    let done = home.run("bench", &[]).status(1);
    assert!(done.stderr.contains("is there already"), "{}", done.stderr);
    assert!(home.db().exists(), "what it did not make it does not remove");
}
