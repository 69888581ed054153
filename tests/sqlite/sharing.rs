//! Two stores on one file, which are two processes to it.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{join, task::JoinSet};
use tower_accepted::{
    Jobs,
    store::sqlite::{SqliteOptions, SqliteStore},
};

use crate::{
    site::{
        Home, counting, end, hanging, keyed, layered, options, owned, quick, registry, until,
        waiting,
    },
    support::{Counter, get, post, request, send, with},
};

#[tokio::test]
async fn wait_ends_with_the_job_of_the_other_process() {
    let home = Home::new(options());
    let (calls, go) = (Counter::default(), Arc::default());
    let one = home.serve(waiting(&calls, &go, "done")).await;
    let other = home.serve(quick()).await;
    let location = send(&one, post("/it")).await.location().to_owned();
    let waiting = with(get(&location), &[("prefer", "wait=30")]);
    let (answer, ()) = join!(send(&other, waiting), async {
        until(async || calls.count() == 1).await;
        go.notify_one();
    });
    assert_eq!(answer.json()["status"], "succeeded");
}

#[tokio::test]
async fn cancel_of_the_other_process_stops_the_call() {
    let home = Home::new(options());
    let calls = Counter::default();
    let jobs = home.jobs().await;
    let one = layered(&jobs, hanging(&calls));
    let other = home.serve(quick()).await;
    let location = send(&one, request("PUT", "/it"))
        .await
        .location()
        .to_owned();
    until(async || calls.count() == 1).await;
    send(&other, request("POST", &format!("{location}/cancel"))).await;
    assert_eq!(end(&one, &location).await, "canceled");
    until(async || jobs.unfinished() == 0).await;
}

#[tokio::test]
async fn job_that_an_observer_cancels_has_its_retention() {
    let home = Home::new(options().retain(Duration::from_secs(7)));
    let site = home.serve(hanging(&Counter::default())).await;
    let id = send(&site, request("PUT", "/it")).await.id();
    let observer = SqliteStore::open(home.path(), SqliteOptions::new().observer()).await;
    let observer = registry(Jobs::builder(), observer.expect("the file opens"));
    observer.cancel(id).await.expect("no error").expect("a job");
    let kept = "SELECT expires_at - finished_at FROM job";
    assert_eq!(home.number(kept), 7_000);
}

#[tokio::test]
async fn key_is_one_job_in_two_processes() {
    let home = Home::new(options());
    let calls = Counter::default();
    let one = home.serve(counting(&calls, "done")).await;
    let other = home.serve(counting(&calls, "done")).await;
    for round in 0..50 {
        let key = format!("key-{round}");
        let (first, second) = join!(send(&one, keyed(&key)), send(&other, keyed(&key)));
        assert_eq!(first.json()["id"], second.json()["id"]);
        end(&one, first.location()).await;
        assert_eq!(calls.count(), round + 1);
    }
}

#[tokio::test]
async fn owner_sees_its_jobs_of_both_processes() {
    let home = Home::new(options());
    let one = registry(owned(), home.store().await);
    let other = registry(owned(), home.store().await);
    let sites = [&one, &other].map(|jobs| layered(jobs, quick()));
    for site in &sites {
        send(site, with(post("/it"), &[("x-user", "me")])).await;
        send(site, with(post("/it"), &[("x-user", "you")])).await;
    }
    for site in &sites {
        let list = send(site, with(get("/jobs"), &[("x-user", "me")])).await;
        assert_eq!(list.json()["jobs"].as_array().map(Vec::len), Some(2));
    }
}

#[tokio::test]
async fn closed_store_hands_its_work_over() {
    let home = Home::new(options());
    let calls = Counter::default();
    let jobs = home.jobs().await;
    let location = {
        let site = layered(&jobs, hanging(&calls));
        send(&site, request("PUT", "/it"))
            .await
            .location()
            .to_owned()
    };
    until(async || calls.count() == 1).await;
    let other = home.serve(quick()).await;
    let _worker = home.work(quick()).await;
    jobs.drain(Duration::ZERO).await;
    drop(jobs);
    assert_eq!(end(&other, &location).await, "succeeded");
}

#[tokio::test]
async fn no_commit_is_lost_while_files_open_and_close() {
    let home = Home::new(options());
    let site = home.serve(quick()).await;
    let mut disturbing = JoinSet::new();
    for round in 0..20 {
        let (path, copy) = (
            home.path(),
            home.directory().join(format!("copy-{round}.db")),
        );
        disturbing.spawn(async move {
            let options = match round % 2 {
                0 => SqliteOptions::new(),
                _ => SqliteOptions::new().observer(),
            };
            let store = SqliteStore::open(path, options)
                .await
                .expect("the file opens");
            store.backup_to(copy).await.expect("a copy");
            Jobs::builder().store(store).build()
        });
    }
    let mut locations = Vec::new();
    while let Some(opened) = disturbing.join_next().await {
        for _ in 0..5 {
            locations.push(send(&site, post("/it")).await.location().to_owned());
        }
        drop(opened.expect("no panic"));
    }
    let other = home.serve(quick()).await;
    for location in &locations {
        assert_eq!(end(&other, location).await, "succeeded");
    }
    let check: String = home
        .sql()
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("a result");
    assert_eq!(check, "ok");
}

/// Collects what all tests of this program log as a warning.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<u8>>>);

impl Write for Warnings {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn missing_worker_is_logged() {
    let warnings = Warnings::default();
    let writer = warnings.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let home = Home::new(options());
    let jobs = home.jobs().await;
    let calls = Counter::default();
    let site = layered(&jobs, hanging(&calls));
    send(&site, request("PUT", "/it")).await;
    until(async || calls.count() == 1).await;
    let _other = home.store().await;
    jobs.drain(Duration::ZERO).await;
    let expected = "requests wait for a worker, and this process has none";
    until(async || {
        let text = warnings.0.lock().unwrap().clone();
        String::from_utf8_lossy(&text).contains(expected)
    })
    .await;
}
