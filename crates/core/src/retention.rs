//! How much history is kept.

use std::num::NonZeroU32;

/// Which superseded versions of a key are kept beyond what open views need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retention {
    /// The newest versions, this many.
    KeepLast(NonZeroU32),
    /// Every version ever written.
    KeepAll,
}

impl Retention {
    /// The newest version only: the default.
    pub const NEWEST: Self = Self::KeepLast(NonZeroU32::MIN);
}

impl Default for Retention {
    fn default() -> Self {
        Self::NEWEST
    }
}
