//! What a database must contain: the same operations, done on a map.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use steadfast_engine::{
    Database, Entry, Error, GraphDefinition, Predicate, Result, RunStatus, Signal, Timestamp,
    Transaction, Value, Version, View, limits,
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
    /// Adds an item to a collection: run, collection, item.
    Collect(String, String, String),
    /// Removes an item from a collection: run, collection, item.
    Uncollect(String, String, String),
    /// Removes a collection with its items: run, collection.
    Uncollected(String, String),
    /// Gives an entity the one attribute `level`: run, entity, its value.
    Level(String, String, i64),
    /// Defines a cohort, of those who have a level of at least so much, as it was defined before
    /// if it was.
    Cohort(String, String, i64),
    /// Engages: run, graph, actor, item, µs since 1970. The graph keeps [`GRAPH`].
    Engage(String, String, String, String, u64),
    /// Gives a run a status, if its status may become that one.
    Status(String, RunStatus),
    /// Deletes a run with everything in it.
    DeleteRun(String),
    /// Forks a run, if there is none of the second name. It is all that its transaction does:
    /// what comes later in one would belong to the fork, too.
    Fork(String, String),
}

/// What the graphs of [`Op::Engage`] keep: so little that it overflows soon.
pub const GRAPH: GraphDefinition =
    GraphDefinition { version: 1, edges_max: 2, recent_max: 3, half_life: None };

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
            Self::Collect(run, name, item) => write!(f, "add {item} to {run}/{name}"),
            Self::Uncollect(run, name, item) => write!(f, "remove {item} from {run}/{name}"),
            Self::Uncollected(run, name) => write!(f, "remove all of {run}/{name}"),
            Self::Level(run, entity, level) => write!(f, "{run}/{entity} has level {level}"),
            Self::Cohort(_, name, level) => write!(f, "cohort {name} from level {level} on"),
            Self::Engage(run, graph, actor, item, at) => {
                write!(f, "{actor} engages with {run}/{graph}/{item} at {at} µs")
            }
            Self::Status(run, status) => write!(f, "{run} is {status}"),
            Self::DeleteRun(run) => write!(f, "delete {run}"),
            Self::Fork(parent, child) => write!(f, "fork {parent} as {child}"),
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
            Self::Collect(run, name, item) => {
                let run = tx.get_or_create_run(run)?;
                tx.collection_add(run, name, item).map(drop)
            }
            Self::Uncollect(run, name, item) => {
                let run = tx.get_or_create_run(run)?;
                tx.collection_remove(run, name, item).map(drop)
            }
            Self::Uncollected(run, name) => {
                let run = tx.get_or_create_run(run)?;
                tx.collection_delete(run, name).map(drop)
            }
            Self::Level(run, entity, level) => {
                let run = tx.get_or_create_run(run)?;
                tx.attributes_set(run, entity, [("level".into(), (*level).into())].into())
            }
            Self::Cohort(run, name, level) => {
                tx.get_or_create_run(run)?;
                tx.define_cohort(name, 1, &Predicate::ge("level", *level))
            }
            Self::Engage(run, graph, actor, item, at) => {
                let run = tx.get_or_create_run(run)?;
                tx.define_graph(graph, &GRAPH)?;
                tx.engage_at(run, graph, actor, item, Timestamp::from_micros(*at))
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
            Self::Fork(parent, child) => {
                tx.get_or_create_run(parent)?;
                match tx.resolve_run(child) {
                    Ok(_) => Ok(()),
                    // One that is too deep already stays without a fork.
                    Err(_) => match tx.fork_run(parent, child) {
                        Err(Error::Invalid(_)) | Ok(_) => Ok(()),
                        Err(error) => Err(error),
                    },
                }
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
    /// An item of a collection: run, collection, item.
    Collected(String, String, Vec<u8>),
    /// The attributes of an entity of a run.
    Attributes(String, Vec<u8>),
    /// What a cohort has of a signal: run, cohort, name.
    Cohort(String, String, String),
    /// What an actor engaged with last: run, graph, actor.
    Engaged(String, String, Vec<u8>),
    /// The edges of an item: run, graph, item.
    CoEngaged(String, String, Vec<u8>),
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
            | Self::Signal(run, ..)
            | Self::Collected(run, ..)
            | Self::Attributes(run, _)
            | Self::Cohort(run, ..)
            | Self::Engaged(run, ..)
            | Self::CoEngaged(run, ..) => run,
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
            Self::Collected(run, name, item) => {
                write!(f, "collection:{run}:{name}:{}", text(item))
            }
            Self::Attributes(run, entity) => write!(f, "attributes:{run}:{}", text(entity)),
            Self::Cohort(run, cohort, name) => write!(f, "cohort:{run}:{cohort}:{name}"),
            Self::Engaged(run, graph, actor) => write!(f, "engaged:{run}:{graph}:{}", text(actor)),
            Self::CoEngaged(run, graph, item) => {
                write!(f, "co-engaged:{run}:{graph}:{}", text(item))
            }
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

/// Runs, key-values, events, state cells, signals, and what there is of sets, cohorts and graphs,
/// with their versions.
#[derive(Debug, Clone, Default)]
pub struct ReferenceModel {
    content: Content,
    deleted: BTreeSet<Item>,
    streams: BTreeMap<(String, String), u64>,
    /// Weights and times of everything that was observed of a signal.
    observed: BTreeMap<Item, Vec<(u32, u64)>>,
    /// How many runs lie beneath those that are forks.
    depths: BTreeMap<String, usize>,
    /// From which level on an entity is in a cohort.
    cohorts: BTreeMap<String, i64>,
    engaged: BTreeMap<Item, Vec<String>>,
    co_engaged: BTreeMap<Item, BTreeMap<String, Weight>>,
}

/// How often an edge was counted, and its latest time.
type Weight = (i64, u64);

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

fn edges_value(edges: impl Iterator<Item = (String, f64, u64)>) -> Value {
    let edge = |(name, weight, at): (String, f64, u64)| {
        let at = Value::Int(i64::try_from(at).unwrap_or(i64::MAX));
        (name, Value::List(vec![Value::Float(weight), at]))
    };
    Value::Map(edges.map(edge).collect())
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
    let (Item::Signal(..) | Item::Cohort(..), Value::Map(one), Value::Map(other)) =
        (item, one, other)
    else {
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
            | Op::Collect(run, ..)
            | Op::Uncollect(run, ..)
            | Op::Uncollected(run, _)
            | Op::Level(run, ..)
            | Op::Cohort(run, ..)
            | Op::Engage(run, ..)
            | Op::Status(run, _)
            | Op::DeleteRun(run)
            | Op::Fork(run, _)) = op;
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
                    let level = Item::Attributes(run.clone(), entity.clone().into());
                    let level = self.content.get(&level).and_then(|(_, level)| level.as_int());
                    let is_in = |from: i64| level.is_some_and(|level| level >= from);
                    let cohorts: Vec<Item> = (self.cohorts.iter())
                        .filter(|(_, from)| is_in(**from))
                        .map(|(cohort, _)| Item::Cohort(run.clone(), cohort.clone(), name.clone()))
                        .collect();
                    let own = Item::Signal(run.clone(), name.clone(), entity.clone().into());
                    for item in std::iter::once(own).chain(cohorts) {
                        let observed = self.observed.entry(item.clone()).or_default();
                        observed.push((*weight, *at));
                        let value = signal_of_all(observed);
                        self.write(item, version, &value);
                    }
                }
                Op::Collect(_, name, item) => {
                    let item = Item::Collected(run.clone(), name.clone(), item.clone().into());
                    if !self.content.contains_key(&item) {
                        self.write(item, version, &Value::Null);
                    }
                }
                Op::Uncollect(_, name, item) => {
                    let gone = Item::Collected(run.clone(), name.clone(), item.clone().into());
                    if self.content.remove(&gone).is_some() {
                        self.deleted.insert(gone);
                    }
                }
                Op::Uncollected(_, name) => {
                    let of = |item: &Item| matches!(item, Item::Collected(its, of, _) if its == run && of == name);
                    self.deleted.extend(self.content.keys().filter(|item| of(item)).cloned());
                    self.content.retain(|item, _| !of(item));
                }
                Op::Level(_, entity, level) => {
                    let item = Item::Attributes(run.clone(), entity.clone().into());
                    self.write(item, version, &Value::Int(*level));
                }
                Op::Cohort(_, name, level) => drop(self.cohorts.insert(name.clone(), *level)),
                Op::Engage(_, graph, actor, item, at) => {
                    let actor = Item::Engaged(run.clone(), graph.clone(), actor.clone().into());
                    let mut recent = self.engaged.remove(&actor).unwrap_or_default();
                    recent.retain(|other| other != item);
                    for other in &recent {
                        self.count_edge(run, graph, (other, item), *at, version);
                        self.count_edge(run, graph, (item, other), *at, version);
                    }
                    recent.insert(0, item.clone());
                    recent.truncate(GRAPH.recent_max);
                    let list = recent.iter().map(|item| Value::from(item.as_str()));
                    self.write(actor.clone(), version, &Value::List(list.collect()));
                    self.engaged.insert(actor, recent);
                }
                Op::Status(_, status) => {
                    let item = Item::Run(run.clone());
                    let before = self.content.get(&item).map(|(_, value)| status_of(value));
                    let before = before.unwrap_or_default();
                    if before != *status && before.may_become(*status) {
                        self.write(item, version, &value_of(*status));
                    }
                }
                Op::Fork(parent, child) => self.fork(parent, child, version),
                Op::DeleteRun(_) => {
                    self.depths.remove(run);
                    let gone = |item: &Item| item.run() == run;
                    let items: Vec<_> = self.content.keys().filter(|item| gone(item)).collect();
                    self.deleted.extend(items.into_iter().cloned());
                    self.content.retain(|item, _| !gone(item));
                    self.streams.retain(|(of, _), _| of != run);
                    self.observed.retain(|item, _| item.run() != run);
                    self.engaged.retain(|item, _| item.run() != run);
                    self.co_engaged.retain(|item, _| item.run() != run);
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

    /// A copy of all there is.
    fn fork(&mut self, parent: &str, child: &str, version: Version) {
        let depth = self.depths.get(parent).copied().unwrap_or(0) + 1;
        let new = Item::Run(child.to_owned());
        if self.content.contains_key(&new) || depth > limits::FORK_DEPTH_MAX {
            return;
        }
        self.depths.insert(child.to_owned(), depth);
        let of_child = |item: &Item| {
            let run = child.to_owned();
            match item.clone() {
                Item::Run(_) => Item::Run(run),
                Item::Kv(_, key) => Item::Kv(run, key),
                Item::Event(_, stream, seq) => Item::Event(run, stream, seq),
                Item::Stream(_, stream) => Item::Stream(run, stream),
                Item::State(_, cell) => Item::State(run, cell),
                Item::Signal(_, name, entity) => Item::Signal(run, name, entity),
                Item::Collected(_, name, item) => Item::Collected(run, name, item),
                Item::Attributes(_, entity) => Item::Attributes(run, entity),
                Item::Cohort(_, name, signal) => Item::Cohort(run, name, signal),
                Item::Engaged(_, graph, actor) => Item::Engaged(run, graph, actor),
                Item::CoEngaged(_, graph, item) => Item::CoEngaged(run, graph, item),
            }
        };
        let of_parent: Vec<_> = (self.content.iter())
            .filter(|(item, _)| item.run() == parent && !matches!(item, Item::Run(_)))
            .map(|(item, content)| (of_child(item), content.clone()))
            .collect();
        for (item, (version, value)) in of_parent {
            self.write(item, version, &value);
        }
        self.write(new, version, &Value::Null);
        let streams: Vec<_> = (self.streams.iter())
            .filter(|((run, _), _)| run == parent)
            .map(|((_, stream), next)| ((child.to_owned(), stream.clone()), *next))
            .collect();
        self.streams.extend(streams);
        let observed: Vec<_> = (self.observed.iter())
            .filter(|(item, _)| item.run() == parent)
            .map(|(item, observed)| (of_child(item), observed.clone()))
            .collect();
        self.observed.extend(observed);
        let engaged: Vec<_> = (self.engaged.iter())
            .filter(|(item, _)| item.run() == parent)
            .map(|(item, engaged)| (of_child(item), engaged.clone()))
            .collect();
        self.engaged.extend(engaged);
        let co_engaged: Vec<_> = (self.co_engaged.iter())
            .filter(|(item, _)| item.run() == parent)
            .map(|(item, edges)| (of_child(item), edges.clone()))
            .collect();
        self.co_engaged.extend(co_engaged);
    }

    /// Counts the edge from one item to another. Of too many the lightest goes, of those the
    /// oldest, of those the last, but not the one that was counted.
    fn count_edge(
        &mut self,
        run: &str,
        graph: &str,
        (from, to): (&str, &str),
        at: u64,
        version: Version,
    ) {
        let item = Item::CoEngaged(run.into(), graph.into(), from.into());
        let mut edges = self.co_engaged.remove(&item).unwrap_or_default();
        let edge = edges.entry(to.to_owned()).or_insert((0, at));
        *edge = (edge.0 + 1, edge.1.max(at));
        while edges.len() > GRAPH.edges_max {
            let others = edges.iter().filter(|(other, _)| *other != to);
            let place = |(name, (weight, at)): &(&String, &Weight)| {
                (*weight, *at, std::cmp::Reverse((*name).clone()))
            };
            let Some(gone) = others.min_by_key(place).map(|(name, _)| name.clone()) else { break };
            edges.remove(&gone);
        }
        let value = edges_value(edges.iter().map(|(name, (weight, at))| {
            #[allow(clippy::cast_precision_loss, reason = "counts of a short program")]
            (name.clone(), *weight as f64, *at)
        }));
        self.write(item.clone(), version, &value);
        self.co_engaged.insert(item, edges);
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
                Entry::Collection { name: collection, item, .. } => {
                    let item = item.unwrap_or_default();
                    (Item::Collected(name.clone(), collection, item), None)
                }
                Entry::Attributes { entity, attributes, .. } => {
                    let level = attributes.and_then(|mut all| all.remove("level"));
                    (Item::Attributes(name.clone(), entity), level)
                }
                Entry::Cohort { cohort, name: signal_name, signal, .. } => (
                    Item::Cohort(name.clone(), cohort, signal_name),
                    signal.as_ref().map(signal_found),
                ),
                Entry::Engaged { graph, actor, items, .. } => {
                    let items = items.unwrap_or_default();
                    let text = |item: &Vec<u8>| Value::from(&*String::from_utf8_lossy(item));
                    let list = Value::List(items.iter().map(text).collect());
                    (Item::Engaged(name.clone(), graph, actor), Some(list))
                }
                Entry::CoEngaged { graph, item, edges, .. } => {
                    let edges = edges.unwrap_or_default();
                    let edges = edges_value(edges.iter().map(|edge| {
                        let name = String::from_utf8_lossy(&edge.item).into_owned();
                        (name, edge.weight, edge.at.as_micros())
                    }));
                    (Item::CoEngaged(name.clone(), graph, item), Some(edges))
                }
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
            Op::Cohort("r".into(), "high".into(), 5),
            Op::Level("r".into(), "e".into(), 5),
            Op::Level("r".into(), "f".into(), 4),
            Op::Signal("r".into(), "n".into(), "e".into(), 1, 60_000_000_000),
            Op::Signal("r".into(), "n".into(), "f".into(), 1, 60_000_000_000),
            Op::Collect("r".into(), "set".into(), "one".into()),
            Op::Collect("r".into(), "set".into(), "two".into()),
            Op::Uncollect("r".into(), "set".into(), "one".into()),
            Op::Engage("r".into(), "g".into(), "x".into(), "a".into(), 7),
            Op::Engage("r".into(), "g".into(), "x".into(), "b".into(), 8),
            Op::Engage("r".into(), "g".into(), "x".into(), "c".into(), 9),
            Op::Engage("r".into(), "g".into(), "x".into(), "d".into(), 5),
            Op::Engage("r".into(), "g".into(), "x".into(), "a".into(), 6),
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

        let due = |item: Item| model.content()[&item].1.clone();
        let cohort = due(Item::Cohort("r".into(), "high".into(), "n".into()));
        assert!(format!("{cohort:?}").contains("\"count\": Int(1)"), "{cohort:?}");
        assert!(!model.content().contains_key(&Item::Collected(
            "r".into(),
            "set".into(),
            b"one".to_vec()
        )));
        let Value::Map(edges) = due(Item::CoEngaged("r".into(), "g".into(), b"d".to_vec())) else {
            panic!("edges are a map")
        };
        assert_eq!(edges.len(), GRAPH.edges_max, "of three");

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
        let z = Difference::Extra(Item::Kv("r".into(), b"z".to_vec()));
        assert_eq!(differences.last(), Some(&z));
    }
}
