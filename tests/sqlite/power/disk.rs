//! A model of a disk: what is on it for certain after some calls, and what may be on it.
//!
//! - A sync of a file makes its earlier writes and its size durable. Of later ones, any subset may
//!   be on the disk, split at sectors.
//! - A sync of a directory makes its names durable. A name that has changed since may be in any of
//!   the states that it went through.
//! - A file or a directory is lost if the name of any of its parents is lost.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use rand::{RngExt, rngs::StdRng};

use super::log::Call;

/// The bytes that a disk writes completely or not at all.
const SECTOR_BYTES: u64 = 512;

/// A fault of the store: a sync that it leaves out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mutant {
    /// Large bodies are not synced.
    UnsyncedBodies,
    /// The directory of a process, which has its large bodies, is not synced.
    UnsyncedBodyNames,
    /// Neither are the directories of processes, nor the one that has them.
    UnsyncedParents,
    /// `PRAGMA synchronous=NORMAL`: the log is synced before a checkpoint and after its header was
    /// written, but not after a commit.
    NormalSynchronous,
}

/// What is, and what may be, on a disk.
#[derive(Debug, Default)]
pub(super) struct Disk<'a> {
    mutant: Option<Mutant>,
    files: Vec<ModelFile<'a>>,
    /// The file that has an inode now: the number may be used again after a removal.
    inodes: HashMap<u64, usize>,
    /// By path, so that a directory comes before what it has.
    names: BTreeMap<&'a str, Name>,
}

#[derive(Debug, Default)]
struct ModelFile<'a> {
    synced: Vec<u8>,
    unsynced: Vec<Change<'a>>,
    /// Set if something beyond the header was written since the last sync, left out or not.
    has_frames: bool,
}

#[derive(Debug, Clone, Copy)]
enum Change<'a> {
    Write(u64, &'a [u8]),
    Resize(u64),
}

#[derive(Debug, Default)]
struct Name {
    synced: Option<Node>,
    unsynced: Vec<Option<Node>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Node {
    Directory,
    File(usize),
}

/// Which of the unsynced changes of a file survive a cut.
#[derive(Debug, Clone, Copy)]
enum Survival {
    None,
    All,
    /// Those of the first calls.
    Prefix(usize),
    /// Any calls.
    Calls,
    /// Any sectors.
    Sectors,
}

impl<'a> Disk<'a> {
    pub(super) fn new(mutant: Option<Mutant>) -> Self {
        Self {
            mutant,
            ..Self::default()
        }
    }

    pub(super) fn apply(&mut self, call: &Call<'a>) {
        match *call {
            Call::Write {
                inode,
                offset,
                data,
                ..
            } => {
                let file = self.file(inode);
                file.unsynced.push(Change::Write(offset, data));
                file.has_frames |= offset > 0;
            }
            Call::Resize { inode, length, .. } => {
                self.file(inode).unsynced.push(Change::Resize(length));
            }
            Call::SyncFile { path, inode } => {
                let mutant = self.mutant;
                let file = self.file(inode);
                let is_left_out = match mutant {
                    Some(Mutant::UnsyncedBodies) => path.contains("-bodies/"),
                    Some(Mutant::NormalSynchronous) => path.ends_with("-wal") && file.has_frames,
                    _ => false,
                };
                file.has_frames = false;
                if !is_left_out {
                    file.sync();
                }
            }
            Call::SyncDirectory { path } => self.sync_directory(path),
            Call::Create { path, inode } => {
                let file = self.files.len();
                self.files.push(ModelFile::default());
                self.inodes.insert(inode, file);
                self.change_name(path, Some(Node::File(file)));
            }
            Call::MakeDirectory { path } => self.change_name(path, Some(Node::Directory)),
            Call::Remove { path } | Call::RemoveDirectory { path } => self.change_name(path, None),
            Call::Rename { from, to } => {
                let name = self.names.get(from).expect("the name exists");
                let node = name.unsynced.last().copied().unwrap_or(name.synced);
                // A disk never loses both names. So the old one stays until a sync, in this model.
                self.change_name(to, node);
                self.change_name(from, node);
                self.change_name(from, None);
            }
            Call::OpenExisting { .. } | Call::Mark(_) => {}
        }
    }

