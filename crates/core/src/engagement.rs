//! Co-engagement: what the same actors engage with, as edges between items that have a weight.
//!
//! An engagement changes the rows of the items that its actor engaged with last, and they are
//! logged as they are then: replay computes nothing.
//!
//! ```text
//! | namespace, Engagement | graph, escaped | 01 | actor |   recent
//! | namespace, Engagement | graph, escaped | 02 | item |    edges
//! | SYSTEM, Engagement    | graph |                         the definition of a graph, a value
//!
//! recent := how many varint | { item length varint | item }                  newest first
//! edges  := how many varint | { item length varint | item | weight f64
//!           | time u64, µs since 1970 }                                      by item
//! ```
//!
//! Numbers of fixed width are little-endian.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::time::Duration;

use crate::codec::{Cursor, put_bytes, put_varint};
use crate::key::{named_key, named_parts};
use crate::limits::{GRAPH_EDGES_MAX, GRAPH_ITEM_BYTES_MAX, GRAPH_RECENT_MAX, SIGNAL_DECAY_US_MAX};
use crate::signal::power::half_to_the;
use crate::{Error, Key, NamespaceId, Result, Timestamp, TypeTag, Value};

const WHAT: &str = "graph";
const ACTOR: u8 = 1;
const ITEM: u8 = 2;

/// What a graph keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphDefinition {
    /// Grows when a definition is changed; 0 for the definition of a name that has none.
    pub version: u32,
    /// Edges of an item, from 1 to [`GRAPH_EDGES_MAX`]. Where there is one more, the lightest
    /// goes, but not the one that just gained weight, or a new one could never grow; of edges that
    /// weigh the same, the one that gained weight longest ago, then the one whose item comes last.
    pub edges_max: usize,
    /// Items of an actor that are remembered, from 1 to [`GRAPH_RECENT_MAX`].
    pub recent_max: usize,
    /// In which time a weight fades by half, from 1 µs to 1000 years; `None` if it does not.
    pub half_life: Option<Duration>,
}

impl Default for GraphDefinition {
    /// What a name means that nobody defined: 32 edges, 16 items, nothing fades.
    fn default() -> Self {
        Self { version: 0, edges_max: 32, recent_max: 16, half_life: None }
    }
}

