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
use crate::deletion::grave;
use crate::error::{Error, Result};
use crate::fork::{Parent, ids_of, ids_value};
use crate::namespaces::Namespaces;
use crate::source::Source;
use crate::status::RunStatus;
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

/// What the run index says of a run.
#[derive(Debug, Clone, PartialEq)]
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
    /// What the application wants to know of it: see [`Transaction::set_run_metadata`].
    pub metadata: BTreeMap<String, Value>,
    /// The commit that wrote this: the one that created the run, or that last changed its status
    /// or its metadata.
    pub version: Version,
    /// When that was.
    pub changed: Timestamp,
    /// The commit that created the run, or brought it into this database.
    pub since: Version,
    /// Where it comes from, if it was forked in this database: [`Transaction::fork_run`].
    pub parent: Option<Parent>,
    /// The runs that it goes back to by forks, the oldest first and its parent last; also those
    /// of another database that it was exported from. Its streams may hold events that were
    /// appended to these.
    pub ancestors: Vec<RunId>,
}

/// Which runs to list. Without anything asked for, all of them.
///
/// ```
/// use steadfast_engine::{Database, RunFilter, RunStatus};
///
/// let db = Database::in_memory()?;
/// for name in ["eval-1", "eval-2", "train-1"] {
///     db.create_run(name)?;
/// }
/// db.set_run_status("eval-2", RunStatus::Failed)?;
/// let failed = RunFilter::new().prefix("eval-").status(RunStatus::Failed);
/// assert_eq!(db.find_runs(&failed)?[0].name, "eval-2");
/// assert_eq!(db.find_runs(&RunFilter::new().prefix("eval-"))?.len(), 2);
/// # Ok::<(), steadfast_engine::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunFilter {
    statuses: Vec<RunStatus>,
    prefix: String,
    created: Option<(Timestamp, Timestamp)>,
}

impl RunFilter {
    /// Every run.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only runs of this status, or of another one that is asked for.
    #[must_use]
    pub fn status(mut self, status: RunStatus) -> Self {
        self.statuses.push(status);
        self
    }

    /// Only runs whose names begin with `prefix`. Only these are looked at.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Only runs created from `from` on and before `until`.
    #[must_use]
    pub const fn created(mut self, from: Timestamp, until: Timestamp) -> Self {
        self.created = Some((from, until));
        self
    }

    fn takes(&self, info: &RunInfo) -> bool {
        (self.statuses.is_empty() || self.statuses.contains(&info.status))
            && self.created.is_none_or(|(from, until)| (from..until).contains(&info.created))
    }
}

pub(crate) fn index_key(name: &str) -> Result<Key> {
    check_name("run", name)?;
    Ok(Key::new(NamespaceId::SYSTEM, TypeTag::Run, name.as_bytes())?)
}

/// What a run's entry in the index says.
pub(crate) struct IndexEntry {
    pub(crate) run: Run,
    pub(crate) status: RunStatus,
    pub(crate) created: Timestamp,
    pub(crate) metadata: BTreeMap<String, Value>,
    /// The commit that created it; `None` for the one that this entry is written by.
    pub(crate) since: Option<Version>,
    /// The runs that it goes back to, the oldest first.
    pub(crate) ancestors: Vec<RunId>,
    /// The version that it was forked at in this database, if it was; [`Version::ZERO`] for the
    /// commit that this entry is written by.
    pub(crate) forked: Option<Version>,
}

impl IndexEntry {
    pub(crate) fn into_map(self) -> BTreeMap<String, Value> {
        let mut value = BTreeMap::new();
        value.insert("id".to_owned(), Value::from(&self.run.id.to_bytes()));
        value.insert("namespace".to_owned(), Value::from(self.run.namespace.0));
        value.insert("status".to_owned(), Value::from(self.status.name()));
        let int = |n: u64| Value::from(i64::try_from(n).unwrap_or(i64::MAX));
        value.insert("created".to_owned(), int(self.created.as_micros()));
        // What there is not takes no room, in the files of earlier releases too.
        if !self.metadata.is_empty() {
            value.insert("metadata".to_owned(), Value::Map(self.metadata));
        }
        if let Some(since) = self.since {
            value.insert("since".to_owned(), int(since.0));
        }
        if !self.ancestors.is_empty() {
            value.insert("ancestors".to_owned(), ids_value(&self.ancestors));
        }
        if let Some(forked) = self.forked {
            value.insert("forked".to_owned(), int(forked.0));
        }
        value
    }

    pub(crate) fn of(info: &RunInfo) -> Self {
        Self {
            run: info.run,
            status: info.status,
            created: info.created,
            metadata: info.metadata.clone(),
            since: (info.since != Version::MAX).then_some(info.since),
            ancestors: info.ancestors.clone(),
            forked: info.parent.map(|parent| match parent.version {
                Version::MAX => Version::ZERO,
                version => version,
            }),
        }
    }
}

