//! Optimistic transactions: read at a view, write into a buffer, validate at commit.

use std::collections::BTreeMap;
use std::ops::Bound;

use steadfast_core::limits::{TXN_BYTES_MAX, TXN_WRITES_MAX};
use steadfast_core::signal::{Delta, Observation, Signal, SignalDefinition};
use steadfast_core::{
    CrashPoint, Key, KeyRef, NamespaceId, Record, RecordBuilder, Sabotage, Timestamp, Value,
    Version, WriteSet, check_crash_point, event_seq, prefix_end, sabotaged,
};

use crate::commit::{Pending, Receipt, Submission};
use crate::config::DurabilityMode;
use crate::database::Database;
use crate::deletion::grave_key;
use crate::error::{Error, Result};
use crate::fork::{Committed, moved, place};
use crate::namespaces::Namespaces;
use crate::recent::ReadSet;
use crate::runs::{Run, RunInfo, note_found};
use crate::signals::{first_own, fold_own, push_own};
use crate::source::{Rows, Source};
use crate::view::{View, check_live_at, no_such_run, range};

/// A transaction: everything it reads is from one point in history, with its own writes on
/// top, and its writes become visible together or not at all.
///
/// Transactions are serializable. [`Transaction::commit`] refuses with kind `Conflict` if a
/// commit after that point wrote a key, or into a range, that this one read;
/// [`Database::transaction`] then starts again by itself. Dropping a transaction rolls it
/// back.
pub struct Transaction {
    database: Database,
    view: steadfast_storage::View,
    reads: ReadSet,
    /// Its writes, by key, as records of [`Version::MAX`].
    writes: BTreeMap<Box<[u8]>, Record>,
    /// What it observed, by key; no key is in both.
    signals: BTreeMap<Box<[u8]>, Delta>,
    bytes: usize,
    /// Runs that it creates.
    created: Vec<Run>,
    /// Runs that it deletes.
    deleted: Vec<Run>,
    level: u8,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transaction(at {}, {} writes)", self.view.version(), self.writes.len())
    }
}

/// Counted for what a write set has in front of a key: it is at most this.
const HEAD_BYTES: usize = 32;

impl Transaction {
    pub(crate) fn new(database: &Database) -> Result<Self> {
        let view = database.pipeline()?.begin(database.now())?;
        let transaction = Self {
            database: database.clone(),
            view,
            reads: ReadSet::default(),
            writes: BTreeMap::new(),
            signals: BTreeMap::new(),
            bytes: 0,
            created: Vec::new(),
            deleted: Vec::new(),
            level: database.mode().level(),
        };
        check_crash_point(CrashPoint::AfterBeginTxn);
        Ok(transaction)
    }

    /// The version it reads at.
    pub fn version(&self) -> Version {
        self.view.version()
    }

    /// The time at which it looks: what expires by then it does not see.
    pub fn now(&self) -> Timestamp {
        self.view.now()
    }

    /// Asks for a durability above the database's for this commit. A lower one changes
    /// nothing.
    pub fn raise_durability(&mut self, mode: DurabilityMode) {
        self.level = self.level.max(mode.level());
    }

    /// How many keys it has written so far.
    pub fn write_count(&self) -> usize {
        self.writes.len() + self.signals.len()
    }

    /// Commits: validates, writes, waits for the durability asked for, and makes the writes
    /// visible. A transaction that wrote nothing always succeeds, since all it read was of
    /// one point in history.
    ///
    /// # Errors
    ///
    /// Kind `Conflict`: another commit wrote what this one had read. `Io`: it could not be
    /// written. In both cases nothing of it was committed. `Unknown`: a sync failed, and
    /// whether it was committed will be seen when the database is opened again.
    pub fn commit(self) -> Result<Receipt> {
        let (view, pipeline) = (self.view.version(), self.database.pipeline()?.clone());
        match self.queue()? {
            Some(pending) => pending.wait(),
            None => Ok(Receipt::of_nothing(pipeline, view)),
        }
    }

    /// Commits without waiting: validates, assigns the version and queues. Whatever is
    /// submitted before [`Pending::wait`] may share one write and one sync. `None` for a
    /// transaction that wrote nothing.
    ///
    /// # Errors
    ///
    /// As [`Transaction::commit`], for what goes wrong before it is queued.
    pub fn submit(self) -> Result<Option<Pending>> {
        let mut pending = self.queue()?;
        if let Some(pending) = &mut pending {
            pending.note_applied();
        }
        Ok(pending)
    }

