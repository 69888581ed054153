//! Drives a call to exactly one end of its job.

use std::{
    error::Error,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, SystemTime},
};

use http::{Request, StatusCode};
use pin_project::pin_project;
use tokio::{
    select,
    time::{Instant, Sleep, sleep},
};
use tower_service::Service;
use tracing::{Span, field::display};

use super::{
    call::Call,
    inner::InnerService,
    job::Job,
    log::log_error,
    outlets::Outlets,
    payload::{drop_payload, panic_message},
    request_body::RequestBody,
    response::{Collect, CollectResponse},
    target::JobTarget,
    timeout::is_timeout,
    unreached::Unreached,
};
use crate::{
    estimate::{Elapsed, MidpointSample, Sample},
    job::{ErrorCode, JobId, Progress},
    protocol::BoxError,
    registry::Registry,
    stop::{StopReason, StopWatch},
    store::{End, Finished, KeyOutcome, News, Outcome, Report, Store},
    telemetry,
};

/// The minimum time between two reports of progress to the store, however often a call reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(50);

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The call of a job.
///
/// As a future it drives the call to exactly one end: the call's own, or the first one that is
/// decided elsewhere. If its runtime drops it before, dropping the claim ends the job.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Run<S: Service<Request<RequestBody<B>>>, B, St: Store> {
    call: Call<S, B>,
    /// References in the response may be relative to it.
    target: JobTarget,
    response: CallResponse<St::Writer>,
    stage: RunStage<St>,
    /// Watches for the deadline and a shutdown. Created when the call is pending for the first
    /// time.
    stop: Option<Pin<Box<StopWatch>>>,
    /// Created for the first report of progress, since most calls report nothing.
    reported: Option<Pin<Box<ReportedProgress>>>,
    is_start_reported: bool,
    /// Set if the service has answered that it did not get the request.
    is_unreached: bool,
    /// Dropped last: its permit outlives the call.
    job: Job<St>,
}

/// The response of a call. Everything is boxed, so that a job has no room for it while its call
/// runs.
enum CallResponse<W> {
    /// The response has not arrived. Most calls have no outlets.
    Awaited(Option<Box<Outlets>>),
    Arrived(Pin<Box<dyn Collect<W> + Send>>),
}

impl<W> CallResponse<W> {
    fn arrived(&self) -> Option<&(dyn Collect<W> + Send)> {
        match self {
            Self::Awaited(_) => None,
            Self::Arrived(response) => Some(&**response),
        }
    }
}

/// The state of a job that has reported progress.
#[pin_project]
struct ReportedProgress {
    /// Runs after each report.
    #[pin]
    pause: Sleep,
    midpoint: MidpointSample,
}

enum RunStage<St: Store> {
    /// The call runs, then its response's body is collected.
    Calling,
    /// The store is storing a report.
    Reporting(BoxFuture<Result<(), St::Error>>),
    /// The store is storing the end.
    Finishing(BoxFuture<Result<Finished, St::Error>>, EndKind),
    /// The job has ended. Its call may go on for the grace period, or while its submitter reads the
    /// rest of its response.
    Grace(BoxFuture<()>),
    Done,
}

/// The kind of a job's end.
#[derive(Clone, Copy)]
struct EndKind {
    /// The reason, if the job fails or is canceled.
    error: Option<ErrorCode>,
    /// The reason, if the job ends before its call does.
    interrupted: Option<ErrorCode>,
}

enum RunStep<W> {
    Started(Instant),
    Progress(Progress),
    Ended(Outcome<W>),
    Interrupted(ErrorCode),
}

impl<S: Service<Request<RequestBody<B>>>, B, St: Store> Run<S, B, St> {
    /// Makes a call the call of the job `id`.
    pub(crate) fn new(
        mut call: Call<S, B>,
        id: JobId,
        job: Job<St>,
        outlets: Option<Box<Outlets>>,
    ) -> Self {
        call.accept(id);
        Self {
            is_start_reported: call.started().is_some(),
            target: call.target(),
            call,
            response: CallResponse::Awaited(outlets),
            stage: RunStage::Calling,
            stop: None,
            reported: None,
            is_unreached: false,
            job,
        }
    }
}

