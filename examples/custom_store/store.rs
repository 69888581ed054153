//! A complete [`Store`] on a `Mutex<HashMap>`.
//!
//! Each method says what the layer needs of it, in the order of the trait. The store keeps a job as
//! a [`Snapshot`], which knows the rules of a job's states. A real store has a database in place of
//! the map, and boxes an `async` block where this one is ready at once.

use std::{
    collections::hash_map::{Entry, HashMap, OccupiedEntry},
    convert::Infallible,
    future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, Response, request, response};
use tokio::{sync::watch, time::Instant};
use tower_accepted::{
    ErrorCode, Event, Filter, JobId, Page, Progress, ResponseHead, Snapshot,
    store::{
        Acceptance, Budget, Charge, End, Fingerprint, Finished, Key, KeyOutcome, Lookup, NewJob,
        News, Outcome, Purpose, Reading, Report, ResultBody, Revisions, Store, StoreFuture,
        default_key_retention,
    },
};

use super::writer::{MapWriter, SharedBody, StoredResult};

/// The bytes that a job counts in the budget, besides its result.
const JOB_BYTES: usize = 1_000;

/// Keeps jobs in a map. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct MapStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Locked for a whole step, which makes the step atomic, and never across an await.
    tables: Mutex<Tables>,
    budget: Budget,
    /// The time from the end of a job until it expires.
    retain: Duration,
}

#[derive(Debug, Default)]
struct Tables {
    jobs: HashMap<JobId, StoredJob>,
    keys: HashMap<Key, KeyedJob>,
}

/// The job of a key. It outlives the job, so that a late repeat is not a new request.
#[derive(Debug)]
struct KeyedJob {
    id: JobId,
    fingerprint: Fingerprint,
    keep_for: Duration,
    /// Set once the job has ended.
    expires: Option<Instant>,
}

#[derive(Debug)]
struct StoredJob {
    created: Instant,
    key: Option<Key>,
    /// The current revision. Readers that wait for the next one are receivers.
    snapshot: watch::Sender<Snapshot>,
    result: Option<Arc<StoredResult>>,
    /// Wakes the task of the call, which must stop if a client ends the job.
    canceler: Option<Waker>,
    /// Released when the job is removed.
    charge: Charge,
}

