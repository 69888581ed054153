//! Requests and responses that pass through the gateway without a job.

use http::StatusCode;
use tokio::io::AsyncWriteExt;

use crate::{
    client::{get, open, post, raw, read_until, request, send},
    program::Program,
    upstream::Upstream,
};

#[tokio::test]
async fn endless_body_streams_chunk_by_chunk() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--always"]).await;
    let mut client = open(gateway.address, b"GET /clock HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut received = upstream.next().await;
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    received.write(head).await;
    let head = read_until(&mut client, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for chunk in ["one", "two", "three"] {
        let size = chunk.len();
        received
            .write(format!("{size:x}\r\n{chunk}\r\n").as_bytes())
            .await;
        // The upstream sends the next chunk only after this one arrived.
        read_until(&mut client, chunk).await;
    }
    drop(client);
    received.hung_up().await;
}

#[tokio::test]
async fn truncated_body_stays_truncated() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &[]).await;
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let address = gateway.address;
    let client = tokio::spawn(async move { raw(address, request).await });
    let half = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    upstream.next().await.answer(half).await;
    let answer = client.await.expect("no panic");
    assert!(answer.ends_with("half\r\n"), "no last chunk: {answer}");
}

#[tokio::test]
async fn upstream_sees_the_client_and_the_gateway() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &[]).await;
    let address = gateway.address;
    let asked = request("GET", "/a/../b//c%2F?x=%00&&y")
        .header("host", "shop.example:81")
        .header("user-agent", "tester")
        .header("accept", "text/plain")
        .header("accept", "text/csv");
    let asked = asked.body("".into()).expect("a request");
    let answer = tokio::spawn(send(address, asked));
    let received = upstream.next().await;
    assert_eq!(received.line, "GET /a/../b//c%2F?x=%00&&y HTTP/1.1");
    for (name, values) in [
        ("host", &["shop.example:81"][..]),
        ("x-forwarded-host", &["shop.example:81"]),
        ("x-forwarded-for", &["127.0.0.1"]),
        ("x-forwarded-proto", &["http"]),
        ("via", &["1.1 tower-accepted"]),
        ("user-agent", &["tester"]),
        ("accept", &["text/plain", "text/csv"]),
        ("connection", &["close"]),
        ("content-length", &[]),
        ("transfer-encoding", &[]),
    ] {
        assert_eq!(received.all(name), values, "{name}");
    }
    received
        .answer("HTTP/1.1 200 OK\r\nVia: 1.1 inner\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    let answer = answer.await.expect("no panic");
    assert_eq!(answer.header("via"), Some("1.1 inner, 1.1 tower-accepted"));
    assert_eq!(answer.body, "hi");
}

#[tokio::test]
async fn http_1_0_is_supported_and_recorded_in_via() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &[]).await;
    let address = gateway.address;
    let client = tokio::spawn(async move { raw(address, b"GET / HTTP/1.0\r\n\r\n").await });
    let received = upstream.next().await;
    assert_eq!(received.line, "GET / HTTP/1.1");
    assert_eq!(received.all("via"), ["1.0 tower-accepted"]);
    assert_eq!(received.all("host"), [upstream.address.to_string()]);
    // Only the end of the connection ends the body.
    received.answer("HTTP/1.0 200 OK\r\n\r\nto the end").await;
    let answer = client.await.expect("no panic");
    assert!(answer.contains("via: 1.0 tower-accepted\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nto the end"), "{answer}");
}

#[tokio::test]
async fn response_without_a_body_keeps_its_headers() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &[]).await;
    let head = request("HEAD", "/large")
        .body("".into())
        .expect("a request");
    let answer = tokio::spawn(send(gateway.address, head));
    let large = "HTTP/1.1 200 OK\r\nContent-Length: 123456789\r\n\r\n";
    upstream.next().await.answer(large).await;
    let answer = answer.await.expect("no panic");
    assert_eq!(answer.header("content-length"), Some("123456789"));

    let answer = tokio::spawn(async move { get(gateway.address, "/same").await });
    let same = "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"1\"\r\n\r\n";
    upstream.next().await.answer(same).await;
    let answer = answer.await.expect("no panic");
    assert_eq!(answer.status, StatusCode::NOT_MODIFIED);
    assert_eq!(answer.header("etag"), Some("\"1\""));
}

#[tokio::test]
async fn every_method_forwards_its_body_and_trailers() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--after-ms", "3600000"]).await;
    let address = gateway.address;
    for (method, path) in [
        ("GET", "/search"),
        ("POST", "/"),
        ("DELETE", "/"),
        ("QUERY", "/"),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
        let chunked = format!(
            "{head}Transfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
             3\r\nabc\r\n0\r\nx-sum: 3\r\n\r\n"
        );
        let client = tokio::spawn(async move { raw(address, chunked.as_bytes()).await });
        let received = upstream.next().await;
        assert_eq!(received.body, b"abc", "{method}");
        assert_eq!(received.trailers, ["x-sum: 3"], "{method}");
        received.ok("").await;
        client.await.expect("no panic");

        let sized = format!("{head}Content-Length: 3\r\n\r\nabc");
        let client = tokio::spawn(async move { raw(address, sized.as_bytes()).await });
        let received = upstream.next().await;
        assert_eq!(received.all("content-length"), ["3"], "{method}");
        assert_eq!(received.body, b"abc", "{method}");
        received.ok("").await;
        client.await.expect("no panic");
    }
}

#[tokio::test]
async fn large_body_streams_through() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--after-ms", "0"]).await;
    let large = vec![b'x'; 3 << 20];
    let upload = request("PUT", "/film").body(large.clone().into());
    let answer = tokio::spawn(send(gateway.address, upload.expect("a request")));
    let received = upstream.next().await;
    assert_eq!(received.all("content-length"), ["3145728"]);
    assert!(received.body == large);
    received.ok("thanks").await;
    assert_eq!(answer.await.expect("no panic").body, "thanks");
}

#[tokio::test]
async fn expect_100_continue_is_answered() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--after-ms", "3600000"]).await;
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let mut client = open(gateway.address, head).await;
    let interim = read_until(&mut client, "\r\n\r\n").await;
    assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"body").await.expect("sent");
    let received = upstream.next().await;
    assert_eq!(received.all("expect"), [""; 0]);
    assert_eq!(received.body, b"body");
    received.ok("done").await;
    let answer = read_until(&mut client, "done").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn options_asterisk_reaches_the_server() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &[]).await;
    let ask = b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let client = tokio::spawn(async move { raw(gateway.address, ask).await });
    let received = upstream.next().await;
    assert_eq!(received.line, "OPTIONS * HTTP/1.1");
    received.ok("").await;
    assert!(
        client
            .await
            .expect("no panic")
            .starts_with("HTTP/1.1 200 OK")
    );
}

#[tokio::test]
async fn client_disconnect_cancels_its_inline_call() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--after-ms", "3600000"]).await;
    let client = open(gateway.address, b"POST / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let received = upstream.next().await;
    drop(client);
    received.hung_up().await;
    // The gateway still serves.
    let answer = tokio::spawn(post(gateway.address, "/", ""));
    upstream.next().await.ok("next").await;
    assert_eq!(answer.await.expect("no panic").body, "next");
}
