//! A request that may become a job, and what its head says.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Method, Request, Response, header, request::Parts};
use tokio::time::Instant;
use tower_service::Service;

use super::options::LayerOptions;
use crate::{
    config::{Links, Schedule},
    estimate::{Elapsed, Kind},
    job::{CallbackTarget, JobId, Key, Owner, Snapshot, title},
    limit::{BufferedBody, Permit, PermitError, fields_price, request_price},
    monitor,
    protocol::{Format, Prefer},
    registry::Registry,
    run::{Call, RequestBody},
    store::{NewJob, NewKey, ResultBody, Store},
};

/// A request that may become a job, and what its head says.
pub(super) struct Candidate<St> {
    pub(super) registry: Arc<Registry<St>>,
    pub(super) options: Arc<LayerOptions>,
    /// `None` if there was no room, or once the job or the inline call has taken it.
    pub(super) permit: Option<Permit>,
    /// Why there was no room. The request can only join an existing job.
    pub(super) denied: Option<PermitError>,
    pub(super) schedule: Schedule,
    /// Set if the request must become a job or be refused. Otherwise its call may stay inline.
    pub(super) must_become_job: bool,
    pub(super) prefer: Prefer,
    pub(super) format: Format,
    pub(super) scope: Option<Box<Scope>>,
    pub(super) method: Method,
}

/// The parts of a request that few requests have.
pub(super) struct Scope {
    pub(super) owner: Option<Owner>,
    pub(super) key: Option<Key>,
    /// The receivers that are notified of the job.
    pub(super) callbacks: Vec<CallbackTarget>,
}

impl Scope {
    /// Returns `None` if there is nothing to keep.
    pub(super) fn new(
        owner: Option<Owner>,
        key: Option<Key>,
        callbacks: Vec<CallbackTarget>,
    ) -> Option<Box<Self>> {
        let has_any = owner.is_some() || key.is_some() || !callbacks.is_empty();
        has_any.then(|| {
            Box::new(Self {
                owner,
                key,
                callbacks,
            })
        })
    }
}

/// A candidate whose body has been read.
pub(super) struct ReadRequest<St: Store> {
    /// The time at which the body had been read.
    pub(super) at: Instant,
    /// The request, as the store keeps it.
    pub(super) record: St::Record,
    /// Boxed, because few layers need any of it.
    pub(super) notes: Option<Box<RequestNotes>>,
    /// The kind, if the layer names it.
    kind: Option<Kind>,
    /// The key, with the fingerprint of the request. Boxed, because few requests have one.
    key: Option<Box<NewKey>>,
    /// The price of the body and its trailers.
    body_bytes: usize,
}

/// The parts of a request that a layer may need after its call has started.
pub(super) struct RequestNotes {
    /// The path, if links depend on it.
    pub(super) path: Option<Box<str>>,
    /// The head, if the job's span needs it.
    pub(super) head: Option<Parts>,
    /// The title, if the layer gives one.
    title: Option<Arc<str>>,
}

impl RequestNotes {
    /// Returns `None` if the layer needs nothing.
    fn new<St: Store>(candidate: &Candidate<St>, head: &Parts) -> Option<Box<Self>> {
        let (settings, options) = (&candidate.registry.settings, &candidate.options);
        let is_relative = settings.links == Links::Relative;
        // A request that becomes a job before its call starts still has its head.
        let needs_head = options.spans.needs_head() && !candidate.starts_as_job();
        if !is_relative && !needs_head && options.title.is_none() {
            return None;
        }
        let name = options.title.as_ref().and_then(|title| title(head));
        Some(Box::new(Self {
            path: is_relative.then(|| head.uri.path().into()),
            head: needs_head.then(|| head.clone()),
            title: name.and_then(|name| title(&name)),
        }))
    }
}

impl<St: Store> Candidate<St> {
    /// Records a request whose body has been read.
    pub(super) fn read(&self, head: &Parts, body: &BufferedBody) -> ReadRequest<St> {
        let (registry, options) = (&self.registry, &self.options);
        let record = registry
            .store
            .record(head, &body.bytes, body.trailers.as_deref());
        let idempotency = &options.idempotency;
        let key = self.key().map(|key| {
            Box::new(NewKey {
                key,
                fingerprint: idempotency.fingerprint_of(head, &body.bytes),
                keep_for: idempotency.keep_for,
                outcomes: idempotency.outcomes,
            })
        });
        let body_bytes = body.bytes.len() + body.trailers.as_deref().map_or(0, fields_price);
        let kind = options.kind.as_ref().and_then(|kind| kind(head));
        let kind = kind.map(|kind| registry.estimates.kind(&kind));
        ReadRequest {
            at: Instant::now(),
            record,
            notes: RequestNotes::new(self, head),
            kind,
            key,
            body_bytes,
        }
    }

    pub(super) fn key(&self) -> Option<Key> {
        self.scope.as_ref().and_then(|scope| scope.key)
    }

