//! Any engine, killed as a process: Steadfast passes, and a toy's defects are found where a kill
//! can show them.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use steadfast_testing::seed::seed_or;
use steadfast_testing::target::kill::{KillConfig, kill_repeatedly};
use steadfast_testing::target::toy::Defect;
use steadfast_testing::target::{Program, Tally};

fn killed(arguments: &[&str], kills: u64) -> Tally {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::new(env!("CARGO_BIN_EXE_crash_target"), arguments);
    let config = KillConfig { kills, seed: seed_or(1), ..KillConfig::default() };
    let tally = kill_repeatedly(&program, dir.path(), &config).unwrap();
    println!("{arguments:?}: {tally}");
    assert_eq!((tally.crashes, tally.images), (kills, kills));
    tally
}

#[test]
fn steadfast_keeps_what_it_acknowledged_in_every_mode() {
    for mode in ["strict", "batched", "buffered"] {
        let tally = killed(&["steadfast", mode], 6);
        assert_eq!(tally.wrong(), 0, "{tally}");
        assert!(tally.acknowledged > 0 && tally.unpromised_lost == 0, "{tally}");
    }
}

#[test]
fn a_kill_finds_the_defects_that_it_can_show() {
    for defect in Defect::ALL {
        let tally = killed(&["toy", defect.name()], 12);
        let wrong = tally.wrong() > 0;
        match defect {
            Defect::EarlyAcknowledgement => {
                assert!(tally.count("lost") > 0, "{tally}");
            }
            // Where syncs take no time, hardly any kill falls between the two.
            Defect::TwoFiles => {
                assert_eq!(tally.wrong(), tally.count("torn") + tally.count("hole"), "{tally}");
            }
            // The kernel has all that was written: only the loss of power shows these.
            Defect::None | Defect::NoSync | Defect::NoDirectorySync | Defect::NoChecksum => {
                assert!(!wrong, "{tally}");
            }
        }
    }
}

/// A program that says what it likes: liars and mutes are found out.
#[test]
fn a_process_that_does_not_keep_to_the_protocol_is_no_pass() {
    let dir = tempfile::tempdir().unwrap();
    let say = |script: &str| {
        let program = Program::new("/bin/sh", &["-c", script, "sh"]);
        let patience = Duration::from_millis(300);
        let config = KillConfig { kills: 1, transactions_max: 20, seed: 5, patience };
        kill_repeatedly(&program, dir.path(), &config)
    };
    assert!(say("echo refused no room").unwrap_err().to_string().contains("no room"));
    assert!(say("exit 0").is_err());
    assert!(say("sleep 10").unwrap_err().to_string().contains("Hung"));
    let liar = "echo ready; n=0; while read verb rest; do n=$((n+1)); \
                if [ $verb = dump ]; then echo end; else echo ok $n power; fi; done";
    let tally = say(liar).unwrap();
    assert_eq!(tally.count("lost"), 1, "{tally}");
}
