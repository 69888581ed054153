use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{Response, request::Parts};
use tower::Layer;

use super::{options::Terms, service::Accepted};
use crate::{
    config::{Idempotency, Policy, When},
    jobs::Jobs,
    store::{MemoryStore, Store},
};

/// Puts 202 (Accepted) in front of a service: see the [crate's page](crate).
#[derive(Debug, Clone)]
#[must_use = "a layer does nothing until it is put around a service"]
pub struct AcceptedLayer<P = When, St = MemoryStore> {
    jobs: Jobs<St>,
    policy: P,
    terms: Arc<Terms>,
}

impl AcceptedLayer {
    /// A layer with a registry of its own, every setting at its default.
    pub fn new() -> Self {
        Jobs::new().layer()
    }
}

impl Default for AcceptedLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<St: Store> AcceptedLayer<When, St> {
    pub(crate) fn of(jobs: Jobs<St>) -> Self {
        Self {
            jobs,
            policy: When::default(),
            terms: Arc::default(),
        }
    }
}

impl<P, St> AcceptedLayer<P, St> {
    /// Chooses which requests become jobs: a [`When`], or a closure over the request's head.
    /// Default: [`When::Always`].
    pub fn when<Q: Policy>(self, policy: Q) -> AcceptedLayer<Q, St> {
        AcceptedLayer {
            jobs: self.jobs,
            policy,
            terms: self.terms,
        }
    }

    /// Sets how requests with an `Idempotency-Key` are treated, or whether they need one. Default:
    /// [`Idempotency::new`].
    pub fn idempotency(mut self, idempotency: Idempotency) -> Self {
        Arc::make_mut(&mut self.terms).idempotency = idempotency;
        self
    }

    /// Refuses requests that would become jobs, before anything of them is read or stored: what the
    /// closure returns as an error is the answer. Default: none is refused.
    ///
    /// Requests that pass through are not asked about.
    pub fn admit<F>(mut self, admit: F) -> Self
    where
        F: Fn(&Parts) -> Result<(), Response<Bytes>> + Send + Sync + 'static,
    {
        Arc::make_mut(&mut self.terms).admit = Some(Arc::new(admit));
        self
    }

    /// Tells what kind of request one is, for the estimate of its time: requests of one kind are taken
    /// to take about as long. Default, and where the closure returns `None`: the method, and the path
    /// without the segments that have digits in them or are no plain words.
    ///
    /// ```
    /// use axum::extract::MatchedPath;
    /// use tower_accepted::Jobs;
    ///
    /// let layer = Jobs::new().layer().kind(|head| {
    ///     let route = head.extensions.get::<MatchedPath>()?.as_str();
    ///     Some(format!("{} {route}", head.method).into())
    /// });
    /// # let _ = layer;
    /// ```
    ///
    /// What is known of kinds is bounded: there should be some dozens, not thousands, and what a client can
    /// make up should not be in their names. They are seen by the operator only.
    pub fn kind<F>(mut self, kind: F) -> Self
    where
        F: for<'a> Fn(&'a Parts) -> Option<Cow<'a, str>> + Send + Sync + 'static,
    {
        Arc::make_mut(&mut self.terms).kind = Some(Arc::new(kind));
        self
    }
}

impl<S, P: Clone, St> Layer<S> for AcceptedLayer<P, St> {
    type Service = Accepted<S, P, St>;

    fn layer(&self, inner: S) -> Self::Service {
        Accepted::new(
            inner,
            self.policy.clone(),
            self.jobs.clone(),
            self.terms.clone(),
        )
    }
}
