//! Expires and evicts ended jobs.

use std::time::Duration;

use http::{Response, StatusCode};
use tokio::time::sleep;
use tower::Layer;
use tower_accepted::Jobs;

use crate::support::*;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn retention_starts_at_the_end_of_the_job() {
    let jobs = Jobs::builder().job_timeout(None).retain(HOUR).build();
    let service = jobs.layer().layer(inner(async |_| {
        sleep(3 * HOUR).await;
        ok("")
    }));
    let accepted = send(&service, post("/")).await;
    sleep(3 * HOUR + HOUR - Duration::from_secs(1)).await;
    assert_eq!(result(&service, &accepted).await.status, StatusCode::OK);
    sleep(Duration::from_secs(2)).await;
    for request in [
        get(accepted.location()),
        get(&format!("{}/result", accepted.location())),
        post(&format!("{}/cancel", accepted.location())),
        request("DELETE", accepted.location()),
    ] {
        let gone = send(&service, request).await;
        assert_eq!(gone.status, StatusCode::GONE);
        assert_eq!(gone.json()["type"], "urn:problem-type:tower-accepted:gone");
    }
    assert!(jobs.get(accepted.id()).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn expired_jobs_leave_memory_without_a_request() {
    let jobs = Jobs::builder().retain(HOUR).build();
    let service = jobs.layer().layer(inner(async |_| ok("a result")));
    for _ in 0..500 {
        send(&service, post("/")).await;
    }
    sleep(HOUR / 2).await;
    let later = send(&service, post("/")).await;
    assert!(format!("{jobs:?}").contains("jobs: 501"), "{jobs:?}");
    sleep(HOUR / 2 + Duration::from_secs(10)).await;
    assert!(format!("{jobs:?}").contains("jobs: 1,"), "{jobs:?}");
    assert_eq!(result(&service, &later).await.status, StatusCode::OK);
    sleep(HOUR).await;
    assert!(format!("{jobs:?}").contains("jobs: 0"), "{jobs:?}");
    assert!(
        format!("{jobs:?}").contains("used: 0"),
        "bytes are still in use: {jobs:?}"
    );
    // The reaper has stopped, and starts again.
    send(&service, post("/")).await;
    sleep(2 * HOUR).await;
    assert!(format!("{jobs:?}").contains("used: 0"), "{jobs:?}");
}

#[tokio::test(start_paused = true)]
async fn eviction_starts_with_the_job_that_ended_first() {
    let jobs = Jobs::builder().max_bytes(40_000).build();
    let service = jobs.layer().layer(inner(async |request| {
        if request.uri().path() == "/slow" {
            sleep(HOUR / 2).await;
        }
        Ok(Response::new(Body::from(vec![0; 1_000])))
    }));
    let unfinished = send(&service, post("/slow")).await;
    let mut accepted = Vec::new();
    for _ in 0..40 {
        accepted.push(send(&service, post("/")).await);
        sleep(Duration::from_secs(1)).await;
    }
    let (old, new) = accepted.split_at(27);
    for accepted in old {
        assert_eq!(
            send(&service, get(accepted.location())).await.status,
            StatusCode::GONE
        );
    }
    for accepted in new {
        assert_eq!(result(&service, accepted).await.status, StatusCode::OK);
    }
    assert_eq!(ended(&service, &unfinished).await["status"], "succeeded");
}

#[tokio::test(start_paused = true)]
async fn deleted_job_releases_its_bytes() {
    let jobs = Jobs::builder().retain(HOUR).build();
    let service = jobs.layer().layer(inner(async |request| {
        if request.uri().path() == "/slow" {
            sleep(HOUR / 4).await;
        }
        Ok(Response::new(Body::from(vec![0; 1_000])))
    }));
    for path in ["/", "/slow"] {
        let accepted = send(&service, post(path)).await;
        sleep(Duration::from_secs(1)).await;
        send(&service, request("DELETE", accepted.location())).await;
    }
    sleep(2 * HOUR).await;
    assert!(format!("{jobs:?}").contains("used: 0"), "{jobs:?}");
}

#[tokio::test(start_paused = true)]
async fn unlimited_retention_keeps_a_job() {
    let jobs = Jobs::builder().retain(Duration::MAX).build();
    let service = jobs.layer().layer(inner(async |_| ok("kept")));
    let accepted = send(&service, post("/")).await;
    sleep(1_000 * HOUR).await;
    let document = ended(&service, &accepted).await;
    assert!(document["expiresAt"].as_str().unwrap().starts_with("9999-"));
    assert_eq!(result(&service, &accepted).await.text(), "kept");
}
