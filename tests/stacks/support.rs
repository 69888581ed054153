//! Servers on free ports, clients with one connection each, and the helpers of `tests/layer`.

use std::{
    convert::Infallible,
    future::{Future, pending},
    net::{Shutdown, SocketAddr, TcpStream as Socket},
    pin::Pin,
    time::Duration,
};

use axum::{Router, routing::MethodRouter};
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, Uri, header, uri::Authority};
use http_body_util::BodyExt;
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
use tower_accepted::{AcceptedLayer, Jobs, Policy, RequestBody, When};

#[path = "../layer/support.rs"]
#[allow(dead_code, reason = "the test `layer` uses all of it")]
mod in_process;

pub(crate) use in_process::*;

pub(crate) const REPORT: &str =
    "a report that is long enough to be worth compressing, and that was slow to make";

/// Becomes a job later than any test takes.
pub(crate) const AFTER_AN_HOUR: When = When::After(Duration::from_secs(3600));

/// A handler that takes two seconds.
pub(crate) async fn render() -> (StatusCode, &'static str) {
    sleep(Duration::from_secs(2)).await;
    (StatusCode::CREATED, REPORT)
}

/// Routes `POST` to [`render`].
pub(crate) fn slow() -> MethodRouter {
    axum::routing::post(render)
}

/// An inner service that returns the request's body.
pub(crate) async fn echo(request: Request<Body>) -> Response<Body> {
    let body = request.into_body().collect().await.expect("a whole body");
    Response::new(Body::from(body.to_bytes()))
}

/// Creates an inner service that never answers, and counters of its calls and of dropped calls.
pub(crate) fn hanging() -> (
    impl Fn(Request<Body>) -> HangingCall + Clone,
    Counter,
    Counter,
) {
    let (calls, drops) = (Counter::default(), Counter::default());
    let inner = {
        let (calls, drops) = (calls.clone(), drops.clone());
        move |_| {
            calls.up();
            let dropped = OnDrop(drops.clone());
            Box::pin(async {
                let _dropped = dropped;
                pending().await
            }) as HangingCall
        }
    };
    (inner, calls, drops)
}

type HangingCall = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A server and the protocol of its clients.
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

/// Runs each function as a test on every stack.
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

/// Runs each function as a test on every server. The function chooses the protocol.
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
    /// Serves `inner` behind `layer` and connects a client.
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
                            // Fails when a test disconnects, which is not an error here.
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

/// A client with one connection.
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
                close_after(connection, &socket);
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let executor = TokioExecutor::new();
                let (sender, connection) = http2::handshake(executor, stream).await.unwrap();
                close_after(connection, &socket);
                Sender::Http2(sender)
            }
        };
        Self {
            address,
            sender,
            socket,
        }
    }

    /// Opens another connection to the same server.
    pub(crate) async fn another(&self) -> Self {
        let protocol = match self.sender {
            Sender::Http1(_) => Protocol::Http1,
            Sender::Http2(_) => Protocol::Http2,
        };
        Self::connect(self.address, protocol).await
    }

    /// Returns a handle that closes the connection during a request.
    pub(crate) fn closer(&self) -> Closer {
        Closer(self.socket.try_clone().unwrap())
    }

    /// Sends a request and returns the response as soon as its head has arrived.
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

    /// Waits until the connection has ended. A request that is sent in the same moment may wait
    /// forever, since hyper's channel then keeps it.
    pub(crate) async fn closed(&self) {
        until(|| match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        })
        .await;
    }

    pub(crate) async fn send(&mut self, request: Request<Body>) -> Answer {
        Answer::read(self.start(request).await.expect("a response")).await
    }

    /// Polls the monitor until the job has ended, regardless of `Retry-After`.
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

/// Closes a connection.
pub(crate) struct Closer(Socket);

/// Drives a connection, then closes its socket, which the other handles would keep open.
fn close_after(connection: impl Future + Send + 'static, socket: &Socket) {
    let closer = Closer(socket.try_clone().unwrap());
    tokio::spawn(async {
        connection.await;
        closer.close();
    });
}

impl Closer {
    pub(crate) fn close(self) {
        // Fails if the server has closed the connection first.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Creates a body and the sender of its frames.
pub(crate) fn channel() -> (mpsc::UnboundedSender<Result<Bytes, Failed>>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let frames = stream::unfold(receiver, async |mut receiver| {
        let frame = receiver.recv().await?;
        Some((frame, receiver))
    });
    (sender, Body::from_stream(frames))
}

/// Waits until `condition` holds.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            yield_now().await;
        }
    };
    let patience = Duration::from_secs(60);
    timeout(patience, wait).await.expect("the condition holds");
}

/// Waits until the registry has charged `bytes`.
pub(crate) async fn until_charged(jobs: &Jobs, bytes: usize) {
    let field = format!("used: {bytes},");
    until(|| format!("{jobs:?}").contains(&field)).await;
}

/// Waits until the registry has no job, no charged byte and no permit in use.
pub(crate) async fn nothing_is_left(jobs: &Jobs) {
    until(|| {
        let state = format!("{jobs:?}");
        let empty = ["jobs: 0", "used: 0", "acquired: 0"];
        empty.iter().all(|field| state.contains(field))
    })
    .await;
}
