//! Forks: runs that begin as another one was, without copying it.
//!
//! A fork has rows of its own, and beneath them *layers*: the run that it was forked from, at the
//! version of the commit that forked it, and whatever lies beneath that one. A key is what the
//! first layer says that knows it, deletions included. The layers stand in a record of the fork's
//! namespace ([`steadfast_core::fork`]); the store keeps what they show for as long as that record
//! is there, whatever becomes of the parents.
//!
//! What a view shows of a fork follows from the record that the same view shows. So views from
//! before the fork see nothing, and no lock and no list of forks is needed.
//!
//! What is not in the fork's own rows comes as the record of its parent, with the parent's
//! namespace in its key. Nobody who reads a run looks at that part of a key.

use std::ops::Bound;

use steadfast_core::fork::{Layer, fork_key, layers_of, layers_value};
use steadfast_core::limits::FORK_DEPTH_MAX;
use steadfast_core::{
    Key, KeyRef, Namespace, NamespaceId, Record, RecordBuilder, RunId, Timestamp, Value, Version,
};
use steadfast_storage::Range;

use crate::commit::Receipt;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::namespaces::Namespaces;
use crate::runs::Run;
use crate::status::RunStatus;
use crate::transaction::Transaction;

/// Where a fork comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// The id of the run that it was forked from, which may have been deleted since.
    pub id: RunId,
    /// The version that it was forked at: what the parent held after that commit, the fork began
    /// with.
    pub version: Version,
}

/// A key without its run: what the same thing has in every layer.
pub(crate) fn place(key: &[u8]) -> &[u8] {
    key.get(size_of::<NamespaceId>()..).unwrap_or_default()
}

/// The same key in another run.
pub(crate) fn moved(key: &[u8], namespace: NamespaceId) -> Vec<u8> {
    [&namespace.0.to_be_bytes(), place(key)].concat()
}

/// What lies beneath the run of `namespace` as `view` shows it: nothing beneath most.
pub(crate) fn layers(
    view: &steadfast_storage::View,
    namespaces: &Namespaces,
    namespace: NamespaceId,
) -> Result<Vec<Layer>> {
    if !namespaces.has_ancestors(namespace) {
        return Ok(Vec::new());
    }
    match view.get(fork_key(namespace).as_bytes())? {
        None => Ok(Vec::new()),
        Some(record) => decode(&record),
    }
}

/// The same for the run that a stored key is of.
pub(crate) fn layers_at(
    view: &steadfast_storage::View,
    namespaces: &Namespaces,
    key: &[u8],
) -> Result<Vec<Layer>> {
    Key::namespace_of(key).map_or(Ok(Vec::new()), |own| layers(view, namespaces, own))
}

fn decode(record: &Record) -> Result<Vec<Layer>> {
    let malformed = || record.undecodable("it does not say what a fork lies upon").into();
    layers_of(record).ok_or_else(malformed)
}

/// What the layers of its run say of a key that has no live value in the run itself.
#[cold]
pub(crate) fn get_beneath(
    view: &steadfast_storage::View,
    namespaces: &Namespaces,
    key: KeyRef<'_>,
) -> Result<Option<Record>> {
    let stored = key.to_vec();
    let Some(namespace) = Key::namespace_of(&stored) else { return Ok(None) };
    let layers = layers(view, namespaces, namespace)?;
    if layers.is_empty() || view.newest(&stored)?.is_some() {
        return Ok(None);
    }
    for layer in layers {
        let found = view.newest_through(&moved(&stored, layer.namespace), layer.version)?;
        if let Some(found) = found {
            return Ok(Some(found).filter(|found| found.is_live(view.now())));
        }
    }
    Ok(None)
}

/// A record as one of another run.
pub(crate) fn moved_record(record: Record, namespace: NamespaceId) -> Record {
    if Key::namespace_of(record.key()) == Some(namespace) {
        return record;
    }
    let (version, timestamp, expiry) = (record.version(), record.timestamp(), record.expiry());
    let (builder, key) =
        (RecordBuilder { version, timestamp, expiry }, moved(record.key(), namespace));
    match record.is_tombstone() {
        true => builder.tombstone(&key),
        false => builder.put(&[&*key, record.value_bytes()].concat(), key.len()),
    }
}

/// The committed rows of a run within bounds, from both ends, those beneath it included.
#[allow(clippy::large_enum_variant, reason = "most runs are no forks, and one is made for a scan")]
pub(crate) enum Committed {
    One(Range),
    Layered(Box<Layered>),
    /// What lies beneath cannot be read.
    Failed(Option<Error>),
}

impl Committed {
    /// The live rows from `start` on up to and without `end`, both of the run whose layers these
    /// are.
    pub(crate) fn new(
        view: &steadfast_storage::View,
        layers: Result<Vec<Layer>>,
        start: Vec<u8>,
        end: Option<Vec<u8>>,
    ) -> Self {
        match layers {
            Ok(layers) if layers.is_empty() => Self::One(crate::view::range(view, start, end)),
            Ok(layers) => {
                Self::Layered(Box::new(Layered::new(view, &layers, &start, end.as_deref())))
            }
            Err(error) => Self::Failed(Some(error)),
        }
    }

