//! What a database must hold after a crash: what was asked of it, what it answered, and so
//! what may be found.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use steadfast_engine::{Database, DurabilityMode, Result, Value, Version};

use crate::model::{self, Content, Difference, Item, content_now, short};
use crate::operation::Operation;

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateMismatch {
    /// What: `run:R`, `kv:R:K`, `event:R:S:N`, `state:R:C`,
    /// `signal:R:N:E`, or `commits` for how many there are.
    pub entity: String,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub actual: String,
}

impl fmt::Display for StateMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, found {}", self.entity, self.expected, self.actual)
    }
}

/// What was found of what had been asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// How many of the acknowledged commits, from the first.
    pub acknowledged: usize,
    /// Whether the one that was under way is there.
    pub in_flight: bool,
}

/// What a database must hold: every acknowledged commit with its version, and perhaps the one
/// that was under way; nothing else, nothing that was deleted.
///
/// Each operation is noted before it is asked for, with the method of its name, and
/// [`ReferenceModel::acknowledge`]d when the database has answered.
///
/// ```
/// use steadfast_engine::Database;
/// use steadfast_testing::reference::ReferenceModel;
///
/// # fn main() -> steadfast_engine::Result<()> {
/// let db = Database::in_memory()?;
/// let mut model = ReferenceModel::new();
/// model.kv_put("run", "key", b"value");
/// let put = |tx: &mut steadfast_engine::Transaction| {
///     let run = tx.get_or_create_run("run")?;
///     tx.kv_put(run, "key", b"value".as_slice())
/// };
/// let ((), receipt) = db.transaction(put)?;
/// model.acknowledge(Some(receipt.version()));
/// assert!(model.compare(&db)?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct ReferenceModel {
    committed: Vec<(Operation, Version)>,
    pending: VecDeque<Operation>,
    /// All of `committed`, done.
    state: model::ReferenceModel,
    /// How many of `committed` are durable whatever the mode.
    promised: usize,
    last_checkpoint: Option<usize>,
}

impl ReferenceModel {
    /// Of an empty database.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes an operation that is now asked for.
    pub fn begin(&mut self, operation: Operation) {
        self.pending.push_back(operation);
    }

    /// Notes that a key is given a value.
    pub fn kv_put(&mut self, run: &str, key: &str, value: &[u8]) {
        self.begin(Operation::kv_put(run, key, value));
    }

    /// Notes that a key is removed.
    pub fn kv_delete(&mut self, run: &str, key: &str) {
        self.begin(Operation::kv_delete(run, key));
    }

    /// Notes that an event is appended.
    pub fn event_append(&mut self, run: &str, stream: &str, payload: &[u8]) {
        self.begin(Operation::event_append(run, stream, payload));
    }

    /// Notes that a state cell is set.
    pub fn state_set(&mut self, run: &str, cell: &str, value: &[u8]) {
        self.begin(Operation::state_set(run, cell, value));
    }

    /// Notes that an entity is observed.
    pub fn signal_record(&mut self, run: &str, name: &str, entity: &str, weight: u32, at_us: u64) {
        self.begin(Operation::signal_record(run, name, entity, weight, at_us));
    }

    /// Notes that a snapshot is written.
    pub fn checkpoint(&mut self) {
        self.begin(Operation::Checkpoint);
    }

    /// The oldest operation that was asked for was done, and committed as `version` if it is one
    /// that commits.
    ///
    /// # Panics
    ///
    /// If nothing was asked for.
    pub fn acknowledge(&mut self, version: Option<Version>) {
        let operation = self.pending.pop_front().expect("something was asked for");
        if operation.makes_durable() {
            self.promised = self.committed.len();
        }
        if operation == Operation::Checkpoint {
            self.last_checkpoint = Some(self.committed.len());
        }
        if let (Some(op), Some(version)) = (operation.write(), version) {
            self.state.apply(&[op], version);
            self.committed.push((operation, version));
        }
    }

    /// The oldest operation that was asked for failed, and is known not to have been done.
    pub fn fail(&mut self) {
        self.pending.pop_front();
    }

    /// The operations that committed, with their versions, in order.
    pub fn committed_ops(&self) -> &[(Operation, Version)] {
        &self.committed
    }

    /// The operations that were asked for and not answered.
    pub const fn pending_ops(&self) -> &VecDeque<Operation> {
        &self.pending
    }

    /// How many operations had committed at the last checkpoint.
    pub const fn last_checkpoint(&self) -> Option<usize> {
        self.last_checkpoint
    }

