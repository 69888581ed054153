//! The log of the interposed library: what a process did to the files below one directory.

use std::{fmt, path::Path};

/// The bytes of a record before its paths and its data.
const HEADER_BYTES: usize = 32;

/// A call that succeeded. Paths are relative to the recorded directory, whose own path is empty.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Call<'a> {
    Write {
        path: &'a str,
        inode: u64,
        offset: u64,
        data: &'a [u8],
    },
    Resize {
        path: &'a str,
        inode: u64,
        length: u64,
    },
    SyncFile {
        path: &'a str,
        inode: u64,
    },
    SyncDirectory {
        path: &'a str,
    },
    /// An open that would have created the file.
    OpenExisting {
        path: &'a str,
    },
    Create {
        path: &'a str,
        inode: u64,
    },
    MakeDirectory {
        path: &'a str,
    },
    Remove {
        path: &'a str,
    },
    RemoveDirectory {
        path: &'a str,
    },
    Rename {
        from: &'a str,
        to: &'a str,
    },
    /// A line of the workload.
    Mark(&'a str),
}

/// One line, without the data.
impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write {
                path, offset, data, ..
            } => write!(f, "write {path} {offset} {}", data.len()),
            Self::Resize { path, length, .. } => write!(f, "resize {path} {length}"),
            Self::SyncFile { path, .. } | Self::SyncDirectory { path } => write!(f, "sync {path}"),
            Self::OpenExisting { path } => write!(f, "open {path}"),
            Self::Create { path, .. } => write!(f, "create {path}"),
            Self::MakeDirectory { path } => write!(f, "make {path}"),
            Self::Remove { path } => write!(f, "remove {path}"),
            Self::RemoveDirectory { path } => write!(f, "remove directory {path}"),
            Self::Rename { from, to } => write!(f, "rename {from} {to}"),
            Self::Mark(line) => write!(f, "mark {line}"),
        }
    }
}

/// Reads the records of a log.
pub(super) fn parse<'a>(mut log: &'a [u8], root: &Path) -> Vec<Call<'a>> {
    let root = root.to_str().expect("a path in UTF-8");
    let mut calls = Vec::new();
    while !log.is_empty() {
        calls.push(take_call(&mut log, root));
    }
    calls
}

fn take_call<'a>(log: &mut &'a [u8], root: &str) -> Call<'a> {
    let mut header = take(log, HEADER_BYTES);
    let [kind, path_bytes, target_bytes, data_bytes] =
        [(); 4].map(|()| u32::from_ne_bytes(take(&mut header, 4).try_into().unwrap()));
    let [inode, offset] =
        [(); 2].map(|()| u64::from_ne_bytes(take(&mut header, 8).try_into().unwrap()));
    let path = relative(take(log, path_bytes as usize), root);
    let target = take(log, target_bytes as usize);
    let data = take(log, data_bytes as usize);
    // The numbers of the library's `enum kind`.
    match kind {
        1 => Call::Write {
            path,
            inode,
            offset,
            data,
        },
        2 => Call::Resize {
            path,
            inode,
            length: offset,
        },
        3 => Call::SyncFile { path, inode },
        4 => Call::SyncDirectory { path },
        5 => Call::OpenExisting { path },
        6 => Call::Create { path, inode },
        7 => Call::MakeDirectory { path },
        8 => Call::Remove { path },
        9 => Call::RemoveDirectory { path },
        10 => Call::Rename {
            from: path,
            to: relative(target, root),
        },
        11 => Call::Mark(str::from_utf8(data).unwrap().trim_end()),
        _ => panic!("no model of this call on {path}: {}", target.escape_ascii()),
    }
}

fn take<'a>(log: &mut &'a [u8], bytes: usize) -> &'a [u8] {
    log.split_off(..bytes).expect("a whole record")
}

fn relative<'a>(path: &'a [u8], root: &str) -> &'a str {
    let path = str::from_utf8(path).expect("a path in UTF-8");
    match path.strip_prefix(root) {
        Some(path) => path.strip_prefix('/').unwrap_or(path),
        // The file of marks is elsewhere.
        None => path,
    }
}
