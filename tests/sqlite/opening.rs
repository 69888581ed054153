//! Which files open, which are refused, and what a refusal leaves.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use http::StatusCode;
use rusqlite::{Connection, config::DbConfig};
use tower_accepted::store::sqlite::{SqliteError, SqliteStore};

use crate::{
    site::{
        Home, end, files_below, hanging, keyed, large, layered, options, quick, registry, until,
        wait_for_end, work,
    },
    support::{Counter, get, post, request, send},
};

/// Returns the content of all files. It leaves out the index of the log and an empty log, which
/// SQLite needs to read the data.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let files = files_below(directory).into_iter();
    let files = files.map(|path| {
        let content = path.is_file().then(|| fs::read(&path).unwrap());
        (path, content)
    });
    let is_data = |(path, content): &(PathBuf, Option<Vec<u8>>)| {
        let is_empty = content.as_ref().is_some_and(Vec::is_empty);
        let name = path.to_string_lossy();
        !(name.ends_with("-shm") || is_empty && name.ends_with("-wal"))
    };
    files.filter(is_data).collect()
}

/// Tries to open a file, checks that not a byte has changed, and returns the error.
async fn refuse(home: &Home) -> SqliteError {
    let before = contents(home.directory());
    let error = home.refused().await;
    let text = error.to_string();
    assert!(text.contains(&*home.path().to_string_lossy()), "{text}");
    let after = contents(home.directory());
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>(),
        "{text}"
    );
    assert!(before == after, "a file has changed: {text}");
    error
}

/// Opens a database as another application, whose log stays when it is closed.
fn other_application(home: &Home) -> Connection {
    let connection = Connection::open(home.path()).unwrap();
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .unwrap();
    connection
        .pragma_update(None, "journal_mode", "wal")
        .unwrap();
    connection
}

/// Creates a file of jobs, and closes it.
async fn file_of_jobs() -> Home {
    let home = Home::new(options());
    let site = home.serve(quick()).await;
    let accepted = send(&site, large("/it")).await;
    wait_for_end(&site, accepted.location()).await;
    drop(site);
    home.closed().await;
    home
}