    /// The keys and their values, by run.
    pub fn kv_state(&self) -> BTreeMap<(String, Vec<u8>), Value> {
        let kv = |(item, (_, value)): (&Item, &(Version, Value))| match item {
            Item::Kv(run, key) => Some(((run.clone(), key.clone()), value.clone())),
            _ => None,
        };
        self.state.content().iter().filter_map(kv).collect()
    }

    /// The value that `key` of `run` must have.
    pub fn get_expected(&self, run: &str, key: &str) -> Option<&Value> {
        let item = Item::Kv(run.into(), key.into());
        self.state.content().get(&item).map(|found| &found.1)
    }

    /// The fewest commits that a power cut may leave in `mode`.
    pub fn kept_by_power_cut(&self, mode: DurabilityMode) -> usize {
        let acknowledged = self.committed.len();
        match mode {
            DurabilityMode::Strict => acknowledged,
            DurabilityMode::Batched { commits, .. } => {
                self.promised.max(acknowledged.saturating_sub(commits as usize))
            }
            _ => self.promised,
        }
    }

    /// How `db` differs from what it must hold after the end of its process.
    pub fn compare(&self, db: &Database) -> Result<Vec<StateMismatch>> {
        Ok(self.judge(db, self.committed.len())?.1)
    }

    /// How `db` differs from what a power cut may leave of it in `mode`.
    pub fn compare_after_power_cut(
        &self,
        db: &Database,
        mode: DurabilityMode,
    ) -> Result<Vec<StateMismatch>> {
        Ok(self.judge(db, self.kept_by_power_cut(mode))?.1)
    }

    /// Whether `db` holds what it must after the end of its process.
    pub fn matches(&self, db: &Database) -> bool {
        self.compare(db).is_ok_and(|mismatches| mismatches.is_empty())
    }

    /// What `db` kept, and how it differs from the state after exactly those commits, of which
    /// there must be at least `low`.
    pub fn judge(&self, db: &Database, low: usize) -> Result<(Kept, Vec<StateMismatch>)> {
        Ok(self.judge_content(&content_now(db)?, db.current_version(), low))
    }

    fn judge_content(
        &self,
        found: &Content,
        version: Version,
        low: usize,
    ) -> (Kept, Vec<StateMismatch>) {
        let kept = self.committed.partition_point(|(_, other)| *other <= version);
        let mut mismatches = Vec::new();
        if kept < low {
            mismatches.push(StateMismatch {
                entity: "commits".into(),
                expected: format!("at least the first {low}"),
                actual: format!("the first {kept}"),
            });
        }
        let newest = kept.checked_sub(1).map_or(Version::ZERO, |last| self.committed[last].1);
        let in_flight = self.pending.iter().find_map(Operation::write);
        let in_flight = in_flight.filter(|_| version > newest && kept == self.committed.len());
        let differences = if in_flight.is_none() && kept == self.committed.len() {
            self.state.compare(found)
        } else {
            let mut state = model::ReferenceModel::new();
            for (operation, version) in &self.committed[..kept] {
                state.apply(operation.write().as_slice(), *version);
            }
            state.apply(in_flight.as_slice(), version);
            state.compare(found)
        };
        if version != newest && in_flight.is_none() {
            mismatches.push(StateMismatch {
                entity: "commits".into(),
                expected: format!("one of the versions that were given, as {newest}"),
                actual: format!("version {version}"),
            });
        }
        mismatches.extend(differences.into_iter().map(mismatch));
        (Kept { acknowledged: kept, in_flight: in_flight.is_some() }, mismatches)
    }

    /// Goes on from what was found after a crash: what was lost, by right, never was.
    pub fn adopt(&mut self, kept: Kept, version: Version) {
        self.committed.truncate(kept.acknowledged);
        self.pending.retain(|operation| kept.in_flight && operation.write().is_some());
        self.state = model::ReferenceModel::new();
        for (operation, version) in &self.committed {
            self.state.apply(operation.write().as_slice(), *version);
        }
        if kept.in_flight {
            self.acknowledge(Some(version));
        }
        self.pending.clear();
        // Opening makes durable what it shows.
        self.promised = self.committed.len();
        self.last_checkpoint = self.last_checkpoint.filter(|at| *at <= self.committed.len());
    }
}

