//! What a campaign did and found.

use std::fmt;
use std::time::Duration;

use steadfast_engine::DurabilityMode;

use crate::campaign::{CellToken, Steps, mode_name};
use crate::durations::Durations;

/// A technique in a durability mode, and what came of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Cell {
    /// The technique.
    pub technique: &'static str,
    /// What it does.
    pub what: &'static str,
    /// The durability mode; `None` if it goes through all or none of them.
    pub mode: Option<DurabilityMode>,
    /// Whether another seed does something else.
    pub by_seed: bool,
    /// How often it was run, each time with another seed.
    pub parts: u64,
    /// Whether the time was over before all of it was tried, each time.
    pub cut_short: bool,
    /// Images, damaged files and schedules that were judged.
    pub images: u64,
    /// Processes that were really killed.
    pub kills: u64,
    /// The first failure. It is not tried again after that.
    pub failure: Option<FailedCell>,
}

impl Cell {
    pub(super) const fn new(
        technique: &'static str,
        what: &'static str,
        mode: Option<DurabilityMode>,
        by_seed: bool,
    ) -> Self {
        Self {
            technique,
            what,
            mode,
            by_seed,
            parts: 0,
            cut_short: false,
            images: 0,
            kills: 0,
            failure: None,
        }
    }

    /// What came of it, in a word or a few.
    pub const fn result(&self) -> &'static str {
        match (&self.failure, self.parts, self.cut_short) {
            (Some(_), ..) => "FAILED",
            (None, 0, _) => "not tried",
            (None, _, true) => "passed as far as it came",
            (None, _, false) => "passed",
        }
    }
}

/// What must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedCell {
    /// What was found.
    pub why: String,
    /// What repeats it.
    pub token: CellToken,
}

/// What a campaign did and found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CampaignReport {
    /// Where every random choice began.
    pub seed: u64,
    /// Every technique in every mode.
    pub cells: Vec<Cell>,
    /// How often all techniques were gone through to the end.
    pub rounds: u64,
    /// How long opening what a crash left took.
    pub openings: Durations,
    /// How many crash points came before which step, on which kind of file.
    pub steps: Steps,
    /// How long it took.
    pub duration: Duration,
}

impl CampaignReport {
    /// Images, damaged files and schedules that were judged.
    pub fn images(&self) -> u64 {
        self.cells.iter().map(|cell| cell.images).sum()
    }

    /// Processes that were really killed.
    pub fn kills(&self) -> u64 {
        self.cells.iter().map(|cell| cell.kills).sum()
    }

    /// What failed.
    pub fn failures(&self) -> impl Iterator<Item = &FailedCell> {
        self.cells.iter().filter_map(|cell| cell.failure.as_ref())
    }

    /// Whether nothing failed.
    pub fn is_good(&self) -> bool {
        self.failures().next().is_none()
    }

    /// Cells that were not begun.
    pub fn untried(&self) -> usize {
        self.cells.iter().filter(|cell| cell.parts == 0).count()
    }

    /// `N images, K kills, F failures, seed S`.
    pub fn summary(&self) -> String {
        let counted =
            |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        format!(
            "{}, {}, {}, seed {}",
            counted(self.images(), "image"),
            counted(self.kills(), "kill"),
            counted(self.failures().count() as u64, "failure"),
            self.seed
        )
    }

    /// One page of HTML that needs nothing else.
    pub fn to_html(&self) -> String {
        super::html::page(self)
    }
}

/// A table of the cells, the failures, and the summary as the last line.
impl fmt::Display for CampaignReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.cells.iter().map(|cell| cell.technique.len()).max().unwrap_or(0);
        for cell in &self.cells {
            let count = match cell.kills {
                0 => format!("{:>8} images", cell.images),
                kills => format!("{kills:>8} kills "),
            };
            let result = cell.result();
            let mode = mode_name(cell.mode);
            writeln!(f, "{:width$}  {mode:8}  {count}  {result}", cell.technique)?;
        }
        writeln!(f, "opening what was left: {}", self.openings)?;
        for failure in self.failures() {
            writeln!(f, "\nFAILED {}: {}", failure.token, failure.why)?;
            writeln!(f, "again: steadfast crash-test --replay {}", failure.token)?;
        }
        f.write_str(&self.summary())
    }
}
