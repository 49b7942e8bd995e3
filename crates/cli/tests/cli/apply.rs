//! `apply`: one answer a line, whatever the line.

use std::io::{BufRead, BufReader, Write};

use crate::support::{Home, append, json, kind, put, version};

#[test]
fn answers_each_line_in_order_with_rising_versions() {
    let home = Home::new();
    let lines: Vec<_> = (0..100).map(|n| put("r", &format!("k{n}"), &n.to_string())).collect();
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let versions: Vec<_> = home.apply(&lines).iter().map(version).collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    let entries = home.entries("kv");
    assert_eq!(entries.len(), 100);
    let of_k7 = entries.iter().find(|entry| entry["key"] == "k7").unwrap();
    assert_eq!((of_k7["value"].as_u64(), of_k7["version"].as_u64()), (Some(7), Some(versions[7])));
}

#[test]
fn all_writes_of_a_transaction_share_its_version() {
    let home = Home::new();
    let line = r#"{"ops":[
        {"op":"kv_put","run":"a","key":"k","value":1},
        {"op":"event_append","run":"b","stream":"s","payload":"e"},
        {"op":"event_append","run":"b","stream":"s","payload":"f"},
        {"op":"state_set","run":"a","cell":"c","value":true}]}"#
        .replace('\n', "");
    let answers = home.apply(&[&line]);
    let dump = home.dump();
    let versions: Vec<_> = dump.lines().map(|line| json(line)["version"].as_u64()).collect();
    assert_eq!(versions.len(), 7, "two runs, four entries and the end: {dump}");
    assert!(versions.iter().all(|v| *v == Some(version(&answers[0]))), "{dump}");
}

