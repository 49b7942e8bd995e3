//! Repetitions of measurements, and the tables made of them.

use std::time::Instant;

use crate::Plan;
use crate::process::Figures;

/// What a table says about a contender: a figure's name, the heading, and how to show it.
pub(crate) struct Column {
    pub(crate) figure: &'static str,
    pub(crate) heading: &'static str,
    /// Shown divided by this.
    pub(crate) unit: f64,
}

/// A table: its first column decides, higher is better.
pub(crate) struct Table<'a> {
    pub(crate) title: &'a str,
    pub(crate) columns: &'a [Column],
    /// `(contender, ratio)`: Steadfast should have at least that many times its rate.
    pub(crate) aims: &'a [(&'a str, f64)],
}

/// All repetitions of all contenders of a workload.
pub(crate) struct Measured(Vec<(String, Vec<Figures>)>);

/// Measures each contender once a repetition, in turn, each time in a process of its own.
pub(crate) fn measure(
    plan: &Plan,
    contenders: &[&str],
    mut task: impl FnMut(&str) -> Figures,
) -> Measured {
    let mut measured: Vec<_> = contenders
        .iter()
        .filter(|name| plan.wants(name))
        .map(|name| (name.to_string(), Vec::new()))
        .collect();
    for repetition in 0..plan.repetitions {
        for (name, figures) in &mut measured {
            eprint!("\r\x1b[K{name}: repetition {}", repetition + 1);
            let noise = Noise::start();
            let mut found = task(name);
            found.insert("others".to_owned(), noise.cores());
            figures.push(found);
        }
    }
    eprint!("\r\x1b[K");
    Measured(measured)
}

impl Measured {
    fn median(&self, contender: &str, figure: &str) -> Option<f64> {
        let (_, all) = self.0.iter().find(|(name, _)| name == contender)?;
        let mut figures: Vec<f64> = all.iter().filter_map(|f| f.get(figure).copied()).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied()
    }

    /// (max - min) / median of a figure.
    fn spread(&self, contender: &str, figure: &str) -> f64 {
        let Some((_, all)) = self.0.iter().find(|(name, _)| name == contender) else { return 0.0 };
        let figures = || all.iter().filter_map(|f| f.get(figure).copied());
        let (min, max) = (figures().fold(f64::MAX, f64::min), figures().fold(0.0, f64::max));
        (max - min) / self.median(contender, figure).unwrap_or(1.0)
    }

    pub(crate) fn print(&self, table: &Table<'_>) {
        let deciding = table.columns[0].figure;
        let shown: Vec<&String> = self.0.iter().map(|(name, _)| name).collect();
        if !shown.iter().any(|name| self.median(name, deciding).is_some()) {
            return;
        }
        print!("\n{:<38}", table.title);
        for column in table.columns {
            print!(" {:>14}", column.heading);
        }
        println!(" {:>8} {:>8} {:>14}", "others", "spread", "steadfast is");
        let ours = self.median("steadfast", deciding);
        for name in shown {
            let Some(rate) = self.median(name, deciding) else { continue };
            print!("{name:<38}");
            for column in table.columns {
                let figure = self.median(name, column.figure);
                print!(" {:>14}", figure.map_or("-".to_owned(), |f| grouped(f / column.unit)));
            }
            let others = self.median(name, "others").unwrap_or_default();
            let ratio = ours.map_or(String::new(), |ours| format!("{:.2} ×", ours / rate));
            let spread = 100.0 * self.spread(name, deciding);
            println!(" {others:>8.2} {spread:>7.0}% {ratio:>14}");
        }
        for (against, aim) in table.aims {
            let other = self.median(against, deciding);
            let Some(ratio) = ours.zip(other).map(|(ours, other)| ours / other) else { continue };
            let verdict = if ratio >= *aim { "met" } else { "NOT met" };
            println!("  aim: ≥ {aim} × {against}; {ratio:.2} ×: {verdict}");
        }
    }
}

/// A number with a comma before every third digit.
fn grouped(figure: f64) -> String {
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

/// How many cores others kept busy while we measured. Above a few tenths a row means little.
struct Noise {
    start: Instant,
    busy: f64,
    ours: f64,
}

impl Noise {
    fn start() -> Self {
        Self { start: Instant::now(), busy: busy_ticks(), ours: our_ticks() }
    }

    fn cores(&self) -> f64 {
        const TICKS_A_SECOND: f64 = 100.0;
        let others = (busy_ticks() - self.busy) - (our_ticks() - self.ours);
        (others / TICKS_A_SECOND / self.start.elapsed().as_secs_f64()).max(0.0)
    }
}

fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Time all cores were busy: user, nice, system, interrupts.
fn busy_ticks() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").expect("Linux");
    let times = numbers(stat.lines().next().expect("Linux"));
    times[0] + times[1] + times[2] + times[5] + times[6]
}

/// Time this process and its ended children took.
fn our_ticks() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit_once(')').expect("Linux").1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    (11..15).filter_map(|at| fields[at].parse::<f64>().ok()).sum()
}
