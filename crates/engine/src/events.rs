//! Event streams: appended to, never changed, numbered from 0 without gaps.
//!
//! An event's value is a list: its hash, the payload, then what is set of idempotency key, kind,
//! causation, correlation, the time the caller gave and scope, with `Null` for what is not.

use std::ops::{Bound, RangeBounds};

use steadfast_core::codec::Cursor;
use steadfast_core::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use steadfast_core::{
    Key, KeyRef, Record, Sabotage, Timestamp, TypeTag, Value, Version, event_key, event_seq,
    prefix_end, sabotaged, stream_prefix,
};

use crate::commit::Receipt;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::event_chain::{ChainCheck, EventHash, EventHead, behind_hash, seal, stored_hash};
use crate::fork::Versions;
use crate::runs::Run;
use crate::source::{Rows, Source};
use crate::streams::{KeyWindow, LiveKeys, StreamState, stream_names, stream_state, trimmed};
use crate::transaction::Transaction;
use crate::view::View;

/// What a stream must be like for an append to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expect {
    /// Anything.
    #[default]
    Any,
    /// It has no event.
    NoStream,
    /// Its last event has this sequence number.
    Exact(u64),
}

/// What goes with an event besides its payload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppendOptions {
    /// What the stream must be like.
    pub expect: Expect,
    /// Names this append within the run: a second one with the same key appends nothing and
    /// answers what the first did. Checked before the expectation.
    pub idempotency_key: Option<String>,
    /// What kind of event it is.
    pub kind: Option<String>,
    /// What caused it.
    pub causation: Option<String>,
    /// What it belongs to.
    pub correlation: Option<String>,
    /// When it happened, as the caller knows it; the commit has a time of its own.
    pub time: Option<Timestamp>,
    /// The second coordinate of an event. The stream says what entity it is about, and numbers
    /// it; the scope says in what context: a tenant, a room, a session.
    pub scope: Option<String>,
}

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The event's sequence number in its stream.
    pub seq: u64,
    /// The event's hash.
    pub hash: EventHash,
    /// The version of the commit that appended it, if that was an earlier one with the same
    /// idempotency key; this append then did nothing.
    pub original: Option<Version>,
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its place in the stream, from 0.
    pub seq: u64,
    /// What happened.
    pub payload: Value,
    /// The commit that appended it.
    pub version: Version,
    /// When that commit was made.
    pub timestamp: Timestamp,
    /// See [`AppendOptions::idempotency_key`].
    pub idempotency_key: Option<String>,
    /// See [`AppendOptions::kind`].
    pub kind: Option<String>,
    /// See [`AppendOptions::causation`].
    pub causation: Option<String>,
    /// See [`AppendOptions::correlation`].
    pub correlation: Option<String>,
    /// See [`AppendOptions::time`].
    pub time: Option<Timestamp>,
    /// See [`AppendOptions::scope`].
    pub scope: Option<String>,
    /// Its hash: of everything above but version and time of the commit, of its run and stream,
    /// and of the event before it.
    pub hash: EventHash,
}

/// An event as it is stored, but for its hash.
pub(crate) fn encode_event(payload: Value, options: &AppendOptions) -> Result<Vec<u8>> {
    let text = |text: &Option<String>| text.clone().map_or(Value::Null, Value::String);
    let time = match options.time {
        None => Value::Null,
        Some(time) => Value::Int(
            i64::try_from(time.as_micros())
                .map_err(|_| Error::Invalid(format!("an event at {time} is too far away")))?,
        ),
    };
    let mut parts = vec![
        Value::Bytes(EventHash::NONE.as_bytes().to_vec()),
        payload,
        text(&options.idempotency_key),
        text(&options.kind),
        text(&options.causation),
        text(&options.correlation),
        time,
        text(&options.scope),
    ];
    while parts.len() > 2 && parts.last() == Some(&Value::Null) {
        parts.pop();
    }
    let mut bytes = Vec::new();
    Value::List(parts).encode(&mut bytes)?;
    Ok(bytes)
}

/// The items of a stored event, looked over one by one: reading the list as a value would make a
/// list of values first, and most events have no more than a payload.
struct Items<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

