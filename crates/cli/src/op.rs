//! One line of `apply`: a transaction and its operations.
//!
//! Only the line is judged here: names, types, what is missing and what does not belong. What
//! the database thinks of it (a key that is too long, an expectation that fails) it says later.

use std::collections::BTreeMap;
use std::time::Duration;

use steadfast::{
    AppendOptions, Attributes, Expect, KeyWindow, SchemaBuilder, Timestamp, Value, Version,
};

use crate::failure::{Failure, Result};
use crate::json::{Parser, Tags, name_from_value, read_fields};
use crate::signal::{definition_of, schema_of};

/// What one line asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Line {
    /// Operations of a transaction.
    Transaction(Vec<Op>),
    /// What signals mean.
    Define(SchemaBuilder),
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Op {
    pub(crate) run: String,
    pub(crate) action: Action,
}

/// What an operation does in its run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    KvPut { key: Vec<u8>, value: Value },
    KvDelete { key: Vec<u8> },
    EventAppend { stream: String, payload: Value, options: AppendOptions },
    EventTrim { stream: String, before: u64 },
    EventKeyWindow { stream: String, keys: KeyWindow },
    StateSet { cell: String, value: Value },
    StateCas { cell: String, expect: Version, value: Value },
    Signal { name: String, entity: Vec<u8>, weight: f64, at: Option<Timestamp> },
    CollectionCreate { collection: String },
    CollectionAdd { collection: String, item: Vec<u8> },
    CollectionRemove { collection: String, item: Vec<u8> },
    CollectionDelete { collection: String },
    AttributesSet { entity: Vec<u8>, attributes: Attributes },
    AttributesDelete { entity: Vec<u8> },
    Engage { graph: String, actor: Vec<u8>, item: Vec<u8>, at: Option<Timestamp> },
}

/// Reads a line: `{"ops":[…]}`.
pub(crate) fn parse_transaction(line: &str) -> Result<Line> {
    if line.trim_ascii().is_empty() {
        return Err(Failure::invalid("the line is empty"));
    }
    let mut parser = Parser::new(line);
    let mut ops = None;
    parser.object::<Failure>(|parser, name| {
        if name != "ops" {
            return Err(Failure::invalid(format!("{name}: a transaction has no such field")));
        }
        if ops.is_some() {
            return Err(Failure::invalid("ops: is there twice"));
        }
        ops = Some(parse_ops(parser)?);
        Ok(())
    })?;
    parser.end()?;
    ops.ok_or_else(|| Failure::invalid("ops: missing"))
}

fn parse_ops(parser: &mut Parser<'_>) -> Result<Line> {
    let (mut ops, mut schema) = (Vec::new(), None);
    parser
        .list::<Failure>(|parser, index| {
            let fields = read_fields(parser, Tags::Known)
                .map_err(|error| Failure::from(error).of(&format!("ops[{index}]")))?;
            let fields = Fields { index, fields };
            let defines = fields.defines();
            if index > 0 && defines != schema.is_some() {
                let what = format!("{DEFINE} stands on a line of its own");
                return Err(fields.wrong("op", &what));
            }
            match defines {
                true => schema = Some(fields.into_schema(schema.take())?),
                false => ops.push(fields.into_op()?),
            }
            Ok(())
        })
        .map_err(|failure| match failure.message.starts_with("ops") {
            true => failure,
            false => failure.of("ops"),
        })?;
    Ok(schema.map_or(Line::Transaction(ops), Line::Define))
}

/// The operation that says what a signal means. What a transaction records, it records by what
/// was defined before, so both on one line would promise too much.
const DEFINE: &str = "signal_define";

const KNOWN: [&str; 15] = [
    "kv_put",
    "kv_delete",
    "event_append",
    "event_trim",
    "event_key_window",
    "state_set",
    "state_cas",
    "signal",
    "collection_create",
    "collection_add",
    "collection_remove",
    "collection_delete",
    "attributes_set",
    "attributes_delete",
    "engage",
];

/// The fields of one operation, taken out one by one, so that what is left does not belong.
struct Fields {
    index: usize,
    fields: BTreeMap<String, Value>,
}

impl Fields {
    fn defines(&self) -> bool {
        self.fields.get("op").and_then(Value::as_str) == Some(DEFINE)
    }

