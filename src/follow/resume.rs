//! Resumes a response that broke off, at the stream of its job.

use std::{error::Error, time::Duration};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header, response::Parts};
use http_body::Body;
use tokio::time::sleep;
use tower_service::Service;

use super::{
    FollowError, Observer, Reason, StatusDocument, Stopped, Update,
    cancel::CancelOnDrop,
    deadline::Deadline,
    interpret::{MonitorProfile, MonitorStyle, PollOutcome},
    links::{MonitorField, location},
    origin::{FollowTarget, OriginPolicy},
    parts::{WholeHead, content_length},
    peeked::PeekedBody,
    poll::{PollError, PollResponse, Poller},
    resumable::{PartEnd, ReceivedPart, Resume, Resumed, Resuming},
    schedule::PollSchedule,
    verdict::{Received, Verdict, compare},
};
use crate::protocol::{BoxError, retry_after};

/// The time that a server has to record the end of a job whose response has ended.
///
/// If the end was a break, this delays the next part.
const END_WAIT: Duration = Duration::from_secs(1);

/// The resource below a monitor that has the status document in every dialect.
const STATUS_PROFILE: MonitorProfile = MonitorProfile {
    field: MonitorField::OperationLocation,
    style: MonitorStyle::Document,
    location_is_monitor: false,
};

/// The state of one response that can be resumed.
pub(super) struct Resumer<S, B> {
    pub(super) poller: Poller<S, B>,
    pub(super) origins: OriginPolicy,
    pub(super) observer: Option<Observer>,
    pub(super) monitor: Uri,
    pub(super) resources: JobResources,
    pub(super) head: WholeHead,
    /// The entity tag of the run, once the monitor has named it.
    pub(super) run: Option<HeaderValue>,
    /// Set if the last part came from the monitor. Otherwise the monitor has not proved to be one.
    pub(super) from_monitor: bool,
    pub(super) document: Option<StatusDocument>,
    pub(super) polls: u32,
    pub(super) schedule: PollSchedule,
    /// The number of bytes so far.
    pub(super) received: u64,
    /// The number of bytes at the last end of a part.
    pub(super) last_end: Option<u64>,
    pub(super) cancel: CancelOnDrop,
}

/// The resources of a job that resuming needs.
#[derive(Debug, Clone)]
pub(super) struct JobResources {
    pub(super) stream: FollowTarget,
    status: FollowTarget,
}

impl JobResources {
    /// Returns `None` if a URI is too long.
    pub(super) fn below(monitor: &FollowTarget) -> Option<Self> {
        Some(Self {
            stream: monitor.below("stream")?,
            status: monitor.below("status")?,
        })
    }
}

/// The continuation of a response.
enum Next<R: Body> {
    Part(PeekedBody<R>, Option<u64>),
    Complete,
}

/// Why a response does not go on.
enum Stop {
    Reason(Reason),
    /// Too many attempts got no further byte.
    BrokenOff,
    /// The monitor has not proved to be one, so the end of the client's body stands.
    NotAMonitor,
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}

/// The resource that a request is for.
#[derive(Clone, Copy)]
enum Question {
    /// The status document. The server holds it for this long, or until the job has ended.
    Status(Duration),
    /// The output from the first byte that is missing.
    Stream,
}

/// The answer to a question, or the pause before the next attempt.
enum Asked<T> {
    Answer(T),
    Retry(Duration),
}

/// Returns the entity tag of a run. A proxy may have turned it into a weak one.
pub(super) fn run_tag(headers: &HeaderMap) -> Option<HeaderValue> {
    let tag = headers.get(header::ETAG)?;
    let strong = tag.as_bytes().strip_prefix(b"W/");
    strong.map_or_else(
        || Some(tag.clone()),
        |strong| HeaderValue::from_bytes(strong).ok(),
    )
}

