//! Connects to receivers, and refuses those with forbidden addresses.

use std::{
    error, fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::ClientConfig;
use tokio::{sync::Semaphore, time::timeout};
use tower_service::Service;

use super::{
    address_policy::AddressPolicy,
    connection::CountedStream,
    resolver::{CheckedResolver, ResolveError, Resolver},
};
use crate::protocol::BoxError;

type Connecting<S> = Pin<Box<dyn Future<Output = Result<S, ConnectFailure>> + Send>>;

/// Connects by TCP, if the policy allows the addresses of the host.
#[derive(Debug, Clone)]
struct CheckedConnector<R> {
    public: HttpConnector<CheckedResolver<R>>,
    internal: HttpConnector<CheckedResolver<R>>,
    policy: Arc<AddressPolicy>,
    idle_permits: Arc<Semaphore>,
}

impl<R: Resolver> CheckedConnector<R> {
    fn new(
        policy: AddressPolicy,
        max_idle_connections: usize,
        timeout: Duration,
        resolver: R,
    ) -> Self {
        let connector = |resolver| {
            let mut connector = HttpConnector::new_with_resolver(resolver);
            connector.enforce_http(false);
            connector.set_nodelay(true);
            // The addresses of a host share it, so one that never answers leaves time for others.
            connector.set_connect_timeout(Some(timeout));
            connector
        };
        Self {
            public: connector(CheckedResolver::new(resolver.clone(), false)),
            internal: connector(CheckedResolver::new(resolver, true)),
            policy: Arc::new(policy),
            idle_permits: Arc::new(Semaphore::new(max_idle_connections)),
        }
    }
}

impl<R: Resolver> Service<Uri> for CheckedConnector<R> {
    type Response = CountedStream;
    type Error = ConnectFailure;
    type Future = Connecting<CountedStream>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ConnectFailure>> {
        // Each call has a clone of one of the two, which asks its resolver for readiness itself.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        // The parsed URL has passed this check, perhaps under another policy.
        if self.policy.forbids_literal(&uri) {
            return Box::pin(async { Err(ConnectFailure::Forbidden) });
        }
        let connector = if self.policy.allows_internal(&uri) {
            &self.internal
        } else {
            &self.public
        };
        let mut connector = connector.clone();
        let idle_permits = Arc::clone(&self.idle_permits);
        Box::pin(async move {
            let stream = connector.call(uri).await;
            let stream = stream.map_err(|error| ConnectFailure::from_tcp(error.into()))?;
            let permit = idle_permits.try_acquire_owned().ok();
            Ok(CountedStream::new(stream, permit))
        })
    }
}

/// Connects by TCP and TLS, within a time.
///
/// The client's pool can finish a connection in the background, beyond the time of the request that
/// began it. So the connection has a timeout of its own.
#[derive(Debug, Clone)]
pub(super) struct WebhookConnector<R> {
    https: HttpsConnector<CheckedConnector<R>>,
    timeout: Duration,
}

impl<R: Resolver> WebhookConnector<R> {
    pub(super) fn new(
        policy: AddressPolicy,
        tls: ClientConfig,
        max_idle_connections: usize,
        timeout: Duration,
        resolver: R,
    ) -> Self {
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
        let builder = if policy.is_insecure {
            builder.https_or_http()
        } else {
            builder.https_only()
        };
        let tcp = CheckedConnector::new(policy, max_idle_connections, timeout, resolver);
        Self {
            https: builder.enable_http1().wrap_connector(tcp),
            timeout,
        }
    }
}

impl<R: Resolver> Service<Uri> for WebhookConnector<R> {
    type Response = MaybeHttpsStream<CountedStream>;
    type Error = ConnectFailure;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectFailure>> {
        self.https.poll_ready(cx).map_err(ConnectFailure::from_tls)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connection = timeout(self.timeout, self.https.call(uri));
        Box::pin(async move {
            let connection = connection.await.map_err(|_| ConnectFailure::TimedOut)?;
            connection.map_err(ConnectFailure::from_tls)
        })
    }
}

/// The step at which a connection failed.
#[derive(Debug)]
pub(super) enum ConnectFailure {
    Forbidden,
    Dns(BoxError),
    Tcp(BoxError),
    Tls(BoxError),
    TimedOut,
}

impl ConnectFailure {
    fn from_tcp(error: BoxError) -> Self {
        match error.source().and_then(<dyn error::Error>::downcast_ref) {
            Some(ResolveError::Forbidden) => Self::Forbidden,
            Some(ResolveError::NoAddress | ResolveError::LookUp(_)) => Self::Dns(error),
            None => Self::Tcp(error),
        }
    }

    /// Returns the failure before the handshake, if there was one.
    fn from_tls(error: BoxError) -> Self {
        match error.downcast() {
            Ok(before) => *before,
            Err(error) => Self::Tls(error),
        }
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forbidden => "the address is forbidden",
            Self::Dns(_) => "failed to resolve the name",
            Self::Tcp(_) => "failed to connect",
            Self::Tls(_) => "the TLS handshake failed",
            Self::TimedOut => "the connection took too long",
        })
    }
}

impl error::Error for ConnectFailure {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Dns(error) | Self::Tcp(error) | Self::Tls(error) => Some(&**error),
            Self::Forbidden | Self::TimedOut => None,
        }
    }
}
