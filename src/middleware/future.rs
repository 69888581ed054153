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

use super::{
    admission,
    admission::{Arrival, Waiting},
    body::{Replay, RequestBody, ResponseBody},
    pass_through::Passing,
};
use crate::{
    config::Plan,
    limit::{Collect, CollectError, Collected},
    monitor::Answer,
    problem::Problem,
    protocol::Prefer,
    run::Call,
    store::{MemoryStore, Store},
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

#[pin_project(project = StateProj)]
enum State<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    /// The call alone, without a way to become a job.
    Passing(#[pin] Passing<S, Request<RequestBody<B>>>),
    /// A call that may become a job.
    Arriving(Arriving<S, B, St>),
    /// The store takes its time.
    Accepting {
        accepting: Waiting<S, B>,
        is_owed: bool,
    },
    /// This layer answers.
    Answered(Answer),
}

/// A call that may become a job, or might have.
struct Arriving<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    /// Until the call goes to the background.
    call: Option<Call<S, B>>,
    /// Until it is too late to become a job.
    arrival: Option<Arrival<St>>,
    stage: Stage,
}

enum Stage {
    /// The request's body is being read.
    Reading(Reading),
    /// The call runs inline, and becomes a job if it takes longer than so.
    Racing(Duration),
    /// The call runs inline, however long.
    Inline,
}

struct Reading {
    /// How long the body says it is, where it does.
    declared: Option<u64>,
    collect: Collect,
    /// Whether the body has been read to its end.
    ended: bool,
}

impl<S, B, St> Arriving<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    /// A call without a way to become a job any more.
    fn inline(call: Call<S, B>) -> Self {
        Self {
            call: Some(call),
            arrival: None,
            stage: Stage::Inline,
        }
    }
}

