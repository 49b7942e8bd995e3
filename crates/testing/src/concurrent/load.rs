//! [`Load`]: small transactions on few keys, as one thread runs them against others. Every write
//! has a value of its own.

use steadfast_engine::{Database, ErrorKind, Receipt, Result, Run};

use super::recorded::Recorded;
use super::recorder::Recorder;

/// On what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    /// How many keys there are: the fewer, the more conflicts.
    pub keys: usize,
    /// One transaction in so many only reads; 0 for none.
    pub reads_one_in: usize,
    /// Values have about this many bytes.
    pub value_bytes: usize,
}

impl Default for Mix {
    /// Eight keys, every third transaction only reads, values of some bytes.
    fn default() -> Self {
        Self { keys: 8, reads_one_in: 3, value_bytes: 0 }
    }
}

/// The work of one thread.
#[derive(Debug)]
pub struct Load {
    who: String,
    mix: Mix,
    rng: fastrand::Rng,
    values: u64,
    pause: fn(),
}

impl Load {
    /// Of `who`, a name that no other has, on what `mix` says, drawn from `seed`.
    pub fn new(who: impl Into<String>, mix: Mix, seed: u64) -> Self {
        Self { who: who.into(), mix, rng: fastrand::Rng::with_seed(seed), values: 0, pause: || {} }
    }

    /// Calls `pause` between the reads and writes of a transaction, so that others get their turn
    /// there.
    #[must_use]
    pub fn pausing(mut self, pause: fn()) -> Self {
        self.pause = pause;
        self
    }

    fn key(&mut self) -> String {
        // Two prefixes, so that ranges are smaller than everything.
        let n = self.rng.usize(..self.mix.keys.max(1));
        format!("{}{}", if n.is_multiple_of(2) { "a" } else { "b" }, n / 2)
    }

    fn value(&mut self) -> String {
        self.values += 1;
        format!("{}.{}{}", self.who, self.values, "x".repeat(self.mix.value_bytes))
    }

    /// Runs one transaction, or view, on `db`. `None`: it lost to another, or wrote nothing.
    ///
    /// # Errors
    ///
    /// All but conflicts.
    pub fn step(
        &mut self,
        recorder: &Recorder,
        db: &Database,
        run: Run,
    ) -> Result<Option<Receipt>> {
        let reads = self.mix.reads_one_in > 0 && self.rng.usize(..self.mix.reads_one_in) == 0;
        if reads {
            return self.look(recorder, db, run).map(|()| None);
        }
        let who = self.who.clone();
        match recorder.transaction(&who, db, run, |tx| self.change(tx)) {
            Ok(((), receipt)) => Ok(Some(receipt)),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn look(&mut self, recorder: &Recorder, db: &Database, run: Run) -> Result<()> {
        let (who, keys) = (self.who.clone(), [self.key(), self.key(), self.key()]);
        let (pause, prefix) =
            (self.pause, *self.rng.choice(&["", "a", "b"]).expect("there are some"));
        if self.rng.u8(..4) == 0 {
            let read = recorder.transaction(&who, db, run, |tx| {
                tx.kv_scan(prefix)?;
                pause();
                keys.iter().try_for_each(|key| tx.kv_get(key).map(drop))
            });
            return read.map(drop);
        }
        recorder.view(&who, db, run, |view| {
            keys.iter().try_for_each(|key| {
                pause();
                view.kv_get(key).map(drop)
            })?;
            pause();
            view.kv_scan(prefix).map(drop)
        })
    }

    fn change(&mut self, tx: &mut Recorded<'_>) -> Result<()> {
        let (one, other) = (self.key(), self.key());
        let pause = self.pause;
        match self.rng.u8(..8) {
            // What a lost update needs.
            0 | 1 => {
                tx.kv_get(&one)?;
                pause();
                tx.kv_put(&one, self.value())
            }
            // What write skew needs: reads two, writes one.
            2 | 3 => {
                tx.kv_get(&one)?;
                pause();
                tx.kv_get(&other)?;
                pause();
                tx.kv_put(&one, self.value())
            }
            // What a phantom needs: reads a range, writes into another.
            4 => {
                let (read, write) = if self.rng.bool() { ("a", "b") } else { ("b", "a") };
                tx.kv_scan(read)?;
                pause();
                let n = self.rng.usize(..self.mix.keys.div_ceil(2).max(1));
                tx.kv_put(&format!("{write}{n}"), self.value())
            }
            // What a torn transaction needs: writes several, reads none.
            5 => {
                tx.kv_put(&one, self.value())?;
                pause();
                tx.kv_put(&other, self.value())?;
                pause();
                tx.kv_put(&self.key(), self.value())
            }
            6 => {
                tx.kv_get(&one)?;
                pause();
                tx.kv_delete(&one)?;
                pause();
                if self.rng.bool() {
                    tx.kv_put(&other, self.value())?;
                    pause();
                }
                Ok(())
            }
            // Reads among its own writes.
            _ => {
                tx.kv_put(&one, self.value())?;
                pause();
                tx.kv_scan("")?;
                pause();
                tx.kv_get(&one)?;
                pause();
                tx.kv_delete(&other)
            }
        }
    }
}