fn mismatch(difference: Difference) -> StateMismatch {
    let (item, expected, actual) = match difference {
        Difference::Missing(item) => (item, "to be there".into(), "nothing".into()),
        Difference::Extra(item) => (item, "nothing".into(), "what nobody wrote".into()),
        Difference::Resurrected(item) => {
            (item, "nothing, it was deleted".into(), "it back again".into())
        }
        Difference::OtherValue { item, expected, found } => (item, short(&expected), short(&found)),
        Difference::OtherVersion { item, expected, found } => {
            (item, format!("version {expected}"), format!("version {found}"))
        }
    };
    StateMismatch { entity: item.to_string(), expected, actual }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(db: &Database, model: &mut ReferenceModel, operation: Operation) {
        model.begin(operation.clone());
        model.acknowledge(operation.apply(db).unwrap());
    }

    fn filled() -> (Database, ReferenceModel) {
        let (db, mut model) = (Database::in_memory().unwrap(), ReferenceModel::new());
        done(&db, &mut model, Operation::kv_put("r", "a", "1"));
        done(&db, &mut model, Operation::kv_put("r", "b", "2"));
        done(&db, &mut model, Operation::event_append("r", "s", "e"));
        done(&db, &mut model, Operation::state_set("r", "c", "x"));
        done(&db, &mut model, Operation::kv_delete("r", "a"));
        (db, model)
    }

    #[test]
    fn names_what_is_missing_extra_resurrected_or_of_another_version() {
        let (db, model) = filled();
        assert!(model.matches(&db), "{:?}", model.compare(&db));
        assert_eq!(model.get_expected("r", "b"), Some(&Value::from(b"2".as_slice())));
        assert_eq!(model.kv_state().len(), 1);

        let entities = |change: &dyn Fn(&mut Content)| {
            let mut content = content_now(&db).unwrap();
            change(&mut content);
            let judged = model.judge_content(&content, db.current_version(), 5).1;
            judged.into_iter().map(|found| (found.entity, found.actual)).collect::<Vec<_>>()
        };
        let kv = |key: &str| Item::Kv("r".into(), key.into());
        let entry = (Version(1), Value::Null);
        let is = |entity: &str, actual: &str| vec![(entity.to_owned(), actual.to_owned())];
        assert_eq!(entities(&|c| drop(c.remove(&kv("b")))), is("kv:r:b", "nothing"));
        let extra = entities(&|c| drop(c.insert(kv("z"), entry.clone())));
        assert_eq!(extra, is("kv:r:z", "what nobody wrote"));
        let back = entities(&|c| drop(c.insert(kv("a"), entry.clone())));
        assert_eq!(back, is("kv:r:a", "it back again"));
        let older = entities(&|c| c.get_mut(&kv("b")).unwrap().0 = Version(1));
        assert_eq!(older, is("kv:r:b", "version 1"));
        let event = Item::Event("r".into(), "s".into(), 0);
        assert_eq!(entities(&|c| drop(c.remove(&event))), is("event:r:s:0", "nothing"));
        let cell = Item::State("r".into(), "c".into());
        assert_eq!(entities(&|c| c.get_mut(&cell).unwrap().1 = Value::Null).len(), 1);
        let run = Item::Run("r".into());
        assert_eq!(entities(&|c| drop(c.remove(&run))), is("run:r", "nothing"));
    }

    #[test]
    fn takes_what_was_under_way_whole_or_not_at_all() {
        let (db, mut model) = filled();
        model.kv_put("r", "d", b"4");
        assert!(model.matches(&db), "it need not be there");
        let written = Operation::kv_put("r", "d", "4").apply(&db).unwrap().unwrap();
        let (kept, mismatches) = model.judge(&db, 5).unwrap();
        assert_eq!(mismatches, []);
        assert_eq!(kept, Kept { acknowledged: 5, in_flight: true });
        model.adopt(kept, written);
        assert_eq!(model.committed_ops().len(), 6);
        assert!(model.matches(&db));
        Operation::kv_put("r", "d", "5").apply(&db).unwrap();
        assert!(!model.matches(&db), "nobody asked for that");
    }

    #[test]
    fn fewer_commits_than_were_due_are_a_mismatch() {
        let (_, model) = filled();
        let db = Database::in_memory().unwrap();
        let mismatches = model.compare(&db).unwrap();
        assert_eq!(mismatches[0].entity, "commits");
        assert_eq!(model.kept_by_power_cut(DurabilityMode::Buffered), 0);
        let lax = model.compare_after_power_cut(&db, DurabilityMode::Buffered).unwrap();
        assert_eq!(lax, [], "a prefix of none is a prefix");
    }
}
