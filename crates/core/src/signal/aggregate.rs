//! What is kept of one signal of one entity, how observations are folded into it, and what it
//! answers.
//!
//! ```text
//! signal := version u8, 1 | score f64 | newest u64 | next u64 | count u64 | definition
//!         | how many varint, minutes { u32 } | how many varint, hours { u32 }
//!         | how many varint, slices { how many before the newest varint | weight f64 }
//!         | how many varint, held back { weight f64 | time u64 }
//! ```
//!
//! What a score needs comes first, at fixed places. Buckets are newest first, without the empty
//! ones at the end; the newest is the one in which the newest observation lies. `next` is the
//! time of the first that is held back, or all ones.

use super::power::half_to_the;
use super::{
    Decay, Delta, HOUR_US, MINUTE_US, Observation, SignalDefinition, Window, invalid, micros,
};
use crate::codec::{Cursor, put_varint};
use crate::limits::SIGNAL_AHEAD_MAX;
use crate::{Result, Timestamp, Value};

const VERSION: u8 = 1;
/// Where things are, counted from the version byte.
const SCORE: usize = 1;
const NEWEST: usize = 9;
const NEXT: usize = 17;
const COUNT: usize = 25;
const DEFINITION: usize = 33;

/// Parts of a lifetime in which weights are summed for [`Decay::Linear`].
const SLICES: u64 = 64;

/// Everything that is known of one signal of one entity.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// What it keeps.
    pub definition: SignalDefinition,
    /// The decayed sum of weights at the time of the newest observation. Not for
    /// [`Decay::Linear`].
    pub score: f64,
    /// The time of the newest observation that was counted.
    pub newest: Timestamp,
    /// How many were counted, ever.
    pub count: u64,
    /// How many by the minute, that of the newest observation first.
    pub minutes: Vec<u32>,
    /// How many by the hour, likewise.
    pub hours: Vec<u32>,
    /// For [`Decay::Linear`]: sums of weights by the 64th part of a lifetime, counted from 1970,
    /// newest first.
    pub slices: Vec<(u64, f64)>,
    /// Observations that were ahead of the clock when they were committed, by time. They are
    /// counted once the clock has come to them.
    pub ahead: Vec<Observation>,
}

/// Appends the value that `delta`, committed at `committed`, makes of `base`.
pub(super) fn fold_bytes(
    base: Option<&[u8]>,
    delta: &[u8],
    committed: Timestamp,
    out: &mut Vec<u8>,
) -> Result<()> {
    if let Some(base) = base
        && fold_in_place(base, delta, committed, out).is_some()
    {
        return Ok(());
    }
    let delta = Delta::decode(delta)?;
    let mut signal = match base {
        Some(base) => Signal::decode(base)?,
        None => Signal::new(delta.definition),
    };
    signal.fold(&delta, committed);
    signal.encode(out);
    Ok(())
}

/// A signal as a store keeps it, read where it lies, as far as most questions need it.
struct Stored<'a> {
    payload: &'a [u8],
    score: f64,
    newest: u64,
    next: u64,
    count: u64,
}

/// What an encoded definition says. It was checked when it was written; whoever is not sure of
/// the bytes takes [`SignalDefinition::decode`].
struct Head {
    decay: u8,
    /// The half-life or lifetime in µs, not 0 unless the decay is permanent.
    time: u64,
    minutes: u64,
    hours: u64,
    /// Where the definition ends and the minutes begin.
    end: usize,
}

#[inline]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk::<8>().map(|word| u64::from_le_bytes(*word))
}

impl<'a> Stored<'a> {
    #[inline(always)]
    fn of(value: &'a [u8]) -> Option<Self> {
        let payload = Value::bytes_in(value)?;
        let fixed = payload.first_chunk::<DEFINITION>()?;
        let word = |at| word(fixed, at);
        let score = f64::from_bits(word(SCORE)?);
        let (newest, next, count) = (word(NEWEST)?, word(NEXT)?, word(COUNT)?);
        (fixed[0] == VERSION).then_some(Self { payload, score, newest, next, count })
    }

    /// Whether at `now` everything that was counted is past, and nothing held back is due.
    const fn stands_at(&self, now: u64) -> bool {
        self.newest <= now && now < self.next
    }

