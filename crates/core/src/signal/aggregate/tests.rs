//! A signal beside the formula, applied to every observation there ever was.

use std::time::Duration;

use proptest::prelude::*;

use super::super::{
    Decay, Delta, HOUR_US, MINUTE_US, Observation, SignalDefinition, Window, fold, signal_key,
    signal_of, signal_prefix,
};
use super::{SLICES, Signal, count_in, float, micros, per_second, score_in};
use crate::limits::{
    NAME_BYTES_MAX, SIGNAL_AHEAD_MAX, SIGNAL_TIME_US_MAX, SIGNAL_WEIGHT_MAX, USER_KEY_BYTES_MAX,
};
use crate::{NamespaceId, Record, RecordBuilder, Timestamp, Version};

const BASE_US: u64 = 1_000_000_000_000_000;

fn at(us: u64) -> Timestamp {
    Timestamp::from_micros(us)
}

/// What the score must be: the definition, summed up.
fn oracle_score(decay: Decay, seen: &[Observation], now: u64) -> f64 {
    let weight = |observation: &Observation| {
        let Observation { weight, at } = *observation;
        let at = at.as_micros();
        match decay {
            Decay::Permanent => weight,
            Decay::Exponential { half_life } => {
                weight * (-(float(now - at) / half_life.as_secs_f64() / 1e6)).exp2()
            }
            Decay::Linear { lifetime } => {
                let slice = micros(lifetime).div_ceil(SLICES);
                let age = now - at / slice * slice;
                weight * (1.0 - float(age) / float(micros(lifetime))).max(0.0)
            }
        }
    };
    seen.iter().map(weight).sum()
}

fn oracle_count(window: Window, seen: &[Observation], newest: u64, now: u64) -> u64 {
    let (length, bucket, ring) = match window {
        Window::AllTime => return seen.len() as u64,
        Window::Minutes(n) => (n, MINUTE_US, 60),
        Window::Hours(n) => (n, HOUR_US, 24),
    };
    let inside = |observation: &&Observation| {
        let at = observation.at.as_micros();
        // What was older than the ring when it was counted is in no window.
        now / bucket - at / bucket < u64::from(length)
            && newest / bucket - (at / bucket).min(newest / bucket) < ring
    };
    seen.iter().filter(inside).count() as u64
}

#[derive(Debug, Clone)]
struct Step {
    /// Passes before the commit, in µs.
    pause: u64,
    /// How long before the commit, or after it if negative, and how heavy.
    observations: Vec<(i64, f64)>,
}

fn step() -> impl Strategy<Value = Step> {
    let pause = prop_oneof![
        4 => 0..2_000_000u64,
        3 => 0..2 * MINUTE_US,
        2 => 0..3 * HOUR_US,
        1 => 0..72 * HOUR_US,
    ];
    let ago = prop_oneof![
        6 => Just(0i64),
        3 => 0..90_000_000i64,
        2 => 0..40 * 3_600_000_000i64,
        1 => -4_000_000_000..0i64,
    ];
    let weight = prop_oneof![Just(1.0), 0.1..10.0f64, Just(0.0)];
    (pause, prop::collection::vec((ago, weight), 1..4))
        .prop_map(|(pause, observations)| Step { pause, observations })
}

fn decay() -> impl Strategy<Value = Decay> {
    prop_oneof![
        Just(Decay::Permanent),
        (1..40 * HOUR_US)
            .prop_map(|us| Decay::Exponential { half_life: Duration::from_micros(us) }),
        Just(Decay::Exponential { half_life: Duration::from_secs(7 * 24 * 3600) }),
        (1..40 * HOUR_US).prop_map(|us| Decay::Linear { lifetime: Duration::from_micros(us) }),
    ]
}

fn delta_record(version: u64, committed: u64, delta: &Delta) -> Record {
    let key = signal_key(NamespaceId(1), "view", b"e").unwrap();
    let mut bytes = key.as_bytes().to_vec();
    bytes.extend(delta.encode().unwrap());
    let builder =
        RecordBuilder { version: Version(version), timestamp: at(committed), expiry: None };
    builder.delta(&bytes, key.as_bytes().len())
}

