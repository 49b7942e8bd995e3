//! [`Plan`]: which crash image, as a list of choices that can be printed, read back and made
//! simpler.
//!
//! It knows nothing of a disk: the same plan means something at every [`super::Moment`].

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// What became of one operation that was not durable. Sectors count from 0 at the first that
/// a write touches; for anything but a write, all but `Drop` is `Keep`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Choice {
    /// It is there.
    Keep,
    /// It is not.
    Drop,
    /// Only the first so many sectors of it.
    First(u64),
    /// All but the first so many sectors of it.
    AllBut(u64),
    /// All but this one sector.
    Without(u64),
    /// All of it, but this one sector is garbage.
    Garbage(u64),
}

/// One crash image: its choices, in the order of the operations.
///
/// Choices that are missing at the end keep, and choices for operations that are not there
/// change nothing, so that every plan means something at every moment.
///
/// It is printed as `[+12-(<3)+]`: twelve kept, one dropped, one torn after three sectors, one
/// kept. [`FromStr`] reads that.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Plan(pub Vec<Choice>);

/// Text that is not a [`Plan`] or a [`Choice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a plan: at byte {at} {kind}")]
pub struct PlanError {
    /// How many bytes of the text are fine.
    pub at: usize,
    /// What is wrong there.
    pub kind: PlanErrorKind,
}

/// What is wrong with the text of a [`Plan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanErrorKind {
    /// A plan is in brackets.
    #[error("'[' is missing")]
    NoBeginning,
    /// A plan is in brackets.
    #[error("it ends without ']'")]
    NoEnd,
    /// Something comes after the end.
    #[error("something follows its end")]
    AfterEnd,
    /// Not one of the six choices.
    #[error("stands no choice: + - (<n) (>=n) (!n) (?n)")]
    NoChoice,
    /// A choice in parentheses names a sector.
    #[error("a number is missing")]
    NoNumber,
    /// A number, or the number of choices, is above what a plan may have.
    #[error("a number is too large")]
    TooLarge,
    /// No choice is made no times.
    #[error("a choice is repeated no times")]
    NoTimes,
}

impl Plan {
    /// The most choices that a text may ask for.
    pub const CHOICES_MAX: usize = 1 << 20;

    /// The choice for the operation at `index`.
    pub fn choice(&self, index: usize) -> Choice {
        self.0.get(index).copied().unwrap_or(Choice::Keep)
    }

    /// Simpler plans of the same length, the boldest first: everything kept, everything
    /// dropped, ever smaller parts of it kept or dropped, runs of equal choices, and milder tears.
    ///
    /// Always the same ones in the same order. Each is simpler by one measure, so that going on
    /// from a simpler plan to a simpler one comes to an end.
    pub fn simpler(&self) -> impl Iterator<Item = Self> + use<> {
        let (plan, weight, n) = (self.clone(), self.weight(), self.0.len());
        let halves = std::iter::successors(Some(n), |size| (*size > 1).then(|| size.div_ceil(2)));
        let mut runs = Vec::new();
        for run in self.0.chunk_by(|a, b| a == b) {
            let from = runs.last().map_or(0, |last: &std::ops::Range<usize>| last.end);
            runs.push(from..from + run.len());
        }
        let parts = halves
            .flat_map(move |size| (0..n).step_by(size.max(1)).map(move |at| at..(at + size).min(n)))
            .chain(runs)
            .flat_map(|part| [(part.clone(), Choice::Keep), (part, Choice::Drop)]);
        let tears: Vec<_> = (self.0.iter().enumerate())
            .flat_map(|(at, choice)| {
                choice.milder().into_iter().map(move |milder| (at..at + 1, milder))
            })
            .collect();
        parts
            .chain(tears)
            .map(move |(part, choice)| {
                let mut plan = plan.clone();
                plan.0[part].fill(choice);
                plan
            })
            .filter(move |plan| plan.weight() < weight)
    }

    /// What is simpler weighs less: fewer torn, fewer changes between kept and dropped, fewer
    /// dropped, milder tears.
    fn weight(&self) -> (usize, usize, usize, u64, u128) {
        let count = |wanted: fn(&Choice) -> bool| self.0.iter().filter(|one| wanted(one)).count();
        let changes = self.0.windows(2).filter(|pair| pair[0] != pair[1]).count();
        let (kinds, sizes) = self.0.iter().fold((0, 0), |(kinds, sizes), choice| {
            let (kind, size) = choice.tear();
            (kinds + kind, sizes + u128::from(size))
        });
        let torn = count(|choice| !matches!(choice, Choice::Keep | Choice::Drop));
        (torn, changes, count(|choice| *choice == Choice::Drop), kinds, sizes)
    }
}

