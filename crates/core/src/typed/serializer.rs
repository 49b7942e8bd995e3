//! Any type that serializes, to a [`Value`].
//!
//! What could not come back as it went in is refused here, not when it is read.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_core::ser::{self, Serialize};

use super::error::{ConversionError, ConversionProblem as Problem};
use crate::Value;
use crate::limits::{VALUE_BYTES_MAX, VALUE_DEPTH_MAX};

type Result<T> = std::result::Result<T, ConversionError>;

/// The value that `source` is stored as. The [module](super) has the table.
///
/// # Errors
///
/// What would not come back the same, and what is above the limits; the error says where.
pub fn to_value<T: Serialize + ?Sized>(source: &T) -> Result<Value> {
    let left = Cell::new(VALUE_BYTES_MAX);
    let value = source.serialize(Serializer { depth: 0, left: &left })?;
    // What was counted on the way leaves out the lengths in between.
    if value.encoded_len() > VALUE_BYTES_MAX {
        return Err(Problem::TooLarge.into());
    }
    Ok(value)
}

/// Makes the value at one place.
#[derive(Clone, Copy)]
struct Serializer<'a> {
    depth: usize,
    /// Bytes that may still come, so that what is too large is refused before it is all there.
    left: &'a Cell<usize>,
}

impl<'a> Serializer<'a> {
    /// Counts a value that has `bytes` behind its tag.
    fn count(self, bytes: usize) -> Result<()> {
        if self.depth > VALUE_DEPTH_MAX {
            return Err(Problem::TooDeep.into());
        }
        let left = bytes.checked_add(1).and_then(|bytes| self.left.get().checked_sub(bytes));
        self.left.set(left.ok_or(Problem::TooLarge)?);
        Ok(())
    }

    const fn inside(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }

    fn list(self) -> Result<ListSerializer<'a>> {
        self.count(0)?;
        Ok(ListSerializer { items: Vec::new(), serializer: self.inside(), variant: Variant(None) })
    }

    fn map(self) -> Result<MapSerializer<'a>> {
        self.count(0)?;
        let serializer = self.inside();
        Ok(MapSerializer { items: BTreeMap::new(), key: None, serializer, variant: Variant(None) })
    }

    /// Where the content of a variant goes: into a map with the variant's name.
    fn variant(self, name: &'static str) -> Result<Self> {
        self.count(name.len())?;
        Ok(self.inside())
    }

    fn integer<N: TryInto<i64> + ToString + Copy>(self, n: N) -> Result<Value> {
        self.count(8)?;
        let too_large = |_| Problem::IntegerTooLarge(n.to_string());
        Ok(Value::Int(n.try_into().map_err(too_large)?))
    }
}

/// The variant that a value is the content of, if it is one's.
#[derive(Clone, Copy)]
struct Variant(Option<&'static str>);

impl Variant {
    /// The content in a map with the variant's name.
    fn around(self, content: Value) -> Value {
        match self.0 {
            Some(name) => Value::Map(BTreeMap::from([(name.to_owned(), content)])),
            None => content,
        }
    }

    /// Where in the whole the error is.
    fn place(self, error: ConversionError) -> ConversionError {
        match self.0 {
            Some(name) => error.under(name),
            None => error,
        }
    }
}

macro_rules! integers {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, n: $type) -> Result<Value> {
            self.integer(n)
        })*
    };
}

impl<'a> ser::Serializer for Serializer<'a> {
    type Ok = Value;
    type Error = ConversionError;
    type SerializeSeq = ListSerializer<'a>;
    type SerializeTuple = ListSerializer<'a>;
    type SerializeTupleStruct = ListSerializer<'a>;
    type SerializeTupleVariant = ListSerializer<'a>;
    type SerializeMap = MapSerializer<'a>;
    type SerializeStruct = MapSerializer<'a>;
    type SerializeStructVariant = MapSerializer<'a>;

    fn serialize_bool(self, x: bool) -> Result<Value> {
        self.count(0)?;
        Ok(Value::Bool(x))
    }

    integers!(
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128
    );

    fn serialize_f32(self, x: f32) -> Result<Value> {
        self.serialize_f64(x.into())
    }

    fn serialize_f64(self, x: f64) -> Result<Value> {
        self.count(8)?;
        if x.is_nan() { Err(Problem::NotANumber.into()) } else { Ok(Value::Float(x)) }
    }

