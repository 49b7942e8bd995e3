//! A signal counts every observation once, and its score is what the formula says, wherever the
//! process or the machine ends.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use steadfast_engine::{Database, DatabaseConfig, Result, Timestamp, Window};
use steadfast_testing::crash_disk::CrashDisk;
use steadfast_testing::injector::{CrashInjector, CrashPoint, run_with_crash};
use steadfast_testing::sim::SimDisk;
use steadfast_testing::workload::builder;

/// The first observation.
const BASE_US: u64 = 1_000_000_000;
const HALF_LIFE_US: f64 = 7.0 * 24.0 * 3600.0 * 1e6;

/// A weight and a time, of an entity.
type Seen = (usize, f64, u64);

/// What was asked of a database, and how much of it was answered.
#[derive(Debug, Default)]
struct Asked {
    seen: Vec<Seen>,
    acknowledged: usize,
}

impl Asked {
    fn observe(&mut self, db: &Database, seen: Seen) -> Result<()> {
        self.seen.push(seen);
        let run = db.get_or_create_run("r")?;
        let (entity, weight, at) = seen;
        db.signal_record_at(run, "view", [entity as u8], weight, Timestamp::from_micros(at))?;
        self.acknowledged += 1;
        Ok(())
    }

    /// `db` must have the first `kept` observations, each of them once.
    fn check(&self, db: &Database, kept: usize) -> std::result::Result<(), TestCaseError> {
        let run = db.get_or_create_run("r").unwrap();
        for entity in 0..20 {
            let kept: Vec<_> = self.seen[..kept].iter().filter(|seen| seen.0 == entity).collect();
            let count = db.signal_count(run, "view", [entity as u8], Window::AllTime).unwrap();
            prop_assert_eq!(count, kept.len() as u64, "of entity {}", entity);
            let Some(signal) = db.signal(run, "view", [entity as u8]).unwrap() else { continue };
            let newest = signal.newest.as_micros();
            let due: f64 = (kept.iter())
                .map(|(_, weight, at)| weight * (-((newest - at) as f64) / HALF_LIFE_US).exp2())
                .sum();
            let found = db.signal_score_at(run, "view", [entity as u8], signal.newest).unwrap();
            prop_assert!(found.is_finite() && found >= 0.0, "{found}");
            prop_assert!((found - due).abs() < 1e-6, "{found}, due {due}");
        }
        Ok(())
    }
}

fn config() -> DatabaseConfig {
    DatabaseConfig::strict().segment_bytes(16 << 10).manual_checkpoints()
}

/// Runs `program` until it comes to `point` for the time `after` + 1, and judges every state that
/// the disk may be in then. `in_flight`: whether what was under way must be there.
fn crash(
    point: CrashPoint,
    after: u64,
    in_flight: bool,
    program: impl FnOnce(&Database, &mut Asked) -> Result<()>,
) -> std::result::Result<bool, TestCaseError> {
    let sim = SimDisk::new();
    let disk = CrashDisk::new(Arc::new(sim.clone()));
    let cut = disk.clone();
    let injector = CrashInjector::on_fire(point, after, move || cut.crash());
    let mut asked = Asked::default();
    let db = builder(&sim, config()).disk(Arc::new(disk.clone())).open().unwrap();
    let ended = run_with_crash(&injector, || program(&db, &mut asked).unwrap());
    disk.crash();
    drop(db);
    let crashed = ended.is_err();
    let kept = asked.acknowledged + usize::from(crashed && in_flight);
    let mut rng = fastrand::Rng::with_seed(after);
    let moment = sim.moment();
    let cuts = moment.plans(1, &mut rng).into_iter().map(|plan| moment.cut(&plan));
    for left in std::iter::once(sim.killed()).chain(cuts) {
        let db = builder(&left, config()).open().unwrap();
        asked.check(&db, kept)?;
        db.checkpoint().unwrap();
        db.close().unwrap();
        let db = builder(&left, config()).open().unwrap();
        asked.check(&db, kept)?;
    }
    Ok(crashed)
}

