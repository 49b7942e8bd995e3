//! Other programs' files, as the writes that import them. Reads text, knows no database.

pub(crate) mod json_lines;
mod time;
pub(crate) mod trajectory;

use steadfast::{Timestamp, Value};

/// One write that a file asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Unit {
    Put { key: Vec<u8>, value: Value },
    Append { stream: String, payload: Value, time: Option<Timestamp> },
}

impl Unit {
    /// About as many bytes as it takes in a transaction.
    pub(crate) fn rough_bytes(&self) -> u64 {
        match self {
            Self::Put { key, value } => key.len() as u64 + rough_bytes(value),
            Self::Append { stream, payload, .. } => stream.len() as u64 + rough_bytes(payload),
        }
    }
}

fn rough_bytes(value: &Value) -> u64 {
    8 + match value {
        Value::String(text) => text.len() as u64,
        Value::Bytes(bytes) => bytes.len() as u64,
        Value::List(items) => items.iter().map(rough_bytes).sum(),
        Value::Map(items) => {
            items.iter().map(|(name, item)| name.len() as u64 + rough_bytes(item)).sum()
        }
        _ => 0,
    }
}