impl<'a> Items<'a> {
    /// From the payload on.
    #[inline]
    fn of(record: &'a Record) -> steadfast_core::Result<Self> {
        let (left, bytes) = behind_hash(record.value_bytes()).ok_or_else(incomplete)?;
        Ok(Self { cursor: Cursor::new("event", bytes), left })
    }

    /// The next item, encoded; `None` behind the last one.
    #[inline]
    fn next(&mut self) -> steadfast_core::Result<Option<&'a [u8]>> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        Ok(Some(self.cursor.bytes()?))
    }

    fn value(&mut self) -> steadfast_core::Result<Value> {
        self.next()?.map_or(Ok(Value::Null), Value::decode)
    }

    fn text(&mut self) -> steadfast_core::Result<Option<String>> {
        match self.value()? {
            Value::String(text) => Ok(Some(text)),
            _ => Ok(None),
        }
    }
}

#[cold]
fn incomplete() -> steadfast_core::Error {
    Cursor::new("event", &[]).malformed("it lacks its hash, its payload or its place in a stream")
}

/// Reads the record of an event. Inlined, because an event is large and would be copied.
#[inline(always)]
pub(crate) fn decode_event(record: &Record) -> Result<Event> {
    Ok(event_in(record).map_err(|error| record.undecodable(error))?)
}

#[inline(always)]
fn event_in(record: &Record) -> steadfast_core::Result<Event> {
    let mut items = Items::of(record)?;
    let mut event = Event {
        seq: event_seq(record.key()).ok_or_else(incomplete)?,
        payload: Value::decode(items.next()?.ok_or_else(incomplete)?)?,
        version: record.version(),
        timestamp: record.timestamp(),
        idempotency_key: None,
        kind: None,
        causation: None,
        correlation: None,
        time: None,
        scope: None,
        hash: stored_hash(record).ok_or_else(incomplete)?,
    };
    if items.left > 0 {
        decode_options(&mut items, &mut event)?;
    }
    Ok(event)
}

/// Reads what is behind the payload.
#[inline(never)]
fn decode_options(items: &mut Items<'_>, event: &mut Event) -> steadfast_core::Result<()> {
    event.idempotency_key = items.text()?;
    event.kind = items.text()?;
    event.causation = items.text()?;
    event.correlation = items.text()?;
    event.time = match items.value()? {
        Value::Int(micros) => u64::try_from(micros).ok().map(Timestamp::from_micros),
        _ => None,
    };
    event.scope = items.text()?;
    Ok(())
}

pub(crate) fn idempotency_record_key(run: Run, key: &str) -> Result<Key> {
    if key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        return Err(Error::Invalid(format!(
            "the idempotency key has {} bytes, the limit is {IDEMPOTENCY_KEY_BYTES_MAX}",
            key.len()
        )));
    }
    Ok(Key::new(run.namespace, TypeTag::Idempotency, key.as_bytes())?)
}

/// What is kept for an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredReceipt {
    /// Where the event is that it stands for.
    pub(crate) stream: Vec<u8>,
    pub(crate) seq: u64,
    /// The hash of that event.
    pub(crate) hash: EventHash,
    /// How many events may follow in the stream before it stands for nothing; `None` for any
    /// number.
    pub(crate) events: Option<u64>,
}

impl StoredReceipt {
    pub(crate) fn to_value(&self) -> Result<Value> {
        let int = |n: u64| {
            let n = i64::try_from(n).map_err(|_| Error::Invalid("a sequence above 2^63".into()));
            n.map(Value::Int)
        };
        let hash = Value::Bytes(self.hash.as_bytes().to_vec());
        let mut parts = vec![Value::Bytes(self.stream.clone()), int(self.seq)?, hash];
        if let Some(events) = self.events {
            parts.push(int(events)?);
        }
        Ok(Value::List(parts))
    }

    pub(crate) fn decode(record: &Record) -> Result<Self> {
        let read = |value: Value| {
            let Value::List(parts) = value else { return None };
            let (first, events) = match parts.as_slice() {
                [first @ .., events] if parts.len() == 4 => {
                    (first, Some(u64::try_from(events.as_int()?).ok()?))
                }
                all => (all, None),
            };
            let [stream, seq, hash] = first else { return None };
            Some(Self {
                stream: stream.as_bytes()?.to_vec(),
                seq: u64::try_from(seq.as_int()?).ok()?,
                hash: EventHash::from_bytes(hash.as_bytes()?.try_into().ok()?),
                events,
            })
        };
        let malformed = || Error::from(record.undecodable("it is no receipt of an append"));
        read(record.value()?).ok_or_else(malformed)
    }

