//! Every planted bug is found, by techniques that know nothing of it; without one, nothing is.
//!
//! `cargo test -p steadfast-testing --test sabotage -- --nocapture` prints the table that is in
//! `docs/SABOTAGE.md`.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use steadfast_testing::sabotage::{Catch, SABOTAGE_VARIABLE, Sabotage, TABLE_HEAD, hunt, row};
use steadfast_testing::techniques;

/// `STEADFAST_SABOTAGE_ONLY` names those to look for, with commas between; or all of them.
fn chosen() -> Vec<Sabotage> {
    match std::env::var("STEADFAST_SABOTAGE_ONLY") {
        Ok(names) => names.split(',').map(|name| Sabotage::from_name(name).unwrap()).collect(),
        Err(_) => Sabotage::ALL.to_vec(),
    }
}

#[test]
fn every_planted_bug_is_found() {
    let (chosen, next) = (chosen(), AtomicUsize::new(0));
    let found: Mutex<Vec<(Sabotage, Option<Catch>, f64)>> = Mutex::default();
    let work = || {
        while let Some(sabotage) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            let started = Instant::now();
            let caught = hunt(Some(*sabotage), 1).err();
            found.lock().unwrap().push((*sabotage, caught, started.elapsed().as_secs_f64()));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let mut found = found.into_inner().unwrap();
    found.sort_by_key(|one| one.0);
    println!("{TABLE_HEAD}");
    for (sabotage, caught, _) in &found {
        if let Some(catch) = caught {
            println!("{}", row(*sabotage, catch));
        }
    }
    for (sabotage, _, seconds) in found.iter().filter(|one| one.2 > 5.0) {
        println!("{sabotage}: {seconds:.1} s");
    }
    let survived: Vec<_> = found.iter().filter(|one| one.1.is_none()).map(|one| one.0).collect();
    assert!(survived.is_empty(), "nothing found {survived:?}");
}

#[test]
fn a_sound_engine_passes_every_technique() {
    for technique in techniques::ALL {
        let started = Instant::now();
        let (images, verdict) = technique.look(1);
        let seconds = started.elapsed().as_secs_f64();
        println!("{}: {images} judged, {seconds:.1} s", technique.name);
        if let Err(why) = &verdict {
            // Printed here, since another test of this file has panics say nothing.
            println!("{}: {why}", technique.name);
        }
        assert_eq!(verdict, Ok(()), "{}", technique.name);
        assert!(images > 0, "{} judged nothing", technique.name);
    }
}

/// A worker is another process: it takes its switch from the environment. What it writes then is
/// found damaged by this one, which has none.
#[cfg(unix)]
#[test]
fn a_worker_takes_its_switch_from_the_environment() {
    use std::os::unix::fs::PermissionsExt;
    use steadfast_testing::process_kill::{ProcessCrashConfig, ProcessCrashTester};

    let passes = |sabotage: &str| {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("worker");
        let worker = env!("CARGO_BIN_EXE_crash_test_worker");
        let text = format!("#!/bin/sh\n{SABOTAGE_VARIABLE}={sabotage} exec {worker} \"$@\"\n");
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = ProcessCrashConfig {
            iterations: 2,
            min_runtime_ms: 50,
            max_runtime_ms: 100,
            ..ProcessCrashConfig::default()
        };
        let results = ProcessCrashTester::new(script, dir.path().join("db"), config).run();
        results.unwrap().all_passed()
    };
    assert!(passes("Nothing"));
    assert!(!passes(Sabotage::IgnoreChain.name()));
}

#[test]
fn every_planted_bug_is_in_the_docs() {
    let docs = include_str!("../../../docs/SABOTAGE.md");
    for sabotage in Sabotage::ALL {
        let rows = docs.lines().filter(|line| line.starts_with(&format!("| `{sabotage}` |")));
        assert_eq!(rows.count(), 1, "{sabotage} has one row");
    }
    let rows = docs.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, Sabotage::ALL.len(), "no row of a bug that is not there");
    for technique in techniques::ALL {
        assert!(docs.contains(technique.what), "{} is explained", technique.name);
    }
}
