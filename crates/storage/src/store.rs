//! [`UnifiedStore`]: what a database holds, in memory.
//!
//! A commit is three steps of the caller's: [`apply`](UnifiedStore::apply) inserts records
//! that no reader sees yet, [`publish`](UnifiedStore::publish) shows every version up to one
//! at once, [`prune`](UnifiedStore::prune) drops what that made superfluous. A commit that
//! fails between the first two is taken back with [`undo`](UnifiedStore::undo). The store
//! knows neither files nor which version a commit should get.

use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use steadfast_core::fork::{Fork, is_fork_key};
use steadfast_core::{
    Key, KeyRef, Namespace, NamespaceId, Place, Record, RecordBuilder, ReplayTarget, Retention,
    RetentionDomain, RetentionFloor, RetentionPolicy, RunId, SortedTable, Timestamp, Value,
    Version,
};

use crate::beneath::{Beneath, LoadProgress};
use crate::bulk::Gathered;
use crate::chain::{Chain, Limits, Superfluous};
use crate::directory::{Directory, Seek};
use crate::fold::Folding;
use crate::garbage::Garbage;
use crate::leaf::{Inserted, Pruned};
use crate::load::{Late, When};
use crate::points::{Points, Probe};
use crate::registry::Registry;
use crate::rules::{Ruled, Rules};
use crate::{LoadedSection, Result, StoreStats, Trimmed, View, lock};

/// Keys looked at again for each commit, so that what an old view has piled up is dropped
/// without stopping anyone.
const PRUNE_STEPS_A_COMMIT: usize = 64;

/// Keys looked at again when a view is dropped, for the same reason.
const PRUNE_STEPS_A_VIEW: usize = 256;

/// Every kept version of every key. Clones are handles of the same store.
///
/// Readers never wait for a commit: they wait at most for the change of one leaf or of one
/// shard of the hash. Versions of a key stay ordered whatever the order in which they are
/// inserted, and inserting one again changes nothing.
#[derive(Clone)]
pub struct UnifiedStore {
    pub(crate) inner: Arc<Inner>,
}

/// The store behind its handles.
pub(crate) struct Inner {
    pub(crate) directory: Directory,
    pub(crate) points: Points,
    pub(crate) beneath: Beneath,
    pub(crate) rules: RwLock<Rules>,
    pub(crate) registry: Registry,
    pub(crate) garbage: Garbage,
    pub(crate) gathered: Mutex<Gathered>,
    pub(crate) late: Late,
    pub(crate) folding: Mutex<Folding>,
    /// Records of forks that have left the store.
    pub(crate) dropped_forks: Mutex<Vec<Fork>>,
    /// Held by the store's own writes, which choose versions themselves.
    writer: Mutex<()>,
}

/// What [`UnifiedStore::apply`] inserted on top of older versions or as a tombstone, to be
/// handed to [`UnifiedStore::prune`] once it is published.
#[derive(Debug, Default)]
#[must_use = "what was superseded stays in memory until it is pruned"]
pub struct Applied {
    records: Vec<Record>,
}

impl Default for UnifiedStore {
    fn default() -> Self {
        Self::new()
    }
}

impl UnifiedStore {
    /// An empty store that keeps the newest version of each key, and what open views need.
    pub fn new() -> Self {
        Self::with_retention(Retention::default())
    }