    /// Whether it still answers when so many events were ever appended to its stream.
    pub(crate) fn answers(&self, appended: u64) -> bool {
        self.events.is_none_or(|events| appended <= self.seq.saturating_add(events))
    }
}

/// The last event of a stream, as it is stored.
pub(crate) fn last_event(
    source: &mut impl Source,
    run: Run,
    stream: &[u8],
) -> Result<Option<Record>> {
    source.check_run(run)?;
    source.last_event(&stream_prefix(run.namespace, stream)?)
}

fn last_seq(source: &mut impl Source, run: Run, stream: &str) -> Result<Option<u64>> {
    Ok(head(source, run, stream.as_bytes())?.map(|head| head.seq))
}

/// Where a stream has come to, also if everything in it was trimmed.
pub(crate) fn head(source: &mut impl Source, run: Run, stream: &[u8]) -> Result<Option<EventHead>> {
    let last = match last_event(source, run, stream)? {
        Some(record) => {
            let head = event_seq(record.key()).zip(stored_hash(&record));
            let malformed = || Error::from(record.undecodable("it is no event"));
            let (seq, hash) = head.ok_or_else(malformed)?;
            let head = Some(EventHead { seq, hash });
            if Key::namespace_of(record.key()) == Some(run.namespace) {
                return Ok(head);
            }
            head
        }
        None => None,
    };
    // All that the run itself had may be trimmed, and what lies beneath a fork is still there.
    let trimmed = stream_state(source, run, stream)?.and_then(|state| state.trimmed);
    let Some(trimmed) = trimmed.filter(|head| last.is_none_or(|last| last.seq < head.seq)) else {
        return Ok(last);
    };
    // Nothing is there; but whoever appends has read that, and meets others who do.
    if let Some(next) = trimmed.seq.checked_add(1) {
        source.record(KeyRef::from(&event_key(run.namespace, stream, next)?))?;
    }
    Ok(Some(trimmed))
}

fn read(
    mut source: impl Source,
    run: Run,
    stream: &[u8],
    seqs: impl RangeBounds<u64>,
) -> Result<Events> {
    source.check_run(run)?;
    let at = |seq: u64| Ok::<_, Error>(event_key(run.namespace, stream, seq)?.as_bytes().to_vec());
    let behind = prefix_end(&stream_prefix(run.namespace, stream)?);
    let oldest = stream_state(&mut source, run, stream)?.map_or(0, |state| state.oldest());
    let start = match seqs.start_bound() {
        Bound::Included(seq) => Some(*seq),
        Bound::Excluded(seq) => seq.checked_add(1),
        Bound::Unbounded => Some(oldest),
    };
    if let Some(asked) = start.filter(|seq| *seq < oldest) {
        return Err(trimmed(stream, asked, oldest));
    }
    let start = start.map(at).transpose()?;
    let end = match seqs.end_bound() {
        Bound::Included(seq) => seq.checked_add(1).map(at).transpose()?.or(behind),
        Bound::Excluded(seq) => Some(at(*seq)?),
        Bound::Unbounded => behind,
    };
    // Behind the last sequence number there is, there is nothing.
    let (start, end) = start.map_or((Vec::new(), Some(Vec::new())), |start| (start, end));
    Ok(Events { rows: source.rows(start, end), filter: Filter::default(), filtered: false })
}

/// The keys of the events of a stream from `oldest` on: the first, and the first behind them.
fn keys_from(run: Run, stream: &[u8], oldest: u64) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
    let start = event_key(run.namespace, stream, oldest)?.as_bytes().to_vec();
    Ok((start, prefix_end(&stream_prefix(run.namespace, stream)?)))
}

