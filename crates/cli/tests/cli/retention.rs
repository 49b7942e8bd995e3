//! `--retention`: what is kept of the past, and what reading before it says.

use crate::support::{Home, change, json, kind, steadfast_on};

fn versions(home: &Home, args: &[&str]) -> usize {
    home.run("history", &[&["--run", "r", "--json"], args].concat()).ok().lines().len()
}

#[test]
fn each_primitive_keeps_what_its_rule_says() {
    let home = Home::new();
    home.fill(0..100, &["--retention", "last:2,state=all"]);
    assert_eq!(versions(&home, &["k07"]), 2);
    assert_eq!(versions(&home, &["c", "--state"]), 100);
    home.run("compact", &[]).ok();
    assert_eq!(versions(&home, &["k07"]), 2);
    assert_eq!(versions(&home, &["c", "--state"]), 100);
}

#[test]
fn a_new_rule_takes_the_place_of_the_old_and_stays() {
    let home = Home::new();
    home.fill(0..100, &["--retention", "all"]);
    home.fill(100..101, &[]);
    assert_eq!(versions(&home, &["k07"]), 5, "kept as before where nothing is said");
    home.fill(101..102, &["--retention", "last:1"]);
    let done = home.run("compact", &["--json"]).ok().json();
    assert!(done["checkpoint"]["rows"].as_u64() < Some(40), "{done}");
    assert_eq!(versions(&home, &["k07"]), 1);
    assert_eq!(versions(&home, &["c", "--state"]), 1);
}

#[test]
fn for_a_duration_keeps_what_is_young() {
    let home = Home::new();
    home.fill(0..100, &["--retention", "for:1h"]);
    home.run("compact", &[]).ok();
    assert_eq!(versions(&home, &["k07"]), 5);
}

#[test]
fn a_run_has_a_rule_of_its_own_once_it_is_there() {
    let home = Home::new();
    let args = ["--retention", "last:1,run:r=all", "--json"];
    let done = home.run_with_input("apply", &args, change(0)).status(1);
    assert_eq!(kind(&json(&done.stderr)), "not_found");
    assert_eq!(done.stdout, "");
    home.fill(0..1, &[]);
    home.fill(1..100, &args[..2]);
    assert_eq!(versions(&home, &["k07"]), 5);
    let other = change(0).replace(r#""run":"r""#, r#""run":"s""#);
    home.run_with_input("apply", &[], format!("{other}\n{other}\n{other}")).ok();
    let history = home.run("history", &["--run", "s", "k00", "--json"]).ok();
    assert_eq!(history.lines().len(), 1);
}

#[test]
fn a_load_gives_the_runs_of_the_dump_their_rules() {
    let home = Home::new();
    home.fill(0..100, &["--retention", "all"]);
    let dump = home.run("dump", &["--history"]).ok().stdout;
    let copy = home.path("copy");
    steadfast_on("load", &copy, &["--retention", "last:1,run:r=all"], &dump).ok();
    assert_eq!(steadfast_on("dump", &copy, &["--history"], "").ok().stdout, dump);
    let other = home.path("other");
    let done = steadfast_on("load", &other, &["--retention", "run:q=all", "--json"], &dump);
    assert_eq!(kind(&json(&done.status(1).stderr)), "not_found");
    assert!(!other.exists());
}

#[test]
fn before_what_is_kept_there_is_an_error_and_no_end_line() {
    let home = Home::new();
    home.fill(0..100, &["--retention", "last:2"]);
    let newest = home.dump();
    assert_eq!(home.run("dump", &["--at", "100"]).ok().stdout, newest);
    for _ in 0..2 {
        let done = home.run("dump", &["--at", "50", "--json"]).status(1);
        assert_eq!(kind(&json(&done.stderr)), "history_trimmed");
        assert!(!done.stdout.contains(r#""type":"end""#));
        home.run("compact", &[]).ok();
    }
}
