//! The files and directories of a simulated disk: what is durable, what the running system
//! sees, and the operations in between, in order.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hash, Hasher};
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use crate::sim::content::Content;

/// A file or directory, by number. Names point to them; open files do too.
pub(crate) type Id = u64;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    File(Id),
    Dir(Id),
}

/// A change of a file that is not durable.
#[derive(Debug, Clone)]
pub(crate) struct FileOp {
    /// The I/O step that made it.
    pub(crate) step: u64,
    pub(crate) change: FileChange,
    /// It is durable, but stands behind others of its file that are not.
    pub(crate) forced: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum FileChange {
    Write { offset: u64, bytes: Arc<[u8]> },
    Len(u64),
}

/// A change of a directory that is not durable.
#[derive(Debug, Clone)]
pub(crate) struct DirOp {
    pub(crate) step: u64,
    pub(crate) change: DirChange,
}

#[derive(Debug, Clone)]
pub(crate) enum DirChange {
    Link {
        name: String,
        node: Node,
    },
    Unlink {
        name: String,
    },
    /// Atomic: `from` is gone if and only if `to` is `node`.
    Rename {
        from: String,
        to: String,
        node: Node,
    },
}

#[derive(Clone, Default)]
pub(crate) struct File {
    pub(crate) durable: Content,
    pub(crate) cached: Content,
    pub(crate) pending: Vec<FileOp>,
    /// The next sync fails with this error number: an earlier write-back went wrong.
    pub(crate) late_errno: Option<i32>,
    /// A failed sync called pages clean that are not durable: what is durable and what is
    /// pending do not add up to what the system sees.
    pub(crate) lost: bool,
}

impl File {
    /// What is not durable is called clean.
    pub(crate) fn lose_pending(&mut self) {
        self.lost |= !self.pending.is_empty();
        self.pending.clear();
    }

    /// Whether the disk has what the system sees.
    pub(crate) fn is_clean(&self) -> bool {
        self.pending.is_empty() && !self.lost && self.late_errno.is_none()
    }
}

pub(crate) type Names = BTreeMap<String, Node>;

#[derive(Clone, Default)]
pub(crate) struct Dir {
    pub(crate) durable: Names,
    pub(crate) cached: Names,
    pub(crate) pending: Vec<DirOp>,
}

/// All of it. A copy is cheap: files are shared until they change.
#[derive(Clone)]
pub(crate) struct Tree {
    pub(crate) dirs: BTreeMap<Id, Arc<Dir>>,
    pub(crate) files: BTreeMap<Id, Arc<File>>,
    pub(crate) next_id: Id,
}

pub(crate) const ROOT: Id = 0;

pub(crate) fn apply_file(content: &mut Content, change: &FileChange) {
    match change {
        FileChange::Write { offset, bytes } => content.write(*offset, bytes),
        FileChange::Len(len) => content.set_len(*len),
    }
}

pub(crate) fn apply_dir(names: &mut Names, change: &DirChange) {
    match change {
        DirChange::Link { name, node } => {
            names.insert(name.clone(), *node);
        }
        DirChange::Unlink { name } => {
            names.remove(name);
        }
        DirChange::Rename { from, to, node } => {
            if names.get(from) == Some(node) {
                names.remove(from);
            }
            names.insert(to.clone(), *node);
        }
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// The names in a path; `/`, `.` and the empty path are the root.
fn names_of(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    })
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self { dirs: BTreeMap::from([(ROOT, Arc::default())]), files: BTreeMap::new(), next_id: 1 }
    }

    /// What a path names; `None` if nothing has that name in a directory that is there.
    pub(crate) fn find(&self, path: &Path) -> io::Result<Option<Node>> {
        let mut found = Some(Node::Dir(ROOT));
        for name in names_of(path) {
            found = match found {
                Some(Node::Dir(id)) => self.dirs[&id].cached.get(name).copied(),
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => return Ok(None),
            };
        }
        Ok(found)
    }

    pub(crate) fn file_at(&self, path: &Path) -> io::Result<Id> {
        match self.find(path)? {
            Some(Node::File(id)) => Ok(id),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(not_found()),
        }
    }

    pub(crate) fn dir_at(&self, path: &Path) -> io::Result<Id> {
        match self.find(path)? {
            Some(Node::Dir(id)) => Ok(id),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(not_found()),
        }
    }

    /// The directory that `path` lies in, and its name there.
    pub(crate) fn parent_of(&self, path: &Path) -> io::Result<(Id, String)> {
        let name = names_of(path).last().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let parent = path.parent().unwrap_or_else(|| Path::new(""));
        Ok((self.dir_at(parent)?, name))
    }

    pub(crate) fn file(&mut self, id: Id) -> &mut File {
        Arc::make_mut(self.files.get_mut(&id).expect("an open file is never forgotten"))
    }

    pub(crate) fn dir(&mut self, id: Id) -> &mut Dir {
        Arc::make_mut(self.dirs.get_mut(&id).expect("directories are never removed"))
    }

    pub(crate) fn new_file(&mut self) -> Id {
        self.next_id += 1;
        self.files.insert(self.next_id, Arc::default());
        self.next_id
    }

    pub(crate) fn new_dir(&mut self) -> Id {
        self.next_id += 1;
        self.dirs.insert(self.next_id, Arc::default());
        self.next_id
    }

    /// Changes what the running system sees, and remembers it as not durable.
    pub(crate) fn change_dir(&mut self, id: Id, step: u64, change: DirChange) {
        let dir = self.dir(id);
        apply_dir(&mut dir.cached, &change);
        dir.pending.push(DirOp { step, change });
    }

