//! A store of your own, written against the public API alone.
//!
//! ```text
//! cargo run --example custom_store
//! ```
//!
//! The store is in `store.rs`. The tests run it through `store::conformance`, the checks that every
//! store must pass. This program submits a request to a layer on that store, waits for the job, and
//! prints the result.

mod store;
mod writer;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::sleep;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_accepted::{Jobs, RequestBody, store::Budget};

use self::store::MapStore;

/// Takes a second. It is an ordinary service, which does not know about jobs.
async fn render_report(
    request: Request<RequestBody<Full<Bytes>>>,
) -> Result<Response<Full<Bytes>>, BoxError> {
    let subject = request.into_body().collect().await?.to_bytes();
    sleep(Duration::from_secs(1)).await;
    let report = [b"the report on ", &subject[..]].concat();
    Ok(Response::new(Full::from(report)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let store = MapStore::new(Duration::from_secs(3600), Budget::new(64 << 20));
    let jobs = Jobs::builder().store(store).build();
    let service = jobs.layer().layer(service_fn(render_report));

    let request = Request::post("/reports").body(Full::from("Rust"))?;
    let accepted = service.clone().oneshot(request).await?;
    let monitor = accepted.headers()["location"].to_str()?.to_owned();
    println!("{}: {monitor}", accepted.status());

    let request = Request::get(format!("{monitor}/result")).header("prefer", "wait=10");
    let result = service.oneshot(request.body(Full::default())?).await?;
    let status = result.status();
    let body = result.into_body().collect().await?.to_bytes();
    println!("{status}: {}", str::from_utf8(&body)?);
    Ok(())
}
