//! Serves the resources of the monitor.

use std::{future::pending, time::Duration};

use http::{Response, StatusCode};
use tokio::time::sleep;
use tower::Layer;
use tower_accepted::{AcceptedLayer, ConfigError, JobId, Jobs, Links, Owner};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn unknown_and_malformed_ids_look_the_same() {
    let service = AcceptedLayer::new().layer(inner(async |_| ok("the inner service's")));
    let accepted = send(&service, post("/")).await;
    let unknown = send(&service, get(&format!("/jobs/{}", JobId::random()))).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    for path in [
        "/jobs/",
        "/jobs/x",
        "/jobs//result",
        "/jobs/AAAAAAAAAAAAAAAAAAAAAB",
        "/jobs/AAAAAAAAAAAAAAAAAAAAA%41",
        "/jobs/../../etc/passwd",
        &format!("{}//", accepted.location()),
        &format!("{}/elsewhere", accepted.location()),
        &format!("{}/result//", accepted.location()),
        &format!("{}%2Fresult", accepted.location()),
        &format!("{}%2", accepted.location()),
        &format!("{}x", accepted.location()),
        &format!("/jobs/{}/result", JobId::random()),
    ] {
        let answer = send(&service, get(path)).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.body, unknown.body, "{path}");
    }
    for path in ["/jobs", "/jobsx", "/", "/JOBS/x"] {
        let answer = send(&service, get(path)).await;
        assert_eq!(answer.text(), "the inner service's", "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_resource_refuses_other_methods() {
    let service = AcceptedLayer::new().layer(inner(async |_| ok("")));
    let accepted = send(&service, post("/")).await;
    for (resource, allow) in [
        ("", "GET, HEAD, DELETE, OPTIONS"),
        ("/result", "GET, HEAD, OPTIONS"),
        ("/cancel", "POST, OPTIONS"),
    ] {
        let path = format!("{}{resource}", accepted.location());
        for method in ["PUT", "PATCH", "POST", "GET", "DELETE", "TRACE", "PURGE"] {
            if allow.contains(method) {
                continue;
            }
            let answer = send(&service, request(method, &path)).await;
            assert_eq!(
                answer.status,
                StatusCode::METHOD_NOT_ALLOWED,
                "{method} {path}"
            );
            assert_eq!(answer.header("allow"), Some(allow));
        }
        let options = send(&service, request("OPTIONS", &path)).await;
        assert_eq!(options.status, StatusCode::NO_CONTENT);
        assert_eq!(options.header("allow"), Some(allow));
    }
    assert_eq!(ended(&service, &accepted).await["status"], "succeeded");
}

#[tokio::test(start_paused = true)]
async fn answers_of_the_layer_are_not_cached() {
    let jobs = Jobs::builder().owner(|_| Some(Owner::new("me"))).build();
    let service = jobs.layer().layer(inner(async |request| {
        if request.uri().path() == "/slow" {
            sleep(Duration::from_secs(60)).await;
        }
        ok("")
    }));
    let page = ("accept", "text/html");
    let of_slow = send(&service, post("/slow")).await;
    let of_fast = send(&service, post("/")).await;
    ended(&service, &of_fast).await;
    let (running, done) = (of_slow.location().to_owned(), of_fast.location().to_owned());
    for accepted in [of_slow, of_fast] {
        assert_eq!(accepted.header("cache-control"), Some("no-store"));
    }
    for request in [
        get("/jobs"),
        get("/jobs?limit=x"),
        get("/jobs/x"),
        get(&running),
        get(&format!("{running}/status")),
        get(&format!("{running}/result")),
        with(get(&running), &[page]),
        post(&running),
        post(&format!("{running}/cancel")),
        get(&format!("{running}/result")),
        get(&format!("{done}/events")),
        get(&format!("{done}/result")),
        with(get(&done), &[page]),
        request("DELETE", &done),
        get(&done),
        with(post("/"), &[("idempotency-key", "")]),
    ] {
        let target = format!("{} {}", request.method(), request.uri());
        let answer = send(&service, request).await;
        let cache_control = answer.header("cache-control").unwrap_or_default();
        assert!(cache_control.contains("no-store"), "{target}: {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn head_equals_get_without_the_body() {
    let service = AcceptedLayer::new().layer(inner(async |request| {
        sleep(Duration::from_secs(5)).await;
        match request.uri().path() {
            "/fails" => Err(Failed),
            _ => ok("the result"),
        }
    }));
    for path in ["/", "/fails"] {
        let accepted = send(&service, post(path)).await;
        for _ in ["running", "ended"] {
            for resource in ["", "/result", "/unknown"] {
                let path = format!("{}{resource}", accepted.location());
                let get = send(&service, get(&path)).await;
                let head = send(&service, request("HEAD", &path)).await;
                assert_eq!((head.status, &head.headers), (get.status, &get.headers));
                let length = get.body.len().to_string();
                assert_eq!(get.header("content-length"), Some(&*length));
                assert!(head.body.is_empty());
            }
            sleep(Duration::from_secs(10)).await;
        }
    }
}

fn from_site(site: &str, request: http::Request<Body>) -> http::Request<Body> {
    with(request, &[("sec-fetch-site", site)])
}

#[tokio::test(start_paused = true)]
async fn cross_site_cancel_is_refused() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        pending::<Result<Response<Body>, Failed>>().await
    }));
    let accepted = send(&service, post("/")).await;
    let cancel = || post(&format!("{}/cancel", accepted.location()));
    for request in [
        cancel(),
        with(cancel(), &[("origin", "https://app.example")]),
    ] {
        let answer = send(&service, from_site("cross-site", request)).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    let read = from_site("cross-site", get(accepted.location()));
    assert_eq!(send(&service, read).await.json()["status"], "queued");
    let canceled = send(&service, from_site("same-origin", cancel())).await;
    assert_eq!(canceled.json()["status"], "canceled");
}

