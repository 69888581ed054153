//! Streams in both directions through the layer: bodies, trailers, upgrades and tunnels.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    sync::mpsc,
    time::sleep,
};
use tower_accepted::{AcceptedLayer, Jobs, When};

use crate::support::*;

on_every_stack!(
    endless_body_passes_through_chunk_by_chunk,
    bodies_pass_through_both_ways_at_once,
    trailers_pass_through_both_ways,
    broken_body_stays_broken,
    broken_output_arrives_whole_and_breaks,
);

on_every_server!(upgraded_connection_passes_through, tunnel_passes_through,);

fn chunk(number: usize) -> Bytes {
    format!("chunk {number}\n").into()
}

/// Reads the next frame of a body.
async fn next<B>(body: &mut B) -> Bytes
where
    B: http_body::Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    let frame = body.frame().await.expect("a frame").expect("no error");
    frame.into_data().expect("data")
}

async fn endless_body_passes_through_chunk_by_chunk(stack: Stack) {
    for (when, method) in [
        (When::Never, "POST"),
        (When::Always, "GET"),
        (When::Preferred, "POST"),
        (AFTER_AN_HOUR, "POST"),
    ] {
        let jobs = Jobs::new();
        let (opened, mut responses) = mpsc::unbounded_channel();
        let inner = move |_| {
            let (frames, body) = channel();
            opened.send(frames).unwrap();
            async { Response::new(body) }
        };
        let mut client = stack.start(jobs.layer().when(when), inner).await;
        let response = client.start(request(method, "/")).await.unwrap();
        let frames = responses.recv().await.unwrap();
        let mut body = response.into_body();
        for number in 0..50 {
            // The next chunk is sent later, so a layer that waited for it would wait forever.
            frames.send(Ok(chunk(number))).unwrap();
            assert_eq!(next(&mut body).await, chunk(number));
        }
        assert_eq!(jobs.unfinished(), 0);
        // The sender notices that the client has stopped reading.
        drop(body);
        frames.closed().await;
    }
}

