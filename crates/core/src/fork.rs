//! The record that makes a run a fork: which other runs it sees through to, and at what version
//! of each.
//!
//! It lies in the fork's own namespace, under a key of its own, and holds the *layers* beneath
//! the run: first the run that it was forked from, then those which that one was forked from. As
//! long as any version of the record is kept, what its layers show is.
//!
//! ```text
//! bytes value: for each layer, the nearest first: | namespace id, u32 | version, u64 |
//! ```
//!
//! Little endian. The version 0 is that of the commit which wrote the record: it is not known
//! before, and what that commit wrote itself belongs to it.

use crate::limits::FORK_DEPTH_MAX;
use crate::{Key, NamespaceId, Record, TypeTag, Value, Version};

/// The user part of the key of such a record. A run has one other key of that primitive, which
/// comes before: that of its grave.
const FORK: &[u8] = b"fork";

const LAYER_BYTES: usize = 12;

/// One run that a fork sees through to, as it was at a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layer {
    /// The namespace of the run.
    pub namespace: NamespaceId,
    /// The version; [`Version::ZERO`] before the commit that forks has one.
    pub version: Version,
}

/// A record that makes a run a fork, by where it lies and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The namespace of the fork.
    pub namespace: NamespaceId,
    /// The version of the record.
    pub version: Version,
    /// What lies beneath, the nearest first.
    pub layers: Vec<Layer>,
}

impl Fork {
    /// What `record` says; `None` if it makes no run a fork.
    pub fn of(record: &Record) -> Option<Self> {
        let layers = layers_of(record)?;
        let namespace = Key::namespace_of(record.key())?;
        Some(Self { namespace, version: record.version(), layers })
    }
}

/// The key of the record that says what lies beneath the run of `namespace`.
pub fn fork_key(namespace: NamespaceId) -> Key {
    Key::new(namespace, TypeTag::Run, FORK).expect("a short name is a key")
}

/// Whether a stored key is that of such a record.
#[inline]
pub fn is_fork_key(stored: &[u8]) -> bool {
    // All but a few keys differ in this byte.
    stored.get(4) == Some(&(TypeTag::Run as u8))
        && Key::user_part(stored) == FORK
        && Key::namespace_of(stored) != Some(NamespaceId::SYSTEM)
}

/// The value that says so.
pub fn layers_value(layers: &[Layer]) -> Value {
    let mut bytes = Vec::with_capacity(layers.len() * LAYER_BYTES);
    for layer in layers {
        bytes.extend_from_slice(&layer.namespace.0.to_le_bytes());
        bytes.extend_from_slice(&layer.version.0.to_le_bytes());
    }
    Value::Bytes(bytes)
}

/// The layers that `record` names, the nearest first; `None` if it is no such record, or one
/// that was deleted.
pub fn layers_of(record: &Record) -> Option<Vec<Layer>> {
    if record.is_tombstone() || !is_fork_key(record.key()) {
        return None;
    }
    let value = record.value().ok()?;
    let (layers, rest) = value.as_bytes()?.as_chunks::<LAYER_BYTES>();
    let layer = |bytes: &[u8; LAYER_BYTES]| {
        let (namespace, version) = bytes.split_first_chunk::<4>()?;
        let version = Version(u64::from_le_bytes(version.try_into().ok()?));
        Some(Layer {
            namespace: NamespaceId(u32::from_le_bytes(*namespace)),
            version: if version == Version::ZERO { record.version() } else { version },
        })
    };
    if layers.len() > FORK_DEPTH_MAX || !rest.is_empty() {
        return None;
    }
    layers.iter().map(layer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RecordBuilder, Result, Timestamp};

    fn record(key: &Key, value: &Value) -> Record {
        let mut bytes = key.as_bytes().to_vec();
        value.encode(&mut bytes).unwrap();
        let builder =
            RecordBuilder { version: Version(9), timestamp: Timestamp::ZERO, expiry: None };
        builder.put(&bytes, key.as_bytes().len())
    }

    #[test]
    fn layers_read_back_and_the_commit_s_own_version_is_filled_in() {
        let layer = |namespace, version| Layer {
            namespace: NamespaceId(namespace),
            version: Version(version),
        };
        let key = fork_key(NamespaceId(7));
        let written = layers_value(&[layer(3, 0), layer(u32::MAX, u64::MAX)]);
        let found = layers_of(&record(&key, &written)).unwrap();
        assert_eq!(found, [layer(3, 9), layer(u32::MAX, u64::MAX)]);
        assert_eq!(layers_of(&record(&key, &layers_value(&[]))), Some(Vec::new()));
    }

    #[test]
    fn nothing_else_passes_for_layers() {
        let key = fork_key(NamespaceId(7));
        let too_many = Value::Bytes(vec![1; LAYER_BYTES * (FORK_DEPTH_MAX + 1)]);
        let odd = Value::Bytes(vec![0; LAYER_BYTES + 1]);
        for value in [Value::Null, odd, too_many, Value::String("fork".into())] {
            assert_eq!(layers_of(&record(&key, &value)), None, "{value:?}");
        }
        let layers = layers_value(&[]);
        let others = [
            Key::new(NamespaceId(7), TypeTag::Kv, FORK),
            Key::new(NamespaceId(7), TypeTag::Run, b"deleted"),
            // A run of that name.
            Key::new(NamespaceId::SYSTEM, TypeTag::Run, FORK),
        ];
        for key in others.map(Result::unwrap) {
            assert_eq!(layers_of(&record(&key, &layers)), None, "{key:?}");
        }
        let builder =
            RecordBuilder { version: Version(9), timestamp: Timestamp::ZERO, expiry: None };
        assert_eq!(layers_of(&builder.tombstone(key.as_bytes())), None);
    }
}
