//! Pages of other origins: `--cors-origin`.

use http::StatusCode;

use crate::{
    client::{Answer, ended, request, send},
    program::Program,
    upstream::Upstream,
};

const APP: &str = "https://app.example";

async fn from(gateway: &Program, origin: &str, method: &str, path: &str) -> Answer {
    let ask = request(method, path).header("origin", origin);
    let ask = ask.header("sec-fetch-site", "cross-site");
    send(gateway.address, ask.body("".into()).expect("a request")).await
}

async fn preflight(gateway: &Program, origin: &str, path: &str) -> Answer {
    let ask = request("OPTIONS", path)
        .header("origin", origin)
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "if-none-match, prefer");
    send(gateway.address, ask.body("".into()).expect("a request")).await
}

fn assert_readable(answer: &Answer, origin: &str) {
    assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
    let credentials = (origin != "*").then_some("true");
    assert_eq!(
        answer.header("access-control-allow-credentials"),
        credentials
    );
    let exposed = answer.all("access-control-expose-headers").join(", ");
    for field in [
        "location",
        "operation-location",
        "link",
        "retry-after",
        "preference-applied",
        "etag",
        "asyncresult",
        "idempotent-replayed",
    ] {
        assert!(exposed.split(", ").any(|one| one == field), "{field}");
    }
}

fn assert_unreadable(answer: &Answer) {
    for field in ["allow-origin", "allow-credentials", "expose-headers"] {
        let field = format!("access-control-{field}");
        assert_eq!(answer.header(&field), None, "{answer:?}");
    }
}

#[tokio::test]
async fn listed_origin_reads_and_cancels_its_jobs() {
    let mut upstream = Upstream::start().await;
    let other = "http://localhost:3000";
    let flags = [
        "--always",
        "--health",
        "/",
        "--cors-origin",
        APP,
        "--cors-origin",
        other,
    ];
    let gateway = Program::gateway(upstream.address, &flags).await;
    for origin in [APP, other] {
        let accepted = from(&gateway, origin, "POST", "/reports").await;
        assert_readable(&accepted, origin);
        let job = accepted.job();
        let received = upstream.next().await;
        assert_readable(&from(&gateway, origin, "GET", &job).await, origin);
        assert_readable(&from(&gateway, origin, "GET", "/healthz").await, origin);

        let allowed = preflight(&gateway, origin, &job).await;
        assert_eq!(allowed.status, StatusCode::NO_CONTENT);
        assert_readable(&allowed, origin);
        let names = allowed.header("access-control-allow-headers");
        assert_eq!(names, Some("if-none-match, prefer"));
        let methods = allowed.header("access-control-allow-methods");
        assert_eq!(methods, Some("GET, HEAD, POST, DELETE"));

        let cancel = format!("{job}/cancel");
        let canceled = from(&gateway, origin, "POST", &cancel).await;
        assert_eq!(canceled.json()["status"], "canceled");
        received.hung_up().await;
    }
}

#[tokio::test]
async fn unlisted_origin_reads_nothing() {
    let mut upstream = Upstream::start().await;
    let flags = ["--always", "--cors-origin", APP];
    let gateway = Program::gateway(upstream.address, &flags).await;
    for origin in ["https://evil.example", "https://app.example.evil", "null"] {
        let accepted = from(&gateway, origin, "POST", "/reports").await;
        assert_unreadable(&accepted);
        // A cache must not serve one origin's response to another one.
        assert!(accepted.all("vary").contains(&"origin"), "{accepted:?}");
        let job = accepted.job();
        let received = upstream.next().await;
        assert_unreadable(&preflight(&gateway, origin, &job).await);
        let refused = from(&gateway, origin, "POST", &format!("{job}/cancel")).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        assert_unreadable(&refused);
        received.ok("").await;
    }
}

#[tokio::test]
async fn any_origin_reads_without_cookies() {
    let mut upstream = Upstream::start().await;
    let flags = ["--always", "--cors-origin", "*"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let accepted = from(&gateway, "https://any.example", "POST", "/reports").await;
    assert_readable(&accepted, "*");
    upstream.next().await.ok("").await;
}

#[tokio::test]
async fn upstream_decides_about_its_own_responses() {
    let mut upstream = Upstream::start().await;
    let flags = ["--after-ms", "3600000", "--cors-origin", APP];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let gateway = std::sync::Arc::new(gateway);
    let own = "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://own.example\r\n\
        Access-Control-Expose-Headers: x-own\r\nContent-Length: 0\r\n\r\n";
    for method in ["GET", "POST"] {
        let asking = gateway.clone();
        let answer = tokio::spawn(async move { from(&asking, APP, method, "/reports").await });
        upstream.next().await.answer(own).await;
        let answer = answer.await.expect("no panic");
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://own.example"), "{method}");
        assert_eq!(answer.all("access-control-expose-headers"), ["x-own"]);
    }
    let asking = gateway.clone();
    let answer = tokio::spawn(async move { preflight(&asking, APP, "/reports").await });
    let received = upstream.next().await;
    assert_eq!(received.line, "OPTIONS /reports HTTP/1.1");
    received.answer(own).await;
    answer.await.expect("no panic");

    // The replay of a result is the gateway's own answer.
    let prefers = request("POST", "/reports").header("prefer", "respond-async");
    let accepted = send(gateway.address, prefers.body("".into()).expect("a request")).await;
    upstream.next().await.answer(own).await;
    let job = accepted.job();
    ended(gateway.address, &job).await;
    let result = from(&gateway, APP, "GET", &format!("{job}/result")).await;
    assert_readable(&result, APP);
    assert!(
        result
            .all("access-control-expose-headers")
            .contains(&"x-own")
    );
}

#[tokio::test]
async fn refusal_of_the_gateway_can_be_read() {
    let upstream = Upstream::start().await;
    let flags = ["--owner-header", "x-user", "--cors-origin", APP];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let ask = request("POST", "/reports").header("origin", APP);
    let ask = ask.header("x-user", "a").header("x-user", "b");
    let refused = send(gateway.address, ask.body("".into()).expect("a request")).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_readable(&refused, APP);
    assert_readable(&from(&gateway, APP, "GET", "/jobs").await, APP);
    assert_readable(&preflight(&gateway, APP, "/jobs").await, APP);
}
