//! What is done with lines that anybody may have written: the body of a fuzz target, which the
//! tests run too. It panics where something is not as it must be.

use std::cell::RefCell;

use steadfast::{Database, Value};

use crate::entry::{DumpLine, entry_to_json};
use crate::import::json_lines::JsonLines;
use crate::import::trajectory;
use crate::json::{Tags, push_value, value_from_json};
use crate::lines::Lines;
use crate::op::parse_transaction;
use crate::retention::RetentionSpec;
use crate::signal::definition_line;
use crate::transact::{Runs, Submitted, submit};

/// Values of a text are at most so many times as large in memory as the text.
const GROWTH_MAX: usize = 64;

thread_local! {
    /// What lines of `apply` are done to. Not opened anew for each: that would be most of the
    /// work.
    static DATABASE: RefCell<Option<(Database, Runs)>> = const { RefCell::new(None) };
}

/// Every decoder of the command line, with the lines of `data`; and all of it as one text.
pub fn command_line(data: &[u8]) {
    let mut lines = Lines::new(data);
    let mut bytes = 0;
    while let Some(line) = lines.next().expect("memory can be read") {
        if let Ok(text) = line.text() {
            bytes += text.len();
            one(text);
        }
    }
    assert!(bytes <= data.len() && lines.bytes() == data.len() as u64);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = trajectory::units(text).map(|units| {
            let taken: u64 = units.iter().map(|unit| unit.rough_bytes()).sum();
            assert!(taken <= (data.len() * GROWTH_MAX) as u64, "{taken} bytes of units");
        });
    }
}

fn one(text: &str) {
    value(text, Tags::Known);
    value(text, Tags::Ignored);
    if let Ok(line) = parse_transaction(text) {
        assert_eq!(parse_transaction(text), Ok(line.clone()));
        DATABASE.with_borrow_mut(|database| {
            let (database, runs) = database.get_or_insert_with(|| {
                (Database::in_memory().expect("memory can be had"), Runs::default())
            });
            if let Ok(Submitted::Pending(pending)) = submit(database, runs, &line) {
                pending.wait().expect("nothing can fail in memory");
            }
        });
    }
    match DumpLine::parse(text) {
        Ok(DumpLine::Run(run)) => {
            let json = run.to_json();
            let Ok(DumpLine::Run(again)) = DumpLine::parse(&json) else { panic!("{json}") };
            assert_eq!(again.to_json(), json);
        }
        Ok(DumpLine::Definition(line)) => {
            let json = definition_line(&line);
            assert_eq!(DumpLine::parse(&json), Ok(DumpLine::Definition(line)), "{json}");
        }
        Ok(DumpLine::Cohort(line)) => {
            let json = line.to_json();
            assert_eq!(DumpLine::parse(&json), Ok(DumpLine::Cohort(line)), "{json}");
        }
        Ok(DumpLine::Graph(line)) => {
            let json = line.to_json();
            assert_eq!(DumpLine::parse(&json), Ok(DumpLine::Graph(line)), "{json}");
        }
        Ok(DumpLine::Entry { run, entry }) => {
            // A dump may say what no database could: that is refused when it is written again.
            if let Ok(json) = entry_to_json(&run, &entry) {
                let Ok(DumpLine::Entry { run, entry }) = DumpLine::parse(&json) else {
                    panic!("{json}")
                };
                assert_eq!(entry_to_json(&run, &entry), Ok(json));
            }
        }
        Ok(DumpLine::End { .. } | DumpLine::Unknown) | Err(_) => {}
    }
    let reader = JsonLines {
        stem: "file".into(),
        stream_by: Some("path".into()),
        time: Some("time".into()),
    };
    let _ = reader.unit(text);
    let _ = RetentionSpec::parse(text);
}

/// What was read can be written, and is read again as the same; and it is not many times as
/// large as its text.
fn value(text: &str, tags: Tags) {
    let Ok(value) = value_from_json(text, tags) else { return };
    assert!(size(&value) <= text.len() * GROWTH_MAX, "{} bytes of a value", size(&value));
    let mut json = String::new();
    push_value(&mut json, &value);
    let again = value_from_json(&json, Tags::Known);
    let mut twice = String::new();
    push_value(&mut twice, &again.expect("what was written can be read"));
    assert_eq!(twice, json);
}

fn size(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::List(items) => items.iter().map(size).sum(),
            Value::Map(items) => items.iter().map(|(name, item)| name.len() + size(item)).sum(),
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn corpus() -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/command_line");
        let mut paths: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    #[test]
    fn the_committed_corpus_passes() {
        let corpus = corpus();
        assert!(corpus.len() >= 8, "{}", corpus.len());
        corpus.iter().for_each(|bytes| command_line(bytes));
    }

    /// An entry of the corpus with some bytes changed, taken away and put behind.
    fn changed() -> impl Strategy<Value = Vec<u8>> {
        let change = (any::<prop::sample::Index>(), any::<u8>());
        let parts = (
            prop::sample::select(corpus()),
            prop::collection::vec(change, 0..6),
            any::<prop::sample::Index>(),
            0..20usize,
        );
        parts.prop_map(|(mut bytes, changes, at, gone)| {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let at = at.index(bytes.len());
            let end = bytes.len().min(at + gone);
            bytes.drain(at..end);
            bytes
        })
    }

    /// Text of the pieces that JSON is made of.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "ops",
            "\"op\":",
            "\"$bytes\":",
            "\"$float\":",
            "\"AA==\"",
            "1e400",
            "-0",
            "9223372036854775808",
            "\\u",
            "d800",
            "null",
            "true",
            " ",
            "\n",
            "\"value\":",
            "\"k\"",
            "\"type\":\"kv\"",
            "\"version\":1",
        ]);
        prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn no_line_confuses_the_command_line(
            bytes in prop_oneof![3 => changed(), 1 => pieces()],
        ) {
            command_line(&bytes);
        }
    }
}
