//! The crash matrix finds planted bugs of applications, makes them small, and repeats them.

use std::time::Duration;

use steadfast_engine::{DatabaseConfig, DurabilityMode};
use steadfast_testing::matrix::{Ack, Failure, Left, MatrixError, crash_matrix};

#[path = "../examples/two_transactions.rs"]
#[allow(dead_code)]
mod two_transactions;

use two_transactions::{crash, in_one, in_two};

#[test]
fn an_invariant_kept_in_two_transactions_is_found_and_made_small() {
    let report = crash(1, in_two);
    let failure = report.failure.as_ref().unwrap_or_else(|| panic!("{report}"));
    println!("{report}");
    // One round, an amount of 1, from account 0 to account 0 or 1.
    assert_eq!(failure.case.lives.len(), 1);
    assert!(failure.case.lives[0].draws.len() <= 4, "{report}");
    assert_eq!(failure.case.lives[0].draws[..2], [1, 1], "{report}");
    assert_eq!(failure.why, "the sum of all accounts is -1");
    assert!(failure.acknowledged.is_empty(), "it was not told to anybody yet: {report}");
}

#[test]
fn a_token_repeats_the_failure_and_nothing_else() {
    let failure = crash(1, in_two).failure.expect("it fails");
    let token = failure.case.to_string();
    let replay = |transfer| {
        crash_matrix(99)
            .replay(&token)
            .run(move |db, ack| two_transactions::bank(db, ack, transfer))
            .check(two_transactions::sum_is_zero)
    };
    let again = replay(in_two);
    assert_eq!(again.images, 1);
    assert_eq!(
        again.failure.map(|failure| (failure.case, failure.why)),
        Some((failure.case, failure.why))
    );
    // The crash comes elsewhere in the program without the bug, or not at all.
    assert!(replay(in_one).failure.is_none());
    let bad = crash_matrix(1).replay("3@x").run(|_, _: &Ack<()>| Ok(())).check(|_, _| Ok(()));
    assert!(matches!(bad.error, Some(MatrixError::Token(_))), "{bad}");
    let other = crash_matrix(1).replay("@99999k").run(|_, _: &Ack<()>| Ok(())).check(|_, _| Ok(()));
    assert!(matches!(other.error, Some(MatrixError::OtherProgram { .. })), "{other}");
}

#[test]
fn an_application_without_the_bug_passes() {
    let report = crash(1, in_one);
    report.expect_good();
    assert!(report.opened > 1_000, "{report}");
    assert!(report.nested > 1_000, "{report}");
}

/// What is acknowledged before it is durable is lost by a power cut, and by nothing else.
#[test]
fn acknowledged_too_early_is_found_by_a_power_cut() {
    let crash = |promised_only: bool| {
        crash_matrix(3)
            .config(DatabaseConfig::new(DurabilityMode::Buffered).manual_checkpoints())
            .run(|db, ack| {
                let run = db.get_or_create_run("r")?;
                for n in ack.rounds(6) {
                    db.kv_put(run, format!("{n}"), 1)?;
                    ack.done(n);
                    if ack.draw(4) == 0 {
                        db.flush()?;
                    }
                }
                Ok(())
            })
            .check(move |db, acked| {
                let due: Vec<u64> = match promised_only {
                    true => acked.iter().copied().collect(),
                    false => acked.all().copied().collect(),
                };
                for n in due {
                    let run = db.resolve_run("r")?;
                    db.kv_get(run, format!("{n}"))?.ok_or_else(|| format!("{n} is lost"))?;
                }
                Ok(())
            })
    };
    crash(true).expect_good();
    let failure = crash(false).failure.expect("a buffered commit does not survive a power cut");
    assert_eq!(failure.case.lives[0].draws.len(), 1, "one round: {failure}");
    assert!(matches!(failure.case.lives[0].left, Left::Power(_)), "{failure}");
}

