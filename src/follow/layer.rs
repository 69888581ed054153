//! The following layer and its settings.

use std::{sync::Arc, time::Duration};

use http::HeaderName;
use tower_layer::Layer;

use super::{
    FollowAccepted, Observer, Update, error::InvalidOrigin, options::FollowOptions, origin::Origin,
};

/// Follows each 202 (Accepted) to the response of its job.
///
/// The [module documentation](super) explains the behavior.
///
/// ```
/// use std::time::Duration;
///
/// use tower_accepted::follow::FollowAcceptedLayer;
///
/// let layer = FollowAcceptedLayer::new()
///     .timeout(Duration::from_secs(600))
///     .on_update(|update| {
///         if let Some(percent) = update.percent {
///             println!("{percent} % {}", update.message.unwrap_or_default());
///         }
///     })
///     .cancel_on_drop(Duration::from_secs(5));
/// # let _ = layer;
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a layer does nothing until it is put around a service"]
pub struct FollowAcceptedLayer {
    options: Arc<FollowOptions>,
}

impl FollowAcceptedLayer {
    /// Creates a layer with the default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time limit from the 202 to the head of the job's response. Default: one hour.
    ///
    /// `None` means no limit. If it passes, the call fails with
    /// [`TimedOut`](super::Reason::TimedOut). With [`streaming`](Self::streaming), it also limits
    /// the time from a break to the next part of the body.
    pub fn timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        let timeout = timeout.into();
        self.with(|options| options.timeout = timeout)
    }

    /// Sets the time limit of each follow-up request. Default: 30 s.
    ///
    /// It applies to the head of the response and again to a status document, and does not include
    /// the [wait](Self::wait) that the layer asks for. A late response counts as a
    /// [failure](Self::max_failures).
    pub fn answer_timeout(self, timeout: Duration) -> Self {
        self.with(|options| options.answer_timeout = timeout)
    }

    /// Sets the maximum number of polls per job. Default: 3,600.
    ///
    /// If the job has not ended after the last one, the call fails with
    /// [`TooManyPolls`](super::Reason::TooManyPolls).
    pub fn max_polls(self, polls: u32) -> Self {
        self.with(|options| options.max_polls = polls)
    }

    /// Sets the maximum number of consecutive failed requests. Default: 10.
    ///
    /// A request fails if it has no response in time, or a 408, 429, 502, 503 or 504. The layer
    /// retries it after a pause. With one more failure, the call fails with
    /// [`Unreachable`](super::Reason::Unreachable) or [`Unavailable`](super::Reason::Unavailable).
    ///
    /// With [`streaming`](Self::streaming), an attempt to resume a body that gets no further byte
    /// is a failure too. With one more, the body fails with
    /// [`BrokenOff`](super::Reason::BrokenOff). A job that is quiet for long, behind a proxy that
    /// closes quiet connections, needs a higher limit.
    pub fn max_failures(self, failures: u32) -> Self {
        self.with(|options| options.max_failures = failures)
    }

    /// Sets the maximum number of redirects of one request. Default: 10.
    ///
    /// With one more, the call fails with
    /// [`TooManyRedirects`](super::Reason::TooManyRedirects).
    pub fn max_redirects(self, redirects: u32) -> Self {
        self.with(|options| options.max_redirects = redirects)
    }

    /// Sets the maximum size of a status document, in bytes. Default: 1 MiB.
    ///
    /// If a document is larger and nothing else can be a response of this monitor, the call fails
    /// with [`DocumentTooLarge`](super::Reason::DocumentTooLarge). Results have no limit, since the
    /// layer streams them.
    pub fn max_document(self, bytes: usize) -> Self {
        self.with(|options| options.max_document_bytes = bytes)
    }

    /// Sets the minimum and maximum pause between polls. Default: 500 ms and 30 s.
    ///
    /// Without `Retry-After`, pauses double from `min` to `max`, with jitter. With `Retry-After`,
    /// the layer waits that long, even if it exceeds `max`, but never less than `min`.
    pub fn pauses(self, min: Duration, max: Duration) -> Self {
        self.with(|options| {
            options.backoff.min = min;
            options.backoff.max = max;
        })
    }

    /// Sets how long the layer asks a server to hold its response, in whole seconds. Default: 30 s.
    ///
    /// The layer sends `Prefer: wait` (RFC 7240 §4.3) to a server that has shown that it reads
    /// `Prefer`: by `Vary: Prefer` or `Preference-Applied` in the 202 or a later response. Each
    /// failure halves the wait, since a proxy may close requests that take too long. Zero disables
    /// it.
    pub fn wait(self, wait: Duration) -> Self {
        self.with(|options| options.max_wait = wait)
    }

    /// Sets whether `Location` alone always names a monitor. Default: `false`.
    ///
    /// By default, the resource at `Location` must
    /// [look like a monitor](super#which-responses-are-followed). It does not if the job ends
    /// before the first poll and the response is the result. Enable this for services whose
    /// `Location` is always a monitor, such as Azure's resource manager.
    pub fn location_is_monitor(self, always: bool) -> Self {
        self.with(|options| options.location_is_monitor = always)
    }

    /// Sets whether responses are [streamed](super#streaming). Default: `false`.
    ///
    /// By default, a job's response is returned when the job has ended. With this setting, it is
    /// returned as soon as it has a head. Its body follows the job, and goes on at the same byte
    /// after a break. It also applies to responses that a server streams instead of a 202.
    pub fn streaming(self, streams: bool) -> Self {
        self.with(|options| options.is_streaming = streams)
    }

    /// Allows another origin for the monitor, the result and redirects.
    ///
    /// The form is `scheme://host` or `scheme://host:port`. By default, only the original request's
    /// origin is allowed. An `http` origin is refused after `https`, even if it is allowed.
    ///
    /// # Panics
    ///
    /// Panics if `origin` has another form, or a scheme other than `http` and `https`. See
    /// [`try_allow_origin`](Self::try_allow_origin).
    #[track_caller]
    pub fn allow_origin(self, origin: &str) -> Self {
        self.try_allow_origin(origin)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Allows another origin, like [`allow_origin`](Self::allow_origin).
    ///
    /// # Errors
    ///
    /// Returns an error if `origin` has another form than `scheme://host[:port]`, a scheme other
    /// than `http` and `https`, or a port that does not exist.
    pub fn try_allow_origin(self, origin: &str) -> Result<Self, InvalidOrigin> {
        let allowed = Origin::parse(origin).ok_or_else(|| InvalidOrigin(origin.to_owned()))?;
        Ok(self.with(|options| options.origins.push(allowed)))
    }

    /// Sends this header of the original request to [allowed](Self::allow_origin) origins too.
    ///
    /// By default, other origins get none of its headers. `Host` is never sent to them.
    ///
    /// ```
    /// use http::header::AUTHORIZATION;
    /// use tower_accepted::follow::FollowAcceptedLayer;
    ///
    /// let layer = FollowAcceptedLayer::new()
    ///     .allow_origin("https://status.example")
    ///     .share_header(AUTHORIZATION);
    /// # let _ = layer;
    /// ```
    pub fn share_header(self, name: HeaderName) -> Self {
        self.with(|options| options.shared_headers.push(name))
    }

    /// Sets a function that receives the status of each job after each poll or event. Default:
    /// none.
    ///
    /// See [`Observer`], which can also be set for a single request.
    pub fn on_update(self, observer: impl Fn(Update) + Send + Sync + 'static) -> Self {
        let observer = Observer::new(observer);
        self.with(|options| options.observer = Some(observer))
    }

    /// Cancels the job, with `DELETE` at its monitor, if the response future is dropped before the
    /// job has ended. By default, the job continues.
    ///
    /// With [`streaming`](Self::streaming), this also applies to a body that is dropped before its
    /// end, unless the server streamed it instead of a 202.
    ///
    /// The drop does not block. A task on the current runtime sends the request and gives up after
    /// `timeout`. Outside a runtime, the layer sends nothing. It also sends nothing while only
    /// `Location` names the monitor and no response has proved that it is one, since the `DELETE`
    /// could remove another resource.
    pub fn cancel_on_drop(self, timeout: Duration) -> Self {
        self.with(|options| options.cancel_timeout = Some(timeout))
    }

    fn with(mut self, set: impl FnOnce(&mut FollowOptions)) -> Self {
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
