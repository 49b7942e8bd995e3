//! `fork`: a run that begins as another one is.

use crate::args::ForkArgs;
use crate::database::maintain;
use crate::failure::{EXIT_DONE, Result};
use crate::json::Object;
use crate::output::Output;

pub(crate) fn run(args: &ForkArgs, json: bool) -> Result<u8> {
    let ForkArgs { dir, parent, child } = args;
    let info = maintain(dir, |database| {
        database.fork_run(parent, child)?;
        database.run_info(child)
    })?;
    let line = match json {
        true => Object::new()
            .text("run", child)
            .text("id", &info.id.to_string())
            .number("version", info.version.0)
            .end(),
        false => format!("{child} is a fork of {parent} at version {}", info.version),
    };
    Output::new().line_now(&line)?;
    Ok(EXIT_DONE)
}
