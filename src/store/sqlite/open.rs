//! Opens the file: recognizes it, creates or upgrades it, and joins its processes.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, config::DbConfig};

use super::{
    bodies::{BodyRoot, OwnBodies, create_file, sync_parent},
    clock::unix_now,
    disk::{beside, log_limit},
    error::SqliteError,
    options::SqliteOptions,
    schema::{self, APPLICATION_ID, VERSION, pragma},
};

/// The oldest SQLite that never corrupts a write-ahead log that it resets: 3.51.3.
const OLDEST_SQLITE: i32 = 3_051_003;

/// The time that a transaction waits for a lock of another program.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The size of a page: SQLite's default.
const PAGE_BYTES: u64 = 4096;

/// The pages in the log after which a commit moves them into the database. More pages mean fewer
/// pauses, which are longer, and a larger log.
const CHECKPOINT_PAGES: i64 = 2_000;

/// The size of the smallest database: one page of the smallest size.
const MIN_DATABASE_BYTES: u64 = 512;

/// The size of the page cache in KiB, as a negative number.
const CACHE_KIB: i64 = -16 * 1024;

/// Held while this process opens a file. The file is created by another descriptor than SQLite's,
/// and closing that one while SQLite has the file open would release SQLite's locks.
static OPENING: Mutex<()> = Mutex::new(());

/// A file that this process has joined.
pub(super) struct OpenedFile {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    /// Its lock makes processes take turns.
    pub(super) turn: File,
    pub(super) bodies: Arc<OwnBodies>,
    /// The number of this process.
    pub(super) number: i64,
}

/// Opens the file. Creates it if it does not exist, except for an observer.
pub(super) fn open(path: &Path, options: &SqliteOptions) -> Result<OpenedFile, SqliteError> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(SqliteError::OldSqlite(rusqlite::version()));
    }
    let path = resolve(path)?;
    if options.is_observer {
        fs::metadata(&path).map_err(SqliteError::io(&path))?;
    }
    let _opening = OPENING.lock();
    let turn = open_files(&path)?;
    let connection = connect(&path).and_then(|connection| {
        check(&path, &connection)?;
        Ok(connection)
    });
    let connection = connection.map_err(|error| error.at(&path))?;
    let root = BodyRoot::create(&path)?;
    // A process that sweeps during its turn must not take a directory without a lock for one of a
    // dead process.
    turn.lock().map_err(SqliteError::io(&path))?;
    let joined = OwnBodies::create(root).and_then(|bodies| {
        let (connection, number) = join(&path, connection, &bodies, options)?;
        Ok((connection, number, Arc::new(bodies)))
    });
    turn.unlock().map_err(SqliteError::io(&path))?;
    let (connection, number, bodies) = joined.map_err(|error| error.at(&path))?;
    Ok(OpenedFile {
        path,
        connection,
        turn,
        bodies,
        number,
    })
}

/// Returns the path without links, so that it survives a change of the working directory.
///
/// The turn and the bodies are beside the file itself. Processes that use the file by different
/// links would otherwise take each other for dead.
fn resolve(path: &Path) -> Result<PathBuf, SqliteError> {
    if path.is_symlink() {
        let file = fs::canonicalize(path).map_err(SqliteError::io(path))?;
        refuse_network(&file)?;
        return Ok(file);
    }
    let Some(name) = path.file_name() else {
        let error = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(SqliteError::io(path)(error));
    };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = fs::canonicalize(parent).map_err(SqliteError::io(parent))?;
    refuse_network(&directory)?;
    Ok(directory.join(name))
}

#[cfg(target_os = "linux")]
fn refuse_network(directory: &Path) -> Result<(), SqliteError> {
    let found = rustix::fs::statfs(directory);
    let found = found.map_err(|error| SqliteError::io(directory)(error.into()))?;
    // The numbers of statfs(2).
    let kind = match found.f_type as u32 {
        0x6969 => "nfs",
        0x517B => "smb",
        0xFE53_4D42 => "smb2",
        0xFF53_4D42 => "cifs",
        0x0102_1997 => "9p",
        0x5346_414F => "afs",
        0x7375_7245 => "coda",
        0x0BD0_0BD0 => "lustre",
        0x4750_4653 => "gpfs",
        0x0116_1970 => "gfs2",
        0x7461_636F => "ocfs2",
        0x00C3_6400 => "ceph",
        _ => return Ok(()),
    };
    Err(SqliteError::NetworkFileSystem {
        path: directory.into(),
        kind,
    })
}

#[cfg(not(target_os = "linux"))]
fn refuse_network(_: &Path) -> Result<(), SqliteError> {
    Ok(())
}

/// Recognizes the file, or creates it empty. Returns the file of turns.
fn open_files(path: &Path) -> Result<File, SqliteError> {
    match create_file(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let version = recognize(path).map_err(|error| error.at(path))?;
            refuse_newer(path, version)?;
        }
        Err(error) => return Err(SqliteError::io(path)(error)),
    }
    let turn_path = beside(path, "-turn");
    let turn = match create_file(&turn_path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            File::options().read(true).write(true).open(&turn_path)
        }
        created => created,
    };
    let turn = turn.map_err(SqliteError::io(turn_path))?;
    sync_parent(path)?;
    Ok(turn)
}

