//! The injector: fires where and when it should, once, on any thread; and the feature behind it
//! is in no build that is not a test.
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use steadfast_engine::Database;
use steadfast_testing::injector::{
    CRASH_POINTS_COMPILED_IN, CrashInjector, CrashPoint, check_crash_point, clear_injector,
    clear_injector_everywhere, install_injector, install_injector_everywhere, run_with_crash,
};

const POINT: CrashPoint = CrashPoint::SignalAggregationUpdate;
const OTHER: CrashPoint = CrashPoint::CohortLedgerUpdate;

fn cross(point: CrashPoint, times: u64) -> u64 {
    (0..times).for_each(|_| check_crash_point(point));
    times
}

#[test]
fn injector_fires_at_threshold() {
    for n in [0, 1, 7] {
        let injector = CrashInjector::new(POINT, n);
        assert_eq!(run_with_crash(&injector, || cross(POINT, n)), Ok(n), "not before");
        assert!(!injector.has_fired());
        assert_eq!(run_with_crash(&injector, || cross(POINT, 1)), Err(POINT));
        assert!(injector.has_fired());
        assert_eq!(injector.crossing_count(), n + 1);
    }
}

#[test]
fn injector_ignores_wrong_crash_point() {
    let injector = CrashInjector::new(POINT, 0);
    assert_eq!(run_with_crash(&injector, || cross(OTHER, 5)), Ok(5));
    assert_eq!(injector.crossing_count(), 0);
}

#[test]
fn injector_one_shot() {
    let injector = CrashInjector::new(POINT, 0);
    assert_eq!(run_with_crash(&injector, || cross(POINT, 1)), Err(POINT));
    assert_eq!(run_with_crash(&injector, || cross(POINT, 9)), Ok(9));
    assert_eq!(injector.crossing_count(), 1, "what is spent does not count");
    injector.arm();
    assert!(!injector.has_fired());
    assert_eq!(run_with_crash(&injector, || cross(POINT, 1)), Err(POINT), "armed once more");
}

#[test]
fn injector_disarm_prevents_fire() {
    let injector = CrashInjector::new(POINT, 0);
    injector.disarm();
    assert_eq!(run_with_crash(&injector, || cross(POINT, 3)), Ok(3));
    assert_eq!((injector.has_fired(), injector.crossing_count()), (false, 0));
}

#[test]
fn run_with_crash_returns_ok_on_complete() {
    let injector = CrashInjector::new(POINT, 0);
    assert_eq!(run_with_crash(&injector, || 42), Ok(42));
    // It is not left behind.
    cross(POINT, 1);
    assert_eq!(injector.crossing_count(), 0);
}

#[test]
fn run_with_crash_returns_err_on_fire() {
    let injector = CrashInjector::new(POINT, 2);
    assert_eq!(run_with_crash(&injector, || cross(POINT, 10)), Err(POINT));
    cross(POINT, 5);
    assert_eq!(injector.crossing_count(), 3);
}

#[test]
fn foreign_panics_go_on() {
    let injector = CrashInjector::new(POINT, 0);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        run_with_crash(&injector, || std::panic::resume_unwind(Box::new("somebody else's")))
    }));
    let payload = panicked.map(|_: Result<(), _>| ()).unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"somebody else's"));
    // So does the crash of another injector, through this one.
    let outer = CrashInjector::new(POINT, 0);
    let passed = run_with_crash(&outer, || run_with_crash(&injector, || outer.maybe_crash(POINT)));
    assert_eq!(passed, Err(POINT));
    assert!(!injector.has_fired());
}

#[test]
fn an_injector_of_a_thread_is_of_that_thread() {
    let injector = CrashInjector::new(POINT, u64::MAX);
    install_injector(&injector);
    std::thread::scope(|scope| scope.spawn(|| cross(POINT, 5)).join().map(drop)).unwrap();
    cross(POINT, 2);
    clear_injector();
    cross(POINT, 4);
    assert_eq!(injector.crossing_count(), 2);
}

/// The only test here that concerns every thread: it uses points of its own.
#[test]
fn an_injector_everywhere_fires_once_on_whichever_thread_comes_first() {
    let injector = CrashInjector::new(CrashPoint::CollectionIndexUpdate, 100);
    install_injector_everywhere(&injector);
    let crash = || {
        catch_unwind(|| (0..50).for_each(|_| check_crash_point(CrashPoint::CollectionIndexUpdate)))
    };
    let ended = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(crash)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap().is_err()).collect::<Vec<_>>()
    });
    clear_injector_everywhere();
    assert_eq!(ended.iter().filter(|crashed| **crashed).count(), 1);
    assert!(injector.has_fired());
}

/// A crash in whoever writes for a group of committers must not leave the others waiting.
#[test]
fn a_thread_that_crashes_with_the_log_leaves_nobody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(dir.path().join("db")).unwrap();
    let run = db.create_run("run").unwrap();
    let injector = CrashInjector::new(CrashPoint::BeforeWalWrite, 20);
    let commit = |thread: i64| {
        let mut outcomes = (0, 0);
        for n in 0..50 {
            match db.kv_put(run, format!("{thread}-{n}"), n) {
                Ok(_) => outcomes.0 += 1,
                Err(_) => outcomes.1 += 1,
            }
        }
        outcomes
    };
    let crashed = std::thread::scope(|scope| {
        let others: Vec<_> = (0..3).map(|n| scope.spawn(move || commit(n))).collect();
        let crashed = run_with_crash(&injector, || (3..200).map(commit).count());
        for other in others {
            let (good, bad) = other.join().unwrap();
            assert!(good + bad == 50, "each commit got an answer");
        }
        crashed
    });
    assert_eq!(crashed, Err(CrashPoint::BeforeWalWrite));
    assert!(db.kv_put(run, "later", 1).is_err(), "nobody knows what the log has");
    drop(db);
    let db = Database::open(dir.path().join("db")).unwrap();
    assert!(db.kv_get(db.resolve_run("run").unwrap(), "later").unwrap().is_none());
}

#[test]
fn tests_have_crash_points_and_nothing_else_has() {
    const { assert!(CRASH_POINTS_COMPILED_IN, "the tests of this crate turn on `hooks`") };
    let features = |args: &[&str]| {
        let tree = Command::new(env!("CARGO"))
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .args(["tree", "--offline", "--locked", "--prefix", "none", "--format", "{lib} {f}"])
            .args(args)
            .output()
            .unwrap();
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        String::from_utf8(tree.stdout).unwrap()
    };
    let has = |text: &str| {
        ["crash-points", "sabotage", "hooks"].iter().any(|feature| text.contains(feature))
    };
    assert!(has(&features(&["-p", "steadfast-testing"])), "this is how it shows");
    for (what, args) in [
        ("the library and the command line", ["--workspace", "-e", "normal,build"].as_slice()),
        ("the benches and examples", ["-p", "steadfast"].as_slice()),
        ("the command line's tests", ["-p", "steadfast-cli"].as_slice()),
    ] {
        let found = features(args);
        assert!(found.contains("steadfast_core"), "{what}: {found}");
        assert!(!has(&found), "{what} would be built with crash points: {found}");
    }
}
