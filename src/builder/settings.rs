//! The settings of a registry in any store.

#[cfg(feature = "webhook")]
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, request::Parts};

use super::JobsBuilder;
use crate::{
    config::{Dialect, Links, OriginFn, OwnerFn},
    job::Owner,
};

#[cfg(feature = "webhook")]
use crate::webhook::Webhooks;

impl<S> JobsBuilder<S> {
    /// Sets the path of the monitor. Default: `/jobs`, so that a job is at `/jobs/{id}`.
    ///
    /// The path begins with a slash and does not end with one. It has no empty segments, no dot
    /// segments, and only characters that the path of a URI can have. Otherwise building fails with
    /// [`ConfigError::MonitorPath`](crate::ConfigError::MonitorPath).
    pub fn monitor_path(mut self, path: impl Into<String>) -> Self {
        self.settings.monitor_path = path.into();
        self
    }

    /// Sets the maximum number of unfinished jobs, including requests that are being read.
    /// Default: 10,000.
    ///
    /// A request over the limit gets 503, or passes through if it need not become a job. Under
    /// [`When::After`](crate::When::After), [`When::Preferred`](crate::When::Preferred) and
    /// [`When::Streamed`](crate::When::Streamed), only a request with an `Idempotency-Key` must
    /// become one. [`shed_when_full`](Self::shed_when_full) refuses the others too.
    pub fn max_unfinished(mut self, jobs: usize) -> Self {
        self.settings.max_unfinished = jobs;
        self
    }

    /// Sets whether a request over [`max_unfinished`](Self::max_unfinished) is refused even if it
    /// need not become a job. Default: `false`, so that it passes through.
    ///
    /// With this setting, each request that could become a job counts until it has been answered,
    /// even if its body is too large for a job. So the limit bounds how many calls run at a time,
    /// inline or as jobs. The refusal is a 503 with `Retry-After`. Over
    /// [`max_unfinished_per_owner`](Self::max_unfinished_per_owner), it is a 429.
    ///
    /// Requests that pass through anyway are neither counted nor refused: those under
    /// [`When::Never`](crate::When::Never), and those without `respond-async` under
    /// [`When::Preferred`](crate::When::Preferred). During a drain, any other is refused, so that a
    /// client can repeat it at another process.
    ///
    /// ```
    /// use tower_accepted::Jobs;
    ///
    /// let jobs = Jobs::builder().max_unfinished(200).shed_when_full(true).build();
    /// # let _ = jobs;
    /// ```
    pub fn shed_when_full(mut self, shed: bool) -> Self {
        self.settings.sheds_when_full = shed;
        self
    }

