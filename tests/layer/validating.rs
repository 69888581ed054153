//! Serves conditional requests and ranges.

use std::time::Duration;

use http::{Response, StatusCode};
use tokio::time::sleep;
use tower::Layer;
use tower_accepted::{AcceptedLayer, JobHandle};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn etag_changes_exactly_with_the_document() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        sleep(Duration::from_secs(10)).await;
        JobHandle::current().progress(0.5);
        sleep(Duration::from_secs(10)).await;
        ok("")
    }));
    let accepted = send(&service, post("/")).await;
    let mut seen = std::collections::HashMap::new();
    for _ in 0..30 {
        let answer = send(&service, get(accepted.location())).await;
        let etag = answer.header("etag").unwrap().to_owned();
        assert!(etag.starts_with('"'), "the tag is weak");
        assert_eq!(answer.header("vary"), Some("accept, prefer"));
        let body = seen.entry(etag).or_insert_with(|| answer.body.clone());
        assert_eq!(*body, answer.body);
        sleep(Duration::from_secs(1)).await;
    }
    let bodies: std::collections::HashSet<_> = seen.values().collect();
    assert_eq!(
        (seen.len(), bodies.len()),
        (4, 4),
        "queued, running, half done, ended"
    );
}

#[tokio::test(start_paused = true)]
async fn unchanged_document_is_not_sent_again() {
    let service = AcceptedLayer::new().layer(inner(async |_| ok("")));
    let accepted = send(&service, post("/")).await;
    ended(&service, &accepted).await;
    let whole = send(&service, get(accepted.location())).await;
    let etag = whole.header("etag").unwrap();
    for condition in [etag, "*", &format!("\"x\", W/{etag}")] {
        for method in ["GET", "HEAD"] {
            let request = request(method, accepted.location());
            let request = with(request, &[("if-none-match", condition)]);
            let answer = send(&service, request).await;
            assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{condition}");
            assert_eq!(answer.header("etag"), Some(etag));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert_eq!(answer.header("content-length"), None);
            assert!(answer.body.is_empty());
        }
    }
    let other = with(get(accepted.location()), &[("if-none-match", "\"x\"")]);
    assert_eq!(send(&service, other).await.status, StatusCode::OK);
}

