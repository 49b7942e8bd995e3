//! Values from and to `serde_json::Value`.
//!
//! An integer stays an integer and a float a float: `1` is `Int(1)`, `1.0` is `Float(1.0)`. What
//! JSON has no form for (bytes, infinite floats) is refused, and so is what no value holds
//! (integers that do not fit). Whoever wants bytes in JSON chooses a form for them.

use serde_json::{Number, Value as Json};

use super::error::{ConversionError, ConversionProblem as Problem};
use crate::Value;
use crate::limits::VALUE_DEPTH_MAX;

type Result<T> = std::result::Result<T, ConversionError>;

impl TryFrom<Json> for Value {
    type Error = ConversionError;

    fn try_from(json: Json) -> Result<Self> {
        from_json(json, 0)
    }
}

impl TryFrom<Value> for Json {
    type Error = ConversionError;

    fn try_from(value: Value) -> Result<Self> {
        to_json(value, 0)
    }
}

fn check(depth: usize) -> Result<()> {
    if depth > VALUE_DEPTH_MAX { Err(Problem::TooDeep.into()) } else { Ok(()) }
}

fn from_json(json: Json, depth: usize) -> Result<Value> {
    check(depth)?;
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(x) => Value::Bool(x),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(n), _) => Value::Int(n),
            (None, Some(x)) if number.is_f64() => Value::Float(x),
            _ => return Err(Problem::IntegerTooLarge(number.to_string()).into()),
        },
        Json::String(text) => Value::String(text),
        Json::Array(items) => {
            let items = items.into_iter().enumerate();
            let item = |(at, item)| {
                from_json(item, depth + 1).map_err(|error: ConversionError| error.at(at))
            };
            Value::List(items.map(item).collect::<Result<_>>()?)
        }
        Json::Object(items) => {
            let item = |(name, item): (String, _)| match from_json(item, depth + 1) {
                Ok(item) => Ok((name, item)),
                Err(error) => Err(error.under(&name)),
            };
            Value::Map(items.into_iter().map(item).collect::<Result<_>>()?)
        }
    })
}

fn to_json(value: Value, depth: usize) -> Result<Json> {
    check(depth)?;
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(x) => Json::Bool(x),
        Value::Int(n) => Json::Number(n.into()),
        Value::Float(x) if x.is_nan() => return Err(Problem::NotANumber.into()),
        Value::Float(x) => {
            let number = Number::from_f64(x).ok_or(Problem::NotInJson("an infinite float"))?;
            Json::Number(number)
        }
        Value::String(text) => Json::String(text),
        Value::Bytes(_) => return Err(Problem::NotInJson("bytes").into()),
        Value::List(items) => {
            let items = items.into_iter().enumerate();
            let item = |(at, item)| {
                to_json(item, depth + 1).map_err(|error: ConversionError| error.at(at))
            };
            Json::Array(items.map(item).collect::<Result<_>>()?)
        }
        Value::Map(items) => {
            let item = |(name, item): (String, _)| match to_json(item, depth + 1) {
                Ok(item) => Ok((name, item)),
                Err(error) => Err(error.under(&name)),
            };
            Json::Object(items.into_iter().map(item).collect::<Result<_>>()?)
        }
    })
}
