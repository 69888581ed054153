//! What the benchmarks measure: the work, the requests for it, and those who answer them.

#![allow(dead_code)] // each benchmark has use for a part of it

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

/// The requests' body: not axum's own, as hyper's is not, so that axum boxes it on both sides.
pub(crate) type RequestBody = Full<Bytes>;

/// How many calls are made before the jobs they left get to run: what tokio's scheduler runs in one
/// turn.
pub(crate) const BATCH: usize = 60;

const REPORT: [u8; 100] = [b'7'; 100];

/// The inner handler, the same for the layer and for the handwritten one: three headers and 100 bytes,
/// ready at once.
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

/// The application without any 202.
pub(crate) fn application() -> Router {
    Router::new().route("/reports", post(render))
}

/// The same work without axum's routing.
pub(crate) async fn without_router<B: Body<Error = Infallible>>(
    request: Request<B>,
) -> Result<axum::response::Response, Infallible> {
    let body = request.into_body().collect().await?.to_bytes();
    Ok(render(body).await.into_response())
}

/// A service without a framework, that has answered when its call returns: what a layer adds shows best
/// around as little as can be.
pub(crate) fn bare<B>(request: Request<B>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    black_box(request);
    ready(Ok(Response::new(Full::new(Bytes::from_static(&REPORT)))))
}

/// A registry in which a million jobs stay for as long as a benchmark takes.
pub(crate) fn registry() -> Jobs {
    Jobs::builder()
        .max_bytes(usize::MAX)
        .retain(Duration::from_secs(24 * 3600))
        .build()
}

/// A request for work.
pub(crate) fn submission() -> Request<RequestBody> {
    Request::post("/reports")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::from("{\"month\":\"2026-11\"}"))
        .expect("a request")
}

/// A request of another method, without a body.
pub(crate) fn request(method: &str, path: &str) -> Request<RequestBody> {
    let request = Request::builder().method(method).uri(path);
    request.body(Full::default()).expect("a request")
}

/// A service that answers 202 with the `Location` of a job, and the jobs it keeps.
#[derive(Debug)]
pub(crate) struct Subject<S> {
    service: S,
    residents: Vec<String>,
    /// Which resident is read next.
    next: usize,
}

impl<S> Subject<S> {
    /// A service that keeps no job yet.
    pub(crate) fn new(service: S) -> Self {
        Self {
            service,
            residents: Vec::new(),
            next: 0,
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
    /// Makes one call and takes its answer to the end, as a server would.
    pub(crate) async fn serve(&mut self, request: Request<RequestBody>) -> Response<()> {
        let response = self.service.call(request).await.map_err(Into::into);
        let (head, mut body) = response.expect("an answer").into_parts();
        while let Some(frame) = body.frame().await {
            black_box(frame.map_err(Into::into).expect("a frame"));
        }
        Response::from_parts(head, ())
    }

    /// Makes so many calls, one after the other.
    pub(crate) async fn serve_all(
        &mut self,
        calls: usize,
        request: impl Fn() -> Request<RequestBody>,
    ) {
        for _ in 0..calls {
            black_box(self.serve(request()).await);
        }
    }

    /// The processor time that these requests take, one after the other.
    pub(crate) async fn time(&mut self, requests: Vec<Request<RequestBody>>) -> Duration {
        let start = processor_time();
        for request in requests {
            black_box(self.serve(request).await);
        }
        processor_time() - start
    }

    /// The processor time of `calls` requests for work to their 202.
    pub(crate) async fn accept(&mut self, calls: usize) -> Duration {
        let (requests, mut accepted) = submissions(calls);
        let start = processor_time();
        self.submit(requests, &mut accepted).await;
        let time = processor_time() - start;
        yield_now().await;
        self.forget(&accepted).await;
        time
    }

    /// The processor time of `calls` requests for work until their jobs have ended.
    pub(crate) async fn accept_to_end(&mut self, calls: usize) -> Duration {
        let (requests, mut accepted) = submissions(calls);
        let start = processor_time();
        self.submit(requests, &mut accepted).await;
        yield_now().await;
        let time = processor_time() - start;
        self.forget(&accepted).await;
        time
    }

    /// Makes these calls and notes where their jobs are; each answer is gone before the next request comes,
    /// as a server's is.
    async fn submit(&mut self, requests: Vec<Request<RequestBody>>, accepted: &mut String) {
        for request in requests {
            let answer = self.serve(request).await;
            accepted.push_str(location(&answer));
            accepted.push('\n');
        }
    }

    /// The processor time of reads of the status of residents, all over the map.
    pub(crate) async fn status(&mut self, calls: usize) -> Duration {
        let reads = self.reads(calls);
        self.time(reads).await
    }

    /// Requests for the status of residents, none next to the last.
    pub(crate) fn reads(&mut self, calls: usize) -> Vec<Request<RequestBody>> {
        let reads = (0..calls).map(|_| {
            // A prime, so that every resident comes in its turn.
            self.next = (self.next + 514_229) % self.residents.len();
            request("GET", &self.residents[self.next])
        });
        reads.collect()
    }

    /// Sees to it that this many ended jobs are kept.
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

    /// Forgets the jobs that were just accepted, so that there are as many residents as before.
    async fn forget(&mut self, accepted: &str) {
        if let Some(last) = accepted.lines().last() {
            self.assert_ended(last).await;
        }
        for path in accepted.lines() {
            let answer = self.serve(request("DELETE", path)).await;
            assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        }
    }

    /// What was measured as a job that ended did end.
    async fn assert_ended(&mut self, path: &str) {
        let result = self.serve(request("GET", &format!("{path}/result"))).await;
        assert_eq!(result.status(), StatusCode::OK, "{path} has not ended");
        assert!(result.headers().contains_key("x-request-id"));
    }
}

/// What this thread has had of a processor. Of a machine that others use too this is the better clock:
/// it stands still while they have their turn.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.try_into().expect("not before its start")
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
