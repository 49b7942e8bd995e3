//! Steadfast beside other embedded stores: the same rows, the same promise, the same run.
//!
//! The parent plans: for each repetition every contender of a workload, in turn. Each
//! measurement is a process of its own (this binary again), so that memory is fresh, peaks
//! are nobody else's, and a kill is a kill.

mod commits;
mod lifecycle;
mod reads;
mod recovery;
mod report;
mod store;
mod stores;
mod transactions;

#[path = "../../benches/support/clock.rs"]
#[allow(dead_code)]
mod clock;
#[path = "../../benches/support/data.rs"]
#[allow(dead_code)]
mod data;
#[path = "../../benches/support/limits.rs"]
#[allow(dead_code)]
mod limits;
#[path = "../../benches/support/ours.rs"]
#[allow(dead_code)]
mod ours;
#[path = "../../benches/support/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "../../benches/support/scratch.rs"]
#[allow(dead_code)]
mod scratch;

use std::process::ExitCode;

/// How much is measured.
pub(crate) struct Plan {
    /// Rows of the stores that are read or recovered.
    rows: u64,
    /// How long a loop runs.
    seconds: f64,
    /// Times each measurement is made; tables show the median.
    repetitions: usize,
    /// Contenders whose names contain one of these; all if there are none.
    only: Vec<String>,
}

impl Plan {
    fn full() -> Self {
        Self { rows: 1_000_000, seconds: 1.5, repetitions: 3, only: Vec::new() }
    }

    /// Whether everything runs at all.
    fn quick() -> Self {
        Self { rows: 20_000, seconds: 0.05, repetitions: 1, only: Vec::new() }
    }

    fn wants(&self, contender: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| contender.contains(name))
    }
}

const USAGE: &str = "\
usage: steadfast-peers [--quick] [--repetitions N] [--rows N] [--seconds S] [--only NAME,…] [WORKLOAD…]
workloads: strict-1 strict-8 strict-32 strict-128 strict-100-puts buffered-1 buffered-2 recovery lifecycle reads
           transactions-low transactions-high transactions-strict-low transactions-strict-high
contenders: limit steadfast fjall redb lmdb sqlite, and rocksdb with `--features rocksdb`";

fn main() -> ExitCode {
    if let Some(task) = process::task() {
        child(&task);
        return ExitCode::SUCCESS;
    }
    let Some((plan, workloads)) = arguments(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    println!("{}", clock::machine());
    println!("{} repetition(s), medians; quick runs mean nothing", plan.repetitions);
    let wants = |name: &str| workloads.is_empty() || workloads.iter().any(|wanted| wanted == name);
    for workload in commits::WORKLOADS.iter().filter(|workload| wants(workload.name)) {
        commits::measure(&plan, workload);
    }
    for workload in transactions::WORKLOADS.iter().filter(|workload| wants(workload.name)) {
        transactions::measure(&plan, workload);
    }
    if wants("recovery") {
        recovery::measure(&plan);
    }
    if wants("lifecycle") {
        lifecycle::measure(&plan);
    }
    if wants("reads") {
        reads::measure(&plan);
    }
    ExitCode::SUCCESS
}

fn arguments(arguments: impl Iterator<Item = String>) -> Option<(Plan, Vec<String>)> {
    let mut plan = Plan::full();
    let mut workloads = Vec::new();
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => plan = Plan { only: plan.only, ..Plan::quick() },
            "--repetitions" => plan.repetitions = arguments.next()?.parse().ok()?,
            "--rows" => plan.rows = arguments.next()?.parse().ok()?,
            "--seconds" => plan.seconds = arguments.next()?.parse().ok()?,
            "--only" => plan.only = arguments.next()?.split(',').map(str::to_owned).collect(),
            name if is_workload(name) => workloads.push(argument),
            _ => return None,
        }
    }
    Some((plan, workloads))
}

fn is_workload(name: &str) -> bool {
    matches!(name, "recovery" | "lifecycle" | "reads")
        || commits::WORKLOADS.iter().any(|w| w.name == name)
        || transactions::WORKLOADS.iter().any(|w| w.name == name)
}

fn child(task: &[String]) {
    match task[0].as_str() {
        "commits" => commits::child(&task[1..]),
        "transactions" => transactions::child(&task[1..]),
        "recovery" => recovery::child(&task[1..]),
        "lifecycle" => lifecycle::child(&task[1..]),
        "reads" => reads::child(&task[1..]),
        unknown => panic!("no such task: {unknown}"),
    }
}