    fn queue(mut self) -> Result<Option<Pending>> {
        if self.write_count() == 0 {
            if self.level == 2 {
                // What it read may be an earlier commit that its caller now relies on.
                self.database.pipeline()?.wait_durable(self.view.version())?;
            }
            return Ok(None);
        }
        self.submit_as(None).map(Some)
    }

    /// Submits as the version and time given, for restoring a dump.
    pub(crate) fn submit_as(&mut self, fixed: Option<(Version, Timestamp)>) -> Result<Pending> {
        let room = self.writes.values().map(|record| record.payload_bytes() + HEAD_BYTES).sum();
        let mut writes = WriteSet::with_capacity(room);
        let mut namespaces: Vec<NamespaceId> = Vec::new();
        for record in self.writes.values() {
            if record.is_tombstone() {
                writes.delete(record.key())?;
            } else {
                writes.put_encoded(record.key(), record.value_bytes(), record.expiry())?;
            }
            if let Some(namespace) = Key::namespace_of(record.key())
                && namespaces.last() != Some(&namespace)
            {
                // In key order, so each namespace comes once.
                namespaces.push(namespace);
            }
        }
        for (key, delta) in &self.signals {
            writes.delta(key, &delta.encode()?)?;
            if let Some(namespace) = Key::namespace_of(key)
                && !namespaces.contains(&namespace)
            {
                namespaces.push(namespace);
            }
        }
        // The index entry names a run before the run has data: define it with that.
        for run in &self.created {
            if !namespaces.contains(&run.namespace) {
                namespaces.push(run.namespace);
            }
        }
        self.reads.note_runs(grave_key);
        self.reads.seal();
        let reads = (self.view.version(), std::mem::take(&mut self.reads));
        let pipeline = self.database.pipeline()?.clone();
        pipeline.submit(Submission {
            writes,
            namespaces: namespaces.into(),
            reads: if fixed.is_some() { None } else { Some(reads) },
            level: self.level,
            fixed,
            created: self.created.iter().map(|run| run.namespace).collect(),
            deleted: self.deleted.iter().map(|run| run.namespace).collect(),
        })
    }

    /// What it looks at, without its own writes; reading there is never a conflict.
    pub(crate) fn committed(&self) -> View {
        self.database.wrap(self.view.clone())
    }

    /// Gives up everything it wrote.
    pub fn rollback(self) {}

    pub(crate) const fn database(&self) -> &Database {
        &self.database
    }

    /// Waits for nothing but the kernel, whatever the database's durability.
    pub(crate) fn lower_durability(&mut self) {
        self.level = 0;
    }

    pub(crate) fn note_created(&mut self, run: Run) {
        self.created.push(run);
    }

    pub(crate) fn note_deleted(&mut self, run: Run) {
        self.created.retain(|created| *created != run);
        self.deleted.push(run);
    }

    /// Whether it has written `key`.
    pub(crate) fn has_written(&self, key: &Key) -> bool {
        self.writes.contains_key(key.as_bytes())
    }

    /// Takes back what this transaction wrote to `run`.
    pub(crate) fn forget_writes(&mut self, run: Run) {
        let first = run.namespace.0.to_be_bytes();
        self.writes.retain(|key, _| !key.starts_with(&first));
        self.signals.retain(|key, _| !key.starts_with(&first));
    }

    /// Writes `value` to `key` of `run`.
    pub(crate) fn put(
        &mut self,
        run: Run,
        key: &Key,
        value: &Value,
        expiry: Option<Timestamp>,
    ) -> Result<()> {
        self.check_run(run)?;
        self.put_unchecked(key, value, expiry)
    }

    /// Writes an encoded value, checked already, to `key` of `run`.
    pub(crate) fn put_encoded(&mut self, run: Run, key: &Key, value: &[u8]) -> Result<()> {
        self.check_run(run)?;
        let bytes = [key.as_bytes(), value].concat();
        let builder = self.builder(None);
        self.write(builder.put(&bytes, key.as_bytes().len()))
    }

    /// Writes `value` to `key` of the database's own namespace.
    pub(crate) fn put_in_system(&mut self, key: &Key, value: &Value) -> Result<()> {
        self.put_unchecked(key, value, None)
    }

