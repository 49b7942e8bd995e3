//! `load`: a new database from a dump, every version, time and run id as it was.
//!
//! The whole dump is read and judged before anything is made, so a dump that is cut short or
//! broken leaves nothing behind.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use steadfast::{Database, Entry, Namespace, Run, RunId, RunStatus, Timestamp, Version};

use crate::args::{Durability, LoadArgs, WriteArgs};
use crate::database::{config, open_input};
use crate::entry::{DumpLine, RunLine, SignalDefinitionLine};
use crate::failure::{EXIT_DONE, Failure, Result};
use crate::json::Object;
use crate::lines::Lines;
use crate::output::{Output, count};
use crate::sets_and_graphs::DefinitionLine;

pub(crate) fn run(args: &LoadArgs, json: bool) -> Result<u8> {
    let dump = Dump::read(open_input(args.input.as_deref())?)?;
    // One sync at the end is all it takes: until then there is nothing anybody relies on.
    let buffered = WriteArgs { durability: Durability::Buffered, ..args.write.clone() };
    let mut config = config(&buffered);
    if let Some(spec) = &args.write.retention {
        config = config.retention(spec.policy(|name| dump.id_of(name))?);
    }
    let database = Database::create(&args.dir, config)?;
    let restored = dump.restore(&database);
    let closed = database.close().map_err(Failure::from);
    restored.and(closed).map_err(|failure| {
        let mut failure = failure;
        failure.message.push_str("; what was loaded so far is incomplete: delete it");
        failure
    })?;
    let mut output = Output::new();
    output.line(&if json {
        Object::new().number("version", dump.version.0).number("entries", dump.entries).end()
    } else {
        format!(
            "{} entries in {} runs, up to version {}",
            count(dump.entries),
            dump.runs.len(),
            dump.version
        )
    })?;
    output.flush()?;
    Ok(EXIT_DONE)
}

/// A dump that was read to its end and found complete.
struct Dump {
    /// Sorted by version. Kept as text, which takes less memory than what it says.
    lines: Vec<Line>,
    version: Version,
    entries: u64,
    runs: BTreeMap<String, RunId>,
    /// What is kept of streams beside their events, by run and name.
    streams: HashMap<(String, Vec<u8>), Entry>,
    /// Runs that have entries from before them: what they were forked from has written those.
    forks: HashMap<String, (Namespace, Vec<RunId>)>,
}

struct Line {
    version: Version,
    timestamp: Timestamp,
    text: Box<str>,
}

impl Dump {
    fn read(input: impl Read) -> Result<Self> {
        let mut lines = Lines::new(input);
        let mut dump = Self {
            lines: Vec::new(),
            version: Version::ZERO,
            entries: 0,
            runs: BTreeMap::new(),
            streams: HashMap::new(),
            forks: HashMap::new(),
        };
        let mut runs: HashMap<String, Version> = HashMap::new();
        let mut end = None;
        while let Some(line) = lines.next().map_err(|error| Failure::io("input", &error))? {
            let parsed = line.text().map_err(Failure::invalid).and_then(|text| {
                if end.is_some() {
                    return Err(Failure::invalid("there is nothing after the end of a dump"));
                }
                let parsed = DumpLine::parse(text)?;
                Ok((parsed, Box::from(text)))
            });
            let taken = parsed.and_then(|(parsed, text)| match parsed {
                DumpLine::Unknown => Ok(()),
                DumpLine::End { version, entries } => {
                    end = Some((version, entries));
                    Ok(())
                }
                DumpLine::Definition(SignalDefinitionLine { version, timestamp, .. })
                | DumpLine::Cohort(DefinitionLine { version, timestamp, .. })
                | DumpLine::Graph(DefinitionLine { version, timestamp, .. }) => {
                    dump.lines.push(Line { version, timestamp, text });
                    Ok(())
                }
                DumpLine::Run(run) => dump.take_run(&mut runs, run, text),
                DumpLine::Entry { run, entry } => dump.take_entry(&runs, &run, &entry, text),
            });
            taken.map_err(|failure| failure.of(&format!("line {}", lines.number())))?;
        }
        let Some((version, entries)) = end else {
            return Err(Failure::invalid("the dump has no end line: it is incomplete"));
        };
        let before = lines.number() - 1;
        if entries != before {
            return Err(Failure::invalid(format!(
                "the dump says it has {entries} entries, {before} are there: it is incomplete"
            )));
        }
        dump.version = version;
        dump.lines.sort_by_key(|line| line.version);
        let out_of_range = |line: &Line| line.version == Version::ZERO || line.version > version;
        if dump.lines.iter().any(out_of_range) {
            let message = format!("an entry has a version outside of 1 to {version}");
            return Err(Failure::invalid(message));
        }
        Ok(dump)
    }

