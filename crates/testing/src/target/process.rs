//! A target process, seen from the one who tells it what to do and kills it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::target::history::{Bounds, History};
use crate::target::protocol::{apply_line, parse_entry, parse_ok};
use crate::target::verdict::Verdict;
use crate::target::{Entries, Promise, Transaction};

/// How long an answer is waited for before asking whether there still is power.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Whose set variable lets the standard error of targets through.
const STDERR_VARIABLE: &str = "STEADFAST_TARGET_STDERR";

/// What is run: a program that speaks the [protocol](crate::target::protocol).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its file.
    pub path: PathBuf,
    /// What comes before `start DIR` or `reopen DIR`.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// `path`, told `arguments` first.
    pub fn new(path: impl Into<PathBuf>, arguments: &[&str]) -> Self {
        Self { path: path.into(), arguments: arguments.iter().map(Into::into).collect() }
    }
}

/// What a process was asked and answered, by serials of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Account {
    pub(crate) begun: u64,
    pub(crate) acknowledged: u64,
    pub(crate) through_death: u64,
    pub(crate) through_power_loss: u64,
}

/// What has come through the pipe. Whoever cuts the power reads it at that moment: an answer that
/// is in the pipe by then rests on what was done before.
#[derive(Debug, Clone)]
pub(crate) struct Inbox(Arc<(ChildStdout, Mutex<Mail>)>);

#[derive(Debug, Default)]
struct Mail {
    bytes: Vec<u8>,
    /// Where the lines begin that nobody took yet.
    taken: usize,
    /// Where the lines begin that were not looked at for the account.
    counted: usize,
    ended: bool,
    account: Account,
}

impl Inbox {
    fn drain(&self) -> MutexGuard<'_, Mail> {
        let mut mail = self.0.1.lock().unwrap_or_else(PoisonError::into_inner);
        let mut piece = [0; 16 << 10];
        while !mail.ended {
            match rustix::io::read(&self.0.0, &mut piece) {
                Ok(0) => mail.ended = true,
                Ok(n) => mail.bytes.extend_from_slice(&piece[..n]),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(_) => mail.ended = true,
            }
        }
        mail.count();
        mail
    }

    /// Everything that was answered until now.
    pub(crate) fn account(&self) -> Account {
        self.drain().account
    }
}

impl Mail {
    fn count(&mut self) {
        while let Some(end) = self.bytes[self.counted..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.bytes[self.counted..self.counted + end]);
            if let Some((serial, promise)) = parse_ok(&line) {
                self.account.acknowledged = serial;
                if promise >= Promise::ProcessDeath {
                    self.account.through_death = serial;
                }
                if promise >= Promise::PowerLoss {
                    self.account.through_power_loss = serial;
                }
            }
            self.counted += end + 1;
        }
    }

    fn line(&mut self) -> Option<String> {
        let end = self.bytes[self.taken..].iter().position(|byte| *byte == b'\n')?;
        let line = String::from_utf8_lossy(&self.bytes[self.taken..self.taken + end]).into_owned();
        self.taken += end + 1;
        Some(line)
    }
}

/// What came of waiting for a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Line(String),
    /// The process has ended, or at least says nothing more.
    Ended,
    Late,
    /// Whoever waited was told to stop.
    Stopped,
}

/// A running target. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct TargetProcess {
    child: Child,
    inbox: Inbox,
    patience: Duration,
}

impl TargetProcess {
    pub(crate) fn spawn(
        program: &Program,
        verb: &str,
        dir: &Path,
        patience: Duration,
    ) -> io::Result<Self> {
        let errors = match std::env::var_os(STDERR_VARIABLE) {
            Some(_) => Stdio::inherit(),
            None => Stdio::null(),
        };
        let mut child = Command::new(&program.path)
            .args(&program.arguments)
            .arg(verb)
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()?;
        let out = child.stdout.take().expect("it is piped");
        rustix::io::ioctl_fionbio(&out, true)?;
        Ok(Self { child, inbox: Inbox(Arc::new((out, Mutex::default()))), patience })
    }