async fn bodies_pass_through_both_ways_at_once(stack: Stack) {
    let echo = async |request: Request<Body>| Response::new(request.into_body());
    let with = |method, name: &str, value: &str| {
        let mut request = request(method, "/");
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    let mut cases = vec![
        (When::Never, request("POST", "/")),
        (When::Never, with("POST", "prefer", "respond-async")),
        (When::Preferred, with("POST", "prefer", "wait=5")),
        (When::Always, request("GET", "/")),
        (When::Always, with("OPTIONS", "prefer", "respond-async")),
        (
            When::Always,
            with("POST", "content-type", "application/grpc"),
        ),
        (
            AFTER_AN_HOUR,
            with("POST", "content-type", "application/grpc+proto"),
        ),
    ];
    if stack.protocol == Protocol::Http1 {
        // Without it, hyper's client sends no body.
        cases[3].1 = with("GET", "transfer-encoding", "chunked");
        cases.push((When::Always, with("POST", "upgrade", "websocket")));
        cases.push((AFTER_AN_HOUR, with("POST", "upgrade", "h2c, another/1")));
    }
    for (when, request) in cases {
        let mut client = stack.start(AcceptedLayer::new().when(when), echo).await;
        let (frames, body) = channel();
        frames.send(Ok(chunk(0))).unwrap();
        let response = client.start(request.map(|_| body)).await.unwrap();
        let mut body = response.into_body();
        assert_eq!(next(&mut body).await, chunk(0));
        for number in 1..50 {
            frames.send(Ok(chunk(number))).unwrap();
            assert_eq!(next(&mut body).await, chunk(number));
        }
        drop(frames);
        let rest = body.collect().await.unwrap().to_bytes();
        assert_eq!(rest, Bytes::new());
    }
}

async fn trailers_pass_through_both_ways(stack: Stack) {
    let echo = async |request: Request<Body>| {
        let response = Response::builder().header("trailer", "grpc-status");
        response.body(request.into_body()).unwrap()
    };
    let mut client = stack.start(AcceptedLayer::new(), echo).await;
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    let mut request = post("/").map(|_| {
        let trailers = trailers.clone();
        Body::new(Body::from("call").with_trailers(async { Some(Ok(trailers)) }))
    });
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("trailer", "grpc-status"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    // Without it, hyper's client sends a length and no trailers.
    if stack.protocol == Protocol::Http1 {
        let chunked = "chunked".parse().unwrap();
        request.headers_mut().insert("transfer-encoding", chunked);
    }
    let answer = client.send(request).await;
    assert_eq!(
        (answer.text(), answer.trailers.as_ref()),
        ("call", Some(&trailers))
    );
}

async fn broken_body_stays_broken(stack: Stack) {
    let inner = async |_| {
        let (frames, body) = channel();
        frames.send(Ok(chunk(0))).unwrap();
        frames.send(Err(Failed)).unwrap();
        Response::new(body)
    };
    for when in [When::Never, AFTER_AN_HOUR] {
        let mut client = stack.start(AcceptedLayer::new().when(when), inner).await;
        // The server may close the connection before it sends the head.
        if let Ok(response) = client.start(post("/")).await {
            response.into_body().collect().await.expect_err("broken");
        }
    }
}

/// Reads a body until it breaks off, and returns the number of bytes before. A slow reader pauses.
async fn length_before_break(response: Response<hyper::body::Incoming>, is_slow: bool) -> usize {
    let mut body = response.into_body();
    let mut length = 0;
    let mut pause = is_slow.then_some(Duration::from_millis(400));
    loop {
        match body.frame().await.expect("a break, not an end") {
            Ok(frame) => length += frame.data_ref().map_or(0, Bytes::len),
            Err(_) => return length,
        }
        if let Some(pause) = pause.take_if(|_| length > 3 << 20) {
            sleep(pause).await;
        }
    }
}

async fn broken_output_arrives_whole_and_breaks(stack: Stack) {
    for (length, is_slow) in [(5, false), (5 << 20, false), (5 << 20, true)] {
        let (opened, mut responses) = mpsc::unbounded_channel();
        let inner = move |_| {
            let (frames, body) = channel();
            opened.send(frames).unwrap();
            async { Response::new(body) }
        };
        let jobs = Jobs::new();
        let mut client = stack.start(jobs.layer(), inner).await;
        let accepted = client.send(post("/")).await;
        let frames = responses.recv().await.unwrap();
        frames.send(Ok(Bytes::from(vec![b'x'; length]))).unwrap();
        let path = format!("{}/stream", accepted.location());
        let live = client.start(get(&path)).await.unwrap();
        frames.send(Err(Failed)).unwrap();
        assert_eq!(length_before_break(live, is_slow).await, length, "live");
        let mut client = client.another().await;
        assert_eq!(
            client.ended(&accepted).await["partial"]["contentLength"],
            length
        );
        let kept = client.start(get(&path)).await.unwrap();
        assert_eq!(length_before_break(kept, is_slow).await, length, "kept");
    }
}

/// Answers with `status`, then echoes everything on the connection.
async fn switch(mut request: Request<Body>, status: StatusCode) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async {
        let connection = TokioIo::new(upgraded.await.unwrap());
        let (mut read, mut write) = tokio::io::split(connection);
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let headers = response.headers_mut();
        headers.insert("connection", "upgrade".parse().unwrap());
        headers.insert("upgrade", "echo".parse().unwrap());
    }
    response
}

/// Sends a head, then lines, and expects each line back before it sends the next.
async fn converse(address: SocketAddr, head: &str, status: &str) {
    let mut stream = BufStream::new(TcpStream::connect(address).await.unwrap());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.starts_with(status), "{line}");
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
    }
    for number in 0..10 {
        stream.write_all(&chunk(number)).await.unwrap();
        stream.flush().await.unwrap();
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        assert_eq!(line.as_bytes(), chunk(number));
    }
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

async fn upgraded_connection_passes_through(server: Server) {
    let inner = |request| switch(request, StatusCode::SWITCHING_PROTOCOLS);
    for (when, method) in [
        (When::Always, "GET"),
        (When::Always, "POST"),
        (AFTER_AN_HOUR, "POST"),
    ] {
        let address = server.serve(AcceptedLayer::new().when(when), inner).await;
        let head = format!(
            "{method} / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"
        );
        converse(address, &head, "HTTP/1.1 101 ").await;
    }
}

async fn tunnel_passes_through(server: Server) {
    let inner = |request| switch(request, StatusCode::OK);
    for when in [When::Always, AFTER_AN_HOUR] {
        let address = server.serve(AcceptedLayer::new().when(when), inner).await;
        let head = "CONNECT example.com:80 HTTP/1.1\r\nhost: example.com:80\r\n\r\n";
        converse(address, head, "HTTP/1.1 200 ").await;
    }
}