/// Crashes inside the program started again: a service that numbers its starts.
#[test]
fn what_a_second_start_breaks_is_found() {
    let crash = |together: bool| {
        crash_matrix(5)
            .depth(2)
            .starting_again()
            .run(move |db, ack| {
                let run = db.get_or_create_run("service")?;
                let count = |key: &str| {
                    db.kv_get(run, key)
                        .map(|found| found.and_then(|found| found.value.as_int()).unwrap_or(0))
                };
                let (starts, log) = (count("starts")?, count("log")?);
                if together || starts == 0 {
                    db.transaction(|tx| {
                        tx.kv_put(run, "starts", starts + 1)?;
                        tx.kv_put(run, "log", log + 1)
                    })?;
                } else {
                    // Only from the second start on.
                    db.kv_put(run, "starts", starts + 1)?;
                    db.kv_put(run, "log", log + 1)?;
                }
                ack.done(starts + 1);
                Ok(())
            })
            .check(|db, acked| {
                let Ok(run) = db.resolve_run("service") else {
                    return acked.expect(acked.is_empty(), || "the service is gone".into());
                };
                let starts = db.kv_get(run, "starts")?.and_then(|found| found.value.as_int());
                let log = db.kv_get(run, "log")?.and_then(|found| found.value.as_int());
                assert_eq!(starts, log, "every start is in the log");
                let last = acked.iter().max().copied();
                acked.expect(starts >= last, || format!("start {last:?} is lost: {starts:?}"))
            })
    };
    crash(true).expect_good();
    let report = crash(false);
    let failure = report.failure.as_ref().unwrap_or_else(|| panic!("{report}"));
    println!("{report}");
    assert_eq!(failure.case.lives.len(), 2, "one start is not enough: {report}");
    assert!(failure.why.starts_with("panicked at"), "{report}");
    assert!(failure.why.contains("every start is in the log"), "{report}");
}

/// What fails is not the check but the program, started on what a crash left.
#[test]
fn a_program_that_cannot_be_started_again_is_found_and_repeated() {
    let matrix = || crash_matrix(5).starting_again();
    let program = |db: &steadfast_engine::Database, ack: &Ack<()>| {
        let run = db.get_or_create_run("service")?;
        // Half of a start is not thought of.
        if db.kv_get(run, "begun")?.is_some() && db.kv_get(run, "done")?.is_none() {
            return Err("begun, and not done".into());
        }
        db.kv_put(run, "begun", 1)?;
        ack.draw(10);
        db.kv_put(run, "done", 1)?;
        Ok(())
    };
    let report = matrix().run(program).check(|_, _| Ok(()));
    let failure = report.failure.as_ref().unwrap_or_else(|| panic!("{report}"));
    println!("{report}");
    assert_eq!(failure.why, "started again, the program failed: begun, and not done");
    assert_eq!(failure.case.lives.len(), 1, "{report}");
    let token = failure.case.to_string();
    assert!(token.ends_with("/!"), "{token}");
    let again = matrix().replay(&token).run(program).check(|_, _| Ok(()));
    assert_eq!(again.failure.map(|again| again.why), Some(failure.why.clone()));
}

/// Two programs that leave the same disk and say different things are two.
#[test]
fn what_was_acknowledged_is_part_of_an_image() {
    let report = crash_matrix(1)
        .run(|db, ack| {
            db.get_or_create_run("r")?;
            let number = ack.draw(50);
            ack.done(number);
            Ok(())
        })
        .check(|_, acked| acked.expect(acked.iter().all(|n| *n < 10), || "too much".into()));
    let failure = report.failure.as_ref().unwrap_or_else(|| panic!("{report}"));
    assert_eq!(failure.case.lives[0].draws, [10], "{report}");
}

#[test]
fn a_program_that_fails_by_itself_is_no_crash() {
    let report = crash_matrix(1)
        .run(|db, ack: &Ack<()>| {
            ack.draw(10);
            db.kv_put(db.resolve_run("nobody")?, "key", 1)?;
            Ok(())
        })
        .check(|_, _| Ok(()));
    assert!(report.failure.is_none());
    let error = report.error.as_ref().expect("it fails").to_string();
    assert!(error.starts_with("the program failed without any crash, with draws ["), "{error}");
    assert!(error.contains("nobody"), "{error}");
}