    /// An empty store that keeps more history.
    pub fn with_retention(policy: impl Into<RetentionPolicy>) -> Self {
        let inner = Inner {
            directory: Directory::new(),
            points: Points::new(),
            beneath: Beneath::new(),
            rules: RwLock::new(Rules::new(&policy.into())),
            registry: Registry::new(),
            garbage: Garbage::new(),
            gathered: Mutex::default(),
            late: Late::default(),
            folding: Mutex::default(),
            dropped_forks: Mutex::default(),
            writer: Mutex::new(()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The newest published version.
    pub fn current_version(&self) -> Version {
        self.inner.registry.visible()
    }

    /// The newest published value of a key that is live by the system clock.
    #[inline]
    pub fn get<'a>(&self, key: impl Into<KeyRef<'a>>) -> Result<Option<Record>> {
        Ok(self.newest(key.into())?.filter(|record| {
            // Asking for the time costs more than finding the record.
            !record.is_tombstone()
                && (record.expiry().is_none() || record.is_live(Timestamp::now()))
        }))
    }

    /// The newest published value of a key that is live at `now`.
    #[inline(always)]
    pub fn get_latest<'a>(
        &self,
        key: impl Into<KeyRef<'a>>,
        now: Timestamp,
    ) -> Result<Option<Record>> {
        Ok(self.newest(key.into())?.filter(|record| record.is_live(now)))
    }

    #[inline(always)]
    fn newest(&self, key: KeyRef<'_>) -> Result<Option<Record>> {
        // Without a view nothing holds a version in place, so which one is visible is asked
        // under the lock that pruning takes: it has left the newest one visible by then.
        self.inner.newest_at(key, || self.inner.registry.visible())
    }

    /// A view of what is published now, whose clock stands at `now`, or later if something that
    /// expired later has been dropped: for a store, time does not run backwards.
    pub fn view(&self, now: Timestamp) -> View {
        let (version, now) = self.inner.registry.open(now);
        View::new(self.clone(), version, now, true)
    }

    /// A view of what was published at `version`, whose clock stands at `now`. Where something
    /// that it would have to show was dropped, its reads fail; everywhere else they do not.
    ///
    /// Errors: [`HistoryTrimmed`](crate::Error::HistoryTrimmed) if nothing can be read there any
    /// more, [`NotYet`](crate::Error::NotYet) if it is above
    /// [`current_version`](Self::current_version).
    pub fn view_at(&self, version: Version, now: Timestamp) -> Result<View> {
        let whole = self.inner.registry.open_at(&lock::read(&self.inner.rules), version, now)?;
        Ok(View::new(self.clone(), version, now, whole))
    }

    /// Changes what is kept from now on. `namespaces` are those of runs that have a rule now and
    /// had none; a run that gets a rule begins with the floor of those without one. What was
    /// dropped before stays dropped, and what is superfluous now goes with later commits and
    /// [`trim`](Self::trim). To keep more than before, wait until
    /// [`is_loaded`](Self::is_loaded): the table beneath may have what is older than versions
    /// dropped above it, and the history of a key would have a gap there.
    pub fn set_policy(
        &self,
        policy: impl Into<RetentionPolicy>,
        namespaces: impl IntoIterator<Item = (NamespaceId, RunId)>,
    ) {
        let (policy, namespaces) = (policy.into(), Vec::from_iter(namespaces));
        let mut rules = lock::write(&self.inner.rules);
        *rules = rules.changed(&policy, namespaces);
    }

    /// Notes a namespace before its first record comes, if its run has a rule of retention.
    pub fn define_namespace(&self, id: NamespaceId, namespace: &Namespace) {
        let wanted = lock::read(&self.inner.rules).wants(id, namespace.run());
        if wanted {
            lock::write(&self.inner.rules).define(id, namespace.run());
        }
    }

    /// Up to where the past is gone, for every domain in which some is.
    pub fn floors(&self) -> Vec<(RetentionDomain, RetentionFloor)> {
        let rules = lock::read(&self.inner.rules);
        let floors = rules.all().map(|domain| (domain.id, domain.floor()));
        floors.filter(|(_, floor)| *floor != RetentionFloor::default()).collect()
    }

    /// Takes over the floors of the store that a table or a log comes from, before any view is
    /// opened.
    pub fn raise_floors(&self, floors: &[(RetentionDomain, RetentionFloor)]) {
        let rules = lock::read(&self.inner.rules);
        rules.raise(floors);
        self.inner.registry.raise_floors(&rules);
    }

    /// The runs that are forks by records up to `version`: what a table of the store up to there
    /// has to tell of beforehand.
    pub fn forks(&self, version: Version) -> Vec<Fork> {
        self.inner.forget_dropped();
        lock::read(&self.inner.rules).forks.upto(version)
    }

    /// Keeps what these see from now on: to be called with what a table tells, before anything is
    /// replayed.
    pub fn note_forks(&self, forks: &[Fork]) {
        let mut rules = lock::write(&self.inner.rules);
        forks.iter().for_each(|fork| rules.forks.note(fork));
    }

    /// The namespaces of runs whose past is kept for the sake of forks.
    pub fn pinned_namespaces(&self) -> Vec<NamespaceId> {
        self.inner.forget_dropped();
        lock::read(&self.inner.rules).forks.pinned().collect()
    }

    /// Drops whatever the rules, the open views and the time `now` allow of about `keys` keys,
    /// beginning at the key `from`: what commits leave because only time makes it superfluous.
    /// An expiry counts as a deletion on top of its key; a key goes entirely only when memory
    /// holds everything. Called in steps, each from the last one's
    /// [`next`](crate::Trimmed::next).
    pub fn trim(&self, now: Timestamp, from: &[u8], keys: usize) -> Trimmed {
        self.inner.trim(now, from, keys)
    }

    /// Inserts records that no reader sees until their versions are published. Deltas are left
    /// to [`fold`](Self::fold).
    pub fn apply(&self, records: &[Record]) -> Applied {
        let insert = |record: &&Record| {
            // A delta comes in when it is folded; its key will want pruning all the same.
            record.is_delta() || self.inner.insert(record)
        };
        let superseding = records.iter().filter(insert);
        Applied { records: superseding.cloned().collect() }
    }

    /// Has memory know everything of a key: to be called before a delta of it gets a version.
    ///
    /// Errors: [`Table`](crate::Error::Table) if the section of the table beneath cannot be read.
    pub fn bring_in(&self, key: &[u8]) -> Result<()> {
        self.inner.bring_in(key)
    }

    /// Inserts what `delta` makes of the newest value of its key below it: see
    /// [`signal`](steadfast_core::signal). To be called in the order of versions, when everything
    /// below its own is in the store, and no reader sees it yet. Doing it again changes nothing.
    pub fn fold(&self, delta: &Record) {
        self.inner.fold(delta);
    }

    /// Shows every version up to `version` to readers, at once.
    pub fn publish(&self, version: Version) {
        self.inner.registry.publish(version);
    }

    /// Drops what published records have made superfluous, as far as no view needs it; the
    /// rest is dropped when the views are. Also looks at a few keys that have waited for that.
    pub fn prune(&self, applied: Applied) {
        applied.records.iter().for_each(|record| drop(self.inner.prune(record.key())));
        self.inner.prune_waiting(PRUNE_STEPS_A_COMMIT);
    }

    /// Looks at up to `keys` keys that have waited for old views to end, and drops what can be
    /// dropped. Commits and ending views do some of this; an idle store may want the rest.
    pub fn prune_waiting(&self, keys: usize) {
        self.inner.prune_waiting(keys);
    }

    /// Takes back records that were applied and will not be published.
    ///
    /// # Panics
    ///
    /// If one of them is published.
    pub fn undo(&self, records: &[Record]) {
        for record in records.iter().filter(|record| !record.is_delta()) {
            assert!(record.version() > self.current_version(), "what was published stays");
            self.inner.take_back(record);
        }
    }

    /// From now on tombstones stay although nothing in the store needs them (`true`), or are
    /// dropped as soon as nothing does (`false`, as at first). For the time in which something
    /// outside of the store may still hold what they delete.
    pub fn let_tombstones_stay(&self, stay: bool) {
        self.inner.garbage.let_tombstones_stay(stay);
        if !stay {
            self.inner.prune_waiting(usize::MAX);
        }
    }

    /// Lays a table beneath: from now on every read answers from memory and from it, until all
    /// its sections are loaded. Tombstones stay until then. To be called before anything is
    /// published above the newest version of the table, and before anything is replayed.
    ///
    /// # Panics
    ///
    /// If the store has or had a table.
    pub fn attach_table(&self, table: Arc<dyn SortedTable>) {
        if table.sections() > 0 {
            self.let_tombstones_stay(true);
        }
        self.inner.beneath.attach(table);
    }

    /// Takes a section of the table beneath into memory, beside readers, commits and loads of
    /// other sections, none of which waits for more than the change of one part of a region.
    /// The last section lets go of the table, and of every tombstone that had to stay for it.
    /// What is loaded already is not loaded again.
    ///
    /// Errors: [`Table`](crate::Error::Table) if the section cannot be read. It stays as it was;
    /// [`supply_section`](Self::supply_section) may take its rows from elsewhere.
    ///
    /// # Panics
    ///
    /// If the table has no such section.
    pub fn load_section(&self, section: usize) -> Result<LoadedSection> {
        self.inner.load_from_table(section, When::Now)
    }

    /// As [`load_section`](Self::load_section), and quicker where many sections are loaded:
    /// memory may come to answer for it only with some that are loaded after it, with the last
    /// one at the latest.
    pub fn load_section_late(&self, section: usize) -> Result<LoadedSection> {
        self.inner.load_from_table(section, When::Later)
    }

    /// Takes the rows of a section that were found elsewhere, in any order.
    ///
    /// # Panics
    ///
    /// If the table has no such section.
    pub fn supply_section(&self, section: usize, rows: Vec<Record>) -> LoadedSection {
        self.inner.supply(section, rows)
    }

    /// Whether memory holds everything: no table is beneath, or all of it is loaded.
    pub fn is_loaded(&self) -> bool {
        self.inner.beneath.is_nothing()
    }

    /// How far the table beneath is loaded.
    pub fn load_progress(&self) -> LoadProgress {
        self.inner.beneath.progress()
    }

    /// Writes a value at the next version, to be there for `ttl` if given. Neither this nor
    /// [`delete`](Self::delete) may be mixed with versions that are applied and unpublished.
    pub fn put(&self, key: &Key, value: Value, ttl: Option<Duration>) -> Result<Version> {
        let _writer = lock::lock(&self.inner.writer);
        let (version, now) = (self.current_version().next(), Timestamp::now());
        let expiry = ttl.map(|ttl| now.after(ttl));
        self.commit(put_record(key, &value, version, now, expiry)?);
        Ok(version)
    }

    /// Deletes a key at the next version.
    pub fn delete(&self, key: &Key) -> Result<Version> {
        let _writer = lock::lock(&self.inner.writer);
        let version = self.current_version().next();
        self.commit(tombstone(key, version, Timestamp::now()));
        Ok(version)
    }

    /// Writes a value at the version it has elsewhere and publishes that. A lower version
    /// never takes the place of a higher one.
    pub fn put_with_version(
        &self,
        key: &Key,
        value: Value,
        version: Version,
        timestamp: Timestamp,
        expiry: Option<Timestamp>,
    ) -> Result<()> {
        let _writer = lock::lock(&self.inner.writer);
        self.commit(put_record(key, &value, version, timestamp, expiry)?);
        Ok(())
    }

    /// Deletes a key at the version at which that happened elsewhere and publishes that.
    pub fn delete_with_version(
        &self,
        key: &Key,
        version: Version,
        timestamp: Timestamp,
    ) -> Result<()> {
        let _writer = lock::lock(&self.inner.writer);
        self.commit(tombstone(key, version, timestamp));
        Ok(())
    }

    fn commit(&self, record: Record) {
        let version = record.version();
        let applied = self.apply(&[record]);
        self.publish(version);
        self.prune(applied);
    }

    /// What the store holds and takes. Looks at every leaf: about a millisecond for a million
    /// keys.
    pub fn stats(&self) -> StoreStats {
        StoreStats::of(&self.inner)
    }
}

fn put_record(
    key: &Key,
    value: &Value,
    version: Version,
    timestamp: Timestamp,
    expiry: Option<Timestamp>,
) -> Result<Record> {
    let mut bytes = key.as_bytes().to_vec();
    value.encode(&mut bytes)?;
    Ok(RecordBuilder { version, timestamp, expiry }.put(&bytes, key.as_bytes().len()))
}

fn tombstone(key: &Key, version: Version, timestamp: Timestamp) -> Record {
    RecordBuilder { version, timestamp, expiry: None }.tombstone(key.as_bytes())
}

impl ReplayTarget for UnifiedStore {
    /// Takes a run in bulk; before the first [`publish`](UnifiedStore::publish) it may wait for
    /// more until [`finish`](ReplayTarget::finish). What no reader will be able to see is dropped at once: before
    /// the first publication that is all but the versions that retention keeps.
    fn apply(&self, run: Vec<Record>) {
        self.inner.apply_run(run);
    }

