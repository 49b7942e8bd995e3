//! What must still be readable of a program's past when only some of it is kept, and what may not
//! be: kept versions are there, trimmed ones are said to be trimmed, and nothing read is wrong.

use std::collections::BTreeMap;

use steadfast_engine::{
    Database, ErrorKind, Result, Retention, Timestamp, Value, Version, VersionedValue, View,
};

use crate::model::{Content, Item, ReferenceModel};
use crate::workload::History;

/// What looking at older versions found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    /// Versions at which everything could be read.
    pub(crate) whole: u64,
    /// Versions at which something was said to be trimmed.
    pub(crate) trimmed: u64,
}

/// One version of something: when it was written, and its value; `None` if it was deleted.
type Written = (Version, Timestamp, Option<Value>);

/// The past of a program's key-values and state cells, up to one of its commits.
pub(crate) struct Past<'a> {
    history: &'a History,
    prefix: usize,
    keeps: Retention,
    /// No clock has said anything later.
    now: Timestamp,
    /// Of each item, oldest first.
    chains: BTreeMap<Item, Vec<Written>>,
}

impl<'a> Past<'a> {
    pub(crate) fn new(
        history: &'a History,
        prefix: usize,
        keeps: Retention,
        now: Timestamp,
    ) -> Self {
        let mut chains: BTreeMap<Item, Vec<Written>> = BTreeMap::new();
        for at in 0..prefix {
            let (version, time) = (history.versions[at], history.times[at]);
            let content = history.models[at + 1].content();
            for item in &history.touched[at] {
                let value = content.get(item).map(|row| row.1.clone());
                chains.entry(item.clone()).or_default().push((version, time, value));
            }
        }
        Self { history, prefix, keeps, now, chains }
    }

    /// How many of the newest versions of a chain are kept, by the rule.
    fn kept(&self, chain: &[Written]) -> usize {
        let by_number = self.keeps.kept_at_least().map_or(usize::MAX, |n| n.get() as usize);
        let superseded = |at: usize| chain[at + 1].1.after(self.keeps.kept_for());
        let by_time =
            (0..chain.len() - 1).rev().take_while(|at| superseded(*at) > self.now).count();
        by_number.max(by_time + 1).min(chain.len())
    }

    /// Whether nothing that a view at `version` would show may be gone: what is not kept any
    /// more had been superseded by then.
    fn must_be_whole(&self, version: Version, of: impl Fn(&Item) -> bool) -> bool {
        self.chains.iter().filter(|(item, _)| of(item)).all(|(_, chain)| {
            let kept_from = chain.len() - self.kept(chain);
            chain[kept_from].0 <= version || kept_from == 0
        })
    }

    /// Looks at every older version, and at the history of every key.
    pub(crate) fn look(&self, db: &Database) -> std::result::Result<Seen, String> {
        let mut seen = Seen::default();
        for at in 0..self.prefix {
            let version = self.history.versions[at];
            let view = db.view_at(version).map_err(|error| format!("at {version}: {error}"))?;
            let model = &self.history.models[at + 1];
            let whole = [
                self.look_at(&view, model, "key-values", kv_of, |item| {
                    matches!(item, Item::Kv(..))
                })?,
                self.look_at(
                    &view,
                    model,
                    "state cells",
                    |view, past| cells_of(view, past),
                    |item| matches!(item, Item::State(..)),
                )?,
            ];
            match whole.contains(&false) {
                false => seen.whole += 1,
                true => seen.trimmed += 1,
            }
        }
        for (item, chain) in &self.chains {
            if let Item::Kv(run, key) = item {
                let found = db.resolve_run(run).and_then(|run| db.kv_history(run, key));
                let found = found.map_err(|error| format!("the history of {item}: {error}"))?;
                self.compare_history(item, chain, &found)?;
            }
        }
        Ok(seen)
    }

    /// Whether one primitive could be read; then it was right.
    fn look_at(
        &self,
        view: &View,
        model: &ReferenceModel,
        what: &str,
        read: impl Fn(&View, &Self) -> Result<Content>,
        of: impl Fn(&Item) -> bool,
    ) -> std::result::Result<bool, String> {
        let version = view.version();
        match read(view, self) {
            Ok(found) => {
                let expected = model.content().iter().filter(|(item, _)| of(item));
                if !expected.eq(found.iter()) {
                    return Err(format!(
                        "{what} at version {version}, of which {}: found {found:?}",
                        self.keeps
                    ));
                }
                Ok(true)
            }
            Err(error) if error.kind() != ErrorKind::HistoryTrimmed => {
                Err(format!("{what} at version {version}: {error}"))
            }
            Err(error) if self.must_be_whole(version, of) => Err(format!(
                "{what} at version {version}, all of which is kept ({}): {error}",
                self.keeps
            )),
            Err(_) => Ok(false),
        }
    }

    /// The history of a key is a newest part of what it was, as long as it must be.
    fn compare_history(
        &self,
        item: &Item,
        chain: &[Written],
        found: &[(Version, Option<VersionedValue>)],
    ) -> std::result::Result<(), String> {
        let was = chain.iter().rev().map(|(version, _, value)| (*version, value.as_ref()));
        let is = found.iter().map(|(version, value)| (*version, value.as_ref().map(|v| &v.value)));
        let same = was.take(found.len()).eq(is);
        // A deletion that hides nothing any more says nothing, and may go.
        let spent = |row: &&Written| row.2.is_none();
        let kept = &chain[chain.len() - self.kept(chain)..];
        let kept = kept.len() - kept.iter().take_while(spent).count();
        match same && found.len() >= kept {
            true => Ok(()),
            false => Err(format!(
                "the history of {item} ({}, so {kept} of {}): {:?}",
                self.keeps,
                chain.len(),
                found.iter().map(|row| row.0).collect::<Vec<_>>()
            )),
        }
    }
}

fn kv_of(view: &View, _: &Past<'_>) -> Result<Content> {
    let mut content = Content::new();
    for info in view.list_runs()? {
        for row in view.kv_scan(info.run, "")? {
            let (key, value) = row?;
            content.insert(Item::Kv(info.name.clone(), key), (value.version, value.value));
        }
    }
    Ok(content)
}

/// Each cell by itself.
fn cells_of(view: &View, past: &Past<'_>) -> Result<Content> {
    let mut content = Content::new();
    for info in view.list_runs()? {
        for item in past.chains.keys() {
            let Item::State(run, cell) = item else { continue };
            let name = String::from_utf8_lossy(cell);
            if *run == info.name
                && let Some(value) = view.state_read(info.run, &name)?
            {
                content.insert(item.clone(), (value.version, value.value));
            }
        }
    }
    Ok(content)
}
