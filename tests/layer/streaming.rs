//! Streams the output of a job while it is produced.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt};
use tower_accepted::{Jobs, JobsBuilder, Owner};

use crate::{producing::*, support::*};

#[tokio::test(start_paused = true)]
async fn output_is_read_while_it_is_produced() {
    let script = Script::default();
    let service = Jobs::new().layer().layer(script.service());
    let accepted = send(&service, post("/")).await;
    let path = stream_path(&accepted);
    let reader = tokio::spawn({
        let (service, path) = (service.clone(), path.clone());
        async move { open(&service, get(&path)).await }
    });
    sleep(Duration::from_secs(5)).await;
    assert!(!reader.is_finished(), "held until there is a head");

    let producer = script.respond(text().status(201).header("x-own", "kept"));
    let mut early = reader.await.unwrap();
    assert_eq!(early.status, StatusCode::CREATED);
    for (name, value) in [
        ("asyncresult", "201"),
        ("cache-control", "private, no-store, no-transform"),
        ("content-type", "text/plain"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
        ("x-own", "kept"),
    ] {
        assert_eq!(early.header(name), Some(value), "{name}");
    }
    assert_eq!(early.header("content-length"), None);
    assert!(early.is_pending().await);
    producer.send("first, ");
    assert_eq!(early.next(7).await, "first, ");
    let mut late = open(&service, get(&format!("{path}?offset=3"))).await;
    assert_eq!(late.next(4).await, "st, ");
    let mut at_the_end = open(&service, get(&format!("{path}?offset=7"))).await;
    assert!(at_the_end.is_pending().await, "held at what there is");
    producer.send("second");
    assert_eq!(at_the_end.next(6).await, "second");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "13".parse().unwrap());
    producer.end_with(trailers.clone());
    let rest = early.body.collect().await.unwrap();
    assert_eq!(rest.trailers(), Some(&trailers));
    assert_eq!(rest.to_bytes(), "second");
    assert_eq!(late.rest().await, (Bytes::from("second"), false));
    assert_eq!(at_the_end.rest().await, (Bytes::new(), false));

    ended(&service, &accepted).await;
    let replayed = send(&service, get(&path)).await;
    assert_eq!(replayed.text(), "first, second");
    assert_eq!(replayed.trailers, Some(trailers));
    assert_eq!(result(&service, &accepted).await.text(), "first, second");
}

#[tokio::test(start_paused = true)]
async fn wait_for_a_head_ends_with_202() {
    let service = Jobs::new().layer().layer(Script::default().service());
    let accepted = send(&service, post("/")).await;
    let started = Instant::now();
    let path = stream_path(&accepted);
    let pending = send(&service, get(&path)).await;
    assert_eq!(started.elapsed(), Duration::from_secs(50));
    assert_eq!(pending.status, StatusCode::ACCEPTED);
    assert_eq!(pending.json()["status"], "running");
    assert!(pending.header("retry-after").is_some());
    let started = Instant::now();
    let pending = send(&service, with(get(&path), &[("prefer", "wait=2")])).await;
    assert_eq!(started.elapsed(), Duration::from_secs(2));
    assert_eq!(pending.header("preference-applied"), Some("wait=2"));
}

#[tokio::test(start_paused = true)]
async fn job_without_output_is_a_problem() {
    let service = Jobs::new().layer().layer(inner(async |_| {
        sleep(Duration::from_secs(1)).await;
        Err::<Response<Body>, _>(Failed)
    }));
    let accepted = send(&service, post("/")).await;
    for _ in 0..2 {
        let answer = send(&service, get(&stream_path(&accepted))).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.json()["code"], "inner_error");
        assert_eq!(answer.header("asyncresult"), None);
    }
    let document = ended(&service, &accepted).await;
    assert!(document.get("partial").is_none());
}