#[test]
fn a_bad_line_gets_an_error_and_changes_nothing() {
    let home = Home::new();
    let good = put("r", "k", "1");
    let half = r#"{"ops":[{"op":"kv_put","run":"new","key":"k","value":2},{"op":"kv_put","run":"new","key":"","value":2}]}"#;
    let lines = ["", "nonsense", r#"{"ops":[{"op":"kv_putt"}]}"#, half, &good, "{"];
    let answers = home.apply(&lines);
    for bad in [0, 1, 2, 3, 5] {
        assert_eq!(kind(&answers[bad]), "invalid", "{}", lines[bad]);
    }
    version(&answers[4]);
    assert_eq!(home.entries("run").len(), 1, "the refused transaction made no run");
    assert_eq!(home.entries("kv").len(), 1);
}

#[test]
fn a_line_that_is_not_utf_8_gets_an_error_and_the_next_goes_on() {
    let home = Home::new();
    let mut input = b"{\"ops\":\xff}\n".to_vec();
    input.extend_from_slice(put("r", "k", "1").as_bytes());
    let done = home.run_with_input("apply", &[], input).ok();
    let answers: Vec<_> = done.lines().into_iter().map(json).collect();
    assert_eq!(kind(&answers[0]), "invalid");
    version(&answers[1]);
    assert_eq!(answers.len(), 2, "the last line needs no line end");
}

#[test]
fn every_limit_is_an_error_line() {
    let home = Home::new();
    let long_key = put("r", &"k".repeat(5000), "1");
    let long_name = put(&"r".repeat(300), "k", "1");
    let no_name = put("", "k", "1");
    let no_stream = append("r", "", "1", "");
    let large = put("r", "k", &format!("\"{}\"", "v".repeat(17 << 20)));
    let deep = put("r", "k", &format!("{}{}", "[".repeat(70), "]".repeat(70)));
    let deeper = put("r", "k", &format!("{}{}", "[".repeat(5000), "]".repeat(5000)));
    let nan = put("r", "k", r#"{"$float":"nan"}"#);
    let long_id = append("r", "s", "1", &format!(r#","idempotency_key":"{}""#, "i".repeat(65)));
    let huge_number = put("r", "k", "9223372036854775808");
    let lines = [
        &long_key,
        &long_name,
        &no_name,
        &no_stream,
        &large,
        &deep,
        &deeper,
        &nan,
        &long_id,
        &huge_number,
    ];
    for (line, answer) in lines.iter().zip(home.apply(&lines.map(String::as_str))) {
        assert_eq!(kind(&answer), "invalid", "{}", &line[..line.len().min(100)]);
    }
    assert_eq!(home.dump().lines().count(), 1, "nothing was written");
}

#[test]
fn expectations_of_streams_and_cells_are_kept_or_conflict() {
    let home = Home::new();
    let cas = |expect: u64, value: u64| {
        format!(
            r#"{{"ops":[{{"op":"state_cas","run":"r","cell":"c","expect":{expect},"value":{value}}}]}}"#
        )
    };
    let answers = home.apply(&[
        &append("r", "s", "0", r#","expect":"no_stream""#),
        &append("r", "s", "9", r#","expect":"no_stream""#),
        &append("r", "s", "1", r#","expect":0"#),
        &append("r", "s", "9", r#","expect":0"#),
        &append("r", "s", "9", r#","expect":7"#),
        &append("r", "s", "2", r#","expect":null"#),
        &append("r", "other", "9", r#","expect":0"#),
        &cas(0, 1),
        &cas(0, 9),
    ]);
    for (index, answer) in answers.iter().enumerate() {
        match index {
            1 | 3 | 4 | 6 | 8 => assert_eq!(kind(answer), "conflict", "line {index}"),
            _ => drop(version(answer)),
        }
    }
    let payloads: Vec<_> = home.entries("event").iter().map(|e| e["payload"].as_u64()).collect();
    assert_eq!(payloads, [Some(0), Some(1), Some(2)]);
    let held = version(&answers[7]);
    let answers = home.apply(&[&cas(held + 1000, 9), &cas(held, 2), &cas(held, 9)]);
    assert_eq!((kind(&answers[0]), kind(&answers[2])), ("conflict", "conflict"));
    assert_eq!(home.entries("state")[0]["value"], 2);
}

#[test]
fn a_retried_append_answers_the_original_version() {
    let home = Home::new();
    let keyed = |payload: &str, key: &str| {
        append("r", "s", payload, &format!(r#","idempotency_key":"{key}""#))
    };
    let first = home.apply(&[&keyed("1", "a"), &keyed("1", "a"), &keyed("2", "b")]);
    assert_eq!(version(&first[0]), version(&first[1]), "also while the original is under way");
    let second = home.apply(&[
        &keyed("1", "a"),
        &append("r", "s", "1", r#","expect":"no_stream","idempotency_key":"a""#),
    ]);
    assert_eq!(version(&second[0]), version(&first[0]), "also after a restart");
    assert_eq!(
        version(&second[1]),
        version(&first[0]),
        "the key is checked before the expectation"
    );
    assert_eq!(home.entries("event").len(), 2);
}

#[test]
fn a_transaction_is_known_by_all_its_appends_or_conflicts() {
    let home = Home::new();
    let both = |a: &str, b: &str| {
        format!(
            r#"{{"ops":[{{"op":"event_append","run":"r","stream":"s","payload":1,"idempotency_key":"{a}"}},{{"op":"kv_put","run":"r","key":"k","value":"{b}"}},{{"op":"event_append","run":"r","stream":"t","payload":1,"idempotency_key":"{b}"}}]}}"#
        )
    };
    let answers = home.apply(&[&both("a", "b"), &both("a", "b"), &both("a", "c"), &both("d", "e")]);
    assert_eq!(version(&answers[0]), version(&answers[1]));
    assert_eq!(kind(&answers[2]), "conflict");
    assert!(version(&answers[3]) > version(&answers[0]));
    assert_eq!(home.entries("event").len(), 4);
    let answers = home.apply(&[&both("a", "b")]);
    version(&answers[0]);
    assert_eq!(home.entries("kv")[0]["value"], "e", "a known transaction writes nothing at all");
}

#[test]
fn later_lines_see_earlier_ones_that_are_still_under_way() {
    let home = Home::new();
    let mut lines = Vec::new();
    for n in 0..50 {
        let expect = if n == 0 { "\"no_stream\"".into() } else { (n - 1).to_string() };
        lines.push(append("r", "s", &n.to_string(), &format!(r#","expect":{expect}"#)));
    }
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    home.apply(&lines).iter().for_each(|answer| assert!(version(answer) > 0));
    let seqs: Vec<_> = home.entries("event").iter().map(|event| event["seq"].as_u64()).collect();
    assert_eq!(seqs, (0..50).map(Some).collect::<Vec<_>>());
}

#[test]
fn an_answer_never_waits_for_another_line() {
    let home = Home::new();
    let mut child = home.start_apply(&[]);
    let mut stdin = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap());
    let mut answer = String::new();
    for n in 0..5 {
        // A line and the beginning of the next: the first is answered all the same.
        let line = put("r", "k", &n.to_string());
        let (first, rest) = line.split_at(9);
        if n == 0 {
            stdin.write_all(first.as_bytes()).unwrap();
        }
        stdin.write_all(format!("{rest}\n{first}").as_bytes()).unwrap();
        answer.clear();
        answers.read_line(&mut answer).unwrap();
        version(&json(&answer));
    }
    drop(stdin);
    answer.clear();
    answers.read_line(&mut answer).unwrap();
    assert_eq!(kind(&json(&answer)), "invalid", "the beginning that was left");
    assert!(child.wait().unwrap().success());
}

#[test]
fn signals_are_recorded_beside_everything_else() {
    let home = Home::new();
    let signal = |entity: &str, weight: &str, more: &str| {
        let fields =
            format!(r#""run":"r","name":"view","entity":{entity},"weight":{weight}{more}"#);
        format!(r#"{{"op":"signal",{fields}}}"#)
    };
    let week_us = 7 * 24 * 3_600_000_000u64;
    let (new, old) = (1_700_000_000_000_000u64, 1_700_000_000_000_000 - week_us);
    let at = |us: u64| format!(r#","at_us":{us}"#);
    let together = format!(
        r#"{{"ops":[{{"op":"kv_put","run":"r","key":"k","value":1}},{},{}]}}"#,
        signal(r#""e""#, "1.0", &at(new)),
        signal(r#""e""#, "2", &at(old)),
    );
    let one = |op: String| format!(r#"{{"ops":[{op}]}}"#);
    let now = one(signal(r#"{"$bytes":"/w=="}"#, "0.5", ""));
    let bad = [
        one(signal(r#""e""#, "-1", "")),
        one(signal(r#""e""#, r#"{"$float":"inf"}"#, "")),
        one(signal(r#""e""#, r#"{"$float":"nan"}"#, "")),
        one(signal(r#""""#, "1", "")),
        one(signal(r#""e""#, "1", r#","at_us":9999999999999999999"#)),
        one(signal(r#""e""#, "1", r#","at_us":999999999999999999"#)),
    ];
    let mut lines = vec![together.as_str(), &now];
    lines.extend(bad.iter().map(String::as_str));
    let answers = home.apply(&lines);
    assert_eq!((version(&answers[0]), version(&answers[1])), (1, 2));
    answers[2..].iter().for_each(|answer| assert_eq!(kind(answer), "invalid", "{answer}"));
    let signals = home.entries("signal");
    assert_eq!(signals.len(), 2);
    assert_eq!((&signals[0]["entity"], &signals[0]["count"]), (&"e".into(), &2.into()));
    assert_eq!((signals[0]["score"].as_f64(), &signals[0]["newest_us"]), (Some(2.0), &new.into()));
    let times = ["newest_us", "at_us"].map(|name| signals[1][name].as_u64().unwrap());
    assert!(times[0] > new && times[0] <= times[1], "now, if nobody says when: {times:?}");
}

#[test]
fn takes_every_option_and_an_input_file() {
    let home = Home::new();
    let file = home.file("lines", put("r", "k", "1") + "\n" + &put("r", "k", "2") + "\n");
    let file = file.to_str().unwrap();
    for durability in ["strict", "batched", "buffered"] {
        let args = [
            "--durability",
            durability,
            "--segment-bytes",
            "1",
            "--checkpoint-bytes",
            "1048576",
            "--retention",
            "last:2",
            "--input",
            file,
        ];
        let done = home.run("apply", &args).ok();
        assert_eq!(done.lines().len(), 2);
    }
    assert_eq!(home.entries("kv")[0]["value"], 2);
}

#[test]
fn a_transaction_above_the_frame_limit_is_applied_like_any_other() {
    let home = Home::new();
    let ops: Vec<_> = (0..40)
        .map(|n| {
            format!(r#"{{"op":"kv_put","run":"r","key":"k{n}","value":"{}"}}"#, "v".repeat(100_000))
        })
        .collect();
    let line = format!(r#"{{"ops":[{}]}}"#, ops.join(","));
    version(&home.apply(&[&line])[0]);
    assert_eq!(home.entries("kv").len(), 40);
}
