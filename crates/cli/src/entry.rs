//! The lines of a dump: what `dump` writes is what `load` reads. The forms are in `JSON.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use steadfast::{
    CohortDefinition, Entry, Event, EventHash, EventHead, GraphDefinition, KeyWindow, Namespace,
    RunId, RunStatus, SignalDefinition, StreamState, Timestamp, Value, Version,
};

use crate::failure::{Failure, Result};
use crate::json::{Object, Parser, Tags, name_from_value, read_fields};
use crate::sets_and_graphs::{
    DefinitionLine, cohort_definition_of, edges_of, entry_fields, graph_definition_of, items_of,
};
use crate::signal::{definition_of, signal_fields, signal_of};

/// One line of a dump.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DumpLine {
    /// A run; comes before its entries.
    Run(RunLine),
    /// What a signal means; comes before all runs.
    Definition(SignalDefinitionLine),
    /// Who is in a cohort; comes before all runs.
    Cohort(DefinitionLine<CohortDefinition>),
    /// What a graph keeps; comes before all runs.
    Graph(DefinitionLine<GraphDefinition>),
    /// An entry of the run named.
    Entry { run: String, entry: Entry },
    /// The last line: the newest committed version and how many lines came before.
    End { version: Version, entries: u64 },
    /// A type of a later format, which readers pass over.
    Unknown,
}

/// What a dump says of the definition of a signal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SignalDefinitionLine {
    pub(crate) name: String,
    pub(crate) definition: SignalDefinition,
    pub(crate) version: Version,
    pub(crate) timestamp: Timestamp,
}

/// What a dump says of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RunLine {
    pub(crate) name: String,
    pub(crate) namespace: Namespace,
    pub(crate) status: RunStatus,
    pub(crate) metadata: BTreeMap<String, Value>,
    pub(crate) version: Version,
    pub(crate) created: Timestamp,
    /// Where status or metadata are of a later commit: that one, and when it was made.
    pub(crate) changed: Option<(Version, Timestamp)>,
    /// The runs that it goes back to by forks, the oldest first. Its entries may be older than it.
    pub(crate) ancestors: Vec<RunId>,
    /// The version that it was forked at from the last of them, if it was in this database.
    pub(crate) forked: Option<Version>,
}

impl RunLine {
    /// The line, without its end.
    pub(crate) fn to_json(&self) -> String {
        let mut line = Object::new()
            .text("type", "run")
            .text("run", &self.name)
            .text("id", &self.namespace.run().to_string())
            .text("status", self.status.name());
        let Self { namespace, .. } = self;
        let address = [
            ("tenant", namespace.tenant()),
            ("app", namespace.app()),
            ("agent", namespace.agent()),
        ];
        for (part, name) in address {
            if name != Namespace::DEFAULT_PART {
                line = line.text(part, name);
            }
        }
        if !self.metadata.is_empty() {
            line = line.value("metadata", &Value::Map(self.metadata.clone()));
        }
        line = line.number("version", self.version.0).number("at_us", self.created.as_micros());
        if let Some((version, time)) = self.changed {
            line = line.number("changed", version.0).number("changed_at_us", time.as_micros());
        }
        if !self.ancestors.is_empty() {
            let ids = self.ancestors.iter().map(|id| Value::String(id.to_string()));
            line = line.value("ancestors", &Value::List(ids.collect()));
        }
        if let Some(forked) = self.forked {
            line = line.number("forked", forked.0);
        }
        line.end()
    }
}

/// The line of an entry, without its end.
pub(crate) fn entry_to_json(run: &str, entry: &Entry) -> Result<String> {
    let head = |kind| Object::new().text("type", kind).text("run", run);
    let (mut line, expiry) = match entry {
        Entry::Kv { key, value, expiry, .. } => {
            (value_or_deleted(head("kv").bytes_name("key", key), value.as_ref()), *expiry)
        }
        Entry::Event { stream, event } => {
            (event_fields(head("event").bytes_name("stream", stream), event), None)
        }
        Entry::State { cell, value, .. } => {
            (value_or_deleted(head("state").bytes_name("cell", cell), value.as_ref()), None)
        }
        Entry::Stream { stream, state, .. } => {
            (stream_fields(head("stream").bytes_name("stream", stream), state), None)
        }
        Entry::Receipt { key, stream, event, events, expiry, .. } => {
            let line = head("receipt").text("idempotency_key", key).bytes_name("stream", stream);
            let line = line.number("seq", event.seq).text("hash", &event.hash.to_string());
            let line = match events {
                Some(events) => line.number("key_events", *events),
                None => line,
            };
            (line, *expiry)
        }
        Entry::Signal { name, entity, signal, .. } => {
            let line = head("signal").text("name", name).bytes_name("entity", entity);
            let line = match signal {
                Some(signal) => signal_fields(line, signal),
                None => value_or_deleted(line, None),
            };
            (line, None)
        }
        entry => {
            let text = "an entry of a kind that a dump cannot hold yet";
            (entry_fields(head, entry).ok_or_else(|| Failure::unsupported(text))?, None)
        }
    };
    line = line.number("version", entry.version().0).number("at_us", entry.timestamp().as_micros());
    if let Some(expiry) = expiry {
        line = line.number("expires_at_us", expiry.as_micros());
    }
    Ok(line.end())
}