pub(crate) fn decode_info(record: &Record) -> Result<RunInfo> {
    let malformed = || Error::from(record.undecodable("it is no entry of the run index"));
    let Value::Map(value) = record.value()? else { return Err(malformed()) };
    let name = std::str::from_utf8(Key::user_part(record.key())).map_err(|_| malformed())?;
    info_of(record, name.to_owned(), value).ok_or_else(malformed)
}

/// The inverse of [`IndexEntry::into_map`]; `record` is where the map stands.
pub(crate) fn info_of(
    record: &Record,
    name: String,
    mut value: BTreeMap<String, Value>,
) -> Option<RunInfo> {
    let metadata = match value.remove("metadata") {
        None => BTreeMap::new(),
        Some(Value::Map(metadata)) => metadata,
        Some(_) => return None,
    };
    let id = RunId::from_bytes(value.get("id")?.as_bytes()?.try_into().ok()?);
    let namespace = u32::try_from(value.get("namespace")?.as_int()?).ok()?;
    let created = u64::try_from(value.get("created")?.as_int()?).ok()?;
    let since = match value.get("since") {
        Some(since) => Version(u64::try_from(since.as_int()?).ok()?),
        None => record.version(),
    };
    let ancestors = match value.get("ancestors") {
        Some(ids) => ids_of(ids)?,
        None => Vec::new(),
    };
    let parent = match value.get("forked") {
        None => None,
        Some(version) => Some(Parent {
            id: *ancestors.last()?,
            version: match u64::try_from(version.as_int()?).ok()? {
                0 => record.version(),
                version => Version(version),
            },
        }),
    };
    Some(RunInfo {
        run: Run { id, namespace: NamespaceId(namespace) },
        id,
        name,
        status: RunStatus::from_name(value.get("status")?.as_str()?)?,
        created: Timestamp::from_micros(created),
        metadata,
        version: record.version(),
        changed: record.timestamp(),
        since,
        parent,
        ancestors,
    })
}

fn resolve(
    mut source: impl Source,
    namespaces: &Namespaces,
    name: &str,
) -> Result<Option<RunInfo>> {
    let Some(record) = source.record(KeyRef::from(&index_key(name)?))? else { return Ok(None) };
    let info = decode_info(&record)?;
    // A transaction's own run becomes live with its commit.
    if info.since != Version::MAX {
        source.found_run(namespaces, &info)?;
    }
    Ok(Some(info))
}

