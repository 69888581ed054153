use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, SystemTime},
};

use http::{Request, Response, request::Parts};
use http_body::Body;
use pin_project::pin_project;
use tokio::{
    select,
    time::{Instant, Sleep, sleep, sleep_until},
};
use tower::{BoxError, Service};
use tracing::{Span, field::display};

use crate::{
    body::RequestBody,
    call::Call,
    estimate::{Halfway, Kind},
    gate::Slot,
    job::{ErrorCode, JobId, Progress},
    jobs::Registry,
    measure,
    receive::{Incoming, Receive},
    store::{End, Finished, News, Outcome, Report, Store},
};

/// How long nothing new is told of a job's progress after something was: whoever watches is woken
/// that often, however often the call reports.
const PAUSE: Duration = Duration::from_millis(50);

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A call, and once it has been accepted, the job that it is.
///
/// It is boxed before its request's body is read, and is in that box until the job has ended: nothing of
/// what follows moves it. As a future it drives the call to exactly one end: its own, or the first that is
/// decided elsewhere. Where it is dropped before, with its runtime, the claim's drop ends the job.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Run<S: Service<Request<RequestBody<B>>>, B, St: Store> {
    #[pin]
    call: Call<S, B>,
    /// Dropped after the call: its slot outlives that. Boxed: a call that is answered inline has no need of it, and
    /// with it many a call would be larger than what allocators keep at hand (glibc: 1,032 bytes).
    running: Option<Box<Running<St>>>,
}

/// A job that has been accepted and is to be run.
pub(crate) struct Job<St: Store> {
    pub(crate) id: JobId,
    pub(crate) registry: Arc<Registry<St>>,
    /// When the request was taken.
    pub(crate) created: Instant,
    /// The same by the clock on the wall.
    pub(crate) created_at: SystemTime,
    /// For how many seconds it waited for a worker, which its time-out does not count. So few bytes find room
    /// beside the rest.
    pub(crate) waited: u32,
    /// Whether the request was a HEAD, whose response has a length and no body.
    pub(crate) is_head: bool,
    pub(crate) is_owned: bool,
    pub(crate) kind: Kind,
    pub(crate) claim: St::Claim,
    /// Dropped last, after the claim: when the slot is back, the job has ended.
    pub(crate) _slot: Option<Slot>,
}

impl<S: Service<Request<RequestBody<B>>>, B, St: Store> Run<S, B, St> {
    /// A call that is no job yet.
    pub(crate) fn new(inner: S, head: Parts, body: RequestBody<B>) -> Self {
        Self {
            call: Call::new(inner, head, body),
            running: None,
        }
    }

    /// The call, until it is a job.
    pub(crate) fn call(self: Pin<&mut Self>) -> Pin<&mut Call<S, B>> {
        self.project().call
    }

    /// The same, to be looked at.
    pub(crate) fn as_call(&self) -> &Call<S, B> {
        &self.call
    }

    /// Makes the call a job.
    pub(crate) fn start(self: Pin<&mut Self>, job: Job<St>) {
        let this = self.project();
        let start_told = this.call.started().is_some();
        this.call.accepted(job.id);
        *this.running = Some(Box::new(Running {
            job,
            stage: Stage::Calling,
            response: None,
            interrupted: None,
            pause: None,
            halfway: Halfway::default(),
            start_told,
        }));
    }
}

impl<S, B, R, St> Future for Run<S, B, St>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
    St: Store,
{
    type Output = ();

    /// Completes when the job has ended, and its grace is over.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let running = this.running.as_mut().expect("a job is polled");
        running.poll(this.call, cx)
    }
}

/// How far a job has come.
struct Running<St: Store> {
    /// The response, once it has come. Boxed then: a job would have room for it for as long as its call runs.
    response: Option<Pin<Box<dyn Receive<St> + Send>>>,
    stage: Stage<St>,
    /// What can end the job before its call does; waited for by those calls only that are not done at once.
    interrupted: Option<BoxFuture<ErrorCode>>,
    /// Runs after a report of progress; made for the first, since most calls report nothing.
    pause: Option<Pin<Box<Sleep>>>,
    halfway: Halfway,
    start_told: bool,
    /// Dropped last.
    job: Job<St>,
}

enum Stage<St: Store> {
    /// The call, then its response's body, goes on.
    Calling,
    /// The store takes its time for a report.
    Reporting(BoxFuture<Result<(), St::Error>>),
    /// The store takes its time for the end.
    Finishing(BoxFuture<Result<Finished, St::Error>>, How),
    /// The call has heard of its end, and may go on for a while.
    Grace(BoxFuture<()>),
    Done,
}

/// How a job is to end.
#[derive(Clone, Copy)]
struct How {
    name: &'static str,
    /// Why it is to before its call does.
    interrupted: Option<ErrorCode>,
}

enum Step {
    Started(Instant),
    Progress(Progress),
    Ended(Outcome),
    Interrupted(ErrorCode),
}