    /// Adds the definition to those before it.
    fn into_schema(mut self, before: Option<SchemaBuilder>) -> Result<SchemaBuilder> {
        let (op, name) = (self.text("op")?, self.text("name")?);
        let definition = definition_of(Some(self.value("definition")?))
            .map_err(|failure| failure.of(&format!("ops[{}].definition", self.index)))?;
        let schema = match before {
            Some(before) => before.and_signal(&name),
            None => SchemaBuilder::signal(&name),
        };
        match self.fields.first_key_value() {
            Some((field, _)) => Err(self.wrong(field, &format!("{op} has no such field"))),
            None => Ok(schema_of(schema, &definition)),
        }
    }

    fn into_op(mut self) -> Result<Op> {
        let op = self.text("op")?;
        if !KNOWN.contains(&op.as_str()) {
            return Err(self.wrong("op", &format!("unknown operation `{op}`")));
        }
        let run = self.text("run")?;
        let action = match op.as_str() {
            "kv_put" => Action::KvPut { key: self.name("key")?, value: self.value("value")? },
            "kv_delete" => Action::KvDelete { key: self.name("key")? },
            "event_append" => Action::EventAppend {
                stream: self.text("stream")?,
                payload: self.value("payload")?,
                options: AppendOptions {
                    expect: self.expect_of_stream()?,
                    idempotency_key: self.optional_text("idempotency_key")?,
                    kind: self.optional_text("kind")?,
                    causation: self.optional_text("causation")?,
                    correlation: self.optional_text("correlation")?,
                    time: self.optional_time("time_us")?,
                    scope: self.optional_text("scope")?,
                },
            },
            "event_trim" => {
                Action::EventTrim { stream: self.text("stream")?, before: self.number("before")? }
            }
            "event_key_window" => {
                Action::EventKeyWindow { stream: self.text("stream")?, keys: self.key_window()? }
            }
            "state_set" => {
                Action::StateSet { cell: self.text("cell")?, value: self.value("value")? }
            }
            "signal" => Action::Signal {
                name: self.text("name")?,
                entity: self.name("entity")?,
                weight: self.weight()?,
                at: self.optional_time("at_us")?,
            },
            "collection_create" => {
                Action::CollectionCreate { collection: self.text("collection")? }
            }
            "collection_add" => Action::CollectionAdd {
                collection: self.text("collection")?,
                item: self.name("item")?,
            },
            "collection_remove" => Action::CollectionRemove {
                collection: self.text("collection")?,
                item: self.name("item")?,
            },
            "collection_delete" => {
                Action::CollectionDelete { collection: self.text("collection")? }
            }
            "attributes_set" => Action::AttributesSet {
                entity: self.name("entity")?,
                attributes: self.attributes()?,
            },
            "attributes_delete" => Action::AttributesDelete { entity: self.name("entity")? },
            "engage" => Action::Engage {
                graph: self.text("graph")?,
                actor: self.name("actor")?,
                item: self.name("item")?,
                at: self.optional_time("at_us")?,
            },
            _ => Action::StateCas {
                cell: self.text("cell")?,
                expect: self.version("expect")?,
                value: self.value("value")?,
            },
        };
        match self.fields.first_key_value() {
            Some((field, _)) => Err(self.wrong(field, &format!("{op} has no such field"))),
            None => Ok(Op { run, action }),
        }
    }

    fn wrong(&self, field: &str, what: &str) -> Failure {
        Failure::invalid(format!("ops[{}].{field}: {what}", self.index))
    }

    fn value(&mut self, field: &str) -> Result<Value> {
        self.fields.remove(field).ok_or_else(|| self.wrong(field, "missing"))
    }

    fn text(&mut self, field: &str) -> Result<String> {
        match self.value(field)? {
            Value::String(text) => Ok(text),
            _ => Err(self.wrong(field, "must be a text")),
        }
    }

