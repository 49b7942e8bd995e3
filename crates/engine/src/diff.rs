//! What is different between two runs, or between two versions of one.
//!
//! Two scans side by side, in the order of keys, each read where it lies: however large the runs
//! are, one row of each is held.

use std::cmp::Ordering;
use std::iter::Peekable;

use steadfast_core::{Key, Record, TypeTag, Version, prefix_end};

use crate::database::Database;
use crate::entry::Entry;
use crate::error::Result;
use crate::fork::place;
use crate::runs::Run;
use crate::source::Source;
use crate::streams::Untrimmed;
use crate::view::View;

/// One difference, from the first side to the second.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "made one at a time, as they are read")]
pub enum Difference {
    /// Only the second has it.
    Added(Entry),
    /// Only the first has it.
    Removed(Entry),
    /// Both have it, with another content.
    Changed {
        /// What the first has.
        before: Entry,
        /// What the second has.
        after: Entry,
    },
}

/// The differences between two sides, in the order of keys, as [`View::entries`] has them. What
/// differs only in when it was committed is the same.
pub struct Differences {
    before: Side,
    after: Side,
}

type Side = Peekable<Box<dyn Iterator<Item = Result<Record>> + Send>>;

impl std::fmt::Debug for Differences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Differences")
    }
}

impl View {
    /// What is different in `after`, looked at through `other`, from `before`, looked at through
    /// this view.
    ///
    /// # Errors
    ///
    /// Kind `NotFound` if a view does not have its run. Reading the differences gives
    /// `HistoryTrimmed` where a view of the past shows what is not kept any more.
    pub fn diff_runs(&self, before: Run, other: &Self, after: Run) -> Result<Differences> {
        Ok(Differences { before: side(self, before)?, after: side(other, after)? })
    }
}

impl Database {
    /// What is different in the run `after` from the run `before`, now.
    ///
    /// ```
    /// use steadfast_engine::{Database, Difference};
    ///
    /// let db = Database::in_memory()?;
    /// let (one, two) = (db.create_run("one")?, db.create_run("two")?);
    /// db.kv_put(one, "model", "small")?;
    /// db.kv_put(two, "model", "large")?;
    /// db.kv_put(two, "seed", 7)?;
    /// let found: Vec<_> = db.diff_runs(one, two)?.collect::<Result<_, _>>()?;
    /// assert!(matches!(found[..], [Difference::Changed { .. }, Difference::Added(_)]));
    /// # Ok::<(), steadfast_engine::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`View::diff_runs`].
    pub fn diff_runs(&self, before: Run, after: Run) -> Result<Differences> {
        let view = self.view()?;
        view.diff_runs(before, &view, after)
    }

    /// What is different in `run` at the version `to` from what was in it at the version `from`,
    /// either of which may be the later one.
    ///
    /// # Errors
    ///
    /// As [`View::diff_runs`] and [`Database::view_at`].
    pub fn diff_run_versions(&self, run: Run, from: Version, to: Version) -> Result<Differences> {
        self.view_at(from)?.diff_runs(run, &self.view_at(to)?, run)
    }
}

fn side(view: &View, run: Run) -> Result<Side> {
    Source::check_run(&view, run)?;
    let start = run.namespace.0.to_be_bytes().to_vec();
    let end = prefix_end(&start);
    let mut source = view;
    let rows = Untrimmed::of(source.rows(start, end));
    // What is kept beside an entry is told from it, or is of no run.
    let is_entry = |row: &Result<Record>| match row {
        Ok(row) => {
            let tag = Key::tag_of(row.key());
            !matches!(tag, None | Some(TypeTag::Run | TypeTag::Idempotency))
        }
        Err(_) => true,
    };
    let rows: Box<dyn Iterator<Item = _> + Send> = Box::new(rows.filter(is_entry));
    Ok(rows.peekable())
}

impl Differences {
    fn step(&mut self) -> Option<Result<Option<Difference>>> {
        let order = match (self.before.peek(), self.after.peek()) {
            (None, None) => return None,
            (Some(Ok(before)), Some(Ok(after))) => place(before.key()).cmp(place(after.key())),
            // What cannot be read is told first.
            (None, Some(_)) | (Some(Ok(_)), Some(Err(_))) => Ordering::Greater,
            (Some(_), _) => Ordering::Less,
        };
        Some(self.take(order))
    }

    fn take(&mut self, order: Ordering) -> Result<Option<Difference>> {
        let before = if order.is_le() { self.before.next().transpose()? } else { None };
        let after = if order.is_ge() { self.after.next().transpose()? } else { None };
        if let (Some(before), Some(after)) = (&before, &after)
            && before.value_bytes() == after.value_bytes()
            && before.expiry() == after.expiry()
        {
            return Ok(None);
        }
        let entry = |record: Option<Record>| match record {
            Some(record) => Entry::decode(&record),
            None => Ok(None),
        };
        Ok(match (entry(before)?, entry(after)?) {
            (Some(before), Some(after)) if is_same(&before, &after) => None,
            (Some(before), Some(after)) => Some(Difference::Changed { before, after }),
            (Some(before), None) => Some(Difference::Removed(before)),
            (None, Some(after)) => Some(Difference::Added(after)),
            (None, None) => None,
        })
    }
}

/// Whether two events are the same but for what follows from when and where they were appended.
fn is_same(before: &Entry, after: &Entry) -> bool {
    match (before, after) {
        (Entry::Event { event: one, .. }, Entry::Event { event: other, .. }) => {
            one.payload == other.payload
                && one.kind == other.kind
                && one.time == other.time
                && one.causation == other.causation
                && one.correlation == other.correlation
                && one.idempotency_key == other.idempotency_key
        }
        _ => false,
    }
}

impl Iterator for Differences {
    type Item = Result<Difference>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step()? {
                Ok(None) => {}
                Ok(Some(difference)) => return Some(Ok(difference)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
