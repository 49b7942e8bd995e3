//! What does not convert, and where it is.

use std::fmt;

use crate::limits::{VALUE_BYTES_MAX, VALUE_DEPTH_MAX};

/// A conversion that was refused. Displays as `$.steps[3].name: problem`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversionError {
    path: String,
    problem: ConversionProblem,
}

/// Why a conversion was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConversionProblem {
    /// An integer that is not within 64 bits with a sign.
    #[error("the integer {0} does not fit into 64 bits with a sign")]
    IntegerTooLarge(String),
    /// A float that is not a number.
    #[error("a NaN, which is not equal to itself and cannot be compared")]
    NotANumber,
    /// A `Some` that holds what is stored as nothing: it would come back as `None`.
    #[error("a Some that holds nothing would come back as None")]
    SomeOfNothing,
    /// A key of a map that is no text, integer, boolean or character.
    #[error("{0} cannot be the key of a map: only text, integers, booleans and characters can")]
    MapKey(&'static str),
    /// Two keys of a map have the same text.
    #[error("the key is there twice")]
    DuplicateKey,
    /// Deeper than [`VALUE_DEPTH_MAX`].
    #[error("nested deeper than {VALUE_DEPTH_MAX} levels")]
    TooDeep,
    /// More than [`VALUE_BYTES_MAX`] encoded.
    #[error("more than {VALUE_BYTES_MAX} bytes encoded")]
    TooLarge,
    /// What JSON has no form for.
    #[error("JSON has no form for {0}")]
    NotInJson(&'static str),
    /// The value is not what the type asks for, or the type itself refuses.
    #[error("{0}")]
    Mismatch(String),
}

impl ConversionError {
    pub(crate) const fn new(problem: ConversionProblem) -> Self {
        Self { path: String::new(), problem }
    }

    /// Where: `$` is the whole, `.name` a field or a key, `[3]` an item.
    pub fn path(&self) -> String {
        format!("${}", self.path)
    }

    /// Why.
    pub const fn problem(&self) -> &ConversionProblem {
        &self.problem
    }

    /// The same, seen from the map around it.
    pub(crate) fn under(self, name: &str) -> Self {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        let step = match !name.is_empty() && name.chars().all(plain) {
            true => format!(".{name}"),
            false => format!("[{name:?}]"),
        };
        Self { path: step + &self.path, ..self }
    }

    /// The same, seen from the list around it.
    pub(crate) fn at(self, index: usize) -> Self {
        Self { path: format!("[{index}]{}", self.path), ..self }
    }
}

impl From<ConversionProblem> for ConversionError {
    fn from(problem: ConversionProblem) -> Self {
        Self::new(problem)
    }
}

impl fmt::Display for ConversionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}: {}", self.path, self.problem)
    }
}

impl std::error::Error for ConversionError {}

impl serde_core::ser::Error for ConversionError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(ConversionProblem::Mismatch(message.to_string()))
    }
}

impl serde_core::de::Error for ConversionError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(ConversionProblem::Mismatch(message.to_string()))
    }
}
