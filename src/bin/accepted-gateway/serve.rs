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
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service, ServiceExt};
use tower_accepted::{Jobs, store::Store};

use crate::{entrance, problem::Problem, proxy::Peer, signals::Signals};

/// How long to leave the listener alone when it fails, as it does without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What responses are given to be sent when a shutdown's time is up: enough for what is there already.
const LAST_WORD: Duration = Duration::from_secs(1);

const SECOND_SIGNAL: &str = "ended by a second signal; what was unfinished is lost";

/// One gateway, but for its connections.
#[derive(Debug, Clone)]
pub(crate) struct Gateway<S, St> {
    pub(crate) jobs: Jobs<St>,
    /// The path that the jobs are under.
    pub(crate) monitor: String,
    /// The layer around the proxy.
    pub(crate) service: S,
    pub(crate) draining: CancellationToken,
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
    /// Serves until a signal has come and all is done, or cut after `limit`.
    ///
    /// The listener stays open while jobs are waited for: their clients learn from the monitor what
    /// becomes of them.
    ///
    /// # Errors
    ///
    /// A second signal, which does not wait.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        signals: Signals,
        limit: Duration,
    ) -> Result<(), BoxError> {
        let connections = GracefulShutdown::new();
        let mut drained = pin!(self.drained(signals, limit));
        let (mut signals, deadline) = loop {
            select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let connection = self.connection(stream, Peer(peer.ip()));
                        let connection = connections.watch(connection);
                        tokio::spawn(async move {
                            if let Err(error) = connection.await {
                                tracing::debug!(%error, "a connection broke");
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no connection accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                drained = &mut drained => break drained?,
            }
        };
        drop(listener);
        let left = deadline.map_or(limit, |end| end.saturating_duration_since(Instant::now()));
        select! {
            closed = timeout(left.max(LAST_WORD), connections.shutdown()) => {
                if closed.is_err() {
                    tracing::warn!("responses that took too long were cut");
                }
                Ok(())
            }
            () = signals.next() => Err(SECOND_SIGNAL.into()),
        }
    }

    /// Waits for a signal, then for the jobs.
    async fn drained(
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
                0 => tracing::info!("every job has ended"),
                cut => tracing::warn!(jobs = cut, "jobs that took too long were cut"),
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
            tracing::debug!(%error, "small answers may be late");
        }
        let gateway = self.clone();
        let service = service_fn(move |request| gateway.answer(request, peer));
        http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
    }

    fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Result<Response<Either<B, Full<Bytes>>>, Infallible>> + use<S, B, St>
    {
        let admitted = entrance::admit(&request).and_then(|()| {
            if self.draining.is_cancelled() && !self.is_monitor(request.uri().path()) {
                return Err(Problem::Draining);
            }
            request.extensions_mut().insert(peer);
            Ok(self.service.clone().oneshot(request))
        });
        async {
            Ok(match admitted {
                Ok(response) => response.await?.map(Either::Left),
                Err(problem) => problem.response().map(Either::Right),
            })
        }
    }

    fn is_monitor(&self, path: &str) -> bool {
        path.strip_prefix(&self.monitor)
            .is_some_and(|rest| rest.starts_with('/'))
    }
}
