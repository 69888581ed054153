//! Keeps jobs private to their owners.

use std::{future::pending, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode, request::Parts};
use tokio::time::sleep;
use tower::Layer;
use tower_accepted::{JobId, Jobs, JobsBuilder, Owner, When};

use crate::support::*;

fn owned() -> JobsBuilder {
    Jobs::builder().owner(|head| head.headers.get("user").map(Owner::new))
}

fn as_user(user: &str, request: http::Request<Body>) -> http::Request<Body> {
    with(request, &[("user", user)])
}

fn hanging() -> impl Inner {
    inner(async |_| pending::<Result<Response<Body>, Failed>>().await)
}

#[tokio::test(start_paused = true)]
async fn job_is_not_found_by_another_owner() {
    let jobs = owned().retain(Duration::from_secs(60)).build();
    let service = jobs.layer().layer(inner(async |_| ok("private")));
    let accepted = send(&service, as_user("me", post("/"))).await;
    let path = accepted.location();
    let unknown = send(&service, get(&format!("/jobs/{}", JobId::random()))).await;
    let all = || {
        [
            get(path),
            get(&format!("{path}/status")),
            get(&format!("{path}/result")),
            post(&format!("{path}/cancel")),
            request("DELETE", path),
        ]
    };
    // The job exists, then has expired but may still be in memory, then is removed.
    for wait in [
        Duration::ZERO,
        Duration::from_millis(60_500),
        Duration::from_secs(60),
    ] {
        sleep(wait).await;
        for request in all() {
            let answer = send(&service, as_user("you", request)).await;
            assert_eq!(
                (answer.status, &answer.body),
                (StatusCode::NOT_FOUND, &unknown.body)
            );
        }
        for request in all() {
            assert_eq!(send(&service, request).await.status, StatusCode::NOT_FOUND);
        }
    }
    for request in all() {
        assert_eq!(
            send(&service, as_user("me", request)).await.status,
            StatusCode::GONE
        );
    }
}

#[tokio::test(start_paused = true)]
async fn owner_receives_cookies_and_a_private_result() {
    let service = owned().build().layer().layer(inner(async |_| {
        let response = Response::builder()
            .header("set-cookie", "session=1")
            .header("cache-control", "public, max-age=3600");
        Ok(response.body(Body::from("private")).unwrap())
    }));
    let accepted = send(&service, as_user("me", post("/"))).await;
    sleep(Duration::from_secs(1)).await;
    let result = get(&format!("{}/result", accepted.location()));
    let result = send(&service, as_user("me", result)).await;
    assert_eq!(result.text(), "private");
    assert_eq!(result.header("set-cookie"), Some("session=1"));
    assert_eq!(result.header("cache-control"), Some("private, no-store"));
}

#[tokio::test(start_paused = true)]
async fn job_without_an_owner_is_visible_to_all() {
    let service = owned().build().layer().layer(inner(async |_| ok("")));
    let accepted = send(&service, post("/")).await;
    for request in [
        get(accepted.location()),
        as_user("me", get(accepted.location())),
    ] {
        assert_eq!(send(&service, request).await.status, StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn each_owner_has_its_own_limit() {
    let jobs = owned().max_unfinished_per_owner(2).build();
    let service = jobs.layer().layer(hanging());
    let mine = send(&service, as_user("me", post("/"))).await;
    send(&service, as_user("me", post("/"))).await.location();
    let refused = send(&service, as_user("me", post("/"))).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.header("retry-after").is_some());
    assert!(refused.text().contains(":owner-full"));
    send(&service, as_user("you", post("/"))).await.location();
    send(&service, post("/")).await.location();
    let cancel = post(&format!("{}/cancel", mine.location()));
    send(&service, as_user("me", cancel)).await;
    sleep(Duration::from_secs(1)).await;
    send(&service, as_user("me", post("/"))).await.location();
}

#[tokio::test(start_paused = true)]
async fn request_is_refused_before_its_body_is_read() {
    let (calls, jobs) = (Counter::default(), Jobs::new());
    let admit = |head: &Parts| match head.headers.get("user") {
        Some(_) => Ok(()),
        None => Err(Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header("www-authenticate", "Bearer")
            .body(Bytes::from_static(b"log in first"))
            .unwrap()),
    };
    let service = jobs.layer().admit(admit).layer(inner({
        let calls = calls.clone();
        move |_| {
            calls.up();
            async { ok("") }
        }
    }));
    let unread = post("/").map(|_| {
        let frames =
            futures_util::stream::poll_fn(|_| -> std::task::Poll<Option<Result<Bytes, Failed>>> {
                panic!("the body was read")
            });
        Body::from_stream(frames)
    });
    let refused = send(&service, unread).await;
    assert_eq!(
        (refused.status, refused.text()),
        (StatusCode::UNAUTHORIZED, "log in first")
    );
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    assert_eq!((calls.count(), jobs.unfinished()), (0, 0));
    send(&service, as_user("me", post("/"))).await.location();
    assert_eq!(
        send(&service, get("/")).await.status,
        StatusCode::OK,
        "a GET passes through"
    );
}

#[tokio::test(start_paused = true)]
async fn optional_job_over_the_owner_limit_runs_inline() {
    let jobs = owned().max_unfinished_per_owner(0).build();
    let service = jobs
        .layer()
        .when(When::After(Duration::ZERO))
        .layer(inner(async |_| {
            sleep(Duration::from_secs(10)).await;
            ok("inline")
        }));
    let answer = send(&service, as_user("me", post("/"))).await;
    assert_eq!(answer.text(), "inline");
}
