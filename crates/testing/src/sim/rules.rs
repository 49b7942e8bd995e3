//! Sets of rules: what a power cut may do to what was not synced.
//!
//! What POSIX leaves open is more than any file system in use does, so an engine that relies on
//! one of those should be judged by what that one does, too.

use std::collections::BTreeSet;

use crate::sim::image::{Moment, SECTOR, Target};
use crate::sim::plan::{Choice, Plan};
use crate::sim::tree::FileChange;

/// What the cache of a file system writes back whole, in sectors.
const BLOCK_SECTORS: u64 = 8;

/// What may become of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rules {
    /// Anything, in any order: a sector of an unsynced write is old, new or garbage. A name is
    /// durable once its directory was synced.
    Posix,
    /// Anything, in any order: a sector of an unsynced write is old or new, never garbage. Any
    /// sync makes all names durable.
    Sectors,
    /// About what ext4 does as most have it (`data=ordered`). Names and lengths become durable in
    /// the order they were made. A file is as long as what has reached the disk of it. Blocks of
    /// 4096 bytes are old or new. Any sync makes all names durable, and a rename over a file
    /// comes after the bytes of the new one.
    Ordered,
}

impl Rules {
    /// All sets, the strictest first.
    pub const ALL: [Self; 3] = [Self::Posix, Self::Sectors, Self::Ordered];

    /// Whether all names are in one journal, which any sync writes.
    pub const fn has_journal(self) -> bool {
        !matches!(self, Self::Posix)
    }

    /// Its name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Posix => "posix",
            Self::Sectors => "sectors",
            Self::Ordered => "ordered",
        }
    }

    /// The set of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rules| rules.name() == name)
    }
}

impl Moment {
    /// Crash images that `rules` allow: nothing kept, everything kept, and `more` others.
    pub fn plans_under(&self, rules: Rules, more: usize, rng: &mut fastrand::Rng) -> Vec<Plan> {
        let pending = self.pending_len();
        let mut plans = vec![Plan(vec![Choice::Drop; pending])];
        if pending == 0 {
            return plans;
        }
        plans.push(Plan(vec![Choice::Keep; pending]));
        if rules == Rules::Ordered {
            plans.extend((0..more).map(|_| self.draw_ordered(rng)));
            return plans;
        }
        let mut others = self.plans(more, rng).split_off(2);
        rng.shuffle(&mut others);
        others.truncate(more);
        if rules == Rules::Sectors {
            for choice in others.iter_mut().flat_map(|plan| &mut plan.0) {
                if let Choice::Garbage(sector) = *choice {
                    *choice = Choice::Without(sector);
                }
            }
        }
        plans.extend(others);
        plans
    }

