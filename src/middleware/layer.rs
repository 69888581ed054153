//! The layer that puts 202 (Accepted) in front of a service.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{Response, request::Parts};
use tower_layer::Layer;
use tracing::Span;

use super::{options::LayerOptions, service::Accepted};
use crate::{
    config::{AnyMethod, Backpressure, Idempotency, Policy, When, WhenFn},
    job::JobId,
    registry::Registry,
    run::JobSpans,
    store::MemoryStore,
};

/// Puts 202 (Accepted) in front of a service: see the [crate's page](crate).
///
/// [`Jobs::layer`](crate::Jobs::layer) creates it:
///
/// ```
/// use std::time::Duration;
///
/// use axum::{Router, routing::post};
/// use tower_accepted::{Jobs, When};
///
/// # async fn render_report() {}
/// let jobs = Jobs::new();
/// let app: Router = Router::new()
///     .route("/reports", post(render_report))
///     .layer(jobs.layer().when(When::After(Duration::from_millis(300))));
/// ```
#[derive(Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct AcceptedLayer<P = When, St = MemoryStore> {
    registry: Arc<Registry<St>>,
    policy: P,
    options: Arc<LayerOptions>,
}

impl<St> AcceptedLayer<When, St> {
    pub(crate) fn with_registry(registry: Arc<Registry<St>>) -> Self {
        Self {
            registry,
            policy: When::default(),
            options: Arc::default(),
        }
    }
}

impl<P, St> AcceptedLayer<P, St> {
    /// Sets when requests are answered with 202. Default: [`When::Always`].
    ///
    /// `GET`, `HEAD`, `OPTIONS` and `TRACE` pass through, unless [`any_method`](Self::any_method)
    /// follows. The table of [`When`] has the details.
    pub fn when(self, when: When) -> AcceptedLayer<When, St> {
        self.policy(when)
    }

    /// Chooses for each request when it is answered with 202, by a closure over its head.
    ///
    /// `GET`, `HEAD`, `OPTIONS` and `TRACE` pass through, unless [`any_method`](Self::any_method)
    /// follows.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use tower_accepted::{Jobs, When};
    ///
    /// let layer = Jobs::new().layer().when_fn(|head| match head.uri.path() {
    ///     "/reports" => When::Always,
    ///     "/chat" => When::Streamed,
    ///     _ => When::After(Duration::from_millis(300)),
    /// });
    /// # let _ = layer;
    /// ```
    pub fn when_fn<F>(self, when: F) -> AcceptedLayer<WhenFn<F>, St>
    where
        F: Fn(&Parts) -> When,
    {
        self.policy(WhenFn::new(when))
    }

    /// Applies the choice of [`when`](Self::when) or [`when_fn`](Self::when_fn) to safe methods
    /// too: `GET`, `HEAD`, `OPTIONS` and `TRACE` (RFC 9110 §9.2.1).
    ///
    /// `OPTIONS` includes the preflights of CORS, and a `GET` may come from a cache or a crawler.
    /// So name the requests that may become jobs:
    ///
    /// ```
    /// use http::Method;
    /// use tower_accepted::{Jobs, When};
    ///
    /// let layer = Jobs::new().layer();
    /// let layer = layer.when_fn(|head| match (&head.method, head.uri.path()) {
    ///     (&Method::GET, "/slow-query") => When::Always,
    ///     (method, _) if method.is_safe() => When::Never,
    ///     _ => When::Always,
    /// });
    /// let layer = layer.any_method();
    /// # let _ = layer;
    /// ```
    ///
    /// A later [`when`](Self::when), [`when_fn`](Self::when_fn) or [`policy`](Self::policy) replaces
    /// it.
    pub fn any_method(self) -> AcceptedLayer<AnyMethod<P>, St>
    where
        P: Policy,
    {
        AcceptedLayer {
            registry: self.registry,
            policy: AnyMethod::new(self.policy),
            options: self.options,
        }
    }

    /// Sets a [`Policy`] of the application's own, which decides about every method unless it says
    /// otherwise.
    pub fn policy<Q: Policy>(self, policy: Q) -> AcceptedLayer<Q, St> {
        AcceptedLayer {
            registry: self.registry,
            policy,
            options: self.options,
        }
    }

    /// Sets how the layer treats requests with an `Idempotency-Key`, and whether it requires a key.
    /// Default: [`Idempotency::new`].
    ///
    /// ```
    /// use tower_accepted::{Idempotency, Jobs};
    ///
    /// let layer = Jobs::new()
    ///     .layer()
    ///     .idempotency(Idempotency::new().required(true));
    /// # let _ = layer;
    /// ```
    pub fn idempotency(mut self, idempotency: Idempotency) -> Self {
        Arc::make_mut(&mut self.options).idempotency = idempotency;
        self
    }

