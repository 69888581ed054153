//! The writer of a response, and what a store returns when it is read.

use std::{
    error, fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_core::Stream;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};

use crate::{
    limit::Charge,
    protocol::{BoxError, buffered_size_hint, prefixed_size_hint},
};

/// The maximum size of a frame of a result, in bytes.
///
/// A server holds frames until its client reads them, so this bounds what a slow client keeps
/// beside the result.
const MAX_FRAME_BYTES: usize = 64 * 1024;

/// Writes the response of one job to a store.
///
/// If it is dropped before [`Store::finish`](super::Store::finish), the response breaks off. Its
/// readers get what was flushed, then an error. A store that publishes responses keeps that part
/// with the ended job: [`Snapshot::partial`](crate::Snapshot::partial).
pub trait Writer: Send + 'static {
    /// Waits until the store has room for `bytes` more of the response, and takes it. The head and
    /// trailers count as [`fields_price`](super::fields_price) says.
    ///
    /// # Errors
    ///
    /// Fails if there is no room. The job then ends as
    /// [`result_too_large`](crate::ErrorCode::ResultTooLarge).
    fn poll_room(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<Result<(), NoRoom>>;

    /// Appends data that [`poll_room`](Self::poll_room) took room for.
    fn push(&mut self, data: Bytes);

    /// Adds trailers. All of them together have at most
    /// [`MAX_FIELD_VALUES`](super::MAX_FIELD_VALUES) values.
    fn push_trailers(&mut self, trailers: HeaderMap);

    /// Makes all appended data readable, now or soon. The layer calls this when the body, or room
    /// for it, is pending, and before it drops the writer of a response that breaks off.
    fn flush(&mut self);
}

/// The error of a store that has no room for a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NoRoom;

impl NoRoom {
    /// Creates the error.
    #[expect(clippy::new_without_default, reason = "an error has no default")]
    pub fn new() -> Self {
        Self
    }
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no room for the response")
    }
}

impl error::Error for NoRoom {}

/// A response that is read from a store.
#[derive(Debug)]
#[non_exhaustive]
pub struct Reading {
    /// The number of the call that wrote the response, counted as in
    /// [`Snapshot::attempt`](crate::Snapshot::attempt). Another call may have written other bytes.
    pub run: u32,
    /// The number of bytes of the body that the store had when this was read.
    pub available: u64,
    /// The response. Its body begins at the requested byte.
    pub response: Response<ResultBody>,
}

impl Reading {
    /// Creates a reading of the response that call `run` wrote, with `available` bytes so far.
    pub fn new(run: u32, available: u64, response: Response<ResultBody>) -> Self {
        Self {
            run,
            available,
            response,
        }
    }
}

/// The body of a stored response.
///
/// It holds the charge of the bytes that it keeps in memory. It yields frames of at most 64 KiB.
#[derive(Default)]
pub struct ResultBody {
    kind: ResultBodyKind,
    /// Bytes after which the body ends early.
    limit: Option<u64>,
}

enum ResultBodyKind {
    Buffered {
        bytes: Bytes,
        trailers: Option<Box<HeaderMap>>,
        charge: Option<Charge>,
        /// Set if the bytes belong to the store, so that frames are copies.
        is_shared: bool,
    },
    /// Boxed, so that bodies in memory stay small.
    Streamed(Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>),
}

impl Default for ResultBodyKind {
    fn default() -> Self {
        Self::Buffered {
            bytes: Bytes::new(),
            trailers: None,
            charge: None,
            is_shared: false,
        }
    }
}

impl ResultBody {
    /// Creates a body of bytes in memory, then trailers.
    pub fn new(bytes: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self {
            kind: ResultBodyKind::Buffered {
                bytes,
                trailers: trailers.map(Box::new),
                charge: None,
                is_shared: false,
            },
            limit: None,
        }
    }

