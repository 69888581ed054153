use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower::Service;

use super::{Answer, Place, answer};
use crate::{
    jobs::Jobs,
    middleware::MonitorBody,
    store::{MemoryStore, Store},
};

/// The status monitor alone: [`Jobs::monitor`].
#[derive(Debug, Clone)]
pub struct Monitor<St = MemoryStore> {
    jobs: Jobs<St>,
}

impl<St> Monitor<St> {
    pub(crate) fn new(jobs: Jobs<St>) -> Self {
        Self { jobs }
    }
}

impl<St: Store, B> Service<Request<B>> for Monitor<St> {
    type Response = Response<MonitorBody>;
    type Error = Infallible;
    type Future = MonitorFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> MonitorFuture {
        let registry = &self.jobs.registry;
        let (head, _) = request.into_parts();
        let place = Place::of_mounted(head.uri.path(), &registry.config);
        MonitorFuture {
            answer: answer(registry, place, head),
        }
    }
}

/// The answer of a [`Monitor`].
#[must_use = "futures do nothing unless polled"]
pub struct MonitorFuture {
    answer: Answer,
}

impl Future for MonitorFuture {
    type Output = Result<Response<MonitorBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx).map(Ok)
    }
}

impl fmt::Debug for MonitorFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MonitorFuture")
    }
}
