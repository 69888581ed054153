//! The handle of a registry that an application holds.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    config::When,
    job::{Filter, JobId, Page, Snapshot},
    middleware::AcceptedLayer,
    monitor::Monitor,
    registry::Registry,
    run::Worker,
    store::{
        DeliveryFilter, DeliveryId, DeliveryPage, Lookup, MemoryStore, Queue, Revisions, Store,
    },
};

/// The registry of accepted requests.
///
/// Clones are cheap. All clones, and all layers and monitors created from them, share the same
/// jobs.
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
/// Jobs run on tasks of the runtime that served their requests. Dropping a registry does not end
/// them; [`drain`](Self::drain) waits for them. A runtime that shuts down ends its jobs as
/// [`shutdown`](crate::ErrorCode::Shutdown).
pub struct Jobs<St = MemoryStore> {
    registry: Arc<Registry<St>>,
}

impl<St> Jobs<St> {
    pub(crate) fn with_registry(registry: Arc<Registry<St>>) -> Self {
        Self { registry }
    }

    /// Returns the number of requests that this process has taken on and not finished.
    ///
    /// It counts requests being read, calls that wait for the inner service or run, and canceled
    /// calls that have not ended yet.
    pub fn unfinished(&self) -> usize {
        self.registry.permits.count()
    }

    /// Stops accepting requests, waits until every job has ended, and after `timeout` ends the rest
    /// as [`shutdown`](crate::ErrorCode::Shutdown).
    ///
    /// Returns the number of jobs that it ended. It does not count requests that were still being
    /// read or answered inline, which the server must end.
    ///
    /// With webhooks, it then sends the deliveries that are due in memory, within the same timeout,
    /// or within a second if jobs have used it up. A durable store keeps them: only requests in
    /// flight are awaited. Nothing is sent afterwards.
    ///
    /// The monitor still answers during and after a drain, so keep the server running until this
    /// returns. It returns once the last job has ended, and webhooks have been sent. Keep the
    /// server running for some seconds more if clients must be able to fetch the last results from
    /// memory.
    ///
    /// The registry accepts nothing from the first poll on, and cannot be reopened.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped, no job is ended, due webhooks are still sent, and the registry stays
    /// closed. It may be called again.
    pub async fn drain(&self, timeout: Duration) -> usize {
        self.registry.drain(timeout).await
    }
}

impl<St: Store> Jobs<St> {
    /// Creates the layer that turns requests into jobs of this registry, and serves its monitor.
    pub fn layer(&self) -> AcceptedLayer<When, St> {
        AcceptedLayer::with_registry(self.registry.clone())
    }

    /// Creates the monitor as a service of its own, to mount if the layer does not receive requests
    /// for the monitor's path.
    ///
    /// It accepts paths with and without the prefix
    /// [`monitor_path`](crate::JobsBuilder::monitor_path).
    pub fn monitor(&self) -> Monitor<St> {
        Monitor::new(self.registry.clone())
    }

    /// Creates a worker that runs this registry's queued requests, including those that other
    /// processes have accepted. `service` must be the service that is behind the
    /// [`layer`](Self::layer) there.
    ///
    /// `B` is a type of request body that the service takes. The service receives bodies that have
    /// been read to their end.
    pub fn worker<S, B>(&self, service: S) -> Worker<S, B, St>
    where
        St: Queue,
    {
        Worker::new(self.registry.clone(), service)
    }

    /// Looks up a job. Returns `None` if there is no such job, or it has expired.
    ///
    /// # Errors
    ///
    /// Returns the store's error; the store in memory has none.
    pub async fn get(&self, id: JobId) -> Result<Option<Snapshot>, St::Error> {
        Ok(self.registry.store.get(id).await?.found())
    }

    /// Cancels a job unless it has ended, and returns it as it is then. Returns `None` if there is
    /// no such job, or it has expired.
    ///
    /// The job has ended as canceled when this returns. Its call is notified through
    /// [`JobHandle::canceled`](crate::JobHandle::canceled), and dropped after the grace period.
    ///
    /// # Errors
    ///
    /// Returns the store's error; the store in memory has none.
    pub async fn cancel(&self, id: JobId) -> Result<Option<Snapshot>, St::Error> {
        let canceled = self.registry.store.cancel(id, &Revisions::Any).await?;
        Ok(canceled.and_then(Lookup::found))
    }

    /// Lists deliveries, newest first, without their bodies.
    ///
    /// The page is empty if the store has no outbox.
    ///
    /// # Errors
    ///
    /// Returns the store's error; the store in memory has none.
    pub async fn deliveries(&self, filter: &DeliveryFilter) -> Result<DeliveryPage, St::Error> {
        match self.registry.store.outbox() {
            Some(outbox) => outbox.list(filter).await,
            None => Ok(DeliveryPage::default()),
        }
    }

    /// Makes a failed or pending delivery due at once, with all its attempts. It keeps its id, so a
    /// receiver can recognize it.
    ///
    /// Returns `false` if there is no such delivery, or if its receiver has acknowledged it. Any
    /// process that sends webhooks of this store may send it.
    ///
    /// # Errors
    ///
    /// Returns the store's error; the store in memory has none.
    pub async fn redeliver(&self, id: DeliveryId) -> Result<bool, St::Error> {
        match self.registry.store.outbox() {
            Some(outbox) => outbox.redeliver(id).await,
            None => Ok(false),
        }
    }

    /// Lists jobs, the newest first, a page at a time.
    ///
    /// An owner's jobs are found by an index. Without an owner the store in memory reads every job,
    /// which takes about a tenth of a second for a million of them.
    ///
    /// # Errors
    ///
    /// Returns the store's error; the store in memory has none.
    pub async fn list(&self, filter: &Filter) -> Result<Page, St::Error> {
        self.registry.store.list(filter).await
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
            .field("permits", &self.registry.permits)
            .finish_non_exhaustive()
    }
}
