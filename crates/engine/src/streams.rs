//! What is kept of a stream beside its events: where it was trimmed, and how long the idempotency
//! keys of its appends live.
//!
//! It is one record, right before the events in the order of keys. A stream that was never
//! trimmed and keeps its keys for ever, as streams do, has none.
//!
//! **Trimming writes that record, whatever goes.** It says which event was the last to go and
//! that event's hash, so that the sequence and the hash chain go on. From that version on reads
//! begin behind it; views that are older go on showing the events. The rows go with the next full
//! compaction, as those of a deleted run do: tombstones of the version of the record are laid over
//! them, in memory only, so that retention, floors and open views are respected, and what a crash
//! undoes the record says again. Deleting event by event would have put as much into the log and
//! into memory as was to be got rid of.
//!
//! **An idempotency key has the window that its stream had when it was appended**: an expiry like
//! that of a key-value, or a number of events after which it stands for nothing any more. Whoever
//! finds a key looks which it is, so that it does not matter when its row goes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use steadfast_core::{
    Key, KeyRef, NamespaceId, Record, RecordBuilder, Timestamp, TypeTag, Value, Version, event_key,
    event_seq, prefix_end, stream_key, stream_name, stream_of, stream_prefix,
};
use steadfast_storage::UnifiedStore;

use crate::commit::Receipt;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::event_chain::{EventHash, EventHead, stored_hash};
use crate::events::StoredReceipt;
use crate::fork::place;
use crate::runs::Run;
use crate::source::Source;
use crate::transaction::Transaction;
use crate::view::View;

/// For how long the idempotency keys of a stream answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KeyWindow {
    /// As long as the run, also when their events were trimmed.
    #[default]
    Forever,
    /// Until so many more events were appended to the stream.
    Events(u64),
    /// Until so much time has passed since the append, by the database's clock.
    Time(Duration),
}

/// What is kept of a stream beside its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamState {
    /// The last event that was trimmed, if any was.
    pub trimmed: Option<EventHead>,
    /// How long the idempotency keys of appends from now on live.
    pub keys: KeyWindow,
}

impl StreamState {
    /// The sequence number of the oldest event that can be read, or, if there is none, that the
    /// next one will have.
    pub fn oldest(&self) -> u64 {
        self.trimmed.map_or(0, |trimmed| trimmed.seq.saturating_add(1))
    }

    pub(crate) fn to_value(self) -> Result<Value> {
        let int =
            |n: u64| i64::try_from(n).map_err(|_| Error::Invalid(format!("{n} is above 2^63")));
        let mut fields = BTreeMap::new();
        if let Some(EventHead { seq, hash }) = self.trimmed {
            fields.insert("seq".to_owned(), Value::Int(int(seq)?));
            fields.insert("hash".to_owned(), Value::Bytes(hash.as_bytes().to_vec()));
        }
        match self.keys {
            KeyWindow::Forever => {}
            KeyWindow::Events(events) => {
                drop(fields.insert("keys".into(), Value::Int(int(events)?)))
            }
            KeyWindow::Time(time) => {
                let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                fields.insert("keys_us".into(), Value::Int(int(micros)?));
            }
        }
        Ok(Value::Map(fields))
    }

    pub(crate) fn decode(record: &Record) -> Result<Self> {
        let read = |value: Value| {
            let Value::Map(fields) = value else { return None };
            let number = |name: &str| match fields.get(name) {
                None => Some(None),
                Some(value) => Some(Some(u64::try_from(value.as_int()?).ok()?)),
            };
            let hash = match fields.get("hash") {
                None => None,
                Some(hash) => Some(EventHash::from_bytes(hash.as_bytes()?.try_into().ok()?)),
            };
            let trimmed = match (number("seq")?, hash) {
                (None, None) => None,
                (Some(seq), Some(hash)) => Some(EventHead { seq, hash }),
                _ => return None,
            };
            let keys = match (number("keys")?, number("keys_us")?) {
                (None, None) => KeyWindow::Forever,
                (Some(events), None) => KeyWindow::Events(events),
                (None, Some(micros)) => KeyWindow::Time(Duration::from_micros(micros)),
                (Some(_), Some(_)) => return None,
            };
            Some(Self { trimmed, keys })
        };
        let malformed = || Error::from(record.undecodable("it is not what is kept of a stream"));
        read(record.value()?).ok_or_else(malformed)
    }
}

/// What is kept of `stream`; `None` if nothing is, as of most.
pub(crate) fn stream_state(
    source: &mut impl Source,
    run: Run,
    stream: &[u8],
) -> Result<Option<StreamState>> {
    let key = stream_key(run.namespace, stream)?;
    source.record(KeyRef::from(&key))?.map(|record| StreamState::decode(&record)).transpose()
}

