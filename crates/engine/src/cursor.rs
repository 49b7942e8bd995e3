//! Durable cursors: every event of a region once, in order, whatever crashes in between.
//!
//! A cursor's position is data of the run: a state cell named `cursor:` and the cursor's name,
//! with the next sequence number of every stream that it has read from. It moves in the
//! transaction in which the events are processed, so it is lost or kept with what they caused,
//! and goes wherever the run goes: dump, backup, export.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use steadfast_core::{Value, Version};

use crate::change::Region;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::events::{Event, Events};
use crate::runs::Run;
use crate::streams::stream_state;
use crate::transaction::Transaction;
use crate::view::View;

/// What the name of the cell begins with that holds a cursor's position.
const CELL_PREFIX: &str = "cursor:";

/// An event and the stream it is of.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamEvent {
    /// The stream.
    pub stream: Vec<u8>,
    /// The event.
    pub event: Event,
}

/// The next sequence number of each stream.
type Place = BTreeMap<Vec<u8>, u64>;

/// A consumer of events that goes on where it stopped, also after a crash.
///
/// Several processes in turn, or threads at once, may run a cursor of the same name: each event
/// is processed once.
#[derive(Debug, Clone)]
pub struct Cursor {
    database: Database,
    run: Run,
    cell: String,
    region: Region,
}

impl Database {
    /// The cursor `name` of `run`, over the events of `region` in that run. A new one begins
    /// before the first event there is.
    pub fn cursor(&self, run: Run, name: &str, region: Region) -> Result<Cursor> {
        self.pipeline()?;
        self.check_run(run)?;
        Ok(Cursor { database: self.clone(), run, cell: format!("{CELL_PREFIX}{name}"), region })
    }
}

impl Cursor {
    /// Processes the next events, at most `limit`, in one transaction with all that `work` does
    /// in it, in the order in which they were committed. Returns how many there were; 0 means
    /// that none is left for now.
    ///
    /// The position moves with that transaction, so what `work` writes through it happens
    /// exactly once an event. `work` may run several times before it is committed, and should do
    /// nothing outside of the transaction that must happen only once.
    ///
    /// # Errors
    ///
    /// What `work` returned, and then nothing was processed; kind `HistoryTrimmed` if events were
    /// trimmed that it had not come to: see [`Cursor::skip_trimmed`]; or as
    /// [`Transaction::commit`].
    pub fn process(
        &self,
        limit: usize,
        mut work: impl FnMut(&mut Transaction, &StreamEvent) -> Result<()>,
    ) -> Result<usize> {
        let (count, _) = self.database.transaction(|tx| {
            let mut place = self.place_in(tx)?;
            let mut count = 0;
            // Events never change, so reading them here is no reason for a conflict: only who
            // else moves this cursor is.
            let view = tx.committed();
            if place.is_empty() {
                // A new one begins where the streams do.
                place = oldest(&view, self.run, &self.region)?;
            }
            // What lies outside of the region is passed over, but not for ever in one go.
            let mut due = Due::of(&view, self.run, &self.region, &place)?;
            while count < limit {
                let Some(next) = due.next()? else { break };
                if self.region.admits(&next.event) {
                    work(tx, &next)?;
                    count += 1;
                }
            }
            if due.note(&mut place) {
                tx.state_set(self.run, &self.cell, encode(&place))?;
            }
            Ok(count)
        })?;
        Ok(count)
    }

    /// The next event; it counts as processed when this returns.
    pub fn poll(&self) -> Result<Option<StreamEvent>> {
        let mut found = None;
        self.process(1, |_, event| {
            found = Some(event.clone());
            Ok(())
        })?;
        Ok(found)
    }

    /// The next sequence number that it will read of `stream`.
    pub fn position(&self, stream: impl AsRef<[u8]>) -> Result<u64> {
        let cell = self.database.state_read(self.run, &self.cell)?;
        let place = decode(cell.map(|cell| cell.value))?;
        Ok(place.get(stream.as_ref()).copied().unwrap_or(0))
    }