proptest! {
    #[test]
    fn answers_what_the_formula_does(
        decay in decay(),
        steps in prop::collection::vec(step(), 1..30),
        later in 0..100 * HOUR_US,
    ) {
        let definition = SignalDefinition { decay, ..SignalDefinition::default() };
        let mut clock = BASE_US;
        let mut all: Vec<Observation> = Vec::new();
        let mut record: Option<Record> = None;
        let mut whole = Signal::new(definition);
        for (version, step) in (1..).zip(&steps) {
            clock += step.pause;
            let observations: Vec<_> = step
                .observations
                .iter()
                .map(|(ago, weight)| Observation {
                    weight: *weight,
                    at: at(clock.checked_add_signed(-ago).unwrap()),
                })
                .collect();
            all.extend(&observations);
            let delta = Delta { definition, observations };
            let delta_record = delta_record(version, clock, &delta);
            record = fold(record.as_ref(), &delta_record);
            // The short way gives the bits of the long one.
            whole.fold(&delta, at(clock));
            let mut bytes = Vec::new();
            whole.encode(&mut bytes);
            prop_assert_eq!(record.as_ref().unwrap().value_bytes(), &bytes[..]);
            prop_assert_eq!(&Signal::decode(&bytes).unwrap(), &whole);
            prop_assert_eq!(fold(record.as_ref(), &delta_record), None, "counted once");
        }
        for now in [clock, clock + later] {
            let seen: Vec<_> = all.iter().copied().filter(|o| o.at <= at(now)).collect();
            let (due, found) = (oracle_score(decay, &seen, now), whole.score(at(now)).unwrap());
            prop_assert!((due - found).abs() < 1e-6, "{found}, due {due}");
            let read = score_in(record.as_ref().unwrap().value_bytes(), None, at(now)).unwrap();
            prop_assert_eq!(read.to_bits(), found.to_bits());
            // A ring begins at the newest that is counted, or at the reading.
            for window in [Window::Minutes(1), Window::Minutes(60), Window::Hours(24), Window::AllTime] {
                let due = oracle_count(window, &seen, whole.newest.as_micros(), now);
                prop_assert_eq!(whole.count(window, at(now)).unwrap(), due, "{:?}", window);
                let read = count_in(record.as_ref().unwrap().value_bytes(), Some(window), at(now));
                prop_assert_eq!(read.unwrap(), (due, window));
            }
            let read = count_in(record.as_ref().unwrap().value_bytes(), None, at(now)).unwrap();
            prop_assert_eq!(whole.velocity(at(now)).unwrap(), per_second(read.0, read.1));
            let velocity = whole.velocity(at(now)).unwrap();
            let count = whole.count(Window::Minutes(60), at(now)).unwrap();
            prop_assert_eq!(velocity, float(count) / 3600.0);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, cut in 0..200usize, flip in 0..200usize) {
        let _ = Signal::decode(&bytes);
        let _ = Delta::decode(&bytes);
        let mut signal = Signal::new(SignalDefinition {
            decay: Decay::Linear { lifetime: Duration::from_secs(64) },
            ..SignalDefinition::default()
        });
        let seen = |us| Observation { weight: 1.0, at: at(us) };
        let delta = Delta { definition: signal.definition, observations: vec![
            seen(BASE_US), seen(BASE_US + 5_000_000), seen(BASE_US + 900_000_000),
        ]};
        signal.fold(&delta, at(BASE_US + 6_000_000));
        let mut bytes = Vec::new();
        signal.encode(&mut bytes);
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        let len = bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(flip % len) {
            *byte ^= 0x41;
        }
        if let Ok(mut signal) = Signal::decode(&bytes) {
            let _ = signal.score(at(BASE_US + 8_000_000));
            let _ = signal.count(Window::Hours(1), at(u64::MAX));
            signal.fold(&delta, at(BASE_US + 7_000_000));
        }
        for now in [0, BASE_US, BASE_US + 8_000_000, u64::MAX] {
            let _ = score_in(&bytes, Some(at(now)), at(now));
            let _ = count_in(&bytes, Some(Window::Minutes(3)), at(now));
            let _ = count_in(&bytes, None, at(now));
        }
    }
}

fn counted(observations: &[(u64, f64)], committed: u64) -> Signal {
    let definition = SignalDefinition::default();
    let observations =
        observations.iter().map(|(us, weight)| Observation { weight: *weight, at: at(*us) });
    let mut signal = Signal::new(definition);
    signal.fold(&Delta { definition, observations: observations.collect() }, at(committed));
    signal
}

#[test]
fn what_is_older_than_the_ring_counts_in_all_time_only() {
    let signal = counted(&[(BASE_US, 1.0), (BASE_US - 25 * HOUR_US, 1.0)], BASE_US);
    assert_eq!(signal.count(Window::Hours(24), at(BASE_US)), Ok(1));
    assert_eq!(signal.count(Window::AllTime, at(BASE_US)), Ok(2));
}

#[test]
fn one_that_is_later_than_the_reading_is_not_counted_by_it() {
    let signal = counted(&[(BASE_US, 1.0), (BASE_US + 30, 2.0)], BASE_US);
    for (now, count) in [(BASE_US, 1), (BASE_US + 29, 1), (BASE_US + 30, 2)] {
        assert_eq!(signal.count(Window::AllTime, at(now)), Ok(count));
        assert_eq!(signal.count(Window::Minutes(60), at(now)), Ok(count));
    }
    assert!((signal.score(at(BASE_US)).unwrap() - 1.0).abs() < 1e-9);
    assert!((signal.score(at(BASE_US + 30)).unwrap() - 3.0).abs() < 1e-6);
    let mut later = signal.clone();
    let observations = vec![Observation { weight: 1.0, at: at(BASE_US + 40) }];
    later.fold(&Delta { definition: signal.definition, observations }, at(BASE_US + 40));
    assert_eq!((later.ahead.len(), later.count), (0, 3), "the next commit counts what is due");
    // What was counted cannot be told apart any more: that is an error, not a number.
    let error = signal.score(at(BASE_US - 1)).unwrap_err();
    assert!(error.to_string().contains("later observations"), "{error}");
}

/// Another order would give other last bits.
#[test]
fn observations_are_added_in_the_order_in_which_they_were_made() {
    let definition = SignalDefinition { decay: Decay::Permanent, ..SignalDefinition::default() };
    let mut signal = Signal::new(definition);
    let observations = [0.1, 0.2, 0.3].map(|weight| Observation { weight, at: at(BASE_US) });
    signal.fold(&Delta { definition, observations: observations.into() }, at(BASE_US));
    assert_eq!(signal.score.to_bits(), (0.1f64 + 0.2 + 0.3).to_bits());
    assert_ne!(signal.score.to_bits(), (0.3f64 + 0.2 + 0.1).to_bits());
}

#[test]
fn a_lifetime_keeps_at_most_64_sums() {
    let decay = Decay::Linear { lifetime: Duration::from_secs(64) };
    let definition = SignalDefinition { decay, ..SignalDefinition::default() };
    let mut signal = Signal::new(definition);
    for second in 0..200 {
        let now = at(BASE_US + second * 1_000_000);
        let observations = vec![Observation { weight: 1.0, at: now }];
        signal.fold(&Delta { definition, observations }, now);
    }
    assert_eq!((signal.slices.len() as u64, signal.count), (SLICES, 200));
    signal.check().unwrap();
}

/// Questions that cannot be answered have the same errors however they are asked.
#[test]
fn a_window_that_is_not_kept_and_bytes_that_are_no_signal_are_refused() {
    let signal = counted(&[(BASE_US, 1.0)], BASE_US);
    let mut bytes = Vec::new();
    signal.encode(&mut bytes);
    for window in [Window::Minutes(61), Window::Minutes(0), Window::Hours(25)] {
        let error = signal.count(window, at(BASE_US)).unwrap_err();
        assert_eq!(count_in(&bytes, Some(window), at(BASE_US)), Err(error), "{window:?}");
    }
    assert!(score_in(&bytes, Some(at(BASE_US - 1)), at(BASE_US)).is_err(), "before the newest");
    assert!(score_in(&bytes, None, at(BASE_US - 1)).is_ok(), "a clock may step back");
    for cut in 0..bytes.len().min(60) {
        assert!(score_in(&bytes[..cut], None, at(BASE_US)).is_err() || cut > 40, "{cut}");
        assert!(count_in(&bytes[..cut], None, at(BASE_US)).is_err() || cut > 40, "{cut}");
    }
}

#[test]
fn a_key_is_the_same_however_long_its_parts_are() {
    for name in ["n", "a\0b", "\0", &"n".repeat(90), &"n".repeat(NAME_BYTES_MAX)] {
        for entity in [&b"e"[..], b"\0\x01", &[7; 80], &[0; 1000]] {
            let prefix = signal_prefix(NamespaceId(9), name).unwrap();
            let key = signal_key(NamespaceId(9), name, entity).unwrap();
            assert_eq!(key.as_bytes(), [&prefix, entity].concat(), "{name:?} {entity:?}");
            let parts = (name.to_owned(), entity.to_vec());
            assert_eq!(signal_of(key.as_bytes()), Some(parts));
        }
    }
    assert!(signal_key(NamespaceId(9), "", b"e").is_err());
    assert!(signal_key(NamespaceId(9), "n", b"").is_err());
    assert!(signal_key(NamespaceId(9), "n", &[1; USER_KEY_BYTES_MAX + 1]).is_err());
    assert!(signal_key(NamespaceId(9), &"n".repeat(NAME_BYTES_MAX + 1), b"e").is_err());
}

#[test]
fn what_is_ahead_has_a_limit_and_is_never_lost() {
    let ahead: Vec<_> =
        (0..SIGNAL_AHEAD_MAX as u64 + 5).map(|n| (BASE_US + 1000 - n, 1.0)).collect();
    let signal = counted(&ahead, BASE_US);
    assert_eq!(signal.ahead.len(), SIGNAL_AHEAD_MAX);
    assert_eq!(signal.count(Window::AllTime, at(BASE_US)), Ok(5));
    assert_eq!(signal.count(Window::AllTime, at(BASE_US + 1000)), Ok(ahead.len() as u64));
}

#[test]
fn refuses_what_is_not_a_weight_or_a_time() {
    let delta = |weight, us| Delta {
        definition: SignalDefinition::default(),
        observations: vec![Observation { weight, at: at(us) }],
    };
    for weight in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.5, SIGNAL_WEIGHT_MAX * 2.0] {
        assert!(delta(weight, 5).encode().is_err(), "{weight}");
    }
    assert!(delta(1.0, SIGNAL_TIME_US_MAX + 1).encode().is_err());
    let encoded = delta(-0.0, 5).encode().unwrap();
    assert_eq!(Delta::decode(&encoded).unwrap().observations[0].weight.to_bits(), 0);
    assert!(Delta::decode(&encoded[..encoded.len() - 1]).is_err());
}

