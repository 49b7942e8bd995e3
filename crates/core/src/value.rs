//! What can be stored, and its encoding.
//!
//! An encoded value is one tag byte and its content; a value inside a list or a map has its
//! length in front, the outermost ends where its bytes end. Integers are 8 bytes
//! little-endian, maps keep their keys sorted, so equal values have equal bytes.
//!
//! A [`Value`] owns what it has, a [`ValueRef`] lends it from where it lies encoded.

use std::collections::BTreeMap;

use crate::codec::{Cursor, put_bytes, put_varint, varint_len};
use crate::limits::{VALUE_BYTES_MAX, VALUE_DEPTH_MAX};
use crate::{Error, Result};

/// A value. There is no coercion between kinds: `Int(1)` is not `Float(1.0)`.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// Nothing, which is not the same as no value.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// A floating-point number; NaN is refused when it is written.
    Float(f64),
    /// Text.
    String(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name.
    Map(BTreeMap<String, Value>),
}

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const FLOAT: u8 = 4;
const STRING: u8 = 5;
const BYTES: u8 = 6;
const LIST: u8 = 7;
const MAP: u8 = 8;

impl Value {
    /// Appends the encoding, after checking the value against the limits.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        self.encode_at(out, 0)?;
        let bytes = out.len() - start;
        if bytes > VALUE_BYTES_MAX {
            out.truncate(start);
            return Err(Error::ValueTooLarge { bytes });
        }
        Ok(())
    }

    fn encode_at(&self, out: &mut Vec<u8>, depth: usize) -> Result<()> {
        if depth > VALUE_DEPTH_MAX {
            return Err(Error::ValueTooDeep);
        }
        match self {
            Self::Null => out.push(NULL),
            Self::Bool(false) => out.push(FALSE),
            Self::Bool(true) => out.push(TRUE),
            Self::Int(n) => {
                out.push(INT);
                out.extend_from_slice(&n.to_le_bytes());
            }
            Self::Float(x) if x.is_nan() => return Err(Error::NotANumber),
            Self::Float(x) => {
                out.push(FLOAT);
                out.extend_from_slice(&x.to_le_bytes());
            }
            Self::String(text) => {
                out.push(STRING);
                out.extend_from_slice(text.as_bytes());
            }
            Self::Bytes(bytes) => {
                out.push(BYTES);
                out.extend_from_slice(bytes);
            }
            Self::List(items) => {
                out.push(LIST);
                put_varint(out, items.len() as u64);
                for item in items {
                    put_varint(out, item.encoded_len() as u64);
                    item.encode_at(out, depth + 1)?;
                }
            }
            Self::Map(items) => {
                out.push(MAP);
                put_varint(out, items.len() as u64);
                for (name, item) in items {
                    put_bytes(out, name.as_bytes());
                    put_varint(out, item.encoded_len() as u64);
                    item.encode_at(out, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    /// Bytes that [`Value::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        let with_len = |len: usize| varint_len(len as u64) + len;
        1 + match self {
            Self::Null | Self::Bool(_) => 0,
            Self::Int(_) | Self::Float(_) => 8,
            Self::String(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(items) => {
                varint_len(items.len() as u64)
                    + items.iter().map(|item| with_len(item.encoded_len())).sum::<usize>()
            }
            Self::Map(items) => {
                let item = |(name, item): (&String, &Self)| {
                    with_len(name.len()) + with_len(item.encoded_len())
                };
                varint_len(items.len() as u64) + items.iter().map(item).sum::<usize>()
            }
        }
    }

    /// Reads what [`Value::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_at(bytes, 0)
    }

    fn decode_at(bytes: &[u8], depth: usize) -> Result<Self> {
        if depth > VALUE_DEPTH_MAX {
            return Err(Error::ValueTooDeep);
        }
        Ok(match ValueRef::decode(bytes)? {
            ValueRef::Null => Self::Null,
            ValueRef::Bool(x) => Self::Bool(x),
            ValueRef::Int(x) => Self::Int(x),
            ValueRef::Float(x) => Self::Float(x),
            ValueRef::String(text) => Self::String(text.to_owned()),
            ValueRef::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            ValueRef::List(mut encoded) => {
                // An item takes two bytes at the least, so a false count cannot make this large.
                let mut items = Vec::with_capacity(encoded.left.min(encoded.cursor.left() / 2));
                while let Some(item) = encoded.next_encoded() {
                    items.push(Self::decode_at(item?, depth + 1)?);
                }
                Self::List(items)
            }
            ValueRef::Map(mut encoded) => {
                let mut items = BTreeMap::new();
                while let Some(item) = encoded.next_encoded() {
                    let (name, item) = item?;
                    items.insert(name.to_owned(), Self::decode_at(item, depth + 1)?);
                }
                Self::Map(items)
            }
        })
    }

    /// The bytes in an encoded [`Value::Bytes`], where they lie.
    #[inline]
    pub fn bytes_in(encoded: &[u8]) -> Option<&[u8]> {
        encoded.strip_prefix(&[BYTES])
    }

    /// Begins an encoded [`Value::Bytes`]: what is appended next are its bytes.
    /// Whether `encoded` is the string `text`.
    pub fn is_string(encoded: &[u8], text: &str) -> bool {
        encoded.split_first().is_some_and(|(tag, own)| *tag == STRING && own == text.as_bytes())
    }

    pub(crate) fn put_bytes_tag(out: &mut Vec<u8>) {
        out.push(BYTES);
    }

    /// The bytes, if this is [`Value::Bytes`].
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// The text, if this is [`Value::String`].
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The integer, if this is [`Value::Int`].
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(n) = self { Some(*n) } else { None }
    }
}

/// A value where it lies encoded: text and bytes are lent, nothing is copied or allocated.
///
/// What reading a [`Value`] costs is mostly making it. [`Record::value_ref`](crate::Record) does
/// without.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueRef<'a> {
    /// Nothing, which is not the same as no value.
    Null,
    /// True or false.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    String(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Values in order, read one by one.
    List(ListRef<'a>),
    /// Values by name, read one by one.
    Map(MapRef<'a>),
}

impl<'a> ValueRef<'a> {
    /// Reads what [`Value::encode`] wrote. The items of a list or map are checked when they are
    /// read.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        match bytes {
            [BYTES, rest @ ..] => Ok(Self::Bytes(rest)),
            _ => Self::decode_other(bytes),
        }
    }

    fn decode_other(bytes: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new("value", bytes);
        let value = match cursor.u8()? {
            NULL => Self::Null,
            FALSE => Self::Bool(false),
            TRUE => Self::Bool(true),
            INT => Self::Int(i64::from_le_bytes(cursor.array()?)),
            FLOAT => match f64::from_le_bytes(cursor.array()?) {
                x if x.is_nan() => return Err(cursor.malformed("a float that is not a number")),
                x => Self::Float(x),
            },
            STRING => Self::String(
                std::str::from_utf8(cursor.rest())
                    .map_err(|_| Cursor::new("value", bytes).malformed("text that is not UTF-8"))?,
            ),
            BYTES => Self::Bytes(cursor.rest()),
            LIST => return Ok(Self::List(ListRef { left: cursor.length()?, cursor })),
            MAP => return Ok(Self::Map(MapRef { left: cursor.length()?, cursor, last: None })),
            _ => return Err(cursor.malformed("an unknown kind of value")),
        };
        cursor.end()?;
        Ok(value)
    }

    /// The bytes, if this is [`ValueRef::Bytes`].
    #[inline]
    pub const fn as_bytes(&self) -> Option<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// The text, if this is [`ValueRef::String`].
    #[inline]
    pub const fn as_str(&self) -> Option<&'a str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The integer, if this is [`ValueRef::Int`].
    #[inline]
    pub const fn as_int(&self) -> Option<i64> {
        if let Self::Int(n) = self { Some(*n) } else { None }
    }
}

/// The items of an encoded list, in order. After an error there are no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRef<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

impl<'a> ListRef<'a> {
    fn next_encoded(&mut self) -> Option<Result<&'a [u8]>> {
        next_item(&mut self.cursor, &mut self.left, Cursor::bytes)
    }
}

