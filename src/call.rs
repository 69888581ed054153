use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, request::Parts};
use pin_project::pin_project;
use tokio::time::Instant;
use tower::Service;

use crate::{
    body::RequestBody,
    estimate::PathStart,
    job::{CallScope, JobId, Progress},
};

/// One call of the inner service: waits for it to be ready, calls it, and is its response.
///
/// Whatever polls it, it is one call from beginning to end: it may be started on the request's task
/// and go on on another.
#[pin_project]
pub(crate) struct Call<S: Service<Request<RequestBody<B>>>, B> {
    #[pin]
    phase: Phase<S, RequestBody<B>, S::Future>,
    scope: CallScope,
    started: Option<Instant>,
}

#[pin_project(project = PhaseProj)]
enum Phase<S, B, F> {
    Queued(S, Option<(Parts, B)>),
    /// With what the request was for, of a call that had begun before it was a job: here, where the
    /// request was, it takes no room of its own.
    Running(#[pin] F, PathStart),
    /// The service's future is dropped with its response, and with it what it holds: a place in a
    /// concurrency limit, say.
    Done,
}

impl<S: Service<Request<RequestBody<B>>>, B> Call<S, B> {
    pub(crate) fn new(inner: S, head: Parts, body: RequestBody<B>) -> Self {
        Self {
            phase: Phase::Queued(inner, Some((head, body))),
            scope: CallScope::default(),
            started: None,
        }
    }

    /// The request, as long as the call has not begun.
    pub(crate) fn request(self: Pin<&mut Self>) -> Option<&mut (Parts, RequestBody<B>)> {
        match self.project().phase.project() {
            PhaseProj::Queued(_, request) => request.as_mut(),
            PhaseProj::Running(..) | PhaseProj::Done => None,
        }
    }

    /// When the inner service was called, if it has been.
    pub(crate) fn started(&self) -> Option<Instant> {
        self.started
    }

    /// What its request is for, or the beginning of that.
    pub(crate) fn path(&self) -> &str {
        match &self.phase {
            Phase::Queued(_, Some((head, _))) => head.uri.path(),
            Phase::Running(_, path) => path.as_str(),
            Phase::Queued(_, None) | Phase::Done => "",
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        self.scope.progress()
    }

    pub(crate) fn take_change(self: Pin<&mut Self>, cx: &Context<'_>) -> Option<Progress> {
        self.project().scope.take_change(cx)
    }

    pub(crate) fn accepted(self: Pin<&mut Self>, id: JobId) {
        self.project().scope.accepted(id);
    }

    /// Tells the call that its response is not wanted any more. Returns whether that could be heard,
    /// so that it is worth waiting for.
    pub(crate) fn cancel(self: Pin<&mut Self>) -> bool {
        let this = self.project();
        this.scope.cancel();
        this.scope.is_heard()
    }

    /// Polls something that belongs to this call, its response's body.
    pub(crate) fn enter<R>(self: Pin<&mut Self>, poll: impl FnOnce() -> R) -> R {
        self.project().scope.enter(poll)
    }

    pub(crate) fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<S::Response, S::Error>> {
        let mut this = self.project();
        let (phase, started) = (&mut this.phase, &mut *this.started);
        let is_job = this.scope.is_job();
        let response = this.scope.enter(|| {
            loop {
                match phase.as_mut().project() {
                    PhaseProj::Queued(inner, request) => {
                        ready!(inner.poll_ready(cx))?;
                        let (head, body) = request.take().expect("a call is called once");
                        let path = match is_job {
                            false => PathStart::of(head.uri.path()),
                            true => PathStart::default(),
                        };
                        *started = Some(Instant::now());
                        let future = inner.call(Request::from_parts(head, body));
                        phase.set(Phase::Running(future, path));
                    }
                    PhaseProj::Running(future, _) => return future.poll(cx),
                    PhaseProj::Done => panic!("polled after its response"),
                }
            }
        });
        if response.is_ready() {
            this.phase.set(Phase::Done);
        }
        response
    }
}
