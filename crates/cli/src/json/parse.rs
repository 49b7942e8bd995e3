//! Reading JSON text, one piece at a time.
//!
//! Promises: nothing is rounded silently (an integer that 64 bits cannot hold and a float that
//! is too large are errors that name it), nothing is dropped silently (a field that is there
//! twice is an error), and nesting and the number of values are bounded, so that no input can
//! overflow the stack or take many times its own size in memory. It is written by hand because
//! the usual parser turns large integers into floats.
//!
//! It does not know what the pieces mean; see [`super::value`] and [`crate::op`].

use std::borrow::Cow;

use steadfast::limits::{VALUE_BYTES_MAX, VALUE_DEPTH_MAX};

/// Deepest nesting of the text: the deepest value, and the objects and lists around it.
pub(crate) const DEPTH_MAX: usize = VALUE_DEPTH_MAX + 16;

/// Most values in one text. The largest value that can be stored holds half as many, and each
/// may be written in a form that counts as two.
pub(crate) const NODES_MAX: usize = VALUE_BYTES_MAX;

/// What is wrong with a text, and in which column (in bytes, from 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonError {
    pub(crate) column: usize,
    pub(crate) reason: Cow<'static, str>,
}

impl std::fmt::Display for JsonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at column {}", self.reason, self.column)
    }
}

pub(crate) type Result<T> = std::result::Result<T, JsonError>;

/// What comes next in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Null,
    Bool,
    Number,
    String,
    List,
    Object,
}

/// A number: written with digits only it is an integer, else a float.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Int(i64),
    Float(f64),
}

/// A reading position in a text.
#[derive(Debug)]
pub(crate) struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    nodes_left: usize,
}

