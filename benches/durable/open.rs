//! A file with a million ended jobs: how long it takes to open, and how much memory.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tower_accepted::{Filter, Jobs};

use crate::load::{Scratch, store};

const JOBS: u32 = 1_000_000;

/// Fills a file with ended jobs.
pub(crate) fn fill(path: &Path, jobs: u32, expires_in: Duration) {
    let file = Connection::open(path).expect("the file");
    let ids = format!(
        "WITH RECURSIVE ids(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM ids WHERE n < {jobs})"
    );
    let now = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";
    let id = "substr(lower(hex(randomblob(11))), 1, 21) || 'A'";
    file.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         {ids} INSERT INTO job (id, rank, created_at, kind, key_kept_for, key_keeps, may_rerun,
             status, revision, attempts, deaths, has_begun, not_before, started_at, finished_at,
             expires_at, response_status, content_length)
         SELECT {id}, randomblob(16), {now} - n, 'POST /reports', 0, 'all', 0, 'succeeded', 3, 1,
             0, 1, 0, {now} - n, {now} - n, {now} + {}, 200, 1024 FROM ids;
         INSERT INTO response (job, run, is_complete, head, length, file_start, body)
         SELECT seq, 1, 1, CAST('{{\"status\":200,\"headers\":[]}}' AS BLOB), 1024,
             0, randomblob(1024) FROM job
         WHERE true;
         COMMIT;",
        expires_in.as_millis()
    ))
    .expect("room");
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1_024.0
}

pub(crate) async fn print(scratch: &Scratch) {
    let path = scratch.file();
    drop(store(path.clone()).await);
    fill(&path, JOBS, Duration::from_secs(3600));
    let before = resident_mib();
    let begun = Instant::now();
    let store = store(path).await;
    let opened = begun.elapsed();
    let jobs = Jobs::builder().store(store).build();
    let begun = Instant::now();
    let page = jobs.list(&Filter::new()).await.expect("a page");
    let listed = begun.elapsed();
    assert_eq!(page.jobs.len(), 100);
    println!("\n| a million ended jobs | |");
    println!("|---|---|");
    println!("| open | {:.0} ms |", opened.as_secs_f64() * 1e3);
    println!(
        "| first page of the list | {:.1} ms |",
        listed.as_secs_f64() * 1e3
    );
    println!(
        "| memory that this adds | {:.1} MiB |",
        resident_mib() - before
    );
}
