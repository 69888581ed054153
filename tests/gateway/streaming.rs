//! Responses that are streamed as jobs.

use crate::{
    client::{get, open, read_until, result},
    flags::preferring,
    program::Program,
    upstream::Upstream,
};

#[tokio::test]
async fn streamed_response_outlives_its_connection() {
    let mut upstream = Upstream::start().await;
    let flags = ["--streamed", "--cors-origin", "https://app.example"];
    let gateway = Program::gateway(upstream.address, &flags).await;
    let request = b"POST /export HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example\r\n\r\n";
    let mut client = open(gateway.address, request).await;
    let mut received = upstream.next().await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: 13\r\n\r\n";
    received.write(head.as_bytes()).await;
    received.write(b"first, ").await;
    let begun = read_until(&mut client, "first, ").await;
    drop(client);
    assert!(
        begun.contains("\r\naccess-control-expose-headers: link\r\n"),
        "{begun}"
    );
    let (_, link) = begun.split_once("link: <").expect("a link");
    let (monitor, _) = link.split_once(">; rel=\"monitor\"").expect("the monitor");
    received.answer(b"second").await;
    let rest = get(gateway.address, &format!("{monitor}/stream?offset=7")).await;
    assert_eq!(rest.body, "second");
    let whole = result(gateway.address, monitor).await;
    assert_eq!(whole.body, "first, second");
    let accepted = preferring(&gateway, "respond-async").await;
    upstream.next().await.ok("later").await;
    assert_eq!(result(gateway.address, &accepted.job()).await.body, "later");
}