    /// Removes `key` of the database's own namespace.
    pub(crate) fn delete_in_system(&mut self, key: &Key) -> Result<()> {
        let tombstone = self.builder(None).tombstone(key.as_bytes());
        self.write(tombstone)
    }

    fn put_unchecked(&mut self, key: &Key, value: &Value, expiry: Option<Timestamp>) -> Result<()> {
        let mut bytes = Vec::with_capacity(key.as_bytes().len() + value.encoded_len());
        bytes.extend_from_slice(key.as_bytes());
        value.encode(&mut bytes)?;
        let builder = self.builder(expiry);
        self.write(builder.put(&bytes, key.as_bytes().len()))
    }

    /// Gives a signal the state it has elsewhere.
    pub(crate) fn put_signal(&mut self, run: Run, key: &Key, signal: &Signal) -> Result<()> {
        self.check_run(run)?;
        let mut bytes = key.as_bytes().to_vec();
        signal.encode(&mut bytes);
        let builder = self.builder(None);
        self.write(builder.put(&bytes, key.as_bytes().len()))
    }

    /// Removes `key` of `run`.
    pub(crate) fn delete(&mut self, run: Run, key: &Key) -> Result<()> {
        self.check_run(run)?;
        let tombstone = self.builder(None).tombstone(key.as_bytes());
        self.write(tombstone)
    }

    fn builder(&self, expiry: Option<Timestamp>) -> RecordBuilder {
        RecordBuilder { version: Version::MAX, timestamp: self.now(), expiry }
    }

    fn write(&mut self, record: Record) -> Result<()> {
        self.make_room(record.payload_bytes() + HEAD_BYTES)?;
        // What it observed of the key comes before, and is gone.
        self.signals.remove(record.key());
        self.writes.insert(record.key().into(), record);
        check_crash_point(CrashPoint::AfterWrite);
        Ok(())
    }

