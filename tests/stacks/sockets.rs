//! A job's life over real sockets, and what clients do to it.

use std::{
    future::pending,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    join,
    net::TcpStream,
    sync::Semaphore,
    task::yield_now,
};
use tower::Layer;
use tower_accepted::{AcceptedLayer, Jobs, When};

use crate::support::*;

on_every_stack!(
    a_get_right_after_the_202_always_finds_the_job,
    a_job_is_followed_to_its_result,
    trailers_are_replayed,
    a_response_without_content_is_replayed_as_one,
    a_response_that_is_none_ends_the_job_without_one,
    a_large_body_comes_and_goes_whole,
    a_job_outlives_the_connection_it_came_on,
    who_waits_on_the_monitor_may_hang_up,
    a_client_that_hangs_up_in_the_inline_phase_takes_the_call_along,
    a_client_that_gives_up_in_the_inline_phase_takes_the_call_along,
    a_client_that_hangs_up_while_it_sends_leaves_nothing,
    a_client_whose_body_breaks_leaves_nothing,
    a_client_that_stalls_is_told_408,
    a_body_over_the_limit_is_told_413,
    a_connection_is_used_again_after_everything_that_can_be_answered,
);

on_every_server!(
    a_chunked_body_that_is_no_such_thing_is_told_400,
    a_body_cut_short_leaves_nothing,
    who_waits_for_100_continue_gets_it_where_the_body_is_wanted,
    requests_sent_in_one_go_are_each_accepted,
    a_client_of_http_1_0_is_served,
    a_length_is_told_for_what_has_one,
    an_offer_of_h2c_keeps_no_request_from_being_accepted,
    an_upload_reset_without_an_error_leaves_nothing,
);

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3600);

async fn echo(request: Request<Body>) -> Response<Body> {
    let body = request.into_body().collect().await.expect("a whole body");
    Response::new(Body::from(body.to_bytes()))
}

