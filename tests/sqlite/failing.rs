//! Full disks, locks of other programs, and clocks that jump.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use http::{Method, Request, StatusCode};
use tokio::time::{sleep, timeout};
use tower_accepted::store::{Queue, sqlite::SqliteStore};

use crate::{
    site::{
        Home, accept, end, hanging, large, layered, options, quick, registry, until, wait_for_end,
        waiting,
    },
    streaming::output::{open, pattern, produced},
    support::{Body, Counter, get, post, request, send},
};

#[tokio::test]
async fn file_at_its_limit_accepts_again_after_expiry() {
    let options = options()
        .retain(Duration::from_secs(1))
        .max_disk_bytes(1 << 20);
    let home = Home::new(options);
    let (calls, go) = (Counter::default(), Arc::default());
    let site = home.serve(waiting(&calls, &go, "done")).await;
    let mut accepted = Vec::new();
    let refused = loop {
        let answer = send(&site, large("/it")).await;
        if answer.status != StatusCode::ACCEPTED {
            break answer;
        }
        accepted.push(answer.location().to_owned());
    };
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let kind = "urn:problem-type:tower-accepted:store-unavailable";
    assert_eq!(refused.json()["type"], kind);
    assert!(refused.header("retry-after").is_some());
    // The running jobs still end, which removes their requests.
    for location in &accepted {
        go.notify_one();
        until(async || {
            let document = send(&site, get(location)).await;
            go.notify_one();
            !matches!(
                document.json()["status"].as_str(),
                Some("queued" | "running")
            )
        })
        .await;
    }
    until(async || send(&site, post("/it")).await.status == StatusCode::ACCEPTED).await;
}

