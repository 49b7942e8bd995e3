//! When each commit was made: what finds the version of a moment, and the moment of a version.
//!
//! Two to four bytes a commit: differences to the commit before, in blocks that begin with
//! absolute numbers. What lies below the history that can still be read is dropped.

use std::collections::VecDeque;

use steadfast_core::codec::{Cursor, put_varint};
use steadfast_core::{Timestamp, Version};

/// Commits in one block. Finding one searches the blocks, then decodes one.
const BLOCK_COMMITS: usize = 512;

/// The times of commits, in the order of their versions. Times never decrease.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeline {
    blocks: VecDeque<Block>,
    last: Option<Commit>,
}

/// A version and the time of its commit.
type Commit = (Version, Timestamp);

#[derive(Debug, Clone)]
struct Block {
    first: Commit,
    commits: usize,
    /// Differences of version and time, for all but the first.
    bytes: Vec<u8>,
}

impl Block {
    fn commits(&self) -> impl Iterator<Item = Commit> {
        let mut cursor = Cursor::new("commit times", &self.bytes);
        let mut last = self.first;
        std::iter::once(self.first).chain(std::iter::from_fn(move || {
            let (versions, micros) = (cursor.varint().ok()?, cursor.varint().ok()?);
            last = (Version(last.0.0 + versions), later(last.1, micros));
            Some(last)
        }))
    }
}

const fn later(time: Timestamp, micros: u64) -> Timestamp {
    Timestamp::from_micros(time.as_micros().saturating_add(micros))
}

impl Timeline {
    /// Adds a commit. One that is not above the last is known already.
    pub(crate) fn push(&mut self, version: Version, time: Timestamp) {
        let Some(last) = self.last.filter(|_| !self.blocks.is_empty()) else {
            return self.begin_block(version, time);
        };
        if version <= last.0 {
            return;
        }
        let time = time.max(last.1);
        match self.blocks.back_mut() {
            Some(block) if block.commits < BLOCK_COMMITS => {
                put_varint(&mut block.bytes, version.0 - last.0.0);
                put_varint(&mut block.bytes, time.as_micros() - last.1.as_micros());
                block.commits += 1;
                self.last = Some((version, time));
            }
            _ => self.begin_block(version, time),
        }
    }

    fn begin_block(&mut self, version: Version, time: Timestamp) {
        if let Some(full) = self.blocks.back_mut() {
            full.bytes.shrink_to_fit();
        }
        self.blocks.push_back(Block { first: (version, time), commits: 1, bytes: Vec::new() });
        self.last = Some((version, time));
    }

    /// Drops what is only needed to read below `version`.
    pub(crate) fn trim(&mut self, version: Version) {
        while self.blocks.len() > 1 && self.blocks[1].first.0 <= version {
            self.blocks.pop_front();
        }
    }

    /// The time of the newest commit up to `version`; `None` if it is not known.
    pub(crate) fn time_of(&self, version: Version) -> Option<Timestamp> {
        let block = self.blocks.partition_point(|block| block.first.0 <= version).checked_sub(1)?;
        let upto = self.blocks[block].commits().take_while(|commit| commit.0 <= version);
        upto.last().map(|commit| commit.1)
    }

    /// The newest commit made at `time` or before; `None` if it is not known.
    pub(crate) fn version_at(&self, time: Timestamp) -> Option<Version> {
        let block = self.blocks.partition_point(|block| block.first.1 <= time).checked_sub(1)?;
        let upto = self.blocks[block].commits().take_while(|commit| commit.1 <= time);
        upto.last().map(|commit| commit.0)
    }

    /// The oldest commit whose time is known.
    pub(crate) fn oldest(&self) -> Option<Version> {
        self.blocks.front().map(|block| block.first.0)
    }

    /// Bytes in memory.
    pub(crate) fn heap_bytes(&self) -> usize {
        let blocks = self.blocks.iter().map(|block| block.bytes.capacity()).sum::<usize>();
        blocks + self.blocks.capacity() * size_of::<Block>()
    }

    /// The commits up to `version`, as a snapshot keeps them: differences of version and time,
    /// from zero on.
    pub(crate) fn encode_upto(&self, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        let mut last = (Version::ZERO, Timestamp::ZERO);
        let commits = self.blocks.iter().flat_map(Block::commits);
        for commit in commits.take_while(|commit| commit.0 <= version) {
            put_varint(&mut out, commit.0.0 - last.0.0);
            put_varint(&mut out, commit.1.as_micros() - last.1.as_micros());
            last = commit;
        }
        out
    }

    /// Puts the commits that [`Timeline::encode_upto`] wrote before those that are known.
    pub(crate) fn prepend(&mut self, encoded: &[u8]) -> steadfast_core::Result<()> {
        let mut whole = Self::default();
        let mut cursor = Cursor::new("commit times", encoded);
        let mut last = (Version::ZERO, Timestamp::ZERO);
        while !cursor.is_empty() {
            let (versions, micros) = (cursor.varint()?, cursor.varint()?);
            let version = last.0.0.checked_add(versions).filter(|_| versions > 0);
            let version = version.ok_or_else(|| cursor.malformed("versions out of order"))?;
            last = (Version(version), later(last.1, micros));
            whole.push(last.0, last.1);
        }
        for (version, time) in self.blocks.iter().flat_map(Block::commits) {
            whole.push(version, time);
        }
        *self = whole;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_commit_takes_two_to_four_bytes() {
        // Close together, and some milliseconds apart.
        for (micros, bytes) in [(50, 2), (10_000, 3)] {
            let mut timeline = Timeline::default();
            let commits = 100_000;
            for n in 1..=commits {
                timeline.push(Version(n), Timestamp::from_micros(n * micros));
            }
            let each = timeline.heap_bytes() as f64 / commits as f64;
            assert!(each >= f64::from(bytes) && each < f64::from(bytes) + 0.5, "{each}");
        }
    }

    proptest! {
        #[test]
        fn answers_as_a_list_of_commits_would(
            steps in prop::collection::vec((1u64..4, 0u64..3), 1..2000),
            split in 0usize..2000,
            asked in 0u64..7000,
        ) {
            let mut last = (0, 10);
            let commits: Vec<(u64, u64)> = steps.iter().map(|(versions, micros)| {
                last = (last.0 + versions, last.1 + micros);
                last
            }).collect();
            let push_all = |timeline: &mut Timeline, commits: &[(u64, u64)]| {
                for (version, time) in commits {
                    timeline.push(Version(*version), Timestamp::from_micros(*time));
                }
            };
            let split = split.min(commits.len());
            let (mut older, mut timeline) = (Timeline::default(), Timeline::default());
            push_all(&mut older, &commits);
            push_all(&mut timeline, &commits[split..]);
            let upto = commits[..split].last().map_or(0, |commit| commit.0);
            timeline.prepend(&older.encode_upto(Version(upto))).unwrap();

            let time = commits.iter().rev().find(|c| c.0 <= asked).map(|c| c.1);
            let expected = time.map(Timestamp::from_micros);
            prop_assert_eq!(timeline.time_of(Version(asked)), expected);
            let version = commits.iter().rev().find(|c| c.1 <= asked).map(|c| Version(c.0));
            prop_assert_eq!(timeline.version_at(Timestamp::from_micros(asked)), version);

            timeline.trim(Version(asked));
            prop_assert_eq!(timeline.time_of(Version(asked)), expected);
        }
    }
}
