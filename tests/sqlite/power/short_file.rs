//! A power cut during a checkpoint that leaves the first page, which a simulated cut has found.

use std::{fs, path::Path};

use http::Method;
use tower_accepted::{
    JobId,
    store::{Acceptance, Lookup, NewJob, Store, sqlite::SqliteStore},
};

use super::workload::{request_head, wait_for_close};
use crate::site::{Home, options};

const PAGE_BYTES: usize = 4096;

/// A body of many pages, which are in the log only.
const BODY_BYTES: usize = 100 * 1024;

/// The first page says how many pages the file has. The others may be in the log only.
#[tokio::test]
async fn file_shorter_than_its_header_says_opens() {
    let before = Home::new(options());
    let store = before.store().await;
    let job = NewJob::new(JobId::random());
    let id = job.id;
    let body = vec![7; BODY_BYTES].into();
    let record = store.record(&request_head(0, Method::PUT), &body, None);
    let accepted = store.accept(&job, record).await;
    let Ok(Acceptance::RunHere(claim)) = accepted else {
        panic!("the job is not accepted");
    };

    let after = Home::new(options());
    for suffix in ["", "-wal"] {
        copy(&before.path(), &after.path(), suffix);
    }
    drop((claim, store));
    wait_for_close(&before.path()).await;
    // The checkpoint of the close has written the whole file. The cut leaves its first page.
    let whole = fs::read(before.path()).unwrap();
    let mut short = fs::read(after.path()).unwrap();
    assert!(short.len() < whole.len());
    short.resize(short.len().max(PAGE_BYTES), 0);
    short[..PAGE_BYTES].copy_from_slice(&whole[..PAGE_BYTES]);
    fs::write(after.path(), short).unwrap();

    let store = SqliteStore::open(after.path(), options()).await.unwrap();
    assert!(matches!(store.get(id).await, Ok(Lookup::Found(_))));
}

fn copy(from: &Path, to: &Path, suffix: &str) {
    let name = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        name
    };
    fs::copy(name(from), name(to)).unwrap();
}
