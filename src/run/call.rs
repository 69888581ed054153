use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, request::Parts};
use pin_project::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::unshare::detach_head;
use crate::{
    estimate::PathStart,
    job::{CallScope, JobId, Progress},
    middleware::RequestBody,
};

/// One call of the inner service: waits for it to be ready, calls it, and is its response.
///
/// Whatever polls it, it is one call from beginning to end: it may be started on the request's task
/// and go on on another.
pub(crate) struct Call<S: Service<Request<RequestBody<B>>>, B> {
    place: Place<S, B>,
    scope: CallScope,
    started: Option<Instant>,
}

enum Place<S: Service<Request<RequestBody<B>>>, B> {
    /// Made before the request's body is read. What is answered inline goes on in there, so that it takes one
    /// allocation.
    First(Pin<Box<First<S, B>>>),
    /// Of a job, which may run for long, in a box that has no room for its request.
    Alone(Pin<Box<S::Future>>),
    /// The service's future is dropped with its response, and with it what it holds: a place in a
    /// concurrency limit, say.
    Done,
}

#[pin_project(project = FirstProj)]
enum First<S: Service<Request<RequestBody<B>>>, B> {
    /// And whether the request has let go of its connection's read buffer.
    Queued(S, Option<(Parts, RequestBody<B>)>, bool),
    /// With what the request was for, of a call that had begun before it was a job: here, where the
    /// request was, it takes no room of its own.
    Running(#[pin] S::Future, PathStart),
}

impl<S: Service<Request<RequestBody<B>>>, B> Call<S, B> {
    pub(crate) fn new(inner: S, head: Parts, body: RequestBody<B>) -> Self {
        Self {
            place: Place::First(Box::pin(First::Queued(inner, Some((head, body)), false))),
            scope: CallScope::default(),
            started: None,
        }
    }

    /// The request, as long as the call has not begun.
    pub(crate) fn request(&mut self) -> Option<&mut (Parts, RequestBody<B>)> {
        let Place::First(first) = &mut self.place else {
            return None;
        };
        match first.as_mut().project() {
            FirstProj::Queued(_, request, _) => request.as_mut(),
            FirstProj::Running(..) => None,
        }
    }

    /// When the inner service was called, if it has been.
    pub(crate) fn started(&self) -> Option<Instant> {
        self.started
    }

    /// Returns the job's id, if the call has become one.
    pub(crate) fn id(&self) -> Option<JobId> {
        self.scope.id()
    }

    /// What its request is for, or the beginning of that.
    pub(crate) fn path(&self) -> &str {
        let Place::First(first) = &self.place else {
            return "";
        };
        match &**first {
            First::Queued(_, Some((head, _)), _) => head.uri.path(),
            First::Running(_, path) => path.as_str(),
            First::Queued(_, None, _) => "",
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        self.scope.progress()
    }

    pub(crate) fn take_change(&mut self, cx: &Context<'_>) -> Option<Progress> {
        self.scope.take_change(cx)
    }

    pub(crate) fn accepted(&mut self, id: JobId) {
        self.scope.accepted(id);
    }

    /// Tells the call that its response is not wanted any more. Returns whether that could be heard,
    /// so that it is worth waiting for.
    pub(crate) fn cancel(&self) -> bool {
        self.scope.cancel()
    }

    /// Polls something that belongs to this call, its response's body.
    pub(crate) fn enter<R>(&mut self, poll: impl FnOnce() -> R) -> R {
        self.scope.enter(poll)
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<S::Response, S::Error>> {
        let (place, started) = (&mut self.place, &mut self.started);
        let is_job = self.scope.is_job();
        let response = self.scope.enter(|| {
            loop {
                let first = match place {
                    Place::First(first) => first,
                    Place::Alone(future) => return future.as_mut().poll(cx),
                    Place::Done => panic!("polled after its response"),
                };
                match first.as_mut().project() {
                    FirstProj::Queued(inner, request, is_detached) => {
                        let ready = inner.poll_ready(cx);
                        if let (true, false, Some((head, body))) =
                            (is_job && ready.is_pending(), *is_detached, &mut *request)
                        {
                            // It may wait for long, with many others.
                            detach_head(head);
                            body.detach();
                            *is_detached = true;
                        }
                        ready!(ready)?;
                        let (head, body) = request.take().expect("a call is called once");
                        *started = Some(Instant::now());
                        if is_job {
                            let future = inner.call(Request::from_parts(head, body));
                            *place = Place::Alone(Box::pin(future));
                        } else {
                            let path = PathStart::new(head.uri.path());
                            let future = inner.call(Request::from_parts(head, body));
                            first.set(First::Running(future, path));
                        }
                    }
                    FirstProj::Running(future, _) => return future.poll(cx),
                }
            }
        });
        if response.is_ready() {
            self.place = Place::Done;
        }
        response
    }
}