/// Follows the chain of a stream through `records`, all there are of it behind what was trimmed.
fn verify(
    records: impl Iterator<Item = Result<Record>>,
    mut chain: ChainCheck,
    state: &StreamState,
    kept: Option<&EventHead>,
) -> Result<Option<EventHead>> {
    if let (Some(kept), Some(last)) = (kept, state.trimmed)
        && kept.seq < last.seq
    {
        return Err(trimmed(chain.stream(), kept.seq, state.oldest()));
    }
    let mut found = state.trimmed.filter(|last| kept.is_some_and(|kept| kept.seq == last.seq));
    for record in records {
        let head = chain.next(&record?)?;
        if kept.is_some_and(|kept| kept.seq == head.seq) {
            found = Some(head);
        }
    }
    if let Some(kept) = kept {
        chain.against(kept, found.map(|found| found.hash))?;
    }
    Ok(chain.head())
}

/// What an event must be like to be yielded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) kind: Option<String>,
    pub(crate) correlation: Option<String>,
    pub(crate) causation: Option<String>,
    pub(crate) scope: Option<String>,
    from: Option<Timestamp>,
    before: Option<Timestamp>,
}

impl Filter {
    /// The same for an event that is still as it is stored: nothing of it is copied.
    fn admits_stored(&self, record: &Record) -> Result<bool> {
        if self.from.is_some_and(|from| record.timestamp() < from)
            || self.before.is_some_and(|before| record.timestamp() >= before)
        {
            return Ok(false);
        }
        let mut items = Items::of(record)?;
        let mut same = |wanted: &Option<String>| {
            let found = items.next()?;
            let Some(wanted) = wanted else { return Ok::<_, Error>(true) };
            Ok(found.is_some_and(|found| Value::is_string(found, wanted)))
        };
        // In their order: payload, idempotency key, kind, causation, correlation, time, scope.
        Ok(same(&None)?
            && same(&None)?
            && same(&self.kind)?
            && same(&self.causation)?
            && same(&self.correlation)?
            && same(&None)?
            && same(&self.scope)?)
    }

    pub(crate) fn admits(&self, event: &Event) -> bool {
        let same = |wanted: &Option<String>, has: &Option<String>| {
            wanted.is_none() || wanted.as_deref() == has.as_deref()
        };
        same(&self.kind, &event.kind)
            && same(&self.correlation, &event.correlation)
            && same(&self.causation, &event.causation)
            && same(&self.scope, &event.scope)
            && self.from.is_none_or(|from| event.timestamp >= from)
            && self.before.is_none_or(|before| event.timestamp < before)
    }
}

/// The events of a stream in order, from both ends.
pub struct Events {
    rows: Rows,
    filter: Filter,
    /// Whether anything is asked of an event.
    filtered: bool,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

impl Events {
    /// Only those of this kind.
    pub fn of_kind(mut self, kind: impl Into<String>) -> Self {
        self.filter.kind = Some(kind.into());
        self.filtered = true;
        self
    }

    /// Only those that belong to this.
    pub fn of_correlation(mut self, correlation: impl Into<String>) -> Self {
        self.filter.correlation = Some(correlation.into());
        self.filtered = true;
        self
    }

    /// Only those that this caused.
    pub fn of_causation(mut self, causation: impl Into<String>) -> Self {
        self.filter.causation = Some(causation.into());
        self.filtered = true;
        self
    }

    /// Only those in this scope.
    pub fn of_scope(mut self, scope: impl Into<String>) -> Self {
        self.filter.scope = Some(scope.into());
        self.filtered = true;
        self
    }

    /// Only those that were committed from `from` on and before `before`.
    pub const fn committed_within(mut self, from: Timestamp, before: Timestamp) -> Self {
        self.filtered = true;
        (self.filter.from, self.filter.before) = (Some(from), Some(before));
        self
    }

    #[inline(always)]
    fn step(
        &mut self,
        mut row: impl FnMut(&mut Rows) -> Option<Result<Record>>,
    ) -> Option<Result<Event>> {
        loop {
            let record = match row(&mut self.rows)? {
                Ok(record) => record,
                Err(error) => return Some(Err(error)),
            };
            if self.filtered {
                match self.filter.admits_stored(&record) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(error) => return Some(Err(error)),
                }
            }
            return Some(decode_event(&record));
        }
    }
}

impl Iterator for Events {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(Rows::next)
    }
}

impl DoubleEndedIterator for Events {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(Rows::next_back)
    }
}

