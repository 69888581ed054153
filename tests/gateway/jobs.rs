//! The gateway in front of a slow upstream.

use http::StatusCode;
use http_body_util::Full;

use crate::{
    client::{ended, get, post, request, result, send},
    program::Program,
    upstream::{Upstream, unused_address},
};

/// Returns a body with every byte value.
fn all_bytes() -> Vec<u8> {
    (0..=255).cycle().take(100_000).collect()
}

#[tokio::test]
async fn slow_response_becomes_a_202_and_an_exact_result() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &[]).await;
    let accepted = tokio::spawn(post(gateway.address, "/reports?year=2026", "the order"));
    // The upstream responds only after the client has its 202.
    let received = upstream.next().await;
    assert_eq!(received.line, "POST /reports?year=2026 HTTP/1.1");
    assert_eq!(received.body, b"the order");
    let accepted = accepted.await.expect("no panic");
    let job = accepted.job();
    assert_eq!(get(gateway.address, &job).await.json()["status"], "running");

    let mut answer = b"HTTP/1.1 203 Whatever\r\nX-One: 1\r\nX-Many: a\r\nx-many: b, c\r\n\
        Content-Type: application/x-thing\r\nSet-Cookie: session=1\r\nX-Bytes: \xe9\r\n\
        Content-Length: 100000\r\n\r\n"
        .to_vec();
    answer.extend(all_bytes());
    received.answer(answer).await;
    let document = ended(gateway.address, &job).await;
    assert_eq!(document["status"], "succeeded", "{document}");
    for _ in 0..2 {
        let result = result(gateway.address, &job).await;
        assert_eq!(result.status, StatusCode::NON_AUTHORITATIVE_INFORMATION);
        assert_eq!(result.header("asyncresult"), Some("203"));
        assert_eq!(result.header("content-type"), Some("application/x-thing"));
        assert_eq!(result.header("content-length"), Some("100000"));
        assert_eq!(result.header("x-one"), Some("1"));
        assert_eq!(result.all("x-many"), ["a", "b, c"]);
        assert_eq!(result.headers["x-bytes"].as_bytes(), b"\xe9");
        assert_eq!(result.header("set-cookie"), None);
        assert!(result.body == all_bytes());
    }
}

#[tokio::test]
async fn fast_response_passes_through_unchanged() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--after-ms", "3600000"]).await;
    let answer = tokio::spawn(post(gateway.address, "/orders", "one"));
    let quick = "HTTP/1.1 422 No\r\nContent-Length: 3\r\nSet-Cookie: a=b\r\n\r\nwhy";
    upstream.next().await.answer(quick).await;
    let answer = answer.await.expect("no panic");
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.body, "why");
    assert_eq!(answer.header("set-cookie"), Some("a=b"));
}

#[tokio::test]
async fn upstream_error_fails_the_job_and_is_its_result() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--always"]).await;
    let job = post(gateway.address, "/reports", "").await.job();
    let broken = "HTTP/1.1 500 Broken\r\nContent-Length: 12\r\n\r\nout of paper";
    upstream.next().await.answer(broken).await;
    let document = ended(gateway.address, &job).await;
    assert_eq!(document["status"], "failed");
    assert_eq!(document["error"]["code"], "http_error");
    let result = result(gateway.address, &job).await;
    assert_eq!(result.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(result.body, "out of paper");
}

#[tokio::test]
async fn result_keeps_chunks_and_trailers() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--always"]).await;
    let submit = request("POST", "/reports").header("te", "trailers");
    let accepted = send(gateway.address, submit.body("".into()).expect("a request")).await;
    let received = upstream.next().await;
    assert_eq!(received.all("te"), ["trailers"]);
    assert_eq!(received.all("connection"), ["close, te"]);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
        3\r\nabc\r\n4\r\ndefg\r\n0\r\nx-sum: 7\r\n\r\n";
    received.answer(chunked).await;
    let job = accepted.job();
    ended(gateway.address, &job).await;
    let fetch = request("GET", &format!("{job}/result")).header("te", "trailers");
    let result = send(gateway.address, fetch.body("".into()).expect("a request")).await;
    assert_eq!(result.body, "abcdefg");
    assert_eq!(result.trailers.expect("trailers")["x-sum"], "7");
}