    fn define_namespace(&self, id: NamespaceId, namespace: &Namespace) {
        Self::define_namespace(self, id, namespace);
    }

    fn finish(&self, version: Version) {
        self.inner.finish_runs();
        self.inner.finish_folding();
        self.publish(version);
        self.inner.prune_waiting(usize::MAX);
    }
}

impl Inner {
    /// The newest record of a key not above the version that `at` tells, asked for under the
    /// lock of what is read.
    #[inline(always)]
    pub(crate) fn newest_at(
        &self,
        key: KeyRef<'_>,
        at: impl Fn() -> Version,
    ) -> Result<Option<Record>> {
        let memory_has_all = self.beneath.is_nothing();
        let found = self.newest_in_memory(key, &at);
        if found.is_some() || memory_has_all {
            return Ok(found);
        }
        self.newest_beneath(key, &at)
    }

    #[inline(always)]
    pub(crate) fn newest_in_memory(
        &self,
        key: KeyRef<'_>,
        at: &impl Fn() -> Version,
    ) -> Option<Record> {
        match self.points.probe(key, at) {
            Probe::Absent => None,
            Probe::Found(record) => Some(record),
            Probe::Newer => self.older_in_memory(&key.to_vec(), at),
        }
    }

    #[cold]
    fn older_in_memory(&self, key: &[u8], at: &impl Fn() -> Version) -> Option<Record> {
        self.directory.read(Seek::At(key), |found| {
            let row = found.leaf.find(key).ok()?;
            found.leaf.chain(row).newest_at(at()).cloned()
        })
    }

