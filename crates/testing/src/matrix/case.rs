//! One crash of one program, and the crashes of the recoveries from it, as one word: the token
//! that a failure prints and that runs it again.

use std::fmt;
use std::str::FromStr;

use crate::sim::{Moment, Plan, PlanError, SimDisk};

/// What a crash leaves of what was not durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// The process ended: all of it, until the power goes.
    Kill,
    /// The power went: what the plan says.
    Power(Plan),
}

impl Left {
    /// The disk afterwards.
    pub(crate) fn image(&self, moment: &Moment) -> SimDisk {
        match self {
            Self::Kill => moment.kill(),
            Self::Power(plan) => moment.cut(plan),
        }
    }
}

/// One life of a program: from opening its database to the crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// What it drew; whatever it draws beyond them is 0.
    pub draws: Vec<u64>,
    /// How many steps its disk had done when it crashed.
    pub steps: u64,
    /// What was left.
    pub left: Left,
}

/// The lives of a program, each begun on what the one before left. Not empty.
///
/// Written as `draws@steps` and `k` (killed) or `p` and the plan of the power cut, the lives
/// parted by `/`: `3.0.12@57p[+2-]/@9k` drew 3, 0 and 12, lost its power after 57 steps with one
/// of three pending operations, and was killed 9 steps into its recovery. A last life that did
/// not crash but failed by itself has only its draws, and `!`: `3.0.12@57k/1!`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Each begun on what the one before left.
    pub lives: Vec<Life>,
    /// What the program drew when it was started again after the last crash, if that is what
    /// failed.
    pub failing: Option<Vec<u64>>,
}

/// Numbers with points in between.
struct Dotted<'a>(&'a [u64]);

impl fmt::Display for Dotted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, draw) in self.0.iter().enumerate() {
            write!(f, "{}{draw}", if index == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", Dotted(&self.draws), self.steps)?;
        match &self.left {
            Left::Kill => f.write_str("k"),
            Left::Power(plan) => write!(f, "p{plan}"),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, life) in self.lives.iter().enumerate() {
            write!(f, "{}{life}", if index == 0 { "" } else { "/" })?;
        }
        self.failing.as_ref().map_or(Ok(()), |draws| write!(f, "/{}!", Dotted(draws)))
    }
}

/// Why a token cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// A part is not there.
    #[error("life {life} of the token has no {what}")]
    Missing {
        /// Counts from 1.
        life: usize,
        /// What was looked for.
        what: &'static str,
    },
    /// A number is not one.
    #[error("life {life} of the token: {text:?} is not a number")]
    Number {
        /// Counts from 1.
        life: usize,
        /// What stands there.
        text: String,
    },
    /// A plan is not one.
    #[error("life {life} of the token: {error}")]
    Plan {
        /// Counts from 1.
        life: usize,
        /// What is wrong with it.
        error: PlanError,
    },
}

impl FromStr for Case {
    type Err = TokenError;

    fn from_str(token: &str) -> Result<Self, TokenError> {
        let token = token.trim();
        let (token, failing) = match token.strip_suffix('!').and_then(|rest| rest.rsplit_once('/'))
        {
            Some((lives, draws)) => {
                let life = lives.split('/').count() + 1;
                (lives, Some(parse_draws(draws, life)?))
            }
            None => (token, None),
        };
        let lives = token.split('/').enumerate().map(|(at, text)| parse_life(text, at + 1));
        Ok(Self { lives: lives.collect::<Result<_, _>>()?, failing })
    }
}

fn parse_number(text: &str, life: usize) -> Result<u64, TokenError> {
    text.parse().map_err(|_| TokenError::Number { life, text: text.to_owned() })
}

fn parse_draws(text: &str, life: usize) -> Result<Vec<u64>, TokenError> {
    match text {
        "" => Ok(Vec::new()),
        draws => draws.split('.').map(|draw| parse_number(draw, life)).collect(),
    }
}

fn parse_life(text: &str, life: usize) -> Result<Life, TokenError> {
    let (draws, crash) = text.split_once('@').ok_or(TokenError::Missing { life, what: "'@'" })?;
    let draws = parse_draws(draws, life)?;
    let digits = crash.bytes().take_while(u8::is_ascii_digit).count();
    let (steps, left) = crash.split_at(digits);
    let steps = parse_number(steps, life)?;
    let left = match left.split_at_checked(1) {
        Some(("k", "")) => Left::Kill,
        Some(("p", plan)) => {
            Left::Power(plan.parse().map_err(|error| TokenError::Plan { life, error })?)
        }
        _ => return Err(TokenError::Missing { life, what: "'k' or 'p' behind its steps" }),
    };
    Ok(Life { draws, steps, left })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Choice;

    #[test]
    fn a_token_reads_as_it_was_written() {
        let plan = Plan(vec![Choice::Keep, Choice::Drop, Choice::Drop, Choice::Garbage(3)]);
        let power = |steps, plan| Life { draws: vec![], steps, left: Left::Power(plan) };
        let killed = Life { draws: vec![3, 0, u64::MAX], steps: 57, left: Left::Kill };
        for (lives, failing) in [
            (vec![killed.clone()], None),
            (vec![killed.clone()], Some(vec![])),
            (vec![power(0, Plan(vec![]))], Some(vec![1, 0, 3])),
            (vec![killed, power(9, plan.clone()), power(1, plan)], None),
        ] {
            let case = Case { lives, failing };
            let token = case.to_string();
            assert_eq!(token.parse(), Ok(case), "{token}");
            assert!(!token.contains('\''), "quotes keep {token} whole in a shell");
        }
    }

    #[test]
    fn a_token_that_is_none_says_what_is_wrong() {
        for (token, says) in [
            ("", "life 1 of the token has no '@'"),
            ("1.2", "life 1 of the token has no '@'"),
            ("1.x@3k", "life 1 of the token: \"x\" is not a number"),
            ("@k", "life 1 of the token: \"\" is not a number"),
            ("@3", "life 1 of the token has no 'k' or 'p' behind its steps"),
            ("@3kk", "life 1 of the token has no 'k' or 'p' behind its steps"),
            ("@3k/x!", "life 2 of the token: \"x\" is not a number"),
            ("3!", "life 1 of the token has no '@'"),
            (
                "@3k/@99999999999999999999k",
                "life 2 of the token: \"99999999999999999999\" is not a number",
            ),
        ] {
            assert_eq!(token.parse::<Case>().unwrap_err().to_string(), says, "{token}");
        }
        assert!(matches!("@3p[+?]".parse::<Case>(), Err(TokenError::Plan { life: 1, .. })));
    }
}