/// The last line, without its end.
pub(crate) fn end_to_json(version: Version, entries: u64) -> String {
    Object::new().text("type", "end").number("version", version.0).number("entries", entries).end()
}

/// What is kept of a stream beside its events.
fn stream_fields(line: Object, state: &StreamState) -> Object {
    let mut line = line;
    if let Some(EventHead { seq, hash }) = state.trimmed {
        line = line.number("trimmed_seq", seq).text("trimmed_hash", &hash.to_string());
    }
    match state.keys {
        KeyWindow::Events(events) => line.number("key_events", events),
        KeyWindow::Time(time) => {
            line.number("key_us", u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
        }
        _ => line,
    }
}

fn event_fields(line: Object, event: &Event) -> Object {
    let mut line = line.number("seq", event.seq).value("payload", &event.payload);
    if let Some(time) = event.time {
        line = line.number("time_us", time.as_micros());
    }
    let texts = [
        ("kind", &event.kind),
        ("idempotency_key", &event.idempotency_key),
        ("causation", &event.causation),
        ("correlation", &event.correlation),
        ("scope", &event.scope),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            line = line.text(name, text);
        }
    }
    line.text("hash", &event.hash.to_string())
}

fn value_or_deleted(line: Object, value: Option<&Value>) -> Object {
    match value {
        Some(value) => line.value("value", value),
        None => line.bool("deleted", true),
    }
}

impl DumpLine {
    /// Reads a line.
    pub(crate) fn parse(line: &str) -> Result<Self> {
        let mut parser = Parser::new(line);
        let mut fields = Fields(read_fields(&mut parser, Tags::Known)?);
        parser.end()?;
        match fields.text("type")?.as_str() {
            "run" => fields.into_run(),
            "kv" => fields.into_entry(Fields::kv),
            "event" => fields.into_entry(Fields::event),
            "stream" => fields.into_entry(Fields::stream),
            "receipt" => fields.into_entry(Fields::receipt),
            "state" => fields.into_entry(Fields::state),
            "signal" => fields.into_entry(Fields::signal),
            "collection" => fields.into_entry(Fields::collection),
            "attributes" => fields.into_entry(Fields::attributes),
            "cohort" => fields.into_entry(Fields::cohort),
            "engaged" => fields.into_entry(Fields::engaged),
            "co_engaged" => fields.into_entry(Fields::co_engaged),
            "signal_definition" => fields.into_definition(),
            "cohort_definition" => {
                Ok(Self::Cohort(fields.into_definition_line(cohort_definition_of)?))
            }
            "graph_definition" => {
                Ok(Self::Graph(fields.into_definition_line(graph_definition_of)?))
            }
            "end" => {
                let version = fields.version()?;
                Ok(Self::End { version, entries: fields.number("entries")? })
            }
            _ => Ok(Self::Unknown),
        }
    }
}

struct Fields(BTreeMap<String, Value>);

