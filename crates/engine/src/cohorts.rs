//! Cohorts: what is observed of the entities in them, all together.
//!
//! A cohort is a predicate over the attributes of entities, kept with a version like what signals
//! mean. An observation of an entity counts in the same transaction for every cohort that the
//! entity is in at that moment, as a delta like its own, so hot cohorts conflict with nothing.
//! What was counted stays: when attributes or a predicate change, nothing that was observed before
//! is counted again or taken back.
//!
//! All definitions are one record, so a transaction that relies on them relies on one key, and a
//! view of the past has the cohorts of the past.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use steadfast_core::cohort::{
    Attributes, CohortDefinition, Cohorts, Predicate, cohorts_key, ledger_key,
};
use steadfast_core::signal::{Observation, Signal, SignalDefinition, Window, score_in};
use steadfast_core::{CrashPoint, KeyRef, Record, Timestamp, Version, check_crash_point};

use crate::attributes::{self, Entities};
use crate::commit::Receipt;
use crate::database::Database;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::runs::Run;
use crate::schema;
use crate::source::Source;
use crate::transaction::Transaction;
use crate::view::View;

/// The definition of a cohort and what is known of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DefinedCohort {
    /// Its name.
    pub name: String,
    /// Who is in it.
    pub definition: CohortDefinition,
    /// The commit that wrote the definitions last.
    pub version: Version,
    /// When that was.
    pub timestamp: Timestamp,
}

/// What is remembered of the definitions.
#[derive(Debug, Default)]
pub(crate) struct KnownCohorts {
    /// Whether there may be any: observations of a database without cohorts read nothing.
    any: AtomicU8,
    /// As they were written last, as far as is known.
    decoded: RwLock<Option<(Version, Arc<Cohorts>)>>,
}

const NOT_LOOKED: u8 = 0;
const NONE: u8 = 1;
const SOME: u8 = 2;

impl KnownCohorts {
    /// What a record says, which need not be decoded if it was before.
    fn decode(&self, record: &Record) -> Result<Arc<Cohorts>> {
        let known = self.decoded.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((version, cohorts)) = known
            && version == record.version()
        {
            return Ok(cohorts);
        }
        let cohorts = Arc::new(decode(record)?);
        // What a transaction wrote itself has no version yet that tells it from others.
        if record.version() != Version::MAX {
            let known = (record.version(), cohorts.clone());
            *self.decoded.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
        }
        Ok(cohorts)
    }
}

/// The record of all definitions.
fn definitions(source: &mut impl Source) -> Result<Option<Record>> {
    source.record(KeyRef::from(&cohorts_key()?))
}

fn cohorts_in(source: &mut impl Source) -> Result<Cohorts> {
    let record = definitions(source)?;
    record.map_or(Ok(Cohorts::default()), |record| decode(&record))
}

fn decode(record: &Record) -> Result<Cohorts> {
    Ok(Cohorts::from_value(&record.value()?).map_err(|error| record.undecodable(error))?)
}

/// Entities of a cohort, in order, with their attributes.
#[derive(Debug)]
pub struct Members {
    entities: Entities,
    predicate: Predicate,
}

impl Iterator for Members {
    type Item = Result<(Vec<u8>, Attributes)>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self { entities, predicate } = self;
        entities.find(|row| match row {
            Ok((_, attributes)) => predicate.holds(attributes),
            Err(_) => true,
        })
    }
}

fn members(mut source: impl Source, run: Run, cohort: &str) -> Result<Members> {
    let cohorts = cohorts_in(&mut source)?;
    let definition = cohorts
        .find(cohort)
        .ok_or_else(|| Error::NotFound(format!("there is no cohort {cohort:?}")))?;
    let predicate = definition.predicate.clone();
    Ok(Members { entities: Entities::new(source, run, &[])?, predicate })
}

fn signal_in(
    source: &mut impl Source,
    run: Run,
    cohort: &str,
    signal: &str,
) -> Result<Option<Signal>> {
    source.check_run(run)?;
    let record = source.record(KeyRef::from(&ledger_key(run.namespace, cohort, signal)?))?;
    Ok(record.map(|record| Signal::decode(record.value_bytes())).transpose()?)
}

/// Asks what a cohort has of a signal; if that is nothing, a signal without observations.
fn ask<T>(
    mut source: impl Source,
    (run, cohort, signal): (Run, &str, &str),
    now: Timestamp,
    ask: impl FnOnce(&Signal, Timestamp) -> steadfast_core::Result<T>,
) -> Result<T> {
    let found = match signal_in(&mut source, run, cohort, signal)? {
        Some(found) => found,
        None => Signal::new(schema::definition(&mut source, signal)?),
    };
    Ok(ask(&found, found.not_before(now))?)
}

