//! The time of a progress report in the inner service, when no client watches the job.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{Request, Response};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_accepted::{AcceptedLayer, JobHandle, RequestBody};

type Body = http_body_util::Empty<bytes::Bytes>;

/// Returns the handle of a job that runs as long as its runtime.
fn handle(runtime: &tokio::runtime::Runtime) -> JobHandle {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let sender = std::sync::Arc::new(std::sync::Mutex::new(Some(sender)));
    let service = AcceptedLayer::new().layer(service_fn(move |_: Request<RequestBody<Body>>| {
        let sender = sender.clone();
        async move {
            let sender = sender.lock().expect("not poisoned").take();
            let _ = sender.expect("one call").send(JobHandle::current());
            std::future::pending::<Result<Response<Body>, BoxError>>().await
        }
    }));
    runtime.block_on(async {
        let request = Request::post("/").body(Body::default()).expect("a request");
        service.oneshot(request).await.expect("an answer");
        receiver.await.expect("the call has started")
    })
}

fn progress(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let job = handle(&runtime);
    let mut done = 0.0;
    criterion.bench_function("report progress", |bencher| {
        bencher.iter(|| {
            done = (done + 1e-6) % 1.0;
            job.progress(black_box(done));
        });
    });
    criterion.bench_function("report a message", |bencher| {
        bencher.iter(|| job.message(black_box("page 4 of 10")));
    });
}

criterion_group!(benches, progress);
criterion_main!(benches);