#[test]
fn a_changed_definition_goes_on_from_the_score_it_finds() {
    let mut signal = counted(&[(BASE_US, 8.0), (BASE_US - 30 * MINUTE_US, 1.0)], BASE_US);
    let before = signal.score(at(BASE_US)).unwrap();
    let definition = SignalDefinition {
        version: 1,
        decay: Decay::Linear { lifetime: Duration::from_secs(6400) },
        minutes: 10,
        velocity: Window::Minutes(10),
        ..SignalDefinition::default()
    };
    let observations = vec![Observation { weight: 0.0, at: at(BASE_US) }];
    signal.fold(&Delta { definition, observations }, at(BASE_US));
    assert_eq!(signal.definition, definition);
    assert!((signal.score(at(BASE_US)).unwrap() - before).abs() <= before / 64.0);
    assert_eq!(signal.score(at(BASE_US + 6_400_000_000)), Ok(0.0));
    assert_eq!(signal.count(Window::Minutes(10), at(BASE_US)), Ok(2));
    assert!(signal.count(Window::Minutes(60), at(BASE_US)).is_err(), "not kept any more");
    assert_eq!(signal.count(Window::AllTime, at(BASE_US)), Ok(3));
    // A writer that has not heard of it yet changes nothing back.
    let old = Delta {
        definition: SignalDefinition::default(),
        observations: vec![Observation { weight: 1.0, at: at(BASE_US) }],
    };
    signal.fold(&old, at(BASE_US));
    assert_eq!(signal.definition, definition);
}
