//! The first program of the README: one transaction over three primitives, read back.

use steadfast::{Database, DatabaseConfig};

fn main() -> Result<(), steadfast::Error> {
    let dir = std::env::temp_dir().join(format!("steadfast-quick-start-{}", std::process::id()));
    let db = Database::open_or_create(&dir, DatabaseConfig::strict())?;
    let run = db.get_or_create_run("agent-7")?;

    // All of it or none of it, also if the power fails in between.
    let (seq, receipt) = db.transaction(|tx| {
        tx.kv_put(run, "goal", "fix the parser")?;
        tx.state_set(run, "phase", "reading")?;
        tx.event_append(run, "steps", "opened parser.rs")
    })?;
    println!("event {seq}, version {}", receipt.version());

    for event in db.event_read(run, "steps", 0)? {
        println!("{:?}", event?.payload);
    }
    db.close()?;
    println!("the database is in {}", dir.display());
    Ok(())
}
