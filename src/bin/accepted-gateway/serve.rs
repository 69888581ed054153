//! Serves the gateway's connections, and shuts it down without losing jobs.

use std::{convert::Infallible, pin::pin, process::ExitCode, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Request, Response,
    header::{LINK, ORIGIN},
};
use http_body_util::{Either, Full};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{rt::TokioTimer, server::graceful::GracefulConnection};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Layer, Service, ServiceExt, util::Oneshot};
use tower_accepted::{Accepted, AcceptedLayer, Jobs, When, store::Store};

use crate::{
    body::ClientBody,
    connections::{Activity, Connections},
    cors::{Cors, FromUpstream},
    error::GatewayError,
    health::HealthCheck,
    hold::HoldBody,
    listen,
    normalize::normalize,
    peer::Peer,
    signals::Signals,
    stream::ClientStream,
};

/// The minimum time to send open responses at the end of a shutdown. Enough to flush finished ones.
const MIN_FLUSH_TIME: Duration = Duration::from_secs(1);

/// The error of a process that a second signal ends.
const SECOND_SIGNAL: &str = "second signal: ended without waiting for unfinished jobs";

/// The exit status of a shutdown that cut jobs. clap exits with 2.
const JOBS_CUT: u8 = 3;

/// The outcome of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "jobs that were cut make the process fail"]
pub(crate) enum Shutdown {
    /// All jobs ended by themselves.
    Complete,
    /// Jobs were unfinished at the deadline.
    JobsCut,
}

impl From<Shutdown> for ExitCode {
    fn from(shutdown: Shutdown) -> Self {
        match shutdown {
            Shutdown::Complete => Self::SUCCESS,
            Shutdown::JobsCut => Self::from(JOBS_CUT),
        }
    }
}

/// All that the connections of one gateway share.
#[derive(Debug, Clone)]
pub(crate) struct Gateway<S, D, St> {
    jobs: Jobs<St>,
    /// The layer around the proxy.
    service: S,
    /// The proxy alone, for requests that never become jobs: these must not wait for jobs.
    direct: D,
    options: Arc<GatewayOptions>,
    health: Option<HealthCheck>,
    /// Canceled when a shutdown begins.
    draining: CancellationToken,
}

/// The settings of connections and requests.
#[derive(Debug)]
pub(crate) struct GatewayOptions {
    /// The prefix of the health resources.
    pub(crate) health: Option<String>,
    /// The path of the monitor.
    pub(crate) monitor: String,
    /// The header that names the owner of a job.
    pub(crate) owner: Option<HeaderName>,
    /// Set if a GET with a preference can become a job.
    pub(crate) accepts_gets: bool,
    pub(crate) cors: Option<Cors>,
    pub(crate) idle_timeout: Duration,
    /// The maximum number of fields in the head of a request; `None` for hyper's default.
    pub(crate) max_fields: Option<usize>,
    pub(crate) max_connections: usize,
    /// Set if jobs outlive this process.
    pub(crate) has_durable_jobs: bool,
}

/// A response on its way.
enum Routed<S: Service<Request<ClientBody>>, D: Service<Request<ClientBody>>> {
    Layer(Oneshot<S, Request<ClientBody>>),
    Direct(Oneshot<D, Request<ClientBody>>),
    Own(Response<Full<Bytes>>),
}

/// The response of the layer, of the proxy, or of the gateway itself.
type GatewayResult<B, C> = Result<Response<Either<B, Either<C, Full<Bytes>>>>, Infallible>;

impl<S, D, St: Store> Gateway<Accepted<S, When, St>, D, St> {
    /// Creates a gateway with `layer` around `proxy`. `direct` is the proxy without a limit.
    pub(crate) fn new(
        jobs: Jobs<St>,
        layer: AcceptedLayer<When, St>,
        proxy: S,
        direct: D,
        options: GatewayOptions,
    ) -> Self {
        let draining = CancellationToken::new();
        let health = options.health.as_deref();
        Self {
            jobs,
            service: layer.layer(proxy),
            direct,
            health: health.map(|prefix| HealthCheck::new(prefix, draining.clone())),
            options: Arc::new(options),
            draining,
        }
    }
}

