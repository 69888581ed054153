//! Status reads of a job that the process knows, beside the store in memory.

use std::time::{Duration, Instant};

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tower::{BoxError, Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_accepted::{Jobs, RequestBody, store::Store};

use crate::load::{Scratch, store};

const ROUNDS: usize = 41;
const READS: u32 = 20_000;

type Site = BoxCloneSyncService<Request<Body>, http::Response<Body>, BoxError>;

/// Returns a site with a job that runs, and the address of its monitor.
async fn running<St: Store>(jobs: &Jobs<St>) -> (Site, String) {
    let hanging = service_fn(|_: Request<RequestBody<Body>>| async {
        std::future::pending::<()>().await;
        Ok::<_, BoxError>(http::Response::new(Body::empty()))
    });
    let site = jobs.layer().layer(hanging);
    let site = site.map_response(|response: http::Response<_>| response.map(Body::new));
    let site = site.map_request(|request: Request<Body>| request);
    let site = BoxCloneSyncService::new(site);
    let request = Request::put("/reports")
        .body(Body::empty())
        .expect("a request");
    let accepted = site.clone().oneshot(request).await.expect("an answer");
    let location = accepted.headers()["location"].to_str().expect("a path");
    let location = location.to_owned();
    (site, location)
}

async fn time_reads((site, location): &(Site, String)) -> Duration {
    let begun = Instant::now();
    for _ in 0..READS {
        let request = Request::get(location)
            .body(Body::empty())
            .expect("a request");
        let answer = site.clone().oneshot(request).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        answer.into_body().collect().await.expect("a document");
    }
    begun.elapsed()
}

pub(crate) async fn print(scratch: &Scratch) {
    let memory = Jobs::new();
    let file = store(scratch.file()).await;
    let file = Jobs::builder().store(file).build();
    let (memory, file) = (running(&memory).await, running(&file).await);
    // Its start is written a moment later.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut ratios = Vec::new();
    let mut nanos = Vec::new();
    for _ in 0..ROUNDS {
        let in_memory = time_reads(&memory).await;
        let in_file = time_reads(&file).await;
        ratios.push(in_file.as_secs_f64() / in_memory.as_secs_f64());
        nanos.push(in_file.as_nanos() as f64 / f64::from(READS));
    }
    ratios.sort_by(f64::total_cmp);
    nanos.sort_by(f64::total_cmp);
    println!("\n| operation | ns | ratio to memory, median (range of nine in ten) |");
    println!("|---|---|---|");
    println!(
        "| status read of a known job | {:.0} | {:.3} ({:.3} to {:.3}) |",
        nanos[ROUNDS / 2],
        ratios[ROUNDS / 2],
        ratios[ROUNDS / 20],
        ratios[ROUNDS - 1 - ROUNDS / 20],
    );
}