    pub(crate) fn next(&mut self) -> Option<Result<Record>> {
        match self {
            Self::One(range) => range.next().map(|row| row.map_err(Into::into)),
            Self::Layered(layered) => layered.step(true),
            Self::Failed(error) => error.take().map(Err),
        }
    }

    pub(crate) fn next_back(&mut self) -> Option<Result<Record>> {
        match self {
            Self::One(range) => range.next_back().map(|row| row.map_err(Into::into)),
            Self::Layered(layered) => layered.step(false),
            Self::Failed(error) => error.take().map(Err),
        }
    }
}

/// Rows of a run laid over those of its layers.
pub(crate) struct Layered {
    /// The run itself first.
    sheets: Vec<Sheet>,
    now: Timestamp,
}

/// One layer's rows, and what was taken from either end of them and not used.
struct Sheet {
    range: Range,
    front: Option<Record>,
    back: Option<Record>,
}

impl Sheet {
    /// Has the next row of one end at hand, if there is one.
    fn fill(&mut self, forward: bool) -> Result<()> {
        let held = if forward { &self.front } else { &self.back };
        if held.is_some() {
            return Ok(());
        }
        let next = if forward { self.range.next() } else { self.range.next_back() };
        let next = next.transpose()?;
        if forward {
            // The other end may hold the last one.
            self.front = next.or_else(|| self.back.take());
        } else {
            self.back = next.or_else(|| self.front.take());
        }
        Ok(())
    }

    fn held(&mut self, forward: bool) -> &mut Option<Record> {
        if forward { &mut self.front } else { &mut self.back }
    }
}

/// A range of keys in another run.
fn bounds_in(
    namespace: NamespaceId,
    start: &[u8],
    end: Option<&[u8]>,
) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let own = Key::namespace_of(start);
    let end = match end {
        Some(end) if Key::namespace_of(end) == own => Some(moved(end, namespace)),
        // It is where the run itself ends.
        _ => steadfast_core::prefix_end(&namespace.0.to_be_bytes()),
    };
    (Bound::Included(moved(start, namespace)), end.map_or(Bound::Unbounded, Bound::Excluded))
}

/// The run that `start` is of, and its layers, each with what it is looked at through.
fn looks<'a>(
    view: &'a steadfast_storage::View,
    layers: &'a [Layer],
    start: &[u8],
) -> impl Iterator<Item = (NamespaceId, steadfast_storage::View)> + use<'a> {
    let own = Key::namespace_of(start).map(|own| (own, view.clone()));
    own.into_iter().chain(layers.iter().map(|layer| {
        // A transaction that forks has not committed what its own layer shows.
        let is_now = layer.version > view.version();
        let look = if is_now { view.clone() } else { view.through(layer.version) };
        (layer.namespace, look)
    }))
}

