//! `dump`: everything, as JSON lines.

use steadfast::Version;

use crate::args::DumpArgs;
use crate::database::open_to_look;
use crate::entry::{RunLine, end_to_json, entry_to_json};
use crate::failure::{EXIT_DONE, Failure, Result};
use crate::output::Output;

pub(crate) fn run(args: &DumpArgs) -> Result<u8> {
    let database = open_to_look(&args.dir)?;
    let view = match args.at {
        Some(version) => database.view_at(Version(version))?,
        None => database.view()?,
    };
    let mut output = Output::new();
    let mut lines = 0;
    // In the order of names, which a copy keeps whatever the order in which its runs were made.
    for info in view.list_runs()? {
        let namespace = view.namespace_of(info.run).ok_or_else(|| {
            Failure::new("corruption", format!("the run `{}` has no address", info.name))
        })?;
        let line = RunLine {
            name: info.name,
            namespace,
            status: info.status,
            version: info.version,
            created: info.created,
        };
        output.line(&line.to_json())?;
        lines += 1;
        let entries =
            if args.history { view.entries_with_history(info.run) } else { view.entries(info.run) };
        for entry in entries {
            output.line(&entry_to_json(&line.name, &entry?)?)?;
            lines += 1;
        }
    }
    output.line(&end_to_json(view.version(), lines))?;
    output.flush()?;
    Ok(EXIT_DONE)
}
