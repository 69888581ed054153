use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Version, request::Parts};
use http_body::Body;
use pin_project::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tower::{BoxError, Service};

use crate::{
    accept::{self, Accepting, Arrival, Waiting},
    body::{RequestBody, ResponseBody},
    call::Call,
    collect::{Collect, CollectError, Collected},
    intake::Intake,
    monitor::Answer,
    passing::Passing,
    prefer::Prefer,
    problem::Problem,
    store::{MemoryStore, Store},
    when::Plan,
};

/// The answer of [`Accepted`](crate::Accepted).
///
/// Dropped before it completes, as when the client hangs up, it takes the call along where that is
/// answered inline; what has become a job goes on.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<S, B, St = MemoryStore>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    #[pin]
    state: State<S, B, St>,
    /// The body's time-out, then the hand-over's delay; registered only where there is something to
    /// wait for.
    timer: Option<Pin<Box<Sleep>>>,
    /// What is told in an inline response, where preferences can change the answer.
    mark: Option<Prefer>,
}

#[pin_project(project = StateProj, project_replace = StateOwn)]
enum State<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    /// The call alone, without a way to become a job.
    Passing(#[pin] Passing<S, Request<RequestBody<B>>>),
    Reading(Reading<S, B, St>),
    Racing(Racing<S, B, St>),
    /// The store takes its time.
    Accepting {
        accepting: Waiting<S, B>,
        is_owed: bool,
    },
    /// This layer answers.
    Answered(Answer),
    Done,
}

/// The request's body is being read.
struct Reading<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
{
    intake: Intake<St>,
    call: Pin<Box<Call<S, B>>>,
    /// How long the body says it is, where it does.
    declared: Option<u64>,
    collect: Collect,
    /// Whether the body has been read to its end.
    ended: bool,
}

/// The call runs inline, and becomes a job if it takes too long.
struct Racing<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    call: Pin<Box<Call<S, B>>>,
    /// After how long, and of what. `None` where the call stays inline.
    hand_over: Option<(Duration, Arrival<St>)>,
}

impl<S, B, St> State<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    fn refused(problem: Problem) -> Self {
        Self::Answered(Answer::now(problem.response()))
    }

    /// Without a way to become a job any more.
    fn inline(call: Pin<Box<Call<S, B>>>) -> Self {
        let hand_over = None;
        Self::Racing(Racing { call, hand_over })
    }
}

impl<S, B, St> ResponseFuture<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    fn new(state: State<S, B, St>) -> Self {
        Self {
            state,
            timer: None,
            mark: None,
        }
    }

    pub(crate) fn marked(mut self, prefer: Prefer) -> Self {
        self.mark = Some(prefer);
        self
    }

    pub(crate) fn pass(inner: S, request: Request<RequestBody<B>>) -> Self {
        Self::new(State::Passing(Passing::new(inner, request)))
    }

    pub(crate) fn refused(problem: Problem) -> Self {
        Self::new(State::refused(problem))
    }

    pub(crate) fn answered(answer: Answer) -> Self {
        Self::new(State::Answered(answer))
    }

    pub(crate) fn reading(intake: Intake<St>, inner: S, head: Parts, body: B) -> Self
    where
        B: Body,
    {
        let declared = body.size_hint().exact();
        let collect = Collect::new(intake.registry.config.body_limit);
        let call = Box::pin(Call::new(inner, head, RequestBody::streaming(body)));
        Self::new(State::Reading(Reading {
            intake,
            call,
            declared,
            collect,
            ended: false,
        }))
    }
}

impl<S, B, R, St> Future for ResponseFuture<S, B, St>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
    St: Store,
{
    type Output = Result<Response<ResponseBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Passing(call) => {
                    let response = ready!(call.poll(cx));
                    return Poll::Ready(response.map(|response| inline(response, *this.mark)));
                }
                StateProj::Reading(reading) => {
                    let read = match reading.poll(cx) {
                        Poll::Ready(read) => read,
                        Poll::Pending if reading.ended => return Poll::Pending,
                        Poll::Pending => {
                            let limit = reading.intake.registry.config.body_timeout;
                            ready!(poll_timer(this.timer, limit, cx));
                            Err(ReadError::TimedOut)
                        }
                    };
                    *this.timer = None;
                    match this.state.as_mut().project_replace(State::Done) {
                        StateOwn::Reading(reading) => reading.next(read, cx),
                        _ => State::Done,
                    }
                }
                StateProj::Racing(racing) => {
                    if let Poll::Ready(response) = racing.call.as_mut().poll(cx) {
                        this.state.set(State::Done);
                        return Poll::Ready(response.map(|response| inline(response, *this.mark)));
                    }
                    let Some((after, _)) = &racing.hand_over else {
                        return Poll::Pending;
                    };
                    if !after.is_zero() {
                        ready!(poll_timer(this.timer, *after, cx));
                    }
                    *this.timer = None;
                    match this.state.as_mut().project_replace(State::Done) {
                        StateOwn::Racing(Racing {
                            call,
                            hand_over: Some((_, arrival)),
                        }) => State::accept(arrival, call, Instant::now(), false, cx),
                        _ => State::Done,
                    }
                }
                StateProj::Accepting { accepting, is_owed } => {
                    let accepting = ready!(accepting.as_mut().poll(cx));
                    State::accepted(accepting, *is_owed)
                }
                StateProj::Answered(answer) => {
                    let response = ready!(Pin::new(answer).poll(cx));
                    return Poll::Ready(Ok(response.map(ResponseBody::monitor)));
                }
                StateProj::Done => panic!("`ResponseFuture` polled after completion"),
            };
            if let (
                State::Racing(Racing {
                    hand_over: None, ..
                }),
                Some(prefer),
            ) = (&next, &mut *this.mark)
            {
                // It is answered however late: no wait is honored.
                prefer.wait = None;
            }
            this.state.set(next);
        }
    }
}

