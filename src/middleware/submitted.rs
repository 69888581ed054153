//! The response to a client whose request is a job, while the job runs.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Response, response};
use http_body::{Body, Frame, SizeHint};

use crate::{
    job::JobId,
    limit::Pace,
    protocol::{BoxError, has_content},
    registry::Registry,
    run::{RelayReader, Relayed},
    store::{Reading, ResultBody, Store},
};

type OpenedCopy<E> = Pin<Box<dyn Future<Output = Result<Option<Reading>, E>> + Send>>;

/// The run of a job that has just been accepted.
const FIRST_RUN: u32 = 1;

/// Returns the response of a call to the client that submitted its request.
pub(super) fn submitted<St: Store>(
    registry: &Arc<Registry<St>>,
    id: JobId,
    relay: RelayReader,
    head: response::Parts,
    hint: &SizeHint,
) -> Response<ResultBody> {
    let length = hint.exact().or_else(|| relay.complete_length());
    if !has_content(head.status) || relay.complete_length() == Some(0) {
        // Without a hint, as the service's own: axum writes a length from one, which a 204 must not
        // have.
        return Response::from_parts(head, ResultBody::default());
    }
    let body = SubmittedBody {
        pace: registry.paces.get(id),
        registry: registry.clone(),
        id,
        relay,
        source: SubmittedSource::Relay,
        offset: 0,
        length,
    };
    Response::from_parts(head, ResultBody::streamed(body))
}

/// The body of a response, for the client that submitted the request.
///
/// It gets each frame as the service produces it. A client that falls behind reads the store's
/// copy, and beyond the end of that copy the frames again.
struct SubmittedBody<St: Store> {
    registry: Arc<Registry<St>>,
    id: JobId,
    relay: RelayReader,
    source: SubmittedSource<St::Error>,
    /// The number of bytes that the client has.
    offset: u64,
    /// The length of the whole body, if it is known.
    length: Option<u64>,
    pace: Option<Arc<Pace>>,
}

enum SubmittedSource<E> {
    Relay,
    Opening(OpenedCopy<E>),
    Copy(ResultBody),
    Done,
}

impl<St: Store> Body for SubmittedBody<St> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        loop {
            let frame = match &mut this.source {
                SubmittedSource::Relay => match ready!(this.relay.poll_next(this.offset, cx)) {
                    Relayed::Data(data) => Some(Ok(Frame::data(data))),
                    Relayed::Behind => {
                        this.source = SubmittedSource::Opening(this.open());
                        continue;
                    }
                    Relayed::End(trailers) => trailers.map(|all| Ok(Frame::trailers(all))),
                    Relayed::Broken => Some(Err("the response broke off".into())),
                },
                SubmittedSource::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    // Another process may have run the job again meanwhile.
                    Ok(Some(copy)) if copy.run != FIRST_RUN => {
                        Some(Err("the output was produced anew".into()))
                    }
                    Ok(Some(copy)) => {
                        this.source = SubmittedSource::Copy(copy.response.into_body());
                        continue;
                    }
                    Ok(None) if this.go_on() => continue,
                    Ok(None) => Some(Err("the job was removed".into())),
                    Err(error) => Some(Err(error.into())),
                },
                SubmittedSource::Copy(copy) => match ready!(Pin::new(copy).poll_frame(cx)) {
                    Some(Err(_)) if this.go_on() => continue,
                    frame => frame,
                },
                SubmittedSource::Done => return Poll::Ready(None),
            };
            match &frame {
                Some(Ok(frame)) if frame.is_data() => {
                    this.offset += frame.data_ref().map_or(0, Bytes::len) as u64;
                    if let Some(pace) = &this.pace {
                        pace.advance(this.offset);
                    }
                }
                _ => this.source = SubmittedSource::Done,
            }
            return Poll::Ready(frame);
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, SubmittedSource::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            Some(length) => SizeHint::with_exact(length.saturating_sub(self.offset)),
            None => SizeHint::default(),
        }
    }
}

impl<St: Store> SubmittedBody<St> {
    /// Opens the store's copy of what the client does not have yet.
    fn open(&self) -> OpenedCopy<St::Error> {
        let (registry, id, offset) = (self.registry.clone(), self.id, self.offset);
        Box::pin(async move { registry.store.read(id, offset).await })
    }

    /// Goes on with the frames if the copy has ended here. Returns `false` if it broke off.
    fn go_on(&mut self) -> bool {
        let goes_on = self.relay.goes_on_at(self.offset);
        if goes_on {
            self.source = SubmittedSource::Relay;
        }
        goes_on
    }
}