    pub(crate) fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// Asks for something. That the process no longer listens shows when it does not answer.
    pub(crate) fn tell(&mut self, line: &str) {
        if let Some(input) = &mut self.child.stdin {
            let _ = input.write_all(format!("{line}\n").as_bytes());
        }
    }

    /// Asks for a transaction, which may be there from now on.
    pub(crate) fn begin(&mut self, transaction: &Transaction) {
        self.inbox.drain().account.begun = transaction.serial;
        self.tell(&apply_line(transaction));
    }

    /// The next line.
    pub(crate) fn answer(&self, stop: &dyn Fn() -> bool) -> Answer {
        let until = Instant::now() + self.patience;
        loop {
            let mut mail = self.inbox.drain();
            if let Some(line) = mail.line() {
                return Answer::Line(line);
            }
            if mail.ended {
                return Answer::Ended;
            }
            drop(mail);
            if stop() {
                return Answer::Stopped;
            }
            if Instant::now() > until {
                return Answer::Late;
            }
            let _ = poll(&mut [PollFd::new(&self.inbox.0.0.as_fd(), PollFlags::IN)], Some(&LOOK));
        }
    }

    /// Kills it; it may take until somebody lets go of what it waits for.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Waits until it is gone.
    pub(crate) fn wait(&mut self) -> io::Result<std::process::ExitStatus> {
        self.child.wait()
    }

    /// Waits until it has opened its store. `Ok(false)`: it was told to stop.
    pub(crate) fn opened(&self, born: bool, stop: &dyn Fn() -> bool) -> Result<bool, Verdict> {
        match self.answer(stop) {
            Answer::Line(line) if line == "ready" => Ok(true),
            Answer::Line(line) => {
                let why = line.strip_prefix("refused ").unwrap_or(&line).to_owned();
                Err(if born { Verdict::Refused(why) } else { Verdict::RefusedUnborn(why) })
            }
            Answer::Ended => Err(Verdict::Died("while opening".into())),
            Answer::Late => Err(Verdict::Hung),
            Answer::Stopped => Ok(false),
        }
    }

    /// Everything it has. `Ok(None)`: it was told to stop.
    pub(crate) fn dump(&mut self, stop: &dyn Fn() -> bool) -> Result<Option<Entries>, Verdict> {
        self.tell("dump");
        let mut entries = Entries::new();
        loop {
            match self.answer(stop) {
                Answer::Line(line) if line == "end" => return Ok(Some(entries)),
                Answer::Line(line) => {
                    if parse_entry(&line, &mut entries).is_none() {
                        return Err(Verdict::Unusable(format!("reading: {line}")));
                    }
                }
                Answer::Ended => return Err(Verdict::Died("while reading".into())),
                Answer::Late => return Err(Verdict::Hung),
                Answer::Stopped => return Ok(None),
            }
        }
    }

    /// Opens what a crash left, reads it, and judges it.
    pub(crate) fn find(&mut self, history: &History, bounds: Bounds) -> Result<Verdict, Verdict> {
        self.opened(bounds.acknowledged > 0, &|| false)?;
        let found = self.dump(&|| false)?.unwrap_or_default();
        Ok(history.judge(&found, bounds))
    }

    /// Sees whether a store that has the first `count` transactions takes another one.
    #[cfg(all(feature = "fuse", target_os = "linux"))]
    pub(crate) fn try_out(&mut self, history: &History, count: usize) -> Result<(), Verdict> {
        let mut after = history.clone();
        after.keep(count);
        self.begin(&after.begin());
        match self.answer(&|| false) {
            Answer::Line(line) if parse_ok(&line).is_some() => {}
            answer => return Err(Verdict::Unusable(format!("applying: {answer:?}"))),
        }
        match self.dump(&|| false)? {
            Some(found) if found == after.state(count + 1) => Ok(()),
            _ => Err(Verdict::Unusable("it does not show what it has just applied".into())),
        }
    }
}

impl Drop for TargetProcess {
    fn drop(&mut self) {
        self.kill();
        let _ = self.wait();
    }
}
