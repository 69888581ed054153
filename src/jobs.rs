use std::{fmt, sync::Arc, time::Duration};

use http::request::Parts;

use crate::{
    budget::Budget,
    dialect::Dialect,
    estimate::Estimates,
    gate::Gate,
    job::{IdText, JobId, Snapshot},
    layer::AcceptedLayer,
    links::{At, Links, is_plain},
    list::{Filter, Page},
    measure,
    monitor::Monitor,
    owner::Owner,
    store::{Lookup, MemoryStore, Queue, Store},
    worker::Worker,
};

/// The registry of accepted requests.
///
/// A cheap clone: all clones, and all layers and monitors made from them, share the same jobs.
///
/// ```
/// use std::time::Duration;
/// use tower_accepted::Jobs;
///
/// let jobs = Jobs::builder()
///     .monitor_path("/reports/jobs")
///     .retain(Duration::from_secs(24 * 3600))
///     .max_unfinished(100)
///     .build();
/// let layer = jobs.layer();
/// # let _ = layer;
/// ```
///
/// # Shutting down
///
/// Jobs run on tasks of the runtime that served their requests. A registry that is dropped does not
/// end them; [`drain`](Self::drain) waits for them, and a runtime that goes away ends them as
/// [`shutdown`](crate::ErrorCode::Shutdown).
pub struct Jobs<St = MemoryStore> {
    pub(crate) registry: Arc<Registry<St>>,
}

/// What all clones of a [`Jobs`] share.
#[derive(Debug)]
pub(crate) struct Registry<St> {
    pub(crate) store: St,
    pub(crate) gate: Gate,
    pub(crate) estimates: Estimates,
    pub(crate) config: Config,
}

/// What a [`Builder`] sets.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) monitor_path: String,
    pub(crate) max_unfinished: usize,
    pub(crate) max_bytes: usize,
    pub(crate) body_limit: usize,
    pub(crate) body_timeout: Duration,
    pub(crate) result_limit: usize,
    pub(crate) job_timeout: Option<Duration>,
    pub(crate) cancel_grace: Duration,
    pub(crate) retain: Duration,
    pub(crate) max_wait: Duration,
    pub(crate) poll_cost: Duration,
    pub(crate) replay_cookies: bool,
    pub(crate) sandbox_results: bool,
    pub(crate) owner: Option<OwnerOf>,
    pub(crate) max_unfinished_per_owner: Option<usize>,
    pub(crate) links: Links,
    pub(crate) dialect: Dialect,
}

/// Tells whom a request comes from.
#[derive(Clone)]
pub(crate) struct OwnerOf(Arc<OwnerFn>);

type OwnerFn = dyn Fn(&Parts) -> Option<Owner> + Send + Sync;

impl fmt::Debug for OwnerOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerOf")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            monitor_path: "/jobs".to_owned(),
            max_unfinished: 10_000,
            max_bytes: 256 << 20,
            body_limit: 2 << 20,
            body_timeout: Duration::from_secs(30),
            result_limit: 16 << 20,
            job_timeout: Some(Duration::from_secs(3600)),
            cancel_grace: Duration::from_secs(5),
            retain: Duration::from_secs(3600),
            max_wait: Duration::from_secs(60),
            poll_cost: Duration::from_secs(1),
            replay_cookies: false,
            sandbox_results: false,
            owner: None,
            max_unfinished_per_owner: None,
            links: Links::default(),
            dialect: Dialect::default(),
        }
    }
}

impl Jobs {
    /// A registry in memory, with every setting at its default.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A registry to be set up.
    pub fn builder() -> Builder {
        Builder {
            config: Config::default(),
        }
    }
}

impl Config {
    /// Whom a request comes from.
    pub(crate) fn owner(&self, head: &Parts) -> Option<Owner> {
        self.owner.as_ref().and_then(|owner| owner.0(head))
    }

    /// Writes the address of a job's monitor as it is written there.
    pub(crate) fn write_link(&self, to: &mut Vec<u8>, at: At<'_>, id: &IdText) {
        self.links.write_prefix(to, &self.monitor_path, at);
        to.extend_from_slice(id);
    }

    /// The address of an owner's list.
    pub(crate) fn list_link(&self) -> String {
        let mut link = Vec::new();
        self.links
            .write_prefix(&mut link, &self.monitor_path, At::Document);
        let link = String::from_utf8(link).unwrap_or_default();
        link.trim_end_matches('/').to_owned()
    }
}

