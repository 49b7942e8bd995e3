//! What a scenario does to a database, one step at a time, as data: it can be drawn from a
//! seed, sent to another process, and repeated on a model.

use std::cell::RefCell;
use std::fmt;

use steadfast_engine::{CompactMode, Database, Result, Value, Version};

use crate::model::Op;

/// One step. Each that writes is a transaction of its own, and creates its run if need be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Creates a run.
    CreateRun {
        /// The run, by name.
        run: String,
    },
    /// Gives a key a value.
    KvPut {
        /// The run, by name.
        run: String,
        /// The key.
        key: String,
        /// Its value.
        value: Vec<u8>,
    },
    /// Removes a key.
    KvDelete {
        /// The run, by name.
        run: String,
        /// The key.
        key: String,
    },
    /// Appends an event to a stream.
    EventAppend {
        /// The run, by name.
        run: String,
        /// The stream.
        stream: String,
        /// What happened.
        payload: Vec<u8>,
    },
    /// Sets a state cell.
    StateSet {
        /// The run, by name.
        run: String,
        /// The cell.
        cell: String,
        /// Its value.
        value: Vec<u8>,
    },
    /// Observes an entity.
    SignalRecord {
        /// The run, by name.
        run: String,
        /// The signal.
        name: String,
        /// Whose it is.
        entity: String,
        /// The weight.
        weight: u32,
        /// When, in µs since 1970.
        at_us: u64,
    },
    /// Adds an item to a collection.
    CollectionAdd {
        /// The run, by name.
        run: String,
        /// The collection.
        name: String,
        /// The item.
        item: String,
    },
    /// Gives an entity the attribute `level`, and no other.
    Level {
        /// The run, by name.
        run: String,
        /// The entity.
        entity: String,
        /// The value of the attribute.
        level: u32,
    },
    /// Defines the cohort of those whose level is at least so much; always the same of one name.
    Cohort {
        /// A run that is made with it if it is not there.
        run: String,
        /// The cohort.
        name: String,
        /// The least level.
        level: u32,
    },
    /// Lets an actor engage with an item.
    Engage {
        /// The run, by name.
        run: String,
        /// The graph.
        graph: String,
        /// Who.
        actor: String,
        /// With what.
        item: String,
        /// When, in µs since 1970.
        at_us: u64,
    },
    /// Makes everything durable.
    Flush,
    /// Writes a snapshot.
    Checkpoint,
    /// Removes what is not needed any more. Without a checkpoint it does nothing.
    Compact(CompactMode),
}

impl Operation {
    /// Gives `key` of `run` a value.
    pub fn kv_put(run: &str, key: &str, value: impl AsRef<[u8]>) -> Self {
        Self::KvPut { run: run.into(), key: key.into(), value: value.as_ref().into() }
    }

    /// Removes `key` of `run`.
    pub fn kv_delete(run: &str, key: &str) -> Self {
        Self::KvDelete { run: run.into(), key: key.into() }
    }

    /// Appends an event to `stream` of `run`.
    pub fn event_append(run: &str, stream: &str, payload: impl AsRef<[u8]>) -> Self {
        let payload = payload.as_ref().into();
        Self::EventAppend { run: run.into(), stream: stream.into(), payload }
    }

    /// Sets `cell` of `run`.
    pub fn state_set(run: &str, cell: &str, value: impl AsRef<[u8]>) -> Self {
        Self::StateSet { run: run.into(), cell: cell.into(), value: value.as_ref().into() }
    }

    /// Observes `entity` of `run`.
    pub fn signal_record(run: &str, name: &str, entity: &str, weight: u32, at_us: u64) -> Self {
        let (run, name, entity) = (run.into(), name.into(), entity.into());
        Self::SignalRecord { run, name, entity, weight, at_us }
    }

    /// Adds `item` to the collection `name` of `run`.
    pub fn collection_add(run: &str, name: &str, item: &str) -> Self {
        Self::CollectionAdd { run: run.into(), name: name.into(), item: item.into() }
    }

    /// Gives `entity` of `run` a level.
    pub fn level(run: &str, entity: &str, level: u32) -> Self {
        Self::Level { run: run.into(), entity: entity.into(), level }
    }

    /// Defines the cohort `name`, of a level of at least `level`.
    pub fn cohort(run: &str, name: &str, level: u32) -> Self {
        Self::Cohort { run: run.into(), name: name.into(), level }
    }