/// Observations of `entities` in turn, a second apart.
fn in_turn(entities: usize, each: usize) -> Vec<Seen> {
    let at = |n: usize| BASE_US + n as u64 * 1_000_000;
    (0..entities * each).map(|n| (n % entities, 1.0, at(n))).collect()
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, max_shrink_iters: 100, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn wal_pre_aggregate_crash_recovery(
        entities in 1..20usize, each in 1..50usize, after in 1..100u64,
    ) {
        let all = in_turn(entities, each);
        let enough = all.len() as u64 > after;
        let crashed = crash(CrashPoint::WalPreAggregate, after, false, |db, asked| {
            all.into_iter().try_for_each(|seen| asked.observe(db, seen))
        })?;
        prop_assert_eq!(crashed, enough);
    }

    #[test]
    fn wal_post_aggregate_crash_recovery(
        entities in 1..20usize, each in 1..50usize, after in 1..100u64,
    ) {
        let all = in_turn(entities, each);
        let enough = all.len() as u64 > after;
        let crashed = crash(CrashPoint::WalPostAggregate, after, true, |db, asked| {
            all.into_iter().try_for_each(|seen| asked.observe(db, seen))
        })?;
        prop_assert_eq!(crashed, enough);
    }

    #[test]
    fn signal_aggregation_partial_crash(
        entities in 1..20usize, each in 1..50usize, after in 1..100u64,
    ) {
        let all = in_turn(entities, each);
        let enough = all.len() as u64 > after;
        let crashed = crash(CrashPoint::SignalAggregationUpdate, after, true, |db, asked| {
            all.into_iter().try_for_each(|seen| asked.observe(db, seen))
        })?;
        prop_assert_eq!(crashed, enough);
    }

    #[test]
    fn checkpoint_pre_flush_crash_recovery(
        entities in 1..10usize, before in 5..50usize, after in 1..20usize,
    ) {
        let crashed = crash(CrashPoint::CheckpointPreFlush, 1, false, |db, asked| {
            let mut all = in_turn(entities, before + after).into_iter();
            all.by_ref().take(before).try_for_each(|seen| asked.observe(db, seen))?;
            db.checkpoint()?;
            all.take(after).try_for_each(|seen| asked.observe(db, seen))?;
            db.checkpoint().map(drop)
        })?;
        prop_assert!(crashed);
    }

    #[test]
    fn checkpoint_post_flush_crash_recovery(
        entities in 1..10usize, each in 5..30usize, checkpoints in 0..3u64,
    ) {
        let crashed = crash(CrashPoint::CheckpointPostFlush, checkpoints, false, |db, asked| {
            for part in in_turn(entities, each).chunks(each.max(2)) {
                part.iter().try_for_each(|seen| asked.observe(db, *seen))?;
                db.checkpoint()?;
            }
            Ok(())
        })?;
        prop_assert_eq!(crashed, checkpoints < entities as u64);
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn decay_score_precision_after_recovery(
        weights in prop::collection::vec(0.1..10.0f64, 5..100), shuffled: bool, seed: u64,
    ) {
        let mut all: Vec<Seen> = (0..)
            .zip(&weights)
            .map(|(n, weight)| (0, *weight, BASE_US + n * 60_000_000))
            .collect();
        if shuffled {
            fastrand::Rng::with_seed(seed).shuffle(&mut all);
        }
        let sim = SimDisk::new();
        let db = builder(&sim, config()).open().unwrap();
        let mut asked = Asked::default();
        for seen in all {
            asked.observe(&db, seen).unwrap();
        }
        let run = db.resolve_run("r").unwrap();
        let before = db.signal(run, "view", [0]).unwrap();
        let left = sim.killed();
        drop(db);
        let db = builder(&left, config()).open().unwrap();
        asked.check(&db, weights.len())?;
        let run = db.resolve_run("r").unwrap();
        let after = db.signal(run, "view", [0]).unwrap();
        prop_assert_eq!(&after, &before, "to the bit");
        // And as far on as a score can be looked at.
        let later = BASE_US + weights.len() as u64 * 60_000_000 + 30 * 24 * 3_600_000_000;
        let found = db.signal_score_at(run, "view", [0], Timestamp::from_micros(later)).unwrap();
        let due: f64 = (asked.seen.iter())
            .map(|(_, weight, at)| weight * (-((later - at) as f64) / HALF_LIFE_US).exp2())
            .sum();
        prop_assert!((found - due).abs() < 1e-6, "{found}, due {due}");
        let week = Duration::from_secs(7 * 24 * 3600);
        prop_assert_eq!(after.unwrap().definition.decay, steadfast_engine::Decay::Exponential {
            half_life: week,
        });
    }
}
