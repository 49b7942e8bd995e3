//! A history as lines of text, one for each event, so that it survives the process that makes
//! it. The place of a line is its place in real time.
//!
//! ```text
//! initial   <version> {<key> <version> <value>}
//! begin     <transaction> <who>
//! asks      <transaction> commit|end <snapshot|-> {read …| range …| put … | delete …}
//! queued    <transaction> <version>
//! promised  <version>
//! committed <transaction> <version>       also: read, failed, unknown
//! ```
//!
//! Words are divided by tabs, and escaped so that no word has one.

use std::collections::{BTreeMap, BTreeSet};
use std::str::Split;

use steadfast_engine::Version;

use super::history::{History, Outcome, Read, Seen, State, Txn, TxnId};

fn word(line: &mut String, text: &str) {
    line.push('\t');
    line.extend(text.chars().flat_map(char::escape_default));
}

fn row(line: &mut String, key: &str, seen: &Seen) {
    word(line, key);
    word(line, &seen.version.to_string());
    word(line, &seen.value);
}

fn end(mut line: String) -> String {
    line.push('\n');
    line
}

pub(super) fn initial(state: &State) -> String {
    let mut line = format!("initial\t{}", state.version);
    state.contents.iter().for_each(|(key, seen)| row(&mut line, key, seen));
    end(line)
}

pub(super) fn begin(id: TxnId, who: &str) -> String {
    let mut line = format!("begin\t{}", id.0);
    word(&mut line, who);
    end(line)
}

pub(super) fn asks(id: TxnId, txn: &Txn, committing: bool) -> String {
    let mut line = format!("asks\t{}\t{}", id.0, if committing { "commit" } else { "end" });
    match txn.snapshot {
        Some(version) => word(&mut line, &version.to_string()),
        None => word(&mut line, "-"),
    }
    for read in &txn.reads {
        match read {
            Read::Key { key, found: Some(seen) } => {
                word(&mut line, "read");
                row(&mut line, key, seen);
            }
            Read::Key { key, found: None } => {
                word(&mut line, "absent");
                word(&mut line, key);
            }
            Read::Range { from, to, own, found } => {
                word(&mut line, "range");
                word(&mut line, from);
                word(&mut line, if to.is_some() { "to" } else { "on" });
                word(&mut line, to.as_deref().unwrap_or(""));
                word(&mut line, &own.len().to_string());
                own.iter().for_each(|key| word(&mut line, key));
                word(&mut line, &found.len().to_string());
                found.iter().for_each(|(key, seen)| row(&mut line, key, seen));
            }
        }
    }
    for (key, value) in &txn.writes {
        word(&mut line, if value.is_some() { "put" } else { "delete" });
        word(&mut line, key);
        if let Some(value) = value {
            word(&mut line, value);
        }
    }
    end(line)
}

pub(super) fn queued(id: TxnId, version: Version) -> String {
    format!("queued\t{}\t{version}\n", id.0)
}

pub(super) fn promised(version: Version) -> String {
    format!("promised\t{version}\n")
}

pub(super) fn ended(id: TxnId, outcome: Outcome) -> String {
    match outcome {
        Outcome::Committed(version) => format!("committed\t{}\t{version}\n", id.0),
        Outcome::ReadOnly => format!("read\t{}\n", id.0),
        Outcome::Failed => format!("failed\t{}\n", id.0),
        Outcome::Unknown(_) => format!("unknown\t{}\n", id.0),
    }
}

struct Words<'a>(Split<'a, char>);

impl Words<'_> {
    fn text(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut chars = self.0.next()?.chars();
        while let Some(char) = chars.next() {
            text.push(match char {
                '\\' => match chars.next()? {
                    't' => '\t',
                    'r' => '\r',
                    'n' => '\n',
                    'u' => {
                        let code: String =
                            chars.by_ref().skip(1).take_while(|char| *char != '}').collect();
                        char::from_u32(u32::from_str_radix(&code, 16).ok()?)?
                    }
                    other => other,
                },
                char => char,
            });
        }
        Some(text)
    }

    fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.0.next()?.parse().ok()
    }

    fn version(&mut self) -> Option<Version> {
        self.number().map(Version)
    }

    fn row(&mut self) -> Option<(String, Seen)> {
        Some((self.text()?, Seen { version: self.version()?, value: self.text()? }))
    }

    fn asks(&mut self, txn: &mut Txn) -> Option<()> {
        let committing = self.0.next()? == "commit";
        txn.snapshot = match self.0.next()? {
            "-" => None,
            number => Some(Version(number.parse().ok()?)),
        };
        while let Some(kind) = self.0.next() {
            match kind {
                "read" => {
                    let (key, seen) = self.row()?;
                    txn.reads.push(Read::Key { key, found: Some(seen) });
                }
                "absent" => txn.reads.push(Read::Key { key: self.text()?, found: None }),
                "range" => {
                    let (from, ends, to) = (self.text()?, self.0.next()? == "to", self.text()?);
                    let owned: usize = self.number()?;
                    let own = (0..owned).map(|_| self.text()).collect::<Option<BTreeSet<_>>>()?;
                    let rows: usize = self.number()?;
                    let found = (0..rows).map(|_| self.row()).collect::<Option<Vec<_>>>()?;
                    txn.reads.push(Read::Range { from, to: ends.then_some(to), own, found });
                }
                "put" => {
                    let (key, value) = (self.text()?, self.text()?);
                    txn.writes.insert(key, Some(value));
                }
                "delete" => {
                    let key = self.text()?;
                    txn.writes.insert(key, None);
                }
                _ => return None,
            }
        }
        if committing && !txn.writes.is_empty() {
            txn.outcome = Outcome::Unknown(None);
        }
        Some(())
    }
}

impl History {
    /// The history that [`Recorder::write_lines`](super::Recorder::write_lines) has written. A
    /// last line that does not end is not there: whatever it tells had not happened yet.
    ///
    /// # Errors
    ///
    /// The first line that is none.
    pub fn from_lines(text: &str) -> Result<Self, String> {
        let mut history = Self::default();
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let Some(line) = line.strip_suffix('\n') else { break };
            let event = index as u64 + 1;
            history.take(event, line).ok_or_else(|| format!("line {event}: {line:?}"))?;
        }
        Ok(history)
    }

    fn take(&mut self, event: u64, line: &str) -> Option<()> {
        let mut words = Words(line.split('\t'));
        let kind = words.0.next()?;
        match kind {
            "initial" => {
                self.initial.version = words.version()?;
                while let Some((key, seen)) = words.row() {
                    self.initial.contents.insert(key, seen);
                }
                return Some(());
            }
            "promised" => {
                self.promises.push((event, words.version()?));
                return Some(());
            }
            _ => {}
        }
        let id: usize = words.number()?;
        if kind == "begin" {
            self.txns.push(Txn {
                who: words.text()?,
                invoked: event,
                ended: None,
                snapshot: None,
                reads: Vec::new(),
                writes: BTreeMap::new(),
                outcome: Outcome::Failed,
            });
            return (id + 1 == self.txns.len()).then_some(());
        }
        let txn = self.txns.get_mut(id)?;
        let outcome = match kind {
            "asks" => return words.asks(txn),
            "queued" => {
                txn.outcome = Outcome::Unknown(Some(words.version()?));
                return Some(());
            }
            "committed" => Outcome::Committed(words.version()?),
            "read" => Outcome::ReadOnly,
            "failed" => Outcome::Failed,
            "unknown" => txn.outcome,
            _ => return None,
        };
        (txn.outcome, txn.ended) = (outcome, Some(event));
        Some(())
    }
}
