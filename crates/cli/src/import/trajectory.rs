//! Agent trajectories (`.traj`): every step an event, all else key-values.
//!
//! `trajectory[n]` becomes event n of the stream `steps`. Another field becomes the key of its
//! name; the fields of an object and the items of a list become a key each, below that name:
//! `environment`, `info/exit_status`, `history/0000`.

use std::collections::BTreeMap;

use steadfast::Value;

use super::Unit;
use crate::failure::{Failure, Result};
use crate::json::{Parser, Tags, read_fields};

/// The stream of the steps.
pub(crate) const STEPS: &str = "steps";

/// The writes that the trajectory in `text` asks for: settings and outcome, then the steps.
pub(crate) fn units(text: &str) -> Result<Vec<Unit>> {
    let mut parser = Parser::new(text);
    let mut fields = read_fields(&mut parser, Tags::Ignored)?;
    parser.end()?;
    let Some(Value::List(steps)) = fields.remove("trajectory") else {
        let message = "not an agent trajectory: it has no list `trajectory`";
        return Err(Failure::invalid(message));
    };
    let mut pairs = BTreeMap::new();
    for (name, value) in fields {
        for (key, value) in spread(name, value) {
            if let Some((key, _)) = pairs.remove_entry(&key) {
                return Err(Failure::invalid(format!("two fields make the same key `{key}`")));
            }
            pairs.insert(key, value);
        }
    }
    let puts = pairs.into_iter().map(|(key, value)| Unit::Put { key: key.into_bytes(), value });
    let appends = steps.into_iter().map(|payload| Unit::Append {
        stream: STEPS.to_owned(),
        payload,
        time: None,
    });
    Ok(puts.chain(appends).collect())
}

/// The keys and values of a field. An empty object or list stays a value, or it would vanish.
fn spread(name: String, value: Value) -> Vec<(String, Value)> {
    match value {
        Value::Map(fields) if !fields.is_empty() => {
            let below = |(field, value)| (format!("{name}/{field}"), value);
            fields.into_iter().map(below).collect()
        }
        Value::List(items) if !items.is_empty() => {
            let digits = (items.len() - 1).to_string().len().max(4);
            let below = |(index, value)| (format!("{name}/{index:0digits$}"), value);
            items.into_iter().enumerate().map(below).collect()
        }
        value => vec![(name, value)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUNDLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/agent-runs");

    #[test]
    fn steps_are_events_and_the_rest_are_keys() {
        let text = r#"{"environment":"e","trajectory":[{"a":1},{"a":2}],
            "info":{"exit_status":"ok","model_stats":{"n":1}},"history":["x","y"],"empty":[]}"#;
        let units = units(text).unwrap();
        let keys: Vec<_> = units
            .iter()
            .filter_map(|unit| match unit {
                Unit::Put { key, .. } => Some(String::from_utf8_lossy(key).into_owned()),
                Unit::Append { .. } => None,
            })
            .collect();
        let expected = [
            "empty",
            "environment",
            "history/0000",
            "history/0001",
            "info/exit_status",
            "info/model_stats",
        ];
        assert_eq!(keys, expected);
        assert_eq!(units.len(), keys.len() + 2);
    }

    #[test]
    fn refuses_what_is_no_trajectory() {
        let bad = [
            "{}",
            "[]",
            r#"{"trajectory":{}}"#,
            r#"{"trajectory":[]} x"#,
            r#"{"trajectory":[],"a":{"b":1},"a/b":2}"#,
        ];
        for text in bad {
            assert_eq!(units(text).unwrap_err().kind, "invalid", "{text}");
        }
    }

    #[test]
    fn reads_every_bundled_run() {
        let mut steps = 0;
        for file in std::fs::read_dir(BUNDLED).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "traj") {
                let units = units(&std::fs::read_to_string(&path).unwrap()).unwrap();
                steps += units.iter().filter(|unit| matches!(unit, Unit::Append { .. })).count();
                let exit = b"info/exit_status";
                assert!(units.iter().any(|u| matches!(u, Unit::Put { key, .. } if key == exit)));
            }
        }
        assert_eq!(steps, 100);
    }
}
