//! Projections: exactly once, in order, rebuilt when their version changes.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;

use steadfast_engine::{Database, Error, ErrorKind, Event, Projection, Result, Run, Value};

/// Depends on every event and on their order; counts how often it folds.
#[derive(Default)]
struct Chain<const VERSION: u32> {
    folded: Cell<u64>,
    refuses: Cell<Option<i64>>,
}

impl<const VERSION: u32> Projection for Chain<VERSION> {
    const NAME: &'static str = "chain";
    const VERSION: u32 = VERSION;
    const BATCH_EVENTS: usize = 3;
    type State = String;

    fn apply(&self, state: &mut String, stream: &str, event: &Event) -> Result<()> {
        let n = event.payload.as_int().unwrap();
        if self.refuses.get() == Some(n) {
            return Err(Error::Invalid(format!("not {n}")));
        }
        self.folded.set(self.folded.get() + 1);
        *state += &format!("{stream}{n}v{VERSION} ");
        Ok(())
    }

    fn save(&self, state: &String) -> Result<Value> {
        Ok(state.as_str().into())
    }

    fn load(&self, saved: Value) -> Result<String> {
        saved.as_str().map(str::to_owned).ok_or_else(|| Error::Invalid("no text".into()))
    }
}

fn chain(stream: &str, version: u32, numbers: impl IntoIterator<Item = i64>) -> String {
    numbers.into_iter().map(|n| format!("{stream}{n}v{version} ")).collect()
}

#[test]
fn folds_every_event_once_and_goes_on_where_it_was() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    let first = Chain::<1>::default();
    assert_eq!(db.project(run, "s", &first).unwrap(), "");
    assert_eq!(db.view().unwrap().projected(run, "s", &first).unwrap(), None);
    for n in 0..7 {
        db.event_append(run, "s", n).unwrap();
    }
    let before = db.current_version();
    assert_eq!(db.project(run, "s", &first).unwrap(), chain("s", 1, 0..7));
    assert_eq!(db.current_version().0 - before.0, 3, "7 events in batches of 3");
    assert_eq!(db.project(run, "s", &first).unwrap(), chain("s", 1, 0..7));
    assert_eq!(db.current_version().0 - before.0, 3, "nothing new, nothing written");
    db.event_append(run, "s", 7).unwrap();
    db.event_append(run, "other", 8).unwrap();
    let view = db.view().unwrap();
    assert_eq!(view.projected(run, "s", &first).unwrap(), Some(chain("s", 1, 0..7)));
    assert_eq!(db.project(run, "s", &first).unwrap(), chain("s", 1, 0..8));
    assert_eq!(first.folded.get(), 8);
}

#[test]
fn an_event_that_is_refused_stops_it_there_and_nothing_is_lost() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    for n in 0..6 {
        db.event_append(run, "s", n).unwrap();
    }
    let first = Chain::<1>::default();
    first.refuses.set(Some(4));
    assert_eq!(db.project(run, "s", &first).unwrap_err().to_string(), "not 4");
    let view = db.view().unwrap();
    assert_eq!(view.projected(run, "s", &first).unwrap(), Some(chain("s", 1, 0..3)));
    first.refuses.set(None);
    assert_eq!(db.project(run, "s", &first).unwrap(), chain("s", 1, 0..6));
}

#[test]
fn another_version_is_rebuilt_and_until_then_the_old_one_is_read() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    for n in 0..8 {
        db.event_append(run, "s", n).unwrap();
    }
    let (first, second) = (Chain::<1>::default(), Chain::<2>::default());
    db.project(run, "s", &first).unwrap();
    // Two batches of the rebuild are kept, the third is not.
    second.refuses.set(Some(6));
    db.project(run, "s", &second).unwrap_err();
    let view = db.view().unwrap();
    assert_eq!(view.projected(run, "s", &first).unwrap(), Some(chain("s", 1, 0..8)));
    assert_eq!(view.projected(run, "s", &second).unwrap(), None);
    // The old program goes on meanwhile, and takes nothing from the rebuild.
    db.event_append(run, "s", 8).unwrap();
    assert_eq!(db.project(run, "s", &first).unwrap(), chain("s", 1, 0..9));
    second.refuses.set(None);
    second.folded.set(0);
    assert_eq!(db.project(run, "s", &second).unwrap(), chain("s", 2, 0..9));
    assert_eq!(second.folded.get(), 3, "it went on after the second batch");
    let view = db.view().unwrap();
    assert_eq!(view.projected(run, "s", &first).unwrap(), None);
    assert_eq!(view.projected(run, "s", &second).unwrap(), Some(chain("s", 2, 0..9)));
    // Back again is another version too; also where there is nothing to fold.
    assert_eq!(db.project(run, "s", &first).unwrap(), chain("s", 1, 0..9));
}

