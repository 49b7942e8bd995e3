//! `diff`: two runs, and two versions of one.

use crate::support::{Home, append, json, kind, put, version};

#[test]
fn two_runs_are_compared_entry_by_entry() {
    let home = Home::new();
    home.apply(&[
        &put("one", "same", "1"),
        &put("one", "changed", "1"),
        &put("one", "gone", "1"),
        &put("two", "same", "1"),
        &put("two", "changed", "[2]"),
        &append("two", "s", "\"e\"", ""),
    ]);
    let lines = home.run("diff", &["one", "two", "--json"]).ok();
    let found: Vec<_> = lines.lines().iter().map(|line| json(line)).collect();
    let changes: Vec<_> = found.iter().map(|line| line["change"].as_str().unwrap()).collect();
    assert_eq!(changes, ["changed", "removed", "added"]);
    assert_eq!(found[0]["before"]["value"], 1);
    assert_eq!(
        (&found[0]["after"]["value"], &found[0]["after"]["run"]),
        (&json("[2]"), &"two".into())
    );
    assert_eq!((&found[1]["before"]["key"], &found[1]["after"]), (&"gone".into(), &json("null")));
    assert_eq!(found[2]["after"]["payload"], "e");
    let words = home.run("diff", &["one", "two"]).ok();
    let expected = [
        "* key changed 1 -> [2]",
        "- key gone 1",
        "+ event s[0] \"e\"",
        "1 added, 1 removed, 1 changed",
    ];
    assert_eq!(words.lines(), expected);
    assert_eq!(home.run("diff", &["one", "one", "--json"]).ok().stdout, "");
    let done = home.run("diff", &["one", "three", "--json"]).status(1);
    assert_eq!(kind(&json(&done.stderr)), "not_found");
}

#[test]
fn two_versions_of_a_run_are_compared() {
    let home = Home::new();
    let lines = [put("r", "k", "1"), put("r", "k", "2"), put("r", "l", "3")].join("\n");
    let done = home.run_with_input("apply", &["--retention", "all"], lines).ok();
    let versions: Vec<_> =
        done.lines().iter().map(|line| version(&json(line)).to_string()).collect();
    let changes = |args: &[&str]| {
        let done = home.run("diff", &[&["r"], args].concat()).ok();
        done.lines().iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()
    };
    let [first, second, _] = &versions[..] else { panic!("{versions:?}") };
    assert_eq!(changes(&["--from", first, "--to", second])[0], "* key k 1 -> 2");
    assert_eq!(changes(&["--from", first]).len(), 3);
    assert_eq!(changes(&["--from", second, "--to", first])[0], "* key k 2 -> 1");
    let done = home.run("diff", &["r", "--from", "999", "--json"]).status(1);
    assert_eq!(kind(&json(&done.stderr)), "not_found");
}