async fn a_get_right_after_the_202_always_finds_the_job(stack: Stack) {
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

async fn a_job_is_followed_to_its_result(stack: Stack) {
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

async fn a_response_without_content_is_replayed_as_one(stack: Stack) {
    let inner = |request: Request<Body>| async move {
        let status = request.uri().path()[1..].parse::<StatusCode>().unwrap();
        Response::builder()
            .status(status)
            .header("etag", "\"1\"")
            .body(Body::empty())
            .unwrap()
    };
    let mut client = stack.start(AcceptedLayer::new(), inner).await;
    for status in ["204", "205", "304", "200"] {
        let accepted = client.send(post(&format!("/{status}"))).await;
        client.ended(&accepted).await;
        let result = client.result(&accepted).await;
        assert_eq!(result.status.as_str(), status);
        assert_eq!(
            (result.header("etag"), &result.body),
            (Some("\"1\""), &Bytes::new())
        );
        if status == "204" {
            assert_eq!(result.headers.get("content-length"), None);
        }
    }
}

async fn a_response_that_is_none_ends_the_job_without_one(stack: Stack) {
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

async fn a_large_body_comes_and_goes_whole(stack: Stack) {
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

async fn a_job_outlives_the_connection_it_came_on(stack: Stack) {
    for when in [When::Always, When::After(Duration::from_millis(5))] {
        let gate = Arc::new(Semaphore::new(0));
        let inner = {
            let gate = gate.clone();
            move |_| {
                let gate = gate.clone();
                async move {
                    gate.acquire().await.unwrap().forget();
                    Response::new(Body::from("in the end"))
                }
            }
        };
        let mut client = stack.start(AcceptedLayer::new().when(when), inner).await;
        let mut other = client.another().await;
        let accepted = client.send(post("/")).await;
        client.line().cut();
        client.start(get("/")).await.expect_err("hung up");
        gate.add_permits(1);
        assert_eq!(other.ended(&accepted).await["status"], "succeeded");
        assert_eq!(other.result(&accepted).await.text(), "in the end");
    }
}

async fn who_waits_on_the_monitor_may_hang_up(stack: Stack) {
    let gate = Arc::new(Semaphore::new(0));
    let inner = {
        let gate = gate.clone();
        move |_| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                Response::new(Body::from("in the end"))
            }
        }
    };
    let mut client = stack.start(AcceptedLayer::new(), inner).await;
    let mut patient = client.another().await;
    let accepted = client.send(post("/")).await;
    let wait = |path: &str| {
        let mut request = get(path);
        let forever = "wait=3600".parse().unwrap();
        request.headers_mut().insert("prefer", forever);
        request
    };
    let at = format!("{}/result", accepted.location());
    let line = client.line();
    let (cut, result, ()) = join!(
        client.start(wait(accepted.location())),
        patient.send(wait(&at)),
        async {
            // Long enough for both to wait; where it is not, the answer is the same.
            for _ in 0..100 {
                yield_now().await;
            }
            line.cut();
            gate.add_permits(1);
        }
    );
    if let Ok(response) = cut {
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(
        (result.status, result.text()),
        (StatusCode::OK, "in the end")
    );
}

/// An inner service that never answers, with the calls it got and those of them that were dropped.
fn silent() -> (impl Fn(Request<Body>) -> Silence + Clone, Counter, Counter) {
    let (calls, drops) = (Counter::default(), Counter::default());
    let inner = {
        let (calls, drops) = (calls.clone(), drops.clone());
        move |_| {
            calls.up();
            let dropped = OnDrop(drops.clone());
            Box::pin(async {
                let _dropped = dropped;
                pending().await
            }) as Silence
        }
    };
    (inner, calls, drops)
}

type Silence = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

async fn a_client_that_hangs_up_in_the_inline_phase_takes_the_call_along(stack: Stack) {
    let jobs = Jobs::new();
    let (inner, calls, drops) = silent();
    let mut client = stack
        .start(jobs.layer().when(When::After(LONG)), inner)
        .await;
    let line = client.line();
    let hang_up = async {
        until(|| calls.count() == 1).await;
        assert_eq!(jobs.unfinished(), 1);
        line.cut();
    };
    let (answer, ()) = join!(client.start(post("/")), hang_up);
    answer.expect_err("hung up");
    until(|| drops.count() == 1).await;
    nothing_is_left(&jobs).await;
}

async fn a_client_that_gives_up_in_the_inline_phase_takes_the_call_along(stack: Stack) {
    let jobs = Jobs::new();
    let (inner, calls, drops) = silent();
    let mut client = stack
        .start(jobs.layer().when(When::After(LONG)), inner)
        .await;
    tokio::select! {
        biased;
        _ = client.start(post("/")) => panic!("it never answers"),
        () = until(|| calls.count() == 1) => {}
    }
    until(|| drops.count() == 1).await;
    nothing_is_left(&jobs).await;
    if stack.protocol == Protocol::Http2 {
        // Only the one stream was reset.
        let (answer, ()) = join!(client.start(get("/jobs/x")), async {});
        assert_eq!(answer.unwrap().status(), StatusCode::NOT_FOUND);
    }
}

async fn a_client_that_hangs_up_while_it_sends_leaves_nothing(stack: Stack) {
    let jobs = Jobs::new();
    let (inner, calls, _) = silent();
    for when in [When::Always, When::After(LONG)] {
        let mut client = stack.start(jobs.layer().when(when), inner.clone()).await;
        let line = client.line();
        let (frames, body) = channel();
        frames
            .send(Ok(Bytes::from_static(b"the first half")))
            .unwrap();
        let hang_up = async {
            until(|| format!("{jobs:?}").contains("used: 14")).await;
            assert_eq!(jobs.unfinished(), 1);
            line.cut();
        };
        let (answer, ()) = join!(client.start(post("/").map(|_| body)), hang_up);
        answer.expect_err("hung up");
        nothing_is_left(&jobs).await;
        assert_eq!(calls.count(), 0);
    }
}

async fn a_client_whose_body_breaks_leaves_nothing(stack: Stack) {
    let jobs = Jobs::new();
    let (inner, calls, _) = silent();
    for when in [When::Always, When::After(LONG)] {
        let mut client = stack.start(jobs.layer().when(when), inner.clone()).await;
        let (frames, body) = channel();
        frames
            .send(Ok(Bytes::from_static(b"the first half")))
            .unwrap();
        let break_off = async {
            until(|| format!("{jobs:?}").contains("used: 14")).await;
            frames.send(Err(Failed)).unwrap();
        };
        let (answer, ()) = join!(client.start(post("/").map(|_| body)), break_off);
        answer.expect_err("a body of which the rest is missing");
        nothing_is_left(&jobs).await;
        assert_eq!(calls.count(), 0);
    }
}

async fn a_client_that_stalls_is_told_408(stack: Stack) {
    let jobs = Jobs::builder()
        .body_timeout(Duration::from_millis(20))
        .build();
    let (inner, calls, _) = silent();
    let mut client = stack.start(jobs.layer(), inner).await;
    let (frames, body) = channel();
    frames
        .send(Ok(Bytes::from_static(b"the first half")))
        .unwrap();
    let answer = client.send(post("/").map(|_| body)).await;
    assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    nothing_is_left(&jobs).await;
    assert_eq!(calls.count(), 0);
}

async fn a_body_over_the_limit_is_told_413(stack: Stack) {
    let jobs = Jobs::builder().max_body(50).build();
    let (inner, calls, _) = silent();
    let client = stack.start(jobs.layer(), inner).await;
    let declared = Body::from(vec![0; 51]);
    let (frames, undeclared) = channel();
    for frame in [26, 25] {
        frames.send(Ok(vec![0; frame].into())).unwrap();
    }
    for body in [declared, undeclared] {
        let answer = client.another().await.send(post("/").map(|_| body)).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
        nothing_is_left(&jobs).await;
    }
    assert_eq!(calls.count(), 0);
}

async fn a_connection_is_used_again_after_everything_that_can_be_answered(stack: Stack) {
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
        // A body that nobody reads, short enough to be skipped.
        let body = if method == "POST" { "a body" } else { "" };
        let answer = client
            .send(request(method, path).map(|_| Body::from(body)))
            .await;
        assert_eq!(answer.status, status, "{method} {path}");
    }
}

/// Sends bytes, and returns all that comes until the server hangs up.
async fn speak(server: Server, jobs: &Jobs, text: &str) -> String {
    let address = server.serve(jobs.layer(), echo).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn a_chunked_body_that_is_no_such_thing_is_told_400(server: Server) {
    let jobs = Jobs::new();
    let answer = speak(
        server,
        &jobs,
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("body-broken"), "{answer}");
    nothing_is_left(&jobs).await;
}

async fn a_body_cut_short_leaves_nothing(server: Server) {
    let jobs = Jobs::new();
    let address = server.serve(jobs.layer(), echo).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 15\r\n\r\nthe first half";
    stream.write_all(text.as_bytes()).await.unwrap();
    until(|| format!("{jobs:?}").contains("used: 14")).await;
    // It says that nothing more comes, and would still read an answer.
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
        "{answer}"
    );
    nothing_is_left(&jobs).await;
}

async fn who_waits_for_100_continue_gets_it_where_the_body_is_wanted(server: Server) {
    let jobs = Jobs::builder().max_body(50).build();
    let address = server.serve(jobs.layer(), echo).await;
    let head = |length| {
        format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head(4).as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");

    let answer = speak(server, &jobs, &head(51)).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

async fn requests_sent_in_one_go_are_each_accepted(server: Server) {
    let one = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody";
    let last = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = speak(server, &Jobs::new(), &[one, one, last].concat()).await;
    assert_eq!(
        answer.matches("HTTP/1.1 202 Accepted").count(),
        3,
        "{answer}"
    );
}

async fn a_client_of_http_1_0_is_served(server: Server) {
    let jobs = Jobs::new();
    let request = "POST / HTTP/1.0\r\ncontent-length: 4\r\n\r\nbody";
    let answer = speak(server, &jobs, request).await;
    assert!(answer.starts_with("HTTP/1.0 202 "), "{answer}");
    assert!(answer.contains("\r\ncontent-length: "), "{answer}");
}

async fn a_length_is_told_for_what_has_one(server: Server) {
    let inner = |_| async {
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]);
        let body = Body::from("body").with_trailers(async { Some(Ok(trailers)) });
        let response = Response::builder().header("trailer", "x-sum");
        response.body(Body::new(body)).unwrap()
    };
    let address = server.serve(AcceptedLayer::new(), inner).await;
    let mut client = Client::connect(address, Protocol::Http1).await;
    let accepted = client.send(post("/")).await;
    client.ended(&accepted).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {}/result HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: close\r\n\r\n",
        accepted.location()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("transfer-encoding: chunked"), "{answer}");
    assert!(!head.contains("content-length"), "{answer}");
    assert_eq!(body, "4\r\nbody\r\n0\r\nx-sum: 7\r\n\r\n");
}

async fn an_offer_of_h2c_keeps_no_request_from_being_accepted(server: Server) {
    let address = server.serve(AcceptedLayer::new(), echo).await;
    let mut client = Client::connect(address, Protocol::Http1).await;
    // As Java's HttpClient and `curl --http2` send it with the first request of a connection.
    let mut request = post("/");
    let headers = request.headers_mut();
    headers.insert("connection", "Upgrade, HTTP2-Settings".parse().unwrap());
    headers.insert("upgrade", "h2c".parse().unwrap());
    headers.insert(
        "http2-settings",
        "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA".parse().unwrap(),
    );
    let accepted = client.send(request).await;
    client.ended(&accepted).await;
    assert_eq!(client.result(&accepted).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_says_is_told_400() {
    let jobs = Jobs::new();
    let service = jobs.layer().layer(inner(async |_| ok("")));
    let body = Body::new(Declares(20, Body::from("14 bytes of 20")));
    let answer = send(&service, post("/").map(|_| body)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    nothing_is_left(&jobs).await;
}

/// A body that says that it is so long.
struct Declares(u64, Body);

impl http_body::Body for Declares {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.1).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

async fn an_upload_reset_without_an_error_leaves_nothing(server: Server) {
    let (inner, calls, _) = silent();
    for declared in [true, false] {
        for when in [When::Always, When::After(LONG)] {
            let jobs = Jobs::new();
            let address = server.serve(jobs.layer().when(when), inner.clone()).await;
            let stream = TcpStream::connect(address).await.unwrap();
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            let mut request = Request::post(format!("http://{address}/"));
            if declared {
                request = request.header("content-length", "28");
            }
            let mut sender = sender.ready().await.unwrap();
            let (answer, mut body) = sender
                .send_request(request.body(()).unwrap(), false)
                .unwrap();
            body.send_data(Bytes::from_static(b"the first half"), false)
                .unwrap();
            until(|| format!("{jobs:?}").contains("used: 14")).await;
            body.send_reset(h2::Reason::NO_ERROR);
            drop(answer);
            nothing_is_left(&jobs).await;
            assert_eq!(calls.count(), 0);
        }
    }
}
