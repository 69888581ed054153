//! The public store type, and its `Store` and `Queue` implementations.

use std::{
    convert::identity,
    fmt,
    future::{Future, ready},
    path::Path,
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll},
    thread,
};

use bytes::Bytes;
use http::{HeaderMap, request, response};
use tokio::{
    sync::oneshot,
    task::{spawn_blocking, yield_now},
};

use super::{
    accept,
    backup::back_up,
    changes::SqliteChanges,
    claim::SqliteClaim,
    clock::unix_now,
    dequeue::{self, SqliteTicket},
    error::SqliteError,
    finish,
    lookup::{self, look_up},
    open,
    options::SqliteOptions,
    outbox::SqliteOutbox,
    process::Process,
    read,
    record::SqliteRecord,
    shared::Shared,
    thread::WriterThread,
    writer::SqliteWriter,
};
use crate::{
    Filter, JobId, Page,
    store::{
        Acceptance, Budget, Charge, End, Finished, Lookup, NewJob, Purpose, Queue, Reading, Report,
        Revisions, SharedOutbox, Store, StoreFuture, Work,
    },
};

/// The default budget, in bytes.
const DEFAULT_BUDGET: usize = 256 << 20;

/// A store that keeps jobs in a SQLite file on this machine.
///
/// Every process that opens the same file finds all jobs. The process that accepts a request runs
/// it. If that process dies, any [`Worker`](crate::Worker) runs it. The
/// [guide](crate::guide::sqlite) states what the store guarantees, and how to operate it.
///
/// Its memory budget covers request bodies, results being collected, and the part of each result
/// that is being sent. [`JobsBuilder::max_bytes`](crate::JobsBuilder::max_bytes) sets its limit.
/// Default: 256 MiB.
///
/// Clones share their connections. The file is closed when the last clone, the last claim and the
/// last handle of the outbox are dropped.
///
/// ```no_run
/// use std::time::Duration;
///
/// use tower_accepted::{
///     Jobs,
///     store::sqlite::{SqliteError, SqliteOptions, SqliteStore},
/// };
///
/// # async fn open() -> Result<(), SqliteError> {
/// let options = SqliteOptions::new()
///     .retain(Duration::from_secs(24 * 3600))
///     .max_disk_bytes(10 << 30);
/// let store = SqliteStore::open("jobs.db", options).await?;
/// let jobs = Jobs::builder().store(store.clone()).build();
/// store.backup_to("backup.db").await?;
/// # drop(jobs);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteStore {
    process: Arc<Process>,
}

impl SqliteStore {
    /// Opens the file at `path`, and creates it if it does not exist. Its directory must exist.
    ///
    /// Beside it, SQLite keeps `…-wal` and `…-shm`, and this store keeps `…-turn` and the directory
    /// `…-bodies`. Only the user of this process can read them.
    ///
    /// # Errors
    ///
    /// - [`SqliteError::Foreign`], [`Damaged`](SqliteError::Damaged),
    ///   [`NewerSchema`](SqliteError::NewerSchema) or [`InUse`](SqliteError::InUse) if this version
    ///   cannot use the file. It is left as it is.
    /// - [`SqliteError::OldSqlite`] if the application links an older SQLite.
    /// - [`SqliteError::NetworkFileSystem`] if the file is on one. Linux only.
    /// - [`SqliteError::Busy`] if another program holds SQLite's lock for longer than five
    ///   seconds.
    /// - [`SqliteError::Io`] if a file cannot be read or written.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the file is closed again.
    pub async fn open(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, SqliteError> {
        let path = path.as_ref().to_owned();
        let named = path.clone();
        let (sender, receiver) = mpsc::channel();
        let (reply, opened) = oneshot::channel();
        let opening = move || {
            let started = open::open(&path, &options).and_then(|file| {
                let shared = Arc::new(Shared::new(&file, options));
                let thread = WriterThread::new(file, shared.clone(), receiver);
                thread
                    .map_err(|error| error.at(&path))
                    .map(|thread| (thread, shared))
            });
            match started {
                Ok((thread, shared)) => {
                    if reply.send(Ok(shared)).is_ok() {
                        thread.run();
                    }
                }
                Err(error) => drop(reply.send(Err(error))),
            }
        };
        // A thread of its own, since it lives as long as the store. It ends with the last sender.
        let thread = thread::Builder::new().name("accepted-sqlite".to_owned());
        thread.spawn(opening).map_err(SqliteError::io(named))?;
        let shared = opened.await.unwrap_or(Err(SqliteError::Closed))?;
        let process = Process::new(shared, Budget::new(DEFAULT_BUDGET), sender);
        Ok(Self {
            process: Arc::new(process),
        })
    }

    /// Copies the file to `target`, and large bodies to `…-bodies` beside it, while jobs go on.
    ///
    /// The copy has the jobs of one moment: it can be opened as it is. Jobs that ran then are
    /// treated like those of a process that died. The log of the file grows while it is copied.
    ///
    /// # Errors
    ///
    /// [`SqliteError::Io`] if `target` or `…-bodies` beside it exists, or if a file cannot be read
    /// or written. Then nothing of the copy is left.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the copy is completed in the background.
    pub async fn backup_to(&self, target: impl AsRef<Path>) -> Result<(), SqliteError> {
        let source = self.process.shared.path.clone();
        let target = target.as_ref().to_owned();
        let copying = spawn_blocking(move || back_up(&source, &target));
        copying.await.unwrap_or(Err(SqliteError::Closed))
    }
}

/// A future that is ready, or a box.
enum ReadyOr<T> {
    Ready(Option<T>),
    Later(Pin<Box<dyn Future<Output = T> + Send>>),
}

impl<T: Unpin> Future for ReadyOr<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut *self {
            Self::Ready(value) => value.take().map_or(Poll::Pending, Poll::Ready),
            Self::Later(future) => future.as_mut().poll(cx),
        }
    }
}

