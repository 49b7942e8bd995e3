//! A transaction of the input, done in the database.

use std::collections::{HashMap, HashSet};

use steadfast::{Database, Error, Pending, Run, Transaction, Version};

use crate::failure::{Failure, Result};
use crate::op::{Action, Line, Op};

/// What became of a transaction.
pub(crate) enum Submitted {
    /// It is on its way to the disk.
    Pending(Pending),
    /// There was nothing to write: the version at which that is so.
    Done(Version),
}

/// The runs that are known to be there, by name. Nothing here removes a run, and this process
/// is the only writer, so whatever was once there need not be looked up again, and writes that
/// depend on nothing else need not be checked against those that are under way.
#[derive(Debug, Default)]
pub(crate) struct Runs(HashMap<String, Run>);

/// More names than this are not kept.
const RUNS_KNOWN_MAX: usize = 10_000;

impl Runs {
    /// The run named `name` if it is there, committed and visible.
    fn find(
        &mut self,
        transaction: &mut Transaction,
        name: &str,
    ) -> steadfast::Result<Option<Run>> {
        if let Some(run) = self.0.get(name) {
            return Ok(Some(*run));
        }
        match transaction.resolve_run(name) {
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
            Ok(run) => {
                if self.0.len() >= RUNS_KNOWN_MAX {
                    self.0.clear();
                }
                self.0.insert(name.to_owned(), run);
                Ok(Some(run))
            }
        }
    }
}

/// Does what a line asks for, in one transaction.
pub(crate) fn submit(database: &Database, runs: &mut Runs, line: &Line) -> Result<Submitted> {
    match line {
        Line::Transaction(ops) => submit_ops(database, runs, ops),
        Line::Define(schema) => {
            Ok(Submitted::Done(database.define_signals(schema.clone())?.version()))
        }
    }
}

/// A run that is not there is created in the transaction.
fn submit_ops(database: &Database, runs: &mut Runs, ops: &[Op]) -> Result<Submitted> {
    let mut transaction = database.begin()?;
    if let Some(original) = known_version(&mut transaction, runs, ops)? {
        // Committing nothing waits until what was read, the original, is durable.
        transaction.commit()?;
        return Ok(Submitted::Done(original));
    }
    let mut created: HashMap<&str, Run> = HashMap::new();
    for (index, op) in ops.iter().enumerate() {
        let mut step = || {
            let run = match created.get(op.run.as_str()) {
                Some(run) => *run,
                None => match runs.find(&mut transaction, &op.run)? {
                    Some(run) => run,
                    None => {
                        let run = transaction.create_run(&op.run)?;
                        created.insert(&op.run, run);
                        run
                    }
                },
            };
            act(&mut transaction, run, &op.action)
        };
        step().map_err(|error| of_op(index, error))?;
    }
    if transaction.write_count() == 0 {
        return Ok(Submitted::Done(transaction.commit()?.version()));
    }
    match transaction.submit()? {
        Some(pending) => Ok(Submitted::Pending(pending)),
        None => Ok(Submitted::Done(database.current_version())),
    }
}

fn of_op(index: usize, error: Error) -> Failure {
    Failure::from(error).of(&format!("ops[{index}]"))
}

/// If every append of `ops` has been done before, by its idempotency key, the version that did
/// it. A conflict if only some have: then this is no retry of what was done.
///
/// This comes before anything else, since what a retried transaction expects is what it has
/// itself changed.
fn known_version(
    transaction: &mut Transaction,
    runs: &mut Runs,
    ops: &[Op],
) -> Result<Option<Version>> {
    let mut keys = HashSet::new();
    let (mut known, mut unknown) = (Vec::new(), None);
    for (index, op) in ops.iter().enumerate() {
        let Action::EventAppend { options, .. } = &op.action else { continue };
        let Some(key) = &options.idempotency_key else {
            unknown = Some(index);
            continue;
        };
        if !keys.insert((&op.run, key)) {
            let message = format!("ops[{index}].idempotency_key: `{key}` is there twice");
            return Err(Failure::invalid(message));
        }
        match original(transaction, runs, &op.run, key).map_err(|error| of_op(index, error))? {
            Some(version) => known.push((index, version)),
            None => unknown = Some(index),
        }
    }
    match (known.iter().max_by_key(|(_, version)| *version), unknown) {
        (None, _) => Ok(None),
        (Some((_, version)), None) => Ok(Some(*version)),
        (Some((index, version)), Some(new)) => Err(Failure::new(
            "conflict",
            format!(
                "the append in ops[{index}] was done by version {version}, the one in ops[{new}] was not"
            ),
        )),
    }
}

fn original(
    transaction: &mut Transaction,
    runs: &mut Runs,
    run: &str,
    key: &str,
) -> steadfast::Result<Option<Version>> {
    let Some(run) = runs.find(transaction, run)? else { return Ok(None) };
    let known = transaction.event_known(run, Some(key))?;
    Ok(known.and_then(|appended| appended.original))
}

fn act(transaction: &mut Transaction, run: Run, action: &Action) -> steadfast::Result<()> {
    match action {
        Action::KvPut { key, value } => transaction.kv_put(run, key, value.clone()),
        Action::KvDelete { key } => transaction.kv_delete(run, key),
        Action::EventAppend { stream, payload, options } => {
            transaction.event_append_with(run, stream, payload.clone(), options).map(drop)
        }
        Action::EventTrim { stream, before } => {
            transaction.event_trim(run, stream, *before).map(drop)
        }
        Action::EventKeyWindow { stream, keys } => transaction.event_key_window(run, stream, *keys),
        Action::StateSet { cell, value } => transaction.state_set(run, cell, value.clone()),
        Action::StateCas { cell, expect, value } => {
            transaction.state_cas(run, cell, *expect, value.clone())
        }
        Action::Signal { name, entity, weight, at } => {
            let at = at.unwrap_or_else(|| transaction.now());
            transaction.signal_record_at(run, name, entity, *weight, at)
        }
        Action::CollectionCreate { collection } => {
            transaction.collection_create(run, collection).map(drop)
        }
        Action::CollectionAdd { collection, item } => {
            transaction.collection_add(run, collection, item).map(drop)
        }
        Action::CollectionRemove { collection, item } => {
            transaction.collection_remove(run, collection, item).map(drop)
        }
        Action::CollectionDelete { collection } => {
            transaction.collection_delete(run, collection).map(drop)
        }
        Action::AttributesSet { entity, attributes } => {
            transaction.attributes_set(run, entity, attributes.clone())
        }
        Action::AttributesDelete { entity } => transaction.attributes_delete(run, entity),
        Action::Engage { graph, actor, item, at } => {
            let at = at.unwrap_or_else(|| transaction.now());
            transaction.engage_at(run, graph, actor, item, at)
        }
    }
}
