//! Event streams: appended to, never changed, numbered from 0 without gaps.
//!
//! An event's value is a list: the payload, then what is set of idempotency key, kind,
//! causation, correlation and the time the caller gave, with `Null` for what is not.

use steadfast_core::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use steadfast_core::{
    Key, KeyRef, Record, Sabotage, Timestamp, TypeTag, Value, Version, event_key, event_seq,
    prefix_end, sabotaged, stream_name, stream_prefix,
};

use crate::commit::Receipt;
use crate::database::Database;
use crate::error::{Error, Result};
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
}

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The event's sequence number in its stream.
    pub seq: u64,
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
}

/// The value that an event is stored as.
pub(crate) fn event_value(payload: Value, options: &AppendOptions) -> Result<Value> {
    let text = |text: &Option<String>| text.clone().map_or(Value::Null, Value::String);
    let time = match options.time {
        None => Value::Null,
        Some(time) => Value::Int(
            i64::try_from(time.as_micros())
                .map_err(|_| Error::Invalid(format!("an event at {time} is too far away")))?,
        ),
    };
    let mut parts = vec![
        payload,
        text(&options.idempotency_key),
        text(&options.kind),
        text(&options.causation),
        text(&options.correlation),
        time,
    ];
    while parts.len() > 1 && parts.last() == Some(&Value::Null) {
        parts.pop();
    }
    Ok(Value::List(parts))
}

/// Reads the record of an event.
pub(crate) fn decode_event(record: &Record) -> Result<Event> {
    let malformed = || Error::Invalid(format!("{record:?} is not an event"));
    let Value::List(parts) = record.value()? else { return Err(malformed()) };
    let mut parts = parts.into_iter();
    let payload = parts.next().ok_or_else(malformed)?;
    let mut text = || match parts.next() {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let (idempotency_key, kind, causation, correlation) = (text(), text(), text(), text());
    let time = match parts.next() {
        Some(Value::Int(micros)) => u64::try_from(micros).ok().map(Timestamp::from_micros),
        _ => None,
    };
    Ok(Event {
        seq: event_seq(record.key()).ok_or_else(malformed)?,
        payload,
        version: record.version(),
        timestamp: record.timestamp(),
        idempotency_key,
        kind,
        causation,
        correlation,
        time,
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

/// The value kept for an idempotency key: where the event it stands for is.
pub(crate) fn idempotency_value(stream: &[u8], seq: u64) -> Result<Value> {
    let seq = i64::try_from(seq).map_err(|_| Error::Invalid("a sequence above 2^63".into()))?;
    Ok(Value::List(vec![Value::Bytes(stream.to_vec()), Value::Int(seq)]))
}

fn last_seq(source: &mut impl Source, run: Run, stream: &str) -> Result<Option<u64>> {
    source.check_run(run)?;
    let prefix = stream_prefix(run.namespace, stream.as_bytes())?;
    let last = source.last_row(&prefix, prefix_end(&prefix))?;
    Ok(last.and_then(|record| event_seq(record.key())))
}

fn read(mut source: impl Source, run: Run, stream: &str, from: u64) -> Result<Events> {
    source.check_run(run)?;
    let start = event_key(run.namespace, stream.as_bytes(), from)?.as_bytes().to_vec();
    let end = prefix_end(&stream_prefix(run.namespace, stream.as_bytes())?);
    Ok(Events(source.rows(start, end)))
}

/// The events of a stream in order, from both ends.
pub struct Events(Rows);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

impl Iterator for Events {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|row| decode_event(&row?))
    }
}

impl DoubleEndedIterator for Events {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back().map(|row| decode_event(&row?))
    }
}

impl View {
    /// The events of `stream` in `run` from sequence number `from` on.
    pub fn event_read(&self, run: Run, stream: &str, from: u64) -> Result<Events> {
        read(self, run, stream, from)
    }

    /// The sequence number of the last event of `stream`; `None` if it has none.
    pub fn event_last(&self, run: Run, stream: &str) -> Result<Option<u64>> {
        let mut source = self;
        last_seq(&mut source, run, stream)
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
        read(self, run, stream, from)
    }

    /// The sequence number of the last event of `stream`; `None` if it has none.
    pub fn event_last(&mut self, run: Run, stream: &str) -> Result<Option<u64>> {
        last_seq(self, run, stream)
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
        let last = last_seq(self, run, stream)?;
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
        let value = event_value(payload.into(), options)?;
        if let Some(idempotency_key) = &options.idempotency_key {
            let known = idempotency_record_key(run, idempotency_key)?;
            self.put(run, &known, &idempotency_value(stream.as_bytes(), seq)?, None)?;
        }
        self.put(run, &key, &value, None)?;
        Ok(Appended { seq, original: None })
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
        let seq = match record.value()? {
            Value::List(parts) => match parts.get(1) {
                Some(Value::Int(seq)) => u64::try_from(*seq).ok(),
                _ => None,
            },
            _ => None,
        };
        let seq = seq.ok_or_else(|| Error::Invalid(format!("{record:?} is not a receipt")))?;
        Ok(Some(Appended { seq, original: Some(record.version()) }))
    }
}

impl Database {
    /// [`View::event_read`] of a view opened now.
    pub fn event_read(&self, run: Run, stream: &str, from: u64) -> Result<Events> {
        self.view()?.event_read(run, stream, from)
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
