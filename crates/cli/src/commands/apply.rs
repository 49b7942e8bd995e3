//! `apply`: transactions from an input, one a line, each with its own answer.
//!
//! Lines that are waiting already are submitted together and share a sync. An answer is written
//! as soon as its commit is as durable as asked for and never waits for another line to come:
//! whoever sends one line and waits for its answer gets it.

use std::io::Read;

use steadfast::{Database, Pending, Version};

use crate::args::ApplyArgs;
use crate::database::{create_or_open, open_input, report_rebuilt};
use crate::failure::{EXIT_DONE, Failure, Result};
use crate::json::Object;
use crate::lines::Lines;
use crate::op::{Line, parse_transaction};
use crate::output::Output;
use crate::transact::{Runs, Submitted, submit};

/// Lines taken together before the first of them is answered.
const WAITING_MAX: usize = 512;
/// Their bytes. One line may be larger.
const WAITING_BYTES_MAX: usize = 16 << 20;

pub(crate) fn run(args: &ApplyArgs) -> Result<u8> {
    let input = open_input(args.input.as_deref())?;
    let database = create_or_open(&args.dir, &args.write)?;
    let applied = Session::new(&database).apply(input);
    report_rebuilt(&database);
    // Whatever became of the input, what was acknowledged stays, and closing says so.
    let closed = database.close().map_err(Failure::from);
    applied.and(closed).map(|()| EXIT_DONE)
}

/// What a line taken is waiting for.
enum Waiting {
    Commit(Pending),
    Answered(Result<Version>),
}

struct Session<'a> {
    database: &'a Database,
    runs: Runs,
    output: Output,
    /// In the order of the lines.
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
}

impl<'a> Session<'a> {
    fn new(database: &'a Database) -> Self {
        Self {
            database,
            runs: Runs::default(),
            output: Output::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
        }
    }

    fn apply(&mut self, input: impl Read) -> Result<()> {
        let mut lines = Lines::new(input);
        loop {
            let full = self.waiting.len() >= WAITING_MAX || self.waiting_bytes >= WAITING_BYTES_MAX;
            if full || !lines.is_waiting() {
                self.answer_all()?;
            }
            let Some(line) = lines.next().map_err(|error| Failure::io("input", &error))? else {
                return self.answer_all();
            };
            let parsed = match line.text() {
                Ok(text) => {
                    self.waiting_bytes += text.len();
                    parse_transaction(text)
                }
                Err(what) => Err(Failure::invalid(what)),
            };
            let taken = match parsed {
                Ok(line) => self.take(&line)?,
                Err(failure) => Waiting::Answered(Err(failure)),
            };
            self.waiting.push(taken);
        }
    }

    /// Submits a transaction. Earlier lines are visible to later ones: what a transaction is
    /// refused for may be about to change while commits are under way, so it is tried again once
    /// they are done.
    fn take(&mut self, line: &Line) -> Result<Waiting> {
        let mut submitted = submit(self.database, &mut self.runs, line);
        let under_way = self.waiting.iter().any(|waiting| matches!(waiting, Waiting::Commit(_)));
        if submitted.is_err() && under_way {
            self.answer_all()?;
            submitted = submit(self.database, &mut self.runs, line);
        }
        Ok(match submitted {
            Ok(Submitted::Pending(pending)) => Waiting::Commit(pending),
            Ok(Submitted::Done(version)) => Waiting::Answered(Ok(version)),
            Err(failure) => Waiting::Answered(Err(failure)),
        })
    }

    /// Waits for every line taken and answers it.
    fn answer_all(&mut self) -> Result<()> {
        for waiting in self.waiting.drain(..) {
            let answer = match waiting {
                Waiting::Commit(pending) => {
                    pending.wait().map(|receipt| receipt.version()).map_err(Failure::from)
                }
                Waiting::Answered(answer) => answer,
            };
            self.output.line(&match answer {
                Ok(version) => Object::new().number("ok", version.0).end(),
                Err(failure) => failure.to_json(),
            })?;
        }
        self.waiting_bytes = 0;
        self.output.flush()
    }
}
