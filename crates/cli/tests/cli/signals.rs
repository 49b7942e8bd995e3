//! Signals as an outsider meets them: what `apply` records and defines, computed again from the
//! recorded observations by a program that shares no code with the database.

use std::process::Command;

use crate::support::{Done, Home, json, kind, version};

const NOW_US: u64 = 1_700_000_000_000_000;

fn define(name: &str, definition: &str) -> String {
    format!(r#"{{"ops":[{{"op":"signal_define","name":"{name}","definition":{{{definition}}}}}]}}"#)
}

/// Some observations a transaction: in order, late by up to two days, and now and then ahead of
/// the clock.
fn transactions(rng: &mut fastrand::Rng, count: usize) -> Vec<String> {
    let observation = |rng: &mut fastrand::Rng| {
        let name = ["view", "buy", "rare", "plain"][rng.usize(..4)];
        let entity = ["\"a\"", "\"b\"", r#"{"$bytes":"/wA="}"#][rng.usize(..3)];
        let at = match rng.u32(..20) {
            0 => 252_000_000_000_000_000 + rng.u64(..9),
            1..8 => NOW_US - rng.u64(..48 * 3_600_000_000),
            _ => NOW_US + rng.u64(..7_200_000_000),
        };
        let weight = f64::from(rng.u32(..1000)) / 64.0;
        format!(
            r#"{{"op":"signal","run":"r","name":"{name}","entity":{entity},"weight":{weight:?},"at_us":{at}}}"#
        )
    };
    let line = |_| {
        let ops: Vec<_> = (0..rng.usize(1..4)).map(|_| observation(rng)).collect();
        format!(r#"{{"ops":[{}]}}"#, ops.join(","))
    };
    (0..count).map(line).collect()
}

/// `None` if there is no Python here.
fn recompute(home: &Home, lines: &str, dump: &str) -> Option<Done> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/recompute_signals.py");
    let (lines, dump) = (home.file("lines", lines), home.file("dump", dump));
    let output = Command::new("python3").arg(script).arg(lines).arg(dump).output().ok()?;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    Some(Done { status: output.status.code().unwrap(), stdout, stderr })
}

#[test]
fn an_independent_program_computes_the_same_signals_from_the_observations() {
    let home = Home::new();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut lines = vec![
        define(
            "view",
            r#""version":1,"minutes":90,"hours":3,"decay":"exponential","half_life_us":3600000000,"velocity_minutes":5"#,
        ),
        define(
            "buy",
            r#""version":2,"minutes":10,"hours":0,"decay":"permanent","velocity_minutes":10"#,
        ),
        define(
            "rare",
            r#""version":1,"minutes":0,"hours":30,"decay":"linear","lifetime_us":90000000001,"velocity_hours":2"#,
        ),
    ];
    let apply = |lines: &[String]| {
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        home.apply(&lines).iter().for_each(|answer| assert!(version(answer) > 0));
    };
    lines.extend(transactions(&mut rng, 200));
    apply(&lines);
    // From a log, from a snapshot, from a log on top of a compacted snapshot.
    for command in ["checkpoint", "compact"] {
        let more = transactions(&mut rng, 50);
        apply(&more);
        lines.extend(more);
        home.run(command, &[]).ok();
    }
    let more = transactions(&mut rng, 50);
    apply(&more);
    lines.extend(more);
    let (lines, dump) = (lines.join("\n"), home.dump());
    let Some(done) = recompute(&home, &lines, &dump) else {
        println!("skipped: there is no python3 here");
        return;
    };
    assert_eq!(
        (done.status, done.stdout.trim()),
        (0, "12 signals compared, 0 differences"),
        "{done:?}"
    );
    assert!(dump.contains(r#""ahead":[["#), "some are ahead of the clock");

    // It can tell.
    let count = home.entries("signal")[0]["count"].as_u64().unwrap();
    let wrong =
        dump.replacen(&format!(r#""count":{count}"#), &format!(r#""count":{}"#, count + 1), 1);
    let done = recompute(&home, &lines, &wrong).unwrap();
    assert_eq!(done.status, 1, "{done:?}");
    assert!(done.stdout.contains("12 signals compared, 1 differences"), "{done:?}");
}

#[test]
fn a_signal_is_defined_once_and_changed_with_a_higher_version() {
    let home = Home::new();
    let definition = |version: u32, minutes: u32| {
        define(
            "view",
            &format!(
                r#""version":{version},"minutes":{minutes},"hours":0,"decay":"permanent","velocity_minutes":1"#
            ),
        )
    };
    let record = r#"{"ops":[{"op":"signal","run":"r","name":"view","entity":"e","weight":1}]}"#;
    let (zero, two, other, three) =
        (definition(0, 9), definition(2, 9), definition(2, 8), definition(3, 8));
    let answers = home.apply(&[&zero, &two, record, &two, &other, record, &three, record]);
    assert_eq!((kind(&answers[0]), kind(&answers[4])), ("invalid", "conflict"));
    for done in [1, 2, 3, 5, 6, 7] {
        version(&answers[done]);
    }
    assert_eq!(version(&answers[7]), 5, "what was refused is nothing, nor is the same again");
    let signal = &home.entries("signal")[0];
    assert_eq!((&signal["count"], &signal["definition"]["version"]), (&3.into(), &3.into()));
    assert_eq!(signal["definition"]["minutes"], 8);
    let defined = home.entries("signal_definition");
    assert_eq!((defined.len(), &defined[0]["definition"]), (1, &signal["definition"]));
    let again = json(home.run("dump", &[]).ok().lines()[0]);
    assert_eq!(again["type"], "signal_definition", "definitions come first: {again}");
}