impl<S, B, R> Resume<R> for Resumer<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    B: Default + Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError> + Send,
{
    fn resume(mut self: Box<Self>, end: PartEnd<R::Error>) -> Resuming<R> {
        Box::pin(async move {
            let PartEnd { received, error } = end;
            self.received = received;
            // Each further byte allows as many attempts, and as much time, as the first one.
            if self.last_end.replace(received) != Some(received) {
                let options = &self.poller.options;
                self.schedule = PollSchedule::new(options);
                self.poller.deadline = Deadline::new(options.timeout);
            }
            let reason = match self.find_next(error.is_none()).await {
                Ok(Next::Part(body, length)) => {
                    return Resumed::Part(ReceivedPart { body, length }, self);
                }
                Ok(Next::Complete) => None,
                Err(Stop::NotAMonitor) => {
                    return match error {
                        Some(error) => Resumed::Failed(FollowError::Service(error)),
                        None => Resumed::Complete,
                    };
                }
                Err(Stop::Reason(reason)) => Some(reason),
                Err(Stop::BrokenOff) => {
                    let early = || "the body ended before the response did".into();
                    Some(Reason::BrokenOff(error.map_or_else(early, Into::into)))
                }
            };
            self.cancel.disarm();
            match reason {
                None => Resumed::Complete,
                Some(reason) => {
                    let stopped = Stopped::new(self.monitor, reason, self.document);
                    Resumed::Failed(FollowError::Stopped(Box::new(stopped)))
                }
            }
        })
    }

    fn complete(mut self: Box<Self>) {
        self.cancel.disarm();
    }
}

impl<S, B> Resumer<S, B> {
    /// Asks the document and then the stream until one of them shows how the response goes on.
    async fn find_next<R>(&mut self, mut is_clean: bool) -> Result<Next<R>, Stop>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send,
        S::Future: Send,
        S::Error: Into<BoxError> + Send,
        B: Default + Send,
        R: Body + Send,
    {
        // Most clean ends are ends of responses.
        let mut pause = Duration::ZERO;
        if !is_clean {
            pause = self.retry_pause()?;
        }
        loop {
            self.poller.deadline.limit(sleep(pause)).await?;
            let wait = if is_clean { END_WAIT } else { Duration::ZERO };
            let answer = match self.ask(Question::Status(wait)).await? {
                Asked::Answer(answer) => answer,
                Asked::Retry(retry) => {
                    pause = retry;
                    continue;
                }
            };
            match self.read_document(&answer, is_clean)? {
                Verdict::Complete => return Ok(Next::Complete),
                Verdict::Failed => return Err(Reason::Failed.into()),
                Verdict::Canceled => return Err(Reason::Canceled.into()),
                Verdict::Altered => return Err(Reason::Altered.into()),
                Verdict::Resume => {}
            }
            if is_clean {
                is_clean = false;
                pause = self.retry_pause()?;
                self.poller.deadline.limit(sleep(pause)).await?;
            }
            pause = match self.ask(Question::Stream).await? {
                Asked::Answer(answer) => match self.read_stream(answer)? {
                    Asked::Answer(next) => return Ok(next),
                    Asked::Retry(retry) => retry,
                },
                Asked::Retry(retry) => retry,
            };
        }
    }

    /// Compares the response with the document of the job.
    fn read_document<R: Body>(
        &mut self,
        answer: &PollResponse<R>,
        is_clean: bool,
    ) -> Result<Verdict, Stop> {
        let Some(document) = &answer.document else {
            return Err(self.unexpected(answer.head.status));
        };
        if document.state().is_none() {
            return Err(self.unexpected(answer.head.status));
        }
        self.notify(answer);
        self.document.clone_from(&answer.document);
        let received = Received {
            bytes: self.received,
            is_clean,
            from_monitor: self.from_monitor,
        };
        Ok(compare(document, received))
    }

    /// Checks a part of the output.
    fn read_stream<R: Body>(&mut self, answer: PollResponse<R>) -> Result<Asked<Next<R>>, Stop> {
        let status = answer.head.status;
        match answer.outcome {
            PollOutcome::Result => {
                self.check(&answer.head)?;
                let length = content_length(&answer.head.headers);
                Ok(Asked::Answer(Next::Part(answer.body, length)))
            }
            // The job runs again, and its new output has no head yet.
            PollOutcome::Pending(_) => {
                self.notify(&answer);
                self.document.clone_from(&answer.document);
                self.schedule.reset_failures();
                let max_polls = self.poller.options.max_polls;
                if self.polls >= max_polls {
                    return Err(Reason::TooManyPolls(max_polls).into());
                }
                let retry_after = retry_after(&answer.head.headers);
                let pause = self.schedule.stream_pause(retry_after, answer.held);
                Ok(Asked::Retry(pause))
            }
            _ if status == StatusCode::PRECONDITION_FAILED && self.received > 0 => {
                Err(Reason::Restarted.into())
            }
            _ if !self.from_monitor => Err(Stop::NotAMonitor),
            _ => {
                let pause = self.schedule.retry_pause(None);
                let pause = pause.ok_or(Reason::UnexpectedStatus(status))?;
                Ok(Asked::Retry(pause))
            }
        }
    }

