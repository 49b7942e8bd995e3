//! Any type that deserializes, from a [`Value`].
//!
//! Nothing is converted between kinds on the way: a type that asks for a float gets no integer,
//! one that asks for text gets no bytes.

use serde_core::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer as _, IntoDeserializer, Unexpected,
    Visitor,
};

use super::error::{ConversionError, ConversionProblem as Problem};
use crate::Value;
use crate::limits::VALUE_DEPTH_MAX;

type Result<T> = std::result::Result<T, ConversionError>;

/// What `value` is as a `T`. The [module](super) has the table.
///
/// # Errors
///
/// The value is not what the type asks for; the error says where.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T> {
    T::deserialize(Deserializer { value, depth: 0 })
}

/// Gives the value at one place.
struct Deserializer {
    value: Value,
    depth: usize,
}

impl Deserializer {
    fn mismatch(&self, expected: &dyn de::Expected) -> ConversionError {
        let found = match &self.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(x) => Unexpected::Bool(*x),
            Value::Int(n) => Unexpected::Signed(*n),
            Value::Float(x) => Unexpected::Float(*x),
            Value::String(text) => Unexpected::Str(text),
            Value::Bytes(bytes) => Unexpected::Bytes(bytes),
            Value::List(_) => Unexpected::Seq,
            Value::Map(_) => Unexpected::Map,
        };
        de::Error::invalid_type(found, expected)
    }

    fn integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.value {
            Value::Int(n) => visitor.visit_i64(n),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.value {
            Value::String(text) => visitor.visit_string(text),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn list<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let Value::List(items) = self.value else { return Err(self.mismatch(&visitor)) };
        let length = items.len();
        let mut list = List { items: items.into_iter(), next: 0, depth: self.depth + 1 };
        let made = visitor.visit_seq(&mut list)?;
        match list.items.len() {
            0 => Ok(made),
            left => {
                let expected = format!("a list of {}", length - left);
                Err(de::Error::invalid_length(length, &expected.as_str()))
            }
        }
    }

    fn map<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let Value::Map(items) = self.value else { return Err(self.mismatch(&visitor)) };
        let length = items.len();
        let depth = self.depth + 1;
        let mut map = Map { items: items.into_iter(), item: None, depth };
        let made = visitor.visit_map(&mut map)?;
        match map.items.len() {
            0 => Ok(made),
            left => {
                let expected = format!("a map of {}", length - left);
                Err(de::Error::invalid_length(length, &expected.as_str()))
            }
        }
    }
}

macro_rules! forward {
    ($to:ident: $($method:ident),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            self.$to(visitor)
        })*
    };
}

