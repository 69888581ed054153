//! Servers on free ports and clients with a connection of their own, besides what talks to a
//! service in process.

use std::{
    convert::Infallible,
    future::Future,
    net::{Shutdown, SocketAddr, TcpStream as Socket},
    time::Duration,
};

use axum::{Router, routing::MethodRouter};
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, Uri, header, uri::Authority};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::yield_now,
    time::{sleep, timeout},
};
use tower::{Layer, service_fn};
use tower_accepted::{AcceptedLayer, Jobs, Policy, RequestBody};

#[path = "../layer/support.rs"]
#[allow(dead_code, reason = "another test's, which uses all of it")]
mod in_process;

pub(crate) use in_process::*;

pub(crate) const REPORT: &str =
    "a report that is long enough to be worth compressing, and that was slow to make";

/// A handler that takes two seconds.
pub(crate) async fn render() -> (StatusCode, &'static str) {
    sleep(Duration::from_secs(2)).await;
    (StatusCode::CREATED, REPORT)
}

/// A route for it.
pub(crate) fn slow() -> MethodRouter {
    axum::routing::post(render)
}

/// What listens, and what is spoken with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stack {
    pub(crate) server: Server,
    pub(crate) protocol: Protocol,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Server {
    Axum,
    Hyper,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Makes of each function a test on every stack.
macro_rules! on_every_stack {
    ($($test:ident),+ $(,)?) => {
        $crate::support::on_every_stack!(@ axum_http1, Axum, Http1, $($test),+);
        $crate::support::on_every_stack!(@ axum_http2, Axum, Http2, $($test),+);
        $crate::support::on_every_stack!(@ hyper_http1, Hyper, Http1, $($test),+);
        $crate::support::on_every_stack!(@ hyper_http2, Hyper, Http2, $($test),+);
    };
    (@ $module:ident, $server:ident, $protocol:ident, $($test:ident),+) => {
        mod $module {
            use $crate::support::{Protocol, Server, Stack};

            const STACK: Stack = Stack {
                server: Server::$server,
                protocol: Protocol::$protocol,
            };

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(STACK).await;
            })+
        }
    };
}
pub(crate) use on_every_stack;

/// Makes of each function a test on every server, for what is about HTTP/1 alone.
macro_rules! on_every_server {
    ($($test:ident),+ $(,)?) => {
        $crate::support::on_every_server!(@ on_axum, Axum, $($test),+);
        $crate::support::on_every_server!(@ on_hyper, Hyper, $($test),+);
    };
    (@ $module:ident, $server:ident, $($test:ident),+) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::support::Server::$server).await;
            })+
        }
    };
}
pub(crate) use on_every_server;

impl Stack {
    /// Serves `inner` behind `layer`, and connects a client to it.
    pub(crate) async fn start<P, F, Fut>(self, layer: AcceptedLayer<P>, inner: F) -> Client
    where
        P: Policy + Clone + Send + Sync + 'static,
        F: Fn(Request<Body>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<Body>> + Send + 'static,
    {
        let address = self.server.serve(layer, inner).await;
        Client::connect(address, self.protocol).await
    }
}

impl Server {
    /// Serves `inner` behind `layer` on a free port, until the test's runtime ends.
    pub(crate) async fn serve<P, F, Fut>(self, layer: AcceptedLayer<P>, inner: F) -> SocketAddr
    where
        P: Policy + Clone + Send + Sync + 'static,
        F: Fn(Request<Body>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        match self {
            Self::Axum => {
                let app = Router::new().fallback(inner).layer(layer);
                tokio::spawn(axum::serve(listener, app).into_future());
            }
            Self::Hyper => {
                let inner = service_fn(move |request: Request<RequestBody<Incoming>>| {
                    let response = inner(request.map(Body::new));
                    async { Ok::<_, Infallible>(response.await) }
                });
                let service = TowerToHyperService::new(layer.layer(inner));
                tokio::spawn(async move {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        let service = service.clone();
                        tokio::spawn(async move {
                            // A test that hangs up breaks it, and that is no failure here.
                            let _ = auto::Builder::new(TokioExecutor::new())
                                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                                .await;
                        });
                    }
                });
            }
        }
        address
    }
}