    /// Checks that a part continues the response, and remembers its run.
    fn check(&mut self, part: &Parts) -> Result<(), Reason> {
        let run = run_tag(&part.headers);
        let is_other_run = self.run.is_some() && run.is_some() && self.run != run;
        let can_follow = match self.received {
            0 => self.head.can_restart_as(part),
            received => !is_other_run && self.head.can_continue_as(part, received),
        };
        match (can_follow, is_other_run) {
            (true, _) => {
                self.run = run.or(self.run.take());
                self.from_monitor = true;
                Ok(())
            }
            (false, true) => Err(Reason::Restarted),
            (false, false) => Err(Reason::Altered),
        }
    }

    /// Sends a request, and follows its redirects.
    async fn ask<R>(&mut self, question: Question) -> Result<Asked<PollResponse<R>>, Stop>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send,
        S::Future: Send,
        S::Error: Into<BoxError> + Send,
        B: Default + Send,
        R: Body + Send,
    {
        let mut redirects = 0;
        let offset = format!("offset={}", self.received);
        let mut at = match question {
            Question::Status(_) => self.resources.status.clone(),
            Question::Stream if self.received == 0 => self.resources.stream.clone(),
            Question::Stream => {
                let stream = self.resources.stream.with_parameter(&offset);
                stream.ok_or(Reason::InvalidUri)?
            }
        };
        self.polls = self.polls.saturating_add(1);
        loop {
            let answer = match question {
                Question::Status(wait) => {
                    let profile = STATUS_PROFILE;
                    self.poller.poll_monitor(profile, None, &at, wait).await
                }
                Question::Stream => {
                    // Without bytes, the output of any run will do.
                    let run = self.run.as_ref().filter(|_| self.received > 0);
                    let wait = self.poller.longest_wait(&self.schedule);
                    self.poller.open_stream(&at, run, wait).await
                }
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(PollError::Final(reason)) => return Err(reason.into()),
                Err(PollError::Transport(error)) => {
                    tracing::debug!(error = &*error as &dyn Error, "failed to resume response");
                    let pause = self.schedule.retry_pause(None);
                    return Ok(Asked::Retry(pause.ok_or(Reason::Unreachable(error))?));
                }
            };
            let headers = &answer.head.headers;
            match answer.outcome {
                PollOutcome::Unavailable => {
                    let status = answer.head.status;
                    tracing::debug!(%status, "failed to resume response: monitor unavailable");
                    let pause = self.schedule.retry_pause(retry_after(headers));
                    return Ok(Asked::Retry(pause.ok_or(Reason::Unavailable(status))?));
                }
                PollOutcome::Redirect { .. } => {
                    redirects += 1;
                    let max_redirects = self.poller.options.max_redirects;
                    if redirects > max_redirects {
                        return Err(Reason::TooManyRedirects(max_redirects).into());
                    }
                    at = self
                        .origins
                        .resolve(&at, location(headers).unwrap_or_default())?;
                    let query = at.uri.query().unwrap_or_default();
                    let has_offset = query.split('&').any(|pair| pair == offset);
                    // Without the offset, the first bytes would be sent again.
                    if matches!(question, Question::Stream) && self.received > 0 && !has_offset {
                        return Err(self.unexpected(answer.head.status));
                    }
                    let pause = retry_after(headers).unwrap_or_default();
                    self.poller.deadline.limit(sleep(pause)).await?;
                }
                _ => return Ok(Asked::Answer(answer)),
            }
        }
    }

    fn retry_pause(&mut self) -> Result<Duration, Stop> {
        self.schedule.retry_pause(None).ok_or(Stop::BrokenOff)
    }

    fn unexpected(&self, status: StatusCode) -> Stop {
        if self.from_monitor {
            Reason::UnexpectedStatus(status).into()
        } else {
            Stop::NotAMonitor
        }
    }

    fn notify<R: Body>(&self, answer: &PollResponse<R>) {
        if let Some(observer) = &self.observer {
            observer.notify(Update::new(
                self.monitor.clone(),
                self.polls,
                &answer.head.headers,
                answer.document.clone(),
            ));
        }
    }
}
