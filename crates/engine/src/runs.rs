//! Runs: isolated spaces of data, by name.
//!
//! The run index is ordinary data in the database's own namespace: creating a run is a write
//! of its transaction like any other, and is lost or kept with it.

use std::collections::BTreeMap;

use steadfast_core::{
    Key, KeyRef, Namespace, NamespaceId, Record, RunId, Timestamp, TypeTag, Value, Version,
    check_name, prefix_end,
};

use crate::commit::Receipt;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::namespaces::Namespaces;
use crate::source::Source;
use crate::transaction::Transaction;
use crate::view::View;

/// A handle to a run of one opened database. Cheap to copy; good for as long as the run is there
/// and the database is open. After opening again it is to be resolved anew, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Run {
    pub(crate) id: RunId,
    pub(crate) namespace: NamespaceId,
}

impl Run {
    /// The run's id, the same in every copy of the database.
    pub const fn id(&self) -> RunId {
        self.id
    }
}

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RunStatus {
    /// It goes on.
    #[default]
    Active,
}

impl RunStatus {
    /// Its name, as stored and shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
        }
    }

    /// The status with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        (name == "active").then_some(Self::Active)
    }
}

impl std::fmt::Display for RunStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What the run index says of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunInfo {
    /// The handle.
    pub run: Run,
    /// The id.
    pub id: RunId,
    /// The name, unique in the database.
    pub name: String,
    /// What became of it.
    pub status: RunStatus,
    /// When it was created.
    pub created: Timestamp,
    /// The commit that wrote this.
    pub version: Version,
}

pub(crate) fn index_key(name: &str) -> Result<Key> {
    check_name("run", name)?;
    Ok(Key::new(NamespaceId::SYSTEM, TypeTag::Run, name.as_bytes())?)
}

/// The value of a run's entry in the index.
fn index_value(run: Run, status: RunStatus, created: Timestamp) -> Value {
    let mut value = BTreeMap::new();
    value.insert("id".to_owned(), Value::from(&run.id.to_bytes()));
    value.insert("namespace".to_owned(), Value::from(run.namespace.0));
    value.insert("status".to_owned(), Value::from(status.name()));
    let created = i64::try_from(created.as_micros()).unwrap_or(i64::MAX);
    value.insert("created".to_owned(), Value::from(created));
    Value::Map(value)
}

pub(crate) fn decode_info(record: &Record) -> Result<RunInfo> {
    let malformed = || Error::Invalid(format!("{record:?} is not an entry of the run index"));
    let Value::Map(value) = record.value()? else { return Err(malformed()) };
    let info = || {
        let id = RunId::from_bytes(value.get("id")?.as_bytes()?.try_into().ok()?);
        let namespace = u32::try_from(value.get("namespace")?.as_int()?).ok()?;
        let created = u64::try_from(value.get("created")?.as_int()?).ok()?;
        Some(RunInfo {
            run: Run { id, namespace: NamespaceId(namespace) },
            id,
            name: std::str::from_utf8(Key::user_part(record.key())).ok()?.to_owned(),
            status: RunStatus::from_name(value.get("status")?.as_str()?)?,
            created: Timestamp::from_micros(created),
            version: record.version(),
        })
    };
    info().ok_or_else(malformed)
}

fn resolve(
    mut source: impl Source,
    namespaces: &Namespaces,
    name: &str,
) -> Result<Option<RunInfo>> {
    let Some(record) = source.record(KeyRef::from(&index_key(name)?))? else { return Ok(None) };
    let info = decode_info(&record)?;
    // A transaction's own run becomes live with its commit.
    if record.version() != Version::MAX {
        namespaces.set_live(info.run.namespace);
    }
    Ok(Some(info))
}

fn not_found(name: &str) -> Error {
    Error::NotFound(format!("there is no run named {name:?}"))
}

