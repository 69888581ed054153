use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, SystemTime},
};

use http::{Request, Response, header, response};
use http_body::Body;
use pin_project::pin_project;
use tokio::{
    select,
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};
use tower::{BoxError, Service};
use tracing::{Span, field::display};

use crate::{
    body::RequestBody,
    budget::Charge,
    call::Call,
    collect::{Collect, CollectError},
    estimate::{Halfway, Kind},
    gate::Slot,
    job::{ErrorCode, JobId, Progress},
    jobs::Registry,
    measure, replay,
    store::{End, Finished, News, Outcome, Report, Store},
};

/// How long nothing new is told of a job's progress after something was: whoever watches is woken
/// that often, however often the call reports.
const PAUSE: Duration = Duration::from_millis(50);

/// A job that has been accepted and is to be run.
pub(crate) struct Job<St: Store> {
    pub(crate) id: JobId,
    pub(crate) registry: Arc<Registry<St>>,
    /// When the request was taken, from where its time-out counts.
    pub(crate) created: Instant,
    /// The same by the clock on the wall.
    pub(crate) created_at: SystemTime,
    /// Whether the request was a HEAD, whose response has a length and no body.
    pub(crate) is_head: bool,
    pub(crate) is_owned: bool,
    pub(crate) kind: Kind,
    pub(crate) claim: St::Claim,
    /// Dropped last, after the claim: when the slot is back, the job has ended.
    pub(crate) _slot: Option<Slot>,
}

/// A call, which may have begun elsewhere, and the job that it is.
pub(crate) struct Run<S: Service<Request<RequestBody<B>>>, B, St: Store> {
    pub(crate) call: Pin<Box<Call<S, B>>>,
    /// Dropped after the call: its slot outlives that.
    pub(crate) job: Job<St>,
}

impl<S, B, R, St> Run<S, B, St>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
    R::Error: Into<BoxError>,
    St: Store,
{
    /// Runs the call until the job has ended, and for its grace beyond.
    ///
    /// A block rather than an `async fn`, which has room for its arguments twice.
    pub(crate) fn until_ended(self) -> impl Future<Output = ()> {
        let mut run = self;
        async move {
            let run = &mut run;
            drive(run.call.as_mut(), &run.job).await;
        }
    }
}

/// Drives one call to exactly one end: its own, or the first that is decided elsewhere.
///
/// Each way out of the loop finishes the job; where this future is dropped before, with its runtime,
/// the claim's drop does.
async fn drive<S, B, R, St>(mut call: Pin<&mut Call<S, B>>, job: &Job<St>)
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
    R::Error: Into<BoxError>,
    St: Store,
{
    let store = &job.registry.store;
    call.as_mut().accepted(job.id);
    let mut steps = Steps::new(call.started().is_some());
    let mut interrupted = pin!(interrupted(job));
    let mut halfway = Halfway::default();
    // A scope of its own, so that the response does not take room in this future once it is stored.
    let (finished, how, interrupted) = {
        let (outcome, interrupted) = loop {
            // The call is asked first, so that one which is done at once costs neither a timer nor a
            // waiter.
            let news = match select! {
                biased;
                step = poll_fn(|cx| match call.started() {
                    None if is_canceled(job) => Poll::Pending,
                    _ => steps.poll(call.as_mut(), job, cx),
                }) => step,
                code = &mut interrupted => break (Outcome::Broke(code), Some(code)),
            } {
                Step::Ended(outcome) => break (outcome, None),
                Step::Started(at) => News::Started(at),
                Step::Progress(progress) => News::Progress(progress),
            };
            let fraction = match &news {
                News::Started(_) => None,
                News::Progress(progress) => progress.fraction,
            };
            let now = Instant::now();
            if let (Some(started), Some(fraction)) = (call.started(), fraction) {
                halfway.see(fraction, now.saturating_duration_since(started));
            }
            let estimates = &job.registry.estimates;
            let whole = estimates.whole(&job.kind, now, job.created, call.started(), fraction);
            let report = Report {
                estimated_finish: whole.and_then(|whole| job.created_at.checked_add(whole)),
                news,
            };
            if let Err(error) = store.report(&job.claim, report).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "progress not stored"
                );
            }
        };
        let how = end_name(&outcome);
        Span::current().record("end", display(how));
        let end = End {
            started: call.started(),
            progress: call.progress(),
            outcome,
        };
        (store.finish(&job.claim, end), how, interrupted)
    };
    match finished.await {
        Ok(Finished::HandedBack) => tracing::debug!("job handed back"),
        Ok(finished) => {
            tracing::debug!("job ended");
            // Another end than its own comes from who canceled or deleted it.
            let how = match finished {
                Finished::First => how,
                _ => ErrorCode::Canceled.as_str(),
            };
            measure::ended(how);
            if let Some(started) = call.started() {
                let queued = started.saturating_duration_since(job.created);
                let (ran, succeeded) = (started.elapsed(), how == SUCCEEDED);
                measure::took(&job.kind, succeeded, queued, ran);
                // Of how long those take that succeed, others say nothing.
                if succeeded {
                    let estimates = &job.registry.estimates;
                    estimates.learn(&job.kind, job.created_at, queued, ran, &halfway);
                }
            }
        }
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "the job's end is not stored"
        ),
    }
    if let Some(code) = interrupted {
        let heard = call.as_mut().cancel() && call.started().is_some();
        // A drain has waited long enough already.
        if heard && code != ErrorCode::Shutdown {
            let ended = poll_fn(|cx| steps.poll_end(call.as_mut(), job, cx));
            // Boxed: few jobs come to it, and each would have room for it.
            Box::pin(grace(job, ended)).await;
        }
    }
}

