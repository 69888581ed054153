use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, SystemTime},
};

use http::{Request, Response};
use http_body::Body;
use pin_project::pin_project;
use tokio::{
    select,
    time::{Instant, Sleep, sleep},
};
use tower::{BoxError, Service};
use tracing::{Span, field::display};

use super::{
    call::Call,
    response::{Incoming, Receive},
};
use crate::{
    estimate::{Elapsed, Kind, MidpointSample, Sample},
    job::{ErrorCode, JobId, Progress},
    jobs::Registry,
    limit::Slot,
    middleware::RequestBody,
    stop::Interrupt,
    store::{End, Finished, News, Outcome, Report, Store},
    telemetry,
};

/// How long nothing new is told of a job's progress after something was: whoever watches is woken
/// that often, however often the call reports.
const PAUSE: Duration = Duration::from_millis(50);

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A call that is a job.
///
/// As a future it drives the call to exactly one end: its own, or the first that is decided elsewhere. Where it is
/// dropped before, with its runtime, the claim's drop ends the job.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Run<S: Service<Request<RequestBody<B>>>, B, St: Store> {
    call: Call<S, B>,
    /// The response, once it has come. Boxed then: a job would have room for it for as long as its call runs.
    response: Option<Pin<Box<dyn Receive<St> + Send>>>,
    stage: Stage<St>,
    /// What can end the job before its call does; asked for by those calls only that are not done at once.
    interrupt: Option<Interrupt>,
    /// Made for the first report of progress, since most calls report nothing.
    reported: Option<Pin<Box<Reported>>>,
    start_told: bool,
    /// Dropped last: its slot outlives the call.
    job: Job<St>,
}

/// What there is of a job that has told of its progress.
#[pin_project]
struct Reported {
    /// Runs after each report.
    #[pin]
    pause: Sleep,
    midpoint: MidpointSample,
}

/// A job that has been accepted and is to be run.
pub(crate) struct Job<St: Store> {
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
    /// What it has failed with, if it has.
    error: Option<ErrorCode>,
    /// Why it is to before its call does.
    interrupted: Option<ErrorCode>,
}

enum Step {
    Started(Instant),
    Progress(Progress),
    Ended(Outcome),
    Interrupted(ErrorCode),
}

impl<S: Service<Request<RequestBody<B>>>, B, St: Store> Run<S, B, St> {
    /// Makes a call the job of this name.
    pub(crate) fn new(mut call: Call<S, B>, id: JobId, job: Job<St>) -> Self {
        call.accepted(id);
        Self {
            start_told: call.started().is_some(),
            call,
            response: None,
            stage: Stage::Calling,
            interrupt: None,
            reported: None,
            job,
        }
    }
}

// Nothing is pinned in here but what has a box of its own.
impl<S: Service<Request<RequestBody<B>>>, B, St: Store> Unpin for Run<S, B, St> {}

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
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            match &mut this.stage {
                Stage::Calling => match ready!(this.poll_step(cx)) {
                    Step::Started(at) => this.report(News::Started(at), cx),
                    Step::Progress(progress) => this.report(News::Progress(progress), cx),
                    Step::Ended(outcome) => this.finish(outcome, None, cx),
                    Step::Interrupted(code) => this.finish(Outcome::Broke(code), Some(code), cx),
                },
                Stage::Reporting(reporting) => {
                    told(ready!(reporting.as_mut().poll(cx)));
                    this.stage = Stage::Calling;
                }
                Stage::Finishing(finishing, how) => {
                    let (finished, how) = (ready!(finishing.as_mut().poll(cx)), *how);
                    this.ended(finished, how);
                }
                Stage::Grace(over) => {
                    if over.as_mut().poll(cx).is_pending() {
                        ready!(this.poll_end(cx));
                    }
                    this.stage = Stage::Done;
                }
                Stage::Done => return Poll::Ready(()),
            }
        }
    }
}

