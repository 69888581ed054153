//! Jobs that the application reads and deletes itself, without HTTP.

use std::time::Duration;

use futures_util::StreamExt;
use http::{Response, StatusCode};
use serde_json::Value;
use tokio::time::sleep;
use tower::Layer;
use tower_accepted::{JobHandle, JobId, Jobs, Links, Status};

use crate::support::*;

fn worker() -> impl Inner {
    inner(async |request| {
        let job = JobHandle::current();
        for step in 1..=3 {
            sleep(Duration::from_secs(1)).await;
            job.progress(f64::from(step) / 4.0);
            job.message("it has \"quotes\"");
        }
        sleep(Duration::from_secs(1)).await;
        if request.uri().path() == "/fails" {
            return Err(Failed);
        }
        let created = Response::builder().status(StatusCode::CREATED);
        let created = created
            .header("location", "items/7")
            .header("retry-after", "9");
        Ok(created.body(Body::from("made")).unwrap())
    })
}

#[tokio::test(start_paused = true)]
async fn result_is_what_the_service_answered() {
    let jobs = Jobs::new();
    let service = jobs.layer().layer(worker());
    let accepted = send(&service, post("/shop/items")).await;
    let id = accepted.id();
    assert!(jobs.result(id).await.unwrap().is_none(), "unfinished");
    ended(&service, &accepted).await;
    let result = jobs.result(id).await.unwrap().expect("a response");
    let result = Answer::read(result).await;
    assert_eq!(
        (result.status, result.text()),
        (StatusCode::CREATED, "made")
    );
    assert_eq!(result.header("location"), Some("items/7"));
    assert_eq!(result.header("retry-after"), Some("9"));
    assert_eq!(result.headers.len(), 2, "{:?}", result.headers);

    let failed = send(&service, post("/fails")).await;
    ended(&service, &failed).await;
    for id in [failed.id(), JobId::random()] {
        assert!(jobs.result(id).await.unwrap().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn changes_lead_to_the_end() {
    let jobs = Jobs::new();
    let service = jobs.layer().layer(worker());
    let id = send(&service, post("/")).await.id();
    let changes: Vec<_> = jobs.changes(id).collect().await;
    let progress = changes.iter().filter_map(|job| job.progress.fraction);
    assert_eq!(progress.collect::<Vec<_>>()[..3], [0.25, 0.5, 0.75]);
    assert_eq!(changes.last().unwrap().status, Status::Succeeded);
    assert_eq!(jobs.changes(JobId::random()).count().await, 0);
}

#[tokio::test(start_paused = true)]
async fn forgotten_job_is_unknown() {
    let jobs = Jobs::new();
    let service = jobs.layer().layer(worker());
    let accepted = send(&service, post("/")).await;
    let forgotten = jobs.forget(accepted.id()).await.unwrap().unwrap();
    assert_eq!(forgotten.id, accepted.id());
    assert!(jobs.get(accepted.id()).await.unwrap().is_none());
    assert!(jobs.forget(accepted.id()).await.unwrap().is_none());
    let monitor = send(&service, get(accepted.location())).await;
    assert_eq!(monitor.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn document_equals_that_of_the_monitor() {
    let base = Links::Base("https://example.com/v1".to_owned());
    for links in [Links::Path, base, Links::Relative] {
        let jobs = Jobs::builder().links(links).build();
        let service = jobs.layer().layer(worker());
        for path in ["/", "/fails"] {
            let id = send(&service, post(path)).await.headers["location"].clone();
            let id: JobId = id
                .to_str()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            for _ in 0..3 {
                let job = jobs.get(id).await.unwrap().expect("a job");
                let served = send(&service, get(&format!("/jobs/{id}"))).await;
                assert_eq!(jobs.document(&job), served.text());

                let mut without_links = served.json();
                let members = without_links.as_object_mut().unwrap();
                for link in ["self", "resourceLocation"] {
                    members.remove(link);
                }
                let serialized: Value = serde_json::to_value(&job).unwrap();
                assert_eq!(serialized, without_links);
                sleep(Duration::from_millis(2_500)).await;
            }
        }
    }
}
