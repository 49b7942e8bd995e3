//! What a database must contain: the same operations, done on a map.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use steadfast_engine::{
    Database, Entry, Result, RunStatus, Signal, Timestamp, Transaction, Value, Version, View,
};

/// One write of a transaction. A run that is not there is created with it.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Only creates the run.
    Run(String),
    /// Gives a key a value.
    Put(String, String, Value),
    /// Removes a key.
    Delete(String, String),
    /// Appends an event to a stream.
    Append(String, String, Value),
    /// Trims a stream: run, stream, how many of the newest events stay. Comes before whatever the
    /// same transaction appends to that stream.
    Trim(String, String, u64),
    /// Sets a state cell.
    Set(String, String, Value),
    /// Observes an entity: run, signal, entity, weight, µs since 1970.
    Signal(String, String, String, u32, u64),
    /// Gives a run a status, if its status may become that one.
    Status(String, RunStatus),
    /// Deletes a run with everything in it.
    DeleteRun(String),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |value: &Value| match value {
            Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
            value => format!("{value:?}"),
        };
        match self {
            Self::Run(run) => write!(f, "create {run}"),
            Self::Put(run, key, value) => write!(f, "put {run}/{key} = {}", size(value)),
            Self::Delete(run, key) => write!(f, "delete {run}/{key}"),
            Self::Append(run, stream, value) => {
                write!(f, "append to {run}/{stream}: {}", size(value))
            }
            Self::Trim(run, stream, stay) => {
                write!(f, "trim {run}/{stream} to its newest {stay} events")
            }
            Self::Set(run, cell, value) => write!(f, "set {run}/{cell} = {}", size(value)),
            Self::Signal(run, name, entity, weight, at) => {
                write!(f, "observe {run}/{name}/{entity}: {weight} at {at} µs")
            }
            Self::Status(run, status) => write!(f, "{run} is {status}"),
            Self::DeleteRun(run) => write!(f, "delete {run}"),
        }
    }
}

impl Op {
    /// Does it in a transaction.
    pub fn apply(&self, tx: &mut Transaction) -> Result<()> {
        match self {
            Self::Run(run) => tx.get_or_create_run(run).map(drop),
            Self::Put(run, key, value) => {
                let run = tx.get_or_create_run(run)?;
                tx.kv_put(run, key, value.clone())
            }
            Self::Delete(run, key) => {
                let run = tx.get_or_create_run(run)?;
                tx.kv_delete(run, key)
            }
            Self::Append(run, stream, payload) => {
                let run = tx.get_or_create_run(run)?;
                tx.event_append(run, stream, payload.clone()).map(drop)
            }
            Self::Trim(run, stream, stay) => {
                let run = tx.get_or_create_run(run)?;
                let events = tx.event_last(run, stream)?.map_or(0, |last| last + 1);
                tx.event_trim(run, stream, events.saturating_sub(*stay)).map(drop)
            }
            Self::Set(run, cell, value) => {
                let run = tx.get_or_create_run(run)?;
                tx.state_set(run, cell, value.clone())
            }
            Self::Signal(run, name, entity, weight, at) => {
                let run = tx.get_or_create_run(run)?;
                let at = Timestamp::from_micros(*at);
                tx.signal_record_at(run, name, entity, f64::from(*weight), at)
            }
            Self::Status(run, status) => {
                tx.get_or_create_run(run)?;
                match tx.run_info(run)?.status.may_become(*status) {
                    true => tx.set_run_status(run, *status),
                    false => Ok(()),
                }
            }
            Self::DeleteRun(run) => {
                tx.get_or_create_run(run)?;
                tx.delete_run(run)
            }
        }
    }
}

/// What something in a database is found by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// A run, by name.
    Run(String),
    /// A key of a run.
    Kv(String, Vec<u8>),
    /// Where a stream was trimmed: run, stream. What it holds is the oldest event that is left.
    Stream(String, Vec<u8>),
    /// An event: run, stream, sequence number.
    Event(String, Vec<u8>, u64),
    /// A state cell of a run.
    State(String, Vec<u8>),
    /// A signal of an entity: run, name, entity.
    Signal(String, String, Vec<u8>),
}

