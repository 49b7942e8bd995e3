//! Damaged snapshots: named, survived where an older one is there, salvaged where not.

use steadfast::{CompactMode, Database, TypeTag, Value};
use steadfast_testing::forged;

use crate::support::{Done, Home, append, damage, json, kind, steadfast_on};

/// Two snapshots and log behind each.
fn with_two_snapshots() -> Home {
    let home = Home::new();
    home.fill(0..300, &["--retention", "all"]);
    home.run("checkpoint", &[]).ok();
    home.fill(300..600, &[]);
    home.run("checkpoint", &[]).ok();
    home.fill(600..650, &[]);
    assert_eq!(home.files_in("SNAPSHOTS").len(), 2);
    home
}

const NEWEST: &str = "SNAPSHOTS/snap-000002.chk";

#[track_caller]
fn assert_one_line_about(done: &Done, file: &str) {
    assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
    assert!(done.stderr.contains(file), "{}", done.stderr);
}

#[test]
fn an_older_snapshot_stands_in_for_a_damaged_one_and_it_is_said() {
    let history = ["--history"];
    // In the blocks, and in the footer.
    for place in [500, 999] {
        let home = with_two_snapshots();
        let good = home.run("dump", &history).ok().stdout;
        damage(&home.db().join(NEWEST), place);
        let before = home.files();

        let verify = home.run("verify", &["--json"]).status(1).json();
        assert_eq!((&verify["sound"], &verify["readable"]), (&false.into(), &true.into()));
        assert_eq!(verify["file"], NEWEST);
        assert_eq!(verify["damaged"][0]["at_risk_to"], 600);
        assert!(verify["offset"].as_u64() > Some(0), "{verify}");
        let words = home.run("verify", &[]).status(1).stdout;
        assert!(words.contains("DAMAGED") && words.contains("versions 1 to 600"), "{words}");

        let dump = home.run("dump", &history).ok();
        assert_eq!(dump.stdout, good);
        assert_one_line_about(&dump, NEWEST);
        for (command, args) in [("runs", &[][..]), ("dump", &["--at", "450"])] {
            assert_one_line_about(&home.run(command, args).ok(), NEWEST);
        }
        let copy = home.path("copy");
        assert_one_line_about(&home.run("backup", &[copy.to_str().unwrap()]).ok(), NEWEST);
        assert_eq!(steadfast_on("dump", &copy, &history, "").ok().stdout, good);
        assert_eq!(home.files(), before, "looking mends nothing");

        let mended = home.run("checkpoint", &[]).ok();
        assert_eq!(mended.stderr.lines().count(), 1, "{}", mended.stderr);
        home.run("verify", &[]).ok();
        let dump = home.run("dump", &history).ok();
        assert_eq!((dump.stdout, dump.stderr.as_str()), (good, ""));
    }
}

#[test]
fn an_older_snapshot_that_is_damaged_is_reported_while_it_is_not_needed() {
    let home = with_two_snapshots();
    let good = home.dump();
    damage(&home.db().join("SNAPSHOTS/snap-000001.chk"), 500);
    let verify = home.run("verify", &["--json"]).status(1).json();
    assert_eq!(verify["file"], "SNAPSHOTS/snap-000001.chk");
    assert_eq!(verify["readable"], true);
    assert_eq!(home.dump(), good);
    home.run("compact", &[]).ok();
    home.run("verify", &[]).ok();
    assert_eq!(home.dump(), good);
}

#[test]
fn log_that_only_the_older_snapshot_needs_is_read_too() {
    let home = with_two_snapshots();
    let good = home.dump();
    // What was written between the two: each opening that writes begins a segment.
    damage(&home.db().join("WAL/wal-000003.seg"), 500);
    let verify = home.run("verify", &["--json"]).status(1).json();
    assert_eq!(verify["damaged"][0]["file"], "WAL/wal-000003.seg");
    assert_eq!(verify["readable"], true);
    let dump = home.run("dump", &[]).ok();
    assert_eq!((dump.stdout, dump.stderr.as_str()), (good, ""));
}

