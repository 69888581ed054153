//! What two power cuts leave, which simulated cuts have found.

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

/// The file is one page of zeros, and a journal says that it was empty.
#[tokio::test]
async fn file_torn_during_its_creation_opens() {
    let home = Home::new(options());
    fs::write(home.path(), [0; PAGE_BYTES]).unwrap();
    let mut journal = vec![0xD9, 0xD5, 0x05, 0xF9, 0x20, 0xA1, 0x63, 0xD7];
    // Records, nonce, pages before, bytes of a sector and of a page.
    for number in [0_u32, 1, 0, 512, PAGE_BYTES as u32] {
        journal.extend(number.to_be_bytes());
    }
    journal.resize(512, 0);
    fs::write(home.path().with_file_name("jobs.db-journal"), journal).unwrap();
    let opened = SqliteStore::open(home.path(), options()).await;
    assert!(opened.is_ok(), "{opened:?}");
}

fn copy(from: &Path, to: &Path, suffix: &str) {
    let name = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        name
    };
    fs::copy(name(from), name(to)).unwrap();
}
