//! The status monitor as a service of its own.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{
    body::MonitorBody,
    respond::{Answer, answer},
    route::Route,
};
use crate::{
    registry::Registry,
    store::{MemoryStore, Store},
};

/// The status monitor alone; created by [`Jobs::monitor`](crate::Jobs::monitor).
#[derive(Debug)]
pub struct Monitor<St = MemoryStore> {
    registry: Arc<Registry<St>>,
}

impl<St> Monitor<St> {
    pub(crate) fn new(registry: Arc<Registry<St>>) -> Self {
        Self { registry }
    }
}

impl<St> Clone for Monitor<St> {
    fn clone(&self) -> Self {
        Self {
            registry: self.registry.clone(),
        }
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
        let (head, _) = request.into_parts();
        let route = Route::from_mounted_path(head.uri.path(), &self.registry.settings);
        MonitorFuture {
            answer: answer(&self.registry, route, head),
        }
    }
}

/// The future of a [`Monitor`].
#[must_use = "futures do nothing unless polled"]
pub struct MonitorFuture {
    answer: Answer,
}

impl Future for MonitorFuture {
    type Output = Result<Response<MonitorBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for MonitorFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MonitorFuture")
    }
}