impl<'a> Iterator for ListRef<'a> {
    type Item = Result<ValueRef<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_encoded()?.and_then(ValueRef::decode))
    }
}

/// The items of an encoded map, in the order of their names. After an error there are no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapRef<'a> {
    cursor: Cursor<'a>,
    left: usize,
    last: Option<&'a str>,
}

impl<'a> MapRef<'a> {
    fn next_encoded(&mut self) -> Option<Result<(&'a str, &'a [u8])>> {
        let last = &mut self.last;
        next_item(&mut self.cursor, &mut self.left, |cursor| {
            let name = cursor.str()?;
            if last.replace(name).is_some_and(|last| last >= name) {
                return Err(cursor.malformed("map keys out of order"));
            }
            Ok((name, cursor.bytes()?))
        })
    }
}

impl<'a> Iterator for MapRef<'a> {
    type Item = Result<(&'a str, ValueRef<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.next_encoded()?;
        Some(item.and_then(|(name, item)| Ok((name, ValueRef::decode(item)?))))
    }
}

/// The next of `left` items, or, behind the last one, the error that there is more.
fn next_item<'a, T>(
    cursor: &mut Cursor<'a>,
    left: &mut usize,
    read: impl FnOnce(&mut Cursor<'a>) -> Result<T>,
) -> Option<Result<T>> {
    let item = match left.checked_sub(1) {
        None => cursor.end().err().map(Err),
        Some(fewer) => {
            *left = fewer;
            Some(read(cursor))
        }
    };
    if matches!(item, Some(Err(_))) {
        *left = 0;
        cursor.rest();
    }
    item
}

macro_rules! from {
    ($($from:ty => |$x:ident| $value:expr),* $(,)?) => {
        $(impl From<$from> for Value {
            fn from($x: $from) -> Self {
                $value
            }
        })*
    };
}

