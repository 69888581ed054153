use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use tower::{BoxError, Service};

use super::{
    admission::{Arrival, Bound},
    body::{Replay, RequestBody, ResponseBody},
    future::ResponseFuture,
    options::Terms,
};
use crate::{
    config::{Key, Malformed, Plan, Policy, When, choose, is_passed},
    jobs::Jobs,
    monitor::{Answer, Place},
    problem::Problem,
    protocol::{Format, Mentions, Prefer},
    store::{MemoryStore, Store},
    {monitor, telemetry},
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
    terms: Arc<Terms>,
}

impl<S, P, St> Accepted<S, P, St> {
    pub(crate) fn new(inner: S, policy: P, jobs: Jobs<St>, terms: Arc<Terms>) -> Self {
        Self {
            inner,
            policy,
            jobs,
            terms,
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
        let config = &registry.config;
        let place = Place::of(request.uri().path(), config);
        if let Some(place) = place {
            let (head, _) = request.into_parts();
            return ResponseFuture::answered(monitor::answer(registry, place, head));
        }
        let inner = self.inner.clone();
        // Before the request is taken apart, which takes time.
        if is_passed(&self.policy, config.dialect, request.method()) {
            return ResponseFuture::pass(inner, request.map(RequestBody::streaming));
        }
        let (head, body) = request.into_parts();
        let pass = |inner, head, body| {
            let body = RequestBody::streaming(body);
            ResponseFuture::pass(inner, Request::from_parts(head, body))
        };
        let when = choose(&self.policy, &head);
        if when == When::Never || head.method == Method::CONNECT {
            return pass(inner, head, body);
        }
        let mentions = Mentions::of(&head.headers);
        if mentions.dialogue {
            return pass(inner, head, body);
        }
        let prefer = match mentions.prefer {
            true => Prefer::of(&head.headers, config.max_wait),
            false => Prefer::default(),
        };
        // What passes through is answered however late: no wait is honored.
        let passed = Prefer::default();
        let plan = when.plan(&prefer);
        if plan == Plan::Pass {
            return pass(inner, head, body).marked(passed);
        }
        let terms = &self.terms;
        if let Some(Err(refusal)) = terms.admit.as_ref().map(|admit| admit(&head)) {
            telemetry::refused("admit");
            return ResponseFuture::answered(Answer::now(refusal.map(Replay::from)));
        }
        let owner = config.owner(&head);
        let key = match mentions.idempotency_key {
            true => Key::of(&head.headers, owner.as_ref()),
            false => Ok(None),
        };
        let key = match key {
            Err(Malformed) => return ResponseFuture::refused(Problem::MalformedKey.counted()),
            Ok(None) if terms.idempotency.required => {
                return ResponseFuture::refused(Problem::KeyRequired.counted());
            }
            Ok(key) => key,
        };
        let (slot, refused) = match registry.gate.enter(owner) {
            Ok(slot) => (Some(slot), None),
            Err(refused) => (None, Some(refused)),
        };
        let too_large = body.size_hint().lower() > config.body_limit as u64;
        let problem = match refused {
            _ if too_large => Some(Problem::BodyTooLarge),
            // With a key it may yet join a job that is there.
            Some(refused) if key.is_none() => Some(Problem::from(refused)),
            _ => None,
        };
        // Under `Always` a client's wait is no way around the limits; and with a key, the call must not
        // be made without an entry for it.
        let is_owed = plan == Plan::Now || when == When::Always || key.is_some();
        match problem.map(Problem::counted) {
            Some(problem) if is_owed => ResponseFuture::refused(problem),
            Some(_) => pass(inner, head, body).marked(passed),
            None => {
                let arrival = Arrival {
                    registry: registry.clone(),
                    terms: terms.clone(),
                    slot,
                    refused,
                    plan,
                    is_owed,
                    prefer,
                    format: match mentions.accept {
                        true => Format::preferred(&head.headers),
                        false => Format::Json,
                    },
                    bound: (owner.is_some() || key.is_some()).then(|| {
                        Box::new(Bound {
                            owner,
                            key,
                            fingerprint: None,
                        })
                    }),
                    method: head.method.clone(),
                    read: None,
                };
                ResponseFuture::arriving(arrival, inner, head, body).marked(prefer)
            }
        }
    }
}
