//! A campaign: every technique, again and again with other seeds, until the time is over; and
//! what came of it, for a person and for a machine.
//!
//! It works on the simulated disk and, given a worker program, by real kills. Each cell of its
//! table is a technique and a durability mode. A cell that fails is not tried again: its first
//! failure is kept, made as small as it gets, with the token that repeats it.

mod html;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use steadfast_engine::DurabilityMode;

use crate::durations::Durations;
use crate::process_kill::{ProcessCrashConfig, ProcessCrashTester};
use crate::sim::StepKind;
use crate::techniques::{self, Trial};
use crate::workload::{BATCHED, MODES, SEGMENT_BYTES};

pub use report::{CampaignReport, Cell, FailedCell};

/// The name of real kills among the techniques.
pub const REAL_KILLS: &str = "real kills";

/// What real kills do.
const REAL_KILLS_WHAT: &str =
    "a process that commits is killed at random; all that it acknowledged must be there";

/// Kills in one go.
const KILLS: u64 = 3;

/// The program that is really killed: [`crate::worker::main`] behind some arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KilledProgram {
    /// Where it is.
    pub path: PathBuf,
    /// What it is told before the worker's own arguments.
    pub arguments: Vec<String>,
}

/// What is tried, and for how long.
#[derive(Debug, Clone)]
pub struct Campaign {
    seed: u64,
    time: Duration,
    names: Vec<String>,
    killed: Option<KilledProgram>,
}

/// A technique or a token that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CampaignError {
    /// There is no such technique.
    #[error("there is no technique {name:?}; there are: {}", names().join(", "))]
    NoTechnique {
        /// What was asked for.
        name: String,
    },
    /// Real kills need a program to kill.
    #[error("real kills need a program to kill")]
    NothingToKill,
    /// A token is not one.
    #[error("{token:?} is no token of a campaign: TECHNIQUE.MODE.SEED was expected")]
    NoToken {
        /// What was given.
        token: String,
    },
}

/// Which cell, with which seed: written `power-cuts.strict.7`, and enough to repeat it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellToken {
    /// The name of the technique.
    pub technique: String,
    /// The durability mode; `None` for all.
    pub mode: Option<DurabilityMode>,
    /// Where its random choices begin.
    pub seed: u64,
}

impl std::fmt::Display for CellToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let technique = self.technique.replace(' ', "-");
        write!(f, "{technique}.{}.{}", mode_name(self.mode), self.seed)
    }
}

impl FromStr for CellToken {
    type Err = CampaignError;

    fn from_str(token: &str) -> Result<Self, CampaignError> {
        let wrong = || CampaignError::NoToken { token: token.to_owned() };
        let mut words = token.trim().split('.');
        let mut word = || words.next().ok_or_else(wrong);
        let (technique, mode, seed) = (word()?.replace('-', " "), word()?, word()?);
        let mode = match mode {
            "any" => None,
            name => Some(
                MODES.into_iter().find(|mode| mode_name(Some(*mode)) == name).ok_or_else(wrong)?,
            ),
        };
        let seed = seed.parse().map_err(|_| wrong())?;
        if words.next().is_some() {
            return Err(wrong());
        }
        Ok(Self { technique, mode, seed })
    }
}

/// The name of a durability mode; "any" for all of them.
pub const fn mode_name(mode: Option<DurabilityMode>) -> &'static str {
    match mode {
        None => "any",
        Some(DurabilityMode::Strict) => "strict",
        Some(DurabilityMode::Batched { .. }) => "batched",
        Some(_) => "buffered",
    }
}

/// The names of all techniques.
pub fn names() -> Vec<&'static str> {
    techniques::ALL.iter().map(|technique| technique.name).chain([REAL_KILLS]).collect()
}

