use std::{future::ready, net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::{net::TcpListener, time::interval};
use tower::BoxError;

/// The bounds of what is told in seconds: from what is hardly worth a 202 to what takes an hour.
const SECONDS: [f64; 10] = [0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];

/// How often what has been recorded is put in order, scraped or not.
const UPKEEP: Duration = Duration::from_secs(5);

/// Records the process's metrics from now on, and serves them at `/metrics`.
pub(crate) async fn serve(address: &str) -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let address = listener.local_addr()?;
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()?;
    // Both go with the process.
    tokio::spawn({
        let recorder = recorder.clone();
        async move {
            let mut upkeep = interval(UPKEEP);
            loop {
                upkeep.tick().await;
                recorder.run_upkeep();
            }
        }
    });
    let scrape = get(move || ready(recorder.render()));
    let router = Router::new().route("/metrics", scrape);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}
