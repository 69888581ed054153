//! Listeners: binds them, accepts connections, and serves the small servers beside the gateway.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tower::BoxError;

/// The maximum number of connections to the resources of operators: metrics and health.
pub(crate) const MAX_OPERATOR_CONNECTIONS: usize = 16;

/// The time limit for the head of a request to such a resource.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause after a failed accept. Out of file descriptors, the next accept fails at once.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Binds a listener to `address`.
///
/// # Errors
///
/// Returns an error that names the address.
pub(crate) async fn bind(address: &str) -> Result<TcpListener, BoxError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}").into())
}

/// Returns the next connection. Retries after errors. Cancel safe.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "failed to accept connection");
                sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

/// Serves `handler` over HTTP/1.1 in background tasks, until the process ends. At most `max`
/// connections are open at a time.
pub(crate) fn spawn_server<F, B>(
    listener: TcpListener,
    max: usize,
    handler: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
    tokio::spawn(async move {
        loop {
            // The semaphore is never closed.
            let slot = slots.clone().acquire_owned().await.ok();
            let (stream, _) = accept(&listener).await;
            let handler = handler.clone();
            let service = service_fn(move |request| {
                let response = handler(request);
                async { Ok::<_, Infallible>(response.await) }
            });
            // One request for each connection: idle ones keep no other client out.
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "connection failed");
                }
                drop(slot);
            });
        }
    });
}
