//! One call of the inner service.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, request::Parts};
use pin_project::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    request_body::RequestBody,
    target::{InlineTarget, JobTarget},
    unshare::unshare_head,
};
use crate::{
    job::{CallScope, HandleGuard, JobId, Progress},
    limit::Charge,
};

const POLLED_AFTER_COMPLETION: &str = "`Call` polled after completion";

/// One call of the inner service: waits until the service is ready, calls it, and polls its future.
///
/// It stays one call from beginning to end. It may start on the request's task and move to another
/// task.
pub(crate) struct Call<S: Service<Request<RequestBody<B>>>, B> {
    stage: CallStage<S, B>,
    scope: CallScope,
    started: Option<Instant>,
}

enum CallStage<S: Service<Request<RequestBody<B>>>, B> {
    /// Created before the request's body is read. A call that is answered inline stays here, so
    /// that it takes one allocation.
    Inline(Pin<Box<InlineCall<S, B>>>),
    /// The call of a job, which may run for long, in a box without room for its request.
    Job(Pin<Box<S::Future>>),
    /// The service's future has been dropped with its response, and with it what it holds, such as
    /// a permit of a concurrency limit.
    Done,
}

#[pin_project(project = InlineCallProj)]
enum InlineCall<S: Service<Request<RequestBody<B>>>, B> {
    Queued(QueuedCall<S, B>),
    /// Keeps the target of the request and the charge of its body, since the call may yet become a
    /// job. They take no room: they are where the request was.
    Running(#[pin] S::Future, InlineTarget, Option<Charge>),
}

/// The head and the body of a request.
type RequestParts<B> = (Parts, RequestBody<B>);

struct QueuedCall<S, B> {
    inner: S,
    /// Taken when the service is called, since moving the whole state costs more.
    request: Option<RequestParts<B>>,
    /// Set once the request has been copied from its connection's read buffer.
    is_unshared: bool,
    /// The charge of the request's body.
    charge: Option<Charge>,
}

impl<S: Service<Request<RequestBody<B>>>, B> Call<S, B> {
    pub(crate) fn new(inner: S, head: Parts, body: RequestBody<B>) -> Self {
        let queued = QueuedCall {
            inner,
            request: Some((head, body)),
            is_unshared: false,
            charge: None,
        };
        Self {
            stage: CallStage::Inline(Box::pin(InlineCall::Queued(queued))),
            scope: CallScope::default(),
            started: None,
        }
    }

    /// Holds the charge of the request's body until the call ends, or becomes a job whose claim has
    /// its own.
    ///
    /// A handler may keep the bytes for as long as it runs, so the call holds this, not the body.
    pub(crate) fn hold(&mut self, charge: Option<Charge>) {
        if let CallStage::Inline(call) = &mut self.stage {
            match call.as_mut().project() {
                InlineCallProj::Queued(queued) => queued.charge = charge,
                InlineCallProj::Running(_, _, held) => *held = charge,
            }
        }
    }

    /// Returns the request until the service is called.
    pub(crate) fn request(&mut self) -> Option<&mut RequestParts<B>> {
        let CallStage::Inline(call) = &mut self.stage else {
            return None;
        };
        match call.as_mut().project() {
            InlineCallProj::Queued(queued) => queued.request.as_mut(),
            InlineCallProj::Running(..) => None,
        }
    }

    /// Copies the body if it is a slice of a larger buffer, unless the service has been called. A
    /// handler may keep the bytes for as long as it runs.
    pub(crate) fn unshare_body(&mut self) {
        if let Some((_, body)) = self.request() {
            body.unshare();
        }
    }

    /// Returns the head of the request until the service is called.
    pub(crate) fn head(&self) -> Option<&Parts> {
        let CallStage::Inline(call) = &self.stage else {
            return None;
        };
        match &**call {
            InlineCall::Queued(queued) => queued.request.as_ref().map(|(head, _)| head),
            InlineCall::Running(..) => None,
        }
    }

    /// Returns when the inner service was called, if it has been.
    pub(crate) fn started(&self) -> Option<Instant> {
        self.started
    }

    /// Returns the path of the request, or its beginning.
    pub(crate) fn path(&self) -> &str {
        match &self.stage {
            CallStage::Inline(call) => match &**call {
                InlineCall::Queued(_) => self.head().map_or("", |head| head.uri.path()),
                InlineCall::Running(_, target, _) => target.path(),
            },
            CallStage::Job(_) | CallStage::Done => "",
        }
    }

