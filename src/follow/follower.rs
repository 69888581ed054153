//! Follows one 202 to the response of its job.

use std::{marker::PhantomData, time::Duration};

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::Body;
use tokio::time::{Instant, sleep, timeout};
use tower_service::Service;

use super::{
    NotFollowed, Observer, Reason, StatusDocument, Stopped, Update,
    body::{FollowBody, FollowResponse},
    cancel::CancelOnDrop,
    deadline::Deadline,
    destination::{Destination, Goal},
    document::{DocumentState, is_json},
    events::{Watched, watch},
    interpret::{MonitorStyle, PollOutcome, reads_prefer},
    links::{self, MonitorField, location},
    monitor::MonitorState,
    origin::{FollowTarget, OriginPolicy},
    original::OriginalRequest,
    peeked::{Buffered, ClientResponse},
    poll::{PollError, PollResponse, Poller},
    resume::JobResources,
    schedule::PollSchedule,
    template::RequestTemplate,
};
use crate::protocol::{BoxError, retry_after};

/// A 202 that is being followed.
pub(super) struct Follower<S, B, R: Body> {
    pub(super) poller: Poller<S, B>,
    pub(super) origins: OriginPolicy,
    method: Method,
    /// The URI of the original request.
    pub(super) home: FollowTarget,
    pub(super) observer: Option<Observer>,
    /// The 202, until its monitor has proved to be one. Until then the caller may get it back.
    accepted: Option<ClientResponse<R>>,
    /// The 202's `Location`, unless that is the monitor.
    location: Option<String>,
    pub(super) monitor: MonitorState,
    /// The last status document.
    pub(super) document: Option<StatusDocument>,
    pub(super) polls: u32,
    schedule: PollSchedule,
    pub(super) cancel: CancelOnDrop,
}

/// The response to return, and the URI that it came from.
pub(super) struct FollowedResponse<R: Body> {
    pub(super) to: Destination,
    pub(super) answer: PollResponse<R>,
}

impl<S, B, R: Body> Follower<S, B, R> {
    /// Prepares to follow a 202. Returns the 202 if it names no monitor.
    pub(super) fn new(
        original: OriginalRequest,
        service: S,
        mut accepted: ClientResponse<R>,
    ) -> Result<Self, Box<ClientResponse<R>>> {
        let OriginalRequest { options, request } = original;
        let origins = OriginPolicy::new(request.uri(), &options.origins);
        let home = FollowTarget {
            uri: request.uri().clone(),
            is_home: true,
        };
        let monitor = MonitorState::discover(
            accepted.headers(),
            &request,
            &origins,
            &home,
            options.location_is_monitor,
        );
        let monitor = match monitor {
            Ok(monitor) => monitor,
            Err(not_followed) => {
                accepted.extensions_mut().insert(not_followed);
                return Err(Box::new(accepted));
            }
        };
        let is_monitor = |reference| {
            let target = origins.resolve(&home, reference);
            target.is_ok_and(|target| target.uri == monitor.target.uri)
        };
        let location = location(accepted.headers()).filter(|&reference| !is_monitor(reference));
        let observer = request.extensions().get().or(options.observer.as_ref());
        Ok(Self {
            location: location.map(str::to_owned),
            observer: observer.cloned(),
            method: request.method().clone(),
            monitor,
            origins,
            home,
            accepted: Some(accepted),
            document: None,
            polls: 0,
            schedule: PollSchedule::new(&options),
            cancel: CancelOnDrop::default(),
            poller: Poller {
                service,
                template: RequestTemplate::new(&request, &options.shared_headers),
                deadline: Deadline::new(options.timeout),
                options,
                _body: PhantomData,
            },
        })
    }
}

