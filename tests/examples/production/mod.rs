//! The example `production`.

mod shutdown;

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt, service_fn};
use tower_http::decompression::DecompressionLayer;

use crate::{
    client::{Answer, get, open, read_until, request, send},
    program::Program,
};

const APP_ORIGIN: &str = "https://app.example";

/// More pages than a test can wait for.
const MANY_PAGES: &str = "pages=100000";

/// Starts the example with short pages, and further flags.
async fn start(flags: &[&str]) -> Program {
    let mut arguments = vec!["127.0.0.1:0", "--page-ms", "10"];
    arguments.extend(flags);
    Program::start("production", &arguments).await
}

/// A client with the token of a user.
#[derive(Debug, Clone, Copy)]
struct UserClient {
    server: SocketAddr,
    name: &'static str,
}

impl UserClient {
    fn new(server: &Program, name: &'static str) -> Self {
        let server = server.address;
        Self { server, name }
    }

    fn request(self, method: &str, path: &str) -> http::request::Builder {
        request(method, path).header("authorization", format!("Bearer {}-token", self.name))
    }

    async fn send(self, request: http::request::Builder, body: &str) -> Answer {
        let body = Full::from(body.to_owned());
        send(self.server, request.body(body).expect("a request")).await
    }

    async fn call(self, method: &str, path: &str) -> Answer {
        self.send(self.request(method, path), "").await
    }