/// The inner service's response, as it is but for a mark.
fn inline<R>(mut response: Response<R>, mark: Option<Prefer>) -> Response<ResponseBody<R>> {
    if let Some(prefer) = mark {
        prefer.mark_inline(&mut response);
    }
    response.map(ResponseBody::inner)
}

/// Why a request's body was not read to its end.
enum ReadError {
    TooLarge,
    NoRoom,
    TimedOut,
    Broken,
}

impl<S, B, R, St> Reading<S, B, St>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
    St: Store,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
        let Some((head, body)) = self.call.as_mut().request() else {
            return Poll::Ready(Ok(()));
        };
        if !self.ended {
            let store = &self.intake.registry.store;
            let reserve = |bytes| store.reserve(bytes);
            ready!(self.collect.poll(Pin::new(&mut *body), cx, reserve)).map_err(|error| {
                match error {
                    CollectError::TooLarge => ReadError::TooLarge,
                    CollectError::NoRoom => ReadError::NoRoom,
                    CollectError::Body(_) => ReadError::Broken,
                }
            })?;
            self.ended = true;
            if may_have_been_cut(head, body) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn next(mut self, read: Result<(), ReadError>, cx: &mut Context<'_>) -> State<S, B, St> {
        let collected = self.collect.finish();
        let read_bytes = collected.bytes.len() as u64;
        let is_whole = self.declared.is_none_or(|declared| declared == read_bytes);
        let problem = match read {
            Ok(()) if is_whole => return self.start(collected, cx),
            Ok(()) | Err(ReadError::Broken) => {
                return State::refused(Problem::BodyBroken.counted());
            }
            Err(ReadError::TooLarge) => Problem::BodyTooLarge,
            Err(ReadError::NoRoom) => Problem::Full,
            Err(ReadError::TimedOut) => Problem::BodyTimeout,
        };
        let problem = problem.counted();
        if self.intake.is_owed {
            return State::refused(problem);
        }
        // No 202 is owed: the inner service gets what was read and the stream that follows.
        if let Some((_, body)) = self.call.as_mut().request() {
            body.put_back(collected);
        }
        State::inline(self.call)
    }

    /// Goes on with the whole body.
    fn start(mut self, collected: Collected, cx: &mut Context<'_>) -> State<S, B, St> {
        let Some((head, body)) = self.call.as_mut().request() else {
            return State::inline(self.call);
        };
        let within = match self.intake.plan {
            Plan::Within(within) => Some(within),
            Plan::Now | Plan::Pass => None,
        };
        let arrival = Arrival::new(self.intake, head, &collected);
        *body = RequestBody::read(collected);
        let call = self.call;
        match within {
            within if arrival.is_keyed() => {
                let accepting = accept::accept_keyed(arrival, call, within);
                State::Answered(Answer::later(async { accepting.await.map(Into::into) }))
            }
            Some(within) => State::Racing(Racing {
                call,
                hand_over: Some((within, arrival)),
            }),
            None => {
                let now = arrival.at();
                State::accept(arrival, call, now, true, cx)
            }
        }
    }
}

/// Whether the body's end may be that of its stream: an HTTP/2 stream reset as `NO_ERROR`, which is how
/// Envoy passes on that its client has hung up, ends hyper's body like any other. hyper looks for a
/// reset where the call is pending, and drops it: so it is pending once more.
fn may_have_been_cut<B: Body>(head: &Parts, body: &B) -> bool {
    head.version == Version::HTTP_2 && !body.is_end_stream()
}

impl<S, B, R, St> State<S, B, St>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
    St: Store,
{
    fn accept(
        arrival: Arrival<St>,
        call: Pin<Box<Call<S, B>>>,
        now: Instant,
        is_owed: bool,
        cx: &mut Context<'_>,
    ) -> Self {
        match accept::accept(arrival, call, now, cx) {
            Ok(accepting) => Self::accepted(accepting, is_owed),
            Err(accepting) => Self::Accepting { accepting, is_owed },
        }
    }

    fn accepted(accepting: Accepting<S, B>, is_owed: bool) -> Self {
        match accepting {
            Err((_, call)) if !is_owed => Self::inline(call),
            Ok(answer) | Err((answer, _)) => Self::Answered(Answer::now(answer)),
        }
    }
}

/// Starts the timer where it is not running, and polls it.
fn poll_timer(
    timer: &mut Option<Pin<Box<Sleep>>>,
    duration: Duration,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let timer = timer.get_or_insert_with(|| Box::pin(sleep(duration)));
    timer.as_mut().poll(cx)
}

impl<S, B, St> fmt::Debug for ResponseFuture<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Passing(_) => "ResponseFuture::Passing",
            State::Reading(_) => "ResponseFuture::Reading",
            State::Racing(_) => "ResponseFuture::Racing",
            State::Accepting { .. } => "ResponseFuture::Accepting",
            State::Answered(_) => "ResponseFuture::Answered",
            State::Done => "ResponseFuture::Done",
        })
    }
}
