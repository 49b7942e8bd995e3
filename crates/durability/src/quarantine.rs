//! Copies of what recovery left out, so that nothing is lost that somebody may still want to
//! look at.
//!
//! The bytes also stay where they were until their segment is deleted; the copy outlives it.
//! A disk too full for the copy is a warning, not an error.

use crate::disk::{Access, Disk, read_full_at};
use crate::error::{IoContext, Result};
use crate::layout::Layout;
use crate::recovery::RecoveryReport;

/// Most bytes that are copied of one segment.
const COPY_BYTES_MAX: u64 = 64 << 20;

/// Copies what `report` says was left out. Returns the names of the copies.
pub(crate) fn keep(disk: &dyn Disk, layout: &Layout, report: &RecoveryReport) -> Vec<String> {
    match try_keep(disk, layout, report) {
        Ok(names) => names,
        Err(error) => {
            log::warn!("no copy of what was left out: {error}");
            Vec::new()
        }
    }
}

fn try_keep(disk: &dyn Disk, layout: &Layout, report: &RecoveryReport) -> Result<Vec<String>> {
    let Some(damage) = report.damage.as_ref().filter(|_| report.left_out_bytes > 0) else {
        return Ok(Vec::new());
    };
    let directory = layout.quarantine();
    disk.create_dir(&directory).at("quarantine", "create")?;
    let source_name = damage.file.rsplit('/').next().unwrap_or(&damage.file);
    let name = format!("{source_name}-at-{}.cut", damage.offset);
    let label = format!("quarantine/{name}");
    let path = directory.join(&name);
    if disk.kind(&path).at(&*label, "look for")?.is_some() {
        // An earlier opening that crashed later on made it.
        return Ok(vec![label]);
    }
    let source = disk
        .open(&layout.root().join(&damage.file), Access::Read)
        .at(damage.file.clone(), "open")?;
    // Under another name until it is whole, so that a crash leaves no half that passes for one.
    let half = directory.join("copying.tmp");
    match disk.remove(&half) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).at("quarantine/copying.tmp", "remove");
        }
        _ => {}
    }
    let copy = disk.create(&half, Access::Write).at(&*label, "create")?;
    let result = (|| {
        let mut head = format!(
            "steadfast quarantine\nfile: {}\noffset: {}\nbytes: {}\nwhy: {}\nlast version kept: {}\n\n",
            damage.file, damage.offset, report.left_out_bytes, damage.kind, report.last_version
        )
        .into_bytes();
        let mut offset = 0;
        let end = damage.offset + report.left_out_bytes.min(COPY_BYTES_MAX);
        let mut from = damage.offset;
        while from < end {
            let wanted = usize::try_from((end - from).min(1 << 20)).unwrap_or(1 << 20);
            let start = head.len();
            head.resize(start + wanted, 0);
            let read =
                read_full_at(&*source, from, &mut head[start..]).at(damage.file.clone(), "read")?;
            head.truncate(start + read);
            copy.write_at(offset, &head).at(&*label, "write")?;
            if read == 0 {
                break;
            }
            offset += head.len() as u64;
            from += read as u64;
            head.clear();
        }
        copy.sync_all().at(&*label, "sync")?;
        disk.rename(&half, &path).at(&*label, "name")?;
        disk.sync_dir(&directory).at("quarantine", "sync the directory")
    })();
    match result {
        Ok(()) => Ok(vec![label]),
        Err(error) => {
            let _ = disk.remove(&half);
            Err(error)
        }
    }
}