#[tokio::test(start_paused = true)]
async fn cross_site_delete_is_left_to_the_preflight() {
    let service = AcceptedLayer::new().layer(inner(async |_| ok("")));
    let accepted = send(&service, post("/")).await;
    let delete = request("DELETE", accepted.location());
    let deleted = send(&service, from_site("cross-site", delete)).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
}

#[tokio::test(start_paused = true)]
async fn application_allows_origins_that_cancel() {
    let jobs = Jobs::builder().allow_cancel_from(|origin| origin == "https://app.example");
    let service = jobs.build().layer().layer(inner(async |_| {
        pending::<Result<Response<Body>, Failed>>().await
    }));
    for (site, origin, status) in [
        ("cross-site", Some("https://app.example"), 200),
        ("cross-site", Some("https://evil.example"), 403),
        ("cross-site", Some("null"), 403),
        ("cross-site", None, 403),
        ("same-site", Some("https://evil.example"), 200),
        ("none", None, 200),
    ] {
        let accepted = send(&service, post("/")).await;
        let mut cancel = from_site(site, post(&format!("{}/cancel", accepted.location())));
        if let Some(origin) = origin {
            cancel = with(cancel, &[("origin", origin)]);
        }
        let answer = send(&service, cancel).await;
        assert_eq!(answer.status, status, "{site}, {origin:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn origin_decides_without_sec_fetch_site() {
    let jobs = Jobs::builder().allow_cancel_from(|origin| origin == "https://app.example");
    let service = jobs.build().layer().layer(inner(async |_| {
        pending::<Result<Response<Body>, Failed>>().await
    }));
    for (host, origin, status) in [
        ("own.example", "http://own.example", 200),
        ("own.example:80", "http://Own.example", 200),
        ("own.example:8080", "http://own.example:8080", 200),
        ("own.example", "https://app.example", 200),
        ("own.example", "http://evil.example", 403),
        ("own.example", "http://own.example:8080", 403),
        ("own.example", "null", 403),
    ] {
        let accepted = send(&service, post("/")).await;
        let cancel = post(&format!("{}/cancel", accepted.location()));
        let cancel = with(cancel, &[("host", host), ("origin", origin)]);
        let answer = send(&service, cancel).await;
        assert_eq!(answer.status, status, "{host}, {origin}");
    }
    // HTTP/2 has the host in the target.
    let accepted = send(&service, post("/")).await;
    let cancel = post(&format!("http://own.example{}/cancel", accepted.location()));
    let answer = send(&service, with(cancel, &[("origin", "http://own.example")])).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(start_paused = true)]
async fn retry_after_grows_with_the_age_of_a_job() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        pending::<Result<Response<Body>, Failed>>().await
    }));
    let accepted = send(&service, post("/")).await;
    let seconds = async || {
        let answer = send(&service, get(accepted.location())).await;
        let seconds = answer.header("retry-after").unwrap();
        seconds.parse::<u64>().unwrap()
    };
    let mut last = 1;
    for _ in 0..10 {
        let next = seconds().await;
        assert!(next >= last && next <= 60, "{next} after {last}");
        sleep(Duration::from_secs(next)).await;
        last = next;
    }
    assert_eq!(last, 60);
}

