//! Sends requests over pooled connections, and raw bytes over connections of their own.

use std::{error::Error, io, iter, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tower::BoxError;

/// The maximum number of times that a request is repeated on another connection.
const MAX_REPEATS: usize = 3;

/// A response with its complete body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }
}

/// The protocol of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// A client for each protocol.
#[derive(Debug)]
pub(crate) struct Clients {
    server: SocketAddr,
    http1: Client<HttpConnector, Full<Bytes>>,
    http2: Client<HttpConnector, Full<Bytes>>,
}

impl Clients {
    pub(crate) fn new(server: SocketAddr) -> Self {
        let builder = || Client::builder(TokioExecutor::new());
        Self {
            server,
            http1: builder().build_http(),
            http2: builder().http2_only(true).build_http(),
        }
    }

    pub(crate) async fn send(
        &self,
        protocol: Protocol,
        method: Method,
        target: &str,
        fields: &[(&'static str, &str)],
        body: Bytes,
    ) -> Result<Answer, BoxError> {
        let response = self.open(protocol, method, target, fields, body).await?;
        let (head, body) = response.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await?.to_bytes(),
        })
    }

    /// Sends a request, and returns the response as soon as its head is there.
    ///
    /// After a refusal the server closes its connection, which the next request may have used. As
    /// clients do, this repeats an idempotent request then.
    pub(crate) async fn open(
        &self,
        protocol: Protocol,
        method: Method,
        target: &str,
        fields: &[(&'static str, &str)],
        body: Bytes,
    ) -> Result<http::Response<Incoming>, BoxError> {
        let uri: Uri = format!("http://{}{target}", self.server).parse()?;
        let may_repeat = method.is_idempotent() || target.ends_with("/cancel");
        let client = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        };
        let mut repeats = if may_repeat { MAX_REPEATS } else { 0 };
        loop {
            let mut request = Request::builder().method(&method).uri(&uri);
            for &(name, value) in fields {
                request = request.header(name, value);
            }
            match client.request(request.body(body.clone().into())?).await {
                Err(error) if repeats > 0 && is_closed(&error) => repeats -= 1,
                response => return Ok(response?),
            }
        }
    }

    /// Sends a request over a connection of its own, with the first `sent` bytes of its body.
    pub(crate) async fn send_part(
        &self,
        target: &str,
        body: &[u8],
        sent: usize,
    ) -> Result<TcpStream, BoxError> {
        let mut stream = TcpStream::connect(self.server).await?;
        let head = format!(
            "POST {target} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n",
            self.server,
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body[..sent]).await?;
        Ok(stream)
    }
}

/// Returns `true` if the server closed the connection before its response.
pub(crate) fn is_closed(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let http = cause.downcast_ref::<hyper::Error>();
        matches!(
            io,
            Some(io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        ) || http.is_some_and(hyper::Error::is_incomplete_message)
    })
}

pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| error.source())
}