    fn optional_text(&mut self, field: &str) -> Result<Option<String>> {
        match self.fields.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(field, "must be a text or null")),
        }
    }

    fn weight(&mut self) -> Result<f64> {
        #[allow(clippy::cast_precision_loss, reason = "above the limit of weights")]
        match self.value("weight")? {
            Value::Float(weight) => Ok(weight),
            Value::Int(weight) => Ok(weight as f64),
            _ => Err(self.wrong("weight", "must be a number")),
        }
    }

    fn number(&mut self, field: &str) -> Result<u64> {
        match self.value(field)? {
            Value::Int(n) if n >= 0 => Ok(n.unsigned_abs()),
            _ => Err(self.wrong(field, "must be a whole number from 0 on")),
        }
    }

    fn key_window(&mut self) -> Result<KeyWindow> {
        match (self.fields.contains_key("events"), self.fields.contains_key("us")) {
            (false, false) => Ok(KeyWindow::Forever),
            (true, false) => self.number("events").map(KeyWindow::Events),
            (false, true) => Ok(KeyWindow::Time(Duration::from_micros(self.number("us")?))),
            (true, true) => Err(self.wrong("us", "there is `events` already")),
        }
    }

    fn optional_time(&mut self, field: &str) -> Result<Option<Timestamp>> {
        match self.fields.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Int(n)) if n >= 0 => Ok(Some(Timestamp::from_micros(n.unsigned_abs()))),
            Some(_) => Err(self.wrong(field, "must be microseconds since 1970 or null")),
        }
    }

    fn attributes(&mut self) -> Result<Attributes> {
        match self.value("attributes")? {
            Value::Map(attributes) => Ok(attributes),
            _ => Err(self.wrong("attributes", "must be an object")),
        }
    }

    fn name(&mut self, field: &str) -> Result<Vec<u8>> {
        name_from_value(self.value(field)?)
            .ok_or_else(|| self.wrong(field, "must be a text or {\"$bytes\":…}"))
    }

    fn version(&mut self, field: &str) -> Result<Version> {
        match self.value(field)? {
            Value::Int(n) if n >= 0 => Ok(Version(n.unsigned_abs())),
            _ => Err(self.wrong(field, "must be a version, a whole number from 0 (absent) on")),
        }
    }

    fn expect_of_stream(&mut self) -> Result<Expect> {
        match self.fields.remove("expect") {
            None | Some(Value::Null) => Ok(Expect::Any),
            Some(Value::String(text)) if text == "no_stream" => Ok(Expect::NoStream),
            Some(Value::Int(n)) if n >= 0 => Ok(Expect::Exact(n.unsigned_abs())),
            Some(_) => {
                let what = "must be null, \"no_stream\" or the sequence number of the last event";
                Err(self.wrong("expect", what))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use steadfast::{Database, Decay, Window};

    use super::*;

    #[test]
    fn reads_every_operation() {
        let line = r#"{"ops":[
            {"op":"kv_put","run":"r","key":"k","value":{"a":[1,1.5]}},
            {"op":"kv_delete","run":"r","key":{"$bytes":"/w=="}},
            {"op":"event_append","run":"r","stream":"s","payload":null,"expect":null},
            {"op":"event_append","run":"r","stream":"s","payload":1,"expect":"no_stream"},
            {"op":"event_append","run":"r","stream":"s","payload":1,"expect":7,"idempotency_key":"i","kind":"k",
             "causation":"c","correlation":"d","scope":"e","time_us":3},
            {"op":"event_trim","run":"r","stream":"s","before":3},
            {"op":"event_key_window","run":"r","stream":"s","events":3},
            {"op":"event_key_window","run":"r","stream":"s","us":3000},
            {"op":"event_key_window","run":"r","stream":"s"},
            {"value":1,"cell":"c","run":"r","op":"state_set"},
            {"op":"state_cas","run":"r","cell":"c","expect":0,"value":2},
            {"op":"signal","run":"r","name":"n","entity":{"$bytes":"/w=="},"weight":2,"at_us":7},
            {"op":"signal","run":"r","name":"n","entity":"e","weight":0.5},
            {"op":"collection_create","run":"r","collection":"c"},
            {"op":"collection_add","run":"r","collection":"c","item":"i"},
            {"op":"collection_remove","run":"r","collection":"c","item":{"$bytes":"/w=="}},
            {"op":"collection_delete","run":"r","collection":"c"},
            {"op":"attributes_set","run":"r","entity":"e","attributes":{"age":3}},
            {"op":"attributes_delete","run":"r","entity":"e"},
            {"op":"engage","run":"r","graph":"g","actor":"a","item":"i","at_us":7}]}"#;
        let Line::Transaction(ops) = parse_transaction(line).unwrap() else { panic!("operations") };
        assert_eq!(ops.len(), 20);
        let attributes = [("age".to_owned(), Value::Int(3))].into();
        let set = Action::AttributesSet { entity: b"e".to_vec(), attributes };
        assert_eq!(ops[17].action, set);
        let at = Some(Timestamp::from_micros(7));
        let (actor, item) = (b"a".to_vec(), b"i".to_vec());
        assert_eq!(ops[19].action, Action::Engage { graph: "g".into(), actor, item, at });
        let removed = Action::CollectionRemove { collection: "c".into(), item: vec![0xff] };
        assert_eq!(ops[15].action, removed);
        let (name, at) = ("n".to_owned(), Some(Timestamp::from_micros(7)));
        let signal = Action::Signal { name, entity: vec![0xff], weight: 2.0, at };
        assert_eq!(ops[11].action, signal);
        let stream = || "s".to_owned();
        assert_eq!(ops[5].action, Action::EventTrim { stream: stream(), before: 3 });
        let time = KeyWindow::Time(Duration::from_millis(3));
        let windows = [KeyWindow::Events(3), time, KeyWindow::Forever];
        for (op, keys) in ops[6..].iter().zip(windows) {
            assert_eq!(op.action, Action::EventKeyWindow { stream: stream(), keys });
        }
        assert_eq!(ops[1].action, Action::KvDelete { key: vec![0xff] });
        let expectations: Vec<_> = ops
            .iter()
            .filter_map(|op| match &op.action {
                Action::EventAppend { options, .. } => Some(options.expect),
                _ => None,
            })
            .collect();
        assert_eq!(expectations, [Expect::Any, Expect::NoStream, Expect::Exact(7)]);
        let Action::EventAppend { options, .. } = &ops[4].action else { panic!("an append") };
        let texts = [&options.idempotency_key, &options.kind, &options.causation];
        assert_eq!(texts.map(|text| text.as_deref()), [Some("i"), Some("k"), Some("c")]);
        assert_eq!(options.correlation.as_deref(), Some("d"));
        assert_eq!(options.scope.as_deref(), Some("e"));
        assert_eq!(options.time, Some(Timestamp::from_micros(3)));
        let set = Action::StateSet { cell: "c".into(), value: Value::Int(1) };
        assert_eq!(ops[9], Op { run: "r".into(), action: set });
        assert_eq!(parse_transaction(r#"{"ops":[]}"#), Ok(Line::Transaction(vec![])));
    }

    #[test]
    fn reads_definitions_of_signals() {
        let line = r#"{"ops":[
            {"op":"signal_define","name":"a","definition":{"version":1,"minutes":5,"hours":0,
             "decay":"linear","lifetime_us":64,"velocity_minutes":2}},
            {"op":"signal_define","name":"b","definition":{"version":3,"minutes":0,"hours":9,
             "decay":"permanent","velocity_hours":1}}]}"#;
        let linear = Decay::Linear { lifetime: Duration::from_micros(64) };
        let due = SchemaBuilder::signal("a").windows([Window::Minutes(5)]).decay(linear);
        let due = due.velocity(Window::Minutes(2)).and_signal("b").version(3);
        let due = due.windows([Window::Hours(9)]).velocity(Window::Hours(1));
        let Line::Define(found) = parse_transaction(line).unwrap() else { panic!("definitions") };
        let definitions = |schema: SchemaBuilder| {
            let db = Database::in_memory().unwrap();
            db.define_signals(schema).unwrap();
            ["a", "b"].map(|name| db.signal_definition(name).unwrap())
        };
        assert_eq!(definitions(found), definitions(due.decay(Decay::Permanent)));
    }

    #[test]
    fn a_bad_line_says_which_operation_and_field_and_what() {
        let cases = [
            ("", "the line is empty"),
            (" \r", "the line is empty"),
            ("x", "an object was expected at column 1"),
            ("[]", "an object was expected at column 1"),
            ("{}", "ops: missing"),
            (r#"{"ops":[]} x"#, "text after the end at column 12"),
            (r#"{"ops":[],"ops":[]}"#, "ops: is there twice"),
            (r#"{"ops":[],"id":1}"#, "id: a transaction has no such field"),
            (r#"{"ops":{}}"#, "ops: a list was expected at column 8"),
            (r#"{"ops":[1]}"#, "ops[0]: an object was expected at column 9"),
            (
                r#"{"ops":[{"op":"kv_put","op":"x"}]}"#,
                "ops[0]: the field `op` is there twice at column 32",
            ),
            (r#"{"ops":[{}]}"#, "ops[0].op: missing"),
            (r#"{"ops":[{"op":"kv_putt","run":"r"}]}"#, "ops[0].op: unknown operation `kv_putt`"),
            (
                r#"{"ops":[{"op":"kv_delete","run":"r","key":"k"},{"op":"kv_put","key":"k"}]}"#,
                "ops[1].run: missing",
            ),
            (
                r#"{"ops":[{"op":"kv_put","run":7,"key":"k","value":1}]}"#,
                "ops[0].run: must be a text",
            ),
            (r#"{"ops":[{"op":"kv_put","run":"r","key":"k"}]}"#, "ops[0].value: missing"),
            (
                r#"{"ops":[{"op":"kv_put","run":"r","key":1,"value":1}]}"#,
                "ops[0].key: must be a text or {\"$bytes\":…}",
            ),
            (
                r#"{"ops":[{"op":"kv_delete","run":"r","key":"k","value":1}]}"#,
                "ops[0].value: kv_delete has no such field",
            ),
            (
                r#"{"ops":[{"op":"event_append","run":"r","stream":"s","payload":1,"expect":-1}]}"#,
                "ops[0].expect: must be null, \"no_stream\" or the sequence number of the last event",
            ),
            (
                r#"{"ops":[{"op":"state_cas","run":"r","cell":"c","value":1,"expect":null}]}"#,
                "ops[0].expect: must be a version, a whole number from 0 (absent) on",
            ),
            (
                r#"{"ops":[{"op":"event_append","run":"r","stream":"s","payload":1,"idempotency_key":1}]}"#,
                "ops[0].idempotency_key: must be a text or null",
            ),
            (
                r#"{"ops":[{"op":"event_append","run":"r","stream":"s","payload":1,"time_us":"x"}]}"#,
                "ops[0].time_us: must be microseconds since 1970 or null",
            ),
            (
                r#"{"ops":[{"op":"event_trim","run":"r","stream":"s","before":-1}]}"#,
                "ops[0].before: must be a whole number from 0 on",
            ),
            (
                r#"{"ops":[{"op":"event_key_window","run":"r","stream":"s","events":1,"us":1}]}"#,
                "ops[0].us: there is `events` already",
            ),
            (
                r#"{"ops":[{"op":"signal","run":"r","name":"n","entity":"e","weight":"1"}]}"#,
                "ops[0].weight: must be a number",
            ),
            (
                r#"{"ops":[{"op":"signal","run":"r","name":"n","entity":"e","weight":1,"at_us":-1}]}"#,
                "ops[0].at_us: must be microseconds since 1970 or null",
            ),
            (
                r#"{"ops":[{"op":"signal_define","name":"n","definition":{"version":1}}]}"#,
                "ops[0].definition: decay: is not as a dump has it",
            ),
            (
                r#"{"ops":[{"op":"signal_define","run":"r","name":"n","definition":{"version":1,"minutes":1,"hours":0,"decay":"permanent","velocity_minutes":1}}]}"#,
                "ops[0].run: signal_define has no such field",
            ),
            (
                r#"{"ops":[{"op":"kv_delete","run":"r","key":"k"},{"op":"signal_define","name":"n"}]}"#,
                "ops[1].op: signal_define stands on a line of its own",
            ),
            (
                r#"{"ops":[{"op":"signal_define","name":"n","definition":{"version":1,"minutes":1,"hours":0,"decay":"permanent","velocity_minutes":1}},{"op":"kv_delete","run":"r","key":"k"}]}"#,
                "ops[1].op: signal_define stands on a line of its own",
            ),
            (
                r#"{"ops":[{"op":"attributes_set","run":"r","entity":"e","attributes":[]}]}"#,
                "ops[0].attributes: must be an object",
            ),
            (
                r#"{"ops":[{"op":"kv_put","run":"r","key":"k","value":99999999999999999999}]}"#,
                "ops[0]: the integer 99999999999999999999 does not fit in 64 bits at column 52",
            ),
        ];
        for (line, message) in cases {
            let failure = parse_transaction(line).unwrap_err();
            assert_eq!((failure.kind.as_str(), failure.message.as_str()), ("invalid", message));
        }
    }
}