/// Runs a job whose result has these fields and ten digits. Returns a function that requests it.
async fn digits(
    fields: &'static [(&'static str, &'static str)],
) -> impl AsyncFn(&str, &[(&'static str, &str)]) -> Answer {
    let service = AcceptedLayer::new().layer(inner(move |request| async move {
        let mut response = Response::builder();
        for &(name, value) in fields {
            response = response.header(name, value);
        }
        let status = request.uri().path().trim_start_matches('/').parse::<u16>();
        let response = response.status(status.unwrap_or(200));
        Ok(response.body(Body::from("0123456789")).unwrap())
    }));
    let accepted = send(&service, post("/200")).await;
    ended(&service, &accepted).await;
    let result = format!("{}/result", accepted.location());
    async move |method: &str, fields: &[(&'static str, &str)]| {
        send(&service, with(request(method, &result), fields)).await
    }
}

const LAST_MODIFIED: &str = "Mon, 23 Nov 2026 13:40:01 GMT";

#[tokio::test(start_paused = true)]
async fn result_keeps_the_validators_of_the_service() {
    let send = digits(&[]).await;
    let first = send("GET", &[]).await;
    let etag = first.header("etag").unwrap();
    let answer = send("GET", &[("if-none-match", etag)]).await;
    assert_eq!(answer.status, StatusCode::NOT_MODIFIED);

    let own = &[("etag", "W/\"v7\""), ("last-modified", LAST_MODIFIED)];
    let send = digits(own).await;
    assert_eq!(send("GET", &[]).await.header("etag"), Some("W/\"v7\""));
    for (fields, status) in [
        (&[("if-none-match", "\"v7\"")][..], StatusCode::NOT_MODIFIED),
        (&[("if-none-match", "\"v8\"")], StatusCode::OK),
        (
            &[("if-modified-since", LAST_MODIFIED)],
            StatusCode::NOT_MODIFIED,
        ),
        (
            &[("if-modified-since", "Mon, 23 Nov 2026 13:40:00 GMT")],
            StatusCode::OK,
        ),
        (
            &[
                ("if-none-match", "\"v8\""),
                ("if-modified-since", LAST_MODIFIED),
            ],
            StatusCode::OK,
        ),
        (&[("if-modified-since", "yesterday")], StatusCode::OK),
        (&[("if-none-match", "\"v 7\"")], StatusCode::OK),
    ] {
        assert_eq!(send("GET", fields).await.status, status, "{fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn single_range_of_a_result_is_served() {
    let send = digits(&[]).await;
    assert_eq!(
        send("GET", &[]).await.header("accept-ranges"),
        Some("bytes")
    );
    for (range, part, content_range) in [
        ("bytes=0-3", "0123", "bytes 0-3/10"),
        ("bytes=8-", "89", "bytes 8-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-30", "0123456789", "bytes 0-9/10"),
        ("bytes=5-500", "56789", "bytes 5-9/10"),
    ] {
        let answer = send("GET", &[("range", range)]).await;
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(answer.header("content-range"), Some(content_range));
        assert_eq!(answer.text(), part);
        let length = part.len().to_string();
        assert_eq!(answer.header("content-length"), Some(&*length));
    }
    for range in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
        let answer = send("GET", &[("range", range)]).await;
        assert_eq!(answer.status, StatusCode::RANGE_NOT_SATISFIABLE, "{range}");
        assert_eq!(answer.header("content-range"), Some("bytes */10"));
        assert!(answer.body.is_empty());
    }
    for range in [
        "bytes=3-1",
        "bytes=0-1,3-4",
        "lines=1-2",
        "bytes",
        "bytes=x-y",
    ] {
        let answer = send("GET", &[("range", range)]).await;
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::OK, "0123456789"),
            "{range}"
        );
    }
    let head = send("HEAD", &[("range", "bytes=0-3")]).await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (StatusCode::OK, Some("10"))
    );
}

#[tokio::test(start_paused = true)]
async fn range_is_served_only_if_if_range_matches() {
    let send = digits(&[("etag", "\"v7\""), ("last-modified", LAST_MODIFIED)]).await;
    for (if_range, status) in [
        ("\"v7\"", StatusCode::PARTIAL_CONTENT),
        ("\"v8\"", StatusCode::OK),
        ("W/\"v7\"", StatusCode::OK),
        ("v7", StatusCode::OK),
        ("\"v 7\"", StatusCode::OK),
        (LAST_MODIFIED, StatusCode::PARTIAL_CONTENT),
    ] {
        let fields = [("range", "bytes=0-3"), ("if-range", if_range)];
        let answer = send("GET", &fields).await;
        assert_eq!(answer.status, status, "{if_range}");
    }
}

#[tokio::test(start_paused = true)]
async fn error_response_ignores_conditions_and_ranges() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        let response = Response::builder().status(404).header("etag", "\"v7\"");
        Ok(response.body(Body::from("not found")).unwrap())
    }));
    let accepted = send(&service, post("/")).await;
    ended(&service, &accepted).await;
    let path = format!("{}/result", accepted.location());
    let fields = [("if-none-match", "\"v7\""), ("range", "bytes=0-2")];
    let answer = send(&service, with(get(&path), &fields)).await;
    assert_eq!(
        (answer.status, answer.text()),
        (StatusCode::NOT_FOUND, "not found")
    );
}

