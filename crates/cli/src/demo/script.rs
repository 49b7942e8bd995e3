//! What the demo writes: the bundled agent runs, a transaction for every step and every key.

use std::collections::HashMap;

use steadfast::Value;

use crate::failure::Result;
use crate::import::{Unit, trajectory};
use crate::json::{Object, list};

/// The bundled files, by stem. They are inside the binary: an installed one needs no others.
const BUNDLED: [(&str, &str); 9] = [
    (
        "humanevalfix-python-0",
        include_str!("../../../../data/agent-runs/humanevalfix-python-0.traj"),
    ),
    ("marshmallow-1867-1", include_str!("../../../../data/agent-runs/marshmallow-1867-1.traj")),
    ("marshmallow-1867-2", include_str!("../../../../data/agent-runs/marshmallow-1867-2.traj")),
    ("marshmallow-1867-3", include_str!("../../../../data/agent-runs/marshmallow-1867-3.traj")),
    ("marshmallow-1867-4", include_str!("../../../../data/agent-runs/marshmallow-1867-4.traj")),
    ("marshmallow-1867-5", include_str!("../../../../data/agent-runs/marshmallow-1867-5.traj")),
    ("marshmallow-1867-6", include_str!("../../../../data/agent-runs/marshmallow-1867-6.traj")),
    ("marshmallow-1867-7", include_str!("../../../../data/agent-runs/marshmallow-1867-7.traj")),
    ("marshmallow-1867-8", include_str!("../../../../data/agent-runs/marshmallow-1867-8.traj")),
];

/// How many files there are.
pub(crate) const FILES: usize = BUNDLED.len();

/// A place in the database that one transaction fills.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Pair { run: String, key: Vec<u8> },
    Event { run: String, stream: String, seq: u64 },
}

/// One transaction: its line for `apply`, with the line end, and the value it leaves.
pub(crate) struct Step {
    pub(crate) line: String,
    pub(crate) value: Value,
}

/// All transactions in order, each of which fills one place of its own. So what survives a kill
/// is a prefix if and only if the places filled are those of the first transactions.
pub(crate) struct Script {
    pub(crate) steps: Vec<Step>,
    pub(crate) index_of: HashMap<Place, usize>,
}

impl Script {
    /// Every bundled run, `copies` times, each copy under a name of its own.
    pub(crate) fn new(copies: u32) -> Result<Self> {
        let mut script = Self { steps: Vec::new(), index_of: HashMap::new() };
        for copy in 1..=copies {
            for (stem, text) in BUNDLED {
                let run = if copy == 1 { stem.to_owned() } else { format!("{stem}, copy {copy}") };
                script.add_run(&run, trajectory::units(text)?);
            }
        }
        Ok(script)
    }

    fn add_run(&mut self, run: &str, units: Vec<Unit>) {
        let mut seq = 0;
        for unit in units {
            let run = run.to_owned();
            let (place, op, value) = match unit {
                Unit::Put { key, value } => {
                    let op = Object::new().text("op", "kv_put").text("run", &run);
                    let op = op.bytes_name("key", &key).value("value", &value);
                    (Place::Pair { run, key }, op, value)
                }
                Unit::Append { stream, payload, .. } => {
                    let op = Object::new().text("op", "event_append").text("run", &run);
                    let op = op.text("stream", &stream).value("payload", &payload);
                    let op = match seq {
                        0 => op.text("expect", "no_stream"),
                        _ => op.number("expect", seq - 1),
                    };
                    seq += 1;
                    (Place::Event { run, stream, seq: seq - 1 }, op, payload)
                }
            };
            let line = Object::new().json("ops", &list([op.end()])).end() + "\n";
            self.index_of.insert(place, self.steps.len());
            self.steps.push(Step { line, value });
        }
    }

    /// Bytes of all lines.
    pub(crate) fn bytes(&self) -> u64 {
        self.steps.iter().map(|step| step.line.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transaction_fills_a_place_of_its_own() {
        let script = Script::new(2).unwrap();
        assert_eq!(script.index_of.len(), script.steps.len());
        assert!(script.steps.len() > 600, "{}", script.steps.len());
        let line = crate::op::parse_transaction(script.steps[0].line.trim_end()).unwrap();
        assert!(matches!(line, crate::op::Line::Transaction(ops) if ops.len() == 1));
    }
}