fn state(mut source: impl Source, run: Run, stream: &str) -> Result<StreamState> {
    source.check_run(run)?;
    Ok(stream_state(&mut source, run, stream.as_bytes())?.unwrap_or_default())
}

/// Says that what was asked for was trimmed.
pub(crate) fn trimmed(stream: &[u8], asked: u64, oldest: u64) -> Error {
    Error::EventsTrimmed { stream: stream.escape_ascii().to_string(), asked, oldest }
}

/// The names of the streams in `run`, in their order, found by skipping from one to the next.
pub(crate) fn stream_names(mut source: impl Source, run: Run) -> Result<Vec<Vec<u8>>> {
    source.check_run(run)?;
    let mut start = Key::first_of(run.namespace, TypeTag::Event).as_bytes().to_vec();
    let end = prefix_end(&start);
    let mut streams = Vec::new();
    while let Some(record) = source.rows(start, end.clone()).next().transpose()? {
        let key = record.key();
        let Some(name) = stream_of(key).or_else(|| stream_name(key)) else { break };
        let prefix = stream_prefix(run.namespace, &name)?;
        streams.push(name);
        match prefix_end(&prefix) {
            Some(next) => start = next,
            None => break,
        }
    }
    Ok(streams)
}

/// Rows of one run in the order of their keys, without the events that were trimmed. Of what is
/// kept of a stream only the newest version.
pub(crate) struct Untrimmed<I> {
    rows: I,
    /// What the keys of events begin with that may have been trimmed, and the oldest that was not.
    stream: Option<(Vec<u8>, u64)>,
}

impl<I> Untrimmed<I> {
    pub(crate) const fn of(rows: I) -> Self {
        Self { rows, stream: None }
    }

    /// Whether a row is to be passed on.
    fn admits(&mut self, row: &Record) -> Result<bool> {
        let key = row.key();
        if Key::tag_of(key) != Some(TypeTag::Event) {
            return Ok(true);
        }
        // Without the run: in a fork rows come from several.
        let is_of = |prefix: &[u8]| place(key).starts_with(prefix);
        if let Some(name) = stream_of(key) {
            let prefix = place(&stream_prefix(NamespaceId::SYSTEM, &name)?).to_vec();
            if row.is_tombstone() || self.stream.as_ref().is_some_and(|last| last.0 == prefix) {
                return Ok(false);
            }
            self.stream = Some((prefix, StreamState::decode(row)?.oldest()));
            return Ok(true);
        }
        Ok(match &self.stream {
            Some((prefix, oldest)) if is_of(prefix) => {
                event_seq(key).is_none_or(|seq| seq >= *oldest)
            }
            _ => true,
        })
    }
}

