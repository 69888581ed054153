//! The gateway in front of a program that takes its time.

use http::StatusCode;

use crate::{
    client::{ended, get, post, request, result, send},
    program::Program,
    upstream::{Upstream, nobody},
};

/// Every byte there is.
fn binary() -> Vec<u8> {
    (0..=255).cycle().take(100_000).collect()
}

#[tokio::test]
async fn a_slow_response_is_a_202_first_and_then_the_programs_own_byte_for_byte() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &[]).await;
    let accepted = tokio::spawn(post(gateway.address, "/reports?year=2026", "the order"));
    // The program answers only after the client has been answered.
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
    answer.extend(binary());
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
        assert!(result.body == binary());
    }
}

#[tokio::test]
async fn a_quick_response_stays_what_it_is() {
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
async fn an_error_of_the_program_is_a_failed_job_with_its_response() {
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
async fn chunks_and_trailers_are_kept_and_asked_for() {
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
async fn a_canceled_job_closes_its_connection_to_the_program() {
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
async fn a_program_that_cannot_be_reached_is_a_502_inline_and_as_a_result() {
    let (_socket, nobody) = nobody();
    let gateway = Program::gateway(nobody, &["--after-ms", "3600000"]).await;
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
async fn what_is_no_http_is_a_502() {
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
async fn a_response_that_breaks_off_fails_its_job() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--always"]).await;
    let job = post(gateway.address, "/reports", "").await.job();
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    upstream.next().await.answer(half).await;
    let document = ended(gateway.address, &job).await;
    assert_eq!(document["error"]["code"], "body_error");
}

#[tokio::test]
async fn an_offer_of_http_2_keeps_no_request_from_being_a_job() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--always"]).await;
    let submit = request("POST", "/reports")
        .header("connection", "Upgrade, HTTP2-Settings")
        .header("upgrade", "h2c")
        .header("http2-settings", "AAMAAABkAAQBAAAAAAIAAAAA");
    let accepted = send(gateway.address, submit.body("".into()).expect("a request")).await;
    let received = upstream.next().await;
    assert_eq!(received.all("connection"), ["close"]);
    for gone in ["upgrade", "http2-settings"] {
        assert_eq!(received.all(gone), [""; 0]);
    }
    received.ok("done").await;
    let result = result(gateway.address, &accepted.job()).await;
    assert_eq!(result.body, "done");
}
