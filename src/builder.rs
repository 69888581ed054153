use std::{sync::Arc, time::Duration};

use http::request::Parts;

use crate::{
    config::{Config, Dialect, Links, OwnerOf, is_plain},
    estimate::Estimates,
    job::Owner,
    jobs::{Jobs, Registry},
    limit::{Budget, Gate},
    store::{MemoryStore, Store},
    telemetry,
};

/// Sets a [`Jobs`] up.
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct Builder {
    config: Config,
}

impl Builder {
    /// Where the monitor is, as a path. Default: `/jobs`, so that a job is at `/jobs/{id}`.
    ///
    /// # Panics
    ///
    /// If the path does not begin with a slash, ends with one, or has other characters than a URI's
    /// path may have.
    pub fn monitor_path(mut self, path: impl Into<String>) -> Self {
        let path = path.into();
        let valid = path.len() > 1
            && path.starts_with('/')
            && !path.ends_with('/')
            && is_plain(&path)
            && path
                .parse::<http::Uri>()
                .is_ok_and(|uri| uri.path() == path);
        assert!(valid, "not a path that jobs can be under: {path:?}");
        self.config.monitor_path = path;
        self
    }

    /// How many jobs may be unfinished at a time, those still being read included. Default: 10,000.
    ///
    /// One more is answered 503; where no 202 is owed ([`When::After`](crate::When::After)) it
    /// passes through.
    pub fn max_unfinished(mut self, jobs: usize) -> Self {
        self.config.max_unfinished = jobs;
        self
    }

