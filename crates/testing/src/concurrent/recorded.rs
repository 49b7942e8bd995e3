//! Transactions and views of key-values that record what they do.

use steadfast_engine::{Database, Receipt, Result, Run, Transaction, Value, VersionedValue, View};

use super::history::{Seen, key_text, text_of};
use super::recorder::{Attempt, Recorder};

impl Recorder {
    /// Runs `work` in a transaction of `db` on the key-values of `run`, commits it, and records
    /// it all. One attempt: a conflict is returned, and recorded as what it is.
    pub fn transaction<T>(
        &self,
        who: &str,
        db: &Database,
        run: Run,
        work: impl FnOnce(&mut Recorded<'_>) -> Result<T>,
    ) -> Result<(T, Receipt)> {
        let mut attempt = self.begin(who);
        let transaction = db.begin()?;
        attempt.reads_at(transaction.version());
        let mut recorded = Recorded { transaction, attempt, run };
        let value = work(&mut recorded)?;
        let Recorded { transaction, mut attempt, .. } = recorded;
        attempt.committing();
        let committed = match transaction.write_count() {
            0 => transaction.commit(),
            _ => transaction.submit().and_then(|pending| {
                let pending = pending.expect("there are writes");
                attempt.queued(pending.version());
                pending.wait()
            }),
        };
        attempt.ended_with(&committed);
        Ok((value, committed?))
    }

    /// Runs `work` on a view of `db`, and records what it reads.
    pub fn view<T>(
        &self,
        who: &str,
        db: &Database,
        run: Run,
        work: impl FnOnce(&mut RecordedView<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut attempt = self.begin(who);
        let view = db.view()?;
        attempt.reads_at(view.version());
        let mut recorded = RecordedView { view, attempt, run };
        let done = work(&mut recorded)?;
        recorded.attempt.ended(super::Outcome::ReadOnly);
        Ok(done)
    }
}

fn seen(found: &VersionedValue) -> Seen {
    Seen { version: found.version, value: text_of(&found.value) }
}

/// The first key after all that begin with `prefix`, as text; `None` if there is none.
fn after(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

/// A transaction whose reads and writes are recorded.
pub struct Recorded<'a> {
    transaction: Transaction,
    attempt: Attempt<'a>,
    run: Run,
}

impl std::fmt::Debug for Recorded<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recorded({:?}, {:?})", self.attempt, self.transaction)
    }
}

impl Recorded<'_> {
    /// The value of `key`.
    pub fn kv_get(&mut self, key: &str) -> Result<Option<VersionedValue>> {
        let found = self.transaction.kv_get(self.run, key)?;
        if !self.attempt.has_written(key) {
            self.attempt.read(key, found.as_ref().map(seen));
        }
        Ok(found)
    }

    /// The key-values whose keys begin with `prefix`.
    pub fn kv_scan(&mut self, prefix: &str) -> Result<Vec<(String, VersionedValue)>> {
        let rows = self.transaction.kv_scan(self.run, prefix)?;
        let rows = rows.map(|row| row.map(|(key, found)| (key_text(&key), found)));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let others = rows.iter().filter(|(key, _)| !self.attempt.has_written(key));
        let others = others.map(|(key, found)| (key.clone(), seen(found))).collect();
        self.attempt.read_range(prefix, after(prefix).as_deref(), others);
        Ok(rows)
    }

    /// Gives `key` a value.
    pub fn kv_put(&mut self, key: &str, value: impl Into<Value>) -> Result<()> {
        let value = value.into();
        let text = text_of(&value);
        self.transaction.kv_put(self.run, key, value)?;
        self.attempt.write(key, Some(&text));
        Ok(())
    }

    /// Removes `key`.
    pub fn kv_delete(&mut self, key: &str) -> Result<()> {
        self.transaction.kv_delete(self.run, key)?;
        self.attempt.write(key, None);
        Ok(())
    }

    /// The transaction itself: what is done with it is not recorded.
    pub const fn unrecorded(&mut self) -> &mut Transaction {
        &mut self.transaction
    }
}

/// A view whose reads are recorded.
pub struct RecordedView<'a> {
    view: View,
    attempt: Attempt<'a>,
    run: Run,
}

impl std::fmt::Debug for RecordedView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecordedView({:?}, {:?})", self.attempt, self.view)
    }
}

impl RecordedView<'_> {
    /// The value of `key`.
    pub fn kv_get(&mut self, key: &str) -> Result<Option<VersionedValue>> {
        let found = self.view.kv_get(self.run, key)?;
        self.attempt.read(key, found.as_ref().map(seen));
        Ok(found)
    }

    /// The key-values whose keys begin with `prefix`.
    pub fn kv_scan(&mut self, prefix: &str) -> Result<Vec<(String, VersionedValue)>> {
        let rows = self.view.kv_scan(self.run, prefix)?;
        let rows = rows.map(|row| row.map(|(key, found)| (key_text(&key), found)));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let seen = rows.iter().map(|(key, found)| (key.clone(), seen(found))).collect();
        self.attempt.read_range(prefix, after(prefix).as_deref(), seen);
        Ok(rows)
    }
}
