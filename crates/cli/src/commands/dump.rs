//! `dump`: everything, as JSON lines.
//!
//! It is read where it lies, so a dump takes little memory and begins at once. If something that
//! cannot be read is met on the way, the dump stops there and has no end line.

use steadfast::{DefinedSignal, RunInfo, Version, View};

use crate::args::DumpArgs;
use crate::database::{open_to_look, read_around_damage};
use crate::entry::{RunLine, SignalDefinitionLine, end_to_json, entry_to_json};
use crate::failure::{EXIT_DONE, Failure, Result};
use crate::output::Output;
use crate::sets_and_graphs::DefinitionLine;
use crate::signal::definition_line;

pub(crate) fn run(args: &DumpArgs) -> Result<u8> {
    let database = open_to_look(&args.dir)?;
    let (view, definitions, cohorts, graphs, runs) = read_around_damage(&database, || {
        let view = match args.at {
            Some(version) => database.view_at(Version(version))?,
            None => database.view()?,
        };
        // In the order of names, which a copy keeps whatever the order in which its runs were
        // made.
        let runs = view.list_runs()?;
        let definitions = view.signal_definitions()?;
        let (cohorts, graphs) = (view.cohort_definitions()?, view.graph_definitions()?);
        Ok((view, definitions, cohorts, graphs, runs))
    })?;
    let mut dump = Dump { view, history: args.history, output: Output::new(), lines: 0 };
    for defined in definitions {
        let DefinedSignal { name, definition, version, timestamp, .. } = defined;
        let line = SignalDefinitionLine { name, definition, version, timestamp };
        dump.line(&definition_line(&line))?;
    }
    for defined in cohorts {
        dump.line(&DefinitionLine::from(defined).to_json())?;
    }
    for defined in graphs {
        dump.line(&DefinitionLine::from(defined).to_json())?;
    }
    for info in &runs {
        dump.head(info)?;
        let mut entries = 0;
        read_around_damage(&database, || dump.entries_from(info, &mut entries))?;
    }
    let end = end_to_json(dump.view.version(), dump.lines);
    dump.output.line_now(&end)?;
    Ok(EXIT_DONE)
}

struct Dump {
    view: View,
    history: bool,
    output: Output,
    lines: u64,
}

impl Dump {
    fn line(&mut self, line: &str) -> Result<()> {
        self.output.line(line)?;
        self.lines += 1;
        Ok(())
    }

    /// The line of a run.
    fn head(&mut self, info: &RunInfo) -> Result<()> {
        let namespace = self.view.namespace_of(info.run).ok_or_else(|| {
            Failure::new("corruption", format!("the run `{}` has no address", info.name))
        })?;
        let line = RunLine {
            name: info.name.clone(),
            namespace,
            status: info.status,
            metadata: info.metadata.clone(),
            version: info.since,
            created: info.created,
            changed: (info.version != info.since).then_some((info.version, info.changed)),
            ancestors: info.ancestors.clone(),
            forked: info.parent.map(|parent| parent.version),
        };
        self.line(&line.to_json())
    }

    /// The entries of a run from number `next` on, which is kept up to date.
    fn entries_from(&mut self, info: &RunInfo, next: &mut usize) -> Result<()> {
        let entries = match self.history {
            true => self.view.entries_with_history(info.run),
            false => self.view.entries(info.run),
        };
        for entry in entries.skip(*next) {
            self.line(&entry_to_json(&info.name, &entry?)?)?;
            *next += 1;
        }
        Ok(())
    }
}