impl Item {
    /// The run that it is, or is in.
    pub fn run(&self) -> &str {
        match self {
            Self::Run(run)
            | Self::Kv(run, _)
            | Self::Stream(run, _)
            | Self::Event(run, ..)
            | Self::State(run, _)
            | Self::Signal(run, ..) => run,
        }
    }
}

/// What the content of a run is: its status, nothing for one that was never given another.
fn value_of(status: RunStatus) -> Value {
    match status {
        RunStatus::Active => Value::Null,
        status => Value::from(status.name()),
    }
}

fn status_of(value: &Value) -> RunStatus {
    value.as_str().and_then(RunStatus::from_name).unwrap_or_default()
}

/// `kv:run:key`, `event:run:stream:3`: for people, who do not read bytes.
impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self {
            Self::Run(run) => write!(f, "run:{run}"),
            Self::Kv(run, key) => write!(f, "kv:{run}:{}", text(key)),
            Self::Stream(run, stream) => write!(f, "stream:{run}:{}", text(stream)),
            Self::Event(run, stream, seq) => write!(f, "event:{run}:{}:{seq}", text(stream)),
            Self::State(run, cell) => write!(f, "state:{run}:{}", text(cell)),
            Self::Signal(run, name, entity) => write!(f, "signal:{run}:{name}:{}", text(entity)),
        }
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A value in few words: of long ones the beginning.
pub(crate) fn short(value: &Value) -> String {
    const CHARS_MAX: usize = 60;
    let mut text = match value {
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains(char::is_control) => format!("{text:?}"),
            _ => format!("{} bytes", bytes.len()),
        },
        other => format!("{other:?}"),
    };
    if let Some((at, _)) = text.char_indices().nth(CHARS_MAX) {
        text.truncate(at);
        text.push('…');
    }
    text
}

/// Everything in a database: value and version by item.
pub type Content = BTreeMap<Item, (Version, Value)>;

/// Runs, key-values, events, state cells and signals, with their versions.
#[derive(Debug, Clone, Default)]
pub struct ReferenceModel {
    content: Content,
    deleted: BTreeSet<Item>,
    streams: BTreeMap<(String, String), u64>,
    /// Weights and times of everything that was observed of a signal.
    observed: BTreeMap<Item, Vec<(u32, u64)>>,
}

/// What a signal that was never defined must be, by what it means and not by how it is kept:
/// everything that was observed, looked at again.
fn signal_of_all(observed: &[(u32, u64)]) -> Value {
    const HALF_LIFE_US: f64 = 7.0 * 24.0 * 3600.0 * 1e6;
    let newest = observed.iter().map(|(_, at)| *at).max().unwrap_or(0);
    #[allow(clippy::cast_precision_loss, reason = "six decimals are compared")]
    let weight = |(weight, at): &(u32, u64)| {
        f64::from(*weight) * (-((newest - at) as f64) / HALF_LIFE_US).exp2()
    };
    let buckets = |most: u64, bucket_us: u64| {
        let counts = (0..most).map(|ago| {
            let inside = |at: u64| newest / bucket_us - at / bucket_us == ago;
            observed.iter().filter(|(_, at)| inside(*at)).count() as u64
        });
        counts.collect::<Vec<_>>()
    };
    let (minutes, hours) = (buckets(60, 60_000_000), buckets(24, 3_600_000_000));
    let score = observed.iter().map(weight).sum();
    signal_value(score, newest, observed.len() as u64, minutes, hours)
}

/// The same of a signal that was found.
fn signal_found(signal: &Signal) -> Value {
    let filled = |counts: &[u32], most: usize| {
        counts.iter().copied().map(u64::from).chain(std::iter::repeat(0)).take(most).collect()
    };
    let (minutes, hours) = (filled(&signal.minutes, 60), filled(&signal.hours, 24));
    signal_value(signal.score, signal.newest.as_micros(), signal.count, minutes, hours)
}