impl MapStore {
    /// Creates a store that keeps ended jobs for `retain`, within `budget`.
    pub(crate) fn new(retain: Duration, budget: Budget) -> Self {
        let tables = Mutex::default();
        let shared = Shared {
            tables,
            budget,
            retain,
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl Shared {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        // No step panics between two changes that belong together.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a job for its call, a cancel, a delete or a dropped claim.
    ///
    /// Everything that an end changes must change here, in one step. The first end wins, because
    /// [`Snapshot::end`] refuses a second one.
    fn end(&self, tables: &mut Tables, id: JobId, end: JobEnd) -> Finished {
        let Some(job) = tables.jobs.get_mut(&id) else {
            return Finished::Late;
        };
        let mut snapshot = job.snapshot.borrow().clone();
        if let Some(started_at) = end.started.map(|at| job.system_time(&snapshot, at)) {
            snapshot.start(started_at);
        }
        if let Some(progress) = end.progress {
            snapshot.set_progress(progress);
        }
        let (event, head) = match &end.outcome {
            Ok(result) => {
                let (head, length) = (&result.head, result.body.bytes.len() as u64);
                let shown = ResponseHead::new(head.status, &head.headers, length);
                (Event::Responded(head.status), Some(shown))
            }
            Err(code) => (Event::NoResponse(*code), None),
        };
        let now = SystemTime::now();
        if !snapshot.end(event, head, now, now + self.retain) {
            return Finished::Late;
        }
        job.result = end.outcome.ok();
        job.charge.keep();
        // Wakes all readers that wait for this job.
        job.snapshot.send_replace(snapshot);
        if let Some(canceler) = job.canceler.take() {
            canceler.wake();
        }
        if let Some(mut entry) = tables.key_entry(id) {
            if end.key == KeyOutcome::Release {
                entry.remove();
            } else {
                entry.get_mut().expires = Instant::now().checked_add(entry.get().keep_for);
            }
        }
        Finished::First
    }

    /// Cancels a job that has one of these revisions. The tables are locked from the check to the
    /// end, so no other change comes in between. SQL has `UPDATE … WHERE id = ? AND revision = ?`.
    fn cancel(&self, tables: &mut Tables, id: JobId, revisions: &Revisions) -> Option<Lookup> {
        let job = tables.look_up(id).found();
        if job.is_some_and(|job| !revisions.contains(job.revision)) {
            return None;
        }
        self.end(tables, id, JobEnd::without_call(ErrorCode::Canceled));
        Some(tables.look_up(id))
    }
}

/// An end of a job, from its call or from elsewhere.
struct JobEnd {
    outcome: Result<Arc<StoredResult>, ErrorCode>,
    started: Option<Instant>,
    progress: Option<Progress>,
    key: KeyOutcome,
}

impl JobEnd {
    /// Creates an end that does not come from the job's call.
    fn without_call(code: ErrorCode) -> Self {
        Self {
            outcome: Err(code),
            started: None,
            progress: None,
            key: KeyOutcome::Keep,
        }
    }
}

impl Tables {
    /// Looks up a job. Clients do not see an expired job, even if the map still has it.
    fn look_up(&self, id: JobId) -> Lookup {
        let Some(job) = self.jobs.get(&id) else {
            return Lookup::Unknown;
        };
        let snapshot = job.snapshot();
        if is_expired(&snapshot) {
            Lookup::Gone(snapshot.owner)
        } else {
            Lookup::Found(Box::new(snapshot))
        }
    }

    /// Returns the entry of a job's key, unless the key belongs to another job already.
    fn key_entry(&mut self, id: JobId) -> Option<OccupiedEntry<'_, Key, KeyedJob>> {
        match self.keys.entry(self.jobs.get(&id)?.key?) {
            Entry::Occupied(entry) if entry.get().id == id => Some(entry),
            _ => None,
        }
    }

    /// Removes all expired jobs and keys. A store with many has an index of them by expiry.
    fn remove_expired(&mut self) {
        self.jobs
            .retain(|_, job| !is_expired(&job.snapshot.borrow()));
        let is_kept = |keyed: &KeyedJob| keyed.expires.is_none_or(|at| at > Instant::now());
        self.keys.retain(|_, keyed| is_kept(keyed));
    }
}

fn is_expired(job: &Snapshot) -> bool {
    job.expires_at.is_some_and(|at| at <= SystemTime::now())
}

impl StoredJob {
    /// Returns the current revision, with the job's age now.
    fn snapshot(&self) -> Snapshot {
        let mut job = self.snapshot.borrow().clone();
        job.age = self.created.elapsed();
        job
    }

    /// Converts a time of the monotonic clock to the system clock.
    fn system_time(&self, snapshot: &Snapshot, at: Instant) -> SystemTime {
        snapshot.created_at + at.saturating_duration_since(self.created)
    }
}

impl Store for MapStore {
    // A database has errors. The layer answers 503 to the request that met one.
    type Error = Infallible;

    // This store cannot run a request again, so it keeps nothing of it. A `Queue` keeps head and
    // body.
    type Record = ();

    type Changes = Pin<Box<dyn Stream<Item = Snapshot> + Send>>;
    type Claim = MapClaim;
    type Writer = MapWriter;

    /// Returns the budget, whose limit `JobsBuilder::max_bytes` sets.
    fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    /// Makes room before it refuses: expired jobs still hold their bytes. The layer polls the
    /// future in place first, so a store that answers at once costs no allocation.
    fn reserve(&self, bytes: usize, purpose: Purpose) -> impl StoreFuture<Option<Charge>> {
        self.shared.tables().remove_expired();
        future::ready(self.shared.budget.reserve(bytes, purpose))
    }

    fn record(&self, _: &request::Parts, _: &Bytes, _: Option<&HeaderMap>) {}

    /// Creates the job. The 202 leaves when this resolves, so `get` must find the job by then. Key,
    /// limits and job are one step: of two requests with one key, the second joins the first's job.
    fn accept(
        &self,
        new: &NewJob,
        (): (),
    ) -> impl StoreFuture<Result<Acceptance<MapClaim>, Infallible>> {
        let mut tables = self.shared.tables();
        tables.remove_expired();
        if let Some(new_key) = &new.key
            && let Some(keyed) = tables.keys.get(&new_key.key)
        {
            return future::ready(Ok(match tables.look_up(keyed.id).found() {
                _ if keyed.fingerprint != new_key.fingerprint => Acceptance::KeyReused,
                Some(job) => Acceptance::Joined(Box::new(job)),
                None => Acceptance::Gone,
            }));
        }
        let bytes = JOB_BYTES + new.request_bytes;
        let charge = self.shared.budget.reserve(bytes, Purpose::Accepted);
        let Some(mut charge) = charge.filter(|_| !new.join_only) else {
            return future::ready(Ok(Acceptance::Full));
        };
        let request = charge.split(new.request_bytes);
        if let Some(new_key) = &new.key {
            let keyed = KeyedJob {
                id: new.id,
                fingerprint: new_key.fingerprint,
                keep_for: new_key
                    .keep_for
                    .unwrap_or_else(|| default_key_retention(self.shared.retain)),
                expires: None,
            };
            tables.keys.insert(new_key.key, keyed);
        }
        let job = StoredJob {
            created: new.created,
            key: new.key.map(|new| new.key),
            snapshot: watch::Sender::new(new.snapshot()),
            result: None,
            canceler: None,
            charge,
        };
        tables.jobs.insert(new.id, job);
        future::ready(Ok(Acceptance::RunHere(MapClaim {
            shared: self.shared.clone(),
            id: new.id,
            _request: request,
        })))
    }

    fn get(&self, id: JobId) -> impl StoreFuture<Result<Lookup, Infallible>> {
        future::ready(Ok(self.shared.tables().look_up(id)))
    }

    /// Returns a stream that begins with the current revision and ends after the last one. A
    /// `watch` channel lets a slow reader skip revisions.
    fn changes(&self, id: JobId) -> Self::Changes {
        let tables = self.shared.tables();
        let Some(job) = tables.jobs.get(&id) else {
            return Box::pin(stream::empty());
        };
        let created = job.created;
        let mut changes = job.snapshot.subscribe();
        changes.mark_changed();
        Box::pin(stream::unfold(Some(changes), move |changes| async move {
            let mut changes = changes?;
            changes.changed().await.ok()?;
            let mut job = changes.borrow_and_update().clone();
            job.age = created.elapsed();
            let next = (!job.status.is_ended()).then_some(changes);
            Some((job, next))
        }))
    }

    /// Lists jobs. [`Filter::page`] sorts and cuts here. A database does both in its query, with
    /// the getters of [`Filter`] and with [`Cursor::new`](tower_accepted::Cursor::new).
    async fn list(&self, filter: &Filter) -> Result<Page, Infallible> {
        let tables = self.shared.tables();
        let jobs = tables.jobs.values().map(StoredJob::snapshot);
        Ok(filter.page(jobs.filter(|job| !is_expired(job))))
    }

    /// Stores a report. [`Snapshot::start`] and [`Snapshot::update`] refuse to change an ended job.
    fn report(&self, claim: &MapClaim, report: Report) -> impl StoreFuture<Result<(), Infallible>> {
        let mut tables = self.shared.tables();
        if let Some(job) = tables.jobs.get_mut(&claim.id) {
            let mut snapshot = job.snapshot.borrow().clone();
            let has_changed = match report.news {
                News::Started(at) => {
                    let started = snapshot.start(job.system_time(&snapshot, at));
                    if started {
                        snapshot.estimated_finish_at = report.estimated_finish;
                    }
                    started
                }
                News::Progress(progress) => snapshot.update(progress, report.estimated_finish),
                // Kinds of news that a later version adds.
                _ => false,
            };
            if has_changed {
                job.snapshot.send_replace(snapshot);
            }
        }
        future::ready(Ok(()))
    }

    /// Creates a writer. This store makes a response readable when its job ends.
    fn respond(&self, _: &MapClaim, head: response::Parts, _: Option<u64>) -> MapWriter {
        MapWriter::new(&self.shared.budget, head)
    }

    /// Ends the job for its call. That is late if a client has canceled the job meanwhile.
    fn finish(
        &self,
        claim: &MapClaim,
        end: End<MapWriter>,
    ) -> impl StoreFuture<Result<Finished, Infallible>> {
        let end = JobEnd {
            outcome: match end.outcome {
                Outcome::Response(writer) => Ok(Arc::new(writer.into_result())),
                Outcome::NoResponse(code) => Err(code),
            },
            started: end.started,
            progress: Some(end.progress),
            key: end.key,
        };
        let ended = self.shared.end(&mut self.shared.tables(), claim.id, end);
        future::ready(Ok(ended))
    }

    /// Waits for the end of the job, and then reads from byte `from` on.
    async fn read(&self, id: JobId, from: u64) -> Result<Option<Reading>, Infallible> {
        let changes = {
            let tables = self.shared.tables();
            tables.jobs.get(&id).map(|job| job.snapshot.subscribe())
        };
        let Some(mut changes) = changes else {
            return Ok(None);
        };
        // An error means that the job has been removed, which the look-up below finds too.
        let _ = changes.wait_for(|job| job.status.is_ended()).await;
        let tables = self.shared.tables();
        let job = tables.jobs.get(&id);
        let job = job.filter(|job| !is_expired(&job.snapshot.borrow()));
        let Some(result) = job.and_then(|job| job.result.clone()) else {
            return Ok(None);
        };
        let (length, head) = (result.body.bytes.len() as u64, result.head.clone());
        let trailers = result.body.trailers.as_deref().cloned();
        // Shares the result, and with it the charge, for as long as the client reads.
        let mut body = Bytes::from_owner(SharedBody(result));
        let rest = body.split_off(from.min(length) as usize);
        let response = Response::from_parts(head, ResultBody::new(rest, trailers));
        Ok(Some(Reading::new(1, length, response)))
    }

    /// Registers the waker of the call's task, which [`Shared::end`] wakes.
    fn poll_canceled(&self, claim: &MapClaim, cx: &mut Context<'_>) -> Poll<()> {
        match self.shared.tables().jobs.get_mut(&claim.id) {
            Some(job) if !job.snapshot.borrow().status.is_ended() => {
                job.canceler = Some(cx.waker().clone());
                Poll::Pending
            }
            // Ended, or deleted.
            _ => Poll::Ready(()),
        }
    }

    async fn cancel(&self, id: JobId, revisions: &Revisions) -> Result<Option<Lookup>, Infallible> {
        Ok(self.shared.cancel(&mut self.shared.tables(), id, revisions))
    }

    /// Returns the job as it was, so that the layer knows which job it has deleted.
    async fn forget(&self, id: JobId, revisions: &Revisions) -> Result<Option<Lookup>, Infallible> {
        let mut tables = self.shared.tables();
        let found = self.shared.cancel(&mut tables, id, revisions);
        if let Some(Lookup::Found(_)) = found {
            tables.key_entry(id).map(OccupiedEntry::remove);
            tables.jobs.remove(&id);
        }
        Ok(found)
    }
}

/// The right to end a job. The layer holds it as long as the call runs.
#[derive(Debug)]
pub(crate) struct MapClaim {
    shared: Arc<Shared>,
    id: JobId,
    /// The charge of the request, which stays in memory until its call has ended.
    _request: Charge,
}

impl Drop for MapClaim {
    /// Ends the job if its call never did, for example because its runtime shut down.
    fn drop(&mut self) {
        let shutdown = JobEnd::without_call(ErrorCode::Shutdown);
        let shared = &self.shared;
        shared.end(&mut shared.tables(), self.id, shutdown);
    }
}