    /// How many bytes there are for bodies being read, requests held, results being collected and
    /// results kept, all together. Default: 256 MiB.
    ///
    /// A kept job counts with 320 bytes and its result. For room, ended jobs are let go, the one that
    /// ended first before the others; unfinished ones never. No room when a request comes: 503. No
    /// room for a result: the job fails as
    /// [`result_too_large`](crate::ErrorCode::ResultTooLarge).
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.config.max_bytes = bytes;
        self
    }

    /// The largest request body that is accepted, in bytes. Default: 2 MiB.
    ///
    /// A larger one is answered 413; where no 202 is owed it passes through.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.config.body_limit = bytes;
        self
    }

    /// How long a request's body may take to arrive. Default: 30 s.
    ///
    /// A slower one is answered 408; where no 202 is owed it passes through.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.config.body_timeout = timeout;
        self
    }

    /// The largest response body that is kept, in bytes. Default: 16 MiB.
    ///
    /// A job with a larger one fails as
    /// [`result_too_large`](crate::ErrorCode::ResultTooLarge).
    pub fn max_result(mut self, bytes: usize) -> Self {
        self.config.result_limit = bytes;
        self
    }

    /// How long a job may take from the request on, until the inner service is ready included; `None` for
    /// ever. Default: one hour.
    ///
    /// Where it waits in a [`Queue`](crate::store::Queue) for a [`Worker`](crate::Worker), the time counts from
    /// when one has it, and anew each time that it is run again: an hour's wait for a place is no fault of the
    /// call. A job that takes longer fails as [`timeout`](crate::ErrorCode::Timeout).
    ///
    /// One timer keeps the time for all jobs, on the runtime of the one that was the first to need it: where several
    /// runtimes share a registry, limits are told late while that one is blocked.
    pub fn job_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.job_timeout = timeout.into();
        self
    }

    /// How long a call may go on after its job was canceled, deleted or timed out, where it has asked
    /// for its [`JobHandle`](crate::JobHandle) and so can hear of it; one that has not is dropped at
    /// once. Default: 5 s.
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.config.cancel_grace = grace;
        self
    }

    /// How long a job is kept after its end. Default: one hour.
    pub fn retain(mut self, retain: Duration) -> Self {
        self.config.retain = retain;
        self
    }

    /// The longest that a client's `Prefer: wait` (RFC 7240 §4.3) is honored. Default: 60 s.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.config.max_wait = wait;
        self
    }

    /// How much later a client may learn of a job's end where that saves it a poll. Default: 1 s.
    ///
    /// It decides between polling often and learning late, for clients that do as `Retry-After` says: that
    /// is chosen so that *polls × this + time from the end to the poll that finds it* is as little as can be
    /// expected, from how long the last jobs of the same [kind](crate::AcceptedLayer::kind) took.
    pub fn poll_cost(mut self, cost: Duration) -> Self {
        self.config.poll_cost = cost;
        self
    }

    /// Whether results are handed out with their `Set-Cookie` and `Clear-Site-Data`. Default: no.
    ///
    /// A result is the answer to a GET that can be shared: with its cookies, a link to one could put
    /// somebody else into the session of who submitted the job.
    pub fn replay_cookies(mut self, replay: bool) -> Self {
        self.config.replay_cookies = replay;
        self
    }

    /// Whether results are handed out with `Content-Security-Policy: sandbox`, for results that are
    /// made of what strangers sent. Default: no.
    pub fn sandbox_results(mut self, sandbox: bool) -> Self {
        self.config.sandbox_results = sandbox;
        self
    }

    /// Binds each job to the principal that its request came from. Default: jobs belong to nobody.
    ///
    /// The closure is asked about every request that becomes a job, and about every request to the
    /// monitor. To anyone but its owner a job is not there (404); idempotency keys are each owner's own;
    /// and `GET` of the monitor's path lists the owner's jobs. A job of nobody can be seen by whoever
    /// knows its id. To turn away requests of nobody, see [`AcceptedLayer::admit`](crate::AcceptedLayer::admit).
    ///
    /// ```
    /// use tower_accepted::{Jobs, Owner};
    ///
    /// #[derive(Clone)]
    /// struct User(String); // put there by an authentication layer outside this one
    ///
    /// let jobs = Jobs::builder()
    ///     .owner(|head| head.extensions.get::<User>().map(|user| Owner::new(&user.0)))
    ///     .max_unfinished_per_owner(10)
    ///     .build();
    /// # let _ = jobs;
    /// ```
    pub fn owner<F>(mut self, owner: F) -> Self
    where
        F: Fn(&Parts) -> Option<Owner> + Send + Sync + 'static,
    {
        self.config.owner = Some(OwnerOf(Arc::new(owner)));
        self
    }

    /// How many jobs of one owner may be unfinished at a time. Default: only the limit on all.
    ///
    /// One more is answered 429; where no 202 is owed it passes through.
    pub fn max_unfinished_per_owner(mut self, jobs: usize) -> Self {
        self.config.max_unfinished_per_owner = Some(jobs);
        self
    }

    /// How links are written. Default: [`Links::Path`].
    ///
    /// # Panics
    ///
    /// If the base of [`Links::Base`] is no absolute `http` or `https` URL, or has a query.
    pub fn links(mut self, links: Links) -> Self {
        self.config.links = links.check();
        self
    }

    /// How the monitor shows a job. Default: [`Dialect::Default`].
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.config.dialect = dialect;
        self
    }

    /// The registry, in memory.
    pub fn build(self) -> Jobs {
        let budget = Budget::new(self.config.max_bytes);
        let store = MemoryStore::new(self.config.retain, budget);
        self.build_with(store)
    }

    /// The registry, in a store that was made before, and that has its own settings in place of
    /// [`retain`](Self::retain) and [`max_bytes`](Self::max_bytes).
    pub fn build_with<St: Store>(self, store: St) -> Jobs<St> {
        telemetry::describe();
        Jobs {
            registry: Arc::new(Registry {
                store,
                gate: Gate::new(
                    self.config.max_unfinished,
                    self.config.max_unfinished_per_owner,
                ),
                estimates: Estimates::new(self.config.poll_cost),
                config: self.config,
            }),
        }
    }
}
