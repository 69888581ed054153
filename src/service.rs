use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::{BoxError, Service};

use crate::{
    body::{RequestBody, ResponseBody},
    call::Call,
    future::ResponseFuture,
    jobs::Jobs,
    monitor,
    prefer::Prefer,
    problem::Problem,
    store::{MemoryStore, Store},
    when::{Plan, Policy, When, is_dialogue},
};

/// A service behind [`AcceptedLayer`](crate::AcceptedLayer).
///
/// It is always ready: each call drives its own clone of the inner service, so an inner service that
/// is saturated delays neither the 202 nor the monitor. A job is queued until its clone is ready.
#[derive(Debug, Clone)]
pub struct Accepted<S, P = When, St = MemoryStore> {
    inner: S,
    policy: P,
    jobs: Jobs<St>,
}

impl<S, P, St> Accepted<S, P, St> {
    pub(crate) fn new(inner: S, policy: P, jobs: Jobs<St>) -> Self {
        Self {
            inner,
            policy,
            jobs,
        }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to be changed.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service alone.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, P, St, B, R> Service<Request<B>> for Accepted<S, P, St>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send,
    P: Policy,
    St: Store,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, St>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let registry = &self.jobs.registry;
        if let Some(rest) = monitor::rest(&registry.config, request.uri().path()) {
            let question = monitor::Question::new(rest, &request);
            return ResponseFuture::answering(monitor::answer(registry.clone(), question));
        }
        let (head, body) = request.into_parts();
        let inner = self.inner.clone();
        let (plan, prefer) = match self.policy.when(&head) {
            When::Never => (Plan::Pass, Prefer::default()),
            _ if is_dialogue(&head) => (Plan::Pass, Prefer::default()),
            when => {
                let prefer = Prefer::of(&head.headers);
                (when.plan(&prefer, registry.config.max_wait), prefer)
            }
        };
        if plan == Plan::Pass {
            return ResponseFuture::pass(inner, head, RequestBody::streaming(body));
        }
        let too_large = body.size_hint().lower() > registry.config.body_limit as u64;
        let refused = match registry.gate.enter() {
            Ok(slot) if !too_large => {
                let registry = registry.clone();
                let call = Box::pin(Call::new(inner, head, RequestBody::streaming(body)));
                return ResponseFuture::reading(registry, slot, plan, prefer, call);
            }
            Ok(_) => Problem::BodyTooLarge,
            Err(refused) => refused.into(),
        };
        match plan {
            Plan::Now => ResponseFuture::refused(refused),
            _ => ResponseFuture::pass(inner, head, RequestBody::streaming(body)),
        }
    }
}
