//! The services that the benchmarks compare, and the requests to them.

#![allow(dead_code)] // each benchmark uses a part of it

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    time::Duration,
};

use axum::{Router, response::IntoResponse, routing::post};
use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use rustix::time::{ClockId, clock_gettime};
use tokio::task::yield_now;
use tower::{BoxError, Service};
use tower_accepted::Jobs;

/// The body of requests. Like hyper's, it is not axum's own, so axum boxes it on both sides.
pub(crate) type RequestBody = Full<Bytes>;

/// The number of calls before their jobs run: about what tokio's scheduler polls in one turn.
pub(crate) const BATCH: usize = 60;

const REPORT: [u8; 100] = [b'7'; 100];

/// The inner handler on both sides: three headers and 100 bytes, ready at its first poll.
pub(crate) async fn render(body: Bytes) -> impl IntoResponse {
    black_box(body);
    let head = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::ETAG, "\"6a1f9c52e0b84d37\""),
        (
            HeaderName::from_static("x-request-id"),
            "9f1c4e7a2b8d4056a3e1c07d5b92f864",
        ),
    ];
    (head, Bytes::from_static(&REPORT))
}

/// Creates the application without a 202.
pub(crate) fn application() -> Router {
    Router::new().route("/reports", post(render))
}

/// Does the same work without axum's routing.
pub(crate) async fn without_router<B: Body<Error = Infallible>>(
    request: Request<B>,
) -> Result<axum::response::Response, Infallible> {
    let body = request.into_body().collect().await?.to_bytes();
    Ok(render(body).await.into_response())
}

/// Answers without a framework, and before its call returns, so that it adds little to the layer.
pub(crate) fn bare<B>(request: Request<B>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    black_box(request);
    ready(Ok(Response::new(Full::new(Bytes::from_static(&REPORT)))))
}

/// Creates a registry that keeps a million jobs for the whole benchmark.
pub(crate) fn registry() -> Jobs {
    Jobs::builder()
        .max_bytes(usize::MAX)
        .retain(Duration::from_secs(24 * 3600))
        .build()
}

/// Creates a request that becomes a job.
pub(crate) fn submission() -> Request<RequestBody> {
    Request::post("/reports")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::from("{\"month\":\"2026-11\"}"))
        .expect("a request")
}

/// Creates a request without a body.
pub(crate) fn request(method: &str, path: &str) -> Request<RequestBody> {
    let request = Request::builder().method(method).uri(path);
    request.body(Full::default()).expect("a request")
}

/// A service that answers 202 with the `Location` of a job, and the ended jobs that it keeps.
#[derive(Debug)]
pub(crate) struct Subject<S> {
    service: S,
    residents: Vec<String>,
    /// The index of the resident that was read last.
    last_read: usize,
}

impl<S> Subject<S> {
    /// Creates a subject without residents.
    pub(crate) fn new(service: S) -> Self {
        Self {
            service,
            residents: Vec::new(),
            last_read: 0,
        }
    }
}

impl<S, R> Subject<S>
where
    S: Service<Request<RequestBody>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body + Unpin,
    R::Error: Into<BoxError>,
{
    /// Makes one call and reads its response to the end, as a server would.
    pub(crate) async fn serve(&mut self, request: Request<RequestBody>) -> Response<()> {
        let response = self.service.call(request).await.map_err(Into::into);
        let (head, mut body) = response.expect("an answer").into_parts();
        while let Some(frame) = body.frame().await {
            black_box(frame.map_err(Into::into).expect("a frame"));
        }
        Response::from_parts(head, ())
    }

    /// Makes calls one after another.
    pub(crate) async fn serve_all(
        &mut self,
        calls: usize,
        request: impl Fn() -> Request<RequestBody>,
    ) {
        for _ in 0..calls {
            black_box(self.serve(request()).await);
        }
    }

    /// Measures the processor time of these requests, one after another.
    pub(crate) async fn time(&mut self, requests: Vec<Request<RequestBody>>) -> Duration {
        let start = processor_time();
        for request in requests {
            black_box(self.serve(request).await);
        }
        processor_time() - start
    }

    /// Measures the processor time of submissions until their 202.
    pub(crate) async fn accept(&mut self, calls: usize) -> Duration {
        let (requests, mut accepted) = submissions(calls);
        let start = processor_time();
        self.submit(requests, &mut accepted).await;
        let time = processor_time() - start;
        yield_now().await;
        self.delete(&accepted).await;
        time
    }

    /// Measures the processor time of submissions until their jobs have ended.
    pub(crate) async fn accept_to_end(&mut self, calls: usize) -> Duration {
        let (requests, mut accepted) = submissions(calls);
        let start = processor_time();
        self.submit(requests, &mut accepted).await;
        yield_now().await;
        let time = processor_time() - start;
        self.delete(&accepted).await;
        time
    }

    /// Makes these calls and collects the locations of their jobs. Each answer is dropped before
    /// the next request, as in a server.
    async fn submit(&mut self, requests: Vec<Request<RequestBody>>, accepted: &mut String) {
        for request in requests {
            let answer = self.serve(request).await;
            accepted.push_str(location(&answer));
            accepted.push('\n');
        }
    }

    /// Measures the processor time of status reads, spread over the residents.
    pub(crate) async fn status(&mut self, calls: usize) -> Duration {
        let reads = self.reads(calls);
        self.time(reads).await
    }

    /// Creates requests for the status of residents, far from each other in the map.
    pub(crate) fn reads(&mut self, calls: usize) -> Vec<Request<RequestBody>> {
        let reads = (0..calls).map(|_| {
            // A prime step, so that every resident is read.
            self.last_read = (self.last_read + 514_229) % self.residents.len();
            request("GET", &self.residents[self.last_read])
        });
        reads.collect()
    }

    /// Submits jobs until this many ended ones are kept.
    pub(crate) async fn grow_to(&mut self, residents: usize) {
        while self.residents.len() < residents {
            for _ in 0..BATCH.min(residents - self.residents.len()) {
                let accepted = self.serve(submission()).await;
                self.residents.push(location(&accepted).to_owned());
            }
            yield_now().await;
        }
        if let Some(last) = self.residents.last().cloned() {
            self.assert_ended(&last).await;
        }
    }

    /// Deletes the jobs that were just accepted, so that the number of residents stays.
    async fn delete(&mut self, accepted: &str) {
        if let Some(last) = accepted.lines().last() {
            self.assert_ended(last).await;
        }
        for path in accepted.lines() {
            let answer = self.serve(request("DELETE", path)).await;
            assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        }
    }

    /// Asserts that a job has ended with the response of the inner service.
    async fn assert_ended(&mut self, path: &str) {
        let result = self.serve(request("GET", &format!("{path}/result"))).await;
        assert_eq!(result.status(), StatusCode::OK, "{path} has not ended");
        assert!(result.headers().contains_key("x-request-id"));
    }
}

/// Returns the processor time of this thread, which excludes what else runs on the machine.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.try_into().expect("a positive time")
}

fn submissions(calls: usize) -> (Vec<Request<RequestBody>>, String) {
    let requests = (0..calls).map(|_| submission()).collect();
    (requests, String::with_capacity(calls * 64))
}

fn location(accepted: &Response<()>) -> &str {
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    let location = accepted.headers().get(header::LOCATION);
    location
        .and_then(|location| location.to_str().ok())
        .expect("a 202 has a Location")
}