impl Choice {
    /// How bad a tear is: its kind, and how far from whole it is.
    const fn tear(self) -> (u64, u64) {
        match self {
            Self::Keep | Self::Drop => (0, 0),
            Self::First(n) => (1, u64::MAX - n),
            Self::AllBut(n) => (1, n),
            Self::Without(n) => (2, n),
            Self::Garbage(n) => (3, n),
        }
    }

    /// Tears that are milder than this one, and still tears.
    fn milder(self) -> Vec<Self> {
        match self {
            Self::Keep | Self::Drop => Vec::new(),
            Self::First(n) => {
                vec![Self::First(n.saturating_mul(2)), Self::First(n.saturating_add(1))]
            }
            Self::AllBut(n) => vec![Self::AllBut(n / 2), Self::AllBut(n.saturating_sub(1))],
            Self::Without(n) => {
                vec![Self::First(n), Self::Without(0), Self::Without(n.saturating_sub(1))]
            }
            Self::Garbage(n) => {
                vec![Self::Without(n), Self::Garbage(0), Self::Garbage(n.saturating_sub(1))]
            }
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("+"),
            Self::Drop => f.write_str("-"),
            Self::First(n) => write!(f, "(<{n})"),
            Self::AllBut(n) => write!(f, "(>={n})"),
            Self::Without(n) => write!(f, "(!{n})"),
            Self::Garbage(n) => write!(f, "(?{n})"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for run in self.0.chunk_by(|a, b| a == b) {
            write!(f, "{}", run[0])?;
            if run.len() > 1 {
                write!(f, "{}", run.len())?;
            }
        }
        f.write_str("]")
    }
}

impl FromStr for Choice {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut cursor = Cursor { text, at: 0 };
        let choice = cursor.choice()?;
        cursor.end()?;
        Ok(choice)
    }
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut cursor = Cursor { text, at: 0 };
        if !cursor.takes("[") {
            return Err(cursor.error(PlanErrorKind::NoBeginning));
        }
        let mut choices = Vec::new();
        while !cursor.takes("]") {
            if cursor.rest().is_empty() {
                return Err(cursor.error(PlanErrorKind::NoEnd));
            }
            let choice = cursor.choice()?;
            let before = cursor.at;
            let wrong = |kind| PlanError { at: before, kind };
            let times = match cursor.number()? {
                None => 1,
                Some(0) => return Err(wrong(PlanErrorKind::NoTimes)),
                Some(n) => usize::try_from(n).unwrap_or(usize::MAX),
            };
            // Before anything is allocated for it.
            if times > Self::CHOICES_MAX - choices.len() {
                return Err(wrong(PlanErrorKind::TooLarge));
            }
            choices.resize(choices.len() + times, choice);
        }
        cursor.end()?;
        Ok(Self(choices))
    }
}

