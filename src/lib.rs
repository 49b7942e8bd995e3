//! Steadfast: an embedded, versioned, durable database whose crash safety you can check
//! yourself.
//!
//! One directory, one writing process, data served from memory, every commit in a write-ahead
//! log. Runs (isolated spaces) hold key-values, event streams and state cells, and one
//! transaction may touch all of them; signals, collections, cohorts and graphs of what is engaged
//! with together as well.
//!
//! ```
//! use steadfast::{Database, DatabaseConfig};
//!
//! # let dir = std::env::temp_dir().join(format!("steadfast-doc-{}", std::process::id()));
//! let db = Database::open_or_create(&dir, DatabaseConfig::strict())?;
//! let run = db.get_or_create_run("agent-7")?;
//! let (seq, receipt) = db.transaction(|tx| {
//!     tx.kv_put(run, "goal", "fix the parser")?;
//!     tx.state_set(run, "phase", "reading")?;
//!     tx.event_append(run, "steps", "opened parser.rs")
//! })?;
//! assert_eq!(seq, 0);
//! assert_eq!(db.kv_get(run, "goal")?.unwrap().version, receipt.version());
//! db.close()?;
//!
//! let db = Database::open(&dir)?;
//! let run = db.resolve_run("agent-7")?;
//! assert_eq!(db.event_read(run, "steps", 0)?.count(), 1);
//! # db.close()?;
//! # std::fs::remove_dir_all(&dir).unwrap();
//! # Ok::<(), steadfast::Error>(())
//! ```
//!
//! Events are chained by hash ([`Database::event_verify`]). Who wants to follow what is committed
//! has [`Database::subscribe`], [`Database::cursor`] and [`Database::tail`].
//!
//! What survives which crash is said at [`DurabilityMode`]; what opening makes of files that
//! a crash or a fault left is in [`RecoveryReport`]; what can go wrong in [`ErrorKind`].

pub use steadfast_engine::*;