#[test]
fn what_nothing_stands_in_for_ends_a_dump_without_its_end_line() {
    let home = Home::new();
    home.fill(0..3000, &["--retention", "all"]);
    home.run("compact", &[]).ok();
    damage(&home.files_in("SNAPSHOTS")[0], 500);
    let verify = home.run("verify", &["--json"]).status(1).json();
    assert_eq!(
        (&verify["readable"], &verify["damaged"][0]["at_risk_to"]),
        (&false.into(), &3000.into())
    );
    let dump = home.run("dump", &["--history", "--json"]).status(1);
    assert_eq!(kind(&json(&dump.stderr)), "corruption");
    assert!(dump.stderr.contains("SNAPSHOTS/snap-000001.chk"), "{}", dump.stderr);
    assert!(dump.lines().len() > 100, "what could be read is there");
    assert!(!dump.stdout.contains(r#""type":"end""#));
    let backup = home.path("backup");
    let done = home.run("backup", &[backup.to_str().unwrap(), "--json"]).status(1);
    assert_eq!(kind(&json(&done.stderr)), "corruption");
    steadfast_on("dump", &backup, &[], "").status(1);
}

#[test]
fn a_repair_keeps_what_can_be_read_and_says_what_cannot() {
    let home = Home::new();
    home.fill(0..3000, &["--retention", "all"]);
    home.run("compact", &[]).ok();
    let snapshot = home.files_in("SNAPSHOTS")[0].clone();
    damage(&snapshot, 500);
    let before = home.files();
    let trial = home.run("repair", &["--dry-run", "--json"]).ok().json();
    assert_eq!(trial["copy"], json("null"));
    let losses = trial["losses"].as_array().unwrap();
    assert_eq!(losses.len(), 1, "{trial}");
    let loss = &losses[0];
    assert_eq!(loss["file"], "SNAPSHOTS/snap-000001.chk");
    assert_eq!((&loss["lost"], &loss["at_risk_to"]), (&"rows".into(), &3000.into()), "{loss}");
    // Named as those who wrote them know them: the row before the damage, and the one behind it.
    for row in [&loss["after"], &loss["before"]] {
        let known = row.is_null() || row["type"] == "run" || row["run"] == "r";
        assert!(known, "{loss}");
    }
    assert!(!loss["before"].is_null(), "{loss}");
    let target = home.path("new");
    let target = target.to_str().unwrap();
    let trial = home.run("repair", &[target, "--dry-run"]).ok().stdout;
    assert!(trial.contains("would keep") && !home.path("new").exists(), "{trial}");
    let words = home.run("repair", &[target]).ok().stdout;
    assert!(words.contains("1 loss") && words.contains("was not changed"), "{words}");
    assert!(words.contains(" in run r"), "{words}");
    assert_eq!(home.files(), before);
    steadfast_on("verify", &home.path("new"), &[], "").ok();
    let kept = steadfast_on("dump", &home.path("new"), &["--history"], "").ok();
    assert!((1000..6000).contains(&kept.lines().len()), "{}", kept.lines().len());
    let again = home.run("repair", &[target, "--json"]).status(1);
    assert_eq!(kind(&json(&again.stderr)), "invalid");
}

#[test]
fn a_repair_of_a_damaged_log_keeps_the_longest_prefix() {
    let home = Home::new();
    home.fill(0..200, &[]);
    damage(&home.files_in("WAL")[0], 500);
    home.run("dump", &[]).status(1);
    let new = home.path("new");
    let done = home.run("repair", &[new.to_str().unwrap(), "--json"]).ok().json();
    let version = done["version"].as_u64().unwrap();
    assert!((1..200).contains(&version), "{done}");
    assert_eq!(done["log"], "corrupt");
    let loss = &done["losses"][0];
    assert_eq!((&loss["file"], &loss["lost"]), (&"WAL/wal-000001.seg".into(), &"commits".into()));
    assert_eq!(loss["at_risk_from"], version + 1);
    let dump = steadfast_on("dump", &new, &[], "").ok();
    assert!(dump.lines().last().unwrap().contains(&format!(r#""version":{version},"#)));
}

#[test]
fn a_repair_of_a_sound_database_loses_nothing() {
    let home = Home::new();
    home.fill(0..100, &[]);
    home.run("checkpoint", &[]).ok();
    let new = home.path("new");
    let words = home.run("repair", &[new.to_str().unwrap()]).ok().stdout;
    assert!(words.starts_with("nothing is lost"), "{words}");
    assert_eq!(steadfast_on("dump", &new, &[], "").ok().stdout, home.dump());
    damage(&home.db().join("MANIFEST"), 500);
    home.run("dump", &[]).status(1);
    let again = home.path("again");
    let done = home.run("repair", &[again.to_str().unwrap(), "--json"]).ok().json();
    assert_eq!(done["manifest_made_up"], true);
    assert_eq!(
        steadfast_on("dump", &again, &[], "").ok().stdout,
        steadfast_on("dump", &new, &[], "").ok().stdout
    );
}

/// Somebody who can write files with right checksums, but not the hash of what comes after.
#[test]
fn an_event_that_was_changed_with_all_checksums_right_is_found() {
    let home = Home::new();
    home.apply(&[
        &append("r", "s", "1", ""),
        &append("r", "s", "2", ""),
        &append("r", "s", "3", ""),
    ]);
    let sound = home.run("verify", &["--json"]).ok().json();
    assert_eq!(sound["streams"], 1);
    assert!(home.run("verify", &[]).ok().stdout.contains("1 stream of events is as appended"));

    let db = Database::open(home.db()).unwrap();
    let run = db.resolve_run("r").unwrap();
    let event = db.event_read(run, "s", 1).unwrap().next().unwrap().unwrap();
    let namespace = steadfast_core::NamespaceId(1);
    let key = steadfast_core::event_key(namespace, b"s", 1).unwrap();
    let value = vec![Value::from(event.hash.as_bytes()), Value::from(22)];
    // As of the newest commit, which the log has.
    let newest = db.current_version();
    let store = db.storage();
    store.put_with_version(&key, Value::List(value), newest, event.timestamp, None).unwrap();
    db.checkpoint().unwrap();
    db.compact(CompactMode::Full).unwrap();
    db.close().unwrap();

    let verify = home.run("verify", &["--json"]).status(1).json();
    assert_eq!((&verify["sound"], &verify["damaged"]), (&false.into(), &json("[]")));
    let found = verify["event_chain"].as_str().unwrap();
    assert!(found.starts_with("event 1 of stream s: "), "{found}");
    assert!(home.run("verify", &[]).status(1).stdout.contains(found));
}

#[test]
fn a_record_that_means_nothing_is_named_with_its_key_and_version() {
    let home = Home::new();
    home.fill(0..30, &[]);
    let is_it = |tag, own: &[u8]| tag == TypeTag::Kv && own == b"k07";
    let key = forged::stored_key(&home.db(), is_it);
    let version = forged::append(&home.db(), &[(&key, &[0xff])]);
    let place = format!("key-value k07 in namespace 1, of version {version}, cannot be read");
    let verify = home.run("verify", &[]).status(1).stdout;
    assert!(verify.contains("DAMAGED") && verify.contains(&place), "{verify}");
    let verify = home.run("verify", &["--json"]).status(1).json();
    assert_eq!(
        (&verify["sound"], verify["damaged"].as_array().map(Vec::len)),
        (&false.into(), Some(0))
    );
    assert!(verify["undecodable"].as_str().is_some_and(|text| text.contains(&place)), "{verify}");
    let dump = home.run("dump", &["--json"]).status(1);
    assert_eq!(json(&dump.stderr)["error"]["kind"], "corruption");
    assert!(dump.stderr.contains(&place), "{}", dump.stderr);
    assert!(!dump.stdout.contains(r#""type":"end""#), "{}", dump.stdout);
    // Writing it anew mends it.
    home.apply(&[r#"{"ops":[{"op":"kv_put","run":"r","key":"k07","value":1}]}"#]);
    home.run("dump", &[]).ok();
}