impl Campaign {
    /// All techniques on the simulated disk, for a minute. Every random choice comes from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { seed, time: Duration::from_secs(60), names: Vec::new(), killed: None }
    }

    /// For so long. What has begun is brought to an end, which may take some seconds more.
    #[must_use]
    pub const fn time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// Only these techniques.
    ///
    /// # Errors
    ///
    /// [`CampaignError::NoTechnique`].
    pub fn only<S: AsRef<str>>(mut self, wanted: &[S]) -> Result<Self, CampaignError> {
        for name in wanted {
            let name = name.as_ref().replace('-', " ");
            if !names().contains(&name.as_str()) {
                return Err(CampaignError::NoTechnique { name });
            }
            self.names.push(name);
        }
        Ok(self)
    }

    /// With real kills of this program.
    #[must_use]
    pub fn killing(mut self, program: KilledProgram) -> Self {
        self.killed = Some(program);
        self
    }

    /// Runs until the time is over, each technique once at least as far as its share of the time
    /// allows. `progress` is told after each part.
    pub fn run(&self, mut progress: impl FnMut(&CampaignReport)) -> CampaignReport {
        let started = Instant::now();
        let deadline = started + self.time;
        let mut report = self.empty();
        'rounds: for round in 0.. {
            let more = |cell: &Cell| round == 0 || cell.by_seed || cell.cut_short;
            let due = |cell: &Cell| cell.failure.is_none() && more(cell);
            let mut left = report.cells.iter().filter(|cell| due(cell)).count();
            if left == 0 {
                break;
            }
            for at in 0..report.cells.len() {
                if !due(&report.cells[at]) {
                    continue;
                }
                let now = Instant::now();
                if now >= deadline {
                    break 'rounds;
                }
                let until = now + (deadline - now) / u32::try_from(left).unwrap_or(u32::MAX);
                left -= 1;
                self.part(&mut report, at, self.seed.wrapping_add(round), until);
                report.duration = started.elapsed();
                progress(&report);
            }
            report.rounds = round + 1;
        }
        report.duration = started.elapsed();
        report
    }

    /// Runs one cell once, as a token says.
    ///
    /// # Errors
    ///
    /// [`CampaignError`], if there is no such technique, or nothing to kill.
    pub fn replay(&self, token: &CellToken) -> Result<CampaignReport, CampaignError> {
        let name = &token.technique;
        let only = Self { names: Vec::new(), seed: token.seed, ..self.clone() }.only(&[name])?;
        let mut report = only.empty();
        report.cells.retain(|cell| cell.mode == token.mode);
        if report.cells.is_empty() {
            return Err(match name == REAL_KILLS {
                true => CampaignError::NothingToKill,
                false => CampaignError::NoToken { token: token.to_string() },
            });
        }
        let started = Instant::now();
        only.part(&mut report, 0, token.seed, started + self.time);
        (report.duration, report.rounds) = (started.elapsed(), 1);
        Ok(report)
    }

    fn empty(&self) -> CampaignReport {
        let wanted =
            |name: &str| self.names.is_empty() || self.names.iter().any(|wanted| wanted == name);
        let mut cells = Vec::new();
        for technique in techniques::ALL.iter().filter(|technique| wanted(technique.name)) {
            let modes = match technique.by_mode {
                true => MODES.map(Some).to_vec(),
                false => vec![None],
            };
            for mode in modes {
                cells.push(Cell::new(technique.name, technique.what, mode, technique.by_seed));
            }
        }
        if self.killed.is_some() && wanted(REAL_KILLS) {
            let cell = |mode| Cell::new(REAL_KILLS, REAL_KILLS_WHAT, Some(mode), true);
            cells.extend(MODES.map(cell));
        }
        CampaignReport {
            seed: self.seed,
            cells,
            rounds: 0,
            openings: Durations::default(),
            steps: BTreeMap::new(),
            duration: Duration::ZERO,
        }
    }

    /// One cell, once.
    fn part(&self, report: &mut CampaignReport, at: usize, seed: u64, until: Instant) {
        let (name, mode) = (report.cells[at].technique, report.cells[at].mode);
        let technique = techniques::ALL.iter().find(|technique| technique.name == name);
        let mut cut_short = false;
        let (images, kills, verdict) = match technique {
            Some(technique) => {
                let mut trial = Trial::new(seed);
                trial.modes = mode.map_or_else(|| MODES.to_vec(), |mode| vec![mode]);
                trial.until = Some(until);
                trial.shortens = true;
                let verdict = technique.look_in(&mut trial);
                cut_short = trial.cut_short;
                report.openings.add_all(&trial.openings);
                for (step, count) in trial.steps {
                    *report.steps.entry(step).or_default() += count;
                }
                (trial.images, 0, verdict)
            }
            None => {
                let mode = mode.unwrap_or(BATCHED);
                let (kills, verdict) = self.kill(mode, seed, &mut report.openings);
                (0, kills, verdict)
            }
        };
        let cell = &mut report.cells[at];
        cell.parts += 1;
        // Once through to the end is enough.
        cell.cut_short = cut_short && (cell.cut_short || cell.parts == 1);
        cell.images += images;
        cell.kills += kills;
        if let Err(why) = verdict {
            let token = CellToken { technique: name.to_owned(), mode, seed };
            cell.failure = Some(FailedCell { why, token });
        }
    }

    /// Kills a process on a database of its own. Returns how often.
    fn kill(
        &self,
        mode: DurabilityMode,
        seed: u64,
        openings: &mut Durations,
    ) -> (u64, Result<(), String>) {
        let Some(program) = &self.killed else { return (0, Ok(())) };
        let run = || {
            let dir = tempfile::tempdir()?;
            let config = ProcessCrashConfig {
                min_runtime_ms: 2,
                max_runtime_ms: 120,
                iterations: KILLS,
                mode,
                segment_bytes: Some(SEGMENT_BYTES),
                seed,
                ..ProcessCrashConfig::default()
            };
            let arguments: Vec<&str> = program.arguments.iter().map(String::as_str).collect();
            ProcessCrashTester::new(&program.path, dir.path().join("db"), config)
                .with_first_arguments(&arguments)
                .run()
        };
        match run() {
            Err(error) => (0, Err(format!("it could not be tried: {error}"))),
            Ok(results) => {
                results.results.iter().for_each(|result| openings.add(result.opening));
                let good = results.all_passed();
                (results.iterations, if good { Ok(()) } else { Err(results.to_string()) })
            }
        }
    }
}

