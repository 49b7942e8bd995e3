//! Bugs planted in the engine, one at a time, and which technique finds each: what proves that
//! the techniques can find anything.
//!
//! The [`techniques`](crate::techniques) are run as they are, in their order, until one of them
//! sees something that must not be.

use crate::techniques;

pub use steadfast_core::{
    SABOTAGE_COMPILED_IN, SABOTAGE_VARIABLE, Sabotage, sabotage_every_thread, sabotage_this_thread,
    sabotaged,
};

/// What a technique found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catch {
    /// Which.
    pub technique: &'static str,
    /// How much it had judged by then.
    pub images: u64,
    /// How much all techniques before it had judged and found nothing wrong.
    pub before: u64,
    /// What it saw.
    pub report: String,
}

/// Everything that was judged and nothing that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survived {
    /// How much each technique judged.
    pub images: Vec<(&'static str, u64)>,
}

/// Runs the techniques with `sabotage` turned on for this thread; with `None` as the engine is.
///
/// # Errors
///
/// What the first technique that found something said.
pub fn hunt(sabotage: Option<Sabotage>, seed: u64) -> Result<Survived, Catch> {
    let on = On::new(sabotage);
    let mut survived = Survived { images: Vec::new() };
    for technique in techniques::ALL {
        let (images, verdict) = technique.look(seed);
        if let Err(report) = verdict {
            let before = survived.images.iter().map(|one| one.1).sum();
            return Err(Catch { technique: technique.name, images, before, report });
        }
        survived.images.push((technique.name, images));
    }
    drop(on);
    Ok(survived)
}

/// Sabotage of this thread, for as long as this lives.
struct On(Option<Sabotage>);

impl On {
    fn new(sabotage: Option<Sabotage>) -> Self {
        Self(sabotage_this_thread(sabotage))
    }
}

impl Drop for On {
    fn drop(&mut self) {
        sabotage_this_thread(self.0);
    }
}

/// The head of the table that [`row`] gives the rows of.
pub const TABLE_HEAD: &str = "| planted bug | breaks | caught by | after | what it saw |\n\
                              |---|---|---|---|---|";

/// Characters of the beginning and of the end of a report that fit a table: where, and what.
const REPORT_CHARS: (usize, usize) = (60, 110);

/// A row of the table in the docs.
pub fn row(sabotage: Sabotage, catch: &Catch) -> String {
    let clean = catch.report.replace('|', "\\|").replace('\n', " ");
    let chars: Vec<char> = clean.chars().collect();
    let (first, last) = REPORT_CHARS;
    let short = if chars.len() > first + last {
        let begin: String = chars[..first].iter().collect();
        let end: String = chars[chars.len() - last..].iter().collect();
        format!("{} … {}", begin.trim_end(), end.trim_start())
    } else {
        clean
    };
    let Catch { technique, images, .. } = catch;
    format!("| `{sabotage}` | {} | {technique} | {images} | {short} |", sabotage.breaks())
}