macro_rules! reads {
    ($of:ty, $self:ident, $again:expr, $($mutable:tt)+) => {
        impl $of {
            /// What the cohort `cohort` of `run` has of `signal`, if anything was counted.
            pub fn cohort_signal(
                $($mutable)+,
                run: Run,
                cohort: &str,
                signal: &str,
            ) -> Result<Option<Signal>> {
                let mut source = $again;
                signal_in(&mut source, run, cohort, signal)
            }

            /// The decayed sum of the weights that were counted for a cohort, at the time of this
            /// reading point; 0 if there were none.
            pub fn cohort_score($($mutable)+, run: Run, cohort: &str, signal: &str) -> Result<f64> {
                let now = $self.now();
                ask($again, (run, cohort, signal), now, Signal::score)
            }

            /// How many observations counted for a cohort lie in `window` before the time of this
            /// reading point.
            ///
            /// # Errors
            ///
            /// Kind `Invalid` for a window that the signal's definition does not keep.
            pub fn cohort_count(
                $($mutable)+,
                run: Run,
                cohort: &str,
                signal: &str,
                window: Window,
            ) -> Result<u64> {
                let now = $self.now();
                let count = |signal: &Signal, now| signal.count(window, now);
                ask($again, (run, cohort, signal), now, count)
            }

            /// Observations in a second that were counted for a cohort, over the window that the
            /// signal's definition names.
            pub fn cohort_velocity(
                $($mutable)+,
                run: Run,
                cohort: &str,
                signal: &str,
            ) -> Result<f64> {
                let now = $self.now();
                ask($again, (run, cohort, signal), now, Signal::velocity)
            }

            /// The entities of `run` that are in the cohort `cohort`, with their attributes, found
            /// by a scan of all attributes.
            ///
            /// # Errors
            ///
            /// Kind `NotFound` if there is no such cohort.
            pub fn cohort_members($($mutable)+, run: Run, cohort: &str) -> Result<Members> {
                members($again, run, cohort)
            }
        }
    };
}

reads!(View, self, self, &self);
reads!(Transaction, self, &mut *self, &mut self);

impl View {
    /// The definitions of cohorts, in the order of their names.
    pub fn cohort_definitions(&self) -> Result<Vec<DefinedCohort>> {
        let mut source = self;
        let Some(record) = definitions(&mut source)? else { return Ok(Vec::new()) };
        let cohorts = decode(&record)?;
        let (version, timestamp) = (record.version(), record.timestamp());
        let defined = cohorts.iter().map(|(name, definition)| {
            let (name, definition) = (name.to_owned(), definition.clone());
            DefinedCohort { name, definition, version, timestamp }
        });
        Ok(defined.collect())
    }

    /// Every kept version of what a cohort has of a signal up to this view, newest first, as
    /// entries.
    pub fn cohort_versions(&self, run: Run, cohort: &str, signal: &str) -> Result<Vec<Entry>> {
        self.entry_versions(run, &ledger_key(run.namespace, cohort, signal)?)
    }
}

impl Transaction {
    /// Says who is in the cohort `name`, in every run. Saying the same again changes nothing;
    /// another predicate is taken only with a higher version, and goes on with what the cohort
    /// has counted. (A new name counts from nothing.) `Predicate::Any` of nothing retires a
    /// cohort: nobody is in it.
    ///
    /// # Errors
    ///
    /// Kind `Conflict` if the name is defined otherwise with that version or a higher one;
    /// `Invalid` for what is outside of the limits.
    pub fn define_cohort(&mut self, name: &str, version: u32, predicate: &Predicate) -> Result<()> {
        if version == 0 {
            return Err(Error::Invalid("the version of a cohort is from 1 on".into()));
        }
        let wanted = CohortDefinition { version, predicate: predicate.clone() };
        match cohorts_in(&mut &mut *self)?.find(name) {
            Some(found) if *found == wanted => Ok(()),
            Some(found) if found.version >= version => Err(Error::Mismatch {
                what: format!("the definition of the cohort {name:?}"),
                expected: format!("{wanted:?}, or a version below"),
                found: format!("{found:?}"),
            }),
            _ => self.put_cohort(name, wanted),
        }
    }