    /// The same for a key of which memory has just been found to have nothing that old.
    #[cold]
    fn newest_beneath(&self, key: KeyRef<'_>, at: &impl Fn() -> Version) -> Result<Option<Record>> {
        let sections = self.beneath.sections();
        if let Some(sections) = sections {
            let stored = &*key.to_vec();
            let section = sections.section_at(Place::At(stored));
            if sections.has_waiting(section) {
                self.load_from_table(section, When::Now)?;
            } else if !sections.is_loaded(section) {
                return Ok(sections.table.get(stored, at())?);
            }
        }
        Ok(self.newest_in_memory(key, at))
    }

    /// Which of the oldest versions of a key nobody needs.
    pub(crate) fn superfluous_of(&self, chain: Chain<'_>) -> Superfluous {
        let rules = lock::read(&self.rules);
        let ruled = rules.of_key(chain.newest.key());
        chain.superfluous(&self.limits(ruled), ruled.pins)
    }

    /// What pruning of a key has to respect now. The rules are held from before this is asked
    /// until it is done: nobody becomes a fork in between.
    pub(crate) fn limits(&self, ruled: Ruled<'_>) -> Limits {
        self.registry.limits(ruled, self.garbage.tombstones_stay())
    }

    /// Notes what records that are about to be inserted make a fork.
    pub(crate) fn note_forks_in(&self, records: &[Record]) {
        let forks: Vec<Fork> = records.iter().filter_map(Fork::of).collect();
        if !forks.is_empty() {
            let mut rules = lock::write(&self.rules);
            forks.iter().for_each(|fork| rules.forks.note(fork));
        }
    }

