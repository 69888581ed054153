//! The future of a response.

use std::{
    fmt,
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::Body;
use pin_project::pin_project;
use tower_service::Service;
use tracing::Span;

use super::{
    admission::{Admission, PendingAdmission, admit, admit_in_background, finish_in_background},
    candidate::Candidate,
    candidate_call::{CandidateCall, Decision},
    pass_through::PassThrough,
    response_body::ResponseBody,
};
use crate::{
    job::HandleGuard,
    limit::Permit,
    monitor::{Answer, MonitorBody},
    problem::Problem,
    protocol::Prefer,
    run::{Call, InnerService, RequestBody},
    store::{MemoryStore, ResultBody, Store},
};

const POLLED_AFTER_COMPLETION: &str = "`ResponseFuture` polled after completion";

/// The future of [`Accepted`](crate::Accepted).
///
/// # Cancel safety
///
/// A server drops this future when its client disconnects. That drops a call that is answered
/// inline. It does not affect a request that has become a job.
///
/// A request becomes a job if this is dropped while its client waits (RFC 7240 §4.3), and the
/// request prefers `respond-async` or is under [`When::Always`](crate::When::Always).
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<S, B, St = MemoryStore>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    #[pin]
    state: ResponseState<S, B, St>,
    /// The preferences that an inline response is marked with, if they can change the response.
    prefer: Option<Prefer>,
}

#[pin_project(project = ResponseStateProj, project_replace = ResponseStateOwned)]
enum ResponseState<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    /// The call alone, which cannot become a job.
    PassThrough(#[pin] PassThrough<S, Request<RequestBody<B>>>),
    /// A call that may become a job.
    Candidate(CandidateCall<S, B, St>),
    /// A call that becomes a job if the client disconnects.
    Owed(OwedResponse<S, B, St>),
    /// The store, or the job's response, is awaited.
    Admitting {
        pending: PendingAdmission<S, B>,
        must_become_job: bool,
    },
    /// A call that could have become a job, and is answered inline. It has a permit if such calls
    /// count.
    Inline(Call<S, B>, Option<Permit>),
    /// The monitor responds.
    Monitor(Answer),
    /// The layer responds.
    Layer(Response<MonitorBody>),
    Done,
}

impl<S, B, St> ResponseFuture<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    #[inline(always)]
    fn new(state: ResponseState<S, B, St>) -> Self {
        let prefer = None;
        Self { state, prefer }
    }

    /// Marks an inline response with the preferences that can change it.
    pub(super) fn with_prefer(mut self, prefer: Prefer) -> Self {
        self.prefer = Some(prefer);
        self
    }

    #[inline(always)]
    pub(super) fn pass_through(inner: S, request: Request<RequestBody<B>>) -> Self {
        Self::new(ResponseState::PassThrough(PassThrough::new(inner, request)))
    }

    /// Answers a call inline that could have become a job.
    pub(super) fn inline(call: Call<S, B>, permit: Option<Permit>) -> Self {
        Self::new(ResponseState::Inline(call, permit))
    }

    pub(super) fn refuse(problem: Problem) -> Self {
        Self::respond(problem.response())
    }

    pub(super) fn respond(response: Response<impl Into<MonitorBody>>) -> Self {
        Self::new(ResponseState::Layer(response.map(Into::into)))
    }

    pub(super) fn monitor(answer: Answer) -> Self {
        Self::new(ResponseState::Monitor(answer))
    }

    pub(super) fn candidate(candidate: Candidate<St>, inner: S, head: Parts, body: B) -> Self
    where
        S: InnerService<B>,
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let (is_owed, prefer) = (candidate.is_owed(), candidate.prefer);
        let call = CandidateCall::new(candidate, inner, head, body);
        let future = Self::new(ResponseState::Candidate(call)).with_prefer(prefer);
        if !is_owed {
            return future;
        }
        Self::new(ResponseState::Owed(OwedResponse {
            future: Some(Box::pin(future)),
            hand_over,
            span: Span::current(),
        }))
    }
}

/// The response to a request that gets a 202 after its wait. If this is dropped before, the request
/// becomes a job.
struct OwedResponse<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    /// Absent while it is polled, so that a call which panics is not handed over.
    future: Option<OwedFuture<S, B, St>>,
    hand_over: fn(OwedFuture<S, B, St>),
    /// The span of the request. It may not be the current one when its connection ends.
    span: Span,
}

type OwedFuture<S, B, St> = Pin<Box<ResponseFuture<S, B, St>>>;

impl<S, B, St> Drop for OwedResponse<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    fn drop(&mut self) {
        if let Some(future) = self.future.take() {
            let hand_over = self.hand_over;
            self.span.in_scope(|| hand_over(future));
        }
    }
}

/// Makes a call that runs a job, since its client has disconnected during its wait.
fn hand_over<S, B, St>(mut future: OwedFuture<S, B, St>)
where
    S: InnerService<B>,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    St: Store,
{
    let state = future.as_mut().project().state;
    match state.project_replace(ResponseState::Done) {
        ResponseStateOwned::Candidate(mut call) => {
            if let Some(read) = call.take_running() {
                let (candidate, call) = call.into_parts();
                admit_in_background(candidate, read, call);
            }
        }
        ResponseStateOwned::Admitting { pending, .. } => finish_in_background(pending),
        _ => {}
    }
}