/// One connection.
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    sender: Sender,
    socket: Socket,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, protocol: Protocol) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = stream.into_std().unwrap();
        let socket = stream.try_clone().unwrap();
        let stream = TokioIo::new(TcpStream::from_std(stream).unwrap());
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await.unwrap();
                hang_up_after(connection, &socket);
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let executor = TokioExecutor::new();
                let (sender, connection) = http2::handshake(executor, stream).await.unwrap();
                hang_up_after(connection, &socket);
                Sender::Http2(sender)
            }
        };
        Self {
            address,
            sender,
            socket,
        }
    }

    /// Another connection to the same server.
    pub(crate) async fn another(&self) -> Self {
        let protocol = match self.sender {
            Sender::Http1(_) => Protocol::Http1,
            Sender::Http2(_) => Protocol::Http2,
        };
        Self::connect(self.address, protocol).await
    }

    /// What hangs up, whatever is under way on the connection.
    pub(crate) fn line(&self) -> Line {
        Line(self.socket.try_clone().unwrap())
    }

    /// Sends a request and returns what comes, as soon as its head is there.
    pub(crate) async fn start(
        &mut self,
        mut request: Request<Body>,
    ) -> hyper::Result<Response<Incoming>> {
        let authority: Authority = self.address.to_string().parse().unwrap();
        match &mut self.sender {
            Sender::Http1(sender) => {
                let host = authority.as_str().parse().unwrap();
                request.headers_mut().insert(header::HOST, host);
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                let mut uri = request.uri().clone().into_parts();
                uri.scheme = Some(http::uri::Scheme::HTTP);
                uri.authority = Some(authority);
                *request.uri_mut() = Uri::from_parts(uri).unwrap();
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    pub(crate) async fn send(&mut self, request: Request<Body>) -> Answer {
        Answer::read(self.start(request).await.expect("a response")).await
    }

    /// Asks the monitor until the job has ended, without the rests that it asks for.
    pub(crate) async fn ended(&mut self, accepted: &Answer) -> Value {
        loop {
            let answer = self.send(get(accepted.location())).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            let document = answer.json();
            if !["queued", "running"].contains(&document["status"].as_str().unwrap()) {
                return document;
            }
        }
    }

    pub(crate) async fn result(&mut self, accepted: &Answer) -> Answer {
        self.send(get(&format!("{}/result", accepted.location())))
            .await
    }
}

/// The line that a connection is on.
pub(crate) struct Line(Socket);

/// Runs a connection and ends its line with it, which the other handles of the socket keep open.
fn hang_up_after(connection: impl Future + Send + 'static, socket: &Socket) {
    let line = Line(socket.try_clone().unwrap());
    tokio::spawn(async {
        connection.await;
        line.cut();
    });
}

impl Line {
    pub(crate) fn cut(self) {
        // An error says that the other end was faster.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A body whose frames are sent while it is being read.
pub(crate) fn channel() -> (mpsc::UnboundedSender<Result<Bytes, Failed>>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let frames = stream::unfold(receiver, async |mut receiver| {
        let frame = receiver.recv().await?;
        Some((frame, receiver))
    });
    (sender, Body::from_stream(frames))
}

/// Waits for what has to come true and does not tell when.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            yield_now().await;
        }
    };
    let too_long = Duration::from_secs(60);
    timeout(too_long, wait).await.expect("it never came true");
}

/// Waits until nothing of any request is left: no job, no byte and nothing that runs.
pub(crate) async fn nothing_is_left(jobs: &Jobs) {
    until(|| {
        let left = format!("{jobs:?}");
        let nothing = ["jobs: 0", "used: 0", "unfinished: 0"];
        nothing.iter().all(|nothing| left.contains(nothing))
    })
    .await;
}
