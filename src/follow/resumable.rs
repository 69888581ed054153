//! A body that is made of the parts of one response.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{FollowError, exclusive::Exclusive, peeked::PeekedBody};

/// Finds out how a response goes on.
pub(super) trait Resume<R: Body>: Send {
    /// Finds out how the response goes on after the end of a part.
    fn resume(self: Box<Self>, end: PartEnd<R::Error>) -> Resuming<R>;

    /// Drops this after the end of the response.
    fn complete(self: Box<Self>);
}

type BoxResume<R> = Box<dyn Resume<R>>;

pub(super) type Resuming<R> = Pin<Box<dyn Future<Output = Resumed<R>> + Send>>;

/// A frame of a response, or the error that ends it.
type NextFrame<R> = Result<Frame<Bytes>, FollowError<<R as Body>::Error>>;

/// The end of one part.
pub(super) struct PartEnd<E> {
    /// The number of bytes of the response so far.
    pub(super) received: u64,
    /// The error of the client's body. A connection that cannot show a break has none.
    pub(super) error: Option<E>,
}

/// One part of a response: a body of the client.
pub(super) struct ReceivedPart<R: Body> {
    pub(super) body: PeekedBody<R>,
    /// The `Content-Length` of the part.
    pub(super) length: Option<u64>,
}

/// The continuation of a response after the end of a part.
pub(super) enum Resumed<R: Body> {
    Part(ReceivedPart<R>, BoxResume<R>),
    Complete,
    Failed(FollowError<R::Error>),
}

/// A body that is made of the parts of one response.
pub(super) struct ResumableBody<R: Body> {
    state: State<R>,
    /// The number of bytes that were handed out.
    received: u64,
    /// The `Content-Length` of the response.
    length: Option<u64>,
}

enum State<R: Body> {
    Reading {
        body: Pin<Box<PeekedBody<R>>>,
        /// The number of bytes of this part that are missing, if its length is known.
        missing: Option<u64>,
        resume: Exclusive<BoxResume<R>>,
    },
    Resuming(Exclusive<Resuming<R>>),
    Ended,
}

impl<R: Body> ResumableBody<R> {
    pub(super) fn new(first: ReceivedPart<R>, resume: BoxResume<R>) -> Self {
        Self {
            received: 0,
            length: first.length,
            state: State::reading(first, resume),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self.length {
            _ if self.has_ended() => SizeHint::with_exact(0),
            Some(length) => SizeHint::with_exact(length.saturating_sub(self.received)),
            None => SizeHint::default(),
        }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<NextFrame<R>>> {
        loop {
            let error = match &mut self.state {
                State::Reading { body, missing, .. } => {
                    match ready!(body.as_mut().poll_frame(cx)) {
                        Some(Ok(frame)) => {
                            if let Some(data) = frame.data_ref() {
                                let bytes = data.len() as u64;
                                self.received += bytes;
                                *missing = missing.map(|missing| missing.saturating_sub(bytes));
                            } else {
                                // Only a framing that shows breaks has trailers.
                                self.complete();
                            }
                            return Poll::Ready(Some(Ok(frame)));
                        }
                        Some(Err(error)) => Some(error),
                        // Every proxy passes `Content-Length` on, so all of its bytes are the
                        // whole. The last chunk of HTTP/1.1 and `END_STREAM` prove nothing: a proxy
                        // sends them after an HTTP/1.0 connection, which cannot show a break. So
                        // the document has to confirm any other end.
                        None if *missing == Some(0) => {
                            self.complete();
                            return Poll::Ready(None);
                        }
                        None => None,
                    }
                }
                State::Resuming(resuming) => {
                    match ready!(resuming.get_mut().as_mut().poll(cx)) {
                        Resumed::Part(part, resume) => {
                            self.state = State::reading(part, resume);
                            continue;
                        }
                        Resumed::Complete => self.state = State::Ended,
                        Resumed::Failed(error) => {
                            self.state = State::Ended;
                            return Poll::Ready(Some(Err(error)));
                        }
                    }
                    return Poll::Ready(None);
                }
                State::Ended => return Poll::Ready(None),
            };
            self.resume(error);
        }
    }

    fn resume(&mut self, error: Option<R::Error>) {
        if let State::Reading { body, resume, .. } = mem::replace(&mut self.state, State::Ended) {
            // Closes the connection, or returns it to the client's pool.
            drop(body);
            let end = PartEnd {
                received: self.received,
                error,
            };
            let resuming = resume.into_inner().resume(end);
            self.state = State::Resuming(Exclusive::new(resuming));
        }
    }

    fn complete(&mut self) {
        if let State::Reading { resume, .. } = mem::replace(&mut self.state, State::Ended) {
            resume.into_inner().complete();
        }
    }
}

impl<R: Body> State<R> {
    fn reading(part: ReceivedPart<R>, resume: BoxResume<R>) -> Self {
        Self::Reading {
            body: Box::pin(part.body),
            missing: part.length,
            resume: Exclusive::new(resume),
        }
    }
}

impl<R: Body> fmt::Debug for ResumableBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumableBody")
            .field("received", &self.received)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}
