//! `dump` and `load`: nothing is lost between them, not even a byte.

use crate::support::{Home, append, json, put, steadfast_on, version};

/// One of everything that JSON can and cannot hold.
fn everything() -> Home {
    let home = Home::new();
    let values = [
        "null",
        "true",
        "1",
        "1.0",
        "-0.0",
        "1e300",
        "5e-324",
        "9007199254740993",
        r#"{"$int":"-9223372036854775808"}"#,
        r#"{"$float":"inf"}"#,
        r#"{"$float":"-inf"}"#,
        r#"{"$bytes":"AP8="}"#,
        r#"{"$$bytes":"AP8="}"#,
        r#"{"$$$int":1}"#,
        r##"{"$ref":"#/a"}"##,
        r#""\u0000\"\\é😀""#,
        r#"[1,[1.0,{"a":{"$bytes":""}}]]"#,
        "{}",
        "[]",
    ];
    let mut lines: Vec<_> = values
        .iter()
        .enumerate()
        .map(|(n, value)| put("values", &format!("k{n:02}"), value))
        .collect();
    lines.push(
        r#"{"ops":[{"op":"kv_put","run":"values","key":{"$bytes":"/wA="},"value":1}]}"#.into(),
    );
    lines
        .push(r#"{"ops":[{"op":"event_append","run":"b","stream":"\u0000é","payload":1}]}"#.into());
    lines.push(append("b", "s", r#"{"x":1}"#, r#","idempotency_key":"id""#));
    lines.push(append("b", "s", "2.5", ""));
    lines.push(r#"{"ops":[{"op":"state_set","run":"a","cell":"c","value":1},{"op":"kv_put","run":"a","key":"k","value":1}]}"#.into());
    lines.push(r#"{"ops":[{"op":"kv_delete","run":"a","key":"k"}]}"#.into());
    for (n, at) in [(1, 5_000_000), (3, 1_700_000_000_000_000u64), (7, 1_699_999_000_000_000)] {
        let ahead = 252_000_000_000_000_000u64;
        let signal = |entity: &str, at: u64| {
            format!(
                r#"{{"op":"signal","run":"a","name":"\u0000é","entity":{entity},"weight":0.{n},"at_us":{at}}}"#
            )
        };
        let entity = r#"{"$bytes":"AP8="}"#;
        lines.push(format!(r#"{{"ops":[{},{}]}}"#, signal(entity, at), signal(r#""e""#, ahead)));
    }
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    home.apply(&lines).iter().for_each(|answer| assert!(version(answer) > 0));
    home
}

#[test]
fn dump_load_dump_is_identical_to_the_byte() {
    let home = everything();
    let first = home.dump();
    let copy = home.path("copy");
    let loaded = steadfast_on("load", &copy, &[], &first).ok();
    let second = steadfast_on("dump", &copy, &[], "").ok().stdout;
    assert_eq!(first, second, "load said {}", loaded.stdout);
    steadfast_on("verify", &copy, &[], "").ok();
    let runs = |dir| steadfast_on("runs", dir, &["--json"], "").ok().stdout;
    assert_eq!(runs(&home.db()), runs(&copy), "ids and times too");
}

#[test]
fn definitions_and_what_they_keep_are_restored() {
    let home = Home::new();
    let db = steadfast::Database::open(home.db()).unwrap();
    let lifetime = std::time::Duration::from_secs(6400);
    let schema = steadfast::SchemaBuilder::signal("fading")
        .decay(steadfast::Decay::Linear { lifetime })
        .windows([steadfast::Window::Hours(2)])
        .and_signal("kept")
        .decay(steadfast::Decay::Permanent)
        .version(3);
    db.define_signals(schema.clone()).unwrap();
    let run = db.create_run("r").unwrap();
    for n in 0..300u32 {
        db.signal_record(run, "fading", format!("e{}", n % 3), 0.1).unwrap();
        db.signal_record(run, "kept", "e", 0.1).unwrap();
    }
    db.close().unwrap();
    assert_eq!(home.entries("signal_definition").len(), 2);
    let copy = home.path("copy");
    steadfast_on("load", &copy, &[], home.dump()).ok();
    assert_eq!(steadfast_on("dump", &copy, &[], "").ok().stdout, home.dump());
    let db = steadfast::Database::open(&copy).unwrap();
    let version = db.current_version();
    db.define_signals(schema).unwrap();
    assert_eq!(db.current_version(), version, "they are as they were");
    db.close().unwrap();
}

#[test]
fn history_is_restored_too_where_it_is_kept() {
    let home = Home::new();
    let lines = [
        put("r", "k", "1"),
        put("r", "k", "2"),
        r#"{"ops":[{"op":"kv_delete","run":"r","key":"k"}]}"#.to_owned(),
        put("r", "j", "1"),
        put("r", "k", "3"),
        r#"{"ops":[{"op":"kv_delete","run":"r","key":"j"}]}"#.to_owned(),
    ];
    home.run_with_input("apply", &["--retention", "all"], lines.join("\n")).ok();
    let history = home.run("dump", &["--history"]).ok().stdout;
    assert_eq!(history.matches("\"deleted\":true").count(), 2, "{history}");
    let copy = Home::new();
    copy.run_with_input("load", &["--retention", "all"], &history).ok();
    assert_eq!(copy.run("dump", &["--history"]).ok().stdout, history);
    assert_eq!(copy.dump(), home.dump());
}

#[test]
fn a_loaded_database_goes_on_where_the_old_one_was() {
    let home = everything();
    let dump = home.dump();
    let newest = json(dump.lines().last().unwrap())["version"].as_u64().unwrap();
    let copy = Home::new();
    copy.run_with_input("load", &[], &dump).ok();
    let answers = copy.apply(&[
        &append("b", "s", "3", r#","expect":1"#),
        &append("b", "s", "9", r#","idempotency_key":"id""#),
    ]);
    assert!(version(&answers[0]) > newest, "versions are never given twice");
    assert!(version(&answers[1]) <= newest, "idempotency keys are still known");
}

#[test]
fn a_dump_ends_with_the_newest_version_and_the_number_of_lines() {
    let home = Home::new();
    let answers = home.apply(&[
        &put("b", "k", "1"),
        &put("a", "k", "1"),
        &put("b", "j", "1"),
        r#"{"ops":[{"op":"kv_delete","run":"b","key":"k"}]}"#,
    ]);
    let dump = home.dump();
    let lines: Vec<_> = dump.lines().map(json).collect();
    let end = lines.last().unwrap();
    assert_eq!(end["type"], "end");
    assert_eq!(end["version"], version(&answers[3]), "though nothing of it is left to see");
    assert_eq!(end["entries"], lines.len() as u64 - 1);
    assert!(lines[..lines.len() - 1].iter().all(|line| line["at_us"].as_u64() > Some(0)), "{dump}");
    assert_eq!(home.dump(), dump, "opening changes nothing");
}

#[test]
fn keys_are_in_order_and_a_run_comes_before_its_entries() {
    let home = Home::new();
    home.apply(&[
        &put("b", "z", "1"),
        &put("b", "a", "1"),
        &put("a", "m", "1"),
        &put("b", "ab", "1"),
    ]);
    let dump = home.dump();
    let mut run = String::new();
    let mut last = String::new();
    for line in dump.lines().map(json).filter(|line| line["type"] != "end") {
        if line["type"] == "run" {
            run = line["run"].as_str().unwrap().into();
            last.clear();
            assert!(line["id"].as_str().unwrap().len() == 36 && line["status"].is_string());
        } else {
            assert_eq!(line["run"], run.as_str());
            let key = line["key"].as_str().unwrap().to_owned();
            assert!(key > last, "{dump}");
            last = key;
        }
    }
}

#[test]
fn an_older_version_can_be_dumped_while_it_is_kept() {
    let home = Home::new();
    let lines: Vec<_> = (0..3).map(|n| put("r", "k", &n.to_string())).collect();
    let input = lines.join("\n");
    let done = home.run_with_input("apply", &["--retention", "all"], input).ok();
    let second = version(&json(done.lines()[1]));
    let at = home.run("dump", &["--at", &second.to_string()]).ok();
    let kv: Vec<_> = at.lines().into_iter().map(json).filter(|line| line["type"] == "kv").collect();
    assert_eq!(kv[0]["value"], 1);
    let history = home.run("dump", &["--history"]).ok();
    let values: Vec<_> = history
        .lines()
        .into_iter()
        .map(json)
        .filter(|line| line["type"] == "kv")
        .map(|line| line["value"].as_u64())
        .collect();
    assert_eq!(values, [Some(2), Some(1), Some(0)], "newest first");
    let future = home.run("dump", &["--at", "1000000"]).status(1);
    assert!(future.stderr.contains("1000000"), "{}", future.stderr);
}

#[test]
fn load_refuses_what_is_not_a_complete_dump_and_makes_nothing() {
    let dump = everything().dump();
    let without_end = dump.lines().take(5).fold(String::new(), |all, line| all + line + "\n");
    let missing_line = dump
        .lines()
        .enumerate()
        .filter(|(n, _)| *n != 3)
        .fold(String::new(), |all, (_, line)| all + line + "\n");
    let broken = dump.replacen("\"type\":\"kv\"", "\"type\":\"kv", 1);
    for (bad, why) in
        [("", "end"), (&without_end, "end"), (&missing_line, "entries"), (&broken, "line ")]
    {
        let home = Home::new();
        let done = home.run_with_input("load", &[], bad).status(1);
        assert!(done.stderr.contains(why), "{why}: {}", done.stderr);
        assert!(!home.db().join("MANIFEST").exists());
    }
}

#[test]
fn load_refuses_a_directory_with_a_database_in_it() {
    let home = everything();
    let before = home.files();
    let done = home.run_with_input("load", &[], home.dump()).status(1);
    assert!(!done.stderr.is_empty());
    assert_eq!(home.files(), before);
}

#[test]
fn load_passes_over_types_and_fields_of_later_formats() {
    let dump = everything().dump();
    let mut lines: Vec<_> = dump.lines().map(str::to_owned).collect();
    let last = lines.len() - 1;
    lines[last] =
        lines[last].replace(&format!("\"entries\":{last}"), &format!("\"entries\":{}", last + 1));
    lines.insert(1, r#"{"type":"vector","run":"values","x":[1,2]}"#.into());
    lines[2] = lines[2].replacen("{", r#"{"new_field":{"a":1},"#, 1);
    let copy = Home::new();
    copy.run_with_input("load", &[], lines.join("\n")).ok();
    assert_eq!(copy.dump(), dump);
}

#[test]
fn an_event_that_was_edited_in_a_dump_is_refused() {
    let home = everything();
    let dump = home.dump();
    let event = |seq: u64| {
        let line = dump.lines().find(|line| {
            let entry = json(line);
            entry["type"] == "event" && entry["stream"] == "s" && entry["seq"] == seq
        });
        line.unwrap().to_owned()
    };
    assert_eq!(json(&event(0))["hash"].as_str().unwrap().len(), 64);
    let load = |name: &str, text: String| steadfast_on("load", &home.path(name), &[], &text);
    let edited = load("edited", dump.replace(r#""payload":{"x":1}"#, r#""payload":{"x":2}"#));
    let error = edited.status(1).stderr;
    assert!(
        error.contains("event 0 of stream s: its hash is not that of what it holds"),
        "{error}"
    );
    let moved = event(1).replace(r#""seq":1"#, r#""seq":2"#);
    let error = load("moved", dump.replace(&event(1), &moved)).status(1).stderr;
    assert!(error.contains("event 1 of stream s: it is missing"), "{error}");

    // Whoever wrote a dump by hand has no hashes: they are computed, and are the same.
    let hash = json(&event(0))["hash"].as_str().unwrap().to_owned();
    load("without", dump.replace(&format!(r#","hash":"{hash}""#), "")).ok();
    assert_eq!(steadfast_on("dump", &home.path("without"), &[], "").ok().stdout, dump);
}

#[test]
fn a_trimmed_stream_and_its_keys_are_restored() {
    let home = Home::new();
    let lines: Vec<_> = (0..6)
        .map(|n| append("r", "s", &n.to_string(), &format!(r#","idempotency_key":"k{n}""#)))
        .chain([
            append("r", "other", "1", r#","idempotency_key":"o""#),
            r#"{"ops":[{"op":"event_trim","run":"r","stream":"s","before":4}]}"#.into(),
            r#"{"ops":[{"op":"event_key_window","run":"r","stream":"s","events":2}]}"#.into(),
            append("r", "s", "6", r#","idempotency_key":"short""#),
            append("r", "s", "7", ""),
            append("r", "gone", "8", r#","idempotency_key":"g""#),
            r#"{"ops":[{"op":"event_trim","run":"r","stream":"gone","before":1}]}"#.into(),
        ])
        .collect();
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let versions: Vec<_> = home.apply(&lines).iter().map(|answer| version(answer)).collect();
    for args in [&[][..], &["--history"]] {
        let first = steadfast_on("dump", &home.db(), args, "").ok().stdout;
        assert!(!first.contains(r#""seq":3,"payload""#), "{first}");
        let copy = home.path(&format!("copy{}", args.len()));
        steadfast_on("load", &copy, &[], &first).ok();
        assert_eq!(first, steadfast_on("dump", &copy, args, "").ok().stdout);
        steadfast_on("verify", &copy, &[], "").ok();

        // Keys of events that are gone and of others answer; the sequences go on.
        let again = [
            append("r", "s", "0", r#","idempotency_key":"k1""#),
            append("r", "s", "0", r#","idempotency_key":"g""#),
            append("r", "s", "0", r#","idempotency_key":"o""#),
            append("r", "s", "0", r#","idempotency_key":"short""#),
            append("r", "s", "9", r#","expect":7"#),
            append("r", "gone", "9", r#","expect":0"#),
            append("r", "s", "0", r#","idempotency_key":"short""#),
        ];
        let again: Vec<_> = again.iter().map(String::as_str).collect();
        let answers = steadfast_on("apply", &copy, &[], again.join("\n")).ok().stdout;
        let answers: Vec<_> = answers.lines().map(|line| version(&json(line))).collect();
        assert_eq!(answers[..4], [versions[1], versions[11], versions[6], versions[9]]);
        assert!(answers[4..].iter().all(|answer| answer > &versions[12]), "{answers:?}");
    }
    let compacted = home.dump();
    steadfast_on("checkpoint", &home.db(), &[], "").ok();
    steadfast_on("compact", &home.db(), &[], "").ok();
    assert_eq!(home.dump(), compacted, "a compaction changes no dump");
}