// Everything pinned has a box of its own.
impl<S: Service<Request<RequestBody<B>>>, B, St: Store> Unpin for Run<S, B, St> {}

impl<S: InnerService<B>, B, St: Store> Future for Run<S, B, St> {
    type Output = ();

    /// Completes when the job has ended and its grace period is over.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            match &mut this.stage {
                RunStage::Calling => match ready!(this.poll_step(cx)) {
                    RunStep::Started(at) => this.report(News::Started(at), cx),
                    RunStep::Progress(progress) => this.report(News::Progress(progress), cx),
                    RunStep::Ended(outcome) => this.finish(outcome, None, cx),
                    RunStep::Interrupted(code) => {
                        this.finish(Outcome::NoResponse(code), Some(code), cx);
                    }
                },
                RunStage::Reporting(reporting) => {
                    log_report(ready!(reporting.as_mut().poll(cx)));
                    this.stage = RunStage::Calling;
                }
                RunStage::Finishing(finishing, kind) => {
                    let (finished, kind) = (ready!(finishing.as_mut().poll(cx)), *kind);
                    this.ended(finished, kind);
                }
                RunStage::Grace(over) => {
                    if over.as_mut().poll(cx).is_pending() {
                        ready!(this.poll_outcome(cx));
                    }
                    this.stage = RunStage::Done;
                }
                RunStage::Done => return Poll::Ready(()),
            }
        }
    }
}

impl<S: InnerService<B>, B, St: Store> Run<S, B, St> {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<RunStep<St::Writer>> {
        // The call is polled first, so that a call which is done at once costs neither a timer nor
        // a waiter. A job that was canceled while it was queued does not start.
        if self.call.started().is_some() || !self.is_canceled() {
            if let Poll::Ready(outcome) = self.poll_outcome(cx) {
                return Poll::Ready(RunStep::Ended(outcome));
            }
            if let (false, Some(at)) = (self.is_start_reported, self.call.started()) {
                self.is_start_reported = true;
                return Poll::Ready(RunStep::Started(at));
            }
            if let Poll::Ready(progress) = self.poll_progress(cx) {
                return Poll::Ready(RunStep::Progress(progress));
            }
        }
        self.poll_interrupted(cx).map(RunStep::Interrupted)
    }

    fn poll_progress(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        // During the pause the call has no waker to wake, so a report is an assignment under a
        // lock. The end of the pause, and the end of the job, pick up what was reported last.
        if let Some(reported) = &mut self.reported {
            ready!(reported.as_mut().project().pause.poll(cx));
        }
        let Some(progress) = self.call.take_change(cx) else {
            return Poll::Pending;
        };
        if let Some(reported) = &mut self.reported {
            let pause = reported.as_mut().project().pause;
            pause.reset(Instant::now() + REPORT_INTERVAL);
        } else {
            self.reported = Some(Box::pin(ReportedProgress {
                pause: sleep(REPORT_INTERVAL),
                midpoint: MidpointSample::default(),
            }));
        }
        Poll::Ready(progress)
    }