    fn make_room(&mut self, payload: usize) -> Result<()> {
        let (bytes, writes) = (self.bytes + payload, self.write_count() + 1);
        if bytes > TXN_BYTES_MAX || writes > TXN_WRITES_MAX {
            return Err(steadfast_core::Error::TransactionTooLarge { bytes, writes }.into());
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Notes an observation of the signal at `key`.
    pub(crate) fn observe(
        &mut self,
        key: &Key,
        definition: SignalDefinition,
        observation: Observation,
    ) -> Result<()> {
        if let Some(own) = self.writes.get(key.as_bytes()) {
            // It wrote the signal itself, so there is a value to fold into.
            let mut delta = first_own(definition);
            push_own(&mut delta, observation)?;
            let base = Some(own).filter(|own| !own.is_tombstone()).map(|own| {
                let builder = RecordBuilder { version: Version::ZERO, ..self.builder(None) };
                builder.put(&[own.key(), own.value_bytes()].concat(), own.key().len())
            });
            let folded = fold_own(base.as_ref(), key.as_bytes(), &delta, self.now())?;
            return self.write(folded);
        }
        let first = !self.signals.contains_key(key.as_bytes());
        if first && self.is_forked(key.as_bytes()) && self.copy_signal(key)? {
            return self.observe(key, definition, observation);
        }
        self.make_room(if first { key.as_bytes().len() + 64 } else { 16 })?;
        let delta = self.signals.entry(key.as_bytes().into());
        push_own(delta.or_insert_with(|| first_own(definition)), observation)?;
        check_crash_point(CrashPoint::AfterWrite);
        Ok(())
    }
}

impl Transaction {
    /// What it wrote to a key.
    pub(crate) fn own_write(&self, key: &[u8]) -> Option<&Record> {
        self.writes.get(key)
    }

    /// What it looks at, of what is committed.
    pub(crate) const fn view(&self) -> &steadfast_storage::View {
        &self.view
    }

    /// Whether it forks `run`.
    pub(crate) fn forks(&self, run: Run) -> bool {
        let forked = |created: &Run| {
            let layers = self.layers(created.namespace).unwrap_or_default();
            let own = layers.iter().filter(|layer| layer.version == Version::MAX);
            own.map(|layer| layer.namespace).any(|layer| layer == run.namespace)
        };
        self.created.iter().any(forked)
    }

    /// Writes a signal that only lies beneath its run into the run itself: deltas are folded into
    /// what is there. Returns whether there was one. That it was read makes two that do this at
    /// the same time follow one another.
    fn copy_signal(&mut self, key: &Key) -> Result<bool> {
        if self.view.newest(key.as_bytes())?.is_some() {
            return Ok(false);
        }
        let Some(beneath) = self.record(key.into())? else { return Ok(false) };
        let bytes = [key.as_bytes(), beneath.value_bytes()].concat();
        let builder = self.builder(None);
        self.write(builder.put(&bytes, key.as_bytes().len()))?;
        Ok(true)
    }
}

/// The end of a range in another run.
fn moved_end(end: &[u8], namespace: NamespaceId) -> Vec<u8> {
    match place(end) {
        // It is where the run ends.
        [] => prefix_end(&namespace.0.to_be_bytes()).unwrap_or_default(),
        _ => moved(end, namespace),
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Ok(pipeline) = self.database.pipeline() {
            pipeline.end(self.view.version());
        }
    }
}

impl Source for &mut Transaction {
    fn check_run(&self, run: Run) -> Result<()> {
        (**self).check_run(run)
    }

    fn found_run(&self, namespaces: &Namespaces, info: &RunInfo) -> Result<()> {
        (**self).found_run(namespaces, info)
    }

    fn record(&mut self, key: KeyRef<'_>) -> Result<Option<Record>> {
        (**self).record(key)
    }

    fn rows(&mut self, start: Vec<u8>, end: Option<Vec<u8>>) -> Rows {
        (**self).rows(start, end)
    }

    fn last_event(&mut self, prefix: &[u8]) -> Result<Option<Record>> {
        (**self).last_event(prefix)
    }
}

impl Source for Transaction {
    fn check_run(&self, run: Run) -> Result<()> {
        if self.created.contains(&run) {
            return Ok(());
        }
        if self.deleted.contains(&run) {
            return Err(no_such_run(run));
        }
        check_live_at(self.database.namespaces(), run, || self.view.version())
    }

    fn found_run(&self, namespaces: &Namespaces, info: &RunInfo) -> Result<()> {
        note_found(&self.view, namespaces, info)
    }

    fn record(&mut self, key: KeyRef<'_>) -> Result<Option<Record>> {
        let stored = key.to_vec();
        if let Some(own) = self.writes.get(&*stored) {
            return Ok(own.is_live(self.now()).then(|| own.clone()));
        }
        if !sabotaged(Sabotage::WriteSkew) {
            self.reads.key(&stored);
        }
        let committed = match self.view.get(key)? {
            None if self.is_forked(&stored) => self.beneath(&stored)?,
            found => found,
        };
        match self.signals.get(&*stored) {
            None => Ok(committed),
            Some(own) => fold_own(committed.as_ref(), &stored, own, self.now()).map(Some),
        }
    }

    fn rows(&mut self, start: Vec<u8>, end: Option<Vec<u8>>) -> Rows {
        // Whatever comes into the range conflicts, also past where the caller stops.
        self.reads.range(start.clone(), end.clone());
        self.note_read_beneath(&start, end.as_deref());
        self.rows_unread(start, end)
    }

    fn last_event(&mut self, prefix: &[u8]) -> Result<Option<Record>> {
        let end = prefix_end(prefix);
        let last = match self.own_last(prefix, end.as_deref()) {
            own if self.is_forked(prefix) => {
                self.note_read_beneath(prefix, end.as_deref());
                let hinted = if own.is_none() { self.hinted(prefix)? } else { None };
                match hinted {
                    Some(last) => Some(last),
                    None => self.rows_unread(prefix.to_vec(), end).next_back().transpose()?,
                }
            }
            // What is committed counts only behind it: nothing of its own is there.
            Some(own) if own.is_live(self.now()) => {
                let behind = [own.key(), &[0]].concat();
                let mut committed = range(&self.view, behind, end);
                committed.next_back().transpose()?.or(Some(own))
            }
            Some(_) => self.rows_unread(prefix.to_vec(), end).next_back().transpose()?,
            None => match self.hinted(prefix)? {
                Some(last) => Some(last),
                None => range(&self.view, prefix.to_vec(), end).next_back().transpose()?,
            },
        };
        if let Some(seq) = last.as_ref().and_then(|last| event_seq(last.key())) {
            self.database.last_events().note(prefix, seq);
        }
        // Events stay, and come one behind the other: only the next one would change the answer.
        let next = last.as_ref().and_then(|last| event_seq(last.key())?.checked_add(1));
        self.reads.key(&[prefix, &next.unwrap_or(0).to_be_bytes()].concat());
        Ok(last)
    }
}

impl Transaction {
    /// The last committed event of a stream, if a hint says where it is.
    fn hinted(&self, prefix: &[u8]) -> Result<Option<Record>> {
        /// So many that others have appended since, one by one.
        const STEPS_MAX: u32 = 4;
        let Some(mut seq) = self.database.last_events().hint(prefix) else { return Ok(None) };
        let mut key = [prefix, &seq.to_be_bytes()].concat();
        let mut last = self.view.get(&key)?;
        for _ in 0..STEPS_MAX {
            let Some(next) = seq.checked_add(1).filter(|_| last.is_some()) else { break };
            seq = next;
            key.truncate(prefix.len());
            key.extend_from_slice(&seq.to_be_bytes());
            match self.view.get(&key)? {
                // Nothing behind it, and streams have no gaps.
                None => return Ok(last),
                behind => last = behind,
            }
        }
        Ok(None)
    }

    /// The last of its own writes from `start` on, before `end`.
    fn own_last(&self, start: &[u8], end: Option<&[u8]>) -> Option<Record> {
        if end.is_some_and(|end| end <= start) {
            return None;
        }
        let upper = end.map_or(Bound::Unbounded, Bound::Excluded);
        let own = self.writes.range::<[u8], _>((Bound::Included(start), upper)).next_back();
        own.map(|(_, own)| own.clone())
    }

    /// The same where the transaction has observed something.
    fn rows_over_signals(&self, start: Vec<u8>, end: Option<Vec<u8>>) -> Rows {
        let inside = |key: &[u8]| {
            key >= start.as_slice() && end.as_ref().is_none_or(|end| key < end.as_slice())
        };
        let mut own: BTreeMap<&[u8], Record> = (self.writes.iter())
            .filter(|(key, _)| inside(key))
            .map(|(key, record)| (&**key, record.clone()))
            .collect();
        let mut failed = None;
        for (key, delta) in self.signals.iter().filter(|(key, _)| inside(key)) {
            let folded = self
                .view
                .get(key)
                .map_err(Error::from)
                .and_then(|committed| fold_own(committed.as_ref(), key, delta, self.now()));
            match folded {
                Ok(record) => drop(own.insert(key, record)),
                Err(error) => failed = Some(error),
            }
        }
        let own = own.into_values().collect();
        let rows = Rows::new(self.committed_rows(start, end), own, self.now());
        match failed {
            None => rows,
            Some(error) => rows.failed(error),
        }
    }

    fn rows_unread(&self, start: Vec<u8>, end: Option<Vec<u8>>) -> Rows {
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let lower = Bound::Included(start.as_slice());
        let own = if !self.own_beneath(&start).is_empty() {
            return self.rows_over_its_fork(start, end);
        } else if !self.signals.is_empty() {
            return self.rows_over_signals(start, end);
        } else if end.as_ref().is_some_and(|end| *end <= start) {
            // An empty range, which a map refuses to be asked for.
            Vec::new()
        } else {
            self.writes.range::<[u8], _>((lower, upper)).map(|(_, own)| own.clone()).collect()
        };
        Rows::new(self.committed_rows(start, end), own.into(), self.now())
    }

    fn committed_rows(&self, start: Vec<u8>, end: Option<Vec<u8>>) -> Committed {
        let layers = Key::namespace_of(&start).map_or(Ok(Vec::new()), |own| self.layers(own));
        Committed::new(&self.view, layers, start, end)
    }

    /// Whether the run of a stored key is a fork, or was.
    fn is_forked(&self, key: &[u8]) -> bool {
        let own = Key::namespace_of(key);
        own.is_some_and(|own| self.database.namespaces().has_ancestors(own))
    }

    /// What lies beneath the run of a key, of which this transaction wrote and observed nothing
    /// and nothing is live.
    #[cold]
    fn beneath(&mut self, stored: &[u8]) -> Result<Option<Record>> {
        let layers = Key::namespace_of(stored).map_or(Ok(Vec::new()), |own| self.layers(own))?;
        if layers.is_empty() || self.view.newest(stored)?.is_some() {
            return Ok(None);
        }
        for layer in layers {
            let key = moved(stored, layer.namespace);
            // What lies beneath never changes, but in a run that this transaction forks.
            let found = if layer.version < Version::MAX {
                self.view.newest_through(&key, layer.version)?
            } else if let Some(own) = self.writes.get(&*key) {
                Some(own.clone())
            } else {
                self.reads.key(&key);
                let committed = self.view.newest(&key)?;
                match self.signals.get(&*key) {
                    None => committed,
                    Some(own) => {
                        let base = committed.filter(|found| found.is_live(self.now()));
                        Some(fold_own(base.as_ref(), &key, own, self.now())?)
                    }
                }
            };
            if found.is_some() {
                return Ok(found.filter(|found| found.is_live(self.now())));
            }
        }
        Ok(None)
    }

    /// The runs beneath that of a key which this transaction forks itself, the nearest first.
    fn own_beneath(&self, key: &[u8]) -> Vec<NamespaceId> {
        if self.created.is_empty() || !self.is_forked(key) {
            return Vec::new();
        }
        let own = Key::namespace_of(key);
        let layers = own.and_then(|own| self.layers(own).ok()).unwrap_or_default();
        let current = layers.iter().take_while(|layer| layer.version == Version::MAX);
        current.map(|layer| layer.namespace).collect()
    }

    /// Notes that a range is read in the runs that this transaction forks, too.
    fn note_read_beneath(&mut self, start: &[u8], end: Option<&[u8]>) {
        for namespace in self.own_beneath(start) {
            self.reads.range(moved(start, namespace), end.map(|end| moved_end(end, namespace)));
        }
    }

    /// Rows of a run that this transaction forks: what it wrote to the runs beneath is there too.
    fn rows_over_its_fork(&self, start: Vec<u8>, end: Option<Vec<u8>>) -> Rows {
        let mut own: BTreeMap<Vec<u8>, Record> = BTreeMap::new();
        let mut runs = self.own_beneath(&start);
        runs.reverse();
        runs.extend(Key::namespace_of(&start));
        let mut failed = None;
        for namespace in runs {
            let first = moved(&start, namespace);
            let last = end.as_ref().map(|end| moved_end(end, namespace));
            let is_within = |key: &[u8]| {
                key >= first.as_slice() && last.as_ref().is_none_or(|last| key < last.as_slice())
            };
            for (key, record) in self.writes.iter().filter(|(key, _)| is_within(key)) {
                own.insert(place(key).to_vec(), record.clone());
            }
            for (key, delta) in self.signals.iter().filter(|(key, _)| is_within(key)) {
                let base = self.view.get(key).map_err(Error::from);
                let folded = base.and_then(|base| fold_own(base.as_ref(), key, delta, self.now()));
                match folded {
                    Ok(record) => drop(own.insert(place(key).to_vec(), record)),
                    Err(error) => failed = Some(error),
                }
            }
        }
        let own = own.into_values().collect();
        let rows = Rows::new(self.committed_rows(start, end), own, self.now());
        match failed {
            None => rows,
            Some(error) => rows.failed(error),
        }
    }
}

impl Database {
    /// Runs `work` in a transaction and commits it, starting again as often as another commit
    /// comes in between. Returns what `work` returned, and the receipt.
    ///
    /// `work` may run several times; it should do nothing that must happen only once. A
    /// transaction that keeps losing holds up the others for a moment, so every one gets
    /// through.
    ///
    /// # Errors
    ///
    /// What `work` returned, or as [`Transaction::commit`], but for conflicts with other
    /// commits.
    pub fn transaction<T>(
        &self,
        mut work: impl FnMut(&mut Transaction) -> Result<T>,
    ) -> Result<(T, Receipt)> {
        const LOSSES: u32 = 3;
        let pipeline = self.pipeline()?.clone();
        let mut lost = 0;
        loop {
            let priority = lost >= LOSSES && pipeline.take_priority();
            let outcome = self.begin().and_then(|mut transaction| {
                let value = work(&mut transaction)?;
                Ok((value, transaction.commit()?))
            });
            if priority {
                pipeline.leave_priority();
            }
            match outcome {
                Err(Error::Conflict { with, .. }) => {
                    lost += 1;
                    // Starting again before that commit is visible would lose to it again.
                    pipeline.settle(with);
                }
                outcome => return outcome,
            }
        }
    }
}