    /// Lets `actor` engage with `item` in `graph` of `run`.
    pub fn engage(run: &str, graph: &str, actor: &str, item: &str, at_us: u64) -> Self {
        let (run, graph) = (run.into(), graph.into());
        Self::Engage { run, graph, actor: actor.into(), item: item.into(), at_us }
    }

    /// Does it. Returns the version of its commit, if it made one.
    pub fn apply(&self, db: &Database) -> Result<Option<Version>> {
        if let Some(op) = self.write() {
            return Ok(Some(db.transaction(|tx| op.apply(tx))?.1.version()));
        }
        match self {
            Self::Flush => db.flush()?,
            Self::Checkpoint => {
                db.checkpoint()?;
            }
            Self::Compact(mode) => crate::workload::compact(db, *mode)?,
            _ => unreachable!("every other one writes"),
        }
        Ok(None)
    }

    /// Whether everything before it is durable when it has returned.
    pub(crate) const fn makes_durable(&self) -> bool {
        matches!(self, Self::Flush | Self::Checkpoint)
    }

    /// What it writes.
    pub(crate) fn write(&self) -> Option<Op> {
        let bytes = |bytes: &[u8]| Value::from(bytes);
        Some(match self {
            Self::CreateRun { run } => Op::Run(run.clone()),
            Self::KvPut { run, key, value } => Op::Put(run.clone(), key.clone(), bytes(value)),
            Self::KvDelete { run, key } => Op::Delete(run.clone(), key.clone()),
            Self::EventAppend { run, stream, payload } => {
                Op::Append(run.clone(), stream.clone(), bytes(payload))
            }
            Self::StateSet { run, cell, value } => Op::Set(run.clone(), cell.clone(), bytes(value)),
            Self::SignalRecord { run, name, entity, weight, at_us } => {
                Op::Signal(run.clone(), name.clone(), entity.clone(), *weight, *at_us)
            }
            Self::CollectionAdd { run, name, item } => {
                Op::Collect(run.clone(), name.clone(), item.clone())
            }
            Self::Level { run, entity, level } => {
                Op::Level(run.clone(), entity.clone(), (*level).into())
            }
            Self::Cohort { run, name, level } => {
                Op::Cohort(run.clone(), name.clone(), (*level).into())
            }
            Self::Engage { run, graph, actor, item, at_us } => {
                Op::Engage(run.clone(), graph.clone(), actor.clone(), item.clone(), *at_us)
            }
            Self::Flush | Self::Checkpoint | Self::Compact(_) => return None,
        })
    }

    /// As one line of text, for a process that works on its own: see [`crate::worker`].
    pub fn to_line(&self) -> String {
        let line = |word: &str, parts: &[&[u8]]| {
            let mut line = word.to_owned();
            for part in parts {
                line.push(' ');
                line.extend(part.iter().map(|byte| format!("{byte:02x}")));
            }
            line
        };
        match self {
            Self::CreateRun { run } => line("run", &[run.as_bytes()]),
            Self::KvPut { run, key, value } => {
                line("put", &[run.as_bytes(), key.as_bytes(), value])
            }
            Self::KvDelete { run, key } => line("delete", &[run.as_bytes(), key.as_bytes()]),
            Self::EventAppend { run, stream, payload } => {
                line("append", &[run.as_bytes(), stream.as_bytes(), payload])
            }
            Self::StateSet { run, cell, value } => {
                line("set", &[run.as_bytes(), cell.as_bytes(), value])
            }
            Self::SignalRecord { run, name, entity, weight, at_us } => {
                let (weight, at) = (weight.to_be_bytes(), at_us.to_be_bytes());
                line("signal", &[run.as_bytes(), name.as_bytes(), entity.as_bytes(), &weight, &at])
            }
            Self::CollectionAdd { run, name, item } => {
                line("collect", &[run.as_bytes(), name.as_bytes(), item.as_bytes()])
            }
            Self::Level { run, entity, level } => {
                line("level", &[run.as_bytes(), entity.as_bytes(), &level.to_be_bytes()])
            }
            Self::Cohort { run, name, level } => {
                line("cohort", &[run.as_bytes(), name.as_bytes(), &level.to_be_bytes()])
            }
            Self::Engage { run, graph, actor, item, at_us } => {
                let names = [run, graph, actor, item].map(|name| name.as_bytes());
                let [run, graph, actor, item] = names;
                line("engage", &[run, graph, actor, item, &at_us.to_be_bytes()])
            }
            Self::Flush => line("flush", &[]),
            Self::Checkpoint => line("checkpoint", &[]),
            Self::Compact(CompactMode::WalOnly) => line("compact-wal", &[]),
            Self::Compact(CompactMode::Full) => line("compact-full", &[]),
        }
    }

