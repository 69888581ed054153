//! The proxy: forwards requests to the upstream.

use std::{convert::Infallible, error::Error, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderName, Request, Response, StatusCode, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body_util::{Either, Full};
use hyper::body::{Body, Incoming};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{BoxError, Service, service_fn};

use crate::{
    body::StalledBody, connect::Connector, cors::FromUpstream, error::GatewayError,
    forwarded::ForwardedTrust, headers,
};

/// The settings of a [`Proxy`].
#[derive(Debug, Clone)]
pub(crate) struct ProxyOptions {
    pub(crate) upstream: Authority,
    /// The maximum number of fields in the head of a response; `None` for hyper's default.
    pub(crate) max_fields: Option<usize>,
    pub(crate) forwarded: ForwardedTrust,
    /// The header that names the owner of a job.
    pub(crate) owner: Option<HeaderName>,
}

/// Forwards requests to one upstream.
///
/// Errors are responses too: an unreachable upstream is a 502, which a job keeps as its result.
#[derive(Debug)]
pub(crate) struct Proxy<B> {
    options: ProxyOptions,
    /// Opens a connection for each request. The server could close an idle connection just as a
    /// request is sent. The proxy could not know whether the server received it, so it could not
    /// retry, and the job would be lost. No two clients share a connection either.
    client: Client<Connector, B>,
}

impl<B> Proxy<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(options: ProxyOptions) -> Self {
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_max_idle_per_host(0);
        if let Some(max) = options.max_fields {
            client.http1_max_headers(max);
        }
        let client = client.build(Connector::new());
        Self { options, client }
    }

    /// Returns the proxy as a service, for the layer to wrap.
    pub(crate) fn service(
        self,
    ) -> impl Service<
        Request<B>,
        Response = Response<Either<Incoming, Full<Bytes>>>,
        Error = Infallible,
        Future: Send,
    > + Clone {
        let proxy = Arc::new(self);
        service_fn(move |request| {
            let proxy = proxy.clone();
            async move {
                Ok(match proxy.forward(request).await {
                    Ok(response) => response.map(Either::Left),
                    Err(error) => error.response().map(Either::Right),
                })
            }
        })
    }

    async fn forward(&self, request: Request<B>) -> Result<Response<Incoming>, GatewayError> {
        if headers::is_loop(request.headers()) {
            return Err(GatewayError::Loop);
        }
        let (mut head, body) = request.into_parts();
        let method = head.method.clone();
        head.uri = self.target(head.uri)?;
        let ProxyOptions {
            forwarded, owner, ..
        } = &self.options;
        headers::rewrite_request(&mut head, &body, *forwarded, owner.as_ref());
        let request = Request::from_parts(head, body);
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) if StalledBody::is_cause_of(&error) => {
                return Err(GatewayError::RequestStalled);
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn Error, "upstream did not respond");
                return Err(if error.is_connect() {
                    GatewayError::UpstreamUnreachable
                } else {
                    GatewayError::UpstreamUnavailable
                });
            }
        };
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switched || !headers::is_at_most_chunked(response.headers()) {
            tracing::warn!("upstream switched protocols or used an unknown transfer coding");
            return Err(GatewayError::UpstreamUnavailable);
        }
        let (mut head, body) = response.into_parts();
        headers::rewrite_response(&mut head, &method);
        head.extensions.insert(FromUpstream);
        Ok(Response::from_parts(head, body))
    }

    /// Returns the same path and query at the upstream.
    fn target(&self, requested: Uri) -> Result<Uri, GatewayError> {
        let mut target = requested.into_parts();
        target.scheme = Some(Scheme::HTTP);
        target.authority = Some(self.options.upstream.clone());
        target
            .path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
        Uri::from_parts(target).map_err(|_| GatewayError::AmbiguousRequest)
    }
}