    /// As [`Tree::change_dir`], for a file.
    pub(crate) fn change_file(&mut self, id: Id, step: u64, change: FileChange) {
        let file = self.file(id);
        apply_file(&mut file.cached, &change);
        file.pending.push(FileOp { step, change, forced: false });
    }

    /// Everything pending of a file is durable now.
    pub(crate) fn sync_file(&mut self, id: Id) {
        let file = self.file(id);
        let File { durable, cached, pending, lost, .. } = file;
        if *lost {
            // Not the cache: what a failed sync lost stays lost.
            pending.drain(..).for_each(|op| apply_file(durable, &op.change));
        } else {
            // The same bytes; this way the pages are shared.
            durable.clone_from(cached);
            pending.clear();
        }
    }

    /// The names that lead to `id` are durable now, and whatever its directory did before.
    pub(crate) fn sync_links_of(&mut self, id: Id) {
        for dir in self.dirs.values_mut() {
            let links = |op: &DirOp| match &op.change {
                DirChange::Link { node, .. } | DirChange::Rename { node, .. } => {
                    *node == Node::File(id)
                }
                DirChange::Unlink { .. } => false,
            };
            if let Some(last) = dir.pending.iter().rposition(links) {
                let dir = Arc::make_mut(dir);
                let done: Vec<_> = dir.pending.drain(..=last).collect();
                done.iter().for_each(|op| apply_dir(&mut dir.durable, &op.change));
            }
        }
    }

    pub(crate) fn sync_dir(&mut self, id: Id) {
        let Dir { durable, pending, .. } = self.dir(id);
        pending.drain(..).for_each(|op| apply_dir(durable, &op.change));
    }

    /// Marks what step `step` wrote to a file as durable although earlier writes are not.
    pub(crate) fn force(&mut self, id: Id, step: u64) {
        let file = self.file(id);
        file.pending.iter_mut().filter(|op| op.step == step).for_each(|op| op.forced = true);
        // What stands in front of everything that is not durable need not wait for it.
        while file.pending.first().is_some_and(|op| op.forced) {
            let op = file.pending.remove(0);
            apply_file(&mut file.durable, &op.change);
        }
    }

    /// Files and directories that the running system, the disk, or a pending operation names.
    pub(crate) fn reachable(&self) -> BTreeSet<Id> {
        let mut found = BTreeSet::from([ROOT]);
        let mut todo = vec![ROOT];
        while let Some(id) = todo.pop() {
            let Some(dir) = self.dirs.get(&id) else { continue };
            let pending = dir.pending.iter().filter_map(|op| match &op.change {
                DirChange::Link { node, .. } | DirChange::Rename { node, .. } => Some(*node),
                DirChange::Unlink { .. } => None,
            });
            for node in dir.durable.values().chain(dir.cached.values()).copied().chain(pending) {
                let (Node::File(id) | Node::Dir(id)) = node;
                if found.insert(id) {
                    todo.push(id);
                }
            }
        }
        found
    }

    /// A path for every file and directory that has, had, or may have a name; what the running
    /// system sees comes first.
    pub(crate) fn paths(&self) -> BTreeMap<Id, String> {
        let mut found = BTreeMap::from([(ROOT, String::new())]);
        let mut todo = vec![ROOT];
        while let Some(dir) = todo.pop() {
            let Some(dir_names) = self.dirs.get(&dir) else { continue };
            let pending = dir_names.pending.iter().filter_map(|op| match &op.change {
                DirChange::Link { name, node } => Some((name, node)),
                DirChange::Rename { to, node, .. } => Some((to, node)),
                DirChange::Unlink { .. } => None,
            });
            for (name, node) in dir_names.cached.iter().chain(pending).chain(&dir_names.durable) {
                let (Node::File(id) | Node::Dir(id)) = node;
                let parent = &found[&dir];
                let path =
                    if parent.is_empty() { name.clone() } else { format!("{parent}/{name}") };
                if let Entry::Vacant(slot) = found.entry(*id) {
                    slot.insert(path);
                    if matches!(node, Node::Dir(_)) {
                        todo.push(*id);
                    }
                }
            }
        }
        found
    }

    /// Every file that the running system sees, by path.
    pub(crate) fn visible_files(&self) -> Vec<(String, Id)> {
        let mut found = Vec::new();
        let mut todo = vec![(String::new(), ROOT)];
        while let Some((path, id)) = todo.pop() {
            for (name, node) in &self.dirs[&id].cached {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                match node {
                    Node::File(id) => found.push((path, *id)),
                    Node::Dir(id) => todo.push((path, *id)),
                }
            }
        }
        found.sort();
        found
    }

    /// The same for two trees in which the running system sees the same names and bytes.
    /// Files named `LOCK` are left out: what is in them is information that may be stale.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = foldhash::quality::FixedState::default().build_hasher();
        let mut todo = vec![ROOT];
        while let Some(id) = todo.pop() {
            // Which names are together, and in which order directories come, says whose they are.
            self.dirs[&id].cached.len().hash(&mut hasher);
            for (name, node) in &self.dirs[&id].cached {
                name.hash(&mut hasher);
                matches!(node, Node::Dir(_)).hash(&mut hasher);
                match node {
                    Node::File(_) if name == "LOCK" => {}
                    Node::File(id) => self.files[id].cached.hash(&mut hasher),
                    Node::Dir(id) => todo.push(*id),
                }
            }
        }
        hasher.finish()
    }

    /// Bytes of every file that has a name.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.visible_files().iter().map(|(_, id)| self.files[id].cached.len()).sum()
    }
}