    fn draw_ordered(&self, rng: &mut fastrand::Rng) -> Plan {
        let pending = self.pending();
        let change = |target: &Target| match target {
            Target::File(id, index) => {
                let op = &self.tree.files[id].pending[*index];
                Some((*id, op.step, &op.change))
            }
            Target::Dir(..) => None,
        };
        // Writes whose step made the file longer, too.
        let mut appends = BTreeSet::new();
        let mut writes = BTreeSet::new();
        for (id, step, change) in pending.iter().filter_map(|op| change(&op.target)) {
            match change {
                FileChange::Write { .. } => drop(writes.insert((id, step))),
                FileChange::Len(_) if writes.contains(&(id, step)) => {
                    appends.insert((id, step));
                }
                FileChange::Len(_) => {}
            }
        }
        let in_order = pending.iter().filter(|op| match change(&op.target) {
            Some((id, step, FileChange::Len(_))) => !appends.contains(&(id, step)),
            Some(_) => false,
            None => true,
        });
        let mut kept_in_order = rng.usize(..=in_order.count());
        let keep_of_ten = rng.u32(1..10);
        let (mut ended, mut appended) = (BTreeSet::new(), BTreeSet::new());
        let kept = |kept: bool| if kept { Choice::Keep } else { Choice::Drop };
        let choices = pending.iter().map(|op| match change(&op.target) {
            Some((id, step, change)) if appends.contains(&(id, step)) => {
                if matches!(change, FileChange::Write { .. }) {
                    if !ended.contains(&id) && rng.u32(..10) < keep_of_ten {
                        appended.insert((id, step));
                    } else {
                        ended.insert(id);
                    }
                }
                kept(appended.contains(&(id, step)))
            }
            Some((_, _, FileChange::Write { offset, bytes })) => {
                let to_boundary = BLOCK_SECTORS - offset / SECTOR % BLOCK_SECTORS;
                let end = offset + bytes.len() as u64;
                let sectors = end.div_ceil(SECTOR) - offset / SECTOR;
                let blocks = sectors.saturating_sub(to_boundary).div_ceil(BLOCK_SECTORS);
                if blocks == 0 || rng.u32(..10) < 6 {
                    return kept(rng.u32(..10) < keep_of_ten);
                }
                let sector = to_boundary + BLOCK_SECTORS * rng.u64(..blocks);
                if rng.bool() { Choice::First(sector) } else { Choice::AllBut(sector) }
            }
            _ => {
                let room = kept_in_order > 0;
                kept_in_order = kept_in_order.saturating_sub(1);
                kept(room)
            }
        });
        Plan(choices.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use steadfast_durability::disk::{Access, Disk};

    use super::*;
    use crate::sim::SimDisk;

    fn images(disk: &SimDisk, rules: Rules) -> Vec<SimDisk> {
        let (moment, mut rng) = (disk.moment(), fastrand::Rng::with_seed(3));
        let plans = moment.plans_under(rules, 300, &mut rng);
        plans.iter().map(|plan| moment.cut(plan)).collect()
    }

    #[test]
    fn only_posix_has_garbage() {
        let disk = SimDisk::new();
        let file = disk.create(Path::new("a"), Access::Write).unwrap();
        file.set_len(8192).unwrap();
        file.sync_all().unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        file.write_at(0, &[7; 8192]).unwrap();
        let has = |rules, wanted: fn(&[u8]) -> bool| {
            images(&disk, rules).iter().any(|image| wanted(&image.bytes("a").unwrap()))
        };
        let garbage = |bytes: &[u8]| bytes.iter().any(|byte| ![0, 7].contains(byte));
        let half_a_block = |bytes: &[u8]| bytes[..4096].iter().any(|byte| *byte != bytes[0]);
        let half = |bytes: &[u8]| bytes[0] != bytes[4096];
        assert!(has(Rules::Posix, garbage) && has(Rules::Posix, half_a_block));
        assert!(!has(Rules::Sectors, garbage) && has(Rules::Sectors, half_a_block));
        assert!(!has(Rules::Ordered, half_a_block) && has(Rules::Ordered, half));
    }

    #[test]
    fn ordered_keeps_names_in_order_and_appended_bytes_before_their_length() {
        let disk = SimDisk::new();
        for name in ["a", "b"] {
            let file = disk.create(Path::new(name), Access::Write).unwrap();
            file.write_at(0, &[1; 1000]).unwrap();
            file.write_at(1000, &[2; 1000]).unwrap();
        }
        let (mut some, mut short, mut out_of_order) = (0, 0, 0);
        for (rules, judged) in [(Rules::Ordered, true), (Rules::Sectors, false)] {
            for image in images(&disk, rules) {
                let (a, b) = (image.bytes("a"), image.bytes("b"));
                if judged {
                    assert!(b.is_none() || a.is_some(), "the first name comes first");
                    some += usize::from(a.is_some() && b.is_none());
                    for bytes in [a, b].into_iter().flatten() {
                        assert!([0, 1000, 2000].contains(&bytes.len()));
                        assert!(!bytes.contains(&0), "no zeros where bytes were appended");
                        short += usize::from(bytes.len() == 1000);
                    }
                } else {
                    out_of_order += usize::from(b.is_some() && a.is_none());
                }
            }
        }
        assert!(some > 0 && short > 0 && out_of_order > 0, "{some} {short} {out_of_order}");
    }
}
