use std::{convert::Infallible, error::Error, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    Request, Response, StatusCode, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body_util::{Either, Full};
use hyper::body::{Body, Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, Serialize};
use tower::{BoxError, Service, service_fn};

use crate::{fields, problem::Problem};

/// How long a connection to the upstream may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Who sent a request: the other end of its connection, told in the request's extensions.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Sends requests on to one upstream.
///
/// What goes wrong on the way is a response too: an upstream that cannot be reached is a 502, and
/// kept as a job's result like any other.
#[derive(Debug)]
pub(crate) struct Proxy<B> {
    upstream: Authority,
    /// Makes a connection for each request. One that was idle might be closed by the server at the
    /// very moment a request is sent, and who can't know whether that was received can't send it
    /// again: a job would be lost. Nor does one client's request ever share a connection with
    /// another's.
    client: Client<HttpConnector, B>,
}

impl<B> Proxy<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(upstream: Authority) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Self { upstream, client }
    }

    /// The proxy as the service that the layer is put around.
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
                    Err(problem) => problem.response().map(Either::Right),
                })
            }
        })
    }

    async fn forward(&self, request: Request<B>) -> Result<Response<Incoming>, Problem> {
        if fields::is_loop(request.headers()) {
            return Err(Problem::Loop);
        }
        let (mut head, body) = request.into_parts();
        let method = head.method.clone();
        head.uri = self.target(head.uri)?;
        fields::inbound(&mut head, &body);
        let request = Request::from_parts(head, body);
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(error = &error as &dyn Error, "no answer from the upstream");
                return Err(Problem::NoAnswer);
            }
        };
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switched || !fields::is_at_most_chunked(response.headers()) {
            tracing::warn!("the upstream's answer is in a form that was not asked for");
            return Err(Problem::NoAnswer);
        }
        let (mut head, body) = response.into_parts();
        fields::outbound(&mut head, &method);
        Ok(Response::from_parts(head, body))
    }

    /// The same path and query at the upstream. An authority in the request's own target (RFC 9112
    /// §3.2.2) is ignored.
    fn target(&self, requested: Uri) -> Result<Uri, Problem> {
        let mut target = requested.into_parts();
        target.scheme = Some(Scheme::HTTP);
        target.authority = Some(self.upstream.clone());
        target
            .path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
        Uri::from_parts(target).map_err(|_| Problem::Ambiguous)
    }
}
