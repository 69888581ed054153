//! Serves the gateway's connections, and shuts it down without losing jobs.

use std::{convert::Infallible, pin::pin, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Either, Full};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulConnection, GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_accepted::{Accepted, Jobs, When, store::Store};

use crate::{
    cli::Cli, error::GatewayError, health::HealthCheck, listen, peer::Peer, signals::Signals,
    validate::validate,
};

/// The minimum time to send open responses at the end of a shutdown. Enough to flush finished ones.
const MIN_FLUSH_TIME: Duration = Duration::from_secs(1);

/// The error of a process that a second signal ends.
pub(crate) const SECOND_SIGNAL: &str = "second signal: ended without waiting for unfinished jobs";

/// All that the connections of one gateway share.
#[derive(Debug, Clone)]
pub(crate) struct Gateway<S, St> {
    jobs: Jobs<St>,
    /// The path of the monitor.
    monitor: String,
    /// The layer around the proxy.
    service: S,
    health: Option<HealthCheck>,
    /// Canceled when a shutdown begins.
    draining: CancellationToken,
}

impl<S, St: Store> Gateway<Accepted<S, When, St>, St> {
    /// Creates the gateway that `cli` describes, with the layer around `proxy`.
    pub(crate) fn new(jobs: Jobs<St>, proxy: S, cli: &Cli) -> Self {
        let draining = CancellationToken::new();
        let health = cli.health.as_deref();
        let layer = jobs.layer().when(cli.when()).idempotency(cli.idempotency());
        Self {
            jobs,
            monitor: cli.monitor.clone(),
            service: layer.layer(proxy),
            health: health.map(|prefix| HealthCheck::new(prefix, draining.clone())),
            draining,
        }
    }
}

impl<S, B, St> Gateway<S, St>
where
    St: Store,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Serves until a signal comes, then drains for at most `limit`.
    ///
    /// The listener stays open until the jobs have ended, so that clients can poll the monitor.
    ///
    /// # Errors
    ///
    /// Returns an error on a second signal, without waiting.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        signals: Signals,
        limit: Duration,
    ) -> Result<(), BoxError> {
        let connections = GracefulShutdown::new();
        let mut drained = pin!(self.drain_on_signal(signals, limit));
        let (mut signals, deadline) = loop {
            select! {
                (stream, peer) = listen::accept(&listener) => {
                    let connection = self.connection(stream, Peer(peer.ip()));
                    let connection = connections.watch(connection);
                    tokio::spawn(async move {
                        if let Err(error) = connection.await {
                            tracing::debug!(%error, "connection failed");
                        }
                    });
                }
                drained = &mut drained => break drained?,
            }
        };
        drop(listener);
        let left = deadline.map_or(limit, |end| end.saturating_duration_since(Instant::now()));
        select! {
            closed = timeout(left.max(MIN_FLUSH_TIME), connections.shutdown()) => {
                if closed.is_err() {
                    tracing::warn!("cut open responses at the drain deadline");
                }
                Ok(())
            }
            () = signals.next() => Err(SECOND_SIGNAL.into()),
        }
    }

    /// Waits for a signal, then for the jobs. Returns the drain deadline, or `None`
    /// if it is out of range.
    async fn drain_on_signal(
        &self,
        mut signals: Signals,
        limit: Duration,
    ) -> Result<(Signals, Option<Instant>), BoxError> {
        signals.next().await;
        let deadline = Instant::now().checked_add(limit);
        self.draining.cancel();
        tracing::info!(unfinished = self.jobs.unfinished(), "shutting down");
        select! {
            cut = self.jobs.drain(limit) => match cut {
                0 => tracing::info!("all jobs ended"),
                cut => tracing::warn!(jobs = cut, "cut jobs at the drain deadline"),
            },
            () = signals.next() => return Err(SECOND_SIGNAL.into()),
        }
        Ok((signals, deadline))
    }

    fn connection(
        &self,
        stream: TcpStream,
        peer: Peer,
    ) -> impl GracefulConnection<Error = hyper::Error> + use<S, B, St> {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "failed to set TCP_NODELAY");
        }
        let gateway = self.clone();
        let service = service_fn(move |request| gateway.respond(request, peer));
        http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
    }

    fn respond(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Result<Response<Either<B, Full<Bytes>>>, Infallible>> + use<S, B, St>
    {
        let response = self.route(request, peer);
        async {
            Ok(match response {
                Either::Left(future) => future.await?.map(Either::Left),
                Either::Right(response) => response.map(Either::Right),
            })
        }
    }

    /// Calls the layer, or returns the gateway's own response.
    fn route(
        &self,
        mut request: Request<Incoming>,
        peer: Peer,
    ) -> Either<tower::util::Oneshot<S, Request<Incoming>>, Response<Full<Bytes>>> {
        if let Err(error) = validate(&request) {
            return Either::Right(error.response());
        }
        if let Some(health) = self
            .health
            .as_ref()
            .and_then(|health| health.respond(&request))
        {
            return Either::Right(health);
        }
        if self.draining.is_cancelled() && !self.is_monitor(request.uri().path()) {
            return Either::Right(GatewayError::ShuttingDown.response());
        }
        request.extensions_mut().insert(peer);
        Either::Left(self.service.clone().oneshot(request))
    }

    fn is_monitor(&self, path: &str) -> bool {
        path.strip_prefix(&self.monitor)
            .is_some_and(|rest| rest.starts_with('/'))
    }
}
