//! Signals as JSON: what `dump` says of one, and of the definitions.

use std::collections::BTreeMap;
use std::time::Duration;

use steadfast::{
    Decay, Observation, SchemaBuilder, Signal, SignalDefinition, Timestamp, Value, Window,
};

use crate::entry::SignalDefinitionLine;
use crate::failure::{Failure, Result};
use crate::json::Object;

fn int(n: u64) -> Value {
    // Times and counts of signals are far below 2^63.
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn micros(duration: Duration) -> Value {
    int(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

fn definition_value(definition: &SignalDefinition) -> Value {
    let SignalDefinition { version, decay, minutes, hours, velocity } = *definition;
    let mut fields = vec![
        ("version", int(version.into())),
        ("minutes", int(minutes.into())),
        ("hours", int(hours.into())),
    ];
    match decay {
        Decay::Permanent => fields.push(("decay", "permanent".into())),
        Decay::Exponential { half_life } => {
            fields.push(("decay", "exponential".into()));
            fields.push(("half_life_us", micros(half_life)));
        }
        Decay::Linear { lifetime } => {
            fields.push(("decay", "linear".into()));
            fields.push(("lifetime_us", micros(lifetime)));
        }
    }
    match velocity {
        Window::Minutes(n) => fields.push(("velocity_minutes", int(n.into()))),
        Window::Hours(n) => fields.push(("velocity_hours", int(n.into()))),
        Window::AllTime => {}
    }
    Value::Map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The line of a definition, without its end.
pub(crate) fn definition_line(defined: &SignalDefinitionLine) -> String {
    Object::new()
        .text("type", "signal_definition")
        .text("name", &defined.name)
        .value("definition", &definition_value(&defined.definition))
        .number("version", defined.version.0)
        .number("at_us", defined.timestamp.as_micros())
        .end()
}

/// Appends what is known of a signal. Empty lists are left out.
pub(crate) fn signal_fields(line: Object, signal: &Signal) -> Object {
    let Signal { definition, score, newest, count, minutes, hours, slices, ahead } = signal;
    let mut line = line
        .value("score", &Value::Float(*score))
        .number("newest_us", newest.as_micros())
        .number("count", *count);
    let numbers = |numbers: &[u32]| numbers.iter().map(|n| int((*n).into())).collect();
    let pair = |n: u64, weight: f64| Value::List(vec![int(n), Value::Float(weight)]);
    let lists: [(_, Vec<Value>); 4] = [
        ("minutes", numbers(minutes)),
        ("hours", numbers(hours)),
        ("slices", slices.iter().map(|(slice, weight)| pair(*slice, *weight)).collect()),
        ("ahead", ahead.iter().map(|held| pair(held.at.as_micros(), held.weight)).collect()),
    ];
    for (name, list) in lists {
        if !list.is_empty() {
            line = line.value(name, &Value::List(list));
        }
    }
    line.value("definition", &definition_value(definition))
}

fn wrong(field: &str) -> Failure {
    Failure::invalid(format!("{field}: is not as a dump has it"))
}

fn number<T: TryFrom<i64>>(fields: &BTreeMap<String, Value>, name: &str) -> Result<T> {
    let number = fields.get(name).and_then(Value::as_int);
    number.and_then(|n| T::try_from(n).ok()).ok_or_else(|| wrong(name))
}

/// Reads a definition.
pub(crate) fn definition_of(value: Option<Value>) -> Result<SignalDefinition> {
    let Some(Value::Map(fields)) = value else { return Err(wrong("definition")) };
    let time = |name: &str| number(&fields, name).map(Duration::from_micros);
    let decay = match fields.get("decay").and_then(Value::as_str) {
        Some("permanent") => Decay::Permanent,
        Some("exponential") => Decay::Exponential { half_life: time("half_life_us")? },
        Some("linear") => Decay::Linear { lifetime: time("lifetime_us")? },
        _ => return Err(wrong("decay")),
    };
    let velocity = match fields.contains_key("velocity_hours") {
        true => Window::Hours(number(&fields, "velocity_hours")?),
        false => Window::Minutes(number(&fields, "velocity_minutes")?),
    };
    let (minutes, hours) = (number(&fields, "minutes")?, number(&fields, "hours")?);
    let version = number(&fields, "version")?;
    Ok(SignalDefinition { version, decay, minutes, hours, velocity })
}

/// Gives the signal that `schema` has come to this definition.
pub(crate) fn schema_of(schema: SchemaBuilder, definition: &SignalDefinition) -> SchemaBuilder {
    let SignalDefinition { version, decay, minutes, hours, velocity } = *definition;
    let windows = [Window::Minutes(minutes), Window::Hours(hours)];
    schema.version(version).decay(decay).windows(windows).velocity(velocity)
}

/// Reads what [`signal_fields`] wrote.
pub(crate) fn signal_of(fields: &mut BTreeMap<String, Value>) -> Result<Signal> {
    let mut list = |name: &str| match fields.remove(name) {
        None => Ok(Vec::new()),
        Some(Value::List(items)) => Ok(items),
        Some(_) => Err(wrong(name)),
    };
    let buckets = |name: &str, items: Vec<Value>| {
        let bucket = |item: Value| {
            item.as_int().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| wrong(name))
        };
        items.into_iter().map(bucket).collect::<Result<Vec<_>>>()
    };
    let pairs = |name: &str, items: Vec<Value>| {
        let pair = |item: Value| match item {
            Value::List(pair) => match pair[..] {
                [Value::Int(n), Value::Float(weight)] => {
                    u64::try_from(n).map(|n| (n, weight)).map_err(|_| wrong(name))
                }
                _ => Err(wrong(name)),
            },
            _ => Err(wrong(name)),
        };
        items.into_iter().map(pair).collect::<Result<Vec<_>>>()
    };
    let (minutes, hours) = (list("minutes")?, list("hours")?);
    let (slices, ahead) = (list("slices")?, list("ahead")?);
    let score = match fields.remove("score") {
        Some(Value::Float(score)) => score,
        _ => return Err(wrong("score")),
    };
    let held = |(at, weight)| Observation { weight, at: Timestamp::from_micros(at) };
    Ok(Signal {
        definition: definition_of(fields.remove("definition"))?,
        score,
        newest: Timestamp::from_micros(number(fields, "newest_us")?),
        count: number(fields, "count")?,
        minutes: buckets("minutes", minutes)?,
        hours: buckets("hours", hours)?,
        slices: pairs("slices", slices)?,
        ahead: pairs("ahead", ahead)?.into_iter().map(held).collect(),
    })
}