impl<I, E> Iterator for Untrimmed<I>
where
    I: Iterator<Item = std::result::Result<Record, E>>,
    Error: From<E>,
{
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let row = match self.rows.next()? {
                Ok(row) => row,
                Err(error) => return Some(Err(error.into())),
            };
            match self.admits(&row) {
                Ok(true) => return Some(Ok(row)),
                Ok(false) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl View {
    /// Where `stream` in `run` was trimmed, and how long its idempotency keys live.
    pub fn event_stream(&self, run: Run, stream: &str) -> Result<StreamState> {
        state(self, run, stream)
    }
}

impl Transaction {
    /// As [`View::event_stream`], as this transaction sees it.
    pub fn event_stream(&mut self, run: Run, stream: &str) -> Result<StreamState> {
        state(self, run, stream)
    }

    /// Trims `stream` in `run`: from this commit on its events below the sequence number
    /// `before` are not there any more. Returns how many those are. Takes the same time and the
    /// same log however many.
    ///
    /// What stays: the sequence goes on, with the hash of the last event that went as what the
    /// next one follows, so [`View::event_verify`] goes on finding what was changed, also against
    /// a head that was kept before; idempotency keys answer as they did. Reading what went is an
    /// error, kind `HistoryTrimmed`, which names the oldest event there is. So is going on with a
    /// cursor or a projection that had not come so far.
    ///
    /// Views opened before go on showing the events, and views of the past do as far as history
    /// is kept. Their bytes are given back by the next
    /// [`CompactMode::Full`](crate::CompactMode::Full). Nothing trims a stream but this.
    ///
    /// # Errors
    ///
    /// Kind `Invalid` if the stream has not come so far, or if this transaction itself appended
    /// what is to go.
    pub fn event_trim(&mut self, run: Run, stream: &str, before: u64) -> Result<u64> {
        self.check_run(run)?;
        let name = stream.as_bytes();
        let state = stream_state(self, run, name)?.unwrap_or_default();
        let oldest = state.oldest();
        let Some(last) = before.checked_sub(1).filter(|_| before > oldest) else { return Ok(0) };
        let key = event_key(run.namespace, name, last)?;
        if self.has_written(&key) {
            let text =
                format!("event {last} of stream {stream} is not committed yet: trim it then");
            return Err(Error::Invalid(text));
        }
        let Some(event) = self.record(KeyRef::from(&key))? else {
            let text = format!("stream {stream} has no event {last}: nothing can be trimmed there");
            return Err(Error::Invalid(text));
        };
        let malformed = || Error::from(event.undecodable("it is no event"));
        let hash = stored_hash(&event).ok_or_else(malformed)?;
        let trimmed = Some(EventHead { seq: last, hash });
        self.put_stream_state(run, name, StreamState { trimmed, ..state })?;
        Ok(before - oldest)
    }

    /// Says how long the idempotency keys of appends to `stream` in `run` live, from the next
    /// append on. A key that has lived so long stands for nothing: an append with it appends.
    pub fn event_key_window(&mut self, run: Run, stream: &str, keys: KeyWindow) -> Result<()> {
        self.check_run(run)?;
        let name = stream.as_bytes();
        if keys == KeyWindow::Events(0) {
            return Err(Error::Invalid("a key lives for one more event at the least".into()));
        }
        let state = stream_state(self, run, name)?.unwrap_or_default();
        if state.keys == keys {
            return Ok(());
        }
        self.put_stream_state(run, name, StreamState { keys, ..state })
    }

    pub(crate) fn put_stream_state(
        &mut self,
        run: Run,
        stream: &[u8],
        state: StreamState,
    ) -> Result<()> {
        self.put(run, &stream_key(run.namespace, stream)?, &state.to_value()?, None)
    }
}

impl Database {
    /// [`View::event_stream`] of a view opened now.
    pub fn event_stream(&self, run: Run, stream: &str) -> Result<StreamState> {
        self.view()?.event_stream(run, stream)
    }

    /// [`Transaction::event_trim`] in a transaction of its own.
    ///
    /// ```
    /// use steadfast_engine::{Database, ErrorKind};
    ///
    /// let db = Database::in_memory()?;
    /// let run = db.create_run("shop")?;
    /// for n in 0..10 {
    ///     db.event_append(run, "orders", n)?;
    /// }
    /// let kept = db.event_head(run, "orders")?.expect("it has events");
    /// assert_eq!(db.event_trim(run, "orders", 7)?.0, 7);
    /// assert_eq!(db.event_read(run, "orders", 7)?.count(), 3);
    /// assert_eq!(db.event_read(run, "orders", 6).unwrap_err().kind(), ErrorKind::HistoryTrimmed);
    /// assert_eq!(db.event_append(run, "orders", 10)?.0, 10);
    /// db.event_verify_against(run, "orders", &kept)?;
    /// # Ok::<(), steadfast_engine::Error>(())
    /// ```
    pub fn event_trim(&self, run: Run, stream: &str, before: u64) -> Result<(u64, Receipt)> {
        self.transaction(|tx| tx.event_trim(run, stream, before))
    }

    /// [`Transaction::event_key_window`] in a transaction of its own.
    pub fn event_key_window(&self, run: Run, stream: &str, keys: KeyWindow) -> Result<Receipt> {
        self.transaction(|tx| tx.event_key_window(run, stream, keys)).map(|done| done.1)
    }
}

/// Rows that are buried at a time.
const STEP_ROWS: usize = 1024;

/// Lays tombstones over the events that were trimmed in `namespaces`, and over the idempotency
/// keys that more events have followed than they live for, from where retention and the open views
/// let them go. Everything must be in memory. `proceed` is told of the bytes of every step, and
/// says whether there is to be another.
pub(crate) fn bury_trimmed(
    store: &UnifiedStore,
    namespaces: Vec<NamespaceId>,
    now: Timestamp,
    mut proceed: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    for namespace in namespaces {
        proceed(0)?;
        let mut limited = false;
        let mut from = Key::first_of(namespace, TypeTag::Event).as_bytes().to_vec();
        let end = prefix_end(&from);
        loop {
            // The view ends here: it would keep what is buried.
            let row = crate::view::range(&store.view(now), from, end.clone()).next();
            let Some(row) = row.transpose()? else { break };
            if let Some(stream) = stream_of(row.key()) {
                limited = true;
                let oldest = event_key(namespace, &stream, StreamState::decode(&row)?.oldest())?;
                let first = event_key(namespace, &stream, 0)?;
                let rows = (first.as_bytes().to_vec(), oldest.as_bytes().to_vec());
                bury_rows(store, rows, now, &mut proceed, |event, _| {
                    Ok((event.version() < row.version()).then(|| stamp(&row)))
                })?;
            }
            let name = stream_of(row.key()).or_else(|| stream_name(row.key()));
            let behind = name.map(|name| stream_prefix(namespace, &name)).transpose()?;
            match behind.and_then(|prefix| prefix_end(&prefix)) {
                Some(next) => from = next,
                None => break,
            }
        }
        if limited {
            let first = Key::first_of(namespace, TypeTag::Idempotency).as_bytes().to_vec();
            let Some(end) = prefix_end(&first) else { continue };
            bury_rows(store, (first, end), now, &mut proceed, |row, view| ended(view, row))?;
        }
    }
    Ok(())
}

/// The version and time of a row.
fn stamp(row: &Record) -> (Version, Timestamp) {
    (row.version(), row.timestamp())
}

/// The commit that ended the life of an idempotency key, if it has ended for the events behind
/// its own.
fn ended(view: &steadfast_storage::View, row: &Record) -> Result<Option<(Version, Timestamp)>> {
    let StoredReceipt { stream, seq, events, .. } = StoredReceipt::decode(row)?;
    let Some(events) = events else { return Ok(None) };
    let namespace = Key::namespace_of(row.key()).expect("it was found by it");
    let last = seq.saturating_add(events);
    let event = view.get(event_key(namespace, &stream, last)?.as_bytes())?;
    let ending = match event {
        Some(event) => stamp(&event),
        // It was trimmed since, or never was.
        None => match view.get(stream_key(namespace, &stream)?.as_bytes())? {
            Some(state) if StreamState::decode(&state)?.oldest() > last => stamp(&state),
            _ => return Ok(None),
        },
    };
    // A commit that ended a key of its own hides it by what it says; its row goes behind it.
    let version = ending.0.max(row.version().next());
    Ok((version <= view.version()).then_some((version, ending.1)))
}

/// Lays tombstones over rows of a range, as deleted by the commits that `deleted` says.
fn bury_rows(
    store: &UnifiedStore,
    (mut from, end): (Vec<u8>, Vec<u8>),
    now: Timestamp,
    proceed: &mut impl FnMut(u64) -> Result<()>,
    deleted: impl Fn(&Record, &steadfast_storage::View) -> Result<Option<(Version, Timestamp)>>,
) -> Result<()> {
    while from < end {
        // A view of its own for each step: while it is open, what it shows is kept.
        let view = store.view(now);
        let (mut tombs, mut bytes, mut seen) = (Vec::new(), 0, 0);
        let mut last = None;
        for row in crate::view::range(&view, from.clone(), Some(end.clone())).take(STEP_ROWS) {
            let row = row?;
            seen += 1;
            if let Some((version, timestamp)) = deleted(&row, &view)? {
                bytes += row.payload_bytes() as u64;
                let tomb = RecordBuilder { version, timestamp, expiry: None };
                tombs.push(tomb.tombstone(row.key()));
            }
            last = Some(row);
        }
        drop(view);
        let superseded = store.apply(&tombs);
        store.prune(superseded);
        proceed(bytes)?;
        let Some(last) = last.filter(|_| seen == STEP_ROWS) else { break };
        from = [last.key(), &[0]].concat();
    }
    Ok(())
}

/// Tells which of the idempotency keys of a view still answer.
pub(crate) struct LiveKeys<'a> {
    view: &'a View,
    run: Run,
    /// By stream, how many events were ever appended.
    appended: HashMap<Vec<u8>, u64>,
}

impl<'a> LiveKeys<'a> {
    pub(crate) fn new(view: &'a View, run: Run) -> Self {
        Self { view, run, appended: HashMap::new() }
    }

    pub(crate) fn has(&mut self, receipt: &StoredReceipt) -> Result<bool> {
        if receipt.events.is_none() {
            return Ok(true);
        }
        let appended = match self.appended.get(&receipt.stream) {
            Some(appended) => *appended,
            None => {
                let mut source = self.view;
                let head = crate::events::head(&mut source, self.run, &receipt.stream)?;
                let appended = head.map_or(0, |head| head.seq.saturating_add(1));
                self.appended.insert(receipt.stream.clone(), appended);
                appended
            }
        };
        Ok(receipt.answers(appended))
    }
}