impl<S, B, R> Follower<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    B: Default + Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError> + Send,
{
    /// Polls until there is a response to return.
    pub(super) async fn follow(mut self) -> Result<FollowResponse<R>, Box<Stopped>> {
        let found = match self.run().await {
            Ok(found) if found.to.goal == Goal::Stream => return Ok(self.finish_stream(found)),
            found => found,
        };
        self.cancel.disarm();
        match (found, self.accepted.take()) {
            (Ok(found), _) => Ok(self.finish(found).map(FollowBody::plain)),
            (Err(reason), Some(mut accepted)) => {
                tracing::debug!(?reason, "returning 202: its location is not a monitor");
                let not_followed = NotFollowed::NotAMonitor(self.monitor.target.uri);
                accepted.extensions_mut().insert(not_followed);
                Ok(accepted.map(FollowBody::plain))
            }
            (Err(reason), None) => {
                let stopped = Stopped::new(self.monitor.target.uri, reason, self.document);
                Err(Box::new(stopped))
            }
        }
    }

    async fn run(&mut self) -> Result<FollowedResponse<R>, Reason> {
        let first_pause = self.read_accepted().await;
        let mut pause = first_pause;
        let mut to = Destination::new(Goal::Monitor, self.monitor.target.clone());
        if let Some(stream) = self.stream_target() {
            // The server holds this request, so it needs no pause.
            pause = Duration::ZERO;
            to = Destination::new(Goal::Stream, stream);
        } else if self.observer.is_some() {
            pause = self.watch_events(first_pause).await?;
        }
        loop {
            self.poller.deadline.limit(sleep(pause)).await?;
            let answer = match self.send(&to).await {
                Ok(answer) => answer,
                Err(PollError::Final(reason)) => return Err(reason),
                Err(PollError::Transport(error)) => {
                    tracing::debug!(
                        error = &*error as &dyn std::error::Error,
                        "failed to poll job"
                    );
                    let retry = self.schedule.retry_pause(None);
                    pause = retry.ok_or(Reason::Unreachable(error))?;
                    to.restart();
                    continue;
                }
            };
            let retry_after = retry_after(&answer.head.headers);
            match answer.outcome {
                PollOutcome::Result => return Ok(FollowedResponse { to, answer }),
                PollOutcome::Pending(style) => {
                    match to.goal {
                        Goal::Monitor => {
                            self.set_style(style);
                            self.learn(&to.at, &answer)?;
                            to.start = self.monitor.target.clone();
                        }
                        Goal::Stream => self.learn_document(&answer),
                        Goal::Result => {}
                    }
                    to.restart();
                    self.schedule.reset_failures();
                    let max_polls = self.poller.options.max_polls;
                    if self.polls >= max_polls {
                        return Err(Reason::TooManyPolls(max_polls));
                    }
                    pause = if to.goal == Goal::Stream {
                        self.schedule.stream_pause(retry_after, answer.held)
                    } else {
                        let pause = self.schedule.next_pause(retry_after);
                        pause.saturating_sub(answer.held)
                    };
                }
                PollOutcome::Unavailable => {
                    let status = answer.head.status;
                    tracing::debug!(%status, "failed to poll job: monitor unavailable");
                    let retry = self.schedule.retry_pause(retry_after);
                    pause = retry.ok_or(Reason::Unavailable(status))?;
                    to.restart();
                }
                PollOutcome::Redirect { .. } | PollOutcome::ResultElsewhere => {
                    self.redirect(&mut to, &answer)?;
                    // A redirect's `Retry-After` is the least time before it is followed.
                    pause = retry_after.unwrap_or_default();
                }
                PollOutcome::Succeeded | PollOutcome::Failed | PollOutcome::Canceled => {
                    self.set_style(MonitorStyle::Document);
                    self.notify(&answer);
                    self.document.clone_from(&answer.document);
                    match (self.result_target(&to.at)?, answer.outcome) {
                        (Some(result), _) => {
                            to = Destination::new(Goal::Result, result);
                            self.schedule.reset_failures();
                            pause = Duration::ZERO;
                        }
                        (None, PollOutcome::Succeeded) => {
                            return Ok(FollowedResponse { to, answer });
                        }
                        (None, PollOutcome::Canceled) => return Err(Reason::Canceled),
                        (None, _) => return Err(Reason::Failed),
                    }
                }
                // The monitor has no stream, or the job has no output. Its document shows why.
                PollOutcome::Unreadable | PollOutcome::NotAMonitor if to.goal == Goal::Stream => {
                    let has_none = answer.outcome == PollOutcome::NotAMonitor;
                    pause = if has_none {
                        first_pause
                    } else {
                        Duration::ZERO
                    };
                    to = Destination::new(Goal::Monitor, self.monitor.target.clone());
                    self.schedule.reset_failures();
                }
                PollOutcome::Unreadable | PollOutcome::NotAMonitor => {
                    return Err(Reason::UnexpectedStatus(answer.head.status));
                }
            }
        }
    }