impl Default for Jobs {
    fn default() -> Self {
        Self::new()
    }
}

impl<St: Store> Jobs<St> {
    /// The layer that turns requests into jobs of this registry, and serves its monitor.
    pub fn layer(&self) -> AcceptedLayer<crate::When, St> {
        AcceptedLayer::of(self.clone())
    }

    /// The monitor alone, as a service to be mounted where the layer does not see its path.
    ///
    /// It takes its path with the registry's `monitor_path` before it, and without.
    pub fn monitor(&self) -> Monitor<St> {
        Monitor::new(self.clone())
    }

    /// A worker that runs this registry's requests, those that other processes have accepted among
    /// them, through a service: the same as is behind [`layer`](Self::layer) there.
    ///
    /// `B` is a type of request body that the service takes; what it gets has been read to its end.
    pub fn worker<S, B>(&self, service: S) -> Worker<S, B, St>
    where
        St: Queue,
    {
        Worker::new(self.clone(), service)
    }

    /// Looks a job up; `None` if there is none of that id, or it has expired.
    ///
    /// # Errors
    ///
    /// The store's own; the one in memory has none.
    pub async fn get(&self, id: JobId) -> Result<Option<Snapshot>, St::Error> {
        Ok(self.registry.store.get(id).await?.found())
    }

    /// Cancels a job that has not ended, and returns it as it is then; `None` as [`get`](Self::get).
    ///
    /// The job has ended as canceled when this returns. Its call is told
    /// ([`JobHandle::canceled`](crate::JobHandle::canceled)) and, after a grace period, dropped.
    ///
    /// # Errors
    ///
    /// The store's own; the one in memory has none.
    pub async fn cancel(&self, id: JobId) -> Result<Option<Snapshot>, St::Error> {
        Ok(self.registry.store.cancel(id).await?.found())
    }

    /// The jobs there are, the newest first, a page at a time.
    ///
    /// With an owner, that owner's jobs are found by an index; without, every job is looked at: about a
    /// tenth of a second for a million of them.
    ///
    /// # Errors
    ///
    /// The store's own; the one in memory has none.
    pub async fn list(&self, filter: &Filter) -> Result<Page, St::Error> {
        self.registry.store.list(filter).await
    }

    /// The number of requests taken on in this process and not done with: being read, waiting,
    /// running, or canceled and still winding down.
    pub fn unfinished(&self) -> usize {
        self.registry.gate.unfinished()
    }

    /// Accepts nothing more, waits until every job has ended, and ends those that have not after
    /// `timeout` as [`shutdown`](crate::ErrorCode::Shutdown). Returns how many requests were not done
    /// with by then: those jobs, and what was still being read or answered inline, which is the server's
    /// to end.
    ///
    /// The monitor still answers during and after it, so keep the server running until it returns.
    /// There is no way back: the registry accepts nothing from the first poll on.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, nothing is ended; the registry stays closed. It may be called again.
    pub async fn drain(&self, timeout: Duration) -> usize {
        self.registry.gate.drain(timeout).await
    }
}

impl<St> Clone for Jobs<St> {
    fn clone(&self) -> Self {
        Self {
            registry: self.registry.clone(),
        }
    }
}

impl<St: fmt::Debug> fmt::Debug for Jobs<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs")
            .field("store", &self.registry.store)
            .field("gate", &self.registry.gate)
            .finish_non_exhaustive()
    }
}

impl Lookup {
    fn found(self) -> Option<Snapshot> {
        match self {
            Self::Found(snapshot) => Some(*snapshot),
            Self::Gone(_) | Self::Unknown => None,
        }
    }
}

/// Sets a [`Jobs`] up.
#[derive(Debug, Clone)]
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

    /// How long a job may take from the request on, time in the queue included; `None` for ever.
    /// Default: one hour.
    ///
    /// A job that takes longer fails as [`timeout`](crate::ErrorCode::Timeout).
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
    /// expected, from how long the last jobs of the same [kind](AcceptedLayer::kind) took.
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
    /// knows its id. To turn away requests of nobody, see [`AcceptedLayer::admit`].
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
        measure::describe();
        let budget = Budget::new(self.config.max_bytes);
        let store = MemoryStore::new(self.config.retain, budget);
        self.build_with(store)
    }

    /// The registry, in a store that was made before, and that has its own settings in place of
    /// [`retain`](Self::retain) and [`max_bytes`](Self::max_bytes).
    pub fn build_with<St: Store>(self, store: St) -> Jobs<St> {
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
