//! The full address of a run, and the small id that stands for it in stored keys.

use crate::codec::{Cursor, put_bytes};
use crate::limits::NAME_BYTES_MAX;
use crate::{Error, Result, RunId};

/// The full address of a run: whose it is, and which.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace {
    tenant: Box<str>,
    app: Box<str>,
    agent: Box<str>,
    run: RunId,
}

impl Namespace {
    /// What fills a part that a caller leaves out.
    pub const DEFAULT_PART: &'static str = "default";

    /// The address of `run` under `tenant`, `app` and `agent`.
    pub fn new(tenant: &str, app: &str, agent: &str, run: RunId) -> Result<Self> {
        for (what, name) in [("tenant", tenant), ("app", app), ("agent", agent)] {
            check_name(what, name)?;
        }
        Ok(Self { tenant: tenant.into(), app: app.into(), agent: agent.into(), run })
    }

    /// The address of `run` with [`Namespace::DEFAULT_PART`] for all else.
    pub fn for_run(run: RunId) -> Self {
        let part = Self::DEFAULT_PART;
        Self { tenant: part.into(), app: part.into(), agent: part.into(), run }
    }

    /// The tenant.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The application.
    pub fn app(&self) -> &str {
        &self.app
    }

    /// The agent.
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// The run.
    pub const fn run(&self) -> RunId {
        self.run
    }

    /// Appends the encoding: three texts with their lengths, then the run's 16 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for part in [&self.tenant, &self.app, &self.agent] {
            put_bytes(out, part.as_bytes());
        }
        out.extend_from_slice(&self.run.to_bytes());
    }

    /// Reads what [`Namespace::encode`] wrote.
    pub fn decode(cursor: &mut Cursor<'_>) -> Result<Self> {
        let (tenant, app, agent) = (cursor.str()?, cursor.str()?, cursor.str()?);
        Self::new(tenant, app, agent, RunId::from_bytes(cursor.array()?))
    }
}

/// Checks a name against its limits.
pub fn check_name(what: &'static str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::EmptyName { what });
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::NameTooLong { what, bytes: name.len(), limit: NAME_BYTES_MAX });
    }
    Ok(())
}

/// Stands for a [`Namespace`] in stored keys. Ids are given in order from 1 and name the same
/// namespace for as long as the database lives; the log carries the dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId(pub u32);

impl NamespaceId {
    /// The database's own space: the run index lives here.
    pub const SYSTEM: Self = Self(0);
}