#[tokio::test(start_paused = true)]
async fn monitor_service_needs_no_prefix_in_paths() {
    let jobs = Jobs::builder().monitor_path("/work/items").build();
    let service = jobs.layer().layer(inner(async |_| ok("")));
    let accepted = send(&service, post("/")).await;
    assert!(accepted.location().starts_with("/work/items/"));
    ended(&service, &accepted).await;
    let monitor = jobs.monitor();
    let id = accepted.id();
    for path in [
        format!("/work/items/{id}"),
        format!("/{id}"),
        format!("/{id}/result"),
    ] {
        assert_eq!(
            send(&monitor, get(&path)).await.status,
            StatusCode::OK,
            "{path}"
        );
    }
    for path in ["/", "/work/items", "/work/items/", "/elsewhere"] {
        assert_eq!(
            send(&monitor, get(path)).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

#[test]
fn invalid_monitor_path_is_an_error_of_the_builder() {
    for path in [
        "//jobs",
        "/a//jobs",
        "/a/../jobs",
        "/%2e/jobs",
        "/a\"b",
        "/50%",
        "",
        "/",
        "jobs",
        "/jobs/",
        "/a?b",
        "/a#b",
        "/a b",
        "http://host/jobs",
    ] {
        let built = Jobs::builder().monitor_path(path).try_build();
        let error = built.expect_err(path);
        assert_eq!(error, ConfigError::MonitorPath(path.to_owned()));
    }
    for path in ["/jobs", "/.well-known/jobs", "/caf%C3%A9/..."] {
        let built = Jobs::builder().monitor_path(path).try_build();
        assert!(built.is_ok(), "{path}");
    }
    let built = std::panic::catch_unwind(|| Jobs::builder().monitor_path("jobs").build());
    assert!(built.is_err());
}

#[test]
fn invalid_base_of_links_is_an_error_of_the_builder() {
    let base = "https://host:99999/v1";
    let built = Jobs::builder().links(Links::Base(base.into())).try_build();
    let error = built.expect_err("no such port");
    assert_eq!(error, ConfigError::LinkBase(base.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn slashes_and_escapes_find_the_job() {
    let service = AcceptedLayer::new().layer(inner(async |_| ok("the result")));
    let accepted = send(&service, post("/")).await;
    ended(&service, &accepted).await;
    let id = accepted.id().to_string();
    let escaped: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let first = &id[1..];
    let first = format!("%{:02X}{first}", id.as_bytes()[0]);
    for id in [&id, &escaped, &first] {
        for slash in ["", "/"] {
            let path = format!("/jobs/{id}{slash}");
            let document = send(&service, get(&path)).await;
            assert_eq!(document.status, StatusCode::OK, "{path}");
            assert_eq!(document.json()["id"], accepted.id().to_string());
            let path = format!("/jobs/{id}/result{slash}");
            let result = send(&service, get(&path)).await;
            assert_eq!(
                (result.status, result.text()),
                (StatusCode::OK, "the result")
            );
        }
    }
    // A relative link leads elsewhere from a path that ends with a slash.
    let jobs = Jobs::builder().links(Links::Relative).build();
    let service = jobs.layer().layer(inner(async |_| ok("the result")));
    let id = send(&service, post("/")).await.id();
    let answer = send(&service, get(&format!("/jobs/{id}/"))).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}