impl<'a> Parser<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, nodes_left: NODES_MAX }
    }

    /// The error `reason` at this position.
    pub(crate) fn error(&self, reason: impl Into<Cow<'static, str>>) -> JsonError {
        self.error_at(self.at, reason)
    }

    fn error_at(&self, at: usize, reason: impl Into<Cow<'static, str>>) -> JsonError {
        JsonError { column: at + 1, reason: reason.into() }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn skip_if(&mut self, byte: u8) -> bool {
        self.skip_space();
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    /// The kind of the value that begins here.
    pub(crate) fn next(&mut self) -> Result<Next> {
        self.skip_space();
        match self.peek() {
            Some(b'n') => Ok(Next::Null),
            Some(b't' | b'f') => Ok(Next::Bool),
            Some(b'-' | b'0'..=b'9') => Ok(Next::Number),
            Some(b'"') => Ok(Next::String),
            Some(b'[') => Ok(Next::List),
            Some(b'{') => Ok(Next::Object),
            Some(_) => Err(self.error("no JSON value")),
            None => Err(self.error("the text ends where a value should be")),
        }
    }

    fn count_node(&mut self) -> Result<()> {
        match self.nodes_left.checked_sub(1) {
            Some(left) => self.nodes_left = left,
            None => return Err(self.error(format!("more than {NODES_MAX} values"))),
        }
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<()> {
        self.count_node()?;
        if !self.text[self.at..].starts_with(word) {
            return Err(self.error("no JSON value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// `null`.
    pub(crate) fn null(&mut self) -> Result<()> {
        self.skip_space();
        self.word("null")
    }

    /// `true` or `false`.
    pub(crate) fn bool(&mut self) -> Result<bool> {
        self.skip_space();
        let truth = self.peek() == Some(b't');
        self.word(if truth { "true" } else { "false" })?;
        Ok(truth)
    }

    fn digits(&mut self) -> Result<()> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.error("a digit is missing"));
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    /// A number.
    pub(crate) fn number(&mut self) -> Result<Number> {
        self.skip_space();
        self.count_node()?;
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        let first = self.at;
        self.digits()?;
        if self.at - first > 1 && self.text.as_bytes()[first] == b'0' {
            return Err(self.error_at(first, "a number that begins with 0"));
        }
        let mut float = false;
        if self.peek() == Some(b'.') {
            float = true;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            float = true;
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        let literal = &self.text[start..self.at];
        if float {
            match literal.parse::<f64>() {
                Ok(x) if x.is_finite() => return Ok(Number::Float(x)),
                _ => {}
            }
        } else if let Ok(n) = literal.parse() {
            return Ok(Number::Int(n));
        }
        let kind = if float { "float" } else { "integer" };
        let shown: String = literal.chars().take(40).collect();
        let dots = if shown.len() < literal.len() { "…" } else { "" };
        Err(self.error_at(start, format!("the {kind} {shown}{dots} does not fit in 64 bits")))
    }

    /// A text.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>> {
        self.skip_space();
        self.count_node()?;
        if self.peek() != Some(b'"') {
            return Err(self.error("a text was expected"));
        }
        self.at += 1;
        let start = self.at;
        self.skip_plain();
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(&self.text[start..self.at - 1]));
        }
        let mut out = self.text[start..self.at].to_owned();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(out));
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return Err(self.error("a control character inside a text")),
                None => return Err(self.error_at(start - 1, "a text that does not end")),
            }
            let run = self.at;
            self.skip_plain();
            out.push_str(&self.text[run..self.at]);
        }
    }

    /// Skips to the next byte of a text that does not stand for itself. Such bytes are ASCII,
    /// so the position stays on a character.
    fn skip_plain(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
        self.at += plain.unwrap_or(rest.len());
    }

    fn escape(&mut self) -> Result<char> {
        let start = self.at;
        self.at += 1;
        let escaped = self.peek();
        self.at += usize::from(escaped.is_some_and(|byte| byte.is_ascii()));
        match escaped {
            Some(b'"') => Ok('"'),
            Some(b'\\') => Ok('\\'),
            Some(b'/') => Ok('/'),
            Some(b'b') => Ok('\u{8}'),
            Some(b'f') => Ok('\u{c}'),
            Some(b'n') => Ok('\n'),
            Some(b'r') => Ok('\r'),
            Some(b't') => Ok('\t'),
            Some(b'u') => self.unicode_escape(start),
            _ => Err(self.error_at(start, "an unknown escape")),
        }
    }

    fn unicode_escape(&mut self, start: usize) -> Result<char> {
        let first = self.four_hex_digits()?;
        let mut code = first;
        if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with("\\u") {
            self.at += 2;
            let second = self.four_hex_digits()?;
            if (0xdc00..0xe000).contains(&second) {
                code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            }
        }
        // Half of a pair alone is no character, and a text of characters cannot hold it.
        char::from_u32(code)
            .ok_or_else(|| self.error_at(start, format!("\\u{first:04x}, half of a character")))
    }

    fn four_hex_digits(&mut self) -> Result<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let code = digits
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| self.error("four hexadecimal digits are missing"))?;
        self.at += 4;
        Ok(code)
    }

    fn enter(&mut self) -> Result<()> {
        self.count_node()?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(())
    }

    /// A list; `item` reads each of its values and is told its index.
    pub(crate) fn list<E: From<JsonError>>(
        &mut self,
        mut item: impl FnMut(&mut Self, usize) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        if !self.skip_if(b'[') {
            return Err(self.error("a list was expected").into());
        }
        self.enter()?;
        if !self.skip_if(b']') {
            for index in 0.. {
                item(self, index)?;
                if self.skip_if(b']') {
                    break;
                }
                if !self.skip_if(b',') {
                    return Err(self.error("a comma or the end of the list is missing").into());
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// An object; `field` reads each value and is told its name.
    pub(crate) fn object<E: From<JsonError>>(
        &mut self,
        mut field: impl FnMut(&mut Self, Cow<'a, str>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        if !self.skip_if(b'{') {
            return Err(self.error("an object was expected").into());
        }
        self.enter()?;
        if !self.skip_if(b'}') {
            loop {
                let name = self.string()?;
                if !self.skip_if(b':') {
                    return Err(self.error("a colon is missing").into());
                }
                field(self, name)?;
                if self.skip_if(b'}') {
                    break;
                }
                if !self.skip_if(b',') {
                    return Err(self.error("a comma or the end of the object is missing").into());
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Succeeds only where nothing but space is left.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.error("text after the end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<Number> {
        let mut parser = Parser::new(text);
        let number = parser.number()?;
        parser.end()?;
        Ok(number)
    }

    fn string(text: &str) -> Result<String> {
        let mut parser = Parser::new(text);
        let string = parser.string()?.into_owned();
        parser.end()?;
        Ok(string)
    }

    #[test]
    fn digits_alone_are_an_integer_and_anything_else_is_a_float() {
        assert_eq!(number(" 1 "), Ok(Number::Int(1)));
        assert_eq!(number("1.0"), Ok(Number::Float(1.0)));
        assert_eq!(number("1e0"), Ok(Number::Float(1.0)));
        assert_eq!(number("-0"), Ok(Number::Int(0)));
        assert!(matches!(number("-0.0"), Ok(Number::Float(x)) if x.is_sign_negative()));
        assert_eq!(number("9007199254740993"), Ok(Number::Int(9_007_199_254_740_993)));
        assert_eq!(number("-9223372036854775808"), Ok(Number::Int(i64::MIN)));
    }

    #[test]
    fn a_number_that_cannot_be_kept_is_named() {
        let error = number("9223372036854775808").unwrap_err().to_string();
        assert_eq!(error, "the integer 9223372036854775808 does not fit in 64 bits at column 1");
        assert!(number("1e999").unwrap_err().to_string().contains("1e999"));
        let long = "7".repeat(1000);
        assert!(number(&long).unwrap_err().to_string().len() < 120);
    }

    #[test]
    fn refuses_numbers_that_json_has_not() {
        for text in ["01", "-", "1.", ".5", "+1", "1e", "1e+", "0x1", "--1", "NaN", "Infinity"] {
            assert!(number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn texts_come_back_with_their_escapes_resolved() {
        assert_eq!(string(r#""aé""#), Ok("aé".into()));
        assert_eq!(string(r#""\"\\\/\b\f\n\r\t\u0041""#), Ok("\"\\/\u{8}\u{c}\n\r\tA".into()));
        assert_eq!(string(r#""x\ud83d\ude00y""#), Ok("x😀y".into()));
    }

    #[test]
    fn refuses_texts_that_json_has_not() {
        let cases = [
            r#"""#,
            r#""\x""#,
            r#""\u12""#,
            r#""\u12g4""#,
            r#""\ud800""#,
            r#""\ude00""#,
            "\"\n\"",
            r#""\ud800\u0041""#,
            r#""\é""#,
            r#""\"#,
        ];
        for text in cases {
            assert!(string(text).is_err(), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_an_overflow() {
        fn nested(parser: &mut Parser<'_>) -> Result<()> {
            if parser.next()? == Next::List {
                parser.list(|parser, _| nested(parser))
            } else {
                parser.null()
            }
        }
        let deep = "[".repeat(1 << 20);
        let error = nested(&mut Parser::new(&deep)).unwrap_err();
        assert!(error.reason.contains("nested deeper"), "{error}");
    }
}
