//! Large bodies: files beside the database, in a directory for each process.
//!
//! A file is written and synced before the transaction that names it. Bytes that a row counts never
//! change: a response that is still produced only appends. A file is removed once no row names it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::{disk::beside, error::SqliteError};

/// The largest body that is kept in a row, in bytes. Larger ones are files.
pub(super) const MAX_ROW_BYTES: usize = 256 * 1024;

/// The name of the file whose lock shows that a process is alive.
const LOCK_NAME: &str = "lock";

/// The bytes that are copied at a time if a file has to be written anew.
const COPY_BYTES: usize = 64 * 1024;

/// The directories of large bodies.
#[derive(Debug, Clone)]
pub(super) struct BodyRoot {
    path: PathBuf,
}

/// The directory of this process. While its lock is held, this process is alive.
#[derive(Debug)]
pub(super) struct OwnBodies {
    pub(super) root: BodyRoot,
    pub(super) process: String,
    path: PathBuf,
    /// The kernel releases its lock when the process ends, however it does.
    _lock: File,
    /// Only makes names unique, so `Relaxed` is enough.
    next: AtomicU64,
    /// Set while the directory has names that are not synced. The writer's thread swaps it after
    /// the files were created and before it syncs the directory: `AcqRel` orders these.
    is_unsynced: AtomicBool,
    /// Files of transactions whose commit failed with an unknown outcome. Held for a push or a
    /// swap.
    doubtful: Mutex<Vec<Arc<BodyFile>>>,
}

/// A file with a body, which is removed when this is dropped, unless a transaction has named it.
#[derive(Debug)]
pub(super) struct BodyFile {
    /// The path within the root.
    pub(super) name: String,
    path: PathBuf,
    /// Set by the writer's thread before other threads see the outcome through a channel, so
    /// `Relaxed` is enough.
    is_kept: AtomicBool,
}

/// Writes a body to a file, synced part by part.
#[derive(Debug)]
pub(super) struct BodyWriter {
    bodies: Weak<OwnBodies>,
    file: File,
    pub(super) body: Arc<BodyFile>,
    /// The number of bytes that are on the disk for certain.
    synced: u64,
    /// Set once a sync has failed. The content beyond `synced` is unknown then, even if a later
    /// sync succeeds.
    is_broken: bool,
}

impl BodyRoot {
    /// Creates the directory that belongs to a database.
    pub(super) fn create(database: &Path) -> Result<Self, SqliteError> {
        let root = Self::of(database);
        create_directory(&root.path)?;
        Ok(root)
    }

    /// Returns the directory that belongs to a database.
    pub(super) fn of(database: &Path) -> Self {
        Self {
            path: beside(database, "-bodies"),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a file from its name in a row.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Removes a file that no row names any more.
    pub(super) fn remove(&self, name: &str) {
        let path = self.file(name);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "failed to remove a body");
        }
    }

    /// Returns the names of all processes that have a directory.
    pub(super) fn processes(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.path)?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.collect())
    }

    /// Opens the lock file of a process. Returns `None` if it has none, as after a restore.
    pub(super) fn open_lock(&self, process: &str) -> io::Result<Option<File>> {
        match File::open(self.path.join(process).join(LOCK_NAME)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the files of a dead process that no row names, and its directory once it is empty.
    pub(super) fn sweep(&self, process: &str, connection: &Connection) -> Result<(), SqliteError> {
        let path = self.path.join(process);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(SqliteError::io(&path)(error)),
        };
        let mut is_empty = true;
        for entry in entries {
            let entry = entry.map_err(SqliteError::io(&path))?;
            let Ok(file) = entry.file_name().into_string() else {
                continue;
            };
            if file == LOCK_NAME {
                continue;
            }
            let name = format!("{process}/{file}");
            if is_named(connection, &name)? {
                is_empty = false;
            } else {
                self.remove(&name);
            }
        }
        if is_empty {
            self.remove(&format!("{process}/{LOCK_NAME}"));
            // Fails if another process has swept it first.
            let _ = fs::remove_dir(&path);
        }
        Ok(())
    }
}

/// Returns `true` if a row names the file.
fn is_named(connection: &Connection, name: &str) -> Result<bool, SqliteError> {
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM request WHERE file = ?1) \
         OR EXISTS (SELECT 1 FROM response WHERE file = ?1)",
    )?;
    Ok(statement.query_row([name], |row| row.get(0))?)
}

impl OwnBodies {
    /// Creates the directory of this process, and takes its lock.
    pub(super) fn create(root: BodyRoot) -> Result<Self, SqliteError> {
        let process = format!("{:016x}", rand::random::<u64>());
        let path = root.path.join(&process);
        create_directory(&path)?;
        let lock_path = path.join(LOCK_NAME);
        let lock = create_file(&lock_path).map_err(SqliteError::io(&lock_path))?;
        lock.lock().map_err(SqliteError::io(&lock_path))?;
        Ok(Self {
            root,
            process,
            path,
            _lock: lock,
            next: AtomicU64::new(1),
            is_unsynced: AtomicBool::new(false),
            doubtful: Mutex::default(),
        })
    }