    /// The decay and its time; the cursor is then behind them.
    #[inline(always)]
    fn decay(&self) -> Option<(u8, u64, Cursor<'a>)> {
        let mut cursor = Cursor::new("signal", &self.payload[DEFINITION..]);
        cursor.varint().ok()?;
        let decay = cursor.u8().ok()?;
        let time = if decay == super::PERMANENT { 0 } else { cursor.varint().ok()? };
        (decay == super::PERMANENT || time > 0).then_some((decay, time, cursor))
    }

    fn head(&self) -> Option<Head> {
        let (decay, time, mut cursor) = self.decay()?;
        let (minutes, hours) = (cursor.varint().ok()?, cursor.varint().ok()?);
        cursor.u8().ok()?;
        cursor.varint().ok()?;
        Some(Head { decay, time, minutes, hours, end: DEFINITION + cursor.at() })
    }

    /// Where the first bucket of each ring lies, and how many it has, from where a definition
    /// ends.
    fn rings(&self, end: usize) -> Option<[(usize, usize); 2]> {
        let mut cursor = Cursor::new("signal", self.payload.get(end..)?);
        let mut ring = || {
            let buckets = cursor.length().ok()?;
            let first = end + cursor.at();
            cursor.take(buckets.checked_mul(4)?).ok()?;
            Some((first, buckets))
        };
        Some([ring()?, ring()?])
    }

    #[inline(always)]
    fn score(&self, now: u64) -> Option<f64> {
        match self.decay()? {
            (super::PERMANENT, ..) => Some(self.score),
            (super::EXPONENTIAL, time, _) => Some(decayed(self.score, now - self.newest, time)),
            (super::LINEAR, time, _) => self.linear_score(now, time),
            _ => None,
        }
    }

    fn linear_score(&self, now: u64, lifetime: u64) -> Option<f64> {
        let [_, (hours, buckets)] = self.rings(self.head()?.end)?;
        let mut cursor = Cursor::new("signal", self.payload.get(hours + 4 * buckets..)?);
        let many = cursor.length().ok()?;
        let first = if many > 0 { cursor.varint().ok()? } else { 0 };
        (0..many).try_fold(0.0, |sum, _| {
            let slice = first.checked_sub(cursor.varint().ok()?)?;
            let weight = f64::from_le_bytes(cursor.array().ok()?);
            Some(sum + linear((slice, weight), now, lifetime))
        })
    }

    fn counted(&self, definition_end: usize, window: Window, now: u64) -> Option<u64> {
        let (ring, length, bucket_us) = match window {
            Window::AllTime => return Some(self.count),
            Window::Minutes(n) => (0, n, MINUTE_US),
            Window::Hours(n) => (1, n, HOUR_US),
        };
        let (first, buckets) = self.rings(definition_end)?[ring];
        let bytes = &self.payload[first..first + 4 * buckets];
        let buckets = bytes.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four));
        Some(in_window(buckets, length, now / bucket_us - self.newest / bucket_us))
    }
}

/// How many are in the newest `length` buckets, when `passed` have passed since the first.
fn in_window(buckets: impl IntoIterator<Item = u32>, length: u32, passed: u64) -> u64 {
    (passed..u64::from(length)).zip(buckets).map(|(_, count)| u64::from(count)).sum()
}

