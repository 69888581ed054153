//! Clients and upstreams that attack the gateway.

use crate::{
    client::{get, raw},
    program::Program,
    upstream::Upstream,
};

/// Sends bytes that must not reach the upstream, and returns the response.
async fn send_rejected(gateway: &Program, upstream: &mut Upstream, bytes: &[u8]) -> String {
    let answer = raw(gateway.address, bytes).await;
    assert_no_request(gateway, upstream).await;
    answer
}

/// Asserts that the next request of the upstream is one sent now, so that nothing came before it.
async fn assert_no_request(gateway: &Program, upstream: &mut Upstream) {
    let address = gateway.address;
    let next = tokio::spawn(async move { get(address, "/next").await });
    let received = upstream.next().await;
    assert_eq!(received.line, "GET /next HTTP/1.1");
    received.ok("").await;
    next.await.expect("no panic");
}

#[tokio::test]
async fn authority_of_the_target_replaces_host() {
    let mut upstream = Upstream::start().await;
    let elsewhere = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--after-ms", "3600000"]).await;
    let address = gateway.address;
    let elsewhere = elsewhere.address;
    for (line, fields, host, target) in [
        (
            format!("GET http://{elsewhere}/inside?a=b HTTP/1.1"),
            "Host: shop.example\r\n",
            elsewhere.to_string(),
            "GET /inside?a=b HTTP/1.1",
        ),
        (
            "POST HTTP://Shop.example:80/a HTTP/1.1".to_owned(),
            "Host: shop.example\r\nContent-Length: 0\r\n",
            "Shop.example:80".to_owned(),
            "POST /a HTTP/1.1",
        ),
        (
            "GET http://shop.example HTTP/1.0".to_owned(),
            "",
            "shop.example".to_owned(),
            "GET / HTTP/1.1",
        ),
    ] {
        let ask = format!("{line}\r\n{fields}Connection: close\r\n\r\n");
        let client = tokio::spawn(async move { raw(address, ask.as_bytes()).await });
        let received = upstream.next().await;
        assert_eq!(received.line, target);
        assert_eq!(received.all("host"), [&host]);
        assert_eq!(received.all("x-forwarded-host"), [&host]);
        received.ok("ours").await;
        assert!(client.await.expect("no panic").ends_with("ours"));
    }
}

