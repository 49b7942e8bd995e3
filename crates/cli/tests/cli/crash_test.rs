//! `crash-test`: a campaign with its report, its last line, and a token that repeats.

use crate::support::{Home, json, steadfast};

#[test]
fn looks_for_as_long_as_it_is_told_and_reports() {
    let home = Home::new();
    let page = home.path("page.html");
    let done = steadfast(&[
        "crash-test",
        "--seed",
        "7",
        "--seconds",
        "3",
        "--report",
        page.to_str().unwrap(),
        "--technique",
        "isolation",
        "--technique",
        "random-programs",
        "--technique",
        "real kills",
    ])
    .status(0);
    let last = done.stdout.lines().last().unwrap();
    let words: Vec<&str> = last.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let [images, "images", kills, "kills", "0", "failures", "seed", "7"] = words[..] else {
        panic!("{last}")
    };
    assert!(images.parse::<u64>().unwrap() > 100, "{last}");
    assert!(kills.parse::<u64>().unwrap() >= 9, "{last}");
    for technique in ["isolation", "random programs", "real kills"] {
        assert!(done.stdout.contains(technique), "{}", done.stdout);
    }
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert!(page.contains(last), "the page tells the same");
    for elsewhere in ["http:", "https:", "src=", "<script"] {
        assert!(!page.contains(elsewhere), "the page needs {elsewhere}");
    }
}

#[test]
fn a_token_repeats_one_part_and_leaves_the_report_alone() {
    let home = Home::new();
    let page = home.path("page.html");
    let report = page.to_str().unwrap();
    let token = "random-programs.strict.7";
    let again = || {
        let done = steadfast(&["--json", "crash-test", "--replay", token, "--report", report]);
        json(done.status(0).stdout.trim())["images"].as_u64().unwrap()
    };
    let images = again();
    assert!(images > 10, "{images}");
    assert_eq!(again(), images, "the same again");
    assert!(!page.exists());
}

#[test]
fn wrong_words_are_refused_before_anything_is_tried() {
    for wrong in [
        &["--technique", "voodoo"][..],
        &["--replay", "voodoo"],
        &["--replay", "kills.strict"],
        &["--seconds", "0"],
        &["--seed", "-1"],
    ] {
        let done = steadfast(&[&["crash-test"], wrong].concat()).status(2);
        assert!(done.stdout.is_empty(), "{wrong:?}: {}", done.stdout);
    }
    let done = steadfast(&["crash-test", "--technique", "voodoo"]).status(2);
    assert!(done.stderr.contains("power cuts"), "it tells which there are: {}", done.stderr);
    let done = steadfast(&["crash-test", "--replay", "voodoo.any.1"]).status(1);
    assert!(done.stderr.contains("there is no technique \"voodoo\""), "{}", done.stderr);
    let missing = "/nowhere/at/all/page.html";
    let args = ["crash-test", "--seconds", "1", "--technique", "isolation", "--report", missing];
    let done = steadfast(&args).status(1);
    assert!(done.stderr.contains(missing), "{}", done.stderr);
}