impl<S, B, St> ResponseFuture<S, B, St>
where
    S: Service<Request<RequestBody<B>>>,
    St: Store,
{
    #[inline(always)]
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

    #[inline(always)]
    pub(crate) fn pass(inner: S, request: Request<RequestBody<B>>) -> Self {
        Self::new(State::Passing(Passing::new(inner, request)))
    }

    pub(crate) fn refused(problem: Problem) -> Self {
        Self::answered(Answer::now(problem.response()))
    }

    pub(crate) fn answered(answer: Answer) -> Self {
        Self::new(State::Answered(answer))
    }

    pub(crate) fn arriving(arrival: Arrival<St>, inner: S, head: Parts, body: B) -> Self
    where
        B: Body,
    {
        let declared = body.size_hint().exact();
        let collect = Collect::new(arrival.registry.config.body_limit);
        Self::new(State::Arriving(Arriving {
            call: Some(Call::new(inner, head, RequestBody::streaming(body))),
            arrival: Some(arrival),
            stage: Stage::Reading(Reading {
                declared,
                collect,
                ended: false,
            }),
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
                StateProj::Arriving(arriving) => match ready!(arriving.poll(this.timer, cx)) {
                    Next::Inline(response) => {
                        return Poll::Ready(response.map(|response| inline(response, *this.mark)));
                    }
                    Next::Answer(response) => {
                        return Poll::Ready(Ok(response.map(ResponseBody::monitor)));
                    }
                    Next::Stay => {
                        forgo_wait(this.mark);
                        continue;
                    }
                    Next::Wait(accepting, is_owed) => State::Accepting { accepting, is_owed },
                    Next::Keyed(answer) => State::Answered(answer),
                },
                StateProj::Accepting { accepting, is_owed } => {
                    match ready!(accepting.as_mut().poll(cx)) {
                        Err((_, call)) if !*is_owed => {
                            forgo_wait(this.mark);
                            State::Arriving(Arriving::inline(call))
                        }
                        Ok(answer) | Err((answer, _)) => State::Answered(Answer::now(answer)),
                    }
                }
                StateProj::Answered(answer) => {
                    let response = ready!(Pin::new(answer).poll(cx));
                    return Poll::Ready(Ok(response.map(ResponseBody::monitor)));
                }
            };
            this.state.set(next);
        }
    }
}

/// The inner service's response, as it is but for a mark.
#[inline(always)]
fn inline<R>(mut response: Response<R>, mark: Option<Prefer>) -> Response<ResponseBody<R>> {
    if let Some(prefer) = mark {
        prefer.mark_inline(&mut response);
    }
    response.map(ResponseBody::inner)
}

/// What is answered however late honors no wait.
fn forgo_wait(mark: &mut Option<Prefer>) {
    if let Some(prefer) = mark {
        prefer.wait = None;
    }
}

/// Why a request's body was not read to its end.
enum ReadError {
    TooLarge,
    NoRoom,
    TimedOut,
    Broken,
}

/// What comes of an arriving call.
enum Next<S: Service<Request<RequestBody<B>>>, B, R> {
    /// The inner service's response.
    Inline(Result<Response<R>, S::Error>),
    /// The layer's.
    Answer(Response<Replay>),
    /// The call cannot become a job any more.
    Stay,
    /// The store takes its time; and whether a 202 is owed.
    Wait(Waiting<S, B>, bool),
    Keyed(Answer),
}

impl<S, B, R, St> Arriving<S, B, St>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
    St: Store,
{
    fn poll(
        &mut self,
        timer: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
    ) -> Poll<Next<S, B, R>> {
        loop {
            let call = self.call.as_mut().expect("polled after its response");
            match (&mut self.stage, &mut self.arrival) {
                (Stage::Reading(reading), Some(arrival)) => {
                    let registry = &arrival.registry;
                    let read = match reading.poll(call, &registry.store, cx) {
                        Poll::Ready(read) => read,
                        Poll::Pending if reading.ended => return Poll::Pending,
                        Poll::Pending => {
                            ready!(poll_timer(timer, registry.config.body_timeout, cx));
                            Err(ReadError::TimedOut)
                        }
                    };
                    *timer = None;
                    if let Some(next) = self.read(read, cx) {
                        return Poll::Ready(next);
                    }
                }
                (Stage::Racing(after), Some(_)) => {
                    if let Poll::Ready(response) = call.poll(cx) {
                        self.call = None;
                        // With its slot, and what was recorded of the request.
                        self.arrival = None;
                        return Poll::Ready(Next::Inline(response));
                    }
                    if !after.is_zero() {
                        ready!(poll_timer(timer, *after, cx));
                    }
                    *timer = None;
                    return Poll::Ready(self.accept(Instant::now(), false, cx));
                }
                (Stage::Inline, _) | (_, None) => {
                    let response = ready!(call.poll(cx));
                    self.call = None;
                    return Poll::Ready(Next::Inline(response));
                }
            }
        }
    }

    /// Goes on with what was read of the body; `None` where the call runs inline at first.
    fn read(&mut self, read: Result<(), ReadError>, cx: &mut Context<'_>) -> Option<Next<S, B, R>> {
        let (Stage::Reading(reading), Some(arrival)) = (&mut self.stage, &mut self.arrival) else {
            return Some(self.stay());
        };
        let collected = reading.collect.finish();
        let read_bytes = collected.bytes.len() as u64;
        let declared = reading.declared;
        let is_whole = declared.is_none_or(|declared| declared == read_bytes);
        let problem = match read {
            Ok(()) if is_whole => return self.start(collected, cx),
            Ok(()) | Err(ReadError::Broken) => {
                return Some(self.answer(Problem::BodyBroken.counted().response()));
            }
            Err(ReadError::TooLarge) => Problem::BodyTooLarge,
            Err(ReadError::NoRoom) => Problem::Full,
            Err(ReadError::TimedOut) => Problem::BodyTimeout,
        };
        let problem = problem.counted();
        if arrival.is_owed {
            return Some(self.answer(problem.response()));
        }
        // No 202 is owed: the inner service gets what was read and the stream that follows.
        let request = self.call.as_mut().and_then(Call::request);
        if let Some((_, body)) = request {
            body.put_back(collected);
        }
        Some(self.stay())
    }

    /// Goes on with the whole body.
    fn start(&mut self, collected: Collected, cx: &mut Context<'_>) -> Option<Next<S, B, R>> {
        let (Some(call), Some(arrival)) = (&mut self.call, &mut self.arrival) else {
            return Some(self.stay());
        };
        let request = call.request();
        let (head, body) = request.expect("its call has not begun");
        let read_at = arrival.body_read(head, &collected);
        *body = RequestBody::read(collected);
        let within = match arrival.plan {
            Plan::Within(within) => Some(within),
            Plan::Now | Plan::Pass => None,
        };
        match within {
            within if arrival.is_keyed() => {
                let (arrival, call) = (self.arrival.take()?, self.call.take()?);
                let accepting = admission::accept_keyed(arrival, call, within);
                Some(Next::Keyed(Answer::later(async {
                    accepting.await.map(Into::into)
                })))
            }
            Some(within) => {
                self.stage = Stage::Racing(within);
                None
            }
            None => Some(self.accept(read_at, true, cx)),
        }
    }

    fn accept(&mut self, now: Instant, is_owed: bool, cx: &mut Context<'_>) -> Next<S, B, R> {
        let call = self.call.take().expect("a call is handed over once");
        match admission::accept(&mut self.arrival, call, now, cx) {
            Ok(Err((_, call))) if !is_owed => {
                self.call = Some(call);
                self.stay()
            }
            Ok(Ok(answer) | Err((answer, _))) => self.answer(answer),
            Err(accepting) => Next::Wait(accepting, is_owed),
        }
    }

    fn answer(&mut self, answer: Response<Replay>) -> Next<S, B, R> {
        self.call = None;
        self.arrival = None;
        Next::Answer(answer)
    }

    fn stay(&mut self) -> Next<S, B, R> {
        // Its slot goes with it.
        self.arrival = None;
        self.stage = Stage::Inline;
        Next::Stay
    }
}

impl Reading {
    fn poll<S, B>(
        &mut self,
        call: &mut Call<S, B>,
        store: &impl Store,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ReadError>>
    where
        S: Service<Request<RequestBody<B>>>,
        B: Body<Data = Bytes> + Unpin,
    {
        let Some((head, body)) = call.request() else {
            return Poll::Ready(Ok(()));
        };
        if !self.ended {
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
}

/// Whether the body's end may be that of its stream: an HTTP/2 stream reset as `NO_ERROR`, which is how
/// Envoy passes on that its client has hung up, ends hyper's body like any other. hyper looks for a
/// reset where the call is pending, and drops it: so it is pending once more.
fn may_have_been_cut<B: Body>(head: &Parts, body: &B) -> bool {
    head.version == Version::HTTP_2 && !body.is_end_stream()
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
            State::Arriving(_) => "ResponseFuture::Arriving",
            State::Accepting { .. } => "ResponseFuture::Accepting",
            State::Answered(_) => "ResponseFuture::Answered",
        })
    }
}
