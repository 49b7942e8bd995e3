//! Signals: decaying scores, windowed counts and velocities of entities, from observations that
//! are written without being read.
//!
//! A write is a delta, so it conflicts with no other write of the same signal. What is read is
//! the fold of all deltas in the order of their versions; see [`steadfast_core::signal`].

use steadfast_core::limits::SIGNAL_OBSERVATIONS_MAX;
use steadfast_core::signal::{
    Delta, Observation, Signal, SignalDefinition, Window, count_in, fold, per_second, score_in,
    signal_key, signal_of, signal_prefix, with_signal_key,
};
use steadfast_core::{
    Key, KeyRef, Record, RecordBuilder, Timestamp, Version, WriteSet, prefix_end,
};

use crate::commit::Receipt;
use crate::database::Database;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::runs::Run;
use crate::schema;
use crate::source::{Rows, Source};
use crate::transaction::Transaction;
use crate::view::View;

fn key(run: Run, name: &str, entity: impl AsRef<[u8]>) -> Result<Key> {
    Ok(signal_key(run.namespace, name, entity.as_ref())?)
}

/// Reads the record of a signal.
pub(crate) fn decode_signal(record: &Record) -> Result<Signal> {
    Ok(Signal::decode(record.value_bytes()).map_err(|error| record.undecodable(error))?)
}

fn score_of(record: &Record, now: Option<Timestamp>, clock: Timestamp) -> Result<f64> {
    said(record, score_in(record.value_bytes(), now, clock))
}

/// What was read in `record`; if it cannot be read because it is no signal, that.
fn said<T>(record: &Record, read: steadfast_core::Result<T>) -> Result<T> {
    read.or_else(|error| {
        decode_signal(record)?;
        Err(error.into())
    })
}

fn observation(weight: f64, at: Timestamp) -> Result<Observation> {
    let observation = Observation { weight, at };
    observation.check()?;
    Ok(observation)
}

/// Where a read looks, and when.
struct At<'a, S> {
    source: S,
    run: Run,
    name: &'a str,
    entity: &'a [u8],
    now: Timestamp,
}

impl<S: Source> At<'_, S> {
    #[inline(always)]
    fn record(&mut self) -> Result<Option<Record>> {
        self.source.check_run(self.run)?;
        let source = &mut self.source;
        with_signal_key(self.run.namespace, self.name, self.entity, |key| {
            source.record(KeyRef::from(key))
        })?
    }

    fn signal(&mut self) -> Result<Option<Signal>> {
        self.record()?.map(|record| decode_signal(&record)).transpose()
    }

    fn score(mut self) -> Result<f64> {
        let record = self.record()?;
        record.map_or(Ok(0.0), |record| score_of(&record, None, self.now))
    }

    /// How many there are in a window, or in that of the velocity, and which window it is.
    fn count(mut self, window: Option<Window>) -> Result<(u64, Window)> {
        if let Some(record) = self.record()? {
            return said(&record, count_in(record.value_bytes(), window, self.now));
        }
        none_in(&schema::definition(&mut self.source, self.name)?, window)
    }

    fn velocity(self) -> Result<f64> {
        let (count, window) = self.count(None)?;
        Ok(per_second(count, window))
    }
}

/// The count of what was never observed.
fn none_in(definition: &SignalDefinition, window: Option<Window>) -> Result<(u64, Window)> {
    let window = window.unwrap_or(definition.velocity);
    definition.check_window(window)?;
    Ok((0, window))
}

macro_rules! reads {
    ($of:ty, $self:ident, $($mutable:tt)+) => {
        impl $of {
            /// Everything that is known of the signal `name` of `entity` in `run`, if it was
            /// ever observed.
            pub fn signal(
                $($mutable)+,
                run: Run,
                name: &str,
                entity: impl AsRef<[u8]>,
            ) -> Result<Option<Signal>> {
                let (entity, now) = (entity.as_ref(), $self.now());
                At { source: $self, run, name, entity, now }.signal()
            }

            /// The decayed sum of the weights of the signal `name` of `entity` in `run`, at the
            /// time of this reading point; 0 if it was never observed.
            pub fn signal_score(
                $($mutable)+,
                run: Run,
                name: &str,
                entity: impl AsRef<[u8]>,
            ) -> Result<f64> {
                let (entity, now) = (entity.as_ref(), $self.now());
                At { source: $self, run, name, entity, now }.score()
            }

            /// How many observations of the signal lie in `window` before the time of this
            /// reading point. One that is later is not counted; one that was older than every
            /// window when it was recorded counts in [`Window::AllTime`] only.
            ///
            /// # Errors
            ///
            /// Kind `Invalid` for a window that the signal's definition does not keep.
            pub fn signal_count(
                $($mutable)+,
                run: Run,
                name: &str,
                entity: impl AsRef<[u8]>,
                window: Window,
            ) -> Result<u64> {
                let (entity, now) = (entity.as_ref(), $self.now());
                let at = At { source: $self, run, name, entity, now };
                at.count(Some(window)).map(|(count, _)| count)
            }

            /// Observations in a second, over the window that the signal's definition names.
            pub fn signal_velocity(
                $($mutable)+,
                run: Run,
                name: &str,
                entity: impl AsRef<[u8]>,
            ) -> Result<f64> {
                let (entity, now) = (entity.as_ref(), $self.now());
                At { source: $self, run, name, entity, now }.velocity()
            }
        }
    };
}

