//! Lists jobs, for the application and for their owners.

use std::{collections::HashSet, time::Duration};

use http::StatusCode;
use tokio::time::sleep;
use tower::Layer;
use tower_accepted::{Filter, Jobs, Owner, Status};

use crate::support::*;

fn as_user(user: &str, request: http::Request<Body>) -> http::Request<Body> {
    with(request, &[("user", user)])
}

fn owned() -> Jobs {
    Jobs::builder()
        .owner(|head| head.headers.get("user").map(Owner::new))
        .build()
}

#[tokio::test(start_paused = true)]
async fn application_lists_all_jobs_in_pages() {
    let jobs = owned();
    let service = jobs.layer().layer(inner(async |request| {
        if request.uri().path() == "/slow" {
            sleep(Duration::from_secs(3600)).await;
        }
        ok("ten bytes.")
    }));
    let mut ids = HashSet::new();
    for number in 0..25 {
        let path = if number % 5 == 0 { "/slow" } else { "/" };
        ids.insert(send(&service, post(path)).await.id());
    }
    sleep(Duration::from_secs(1)).await;
    for filter in [
        Filter::new(),
        Filter::new().limit(7),
        Filter::new().limit(25),
    ] {
        let mut seen = Vec::new();
        let mut next = None;
        loop {
            let filter = match next {
                None => filter.clone(),
                Some(cursor) => filter.clone().after(cursor),
            };
            let page = jobs.list(&filter).await.unwrap();
            seen.extend(page.jobs);
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        assert!(seen.is_sorted_by(|newer, older| newer.created_at >= older.created_at));
        assert_eq!(seen.len(), 25);
        assert_eq!(seen.iter().map(|job| job.id).collect::<HashSet<_>>(), ids);
    }
    let running = Filter::new().status(Status::Running);
    assert_eq!(jobs.list(&running).await.unwrap().jobs.len(), 5);
    let ended = Filter::new().status(Status::Succeeded).limit(1);
    let page = jobs.list(&ended).await.unwrap();
    let response = page.jobs[0].response.as_ref().unwrap();
    assert_eq!(response.content_length, 10);
    assert_eq!(page.jobs[0].age.as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn owner_lists_only_its_own_jobs_over_http() {
    let jobs = owned();
    let service = jobs.layer().layer(inner(async |_| ok("")));
    let mut mine = HashSet::new();
    for number in 0..30 {
        let user = if number % 3 == 0 { "you" } else { "me" };
        let accepted = send(&service, as_user(user, post("/"))).await;
        if user == "me" {
            mine.insert(accepted.id().to_string());
        }
    }
    sleep(Duration::from_secs(1)).await;
    let mut next = Some("/jobs?limit=6".to_owned());
    let (mut seen, mut pages) = (HashSet::new(), 0);
    while let Some(path) = next {
        let answer = send(&service, as_user("me", get(&path))).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let list = answer.json();
        for job in list["jobs"].as_array().unwrap() {
            assert_eq!(job["status"], "succeeded");
            seen.insert(job["id"].as_str().unwrap().to_owned());
        }
        next = list["next"].as_str().map(str::to_owned);
        pages += 1;
    }
    assert_eq!((seen, pages), (mine, 4));
    let running = as_user("me", get("/jobs?status=running"));
    assert_eq!(send(&service, running).await.text(), r#"{"jobs":[]}"#);
}

#[tokio::test(start_paused = true)]
async fn list_refuses_other_methods_and_queries() {
    let service = owned()
        .layer()
        .layer(inner(async |_| ok("the inner service's")));
    for path in [
        "/jobs?status=lost",
        "/jobs?limit=x",
        "/jobs?cursor=x",
        "/jobs?limit",
    ] {
        let answer = send(&service, as_user("me", get(path))).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
    }
    assert_eq!(
        send(&service, get("/jobs")).await.status,
        StatusCode::NOT_FOUND
    );
    let put = send(&service, as_user("me", request("PUT", "/jobs"))).await;
    assert_eq!(put.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(put.header("allow"), Some("GET, HEAD, OPTIONS"));
    let head = send(&service, as_user("me", request("HEAD", "/jobs"))).await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (StatusCode::OK, Some("11"))
    );
    // Without owners there is no list, and the request passes through.
    let service = Jobs::new()
        .layer()
        .layer(inner(async |_| ok("the inner service's")));
    assert_eq!(
        send(&service, get("/jobs")).await.text(),
        "the inner service's"
    );
}

#[tokio::test(start_paused = true)]
async fn expired_and_deleted_jobs_are_not_listed() {
    let jobs = Jobs::builder()
        .owner(|head| head.headers.get("user").map(Owner::new))
        .retain(Duration::from_secs(60))
        .build();
    let service = jobs.layer().layer(inner(async |_| ok("")));
    for _ in 0..3 {
        send(&service, as_user("me", post("/"))).await;
    }
    let deleted = send(&service, as_user("me", post("/"))).await;
    send(
        &service,
        as_user("me", request("DELETE", deleted.location())),
    )
    .await;
    let count = async || {
        let all = jobs.list(&Filter::new()).await.unwrap().jobs.len();
        let mine = jobs
            .list(&Filter::new().owner(Owner::new("me")))
            .await
            .unwrap();
        assert_eq!(all, mine.jobs.len());
        all
    };
    assert_eq!(count().await, 3);
    sleep(Duration::from_millis(60_500)).await;
    assert_eq!(count().await, 0);
}

#[tokio::test(start_paused = true)]
async fn list_ignores_unknown_parameters() {
    let service = owned().layer().layer(inner(async |_| ok("")));
    send(&service, as_user("me", post("/"))).await;
    for query in ["x=1", "x", "utm_source=mail&limit=5", "=&status=succeeded"] {
        sleep(Duration::from_secs(1)).await;
        let path = format!("/jobs?{query}");
        let answer = send(&service, as_user("me", get(&path))).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}");
        assert_eq!(answer.json()["jobs"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn list_refuses_ambiguous_parameters() {
    let service = owned().layer().layer(inner(async |_| ok("")));
    send(&service, as_user("me", post("/"))).await;
    for query in [
        "limit=0",
        "limit=-1",
        "limit=1&limit=2",
        "limit=1&x&limit=1",
        "status=failed&status=succeeded",
    ] {
        let path = format!("/jobs?{query}");
        let answer = send(&service, as_user("me", get(&path))).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        let name = "urn:problem-type:tower-accepted:bad-query";
        assert_eq!(answer.json()["type"], name);
    }
}

#[tokio::test(start_paused = true)]
async fn list_is_served_during_a_drain() {
    let jobs = owned();
    let service = jobs.layer().layer(inner(async |_| {
        sleep(Duration::from_secs(20)).await;
        ok("")
    }));
    send(&service, as_user("me", post("/"))).await;
    let drain = tokio::spawn({
        let jobs = jobs.clone();
        async move { jobs.drain(Duration::from_secs(60)).await }
    });
    sleep(Duration::from_secs(1)).await;
    let refused = send(&service, as_user("me", post("/"))).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    for path in ["/jobs", "/jobs/"] {
        let list = send(&service, as_user("me", get(path))).await;
        assert_eq!(list.status, StatusCode::OK, "{path}");
        assert_eq!(list.json()["jobs"][0]["status"], "running");
    }
    assert_eq!(drain.await.unwrap(), 0);
}