    fn file(&mut self, inode: u64) -> &mut ModelFile<'a> {
        &mut self.files[self.inodes[&inode]]
    }

    fn change_name(&mut self, path: &'a str, node: Option<Node>) {
        self.names.entry(path).or_default().unsynced.push(node);
    }

    fn sync_directory(&mut self, path: &str) {
        let is_left_out = match self.mutant {
            Some(Mutant::UnsyncedBodyNames) => path.contains("-bodies/"),
            Some(Mutant::UnsyncedParents) => path.ends_with("-bodies"),
            _ => false,
        };
        if is_left_out {
            return;
        }
        for (name, state) in &mut self.names {
            if parent(name) == path
                && let Some(node) = state.unsynced.pop()
            {
                state.synced = node;
                state.unsynced.clear();
            }
        }
    }

    /// Cuts the power: writes what the disk has to a directory.
    pub(super) fn cut(&self, directory: &Path, random: &mut StdRng) {
        let mut directories = vec![""];
        for (path, name) in &self.names {
            if path.ends_with("-shm") || !directories.contains(&parent(path)) {
                continue;
            }
            let full_path = directory.join(path);
            match name.after_cut(random) {
                None => {}
                Some(Node::Directory) => {
                    fs::create_dir(full_path).expect("a directory");
                    directories.push(path);
                }
                Some(Node::File(file)) => {
                    let written = match &self.files[file] {
                        file if file.unsynced.is_empty() => fs::write(full_path, &file.synced),
                        file => fs::write(full_path, file.after_cut(random)),
                    };
                    written.expect("a file");
                }
            }
        }
    }
}

/// Returns the directory of a path; that of a name without one is the recorded directory.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Name {
    fn after_cut(&self, random: &mut StdRng) -> Option<Node> {
        let state = random.random_range(0..=self.unsynced.len());
        match state.checked_sub(1) {
            Some(change) => self.unsynced[change],
            None => self.synced,
        }
    }
}

impl ModelFile<'_> {
    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.synced);
        }
    }

    fn after_cut(&self, random: &mut StdRng) -> Vec<u8> {
        let survival = match random.random_range(0..5) {
            0 => Survival::None,
            1 => Survival::All,
            2 => Survival::Prefix(random.random_range(0..=self.unsynced.len())),
            3 => Survival::Calls,
            _ => Survival::Sectors,
        };
        let mut content = self.synced.clone();
        for (index, change) in self.unsynced.iter().enumerate() {
            let survives = match survival {
                Survival::None => false,
                Survival::All => true,
                Survival::Prefix(calls) => index < calls,
                Survival::Calls => random.random(),
                Survival::Sectors => match *change {
                    Change::Write(offset, data) => {
                        write_torn(&mut content, offset, data, random);
                        false
                    }
                    Change::Resize(_) => random.random(),
                },
            };
            if survives {
                change.apply(&mut content);
            }
        }
        content
    }
}

impl Change<'_> {
    fn apply(self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => write_at(content, offset, data),
            Self::Resize(length) => content.resize(length as usize, 0),
        }
    }
}

fn write_at(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + data.len());
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(data);
}

/// Writes some sectors. The size may grow for others, which then are zero.
fn write_torn(content: &mut Vec<u8>, offset: u64, data: &[u8], random: &mut StdRng) {
    let mut at = offset;
    let mut left = data;
    while !left.is_empty() {
        let room = SECTOR_BYTES - at % SECTOR_BYTES;
        let (sector, rest) = left.split_at(left.len().min(room as usize));
        match random.random_range(0..5) {
            0 | 1 => write_at(content, at, sector),
            2 => {
                let end = at as usize + sector.len();
                content.resize(content.len().max(end), 0);
            }
            _ => {}
        }
        at += sector.len() as u64;
        left = rest;
    }
}
