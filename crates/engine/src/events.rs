//! Event streams: appended to, never changed, numbered from 0 without gaps.
//!
//! An event's value is a list: its hash, the payload, then what is set of idempotency key, kind,
//! causation, correlation, the time the caller gave and scope, with `Null` for what is not.

use std::ops::{Bound, RangeBounds};

use steadfast_core::codec::Cursor;
use steadfast_core::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use steadfast_core::{
    Key, KeyRef, Record, Sabotage, Timestamp, TypeTag, Value, Version, event_key, event_seq,
    prefix_end, sabotaged, stream_name, stream_prefix,
};

use crate::commit::Receipt;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::event_chain::{ChainCheck, EventHash, EventHead, seal, stored_hash};
use crate::runs::Run;
use crate::source::{Rows, Source};
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

/// Reads the record of an event.
pub(crate) fn decode_event(record: &Record) -> Result<Event> {
    Ok(event_in(record).map_err(|error| record.undecodable(error))?)
}

fn event_in(record: &Record) -> steadfast_core::Result<Event> {
    // Reading the list as a value would make a list of values first, and most have no more than
    // a payload. Tag and count of the list are looked over, item by item.
    let mut items = Cursor::new("event", record.value_bytes());
    let incomplete = items.malformed("it lacks its hash, its payload or its place in a stream");
    items.u8()?;
    let mut left = items.length()?.checked_sub(2).ok_or_else(|| incomplete.clone())?;
    items.bytes()?;
    let payload = Value::decode(items.bytes()?)?;
    let mut item = || {
        if left == 0 {
            return Ok(Value::Null);
        }
        left -= 1;
        Value::decode(items.bytes()?)
    };
    let mut text = || match item()? {
        Value::String(text) => Ok(Some(text)),
        _ => Ok(None),
    };
    let (idempotency_key, kind, causation, correlation) = (text()?, text()?, text()?, text()?);
    let time = match item()? {
        Value::Int(micros) => u64::try_from(micros).ok().map(Timestamp::from_micros),
        _ => None,
    };
    let scope = match item()? {
        Value::String(scope) => Some(scope),
        _ => None,
    };
    Ok(Event {
        seq: event_seq(record.key()).ok_or_else(|| incomplete.clone())?,
        payload,
        version: record.version(),
        timestamp: record.timestamp(),
        idempotency_key,
        kind,
        causation,
        correlation,
        time,
        scope,
        hash: stored_hash(record).ok_or(incomplete)?,
    })
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

/// The value kept for an idempotency key: where the event it stands for is, and its hash.
pub(crate) fn idempotency_value(stream: &[u8], seq: u64, hash: &EventHash) -> Result<Value> {
    let seq = i64::try_from(seq).map_err(|_| Error::Invalid("a sequence above 2^63".into()))?;
    let hash = Value::Bytes(hash.as_bytes().to_vec());
    Ok(Value::List(vec![Value::Bytes(stream.to_vec()), Value::Int(seq), hash]))
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
    let last = last_event(source, run, stream.as_bytes())?;
    Ok(last.and_then(|record| event_seq(record.key())))
}

fn head(source: &mut impl Source, run: Run, stream: &str) -> Result<Option<EventHead>> {
    let Some(record) = last_event(source, run, stream.as_bytes())? else { return Ok(None) };
    let head = event_seq(record.key()).zip(stored_hash(&record));
    let malformed = || Error::from(record.undecodable("it is no event"));
    head.map(|(seq, hash)| Some(EventHead { seq, hash })).ok_or_else(malformed)
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
    let start = match seqs.start_bound() {
        Bound::Included(seq) => Some(at(*seq)?),
        Bound::Excluded(seq) => seq.checked_add(1).map(at).transpose()?,
        Bound::Unbounded => Some(at(0)?),
    };
    let end = match seqs.end_bound() {
        Bound::Included(seq) => seq.checked_add(1).map(at).transpose()?.or(behind),
        Bound::Excluded(seq) => Some(at(*seq)?),
        Bound::Unbounded => behind,
    };
    // Behind the last sequence number there is, there is nothing.
    let (start, end) = start.map_or((Vec::new(), Some(Vec::new())), |start| (start, end));
    Ok(Events { rows: source.rows(start, end), filter: Filter::default() })
}

/// Follows the chain of a stream through `records`, all there are of it.
fn verify(
    records: impl Iterator<Item = Result<Record>>,
    run: Run,
    stream: &[u8],
    kept: Option<&EventHead>,
) -> Result<Option<EventHead>> {
    let mut chain = ChainCheck::new(run.id, stream);
    let mut found = None;
    for record in records {
        let head = chain.next(&record?)?;
        if kept.is_some_and(|kept| kept.seq == head.seq) {
            found = Some(head.hash);
        }
    }
    if let Some(kept) = kept {
        chain.against(kept, found)?;
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
        self
    }

    /// Only those that belong to this.
    pub fn of_correlation(mut self, correlation: impl Into<String>) -> Self {
        self.filter.correlation = Some(correlation.into());
        self
    }

    /// Only those that this caused.
    pub fn of_causation(mut self, causation: impl Into<String>) -> Self {
        self.filter.causation = Some(causation.into());
        self
    }

    /// Only those in this scope.
    pub fn of_scope(mut self, scope: impl Into<String>) -> Self {
        self.filter.scope = Some(scope.into());
        self
    }

    /// Only those that were committed from `from` on and before `before`.
    pub const fn committed_within(mut self, from: Timestamp, before: Timestamp) -> Self {
        (self.filter.from, self.filter.before) = (Some(from), Some(before));
        self
    }

    fn step(
        &mut self,
        mut row: impl FnMut(&mut Rows) -> Option<Result<Record>>,
    ) -> Option<Result<Event>> {
        loop {
            match row(&mut self.rows)?.and_then(|record| decode_event(&record)) {
                Ok(event) if !self.filter.admits(&event) => {}
                event => return Some(event),
            }
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
    pub fn event_read(&self, run: Run, stream: &str, from: u64) -> Result<Events> {
        read(self, run, stream.as_bytes(), from..)
    }

    pub(crate) fn events_of(&self, run: Run, stream: &[u8], from: u64) -> Result<Events> {
        read(self, run, stream, from..)
    }

    /// The events of `stream` in `run` with these sequence numbers.
    pub fn event_read_range(
        &self,
        run: Run,
        stream: &str,
        seqs: impl RangeBounds<u64>,
    ) -> Result<Events> {
        read(self, run, stream.as_bytes(), seqs)
    }

    /// The sequence number of the last event of `stream`; `None` if it has none.
    pub fn event_last(&self, run: Run, stream: &str) -> Result<Option<u64>> {
        let mut source = self;
        last_seq(&mut source, run, stream)
    }

    /// The sequence number and the hash of the last event of `stream`, to be kept outside of the
    /// database; `None` if it has none.
    pub fn event_head(&self, run: Run, stream: &str) -> Result<Option<EventHead>> {
        let mut source = self;
        head(&mut source, run, stream)
    }

    /// Reads every event of `stream` and follows its hash chain. Returns the last event's head;
    /// `None` if the stream is empty.
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
    pub fn event_verify_against(
        &self,
        run: Run,
        stream: &str,
        head: &EventHead,
    ) -> Result<Option<EventHead>> {
        self.verify_stream(run, stream.as_bytes(), Some(head))
    }

    pub(crate) fn verify_stream(
        &self,
        run: Run,
        stream: &[u8],
        head: Option<&EventHead>,
    ) -> Result<Option<EventHead>> {
        Source::check_run(&self, run)?;
        let start = stream_prefix(run.namespace, stream)?;
        // Every version: an event has one, and it is no deletion.
        let records = match prefix_end(&start) {
            Some(end) => self.inner.range_versions(start..end),
            None => self.inner.range_versions(start..),
        };
        verify(records.map(|row| Ok(row?)), run, stream, head)
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

    /// How many idempotency keys `run` has. Each lives as long as its run.
    pub fn event_keys(&self, run: Run) -> Result<u64> {
        let mut source = self;
        source.check_run(run)?;
        let start = Key::first_of(run.namespace, TypeTag::Idempotency).as_bytes().to_vec();
        let end = prefix_end(&start);
        source.rows(start, end).try_fold(0, |count, row| row.map(|_| count + 1))
    }

    /// The streams of `run`, in the order of their names, found by skipping from one to the
    /// next.
    pub fn event_streams(&self, run: Run) -> Result<Vec<Vec<u8>>> {
        let mut source = self;
        source.check_run(run)?;
        let mut start = Key::first_of(run.namespace, TypeTag::Event).as_bytes().to_vec();
        let end = prefix_end(&start);
        let mut streams = Vec::new();
        while let Some(record) = source.rows(start, end.clone()).next().transpose()? {
            let Some(name) = stream_name(record.key()) else { break };
            let prefix = stream_prefix(run.namespace, &name)?;
            streams.push(name);
            match prefix_end(&prefix) {
                Some(next) => start = next,
                None => break,
            }
        }
        Ok(streams)
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
        head(self, run, stream)
    }

    /// As [`View::event_verify`], with what this transaction has appended.
    pub fn event_verify(&mut self, run: Run, stream: &str) -> Result<Option<EventHead>> {
        Source::check_run(self, run)?;
        let start = stream_prefix(run.namespace, stream.as_bytes())?;
        let end = prefix_end(&start);
        let rows = Source::rows(self, start, end);
        verify(rows, run, stream.as_bytes(), None)
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
        let head = head(self, run, stream)?;
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
            let known = idempotency_record_key(run, idempotency_key)?;
            self.put(run, &known, &idempotency_value(stream.as_bytes(), seq, &hash)?, None)?;
        }
        self.put_encoded(run, &key, &value)?;
        // The next append looks there first.
        let prefix = key.as_bytes().len() - size_of::<u64>();
        self.database().last_events().note(&key.as_bytes()[..prefix], seq);
        Ok(Appended { seq, hash, original: None })
    }

    /// What the append with this idempotency key did, if there was one in this run.
    pub fn event_known(
        &mut self,
        run: Run,
        idempotency_key: Option<&str>,
    ) -> Result<Option<Appended>> {
        let Some(idempotency_key) = idempotency_key else { return Ok(None) };
        let key = idempotency_record_key(run, idempotency_key)?;
        let Some(record) = self.record(KeyRef::from(&key))? else { return Ok(None) };
        let malformed = || Error::from(record.undecodable("it is no receipt of an append"));
        let Value::List(parts) = record.value()? else { return Err(malformed()) };
        let [_, Value::Int(seq), Value::Bytes(hash)] = parts.as_slice() else {
            return Err(malformed());
        };
        let seq = u64::try_from(*seq).map_err(|_| malformed())?;
        let hash = EventHash::from_bytes(hash.as_slice().try_into().map_err(|_| malformed())?);
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
