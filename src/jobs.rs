use std::{fmt, sync::Arc, time::Duration};

use crate::{
    builder::Builder,
    config::Config,
    estimate::Estimates,
    job::{Filter, JobId, Page, Snapshot},
    limit::Gate,
    middleware::AcceptedLayer,
    monitor::Monitor,
    run::Worker,
    store::{Lookup, MemoryStore, Queue, Store},
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

impl Jobs {
    /// A registry in memory, with every setting at its default.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A registry to be set up.
    pub fn builder() -> Builder {
        Builder::default()
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
