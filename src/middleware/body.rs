use std::{
    fmt,
    ops::RangeInclusive,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use tower::BoxError;

use crate::{
    limit::{Charge, Collected},
    protocol::poll_bytes,
};

/// The largest body that is copied so that it keeps no more memory than its own. A smaller one may be a slice of a
/// connection's read buffer, and would keep all of it; a larger one is worth more than such a buffer.
pub(crate) const MAX_COPIED: usize = 64 * 1024;

/// The body of the request that the inner service gets.
///
/// Of a job it has been read to its end, so that the client may hang up; of a request that passes
/// through it is the client's own stream.
#[pin_project]
pub struct RequestBody<B> {
    /// What has been read of the body.
    read: Option<Bytes>,
    /// What has not.
    #[pin]
    rest: Option<B>,
    trailers: Option<Box<HeaderMap>>,
    /// The read bytes' place in the budget, held as long as the request is.
    charge: Option<Charge>,
}

impl<B> RequestBody<B> {
    #[inline(always)]
    pub(crate) fn streaming(body: B) -> Self {
        Self {
            read: None,
            rest: Some(body),
            trailers: None,
            charge: None,
        }
    }

    /// A body that has been read to its end.
    pub(crate) fn read(collected: Collected) -> Self {
        let mut body = Self {
            read: None,
            rest: None,
            trailers: None,
            charge: None,
        };
        body.put_back(collected);
        body
    }

    /// Copies what was read of it, where that is small and may be a slice of a connection's read buffer.
    pub(crate) fn detach(&mut self) {
        if let Some(read) = &mut self.read
            && read.len() <= MAX_COPIED
        {
            *read = Bytes::copy_from_slice(read);
        }
    }

    /// Puts what was read of it in front of what follows.
    pub(crate) fn put_back(&mut self, collected: Collected) {
        self.read = Some(collected.bytes).filter(|bytes| !bytes.is_empty());
        self.trailers = collected.trailers;
        self.charge = collected.charge;
    }
}

impl<B: Body> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if let Some(bytes) = this.read.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let Some(rest) = this.rest.as_pin_mut() {
            return poll_bytes(rest, cx);
        }
        let trailers = this.trailers.take();
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(*trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_none()
            && self.trailers.is_none()
            && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let Some(rest) = &self.rest else {
            return read_hint(read, self.trailers.is_some());
        };
        let mut hint = rest.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint.set_lower(hint.lower().saturating_add(read));
        hint
    }
}

impl<B> fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody")
            .field("read", &self.read.as_ref().map(Bytes::len))
            .field("streaming", &self.rest.is_some())
            .finish_non_exhaustive()
    }
}

/// The body of the response that the client gets: the inner service's own, as it comes, or one of
/// this layer's.
#[pin_project]
pub struct ResponseBody<B> {
    #[pin]
    kind: Kind<B>,
}

#[pin_project(project = KindProj)]
enum Kind<B> {
    Inner(#[pin] B),
    Monitor(MonitorBody),
}

impl<B> ResponseBody<B> {
    #[inline(always)]
    pub(crate) fn inner(body: B) -> Self {
        Self {
            kind: Kind::Inner(body),
        }
    }

    pub(crate) fn monitor(body: impl Into<MonitorBody>) -> Self {
        Self {
            kind: Kind::Monitor(body.into()),
        }
    }
}

/// An empty body; layers that answer for a service, as CORS does to a preflight, make one.
impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::monitor(Replay::default())
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            KindProj::Inner(body) => {
                poll_bytes(body, cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            KindProj::Monitor(body) => body.poll_next(cx).map(|frame| frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner(body) => body.is_end_stream(),
            Kind::Monitor(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner(body) => body.size_hint(),
            Kind::Monitor(body) => body.size_hint(),
        }
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Inner(_) => f.write_str("ResponseBody::Inner"),
            Kind::Monitor(body) => f.debug_tuple("ResponseBody").field(body).finish(),
        }
    }
}

/// A body that is there already: a kept result, or a document of this layer.
#[derive(Clone, Default)]
pub struct Replay {
    bytes: Bytes,
    trailers: Option<Box<HeaderMap>>,
}

impl Replay {
    /// A body of `bytes`, then `trailers`.
    pub fn new(bytes: Bytes, trailers: Option<HeaderMap>) -> Self {
        let trailers = trailers.map(Box::new);
        Self { bytes, trailers }
    }

    /// The data that is left.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no data is left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Leaves only these bytes.
    pub(crate) fn slice(&mut self, range: RangeInclusive<usize>) {
        self.bytes = self.bytes.slice(range);
    }

    pub(crate) fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    fn next(&mut self) -> Option<Frame<Bytes>> {
        if !self.bytes.is_empty() {
            return Some(Frame::data(std::mem::take(&mut self.bytes)));
        }
        self.trailers
            .take()
            .map(|trailers| Frame::trailers(*trailers))
    }
}

impl From<Bytes> for Replay {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes, None)
    }
}

impl Body for Replay {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.get_mut().next().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        // None where there is nothing: axum writes a length from it, which a 204 must not have.
        // Where an empty body has a length, the monitor has written it.
        if self.is_empty() {
            return SizeHint::default();
        }
        read_hint(self.len() as u64, self.has_trailers())
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("len", &self.len())
            .field("trailers", &self.has_trailers())
            .finish()
    }
}

/// The body of an answer of the monitor: bytes that are there already, or events as they come.
pub struct MonitorBody {
    kind: MonitorKind,
}

enum MonitorKind {
    Replay(Replay),
    /// Boxed: an answer that takes minutes may cost an allocation, and the others stay small.
    Events(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl MonitorBody {
    pub(crate) fn events(events: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self {
            kind: MonitorKind::Events(Box::pin(events)),
        }
    }

    /// The bytes, where they are there already.
    pub(crate) fn as_replay(&self) -> Option<&Replay> {
        match &self.kind {
            MonitorKind::Replay(replay) => Some(replay),
            MonitorKind::Events(_) => None,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        match &mut self.kind {
            MonitorKind::Replay(replay) => Poll::Ready(replay.next()),
            MonitorKind::Events(events) => events
                .as_mut()
                .poll_next(cx)
                .map(|event| event.map(Frame::data)),
        }
    }
}

impl From<Replay> for MonitorBody {
    fn from(replay: Replay) -> Self {
        Self {
            kind: MonitorKind::Replay(replay),
        }
    }
}

impl Body for MonitorBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = self.get_mut().poll_next(cx);
        frame.map(|frame| frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.as_replay().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.as_replay().map(Body::size_hint).unwrap_or_default()
    }
}

impl fmt::Debug for MonitorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            MonitorKind::Replay(replay) => f.debug_tuple("MonitorBody").field(replay).finish(),
            MonitorKind::Events(_) => f.write_str("MonitorBody::Events"),
        }
    }
}

/// How large a body is that is there already.
///
/// HTTP/1 frames a body by its length where that is known, and then has no place for trailers.
fn read_hint(bytes: u64, has_trailers: bool) -> SizeHint {
    let mut hint = SizeHint::default();
    hint.set_lower(bytes);
    if !has_trailers {
        hint.set_upper(bytes);
    }
    hint
}
