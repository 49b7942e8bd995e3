//! Projections: events folded into a state that is kept beside the position it has come to.
//!
//! State and position lie in one state cell, `projection/NAME/STREAM` (`projection/NAME` for a
//! whole run), and move in one transaction. So every event is folded exactly once, whatever
//! crashes and however many fold at the same time.
//!
//! The cell holds a map: `version`, `next` (by stream, the sequence number to go on with),
//! `state`; and, while a state of another version is being built, the same three under
//! `rebuild`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use steadfast_core::{Value, Version};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::events::{Event, Events};
use crate::runs::Run;
use crate::view::View;

/// How events become a state.
///
/// ```
/// use steadfast_engine::{Database, Error, Event, Projection, Value};
///
/// struct Total;
///
/// impl Projection for Total {
///     const NAME: &'static str = "total";
///     const VERSION: u32 = 1;
///     type State = i64;
///
///     fn apply(&self, total: &mut i64, _stream: &str, event: &Event) -> Result<(), Error> {
///         *total += event.payload.as_int().unwrap_or(0);
///         Ok(())
///     }
///
///     fn save(&self, total: &i64) -> Result<Value, Error> {
///         Ok(Value::Int(*total))
///     }
///
///     fn load(&self, saved: Value) -> Result<i64, Error> {
///         saved.as_int().ok_or_else(|| Error::Invalid("a total is an integer".into()))
///     }
/// }
///
/// let db = Database::in_memory()?;
/// let run = db.create_run("shop")?;
/// db.event_append(run, "sales", 3)?;
/// assert_eq!(db.project(run, "sales", &Total)?, 3);
/// db.event_append(run, "sales", 4)?;
/// assert_eq!(db.project(run, "sales", &Total)?, 7);
/// # Ok::<(), Error>(())
/// ```
///
/// With the feature `serde`, `typed::to_value` and `typed::from_value` are all that `save` and
/// `load` need.
pub trait Projection {
    /// Names it within a run; without `/`. Its states lie in the state cells
    /// `projection/NAME/STREAM`, and `projection/NAME` for a whole run.
    const NAME: &'static str;

    /// Another version means another state: it is folded anew from the first event. To be
    /// changed with whatever [`Projection::apply`] makes of events, and with the form that
    /// [`Projection::save`] gives a state.
    const VERSION: u32;

    /// Most events that are folded in one transaction. More make catching up faster, since the
    /// state is written once for each of them; fewer lose less to a crash.
    const BATCH_EVENTS: usize = 1000;

    /// What events are folded into; before the first, its default.
    type State: Default;

    /// Folds `event` of `stream` into `state`. Must do the same whenever it is called with the
    /// same, and nothing besides: a transaction that lost to another runs again.
    ///
    /// # Errors
    ///
    /// Whatever it returns ends the folding there. The events of the same transaction count as
    /// not folded, those of earlier ones stay folded.
    fn apply(&self, state: &mut Self::State, stream: &str, event: &Event) -> Result<()>;

    /// The value that a state is kept as.
    fn save(&self, state: &Self::State) -> Result<Value>;

    /// The state that a value was kept of.
    fn load(&self, saved: Value) -> Result<Self::State>;
}

/// A state and how far it has come.
#[derive(Debug, Clone, PartialEq)]
struct Fold {
    version: u32,
    /// By stream, the sequence number to go on with.
    next: BTreeMap<String, u64>,
    /// `None` before the first event.
    state: Option<Value>,
}

/// What a cell holds.
#[derive(Debug, Default)]
struct Kept {
    current: Option<Fold>,
    /// Of another version, and not there yet.
    rebuild: Option<Fold>,
}

impl Fold {
    const fn new(version: u32) -> Self {
        Self { version, next: BTreeMap::new(), state: None }
    }

    fn into_fields(self) -> Result<BTreeMap<String, Value>> {
        let too_far = |_| Error::Invalid("a sequence above 2^63".into());
        let next = self.next.into_iter();
        let next = next
            .map(|(stream, seq)| Ok((stream, Value::Int(i64::try_from(seq).map_err(too_far)?))));
        let mut fields = BTreeMap::from([
            ("version".to_owned(), Value::Int(self.version.into())),
            ("next".to_owned(), Value::Map(next.collect::<Result<_>>()?)),
        ]);
        if let Some(state) = self.state {
            fields.insert("state".to_owned(), state);
        }
        Ok(fields)
    }

