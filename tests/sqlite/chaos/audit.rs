//! Checks the file after a run: its counts, its keys, and the files of large bodies.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use tower_accepted::store::sqlite::SqliteStore;

use super::{options, report::Report};

/// Opens the file, which settles what dead processes left, and checks it. Returns a summary.
pub(super) async fn check(database: &Path, report: &Report) -> String {
    let store = SqliteStore::open(database, options()).await;
    let store = store.expect("the file opens");
    let file = Connection::open(database).expect("the file opens");
    let number = |query: &str| -> usize {
        let number = file.query_row(query, [], |row| row.get(0));
        number.expect("a number")
    };
    let integrity = file.query_row("PRAGMA integrity_check", [], |row| row.get(0));
    let integrity: String = integrity.expect("a check");
    assert_eq!(integrity, "ok");
    // Jobs count here whose client never got a 202.
    let unfinished = number("SELECT count(*) FROM job WHERE finished_at IS NULL");
    assert_eq!(unfinished, 0, "jobs have not ended");
    assert_eq!(number("SELECT count(*) FROM request"), 0);
    let jobs = number("SELECT count(*) FROM job");
    assert!(jobs >= report.known(), "only {jobs} jobs are in the file");
    let keyed = number("SELECT count(*) FROM job WHERE key IS NOT NULL");
    let keys = number("SELECT count(*) FROM idempotency_key");
    assert_eq!((keyed, keys), (report.keys(), report.keys()));
    assert_eq!(number("SELECT unfinished FROM totals"), 0);
    assert_eq!(number("SELECT keys FROM totals"), keys);
    let named_bytes =
        "SELECT coalesce(sum(length - file_start), 0) FROM response WHERE file IS NOT NULL";
    assert_eq!(number("SELECT file_bytes FROM totals"), number(named_bytes));
    let mut statement = file
        .prepare("SELECT file FROM response WHERE file IS NOT NULL")
        .expect("a query");
    let named = statement.query_map([], |row| row.get(0)).expect("rows");
    let named: HashSet<String> = named.collect::<Result<_, _>>().expect("names");
    let found = body_files(database);
    assert_eq!(
        found, named,
        "files of bodies without a row, or rows without a file"
    );
    drop(store);
    format!(
        "the file has {jobs} jobs, {keys} keys and {} files of bodies",
        found.len()
    )
}

/// Returns the names of all files of bodies, as rows have them.
fn body_files(database: &Path) -> HashSet<String> {
    let mut root = database.as_os_str().to_owned();
    root.push("-bodies");
    let root = PathBuf::from(root);
    let mut names = HashSet::new();
    for process in list(&root) {
        for file in list(&root.join(&process)) {
            if file != "lock" {
                names.insert(format!("{process}/{file}"));
            }
        }
    }
    names
}

fn list(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string());
    names.map(|name| name.expect("UTF-8")).collect()
}