impl View {
    /// The run named `name`.
    ///
    /// # Errors
    ///
    /// Kind `NotFound` if there is none.
    pub fn resolve_run(&self, name: &str) -> Result<Run> {
        let info = resolve(self, &self.namespaces, name)?;
        info.map(|info| info.run).ok_or_else(|| not_found(name))
    }

    /// Every run, in the order of names.
    pub fn list_runs(&self) -> Result<Vec<RunInfo>> {
        let start = Key::first_of(NamespaceId::SYSTEM, TypeTag::Run).as_bytes().to_vec();
        let end = prefix_end(&start);
        let mut source = self;
        let mut runs = Vec::new();
        for row in source.rows(start, end) {
            let info = decode_info(&row?)?;
            self.namespaces.set_live(info.run.namespace);
            runs.push(info);
        }
        Ok(runs)
    }
}

impl Transaction {
    /// Creates a run, together with whatever else this transaction does.
    ///
    /// # Errors
    ///
    /// Kind `Conflict` if there is a run of that name.
    pub fn create_run(&mut self, name: &str) -> Result<Run> {
        let key = index_key(name)?;
        if self.record(KeyRef::from(&key))?.is_some() {
            return Err(Error::Mismatch {
                what: format!("run {name}"),
                expected: "absent".into(),
                found: "a run of that name".into(),
            });
        }
        let id = RunId::new(self.now(), self.database().entropy());
        self.add_run(name, &Namespace::for_run(id), RunStatus::Active, self.now())
    }

    /// Puts an imported run into the index, if its name is free.
    pub(crate) fn add_imported(
        &mut self,
        name: &str,
        namespace: &Namespace,
        info: &RunInfo,
    ) -> Result<Run> {
        if self.record(KeyRef::from(&index_key(name)?))?.is_some() {
            return Err(Error::Mismatch {
                what: format!("run {name}"),
                expected: "absent".into(),
                found: "a run of that name".into(),
            });
        }
        self.add_run(name, namespace, info.status, info.created)
    }

    /// Puts a run into the index.
    pub(crate) fn add_run(
        &mut self,
        name: &str,
        namespace: &Namespace,
        status: RunStatus,
        created: Timestamp,
    ) -> Result<Run> {
        let key = index_key(name)?;
        let interned = self.database().namespaces().intern(namespace)?;
        let run = Run { id: namespace.run(), namespace: interned };
        self.put_in_system(&key, &index_value(run, status, created))?;
        self.note_created(run);
        Ok(run)
    }

    /// The run named `name`.
    ///
    /// # Errors
    ///
    /// Kind `NotFound` if there is none.
    pub fn resolve_run(&mut self, name: &str) -> Result<Run> {
        let database = self.database().clone();
        let info = resolve(self, database.namespaces(), name)?;
        info.map(|info| info.run).ok_or_else(|| not_found(name))
    }

    /// The run named `name`, created if there is none.
    pub fn get_or_create_run(&mut self, name: &str) -> Result<Run> {
        match self.resolve_run(name) {
            Err(Error::NotFound(_)) => self.create_run(name),
            result => result,
        }
    }
}

impl Database {
    /// Creates a run.
    ///
    /// # Errors
    ///
    /// Kind `Conflict` if there is a run of that name.
    pub fn create_run(&self, name: &str) -> Result<Run> {
        self.transaction(|tx| tx.create_run(name)).map(|done: (Run, Receipt)| done.0)
    }

    /// The run named `name`, created if there is none.
    pub fn get_or_create_run(&self, name: &str) -> Result<Run> {
        match self.resolve_run(name) {
            Err(Error::NotFound(_)) => {
                self.transaction(|tx| tx.get_or_create_run(name)).map(|done| done.0)
            }
            result => result,
        }
    }

    /// The run named `name`.
    ///
    /// # Errors
    ///
    /// Kind `NotFound` if there is none.
    pub fn resolve_run(&self, name: &str) -> Result<Run> {
        self.view()?.resolve_run(name)
    }

    /// Every run, in the order of names.
    pub fn list_runs(&self) -> Result<Vec<RunInfo>> {
        self.view()?.list_runs()
    }
}