reads!(View, self, &self);
reads!(Transaction, self, &mut self);

/// Signals of one name, in the order of their entities, from both ends.
pub struct Signals(Rows);

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signals")
    }
}

impl Signals {
    fn item(row: Result<Record>) -> Result<(Vec<u8>, Signal)> {
        let record = row?;
        let (_, entity) =
            signal_of(record.key()).ok_or_else(|| record.undecodable("it is of no signal"))?;
        Ok((entity, decode_signal(&record)?))
    }
}

impl Iterator for Signals {
    type Item = Result<(Vec<u8>, Signal)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Self::item)
    }
}

impl DoubleEndedIterator for Signals {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back().map(Self::item)
    }
}

fn scan(mut source: impl Source, run: Run, name: &str) -> Result<Signals> {
    source.check_run(run)?;
    let start = signal_prefix(run.namespace, name)?;
    let end = prefix_end(&start);
    Ok(Signals(source.rows(start, end)))
}

impl View {
    /// The signals `name` of all entities of `run`.
    pub fn signal_scan(&self, run: Run, name: &str) -> Result<Signals> {
        scan(self, run, name)
    }

    /// Every kept version of a signal up to this view, newest first, as entries.
    pub fn signal_versions(
        &self,
        run: Run,
        name: &str,
        entity: impl AsRef<[u8]>,
    ) -> Result<Vec<Entry>> {
        Source::check_run(&self, run)?;
        let versions = self.records_of(key(run, name, entity)?.as_bytes())?;
        versions.iter().filter_map(|record| Entry::decode(record).transpose()).collect()
    }
}

impl Transaction {
    /// Records that `entity` was observed now, with `weight`; for the cohorts that it is in too.
    /// Reads no signal, so it conflicts with no other observation; where there are cohorts, with
    /// changes of the attributes of `entity`.
    ///
    /// # Errors
    ///
    /// Kind `Invalid` for a weight that is not from 0 to
    /// [`SIGNAL_WEIGHT_MAX`](steadfast_core::limits::SIGNAL_WEIGHT_MAX), NaN included.
    pub fn signal_record(
        &mut self,
        run: Run,
        name: &str,
        entity: impl AsRef<[u8]>,
        weight: f64,
    ) -> Result<()> {
        self.signal_record_at(run, name, entity, weight, self.now())
    }

    /// Records that `entity` was observed at a time, which may be before others that were
    /// recorded earlier. One that is ahead of the clock counts once the clock has come to it.
    ///
    /// # Errors
    ///
    /// As [`Transaction::signal_record`], and for a time after the year 9999.
    pub fn signal_record_at(
        &mut self,
        run: Run,
        name: &str,
        entity: impl AsRef<[u8]>,
        weight: f64,
        at: Timestamp,
    ) -> Result<()> {
        let observation = observation(weight, at)?;
        self.check_run(run)?;
        let (key, entity) = (key(run, name, &entity)?, entity.as_ref());
        let definition = self.database().signal_definition(name)?;
        self.observe(&key, definition, observation)?;
        self.observe_in_cohorts(run, name, entity, definition, observation)
    }

    /// The signals `name` of all entities of `run`, as this transaction sees them now.
    pub fn signal_scan(&mut self, run: Run, name: &str) -> Result<Signals> {
        scan(self, run, name)
    }
}

/// What own observations of a transaction make of the committed value of their key.
pub(crate) fn fold_own(
    base: Option<&Record>,
    key: &[u8],
    delta: &Delta,
    now: Timestamp,
) -> Result<Record> {
    let mut bytes = key.to_vec();
    bytes.extend(delta.encode()?);
    let builder = RecordBuilder { version: Version::MAX, timestamp: now, expiry: None };
    let delta = builder.delta(&bytes, key.len());
    fold(base, &delta).ok_or_else(|| Error::Invalid("a version above all".into()))
}