/// The same for what comes most often, without taking the signal apart: one observation that is
/// not out of order, in the same minute as the one before. `None` where it is anything else.
fn fold_in_place(base: &[u8], delta: &[u8], committed: Timestamp, out: &mut Vec<u8>) -> Option<()> {
    let stored = Stored::of(base)?;
    let head = stored.head()?;
    // The delta's definition was checked, so it is sound if it is the same.
    let observed = delta.strip_prefix(&stored.payload[DEFINITION..head.end])?;
    let (1, observed) = observed.split_first().map(|(count, rest)| (*count, rest))? else {
        return None;
    };
    let (weight, at) = (f64::from_bits(word(observed, 0)?), word(observed, 8)?);
    if observed.len() != 16
        || stored.count == 0
        || !stored.stands_at(committed.as_micros().max(stored.newest))
        || at < stored.newest
        || at > committed.as_micros()
        || at / MINUTE_US != stored.newest / MINUTE_US
    {
        return None;
    }
    let score = match head.decay {
        super::PERMANENT => stored.score + weight,
        super::EXPONENTIAL => decayed(stored.score, at - stored.newest, head.time) + weight,
        _ => return None,
    };
    let [minutes, hours] = stored.rings(head.end)?;
    if (minutes.1 == 0) != (head.minutes == 0) || (hours.1 == 0) != (head.hours == 0) {
        return None;
    }
    let start = out.len() + base.len() - stored.payload.len();
    out.extend_from_slice(base);
    let signal = &mut out[start..];
    let mut put = |at: usize, word: u64| signal[at..at + 8].copy_from_slice(&word.to_le_bytes());
    put(NEWEST, at);
    put(SCORE, score.to_bits());
    crate::check_crash_point(crate::CrashPoint::SignalAggregationUpdate);
    put(COUNT, stored.count + 1);
    for (first, buckets) in [minutes, hours] {
        if buckets > 0 {
            let bucket = signal[first..].first_chunk_mut::<4>().expect("it was just passed");
            *bucket = u32::from_le_bytes(*bucket).saturating_add(1).to_le_bytes();
        }
    }
    Some(())
}

/// Times are far below 2^63, and such a number is converted faster.
#[allow(clippy::cast_precision_loss, reason = "times of the year 9999 lose less than 64 µs")]
#[inline]
const fn float(micros: u64) -> f64 {
    micros.cast_signed() as f64
}

#[inline]
fn decayed(score: f64, age: u64, half_life: u64) -> f64 {
    score * half_to_the(float(age) / float(half_life))
}

/// Microseconds of a 64th part of a lifetime, rounded up.
const fn slice_us(lifetime: u64) -> u64 {
    lifetime.div_ceil(SLICES)
}

/// The score, at `now`, of a signal as a store keeps it; the same as of the decoded one. Without
/// `now` it is taken at `clock`, or at the newest observation if that is later.
///
/// # Errors
///
/// As [`Signal::score`], and if the bytes are not a signal.
#[inline]
pub fn score_in(value: &[u8], now: Option<Timestamp>, clock: Timestamp) -> Result<f64> {
    let asked = now.unwrap_or(clock).as_micros();
    let fast = Stored::of(value).filter(|stored| stored.stands_at(asked));
    match fast.and_then(|stored| stored.score(asked)) {
        Some(score) => Ok(score),
        None => score_of_decoded(value, now, clock),
    }
}

#[cold]
fn score_of_decoded(value: &[u8], now: Option<Timestamp>, clock: Timestamp) -> Result<f64> {
    let signal = Signal::decode(value)?;
    signal.score(now.unwrap_or_else(|| signal.not_before(clock)))
}

/// How many observations of a signal as a store keeps it lie in `window`, or in that of its
/// velocity, and that window; the same as of the decoded one, at `clock` or at the newest
/// observation if that is later.
///
/// # Errors
///
/// As [`Signal::count`], and if the bytes are not a signal.
pub fn count_in(value: &[u8], window: Option<Window>, clock: Timestamp) -> Result<(u64, Window)> {
    let fast = || {
        let stored = Stored::of(value).filter(|stored| stored.stands_at(clock.as_micros()))?;
        let mut cursor = Cursor::new("signal", &stored.payload[DEFINITION..]);
        let definition = SignalDefinition::decode(&mut cursor).ok()?;
        let window = window.unwrap_or(definition.velocity);
        definition.check_window(window).ok()?;
        let count = stored.counted(DEFINITION + cursor.at(), window, clock.as_micros())?;
        Some((count, window))
    };
    if let Some(found) = fast() {
        return Ok(found);
    }
    let signal = Signal::decode(value)?;
    let window = window.unwrap_or(signal.definition.velocity);
    Ok((signal.count(window, signal.not_before(clock))?, window))
}

impl Signal {
    /// Nothing observed yet.
    pub const fn new(definition: SignalDefinition) -> Self {
        Self {
            definition,
            score: 0.0,
            newest: Timestamp::ZERO,
            count: 0,
            minutes: Vec::new(),
            hours: Vec::new(),
            slices: Vec::new(),
            ahead: Vec::new(),
        }
    }

