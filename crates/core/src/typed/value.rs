//! [`Value`] in other formats, and as part of other types.

use std::collections::BTreeMap;
use std::fmt;

use serde_core::de::{self, Deserialize, DeserializeSeed, Visitor};
use serde_core::ser::{Error as _, Serialize, Serializer};

use super::error::ConversionProblem as Problem;
use crate::Value;
use crate::limits::VALUE_DEPTH_MAX;

/// As what it holds, without a tag: text as text, a map as a map. Formats that have no bytes,
/// such as JSON, make something else of them.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(x) => serializer.serialize_bool(*x),
            Self::Int(n) => serializer.serialize_i64(*n),
            // Many formats would write something that is read as another value.
            Self::Float(x) if x.is_nan() => Err(S::Error::custom(Problem::NotANumber)),
            Self::Float(x) => serializer.serialize_f64(*x),
            Self::String(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::List(items) => serializer.collect_seq(items),
            Self::Map(items) => serializer.collect_map(items),
        }
    }
}

/// From a format that says itself what comes. Refuses what no value holds, and what is nested
/// deeper than values are.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Nested { depth: 0 }.deserialize(deserializer)
    }
}

/// A value at a depth.
#[derive(Clone, Copy)]
struct Nested {
    depth: usize,
}

impl Nested {
    const fn inside(self) -> Self {
        Self { depth: self.depth + 1 }
    }

    fn integer<N: TryInto<i64> + ToString + Copy, E: de::Error>(n: N) -> Result<Value, E> {
        let too_large = |_| E::custom(Problem::IntegerTooLarge(n.to_string()));
        n.try_into().map(Value::Int).map_err(too_large)
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.depth > VALUE_DEPTH_MAX {
            return Err(de::Error::custom(Problem::TooDeep));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: de::Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_bool<E: de::Error>(self, x: bool) -> Result<Value, E> {
        Ok(Value::Bool(x))
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<Value, E> {
        Ok(Value::Int(n))
    }

    fn visit_i128<E: de::Error>(self, n: i128) -> Result<Value, E> {
        Self::integer(n)
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<Value, E> {
        Self::integer(n)
    }

    fn visit_u128<E: de::Error>(self, n: u128) -> Result<Value, E> {
        Self::integer(n)
    }

    fn visit_f64<E: de::Error>(self, x: f64) -> Result<Value, E> {
        if x.is_nan() { Err(E::custom(Problem::NotANumber)) } else { Ok(Value::Float(x)) }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(bytes.to_vec()))
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Value, E> {
        Ok(Value::Bytes(bytes))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(self.inside())? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut items = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let item = map.next_value_seed(self.inside())?;
            if items.contains_key(&name) {
                return Err(de::Error::custom(format!("`{name}`: {}", Problem::DuplicateKey)));
            }
            items.insert(name, item);
        }
        Ok(Value::Map(items))
    }
}
