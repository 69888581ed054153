//! Bounds on heap use, counted for the thread of each test.

mod compare;
mod model;
mod site;

use std::{convert::Infallible, time::Duration};

use allocation_counter::measure;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, header};
use http_body_util::Full;
use tokio::{runtime::Runtime, task::yield_now, time::sleep};
use tower::{Layer, Service, service_fn};
use tower_accepted::{Jobs, RequestBody, When};

type Body = Full<Bytes>;

#[test]
fn passed_through_request_costs_no_allocation() {
    let mut bare = service_fn(answer::<Body>);
    for (when, method) in [(When::Always, "GET"), (When::Preferred, "POST")] {
        let mut layered = Jobs::new().layer().when(when).layer(service_fn(answer));
        let alone = allocations(&mut bare, request(method, "{}"));
        let layered = allocations(&mut layered, request(method, "{}"));
        assert_eq!(layered, alone, "{when:?}");
    }
}

#[test]
fn immediately_ready_call_costs_one_allocation() {
    let mut bare = service_fn(answer::<Body>);
    for after in [Duration::ZERO, Duration::from_secs(1)] {
        let layer = Jobs::new().layer().when(When::After(after));
        let mut layered = layer.layer(service_fn(answer));
        for body in ["", "{\"month\":\"2026-11\"}"] {
            let alone = allocations(&mut bare, request("POST", body));
            let layered = allocations(&mut layered, request("POST", body));
            assert_eq!(
                layered,
                alone + 1,
                "after {after:?}, with a body of {body:?}"
            );
        }
    }
}

#[test]
fn ended_job_takes_300_bytes() {
    let small = Bytes::from_static(&[b'7'; 100]);
    let bytes = bytes_per_job(move || small.clone());
    assert!(bytes <= 300, "{bytes} bytes");
}

#[test]
fn small_result_does_not_keep_its_read_buffer() {
    let bytes = bytes_per_job(|| Bytes::from(vec![b'7'; 8192]).slice(1000..1100));
    assert!(bytes <= 300, "{bytes} bytes");
}

#[test]
fn unfinished_job_takes_850_bytes_and_its_future() {
    const JOBS: usize = 2_000;
    fn size_of_output<A, F>(_: &impl Fn(A) -> F) -> i64 {
        size_of::<F>() as i64
    }
    let inner = |request: Request<RequestBody<Body>>| {
        drop(request);
        async {
            sleep(Duration::from_secs(3600)).await;
            Ok::<_, Infallible>(Response::new(Body::default()))
        }
    };
    let future = size_of_output(&inner);
    let runtime = runtime();
    let jobs = Jobs::builder().max_bytes(usize::MAX).build();
    let mut service = jobs.layer().layer(service_fn(inner));
    let heap = measure(|| {
        runtime.block_on(async {
            for _ in 0..JOBS {
                let accepted = service.call(request("POST", "")).await;
                assert_eq!(accepted.expect("an answer").status(), 202);
                yield_now().await;
            }
        });
    });
    assert_eq!(jobs.unfinished(), JOBS);
    let bytes = heap.bytes_current / JOBS as i64 - future;
    // Of these, 184 are the timer and the waiter that stop the call, and 32 its charges.
    assert!(bytes <= 850, "{bytes} bytes");
}

#[test]
fn status_read_frees_everything() {
    let runtime = runtime();
    let mut service = Jobs::new().layer().layer(service_fn(answer));
    let accepted = runtime.block_on(async {
        let accepted = service.call(request("POST", "")).await;
        yield_now().await;
        accepted.expect("an answer")
    });
    let location = accepted.headers()[header::LOCATION].as_bytes();
    let mut read = || {
        let status = Request::get(location).body(Body::default());
        let answer = service.call(status.expect("a request")).now_or_never();
        assert_eq!(
            answer.expect("ready at once").expect("an answer").status(),
            200
        );
    };
    read();
    let left = measure(read);
    assert!(left.count_total > 0, "no allocation was counted");
    assert_eq!((left.count_current, left.bytes_current), (0, 0));
}

/// Answers with three headers and 100 bytes.
async fn answer<B>(_: Request<B>) -> Result<Response<Body>, Infallible> {
    Ok(report(Bytes::from_static(&[b'7'; 100])))
}

fn report(body: Bytes) -> Response<Body> {
    let report = Response::builder()
        .header(header::CONTENT_TYPE, "text/csv; charset=utf-8")
        .header(header::ETAG, "\"6a1f9c52e0b84d37\"")
        .header("x-request-id", "9f1c4e7a2b8d4056a3e1c07d5b92f864");
    report.body(Full::new(body)).expect("a response")
}

fn request(method: &str, body: &'static str) -> Request<Body> {
    let request = Request::builder().method(method).uri("/reports");
    request.body(Full::from(body)).expect("a request")
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a runtime")
}

/// Counts the allocations of one call that is ready at its first poll.
fn allocations<S: Service<Request<Body>>>(service: &mut S, request: Request<Body>) -> u64 {
    // The first call creates what is created once, such as the thread's random generator.
    let mut call = |request| drop(service.call(request).now_or_never().expect("ready at once"));
    call(self::request(request.method().as_str(), ""));
    measure(|| call(request)).count_total
}

/// Measures the heap bytes per job after many jobs have ended with this body. Tables of a limited
/// size are full before.
fn bytes_per_job(body: impl Fn() -> Bytes + Clone + Send + 'static) -> i64 {
    const FIRST: usize = 10_000;
    const JOBS: usize = 20_000;
    let runtime = runtime();
    let jobs = Jobs::builder().max_bytes(usize::MAX).build();
    let inner = move |_: Request<RequestBody<Body>>| {
        let report = report(body());
        async { Ok::<_, Infallible>(report) }
    };
    let mut service = jobs.layer().layer(service_fn(inner));
    let mut run = |number: usize| {
        runtime.block_on(async {
            for job in 1..=number {
                let accepted = service.call(request("POST", "")).await;
                assert_eq!(accepted.expect("an answer").status(), 202);
                while jobs.unfinished() > 0 && job % 50 == 0 {
                    yield_now().await;
                }
            }
        });
    };
    run(FIRST);
    let heap = measure(|| run(JOBS));
    assert_eq!(jobs.unfinished(), 0);
    heap.bytes_current / JOBS as i64
}
