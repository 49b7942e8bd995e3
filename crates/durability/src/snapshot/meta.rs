//! What a snapshot says of itself besides its rows.

use steadfast_core::codec::{Cursor, put_varint};
use steadfast_core::fork::{Fork, Layer};
use steadfast_core::limits::{FORK_DEPTH_MAX, NAMESPACES_MAX};
use steadfast_core::{
    Namespace, NamespaceId, Result, RetentionDomain, RetentionFloor, RunId, Timestamp, TypeTag,
    Version,
};

/// What a snapshot says of itself besides its rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotMeta {
    /// Everything committed up to this version is in it, as far as it was kept.
    pub version: Version,
    /// When the newest commit in it was made.
    pub timestamp: Timestamp,
    /// When it was written.
    pub created: Timestamp,
    /// The dictionary of namespaces.
    pub namespaces: Vec<(NamespaceId, Namespace)>,
    /// Up to where the past is gone.
    pub floors: Vec<(RetentionDomain, RetentionFloor)>,
    /// The records that make runs forks, as far as they are in it: what they see through to has
    /// to be kept from the moment on at which anything is dropped, before the rows are read.
    pub forks: Vec<Fork>,
}

fn namespace_id(cursor: &mut Cursor<'_>) -> Result<NamespaceId> {
    let id = u32::try_from(cursor.varint()?).unwrap_or(u32::MAX);
    match id > NAMESPACES_MAX {
        true => Err(cursor.malformed("a namespace id that cannot be")),
        false => Ok(NamespaceId(id)),
    }
}

impl SnapshotMeta {
    /// The payload of the meta block.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.version.0);
        put_varint(&mut out, self.timestamp.as_micros());
        put_varint(&mut out, self.created.as_micros());
        put_varint(&mut out, self.namespaces.len() as u64);
        for (id, namespace) in &self.namespaces {
            put_varint(&mut out, u64::from(id.0));
            namespace.encode(&mut out);
        }
        put_varint(&mut out, self.floors.len() as u64);
        for (domain, floor) in &self.floors {
            out.push(u8::from(domain.run.is_some()));
            if let Some(run) = domain.run {
                out.extend_from_slice(&run.to_bytes());
            }
            out.push(domain.tag as u8);
            put_varint(&mut out, floor.version.0);
            put_varint(&mut out, floor.clock.as_micros());
        }
        if self.forks.is_empty() {
            return out;
        }
        put_varint(&mut out, self.forks.len() as u64);
        for fork in &self.forks {
            put_varint(&mut out, u64::from(fork.namespace.0));
            put_varint(&mut out, fork.version.0);
            put_varint(&mut out, fork.layers.len() as u64);
            for layer in &fork.layers {
                put_varint(&mut out, u64::from(layer.namespace.0));
                put_varint(&mut out, layer.version.0);
            }
        }
        out
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new("meta block", payload);
        let mut meta = Self {
            version: Version(cursor.varint()?),
            timestamp: Timestamp::from_micros(cursor.varint()?),
            created: Timestamp::from_micros(cursor.varint()?),
            ..Self::default()
        };
        for _ in 0..cursor.length()? {
            let id = namespace_id(&mut cursor)?;
            meta.namespaces.push((id, Namespace::decode(&mut cursor)?));
        }
        for _ in 0..cursor.length()? {
            let run = match cursor.u8()? {
                0 => None,
                1 => Some(RunId::from_bytes(cursor.array()?)),
                _ => return Err(cursor.malformed("neither a run nor none")),
            };
            let tag = TypeTag::from_number(cursor.u8()?)
                .ok_or_else(|| cursor.malformed("an unknown type tag"))?;
            let version = Version(cursor.varint()?);
            let clock = Timestamp::from_micros(cursor.varint()?);
            meta.floors.push((RetentionDomain { run, tag }, RetentionFloor { version, clock }));
        }
        let forks = if cursor.is_empty() { 0 } else { cursor.length()? };
        for _ in 0..forks {
            let namespace = namespace_id(&mut cursor)?;
            let version = Version(cursor.varint()?);
            let count = cursor.length()?;
            if count > FORK_DEPTH_MAX {
                return Err(cursor.malformed("a fork of more runs than there can be"));
            }
            let mut layer = || {
                let namespace = namespace_id(&mut cursor)?;
                Ok(Layer { namespace, version: Version(cursor.varint()?) })
            };
            let layers = (0..count).map(|_| layer()).collect::<Result<_>>()?;
            meta.forks.push(Fork { namespace, version, layers });
        }
        cursor.end()?;
        Ok(meta)
    }
}
