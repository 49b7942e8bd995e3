//! Co-engagement: which items the same actors engage with, as the heaviest edges of each item.
//!
//! A graph remembers the last items of each actor. Engaging with another item makes an edge
//! between it and each of those, in both directions, or one heavier. An item keeps a bounded
//! number of edges, so an engagement costs what the definition of its graph allows and no more.
//! All of it is read and written in the transaction, so actors that meet at an item follow one
//! another, and the log has what came of it.

use steadfast_core::engagement::{Edges, GraphDefinition, Recent, actor_key, graph_key, item_key};
use steadfast_core::signal::Observation;
use steadfast_core::{
    CrashPoint, Key, KeyRef, NamespaceId, Record, Timestamp, TypeTag, Version, check_crash_point,
    prefix_end,
};

use crate::commit::Receipt;
use crate::database::Database;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::runs::Run;
use crate::source::Source;
use crate::transaction::Transaction;
use crate::view::View;

/// The definition of a graph and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DefinedGraph {
    /// Its name.
    pub name: String,
    /// What it keeps.
    pub definition: GraphDefinition,
    /// The commit that wrote this.
    pub version: Version,
    /// When that was.
    pub timestamp: Timestamp,
}

/// Another item that actors engaged with as well.
#[derive(Debug, Clone, PartialEq)]
pub struct CoEngaged {
    /// The other item.
    pub item: Vec<u8>,
    /// How often, faded as the definition of the graph says.
    pub weight: f64,
}

/// What `graph` keeps.
fn definition(source: &mut impl Source, graph: &str) -> Result<GraphDefinition> {
    match source.record(KeyRef::from(&graph_key(graph)?))? {
        Some(record) => defined(&record),
        None => Ok(GraphDefinition::default()),
    }
}

fn co_engaged(
    mut source: impl Source,
    (run, graph, item): (Run, &str, &[u8]),
    now: Timestamp,
    most: usize,
) -> Result<Vec<CoEngaged>> {
    source.check_run(run)?;
    let key = item_key(run.namespace, graph, item)?;
    let Some(record) = source.record(KeyRef::from(&key))? else { return Ok(Vec::new()) };
    let definition = definition(&mut source, graph)?;
    let all = edges_in(&record)?.heaviest(&definition, now);
    // An older definition may have allowed more.
    let all = all.into_iter().take(most.min(definition.edges_max));
    Ok(all.map(|(item, weight)| CoEngaged { item, weight }).collect())
}

fn engaged(mut source: impl Source, run: Run, graph: &str, actor: &[u8]) -> Result<Vec<Vec<u8>>> {
    source.check_run(run)?;
    let record = source.record(KeyRef::from(&actor_key(run.namespace, graph, actor)?))?;
    Ok(record.map_or(Ok(Recent::default()), |record| recent_in(&record))?.0)
}

fn defined(record: &Record) -> Result<GraphDefinition> {
    let definition = GraphDefinition::from_value(&record.value()?);
    Ok(definition.map_err(|error| record.undecodable(error))?)
}

pub(crate) fn edges_in(record: &Record) -> Result<Edges<'_>> {
    Ok(Edges::decode(record.value_bytes()).map_err(|error| record.undecodable(error))?)
}

pub(crate) fn recent_in(record: &Record) -> Result<Recent> {
    Ok(Recent::decode(record.value_bytes()).map_err(|error| record.undecodable(error))?)
}

macro_rules! reads {
    ($of:ty, $self:ident, $($mutable:tt)+) => {
        impl $of {
            /// The items that were engaged with by those who engaged with `item`, heaviest first
            /// and `most` at the most; those of the same weight in the order of their bytes.
            pub fn co_engaged(
                $($mutable)+,
                run: Run,
                graph: &str,
                item: impl AsRef<[u8]>,
                most: usize,
            ) -> Result<Vec<CoEngaged>> {
                let now = $self.now();
                co_engaged($self, (run, graph, item.as_ref()), now, most)
            }

            /// What `actor` engaged with last, newest first, as far as the graph remembers.
            pub fn engaged(
                $($mutable)+,
                run: Run,
                graph: &str,
                actor: impl AsRef<[u8]>,
            ) -> Result<Vec<Vec<u8>>> {
                engaged($self, run, graph, actor.as_ref())
            }
        }
    };
}

reads!(View, self, &self);
reads!(Transaction, self, &mut self);

impl View {
    /// The definitions of graphs, in the order of their names.
    pub fn graph_definitions(&self) -> Result<Vec<DefinedGraph>> {
        let start = Key::first_of(NamespaceId::SYSTEM, TypeTag::Engagement).as_bytes().to_vec();
        let end = prefix_end(&start);
        let decode = |record: Record| {
            let name = String::from_utf8_lossy(Key::user_part(record.key())).into_owned();
            let definition = defined(&record)?;
            let (version, timestamp) = (record.version(), record.timestamp());
            Ok(DefinedGraph { name, definition, version, timestamp })
        };
        let mut source = self;
        source.rows(start, end).map(|row| decode(row?)).collect()
    }

    /// Every kept version of the edges of an item up to this view, newest first, as entries.
    pub fn co_engaged_versions(
        &self,
        run: Run,
        graph: &str,
        item: impl AsRef<[u8]>,
    ) -> Result<Vec<Entry>> {
        self.entry_versions(run, &item_key(run.namespace, graph, item.as_ref())?)
    }
}

