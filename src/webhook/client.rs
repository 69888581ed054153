//! The HTTP client that sends webhooks.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::dns::GaiResolver},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, timeout_at};

use super::{
    address_policy::AddressPolicy,
    connector::WebhookConnector,
    resolver::Resolver,
    send_error::SendError,
    target_url::TargetUrl,
    tls::{RootCertificateError, client_config},
};
use crate::protocol::retry_after;

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("tower-accepted/", env!("CARGO_PKG_VERSION")));

/// The maximum of an answer's body. A longer one costs the connection.
const MAX_ANSWER_BYTES: usize = 4 << 10;

/// The maximum of an answer's head, and of the buffer that a connection reads into.
const MAX_HEAD_BYTES: usize = 16 << 10;

const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

const MAX_IDLE_PER_HOST: usize = 2;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The options of a [`WebhookClient`].
#[derive(Debug, Clone)]
pub(crate) struct ClientOptions {
    pub(crate) policy: AddressPolicy,
    /// The time of one request, from the look-up of the name to the end of the answer. Default:
    /// 15 s.
    pub(crate) timeout: Duration,
    /// The maximum number of connections that wait for a second request. Default: 64.
    ///
    /// So the client has at most this many connections more than requests.
    pub(crate) max_idle_connections: usize,
    /// Root certificates that the client trusts besides those of the system.
    pub(crate) root_certificates: Vec<CertificateDer<'static>>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            policy: AddressPolicy::default(),
            timeout: Duration::from_secs(15),
            max_idle_connections: 64,
            root_certificates: Vec::new(),
        }
    }
}

/// Sends requests to receivers of webhooks.
///
/// It sends one request for each call. It follows no redirects, uses no proxy, whatever the
/// environment says, and connects to no forbidden address. Clones share their connections.
#[derive(Debug, Clone)]
pub(crate) struct WebhookClient<R = GaiResolver> {
    client: Client<WebhookConnector<R>, Full<Bytes>>,
    timeout: Duration,
}

/// The answer of a receiver, without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReceiverAnswer {
    pub(crate) status: StatusCode,
    /// The time of the answer's `Retry-After`, at most 24 hours.
    pub(crate) retry_after: Option<Duration>,
}

impl WebhookClient {
    /// Reads the system's root certificates, and creates a client.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no root certificate, or if one in the options is invalid.
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, RootCertificateError> {
        Self::with_resolver(options, GaiResolver::new())
    }
}

impl<R: Resolver> WebhookClient<R> {
    pub(super) fn with_resolver(
        options: &ClientOptions,
        resolver: R,
    ) -> Result<Self, RootCertificateError> {
        let connector = WebhookConnector::new(
            options.policy.clone(),
            client_config(&options.root_certificates, options.policy.is_insecure)?,
            options.max_idle_connections,
            options.timeout,
            resolver,
        );
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .build(connector);
        let timeout = options.timeout;
        Ok(Self { client, timeout })
    }

    /// Sends a request, and returns the receiver's answer, whatever its status.
    ///
    /// # Errors
    ///
    /// Returns an error if the head of the answer did not arrive within the timeout.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection. The receiver may have got the request.
    pub(crate) async fn send(
        &self,
        target: &TargetUrl,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<ReceiverAnswer, SendError> {
        let deadline = Instant::now() + self.timeout;
        let host = target.uri().host().unwrap_or_default();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = target.uri().clone();
        *request.headers_mut() = headers;
        request.headers_mut().insert(header::USER_AGENT, USER_AGENT);

        let response = timeout_at(deadline, self.client.request(request))
            .await
            .map_err(|_| SendError::timed_out(host))?
            .map_err(|error| SendError::new(host, error))?;
        let answer = ReceiverAnswer {
            status: response.status(),
            retry_after: retry_after(response.headers()).map(|delay| delay.min(MAX_RETRY_AFTER)),
        };
        // A body that goes on is dropped, which closes the connection. The answer counts.
        let _ = timeout_at(deadline, read_to_end(response.into_body())).await;
        Ok(answer)
    }
}

/// Reads a short body to its end, so that its connection can be used again.
async fn read_to_end(mut body: Incoming) {
    let mut rest = MAX_ANSWER_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        if length > rest {
            return;
        }
        rest -= length;
    }
}