    /// Syncs the names of new files.
    pub(super) fn sync(&self) -> Result<(), SqliteError> {
        if self.is_unsynced.swap(false, Ordering::AcqRel)
            && let Err(error) = sync_directory(&self.path)
        {
            self.is_unsynced.store(true, Ordering::Release);
            return Err(error);
        }
        Ok(())
    }

    /// Keeps a file although it is unknown whether a row names it.
    pub(super) fn doubt(&self, file: Arc<BodyFile>) {
        file.keep();
        self.doubtful.lock().push(file);
    }

    /// Looks for the rows of doubtful files, right after a commit that has written something.
    ///
    /// A crash may bring back the frames that a failed commit has left in the log, until another
    /// commit overwrites them.
    pub(super) fn settle_doubts(&self, connection: &Connection) -> Result<(), SqliteError> {
        let doubtful = std::mem::take(&mut *self.doubtful.lock());
        for file in doubtful {
            // Its transaction may be tried again.
            if Arc::strong_count(&file) > 1 {
                self.doubtful.lock().push(file);
            } else if !is_named(connection, &file.name)? {
                file.is_kept.store(false, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn create_body(&self) -> io::Result<(File, Arc<BodyFile>)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(number.to_string());
        let file = create_file(&path)?;
        self.is_unsynced.store(true, Ordering::Release);
        let body = BodyFile {
            name: format!("{}/{number}", self.process),
            path,
            is_kept: AtomicBool::new(false),
        };
        Ok((file, Arc::new(body)))
    }
}

impl BodyFile {
    /// Keeps the file: a committed row names it.
    pub(super) fn keep(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        if !self.is_kept.load(Ordering::Relaxed) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl BodyWriter {
    pub(super) fn create(bodies: &Arc<OwnBodies>) -> io::Result<Self> {
        let (file, body) = bodies.create_body()?;
        Ok(Self {
            bodies: Arc::downgrade(bodies),
            file,
            body,
            synced: 0,
            is_broken: false,
        })
    }

    /// Returns the number of bytes that are on the disk for certain.
    pub(super) fn synced(&self) -> u64 {
        self.synced
    }

    /// Writes a part, given in slices, and syncs it. After an error, the same part can be written
    /// again.
    pub(super) fn append(&mut self, part: &[impl AsRef<[u8]>]) -> io::Result<()> {
        if self.is_broken {
            self.write_anew()?;
        }
        self.file.seek(SeekFrom::Start(self.synced))?;
        let mut written = 0;
        for slice in part {
            self.file.write_all(slice.as_ref())?;
            written += slice.as_ref().len() as u64;
        }
        if let Err(error) = self.file.sync_data() {
            self.is_broken = true;
            return Err(error);
        }
        self.synced += written;
        Ok(())
    }

    /// Copies what was synced to a new file, which can be synced.
    fn write_anew(&mut self) -> io::Result<()> {
        let bodies = self.bodies.upgrade().ok_or(io::ErrorKind::NotFound)?;
        let (mut file, body) = bodies.create_body()?;
        let mut left = self.synced;
        let mut buffer = vec![0; COPY_BYTES];
        let mut old = File::open(&self.body.path)?;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(COPY_BYTES);
            old.read_exact(&mut buffer[..length])?;
            file.write_all(&buffer[..length])?;
            left -= length as u64;
        }
        file.sync_data()?;
        self.file = file;
        self.body = body;
        self.is_broken = false;
        Ok(())
    }
}

/// Writes a whole body to a new file, and syncs it.
pub(super) fn write_body(bodies: &Arc<OwnBodies>, body: &[u8]) -> io::Result<Arc<BodyFile>> {
    let mut writer = BodyWriter::create(bodies)?;
    writer.append(&[body])?;
    Ok(writer.body)
}

/// Creates a directory that only this user can enter, and makes its name durable.
pub(super) fn create_directory(path: &Path) -> Result<(), SqliteError> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(SqliteError::io(path)(error)),
    }
}

/// Creates a file that only this user can read.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes the name of a file or directory durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), SqliteError> {
    sync_directory(path.parent().unwrap_or(Path::new("")))
}

/// Makes the names in a directory durable.
fn sync_directory(path: &Path) -> Result<(), SqliteError> {
    // An empty path is the current directory.
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    if cfg!(unix) {
        let synced = File::open(path).and_then(|directory| directory.sync_all());
        return synced.map_err(SqliteError::io(path));
    }
    Ok(())
}
