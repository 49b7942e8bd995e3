//! What a crash matrix found.

use std::fmt;
use std::time::Duration;

use crate::matrix::case::{Case, Left};
use crate::matrix::{REPLAY_VARIABLE, TokenError};
use crate::seed::cargo_line;

/// The smallest failure that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counterexample {
    /// The crash; [`super::CrashMatrix::replay`] takes its text.
    pub case: Case,
    /// What is wrong: what the check said, or why the database did not open.
    pub why: String,
    /// What had been acknowledged and must have been there, in `Debug` form.
    pub acknowledged: Vec<String>,
    /// What had been acknowledged and may be lost: it was not promised yet when the power went.
    pub doubtful: Vec<String>,
    /// Where and how each life of `case` ended.
    pub crashes: Vec<Crashed>,
    /// How many draws the first failure that was found had.
    pub first_draws: usize,
}

/// How one life of a counterexample ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Crashed {
    /// The step that the disk was about to do.
    pub before: String,
    /// How many operations were not durable.
    pub pending: usize,
    /// How many of them were not kept whole.
    pub lost: usize,
    /// What the program had told until then ([`super::Ack::tell`]).
    pub story: Vec<String>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.why)?;
        writeln!(f, "  acknowledged, and due: [{}]", self.acknowledged.join(", "))?;
        if !self.doubtful.is_empty() {
            let doubtful = self.doubtful.join(", ");
            writeln!(f, "  acknowledged, not yet promised, so it may be lost: [{doubtful}]")?;
        }
        for (at, (life, crashed)) in self.case.lives.iter().zip(&self.crashes).enumerate() {
            let what = if at == 0 { "the program" } else { "started again, it" };
            write!(f, "  {what} drew {:?}", life.draws)?;
            if at == 0 && self.first_draws > life.draws.len() {
                write!(f, " (the first failure had {} draws)", self.first_draws)?;
            }
            f.write_str("\n")?;
            for told in &crashed.story {
                writeln!(f, "    {told}")?;
            }
            let Crashed { before, pending, lost, .. } = crashed;
            match life.left {
                Left::Kill => writeln!(f, "    killed before {before}")?,
                Left::Power(_) if *pending == 0 => {
                    writeln!(f, "    power cut before {before}; everything was durable")?;
                }
                Left::Power(_) => writeln!(
                    f,
                    "    power cut before {before}; of {pending} operations that were not durable \
                     {lost} are missing or torn"
                )?,
            }
        }
        if let Some(draws) = &self.case.failing {
            writeln!(f, "  started again, it drew {draws:?} and failed by itself")?;
        }
        write!(f, "  replay: {}", cargo_line(REPLAY_VARIABLE, &self.case.to_string()))
    }
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MatrixError {
    /// The program failed although nothing was wrong.
    #[error("the program failed without any crash, with draws {draws:?}: {why}")]
    Program {
        /// What it had drawn.
        draws: Vec<u64>,
        /// How it ended.
        why: String,
    },
    /// The token cannot be read.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token is of another program.
    #[error("the token does not fit this program: {what}")]
    OtherProgram {
        /// What is not as the token says.
        what: String,
    },
}

/// What was tried, and what was found.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use = "a failure is only told; `expect_good` panics with it"]
pub struct MatrixReport {
    /// Where every random choice began.
    pub seed: u64,
    /// How often the program ran, with draws of its own each time.
    pub programs: u64,
    /// Moments that were crashed.
    pub moments: u64,
    /// Images that were judged.
    pub images: u64,
    /// Images with new content: those that were opened and checked.
    pub opened: u64,
    /// Images of crashes inside recovery, or of the program started again; part of `images`.
    pub nested: u64,
    /// Whether the limits of images or time left something untried.
    pub cut_short: bool,
    /// The one case that was tried instead of a search.
    pub replayed: Option<String>,
    /// The smallest failure found.
    pub failure: Option<Counterexample>,
    /// Why there is no result.
    pub error: Option<MatrixError>,
    /// How long it took.
    pub duration: Duration,
}

impl MatrixReport {
    /// Whether nothing is wrong.
    pub const fn is_good(&self) -> bool {
        self.failure.is_none() && self.error.is_none()
    }

    /// For tests: panics with all that is known if anything is wrong, or if nothing was tried;
    /// prints what was tried otherwise.
    ///
    /// # Panics
    ///
    /// If anything is wrong.
    #[track_caller]
    pub fn expect_good(&self) {
        assert!(self.is_good(), "{self}");
        assert!(self.images > 0, "nothing was tried: {self}");
        println!("{self}");
    }
}

impl fmt::Display for MatrixReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(token), None, None) = (&self.replayed, &self.failure, &self.error) {
            return write!(f, "replay of {token}: it does not fail; nothing else was tried");
        }
        let seconds = self.duration.as_secs_f64();
        write!(
            f,
            "crash matrix, seed {}: {} programs, {} crash points, {} images ({} different ones \
             opened, {} after crashes inside recovery), {:.0}/s, {seconds:.1} s{}",
            self.seed,
            self.programs,
            self.moments,
            self.images,
            self.opened,
            self.nested,
            self.images as f64 / seconds.max(1e-9),
            if self.cut_short { ", stopped at its limit" } else { "" }
        )?;
        if let Some(error) = &self.error {
            write!(f, "\n{error}")?;
        }
        match &self.failure {
            Some(failure) => write!(f, "\nFAILED: {failure}"),
            None => Ok(()),
        }
    }
}