/// Adds an observation to those that a transaction has made of one key already.
pub(crate) fn push_own(delta: &mut Delta, observation: Observation) -> Result<()> {
    if delta.observations.len() >= SIGNAL_OBSERVATIONS_MAX {
        return Err(Error::Invalid(format!(
            "a transaction records at most {SIGNAL_OBSERVATIONS_MAX} observations of one signal \
             and entity"
        )));
    }
    delta.observations.push(observation);
    Ok(())
}

impl Database {
    /// [`Transaction::signal_record`] in a transaction of its own.
    pub fn signal_record(
        &self,
        run: Run,
        name: &str,
        entity: impl AsRef<[u8]>,
        weight: f64,
    ) -> Result<Receipt> {
        self.signal_record_at(run, name, entity, weight, self.now())
    }

    /// [`Transaction::signal_record_at`] in a transaction of its own.
    pub fn signal_record_at(
        &self,
        run: Run,
        name: &str,
        entity: impl AsRef<[u8]>,
        weight: f64,
        at: Timestamp,
    ) -> Result<Receipt> {
        let observation = observation(weight, at)?;
        let entity = entity.as_ref();
        let may_lie_beneath = || {
            let key = key(run, name, entity)?;
            Ok::<_, Error>(self.view()?.inner.newest(key.as_bytes())?.is_none())
        };
        // What lies beneath a fork has to come into it first.
        let is_forked = self.namespaces().has_ancestors(run.namespace);
        if self.may_have_cohorts()? || (is_forked && may_lie_beneath()?) {
            let record = |tx: &mut Transaction| tx.signal_record_at(run, name, entity, weight, at);
            return self.transaction(record).map(|done| done.1);
        }
        let definition = self.signal_definition(name)?;
        let delta = Delta::encode_parts(&definition, &[observation])?;
        self.write_blind(run, |writes: &mut WriteSet| {
            with_signal_key(run.namespace, name, entity, |key| writes.delta(key, &delta))?
        })
    }

    #[inline(always)]
    fn latest_signal(&self, run: Run, name: &str, entity: &[u8]) -> Result<Option<Record>> {
        let find = |key: &[u8]| self.latest(run, KeyRef::from(key));
        with_signal_key(run.namespace, name, entity, find)?
    }

    /// Everything that is known of the signal `name` of `entity` in `run`, if it was ever
    /// observed.
    pub fn signal(&self, run: Run, name: &str, entity: impl AsRef<[u8]>) -> Result<Option<Signal>> {
        let record = self.latest_signal(run, name, entity.as_ref())?;
        record.map(|record| decode_signal(&record)).transpose()
    }

    /// The decayed sum of the weights of the signal now; 0 if it was never observed.
    pub fn signal_score(&self, run: Run, name: &str, entity: impl AsRef<[u8]>) -> Result<f64> {
        // Reading the clock waits for what was asked before it: it does so before the lookup,
        // which then goes on beside.
        let now = self.now();
        match self.latest_signal(run, name, entity.as_ref())? {
            Some(record) => score_of(&record, None, now),
            None => Ok(0.0),
        }
    }

    /// The same at the time `now`.
    ///
    /// # Errors
    ///
    /// Kind `Invalid` if an observation that was counted is later than `now`: what it was then is
    /// known to a view of that time, see [`Database::view_at_time`].
    pub fn signal_score_at(
        &self,
        run: Run,
        name: &str,
        entity: impl AsRef<[u8]>,
        now: Timestamp,
    ) -> Result<f64> {
        match self.latest_signal(run, name, entity.as_ref())? {
            Some(record) => score_of(&record, Some(now), now),
            None => Ok(0.0),
        }
    }

    /// [`View::signal_count`] now.
    pub fn signal_count(
        &self,
        run: Run,
        name: &str,
        entity: impl AsRef<[u8]>,
        window: Window,
    ) -> Result<u64> {
        self.count_signal(run, name, entity.as_ref(), Some(window)).map(|(count, _)| count)
    }

    /// [`View::signal_velocity`] now.
    pub fn signal_velocity(&self, run: Run, name: &str, entity: impl AsRef<[u8]>) -> Result<f64> {
        let (count, window) = self.count_signal(run, name, entity.as_ref(), None)?;
        Ok(per_second(count, window))
    }

    fn count_signal(
        &self,
        run: Run,
        name: &str,
        entity: &[u8],
        window: Option<Window>,
    ) -> Result<(u64, Window)> {
        match self.latest_signal(run, name, entity)? {
            Some(record) => Ok(count_in(record.value_bytes(), window, self.now())?),
            None => none_in(&self.signal_definition(name)?, window),
        }
    }
}

/// The delta that begins with one observation.
pub(crate) fn first_own(definition: SignalDefinition) -> Delta {
    Delta { definition, observations: Vec::new() }
}