impl View {
    /// The events of `stream` in `run` from sequence number `from` on.
    ///
    /// # Errors
    ///
    /// Kind `HistoryTrimmed`, [`Error::EventsTrimmed`], if that one was trimmed: it names the
    /// oldest there is. All there are, also of a trimmed stream, gives
    /// [`View::event_read_range`] with `..`.
    pub fn event_read(&self, run: Run, stream: &str, from: u64) -> Result<Events> {
        read(self, run, stream.as_bytes(), from..)
    }

    pub(crate) fn events_of(&self, run: Run, stream: &[u8], from: u64) -> Result<Events> {
        read(self, run, stream, from..)
    }

    /// The events of `stream` in `run` with these sequence numbers. A range without a beginning
    /// begins with the oldest event there is; one that begins with a trimmed event is an error, as
    /// of [`View::event_read`].
    pub fn event_read_range(
        &self,
        run: Run,
        stream: &str,
        seqs: impl RangeBounds<u64>,
    ) -> Result<Events> {
        read(self, run, stream.as_bytes(), seqs)
    }

    /// The sequence number of the last event of `stream`, also if it was trimmed; `None` if it
    /// never had one.
    pub fn event_last(&self, run: Run, stream: &str) -> Result<Option<u64>> {
        let mut source = self;
        last_seq(&mut source, run, stream)
    }

    /// The sequence number and the hash of the last event of `stream`, to be kept outside of the
    /// database; `None` if it never had one.
    pub fn event_head(&self, run: Run, stream: &str) -> Result<Option<EventHead>> {
        let mut source = self;
        head(&mut source, run, stream.as_bytes())
    }

    /// Reads every event of `stream` and follows its hash chain, from the kept hash of the last
    /// trimmed event on, if there is one. Returns the last event's head; `None` if the stream never
    /// had one.
    ///
    /// It finds what was edited, swapped, inserted, dropped, deleted or written a second time.
    /// What it cannot find by itself is that the newest events are gone together with everything
    /// that spoke of them: see [`View::event_verify_against`].
    ///
    /// # Errors
    ///
    /// Kind `Corruption`, [`Error::EventChain`], with the first event that is not as it was.
    pub fn event_verify(&self, run: Run, stream: &str) -> Result<Option<EventHead>> {
        self.verify_stream(run, stream.as_bytes(), None)
    }

    /// As [`View::event_verify`], and that `head`, which [`View::event_head`] once gave, is in
    /// the chain: so nothing up to it was changed, and it was not cut off.
    ///
    /// # Errors
    ///
    /// As [`View::event_verify`]. Kind `HistoryTrimmed` if the event was trimmed and is not the
    /// last that was: only of that one the hash is kept, and of `head` nothing can be said.
    pub fn event_verify_against(
        &self,
        run: Run,
        stream: &str,
        head: &EventHead,
    ) -> Result<Option<EventHead>> {
        self.verify_stream(run, stream.as_bytes(), Some(head))
    }

    /// A chain that nothing was read of yet.
    fn chain_of(&self, run: Run, stream: &[u8], state: &StreamState) -> ChainCheck {
        ChainCheck::behind(run.id, stream, state.trimmed)
            .going_back_to(&self.namespaces.ancestors(run.namespace))
    }

    pub(crate) fn verify_stream(
        &self,
        run: Run,
        stream: &[u8],
        head: Option<&EventHead>,
    ) -> Result<Option<EventHead>> {
        Source::check_run(&self, run)?;
        let mut source = self;
        let state = stream_state(&mut source, run, stream)?.unwrap_or_default();
        // Every version: an event has one, and it is no deletion.
        let (start, end) = keys_from(run, stream, state.oldest())?;
        let records = Versions::new(&self.inner, &self.namespaces, &start, end.as_deref())?;
        verify(records, self.chain_of(run, stream, &state), &state, head)
    }

    /// Follows the hash chains of all streams of `run`. Returns how many there are.
    ///
    /// # Errors
    ///
    /// As [`View::event_verify`], of the first stream that is not as it was.
    pub fn event_verify_all(&self, run: Run) -> Result<u64> {
        let streams = self.event_streams(run)?;
        for stream in &streams {
            self.verify_stream(run, stream, None)?;
        }
        Ok(streams.len() as u64)
    }

    /// How many idempotency keys all runs have.
    pub(crate) fn all_event_keys(&self) -> Result<u64> {
        let runs = self.list_runs()?;
        runs.iter().try_fold(0, |sum, info| Ok(sum + self.event_keys(info.run)?))
    }

