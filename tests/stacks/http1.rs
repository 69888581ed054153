//! HTTP/1 byte for byte: chunks, `100 Continue`, pipelining, HTTP/1.0 and an offer of h2c.

use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower_accepted::{AcceptedLayer, Jobs};

use crate::support::*;

on_every_server!(
    malformed_chunk_gets_400,
    half_closed_upload_leaves_nothing,
    continue_100_is_sent_only_for_a_wanted_body,
    pipelined_requests_are_each_accepted,
    http_1_0_client_is_served,
    result_with_trailers_is_sent_in_chunks,
    request_that_offers_h2c_is_accepted,
);

/// Sends `text` and returns everything that the server sends until it closes the connection.
async fn exchange(server: Server, jobs: &Jobs, text: &str) -> String {
    let address = server.serve(jobs.layer(), echo).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn malformed_chunk_gets_400(server: Server) {
    let jobs = Jobs::new();
    let answer = exchange(
        server,
        &jobs,
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("body-broken"), "{answer}");
    nothing_is_left(&jobs).await;
}

async fn half_closed_upload_leaves_nothing(server: Server) {
    let jobs = Jobs::new();
    let address = server.serve(jobs.layer(), echo).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 15\r\n\r\nthe first half";
    stream.write_all(text.as_bytes()).await.unwrap();
    until_charged(&jobs, 14).await;
    // Closes the sending half only, so that it can still read an answer.
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
        "{answer}"
    );
    nothing_is_left(&jobs).await;
}

async fn continue_100_is_sent_only_for_a_wanted_body(server: Server) {
    let jobs = Jobs::builder().max_body(50).build();
    let address = server.serve(jobs.layer(), echo).await;
    let head = |length| {
        format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\n\
             content-length: {length}\r\n\r\n"
        )
    };
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head(4).as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");

    let answer = exchange(server, &jobs, &head(51)).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

async fn pipelined_requests_are_each_accepted(server: Server) {
    let one = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody";
    let last = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = exchange(server, &Jobs::new(), &[one, one, last].concat()).await;
    assert_eq!(
        answer.matches("HTTP/1.1 202 Accepted").count(),
        3,
        "{answer}"
    );
}

async fn http_1_0_client_is_served(server: Server) {
    let jobs = Jobs::new();
    let request = "POST / HTTP/1.0\r\ncontent-length: 4\r\n\r\nbody";
    let answer = exchange(server, &jobs, request).await;
    assert!(answer.starts_with("HTTP/1.0 202 "), "{answer}");
    assert!(answer.contains("\r\ncontent-length: "), "{answer}");
}

async fn result_with_trailers_is_sent_in_chunks(server: Server) {
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

async fn request_that_offers_h2c_is_accepted(server: Server) {
    let address = server.serve(AcceptedLayer::new(), echo).await;
    let mut client = Client::connect(address, Protocol::Http1).await;
    // The fields that Java's HttpClient and `curl --http2` send with their first request.
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