impl Fields {
    fn into_run(mut self) -> Result<DumpLine> {
        let id = self.text("id")?;
        let id =
            RunId::parse(&id).ok_or_else(|| Failure::invalid(format!("id: `{id}` is no UUID")))?;
        let mut part = |name| {
            let text = self.optional_text(name)?;
            Ok::<_, Failure>(text.unwrap_or_else(|| Namespace::DEFAULT_PART.to_owned()))
        };
        let (tenant, app, agent) = (part("tenant")?, part("app")?, part("agent")?);
        let namespace = Namespace::new(&tenant, &app, &agent, id)
            .map_err(|error| Failure::invalid(error.to_string()))?;
        let status = self.text("status")?;
        let status = RunStatus::from_name(&status)
            .ok_or_else(|| Failure::invalid(format!("status: `{status}` is not known")))?;
        let name = self.text("run")?;
        let (version, created) = (self.version()?, self.time()?);
        let metadata = match self.0.remove("metadata") {
            None => BTreeMap::new(),
            Some(Value::Map(metadata)) => metadata,
            Some(_) => return Err(Failure::invalid("metadata: must be an object")),
        };
        let changed = match self.0.contains_key("changed") {
            true => {
                let time = Timestamp::from_micros(self.number("changed_at_us")?);
                Some((Version(self.number("changed")?), time))
            }
            false => None,
        };
        if changed.is_some_and(|(changed, _)| changed <= version) {
            return Err(Failure::invalid("changed: must come after version"));
        }
        let wrong = || Failure::invalid("ancestors: must be a list of UUIDs");
        let ancestors = match self.0.remove("ancestors") {
            None => Vec::new(),
            Some(Value::List(ids)) => {
                let id = |id: &Value| RunId::parse(id.as_str()?);
                ids.iter().map(id).collect::<Option<_>>().ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
        };
        let forked = match self.0.contains_key("forked") {
            true => Some(Version(self.number("forked")?)),
            false => None,
        };
        if forked.is_some() && ancestors.is_empty() {
            return Err(Failure::invalid("forked: from none of its ancestors"));
        }
        Ok(DumpLine::Run(RunLine {
            name,
            namespace,
            status,
            metadata,
            version,
            created,
            changed,
            ancestors,
            forked,
        }))
    }

    fn into_entry(mut self, read: impl FnOnce(&mut Self) -> Result<Entry>) -> Result<DumpLine> {
        let run = self.text("run")?;
        Ok(DumpLine::Entry { run, entry: read(&mut self)? })
    }

    fn kv(&mut self) -> Result<Entry> {
        Ok(Entry::Kv {
            key: self.name("key")?,
            value: self.value_unless_deleted()?,
            version: self.version()?,
            timestamp: self.time()?,
            expiry: self.optional_time("expires_at_us")?,
        })
    }

    fn state(&mut self) -> Result<Entry> {
        Ok(Entry::State {
            cell: self.name("cell")?,
            value: self.value_unless_deleted()?,
            version: self.version()?,
            timestamp: self.time()?,
        })
    }

    fn into_definition(mut self) -> Result<DumpLine> {
        let definition = definition_of(self.0.remove("definition"))?;
        let (name, version, timestamp) = (self.text("name")?, self.version()?, self.time()?);
        Ok(DumpLine::Definition(SignalDefinitionLine { name, definition, version, timestamp }))
    }

    fn into_definition_line<T>(
        mut self,
        read: impl FnOnce(Option<Value>) -> Result<T>,
    ) -> Result<DefinitionLine<T>> {
        let definition = read(self.0.remove("definition"))?;
        let (name, version, timestamp) = (self.text("name")?, self.version()?, self.time()?);
        Ok(DefinitionLine { name, definition, version, timestamp })
    }

    fn is_deleted(&mut self) -> bool {
        self.0.remove("deleted") == Some(Value::Bool(true))
    }

    fn collection(&mut self) -> Result<Entry> {
        let (name, is_there) = (self.text("name")?, !self.is_deleted());
        let item = if self.0.contains_key("item") { Some(self.name("item")?) } else { None };
        let (version, timestamp) = (self.version()?, self.time()?);
        Ok(Entry::Collection { name, item, is_there, version, timestamp })
    }

    fn attributes(&mut self) -> Result<Entry> {
        let attributes = match self.is_deleted() {
            true => None,
            false => match self.value("attributes")? {
                Value::Map(attributes) => Some(attributes),
                _ => return Err(Failure::invalid("attributes: must be an object")),
            },
        };
        let entity = self.name("entity")?;
        let (version, timestamp) = (self.version()?, self.time()?);
        Ok(Entry::Attributes { entity, attributes, version, timestamp })
    }

    fn cohort(&mut self) -> Result<Entry> {
        let signal = if self.is_deleted() { None } else { Some(signal_of(&mut self.0)?) };
        let (cohort, name) = (self.text("cohort")?, self.text("name")?);
        let (version, timestamp) = (self.version()?, self.time()?);
        Ok(Entry::Cohort { cohort, name, signal, version, timestamp })
    }

    fn engaged(&mut self) -> Result<Entry> {
        let items = if self.is_deleted() { None } else { Some(items_of(self.value("items")?)?) };
        let (graph, actor) = (self.text("graph")?, self.name("actor")?);
        let (version, timestamp) = (self.version()?, self.time()?);
        Ok(Entry::Engaged { graph, actor, items, version, timestamp })
    }

    fn co_engaged(&mut self) -> Result<Entry> {
        let edges = if self.is_deleted() { None } else { Some(edges_of(self.value("edges")?)?) };
        let (graph, item) = (self.text("graph")?, self.name("item")?);
        let (version, timestamp) = (self.version()?, self.time()?);
        Ok(Entry::CoEngaged { graph, item, edges, version, timestamp })
    }

    fn signal(&mut self) -> Result<Entry> {
        let signal = match self.0.remove("deleted") == Some(Value::Bool(true)) {
            true => None,
            false => Some(signal_of(&mut self.0)?),
        };
        let (name, entity) = (self.text("name")?, self.name("entity")?);
        let (version, timestamp) = (self.version()?, self.time()?);
        Ok(Entry::Signal { name, entity, signal, version, timestamp })
    }

    fn event(&mut self) -> Result<Entry> {
        let event = Event {
            seq: self.number("seq")?,
            payload: self.value("payload")?,
            version: self.version()?,
            timestamp: self.time()?,
            idempotency_key: self.optional_text("idempotency_key")?,
            kind: self.optional_text("kind")?,
            causation: self.optional_text("causation")?,
            correlation: self.optional_text("correlation")?,
            time: self.optional_time("time_us")?,
            scope: self.optional_text("scope")?,
            // Without one, loading computes it.
            hash: self.optional_text("hash")?.map_or(Ok(EventHash::NONE), |hash| hash.parse())?,
        };
        Ok(Entry::Event { stream: self.name("stream")?, event })
    }

    fn stream(&mut self) -> Result<Entry> {
        let trimmed = match self.0.contains_key("trimmed_seq") {
            true => Some(EventHead {
                seq: self.number("trimmed_seq")?,
                hash: self.text("trimmed_hash")?.parse()?,
            }),
            false => None,
        };
        let keys = match (self.optional_number("key_events")?, self.optional_number("key_us")?) {
            (None, None) => KeyWindow::Forever,
            (Some(events), None) => KeyWindow::Events(events),
            (None, Some(micros)) => KeyWindow::Time(Duration::from_micros(micros)),
            (Some(_), Some(_)) => {
                return Err(Failure::invalid("key_events and key_us: there can only be one"));
            }
        };
        Ok(Entry::Stream {
            stream: self.name("stream")?,
            state: StreamState { trimmed, keys },
            version: self.version()?,
            timestamp: self.time()?,
        })
    }

    fn receipt(&mut self) -> Result<Entry> {
        let event = EventHead { seq: self.number("seq")?, hash: self.text("hash")?.parse()? };
        Ok(Entry::Receipt {
            key: self.text("idempotency_key")?,
            stream: self.name("stream")?,
            event,
            events: self.optional_number("key_events")?,
            version: self.version()?,
            timestamp: self.time()?,
            expiry: self.optional_time("expires_at_us")?,
        })
    }

    fn version(&mut self) -> Result<Version> {
        self.number("version").map(Version)
    }

    fn time(&mut self) -> Result<Timestamp> {
        self.number("at_us").map(Timestamp::from_micros)
    }

    fn value(&mut self, field: &str) -> Result<Value> {
        self.0.remove(field).ok_or_else(|| Failure::invalid(format!("{field}: missing")))
    }

    fn value_unless_deleted(&mut self) -> Result<Option<Value>> {
        if self.0.remove("deleted") == Some(Value::Bool(true)) {
            return Ok(None);
        }
        self.value("value").map(Some)
    }

    fn text(&mut self, field: &str) -> Result<String> {
        match self.value(field)? {
            Value::String(text) => Ok(text),
            _ => Err(Failure::invalid(format!("{field}: must be a text"))),
        }
    }

    fn optional_text(&mut self, field: &str) -> Result<Option<String>> {
        if self.0.contains_key(field) { self.text(field).map(Some) } else { Ok(None) }
    }

    fn name(&mut self, field: &str) -> Result<Vec<u8>> {
        name_from_value(self.value(field)?)
            .ok_or_else(|| Failure::invalid(format!("{field}: must be a text or bytes")))
    }

    fn number(&mut self, field: &str) -> Result<u64> {
        match self.value(field)? {
            Value::Int(n) if n >= 0 => Ok(n.unsigned_abs()),
            _ => Err(Failure::invalid(format!("{field}: must be a whole number from 0 on"))),
        }
    }

    fn optional_number(&mut self, field: &str) -> Result<Option<u64>> {
        if self.0.contains_key(field) { self.number(field).map(Some) } else { Ok(None) }
    }

    fn optional_time(&mut self, field: &str) -> Result<Option<Timestamp>> {
        Ok(self.optional_number(field)?.map(Timestamp::from_micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_json(line: &DumpLine) -> String {
        match line {
            DumpLine::Run(run) => run.to_json(),
            DumpLine::Definition(line) => crate::signal::definition_line(line),
            DumpLine::Cohort(line) => line.to_json(),
            DumpLine::Graph(line) => line.to_json(),
            DumpLine::Entry { run, entry } => entry_to_json(run, entry).unwrap(),
            DumpLine::End { version, entries } => end_to_json(*version, *entries),
            DumpLine::Unknown => panic!("not written"),
        }
    }

    #[test]
    fn every_line_reads_back_as_it_was_written() {
        let lines = [
            r#"{"type":"run","run":"r","id":"018f2f3e-0000-7000-8000-000000000001","status":"active","version":1,"at_us":5}"#,
            r#"{"type":"run","run":"r","id":"018f2f3e-0000-7000-8000-000000000001","status":"active","agent":"a","version":1,"at_us":5}"#,
            r#"{"type":"run","run":"r","id":"018f2f3e-0000-7000-8000-000000000001","status":"failed","metadata":{"why":[1]},"version":1,"at_us":5,"changed":3,"changed_at_us":6}"#,
            r#"{"type":"run","run":"r","id":"018f2f3e-0000-7000-8000-000000000001","status":"active","version":5,"at_us":5,"ancestors":["018f2f3e-0000-7000-8000-000000000002"],"forked":5}"#,
            r#"{"type":"kv","run":"r","key":"k","value":{"$int":"9007199254740993"},"version":1,"at_us":5}"#,
            r#"{"type":"kv","run":"r","key":{"$bytes":"/w=="},"deleted":true,"version":1,"at_us":5}"#,
            r#"{"type":"kv","run":"r","key":"k","value":null,"version":1,"at_us":5,"expires_at_us":9}"#,
            r#"{"type":"event","run":"r","stream":"s","seq":0,"payload":1.0,"hash":"00000000000000000000000000000000000000000000000000000000000000ab","version":1,"at_us":5}"#,
            r#"{"type":"event","run":"r","stream":"s","seq":1,"payload":1,"time_us":3,"kind":"k","idempotency_key":"i","causation":"c","correlation":"d","scope":"e","hash":"00000000000000000000000000000000000000000000000000000000000000ab","version":1,"at_us":5}"#,
            r#"{"type":"stream","run":"r","stream":"s","trimmed_seq":6,"trimmed_hash":"00000000000000000000000000000000000000000000000000000000000000ab","version":1,"at_us":5}"#,
            r#"{"type":"stream","run":"r","stream":{"$bytes":"/w=="},"key_events":3,"version":1,"at_us":5}"#,
            r#"{"type":"stream","run":"r","stream":"s","key_us":3000000,"version":1,"at_us":5}"#,
            r#"{"type":"receipt","run":"r","idempotency_key":"i","stream":"s","seq":1,"hash":"00000000000000000000000000000000000000000000000000000000000000ab","key_events":3,"version":1,"at_us":5}"#,
            r#"{"type":"receipt","run":"r","idempotency_key":"i","stream":"s","seq":1,"hash":"00000000000000000000000000000000000000000000000000000000000000ab","version":1,"at_us":5,"expires_at_us":9}"#,
            r#"{"type":"state","run":"r","cell":"c","value":[],"version":1,"at_us":5}"#,
            r#"{"type":"signal_definition","name":"n","definition":{"decay":"linear","hours":24,"lifetime_us":640,"minutes":60,"velocity_hours":1,"version":2},"version":1,"at_us":5}"#,
            r#"{"type":"signal","run":"r","name":"n","entity":{"$bytes":"/w=="},"score":0.0,"newest_us":7,"count":3,"minutes":[1,0,2],"slices":[[9,0.1]],"ahead":[[8,1.5]],"definition":{"decay":"linear","hours":0,"lifetime_us":640,"minutes":60,"velocity_minutes":5,"version":2},"version":1,"at_us":5}"#,
            r#"{"type":"signal","run":"r","name":"n","entity":"e","score":0.30000000000000004,"newest_us":7,"count":3,"hours":[3],"definition":{"decay":"exponential","half_life_us":640,"hours":24,"minutes":0,"velocity_hours":1,"version":0},"version":1,"at_us":5}"#,
            r#"{"type":"signal","run":"r","name":"n","entity":"e","deleted":true,"version":1,"at_us":5}"#,
            r#"{"type":"cohort_definition","name":"c","definition":{"predicate":["all",["ge","age",18],["not",["in","plan","a",1.0]]],"version":2},"version":1,"at_us":5}"#,
            r#"{"type":"graph_definition","name":"g","definition":{"edges_max":2,"half_life_us":null,"recent_max":3,"version":1},"version":1,"at_us":5}"#,
            r#"{"type":"collection","run":"r","name":"c","version":1,"at_us":5}"#,
            r#"{"type":"collection","run":"r","name":"c","item":{"$bytes":"/w=="},"version":1,"at_us":5}"#,
            r#"{"type":"collection","run":"r","name":"c","item":"i","deleted":true,"version":1,"at_us":5}"#,
            r#"{"type":"attributes","run":"r","entity":"e","attributes":{"age":3,"tags":["x"]},"version":1,"at_us":5}"#,
            r#"{"type":"attributes","run":"r","entity":"e","attributes":{},"version":1,"at_us":5}"#,
            r#"{"type":"attributes","run":"r","entity":"e","deleted":true,"version":1,"at_us":5}"#,
            r#"{"type":"cohort","run":"r","cohort":"c","name":"n","score":0.5,"newest_us":7,"count":3,"hours":[3],"definition":{"decay":"permanent","hours":24,"minutes":0,"velocity_hours":1,"version":0},"version":1,"at_us":5}"#,
            r#"{"type":"cohort","run":"r","cohort":"c","name":"n","deleted":true,"version":1,"at_us":5}"#,
            r#"{"type":"engaged","run":"r","graph":"g","actor":"a","items":["i",{"$bytes":"/w=="}],"version":1,"at_us":5}"#,
            r#"{"type":"engaged","run":"r","graph":"g","actor":"a","deleted":true,"version":1,"at_us":5}"#,
            r#"{"type":"co_engaged","run":"r","graph":"g","item":"i","edges":[["j",1.5,7]],"version":1,"at_us":5}"#,
            r#"{"type":"co_engaged","run":"r","graph":"g","item":"i","deleted":true,"version":1,"at_us":5}"#,
            r#"{"type":"end","version":7,"entries":7}"#,
        ];
        for line in lines {
            assert_eq!(to_json(&DumpLine::parse(line).unwrap()), line);
        }
    }

    #[test]
    fn later_types_and_fields_are_passed_over() {
        let line = r#"{"type":"kv","run":"r","key":"k","value":1,"version":1,"at_us":5,"new":[]}"#;
        assert!(matches!(DumpLine::parse(line), Ok(DumpLine::Entry { .. })));
        let line = r#"{"type":"vector","run":"r","x":1}"#;
        assert_eq!(DumpLine::parse(line), Ok(DumpLine::Unknown));
    }

    #[test]
    fn a_bad_line_says_what_is_wrong() {
        let cases = [
            ("", "an object was expected at column 1"),
            ("{}", "type: missing"),
            (r#"{"type":"kv","run":"r","key":"k","version":1,"at_us":1}"#, "value: missing"),
            (
                r#"{"type":"end","version":-1,"entries":0}"#,
                "version: must be a whole number from 0 on",
            ),
            (r#"{"type":"run","run":"r","id":"x","status":"a"}"#, "id: `x` is no UUID"),
            (
                r#"{"type":"run","run":"r","id":"018f2f3e-0000-7000-8000-000000000001","status":"failed","version":3,"at_us":5,"changed":3,"changed_at_us":6}"#,
                "changed: must come after version",
            ),
        ];
        for (line, message) in cases {
            assert_eq!(DumpLine::parse(line).unwrap_err().message, message, "{line}");
        }
    }
}
