//! Collections: sets of byte strings by name. An item is a key without a value, so that asking
//! for it is a point read and adding it meets no other.
//!
//! ```text
//! | namespace, Collection | name, escaped | item |    one key an item
//! | namespace, Collection | name, escaped |           a collection that was created
//! ```

use crate::key::{named_key, named_parts, named_prefix};
use crate::{Key, NamespaceId, Result, TypeTag};

const WHAT: &str = "collection";

/// The key of `item` in the collection `name` in `namespace`.
pub fn item_key(namespace: NamespaceId, name: &str, item: &[u8]) -> Result<Key> {
    named_key(namespace, TypeTag::Collection, WHAT, name, item)
}

/// The key that a collection has which was created.
pub fn collection_key(namespace: NamespaceId, name: &str) -> Result<Key> {
    Key::from_stored(&collection_prefix(namespace, name)?)
}

/// What every key of the collection begins with, and no key of another.
pub fn collection_prefix(namespace: NamespaceId, name: &str) -> Result<Vec<u8>> {
    named_prefix(namespace, TypeTag::Collection, WHAT, name)
}

/// Name and item in the stored key; the item is empty in that of the collection itself. `None`
/// if it is neither.
pub fn item_of(stored: &[u8]) -> Option<(String, &[u8])> {
    named_parts(stored)
}