impl Layered {
    fn new(
        view: &steadfast_storage::View,
        layers: &[Layer],
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Self {
        let sheet = |(namespace, look): (NamespaceId, steadfast_storage::View)| Sheet {
            range: look.range_newest(bounds_in(namespace, start, end)),
            front: None,
            back: None,
        };
        Self { sheets: looks(view, layers, start).map(sheet).collect(), now: view.now() }
    }

    /// What one end gives next: of each key the row of the first layer that has any, if it is
    /// live.
    fn step(&mut self, forward: bool) -> Option<Result<Record>> {
        loop {
            let mut first: Option<Record> = None;
            for sheet in &mut self.sheets {
                if let Err(error) = sheet.fill(forward) {
                    return Some(Err(error));
                }
                let Some(held) = sheet.held(forward) else { continue };
                let is_first = first.as_ref().is_none_or(|first| {
                    let order = place(held.key()).cmp(place(first.key()));
                    if forward { order.is_lt() } else { order.is_gt() }
                });
                if is_first {
                    first = Some(held.clone());
                }
            }
            let first = first?;
            for sheet in &mut self.sheets {
                sheet.held(forward).take_if(|held| place(held.key()) == place(first.key()));
            }
            if first.is_live(self.now) {
                return Some(Ok(first));
            }
        }
    }
}

/// Every kept version within bounds of one run, in the order of keys, newest first within a key:
/// those of the run, then of what lies beneath it, as far as it does.
pub(crate) struct Versions {
    sheets: Vec<std::iter::Peekable<Range>>,
}

impl Versions {
    pub(crate) fn new(
        view: &steadfast_storage::View,
        namespaces: &Namespaces,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Self> {
        let layers = layers_at(view, namespaces, start)?;
        let sheets = looks(view, &layers, start).map(|(namespace, look)| {
            look.range_versions(bounds_in(namespace, start, end)).peekable()
        });
        Ok(Self { sheets: sheets.collect() })
    }
}

impl Iterator for Versions {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut first: Option<(usize, Record)> = None;
        for (index, sheet) in self.sheets.iter_mut().enumerate() {
            match sheet.peek() {
                None => {}
                Some(Err(_)) => {
                    let error = sheet.next()?.err()?;
                    return Some(Err(error.into()));
                }
                Some(Ok(row)) => {
                    let is_first = first
                        .as_ref()
                        .is_none_or(|(_, first)| place(row.key()) < place(first.key()));
                    if is_first {
                        first = Some((index, row.clone()));
                    }
                }
            }
        }
        let (index, row) = first?;
        self.sheets[index].next();
        Some(Ok(row))
    }
}

impl Transaction {
    /// Creates a run named `child` that begins as the run named `parent` is at this commit, with
    /// whatever else this transaction does: also with what it writes to the parent itself. Takes
    /// the same time and the same log whatever the parent holds.
    ///
    /// From then on each goes its own way: what is written to the one is never seen in the other.
    /// Events go on in the parent's streams, with the next sequence number and the hash of the
    /// last event; idempotency keys, positions of cursors and signals are those of the parent.
    /// Status and metadata are the child's own.
    ///
    /// What the child sees is kept for as long as the child is there, whatever becomes of the
    /// parent: its history may be trimmed around it, and it may be deleted. Then its bytes are
    /// given back after the last fork was deleted, by [`CompactMode::Full`](crate::CompactMode).
    ///
    /// # Errors
    ///
    /// Kind `NotFound` if there is no such parent; `Conflict` if there is a run named `child`;
    /// `Invalid` if the parent itself has [`FORK_DEPTH_MAX`] runs beneath it.
    pub fn fork_run(&mut self, parent: &str, child: &str) -> Result<Run> {
        let info = self.run_info(parent)?;
        self.check_name_is_free(child)?;
        let nearest = Layer { namespace: info.run.namespace, version: Version::ZERO };
        let mut beneath = vec![nearest];
        beneath.extend(self.layers(info.run.namespace)?.into_iter().map(|layer| {
            // Of this commit: it has no version yet.
            let version = if layer.version == Version::MAX { Version::ZERO } else { layer.version };
            Layer { version, ..layer }
        }));
        if beneath.len() > FORK_DEPTH_MAX {
            return Err(Error::Invalid(format!(
                "the run {parent} is a fork upon {} runs already, and there can be {FORK_DEPTH_MAX} \
                 beneath one; a run that was exported and imported has none",
                beneath.len() - 1
            )));
        }
        let mut ancestors = info.ancestors;
        ancestors.push(info.id);
        let id = RunId::new(self.now(), self.database().entropy());
        let run = self.add_run(
            child,
            &Namespace::for_run(id),
            RunStatus::Active,
            self.now(),
            std::collections::BTreeMap::new(),
            (ancestors, Some(Version::ZERO)),
        )?;
        self.put_in_system(&fork_key(run.namespace), &layers_value(&beneath))?;
        Ok(run)
    }

    /// What lies beneath a run as this transaction sees it. Layers of [`Version::MAX`] are runs as
    /// it sees them itself: it forks them.
    pub(crate) fn layers(&self, namespace: NamespaceId) -> Result<Vec<Layer>> {
        if !self.database().namespaces().has_ancestors(namespace) {
            return Ok(Vec::new());
        }
        match self.own_write(fork_key(namespace).as_bytes()) {
            Some(own) if own.is_tombstone() => Ok(Vec::new()),
            Some(own) => decode(own),
            None => layers(self.view(), self.database().namespaces(), namespace),
        }
    }
}

impl Database {
    /// [`Transaction::fork_run`] in a transaction of its own.
    ///
    /// ```
    /// use steadfast_engine::Database;
    ///
    /// let db = Database::in_memory()?;
    /// let parent = db.create_run("parent")?;
    /// db.kv_put(parent, "model", "small")?;
    /// let child = db.fork_run("parent", "child")?;
    /// db.kv_put(parent, "model", "large")?;
    /// db.kv_put(child, "seed", 7)?;
    /// let model = db.kv_get(child, "model")?.expect("the parent had it");
    /// assert_eq!(model.value.as_str(), Some("small"));
    /// assert!(db.kv_get(parent, "seed")?.is_none());
    /// # Ok::<(), steadfast_engine::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Transaction::fork_run`].
    pub fn fork_run(&self, parent: &str, child: &str) -> Result<Run> {
        self.transaction(|tx| tx.fork_run(parent, child)).map(|done: (Run, Receipt)| done.0)
    }
}

/// The ids of runs as one value, and back.
pub(crate) fn ids_value(ids: &[RunId]) -> Value {
    Value::Bytes(ids.iter().flat_map(|id| id.to_bytes()).collect())
}

pub(crate) fn ids_of(value: &Value) -> Option<Vec<RunId>> {
    let (ids, rest) = value.as_bytes()?.as_chunks::<16>();
    rest.is_empty().then(|| ids.iter().map(|id| RunId::from_bytes(*id)).collect())
}