const fn invalid(reason: &'static str) -> Error {
    Error::Graph { reason }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl GraphDefinition {
    /// Refuses what is outside of the limits.
    pub fn check(&self) -> Result<()> {
        if !(1..=GRAPH_EDGES_MAX).contains(&self.edges_max) {
            return Err(invalid("an item of a graph has from 1 to 256 edges"));
        }
        if !(1..=GRAPH_RECENT_MAX).contains(&self.recent_max) {
            return Err(invalid("a graph remembers from 1 to 64 items of an actor"));
        }
        let time = self.half_life.map_or(1, micros);
        if !(1..=SIGNAL_DECAY_US_MAX).contains(&time) {
            return Err(invalid("a half-life is from 1 µs to 1000 years"));
        }
        Ok(())
    }

    /// What is left at `now` of a weight of `at`.
    #[allow(clippy::cast_precision_loss, reason = "within the precision of a weight")]
    fn faded(&self, weight: f64, at: Timestamp, now: Timestamp) -> f64 {
        let age = now.as_micros().saturating_sub(at.as_micros());
        match self.half_life {
            None => weight,
            Some(half_life) => weight * half_to_the(age as f64 / micros(half_life) as f64),
        }
    }

    /// As a value, which is how a database keeps it.
    pub fn to_value(&self) -> Value {
        let int = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        let half_life = self.half_life.map_or(Value::Null, |time| int(micros(time)));
        let fields = [
            ("edges_max", int(self.edges_max as u64)),
            ("half_life_us", half_life),
            ("recent_max", int(self.recent_max as u64)),
            ("version", int(self.version.into())),
        ];
        Value::Map(fields.map(|(name, value)| (name.to_owned(), value)).into())
    }

    /// From such a value, checked.
    pub fn from_value(value: &Value) -> Result<Self> {
        fn number<T: TryFrom<i64>>(value: Option<&Value>) -> Result<T> {
            let number = value.and_then(Value::as_int).and_then(|n| T::try_from(n).ok());
            number.ok_or_else(|| invalid("the definition of a graph lacks a number"))
        }
        let Value::Map(fields) = value else {
            return Err(invalid("the definition of a graph is a map"));
        };
        let half_life = match fields.get("half_life_us") {
            None | Some(Value::Null) => None,
            time => Some(Duration::from_micros(number(time)?)),
        };
        let definition = Self {
            version: number(fields.get("version"))?,
            edges_max: number(fields.get("edges_max"))?,
            recent_max: number(fields.get("recent_max"))?,
            half_life,
        };
        definition.check()?;
        Ok(definition)
    }
}

/// The key of the definition of a graph.
pub fn graph_key(graph: &str) -> Result<Key> {
    // A name that can be in the keys of rows.
    named_key(NamespaceId::SYSTEM, TypeTag::Engagement, WHAT, graph, &[ITEM])?;
    Key::new(NamespaceId::SYSTEM, TypeTag::Engagement, graph.as_bytes())
}

/// The key of what `actor` engaged with last in `graph`.
pub fn actor_key(namespace: NamespaceId, graph: &str, actor: &[u8]) -> Result<Key> {
    row_key(namespace, graph, ACTOR, actor)
}

/// The key of the edges of `item` in `graph`.
pub fn item_key(namespace: NamespaceId, graph: &str, item: &[u8]) -> Result<Key> {
    if item.len() > GRAPH_ITEM_BYTES_MAX {
        let (what, count) = ("bytes of an item of a graph", item.len());
        return Err(Error::TooMany { what, count, limit: GRAPH_ITEM_BYTES_MAX });
    }
    row_key(namespace, graph, ITEM, item)
}

fn row_key(namespace: NamespaceId, graph: &str, kind: u8, name: &[u8]) -> Result<Key> {
    match name.len() {
        0 => Err(Error::EmptyKey),
        bytes if bytes > crate::limits::USER_KEY_BYTES_MAX => Err(Error::KeyTooLong { bytes }),
        _ => {
            let mut own = Vec::with_capacity(1 + name.len());
            own.push(kind);
            own.extend_from_slice(name);
            let prefix = crate::key::named_prefix(namespace, TypeTag::Engagement, WHAT, graph)?;
            Key::from_stored(&[prefix, own].concat())
        }
    }
}

/// What a row of a graph is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GraphRow {
    /// What this actor engaged with last.
    Actor(Vec<u8>),
    /// The edges of this item.
    Item(Vec<u8>),
}

/// Graph and row in a stored key; `None` if it is neither.
pub fn row_of(stored: &[u8]) -> Option<(String, GraphRow)> {
    let (graph, own) = named_parts(stored)?;
    let (kind, name) = own.split_first().filter(|(_, name)| !name.is_empty())?;
    let row = match *kind {
        ACTOR => GraphRow::Actor(name.to_vec()),
        ITEM => GraphRow::Item(name.to_vec()),
        _ => return None,
    };
    Some((graph, row))
}

/// What an actor engaged with last, newest first, no item twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recent(pub Vec<Vec<u8>>);

impl Recent {
    /// Puts `item` in front, and forgets what is above `most`. Returns the others that are left.
    pub fn engage(&mut self, item: &[u8], most: usize) -> Vec<Vec<u8>> {
        self.0.retain(|other| other != item);
        let others = self.0.clone();
        self.0.insert(0, item.to_vec());
        self.0.truncate(most);
        others
    }

    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.0.len() as u64);
        self.0.iter().for_each(|item| put_bytes(&mut out, item));
        out
    }

    /// Reads what [`Recent::encode`] wrote, and refuses what it would not write.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new("recent items", bytes);
        let count = count(&mut cursor, GRAPH_RECENT_MAX)?;
        let mut items: Vec<Vec<u8>> = Vec::with_capacity(count);
        for _ in 0..count {
            let item = item(&mut cursor)?;
            if items.iter().any(|other| other == item) {
                return Err(cursor.malformed("an item that is there twice"));
            }
            items.push(item.to_vec());
        }
        cursor.end()?;
        Ok(Self(items))
    }
}

