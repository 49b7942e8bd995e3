//! Values as JSON and back, without loss. The forms are described in `JSON.md`.
//!
//! What JSON cannot hold is written as an object with one field, a *tag*: `{"$bytes":…}`,
//! `{"$int":…}`, `{"$float":…}`. A map that looks like a tag gets one more `$`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use steadfast::Value;

use super::parse::{JsonError, Next, Number, Parser, Result};
use super::write::push_text;

/// Integers up to here, and down to its negative, are exact in every JSON reader: 2^53.
const INT_EXACT_MAX: u64 = 1 << 53;

const TAG_BYTES: &str = "bytes";
const TAG_INT: &str = "int";
const TAG_FLOAT: &str = "float";

/// Whether an object may be a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tags {
    /// As everywhere in our own formats.
    Known,
    /// As in other programs' files, where an object is an object.
    Ignored,
}

/// Reads the value that begins here.
pub(crate) fn read_value(parser: &mut Parser<'_>, tags: Tags) -> Result<Value> {
    Ok(match parser.next()? {
        Next::Null => {
            parser.null()?;
            Value::Null
        }
        Next::Bool => Value::Bool(parser.bool()?),
        Next::Number => match parser.number()? {
            Number::Int(n) => Value::Int(n),
            Number::Float(x) => Value::Float(x),
        },
        Next::String => Value::String(parser.string()?.into_owned()),
        Next::List => {
            let mut items = Vec::new();
            parser.list::<JsonError>(|parser, _| {
                items.push(read_value(parser, tags)?);
                Ok(())
            })?;
            Value::List(items)
        }
        Next::Object => {
            let items = read_fields(parser, tags)?;
            match tags {
                Tags::Known => resolve_tag(items).map_err(|reason| parser.error(reason))?,
                Tags::Ignored => Value::Map(items),
            }
        }
    })
}

/// Reads an object that is no value itself, such as a line of a file, by its fields.
pub(crate) fn read_fields(parser: &mut Parser<'_>, tags: Tags) -> Result<BTreeMap<String, Value>> {
    let mut items = BTreeMap::new();
    parser.object::<JsonError>(|parser, name| {
        let value = read_value(parser, tags)?;
        if items.contains_key(&*name) {
            return Err(parser.error(format!("the field `{name}` is there twice")));
        }
        items.insert(name.into_owned(), value);
        Ok(())
    })?;
    Ok(items)
}

/// Reads a text that is one value and nothing else.
pub(crate) fn value_from_json(text: &str, tags: Tags) -> Result<Value> {
    let mut parser = Parser::new(text);
    let value = read_value(&mut parser, tags)?;
    parser.end()?;
    Ok(value)
}

/// Appends `value`.
pub(crate) fn push_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Int(n) if n.unsigned_abs() <= INT_EXACT_MAX => out.push_str(&n.to_string()),
        Value::Int(n) => push_tag(out, TAG_INT, &n.to_string()),
        // The shortest digits that read back as the same float, always with `.` or `e`.
        Value::Float(x) if x.is_finite() => out.push_str(&format!("{x:?}")),
        Value::Float(x) if x.is_nan() => push_tag(out, TAG_FLOAT, "nan"),
        Value::Float(x) => push_tag(out, TAG_FLOAT, if *x > 0.0 { "inf" } else { "-inf" }),
        Value::String(text) => push_text(out, text),
        Value::Bytes(bytes) => push_tag(out, TAG_BYTES, &BASE64_STANDARD.encode(bytes)),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push_value(out, item);
            }
            out.push(']');
        }
        Value::Map(items) => {
            out.push('{');
            for (index, (name, item)) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                if items.len() == 1 && split_tag(name).is_some() {
                    push_text(out, &format!("${name}"));
                } else {
                    push_text(out, name);
                }
                out.push(':');
                push_value(out, item);
            }
            out.push('}');
        }
    }
}

/// Appends a name or key: text if it is UTF-8, else a tag.
pub(crate) fn push_name(out: &mut String, name: &[u8]) {
    match std::str::from_utf8(name) {
        Ok(text) => push_text(out, text),
        Err(_) => push_tag(out, TAG_BYTES, &BASE64_STANDARD.encode(name)),
    }
}