/// Lets a call go on that has heard of its end, for a while.
async fn grace<St: Store>(job: &Job<St>, ended: impl Future<Output = Outcome>) {
    select! {
        _ = timeout(job.registry.config.cancel_grace, ended) => {}
        () = job.registry.gate.shutdown() => {}
    }
}

/// Whether the job was canceled while it was queued: its call is not to begin, ready or not.
fn is_canceled<St: Store>(job: &Job<St>) -> bool {
    let canceled = pin!(job.registry.store.canceled(&job.claim));
    // Whoever is to be woken waits in `interrupted`.
    let mut nobody = Context::from_waker(Waker::noop());
    canceled.poll(&mut nobody).is_ready()
}

/// Completes when the job is to end before its call does.
async fn interrupted<St: Store>(job: &Job<St>) -> ErrorCode {
    let registry = &job.registry;
    let timed_out = async {
        let limit = registry.config.job_timeout;
        // A limit beyond the clock's end is none.
        match limit.and_then(|limit| job.created.checked_add(limit)) {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    select! {
        biased;
        () = registry.store.canceled(&job.claim) => ErrorCode::Canceled,
        () = registry.gate.shutdown() => ErrorCode::Shutdown,
        () = timed_out => ErrorCode::Timeout,
    }
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

enum Step {
    Started(Instant),
    Progress(Progress),
    Ended(Outcome),
}

/// What a call goes through as a job.
struct Steps<R> {
    start_told: bool,
    /// Runs after a report of progress; made for the first, since most calls report nothing.
    pause: Option<Pin<Box<Sleep>>>,
    /// The response's head and body, once it has come. Boxed then: a job would have room for it for as
    /// long as its call runs.
    response: Option<Pin<Box<Incoming<R>>>>,
}

/// A response on its way in.
#[pin_project]
struct Incoming<R> {
    head: Option<response::Parts>,
    #[pin]
    body: R,
    collect: Collect,
    /// The head's place in the budget.
    charge: Option<Charge>,
}

impl<R> Steps<R>
where
    R: Body,
    R::Error: Into<BoxError>,
{
    fn new(start_told: bool) -> Self {
        Self {
            start_told,
            pause: None,
            response: None,
        }
    }

    fn poll<S, B, St>(
        &mut self,
        mut call: Pin<&mut Call<S, B>>,
        job: &Job<St>,
        cx: &mut Context<'_>,
    ) -> Poll<Step>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>>,
        S::Error: Into<BoxError>,
        St: Store,
    {
        if let Poll::Ready(outcome) = self.poll_end(call.as_mut(), job, cx) {
            return Poll::Ready(Step::Ended(outcome));
        }
        if let (false, Some(at)) = (self.start_told, call.started()) {
            self.start_told = true;
            return Poll::Ready(Step::Started(at));
        }
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
        Poll::Ready(Step::Progress(progress))
    }

    /// Polls the call, then its response's body. A panic in either is an end like any other: what
    /// panicked is not polled again, so that nothing sees it half done.
    fn poll_end<S, B, St>(
        &mut self,
        mut call: Pin<&mut Call<S, B>>,
        job: &Job<St>,
        cx: &mut Context<'_>,
    ) -> Poll<Outcome>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>>,
        S::Error: Into<BoxError>,
        St: Store,
    {
        let polled = catch_unwind(AssertUnwindSafe(|| {
            if self.response.is_none() {
                match call.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => {
                        log("the service failed", error.into());
                        return Poll::Ready(Outcome::Broke(ErrorCode::InnerError));
                    }
                    Poll::Ready(Ok(response)) => {
                        // A switch of protocols, or nothing that could be handed out as a result.
                        if response.status().is_informational() {
                            let status = response.status().to_string();
                            log("the service's response is none", status.into());
                            return Poll::Ready(Outcome::Broke(ErrorCode::InnerError));
                        }
                        let incoming = Incoming::new(response, job);
                        self.response = Some(Box::pin(incoming));
                    }
                }
            }
            match &mut self.response {
                Some(incoming) => call.enter(|| incoming.as_mut().poll(job, cx)),
                None => Poll::Pending,
            }
        }));
        polled.unwrap_or_else(|panic| {
            tracing::error!(panic = panic_message(&*panic), "the service panicked");
            Poll::Ready(Outcome::Broke(ErrorCode::Panic))
        })
    }
}

impl<R> Incoming<R>
where
    R: Body,
    R::Error: Into<BoxError>,
{
    fn new<St: Store>(response: Response<R>, job: &Job<St>) -> Self {
        let (head, body) = response.into_parts();
        let fields = head.headers.iter();
        let bytes: usize = fields
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        Self {
            charge: job.registry.store.reserve(bytes),
            head: Some(head),
            body,
            collect: Collect::new(job.registry.config.result_limit),
        }
    }

    fn poll<St: Store>(self: Pin<&mut Self>, job: &Job<St>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.project();
        if this.charge.is_none() {
            return Poll::Ready(Outcome::Broke(ErrorCode::ResultTooLarge));
        }
        let reserve = |bytes| job.registry.store.reserve(bytes);
        let code = match ready!(this.collect.poll(this.body, cx, reserve)) {
            Ok(()) => match this.head.take() {
                Some(head) => {
                    return Poll::Ready(kept(head, this.collect, this.charge.take(), job));
                }
                None => return Poll::Pending,
            },
            Err(CollectError::TooLarge | CollectError::NoRoom) => ErrorCode::ResultTooLarge,
            Err(CollectError::Body(error)) => {
                log("the response's body broke", error.into());
                ErrorCode::BodyError
            }
        };
        Poll::Ready(Outcome::Broke(code))
    }
}

/// The outcome of a response that is there to its end.
fn kept<St: Store>(
    mut head: response::Parts,
    collect: &mut Collect,
    charge: Option<Charge>,
    job: &Job<St>,
) -> Outcome {
    let mut collected = collect.finish();
    let declared = head
        .headers
        .get(header::CONTENT_LENGTH)
        .filter(|_| !job.is_head && replay::has_length(head.status))
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|declared| declared != collected.bytes.len()) {
        log(
            "the response's body broke",
            "not of its declared length".into(),
        );
        return Outcome::Broke(ErrorCode::BodyError);
    }
    collected.charge = match (charge, collected.charge.take()) {
        (Some(mut all), Some(body)) => {
            all.merge(body);
            Some(all)
        }
        (one, other) => one.or(other),
    };
    replay::strip(&mut head, &job.registry.config, job.is_owned);
    Outcome::Response(Response::from_parts(head, collected))
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("not a text")
}

fn log(what: &'static str, error: BoxError) {
    tracing::error!(error = &*error as &dyn std::error::Error, "{what}");
}
