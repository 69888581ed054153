//! Reads the status documents that a monitor sends as Server-Sent Events (HTML standard, §9.2).

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{Response, StatusCode, header};
use http_body::Body;
use tokio::time::timeout;
use tower_service::Service;

use super::{
    Reason, StatusDocument,
    document::{DocumentState, media_type},
    origin::FollowTarget,
    peeked::PeekedBody,
    poll::{PollError, Poller},
};
use crate::protocol::{BoxError, EventScanner, PollAllowance, retry_after};

/// The maximum silence of an event stream. This crate's server sends a comment every 15 s.
const MAX_SILENCE: Duration = Duration::from_secs(40);

/// The end of an event stream.
pub(super) enum Watched {
    /// An event has shown the end of the job.
    Ended,
    /// There is no stream, or it has broken off.
    Unavailable {
        /// The `Retry-After` of a response without a stream.
        retry_after: Option<Duration>,
    },
}

/// Reads the events of the job whose monitor is `at`, and passes on the document of each until the
/// job has ended. A poll then reads the end itself.
pub(super) async fn watch<S, B, R>(
    poller: &mut Poller<S, B>,
    at: &FollowTarget,
    mut on_document: impl FnMut(StatusDocument),
) -> Result<Watched, Reason>
where
    S: Service<http::Request<B>, Response = Response<R>> + Clone + Send,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    B: Default + Send,
    R: Body + Send,
{
    let response = match poller.open_events(at).await {
        Ok(response) => response,
        Err(PollError::Final(reason)) => return Err(reason),
        Err(PollError::Transport(error)) => {
            let error = &*error as &dyn std::error::Error;
            tracing::debug!(error, "failed to read events of job");
            return Ok(Watched::Unavailable { retry_after: None });
        }
    };
    let (head, body) = response.into_parts();
    let is_events = media_type(&head.headers)
        .is_some_and(|media_type| media_type.eq_ignore_ascii_case("text/event-stream"));
    let is_coded = head.headers.contains_key(header::CONTENT_ENCODING);
    if head.status != StatusCode::OK || !is_events || is_coded {
        let retry_after = retry_after(&head.headers);
        return Ok(Watched::Unavailable { retry_after });
    }
    let mut events = EventReader::new(body, poller.options.max_document_bytes);
    while let Some(document) = poller.deadline.limit(events.next()).await? {
        match document.state() {
            Some(DocumentState::Pending | DocumentState::MaybePending) => on_document(document),
            Some(DocumentState::Succeeded | DocumentState::Failed | DocumentState::Canceled) => {
                return Ok(Watched::Ended);
            }
            None => {}
        }
    }
    tracing::debug!("events of job broke off");
    Ok(Watched::Unavailable { retry_after: None })
}

/// Reads the documents in an event stream.
struct EventReader<R: Body> {
    body: Pin<Box<PeekedBody<R>>>,
    scanner: EventScanner,
    /// The bytes of the last frame that have not been scanned.
    frame: Bytes,
    /// The bytes so far of the event that has not ended.
    event: Vec<u8>,
    /// The maximum length of an event, in bytes.
    max_event: usize,
}

impl<R: Body> EventReader<R> {
    fn new(body: PeekedBody<R>, max_event: usize) -> Self {
        Self {
            body: Box::pin(body),
            scanner: EventScanner::default(),
            frame: Bytes::new(),
            event: Vec::new(),
            max_event,
        }
    }

    /// Returns the next document. Returns `None` if the stream ends or fails, if it is silent for
    /// too long, or if an event is too large.
    async fn next(&mut self) -> Option<StatusDocument> {
        loop {
            let event = timeout(MAX_SILENCE, poll_fn(|cx| self.poll_block(cx)));
            let block = event.await.ok()??;
            if let Some(document) = StatusDocument::parse(&data_of(&block)) {
                return Some(document);
            }
        }
    }

    /// Returns the next event, or block without data, such as a comment.
    fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        let mut allowance = PollAllowance::new();
        loop {
            let end = self.scanner.next(&self.frame);
            let length = end.as_ref().map_or(self.frame.len(), |end| end.length);
            if self.event.len() + length > self.max_event {
                return Poll::Ready(None);
            }
            self.event.extend_from_slice(&self.frame[..length]);
            self.frame.advance(length);
            if end.is_some() {
                return Poll::Ready(Some(std::mem::take(&mut self.event)));
            }
            ready!(allowance.poll_next(&*self.body, cx));
            let Some(Ok(frame)) = ready!(self.body.as_mut().poll_frame(cx)) else {
                return Poll::Ready(None);
            };
            // Trailers end the stream, and so leave nothing to scan.
            self.frame = frame.into_data().unwrap_or_default();
            allowance.count(self.frame.len());
        }
    }
}

/// Returns the data of an event: the values of its `data` fields, a line each.
fn data_of(event: &[u8]) -> Vec<u8> {
    let lines = event.split(|byte| matches!(byte, b'\r' | b'\n'));
    let values = lines.filter_map(|line| {
        let value = line.strip_prefix(b"data:")?;
        Some(value.strip_prefix(b" ").unwrap_or(value))
    });
    values.collect::<Vec<_>>().join(&b'\n')
}

#[cfg(test)]
mod tests {
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    fn reader(
        text: &'static str,
        chunk: usize,
        max_event: usize,
    ) -> EventReader<impl Body<Data = Bytes, Error = BoxError>> {
        let chunks = text.as_bytes().chunks(chunk);
        let frames = chunks.map(|chunk| Ok(Frame::data(Bytes::from_static(chunk))));
        let body = StreamBody::new(futures_util::stream::iter(frames));
        EventReader::new(PeekedBody::new(body), max_event)
    }

    #[tokio::test]
    async fn documents_are_read_whatever_the_chunks() {
        let text = "retry: 2000\n\n:\n\nid: 1\ndata: {\"status\":\"queued\"}\n\n\
                    data: no JSON\n\n\
                    event: status\r\ndata:{\"status\":\r\ndata:\"running\"}\r\n\r\ndata: {";
        for chunk in 1..=text.len() {
            let mut reader = reader(text, chunk, 100);
            let mut found = Vec::new();
            while let Some(document) = reader.next().await {
                found.push(document.status().unwrap_or_default().to_owned());
            }
            assert_eq!(found, ["queued", "running"], "{chunk}");
        }
    }

    #[tokio::test]
    async fn event_has_a_maximum_size() {
        let text = "data: {\"status\":\"queued\"}\n\n";
        assert!(reader(text, 5, text.len()).next().await.is_some());
        assert!(reader(text, 5, text.len() - 1).next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn silent_stream_ends() {
        let silent = StreamBody::new(futures_util::stream::pending::<
            Result<Frame<Bytes>, BoxError>,
        >());
        let mut reader = EventReader::new(PeekedBody::new(silent), 100);
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn endless_empty_frames_yield() {
        let empty =
            futures_util::stream::repeat_with(|| Ok::<_, BoxError>(Frame::data(Bytes::new())));
        let mut reader = EventReader::new(PeekedBody::new(StreamBody::new(empty)), 100);
        let next = timeout(Duration::from_millis(1), reader.next());
        assert!(next.await.is_err());
    }
}