    fn serialize_char(self, c: char) -> Result<Value> {
        self.serialize_str(c.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Result<Value> {
        self.count(text.len())?;
        Ok(Value::String(text.to_owned()))
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Value> {
        self.count(bytes.len())?;
        Ok(Value::Bytes(bytes.to_vec()))
    }

    fn serialize_none(self) -> Result<Value> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, some: &T) -> Result<Value> {
        match some.serialize(self)? {
            Value::Null => Err(Problem::SomeOfNothing.into()),
            value => Ok(value),
        }
    }

    fn serialize_unit(self) -> Result<Value> {
        self.count(0)?;
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<Value> {
        self.serialize_str(name)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        inner: &T,
    ) -> Result<Value> {
        inner.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        inner: &T,
    ) -> Result<Value> {
        let content = inner.serialize(self.variant(name)?).map_err(|error| error.under(name))?;
        Ok(Variant(Some(name)).around(content))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<ListSerializer<'a>> {
        self.list()
    }

    fn serialize_tuple(self, _: usize) -> Result<ListSerializer<'a>> {
        self.list()
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<ListSerializer<'a>> {
        self.list()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        _: usize,
    ) -> Result<ListSerializer<'a>> {
        Ok(ListSerializer { variant: Variant(Some(name)), ..self.variant(name)?.list()? })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<MapSerializer<'a>> {
        self.map()
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<MapSerializer<'a>> {
        self.map()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        _: usize,
    ) -> Result<MapSerializer<'a>> {
        Ok(MapSerializer { variant: Variant(Some(name)), ..self.variant(name)?.map()? })
    }
}

/// Makes a list.
struct ListSerializer<'a> {
    items: Vec<Value>,
    /// For the items.
    serializer: Serializer<'a>,
    variant: Variant,
}

impl ListSerializer<'_> {
    fn push<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<()> {
        let (index, variant) = (self.items.len(), self.variant);
        let placed = |error: ConversionError| variant.place(error.at(index));
        let value = item.serialize(self.serializer).map_err(placed)?;
        self.items.push(value);
        Ok(())
    }

    fn value(self) -> Value {
        self.variant.around(Value::List(self.items))
    }
}

macro_rules! list {
    ($($name:ident::$method:ident),*) => {
        $(impl ser::$name for ListSerializer<'_> {
            type Ok = Value;
            type Error = ConversionError;

            fn $method<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<()> {
                self.push(item)
            }

            fn end(self) -> Result<Value> {
                Ok(self.value())
            }
        })*
    };
}

list!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

/// Makes a map.
struct MapSerializer<'a> {
    items: BTreeMap<String, Value>,
    /// The key whose value comes next.
    key: Option<String>,
    /// For the items.
    serializer: Serializer<'a>,
    variant: Variant,
}

impl MapSerializer<'_> {
    fn insert<T: Serialize + ?Sized>(&mut self, name: String, item: &T) -> Result<()> {
        let made = match self.items.contains_key(&name) {
            true => Err(Problem::DuplicateKey.into()),
            false => {
                // With the length in front of the name, which takes a byte at the least.
                let counted = self.serializer.count(name.len());
                counted.and_then(|()| item.serialize(self.serializer))
            }
        };
        let value = made.map_err(|error| self.variant.place(error.under(&name)))?;
        self.items.insert(name, value);
        Ok(())
    }

    fn value(self) -> Value {
        self.variant.around(Value::Map(self.items))
    }
}

impl ser::SerializeMap for MapSerializer<'_> {
    type Ok = Value;
    type Error = ConversionError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        self.key = Some(key.serialize(KeySerializer)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<()> {
        let key = self.key.take().expect("serde gives the key before its value");
        self.insert(key, item)
    }

    fn end(self) -> Result<Value> {
        Ok(self.value())
    }
}

macro_rules! fields {
    ($($name:ident),*) => {
        $(impl ser::$name for MapSerializer<'_> {
            type Ok = Value;
            type Error = ConversionError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                item: &T,
            ) -> Result<()> {
                self.insert(name.to_owned(), item)
            }

            fn end(self) -> Result<Value> {
                Ok(self.value())
            }
        })*
    };
}

fields!(SerializeStruct, SerializeStructVariant);

/// Makes the key of a map: text, or what has one form as text.
struct KeySerializer;

type Never = ser::Impossible<String, ConversionError>;

macro_rules! key_as_text {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, key: $type) -> Result<String> {
            Ok(key.to_string())
        })*
    };
}

fn no_key<T>(what: &'static str) -> Result<T> {
    Err(Problem::MapKey(what).into())
}

impl ser::Serializer for KeySerializer {
    type Ok = String;
    type Error = ConversionError;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    key_as_text!(
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_char: char,
        serialize_str: &str
    );

    fn serialize_f32(self, _: f32) -> Result<String> {
        no_key("a float")
    }

    fn serialize_f64(self, _: f64) -> Result<String> {
        no_key("a float")
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<String> {
        no_key("a piece of bytes")
    }

    fn serialize_none(self) -> Result<String> {
        no_key("an option")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<String> {
        no_key("an option")
    }

    fn serialize_unit(self) -> Result<String> {
        no_key("a unit")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<String> {
        no_key("a unit")
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<String> {
        Ok(name.to_owned())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        inner: &T,
    ) -> Result<String> {
        inner.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<String> {
        no_key("a variant with content")
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Never> {
        no_key("a list")
    }

    fn serialize_tuple(self, _: usize) -> Result<Never> {
        no_key("a tuple")
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Never> {
        no_key("a tuple")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Never> {
        no_key("a variant with content")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Never> {
        no_key("a map")
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Never> {
        no_key("a struct")
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Never> {
        no_key("a variant with content")
    }
}