/// A disk of a few megabytes.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts a disk in a directory. Returns `None` if that is not allowed.
    fn mount(directory: &Path, size: &str) -> Option<Self> {
        let disk = directory.join("disk");
        std::fs::create_dir(&disk).expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&disk)
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            println!("SKIPPED: no small disk can be mounted");
            return None;
        }
        Some(Self(disk))
    }

    /// Writes a file until the disk is full. Returns its path.
    fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        let filled = std::fs::write(&filler, vec![0; 32 << 20]);
        assert!(filled.is_err());
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn full_disk_needs_no_restart() {
    let home = Home::new(options());
    let Some(disk) = SmallDisk::mount(home.directory(), "4m") else {
        return;
    };
    let store = SqliteStore::open(disk.0.join("jobs.db"), options()).await;
    let jobs = registry(Default::default(), store.expect("the file opens"));
    let (calls, go) = (Counter::default(), Arc::default());
    let site = layered(&jobs, waiting(&calls, &go, "done"));
    let location = send(&site, request("PUT", "/it"))
        .await
        .location()
        .to_owned();
    until(async || calls.count() == 1).await;
    let filler = disk.fill();
    // Requests with a body need room that is not there.
    let mut refused = send(&site, large("/it")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    until(async || {
        refused = send(&site, post("/it")).await;
        refused.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    go.notify_one();
    std::fs::remove_file(&filler).expect("the filler exists");
    assert_eq!(end(&site, &location).await, "succeeded");
    assert_eq!(send(&site, large("/it")).await.status, StatusCode::ACCEPTED);
    drop((site, jobs));
}

#[tokio::test]
async fn full_disk_delays_an_output() {
    const CHUNK_BYTES: usize = 1_500_000;
    let home = Home::new(options());
    let Some(disk) = SmallDisk::mount(home.directory(), "16m") else {
        return;
    };
    let store = SqliteStore::open(disk.0.join("jobs.db"), options()).await;
    let jobs = registry(Default::default(), store.expect("the file opens"));
    let (producer, service) = produced();
    let site = layered(&jobs, service);
    let location = send(&site, post("/it")).await.location().to_owned();
    let mut reader = open(&site, &location, "").await;
    producer.send(pattern(0, CHUNK_BYTES));
    assert_eq!(reader.next(CHUNK_BYTES).await, pattern(0, CHUNK_BYTES));
    let filler = disk.fill();
    producer.send(pattern(CHUNK_BYTES as u64, CHUNK_BYTES));
    assert!(reader.is_silent().await);
    std::fs::remove_file(&filler).expect("the filler exists");
    drop(producer);
    let rest = reader.rest().await;
    assert_eq!(rest, (pattern(CHUNK_BYTES as u64, CHUNK_BYTES), false));
    assert_eq!(end(&site, &location).await, "succeeded");
    drop((site, jobs));
}

#[tokio::test]
async fn lock_of_another_program_passes() {
    let home = Home::new(options());
    let store = home.store().await;
    let site = layered(&registry(Default::default(), store.clone()), quick());
    let claim = accept(&store, "PUT").await;
    let stranger = home.sql();
    stranger.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    drop(claim);
    let sending = tokio::spawn({
        let site = site.clone();
        async move { send(&site, post("/it")).await }
    });
    let answer = timeout(Duration::from_secs(30), sending).await;
    let answer = answer.expect("an answer").expect("no panic");
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    stranger.execute_batch("ROLLBACK").expect("no lock");
    until(async || send(&site, post("/it")).await.status == StatusCode::ACCEPTED).await;
    // The job of the dropped claim waits for a worker.
    until(async || !store.next(1).await.expect("tickets").is_empty()).await;
}

/// Returns a request that may run again, and whose body has a file of its own.
fn large_put() -> Request<Body> {
    let mut put = large("/it");
    *put.method_mut() = Method::PUT;
    put
}

#[tokio::test]
async fn request_that_cannot_be_read_now_waits() {
    let home = Home::new(options());
    let site = home.serve(hanging(&Counter::default())).await;
    let location = send(&site, large_put()).await.location().to_owned();
    let crashed = home.crash();
    let body = crashed.texts("SELECT file FROM request").remove(0);
    let body = crashed.bodies().join(body);
    let aside = crashed.directory().join("aside");
    std::fs::rename(&body, &aside).expect("a body");
    // Reading it fails, and it is not missing.
    std::fs::create_dir(&body).expect("a directory");
    let _worker = crashed.work(quick()).await;
    let site = crashed.serve(quick()).await;
    let waiting = "SELECT count(*) FROM job WHERE process IS NULL AND not_before > 0";
    until(async || crashed.number(waiting) == 1).await;
    std::fs::remove_dir(&body).expect("a directory");
    std::fs::rename(&aside, &body).expect("a body");
    assert_eq!(end(&site, &location).await, "succeeded");
}

#[tokio::test]
async fn request_without_its_body_is_lost() {
    let home = Home::new(options());
    let site = home.serve(hanging(&Counter::default())).await;
    let location = send(&site, large_put()).await.location().to_owned();
    let crashed = home.crash();
    let body = crashed.texts("SELECT file FROM request").remove(0);
    std::fs::remove_file(crashed.bodies().join(body)).expect("a body");
    let _worker = crashed.work(quick()).await;
    let site = crashed.serve(quick()).await;
    assert_eq!(end(&site, &location).await, "lost");
}

#[tokio::test]
async fn clock_may_jump() {
    const HOUR: i64 = 3_600_000;
    let home = Home::new(options());
    let (ended, waits) = {
        let site = home.serve(quick()).await;
        let ended = send(&site, post("/ended")).await.location().to_owned();
        wait_for_end(&site, &ended).await;
        let hanging = home.serve(hanging(&Counter::default())).await;
        let waits = send(&hanging, request("PUT", "/waits")).await;
        (ended, waits.location().to_owned())
    };
    for jump in [HOUR, -2 * HOUR, HOUR] {
        // Jobs of a clock that was an hour ahead, and of one that was behind.
        let crashed = home.crash();
        crashed
            .sql()
            .execute_batch(&format!(
                "UPDATE job SET created_at = created_at + {jump}, not_before = not_before + {jump},
                 started_at = started_at + {jump}, finished_at = finished_at + {jump},
                 expires_at = expires_at + {jump}"
            ))
            .expect("the rows");
        let _worker = crashed.work(quick()).await;
        let site = crashed.serve(quick()).await;
        assert_eq!(end(&site, &waits).await, "succeeded");
        let status = send(&site, get(&ended)).await.status;
        let is_expired = jump < 0;
        assert_eq!(status == StatusCode::GONE, is_expired, "{jump}: {status}");
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn garbage_in_an_open_file_is_no_202() {
    let home = Home::new(options());
    let site = home.serve(quick()).await;
    let location = send(&site, post("/it")).await.location().to_owned();
    end(&site, &location).await;
    // A program of its own: a descriptor that is closed here would release SQLite's locks.
    for file in [home.path(), home.log()] {
        let shredded = Command::new("dd")
            .args(["if=/dev/urandom", "bs=64k", "count=4", "conv=notrunc"])
            .arg(format!("of={}", file.display()))
            .output();
        assert!(shredded.expect("dd runs").status.success());
    }
    // Another file in its place, which is no database.
    let replacement = home.directory().join("garbage");
    std::fs::write(&replacement, [0x5a; 65_536]).expect("room");
    let refused = SqliteStore::open(&replacement, options()).await;
    assert!(refused.is_err());
    // The process answers, whatever it can still read.
    let known = send(&site, get(&location)).await.status;
    assert!(known == StatusCode::OK || known == StatusCode::SERVICE_UNAVAILABLE);
    let unknown = send(&site, get("/jobs/AAAAAAAAAAAAAAAAAAAAAA"))
        .await
        .status;
    assert_ne!(unknown, StatusCode::OK);
}

#[tokio::test]
async fn space_is_given_back() {
    let home = Home::new(options().retain(Duration::from_millis(300)));
    let site = home
        .serve(crate::site::boxed(|_| async {
            Ok(http::Response::new(Body::from(vec![1; 200_000])))
        }))
        .await;
    let mut locations = Vec::new();
    for _ in 0..60 {
        locations.push(send(&site, post("/it")).await.location().to_owned());
    }
    // Each transaction gives back a few pages, once the results have expired.
    until(async || {
        send(&site, post("/it")).await;
        home.number("PRAGMA page_count") < 2_500
    })
    .await;
    assert_eq!(home.number("PRAGMA auto_vacuum"), 2);
}