impl<S, B, R, St> Future for ResponseFuture<S, B, St>
where
    S: InnerService<B, Body = R>,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    St: Store,
{
    type Output = Result<Response<ResponseBody<R>>, S::Error>;

    /// # Panics
    ///
    /// Panics if polled after completion.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let decision = match this.state.as_mut().project() {
                ResponseStateProj::PassThrough(call) => {
                    let response = ready!(call.poll(cx));
                    let response = response.map(|response| inline(response, *this.prefer, None));
                    return Poll::Ready(response);
                }
                ResponseStateProj::Inline(call, permit) => {
                    let response = ready!(call.poll(cx, |_| Poll::Ready(())));
                    let guard = call.answer_inline();
                    drop(permit.take());
                    let response = response.map(|response| inline(response, *this.prefer, guard));
                    return Poll::Ready(response);
                }
                ResponseStateProj::Monitor(answer) => {
                    let response = ready!(Pin::new(answer).poll(cx));
                    return Poll::Ready(Ok(response.map(ResponseBody::layer)));
                }
                ResponseStateProj::Owed(OwedResponse { future: owed, .. }) => {
                    let Some(mut future) = owed.take() else {
                        panic!("{POLLED_AFTER_COMPLETION}");
                    };
                    let response = future.as_mut().poll(cx);
                    if response.is_pending() {
                        *owed = Some(future);
                    }
                    return response;
                }
                // These two arms need nothing of the candidate, which is dropped in place.
                ResponseStateProj::Candidate(call) => match ready!(call.poll(cx)) {
                    Decision::Respond(response) => {
                        let guard = call.answer_inline();
                        this.state.set(ResponseState::Done);
                        let response =
                            response.map(|response| inline(response, *this.prefer, guard));
                        return Poll::Ready(response);
                    }
                    Decision::Refuse(problem) => {
                        let refusal = call.refusal(problem);
                        this.state.set(ResponseState::Done);
                        return respond(refusal);
                    }
                    decision => Some(decision),
                },
                ResponseStateProj::Admitting {
                    pending,
                    must_become_job,
                } => {
                    let admission = ready!(pending.as_mut().poll(cx));
                    let must_become_job = *must_become_job;
                    match ResponseState::after(admission, must_become_job, this.prefer) {
                        ControlFlow::Break(response) => return respond(response),
                        ControlFlow::Continue(state) => this.state.set(state),
                    }
                    continue;
                }
                ResponseStateProj::Layer(_) | ResponseStateProj::Done => None,
            };
            let state = this.state.as_mut().project_replace(ResponseState::Done);
            let next = match (state, decision) {
                (ResponseStateOwned::Candidate(call), Some(Decision::Admit(read, now))) => {
                    let (candidate, call) = call.into_parts();
                    let must_become_job = candidate.must_become_job_once_read();
                    let admission = admit(candidate, read, call, now, cx);
                    match ResponseState::after(admission, must_become_job, this.prefer) {
                        ControlFlow::Break(response) => return respond(response),
                        ControlFlow::Continue(state) => state,
                    }
                }
                (ResponseStateOwned::Candidate(call), _) => {
                    let (mut candidate, call) = call.into_parts();
                    forgo_wait(this.prefer);
                    ResponseState::Inline(call, candidate.take_inline_permit())
                }
                (ResponseStateOwned::Layer(response), _) => {
                    return respond(response);
                }
                _ => panic!("{POLLED_AFTER_COMPLETION}"),
            };
            this.state.set(next);
        }
    }
}

impl<S, B, St> ResponseState<S, B, St>
where
    S: InnerService<B>,
    St: Store,
{
    /// Returns the response to an admission, or the state after it.
    #[inline(always)]
    fn after(
        admission: Admission<S, B>,
        must_become_job: bool,
        prefer: &mut Option<Prefer>,
    ) -> ControlFlow<Response<ResultBody>, Self> {
        match admission {
            Admission::Accepted(response) => ControlFlow::Break(response),
            Admission::Refused(response, ..) if must_become_job => ControlFlow::Break(response),
            Admission::Refused(_, call, permit) => {
                forgo_wait(prefer);
                ControlFlow::Continue(Self::Inline(call, permit))
            }
            Admission::Pending(pending) => ControlFlow::Continue(Self::Admitting {
                pending,
                must_become_job,
            }),
        }
    }
}

/// Returns the inner service's response, marked with the preferences that can change it.
#[inline(always)]
fn inline<R>(
    mut response: Response<R>,
    prefer: Option<Prefer>,
    guard: Option<HandleGuard>,
) -> Response<ResponseBody<R>> {
    if let Some(prefer) = prefer {
        prefer.mark_inline(&mut response);
    }
    response.map(|body| ResponseBody::inner(body, guard))
}

/// Completes with a response of the layer.
fn respond<R, E>(
    response: Response<impl Into<MonitorBody>>,
) -> Poll<Result<Response<ResponseBody<R>>, E>> {
    Poll::Ready(Ok(response.map(ResponseBody::layer)))
}

/// Drops the preferred wait: a call that runs inline may take any time.
fn forgo_wait(prefer: &mut Option<Prefer>) {
    if let Some(prefer) = prefer {
        prefer.wait = None;
    }
}

impl<S, B, St> fmt::Debug for ResponseFuture<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            ResponseState::PassThrough(_) => "ResponseFuture::PassThrough",
            ResponseState::Candidate(_) => "ResponseFuture::Candidate",
            ResponseState::Owed(_) => "ResponseFuture::Owed",
            ResponseState::Admitting { .. } => "ResponseFuture::Admitting",
            ResponseState::Inline(..) => "ResponseFuture::Inline",
            ResponseState::Monitor(_) => "ResponseFuture::Monitor",
            ResponseState::Layer(_) => "ResponseFuture::Layer",
            ResponseState::Done => "ResponseFuture::Done",
        })
    }
}
