//! A job over real connections, from the 202 to its replayed result.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use tokio::{join, sync::Semaphore};
use tower_accepted::{AcceptedLayer, Jobs};

use crate::support::*;

on_every_stack!(
    get_after_the_202_finds_the_job,
    job_is_followed_to_its_result,
    trailers_are_replayed,
    response_without_content_is_replayed_without,
    informational_response_fails_the_job,
    large_bodies_arrive_complete,
    connection_is_reused_after_every_kind_of_answer,
);

async fn get_after_the_202_finds_the_job(stack: Stack) {
    let client = stack.start(AcceptedLayer::new(), echo).await;
    let rounds = (0..4).map(async |_| {
        let (mut one, mut other) = (client.another().await, client.another().await);
        for _ in 0..50 {
            let accepted = one.send(post("/")).await;
            let at = accepted.location();
            let (here, there) = join!(one.send(get(at)), other.send(get(at)));
            assert_eq!(
                (here.status, there.status),
                (StatusCode::OK, StatusCode::OK)
            );
        }
    });
    join_all(rounds).await;
}

async fn job_is_followed_to_its_result(stack: Stack) {
    let gate = Arc::new(Semaphore::new(0));
    let inner = {
        let gate = gate.clone();
        move |request: Request<Body>| {
            let gate = gate.clone();
            async move {
                let (method, uri) = (request.method().clone(), request.uri().path().to_owned());
                let body = request.into_body().collect().await.unwrap().to_bytes();
                gate.acquire().await.unwrap().forget();
                let body = format!("{method} {uri}: {}", str::from_utf8(&body).unwrap());
                Response::builder()
                    .status(StatusCode::CREATED)
                    .header("content-type", "text/plain")
                    .header("x-same", "1")
                    .header("x-same", "2")
                    .header("connection", "close, x-hop")
                    .header("x-hop", "1")
                    .body(Body::from(body))
                    .unwrap()
            }
        }
    };
    let mut client = stack.start(AcceptedLayer::new(), inner).await;
    let accepted = client
        .send(post("/reports").map(|_| Body::from("all")))
        .await;
    let document = client.send(get(accepted.location())).await.json();
    assert!(["queued", "running"].contains(&document["status"].as_str().unwrap()));
    let early = client.result(&accepted).await;
    assert_eq!(
        (early.status, early.json()["id"].clone()),
        (StatusCode::ACCEPTED, document["id"].clone())
    );

    gate.add_permits(1);
    let document = client.ended(&accepted).await;
    assert_eq!(document["status"], "succeeded");
    assert_eq!(document["response"]["status"], 201);
    let at = document["resourceLocation"].as_str().unwrap();
    for _ in 0..2 {
        let result = client.send(get(at)).await;
        assert_eq!(result.status, StatusCode::CREATED);
        assert_eq!(result.text(), "POST /reports: all");
        assert_eq!(result.header("content-length"), Some("18"));
        assert_eq!(result.header("asyncresult"), Some("201"));
        let same: Vec<_> = result.headers.get_all("x-same").iter().collect();
        assert_eq!(same, ["1", "2"]);
        assert_eq!(
            (result.header("x-hop"), result.header("connection")),
            (None, None)
        );

        let mut head = client.send(request("HEAD", at)).await;
        assert_eq!((head.status, head.body), (result.status, Bytes::new()));
        head.headers.remove("date");
        let mut headers = result.headers;
        headers.remove("date");
        assert_eq!(head.headers, headers);
    }
    let gone = client.send(request("DELETE", accepted.location())).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let gone = client.send(get(at)).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
}

async fn trailers_are_replayed(stack: Stack) {
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]);
    let inner = {
        let trailers = trailers.clone();
        move |_| {
            let trailers = trailers.clone();
            let body = Body::from("body").with_trailers(async { Some(Ok(trailers)) });
            let response = Response::builder().header("trailer", "x-sum");
            async { response.body(Body::new(body)).unwrap() }
        }
    };
    let mut client = stack.start(AcceptedLayer::new(), inner).await;
    let accepted = client.send(post("/")).await;
    client.ended(&accepted).await;
    let at = format!("{}/result", accepted.location());
    for _ in 0..2 {
        let mut request = get(&at);
        let te = "trailers".parse().unwrap();
        request.headers_mut().insert(header::TE, te);
        let result = client.send(request).await;
        assert_eq!(
            (result.text(), result.trailers.as_ref()),
            ("body", Some(&trailers))
        );
        assert_eq!(result.header("content-length"), None);
        let head = client.send(self::request("HEAD", &at)).await;
        assert_eq!(head.header("content-length"), Some("4"));
    }
}

