//! Sends one follow-up request and interprets its response.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response, StatusCode, header, response::Parts};
use http_body::Body;
use tokio::time::{Instant, timeout};
use tower_service::Service;

use super::{
    Reason, StatusDocument,
    deadline::Deadline,
    document::is_json,
    interpret::{MonitorProfile, PollOutcome, interpret_result, interpret_stream},
    oneshot::oneshot,
    options::FollowOptions,
    origin::FollowTarget,
    peeked::{Buffered, ClientResponse, PeekedBody},
    schedule::PollSchedule,
    template::RequestTemplate,
};
use crate::protocol::{BoxError, PREFER};

/// Sends the follow-up requests of one original request.
pub(super) struct Poller<S, B> {
    pub(super) service: S,
    pub(super) options: Arc<FollowOptions>,
    pub(super) template: RequestTemplate,
    pub(super) deadline: Deadline,
    pub(super) _body: PhantomData<fn() -> B>,
}

/// The response to one follow-up request.
pub(super) struct PollResponse<R: Body> {
    pub(super) head: Parts,
    pub(super) body: PeekedBody<R>,
    pub(super) document: Option<StatusDocument>,
    pub(super) outcome: PollOutcome,
    /// The time that the server held the response because of `Prefer: wait`.
    pub(super) held: Duration,
}

/// The reason why a follow-up request has no usable response.
pub(super) enum PollError {
    /// The request may be sent again.
    Transport(BoxError),
    Final(Reason),
}

impl From<Reason> for PollError {
    fn from(reason: Reason) -> Self {
        Self::Final(reason)
    }
}

impl<S, B, R> Poller<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    B: Default + Send,
    R: Body + Send,
{
    /// Requests the result of an ended job.
    pub(super) async fn fetch_result(
        &mut self,
        at: &FollowTarget,
    ) -> Result<PollResponse<R>, PollError> {
        let request = self.template.fetch(at);
        let response = self.send(request, Duration::ZERO).await?;
        let (head, body) = response.into_parts();
        Ok(PollResponse {
            outcome: interpret_result(&head),
            head,
            body,
            document: None,
            held: Duration::ZERO,
        })
    }

    /// Polls the monitor at `at`, which is its own URI or the target of a redirect.
    ///
    /// Asks the server to hold the response for `wait`, in whole seconds. Zero means not at all.
    /// With `entity_tag`, the server holds it only while the document has that tag.
    pub(super) async fn poll_monitor(
        &mut self,
        profile: MonitorProfile,
        entity_tag: Option<&HeaderValue>,
        at: &FollowTarget,
        wait: Duration,
    ) -> Result<PollResponse<R>, PollError> {
        let mut request: Request<B> = self.template.poll(at);
        let mut is_conditional = false;
        if !wait.is_zero() {
            prefer_wait(&mut request, wait);
            // With a condition, the server responds to the next change. Without one, to the end.
            if let Some(entity_tag) = entity_tag {
                request
                    .headers_mut()
                    .insert(header::IF_NONE_MATCH, entity_tag.clone());
                is_conditional = true;
            }
        }
        let start = Instant::now();
        let (head, mut body) = self.send(request, wait).await?.into_parts();
        let held = if wait.is_zero() {
            Duration::ZERO
        } else {
            start.elapsed()
        };
        let mut document = None;
        let outcome = if is_conditional && head.status == StatusCode::NOT_MODIFIED {
            PollOutcome::Pending(profile.style)
        } else {
            if profile.may_be_document(&head) {
                let is_required = profile.requires_document();
                document = self.read_document(is_required, &mut body).await?;
            }
            let state = document.as_ref().and_then(StatusDocument::state);
            profile.interpret(&head, state)
        };
        Ok(PollResponse {
            head,
            body,
            document,
            outcome,
            held,
        })
    }

    /// Requests the output of a job at `at`, and insists on the run that `run` names.
    ///
    /// Asks the server to wait for the head of the response for `wait`, in whole seconds.
    pub(super) async fn open_stream(
        &mut self,
        at: &FollowTarget,
        run: Option<&HeaderValue>,
        wait: Duration,
    ) -> Result<PollResponse<R>, PollError> {
        let mut request: Request<B> = self.template.stream(at);
        // Without this preference, the server chooses how long it waits.
        prefer_wait(&mut request, wait);
        if let Some(run) = run {
            let headers = request.headers_mut();
            headers.insert(header::IF_MATCH, run.clone());
        }
        let start = Instant::now();
        let (head, mut body) = self.send(request, wait).await?.into_parts();
        let held = start.elapsed();
        let outcome = interpret_stream(&head);
        let mut document = None;
        if matches!(outcome, PollOutcome::Pending(_)) && is_json(&head.headers) {
            document = self.read_document(true, &mut body).await?;
        }
        Ok(PollResponse {
            head,
            body,
            document,
            outcome,
            held,
        })
    }

    /// Requests the events of the job whose monitor is `at`.
    pub(super) async fn open_events(
        &mut self,
        at: &FollowTarget,
    ) -> Result<ClientResponse<R>, PollError> {
        let request = self.template.events(at);
        self.send(request, Duration::ZERO).await
    }

    /// Returns the longest time to ask a server to hold a response, in whole seconds.
    pub(super) fn longest_wait(&self, schedule: &PollSchedule) -> Duration {
        let wait = schedule.max_wait().min(self.deadline.remaining());
        Duration::from_secs(wait.as_secs())
    }

    /// Sends a request. Fails if no head arrives in time.
    async fn send(
        &mut self,
        request: Request<B>,
        wait: Duration,
    ) -> Result<ClientResponse<R>, PollError> {
        let limit = self.options.answer_timeout.saturating_add(wait);
        let response = timeout(limit, oneshot(self.service.clone(), request));
        match self.deadline.limit(response).await? {
            Ok(Ok(response)) => Ok(response.map(PeekedBody::new)),
            Ok(Err(error)) => Err(PollError::Transport(error.into())),
            Err(elapsed) => Err(PollError::Transport(elapsed.into())),
        }
    }

    /// Reads a body that may be a status document. If it must be one, a large body is an error.
    async fn read_document(
        &mut self,
        is_required: bool,
        body: &mut PeekedBody<R>,
    ) -> Result<Option<StatusDocument>, PollError> {
        let limit = self.options.max_document_bytes;
        let buffering = timeout(self.options.answer_timeout, body.buffer(limit));
        match self.deadline.limit(buffering).await? {
            Ok(Buffered::Complete(json)) => Ok(StatusDocument::parse(&json)),
            Ok(Buffered::TooLarge) if is_required => Err(Reason::DocumentTooLarge(limit).into()),
            Ok(Buffered::TooLarge) => Ok(None),
            Ok(Buffered::Failed) => Err(PollError::Transport(
                "failed to read the status document".into(),
            )),
            Err(elapsed) => Err(PollError::Transport(elapsed.into())),
        }
    }
}

/// Asks a server to hold its response (RFC 7240 §4.3).
fn prefer_wait<B>(request: &mut Request<B>, wait: Duration) {
    if let Ok(wait) = HeaderValue::try_from(format!("wait={}", wait.as_secs())) {
        request.headers_mut().insert(PREFER, wait);
    }
}