    /// Describes the job that the request becomes, unless it is refused.
    pub(super) fn new_job<S, B>(
        &self,
        read: &ReadRequest<St>,
        call: &Call<S, B>,
        now: Instant,
    ) -> Result<NewJob, PermitError>
    where
        S: Service<Request<RequestBody<B>>>,
    {
        // A drain may have begun while the body was read. It does not wait for new work.
        let is_draining = self.registry.permits.is_closed();
        let draining = is_draining.then_some(PermitError::Draining);
        let join_only = match self.denied.or(draining) {
            None => false,
            Some(_) if read.key.is_some() => true,
            Some(error) => return Err(error),
        };
        let shown = SystemTime::now();
        let age = now.saturating_duration_since(read.at);
        let created_at = shown.checked_sub(age).unwrap_or(shown);
        let (started, mut progress) = (call.started(), call.progress());
        let given = read.notes.as_ref().and_then(|notes| notes.title.clone());
        let title = progress.title.take().or(given);
        let estimates = &self.registry.estimates;
        let kind = match &read.kind {
            Some(kind) => kind.clone(),
            None => estimates.default_kind(&self.method, call.path()),
        };
        let elapsed = Elapsed::at(now, read.at, started, progress.fraction);
        let total = estimates.expected_total(&kind, elapsed);
        let is_awaited = self.response_limit(read.key.is_some()).is_some();
        let id = JobId::random();
        Ok(NewJob {
            id,
            created: read.at,
            created_at,
            started,
            progress,
            owner: self.scope.as_ref().and_then(|scope| scope.owner),
            key: read.key.as_deref().copied(),
            kind,
            title,
            callbacks: self.callbacks(id),
            estimated_finish: total.and_then(|total| created_at.checked_add(total)),
            join_only,
            run_here: started.is_some() || is_awaited,
            // A service that has been called has the head.
            request_bytes: read.body_bytes + call.head().map_or(0, request_price),
        })
    }

    /// Returns the receivers that are notified of the job with this id.
    fn callbacks(&self, id: JobId) -> Option<Arc<[CallbackTarget]>> {
        let targets = &self.scope.as_ref()?.callbacks;
        if targets.is_empty() {
            return None;
        }
        let monitor = self.registry.settings.callback_link(&id.encode());
        let with_link = targets.iter().cloned().map(|mut target| {
            target.monitor.clone_from(&monitor);
            target
        });
        Some(with_link.collect())
    }

    /// Returns the time limit for an inline response, if the call may run inline.
    pub(super) fn inline_limit(&self) -> Option<Duration> {
        match self.schedule {
            Schedule::InlineWithin(limit) => Some(limit),
            Schedule::AcceptNow | Schedule::PassThrough | Schedule::Streamed(_) => None,
        }
    }

    /// Returns the time limit for the head of a response, if the client of a job waits for one.
    /// `Some(None)` is no limit.
    pub(super) fn response_limit(&self, is_keyed: bool) -> Option<Option<Duration>> {
        match self.schedule {
            Schedule::Streamed(limit) => Some(limit),
            // A call without a key has had its time inline before it became a job.
            Schedule::InlineWithin(limit) if is_keyed => Some(Some(limit)),
            Schedule::InlineWithin(_) | Schedule::AcceptNow | Schedule::PassThrough => None,
        }
    }

    /// Returns `true` if the client waits for a response and gets a 202 at the latest.
    ///
    /// The call then goes on without the client. A request with a key is a job before its call
    /// starts.
    pub(super) fn is_owed(&self) -> bool {
        let is_promised = self.must_become_job || self.prefer.respond_async;
        is_promised && self.inline_limit().is_some() && self.key().is_none()
    }

    /// Returns `true` if a request that has been read must become a job or be refused.
    ///
    /// A call that has had its time inline stays inline if the job is refused.
    pub(super) fn must_become_job_once_read(&self) -> bool {
        let registry = &self.registry;
        // A drain may have begun while the body was read.
        let is_shed = registry.settings.sheds_when_full && registry.permits.is_closed();
        (self.must_become_job || is_shed) && self.starts_as_job()
    }

    /// Returns `true` if the request becomes a job before its call starts.
    fn starts_as_job(&self) -> bool {
        self.key().is_some() || self.inline_limit().is_none()
    }

    /// Takes the permit for a call that runs inline, if such calls count.
    pub(super) fn take_inline_permit(&mut self) -> Option<Permit> {
        let counts = self.registry.settings.sheds_when_full;
        self.permit.take_if(|_| counts)
    }

    /// Marks the response of a job that its submitter gets, and adds the address of the monitor.
    pub(super) fn mark_submitted(
        &self,
        path: Option<&str>,
        id: JobId,
        response: &mut Response<ResultBody>,
    ) {
        let monitor = monitor::link(&self.registry, id, path.unwrap_or_default());
        let _ = response.headers_mut().try_append(header::LINK, monitor);
        self.prefer.mark_inline(response);
    }

    /// Returns the 202 for a job, or a redirect to its page. `path` is that of the request.
    pub(super) fn accepted(&self, path: Option<&str>, job: &Snapshot) -> Response<ResultBody> {
        let applied = self.prefer.applied(true);
        let path = path.unwrap_or_default();
        match self.format {
            Format::Page => monitor::see_page(job, &self.registry, path, applied),
            Format::Json | Format::Events => monitor::accepted(job, &self.registry, path, applied),
        }
    }
}
