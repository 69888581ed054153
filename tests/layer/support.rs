//! Sends requests to a layered service in process, and reads the responses.

use std::{
    error, fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::sleep;
use tower::{BoxError, Service, ServiceExt, service_fn};
use tower_accepted::{JobId, RequestBody};

/// The body of all requests, and of most responses.
pub(crate) use axum::body::Body;

/// A response whose body has been read.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) async fn read<B>(response: Response<B>) -> Self
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (head, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .map_err(Into::into)
            .expect("a whole body");
        let trailers = body.trailers().cloned();
        let (status, headers, body) = (head.status, head.headers, body.to_bytes());
        Self {
            status,
            headers,
            body,
            trailers,
        }
    }

    /// Returns the value of a field that occurs at most once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().expect("text"));
        assert!(values.next().is_none(), "more than one {name}");
        value
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("UTF-8")
    }

    /// Returns the path of the monitor, from a 202.
    pub(crate) fn location(&self) -> &str {
        assert_eq!(self.status, StatusCode::ACCEPTED, "{self:?}");
        self.header("location").expect("a 202 has a Location")
    }

    pub(crate) fn id(&self) -> JobId {
        let (_, id) = self.location().rsplit_once('/').expect("a path");
        id.parse().expect("an id")
    }
}

pub(crate) fn get(path: &str) -> Request<Body> {
    request("GET", path)
}

pub(crate) fn post(path: &str) -> Request<Body> {
    request("POST", path)
}

pub(crate) fn request(method: &str, path: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    request.body(Body::default()).expect("a request")
}

/// Adds fields to a request.
pub(crate) fn with(mut request: Request<Body>, fields: &[(&'static str, &str)]) -> Request<Body> {
    for &(name, value) in fields {
        let value = value.parse().expect("a field value");
        request.headers_mut().append(name, value);
    }
    request
}

pub(crate) async fn send<S, B, R>(service: &S, request: Request<B>) -> Answer
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let response = service.clone().oneshot(request).await;
    Answer::read(response.map_err(Into::into).expect("a response")).await
}

/// Polls the monitor until the job has ended, at the intervals of `Retry-After`, and returns the
/// last document. If the clock is paused, this takes no time.
pub(crate) async fn ended<S, R>(service: &S, accepted: &Answer) -> Value
where
    S: Service<Request<Body>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    loop {
        let answer = send(service, get(accepted.location())).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let document = answer.json();
        match document["status"].as_str().expect("a status") {
            "queued" | "running" => sleep_retry_after(&answer).await,
            _ => return document,
        }
    }
}

async fn sleep_retry_after(answer: &Answer) {
    let seconds = answer
        .header("retry-after")
        .expect("Retry-After while unfinished");
    let seconds = seconds.parse().expect("whole seconds");
    assert!(seconds >= 1, "Retry-After is below a second");
    sleep(Duration::from_secs(seconds)).await;
}

/// Returns the response to a GET for the result of a job.
pub(crate) async fn result<S, R>(service: &S, accepted: &Answer) -> Answer
where
    S: Service<Request<Body>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    send(service, get(&format!("{}/result", accepted.location()))).await
}

/// A service behind the layer whose responses have a body of type `R`.
pub(crate) trait Inner<R = Body>:
    Service<Request<RequestBody<Body>>, Response = Response<R>, Error = Failed, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S, R> Inner<R> for S where
    S: Service<Request<RequestBody<Body>>, Response = Response<R>, Error = Failed, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// Creates an inner service from an async function.
pub(crate) fn inner<F, Fut, R>(function: F) -> impl Inner<R>
where
    F: Fn(Request<RequestBody<Body>>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<Response<R>, Failed>> + Send + 'static,
{
    service_fn(function)
}

/// The error of an inner service. No client may receive its text.
#[derive(Debug)]
pub(crate) struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the password of the database is 'sesame'")
    }
}

impl error::Error for Failed {}

pub(crate) fn ok(body: &'static str) -> Result<Response<Body>, Failed> {
    Ok(Response::new(Body::from(body)))
}

/// Counts occurrences, from any thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counter(Arc<AtomicUsize>);

impl Counter {
    pub(crate) fn up(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Increments a counter when it is dropped.
pub(crate) struct OnDrop(pub(crate) Counter);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.up();
    }
}