    /// Creates a body of bytes that the store keeps, then trailers.
    ///
    /// Its frames are copies, so a server that holds them keeps nothing of the store.
    pub fn shared(bytes: Bytes, trailers: Option<HeaderMap>) -> Self {
        let mut body = Self::new(bytes, trailers);
        body.share();
        body
    }

    fn share(&mut self) {
        if let ResultBodyKind::Buffered { is_shared, .. } = &mut self.kind {
            *is_shared = true;
        }
    }

    /// Creates a body that is produced while it is read. Its frames are copied, and those larger
    /// than 64 KiB are split.
    pub fn streamed<B>(body: B) -> Self
    where
        B: Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        Self::boxed(SplitFrames::new(body))
    }

    /// Creates a body whose frames are small copies already.
    pub(crate) fn boxed<B>(body: B) -> Self
    where
        B: Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        Self {
            kind: ResultBodyKind::Streamed(Box::pin(body)),
            limit: None,
        }
    }

    /// Creates a body of `length` bytes from a stream of its parts, then trailers. Its frames are
    /// copied as those of [`streamed`](Self::streamed) are.
    pub fn from_stream<S, E>(parts: S, length: u64, trailers: Option<HeaderMap>) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        Self::streamed(StreamBody {
            parts,
            left: length,
            trailers,
        })
    }

    /// Holds `charge` until the body is dropped, and copies its frames. Drops the charge at once
    /// for a streamed body, which must charge the bytes that it keeps itself.
    pub fn with_charge(mut self, held: Charge) -> Self {
        self.share();
        if let ResultBodyKind::Buffered { charge, .. } = &mut self.kind {
            *charge = Some(held);
        }
        self
    }

    /// Ends the body with an error after its last byte, as a response that broke off ends.
    pub fn break_off(self) -> Self {
        Self::boxed(BrokenBody(self))
    }

    /// Ends the body after `bytes`, without trailers.
    pub fn truncate(&mut self, bytes: u64) {
        match &mut self.kind {
            ResultBodyKind::Buffered {
                bytes: buffered,
                trailers,
                ..
            } => {
                buffered.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
                *trailers = None;
            }
            ResultBodyKind::Streamed(_) => self.limit = Some(bytes),
        }
    }

    /// Returns the number of bytes left, if it is known.
    pub fn len(&self) -> Option<u64> {
        match &self.kind {
            ResultBodyKind::Buffered { bytes, .. } => Some(bytes.len() as u64),
            ResultBodyKind::Streamed(body) => {
                let hint = body.size_hint();
                match self.limit {
                    Some(limit) if hint.lower() >= limit => Some(limit),
                    _ => hint.exact(),
                }
            }
        }
    }

    /// Returns `true` if the body is known to have no bytes left.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Returns `true` if the body is known to have trailers.
    pub fn has_trailers(&self) -> bool {
        match &self.kind {
            ResultBodyKind::Buffered { trailers, .. } => trailers.is_some(),
            ResultBodyKind::Streamed(_) => false,
        }
    }
}

impl From<Bytes> for ResultBody {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes, None)
    }
}

