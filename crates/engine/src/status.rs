//! What became of a run: its status, and which status may follow which.
//!
//! A status is what an application says of a run. It keeps nobody from reading or writing the
//! run; it only never goes back: what has ended does not go on.

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RunStatus {
    /// It goes on.
    #[default]
    Active,
    /// It rests, and may go on.
    Paused,
    /// It reached its end.
    Completed,
    /// It ended before its end.
    Failed,
    /// Somebody ended it.
    Cancelled,
    /// It is kept for reference, whatever became of it. Nothing follows.
    Archived,
}

impl RunStatus {
    /// Every status.
    pub const ALL: [Self; 6] = [
        Self::Active,
        Self::Paused,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Archived,
    ];

    /// Its name, as stored and shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Archived => "archived",
        }
    }

    /// The status with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether the run has ended.
    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Active | Self::Paused)
    }

    /// Whether a run of this status may be given `next`. Its own status it may always be given
    /// again, which changes nothing.
    pub fn may_become(self, next: Self) -> bool {
        match self {
            _ if self == next => true,
            Self::Active | Self::Paused => true,
            Self::Completed | Self::Failed | Self::Cancelled => next == Self::Archived,
            Self::Archived => false,
        }
    }
}

impl std::fmt::Display for RunStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_never_goes_on() {
        for from in RunStatus::ALL {
            assert_eq!(RunStatus::from_name(from.name()), Some(from));
            for to in RunStatus::ALL {
                if from.is_terminal() && !to.is_terminal() {
                    assert!(!from.may_become(to), "{from} to {to}");
                }
                // No way around, by any number of steps.
                if from == RunStatus::Archived {
                    assert_eq!(from.may_become(to), to == from);
                }
            }
        }
        assert!(RunStatus::Paused.may_become(RunStatus::Active));
        assert!(RunStatus::Active.may_become(RunStatus::Failed));
        assert!(!RunStatus::Completed.may_become(RunStatus::Failed));
        assert_eq!(RunStatus::from_name("over"), None);
    }
}
