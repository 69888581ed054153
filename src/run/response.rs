//! Collects the response of a call into the job's store.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header, response};
use http_body::Body;
use pin_project::pin_project;

use super::{job::Job, log::log_error, outlets::Outlets, relay::RelayWriter};
use crate::{
    config::Settings,
    job::ErrorCode,
    limit::PaceLimit,
    protocol::{
        BoxError, PollAllowance, RESULT_TARGET, has_content, has_relative_references, poll_bytes,
        strip_hop_by_hop,
    },
    store::{MAX_FIELD_VALUES, Outcome, Store, Writer, fields_price},
};

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// Collects a response, whatever the type of its body.
pub(crate) trait Collect<W> {
    /// Returns the status of the response.
    fn status(&self) -> StatusCode;

    /// Breaks off the response. Its readers get the part that was written, then an error. Its body
    /// is still read, in case it cleans up.
    fn abandon(self: Pin<&mut Self>);

    /// Returns `true` if the job ends before the response, whose rest goes to the submitter alone.
    fn is_relaying(&self) -> bool;

    /// Completes with the outcome of the call. While the response is relayed, completes again when
    /// the submitter has all of it.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome<W>>;
}

/// A frame of a response, or what comes before it.
enum ResponseFrame {
    /// The head, and the length of the body if it is known. A response that gets all its room at
    /// once need not wait midway.
    Declared {
        head: usize,
        body: usize,
    },
    Data(Bytes),
    Trailers(HeaderMap),
}

impl ResponseFrame {
    /// Returns the bytes to take room for, if there is room for `ahead` bytes of data.
    fn missing_bytes(&self, ahead: usize) -> usize {
        match self {
            Self::Declared { head, body } => head.saturating_add(*body),
            Self::Data(data) => data.len().saturating_sub(ahead),
            Self::Trailers(trailers) => fields_price(trailers),
        }
    }
}

/// Collects a response with a body of type `R`.
#[pin_project(project = CollectResponseProj)]
pub(crate) struct CollectResponse<R, W> {
    #[pin]
    body: R,
    status: StatusCode,
    /// Taken with the outcome. `None` from the start if the head has too many fields.
    writer: Option<W>,
    /// A frame that the store has no room for yet.
    frame: Option<ResponseFrame>,
    /// The bytes that the store has room for and that have not come yet.
    ahead: usize,
    /// The number of bytes of the body so far.
    length: u64,
    /// The number of bytes that the head declares.
    declared: Option<u64>,
    max_length: u64,
    /// The number of values in the trailers so far.
    trailer_values: usize,
    is_abandoned: bool,
    relay: Option<RelayWriter>,
    relayed_trailers: Option<HeaderMap>,
    is_relaying: bool,
    pace: Option<PaceLimit>,
}

impl<R, W> CollectResponse<R, W> {
    /// Creates the collector of a response to a request for `target`.
    pub(crate) fn new<St>(
        response: Response<R>,
        job: &Job<St>,
        target: Option<&str>,
        outlets: Outlets,
    ) -> Self
    where
        R: Body,
        St: Store<Writer = W>,
    {
        let (mut head, body) = response.into_parts();
        if let Some(relay) = &outlets.relay {
            relay.begin(head.clone(), body.size_hint());
        }
        let (registry, settings) = (&job.registry, &job.registry.settings);
        let has_body = !job.is_head && has_content(head.status);
        let declared = head
            .headers
            .get(header::CONTENT_LENGTH)
            .filter(|_| has_body)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let length = declared.or_else(|| body.size_hint().exact());
        let length = length.filter(|_| has_body);
        let room = length.and_then(|length| usize::try_from(length).ok());
        let room = room
            .filter(|&room| room <= settings.max_result)
            .unwrap_or(0);
        strip(&mut head, settings, job.is_owned);
        if let Some(target) = target {
            keep_target(&mut head, target);
        }
        let is_kept = head.headers.len() <= MAX_FIELD_VALUES;
        Self {
            body,
            status: head.status,
            frame: Some(ResponseFrame::Declared {
                head: fields_price(&head.headers),
                body: room,
            }),
            writer: is_kept.then(|| registry.store.respond(&job.claim, head, length)),
            ahead: 0,
            length: 0,
            declared,
            max_length: settings.max_result as u64,
            trailer_values: 0,
            is_abandoned: false,
            relay: outlets.relay,
            relayed_trailers: None,
            is_relaying: false,
            pace: outlets.pace,
        }
    }
}

