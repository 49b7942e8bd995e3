//! The writer is killed, for real, while transactions stream in.

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use crate::support::{Home, json, put, version};

const ROUNDS: u64 = 20;
const LINES_A_ROUND: u64 = 400;

fn kill_while_applying(args: &[&str]) {
    let home = Home::new();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut known = 0;
    for round in 0..ROUNDS {
        let mut child = home.start_apply(&[args, &["--segment-bytes", "65536"]].concat());
        let mut stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let acknowledged = std::thread::scope(|scope| {
            // Key n is put by transaction n, so what is there tells which transactions are.
            scope.spawn(move || {
                for n in known..known + LINES_A_ROUND {
                    let line =
                        put("r", &format!("{n:06}"), &format!("[{n},\"{}\"]", "x".repeat(200)));
                    if stdin.write_all((line + "\n").as_bytes()).is_err() {
                        return;
                    }
                }
            });
            let mut acknowledged = 0;
            let target = rng.u64(1..LINES_A_ROUND / 2);
            let pause = Duration::from_micros(rng.u64(0..1500));
            let mut answers = stdout.lines();
            while acknowledged < target {
                version(&json(&answers.next().unwrap().unwrap()));
                acknowledged += 1;
            }
            std::thread::sleep(pause);
            child.kill().unwrap();
            // What it had answered before it died was promised, though it is read only now.
            for answer in answers.map_while(Result::ok).filter(|answer| answer.ends_with('}')) {
                version(&json(&answer));
                acknowledged += 1;
            }
            child.wait().unwrap();
            acknowledged
        });
        let entries = home.entries("kv");
        for (n, entry) in entries.iter().enumerate() {
            assert_eq!(entry["key"], format!("{n:06}"), "round {round}: a prefix, without holes");
            assert_eq!(entry["value"][0], n as u64, "round {round}");
        }
        let recovered = entries.len() as u64;
        assert!(
            recovered >= known + acknowledged,
            "round {round}: {acknowledged} after {known}, {recovered} there"
        );
        assert!(recovered <= known + LINES_A_ROUND);
        known = recovered;
    }
    home.run("verify", &[]).ok();
    let answers = home.apply(&[&put("r", "last", "1")]);
    version(&answers[0]);
    assert_eq!(home.entries("kv").len() as u64, known + 1);
}

#[test]
fn a_killed_strict_writer_loses_nothing_it_acknowledged() {
    kill_while_applying(&["--durability", "strict"]);
}

#[test]
fn a_killed_batched_writer_loses_nothing_it_acknowledged() {
    kill_while_applying(&["--durability", "batched"]);
}

#[test]
fn a_killed_buffered_writer_loses_nothing_it_acknowledged() {
    kill_while_applying(&["--durability", "buffered"]);
}

#[test]
fn a_writer_killed_in_the_middle_of_checkpoints_loses_nothing_either() {
    kill_while_applying(&["--durability", "buffered", "--checkpoint-bytes", "16384"]);
}