impl Store for SqliteStore {
    type Error = SqliteError;
    type Record = SqliteRecord;
    type Changes = SqliteChanges;
    type Claim = SqliteClaim;
    type Writer = SqliteWriter;

    fn budget(&self) -> &Budget {
        &self.process.budget
    }

    fn is_durable(&self) -> bool {
        true
    }

    /// No limit: a large response is in memory in parts only.
    fn max_response(&self) -> usize {
        usize::MAX
    }

    fn reserve(&self, bytes: usize, purpose: Purpose) -> impl StoreFuture<Option<Charge>> {
        ready(self.budget().reserve(bytes, purpose))
    }

    fn record(
        &self,
        head: &request::Parts,
        body: &Bytes,
        trailers: Option<&HeaderMap>,
    ) -> SqliteRecord {
        SqliteRecord::new(&self.process.shared.options, head, body, trailers)
    }

    fn accept(
        &self,
        job: &NewJob,
        record: SqliteRecord,
    ) -> impl StoreFuture<Result<Acceptance<SqliteClaim>, SqliteError>> {
        Box::pin(accept::accept(self.process.clone(), job.clone(), record))
    }

    fn poll_begin(&self, claim: &SqliteClaim, cx: &mut Context<'_>) -> Poll<()> {
        claim.poll_begin(cx)
    }

    fn get(&self, id: JobId) -> impl StoreFuture<Result<Lookup, SqliteError>> {
        if let Some(job) = self.process.shared.cache.get(id, unix_now()) {
            return ReadyOr::Ready(Some(Ok(Lookup::Found(Box::new(job)))));
        }
        let process = self.process.clone();
        ReadyOr::Later(Box::pin(async move {
            // The first poll may happen outside a runtime, with a waker that does nothing. Do not
            // start the query there.
            yield_now().await;
            process.readers.read(move |file| look_up(file, id)).await
        }))
    }

    fn changes(&self, id: JobId) -> SqliteChanges {
        SqliteChanges::new(&self.process, id)
    }

    async fn list(&self, filter: &Filter) -> Result<Page, SqliteError> {
        let filter = filter.clone();
        let readers = &self.process.readers;
        readers.read(move |file| lookup::list(file, &filter)).await
    }

    /// Queues the report. The writer's thread merges the reports of 20 ms, so frequent reports do
    /// not slow the call.
    fn report(
        &self,
        claim: &SqliteClaim,
        report: Report,
    ) -> impl StoreFuture<Result<(), SqliteError>> {
        claim.report(report);
        ready(Ok(()))
    }

    fn respond(
        &self,
        claim: &SqliteClaim,
        head: response::Parts,
        length: Option<u64>,
    ) -> SqliteWriter {
        SqliteWriter::new(&self.process, claim, head, length)
    }

    fn finish(
        &self,
        claim: &SqliteClaim,
        end: End<SqliteWriter>,
    ) -> impl StoreFuture<Result<Finished, SqliteError>> {
        let finishing = finish::finish(self.process.clone(), claim, end);
        Box::pin(finishing)
    }

    async fn read(&self, id: JobId, from: u64) -> Result<Option<Reading>, SqliteError> {
        read::read(&self.process, id, from).await
    }

    fn outbox(&self) -> Option<SharedOutbox<SqliteError>> {
        Some(Arc::new(SqliteOutbox::new(self.process.clone())))
    }

    fn poll_canceled(&self, claim: &SqliteClaim, cx: &mut Context<'_>) -> Poll<()> {
        claim.poll_lost(cx)
    }

    async fn cancel(
        &self,
        id: JobId,
        revisions: &Revisions,
    ) -> Result<Option<Lookup>, SqliteError> {
        let revisions = revisions.clone();
        let canceling = self
            .process
            .commit(move |step| step.cancel(id, &revisions), identity);
        canceling.await
    }

    async fn forget(
        &self,
        id: JobId,
        revisions: &Revisions,
    ) -> Result<Option<Lookup>, SqliteError> {
        let revisions = revisions.clone();
        let forgetting = self
            .process
            .commit(move |step| step.forget(id, &revisions), identity);
        forgetting.await
    }
}

impl Queue for SqliteStore {
    type Ticket = SqliteTicket;

    async fn next(&self, max: usize) -> Result<Vec<SqliteTicket>, SqliteError> {
        dequeue::next(&self.process, max).await
    }

    async fn claim(&self, ticket: SqliteTicket) -> Result<Option<Work<SqliteClaim>>, SqliteError> {
        dequeue::claim(&self.process, ticket).await
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.process.shared.path)
            .field("options", &self.process.shared.options)
            .field("budget", &self.process.budget)
            .finish_non_exhaustive()
    }
}
