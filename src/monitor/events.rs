//! Streams the documents of a job as Server-Sent Events (HTML standard, §9.2).

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
    document::linked_document,
    status::{VARY, empty},
};
use crate::{
    config::LinkOrigin, job::Snapshot, protocol::LAST_EVENT_ID, registry::Registry, store::Store,
    telemetry::GaugeGuard,
};

/// Also keeps compression middleware from holding events back.
const NO_STORE_NO_TRANSFORM: HeaderValue = HeaderValue::from_static("no-store, no-transform");

/// Turns off the response buffer of nginx, which would delay events.
pub(super) const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(super) const NO_ACCEL_BUFFERING: HeaderValue = HeaderValue::from_static("no");

/// The maximum silence on a stream. A comment then keeps proxies from closing the connection.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);

/// The first block of a stream: the milliseconds after which a disconnected client reconnects.
const RETRY_FIELD: &str = "retry: 2000\n\n";

/// Responds to a GET for the events of a job.
pub(super) fn follow<St: Store>(
    registry: &Arc<Registry<St>>,
    job: &Snapshot,
    head: &Parts,
) -> Response<MonitorBody> {
    let seen = head.headers.get(LAST_EVENT_ID);
    let seen = seen.and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    // An `EventSource` reconnects whenever its stream ends, until it receives a 204.
    if job.status.is_ended() && seen == Some(job.revision) {
        let mut response = empty(StatusCode::NO_CONTENT).map(MonitorBody::from);
        response.headers_mut().append(header::VARY, VARY);
        return response;
    }
    let events = Events {
        changes: registry.store.changes(job.id),
        registry: registry.clone(),
        seen,
        is_connected: false,
        is_ended: false,
        heartbeat: None,
        _gauge: GaugeGuard::stream(),
    };
    let mut response = Response::new(MonitorBody::events(events));
    let headers = response.headers_mut();
    let event_stream = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, event_stream);
    headers.insert(header::CACHE_CONTROL, NO_STORE_NO_TRANSFORM);
    headers.append(header::VARY, VARY);
    headers.insert(X_ACCEL_BUFFERING, NO_ACCEL_BUFFERING);
    response
}

/// The events of one job for one client.
///
/// It buffers no document: each is written from the current job when the connection has room. A
/// slow client therefore skips to the newest document.
#[pin_project]
struct Events<St: Store> {
    #[pin]
    changes: St::Changes,
    registry: Arc<Registry<St>>,
    /// The revision that the client already has.
    seen: Option<u64>,
    is_connected: bool,
    is_ended: bool,
    /// Created by the first poll, since a response may be created outside a runtime.
    heartbeat: Option<Pin<Box<Sleep>>>,
    _gauge: GaugeGuard,
}

impl<St: Store> Stream for Events<St> {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut this = self.project();
        if *this.is_ended {
            return Poll::Ready(None);
        }
        // Sent before the first change, so that the client knows that it is connected.
        if !std::mem::replace(this.is_connected, true) {
            return Poll::Ready(Some(Bytes::from_static(RETRY_FIELD.as_bytes())));
        }
        let heartbeat = this
            .heartbeat
            .get_or_insert_with(|| Box::pin(sleep(HEARTBEAT_INTERVAL)));
        loop {
            match this.changes.as_mut().poll_next(cx) {
                Poll::Ready(Some(job)) => {
                    *this.is_ended = job.status.is_ended();
                    if this.seen.take() == Some(job.revision) {
                        continue;
                    }
                    heartbeat
                        .as_mut()
                        .reset(Instant::now() + HEARTBEAT_INTERVAL);
                    return Poll::Ready(Some(event(&job, this.registry)));
                }
                Poll::Ready(None) => {
                    *this.is_ended = true;
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    ready!(heartbeat.as_mut().poll(cx));
                    heartbeat
                        .as_mut()
                        .reset(Instant::now() + HEARTBEAT_INTERVAL);
                    return Poll::Ready(Some(Bytes::from_static(b":\n\n")));
                }
            }
        }
    }
}

/// Returns the event for a job. Its document is one line, since JSON escapes line breaks.
fn event<St>(job: &Snapshot, registry: &Registry<St>) -> Bytes {
    job.teach(&registry.estimates);
    if job.status.is_ended() {
        registry.record_shown(job, 0);
    }
    let document = linked_document(
        LinkOrigin::Document,
        &job.id.encode(),
        job,
        &registry.settings,
    );
    let mut event = format!("event: status\nid: {}\ndata: ", job.revision).into_bytes();
    event.extend_from_slice(&document);
    event.extend_from_slice(b"\n\n");
    event.into()
}
