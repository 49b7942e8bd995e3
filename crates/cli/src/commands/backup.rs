//! `backup`: a copy of a database, whoever writes to it meanwhile.

use std::path::Path;

use steadfast::CopyInfo;

use crate::args::BackupArgs;
use crate::database::{open_to_look, read_around_damage};
use crate::failure::{EXIT_DONE, Result};
use crate::json::Object;
use crate::output::{Output, count, duration, micros, moment, size};

pub(crate) fn run(args: &BackupArgs, json: bool) -> Result<u8> {
    let database = open_to_look(&args.dir)?;
    let info = read_around_damage(&database, || Ok(database.backup(&args.target)?))?;
    report(&info, &args.target, json)
}

/// Says what a copy holds, and where it is.
pub(super) fn report(info: &CopyInfo, target: &Path, json: bool) -> Result<u8> {
    let CopyInfo { version, timestamp, rows, bytes, .. } = info;
    Output::new().line_now(&if json {
        copy_json(Object::new(), info).end()
    } else {
        format!(
            "{}: everything up to version {version} of {}; {} versions of keys, {}, written and \
             read back in {}",
            target.display(),
            moment(*timestamp),
            count(*rows),
            size(*bytes),
            duration(info.duration)
        )
    })?;
    Ok(EXIT_DONE)
}

/// The fields that tell of a copy.
pub(super) fn copy_json(object: Object, info: &CopyInfo) -> Object {
    object
        .number("version", info.version.0)
        .number("at_us", info.timestamp.as_micros())
        .number("rows", info.rows)
        .number("bytes", info.bytes)
        .number("duration_us", micros(info.duration))
}
