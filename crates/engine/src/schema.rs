//! What the signals of a database mean: definitions by name, kept in the database itself.
//!
//! A definition is ordinary data in the database's own namespace. Each observation takes the
//! definition of its name along into the log, and each signal keeps the one it was made with, so
//! neither replay nor a read has to look for it.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use steadfast_core::signal::{Decay, SignalDefinition, Window, check_signal_name};
use steadfast_core::{Key, KeyRef, NamespaceId, Record, Timestamp, TypeTag, Version, prefix_end};

use crate::commit::Receipt;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::source::Source;
use crate::transaction::Transaction;
use crate::view::View;

/// More names than this are not kept at hand.
const KNOWN_MAX: usize = 10_000;

/// Says what signals keep, for [`Database::define_signals`].
///
/// ```
/// use std::time::Duration;
/// use steadfast_engine::{Database, Decay, SchemaBuilder, Window};
///
/// let schema = SchemaBuilder::signal("view")
///     .windows([Window::Minutes(60), Window::Hours(24), Window::AllTime])
///     .velocity(Window::Minutes(5))
///     .decay(Decay::Exponential { half_life: Duration::from_secs(7 * 24 * 3600) })
///     .and_signal("purchase")
///     .decay(Decay::Permanent);
/// let db = Database::in_memory()?;
/// db.define_signals(schema)?;
/// let run = db.create_run("shop")?;
/// db.signal_record(run, "view", "item-7", 1.0)?;
/// assert_eq!(db.signal_count(run, "view", "item-7", Window::Hours(1))?, 1);
/// # Ok::<(), steadfast_engine::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a schema does nothing until a database is told"]
pub struct SchemaBuilder {
    done: Vec<(String, SignalDefinition)>,
    name: String,
    definition: SignalDefinition,
    velocity: Option<Window>,
}

impl SchemaBuilder {
    /// Begins with the signal `name`, of version 1, with a half-life of 7 days, 60 minutes, 24
    /// hours and a velocity over 60 minutes.
    pub fn signal(name: &str) -> Self {
        let definition = SignalDefinition { version: 1, ..SignalDefinition::default() };
        Self { done: Vec::new(), name: name.to_owned(), definition, velocity: None }
    }

    /// Goes on with another signal.
    pub fn and_signal(self, name: &str) -> Self {
        let begun = Self::signal(name);
        Self { done: self.definitions(), ..begun }
    }

    /// The windows in which it is counted: the longest by the minute and by the hour say how
    /// many of those are kept. From the first observation on is always counted.
    pub fn windows(mut self, windows: impl IntoIterator<Item = Window>) -> Self {
        (self.definition.minutes, self.definition.hours) = (0, 0);
        for window in windows {
            match window {
                Window::Minutes(n) => self.definition.minutes = self.definition.minutes.max(n),
                Window::Hours(n) => self.definition.hours = self.definition.hours.max(n),
                Window::AllTime => {}
            }
        }
        self
    }

    /// The window over which its velocity is taken, which is kept whatever the windows are.
    /// Otherwise it is the longest by the minute, up to an hour.
    pub const fn velocity(mut self, window: Window) -> Self {
        self.velocity = Some(window);
        self
    }

    /// How weights fade.
    pub const fn decay(mut self, decay: Decay) -> Self {
        self.definition.decay = decay;
        self
    }

    /// The version of the definition. To change a definition, give it a higher one.
    pub const fn version(mut self, version: u32) -> Self {
        self.definition.version = version;
        self
    }

    fn definitions(mut self) -> Vec<(String, SignalDefinition)> {
        let definition = &mut self.definition;
        definition.velocity = self.velocity.unwrap_or(match definition.minutes {
            0 if definition.hours > 0 => Window::Hours(1),
            minutes => Window::Minutes(minutes.clamp(1, 60)),
        });
        match definition.velocity {
            Window::Minutes(n) => definition.minutes = definition.minutes.max(n),
            Window::Hours(n) => definition.hours = definition.hours.max(n),
            Window::AllTime => {}
        }
        self.done.push((self.name, self.definition));
        self.done
    }
}

/// The definition of a signal and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DefinedSignal {
    /// Its name.
    pub name: String,
    /// What it keeps.
    pub definition: SignalDefinition,
    /// The commit that wrote this.
    pub version: Version,
    /// When that was.
    pub timestamp: Timestamp,
}