    /// Posts a form that becomes a job at once, with another header field.
    async fn submit(self, path: &str, field: (&'static str, &str), form: &str) -> Answer {
        let request = self
            .request("POST", path)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("prefer", "respond-async")
            .header(field.0, field.1);
        self.send(request, form).await
    }

    async fn report(self, form: &str) -> Answer {
        self.submit("/reports", ("accept", "*/*"), form).await
    }

    async fn pay(self, key: &str) -> Answer {
        let key = ("idempotency-key", key);
        self.submit("/payments", key, "amount=5").await
    }

    /// Polls the monitor until the job ends, and returns its result.
    async fn result(self, job: &str) -> Answer {
        while self.call("GET", job).await.is_unfinished() {}
        self.call("GET", &format!("{job}/result")).await
    }
}

fn csv(pages: u32) -> String {
    let lines = (1..=pages).map(|page| format!("{page},{}\n", page * page));
    lines.fold("page,figure\n".to_owned(), |csv, line| csv + &line)
}

#[tokio::test]
async fn request_without_a_known_token_gets_401() {
    let server = start(&[]).await;
    let mallory = UserClient::new(&server, "mallory");
    for (method, path) in [("POST", "/reports"), ("GET", "/jobs"), ("GET", "/jobs/0")] {
        let answer = mallory.call(method, path).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    let anonymous = get(server.address, "/jobs").await;
    assert_eq!(anonymous.status, StatusCode::UNAUTHORIZED);
    assert_eq!(get(server.address, "/health").await.body, "ok");
}

#[tokio::test]
async fn job_is_visible_to_its_user_only() {
    let server = start(&[]).await;
    let alice = UserClient::new(&server, "alice");
    let bob = UserClient::new(&server, "bob");
    let job = alice.report("pages=3").await.job();
    assert_eq!(alice.result(&job).await.body, csv(3));
    for (method, end) in [
        ("GET", ""),
        ("GET", "/result"),
        ("POST", "/cancel"),
        ("DELETE", ""),
    ] {
        let answer = bob.call(method, &format!("{job}{end}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {end}");
    }
    let list = alice.call("GET", "/jobs").await.json();
    assert_eq!(list["jobs"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(list["jobs"][0]["title"], "Report of 3 pages", "{list}");
    let list = bob.call("GET", "/jobs").await.json();
    assert_eq!(list["jobs"].as_array().map(Vec::len), Some(0), "{list}");
}

#[tokio::test]
async fn payment_needs_a_key_and_charges_once() {
    let server = start(&[]).await;
    let alice = UserClient::new(&server, "alice");
    let bob = UserClient::new(&server, "bob");
    let unkeyed = alice
        .submit("/payments", ("accept", "*/*"), "amount=5")
        .await;
    assert_eq!(unkeyed.status, StatusCode::BAD_REQUEST);
    let problem = unkeyed.json();
    let problem = problem["type"].as_str().expect("a type");
    assert!(problem.ends_with(":key-required"), "{problem}");

    let job = alice.pay("order-7").await.job();
    let receipt = alice.result(&job).await;
    assert_eq!(receipt.status, StatusCode::CREATED);
    assert_eq!(receipt.body, "receipt 1: alice paid 5\n");
    let repeated = alice.pay("order-7").await;
    assert_eq!(repeated.header("idempotent-replayed"), Some("true"));
    assert_eq!(repeated.job(), job);
    assert_eq!(alice.result(&job).await.body, receipt.body);
    // Each user has keys of their own.
    let job = bob.pay("order-7").await.job();
    assert_eq!(bob.result(&job).await.body, "receipt 2: bob paid 5\n");
}

#[tokio::test]
async fn page_of_the_app_can_submit_read_and_cancel() {
    let server = start(&[]).await;
    let alice = UserClient::new(&server, "alice");
    let job = alice.report(MANY_PAGES).await.job();
    for path in ["/reports", &format!("{job}/cancel")] {
        let preflight = request("OPTIONS", path)
            .header("origin", APP_ORIGIN)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization, prefer");
        let preflight = preflight.body(Full::default()).expect("a request");
        let answer = send(server.address, preflight).await;
        assert_eq!(answer.status, StatusCode::OK);
        let value = |name| answer.header(name).unwrap_or_default().to_lowercase();
        assert_eq!(value("access-control-allow-origin"), APP_ORIGIN);
        assert!(value("access-control-allow-methods").contains("post"));
        for field in ["authorization", "idempotency-key", "prefer"] {
            assert!(value("access-control-allow-headers").contains(field));
        }
    }
    let accepted = alice
        .submit("/reports", ("origin", APP_ORIGIN), "pages=1")
        .await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
    let exposed = accepted.header("access-control-expose-headers");
    let exposed: Vec<&str> = exposed.expect("a list").split(',').collect();
    let exposes = |name: &str| exposed.iter().any(|exposed| exposed.trim() == name);
    for name in ["location", "retry-after", "asyncresult"] {
        assert!(exposes(name), "{name}: {exposed:?}");
    }
    let cancel = |origin| {
        let request = alice.request("POST", &format!("{job}/cancel"));
        let request = request.header("sec-fetch-site", "cross-site");
        alice.send(request.header("origin", origin), "")
    };
    let foreign = cancel("https://evil.example").await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    let canceled = cancel(APP_ORIGIN).await;
    assert_eq!(canceled.status, StatusCode::OK);
    let origin = canceled.header("access-control-allow-origin");
    assert_eq!(origin, Some(APP_ORIGIN));
}

#[tokio::test]
async fn result_is_compressed_for_clients_that_ask() {
    let server = start(&[]).await;
    let alice = UserClient::new(&server, "alice");
    let job = alice.report("pages=50").await.job();
    let plain = alice.result(&job).await;
    assert_eq!(plain.header("content-encoding"), None);
    assert_eq!(plain.body, csv(50));

    let result = alice.request("GET", &format!("{job}/result"));
    let gzip = result.header("accept-encoding", "gzip");
    let compressed = alice.send(gzip, "").await;
    assert_eq!(compressed.header("content-encoding"), Some("gzip"));
    assert!(compressed.body.len() < plain.body.len());
    assert_eq!(decompressed(compressed).await, plain.body);
}

async fn decompressed(answer: Answer) -> Bytes {
    let (headers, body) = (answer.headers, answer.body);
    let response = move |_: Request<Full<Bytes>>| {
        let mut response = Response::new(Full::new(body.clone()));
        *response.headers_mut() = headers.clone();
        async { Ok::<_, Infallible>(response) }
    };
    let service = DecompressionLayer::new().layer(service_fn(response));
    let response = service
        .oneshot(Request::default())
        .await
        .expect("a response");
    let body = response.into_body().collect().await.expect("gzip");
    body.to_bytes()
}

#[tokio::test]
async fn timeout_cuts_requests_but_no_jobs_and_no_waits() {
    let server = start(&["--timeout-secs", "2"]).await;
    let alice = UserClient::new(&server, "alice");
    // Submitted before a request that has timed out, so the job lasts longer than the timeout.
    let job = alice.report("pages=500").await.job();
    let waiting = alice.request("GET", &job).header("prefer", "wait=60");
    let stalled = b"POST /reports HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice-token\r\n\
        Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\npages";
    let cut = async {
        let mut stalled = open(server.address, stalled).await;
        read_until(&mut stalled, "\r\n\r\n").await
    };
    let (waited, cut) = tokio::join!(alice.send(waiting, ""), cut);
    assert!(cut.starts_with("HTTP/1.1 408 "), "{cut}");
    assert_eq!(waited.status, StatusCode::OK, "{waited:?}");
    assert!(waited.is_unfinished(), "{waited:?}");
    assert_eq!(alice.result(&job).await.body, csv(500));
}

#[tokio::test]
async fn cancel_stops_the_blocking_work() {
    let mut server = start(&[]).await;
    let alice = UserClient::new(&server, "alice");
    let job = alice.report(MANY_PAGES).await.job();
    let document = loop {
        let document = alice.call("GET", &job).await.json();
        if document["percentComplete"].is_number() {
            break document;
        }
    };
    let message = document["message"].as_str().expect("a message");
    assert!(message.ends_with(" of 100000"), "{message}");
    let canceled = alice.call("POST", &format!("{job}/cancel")).await;
    assert_eq!(canceled.status, StatusCode::OK);
    server.logged("stopped before page").await;
    let result = alice.result(&job).await;
    assert_eq!(result.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn client_that_leaves_stops_the_blocking_work() {
    let mut server = start(&["--timeout-secs", "60"]).await;
    let request = b"POST /reports HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice-token\r\n\
        Prefer: wait=30\r\nContent-Type: application/x-www-form-urlencoded\r\n\
        Content-Length: 12\r\n\r\npages=100000";
    let client = open(server.address, request).await;
    server.logged("rendering").await;
    // The request would become a job when the client has waited for 30 s.
    drop(client);
    server.logged("stopped before page").await;
    let alice = UserClient::new(&server, "alice");
    let list = alice.call("GET", "/jobs").await.json();
    assert_eq!(list["jobs"].as_array().map(Vec::len), Some(0), "{list}");
}