    /// The time `now`, or that of the newest observation if that is later: for a clock that
    /// stepped back.
    pub fn not_before(&self, now: Timestamp) -> Timestamp {
        now.max(self.newest)
    }

    /// Folds observations in that were committed at `committed`.
    pub fn fold(&mut self, delta: &Delta, committed: Timestamp) {
        if delta.definition.version > self.definition.version {
            self.redefine(delta.definition);
        }
        let due = self.ahead.partition_point(|held| held.at <= committed);
        for held in self.ahead.drain(..due).collect::<Vec<_>>() {
            self.observe(held);
        }
        for observation in &delta.observations {
            if observation.at <= committed {
                self.observe(*observation);
            } else {
                self.hold(*observation, committed);
            }
        }
    }

    fn hold(&mut self, observation: Observation, committed: Timestamp) {
        let at = self.ahead.partition_point(|held| held.at <= observation.at);
        self.ahead.insert(at, observation);
        if self.ahead.len() > SIGNAL_AHEAD_MAX {
            // There is a limit to what can be held back; the first counts as of now.
            let first = self.ahead.remove(0);
            self.observe(Observation { at: committed, ..first });
        }
    }

    fn observe(&mut self, Observation { weight, at }: Observation) {
        if self.count == 0 {
            self.newest = at;
        }
        let (newest, at) = (self.newest.as_micros(), at.as_micros());
        let now = newest.max(at);
        let definition = self.definition;
        bump(&mut self.minutes, definition.minutes, MINUTE_US, newest, at);
        crate::check_crash_point(crate::CrashPoint::SignalAggregationUpdate);
        bump(&mut self.hours, definition.hours, HOUR_US, newest, at);
        match definition.decay {
            Decay::Permanent => self.score += weight,
            Decay::Exponential { half_life } => {
                let half_life = micros(half_life);
                self.score = if at >= newest {
                    decayed(self.score, at - newest, half_life) + weight
                } else {
                    self.score + decayed(weight, newest - at, half_life)
                };
            }
            Decay::Linear { lifetime } => {
                let slice_us = slice_us(micros(lifetime));
                let (slice, current) = (at / slice_us, now / slice_us);
                match self.slices.binary_search_by(|(other, _)| slice.cmp(other)) {
                    Ok(index) => self.slices[index].1 += weight,
                    Err(index) => self.slices.insert(index, (slice, weight)),
                }
                // What is as old as that has faded away.
                self.slices.retain(|(slice, _)| current - slice < SLICES);
            }
        }
        self.count += 1;
        self.newest = Timestamp::from_micros(now);
    }

    /// Goes on with another definition: what was counted stays as far as both keep it, and the
    /// score is what it was at the newest observation.
    fn redefine(&mut self, definition: SignalDefinition) {
        let score = self.score_of_counted(self.newest.as_micros());
        self.slices.clear();
        self.score = score;
        if let Decay::Linear { lifetime } = definition.decay {
            self.score = 0.0;
            if self.count > 0 {
                let slice = self.newest.as_micros() / slice_us(micros(lifetime));
                self.slices.push((slice, score));
            }
        }
        for (buckets, most) in
            [(&mut self.minutes, definition.minutes), (&mut self.hours, definition.hours)]
        {
            buckets.truncate(most as usize);
            trim(buckets);
        }
        self.definition = definition;
    }

    fn check_time(&self, now: Timestamp) -> Result<()> {
        if self.count > 0 && now < self.newest {
            return Err(invalid(
                "the signal has later observations; read it in a view of that time",
            ));
        }
        Ok(())
    }

    fn seen(&self, now: Timestamp) -> impl Iterator<Item = &Observation> {
        self.ahead.iter().take_while(move |held| held.at <= now)
    }

    fn score_of_counted(&self, now: u64) -> f64 {
        match self.definition.decay {
            Decay::Permanent => self.score,
            Decay::Exponential { half_life } => {
                decayed(self.score, now - self.newest.as_micros(), micros(half_life))
            }
            Decay::Linear { lifetime } => {
                let lifetime = micros(lifetime);
                self.slices.iter().fold(0.0, |sum, slice| sum + linear(*slice, now, lifetime))
            }
        }
    }