    /// Reads the status document of the 202. Returns the pause before the first poll.
    async fn read_accepted(&mut self) -> Duration {
        let mut hint = None;
        if let Some(accepted) = &mut self.accepted {
            hint = retry_after(accepted.headers());
            if is_json(accepted.headers()) {
                let options = &self.poller.options;
                let buffering = accepted.body_mut().buffer(options.max_document_bytes);
                let buffering = timeout(options.answer_timeout, buffering);
                // The 202 counts even if its body is late or fails.
                if let Ok(Ok(Buffered::Complete(json))) =
                    self.poller.deadline.limit(buffering).await
                {
                    self.document = StatusDocument::parse(&json);
                }
            }
            if let Some(observer) = &self.observer {
                observer.notify(Update::new(
                    self.monitor.target.uri.clone(),
                    0,
                    accepted.headers(),
                    self.document.clone(),
                ));
            }
        }
        self.set_style(MonitorStyle::Unknown);
        self.schedule.next_pause(hint)
    }

    /// Notifies the observer of each event of the job, if its monitor sends events. Returns the
    /// pause before the first poll: `pause` from now on, or none once an event shows the end.
    async fn watch_events(&mut self, pause: Duration) -> Result<Duration, Reason> {
        let start = Instant::now();
        let Some(at) = self.monitor.link().cloned() else {
            return Ok(pause);
        };
        self.polls = self.polls.saturating_add(1);
        let (uri, polls) = (&self.monitor.target.uri, self.polls);
        let (observer, document) = (&self.observer, &mut self.document);
        let on_document = |changed: StatusDocument| {
            if document.as_ref() != Some(&changed) {
                let headers = HeaderMap::new();
                let update = Update::new(uri.clone(), polls, &headers, Some(changed.clone()));
                observer.iter().for_each(|it| it.notify(update.clone()));
                *document = Some(changed);
            }
        };
        Ok(match watch(&mut self.poller, &at, on_document).await? {
            Watched::Ended => Duration::ZERO,
            Watched::Unavailable { retry_after } => {
                let retry_after = retry_after.unwrap_or_default();
                pause.saturating_sub(start.elapsed()).max(retry_after)
            }
        })
    }

    /// Sends the next request.
    async fn send(&mut self, to: &Destination) -> Result<PollResponse<R>, PollError> {
        if to.redirects == 0 {
            self.polls = self.polls.saturating_add(1);
        }
        match to.goal {
            Goal::Result => self.poller.fetch_result(&to.at).await,
            Goal::Monitor => {
                let wait = self.wait();
                let monitor = &self.monitor;
                let entity_tag = monitor.entity_tag.as_ref();
                self.poller
                    .poll_monitor(monitor.profile, entity_tag, &to.at, wait)
                    .await
            }
            Goal::Stream => {
                let wait = self.poller.longest_wait(&self.schedule);
                self.poller.open_stream(&to.at, None, wait).await
            }
        }
    }

    /// Returns the wait to ask the server for, in whole seconds. Zero means none.
    fn wait(&self) -> Duration {
        // An observer wants each change. That takes an entity tag, so the first poll fetches one:
        // without it, the server would hold the response until the end.
        let needs_entity_tag =
            self.observer.is_some() && self.monitor.profile.style == MonitorStyle::Unknown;
        if !self.monitor.reads_prefer || needs_entity_tag {
            return Duration::ZERO;
        }
        self.poller.longest_wait(&self.schedule)
    }

    /// Returns the URI of the job's stream, if responses are streamed and it may have one.
    fn stream_target(&self) -> Option<FollowTarget> {
        let monitor = self.monitor.link();
        let monitor = monitor.filter(|_| self.poller.options.is_streaming);
        JobResources::below(monitor?).map(|resources| resources.stream)
    }

