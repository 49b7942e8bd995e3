//! `inspect`: the files in plain words.

mod manifest;
mod segment;
mod snapshot;

use steadfast_durability::StdDisk;
use steadfast_durability::disk::Disk;
use steadfast_durability::layout::Layout;
use steadfast_durability::manifest::Manifest;

use crate::args::InspectArgs;
use crate::failure::{EXIT_DONE, Failure, Result};
use crate::inspection::{
    GroupFacts, Role, SnapshotFacts, if_there, leftovers, manifest as read_manifest, read_segment,
    read_snapshots, segment_numbers,
};
use crate::json::{Object, list};
use crate::output::Output;

/// What there is, but for the segments, which are read when they are shown.
struct Files {
    disk: StdDisk,
    layout: Layout,
    manifest: Result<Option<Manifest>>,
    locked: bool,
    snapshots: Vec<SnapshotFacts>,
    segments: Vec<u64>,
    leftovers: Vec<(String, &'static str)>,
}

pub(crate) fn run(args: &InspectArgs, json: bool) -> Result<u8> {
    let files = Files::find(args)?;
    let mut output = Output::new();
    if json {
        files.print_json(args, &mut output)?;
    } else {
        files.print(args, &mut output)?;
    }
    output.flush()?;
    Ok(EXIT_DONE)
}

impl Files {
    fn find(args: &InspectArgs) -> Result<Self> {
        let (disk, layout) = (StdDisk, Layout::new(&args.dir));
        let manifest = read_manifest(&disk, &layout);
        let named = manifest.as_ref().ok().and_then(Option::as_ref);
        let locked = disk.is_locked(&layout.lock()).unwrap_or(false);
        let snapshots = read_snapshots(&disk, &layout, named, locked)?;
        let segments = segment_numbers(&disk, &layout)?;
        if segments.is_empty() && snapshots.is_empty() && manifest == Ok(None) {
            let message = format!("{}: there is no database there", args.dir.display());
            return Err(Failure::new("not_found", message));
        }
        let leftovers = leftovers(&disk, &layout)?;
        Ok(Self { disk, layout, manifest, locked, snapshots, segments, leftovers })
    }

    fn role(&self, segment: u64) -> Role {
        Role::of_segment(self.manifest.as_ref().ok().and_then(Option::as_ref), segment)
    }

    fn print(&self, args: &InspectArgs, output: &mut Output) -> Result<()> {
        manifest::print(output, &self.manifest)?;
        let lock = if self.locked { "held: a writer has the database open" } else { "not held" };
        output.line(&format!("LOCK\n    {lock}"))?;
        for facts in &self.snapshots {
            snapshot::print(output, facts)?;
        }
        for number in &self.segments {
            let mut groups = Vec::new();
            let see = |group| {
                if args.frames {
                    groups.push(group);
                }
            };
            let facts = if_there(read_segment(&self.disk, &self.layout, *number, see))?;
            let Some(facts) = facts else { continue };
            segment::print(output, &facts, self.role(*number))?;
            for group in groups {
                segment::print_group(output, &group)?;
            }
        }
        for (file, why) in &self.leftovers {
            output.line(&format!("{file}\n    {why}"))?;
        }
        Ok(())
    }

    fn print_json(&self, args: &InspectArgs, output: &mut Output) -> Result<()> {
        let mut segments = Vec::new();
        for number in &self.segments {
            let mut groups = Vec::new();
            let see = |group: GroupFacts| {
                if args.frames {
                    groups.push(segment::group_json(&group));
                }
            };
            let facts = if_there(read_segment(&self.disk, &self.layout, *number, see))?;
            let Some(facts) = facts else { continue };
            let groups = args.frames.then(|| list(groups));
            segments.push(segment::to_json(&facts, self.role(*number), groups));
        }
        let leftovers = self
            .leftovers
            .iter()
            .map(|(file, why)| Object::new().text("file", file).text("role", why).end());
        let report = Object::new()
            .json("manifest", &manifest::to_json(&self.manifest))
            .bool("locked", self.locked)
            .json("snapshots", &list(self.snapshots.iter().map(snapshot::to_json)))
            .json("segments", &list(segments))
            .json("leftovers", &list(leftovers));
        output.line(&report.end())
    }
}
