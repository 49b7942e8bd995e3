//! The version of a commit, and a value with its version.

use crate::{Timestamp, Value};

/// The place of a commit in the one order of commits of a database.
///
/// Versions are assigned in commit order and never given twice in the life of a database,
/// whether their commit was seen or not, so there may be gaps. [`Version::ZERO`] stands
/// before the first commit and means "absent" where a cell's version is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

impl Version {
    /// Before the first commit.
    pub const ZERO: Self = Self(0);
    /// Above every commit.
    pub const MAX: Self = Self(u64::MAX);

    /// The version after this one.
    ///
    /// # Panics
    ///
    /// At 2⁶⁴ commits.
    #[must_use]
    pub const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(n) => Self(n),
            None => panic!("versions never wrap"),
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A value as one commit left it.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionedValue {
    /// What was written.
    pub value: Value,
    /// The commit that wrote it.
    pub version: Version,
    /// When that commit was made.
    pub timestamp: Timestamp,
    /// When it stops being there, if ever.
    pub expiry: Option<Timestamp>,
}