#[tokio::test]
async fn canceled_job_closes_its_upstream_connection() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--always"]).await;
    let job = post(gateway.address, "/reports", "").await.job();
    let received = upstream.next().await;
    let canceled = post(gateway.address, &format!("{job}/cancel"), "").await;
    assert_eq!(canceled.json()["status"], "canceled");
    received.hung_up().await;
    let result = result(gateway.address, &job).await;
    assert_eq!(result.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn unreachable_upstream_is_a_502_inline_and_as_result() {
    let (_socket, address) = unused_address();
    let gateway = Program::gateway(address, &["--after-ms", "3600000"]).await;
    let mut answers = vec![
        get(gateway.address, "/").await,
        post(gateway.address, "/reports", "").await,
    ];
    let prefers = request("POST", "/reports").header("prefer", "respond-async");
    let accepted = send(gateway.address, prefers.body("".into()).expect("a request")).await;
    let job = accepted.job();
    let document = ended(gateway.address, &job).await;
    assert_eq!(document["error"]["code"], "http_error");
    answers.push(result(gateway.address, &job).await);
    for answer in answers {
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(answer.json()["status"], 502);
    }
}

#[tokio::test]
async fn unreachable_upstream_frees_the_key() {
    let (_reserved, unreachable) = unused_address();
    let mut broken = Upstream::start().await;
    for (upstream, is_kept) in [(unreachable, false), (broken.address, true)] {
        let gateway = Program::gateway(upstream, &["--always"]).await;
        let mut jobs = Vec::new();
        for _ in ["first", "repeat"] {
            let keyed = request("POST", "/payments").header("idempotency-key", "one");
            let sent = send(gateway.address, keyed.body(Full::default()).expect("valid"));
            let job = sent.await.job();
            if is_kept && jobs.is_empty() {
                // It got the request, and may have acted on it.
                broken.next().await.answer("").await;
            }
            assert_eq!(
                ended(gateway.address, &job).await["response"]["status"],
                502
            );
            jobs.push(job);
        }
        assert_eq!(jobs[0] == jobs[1], is_kept);
    }
}

#[tokio::test]
async fn invalid_http_response_is_a_502() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--after-ms", "3600000"]).await;
    for answer in [
        "",
        "220 mail.example ESMTP\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n",
    ] {
        let answered = tokio::spawn(post(gateway.address, "/", ""));
        upstream.next().await.answer(answer).await;
        let answered = answered.await.expect("no panic");
        assert_eq!(answered.status, StatusCode::BAD_GATEWAY, "{answer:?}");
    }
}

#[tokio::test]
async fn truncated_response_fails_its_job() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--always"]).await;
    let job = post(gateway.address, "/reports", "").await.job();
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    upstream.next().await.answer(half).await;
    let document = ended(gateway.address, &job).await;
    assert_eq!(document["error"]["code"], "body_error");
}

#[tokio::test]
async fn request_with_an_h2c_upgrade_becomes_a_job() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--always"]).await;
    let submit = request("POST", "/reports")
        .header("connection", "Upgrade, HTTP2-Settings")
        .header("upgrade", "h2c")
        .header("http2-settings", "AAMAAABkAAQBAAAAAAIAAAAA");
    let accepted = send(gateway.address, submit.body("".into()).expect("a request")).await;
    let received = upstream.next().await;
    assert_eq!(received.all("connection"), ["close"]);
    for removed in ["upgrade", "http2-settings"] {
        assert_eq!(received.all(removed), [""; 0]);
    }
    received.ok("done").await;
    let result = result(gateway.address, &accepted.job()).await;
    assert_eq!(result.body, "done");
}