impl Transaction {
    /// Says what `graph` keeps, in every run. A name that has no definition means
    /// [`GraphDefinition::default`]. Saying the same again changes nothing; another definition is
    /// taken only with a higher version. An item takes it over when one of its edges changes next.
    ///
    /// # Errors
    ///
    /// Kind `Conflict` if the name is defined otherwise with that version or a higher one;
    /// `Invalid` for what is outside of the limits.
    pub fn define_graph(&mut self, graph: &str, wanted: &GraphDefinition) -> Result<()> {
        wanted.check()?;
        if wanted.version == 0 {
            let text = "the version of a graph's definition is from 1 on";
            return Err(Error::Invalid(text.into()));
        }
        let found = definition(&mut &mut *self, graph)?;
        if found == *wanted {
            return Ok(());
        }
        if found.version >= wanted.version {
            return Err(Error::Mismatch {
                what: format!("the definition of the graph {graph:?}"),
                expected: format!("{wanted:?}, or a version below"),
                found: format!("{found:?}"),
            });
        }
        self.put_graph(graph, wanted)
    }

    /// Writes a definition, whatever there was.
    pub(crate) fn put_graph(&mut self, graph: &str, definition: &GraphDefinition) -> Result<()> {
        definition.check()?;
        self.put_in_system(&graph_key(graph)?, &definition.to_value())
    }

    /// `actor` engages with `item`, now: that counts one for each pair of it and another item
    /// that `graph` remembers of the actor.
    ///
    /// # Errors
    ///
    /// Kind `Invalid` for an item longer than
    /// [`GRAPH_ITEM_BYTES_MAX`](steadfast_core::limits::GRAPH_ITEM_BYTES_MAX).
    pub fn engage(
        &mut self,
        run: Run,
        graph: &str,
        actor: impl AsRef<[u8]>,
        item: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.engage_at(run, graph, actor, item, self.now())
    }

    /// The same at a time, which may be before others that were counted earlier: an edge weighs
    /// what was counted, faded from the latest of those times on.
    ///
    /// # Errors
    ///
    /// As [`Transaction::engage`], and for a time after the year 9999.
    pub fn engage_at(
        &mut self,
        run: Run,
        graph: &str,
        actor: impl AsRef<[u8]>,
        item: impl AsRef<[u8]>,
        at: Timestamp,
    ) -> Result<()> {
        Observation { weight: 1.0, at }.check()?;
        let (actor, item) = (actor.as_ref(), item.as_ref());
        let mut recent = Recent(engaged(&mut *self, run, graph, actor)?);
        let item_key = item_key(run.namespace, graph, item)?;
        let definition = definition(&mut &mut *self, graph)?;
        let mut others = recent.engage(item, definition.recent_max);
        others.truncate(definition.recent_max);
        for other in &others {
            let key = steadfast_core::engagement::item_key(run.namespace, graph, other)?;
            self.count_edges(run, &key, &definition, &[item], at)?;
        }
        let others: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
        if !others.is_empty() {
            self.count_edges(run, &item_key, &definition, &others, at)?;
        }
        self.put_encoded(run, &actor_key(run.namespace, graph, actor)?, &recent.encode())
    }

    /// Counts edges from the item at `key` to `others`.
    fn count_edges(
        &mut self,
        run: Run,
        key: &Key,
        definition: &GraphDefinition,
        others: &[&[u8]],
        at: Timestamp,
    ) -> Result<()> {
        let record = self.record(key.into())?;
        let mut edges = match &record {
            Some(record) => edges_in(record)?,
            None => Edges::default(),
        };
        for other in others {
            edges.count(other, definition, at);
            check_crash_point(CrashPoint::CoEngagementUpdate);
            edges.evict(definition, at, other);
        }
        self.put_encoded(run, key, &edges.encode())
    }
}

impl Database {
    /// [`Transaction::define_graph`] in a transaction of its own.
    pub fn define_graph(&self, graph: &str, definition: &GraphDefinition) -> Result<Receipt> {
        self.transaction(|tx| tx.define_graph(graph, definition)).map(|done| done.1)
    }

    /// [`Transaction::engage`] in a transaction of its own.
    ///
    /// ```
    /// let db = steadfast_engine::Database::in_memory()?;
    /// let run = db.create_run("shop")?;
    /// for (actor, item) in [("ada", "tea"), ("ada", "cup"), ("bob", "cup"), ("bob", "tea")] {
    ///     db.engage(run, "bought", actor, item)?;
    /// }
    /// db.engage(run, "bought", "bob", "pot")?;
    /// let beside_tea = db.co_engaged(run, "bought", "tea", 1)?;
    /// assert_eq!((&beside_tea[0].item[..], beside_tea[0].weight), (&b"cup"[..], 2.0));
    /// # Ok::<(), steadfast_engine::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Transaction::engage`].
    pub fn engage(
        &self,
        run: Run,
        graph: &str,
        actor: impl AsRef<[u8]>,
        item: impl AsRef<[u8]>,
    ) -> Result<Receipt> {
        let (actor, item) = (actor.as_ref(), item.as_ref());
        self.transaction(|tx| tx.engage(run, graph, actor, item)).map(|done| done.1)
    }

    /// [`View::co_engaged`] of a view opened now.
    pub fn co_engaged(
        &self,
        run: Run,
        graph: &str,
        item: impl AsRef<[u8]>,
        most: usize,
    ) -> Result<Vec<CoEngaged>> {
        self.view()?.co_engaged(run, graph, item, most)
    }

    /// [`View::engaged`] of a view opened now.
    pub fn engaged(&self, run: Run, graph: &str, actor: impl AsRef<[u8]>) -> Result<Vec<Vec<u8>>> {
        self.view()?.engaged(run, graph, actor)
    }
}