fn signal_value(score: f64, newest: u64, count: u64, minutes: Vec<u64>, hours: Vec<u64>) -> Value {
    let int = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
    let list = |counts: Vec<u64>| Value::List(counts.into_iter().map(int).collect());
    let fields = [
        ("count", int(count)),
        ("hours", list(hours)),
        ("minutes", list(minutes)),
        ("newest_us", int(newest)),
        ("score", Value::Float(score)),
    ];
    Value::Map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Whether two values are the same; of signals, to six decimals of the score.
fn same(item: &Item, one: &Value, other: &Value) -> bool {
    if one == other {
        return true;
    }
    let (Item::Signal(..), Value::Map(one), Value::Map(other)) = (item, one, other) else {
        return false;
    };
    one.len() == other.len()
        && one.iter().zip(other).all(|pair| match pair {
            ((a, Value::Float(x)), (b, Value::Float(y))) => a == b && (x - y).abs() < 1e-6,
            (one, other) => one == other,
        })
}

/// Something that is not as it must be.
#[derive(Clone, PartialEq)]
pub enum Difference {
    /// It must be there.
    Missing(Item),
    /// It was never written.
    Extra(Item),
    /// It was deleted and is there again.
    Resurrected(Item),
    /// It has another value.
    OtherValue {
        /// What.
        item: Item,
        /// What it must be.
        expected: Value,
        /// What it is.
        found: Value,
    },
    /// It has the right value and another version.
    OtherVersion {
        /// What.
        item: Item,
        /// What it must be.
        expected: Version,
        /// What it is.
        found: Version,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(item) => write!(f, "{item} is missing"),
            Self::Extra(item) => write!(f, "{item} is there, and nobody wrote it"),
            Self::Resurrected(item) => write!(f, "{item} was deleted, and is there again"),
            Self::OtherValue {
                item,
                expected: Value::Bytes(expected),
                found: Value::Bytes(found),
            } => {
                let same = expected.iter().zip(found).take_while(|(one, other)| one == other);
                let (at, due, are) = (same.count(), expected.len(), found.len());
                write!(
                    f,
                    "{item} is not what it must be: {are} bytes, due {due}, from byte {at} on"
                )
            }
            Self::OtherValue { item, expected, found } => {
                write!(f, "{item} is {}, due {}", short(found), short(expected))
            }
            Self::OtherVersion { item, expected, found } => {
                write!(f, "{item} has version {found}, due {expected}")
            }
        }
    }
}

impl fmt::Debug for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ReferenceModel {
    /// An empty database.
    pub fn new() -> Self {
        Self::default()
    }

    /// What must be there.
    pub const fn content(&self) -> &Content {
        &self.content
    }

