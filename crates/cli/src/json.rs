//! JSON text: reading it, writing it, and the forms of values in it (`JSON.md`).

mod parse;
mod value;
mod write;

pub(crate) use parse::{JsonError, Parser};
pub(crate) use value::{
    Tags, name_from_value, push_name, push_value, read_fields, value_from_json,
};
pub(crate) use write::{Object, list, push_text};