/// How many crash points came before which step, on which kind of file.
pub type Steps = BTreeMap<(StepKind, &'static str), u64>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_as_it_was_written() {
        for (name, mode, seed, token) in [
            ("power cuts", Some(DurabilityMode::Strict), 7, "power-cuts.strict.7"),
            ("real kills", Some(BATCHED), 0, "real-kills.batched.0"),
            ("isolation", None, u64::MAX, "isolation.any.18446744073709551615"),
        ] {
            let cell = CellToken { technique: name.into(), mode, seed };
            assert_eq!((cell.to_string(), token.parse()), (token.to_owned(), Ok(cell)));
        }
        for token in ["", "a.b", "a.strict.x", "a.strict.1.2", "a.fast.1"] {
            assert!(matches!(token.parse::<CellToken>(), Err(CampaignError::NoToken { .. })));
        }
    }

    #[test]
    fn a_technique_that_is_not_there_is_named_with_those_that_are() {
        let error = Campaign::new(1).only(&["power-cuts", "voodoo"]).unwrap_err().to_string();
        assert!(error.contains("\"voodoo\"") && error.contains("power cuts"), "{error}");
        let token = "voodoo.any.1".parse().unwrap();
        assert!(Campaign::new(1).replay(&token).is_err());
        let token = "real-kills.strict.1".parse().unwrap();
        let error = Campaign::new(1).replay(&token).unwrap_err();
        assert_eq!(error, CampaignError::NothingToKill);
        let token = "isolation.strict.1".parse().unwrap();
        assert!(matches!(Campaign::new(1).replay(&token), Err(CampaignError::NoToken { .. })));
    }

    #[test]
    fn stops_when_the_time_is_over_and_tells_what_it_did() {
        let mut told = 0;
        let campaign = Campaign::new(3).time(Duration::from_millis(1500));
        let campaign = campaign.only(&["random-programs", "isolation"]).unwrap();
        let report = campaign.run(|report| {
            told += 1;
            assert!(report.images() > 0);
        });
        assert!(report.is_good(), "{report}");
        assert_eq!(report.cells.len(), 4, "{report}");
        assert!(report.duration < Duration::from_secs(60), "{report}");
        assert_eq!(told, report.cells.iter().map(|cell| cell.parts).sum::<u64>());
        assert!(report.openings.count() > 0 && !report.steps.is_empty(), "{report}");
        let html = report.to_html();
        assert!(html.contains("random programs") && html.contains("passed"));
        assert!(!html.contains("http"), "it stands by itself");
    }

    #[test]
    fn a_failure_keeps_its_cell_and_its_token() {
        let mut report = Campaign::new(3).only(&["kills"]).unwrap().empty();
        report.cells[1].failure = Some(FailedCell {
            why: "lost <everything>".into(),
            token: "kills.batched.3".parse().unwrap(),
        });
        assert!(!report.is_good());
        let text = report.to_string();
        assert!(text.contains("steadfast crash-test --replay kills.batched.3"), "{text}");
        assert!(text.ends_with("0 images, 0 kills, 1 failure, seed 3"), "{text}");
        let html = report.to_html();
        assert!(html.contains("lost &lt;everything&gt;"), "what it saw is no markup");
    }
}