    fn from_fields(fields: &mut BTreeMap<String, Value>) -> Option<Self> {
        let version = u32::try_from(fields.remove("version")?.as_int()?).ok()?;
        let Value::Map(next) = fields.remove("next")? else { return None };
        let next = next.into_iter();
        let next = next.map(|(stream, seq)| Some((stream, u64::try_from(seq.as_int()?).ok()?)));
        Some(Self { version, next: next.collect::<Option<_>>()?, state: fields.remove("state") })
    }
}

impl Kept {
    fn into_value(self) -> Result<Value> {
        let mut fields = match self.current {
            Some(current) => current.into_fields()?,
            None => BTreeMap::new(),
        };
        if let Some(rebuild) = self.rebuild {
            fields.insert("rebuild".to_owned(), Value::Map(rebuild.into_fields()?));
        }
        Ok(Value::Map(fields))
    }

    fn from_value(value: Value, cell: &str) -> Result<Self> {
        let read = |value| {
            let Value::Map(mut fields) = value else { return None };
            let rebuild = match fields.remove("rebuild") {
                None => None,
                Some(Value::Map(mut fields)) => Some(Fold::from_fields(&mut fields)?),
                Some(_) => return None,
            };
            Some(Self { current: Some(Fold::from_fields(&mut fields)?), rebuild })
        };
        read(value).ok_or_else(|| Error::Invalid(format!("cell {cell} holds no projection")))
    }
}

/// Events of several streams in the order of their commits, and of streams and sequence
/// numbers within one.
struct Merged<'a> {
    streams: Vec<(&'a str, Events, Option<Event>)>,
    /// The streams with an event to come, by its version.
    due: BinaryHeap<Reverse<(Version, usize)>>,
}

impl<'a> Merged<'a> {
    fn new(
        view: &View,
        run: Run,
        streams: &'a [String],
        next: &BTreeMap<String, u64>,
    ) -> Result<Self> {
        let mut merged = Self { streams: Vec::new(), due: BinaryHeap::new() };
        for (index, stream) in streams.iter().enumerate() {
            let next = next.get(stream).copied().unwrap_or(0);
            merged.streams.push((stream, view.event_read(run, stream, next)?, None));
            merged.fetch(index)?;
        }
        Ok(merged)
    }