fn count(cursor: &mut Cursor<'_>, most: usize) -> Result<usize> {
    let count = cursor.varint()?;
    usize::try_from(count)
        .ok()
        .filter(|count| (1..=most).contains(count))
        .ok_or_else(|| cursor.malformed("a number of items that there cannot be"))
}

fn item<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8]> {
    let item = cursor.bytes()?;
    match (1..=GRAPH_ITEM_BYTES_MAX).contains(&item.len()) {
        true => Ok(item),
        false => Err(cursor.malformed("an item of a length that no item has")),
    }
}

/// An edge from one item to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Edge<'a> {
    /// The other item.
    pub item: Cow<'a, [u8]>,
    /// How often both were engaged with, faded until `at`.
    pub weight: f64,
    /// When it last gained weight.
    pub at: Timestamp,
}

impl Edge<'_> {
    fn is_possible(&self) -> bool {
        self.weight.is_finite() && self.weight >= 0.0
    }
}

/// The edges of an item, by the other item.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Edges<'a>(Vec<Edge<'a>>);

impl<'a> Edges<'a> {
    /// From edges in any order.
    pub fn new(mut edges: Vec<Edge<'a>>) -> Result<Self> {
        edges.sort_by(|one, other| one.item.cmp(&other.item));
        let edges = Self(edges);
        Edges::decode(&edges.encode())?;
        Ok(edges)
    }