    /// Writes a definition, whatever there was.
    pub(crate) fn put_cohort(&mut self, name: &str, definition: CohortDefinition) -> Result<()> {
        let mut cohorts = cohorts_in(&mut &mut *self)?;
        cohorts.set(name, definition)?;
        // Before it is committed: whoever records an observation after that looks.
        self.database().known_cohorts().any.store(SOME, Ordering::SeqCst);
        self.put_in_system(&cohorts_key()?, &cohorts.to_value())
    }

    /// Counts an observation of `entity` for the cohorts that it is in.
    pub(crate) fn observe_in_cohorts(
        &mut self,
        run: Run,
        signal: &str,
        entity: &[u8],
        definition: SignalDefinition,
        observation: Observation,
    ) -> Result<()> {
        if !self.database().may_have_cohorts()? {
            return Ok(());
        }
        let Some(record) = definitions(&mut &mut *self)? else { return Ok(()) };
        let cohorts = self.database().known_cohorts().decode(&record)?;
        let Some(attributes) = attributes::read(&mut &mut *self, run, entity)? else {
            return Ok(());
        };
        for (name, cohort) in cohorts.iter() {
            if cohort.predicate.holds(&attributes) {
                check_crash_point(CrashPoint::CohortLedgerUpdate);
                let key = ledger_key(run.namespace, name, signal)?;
                self.observe(&key, definition, observation)?;
            }
        }
        Ok(())
    }
}

impl Database {
    /// [`Transaction::define_cohort`] in a transaction of its own. An observation that is recorded
    /// while a database gets its first cohort may come before it.
    ///
    /// ```
    /// use steadfast_engine::{Attributes, Database, Predicate, Window};
    ///
    /// let db = Database::in_memory()?;
    /// let run = db.create_run("shop")?;
    /// let adult = Predicate::ge("age", 18).and(Predicate::is_in("country", ["de", "fr"]));
    /// db.define_cohort("adults", 1, &adult)?;
    /// db.attributes_set(run, "ada", [("age".into(), 36.into()), ("country".into(), "fr".into())].into())?;
    /// db.signal_record(run, "view", "ada", 1.0)?;
    /// db.signal_record(run, "view", "nobody", 1.0)?;
    /// assert_eq!(db.cohort_count(run, "adults", "view", Window::Hours(1))?, 1);
    /// # Ok::<(), steadfast_engine::Error>(())
    /// ```
    pub fn define_cohort(
        &self,
        name: &str,
        version: u32,
        predicate: &Predicate,
    ) -> Result<Receipt> {
        self.transaction(|tx| tx.define_cohort(name, version, predicate)).map(|done| done.1)
    }

    /// What the cohort `cohort` of `run` has of `signal`, if anything was counted.
    pub fn cohort_signal(&self, run: Run, cohort: &str, signal: &str) -> Result<Option<Signal>> {
        let record = self.latest(run, KeyRef::from(&ledger_key(run.namespace, cohort, signal)?))?;
        Ok(record.map(|record| Signal::decode(record.value_bytes())).transpose()?)
    }

    /// The decayed sum of the weights that were counted for a cohort, now; 0 if there were none.
    pub fn cohort_score(&self, run: Run, cohort: &str, signal: &str) -> Result<f64> {
        match self.latest(run, KeyRef::from(&ledger_key(run.namespace, cohort, signal)?))? {
            Some(record) => Ok(score_in(record.value_bytes(), None, self.now())?),
            None => Ok(0.0),
        }
    }

    /// [`View::cohort_count`] of a view opened now.
    pub fn cohort_count(
        &self,
        run: Run,
        cohort: &str,
        signal: &str,
        window: Window,
    ) -> Result<u64> {
        self.view()?.cohort_count(run, cohort, signal, window)
    }

    /// [`View::cohort_velocity`] of a view opened now.
    pub fn cohort_velocity(&self, run: Run, cohort: &str, signal: &str) -> Result<f64> {
        self.view()?.cohort_velocity(run, cohort, signal)
    }

    /// [`View::cohort_members`] of a view opened now.
    pub fn cohort_members(&self, run: Run, cohort: &str) -> Result<Members> {
        self.view()?.cohort_members(run, cohort)
    }

    /// Whether an observation may have to count for a cohort.
    pub(crate) fn may_have_cohorts(&self) -> Result<bool> {
        let any = &self.known_cohorts().any;
        if any.load(Ordering::SeqCst) == NOT_LOOKED {
            let view = self.view()?;
            let found = if definitions(&mut &view)?.is_some() { SOME } else { NONE };
            // Whoever has defined one meanwhile knows better.
            let _ = any.compare_exchange(NOT_LOOKED, found, Ordering::SeqCst, Ordering::SeqCst);
        }
        Ok(any.load(Ordering::SeqCst) == SOME)
    }
}
