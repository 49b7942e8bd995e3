//! `restore`: a database from a backup, as it was then or at an earlier version.

use steadfast::Version;

use super::backup;
use crate::args::RestoreArgs;
use crate::database::{open_to_look, read_around_damage};
use crate::failure::Result;

pub(crate) fn run(args: &RestoreArgs, json: bool) -> Result<u8> {
    let copy = open_to_look(&args.backup)?;
    let info = read_around_damage(&copy, || {
        Ok(match args.at {
            Some(version) => copy.backup_at(&args.new_dir, Version(version))?,
            None => copy.backup(&args.new_dir)?,
        })
    })?;
    backup::report(&info, &args.new_dir, json)
}
