use std::{future::Future, marker::PhantomData, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, response::Parts,
};
use http_body::Body;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tower::{BoxError, Service, ServiceExt};

use super::{
    FollowBody, FollowError, Followed, NotFollowed, Observer, Reason, StatusDocument, Stopped,
    Update,
    answer::{Asked, Manner, Verdict, async_result, reads_preferences, verdict_on_result},
    body::{Filled, FollowResponse},
    cancel::CancelOnDrop,
    carried::Carried,
    document::{Stand, is_json},
    links::{self, Named, location},
    options::Options,
    origin::{Rules, Target},
    retry_after::retry_after,
    start::Start,
};
use crate::protocol::PREFER;

/// One 202 on the way to its end.
pub(super) struct Chase<S, B, R: Body> {
    service: S,
    options: Arc<Options>,
    carried: Carried,
    rules: Rules,
    method: Method,
    original: Target,
    observer: Option<Observer>,
    deadline: Option<Instant>,
    /// The 202, as long as it may have to be handed out.
    accepted: Option<FollowResponse<R>>,
    asked: Asked,
    monitor: Target,
    /// The 202's `Location`, where that is not the monitor.
    location: Option<String>,
    /// What the 202 links to as the monitor: that, and not just its status, can be canceled.
    link: Option<Target>,
    /// Whether the server reads `Prefer`.
    waits: bool,
    /// How long it is asked to wait, at the most.
    longest_wait: Duration,
    /// Of the document seen last, so that the server can wait for another one.
    entity_tag: Option<HeaderValue>,
    /// The status document seen last.
    document: Option<StatusDocument>,
    polls: u32,
    /// Failures in a row.
    failures: u32,
    /// Pauses for which the server had nothing to say.
    unsaid: u32,
    cancel: CancelOnDrop,
    _body: PhantomData<fn() -> B>,
}

/// What is being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Monitor,
    Result,
}

/// A question that was answered.
struct Answer<R: Body> {
    head: Parts,
    body: FollowBody<R>,
    document: Option<StatusDocument>,
    verdict: Verdict,
    /// How long the server held the answer, where it was asked to.
    held: Duration,
}

/// A question that was not answered.
enum Failure {
    /// It may be put again.
    Transport(BoxError),
    Final(Reason),
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self::Final(reason)
    }
}

impl<S, B, R: Body> Chase<S, B, R> {
    /// Looks for a monitor in a 202. The response comes back as it is where there is none.
    pub(super) fn new(
        start: Start,
        service: S,
        mut accepted: FollowResponse<R>,
    ) -> Result<Self, Box<FollowResponse<R>>> {
        let Start { options, original } = start;
        let rules = Rules::new(original.uri(), &options.origins);
        let home = Target {
            uri: original.uri().clone(),
            is_home: true,
        };
        let headers = accepted.headers();
        let mut refused = None;
        let named = links::monitors(headers).find_map(|(named, reference)| {
            match rules.admit(&home, reference) {
                // The address of what an unsafe request has made, not of how far it is: its own
                // (RFC 9110 §8.7).
                Ok(target)
                    if named == Named::ContentLocation
                        && !original.method().is_safe()
                        && target.uri == home.uri =>
                {
                    None
                }
                Ok(target) => Some((named, target)),
                Err(reason) => {
                    refused.get_or_insert(reason);
                    None
                }
            }
        });
        let Some((named, monitor)) = named else {
            let reason = match refused {
                Some(Reason::OtherOrigin(uri)) => NotFollowed::OtherOrigin(uri),
                _ => NotFollowed::NoMonitor,
            };
            accepted.extensions_mut().insert(reason);
            return Err(Box::new(accepted));
        };
        let admitted = |reference| rules.admit(&home, reference).ok();
        let is_monitor = |reference| admitted(reference).is_some_and(|at| at.uri == monitor.uri);
        Ok(Self {
            location: location(headers)
                .filter(|&reference| !is_monitor(reference))
                .map(str::to_owned),
            link: links::linked(headers, "monitor").and_then(admitted),
            asked: Asked {
                named,
                manner: Manner::Unknown,
                location_is_monitor: options.location_is_monitor,
            },
            waits: monitor.is_home && reads_preferences(headers),
            longest_wait: options.wait,
            observer: original
                .extensions()
                .get()
                .or(options.observer.as_ref())
                .cloned(),
            deadline: options
                .timeout
                .and_then(|timeout| Instant::now().checked_add(timeout)),
            carried: Carried::of(&original, &options.shared_headers),
            method: original.method().clone(),
            original: home,
            monitor,
            rules,
            options,
            service,
            accepted: Some(accepted),
            document: None,
            entity_tag: None,
            polls: 0,
            failures: 0,
            unsaid: 0,
            cancel: CancelOnDrop::default(),
            _body: PhantomData,
        })
    }
}