async fn response_without_content_is_replayed_without(stack: Stack) {
    let inner = |request: Request<Body>| async move {
        let status = request.uri().path()[1..].parse::<StatusCode>().unwrap();
        let body = if status == StatusCode::OK {
            ""
        } else {
            "dropped"
        };
        Response::builder()
            .status(status)
            .header("etag", "\"1\"")
            .body(Body::from(body))
            .unwrap()
    };
    let mut client = stack.start(AcceptedLayer::new(), inner).await;
    for (status, served) in [("204", 204), ("205", 205), ("304", 200), ("200", 200)] {
        let accepted = client.send(post(&format!("/{status}"))).await;
        client.ended(&accepted).await;
        let result = client.result(&accepted).await;
        assert_eq!(result.status.as_u16(), served);
        assert_eq!(result.header("asyncresult"), Some(status));
        assert_eq!(
            (result.header("etag"), &result.body),
            (Some("\"1\""), &Bytes::new())
        );
        if status == "204" {
            assert_eq!(result.headers.get("content-length"), None);
        }
    }
}

async fn informational_response_fails_the_job(stack: Stack) {
    let inner = |request: Request<Body>| async move {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = request.uri().path()[1..].parse().unwrap();
        response
    };
    let mut client = stack.start(AcceptedLayer::new(), inner).await;
    for status in ["100", "101", "103", "199"] {
        let accepted = client.send(post(&format!("/{status}"))).await;
        let document = client.ended(&accepted).await;
        assert_eq!(document["error"]["code"], "inner_error", "{status}");
        let result = client.result(&accepted).await;
        assert_eq!(result.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
}

async fn large_bodies_arrive_complete(stack: Stack) {
    let mut client = stack.start(AcceptedLayer::new(), echo).await;
    let bytes: Vec<u8> = (0..1_000_003_u32).map(|at| (at % 251) as u8).collect();
    let bytes = Bytes::from(bytes);
    let (frames, body) = channel();
    for at in (0..bytes.len()).step_by(10_007) {
        let end = bytes.len().min(at + 10_007);
        frames.send(Ok(bytes.slice(at..end))).unwrap();
    }
    drop(frames);
    let accepted = client.send(post("/").map(|_| body)).await;
    let document = client.ended(&accepted).await;
    assert_eq!(document["response"]["contentLength"], bytes.len());
    for _ in 0..2 {
        let result = client.result(&accepted).await;
        assert_eq!(result.header("content-length"), Some("1000003"));
        assert!(result.body == bytes);
    }
}

async fn connection_is_reused_after_every_kind_of_answer(stack: Stack) {
    let jobs = Jobs::builder().max_body(50).build();
    let mut client = stack.start(jobs.layer(), echo).await;
    let accepted = client.send(post("/").map(|_| Body::from("body"))).await;
    client.ended(&accepted).await;
    let at = accepted.location();
    let result = format!("{at}/result");
    let cancel = format!("{at}/cancel");
    for (method, path, status) in [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("HEAD", at, 200),
        ("OPTIONS", at, 204),
        ("PUT", at, 405),
        ("POST", &result, 405),
        ("HEAD", &result, 200),
        ("GET", &result, 200),
        ("POST", &cancel, 200),
        ("GET", "/jobs/x", 404),
        ("HEAD", "/jobs/x", 404),
        ("POST", "/", 202),
        ("DELETE", at, 204),
        ("GET", &result, 404),
    ] {
        // The server skips a short body that is not read.
        let body = if method == "POST" { "a body" } else { "" };
        let answer = client
            .send(request(method, path).map(|_| Body::from(body)))
            .await;
        assert_eq!(answer.status, status, "{method} {path}");
    }
}