    /// Notes that records have left the store. What that frees is forgotten soon: the rules may be
    /// held now.
    pub(crate) fn note_dropped(&self, dropped: &[Record]) {
        let forks = dropped.iter().filter_map(Fork::of);
        forks.for_each(|fork| lock::lock(&self.dropped_forks).push(fork));
    }

    /// Lets go of what only forks needed that are gone.
    pub(crate) fn forget_dropped(&self) {
        let dropped = std::mem::take(&mut *lock::lock(&self.dropped_forks));
        if !dropped.is_empty() {
            let mut rules = lock::write(&self.rules);
            dropped.iter().for_each(|fork| rules.forks.forget(fork));
        }
    }

    /// Inserts a record. Returns whether there may be something to prune when it is published.
    pub(crate) fn insert(&self, record: &Record) -> bool {
        assert!(!record.is_delta(), "a delta is folded, not kept");
        if is_fork_key(record.key()) {
            self.note_forks_in(std::slice::from_ref(record));
        }
        let inserted = self.directory.write(record.key(), |leaf| {
            let inserted = leaf.insert(record.clone());
            match inserted {
                Inserted::NewRow => self.points.add(record),
                Inserted::OnTop => self.points.set(record),
                Inserted::Below | Inserted::Known => {}
            }
            inserted
        });
        match inserted {
            Inserted::NewRow => record.is_tombstone(),
            Inserted::OnTop | Inserted::Below => true,
            Inserted::Known => false,
        }
    }