    /// Returns path and query of the request until it is the call of a job and has started.
    pub(super) fn target(&self) -> JobTarget {
        match &self.stage {
            CallStage::Inline(call) => match &**call {
                InlineCall::Queued(_) => {
                    let head = self.head();
                    head.map_or_else(JobTarget::unknown, |head| JobTarget::new(&head.uri))
                }
                InlineCall::Running(_, target, _) => target.to_job(),
            },
            CallStage::Job(_) | CallStage::Done => JobTarget::unknown(),
        }
    }

    /// Returns the job's id, if the call has become one.
    pub(crate) fn id(&self) -> Option<JobId> {
        self.scope.id()
    }

    pub(crate) fn progress(&self) -> Progress {
        self.scope.progress()
    }

    /// Returns what was reported since the last call, or registers `cx` for the next report.
    pub(crate) fn take_change(&mut self, cx: &Context<'_>) -> Option<Progress> {
        self.scope.take_change(cx)
    }

    /// Makes this the call of a job.
    pub(crate) fn accept(&mut self, id: JobId) {
        self.scope.accept(id);
    }

    /// Takes the guard of the call's handle, which the body of the inline response must hold.
    /// Returns `None` if the call has not asked for its handle.
    pub(crate) fn answer_inline(&mut self) -> Option<HandleGuard> {
        self.scope.answer_inline()
    }

    /// Notifies the call that its response is no longer wanted. Returns `true` if the call holds
    /// its handle or a token, so that it can notice.
    pub(crate) fn cancel(&self) -> bool {
        self.scope.cancel()
    }

    /// Polls something that belongs to this call, such as its response's body.
    pub(crate) fn enter<R>(&mut self, poll: impl FnOnce() -> R) -> R {
        self.scope.enter(poll)
    }

    /// Polls the call. Once the service is ready, `begin` decides when it may be called.
    ///
    /// # Panics
    ///
    /// Panics if polled after completion.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut begin: impl FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Poll<Result<S::Response, S::Error>> {
        let (stage, started) = (&mut self.stage, &mut self.started);
        let is_job = self.scope.is_job();
        let response = self.scope.enter(|| {
            loop {
                let call = match stage {
                    CallStage::Inline(call) => call,
                    CallStage::Job(future) => return future.as_mut().poll(cx),
                    CallStage::Done => panic!("{POLLED_AFTER_COMPLETION}"),
                };
                match call.as_mut().project() {
                    InlineCallProj::Queued(queued) => {
                        let (head, body) = ready!(queued.poll_request(is_job, cx, &mut begin))?;
                        *started = Some(Instant::now());
                        if is_job {
                            let future = queued.inner.call(Request::from_parts(head, body));
                            *stage = CallStage::Job(Box::pin(future));
                        } else {
                            let (target, charge) =
                                (InlineTarget::new(&head.uri), queued.charge.take());
                            let future = queued.inner.call(Request::from_parts(head, body));
                            call.set(InlineCall::Running(future, target, charge));
                        }
                    }
                    InlineCallProj::Running(future, ..) => return future.poll(cx),
                }
            }
        });
        if response.is_ready() {
            self.stage = CallStage::Done;
        }
        response
    }
}

impl<S: Service<Request<RequestBody<B>>>, B> QueuedCall<S, B> {
    /// Returns the request once the service is ready for it, and the call may begin.
    ///
    /// # Panics
    ///
    /// Panics if the service has been called, which happens if it panicked then.
    fn poll_request(
        &mut self,
        is_job: bool,
        cx: &mut Context<'_>,
        begin: impl FnOnce(&mut Context<'_>) -> Poll<()>,
    ) -> Poll<Result<RequestParts<B>, S::Error>> {
        let ready = self.inner.poll_ready(cx);
        if let (Poll::Pending, Some((head, _))) = (&ready, &mut self.request)
            && is_job
            && !self.is_unshared
        {
            // The request may wait for long, among many others.
            unshare_head(head);
            self.is_unshared = true;
        }
        ready!(ready)?;
        ready!(begin(cx));
        match self.request.take() {
            Some(request) => Poll::Ready(Ok(request)),
            None => panic!("{POLLED_AFTER_COMPLETION}"),
        }
    }
}
