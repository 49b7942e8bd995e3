//! JSON Lines: every line an event.

use steadfast::Value;

use super::Unit;
use super::time::time_from_value;
use crate::failure::{Failure, Result};
use crate::json::{Tags, value_from_json};

/// How the lines of a file become events.
#[derive(Debug, Clone)]
pub(crate) struct JsonLines {
    /// The stream of lines that do not name theirs: the file's stem.
    pub(crate) stem: String,
    /// The field that names a line's stream.
    pub(crate) stream_by: Option<String>,
    /// The field that holds a line's time.
    pub(crate) time: Option<String>,
}

impl JsonLines {
    /// The event in `line`; none if the line is blank.
    pub(crate) fn unit(&self, line: &str) -> Result<Option<Unit>> {
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        let payload = value_from_json(line, Tags::Ignored)?;
        let stream = self.stream(&payload)?.unwrap_or_else(|| self.stem.clone());
        let time = match field(&payload, self.time.as_deref()) {
            None => None,
            Some((name, value)) => {
                let time = time_from_value(value);
                Some(time.map_err(|what| Failure::invalid(format!("the field `{name}` {what}")))?)
            }
        };
        Ok(Some(Unit::Append { stream, payload, time }))
    }

    fn stream(&self, payload: &Value) -> Result<Option<String>> {
        let Some((name, value)) = field(payload, self.stream_by.as_deref()) else {
            return Ok(None);
        };
        match value {
            Value::String(text) if text.is_empty() => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            Value::Int(n) => Ok(Some(n.to_string())),
            Value::Bool(truth) => Ok(Some(truth.to_string())),
            _ => Err(Failure::invalid(format!("the field `{name}` names no stream"))),
        }
    }
}

/// The field `name` of `payload`, if it is asked for, there and not null.
fn field<'a>(payload: &'a Value, name: Option<&'a str>) -> Option<(&'a str, &'a Value)> {
    let (Value::Map(fields), Some(name)) = (payload, name) else { return None };
    fields.get(name).filter(|value| **value != Value::Null).map(|value| (name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast::Timestamp;

    fn reader() -> JsonLines {
        JsonLines { stem: "file".into(), stream_by: Some("path".into()), time: Some("ts".into()) }
    }

    #[test]
    fn a_line_goes_to_the_stream_it_names_or_to_the_stem() {
        let cases = [
            (r#"{"path":"a/b"}"#, "a/b"),
            (r#"{"path":7}"#, "7"),
            (r#"{"path":true}"#, "true"),
            (r#"{"path":""}"#, "file"),
            (r#"{"path":null}"#, "file"),
            (r#"{"other":1}"#, "file"),
            ("[1,2]", "file"),
        ];
        for (line, expected) in cases {
            let Ok(Some(Unit::Append { stream, .. })) = reader().unit(line) else {
                panic!("{line}")
            };
            assert_eq!(stream, expected, "{line}");
        }
        assert_eq!(reader().unit("  \r"), Ok(None));
        assert!(reader().unit(r#"{"path":["a"]}"#).is_err());
    }

    #[test]
    fn a_line_keeps_its_time_and_all_its_fields_as_they_are() {
        let line = r#"{"ts":1537727414,"x":{"$bytes":"AA=="}}"#;
        let Ok(Some(Unit::Append { payload, time, .. })) = reader().unit(line) else { panic!() };
        assert_eq!(time, Some(Timestamp::from_micros(1_537_727_414_000_000)));
        let Value::Map(fields) = payload else { panic!() };
        assert!(
            matches!(&fields["x"], Value::Map(_)),
            "another program's object is no tag of ours"
        );
        assert_eq!(fields["ts"], Value::Int(1_537_727_414));
        let error = reader().unit(r#"{"ts":"noon"}"#).unwrap_err();
        assert_eq!(error.message, "the field `ts` `noon` is not a time as in RFC 3339");
    }
}