    /// How many idempotency keys of `run` answer. Each lives as long as its run, unless its stream
    /// had a [`KeyWindow`](crate::KeyWindow) when it was appended.
    pub fn event_keys(&self, run: Run) -> Result<u64> {
        let mut source = self;
        source.check_run(run)?;
        let start = Key::first_of(run.namespace, TypeTag::Idempotency).as_bytes().to_vec();
        let end = prefix_end(&start);
        let mut live = LiveKeys::new(self, run);
        source.rows(start, end).try_fold(0, |count, row| {
            Ok(count + u64::from(live.has(&StoredReceipt::decode(&row?)?)?))
        })
    }

    /// The streams of `run`, in the order of their names, also those of which every event was
    /// trimmed. They are found by skipping from one to the next.
    pub fn event_streams(&self, run: Run) -> Result<Vec<Vec<u8>>> {
        stream_names(self, run)
    }
}

impl Transaction {
    /// The events of `stream` in `run` from sequence number `from` on, as this transaction
    /// sees them now.
    pub fn event_read(&mut self, run: Run, stream: &str, from: u64) -> Result<Events> {
        read(self, run, stream.as_bytes(), from..)
    }

    /// The events of `stream` in `run` with these sequence numbers.
    pub fn event_read_range(
        &mut self,
        run: Run,
        stream: &str,
        seqs: impl RangeBounds<u64>,
    ) -> Result<Events> {
        read(self, run, stream.as_bytes(), seqs)
    }

    /// The sequence number of the last event of `stream`; `None` if it has none.
    pub fn event_last(&mut self, run: Run, stream: &str) -> Result<Option<u64>> {
        last_seq(self, run, stream)
    }

    /// As [`View::event_head`], with what this transaction has appended.
    pub fn event_head(&mut self, run: Run, stream: &str) -> Result<Option<EventHead>> {
        head(self, run, stream.as_bytes())
    }

    /// As [`View::event_verify`], with what this transaction has appended.
    pub fn event_verify(&mut self, run: Run, stream: &str) -> Result<Option<EventHead>> {
        Source::check_run(self, run)?;
        let stream = stream.as_bytes();
        let state = stream_state(self, run, stream)?.unwrap_or_default();
        let (start, end) = keys_from(run, stream, state.oldest())?;
        let rows = Source::rows(self, start, end);
        let chain = self.committed().chain_of(run, stream, &state);
        verify(rows, chain, &state, None)
    }

    /// Appends an event to `stream` in `run`. Returns its sequence number.
    pub fn event_append(
        &mut self,
        run: Run,
        stream: &str,
        payload: impl Into<Value>,
    ) -> Result<u64> {
        let options = AppendOptions::default();
        self.event_append_with(run, stream, payload, &options).map(|done| done.seq)
    }

    /// Appends an event to `stream` in `run`.
    ///
    /// # Errors
    ///
    /// Kind `Conflict` if the expectation does not hold.
    pub fn event_append_with(
        &mut self,
        run: Run,
        stream: &str,
        payload: impl Into<Value>,
        options: &AppendOptions,
    ) -> Result<Appended> {
        self.check_run(run)?;
        if let Some(known) = self.event_known(run, options.idempotency_key.as_deref())? {
            return Ok(known);
        }
        let head = head(self, run, stream.as_bytes())?;
        let last = head.map(|head| head.seq);
        let holds = match options.expect {
            Expect::Any => true,
            Expect::NoStream => last.is_none(),
            Expect::Exact(seq) => last == Some(seq),
        };
        if !holds {
            let say = |last: Option<u64>| {
                last.map_or("no event".to_owned(), |seq| format!("last event {seq}"))
            };
            let expected = match options.expect {
                Expect::Exact(seq) => Some(seq),
                _ => None,
            };
            return Err(Error::Mismatch {
                what: format!("stream {stream}"),
                expected: say(expected),
                found: say(last),
            });
        }
        let step = u64::from(!sabotaged(Sabotage::SequenceReused));
        let seq = last.map_or(Some(0), |last| last.checked_add(step));
        let seq = seq.ok_or_else(|| Error::Invalid(format!("stream {stream} is full")))?;
        let key = event_key(run.namespace, stream.as_bytes(), seq)?;
        let mut value = encode_event(payload.into(), options)?;
        let previous = head.map_or(EventHash::NONE, |head| head.hash);
        let hash = seal(run.id, stream.as_bytes(), seq, &previous, &mut value);
        if let Some(idempotency_key) = &options.idempotency_key {
            let keys = stream_state(self, run, stream.as_bytes())?.unwrap_or_default().keys;
            let events = if let KeyWindow::Events(events) = keys { Some(events) } else { None };
            let receipt = StoredReceipt { stream: stream.as_bytes().to_vec(), seq, hash, events };
            let expiry = match keys {
                KeyWindow::Time(time) => Some(self.now().after(time)),
                _ => None,
            };
            let known = idempotency_record_key(run, idempotency_key)?;
            self.put(run, &known, &receipt.to_value()?, expiry)?;
        }
        self.put_encoded(run, &key, &value)?;
        // The next append looks there first.
        let prefix = key.as_bytes().len() - size_of::<u64>();
        self.database().last_events().note(&key.as_bytes()[..prefix], seq);
        Ok(Appended { seq, hash, original: None })
    }

