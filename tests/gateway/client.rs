//! An HTTP client with one connection for each request, and one that sends raw bytes.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A response with its complete body.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    /// Returns all values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let values = self.headers.get_all(name).iter();
        values.map(|value| value.to_str().expect("text")).collect()
    }

    /// Returns the value of a header. Panics if there are several.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() < 2, "more than one {name}");
        values.first().copied()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Returns whether this is the status document of an unfinished job. A job that was just
    /// accepted may still be queued.
    pub(crate) fn is_unfinished(&self) -> bool {
        matches!(self.json()["status"].as_str(), Some("queued" | "running"))
    }

    /// Returns the path of the monitor. Panics unless this is a 202.
    pub(crate) fn job(&self) -> String {
        assert_eq!(self.status, StatusCode::ACCEPTED, "{self:?}");
        self.header("location").expect("a Location").to_owned()
    }
}

pub(crate) async fn get(server: SocketAddr, path: &str) -> Answer {
    send(
        server,
        request("GET", path)
            .body(Full::default())
            .expect("a request"),
    )
    .await
}

pub(crate) async fn post(server: SocketAddr, path: &str, body: &'static str) -> Answer {
    send(
        server,
        request("POST", path).body(body.into()).expect("a request"),
    )
    .await
}

pub(crate) fn request(method: &str, path: &str) -> http::request::Builder {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    Request::builder().method(method).uri(path)
}

/// Sends a request on a connection of its own, with the `Host` `program.example` by default.
pub(crate) async fn send(server: SocketAddr, mut request: Request<Full<Bytes>>) -> Answer {
    let host = "program.example".parse().expect("a value");
    request.headers_mut().entry(HOST).or_insert(host);
    let stream = TcpStream::connect(server).await.expect("a listener");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.expect("a response");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body");
    drop(sender);
    // An error comes after the complete response: the server closed the connection.
    let _ = connection.await.expect("no panic");
    Answer {
        status: head.status,
        headers: head.headers,
        trailers: body.trailers().cloned(),
        body: body.to_bytes(),
    }
}

/// Polls the monitor until the job ends, and returns its last document.
pub(crate) async fn ended(server: SocketAddr, job: &str) -> Value {
    loop {
        let answer = get(server, job).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        if !answer.is_unfinished() {
            return answer.json();
        }
    }
}

/// Polls the monitor until the job ends, and returns its result.
pub(crate) async fn result(server: SocketAddr, job: &str) -> Answer {
    ended(server, job).await;
    get(server, &format!("{job}/result")).await
}

/// Sends bytes and reads until the server closes the connection.
pub(crate) async fn raw(server: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = open(server, bytes).await;
    let mut answer = Vec::new();
    // A server that closes with unread bytes resets the connection. The bytes before that count.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends bytes and returns the open connection.
pub(crate) async fn open(server: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server).await.expect("a listener");
    stream.write_all(bytes).await.expect("sent");
    stream
}

/// Reads until `end` arrives.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(end) {
        let byte = stream.read_u8().await;
        read.push(
            byte.unwrap_or_else(|error| {
                panic!("{error} after {:?}", String::from_utf8_lossy(&read))
            }),
        );
    }
    String::from_utf8(read).expect("text")
}