    /// What [`Operation::to_line`] wrote.
    pub fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let word = words.next()?;
        let words = RefCell::new(words);
        let bytes = || unhex(words.borrow_mut().next()?);
        let text = || String::from_utf8(bytes()?).ok();
        let number = || Some(u32::from_be_bytes(bytes()?.try_into().ok()?));
        Some(match word {
            "run" => Self::CreateRun { run: text()? },
            "put" => Self::KvPut { run: text()?, key: text()?, value: bytes()? },
            "delete" => Self::KvDelete { run: text()?, key: text()? },
            "append" => Self::EventAppend { run: text()?, stream: text()?, payload: bytes()? },
            "set" => Self::StateSet { run: text()?, cell: text()?, value: bytes()? },
            "signal" => Self::SignalRecord {
                run: text()?,
                name: text()?,
                entity: text()?,
                weight: number()?,
                at_us: u64::from_be_bytes(bytes()?.try_into().ok()?),
            },
            "collect" => Self::CollectionAdd { run: text()?, name: text()?, item: text()? },
            "level" => Self::Level { run: text()?, entity: text()?, level: number()? },
            "cohort" => Self::Cohort { run: text()?, name: text()?, level: number()? },
            "engage" => Self::Engage {
                run: text()?,
                graph: text()?,
                actor: text()?,
                item: text()?,
                at_us: u64::from_be_bytes(bytes()?.try_into().ok()?),
            },
            "flush" => Self::Flush,
            "checkpoint" => Self::Checkpoint,
            "compact-wal" => Self::Compact(CompactMode::WalOnly),
            "compact-full" => Self::Compact(CompactMode::Full),
            _ => return None,
        })
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateRun { run } => write!(f, "create {run}"),
            Self::KvPut { run, key, value } => {
                write!(f, "put {run}:{key}, {} bytes", value.len())
            }
            Self::KvDelete { run, key } => write!(f, "delete {run}:{key}"),
            Self::EventAppend { run, stream, .. } => write!(f, "append to {run}:{stream}"),
            Self::StateSet { run, cell, .. } => write!(f, "set {run}:{cell}"),
            Self::SignalRecord { run, name, entity, .. } => {
                write!(f, "observe {run}:{name}:{entity}")
            }
            Self::CollectionAdd { run, name, item } => write!(f, "add {item} to {run}:{name}"),
            Self::Level { run, entity, level } => write!(f, "{run}:{entity} has level {level}"),
            Self::Cohort { name, level, .. } => write!(f, "cohort {name} from level {level} on"),
            Self::Engage { run, graph, actor, item, .. } => {
                write!(f, "{actor} engages with {run}:{graph}:{item}")
            }
            Self::Flush => f.write_str("flush"),
            Self::Checkpoint => f.write_str("checkpoint"),
            Self::Compact(mode) => write!(f, "compact {mode:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_over_a_pipe_unchanged() {
        let operations = [
            Operation::kv_put("r", "a key", [0, 10, 255]),
            Operation::kv_put("", "", ""),
            Operation::CreateRun { run: "r".into() },
            Operation::kv_delete("r", "ü"),
            Operation::event_append("r", "s", "x"),
            Operation::state_set("r", "c", ""),
            Operation::signal_record("r", "n", "e", 7, 1 << 50),
            Operation::collection_add("r", "set", "item"),
            Operation::level("r", "e", 3),
            Operation::cohort("r", "high", 2),
            Operation::engage("r", "g", "a", "i", 1 << 50),
            Operation::Flush,
            Operation::Checkpoint,
            Operation::Compact(CompactMode::WalOnly),
            Operation::Compact(CompactMode::Full),
        ];
        for operation in operations {
            let line = operation.to_line();
            assert!(!line.contains('\n'));
            assert_eq!(Operation::from_line(&line), Some(operation), "{line}");
        }
        assert_eq!(Operation::from_line("put zz"), None);
    }
}