#[tokio::test]
async fn connection_removes_only_hop_by_hop_headers() {
    let mut upstream = Upstream::start().await;
    let flags = ["--after-ms", "3600000", "--owner-header", "X-User"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let address = gateway.address;
    let ask = b"POST / HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer 1\r\n\
        Content-Length: 4\r\nContent-Type: text/plain\r\nX-Forwarded-For: 192.0.2.1\r\n\
        Connection: Host, Authorization , content-length,Content-Type,, not a name, close\r\n\
        Connection: X-Hop, X-Forwarded-For, TE\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
        Connection: x-user, Cookie, idempotency-key, Origin, Sec-Fetch-Site\r\nX-User: me\r\n\
        Cookie: a=b\r\nOrigin: null\r\nSec-Fetch-Site: cross-site\r\n\
        Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\nTE: gzip\r\n\
        X-End: 1\r\n\r\nbody";
    let client = tokio::spawn(async move { raw(address, ask).await });
    let received = upstream.next().await;
    for (name, values) in [
        ("host", &["shop.example"][..]),
        ("authorization", &["Bearer 1"]),
        ("content-length", &["4"]),
        ("content-type", &["text/plain"]),
        ("x-forwarded-for", &["192.0.2.1, 127.0.0.1"]),
        ("x-user", &["me"]),
        ("cookie", &["a=b"]),
        ("origin", &["null"]),
        ("sec-fetch-site", &["cross-site"]),
        ("x-end", &["1"]),
        ("x-hop", &[]),
        ("connection", &["close"]),
        ("keep-alive", &[]),
        ("proxy-connection", &[]),
        ("proxy-authorization", &[]),
        ("te", &[]),
    ] {
        assert_eq!(received.all(name), values, "{name}");
    }
    assert_eq!(received.body, b"body");
    let answer = "HTTP/1.1 200 OK\r\nConnection: Content-Type, X-Hop\r\nX-Hop: 1\r\n\
        Content-Type: text/plain\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n\
        Proxy-Authenticate: Basic\r\nX-End: 1\r\nContent-Length: 2\r\n\r\nhi";
    received.answer(answer).await;
    let answer = client.await.expect("no panic");
    assert!(
        answer.contains("\r\ncontent-type: text/plain\r\n"),
        "{answer}"
    );
    assert!(answer.contains("\r\nx-end: 1\r\n"), "{answer}");
    for removed in ["x-hop", "keep-alive", "upgrade", "proxy-authenticate"] {
        assert!(!answer.contains(removed), "{removed}: {answer}");
    }
}

#[tokio::test]
async fn request_framed_twice_ends_its_connection() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--after-ms", "3600000"]).await;
    let address = gateway.address;
    for framing in [
        "Content-Length: 44\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 44",
    ] {
        let ask = format!(
            "POST /first HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n0\r\n\r\n\
             GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let client = tokio::spawn(async move { raw(address, ask.as_bytes()).await });
        let received = upstream.next().await;
        assert_eq!(received.line, "POST /first HTTP/1.1");
        assert_eq!(received.body, b"");
        assert_eq!(
            received.all("transfer-encoding").len() + received.all("content-length").len(),
            1
        );
        received.ok("first").await;
        let answer = client.await.expect("no panic");
        assert!(answer.ends_with("first"), "{answer}");
        assert_no_request(&gateway, &mut upstream).await;
    }
}

#[tokio::test]
async fn ambiguous_request_is_rejected() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--after-ms", "3600000"]).await;
    for (line, fields) in [
        (
            "POST / HTTP/1.1",
            "Host: a\r\nContent-Length: 1\r\nContent-Length: 2",
        ),
        ("POST / HTTP/1.1", "Host: a\r\nContent-Length: 1, 2"),
        ("POST / HTTP/1.1", "Host: a\r\nContent-Length: +1"),
        ("POST / HTTP/1.1", "Host: a\r\nContent-Length: 0x1"),
        ("POST / HTTP/1.1", "Host: a\r\nContent-Length : 1"),
        (
            "POST / HTTP/1.1",
            "Host: a\r\nTransfer-Encoding: chunked, identity",
        ),
        ("POST / HTTP/1.1", "Host: a\r\nTransfer-Encoding: xchunked"),
        (
            "POST / HTTP/1.1",
            "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip",
        ),
        ("POST / HTTP/1.1", "Host: a\r\nTransfer-Encoding : chunked"),
        ("POST / HTTP/1.0", "Host: a\r\nTransfer-Encoding: chunked"),
        ("GET / HTTP/1.1", "Host: a\r\nX: 1\r\n folded"),
        ("GET / HTTP/1.1", "Accept: */*"),
        ("GET / HTTP/1.1", "Host: a\r\nHost: b"),
        ("GET / HTTP/1.1", "Host: a, b"),
        ("GET / HTTP/1.1", "Host: a/b"),
        ("GET / HTTP/1.1", "Host: user@a"),
        ("GET / HTTP/1.1", "Host:"),
        ("GET a:80 HTTP/1.1", "Host: a"),
        ("GET http://user:password@a/ HTTP/1.1", "Host: a"),
        ("GET http://:80/ HTTP/1.1", "Host: a"),
        ("GET ftp://a/ HTTP/1.1", "Host: a"),
        ("GET http://a/ HTTP/1.1", "Accept: */*"),
        ("GET http://a/ HTTP/1.1", "Host: a\r\nHost: b"),
        ("GET * HTTP/1.1", "Host: a"),
        ("POST * HTTP/1.1", "Host: a"),
        ("GET  / HTTP/1.1", "Host: a"),
        ("GET / x HTTP/1.1", "Host: a"),
    ] {
        let ask = format!("{line}\r\n{fields}\r\n\r\n0\r\n\r\n");
        let answer = send_rejected(&gateway, &mut upstream, ask.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") || answer.is_empty(),
            "{ask:?}: {answer}"
        );
    }
}

#[tokio::test]
async fn unknown_transfer_coding_is_rejected() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--always"]).await;
    for coding in [
        "gzip, chunked",
        "chunked, chunked",
        "gzip\r\nTransfer-Encoding: chunked",
    ] {
        let ask =
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n");
        let answer = send_rejected(&gateway, &mut upstream, ask.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 501 Not Implemented\r\n"),
            "{coding}: {answer}"
        );
    }
}

#[tokio::test]
async fn connect_is_rejected() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--always"]).await;
    let target = upstream.address;
    let ask = format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n\
         GET /through HTTP/1.1\r\nHost: a\r\n\r\n"
    );
    let answer = send_rejected(&gateway, &mut upstream, ask.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 501 Not Implemented\r\n"),
        "{answer}"
    );
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

#[tokio::test]
async fn response_framed_twice_is_forwarded_framed_once() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &[]).await;
    let ask = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let client = tokio::spawn(async move { raw(gateway.address, ask).await });
    let twice = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n0\r\n\r\n";
    upstream.next().await.answer(twice).await;
    let answer = client.await.expect("no panic");
    assert!(
        answer.contains("\r\ntransfer-encoding: chunked\r\n"),
        "{answer}"
    );
    assert!(!answer.contains("content-length"), "{answer}");
    assert!(answer.ends_with("\r\n3\r\nabc\r\n0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn forwarding_loop_is_stopped() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &[]).await;
    let hops = ["1.1 tower-accepted"; 8].join(", ");
    let ask = format!("GET / HTTP/1.1\r\nHost: a\r\nVia: {hops}\r\nConnection: close\r\n\r\n");
    let answer = send_rejected(&gateway, &mut upstream, ask.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 508 Loop Detected\r\n"),
        "{answer}"
    );
}