impl<St: Store> Running<St> {
    fn poll<S, B, R>(&mut self, mut call: Pin<&mut Call<S, B>>, cx: &mut Context<'_>) -> Poll<()>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>>,
        S::Error: Into<BoxError>,
        R: Body + Send + 'static,
        R::Error: Into<BoxError>,
    {
        loop {
            match &mut self.stage {
                Stage::Calling => match ready!(self.poll_step(call.as_mut(), cx)) {
                    Step::Started(at) => self.report(&call, News::Started(at), cx),
                    Step::Progress(progress) => self.report(&call, News::Progress(progress), cx),
                    Step::Ended(outcome) => self.finish(call.as_mut(), outcome, None, cx),
                    Step::Interrupted(code) => {
                        self.finish(call.as_mut(), Outcome::Broke(code), Some(code), cx);
                    }
                },
                Stage::Reporting(reporting) => {
                    told(ready!(reporting.as_mut().poll(cx)));
                    self.stage = Stage::Calling;
                }
                Stage::Finishing(finishing, how) => {
                    let (finished, how) = (ready!(finishing.as_mut().poll(cx)), *how);
                    self.ended(call.as_mut(), finished, how);
                }
                Stage::Grace(over) => {
                    if over.as_mut().poll(cx).is_pending() {
                        ready!(self.poll_end(call.as_mut(), cx));
                    }
                    self.stage = Stage::Done;
                }
                Stage::Done => return Poll::Ready(()),
            }
        }
    }

    fn poll_step<S, B, R>(
        &mut self,
        mut call: Pin<&mut Call<S, B>>,
        cx: &mut Context<'_>,
    ) -> Poll<Step>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>>,
        S::Error: Into<BoxError>,
        R: Body + Send + 'static,
        R::Error: Into<BoxError>,
    {
        // The call is asked first, so that one which is done at once costs neither a timer nor a waiter. One
        // that was canceled while it was queued is not to begin, ready or not.
        if call.started().is_some() || !self.is_canceled() {
            if let Poll::Ready(outcome) = self.poll_end(call.as_mut(), cx) {
                return Poll::Ready(Step::Ended(outcome));
            }
            if let (false, Some(at)) = (self.start_told, call.started()) {
                self.start_told = true;
                return Poll::Ready(Step::Started(at));
            }
            if let Poll::Ready(progress) = self.poll_progress(call, cx) {
                return Poll::Ready(Step::Progress(progress));
            }
        }
        let job = &self.job;
        let interrupted = self.interrupted.get_or_insert_with(|| interrupted(job));
        interrupted.as_mut().poll(cx).map(Step::Interrupted)
    }

    fn poll_progress<S, B>(
        &mut self,
        call: Pin<&mut Call<S, B>>,
        cx: &mut Context<'_>,
    ) -> Poll<Progress>
    where
        S: Service<Request<RequestBody<B>>>,
    {
        // Meanwhile the call has no waker to wake: a report is an assignment under a lock. The pause's
        // end looks for what came, and the job's end brings the last of it in any case.
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
        }
        let Some(progress) = call.take_change(cx) else {
            return Poll::Pending;
        };
        match &mut self.pause {
            Some(pause) => pause.as_mut().reset(Instant::now() + PAUSE),
            none => *none = Some(Box::pin(sleep(PAUSE))),
        }
        Poll::Ready(progress)
    }