impl<S, D, B, C, St> Gateway<S, D, St>
where
    St: Store,
    S: Service<Request<ClientBody>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    D: Service<Request<ClientBody>, Response = Response<C>, Error = Infallible>,
    D: Clone + Send + 'static,
    D::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    C: Body<Data = Bytes> + Send + 'static,
    C::Error: Into<BoxError>,
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
    ) -> Result<Shutdown, BoxError> {
        let mut connections = Connections::new(self.options.max_connections);
        let mut drained = pin!(self.drain_on_signal(signals, limit));
        let (mut signals, deadline, shutdown) = loop {
            // Without a slot, the new connection waits on a descriptor from the reserve.
            let accept = async {
                let (stream, peer) = listen::accept(&listener).await;
                (connections.slot().await, stream, peer)
            };
            select! {
                (slot, stream, peer) = accept => {
                    let activity = Activity::default();
                    let connection = self.connection(stream, Peer(peer.ip()), activity.clone());
                    connections.spawn(slot, connection, activity);
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
                Ok(shutdown)
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
    ) -> Result<(Signals, Option<Instant>, Shutdown), BoxError> {
        signals.next().await;
        let deadline = Instant::now().checked_add(limit);
        self.draining.cancel();
        let is_durable = self.options.has_durable_jobs;
        let shutdown = drain(&self.jobs, limit, is_durable, &mut signals).await?;
        Ok((signals, deadline, shutdown))
    }

    fn connection(
        &self,
        stream: TcpStream,
        peer: Peer,
        activity: Activity,
    ) -> impl GracefulConnection<Error = hyper::Error> + Send + use<S, D, B, C, St> {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "failed to set TCP_NODELAY");
        }
        let gateway = self.clone();
        let stream = ClientStream::new(stream, self.options.idle_timeout, activity.clone());
        let service = service_fn(move |request| {
            let open = activity.begin_request();
            let response = gateway.respond(request, peer);
            async {
                let response = response.await?;
                Ok::<_, Infallible>(response.map(|body| HoldBody::new(body, open)))
            }
        });
        let mut http = http1::Builder::new();
        // It also limits the time between two requests.
        http.timer(TokioTimer::new())
            .header_read_timeout(self.options.idle_timeout);
        if let Some(max) = self.options.max_fields {
            http.max_headers(max);
        }
        http.serve_connection(stream, service)
    }

    fn respond(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = GatewayResult<B, C>> + Send + use<S, D, B, C, St> {
        let origin = request.headers().get(ORIGIN).cloned();
        let options = self.options.clone();
        let routed = self.route(request, peer);
        async move {
            let mut response = match routed {
                Routed::Layer(future) => future.await?.map(Either::Left),
                Routed::Direct(future) => {
                    let response = future.await?;
                    response.map(|body| Either::Right(Either::Left(body)))
                }
                Routed::Own(response) => response.map(|body| Either::Right(Either::Right(body))),
            };
            options.expose(origin.as_ref(), &mut response);
            Ok(response)
        }
    }

    /// Calls the layer or the proxy, or returns the gateway's own response.
    fn route(&self, mut request: Request<Incoming>, peer: Peer) -> Routed<S, D> {
        let options = &self.options;
        if let Err(error) = normalize(&mut request, options.owner.as_ref()) {
            return Routed::Own(error.response());
        }
        let is_monitor = options.is_monitor(request.uri().path());
        let health = self.health.as_ref();
        let health = health.and_then(|health| health.respond(&request));
        if is_monitor || health.is_some() {
            let cors = options.cors.as_ref();
            if let Some(preflight) = cors.and_then(|cors| cors.preflight(&request)) {
                return Routed::Own(preflight);
            }
        }
        if let Some(health) = health {
            return Routed::Own(health);
        }
        if self.draining.is_cancelled() && !is_monitor {
            return Routed::Own(GatewayError::ShuttingDown.response());
        }
        request.extensions_mut().insert(peer);
        let request = ClientBody::wrap(request, options.idle_timeout, &self.draining);
        if is_monitor || options.may_become_job(&request) {
            Routed::Layer(self.service.clone().oneshot(request))
        } else {
            Routed::Direct(self.direct.clone().oneshot(request))
        }
    }
}

/// Waits for all jobs, for at most `limit`. A durable job that may run again is requeued then.
///
/// # Errors
///
/// Returns an error on a second signal, without waiting.
pub(crate) async fn drain<St>(
    jobs: &Jobs<St>,
    limit: Duration,
    is_durable: bool,
    signals: &mut Signals,
) -> Result<Shutdown, BoxError> {
    tracing::info!(unfinished = jobs.unfinished(), "shutting down");
    let cut = select! {
        cut = jobs.drain(limit) => cut,
        () = signals.next() => return Err(SECOND_SIGNAL.into()),
    };
    if cut == 0 {
        tracing::info!("all jobs ended");
        return Ok(Shutdown::Complete);
    }
    if is_durable {
        tracing::warn!(jobs = cut, "requeued or cut jobs at the drain deadline");
    } else {
        tracing::warn!(jobs = cut, "cut jobs at the drain deadline");
    }
    Ok(Shutdown::JobsCut)
}

impl GatewayOptions {
    /// Returns `true` if the layer's monitor answers at this path.
    fn is_monitor(&self, path: &str) -> bool {
        match path.strip_prefix(&self.monitor) {
            // The list of an owner's jobs. Without owners the upstream has this path.
            Some("") => self.owner.is_some(),
            Some(rest) => rest.starts_with('/'),
            None => false,
        }
    }

    /// Returns `false` if the layer would only pass the request through.
    fn may_become_job<B>(&self, request: &Request<B>) -> bool {
        let is_preference = || request.headers().contains_key("prefer");
        !request.method().is_safe() || (self.accepts_gets && is_preference())
    }

    /// Lets other origins read a response, unless it is the upstream's own.
    fn expose<B>(&self, origin: Option<&HeaderValue>, response: &mut Response<B>) {
        let Some(cors) = &self.cors else {
            return;
        };
        if response.extensions().get::<FromUpstream>().is_none() {
            cors.expose(origin, response.headers_mut());
        } else if response.headers().contains_key(LINK) {
            // The layer adds the address of the monitor to a streamed response.
            cors.expose_link(origin, response.headers_mut());
        }
    }
}
