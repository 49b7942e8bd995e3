//! The log as logical entries: what tools show and what tests of incomplete transactions
//! write by hand. Replay itself works on frames and only streamed transactions pass through
//! here.

use std::collections::HashMap;

use steadfast_core::{
    Key, Namespace, NamespaceId, Record, RecordBuilder, ReplayTarget, Timestamp, Version,
};

/// One logical entry of the log. Every entry of a transaction carries its id; an ordinary
/// transaction's id is its version.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WalEntry {
    /// A transaction begins.
    BeginTxn {
        /// Its id.
        txn_id: u64,
        /// When.
        timestamp: Timestamp,
    },
    /// A namespace id gets its meaning.
    DefineNamespace {
        /// The transaction that is the first to use it.
        txn_id: u64,
        /// The id.
        id: NamespaceId,
        /// What it stands for.
        namespace: Namespace,
    },
    /// A key gets a value.
    Write {
        /// The transaction.
        txn_id: u64,
        /// The key.
        key: Key,
        /// The encoded value.
        value: Vec<u8>,
        /// When it stops being there, if ever.
        expiry: Option<Timestamp>,
    },
    /// A key is removed.
    Delete {
        /// The transaction.
        txn_id: u64,
        /// The key.
        key: Key,
    },
    /// A transaction is committed.
    CommitTxn {
        /// Its id.
        txn_id: u64,
        /// Its version.
        version: Version,
        /// When.
        timestamp: Timestamp,
    },
    /// A transaction is given up.
    AbortTxn {
        /// Its id.
        txn_id: u64,
    },
}

impl WalEntry {
    /// The transaction it belongs to.
    pub const fn txn_id(&self) -> u64 {
        match self {
            Self::BeginTxn { txn_id, .. }
            | Self::DefineNamespace { txn_id, .. }
            | Self::Write { txn_id, .. }
            | Self::Delete { txn_id, .. }
            | Self::CommitTxn { txn_id, .. }
            | Self::AbortTxn { txn_id } => *txn_id,
        }
    }
}

/// The entries of one transaction, in log order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its id.
    pub txn_id: u64,
    /// Whether its begin was seen.
    pub begun: bool,
    /// Its writes and deletes.
    pub entries: Vec<WalEntry>,
    /// Version and time of its commit; `None` if it has none.
    pub committed: Option<(Version, Timestamp)>,
    /// Whether it was given up.
    pub aborted: bool,
}

/// What is not to be applied in a list of entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ValidationResult {
    /// Transactions with a begin and neither a commit nor an abort, by id, in log order.
    pub incomplete_txns: Vec<u64>,
    /// Entries of a transaction that never began.
    pub orphaned_entries: usize,
}

/// Groups entries by transaction, in the order in which the transactions first appear.
pub fn group_entries_by_txn(entries: &[WalEntry]) -> Vec<Transaction> {
    let mut transactions: Vec<Transaction> = Vec::new();
    let mut index = HashMap::new();
    for entry in entries {
        let txn_id = entry.txn_id();
        let at = *index.entry(txn_id).or_insert_with(|| {
            transactions.push(Transaction {
                txn_id,
                begun: false,
                entries: Vec::new(),
                committed: None,
                aborted: false,
            });
            transactions.len() - 1
        });
        let transaction = &mut transactions[at];
        match entry {
            WalEntry::BeginTxn { .. } => transaction.begun = true,
            WalEntry::CommitTxn { version, timestamp, .. } => {
                transaction.committed = Some((*version, *timestamp));
            }
            WalEntry::AbortTxn { .. } => transaction.aborted = true,
            _ => transaction.entries.push(entry.clone()),
        }
    }
    transactions
}

/// Says which transactions of a list of entries are incomplete and how many entries are
/// orphaned.
pub fn validate_transactions(entries: &[WalEntry]) -> ValidationResult {
    let mut result = ValidationResult::default();
    for transaction in group_entries_by_txn(entries) {
        if !transaction.begun {
            result.orphaned_entries += transaction.entries.len()
                + usize::from(transaction.committed.is_some())
                + usize::from(transaction.aborted);
        } else if transaction.committed.is_none() && !transaction.aborted {
            result.incomplete_txns.push(transaction.txn_id);
        }
    }
    result
}

/// What applying transactions did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Writes applied.
    pub writes: u64,
    /// Deletes applied.
    pub deletes: u64,
}

/// Applies a complete, committed transaction to `target`; any other leaves it untouched.
pub fn apply_transaction(transaction: &Transaction, target: &dyn ReplayTarget) -> Applied {
    let mut applied = Applied::default();
    let Some((version, timestamp)) = transaction.committed else { return applied };
    if !transaction.begun || transaction.aborted {
        return applied;
    }
    let mut records: Vec<Record> = Vec::with_capacity(transaction.entries.len());
    for entry in &transaction.entries {
        match entry {
            WalEntry::Write { key, value, expiry, .. } => {
                let mut bytes = key.as_bytes().to_vec();
                bytes.extend_from_slice(value);
                let builder = RecordBuilder { version, timestamp, expiry: *expiry };
                records.push(builder.put(&bytes, key.as_bytes().len()));
                applied.writes += 1;
            }
            WalEntry::Delete { key, .. } => {
                let builder = RecordBuilder { version, timestamp, expiry: None };
                records.push(builder.tombstone(key.as_bytes()));
                applied.deletes += 1;
            }
            WalEntry::DefineNamespace { id, namespace, .. } => {
                target.define_namespace(*id, namespace);
            }
            _ => {}
        }
    }
    target.apply(records);
    applied
}

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_core::TypeTag;

    fn write(txn_id: u64, name: &str) -> WalEntry {
        let key = Key::new(NamespaceId(1), TypeTag::Kv, name.as_bytes()).unwrap();
        WalEntry::Write { txn_id, key, value: vec![0], expiry: None }
    }

    fn begin(txn_id: u64) -> WalEntry {
        WalEntry::BeginTxn { txn_id, timestamp: Timestamp::ZERO }
    }

    fn commit(txn_id: u64) -> WalEntry {
        WalEntry::CommitTxn { txn_id, version: Version(txn_id), timestamp: Timestamp::ZERO }
    }

    #[test]
    fn interleaved_transactions_are_told_apart_by_their_ids() {
        let entries =
            [begin(1), begin(2), write(2, "b"), write(1, "a"), commit(2), write(1, "c"), commit(1)];
        let grouped = group_entries_by_txn(&entries);
        assert_eq!(grouped.iter().map(|t| t.txn_id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(grouped[0].entries, [write(1, "a"), write(1, "c")]);
        assert_eq!(grouped[1].entries, [write(2, "b")]);
        assert_eq!(validate_transactions(&entries), ValidationResult::default());
    }

    #[test]
    fn says_what_is_incomplete_and_what_is_orphaned() {
        let aborted = WalEntry::AbortTxn { txn_id: 4 };
        let entries = [begin(1), write(1, "a"), write(9, "x"), commit(9), begin(4), aborted];
        let result = validate_transactions(&entries);
        assert_eq!(result, ValidationResult { incomplete_txns: vec![1], orphaned_entries: 2 });
    }
}