impl<R, W> CollectResponseProj<'_, R, W> {
    /// Goes on with the submitter alone, if it is still there.
    fn relay_rest(&mut self) {
        let pending = match self.frame {
            Some(ResponseFrame::Data(data)) => data.len() as u64,
            _ => 0,
        };
        let relay = self.relay.as_ref();
        *self.is_relaying = relay.is_some_and(|relay| relay.end_copy(*self.length - pending));
    }
}

impl<R, W> Collect<W> for CollectResponse<R, W>
where
    R: Body,
    R::Error: Into<BoxError>,
    W: Writer,
{
    fn status(&self) -> StatusCode {
        self.status
    }

    fn abandon(self: Pin<&mut Self>) {
        let this = self.project();
        if let Some(mut writer) = this.writer.take() {
            writer.flush();
        }
        if *this.is_relaying {
            return;
        }
        *this.relay = None;
        *this.frame = None;
        *this.is_abandoned = true;
    }

    fn is_relaying(&self) -> bool {
        self.is_relaying
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome<W>> {
        let mut this = self.project();
        if *this.is_abandoned {
            return poll_discarded(this.body, cx).map(Outcome::NoResponse);
        }
        if *this.is_relaying {
            ready!(poll_relayed(&mut this, cx));
            return Poll::Ready(Outcome::NoResponse(ErrorCode::ResultTooLarge));
        }
        let written = ready!(poll_written(&mut this, cx));
        let code = match written.map(|()| this.writer.take()) {
            Ok(Some(writer)) => {
                if let Some(relay) = &this.relay {
                    relay.complete(this.relayed_trailers.take());
                }
                return Poll::Ready(Outcome::Response(writer));
            }
            // The head has too many fields.
            Ok(None) => ErrorCode::ResultTooLarge,
            Err(code) => code,
        };
        if code == ErrorCode::ResultTooLarge {
            this.relay_rest();
        }
        Poll::Ready(Outcome::NoResponse(code))
    }
}

/// Completes when the body of an abandoned response has been read.
fn poll_discarded<R: Body>(mut body: Pin<&mut R>, cx: &mut Context<'_>) -> Poll<ErrorCode> {
    let mut allowance = PollAllowance::new();
    loop {
        ready!(allowance.poll_next(&*body, cx));
        match ready!(body.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => allowance.count(frame.data_ref().map_or(0, Buf::remaining)),
            Some(Err(_)) | None => return Poll::Ready(ErrorCode::Canceled),
        }
    }
}

/// Completes when the whole response has been written.
fn poll_written<R, W>(
    this: &mut CollectResponseProj<'_, R, W>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), ErrorCode>>
where
    R: Body,
    R::Error: Into<BoxError>,
    W: Writer,
{
    let Some(writer) = this.writer else {
        return Poll::Ready(Ok(()));
    };
    let mut allowance = PollAllowance::new();
    loop {
        if let Some(frame) = this.frame {
            let Poll::Ready(room) = writer.poll_room(frame.missing_bytes(*this.ahead), cx) else {
                // The store may wait for its readers.
                writer.flush();
                return Poll::Pending;
            };
            room.map_err(|_| ErrorCode::ResultTooLarge)?;
            match this.frame.take() {
                Some(ResponseFrame::Declared { body, .. }) => *this.ahead = body,
                Some(ResponseFrame::Data(data)) => {
                    *this.ahead = this.ahead.saturating_sub(data.len());
                    if !data.is_empty() {
                        if let Some(relay) = &this.relay {
                            relay.push(&data);
                        }
                        writer.push(data);
                    }
                }
                Some(ResponseFrame::Trailers(trailers)) => {
                    if this.relay.is_some() {
                        merge_trailers(this.relayed_trailers, trailers.clone());
                    }
                    writer.push_trailers(trailers);
                }
                None => {}
            }
        }
        // Content that the status cannot have would break the framing of the replay.
        if !has_content(*this.status) {
            break;
        }
        let may_read = match this.pace {
            Some(pace) => pace.poll_beyond(*this.length, cx),
            None => Poll::Ready(()),
        };
        if may_read.is_pending() || allowance.poll_next(&*this.body, cx).is_pending() {
            // A reader gets what a body that is never pending has yielded.
            writer.flush();
            return Poll::Pending;
        }
        let frame = match poll_bytes(this.body.as_mut(), cx) {
            Poll::Ready(Some(frame)) => frame,
            Poll::Ready(None) => break,
            Poll::Pending => {
                writer.flush();
                return Poll::Pending;
            }
        };
        let frame = frame.map_err(|error| {
            log_error("response body failed", &*error.into());
            ErrorCode::BodyError
        })?;
        match frame.into_data() {
            Ok(data) => {
                allowance.count(data.len());
                *this.length += data.len() as u64;
                if this
                    .declared
                    .is_some_and(|declared| *this.length > declared)
                {
                    break;
                }
                *this.frame = Some(ResponseFrame::Data(data));
                if *this.length > *this.max_length {
                    return Poll::Ready(Err(ErrorCode::ResultTooLarge));
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    *this.trailer_values += trailers.len();
                    *this.frame = Some(ResponseFrame::Trailers(trailers));
                    if *this.trailer_values > MAX_FIELD_VALUES {
                        return Poll::Ready(Err(ErrorCode::ResultTooLarge));
                    }
                }
            }
        }
    }
    if this
        .declared
        .is_some_and(|declared| declared != *this.length)
    {
        tracing::error!("response body does not have the length that its head declares");
        return Poll::Ready(Err(ErrorCode::BodyError));
    }
    Poll::Ready(Ok(()))
}

/// Completes when the submitter has the whole response, or has disconnected. The store keeps no
/// more of it.
fn poll_relayed<R, W>(this: &mut CollectResponseProj<'_, R, W>, cx: &mut Context<'_>) -> Poll<()>
where
    R: Body,
    R::Error: Into<BoxError>,
{
    let Some(relay) = this.relay else {
        return Poll::Ready(());
    };
    let mut allowance = PollAllowance::new();
    loop {
        if let Some(frame) = this.frame {
            let has_client = ready!(relay.poll_room(cx));
            if !has_client {
                break;
            }
            match std::mem::replace(frame, ResponseFrame::Data(Bytes::new())) {
                ResponseFrame::Data(data) if !data.is_empty() => relay.push_alone(data),
                ResponseFrame::Trailers(trailers) => {
                    merge_trailers(this.relayed_trailers, trailers)
                }
                ResponseFrame::Data(_) | ResponseFrame::Declared { .. } => {}
            }
            *this.frame = None;
        }
        if !has_content(*this.status) {
            relay.complete(None);
            break;
        }
        // A body may be quiet for long.
        if relay.poll_gone(cx).is_ready() {
            break;
        }
        ready!(allowance.poll_next(&*this.body, cx));
        match ready!(poll_bytes(this.body.as_mut(), cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    allowance.count(data.len());
                    *this.length += data.len() as u64;
                    *this.frame = Some(ResponseFrame::Data(data));
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().ok();
                    *this.frame = trailers.map(ResponseFrame::Trailers);
                }
            },
            Some(Err(error)) => {
                log_error("response body failed", &*error.into());
                break;
            }
            None => {
                if this
                    .declared
                    .is_none_or(|declared| declared == *this.length)
                {
                    relay.complete(this.relayed_trailers.take());
                }
                break;
            }
        }
    }
    // Breaks off the response unless it is complete.
    *this.relay = None;
    Poll::Ready(())
}

/// Adds trailers to others.
fn merge_trailers(all: &mut Option<HeaderMap>, trailers: HeaderMap) {
    match all {
        Some(all) => all.extend(trailers),
        none => *none = Some(trailers),
    }
}

/// Removes the fields of a response that must not be kept.
///
/// `Content-Length` is written again from the stored body. Cookies stay only if the submitter alone
/// can read the result.
fn strip(head: &mut response::Parts, settings: &Settings, is_owned: bool) {
    let headers = &mut head.headers;
    headers.remove(header::CONTENT_LENGTH);
    if !settings.replay_cookies && !is_owned {
        headers.remove(header::SET_COOKIE);
        headers.remove(CLEAR_SITE_DATA);
    }
    strip_hop_by_hop(headers);
}

/// Adds the target of the request if references in the response depend on it.
///
/// The monitor serves the response under another URI, and resolves them there.
fn keep_target(head: &mut response::Parts, target: &str) {
    if has_relative_references(&head.headers)
        && let Ok(target) = HeaderValue::from_str(target)
    {
        head.headers.insert(RESULT_TARGET, target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_fields_are_not_kept() {
        let (mut head, ()) = Response::builder()
            .header("connection", "close, X-Hop")
            .header("connection", "x-other")
            .header("keep-alive", "timeout=5")
            .header("transfer-encoding", "chunked")
            .header("x-hop", "1")
            .header("x-other", "1")
            .header("content-length", "3")
            .header("trailer", "x-sum")
            .header("x-kept", "1")
            .body(())
            .expect("a response")
            .into_parts();
        strip(&mut head, &Settings::default(), false);
        let left: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-kept", "trailer"]);
    }
}