/// Notes that a view shows a run in the index. If the view is an old one, the run may have been
/// deleted since, in an earlier life of the database too.
pub(crate) fn note_found(
    view: &steadfast_storage::View,
    namespaces: &Namespaces,
    info: &RunInfo,
) -> Result<()> {
    let id = info.run.namespace;
    if view.version() < view.store().current_version()
        && !namespaces.is_deleted(id)
        && let Some(grave) = grave(view.store(), id)?
    {
        namespaces.set_deleted(id, grave.version());
    }
    namespaces.set_ancestors(id, &info.ancestors);
    namespaces.set_live(id);
    Ok(())
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
        self.run_info(name).map(|info| info.run)
    }

    /// What the run index says of the run named `name`.
    ///
    /// # Errors
    ///
    /// Kind `NotFound` if there is none.
    pub fn run_info(&self, name: &str) -> Result<RunInfo> {
        resolve(self, &self.namespaces, name)?.ok_or_else(|| not_found(name))
    }

    /// Every run, in the order of names.
    pub fn list_runs(&self) -> Result<Vec<RunInfo>> {
        self.find_runs(&RunFilter::new())
    }

    /// The runs that `filter` asks for, in the order of names.
    pub fn find_runs(&self, filter: &RunFilter) -> Result<Vec<RunInfo>> {
        let mut start = Key::first_of(NamespaceId::SYSTEM, TypeTag::Run).as_bytes().to_vec();
        start.extend_from_slice(filter.prefix.as_bytes());
        let end = prefix_end(&start);
        let mut source = self;
        let mut runs = Vec::new();
        for row in source.rows(start, end) {
            let info = decode_info(&row?)?;
            note_found(&self.inner, &self.namespaces, &info)?;
            if filter.takes(&info) {
                runs.push(info);
            }
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
        self.check_name_is_free(name)?;
        let id = RunId::new(self.now(), self.database().entropy());
        let namespace = Namespace::for_run(id);
        let (status, from) = (RunStatus::Active, (Vec::new(), None));
        self.add_run(name, &namespace, status, self.now(), BTreeMap::new(), from)
    }

    pub(crate) fn check_name_is_free(&mut self, name: &str) -> Result<()> {
        if self.record(KeyRef::from(&index_key(name)?))?.is_none() {
            return Ok(());
        }
        Err(Error::Mismatch {
            what: format!("run {name}"),
            expected: "absent".into(),
            found: "a run of that name".into(),
        })
    }

    /// Puts an imported run into the index, if its name is free.
    pub(crate) fn add_imported(
        &mut self,
        name: &str,
        namespace: &Namespace,
        info: &RunInfo,
    ) -> Result<Run> {
        self.check_name_is_free(name)?;
        let from = (info.ancestors.clone(), None);
        self.add_run(name, namespace, info.status, info.created, info.metadata.clone(), from)
    }

    /// Puts a run into the index: with the runs that it goes back to, and the version that it was
    /// forked at, zero for that of this commit.
    pub(crate) fn add_run(
        &mut self,
        name: &str,
        namespace: &Namespace,
        status: RunStatus,
        created: Timestamp,
        metadata: BTreeMap<String, Value>,
        (ancestors, forked): (Vec<RunId>, Option<Version>),
    ) -> Result<Run> {
        let key = index_key(name)?;
        let run = self.add_namespace(namespace, &ancestors)?;
        let entry = IndexEntry { run, status, created, metadata, since: None, ancestors, forked };
        self.put_in_system(&key, &Value::Map(entry.into_map()))?;
        Ok(run)
    }

    /// Takes a run into the dictionary that this transaction writes to before it is in the index.
    pub(crate) fn add_namespace(
        &mut self,
        namespace: &Namespace,
        ancestors: &[RunId],
    ) -> Result<Run> {
        let namespaces = self.database().namespaces();
        let interned = namespaces.intern(namespace)?;
        namespaces.set_ancestors(interned, ancestors);
        let run = Run { id: namespace.run(), namespace: interned };
        self.note_created(run);
        Ok(run)
    }

    /// The run named `name`.
    ///
    /// # Errors
    ///
    /// Kind `NotFound` if there is none.
    pub fn resolve_run(&mut self, name: &str) -> Result<Run> {
        self.run_info(name).map(|info| info.run)
    }

    /// What the run index says of the run named `name`, as this transaction sees it. What it
    /// wrote itself has [`Version::MAX`].
    ///
    /// # Errors
    ///
    /// Kind `NotFound` if there is none.
    pub fn run_info(&mut self, name: &str) -> Result<RunInfo> {
        let database = self.database().clone();
        let info = resolve(self, database.namespaces(), name)?;
        info.ok_or_else(|| not_found(name))
    }

    /// Gives the run named `name` a status, with whatever else this transaction does. The status
    /// that it has already may be given again, and nothing is written.
    ///
    /// # Errors
    ///
    /// Kind `NotFound` if there is no such run; `Conflict` if its status may not become this one
    /// ([`RunStatus::may_become`]): what has ended does not go on.
    pub fn set_run_status(&mut self, name: &str, status: RunStatus) -> Result<()> {
        let info = self.run_info(name)?;
        if info.status == status {
            return Ok(());
        }
        if !info.status.may_become(status) {
            return Err(Error::Mismatch {
                what: format!("status of run {name}"),
                expected: format!("one that may become {status}"),
                found: info.status.to_string(),
            });
        }
        self.change_run(&RunInfo { status, ..info })
    }

    /// Gives the run named `name` other metadata, in place of all that it had.
    ///
    /// # Errors
    ///
    /// Kind `NotFound` if there is no such run; `Invalid` if the metadata is larger than a value
    /// may be.
    pub fn set_run_metadata(
        &mut self,
        name: &str,
        metadata: BTreeMap<String, Value>,
    ) -> Result<()> {
        let info = self.run_info(name)?;
        self.change_run(&RunInfo { metadata, ..info })
    }

    /// Writes what the index says of a run that it has.
    pub(crate) fn change_run(&mut self, info: &RunInfo) -> Result<()> {
        self.put_in_system(&index_key(&info.name)?, &Value::Map(IndexEntry::of(info).into_map()))
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

    /// What the run index says of the run named `name`.
    ///
    /// # Errors
    ///
    /// Kind `NotFound` if there is none.
    pub fn run_info(&self, name: &str) -> Result<RunInfo> {
        self.view()?.run_info(name)
    }

    /// Every run, in the order of names.
    pub fn list_runs(&self) -> Result<Vec<RunInfo>> {
        self.view()?.list_runs()
    }

    /// The runs that `filter` asks for, in the order of names.
    pub fn find_runs(&self, filter: &RunFilter) -> Result<Vec<RunInfo>> {
        self.view()?.find_runs(filter)
    }

    /// [`Transaction::set_run_status`] in a transaction of its own.
    pub fn set_run_status(&self, name: &str, status: RunStatus) -> Result<Receipt> {
        self.transaction(|tx| tx.set_run_status(name, status)).map(|done| done.1)
    }

    /// [`Transaction::set_run_metadata`] in a transaction of its own.
    pub fn set_run_metadata(
        &self,
        name: &str,
        metadata: BTreeMap<String, Value>,
    ) -> Result<Receipt> {
        self.transaction(|tx| tx.set_run_metadata(name, metadata.clone())).map(|done| done.1)
    }
}
