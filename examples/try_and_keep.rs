//! An agent tries something in a fork of its run, looks at the difference, and keeps it or not.
//!
//! `cargo run --example try_and_keep`

use std::time::Duration;

use steadfast::{Database, Decay, Difference, Entry, Predicate, Result, SchemaBuilder};

fn main() -> Result<()> {
    let db = Database::in_memory()?;
    let run = db.create_run("agent-7")?;
    db.transaction(|tx| {
        tx.kv_put(run, "plan", "mend the parser")?;
        tx.event_append(run, "steps", "opened parser.rs")
    })?;

    // The fork begins with all that the run holds. Nothing is copied, however much that is.
    let trial = db.fork_run("agent-7", "agent-7/trial")?;
    db.kv_put(trial, "plan", "write the parser anew")?;
    db.event_append(trial, "steps", "began parser2.rs")?;
    assert_eq!(db.kv_get(run, "plan")?.map(|found| found.value), Some("mend the parser".into()));

    for difference in db.diff_runs(run, trial)? {
        match difference? {
            Difference::Changed { before: Entry::Kv { key, .. }, .. } => {
                println!("changed: {}", key.escape_ascii());
            }
            Difference::Added(Entry::Event { event, .. }) => println!("new: {:?}", event.payload),
            other => println!("{other:?}"),
        }
    }
    db.delete_run("agent-7/trial")?;

    // What happened, as a score that fades: for one entity, and for those that are alike.
    let half_life = Duration::from_secs(3600);
    db.define_signals(SchemaBuilder::signal("used").decay(Decay::Exponential { half_life }))?;
    db.define_cohort("slow tools", 1, &Predicate::ge("seconds", 10))?;
    db.transaction(|tx| {
        tx.attributes_set(run, "compiler", [("seconds".to_owned(), 40.into())].into())?;
        tx.signal_record(run, "used", "compiler", 1.0)
    })?;
    println!("compiler: {:.3}", db.signal_score(run, "used", "compiler")?);
    println!("slow tools: {:.3}", db.cohort_score(run, "slow tools", "used")?);
    Ok(())
}