impl<'de> de::Deserializer<'de> for Deserializer {
    type Error = ConversionError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if self.depth > VALUE_DEPTH_MAX {
            return Err(Problem::TooDeep.into());
        }
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(x) => visitor.visit_bool(x),
            Value::Int(n) => visitor.visit_i64(n),
            Value::Float(x) if x.is_nan() => Err(Problem::NotANumber.into()),
            Value::Float(x) => visitor.visit_f64(x),
            Value::String(text) => visitor.visit_string(text),
            Value::Bytes(bytes) => visitor.visit_byte_buf(bytes),
            Value::List(_) => self.list(visitor),
            Value::Map(_) => self.map(visitor),
        }
    }

    forward!(integer: deserialize_i8, deserialize_i16, deserialize_i32, deserialize_i64);
    forward!(integer: deserialize_u8, deserialize_u16, deserialize_u32, deserialize_u64);
    forward!(integer: deserialize_i128, deserialize_u128);
    forward!(text: deserialize_char, deserialize_str, deserialize_string, deserialize_identifier);
    forward!(deserialize_bytes: deserialize_byte_buf);

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.value {
            Value::Bool(x) => visitor.visit_bool(x),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.value {
            // The cast rounds; what it changes did not come from an f32.
            #[allow(clippy::cast_possible_truncation)]
            Value::Float(x) if !x.is_nan() && f64::from(x as f32) != x => {
                Err(de::Error::invalid_value(Unexpected::Float(x), &"a float of 32 bits"))
            }
            _ => self.deserialize_f64(visitor),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.value {
            Value::Float(_) => self.deserialize_any(visitor),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.value {
            Value::Bytes(bytes) => visitor.visit_byte_buf(bytes),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.value {
            Value::List(_) => self.deserialize_any(visitor),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.value {
            Value::Map(_) => self.deserialize_any(visitor),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        if self.depth > VALUE_DEPTH_MAX {
            return Err(Problem::TooDeep.into());
        }
        let (name, content) = match self.value {
            Value::String(name) => (name, None),
            Value::Map(ref items) if items.len() != 1 => {
                return Err(de::Error::invalid_length(items.len(), &"the one name of a variant"));
            }
            Value::Map(items) => {
                let (name, value) = items.into_iter().next().expect("it has one");
                (name, Some(Self { value, depth: self.depth + 1 }))
            }
            _ => return Err(self.mismatch(&visitor)),
        };
        let path = name.clone();
        let placed = |error: ConversionError| error.under(&path);
        visitor.visit_enum(Variant { name, content }).map_err(placed)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }
}

/// The items of a list.
struct List {
    items: std::vec::IntoIter<Value>,
    next: usize,
    depth: usize,
}

impl<'de> de::SeqAccess<'de> for &mut List {
    type Error = ConversionError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        let Some(value) = self.items.next() else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        let item = seed.deserialize(Deserializer { value, depth: self.depth });
        item.map(Some).map_err(|error| error.at(index))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The items of a map.
struct Map {
    items: std::collections::btree_map::IntoIter<String, Value>,
    /// The item whose name was given last.
    item: Option<(String, Value)>,
    depth: usize,
}

impl<'de> de::MapAccess<'de> for &mut Map {
    type Error = ConversionError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some((name, value)) = self.items.next() else { return Ok(None) };
        let key = seed.deserialize(Name(&name)).map_err(|error| error.under(&name))?;
        self.item = Some((name, value));
        Ok(Some(key))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value> {
        let (name, value) = self.item.take().expect("serde asks for a key before its value");
        let item = seed.deserialize(Deserializer { value, depth: self.depth });
        item.map_err(|error| error.under(&name))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// A variant of an enum: its name, and what it holds.
struct Variant {
    name: String,
    content: Option<Deserializer>,
}

impl Variant {
    fn content(self, what: &'static str) -> Result<Deserializer> {
        let without = || de::Error::invalid_type(Unexpected::UnitVariant, &what);
        self.content.ok_or_else(without)
    }
}

impl<'de> de::EnumAccess<'de> for Variant {
    type Error = ConversionError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self)> {
        Ok((seed.deserialize(Name(&self.name))?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant {
    type Error = ConversionError;

    fn unit_variant(self) -> Result<()> {
        match self.content {
            None => Ok(()),
            Some(content) => Err(content.mismatch(&"a variant without content")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value> {
        seed.deserialize(self.content("a variant with content")?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.content("a variant with a list")?.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.content("a variant with fields")?.deserialize_map(visitor)
    }
}

/// The key of a map, or the name of a variant.
struct Name<'a>(&'a str);

macro_rules! key_from_text {
    ($($method:ident: $visit:ident),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            match self.0.parse() {
                // One form only, or two keys could become one.
                Ok(key) if self.is_form_of(&key) => visitor.$visit(key),
                _ => Err(de::Error::invalid_value(Unexpected::Str(self.0), &visitor)),
            }
        })*
    };
}

impl Name<'_> {
    fn is_form_of(&self, key: &impl ToString) -> bool {
        key.to_string() == self.0
    }
}

impl<'de> de::Deserializer<'de> for Name<'_> {
    type Error = ConversionError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_str(self.0)
    }

    key_from_text!(
        deserialize_bool: visit_bool,
        deserialize_i8: visit_i8,
        deserialize_i16: visit_i16,
        deserialize_i32: visit_i32,
        deserialize_i64: visit_i64,
        deserialize_i128: visit_i128,
        deserialize_u8: visit_u8,
        deserialize_u16: visit_u16,
        deserialize_u32: visit_u32,
        deserialize_u64: visit_u64,
        deserialize_u128: visit_u128
    );

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    serde_core::forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct map
        struct identifier ignored_any
    }
}