    fn take_back(&self, record: &Record) {
        let key = record.key();
        if let Some(fork) = Fork::of(record) {
            lock::write(&self.rules).forks.forget(&fork);
        }
        self.directory.thin(key, |leaf| {
            let Ok(row) = leaf.find(key) else { return };
            if leaf.take_back(row, record.version()) {
                self.points.remove(key);
            } else {
                self.points.set(&leaf.newest()[row]);
            }
        });
    }

    /// Drops what nobody needs of a key's versions, and returns it.
    pub(crate) fn prune(&self, key: &[u8]) -> Vec<Record> {
        let pruned = self.directory.thin(key, |leaf| {
            let Ok(row) = leaf.find(key) else { return Pruned::default() };
            let rules = lock::read(&self.rules);
            let ruled = rules.of_key(key);
            let (limits, domain) = (self.limits(ruled), ruled.domain);
            let may_drop = |floor| self.registry.may_drop(domain, floor);
            let pruned = leaf.prune(row, &limits, ruled.pins, may_drop);
            if pruned.row_gone {
                self.points.remove(key);
            }
            pruned
        });
        self.look_again(pruned.again_at, pruned.stayed);
        self.note_dropped(&pruned.dropped);
        pruned.dropped
    }

    /// Notes what pruning had to leave.
    pub(crate) fn look_again(&self, again_at: Option<Record>, stayed: Option<Record>) {
        again_at.into_iter().for_each(|record| self.garbage.wait(record));
        stayed.into_iter().for_each(|record| self.garbage.stay(record));
    }

    /// Prunes at most `steps` keys that have waited for the horizon to move.
    pub(crate) fn prune_waiting(&self, steps: usize) {
        for _ in 0..steps {
            let Some(record) = self.garbage.pop_due(self.registry.horizon()) else { return };
            self.prune(record.key());
        }
    }

    /// Ends a view.
    pub(crate) fn close_view(&self, version: Version, now: Timestamp) {
        self.registry.close(version, now);
        self.prune_waiting(PRUNE_STEPS_A_VIEW);
    }
}
