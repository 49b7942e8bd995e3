//! What was asked of a target, and whether what is found after a crash can come from it.

use crate::target::verdict::Verdict;
use crate::target::{Entries, Transaction};

const KEYS: u64 = 24;

/// Keys that each transaction changes.
const WRITES: usize = 3;

/// Transactions in order, drawn from a seed. Every value says which transaction wrote it.
#[derive(Debug, Clone)]
pub struct History {
    rng: fastrand::Rng,
    serial: u64,
    transactions: Vec<Transaction>,
    /// What crashes took away.
    undone: Vec<Transaction>,
}

/// How many of the transactions of a history were promised, acknowledged, and begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Bounds {
    /// Must be there.
    pub promised: usize,
    /// Were acknowledged, with whatever promise.
    pub acknowledged: usize,
    /// May be there.
    pub begun: usize,
}

impl History {
    /// No transactions yet.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            serial: 0,
            transactions: Vec::new(),
            undone: Vec::new(),
        }
    }

    /// How many transactions there are.
    pub fn len(&self) -> usize {
        self.transactions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// Draws the next transaction: three keys, small and large values, now and then a removal.
    pub fn begin(&mut self) -> Transaction {
        self.serial += 1;
        let mut transaction = Transaction { serial: self.serial, writes: Vec::new() };
        while transaction.writes.len() < WRITES {
            let key = format!("key-{:02}", self.rng.u64(..KEYS)).into_bytes();
            if transaction.writes.iter().any(|(other, _)| *other == key) {
                continue;
            }
            let bytes = match self.rng.u32(..12) {
                0 => 6000,
                1..=4 => self.rng.usize(400..1500),
                _ => self.rng.usize(8..100),
            };
            let mut value = format!("{}:", self.serial).into_bytes();
            value.extend(std::iter::repeat_with(|| self.rng.u8(..)).take(bytes));
            let removal = self.rng.u32(..8) == 0;
            transaction.writes.push((key, (!removal).then_some(value)));
        }
        self.transactions.push(transaction.clone());
        transaction
    }

    /// How many transactions there are up to this serial.
    pub(crate) fn through(&self, serial: u64) -> usize {
        self.transactions.partition_point(|one| one.serial <= serial)
    }

    /// What is stored after the first `count` transactions.
    pub fn state(&self, count: usize) -> Entries {
        let mut state = Entries::new();
        for (key, value) in self.transactions[..count].iter().flat_map(|one| &one.writes) {
            match value {
                Some(value) => state.insert(key.clone(), value.clone()),
                None => state.remove(key),
            };
        }
        state
    }

    /// Goes on from what a crash left: the later transactions never happened, and their
    /// serials do not come again.
    pub fn keep(&mut self, count: usize) {
        self.undone.extend(self.transactions.drain(count..));
    }

    /// Whether `found` is the first so many transactions, and enough of them.
    pub fn judge(&self, found: &Entries, bounds: Bounds) -> Verdict {
        let Bounds { promised, acknowledged, begun } = bounds;
        assert!(promised <= acknowledged && acknowledged <= begun && begun <= self.len());
        // The latest first: transactions that change nothing visible count as kept.
        for count in (promised..=begun).rev() {
            if self.state(count) == *found {
                return Verdict::Prefix(count);
            }
        }
        for count in (0..promised).rev() {
            if self.state(count) == *found {
                return Verdict::Lost { found: count, promised };
            }
        }
        self.name_the_mixture(found, begun)
    }

    /// The last of the first `count` transactions to write `key`, counted from 1.
    fn writer(&self, key: &[u8], count: usize) -> usize {
        let writes = |one: &Transaction| one.writes.iter().any(|(other, _)| other == key);
        self.transactions[..count].iter().rposition(writes).map_or(0, |at| at + 1)
    }

    fn name_the_mixture(&self, found: &Entries, begun: usize) -> Verdict {
        let wrote = |one: &Transaction, key: &[u8], value: &[u8]| {
            one.writes.iter().any(|(k, v)| k == key && v.as_deref() == Some(value))
        };
        let mut newest = 0;
        for (key, value) in found {
            let mut begun = self.transactions[..begun].iter();
            if let Some(by) = begun.rposition(|one| wrote(one, key, value)) {
                newest = newest.max(by + 1);
                continue;
            }
            let name = String::from_utf8_lossy(key).into_owned();
            return match self.undone.iter().find(|one| wrote(one, key, value)) {
                Some(one) => Verdict::Resurrected(format!("{name}, serial {}", one.serial)),
                None => Verdict::Garbage(name),
            };
        }
        let expected = self.state(newest);
        let keys: std::collections::BTreeSet<&Vec<u8>> =
            expected.keys().chain(found.keys()).collect();
        let missing = keys.iter().filter(|key| expected.get(**key) != found.get(**key));
        let Some(hole) = missing.map(|key| self.writer(key, newest)).min() else {
            return Verdict::Garbage("a removal".into());
        };
        let there = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| {
            value.is_some() && found.get(key) == value.as_ref()
        };
        // Without a write of it that was not overwritten, nobody can tell the two apart.
        match self.transactions[..hole].last().is_some_and(|one| one.writes.iter().any(there)) {
            true => Verdict::Torn(hole),
            false => Verdict::Hole { missing: hole, found: newest },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(promised: usize, begun: usize) -> Bounds {
        Bounds { promised, acknowledged: promised, begun }
    }

    #[test]
    fn names_each_way_to_be_wrong() {
        let mut history = History::new(1);
        (0..40).for_each(|_| drop(history.begin()));
        let judge = |found: &Entries, low, high| history.judge(found, bounds(low, high));
        for count in 10..=12 {
            assert!(
                matches!(judge(&history.state(count), 10, 12), Verdict::Prefix(n) if n == count)
            );
        }
        let lost = Verdict::Lost { found: 9, promised: 10 };
        assert_eq!(judge(&history.state(9), 10, 12), lost);
        // More than was ever begun is as foreign as bytes that nobody wrote.
        assert!(matches!(judge(&history.state(13), 10, 12), Verdict::Garbage(_)));
        let mut garbled = history.state(12);
        garbled.first_entry().unwrap().get_mut().push(0);
        assert!(matches!(judge(&garbled, 10, 12), Verdict::Garbage(_)));
        // One write of the last transaction is undone.
        let last = &history.transactions[11];
        let (mut torn, before) = (history.state(12), history.state(11));
        let (key, _) = last.writes.iter().find(|(_, value)| value.is_some()).unwrap();
        match before.get(key) {
            Some(old) => torn.insert(key.clone(), old.clone()),
            None => torn.remove(key),
        };
        assert_eq!(judge(&torn, 10, 12), Verdict::Torn(12));
        // All writes of the last but one are undone.
        let mut holed = history.state(10);
        for (key, value) in &history.transactions[11].writes {
            match value {
                Some(value) => holed.insert(key.clone(), value.clone()),
                None => holed.remove(key),
            };
        }
        assert_eq!(judge(&holed, 10, 12), Verdict::Hole { missing: 11, found: 12 });
    }

    #[test]
    fn what_a_crash_took_does_not_come_again() {
        let mut history = History::new(2);
        (0..10).for_each(|_| drop(history.begin()));
        let later = history.state(10);
        history.keep(5);
        assert_eq!(history.begin().serial, 11);
        assert!(matches!(history.judge(&later, bounds(0, 6)), Verdict::Resurrected(_)));
    }
}