#[tokio::test]
async fn text_is_refused() {
    let home = Home::new(options());
    for text in ["t", &"This is no database. ".repeat(1000)] {
        fs::write(home.path(), text).unwrap();
        let error = refuse(&home).await;
        assert!(
            matches!(&error, SqliteError::Foreign(path) if *path == home.path()),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn database_of_another_application_is_refused() {
    for statements in [
        "CREATE TABLE job (id TEXT)",
        "PRAGMA application_id = 252006673; PRAGMA user_version = 1",
        "PRAGMA application_id = 252006673; CREATE TABLE job (id TEXT)",
    ] {
        let home = Home::new(options());
        let connection = Connection::open(home.path()).unwrap();
        connection.execute_batch(statements).unwrap();
        drop(connection);
        let error = refuse(&home).await;
        assert!(matches!(error, SqliteError::Foreign(_)), "{error:?}");
    }
}

#[tokio::test]
async fn log_of_another_application_is_left_as_it_is() {
    for (in_file, in_log) in [
        ("CREATE TABLE one (id TEXT)", "CREATE TABLE two (id TEXT)"),
        ("", "CREATE TABLE two (id TEXT)"),
        ("", "PRAGMA application_id = 252006673"),
    ] {
        let home = Home::new(options());
        let connection = other_application(&home);
        connection.execute_batch(in_file).unwrap();
        connection
            .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
            .unwrap();
        connection.execute_batch(in_log).unwrap();
        drop(connection);
        assert!(fs::metadata(home.log()).unwrap().len() > 0);
        let error = refuse(&home).await;
        assert!(matches!(error, SqliteError::Foreign(_)), "{error:?}");
    }
}

#[tokio::test]
async fn damaged_file_is_refused() {
    let home = file_of_jobs().await;
    let file = fs::File::options().write(true).open(home.path()).unwrap();
    // Behind the header of the first page, which is intact.
    file.write_all_at(&[0xa5; 3000], 100).unwrap();
    let error = refuse(&home).await;
    assert!(
        matches!(&error, SqliteError::Damaged { path, .. } if *path == home.path()),
        "{error:?}"
    );
    // The header too.
    file.write_all_at(&[0xa5; 100], 0).unwrap();
    let error = refuse(&home).await;
    assert!(matches!(error, SqliteError::Foreign(_)), "{error:?}");
}

#[tokio::test]
async fn file_of_a_newer_version_is_refused() {
    for is_in_log in [false, true] {
        let home = file_of_jobs().await;
        let connection = home.sql();
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, is_in_log)
            .unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        assert_eq!(home.log().exists(), is_in_log);
        let error = refuse(&home).await;
        assert!(
            matches!(
                error,
                SqliteError::NewerSchema {
                    found: 99,
                    supported: 2,
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn path_that_cannot_be_a_file_is_named() {
    let home = Home::new(options());
    let file = home.directory().join("file");
    fs::write(&file, "").unwrap();
    let missing = home.directory().join("missing");
    for (path, named) in [
        (missing.join("jobs.db"), missing),
        (file.join("jobs.db"), file.join("jobs.db")),
        (home.directory().to_owned(), home.directory().to_owned()),
    ] {
        let error = SqliteStore::open(&path, options()).await.unwrap_err();
        assert!(
            matches!(&error, SqliteError::Io { path, .. } if *path == named),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn read_only_directory_is_named() {
    let home = Home::new(options());
    let locked = fs::Permissions::from_mode(0o500);
    fs::set_permissions(home.directory(), locked).unwrap();
    if fs::write(home.directory().join("probe"), "").is_ok() {
        eprintln!("skipped: this user can write to any directory");
        return;
    }
    let error = refuse(&home).await;
    assert!(matches!(error, SqliteError::Io { .. }), "{error:?}");
}

#[tokio::test]
async fn empty_file_is_taken() {
    let home = Home::new(options());
    fs::write(home.path(), "").unwrap();
    let site = home.serve(quick()).await;
    let accepted = send(&site, post("/it")).await;
    assert_eq!(end(&site, accepted.location()).await, "succeeded");
}

#[tokio::test]
async fn only_the_user_can_read_the_files() {
    // The umask is process-wide. No other test here checks modes.
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    let home = Home::new(options());
    let site = home.serve(hanging(&Counter::default())).await;
    send(&site, large("/it")).await;
    let copy = home.directory().join("copy.db");
    home.store().await.backup_to(&copy).await.unwrap();
    let mut files = 0;
    for path in files_below(home.directory()) {
        let metadata = fs::metadata(&path).unwrap();
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        let mode = metadata.permissions().mode() & 0o777;
        assert_eq!(mode, expected, "{} {mode:o}", path.display());
        files += usize::from(metadata.is_file());
    }
    // The file, log, index and turn; two locks and a body; the copy and its body.
    assert_eq!(files, 9);
    rustix::process::umask(umask);
}

#[tokio::test]
async fn observer_creates_nothing() {
    let home = Home::new(options().observer());
    let error = refuse(&home).await;
    assert!(matches!(error, SqliteError::Io { .. }), "{error:?}");
}

#[tokio::test]
async fn observer_takes_nothing_over() {
    let home = Home::new(options());
    let site = home.serve(hanging(&Counter::default())).await;
    let accepted = send(&site, request("PUT", "/it")).await;
    let mut home = home.crash();
    let held = "SELECT count(*) FROM job WHERE process IS NOT NULL";
    home.options = options().observer();
    let observer = home.jobs().await;
    let (seen, id) = (layered(&observer, quick()), accepted.id());
    let found = send(&seen, get(accepted.location())).await;
    assert_eq!(found.status, StatusCode::OK);
    assert_eq!(home.number(held), 1);
    home.options = options();
    // It sees what others do.
    let worker = home.work(quick()).await;
    assert_eq!(end(&seen, accepted.location()).await, "succeeded");
    worker.abort();
    assert!(observer.cancel(id).await.unwrap().is_some());
}

#[tokio::test]
async fn path_may_have_any_characters() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    for name in [
        OsStr::new("a ?mode=ro#b%20c%.db"),
        OsStr::new("file:jobs.db?immutable=1"),
        OsStr::new("täglich.db"),
        OsStr::from_bytes(b"latin\xe9.db"),
    ] {
        let home = Home::new(options());
        let directory = home.directory().join(name);
        fs::create_dir(&directory).unwrap();
        let path = directory.join(name);
        let open = async || SqliteStore::open(&path, options()).await.unwrap();
        let jobs = registry(tower_accepted::Jobs::builder(), open().await);
        let site = layered(&jobs, quick());
        let accepted = send(&site, large("/it")).await;
        assert_eq!(end(&site, accepted.location()).await, "succeeded");
        // The second one recognizes the file.
        let other = open().await;
        let copy = home.directory().join(name).join("copy \u{e9}?#.db");
        other.backup_to(&copy).await.unwrap();
        let copied = SqliteStore::open(&copy, options()).await.unwrap();
        let copied = registry(tower_accepted::Jobs::builder(), copied);
        assert!(copied.get(accepted.id()).await.unwrap().is_some());
        let names = fs::read_dir(&directory).unwrap().count();
        // Each file has a log, an index, a turn and bodies.
        assert_eq!(names, 10, "{:?}", files_below(&directory));
        assert_eq!(fs::read_dir(home.directory()).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn second_path_to_the_file_is_the_same_file() {
    let home = Home::new(options());
    let calls = Counter::default();
    let site = home.serve(hanging(&calls)).await;
    send(&site, request("PUT", "/it")).await;
    until(async || calls.count() == 1).await;
    let elsewhere = Home::new(options());
    symlink(home.path(), elsewhere.path()).unwrap();
    let linked = elsewhere.jobs().await;
    let worker = work(&linked, hanging(&calls));
    send(&layered(&linked, hanging(&calls)), keyed("one")).await;
    until(async || calls.count() == 2).await;
    // Neither process considers the other one dead.
    let processes = "SELECT count(DISTINCT process) FROM job WHERE finished_at IS NULL";
    assert_eq!(home.number(processes), 2);
    assert_eq!(home.number("SELECT max(attempts) FROM job"), 1);
    assert_eq!(fs::read_dir(elsewhere.directory()).unwrap().count(), 1);
    worker.abort();
}

/// An open that finds the directory of a process that is just opening too must leave it.
#[tokio::test]
async fn processes_can_open_at_the_same_time() {
    for _ in 0..6 {
        let home = Home::new(options());
        let opening = (0..12).map(|_| home.store());
        let stores = futures_util::future::join_all(opening).await;
        let locks = files_below(&home.bodies()).into_iter();
        assert_eq!(locks.filter(|path| path.ends_with("lock")).count(), 12);
        assert_eq!(home.number("SELECT count(*) FROM process"), 12);
        drop(stores);
    }
}

#[tokio::test]
async fn closed_store_leaves_no_directory() {
    let home = Home::new(options());
    let site = home.serve(hanging(&Counter::default())).await;
    send(&site, large("/it")).await;
    let other = home.store().await;
    assert_eq!(fs::read_dir(home.bodies()).unwrap().count(), 2);
    drop(other);
    until(async || fs::read_dir(home.bodies()).unwrap().count() == 1).await;
}
