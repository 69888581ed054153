//! What Prometheus finds at the gateway.

use std::net::SocketAddr;

use crate::{
    client::{ended, get, post},
    program::Program,
    upstream::Upstream,
};

#[tokio::test]
async fn a_scrape_tells_of_jobs_and_of_how_long_they_took() {
    let mut upstream = Upstream::start().await;
    let flags = ["--always", "--metrics", "127.0.0.1:0"];
    let mut gateway = Program::gateway(upstream.address, &flags).await;
    let metrics: SocketAddr = loop {
        let line = gateway.line().await.expect("where the metrics are");
        if let Some(address) = line.strip_prefix("Metrics at http://") {
            let address = address.strip_suffix("/metrics.").expect("the path");
            break address.parse().expect("an address");
        }
    };
    let job = post(gateway.address, "/reports/17", "").await.job();
    upstream.next().await.ok("report").await;
    ended(gateway.address, &job).await;
    let scrape = get(metrics, "/metrics").await.body;
    let scrape = str::from_utf8(&scrape).expect("text");
    for line in [
        "# TYPE tower_accepted_accepted_total counter",
        "tower_accepted_accepted_total 1",
        "tower_accepted_ended_total{end=\"succeeded\"} 1",
        "tower_accepted_run_seconds_count{kind=\"POST /reports/{}\"} 1",
        "tower_accepted_queue_seconds_bucket{kind=\"POST /reports/{}\",le=\"3600\"} 1",
    ] {
        assert!(
            scrape.lines().any(|found| found == line),
            "no {line} in\n{scrape}"
        );
    }
}