    /// Polls the call, then its response's body.
    ///
    /// A panic is an outcome like any other. A call that panicked is not polled again, so its
    /// broken state is never seen.
    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<St::Writer>> {
        let Self {
            call,
            target,
            response,
            is_unreached,
            job,
            ..
        } = self;
        let polled = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let outlets = match response {
                    CallResponse::Arrived(response) => {
                        return call.enter(|| response.as_mut().poll(cx));
                    }
                    CallResponse::Awaited(outlets) => outlets,
                };
                let begin = |cx: &mut Context<'_>| job.registry.store.poll_begin(&job.claim, cx);
                let arrived = match ready!(call.poll(cx, begin)) {
                    Ok(arrived) => arrived,
                    Err(error) => {
                        let error: BoxError = error.into();
                        log_error("inner service failed", &*error);
                        let code = if is_timeout(&*error) {
                            ErrorCode::Timeout
                        } else {
                            ErrorCode::InnerError
                        };
                        return Poll::Ready(Outcome::NoResponse(code));
                    }
                };
                // A switch of protocols, which cannot be replayed.
                if arrived.status().is_informational() {
                    let status = arrived.status().as_u16();
                    tracing::error!(status, "inner service sent no final response");
                    return Poll::Ready(Outcome::NoResponse(ErrorCode::InnerError));
                }
                *is_unreached = arrived.extensions().get::<Unreached>().is_some();
                let outlets = outlets
                    .take()
                    .map_or_else(Outlets::default, |outlets| *outlets);
                let collect = CollectResponse::new(arrived, job, target.whole(), outlets);
                *response = CallResponse::Arrived(Box::pin(collect));
            }
        }));
        polled.unwrap_or_else(|panic| {
            tracing::error!(panic = panic_message(&*panic), "inner service panicked");
            drop_payload(panic);
            Poll::Ready(Outcome::NoResponse(ErrorCode::Panic))
        })
    }

    fn is_canceled(&self) -> bool {
        let job = &self.job;
        // `poll_interrupted` registers the task's own waker.
        let mut no_waker = Context::from_waker(Waker::noop());
        let canceled = job.registry.store.poll_canceled(&job.claim, &mut no_waker);
        canceled.is_ready()
    }

    /// Completes when the job must end before its call does.
    fn poll_interrupted(&mut self, cx: &mut Context<'_>) -> Poll<ErrorCode> {
        let job = &self.job;
        let registry = &job.registry;
        if registry.store.poll_canceled(&job.claim, cx).is_ready() {
            return Poll::Ready(ErrorCode::Canceled);
        }
        let stop = self.stop.get_or_insert_with(|| {
            let deadline = deadline(job);
            Box::pin(registry.stop.watch(deadline))
        });
        stop.as_mut().poll(cx).map(|reason| match reason {
            StopReason::Deadline => ErrorCode::Timeout,
            StopReason::Shutdown => ErrorCode::Shutdown,
        })
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
            Poll::Ready(reported) => log_report(reported),
            Poll::Pending => self.stage = RunStage::Reporting(Box::pin(reporting)),
        }
    }

    fn finish(
        &mut self,
        outcome: Outcome<St::Writer>,
        interrupted: Option<ErrorCode>,
        cx: &mut Context<'_>,
    ) {
        if let (Outcome::NoResponse(_), CallResponse::Arrived(response)) =
            (&outcome, &mut self.response)
        {
            // It must not wait for room, or keep others from it, while the end is stored.
            response.as_mut().abandon();
        }
        let kind = EndKind {
            error: match (&outcome, self.response_status()) {
                (Outcome::NoResponse(code), _) => Some(*code),
                (Outcome::Response(_), Some(status)) if status.as_u16() >= 400 => {
                    Some(ErrorCode::HttpError)
                }
                (Outcome::Response(_), _) => None,
            },
            interrupted,
        };
        Span::current().record("end", display(end_name(kind.error)));
        // Nobody waits for a job that a client or the application has canceled.
        if kind.error != Some(ErrorCode::Canceled)
            && let Some(id) = self.call.id()
        {
            self.job.registry.awaited.ending(id);
        }
        let mut progress = self.call.progress();
        if kind.error.is_none() && progress.fraction.is_some() {
            // Whatever was reported last, the work is done.
            progress.fraction = Some(1.0);
        }
        let end = End {
            started: self.call.started(),
            progress,
            key: self.key_outcome(&outcome),
            outcome,
        };
        // Nothing can stop it any more.
        self.stop = None;
        let mut finishing = self.job.registry.store.finish(&self.job.claim, end);
        match Pin::new(&mut finishing).poll(cx) {
            Poll::Ready(finished) => self.ended(finished, kind),
            Poll::Pending => self.stage = RunStage::Finishing(Box::pin(finishing), kind),
        }
    }

    /// Decides about the job's idempotency key.
    ///
    /// A call that never started, or never reached its service, has no outcome to keep.
    fn key_outcome(&self, outcome: &Outcome<St::Writer>) -> KeyOutcome {
        let status = match outcome {
            Outcome::NoResponse(code) => Some(code.status()),
            Outcome::Response(_) => self.response_status(),
        };
        let is_reached = self.call.started().is_some() && !self.is_unreached;
        if is_reached && status.is_none_or(|status| self.job.outcomes.keeps(status)) {
            KeyOutcome::Keep
        } else {
            KeyOutcome::Release
        }
    }

    fn response_status(&self) -> Option<StatusCode> {
        self.response.arrived().map(|response| response.status())
    }

    /// Records the end, and starts the grace period of a call that was interrupted.
    fn ended(&mut self, finished: Result<Finished, St::Error>, kind: EndKind) {
        let (call, job) = (&mut self.call, &self.job);
        match finished {
            Ok(Finished::HandedBack) => tracing::debug!("job handed back"),
            // The other process counts it.
            Ok(Finished::TakenOver) => tracing::debug!("job taken over"),
            Ok(finished) => {
                tracing::debug!("job ended");
                // An earlier end is a cancel or a delete.
                let error = if finished == Finished::First {
                    kind.error
                } else {
                    if let Some(id) = call.id() {
                        job.registry.awaited.taken(id);
                    }
                    Some(ErrorCode::Canceled)
                };
                telemetry::ended(end_name(error));
                if let Some(started) = call.started() {
                    let queued = started.saturating_duration_since(job.created);
                    let (ran, succeeded) = (started.elapsed(), error.is_none());
                    telemetry::took(job.kind.as_str(), succeeded, queued, ran);
                    // The duration of a failed job predicts nothing about jobs that succeed.
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
                error = &error as &dyn Error,
                "failed to store the end of a job"
            ),
        }
        self.stage = RunStage::Done;
        // A submitter that waits for a response learns that there is none.
        if let CallResponse::Awaited(outlets) = &mut self.response {
            *outlets = None;
        }
        let is_relaying = |response: &(dyn Collect<_> + Send)| response.is_relaying();
        if self.response.arrived().is_some_and(is_relaying) {
            let registry = job.registry.clone();
            let deadline = deadline(job);
            self.stage = RunStage::Grace(Box::pin(async move {
                registry.stop.watch(deadline).await;
            }));
        }
        if let Some(code) = kind.interrupted {
            let can_notice = call.cancel();
            // A drain has waited long enough already.
            if can_notice && code != ErrorCode::Shutdown {
                self.stage = RunStage::Grace(Box::pin(grace(&job.registry)));
            }
        }
    }
}

/// Returns the time at which a call must end, if there is a limit.
fn deadline<St: Store>(job: &Job<St>) -> Option<Instant> {
    let registry = &job.registry;
    let limit = registry.settings.job_timeout;
    // A limit beyond the clock's range is no limit.
    limit.and_then(|limit| job.limited_from.checked_add(limit))
}

fn log_report(reported: Result<(), impl Error + 'static>) {
    if let Err(error) = reported {
        tracing::warn!(
            error = &error as &dyn Error,
            "failed to store the progress of a job"
        );
    }
}

/// Completes when the grace period of a call is over.
fn grace<St: Store>(registry: &Arc<Registry<St>>) -> impl Future<Output = ()> + use<St> {
    let registry = registry.clone();
    async move {
        select! {
            () = sleep(registry.settings.cancel_grace) => {}
            () = registry.stop.stopped() => {}
        }
    }
}

/// Returns the name of an end for logs and metrics.
fn end_name(error: Option<ErrorCode>) -> &'static str {
    error.map_or("succeeded", |code| code.as_str())
}
