//! Collections, cohorts and graphs as JSON: what `dump` says of them, and of their definitions.

use std::borrow::Cow;

use steadfast::{
    CohortDefinition, DefinedCohort, DefinedGraph, Edge, Entry, GraphDefinition, Predicate,
    Timestamp, Value, Version,
};

use crate::failure::{Failure, Result};
use crate::json::{Object, list, name_from_value, push_name, push_value};
use crate::signal::signal_fields;

/// What a dump says of a definition by a name, and the commit that wrote it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DefinitionLine<T> {
    pub(crate) name: String,
    pub(crate) definition: T,
    pub(crate) version: Version,
    pub(crate) timestamp: Timestamp,
}

impl From<DefinedCohort> for DefinitionLine<CohortDefinition> {
    fn from(defined: DefinedCohort) -> Self {
        let DefinedCohort { name, definition, version, timestamp, .. } = defined;
        Self { name, definition, version, timestamp }
    }
}

impl From<DefinedGraph> for DefinitionLine<GraphDefinition> {
    fn from(defined: DefinedGraph) -> Self {
        let DefinedGraph { name, definition, version, timestamp, .. } = defined;
        Self { name, definition, version, timestamp }
    }
}

impl DefinitionLine<CohortDefinition> {
    /// The line, without its end.
    pub(crate) fn to_json(&self) -> String {
        let CohortDefinition { version, predicate } = &self.definition;
        let fields = [
            ("predicate".to_owned(), predicate.to_value()),
            ("version".to_owned(), Value::Int((*version).into())),
        ];
        self.line("cohort_definition", &Value::Map(fields.into()))
    }
}

impl DefinitionLine<GraphDefinition> {
    /// The line, without its end.
    pub(crate) fn to_json(&self) -> String {
        self.line("graph_definition", &self.definition.to_value())
    }
}

impl<T> DefinitionLine<T> {
    fn line(&self, kind: &str, definition: &Value) -> String {
        Object::new()
            .text("type", kind)
            .text("name", &self.name)
            .value("definition", definition)
            .number("version", self.version.0)
            .number("at_us", self.timestamp.as_micros())
            .end()
    }
}

fn wrong(field: &str) -> Failure {
    Failure::invalid(format!("{field}: is not as a dump has it"))
}

/// Reads the definition of a cohort.
pub(crate) fn cohort_definition_of(value: Option<Value>) -> Result<CohortDefinition> {
    let Some(Value::Map(fields)) = value else { return Err(wrong("definition")) };
    let version = fields.get("version").and_then(Value::as_int);
    let version = version.and_then(|version| u32::try_from(version).ok());
    let predicate = fields.get("predicate").ok_or_else(|| wrong("predicate"))?;
    let predicate = Predicate::from_value(predicate)
        .map_err(|error| Failure::invalid(format!("predicate: {error}")))?;
    Ok(CohortDefinition { version: version.ok_or_else(|| wrong("version"))?, predicate })
}

/// Reads the definition of a graph.
pub(crate) fn graph_definition_of(value: Option<Value>) -> Result<GraphDefinition> {
    let value = value.ok_or_else(|| wrong("definition"))?;
    GraphDefinition::from_value(&value)
        .map_err(|error| Failure::invalid(format!("definition: {error}")))
}

fn deleted(line: Object) -> Object {
    line.bool("deleted", true)
}

/// The line of an entry up to its version; `None` if it is of another kind.
pub(crate) fn entry_fields(
    head: impl FnOnce(&'static str) -> Object,
    entry: &Entry,
) -> Option<Object> {
    Some(match entry {
        Entry::Collection { name, item, is_there, .. } => {
            let line = head("collection").text("name", name);
            let line = match item {
                Some(item) => line.bytes_name("item", item),
                None => line,
            };
            if *is_there { line } else { deleted(line) }
        }
        Entry::Attributes { entity, attributes, .. } => {
            let line = head("attributes").bytes_name("entity", entity);
            match attributes {
                Some(attributes) => line.value("attributes", &Value::Map(attributes.clone())),
                None => deleted(line),
            }
        }
        Entry::Cohort { cohort, name, signal, .. } => {
            let line = head("cohort").text("cohort", cohort).text("name", name);
            match signal {
                Some(signal) => signal_fields(line, signal),
                None => deleted(line),
            }
        }
        Entry::Engaged { graph, actor, items, .. } => {
            let line = head("engaged").text("graph", graph).bytes_name("actor", actor);
            match items {
                Some(items) => line.json("items", &list(items.iter().map(|item| name(item)))),
                None => deleted(line),
            }
        }
        Entry::CoEngaged { graph, item, edges, .. } => {
            let line = head("co_engaged").text("graph", graph).bytes_name("item", item);
            match edges {
                Some(edges) => line.json("edges", &list(edges.iter().map(edge_to_json))),
                None => deleted(line),
            }
        }
        _ => return None,
    })
}

fn name(bytes: &[u8]) -> String {
    let mut out = String::new();
    push_name(&mut out, bytes);
    out
}

/// `[item, weight, µs]`
fn edge_to_json(edge: &Edge<'_>) -> String {
    let mut weight = String::new();
    push_value(&mut weight, &Value::Float(edge.weight));
    list([name(&edge.item), weight, edge.at.as_micros().to_string()])
}

/// Reads the items that an actor engaged with.
pub(crate) fn items_of(value: Value) -> Result<Vec<Vec<u8>>> {
    let Value::List(items) = value else { return Err(wrong("items")) };
    items.into_iter().map(|item| name_from_value(item).ok_or_else(|| wrong("items"))).collect()
}

/// Reads the edges of an item.
pub(crate) fn edges_of(value: Value) -> Result<Vec<Edge<'static>>> {
    let Value::List(edges) = value else { return Err(wrong("edges")) };
    let edge = |edge: Value| {
        let Value::List(parts) = edge else { return None };
        let [item, Value::Float(weight), Value::Int(at)] = <[Value; 3]>::try_from(parts).ok()?
        else {
            return None;
        };
        let at = Timestamp::from_micros(u64::try_from(at).ok()?);
        Some(Edge { item: Cow::Owned(name_from_value(item)?), weight, at })
    };
    edges.into_iter().map(|one| edge(one).ok_or_else(|| wrong("edges"))).collect()
}