#[test]
fn a_run_is_folded_in_the_order_of_its_commits_however_it_is_cut() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    let at_once = Chain::<1>::default();
    let mut expected = String::new();
    let mut n = 0;
    for step in 0..20 {
        let streams: &[&str] = [&["b"][..], &["a", "c", "a"], &["c"], &["d", "b"]][step % 4];
        db.transaction(|tx| {
            streams
                .iter()
                .zip(n..)
                .try_for_each(|(stream, n)| tx.event_append(run, stream, n).map(drop))
        })
        .unwrap();
        let mut committed: Vec<_> = streams.iter().zip(n..).collect();
        committed.sort();
        for (stream, n) in committed {
            expected += &chain(stream, 1, [n]);
        }
        n += streams.len() as i64;
        if step % 3 == 0 {
            assert_eq!(db.project_run(run, &at_once).unwrap(), expected);
        }
    }
    assert_eq!(db.project_run(run, &at_once).unwrap(), expected);
    let view = db.view().unwrap();
    assert_eq!(view.projected_run(run, &at_once).unwrap(), Some(expected.clone()));
    let other = Chain::<2>::default();
    assert_eq!(db.project_run(run, &other).unwrap(), expected.replace("v1", "v2"));
}

#[test]
fn threads_that_fold_the_same_fold_each_event_once() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for n in 0..100 {
                    db.event_append(run, "s", n).unwrap();
                    db.project(run, "s", &Chain::<1>::default()).unwrap();
                }
            });
        }
    });
    let events = db.event_read(run, "s", 0).unwrap().map(|e| e.unwrap().payload.as_int().unwrap());
    let kept = db.view().unwrap().projected(run, "s", &Chain::<1>::default()).unwrap();
    assert_eq!(kept, Some(chain("s", 1, events)));
}

/// Somebody else folds the same in the middle of its first transaction.
struct Interrupted<'a> {
    db: &'a Database,
    run: Run,
    chain: Chain<1>,
    done: Cell<bool>,
}

impl Projection for Interrupted<'_> {
    const NAME: &'static str = Chain::<1>::NAME;
    const VERSION: u32 = Chain::<1>::VERSION;
    const BATCH_EVENTS: usize = Chain::<1>::BATCH_EVENTS;
    type State = String;

    fn apply(&self, state: &mut String, stream: &str, event: &Event) -> Result<()> {
        if !self.done.replace(true) {
            self.db.project(self.run, stream, &Chain::<1>::default())?;
        }
        self.chain.apply(state, stream, event)
    }

    fn save(&self, state: &String) -> Result<Value> {
        self.chain.save(state)
    }

    fn load(&self, saved: Value) -> Result<String> {
        self.chain.load(saved)
    }
}

#[test]
fn who_was_overtaken_takes_the_others_state_and_does_not_set_it_back() {
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    for n in 0..7 {
        db.event_append(run, "s", n).unwrap();
    }
    let before = db.current_version();
    let (chain, done) = Default::default();
    let overtaken = Interrupted { db: &db, run, chain, done };
    assert_eq!(db.project(run, "s", &overtaken).unwrap(), self::chain("s", 1, 0..7));
    assert_eq!(db.current_version().0 - before.0, 3, "the three batches of the other");
}

#[test]
fn refuses_names_and_cells_that_are_none_of_a_projection() {
    struct Nameless;
    impl Projection for Nameless {
        const NAME: &'static str = "a/b";
        const VERSION: u32 = 1;
        type State = ();
        fn apply(&self, (): &mut (), _: &str, _: &Event) -> Result<()> {
            Ok(())
        }
        fn save(&self, (): &()) -> Result<Value> {
            Ok(Value::Null)
        }
        fn load(&self, _: Value) -> Result<()> {
            Ok(())
        }
    }
    let db = Database::in_memory().unwrap();
    let run = db.create_run("r").unwrap();
    assert_eq!(db.project(run, "s", &Nameless).unwrap_err().kind(), ErrorKind::Invalid);
    db.state_set(run, "projection/chain/s", 1).unwrap();
    let error = db.project(run, "s", &Chain::<1>::default()).unwrap_err();
    assert_eq!(error.to_string(), "cell projection/chain/s holds no projection");
}