/// Refuses a file of a newer version.
fn refuse_newer(path: &Path, found: i64) -> Result<(), SqliteError> {
    if found > VERSION {
        return Err(SqliteError::NewerSchema {
            path: path.into(),
            found,
            supported: VERSION,
        });
    }
    Ok(())
}

fn count_tables(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
}

/// Returns the schema version of a file: 0 if it is empty. Changes nothing in the file.
///
/// # Errors
///
/// Fails if the file is not one of this crate.
fn recognize(path: &Path) -> Result<i64, SqliteError> {
    // As SQLite takes it, the path of a URI: without locks, log or shared memory.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let uri = format!("file:{}?immutable=1", escape(path));
    let connection = Connection::open_with_flags(uri, flags)?;
    // A power cut during a checkpoint may leave a file that is shorter than its header says, and a
    // log with the rest. With this setting, SQLite reads such a header.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, true)?;
    let application = match pragma(&connection, "application_id") {
        Err(error) if is_torn_creation(path, &error) => {
            drop(connection);
            return recognize_log(path);
        }
        read => read?,
    };
    match fs::metadata(path).map_err(SqliteError::io(path))?.len() {
        0 => return Ok(0),
        // SQLite takes the shortest texts for empty databases.
        1..MIN_DATABASE_BYTES => return Err(SqliteError::Foreign(path.into())),
        _ => {}
    }
    if application != APPLICATION_ID {
        // A crash may have left a file without tables, or whose tables are in its log.
        if application != 0 || count_tables(&connection)? > 0 {
            return Err(SqliteError::Foreign(path.into()));
        }
        drop(connection);
        return recognize_log(path);
    }
    pragma(&connection, "user_version").map_err(SqliteError::from)
}

/// Returns `true` if a power cut may have torn the only page of a new file. SQLite's journal then
/// empties the file again.
fn is_torn_creation(path: &Path, error: &rusqlite::Error) -> bool {
    let journal = beside(path, "-journal");
    error.sqlite_error_code() == Some(ErrorCode::NotADatabase)
        && fs::metadata(path).is_ok_and(|file| file.len() <= PAGE_BYTES)
        && fs::metadata(journal).is_ok_and(|journal| journal.len() > 0)
}

/// Returns the schema version of a file whose tables may be in its log or its journal.
fn recognize_log(path: &Path) -> Result<i64, SqliteError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // A log that is not ours must not move into the file.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let tables = count_tables(&connection)?;
    match pragma(&connection, "application_id")? {
        APPLICATION_ID => Ok(pragma(&connection, "user_version")?),
        0 if tables == 0 => Ok(0),
        _ => Err(SqliteError::Foreign(path.into())),
    }
}

/// Escapes the bytes of a path that mean something in a URI, or that are no ASCII.
fn escape(path: &Path) -> String {
    let mut escaped = String::new();
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii() && !matches!(byte, b'%' | b'?' | b'#') {
            escaped.push(byte.into());
        } else {
            escaped.push_str(&format!("%{byte:02x}"));
        }
    }
    escaped
}

fn connect(path: &Path) -> Result<Connection, SqliteError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // No checkpoint on close until `join` has checked the version: a newer file must stay as it is.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// Refuses a damaged file, and one whose log is from a newer version, before anything is written.
fn check(path: &Path, connection: &Connection) -> Result<(), SqliteError> {
    refuse_newer(path, pragma(connection, "user_version")?)?;
    count_tables(connection)?;
    Ok(())
}

/// Creates or upgrades the tables, and adds this process. Returns its number.
fn join(
    path: &Path,
    mut connection: Connection,
    bodies: &OwnBodies,
    options: &SqliteOptions,
) -> Result<(Connection, i64), SqliteError> {
    // Has an effect on an empty file only.
    connection.pragma_update(None, "auto_vacuum", "incremental")?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    let log_limit = log_limit(options.max_disk_bytes);
    connection.pragma_update(None, "journal_size_limit", log_limit as i64)?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.set_prepared_statement_cache_capacity(64);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Read again: another process may have upgraded the file meanwhile.
    let version = pragma(&transaction, "user_version")?;
    refuse_newer(path, version)?;
    if version < VERSION {
        if version > 0 && has_processes(&transaction, bodies)? {
            return Err(SqliteError::InUse(path.into()));
        }
        schema::migrate(&transaction, version)?;
    }
    transaction.execute(
        "INSERT INTO process (name, opened_at) VALUES (?1, ?2)",
        (&bodies.process, unix_now()),
    )?;
    let number = transaction.last_insert_rowid();
    transaction.commit()?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok((connection, number))
}

/// Returns `true` if a process of the file is alive.
fn has_processes(connection: &Connection, bodies: &OwnBodies) -> Result<bool, SqliteError> {
    let mut statement = connection.prepare("SELECT name FROM process")?;
    let names = statement.query_map([], |row| row.get(0))?;
    for name in names {
        let name: String = name?;
        let path = bodies.root.file(&name);
        let lock = bodies
            .root
            .open_lock(&name)
            .map_err(SqliteError::io(path))?;
        if lock.is_some_and(|lock| lock.try_lock().is_err()) {
            return Ok(true);
        }
    }
    Ok(false)
}
