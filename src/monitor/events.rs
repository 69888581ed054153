//! A job's documents as they come: Server-Sent Events, as the HTML standard writes them (§9.2).

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderName, HeaderValue, Response, StatusCode, header, request::Parts};
use pin_project::pin_project;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    body::MonitorBody,
    document::document,
    status::{NO_STORE, VARY, empty},
};
use crate::{job::Snapshot, registry::Registry, store::Store, telemetry::Counted};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Tells nginx not to hold events back until there are many.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// After how long without an event a comment is sent, so that nobody on the way takes the connection
/// for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What is sent first: after how many milliseconds a reader that was cut off comes back.
const RETRY: &str = "retry: 2000\n\n";

/// Answers a GET for the events of a job.
pub(super) fn follow<St: Store>(
    registry: &Arc<Registry<St>>,
    job: &Snapshot,
    head: &Parts,
) -> Response<MonitorBody> {
    let seen = head.headers.get(LAST_EVENT_ID);
    let seen = seen.and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    // An `EventSource` comes back when its stream ends; nothing but this keeps it from doing so for
    // ever.
    if job.status.is_ended() && seen == Some(job.revision) {
        let mut response = empty(StatusCode::NO_CONTENT).map(MonitorBody::from);
        response.headers_mut().append(header::VARY, VARY);
        return response;
    }
    let events = Events {
        changes: registry.store.changes(job.id),
        registry: registry.clone(),
        seen,
        first: true,
        ended: false,
        heartbeat: None,
        _counted: Counted::stream(),
    };
    let mut response = Response::new(MonitorBody::events(events));
    let headers = response.headers_mut();
    let event_stream = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, event_stream);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.append(header::VARY, VARY);
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// The events of one job for one reader.
///
/// It holds no document: each is made when the connection has room for it, from the job as it is then.
/// So a slow reader skips what it was too slow for.
#[pin_project]
struct Events<St: Store> {
    #[pin]
    changes: St::Changes,
    registry: Arc<Registry<St>>,
    /// The revision that the reader has already.
    seen: Option<u64>,
    first: bool,
    ended: bool,
    /// Made when the events are first asked for: the answer may be made outside of a runtime.
    heartbeat: Option<Pin<Box<Sleep>>>,
    _counted: Counted,
}

impl<St: Store> Stream for Events<St> {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        // At once, whatever follows: the reader is to know that it is connected.
        if std::mem::take(this.first) {
            return Poll::Ready(Some(Bytes::from_static(RETRY.as_bytes())));
        }
        let heartbeat = this
            .heartbeat
            .get_or_insert_with(|| Box::pin(sleep(HEARTBEAT)));
        loop {
            match this.changes.as_mut().poll_next(cx) {
                Poll::Ready(Some(job)) => {
                    *this.ended = job.status.is_ended();
                    if this.seen.take() == Some(job.revision) {
                        continue;
                    }
                    heartbeat.as_mut().reset(Instant::now() + HEARTBEAT);
                    return Poll::Ready(Some(event(&job, this.registry)));
                }
                Poll::Ready(None) => {
                    *this.ended = true;
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    ready!(heartbeat.as_mut().poll(cx));
                    heartbeat.as_mut().reset(Instant::now() + HEARTBEAT);
                    return Poll::Ready(Some(Bytes::from_static(b":\n\n")));
                }
            }
        }
    }
}

/// A document is one line: within a JSON text, line breaks are escaped.
fn event<St>(job: &Snapshot, registry: &Registry<St>) -> Bytes {
    job.teach(&registry.estimates);
    let document = document(job, &registry.settings);
    let mut event = format!("event: status\nid: {}\ndata: ", job.revision).into_bytes();
    event.extend_from_slice(&document);
    event.extend_from_slice(b"\n\n");
    event.into()
}