impl<S, B, R, St> Run<S, B, St>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
    St: Store,
{
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        // The call is asked first, so that one which is done at once costs neither a timer nor a waiter. One
        // that was canceled while it was queued is not to begin, ready or not.
        if self.call.started().is_some() || !self.is_canceled() {
            if let Poll::Ready(outcome) = self.poll_end(cx) {
                return Poll::Ready(Step::Ended(outcome));
            }
            if let (false, Some(at)) = (self.start_told, self.call.started()) {
                self.start_told = true;
                return Poll::Ready(Step::Started(at));
            }
            if let Poll::Ready(progress) = self.poll_progress(cx) {
                return Poll::Ready(Step::Progress(progress));
            }
        }
        self.poll_interrupted(cx).map(Step::Interrupted)
    }

    fn poll_progress(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        // Meanwhile the call has no waker to wake: a report is an assignment under a lock. The pause's
        // end looks for what came, and the job's end brings the last of it in any case.
        if let Some(reported) = &mut self.reported {
            ready!(reported.as_mut().project().pause.poll(cx));
        }
        let Some(progress) = self.call.take_change(cx) else {
            return Poll::Pending;
        };
        match &mut self.reported {
            Some(reported) => {
                let pause = reported.as_mut().project().pause;
                pause.reset(Instant::now() + PAUSE);
            }
            none => {
                *none = Some(Box::pin(Reported {
                    pause: sleep(PAUSE),
                    midpoint: MidpointSample::default(),
                }));
            }
        }
        Poll::Ready(progress)
    }

    /// Polls the call, then its response's body. A panic in either is an end like any other: what
    /// panicked is not polled again, so that nothing sees it half done.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Self {
            call,
            response,
            job,
            ..
        } = self;
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let response = match response {
                Some(response) => response,
                none => match ready!(call.poll(cx)) {
                    Err(error) => {
                        log("the service failed", error.into());
                        return Poll::Ready(Outcome::Broke(ErrorCode::InnerError));
                    }
                    // A switch of protocols, or nothing that could be handed out as a result.
                    Ok(response) if response.status().is_informational() => {
                        let status = response.status().to_string();
                        log("the service's response is none", status.into());
                        return Poll::Ready(Outcome::Broke(ErrorCode::InnerError));
                    }
                    Ok(response) => none.insert(Box::pin(Incoming::new(response, job))),
                },
            };
            call.enter(|| response.as_mut().poll(job, cx))
        }));
        polled.unwrap_or_else(|panic| {
            tracing::error!(panic = panic_message(&*panic), "the service panicked");
            Poll::Ready(Outcome::Broke(ErrorCode::Panic))
        })
    }

    /// Whether the job was canceled.
    fn is_canceled(&self) -> bool {
        let job = &self.job;
        // Who is to be woken asks in `poll_interrupted`.
        let mut nobody = Context::from_waker(Waker::noop());
        let canceled = job.registry.store.poll_canceled(&job.claim, &mut nobody);
        canceled.is_ready()
    }

    /// Ready when the job is to end before its call does.
    fn poll_interrupted(&mut self, cx: &mut Context<'_>) -> Poll<ErrorCode> {
        let job = &self.job;
        let registry = &job.registry;
        if registry.store.poll_canceled(&job.claim, cx).is_ready() {
            return Poll::Ready(ErrorCode::Canceled);
        }
        let interrupt = self.interrupt.get_or_insert_with(|| {
            let from = job.created + Duration::from_secs(job.waited.into());
            let limit = registry.config.job_timeout;
            // A limit beyond the clock's end is none.
            let end = limit.and_then(|limit| from.checked_add(limit));
            registry.gate.interrupts().enter(end)
        });
        interrupt.poll(cx)
    }

    fn report(&mut self, news: News, cx: &mut Context<'_>) {
        let job = &self.job;
        let fraction = match &news {
            News::Started(_) => None,
            News::Progress(progress) => progress.fraction,
        };
        let (now, started) = (Instant::now(), self.call.started());
        if let (Some(started), Some(fraction), Some(reported)) =
            (started, fraction, &mut self.reported)
        {
            let ran = now.saturating_duration_since(started);
            reported.as_mut().project().midpoint.record(fraction, ran);
        }
        let elapsed = Elapsed::at(now, job.created, started, fraction);
        let total = job.registry.estimates.expected_total(&job.kind, elapsed);
        let report = Report {
            estimated_finish: total.and_then(|total| job.created_at.checked_add(total)),
            news,
        };
        let mut reporting = job.registry.store.report(&job.claim, report);
        match Pin::new(&mut reporting).poll(cx) {
            Poll::Ready(reported) => told(reported),
            Poll::Pending => self.stage = Stage::Reporting(Box::pin(reporting)),
        }
    }

    fn finish(&mut self, outcome: Outcome, interrupted: Option<ErrorCode>, cx: &mut Context<'_>) {
        let how = How {
            error: error_of(&outcome),
            interrupted,
        };
        Span::current().record("end", display(end_name(how.error)));
        let end = End {
            started: self.call.started(),
            progress: self.call.progress(),
            outcome,
        };
        // Nothing is to end it any more.
        self.interrupt = None;
        let mut finishing = self.job.registry.store.finish(&self.job.claim, end);
        match Pin::new(&mut finishing).poll(cx) {
            Poll::Ready(finished) => self.ended(finished, how),
            Poll::Pending => self.stage = Stage::Finishing(Box::pin(finishing), how),
        }
    }

    /// Takes note of the end, and lets a call go on for a while that has heard of it.
    fn ended(&mut self, finished: Result<Finished, St::Error>, how: How) {
        let (call, job) = (&mut self.call, &self.job);
        match finished {
            Ok(Finished::HandedBack) => tracing::debug!("job handed back"),
            // Whoever has it counts it.
            Ok(Finished::TakenOver) => tracing::debug!("job taken over"),
            Ok(finished) => {
                tracing::debug!("job ended");
                // Another end than its own comes from who canceled or deleted it.
                let error = match finished {
                    Finished::First => how.error,
                    _ => Some(ErrorCode::Canceled),
                };
                telemetry::ended(end_name(error));
                if let Some(started) = call.started() {
                    let queued = started.saturating_duration_since(job.created);
                    let (ran, succeeded) = (started.elapsed(), error.is_none());
                    telemetry::took(job.kind.as_str(), succeeded, queued, ran);
                    // Of how long those take that succeed, others say nothing.
                    if succeeded && let Some(id) = call.id() {
                        let reported = self.reported.as_ref();
                        let midpoint = reported.map(|reported| reported.midpoint);
                        let midpoint = midpoint.unwrap_or_default();
                        let now = SystemTime::now();
                        let sample = Sample::new(id.low_bits(), now, queued, ran, &midpoint);
                        job.registry.estimates.learn(&job.kind, sample, now);
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
            let heard = call.cancel();
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
            () = registry.gate.interrupts().shutdown() => {}
        }
    }
}

/// The name of an end.
fn end_name(error: Option<ErrorCode>) -> &'static str {
    error.map_or("succeeded", |code| code.as_str())
}

/// What a job that ends so has failed with.
fn error_of(outcome: &Outcome) -> Option<ErrorCode> {
    match outcome {
        Outcome::Broke(code) => Some(*code),
        Outcome::Response(response) if response.status().as_u16() < 400 => None,
        Outcome::Response(_) => Some(ErrorCode::HttpError),
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