    /// Passes over the events that were trimmed before it came to them. Returns how many it will
    /// never see.
    pub fn skip_trimmed(&self) -> Result<u64> {
        let (skipped, _) = self.database.transaction(|tx| {
            let mut place = self.place_in(tx)?;
            let mut skipped = 0;
            for (stream, oldest) in oldest(&tx.committed(), self.run, &self.region)? {
                let next = place.entry(stream).or_insert(0);
                skipped += oldest.saturating_sub(*next);
                *next = oldest.max(*next);
            }
            tx.state_set(self.run, &self.cell, encode(&place))?;
            Ok(skipped)
        })?;
        Ok(skipped)
    }

    /// Goes back to before the first event there is.
    pub fn rewind(&self) -> Result<()> {
        self.database.state_set(self.run, &self.cell, encode(&Place::new())).map(drop)
    }

    fn place_in(&self, tx: &mut Transaction) -> Result<Place> {
        decode(tx.state_read(self.run, &self.cell)?.map(|cell| cell.value))
    }
}

/// The oldest event of each stream of `region` that was trimmed.
fn oldest(view: &View, run: Run, region: &Region) -> Result<Place> {
    let mut place = Place::new();
    for name in view.event_streams(run)?.into_iter().filter(|name| region.has_stream(name)) {
        let mut source = view;
        if let Some(state) = stream_state(&mut source, run, &name)?
            && state.oldest() > 0
        {
            place.insert(name, state.oldest());
        }
    }
    Ok(place)
}

fn encode(place: &Place) -> Value {
    let pair = |(stream, seq): (&Vec<u8>, &u64)| {
        let seq = i64::try_from(*seq).unwrap_or(i64::MAX);
        [Value::Bytes(stream.clone()), Value::Int(seq)]
    };
    Value::List(place.iter().flat_map(pair).collect())
}

fn decode(value: Option<Value>) -> Result<Place> {
    let malformed = || Error::Invalid("the cell of the cursor holds no position".into());
    let Some(value) = value else { return Ok(Place::new()) };
    let Value::List(parts) = value else { return Err(malformed()) };
    let pair = |pair: &[Value]| match pair {
        [Value::Bytes(stream), Value::Int(seq)] => {
            Ok((stream.clone(), u64::try_from(*seq).map_err(|_| malformed())?))
        }
        _ => Err(malformed()),
    };
    parts.chunks(2).map(pair).collect()
}

/// The events of several streams that were not read yet, merged in the order of commits.
struct Due {
    streams: Vec<DueStream>,
    /// The next event of each stream, by version; of one commit in the order of streams.
    heap: BinaryHeap<Reverse<(Version, usize)>>,
}

struct DueStream {
    name: Vec<u8>,
    events: Events,
    next: Option<Event>,
    /// Behind the last one that was taken.
    taken: Option<u64>,
}

impl Due {
    fn of(view: &View, run: Run, region: &Region, place: &Place) -> Result<Self> {
        let mut due = Self { streams: Vec::new(), heap: BinaryHeap::new() };
        for name in view.event_streams(run)? {
            if !region.has_stream(&name) {
                continue;
            }
            let from = place.get(&name).copied().unwrap_or(0);
            let mut events = view.events_of(run, &name, from)?;
            let Some(first) = events.next().transpose()? else { continue };
            due.heap.push(Reverse((first.version, due.streams.len())));
            due.streams.push(DueStream { name, events, next: Some(first), taken: None });
        }
        Ok(due)
    }

    fn next(&mut self) -> Result<Option<StreamEvent>> {
        let Some(Reverse((_, at))) = self.heap.pop() else { return Ok(None) };
        let due = &mut self.streams[at];
        let following = due.events.next().transpose()?;
        if let Some(following) = &following {
            self.heap.push(Reverse((following.version, at)));
        }
        let Some(event) = std::mem::replace(&mut due.next, following) else { return Ok(None) };
        due.taken = Some(event.seq + 1);
        Ok(Some(StreamEvent { stream: due.name.clone(), event }))
    }

    /// Puts what was taken into `place`. Whether anything was.
    fn note(self, place: &mut Place) -> bool {
        let taken = self.streams.into_iter().filter_map(|due| Some((due.name, due.taken?)));
        let mut moved = false;
        for (name, next) in taken {
            place.insert(name, next);
            moved = true;
        }
        moved
    }
}