/// Definitions that were looked up.
#[derive(Debug, Default)]
pub(crate) struct Definitions(RwLock<HashMap<String, SignalDefinition>>);

impl Definitions {
    fn find(&self, name: &str) -> Option<SignalDefinition> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<String, SignalDefinition>)) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        change(&mut known);
    }
}

fn key(name: &str) -> Result<Key> {
    check_signal_name(name)?;
    Ok(Key::new(NamespaceId::SYSTEM, TypeTag::Signal, name.as_bytes())?)
}

fn decode(record: &Record) -> Result<DefinedSignal> {
    let name = String::from_utf8_lossy(Key::user_part(record.key())).into_owned();
    let definition = SignalDefinition::from_value(&record.value()?)
        .map_err(|error| record.undecodable(error))?;
    let (version, timestamp) = (record.version(), record.timestamp());
    Ok(DefinedSignal { name, definition, version, timestamp })
}

/// What `name` means to whoever reads from `source`.
pub(crate) fn definition(source: &mut impl Source, name: &str) -> Result<SignalDefinition> {
    let record = source.record(KeyRef::from(&key(name)?))?;
    record.map_or(Ok(SignalDefinition::default()), |record| Ok(decode(&record)?.definition))
}

impl View {
    /// The definitions of signals, in the order of their names.
    pub fn signal_definitions(&self) -> Result<Vec<DefinedSignal>> {
        let start = Key::first_of(NamespaceId::SYSTEM, TypeTag::Signal).as_bytes().to_vec();
        let end = prefix_end(&start);
        let mut source = self;
        source.rows(start, end).map(|row| decode(&row?)).collect()
    }
}

impl Transaction {
    /// Writes a definition, whatever there was.
    pub(crate) fn put_definition(
        &mut self,
        name: &str,
        definition: &SignalDefinition,
    ) -> Result<()> {
        definition.check()?;
        self.put_in_system(&key(name)?, &definition.to_value())
    }
}

impl Database {
    /// Says what signals mean, in one transaction. A name that has no definition means
    /// [`SignalDefinition::default`]. Saying the same again changes nothing; another definition
    /// is taken only with a higher version. A signal takes a new definition over with its next
    /// observation: its score goes on from what it is then, its counts as far as both
    /// definitions keep them.
    ///
    /// # Errors
    ///
    /// Kind `Conflict` if a name is defined otherwise with that version or a higher one;
    /// `Invalid` for what is outside of the limits.
    pub fn define_signals(&self, schema: SchemaBuilder) -> Result<Receipt> {
        let definitions = schema.definitions();
        let (_, receipt) = self.transaction(|tx| {
            for (name, wanted) in &definitions {
                wanted.check()?;
                let found = tx
                    .record(KeyRef::from(&key(name)?))?
                    .map(|record| decode(&record))
                    .transpose()?;
                let found = found.map(|found| found.definition);
                match found {
                    Some(found) if found == *wanted => {}
                    Some(found) if found.version >= wanted.version => {
                        return Err(Error::Mismatch {
                            what: format!("the definition of the signal {name:?}"),
                            expected: format!("{wanted:?}, or a version below"),
                            found: format!("{found:?}"),
                        });
                    }
                    _ if wanted.version == 0 => {
                        let text = "the version of a signal's definition is from 1 on";
                        return Err(Error::Invalid(text.into()));
                    }
                    _ => tx.put_definition(name, wanted)?,
                }
            }
            Ok(())
        })?;
        self.definitions().change(|known| {
            for (name, new) in &definitions {
                let known = known.entry(name.clone()).or_insert(*new);
                if known.version <= new.version {
                    *known = *new;
                }
            }
        });
        Ok(receipt)
    }

    /// What the signal `name` means now.
    pub fn signal_definition(&self, name: &str) -> Result<SignalDefinition> {
        if let Some(known) = self.definitions().find(name) {
            return Ok(known);
        }
        let view = self.view()?;
        let found = definition(&mut &view, name)?;
        // Who has defined it meanwhile knows better.
        self.definitions().change(|known| {
            known.entry(name.to_owned()).or_insert(found);
        });
        Ok(found)
    }

    /// Forgets what was looked up, after definitions came in from elsewhere.
    pub(crate) fn forget_definitions(&self) {
        self.definitions().change(HashMap::clear);
    }
}
