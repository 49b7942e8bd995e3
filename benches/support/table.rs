//! A group of rows and its table: what was measured, its ratio to the limit beside it, and
//! what the project aims for. Criterion prints times one by one; a row says something only
//! beside its limit.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};

use super::{clock, setup};

/// Samples that a row's median is taken over, the newest ones: earlier ones were warming up.
const SAMPLES: usize = 10;

/// The rows of one criterion group.
pub(crate) struct Table<'a> {
    criterion: BenchmarkGroup<'a, WallTime>,
    notes: Notes,
}

/// Figures by name, several samples of each.
#[derive(Default)]
pub(crate) struct Notes(RefCell<BTreeMap<String, Vec<f64>>>);

impl Notes {
    /// Notes one sample.
    pub(crate) fn note(&self, name: &str, figure: f64) {
        self.0.borrow_mut().entry(name.to_owned()).or_default().push(figure);
    }

    /// Notes that so many operations took so long.
    pub(crate) fn note_rate(&self, name: &str, operations: u64, elapsed: Duration) {
        self.note(name, operations as f64 / elapsed.as_secs_f64());
    }

    /// The median of the newest samples of a rate, if there are any; the best if that was
    /// asked for.
    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        let newest = self.newest(name)?;
        newest.get(if setup::best() { newest.len() - 1 } else { newest.len() / 2 }).copied()
    }

    /// The same of something that is better if it is less.
    fn cost(&self, name: &str) -> Option<f64> {
        let newest = self.newest(name)?;
        newest.get(if setup::best() { 0 } else { newest.len() / 2 }).copied()
    }

    fn newest(&self, name: &str) -> Option<Vec<f64>> {
        let notes = self.0.borrow();
        let all = notes.get(name)?;
        let mut newest = all[all.len().saturating_sub(SAMPLES)..].to_vec();
        newest.sort_by(f64::total_cmp);
        Some(newest)
    }
}

/// `(against, ratio)`: this row should have at least `ratio` times the rate of row `against`.
pub(crate) type Aims<'a> = &'a [(&'a str, f64)];

/// In the place of an aim: the ratio is shown, nothing is aimed for.
pub(crate) const SHOWN: f64 = 0.0;

impl<'a> Table<'a> {
    /// A criterion group. All its samples have the same number of iterations.
    pub(crate) fn new(c: &'a mut Criterion, group: &str) -> Self {
        let mut criterion = c.benchmark_group(group);
        criterion.sampling_mode(SamplingMode::Flat);
        Self { criterion, notes: Notes::default() }
    }

    /// A row. `open` makes what is measured, outside of all clocks and only if this row is
    /// wanted; `run` does so many iterations of `operations` each with it and says how long
    /// they took. It may run a limit just before and note its rate: on a disk whose speed
    /// drifts, only neighbours in time compare.
    pub(crate) fn row<S>(
        &mut self,
        name: &str,
        operations: u64,
        open: impl Fn() -> S,
        mut run: impl FnMut(&S, u64, &Notes) -> Duration,
    ) {
        let notes = &self.notes;
        self.criterion.throughput(Throughput::Elements(operations));
        self.criterion.bench_function(name, |bencher| {
            let opened = open();
            bencher.iter_custom(|iterations| {
                let elapsed = run(&opened, iterations, notes);
                notes.note_rate(name, iterations * operations, elapsed);
                elapsed
            });
        });
    }

    /// Prints what was measured, `(row, aims)` a line, and ends the group.
    pub(crate) fn print(self, title: &str, unit: &str, rows: &[(&str, Aims<'_>)]) -> Notes {
        self.criterion.finish();
        let notes = self.notes;
        if !rows.iter().any(|(name, _)| notes.figure(name).is_some()) {
            return notes;
        }
        introduce();
        println!("\n{title:<52} {unit:>16}");
        for (name, aims) in rows {
            let Some(figure) = notes.figure(name) else { continue };
            let mut line = format!("  {name:<50} {:>16}", grouped(figure));
            for (against, aim) in *aims {
                let Some(other) = notes.figure(against) else { continue };
                let ratio = figure / other;
                line += &format!("   {ratio:.2} × {against}");
                if *aim != SHOWN {
                    line += &format!(", aim ≥ {aim} {}", met(ratio >= *aim));
                }
            }
            println!("{line}");
        }
        println!();
        notes
    }
}

impl Notes {
    /// Prints a figure, and what it should be at most.
    pub(crate) fn print(&self, name: &str, unit: &str, at_most: Option<f64>) {
        let Some(figure) = self.cost(name) else { return };
        let aim = at_most.map(|aim| format!("   aim ≤ {aim} {}", met(figure <= aim)));
        println!("  {name:<50} {figure:>16.2} {unit}{}", aim.unwrap_or_default());
    }

    /// Prints a figure, and what it should be at least.
    pub(crate) fn print_at_least(&self, name: &str, unit: &str, aim: f64) {
        let Some(figure) = self.figure(name) else { return };
        let met = met(figure >= aim);
        println!("  {name:<50} {:>16} {unit}   aim ≥ {} {met}", grouped(figure), grouped(aim));
    }

    /// Prints a cost as a ratio to another, and what that should be at most.
    pub(crate) fn print_ratio(&self, name: &str, against: &str, at_most: f64) {
        let (Some(figure), Some(other)) = (self.cost(name), self.cost(against)) else { return };
        let ratio = figure / other;
        println!("  {name}: {ratio:.2} × {against}, aim ≤ {at_most} {}", met(ratio <= at_most));
    }
}

fn met(met: bool) -> &'static str {
    match (setup::test_mode(), met) {
        (true, _) => "(not judged)",
        (false, true) => "(met)",
        (false, false) => "(NOT met)",
    }
}

fn introduce() {
    static INTRODUCED: AtomicBool = AtomicBool::new(false);
    if !INTRODUCED.swap(true, Ordering::Relaxed) {
        println!("\n{}", clock::machine());
        if setup::best() {
            println!("the best sample of each row");
        }
        if setup::test_mode() {
            println!("test mode: tiny sizes, one sample; the figures mean nothing");
        }
    }
}

/// A number with a comma before every third digit.
pub(crate) fn grouped(figure: f64) -> String {
    if figure < 1000.0 {
        return format!("{figure:.2}");
    }
    let digits = format!("{figure:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