    /// Refuses requests that would become jobs, before their body is read. The closure's error is
    /// the response. Default: every request is admitted.
    ///
    /// The closure is not called for requests that pass through.
    ///
    /// ```
    /// use http::{Response, StatusCode};
    /// use tower_accepted::Jobs;
    ///
    /// let layer = Jobs::new().layer().admit(|head| {
    ///     if head.headers.contains_key("x-tenant") {
    ///         return Ok(());
    ///     }
    ///     let mut refusal = Response::new("name your tenant\n".into());
    ///     *refusal.status_mut() = StatusCode::FORBIDDEN;
    ///     Err(refusal)
    /// });
    /// # let _ = layer;
    /// ```
    pub fn admit<F>(mut self, admit: F) -> Self
    where
        F: Fn(&Parts) -> Result<(), Response<Bytes>> + Send + Sync + 'static,
    {
        Arc::make_mut(&mut self.options).admit = Some(Arc::new(admit));
        self
    }

    /// Sets how far a call may produce ahead of the readers of its output. Default:
    /// [`Backpressure::Off`].
    ///
    /// ```
    /// use tower_accepted::{Backpressure, Jobs, When};
    ///
    /// let layer = Jobs::new()
    ///     .layer()
    ///     .when(When::Streamed)
    ///     .backpressure(Backpressure::Ahead(1 << 20)); // 1 MiB
    /// # let _ = layer;
    /// ```
    pub fn backpressure(mut self, backpressure: Backpressure) -> Self {
        Arc::make_mut(&mut self.options).backpressure = backpressure;
        self
    }

    /// Names the kind of a request. Requests of one kind are expected to take about the same time.
    ///
    /// Default, and if the closure returns `None`: the method, and the path without the segments
    /// that contain digits or do not look like words.
    ///
    /// ```
    /// use axum::extract::MatchedPath;
    /// use tower_accepted::Jobs;
    ///
    /// let layer = Jobs::new().layer().kind(|head| {
    ///     let route = head.extensions.get::<MatchedPath>()?.as_str();
    ///     Some(format!("{} {route}", head.method).into())
    /// });
    /// # let _ = layer;
    /// ```
    ///
    /// The number of kinds that are remembered is limited. Use some dozens, and put nothing into
    /// their names that a client chooses. Only operators see the names.
    pub fn kind<F>(mut self, kind: F) -> Self
    where
        F: for<'a> Fn(&'a Parts) -> Option<Cow<'a, str>> + Send + Sync + 'static,
    {
        Arc::make_mut(&mut self.options).kind = Some(Arc::new(kind));
        self
    }

    /// Gives jobs titles, for people. Default, and if the closure returns `None`: a job has no
    /// title.
    ///
    /// The title is in the status document, in lists and on the page. A title that is longer than
    /// 200 characters is cut. The call can replace it: see
    /// [`JobHandle::title`](crate::JobHandle::title).
    ///
    /// The closure is called for each request that may become a job. The layer escapes the text. It
    /// is visible to every client that can see the job.
    ///
    /// ```
    /// use tower_accepted::Jobs;
    ///
    /// let layer = Jobs::new().layer().title(|head| {
    ///     let year: u16 = head.uri.path().strip_prefix("/reports/")?.parse().ok()?;
    ///     Some(format!("Annual report {year}").into())
    /// });
    /// # let _ = layer;
    /// ```
    pub fn title<F>(mut self, title: F) -> Self
    where
        F: for<'a> Fn(&'a Parts) -> Option<Cow<'a, str>> + Send + Sync + 'static,
    {
        Arc::make_mut(&mut self.options).title = Some(Arc::new(title));
        self
    }

    /// Makes the span of a job, from the head of its request, its id and the name of its
    /// [`Kind`](crate::Kind). The job's call is inside this span from the moment that the request
    /// is a job.
    ///
    /// Default: a span `job` at level info, with the fields `id`, `method`, `kind` and `end`. It
    /// has no parent, since it outlives the request, and follows from the request's span. At the
    /// end of the job, the layer records `end`: `succeeded`, or an
    /// [`ErrorCode`](crate::ErrorCode).
    ///
    /// The request's span is the current one while the closure is called, so a span without
    /// `parent: None` becomes its child. The head of a request that runs inline first is copied for
    /// the closure.
    ///
    /// A [`Worker`](crate::Worker) has a [closure of its own](crate::Worker::make_span).
    ///
    /// ```
    /// use tower_accepted::Jobs;
    /// use tracing::{field::Empty, info_span};
    ///
    /// let layer = Jobs::new().layer().make_span(|head, id, kind| {
    ///     let tenant = head.headers.get("x-tenant").and_then(|tenant| tenant.to_str().ok());
    ///     info_span!(parent: None, "report", %id, kind, tenant, end = Empty)
    /// });
    /// # let _ = layer;
    /// ```
    pub fn make_span<F>(mut self, make_span: F) -> Self
    where
        F: Fn(&Parts, JobId, &str) -> Span + Send + Sync + 'static,
    {
        Arc::make_mut(&mut self.options).spans = JobSpans::new(make_span);
        self
    }
}

impl<P: Clone, St> Clone for AcceptedLayer<P, St> {
    fn clone(&self) -> Self {
        Self {
            registry: self.registry.clone(),
            policy: self.policy.clone(),
            options: self.options.clone(),
        }
    }
}

impl<S, P: Clone, St> Layer<S> for AcceptedLayer<P, St> {
    type Service = Accepted<S, P, St>;

    fn layer(&self, inner: S) -> Self::Service {
        Accepted::new(
            inner,
            self.policy.clone(),
            self.registry.clone(),
            self.options.clone(),
        )
    }
}