impl Body for ResultBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match &mut this.kind {
            ResultBodyKind::Buffered {
                bytes,
                trailers,
                is_shared,
                ..
            } => {
                if !bytes.is_empty() {
                    let frame = if *is_shared {
                        copy_frame(bytes)
                    } else {
                        split_frame(bytes)
                    };
                    return Poll::Ready(Some(Ok(Frame::data(frame))));
                }
                let trailers = trailers.take().map(|trailers| Frame::trailers(*trailers));
                Poll::Ready(trailers.map(Ok))
            }
            ResultBodyKind::Streamed(body) => {
                let Some(limit) = &mut this.limit else {
                    return body.as_mut().poll_frame(cx);
                };
                if *limit == 0 {
                    return Poll::Ready(None);
                }
                body.as_mut().poll_frame(cx).map(|frame| {
                    let frame = match frame? {
                        Ok(frame) => frame,
                        Err(error) => return Some(Err(error)),
                    };
                    let mut data = frame.into_data().ok()?;
                    data.truncate(usize::try_from(*limit).unwrap_or(usize::MAX));
                    *limit -= data.len() as u64;
                    Some(Ok(Frame::data(data)))
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            ResultBodyKind::Buffered {
                bytes, trailers, ..
            } => bytes.is_empty() && trailers.is_none(),
            ResultBodyKind::Streamed(body) => self.limit == Some(0) || body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            // Without a hint for an empty body: axum writes a length from it, which a 204 must not
            // have. The monitor writes the length that an empty body has.
            ResultBodyKind::Buffered { bytes, .. } if bytes.is_empty() => SizeHint::default(),
            ResultBodyKind::Buffered {
                bytes, trailers, ..
            } => buffered_size_hint(bytes.len() as u64, trailers.is_some()),
            ResultBodyKind::Streamed(body) => match self.len() {
                Some(length) => SizeHint::with_exact(length),
                None => body.size_hint(),
            },
        }
    }
}

impl fmt::Debug for ResultBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultBody")
            .field("len", &self.len())
            .field("trailers", &self.has_trailers())
            .finish()
    }
}

/// Takes the next frame from bytes.
fn split_frame(bytes: &mut Bytes) -> Bytes {
    if bytes.len() <= MAX_FRAME_BYTES {
        mem::take(bytes)
    } else {
        bytes.split_to(MAX_FRAME_BYTES)
    }
}

/// Takes the next frame from bytes as a copy.
fn copy_frame(bytes: &mut Bytes) -> Bytes {
    let frame = Bytes::copy_from_slice(&bytes[..bytes.len().min(MAX_FRAME_BYTES)]);
    // An empty slice may share the buffer too.
    if frame.len() == bytes.len() {
        *bytes = Bytes::new();
    } else {
        bytes.advance(frame.len());
    }
    frame
}

/// A body from a stream of its parts, then trailers.
#[pin_project::pin_project]
struct StreamBody<S> {
    #[pin]
    parts: S,
    /// The number of bytes that are still to come.
    left: u64,
    trailers: Option<HeaderMap>,
}

impl<S, E> Body for StreamBody<S>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        Poll::Ready(match ready!(this.parts.poll_next(cx)) {
            Some(Ok(part)) => {
                *this.left = this.left.saturating_sub(part.len() as u64);
                Some(Ok(Frame::data(part)))
            }
            Some(Err(error)) => {
                *this.trailers = None;
                Some(Err(error.into()))
            }
            None => this.trailers.take().map(|all| Ok(Frame::trailers(all))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.left);
        // HTTP/1 frames a body by its length if that is known, and then has no room for trailers.
        if self.trailers.is_none() {
            hint.set_upper(self.left);
        }
        hint
    }
}

/// A body that breaks off after its last byte.
struct BrokenBody(ResultBody);

impl Body for BrokenBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        Poll::Ready(Some(
            frame.unwrap_or_else(|| Err("the response broke off".into())),
        ))
    }
}

/// A body whose frames are copied, and split if they are large.
#[pin_project::pin_project]
struct SplitFrames<B> {
    #[pin]
    body: B,
    /// The rest of a large frame.
    rest: Bytes,
}

impl<B> SplitFrames<B> {
    fn new(body: B) -> Self {
        let rest = Bytes::new();
        Self { body, rest }
    }
}

impl<B: Body<Data = Bytes>> Body for SplitFrames<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(copy_frame(this.rest)))));
        }
        this.body.poll_frame(cx).map_ok(|frame| {
            frame.map_data(|mut data| {
                let first = copy_frame(&mut data);
                *this.rest = data;
                first
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        prefixed_size_hint(self.body.size_hint(), self.rest.len() as u64)
    }
}
