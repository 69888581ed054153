//! Accepts a second, in one process.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use tower::{BoxError, Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_accepted::{Jobs, RequestBody, store::Store};

use crate::{
    append, jetstream,
    load::{self, BODY_BYTES, IN_FLIGHT, Scratch, Times, measure_warm, store},
};

type Response = http::Response<Body>;

/// Returns a service whose calls never end, or end at once.
fn service(ends: bool) -> BoxCloneSyncService<Request<RequestBody<Body>>, Response, BoxError> {
    BoxCloneSyncService::new(service_fn(move |_| async move {
        if !ends {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(Body::from("done")))
    }))
}

pub(crate) fn request(method: Method) -> Request<Body> {
    let request = Request::builder().method(method).uri("/reports");
    let request = request.header("content-type", "application/json");
    request
        .body(Body::from(vec![7; BODY_BYTES]))
        .expect("a request")
}

/// Measures accepts of a registry.
pub(crate) async fn measure<St: Store>(
    jobs: &Jobs<St>,
    in_flight: usize,
    method: &Method,
    ends: bool,
) -> Times {
    let site = jobs.layer().layer(service(ends));
    let times = measure_warm(in_flight, || {
        let answering = site.clone().oneshot(request(method.clone()));
        async {
            let answer = answering.await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::ACCEPTED);
        }
    });
    times.await
}

pub(crate) async fn print(scratch: &Scratch) {
    println!("| operation | in flight | per second | p50 ms | p99 ms | p99.9 ms | of raw append |");
    println!("|---|---|---|---|---|---|---|");
    for in_flight in IN_FLIGHT {
        let raw = append::measure(scratch.file(), in_flight).await;
        println!("| raw append | {in_flight} | {} | 1 |", raw.cells());
        for (name, method, ends) in [
            ("accept, may run again", Method::PUT, false),
            ("accept, begins once", Method::POST, false),
            ("accept and run", Method::PUT, true),
        ] {
            let store = store(scratch.file()).await;
            let jobs = load::jobs(store);
            let times = measure(&jobs, in_flight, &method, ends).await;
            let ratio = times.per_second() / raw.per_second();
            println!("| {name} | {in_flight} | {} | {ratio:.2} |", times.cells());
        }
        match jetstream::measure(in_flight).await {
            Some(times) => {
                let ratio = times.per_second() / raw.per_second();
                println!(
                    "| JetStream | {in_flight} | {} | {ratio:.2} |",
                    times.cells()
                );
            }
            None => println!("| JetStream | {in_flight} | not measured | | | | |"),
        }
    }
}
