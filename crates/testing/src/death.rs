//! How a process ends.

/// What a crash is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CrashType {
    /// SIGKILL: the process is gone between two instructions; the kernel keeps what it has.
    ProcessKill,
    /// SIGABRT, as `std::process::abort`.
    ProcessAbort,
    /// SIGSEGV.
    SegFault,
    /// The machine loses power: what was not synced may be gone, torn or garbled. Only on a
    /// simulated disk.
    PowerLoss,
}

impl CrashType {
    /// Every type.
    pub const ALL: [Self; 4] =
        [Self::ProcessKill, Self::ProcessAbort, Self::SegFault, Self::PowerLoss];

    /// Its name, as it is written in the code.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProcessKill => "ProcessKill",
            Self::ProcessAbort => "ProcessAbort",
            Self::SegFault => "SegFault",
            Self::PowerLoss => "PowerLoss",
        }
    }

    /// The type of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|crash| crash.name() == name)
    }

    /// The signal that ends the process; `None` for a power cut.
    pub const fn signal(self) -> Option<i32> {
        match self {
            Self::ProcessKill => Some(9),
            Self::ProcessAbort => Some(6),
            Self::SegFault => Some(11),
            Self::PowerLoss => None,
        }
    }

    /// Ends this process, for real.
    ///
    /// # Panics
    ///
    /// For a power cut, which no process can make.
    pub fn die(self) -> ! {
        assert_ne!(self, Self::PowerLoss, "a power cut happens on a simulated disk");
        if self == Self::ProcessAbort {
            std::process::abort();
        }
        loop {
            // Rust's own handler of SIGSEGV lets the first one pass, to end at the second.
            #[cfg(unix)]
            {
                use rustix::process::{Signal, getpid, kill_process};
                let signal = if self == Self::ProcessKill { Signal::KILL } else { Signal::SEGV };
                let _ = kill_process(getpid(), signal);
            }
            #[cfg(not(unix))]
            std::process::abort();
        }
    }
}