    /// Does what a transaction did that was committed as `version`.
    pub fn apply(&mut self, ops: &[Op], version: Version) {
        for op in ops {
            let (Op::Run(run)
            | Op::Put(run, ..)
            | Op::Delete(run, ..)
            | Op::Append(run, ..)
            | Op::Trim(run, ..)
            | Op::Set(run, ..)
            | Op::Signal(run, ..)
            | Op::Status(run, _)
            | Op::DeleteRun(run)) = op;
            let item = Item::Run(run.clone());
            self.deleted.remove(&item);
            self.content.entry(item).or_insert((version, Value::Null));
            match op {
                Op::Run(_) => {}
                Op::Put(_, key, value) => {
                    self.write(Item::Kv(run.clone(), key.clone().into()), version, value);
                }
                Op::Delete(_, key) => {
                    let item = Item::Kv(run.clone(), key.clone().into());
                    self.content.remove(&item);
                    self.deleted.insert(item);
                }
                Op::Append(_, stream, payload) => {
                    let next = self.streams.entry((run.clone(), stream.clone())).or_default();
                    let item = Item::Event(run.clone(), stream.clone().into(), *next);
                    *next += 1;
                    self.write(item, version, payload);
                }
                Op::Trim(_, stream, stay) => {
                    let events = self.streams.get(&(run.clone(), stream.clone()));
                    let oldest = events.copied().unwrap_or(0).saturating_sub(*stay);
                    self.trim(run, stream, oldest, version);
                }
                Op::Set(_, cell, value) => {
                    self.write(Item::State(run.clone(), cell.clone().into()), version, value);
                }
                Op::Signal(_, name, entity, weight, at) => {
                    let item = Item::Signal(run.clone(), name.clone(), entity.clone().into());
                    let observed = self.observed.entry(item.clone()).or_default();
                    observed.push((*weight, *at));
                    let value = signal_of_all(observed);
                    self.write(item, version, &value);
                }
                Op::Status(_, status) => {
                    let item = Item::Run(run.clone());
                    let before = self.content.get(&item).map(|(_, value)| status_of(value));
                    let before = before.unwrap_or_default();
                    if before != *status && before.may_become(*status) {
                        self.write(item, version, &value_of(*status));
                    }
                }
                Op::DeleteRun(_) => {
                    let gone = |item: &Item| item.run() == run;
                    let items: Vec<_> = self.content.keys().filter(|item| gone(item)).collect();
                    self.deleted.extend(items.into_iter().cloned());
                    self.content.retain(|item, _| !gone(item));
                    self.streams.retain(|(of, _), _| of != run);
                    self.observed.retain(|item, _| item.run() != run);
                }
            }
        }
    }

    fn trim(&mut self, run: &str, stream: &str, oldest: u64, version: Version) {
        let item = Item::Stream(run.to_owned(), stream.into());
        let before = self.content.get(&item).and_then(|(_, value)| value.as_int()).unwrap_or(0);
        let value = i64::try_from(oldest).unwrap_or(i64::MAX);
        if value <= before {
            return;
        }
        for seq in before.unsigned_abs()..oldest {
            let item = Item::Event(run.to_owned(), stream.into(), seq);
            self.content.remove(&item);
            self.deleted.insert(item);
        }
        self.write(item, version, &Value::Int(value));
    }

    fn write(&mut self, item: Item, version: Version, value: &Value) {
        self.deleted.remove(&item);
        self.content.insert(item, (version, value.clone()));
    }

    /// Everything in which `found` is not as it must be.
    pub fn compare(&self, found: &Content) -> Vec<Difference> {
        let mut differences = Vec::new();
        for (item, (version, value)) in &self.content {
            let item = item.clone();
            match found.get(&item) {
                None => differences.push(Difference::Missing(item)),
                Some((_, other)) if !same(&item, other, value) => {
                    let (expected, found) = (value.clone(), other.clone());
                    differences.push(Difference::OtherValue { item, expected, found });
                }
                Some((other, _)) if other != version => {
                    let (expected, found) = (*version, *other);
                    differences.push(Difference::OtherVersion { item, expected, found });
                }
                Some(_) => {}
            }
        }
        for item in found.keys().filter(|item| !self.content.contains_key(item)).cloned() {
            differences.push(if self.deleted.contains(&item) {
                Difference::Resurrected(item)
            } else {
                Difference::Extra(item)
            });
        }
        differences
    }
}

/// Everything that a view shows, the hash chains of its streams followed.
pub fn content_of(view: &View) -> Result<Content> {
    let mut content = Vec::new();
    for info in view.list_runs()? {
        let name = info.name;
        content.push((Item::Run(name.clone()), (info.version, value_of(info.status))));
        // Content says what events hold; the chains say that nothing else was changed.
        view.event_verify_all(info.run)?;
        for entry in view.entries(info.run) {
            let entry = entry?;
            let version = entry.version();
            let (item, value) = match entry {
                Entry::Kv { key, value, .. } => (Item::Kv(name.clone(), key), value),
                Entry::Stream { stream, state, .. } => {
                    let oldest = i64::try_from(state.oldest()).unwrap_or(i64::MAX);
                    (Item::Stream(name.clone(), stream), Some(Value::Int(oldest)))
                }
                Entry::Event { stream, event } => {
                    (Item::Event(name.clone(), stream, event.seq), Some(event.payload))
                }
                Entry::State { cell, value, .. } => (Item::State(name.clone(), cell), value),
                Entry::Signal { name: signal_name, entity, signal, .. } => (
                    Item::Signal(name.clone(), signal_name, entity),
                    signal.as_ref().map(signal_found),
                ),
                _ => continue,
            };
            content.push((item, (version, value.unwrap_or(Value::Null))));
        }
    }
    // All at once is quicker than one after the other.
    Ok(content.into_iter().collect())
}