#[tokio::test(start_paused = true)]
async fn broken_output_is_kept_and_breaks_for_each_reader() {
    for length in [5, 5 << 20] {
        let script = Script::default();
        let jobs = Jobs::builder().max_result(16 << 20).build();
        let service = jobs.layer().layer(script.service());
        let producer = script.respond(text());
        let accepted = send(&service, post("/")).await;
        let path = stream_path(&accepted);
        let output = Bytes::from(vec![b'x'; length]);
        producer.send(output.clone());
        let live = open(&service, get(&path)).await;
        producer.fail();
        assert_eq!(live.rest().await, (output.clone(), true));
        let document = ended(&service, &accepted).await;
        assert_eq!(document["error"]["code"], "body_error");
        let partial = serde_json::json!({ "status": 200, "contentLength": length });
        assert_eq!(document["partial"], partial);
        assert!(document.get("response").is_none());
        assert!(document.get("resourceLocation").is_none());
        let whole = open(&service, get(&path)).await;
        assert_eq!(whole.header("content-length"), None);
        assert_eq!(whole.rest().await, (output.clone(), true));
        let part = open(&service, get(&format!("{path}?offset=2"))).await;
        assert_eq!(part.rest().await, (output.slice(2..), true));
        let result = result(&service, &accepted).await;
        assert_eq!(result.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(result.json()["code"], "body_error");
    }
}

#[tokio::test(start_paused = true)]
async fn every_end_midway_breaks_the_output() {
    for code in [
        "timeout",
        "canceled",
        "panic",
        "result_too_large",
        "deleted",
    ] {
        let script = Script::default();
        let jobs = Jobs::builder()
            .job_timeout(Duration::from_secs(60))
            .max_result(10)
            .build();
        let service = jobs.layer().layer(inner({
            let script = script.service();
            move |request| {
                let script = script.clone();
                async move {
                    let response = script.oneshot(request).await?;
                    Ok(response.map(|body| {
                        Body::new(body.map_frame(|frame| match frame.data_ref() {
                            Some(data) if data == "panic" => panic!("as told"),
                            _ => frame,
                        }))
                    }))
                }
            }
        }));
        let producer = script.respond(text());
        let accepted = send(&service, post("/")).await;
        let path = stream_path(&accepted);
        producer.send("begun");
        let mut live = open(&service, get(&path)).await;
        assert_eq!(live.next(5).await, "begun");
        match code {
            "timeout" => sleep(Duration::from_secs(60)).await,
            "canceled" => {
                let cancel = post(&format!("{}/cancel", accepted.location()));
                send(&service, cancel).await;
            }
            "deleted" => {
                send(&service, request("DELETE", accepted.location())).await;
            }
            "panic" => producer.send("panic"),
            _ => producer.send("too much"),
        }
        let (rest, is_broken) = live.rest().await;
        assert!(rest.is_empty() && is_broken, "{code}");
        if code == "deleted" {
            let answer = send(&service, get(&path)).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND);
            continue;
        }
        let document = ended(&service, &accepted).await;
        assert_eq!(document["error"]["code"], code);
        assert_eq!(document["partial"]["contentLength"], 5, "{code}");
        let kept = open(&service, get(&path)).await;
        assert_eq!(kept.rest().await, (Bytes::from("begun"), true), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn offset_must_be_within_the_output() {
    let script = Script::default();
    let service = Jobs::new().layer().layer(script.service());
    let producer = script.respond(text());
    let accepted = send(&service, post("/")).await;
    let path = stream_path(&accepted);
    producer.send("12345");
    assert_eq!(open(&service, get(&path)).await.next(5).await, "12345");
    for (query, available) in [
        ("offset=6", Some(5)),
        ("offset=x", None),
        ("offset=1&offset=1", None),
        ("run=x", None),
    ] {
        let refused = send(&service, get(&format!("{path}?{query}"))).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{query}");
        let problem = refused.json();
        let name = "urn:problem-type:tower-accepted:bad-offset";
        assert_eq!(problem["type"], name);
        assert_eq!(problem["available"].as_u64(), available, "{query}");
    }
    drop(producer);
    ended(&service, &accepted).await;
    let refused = send(&service, get(&format!("{path}?offset=6"))).await;
    assert_eq!(refused.json()["available"], 5);
    let end = send(&service, get(&format!("{path}?offset=5"))).await;
    assert_eq!((end.status, end.text()), (StatusCode::OK, ""));
    assert_eq!(end.header("content-length"), Some("0"));
}

#[tokio::test(start_paused = true)]
async fn run_must_be_the_one_that_is_named() {
    let service = Jobs::new().layer().layer(inner(async |_| ok("12345")));
    let accepted = send(&service, post("/")).await;
    ended(&service, &accepted).await;
    let path = stream_path(&accepted);
    let whole = send(&service, get(&path)).await;
    let etag = whole.header("etag").unwrap().to_owned();
    assert!(!etag.starts_with("W/"), "{etag}");
    for (query, tag, status) in [
        ("?offset=2&run=1", None, 200),
        ("?offset=2&run=2", None, 412),
        ("?run=2", None, 412),
        ("?offset=2", Some(&*etag), 200),
        ("", Some("*"), 200),
        ("", Some("\"other\""), 412),
        ("?run=1", Some("\"other\""), 412),
    ] {
        let mut request = get(&format!("{path}{query}"));
        if let Some(tag) = tag {
            request = with(request, &[("if-match", tag)]);
        }
        let answer = send(&service, request).await;
        assert_eq!(answer.status, status, "{query} {tag:?}");
        if status == 412 {
            let name = "urn:problem-type:tower-accepted:output-restarted";
            assert_eq!(answer.json()["type"], name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn head_of_an_output_has_what_is_known() {
    let script = Script::default();
    let service = Jobs::new().layer().layer(script.service());
    let producer = script.respond(text().header("content-length", "5"));
    let accepted = send(&service, post("/")).await;
    let path = stream_path(&accepted);
    producer.send("12");
    let head = send(&service, request("HEAD", &path)).await;
    assert_eq!(head.header("content-length"), Some("5"));
    assert_eq!(head.header("content-type"), Some("text/plain"));
    assert!(head.body.is_empty());
    let mut live = open(&service, get(&format!("{path}?offset=1"))).await;
    assert_eq!(live.header("content-length"), Some("4"));
    assert_eq!(live.next(1).await, "2");
    producer.send("345");
    drop(producer);
    assert_eq!(live.rest().await, (Bytes::from("345"), false));
    ended(&service, &accepted).await;
    let ranged = with(get(&path), &[("range", "bytes=0-1")]);
    let whole = send(&service, ranged).await;
    assert_eq!((whole.status, whole.text()), (StatusCode::OK, "12345"));
    assert_eq!(whole.header("content-length"), Some("5"));
    for (method, status) in [("PUT", 405), ("OPTIONS", 204)] {
        let answer = send(&service, request(method, &path)).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
    }
}

#[tokio::test(start_paused = true)]
async fn part_of_coded_content_is_bytes() {
    let service = Jobs::new().layer().layer(inner(async |_| {
        let coded = text()
            .header("content-encoding", "gzip")
            .header("content-digest", "sha-256=:AA==:")
            .header("etag", "\"own\"")
            .header("retry-after", "5");
        Ok(coded.status(206).body(Body::from("coded")).unwrap())
    }));
    let accepted = send(&service, post("/")).await;
    ended(&service, &accepted).await;
    let path = stream_path(&accepted);
    let whole = send(&service, get(&path)).await;
    assert_eq!(whole.status, StatusCode::OK);
    assert_eq!(whole.header("asyncresult"), Some("206"));
    assert_eq!(whole.header("content-encoding"), Some("gzip"));
    assert!(whole.header("content-digest").is_some());
    assert_ne!(whole.header("etag"), Some("\"own\""));
    assert_eq!(whole.header("retry-after"), None);
    let part = send(&service, get(&format!("{path}?offset=2"))).await;
    assert_eq!(part.text(), "ded");
    let content_type = part.header("content-type");
    assert_eq!(content_type, Some("application/octet-stream"));
    assert_eq!(part.header("content-encoding"), None);
    assert_eq!(part.header("content-digest"), None);
}

#[tokio::test(start_paused = true)]
async fn output_is_visible_to_its_owner_only() {
    fn owned() -> JobsBuilder {
        Jobs::builder().owner(|head| Some(Owner::new(head.headers.get("x-user")?.to_str().ok()?)))
    }
    let script = Script::default();
    let service = owned().build().layer().layer(script.service());
    let producer = script.respond(text().header("set-cookie", "a=b"));
    let mine = [("x-user", "me")];
    let accepted = send(&service, with(post("/"), &mine)).await;
    producer.send("12");
    let path = stream_path(&accepted);
    let other = send(&service, with(get(&path), &[("x-user", "you")])).await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
    let live = open(&service, with(get(&path), &mine)).await;
    assert_eq!(live.header("set-cookie"), Some("a=b"));

    // Without an owner, a cookie is not for everyone who has the address.
    let service = Jobs::new().layer().layer(script.service());
    let _producer = script.respond(text().header("set-cookie", "a=b"));
    let accepted = send(&service, post("/")).await;
    let live = open(&service, get(&stream_path(&accepted))).await;
    assert_eq!(live.header("set-cookie"), None);
}

#[tokio::test(start_paused = true)]
async fn event_stream_resumes_after_an_event() {
    let script = Script::default();
    let service = Jobs::new().layer().layer(script.service());
    let producer = script.respond(events());
    let accepted = send(&service, post("/")).await;
    let path = stream_path(&accepted);
    let (first, second) = ("id: a\ndata: 1\n\n", "data: 2\n\n");
    producer.send([first, second].concat());
    let after = |id: &str| with(get(&path), &[("last-event-id", id)]);
    for (id, expected) in [("a", "data: 2\n\n"), ("b", "id: a\ndata: 1\n\ndata: 2\n\n")] {
        let mut live = open(&service, after(id)).await;
        assert_eq!(live.next(expected.len()).await, expected, "{id}");
        assert!(live.is_pending().await);
    }
    // It wins over an offset.
    let request = get(&format!("{path}?offset=1"));
    let mut live = open(&service, with(request, &[("last-event-id", "a")])).await;
    assert_eq!(live.next(9).await, second);
    producer.send("id: b\ndata: 3\n\n");
    assert_eq!(live.next(15).await, "id: b\ndata: 3\n\n");
    producer.send("id: a\ndata: 4\n\n: bye\n\n");
    drop(producer);
    ended(&service, &accepted).await;
    let twice = send(&service, after("a")).await;
    assert!(
        twice.text().starts_with(first),
        "an id that occurs twice is unknown"
    );
    let last = send(&service, after("b")).await;
    assert_eq!(last.text(), "id: a\ndata: 4\n\n: bye\n\n");
}

#[tokio::test(start_paused = true)]
async fn added_ids_resume_events_without_ids() {
    let script = Script::default();
    let service = Jobs::new().layer().layer(script.service());
    let producer = script.respond(events());
    let accepted = send(&service, post("/")).await;
    let path = format!("{}?ids", stream_path(&accepted));
    producer.send("data: 1\n\ndata: ");
    let mut live = open(&service, get(&path)).await;
    let begun = "data: 1\nid: 1-9\n\ndata: ";
    assert_eq!(live.next(begun.len()).await, begun);
    assert_eq!(live.header("content-length"), None);
    producer.send("2\n\n: comment\n\n");
    let rest = "2\nid: 1-18\n\n: comment\n\n";
    assert_eq!(live.next(rest.len()).await, rest);
    let after = |id: &str| with(get(&path), &[("last-event-id", id)]);
    let mut resumed = open(&service, after("1-9")).await;
    let next = "data: 2\nid: 1-18\n\n: comment\n\n";
    assert_eq!(resumed.next(next.len()).await, next);
    let restarted = send(&service, after("2-9")).await;
    assert_eq!(restarted.status, StatusCode::PRECONDITION_FAILED);
    let beyond = send(&service, after("1-900")).await;
    assert_eq!(beyond.status, StatusCode::BAD_REQUEST);
    producer.send("data: cut off");
    drop(producer);
    ended(&service, &accepted).await;
    for (id, status) in [("1-9", 200), ("1-18", 204), ("1-30", 204)] {
        let answer = send(&service, after(id)).await;
        assert_eq!(answer.status, status, "{id}");
    }
    let plain = send(&service, get(&stream_path(&accepted))).await;
    assert!(!plain.text().contains("id:"), "added on request only");
}

#[tokio::test(start_paused = true)]
async fn other_outputs_have_no_event_ids() {
    let service = Jobs::new().layer().layer(inner(async |_| {
        let response = text().body(Body::from("id: a\ndata: 1\n\nrest"));
        Ok(response.unwrap())
    }));
    let accepted = send(&service, post("/")).await;
    ended(&service, &accepted).await;
    let request = get(&format!("{}?ids", stream_path(&accepted)));
    let answer = send(&service, with(request, &[("last-event-id", "a")])).await;
    assert_eq!(answer.text(), "id: a\ndata: 1\n\nrest");
}