    /// Records the style of the monitor. Once the monitor has proved to be one, the 202 is dropped.
    fn set_style(&mut self, style: MonitorStyle) {
        self.monitor.profile.style = style;
        if self.monitor.profile.is_trusted() {
            self.accepted = None;
            self.arm();
        }
    }

    /// Records what the monitor of an unfinished job has returned.
    fn learn(&mut self, at: &FollowTarget, answer: &PollResponse<R>) -> Result<(), Reason> {
        let headers = &answer.head.headers;
        self.monitor.reads_prefer |= reads_prefer(headers);
        if answer.head.status == StatusCode::NOT_MODIFIED {
            return Ok(());
        }
        self.learn_document(answer);
        let is_observed = self.observer.is_some() && answer.document.is_some();
        let entity_tag = headers.get(header::ETAG).filter(|_| is_observed);
        self.monitor.entity_tag = entity_tag.cloned();
        // The response may name another URI for the next poll.
        let field = self.monitor.profile.field;
        let next = links::monitors(headers).find(|(found, _)| *found == field);
        if let Some((_, reference)) = next {
            let next = self.origins.resolve(at, reference)?;
            if next.uri != self.monitor.target.uri {
                self.move_monitor(next);
            }
        }
        Ok(())
    }

    /// Records the document of an unfinished job.
    fn learn_document(&mut self, answer: &PollResponse<R>) {
        self.notify(answer);
        self.document.clone_from(&answer.document);
    }

    /// Follows a redirect.
    fn redirect(&mut self, to: &mut Destination, answer: &PollResponse<R>) -> Result<(), Reason> {
        to.redirects += 1;
        let max_redirects = self.poller.options.max_redirects;
        if to.redirects > max_redirects {
            return Err(Reason::TooManyRedirects(max_redirects));
        }
        let reference = location(&answer.head.headers).unwrap_or_default();
        to.at = self.origins.resolve(&to.at, reference)?;
        match (answer.outcome, to.goal) {
            (PollOutcome::ResultElsewhere, Goal::Monitor) => {
                self.set_style(MonitorStyle::Pending202);
                self.notify(answer);
                to.goal = Goal::Result;
                to.start = to.at.clone();
            }
            (PollOutcome::Redirect { is_permanent: true }, goal) => {
                to.start = to.at.clone();
                if goal == Goal::Monitor {
                    self.move_monitor(to.at.clone());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn notify(&self, answer: &PollResponse<R>) {
        if let Some(observer) = &self.observer {
            observer.notify(Update::new(
                self.monitor.target.uri.clone(),
                self.polls,
                &answer.head.headers,
                answer.document.clone(),
            ));
        }
    }

    fn move_monitor(&mut self, target: FollowTarget) {
        self.monitor.move_to(target);
        self.cancel.disarm();
        if self.monitor.profile.is_trusted() {
            self.arm();
        }
    }

    fn arm(&mut self) {
        if let Some(limit) = self.poller.options.cancel_timeout
            && !self.cancel.is_armed()
        {
            let target = self.monitor.cancel_target();
            let Poller {
                service, template, ..
            } = &self.poller;
            self.cancel.arm(service, template, target, limit);
        }
    }

    /// Returns the URI of an ended job's result, or `None` if the document is the result.
    ///
    /// If the document names none, this applies the rules of Azure's clients. After PUT the result
    /// is the original resource. After DELETE there is none. Otherwise it is the 202's `Location`.
    fn result_target(&self, at: &FollowTarget) -> Result<Option<FollowTarget>, Reason> {
        let document = self.document.as_ref();
        if let Some(reference) = document.and_then(StatusDocument::resource_location) {
            return self.origins.resolve(at, reference).map(Some);
        }
        let state = document.and_then(StatusDocument::state);
        if state != Some(DocumentState::Succeeded)
            || self.monitor.profile.field != MonitorField::OperationLocation
        {
            return Ok(None);
        }
        match (&self.method, &self.location) {
            (&Method::PUT, _) | (&Method::PATCH, None) => Ok(Some(self.home.clone())),
            (&Method::DELETE, _) | (_, None) => Ok(None),
            (_, Some(location)) => self.origins.resolve(&self.home, location).map(Some),
        }
    }
}
