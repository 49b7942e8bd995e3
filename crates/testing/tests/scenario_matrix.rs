//! The scenario matrix, row by row, with processes that really die; and the recovery table.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use steadfast_testing::death::CrashType;
use steadfast_testing::injector::CrashPoint;
use steadfast_testing::scenarios::{MODES, RecoveryRow, Scenario, matrix};
use steadfast_testing::seed::seed_or;

fn worker() -> Option<PathBuf> {
    Some(env!("CARGO_BIN_EXE_crash_test_worker").into())
}

/// Runs rows; all that fail are named together.
fn run(rows: &[Scenario], worker: &Option<PathBuf>) {
    let seed = seed_or(42);
    let mut wrong = Vec::new();
    let mut images: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows {
        let dir = tempfile::tempdir().unwrap();
        match row.run(dir.path(), worker.clone(), seed) {
            Ok(result) => {
                let opened = result.recovery_result.map_or(0, |found| found.images);
                *images.entry(format!("{:?}", row.crash)).or_default() += opened;
            }
            Err(why) => wrong.push(why),
        }
    }
    println!("{} rows, images opened: {images:?}", rows.len());
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

fn rows(crash: CrashType) -> Vec<Scenario> {
    matrix().into_iter().filter(|row| row.crash == crash).collect()
}

#[test]
fn killed_processes_leave_what_the_matrix_says() {
    run(&rows(CrashType::ProcessKill), &worker());
}

#[test]
fn aborted_processes_leave_what_the_matrix_says() {
    run(&rows(CrashType::ProcessAbort), &worker());
}

#[test]
fn processes_with_a_segmentation_fault_leave_what_the_matrix_says() {
    run(&rows(CrashType::SegFault), &worker());
}

#[test]
fn power_cuts_leave_what_the_matrix_says() {
    run(&rows(CrashType::PowerLoss), &None);
}

#[test]
fn crashes_in_this_process_leave_what_the_matrix_says() {
    run(&rows(CrashType::ProcessKill), &None);
}

/// [`Scenario::run`] fails where its point is not reached, so a row that is there was reached.
#[test]
fn the_matrix_has_every_point_with_every_crash_and_mode() {
    let rows = matrix();
    let unique: BTreeSet<String> =
        rows.iter().map(|row| format!("{} {:?} {:?}", row.point, row.crash, row.mode)).collect();
    assert_eq!(unique.len(), rows.len(), "no row twice");
    assert_eq!(rows.len(), CrashPoint::ALL.len() * CrashType::ALL.len() * MODES.len());
    for point in CrashPoint::ALL {
        assert!(rows.iter().any(|row| row.point == *point), "{point}");
    }
}

#[test]
fn every_row_of_the_recovery_table_is_reached_with_its_verdicts() {
    let wrong: Vec<String> =
        RecoveryRow::ALL.into_iter().filter_map(|row| row.run().err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The table that is the documentation of recovery is the one that is tested, in its order.
#[test]
fn the_recovery_table_is_the_one_in_the_documentation() {
    let source = include_str!("../../durability/src/recovery.rs");
    let rows: Vec<&str> = source
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .filter(|row| !row.starts_with("what is found"))
        .collect();
    assert_eq!(rows.len(), RecoveryRow::ALL.len(), "{rows:#?}");
    for (line, row) in rows.iter().zip(RecoveryRow::ALL) {
        assert!(line.starts_with(row.what_is_found()), "{row:?}: {line}");
    }
}
