use tower::Layer;

use crate::{
    jobs::Jobs,
    service::Accepted,
    store::{MemoryStore, Store},
    when::When,
};

/// Puts 202 (Accepted) in front of a service: see the [crate's page](crate).
#[derive(Debug, Clone)]
#[must_use = "a layer does nothing until it is put around a service"]
pub struct AcceptedLayer<P = When, St = MemoryStore> {
    jobs: Jobs<St>,
    policy: P,
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
        let policy = When::default();
        Self { jobs, policy }
    }
}

impl<P, St> AcceptedLayer<P, St> {
    /// Chooses which requests become jobs: a [`When`], or a closure over the request's head.
    /// Default: [`When::Always`].
    pub fn when<Q: crate::Policy>(self, policy: Q) -> AcceptedLayer<Q, St> {
        let jobs = self.jobs;
        AcceptedLayer { jobs, policy }
    }
}

impl<S, P: Clone, St> Layer<S> for AcceptedLayer<P, St> {
    type Service = Accepted<S, P, St>;

    fn layer(&self, inner: S) -> Self::Service {
        Accepted::new(inner, self.policy.clone(), self.jobs.clone())
    }
}
