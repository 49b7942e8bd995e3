//! Where recovery puts what it finds.

use crate::{Namespace, NamespaceId, Record, Version};

/// Receives the committed transactions of a log.
///
/// Durability knows no store: it reads its files and writes into one of these. A target keeps
/// the versions it is given, and a lower version never takes the place of a higher one, so
/// that applying the same records again changes nothing.
pub trait ReplayTarget: Sync {
    /// Takes a run of records: complete transactions only, in commit order, so the records of
    /// one key come with rising versions.
    fn apply(&self, run: Vec<Record>);

    /// Takes the definition of a namespace id. The same definition may come again.
    fn define_namespace(&self, id: NamespaceId, namespace: &Namespace);

    /// Called once, after the last record: every commit up to `version` is there.
    fn finish(&self, version: Version);
}
