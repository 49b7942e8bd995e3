//! Transactions interleaved at random in one thread. Commits happen in the order of their
//! versions; so whatever a transaction read must be what was there right before its version.

use std::collections::BTreeMap;

use steadfast_engine::{Database, DurabilityMode, Error, ErrorKind, Pending, Run, Transaction};

use super::{Trial, Verdict};
use crate::sim::SimDisk;
use crate::workload::{Workload, builder};

const SCHEDULES: u64 = 300;
const KEYS: u8 = 4;

/// What there is: the value of each key.
type State = BTreeMap<String, i64>;

#[derive(Debug, Clone)]
enum Seen {
    Key(String, Option<i64>),
    All(Vec<(String, i64)>),
}

/// A transaction that has not ended, and what it did.
struct Open {
    tx: Transaction,
    reads: Vec<Seen>,
    writes: BTreeMap<String, Option<i64>>,
}

pub(super) fn run(trial: &mut Trial) -> Verdict {
    let disk = SimDisk::new();
    let config = Workload::new(Vec::new(), DurabilityMode::Buffered).config;
    let tell = |error: Error| error.to_string();
    let db = builder(&disk, config).open().map_err(tell)?;
    let run = db.create_run("run").map_err(tell)?;
    let mut state = State::new();
    let mut rng = fastrand::Rng::with_seed(trial.seed);
    for number in 0..SCHEDULES {
        let mut steps = Vec::new();
        let verdict = schedule(&db, run, &mut state, &mut rng, &mut steps);
        let place = || format!("schedule {number}: {}", steps.join(", "));
        trial.judged(verdict, place)?;
    }
    Ok(())
}

fn schedule(
    db: &Database,
    run: Run,
    state: &mut State,
    rng: &mut fastrand::Rng,
    steps: &mut Vec<String>,
) -> Verdict {
    let tell = |error: Error| format!("kind {}: {error}", error.kind());
    let begin = |_| {
        let tx = db.begin().map_err(tell)?;
        Ok(Open { tx, reads: Vec::new(), writes: BTreeMap::new() })
    };
    let mut open: Vec<Open> = (0..rng.usize(2..4)).map(begin).collect::<Result<_, String>>()?;
    for _ in 0..rng.usize(3..10) {
        let number = rng.usize(..open.len());
        let one = &mut open[number];
        steps.push(format!("{number} {}", step(one, run, rng).map_err(tell)?));
    }
    let mut pending: Vec<Pending> = Vec::new();
    while !open.is_empty() {
        let one = open.remove(rng.usize(..open.len()));
        steps.push("one commits".into());
        let submitted = match one.tx.submit() {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                steps.push("refused".into());
                continue;
            }
            submitted => submitted.map_err(tell)?,
        };
        // One that wrote nothing was at the place of its view.
        let Some(commit) = submitted else { continue };
        for read in &one.reads {
            check(read, state)
                .map_err(|why| format!("version {} was given, but {why}", commit.version()))?;
        }
        for (key, value) in one.writes {
            match value {
                Some(value) => drop(state.insert(key, value)),
                None => drop(state.remove(&key)),
            }
        }
        pending.push(commit);
        if rng.bool() {
            wait(&mut pending)?;
        }
    }
    wait(&mut pending)
}

fn wait(pending: &mut Vec<Pending>) -> Verdict {
    for commit in pending.drain(..) {
        commit.wait().map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn check(read: &Seen, state: &State) -> Verdict {
    let same = match read {
        Seen::Key(key, value) => state.get(key) == value.as_ref(),
        Seen::All(rows) => state.iter().map(|(k, v)| (k.clone(), *v)).eq(rows.iter().cloned()),
    };
    if same { Ok(()) } else { Err(format!("it read {read:?}, and before it there was {state:?}")) }
}

/// Reads or writes something at random.
fn step(one: &mut Open, run: Run, rng: &mut fastrand::Rng) -> Result<String, Error> {
    let key = format!("k{}", rng.u8(..KEYS));
    Ok(match rng.u32(..8) {
        0..3 => {
            let found = one.tx.kv_get(run, &key)?.and_then(|found| found.value.as_int());
            if !one.writes.contains_key(&key) {
                one.reads.push(Seen::Key(key.clone(), found));
            }
            format!("reads {key}")
        }
        3 => {
            let mut rows = Vec::new();
            for row in one.tx.kv_scan(run, "k")? {
                let (key, found) = row?;
                let key = String::from_utf8_lossy(&key).into_owned();
                rows.push((key, found.value.as_int().unwrap_or(0)));
            }
            if one.writes.is_empty() {
                one.reads.push(Seen::All(rows));
            }
            "reads all".into()
        }
        4..7 => {
            let value = rng.i64(..1000);
            one.tx.kv_put(run, &key, value)?;
            one.writes.insert(key.clone(), Some(value));
            format!("puts {key}")
        }
        _ => {
            one.tx.kv_delete(run, &key)?;
            one.writes.insert(key.clone(), None);
            format!("deletes {key}")
        }
    })
}
