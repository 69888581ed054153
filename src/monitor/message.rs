//! A result as one HTTP message: `application/http` (RFC 9112 §10.2, OData 4.0 Part 1 §11.6).

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header, request::Parts};
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::status::VARY;
use crate::{
    config::Dialect,
    protocol::{BoxError, has_length, prefers_message},
    store::ResultBody,
};

const CONTENT_TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");

/// The newest version of OData that the client understands.
const ODATA_MAXVERSION: HeaderName = HeaderName::from_static("odata-maxversion");

/// Returns `true` if a request wants the result with these fields as a message.
///
/// With `Pending202` that is also the default of clients that are limited to OData 4.0.
pub(super) fn is_wanted(request: &Parts, dialect: Dialect, result: &HeaderMap) -> bool {
    let headers = &request.headers;
    if headers.contains_key(header::ACCEPT) {
        let own = result.get(header::CONTENT_TYPE);
        return prefers_message(headers, own.and_then(|own| own.to_str().ok()));
    }
    let is_old = || {
        headers
            .get(ODATA_MAXVERSION)
            .is_some_and(|version| version == "4.0")
    };
    dialect == Dialect::Pending202 && is_old()
}

/// Returns the request fields that can change the response for a result.
pub(super) fn vary(dialect: Dialect) -> HeaderValue {
    match dialect {
        Dialect::Pending202 => HeaderValue::from_static("accept, prefer, odata-maxversion"),
        Dialect::Default | Dialect::SeeOther => VARY,
    }
}

/// Returns a response as the content of another one. `length` is that of its body in bytes.
///
/// The message is framed by its `Content-Length`, so its trailers are dropped.
pub(super) fn wrap(response: Response<ResultBody>, length: u64) -> Response<ResultBody> {
    let (head, mut body) = response.into_parts();
    body.truncate(length);
    let text = head_text(head.status, &head.headers, length);
    let mut wrapped = Response::new(ResultBody::streamed(MessageBody {
        head: text.into(),
        body,
        length,
    }));
    let headers = wrapped.headers_mut();
    let message = HeaderValue::from_static("application/http");
    headers.insert(header::CONTENT_TYPE, message);
    let binary = HeaderValue::from_static("binary");
    headers.insert(CONTENT_TRANSFER_ENCODING, binary);
    wrapped
}

/// Returns the head of a message with a body of this length.
fn head_text(status: StatusCode, headers: &HeaderMap, length: u64) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut text = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    if has_length(status) {
        text.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    text
}

/// The head of a message, then its body.
#[pin_project]
struct MessageBody {
    /// Empty once it has been sent.
    head: Bytes,
    #[pin]
    body: ResultBody,
    /// The number of bytes of the body that have not been sent.
    length: u64,
}

impl Body for MessageBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        if !this.head.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(this.head)))));
        }
        let polled = this.body.poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let sent = frame.data_ref().map_or(0, Bytes::len) as u64;
            *this.length = this.length.saturating_sub(sent);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_empty() && self.length == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.head.len() as u64 + self.length)
    }
}