    /// Sets the maximum number of bytes that bodies and jobs may take of this process's memory.
    /// Default: 256 MiB, or the limit of the [budget](crate::store::Budget) that a store was created
    /// with.
    ///
    /// It covers bodies being read, accepted requests, results and jobs. Idempotency keys have a
    /// limit of their own, [`max_keys`](JobsBuilder::max_keys):
    ///
    /// - A quarter is for bodies being read. Without room, a request gets 503, or passes through if
    ///   it need not become a job.
    /// - A quarter is for results being sent. Without room, a read waits for
    ///   [`room_timeout`](Self::room_timeout) and then gets 503.
    /// - The rest is for jobs: requests until their calls have ended, responses, and ended jobs.
    ///   Requests may take half of it.
    ///
    /// The store in memory makes room by evicting ended jobs, the oldest end first. It passes over
    /// results that are being sent, and never evicts unfinished jobs.
    ///
    /// The application's own memory is not counted: its allocations, and the parts of a request
    /// that a handler keeps beyond its call.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_bytes = Some(bytes);
        self
    }

    /// Sets how long a response waits for room while nothing is released. Default: 5 s.
    ///
    /// Then the response that asks for most is refused, and its job fails as
    /// [`result_too_large`](crate::ErrorCode::ResultTooLarge). The oldest of several is spared, so
    /// at least one job can end.
    ///
    /// It also limits how long a read of a result waits for its store. Then the client gets 503.
    pub fn room_timeout(mut self, timeout: Duration) -> Self {
        self.settings.room_timeout = Some(timeout);
        self
    }

    /// Sets how long a client may read nothing of a result. Default: 2 min.
    ///
    /// Then the response is cut, and its bytes are released. A client can resume it with a range
    /// request (RFC 9110 §14).
    pub fn replay_timeout(mut self, timeout: Duration) -> Self {
        self.settings.replay_timeout = timeout;
        self
    }

    /// Sets the maximum size of a request body, in bytes. Default: 2 MiB. It is at most an eighth
    /// of [`max_bytes`](Self::max_bytes).
    ///
    /// A request with a larger body gets 413, or passes through if it need not become a job.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.settings.max_body = bytes;
        self
    }

    /// Sets how long a request body may take to arrive. Default: 30 s.
    ///
    /// A slower request gets 408, or passes through if it need not become a job.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.settings.body_timeout = timeout;
        self
    }

    /// Sets the maximum size of a response body that is kept, in bytes. Default: 16 MiB. It is at
    /// most a fifth of [`max_bytes`](Self::max_bytes).
    ///
    /// A job with a larger response fails as
    /// [`result_too_large`](crate::ErrorCode::ResultTooLarge).
    pub fn max_result(mut self, bytes: usize) -> Self {
        self.settings.max_result = bytes;
        self
    }

    /// Sets the time limit of a job, counted from its request and including the wait for the inner
    /// service to be ready. `None` sets no limit. Default: one hour.
    ///
    /// For a job that waits in a [`Queue`](crate::store::Queue), the time counts from when a
    /// [`Worker`](crate::Worker) claims it, and again for each further run. A job that exceeds the
    /// limit fails as [`timeout`](crate::ErrorCode::Timeout).
    pub fn job_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.job_timeout = timeout.into();
        self
    }

    /// Sets how long a call may continue after its job was canceled, deleted or timed out.
    /// Default: 5 s.
    ///
    /// It applies to calls that hold their [`JobHandle`](crate::JobHandle) or have taken its
    /// [`token`](crate::JobHandle::token), and so can notice. Any other call is dropped at once.
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.settings.cancel_grace = grace;
        self
    }

    /// Sets the maximum time that a client's `Prefer: wait` (RFC 7240 §4.3) is honored.
    /// Default: 50 s, because many proxies give up after 60 s.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.settings.max_wait = wait;
        self
    }

    /// Sets the latency, per saved poll, that clients should tolerate. Default: 1 s.
    ///
    /// Higher values mean fewer polls and later notification, for clients that obey `Retry-After`.
    /// `Retry-After` minimizes the expected *polls × poll cost + time from the end to the poll that
    /// finds it*, given the durations of recent jobs of the same
    /// [kind](crate::AcceptedLayer::kind).
    pub fn poll_cost(mut self, cost: Duration) -> Self {
        self.settings.poll_cost = cost;
        self
    }

    /// Replays results with their `Set-Cookie` and `Clear-Site-Data`. Default: `false`.
    ///
    /// A link to a result can be shared. With cookies, it could put another person into the
    /// submitter's session. The result of a job with an owner always has them.
    pub fn replay_cookies(mut self, replay: bool) -> Self {
        self.settings.replay_cookies = replay;
        self
    }

    /// Replays results with `Content-Security-Policy: sandbox`. Default: `false`.
    ///
    /// Use it if results can contain HTML from untrusted clients.
    pub fn sandbox_results(mut self, sandbox: bool) -> Self {
        self.settings.sandbox_results = sandbox;
        self
    }

    /// Notifies receivers of jobs by signed requests, and loads the system's root certificates when
    /// built. Default: no receiver is notified.
    ///
    /// A process with this setting sends what its store records, also for jobs that ended in other
    /// processes. If it is built outside of a runtime, sending begins with the first request, or
    /// when a [`Worker`](crate::Worker) runs.
    #[cfg(feature = "webhook")]
    pub fn webhooks(mut self, webhooks: Webhooks) -> Self {
        self.settings.webhooks = Some(Arc::new(webhooks));
        self
    }

    /// Binds each job to the principal that its request came from. Default: jobs have no owner.
    ///
    /// The closure is called for each request that may become a job, and for requests to the
    /// monitor. Only its owner can see a job; any other client gets 404. Each owner has its own
    /// idempotency keys, and `GET` of the monitor's path lists the owner's jobs.
    ///
    /// A job without an owner is visible to every client that knows its id. To refuse requests
    /// without an owner, see [`AcceptedLayer::admit`](crate::AcceptedLayer::admit).
    ///
    /// ```
    /// use tower_accepted::{Jobs, Owner};
    ///
    /// #[derive(Clone)]
    /// struct User(String); // set by an authentication layer outside this one
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
        self.settings.owner = Some(OwnerFn::new(owner));
        self
    }

    /// Allows pages of other sites to cancel jobs if the closure returns `true` for their
    /// `Origin`. Default: no other site is allowed.
    ///
    /// A browser sends a cross-site `POST …/cancel` without a preflight (CORS), with the user's
    /// cookies. So the monitor refuses one with `Sec-Fetch-Site: cross-site`. It accepts
    /// `same-site`, since the hosts of one site belong together and share cookies. A cross-site
    /// `DELETE` always needs a preflight, so the application's CORS layer decides about it.
    ///
    /// Over plain HTTP, browsers send no `Sec-Fetch-Site`. Then the host and port of `Origin` must
    /// be those of the request, and `Origin: null` is refused. A proxy must keep `Host`, or the
    /// closure must allow the public origin. Requests with neither field come from other clients,
    /// so the monitor accepts them.
    ///
    /// ```
    /// use tower_accepted::Jobs;
    ///
    /// let jobs = Jobs::builder()
    ///     .allow_cancel_from(|origin| origin == "https://app.example")
    ///     .build();
    /// # let _ = jobs;
    /// ```
    pub fn allow_cancel_from<F>(mut self, origins: F) -> Self
    where
        F: Fn(&HeaderValue) -> bool + Send + Sync + 'static,
    {
        self.settings.cancel_origins = Some(OriginFn::new(origins));
        self
    }

    /// Sets the maximum number of unfinished jobs of one owner. Default: only the limit for all.
    ///
    /// A request over the limit gets 429, or passes through if it need not become a job.
    pub fn max_unfinished_per_owner(mut self, jobs: usize) -> Self {
        self.settings.max_unfinished_per_owner = Some(jobs);
        self
    }

    /// Sets how links are written. Default: [`Links::Path`].
    ///
    /// The base of [`Links::Base`] is an absolute `http` or `https` URL, without a user or a query.
    /// Otherwise building fails with [`ConfigError::LinkBase`](crate::ConfigError::LinkBase).
    pub fn links(mut self, links: Links) -> Self {
        self.settings.links = links;
        self
    }

    /// Sets the convention that the monitor follows. Default: [`Dialect::Default`].
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.settings.dialect = dialect;
        self
    }
}