/// Text, and how much of it was read.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl Cursor<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    const fn error(&self, kind: PlanErrorKind) -> PlanError {
        PlanError { at: self.at, kind }
    }

    fn takes(&mut self, token: &str) -> bool {
        let there = self.rest().starts_with(token);
        if there {
            self.at += token.len();
        }
        there
    }

    /// Digits, if there are any.
    fn number(&mut self) -> Result<Option<u64>, PlanError> {
        let len = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        if len == 0 {
            return Ok(None);
        }
        let number = self.rest()[..len].parse();
        let number = number.map_err(|_| self.error(PlanErrorKind::TooLarge))?;
        self.at += len;
        Ok(Some(number))
    }

    fn choice(&mut self) -> Result<Choice, PlanError> {
        if self.takes("+") {
            return Ok(Choice::Keep);
        }
        if self.takes("-") {
            return Ok(Choice::Drop);
        }
        type Torn = fn(u64) -> Choice;
        let torn = [
            ("(<", Choice::First as Torn),
            ("(>=", Choice::AllBut),
            ("(!", Choice::Without),
            ("(?", Choice::Garbage),
        ];
        for (token, choice) in torn {
            if self.takes(token) {
                let number = self.number()?;
                let number = number.ok_or_else(|| self.error(PlanErrorKind::NoNumber))?;
                if !self.takes(")") {
                    return Err(self.error(PlanErrorKind::NoChoice));
                }
                return Ok(choice(number));
            }
        }
        Err(self.error(PlanErrorKind::NoChoice))
    }

    fn end(&self) -> Result<(), PlanError> {
        if self.rest().is_empty() { Ok(()) } else { Err(self.error(PlanErrorKind::AfterEnd)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn choice() -> impl Strategy<Value = Choice> {
        prop_oneof![
            4 => Just(Choice::Keep),
            4 => Just(Choice::Drop),
            1 => any::<u64>().prop_map(Choice::First),
            1 => (0..40u64).prop_map(Choice::AllBut),
            1 => (0..40u64).prop_map(Choice::Without),
            1 => (0..3u64).prop_map(Choice::Garbage),
        ]
    }

    fn plan() -> impl Strategy<Value = Plan> {
        let run = (choice(), 1..30usize).prop_map(|(choice, times)| vec![choice; times]);
        proptest::collection::vec(run, 0..12).prop_map(|runs| Plan(runs.concat()))
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(plan in plan()) {
            prop_assert_eq!(plan.to_string().parse::<Plan>(), Ok(plan.clone()));
            for choice in &plan.0 {
                prop_assert_eq!(choice.to_string().parse::<Choice>(), Ok(*choice));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,20}", plan in plan(), cut in 0..60usize) {
            let _ = text.parse::<Plan>();
            let text = plan.to_string();
            let cut = cut.min(text.len() - 1);
            prop_assert!(text[..cut].parse::<Plan>().is_err(), "it has no end");
        }

        #[test]
        fn what_is_simpler_weighs_less_and_is_always_the_same(plan in plan()) {
            let simpler: Vec<_> = plan.simpler().collect();
            prop_assert_eq!(&simpler, &plan.simpler().collect::<Vec<_>>());
            for other in simpler {
                prop_assert_eq!(other.0.len(), plan.0.len());
                prop_assert!(other.weight() < plan.weight(), "{} from {}", other, plan);
            }
        }

        #[test]
        fn going_on_to_simpler_plans_leaves_what_matters(
            plan in plan(),
            dropped in 0..200usize,
            kept in 0..200usize,
        ) {
            prop_assume!(plan.0.len() > 1);
            let (n, mut least) = (plan.0.len(), plan);
            let (dropped, kept) = (dropped % n, if kept % n == dropped % n { (kept + 1) % n } else { kept % n });
            least.0[dropped] = Choice::Drop;
            least.0[kept] = Choice::Keep;
            let fails = |plan: &Plan| plan.0[dropped] == Choice::Drop && plan.0[kept] == Choice::Keep;
            while let Some(next) = least.simpler().find(fails) {
                least = next;
            }
            prop_assert_eq!(least.weight().0, 0, "nothing torn: {}", least);
            prop_assert_eq!(least.weight().1, 1, "kept, then dropped, or the reverse: {}", least);
        }
    }

    #[test]
    fn runs_are_shortened() {
        let mut choices = vec![Choice::Keep; 12];
        choices.extend([Choice::Drop, Choice::First(3), Choice::First(3), Choice::Keep]);
        assert_eq!(Plan(choices).to_string(), "[+12-(<3)2+]");
        assert_eq!("[++-]".parse(), Ok(Plan(vec![Choice::Keep, Choice::Keep, Choice::Drop])));
        assert_eq!("[]".parse(), Ok(Plan::default()));
        assert_eq!(Plan::default().choice(7), Choice::Keep, "what is missing keeps");
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let cases = [
            ("", 0, PlanErrorKind::NoBeginning),
            ("+]", 0, PlanErrorKind::NoBeginning),
            ("[+", 2, PlanErrorKind::NoEnd),
            ("[+]x", 3, PlanErrorKind::AfterEnd),
            ("[+*]", 2, PlanErrorKind::NoChoice),
            ("[(<3]", 4, PlanErrorKind::NoChoice),
            ("[(<)]", 3, PlanErrorKind::NoNumber),
            ("[+0]", 2, PlanErrorKind::NoTimes),
            ("[(!99999999999999999999)]", 3, PlanErrorKind::TooLarge),
            ("[+1048576-]", 10, PlanErrorKind::TooLarge),
            ("[-18446744073709551615]", 2, PlanErrorKind::TooLarge),
        ];
        for (text, at, kind) in cases {
            assert_eq!(text.parse::<Plan>(), Err(PlanError { at, kind }), "{text}");
        }
        let error = "[+*]".parse::<Plan>().unwrap_err().to_string();
        assert_eq!(error, "not a plan: at byte 2 stands no choice: + - (<n) (>=n) (!n) (?n)");
    }

    #[test]
    fn the_boldest_come_first() {
        let plan: Plan = "[+-(?5)+]".parse().unwrap();
        let texts: Vec<_> = plan.simpler().map(|plan| plan.to_string()).collect();
        assert_eq!(texts[..2], ["[+4]", "[-4]"]);
        assert!(texts.contains(&"[+-+2]".into()), "whole: {texts:?}");
        assert!(texts.contains(&"[+-(!5)+]".into()), "a milder tear: {texts:?}");
    }
}
