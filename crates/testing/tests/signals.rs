//! Signals under crashes: whatever the moment, each signal is what the formula makes of the
//! observations that the same transactions left as events, every one of them counted once, and
//! what was acknowledged is among them (P1, P2, P3, P10).

use std::collections::BTreeMap;
use std::time::Duration;

use steadfast_engine::{
    CompactMode, Database, Decay, Run, SchemaBuilder, Timestamp, Transaction, Value, Window,
};
use steadfast_testing::matrix::{Ack, Acked, Failure, crash_matrix};

const HOUR_US: u64 = 3_600_000_000;
/// A life of the matrix begins a day after the one before, so what is seen in one has not faded
/// in the next; within a life less than a day passes.
const HALF_LIFE_US: u64 = 24 * HOUR_US;
const LIFETIME_US: u64 = 640 * HOUR_US;
/// What is counted by the hour.
const HOURS: u32 = 60;
const NAMES: [&str; 3] = ["fades", "stays", "ends"];
const ENTITIES: [&str; 2] = ["a", "b"];

/// A transaction that was acknowledged: its number, counted over all lives.
type Told = i64;

fn schema() -> SchemaBuilder {
    let half_life = Duration::from_micros(HALF_LIFE_US);
    let lifetime = Duration::from_micros(LIFETIME_US);
    SchemaBuilder::signal("fades")
        .decay(Decay::Exponential { half_life })
        .windows([Window::Minutes(5), Window::Hours(HOURS)])
        .and_signal("stays")
        .decay(Decay::Permanent)
        .windows([Window::Hours(HOURS)])
        .and_signal("ends")
        .decay(Decay::Linear { lifetime })
        .windows([Window::Hours(HOURS)])
}

/// One observation, and the event that tells of it.
fn observe(tx: &mut Transaction, run: Run, ack: &Ack<Told>) -> Result<(), steadfast_engine::Error> {
    let (name, entity) = (*ack.choose(&NAMES), *ack.choose(&ENTITIES));
    let now = tx.now().as_micros();
    // On time, late, later than any window, ahead of the clock.
    let at = match ack.draw(8) {
        0 => now - ack.draw(12 * HOUR_US),
        1 => now - ack.draw(120 * HOUR_US),
        2 => now + ack.draw(36 * HOUR_US),
        _ => now,
    };
    let weight = ack.draw(100) as f64 / 8.0;
    tx.signal_record_at(run, name, entity, weight, Timestamp::from_micros(at))?;
    let told = vec![name.into(), entity.into(), at.cast_signed().into(), Value::Float(weight)];
    tx.event_append(run, "seen", Value::List(told)).map(drop)
}

fn program(db: &Database, ack: &Ack<Told>) -> Result<(), Failure> {
    db.define_signals(schema())?;
    let run = db.get_or_create_run("r")?;
    for _ in ack.rounds(12) {
        let (number, _) = db.transaction(|tx| {
            for _ in 0..=ack.draw(3) {
                observe(tx, run, ack)?;
            }
            let number = tx.state_read(run, "transactions")?;
            let number = number.and_then(|found| found.value.as_int()).unwrap_or(0);
            tx.state_set(run, "transactions", number + 1)?;
            Ok(number)
        })?;
        ack.done(number);
        match ack.draw(6) {
            0 => db.checkpoint().map(drop)?,
            1 => db.compact(CompactMode::Full).map(drop)?,
            _ => ack.advance(Duration::from_micros(ack.draw(HOUR_US)))?,
        }
    }
    Ok(())
}

type Observations = Vec<(u64, f64)>;

/// The observations of each signal, as the events have them.
fn seen(db: &Database, run: Run) -> Result<BTreeMap<(String, String), Observations>, Failure> {
    let mut seen = BTreeMap::<_, Observations>::new();
    for event in db.event_read(run, "seen", 0)? {
        let Value::List(parts) = event?.payload else { return Err("no list".into()) };
        let [Value::String(name), Value::String(entity), Value::Int(at), Value::Float(weight)] =
            &parts[..]
        else {
            return Err(format!("{parts:?} is no observation").into());
        };
        let of = seen.entry((name.clone(), entity.clone())).or_default();
        of.push((at.cast_unsigned(), *weight));
    }
    Ok(seen)
}

/// The formulas, without the code that they check.
fn due_score(name: &str, observations: &Observations, now: u64) -> f64 {
    let part = |(at, weight): &(u64, f64)| match name {
        "fades" => weight * (-((now - at) as f64) / HALF_LIFE_US as f64).exp2(),
        "stays" => *weight,
        _ => {
            let slice = LIFETIME_US / 64;
            weight * (1.0 - (now - at / slice * slice) as f64 / LIFETIME_US as f64).max(0.0)
        }
    };
    observations.iter().filter(|(at, _)| *at <= now).map(part).sum()
}

fn check(db: &Database, acked: &Acked<'_, Told>) -> Result<(), Failure> {
    let Ok(run) = db.resolve_run("r") else {
        return acked.expect(acked.is_empty(), || "the run is gone".into());
    };
    let transactions = db.state_read(run, "transactions")?;
    let transactions = transactions.and_then(|found| found.value.as_int()).unwrap_or(0);
    for number in acked.iter() {
        acked.expect(*number < transactions, || format!("transaction {number} is lost"))?;
    }
    let seen = seen(db, run)?;
    let mut signals = 0;
    for name in NAMES {
        signals += db.view()?.signal_scan(run, name)?.count();
        for entity in ENTITIES {
            let key = (name.to_owned(), entity.to_owned());
            let observations = seen.get(&key).cloned().unwrap_or_default();
            let view = db.view()?;
            let now = view.now().as_micros();
            let past = |length: u64| {
                let inside = |at: u64| at <= now && at / HOUR_US + length > now / HOUR_US;
                observations.iter().filter(|(at, _)| inside(*at)).count() as u64
            };
            for (window, due) in
                [(Window::AllTime, past(1 << 40)), (Window::Hours(HOURS), past(HOURS.into()))]
            {
                let found = view.signal_count(run, name, entity, window)?;
                acked.expect(found == due, || {
                    format!("{found} in {window:?} of {name} {entity}, due {due}: {observations:?}")
                })?;
            }
            let (due, found) =
                (due_score(name, &observations, now), view.signal_score(run, name, entity)?);
            acked.expect((due - found).abs() < 1e-6, || {
                format!("{name} {entity} scores {found}, due {due}: {observations:?}")
            })?;
        }
    }
    acked.expect(signals == seen.len(), || format!("{signals} signals of {}", seen.len()))
}

#[test]
fn each_signal_is_what_the_formula_makes_of_the_events_beside_it() {
    let report = crash_matrix(3)
        .starting_again()
        .programs(16)
        .images_max(6_000)
        .time_max(Duration::from_secs(30))
        .run(program)
        .check(check);
    println!("{report}");
    report.expect_good();
    assert!(report.programs > 3 && report.opened > 1_000, "{report}");
}
