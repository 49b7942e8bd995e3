//! Writing JSON text: strings, and objects field by field.

use steadfast::Value;

use super::value::{push_name, push_value};

/// Appends `text` in quotes.
pub(crate) fn push_text(out: &mut String, text: &str) {
    out.push('"');
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x08 => "\\b",
            0x0c => "\\f",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(&text[plain_from..at]);
        if escape.is_empty() {
            out.push_str(&format!("\\u{byte:04x}"));
        } else {
            out.push_str(escape);
        }
        plain_from = at + 1;
    }
    out.push_str(&text[plain_from..]);
    out.push('"');
}

/// An object being written. [`Object::end`] closes it.
pub(crate) struct Object {
    out: String,
}

impl Object {
    pub(crate) fn new() -> Self {
        Self { out: String::from("{") }
    }

    fn name(&mut self, name: &str) {
        if self.out.len() > 1 {
            self.out.push(',');
        }
        push_text(&mut self.out, name);
        self.out.push(':');
    }

    pub(crate) fn text(mut self, name: &str, text: &str) -> Self {
        self.name(name);
        push_text(&mut self.out, text);
        self
    }

    pub(crate) fn number(mut self, name: &str, number: u64) -> Self {
        self.name(name);
        self.out.push_str(&number.to_string());
        self
    }

    pub(crate) fn bool(mut self, name: &str, truth: bool) -> Self {
        self.name(name);
        self.out.push_str(if truth { "true" } else { "false" });
        self
    }

    /// A name or key of bytes, see [`push_name`].
    pub(crate) fn bytes_name(mut self, name: &str, bytes: &[u8]) -> Self {
        self.name(name);
        push_name(&mut self.out, bytes);
        self
    }

    pub(crate) fn value(mut self, name: &str, value: &Value) -> Self {
        self.name(name);
        push_value(&mut self.out, value);
        self
    }

    /// A field that is JSON already.
    pub(crate) fn json(mut self, name: &str, json: &str) -> Self {
        self.name(name);
        self.out.push_str(json);
        self
    }

    pub(crate) fn end(mut self) -> String {
        self.out.push('}');
        self.out
    }
}

/// A list of what is JSON already.
pub(crate) fn list(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<_> = items.into_iter().collect();
    format!("[{}]", items.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_written_field_by_field() {
        let json = Object::new()
            .text("a", "x\"y")
            .number("b", 2)
            .bool("c", true)
            .bytes_name("d", &[0xff])
            .value("e", &Value::Float(2.0))
            .json("f", &list(["1".into(), "{}".into()]))
            .end();
        let expected = r#"{"a":"x\"y","b":2,"c":true,"d":{"$bytes":"/w=="},"e":2.0,"f":[1,{}]}"#;
        assert_eq!(json, expected);
        assert_eq!(Object::new().end(), "{}");
    }
}
