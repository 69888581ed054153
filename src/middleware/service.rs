//! The service that answers 202 (Accepted) in front of another one.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    callbacks::named_callbacks,
    candidate::{Candidate, Scope},
    future::ResponseFuture,
    options::LayerOptions,
    response_body::ResponseBody,
};
use crate::{
    config::{Policy, Schedule, When, choose, passes_through},
    job::{InvalidKey, Key},
    monitor::{self, Route},
    problem::Problem,
    protocol::{BoxError, Prefer, RequestHeaders},
    registry::Registry,
    run::{Call, RequestBody, WorkerCall},
    store::{MemoryStore, Store},
    telemetry,
};

/// A service behind [`AcceptedLayer`](crate::AcceptedLayer).
///
/// It is always ready: each call drives its own clone of the inner service. An inner service that
/// is saturated delays neither the 202 nor the monitor. A job is queued until its clone is ready.
#[derive(Debug)]
pub struct Accepted<S, P = When, St = MemoryStore> {
    inner: S,
    policy: P,
    registry: Arc<Registry<St>>,
    options: Arc<LayerOptions>,
}

impl<S, P, St> Accepted<S, P, St> {
    pub(super) fn new(
        inner: S,
        policy: P,
        registry: Arc<Registry<St>>,
        options: Arc<LayerOptions>,
    ) -> Self {
        Self {
            inner,
            policy,
            registry,
            options,
        }
    }

    /// Returns the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the inner service, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Consumes this, and returns the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Clone, P: Clone, St> Clone for Accepted<S, P, St> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            policy: self.policy.clone(),
            registry: self.registry.clone(),
            options: self.options.clone(),
        }
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
        let registry = &self.registry;
        let settings = &registry.settings;
        if let Some(route) = Route::from_path(request.uri().path(), settings) {
            let (head, _) = request.into_parts();
            return ResponseFuture::monitor(monitor::answer(registry, route, head));
        }
        let inner = self.inner.clone();
        // A worker runs it, so it is a job already.
        if request.extensions().get() == Some(&WorkerCall::of(registry)) {
            return ResponseFuture::pass_through(inner, request.map(RequestBody::streaming));
        }
        // Checked before the request is taken apart, which costs time.
        if passes_through(&self.policy, settings.dialect, request.method()) {
            return ResponseFuture::pass_through(inner, request.map(RequestBody::streaming));
        }
        let (head, body) = request.into_parts();
        let pass_through = |inner, head, body| {
            let body = RequestBody::streaming(body);
            ResponseFuture::pass_through(inner, Request::from_parts(head, body))
        };
        let when = choose(&self.policy, &head);
        if when == When::Never || head.method == Method::CONNECT {
            return pass_through(inner, head, body);
        }
        let headers = RequestHeaders::new(&head.headers);
        if headers.is_bidirectional() {
            return pass_through(inner, head, body);
        }
        let prefer = headers.prefer(&head.headers, settings.max_wait);
        // A request that passes through may take any time, so the layer honors no wait.
        let no_preference = Prefer::default();
        let schedule = when.schedule(&prefer);
        if schedule == Schedule::PassThrough {
            return pass_through(inner, head, body).with_prefer(no_preference);
        }
        let options = &self.options;
        if let Some(Err(refusal)) = options.admit.as_ref().map(|admit| admit(&head)) {
            telemetry::refused("admit");
            return ResponseFuture::respond(refusal);
        }
        let owner = settings.owner(&head);
        let key = if headers.has_idempotency_key {
            Key::from_headers(&head.headers, owner.as_ref())
        } else {
            Ok(None)
        };
        let key = match key {
            Err(InvalidKey) => return ResponseFuture::refuse(Problem::MalformedKey.counted()),
            Ok(None) if options.idempotency.required => {
                return ResponseFuture::refuse(Problem::KeyRequired.counted());
            }
            Ok(key) => key,
        };
        let mut prefer = prefer;
        let callbacks = match named_callbacks(registry, &head, &mut prefer) {
            Ok(callbacks) => callbacks,
            Err(problem) => return ResponseFuture::refuse(problem.counted()),
        };
        let permit = registry.permits.acquire(owner);
        let is_too_large = body.size_hint().lower() > settings.max_body as u64;
        let is_shed = settings.sheds_when_full && key.is_none() && permit.is_err();
        let problem = match &permit {
            Err(error) if is_shed => Some(Problem::from(*error)),
            _ if is_too_large => Some(Problem::BodyTooLarge),
            // A request with a key may still join an existing job.
            Err(error) if key.is_none() => Some(Problem::from(*error)),
            _ => None,
        };
        // A preference that cannot be honored is ignored (RFC 7240 §2), except that under `Always`
        // a client's wait does not bypass the limits. With a key, the call must not run without a
        // job.
        let must_become_job = when == When::Always || key.is_some();
        match problem.map(Problem::counted) {
            Some(problem) if must_become_job || is_shed => return ResponseFuture::refuse(problem),
            // Its handle learns that the client has left, as in a call that may become a job.
            Some(_) => {
                let call = Call::new(inner, head, RequestBody::streaming(body));
                let permit = permit.ok().filter(|_| settings.sheds_when_full);
                return ResponseFuture::inline(call, permit).with_prefer(no_preference);
            }
            None => {}
        }
        let (permit, denied) = match permit {
            Ok(permit) => (Some(permit), None),
            Err(error) => (None, Some(error)),
        };
        let candidate = Candidate {
            registry: registry.clone(),
            options: options.clone(),
            permit,
            denied,
            schedule,
            must_become_job,
            prefer,
            format: headers.format(&head.headers),
            scope: Scope::new(owner, key, callbacks),
            method: head.method.clone(),
        };
        ResponseFuture::candidate(candidate, inner, head, body)
    }
}
