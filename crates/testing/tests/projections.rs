//! Projections under crashes: killed at any step and started again, the state is what folding
//! from the first event gives.

use std::time::Duration;

use steadfast_engine::{Database, Error, Event, Projection, Result, Run, Value};
use steadfast_testing::matrix::{Failure, crash_matrix};

/// How many events, and a number that depends on all of them and on their order.
#[derive(Debug, Default, PartialEq, Clone, Copy)]
struct Chain {
    count: i64,
    hash: i64,
}

struct Hash<const VERSION: u32>;

impl<const VERSION: u32> Projection for Hash<VERSION> {
    const NAME: &'static str = "hash";
    const VERSION: u32 = VERSION;
    // Several transactions for a few events.
    const BATCH_EVENTS: usize = 2;
    type State = Chain;

    fn apply(&self, state: &mut Chain, stream: &str, event: &Event) -> Result<()> {
        let payload = event.payload.as_int().ok_or_else(|| Error::Invalid("no number".into()))?;
        let step = payload + stream.len() as i64 + i64::from(VERSION);
        *state = Chain { count: state.count + 1, hash: state.hash.wrapping_mul(31) + step };
        Ok(())
    }

    fn save(&self, state: &Chain) -> Result<Value> {
        Ok(Value::List(vec![state.count.into(), state.hash.into()]))
    }

    fn load(&self, saved: Value) -> Result<Chain> {
        match saved {
            Value::List(parts) => match parts[..] {
                [Value::Int(count), Value::Int(hash)] => Ok(Chain { count, hash }),
                _ => Err(Error::Invalid("no chain".into())),
            },
            _ => Err(Error::Invalid("no chain".into())),
        }
    }
}

/// Each state from the first event on.
fn from_scratch<const VERSION: u32>(db: &Database, run: Run) -> Result<Vec<Chain>> {
    let mut state = Chain::default();
    let mut states = vec![state];
    for event in db.event_read(run, "steps", 0)? {
        Hash::<VERSION>.apply(&mut state, "steps", &event?)?;
        states.push(state);
    }
    Ok(states)
}

/// What is kept is some state of the way, and folding on reaches its end.
fn holds<const VERSION: u32>(db: &Database, run: Run) -> std::result::Result<(), Failure> {
    let states = from_scratch::<VERSION>(db, run)?;
    if let Some(kept) = db.view()?.projected(run, "steps", &Hash::<VERSION>)? {
        let at = usize::try_from(kept.count)?;
        if states.get(at) != Some(&kept) {
            return Err(format!("version {VERSION} kept {kept:?}, the way is {states:?}").into());
        }
    }
    let folded = db.project(run, "steps", &Hash::<VERSION>)?;
    if states.last() != Some(&folded) {
        return Err(format!("version {VERSION} gave {folded:?}, the way is {states:?}").into());
    }
    Ok(())
}

#[test]
fn killed_and_started_again_the_state_is_that_of_folding_from_scratch() {
    let report = crash_matrix(11)
        .depth(2)
        .starting_again()
        .programs(4)
        .time_max(Duration::from_secs(40))
        .run(|db, ack| {
            let run = db.get_or_create_run("agent")?;
            for round in ack.rounds(6) {
                for _ in 0..=ack.draw(4) {
                    db.event_append(run, "steps", ack.draw(100).cast_signed())?;
                }
                // Now and then another version of the program, which rebuilds.
                let folded = match ack.draw(3) {
                    0 => db.project(run, "steps", &Hash::<2>)?,
                    _ => db.project(run, "steps", &Hash::<1>)?,
                };
                if ack.draw(4) == 0 {
                    db.checkpoint()?;
                }
                ack.done((round, folded.count));
            }
            Ok(())
        })
        .check(|db, acked| {
            let Ok(run) = db.resolve_run("agent") else {
                return acked.expect(acked.is_empty(), || "the agent is gone".into());
            };
            let events = db.event_read(run, "steps", 0)?.count() as i64;
            for (_, count) in acked.iter() {
                acked.expect(*count <= events, || format!("{count} were folded, {events} left"))?;
            }
            holds::<1>(db, run)?;
            holds::<2>(db, run)
        });
    println!("{report}");
    report.expect_good();
    assert!(report.opened > 100 && report.nested > 50, "{report}");
}