#[test]
fn limits_are_kept_and_told() {
    let program = |images| {
        crash_matrix(1)
            .images_max(images)
            .depth(0)
            .time_max(Duration::from_secs(600))
            .run(|db, ack: &Ack<()>| {
                let run = db.get_or_create_run("r")?;
                for n in ack.rounds(10) {
                    db.kv_put(run, format!("{n}"), "value")?;
                }
                Ok(())
            })
            .check(|_, _| Ok(()))
    };
    let few = program(500);
    assert!(few.cut_short && few.images < 1_500, "some of every moment, not all: {few}");
    assert_eq!(few.nested, 0, "{few}");
}

/// What hangs, run by the test below in a process of its own.
#[test]
#[ignore = "it never returns"]
fn hangs() {
    let Ok(what) = std::env::var("HANGS") else { return };
    let in_check = what == "check";
    let matrix = crash_matrix(5).starting_again().hangs_after(Duration::from_secs(1));
    let _never = matrix
        .run(move |db, ack| {
            if !in_check && db.resolve_run("r").is_ok() {
                // Not at once, and not without a draw.
                while ack.draw(3) != 2 {}
                hang();
            }
            orders(db, ack)
        })
        .check(move |db, acked| {
            if in_check && acked.iter().count() > 1 && db.resolve_run("r").is_ok() {
                hang();
            }
            Ok(())
        });
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

fn orders(db: &steadfast_engine::Database, ack: &Ack<u64>) -> Result<(), Failure> {
    let run = db.get_or_create_run("r")?;
    for n in 0..3 {
        db.kv_put(run, format!("{n}"), 1)?;
        ack.done(n);
    }
    Ok(())
}

/// Runs [`hangs`] and gives the token that it ends with.
fn token_of_what_hangs(what: &str) -> String {
    let program = std::env::current_exe().expect("this test is a program");
    let mut command = std::process::Command::new(program);
    command.args(["--exact", "hangs", "--ignored", "--test-threads=1"]);
    command.env_remove("STEADFAST_REPLAY").env("HANGS", what);
    let ended = command.output().expect("it can be started again");
    let told = String::from_utf8(ended.stderr).expect("what it says is text");
    assert_eq!(ended.status.code(), Some(101), "{told}");
    assert!(told.contains(&format!("the {what} has not returned after 1s")), "{told}");
    let token = told.split("STEADFAST_REPLAY='").nth(1).and_then(|rest| rest.split('\'').next());
    token.unwrap_or_else(|| panic!("no token: {told}")).to_owned()
}

#[test]
fn a_check_that_never_returns_is_ended_with_the_token_that_repeats_it() {
    let token = token_of_what_hangs("check");
    let again =
        crash_matrix(99).starting_again().replay(&token).run(orders).check(|_, acked| match acked
            .iter()
            .count()
        {
            0 | 1 => Ok(()),
            _ => Err("here it hung".into()),
        });
    assert_eq!(again.failure.expect("the same image").why, "here it hung");
}

#[test]
fn a_program_that_never_returns_is_ended_with_the_token_that_repeats_it() {
    let token = token_of_what_hangs("program");
    let again = crash_matrix(99).starting_again().replay(&token).run(
        |db: &steadfast_engine::Database, ack: &Ack<u64>| {
            if db.resolve_run("r").is_ok() {
                // What it drew is in the token: 2 came in the end.
                for _ in 0..1_000 {
                    if ack.draw(3) == 2 {
                        return Err("here it hung".into());
                    }
                }
                return Err("without its draws".into());
            }
            orders(db, ack)
        },
    );
    let again = again.check(|_, _| Ok(()));
    let why = again.failure.expect("the same image").why;
    assert!(why.ends_with("here it hung"), "{why}");
}
