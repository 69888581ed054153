use std::{sync::Arc, time::Duration};

use http::{HeaderName, Uri};
use tower::Layer;

use super::{FollowAccepted, Observer, Update, options::Options, origin::Origin};

/// Follows a 202 (Accepted) to its end: see the [module's page](super).
#[derive(Debug, Clone, Default)]
#[must_use = "a layer does nothing until it is put around a service"]
pub struct FollowAcceptedLayer {
    options: Arc<Options>,
}

impl FollowAcceptedLayer {
    /// A layer with every setting at its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a job may take from the 202 to the head of its response; `None` for ever. Default:
    /// one hour.
    ///
    /// Passed: [`TimedOut`](super::Reason::TimedOut).
    pub fn timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        let timeout = timeout.into();
        self.with(|options| options.timeout = timeout)
    }

    /// How long each answer may take, on top of what the server was asked to wait: its head, and
    /// then its body where that is a status document. Default: 30 s.
    ///
    /// A later one counts as a failure, and the question is put again.
    pub fn answer_timeout(self, timeout: Duration) -> Self {
        self.with(|options| options.answer_timeout = timeout)
    }

    /// How often a job may be asked for. Default: 3,600.
    ///
    /// Not ended by then: [`TooManyPolls`](super::Reason::TooManyPolls).
    pub fn max_polls(self, polls: u32) -> Self {
        self.with(|options| options.max_polls = polls)
    }

    /// How many questions in a row may fail, in transport or with 429, 502, 503 or 504, and be put
    /// again. Default: 10.
    ///
    /// One more: [`Unreachable`](super::Reason::Unreachable) or
    /// [`Unavailable`](super::Reason::Unavailable).
    pub fn max_failures(self, failures: u32) -> Self {
        self.with(|options| options.max_failures = failures)
    }

    /// How many redirects one question may go through. Default: 10.
    ///
    /// One more: [`TooManyRedirects`](super::Reason::TooManyRedirects).
    pub fn max_redirects(self, redirects: u32) -> Self {
        self.with(|options| options.max_redirects = redirects)
    }

    /// The largest status document, in bytes. Default: 1 MiB.
    ///
    /// A larger one, where only a document will do:
    /// [`DocumentTooLarge`](super::Reason::DocumentTooLarge). Results are not limited: they are handed
    /// out as they come.
    pub fn max_document(self, bytes: usize) -> Self {
        self.with(|options| options.max_document = bytes)
    }

    /// The shortest pause between two questions, whatever the server says, and the longest where it
    /// says nothing: pauses then double from one to the other, with jitter. Default: 500 ms and 30 s.
    ///
    /// A `Retry-After` is obeyed however long it is.
    pub fn pauses(self, shortest: Duration, longest: Duration) -> Self {
        self.with(|options| {
            options.pace.shortest = shortest;
            options.pace.longest = longest;
        })
    }

    /// How long a server is asked to hold an answer until the job ends (`Prefer: wait`, RFC 7240
    /// §4.3), in whole seconds. Default: 30 s. Zero: not asked.
    ///
    /// Only a server that has shown that it reads `Prefer` is asked, by `Vary: Prefer` or
    /// `Preference-Applied` in the 202 or in any answer since; and after each failure for half as
    /// long, since a proxy in between may cut off what takes too long for it.
    pub fn wait(self, wait: Duration) -> Self {
        self.with(|options| options.wait = wait)
    }

    /// Whether a `Location` alone is always taken for a monitor. Default: no, its answer must look
    /// like one's.
    ///
    /// Of some services, those of Azure's resource manager for one, it is; and one of their jobs may
    /// end before it is first asked for, and the answer be the result, like any other resource.
    pub fn location_is_monitor(self, always: bool) -> Self {
        self.with(|options| options.location_is_monitor = always)
    }

    /// Allows another origin, `scheme://host` or `scheme://host:port`, for the monitor, the result
    /// and redirects. Default: only the origin of the original request.
    ///
    /// Where that is `https`, no `http` origin is ever gone to, allowed or not.
    ///
    /// # Panics
    ///
    /// If `origin` has another form, or its scheme is neither `http` nor `https`.
    pub fn allow_origin(self, origin: &str) -> Self {
        let allowed = origin
            .parse::<Uri>()
            .ok()
            .filter(|uri| uri.path_and_query().is_none_or(|path| path == "/"))
            .filter(|_| !origin.contains('@'))
            .and_then(|uri| Origin::of(&uri));
        let Some(allowed) = allowed else {
            panic!("not an origin: {origin:?}");
        };
        self.with(|options| options.origins.push(allowed))
    }

    /// Lets a header of the original request go along to other origins that are allowed. Default:
    /// none does.
    ///
    /// `Host` never does.
    pub fn share_header(self, name: HeaderName) -> Self {
        self.with(|options| options.shared_headers.push(name))
    }

    /// Has each look at each job told to `hear`: see [`Observer`], also for one request's own.
    pub fn on_update(self, hear: impl Fn(Update) + Send + Sync + 'static) -> Self {
        let observer = Observer::new(hear);
        self.with(|options| options.observer = Some(observer))
    }

    /// Has the job canceled, with `DELETE` at its monitor, where the future is dropped before the
    /// job has ended. Default: the job goes on.
    ///
    /// The dropping never waits. The request is sent from a task of its own on the runtime that the
    /// future is dropped on, and given up after `timeout`; without a runtime it is not sent. Nor is it
    /// to a `Location` that has not proved to be a monitor: what would be deleted there might be
    /// another thing.
    pub fn cancel_on_drop(self, timeout: Duration) -> Self {
        self.with(|options| options.cancel = Some(timeout))
    }

    fn with(mut self, set: impl FnOnce(&mut Options)) -> Self {
        set(Arc::make_mut(&mut self.options));
        self
    }
}

impl<S> Layer<S> for FollowAcceptedLayer {
    type Service = FollowAccepted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        FollowAccepted::with_options(inner, self.options.clone())
    }
}
