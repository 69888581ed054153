//! The handle of a registry that an application holds.

use std::{fmt, sync::Arc, time::Duration};

use http::Response;

use crate::{
    config::{LinkOrigin, When},
    job::{Filter, JobId, Page, Snapshot},
    middleware::AcceptedLayer,
    monitor::{Monitor, linked_document},
    protocol::RESULT_TARGET,
    registry::Registry,
    run::Worker,
    store::{
        DeliveryFilter, DeliveryId, DeliveryPage, Lookup, MemoryStore, Queue, ResultBody,
        Revisions, Store,
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
    /// Returns the number of calls of jobs that it stopped. A store with a
    /// [`Queue`](crate::store::Queue) takes back those that may run again. It does not count
    /// requests that were still being read or answered inline, which the server must end.
    ///
    /// With webhooks, it then sends the deliveries that are due in memory, within the same timeout,
    /// or within a second if jobs have used it up. A durable store keeps them: only requests in
    /// flight are awaited. Nothing is sent afterwards.
    ///
    /// The monitor still answers during a drain, so keep the server running until this returns.
    /// During a drain, no `Retry-After` is over 1 s. After the last end, the drain waits until
    /// clients have fetched their results. For each job, it waits until one of these:
    ///
    /// - A client has been sent the head of the result, or all of its stream, or has seen that
    ///   there is no result. The server must then complete the response.
    /// - A client has deleted the job.
    /// - A second has passed since the latest time that any `Retry-After` before the end named. A
    ///   client that has seen the end has a second for its next request, and so have receivers
    ///   after the last webhook of the drain.
    /// - `timeout` is over.
    ///
    /// So clients that obey `Retry-After` get their results, if `timeout` is longer than any
    /// `Retry-After` that the monitor had named before. The drain does not wait for canceled
    /// jobs. It waits for no client if the store is [durable](crate::store::Store::is_durable),
    /// since the next process serves the results.
    ///
    /// The registry accepts nothing from the first poll on, and cannot be reopened.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before `timeout`, no job is ended, due webhooks are still sent, and the
    /// registry stays closed. It may be called again.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use axum::Router;
    /// use tower_accepted::Jobs;
    ///
    /// # async fn serve(app: Router, jobs: Jobs) -> std::io::Result<()> {
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    /// axum::serve(listener, app)
    ///     .with_graceful_shutdown(async move {
    ///         let _ = tokio::signal::ctrl_c().await; // in production, also SIGTERM
    ///         jobs.drain(Duration::from_secs(30)).await;
    ///     })
    ///     .await
    /// # }
    /// ```
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
    ///
    /// ```
    /// use axum::{Router, routing::post};
    /// use tower_accepted::Jobs;
    ///
    /// # async fn render_report() {}
    /// let jobs = Jobs::new();
    /// let app: Router = Router::new()
    ///     .route("/reports", post(render_report).layer(jobs.layer()))
    ///     .nest_service("/jobs", jobs.monitor());
    /// ```
    pub fn monitor(&self) -> Monitor<St> {
        Monitor::new(self.registry.clone())
    }

    /// Creates a worker that runs this registry's queued requests, including those that other
    /// processes have accepted. `service` must do what the service behind the
    /// [`layer`](Self::layer) does there. It may have the layer itself, which lets the worker's
    /// requests through, and copies of them with their extensions.
    ///
    /// A request has its head and its body, but no extensions, except those that the store carries:
    /// see [`NatsOptions::carry`](crate::store::nats::NatsOptions::carry) and
    /// [`SqliteOptions::carry`](crate::store::sqlite::SqliteOptions::carry).
    ///
    /// `B` is a type of request body that the service takes. The service receives bodies that have
    /// been read to their end.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use axum::{Router, body::Body};
    /// use tower_accepted::{Jobs, store::Queue};
    ///
    /// /// Runs queued requests until the process is asked to stop.
    /// async fn work<St: Queue>(jobs: Jobs<St>, app: Router) {
    ///     let running = tokio::spawn(jobs.worker::<_, Body>(app).run());
    ///     let _ = tokio::signal::ctrl_c().await;
    ///     jobs.drain(Duration::from_secs(30)).await;
    ///     let _ = running.await;
    /// }
    /// ```
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
    ///
    /// # Example
    ///
    /// ```
    /// use tower_accepted::{Filter, Jobs, Owner};
    ///
    /// /// Cancels the newest hundred jobs of a locked user. Ended jobs stay as they are.
    /// async fn cancel_all(jobs: &Jobs, user: &str) {
    ///     let filter = Filter::new().owner(Owner::new(user));
    ///     let Ok(page) = jobs.list(&filter).await;
    ///     for job in page.jobs {
    ///         let Ok(_) = jobs.cancel(job.id).await;
    ///     }
    /// }
    /// # let jobs = Jobs::new();
    /// # futures_util::FutureExt::now_or_never(cancel_all(&jobs, "anna")).unwrap();
    /// ```
    pub async fn cancel(&self, id: JobId) -> Result<Option<Snapshot>, St::Error> {
        let canceled = self.registry.store.cancel(id, &Revisions::Any).await?;
        Ok(canceled.and_then(Lookup::found))
    }

    /// Forgets a job: it is unknown from then on. An unfinished job is canceled first. Returns the
    /// job as it was, or `None` if there is no such job.
    ///
    /// Its result is freed, and its idempotency key may be used for another request.
    ///
    /// # Errors
    ///
    /// Returns the store's error; the store in memory has none.
    pub async fn forget(&self, id: JobId) -> Result<Option<Snapshot>, St::Error> {
        let forgotten = self.registry.store.forget(id, &Revisions::Any).await?;
        self.registry.awaited.taken(id);
        Ok(forgotten.and_then(Lookup::found))
    }

    /// Returns the response of the inner service. Returns `None` if there is no such job, it has
    /// not ended, or it has ended without a response.
    ///
    /// It has the service's own status and the fields that the store keeps, without the changes
    /// that the monitor makes for other clients: see
    /// [how a result differs](crate#how-a-result-differs). A store does not keep `Content-Length`,
    /// the fields of the connection, and the cookies of a job without an owner.
    ///
    /// The body holds room in [`max_bytes`](crate::JobsBuilder::max_bytes) while it is read, and
    /// this waits until there is room. A [drain](Self::drain) does not count it as read by a client.
    ///
    /// # Errors
    ///
    /// Returns the store's error; the store in memory has none.
    ///
    /// # Example
    ///
    /// ```
    /// use http_body_util::BodyExt;
    /// use tower_accepted::{JobId, Jobs};
    ///
    /// /// Returns the report that a job has made.
    /// async fn report(jobs: &Jobs, id: JobId) -> Option<Vec<u8>> {
    ///     let response = jobs.result(id).await.ok()??;
    ///     let body = response.into_body().collect().await.ok()?;
    ///     Some(body.to_bytes().into())
    /// }
    /// # let _ = report;
    /// ```
    pub async fn result(&self, id: JobId) -> Result<Option<Response<ResultBody>>, St::Error> {
        let job = self.registry.store.get(id).await?.found();
        if job.is_none_or(|job| job.response.is_none()) {
            return Ok(None);
        }
        let reading = self.registry.store.read(id, 0).await?;
        Ok(reading.map(|reading| {
            let mut response = reading.response;
            response.headers_mut().remove(RESULT_TARGET);
            response
        }))
    }

    /// Follows a job: yields it as it is now, and after each change. A slow reader skips changes.
    /// The stream ends with the job, and is empty if there is no such job. If a durable store
    /// fails, the stream waits, and goes on once the store answers again. It may be dropped at any
    /// time.
    ///
    /// ```
    /// use futures_util::StreamExt;
    /// use tower_accepted::{JobId, Jobs, Status};
    ///
    /// /// Waits until a job has ended.
    /// async fn end(jobs: &Jobs, id: JobId) -> Option<Status> {
    ///     let last = jobs.changes(id).fold(None, async |_, job| Some(job));
    ///     last.await.map(|job| job.status)
    /// }
    /// # let _ = end;
    /// ```
    pub fn changes(&self, id: JobId) -> St::Changes {
        self.registry.store.changes(id)
    }

    /// Returns the status document of a job: the JSON that the monitor serves, with links as
    /// [`JobsBuilder::links`](crate::JobsBuilder::links) says.
    ///
    /// A snapshot also implements [`serde::Serialize`], with the same members except for the links.
    ///
    /// ```
    /// use tower_accepted::{JobId, Jobs};
    ///
    /// async fn status(jobs: &Jobs, id: JobId) -> Option<String> {
    ///     let job = jobs.get(id).await.ok()??;
    ///     Some(jobs.document(&job))
    /// }
    /// # let _ = status;
    /// ```
    pub fn document(&self, job: &Snapshot) -> String {
        let settings = &self.registry.settings;
        let json = linked_document(LinkOrigin::Document, &job.id.encode(), job, settings);
        String::from_utf8(json).expect("JSON is UTF-8")
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
    ///
    /// # Example
    ///
    /// ```
    /// use tower_accepted::{Filter, Jobs, Status};
    ///
    /// /// Counts the jobs that run, page by page.
    /// async fn count_running(jobs: &Jobs) -> usize {
    ///     let mut filter = Filter::new().status(Status::Running);
    ///     let mut count = 0;
    ///     loop {
    ///         let Ok(page) = jobs.list(&filter).await;
    ///         count += page.jobs.len();
    ///         let Some(next) = page.next else { return count };
    ///         filter = filter.after(next);
    ///     }
    /// }
    /// # let jobs = Jobs::new();
    /// # let count = futures_util::FutureExt::now_or_never(count_running(&jobs));
    /// # assert_eq!(count, Some(0));
    /// ```
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