    /// The decayed sum of weights at `now`.
    ///
    /// # Errors
    ///
    /// If an observation that was counted is later than that.
    pub fn score(&self, now: Timestamp) -> Result<f64> {
        self.check_time(now)?;
        let micros_now = now.as_micros();
        let mut score = if self.count == 0 { 0.0 } else { self.score_of_counted(micros_now) };
        for Observation { weight, at } in self.seen(now) {
            score += match self.definition.decay {
                Decay::Permanent => *weight,
                Decay::Exponential { half_life } => {
                    decayed(*weight, micros_now - at.as_micros(), micros(half_life))
                }
                Decay::Linear { lifetime } => {
                    let slice = at.as_micros() / slice_us(micros(lifetime));
                    linear((slice, *weight), micros_now, micros(lifetime))
                }
            };
        }
        Ok(score)
    }

    /// How many observations lie in the window before `now`, whole minutes or hours of the
    /// clock, of which the last is under way.
    ///
    /// # Errors
    ///
    /// As [`Signal::score`], and for a window that the definition does not keep.
    pub fn count(&self, window: Window, now: Timestamp) -> Result<u64> {
        self.definition.check_window(window)?;
        self.check_time(now)?;
        let (buckets, length, bucket_us) = match window {
            Window::AllTime => return Ok(self.count + self.seen(now).count() as u64),
            Window::Minutes(n) => (&self.minutes, n, MINUTE_US),
            Window::Hours(n) => (&self.hours, n, HOUR_US),
        };
        let bucket = |time: Timestamp| time.as_micros() / bucket_us;
        let passed = bucket(now).saturating_sub(bucket(self.newest));
        let counted = in_window(buckets.iter().copied(), length, passed);
        let inside = |held: &&Observation| bucket(now) - bucket(held.at) < u64::from(length);
        Ok(counted + self.seen(now).filter(inside).count() as u64)
    }

    /// Observations in a second, over the velocity's window before `now`.
    ///
    /// # Errors
    ///
    /// As [`Signal::score`].
    pub fn velocity(&self, now: Timestamp) -> Result<f64> {
        let window = self.definition.velocity;
        Ok(per_second(self.count(window, now)?, window))
    }

    /// Appends it as an encoded [`Value`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        Value::put_bytes_tag(out);
        out.push(VERSION);
        out.extend_from_slice(&self.score.to_le_bytes());
        out.extend_from_slice(&self.newest.as_micros().to_le_bytes());
        let next = self.ahead.first().map_or(u64::MAX, |held| held.at.as_micros());
        out.extend_from_slice(&next.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        self.definition.encode(out);
        for buckets in [&self.minutes, &self.hours] {
            put_varint(out, buckets.len() as u64);
            buckets.iter().for_each(|count| out.extend_from_slice(&count.to_le_bytes()));
        }
        put_varint(out, self.slices.len() as u64);
        let first = self.slices.first().map_or(0, |slice| slice.0);
        if !self.slices.is_empty() {
            put_varint(out, first);
        }
        for (slice, weight) in &self.slices {
            put_varint(out, first - slice);
            out.extend_from_slice(&weight.to_le_bytes());
        }
        put_varint(out, self.ahead.len() as u64);
        for held in &self.ahead {
            held.encode(out);
        }
    }

