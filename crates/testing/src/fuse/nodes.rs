//! Inode numbers for the names of a disk.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use steadfast_durability::disk::{Access, Disk, DiskFile, EntryKind};

use crate::sim::SimDisk;

/// The number of the root, by the protocol.
pub(crate) const ROOT: u64 = 1;

/// What a number stands for.
#[derive(Clone)]
pub(crate) enum Kind {
    File(Arc<dyn DiskFile>),
    Dir,
}

/// A file or directory that the kernel was told of. It is never forgotten: a file without a name
/// may still be open.
pub(crate) struct Node {
    parent: u64,
    name: String,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) modified: SystemTime,
    /// Whether a name leads to it.
    pub(crate) linked: bool,
}

/// The numbers given out, each one more than its index.
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    names: HashMap<(u64, String), u64>,
}

fn index(number: u64) -> usize {
    usize::try_from(number - 1).expect("numbers are given out one by one")
}

impl Nodes {
    pub(crate) fn new() -> Self {
        let mut nodes = Self { nodes: Vec::new(), names: HashMap::new() };
        nodes.add(ROOT, "", Kind::Dir, 0o755);
        nodes
    }

    /// A file or directory that was made just now, or found.
    pub(crate) fn add(&mut self, parent: u64, name: &str, kind: Kind, mode: u32) -> u64 {
        let modified = SystemTime::now();
        self.nodes.push(Node { parent, name: name.into(), kind, mode, modified, linked: true });
        let number = self.nodes.len() as u64;
        self.names.insert((parent, name.into()), number);
        number
    }

    pub(crate) fn node(&mut self, number: u64) -> &mut Node {
        &mut self.nodes[index(number)]
    }

    pub(crate) fn file(&self, number: u64) -> io::Result<Arc<dyn DiskFile>> {
        match &self.nodes[index(number)].kind {
            Kind::File(file) => Ok(Arc::clone(file)),
            Kind::Dir => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// Where it is, or was when it last had a name.
    pub(crate) fn path(&self, mut number: u64) -> PathBuf {
        let mut names = Vec::new();
        while number != ROOT {
            let node = &self.nodes[index(number)];
            names.push(node.name.as_str());
            number = node.parent;
        }
        names.iter().rev().collect()
    }

    pub(crate) fn path_in(&self, parent: u64, name: &str) -> PathBuf {
        self.path(parent).join(name)
    }

    /// The number of a name, given out now if it is the first time that somebody asks.
    pub(crate) fn lookup(&mut self, disk: &SimDisk, parent: u64, name: &str) -> io::Result<u64> {
        if let Some(number) = self.names.get(&(parent, name.to_owned())) {
            return Ok(*number);
        }
        let path = self.path_in(parent, name);
        match disk.kind(&path)? {
            Some(EntryKind::Directory) => Ok(self.add(parent, name, Kind::Dir, 0o755)),
            Some(_) => {
                let file = disk.open(&path, Access::Write)?;
                Ok(self.add(parent, name, Kind::File(file), 0o644))
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// A name is gone.
    pub(crate) fn unlink(&mut self, parent: u64, name: &str) {
        if let Some(number) = self.names.remove(&(parent, name.to_owned())) {
            self.node(number).linked = false;
        }
    }

    /// A name has become another one in its directory, which nobody else has any more.
    pub(crate) fn rename(&mut self, parent: u64, from: &str, to: &str) {
        self.unlink(parent, to);
        if let Some(number) = self.names.remove(&(parent, from.to_owned())) {
            self.node(number).name = to.into();
            self.names.insert((parent, to.to_owned()), number);
        }
    }

    /// Every directory that has a name, or is the root.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let numbered = self.nodes.iter().zip(ROOT..);
        let dirs = numbered.filter(|(node, _)| node.linked && matches!(node.kind, Kind::Dir));
        dirs.map(|(_, number)| self.path(number)).collect()
    }
}
