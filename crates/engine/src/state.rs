//! State cells: one value that moves by comparison with its version.

use steadfast_core::{Key, KeyRef, TypeTag, Value, Version, VersionedValue};

use crate::commit::Receipt;
use crate::database::Database;
use crate::error::Result;
use crate::kv::decode;
use crate::runs::Run;
use crate::source::Source;
use crate::transaction::Transaction;
use crate::view::View;

fn key(run: Run, cell: &str) -> Result<Key> {
    Ok(Key::new(run.namespace, TypeTag::State, cell.as_bytes())?)
}

fn read(mut source: impl Source, run: Run, cell: &str) -> Result<Option<VersionedValue>> {
    source.check_run(run)?;
    decode(source.record(KeyRef::from(&key(run, cell)?))?)
}

impl View {
    /// The value of `cell` in `run`, if it was initialised.
    pub fn state_read(&self, run: Run, cell: &str) -> Result<Option<VersionedValue>> {
        read(self, run, cell)
    }

    /// Every kept version of `cell` up to this view, newest first.
    pub fn state_history(&self, run: Run, cell: &str) -> Result<Vec<VersionedValue>> {
        let versions = self.clone().versions_of(&key(run, cell)?, run)?;
        Ok(versions.into_iter().filter_map(|(_, value)| value).collect())
    }
}

impl Transaction {
    /// The value of `cell` in `run` as this transaction sees it.
    pub fn state_read(&mut self, run: Run, cell: &str) -> Result<Option<VersionedValue>> {
        read(self, run, cell)
    }

    /// Gives `cell` its first value.
    ///
    /// # Errors
    ///
    /// Kind `Conflict` if it has one.
    pub fn state_init(&mut self, run: Run, cell: &str, value: impl Into<Value>) -> Result<()> {
        self.state_cas(run, cell, Version::ZERO, value)
    }

    /// Gives `cell` a value, whatever it had.
    pub fn state_set(&mut self, run: Run, cell: &str, value: impl Into<Value>) -> Result<()> {
        self.put(run, &key(run, cell)?, &value.into(), None)
    }

    /// Gives `cell` a value if its version is `expected`; [`Version::ZERO`] expects that it
    /// has none.
    ///
    /// # Errors
    ///
    /// Kind `Conflict` if its version is another.
    pub fn state_cas(
        &mut self,
        run: Run,
        cell: &str,
        expected: Version,
        value: impl Into<Value>,
    ) -> Result<()> {
        let key = key(run, cell)?;
        self.expect_version(run, &key, "state cell", cell.as_bytes(), expected)?;
        self.put(run, &key, &value.into(), None)
    }

    /// Gives `cell` the value that `step` makes of the one it has, if it has one. Returns the
    /// new value.
    pub fn state_transition(
        &mut self,
        run: Run,
        cell: &str,
        step: impl FnOnce(Option<&Value>) -> Result<Value>,
    ) -> Result<Value> {
        let found = self.state_read(run, cell)?;
        let value = step(found.as_ref().map(|found| &found.value))?;
        self.state_set(run, cell, value.clone())?;
        Ok(value)
    }
}

impl Database {
    /// The newest value of `cell` in `run`, if it was initialised.
    pub fn state_read(&self, run: Run, cell: &str) -> Result<Option<VersionedValue>> {
        decode(self.latest(run, KeyRef::from(&key(run, cell)?))?)
    }

    /// [`Transaction::state_init`] in a transaction of its own.
    pub fn state_init(&self, run: Run, cell: &str, value: impl Into<Value>) -> Result<Receipt> {
        self.state_cas(run, cell, Version::ZERO, value)
    }

    /// [`Transaction::state_set`] in a transaction of its own.
    pub fn state_set(&self, run: Run, cell: &str, value: impl Into<Value>) -> Result<Receipt> {
        let (key, value) = (key(run, cell)?, value.into());
        self.write_blind(run, |writes| writes.put(&key, &value, None))
    }

    /// [`Transaction::state_cas`] in a transaction of its own.
    pub fn state_cas(
        &self,
        run: Run,
        cell: &str,
        expected: Version,
        value: impl Into<Value>,
    ) -> Result<Receipt> {
        let value = value.into();
        self.transaction(|tx| tx.state_cas(run, cell, expected, value.clone())).map(|done| done.1)
    }
    /// [`Transaction::state_transition`] in a transaction of its own, which starts again when
    /// another one came in between: `step` may run several times, and should only compute.
    /// Returns the new value and the receipt.
    pub fn state_transition(
        &self,
        run: Run,
        cell: &str,
        mut step: impl FnMut(Option<&Value>) -> Result<Value>,
    ) -> Result<(Value, Receipt)> {
        self.transaction(|tx| tx.state_transition(run, cell, &mut step))
    }

    /// [`View::state_history`] of a view opened now.
    pub fn state_history(&self, run: Run, cell: &str) -> Result<Vec<VersionedValue>> {
        self.view()?.state_history(run, cell)
    }
}