/// A name or key as [`push_name`] wrote it; `None` if `value` is neither text nor bytes.
pub(crate) fn name_from_value(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.into_bytes()),
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

fn push_tag(out: &mut String, tag: &str, content: &str) {
    out.push_str("{\"$");
    out.push_str(tag);
    out.push_str("\":\"");
    out.push_str(content);
    out.push_str("\"}");
}

/// The tag in a name of one or more `$` and a tag, and how many `$` there are.
fn split_tag(name: &str) -> Option<(usize, &str)> {
    let tag = name.trim_start_matches('$');
    let dollars = name.len() - tag.len();
    (dollars > 0 && [TAG_BYTES, TAG_INT, TAG_FLOAT].contains(&tag)).then_some((dollars, tag))
}

fn resolve_tag(mut items: BTreeMap<String, Value>) -> std::result::Result<Value, String> {
    let Some((dollars, tag)) =
        items.first_key_value().filter(|_| items.len() == 1).and_then(|(name, _)| split_tag(name))
    else {
        return Ok(Value::Map(items));
    };
    let tag = tag.to_owned();
    let Some((name, content)) = items.pop_first() else { return Ok(Value::Map(items)) };
    if dollars > 1 {
        return Ok(Value::Map(BTreeMap::from([(name[1..].to_owned(), content)])));
    }
    let untagged = match (tag.as_str(), &content) {
        (TAG_BYTES, Value::String(text)) => BASE64_STANDARD.decode(text).ok().map(Value::Bytes),
        (TAG_INT, Value::String(text)) => text.parse().ok().map(Value::Int),
        (TAG_FLOAT, Value::String(text)) => match text.as_str() {
            "inf" => Some(Value::Float(f64::INFINITY)),
            "-inf" => Some(Value::Float(f64::NEG_INFINITY)),
            "nan" => Some(Value::Float(f64::NAN)),
            _ => None,
        },
        _ => None,
    };
    untagged.ok_or_else(|| {
        let needs = match tag.as_str() {
            TAG_BYTES => "base64 with its padding, as a text",
            TAG_INT => "a 64-bit integer, as a text",
            _ => "\"inf\", \"-inf\" or \"nan\"",
        };
        format!("`{name}` needs {needs} (for a map of that name write `${name}`)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value_to_json(value: &Value) -> String {
        let mut out = String::new();
        push_value(&mut out, value);
        out
    }

    fn values() -> impl Strategy<Value = Value> {
        let name = prop_oneof![
            4 => ".{0,4}",
            1 => r"\$\$?(bytes|int|float|other)?",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (-4i64..4, prop::sample::select(vec![0, 1 << 53, -(1 << 53)]))
                .prop_map(|(near, base)| Value::Int(base + near)),
            any::<f64>().prop_filter("refused", |x| !x.is_nan()).prop_map(Value::Float),
            (-100i32..100).prop_map(|n| Value::Float(n.into())),
            prop::sample::select(vec![f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MIN_POSITIVE])
                .prop_map(Value::Float),
            ".{0,12}".prop_map(Value::String),
            "[\\x00-\\x7f]{0,6}".prop_map(Value::String),
            prop::collection::vec(any::<u8>(), 0..12).prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(4, 32, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
                prop::collection::btree_map(name.clone(), inner, 0..4).prop_map(Value::Map),
            ]
        })
    }

    /// Equal to the bit: `PartialEq` would take 0.0 for -0.0.
    fn encoded(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        value.encode(&mut out).unwrap();
        out
    }

    proptest! {
        #[test]
        fn every_value_comes_back_the_same_and_so_does_its_text(value in values()) {
            let text = value_to_json(&value);
            let read = value_from_json(&text, Tags::Known).unwrap();
            prop_assert_eq!(encoded(&read), encoded(&value));
            prop_assert_eq!(value_to_json(&read), text);
        }

        #[test]
        fn what_is_written_is_json_to_everyone(value in values()) {
            let text = value_to_json(&value);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }

        #[test]
        fn without_tags_an_object_is_what_it_says(value in values()) {
            let text = value_to_json(&value);
            let read = value_from_json(&text, Tags::Ignored).unwrap();
            let theirs: serde_json::Value = serde_json::from_str(&text).unwrap();
            let ours: serde_json::Value = serde_json::from_str(&plain_json(&read)).unwrap();
            prop_assert_eq!(ours.to_string().len(), theirs.to_string().len());
        }

        #[test]
        fn no_text_makes_reading_panic_and_what_is_refused_others_refuse(
            text in r#"[\[\]{}",:\\ue0-9.tfn$bytes -]{0,24}"#
        ) {
            let ours = value_from_json(&text, Tags::Ignored);
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            match ours {
                Ok(_) => prop_assert!(theirs.is_ok(), "{}", text),
                Err(error) if error.reason.contains("twice")
                    || error.reason.contains("64 bits") => {}
                Err(error) => prop_assert!(theirs.is_err(), "{}: {}", text, error),
            }
        }
    }

    /// A value read without tags holds no bytes and no escapes, so this is all JSON needs.
    fn plain_json(value: &Value) -> String {
        match value {
            Value::Map(items) => {
                let fields = items.iter().map(|(name, item)| {
                    let mut out = String::new();
                    push_text(&mut out, name);
                    format!("{out}:{}", plain_json(item))
                });
                format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
            }
            Value::List(items) => {
                format!("[{}]", items.iter().map(plain_json).collect::<Vec<_>>().join(","))
            }
            Value::Int(n) => n.to_string(),
            other => value_to_json(other),
        }
    }

    #[test]
    fn each_form_is_as_documented() {
        let map = |name: &str, value| Value::Map(BTreeMap::from([(name.to_owned(), value)]));
        let text = |text: &str| Value::String(text.into());
        let cases = [
            (Value::Int(1), "1"),
            (Value::Float(1.0), "1.0"),
            (Value::Float(-0.0), "-0.0"),
            (Value::Float(1e300), "1e300"),
            (Value::Float(1e-7), "1e-7"),
            (Value::Int(1 << 53), "9007199254740992"),
            (Value::Int((1 << 53) + 1), r#"{"$int":"9007199254740993"}"#),
            (Value::Int(i64::MIN), r#"{"$int":"-9223372036854775808"}"#),
            (Value::Float(f64::NEG_INFINITY), r#"{"$float":"-inf"}"#),
            (Value::Bytes(vec![0, 255]), r#"{"$bytes":"AP8="}"#),
            (map("$bytes", text("AP8=")), r#"{"$$bytes":"AP8="}"#),
            (map("$$int", Value::Null), r#"{"$$$int":null}"#),
            (map("$ref", text("#/a")), r##"{"$ref":"#/a"}"##),
            (text("a\"\n\u{1}é"), r#""a\"\n\u0001é""#),
        ];
        for (value, json) in cases {
            assert_eq!(value_to_json(&value), json);
            assert_eq!(value_from_json(json, Tags::Known), Ok(value), "{json}");
        }
        let two = value_from_json(r#"{"$bytes":"no base64","x":1}"#, Tags::Known).unwrap();
        assert!(matches!(two, Value::Map(items) if items.len() == 2), "a tag stands alone");
    }

    #[test]
    fn a_broken_tag_is_refused_and_says_what_to_write() {
        let bad = [
            r#"{"$bytes":"no base64!"}"#,
            r#"{"$bytes":1}"#,
            r#"{"$int":"1.5"}"#,
            r#"{"$int":5}"#,
            r#"{"$int":"9223372036854775808"}"#,
            r#"{"$float":"1.5"}"#,
            r#"{"$float":null}"#,
        ];
        for text in bad {
            let error = value_from_json(text, Tags::Known).unwrap_err().to_string();
            assert!(error.contains("needs") && error.contains("write `$$"), "{text}: {error}");
            assert!(value_from_json(text, Tags::Ignored).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_field_that_is_there_twice_is_refused() {
        let error = value_from_json(r#"{"a":1,"b":{"x":1,"x":2}}"#, Tags::Known).unwrap_err();
        assert!(error.to_string().starts_with("the field `x` is there twice"), "{error}");
    }
}