#[tokio::test(start_paused = true)]
async fn range_of_an_empty_result_is_ignored() {
    let service = AcceptedLayer::new().layer(inner(async |_| ok("")));
    let accepted = send(&service, post("/")).await;
    ended(&service, &accepted).await;
    let path = format!("{}/result", accepted.location());
    for range in ["bytes=0-", "bytes=-5", "bytes=0-99"] {
        let answer = send(&service, with(get(&path), &[("range", range)])).await;
        assert_eq!(answer.status, StatusCode::OK, "{range}");
        assert_eq!(answer.header("content-length"), Some("0"));
        assert_eq!(answer.header("content-range"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn etag_of_a_result_is_unique_to_its_job() {
    let service = AcceptedLayer::new().layer(inner(async |request| {
        let status = if request.uri().path() == "/new" {
            201
        } else {
            200
        };
        let response = Response::builder().status(status);
        Ok(response.body(Body::from("a report")).unwrap())
    }));
    let mut etags = Vec::new();
    for _ in 0..2 {
        let accepted = send(&service, post("/")).await;
        ended(&service, &accepted).await;
        let answer = result(&service, &accepted).await;
        let etag = answer.header("etag").unwrap().to_owned();
        assert_eq!(etag, format!("\"tower-accepted:{}\"", accepted.id()));
        etags.push((format!("{}/result", accepted.location()), etag));
    }
    for (path, _) in &etags {
        for (of, etag) in &etags {
            let answer = send(&service, with(get(path), &[("if-none-match", etag)])).await;
            let is_own = of == path;
            assert_eq!(answer.status == StatusCode::NOT_MODIFIED, is_own);
        }
    }
    let accepted = send(&service, post("/new")).await;
    ended(&service, &accepted).await;
    let answer = result(&service, &accepted).await;
    assert_eq!(
        (answer.status, answer.header("etag")),
        (StatusCode::CREATED, None)
    );
}

#[tokio::test(start_paused = true)]
async fn failed_precondition_of_a_result_is_412() {
    let send = digits(&[("etag", "\"v7\""), ("last-modified", LAST_MODIFIED)]).await;
    let (earlier, later) = (
        "Mon, 23 Nov 2026 13:40:00 GMT",
        "Mon, 23 Nov 2026 13:40:02 GMT",
    );
    for (fields, status) in [
        (&[("if-match", "\"v7\"")][..], StatusCode::OK),
        (&[("if-match", "\"v6\", \"v7\"")], StatusCode::OK),
        (&[("if-match", "*")], StatusCode::OK),
        (&[("if-match", "\"v8\"")], StatusCode::PRECONDITION_FAILED),
        // The comparison is strong, and a malformed tag matches nothing.
        (&[("if-match", "W/\"v7\"")], StatusCode::PRECONDITION_FAILED),
        (&[("if-match", "v7")], StatusCode::PRECONDITION_FAILED),
        (&[("if-unmodified-since", LAST_MODIFIED)], StatusCode::OK),
        (&[("if-unmodified-since", later)], StatusCode::OK),
        (
            &[("if-unmodified-since", earlier)],
            StatusCode::PRECONDITION_FAILED,
        ),
        (&[("if-unmodified-since", "yesterday")], StatusCode::OK),
        // `If-Match` replaces the date, and precedes the other conditions and the range.
        (
            &[("if-match", "\"v7\""), ("if-unmodified-since", earlier)],
            StatusCode::OK,
        ),
        (
            &[("if-match", "\"v7\""), ("if-none-match", "\"v7\"")],
            StatusCode::NOT_MODIFIED,
        ),
        (
            &[("if-match", "\"v8\""), ("if-none-match", "\"v8\"")],
            StatusCode::PRECONDITION_FAILED,
        ),
        (
            &[("if-match", "\"v7\""), ("range", "bytes=0-3")],
            StatusCode::PARTIAL_CONTENT,
        ),
        (
            &[("if-match", "\"v8\""), ("range", "bytes=0-3")],
            StatusCode::PRECONDITION_FAILED,
        ),
    ] {
        let answer = send("GET", fields).await;
        assert_eq!(answer.status, status, "{fields:?}");
        let head = send("HEAD", fields).await;
        if status != StatusCode::PARTIAL_CONTENT {
            assert_eq!(head.status, status, "HEAD {fields:?}");
        }
        if status == StatusCode::PRECONDITION_FAILED {
            let name = "urn:problem-type:tower-accepted:precondition-failed";
            assert_eq!(answer.json()["type"], name);
            assert_eq!(answer.header("content-range"), None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn date_condition_needs_a_date() {
    let send = digits(&[]).await;
    let fields = [("if-unmodified-since", "Mon, 23 Nov 2020 13:40:01 GMT")];
    assert_eq!(send("GET", &fields).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn failed_precondition_of_a_document_is_412() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        sleep(Duration::from_secs(60)).await;
        ok("")
    }));
    let accepted = send(&service, post("/")).await;
    let (monitor, result) = (
        accepted.location(),
        format!("{}/result", accepted.location()),
    );
    let document = send(&service, get(monitor)).await;
    let etag = document.header("etag").unwrap();
    let status = async |path: &str, fields: &[(&'static str, &str)]| {
        let answer = send(&service, with(get(path), fields)).await;
        assert_eq!(
            answer.header("content-length").is_some(),
            answer.status != StatusCode::NOT_MODIFIED
        );
        answer.status.as_u16()
    };
    assert_eq!(status(monitor, &[("if-match", etag)]).await, 200);
    assert_eq!(status(monitor, &[("if-match", "*")]).await, 200);
    assert_eq!(status(monitor, &[("if-match", "\"99\"")]).await, 412);
    let both = [("if-match", etag), ("if-none-match", etag)];
    assert_eq!(status(monitor, &both).await, 304);
    let html = [("accept", "text/html"), ("if-match", etag)];
    assert_eq!(status(monitor, &html).await, 412);
    // Documents have no date.
    let old = "Mon, 23 Nov 2020 13:40:01 GMT";
    assert_eq!(status(monitor, &[("if-unmodified-since", old)]).await, 200);
    // The 202 of a pending result has no tag.
    assert_eq!(status(&result, &[("if-match", "*")]).await, 202);
    assert_eq!(status(&result, &[("if-match", "\"v7\"")]).await, 412);
    assert_eq!(status(&result, &[("if-none-match", "*")]).await, 202);
    // A condition does not hide that a job is unknown.
    let unknown = format!("/jobs/{}", tower_accepted::JobId::random());
    assert_eq!(status(&unknown, &[("if-match", etag)]).await, 404);
}

#[tokio::test(start_paused = true)]
async fn repeated_field_of_one_value_is_ignored() {
    let send = digits(&[("etag", "\"v7\""), ("last-modified", LAST_MODIFIED)]).await;
    let earlier = "Mon, 23 Nov 2026 13:40:00 GMT";
    for fields in [
        &[("range", "bytes=0-3"), ("range", "bytes=0-3")][..],
        &[("range", "bytes=0-3"), ("range", "bytes=5-")],
        &[
            ("range", "bytes=0-3"),
            ("if-range", "\"v7\""),
            ("if-range", "\"v8\""),
        ],
        &[
            ("if-modified-since", LAST_MODIFIED),
            ("if-modified-since", LAST_MODIFIED),
        ],
        &[
            ("if-unmodified-since", earlier),
            ("if-unmodified-since", earlier),
        ],
    ] {
        let answer = send("GET", fields).await;
        assert_eq!(answer.status, StatusCode::OK, "{fields:?}");
        assert_eq!(answer.text(), "0123456789");
    }
}

#[tokio::test(start_paused = true)]
async fn tag_does_not_go_on_in_the_next_line() {
    let send = digits(&[("etag", "\"v7\"")]).await;
    for (name, status) in [("if-match", 412), ("if-none-match", 200)] {
        let answer = send("GET", &[(name, "\"v"), (name, "7\"")]).await;
        assert_eq!(answer.status, status, "{name}");
    }
}
