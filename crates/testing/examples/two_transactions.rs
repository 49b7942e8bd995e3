//! An application with a bug that only a crash shows, found by the crash matrix and made small.
//!
//! A bank moves money between accounts; their sum must never change. One version of it takes the
//! money in one transaction and gives it in another. All of its ordinary tests pass: the sum is
//! right before and after every transfer. The matrix finds the crash in between, and then the
//! shortest program and the simplest crash that still show it.
//!
//! `cargo run -p steadfast-testing --example two_transactions`

use steadfast_engine::{Database, Run};
use steadfast_testing::matrix::{Ack, Acked, Failure, MatrixReport, crash_matrix};

/// A transfer between two of the accounts: from, to, amount.
pub(crate) type Transfer = (u64, u64, i64);

/// How a transfer is made.
pub(crate) type Move = fn(&Database, Run, Transfer) -> steadfast_engine::Result<()>;

fn balance(found: Option<steadfast_engine::VersionedValue>) -> i64 {
    found.and_then(|found| found.value.as_int()).unwrap_or(0)
}

/// Takes in one transaction and gives in another: the bug.
pub(crate) fn in_two(
    db: &Database,
    run: Run,
    (from, to, amount): Transfer,
) -> steadfast_engine::Result<()> {
    db.transaction(|tx| {
        let before = balance(tx.kv_get(run, account(from))?);
        tx.kv_put(run, account(from), before - amount)
    })?;
    db.transaction(|tx| {
        let before = balance(tx.kv_get(run, account(to))?);
        tx.kv_put(run, account(to), before + amount)
    })?;
    Ok(())
}

/// Takes and gives in one transaction.
pub(crate) fn in_one(
    db: &Database,
    run: Run,
    (from, to, amount): Transfer,
) -> steadfast_engine::Result<()> {
    db.transaction(|tx| {
        let before = balance(tx.kv_get(run, account(from))?);
        tx.kv_put(run, account(from), before - amount)?;
        let before = balance(tx.kv_get(run, account(to))?);
        tx.kv_put(run, account(to), before + amount)
    })?;
    Ok(())
}

fn account(number: u64) -> String {
    format!("account-{number}")
}

/// The application: some transfers, each acknowledged to whoever asked for it.
pub(crate) fn bank(db: &Database, ack: &Ack<Transfer>, transfer: Move) -> Result<(), Failure> {
    let run = db.get_or_create_run("bank")?;
    for _ in ack.rounds(20) {
        let amount = i64::try_from(ack.draw(1000))?;
        let asked = (ack.draw(5), ack.draw(5), amount);
        ack.tell(format!("transfer {amount} from account {} to account {}", asked.0, asked.1));
        transfer(db, run, asked)?;
        ack.done(asked);
    }
    Ok(())
}

/// The invariant: money is neither made nor lost.
pub(crate) fn sum_is_zero(db: &Database, _: &Acked<'_, Transfer>) -> Result<(), Failure> {
    let mut sum = 0;
    // Before the first commit there is no bank.
    let Ok(run) = db.resolve_run("bank") else { return Ok(()) };
    for row in db.kv_scan(run, "account-")? {
        sum += row?.1.value.as_int().unwrap_or(0);
    }
    if sum == 0 { Ok(()) } else { Err(format!("the sum of all accounts is {sum}").into()) }
}

/// Crashes the bank at every step.
pub(crate) fn crash(seed: u64, transfer: Move) -> MatrixReport {
    crash_matrix(seed).run(move |db, ack| bank(db, ack, transfer)).check(sum_is_zero)
}

fn main() {
    println!("One transaction a transfer:\n{}\n", crash(1, in_one));
    println!("Two transactions a transfer:\n{}", crash(1, in_two));
}