    /// What the append with this idempotency key did, if there was one in this run and its key
    /// still answers.
    pub fn event_known(
        &mut self,
        run: Run,
        idempotency_key: Option<&str>,
    ) -> Result<Option<Appended>> {
        let Some(idempotency_key) = idempotency_key else { return Ok(None) };
        let key = idempotency_record_key(run, idempotency_key)?;
        let Some(record) = self.record(KeyRef::from(&key))? else { return Ok(None) };
        let receipt = StoredReceipt::decode(&record)?;
        if receipt.events.is_some() {
            let head = head(self, run, &receipt.stream)?;
            if !receipt.answers(head.map_or(0, |head| head.seq.saturating_add(1))) {
                return Ok(None);
            }
        }
        let StoredReceipt { seq, hash, .. } = receipt;
        Ok(Some(Appended { seq, hash, original: Some(record.version()) }))
    }
}

impl Database {
    /// [`View::event_read`] of a view opened now.
    pub fn event_read(&self, run: Run, stream: &str, from: u64) -> Result<Events> {
        self.view()?.event_read(run, stream, from)
    }

    /// [`View::event_head`] of a view opened now.
    pub fn event_head(&self, run: Run, stream: &str) -> Result<Option<EventHead>> {
        self.view()?.event_head(run, stream)
    }

    /// [`View::event_verify`] of a view opened now.
    pub fn event_verify(&self, run: Run, stream: &str) -> Result<Option<EventHead>> {
        self.view()?.event_verify(run, stream)
    }

    /// [`View::event_verify_against`] of a view opened now.
    pub fn event_verify_against(
        &self,
        run: Run,
        stream: &str,
        head: &EventHead,
    ) -> Result<Option<EventHead>> {
        self.view()?.event_verify_against(run, stream, head)
    }

    /// [`Transaction::event_append`] in a transaction of its own. Returns the sequence number
    /// and the receipt.
    pub fn event_append(
        &self,
        run: Run,
        stream: &str,
        payload: impl Into<Value>,
    ) -> Result<(u64, Receipt)> {
        let payload = payload.into();
        self.transaction(|tx| tx.event_append(run, stream, payload.clone()))
    }

    /// [`Transaction::event_append_with`] in a transaction of its own.
    pub fn event_append_with(
        &self,
        run: Run,
        stream: &str,
        payload: impl Into<Value>,
        options: &AppendOptions,
    ) -> Result<(Appended, Receipt)> {
        let payload = payload.into();
        self.transaction(|tx| tx.event_append_with(run, stream, payload.clone(), options))
    }

    /// Appends several events, to one stream or several, all or none. Returns what each
    /// append did.
    pub fn event_append_batch(
        &self,
        run: Run,
        events: &[(&str, Value, AppendOptions)],
    ) -> Result<(Vec<Appended>, Receipt)> {
        self.transaction(|tx| {
            let append = |(stream, payload, options): &(&str, Value, AppendOptions)| {
                tx.event_append_with(run, stream, payload.clone(), options)
            };
            events.iter().map(append).collect()
        })
    }
}