impl<S, B, R> Chase<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    B: Default + Send + 'static,
    R: Body + Send,
{
    /// Asks until there is a response to hand out.
    pub(super) async fn follow(mut self) -> Result<FollowResponse<R>, FollowError> {
        let followed = self.pursue().await;
        self.cancel.disarm();
        match (followed, self.accepted.take()) {
            (Ok(response), _) => Ok(response),
            (Err(reason), Some(mut accepted)) => {
                tracing::debug!(?reason, "what a 202 calls its Location is no monitor");
                let not_followed = NotFollowed::NoMonitorThere(self.monitor.uri);
                accepted.extensions_mut().insert(not_followed);
                Ok(accepted)
            }
            (Err(reason), None) => {
                let stopped = Stopped::new(self.monitor.uri, reason, self.document);
                Err(FollowError::Stopped(Box::new(stopped)))
            }
        }
    }

    async fn pursue(&mut self) -> Result<FollowResponse<R>, Reason> {
        let mut pause = self.begin().await;
        let (mut goal, mut place) = (Goal::Monitor, self.monitor.clone());
        let (mut at, mut redirects) = (place.clone(), 0);
        loop {
            in_time(self.deadline, &self.options, sleep(pause)).await?;
            if redirects == 0 {
                self.polls = self.polls.saturating_add(1);
            }
            let answer = match self.ask(goal, &at).await {
                Ok(answer) => answer,
                Err(Failure::Final(reason)) => return Err(reason),
                Err(Failure::Transport(error)) => {
                    tracing::debug!(error = &*error as &dyn std::error::Error, "a poll failed");
                    pause = self.failed(None).ok_or(Reason::Unreachable(error))?;
                    (at, redirects) = (place.clone(), 0);
                    continue;
                }
            };
            let said = retry_after(&answer.head.headers);
            match answer.verdict {
                Verdict::Result => return Ok(self.hand_out(&at, answer)),
                Verdict::Pending(manner) => {
                    if goal == Goal::Monitor {
                        self.know(manner);
                        self.learn(&at, &answer)?;
                        place = self.monitor.clone();
                    }
                    (at, redirects, self.failures) = (place.clone(), 0, 0);
                    if self.polls >= self.options.max_polls {
                        return Err(Reason::TooManyPolls(self.options.max_polls));
                    }
                    pause = self.pause(said).saturating_sub(answer.held);
                }
                Verdict::Unavailable => {
                    let status = answer.head.status;
                    tracing::debug!(%status, "a poll was put off");
                    pause = self.failed(said).ok_or(Reason::Unavailable(status))?;
                    (at, redirects) = (place.clone(), 0);
                }
                Verdict::Moved(_) | Verdict::ResultElsewhere => {
                    redirects += 1;
                    if redirects > self.options.max_redirects {
                        return Err(Reason::TooManyRedirects(self.options.max_redirects));
                    }
                    let reference = location(&answer.head.headers).unwrap_or_default();
                    at = self.rules.admit(&at, reference)?;
                    match (answer.verdict, goal) {
                        (Verdict::ResultElsewhere, Goal::Monitor) => {
                            self.know(Manner::Pending202);
                            self.tell(&answer);
                            (goal, place) = (Goal::Result, at.clone());
                        }
                        (Verdict::Moved(true), _) => {
                            place = at.clone();
                            if goal == Goal::Monitor {
                                self.move_to(at.clone());
                            }
                        }
                        _ => {}
                    }
                    // Here it is the least time before the redirect is followed.
                    pause = said.unwrap_or_default();
                }
                Verdict::Succeeded | Verdict::Failed | Verdict::Canceled => {
                    self.know(Manner::Document);
                    self.tell(&answer);
                    self.document.clone_from(&answer.document);
                    match (self.result(&at)?, answer.verdict) {
                        (Some(result), _) => {
                            goal = Goal::Result;
                            (place, at) = (result.clone(), result);
                            (pause, redirects, self.failures) = (Duration::ZERO, 0, 0);
                        }
                        (None, Verdict::Succeeded) => return Ok(self.hand_out(&at, answer)),
                        (None, Verdict::Canceled) => return Err(Reason::Canceled),
                        (None, _) => return Err(Reason::Failed),
                    }
                }
                Verdict::Unreadable | Verdict::NoMonitor => {
                    return Err(Reason::Unreadable(answer.head.status));
                }
            }
        }
    }

    /// Reads what the 202 itself tells. Returns the pause before the first question.
    async fn begin(&mut self) -> Duration {
        let mut said = None;
        if let Some(mut accepted) = self.accepted.take() {
            said = retry_after(accepted.headers());
            if is_json(accepted.headers()) {
                let filling = accepted.body_mut().fill(self.options.max_document);
                let filling = timeout(self.options.answer_timeout, filling);
                let filled = in_time(self.deadline, &self.options, filling).await;
                // A 202 with a body that is late or broken is no less a 202.
                if let Ok(Ok(Filled::Whole(json))) = filled {
                    self.document = StatusDocument::parse(&json);
                }
            }
            if let Some(observer) = &self.observer {
                let monitor = self.monitor.uri.clone();
                let document = self.document.clone();
                observer.hear(Update::new(monitor, 0, accepted.headers(), document));
            }
            self.accepted = Some(accepted);
        }
        self.know(Manner::Unknown);
        self.pause(said)
    }

    /// Puts one question.
    async fn ask(&mut self, goal: Goal, at: &Target) -> Result<Answer<R>, Failure> {
        let mut wait = Duration::ZERO;
        let mut is_conditional = false;
        let request: Request<B> = match goal {
            Goal::Result => self.carried.fetch(at),
            Goal::Monitor => {
                let mut request = self.carried.poll(at);
                wait = self.wait();
                if !wait.is_zero() {
                    is_conditional = self.ask_to_wait(wait, request.headers_mut());
                }
                request
            }
        };
        let begun = Instant::now();
        let limit = self.options.answer_timeout.saturating_add(wait);
        let answer = timeout(limit, self.service.clone().oneshot(request));
        let (head, body) = match in_time(self.deadline, &self.options, answer).await? {
            Ok(Ok(response)) => response.into_parts(),
            Ok(Err(error)) => return Err(Failure::Transport(error.into())),
            Err(late) => return Err(Failure::Transport(late.into())),
        };
        let mut answer = Answer {
            head,
            body: FollowBody::new(body),
            document: None,
            verdict: Verdict::Pending(self.asked.manner),
            held: if wait.is_zero() {
                wait
            } else {
                begun.elapsed()
            },
        };
        let is_unchanged = is_conditional && answer.head.status == StatusCode::NOT_MODIFIED;
        if goal == Goal::Result {
            answer.verdict = verdict_on_result(&answer.head);
        } else if !is_unchanged {
            if self.asked.may_be_document(&answer.head) {
                answer.document = self.read(&mut answer.body).await?;
            }
            let stand = answer.document.as_ref().and_then(StatusDocument::stand);
            answer.verdict = self.asked.verdict(&answer.head, stand);
        }
        Ok(answer)
    }

    /// Reads what may be a status document.
    async fn read(&mut self, body: &mut FollowBody<R>) -> Result<Option<StatusDocument>, Failure> {
        let limit = self.options.max_document;
        let filling = timeout(self.options.answer_timeout, body.fill(limit));
        match in_time(self.deadline, &self.options, filling).await? {
            Ok(Filled::Whole(json)) => Ok(StatusDocument::parse(&json)),
            Ok(Filled::TooLarge) if self.asked.must_be_document() => {
                Err(Reason::DocumentTooLarge(limit).into())
            }
            Ok(Filled::TooLarge) => Ok(None),
            Ok(Filled::Broken) => Err(Failure::Transport("the document broke off".into())),
            Err(late) => Err(Failure::Transport(late.into())),
        }
    }

    /// How long the server is to be asked to wait, in whole seconds; zero: it is not.
    fn wait(&self) -> Duration {
        let left = self.deadline.map_or(Duration::MAX, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        // Who listens is to hear of each change: the first look is for the entity tag, without which a
        // wait is for the end alone.
        let is_first_look = self.observer.is_some() && self.asked.manner == Manner::Unknown;
        let wait = if self.waits && !is_first_look {
            self.longest_wait.min(left)
        } else {
            Duration::ZERO
        };
        Duration::from_secs(wait.as_secs())
    }

    /// Returns whether the server may say that nothing has changed.
    fn ask_to_wait(&mut self, wait: Duration, headers: &mut HeaderMap) -> bool {
        if let Ok(wait) = HeaderValue::try_from(format!("wait={}", wait.as_secs())) {
            headers.insert(PREFER, wait);
        }
        // With a condition the answer comes with the next change; without one, with the end.
        let condition = self.entity_tag.clone();
        condition
            .map(|entity_tag| headers.insert(header::IF_NONE_MATCH, entity_tag))
            .is_some()
    }

    /// Takes note of what kind of monitor this is.
    fn know(&mut self, manner: Manner) {
        self.asked.manner = manner;
        if self.asked.is_trusted() {
            self.accepted = None;
            self.arm();
        }
    }

    /// Takes note of what the monitor of an unfinished job tells.
    fn learn(&mut self, at: &Target, answer: &Answer<R>) -> Result<(), Reason> {
        let headers = &answer.head.headers;
        self.waits |= reads_preferences(headers);
        if answer.head.status == StatusCode::NOT_MODIFIED {
            return Ok(());
        }
        self.tell(answer);
        self.document.clone_from(&answer.document);
        let is_watched = self.observer.is_some() && answer.document.is_some();
        self.entity_tag = headers.get(header::ETAG).filter(|_| is_watched).cloned();
        // The next question goes where this answer says, if it does.
        let next = links::monitors(headers).find(|(named, _)| *named == self.asked.named);
        if let Some((_, reference)) = next {
            let next = self.rules.admit(at, reference)?;
            if next.uri != self.monitor.uri {
                self.move_to(next);
            }
        }
        Ok(())
    }

    fn tell(&self, answer: &Answer<R>) {
        if let Some(observer) = &self.observer {
            let monitor = self.monitor.uri.clone();
            let document = answer.document.clone();
            observer.hear(Update::new(
                monitor,
                self.polls,
                &answer.head.headers,
                document,
            ));
        }
    }

    fn move_to(&mut self, monitor: Target) {
        self.monitor = monitor;
        self.entity_tag = None;
        self.cancel.disarm();
        if self.asked.is_trusted() {
            self.arm();
        }
    }

    fn arm(&mut self) {
        if let Some(limit) = self.options.cancel
            && !self.cancel.is_armed()
        {
            let target = self.link.as_ref().unwrap_or(&self.monitor);
            self.cancel.arm(&self.service, &self.carried, target, limit);
        }
    }

    /// Where the result of an ended job is, if not in its document.
    ///
    /// Where that does not say, it is where Azure's clients look: a resource that was put is there;
    /// of one that was deleted there is none; and else it is at the 202's `Location`.
    fn result(&self, at: &Target) -> Result<Option<Target>, Reason> {
        let document = self.document.as_ref();
        if let Some(reference) = document.and_then(StatusDocument::resource_location) {
            return self.rules.admit(at, reference).map(Some);
        }
        let succeeded = document.and_then(StatusDocument::stand) == Some(Stand::Succeeded);
        if !succeeded || self.asked.named != Named::OperationLocation {
            return Ok(None);
        }
        match (&self.method, &self.location) {
            (&Method::PUT, _) | (&Method::PATCH, None) => Ok(Some(self.original.clone())),
            (&Method::DELETE, _) | (_, None) => Ok(None),
            (_, Some(location)) => self.rules.admit(&self.original, location).map(Some),
        }
    }

    /// The response that the original request was to have.
    fn hand_out(&self, at: &Target, answer: Answer<R>) -> FollowResponse<R> {
        let mut response = Response::from_parts(answer.head, answer.body);
        if response.status() == StatusCode::OK
            && let Some(status) = async_result(response.headers())
        {
            *response.status_mut() = status;
        }
        response.extensions_mut().insert(Followed {
            uri: at.uri.clone(),
            monitor: self.monitor.uri.clone(),
            polls: self.polls,
        });
        response
    }

    /// The pause after an answer that was of no use; `None` after one too many.
    fn failed(&mut self, said: Option<Duration>) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        // It may be that something on the way does not bear the wait.
        self.longest_wait /= 2;
        if self.failures > self.options.max_failures {
            return None;
        }
        let pace = self.options.pace;
        let backoff = pace.backoff(self.failures - 1, rand::random());
        Some(said.map_or(backoff, |said| said.max(pace.shortest)))
    }

    /// The pause before the next question about a job that has not ended.
    fn pause(&mut self, said: Option<Duration>) -> Duration {
        let pace = self.options.pace;
        if let Some(said) = said {
            return said.max(pace.shortest);
        }
        self.unsaid = self.unsaid.saturating_add(1);
        pace.backoff(self.unsaid - 1, rand::random())
    }
}

/// What `future` has to say, if it does before the deadline.
async fn in_time<T>(
    deadline: Option<Instant>,
    options: &Options,
    future: impl Future<Output = T>,
) -> Result<T, Reason> {
    match deadline {
        Some(deadline) => timeout_at(deadline, future)
            .await
            .map_err(|_| Reason::TimedOut(options.timeout.unwrap_or_default())),
        None => Ok(future.await),
    }
}
