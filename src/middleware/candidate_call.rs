//! The call of a request that may become a job, until a decision is made.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::Body;
use tokio::time::{Instant, Sleep, sleep};
use tower_service::Service;

use super::{
    candidate::{Candidate, ReadRequest},
    read_body::{ReadBody, ReadError},
};
use crate::{
    job::HandleGuard,
    problem::Problem,
    run::{Call, InnerService, RequestBody},
    store::{ResultBody, Store},
};

/// The call of a request that may become a job, until a decision is made.
pub(super) struct CandidateCall<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    call: Call<S, B>,
    candidate: Candidate<St>,
    stage: CandidateStage<St>,
    /// The timeout of the body, then the delay of the hand-over. Created when it is needed.
    timer: Option<Pin<Box<Sleep>>>,
}

enum CandidateStage<St: Store> {
    /// The request's body is being read.
    Reading(ReadBody),
    /// The call runs inline, and becomes a job if it takes longer than this.
    Racing(Duration, ReadRequest<St>),
    Decided,
}

/// The decision about a candidate's call.
pub(super) enum Decision<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    /// The inner service has responded in time.
    Respond(Result<S::Response, S::Error>),
    /// The call runs inline, however long it takes.
    RunInline,
    /// The request becomes a job as of this time.
    Admit(ReadRequest<St>, Instant),
    Refuse(Problem),
}

impl<S, B, St> CandidateCall<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    pub(super) fn new(candidate: Candidate<St>, inner: S, head: Parts, body: B) -> Self
    where
        B: Body,
    {
        let reading = ReadBody::new(&body, candidate.registry.settings.max_body);
        Self {
            call: Call::new(inner, head, RequestBody::streaming(body)),
            candidate,
            stage: CandidateStage::Reading(reading),
            timer: None,
        }
    }

    pub(super) fn into_parts(self) -> (Candidate<St>, Call<S, B>) {
        (self.candidate, self.call)
    }

    /// Takes the guard of a call that is answered inline.
    pub(super) fn answer_inline(&mut self) -> Option<HandleGuard> {
        self.call.answer_inline()
    }

    /// Returns the response that refuses the request.
    pub(super) fn refusal(&self, problem: Problem) -> Response<ResultBody> {
        let mut refusal = problem.response();
        self.candidate.registry.hasten(&mut refusal);
        refusal
    }

    /// Takes the request if its call runs and may become a job.
    pub(super) fn take_running(&mut self) -> Option<ReadRequest<St>> {
        match std::mem::replace(&mut self.stage, CandidateStage::Decided) {
            CandidateStage::Racing(_, read) => Some(read),
            CandidateStage::Reading(_) | CandidateStage::Decided => None,
        }
    }
}

impl<S, B, St> CandidateCall<S, B, St>
where
    S: InnerService<B>,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    St: Store,
{
    /// Completes once a decision is made.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Decision<S, B, St>> {
        if let CandidateStage::Reading(_) = self.stage
            && let Some(decision) = ready!(self.poll_read(cx))
        {
            return Poll::Ready(decision);
        }
        let CandidateStage::Racing(limit, _) = self.stage else {
            return Poll::Ready(Decision::RunInline);
        };
        if let Poll::Ready(response) = self.call.poll(cx, |_| Poll::Ready(())) {
            return Poll::Ready(Decision::Respond(response));
        }
        if !limit.is_zero() {
            ready!(poll_timer(&mut self.timer, limit, cx));
        }
        Poll::Ready(
            match std::mem::replace(&mut self.stage, CandidateStage::Decided) {
                CandidateStage::Racing(_, read) => Decision::Admit(read, Instant::now()),
                CandidateStage::Reading(_) | CandidateStage::Decided => Decision::RunInline,
            },
        )
    }

    /// Reads the request's body. Completes with `None` if the call runs inline first.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Decision<S, B, St>>> {
        let (CandidateStage::Reading(reading), Some((head, body))) =
            (&mut self.stage, self.call.request())
        else {
            return Poll::Ready(None);
        };
        let registry = &self.candidate.registry;
        let read = match reading.poll(head, body, &registry.store, cx) {
            Poll::Ready(read) => read,
            Poll::Pending if reading.is_ended() => return Poll::Pending,
            Poll::Pending => {
                let timeout = registry.settings.body_timeout;
                ready!(poll_timer(&mut self.timer, timeout, cx));
                reading.give_up();
                Err(ReadError::TimedOut)
            }
        };
        self.timer = None;
        let buffered = reading.take();
        let problem = match read {
            Ok(()) => {
                let read = self.candidate.read(head, &buffered);
                let (read_body, charge) = RequestBody::buffered(buffered);
                *body = read_body;
                self.call.hold(charge);
                let is_keyed = self.candidate.key().is_some();
                // A request with a key is a job before its call starts.
                let limit = self.candidate.inline_limit().filter(|_| !is_keyed);
                let Some(limit) = limit else {
                    let at = read.at;
                    return Poll::Ready(Some(Decision::Admit(read, at)));
                };
                self.stage = CandidateStage::Racing(limit, read);
                return Poll::Ready(None);
            }
            Err(ReadError::Broken) => Problem::BodyBroken,
            Err(ReadError::TooLarge) => Problem::BodyTooLarge,
            Err(ReadError::NoRoom) => Problem::Full,
            Err(ReadError::TimedOut) => Problem::BodyTimeout,
        };
        let problem = problem.counted();
        Poll::Ready(Some(
            if self.candidate.must_become_job || problem == Problem::BodyBroken {
                Decision::Refuse(problem)
            } else {
                // The inner service gets what was read, and the stream that follows.
                let charge = body.put_back(buffered);
                self.call.hold(charge);
                Decision::RunInline
            },
        ))
    }
}

/// Starts the timer unless it is running, and polls it.
fn poll_timer(
    timer: &mut Option<Pin<Box<Sleep>>>,
    duration: Duration,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let timer = timer.get_or_insert_with(|| Box::pin(sleep(duration)));
    timer.as_mut().poll(cx)
}
