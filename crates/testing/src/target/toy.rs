//! A small log as a target, with a choice of defects: what the techniques must find.
#![allow(clippy::disallowed_methods)] // an engine of its own, not ours

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::path::Path;

use crate::target::{CrashTarget, Entries, Failure, Promise, Transaction};

/// What is wrong with a [`Toy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Defect {
    /// Nothing.
    None,
    /// It promises power-loss safety and does not sync.
    NoSync,
    /// It acknowledges a transaction before it writes it.
    EarlyAcknowledgement,
    /// It writes a transaction into two files, each synced, with nothing that ties them.
    TwoFiles,
    /// It does not sync the directory of its new file.
    NoDirectorySync,
    /// It believes what it reads.
    NoChecksum,
}

impl Defect {
    /// Every defect, and none.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::NoSync,
        Self::EarlyAcknowledgement,
        Self::TwoFiles,
        Self::NoDirectorySync,
        Self::NoChecksum,
    ];

    /// Its name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NoSync => "no-sync",
            Self::EarlyAcknowledgement => "early-acknowledgement",
            Self::TwoFiles => "two-files",
            Self::NoDirectorySync => "no-directory-sync",
            Self::NoChecksum => "no-checksum",
        }
    }

    /// The defect of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|defect| defect.name() == name)
    }
}

type Write1 = (Vec<u8>, Option<Vec<u8>>);

/// A log that is read into memory.
#[derive(Debug)]
pub struct Toy {
    defect: Defect,
    logs: Vec<File>,
    entries: Entries,
    /// Acknowledged, and not written yet.
    held_back: Option<Transaction>,
}

impl Toy {
    /// Not opened yet.
    pub const fn new(defect: Defect) -> Self {
        Self { defect, logs: Vec::new(), entries: Entries::new(), held_back: None }
    }

    fn show(&mut self, writes: &[Write1]) {
        for (key, value) in writes {
            match value {
                Some(value) => self.entries.insert(key.clone(), value.clone()),
                None => self.entries.remove(key),
            };
        }
    }

    fn write(&mut self, transaction: &Transaction) -> Result<(), Failure> {
        let split = if self.defect == Defect::TwoFiles { 1 } else { transaction.writes.len() };
        let (first, second) = transaction.writes.split_at(split);
        for (file, writes) in [first, second].into_iter().enumerate() {
            if writes.is_empty() {
                continue;
            }
            self.logs[file].write_all(&record(writes))?;
            if self.defect != Defect::NoSync {
                self.logs[file].sync_data()?;
            }
        }
        Ok(())
    }
}

impl CrashTarget for Toy {
    fn start(&mut self, dir: &Path) -> Result<(), Failure> {
        for name in ["log", "log-2"] {
            let path = dir.join(name);
            let mut log = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            let mut bytes = Vec::new();
            log.read_to_end(&mut bytes)?;
            let mut valid = 0;
            while let Some((writes, length)) = parse(&bytes[valid..], self.defect) {
                self.show(&writes);
                valid += length;
            }
            log.set_len(valid as u64)?;
            log.sync_all()?;
            self.logs.push(log);
        }
        if self.defect != Defect::NoDirectorySync {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }

    fn apply(&mut self, transaction: &Transaction) -> Result<(), Failure> {
        self.show(&transaction.writes);
        if self.defect != Defect::EarlyAcknowledgement {
            return self.write(transaction);
        }
        match self.held_back.replace(transaction.clone()) {
            Some(before) => self.write(&before),
            None => Ok(()),
        }
    }

    fn acknowledge(&mut self) -> Result<Promise, Failure> {
        Ok(Promise::PowerLoss)
    }

    fn reopen(&mut self, dir: &Path) -> Result<(), Failure> {
        self.start(dir)
    }

    fn dump(&mut self) -> Result<Entries, Failure> {
        Ok(self.entries.clone())
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = foldhash::quality::FixedState::default().build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

/// `length u32 | checksum u64 | (key length u8 | key | value length + 1, or 0 u32 | value)…`,
/// little-endian.
fn record(writes: &[Write1]) -> Vec<u8> {
    let small = |n: usize| u32::try_from(n).expect("transactions are small").to_le_bytes();
    let mut body = Vec::new();
    for (key, value) in writes {
        body.push(u8::try_from(key.len()).expect("keys are short"));
        body.extend_from_slice(key);
        body.extend(value.as_ref().map_or([0; 4], |value| small(value.len() + 1)));
        body.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    let mut record = small(body.len()).to_vec();
    record.extend(checksum(&body).to_le_bytes());
    record.extend(body);
    record
}

fn parse(bytes: &[u8], defect: Defect) -> Option<(Vec<Write1>, usize)> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let mut body = rest.get(..length)?;
    let believed = defect == Defect::NoChecksum || checksum(body) == u64::from_le_bytes(*sum);
    if length == 0 || !believed {
        return None;
    }
    let mut writes = Vec::new();
    while let Some((key, rest)) = body.split_first() {
        let (key, rest) = rest.split_at_checked(usize::from(*key))?;
        let (value, rest) = rest.split_first_chunk()?;
        let value = usize::try_from(u32::from_le_bytes(*value)).ok()?;
        let (value, rest) = match value.checked_sub(1) {
            Some(length) => rest.split_at_checked(length).map(|(v, r)| (Some(v.to_vec()), r))?,
            None => (None, rest),
        };
        writes.push((key.to_vec(), value));
        body = rest;
    }
    Some((writes, 12 + length))
}