/// Everything that readers see now.
pub fn content_now(db: &Database) -> Result<Content> {
    content_of(&db.view()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_database_and_lists_every_difference() {
        let ops = [
            Op::Put("r".into(), "a".into(), Value::Int(1)),
            Op::Put("r".into(), "b".into(), Value::Int(2)),
            Op::Append("r".into(), "s".into(), Value::from("e")),
            Op::Set("r".into(), "c".into(), Value::Bool(true)),
            Op::Signal("r".into(), "n".into(), "e".into(), 3, 50_000_000_000),
            Op::Signal("r".into(), "n".into(), "e".into(), 2, 40_000_000_000),
        ];
        let db = Database::in_memory().unwrap();
        let mut model = ReferenceModel::new();
        let apply = |ops: &[Op]| {
            db.transaction(|tx| ops.iter().try_for_each(|op| op.apply(tx))).unwrap().1.version()
        };
        model.apply(&ops, apply(&ops));
        assert_eq!(model.compare(&content_now(&db).unwrap()), []);

        let (ahead, trim) = (model.clone(), [Op::Trim("r".into(), "s".into(), 0)]);
        let mut trimmed = ahead;
        trimmed.apply(&trim, Version(9));
        let s =
            (Item::Stream("r".into(), b"s".to_vec()), Item::Event("r".into(), b"s".to_vec(), 0));
        let expected = [Difference::Missing(s.0), Difference::Resurrected(s.1)];
        assert_eq!(trimmed.compare(&content_now(&db).unwrap()), expected);
        model.apply(&trim, apply(&trim));
        assert_eq!(model.compare(&content_now(&db).unwrap()), []);

        let delete = [Op::Delete("r".into(), "a".into())];
        model.apply(&delete, Version(9));
        let a = Item::Kv("r".into(), b"a".to_vec());
        let found = content_now(&db).unwrap();
        assert_eq!(model.compare(&found), [Difference::Resurrected(a.clone())]);
        apply(&delete);
        apply(&[Op::Put("r".into(), "b".into(), Value::Int(3))]);
        apply(&[Op::Put("r".into(), "z".into(), Value::Null)]);
        apply(&[Op::Signal("r".into(), "n".into(), "e".into(), 1, 40_000_000_000)]);
        let mut other = model.clone();
        let status = [Op::Status("r".into(), RunStatus::Failed)];
        other.apply(&status, Version(10));
        let gone = other.compare(&content_now(&db).unwrap());
        assert!(matches!(gone[0], Difference::OtherValue { .. }), "{gone:?}");
        other.apply(&[Op::DeleteRun("r".into())], Version(11));
        let gone = other.compare(&content_now(&db).unwrap());
        assert!(gone.contains(&Difference::Resurrected(Item::Run("r".into()))), "{gone:?}");
        let differences = model.compare(&content_now(&db).unwrap());
        let counted_twice = differences.iter().any(|difference| {
            matches!(difference, Difference::OtherValue { item: Item::Signal(..), .. })
        });
        assert!(counted_twice, "{differences:?}");
        assert!(matches!(differences[0], Difference::OtherValue { .. }), "{differences:?}");
        assert_eq!(differences[2], Difference::Extra(Item::Kv("r".into(), b"z".to_vec())));
    }
}