from! {
    bool => |x| Self::Bool(x),
    i64 => |x| Self::Int(x),
    i32 => |x| Self::Int(x.into()),
    u32 => |x| Self::Int(x.into()),
    f64 => |x| Self::Float(x),
    &str => |x| Self::String(x.to_owned()),
    String => |x| Self::String(x),
    &[u8] => |x| Self::Bytes(x.to_vec()),
    Vec<u8> => |x| Self::Bytes(x),
    Vec<Value> => |x| Self::List(x),
    BTreeMap<String, Value> => |x| Self::Map(x),
}

impl<const N: usize> From<&[u8; N]> for Value {
    fn from(x: &[u8; N]) -> Self {
        Self::Bytes(x.to_vec())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_filter("not NaN", |x| !x.is_nan()).prop_map(Value::Float),
            ".{0,12}".prop_map(Value::String),
            prop::collection::vec(any::<u8>(), 0..12).prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
                prop::collection::btree_map(".{0,4}", inner, 0..5).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_round_trips(value in values()) {
            let mut out = Vec::new();
            value.encode(&mut out).unwrap();
            prop_assert_eq!(out.len(), value.encoded_len());
            let text = if let Value::String(text) = &value { text.clone() } else { "".into() };
            prop_assert_eq!(Value::is_string(&out, &text), value == Value::String(text.clone()));
            let longer = text + ".";
            prop_assert!(!Value::is_string(&out, &longer));
            prop_assert_eq!(owned(ValueRef::decode(&out).unwrap()), Ok(value.clone()));
            prop_assert_eq!(Value::decode(&out), Ok(value));
        }

        #[test]
        fn no_bytes_make_decoding_panic_and_what_decodes_encodes_the_same(bytes: Vec<u8>) {
            if let Ok(value) = Value::decode(&bytes) {
                prop_assert_eq!(owned(ValueRef::decode(&bytes).unwrap()), Ok(value.clone()));
                let mut out = Vec::new();
                value.encode(&mut out).unwrap();
                prop_assert_eq!(out, bytes);
            }
        }
    }

    /// A value made of what is lent.
    fn owned(value: ValueRef<'_>) -> Result<Value> {
        Ok(match value {
            ValueRef::Null => Value::Null,
            ValueRef::Bool(x) => Value::Bool(x),
            ValueRef::Int(x) => Value::Int(x),
            ValueRef::Float(x) => Value::Float(x),
            ValueRef::String(text) => Value::String(text.to_owned()),
            ValueRef::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
            ValueRef::List(items) => {
                Value::List(items.map(|item| owned(item?)).collect::<Result<_>>()?)
            }
            ValueRef::Map(items) => Value::Map(
                items
                    .map(|item| item.and_then(|(name, item)| Ok((name.to_owned(), owned(item)?))))
                    .collect::<Result<_>>()?,
            ),
        })
    }

    #[test]
    fn a_lent_list_or_map_ends_with_its_first_error() {
        let list = |bytes: &[u8]| match ValueRef::decode(bytes) {
            Ok(ValueRef::List(items)) => items.map(|item| item.is_ok()).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(list(&[LIST, 2, 1, NULL, 1, TRUE]), [true, true]);
        assert_eq!(list(&[LIST, 1, 1, NULL, 1, TRUE]), [true, false], "more than was counted");
        assert_eq!(list(&[LIST, 2, 1, NULL]), [true, false], "fewer than were counted");
        assert_eq!(list(&[LIST, 3, 9, NULL, 1, TRUE]), [false], "an item beyond the end");
        let names = |bytes: &[u8]| match ValueRef::decode(bytes) {
            Ok(ValueRef::Map(items)) => items.map(|item| item.is_ok()).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(names(&[MAP, 2, 1, b'a', 1, NULL, 1, b'b', 1, NULL]), [true, true]);
        assert_eq!(names(&[MAP, 2, 1, b'b', 1, NULL, 1, b'a', 1, NULL]), [true, false]);
        assert_eq!(names(&[MAP, 2, 1, b'a', 1, NULL, 1, b'a', 1, NULL]), [true, false]);
    }

    #[test]
    fn kinds_are_never_confused() {
        assert_ne!(Value::Int(1), Value::Float(1.0));
        assert_ne!(Value::String("a".into()), Value::Bytes(b"a".to_vec()));
    }

    #[test]
    fn refuses_what_cannot_be_stored_and_leaves_the_buffer_as_it_was() {
        let mut out = vec![9];
        let large = Value::Bytes(vec![0; VALUE_BYTES_MAX]);
        assert_eq!(
            large.encode(&mut out),
            Err(Error::ValueTooLarge { bytes: VALUE_BYTES_MAX + 1 })
        );
        assert_eq!(out, [9]);
        assert_eq!(Value::Float(f64::NAN).encode(&mut Vec::new()), Err(Error::NotANumber));
        let mut deep = Value::Null;
        for _ in 0..=VALUE_DEPTH_MAX {
            deep = Value::List(vec![deep]);
        }
        assert_eq!(deep.encode(&mut Vec::new()), Err(Error::ValueTooDeep));
    }
}