    /// Polls the call, then its response's body. A panic in either is an end like any other: what
    /// panicked is not polled again, so that nothing sees it half done.
    fn poll_end<S, B, R>(
        &mut self,
        mut call: Pin<&mut Call<S, B>>,
        cx: &mut Context<'_>,
    ) -> Poll<Outcome>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>>,
        S::Error: Into<BoxError>,
        R: Body + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let polled = catch_unwind(AssertUnwindSafe(|| {
            if self.response.is_none() {
                match ready!(call.as_mut().poll(cx)) {
                    Err(error) => {
                        log("the service failed", error.into());
                        return Poll::Ready(Outcome::Broke(ErrorCode::InnerError));
                    }
                    Ok(response) => {
                        // A switch of protocols, or nothing that could be handed out as a result.
                        if response.status().is_informational() {
                            let status = response.status().to_string();
                            log("the service's response is none", status.into());
                            return Poll::Ready(Outcome::Broke(ErrorCode::InnerError));
                        }
                        self.response = Some(Box::pin(Incoming::new(response, &self.job)));
                    }
                }
            }
            match &mut self.response {
                Some(response) => call.enter(|| response.as_mut().poll(&self.job, cx)),
                None => Poll::Pending,
            }
        }));
        polled.unwrap_or_else(|panic| {
            tracing::error!(panic = panic_message(&*panic), "the service panicked");
            Poll::Ready(Outcome::Broke(ErrorCode::Panic))
        })
    }

    /// Whether the job was canceled.
    fn is_canceled(&self) -> bool {
        let mut canceled = self.job.registry.store.canceled(&self.job.claim);
        // Whoever is to be woken waits in `interrupted`.
        let mut nobody = Context::from_waker(Waker::noop());
        Pin::new(&mut canceled).poll(&mut nobody).is_ready()
    }

    fn report<S, B>(&mut self, call: &Call<S, B>, news: News, cx: &mut Context<'_>)
    where
        S: Service<Request<RequestBody<B>>>,
    {
        let job = &self.job;
        let fraction = match &news {
            News::Started(_) => None,
            News::Progress(progress) => progress.fraction,
        };
        let (now, started) = (Instant::now(), call.started());
        if let (Some(started), Some(fraction)) = (started, fraction) {
            let ran = now.saturating_duration_since(started);
            self.halfway.see(fraction, ran);
        }
        let estimates = &job.registry.estimates;
        let whole = estimates.whole(&job.kind, now, job.created, started, fraction);
        let report = Report {
            estimated_finish: whole.and_then(|whole| job.created_at.checked_add(whole)),
            news,
        };
        let mut reporting = job.registry.store.report(&job.claim, report);
        match Pin::new(&mut reporting).poll(cx) {
            Poll::Ready(reported) => told(reported),
            Poll::Pending => self.stage = Stage::Reporting(Box::pin(reporting)),
        }
    }

    fn finish<S, B>(
        &mut self,
        call: Pin<&mut Call<S, B>>,
        outcome: Outcome,
        interrupted: Option<ErrorCode>,
        cx: &mut Context<'_>,
    ) where
        S: Service<Request<RequestBody<B>>>,
    {
        let name = end_name(&outcome);
        Span::current().record("end", display(name));
        let end = End {
            started: call.started(),
            progress: call.progress(),
            outcome,
        };
        let how = How { name, interrupted };
        let mut finishing = self.job.registry.store.finish(&self.job.claim, end);
        match Pin::new(&mut finishing).poll(cx) {
            Poll::Ready(finished) => self.ended(call, finished, how),
            Poll::Pending => self.stage = Stage::Finishing(Box::pin(finishing), how),
        }
    }

    /// Takes note of the end, and lets a call go on for a while that has heard of it.
    fn ended<S, B>(
        &mut self,
        mut call: Pin<&mut Call<S, B>>,
        finished: Result<Finished, St::Error>,
        how: How,
    ) where
        S: Service<Request<RequestBody<B>>>,
    {
        let job = &self.job;
        match finished {
            Ok(Finished::HandedBack) => tracing::debug!("job handed back"),
            // Whoever has it counts it.
            Ok(Finished::TakenOver) => tracing::debug!("job taken over"),
            Ok(finished) => {
                tracing::debug!("job ended");
                // Another end than its own comes from who canceled or deleted it.
                let name = match finished {
                    Finished::First => how.name,
                    _ => ErrorCode::Canceled.as_str(),
                };
                measure::ended(name);
                if let Some(started) = call.started() {
                    let queued = started.saturating_duration_since(job.created);
                    let (ran, succeeded) = (started.elapsed(), name == SUCCEEDED);
                    measure::took(&job.kind, succeeded, queued, ran);
                    // Of how long those take that succeed, others say nothing.
                    if succeeded {
                        let estimates = &job.registry.estimates;
                        estimates.learn(&job.kind, job.created_at, queued, ran, &self.halfway);
                    }
                }
            }
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "the job's end is not stored"
            ),
        }
        self.stage = Stage::Done;
        if let Some(code) = how.interrupted {
            let heard = call.as_mut().cancel() && call.started().is_some();
            // A drain has waited long enough already.
            if heard && code != ErrorCode::Shutdown {
                self.stage = Stage::Grace(Box::pin(grace(&job.registry)));
            }
        }
    }
}

fn told(reported: Result<(), impl std::error::Error + 'static>) {
    if let Err(error) = reported {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "progress not stored"
        );
    }
}

/// Completes when a call has had its time to end by itself.
fn grace<St: Store>(registry: &Arc<Registry<St>>) -> impl Future<Output = ()> + use<St> {
    let registry = registry.clone();
    async move {
        select! {
            () = sleep(registry.config.cancel_grace) => {}
            () = registry.gate.shutdown() => {}
        }
    }
}

/// Completes when the job is to end before its call does.
fn interrupted<St: Store>(job: &Job<St>) -> BoxFuture<ErrorCode> {
    let registry = job.registry.clone();
    let from = job.created + Duration::from_secs(job.waited.into());
    let mut canceled = registry.store.canceled(&job.claim);
    Box::pin(async move {
        let limit = registry.config.job_timeout;
        let timed_out = async {
            // A limit beyond the clock's end is none.
            match limit.and_then(|limit| from.checked_add(limit)) {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        select! {
            biased;
            () = &mut canceled => ErrorCode::Canceled,
            () = registry.gate.shutdown() => ErrorCode::Shutdown,
            () = timed_out => ErrorCode::Timeout,
        }
    })
}

/// The name of the one good end.
const SUCCEEDED: &str = "succeeded";

fn end_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Broke(code) => code.as_str(),
        Outcome::Response(response) if response.status().as_u16() < 400 => SUCCEEDED,
        Outcome::Response(_) => ErrorCode::HttpError.as_str(),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("not a text")
}

pub(crate) fn log(what: &'static str, error: BoxError) {
    tracing::error!(error = &*error as &dyn std::error::Error, "{what}");
}