    fn fetch(&mut self, index: usize) -> Result<()> {
        let (_, events, head) = &mut self.streams[index];
        *head = events.next().transpose()?;
        if let Some(head) = head {
            self.due.push(Reverse((head.version, index)));
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    fn next(&mut self) -> Result<Option<(&'a str, Event)>> {
        let Some(Reverse((_, index))) = self.due.pop() else { return Ok(None) };
        let (stream, _, head) = &mut self.streams[index];
        let (stream, event) = (*stream, head.take().expect("a stream is due for its head"));
        self.fetch(index)?;
        Ok(Some((stream, event)))
    }
}

fn cell_name<P: Projection>(stream: Option<&str>) -> Result<String> {
    if P::NAME.is_empty() || P::NAME.contains('/') {
        return Err(Error::Invalid(format!("{:?} cannot name a projection", P::NAME)));
    }
    Ok(match stream {
        Some(stream) => format!("projection/{}/{stream}", P::NAME),
        None => format!("projection/{}", P::NAME),
    })
}

fn stream_names(view: &View, run: Run) -> Result<Vec<String>> {
    let text = |name: Vec<u8>| {
        let no_text = |_| Error::Invalid("a stream's name is not UTF-8".into());
        String::from_utf8(name).map_err(no_text)
    };
    view.event_streams(run)?.into_iter().map(text).collect()
}

impl View {
    /// The state of `projection` over `stream` in `run` as it is kept, without folding what has
    /// come since. `None` if none is kept of this version, or if it is still being rebuilt.
    pub fn projected<P: Projection>(
        &self,
        run: Run,
        stream: &str,
        projection: &P,
    ) -> Result<Option<P::State>> {
        self.kept(run, &cell_name::<P>(Some(stream))?, projection)
    }

    /// As [`View::projected`], over all streams of `run`.
    pub fn projected_run<P: Projection>(
        &self,
        run: Run,
        projection: &P,
    ) -> Result<Option<P::State>> {
        self.kept(run, &cell_name::<P>(None)?, projection)
    }

    fn kept<P: Projection>(
        &self,
        run: Run,
        cell: &str,
        projection: &P,
    ) -> Result<Option<P::State>> {
        let Some(found) = self.state_read(run, cell)? else { return Ok(None) };
        let current = Kept::from_value(found.value, cell)?.current;
        let state = current.filter(|fold| fold.version == P::VERSION).and_then(|fold| fold.state);
        state.map(|state| projection.load(state)).transpose()
    }
}

impl Database {
    /// Folds the events of `stream` in `run` that `projection` has not folded yet, up to those
    /// that are visible when it begins, and returns the state.
    ///
    /// Goes in transactions of at most [`Projection::BATCH_EVENTS`] events. After a crash it goes
    /// on where the last one that was kept ended. A state of another [`Projection::VERSION`] is
    /// folded anew from the first event, likewise in batches; until that is done the old state
    /// stays kept, for whoever reads it with its version.
    ///
    /// # Errors
    ///
    /// What the projection returns; kind `HistoryTrimmed` if events that are to be folded were
    /// trimmed, `NotFound` if they are missing; else as [`Database::transaction`].
    pub fn project<P: Projection>(
        &self,
        run: Run,
        stream: &str,
        projection: &P,
    ) -> Result<P::State> {
        let cell = cell_name::<P>(Some(stream))?;
        self.fold(run, &cell, &self.view()?, &[stream.to_owned()], projection)
    }

    /// As [`Database::project`], over all streams of `run`: in the order of commits, and within a
    /// commit in the order of streams' names and of sequence numbers. What it keeps, and what a
    /// batch costs, grows with the number of streams.
    pub fn project_run<P: Projection>(&self, run: Run, projection: &P) -> Result<P::State> {
        let view = self.view()?;
        let streams = stream_names(&view, run)?;
        self.fold(run, &cell_name::<P>(None)?, &view, &streams, projection)
    }

    fn fold<P: Projection>(
        &self,
        run: Run,
        cell: &str,
        view: &View,
        streams: &[String],
        projection: &P,
    ) -> Result<P::State> {
        loop {
            let ((state, done), _) = self.transaction(|tx| {
                let kept = tx.state_read(run, cell)?;
                let kept = kept.map(|kept| Kept::from_value(kept.value, cell)).transpose()?;
                let mut kept = kept.unwrap_or_default();
                let rebuilds = kept.current.as_ref().is_some_and(|f| f.version != P::VERSION);
                let fold = if rebuilds { kept.rebuild.take() } else { kept.current.take() };
                let fold = fold.filter(|fold| fold.version == P::VERSION);
                let mut fold = fold.unwrap_or(Fold::new(P::VERSION));
                let mut state = match fold.state.take() {
                    Some(saved) => projection.load(saved)?,
                    None => P::State::default(),
                };
                // Events never change, so they are read beside the transaction: an append
                // does not conflict with it. Who folds is settled by the cell alone.
                let mut events = Merged::new(view, run, streams, &fold.next)?;
                let mut folded = 0;
                while folded < P::BATCH_EVENTS.max(1) {
                    let Some((stream, event)) = events.next()? else { break };
                    let next = fold.next.entry(stream.to_owned()).or_insert(0);
                    if event.seq != *next {
                        return Err(Error::NotFound(format!(
                            "event {next} of stream {stream} is not kept any more, and projection \
                             {} needs it",
                            P::NAME
                        )));
                    }
                    projection.apply(&mut state, stream, &event)?;
                    *next = event.seq + 1;
                    folded += 1;
                }
                let done = events.is_empty();
                if folded > 0 || rebuilds {
                    fold.state = Some(projection.save(&state)?);
                    if done || !rebuilds {
                        // What is being built for another version goes on, unless it was this.
                        kept.current = Some(fold);
                    } else {
                        kept.rebuild = Some(fold);
                    }
                    tx.state_set(run, cell, kept.into_value()?)?;
                }
                Ok((state, done))
            })?;
            if done {
                return Ok(state);
            }
        }
    }
}