    /// The edges, in the order of their items.
    pub fn iter(&self) -> impl Iterator<Item = &Edge<'a>> {
        self.0.iter()
    }

    /// Counts one engagement with `item` at `now`. There may be one edge too many then, until
    /// [`Edges::evict`].
    pub fn count(&mut self, item: &'a [u8], definition: &GraphDefinition, now: Timestamp) {
        match self.0.binary_search_by(|edge| (*edge.item).cmp(item)) {
            Ok(at) => {
                let edge = &mut self.0[at];
                edge.weight = definition.faded(edge.weight, edge.at, now) + 1.0;
                edge.at = edge.at.max(now);
            }
            Err(at) => {
                self.0.insert(at, Edge { item: Cow::Borrowed(item), weight: 1.0, at: now });
            }
        }
    }

    /// Removes the lightest edges, but for that to `kept`, until there are no more than the
    /// definition allows.
    pub fn evict(&mut self, definition: &GraphDefinition, now: Timestamp, kept: &[u8]) {
        while self.0.len() > definition.edges_max {
            let weight = |edge: &Edge<'_>| definition.faded(edge.weight, edge.at, now);
            // In the order of items, of which the last of the lightest goes.
            let lighter = |one: &(usize, &Edge<'_>), other: &(usize, &Edge<'_>)| {
                let by_weight = weight(one.1).total_cmp(&weight(other.1));
                by_weight.then(one.1.at.cmp(&other.1.at)).then(other.0.cmp(&one.0))
            };
            let others = self.0.iter().enumerate().filter(|(_, edge)| *edge.item != *kept);
            let Some((at, _)) = others.min_by(lighter) else { return };
            self.0.remove(at);
        }
    }

    /// Items and what they weigh at `now`, heaviest first; of the same weight, in the order of
    /// the items.
    pub fn heaviest(&self, definition: &GraphDefinition, now: Timestamp) -> Vec<(Vec<u8>, f64)> {
        let weigh =
            |edge: &Edge<'_>| (edge.item.to_vec(), definition.faded(edge.weight, edge.at, now));
        let mut all: Vec<_> = self.0.iter().map(weigh).collect();
        all.sort_by(|one, other| match other.1.total_cmp(&one.1) {
            Ordering::Equal => one.0.cmp(&other.0),
            order => order,
        });
        all
    }

    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out =
            Vec::with_capacity(2 + self.0.iter().map(|e| e.item.len() + 18).sum::<usize>());
        put_varint(&mut out, self.0.len() as u64);
        for Edge { item, weight, at } in &self.0 {
            put_bytes(&mut out, item);
            out.extend_from_slice(&weight.to_le_bytes());
            out.extend_from_slice(&at.as_micros().to_le_bytes());
        }
        out
    }

    /// Reads what [`Edges::encode`] wrote, and refuses what it would not write.
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new("edges", bytes);
        let count = count(&mut cursor, GRAPH_EDGES_MAX)?;
        let mut edges: Vec<Edge<'a>> = Vec::with_capacity(count + 1);
        for _ in 0..count {
            let item = Cow::Borrowed(item(&mut cursor)?);
            let weight = f64::from_le_bytes(cursor.array()?);
            let edge = Edge { item, weight, at: Timestamp::from_micros(cursor.u64()?) };
            if !edge.is_possible() {
                return Err(cursor.malformed("a weight that cannot be"));
            }
            if edges.last().is_some_and(|last| last.item >= edge.item) {
                return Err(cursor.malformed("edges out of order"));
            }
            edges.push(edge);
        }
        cursor.end()?;
        Ok(Self(edges))
    }

    /// The same, on its own.
    pub fn into_owned(self) -> Edges<'static> {
        let own = |Edge { item, weight, at }: Edge<'_>| Edge {
            item: Cow::Owned(item.into_owned()),
            weight,
            at,
        };
        Edges(self.0.into_iter().map(own).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    fn items(edges: &Edges<'_>) -> Vec<String> {
        edges.iter().map(|edge| String::from_utf8_lossy(&edge.item).into_owned()).collect()
    }

    #[test]
    fn the_lightest_goes_then_the_oldest_then_the_last() {
        let definition = GraphDefinition { edges_max: 3, ..GraphDefinition::default() };
        let mut edges = Edges::default();
        for (item, us) in [("b", 1), ("b", 2), ("d", 3), ("c", 4), ("a", 4)] {
            edges.count(item.as_bytes(), &definition, at(us));
        }
        assert_eq!(items(&edges), ["a", "b", "c", "d"], "one too many until it is evicted");
        edges.evict(&definition, at(4), b"a");
        assert_eq!(items(&edges), ["a", "b", "c"], "d was lightest and oldest");
        edges.evict(&GraphDefinition { edges_max: 2, ..definition }, at(4), b"b");
        assert_eq!(items(&edges), ["a", "b"], "c weighs as much as a, is as old, and comes last");
        edges.evict(&GraphDefinition { edges_max: 1, ..definition }, at(4), b"b");
        assert_eq!(items(&edges), ["b"], "which was to be kept");
    }

    #[test]
    fn a_new_edge_takes_the_place_of_the_lightest_of_heavier_ones() {
        let definition = GraphDefinition { edges_max: 2, ..GraphDefinition::default() };
        let mut edges = Edges::default();
        for item in [b"a", b"a", b"a", b"b", b"b"] {
            edges.count(item, &definition, at(1));
        }
        edges.count(b"c", &definition, at(0));
        edges.evict(&definition, at(1), b"c");
        assert_eq!(items(&edges), ["a", "c"]);
    }

    #[test]
    fn weights_fade_by_half_in_each_half_life() {
        let half_life = Some(Duration::from_secs(1));
        let definition = GraphDefinition { half_life, edges_max: 1, ..GraphDefinition::default() };
        let mut edges = Edges::default();
        (0..3).for_each(|_| edges.count(b"old", &definition, at(0)));
        edges.count(b"new", &definition, at(2_000_000));
        let due = vec![(b"new".to_vec(), 0.5), (b"old".to_vec(), 0.375)];
        assert_eq!(edges.heaviest(&definition, at(3_000_000)), due);
        edges.count(b"old", &definition, at(3_000_000));
        assert_eq!(edges.heaviest(&definition, at(3_000_000))[0], (b"old".to_vec(), 1.375));
        edges.evict(&definition, at(3_000_000), b"none");
        assert_eq!(items(&edges), ["old"]);
    }

    #[test]
    fn refuses_what_is_outside_of_the_limits() {
        let good = GraphDefinition::default();
        good.check().unwrap();
        let bad = [
            GraphDefinition { edges_max: 0, ..good },
            GraphDefinition { edges_max: GRAPH_EDGES_MAX + 1, ..good },
            GraphDefinition { recent_max: 0, ..good },
            GraphDefinition { recent_max: GRAPH_RECENT_MAX + 1, ..good },
            GraphDefinition { half_life: Some(Duration::ZERO), ..good },
            GraphDefinition { half_life: Some(Duration::MAX), ..good },
        ];
        for definition in bad {
            assert!(definition.check().is_err(), "{definition:?}");
            assert!(GraphDefinition::from_value(&definition.to_value()).is_err());
        }
        let (ns, long) = (NamespaceId(7), vec![b'i'; GRAPH_ITEM_BYTES_MAX + 1]);
        assert!(matches!(item_key(ns, "g", &long), Err(Error::TooMany { .. })));
        assert_eq!(item_key(ns, "g", b""), Err(Error::EmptyKey));
        assert_eq!(item_key(ns, "", b"i"), Err(Error::EmptyName { what: "graph" }));
        assert!(actor_key(ns, "g", &vec![b'a'; 4096]).is_ok());
        assert_eq!(actor_key(ns, "g", &[b'a'; 4097]), Err(Error::KeyTooLong { bytes: 4097 }));
    }

    proptest! {
        #[test]
        fn rows_read_back_as_they_were_written(
            seen in prop::collection::vec((0u8..40, 0u64..1 << 50), 1..80),
            half_life in prop::option::of(1u64..1 << 40),
            edges_max in 1usize..50,
        ) {
            let half_life = half_life.map(Duration::from_micros);
            let definition = GraphDefinition { version: 3, edges_max, recent_max: 9, half_life };
            prop_assert_eq!(GraphDefinition::from_value(&definition.to_value())?, definition);
            let (mut edges, mut recent) = (Edges::default(), Recent::default());
            let names: Vec<[u8; 1]> = seen.iter().map(|(item, _)| [*item]).collect();
            for (name, (_, us)) in names.iter().zip(&seen) {
                edges.count(name, &definition, at(*us));
                edges.evict(&definition, at(*us), name);
                recent.engage(name, definition.recent_max);
                prop_assert!(edges.0.len() <= edges_max && recent.0.len() <= 9);
                prop_assert_eq!(&recent.0[0], name);
            }
            let bytes = edges.encode();
            prop_assert_eq!(Edges::decode(&bytes)?, edges.clone());
            prop_assert_eq!(Edges::new(edges.0.iter().rev().cloned().collect())?, edges);
            prop_assert_eq!(Recent::decode(&recent.encode())?, recent);
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in prop::collection::vec(0u8..20, 0..60)) {
            let _ = (Edges::decode(&bytes), Recent::decode(&bytes));
        }

        #[test]
        fn a_key_gives_back_its_parts(
            graph in "[\0ab]{1,4}", name in prop::collection::vec(0u8..3, 1..5)
        ) {
            let actor = actor_key(NamespaceId(7), &graph, &name)?;
            let due = Some((graph.clone(), GraphRow::Actor(name.clone())));
            prop_assert_eq!(row_of(actor.as_bytes()), due);
            let item = item_key(NamespaceId(7), &graph, &name)?;
            prop_assert_eq!(row_of(item.as_bytes()), Some((graph, GraphRow::Item(name))));
        }
    }
}