    fn take_run(
        &mut self,
        runs: &mut HashMap<String, Version>,
        run: RunLine,
        text: Box<str>,
    ) -> Result<()> {
        let RunLine { name, namespace, version, created, changed, ancestors, .. } = run;
        if !ancestors.is_empty() {
            self.forks.insert(name.clone(), (namespace.clone(), ancestors));
        }
        if runs.insert(name.clone(), version).is_some() {
            return Err(Failure::invalid(format!("the run `{name}` is there twice")));
        }
        self.runs.insert(name, namespace.run());
        if let Some((version, timestamp)) = changed {
            self.lines.push(Line { version, timestamp, text: text.clone() });
        }
        self.lines.push(Line { version, timestamp: created, text });
        Ok(())
    }

    fn take_entry(
        &mut self,
        runs: &HashMap<String, Version>,
        run: &str,
        entry: &Entry,
        text: Box<str>,
    ) -> Result<()> {
        let (version, timestamp) = (entry.version(), entry.timestamp());
        match runs.get(run) {
            Some(created) if *created <= version || self.forks.contains_key(run) => {}
            Some(_) => {
                return Err(Failure::invalid(format!("an entry older than its run `{run}`")));
            }
            None => {
                return Err(Failure::invalid(format!("the run `{run}` did not come before")));
            }
        }
        self.entries += 1;
        if let Entry::Stream { stream, .. } = entry {
            self.streams.insert((run.to_owned(), stream.clone()), entry.clone());
        }
        self.lines.push(Line { version, timestamp, text });
        Ok(())
    }

    fn id_of(&self, run: &str) -> Result<RunId> {
        let id = self.runs.get(run).copied();
        id.ok_or_else(|| Failure::new("not_found", format!("the dump has no run `{run}`")))
    }

    fn restore(&self, database: &Database) -> Result<()> {
        let mut runs: HashMap<String, Run> = HashMap::new();
        let mut streams = self.streams.clone();
        for commit in self.lines.chunk_by(|a, b| a.version == b.version) {
            let Some(Line { version, .. }) = commit.first() else { continue };
            // A run notes when its commit began; the entries, when it was made.
            let made = commit.iter().map(|line| line.timestamp).max().unwrap_or_default();
            let mut restore = database.restore(*version, made)?;
            let parsed = commit.iter().map(|line| DumpLine::parse(&line.text));
            let (lines, entries): (Vec<_>, Vec<_>) = parsed
                .collect::<Result<Vec<_>>>()?
                .into_iter()
                .partition(|line| matches!(line, DumpLine::Run(_)));
            for line in lines.into_iter().chain(entries) {
                match line {
                    DumpLine::Run(line) => {
                        let RunLine { name, namespace, status, metadata, created, .. } = line;
                        let (ancestors, forked) = (line.ancestors, line.forked);
                        if line.version == *version {
                            // What was changed later is changed then.
                            let first =
                                if line.changed.is_some() { RunStatus::Active } else { status };
                            let from = (ancestors, forked);
                            let run =
                                restore.forked_run(&name, &namespace, first, created, from)?;
                            runs.insert(name.clone(), run);
                        }
                        if line.changed.map_or(line.version, |changed| changed.0) == *version
                            && (line.changed.is_some() || !metadata.is_empty())
                        {
                            restore.change_run(&name, status, metadata)?;
                        }
                    }
                    DumpLine::Definition(line) => {
                        restore.signal_definition(&line.name, &line.definition)?;
                    }
                    DumpLine::Cohort(line) => {
                        restore.cohort_definition(&line.name, &line.definition)?;
                    }
                    DumpLine::Graph(line) => {
                        restore.graph_definition(&line.name, &line.definition)?;
                    }
                    DumpLine::Entry { run, entry } => {
                        let known = match (runs.get(&run), self.forks.get(&run)) {
                            (Some(known), _) => *known,
                            (None, Some((namespace, ancestors))) => {
                                let forked = restore.run_to_come(namespace, ancestors)?;
                                *runs.entry(run.clone()).or_insert(forked)
                            }
                            (None, None) => unreachable!("its run was checked to come before"),
                        };
                        // What is kept of a stream is of a later commit than its first events,
                        // which do not follow anything without it.
                        if let Entry::Event { stream, .. } = &entry
                            && let Some(kept) = streams.remove(&(run, stream.clone()))
                        {
                            restore.entry(known, &kept)?;
                        }
                        restore.entry(known, &entry)?;
                    }
                    DumpLine::End { .. } | DumpLine::Unknown => {}
                }
            }
            restore.commit()?;
        }
        if database.current_version() < self.version {
            // Nothing is left of the newest commit but its version.
            let made = self.lines.last().map(|line| line.timestamp).unwrap_or_default();
            database.restore(self.version, made)?.commit()?;
        }
        Ok(database.flush()?)
    }
}