    /// Reads what [`Signal::encode`] wrote.
    pub fn decode(value: &[u8]) -> Result<Self> {
        let payload = Value::bytes_in(value).unwrap_or_default();
        let mut cursor = Cursor::new("signal", payload);
        if cursor.u8()? != VERSION {
            return Err(cursor.malformed("not a signal, or one of a later release"));
        }
        let score = f64::from_le_bytes(cursor.array()?);
        let newest = Timestamp::from_micros(cursor.u64()?);
        let (next, count) = (cursor.u64()?, cursor.u64()?);
        let definition = SignalDefinition::decode(&mut cursor)?;
        let buckets = |cursor: &mut Cursor<'_>| {
            let count = cursor.length()?;
            let bytes = cursor.take(count.saturating_mul(4))?;
            let word = |four: &[u8]| u32::from_le_bytes(four.try_into().expect("four bytes"));
            Ok::<_, crate::Error>(bytes.chunks_exact(4).map(word).collect())
        };
        let (minutes, hours) = (buckets(&mut cursor)?, buckets(&mut cursor)?);
        let mut slices = Vec::new();
        let many = cursor.length()?;
        let first = if many > 0 { cursor.varint()? } else { 0 };
        for _ in 0..many {
            let slice = first
                .checked_sub(cursor.varint()?)
                .ok_or_else(|| cursor.malformed("a slice before the first"))?;
            slices.push((slice, f64::from_le_bytes(cursor.array()?)));
        }
        let mut ahead = Vec::new();
        for _ in 0..cursor.length()? {
            ahead.push(Observation::decode(&mut cursor)?);
        }
        cursor.end()?;
        let signal = Self { definition, score, newest, count, minutes, hours, slices, ahead };
        signal.check()?;
        if next != signal.ahead.first().map_or(u64::MAX, |held| held.at.as_micros()) {
            return Err(cursor.malformed("another time of what is held back first"));
        }
        Ok(signal)
    }

    /// Refuses what no observations leave: for one that was put together by hand.
    pub fn check(&self) -> Result<()> {
        self.definition.check()?;
        self.ahead.iter().try_for_each(Observation::check)?;
        Observation { weight: 0.0, at: self.newest }.check()?;
        let in_order = self.ahead.is_sorted_by_key(|held| held.at)
            && self.slices.is_sorted_by(|a, b| a.0 > b.0);
        let ring = |buckets: &[u32], most: u32| {
            buckets.len() <= most as usize && buckets.last() != Some(&0)
        };
        let newest_slice = match self.definition.decay {
            Decay::Linear { lifetime } => {
                Some(self.newest.as_micros() / slice_us(micros(lifetime)))
            }
            _ => None,
        };
        let weights = self.slices.iter().map(|slice| slice.1).chain([self.score]);
        let sound = in_order
            && ring(&self.minutes, self.definition.minutes)
            && ring(&self.hours, self.definition.hours)
            && self.ahead.len() <= SIGNAL_AHEAD_MAX
            && self.slices.len() as u64 <= SLICES
            && self.slices.first().is_none_or(|slice| newest_slice.is_some_and(|n| slice.0 <= n))
            && weights.into_iter().all(|weight| weight.is_finite() && weight.is_sign_positive());
        if sound { Ok(()) } else { Err(invalid("no observations leave such a signal")) }
    }
}

/// Of `count` observations in `window`, how many come in a second. None do in a window that has
/// no length, which no velocity is taken over.
#[allow(clippy::cast_precision_loss, reason = "beyond 2^53 observations one is no matter")]
pub fn per_second(count: u64, window: Window) -> f64 {
    let seconds = match window {
        Window::Minutes(n) => f64::from(n) * 60.0,
        Window::Hours(n) => f64::from(n) * 3600.0,
        Window::AllTime => return 0.0,
    };
    count as f64 / seconds
}

/// What is left at `now` of the weight of a slice.
fn linear((slice, weight): (u64, f64), now: u64, lifetime: u64) -> f64 {
    let age = now.saturating_sub(slice.saturating_mul(slice_us(lifetime)));
    if age >= lifetime { 0.0 } else { weight * (1.0 - float(age) / float(lifetime)) }
}

/// Counts an observation at `at` in a ring whose first bucket is that of `newest`; a later one
/// moves the ring.
fn bump(buckets: &mut Vec<u32>, most: u32, bucket_us: u64, newest: u64, at: u64) {
    let (last, bucket, most) = (newest / bucket_us, at / bucket_us, most as usize);
    let steps = |steps: u64| usize::try_from(steps).unwrap_or(usize::MAX).min(most);
    let moved = steps(bucket.saturating_sub(last));
    if moved > 0 {
        buckets.truncate(most - moved);
        buckets.splice(0..0, std::iter::repeat_n(0, moved));
    }
    let index = steps(last.saturating_sub(bucket));
    if index < most {
        if buckets.len() <= index {
            buckets.resize(index + 1, 0);
        }
        buckets[index] = buckets[index].saturating_add(1);
    }
    trim(buckets);
}

fn trim(buckets: &mut Vec<u32>) {
    while buckets.last() == Some(&0) {
        buckets.pop();
    }
}

#[cfg(test)]
mod tests;
